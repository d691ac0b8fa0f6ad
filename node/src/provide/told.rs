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
//!
//! Two things are known of a region, and each has its time: whom all of its keys were told, and who was found there when it was
//! looked over. A telling of all says both, unless it looked for one key only; a look for new keys says the second alone, and its
//! record has [`LOOK`] where the time of the telling stands.

use super::Peers;
use super::bytes::Bytes;
use super::prefix::Prefix;
use super::schedule::Moment;
use crate::dht::message::{Kind, MESSAGE_BYTES_MAX, Message};
use crate::dht::place;
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
    /// Whom.
    told: Place,
    looked_at: Option<Moment>,
    /// Who was found.
    found: Place,
    /// Whether some keys are to be told still: then the file does not say that all were.
    is_marked: bool,
}

/// Where a record's message stands in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    at: u64,
    len: usize,
}

/// A record as it stands in the file.
struct Read {
    prefix: Prefix,
    told: What,
    looked_at: Option<Moment>,
    place: Place,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// Whom all keys were told, and when; `None` if some are to be told again.
    All(Option<Moment>),
    /// Who was found.
    Look,
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
        while let Some(read) = self.record(at)? {
            at = read.place.at + read.place.len as u64;
            self.enter(&read);
        }
        // What was being written when the power went.
        self.bytes.cut(at)
    }

    fn enter(&mut self, read: &Read) {
        let entry = self.regions.entry(read.prefix).or_insert_with(|| Entry {
            told_at: None,
            told: Place::default(),
            looked_at: None,
            found: Place::default(),
            is_marked: false,
        });
        if let What::All(told_at) = read.told {
            (entry.told_at, entry.told) = (told_at, read.place);
            entry.is_marked = false;
        }
        if read.looked_at.is_some() {
            (entry.looked_at, entry.found) = (read.looked_at, read.place);
        }
    }

    fn record(&self, at: u64) -> io::Result<Option<Read>> {
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
        if body.len() < len || len < HEAD - 12 || place::Place::of(&body).start() != number(4) {
            return Ok(None);
        }
        let time = |millis| (millis > 0).then(|| Duration::from_millis(millis));
        Ok(Some(Read {
            prefix: Prefix::of(number(13), u32::from(*bits)),
            told: match number(21) {
                LOOK => What::Look,
                millis => What::All(time(millis)),
            },
            looked_at: time(number(29)),
            place: Place {
                at: at + HEAD as u64,
                len: len + 12 - HEAD,
            },
        }))
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

    /// Whom all of a region's keys were told.
    pub(crate) fn peers(&self, prefix: &Prefix) -> io::Result<Peers> {
        self.peers_at(self.regions.get(prefix).map(|entry| entry.told))
    }

    /// Who was found in it when it was looked over.
    pub(crate) fn found(&self, prefix: &Prefix) -> io::Result<Peers> {
        self.peers_at(self.regions.get(prefix).map(|entry| entry.found))
    }

    fn peers_at(&self, place: Option<Place>) -> io::Result<Peers> {
        let Some(place) = place.filter(|place| place.len > 0) else {
            return Ok(Peers::default());
        };
        let message = self.bytes.read(place.at, place.len)?;
        let message = Message::decode(&message).map_err(io::Error::other)?;
        Ok(Peers([message.providers, message.nearer]))
    }

    /// All keys of a region were told these peers; `looked_at` if they are all that are there.
    pub(crate) fn note(
        &mut self,
        prefix: Prefix,
        told_at: Option<Moment>,
        looked_at: Option<Moment>,
        peers: Peers,
    ) -> io::Result<()> {
        self.write(prefix, What::All(told_at), looked_at, peers)?;
        self.tidy()
    }

    /// These peers were found, and not told all.
    pub(crate) fn note_found(
        &mut self,
        prefix: Prefix,
        looked_at: Moment,
        peers: Peers,
    ) -> io::Result<()> {
        self.write(prefix, What::Look, Some(looked_at), peers)?;
        self.tidy()
    }

    /// Writes the file anew if most of it is old.
    fn tidy(&mut self) -> io::Result<()> {
        let live: usize = self.regions.values().map(Entry::bytes).sum();
        if self.bytes.len() > (live * OLD_MAX + OLD_BYTES) as u64 {
            let regions = self.regions.keys().copied();
            let regions = regions.map(|region| (region, vec![region])).collect();
            self.write_anew(regions)?;
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
            entry.is_marked = true;
        }
        Ok(())
    }

    /// Those keys are told.
    pub(crate) fn unmark(&mut self, prefix: Prefix) -> io::Result<()> {
        let marked = self.regions.get(&prefix).filter(|entry| entry.is_marked);
        let Some(entry) = marked.copied() else {
            return Ok(());
        };
        let peers = self.peers(&prefix)?;
        let looked_at = entry.looked_at.filter(|_| entry.told == entry.found);
        self.note(prefix, entry.told_at, looked_at, peers)
    }

    /// It counts as never told.
    pub(crate) fn forget(&mut self, prefix: Prefix) -> io::Result<()> {
        if self.told_at(&prefix).is_none() {
            return Ok(());
        }
        let peers = self.peers(&prefix)?;
        let looked_at = match self.regions.get(&prefix) {
            Some(entry) if entry.told == entry.found => entry.looked_at,
            _ => None,
        };
        self.note(prefix, None, looked_at, peers)
    }

    fn write(
        &mut self,
        prefix: Prefix,
        told: What,
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
        body.extend(match told {
            What::All(told_at) => millis(told_at),
            What::Look => LOOK.to_be_bytes(),
        });
        body.extend(millis(looked_at));
        body.extend(&message);
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        let mut record = len.to_be_bytes().to_vec();
        record.extend(place::Place::of(&body).start().to_be_bytes());
        record.extend(body);
        let place = Place {
            at: self.bytes.len() + HEAD as u64,
            len: message.len(),
        };
        self.bytes.write_all(&record)?;
        self.enter(&Read {
            prefix,
            told,
            looked_at,
            place,
        });
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
            let mut told = Peers::default();
            let mut found = Peers::default();
            for old in &of {
                told.add(self.peers(old)?);
                found.add(self.found(old)?);
            }
            let of = || of.iter().filter_map(|old| self.regions.get(old));
            let told_at = of().map(|entry| entry.told_at).min().flatten();
            let looked_at = of().map(|entry| entry.looked_at).min().flatten();
            let are_same = of().all(|entry| entry.told == entry.found);
            let looked_then = looked_at.filter(|_| are_same);
            let is_marked = of().any(|entry| entry.is_marked);
            let all_at = told_at.filter(|_| !is_marked);
            new.write(prefix, What::All(all_at), looked_then, told)?;
            if let Some(entry) = new.regions.get_mut(&prefix) {
                (entry.told_at, entry.is_marked) = (told_at, is_marked);
            }
            if looked_at.is_some() && !are_same {
                new.write(prefix, What::Look, looked_at, found)?;
            }
        }
        new.bytes.sync()?;
        if let Some(folder) = &self.folder {
            fs::rename(folder.join(NAME_NEW), folder.join(NAME))?;
        }
        *self = new;
        Ok(())
    }
}

impl Entry {
    /// What its records take in the file.
    fn bytes(&self) -> usize {
        let found = match self.found == self.told || self.found.len == 0 {
            true => 0,
            false => self.found.len + HEAD,
        };
        self.told.len + HEAD + found
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
/// Stands where the time of a telling would, in a record that tells only of a look.
const LOOK: u64 = u64::MAX;
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
    fn who_was_found_is_not_who_was_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Told::open(Some(folder.path()), local()).unwrap();
        let mut told = open();
        let whole = Prefix::of(0, 0);
        told.note(whole, Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        told.note_found(whole, LATER, peers(1..=25)).unwrap();
        let holds = |told: &Told, prefix: &Prefix| {
            assert_eq!(told.told_at(prefix), Some(TIME));
            assert_eq!(told.looked_at(prefix), Some(LATER));
            assert_eq!(told.peers(prefix).unwrap(), peers(1..=20));
            assert_eq!(told.found(prefix).unwrap(), peers(1..=25));
        };
        holds(&told, &whole);
        holds(&open(), &whole);
        told.set_bits(1).unwrap();
        for half in Prefix::all(1) {
            holds(&told, &half);
            holds(&open(), &half);
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

    #[test]
    fn a_mark_stays_until_what_it_was_for_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Told::open(Some(folder.path()), local()).unwrap();
        let mut told = open();
        let whole = Prefix::of(0, 0);
        told.note(whole, Some(TIME), Some(TIME), peers(1..=20))
            .unwrap();
        told.mark(whole).unwrap();
        // Written anew in between, it says so still.
        told.set_bits(1).unwrap();
        told.note_found(Prefix::of(0, 1), LATER, peers(1..=9))
            .unwrap();
        for half in Prefix::all(1) {
            assert_eq!(told.told_at(&half), Some(TIME));
            assert_eq!(open().told_at(&half), None);
            told.unmark(half).unwrap();
            assert_eq!(told.told_at(&half), Some(TIME));
            let again = open();
            assert_eq!(again.told_at(&half), Some(TIME));
            assert_eq!(again.peers(&half).unwrap(), peers(1..=20));
        }
        assert_eq!(open().found(&Prefix::of(0, 1)).unwrap(), peers(1..=9));
    }
}
