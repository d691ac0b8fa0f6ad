//! Streams that are answered at once: so many of one peer, and so many of all together.

use libp2p::PeerId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who is answered now. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    taken: Arc<Mutex<HashMap<PeerId, usize>>>,
    per_peer: usize,
    all: usize,
}

impl Places {
    pub(crate) fn new(per_peer: usize, all: usize) -> Self {
        Self {
            taken: Arc::default(),
            per_peer,
            all,
        }
    }

    /// A place for one more stream of a peer, until what is returned is dropped.
    pub(crate) fn take(&self, peer: PeerId) -> Option<Place> {
        let mut taken = self.lock();
        let own = taken.get(&peer).copied().unwrap_or(0);
        let all: usize = taken.values().sum();
        if own >= self.per_peer || all >= self.all {
            return None;
        }
        taken.insert(peer, own + 1);
        let places = self.clone();
        Some(Place { places, peer })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that is answered.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    peer: PeerId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(own) = taken.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_is_answered_over_so_many_streams_and_leaves_room_for_others() {
        let (places, greedy) = (Places::new(16, 32), PeerId::random());
        let mut held: Vec<Place> = (0..100).map_while(|_| places.take(greedy)).collect();
        assert_eq!(held.len(), 16);
        let other = places.take(PeerId::random()).expect("room for another");
        held.pop();
        held.extend(places.take(greedy));
        assert_eq!(held.len(), 16);
        assert!(places.take(greedy).is_none());
        // All together have their bound as before.
        let rest = (0..100).map_while(|_| places.take(PeerId::random()));
        let rest: Vec<Place> = rest.collect();
        assert_eq!(rest.len() + held.len() + 1, 32);
        drop((held, other, rest));
        assert!(places.lock().is_empty(), "nothing is remembered");
    }
}
