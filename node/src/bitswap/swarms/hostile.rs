//! Peers that mean ill, each against a real node, while an honest neighbour gets and gives.
//!
//! A [`Hostile`] is a swarm whose Bitswap streams are ours to write on, byte by byte. Every test
//! asks the same: nobody panics, the neighbour is served and the node gets what it wants, what is
//! kept for the attacker has its bound and is gone with it, and a figure tells of the attack.

use super::*;
use crate::bitswap::behaviour::{KeepAlive, Notice, Order};
use crate::bitswap::engine::{ENVELOPE_BYTES_TARGET, OUTSTANDING_BYTES_MAX, WANTS_PER_PEER_MAX};
use crate::bitswap::message::{
    Absence, Change, Entry, MESSAGE_BYTES_MAX, MESSAGE_WANTS_MAX, Message, Payload, Presence,
    PresenceKind, Scope, WantKind, prefix_of,
};
use crate::bitswap::seeds;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::Stream;
use std::ops::Range;
use tokio_util::sync::CancellationToken;

mod floods;

/// A peer that says what the test likes.
struct Hostile {
    victim: PeerId,
    orders: mpsc::Sender<Order>,
    /// What the victim says, if that is listened to.
    heard: mpsc::Receiver<Message>,
    /// Cancelled when the victim hangs up.
    gone: CancellationToken,
    tasks: Tasks,
}

/// Whether a peer reads what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ears {
    Open,
    Shut,
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.tasks.stopping().cancel();
    }
}

impl Hostile {
    async fn at(victim: &Node) -> Self {
        Self::with(victim, Ears::Open).await
    }

    async fn with(victim: &Node, ears: Ears) -> Self {
        let (behaviour, mut wire) = behaviour::pair(&[Version::V1_2]);
        let mut swarm = swarm_of(behaviour);
        let me = *swarm.local_peer_id();
        swarm.dial(victim.address.clone()).unwrap();
        let (tasks, gone) = (Tasks::new(), CancellationToken::new());
        let stopping = tasks.stopping();
        tasks.spawn("hostile swarm", async move {
            let drive = async {
                loop {
                    swarm.select_next_some().await;
                }
            };
            let _: Option<()> = stopping.run_until_cancelled_owned(drive).await;
        });
        let first = wire.notices.recv().await;
        assert!(matches!(first, Some(Notice::Connected(..))), "{first:?}");
        let stay = Order::KeepAlive(victim.id, KeepAlive::Yes);
        wire.orders.send(stay).await.unwrap();
        while !victim.bitswap.stat().await.peers.contains(&me) {
            tokio::task::yield_now().await;
        }
        let (said, heard) = mpsc::channel(64);
        let listen = listen(wire.notices, said, ears, tasks.clone(), gone.clone());
        let stopping = tasks.stopping();
        tasks.spawn("hostile ears", async move {
            stopping.run_until_cancelled_owned(listen).await;
        });
        Self {
            victim: victim.id,
            orders: wire.orders,
            heard,
            gone,
            tasks,
        }
    }

    /// A new stream, or `None` when the victim has hung up.
    async fn open(&self) -> Option<Stream> {
        let (reply, answer) = oneshot::channel();
        let open = Order::Open(self.victim, reply);
        self.orders.send(open).await.ok()?;
        Some(answer.await.ok()?.ok()?.1)
    }

    /// Writes on a stream of its own and ends it; false when the victim has hung up.
    async fn says(&self, bytes: &[u8]) -> bool {
        let Some(mut stream) = self.open().await else {
            return false;
        };
        stream.write_all(bytes).await.is_ok() && stream.close().await.is_ok()
    }

    /// Waits until the victim hangs up.
    async fn is_dropped(&self) {
        let over = self.gone.cancelled();
        tokio::time::timeout(PATIENCE, over).await.unwrap();
    }

    /// The next message that the victim sends.
    async fn hears(&mut self) -> Message {
        let message = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        message.unwrap().expect("a connection")
    }

    /// What the victim wants next.
    async fn hears_wants(&mut self) -> Vec<Cid> {
        loop {
            let wants = self.hears().await.wants.into_iter();
            let wants: Vec<Cid> = wants
                .filter(|entry| entry.change != Change::Cancel)
                .map(|entry| entry.cid)
                .collect();
            if !wants.is_empty() {
                return wants;
            }
        }
    }
}

async fn listen(
    mut notices: mpsc::Receiver<Notice>,
    said: mpsc::Sender<Message>,
    ears: Ears,
    tasks: Tasks,
    gone: CancellationToken,
) {
    let mut unread = Vec::new();
    loop {
        match notices.recv().await {
            Some(Notice::Stream(_, _, mut stream)) => match ears {
                Ears::Shut => unread.push(stream),
                Ears::Open => {
                    let (said, stopping) = (said.clone(), tasks.stopping());
                    tasks.spawn("hostile reader", async move {
                        let read = async {
                            while let Some(message) = next_message(&mut stream).await {
                                drop(said.send(message).await);
                            }
                        };
                        stopping.run_until_cancelled_owned(read).await;
                    });
                }
            },
            None | Some(Notice::Disconnected(..)) => return gone.cancel(),
            Some(Notice::Connected(..)) => {}
        }
    }
}

async fn next_message(stream: &mut Stream) -> Option<Message> {
    let (mut length, mut at) = (0_usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.ok()?;
        length |= usize::from(byte[0] & 0x7f) << (7 * at);
        at += 1;
        if byte[0] < 0x80 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Message::decode(&Bytes::from(body)).unwrap())
}

/// A frame that holds anything.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut buffer = unsigned_varint::encode::usize_buffer();
    [
        unsigned_varint::encode::usize(body.len(), &mut buffer),
        body,
    ]
    .concat()
}

fn written(message: &Message) -> Vec<u8> {
    message.encode(Version::V1_2).concat()
}

fn lines(numbers: Range<u64>, change: Change) -> Vec<u8> {
    let wants = numbers.map(|number| Entry {
        cid: seeds::raw(number),
        change,
    });
    written(&Message {
        wants: wants.collect(),
        ..Message::default()
    })
}

fn blocks_of(data: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let payload = |data| Payload {
        prefix: prefix_of(&seeds::raw(0)).unwrap(),
        data: Bytes::from(data),
    };
    written(&Message {
        blocks: data.map(payload).collect(),
        ..Message::default()
    })
}

fn want(kind: WantKind) -> Change {
    Change::Want {
        priority: 1,
        kind,
        absence: Absence::Tell,
    }
}

/// A field of bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &framed(bytes)[..]].concat()
}

/// A node, and an honest neighbour of it: each has what the other wants.
struct Scene {
    victim: Node,
    neighbour: Node,
    kept: Map,
    given: Vec<Block>,
    taken: Vec<Block>,
}

impl Scene {
    async fn new() -> Self {
        let (given, taken) = (made(200, 50_000, RAW), made(100, 20_000, V0));
        let kept = Map::of(&given);
        let victim = Node::start(kept.clone(), &Version::ALL, vec![]).await;
        let neighbour = Node::start(Map::of(&taken), &Version::ALL, vec![]).await;
        neighbour.connect(&victim).await;
        Self {
            victim,
            neighbour,
            kept,
            given,
            taken,
        }
    }

    /// What honest nodes do meanwhile, to its end.
    async fn work(&self) {
        tokio::join!(
            self.neighbour.fetch(&self.given),
            self.victim.fetch(&self.taken)
        );
    }

    /// The attack and honest work at the same time, both to their ends.
    async fn goes_on_during(&self, attack: impl Future<Output = ()>) {
        let attack = async { tokio::time::timeout(PATIENCE, attack).await.unwrap() };
        tokio::join!(attack, self.work());
        self.is_sound();
    }

    /// Runs while the victim wants what nobody has.
    async fn wanting<T>(&self, absent: u64, attack: impl Future<Output = T>) -> T {
        let (work, cid) = (self.victim.bitswap.work(PATIENCE), seeds::raw(absent));
        tokio::select! {
            got = self.victim.bitswap.fetch(&work, &cid) => panic!("{got:?}"),
            done = attack => done,
        }
    }

    fn is_sound(&self) {
        assert_eq!(self.victim.tasks.panics(), 0);
        let blocks = self.kept.blocks.lock().unwrap();
        let (own, fetched) = (self.given.len(), self.taken.len());
        assert!(
            (own..=own + fetched).contains(&blocks.len()),
            "something else is stored"
        );
    }

    /// One of the victim's figures; nothing where there is none of that name.
    fn figure(&self, name: &str) -> f64 {
        let name = format!("cairn_bitswap_{name}");
        let families = self.victim.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let Some(family) = family else {
            return 0.0;
        };
        let metric = &family.get_metric()[0];
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let wait = async {
            while !what(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("in time");
    }

    /// Whoever has left has left nothing.
    async fn nothing_is_kept(&self) {
        self.until(|scene| {
            scene.figure("wants_kept") == 0.0 && scene.figure("outstanding_bytes") == 0.0
        })
        .await;
        self.is_sound();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_nonsense_again_and_again_is_left() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let nonsense: [&[u8]; 5] = [
        &[0x07],             // no such wire type
        &[0x0b, 0x0c],       // a group
        &[0x0a, 0x7f],       // a list that ends beyond the message
        &[0xff; 11],         // a varint without an end
        &[0x0a, 2, 0x0a, 9], // an entry that ends beyond its list
    ];
    scene
        .goes_on_during(async {
            let mut turns = nonsense.iter().cycle();
            while hostile.says(&framed(turns.next().unwrap())).await {}
            hostile.is_dropped().await;
        })
        .await;
    assert!(scene.figure("bad_messages_received_total") >= 16.0);
    assert_eq!(scene.figure("peers_dropped_total"), 1.0);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_beyond_the_limit_end_their_streams_and_nothing_else() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let mut buffer = unsigned_varint::encode::u64_buffer();
    let mut lengths = vec![vec![0xff; 10], vec![0x80; 30], vec![0x81, 0x00]];
    for length in [
        MESSAGE_BYTES_MAX as u64 + 1,
        1 << 30,
        1 << 31,
        1 << 32,
        1 << 63,
        u64::MAX,
    ] {
        lengths.push(unsigned_varint::encode::u64(length, &mut buffer).to_vec());
    }
    let count = lengths.len();
    scene
        .goes_on_during(async {
            for length in lengths {
                let mut stream = hostile.open().await.unwrap();
                stream.write_all(&length).await.unwrap();
                stream.flush().await.unwrap();
                // Reset or ended, before anything of what was announced was sent.
                let end = stream.read(&mut [0]).await;
                assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
            }
        })
        .await;
    assert_eq!(scene.figure("bad_messages_received_total"), count as f64);
    // A message of exactly the limit is read. It holds a field that nobody knows.
    let filler = vec![7; MESSAGE_BYTES_MAX - 5];
    let whole = framed(&field(15, &filler));
    assert_eq!(whole.len(), MESSAGE_BYTES_MAX + 4);
    let before = scene.figure("messages_received_total");
    assert!(hostile.says(&whole).await);
    scene
        .until(|scene| scene.figure("messages_received_total") > before)
        .await;
    assert_eq!(scene.figure("peers_dropped_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_cut_anywhere_are_counted_and_cost_their_stream_only() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let whole = lines(0..3, want(WantKind::Block));
    scene
        .goes_on_during(async {
            for cut in 1..whole.len() {
                assert!(hostile.says(&whole[..cut]).await);
            }
        })
        .await;
    let cuts = whole.len() as f64 - 1.0;
    scene
        .until(|scene| scene.figure("abandoned_messages_received_total") == cuts)
        .await;
    assert_eq!(scene.figure("peers_dropped_total"), 0.0);
    assert!(hostile.says(&whole).await);
    scene.until(|scene| scene.figure("wants_kept") == 3.0).await;
    drop(hostile);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_over_the_limit_is_not_taken_whoever_waits_for_it() {
    let scene = Scene::new().await;
    let mut hostile = Hostile::at(&scene.victim).await;
    let data = vec![9; BLOCK_BYTES_MAX + 1];
    let prefix = prefix_of(&seeds::raw(0)).unwrap();
    let cid = prefix.name_of(&data).unwrap();
    let work = scene.victim.bitswap.work(PATIENCE);
    let waits = scene.victim.bitswap.fetch(&work, &cid);
    let attack = async {
        while !hostile.hears_wants().await.contains(&cid) {}
        assert!(hostile.says(&blocks_of(std::iter::once(data))).await);
        scene
            .until(|scene| scene.figure("too_large_blocks_received_total") == 1.0)
            .await;
    };
    // Nobody has a smaller one: whoever waits is told at once.
    let (refused, ()) = tokio::join!(waits, scene.goes_on_during(attack));
    let is_told = matches!(
        &refused,
        Err(SourceError::TooLarge { cid: told, bytes }) if *told == cid && *bytes == BLOCK_BYTES_MAX as u64 + 1
    );
    assert!(is_told, "{refused:?}");
    for other in [
        "skipped_entries_received_total",
        "wrong_blocks_received_total",
        "unwanted_bytes_received_total",
        "peers_dropped_total",
    ] {
        assert_eq!(scene.figure(other), 0.0, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_with_other_bytes_is_left_and_nothing_of_it_is_stored() {
    let scene = Scene::new().await;
    let mut hostile = Hostile::at(&scene.victim).await;
    let attack = async {
        hostile.hears_wants().await;
        for at in 0..u8::MAX {
            let forged = blocks_of(std::iter::once(vec![at; 100]));
            if !hostile.says(&forged).await {
                break;
            }
        }
        hostile.is_dropped().await;
    };
    scene.goes_on_during(scene.wanting(1_000_000, attack)).await;
    assert!(scene.figure("wrong_blocks_received_total") >= 16.0);
    assert_eq!(scene.figure("peers_dropped_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_blocks_that_nobody_wants_is_left() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    scene
        .goes_on_during(async {
            let block = blocks_of(std::iter::once(vec![9; BLOCK_BYTES_MAX]));
            while hostile.says(&block).await {}
            hostile.is_dropped().await;
        })
        .await;
    assert_eq!(scene.figure("peers_dropped_total"), 1.0);
    let useless =
        scene.figure("unwanted_bytes_received_total") + scene.figure("wrong_blocks_received_total");
    assert!(useless > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_have_and_sends_nothing_is_noticed_and_done_without() {
    let scene = Scene::new().await;
    let mut hostile = Hostile::at(&scene.victim).await;
    let promise = async {
        loop {
            let wants = hostile.hears_wants().await;
            let have = |cid| Presence {
                cid,
                kind: PresenceKind::Have,
            };
            let promise = Message {
                presences: wants.into_iter().map(have).collect(),
                ..Message::default()
            };
            assert!(hostile.says(&written(&promise)).await);
        }
    };
    let attack = async {
        tokio::select! {
            _ = promise => {}
            () = scene.until(|scene| scene.figure("stalls_total") > 0.0) => {}
        }
    };
    scene.goes_on_during(scene.wanting(7, attack)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_byte_by_byte_hold_up_their_sender_alone() {
    let scene = Scene::new().await;
    let hostile = Hostile::at(&scene.victim).await;
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = hostile.open().await.unwrap();
        // A length of 4 MiB.
        stream.write_all(&[0x80, 0x80, 0x80, 0x02]).await.unwrap();
        stream.flush().await.unwrap();
        streams.push(stream);
    }
    let drip = async {
        loop {
            for stream in &mut streams {
                stream.write_all(&[1]).await.unwrap();
                stream.flush().await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = drip => {}
        () = scene.work() => {}
    }
    scene.is_sound();
    for stream in &mut streams {
        stream.close().await.unwrap();
    }
    let all = streams.len() as f64;
    scene
        .until(|scene| scene.figure("abandoned_messages_received_total") == all)
        .await;
    drop(hostile);
    scene.nothing_is_kept().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cids_too_long_or_of_no_hash_are_skipped_and_the_rest_is_answered() {
    let scene = Scene::new().await;
    let mut hostile = Hostile::at(&scene.victim).await;
    let cid = |hash: &[u8], length: usize| {
        let mut buffer = unsigned_varint::encode::usize_buffer();
        let length_text = unsigned_varint::encode::usize(length, &mut buffer);
        [&[1, 0x55][..], hash, length_text, &vec![7; length][..]].concat()
    };
    let sha_512 = [0x13];
    let bombs = [
        // 168 bytes, and one more, of a hash that nobody has.
        cid(&[0x17], 163),
        cid(&[0x17], 164),
        // Identity: one byte too many, and far too many.
        cid(&[0], 129),
        cid(&[0], 100_000),
        cid(&[0], 1 << 20),
        // A digest that is too long for its hash.
        cid(&sha_512, 65),
        // Nothing, and half a CID.
        vec![],
        vec![1, 0x55, 0x12, 32, 0],
    ];
    let mut list = Vec::new();
    for bomb in &bombs {
        list.extend(field(1, &field(1, bomb)));
    }
    // The longest that is taken, of identity, needs no answer: who names it has it.
    list.extend(field(1, &field(1, &cid(&[0], 128))));
    list.extend(field(1, &field(1, &scene.given[0].cid().to_bytes())));
    let message = framed(&field(1, &list));
    scene
        .goes_on_during(async {
            assert!(hostile.says(&message).await);
            loop {
                if let [block] = &hostile.hears().await.blocks[..] {
                    assert_eq!(&block.data, scene.given[0].data());
                    break;
                }
            }
        })
        .await;
    let skipped = bombs.len() as f64;
    assert_eq!(scene.figure("skipped_entries_received_total"), skipped);
    assert_eq!(scene.figure("peers_dropped_total"), 0.0);
    scene.nothing_is_kept().await;
}
