//! What a LevelDB folder holds below some prefixes, read without locking, writing or replaying anything.
//!
//! A database is tables, sorted and never changed, and logs of what came after them. Every entry has a number, and of a
//! key the entry with the highest counts, so neither levels nor order matter to who reads all of it once. `manifest.rs`
//! says which files count, `journal.rs` reads logs (the manifest is one), `table.rs` tables.
//!
//! What is damaged is told and passed over. An older entry of the same key may then count again, which is told as well.

mod journal;
mod manifest;
mod table;

use super::file::{self, Links};
use journal::Journal;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use table::Table;

/// What there is of keys that begin with one of `prefixes`.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    prefixes: &'a [&'a [u8]],
    found: HashMap<Vec<u8>, Found>,
    bytes: usize,
}

/// Keys and values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
struct Found {
    number: u64,
    /// `None` if that is where it was deleted.
    value: Option<Vec<u8>>,
}

/// Why a database is not read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error("it cannot be read: {0}")]
    Disk(#[from] io::Error),
    #[error("it holds none of a database's files")]
    Empty,
    #[error(
        "it says more about pins and names than {} MiB, which is the most that is read; `ipfs pin ls --names` and \
         `ipfs files stat --hash /` tell what they are, and `cairn pin add` pins what was imported",
        FOUND_BYTES_MAX >> 20
    )]
    TooMuch,
}

impl<'a> Wanted<'a> {
    fn below(prefixes: &'a [&'a [u8]]) -> Self {
        Self {
            prefixes,
            found: HashMap::new(),
            bytes: 0,
        }
    }

    fn wants(&self, key: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether keys behind `after`, up to `last`, may be wanted.
    fn may_want(&self, after: Option<&[u8]>, last: &[u8]) -> bool {
        self.prefixes.iter().any(|prefix| {
            let begins = after.is_none_or(|after| after < *prefix || after.starts_with(prefix));
            begins && last >= *prefix
        })
    }

    fn take(&mut self, key: &[u8], number: u64, value: Option<&[u8]>) -> Result<(), Fault> {
        if !self.wants(key) {
            return Ok(());
        }
        let length = value.map_or(0, <[u8]>::len);
        if key.len() > KEY_BYTES_MAX || length > VALUE_BYTES_MAX {
            return Err(Fault::Damage(format!(
                "an entry of {length} bytes under a key of {}, more than any pin or name has",
                key.len()
            )));
        }
        if self.found.get(key).is_some_and(|old| old.number >= number) {
            return Ok(());
        }
        self.bytes += key.len() + length + ENTRY_BYTES;
        if self.bytes > FOUND_BYTES_MAX {
            return Err(Fault::TooMuch);
        }
        let value = value.map(<[u8]>::to_vec);
        self.found.insert(key.to_vec(), Found { number, value });
        Ok(())
    }
}

/// What keeps a file from being read on.
#[derive(Debug)]
enum Fault {
    /// Told, and the rest goes on.
    Damage(String),
    TooMuch,
}

impl Fault {
    fn tell(self, file: &str, damage: &mut dyn FnMut(String)) -> Result<(), DatabaseError> {
        match self {
            Self::Damage(why) => damage(format!("{file}: {why}")),
            Self::TooMuch => return Err(DatabaseError::TooMuch),
        }
        Ok(())
    }
}

/// Bytes that are read at a place; of all of a file or of what a test has.
trait ReadAt {
    fn bytes(&self) -> io::Result<u64>;
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, into, at)
    }
}

impl ReadAt for &[u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).ok();
        let found = from.and_then(|at| self.get(at..at.checked_add(into.len())?));
        into.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// The entries of the database in `folder` whose keys begin with one of `prefixes`, in the order of the keys. What is
/// damaged is told by `damage` and left out.
pub(super) fn read(
    folder: &Path,
    prefixes: &[&[u8]],
    damage: &mut dyn FnMut(String),
) -> Result<Pairs, DatabaseError> {
    let mut wanted = Wanted::below(prefixes);
    let files = Files::of(folder)?;
    let live = match manifest::read(folder, damage) {
        Ok(live) => Some(live),
        Err(why) => {
            damage(format!(
                "{why}; every table and log is read instead, and what was deleted long ago may be there again"
            ));
            None
        }
    };
    let mut any = live.is_some();
    for (number, name) in &files.tables {
        if live
            .as_ref()
            .is_some_and(|live| !live.tables.contains(number))
        {
            continue;
        }
        any = true;
        let read = open(&folder.join(name))
            .map_err(|error| Fault::Damage(format!("it cannot be opened: {error}")))
            .and_then(|file| Table::open(&file)?.each(&mut wanted, name, damage));
        if let Err(fault) = read {
            fault.tell(name, damage)?;
        }
    }
    if let Some(live) = &live {
        let there = |number: &&u64| !files.tables.iter().any(|(found, _)| found == *number);
        for number in live.tables.iter().filter(there) {
            damage(format!("{number:06}.ldb: this table is missing"));
        }
    }
    for (number, name) in &files.logs {
        if live.as_ref().is_some_and(|live| !live.has_log(*number)) {
            continue;
        }
        any = true;
        let file = match open(&folder.join(name)) {
            Ok(file) => file,
            Err(error) => {
                damage(format!("{name}: it cannot be opened: {error}"));
                continue;
            }
        };
        let mut journal = Journal::over(&file);
        while let Some(record) = journal.next() {
            let taken = record
                .map_err(Fault::Damage)
                .and_then(|record| journal::batch(record, &mut wanted));
            if let Err(fault) = taken {
                fault.tell(name, damage)?;
            }
        }
    }
    if !any {
        return Err(DatabaseError::Empty);
    }
    let mut entries: Vec<_> = wanted
        .found
        .into_iter()
        .filter_map(|(key, entry)| Some((key, entry.value?)))
        .collect();
    entries.sort_unstable();
    Ok(entries)
}

fn open(path: &Path) -> io::Result<File> {
    Ok(file::open(path, Links::Followed)?.0)
}

/// Tables and logs by their numbers.
struct Files {
    tables: Vec<(u64, String)>,
    logs: Vec<(u64, String)>,
}

impl Files {
    fn of(folder: &Path) -> io::Result<Self> {
        let (mut tables, mut logs) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder)? {
            let Ok(name) = entry?.file_name().into_string() else {
                continue;
            };
            let Some((number, kind)) = name.split_once('.') else {
                continue;
            };
            let Ok(number) = number.parse() else {
                continue;
            };
            match kind {
                "ldb" | "sst" => tables.push((number, name)),
                "log" => logs.push((number, name)),
                _ => {}
            }
        }
        tables.sort_unstable();
        logs.sort_unstable();
        Ok(Self { tables, logs })
    }
}

/// A number of up to 64 bits, seven at a time, off the front.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * at)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(count).ok()?)?;
    *bytes = rest;
    Some(taken)
}

/// Bytes after their length.
fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = varint(bytes)?;
    take(bytes, count)
}

/// How checksums are written, so that one over bytes with a checksum in them is not its own.
const fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Reads `data`: as 0 a table, 1 a log, 2 a manifest. Whether it was read without damage.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(kind: u8, data: &[u8]) -> bool {
    let mut wanted = Wanted::below(&[b"", b"/pins"]);
    let mut damages = 0;
    match kind {
        0 => {
            let read = Table::open(&data)
                .and_then(|table| table.each(&mut wanted, "", &mut |_| damages += 1));
            damages += usize::from(read.is_err());
        }
        1 => {
            let mut journal = Journal::over(&data);
            while let Some(record) = journal.next() {
                let taken = record
                    .map_err(Fault::Damage)
                    .and_then(|record| journal::batch(record, &mut wanted));
                damages += usize::from(taken.is_err());
            }
        }
        _ => damages += usize::from(manifest::Live::read(&data, &mut |_| {}).is_err()),
    }
    // What is told of is bounded by what there is to read.
    assert!(damages <= data.len() + 1);
    assert!(wanted.found.len() <= data.len());
    damages == 0
}

/// Most bytes of a key that is looked at: those of pins and names have under a hundred.
const KEY_BYTES_MAX: usize = 512;
/// Most bytes of a value: a record of a name has at most ten thousand, a pin its name and what it points at.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of keys and values that are kept in memory: some two million pins.
const FOUND_BYTES_MAX: usize = 512 << 20;
/// What an entry takes beside its bytes.
const ENTRY_BYTES: usize = 96;
/// Most bytes of what is read in one piece, of a log or of a table: written are a few KiB, or as much as one value has.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// Most bytes that are read of a log, or of a manifest. Kubo begins a new log after a few MiB, and a manifest says a few
/// hundred bytes of a table.
const LOG_BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests;
