//! Pins whose time is over.

use super::{PAGE_PINS, no_earlier};
use crate::cid::Cid;
use crate::journal::record::Record;
use crate::sink::PutError;
use crate::store::{Committed, Only, Store, blocking};
use std::time::Duration;

impl Store {
    /// The second since 1970 that is so much later than now. Now is no earlier than the newest pin, so a clock that went
    /// back lets nothing expire early; unless that pin is more than a week ahead, and so the one with the wrong time.
    pub fn expiry_after(&self, now: u64, after: Duration) -> u64 {
        let latest = self.inner.pins.read().latest();
        // A second that has begun counts whole.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        no_earlier(now, latest).saturating_add(seconds)
    }

    /// When the next pin expires, in seconds since 1970.
    pub fn next_expiry(&self) -> Option<u64> {
        self.inner.pins.read().next_expiry()
    }

    /// Removes the pins that expire at `now` or before, but for those that somebody else needs; gives how many. `along` is
    /// dropped when it is done. Durable when this returns.
    pub async fn pins_expire(
        &self,
        now: u64,
        stays: impl Fn(&Cid) -> bool + Send + 'static,
        along: impl Send + 'static,
    ) -> Result<u64, PutError> {
        let inner = self.inner.clone();
        let expire = move || {
            let _along = along;
            let (mut removed, mut skip) = (0, 0);
            loop {
                let page = inner.pins.read().expired(now, skip, PAGE_PINS);
                if page.is_empty() {
                    return Ok(removed);
                }
                // Those that are left are looked at once.
                skip += page.len();
                let over = page.into_iter().filter(|pin| !stays(&pin.cid));
                let asks = over.map(|pin| {
                    let gone = Record::Unpinned(pin.key());
                    (vec![gone], Only::Same(pin))
                });
                for done in inner.commit_each(inner.losses(), asks.collect()) {
                    // Overtaken: it was given more time meanwhile, or is gone.
                    let is_gone = done? == Committed::Yes;
                    removed += u64::from(is_gone);
                    skip -= usize::from(is_gone);
                }
            }
        };
        blocking(expire).await.unwrap_or(Err(PutError::Closing))
    }
}
