//! Durations as text, the way Kubo's tools write them: `30s`, `5000ms`, `1h30m`, `1.5s`; and `30d`, `2w`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in a configuration or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Interval(pub Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration; write it like 30s, 500ms, 5m, 1h30m or 30d")]
pub struct IntervalError(String);

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let wrong = || IntervalError(text.chars().take(40).collect());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or_else(wrong)?;
            let (number, after) = rest.split_at(digits);
            let unit = after
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit);
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let (_, scale) = UNITS
                .into_iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(wrong)?;
            seconds += number * scale;
            rest = after;
        }
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| wrong())
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if self.0.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(3600) {
            write!(out, "{}h", seconds / 3600)
        } else if self.0.subsec_nanos() == 0 {
            write!(out, "{}s", self.0.as_secs())
        } else {
            write!(out, "{}ms", self.0.as_millis())
        }
    }
}

impl TryFrom<String> for Interval {
    type Error = IntervalError;

    fn try_from(text: String) -> Result<Self, IntervalError> {
        text.parse()
    }
}

impl From<Interval> for String {
    fn from(interval: Interval) -> Self {
        interval.to_string()
    }
}

const UNITS: [(&str, f64); 9] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
    ("d", 86_400.0),
    ("w", 604_800.0),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tools_write() {
        let read = |text: &str| text.parse::<Interval>().unwrap().0;
        assert_eq!(read("30s"), Duration::from_secs(30));
        assert_eq!(read("5000ms"), Duration::from_secs(5));
        assert_eq!(read("1h30m"), Duration::from_secs(5400));
        assert_eq!(read("1.5s"), Duration::from_millis(1500));
        assert_eq!(read("1d12h"), Duration::from_secs(36 * 3600));
        assert_eq!(read("2w"), Duration::from_secs(14 * 24 * 3600));
        assert_eq!(read("0"), Duration::ZERO);
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1 s",
            "1x",
            "1..2s",
            "9e99s",
            "99999999999999999999h",
        ] {
            assert!(text.parse::<Interval>().is_err(), "{text}");
        }
    }
}
