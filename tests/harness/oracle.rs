//! What must be true of a store whose worker was killed, from the lines that it had written.
//!
//! The oracle lives in another process than the store and sees only the [`Line`]s. Each is one
//! write to a pipe, so their order is the order in which they were written: a `begin` comes before
//! anything that its work does, a `done` after its work has returned. So one piece of work surely
//! came before another if its `done` stands before the other's `begin`; else both were *at the
//! same time*, and either may have come first. The rules, each with what it must not overlook:
//!
//! **Pins.** A pin or unpin that was acknowledged holds until one of the opposite effect begins. If
//! one of the opposite effect was at the same time, nobody knows who was last: the pin is unknown
//! until the next one that was alone, or until somebody looks after an opening. Work that was begun
//! and killed leaves the pin unknown too. Whatever is found pinned, known or not, must have its
//! whole DAG.
//!
//! **Blocks.** A block is *promised* when a `put` that keeps it is acknowledged. It is not promised
//! any more when a deletion of it or any collection begins; nor is it ever if one of these was at the
//! same time as the `put`, even if that was over before: the work's `done` may be written long
//! after its hold on the block has ended. What a pin reaches is promised from the acknowledgement
//! of the pin, whatever collects or deletes, if nothing unpinned it at the same time; if something
//! did, it is promised like any other block that was put. When an unpin begins, what no other
//! pin surely reaches is promised no more if a collection or a deletion of it is under way. A block
//! that was put as cached is promised nothing.
//!
//! **Deletions.** A block is *gone* when a deletion or a collection says that it removed it, unless
//! anything that puts it was at the same time, and it stays gone until something that puts it
//! begins. So it is when it is looked for and not there after an opening, and when a collection
//! is over before whose begin nothing reached it or put it.
//!
//! A promised block that is missed, a gone block that is found, and other bytes than the world has
//! are lies, whoever meets them: a reading worker or [`Oracle::check`] after an opening.

use crate::torture::{BLOCKS, Line, Outcome, PIECES, Pinned, TREES, Work, World, name_of};
use cairn_store::block::Block;
use cairn_store::cid::{self, Cid};
use cairn_store::pin::PinMode;
use cairn_store::{BlockSource, Store};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// Knows what was acknowledged.
#[derive(Debug, Clone)]
pub struct Oracle {
    blocks: Vec<Known>,
    by_name: HashMap<u64, usize>,
    roots: HashMap<Cid, Pinned>,
    pins: BTreeMap<Pinned, Pin>,
    under_way: HashMap<u64, Begun>,
    /// Lines seen.
    now: u64,
    collections: u64,
    /// The last line at which a collection began or ended, or was killed.
    collected: u64,
    /// What was counted.
    pub totals: Totals,
}

/// How much was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Pieces of work acknowledged, in one of the ways that may be.
    pub acknowledged: u64,
    /// Pieces of work that were killed.
    pub killed: u64,
    /// Collections acknowledged.
    pub collections: u64,
    /// Collections that were killed.
    pub collections_killed: u64,
    /// Blocks that were compared with what they must be.
    pub compared: u64,
    /// What the store told while it opened, without its numbers, and how often.
    pub notices: BTreeMap<String, u64>,
}

#[derive(Debug, Clone)]
struct Known {
    block: Block,
    /// What reaches it.
    reached_by: Vec<Pinned>,
    /// The line since which it must be there.
    promised: Option<u64>,
    /// The line since which it must not be there.
    gone: Option<u64>,
    putters: u64,
    /// The last line at which something that puts it began or ended, or was killed.
    put: u64,
    deleters: u64,
    /// The same of deletions.
    deleted: u64,
}

#[derive(Debug, Clone)]
struct Pin {
    blocks: Vec<usize>,
    /// Whether it is pinned, if that is known.
    settled: Option<bool>,
    /// Since when.
    since: u64,
    /// The last line at which something that pins or unpins it began or ended, or was killed.
    touched: u64,
    under_way: Vec<u64>,
}

#[derive(Debug, Clone)]
struct Begun {
    work: Work,
    at: u64,
    /// Whether nothing was done to the same pin at the same time.
    alone: bool,
    /// Whether something of the opposite effect was.
    opposed: bool,
    /// What was known of the pin.
    before: Option<bool>,
}

impl Oracle {
    /// Knows an empty store, and what the world holds.
    pub fn new(world: World) -> Self {
        let mut oracle = Self {
            blocks: Vec::new(),
            by_name: HashMap::new(),
            roots: HashMap::new(),
            pins: BTreeMap::new(),
            under_way: HashMap::new(),
            now: 0,
            collections: 0,
            collected: 0,
            totals: Totals::default(),
        };
        for number in 0..BLOCKS {
            oracle.learn(world.block(number));
        }
        for number in 0..PIECES {
            let cid = *oracle.blocks[number].block.cid();
            oracle.learn_pin(Pinned::Block(number), cid, vec![number]);
        }
        for number in 0..TREES {
            let (root, blocks) = world.tree(number);
            let blocks = blocks
                .into_values()
                .map(|block| oracle.learn(block))
                .collect();
            oracle.learn_pin(Pinned::Tree(number), root, blocks);
        }
        oracle
    }

    fn learn(&mut self, block: Block) -> usize {
        let next = self.blocks.len();
        let at = *self.by_name.entry(name_of(block.cid())).or_insert(next);
        if at == next {
            self.blocks.push(Known {
                block,
                reached_by: Vec::new(),
                promised: None,
                gone: Some(0),
                putters: 0,
                put: 0,
                deleters: 0,
                deleted: 0,
            });
        }
        at
    }

    fn learn_pin(&mut self, pinned: Pinned, root: Cid, blocks: Vec<usize>) {
        for block in &blocks {
            self.blocks[*block].reached_by.push(pinned);
        }
        self.roots.insert(root, pinned);
        let pin = Pin {
            blocks,
            settled: Some(false),
            since: 0,
            touched: 0,
            under_way: Vec::new(),
        };
        self.pins.insert(pinned, pin);
    }

    /// Takes a line that a worker wrote; an error is a lie of the store.
    pub fn take(&mut self, line: &Line) -> Result<(), String> {
        self.now += 1;
        match line {
            Line::Begin(id, work) => {
                self.begin(*id, work.clone());
                Ok(())
            }
            Line::Done(id, outcome) => {
                self.totals.acknowledged += 1;
                let begun = self.under_way.remove(id).ok_or("done without begin")?;
                self.end(*id, &begun, outcome)
                    .map_err(|lie| format!("{lie} ({begun:?})"))
            }
            Line::Gone(id, names) => {
                let begun = self.under_way.get(id).ok_or("gone without begin")?.at;
                for name in names {
                    let block = self.by_name.get(name).ok_or("removed what nobody put")?;
                    self.removed(*block, begun)?;
                }
                Ok(())
            }
            Line::Failed(id, why) => {
                let why = self.explain(why);
                Err(format!("{:?} failed: {why}", self.under_way.get(id)))
            }
            Line::Wrong(what) => Err(self.explain(what)),
            Line::Notice(text) => {
                let kind = text.replace(|c: char| c.is_ascii_digit(), "");
                *self.totals.notices.entry(kind).or_default() += 1;
                let may_be = NOTICES_AFTER_A_KILL.iter().any(|kind| text.contains(kind));
                may_be
                    .then_some(())
                    .ok_or_else(|| format!("after a kill the store told: {text}"))
            }
            Line::Opening(_) | Line::Opened(_) | Line::Closing(_) | Line::Closed(_) => Ok(()),
        }
    }

    /// Says of each CID in a text what it is.
    fn explain(&self, text: &str) -> String {
        let words = text.split(' ').map(|word| {
            let cid = cid::parse(word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
            let Ok(cid) = cid else {
                return word.to_owned();
            };
            let block = self.by_name.get(&name_of(&cid));
            match (self.roots.get(&cid), block) {
                (Some(root), _) => format!("{word} ({root})"),
                (None, Some(block)) => format!("{word} (block {block})"),
                (None, None) => format!("{word} (nobody's)"),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The worker is dead: what it had begun was done, or not.
    pub fn killed(&mut self) {
        self.now += 1;
        for (id, begun) in std::mem::take(&mut self.under_way) {
            self.totals.killed += 1;
            self.totals.collections_killed += u64::from(begun.work == Work::Collect);
            self.no_more(id, &begun.work);
        }
    }

    /// What must be true of a snapshot that begins now: as of a store whose worker is killed at some moment before
    /// the snapshot is done. It is to hear what begins till then, and of nothing what came of it.
    #[must_use]
    pub fn of_snapshot(&self) -> Self {
        self.clone()
    }

    fn begin(&mut self, id: u64, work: Work) {
        let mut begun = Begun {
            work,
            at: self.now,
            alone: true,
            opposed: false,
            before: None,
        };
        for block in self.put_by(&begun.work) {
            let known = &mut self.blocks[block];
            known.putters += 1;
            known.put = self.now;
            known.gone = None;
        }
        if let Some((pinned, effect)) = pinned_by(&begun.work) {
            self.begin_pin(id, pinned, effect, &mut begun);
        }
        match &begun.work {
            Work::Unpin(pinned) => {
                for block in self.pins[pinned].blocks.clone() {
                    if self.collections > 0 || self.blocks[block].deleters > 0 {
                        self.threaten(block);
                    }
                }
            }
            Work::Delete(blocks) => {
                for block in blocks {
                    self.blocks[*block].deleters += 1;
                    self.blocks[*block].deleted = self.now;
                    self.threaten(*block);
                }
            }
            Work::Collect => {
                self.collections += 1;
                self.collected = self.now;
                for block in 0..self.blocks.len() {
                    self.threaten(block);
                }
            }
            _ => {}
        }
        self.under_way.insert(id, begun);
    }

    fn begin_pin(&mut self, id: u64, pinned: Pinned, effect: bool, begun: &mut Begun) {
        let pin = self.pins.get_mut(&pinned).expect("known");
        for other in &pin.under_way {
            let other = self.under_way.get_mut(other).expect("under way");
            let opposed = pinned_by(&other.work) != Some((pinned, effect));
            (other.alone, begun.alone) = (false, false);
            other.opposed |= opposed;
            begun.opposed |= opposed;
        }
        pin.under_way.push(id);
        pin.touched = self.now;
        begun.before = pin.settled;
        if pin.settled != Some(effect) {
            pin.settled = None;
        }
    }

    /// No longer promised, unless a pin surely reaches it.
    fn threaten(&mut self, block: usize) {
        if !self.is_pinned(block) {
            self.blocks[block].promised = None;
        }
    }

    fn is_pinned(&self, block: usize) -> bool {
        self.blocks[block]
            .reached_by
            .iter()
            .any(|pinned| self.pins[pinned].settled == Some(true))
    }

    fn put_by(&self, work: &Work) -> Vec<usize> {
        match work {
            Work::Add(tree) | Work::Fetch(tree) | Work::Pin(tree) => {
                self.pins[&Pinned::Tree(*tree)].blocks.clone()
            }
            Work::Direct(block) => vec![*block],
            Work::Put(blocks) | Work::Cache(blocks) => blocks.clone(),
            Work::Unpin(_)
            | Work::Delete(_)
            | Work::Read(_)
            | Work::Collect
            | Work::Evict
            | Work::Verify
            | Work::Scrub
            | Work::Rebuild
            | Work::Snapshot(_) => Vec::new(),
        }
    }

    fn end(&mut self, id: u64, begun: &Begun, outcome: &Outcome) -> Result<(), String> {
        self.no_more(id, &begun.work);
        match (&begun.work, outcome) {
            (Work::Add(_) | Work::Fetch(_) | Work::Pin(_) | Work::Direct(_), Outcome::Done) => {
                let (pinned, _) = pinned_by(&begun.work).expect("pins");
                if !begun.opposed {
                    self.settle(pinned, true);
                }
                let surely = self.pins[&pinned].settled == Some(true);
                for block in self.pins[&pinned].blocks.clone() {
                    if surely || self.was_left_alone(block, begun.at) {
                        self.promise(block);
                    }
                }
                Ok(())
            }
            (Work::Pin(tree), Outcome::Missing) => self.missing(Pinned::Tree(*tree), begun),
            (Work::Unpin(pinned), Outcome::Done) => {
                if begun.alone && begun.before == Some(false) {
                    return Err("unpinned what was not pinned".to_owned());
                }
                if !begun.opposed {
                    self.settle(*pinned, false);
                }
                Ok(())
            }
            (Work::Unpin(pinned), Outcome::NotPinned) => {
                if begun.alone && begun.before == Some(true) {
                    return Err("an acknowledged pin is not there".to_owned());
                }
                if begun.alone {
                    self.settle(*pinned, false);
                }
                Ok(())
            }
            (Work::Put(blocks), Outcome::Done) => {
                for block in blocks {
                    if self.was_left_alone(*block, begun.at) {
                        self.promise(*block);
                    }
                }
                Ok(())
            }
            (Work::Delete(_), Outcome::Deleted(blocks)) => blocks
                .iter()
                .try_for_each(|block| self.removed(*block, begun.at)),
            (Work::Read(block), Outcome::Present) => {
                self.totals.compared += 1;
                match self.blocks[*block].gone {
                    Some(since) if since < begun.at => Err("read a block that is gone".to_owned()),
                    _ => Ok(()),
                }
            }
            (Work::Read(block), Outcome::Absent) => match self.blocks[*block].promised {
                Some(since) if since < begun.at => Err("missed a promised block".to_owned()),
                _ => Ok(()),
            },
            (Work::Collect, Outcome::Done) => {
                self.totals.collections += 1;
                self.collect(begun.at);
                Ok(())
            }
            (
                Work::Cache(_)
                | Work::Evict
                | Work::Verify
                | Work::Scrub
                | Work::Rebuild
                | Work::Snapshot(_),
                Outcome::Done,
            ) => Ok(()),
            _ => Err(format!("answered {outcome:?}")),
        }
    }

    /// Takes a piece of work out of what is under way.
    fn no_more(&mut self, id: u64, work: &Work) {
        for block in self.put_by(work) {
            self.blocks[block].putters -= 1;
            self.blocks[block].put = self.now;
        }
        if let Some((pinned, _)) = pinned_by(work) {
            let pin = self.pins.get_mut(&pinned).expect("known");
            pin.under_way.retain(|other| *other != id);
            pin.touched = self.now;
        }
        match work {
            Work::Delete(blocks) => {
                for block in blocks {
                    self.blocks[*block].deleters -= 1;
                    self.blocks[*block].deleted = self.now;
                }
            }
            Work::Collect => {
                self.collections -= 1;
                self.collected = self.now;
            }
            _ => {}
        }
    }

    fn settle(&mut self, pinned: Pinned, effect: bool) {
        let pin = self.pins.get_mut(&pinned).expect("known");
        if pin.settled != Some(effect) {
            pin.settled = Some(effect);
            pin.since = self.now;
        }
    }

    fn promise(&mut self, block: usize) {
        self.blocks[block].promised.get_or_insert(self.now);
    }

    /// Whether no collection and no deletion of the block was under way since `line`.
    fn was_left_alone(&self, block: usize, line: u64) -> bool {
        let known = &self.blocks[block];
        self.collections == 0
            && self.collected < line
            && known.deleters == 0
            && known.deleted < line
    }

    /// Something that began at `begun` says that it removed the block.
    fn removed(&mut self, block: usize, begun: u64) -> Result<(), String> {
        let known = &mut self.blocks[block];
        if known.promised.is_some_and(|since| since < begun) {
            let cid = known.block.cid();
            return Err(format!("removed {cid}, which was promised"));
        }
        if known.putters == 0 && known.put < begun {
            known.gone.get_or_insert(self.now);
        }
        Ok(())
    }

    /// A pin of what is here says that something is not.
    fn missing(&mut self, pinned: Pinned, begun: &Begun) -> Result<(), String> {
        let whole = self.pins[&pinned].blocks.iter().all(|block| {
            self.blocks[*block]
                .promised
                .is_some_and(|since| since < begun.at)
        });
        if whole {
            return Err("missed a block although all are promised".to_owned());
        }
        if begun.alone && begun.before == Some(false) {
            self.settle(pinned, false);
        }
        Ok(())
    }

    /// A collection that began at `begun` is over: what nothing reached and nothing put is gone.
    fn collect(&mut self, begun: u64) {
        for block in 0..self.blocks.len() {
            let known = &self.blocks[block];
            let free = known.reached_by.iter().all(|pinned| {
                let pin = &self.pins[pinned];
                pin.settled == Some(false) && pin.touched < begun && pin.under_way.is_empty()
            });
            if free && known.putters == 0 && known.put < begun {
                let now = self.now;
                self.blocks[block].gone.get_or_insert(now);
            }
        }
    }

    /// Looks at everything in a store that was opened after its worker died.
    pub async fn check(&mut self, store: &Store) -> Result<(), String> {
        assert!(self.under_way.is_empty(), "something is still under way");
        self.now += 1;
        self.check_pins(store)?;
        let mut present = HashSet::new();
        let mut bytes = 0;
        for at in 0..self.blocks.len() {
            if self.check_block(at, store).await? {
                let block = &self.blocks[at].block;
                present.insert(cid::to_v1(block.cid()));
                bytes += block.data().len() as u64;
            }
        }
        check_list(store, &present).await?;
        check_bytes(store, present.len() as u64).await?;
        let stat = store.stat();
        let counted = (stat.blocks, stat.bytes, stat.pins);
        let pins = store.pins().len() as u64;
        if counted != (present.len() as u64, bytes, pins) {
            let blocks = present.len();
            return Err(format!(
                "{stat:?}, but there are {blocks} blocks of {bytes} bytes and {pins} pins"
            ));
        }
        Ok(())
    }

    fn check_pins(&mut self, store: &Store) -> Result<(), String> {
        let mut found = HashSet::new();
        for pin in store.pins() {
            let pinned = *self
                .roots
                .get(&pin.cid)
                .ok_or_else(|| format!("{pin:?} was never made"))?;
            let mode = match pinned {
                Pinned::Tree(_) => PinMode::Recursive,
                Pinned::Block(_) => PinMode::Direct,
            };
            if pin.mode != mode || pin.name != Some(pinned.label()) {
                return Err(format!("{pin:?} was made otherwise"));
            }
            found.insert(pinned);
        }
        let known: Vec<_> = self
            .pins
            .iter()
            .map(|(pinned, pin)| (*pinned, pin.settled))
            .collect();
        for (pinned, settled) in known {
            let is_found = found.contains(&pinned);
            if settled.is_some_and(|settled| settled != is_found) {
                return Err(format!(
                    "{pinned} is pinned: {is_found}, acknowledged: {settled:?}"
                ));
            }
            self.settle(pinned, is_found);
        }
        Ok(())
    }

    /// Whether the block is there, and whether that may be.
    async fn check_block(&mut self, at: usize, store: &Store) -> Result<bool, String> {
        let pinned = self.is_pinned(at);
        let known = &mut self.blocks[at];
        let cid = *known.block.cid();
        let lie = |what: &str| Err(format!("{cid} (block {at}) {what}"));
        let found = store.block(&cid).await.map_err(|error| error.to_string())?;
        match found {
            Some(found) if found != known.block => lie("has other bytes than were put"),
            Some(_) if known.gone.is_some() => lie("is gone, but was found"),
            Some(_) => {
                self.totals.compared += 1;
                if pinned {
                    known.promised.get_or_insert(self.now);
                }
                Ok(true)
            }
            None if pinned => lie("is pinned, but was not found"),
            None if known.promised.is_some() => lie("is promised, but was not found"),
            None => {
                known.gone.get_or_insert(self.now);
                Ok(false)
            }
        }
    }
}

/// Listing names each block once.
async fn check_list(store: &Store, present: &HashSet<Cid>) -> Result<(), String> {
    let listed = Arc::new(Mutex::new(Vec::new()));
    let into = listed.clone();
    let each = move |cid| {
        into.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(cid::to_v1(&cid));
        ControlFlow::Continue(())
    };
    store.list(each).await.map_err(|error| error.to_string())?;
    let listed = listed.lock().unwrap_or_else(PoisonError::into_inner);
    let as_set: HashSet<Cid> = listed.iter().copied().collect();
    if as_set != *present || as_set.len() != listed.len() {
        let differ: Vec<_> = as_set.symmetric_difference(present).take(3).collect();
        return Err(format!(
            "{} blocks were listed, {} of them different; {} are there; {differ:?}",
            listed.len(),
            as_set.len(),
            present.len()
        ));
    }
    Ok(())
}

/// Verification sees each block, and maybe dead sections among them, and finds nothing bad.
async fn check_bytes(store: &Store, blocks: u64) -> Result<(), String> {
    let bad = Arc::new(Mutex::new(Vec::new()));
    let into = bad.clone();
    let each = move |bad| {
        into.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(bad);
    };
    let seen = store.verify(|_| {}, each).await;
    let seen = seen.map_err(|error| error.to_string())?;
    let bad = bad.lock().unwrap_or_else(PoisonError::into_inner);
    if seen < blocks || !bad.is_empty() {
        return Err(format!(
            "verify saw {seen} blocks of {blocks}, and bad: {bad:?}"
        ));
    }
    Ok(())
}

/// What a piece of work pins or unpins, and whether it pins.
fn pinned_by(work: &Work) -> Option<(Pinned, bool)> {
    match work {
        Work::Add(tree) | Work::Fetch(tree) | Work::Pin(tree) => Some((Pinned::Tree(*tree), true)),
        Work::Direct(block) => Some((Pinned::Block(*block), true)),
        Work::Unpin(pinned) => Some((*pinned, false)),
        Work::Put(_)
        | Work::Cache(_)
        | Work::Delete(_)
        | Work::Read(_)
        | Work::Collect
        | Work::Evict
        | Work::Verify
        | Work::Scrub
        | Work::Rebuild
        | Work::Snapshot(_) => None,
    }
}

/// What a store may tell when it opens after a kill; everything else says that a file is damaged or
/// that something is lost, and no kill does that.
const NOTICES_AFTER_A_KILL: [&str; 4] = [
    "was not in the journal up to its end",
    "were not written to their end and were cut off",
    "is no segment of ours",
    "the index could not be used",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes lines; the oracle, and what it says to the last.
    fn hear(lines: &[&str]) -> Result<(), String> {
        let mut oracle = Oracle::new(World::new(7));
        let (last, before) = lines.split_last().unwrap();
        for line in before {
            oracle.take(&line.parse().unwrap()).unwrap();
        }
        oracle.take(&last.parse().unwrap())
    }

    /// A piece that folder 0 has, and one that it has not.
    fn pieces() -> (usize, usize) {
        let inside: HashSet<usize> = World::new(7).files(0).into_iter().flatten().collect();
        let outside = (0..PIECES).find(|piece| !inside.contains(piece)).unwrap();
        (inside.into_iter().next().unwrap(), outside)
    }

    #[test]
    fn what_was_put_is_missed_until_a_collection_begins() {
        let put = ["begin 1 put 700", "done 1", "begin 9 read 700"];
        assert!(hear(&[&put[..], &["done 9 absent"]].concat()).is_err());
        assert!(hear(&[&put[..], &["done 9 present"]].concat()).is_ok());
        assert!(hear(&[&put[..], &["begin 2 collect", "done 9 absent"]].concat()).is_ok());
        assert!(hear(&[&put[..], &["begin 2 delete 700", "done 9 absent"]].concat()).is_ok());
        let evicted = [&put[..2], &["begin 2 evict", "done 2"], &put[2..]].concat();
        assert!(hear(&[&evicted[..], &["done 9 absent"]].concat()).is_err());
        let cached = ["begin 1 cache 700", "done 1", "begin 9 read 700"];
        assert!(hear(&[&cached[..], &["done 9 absent"]].concat()).is_ok());
    }

    #[test]
    fn what_was_put_while_something_collected_is_not_promised() {
        for end in ["begin 9 read 700", "done 2"] {
            let lines = [
                "begin 1 put 700",
                "begin 2 collect",
                end,
                "done 1",
                "begin 3 read 700",
                "done 3 absent",
            ];
            assert!(hear(&lines).is_ok());
        }
        let after = [
            "begin 2 collect",
            "done 2",
            "begin 1 put 700",
            "done 1",
            "begin 3 read 700",
            "done 3 absent",
        ];
        assert!(hear(&after).is_err());
    }

    #[test]
    fn a_collection_takes_nothing_that_a_pin_reaches() {
        let (inside, _) = pieces();
        let read = format!("begin 9 read {inside}");
        let pinned = ["begin 1 add 0", "done 1", "begin 2 collect", "done 2"];
        assert!(hear(&[&pinned[..], &[&read, "done 9 absent"]].concat()).is_err());
        let name = name_of(World::new(7).block(inside).cid());
        let gone = format!("gone 2 {name}");
        assert!(hear(&[&pinned[..3], &[&gone]].concat()).is_err());
        let unpinned = [
            "begin 1 add 0",
            "done 1",
            "begin 2 collect",
            "begin 3 unpin tree-0",
        ];
        assert!(hear(&[&unpinned[..], &[&gone]].concat()).is_ok());
        assert!(hear(&[&unpinned[..], &[&read, "done 9 absent"]].concat()).is_ok());
    }

    #[test]
    fn what_is_gone_comes_back_only_when_it_is_put() {
        let (_, piece) = pieces();
        let (put, delete) = (
            format!("begin 1 put {piece}"),
            format!("begin 2 delete {piece}"),
        );
        let (deleted, read) = (
            format!("done 2 deleted {piece}"),
            format!("begin 9 read {piece}"),
        );
        let lines = [&put[..], "done 1", &delete, &deleted];
        assert!(hear(&[&lines[..], &[&read, "done 9 present"]].concat()).is_err());
        let again = format!("begin 3 cache {piece}");
        assert!(hear(&[&lines[..], &[&again, &read, "done 9 present"]].concat()).is_ok());
        let same_time = [&delete[..], &put, &deleted, "done 1"];
        assert!(hear(&[&same_time[..], &[&read, "done 9 present"]].concat()).is_ok());
        let collected = [&put[..], "done 1", "begin 3 collect", "done 3"];
        assert!(hear(&[&collected[..], &[&read, "done 9 present"]].concat()).is_err());
    }

    #[test]
    fn a_pin_holds_until_an_unpin_begins() {
        let pinned = ["begin 1 add 0", "done 1"];
        let missed = ["begin 2 unpin tree-0", "done 2 not-pinned"];
        assert!(hear(&[pinned, missed].concat()).is_err());
        let twice = ["begin 3 unpin tree-0", "begin 2 unpin tree-0", "done 3"];
        assert!(hear(&[&pinned[..], &twice, &["done 2 not-pinned"]].concat()).is_ok());
        assert!(hear(&["begin 2 unpin tree-0", "done 2"]).is_err());
        let pin = ["begin 4 pin 0", "done 4 missing"];
        assert!(hear(&pin).is_ok());
        assert!(hear(&[pinned, pin].concat()).is_err());
    }

    #[test]
    fn what_fails_is_a_lie() {
        assert!(hear(&["begin 1 verify", "failed 1 no reason"]).is_err());
        assert!(hear(&["wrong a byte"]).is_err());
        assert!(hear(&["notice segment leaf-000001 is missing; its blocks are gone"]).is_err());
        assert!(hear(&["notice the index could not be used (why)"]).is_ok());
        assert!(hear(&["done 7"]).is_err());
    }
}
