//! Who stays connected, who is let in, and whom we dial until they answer.
//!
//! The decisions are made by engines that know neither sockets nor clocks: `keeper/manager.rs` (who goes
//! when there are many), `keeper/peering.rs` (who is dialled again, and when), `keeper/crowd.rs` (how many
//! come from one address) and `keeper/files.rs` (whether there are descriptors left).
//! `keeper/behaviour.rs` is what the swarm sees of them; a [`Keeper`] is what everybody else holds, to say
//! what a peer is worth and to ask for what the operator wants. Nothing of this waits: a call takes a lock
//! for as long as it takes to note something.

mod behaviour;
mod crowd;
mod files;
mod manager;
mod peering;

pub(super) use behaviour::Behaviour;
pub(crate) use manager::{Serves, Waits};
pub use peering::ListFull;

use super::failure::over;
use super::filters::Filter;
use super::gate::{Gate, Told, Turned};
use super::{ConnectError, Peers, split};
use crate::config::Config;
use crate::limits::Limits;
use crowd::Crowd;
use files::Files;
use futures::task::AtomicWaker;
use libp2p::connection_limits::Exceeded;
use libp2p::core::Endpoint;
use libp2p::swarm::{CloseConnection, ConnectionDenied, ConnectionId};
use libp2p::{Multiaddr, PeerId};
use manager::{Manager, Waters};
use peering::{Is, Peering};
use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// A handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the behaviour when there is something for it to do.
    waker: AtomicWaker,
    gate: Arc<Gate>,
    files: Files,
    crowded: AtomicU64,
    limited: Turned,
    trimmed: AtomicU64,
    told_crowded: Told,
    told_files: Told,
    told_limited: Told,
}

#[derive(Debug)]
struct State {
    manager: Manager,
    peering: Peering,
    crowd: Crowd,
    /// Every established connection.
    connections: HashMap<ConnectionId, (PeerId, Multiaddr)>,
    /// To be closed. No longer than there are connections.
    closing: VecDeque<(PeerId, CloseConnection)>,
    /// Connections of which the handler is to hear whether they stay when idle. As long.
    staying: VecDeque<(PeerId, ConnectionId, Stay)>,
    /// Whether the engines are to be asked before the timer says so.
    has_changed: bool,
}

/// Whether a connection that nobody uses stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    Yes,
    No,
}

/// Why a peer was not put on the list of those that we stay connected to.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeeringError {
    /// The address leads to nobody that could be dialled.
    #[error(transparent)]
    Address(#[from] ConnectError),
    /// There is no room.
    #[error(transparent)]
    Full(#[from] ListFull),
}

/// While it lives, dials to its peer go first and the peer is not let go.
#[derive(Debug)]
pub(crate) struct Hurry {
    keeper: Keeper,
    peer: PeerId,
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.keeper.0.gate.take_time(&self.peer);
        let mut state = self.keeper.state();
        state.manager.ends(&self.peer);
        self.keeper.changed(state);
    }
}

impl Keeper {
    pub(super) fn new(config: &Config, gate: &Arc<Gate>) -> Self {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let waters = Waters {
            low: count(config.connections_low),
            high: count(config.connections_high),
            grace: config.connection_grace,
            most: count(config.connections_max),
        };
        let keeper = Self(Arc::new(Shared {
            state: Mutex::new(State {
                manager: Manager::new(waters),
                peering: Peering::new(rand::random()),
                crowd: Crowd::new(config.connections_per_address_max),
                connections: HashMap::new(),
                closing: VecDeque::new(),
                staying: VecDeque::new(),
                has_changed: true,
            }),
            waker: AtomicWaker::new(),
            gate: Arc::clone(gate),
            files: Files::new(),
            crowded: AtomicU64::new(0),
            limited: Turned::default(),
            trimmed: AtomicU64::new(0),
            told_crowded: Told::default(),
            told_files: Told::default(),
            told_limited: Told::default(),
        }));
        keeper.keep_configured(config);
        keeper
    }

    /// Begins with the peers in the configuration. What cannot be dialled is told and left out.
    fn keep_configured(&self, config: &Config) {
        let mut peers: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for given in &config.peering {
            match split(given.clone()) {
                Ok((peer, Some(address))) if config.network.allows(&address) => {
                    match peers.iter_mut().find(|(known, _)| *known == peer) {
                        Some((_, addresses)) => addresses.push(address),
                        None => peers.push((peer, vec![address])),
                    }
                }
                _ => tracing::warn!(
                    address = %given,
                    network = %config.network,
                    "address in `swarm.peering` outside the network or without /p2p, left out"
                ),
            }
        }
        for (peer, addresses) in peers {
            if let Err(full) = self.keep(peer, addresses) {
                tracing::warn!(%peer, "not kept connected: {full}");
            }
        }
    }

    fn keep(&self, peer: PeerId, addresses: Vec<Multiaddr>) -> Result<(), ListFull> {
        let mut state = self.state();
        let connections = state.of(&peer);
        let is = if connections.is_empty() {
            Is::Away
        } else {
            Is::Connected
        };
        let was_listed = state.peering.has(&peer);
        state.peering.add(peer, addresses, is, Instant::now())?;
        state.manager.keep(peer);
        let stay = connections.into_iter().map(|id| (peer, id, Stay::Yes));
        state.staying.extend(stay);
        if !was_listed {
            self.0.gate.hurry(peer);
        }
        self.changed(state);
        Ok(())
    }

    fn let_go(&self, peer: &PeerId) -> bool {
        let mut state = self.state();
        let was_listed = state.peering.remove(peer);
        if was_listed {
            state.manager.let_go(peer);
            let connections = state.of(peer);
            let go = connections.into_iter().map(|id| (*peer, id, Stay::No));
            state.staying.extend(go);
            self.0.gate.take_time(peer);
        }
        self.changed(state);
        was_listed
    }

    /// Somebody waits for this peer, or works with it.
    pub(super) fn hurry(&self, peer: PeerId) -> Hurry {
        self.0.gate.hurry(peer);
        self.state().manager.begins(peer);
        let keeper = self.clone();
        Hurry { keeper, peer }
    }

    /// The operator wanted to be connected to this peer.
    pub(super) fn asked_for(&self, peer: &PeerId) {
        self.state().manager.asked_for(peer);
    }

    /// A peer gave bytes that were wanted.
    pub(crate) fn gave(&self, peer: &PeerId, bytes: u64) {
        if bytes > 0 {
            self.state().manager.gave(peer, bytes, Instant::now());
        }
    }

    /// A peer was given bytes that it wanted.
    pub(crate) fn took(&self, peer: &PeerId, bytes: u64) {
        if bytes > 0 {
            self.state().manager.took(peer, bytes, Instant::now());
        }
    }

    /// Whether something is waited for that this peer has promised.
    pub(crate) fn waits(&self, peer: &PeerId, waits: Waits) {
        self.state().manager.waits(peer, waits);
    }

    /// Whether others are found through this peer.
    pub(crate) fn serves(&self, peer: &PeerId, serves: Serves) {
        self.state().manager.serves(peer, serves);
    }

    /// Other limits from now on.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.0.gate.set_limits(limits);
    }

    /// Other filters from now on. Who is connected from there is not any more.
    fn set_filters(&self, filters: Vec<Filter>) {
        self.0.gate.set_filters(filters);
        let mut state = self.state();
        let outside = state
            .connections
            .iter()
            .filter(|(_, (_, address))| self.0.gate.is_filtered(address));
        let outside: Vec<_> = outside
            .map(|(id, (peer, _))| (*peer, CloseConnection::One(*id)))
            .collect();
        state.closing.extend(outside);
        self.changed(state);
    }

    /// Whether a connection may be made that is not up yet.
    fn admit(
        &self,
        end: Endpoint,
        id: ConnectionId,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let files = match end {
            Endpoint::Dialer => self.0.files.admit_dial(),
            Endpoint::Listener => self.0.files.admit_arrival(),
        };
        files.map_err(|error| {
            let so_far = self.0.files.refused();
            refuse(error, &self.0.told_files, so_far.0 + so_far.1)
        })?;
        let ip = crate::network::host(remote).filter(|_| self.0.gate.applies_to(remote));
        if let (Endpoint::Listener, Some(ip)) = (end, ip) {
            self.state().crowd.admit(id, ip).map_err(|error| {
                let so_far = self.0.crowded.fetch_add(1, Ordering::Relaxed) + 1;
                refuse(error, &self.0.told_crowded, so_far)
            })?;
        }
        Ok(())
    }

    /// A connection was refused by those who count them all.
    fn limited(&self, end: Endpoint, exceeded: &Exceeded) {
        match end {
            Endpoint::Dialer => self.0.limited.dial(),
            Endpoint::Listener => self.0.limited.arrival(),
        }
        if self.0.told_limited.is_due() {
            let (arrivals, dials) = (self.0.limited.arrivals(), self.0.limited.dials());
            tracing::warn!(arrivals, dials, "connections refused: {}", over(exceeded));
        }
    }

    /// Arrivals and dials refused because there were as many connections as may be.
    pub(crate) fn overfull(&self) -> (u64, u64) {
        (self.0.limited.arrivals(), self.0.limited.dials())
    }

    /// Arrivals refused because there were as many from their address.
    pub(crate) fn crowded(&self) -> u64 {
        self.0.crowded.load(Ordering::Relaxed)
    }

    /// Arrivals and dials refused because hardly any descriptors were left.
    pub(crate) fn without_files(&self) -> (u64, u64) {
        self.0.files.refused()
    }

    /// Connections closed because there were too many.
    pub(crate) fn trimmed(&self) -> u64 {
        self.0.trimmed.load(Ordering::Relaxed)
    }

    /// Peers that we want to stay connected to and are not.
    pub(crate) fn away(&self) -> u64 {
        u64::try_from(self.state().peering.away()).unwrap_or(u64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let state = self.0.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the engines asked again.
    fn changed(&self, mut state: MutexGuard<'_, State>) {
        state.has_changed = true;
        drop(state);
        self.0.waker.wake();
    }
}

impl State {
    /// The connections of a peer.
    fn of(&self, peer: &PeerId) -> Vec<ConnectionId> {
        let all = self.connections.iter();
        all.filter(|(_, (other, _))| other == peer)
            .map(|(id, _)| *id)
            .collect()
    }
}

/// The refusal, told if nothing like it was told lately.
fn refuse(error: impl Error + Send + Sync + 'static, told: &Told, so_far: u64) -> ConnectionDenied {
    if told.is_due() {
        tracing::warn!(so_far, "connections refused: {error}");
    }
    ConnectionDenied::new(error)
}

impl Peers {
    /// Stays connected to the peer at the end of `address` from now on; it is dialled at once if it is not
    /// connected. On the list already, it has this address alone from now on.
    pub fn keep(&self, address: Multiaddr) -> Result<PeerId, PeeringError> {
        let given = address.clone();
        let (peer, address) = split(address)?;
        self.check(peer)?;
        let Some(address) = address else {
            return Err(ConnectError::NoAddress(peer).into());
        };
        if !self.network.allows(&address) {
            let (address, network) = (given, self.network.name());
            return Err(ConnectError::Outside { address, network }.into());
        }
        self.keeper.keep(peer, vec![address])?;
        Ok(peer)
    }

    /// The same at the addresses that are known for a peer by now.
    pub async fn keep_known(&self, peer: PeerId) -> Result<PeerId, PeeringError> {
        self.check(peer)?;
        let known = self.known().await;
        let addresses = known.into_iter().find(|(other, _)| *other == peer);
        let Some((_, addresses)) = addresses.filter(|(_, addresses)| !addresses.is_empty()) else {
            return Err(ConnectError::NoAddress(peer).into());
        };
        self.keeper.keep(peer, addresses)?;
        Ok(peer)
    }

    /// No longer; whether it was on the list. A connection that is up stays until nobody uses it.
    pub fn let_go(&self, peer: &PeerId) -> bool {
        self.keeper.let_go(peer)
    }

    /// Whom we stay connected to, and where they are.
    pub fn kept(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        self.keeper.state().peering.list()
    }

    /// Where nobody is dialled or taken from.
    pub fn filters(&self) -> Vec<Filter> {
        self.keeper.0.gate.filters()
    }

    /// Other filters from now on. Connections that they cover are closed.
    pub fn set_filters(&self, filters: Vec<Filter>) {
        self.keeper.set_filters(filters);
    }

    /// Why no arrivals are taken just now for want of descriptors, if so.
    pub fn short_of_files(&self) -> Option<String> {
        let short = self.keeper.0.files.check().err();
        short.map(|error| error.to_string())
    }
}
