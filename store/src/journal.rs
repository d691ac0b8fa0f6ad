//! What blocks cannot tell: how far each segment counts, pins, notes, deletions. The truth beside the log.
//!
//! One file of records, each checksummed and length-prefixed, synced before the answer. A torn end is
//! cut; damage in what had reached the disk is skipped and reported, never cut. Each group of records
//! says how far the ones before it had been synced, which is what tells the two apart. When most of the
//! file is stale it is written anew beside itself and renamed.
//!
//! * [`record`]: the records and their bytes.
//! * [`replay`]: from the file's bytes to what they add up to.
//! * this file: the state, and appending.

pub(crate) mod record;
mod replay;

use crate::disk::{Disk, DiskFile, Mode, copy};
use crate::durable::{self, Access as FileAccess};
use crate::log::dead::Dead;
use crate::log::files::Access;
use crate::log::{Position, SegmentId, Stream};
use crate::notes::Notes;
use crate::pin::table::{Pins, Table};
use bytes::Bytes;
use record::Record;
pub(crate) use replay::Replay;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the records add up to.
#[derive(Debug, Default, Clone)]
pub(crate) struct State {
    /// How far each segment counts.
    pub(crate) lengths: BTreeMap<SegmentId, u32>,
    /// Segments that were given up and may still lie there, with where their sections went.
    pub(crate) retired: BTreeMap<SegmentId, Vec<(SegmentId, u32)>>,
    /// Numbers used up, by stream.
    pub(crate) used: BTreeMap<Stream, u32>,
    /// Sections that were deleted or superseded; shared with whoever reads.
    pub(crate) dead: Arc<Dead>,
    /// The last record that the index's checkpoint covers.
    pub(crate) checkpointed: u64,
    /// What happened to sections after that, with the records' numbers: what an index that was just
    /// opened may not know.
    pub(crate) since: Vec<(u64, Change)>,
    /// The pins; shared with whoever reads.
    pub(crate) pins: Arc<Pins>,
    /// Notes by kind and key.
    pub(crate) notes: Notes,
    /// How many bytes the records of notes take.
    note_bytes: u64,
}

/// What may happen to sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// They no longer count.
    Deleted(Vec<Position>),
    /// They were cached, and must stay from now on.
    Kept(Vec<Position>),
}

/// The journal, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Number of the next record.
    next: u64,
    /// Records up to this number have reached the disk.
    synced: u64,
    /// What of that the file says.
    told: u64,
    /// After a failed write or sync the file is not trusted; the next append writes it anew.
    broken: bool,
    state: State,
}

impl Journal {
    /// Opens or makes `folder/journal.log`, and replays it. If there are `blocks`, there must have
    /// been one, up to record `known` at least.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        folder: &Path,
        access: Access,
        blocks: Blocks,
        known: u64,
    ) -> io::Result<(Self, Replay)> {
        let path = folder.join(FILE);
        let kept = folder.join(KEPT);
        let missing = !disk.exists(&path);
        if access == Access::ReadWrite {
            disk.make_folder(folder)?;
            remove_left_overs(&*disk, folder);
            if missing {
                if blocks == Blocks::Some && !disk.exists(&kept) {
                    durable::write_on(&*disk, &kept, b"", FileAccess::Owner)?;
                }
                let mut bytes = MAGIC.to_vec();
                // From the first record on it tells what has reached the disk: without that, all has.
                record::write(&mut bytes, known + 1, &Record::Synced(known));
                durable::write_on(&*disk, &path, &bytes, FileAccess::Owner)?;
                // Or the folder itself may be lost, with all that is acknowledged in it.
                disk.sync_folder(folder.parent().unwrap_or(folder))?;
            }
        }
        let mode = match access {
            Access::ReadWrite => Mode::Write,
            Access::ReadOnly => Mode::Read,
        };
        let file = disk.open(&path, mode)?;
        let bytes = file.read(0, file.length()?)?;
        let (state, mut replay) = replay::replay(&bytes, &path);
        if blocks == Blocks::Some && !missing {
            replay.compare(known, &path);
        }
        let mut journal = Self {
            disk,
            path,
            file,
            length: replay.end,
            // A number that the index has seen is nobody else's.
            next: replay.last.max(known) + 1,
            // What stands there after a restart is as durable as it ever gets once it is synced.
            synced: 0,
            told: 0,
            broken: false,
            state,
        };
        if missing && blocks == Blocks::Some {
            replay.notices.push(format!(
                "{} is missing; which blocks were pinned or deleted is not known any more",
                journal.path.display()
            ));
        }
        if access == Access::ReadWrite {
            journal.repair(&bytes, &replay, &kept)?;
        }
        if replay.damaged || journal.disk.exists(&kept) {
            replay.damage = Some(format!(
                "the journal has lost records, so pins may be missing (the damaged file is kept as \
                 {0}); pin again what must stay, then remove {0} and restart",
                kept.display()
            ));
        }
        Ok((journal, replay))
    }

    /// Brings the file to where the state is: cut, written anew, synced.
    fn repair(&mut self, bytes: &[u8], replay: &Replay, kept: &Path) -> io::Result<()> {
        if replay.damaged {
            // The evidence stays beside it; the journal itself is whole again from here on.
            if !self.disk.exists(kept) {
                durable::write_on(&*self.disk, kept, bytes, FileAccess::Owner)?;
            }
            return self.rewrite();
        }
        if self.is_mostly_stale() {
            return self.rewrite();
        }
        if replay.end < bytes.len() as u64 {
            self.file.set_length(replay.end)?;
        }
        self.file.sync()?;
        self.synced = self.next - 1;
        Ok(())
    }

    /// What stands now.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What stands at this moment, to be copied while others go on: what is appended later lies behind it, and
    /// when the journal is written anew, that is another file.
    pub(crate) fn moment(&self) -> Moment {
        Moment {
            file: self.file.clone(),
            length: self.length,
            lengths: self.state.lengths.clone(),
            used: self.state.used.clone(),
        }
    }

    /// Number of the last record.
    pub(crate) fn last(&self) -> u64 {
        self.next - 1
    }

    /// Appends records and makes them durable, then lets them count.
    pub(crate) fn append(&mut self, mut records: Vec<Record>, sync: Sync) -> io::Result<()> {
        if records.is_empty() {
            return match sync {
                Sync::Wait => self.sync(),
                Sync::Leave => Ok(()),
            };
        }
        if self.broken {
            self.rewrite()?;
        }
        if self.told < self.synced {
            records.insert(0, Record::Synced(self.synced));
        }
        let mut bytes = Vec::new();
        for (number, record) in (self.next..).zip(&records) {
            record::write(&mut bytes, number, record);
        }
        let wrote = self
            .file
            .write(self.length, &[&bytes])
            .and_then(|()| match sync {
                Sync::Wait => self.file.sync(),
                Sync::Leave => Ok(()),
            });
        if let Err(error) = wrote {
            self.broken = true;
            // Best effort: the next append starts from a new file in any case.
            let _ = self.file.set_length(self.length);
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.next += records.len() as u64;
        self.told = self.synced;
        if sync == Sync::Wait {
            self.synced = self.next - 1;
        }
        let pins = Arc::clone(&self.state.pins);
        // All at once: nobody sees a part of them.
        let mut table = pins.write();
        for (number, record) in (self.next - records.len() as u64..).zip(records) {
            self.state.apply(number, record, &mut table);
        }
        drop(table);
        if self.is_mostly_stale()
            && let Err(error) = self.rewrite()
        {
            // What was appended is safe in the old file, which goes on growing; but if the new one has its
            // name already, nobody would find what is appended from now on.
            self.broken = self.file.is_nameless();
            tracing::warn!(%error, "the journal could not be written anew");
        }
        Ok(())
    }

    /// Makes records durable that were left to the operating system.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.broken {
            return self.rewrite();
        }
        if self.synced < self.next - 1 {
            self.file.sync().inspect_err(|_| self.broken = true)?;
            self.synced = self.next - 1;
        }
        Ok(())
    }

    /// A retired segment's files are gone, durably.
    pub(crate) fn removed(&mut self, segment: SegmentId) {
        self.state.retired.remove(&segment);
    }

    fn is_mostly_stale(&self) -> bool {
        self.length > STALE_BYTES_MIN && self.length > STALE_FACTOR * self.state.bytes_estimate()
    }

    /// Writes the state as a new file in the old one's place.
    fn rewrite(&mut self) -> io::Result<()> {
        let estimate = usize::try_from(self.state.bytes_estimate()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(estimate + estimate / 4);
        bytes.extend_from_slice(MAGIC);
        let (first, rest) = self.state.records_beside_pins();
        let last = {
            let pins = self.state.pins.read();
            // It is only seen once it is synced.
            let last = self.next + (first.len() + pins.len() + rest.len()) as u64;
            // One after the other: of millions there are no copies.
            let records = [Record::Synced(last)].into_iter().chain(first);
            let records = records.chain(pins.iter().map(Record::Pinned)).chain(rest);
            for (number, record) in (self.next..).zip(records) {
                record::write(&mut bytes, number, &record);
            }
            last
        };
        durable::write_on(&*self.disk, &self.path, &bytes, FileAccess::Owner)?;
        self.file = self.disk.open(&self.path, Mode::Write)?;
        self.next = last + 1;
        self.synced = last;
        self.told = last;
        self.length = bytes.len() as u64;
        self.broken = false;
        Ok(())
    }
}

/// A journal as it was at one moment.
#[derive(Debug)]
pub(crate) struct Moment {
    file: Arc<dyn DiskFile>,
    length: u64,
    /// How far each segment counted.
    pub(crate) lengths: BTreeMap<SegmentId, u32>,
    /// Numbers used up, by stream.
    pub(crate) used: BTreeMap<Stream, u32>,
}

impl Moment {
    /// Writes it into `folder`, durably. If the journal of `from` is known to have lost something, so is this.
    pub(crate) fn write(&self, disk: &dyn Disk, from: &Path, folder: &Path) -> io::Result<()> {
        copy(disk, &self.file, self.length, &folder.join(FILE))?;
        let kept = from.join(KEPT);
        if disk.exists(&kept) {
            let file = disk.open(&kept, Mode::Read)?;
            copy(disk, &file, file.length()?, &folder.join(KEPT))?;
        }
        disk.sync_folder(folder)
    }

    /// Whether a segment may get longer yet, here or where it is copied to: the last of a stream is gone on with.
    pub(crate) fn may_grow(&self, id: SegmentId) -> bool {
        let numbers = self.lengths.keys().filter(|one| one.stream == id.stream);
        let last = numbers.map(|one| one.number).max();
        let used = self.used.get(&id.stream).copied();
        id.number >= last.max(used).unwrap_or(0)
    }
}

/// Whether there are segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// A new repository.
    None,
    /// There are.
    Some,
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
    fn apply(&mut self, number: u64, record: Record, pins: &mut Table) {
        match record {
            Record::Committed(lengths) => self.commit(lengths),
            Record::Moved {
                lengths,
                kept,
                dead,
            } => {
                self.commit(lengths);
                self.since.push((number, Change::Kept(kept)));
                self.dead.extend(dead.iter().copied());
                self.since.push((number, Change::Deleted(dead)));
            }
            Record::Pinned(pin) => pins.insert(pin),
            Record::Unpinned(key) => pins.remove(&key),
            Record::Noted { about, key, value } => {
                let bytes = |value: &Bytes| record::bytes_of_note(&key, value);
                self.note_bytes += value.as_ref().map_or(0, bytes);
                let place = (about, key.clone());
                let before = match value {
                    Some(value) => self.notes.insert(place, value),
                    None => self.notes.remove(&place),
                };
                self.note_bytes -= before.as_ref().map_or(0, bytes);
            }
            Record::Deleted(positions) => {
                self.dead.extend(positions.iter().copied());
                self.since.push((number, Change::Deleted(positions)));
            }
            Record::Buried(positions) => self.dead.extend(positions),
            Record::Retired { segment, copies } => {
                self.lengths.remove(&segment);
                self.dead.forget(segment);
                self.use_up(segment);
                self.retired.insert(segment, copies);
            }
            Record::Kept(positions) => self.since.push((number, Change::Kept(positions))),
            Record::Checkpointed(known) => {
                self.since.retain(|(number, _)| *number > known);
                self.checkpointed = self.checkpointed.max(known);
            }
            Record::Used(segment) => self.use_up(segment),
            Record::Synced(_) => {}
        }
    }

    fn commit(&mut self, lengths: Vec<(SegmentId, u32)>) {
        for (segment, length) in lengths {
            // One that was given up in vain counts again.
            self.retired.remove(&segment);
            self.lengths.insert(segment, length);
        }
    }

    fn use_up(&mut self, segment: SegmentId) {
        let used = self.used.entry(segment.stream).or_insert(0);
        *used = segment.number.max(*used);
    }

    /// Records that add up to this state, those to stand before the pins and those behind.
    fn records_beside_pins(&self) -> (Vec<Record>, Vec<Record>) {
        let used = self.used.iter().map(|(stream, number)| {
            Record::Used(SegmentId {
                stream: *stream,
                number: *number,
            })
        });
        let retired = self
            .retired
            .iter()
            .map(|(segment, copies)| Record::Retired {
                segment: *segment,
                copies: copies.clone(),
            });
        let lengths: Vec<_> = self
            .lengths
            .iter()
            .map(|(id, length)| (*id, *length))
            .collect();
        let notes = self
            .notes
            .iter()
            .map(|((about, key), value)| Record::Noted {
                about: *about,
                key: key.clone(),
                value: Some(value.clone()),
            });
        let mut buried = self.dead.positions();
        let since: HashSet<&Position> = self
            .since
            .iter()
            .filter_map(|(_, change)| match change {
                Change::Deleted(positions) => Some(positions),
                Change::Kept(_) => None,
            })
            .flatten()
            .collect();
        buried.retain(|position| !since.contains(position));
        let changes = self.since.iter().map(|(_, change)| match change.clone() {
            Change::Deleted(positions) => Record::Deleted(positions),
            Change::Kept(positions) => Record::Kept(positions),
        });
        let first = used
            .chain(retired)
            .chain(
                lengths
                    .chunks(LENGTHS_PER_RECORD)
                    .map(|some| Record::Committed(some.to_vec())),
            )
            .chain(
                buried
                    .chunks(DEAD_PER_RECORD)
                    .map(|some| Record::Buried(some.to_vec())),
            );
        let rest = notes
            .chain([Record::Checkpointed(self.checkpointed)])
            .chain(changes);
        (first.collect(), rest.collect())
    }

    fn bytes_estimate(&self) -> u64 {
        let kept = |(_, change): &(u64, Change)| match change {
            // They are in `dead` too, unless their segment has gone.
            Change::Deleted(positions) | Change::Kept(positions) => positions.len(),
        };
        let kept: usize = self.since.iter().map(kept).sum();
        let others = self.lengths.len() + kept;
        (self.dead.len() + others as u64) * 8 + self.pins.read().bytes() + self.note_bytes
    }
}

/// Files that a kill left behind in the middle of writing the journal anew.
fn remove_left_overs(disk: &dyn Disk, folder: &Path) {
    for name in disk.names(folder).unwrap_or_default() {
        if durable::is_left_over(&name) {
            let _ = disk.remove(&folder.join(name)); // Harmless if it stays.
        }
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
/// Positions in one record.
pub(crate) const DEAD_PER_RECORD: usize = 4096;
/// Segments' lengths in one record.
const LENGTHS_PER_RECORD: usize = 4096;

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;
    use crate::Block;
    use crate::cid;
    use crate::disk::simulated::{Faults, SimulatedDisk};
    use crate::log::Stream;
    use crate::pin::{Pin, PinMode};
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const SEGMENT: SegmentId = SegmentId {
        stream: Stream::Leaf,
        number: 1,
    };

    const PREFIX: crate::block::Prefix = crate::block::Prefix {
        version: cid::Version::V1,
        codec: cid::RAW,
        hash: cid::HashKind::Sha2_256,
    };

    fn pin(at: u8) -> Pin {
        let block = Block::new(PREFIX, Bytes::from(vec![at])).unwrap();
        let name = Some(format!("pin {at}"));
        Pin::new(*block.cid(), PinMode::Recursive, name).unwrap()
    }

    fn pins(journal: &Journal) -> Vec<Pin> {
        journal.state().pins.read().iter().collect()
    }

    fn open(folder: &Path) -> io::Result<(Journal, Replay)> {
        let disk = Arc::new(crate::disk::RealDisk);
        Journal::open(disk, folder, Access::ReadWrite, Blocks::None, 0)
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
            let (mut journal, _) = open(folder.path()).unwrap();
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
        let (journal, replay) = open(folder.path()).unwrap();
        assert!(replay.notices.is_empty());
        assert_eq!(journal.state().lengths.get(&SEGMENT), Some(&500));
        assert_eq!(pins(&journal), [pin(2)]);
        assert!(journal.state().dead.has(&dead));
        assert_eq!(journal.last(), 7);
    }

    #[test]
    fn many_pins_with_long_names_do_not_let_the_journal_be_written_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
        let many = (0..6000_u32).map(|at| {
            let name = Some(format!("{at:0>255}"));
            let long = crate::block::Prefix {
                hash: cid::HashKind::Sha2_512,
                ..PREFIX
            };
            let cid = *Block::new(long, Bytes::from(at.to_le_bytes().to_vec()))
                .unwrap()
                .cid();
            Record::Pinned(Pin::new(cid, PinMode::Recursive, name).unwrap())
        });
        journal.append(many.collect(), Sync::Leave).unwrap();
        assert!(journal.length > STALE_BYTES_MIN);
        journal.rewrite().unwrap();
        let bytes = journal.length;
        assert!(journal.state.bytes_estimate() <= bytes && !journal.is_mostly_stale());
        for round in 0..3 {
            let record = Record::Committed(vec![(SEGMENT, round)]);
            journal.append(vec![record], Sync::Leave).unwrap();
        }
        assert!(journal.length > bytes, "it was appended to");
        let gone = pins(&journal);
        let gone = gone.iter().map(|pin| Record::Unpinned(pin.key())).collect();
        journal.append(gone, Sync::Leave).unwrap();
        assert_eq!(journal.state.pins.read().bytes(), 0);
        assert!(journal.length < bytes / 10, "and now it was written anew");
    }

    #[test]
    fn a_record_after_which_no_other_could_come_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()).unwrap());
        let mut bytes = std::fs::read(file(folder.path())).unwrap();
        record::write(&mut bytes, u64::MAX, &Record::Pinned(pin(1)));
        std::fs::write(file(folder.path()), bytes).unwrap();
        let (journal, _) = open(folder.path()).unwrap();
        assert_eq!(pins(&journal), []);
        assert!(journal.last() < u64::MAX);
    }

    #[test]
    fn a_torn_end_is_cut_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
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
            let (journal, replay) = open(folder.path()).unwrap();
            assert_eq!(pins(&journal).len(), 1, "at {length}");
            assert!(!replay.damaged);
            // A record that says what has reached the disk comes before the pin.
            let is_whole = length == before || replay.end as usize == length;
            assert_eq!(replay.notices.is_empty(), is_whole);
        }
    }

    #[test]
    fn damage_in_the_middle_costs_one_record_and_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
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
        let (journal, replay) = open(folder.path()).unwrap();
        let names: Vec<_> = pins(&journal).into_iter().map(|pin| pin.name).collect();
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
        let (again, replay) = open(folder.path()).unwrap();
        assert_eq!(pins(&again).len(), 2);
        assert!(
            !replay.damaged && replay.damage.is_some(),
            "told until it is removed"
        );
        std::fs::remove_file(kept).unwrap();
        assert!(open(folder.path()).unwrap().1.damage.is_none());
    }

    /// A journal that is about to be written anew.
    fn nearly_stale() -> (SimulatedDisk, Journal) {
        let disk = SimulatedDisk::default();
        disk.make_folder(Path::new("/j")).unwrap();
        let opened = Journal::open(
            Arc::new(disk.clone()),
            Path::new("/j"),
            Access::ReadWrite,
            Blocks::None,
            0,
        );
        let (mut journal, _) = opened.unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
        let lengths = |round| (0..1000).map(move |at| (SegmentId::unpacked(4 * at + 4), round));
        for round in 0.. {
            let record = Record::Committed(lengths(round).collect());
            let mut bytes = Vec::new();
            record::write(&mut bytes, journal.next, &record);
            if journal.length + 2 * bytes.len() as u64 > STALE_BYTES_MIN {
                break;
            }
            journal.append(vec![record], Sync::Wait).unwrap();
        }
        (disk, journal)
    }

    #[test]
    fn what_is_acknowledged_after_writing_anew_has_failed_stands() {
        let mut renamed = 0;
        for (first, second) in (0..8).flat_map(|one| (0..6).map(move |other| (one, other))) {
            let (disk, mut journal) = nearly_stale();
            let (before, mut kept) = (journal.length, Vec::new());
            for (name, soon) in [(1, first), (2, second)] {
                disk.set_faults(Faults {
                    fails: Some((soon, io::ErrorKind::StorageFull)),
                    ..Faults::default()
                });
                let lengths = (0..2000).map(|at| (SegmentId::unpacked(4 * at + 4), 7));
                let records = vec![
                    Record::Committed(lengths.collect()),
                    Record::Pinned(pin(name)),
                ];
                if journal.append(records, Sync::Wait).is_ok() {
                    kept.push(pin(name).key());
                }
                renamed += usize::from(journal.length < before);
            }
            disk.set_faults(Faults::default());
            drop(journal);
            let after = disk.after_power_cut(&mut StdRng::seed_from_u64(first * 100 + second));
            let opened = Journal::open(
                Arc::new(after),
                Path::new("/j"),
                Access::ReadWrite,
                Blocks::None,
                0,
            );
            let (journal, _) = opened.unwrap();
            for key in kept {
                let stands = journal.state().pins.read().get(&key).is_some();
                assert!(stands, "failing at {first}, then at {second}");
            }
        }
        assert!(renamed > 0, "it was written anew at all");
    }

    #[test]
    fn a_stale_journal_is_written_anew_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(folder.path()).unwrap();
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
        let noted = |key, value: Option<Bytes>| Record::Noted {
            about: 3,
            key: vec![key],
            value,
        };
        let notes = vec![
            noted(1, Some(Bytes::from_static(b"kept"))),
            noted(2, Some(Bytes::from_static(b"gone"))),
            noted(2, None),
        ];
        journal.append(notes, Sync::Leave).unwrap();
        let before = pins(&journal);
        journal.rewrite().unwrap();
        drop(journal);
        let (again, _) = open(folder.path()).unwrap();
        assert_eq!(pins(&again), before);
        let notes = &again.state().notes;
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[&(3, vec![1])], "kept");
        assert_eq!(again.state().lengths.get(&SEGMENT), Some(&19_999));
    }
}
