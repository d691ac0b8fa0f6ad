//! What must stay: everything that pins and the root of the file tree reach, along the referring CIDs' codecs.

use super::{Collection, GcError, GcEvent};
use crate::block::Block;
use crate::cid::{self, Cid, Multihash};
use crate::dag;
use crate::index::Key;
use crate::pin::{PinMode, table};
use crate::sink::PutError;
use crate::store::Inner;
use crate::unixfs::read::ReadError;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// What is known to stay.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Multihashes that must stay, by key.
    live: HashSet<Key>,
    /// Codecs and multihashes walked, by key.
    walked: HashSet<Key>,
    /// Pins and roots of the file tree marked as what they were, and the count of changes when they were read.
    pins: HashMap<Box<[u8]>, Modes>,
    changes: u64,
}

/// In which modes a pin was marked.
#[derive(Debug, Clone, Copy, Default)]
struct Modes {
    recursive: bool,
    direct: bool,
}

impl Modes {
    const fn has(self, mode: PinMode) -> bool {
        match mode {
            PinMode::Recursive => self.recursive,
            PinMode::Direct => self.direct,
        }
    }

    const fn add(&mut self, mode: PinMode) {
        match mode {
            PinMode::Recursive => self.recursive = true,
            PinMode::Direct => self.direct = true,
        }
    }
}

/// When a marked block without links is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaves {
    /// At once.
    LookedUp,
    /// All together, in one look over the index.
    Counted,
}

impl Marks {
    pub(super) fn len(&self) -> u64 {
        self.live.len() as u64
    }

    pub(super) fn has(&self, key: &Key) -> bool {
        self.live.contains(key)
    }

    fn has_pin(&self, key: &[u8], mode: PinMode) -> bool {
        self.pins.get(key).is_some_and(|known| known.has(mode))
    }

    /// Whether pins and the file tree are what they were when they were last marked.
    pub(super) fn are_current(&self, inner: &Inner) -> bool {
        inner.pins.read().changes() == self.changes
    }
}

impl<F: FnMut(GcEvent)> Collection<F> {
    /// Marks what is pinned now, and makes sure that all of it is here.
    pub(super) fn mark_first(&mut self) -> Result<(), GcError> {
        self.mark(Leaves::Counted)?;
        // Afterwards the index below the memory table knows all that was there when the mark began.
        self.inner.checkpoint()?;
        let mut here = 0;
        let inner = self.inner.clone();
        let marks = &self.marks;
        inner
            .index
            .each(0, |entries| {
                let counts = |(key, place): &&(Key, _)| {
                    marks.has(key) && inner.counting(Some(*place)).is_some()
                };
                here += entries.iter().filter(counts).count() as u64;
                ControlFlow::Continue(())
            })
            .map_err(PutError::from)?;
        if here == self.marks.len() {
            return Ok(());
        }
        // Something is missing, or was deleted while we looked: find out what.
        self.marks = Marks::default();
        self.mark(Leaves::LookedUp)
    }

    /// Marks pins that are not marked yet.
    pub(super) fn mark_new(&mut self) -> Result<(), GcError> {
        self.mark(Leaves::LookedUp)
    }

    /// Marks pins that are not marked yet. What could not be read below a pin that has been given up
    /// meanwhile is nobody's loss.
    fn mark(&mut self, leaves: Leaves) -> Result<(), GcError> {
        let mut tries = 1;
        loop {
            match self.mark_pins(leaves) {
                Err(GcError::Unreadable { .. } | GcError::Files { .. })
                    if tries < MARK_TRIES && !self.marks.are_current(&self.inner) =>
                {
                    tries += 1;
                    // Half-walked, it would hide what others reach through it.
                    self.marks = Marks::default();
                }
                marked => return marked,
            }
        }
    }

    fn mark_pins(&mut self, leaves: Leaves) -> Result<(), GcError> {
        let (new, files, changes) = {
            let pins = self.inner.pins.read();
            let new = pins
                .modes()
                .filter(|(key, mode)| !self.marks.has_pin(key, *mode));
            let new: Vec<(Box<[u8]>, PinMode)> =
                new.map(|(key, mode)| (key.into(), mode)).collect();
            (new, self.inner.files_root(), pins.changes())
        };
        self.marks.changes = changes;
        for (key, mode) in new {
            // It was made of one.
            if let Some(root) = table::cid_of(&key, false) {
                self.mark_pin(root, mode, leaves)
                    .map_err(|source| GcError::Unreadable {
                        root,
                        source: source.into(),
                    })?;
            }
            self.marks.pins.entry(key).or_default().add(mode);
        }
        let files = files.map_err(|error| GcError::Journal {
            damage: error.to_string(),
        })?;
        let Some(root) = files else { return Ok(()) };
        let (key, mode) = (cid::to_v1(&root).to_bytes(), PinMode::Recursive);
        if !self.marks.has_pin(&key, mode) {
            self.mark_pin(root, mode, leaves)
                .map_err(|source| GcError::Files {
                    root,
                    source: source.into(),
                })?;
            self.marks.pins.entry(key.into()).or_default().add(mode);
        }
        Ok(())
    }

    fn mark_pin(&mut self, root: Cid, mode: PinMode, leaves: Leaves) -> Result<(), ReadError> {
        let mut todo = vec![root];
        while let Some(cid) = todo.pop() {
            if cid::is_identity(&cid) {
                // It lies nowhere; only its links matter.
                if mode == PinMode::Recursive {
                    self.push_links(&cid, &mut todo)?;
                }
                continue;
            }
            let key = self.inner.index.key(cid.hash());
            let is_new = self.marks.live.insert(key);
            if mode == PinMode::Direct || dag::has_no_links(cid.codec()) {
                // Not noted as walked: another pin may reach below what this one only names.
                if is_new && leaves == Leaves::LookedUp && self.inner.place(&cid, &key)?.is_none() {
                    return Err(ReadError::NotFound(cid));
                }
                continue;
            }
            self.push_links(&cid, &mut todo)?;
        }
        Ok(())
    }

    /// Reads a block and puts what it links to on the list, unless that was done before.
    fn push_links(&mut self, cid: &Cid, todo: &mut Vec<Cid>) -> Result<(), ReadError> {
        if dag::has_no_links(cid.codec()) || !self.marks.walked.insert(self.walk_key(cid)) {
            return Ok(());
        }
        let block = match Block::from_identity(cid) {
            Some(block) => block,
            None => self.inner.block(cid)?.ok_or(ReadError::NotFound(*cid))?,
        };
        let links = dag::links(&block).map_err(|error| ReadError::Malformed {
            cid: *cid,
            why: error.why,
        })?;
        todo.extend(links.into_iter().map(|link| link.cid));
        Ok(())
    }

    /// Links are read along the referring CID's codec, so a multihash may be walked once for each.
    fn walk_key(&self, cid: &Cid) -> Key {
        let mut named = cid.codec().to_le_bytes().to_vec();
        named.extend_from_slice(&self.inner.index.key(cid.hash()));
        Multihash::wrap(0, &named)
            .map_or_else(|_| Key::default(), |named| self.inner.index.key(&named))
    }
}

/// How often pins are looked at again because one was given up while it was read.
const MARK_TRIES: usize = 16;
