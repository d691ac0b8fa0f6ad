//! What is asked of peers and told to them: a task each, which dials, opens a stream and waits for the answer.

use super::jobs::JobId;
use super::{Message, Order, Worker};
use crate::dht::acquaintance::Met;
use crate::dht::message::{Kind, Record};
use crate::dht::streams::{self, Room};
use crate::dht::table::Contact;
use crate::dht::values::Key;
use crate::dht::{Action, Answer, LookupId, Request};
use crate::metrics;
use crate::negotiation::OpenError;
use crate::network::{Network, Realm};
use crate::swarm::Peers;
use libp2p::{Multiaddr, PeerId};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// What came of a task.
#[derive(Debug)]
pub(super) struct Answered {
    contact: Contact,
    realm: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Answer(LookupId, Result<Answer, RequestError>),
    Told(JobId, Result<(), RequestError>),
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
enum RequestError {
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("{0}")]
    Dial(#[from] crate::swarm::ConnectError),
    #[error("{0}")]
    Stream(#[from] streams::StreamError),
    #[error("no connection in time")]
    Slow,
}

impl RequestError {
    /// Whether it says nothing of the peer.
    fn is_ours(&self) -> bool {
        match self {
            Self::Slow => true,
            Self::Dial(error) => !matches!(error, crate::swarm::ConnectError::Dial { .. }),
            Self::Open(_) | Self::Stream(_) => false,
        }
    }

    /// Whether no connection came about.
    fn is_unreached(&self) -> bool {
        match self {
            Self::Slow => true,
            Self::Dial(error) => matches!(error, crate::swarm::ConnectError::Dial { .. }),
            Self::Open(_) | Self::Stream(_) => false,
        }
    }
}

/// What a task needs to reach somebody.
#[derive(Clone)]
struct Line {
    peers: Peers,
    orders: mpsc::Sender<Order>,
    room: Room,
    network: Network,
    realm: Realm,
}

impl Worker {
    /// Does what the engines want done, as far as there is room.
    pub(super) fn act(&mut self) {
        for realm in 0..self.realms.len() {
            while let Some((_, dht)) = self.realms.get_mut(realm) {
                let next = match self.asking.number() < ASKING_MAX {
                    true => dht.poll(),
                    false => dht.poll_but_asks(),
                };
                let Some(action) = next else {
                    break;
                };
                match action {
                    Action::Ask {
                        lookup,
                        contact,
                        request,
                    } => self.ask(realm, lookup, contact, request),
                    Action::Tell {
                        lookup,
                        contact,
                        request,
                    } => {
                        if let Some(job) = self.lookups.get(&(realm, lookup)).copied() {
                            let told = self.message_of(realm, request);
                            self.tell(realm, job, contact, vec![told]);
                        }
                    }
                    Action::Found { lookup, provider } => self.found(realm, lookup, &provider),
                    Action::Value { lookup, value } => self.found_value(realm, lookup, value),
                    Action::Done { lookup, outcome } => self.lookup_done(realm, lookup, outcome),
                }
            }
        }
    }

    fn ask(&mut self, at: usize, lookup: LookupId, contact: Contact, request: Request) {
        let now = Instant::now();
        if self.rests(at, &contact, now) {
            if let Some((_, dht)) = self.realms.get_mut(at) {
                dht.not_asked(lookup, &contact.peer, now);
            }
            return;
        }
        let Some(line) = self.line(at) else {
            return;
        };
        let question = self.message_of(at, request);
        let dialled = Contact::new(contact.peer, self.places_of(at, &contact));
        let counted = self.asking.one_more();
        let answers = self.answers.0.clone();
        let stop = self.parts.tasks.stopping();
        self.parts.tasks.spawn("dht request", async move {
            let asked = stop.run_until_cancelled(line.ask(&dialled, &question));
            let Some(answer) = asked.await else {
                return;
            };
            let answered = Answered {
                contact,
                realm: at,
                what: What::Answer(lookup, answer),
            };
            // Nobody is left to hear it when the node stops.
            let _ = answers.send(answered).await;
            drop(counted);
        });
    }

    /// Tells a peer all of this, for a job.
    pub(super) fn tell(&mut self, at: usize, job: JobId, contact: Contact, all: Vec<Message>) {
        if self.rests(at, &contact, Instant::now()) {
            return;
        }
        let Some(line) = self.line(at) else {
            return;
        };
        if let Some(job) = self.jobs.get_mut(&job) {
            job.telling += 1;
        }
        let counted = self.asking.one_more();
        let answers = self.answers.0.clone();
        let stop = self.parts.tasks.stopping();
        self.parts.tasks.spawn("dht telling", async move {
            let Some(told) = stop.run_until_cancelled(line.tell(&contact, &all)).await else {
                return;
            };
            let answered = Answered {
                contact,
                realm: at,
                what: What::Told(job, told),
            };
            let _ = answers.send(answered).await;
            drop(counted);
        });
    }

    /// Whether a peer was not reached a moment ago. Where nobody is connected it is not known whose fault that was.
    fn rests(&self, at: usize, contact: &Contact, now: Instant) -> bool {
        let peer = &contact.peer;
        let is_here = self.met.contains_key(peer) || self.unmet.contains(peer);
        let addresses = || self.places_of(at, contact);
        !is_here && !self.met.is_empty() && self.unreached.rests(peer, &addresses(), now)
    }

    /// Where to dial somebody: where it is known to be, and where whoever named it says, who may be wrong.
    fn places_of(&self, at: usize, contact: &Contact) -> Vec<Multiaddr> {
        let known = Contact::new(contact.peer, Vec::new());
        let mut addresses = self.addresses_of(at, &known);
        addresses.extend(contact.addresses.iter().cloned());
        Contact::new(contact.peer, addresses).addresses
    }

    fn line(&self, at: usize) -> Option<Line> {
        let (realm, _) = self.realms.get(at)?;
        Some(Line {
            peers: self.parts.peers.clone(),
            orders: self.orders(),
            room: self.room.clone(),
            network: self.network,
            realm: *realm,
        })
    }

    pub(super) fn on_answered(&mut self, answered: Answered) {
        let Answered {
            contact,
            realm,
            what,
        } = answered;
        self.judge(realm, &contact, &what);
        let met = self.met.get(&contact.peer);
        let group = met.and_then(|met| met.group);
        let contact = match met {
            // What it says itself goes before what others say.
            Some(met) => self.as_met(realm, &contact, met),
            None => contact,
        };
        let Some((which, dht)) = self.realms.get_mut(realm) else {
            return;
        };
        let networks_matter = self.network == Network::Public && *which == Realm::Wan;
        let now = Instant::now();
        match what {
            What::Answer(lookup, Ok(answer)) => {
                self.parts.metrics.request_ended(metrics::Request::Answered);
                match (networks_matter, group) {
                    (false, _) => dht.answered(lookup, contact, None, answer, now),
                    (true, Some(_)) => dht.answered(lookup, contact, group, answer, now),
                    (true, None) => dht.answered_by_stranger(lookup, contact, answer, now),
                }
            }
            What::Answer(lookup, Err(error)) => {
                tracing::debug!(peer = %contact.peer, %error, "DHT request not answered");
                self.parts.metrics.request_ended(metrics::Request::Failed);
                if matches!(error, RequestError::Open(OpenError::Unsupported)) {
                    dht.serves_no_more(&contact.peer);
                }
                if error.is_ours() {
                    dht.not_asked(lookup, &contact.peer, now);
                } else {
                    dht.failed(lookup, &contact.peer, now);
                }
            }
            What::Told(job, told) => {
                if let Err(error) = &told {
                    tracing::debug!(peer = %contact.peer, %error, "DHT peer not told");
                }
                self.parts.metrics.request_ended(match told {
                    Ok(()) => metrics::Request::Told,
                    Err(_) => metrics::Request::Failed,
                });
                self.told(job, told.is_ok());
            }
        }
    }

    /// Remembers whether a peer was reached.
    fn judge(&mut self, at: usize, contact: &Contact, what: &What) {
        let error = match what {
            What::Answer(_, answer) => answer.as_ref().err(),
            What::Told(_, told) => told.as_ref().err(),
        };
        if !error.is_some_and(RequestError::is_unreached) {
            self.unreached.reached(&contact.peer);
        } else if self.asking.number() < CROWD && !self.met.is_empty() {
            // Where many dials wait for their turn, or nobody is there at all, it says nothing of the peer.
            let tried = self.places_of(at, contact);
            self.unreached.missed(contact.peer, tried, Instant::now());
        }
    }

    /// A peer at the addresses that it says, if those mean something there.
    fn as_met(&self, realm: usize, contact: &Contact, met: &Met) -> Contact {
        let realm = self
            .realms
            .get(realm)
            .map_or(Realm::Lan, |(realm, _)| *realm);
        let fits = |address: &&Multiaddr| self.network.fits(realm, address);
        let said: Vec<Multiaddr> = met.addresses.iter().filter(fits).cloned().collect();
        match said.is_empty() {
            true => contact.clone(),
            false => Contact::new(contact.peer, said),
        }
    }

    fn message_of(&self, realm: usize, request: Request) -> Message {
        let realm = self
            .realms
            .get(realm)
            .map_or(Realm::Lan, |(realm, _)| *realm);
        match request {
            Request::Nearest(key) => Message::new(Kind::FindNode, key),
            Request::Providers(key) => Message::new(Kind::GetProviders, key),
            Request::Value(key) => Message::new(Kind::GetValue, key),
            Request::Provides(key, _) => self.provides(realm, key),
        }
    }

    /// That this node provides what a key names.
    pub(super) fn provides(&self, realm: Realm, key: Vec<u8>) -> Message {
        let fits = |address: &&Multiaddr| self.network.fits(realm, address);
        let addresses = self.addresses.iter().filter(fits).cloned().collect();
        Message {
            providers: vec![Contact::new(self.local, addresses)],
            ..Message::new(Kind::AddProvider, key)
        }
    }
}

/// That a value is to be kept.
pub(super) fn keep(key: Vec<u8>, value: Vec<u8>) -> Message {
    Message {
        record: Some(Record {
            key: key.clone(),
            value,
            received: String::new(),
        }),
        ..Message::new(Kind::PutValue, key)
    }
}

impl Line {
    async fn ask(&self, contact: &Contact, question: &Message) -> Result<Answer, RequestError> {
        let stream = self.open(contact).await?;
        let answer = streams::ask(stream, question, &self.room).await?;
        Ok(self.usable(question, answer))
    }

    async fn tell(&self, contact: &Contact, all: &[Message]) -> Result<(), RequestError> {
        let stream = self.open(contact).await?;
        match all {
            // What is to be kept is answered with itself.
            [one] if one.kind == Kind::PutValue => {
                streams::ask(stream, one, &self.room).await?;
            }
            all => streams::tell(stream, all).await?,
        }
        Ok(())
    }

    async fn open(&self, contact: &Contact) -> Result<libp2p::Stream, RequestError> {
        match self.stream(contact.peer).await {
            Err(RequestError::Open(OpenError::NotConnected)) => {}
            other => return other,
        }
        let dial = self.peers.dial(contact.peer, contact.addresses.clone());
        timeout(DIAL, dial)
            .await
            .map_err(|_| RequestError::Slow)??;
        self.stream(contact.peer).await
    }

    async fn stream(&self, peer: PeerId) -> Result<libp2p::Stream, RequestError> {
        let (reply, answer) = oneshot::channel();
        let order = Order {
            peer,
            realm: self.realm,
            reply,
        };
        let stopping = || RequestError::Dial(crate::swarm::ConnectError::Stopping);
        self.orders.send(order).await.map_err(|_| stopping())?;
        let (_, stream) = answer.await.map_err(|_| stopping())??;
        Ok(stream)
    }

    /// What of an answer means something here.
    fn usable(&self, question: &Message, answer: Message) -> Answer {
        let here = |mut contact: Contact| {
            let fits = |address: &Multiaddr| self.network.fits(self.realm, address);
            contact.addresses.retain(fits);
            contact
        };
        let nearer = answer.nearer.into_iter().map(here);
        // Others could not be reached.
        let nearer = nearer.filter(|contact| !contact.addresses.is_empty());
        let value = answer.record.filter(|_| question.kind == Kind::GetValue);
        let value = value.filter(|record| record.key == question.key || record.key.is_empty());
        let is_valid = |value: &Vec<u8>| {
            let key = Key::parse(&question.key);
            key.is_some_and(|key| key.check(value, crate::clock::wall()).is_ok())
        };
        Answer {
            nearer: nearer.collect(),
            providers: answer.providers.into_iter().map(here).collect(),
            value: value.map(|record| record.value).filter(is_valid),
        }
    }
}

/// With so many requests under way a dial may wait for its turn for as long as it may take.
const CROWD: usize = 128;
/// Requests under way at once, over all lookups.
const ASKING_MAX: usize = 512;
/// How long a dial for a request may take.
const DIAL: Duration = Duration::from_secs(10);
