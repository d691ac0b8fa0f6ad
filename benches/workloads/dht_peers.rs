//! Peers that serve the DHT and ask a node of it, steadily: what a node has to do that nobody uses.

use crate::frame::{framed, read_message};
use crate::process::{self, Running};
use crate::stock::peer;
use cairn_node::dht::message::{Kind, Message};
use cairn_node::dht::table::Contact;
use futures::{AsyncWriteExt, StreamExt};
use libp2p::swarm::{NetworkBehaviour, StreamProtocol, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Stream, SwarmBuilder, identify, ping, tcp, tls, yamux};
use libp2p_stream::Control;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// So many peers in a process of its own that gets what time the others leave. Gone when dropped.
#[derive(Debug)]
pub struct DhtPeers(Running);

impl DhtPeers {
    /// All connected to the node at an address and known to it, about to ask `rate` questions a second for some time.
    pub fn start(address: &str, count: u64, rate: u64, time: Duration) -> Self {
        let command = process::child(PART, &[&address, &count, &rate, &time.as_secs()]);
        let mut running = Running::start(&mut process::with_what_is_left(&command));
        running.wait_for("asking");
        Self(running)
    }

    /// Waits for the end: how many questions were asked that have an answer, and how many were answered.
    pub fn end(mut self) -> (u64, u64) {
        let told = self.0.wait_for("asked ");
        let (asked, answered) = told.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        (number(asked), number(answered))
    }
}

/// The part of a child that is these peers.
pub async fn play(given: &[String]) {
    let [address, numbers @ ..] = given else {
        panic!("an address: {given:?}");
    };
    let address: Multiaddr = address.parse().expect("an address");
    let mut numbers = numbers.iter().map(|text| text.parse::<u64>());
    let mut number = || numbers.next().expect("three numbers").expect("a number");
    let (count, rate, seconds) = (number(), number(), number());
    let counts = Arc::new(Counts::default());
    let mut queues = Vec::new();
    for seed in 0..count {
        let (own, control) = join(&address).await;
        let (queue, questions) = mpsc::channel(QUESTIONS_WAITING);
        start(serve(control.clone()));
        start(ask(
            control,
            peer(&address),
            own,
            seed,
            questions,
            Arc::clone(&counts),
        ));
        queues.push(queue);
    }
    println!("asking");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut ticks = interval(Duration::from_secs(1) / u32::try_from(rate).expect("a rate"));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for queue in queues.iter().cycle() {
        ticks.tick().await;
        if Instant::now() >= end {
            break;
        }
        // Whoever is late is asked less.
        let _ = queue.try_send(());
    }
    drop(queues);
    sleep_until(end + LAST_ANSWERS).await;
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    println!("asked {} {}", of(&counts.asked), of(&counts.answered));
}

#[derive(Debug, Default)]
struct Counts {
    asked: AtomicU64,
    answered: AtomicU64,
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    stream: libp2p_stream::Behaviour,
}

/// One of the peers, connected and told of; it turns for ever.
async fn join(node: &Multiaddr) -> (Contact, Control) {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::default().nodelay(true),
            tls::Config::new,
            yamux::Config::default,
        )
        .expect("transport")
        .with_behaviour(|keys| Behaviour {
            identify: identify::Behaviour::new(identify::Config::new(
                "bench/1".into(),
                keys.public(),
            )),
            ping: ping::Behaviour::default(),
            stream: libp2p_stream::Behaviour::new(),
        })
        .expect("behaviour")
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3600)))
        .build();
    let mut control = swarm.behaviour().stream.new_control();
    // Told of by identify once somebody accepts it.
    let accepted = control.accept(PROTOCOL).expect("nobody else accepts");
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().expect("an address"))
        .expect("listen");
    let mut own = None;
    loop {
        match swarm.next().await {
            Some(SwarmEvent::NewListenAddr { address, .. }) => {
                swarm.add_external_address(address.clone());
                own = Some(Contact::new(*swarm.local_peer_id(), vec![address]));
                swarm.dial(node.clone()).expect("a dial");
            }
            Some(SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Sent {
                ..
            }))) => break,
            Some(SwarmEvent::OutgoingConnectionError { error, .. }) => panic!("{error}"),
            _ => {}
        }
    }
    drop(accepted);
    start(turn(swarm));
    (own.expect("it listens"), control)
}

async fn turn(mut swarm: Swarm<Behaviour>) {
    while swarm.next().await.is_some() {}
}

/// Answers whatever is asked: it knows nobody.
async fn serve(mut control: Control) {
    let mut streams = control.accept(PROTOCOL).expect("nobody else accepts");
    while let Some((_, mut stream)) = streams.next().await {
        start(async move {
            while let Ok(asked) = read(&mut stream).await {
                if asked.kind == Kind::AddProvider {
                    continue;
                }
                let answer = Message::new(asked.kind, asked.key);
                if write(&mut stream, &answer).await.is_err() {
                    break;
                }
            }
        });
    }
}

/// Asks one question for each that is wanted, over one stream while it lasts.
async fn ask(
    mut control: Control,
    node: PeerId,
    own: Contact,
    seed: u64,
    mut questions: mpsc::Receiver<()>,
    counts: Arc<Counts>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut open: Option<Stream> = None;
    while questions.recv().await.is_some() {
        let mut stream = match open.take() {
            Some(stream) => stream,
            None => match control.open_stream(node, PROTOCOL).await {
                Ok(stream) => stream,
                Err(_) => continue,
            },
        };
        let key = [&[0x12, 32][..], &random.random::<[u8; 32]>()].concat();
        // As a busy server is asked: mostly for peers, then for providers, now and then told of one.
        let kind = match random.random_range(0..10) {
            0..6 => Kind::FindNode,
            6..9 => Kind::GetProviders,
            _ => Kind::AddProvider,
        };
        let mut question = Message::new(kind, key);
        if kind == Kind::AddProvider {
            question.providers = vec![own.clone()];
        } else {
            counts.asked.fetch_add(1, Ordering::Relaxed);
        }
        if write(&mut stream, &question).await.is_err() {
            continue;
        }
        if kind != Kind::AddProvider {
            match read(&mut stream).await {
                Ok(_) => counts.answered.fetch_add(1, Ordering::Relaxed),
                Err(_) => continue,
            };
        }
        open = Some(stream);
    }
}

async fn write(stream: &mut Stream, message: &Message) -> io::Result<()> {
    stream.write_all(&framed(&message.encode())).await?;
    stream.flush().await
}

async fn read(stream: &mut Stream) -> io::Result<Message> {
    let message = read_message(stream).await?;
    Message::decode(&message).map_err(io::Error::other)
}

fn start(work: impl Future<Output = ()> + Send + 'static) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench has no shutdown to take part in"
    )]
    tokio::spawn(work);
}

/// The part that [`play`] plays.
pub const PART: &str = "dht-peers";
/// Of networks such as loopback.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/ipfs/lan/kad/1.0.0");
/// Questions of one peer that wait for the one before.
const QUESTIONS_WAITING: usize = 16;
const LAST_ANSWERS: Duration = Duration::from_secs(1);
