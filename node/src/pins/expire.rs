//! Removes pins whose time is over.

use super::{FollowPinError, Follows};
use crate::tasks::Tasks;
use cairn_store::Cid;
use cairn_store::cid::Multihash;
use cairn_store::pin::Pin;
use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// Which pins are over at one moment, and wait to be removed.
#[derive(Debug, Clone)]
pub struct Over {
    now: u64,
    /// Those would be fetched again.
    followed: HashSet<(u64, Multihash)>,
}

impl Over {
    fn new(now: u64, followed: impl IntoIterator<Item = Cid>) -> Self {
        let key = |cid: Cid| (cid.codec(), *cid.hash());
        let followed = followed.into_iter().map(key).collect();
        Self { now, followed }
    }

    /// Whether this one is.
    pub fn has(&self, pin: &Pin) -> bool {
        pin.expires.is_some_and(|at| at <= self.now) && !self.needs(&pin.cid)
    }

    fn needs(&self, cid: &Cid) -> bool {
        self.followed.contains(&(cid.codec(), *cid.hash()))
    }
}

impl Follows {
    /// Which pins are over by now; `None` if none is. By a clock that cannot be right, none is.
    pub fn over(&self) -> Option<Over> {
        let now = seconds(self.now().ok()?);
        let next = self.0.exchange.store().next_expiry();
        next.filter(|next| *next <= now)?;
        let followed = self.notes().into_iter().map(|(_, noted)| noted);
        let followed = followed.filter(|noted| !noted.is_over);
        Some(Over::new(now, followed.map(|noted| noted.now.cid)))
    }

    /// The second since 1970 that is so much later than now; an error if the clock cannot be right.
    pub fn expiry_after(&self, after: Duration) -> Result<u64, FollowPinError> {
        let now = seconds(self.now()?);
        Ok(self.0.exchange.store().expiry_after(now, after))
    }

    /// Removes pins that have expired; gives how many. What a followed name leads to stays as long as that is so: it would
    /// be fetched again. By a clock that cannot be right, nothing has expired.
    pub async fn expire(&self) -> Result<u64, FollowPinError> {
        let now = seconds(self.now()?);
        let store = self.0.exchange.store();
        if store.next_expiry().is_none_or(|next| next > now) {
            return Ok(0);
        }
        let (followed, lock) = self.followed().await;
        let over = Over::new(now, followed);
        let stays = move |cid: &Cid| over.needs(cid);
        let removed = store.pins_expire(now, stays, lock).await;
        removed.map_err(FollowPinError::Expire)
    }

    /// Goes on removing them.
    pub fn keep_expiring(&self, tasks: &Tasks) {
        let (this, stop) = (self.clone(), tasks.stopping());
        tasks.spawn("remove expired pins", async move {
            let work = async {
                loop {
                    match this.expire().await {
                        Ok(0) => {}
                        Ok(count) => tracing::info!(count, "expired pins were removed"),
                        Err(FollowPinError::Clock(error)) => {
                            tracing::debug!(%error, "no pin expires");
                        }
                        Err(error) => {
                            tracing::warn!(%error, "expired pins were not removed; trying again later");
                        }
                    }
                    // The clock may be set meanwhile, and a pin be made that expires sooner.
                    sleep(LOOKED_EVERY).await;
                }
            };
            let _: Option<()> = stop.run_until_cancelled(work).await;
        });
    }
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// How often it is looked. What has expired may stay for so long.
const LOOKED_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, start};
    use super::*;
    use crate::clock::LEAST;
    use cairn_store::pin::{Expiry, PinMode, PinWish};

    fn at_expiry() -> SystemTime {
        start() + Duration::from_secs(60)
    }

    fn just_before() -> SystemTime {
        at_expiry() - Duration::from_secs(1)
    }

    fn before_1970() -> SystemTime {
        UNIX_EPOCH - Duration::from_secs(1000)
    }

    fn long_ago() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(LEAST - 1)
    }

    async fn pinned(bench: &Bench) -> Cid {
        let cid = bench.block(b"for a while").await;
        let wish = PinWish {
            expiry: Expiry::At(seconds(at_expiry())),
            ..PinWish::new(cid, PinMode::Recursive)
        };
        let store = bench.store.clone();
        store.pin_as(store.clone(), wish, |_| {}).await.unwrap();
        cid
    }

    #[tokio::test]
    async fn a_pin_goes_when_its_time_is_over_and_not_by_a_wrong_clock() {
        let bench = Bench::new();
        let cid = pinned(&bench).await;
        for clock in [before_1970, long_ago] {
            let refused = bench.follows(clock).expire().await;
            assert!(matches!(refused, Err(FollowPinError::Clock(_))));
            let hour = Duration::from_secs(3600);
            assert!(bench.follows(clock).expiry_after(hour).is_err());
        }
        let pin = bench.store.pin(&cid).unwrap();
        for clock in [before_1970, long_ago, just_before] {
            assert!(bench.follows(clock).over().is_none());
        }
        assert!(bench.follows(at_expiry).over().unwrap().has(&pin));
        assert_eq!(bench.follows(just_before).expire().await.unwrap(), 0);
        assert_eq!(bench.pinned(), [cid]);
        assert_eq!(bench.follows(at_expiry).expire().await.unwrap(), 1);
        assert_eq!(bench.pinned(), []);
    }

    #[tokio::test]
    async fn what_a_followed_name_leads_to_does_not_expire() {
        let bench = Bench::new();
        let cid = pinned(&bench).await;
        bench.leads_to(&cid).await;
        let follows = bench.follows(start);
        bench.follow(&follows, &bench.path()).await.unwrap();
        let expires = bench.store.pin(&cid).unwrap().expires;
        assert_eq!(expires, Some(seconds(at_expiry())), "it is still known");
        assert_eq!(bench.follows(at_expiry).expire().await.unwrap(), 0);
        let pin = bench.store.pin(&cid).unwrap();
        assert!(!bench.follows(at_expiry).over().unwrap().has(&pin));
        follows.end(&bench.path()).await.unwrap();
        assert_eq!(bench.follows(at_expiry).expire().await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_removes_it() {
        let bench = Bench::new();
        pinned(&bench).await;
        let tasks = Tasks::new();
        bench.follows(at_expiry).keep_expiring(&tasks);
        let waiting = async {
            while !bench.pinned().is_empty() {
                sleep(LOOKED_EVERY).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(3600), waiting).await;
        waited.expect("it is removed within an hour");
        assert!(tasks.stop(Duration::from_secs(10)).await);
    }
}
