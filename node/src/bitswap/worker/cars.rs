//! Whole DAGs from gateways: when one is asked for in one go, and what is held back meanwhile.
//!
//! While a session's CAR comes, its wants wait for it, or its blocks would come twice. They wait as
//! long as it gets somewhere, and none for ever: then they are placed like all others.

use super::{State, Worker};
use crate::bitswap::http::{CarFetch, CarNews, End};
use crate::bitswap::key::Key;
use crate::bitswap::session::SessionId;
use crate::bitswap::{Blocks, Network, Work};
use crate::event::Event;
use crate::explain::Step;
use cairn_store::{Block, Cid};
use libp2p::PeerId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// CARs under way.
#[derive(Debug, Default)]
pub(super) struct Cars {
    under_way: HashMap<SessionId, Car>,
    /// Gateways that give none.
    without: HashSet<PeerId>,
}

#[derive(Debug)]
struct Car {
    progress_at: Instant,
    /// Wants that wait for it, the oldest first.
    held: VecDeque<(Instant, Cid)>,
}

impl Cars {
    /// Holds a want back if its session's CAR is coming; false if there is none.
    pub(super) fn hold(&mut self, session: SessionId, cid: Cid, now: Instant) -> bool {
        let Some(car) = self.under_way.get_mut(&session) else {
            return false;
        };
        let gets_on = now.saturating_duration_since(car.progress_at) < HELD_IDLE;
        let holds = gets_on && car.held.len() < HELD_MAX;
        if holds {
            car.held.push_back((now, cid));
        }
        holds
    }
}

impl<B: Blocks, N: Network> Worker<B, N> {
    /// Asks for all that `root` leads to in one go, if one gateway gave the root and no peer is
    /// known to have it.
    pub(super) fn prefetch(&mut self, work: &Arc<Work>, root: Block, now: Instant) {
        let session = work.id;
        let cars = &self.state.cars;
        if cars.under_way.len() >= CARS_MAX || cars.under_way.contains_key(&session) {
            return;
        }
        let Some(source) = self.state.client.only_source(session) else {
            return;
        };
        let Some(pool) = self
            .pool_of(&source)
            .filter(|_| !cars.without.contains(&source))
        else {
            return;
        };
        let fetch = CarFetch {
            pool,
            source,
            session,
            work: Arc::downgrade(work),
            root,
            blocks: self.blocks.clone(),
            inputs: self.sinks.inputs.clone(),
            metrics: self.http.metrics.clone(),
        };
        let car = Car {
            progress_at: now,
            held: VecDeque::new(),
        };
        self.state.cars.under_way.insert(session, car);
        self.spawn("http car", fetch.run());
    }

    pub(super) fn on_car(
        &mut self,
        session: SessionId,
        source: PeerId,
        news: CarNews,
        now: Instant,
    ) {
        let cars = &mut self.state.cars;
        let end = match news {
            CarNews::Arrived(blocks) => {
                if let Some(car) = cars.under_way.get_mut(&session) {
                    car.progress_at = now;
                }
                return self.on_arrived(&blocks, now);
            }
            CarNews::Over(end) => end,
        };
        if let Some(car) = cars.under_way.remove(&session) {
            let held = car.held.into_iter().map(|(_, cid)| cid);
            self.state.want_at_last(session, held, now);
        }
        match end {
            End::Done | End::Failed => {}
            End::Refused => {
                let without = &mut self.state.cars.without;
                if without.len() >= WITHOUT_MAX {
                    without.clear();
                }
                without.insert(source);
            }
            End::Wrong => {
                self.metrics.wrong_blocks.inc();
                self.state.client.nonsense(&source);
            }
        }
    }

    /// Blocks of a CAR are in the store.
    fn on_arrived(&mut self, blocks: &[Block], now: Instant) {
        let state = &mut self.state;
        let mut arrived = Vec::with_capacity(blocks.len());
        for block in blocks {
            let (key, bytes) = (Key::content(block.cid()), block.data().len() as u64);
            self.metrics.blocks_in.inc();
            self.metrics.bytes_in.inc_by(bytes);
            state.client.found(&key, now);
            state.tell_last(&key, || Step::Here);
            for waiter in state.waiters.remove(&key).unwrap_or_default() {
                waiter.gets(block);
            }
            arrived.push((*block.cid(), bytes));
            // Nobody need listen.
            drop(self.events.send(Event::Fetched(*block.cid())));
        }
        state.engine.arrived(&arrived);
    }

    /// Places wants that were held back for long enough.
    pub(super) fn release_held(&mut self, now: Instant) {
        let mut late: Vec<(SessionId, Vec<Cid>)> = Vec::new();
        for (session, car) in &mut self.state.cars.under_way {
            let idle = now.saturating_duration_since(car.progress_at) >= HELD_IDLE;
            let old = |at: Instant| now.saturating_duration_since(at) >= HELD_TIME_MAX;
            let mut cids = Vec::new();
            while let Some((at, _)) = car.held.front()
                && (idle || old(*at))
            {
                cids.extend(car.held.pop_front().map(|(_, cid)| cid));
            }
            late.push((*session, cids));
        }
        for (session, cids) in late {
            self.state.want_at_last(session, cids, now);
        }
    }
}

impl State {
    fn want_at_last(
        &mut self,
        session: SessionId,
        cids: impl IntoIterator<Item = Cid>,
        now: Instant,
    ) {
        for cid in cids {
            let key = Key::content(&cid);
            let waiters = self.waiters.get(&key).map_or(&[][..], Vec::as_slice);
            let is_wanted = waiters.iter().any(|waiter| waiter.session == session);
            if is_wanted && !self.storing.contains(&key) {
                self.client.want(session, cid, now);
                self.tell_standing(session, &key);
            }
        }
    }
}

/// CARs at once. Each costs a thread and some MiB.
const CARS_MAX: usize = 4;
/// Wants of one session that wait for its CAR.
const HELD_MAX: usize = 4096;
/// How long they wait for one that gets nowhere, and for one that gets somewhere else.
const HELD_IDLE: Duration = Duration::from_secs(2);
const HELD_TIME_MAX: Duration = Duration::from_secs(10);
/// Gateways without CARs that are remembered.
const WITHOUT_MAX: usize = 4096;
