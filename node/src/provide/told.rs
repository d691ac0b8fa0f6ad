//! When each region was told, and to whom: what a restart goes on from.
//!
//! ```text
//! told     "cairntold" | u8 length | our peer ID | records
//! record   u32 length | u64 checksum | u8 bits | u64 start | u64 told at | u64 looked over at | DHT message
//! ```
//!
//! Records come one after the other; of one region the last counts. Numbers are big-endian, times milliseconds since
//! the beginning of Unix time, 0 for never. The peers of the first DHT stand in the message as providers, those of the second as nearer ones. What does not read ends the
//! list: it is derived, and costs no more than telling again. The file is written anew when most of it is old.
//! In memory is when, and where the rest stands.

use super::Peers;
use super::bytes::Bytes;
use super::prefix::Prefix;
use super::schedule::Moment;
use crate::dht::message::{Kind, MESSAGE_BYTES_MAX, Message};
use crate::dht::place::Place;
use libp2p::PeerId;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What happened to all regions.
#[derive(Debug)]
pub(crate) struct Told {
    folder: Option<PathBuf>,
    local: PeerId,
    bytes: Bytes,
    regions: BTreeMap<Prefix, Entry>,
}

/// What happened to one.
#[derive(Debug, Clone, Copy)]
struct Entry {
    told_at: Option<Moment>,
    looked_at: Option<Moment>,
    at: u64,
    len: usize,
}

impl Told {
    /// What a folder remembers of us; nothing where it does not read, or somebody else told it.
    pub(crate) fn open(folder: Option<&Path>, local: PeerId) -> io::Result<Self> {
        if let Some(folder) = folder
            && let Ok(bytes) = Bytes::open(&folder.join(NAME))
        {
            let mut told = Self {
                folder: Some(folder.to_owned()),
                local,
                bytes,
                regions: BTreeMap::new(),
            };
            if told.read().is_ok() {
                return Ok(told);
            }
        }
        Self::create(folder, NAME, local)
    }

    fn create(folder: Option<&Path>, name: &str, local: PeerId) -> io::Result<Self> {
        let mut bytes = Bytes::create(folder, name)?;
        bytes.write_all(&header(&local))?;
        Ok(Self {
            folder: folder.map(Path::to_owned),
            local,
            bytes,
            regions: BTreeMap::new(),
        })
    }

    fn read(&mut self) -> io::Result<()> {
        let header = header(&self.local);
        if self.bytes.read(0, header.len())? != header {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut at = header.len() as u64;
        while let Some((prefix, entry)) = self.record(at)? {
            at = entry.at + entry.len as u64;
            self.regions.insert(prefix, entry);
        }
        // What was being written when the power went.
        self.bytes.cut(at)
    }

    fn record(&self, at: u64) -> io::Result<Option<(Prefix, Entry)>> {
        let head = self.bytes.read(at, HEAD)?;
        let number = |from: usize| {
            let bytes = head
                .get(from..from + 8)
                .and_then(|bytes| bytes.try_into().ok());
            u64::from_be_bytes(bytes.unwrap_or_default())
        };
        let len = head.first_chunk().copied().map_or(0, u32::from_be_bytes) as usize;
        let (12.., Some(bits)) = (len, head.get(12)) else {
            return Ok(None);
        };
        if len > BODY_MAX {
            return Ok(None);
        }
        let body = self.bytes.read(at + 12, len)?;
        if body.len() < len || len < HEAD - 12 || Place::of(&body).start() != number(4) {
            return Ok(None);
        }
        let time = |millis| (millis > 0).then(|| Duration::from_millis(millis));
        let entry = Entry {
            told_at: time(number(21)),
            looked_at: time(number(29)),
            at: at + HEAD as u64,
            len: len + 12 - HEAD,
        };
        Ok(Some((Prefix::of(number(13), u32::from(*bits)), entry)))
    }

    /// When a region was told, if all of it was.
    pub(crate) fn told_at(&self, prefix: &Prefix) -> Option<Moment> {
        self.regions.get(prefix)?.told_at
    }

    /// When its peers were found.
    pub(crate) fn looked_at(&self, prefix: &Prefix) -> Option<Moment> {
        self.regions.get(prefix)?.looked_at
    }

    /// The bits of the regions that are remembered.
    pub(crate) fn bits(&self) -> Option<u32> {
        self.regions.keys().next().map(Prefix::bits)
    }

    /// Whom a region was told.
    pub(crate) fn peers(&self, prefix: &Prefix) -> io::Result<Peers> {
        let Some(entry) = self.regions.get(prefix) else {
            return Ok(Peers::default());
        };
        let message = self.bytes.read(entry.at, entry.len)?;
        let message = Message::decode(&message).map_err(io::Error::other)?;
        Ok(Peers([message.providers, message.nearer]))
    }

    /// A region's peers and when they were found; `told_at` is when they were told all of its keys.
    pub(crate) fn note(
        &mut self,
        prefix: Prefix,
        told_at: Option<Moment>,
        looked_at: Option<Moment>,
        peers: Peers,
    ) -> io::Result<()> {
        self.write(prefix, told_at, looked_at, peers)?;
        let live: usize = self.regions.values().map(|entry| entry.len + HEAD).sum();
        if self.bytes.len() > (live * OLD_MAX + OLD_BYTES) as u64 {
            let regions: Vec<Prefix> = self.regions.keys().copied().collect();
            self.write_anew(
                regions
                    .into_iter()
                    .map(|region| (region, vec![region]))
                    .collect(),
            )?;
        }
        Ok(())
    }

    /// Some of a region's keys are told only later: whoever goes on after a restart shall tell all of them.
    pub(crate) fn mark(&mut self, prefix: Prefix) -> io::Result<()> {
        let Some(told_at) = self.told_at(&prefix) else {
            return Ok(());
        };
        self.forget(prefix)?;
        if let Some(entry) = self.regions.get_mut(&prefix) {
            entry.told_at = Some(told_at);
        }
        Ok(())
    }

    /// It counts as never told.
    pub(crate) fn forget(&mut self, prefix: Prefix) -> io::Result<()> {
        if self.told_at(&prefix).is_none() {
            return Ok(());
        }
        let peers = self.peers(&prefix)?;
        self.note(prefix, None, self.looked_at(&prefix), peers)
    }

    fn write(
        &mut self,
        prefix: Prefix,
        told_at: Option<Moment>,
        looked_at: Option<Moment>,
        peers: Peers,
    ) -> io::Result<()> {
        let Peers([providers, nearer]) = peers;
        let message = Message {
            providers,
            nearer,
            ..Message::new(Kind::FindNode, Vec::new())
        };
        let millis = |time: Option<Moment>| {
            let millis = time.map_or(0, |time| time.as_millis());
            u64::try_from(millis).unwrap_or(0).to_be_bytes()
        };
        let bits = u8::try_from(prefix.bits()).unwrap_or(0);
        let message = message.encode();
        let mut body = vec![bits];
        body.extend(prefix.first().to_be_bytes());
        body.extend(millis(told_at));
        body.extend(millis(looked_at));
        body.extend(&message);
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut record = len.to_be_bytes().to_vec();
        record.extend(Place::of(&body).start().to_be_bytes());
        record.extend(body);
        let entry = Entry {
            told_at,
            looked_at,
            at: self.bytes.len() + HEAD as u64,
            len: message.len(),
        };
        self.bytes.write_all(&record)?;
        self.regions.insert(prefix, entry);
        Ok(())
    }

    /// From now on regions are of so many bits. Of parts that become one the oldest counts; parts of what was one are
    /// told what it was told.
    pub(crate) fn set_bits(&mut self, bits: u32) -> io::Result<()> {
        if self.bits().is_none_or(|now| now == bits) {
            return Ok(());
        }
        let of = |prefix: &Prefix| {
            let old = self.regions.keys().filter(|old| old.overlaps(prefix));
            old.copied().collect::<Vec<_>>()
        };
        let regions = Prefix::all(bits).map(|prefix| (prefix, of(&prefix)));
        let regions = regions.filter(|(_, of)| !of.is_empty()).collect();
        self.write_anew(regions)
    }

    /// Writes regions into a new file, each as what is known of others.
    fn write_anew(&mut self, regions: Vec<(Prefix, Vec<Prefix>)>) -> io::Result<()> {
        let mut new = Self::create(self.folder.as_deref(), NAME_NEW, self.local)?;
        for (prefix, of) in regions {
            let mut peers = Peers::default();
            for old in &of {
                peers.add(self.peers(old)?);
            }
            let oldest = |time: fn(&Entry) -> Option<Moment>| {
                let times = of.iter().filter_map(|old| self.regions.get(old)).map(time);
                times.min().flatten()
            };
            let (told_at, looked_at) = (oldest(|old| old.told_at), oldest(|old| old.looked_at));
            new.write(prefix, told_at, looked_at, peers)?;
        }
        new.bytes.sync()?;
        if let Some(folder) = &self.folder {
            fs::rename(folder.join(NAME_NEW), folder.join(NAME))?;
        }
        *self = new;
        Ok(())
    }
}

fn header(local: &PeerId) -> Vec<u8> {
    let name = local.to_bytes();
    let len = u8::try_from(name.len()).unwrap_or(0);
    [MAGIC, &[len], &name].concat()
}

/// The file, and the one that takes its place.
const NAME: &str = "told";
const NAME_NEW: &str = "told.new";
const MAGIC: &[u8] = b"cairntold";
/// Of a record, before the message.
const HEAD: usize = 4 + 8 + 1 + 3 * 8;
/// Longest record that is read.
const BODY_MAX: usize = MESSAGE_BYTES_MAX;
/// How many times what counts may stand in the file, and how much beyond that.
const OLD_MAX: usize = 2;
const OLD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::tests::contacts;
    use std::ops::RangeInclusive;

    const TIME: Moment = Duration::from_secs(1_800_000_000);
    const LATER: Moment = Duration::from_secs(1_800_000_100);

    fn peers(numbers: RangeInclusive<u64>) -> Peers {
        Peers([contacts(numbers), contacts(50..=55)])
    }

    fn local() -> PeerId {
        contacts(9..=9)[0].peer
    }

    #[test]
    fn what_was_told_is_known_after_a_restart_but_for_a_torn_end() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Told::open(Some(folder.path()), local()).unwrap();
        let mut told = open();
        let regions: Vec<Prefix> = Prefix::all(2).collect();
        told.note(regions[0], Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        told.note(regions[1], None, Some(TIME), peers(21..=40))
            .unwrap();
        told.note(regions[0], Some(TIME), Some(LATER), peers(1..=25))
            .unwrap();
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        told.note(regions[2], Some(LATER), Some(LATER), peers(1..=9))
            .unwrap();
        drop(told);
        let longer = fs::read(&path).unwrap();
        for len in [
            whole.len(),
            whole.len() + 1,
            whole.len() + 40,
            longer.len() - 1,
        ] {
            fs::write(&path, &longer[..len]).unwrap();
            let told = open();
            assert_eq!(told.told_at(&regions[0]), Some(TIME));
            assert_eq!(told.looked_at(&regions[0]), Some(LATER));
            assert_eq!(told.peers(&regions[0]).unwrap(), peers(1..=25));
            assert_eq!(told.told_at(&regions[1]), None);
            assert_eq!(told.peers(&regions[1]).unwrap(), peers(21..=40));
            assert_eq!(told.peers(&regions[2]).unwrap(), Peers::default());
            drop(told);
            assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        }
        // What somebody else told counts for nothing.
        let other = Told::open(Some(folder.path()), contacts(1..=1)[0].peer).unwrap();
        assert_eq!(other.bits(), None);
    }

    #[test]
    fn the_file_stays_in_proportion_to_what_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut told = Told::open(Some(folder.path()), local()).unwrap();
        for _ in 0..300 {
            told.note(Prefix::of(0, 1), Some(TIME), Some(TIME), peers(1..=40))
                .unwrap();
        }
        let len = fs::metadata(folder.path().join(NAME)).unwrap().len();
        assert!(len < 100_000, "{len}");
        assert_eq!(told.peers(&Prefix::of(0, 1)).unwrap(), peers(1..=40));
    }

    #[test]
    fn regions_that_become_others_keep_what_is_known_of_them() {
        let mut told = Told::open(None, local()).unwrap();
        let halves: Vec<Prefix> = Prefix::all(1).collect();
        told.note(halves[0], Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        told.note(halves[1], Some(LATER), Some(LATER), peers(15..=30))
            .unwrap();
        told.set_bits(0).unwrap();
        let whole = Prefix::of(0, 0);
        assert_eq!(told.told_at(&whole), Some(TIME));
        assert_eq!(told.peers(&whole).unwrap().0[0].len(), 30);
        told.set_bits(2).unwrap();
        for quarter in Prefix::all(2) {
            assert_eq!(told.told_at(&quarter), Some(TIME));
            assert_eq!(told.peers(&quarter).unwrap().0[0].len(), 30);
        }
    }

    #[test]
    fn a_region_with_keys_left_counts_as_untold_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Told::open(Some(folder.path()), local()).unwrap();
        let mut told = open();
        let whole = Prefix::of(0, 0);
        told.note(whole, Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        told.mark(whole).unwrap();
        assert_eq!(told.told_at(&whole), Some(TIME));
        let again = open();
        assert_eq!(again.told_at(&whole), None);
        assert_eq!(again.peers(&whole).unwrap(), peers(1..=20));
        told.note(whole, Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        assert_eq!(open().told_at(&whole), Some(TIME));
    }
}
