//! What this node tells whoever asks over HTTP: what the DHT says, what is here, and where it is itself; and what it
//! has kept for them.
//!
//! Never by asking or telling routers of its own: two nodes that are each other's routers would ask one another for ever,
//! and what strangers look up is not told to third parties. That a block is here is told only where a stranger
//! would be given it, and of addresses only those that others may be told.

use super::{Provider, Record, Routing, RoutingError};
use crate::bitswap::policy::{Policy, Verdict};
use crate::denylist::{Denial, Denylist};
use crate::dht::place::Place;
use crate::ipns;
use crate::name::path::Root;
use crate::network::Network;
use crate::swarm::Peers;
use cairn_store::{Cid, Store};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use libp2p::PeerId;
use std::future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Who has what, for others. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    routing: Routing,
    peers: Peers,
    store: Store,
    network: Network,
    policy: Arc<dyn Policy>,
    denylist: Denylist,
    /// Nobody in particular.
    stranger: PeerId,
}

impl Directory {
    pub(crate) fn new(
        (routing, peers): (Routing, Peers),
        store: Store,
        network: Network,
        policy: Arc<dyn Policy>,
    ) -> Self {
        Self {
            routing,
            peers,
            store,
            network,
            policy,
            denylist: Denylist::default(),
            stranger: PeerId::random(),
        }
    }

    /// The same, telling nothing of what a denylist names.
    pub(crate) fn denying(self, denylist: Denylist) -> Self {
        Self { denylist, ..self }
    }

    /// Who has `cid`, at most `limit` of them: this node if it does, then whom the DHT finds. An error comes last.
    /// Of what is denied here nobody is looked for.
    pub fn providers(
        &self,
        cid: Cid,
        limit: usize,
    ) -> BoxStream<'static, Result<Record, RoutingError>> {
        if self.denylist.check_block(&cid).is_err() {
            return stream::empty().boxed();
        }
        let (this, local) = (self.clone(), self.peers.local());
        let own = async move { this.own_record_of(&cid).await.map(Ok) };
        let own = stream::once(own).filter_map(future::ready);
        let (this, found) = (self.clone(), self.routing.find_in_dht(cid, limit));
        let others = found.filter_map(move |found| {
            let told = match found {
                Ok(provider) if provider.peer == local => None,
                Ok(provider) => this.told(provider).map(Ok),
                Err(error) => Some(Err(error)),
            };
            future::ready(told)
        });
        own.chain(others).take(limit).boxed()
    }

    /// Where a peer is, if anybody knows.
    pub async fn peer(&self, peer: PeerId) -> Result<Option<Record>, RoutingError> {
        if peer == self.peers.local() {
            return Ok(Some(self.own_record().await));
        }
        match self.routing.find_peer_in_dht(peer).await {
            Ok(provider) => Ok(self.told(provider)),
            Err(RoutingError::PeerNotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The peers of the DHT nearest to a key, the nearest first.
    pub async fn nearest(&self, key: Vec<u8>) -> Result<Vec<Record>, RoutingError> {
        let place = Place::of(&key);
        let mut found = self.routing.nearest(key).await?;
        found.sort_by_key(|provider| place.distance(&Place::of_peer(&provider.peer)));
        found.dedup_by_key(|provider| provider.peer);
        let told = found.into_iter().filter_map(|provider| self.told(provider));
        Ok(told.take(NEAREST_MAX).collect())
    }

    /// The newest record of a name that anybody in the DHT keeps. What is denied here has none.
    pub async fn name(&self, name: PeerId) -> Result<Option<ipns::Record>, RoutingError> {
        if self.admits(name).is_err() {
            return Ok(None);
        }
        let value = self.routing.value_in_dht(ipns::key(&name)).await?;
        Ok(value.and_then(|value| ipns::Record::decode(&name, &value).ok()))
    }

    /// Has a record kept in the DHT for a stranger. Gives how many peers took it; where none did in time, it is kept
    /// here. That of a name that is denied here is not.
    pub async fn keep(&self, name: PeerId, record: Vec<u8>) -> Result<usize, RoutingError> {
        self.admits(name)?;
        let key = ipns::key(&name);
        let kept = (key.clone(), record.clone());
        let took = timeout(KEEP_TIME_MAX, self.routing.keep_in_dht(kept, self.stranger)).await;
        let took = took.unwrap_or(Err(RoutingError::LookupTooSlow));
        if let Err(
            RoutingError::NoPeers | RoutingError::ValueNotTaken | RoutingError::LookupTooSlow,
        ) = took
        {
            // What is here comes first.
            let mut values = std::pin::pin!(self.routing.values_in_dht(key));
            if let Some(Ok(value)) = values.next().await
                && value == record
            {
                return Ok(0);
            }
        }
        took
    }

    fn admits(&self, name: PeerId) -> Result<(), Denial> {
        self.denylist.check_path(&Root::Key(name).into())
    }

    async fn own_record_of(&self, cid: &Cid) -> Option<Record> {
        let gives = self.policy.decide(&self.stranger, cid) == Verdict::Serve;
        if !gives || !self.store.has(cid).await.unwrap_or(false) {
            return None;
        }
        Some(self.own_record().await)
    }

    async fn own_record(&self) -> Record {
        let mut addresses = self.peers.listening().await;
        addresses.retain(|address| self.network.announces(address));
        Record {
            peer: self.peers.local(),
            addresses,
            protocols: vec![BITSWAP.to_owned()],
        }
    }

    /// What others may be told of a peer. One that is nowhere outside of where we are is not worth it.
    fn told(&self, mut provider: Provider) -> Option<Record> {
        let had_addresses = !provider.addresses.is_empty();
        let announced = |address: &libp2p::Multiaddr| self.network.announces(address);
        provider.addresses.retain(announced);
        (!had_addresses || !provider.addresses.is_empty()).then(|| provider.into())
    }
}

/// What a peer speaks that gives blocks.
const BITSWAP: &str = "transport-bitswap";
/// How long peers may take to keep a record. Whoever hands it to us waits a little longer.
const KEEP_TIME_MAX: Duration = Duration::from_secs(30);
/// As many as a bucket of the DHT holds.
const NEAREST_MAX: usize = 20;
