//! How callers share one sync, and what an acknowledgement waits for.
//!
//! A commit syncs the touched segments, then writes one journal record that says how far they
//! count, and syncs that: data first, then what points at it. Callers that come while a commit runs
//! wait for the next one together, led by one of them.
//!
//! After a sync error the segment is sealed and that sync is never tried again: what it held
//! beyond the last commit is forgotten, and those who wait are told.

use super::Inner;
use crate::config::Durability;
use crate::durable;
use crate::index::Checkpoint;
use crate::journal::Sync;
use crate::journal::record::Record;
use crate::sink::PutError;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

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
    /// What the next commit writes beside the lengths.
    records: Vec<Record>,
    /// Commits that failed: first and last ticket, and why.
    failed: VecDeque<(u64, u64, PutError)>,
}

impl Inner {
    /// Makes everything put so far durable, together with `records`.
    pub(crate) fn commit(&self, records: Vec<Record>) -> Result<(), PutError> {
        let group = &self.commits;
        let mut waiting = group.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.records.extend(records);
        waiting.asked += 1;
        let ticket = waiting.asked;
        while waiting.answered < ticket {
            if waiting.led {
                waiting = group
                    .done
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            waiting.led = true;
            let (first, last) = (waiting.answered + 1, waiting.asked);
            let records = std::mem::take(&mut waiting.records);
            drop(waiting);
            let timer = self.metrics.commit_seconds.start_timer();
            let result = self.commit_alone(records);
            timer.observe_duration();
            waiting = group.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = result {
                waiting.failed.push_back((first, last, error));
                if waiting.failed.len() > FAILURES_KEPT {
                    waiting.failed.pop_front();
                }
            }
            waiting.answered = last;
            waiting.led = false;
            group.done.notify_all();
        }
        let failed = waiting
            .failed
            .iter()
            .find(|(first, last, _)| (*first..=*last).contains(&ticket));
        failed.map_or(Ok(()), |(_, _, error)| Err(error.clone()))
    }

    fn commit_alone(&self, records: Vec<Record>) -> Result<(), PutError> {
        let touched = self.lock_appender().touched();
        let full = self.config.durability == Durability::Full;
        for (segment, _) in &touched.segments {
            let synced = if full {
                segment.sync()
            } else {
                segment.write_sums()
            };
            if let Err(error) = synced {
                let lost: Vec<_> = touched
                    .segments
                    .iter()
                    .map(|(segment, _)| segment.id)
                    .collect();
                self.give_up(&lost);
                return Err(PutError::Disk(format!("segment {}: {error}", segment.id)));
            }
        }
        if touched.folder && full {
            durable::sync_folder(&self.blocks_folder)
                .map_err(|error| PutError::Disk(error.to_string()))?;
        }
        let mut all = Vec::with_capacity(1 + records.len());
        if !touched.segments.is_empty() {
            let lengths = touched.segments.iter().map(|(segment, length)| {
                // A segment's offsets have 32 bits, so has its length.
                (segment.id, u32::try_from(*length).unwrap_or(u32::MAX))
            });
            all.push(Record::Committed(lengths.collect()));
        }
        all.extend(records.iter().cloned());
        let journalled = self.lock_journal().append(all, self.journal_sync());
        if let Err(error) = journalled {
            let lost: Vec<_> = touched
                .segments
                .iter()
                .map(|(segment, _)| segment.id)
                .collect();
            self.give_up(&lost);
            return Err(PutError::Disk(format!("journal: {error}")));
        }
        let mut pins = self.pins.write().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            match record {
                Record::Pinned(pin) => drop(pins.by_key.insert(pin.key(), pin)),
                Record::Unpinned(key) => drop(pins.by_key.remove(&key)),
                Record::Committed(_) | Record::Deleted(_) | Record::Retired(_) => continue,
            }
            pins.changes += 1;
        }
        Ok(())
    }

    /// Seals segments whose tail never became durable and forgets what lies in it.
    fn give_up(&self, segments: &[crate::log::SegmentId]) {
        let mut appender = self.lock_appender();
        let journal = self.lock_journal();
        for id in segments {
            appender.seal(*id);
            let counts = journal.state().lengths.get(id).copied().unwrap_or(0);
            let lost = |place: &crate::log::Place| place.segment == *id && place.offset >= counts;
            self.index.forget(lost);
            tracing::error!(segment = %id, "sealed at {counts} bytes after a failed sync");
        }
    }

    pub(crate) fn journal_sync(&self) -> Sync {
        match self.config.durability {
            Durability::Full => Sync::Wait,
            Durability::Relaxed => Sync::Leave,
        }
    }

    /// Commits, then brings sled up to where the log is now.
    pub(crate) fn checkpoint(&self) -> Result<(), PutError> {
        let checkpoint = {
            let appender = self.lock_appender();
            if self.index.waiting() == 0 || !self.index.freeze() {
                drop(appender);
                return self.commit(Vec::new());
            }
            let ends = appender.ends().into_iter();
            Checkpoint {
                ends: ends
                    .map(|(id, end)| (id, u32::try_from(end).unwrap_or(u32::MAX)))
                    .collect(),
                blocks: self.blocks.load(Ordering::Relaxed),
                bytes: self.bytes.load(Ordering::Relaxed),
                journal: self.lock_journal().last(),
            }
        };
        if let Err(error) = self.commit(Vec::new()) {
            self.index.forget(|_| false); // Thaws what was frozen; `give_up` took out what is lost.
            return Err(error);
        }
        Ok(self.index.merge(&checkpoint)?)
    }

    /// Asks the disk to start writing, without waiting for it.
    pub(super) fn kick_syncer(&self) {
        let syncer = self.syncer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(syncer) = syncer.as_ref() {
            // Full means that it is busy and will see everything when it comes round.
            let _ = syncer.kicks.try_send(());
        }
    }
}

/// The thread that writes out in the background and keeps the memory table small.
#[derive(Debug)]
pub(super) struct Syncer {
    kicks: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Syncer {
    pub(super) fn start(inner: &Arc<Inner>) -> std::io::Result<Self> {
        let (kicks, kicked) = sync_channel(1);
        let inner = Arc::downgrade(inner);
        let thread = std::thread::Builder::new()
            .name("store-syncer".to_owned())
            .spawn(move || run(&inner, &kicked))?;
        Ok(Self { kicks, thread })
    }

    /// Ends the thread and waits for it.
    pub(super) fn stop(self) {
        drop(self.kicks);
        if self.thread.thread().id() != std::thread::current().id() {
            let _ = self.thread.join(); // A panic in it was logged by the runtime's hook.
        }
    }
}

fn run(inner: &Weak<Inner>, kicked: &Receiver<()>) {
    while kicked.recv().is_ok() {
        let Some(inner) = inner.upgrade() else { return };
        let written = if inner.index.waiting() >= MERGE_AT {
            inner.checkpoint()
        } else {
            inner.commit(Vec::new())
        };
        if let Err(error) = written {
            // Whoever waits for these bytes is told by a commit of their own.
            tracing::warn!(%error, "writing out in the background failed");
        }
    }
}

/// Entries in the memory table at which they are merged into sled.
pub(crate) const MERGE_AT: usize = 500_000;
/// Failed commits remembered for those still waiting.
const FAILURES_KEPT: usize = 64;
