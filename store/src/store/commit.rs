//! How callers share one sync, and what an acknowledgement waits for.
//!
//! A commit syncs the touched segments, then writes one journal record that says how far they
//! count, and syncs that: data first, then what points at it. Callers that come while a commit runs
//! wait for the next one together, led by one of them.
//!
//! * this file: who waits for whom, and what one commit does.
//! * [`super::unsynced`]: what is acknowledged before it has reached the disk.
//! * [`super::checkpoint`]: how the index follows.
//!
//! After a sync error the segment is sealed and that sync is never tried again: what lay beyond the
//! last commit is forgotten, the loss is counted, and everybody who had put something before it is
//! refused, whoever's commit it was that failed.

use super::Inner;
use crate::config::Durability;
use crate::index::Key;
use crate::journal::record::Record;
use crate::journal::{DEAD_PER_RECORD, Sync};
use crate::log::append::Touched;
use crate::log::files::Access;
use crate::log::{Place, Position, SegmentId, section};
use crate::notes::About;
use crate::pin::{Pin, PinMode};
use crate::sink::PutError;
use crate::sync::{Condvar, Mutex};
use bytes::Bytes;
use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Who waits for which commit.
#[derive(Debug, Default)]
pub(crate) struct Group {
    waiting: Mutex<Waiting>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Tickets given out.
    asked: u64,
    /// Tickets whose commit is over.
    answered: u64,
    /// Whether somebody leads a commit at this moment.
    led: bool,
    /// What the next commit is asked to make durable.
    asks: Vec<Ask>,
    /// Whether a commit did not come to its end: what it had taken is not known any more, so nobody is
    /// acknowledged until the next opening.
    broken: bool,
    /// Tickets whose commit failed; each is taken out by whoever holds it.
    failed: HashMap<u64, Unmet>,
}

#[derive(Debug)]
struct Ask {
    ticket: u64,
    /// The count of losses when the first of its blocks was put.
    losses: u64,
    records: Vec<Record>,
    only: Only,
    sync: Sync,
}

/// What must be so when an ask's turn comes; else nothing of it is done.
#[derive(Debug)]
pub(crate) enum Only {
    Always,
    /// These pins stand, by whatever names.
    With(Vec<Pin>),
    /// This pin stands, and expires when it did.
    Same(Pin),
    /// No recursive pin stands in the place of this one.
    Beside(Pin),
    /// By this key stands this pin, with all that is said of it, or none.
    Still(Vec<u8>, Option<Pin>),
    /// This is what is noted under a key of a kind.
    Noted((u8, Vec<u8>), Option<Bytes>),
}

/// What came of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Committed {
    /// It is durable.
    Yes,
    /// What it was for, a pin or a note, is another by now; nothing was done.
    Overtaken,
}

/// Why an ask was not met.
#[derive(Debug)]
enum Unmet {
    Failed(PutError),
    Overtaken,
}

/// What the next commit tells the journal beside what it is asked to.
struct Lists {
    abandoned: Vec<SegmentId>,
    superseded: Vec<(Key, Place)>,
    disowned: BTreeSet<Position>,
    promoted: Vec<Position>,
}

impl Inner {
    /// Makes everything put so far durable, together with `records`, as the configuration has it. For
    /// callers whose blocks, if any, are somebody else's to acknowledge.
    pub(crate) fn commit(&self, records: Vec<Record>) -> Result<(), PutError> {
        self.commit_since(self.losses(), records)
    }

    /// Like [`Inner::commit`], whatever the configuration says: for what takes the place of older things.
    /// Fails as well if what earlier commits left cannot be made durable.
    pub(crate) fn commit_to_disk(&self, records: Vec<Record>) -> Result<(), PutError> {
        self.commit_to_disk_since(self.losses(), records)
    }

    /// [`Inner::commit_to_disk`], unless something was given up since `losses` was counted.
    pub(crate) fn commit_to_disk_since(
        &self,
        losses: u64,
        records: Vec<Record>,
    ) -> Result<(), PutError> {
        self.commit_to_disk_only(losses, records, Only::Always)
            .map(drop)
    }

    /// [`Inner::commit_to_disk_since`], if by then it is as `only` says.
    pub(crate) fn commit_to_disk_only(
        &self,
        losses: u64,
        records: Vec<Record>,
        only: Only,
    ) -> Result<Committed, PutError> {
        let committed = self.ask(losses, records, only, Sync::Wait)?;
        self.lock_unsynced().is_on_its_way()?;
        Ok(committed)
    }

    /// Like [`Inner::commit`], but fails if anything that was put since `losses` was counted has
    /// been given up: an acknowledgement covers every block of its caller.
    pub(crate) fn commit_since(&self, losses: u64, records: Vec<Record>) -> Result<(), PutError> {
        self.commit_only(losses, records, Only::Always).map(drop)
    }

    /// Like [`Inner::commit_since`], if by then it is as `only` says.
    pub(crate) fn commit_only(
        &self,
        losses: u64,
        records: Vec<Record>,
        only: Only,
    ) -> Result<Committed, PutError> {
        self.ask(losses, records, only, self.configured_sync())
    }

    /// Like [`Inner::commit_only`] for each of many, in the same commit: one that is overtaken leaves the others alone.
    pub(crate) fn commit_each(
        &self,
        losses: u64,
        asks: Vec<(Vec<Record>, Only)>,
    ) -> Vec<Result<Committed, PutError>> {
        self.ask_each(losses, asks, self.configured_sync())
    }

    fn ask(
        &self,
        losses: u64,
        records: Vec<Record>,
        only: Only,
        sync: Sync,
    ) -> Result<Committed, PutError> {
        let mut done = self.ask_each(losses, vec![(records, only)], sync);
        done.pop().unwrap_or(Err(PutError::Closing))
    }

    fn ask_each(
        &self,
        losses: u64,
        asks: Vec<(Vec<Record>, Only)>,
        sync: Sync,
    ) -> Vec<Result<Committed, PutError>> {
        let count = asks.len();
        let all = |error: PutError| vec![Err(error); count];
        if self.files.access == Access::ReadOnly {
            return all(PutError::ReadOnly);
        }
        let group = &self.commits;
        let lock = || group.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waiting = lock();
        let first = waiting.asked + 1;
        for (records, only) in asks {
            waiting.asked += 1;
            let ticket = waiting.asked;
            waiting.asks.push(Ask {
                ticket,
                losses,
                records,
                only,
                sync,
            });
        }
        // They were asked for together, so they are answered together.
        let last = waiting.asked;
        while waiting.answered < last {
            if waiting.broken {
                return all(PutError::Closing);
            }
            if waiting.led {
                waiting = group
                    .done
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.led = true;
            let up_to = waiting.asked;
            let asks = std::mem::take(&mut waiting.asks);
            drop(waiting);
            let led = catch_unwind(AssertUnwindSafe(|| self.lead(asks)));
            waiting = lock();
            waiting.led = false;
            group.done.notify_all();
            match led {
                Ok(failed) => {
                    waiting.failed.extend(failed);
                    waiting.answered = up_to;
                }
                Err(panic) => {
                    waiting.broken = true;
                    drop(waiting);
                    self.index.forget(|_| false); // Thaws, so that nobody waits for it.
                    resume_unwind(panic);
                }
            }
        }
        let mut answer = |ticket| match waiting.failed.remove(&ticket) {
            None => Ok(Committed::Yes),
            Some(Unmet::Overtaken) => Ok(Committed::Overtaken),
            Some(Unmet::Failed(error)) => Err(error),
        };
        (first..=last).map(&mut answer).collect()
    }

    /// Commits for all who asked; answers who failed. Only one thread is in here at a time.
    fn lead(&self, asks: Vec<Ask>) -> Vec<(u64, Unmet)> {
        let losses = self.losses();
        let (whole, lost): (Vec<Ask>, Vec<Ask>) =
            asks.into_iter().partition(|ask| ask.losses == losses);
        let mut failed: Vec<_> = lost
            .into_iter()
            .map(|ask| (ask.ticket, Unmet::Failed(lost_before())))
            .collect();
        let (whole, overtaken) = self.part_by_need(whole);
        failed.extend(
            overtaken
                .into_iter()
                .map(|ask| (ask.ticket, Unmet::Overtaken)),
        );
        if whole.is_empty() {
            return failed;
        }
        let tickets: Vec<u64> = whole.iter().map(|ask| ask.ticket).collect();
        let waits = whole.iter().any(|ask| ask.sync == Sync::Wait);
        let sync = if waits { Sync::Wait } else { Sync::Leave };
        let records = whole.into_iter().flat_map(|ask| ask.records).collect();
        let timer = self.metrics.commit_seconds.start_timer();
        let result = self.commit_alone(records, sync);
        timer.observe_duration();
        if let Err(error) = result {
            let all = tickets.into_iter();
            failed.extend(all.map(|ticket| (ticket, Unmet::Failed(error.clone()))));
        }
        failed
    }

    /// Parts those for which it is as they need it, whatever those before them do, from the others.
    fn part_by_need(&self, asks: Vec<Ask>) -> (Vec<Ask>, Vec<Ask>) {
        let pins = self.pins.read();
        // What those before it in this commit make of a pin: how it stands, and until when.
        let mut ahead: HashMap<Vec<u8>, Option<(PinMode, Option<u64>)>> = HashMap::new();
        let notes = self.read_notes();
        let mut noted_ahead: HashMap<(u8, Vec<u8>), Option<Bytes>> = HashMap::new();
        let (mut met, mut overtaken) = (Vec::with_capacity(asks.len()), Vec::new());
        for ask in asks {
            let now = |pin: &Pin| {
                let key = pin.key();
                let stands = || pins.standing(&key);
                ahead.get(&key).copied().unwrap_or_else(stands)
            };
            let mode = |pin: &Pin| now(pin).map(|(mode, _)| mode);
            let holds = match &ask.only {
                Only::Always => true,
                Only::With(pins) => pins.iter().all(|pin| mode(pin) == Some(pin.mode)),
                Only::Same(pin) => now(pin) == Some((pin.mode, pin.expires)),
                Only::Beside(pin) => mode(pin) != Some(PinMode::Recursive),
                // What those before it say of a pin is not compared: it is asked again.
                Only::Still(key, pin) => !ahead.contains_key(key) && pins.get(key) == *pin,
                Only::Noted(at, value) => {
                    noted_ahead
                        .get(at)
                        .map_or_else(|| notes.get(at), Option::as_ref)
                        == value.as_ref()
                }
            };
            if !holds {
                overtaken.push(ask);
                continue;
            }
            for record in &ask.records {
                match record {
                    Record::Pinned(pin) => ahead.insert(pin.key(), Some((pin.mode, pin.expires))),
                    Record::Unpinned(key) => ahead.insert(key.clone(), None),
                    Record::Noted { about, key, value } => {
                        noted_ahead.insert((*about, key.clone()), value.clone());
                        None
                    }
                    _ => None,
                };
            }
            met.push(ask);
        }
        (met, overtaken)
    }

    fn commit_alone(&self, records: Vec<Record>, sync: Sync) -> Result<(), PutError> {
        // Under one lock: the lists name nothing beyond what is touched or committed.
        let (touched, lists) = {
            let mut appender = self.lock_appender();
            (appender.touched(), self.take_lists())
        };
        let mut made = self.make_durable(&touched, &lists, &records, sync);
        let frees = |record: &Record| {
            matches!(
                record,
                Record::Unpinned(_) | Record::Deleted(_) | Record::Noted { value: None, .. }
            )
        };
        if matches!(made, Err(PutError::Full(_)))
            && self.adds_nothing(&touched)
            && records.iter().all(frees)
            && self.release_ballast()
        {
            // Giving things up must be possible with nothing free.
            made = self.make_durable(&touched, &lists, &records, sync);
        }
        if let Err(error) = made {
            // What the journal did not take is for the next commit.
            self.put_back(lists);
            self.give_up(&touched);
            return Err(error);
        }
        // The journal's pins are everybody's; its notes are not. The root of the file tree is one more pin to those who
        // count their changes.
        let is_files = |record: &Record| matches!(record, Record::Noted { about, .. } if *about == About::Files as u8);
        let mut pins = records.iter().any(is_files).then(|| self.pins.write());
        if let Some(pins) = &mut pins {
            pins.changed();
        }
        let mut notes = self.notes.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            if let Record::Noted { about, key, value } = record {
                match value {
                    Some(value) => notes.insert((about, key), value),
                    None => notes.remove(&(about, key)),
                };
            }
        }
        Ok(())
    }

    /// Whether there is nothing new in what was touched: a failed append touches, too.
    fn adds_nothing(&self, touched: &Touched) -> bool {
        let journal = self.lock_journal();
        let known = &journal.state().lengths;
        let header = section::file_header().len() as u64;
        touched.segments.iter().all(|(segment, length)| {
            let known = known.get(&segment.id).map_or(0, |known| u64::from(*known));
            *length <= known.max(header)
        })
    }

    fn take_lists(&self) -> Lists {
        Lists {
            abandoned: take(&self.abandoned),
            superseded: take(&self.superseded),
            disowned: take(&self.disowned),
            promoted: take(&self.promoted),
        }
    }

    fn put_back(&self, lists: Lists) {
        put_back(&self.abandoned, lists.abandoned);
        put_back(&self.superseded, lists.superseded);
        put_back(&self.disowned, lists.disowned);
        put_back(&self.promoted, lists.promoted);
    }

    fn make_durable(
        &self,
        touched: &Touched,
        lists: &Lists,
        records: &[Record],
        sync: Sync,
    ) -> Result<(), PutError> {
        let replaces = !lists.superseded.is_empty() || !lists.disowned.is_empty();
        match sync {
            Sync::Wait => self.sync_blocks(touched, replaces)?,
            Sync::Leave if replaces => {
                // What takes another's place is on the disk before the journal can say that the other is dead: a power
                // cut may undo what was acknowledged just now, but takes nothing older.
                self.sync_blocks(touched, replaces)?;
                self.lock_unsynced().leave_journal();
            }
            Sync::Leave => self.lock_unsynced().leave(touched),
        }
        for (segment, length) in &touched.segments {
            match segment.write_sums() {
                Ok(()) => segment.settle(*length),
                // Derived: without them reads ask the multihash, and the next commit tries again.
                Err(error) => {
                    tracing::warn!(segment = %segment.id, %error, "checksums were not written");
                }
            }
        }
        let mut all = Vec::with_capacity(2 + records.len());
        if !touched.segments.is_empty() {
            let lengths = touched.segments.iter().map(|(segment, length)| {
                // A segment's offsets have 32 bits, so has its length.
                (segment.id, u32::try_from(*length).unwrap_or(u32::MAX))
            });
            all.push(Record::Committed(lengths.collect()));
        }
        all.extend(lists.abandoned.iter().map(|segment| Record::Retired {
            segment: *segment,
            copies: Vec::new(),
        }));
        let replaced = lists.superseded.iter().map(|(_, old)| old.position());
        let positions: Vec<Position> = replaced.chain(lists.disowned.iter().copied()).collect();
        let chunks = |positions: &[Position], record: fn(Vec<Position>) -> Record| {
            let chunks = positions.chunks(DEAD_PER_RECORD);
            chunks.map(|some| record(some.to_vec())).collect::<Vec<_>>()
        };
        all.extend(chunks(&positions, Record::Deleted));
        all.extend(chunks(&lists.promoted, Record::Kept));
        all.extend(records.iter().cloned());
        self.lock_journal().append(all, sync).map_err(|error| {
            self.lock_unsynced().leave_journal();
            self.write_failed("journal", &error)
        })
    }

    /// Seals segments whose tail never became durable, forgets what lies in it, and lets everybody
    /// who put anything before this fail.
    fn give_up(&self, touched: &Touched) {
        let mut appender = self.lock_appender();
        self.losses.fetch_add(1, Ordering::AcqRel);
        let later = appender.touched();
        if later.folder || touched.folder {
            appender.folder_is_unsynced();
        }
        for (segment, _) in touched.segments.iter().chain(&later.segments) {
            let id = segment.id;
            appender.give_up(id);
            let counts = {
                let journal = self.lock_journal();
                journal.state().lengths.get(&id).copied().unwrap_or(0)
            };
            let mut lost = 0;
            let mut lost_bytes = 0;
            self.index.forget(|place: &Place| {
                let gone = place.segment == id && place.offset >= counts;
                if gone {
                    lost += 1;
                    lost_bytes += u64::from(place.length);
                }
                gone
            });
            self.counts.subtract(lost, lost_bytes);
            // Or it would one day mean whatever lies there then.
            self.promoted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|position| position.segment != id || position.offset < counts);
            if counts == 0 {
                // Nobody was ever told of it, so nothing of it may come back.
                self.segments
                    .write()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&id);
                self.abandoned
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(id);
            }
            tracing::error!(segment = %id, "sealed at {counts} bytes after a failed commit");
        }
        // What was to take another section's place is gone: that one stands again.
        let superseded = take(&self.superseded);
        let absent: Vec<_> = superseded
            .into_iter()
            .filter(|(key, _)| self.index.recent(key) == Some(None))
            .collect();
        for (_, old) in absent.iter().filter(|(_, old)| !old.damaged) {
            self.count(old.length.into());
        }
        self.index.insert(absent);
    }

    /// How often something that was put has been given up.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Whether an acknowledgement waits for the disk.
    pub(super) fn configured_sync(&self) -> Sync {
        match self.config.durability {
            Durability::Full => Sync::Wait,
            Durability::Relaxed => Sync::Leave,
        }
    }
}

fn take<C: Default>(list: &Mutex<C>) -> C {
    std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put_back<T, C: Extend<T> + IntoIterator<Item = T>>(list: &Mutex<C>, taken: C) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(taken);
}

fn lost_before() -> PutError {
    PutError::Disk("an earlier write of the same work failed; start it again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Ask, Committed, Only, Sync, Unmet};
    use crate::block::{Block, Prefix};
    use crate::cid::{self, HashKind, Version};
    use crate::config::{ByteSize, Config, Reserve};
    use crate::disk::simulated::{Faults, SimulatedDisk};
    use crate::index::Image;
    use crate::journal::record::Record;
    use crate::pin::{Pin, PinMode};
    use crate::sink::BlockSink;
    use crate::sink::PutError;
    use crate::store::{Ground, Keep, Store};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;

    fn block(text: &'static str) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec: cid::RAW,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, bytes::Bytes::from_static(text.as_bytes())).unwrap()
    }

    fn open(folder: &std::path::Path) -> Store {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        Store::open(folder, &config, &mut |_| {}).unwrap()
    }

    fn ask(ticket: u64, record: Record, only: Only) -> Ask {
        Ask {
            ticket,
            losses: 0,
            records: vec![record],
            only,
            sync: Sync::Wait,
        }
    }

    #[test]
    fn a_pin_that_has_gone_is_not_renamed() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let inner = &store.inner;
        let pin = |name: &str| {
            let name = Some(name.to_owned());
            Pin::new(*block("one").cid(), PinMode::Recursive, name).unwrap()
        };
        let rename = |name| {
            let records = vec![Record::Pinned(pin(name))];
            inner.commit_only(inner.losses(), records, Only::With(vec![pin(name)]))
        };
        let mut writer = store.writer(Keep::Kept);
        writer.put(vec![block("one")]).unwrap();
        writer.commit_and_pin(&[*block("one").cid()], None).unwrap();
        assert_eq!(rename("new").unwrap(), Committed::Yes);
        assert_eq!(store.pins(), [pin("new")]);
        inner
            .commit(vec![Record::Unpinned(pin("new").key())])
            .unwrap();
        assert_eq!(rename("newer").unwrap(), Committed::Overtaken);
        let direct = Pin {
            mode: PinMode::Direct,
            ..pin("direct")
        };
        inner.commit(vec![Record::Pinned(direct.clone())]).unwrap();
        assert_eq!(rename("newer").unwrap(), Committed::Overtaken);
        assert_eq!(store.pins(), [direct]);
    }

    #[test]
    fn a_pin_is_not_renamed_in_the_commit_in_which_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let pin = Pin::new(*block("one").cid(), PinMode::Recursive, None).unwrap();
        store
            .inner
            .commit(vec![Record::Pinned(pin.clone())])
            .unwrap();
        let unmet = store.inner.lead(vec![
            ask(1, Record::Unpinned(pin.key()), Only::Always),
            ask(2, Record::Pinned(pin.clone()), Only::With(vec![pin])),
        ]);
        assert!(matches!(unmet[..], [(2, Unmet::Overtaken)]), "{unmet:?}");
        assert!(store.pins().is_empty());
    }

    #[test]
    fn a_direct_pin_never_takes_the_place_of_a_recursive_one_that_was_faster() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let recursive = Pin::new(*block("one").cid(), PinMode::Recursive, None).unwrap();
        let direct = Pin {
            mode: PinMode::Direct,
            ..recursive.clone()
        };
        store
            .inner
            .commit(vec![Record::Pinned(direct.clone())])
            .unwrap();
        let unmet = store.inner.lead(vec![
            ask(1, Record::Pinned(recursive.clone()), Only::Always),
            ask(
                2,
                Record::Pinned(direct.clone()),
                Only::With(vec![direct.clone()]),
            ),
            ask(
                3,
                Record::Pinned(direct.clone()),
                Only::Beside(direct.clone()),
            ),
            ask(4, Record::Unpinned(direct.key()), Only::With(vec![direct])),
        ]);
        let overtaken = unmet.iter().map(|(ticket, _)| *ticket);
        assert_eq!(overtaken.collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(store.pins(), [recursive]);
    }

    #[test]
    fn what_is_to_be_still_as_it_was_is_not_so_behind_a_change_in_the_same_commit() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let named = |name: &str| {
            let name = Some(name.to_owned());
            Pin::new(*block("one").cid(), PinMode::Recursive, name).unwrap()
        };
        let still = |ticket, name, before| {
            let only = Only::Still(named(name).key(), before);
            ask(ticket, Record::Pinned(named(name)), only)
        };
        let unmet = store.inner.lead(vec![
            still(1, "first", None),
            still(2, "second", Some(named("first"))),
        ]);
        assert!(matches!(unmet[..], [(2, Unmet::Overtaken)]), "{unmet:?}");
        let unmet = store
            .inner
            .lead(vec![still(3, "third", Some(named("other")))]);
        assert!(matches!(unmet[..], [(3, Unmet::Overtaken)]), "{unmet:?}");
        assert_eq!(store.pins(), [named("first")]);
        let unmet = store
            .inner
            .lead(vec![still(4, "third", Some(named("first")))]);
        assert!(unmet.is_empty(), "{unmet:?}");
        assert_eq!(store.pins(), [named("third")]);
    }

    fn on(disk: &SimulatedDisk) -> Store {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let ground = Ground::simulated(disk, &Arc::new(Image::new()));
        Store::open_on(ground, &config, &mut |_| {}).unwrap()
    }

    #[test]
    fn after_a_commit_that_panicked_nobody_is_acknowledged() {
        let disk = SimulatedDisk::default();
        let store = on(&disk);
        let mut unlucky = store.writer(Keep::Kept);
        unlucky.put(vec![block("one")]).unwrap();
        disk.set_faults(Faults {
            panics: Some(1),
            ..Faults::default()
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| store.inner.commit(Vec::new())));
        assert!(panicked.is_err());
        disk.set_faults(Faults::default());
        // The panic has taken what there was to sync along.
        assert!(matches!(unlucky.commit(), Err(PutError::Closing)));
        assert!(matches!(store.inner.close(), Err(PutError::Closing)));
    }

    #[test]
    fn all_who_wait_share_one_sync() {
        let disk = SimulatedDisk::default();
        let store = on(&disk);
        let commit = |texts: &[&'static str]| {
            for text in texts {
                store.writer(Keep::Kept).put(vec![block(text)]).unwrap();
            }
            let pin = |text| Pin::new(*block(text).cid(), PinMode::Direct, None).unwrap();
            let asks = (1..)
                .zip(texts)
                .map(|(ticket, text)| ask(ticket, Record::Pinned(pin(text)), Only::Always));
            let (asks, before): (Vec<Ask>, u64) = (asks.collect(), disk.operations());
            assert!(store.inner.lead(asks).is_empty());
            disk.operations() - before
        };
        commit(&["the file and the folder are made"]);
        let alone = commit(&["one"]);
        assert!(alone > 0);
        assert_eq!(commit(&["two", "three", "four", "five"]), alone);
        assert_eq!(store.pins().len(), 6);
    }

    #[test]
    fn what_was_given_up_stays_away_when_its_segment_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let inner = &store.inner;
        let mut safe = store.writer(Keep::Kept);
        safe.put(vec![block("safe")]).unwrap();
        safe.commit().unwrap();
        let mut unlucky = store.writer(Keep::Kept);
        unlucky.put(vec![block("lost")]).unwrap();
        let touched = inner.lock_appender().touched();
        inner.give_up(&touched);
        let id = *inner.segments.read().unwrap().keys().next().unwrap();
        inner.reindex(&inner.segment(id).unwrap()).unwrap();
        assert_eq!(inner.block(block("lost").cid()).unwrap(), None);
        inner.checkpoint().unwrap();
        inner.go_on_in_memory(&"for once").unwrap();
        assert_eq!(inner.block(block("lost").cid()).unwrap(), None);
        let safe = inner.block(block("safe").cid()).unwrap();
        assert_eq!(safe, Some(block("safe")));
    }

    #[test]
    fn after_a_failed_sync_nobody_who_put_before_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let mut safe = store.writer(Keep::Kept);
        safe.put(vec![block("safe")]).unwrap();
        safe.commit().unwrap();
        let mut unlucky = store.writer(Keep::Kept);
        unlucky.put(vec![block("lost")]).unwrap();
        // As when the background's commit took the segments and the disk refused.
        let touched = store.inner.lock_appender().touched();
        store.inner.give_up(&touched);

        let refused = unlucky.commit_and_pin(&[*block("lost").cid()], None);
        assert!(refused.is_err());
        assert!(store.pins().is_empty(), "no pin points at what was lost");
        let again = store.inner.block(block("lost").cid()).unwrap();
        assert_eq!(again, None);
        let mut later = store.writer(Keep::Kept);
        later.put(vec![block("lost")]).unwrap();
        later.commit_and_pin(&[*block("lost").cid()], None).unwrap();
        drop((safe, unlucky, later, store));
        let store = open(folder.path());
        for text in ["safe", "lost"] {
            let found = store.inner.block(block(text).cid()).unwrap();
            assert_eq!(found, Some(block(text)));
        }
    }
}
