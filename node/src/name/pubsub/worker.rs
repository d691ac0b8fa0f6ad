//! The one task that enters topics, judges what is said on them and tells what is known; and the tasks that ask peers
//! for records and answer them.
//!
//! It waits for nothing but the swarm's part, which waits for nobody. What is asked of peers comes back as
//! [`Fetched`], of which there are never more than there is room for.

use super::behaviour::{Act, News, Wire};
use super::fetch;
use super::metrics::{Fetched as Ended, Message, Metrics};
use super::rendezvous::Rendezvous;
use super::topics::Followed;
use super::{Command, Shared, topic};
use crate::event::Event;
use crate::ipns::{Record, RecordError};
use crate::name::Names;
use crate::perf::{Arrival, Order};
use crate::places::Places;
use crate::tasks::Tasks;
use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, TopicHash};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::sleep_until;

pub(super) struct Worker {
    inbox: mpsc::Receiver<Command>,
    acts: mpsc::Sender<Act>,
    news: mpsc::Receiver<News>,
    names: Names,
    topics: Shared,
    events: broadcast::Sender<Event>,
    /// Opens streams to peers.
    asking: mpsc::Sender<Order>,
    rendezvous: Rendezvous,
    fetched: mpsc::Receiver<Fetched>,
    /// Where those tell that ask peers; as many as there is room for.
    fetches: mpsc::Sender<Fetched>,
    under_way: usize,
    /// Names for whose records peers are being asked.
    awaited: HashMap<PeerId, Awaited>,
    metrics: Metrics,
    tasks: Tasks,
}

/// What a peer gave when it was asked.
struct Fetched {
    name: PeerId,
    record: io::Result<Option<Vec<u8>>>,
}

/// A name whose record is asked for.
#[derive(Default)]
struct Awaited {
    /// Of how many peers.
    asked: usize,
    /// Who waits for it; as many as there are searches at most.
    waiting: Vec<oneshot::Sender<()>>,
}

/// What bytes are, beside what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    /// Newer than what is known.
    New,
    Known,
    Old,
    /// It would have been a record, or nobody can tell.
    Expired,
    /// No record of the name.
    Invalid,
}

enum Turn {
    Stop,
    Command(Command),
    News(News),
    Fetched(Fetched),
    Due,
}

impl Worker {
    pub(super) fn new(
        wire: Wire,
        inbox: mpsc::Receiver<Command>,
        (names, topics, events): (Names, Shared, broadcast::Sender<Event>),
        (asking, rendezvous): (mpsc::Sender<Order>, Rendezvous),
        metrics: Metrics,
        tasks: &Tasks,
    ) -> Self {
        let (fetches, fetched) = mpsc::channel(FETCHES_MAX);
        Self {
            inbox,
            acts: wire.acts,
            news: wire.news,
            names,
            topics,
            events,
            asking,
            rendezvous,
            fetched,
            fetches,
            under_way: 0,
            awaited: HashMap::new(),
            metrics,
            tasks: tasks.clone(),
        }
    }

    pub(super) async fn run(mut self) {
        let stopping = self.tasks.stopping();
        loop {
            let due = self.topics.lock().next_due();
            let due = async {
                match due {
                    Some(due) => sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let turn = tokio::select! {
                biased;
                () = stopping.cancelled() => Turn::Stop,
                Some(command) = self.inbox.recv() => Turn::Command(command),
                Some(fetched) = self.fetched.recv() => Turn::Fetched(fetched),
                Some(news) = self.news.recv() => Turn::News(news),
                () = due => Turn::Due,
                else => Turn::Stop,
            };
            match turn {
                Turn::Stop => return,
                Turn::Command(command) => self.on_command(command).await,
                Turn::Fetched(fetched) => self.on_fetched(fetched),
                Turn::News(news) => self.on_news(news).await,
                Turn::Due => self.on_due().await,
            }
            let followed = self.topics.lock().len();
            self.metrics
                .topics
                .set(i64::try_from(followed).unwrap_or(i64::MAX));
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Follow { name, found } => {
                let followed = self.follow(name, false).await;
                let is_new = matches!(followed, Followed::New { .. });
                if is_new || (found.is_some() && followed == Followed::Already) {
                    self.ask_all(name).await;
                }
                if let (Some(found), Some(awaited)) = (found, self.awaited.get_mut(&name)) {
                    awaited.waiting.push(found);
                }
            }
            Command::Publish { name, record } => {
                self.follow(name, true).await;
                self.tell(name, &record).await;
            }
            Command::Cancel { name, reply } => {
                let was_followed = self.topics.lock().cancel(&name);
                if was_followed {
                    self.act(Act::Leave(topic::of(&name))).await;
                }
                // Whoever asked may be gone.
                let _ = reply.send(was_followed);
            }
        }
    }

    async fn follow(&mut self, name: PeerId, is_own: bool) -> Followed {
        let followed = self.topics.lock().follow(name, is_own, Instant::now());
        if let Followed::New { let_go } = followed {
            if let Some(idle) = let_go {
                self.act(Act::Leave(topic::of(&idle))).await;
            }
            self.act(Act::Enter(topic::of(&name))).await;
        }
        followed
    }

    /// Asks those who are on a name's topic for its record.
    async fn ask_all(&mut self, name: PeerId) {
        let (reply, answer) = oneshot::channel();
        let topic = topic::of(&name);
        self.act(Act::Who { topic, reply }).await;
        // Without an answer the node is stopping.
        for peer in answer.await.unwrap_or_default() {
            self.ask(name, peer);
        }
    }

    fn ask(&mut self, name: PeerId, peer: PeerId) {
        if self.under_way >= FETCHES_MAX || !self.topics.lock().ask(&name, peer, Instant::now()) {
            return;
        }
        self.under_way += 1;
        self.awaited.entry(name).or_default().asked += 1;
        let (asking, fetches) = (self.asking.clone(), self.fetches.clone());
        let stopping = self.tasks.stopping();
        self.tasks.spawn("question for a record", async move {
            let asked = fetch::ask(&asking, peer, &name);
            if let Some(record) = stopping.run_until_cancelled(asked).await {
                // There is room for all that are under way; without the worker the node is stopping.
                let _ = fetches.send(Fetched { name, record }).await;
            }
        });
    }

    fn on_fetched(&mut self, Fetched { name, record }: Fetched) {
        self.under_way = self.under_way.saturating_sub(1);
        let ended = match &record {
            Ok(Some(_)) => Ended::Found,
            Ok(None) => Ended::NotFound,
            Err(error) => {
                tracing::debug!(%name, %error, "no answer to a question for a record");
                Ended::Failed
            }
        };
        self.metrics.asked(ended);
        let worth = record
            .ok()
            .flatten()
            .map(|record| self.take_in(&name, &record));
        match worth {
            Some(Worth::New | Worth::Known) => self.told(&name),
            // It is told of ours.
            Some(Worth::Old) => self.topics.lock().joined(&name, Instant::now()),
            Some(Worth::Expired | Worth::Invalid) | None => {}
        }
        let is_found = matches!(worth, Some(Worth::New | Worth::Known));
        if let Some(awaited) = self.awaited.get_mut(&name) {
            awaited.asked = awaited.asked.saturating_sub(1);
            if is_found {
                awaited.waiting.clear();
            }
            if awaited.asked == 0 {
                self.awaited.remove(&name);
            }
        }
    }

    async fn on_news(&mut self, news: News) {
        match news {
            News::Joined { peer, topic } => {
                if let Some(name) = self.followed(&topic) {
                    self.topics.lock().joined(&name, Instant::now());
                    self.ask(name, peer);
                }
            }
            News::Message {
                id,
                from,
                topic,
                data,
            } => {
                let verdict = self.judge(&topic, &data);
                self.act(Act::Judge { id, from, verdict }).await;
            }
        }
    }

    fn judge(&mut self, topic: &TopicHash, data: &[u8]) -> MessageAcceptance {
        let Some(name) = self.followed(topic) else {
            self.metrics.message(Message::Ignored);
            return MessageAcceptance::Ignore;
        };
        let worth = self.take_in(&name, data);
        if matches!(worth, Worth::New | Worth::Known) {
            self.told(&name);
        }
        if worth == Worth::New
            && let Some(awaited) = self.awaited.get_mut(&name)
        {
            awaited.waiting.clear();
        }
        let may_pass = worth == Worth::New && self.topics.lock().may_change(&name, Instant::now());
        let (became, verdict) = match worth {
            Worth::New if may_pass => (Message::Accepted, MessageAcceptance::Accept),
            Worth::Invalid => (Message::Rejected, MessageAcceptance::Reject),
            _ => (Message::Ignored, MessageAcceptance::Ignore),
        };
        self.metrics.message(became);
        verdict
    }

    /// The name of a topic, if it is followed.
    fn followed(&self, topic: &TopicHash) -> Option<PeerId> {
        let name = topic::name_of(topic.as_str());
        name.filter(|name| self.topics.lock().follows(name))
    }

    /// Says what bytes are worth; what is new is known from then on.
    fn take_in(&self, name: &PeerId, bytes: &[u8]) -> Worth {
        // With such a clock nobody can tell.
        let Ok(now) = self.names.now() else {
            return Worth::Expired;
        };
        let record = match Record::valid(name, bytes, now) {
            Ok(record) => record,
            Err(RecordError::Expired) => return Worth::Expired,
            Err(_) => return Worth::Invalid,
        };
        let age = self.names.known(name).map(|known| record.age(&known));
        match age {
            Some(Ordering::Less) => Worth::Old,
            Some(Ordering::Equal) => Worth::Known,
            Some(Ordering::Greater) | None => {
                self.names.take_in(name, &record);
                // Nobody listening is fine.
                let _ = self.events.send(Event::Renewed(*name));
                Worth::New
            }
        }
    }

    async fn on_due(&mut self) {
        loop {
            let now = Instant::now();
            let unvisited = self.topics.lock().take_unvisited(now);
            let Some(name) = unvisited else {
                break;
            };
            if !self.rendezvous.visit(&topic::of(&name)) {
                self.topics.lock().put_off(&name, now);
                break;
            }
        }
        loop {
            let due = self.topics.lock().take_due(Instant::now());
            let Some(name) = due else {
                return;
            };
            if let Ok(Some(record)) = self.names.valid(&name) {
                self.tell(name, &record).await;
            }
        }
    }

    /// Tells those who are on a name's topic of its record.
    async fn tell(&mut self, name: PeerId, record: &Record) {
        let (reply, was_told) = oneshot::channel();
        let publish = Act::Publish {
            topic: topic::of(&name),
            data: record.bytes().to_vec(),
            reply,
        };
        self.act(publish).await;
        match was_told.await {
            Ok(true) => {
                self.metrics.message(Message::Published);
                self.told(&name);
            }
            _ => self.topics.lock().untold(&name),
        }
    }

    fn told(&self, name: &PeerId) {
        let spread = TELL_SPREAD.mul_f64(rand::random());
        self.topics.lock().told(name, spread, Instant::now());
    }

    async fn act(&self, act: Act) {
        // Without the swarm the node is stopping.
        let _ = self.acts.send(act).await;
    }
}

/// Answers peers that ask for records of names that are followed here.
pub(super) fn answer_questions(
    mut arrived: mpsc::Receiver<Arrival>,
    names: &Names,
    topics: &Shared,
    metrics: &Metrics,
    tasks: &Tasks,
) {
    let (names, topics, metrics) = (names.clone(), topics.clone(), metrics.clone());
    let (family, stopping) = (tasks.clone(), tasks.stopping());
    let places = Places::new(ANSWERS_PER_PEER_MAX, ANSWERS_MAX);
    tasks.spawn("questions for records", async move {
        while let Some(Some(Arrival { peer, stream, .. })) =
            stopping.run_until_cancelled(arrived.recv()).await
        {
            let Some(place) = places.take(peer) else {
                metrics.answered(Ended::Refused);
                continue;
            };
            let (names, topics, metrics) = (names.clone(), topics.clone(), metrics.clone());
            let stopping = stopping.clone();
            family.spawn("answer with a record", async move {
                let look = |key: &[u8]| {
                    let name = topic::name_of_key(key)?;
                    // First, or a stranger's questions would keep what nobody else asks for.
                    topics.lock().follows(&name).then_some(())?;
                    let record = names.valid(&name).ok()??;
                    Some(record.bytes().to_vec())
                };
                let answering = fetch::answer(stream, look);
                if let Some(answered) = stopping.run_until_cancelled(answering).await {
                    metrics.answered(match answered {
                        Ok(true) => Ended::Found,
                        Ok(false) => Ended::NotFound,
                        Err(_) => Ended::Failed,
                    });
                }
                drop(place);
            });
        }
    });
}

/// Questions to peers at once.
const FETCHES_MAX: usize = 32;
/// Questions of peers answered at once.
const ANSWERS_MAX: usize = 64;
/// How many of them one peer may have.
const ANSWERS_PER_PEER_MAX: usize = 4;
/// By how much the times differ at which those who follow a name tell its record again; who hears it from another
/// waits anew.
const TELL_SPREAD: Duration = Duration::from_secs(120);
