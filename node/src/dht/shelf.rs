//! What the DHT's worker knows, on disk: a copy in sled of the records that are kept for others and of the peers in
//! its tables, written some time behind. A crash loses what came last; losing all of it costs a new start.
//!
//! Tree `providers`: realm, length of the key, key, peer ID -> time of expiry, addresses. Tree `values`: key -> time it
//! came, value. Tree `peers`: realm, peer ID -> addresses. Times are seconds since 1970; lists are of lengths (two
//! bytes) and bytes.

use super::providers::{self, RECORD_LIFE};
use super::table::Contact;
use super::values;
use crate::network::Realm;
use bytes::Bytes;
use cairn_store::derived;
use libp2p::{Multiaddr, PeerId};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    db: sled::Db,
    providers: sled::Tree,
    values: sled::Tree,
    peers: sled::Tree,
}

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) providers: Vec<(Realm, providers::Change)>,
    pub(crate) values: Vec<values::Change>,
    /// All peers, in place of those before.
    pub(crate) peers: Option<Vec<(Realm, Contact)>>,
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) wall: SystemTime,
}

impl Moment {
    pub(crate) fn here() -> Self {
        Self {
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    fn seconds(&self, at: Instant) -> u64 {
        let ahead = at.saturating_duration_since(self.now);
        let behind = self.now.saturating_duration_since(at);
        let wall = self.wall + ahead;
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(behind).as_secs()
    }

    /// How far ahead of this moment that is; not at all, if it is over. `None` for what is no time.
    fn ahead(&self, seconds: u64) -> Option<Duration> {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(at.duration_since(self.wall).unwrap_or_default())
    }

    /// How far behind.
    fn behind(&self, seconds: u64) -> Option<Duration> {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        self.wall.duration_since(at).ok()
    }
}

impl Shelf {
    /// Opens it, or makes it anew if it cannot be used. Takes long.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let db = derived::open_or_renew(folder, CACHE_BYTES, |why| {
            tracing::warn!(folder = %folder.display(), why, "records of the DHT could not be read and are left behind");
        })?;
        let open = || {
            Ok(Self {
                providers: db.open_tree("providers")?,
                values: db.open_tree("values")?,
                peers: db.open_tree("peers")?,
                db: db.clone(),
            })
        };
        derived::guarded(open).map_err(io::Error::other)
    }

    /// Everything that is still of use; the rest goes. If all records of a kind are too old, they stay where they are: the
    /// clock may be ahead. Takes long.
    pub(crate) fn load(&self, moment: Moment) -> io::Result<Pending> {
        let load = || {
            let mut pending = Pending::default();
            let mut old = Vec::new();
            for item in &self.providers {
                let (key, value) = item?;
                match provider_of(&key, &value, moment) {
                    Some((_, change)) if change.kept.is_none() => old.push(key),
                    Some(provider) => pending.providers.push(provider),
                    None => drop(self.providers.remove(key)?),
                }
            }
            if !pending.providers.is_empty() {
                remove(&self.providers, &mut old)?;
            }
            old.clear();
            for item in &self.values {
                let (key, value) = item?;
                match value_of(&key, &value, moment) {
                    Some(change) if change.kept.is_none() => old.push(key),
                    Some(change) => pending.values.push(change),
                    None => drop(self.values.remove(key)?),
                }
            }
            if !pending.values.is_empty() {
                remove(&self.values, &mut old)?;
            }
            let peers = self.peers.iter();
            let peers = peers.map(|item| item.map(|(key, value)| peer_of(&key, &value)));
            let peers: sled::Result<Vec<_>> = peers.collect();
            pending.peers = Some(peers?.into_iter().flatten().collect());
            Ok(pending)
        };
        derived::guarded(load).map_err(io::Error::other)
    }

    /// Writes this and waits until it is on the disk. Takes long.
    pub(crate) fn write(&self, pending: Pending, moment: Moment) -> io::Result<()> {
        let write = || {
            let mut batch = sled::Batch::default();
            for (realm, change) in pending.providers {
                let key = provider_key(realm, &change.key, &change.provider);
                match change.kept {
                    Some((addresses, expires)) => {
                        let mut value = moment.seconds(expires).to_be_bytes().to_vec();
                        put_addresses(&mut value, &addresses);
                        batch.insert(key, value);
                    }
                    None => batch.remove(key),
                }
            }
            self.providers.apply_batch(batch)?;
            let mut batch = sled::Batch::default();
            for change in pending.values {
                match change.kept {
                    Some((value, came)) => {
                        let came = moment.seconds(came).to_be_bytes();
                        batch.insert(change.key, [&came[..], &value].concat());
                    }
                    None => batch.remove(change.key),
                }
            }
            self.values.apply_batch(batch)?;
            if let Some(peers) = pending.peers {
                let mut batch = sled::Batch::default();
                for key in self.peers.iter().keys() {
                    batch.remove(key?);
                }
                for (realm, contact) in peers {
                    let mut value = Vec::new();
                    put_addresses(&mut value, &contact.addresses);
                    let key = [&[number(realm)][..], &contact.peer.to_bytes()].concat();
                    batch.insert(key, value);
                }
                self.peers.apply_batch(batch)?;
            }
            self.db.flush()?;
            Ok(())
        };
        derived::guarded(write).map_err(io::Error::other)
    }
}

fn remove(tree: &sled::Tree, keys: &mut Vec<sled::IVec>) -> sled::Result<()> {
    for key in keys.drain(..) {
        tree.remove(key)?;
    }
    Ok(())
}

const fn number(realm: Realm) -> u8 {
    match realm {
        Realm::Wan => 0,
        Realm::Lan => 1,
    }
}

const fn realm_of(number: u8) -> Option<Realm> {
    match number {
        0 => Some(Realm::Wan),
        1 => Some(Realm::Lan),
        _ => None,
    }
}

fn provider_key(realm: Realm, key: &[u8], provider: &PeerId) -> Vec<u8> {
    // Keys are of 80 bytes at most.
    let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
    [&[number(realm), length][..], key, &provider.to_bytes()].concat()
}

/// `None` for garbage; nothing is kept of what is too old.
fn provider_of(key: &[u8], value: &[u8], moment: Moment) -> Option<(Realm, providers::Change)> {
    let ([realm, length], rest) = key.split_first_chunk()?;
    let (key, provider) = rest.split_at_checked(usize::from(*length))?;
    let (expires, addresses) = value.split_first_chunk()?;
    let addresses = addresses_of(addresses)?;
    let left = moment.ahead(u64::from_be_bytes(*expires))?.min(RECORD_LIFE);
    let change = providers::Change {
        key: Bytes::copy_from_slice(key),
        provider: PeerId::from_bytes(provider).ok()?,
        kept: (!left.is_zero()).then(|| (addresses, moment.now + left)),
    };
    Some((realm_of(*realm)?, change))
}

/// The same.
fn value_of(key: &[u8], value: &[u8], moment: Moment) -> Option<values::Change> {
    let (came, value) = value.split_first_chunk()?;
    // What came later than now was written while the clock was ahead, or is read while it is behind.
    let age = (moment.behind(u64::from_be_bytes(*came))).unwrap_or_default();
    values::Key::parse(key)?;
    let came = moment.now.checked_sub(age);
    let came = came.filter(|_| age < values::LIFE);
    Some(values::Change {
        key: key.to_vec(),
        kept: came.map(|came| (value.to_vec(), came)),
    })
}

fn peer_of(key: &[u8], value: &[u8]) -> Option<(Realm, Contact)> {
    let (realm, peer) = key.split_first()?;
    let peer = PeerId::from_bytes(peer).ok()?;
    Some((realm_of(*realm)?, Contact::new(peer, addresses_of(value)?)))
}

fn put_addresses(out: &mut Vec<u8>, addresses: &[Multiaddr]) {
    for address in addresses {
        if let Ok(length) = u16::try_from(address.len()) {
            out.extend(length.to_be_bytes());
            out.extend(address.as_ref());
        }
    }
}

fn addresses_of(mut bytes: &[u8]) -> Option<Vec<Multiaddr>> {
    let mut addresses = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (address, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        addresses.push(Multiaddr::try_from(address.to_vec()).ok()?);
        bytes = rest;
    }
    bytes.is_empty().then_some(addresses)
}

/// What sled may keep in memory: it is written, and read once.
const CACHE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()
    }

    fn provider(key: u8, kept: Option<(Vec<Multiaddr>, Instant)>) -> providers::Change {
        let name = crate::dht::tests::contact(key.into()).peer;
        providers::Change {
            key: Bytes::copy_from_slice(&[key; 34]),
            provider: name,
            kept,
        }
    }

    fn whole_seconds() -> Moment {
        let wall = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Moment {
            now: Instant::now(),
            wall,
        }
    }

    #[test]
    fn what_is_written_is_there_again_and_what_expired_or_went_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dht");
        let moment = whole_seconds();
        let hour = Duration::from_secs(3600);
        let kept = |hours: u32| Some((vec![address(1), address(2)], moment.now + hour * hours));
        let [one, two, three] = [1, 2, 3].map(|key| provider(key, kept(key.into())));
        let value = values::Change {
            key: crate::ipns::key(&one.provider),
            kept: Some((vec![7; 300], moment.now)),
        };
        let contact = Contact::new(two.provider, vec![address(3)]);
        let shelf = Shelf::open(&path).unwrap();
        let all = [one, two.clone(), three].map(|change| (Realm::Lan, change));
        let pending = Pending {
            providers: all.to_vec(),
            values: vec![value.clone()],
            peers: Some(vec![(Realm::Wan, contact.clone())]),
        };
        shelf.write(pending, moment).unwrap();
        let gone = Pending {
            providers: vec![(Realm::Lan, provider(3, None))],
            ..Pending::default()
        };
        shelf.write(gone, moment).unwrap();
        drop(shelf);

        let later = Moment {
            now: moment.now + hour,
            wall: moment.wall + hour,
        };
        let shelf = Shelf::open(&path).unwrap();
        let loaded = shelf.load(later).unwrap();
        assert_eq!(loaded.providers, [(Realm::Lan, two)]);
        assert_eq!(
            shelf.providers.len(),
            1,
            "what is too old beside newer ones"
        );
        assert_eq!(loaded.values, [value]);
        assert_eq!(loaded.peers, Some(vec![(Realm::Wan, contact)]));
    }

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

    /// A record and a value that have just come, written and as they are to be read.
    fn fresh(folder: &Path, moment: Moment) -> (Shelf, Pending) {
        let kept = provider(1, Some((vec![address(1)], moment.now + RECORD_LIFE)));
        let value = values::Change {
            key: crate::ipns::key(&kept.provider),
            kept: Some((vec![7; 300], moment.now)),
        };
        let pending = || Pending {
            providers: vec![(Realm::Lan, kept.clone())],
            values: vec![value.clone()],
            peers: Some(Vec::new()),
        };
        let shelf = Shelf::open(folder).unwrap();
        shelf.write(pending(), moment).unwrap();
        (shelf, pending())
    }

    #[test]
    fn a_clock_that_is_ahead_at_the_start_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let moment = whole_seconds();
        let (shelf, written) = fresh(folder.path(), moment);
        let ahead = Moment {
            wall: moment.wall + YEAR,
            ..moment
        };
        let loaded = shelf.load(ahead).unwrap();
        assert_eq!((loaded.providers, loaded.values), (Vec::new(), Vec::new()));
        // Once the clock is right they are there again.
        assert_eq!(shelf.load(moment).unwrap(), written);
    }

    #[test]
    fn a_clock_that_is_behind_at_the_start_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let moment = whole_seconds();
        let (shelf, written) = fresh(folder.path(), moment);
        let behind = Moment {
            wall: moment.wall - YEAR,
            ..moment
        };
        // As if they had just come: the clock says nothing of their age.
        assert_eq!(shelf.load(behind).unwrap(), written);
    }

    #[test]
    fn garbage_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(folder.path()).unwrap();
        for key in [&b""[..], &[1], &[1, 200, 3], &[9, 0, 3], &[0xff; 90]] {
            for value in [&b""[..], &[0xff; 8], &[0, 0, 0, 1, 0, 0, 0, 0, 9, 9]] {
                shelf.providers.insert(key, value).unwrap();
                shelf.values.insert(key, value).unwrap();
                shelf.peers.insert(key, value).unwrap();
            }
        }
        let loaded = shelf.load(whole_seconds()).unwrap();
        let nothing = Pending {
            peers: Some(Vec::new()),
            ..Pending::default()
        };
        assert_eq!(loaded, nothing);
        assert_eq!((shelf.providers.len(), shelf.values.len()), (0, 0));
    }
}
