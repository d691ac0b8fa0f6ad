//! A service on loopback that answers whatever a test tells it to.

use super::Endpoint;
use crate::tasks::Tasks;
use cairn_store::cid;
use cairn_store::{Block, Cid};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// What it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) accept: String,
    pub(crate) only_if_cached: bool,
    /// What is sent with it, and of which media type.
    pub(crate) body: Vec<u8>,
    pub(crate) kind: String,
}

impl Question {
    pub(crate) fn cid(&self) -> Cid {
        assert!(self.accept.starts_with("application/vnd.ipld."), "{self:?}");
        let (path, _) = self.target.split_once("?format=").unwrap();
        cid::parse(path.strip_prefix("/ipfs/").unwrap()).unwrap()
    }

    pub(crate) fn is_car(&self) -> bool {
        self.target.ends_with("?format=car&dag-scope=all")
    }
}

/// What it answers.
pub(crate) enum Answer {
    /// These bytes, and the connection stays.
    Whole(Vec<u8>),
    /// These bytes, and the connection ends.
    Cut(Vec<u8>),
    /// These bytes, then one of the others after the other, slowly and without an end.
    Drip(Vec<u8>),
    /// Nothing, ever.
    Nothing,
}

impl Answer {
    pub(crate) fn block(data: &[u8]) -> Self {
        let head = format!("content-length: {}", data.len());
        Self::Whole(raw(&head, data))
    }

    pub(crate) fn status(line: &str) -> Self {
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n");
        Self::Whole(answer.into_bytes())
    }
}

/// A service of a test.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<Question>>>,
    pub(crate) connections: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Gateway {
    pub(crate) async fn start(
        answer: impl Fn(&Question) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = Self {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::default(),
            tasks: Tasks::new(),
        };
        let (asked, connections) = (Arc::clone(&gateway.asked), Arc::clone(&gateway.connections));
        let (answer, tasks) = (Arc::new(answer), gateway.tasks.clone());
        gateway.tasks.spawn("gateway", async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                tasks.spawn("gateway connection", async move {
                    // Whoever asks may hang up at any time.
                    drop(serve(stream, &*answer, &asked).await);
                });
            }
        });
        gateway
    }

    /// One that has these blocks.
    pub(crate) async fn of(blocks: &[Block]) -> Self {
        let blocks = blocks.to_vec();
        Self::start(move |question| {
            let found = blocks.iter().find(|block| *block.cid() == question.cid());
            match found {
                Some(block) => Answer::block(block.data()),
                None => Answer::status("404 Not Found"),
            }
        })
        .await
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers over one connection.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    answer: &(dyn Fn(&Question) -> Answer + Send + Sync),
    asked: &Mutex<Vec<Question>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_until(b'\n', &mut head).await? == 0 {
                return Ok(());
            }
        }
        let head = String::from_utf8(head).unwrap();
        let lines = head.to_lowercase();
        let header = |name: &str| {
            let mut values = lines.lines().filter_map(|line| line.strip_prefix(name));
            values.next().unwrap_or_default().to_owned()
        };
        let length = header("content-length: ").parse().unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let question = Question {
            method: head.split(' ').next().unwrap().to_owned(),
            target: head.split(' ').nth(1).unwrap().to_owned(),
            accept: header("accept: "),
            only_if_cached: lines.contains("cache-control: only-if-cached"),
            body,
            kind: header("content-type: "),
        };
        let answer = answer(&question);
        asked.lock().unwrap().push(question);
        match answer {
            Answer::Whole(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
            }
            Answer::Cut(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Answer::Drip(bytes) => {
                stream.write_all(&bytes).await?;
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(DRIP_EVERY).await;
                }
            }
            Answer::Nothing => std::future::pending().await,
        }
    }
}

/// A whole answer.
pub(crate) fn raw(head: &str, body: &[u8]) -> Vec<u8> {
    [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), b"\r\n\r\n", body].concat()
}

/// Too slow as a whole, though no single pause is too long.
const DRIP_EVERY: Duration = Duration::from_millis(5);
