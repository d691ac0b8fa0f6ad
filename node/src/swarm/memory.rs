//! Refuses connections while this process has more memory than `limits.memory` allows.
//!
//! What counts is what is resident: what the machine must find room for. Connections that are open stay
//! and so does what they carry; its bounds are their own. Who is refused may come again, and what we
//! dial is dialled again when it is needed.

use crate::limits::Memory;
use cairn_store::config::ByteSize;
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// What this process may have and has.
#[derive(Debug)]
pub(crate) struct Ceiling {
    /// `u64::MAX` for no limit.
    most: AtomicU64,
    resident: fn() -> Option<u64>,
    seen: Mutex<Seen>,
    refused_in: AtomicU64,
    refused_out: AtomicU64,
}

#[derive(Debug, Default)]
struct Seen {
    resident: Option<u64>,
    looked_at: Option<Instant>,
    told_at: Option<Instant>,
}

/// Why no connection is made or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this node has {} MiB of memory and makes no new connections while it is over `limits.memory` = \"{}\" \
     ({} MiB); `cairn config set limits.memory` changes it",
    // Up here and down there, so that what is over the limit never reads as if it were not.
    resident.div_ceil(1 << 20),
    ByteSize(*most),
    most >> 20
)]
pub(crate) struct OverMemory {
    resident: u64,
    most: u64,
}

impl Ceiling {
    /// Of this process, with `memory` until it is changed.
    pub(crate) fn new(memory: Memory) -> Self {
        Self::of(memory, resident)
    }

    fn of(memory: Memory, resident: fn() -> Option<u64>) -> Self {
        Self {
            most: AtomicU64::new(memory.bytes().unwrap_or(u64::MAX)),
            resident,
            seen: Mutex::default(),
            refused_in: AtomicU64::default(),
            refused_out: AtomicU64::default(),
        }
    }

    /// Another limit from now on.
    pub(crate) fn set(&self, memory: Memory) {
        let most = memory.bytes().unwrap_or(u64::MAX);
        self.most.store(most, Ordering::Relaxed);
    }

    /// The limit, in bytes; 0 for none.
    pub(crate) fn most(&self) -> u64 {
        match self.most.load(Ordering::Relaxed) {
            u64::MAX => 0,
            most => most,
        }
    }

    /// Arrivals and dials that were refused.
    pub(crate) fn refused(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.refused_in), read(&self.refused_out))
    }

    /// Whether there is more than there may be.
    pub(crate) fn check(&self) -> Result<(), OverMemory> {
        let most = self.most.load(Ordering::Relaxed);
        if most == u64::MAX {
            return Ok(());
        }
        let resident = self.look(Instant::now());
        match resident.filter(|resident| *resident > most) {
            Some(resident) => Err(OverMemory { resident, most }),
            None => Ok(()),
        }
    }

    fn look(&self, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked_at.is_none_or(|at| now - at >= LOOK_EVERY) {
            seen.looked_at = Some(now);
            seen.resident = (self.resident)();
            if seen.resident.is_none() && seen.is_worth_telling(now) {
                tracing::warn!(
                    "`limits.memory` does not hold: the system does not tell how much memory this process has"
                );
            }
        }
        seen.resident
    }

    /// The same for one connection, counted and told.
    fn admit(&self, refused: &AtomicU64) -> Result<(), ConnectionDenied> {
        self.check().map_err(|over| {
            refused.fetch_add(1, Ordering::Relaxed);
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.is_worth_telling(Instant::now()) {
                let (arrivals, dials) = self.refused();
                tracing::warn!(arrivals, dials, "connections refused: {over}");
            }
            ConnectionDenied::new(over)
        })
    }
}

impl Seen {
    fn is_worth_telling(&mut self, now: Instant) -> bool {
        let is = self.told_at.is_none_or(|at| now - at >= TELL_EVERY);
        if is {
            self.told_at = Some(now);
        }
        is
    }
}

/// What of this process is in the machine's memory, as far as the system tells.
fn resident() -> Option<u64> {
    let stats = memory_stats::memory_stats()?;
    u64::try_from(stats.physical_mem).ok()
}

/// The refusing part of the swarm. A connection is looked at when it begins and when it is up: between
/// them lie seconds in which many others may have begun.
#[derive(Debug)]
pub(super) struct Behaviour(Arc<Ceiling>);

impl Behaviour {
    pub(super) const fn new(ceiling: Arc<Ceiling>) -> Self {
        Self(ceiling)
    }

    fn admit_arrival(&self) -> Result<(), ConnectionDenied> {
        self.0.admit(&self.0.refused_in)
    }

    fn admit_dial(&self) -> Result<(), ConnectionDenied> {
        self.0.admit(&self.0.refused_out)
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.admit_arrival()
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit_arrival()?;
        Ok(dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.admit_dial()?;
        Ok(Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.admit_dial()?;
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// For how long a figure is good: to ask is a system call or three, and a flood of connections would ask
/// for each.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Time between two lines in the log: while memory is short they would all say the same.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_refused_and_counted_until_the_limit_is_another() {
        let most = |bytes| Memory::new(bytes).unwrap();
        let ceiling = Ceiling::of(most(100 << 20), || Some(100 << 20));
        assert!(ceiling.check().is_ok(), "as much as may be is not too much");
        assert!(ceiling.admit(&ceiling.refused_in).is_ok());
        ceiling.set(most((100 << 20) - 1));
        assert!(ceiling.admit(&ceiling.refused_in).is_err());
        assert!(ceiling.admit(&ceiling.refused_in).is_err());
        assert!(ceiling.admit(&ceiling.refused_out).is_err());
        assert_eq!(ceiling.refused(), (2, 1));
        ceiling.set(most(50 << 20));
        assert_eq!(
            ceiling.check().unwrap_err().to_string(),
            "this node has 100 MiB of memory and makes no new connections while it is over \
             `limits.memory` = \"50MiB\" (50 MiB); `cairn config set limits.memory` changes it"
        );
        // Not "1907 MiB", which is less than 2 GB.
        let resident = 2_000_000_001;
        let (most, over) = (2_000_000_000, "has 1908 MiB");
        let told = OverMemory { resident, most }.to_string();
        assert!(
            told.contains(over) && told.contains("\"2GB\" (1907 MiB)"),
            "{told}"
        );
        ceiling.set(Memory::UNLIMITED);
        assert!(ceiling.admit(&ceiling.refused_out).is_ok());
        assert_eq!((ceiling.refused(), ceiling.most()), ((2, 1), 0));
    }

    #[test]
    fn where_nobody_tells_nothing_is_refused() {
        let ceiling = Ceiling::of(Memory::new(16 << 20).unwrap(), || None);
        assert!(ceiling.check().is_ok());
    }

    #[test]
    fn a_connection_is_refused_as_it_begins_and_when_it_is_up() {
        let ceiling = Ceiling::of(Memory::new(16 << 20).unwrap(), || Some(17 << 20));
        let (ceiling, none) = (Arc::new(ceiling), Multiaddr::empty());
        let mut doors = Behaviour::new(Arc::clone(&ceiling));
        let (id, peer) = (ConnectionId::new_unchecked(1), PeerId::random());
        let (end, port) = (Endpoint::Dialer, PortUse::New);
        let arriving = doors.handle_pending_inbound_connection(id, &none, &none);
        let arrived = doors.handle_established_inbound_connection(id, peer, &none, &none);
        let dialling = doors.handle_pending_outbound_connection(id, Some(peer), &[], end);
        let dialled = doors.handle_established_outbound_connection(id, peer, &none, end, port);
        assert!(arriving.is_err() && arrived.is_err());
        assert!(dialling.is_err() && dialled.is_err());
        assert_eq!(ceiling.refused(), (2, 2));
    }

    #[test]
    fn what_is_over_is_told_once_a_while() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        assert!(seen.is_worth_telling(start));
        assert!(!seen.is_worth_telling(start + TELL_EVERY - Duration::from_millis(1)));
        assert!(seen.is_worth_telling(start + TELL_EVERY));
    }

    #[test]
    fn what_counts_is_resident_and_not_merely_promised() {
        const PROMISED: usize = 1 << 30;
        const TOUCHED: usize = 64 << 20;
        let promised = std::hint::black_box(Vec::<u8>::with_capacity(PROMISED));
        let touched = std::hint::black_box(vec![1_u8; TOUCHED]);
        let counted = resident().unwrap();
        assert!(
            (TOUCHED as u64..PROMISED as u64).contains(&counted),
            "{counted}"
        );
        drop((promised, touched));
    }
}
