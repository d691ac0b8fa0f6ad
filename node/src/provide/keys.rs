//! The keys that are provided, by where they lie in the key space: a sorted file.
//!
//! ```text
//! keys     records in order: first 8 bytes of the place | u8 length | multihash
//! fences   u64 each: where the records of each 1/2^n of the key space begin, and the end of all
//! footer   u32 n | u64 keys | u64 checksum of both and the fences | "cairnkey"
//! ```
//!
//! Numbers are big-endian. In memory is one fence for [`FENCE_KEYS`] keys or more. A [`Sorter`] takes keys in any
//! order and holds [`RUN_KEYS`] of them; more are written out in sorted runs and merged. All of it is derived from
//! the store: a file that does not read is made anew.

use super::bytes::Bytes;
use super::prefix::Prefix;
use crate::dht::place::Place;
use crate::dht::providers::KEY_BYTES_MAX;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A key and where it lies, ordered by that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The first 64 bits of its place.
    pub(crate) start: u64,
    /// The multihash.
    pub(crate) hash: Box<[u8]>,
}

impl Key {
    pub(crate) fn new(hash: &[u8]) -> Self {
        Self {
            start: Place::of(hash).start(),
            hash: hash.into(),
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let len = u8::try_from(self.hash.len()).map_err(io::Error::other)?;
        out.write_all(&self.start.to_be_bytes())?;
        out.write_all(&[len])?;
        out.write_all(&self.hash)
    }
}

/// Keys in order.
#[derive(Debug)]
pub(crate) struct Keys {
    bytes: Bytes,
    count: u64,
    fence_bits: u32,
    fences: Vec<u64>,
}

impl Keys {
    /// The keys of a folder, if there are any and they read.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        let bytes = Bytes::open(&folder.join(NAME))?;
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "the list of keys is damaged");
        let footer_at = bytes.len().checked_sub(FOOTER as u64).ok_or_else(broken)?;
        let footer = bytes.read(footer_at, FOOTER)?;
        let number = |at: usize| {
            let bytes = footer
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            u64::from_be_bytes(bytes.unwrap_or_default())
        };
        let bits = footer.first_chunk().copied().map_or(0, u32::from_be_bytes);
        if bits > FENCE_BITS_MAX || !footer.ends_with(MAGIC) {
            return Err(broken());
        }
        let len = ((1 << bits) + 1) * 8;
        let fences_at = footer_at.checked_sub(len as u64).ok_or_else(broken)?;
        let fences = bytes.read(fences_at, len)?;
        if checksum(&fences, bits, number(4)) != number(12) {
            return Err(broken());
        }
        let (fences, _) = fences.as_chunks();
        let fences: Vec<u64> = fences.iter().copied().map(u64::from_be_bytes).collect();
        if !fences.is_sorted() || fences.last() != Some(&fences_at) {
            return Err(broken());
        }
        Ok(Self {
            count: number(4),
            fence_bits: bits,
            fences,
            bytes,
        })
    }

    /// How many.
    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Bytes of memory held.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn memory(&self) -> usize {
        let in_memory = match &self.bytes {
            Bytes::File { .. } => 0,
            Bytes::Memory(bytes) => bytes.capacity(),
        };
        size_of::<Self>() + self.fences.capacity() * 8 + in_memory
    }

    /// Those of a region that come after one of them, in order.
    pub(crate) fn of(&self, prefix: &Prefix, after: Option<&Key>) -> Reader<'_> {
        let first = after.map_or(0, |after| after.start).max(prefix.first());
        Reader {
            after: after.cloned(),
            first,
            last: prefix.last(),
            records: Records::new(&self.bytes, self.fence(first), self.end()),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Reader<'_> {
        self.of(&Prefix::of(0, 0), None)
    }

    /// Whether a key is among them.
    pub(crate) fn has(&self, key: &Key) -> io::Result<bool> {
        let prefix = Prefix::of(key.start, crate::dht::regions::BITS_MAX);
        for found in self.of(&prefix, None) {
            let found = found?;
            if found >= *key {
                return Ok(found == *key);
            }
        }
        Ok(false)
    }

    fn end(&self) -> u64 {
        self.fences.last().copied().unwrap_or(0)
    }

    /// Where to look from for what begins so.
    fn fence(&self, start: u64) -> u64 {
        let at = fence_of(start, self.fence_bits);
        self.fences.get(at).copied().unwrap_or(0)
    }
}

/// Keys of a region, as they are read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    records: Records<'a>,
    after: Option<Key>,
    first: u64,
    last: u64,
}

impl Iterator for Reader<'_> {
    type Item = io::Result<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let key = match self.records.next()? {
                Ok(key) => key,
                Err(error) => return Some(Err(error)),
            };
            if key.start > self.last {
                return None;
            }
            let is_before = self.after.as_ref().is_some_and(|after| key <= *after);
            if key.start >= self.first && !is_before {
                return Some(Ok(key));
            }
        }
    }
}

/// Records between two places of a file.
#[derive(Debug)]
struct Records<'a> {
    bytes: &'a Bytes,
    at: u64,
    end: u64,
    read: Vec<u8>,
    used: usize,
}

impl<'a> Records<'a> {
    fn new(bytes: &'a Bytes, at: u64, end: u64) -> Self {
        Self {
            bytes,
            at,
            end,
            read: Vec::new(),
            used: 0,
        }
    }

    /// So many bytes more; none at the end.
    fn take(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        if self.read.len() - self.used < count {
            self.read.drain(..self.used);
            self.used = 0;
            let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let more = self.bytes.read(self.at, READ.min(left))?;
            self.at += more.len() as u64;
            self.read.extend(more);
        }
        let Some(taken) = self.read.get(self.used..self.used + count) else {
            return Ok(None);
        };
        self.used += count;
        Ok(Some(taken))
    }

    fn record(&mut self) -> io::Result<Option<Key>> {
        let Some(head) = self.take(RECORD_HEAD)? else {
            return Ok(None);
        };
        let (start, len) = match head.split_first_chunk() {
            Some((start, [len])) => (u64::from_be_bytes(*start), usize::from(*len)),
            _ => return Ok(None),
        };
        let hash = self.take(len)?.map(Box::from);
        let hash: Box<[u8]> = hash.ok_or(io::ErrorKind::UnexpectedEof)?;
        if Place::of(&hash).start() != start {
            let error = "a key lies where it does not belong: the list of keys is damaged";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(Some(Key { start, hash }))
    }
}

impl Iterator for Records<'_> {
    type Item = io::Result<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.record().transpose();
        if matches!(record, Some(Err(_)) | None) {
            (self.at, self.used) = (self.end, self.read.len());
        }
        record
    }
}

/// Makes [`Keys`] of keys in any order.
#[derive(Debug)]
pub(crate) struct Sorter {
    folder: Option<PathBuf>,
    held: Vec<Key>,
    /// Sorted runs; those of each level have been merged once more than those of the one before.
    levels: Vec<Vec<Bytes>>,
    pushed: u64,
}

impl Sorter {
    /// Of keys that are to lie in a folder, or in memory.
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            held: Vec::new(),
            levels: Vec::new(),
            pushed: 0,
        }
    }

    /// Takes one. What nobody takes for a key is left out.
    pub(crate) fn push(&mut self, hash: &[u8]) -> io::Result<()> {
        if hash.len() > KEY_BYTES_MAX {
            return Ok(());
        }
        self.pushed += 1;
        self.held.push(Key::new(hash));
        if self.held.len() < RUN_KEYS {
            return Ok(());
        }
        let mut run = BufWriter::new(self.run()?);
        self.held.sort_unstable();
        for key in self.held.drain(..) {
            key.write(&mut run)?;
        }
        self.put(run.into_inner()?, 0)
    }

    /// Puts a run beside others of its level, which are merged when they are many.
    fn put(&mut self, run: Bytes, level: usize) -> io::Result<()> {
        if self.levels.len() <= level {
            self.levels.push(Vec::new());
        }
        let Some(runs) = self.levels.get_mut(level) else {
            return Ok(());
        };
        runs.push(run);
        if runs.len() < RUNS_MAX {
            return Ok(());
        }
        let runs = std::mem::take(runs);
        let mut merged = BufWriter::new(self.run()?);
        for key in Merge::of(&runs, Vec::new())? {
            key?.write(&mut merged)?;
        }
        self.put(merged.into_inner()?, level + 1)
    }

    fn run(&self) -> io::Result<Bytes> {
        Bytes::temporary(self.folder.as_deref(), "run")
    }

    /// All of them, each once; tells which are not among `before`.
    pub(crate) fn finish(
        mut self,
        before: Option<&Keys>,
        mut is_new: impl FnMut(&Key),
    ) -> io::Result<Keys> {
        let runs: Vec<Bytes> = self.levels.drain(..).flatten().collect();
        self.held.sort_unstable();
        let held = std::mem::take(&mut self.held);
        let mut out = BufWriter::new(Bytes::create(self.folder.as_deref(), NAME_NEW)?);
        let fence_bits = (self.pushed / FENCE_KEYS)
            .max(1)
            .ilog2()
            .min(FENCE_BITS_MAX);
        let mut fences: Vec<u64> = Vec::with_capacity((1 << fence_bits) + 1);
        let (mut at, mut count) = (0, 0);
        let mut old = before.map(Keys::all).into_iter().flatten().peekable();
        for key in Merge::of(&runs, held)? {
            let key = key?;
            while fences.len() <= fence_of(key.start, fence_bits) {
                fences.push(at);
            }
            while old
                .next_if(|old| old.as_ref().is_ok_and(|old| *old < key))
                .is_some()
            {}
            if before.is_some() && !matches!(old.peek(), Some(Ok(old)) if *old == key) {
                is_new(&key);
            }
            key.write(&mut out)?;
            at += (RECORD_HEAD + key.hash.len()) as u64;
            count += 1;
        }
        fences.resize((1 << fence_bits) + 1, at);
        let written: Vec<u8> = fences.iter().flat_map(|at| at.to_be_bytes()).collect();
        out.write_all(&written)?;
        out.write_all(&fence_bits.to_be_bytes())?;
        out.write_all(&u64::to_be_bytes(count))?;
        out.write_all(&checksum(&written, fence_bits, count).to_be_bytes())?;
        out.write_all(MAGIC)?;
        let bytes = out.into_inner()?;
        if let Some(folder) = &self.folder {
            bytes.sync()?;
            fs::rename(folder.join(NAME_NEW), folder.join(NAME))?;
        }
        Ok(Keys {
            bytes,
            count,
            fence_bits,
            fences,
        })
    }
}

/// Sorted runs as one, each key once.
struct Merge<'a> {
    runs: Vec<Box<dyn Iterator<Item = io::Result<Key>> + 'a>>,
    next: BinaryHeap<Reverse<(Key, usize)>>,
    last: Option<Key>,
}

impl<'a> Merge<'a> {
    fn of(runs: &'a [Bytes], held: Vec<Key>) -> io::Result<Self> {
        let mut all: Vec<Box<dyn Iterator<Item = io::Result<Key>> + 'a>> = Vec::new();
        for run in runs {
            all.push(Box::new(Records::new(run, 0, run.len())));
        }
        all.push(Box::new(held.into_iter().map(Ok)));
        let mut merge = Self {
            next: BinaryHeap::new(),
            runs: all,
            last: None,
        };
        for run in 0..merge.runs.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> io::Result<()> {
        if let Some(key) = self.runs.get_mut(run).and_then(Iterator::next) {
            self.next.push(Reverse((key?, run)));
        }
        Ok(())
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<Key>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Reverse((key, run)) = self.next.pop()?;
            if let Err(error) = self.advance(run) {
                self.next.clear();
                return Some(Err(error));
            }
            if self.last.as_ref() != Some(&key) {
                self.last = Some(key.clone());
                return Some(Ok(key));
            }
        }
    }
}

fn fence_of(start: u64, bits: u32) -> usize {
    let number = start.checked_shr(u64::BITS - bits).unwrap_or(0);
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn checksum(fences: &[u8], bits: u32, count: u64) -> u64 {
    let all = [fences, &bits.to_be_bytes(), &count.to_be_bytes()].concat();
    Place::of(&all).start()
}

/// The file, and the one that takes its place.
const NAME: &str = "keys";
const NAME_NEW: &str = "keys.new";
const MAGIC: &[u8; 8] = b"cairnkey";
const FOOTER: usize = 4 + 8 + 8 + MAGIC.len();
const RECORD_HEAD: usize = 8 + 1;
/// Keys that a fence stands for, at least: an eighth of a byte of memory each.
const FENCE_KEYS: u64 = 64;
/// 8 MiB of memory, at 64 million keys and more.
const FENCE_BITS_MAX: u32 = 20;
/// Keys held in memory while they are sorted: about 6 MiB.
const RUN_KEYS: usize = 64 << 10;
/// Runs of one level. Each is an open file.
const RUNS_MAX: usize = 16;
/// Bytes read at once.
const READ: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> Vec<u8> {
        [&[0x12, 32][..], &[7; 24], &number.to_be_bytes()].concat()
    }

    fn sorted(folder: Option<&Path>, numbers: impl Iterator<Item = u64>) -> Keys {
        let mut sorter = Sorter::new(folder.map(Path::to_owned));
        for number in numbers {
            sorter.push(&hash(number)).unwrap();
        }
        sorter.finish(None, |_| {}).unwrap()
    }

    fn expected(numbers: impl Iterator<Item = u64>) -> Vec<Key> {
        let mut all: Vec<Key> = numbers.map(|number| Key::new(&hash(number))).collect();
        all.sort_unstable();
        all
    }

    fn read(reader: Reader<'_>) -> Vec<Key> {
        reader.map(Result::unwrap).collect()
    }

    #[test]
    fn all_come_out_in_order_each_once_and_again_after_opening() {
        let folder = tempfile::tempdir().unwrap();
        // More than a run, some of them twice.
        let count = RUN_KEYS as u64 + 5000;
        let numbers = (0..count).chain(0..1000);
        let keys = sorted(Some(folder.path()), numbers);
        let all = expected(0..count);
        assert_eq!(keys.len(), count);
        assert!(read(keys.all()) == all);
        drop(keys);
        let keys = Keys::open(folder.path()).unwrap();
        assert_eq!(keys.len(), count);
        assert!(read(keys.all()) == all);
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left");
        assert!(keys.memory() as u64 <= count * 16, "{}", keys.memory());
    }

    #[test]
    fn a_region_reads_alone_and_from_any_key_on() {
        let keys = sorted(None, 0..10_000);
        let all = expected(0..10_000);
        let mut empty = 0;
        // Of the smallest regions, some have no key.
        let smallest = Prefix::all(12).step_by(8);
        for prefix in Prefix::all(5).chain(Prefix::all(9)).chain(smallest) {
            let of_region = |key: &&Key| Prefix::of(key.start, prefix.bits()) == prefix;
            let of_region: Vec<Key> = all.iter().filter(of_region).cloned().collect();
            assert_eq!(read(keys.of(&prefix, None)), of_region);
            if let Some(middle) = of_region.get(of_region.len() / 2) {
                let rest = read(keys.of(&prefix, Some(middle)));
                assert_eq!(rest, of_region[of_region.len() / 2 + 1..]);
            }
            empty += usize::from(of_region.is_empty());
        }
        assert!(empty > 0);
        assert!(keys.has(&all[77]).unwrap());
        assert!(!keys.has(&Key::new(&hash(10_000))).unwrap());
        let none = sorted(None, 0..0);
        assert_eq!(none.all().count(), 0);
    }

    #[test]
    fn what_was_not_there_before_is_told() {
        let before = sorted(None, 0..500);
        let mut sorter = Sorter::new(None);
        for number in 250..600 {
            sorter.push(&hash(number)).unwrap();
        }
        let mut new = Vec::new();
        let keys = sorter.finish(Some(&before), |key| new.push(key.clone()));
        assert_eq!(keys.unwrap().len(), 350);
        assert_eq!(new, expected(500..600));
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        sorted(Some(folder.path()), 0..1000);
        let path = folder.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for len in [0, 10, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(Keys::open(folder.path()).is_err(), "{len}");
        }
        for at in [whole.len() - FOOTER - 3, whole.len() - 10, whole.len() - 20] {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            fs::write(&path, &changed).unwrap();
            assert!(Keys::open(folder.path()).is_err(), "{at}");
        }
        // Damage among the records ends the reading with an error.
        for at in [3, 8, 20] {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            fs::write(&path, &changed).unwrap();
            let keys = Keys::open(folder.path()).unwrap();
            let read: io::Result<Vec<Key>> = keys.all().collect();
            assert!(read.is_err(), "{at}");
        }
    }
}
