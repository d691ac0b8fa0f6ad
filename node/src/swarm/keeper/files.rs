//! Refuses connections when this process has hardly any file descriptors left.
//!
//! A connection that takes the last one takes it from the store and from commands, which need files to
//! do anything. So some are left to them, and fewer of these to dials than to arrivals: what we
//! dial we need.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many there may be, and are.
#[derive(Debug)]
pub(super) struct Files {
    most: fn() -> Option<u64>,
    open: fn() -> Option<u64>,
    seen: Mutex<Option<(Instant, Seen)>>,
    refused_in: AtomicU64,
    refused_out: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    open: u64,
    most: u64,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has {open} files and sockets open of the {most} that the system allows, and leaves the rest to \
     its store and to commands; `ulimit -n` or LimitNOFILE= raises that, a smaller `fetch.connections` needs fewer"
)]
pub(super) struct TooManyFiles {
    open: u64,
    most: u64,
}

impl Files {
    /// Those of this process.
    pub(super) fn new() -> Self {
        Self::of(limit, open)
    }

    fn of(most: fn() -> Option<u64>, open: fn() -> Option<u64>) -> Self {
        Self {
            most,
            open,
            seen: Mutex::new(None),
            refused_in: AtomicU64::new(0),
            refused_out: AtomicU64::new(0),
        }
    }

    /// Whether there is room for an arrival.
    pub(super) fn admit_arrival(&self) -> Result<(), TooManyFiles> {
        self.admit(1, &self.refused_in)
    }

    /// Whether there is room for a dial.
    pub(super) fn admit_dial(&self) -> Result<(), TooManyFiles> {
        self.admit(2, &self.refused_out)
    }

    /// Arrivals and dials that were refused.
    pub(super) fn refused(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.refused_in), read(&self.refused_out))
    }

    /// What stands in the way of arrivals, if anything does.
    pub(super) fn check(&self) -> Result<(), TooManyFiles> {
        self.check_share(1)
    }

    fn admit(&self, share: u64, refused: &AtomicU64) -> Result<(), TooManyFiles> {
        self.check_share(share).inspect_err(|_| {
            refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn check_share(&self, share: u64) -> Result<(), TooManyFiles> {
        let Some(Seen { open, most }) = self.look(Instant::now()) else {
            return Ok(());
        };
        let left = (most / LEFT_ONE_IN).min(LEFT_MAX) / share;
        if open + left >= most {
            return Err(TooManyFiles { open, most });
        }
        Ok(())
    }

    fn look(&self, now: Instant) -> Option<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((at, figures)) if now - at < LOOK_EVERY => Some(figures),
            _ => {
                let most = (self.most)()?;
                let open = (self.open)()?;
                let figures = Seen { open, most };
                *seen = Some((now, figures));
                Some(figures)
            }
        }
    }
}

/// How many the system allows; `None` for as many as there are.
fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// How many are open, where the system tells.
fn open() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is what it is counted with.
    u64::try_from(count.saturating_sub(1)).ok()
}

/// One in so many is left to others than connections.
const LEFT_ONE_IN: u64 = 8;
/// And so many at most.
const LEFT_MAX: u64 = 256;
/// For how long a count is good: with many files open it takes a millisecond.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_refused_before_dials_and_both_are_counted() {
        let files = Files::of(|| Some(64), || Some(55));
        assert!(files.admit_arrival().is_ok() && files.check().is_ok());
        let files = Files::of(|| Some(64), || Some(56));
        let told = files.admit_arrival().unwrap_err().to_string();
        assert!(
            told.contains("56 files") && told.contains("ulimit -n"),
            "{told}"
        );
        assert!(files.admit_dial().is_ok());
        let files = Files::of(|| Some(64), || Some(60));
        assert!(files.admit_arrival().is_err() && files.admit_dial().is_err());
        assert!(files.check().is_err());
        assert_eq!(files.refused(), (1, 1));
    }

    #[test]
    fn where_nobody_tells_nothing_is_refused() {
        assert!(Files::of(|| None, || Some(1)).admit_arrival().is_ok());
        assert!(Files::of(|| Some(1), || None).admit_arrival().is_ok());
    }

    #[test]
    fn what_is_open_is_counted() {
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        assert!(open().unwrap() >= 100);
        drop(files);
    }
}
