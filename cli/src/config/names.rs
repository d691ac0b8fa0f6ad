//! The `[names]` section: how names of keys are published and looked for.

use super::duration::Interval;
use cairn_node::name::{MAX_CACHE_TTL, Options};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// The section.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamesSection {
    /// For how long a record holds that is signed here.
    #[serde(deserialize_with = "a_lifetime")]
    pub lifetime: Interval,
    /// How often others are told of it again.
    #[serde(deserialize_with = "an_interval")]
    pub republish_interval: Interval,
    /// However long its owner lets a record be, others are asked after this.
    pub max_cache_ttl: Interval,
    /// Whether names that are asked for are followed over gossipsub.
    pub pubsub: bool,
}

impl Default for NamesSection {
    fn default() -> Self {
        Self {
            lifetime: Interval(LIFETIME),
            republish_interval: Interval(REPUBLISH_INTERVAL),
            max_cache_ttl: Interval(MAX_CACHE_TTL),
            pubsub: false,
        }
    }
}

impl NamesSection {
    /// The same for who resolves.
    pub const fn options(&self) -> Options {
        Options {
            max_cache_ttl: self.max_cache_ttl.0,
            pubsub: self.pubsub,
        }
    }
}

fn a_lifetime<'de, D: Deserializer<'de>>(from: D) -> Result<Interval, D::Error> {
    within(from, LIFETIME_MIN, LIFETIME_MAX)
}

fn an_interval<'de, D: Deserializer<'de>>(from: D) -> Result<Interval, D::Error> {
    within(from, REPUBLISH_INTERVAL_MIN, REPUBLISH_INTERVAL_MAX)
}

fn within<'de, D: Deserializer<'de>>(
    from: D,
    least: Duration,
    most: Duration,
) -> Result<Interval, D::Error> {
    let interval = Interval::deserialize(from)?;
    match interval.0 >= least && interval.0 <= most {
        true => Ok(interval),
        false => Err(D::Error::custom("too short or too long")),
    }
}

/// As long as nodes of the DHT keep a record.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// What is shorter has expired before everybody has it who shall keep it.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// A hundred years: what ends later than a date can tell is not signed.
const LIFETIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// As in Kubo.
const REPUBLISH_INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// Those who keep a record are told of it again a thousand times before they would forget it.
const REPUBLISH_INTERVAL_MIN: Duration = Duration::from_secs(60);
/// Half of the time after which nodes of the DHT forget.
const REPUBLISH_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
