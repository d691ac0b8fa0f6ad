//! `Range` and `If-Range`: which bytes of how many.

use std::ops::Range;

/// What to send of a representation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// All of it.
    Whole,
    /// One part.
    One(Range<u64>),
    /// Several parts, in the order asked.
    Many(Vec<Range<u64>>),
    /// Nothing asked for exists.
    Unsatisfiable,
}

impl Plan {
    /// How many bytes of content that is, of `size` in all.
    pub(crate) fn bytes(&self, size: u64) -> u64 {
        let length = |range: &Range<u64>| range.end - range.start;
        match self {
            Self::Whole => size,
            Self::One(range) => length(range),
            Self::Many(ranges) => ranges.iter().map(length).sum(),
            Self::Unsatisfiable => 0,
        }
    }
}

/// The text is no list of byte ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads a `Range` header for content of `size` bytes. Other units, more than `most` ranges and
/// ranges that add up to more than the content are answered with all of it, so that a request can
/// never cost more than the content itself.
pub(crate) fn plan(header: &str, size: u64, most: usize) -> Result<Plan, Malformed> {
    let Some((unit, list)) = header.split_once('=') else {
        return Err(Malformed);
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ok(Plan::Whole);
    }
    if size == 0 {
        return Ok(Plan::Whole);
    }
    let mut ranges = Vec::new();
    let mut seen = 0_usize;
    for part in list.split(',') {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        seen += 1;
        if seen > most {
            return Ok(Plan::Whole);
        }
        ranges.extend(one(part, size)?);
    }
    if seen == 0 {
        return Err(Malformed);
    }
    let total: u128 = ranges
        .iter()
        .map(|range| u128::from(range.end - range.start))
        .sum();
    if ranges.len() > 1 && total > u128::from(size) {
        return Ok(Plan::Whole);
    }
    Ok(match (ranges.len(), ranges.pop()) {
        (_, None) => Plan::Unsatisfiable,
        (1, Some(range)) => Plan::One(range),
        (_, Some(last)) => {
            ranges.push(last);
            Plan::Many(ranges)
        }
    })
}

/// One range, cut to the size; `None` if it lies outside.
fn one(text: &str, size: u64) -> Result<Option<Range<u64>>, Malformed> {
    let (first, last) = text.split_once('-').ok_or(Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    let range = if first.is_empty() {
        let length = number(last)?.min(size);
        size - length..size
    } else if last.is_empty() {
        number(first)?..size
    } else {
        let (first, last) = (number(first)?, number(last)?);
        if last < first {
            return Err(Malformed);
        }
        first..last.saturating_add(1).min(size)
    };
    Ok((range.start < range.end).then_some(range))
}

/// A decimal number; more than 64 bits count as the largest.
fn number(text: &str) -> Result<u64, Malformed> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    Ok(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 16;

    #[test]
    fn reads_every_form() {
        let cases = [
            ("bytes=6-16", Plan::One(6..17)),
            ("bytes=0-0", Plan::One(0..1)),
            ("bytes=97-", Plan::One(97..100)),
            ("bytes=-3", Plan::One(97..100)),
            ("bytes=-300", Plan::One(0..100)),
            ("bytes=90-900", Plan::One(90..100)),
            ("BYTES = 1-2 , 4-5", Plan::Many(vec![1..3, 4..6])),
            ("bytes=1-2,200-", Plan::One(1..3)),
            ("bytes=100-", Plan::Unsatisfiable),
            ("bytes=-0", Plan::Unsatisfiable),
            ("bytes=18446744073709551615-", Plan::Unsatisfiable),
            ("bytes=0-99999999999999999999999", Plan::One(0..100)),
            ("lines=1-2", Plan::Whole),
        ];
        for (text, plan_expected) in cases {
            assert_eq!(plan(text, 100, MOST), Ok(plan_expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_list_of_ranges() {
        for text in [
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=-",
            "bytes=1",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=+1-2",
        ] {
            assert_eq!(plan(text, 100, MOST), Err(Malformed), "{text}");
        }
    }

    #[test]
    fn an_empty_file_has_no_ranges() {
        assert_eq!(plan("bytes=0-", 0, MOST), Ok(Plan::Whole));
    }

    #[test]
    fn a_bomb_of_ranges_costs_no_more_than_the_content() {
        let many = format!("bytes={}", vec!["0-0"; 10_000].join(","));
        assert_eq!(plan(&many, 1_000_000, MOST), Ok(Plan::Whole));
        assert_eq!(plan("bytes=0-,0-,0-", 100, MOST), Ok(Plan::Whole));
    }

    proptest! {
        #[test]
        fn whatever_is_asked_stays_inside(text in "bytes=[-0-9, ]{0,60}", size in 0..10_000_u64) {
            match plan(&text, size, MOST) {
                Ok(Plan::One(range)) => prop_assert!(range.start < range.end && range.end <= size),
                Ok(Plan::Many(ranges)) => {
                    prop_assert!(ranges.len() > 1 && ranges.len() <= MOST);
                    prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
                }
                Ok(Plan::Whole | Plan::Unsatisfiable) | Err(Malformed) => {}
            }
        }
    }
}
