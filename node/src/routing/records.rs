//! The provider records this node keeps, as the library asks for them.
//!
//! Kademlia asks and tells synchronously inside the swarm's loop, so nothing here touches a disk. Values
//! (`PUT_VALUE`) are refused: nothing here can validate them.

pub(crate) use crate::dht::providers::RECORD_LIFE;
use crate::dht::providers::{NotKept, Providers};
use crate::network::Network;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use libp2p::{Multiaddr, PeerId};
use std::borrow::Cow;
use std::iter;
use std::time::Instant;

/// What is kept, behind the library's trait.
#[derive(Debug)]
pub(crate) struct Records {
    local: PeerId,
    providers: Providers,
}

impl Records {
    pub(crate) fn new(local: PeerId, network: Network, records_max: usize) -> Self {
        Self {
            local,
            providers: Providers::new(local, network, records_max),
        }
    }

    /// How many records of others are kept.
    pub(crate) fn held(&self) -> usize {
        self.providers.held()
    }

    /// Whether the key is one that a record may have.
    pub(crate) fn is_key(key: &RecordKey) -> bool {
        Providers::is_key(key.as_ref())
    }

    /// The addresses a provider gave, within our network.
    pub(crate) fn addresses(&self, provider: &PeerId) -> Vec<Multiaddr> {
        self.providers.addresses(provider)
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        let ours = record.provider == self.local;
        let (key, now) = (record.key.as_ref(), Instant::now());
        let added = self
            .providers
            .add(key, record.provider, record.addresses, now);
        match added {
            Ok(()) => Ok(()),
            // Others can be told even if we could not keep a note of it ourselves.
            Err(NotKept::Full) if ours => Ok(()),
            Err(NotKept::Full) => Err(Error::MaxProvidedKeys),
            Err(NotKept::Key) => Err(Error::ValueTooLarge),
        }
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        // Those that expired are left out already.
        let known = self.providers.of(key.as_ref(), Instant::now());
        let records = known.map(|(provider, addresses)| ProviderRecord {
            key: key.clone(),
            provider,
            expires: None,
            addresses,
        });
        records.collect()
    }

    /// Nothing: providing again is `jobs/reprovide.rs`'s work, not the library's.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.providers.remove(key.as_ref(), provider);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_refused_and_our_own_records_never() {
        let local = PeerId::random();
        let mut records = Records::new(local, Network::Local, 1);
        let key = RecordKey::new(b"/ipns/x");
        assert!(records.put(Record::new(key.clone(), vec![1])).is_err());
        assert!(records.get(&key).is_none());
        let of = |provider| ProviderRecord::new(key.clone(), provider, Vec::new());
        for provider in [PeerId::random(), local] {
            records.add_provider(of(provider)).unwrap();
        }
        assert!(records.add_provider(of(PeerId::random())).is_err());
        assert_eq!(RecordStore::providers(&records, &key).len(), 2);
        assert_eq!(records.held(), 1);
    }
}
