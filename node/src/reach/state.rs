//! Where we can be reached: what is known of each address, and what follows from it.
//!
//! An engine: no I/O and no clock. It is told where we listen, what a router maps and what peers see of us,
//! asks for probes, and hears how they ended. Where the network is our own (`local`, `lan`) listening is enough.
//!
//! Invariants: an address is confirmed exactly while its standing is [`Standing::Reachable`], and outside our own
//! network nothing gives it that but probes, of more than one peer where there is more than one to ask. What was
//! confirmed is asked about again and forgotten when nobody answers for it any more. No more than
//! [`CANDIDATES_MAX`] addresses, [`SERVERS_MAX`] peers and [`PROBES_AT_ONCE`] probes are held, whatever peers say.

use crate::dht::table::Group;
use crate::negotiation::is_relayed;
use crate::network::{self, Network};
use libp2p::{Multiaddr, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Whether we can be reached at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reachability {
    /// Nobody could say yet.
    #[default]
    Unknown,
    /// Not without help.
    Private,
    /// At one address at least.
    Public,
}

/// What is known of one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Standing {
    /// Not enough.
    #[default]
    Unknown,
    /// Peers came to it by themselves.
    Reachable,
    /// They tried and could not.
    Unreachable,
}

/// How a probe ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The peer came to the address.
    Reached,
    /// It tried and could not.
    Refuted,
    /// It did not try, or did not say.
    Unanswered,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Have this peer try this address.
    Probe { address: Multiaddr, server: PeerId },
    /// We can be reached here.
    Confirm(Multiaddr),
    /// We cannot, or nobody knows it any more.
    Withdraw(Multiaddr),
    /// Whether we can be reached at all has changed.
    Became(Reachability),
}

/// What is known of our own reach.
#[derive(Debug)]
pub(crate) struct State {
    network: Network,
    candidates: BTreeMap<Multiaddr, Candidate>,
    /// Peers that try addresses.
    servers: BTreeMap<PeerId, Server>,
    reachability: Reachability,
    /// Since when peers see us come from elsewhere than where we listen, and nobody reaches us.
    hidden: Option<Instant>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Candidate {
    listens: bool,
    mapped: bool,
    /// Who sees us come from here, and when last.
    observers: BTreeMap<Group, Instant>,
    /// The last answers, the newest at the end.
    answers: VecDeque<Answer>,
    asking: Option<(PeerId, Instant)>,
    /// Not asked about before.
    next: Instant,
    /// Times in a row that it was found unreachable.
    refuted: u32,
    standing: Standing,
    seen: Instant,
}

#[derive(Debug)]
struct Answer {
    server: PeerId,
    group: Group,
    at: Instant,
    reached: bool,
}

#[derive(Debug)]
struct Server {
    group: Group,
    asked: Option<Instant>,
    /// Questions in a row that it did not answer.
    unanswered: u32,
}

impl Candidate {
    fn new(now: Instant) -> Self {
        Self {
            listens: false,
            mapped: false,
            observers: BTreeMap::new(),
            answers: VecDeque::new(),
            asking: None,
            next: now,
            refuted: 0,
            standing: Standing::Unknown,
            seen: now,
        }
    }

    /// Something about the way to it has changed: what was found before says little.
    fn changed(&mut self, now: Instant) {
        self.next = now;
        self.refuted = 0;
    }

    fn has_ground(&self) -> bool {
        self.listens || self.mapped || !self.observers.is_empty()
    }

    /// Who is kept when there are too many.
    fn worth(&self) -> (bool, bool, bool, usize, Instant) {
        (
            self.standing == Standing::Reachable,
            self.listens,
            self.mapped,
            self.observers.len(),
            self.seen,
        )
    }

    /// What the answers say, if they say enough: the newest of each peer counts, and peers of one group
    /// count once where there are others.
    fn found(&self, groups: usize) -> Option<Standing> {
        if self.answers.is_empty() {
            return Some(Standing::Unknown);
        }
        let count = |reached: bool| {
            let with = || self.answers.iter().filter(|one| one.reached == reached);
            let distinct: BTreeSet<Group> = with().map(|one| one.group).collect();
            (with().count(), distinct.len())
        };
        let ((yes, yes_groups), (no, no_groups)) = (count(true), count(false));
        let needed = groups.clamp(1, ANSWERS_NEEDED);
        if yes >= no + ANSWERS_NEEDED && yes_groups >= needed {
            return Some(Standing::Reachable);
        }
        if no >= yes + ANSWERS_NEEDED && no_groups >= needed {
            return Some(Standing::Unreachable);
        }
        None
    }
}

impl State {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            network,
            candidates: BTreeMap::new(),
            servers: BTreeMap::new(),
            reachability: Reachability::Unknown,
            hidden: None,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(crate) fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn reachability(&self) -> Reachability {
        self.reachability
    }

    /// Every address that is looked at, and what is known of it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&Multiaddr, Standing)> {
        self.candidates
            .iter()
            .map(|(address, candidate)| (address, candidate.standing))
    }

    /// A listener is up.
    pub(crate) fn listens(&mut self, address: &Multiaddr, now: Instant) {
        if let Some(candidate) = self.candidate(address, now) {
            candidate.listens = true;
            candidate.changed(now);
        }
        self.settle(now);
    }

    /// A listener is gone.
    pub(crate) fn listens_no_more(&mut self, address: &Multiaddr, now: Instant) {
        if let Some(candidate) = self.candidates.get_mut(address) {
            candidate.listens = false;
            candidate.changed(now);
        }
        self.settle(now);
    }

    /// A router says that it hands on what comes to this address.
    pub(crate) fn mapped(&mut self, address: &Multiaddr, now: Instant) {
        if let Some(candidate) = self.candidate(address, now) {
            candidate.mapped = true;
            candidate.changed(now);
        }
        self.settle(now);
    }

    /// It does so no more.
    pub(crate) fn mapped_no_more(&mut self, address: &Multiaddr, now: Instant) {
        if let Some(candidate) = self.candidates.get_mut(address) {
            candidate.mapped = false;
            candidate.changed(now);
        }
        self.settle(now);
    }

    /// A peer at `from` sees us come from `address`.
    pub(crate) fn observed(&mut self, address: &Multiaddr, from: IpAddr, now: Instant) {
        if self.network != Network::Public {
            return;
        }
        let Some(candidate) = self.candidate(address, now) else {
            return;
        };
        candidate.seen = now;
        let group = Group::of(from);
        if candidate.observers.len() < OBSERVERS_MAX || candidate.observers.contains_key(&group) {
            candidate.observers.insert(group, now);
        }
        if !self.is_ours(address) {
            self.hidden.get_or_insert(now);
        }
        self.settle(now);
    }

    /// A connected peer at `ip` tries addresses if asked.
    pub(crate) fn serves(&mut self, peer: PeerId, ip: IpAddr) {
        if self.servers.len() < SERVERS_MAX {
            self.servers.entry(peer).or_insert_with(|| Server {
                group: Group::of(ip),
                asked: None,
                unanswered: 0,
            });
        }
    }

    /// It is gone, or does so no more.
    pub(crate) fn serves_no_more(&mut self, peer: &PeerId) {
        self.servers.remove(peer);
    }

    /// How a probe ended. One that was not asked for changes nothing.
    pub(crate) fn probed(
        &mut self,
        address: &Multiaddr,
        server: PeerId,
        outcome: Outcome,
        now: Instant,
    ) {
        let groups = self.groups();
        let Some(candidate) = self.candidates.get_mut(address) else {
            return;
        };
        if candidate.asking.is_none_or(|(asked, _)| asked != server) {
            return;
        }
        candidate.asking = None;
        let reached = match outcome {
            Outcome::Reached => true,
            Outcome::Refuted => false,
            Outcome::Unanswered => {
                candidate.next = now + PROBE_AGAIN;
                self.unanswered(server);
                return self.settle(now);
            }
        };
        if let Some(known) = self.servers.get_mut(&server) {
            known.unanswered = 0;
            candidate.answers.push_back(Answer {
                server,
                group: known.group,
                at: now,
                reached,
            });
        }
        if candidate.answers.len() > ANSWERS_MAX {
            candidate.answers.pop_front();
        }
        candidate.next = now
            + match (candidate.found(groups), reached) {
                (Some(Standing::Reachable), true) => REPROBE,
                (Some(Standing::Unreachable), false) => {
                    candidate.refuted = candidate.refuted.saturating_add(1);
                    REFUTED_WAIT.saturating_mul(1 << candidate.refuted.min(REFUTED_DOUBLINGS))
                }
                // Not decided, or somebody says otherwise: hear the next one soon.
                _ => PROBE_AGAIN,
            };
        self.settle(now);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for candidate in self.candidates.values_mut() {
            candidate.observers.retain(|_, at| now < *at + OBSERVED_FOR);
            candidate
                .answers
                .retain(|answer| now < answer.at + ANSWER_HOLDS);
            if let Some((server, at)) = candidate.asking
                && now >= at + PROBE_PATIENCE
            {
                candidate.asking = None;
                candidate.next = now + PROBE_AGAIN;
                silent.push(server);
            }
        }
        for server in silent {
            self.unanswered(server);
        }
        self.settle(now);
        self.probe(now);
    }

    /// When [`State::tick`] should be called again.
    pub(crate) fn rest(&self) -> Duration {
        if self.network == Network::Public && !self.servers.is_empty() {
            PROBE_AGAIN
        } else {
            IDLE_REST
        }
    }

    /// The entry of an address that may be one of ours, made if there is none; `None` if it may not.
    fn candidate(&mut self, address: &Multiaddr, now: Instant) -> Option<&mut Candidate> {
        let ip = network::host(address)?;
        if is_relayed(address) || ip.is_unspecified() || !self.network.announces(address) {
            return None;
        }
        if !self.candidates.contains_key(address) && self.candidates.len() >= CANDIDATES_MAX {
            let least = self
                .candidates
                .iter()
                .min_by_key(|(_, candidate)| candidate.worth())
                .map(|(address, _)| address.clone())?;
            self.drop_candidate(&least);
        }
        Some(
            self.candidates
                .entry(address.clone())
                .or_insert_with(|| Candidate::new(now)),
        )
    }

    fn drop_candidate(&mut self, address: &Multiaddr) {
        let gone = self.candidates.remove(address);
        if gone.is_some_and(|gone| gone.standing == Standing::Reachable) {
            self.actions.push_back(Action::Withdraw(address.clone()));
        }
    }

    /// Whether this host is one of this machine's own.
    fn is_ours(&self, address: &Multiaddr) -> bool {
        let host = network::host(address);
        self.candidates
            .iter()
            .any(|(other, candidate)| candidate.listens && network::host(other) == host)
    }

    /// How many groups of peers there are to ask.
    fn groups(&self) -> usize {
        let groups: BTreeSet<Group> = self.servers.values().map(|server| server.group).collect();
        groups.len()
    }

    fn unanswered(&mut self, peer: PeerId) {
        if let Some(server) = self.servers.get_mut(&peer) {
            server.unanswered += 1;
            if server.unanswered >= UNANSWERED_MAX {
                self.servers.remove(&peer);
            }
        }
    }

    /// How many groups must see an address before it is worth a probe: behind some routers every
    /// connection comes from another port, and each is seen by one peer only.
    fn quorum(&self) -> usize {
        let observers: BTreeSet<Group> = self
            .candidates
            .values()
            .flat_map(|candidate| candidate.observers.keys().copied())
            .collect();
        observers.len().clamp(1, OBSERVERS_NEEDED)
    }

    fn is_worth_probing(candidate: &Candidate, quorum: usize) -> bool {
        candidate.listens
            || candidate.mapped
            || candidate.observers.len() >= quorum
            || candidate.standing == Standing::Reachable
    }

    /// Draws the consequences.
    fn settle(&mut self, now: Instant) {
        let groups = self.groups();
        let ours = self.network != Network::Public;
        let mut stale = Vec::new();
        for (address, candidate) in &mut self.candidates {
            let found = if ours {
                Some(if candidate.listens {
                    Standing::Reachable
                } else {
                    Standing::Unknown
                })
            } else {
                candidate.found(groups)
            };
            let was = candidate.standing;
            candidate.standing = found.unwrap_or(was);
            match (was, candidate.standing) {
                (Standing::Reachable, Standing::Reachable) => {}
                (_, Standing::Reachable) => {
                    candidate.refuted = 0;
                    self.actions.push_back(Action::Confirm(address.clone()));
                }
                (Standing::Reachable, _) => {
                    self.actions.push_back(Action::Withdraw(address.clone()));
                }
                _ => {}
            }
            if !candidate.has_ground() && candidate.standing != Standing::Reachable {
                stale.push(address.clone());
            }
        }
        for address in stale {
            self.candidates.remove(&address);
        }
        let verdict = self.verdict(now);
        if verdict != self.reachability {
            self.reachability = verdict;
            self.actions.push_back(Action::Became(verdict));
        }
    }

    fn verdict(&mut self, now: Instant) -> Reachability {
        let any = |standing: Standing| {
            self.candidates
                .values()
                .any(|candidate| candidate.standing == standing)
        };
        if any(Standing::Reachable) {
            self.hidden = None;
            return Reachability::Public;
        }
        let is_seen = |candidate: &Candidate| !candidate.observers.is_empty();
        if self.hidden.is_some() && !self.candidates.values().any(is_seen) {
            self.hidden = None;
        }
        let quorum = self.quorum();
        let mut probed = self
            .candidates
            .values()
            .filter(|candidate| Self::is_worth_probing(candidate, quorum))
            .peekable();
        let all_refuted = probed.peek().is_some()
            && probed.all(|candidate| candidate.standing == Standing::Unreachable);
        let is_hidden = self.hidden.is_some_and(|since| now >= since + HIDDEN_FOR);
        if all_refuted || is_hidden {
            return Reachability::Private;
        }
        // Not until something else is known: what is being asked again is no news.
        if self.reachability == Reachability::Private && any(Standing::Unreachable) {
            return Reachability::Private;
        }
        Reachability::Unknown
    }

    fn probe(&mut self, now: Instant) {
        if self.network != Network::Public {
            return;
        }
        let quorum = self.quorum();
        let under_way = self
            .candidates
            .values()
            .filter(|candidate| candidate.asking.is_some())
            .count();
        let mut due: Vec<_> = self
            .candidates
            .iter_mut()
            .filter(|(_, candidate)| {
                candidate.asking.is_none()
                    && candidate.next <= now
                    && Self::is_worth_probing(candidate, quorum)
            })
            .collect();
        due.sort_by_key(|(_, candidate)| std::cmp::Reverse(candidate.worth()));
        let room = PROBES_AT_ONCE.saturating_sub(under_way);
        for (address, candidate) in due.into_iter().take(room) {
            let heard: Vec<PeerId> = candidate
                .answers
                .iter()
                .map(|answer| answer.server)
                .collect();
            let heard_groups: Vec<Group> = candidate
                .answers
                .iter()
                .map(|answer| answer.group)
                .collect();
            let server = self
                .servers
                .iter_mut()
                .filter(|(_, server)| server.asked.is_none_or(|at| now >= at + SERVER_RESTS))
                // Who was not heard about it yet, of those the one asked longest ago.
                .min_by_key(|(peer, server)| {
                    let last = heard.iter().rposition(|one| one == *peer);
                    let last_group = heard_groups.iter().rposition(|one| *one == server.group);
                    (last_group, last, server.asked)
                });
            let Some((peer, server)) = server else {
                return;
            };
            server.asked = Some(now);
            candidate.asking = Some((*peer, now));
            self.actions.push_back(Action::Probe {
                address: address.clone(),
                server: *peer,
            });
        }
    }
}

/// Addresses looked at. Behind some routers every connection shows another one.
const CANDIDATES_MAX: usize = 32;
/// Peers kept that try addresses.
const SERVERS_MAX: usize = 64;
/// Groups of peers noted that see an address.
const OBSERVERS_MAX: usize = 16;
/// Groups that must see the same address before it is tried, where there are as many.
const OBSERVERS_NEEDED: usize = 2;
/// Answers kept of each address.
const ANSWERS_MAX: usize = 4;
/// By how many answers one side must lead; from as many groups, where there are as many.
const ANSWERS_NEEDED: usize = 2;
/// Probes under way.
const PROBES_AT_ONCE: usize = 4;
/// Questions in a row without an answer after which a peer is not asked any more.
const UNANSWERED_MAX: u32 = 3;
/// How long a peer rests after a question; others allow twelve a minute.
const SERVER_RESTS: Duration = Duration::from_secs(5);
/// How soon an address is tried again of which too little is known.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
/// How long an answer may take: a dial, and up to 100 kB before it.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// How often what is reachable is tried again.
const REPROBE: Duration = Duration::from_secs(30 * 60);
/// How long an answer holds: an address of which nobody knew for so long counts for nothing.
const ANSWER_HOLDS: Duration = Duration::from_secs(2 * 3600);
/// After how long what is unreachable is tried again; doubled each time.
const REFUTED_WAIT: Duration = Duration::from_secs(5 * 60);
/// How often it is doubled: to 80 minutes.
const REFUTED_DOUBLINGS: u32 = 4;
/// How long what a peer sees counts; it says so every five minutes while it is connected.
const OBSERVED_FOR: Duration = Duration::from_secs(30 * 60);
/// How long peers may see us come from elsewhere, without anybody reaching us, before we take it that nobody can.
const HIDDEN_FOR: Duration = Duration::from_secs(30);
/// How often to look whether something has grown old.
const IDLE_REST: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
