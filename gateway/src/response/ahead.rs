//! How far answers read ahead of their clients, all together.
//!
//! A client that stops reading leaves what was read ahead for it in memory. So every answer starts
//! with a small window of its file and goes on in such windows; only a bounded number of answers,
//! and only after their client took the first window, read in a wide one, where the reader keeps
//! several blocks under way at once.

use crate::body::{Break, Chunks};
use cairn_store::BlockSource;
use cairn_store::unixfs::read::File;
use futures::{StreamExt, TryStreamExt, stream};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Leave to read far ahead, for a bounded number of answers at once. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Leave {
    answers: Arc<Semaphore>,
}

impl Leave {
    pub(crate) fn new(answers: NonZeroU32) -> Self {
        let answers = usize::try_from(answers.get()).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            answers: Arc::new(Semaphore::new(answers)),
        }
    }

    /// Leave for as long as the permit lives, if there is some left.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.answers).try_acquire_owned().ok()
    }
}

/// Reads a part of a file.
pub(super) fn read<S: BlockSource + Clone + 'static>(
    file: &File,
    source: S,
    range: Range<u64>,
    leave: &Leave,
) -> Chunks {
    let range = range.start..range.end.min(file.size());
    if range.end.saturating_sub(range.start) <= NARROW_BYTES {
        return file.read(source, range).map_err(Break::from).boxed();
    }
    let windows = Windows {
        file: file.clone(),
        source,
        left: range,
        leave: leave.clone(),
        window: None,
        is_first: true,
    };
    stream::try_unfold(windows, |mut windows| async move {
        let chunk = windows.next().await?;
        Ok(chunk.map(|chunk| (chunk, windows)))
    })
    .boxed()
}

struct Windows<S> {
    file: File,
    source: S,
    /// What no window has reached.
    left: Range<u64>,
    leave: Leave,
    window: Option<Window>,
    is_first: bool,
}

struct Window {
    chunks: Chunks,
    /// Held while the window is wide.
    _leave: Option<OwnedSemaphorePermit>,
}

impl<S: BlockSource + Clone + 'static> Windows<S> {
    async fn next(&mut self) -> Result<Option<bytes::Bytes>, Break> {
        loop {
            if let Some(window) = &mut self.window {
                if let Some(chunk) = window.chunks.next().await {
                    return chunk.map(Some);
                }
                self.window = None;
            }
            if self.left.is_empty() {
                return Ok(None);
            }
            self.open();
        }
    }

    fn open(&mut self) {
        let leave = if self.is_first {
            None
        } else {
            self.leave.take()
        };
        self.is_first = false;
        let width = if leave.is_some() {
            WIDE_BYTES
        } else {
            NARROW_BYTES
        };
        // Windows end where most blocks do, so that few blocks are read twice.
        let end = self.left.start.saturating_add(width);
        let end = (end - end % NARROW_BYTES).min(self.left.end);
        let range = self.left.start..end;
        self.left.start = end;
        let chunks = self
            .file
            .read(self.source.clone(), range)
            .map_err(Break::from)
            .boxed();
        self.window = Some(Window {
            chunks,
            _leave: leave,
        });
    }
}

/// The width of a narrow window: one block of the default size.
const NARROW_BYTES: u64 = 1 << 20;
/// The width of a wide one: the leave is asked for again after so much.
const WIDE_BYTES: u64 = 64 << 20;
