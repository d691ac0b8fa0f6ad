//! DHT queries under way and whom they are for.
//!
//! Keeps no clock and touches no network: the worker starts queries and tells what came of them.

use crate::metrics::Ended;
use crate::routing::{Provider, RoutingError};
use crate::swarm::command::{Find, Provide};
use cairn_store::Cid;
use libp2p::kad::QueryId;
use libp2p::{Multiaddr, PeerId};
use std::collections::{HashMap, HashSet};

/// All of them. Bounded by the permits that each request carries.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    finds: HashMap<QueryId, Finding>,
    provides: HashMap<QueryId, Provide>,
}

#[derive(Debug)]
struct Finding {
    find: Find,
    seen: HashSet<PeerId>,
    /// Whether the routing table was empty when the query began.
    alone: bool,
}

/// Whether a query still serves somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Wanted,
    Unwanted,
}

/// How many peers there were to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    Alone,
    Peers,
}

impl Lookups {
    pub(super) fn find(&mut self, query: QueryId, find: Find, company: Company) {
        let finding = Finding {
            find,
            seen: HashSet::new(),
            alone: company == Company::Alone,
        };
        self.finds.insert(query, finding);
    }

    pub(super) fn provide(&mut self, query: QueryId, provide: Provide) {
        self.provides.insert(query, provide);
    }

    /// Hands providers on, each once. `addresses` is asked for those that are new.
    pub(super) fn found(
        &mut self,
        query: QueryId,
        peers: impl IntoIterator<Item = PeerId>,
        mut addresses: impl FnMut(&PeerId) -> Vec<Multiaddr>,
    ) -> Use {
        let Some(finding) = self.finds.get_mut(&query) else {
            return Use::Unwanted;
        };
        for peer in peers {
            if finding.seen.len() >= finding.find.limit {
                break;
            }
            if !finding.seen.insert(peer) {
                continue;
            }
            let provider = Provider {
                peer,
                addresses: addresses(&peer),
            };
            // There is room for `limit`; what fails is a receiver that is gone.
            if finding.find.found.try_send(Ok(provider)).is_err() {
                break;
            }
        }
        let enough = finding.seen.len() >= finding.find.limit;
        if enough || finding.find.found.is_closed() {
            self.finds.remove(&query);
            return Use::Unwanted;
        }
        Use::Wanted
    }

    /// Ends a find. `None` if nobody waited for it any more.
    pub(super) fn find_ended(&mut self, query: QueryId, ended: Ended) -> Option<Ended> {
        let Finding { find, seen, alone } = self.finds.remove(&query)?;
        let ended = match ended {
            Ended::Done if alone && seen.is_empty() => Ended::Nobody,
            other => other,
        };
        let error = match ended {
            Ended::Done => None,
            Ended::Nobody => Some(RoutingError::NoPeers),
            Ended::TooSlow => Some(RoutingError::TooSlow(find.cid)),
        };
        if let Some(error) = error {
            // A receiver that is gone needs no error.
            let _ = find.found.try_send(Err(error));
        }
        Some(ended)
    }

    /// Ends a provide; says what was provided, if it was.
    pub(super) fn provide_ended(&mut self, query: QueryId, ended: Ended) -> Option<Cid> {
        let Provide { cid, reply, .. } = self.provides.remove(&query)?;
        let answer = match ended {
            Ended::Done => Ok(()),
            Ended::TooSlow => Err(RoutingError::TooSlow(cid)),
            Ended::Nobody => Err(RoutingError::NotTaken(cid)),
        };
        let provided = answer.is_ok().then_some(cid);
        // Whoever asked may have stopped waiting.
        let _ = reply.send(answer);
        provided
    }

    /// Tells everybody that nothing more comes.
    pub(super) fn stop(&mut self) {
        for (_, finding) in self.finds.drain() {
            let _ = finding.find.found.try_send(Err(RoutingError::Stopping));
        }
        // A dropped reply says the same.
        self.provides.clear();
    }
}
