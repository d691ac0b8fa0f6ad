//! The job: gathers what is provided, and tells it, region by region.
//!
//! One task. Its loop takes new keys from the queue, gives turns while [`Schedule::next`](super::schedule::Schedule) does, and
//! waits for whatever comes first. A turn is a future beside it: find the region's peers, give each key to the nearest twenty of
//! them, and send each peer all of its keys over one stream. All it knows lies in [`State`], behind a lock that is held while
//! little is read from the disk, and never while anybody is waited for.

use super::keys::Key;
use super::schedule::{Moment, Turn};
use super::state::{KEYS_AT_ONCE, Part, State};
use super::strategy::{Gathered, Source};
use super::{Clock, Peers, Shared};
use crate::dht::place::Place;
use crate::dht::regions;
use crate::dht::table::Contact;
use crate::event::Event;
use crate::routing::RoutingError;
use crate::routing::queue::Queue;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
#[cfg(any(test, feature = "bench"))]
use std::sync::PoisonError;
use std::time::Duration;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;

/// What the job needs of the network.
pub(crate) trait Network: Send + Sync + 'static {
    /// Whom there is to ask.
    fn reach(&self) -> impl Future<Output = Result<Reach, RoutingError>> + Send;

    /// Who keeps records of keys whose places begin with so many same bits.
    fn region(
        &self,
        keys: Vec<Vec<u8>>,
        bits: u32,
    ) -> impl Future<Output = Result<Peers, RoutingError>> + Send;

    /// Tells a peer that we provide keys; false if they did not all go out.
    fn tell(&self, to: Contact, keys: Vec<Vec<u8>>) -> impl Future<Output = bool> + Send;
}

/// Whom there is to ask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reach {
    /// Peers that answer lookups.
    pub(crate) peers: usize,
    /// How many there seem to be in the whole network.
    pub(crate) size: Option<f64>,
}

/// The job.
pub(crate) struct Sweep<N, S> {
    network: Arc<N>,
    source: Arc<S>,
    queue: Arc<Queue>,
    heard: broadcast::Receiver<Event>,
    events: broadcast::Sender<Event>,
    shared: Arc<Shared>,
    interval: Duration,
    turns: FuturesUnordered<BoxFuture<'static, Ended>>,
    gathering: Option<BoxFuture<'static, io::Result<()>>>,
    /// When the next gathering may begin, and what the pins' number was at the last. Rests are counted on a clock that nobody sets.
    gather_at: Instant,
    version: Option<u64>,
    /// Something came that a gathering may find more of.
    is_stale: bool,
    /// Nobody is asked before, unless a peer comes.
    alone_until: Option<Instant>,
    /// Until then the number of nodes is waited for.
    size_until: Option<Instant>,
    /// When to look again whatever happens.
    looks_in: Duration,
}

/// A turn that is over.
struct Ended {
    turn: Turn,
    began: Moment,
    came: Result<Came, NotTold>,
}

/// What came of it.
struct Came {
    keys: u64,
    looked: Option<(Peers, Part)>,
}

/// Why it was not told.
#[derive(Debug, thiserror::Error)]
enum NotTold {
    #[error(transparent)]
    Lookup(#[from] RoutingError),
    #[error("{told} of {all} records were taken")]
    TooFew { told: usize, all: usize },
    #[error("its keys do not read: {0}")]
    Disk(#[from] io::Error),
}

impl<N: Network, S: Source> Sweep<N, S> {
    pub(crate) fn new(
        network: N,
        source: S,
        queue: Arc<Queue>,
        (heard, events): (broadcast::Receiver<Event>, broadcast::Sender<Event>),
        shared: Arc<Shared>,
    ) -> Self {
        let interval = shared.interval;
        Self {
            network: Arc::new(network),
            source: Arc::new(source),
            queue,
            heard,
            events,
            shared,
            interval,
            turns: FuturesUnordered::new(),
            gathering: None,
            gather_at: Instant::now(),
            version: None,
            is_stale: false,
            alone_until: None,
            size_until: None,
            looks_in: LOOK,
        }
    }

    /// Never ends by itself.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.shared.with(|state, _| state.restore()).await {
            tracing::warn!(%error, "what was provided before is not known");
        }
        loop {
            self.gather_if_due();
            self.take_announced().await;
            if self.has_company() && self.adapt().await {
                self.give_turns();
            }
            self.wait().await;
        }
    }

    /// Starts to gather when that is due: at the start, once a cycle, and soon after other pins came.
    fn gather_if_due(&mut self) {
        let now = self.shared.clock.now();
        let (gathered_at, version) = (self.shared.state().gathered_at, self.source.version());
        // What was gathered later than now was so by a clock that was ahead.
        let is_old = gathered_at.is_none_or(|at| now < at || now >= at + self.interval);
        let is_other = self.is_stale || self.version != Some(version);
        if self.gathering.is_some() || Instant::now() < self.gather_at || !(is_old || is_other) {
            return;
        }
        self.version = Some(version);
        self.is_stale = false;
        self.gather_at = Instant::now() + GATHER_REST;
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        self.gathering = Some(gather(source, shared, now).boxed());
    }

    async fn take_announced(&mut self) {
        let cids = self.queue.take(TAKE_MAX);
        if cids.is_empty() {
            return;
        }
        self.is_stale = true;
        let told = cids.iter().filter(|cid| self.source.may_tell(cid));
        let keys: Vec<Vec<u8>> = told.map(|cid| cid.hash().to_bytes()).collect();
        let added = self.shared.with(move |state, now| {
            keys.iter()
                .try_for_each(|key| state.add(Key::new(key), now))
        });
        if let Err(error) = added.await {
            tracing::warn!(%error, "new keys are provided only when they are gathered");
        }
        if cids.len() == TAKE_MAX {
            self.queue.more();
        }
    }

    fn has_company(&self) -> bool {
        self.alone_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Cuts the key space as the number of nodes has it. False if that is not known yet and soon will be.
    async fn adapt(&mut self) -> bool {
        let Ok(reach) = self.network.reach().await else {
            return false;
        };
        let now = Instant::now();
        self.looks_in = LOOK;
        let bits = {
            let mut state = self.shared.state();
            state.size = reach.size.or(state.size);
            let bits = state.schedule.bits();
            match state.size {
                Some(size) if !regions::fit(size, bits) => regions::bits_of(size),
                None if reach.peers >= FEW && state.told.bits().is_none() => {
                    let until = *self.size_until.get_or_insert(now + SIZE_WAIT);
                    if now < until {
                        self.looks_in = SIZE_LOOK;
                        return false;
                    }
                    bits
                }
                _ => bits,
            }
        };
        if bits == self.shared.state().schedule.bits() {
            return true;
        }
        let set = self.shared.with(move |state, _| state.set_bits(bits)).await;
        if let Err(error) = set {
            tracing::warn!(%error, "the regions that are provided stay as they are");
        }
        true
    }

    fn give_turns(&mut self) {
        let began = self.shared.clock.now();
        let mut state = self.shared.state();
        while let Some(turn) = state.schedule.next(began) {
            let (network, shared) = (Arc::clone(&self.network), Arc::clone(&self.shared));
            let turn = async move {
                let came = tell(&*network, &shared, turn).await;
                Ended { turn, began, came }
            };
            self.turns.push(turn.boxed());
        }
    }

    /// Done when something happened, or is due.
    async fn wait(&mut self) {
        let now = self.shared.clock.now();
        let wakes = self.shared.state().schedule.wakes(now);
        let alone = self.alone_until.map(|until| until - Instant::now());
        let rest = match (alone, wakes) {
            (Some(alone), _) if !alone.is_zero() => alone,
            (_, Some(at)) if at > now => at - now,
            // What is due already waits for a turn to end, or to know the number of nodes.
            _ => self.looks_in,
        };
        // Not too long: a machine that slept counts no time, and pins come and go without a word.
        let rest = rest.clamp(REST_MIN, self.looks_in);
        let gathering = async {
            match &mut self.gathering {
                Some(gathering) => gathering.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.turns.next() => self.over(ended).await,
            gathered = gathering => {
                self.gathering = None;
                if let Err(error) = gathered {
                    tracing::warn!(%error, "what is provided was not gathered; it stays as it was");
                }
            }
            () = self.queue.filled() => {}
            () = peer_came(&mut self.heard) => self.alone_until = None,
            () = tokio::time::sleep(rest) => {}
        }
    }

    /// A turn is over.
    async fn over(&mut self, ended: Ended) {
        let Ended { turn, began, came } = ended;
        let noted = match came {
            Ok(Came { keys, looked }) => {
                let note = self
                    .shared
                    .with(move |state, now| state.told(turn, (began, now), keys, looked));
                let noted = note.await;
                // Nobody has to listen.
                let _ = self.events.send(Event::ProvidedRegion { keys });
                noted
            }
            Err(NotTold::Lookup(RoutingError::NoPeers)) => {
                self.shared.state().schedule.put_back(turn);
                self.alone_until = Some(Instant::now() + ALONE);
                Ok(())
            }
            Err(error) => {
                tracing::debug!(region = ?turn.prefix, %error, "a region was not told");
                if matches!(error, NotTold::Disk(_)) {
                    // The store has them still.
                    (self.version, self.gather_at) = (None, Instant::now());
                }
                let now = self.shared.clock.now();
                self.shared.state().schedule.failed(turn, now);
                Ok(())
            }
        };
        if let Err(error) = noted {
            tracing::warn!(%error, "what was provided is not remembered after a restart");
        }
    }
}

/// Gathers all keys, and has them take the place of those before.
async fn gather<S: Source>(source: Arc<S>, shared: Arc<Shared>, began: Moment) -> io::Result<()> {
    let folder = shared.state().folder().map(std::path::Path::to_owned);
    let gathered = Gathered::new(folder);
    source.keys(&gathered).await?;
    let before = shared.state().keys.clone();
    let sorted = tokio::task::spawn_blocking(move || {
        let mut new = Vec::new();
        let keys = gathered.finish(before.as_deref(), |key| new.push(key.clone()))?;
        Ok::<_, io::Error>((keys, new))
    });
    let (keys, new) = sorted.await.map_err(io::Error::other)??;
    tracing::debug!(
        keys = keys.len(),
        new = new.len(),
        "gathered what is provided"
    );
    shared
        .with(move |state, _| state.gathered(keys, new, began))
        .await
}

/// Tells a region's peers what they are to know.
async fn tell<N: Network>(network: &N, shared: &Arc<Shared>, turn: Turn) -> Result<Came, NotTold> {
    let prepared = shared.with(move |state, now| {
        let keys = state.keys_of(turn, None)?;
        let sample = state.sample(turn, &keys)?;
        let known = match turn.which {
            super::schedule::Which::New => state.recent_peers(&turn.prefix, now),
            super::schedule::Which::All => None,
        };
        Ok((keys, sample, known, state.size))
    });
    let (mut keys, sample, known, size) = prepared.await?;
    let mut came = Came {
        keys: 0,
        looked: None,
    };
    if keys.is_empty() {
        return Ok(came);
    }
    let peers = match known {
        Some(known) => known,
        None => {
            let found = network.region(sample, turn.prefix.bits()).await?;
            // Of a single key only its own keepers are found, which are not those of others.
            let part = match keys.len() {
                1 => Part::Key,
                _ => Part::Region,
            };
            came.looked = Some((found.clone(), part));
            found
        }
    };
    let (mut told, mut all) = (0, 0);
    while let Some(last) = keys.last().cloned() {
        let (now_told, now_all) = tell_keys(network, &peers, &keys, size).await;
        told += now_told;
        all += now_all;
        came.keys += keys.len() as u64;
        if keys.len() < KEYS_AT_ONCE || told * 2 < all {
            break;
        }
        let more = shared.with(move |state, _| state.keys_of(turn, Some(&last)));
        keys = more.await?;
    }
    match told > 0 && told * 2 >= all {
        true => Ok(came),
        false => Err(NotTold::TooFew { told, all }),
    }
}

/// Tells each key to the nearest of a region's peers; gives how many records went out, of how many.
async fn tell_keys<N: Network>(
    network: &N,
    peers: &Peers,
    keys: &[Key],
    size: Option<f64>,
) -> (usize, usize) {
    let mut of_each: BTreeMap<usize, (Contact, Vec<Vec<u8>>)> = BTreeMap::new();
    for key in keys {
        for (at, contact) in peers.keepers(&Place::of(&key.hash), size) {
            let (_, keys) = of_each
                .entry(at)
                .or_insert_with(|| (contact.clone(), Vec::new()));
            keys.push(key.hash.to_vec());
        }
    }
    let all = of_each.values().map(|(_, keys)| keys.len()).sum();
    let mut left = of_each.into_values();
    let (mut under_way, mut told) = (FuturesUnordered::new(), 0);
    loop {
        while under_way.len() < TELLS_AT_ONCE
            && let Some((contact, keys)) = left.next()
        {
            let count = keys.len();
            let tell = network.tell(contact, keys);
            under_way.push(tell.map(move |is_told| if is_told { count } else { 0 }));
        }
        match under_way.next().await {
            Some(count) => told += count,
            None => return (told, all),
        }
    }
}

/// Done when a peer has come that lookups can go through.
async fn peer_came(events: &mut broadcast::Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Identified(_)) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // Nobody comes any more: the node is stopping.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Shared {
    /// Reads or changes what the provider knows, on a thread that may wait for the disk.
    pub(super) async fn with<T, F>(self: &Arc<Self>, work: F) -> io::Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut State, Moment) -> io::Result<T> + Send + 'static,
    {
        let shared = Arc::clone(self);
        let now = self.clock.now();
        let done = tokio::task::spawn_blocking(move || work(&mut shared.state(), now));
        done.await.map_err(io::Error::other)?
    }
}

impl Clock {
    /// One that shows this time now, and goes as the runtime's does.
    #[cfg(any(test, feature = "bench"))]
    pub(super) fn simulated(at: Moment) -> Self {
        Self::Simulated(Arc::new(std::sync::Mutex::new((Instant::now(), at))))
    }

    /// Sets it, as somebody may.
    #[cfg(test)]
    pub(super) fn set(&self, at: Moment) {
        if let Self::Simulated(set) = self {
            *set.lock().unwrap() = (Instant::now(), at);
        }
    }

    /// What time it is.
    pub(super) fn now(&self) -> Moment {
        match self {
            Self::System => std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap_or_default(),
            #[cfg(any(test, feature = "bench"))]
            Self::Simulated(set) => {
                let (began, at) = *set.lock().unwrap_or_else(PoisonError::into_inner);
                at + (Instant::now() - began)
            }
        }
    }
}

/// Keys taken from the queue at once.
const TAKE_MAX: usize = 4096;
/// How long after a gathering the next one may begin: it reads all that is pinned.
const GATHER_REST: Duration = Duration::from_secs(600);
/// How often it is seen whether there are other pins.
const LOOK: Duration = Duration::from_secs(60);
/// Shortest rest, so that a clock that stands still costs nothing.
const REST_MIN: Duration = Duration::from_millis(10);
/// How long to wait for a peer before asking again whether there is one.
const ALONE: Duration = Duration::from_secs(60);
/// From so many peers on, the number of nodes is soon known; how long that is waited for.
const FEW: usize = 20;
const SIZE_WAIT: Duration = Duration::from_secs(60);
const SIZE_LOOK: Duration = Duration::from_secs(1);
/// Peers that one turn tells at the same time.
const TELLS_AT_ONCE: usize = 8;

#[cfg(test)]
mod tests;
