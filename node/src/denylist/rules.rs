//! One list in memory: rules of one size each, found by what they name and never by going through them.
//!
//! A rule is kept under a keyed hash of what it names (a root and a path), so that a list of a million lines takes
//! the same few bytes for each, however long they are, and so that nobody who writes lists can make rules meet. Of
//! two rules under the same key the later one stays, which is the format's own rule. A prefix is looked for by its
//! length: a list knows which lengths it has.

use super::Grounds;
use super::lines::{Line, head, is_cut, next_line};
use super::parse::{
    self, BYTES_MAX, Effect, HeaderError, LineError, Pattern, RULES_MAX, Root, Rule, Target,
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
    /// How names were hashed.
    hashings: Hashings,
    /// What it calls itself.
    pub(super) name: Option<String>,
    /// How many lines were taken.
    pub(super) rules: u64,
    /// How many lines were not.
    pub(super) skipped: u64,
    /// The first of those.
    pub(super) faults: Vec<Fault>,
    /// For how many of them there was no room.
    pub(super) beyond: u64,
    /// How many bytes of its file were read.
    pub(super) bytes: u64,
    /// Whether its last line has no end, as if somebody were still writing it.
    pub(super) is_open: bool,
}

/// What texts a name has to be hashed as, and how, to be found among hashed rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hashings {
    /// The text of today's form, with each of these functions.
    pub(super) modern: Vec<HashKind>,
    /// The text of the old form, always with SHA-256.
    pub(super) has_legacy: bool,
}

impl Hashings {
    pub(super) fn is_none(&self) -> bool {
        self.modern.is_empty() && !self.has_legacy
    }

    pub(super) fn join(&mut self, other: &Self) {
        other.modern.iter().for_each(|function| self.add(*function));
        self.has_legacy |= other.has_legacy;
    }

    fn add(&mut self, function: HashKind) {
        if !self.modern.contains(&function) {
            self.modern.push(function);
        }
    }
}

/// What becomes of a last line that has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It is a line like others.
    Taken,
    /// There may be more of it later.
    Left,
}

/// A line that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) line: u64,
    pub(super) why: LineError,
}

/// How much of a list is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// So many rules.
    pub(super) rules: usize,
    /// So much of its file.
    pub(super) bytes: u64,
}

impl Room {
    /// What all lists have together.
    pub(super) const ALL: Self = Self {
        rules: RULES_MAX,
        bytes: BYTES_MAX,
    };

    /// What a list leaves to others.
    pub(super) fn without(self, list: &List) -> Self {
        Self {
            rules: self.rules.saturating_sub(list.slots.len()),
            bytes: self.bytes.saturating_sub(list.bytes),
        }
    }

    /// Whether a list that had so much room before need not be read anew for having this much now.
    pub(super) fn suits(self, list: &List, before: Self) -> bool {
        let fits = list.slots.len() <= self.rules && list.bytes <= self.bytes;
        let gains = self.rules > before.rules || self.bytes > before.bytes;
        fits && (list.beyond == 0 || !gains)
    }
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
    /// A hash of a name in today's form.
    Modern(&'a Multihash),
    /// A hash of a name in the old form.
    Legacy(&'a Multihash),
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
pub(super) struct Key([u8; 16]);

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
    pub(super) fn read(
        source: impl BufRead,
        keys: &Keys,
        room: Room,
        tail: Tail,
    ) -> Result<Self, ListError> {
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
                Line::Open => {
                    list.is_open = true;
                    // Half a line may be another rule.
                    if tail == Tail::Left || is_cut(rest.get_mut().1)? {
                        break;
                    }
                    parse::rule(&line)
                }
                Line::Long => Err(LineError::Long),
            };
            match rule {
                Ok(None) => {}
                Ok(Some(rule)) if list.slots.len() < room.rules => {
                    let grounds = rule.grounds.or(header.grounds).unwrap_or_default();
                    list.take(keys, &rule, Slot::new(number, rule.effect, grounds));
                }
                Ok(Some(_)) => list.lacks_room(number, LineError::Full),
                Err(why) => list.fault(number, why),
            }
        }
        let (_, mut source) = rest.into_inner();
        if is_cut(&mut source)? {
            list.lacks_room(number, LineError::Beyond);
        }
        list.bytes = room.bytes - source.limit();
        list.lengths.sort_unstable();
        Ok(list)
    }

    /// Whether nothing can be found in it.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How names are to be hashed, to be looked for.
    pub(super) fn hashings(&self) -> &Hashings {
        &self.hashings
    }

    /// The rule about a name, without a path below it, and nothing else.
    pub(super) fn slot(&self, key: &Key) -> Option<Found> {
        self.slots.get(key).map(|slot| slot.found())
    }

    /// The last rule about a path, whose own key is `exact`.
    pub(super) fn find(
        &self,
        keys: &Keys,
        exact: &Key,
        subject: Subject<'_>,
        path: &str,
    ) -> Option<Found> {
        let exact = self.slot(exact);
        let part = |part, path| self.slot(&keys.of(part, subject, path));
        if self.lengths.is_empty() || part(Part::Mark, "").is_none() {
            return exact;
        }
        let starts = self.lengths.iter().map_while(|length| {
            // Beyond the path there is none; inside a letter none ends.
            (*length <= path.len()).then(|| path.get(..*length))
        });
        let prefixes = starts
            .flatten()
            .filter_map(|start| part(Part::Prefix, start));
        exact.into_iter().chain(prefixes).max()
    }

    fn take(&mut self, keys: &Keys, rule: &Rule, slot: Slot) {
        self.rules += 1;
        for target in &rule.targets {
            match target {
                Target::Modern(function, hash) => {
                    self.hashings.add(*function);
                    self.slots
                        .insert(keys.exact(Subject::Modern(hash), ""), slot);
                }
                Target::Legacy(hash) => {
                    self.hashings.has_legacy = true;
                    self.slots
                        .insert(keys.exact(Subject::Legacy(hash), ""), slot);
                }
                Target::Path(root, Pattern::Exactly(path)) => {
                    self.slots.insert(keys.exact(root.into(), path), slot);
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

    /// Of those only the first is kept, or they would hide the others.
    fn lacks_room(&mut self, line: u64, why: LineError) {
        self.beyond += 1;
        match self.beyond {
            1 => self.fault(line, why),
            _ => self.skipped += 1,
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
    /// The key of a name and exactly this path below it.
    pub(super) fn exact(&self, subject: Subject<'_>, path: &str) -> Key {
        self.of(Part::Path, subject, path)
    }

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

const ALLOWS: u32 = 1 << 31;
const LEGAL: u32 = 1 << 30;
const LINE_MASK: u32 = LEGAL - 1;
/// Most different lengths of prefixes in a list: each is tried for every path below a root that has any.
const LENGTHS_MAX: usize = 1024;
/// How many wrong lines are remembered, to be told.
const FAULTS_KEPT_MAX: usize = 20;
