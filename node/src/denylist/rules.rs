//! One list in memory: rules of one size each, found by what they name and never by going through them.
//!
//! A rule is kept under a keyed hash of what it names (a root and a path), so that a list of a million lines takes
//! the same few bytes for each, however long they are, and so that nobody who writes lists can make rules meet. Of
//! two rules under the same key the later one stays, which is the format's own rule. A prefix is looked for by its
//! length: a list knows which lengths it has.

use super::Grounds;
use super::parse::{
    self, Effect, HEADER_BYTES_MAX, HeaderError, LINE_BYTES_MAX, LineError, Pattern, Root, Rule,
    Target,
};
use cairn_store::cid::{HashKind, Multihash};
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::io::{self, BufRead, Cursor, Read};

/// One list.
#[derive(Debug, Default)]
pub(super) struct List {
    slots: HashMap<Key, Slot, BuildHasherDefault<Taken>>,
    /// The lengths of all prefixes, the shortest first.
    lengths: Vec<usize>,
    /// The functions that names were hashed with.
    functions: Vec<HashKind>,
    /// What it calls itself.
    pub(super) name: Option<String>,
    /// How many lines were taken.
    pub(super) rules: u64,
    /// How many lines were not.
    pub(super) skipped: u64,
    /// The first of those.
    pub(super) faults: Vec<Fault>,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) why: LineError,
}

/// How much of a list is taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// So many rules.
    pub(super) rules: usize,
    /// So much of its file.
    pub(super) bytes: u64,
}

/// Why a list is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject<'a> {
    /// A root, under which there are paths.
    Content(&'a Multihash),
    Key(&'a Multihash),
    Domain(&'a str),
    /// A hash of a name.
    Hashed(&'a Multihash),
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// The greatest is the one that counts.
    pub(super) line: u32,
    /// Why it is denied; `None` where it is allowed.
    pub(super) denies: Option<Grounds>,
}

/// What makes keys of names: secret, and the same for all lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    low: RandomState,
    high: RandomState,
}

/// A rule's name: 128 bits that are the same for two names once in more lookups than anybody makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key([u8; 16]);

/// What a name stands for in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    /// Exactly this path.
    Path,
    /// All paths that begin so.
    Prefix,
    /// There are prefixes below this root.
    Mark,
}

impl List {
    /// Reads a list, as far as there is room.
    pub(super) fn read(source: impl BufRead, keys: &Keys, room: Room) -> Result<Self, ListError> {
        let mut list = Self::default();
        let mut source = source.take(room.bytes);
        let head = head(&mut source)?;
        let header = parse::header(&head.header)?;
        list.name = header.name;
        let mut rest = Cursor::new(head.rest).chain(source);
        let mut number = head.lines;
        let mut line = Vec::new();
        loop {
            number += 1;
            let rule = match next_line(&mut rest, &mut line)? {
                Line::End => break,
                Line::Whole => parse::rule(&line),
                Line::Long => Err(LineError::Long),
            };
            match rule {
                Ok(None) => {}
                Ok(Some(rule)) if list.slots.len() < room.rules => {
                    let grounds = rule.grounds.or(header.grounds).unwrap_or_default();
                    list.take(keys, &rule, Slot::new(number, rule.effect, grounds));
                }
                Ok(Some(_)) => list.fault(number, LineError::Full),
                Err(why) => list.fault(number, why),
            }
        }
        let (_, source) = rest.into_inner();
        if source.limit() == 0 && !source.into_inner().fill_buf()?.is_empty() {
            list.fault(number, LineError::Beyond);
        }
        list.lengths.sort_unstable();
        Ok(list)
    }

    /// How much of the room it takes.
    pub(super) fn size(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing can be found in it.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The functions that names are to be hashed with, to be looked for.
    pub(super) fn functions(&self) -> &[HashKind] {
        &self.functions
    }

    /// The last rule about a path.
    pub(super) fn find(&self, keys: &Keys, subject: Subject<'_>, path: &str) -> Option<Found> {
        let exact = self.slot(keys, Part::Path, subject, path);
        if self.lengths.is_empty() || self.slot(keys, Part::Mark, subject, "").is_none() {
            return exact;
        }
        let starts = self.lengths.iter().map_while(|length| {
            // Beyond the path there is none; inside a letter none ends.
            (*length <= path.len()).then(|| path.get(..*length))
        });
        let prefixes = starts
            .flatten()
            .filter_map(|start| self.slot(keys, Part::Prefix, subject, start));
        exact.into_iter().chain(prefixes).max()
    }

    fn slot(&self, keys: &Keys, part: Part, subject: Subject<'_>, path: &str) -> Option<Found> {
        let slot = self.slots.get(&keys.of(part, subject, path))?;
        Some(slot.found())
    }

    fn take(&mut self, keys: &Keys, rule: &Rule, slot: Slot) {
        self.rules += 1;
        for target in &rule.targets {
            match target {
                Target::Hashed(function, hash) => {
                    if !self.functions.contains(function) {
                        self.functions.push(*function);
                    }
                    let key = keys.of(Part::Path, Subject::Hashed(hash), "");
                    self.slots.insert(key, slot);
                }
                Target::Path(root, Pattern::Exactly(path)) => {
                    let key = keys.of(Part::Path, root.into(), path);
                    self.slots.insert(key, slot);
                }
                Target::Path(root, Pattern::Prefix(start)) => {
                    if !self.lengths.contains(&start.len()) {
                        if self.lengths.len() >= LENGTHS_MAX {
                            self.rules -= 1;
                            return self.fault(slot.line().into(), LineError::Lengths);
                        }
                        self.lengths.push(start.len());
                    }
                    let mark = keys.of(Part::Mark, root.into(), "");
                    self.slots.insert(mark, slot);
                    let key = keys.of(Part::Prefix, root.into(), start);
                    self.slots.insert(key, slot);
                }
            }
        }
    }

    fn fault(&mut self, line: u64, why: LineError) {
        self.skipped += 1;
        if self.faults.len() < FAULTS_KEPT_MAX {
            self.faults.push(Fault { line, why });
        }
    }
}

impl<'a> From<&'a Root> for Subject<'a> {
    fn from(root: &'a Root) -> Self {
        match root {
            Root::Content(hash) => Self::Content(hash),
            Root::Key(hash) => Self::Key(hash),
            Root::Domain(domain) => Self::Domain(domain.as_str()),
        }
    }
}

impl Keys {
    fn of(&self, part: Part, subject: Subject<'_>, path: &str) -> Key {
        let name = (part, subject, path);
        let mut key = [0; 16];
        let (low, high) = key.split_at_mut(8);
        low.copy_from_slice(&self.low.hash_one(name).to_le_bytes());
        high.copy_from_slice(&self.high.hash_one(name).to_le_bytes());
        Key(key)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        state.write_u64(u64::from_le_bytes(*first));
    }
}

/// Takes a key, which is a hash already, as it is.
#[derive(Debug, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A line, and what it says, in 32 bits.
#[derive(Debug, Clone, Copy)]
struct Slot(u32);

/// What a million rules cost is told to operators.
const _: () = assert!(size_of::<(Key, Slot)>() == 20);

impl Slot {
    fn new(line: u64, effect: Effect, grounds: Grounds) -> Self {
        let line = u32::try_from(line).unwrap_or(LINE_MASK).min(LINE_MASK);
        Self(match (effect, grounds) {
            (Effect::Allow, _) => line | ALLOWS,
            (Effect::Deny, Grounds::Legal) => line | LEGAL,
            (Effect::Deny, Grounds::Policy) => line,
        })
    }

    const fn line(self) -> u32 {
        self.0 & LINE_MASK
    }

    const fn found(self) -> Found {
        let denies = match self.0 {
            bits if bits & ALLOWS != 0 => None,
            bits if bits & LEGAL != 0 => Some(Grounds::Legal),
            _ => Some(Grounds::Policy),
        };
        Found {
            line: self.line(),
            denies,
        }
    }
}

/// The beginning of a list.
struct Head {
    header: Vec<u8>,
    /// How many lines that was, the one that ends it included.
    lines: u64,
    /// What was read of what follows.
    rest: Vec<u8>,
}

/// Reads as far as a header may go. Without an end there is none, and everything is lines.
fn head(source: &mut impl Read) -> io::Result<Head> {
    let mut header = Vec::new();
    let most = u64::try_from(HEADER_BYTES_MAX).unwrap_or(u64::MAX);
    source.take(most).read_to_end(&mut header)?;
    let mut from = 0;
    for (lines, line) in (1..).zip(header.split_inclusive(|byte| *byte == b'\n')) {
        if line.trim_ascii_end() == HEADER_END {
            let rest = header.split_off(from + line.len());
            header.truncate(from);
            return Ok(Head {
                header,
                lines,
                rest,
            });
        }
        from += line.len();
    }
    Ok(Head {
        header: Vec::new(),
        lines: 0,
        rest: header,
    })
}

enum Line {
    Whole,
    Long,
    End,
}

/// Reads a line into `line`, and past one that is too long.
fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    source.by_ref().take(most).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.len() < LINE_BYTES_MAX || line.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    // The rest of it; what was kept of it is not needed.
    loop {
        let more = source.fill_buf()?;
        let (taken, is_end) = match more.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (more.len(), more.is_empty()),
        };
        source.consume(taken);
        if is_end {
            return Ok(Line::Long);
        }
    }
}

const HEADER_END: &[u8] = b"---";
const ALLOWS: u32 = 1 << 31;
const LEGAL: u32 = 1 << 30;
const LINE_MASK: u32 = LEGAL - 1;
/// Most different lengths of prefixes in a list: each is tried for every path below a root that has any.
const LENGTHS_MAX: usize = 1024;
/// How many wrong lines are remembered, to be told.
const FAULTS_KEPT_MAX: usize = 20;
