//! What blocks cannot tell: how far each segment counts, pins, deletions. The truth beside the log.
//!
//! One file of records, each checksummed and length-prefixed, synced before the answer. Damage in
//! its middle is skipped and reported, never cut; a torn end is cut. When most of it is stale it is
//! written anew beside itself and renamed.
//!
//! * [`record`]: the records and their bytes.
//! * this file: the state they add up to, appending, replay.

pub(crate) mod record;

use crate::durable;
use crate::log::{Position, SegmentId};
use crate::pin::Pin;
use record::Record;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What the records add up to.
#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    /// How far each segment counts.
    pub(crate) lengths: BTreeMap<SegmentId, u32>,
    /// Segments that were given up; their numbers are never used again.
    pub(crate) retired: BTreeSet<SegmentId>,
    /// Sections that were deleted or superseded.
    pub(crate) dead: HashSet<Position>,
    /// Pins by [`Pin::key`].
    pub(crate) pins: BTreeMap<Vec<u8>, Pin>,
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
    length: u64,
    /// Number of the next record.
    next: u64,
    /// After a failed write or sync the file is not trusted; the next append writes it anew.
    broken: bool,
    state: State,
}

/// What opening found out.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// Sentences for the operator.
    pub(crate) notices: Vec<String>,
    /// Whether records were lost just now: then segments may count further than it says.
    pub(crate) damaged: bool,
    /// What the operator is told as long as records are known to have been lost.
    pub(crate) damage: Option<String>,
    /// Deletions with the numbers of their records, for whoever knows how far they are done.
    pub(crate) deletions: Vec<(u64, Vec<Position>)>,
}

impl Journal {
    /// Opens or makes `folder/journal.log`, and replays it.
    pub(crate) fn open(folder: &Path) -> io::Result<(Self, Replay)> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(FILE);
        if !path.exists() {
            durable::write(&path, MAGIC, durable::Access::Owner)?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut journal = Self {
            path,
            file,
            length: 0,
            next: 1,
            broken: false,
            state: State::default(),
        };
        let mut replay = journal.replay(&bytes)?;
        let kept = folder.join(KEPT);
        if replay.damaged {
            // The evidence stays beside it; the journal itself is whole again from here on.
            if !kept.exists() {
                durable::write(&kept, &bytes, durable::Access::Owner)?;
            }
            journal.rewrite()?;
        } else if journal.is_mostly_stale() {
            journal.rewrite()?;
        }
        if kept.exists() {
            replay.damage = Some(format!(
                "the journal has lost records, so pins may be missing (the damaged file is kept as \
                 {0}); pin again what must stay, then remove {0} and restart",
                kept.display()
            ));
        }
        Ok((journal, replay))
    }

    /// What stands now.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Number of the last record.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Appends records and makes them durable, then lets them count.
    pub(crate) fn append(&mut self, records: Vec<Record>, sync: Sync) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if self.broken {
            self.rewrite()?;
        }
        let mut bytes = Vec::new();
        for (number, record) in (self.next..).zip(&records) {
            record::write(&mut bytes, number, record);
        }
        let wrote = self
            .file
            .write_all_at(&bytes, self.length)
            .and_then(|()| match sync {
                Sync::Wait => self.file.sync_data(),
                Sync::Leave => Ok(()),
            });
        if let Err(error) = wrote {
            self.broken = true;
            // Best effort: the next append starts from a new file in any case.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.next += records.len() as u64;
        for record in records {
            self.state.apply(record);
        }
        if self.is_mostly_stale()
            && let Err(error) = self.rewrite()
        {
            // What was appended is safe in the old file; only its size goes on growing.
            tracing::warn!(%error, "the journal could not be written anew");
        }
        Ok(())
    }

    fn replay(&mut self, bytes: &[u8]) -> io::Result<Replay> {
        let mut replay = Replay::default();
        let mut at = MAGIC.len();
        if !bytes.starts_with(MAGIC) {
            replay.damaged = true;
            replay
                .notices
                .push(format!("{} has a damaged first line", self.path.display()));
            at = 0;
        }
        let mut good_end = at;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some((number, record, used)) = record::read(rest) {
                at += used;
                if number >= self.next {
                    if at - used > good_end {
                        replay.damaged = true;
                        replay.notices.push(format!(
                            "{}: bytes {good_end} to {} hold no readable record and were skipped",
                            self.path.display(),
                            at - used
                        ));
                    }
                    self.next = number + 1;
                    if let Record::Deleted(positions) = &record {
                        replay.deletions.push((number, positions.clone()));
                    }
                    self.state.apply(record);
                }
                good_end = at;
            } else {
                at += 1;
            }
        }
        if good_end < bytes.len() {
            // Nothing readable follows: the end was being written when the power went.
            replay.notices.push(format!(
                "{}: the last {} bytes were not written to their end and were cut off",
                self.path.display(),
                bytes.len() - good_end
            ));
            self.file.set_len(good_end as u64)?;
            self.file.sync_data()?;
        }
        self.length = good_end as u64;
        Ok(replay)
    }

    fn is_mostly_stale(&self) -> bool {
        self.length > STALE_BYTES_MIN && self.length > STALE_FACTOR * self.state.bytes_estimate()
    }

    /// Writes the state as a new file in the old one's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = MAGIC.to_vec();
        let records = self.state.records();
        for (number, record) in (self.next..).zip(&records) {
            record::write(&mut bytes, number, record);
        }
        durable::write(&self.path, &bytes, durable::Access::Owner)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.next += records.len() as u64;
        self.length = bytes.len() as u64;
        self.broken = false;
        Ok(())
    }
}

/// Whether an append waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    /// Until it is durable.
    Wait,
    /// The operating system may take its time.
    Leave,
}

impl State {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Committed(lengths) => self.lengths.extend(lengths),
            Record::Pinned(pin) => drop(self.pins.insert(pin.key(), pin)),
            Record::Unpinned(key) => drop(self.pins.remove(&key)),
            Record::Deleted(positions) => self.dead.extend(positions),
            Record::Retired(segment) => {
                self.lengths.remove(&segment);
                self.dead.retain(|position| position.segment != segment);
                self.retired.insert(segment);
            }
        }
    }

    /// Records that add up to this state.
    fn records(&self) -> Vec<Record> {
        let mut dead: Vec<Position> = self.dead.iter().copied().collect();
        dead.sort_unstable();
        let retired = self.retired.iter().map(|segment| Record::Retired(*segment));
        let lengths: Vec<_> = self
            .lengths
            .iter()
            .map(|(id, length)| (*id, *length))
            .collect();
        retired
            .chain([Record::Committed(lengths)])
            .chain(
                dead.chunks(DEAD_PER_RECORD)
                    .map(|some| Record::Deleted(some.to_vec())),
            )
            .chain(self.pins.values().cloned().map(Record::Pinned))
            .collect()
    }

    fn bytes_estimate(&self) -> u64 {
        (self.lengths.len() * 8 + self.dead.len() * 8 + self.pins.len() * 80) as u64
    }
}

/// The journal's file inside its folder.
const FILE: &str = "journal.log";
/// Where a damaged one is kept until the operator has looked at it.
const KEPT: &str = "journal.damaged";
/// First bytes of the file.
const MAGIC: &[u8] = b"cairn journal 1\n";
/// Below this size nobody minds what is stale.
const STALE_BYTES_MIN: u64 = 1 << 20;
/// How many times larger than needed the journal may be.
const STALE_FACTOR: u64 = 4;
/// Deletions in one record.
pub(crate) const DEAD_PER_RECORD: usize = 4096;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::cid;
    use crate::log::Stream;
    use crate::pin::PinMode;

    const SEGMENT: SegmentId = SegmentId {
        stream: Stream::Leaf,
        number: 1,
    };

    fn pin(at: u8) -> Pin {
        let prefix = crate::block::Prefix {
            version: cid::Version::V1,
            codec: cid::RAW,
            hash: cid::HashKind::Sha2_256,
        };
        let block = crate::Block::new(prefix, bytes::Bytes::from(vec![at])).unwrap();
        Pin {
            cid: *block.cid(),
            mode: PinMode::Recursive,
            name: Some(format!("pin {at}")),
        }
    }

    fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    #[test]
    fn what_was_appended_stands_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let dead = Position {
            segment: SEGMENT,
            offset: 99,
        };
        {
            let (mut journal, _) = Journal::open(folder.path()).unwrap();
            journal
                .append(
                    vec![
                        Record::Committed(vec![(SEGMENT, 500)]),
                        Record::Pinned(pin(1)),
                        Record::Pinned(pin(2)),
                        Record::Unpinned(pin(1).key()),
                        Record::Deleted(vec![dead]),
                    ],
                    Sync::Wait,
                )
                .unwrap();
        }
        let (journal, replay) = Journal::open(folder.path()).unwrap();
        assert!(replay.notices.is_empty());
        assert_eq!(journal.state().lengths.get(&SEGMENT), Some(&500));
        assert_eq!(journal.state().pins.values().collect::<Vec<_>>(), [&pin(2)]);
        assert!(journal.state().dead.contains(&dead));
        assert_eq!(journal.last(), 5);
    }

    #[test]
    fn a_torn_end_is_cut_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal
            .append(vec![Record::Pinned(pin(1))], Sync::Wait)
            .unwrap();
        let before = std::fs::metadata(file(folder.path())).unwrap().len() as usize;
        journal
            .append(vec![Record::Pinned(pin(2))], Sync::Wait)
            .unwrap();
        let whole = std::fs::read(file(folder.path())).unwrap();
        for length in before..whole.len() {
            std::fs::write(file(folder.path()), &whole[..length]).unwrap();
            let (journal, replay) = Journal::open(folder.path()).unwrap();
            assert_eq!(journal.state().pins.len(), 1, "at {length}");
            assert!(!replay.damaged);
            assert_eq!(replay.notices.len(), usize::from(length > before));
        }
    }

    #[test]
    fn damage_in_the_middle_costs_one_record_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        journal
            .append(vec![Record::Pinned(pin(1))], Sync::Wait)
            .unwrap();
        let middle = std::fs::metadata(file(folder.path())).unwrap().len();
        journal
            .append(vec![Record::Pinned(pin(2))], Sync::Wait)
            .unwrap();
        journal
            .append(vec![Record::Pinned(pin(3))], Sync::Wait)
            .unwrap();
        let mut whole = std::fs::read(file(folder.path())).unwrap();
        whole[middle as usize + 30] ^= 1;
        std::fs::write(file(folder.path()), &whole).unwrap();
        let (journal, replay) = Journal::open(folder.path()).unwrap();
        let names: Vec<_> = journal
            .state()
            .pins
            .values()
            .map(|pin| pin.name.clone())
            .collect();
        assert_eq!(names.len(), 2);
        assert!(!names.contains(&Some("pin 2".to_owned())));
        assert!(replay.damaged && replay.damage.is_some());
        let kept = folder.path().join(KEPT);
        assert_eq!(
            std::fs::read(&kept).unwrap(),
            whole,
            "nothing is thrown away"
        );
        drop(journal);
        let (again, replay) = Journal::open(folder.path()).unwrap();
        assert_eq!(again.state().pins.len(), 2);
        assert!(
            !replay.damaged && replay.damage.is_some(),
            "told until it is removed"
        );
        std::fs::remove_file(kept).unwrap();
        assert!(Journal::open(folder.path()).unwrap().1.damage.is_none());
    }

    #[test]
    fn a_stale_journal_is_written_anew_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(folder.path()).unwrap();
        let mut longest = 0;
        for round in 0..20_000u32 {
            let record = Record::Committed(vec![(SEGMENT, round)]);
            journal.append(vec![record], Sync::Leave).unwrap();
            longest = longest.max(journal.length);
        }
        for at in 0..200 {
            journal
                .append(vec![Record::Pinned(pin(at))], Sync::Leave)
                .unwrap();
        }
        assert!(longest <= STALE_BYTES_MIN + 100, "{longest}");
        let pins = journal.state().pins.clone();
        journal.rewrite().unwrap();
        drop(journal);
        let (again, _) = Journal::open(folder.path()).unwrap();
        assert_eq!(again.state().pins, pins);
        assert_eq!(again.state().lengths.get(&SEGMENT), Some(&19_999));
    }
}
