//! `/libp2p/fetch/0.0.1`: a peer's record of a name, asked for over a stream of its own.
//!
//! One question, one answer, each a protobuf behind a varint of its length: `{1: key}`, and `{1: status, 2: data}`.
//! As go-libp2p-pubsub-router has it, with Kubo's bound of time and tighter ones of size.

use crate::ipns::{self, RECORD_BYTES_MAX};
use crate::negotiation::OpenError;
use crate::perf::{self, Order};
use crate::protobuf::{Fields, Value, put_bytes, put_number, put_varint};
use bytes::BytesMut;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::swarm::StreamProtocol;
use std::io;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Its name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/libp2p/fetch/0.0.1");

/// Both ends of what negotiates it and hands streams over.
pub(super) fn pair(answers: perf::Answers) -> (perf::Behaviour, perf::Wire) {
    perf::pair_of(&SPOKEN, answers)
}

static SPOKEN: [StreamProtocol; 1] = [PROTOCOL];

/// Asks a connected peer for its record of a name; `None` if it has none. What it gives is not checked yet.
pub(super) async fn ask(
    orders: &mpsc::Sender<Order>,
    peer: PeerId,
    name: &PeerId,
) -> io::Result<Option<Vec<u8>>> {
    let asking = async {
        let (reply, opened) = oneshot::channel();
        let order = Order {
            peer,
            way: None,
            reply,
        };
        let stopping = || io::Error::other("the node is stopping");
        orders.send(order).await.map_err(|_| stopping())?;
        let stream = opened.await.map_err(|_| stopping())?;
        let (_, mut stream) = stream.map_err(|error: OpenError| io::Error::other(error))?;
        let mut question = BytesMut::new();
        put_bytes(&mut question, 1, &ipns::key(name));
        write(&mut stream, &question).await?;
        let answer = read(&mut stream, ANSWER_BYTES_MAX).await?;
        // It is all that is wanted; how the end of the stream gets there matters to nobody.
        drop(stream.close().await);
        Ok(answer_of(&answer)?.map(<[u8]>::to_vec))
    };
    let asked = timeout(TIME_MAX, asking).await;
    asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Answers one stream with what `look` finds under the key; whether that was anything.
pub(super) async fn answer<S>(
    mut stream: S,
    look: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answering = async {
        let question = read(&mut stream, QUESTION_BYTES_MAX).await?;
        let found = look(key_of(&question)?);
        let mut answer = BytesMut::new();
        match &found {
            Some(record) => put_bytes(&mut answer, 2, record),
            None => put_number(&mut answer, 1, NOT_FOUND),
        }
        write(&mut stream, &answer).await?;
        stream.close().await?;
        Ok(found.is_some())
    };
    let answered = timeout(TIME_MAX, answering).await;
    answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn key_of(question: &[u8]) -> io::Result<&[u8]> {
    let (mut key, mut fields) = (&[][..], Fields(question));
    while let Some(field) = fields.next().map_err(io::Error::other)? {
        if let (1, Value::Bytes(bytes)) = field {
            key = bytes;
        }
    }
    Ok(key)
}

fn answer_of(answer: &[u8]) -> io::Result<Option<&[u8]>> {
    let (mut status, mut data, mut fields) = (FOUND, &[][..], Fields(answer));
    while let Some(field) = fields.next().map_err(io::Error::other)? {
        match field {
            (1, Value::Number(number)) => status = number,
            (2, Value::Bytes(bytes)) => data = bytes,
            _ => {}
        }
    }
    match status {
        FOUND => Ok(Some(data)),
        NOT_FOUND => Ok(None),
        other => Err(io::Error::other(format!(
            "the peer answered with status {other}"
        ))),
    }
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, message: &[u8]) -> io::Result<()> {
    let mut framed = BytesMut::new();
    put_varint(&mut framed, message.len() as u64);
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    stream.flush().await
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S, most: usize) -> io::Result<Vec<u8>> {
    let (mut length, mut read) = ([0; LENGTH_BYTES_MAX], 0);
    let length = loop {
        let Some(byte) = length.get_mut(read) else {
            return Err(io::Error::other("a message whose length is no varint"));
        };
        stream.read_exact(std::slice::from_mut(byte)).await?;
        let is_last = *byte < 0x80;
        read += 1;
        if is_last {
            let so_far = length.get(..read).unwrap_or_default();
            let decoded = unsigned_varint::decode::usize(so_far).map_err(io::Error::other)?;
            break decoded.0;
        }
    };
    if length > most {
        let why = format!("a message of {length} bytes; {most} are read at most");
        return Err(io::Error::other(why));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// How long one question and its answer may take.
const TIME_MAX: Duration = Duration::from_secs(10);
/// Longest question: a key, and room for fields that nobody knows.
const QUESTION_BYTES_MAX: usize = 1024;
/// Longest answer.
const ANSWER_BYTES_MAX: usize = RECORD_BYTES_MAX + 64;
/// Bytes of the varint of a length.
const LENGTH_BYTES_MAX: usize = 4;

const FOUND: u64 = 0;
const NOT_FOUND: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn pipe() -> (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let (one, other) = tokio::io::duplex(64 << 10);
        (one.compat(), other.compat())
    }

    /// What comes back to these bytes.
    async fn answered(question: &[u8]) -> (io::Result<bool>, Vec<u8>) {
        let (mut here, there) = pipe();
        here.write_all(question).await.unwrap();
        here.close().await.unwrap();
        let look = |key: &[u8]| (key == b"/ipns/x").then(|| b"record".to_vec());
        let answered = answer(there, look).await;
        let mut bytes = Vec::new();
        here.read_to_end(&mut bytes).await.unwrap();
        (answered, bytes)
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_is_answered_as_go_answers_it() {
        let (found, bytes) = answered(b"\x09\x0a\x07/ipns/x").await;
        assert!(found.unwrap());
        assert_eq!(bytes, b"\x08\x12\x06record");
        let (found, bytes) = answered(b"\x09\x0a\x07/ipns/y").await;
        assert!(!found.unwrap());
        assert_eq!(bytes, b"\x02\x08\x01");
        assert_eq!(answer_of(b"\x12\x06record").unwrap(), Some(&b"record"[..]));
        assert_eq!(answer_of(b"\x08\x01").unwrap(), None);
        answer_of(b"\x08\x02").unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_question_is_not_answered() {
        let long = [&[0xff, 0x7f][..], &[0; 20_000]].concat();
        let cut: &[u8] = b"\x09\x0a\x07/ipns";
        for bytes in [&long[..], cut, b"\xff\xff\xff\xff\xff", b"\x02\x0a\x07"] {
            let (answered, bytes) = answered(bytes).await;
            answered.unwrap_err();
            assert!(bytes.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_and_says_nothing_is_let_go() {
        let (_here, there) = pipe();
        let silent = answer(there, |_| None).await.unwrap_err();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    }
}
