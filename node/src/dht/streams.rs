//! DHT messages over streams: each is a varint of its length and so many bytes.
//!
//! Whoever asks opens a stream for one question, or for many things to tell. Whoever answers takes one question
//! after the other from a stream until it ends or falls silent.

use super::message::{MESSAGE_BYTES_MAX, Message, MessageError};
use futures::io::BufReader;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Why there was no message, or no answer to one.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the stream ended in the middle of a message")]
    Cut,
    #[error("a message whose length is no varint")]
    Length,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("what was asked is refused")]
    Refused,
    #[error("nothing came in time")]
    Silent,
}

/// Room for large messages that are being read, over all streams. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(LARGE_KIB_TOTAL)))
    }
}

/// Asks one question and waits for the answer.
pub(super) async fn ask<S>(
    stream: S,
    question: &Message,
    room: &Room,
) -> Result<Message, StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    in_time(write(stream.get_mut(), question)).await?;
    // The other end learns that nothing more comes; it answers all the same.
    in_time(async { Ok(stream.get_mut().close().await?) }).await?;
    match in_time(read(&mut stream, room)).await? {
        Some(answer) => Ok(answer),
        None => Err(StreamError::Cut),
    }
}

/// Tells one thing after the other; none is answered.
pub(super) async fn tell<S>(mut stream: S, all: &[Message]) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut waiting = Vec::new();
    for message in all {
        put(&mut waiting, message);
        if waiting.len() >= WRITE_BYTES {
            in_time(async { Ok(stream.write_all(&waiting).await?) }).await?;
            waiting.clear();
        }
    }
    in_time(async { Ok(stream.write_all(&waiting).await?) }).await?;
    in_time(async { Ok(stream.close().await?) }).await?;
    // Whoever takes them reads to the end and then closes its side too. Some never do.
    let mut rest = [0; 1];
    drop(timeout(CLOSE, stream.read(&mut rest)).await);
    Ok(())
}

/// Answers what comes until the stream ends. `answer` gives `None` where nothing is answered, and an error if the
/// peer is not to be listened to any more.
pub(super) async fn serve<S, A, F>(stream: S, room: &Room, mut answer: A) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: FnMut(Message) -> F,
    F: Future<Output = Result<Option<Message>, StreamError>>,
{
    let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
    loop {
        let question = timeout(IDLE, read(&mut stream, room)).await;
        let Some(question) = question.map_err(|_| StreamError::Silent)?? else {
            break;
        };
        if let Some(answer) = answer(question).await? {
            in_time(write(stream.get_mut(), &answer)).await?;
        }
    }
    in_time(async { Ok(stream.get_mut().close().await?) }).await
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    message: &Message,
) -> Result<(), StreamError> {
    let mut bytes = Vec::new();
    put(&mut bytes, message);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    Ok(())
}

fn put(bytes: &mut Vec<u8>, message: &Message) {
    let message = message.encode();
    let mut length = unsigned_varint::encode::usize_buffer();
    bytes.extend(unsigned_varint::encode::usize(message.len(), &mut length));
    bytes.extend(message);
}

/// The next message; `None` at the end.
async fn read<S>(stream: &mut BufReader<S>, room: &Room) -> Result<Option<Message>, StreamError>
where
    S: AsyncRead + Unpin,
{
    let Some(length) = read_length(stream).await? else {
        return Ok(None);
    };
    if length > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLarge(length).into());
    }
    let kib = u32::try_from(length.div_ceil(1 << 10)).unwrap_or(u32::MAX);
    // Held until it is decoded. It cannot fail: the room is never closed.
    let _room = match length {
        0..=SMALL_BYTES_MAX => None,
        _ => room.0.acquire_many(kib).await.ok(),
    };
    // It grows as bytes come, not as somebody says that they will.
    let mut bytes = Vec::with_capacity(length.min(SMALL_BYTES_MAX));
    let whole = u64::try_from(length).unwrap_or(u64::MAX);
    stream.take(whole).read_to_end(&mut bytes).await?;
    if bytes.len() < length {
        return Err(StreamError::Cut);
    }
    Ok(Some(Message::decode(&bytes)?))
}

async fn read_length<S>(stream: &mut BufReader<S>) -> Result<Option<usize>, StreamError>
where
    S: AsyncRead + Unpin,
{
    let (mut bytes, mut count) = ([0; LENGTH_BYTES_MAX], 0);
    loop {
        let Some(next) = bytes.get_mut(count..=count) else {
            return Err(StreamError::Length);
        };
        if stream.read(next).await? == 0 {
            return match count {
                0 => Ok(None),
                _ => Err(StreamError::Cut),
            };
        }
        count += 1;
        let so_far = bytes.get(..count).unwrap_or_default();
        if so_far.last().is_some_and(|byte| byte & 0x80 == 0) {
            let (length, _) =
                unsigned_varint::decode::usize(so_far).map_err(|_| StreamError::Length)?;
            return Ok(Some(length));
        }
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, StreamError>>) -> Result<T, StreamError> {
    timeout(STEP, step).await.map_err(|_| StreamError::Silent)?
}

/// What is read of a stream at once.
const BUFFER_BYTES: usize = 4 << 10;
/// What is written at once of many things to tell.
const WRITE_BYTES: usize = 32 << 10;
/// Larger messages need room.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// All of that room, in KiB. Four of the largest.
const LARGE_KIB_TOTAL: usize = 4 * (MESSAGE_BYTES_MAX >> 10);
/// Bytes of the varint of a length.
const LENGTH_BYTES_MAX: usize = 4;
/// How long one step of a conversation may take.
const STEP: Duration = Duration::from_secs(10);
/// How long a peer that was told something may take to close its side.
const CLOSE: Duration = Duration::from_secs(2);
/// How long a peer may think of its next question.
const IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::message::Kind;
    use crate::dht::tests::contacts;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    fn pipe() -> (
        impl AsyncRead + AsyncWrite + Unpin,
        impl AsyncRead + AsyncWrite + Unpin,
    ) {
        let (left, right) = tokio::io::duplex(1 << 10);
        (left.compat(), right.compat())
    }

    fn named(key: &[u8]) -> Message {
        Message {
            nearer: contacts(1..=20),
            ..Message::new(Kind::FindNode, key.to_vec())
        }
    }

    #[tokio::test]
    async fn a_question_is_answered_and_what_is_told_is_not() {
        let (near, far) = pipe();
        let room = Room::new();
        let answering = serve(far, &room, async |question| Ok(Some(named(&question.key))));
        let question = Message::new(Kind::FindNode, vec![7; 200]);
        let (answer, served) = tokio::join!(ask(near, &question, &room), answering);
        assert_eq!(answer.unwrap(), named(&[7; 200]));
        served.unwrap();

        let (near, far) = pipe();
        let all = [1, 2, 3].map(|at| Message::new(Kind::AddProvider, vec![at]));
        let mut heard = Vec::new();
        let hearing = serve(far, &room, |told| {
            heard.push(told);
            std::future::ready(Ok(None))
        });
        let (told, served) = tokio::join!(tell(near, &all), hearing);
        told.unwrap();
        served.unwrap();
        assert_eq!(heard, all);
    }

    async fn refused(bytes: &[u8]) -> StreamError {
        let (mut near, far) = pipe();
        let room = Room::new();
        let sending = async {
            // It may be refused before all is written.
            let _ = near.write_all(bytes).await;
            let _ = near.close().await;
        };
        let serving = serve(far, &room, async |question| Ok(Some(question)));
        tokio::join!(sending, serving).1.unwrap_err()
    }

    #[tokio::test]
    async fn what_is_no_message_ends_the_stream() {
        let cut = refused(&[5, 1]).await;
        assert!(matches!(cut, StreamError::Cut), "{cut}");
        let cut = refused(&[0x85]).await;
        assert!(matches!(cut, StreamError::Cut), "{cut}");
        let length = refused(&[0xff; 12]).await;
        assert!(matches!(length, StreamError::Length), "{length}");
        // One byte more than is allowed, of which none need come.
        let large = refused(&[0x81, 0x80, 0x80, 0x02]).await;
        let is_too_large = matches!(large, StreamError::Message(MessageError::TooLarge(size)) if size == MESSAGE_BYTES_MAX + 1);
        assert!(is_too_large, "{large}");
        let kind = refused(&[2, 0x08, 9]).await;
        assert!(
            matches!(kind, StreamError::Message(MessageError::Kind(9))),
            "{kind}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_let_go() {
        let (_near, far) = pipe();
        let room = Room::new();
        let served = serve(far, &room, async |question| Ok(Some(question))).await;
        assert!(matches!(served, Err(StreamError::Silent)));
        let (near, _far) = pipe();
        let asked = ask(near, &Message::new(Kind::Ping, Vec::new()), &room).await;
        assert!(matches!(asked, Err(StreamError::Silent)));
    }
}
