//! From the journal's bytes to what they add up to.
//!
//! Bytes that hold no readable record are either the end of what was being written when the power
//! went, or damage in what was there before. The first missing number decides: if a later record says
//! that it had reached the disk, it is damage, which is skipped and told. Otherwise nobody was ever
//! told that it counts, and nobody was told of anything behind it: the journal ends there.

use super::record::{self, Record};
use super::{MAGIC, State};
use std::path::Path;

/// What opening found out.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Sentences for the operator.
    pub(crate) notices: Vec<String>,
    /// Whether records were lost just now: then segments may count further than it says.
    pub(crate) damaged: bool,
    /// What the operator is told as long as records are known to have been lost.
    pub(crate) damage: Option<String>,
    /// Whether it ends before what the index has seen of it.
    pub(crate) behind: bool,
    /// Number of the last record that counts.
    pub(super) last: u64,
    /// Where it ends.
    pub(super) end: u64,
}

impl Replay {
    /// What the index holds up to record `known` was in the journal durably before: one that ends earlier has
    /// lost its end, however whole the rest looks.
    pub(super) fn compare(&mut self, known: u64, path: &Path) {
        if self.last < known {
            self.behind = true;
            self.damaged = true;
            self.notices.push(format!(
                "{} ends with record {}, but the index has seen record {known}: its end was lost",
                path.display(),
                self.last
            ));
        }
    }
}

/// A record that could be read, and where.
struct Read {
    number: u64,
    record: Record,
    start: usize,
    end: usize,
}

/// Replays a file's bytes; `path` is for the operator's eyes.
pub(super) fn replay(bytes: &[u8], path: &Path) -> (State, Replay) {
    let mut replay = Replay::default();
    let first = if bytes.starts_with(MAGIC) {
        MAGIC.len()
    } else {
        replay.damaged = true;
        let path = path.display();
        replay
            .notices
            .push(format!("{path} has a damaged first line"));
        0
    };
    let synced = synced_up_to(bytes, first);
    let mut state = State::default();
    let pins = state.pins.clone();
    let mut pins = pins.write();
    let mut end = first;
    for Read {
        number,
        record,
        start,
        end: record_end,
    } in records(bytes, first)
    {
        if number <= replay.last {
            continue;
        }
        if start > end {
            if synced.is_some_and(|synced| replay.last >= synced) {
                break;
            }
            replay.damaged = true;
            replay.notices.push(format!(
                "{}: bytes {end} to {start} hold no readable record and were skipped",
                path.display()
            ));
        }
        state.apply(number, record, &mut pins);
        replay.last = number;
        end = record_end;
    }
    if end < bytes.len() {
        replay.notices.push(format!(
            "{}: the last {} bytes were not written to their end and were cut off",
            path.display(),
            bytes.len() - end
        ));
    }
    replay.end = end as u64;
    (state, replay)
}

/// What can be read, one after the other: of millions of records there is never more than one.
fn records(bytes: &[u8], first: usize) -> impl Iterator<Item = Read> {
    let mut at = first;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            let start = at;
            match record::read(rest) {
                Some((number, record, used)) => {
                    at += used;
                    return Some(Read {
                        number,
                        record,
                        start,
                        end: at,
                    });
                }
                None => at += 1,
            }
        }
    })
}

/// Up to which number some record says that all had reached the disk. `None` in a journal of format
/// 1, which does not tell: there, whatever something readable follows was synced before it.
fn synced_up_to(bytes: &[u8], first: usize) -> Option<u64> {
    let synced = records(bytes, first).filter_map(|read| match read.record {
        Record::Synced(number) => Some(number),
        _ => None,
    });
    synced.max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::SegmentId;

    /// The bytes of these records, numbered from 1, and where each begins.
    fn file(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        let mut starts = Vec::new();
        for (number, record) in (1..).zip(records) {
            starts.push(bytes.len());
            record::write(&mut bytes, number, record);
        }
        (bytes, starts)
    }

    fn committed(length: u32) -> Record {
        Record::Committed(vec![(SegmentId::unpacked(length), length)])
    }

    fn lengths(state: &State) -> Vec<u32> {
        state.lengths.values().copied().collect()
    }

    #[test]
    fn a_hole_in_what_was_synced_is_damage_and_what_follows_counts() {
        let (mut bytes, starts) =
            file(&[committed(1), committed(2), Record::Synced(2), committed(4)]);
        bytes[starts[1] + 22] ^= 1;
        let (state, replay) = replay(&bytes, Path::new("journal.log"));
        assert!(replay.damaged);
        assert_eq!((lengths(&state), replay.last), (vec![1, 4], 4));
    }

    #[test]
    fn a_hole_in_what_was_never_synced_is_the_end() {
        let (mut bytes, starts) =
            file(&[committed(1), Record::Synced(1), committed(3), committed(4)]);
        bytes[starts[2] + 22] ^= 1;
        let (state, replay) = replay(&bytes, Path::new("journal.log"));
        assert!(!replay.damaged);
        assert_eq!((lengths(&state), replay.last), (vec![1], 2));
        assert_eq!(replay.end, starts[2] as u64);
        assert_eq!(replay.notices.len(), 1);
    }

    #[test]
    fn in_a_journal_of_the_first_format_every_hole_is_damage() {
        let (mut bytes, starts) = file(&[committed(1), committed(2), committed(3)]);
        bytes[starts[1] + 22] ^= 1;
        let (state, replay) = replay(&bytes, Path::new("journal.log"));
        assert!(replay.damaged);
        assert_eq!(lengths(&state), [1, 3]);
    }
}
