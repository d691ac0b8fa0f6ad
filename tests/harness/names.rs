//! A name server on loopback, over UDP and TCP: TXT records by name, and what it was asked for.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// A running one.
#[derive(Debug, Clone)]
pub struct Names {
    /// Where it listens.
    pub at: SocketAddr,
    texts: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Names {
    /// On a port that the system chooses.
    pub fn start() -> Self {
        Self::at("127.0.0.1:0").expect("a free port")
    }

    /// At this address.
    pub fn at(address: &str) -> std::io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        let at = socket.local_addr()?;
        let names = Self {
            at,
            texts: Arc::default(),
            asked: Arc::default(),
        };
        // Somebody may have that port; then there is nothing over TCP.
        if let Ok(listener) = TcpListener::bind(at) {
            let answering = names.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let answering = answering.clone();
                    thread::spawn(move || answering.serve(stream));
                }
            });
        }
        let answering = names.clone();
        thread::spawn(move || {
            let mut room = [0; 4096];
            while let Ok((length, from)) = socket.recv_from(&mut room) {
                let question = &room[..length];
                let mut answer = answering.answer(question);
                if answer.len() > UDP_BYTES_MAX {
                    answer = headed(question, CUT, 0);
                }
                drop(socket.send_to(&answer, from));
            }
        });
        Ok(names)
    }

    /// The DNSLink of a domain from now on.
    pub fn link(&self, domain: &str, path: &str) {
        self.texts(domain, vec![format!("dnslink={path}")]);
    }

    /// All that stands at `_dnslink` of a domain from now on.
    pub fn texts(&self, domain: &str, texts: Vec<String>) {
        let mut known = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(format!("_dnslink.{domain}."), texts);
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.asked().len()
    }

    /// The names that it was asked for.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                return;
            }
            let mut answer = self.answer(&question);
            if answer.len() > usize::from(u16::MAX) {
                answer = headed(&question, CUT, 0);
            }
            let length = u16::try_from(answer.len()).unwrap_or_default();
            let _ = stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat());
        }
    }

    fn answer(&self, question: &[u8]) -> Vec<u8> {
        let (mut at, mut name) = (12, String::new());
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push_str(&String::from_utf8_lossy(&question[at + 1..end]));
            name.push('.');
            at = end;
        }
        let texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = texts.get(&name).cloned();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(name);
        drop(asked);
        // No such name, or its records.
        let flags = texts.as_ref().map_or(NO_NAME, |_| FOUND);
        let texts = texts.unwrap_or_default();
        let mut answer = headed(question, flags, texts.len());
        for text in texts {
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 1, 44]);
            let pieces = text.as_bytes().chunks(255);
            let length = u16::try_from(text.len() + pieces.len()).expect("a record's length");
            answer.extend(length.to_be_bytes());
            for piece in pieces {
                answer.push(u8::try_from(piece.len()).unwrap_or_default());
                answer.extend(piece);
            }
        }
        answer
    }
}

/// The beginning of an answer, with the question in it.
fn headed(question: &[u8], flags: u16, answers: usize) -> Vec<u8> {
    let labels = question[12..].iter().position(|byte| *byte == 0);
    let end = 12 + labels.expect("a name's end") + 5;
    let mut answer = question[..2].to_vec();
    answer.extend(flags.to_be_bytes());
    answer.extend([0, 1]);
    answer.extend(u16::try_from(answers).unwrap_or(u16::MAX).to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(&question[12..end]);
    answer
}

const FOUND: u16 = 0x8180;
const NO_NAME: u16 = 0x8183;
/// More of it is to be had over TCP.
const CUT: u16 = 0x8380;
/// What an answer over UDP may have.
const UDP_BYTES_MAX: usize = 1232;
