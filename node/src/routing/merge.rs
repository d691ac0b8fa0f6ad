//! Providers from the DHT and from routers as one stream.
//!
//! Whoever is fast must not crowd out whoever is honest: a router that invents providers is faster
//! than any lookup. So each source has a share of the places, and what a router tells beyond its
//! own is held back until the others have had theirs or are through; the DHT waits for nobody. Half of the
//! places are the DHT's, the routers share the rest, of which each has at least one.
//!
//! A provider comes once; once more if the DHT knows it at addresses that no router told, or a
//! router could hide it behind wrong ones.

use super::routers::Heard;
use super::{Provider, RoutingError};
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use futures::{Stream, stream::select_all};
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;

/// What the DHT finds.
pub(super) type Found = BoxStream<'static, Result<Provider, RoutingError>>;

/// Both, at most `limit` providers of them. An error of the DHT comes last, unless it had nobody to ask and
/// a router answered.
pub(super) fn merge(
    dht: Found,
    routers: Vec<BoxStream<'static, Heard>>,
    limit: usize,
) -> impl Stream<Item = Result<Provider, RoutingError>> + Send + 'static {
    let places = Places::new(limit, routers.len());
    let dht = dht.map(Event::Dht).chain(stream::iter([Event::Over]));
    let mut sources = vec![dht.map(|event| (DHT, event)).boxed()];
    for (at, router) in routers.into_iter().enumerate() {
        let heard = router.map(Event::Router).chain(stream::iter([Event::Over]));
        sources.push(heard.map(move |event| (at + 1, event)).boxed());
    }
    let merging = Merging {
        events: select_all(sources),
        places,
        answered: false,
        error: None,
    };
    stream::unfold(merging, |mut merging| async {
        let next = merging.next().await?;
        Some((next, merging))
    })
}

/// Where a peer is: by the DHT's word if it has one, and by the routers' beside it. The DHT is waited for,
/// or a router that names wrong addresses at once could hide the right ones.
pub(super) async fn peer(
    dht: impl Future<Output = Result<Provider, RoutingError>>,
    routers: Vec<BoxStream<'static, Heard>>,
) -> Result<Provider, RoutingError> {
    let (mut dht, mut routers) = (pin!(dht), select_all(routers));
    let mut told: Vec<Provider> = Vec::new();
    let found = loop {
        tokio::select! {
            found = dht.as_mut() => break found,
            Some(heard) = routers.next() => told.extend(heard.provider()),
        }
    };
    if found.is_err() {
        while let Some(heard) = routers.next().await {
            told.extend(heard.provider());
        }
    }
    let mut all = found.or_else(|error| told.pop().ok_or(error))?;
    for other in told {
        let is_new = |address: &Multiaddr| !all.addresses.contains(address);
        let new: Vec<Multiaddr> = other.addresses.into_iter().filter(is_new).collect();
        all.addresses.extend(new);
    }
    all.addresses.truncate(ADDRESSES_MAX);
    Ok(all)
}

enum Event {
    Dht(Result<Provider, RoutingError>),
    Router(Heard),
    Over,
}

struct Merging {
    events: SelectAll<BoxStream<'static, (usize, Event)>>,
    places: Places,
    /// Whether a router did.
    answered: bool,
    error: Option<RoutingError>,
}

impl Merging {
    async fn next(&mut self) -> Option<Result<Provider, RoutingError>> {
        loop {
            if let Some(provider) = self.places.ready.pop_front() {
                return Some(Ok(provider));
            }
            if self.places.left() == 0 {
                return None;
            }
            let Some((source, event)) = self.events.next().await else {
                let answered = self.answered;
                let error = self.error.take();
                return error
                    .filter(|error| !(answered && matches!(error, RoutingError::NoPeers)))
                    .map(Err);
            };
            match event {
                Event::Dht(Ok(provider)) | Event::Router(Heard::Provider(provider)) => {
                    self.places.offer(source, provider);
                }
                Event::Dht(Err(error)) => self.error = Some(error),
                Event::Router(Heard::Answered) => self.answered = true,
                Event::Over => self.places.over(source),
            }
        }
    }
}

/// Who gets which place; knows no clock.
#[derive(Debug)]
struct Places {
    limit: usize,
    /// Places given, and who had each: the addresses told with it.
    given: usize,
    seen: HashMap<PeerId, HashSet<Multiaddr>>,
    /// The DHT first.
    sources: Vec<Source>,
    ready: VecDeque<Provider>,
}

#[derive(Debug, Default)]
struct Source {
    share: usize,
    given: usize,
    held: VecDeque<Provider>,
    is_over: bool,
}

impl Places {
    fn new(limit: usize, routers: usize) -> Self {
        let each = (limit.div_ceil(2) / routers.max(1)).max(1);
        let for_dht = limit.saturating_sub(each.saturating_mul(routers));
        let shares = [for_dht].into_iter().chain(vec![each; routers]);
        let source = |share| Source {
            share,
            ..Source::default()
        };
        Self {
            limit,
            given: 0,
            seen: HashMap::new(),
            sources: shares.map(source).collect(),
            ready: VecDeque::new(),
        }
    }

    fn left(&self) -> usize {
        self.limit.saturating_sub(self.given)
    }

    fn offer(&mut self, source: usize, provider: Provider) {
        if source == DHT || self.may_take(source) {
            self.give(source, provider);
        } else if let Some(source) = self.sources.get_mut(source)
            && source.held.len() < self.limit
        {
            source.held.push_back(provider);
        }
    }

    /// Nothing more comes from it: its places are free for what others hold.
    fn over(&mut self, source: usize) {
        if let Some(source) = self.sources.get_mut(source) {
            source.is_over = true;
        }
        // In turn, so that what is left is shared too.
        let mut moved = true;
        while moved {
            moved = false;
            for at in 0..self.sources.len() {
                if self.left() > 0
                    && self.may_take(at)
                    && let Some(held) = self
                        .sources
                        .get_mut(at)
                        .and_then(|source| source.held.pop_front())
                {
                    self.give(at, held);
                    moved = true;
                }
            }
        }
    }

    /// Whether a place is its own, or nobody else's.
    fn may_take(&self, source: usize) -> bool {
        let others = self.sources.iter().enumerate();
        let reserved: usize = others
            .filter(|(at, other)| *at != source && !other.is_over)
            .map(|(_, other)| other.share.saturating_sub(other.given))
            .sum();
        let own = self.sources.get(source);
        own.is_some_and(|own| own.given < own.share) || self.left() > reserved
    }

    fn give(&mut self, source: usize, provider: Provider) {
        if self.left() == 0 {
            return;
        }
        let known = self.seen.get_mut(&provider.peer);
        if let Some(known) = known {
            let mut others = provider
                .addresses
                .iter()
                .filter(|one| !known.contains(*one));
            if source == DHT && others.next().is_some() {
                known.extend(provider.addresses.iter().cloned());
                self.ready.push_back(provider);
            }
            return;
        }
        let addresses = provider.addresses.iter().cloned().collect();
        self.seen.insert(provider.peer, addresses);
        self.given += 1;
        if let Some(source) = self.sources.get_mut(source) {
            source.given += 1;
        }
        self.ready.push_back(provider);
    }
}

/// Which source the DHT is.
const DHT: usize = 0;
/// Addresses of a peer that are worth trying.
const ADDRESSES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn provider(port: u16) -> Provider {
        Provider {
            peer: PeerId::random(),
            addresses: vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()],
        }
    }

    fn router(count: u16) -> BoxStream<'static, Heard> {
        let told = (0..count).map(|at| Heard::Provider(provider(at)));
        stream::iter(told.chain([Heard::Answered])).boxed()
    }

    fn hangs<T: Send + 'static>(before: Vec<T>) -> BoxStream<'static, T> {
        stream::iter(before).chain(stream::pending()).boxed()
    }

    fn dht(providers: &[Provider], error: Option<RoutingError>) -> Found {
        let found: Vec<_> = providers
            .iter()
            .cloned()
            .map(Ok)
            .chain(error.map(Err))
            .collect();
        stream::iter(found).boxed()
    }

    /// What comes without anybody being waited for.
    fn now(
        merged: impl Stream<Item = Result<Provider, RoutingError>>,
    ) -> Vec<Result<Provider, RoutingError>> {
        let mut merged = std::pin::pin!(merged);
        let mut all = Vec::new();
        while let Some(Some(next)) = merged.next().now_or_never() {
            all.push(next);
        }
        all
    }

    fn peers(all: &[Result<Provider, RoutingError>]) -> Vec<PeerId> {
        let known = all.iter().filter_map(|one| one.as_ref().ok());
        known.map(|provider| provider.peer).collect()
    }

    #[test]
    fn a_router_that_invents_providers_leaves_half_of_the_places() {
        let honest: Vec<Provider> = (0..5).map(provider).collect();
        let late = stream::iter(honest.clone())
            .then(|one| async {
                tokio::task::yield_now().await;
                Ok(one)
            })
            .boxed();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let all: Vec<_> = runtime.block_on(merge(late, vec![router(100)], 10).collect());
        assert_eq!(all.len(), 10);
        for one in honest {
            assert!(peers(&all).contains(&one.peer));
        }
    }

    #[test]
    fn routers_share_their_half() {
        let all = now(merge(
            hangs(Vec::new()),
            vec![router(9), router(9), hangs(Vec::new())],
            12,
        ));
        assert_eq!(all.len(), 4, "two each, the rest waits for those that hang");
    }

    #[test]
    fn each_router_has_a_place_though_they_are_many() {
        let late = provider(7);
        let told = vec![Heard::Provider(late.clone())];
        let slow = stream::iter(told).then(|heard| async {
            tokio::task::yield_now().await;
            heard
        });
        let mut routers: Vec<_> = (0..3).map(|_| router(100)).collect();
        routers.push(slow.boxed());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let all: Vec<_> = runtime.block_on(merge(dht(&[], None), routers, 4).collect());
        assert!(peers(&all).contains(&late.peer));
    }

    #[test]
    fn a_router_that_hangs_holds_up_nothing() {
        let found: Vec<Provider> = (0..10).map(provider).collect();
        let all = now(merge(dht(&found, None), vec![hangs(Vec::new())], 10));
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn what_one_source_does_not_need_the_others_get() {
        let all = now(merge(
            dht(&[provider(1)], None),
            vec![router(100), router(2)],
            10,
        ));
        assert_eq!(all.len(), 10);
        let all = now(merge(dht(&[], None), vec![router(3)], 10));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn nobody_to_ask_is_no_error_where_a_router_answered() {
        let alone = || dht(&[], Some(RoutingError::NoPeers));
        assert!(now(merge(alone(), vec![router(0)], 10)).is_empty());
        let silent = stream::iter(Vec::new()).boxed();
        let all = now(merge(alone(), vec![silent], 10));
        assert!(matches!(all[..], [Err(RoutingError::NoPeers)]), "{all:?}");
        let stopping = dht(&[], Some(RoutingError::Stopping));
        let all = now(merge(stopping, vec![router(1)], 10));
        assert!(
            matches!(all[..], [Ok(_), Err(RoutingError::Stopping)]),
            "{all:?}"
        );
    }

    #[test]
    fn a_provider_comes_once_and_again_only_where_the_dht_knows_it_elsewhere() {
        let (one, elsewhere) = (provider(1), provider(2));
        let moved = Provider {
            addresses: elsewhere.addresses.clone(),
            ..one.clone()
        };
        let told = |provider: &Provider| vec![Heard::Provider(provider.clone())];
        let twice = [told(&one), told(&one)].concat();
        let mut places = Places::new(10, 1);
        for heard in twice {
            let Heard::Provider(provider) = heard else {
                unreachable!("made above")
            };
            places.offer(1, provider);
        }
        places.offer(1, moved.clone());
        assert_eq!(places.ready.len(), 1, "a router is believed once");
        places.offer(DHT, one.clone());
        assert_eq!(places.ready.len(), 1);
        places.offer(DHT, moved.clone());
        places.offer(DHT, moved);
        assert_eq!(places.ready.len(), 2);
        assert_eq!(places.given, 1);
    }

    #[tokio::test]
    async fn a_peer_is_where_the_dht_says_and_where_routers_say_beside_it() {
        let (here, there) = (provider(1), provider(2));
        let there = Provider {
            peer: here.peer,
            ..there
        };
        let says = |provider: &Provider| {
            let told = vec![Heard::Provider(provider.clone()), Heard::Answered];
            stream::iter(told).boxed()
        };
        let late = async {
            tokio::task::yield_now().await;
            Ok(here.clone())
        };
        let found = peer(late, vec![says(&there), says(&here), hangs(Vec::new())]);
        let both = [here.addresses.clone(), there.addresses.clone()].concat();
        assert_eq!(found.await.unwrap().addresses, both);

        let lost = || async { Err(RoutingError::PeerNotFound(here.peer)) };
        let found = peer(lost(), vec![router(0), says(&there)]).await.unwrap();
        assert_eq!(found.addresses, there.addresses);
        let found = peer(lost(), vec![router(0)]).await;
        assert!(
            matches!(found, Err(RoutingError::PeerNotFound(_))),
            "{found:?}"
        );
    }

    #[test]
    fn no_more_than_the_limit_comes() {
        let found: Vec<Provider> = (0..30).map(provider).collect();
        for limit in [0, 1, 2, 7] {
            let all = now(merge(dht(&found, None), vec![router(30)], limit));
            assert_eq!(all.len(), limit);
        }
    }
}
