//! How the index follows the log: what waits in memory is merged, and how far it goes is noted, now and then
//! by the thread that also writes out what commits have left, and commits what nobody else does.

use super::Inner;
use crate::index::{Checkpoint, Merged};
use crate::journal::Sync;
use crate::journal::record::Record;
use crate::log::SegmentId;
use crate::log::append::Appender;
use crate::sink::PutError;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

impl Inner {
    /// Commits, then brings the index up to where the log is now, if there is room for that.
    pub(crate) fn checkpoint(&self) -> Result<(), PutError> {
        if self.index.waiting() == 0 {
            return self.commit_to_disk(Vec::new());
        }
        self.checkpoint_anew()
    }

    /// [`Inner::checkpoint`], even if there is nothing to merge.
    pub(crate) fn checkpoint_anew(&self) -> Result<(), PutError> {
        if !self.index_has_room() {
            return self.commit_to_disk(Vec::new());
        }
        // So that the journal knows every segment there is, but for what is made this very moment.
        self.commit(Vec::new())?;
        let (frozen, checkpoint, losses) = {
            let appender = self.lock_appender();
            let Some(frozen) = self.index.freeze() else {
                drop(appender);
                return self.commit_to_disk(Vec::new());
            };
            self.unmerged.store(0, Ordering::Relaxed);
            (frozen, self.checkpoint_of(&appender), self.losses())
        };
        let durable = self.commit_to_disk_since(losses, Vec::new());
        if let Err(error) = durable {
            self.index.forget(|_| false); // Thaws what was frozen; `give_up` took out what is lost.
            return Err(error);
        }
        match self.index.merge(&frozen, Some(&checkpoint)) {
            Ok(Merged::All) => {}
            Ok(Merged::Thawed) => return Ok(()),
            Err(error) => return Ok(self.go_on_in_memory(&error)?),
        }
        let known = vec![Record::Checkpointed(checkpoint.journal)];
        self.lock_journal()
            .append(known, Sync::Leave)
            .map_err(|error| self.write_failed("journal", &error))
    }

    /// How far the index knows the log once it has merged what is in the memory table now.
    pub(super) fn checkpoint_of(&self, appender: &Appender) -> Checkpoint {
        let journal = self.lock_journal();
        let state = journal.state();
        let mut last = state.used.clone();
        let mut ends = BTreeMap::new();
        for (id, length) in &state.lengths {
            // In order of their numbers, so the highest stays. It may grow again after a restart, even
            // if it is sealed now.
            let highest = last.entry(id.stream).or_insert(0);
            if id.number >= *highest {
                *highest = id.number;
                ends.insert(id.stream, (*id, *length));
            }
        }
        let mut ends: BTreeMap<SegmentId, u32> = ends.into_values().collect();
        // What the disk has lost may come back: a file restored, a folder mounted again.
        ends.extend(state.lengths.iter().filter_map(|(id, length)| {
            let there = self.segment(*id).map_or(0, |segment| segment.length());
            let there = u32::try_from(there).unwrap_or(u32::MAX - 1);
            (there < *length).then_some((*id, there))
        }));
        for (id, length) in appender.growing() {
            // One that the journal does not know yet may end up anywhere: it is looked at whole.
            let known = state.lengths.contains_key(&id);
            let length = u32::try_from(length).unwrap_or(u32::MAX - 1);
            ends.insert(id, if known { length } else { 0 });
        }
        Checkpoint {
            ends,
            last,
            blocks: self.counts.blocks(),
            bytes: self.counts.bytes(),
            journal: journal.last(),
            merging: false,
        }
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
            .spawn(move || {
                run(&inner, || kicked.recv_timeout(LEFT_AT_MOST));
            })?;
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

fn run(inner: &Weak<Inner>, next: impl Fn() -> Result<(), RecvTimeoutError>) {
    let mut told_at: Option<Instant> = None;
    loop {
        let kick = next();
        if kick == Err(RecvTimeoutError::Disconnected) {
            return;
        }
        let Some(inner) = inner.upgrade() else { return };
        let is_due = || inner.has_left_something() || inner.lock_appender().is_touched();
        if kick == Err(RecvTimeoutError::Timeout) && !is_due() {
            continue;
        }
        let unmerged = inner.unmerged.load(Ordering::Relaxed);
        let written = if inner.index.waiting() >= MERGE_AT || unmerged >= MERGE_BYTES {
            inner.checkpoint()
        } else {
            inner.commit_to_disk(Vec::new())
        };
        if let Err(error) = written {
            // Whoever put these bytes is told when they commit: the losses were counted.
            if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                told_at = Some(Instant::now());
                tracing::warn!(%error, "writing out in the background failed");
            }
        }
    }
}

/// How long what is acknowledged without waiting for the disk is left to the operating system, and what nobody
/// commits, as blocks that a fetch has brought, is not known to the journal.
const LEFT_AT_MOST: Duration = Duration::from_secs(1);
/// A disk that refuses is tried every second, and told of once in this time.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Entries in the memory table at which they are merged into sled.
pub(crate) const MERGE_AT: usize = 500_000;
/// Bytes appended after which the memory table is merged, so that a restart scans no more than that.
const MERGE_BYTES: u64 = 256 << 20;
