//! What was synced last, in a file of the repository: `sync/` and a hash of folder and path.
//!
//! Derived: a file that is missing, damaged or of another version means that everything is read once more. The bytes are in
//! `docs/on-disk-format.md`.

use super::{Kind, Stat};
use cairn_store::cid::Cid;
use cairn_store::durable::{self, Access};
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An entry as it was synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// From the top, names joined by `/`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its content; of folders it is not kept.
    pub cid: Option<Cid>,
    /// What the file on this disk was known by, if it had been the same for long enough.
    pub stat: Option<Stat>,
}

/// What was synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How content became blocks.
    pub settings: String,
    /// The root of the path in the file tree.
    pub root: Cid,
    /// Everything below it, in walking order.
    pub entries: Vec<Known>,
}

/// Where the state of one folder and one path lies, locked as long as this lives, and the folder with it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    _lock: File,
    folder: File,
    wanted: Use,
}

/// What is done to a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is read: by others as well.
    Read,
    /// It is changed: by nobody else.
    Change,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Somebody else is at it.
    #[error("another `cairn sync` of {folder} and {path} is running; wait for it or end it")]
    Busy {
        /// The folder.
        folder: String,
        /// The path in the file tree.
        path: String,
    },
    /// Somebody else is at the folder.
    #[error(
        "another `cairn sync` works on {folder} with another path or repository; wait for it or end it"
    )]
    FolderBusy {
        /// The folder.
        folder: String,
    },
    /// The disk refused.
    #[error("cannot use {path}: {source}")]
    Disk {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Place {
    /// The place for `folder` and `path`, taken for ourselves. `repository` is the folder of the repository.
    pub fn take(
        repository: &Path,
        folder: &Path,
        path: &str,
        wanted: Use,
    ) -> Result<Self, StateError> {
        let states = repository.join(FOLDER);
        let disk = |at: &Path, source| StateError::Disk {
            path: at.display().to_string(),
            source,
        };
        fs::create_dir_all(&states).map_err(|source| disk(&states, source))?;
        let mut pair = folder.as_os_str().as_encoded_bytes().to_vec();
        pair.push(0);
        pair.extend_from_slice(path.as_bytes());
        let name = data_encoding::HEXLOWER.encode(
            blake3::hash(&pair)
                .as_bytes()
                .get(..NAME_BYTES)
                .unwrap_or_default(),
        );
        let lock = states.join(format!("{name}.lock"));
        let mut options = fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&lock);
        let file = file.map_err(|source| disk(&lock, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError::Busy {
                    folder: folder.display().to_string(),
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(disk(&lock, source)),
        }
        Ok(Self {
            path: states.join(name),
            _lock: file,
            folder: lock_folder(folder, wanted)?,
            wanted,
        })
    }

    /// Takes the folder that is there now, if another has come in the place of the one that was taken.
    pub fn take_again(&mut self, folder: &Path) -> Result<(), StateError> {
        let is_same = |now: Metadata| {
            let taken = self.folder.metadata();
            taken.is_ok_and(|taken| (taken.dev(), taken.ino()) == (now.dev(), now.ino()))
        };
        if fs::metadata(folder).is_ok_and(|now| !is_same(now)) {
            self.folder = lock_folder(folder, self.wanted)?;
        }
        Ok(())
    }

    /// What was synced, if that can be read.
    pub fn load(&self) -> Result<Option<State>, StateError> {
        let bytes = File::open(&self.path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(STATE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match bytes {
            Ok(bytes) => Ok(parse(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.disk(source)),
        }
    }

    /// Keeps what was synced.
    pub fn store(&self, state: &State) -> Result<(), StateError> {
        durable::write(&self.path, &bytes(state), Access::Owner).map_err(|source| self.disk(source))
    }

    fn disk(&self, source: io::Error) -> StateError {
        StateError::Disk {
            path: self.path.display().to_string(),
            source,
        }
    }
}

fn lock_folder(folder: &Path, wanted: Use) -> Result<File, StateError> {
    let open = File::open(folder).map_err(|source| StateError::Disk {
        path: folder.display().to_string(),
        source,
    })?;
    let locked = match wanted {
        Use::Read => open.try_lock_shared(),
        Use::Change => open.try_lock(),
    };
    match locked {
        Err(TryLockError::WouldBlock) => Err(StateError::FolderBusy {
            folder: folder.display().to_string(),
        }),
        // Not every file system locks folders.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(open),
    }
}

fn bytes(state: &State) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    blob(&mut out, state.settings.as_bytes());
    blob(&mut out, &state.root.to_bytes());
    out.extend_from_slice(&(state.entries.len() as u64).to_le_bytes());
    for known in &state.entries {
        let kind = match known.kind {
            Kind::File => 0,
            Kind::Folder => 1,
            Kind::Link => 2,
        };
        out.push(kind | if known.stat.is_some() { HAS_STAT } else { 0 });
        blob(&mut out, known.path.as_bytes());
        blob(
            &mut out,
            &known.cid.map(|cid| cid.to_bytes()).unwrap_or_default(),
        );
        if let Some(stat) = known.stat {
            out.extend_from_slice(&stat.size.to_le_bytes());
            out.extend_from_slice(&stat.modified.to_le_bytes());
            out.extend_from_slice(&stat.changed.to_le_bytes());
            out.extend_from_slice(&stat.inode.to_le_bytes());
        }
    }
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// `None` for whatever is not exactly what [`bytes()`] writes.
fn parse(bytes: &[u8]) -> Option<State> {
    let (content, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut cursor = content.strip_prefix(MAGIC.as_slice())?;
    let settings = text(&mut cursor)?;
    let root = Cid::try_from(read_blob(&mut cursor)?).ok()?;
    let count = u64::from_le_bytes(take(&mut cursor)?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let [kind] = take::<1>(&mut cursor)?;
        let path = text(&mut cursor)?;
        let cid = match read_blob(&mut cursor)? {
            [] => None,
            cid => Some(Cid::try_from(cid).ok()?),
        };
        let stat = match kind & HAS_STAT {
            0 => None,
            _ => Some(Stat {
                size: u64::from_le_bytes(take(&mut cursor)?),
                modified: i128::from_le_bytes(take(&mut cursor)?),
                changed: i128::from_le_bytes(take(&mut cursor)?),
                inode: u64::from_le_bytes(take(&mut cursor)?),
            }),
        };
        let kind = match kind & !HAS_STAT {
            0 => Kind::File,
            1 => Kind::Folder,
            2 => Kind::Link,
            _ => return None,
        };
        entries.push(Known {
            path,
            kind,
            cid,
            stat,
        });
    }
    cursor.is_empty().then_some(State {
        settings,
        root,
        entries,
    })
}

fn blob(out: &mut Vec<u8>, bytes: &[u8]) {
    // Paths are shorter than what the system takes, CIDs than what is accepted.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn read_blob<'a>(cursor: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u32::from_le_bytes(take(cursor)?)).ok()?;
    let (blob, rest) = cursor.split_at_checked(length)?;
    *cursor = rest;
    Some(blob)
}

fn text(cursor: &mut &[u8]) -> Option<String> {
    String::from_utf8(read_blob(cursor)?.to_vec()).ok()
}

fn take<const N: usize>(cursor: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = cursor.split_first_chunk()?;
    *cursor = rest;
    Some(*bytes)
}

const FOLDER: &str = "sync";
const MAGIC: [u8; 8] = *b"cairnsy1";
/// In the byte of the kind: size, times and inode follow.
const HAS_STAT: u8 = 0x80;
/// Bytes of the hash in a file's name.
const NAME_BYTES: usize = 16;
/// Longest file that is read.
const STATE_BYTES_MAX: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state() -> State {
        let cid =
            Cid::try_from("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e").unwrap();
        let stat = Stat {
            size: u64::MAX,
            modified: -7,
            changed: i128::MAX,
            inode: 9,
        };
        let known = |path: &str, kind, cid, stat| Known {
            path: path.to_owned(),
            kind,
            cid,
            stat,
        };
        State {
            settings: "unixfs-v1-2025".to_owned(),
            root: cid,
            entries: vec![
                known("a", Kind::Folder, None, None),
                known("a/\u{e9}", Kind::File, Some(cid), Some(stat)),
                known("b", Kind::Link, Some(cid), None),
            ],
        }
    }

    fn take(folder: &Path, path: &str, wanted: Use) -> Result<Place, StateError> {
        let here = folder.join("here");
        fs::create_dir_all(&here).unwrap();
        Place::take(folder, &here, path, wanted)
    }

    fn place(folder: &Path) -> Place {
        take(folder, "/there", Use::Read).unwrap()
    }

    #[test]
    fn what_was_stored_is_loaded_and_each_pair_has_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let one = place(folder.path());
        assert_eq!(one.load().unwrap(), None);
        one.store(&state()).unwrap();
        assert_eq!(one.load().unwrap(), Some(state()));
        let other = take(folder.path(), "/elsewhere", Use::Read).unwrap();
        assert_eq!(other.load().unwrap(), None);
    }

    #[test]
    fn only_one_is_at_a_pair_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = place(folder.path());
        let second = take(folder.path(), "/there", Use::Read);
        let told = second.unwrap_err().to_string();
        assert!(told.contains("/here and /there is running"), "{told}");
        drop(first);
        place(folder.path());
    }

    #[test]
    fn a_folder_that_is_changed_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let one = place(folder.path());
        let other = take(folder.path(), "/other", Use::Read).unwrap();
        let told = take(folder.path(), "/third", Use::Change).unwrap_err();
        assert!(matches!(told, StateError::FolderBusy { .. }), "{told}");
        drop((one, other));
        let _changing = take(folder.path(), "/third", Use::Change).unwrap();
        for wanted in [Use::Read, Use::Change] {
            assert!(take(folder.path(), "/there", wanted).is_err());
        }
    }

    #[test]
    fn any_byte_changed_or_missing_means_that_nothing_is_known() {
        let whole = bytes(&state());
        assert_eq!(parse(&whole), Some(state()));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(parse(&changed), None, "byte {at}");
            assert_eq!(parse(&whole[..at]), None, "cut at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(mut content in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&content);
            let mut summed = MAGIC.to_vec();
            summed.append(&mut content);
            let sum = crc32c::crc32c(&summed);
            summed.extend_from_slice(&sum.to_le_bytes());
            let _ = parse(&summed);
        }
    }
}
