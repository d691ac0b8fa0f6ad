//! A disk that behaves as badly as disks may.
//!
//! What was written and not synced may be there after a power cut, or not, or in parts of 512 bytes or
//! 4 KiB, in any order, or as zeros; names that were made, changed or taken away without syncing their
//! folder may have changed or not. It can fail any one operation, and it can lie about syncing. All of
//! it is decided by a seed.

use super::{Disk, DiskFile, Mode, Space};
use rand::Rng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What goes wrong, by the number of the operation that changes something.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// From this one on the power is gone.
    pub(crate) power_off: Option<u64>,
    /// This one fails, once.
    pub(crate) fails: Option<(u64, ErrorKind)>,
    /// From this one on syncing does nothing.
    pub(crate) lies: Option<u64>,
    /// The operation panics.
    pub(crate) panics: Option<u64>,
}

/// A disk in memory. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    names: BTreeMap<PathBuf, u64>,
    files: HashMap<u64, Content>,
    /// What a power cut leaves of the names, before chance has its say.
    safe_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since their folders were synced.
    renamed: Vec<Renamed>,
    last_file: u64,
    operations: u64,
    faults: Faults,
    /// Sectors that cannot be read, by file.
    spoiled: Vec<(u64, Range<u64>)>,
}

#[derive(Debug, Default, Clone)]
struct Content {
    now: Vec<u8>,
    safe: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Clone)]
enum Renamed {
    Made(PathBuf, u64),
    Moved(PathBuf, PathBuf, u64),
    Removed(PathBuf, u64),
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl SimulatedDisk {
    /// Lets things go wrong from now on, counted from the operations done so far.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        let done = state.operations;
        state.faults = Faults {
            power_off: faults.power_off.map(|at| at + done),
            fails: faults.fails.map(|(at, kind)| (at + done, kind)),
            lies: faults.lies.map(|at| at + done),
            panics: faults.panics.map(|at| at + done),
        };
    }

    /// Lets bytes of a file be unreadable from now on.
    pub(crate) fn spoil(&self, path: &Path, bytes: Range<u64>) {
        let mut state = self.lock();
        let file = state.file(path).unwrap();
        state.spoiled.push((file, bytes));
    }

    /// Lets everything be readable again.
    pub(crate) fn mend(&self) {
        self.lock().spoiled.clear();
    }

    /// Whether the power has gone.
    pub(crate) fn is_off(&self) -> bool {
        self.lock().is_off()
    }

    /// How many operations have changed something.
    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// The disk as it may be found after a power cut at this moment.
    pub(crate) fn after_power_cut(&self, random: &mut StdRng) -> Self {
        let state = self.lock();
        let survives = *pick(random, &[0.0, 0.5, 0.9, 1.0]);
        let sector = *pick(random, &[512_usize, 4096]);
        let mut names = state.safe_names.clone();
        for change in &state.renamed {
            if random.random_bool(survives) {
                change.apply(&mut names);
            }
        }
        let files = names.values().map(|file| {
            let content = state.files.get(file).cloned().unwrap_or_default();
            let bytes = content.after_power_cut(random, survives, sector);
            let content = Content {
                now: bytes.clone(),
                safe: bytes,
                unsynced: Vec::new(),
            };
            (*file, content)
        });
        let files = files.collect();
        let state = State {
            safe_names: names.clone(),
            names,
            files,
            last_file: state.last_file,
            ..State::default()
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_off(&self) -> bool {
        let off = self.faults.power_off;
        off.is_some_and(|off| self.operations >= off)
    }

    /// Counts an operation; tells whether it may go on.
    fn change(&mut self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the power is gone"));
        }
        self.operations += 1;
        assert!(
            self.faults.panics != Some(self.operations),
            "as it was asked to"
        );
        match self.faults.fails {
            Some((at, kind)) if at == self.operations => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn look(&self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("the power is gone"));
        }
        Ok(())
    }

    fn lies(&self) -> bool {
        self.faults.lies.is_some_and(|from| self.operations >= from)
    }

    fn file(&self, path: &Path) -> io::Result<u64> {
        let found = self.names.get(path).copied();
        found.ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }
}

impl Content {
    fn after_power_cut(&self, random: &mut StdRng, survives: f64, sector: usize) -> Vec<u8> {
        let mut bytes = self.safe.clone();
        for change in &self.unsynced {
            match change {
                Change::Length(length) => {
                    if random.random_bool(survives) {
                        bytes.resize(usize::try_from(*length).unwrap(), 0);
                    }
                }
                Change::Write(at, written) => {
                    let at = usize::try_from(*at).unwrap();
                    let mut from = 0;
                    while from < written.len() {
                        // Sectors are those of the file, not of the write.
                        let to = ((at + from) / sector + 1) * sector - at;
                        let to = to.min(written.len());
                        if random.random_bool(survives) {
                            put(&mut bytes, at + from, &written[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        if random.random_bool(0.2) {
            // The length was known already, the bytes were not.
            bytes.resize(bytes.len().max(self.now.len()), 0);
        }
        bytes
    }
}

impl Renamed {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Made(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Moved(from, to, file) => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Removed(path, file) => {
                if names.get(path) == Some(file) {
                    names.remove(path);
                }
            }
        }
    }

    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Made(path, _) | Self::Moved(_, path, _) | Self::Removed(path, _)) = self;
        path.parent() == Some(folder)
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        let file = match mode {
            Mode::Read | Mode::Write => {
                state.look()?;
                state.file(path)?
            }
            Mode::Create(_) => {
                state.change()?;
                if state.names.contains_key(path) {
                    return Err(ErrorKind::AlreadyExists.into());
                }
                state.last_file += 1;
                let file = state.last_file;
                state.names.insert(path.to_owned(), file);
                state.renamed.push(Renamed::Made(path.to_owned(), file));
                file
            }
        };
        Ok(Arc::new(SimulatedFile {
            disk: self.clone(),
            file,
        }))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        state.look()?;
        let inside = state
            .names
            .keys()
            .filter(|path| path.parent() == Some(folder));
        let names = inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.lock();
        state.look()?;
        let file = state.file(path)?;
        Ok(state.content(file).now.len() as u64)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        let file = state.file(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        let moved = Renamed::Moved(from.to_owned(), to.to_owned(), file);
        state.renamed.push(moved);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        let file = state.file(path)?;
        state.change()?;
        state.names.remove(path);
        state.renamed.push(Renamed::Removed(path.to_owned(), file));
        Ok(())
    }

    fn make_folder(&self, _folder: &Path) -> io::Result<()> {
        self.lock().look()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.change()?;
        if state.lies() {
            return Ok(());
        }
        let (inside, outside) = std::mem::take(&mut state.renamed)
            .into_iter()
            .partition(|change| change.is_in(folder));
        state.renamed = outside;
        let inside: Vec<Renamed> = inside;
        for change in inside {
            change.apply(&mut state.safe_names);
        }
        Ok(())
    }

    fn space(&self, _folder: &Path) -> io::Result<Space> {
        Ok(Space {
            free: 1 << 40,
            total: 1 << 41,
        })
    }
}

impl DiskFile for SimulatedFile {
    fn read_some(&self, offset: u64, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut state = self.disk.lock();
        state.look()?;
        let room = into.capacity() - into.len();
        let end = offset + room as u64;
        let spoiled = state
            .spoiled
            .iter()
            .any(|(file, bytes)| *file == self.file && bytes.start < end && offset < bytes.end);
        if spoiled {
            return Err(rustix::io::Errno::IO.into());
        }
        let content = state.content(self.file);
        let from = usize::try_from(offset).unwrap().min(content.now.len());
        let to = content.now.len().min(from + room);
        into.extend_from_slice(&content.now[from..to]);
        Ok(to - from)
    }

    fn read_into(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut bytes = Vec::with_capacity(into.len());
        let read = self.read_some(offset, &mut bytes)?;
        into[..read].copy_from_slice(&bytes);
        Ok(read)
    }

    fn write_some(&self, offset: u64, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.disk.lock();
        let was_off = state.is_off();
        let allowed = state.change();
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        if allowed.is_err() && !was_off {
            // What fails may have been done in part.
            bytes.truncate(bytes.len() / 2);
        }
        if !was_off {
            let content = state.content(self.file);
            put(&mut content.now, usize::try_from(offset).unwrap(), &bytes);
            let written = bytes.len();
            content.unsynced.push(Change::Write(offset, bytes));
            return allowed.map(|()| written);
        }
        allowed.map(|()| 0)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change()?;
        if state.lies() {
            return Ok(());
        }
        let content = state.content(self.file);
        content.safe = content.now.clone();
        content.unsynced.clear();
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.change()?;
        let content = state.content(self.file);
        content.now.resize(usize::try_from(length).unwrap(), 0);
        content.unsynced.push(Change::Length(length));
        Ok(())
    }

    fn allocate(&self, _length: u64) -> io::Result<()> {
        self.disk.lock().change()
    }

    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.lock();
        state.look()?;
        Ok(state.content(self.file).now.len() as u64)
    }

    fn is_nameless(&self) -> bool {
        let state = self.disk.lock();
        !state.names.values().any(|file| *file == self.file)
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, written: &[u8]) {
    if bytes.len() < at + written.len() {
        bytes.resize(at + written.len(), 0);
    }
    bytes[at..at + written.len()].copy_from_slice(written);
}

fn pick<'a, T>(random: &mut StdRng, from: &'a [T]) -> &'a T {
    &from[random.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::{Access, write_on};
    use rand::SeedableRng;

    fn read(disk: &SimulatedDisk, path: &Path) -> Option<Vec<u8>> {
        let file = disk.open(path, Mode::Read).ok()?;
        Some(file.read(0, 1 << 20).unwrap().to_vec())
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go_or_tear() {
        let path = Path::new("/folder/file");
        let disk = SimulatedDisk::default();
        write_on(&disk, path, b"synced", Access::Shared).unwrap();
        let file = disk.open(path, Mode::Write).unwrap();
        file.write(6, &[&[7; 2000]]).unwrap();
        let mut lengths = Vec::new();
        for seed in 0..50 {
            let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
            let bytes = read(&after, path).unwrap();
            assert!(bytes.starts_with(b"synced"));
            lengths.push(bytes.len());
        }
        assert!(lengths.contains(&6) && lengths.contains(&2006));
        assert!(lengths.iter().any(|length| !matches!(length, 6 | 2006)));
    }

    #[test]
    fn a_file_written_whole_is_there_as_it_was_or_as_it_is() {
        let path = Path::new("/folder/file");
        for cut in 0..8 {
            let disk = SimulatedDisk::default();
            write_on(&disk, path, b"old", Access::Shared).unwrap();
            disk.set_faults(Faults {
                power_off: Some(cut),
                ..Faults::default()
            });
            let written = write_on(&disk, path, b"new", Access::Shared);
            for seed in 0..20 {
                let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
                let bytes = read(&after, path).unwrap();
                assert!(bytes == b"new" || bytes == b"old" && written.is_err());
            }
        }
    }

    #[test]
    fn a_disk_that_lies_keeps_nothing() {
        let path = Path::new("/folder/file");
        let disk = SimulatedDisk::default();
        disk.set_faults(Faults {
            lies: Some(0),
            ..Faults::default()
        });
        write_on(&disk, path, b"gone", Access::Shared).unwrap();
        let lost = (0..50).any(|seed| {
            let after = disk.after_power_cut(&mut StdRng::seed_from_u64(seed));
            read(&after, path).is_none()
        });
        assert!(lost);
    }

    #[test]
    fn one_operation_fails_and_the_next_does_not() {
        let disk = SimulatedDisk::default();
        disk.set_faults(Faults {
            fails: Some((1, ErrorKind::StorageFull)),
            ..Faults::default()
        });
        let mode = Mode::Create(Access::Shared);
        let path = Path::new("/folder/file");
        let refused = disk.open(path, mode).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::StorageFull);
        disk.open(path, mode).unwrap();
    }
}
