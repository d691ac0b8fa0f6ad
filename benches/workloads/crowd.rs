//! Very many connections from one address, of which none becomes anything, and an honest peer at another that connects
//! meanwhile.
//!
//! The crowd is a process of its own. It opens as many TCP connections as it is told, says nothing on a third of them, half a
//! greeting on another and the beginning of a handshake on the rest, keeps them until the other end closes them, and ends by
//! itself in time.

use crate::process::{Talking, child, open_files, with_what_is_left};
use crate::stock::{self, Security};
use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// The crowd at work. Ended when dropped.
#[derive(Debug)]
pub struct Crowd(Talking);

/// How many connections were opened, and how many were not.
#[derive(Debug, Clone, Copy)]
pub struct Stands {
    /// Those for which the system of the other end took a call.
    pub opened: u64,
    /// The rest.
    pub failed: u64,
}

impl Crowd {
    /// Lets `count` connections be opened to an address, from [`HERE`]. Returns at once.
    pub fn start(address: &str, count: u64) -> Self {
        let given: [&dyn Display; 2] = [&address, &count];
        Self(Talking::start(
            "the crowd",
            &mut with_what_is_left(&child(PART, &given)),
        ))
    }

    /// Whether all are there.
    pub fn stands(&mut self) -> Option<Stands> {
        let line = self.0.may_hear("stands", Duration::from_millis(1))?;
        let (opened, failed) = line.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        Some(Stands {
            opened: number(opened),
            failed: number(failed),
        })
    }
}

/// The part of a child that is the crowd: to where, and how many.
pub async fn stand(given: &[String]) {
    let [address, count] = given else {
        panic!("an address and a number: {given:?}");
    };
    let count: u64 = count.parse().expect("a number");
    open_files(count + FILES_MORE);
    let to = socket(&address.parse().expect("an address"));
    let (mut all, mut failed) = (Vec::new(), 0);
    let mut calls = futures::stream::iter(0..count)
        .map(|number| call(to, number))
        .buffer_unordered(CALLS_AT_ONCE);
    while let Some(called) = calls.next().await {
        match called {
            Some(stream) => all.push(stream),
            None => failed += 1,
        }
    }
    println!("stands {} {failed}", all.len());
    tokio::time::sleep(STAND_MAX).await;
    drop(all);
}

async fn call(to: SocketAddr, number: u64) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    let from = SocketAddr::from((HERE, 0));
    socket.bind(from).ok()?;
    let connected = timeout(CALL_MAX, socket.connect(to)).await;
    let mut stream = connected.ok()?.ok()?;
    let said: &[u8] = match number % 3 {
        0 => &[],
        1 => b"\x13/multistr",
        _ => b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n\x16\x03\x01\x02\x00",
    };
    // It may have been refused already.
    drop(stream.write_all(said).await);
    Some(stream)
}

/// Seconds that a new peer, which calls from loopback's usual address, takes to be connected to a node, which knows then who it is; `None` if it is not.
pub async fn connect(address: &Multiaddr) -> Option<f64> {
    let mut swarm = stock::swarm(Security::Tls);
    let start = Instant::now();
    swarm.dial(address.clone()).ok()?;
    let connected = async {
        loop {
            match swarm.next().await {
                Some(SwarmEvent::ConnectionEstablished { .. }) => return true,
                Some(SwarmEvent::OutgoingConnectionError { .. }) | None => return false,
                Some(_) => {}
            }
        }
    };
    let is_connected = timeout(CONNECT_MAX, connected).await.unwrap_or(false);
    is_connected.then(|| start.elapsed().as_secs_f64())
}

fn socket(address: &Multiaddr) -> SocketAddr {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port))) => SocketAddr::from((ip, port)),
        _ => panic!("no IPv4 and TCP: {address}"),
    }
}

/// The part that [`stand`] plays.
pub const PART: &str = "crowd";
/// Where the crowd calls from.
pub const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections that are opened at once.
const CALLS_AT_ONCE: usize = 256;
/// How long the system may take for one.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Files that a process needs besides.
pub const FILES_MORE: u64 = 1000;
/// How long the honest peer waits.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// How long the crowd stands if nobody ends it.
const STAND_MAX: Duration = Duration::from_secs(600);
