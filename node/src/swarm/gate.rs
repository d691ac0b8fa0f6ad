//! What the fence asks besides the network: the filters, and whether a dial is affordable. What it turns
//! away is counted here.
//!
//! Addresses in `limits.exempt` cost no router anything and pass without waiting.

use super::budget::{Budget, Class, Full, Pass};
use super::filters::Filter;
use crate::config::Config;
use crate::limits::Limits;
use crate::network;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// The gate. One that is made by default lets everybody pass.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    rules: Mutex<Rules>,
    /// Whom somebody waits for, and how many do.
    hurried: Mutex<HashMap<PeerId, usize>>,
    budget: Option<Arc<Budget>>,
    /// Whether there is a key of a private network.
    is_private: bool,
    pub(super) outside: Turned,
    pub(super) filtered: Turned,
    /// Dials for which too many waited already.
    overflowed: AtomicU64,
    told: Told,
}

#[derive(Debug, Default)]
struct Rules {
    filters: Vec<Filter>,
    limits: Limits,
}

/// How often somebody wanted to pass and did not.
#[derive(Debug, Default)]
pub(crate) struct Turned {
    dials: AtomicU64,
    arrivals: AtomicU64,
}

impl Turned {
    pub(crate) fn dials(&self) -> u64 {
        self.dials.load(Ordering::Relaxed)
    }

    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::Relaxed)
    }

    pub(super) fn dial(&self) {
        self.dials.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn arrival(&self) {
        self.arrivals.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps the log short: what goes on is told once in a while.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Option<Instant>>);

impl Told {
    /// Whether it is time to tell again; if so, it counts as told.
    pub(super) fn is_due(&self) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = told.is_none_or(|at| now - at >= TELL_EVERY);
        if is_due {
            *told = Some(now);
        }
        is_due
    }
}

/// Whether a dial must be paid for.
#[derive(Debug, Clone)]
pub(super) enum Toll {
    Free,
    Due(Arc<Budget>, Class),
}

impl Gate {
    pub(super) fn new(config: &Config) -> Self {
        let (a_second, at_once) = (config.dials_per_second_max, config.dials_at_once_max);
        Self {
            rules: Mutex::new(Rules {
                filters: config.filters.clone(),
                limits: config.limits.clone(),
            }),
            budget: Some(Budget::new(a_second, at_once, Instant::now())),
            is_private: config.private.is_some(),
            ..Self::default()
        }
    }

    /// Whether an address is one that nobody is to be dialled at or taken from.
    pub(super) fn is_filtered(&self, address: &Multiaddr) -> bool {
        self.filter_of(address).is_some()
    }

    /// The filter that covers it, if one does.
    pub(super) fn filter_of(&self, address: &Multiaddr) -> Option<Filter> {
        let rules = self.rules();
        let mut filters = rules.filters.iter();
        let filter = filters.find(|filter| filter.covers_address(address));
        filter.copied()
    }

    /// Whether the network is a private one, of a key.
    pub(super) const fn is_private(&self) -> bool {
        self.is_private
    }

    /// What a dial costs.
    pub(super) fn toll(&self, address: &Multiaddr) -> Toll {
        match &self.budget {
            Some(budget) if self.applies_to(address) => {
                let peer = match address.iter().last() {
                    Some(Protocol::P2p(peer)) => Some(peer),
                    _ => None,
                };
                let is_hurried = peer.is_some_and(|peer| self.hurried().contains_key(&peer));
                let class = if is_hurried {
                    Class::Urgent
                } else {
                    Class::Plain
                };
                Toll::Due(Arc::clone(budget), class)
            }
            _ => Toll::Free,
        }
    }

    /// Whether limits by address and by dial hold for whoever is there.
    pub(super) fn applies_to(&self, address: &Multiaddr) -> bool {
        self.rules().limits.apply_to(network::host(address))
    }

    /// Somebody waits for this peer to be dialled.
    pub(super) fn hurry(&self, peer: PeerId) {
        *self.hurried().entry(peer).or_default() += 1;
    }

    /// And no longer does.
    pub(super) fn take_time(&self, peer: &PeerId) {
        let mut hurried = self.hurried();
        if let Some(count) = hurried.get_mut(peer) {
            *count -= 1;
            if *count == 0 {
                hurried.remove(peer);
            }
        }
    }

    /// The filters.
    pub(super) fn filters(&self) -> Vec<Filter> {
        self.rules().filters.clone()
    }

    /// Other filters from now on.
    pub(super) fn set_filters(&self, filters: Vec<Filter>) {
        self.rules().filters = filters;
    }

    /// Other limits from now on.
    pub(super) fn set_limits(&self, limits: &Limits) {
        self.rules().limits.clone_from(limits);
    }

    /// A dial for which there was no place in the line.
    pub(super) fn overflow(&self, full: Full) {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        if self.told.is_due() {
            tracing::warn!(so_far = self.overflowed(), "dials given up: {full}");
        }
    }

    /// How often that was so.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    pub(crate) fn outside(&self) -> &Turned {
        &self.outside
    }

    pub(crate) fn filtered(&self) -> &Turned {
        &self.filtered
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hurried(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.hurried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Toll {
    /// Waits until it is paid.
    pub(super) async fn pay(self) -> Result<Option<Pass>, Full> {
        match self {
            Self::Free => Ok(None),
            Self::Due(budget, class) => budget.pass(class).await.map(Some),
        }
    }
}

/// Time between two lines in the log about the same.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_dial_costs_what_its_address_and_haste_make_it_cost() {
        let gate = Gate::new(&Config::default());
        let peer = PeerId::random();
        let far = address("/ip4/192.0.2.1/tcp/1").with(Protocol::P2p(peer));
        let class = |gate: &Gate, address: &Multiaddr| match gate.toll(address) {
            Toll::Free => None,
            Toll::Due(_, class) => Some(class),
        };
        assert_eq!(class(&gate, &far), Some(Class::Plain));
        gate.hurry(peer);
        gate.hurry(peer);
        gate.take_time(&peer);
        assert_eq!(class(&gate, &far), Some(Class::Urgent));
        gate.take_time(&peer);
        assert_eq!(class(&gate, &far), Some(Class::Plain));
        let near = address("/ip4/127.0.0.1/tcp/1");
        assert_eq!(class(&gate, &near), None);
        gate.set_limits(&Limits {
            exempt: Vec::new(),
            ..Limits::default()
        });
        assert_eq!(class(&gate, &near), Some(Class::Plain));
        assert_eq!(class(&Gate::default(), &far), None);
    }

    #[test]
    fn filters_hold_from_when_they_are_set() {
        let gate = Gate::default();
        let near = address("/ip4/10.0.0.1/tcp/1");
        assert!(!gate.is_filtered(&near));
        gate.set_filters(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(gate.is_filtered(&near));
        assert_eq!(gate.filters().len(), 1);
        gate.set_filters(Vec::new());
        assert!(!gate.is_filtered(&near));
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_is_told_once_in_a_while() {
        let told = Told::default();
        assert!(told.is_due() && !told.is_due());
        tokio::time::advance(TELL_EVERY).await;
        assert!(told.is_due());
    }
}
