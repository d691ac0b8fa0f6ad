//! Doors for the fuzz targets into decoders that are nobody else's business.
//!
//! Each function says whether it took the input whole, and fails if what must hold does not.

use crate::block::Block;
use crate::disk::simulated::SimulatedDisk;
use crate::disk::{Disk, Mode};
use crate::durable;
use crate::index::Key;
use crate::index::buckets::{self, Removals};
use crate::journal::record::{self, Record};
use crate::journal::{Blocks, Journal, Sync};
use crate::log::files::{Access, Files};
use crate::log::scan::{Scan, Step};
use crate::log::segment::Segment;
use crate::log::{Place, SegmentId, section};
use crate::pin::table::Pins;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A section's header, and a segment that holds these bytes after its own header. A header that is
/// read is written the same. A scan goes over every byte once, finds sections where they are, and
/// calls nothing readable that does not hash to its CID and has something unreadable behind it.
pub fn segment(data: &[u8]) -> bool {
    if let Some(header) = section::header(data) {
        let cid = header.cid.to_bytes();
        let mut buffer = unsigned_varint::encode::u32_buffer();
        let length = header.length + u32::try_from(cid.len()).unwrap_or(u32::MAX);
        let written = [unsigned_varint::encode::u32(length, &mut buffer), &cid].concat();
        assert_eq!(header.prefix as usize, written.len());
        assert!(data.starts_with(&written));
    }
    matches!(scan(data), Ok(true))
}

fn scan(data: &[u8]) -> io::Result<bool> {
    let disk = SimulatedDisk::default();
    let files = Files::new(Arc::new(disk.clone()), Path::new(FOLDER), Access::ReadOnly);
    let id = SegmentId::unpacked(1);
    let file = disk.open(&files.path(id), Mode::Create(durable::Access::Shared))?;
    let header = section::file_header();
    file.write(0, &[&header, data])?;
    let end = (header.len() + data.len()) as u64;
    let segment = Segment::sealed(&files, id, end);
    let mut at = header.len() as u64;
    let mut whole = true;
    let mut before = None;
    let mut scan = Scan::with_data(&segment, 0);
    while let Some(step) = scan.next()? {
        match step {
            Step::Found(found) => {
                assert_eq!(u64::from(found.offset), at);
                before = Some(at);
                at += u64::from(found.header.section());
                let bytes = scan.data(&found)?;
                whole &= Block::verify(found.header.cid, bytes).is_ok();
            }
            Step::Retracted(found) => {
                whole = false;
                assert_eq!(before.take(), Some(found.offset.into()));
                at = found.offset.into();
            }
            Step::Damage(damage) => {
                whole = false;
                before = None;
                assert_eq!(damage.from, at);
                assert!(damage.to > at);
                at = damage.to;
            }
        }
        assert!(at <= end);
    }
    assert_eq!(at, end);
    Ok(whole)
}

/// A journal: after 0 its bytes as they are, else its records' payloads, each after its length, with
/// checksums that fit. A record reads back after it was written. A journal opens whatever it holds,
/// and what is appended then stands when it is opened again.
pub fn journal(data: &[u8]) -> bool {
    let Some((form, bytes)) = data.split_first() else {
        return false;
    };
    let (file, taken) = match form {
        0 => (bytes.to_vec(), read_one(bytes).is_some()),
        _ => framed_all(bytes),
    };
    if let Err(error) = reopens(&file) {
        unreachable!("a journal that does not open: {error}");
    }
    taken
}

/// Reads the record at the start, and checks that it reads back.
fn read_one(bytes: &[u8]) -> Option<usize> {
    let (number, record, used) = record::read(bytes)?;
    assert!(used <= bytes.len());
    let mut written = Vec::new();
    record::write(&mut written, number, &record);
    let length = written.len();
    assert_eq!(record::read(&written), Some((number, record, length)));
    Some(used)
}

/// A journal of records with these payloads, and whether all of them are records.
fn framed_all(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut file = JOURNAL_MAGIC.to_vec();
    let mut taken = true;
    let mut number = 1;
    while let Some((length, after)) = rest.split_first() {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        let framed = framed(number, payload);
        taken &= read_one(&framed) == Some(framed.len());
        file.extend(framed);
        number += 1;
        rest = after;
    }
    (file, taken && number > 1)
}

/// A record with this payload, its length and its checksum right.
fn framed(number: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let (length, number) = (length.to_le_bytes(), number.to_le_bytes());
    let sum = crc32c::crc32c(&[&length[..], &number, payload].concat()).to_le_bytes();
    [&RECORD_MAGIC[..], &length, &number, &sum, payload].concat()
}

fn reopens(bytes: &[u8]) -> io::Result<()> {
    let disk = SimulatedDisk::default();
    let folder = Path::new(FOLDER);
    let mode = Mode::Create(durable::Access::Owner);
    disk.open(&folder.join("journal.log"), mode)?
        .write(0, &[bytes])?;
    let open = || {
        let disk = Arc::new(disk.clone());
        Journal::open(disk, folder, Access::ReadWrite, Blocks::Some, 0)
    };
    let (mut journal, _) = open()?;
    if journal.last() > u64::MAX - SPARE_NUMBERS {
        return Ok(());
    }
    let segment = SegmentId::unpacked(NEW_SEGMENT);
    journal.append(vec![Record::Committed(vec![(segment, 77)])], Sync::Wait)?;
    let before = journal.state().clone();
    let (again, replay) = open()?;
    assert!(!replay.damaged, "{:?}", replay.notices);
    assert_eq!(again.state().lengths.get(&segment), Some(&77));
    assert_eq!(again.state().lengths, before.lengths);
    let pins = |pins: &Pins| pins.read().iter().collect::<Vec<_>>();
    assert_eq!(pins(&again.state().pins), pins(&before.pins));
    assert_eq!(again.last(), journal.last());
    Ok(())
}

/// What a Kubo repository says in its database: after 0 a table of LevelDB, after 1 a log, after 2 a manifest, after 3 a
/// pin's record.
pub fn kubo(data: &[u8]) -> bool {
    match data.split_first() {
        Some((3, record)) => crate::kubo::records::pin(record).is_ok(),
        Some((kind, data)) => crate::kubo::leveldb::fuzz(*kind, data),
        None => false,
    }
}

/// A bucket of the index and changes to it, both packed after the number of changes; a place of no
/// length is a removal. Merging gives what a map would have, in whatever order, and merging again
/// changes nothing.
pub fn bucket(data: &[u8]) -> bool {
    let (count, packed) = data
        .split_first()
        .map_or((0, data), |(count, rest)| (*count, rest));
    let (changes, old) = packed.split_at((usize::from(count) * buckets::ENTRY).min(packed.len()));
    let changes: BTreeMap<Key, Option<Place>> = entries(changes)
        .into_iter()
        .map(|(key, place)| (key, place.filter(|place| place.length > 0)))
        .collect();
    let list: Vec<(Key, Option<Place>)> =
        changes.iter().map(|(key, place)| (*key, *place)).collect();
    for removals in [Removals::Done, Removals::Kept] {
        let stays = |place: &Option<Place>| place.is_some() || removals == Removals::Kept;
        let mut expected = entries(old);
        expected.retain(|(key, _)| !changes.contains_key(key));
        expected.extend(list.iter().filter(|(_, place)| stays(place)));
        let mut merged = buckets::merge(old, &list, removals);
        for _ in 0..2 {
            assert_eq!(sorted(entries(&merged)), sorted(expected.clone()));
            for (key, place) in &list {
                let found = buckets::find(&merged, key);
                assert_eq!(found, Some(*place).filter(stays));
            }
            merged = buckets::merge(&merged, &list, removals);
        }
    }
    !list.is_empty()
}

type Entries = Vec<(Key, Option<Place>)>;

fn entries(packed: &[u8]) -> Entries {
    buckets::entries(buckets::Bucket::default(), packed).collect()
}

fn sorted(mut entries: Entries) -> Entries {
    entries.sort_by_key(|(key, place)| (*key, place.map(|place| place.packed())));
    entries
}

/// Where the simulated disk has what is read.
const FOLDER: &str = "/";
/// The first bytes of a journal.
const JOURNAL_MAGIC: &[u8] = b"cairn journal 1\n";
/// The first bytes of a record.
const RECORD_MAGIC: [u8; 4] = [0xde, 0xc0, 0x11, 0x7a];
/// A segment that is committed after the journal was opened.
const NEW_SEGMENT: u32 = 0x7fff_fff0;
/// Numbers that opening and appending may use up.
const SPARE_NUMBERS: u64 = 1 << 20;
