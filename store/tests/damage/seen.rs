//! What must hold of a store that opened in spite of a damage.

use crate::good::{GOOD, Placed, leaf};
use crate::{Case, Damage, Kind};
use cairn_store::block::Block;
use cairn_store::cid::Cid;
use cairn_store::gc::GcError;
use cairn_store::pin::{Pin, PinMode};
use cairn_store::store::Keep;
use cairn_store::verify::BadBlock;
use cairn_store::{BlockSource, Store};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

/// A store that opened in spite of a damage.
pub(super) struct Seen<'a> {
    pub(super) kind: Kind,
    pub(super) case: &'a Case,
    pub(super) damaged: Range<usize>,
    pub(super) notices: Vec<String>,
    pub(super) runtime: &'a Runtime,
}

impl Seen<'_> {
    fn is_hit(&self, file: &Path, range: &Range<usize>) -> bool {
        *file == self.case.file && range.start < self.damaged.end && self.damaged.start < range.end
    }

    pub(super) fn verify(&self, store: &Store) -> Result<Vec<BadBlock>, String> {
        let bad = Arc::new(Mutex::new(Vec::new()));
        let into = bad.clone();
        let verify = store.verify(|_| {}, move |bad| into.lock().unwrap().push(bad));
        let verified = self.runtime.block_on(verify);
        verified.map_err(|error| format!("verify failed: {error}"))?;
        let bad = bad.lock().unwrap().clone();
        Ok(bad)
    }

    /// Every block is right or missed, and missed only if it was hit. Answers how many are missed: no hash
    /// covers the codec in a CID, so a flip there costs nothing.
    pub(super) fn check_blocks(&self, store: &Store) -> Result<usize, String> {
        let mut lost = 0;
        for placed in &GOOD.blocks {
            let cid = placed.block.cid();
            let length = placed.block.data().len() as u64;
            let whole = self.runtime.block_on(store.block(cid));
            if let Ok(Some(found)) = &whole
                && *found != placed.block
            {
                return Err(format!("wrong bytes for {cid}"));
            }
            let range = length / 3..length / 2;
            let part = self.runtime.block_on(store.range(cid, range.clone()));
            if let Ok(Some(found)) = &part
                && *found != cairn_store::source::cut(placed.block.data(), &range)
            {
                return Err(format!("wrong bytes in a range of {cid}"));
            }
            if self.is_hit(&placed.file, &placed.section) {
                lost += usize::from(!matches!(whole, Ok(Some(_))));
                if matches!(whole, Ok(Some(_))) && self.is_hit(&placed.file, &placed.payload) {
                    let undone = matches!(self.case.damage, Damage::Zero { .. });
                    assert!(!undone, "random bytes hold no zeroed page");
                    return Err(format!("{cid} was damaged and yet read"));
                }
                continue;
            }
            if !matches!(whole, Ok(Some(_))) || !matches!(part, Ok(Some(_))) {
                let notices = &self.notices;
                return Err(format!(
                    "{cid} in {} at {:?} was not damaged: {whole:?}, told: {notices:?}",
                    placed.file.display(),
                    placed.section
                ));
            }
        }
        if self.kind == Kind::Journal {
            return Ok(lost); // Deletions may be lost with it.
        }
        for cid in &GOOD.gone {
            let found = self.runtime.block_on(store.block(cid));
            if !matches!(found, Ok(None)) {
                return Err(format!("{cid} was deleted: {found:?}"));
            }
        }
        Ok(lost)
    }

    /// What is damaged is told, by its name if only its bytes are.
    pub(super) fn check_bad(&self, bad: &[BadBlock], lost: usize) -> Result<(), String> {
        let named: HashSet<Cid> = bad.iter().filter_map(|bad| bad.cid).collect();
        for placed in &GOOD.blocks {
            if !self.is_hit(&placed.file, &placed.section) {
                if named.contains(placed.block.cid()) {
                    return Err(format!("{} was blamed", placed.block.cid()));
                }
                continue;
            }
            let in_payload = self.damaged.start >= placed.payload.start
                && self.damaged.end <= placed.payload.end;
            let there = !matches!(self.case.damage, Damage::Cut { .. } | Damage::Removed);
            if in_payload && there && !named.contains(placed.block.cid()) {
                return Err(format!("{} was not found: {bad:?}", placed.block.cid()));
            }
        }
        if lost > 0 && bad.is_empty() && self.notices.is_empty() {
            return Err("nobody was told".to_owned());
        }
        Ok(())
    }

    pub(super) fn check_pins(&self, store: &Store) -> Result<(), String> {
        let pins = store.pins();
        let same = if self.kind == Kind::Journal {
            pins.iter().all(|pin| GOOD.pins.contains(pin))
        } else {
            pins == GOOD.pins
        };
        if !same {
            return Err(format!("pins are {pins:?}, told: {:?}", self.notices));
        }
        Ok(())
    }

    /// Nothing that was pinned is collected, whatever of the pins is still known.
    pub(super) fn check_collection(&self, store: &Store) -> Result<(), String> {
        let names = pinned(self.known_pins());
        let pinned: Vec<&Placed> = GOOD
            .blocks
            .iter()
            .filter(|placed| !self.is_hit(&placed.file, &placed.section))
            .filter(|placed| names.contains(placed.block.cid()))
            .collect();
        let collected = self.runtime.block_on(store.gc(|_| {}));
        let all_hold = store.pins() == GOOD.pins;
        match collected {
            Ok(_) => {}
            Err(GcError::Journal { .. }) if self.kind == Kind::Journal => {}
            Err(GcError::Unreadable { .. }) if self.kind == Kind::Segment => {}
            Err(error) => return Err(format!("gc failed: {error}, pins hold: {all_hold}")),
        }
        for placed in pinned {
            let found = self.runtime.block_on(store.block(placed.block.cid()));
            if !matches!(found, Ok(Some(_))) {
                return Err(format!("{} was collected: {found:?}", placed.block.cid()));
            }
        }
        Ok(())
    }

    /// The pins that must not be forgotten in silence. An end of the journal that sled was never
    /// told of cannot be told from one that was never written.
    fn known_pins(&self) -> &'static [Pin] {
        let end = self.kind == Kind::Journal && self.damaged.start >= GOOD.journal_known;
        if end { &GOOD.pinned_then } else { &GOOD.pins }
    }

    /// What was lost can be put again, and so can something new.
    pub(super) fn check_writing(&self, store: &Store) -> Result<(), String> {
        let blocks: Vec<Block> = GOOD
            .blocks
            .iter()
            .map(|placed| placed.block.clone())
            .collect();
        let new = leaf(9999, 3000);
        let put = self
            .runtime
            .block_on(store.put([blocks, vec![new]].concat(), Keep::Kept));
        put.map_err(|error| format!("cannot be written to: {error}"))?;
        self.check_written(store)
    }

    pub(super) fn check_written(&self, store: &Store) -> Result<(), String> {
        let new = leaf(9999, 3000);
        let blocks = GOOD.blocks.iter().map(|placed| &placed.block);
        for block in blocks.chain([&new]) {
            let found = self.runtime.block_on(store.block(block.cid()));
            if !matches!(&found, Ok(Some(found)) if found == block) {
                return Err(format!("{} was put again: {found:?}", block.cid()));
            }
        }
        Ok(())
    }
}

/// What the pins reach in the store without damage.
fn pinned(pins: &[Pin]) -> HashSet<Cid> {
    let below = |pin: &Pin| {
        let is_root = |placed: &&Placed| *placed.block.cid() == pin.cid;
        let root = GOOD.blocks.iter().find(is_root).unwrap();
        let links = match pin.mode {
            PinMode::Recursive => cairn_store::dag::links(&root.block).unwrap(),
            PinMode::Direct => Vec::new(),
        };
        let below = links.into_iter().map(|link| link.cid);
        below.chain([pin.cid]).collect::<Vec<Cid>>()
    };
    pins.iter().flat_map(below).collect()
}
