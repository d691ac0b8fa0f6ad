//! The worker's dealings with trustless gateways: which there are, and what their drivers tell.

use super::{Peer, State, Worker};
use crate::bitswap::client::Refusal;
use crate::bitswap::http::{Driver, News};
use crate::bitswap::session::SessionId;
use crate::bitswap::streams::Intake;
use crate::bitswap::{Blocks, Network};
use crate::explain::{LeftOut, Step};
use crate::http::{Endpoint, Pool, Standing};
use crate::routing::Provider;
use libp2p::PeerId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What makes a peer a source.
#[derive(Debug)]
pub(super) struct Source {
    pool: Arc<Pool>,
    standing: Standing,
    /// When something was last wanted of it.
    wanted_at: Instant,
}

impl<B: Blocks, N: Network> Worker<B, N> {
    /// The operator's gateways.
    pub(super) fn add_configured_sources(&mut self, now: Instant) {
        for endpoint in std::mem::take(&mut self.http.configured) {
            let name = endpoint.to_string();
            if self
                .add_source(endpoint, Standing::Configured, now)
                .is_err()
            {
                tracing::warn!(
                    gateway = name,
                    "gateway outside the network, left out; change `network` or `fetch.gateways`"
                );
            }
        }
    }

    /// Adds a source, unless it is there, and tells its name.
    fn add_source(
        &mut self,
        endpoint: Endpoint,
        standing: Standing,
        now: Instant,
    ) -> Result<PeerId, LeftOut> {
        let id = endpoint.id().ok_or(LeftOut::Outside)?;
        if self.state.peers.contains_key(&id) {
            return Ok(id);
        }
        if standing == Standing::Announced && self.announced() >= ANNOUNCED_MAX {
            tracing::debug!(gateway = %endpoint, "not asked: too many gateways were announced");
            return Err(LeftOut::TooMany);
        }
        if self.http.is_barred(&id) {
            return Err(LeftOut::Barred);
        }
        let intake = Intake::new(id, self.throttle.gate());
        let gate = Arc::clone(&intake.gate);
        let pool = self.http.pool(endpoint, standing, gate, &self.tasks);
        let pool = pool.ok_or(LeftOut::Outside)?;
        self.state.next_stay += 1;
        let mut peer = Peer::new(self.state.next_stay, intake);
        peer.source = Some(Source {
            pool: Arc::new(pool),
            standing,
            wanted_at: now,
        });
        self.state.peers.insert(id, peer);
        self.state.client.source(id, standing, now);
        Ok(id)
    }

    fn announced(&self) -> usize {
        let peers = self.state.peers.values();
        peers
            .filter_map(|peer| peer.source.as_ref())
            .filter(|source| source.standing == Standing::Announced)
            .count()
    }

    /// Takes the gateways out of what a search found; gives back what else is to be reached.
    pub(super) fn take_sources(
        &mut self,
        session: SessionId,
        mut provider: Provider,
        now: Instant,
    ) -> Option<Provider> {
        let mut endpoints = Vec::new();
        provider.addresses.retain(|address| {
            let endpoint = Endpoint::from_multiaddr(address);
            let is_none = endpoint.is_none();
            endpoints.extend(endpoint);
            is_none
        });
        if endpoints.is_empty() {
            return Some(provider);
        }
        let is_only_http = provider.addresses.is_empty();
        endpoints.truncate(ENDPOINTS_A_PROVIDER_MAX);
        let mut counted = false;
        for endpoint in endpoints {
            let url = endpoint.to_string();
            let id = match self.add_source(endpoint, Standing::Announced, now) {
                Ok(id) => id,
                Err(why) => {
                    self.state.tell_work(session, || Step::LeftOut { url, why });
                    continue;
                }
            };
            if is_only_http && !counted {
                self.state.client.provider(session, id);
                counted = true;
            } else {
                self.state.client.source_for(session, id);
            }
        }
        (!is_only_http).then_some(provider)
    }

    /// The transport to a source, if `id` is one.
    pub(super) fn driver(&self, id: &PeerId) -> Option<Driver> {
        let peer = self.state.peers.get(id)?;
        let source = peer.source.as_ref()?;
        Some(Driver {
            pool: Arc::clone(&source.pool),
            stay: peer.stay,
            intake: Arc::clone(&peer.intake),
            sinks: self.sinks.clone(),
            metrics: self.http.metrics.clone(),
        })
    }

    /// The way to a source.
    pub(super) fn pool_of(&self, id: &PeerId) -> Option<Arc<Pool>> {
        let source = self.state.peers.get(id)?.source.as_ref()?;
        Some(Arc::clone(&source.pool))
    }

    pub(super) fn on_news(&mut self, id: PeerId, stay: u64, news: News, now: Instant) {
        let state = &mut self.state;
        let Some(peer) = state.peers.get_mut(&id).filter(|peer| peer.stay == stay) else {
            return;
        };
        match news {
            News::Heard => {
                peer.words_under_way -= 1;
                state.talkative.insert(id);
            }
            News::Absent(cid) => state.client.refused(&id, &cid, Refusal::Absent, now),
            News::Failed(cid) => state.client.refused(&id, &cid, Refusal::Failed, now),
            News::Rests => state.client.rests(&id),
            News::Ready => state.client.ready(&id),
        }
    }

    /// Lets go of a source that sends what nobody asked for; false if `id` is a peer.
    pub(super) fn bar_source(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.state.peers.get(&id) else {
            return false;
        };
        let Some(source) = &peer.source else {
            return false;
        };
        tracing::warn!(
            gateway = ?source.pool,
            "gateway is asked no more: what it sends are not the blocks that it is asked for"
        );
        self.http.bar(id);
        self.remove_source(&id);
        true
    }

    fn remove_source(&mut self, id: &PeerId) {
        // Its driver ends with the other end of its inbox, its connections with the driver.
        self.state.client.disconnected(id);
        // Its address is told with what happened to it.
        self.state.tell();
        self.state.peers.remove(id);
    }

    /// Lets go of announced sources of which nothing was wanted for a while.
    pub(super) fn retire_sources(&mut self, now: Instant) {
        let state = &mut self.state;
        let mut idle = Vec::new();
        for (id, peer) in &mut state.peers {
            let Some(source) = &mut peer.source else {
                continue;
            };
            if state.client.wanted_of(id) > 0 {
                source.wanted_at = now;
            } else if source.standing == Standing::Announced
                && now.saturating_duration_since(source.wanted_at) >= ANNOUNCED_IDLE
            {
                idle.push(*id);
            }
        }
        for id in idle {
            self.remove_source(&id);
        }
        let ready = self.state.client.sources();
        let ready = i64::try_from(ready).unwrap_or(i64::MAX);
        self.http.metrics.sources.set(ready);
    }
}

impl State {
    /// A gateway is told of by its address: the name that it has among peers says nothing.
    pub(super) fn of_gateway(&self, step: Step) -> Step {
        let peer = step.peer().and_then(|id| self.peers.get(id));
        let Some(source) = peer.and_then(|peer| peer.source.as_ref()) else {
            return step;
        };
        let step = match (step, source.pool.trouble()) {
            (Step::Failed { peer }, Some(why)) => Step::Unreached { peer, why },
            (step, _) => step,
        };
        Step::Gateway {
            url: source.pool.endpoint().to_string(),
            step: Box::new(step),
        }
    }

    /// Which gateways cannot be reached, and why, of those that were asked and those that would have been if
    /// they were not left alone for just that; no more than are told.
    pub(super) fn unreached(&self, asked: &BTreeSet<PeerId>) -> Vec<(String, Arc<str>)> {
        let sources = self
            .peers
            .iter()
            .filter_map(|(id, peer)| Some((id, peer.source.as_ref()?)))
            .filter(|(id, source)| asked.contains(id) || source.standing == Standing::Configured)
            .map(|(_, source)| source);
        let troubled = sources.filter_map(|source| {
            let why = source.pool.trouble()?;
            Some((source.pool.endpoint().to_string(), why))
        });
        troubled.take(UNREACHED_TOLD_MAX).collect()
    }
}

/// Announced gateways at once. Each costs a task and, when busy, some sockets.
pub(in crate::bitswap) const ANNOUNCED_MAX: usize = 64;
/// Gateways that cannot be reached of which is told.
const UNREACHED_TOLD_MAX: usize = 4;
/// How long an announced gateway of which nothing is wanted is kept.
const ANNOUNCED_IDLE: Duration = Duration::from_secs(60);
/// Gateways of one provider.
const ENDPOINTS_A_PROVIDER_MAX: usize = 4;
