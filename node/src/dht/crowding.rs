//! Whether those nearest to a key are too near, and what is done then.
//!
//! Peer IDs cost nothing, so somebody can make some that lie nearer to a key than anybody honest does, take
//! all of its records and give none. They cannot make the honest ones go: of a network of so many, twenty lie
//! within a known distance of any key. Whoever knows how many there are sees that the nearest lie much nearer than
//! they should, and then looks for all in that distance: by looking for other places in it, since who is asked for the key
//! itself names those who crowd it. They are told, or asked, each of them.

use super::lookup::Lookup;
use super::place::{Distance, Place};
use super::table::{BUCKET_PEERS, Contact};
use std::collections::{BTreeMap, VecDeque};

/// How many nodes there seem to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Size {
    /// By lookups of places that nobody could know before, the last at the end.
    lately: VecDeque<f64>,
}

impl Size {
    /// A lookup of such a place found these to be nearest.
    pub(super) fn seen(&mut self, place: &Place, nearest: &[Contact]) {
        if let Some(size) = by_nearest(place, nearest) {
            if self.lately.len() >= SAMPLES_MAX {
                self.lately.pop_front();
            }
            self.lately.push_back(size);
        }
    }

    /// What most of them say; `None` if that is too few to say.
    pub(super) fn guess(&self) -> Option<f64> {
        if self.lately.len() < SAMPLES_MIN {
            return None;
        }
        let mut all: Vec<f64> = self.lately.iter().copied().collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    }
}

/// How many nodes there are if so many lie so near a place.
fn by_nearest(place: &Place, nearest: &[Contact]) -> Option<f64> {
    let last = nearest.get(BUCKET_PEERS - 1)?;
    Some(BUCKET_PEERS as f64 / last.place.distance(place).part())
}

/// How far from a key twenty lie in a network of so many, and some more: none of them should be missed.
pub(super) fn region(size: f64) -> Distance {
    Distance::of_part(BUCKET_PEERS as f64 * REGION_MORE / size)
}

/// Whether those who answered near a key lie much nearer to it than as many of so many would.
pub(super) fn is_crowded(key: &Place, lookup: &Lookup, size: f64) -> bool {
    let nearest = lookup.nearest();
    let distances: Vec<Distance> = nearest
        .iter()
        .map(|contact| contact.place.distance(key))
        .collect();
    are_crowding(&distances, size)
}

/// The same of those who lie so far from it, the nearest first.
pub(super) fn are_crowding<'a>(nearest: impl IntoIterator<Item = &'a Distance>, size: f64) -> bool {
    let usual = CROWD_SAMPLE as f64 / size;
    let last = nearest.into_iter().nth(CROWD_SAMPLE - 1);
    last.is_some_and(|last| last.part() < usual * CROWDED)
}

/// All who lie in the region of a key, gathered by several lookups.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    within: BTreeMap<Distance, Contact>,
}

impl Members {
    /// These answered.
    pub(super) fn add(&mut self, key: &Place, contacts: Vec<Contact>) {
        for contact in contacts {
            self.within.insert(contact.place.distance(key), contact);
        }
        // Those that crowd the key are the nearest of them.
        while self.within.len() > MEMBERS_MAX {
            self.within.pop_first();
        }
    }

    /// All of them, and those that seem to be nearest in any case: perhaps nobody crowds the key.
    pub(super) fn with(mut self, key: &Place, nearest: Vec<Contact>) -> Vec<Contact> {
        for contact in nearest {
            self.within.insert(contact.place.distance(key), contact);
        }
        self.within.into_values().collect()
    }
}

/// Places of a region that are looked for: as many, evenly apart, as this many bits tell apart.
pub(super) const SPREAD_BITS: u32 = 3;
/// Members of a region that are told or asked besides the nearest.
const MEMBERS_MAX: usize = 128;
/// How much larger a region is than where twenty lie on average.
const REGION_MORE: f64 = 1.25;
/// Of so many nearest it is seen whether they crowd a key.
const CROWD_SAMPLE: usize = 9;
/// Nearer than this part of what is usual is crowded: chance makes one of a thousand keys look like it.
const CROWDED: f64 = 0.25;
/// Lookups that are remembered for a guess, and the fewest that allow one.
const SAMPLES_MAX: usize = 32;
const SAMPLES_MIN: usize = 4;
