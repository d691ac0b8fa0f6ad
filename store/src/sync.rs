//! The locks on which the store's decisions hang: what is held, what is pinned, what may go.
//!
//! They are the standard library's. In tests a store may be made with those of a schedule explorer
//! instead (`explored`): whoever runs it then decides at every lock which thread goes on.

#[cfg(test)]
pub(crate) mod explored;

#[cfg(test)]
pub(crate) use explored::{
    Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, is_explored,
};
#[cfg(not(test))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// One on which no decision hangs.
pub(crate) use std::sync::Mutex as PlainMutex;

/// Whether this thread is one whose schedule is explored.
#[cfg(not(test))]
pub(crate) const fn is_explored() -> bool {
    false
}
