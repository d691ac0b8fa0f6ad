//! Tells the network what is here, and again in good time before others forget it.
//!
//! What is provided is a set of keys (`strategy.rs` says which, `keys.rs` keeps them in order on disk). The key space is cut
//! into regions (`prefix.rs`) in which a few dozen nodes lie, and one lookup finds all of them; so it serves all keys of the
//! region, and each node is told all of its keys over one stream. Each region has its time in a cycle (`schedule.rs`, without
//! network or clock), and what was told when and to whom is remembered (`told.rs`), so a restart goes on where it was. New keys
//! are told at once. `state.rs` is all that is known, `sweep.rs` the job that does it.
//!
//! Reading order: `schedule.rs`, `state.rs`, `sweep.rs`.

mod bytes;
pub(crate) mod keys;
mod metrics;
pub(crate) mod prefix;
pub(crate) mod schedule;
#[cfg(any(test, feature = "bench"))]
pub mod simulation;
mod state;
pub(crate) mod strategy;
pub(crate) mod sweep;
mod told;
mod wire;

pub use state::{ByHand, KeyStat};
pub use strategy::Strategy;

use crate::Config;
use crate::bitswap::policy::Policy;
use crate::dht::place::Place;
use crate::dht::regions;
use crate::dht::table::Contact;
use crate::event::Event;
use crate::routing::Routing;
use crate::tasks::Tasks;
use cairn_store::Store;
use keys::Key;
use libp2p::PeerId;
use prometheus::Registry;
use state::State;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strategy::OfStore;
use sweep::Sweep;
use tokio::sync::broadcast;

/// Starts the job that provides what a store has.
pub(crate) fn start(
    (store, rules): (Store, Arc<dyn Policy>),
    routing: Routing,
    events: (broadcast::Receiver<Event>, broadcast::Sender<Event>),
    options: Options,
    tasks: &Tasks,
    local: PeerId,
) -> io::Result<Provide> {
    let provide = Provide::open(&options, local, Clock::System)?;
    let source = OfStore {
        store,
        strategy: options.strategy,
        rules,
    };
    let (queue, shared) = (routing.announcements(), provide.shared());
    let knows = provide.shared();
    routing.own().ask(move |hash| {
        let knows = Arc::clone(&knows);
        async move { knows.provides(hash).await }
    });
    let job = Sweep::new(routing, source, queue, events, shared);
    let stop = tasks.stopping();
    tasks.spawn("provide", async move {
        // A turn that is broken off is given again: its region was not told.
        let _: Option<()> = stop.run_until_cancelled(job.run()).await;
    });
    Ok(provide)
}

/// A handle on the provider. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Provide {
    shared: Arc<Shared>,
}

/// What the job and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) clock: Clock,
    strategy: Strategy,
    interval: Duration,
}

/// Who keeps the records of a region's keys, in each DHT that this node takes part in.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Peers(pub(crate) [Vec<Contact>; 2]);

impl Peers {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// Those of other regions too, as far as there is room.
    fn add(&mut self, others: Self) {
        for ((all, more), most) in self.0.iter_mut().zip(others.0).zip(PEERS_MAX) {
            for contact in more {
                if all.len() < most && !all.iter().any(|known| known.peer == contact.peer) {
                    all.push(contact);
                }
            }
        }
    }

    /// The same, for whom it is enough to know who they are.
    fn without_addresses(&self) -> Self {
        let bare = |contact: &Contact| Contact {
            addresses: Vec::new(),
            ..contact.clone()
        };
        Self([&self.0[0], &self.0[1]].map(|all| all.iter().map(bare).collect()))
    }

    /// Those of each DHT that keep the record of one key, each with a number.
    fn keepers(&self, key: &Place, size: Option<f64>) -> impl Iterator<Item = (usize, &Contact)> {
        let Self([first, second]) = self;
        // How many nodes there are is known of the first DHT that has any.
        let (of_first, of_second) = match first.is_empty() {
            true => (None, size),
            false => (size, None),
        };
        let of_first = regions::keepers(key, first, of_first).into_iter();
        let of_second = regions::keepers(key, second, of_second).into_iter();
        let of_first = of_first.filter_map(|at| Some((at, first.get(at)?)));
        let of_second = of_second.filter_map(|at| Some((first.len() + at, second.get(at)?)));
        of_first.chain(of_second)
    }
}

/// What time it is.
#[derive(Debug, Clone)]
pub(crate) enum Clock {
    /// The system's, which somebody may set.
    System,
    /// The runtime's, with the moment at which it was set, and to what.
    #[cfg(any(test, feature = "bench"))]
    Simulated(Arc<Mutex<(tokio::time::Instant, Duration)>>),
}

/// How providing goes. Times are counted from the beginning of Unix time.
#[derive(Debug, Clone, PartialEq)]
pub struct ProvideStat {
    /// What is provided.
    pub strategy: Strategy,
    /// How often.
    pub interval: Duration,
    /// Keys of the last gathering.
    pub keys: u64,
    /// When that was.
    pub gathered_at: Option<Duration>,
    /// Keys that are to be told before their time.
    pub waiting: usize,
    /// Regions that have keys, and the bits that tell them apart.
    pub regions: usize,
    /// How many bits the places of a region share.
    pub prefix_bits: u32,
    /// How many nodes the network seems to have.
    pub network_size: Option<f64>,
    /// Regions whose turn in this cycle is over.
    pub done: usize,
    /// Regions that are late.
    pub late: usize,
    /// Regions that are told now.
    pub under_way: usize,
    /// Regions whose last turn failed.
    pub failing: usize,
    /// Turns that failed since the start.
    pub failures: u64,
    /// Keys told since the start.
    pub provided: u64,
    /// Keys told in the last hour.
    pub provided_last_hour: u64,
    /// How long a region took lately, on average.
    pub turn: Option<Duration>,
    /// When a region was told last.
    pub last_at: Option<Duration>,
    /// When the next one is.
    pub next_at: Option<Duration>,
}

/// What the wiring decides.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) strategy: Strategy,
    pub(crate) interval: Duration,
    pub(crate) regions_at_once: usize,
    /// Where to remember; `None` for in memory.
    pub(crate) folder: Option<PathBuf>,
}

impl Options {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            strategy: config.provide_strategy,
            interval: config.provide_interval,
            regions_at_once: config.provide_regions_at_once,
            folder: config.provide_folder.clone(),
        }
    }
}

impl Provide {
    /// With what the folder remembers. A folder that cannot be used is done without, and that is said.
    pub(crate) fn open(options: &Options, local: PeerId, clock: Clock) -> io::Result<Self> {
        let open = |folder| State::open(folder, local, options.interval, options.regions_at_once);
        let state = open(options.folder.clone()).or_else(|error| {
            tracing::warn!(%error, "what is provided is not remembered after a restart");
            open(None)
        })?;
        let shared = Shared {
            state: Mutex::new(state),
            clock,
            strategy: options.strategy,
            interval: options.interval,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        metrics::register(registry, self.shared())
    }

    /// How it goes.
    pub async fn stat(&self) -> io::Result<ProvideStat> {
        let (strategy, interval) = (self.shared.strategy, self.shared.interval);
        let stat = self.shared.with(move |state, now| {
            let progress = state.progress(now);
            let (took, turns) = state.took;
            Ok(ProvideStat {
                strategy,
                interval,
                keys: state.len(),
                gathered_at: state.gathered_at,
                waiting: state.untold(),
                regions: progress.regions,
                prefix_bits: progress.bits,
                network_size: state.size,
                done: progress.done,
                late: progress.late,
                under_way: progress.under_way,
                failing: progress.failing,
                failures: progress.failures,
                provided: state.provided,
                provided_last_hour: progress.hour,
                turn: took.checked_div(turns),
                last_at: progress.last,
                next_at: progress.next.map(|at| at.max(now)),
            })
        });
        stat.await
    }

    /// How it goes with the block that a multihash names.
    pub async fn stat_of(&self, hash: Vec<u8>) -> io::Result<KeyStat> {
        self.shared
            .with(move |state, now| state.stat(&hash, now))
            .await
    }
}

impl Provide {
    /// So many peers were told of the block that a multihash names because somebody asked for it.
    pub fn told_by_hand(&self, hash: &[u8], peers: usize) {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        state.told_by_hand(Key::new(hash), now, peers);
    }
}

impl Shared {
    /// Whether what a multihash names is provided. What cannot be read is not.
    async fn provides(self: &Arc<Self>, hash: Vec<u8>) -> bool {
        let shared = Arc::clone(self);
        let has = tokio::task::spawn_blocking(move || {
            let key = Key::new(&hash);
            // Nobody waits for the state while the list is read.
            let (is_fresh, keys) = {
                let state = shared.state();
                (state.is_fresh(&key), state.keys.clone())
            };
            match keys {
                Some(keys) if !is_fresh => keys.has(&key),
                _ => Ok(is_fresh),
            }
        });
        let has = has.await.map_err(io::Error::other).flatten();
        has.unwrap_or_else(|error| {
            tracing::debug!(%error, "the list of provided keys does not read");
            false
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Peers of one region that are remembered, in each DHT.
const PEERS_MAX: [usize; 2] = [200, 32];
