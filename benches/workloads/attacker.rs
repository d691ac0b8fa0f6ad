//! A peer that only takes time and memory: it speaks Bitswap by hand over a stock stack and does one
//! wrong thing for as long as it may, connecting again whenever it is dropped.

use crate::Numbered;
use crate::frame::{framed, put_varint};
use crate::liar::{self, PROTOCOL, put_bytes};
use crate::process::{Talking, child, processor_seconds, with_what_is_left};
use crate::stock::{self, Security, peer};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{Multiaddr, PeerId, Stream};
use libp2p_stream::Control;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::timeout;

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    /// Wants blocks that nobody has, a thousand a message, and never takes one back.
    Wants,
    /// Asks whether such blocks are there.
    Probes,
    /// Wants them and takes them back.
    Cancels,
    /// Opens streams and resets them.
    Streams,
    /// Sends blocks of 1 MiB that nobody asked for.
    Blocks,
    /// Begins messages of 4 MiB and goes on with one byte a second, on many streams.
    Drops,
    /// Asks for all of [`bait`] again and again, and reads one byte a second of what comes.
    Readers,
    /// Says that it has whatever it is asked for, and never sends a block. It attacks who fetches.
    Silent,
    /// Sends what is no message: endless lengths, too large ones, noise, halves, blocks above the limit.
    Malformed,
}

impl Attack {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Wants,
        Self::Probes,
        Self::Cancels,
        Self::Streams,
        Self::Blocks,
        Self::Drops,
        Self::Readers,
        Self::Silent,
        Self::Malformed,
    ];

    /// The row it is measured in.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wants => "wants",
            Self::Probes => "probes",
            Self::Cancels => "cancels",
            Self::Streams => "streams",
            Self::Blocks => "blocks",
            Self::Drops => "drops",
            Self::Readers => "readers",
            Self::Silent => "silent",
            Self::Malformed => "malformed",
        }
    }

    /// Whether it is who fetches that is attacked, not who gives.
    pub fn is_on_who_fetches(self) -> bool {
        self == Self::Silent
    }
}

/// Blocks that a node has to have, so that slow readers can ask for them.
pub fn bait() -> Numbered {
    Numbered::new(BAIT_SEED, BAIT_BLOCK_BYTES)
}

/// Attackers at work, in one process that gets what time the others leave. Ended when dropped.
#[derive(Debug)]
pub struct Attackers(Talking);

impl Attackers {
    /// Lets `count` peers attack the node at `address`; returns once all are connected.
    pub fn start(attack: Attack, address: &str, count: u64) -> Self {
        let given: [&dyn Display; 3] = [&attack.name(), &address, &count];
        let mut command = with_what_is_left(&child(PART, &given));
        let mut process = Talking::start("the attackers", &mut command);
        process.hear("attacking", Duration::from_secs(60));
        Self(process)
    }

    /// Seconds of processor time that they have used.
    pub fn processor_seconds(&self) -> f64 {
        processor_seconds(self.0.id())
    }
}

/// Somebody else to attack: a stock node that takes every stream, reads it to its end and does nothing
/// about it, with what time others leave. So one sees what the attackers cost a machine by being on it.
#[derive(Debug)]
pub struct Sink {
    _process: Talking,
    address: String,
}

impl Sink {
    /// Starts one.
    pub fn start() -> Self {
        let mut process = Talking::start("the sink", &mut with_what_is_left(&child(SINK, &[])));
        let address = process.hear("sinks at", Duration::from_secs(60));
        Self {
            _process: process,
            address,
        }
    }

    /// Where it can be dialled.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// The part of a child that is a [`Sink`].
pub async fn sink() {
    let swarm = stock::swarm(Security::Tls);
    let (address, mut control) = stock::listening(swarm, Ipv4Addr::LOCALHOST).await;
    let mut incoming = control.accept(PROTOCOL).expect("accept");
    println!("sinks at {address}");
    while let Some((_, mut stream)) = incoming.next().await {
        #[expect(
            clippy::disallowed_methods,
            reason = "a bench has no shutdown to take part in"
        )]
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            let _ = stream.close().await; // Reset, perhaps.
        });
    }
}

/// The part of a child that attacks: how, whom, as how many.
pub async fn attack(given: &[String]) {
    let [name, address, count] = given else {
        panic!("an attack, an address and a number: {given:?}");
    };
    let attack = Attack::ALL
        .into_iter()
        .find(|attack| attack.name() == name)
        .expect("an attack");
    let address: Multiaddr = address.parse().expect("an address");
    let count: u64 = count.parse().expect("a number");
    let baits: Vec<Vec<u8>> = match attack {
        Attack::Readers => {
            let blocks = bait().blocks(0..BAIT_BLOCKS);
            blocks.iter().map(|block| block.cid().to_bytes()).collect()
        }
        _ => Vec::new(),
    };
    let mut all = Vec::new();
    for seed in 0..count {
        let control = stock::connected(Security::Tls, address.clone()).await;
        let how = (attack, baits.as_slice());
        all.push(attack_on_and_on(how, address.clone(), control, seed));
    }
    println!("attacking");
    // However it goes, also if nobody ends us.
    let _ = timeout(ATTACK_MAX, futures::future::join_all(all)).await;
}

async fn attack_on_and_on(
    how: (Attack, &[Vec<u8>]),
    address: Multiaddr,
    mut control: Control,
    seed: u64,
) {
    let victim = peer(&address);
    let mut random = StdRng::seed_from_u64(seed);
    take_in(how.0, &control);
    loop {
        if once(how, &mut control, victim, &mut random).await.is_none() {
            match stock::try_connected(Security::Tls, address.clone()).await {
                Ok(again) => {
                    control = again;
                    take_in(how.0, &control);
                }
                // It does not let us in: that is one way to be safe from us. Nothing tells when it would.
                Err(_) => tokio::time::sleep(DIALS_PAUSE).await,
            }
        }
    }
}

/// Deals with the streams of a connection that the other end opens, if that is part of the attack.
fn take_in(attack: Attack, control: &Control) {
    if !matches!(attack, Attack::Readers | Attack::Silent) {
        return;
    }
    let mut control = control.clone();
    let Ok(mut incoming) = control.accept(PROTOCOL) else {
        return;
    };
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench has no shutdown to take part in"
    )]
    tokio::spawn(async move {
        while let Some((peer, mut stream)) = incoming.next().await {
            let control = control.clone();
            tokio::spawn(async move {
                if attack == Attack::Silent {
                    liar::promise(control, peer, stream).await;
                    return;
                }
                while stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {
                    tokio::time::sleep(DRIP_EVERY).await;
                }
            });
        }
    });
}

/// `None` if the other end had enough.
async fn once(
    (attack, baits): (Attack, &[Vec<u8>]),
    control: &mut Control,
    victim: PeerId,
    random: &mut StdRng,
) -> Option<()> {
    let mut stream = control.open_stream(victim, PROTOCOL).await.ok()?;
    match attack {
        Attack::Streams => {
            drop(stream);
            return Some(());
        }
        Attack::Drops => {
            let mut streams = vec![stream];
            while streams.len() < DROPPING_STREAMS {
                streams.push(control.open_stream(victim, PROTOCOL).await.ok()?);
            }
            let mut begun = Vec::new();
            put_varint(&mut begun, 4 << 20);
            begun.resize(begun.len() + BEGUN_BYTES, 0);
            for stream in &mut streams {
                send(stream, &begun).await?;
            }
            loop {
                for stream in &mut streams {
                    send(stream, &[0]).await?;
                }
                tokio::time::sleep(DRIP_EVERY).await;
            }
        }
        Attack::Readers => loop {
            send_framed(&mut stream, &wanted(baits)).await?;
            tokio::time::sleep(DRIP_EVERY).await;
        },
        Attack::Silent => {
            // Others ask; this only finds out when they are gone.
            stream.close().await.ok()?;
            while stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {}
            tokio::time::sleep(DRIP_EVERY).await;
        }
        Attack::Malformed => {
            // A stream that is reset is as good as any: the connection is what counts.
            let _ = send(&mut stream, &malformed(random)).await;
            let _ = stream.close().await;
            let _ = stream.read(&mut [0]).await;
        }
        Attack::Wants | Attack::Probes | Attack::Cancels | Attack::Blocks => {
            for _ in 0..MESSAGES_A_STREAM {
                let message = match attack {
                    Attack::Blocks => block(random, 1 << 20),
                    _ => wants(attack, random),
                };
                send_framed(&mut stream, &message).await?;
            }
            // Until it is read, as far as one can tell.
            stream.close().await.ok()?;
            let _ = stream.read(&mut [0]).await; // It ends or it was reset: both are an end.
        }
    }
    Some(())
}

async fn send_framed(stream: &mut Stream, message: &[u8]) -> Option<()> {
    send(stream, &framed(message)).await
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> Option<()> {
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()
}

fn any_cid(random: &mut StdRng) -> Vec<u8> {
    let mut cid = vec![1, 0x55, 0x12, 32];
    cid.resize(cid.len() + 32, 0);
    let (_, digest) = cid.split_at_mut(4);
    random.fill_bytes(digest);
    cid
}

fn wants(attack: Attack, random: &mut StdRng) -> Vec<u8> {
    let mut list = Vec::new();
    let mut put = |cid: &[u8], cancel: bool| {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, cid);
        let flags = [(3, cancel), (4, attack == Attack::Probes), (5, !cancel)];
        for (number, _) in flags.into_iter().filter(|(_, set)| *set) {
            put_varint(&mut entry, number << 3);
            put_varint(&mut entry, 1);
        }
        put_bytes(&mut list, 1, &entry);
    };
    for _ in 0..LINES_A_MESSAGE {
        let cid = any_cid(random);
        put(&cid, false);
        if attack == Attack::Cancels {
            put(&cid, true);
        }
    }
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &list);
    message
}

/// Wants all of these, as blocks.
fn wanted(cids: &[Vec<u8>]) -> Vec<u8> {
    let mut list = Vec::new();
    for cid in cids {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, cid);
        put_bytes(&mut list, 1, &entry);
    }
    let mut message = Vec::new();
    put_bytes(&mut message, 1, &list);
    message
}

/// Some of what is no message, or no good one, as it goes onto a stream.
fn malformed(random: &mut StdRng) -> Vec<u8> {
    match random.next_u32() % 6 {
        // A length without an end.
        0 => vec![0xff; 16],
        // One byte more than a message may have.
        1 => {
            let mut begun = Vec::new();
            put_varint(&mut begun, (4 << 20) + 1);
            begun
        }
        2 => {
            let mut noise = vec![0; 4 << 10];
            random.fill_bytes(&mut noise);
            framed(&noise)
        }
        // The stream ends in the middle of it.
        3 => {
            let mut half = framed(&wanted(&[any_cid(random), any_cid(random)]));
            half.truncate(half.len() / 2);
            half
        }
        // One byte more than a block may have.
        4 => framed(&block(random, (2 << 20) + 1)),
        // A name that is far too long.
        _ => framed(&wanted(&[[1, 0x55, 0x12, 0xa4, 1]
            .into_iter()
            .chain([9; 163])
            .collect()])),
    }
}

fn block(random: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; bytes];
    random.fill_bytes(&mut bytes);
    let (mut block, mut message) = (Vec::new(), Vec::new());
    put_bytes(&mut block, 1, &[1, 0x55, 0x12, 32]);
    put_bytes(&mut block, 2, &bytes);
    put_bytes(&mut message, 3, &block);
    message
}

/// The part that [`attack`] plays.
pub const PART: &str = "attack";
/// The part that [`sink`] plays.
pub const SINK: &str = "sink";
/// No attack lasts longer, whoever forgot to end it.
const ATTACK_MAX: Duration = Duration::from_secs(180);
/// What makes it slow: the pause between two bytes of one stream.
const DRIP_EVERY: Duration = Duration::from_secs(1);
/// Sent of a message before it drips: so much that room is kept for all of it.
const BEGUN_BYTES: usize = 65 << 10;
/// From a dial that was refused to the next.
const DIALS_PAUSE: Duration = Duration::from_millis(100);
/// How many of [`bait`] there have to be.
pub const BAIT_BLOCKS: u64 = 64;
const BAIT_BLOCK_BYTES: usize = 1 << 20;
const BAIT_SEED: u64 = 9;
const LINES_A_MESSAGE: usize = 1000;
const MESSAGES_A_STREAM: usize = 16;
const DROPPING_STREAMS: usize = 64;
