//! For whom lookups are: each job has a lookup in every DHT that this node takes part in, and is over when all are.

use super::{Contact, Realm, Worker, requests};
use crate::dht::values::Key;
use crate::dht::{Dht, LookupId, Outcome};
use crate::event::Event;
use crate::metrics::{Ended, Query};
use crate::provide::sweep::Reach;
use crate::routing::command::{Ask, Command, Find, Region, Value, Values};
use crate::routing::{Provider, RoutingError};
use cairn_store::Cid;
use libp2p::PeerId;
use std::collections::HashSet;
use std::time::Instant;
use tokio::sync::oneshot;

/// A job's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct JobId(u64);

/// Lookups, what came of them, and whom to tell.
#[derive(Debug)]
pub(super) struct Job {
    what: What,
    lookups: Vec<(usize, LookupId)>,
    /// Peers that are being told something.
    pub(super) telling: usize,
    told: usize,
    begun: Instant,
    /// Whether there was nobody to ask when it began.
    is_alone: bool,
}

#[derive(Debug)]
enum What {
    Find {
        find: Find,
        seen: HashSet<PeerId>,
    },
    Provide(Ask<Cid, usize>),
    Peer {
        ask: Ask<PeerId, Provider>,
        found: Option<(usize, Contact)>,
    },
    Nearest {
        ask: Ask<Vec<u8>, Vec<Provider>>,
        nearest: Vec<(usize, Contact)>,
    },
    Values {
        values: Values,
        found: usize,
    },
    Keep(Ask<Value, usize>),
    Tell(Ask<(Provider, Vec<Vec<u8>>), ()>),
    Region {
        ask: Ask<Region, Vec<Vec<Provider>>>,
        nearest: Vec<(usize, Contact)>,
    },
}

impl What {
    const fn query(&self) -> Query {
        match self {
            Self::Find { .. } => Query::Find,
            Self::Provide(_) | Self::Tell(_) => Query::Provide,
            Self::Peer { .. } => Query::Peer,
            Self::Nearest { .. } | Self::Region { .. } => Query::Nearest,
            Self::Values { .. } => Query::Value,
            Self::Keep(_) => Query::Keep,
        }
    }

    /// Whether nobody waits for it any more.
    fn is_unwanted(&self) -> bool {
        match self {
            Self::Find { find, .. } => find.found.is_closed(),
            Self::Provide(ask) => ask.reply.is_closed(),
            Self::Peer { ask, .. } => ask.reply.is_closed(),
            Self::Nearest { ask, .. } => ask.reply.is_closed(),
            Self::Values { values, .. } => values.found.is_closed(),
            Self::Keep(ask) => ask.reply.is_closed(),
            Self::Tell(ask) => ask.reply.is_closed(),
            Self::Region { ask, .. } => ask.reply.is_closed(),
        }
    }
}

impl Worker {
    pub(super) fn start(&mut self, command: Command) {
        match command {
            Command::Find(find) => {
                let (key, limit) = (find.cid.hash().to_bytes(), find.limit);
                let seen = HashSet::new();
                self.begin(What::Find { find, seen }, |dht, now| {
                    dht.find_providers(key.clone(), limit, now)
                });
            }
            Command::Provide(ask) => {
                let key = ask.about.hash().to_bytes();
                self.begin(What::Provide(ask), |dht, now| dht.provide(key.clone(), now));
            }
            Command::Peer(ask) => {
                let peer = ask.about;
                let found = None;
                self.begin(What::Peer { ask, found }, |dht, now| {
                    dht.find_peer(peer, now)
                });
            }
            Command::Nearest(ask) => {
                let key = ask.about.clone();
                let nearest = Vec::new();
                self.begin(What::Nearest { ask, nearest }, |dht, now| {
                    dht.find_nearest(key.clone(), now)
                });
            }
            Command::Values(values) => {
                let key = values.key.clone();
                let own = self.values.of(&key, Instant::now(), crate::clock::wall());
                let mut found = 0;
                if let Some(own) = own {
                    found = 1;
                    // There is room: nothing was sent yet.
                    let _ = values.found.try_send(Ok(own));
                }
                self.begin(What::Values { values, found }, |dht, now| {
                    dht.find_values(key.clone(), now)
                });
            }
            Command::Keep(ask) => {
                let Value { key, value, by } = ask.about.clone();
                let (now, wall) = (Instant::now(), crate::clock::wall());
                let own = self.values.of(&key, now, wall);
                let is_newer = |own: &Vec<u8>| {
                    Key::parse(&key).is_some_and(|kind| kind.is_better(own, &value))
                };
                if own.as_ref().is_some_and(is_newer) {
                    let _ = ask.reply.send(Err(RoutingError::NewerValueKept));
                    return;
                }
                let sender = by.map(|peer| (peer, None));
                // Others can be asked to keep it even if there is no room here.
                let _ = self.values.keep(key.clone(), value, sender, now, wall);
                self.begin(What::Keep(ask), |dht, now| {
                    dht.find_nearest(key.clone(), now)
                });
            }
            Command::Tell(ask) => self.start_telling(ask),
            Command::Region(ask) => {
                let Region { keys, bits } = ask.about.clone();
                let nearest = Vec::new();
                self.begin(What::Region { ask, nearest }, |dht, now| {
                    dht.sweep(keys.clone(), bits, now)
                });
            }
            // Whoever asked may have stopped waiting.
            Command::Reach(reply) => drop(reply.send(self.reach())),
        }
    }

    fn begin(&mut self, what: What, start: impl Fn(&mut Dht, Instant) -> LookupId) {
        let (now, is_alone) = (Instant::now(), self.is_alone());
        let id = self.next_job();
        let mut lookups = Vec::new();
        for (at, (_, dht)) in self.realms.iter_mut().enumerate() {
            let lookup = start(dht, now);
            self.lookups.insert((at, lookup), id);
            lookups.push((at, lookup));
        }
        let job = Job {
            what,
            lookups,
            telling: 0,
            told: 0,
            begun: now,
            is_alone,
        };
        self.jobs.insert(id, job);
    }

    fn next_job(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job)
    }

    /// Tells one peer, in every DHT in which its addresses mean something.
    fn start_telling(&mut self, ask: Ask<(Provider, Vec<Vec<u8>>), ()>) {
        let id = self.next_job();
        let (Provider { peer, addresses }, keys) = ask.about.clone();
        let fits = |realm: Realm| addresses.iter().any(|at| self.network.fits(realm, at));
        let realms = self.realms.iter().map(|(realm, _)| *realm).enumerate();
        let realms: Vec<(usize, Realm)> = realms.filter(|(_, realm)| fits(*realm)).collect();
        let job = Job {
            what: What::Tell(ask),
            lookups: Vec::new(),
            telling: 0,
            told: 0,
            begun: Instant::now(),
            is_alone: false,
        };
        self.jobs.insert(id, job);
        for (at, realm) in realms {
            let all = keys.iter().map(|key| self.provides(realm, key.clone()));
            let all = all.collect();
            self.tell(at, id, Contact::new(peer, addresses.clone()), all);
        }
        self.maybe_end(id);
    }

    /// A lookup found a provider.
    pub(super) fn found(&mut self, realm: usize, lookup: LookupId, contact: &Contact) {
        let Some(id) = self.lookups.get(&(realm, lookup)).copied() else {
            return;
        };
        let provider = Provider {
            peer: contact.peer,
            addresses: self.addresses_of(realm, contact),
        };
        let Some(Job {
            what: What::Find { find, seen },
            ..
        }) = self.jobs.get_mut(&id)
        else {
            return;
        };
        if seen.len() < find.limit && seen.insert(provider.peer) {
            // There is room for `limit`; what fails is a receiver that is gone.
            let _ = find.found.try_send(Ok(provider));
        }
        if seen.len() >= find.limit || find.found.is_closed() {
            self.end(id, Ended::Done);
        }
    }

    /// A lookup found a value, which is valid.
    pub(super) fn found_value(&mut self, realm: usize, lookup: LookupId, value: Vec<u8>) {
        let id = self.lookups.get(&(realm, lookup));
        if let Some(Job {
            what: What::Values { values, found },
            ..
        }) = id.and_then(|id| self.jobs.get_mut(id))
        {
            *found += 1;
            // Whoever takes them too slowly gets the next.
            let _ = values.found.try_send(Ok(value));
        }
    }

    pub(super) fn lookup_done(&mut self, realm: usize, lookup: LookupId, outcome: Outcome) {
        let Some(id) = self.lookups.remove(&(realm, lookup)) else {
            // Nobody but the table waited for it.
            self.parts.metrics.query_ended(Query::Refresh, Ended::Done);
            return;
        };
        let mut keep = None;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.lookups.retain(|other| *other != (realm, lookup));
            match &mut job.what {
                What::Peer { found, .. } => {
                    let peer = outcome.peer.map(|contact| (realm, contact));
                    *found = found.take().or(peer);
                }
                What::Nearest { nearest, .. } | What::Region { nearest, .. } => {
                    let contacts = outcome.nearest.into_iter();
                    nearest.extend(contacts.map(|contact| (realm, contact)));
                }
                What::Keep(ask) => {
                    let Value { key, value, .. } = ask.about.clone();
                    keep = Some(((key, value), outcome.nearest));
                }
                What::Find { .. } | What::Provide(_) | What::Values { .. } | What::Tell(_) => {}
            }
        }
        if let Some(((key, value), nearest)) = keep {
            for contact in nearest {
                let message = requests::keep(key.clone(), value.clone());
                self.tell(realm, id, contact, vec![message]);
            }
        }
        self.maybe_end(id);
    }

    /// A peer was told what a job has to tell, or was not.
    pub(super) fn told(&mut self, id: JobId, was_told: bool) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.telling -= 1;
            job.told += usize::from(was_told);
        }
        self.maybe_end(id);
    }

    fn maybe_end(&mut self, id: JobId) {
        let job = self.jobs.get(&id);
        if job.is_some_and(|job| job.lookups.is_empty() && job.telling == 0) {
            self.end(id, Ended::Done);
        }
    }

    /// Ends jobs that nobody waits for, or that take too long.
    pub(super) fn end_late_jobs(&mut self, now: Instant) {
        let since = |job: &Job| now.saturating_duration_since(job.begun);
        let is_over = |job: &Job| since(job) >= self.lookup_timeout || job.what.is_unwanted();
        let over = self.jobs.iter().filter(|(_, job)| is_over(job));
        let ended = |job: &Job| match job.what.is_unwanted() {
            true => Ended::Done,
            false => Ended::TooSlow,
        };
        let over: Vec<(JobId, Ended)> = over.map(|(id, job)| (*id, ended(job))).collect();
        for (id, ended) in over {
            self.end(id, ended);
        }
    }

    fn end(&mut self, id: JobId, ended: Ended) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        for (realm, lookup) in job.lookups {
            self.lookups.remove(&(realm, lookup));
            if let Some((_, dht)) = self.realms.get_mut(realm) {
                dht.cancel(lookup);
            }
        }
        let query = job.what.query();
        let alone = |has_none: bool| match job.is_alone && has_none {
            true => Ended::Nobody,
            false => ended,
        };
        // Whoever asked may have stopped waiting, so failures to answer are nobody's.
        let ended = match job.what {
            What::Find { find, seen } => {
                let ended = alone(seen.is_empty());
                if let Some(error) = error_of(ended, || RoutingError::TooSlow(find.cid)) {
                    let _ = find.found.try_send(Err(error));
                }
                ended
            }
            What::Provide(ask) => {
                let cid = ask.about;
                let ended = alone(true);
                let answer = match ended {
                    Ended::Nobody => Err(RoutingError::NoPeers),
                    _ if job.told > 0 => Ok(job.told),
                    Ended::TooSlow => Err(RoutingError::TooSlow(cid)),
                    Ended::Done => Err(RoutingError::NotTaken(cid)),
                };
                if answer.is_ok() {
                    self.provided(cid);
                }
                let _ = ask.reply.send(answer);
                ended
            }
            What::Peer { ask, found } => {
                let ended = alone(found.is_none());
                let found = found.map(|(realm, contact)| Provider {
                    peer: contact.peer,
                    addresses: self.addresses_of(realm, &contact),
                });
                reply(
                    ask.reply,
                    ended,
                    found,
                    RoutingError::PeerNotFound(ask.about),
                );
                ended
            }
            What::Nearest { ask, nearest } => {
                let ended = alone(nearest.is_empty());
                let mut seen = HashSet::new();
                let nearest = nearest
                    .iter()
                    .filter(|(_, contact)| seen.insert(contact.peer));
                let nearest: Vec<Provider> = nearest
                    .map(|(realm, contact)| Provider {
                        peer: contact.peer,
                        addresses: self.addresses_of(*realm, contact),
                    })
                    .collect();
                let nearest = (ended == Ended::Done || !nearest.is_empty()).then_some(nearest);
                reply(ask.reply, ended, nearest, RoutingError::LookupTooSlow);
                ended
            }
            What::Values { values, found } => {
                let ended = alone(found == 0);
                if let Some(error) = error_of(ended, || RoutingError::LookupTooSlow) {
                    let _ = values.found.try_send(Err(error));
                }
                ended
            }
            What::Keep(ask) => {
                let ended = alone(true);
                let told = (job.told > 0).then_some(job.told);
                reply(ask.reply, ended, told, RoutingError::ValueNotTaken);
                ended
            }
            What::Region { ask, nearest } => {
                let ended = alone(nearest.is_empty());
                let mut of_each = vec![Vec::new(); self.realms.len()];
                for (realm, contact) in &nearest {
                    if let Some(found) = of_each.get_mut(*realm) {
                        found.push(Provider {
                            peer: contact.peer,
                            addresses: self.addresses_of(*realm, contact),
                        });
                    }
                }
                let found = (!nearest.is_empty()).then_some(of_each);
                reply(ask.reply, ended, found, RoutingError::LookupTooSlow);
                ended
            }
            What::Tell(ask) => {
                let peer = ask.about.0.peer;
                let told = (job.told > 0).then_some(());
                reply(ask.reply, ended, told, RoutingError::NotTold(peer));
                ended
            }
        };
        self.parts.metrics.query_ended(query, ended);
    }

    /// Whom there is to ask, and how many there are of the first DHT in which that is known.
    fn reach(&self) -> Reach {
        Reach {
            peers: self.realms.iter().map(|(_, dht)| dht.peers()).sum(),
            size: self.realms.iter().find_map(|(_, dht)| dht.size()),
        }
    }

    fn provided(&self, cid: Cid) {
        // Nobody listening is fine.
        let _ = self.parts.events.send(Event::Provided(cid));
    }

    /// Tells everybody that nothing more comes.
    pub(super) fn say_stopping(&mut self) {
        for (_, command) in self.parked.drain(..) {
            match command {
                Command::Find(find) => drop(find.found.try_send(Err(RoutingError::Stopping))),
                Command::Values(values) => drop(values.found.try_send(Err(RoutingError::Stopping))),
                // A dropped reply says the same.
                _ => {}
            }
        }
        for (_, job) in self.jobs.drain() {
            match job.what {
                What::Find { find, .. } => drop(find.found.try_send(Err(RoutingError::Stopping))),
                What::Values { values, .. } => {
                    drop(values.found.try_send(Err(RoutingError::Stopping)));
                }
                _ => {}
            }
        }
    }
}

fn error_of(ended: Ended, too_slow: impl FnOnce() -> RoutingError) -> Option<RoutingError> {
    match ended {
        Ended::Done => None,
        Ended::Nobody => Some(RoutingError::NoPeers),
        Ended::TooSlow => Some(too_slow()),
    }
}

fn reply<T>(
    to: oneshot::Sender<Result<T, RoutingError>>,
    ended: Ended,
    found: Option<T>,
    otherwise: RoutingError,
) {
    let answer = match (found, ended) {
        (Some(found), _) => Ok(found),
        (None, Ended::Nobody) => Err(RoutingError::NoPeers),
        (None, _) => Err(otherwise),
    };
    let _ = to.send(answer);
}
