//! Reads what is left of an upload that nobody wants any more.
//!
//! A server that refuses before it has read everything and then closes makes the client's writes
//! fail, and most clients never look at the answer then. So a body that is dropped unread is read
//! to its end by a task of its own, within limits.

use bytes::Bytes;
use cairn_node::tasks::Tasks;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request's body that is read to its end even if nobody asks for it.
#[derive(Debug)]
pub(super) struct Drained {
    body: Option<Incoming>,
    tasks: Tasks,
}

impl Drained {
    pub(super) fn new(body: Incoming, tasks: Tasks) -> Self {
        Self {
            body: Some(body),
            tasks,
        }
    }
}

impl Body for Drained {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        self.tasks
            .spawn("read what is left of an upload", async move {
                let rest = async {
                    let mut left = DRAINED_BYTES_MAX;
                    while let Some(Ok(frame)) = body.frame().await {
                        let read = frame.data_ref().map_or(0, Bytes::len);
                        match left.checked_sub(read) {
                            Some(less) => left = less,
                            None => return,
                        }
                    }
                };
                // Past either limit the connection is closed under the client's hands after all.
                let _ = tokio::time::timeout(DRAIN_TIME_MAX, rest).await;
            });
    }
}

/// How much of an unwanted upload is read.
const DRAINED_BYTES_MAX: usize = 16 << 20;
/// For how long.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
