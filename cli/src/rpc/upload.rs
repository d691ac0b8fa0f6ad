//! What came with a request: files, from a multipart body or from this machine's disk.
//!
//! Files are read on a thread of their own, because importing computes and both disks and stores
//! block. A body is carried to that thread through a short queue.

use super::context::broke;
use super::entries::{Entries, LocalEntries, LocalUpload};
use super::error::RpcError;
use super::multipart::{MultipartEntries, boundary_of};
use axum::body::Body;
use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// The files of a request.
#[derive(Debug)]
pub enum Upload {
    /// None.
    None,
    /// In the body.
    Multipart {
        /// The body; in a lock only so that a request can be looked at from several threads.
        body: Mutex<Body>,
        /// What separates its parts.
        boundary: String,
    },
    /// On this machine's disk: only requests made in this process can name them.
    Local(LocalUpload),
}

impl Upload {
    /// What came with a request.
    pub fn new(mut parts: http::request::Parts, body: Body) -> Self {
        if let Some(local) = parts.extensions.remove::<LocalUpload>() {
            return Self::Local(local);
        }
        match boundary_of(&parts.headers) {
            Some(boundary) => Self::Multipart {
                body: Mutex::new(body),
                boundary,
            },
            None => Self::None,
        }
    }

    /// Runs `work` over the files on a thread of its own.
    pub async fn on_thread<T, F>(self, work: F) -> Result<T, RpcError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Entries) -> Result<T, RpcError> + Send + 'static,
    {
        let (body, boundary) = match self {
            Self::None => {
                return Err(RpcError::wrong("file argument 'path' is required"));
            }
            Self::Local(local) => {
                let done = tokio::task::spawn_blocking(move || work(&mut LocalEntries::new(local)));
                return done.await.map_err(|_| broke("reading the files"))?;
            }
            Self::Multipart { body, boundary } => (
                body.into_inner().unwrap_or_else(PoisonError::into_inner),
                boundary,
            ),
        };
        let (queue, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let mut done = tokio::task::spawn_blocking(move || {
            let body = ChannelReader::new(pieces);
            work(&mut MultipartEntries::new(body, &boundary))
        });
        let pump = pump(body, queue);
        let result = tokio::select! {
            result = &mut done => result,
            () = pump => done.await,
        };
        result.map_err(|_| broke("reading the request"))?
    }
}

/// Carries a body to the thread that reads it, and how it ended.
pub async fn pump(mut body: Body, queue: mpsc::Sender<Piece>) {
    loop {
        let piece = match body.frame().await {
            None => Piece::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => Piece::Data(bytes),
                Err(frame) => match frame.trailers_ref().and_then(super::reply::told_in_trailer) {
                    Some(error) => Piece::Failed(error.message().to_owned()),
                    None => continue,
                },
            },
            Some(Err(error)) => Piece::Failed(error.to_string()),
        };
        let last = !matches!(piece, Piece::Data(_));
        if queue.send(piece).await.is_err() || last {
            return;
        }
    }
}

/// A piece of a body on its way to a thread.
#[derive(Debug)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// It ended well.
    End,
    /// It did not.
    Failed(String),
}

/// A body, read on a thread.
#[derive(Debug)]
pub struct ChannelReader {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

impl ChannelReader {
    /// Reads what [`pump`] sends.
    pub fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for ChannelReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.ended {
                return Ok(0);
            }
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                Some(Piece::Failed(why)) => return Err(io::Error::other(why)),
                // Nobody said that this is the end, so it is not.
                None => {
                    let why = "the stream was cut short";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
            }
        }
        let length = out.len().min(self.current.len());
        if let Some(out) = out.get_mut(..length) {
            self.current.copy_to_slice(out);
        }
        Ok(length)
    }
}

/// Most pieces of a body that wait for the thread.
pub const PIECES_WAITING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_ends_without_saying_so_is_cut_short() {
        let (queue, pieces) = mpsc::channel(4);
        queue
            .blocking_send(Piece::Data(Bytes::from_static(b"half")))
            .unwrap();
        drop(queue);
        let mut text = String::new();
        let error = ChannelReader::new(pieces)
            .read_to_string(&mut text)
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_body_arrives_whole() {
        let (queue, pieces) = mpsc::channel(4);
        queue
            .blocking_send(Piece::Data(Bytes::from_static(b"one ")))
            .unwrap();
        queue
            .blocking_send(Piece::Data(Bytes::from_static(b"two")))
            .unwrap();
        queue.blocking_send(Piece::End).unwrap();
        let mut text = String::new();
        ChannelReader::new(pieces)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "one two");
    }
}
