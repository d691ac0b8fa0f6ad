//! A long way, simulated: a TCP relay that hands every byte on half a round trip later.
//!
//! The kernel here has no `netem`. The relay reads whatever comes at once, so that neither end's
//! socket is what slows it down, and holds up to `HELD_BYTES_MAX` each way: more than any rate
//! measured here fills in that time.

use crate::process::{Talking, child};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// A relay in a process of its own.
#[derive(Debug)]
pub struct Relay {
    process: Talking,
    address: SocketAddr,
}

impl Relay {
    /// A way to `target`, so long there and back.
    pub fn to(target: SocketAddr, round_trip: Duration) -> Self {
        let given = (target, round_trip.as_micros());
        let mut process = Talking::start("the relay", &mut child(PART, &[&given.0, &given.1]));
        let address = process.hear("relays", Duration::from_secs(10));
        Self {
            process,
            address: address.parse().expect("an address"),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that came back from the target so far.
    pub fn carried(&mut self) -> u64 {
        self.process.tell("carried");
        let carried = self.process.hear("carried", Duration::from_secs(10));
        carried.parse().expect("a number")
    }
}

/// The part of a child that relays to the first argument, with the second as microseconds of a
/// round trip.
pub async fn relay(given: &[String]) {
    let [target, round_trip] = given else {
        panic!("a target and a time: {given:?}");
    };
    let target: SocketAddr = target.parse().expect("an address");
    let way = Duration::from_micros(round_trip.parse().expect("microseconds")) / 2;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    println!("relays {}", listener.local_addr().expect("bound"));
    let carried = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&carried);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lines().map_while(Result::ok) {
            println!("carried {}", count.load(Ordering::Relaxed));
        }
        std::process::exit(0); // The bench is gone.
    });
    loop {
        let (near, _) = listener.accept().await.expect("accept");
        let far = TcpStream::connect(target).await.expect("connect");
        for socket in [&near, &far] {
            socket.set_nodelay(true).expect("no delay");
        }
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench has no shutdown to take part in"
        )]
        {
            tokio::spawn(one_way(near_in, far_out, way, Arc::default()));
            tokio::spawn(one_way(far_in, near_out, way, Arc::clone(&carried)));
        }
    }
}

async fn one_way(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    way: Duration,
    carried: Arc<AtomicU64>,
) {
    let room = Arc::new(Semaphore::new(HELD_BYTES_MAX));
    let (ahead, mut due) = mpsc::channel(HELD_CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES);
            match from.read_buf(&mut chunk).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let arrives = Instant::now() + way;
            let bytes = u32::try_from(chunk.len()).expect("a chunk");
            let held = Arc::clone(&room).acquire_many_owned(bytes).await;
            if ahead.send((arrives, chunk, held)).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((arrives, chunk, _held)) = due.recv().await {
            // The timer knows milliseconds: what is due within this one goes with it.
            if arrives > Instant::now() {
                tokio::time::sleep_until(arrives).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
            carried.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        drop(to.shutdown().await);
    };
    tokio::join!(read, write);
}

/// The part that [`relay`] plays.
pub const PART: &str = "relay";
/// Bytes under way in one direction: 1 GB/s over 200 ms is 100 MB each way.
const HELD_BYTES_MAX: usize = 256 << 20;
const HELD_CHUNKS_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 128 << 10;
