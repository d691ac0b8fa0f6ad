//! Answers: one value, many values, or bytes; streamed while they are made.
//!
//! A streamed answer is made by a future that lives inside the body and runs only when the body is
//! read: no task of its own, so whoever stops reading stops the work, and a slow reader slows it.
//! What it hands over goes through a short queue; small pieces that wait there leave as one.

use super::STREAM_ERROR;
use super::deadline::Deadline;
use super::error::RpcError;
use crate::output;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TRAILER};
use http::{HeaderMap, Response, StatusCode};
use http_body::Frame;
use serde::Serialize;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// What a command answers.
#[derive(Debug)]
pub enum Reply {
    /// Nothing but success.
    Empty,
    /// One JSON value, serialized.
    Value(Bytes),
    /// Values or bytes, made while they are read.
    Stream(Kind, Producer),
}

/// What a stream consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON values, one a line.
    Values,
    /// Bytes, of a media type and perhaps a known length.
    Bytes {
        /// The media type.
        media: &'static str,
        /// How many bytes will come, if known.
        length: Option<u64>,
    },
}

/// The writing end of a stream.
#[derive(Debug, Clone)]
pub struct Sink {
    queue: mpsc::Sender<Bytes>,
}

impl Sink {
    /// Hands over bytes; waits while the reader is slow.
    pub async fn bytes(&self, bytes: Bytes) -> Result<(), RpcError> {
        let sent = self.queue.send(bytes).await;
        sent.map_err(|_| RpcError::reader_gone())
    }

    /// Hands over a value.
    pub async fn value<T: Serialize + Sync>(&self, value: &T) -> Result<(), RpcError> {
        self.bytes(json_line(value)?).await
    }

    /// Hands over a value from a thread of its own.
    pub fn blocking_value<T: Serialize>(&self, value: &T) -> Result<(), RpcError> {
        let sent = self.queue.blocking_send(json_line(value)?);
        sent.map_err(|_| RpcError::reader_gone())
    }

    /// Hands over a value if half of the queue is free: for figures that the next one replaces.
    pub fn offer<T: Serialize>(&self, value: &T) {
        // The other half is for what must not be left out.
        let has_room = self.queue.capacity() > self.queue.max_capacity() / 2;
        if has_room && let Ok(json) = json_line(value) {
            // No room means that the reader has figures enough.
            let _ = self.queue.try_send(json);
        }
    }

    /// Whether nobody will read what is still to come.
    pub fn is_abandoned(&self) -> bool {
        self.queue.is_closed()
    }
}

/// A value as one line of JSON, safe to show on a terminal.
pub fn json_line<T: Serialize>(value: &T) -> Result<Bytes, RpcError> {
    let mut json = output::escape_json(serde_json::to_string(value)?);
    json.push('\n');
    Ok(Bytes::from(json))
}

impl Reply {
    /// One value.
    pub fn value<T: Serialize>(value: &T) -> Result<Self, RpcError> {
        json_line(value).map(Self::Value)
    }

    /// Values, made by `make` while they are read.
    pub fn values<F, W>(make: F) -> Self
    where
        F: FnOnce(Sink) -> W,
        W: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        Self::Stream(Kind::Values, Producer::new(VALUES_WAITING_MAX, make))
    }

    /// Bytes, made by `make` while they are read.
    pub fn bytes<F, W>(media: &'static str, length: Option<u64>, make: F) -> Self
    where
        F: FnOnce(Sink) -> W,
        W: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        Self::Stream(
            Kind::Bytes { media, length },
            Producer::new(PIECES_WAITING_MAX, make),
        )
    }

    /// The response. Waits for the first piece of a stream, so that an error before it is a
    /// status and not a trailer.
    pub async fn into_response(self, deadline: Option<Deadline>) -> Response<Body> {
        match self {
            Self::Empty => respond(StatusCode::OK, "text/plain", Body::empty()),
            Self::Value(json) => {
                let mut response = respond(StatusCode::OK, JSON, Body::from(json));
                response
                    .headers_mut()
                    .insert(CHUNKED_OUTPUT, HeaderValue::from_static("1"));
                response
            }
            Self::Stream(kind, mut producer) => {
                producer.deadline = deadline.map(|deadline| Box::pin(deadline.strikes()) as Over);
                let first = std::future::poll_fn(|context| producer.poll_piece(context)).await;
                match first {
                    Some(Err(error)) => error_response(&error),
                    Some(Ok(piece)) => {
                        producer.held = Some(piece);
                        stream_response(kind, producer)
                    }
                    None => stream_response(kind, producer),
                }
            }
        }
    }
}

/// The response for a failure before anything was answered.
pub fn error_response(error: &RpcError) -> Response<Body> {
    let json = json_line(&error.body()).unwrap_or_default();
    respond(error.status(), JSON, Body::from(json))
}

fn stream_response(kind: Kind, producer: Producer) -> Response<Body> {
    let (media, marker, length) = match kind {
        Kind::Values => (JSON, CHUNKED_OUTPUT, None),
        Kind::Bytes { media, length } => (media, STREAM_OUTPUT, length),
    };
    let mut response = respond(StatusCode::OK, media, Body::new(producer));
    let headers = response.headers_mut();
    headers.insert(marker, HeaderValue::from_static("1"));
    headers.insert(TRAILER, HeaderValue::from_static("X-Stream-Error"));
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH_HINT, HeaderValue::from(length));
    }
    response
}

fn respond(status: StatusCode, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// What makes a body.
type Work = Pin<Box<dyn Future<Output = Result<(), RpcError>> + Send>>;
/// Comes when the time is over.
type Over = Pin<Box<dyn Future<Output = RpcError> + Send>>;

/// A body that is made while it is read.
pub struct Producer {
    work: Option<Work>,
    queue: mpsc::Receiver<Bytes>,
    held: Option<Bytes>,
    deadline: Option<Over>,
    /// A failure that was found while pieces still waited.
    failure: Option<RpcError>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl Producer {
    fn new<F, W>(waiting_max: usize, make: F) -> Self
    where
        F: FnOnce(Sink) -> W,
        W: Future<Output = Result<(), RpcError>> + Send + 'static,
    {
        let (sender, queue) = mpsc::channel(waiting_max);
        Self {
            work: Some(Box::pin(make(Sink { queue: sender }))),
            queue,
            held: None,
            deadline: None,
            failure: None,
        }
    }

    /// The next piece; `None` after the last one of a stream that ended well.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, RpcError>>> {
        if let Some(piece) = self.held.take() {
            return Poll::Ready(Some(Ok(piece)));
        }
        loop {
            // What is ready goes out before more is made.
            let closed = match self.queue.poll_recv(context) {
                Poll::Ready(Some(piece)) => return Poll::Ready(Some(Ok(self.gather(piece)))),
                Poll::Ready(None) => true,
                Poll::Pending => false,
            };
            if let Some(failure) = self.failure.take() {
                return Poll::Ready(Some(Err(failure)));
            }
            let Some(work) = &mut self.work else {
                return if closed {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            };
            match work.as_mut().poll(context) {
                Poll::Ready(result) => {
                    self.work = None;
                    // Nothing more is taken; what waits is still handed out.
                    self.queue.close();
                    self.failure = result.err();
                }
                Poll::Pending => {
                    if let Poll::Ready(Some(piece)) = self.queue.poll_recv(context) {
                        return Poll::Ready(Some(Ok(self.gather(piece))));
                    }
                    let Some(deadline) = &mut self.deadline else {
                        return Poll::Pending;
                    };
                    let error = ready!(deadline.as_mut().poll(context));
                    self.deadline = None;
                    self.work = None;
                    self.queue.close();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    /// Joins what waits behind a small piece to it.
    fn gather(&mut self, first: Bytes) -> Bytes {
        if first.len() >= GATHER_BYTES {
            return first;
        }
        let Ok(second) = self.queue.try_recv() else {
            return first;
        };
        let mut gathered = BytesMut::with_capacity(GATHER_BYTES);
        gathered.extend_from_slice(&first);
        gathered.extend_from_slice(&second);
        while gathered.len() < GATHER_BYTES {
            let Ok(next) = self.queue.try_recv() else {
                break;
            };
            gathered.extend_from_slice(&next);
        }
        gathered.freeze()
    }
}

impl http_body::Body for Producer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.poll_piece(context).map(|piece| {
            piece.map(|piece| {
                Ok(match piece {
                    Ok(bytes) => Frame::data(bytes),
                    Err(error) => Frame::trailers(stream_error(&error)),
                })
            })
        })
    }
}

/// The trailer that tells of a failure after the first byte.
fn stream_error(error: &RpcError) -> HeaderMap {
    let text: String = error
        .message()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let value = HeaderValue::from_bytes(text.as_bytes())
        .unwrap_or_else(|_| HeaderValue::from_static("the stream ended with an error"));
    HeaderMap::from_iter([(HeaderName::from_static(STREAM_ERROR), value)])
}

/// The failure that a trailer tells of.
pub fn told_in_trailer(trailers: &HeaderMap) -> Option<RpcError> {
    let value = trailers.get(STREAM_ERROR)?;
    Some(RpcError::failed(String::from_utf8_lossy(value.as_bytes())))
}

const JSON: &str = "application/json";
/// How many bytes a stream will have, where `Content-Length` must not be promised.
pub const CONTENT_LENGTH_HINT: HeaderName = HeaderName::from_static("x-content-length");
const CHUNKED_OUTPUT: HeaderName = HeaderName::from_static("x-chunked-output");
const STREAM_OUTPUT: HeaderName = HeaderName::from_static("x-stream-output");
/// Most values that wait for the reader.
const VALUES_WAITING_MAX: usize = 256;
/// Most pieces of bytes, each up to a block long, that wait for the reader.
const PIECES_WAITING_MAX: usize = 4;
/// Size up to which small pieces are joined.
const GATHER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn collect(reply: Reply) -> (StatusCode, Bytes, Option<HeaderMap>) {
        let response = reply.into_response(None).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned();
        (status, body.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn values_come_one_a_line() {
        let reply = Reply::values(|out| async move {
            for at in 0..1000 {
                out.value(&at).await?;
            }
            Ok(())
        });
        let (status, body, trailers) = collect(reply).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1000);
        assert!(body.starts_with(b"0\n1\n2\n"));
        assert!(trailers.is_none());
    }

    #[tokio::test]
    async fn an_error_before_the_first_value_is_a_status() {
        let reply = Reply::values(|_| async { Err(RpcError::failed("no")) });
        let (status, body, _) = collect(reply).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body, "{\"Message\":\"no\",\"Code\":0,\"Type\":\"error\"}\n");
    }

    #[tokio::test]
    async fn an_error_after_the_first_value_is_a_trailer_behind_all_values() {
        let reply = Reply::values(|out| async move {
            out.value(&1).await?;
            out.value(&2).await?;
            Err(RpcError::failed("größer\nals"))
        });
        let (status, body, trailers) = collect(reply).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body, "1\n2\n");
        let told = told_in_trailer(&trailers.unwrap()).unwrap();
        assert_eq!(told.message(), "größer als");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_a_stream_that_stands_still() {
        let reply = Reply::values(|out| async move {
            out.value(&1).await?;
            std::future::pending().await
        });
        let given = std::time::Duration::from_secs(5);
        let response = reply.into_response(Deadline::after(given)).await;
        let body = response.into_body().collect().await.unwrap();
        let told = told_in_trailer(body.trailers().unwrap()).unwrap();
        assert_eq!(told, RpcError::too_slow(given, None));
    }

    #[tokio::test]
    async fn a_reader_that_leaves_ends_the_work() {
        struct Flag(std::sync::Arc<std::sync::atomic::AtomicBool>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.store(true, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let ended = std::sync::Arc::default();
        let flag = Flag(std::sync::Arc::clone(&ended));
        let reply = Reply::values(|out| async move {
            let _flag = flag;
            loop {
                out.value(&1).await?;
            }
        });
        let response = reply.into_response(None).await;
        assert!(!ended.load(std::sync::atomic::Ordering::SeqCst));
        drop(response);
        assert!(ended.load(std::sync::atomic::Ordering::SeqCst));
    }
}
