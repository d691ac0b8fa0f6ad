//! The body of an answer: nothing, bytes, or a stream that may break.
//!
//! A stream that cannot be finished ends with an error, never quietly: the connection is then
//! reset, so that no client takes a part for the whole. A body also carries the request's place
//! among the running ones and gives it back when it is sent or dropped.

use crate::budget::Limit;
use crate::error::{Failure, Reach};
use crate::metrics::Running;
use bytes::Bytes;
use cairn_store::SourceError;
use cairn_store::unixfs::read::ReadError;
use futures::{Stream, StreamExt, stream};
use http_body::{Frame, SizeHint};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Bytes on their way out, or why there are no more.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, Break>> + Send>>;

/// Why a body ends before its end.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Break {
    /// The content could not be read.
    #[error(transparent)]
    Read(Box<ReadError>),
    /// A limit on the work of any request was reached.
    #[error("{0}")]
    Limit(String),
    /// One that the operator set was.
    #[error("{0}")]
    Over(Limit),
    /// Something in the content cannot be sent.
    #[error("{0}")]
    Refused(String),
    /// Nothing came for too long.
    #[error("no bytes for {0:?}")]
    Idle(Duration),
    /// The content gave more or fewer bytes than it announced.
    #[error("the content does not have the size it says")]
    Size,
}

impl Break {
    /// The same, where nothing has been sent yet.
    pub(crate) fn into_failure(self, reach: Reach) -> Failure {
        match self {
            Self::Read(error) => Failure::read(reach, *error),
            Self::Limit(why) => Failure::TooMuch(why),
            Self::Over(limit) => Failure::Over(limit),
            Self::Refused(why) => Failure::Broken(why),
            Self::Idle(_) => Failure::TooSlow(self.to_string()),
            Self::Size => Failure::Broken(self.to_string()),
        }
    }
}

impl From<ReadError> for Break {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Source(SourceError::OverBudget { bound, .. }) => {
                Self::Over(Limit::Request(bound))
            }
            // Boxed, because it holds CIDs and every chunk passes by as a `Result`.
            error => Self::Read(Box::new(error)),
        }
    }
}

impl Break {
    /// What an archive could not read.
    pub(crate) fn of_archive(error: ReadError) -> Self {
        Limit::of_archive(&error).map_or_else(|| error.into(), Self::Over)
    }
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct Body {
    inner: Inner,
    running: Option<Running>,
    broken: Option<Broken>,
}

/// Told when a body breaks, so that its connection is reset and not closed in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken(Arc<AtomicBool>);

impl Broken {
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

enum Inner {
    Whole(Option<Bytes>),
    Stream(Box<Streaming>),
}

struct Streaming {
    chunks: Chunks,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    idle: Duration,
    /// Runs while nothing comes.
    waiting: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl Body {
    /// Nothing.
    pub(crate) fn empty() -> Self {
        Self::of(Inner::Whole(None))
    }

    /// Bytes that are already here.
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(Inner::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// Bytes that come, `length` of them if that is known. Breaks after `idle` without any.
    pub(crate) fn stream(chunks: Chunks, length: Option<u64>, idle: Duration) -> Self {
        Self::of(Inner::Stream(Box::new(Streaming {
            chunks,
            left: length,
            idle,
            waiting: Box::pin(tokio::time::sleep(idle)),
            is_waiting: false,
        })))
    }

    /// Hands over the request's place and the switch of its connection.
    pub(crate) fn attach(&mut self, mut running: Running, broken: Option<Broken>) {
        if self.is_nothing() {
            running.ended();
        }
        self.running = Some(running);
        self.broken = broken;
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self.inner, Inner::Whole(None))
    }

    /// How many bytes it has, if that is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.inner {
            Inner::Whole(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Inner::Stream(stream) => stream.left,
        }
    }

    /// The bytes, if they are all here.
    #[cfg(test)]
    pub(crate) fn as_whole(&self) -> Option<&[u8]> {
        match &self.inner {
            Inner::Whole(bytes) => Some(bytes.as_deref().unwrap_or_default()),
            Inner::Stream(_) => None,
        }
    }

    fn of(inner: Inner) -> Self {
        Self {
            inner,
            running: None,
            broken: None,
        }
    }
}

impl Streaming {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Break>>> {
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        match self.chunks.as_mut().poll_next(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.is_waiting = false;
                if let Some(left) = &mut self.left {
                    match left.checked_sub(bytes.len() as u64) {
                        Some(less) => *left = less,
                        None => return Poll::Ready(Some(Err(Break::Size))),
                    }
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(why))) => Poll::Ready(Some(Err(why))),
            Poll::Ready(None) if self.left.is_some() => Poll::Ready(Some(Err(Break::Size))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                if !self.is_waiting {
                    self.is_waiting = true;
                    self.waiting.as_mut().reset(Instant::now() + self.idle);
                }
                self.waiting
                    .as_mut()
                    .poll(context)
                    .map(|()| Some(Err(Break::Idle(self.idle))))
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Break;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Break>>> {
        let next = match &mut self.inner {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Inner::Stream(stream) => stream.poll(context),
        };
        match &next {
            Poll::Ready(Some(Ok(bytes))) => {
                // Nobody asks for more once all of it is there.
                let is_last = match &self.inner {
                    Inner::Whole(left) => left.is_none(),
                    Inner::Stream(stream) => stream.left == Some(0),
                };
                if let Some(running) = &mut self.running {
                    running.sent(bytes.len());
                    if is_last {
                        running.ended();
                    }
                }
            }
            Poll::Ready(Some(Err(why))) => {
                tracing::debug!(%why, "an answer breaks off");
                if let Some(running) = &mut self.running {
                    running.broke();
                }
                if let Some(broken) = &self.broken {
                    broken.set();
                }
                self.inner = Inner::Whole(None);
            }
            Poll::Ready(None) => {
                if let Some(running) = &mut self.running {
                    running.ended();
                }
            }
            Poll::Pending => {}
        }
        next.map(|next| next.map(|next| next.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_nothing()
    }

    fn size_hint(&self) -> SizeHint {
        self.length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => {
                write!(out, "Whole({} bytes)", bytes.as_ref().map_or(0, Bytes::len))
            }
            Self::Stream(stream) => write!(out, "Stream({:?} bytes left)", stream.left),
        }
    }
}

/// The beginning of a stream, read before anything is answered.
pub(crate) struct Peeked {
    /// What was read: at least as much as asked for, unless the stream is shorter.
    pub(crate) first: Vec<Bytes>,
    /// The rest; `None` if the stream has ended.
    pub(crate) rest: Option<Chunks>,
}

impl Peeked {
    /// The whole stream again.
    pub(crate) fn into_chunks(self) -> Chunks {
        let first = stream::iter(self.first.into_iter().map(Ok));
        match self.rest {
            Some(rest) => first.chain(rest).boxed(),
            None => first.boxed(),
        }
    }
}

/// Reads at least `bytes` from a stream, so that what fails early is answered with a status.
pub(crate) async fn peek(mut chunks: Chunks, bytes: usize) -> Result<Peeked, Break> {
    let mut first = Vec::new();
    let mut read = 0_usize;
    while read < bytes {
        match chunks.next().await {
            Some(chunk) => {
                let chunk = chunk?;
                read = read.saturating_add(chunk.len());
                first.push(chunk);
            }
            None => return Ok(Peeked { first, rest: None }),
        }
    }
    Ok(Peeked {
        first,
        rest: Some(chunks),
    })
}

/// Several pieces as one.
pub(crate) fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        0 => Bytes::new(),
        1 => pieces.pop().unwrap_or_default(),
        _ => pieces.concat().into(),
    }
}
