//! How many connections a listener has at once: room for so many, and a few places more.
//!
//! Who comes when there is no room gets a spare place. There it waits for room, and what costs nothing is
//! answered at once, so that who looks whether this is alive always learns it. Those who wait never take
//! all of the spare places.

use super::error::RpcError;
use http::StatusCode;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Places {
    room: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    held: Mutex<Held>,
}

#[derive(Debug)]
enum Held {
    Room {
        _permit: OwnedSemaphorePermit,
    },
    Spare {
        _permit: OwnedSemaphorePermit,
    },
    /// The listener is closed.
    Nothing,
}

impl Places {
    pub(super) fn new(room: NonZeroU32) -> Self {
        let room = usize::try_from(room.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let spare = (room / 2).clamp(SPARE_MIN, SPARE_MAX);
        let of = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Self {
            room: of(room),
            spare: of(spare),
            waiting: of(spare / 4 * 3),
        }
    }

    /// Room if there is some, or else a spare place, as soon as there is one.
    pub(super) async fn any(&self) -> Place {
        let room = Arc::clone(&self.room).acquire_owned();
        let spare = Arc::clone(&self.spare).acquire_owned();
        let held = tokio::select! {
            biased;
            room = room => room.map(|permit| Held::Room { _permit: permit }),
            spare = spare => spare.map(|permit| Held::Spare { _permit: permit }),
        };
        Place {
            places: self.clone(),
            held: Mutex::new(held.unwrap_or(Held::Nothing)),
        }
    }

    /// Lets nobody wait any more.
    pub(super) fn close(&self) {
        self.room.close();
    }
}

impl Place {
    pub(super) fn is_spare(&self) -> bool {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(*held, Held::Room { .. })
    }

    /// Waits for room, and gives the spare place back then.
    pub(super) async fn take(&self) -> Result<(), RpcError> {
        if !self.is_spare() {
            return Ok(());
        }
        let unavailable = |why: &str| RpcError::with_status(StatusCode::SERVICE_UNAVAILABLE, why);
        let _waiting = self.places.waiting.try_acquire().map_err(|_| {
            unavailable(
                "too many commands at once: as many as this daemon has connections for are running, and more \
                 wait; try again when some of them have ended",
            )
        })?;
        let room = Arc::clone(&self.places.room).acquire_owned().await;
        let permit = room.map_err(|_| unavailable("the daemon is stopping"))?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Held::Room { _permit: permit };
        Ok(())
    }
}

/// Fewest spare places: one more than may be waited at.
pub(super) const SPARE_MIN: usize = 4;
/// Most of them: each costs a file descriptor beyond the listener's share.
const SPARE_MAX: usize = 64;
