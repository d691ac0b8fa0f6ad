//! Locks for tests: the standard library's, or the explorer's if they are made while it runs.

use shuttle::sync as explorer;
use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{self as standard, LockResult, PoisonError};

thread_local! {
    static IS_EXPLORED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is one whose schedule is explored.
pub(crate) fn is_explored() -> bool {
    IS_EXPLORED.get()
}

/// Runs `work`, in which an explorer runs: the threads that it tells apart are one to the system.
pub(crate) fn exploring<T>(work: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            IS_EXPLORED.set(false);
        }
    }
    IS_EXPLORED.set(true);
    let _back = Back;
    work()
}

/// A lock that is one of two kinds, and its guards.
macro_rules! either {
    ($(#[$about:meta])* $lock:ident: $($method:ident -> $guard:ident),+) => {
        $(#[$about])*
        pub(crate) enum $lock<T> {
            Standard(standard::$lock<T>),
            Explored(explorer::$lock<T>),
        }

        impl<T> $lock<T> {
            pub(crate) fn new(value: T) -> Self {
                if is_explored() {
                    Self::Explored(explorer::$lock::new(value))
                } else {
                    Self::Standard(standard::$lock::new(value))
                }
            }

            $(pub(crate) fn $method(&self) -> LockResult<$guard<'_, T>> {
                match self {
                    Self::Standard(lock) => either(lock.$method(), $guard::Standard),
                    Self::Explored(lock) => either(lock.$method(), $guard::Explored),
                }
            })+
        }

        impl<T: Default> Default for $lock<T> {
            fn default() -> Self {
                Self::new(T::default())
            }
        }

        impl<T> fmt::Debug for $lock<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($lock))
            }
        }

        $(
            /// What whoever has the lock holds.
            pub(crate) enum $guard<'a, T> {
                Standard(standard::$guard<'a, T>),
                Explored(explorer::$guard<'a, T>),
            }

            impl<T> Deref for $guard<'_, T> {
                type Target = T;

                fn deref(&self) -> &T {
                    match self {
                        Self::Standard(guard) => guard,
                        Self::Explored(guard) => guard,
                    }
                }
            }
        )+
    };
}

macro_rules! mutable {
    ($($guard:ident),+) => {
        $(impl<T> DerefMut for $guard<'_, T> {
            fn deref_mut(&mut self) -> &mut T {
                match self {
                    Self::Standard(guard) => guard,
                    Self::Explored(guard) => guard,
                }
            }
        })+
    };
}

either! {
    /// For one at a time.
    Mutex: lock -> MutexGuard
}
either! {
    /// For many who read or one who writes.
    RwLock: read -> RwLockReadGuard, write -> RwLockWriteGuard
}
mutable!(MutexGuard, RwLockWriteGuard);

fn either<G, E>(locked: LockResult<G>, wrap: impl Fn(G) -> E) -> LockResult<E> {
    match locked {
        Ok(guard) => Ok(wrap(guard)),
        Err(poisoned) => Err(PoisonError::new(wrap(poisoned.into_inner()))),
    }
}

/// Where threads wait for each other.
#[derive(Debug)]
pub(crate) enum Condvar {
    Standard(standard::Condvar),
    Explored(explorer::Condvar),
}

impl Default for Condvar {
    fn default() -> Self {
        if is_explored() {
            Self::Explored(explorer::Condvar::new())
        } else {
            Self::Standard(standard::Condvar::new())
        }
    }
}

impl Condvar {
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        match (self, guard) {
            (Self::Standard(condvar), MutexGuard::Standard(guard)) => {
                either(condvar.wait(guard), MutexGuard::Standard)
            }
            (Self::Explored(condvar), MutexGuard::Explored(guard)) => {
                either(condvar.wait(guard), MutexGuard::Explored)
            }
            _ => unreachable!("both were made in the same place"),
        }
    }

    pub(crate) fn notify_all(&self) {
        match self {
            Self::Standard(condvar) => condvar.notify_all(),
            Self::Explored(condvar) => condvar.notify_all(),
        }
    }
}
