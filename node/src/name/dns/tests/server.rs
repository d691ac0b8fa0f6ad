//! A name server on loopback that says whatever a test tells it to, byte for byte.

use crate::name::dns::{Resolvers, Server};
use crate::tasks::Tasks;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// How a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// A question, as it was heard.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) over: Over,
    bytes: Vec<u8>,
}

/// What it says, one message after the other.
type Say = dyn Fn(&Question) -> Vec<Vec<u8>> + Send + Sync;

/// A name server of a test.
pub(super) struct Heard {
    pub(super) at: SocketAddr,
    asked: Arc<Mutex<Vec<Question>>>,
    tasks: Tasks,
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Heard {
    pub(super) async fn start(
        say: impl Fn(&Question) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = both().await;
        let server = Self {
            at: udp.local_addr().unwrap(),
            asked: Arc::default(),
            tasks: Tasks::new(),
        };
        let say: Arc<Say> = Arc::new(say);
        let (asked, say_there) = (Arc::clone(&server.asked), Arc::clone(&say));
        server.tasks.spawn("datagrams", async move {
            let mut room = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut room).await {
                let question = Question::read(&room[..length], Over::Udp);
                asked.lock().unwrap().push(question.clone());
                for message in say_there(&question) {
                    drop(udp.send_to(&message, from).await);
                }
            }
        });
        let asked = Arc::clone(&server.asked);
        server.tasks.spawn("connections", async move {
            while let Ok((stream, _)) = tcp.accept().await {
                drop(serve(stream, &asked, &say).await);
            }
        });
        server
    }

    /// How often it was asked.
    pub(super) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    pub(super) fn questions(&self) -> Vec<Question> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn resolvers(&self) -> Resolvers {
        Resolvers::from_iter([(".".parse().unwrap(), Server::Udp(self.at))])
    }
}

/// One port for both.
async fn both() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: &Mutex<Vec<Question>>,
    say: &Arc<Say>,
) -> std::io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await?;
        let question = Question::read(&bytes, Over::Tcp);
        asked.lock().unwrap().push(question.clone());
        for message in say(&question) {
            stream.write_u16(message.len().try_into().unwrap()).await?;
            stream.write_all(&message).await?;
        }
    }
}

impl Question {
    pub(super) fn read(bytes: &[u8], over: Over) -> Self {
        let (mut at, mut name) = (12, String::new());
        while bytes[at] != 0 {
            let end = at + 1 + usize::from(bytes[at]);
            name.push_str(str::from_utf8(&bytes[at + 1..end]).unwrap());
            name.push('.');
            at = end;
        }
        Self {
            name,
            over,
            bytes: bytes[..at + 5].to_vec(),
        }
    }

    /// A message that answers it with so many answers, whose bytes they are.
    pub(super) fn answer(&self, flags: u16, answers: &[Vec<u8>]) -> Vec<u8> {
        let mut message = self.bytes[..2].to_vec();
        message.extend((0x8180 | flags).to_be_bytes());
        message.extend(1_u16.to_be_bytes());
        message.extend(u16::try_from(answers.len()).unwrap().to_be_bytes());
        message.extend([0; 4]);
        message.extend(&self.bytes[12..]);
        message.extend(answers.concat());
        message
    }

    /// The same under another number.
    pub(super) fn with_other_number(&self, mut message: Vec<u8>) -> Vec<u8> {
        message[0] ^= 0x55;
        message
    }

    /// A message with these texts.
    pub(super) fn texts(&self, texts: &[&str]) -> Vec<u8> {
        let records: Vec<Vec<u8>> = texts.iter().map(|one| text(HERE, 300, &[one])).collect();
        self.answer(0, &records)
    }
}

/// The name that was asked for, as a pointer to it.
pub(super) const HERE: &[u8] = &[0xc0, 0x0c];
/// A message that is cut off, and codes of errors.
pub(super) const CUT: u16 = 0x0200;
pub(super) const SERVFAIL: u16 = 2;
pub(super) const NXDOMAIN: u16 = 3;

/// A TXT record of so many strings.
pub(super) fn text(owner: &[u8], ttl: u32, strings: &[&str]) -> Vec<u8> {
    let one = |text: &&str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let data: Vec<u8> = strings.iter().flat_map(one).collect();
    record(owner, 16, ttl, &data)
}

/// A CNAME record.
pub(super) fn alias(owner: &[u8], ttl: u32, to: &str) -> Vec<u8> {
    record(owner, 5, ttl, &name(to))
}

pub(super) fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A name as it stands in a message.
pub(super) fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len().try_into().unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
