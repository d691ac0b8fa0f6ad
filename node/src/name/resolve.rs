//! From a name to its newest record.
//!
//! What is known and valid is the answer, at once. If it is older than its owner lets it be, others are asked behind,
//! for the next time. Only who knows nothing waits, and only until it hardly pays (`search.rs`);
//! the search goes on to its end behind as well. Whoever asks for a name that is being looked for joins in.

use super::cache::Since;
use super::search::Search;
use super::{Names, newest};
use crate::clock::WrongClock;
use crate::ipns::{self, Record};
use crate::routing::RoutingError;
use futures::stream::{self, Stream, StreamExt};
use libp2p::PeerId;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How a name is resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum How {
    /// What is known is the answer, and others are asked behind it where that is due.
    #[default]
    Usual,
    /// Others are asked and waited for, although a record is known.
    Anew,
    /// Nobody is asked.
    Here,
}

/// Why a name does not resolve.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No valid record was found.
    #[error(
        "no valid record of /ipns/{} was found: nobody that was asked keeps one, so it was never published, or has expired", ipns::text(.0)
    )]
    NotFound(PeerId),
    /// Nobody can be asked.
    #[error("no valid record of /ipns/{} is known here, and without a network nobody else is asked", ipns::text(.0))]
    Offline(PeerId),
    /// There was nobody to ask, or they took too long.
    #[error("no valid record of /ipns/{name} is known here: {why}", name = ipns::text(.0), why = .1)]
    Routing(PeerId, RoutingError),
    /// There are too many searches.
    #[error(
        "{SEARCHES_MAX} names are being looked for, and that is the most at once; try again in a while"
    )]
    Busy,
    /// What has expired cannot be told.
    #[error(transparent)]
    Clock(#[from] WrongClock),
}

/// Names that are being looked for.
pub(super) type Searches = HashMap<PeerId, watch::Receiver<Progress>>;

/// How far a search is.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress {
    best: Option<Record>,
    /// Whether it hardly pays to wait for a better one.
    is_enough: bool,
    is_over: bool,
    error: Option<RoutingError>,
}

/// How long a record holds, and how much of that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// From when it was asked for until somebody is to be asked for a newer one.
    pub ttl: Duration,
    /// Since it was asked for or, if nobody was asked, since it came; all of `ttl` where that is not known.
    pub age: Duration,
}

impl Names {
    /// The newest record of a name that is known or found.
    pub async fn resolve(&self, name: &PeerId, how: How) -> Result<Record, ResolveError> {
        let mut found = std::pin::pin!(self.resolve_each(name, how));
        match found.next().await {
            Some(found) => found,
            None => Err(ResolveError::NotFound(*name)),
        }
    }

    /// Streams the records of a name: one that is good enough at once or as soon as it is found, then better ones as
    /// they come.
    pub fn resolve_each(
        &self,
        name: &PeerId,
        how: How,
    ) -> impl Stream<Item = Result<Record, ResolveError>> + Send + 'static + use<> {
        let (this, name) = (self.clone(), *name);
        let begin = async move {
            let begun = this.begin(&name, how);
            let is_known = begun.as_ref().is_ok_and(|begun| begun.at_once.is_some());
            let answers = match begun {
                Ok(begun) => begun.follow(name).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            };
            let mut is_first = true;
            answers.inspect(move |answer| {
                if std::mem::take(&mut is_first) {
                    this.0.metrics.resolved(answer, is_known);
                }
            })
        };
        stream::once(begin).flatten()
    }

    fn begin(&self, name: &PeerId, how: How) -> Result<Begun, ResolveError> {
        let known = self.valid(name)?;
        if let Some(pubsub) = self.pubsub().filter(|_| how != How::Here) {
            pubsub.follow(*name);
        }
        let is_due = match how {
            How::Usual => known.is_none() || !self.is_fresh(name),
            How::Anew => true,
            How::Here => false,
        };
        let search = match is_due.then(|| self.search(name)) {
            Some(Err(ResolveError::Busy)) if known.is_some() => None,
            search => search.transpose()?.flatten(),
        };
        let waits = how == How::Anew && search.is_some();
        Ok(Begun {
            at_once: known.clone().filter(|_| !waits),
            known,
            search,
        })
    }

    /// Takes in a record that was not looked for; of those known, the newest counts.
    pub fn take_in(&self, name: &PeerId, record: &Record) {
        let now = Since::Came(Instant::now().into_std());
        self.cache().keep(*name, record.clone(), now);
    }

    /// The newest record of a name that is known here and has not expired.
    pub fn current(&self, name: &PeerId) -> Option<Record> {
        self.valid(name).ok()?
    }

    /// What is known of a name and has not expired.
    pub(super) fn valid(&self, name: &PeerId) -> Result<Option<Record>, WrongClock> {
        let now = self.now()?;
        let found = self.cache().of(name).map(|found| found.record);
        let is_valid = |record: &Record| record.expires() > now;
        let on_disk = self.on_disk(name).filter(is_valid);
        Ok(newest(on_disk, found.filter(is_valid)))
    }

    /// Whether nobody need be asked yet.
    fn is_fresh(&self, name: &PeerId) -> bool {
        let Some(found) = self.cache().of(name) else {
            return false;
        };
        let ttl = found.record.ttl().min(self.0.options.max_cache_ttl);
        matches!(found.since, Since::Asked(_)) && found.since.age() < ttl
    }

    /// For how much longer nobody need be asked whether there is a newer one than this record of a name.
    pub fn fresh_for(&self, name: &PeerId, record: &Record) -> Duration {
        let Freshness { ttl, age } = self.freshness(name, record);
        ttl.saturating_sub(age)
    }

    /// For how long a record of a name holds without asking for a newer one, and how much of that is over.
    pub fn freshness(&self, name: &PeerId, record: &Record) -> Freshness {
        let most = record.ttl().min(self.0.options.max_cache_ttl);
        let found = self.cache().of(name);
        let found = found.filter(|found| found.record == *record);
        let age = match found {
            Some(found) => found.since.age(),
            // What was signed here is the newest, as far as anybody can know.
            None if self.noted(name).is_some_and(|own| own.record == *record) => Duration::ZERO,
            // Kept for others since nobody knows when.
            None => most,
        };
        let now = (self.0.clock)();
        let left = record.expires().duration_since(now).unwrap_or_default();
        Freshness {
            ttl: most.min(left.saturating_add(age)),
            age,
        }
    }

    /// Has others asked for a name until all who may keep a record were, or, if that is `enough`, until it hardly pays.
    /// What is found is known then. No error if some record was.
    pub(super) async fn search_until(
        &self,
        name: &PeerId,
        enough: bool,
    ) -> Result<(), RoutingError> {
        let mut search = match self.search(name) {
            Ok(Some(search)) => search,
            Ok(None) => return Ok(()),
            Err(_) => return Err(RoutingError::LookupTooSlow),
        };
        let is_due = |now: &Progress| now.is_over || (enough && now.is_enough);
        let progress = match search.wait_for(is_due).await {
            Ok(progress) => progress.clone(),
            Err(_) => return Err(RoutingError::Stopping),
        };
        match (progress.best, progress.error) {
            (None, Some(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Joins the search for a name, or begins one; `None` without a network.
    fn search(&self, name: &PeerId) -> Result<Option<watch::Receiver<Progress>>, ResolveError> {
        let Some(network) = self.0.network.clone() else {
            return Ok(None);
        };
        let mut searches = self.searches();
        // One whose sender is gone did not come to its end.
        let under_way = searches
            .get(name)
            .filter(|search| search.has_changed().is_ok());
        if let Some(search) = under_way {
            return Ok(Some(search.clone()));
        }
        if searches.len() >= SEARCHES_MAX {
            return Err(ResolveError::Busy);
        }
        let (progress, search) = watch::channel(Progress::default());
        searches.insert(*name, search.clone());
        let (this, name) = (self.clone(), *name);
        let values = stream::select(network.values(ipns::key(&name)), self.heard(name).boxed());
        self.0.tasks.spawn("search for a name", async move {
            let searched = this.hear(&name, values, &progress);
            // Nobody waits for the rest when the node stops.
            let stop = this.0.tasks.stopping();
            let searched = stop.run_until_cancelled(timeout(SEARCH_TIME_MAX, searched));
            let is_late = searched.await.is_none_or(|searched| searched.is_err());
            // Before the end is told: whoever comes then begins anew.
            this.searches().remove(&name);
            progress.send_modify(|now| {
                now.is_over = true;
                if is_late && now.best.is_none() {
                    now.error = Some(RoutingError::LookupTooSlow);
                }
            });
        });
        Ok(Some(search))
    }

    /// What those know who follow a name; nothing where nobody does.
    fn heard(
        &self,
        name: PeerId,
    ) -> impl Stream<Item = Result<Vec<u8>, RoutingError>> + Send + 'static + use<> {
        let this = self.clone();
        let hear = async move {
            let before = this.valid(&name).ok()?;
            this.pubsub()?.find(name).await;
            let record = this.valid(&name).ok()??;
            // What was known here is nobody's answer.
            (before.as_ref() != Some(&record)).then(|| Ok(record.bytes().to_vec()))
        };
        stream::once(hear).filter_map(|heard| async { heard })
    }

    /// Takes in what is found until the search is over.
    async fn hear(
        &self,
        name: &PeerId,
        mut values: impl Stream<Item = Result<Vec<u8>, RoutingError>> + Unpin,
        progress: &watch::Sender<Progress>,
    ) {
        let mut search = Search::default();
        loop {
            let enough_at = search.enough_at().filter(|_| !progress.borrow().is_enough);
            let enough = async {
                match enough_at {
                    Some(at) => sleep_until(Instant::from_std(at)).await,
                    None => std::future::pending().await,
                }
            };
            let value = tokio::select! {
                biased;
                () = enough => {
                    progress.send_modify(|now| now.is_enough = true);
                    continue;
                }
                value = values.next() => value,
            };
            match value {
                None => break,
                Some(Err(error)) => progress.send_modify(|now| now.error = Some(error)),
                Some(Ok(value)) => {
                    let now = Instant::now().into_std();
                    let Ok(record) = Record::decode(name, &value) else {
                        continue;
                    };
                    if search.hear(record.clone(), now) {
                        self.cache().keep(*name, record, Since::Came(now));
                        progress.send_modify(|now| now.best = search.best().cloned());
                    }
                }
            }
        }
        // Who could not ask has not learnt that there is no newer one.
        if progress.borrow().error.is_some() {
            return;
        }
        let now = Instant::now().into_std();
        match self.on_disk(name) {
            Some(ours) if self.known(name).as_ref() == Some(&ours) => {
                self.cache().keep(*name, ours, Since::Asked(now));
            }
            _ => self.cache().confirm(name, now),
        }
    }

    fn searches(&self) -> std::sync::MutexGuard<'_, Searches> {
        let searches = self.0.searches.lock();
        searches.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What is known when a name is asked for.
struct Begun {
    /// What is told without waiting.
    at_once: Option<Record>,
    known: Option<Record>,
    search: Option<watch::Receiver<Progress>>,
}

impl Begun {
    /// What is known, then what is found that is better.
    fn follow(self, name: PeerId) -> impl Stream<Item = Result<Record, ResolveError>> + Send {
        let first = stream::iter(self.at_once.clone().map(Ok));
        let (known, has_told) = (self.known, self.at_once.is_some());
        let rest = match self.search {
            Some(search) => {
                let rest = Rest {
                    name,
                    known,
                    has_told,
                    search,
                };
                stream::unfold(Some(rest), |rest| async { Some(rest?.next().await) })
                    .flat_map(stream::iter)
                    .left_stream()
            }
            None => {
                let error = (!has_told).then_some(Err(ResolveError::Offline(name)));
                stream::iter(error).right_stream()
            }
        };
        first.chain(rest)
    }
}

/// A search that is followed.
struct Rest {
    name: PeerId,
    /// The best that is known.
    known: Option<Record>,
    has_told: bool,
    search: watch::Receiver<Progress>,
}

impl Rest {
    /// What is told next, and what follows.
    async fn next(mut self) -> (Option<Result<Record, ResolveError>>, Option<Self>) {
        let (known, has_told) = (self.known.clone(), self.has_told);
        let is_due = |now: &Progress| {
            now.is_over || (now.is_enough && (!has_told || is_news(now, known.as_ref())))
        };
        // Whoever searches is gone with the node.
        let progress = self.search.wait_for(is_due).await.map(|now| now.clone());
        let progress = progress.unwrap_or_else(|_| Progress {
            is_over: true,
            error: Some(RoutingError::Stopping),
            ..Progress::default()
        });
        let is_news = is_news(&progress, self.known.as_ref());
        self.known = newest(self.known, progress.best);
        let told = match (&self.known, progress.error) {
            (Some(known), _) if is_news || !self.has_told => Some(Ok(known.clone())),
            (Some(_), _) => None,
            (None, Some(error)) => Some(Err(ResolveError::Routing(self.name, error))),
            (None, None) => Some(Err(ResolveError::NotFound(self.name))),
        };
        self.has_told = true;
        (told, (!progress.is_over).then_some(self))
    }
}

fn is_news(progress: &Progress, told: Option<&Record>) -> bool {
    let Some(best) = &progress.best else {
        return false;
    };
    told.is_none_or(|told| best.age(told).is_gt())
}

/// Searches at once; each asks up to ten peers at a time.
const SEARCHES_MAX: usize = 32;
/// How long one may take.
const SEARCH_TIME_MAX: Duration = Duration::from_secs(60);
