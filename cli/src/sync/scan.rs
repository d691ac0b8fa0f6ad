//! What is in a folder of this disk.
//!
//! Everything is looked at, nothing is read. What is neither file, folder nor link is left out and told. What goes
//! away meanwhile was not there.

use super::{Kind, Stat};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// From the top, names joined by `/`.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// What it may be remembered by: `None` if it changed so lately that it could change once more without a trace.
    pub stat: Option<Stat>,
    /// What it looks like now.
    pub found: Stat,
}

impl Seen {
    /// What lies at `path`, not known by that yet; nothing if it is neither file, folder nor link.
    pub fn of(path: String, found: &Metadata) -> Option<Self> {
        Some(Self {
            path,
            kind: kind_of(found)?,
            stat: None,
            found: stat_of(found),
        })
    }
}

/// What is in a folder, in walking order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Everything but the folder itself.
    pub entries: Vec<Seen>,
    /// What is neither file, folder nor link.
    pub left_out: Vec<String>,
}

/// Why a folder was not looked through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The system refused.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} is not a folder")]
    NotFolder(String),
    /// A name that UnixFS cannot hold.
    #[error("the name of {0} is not UTF-8; rename it")]
    Name(String),
    /// Deeper than folders are imported.
    #[error("{0} lies deeper than {DEPTH_MAX} folders")]
    TooDeep(String),
    /// More than is kept in memory.
    #[error("{0} holds more than {ENTRIES_MAX} files and folders; sync parts of it")]
    TooMany(String),
}

/// Looks through `root`.
pub fn scan(root: &Path) -> Result<Scan, ScanError> {
    let top = fs::metadata(root).map_err(|source| read_error(root, source))?;
    if !top.is_dir() {
        return Err(ScanError::NotFolder(root.display().to_string()));
    }
    let mut walk = Walk {
        root,
        settled: now_nanoseconds() - UNSETTLED_NANOSECONDS,
        scan: Scan::default(),
    };
    walk.folder(root.to_path_buf(), "", 0)?;
    Ok(walk.scan)
}

struct Walk<'a> {
    root: &'a Path,
    /// What changed before is settled.
    settled: i128,
    scan: Scan,
}

impl Walk<'_> {
    fn folder(&mut self, folder: PathBuf, path: &str, depth: usize) -> Result<(), ScanError> {
        if depth > DEPTH_MAX {
            return Err(ScanError::TooDeep(folder.display().to_string()));
        }
        let entries = match fs::read_dir(&folder) {
            Err(error) if depth > 0 && error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|source| read_error(&folder, source))?,
        };
        let mut inside = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| read_error(&folder, source))?;
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| ScanError::Name(entry.path().display().to_string()))?;
            if is_temporary(&name) {
                continue;
            }
            if self.scan.entries.len() + inside.len() >= ENTRIES_MAX {
                return Err(ScanError::TooMany(self.root.display().to_string()));
            }
            inside.push((name, entry));
        }
        inside.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (name, entry) in inside {
            let place = entry.path();
            let found = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                found => found.map_err(|source| read_error(&place, source))?,
            };
            let path = match path {
                "" => name,
                path => format!("{path}/{name}"),
            };
            let Some(seen) = Seen::of(path.clone(), &found) else {
                self.scan.left_out.push(path);
                continue;
            };
            let kind = seen.kind;
            let stat = seen.found;
            let is_settled = stat.modified.max(stat.changed) < self.settled;
            self.scan.entries.push(Seen {
                stat: is_settled.then_some(stat),
                ..seen
            });
            if kind == Kind::Folder {
                self.folder(place, &path, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// What tells that a file is what it was.
pub fn stat_of(found: &Metadata) -> Stat {
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * SECOND + i128::from(rest);
    Stat {
        size: found.len(),
        modified: nanoseconds(found.mtime(), found.mtime_nsec()),
        changed: nanoseconds(found.ctime(), found.ctime_nsec()),
        inode: found.ino(),
    }
}

/// Whether something is called as we call what is not in its place yet, of this folder or, deeper, of another sync.
pub fn is_temporary(name: &str) -> bool {
    let rest = name.strip_prefix(TEMPORARY);
    rest.is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn kind_of(found: &Metadata) -> Option<Kind> {
    let kind = found.file_type();
    if kind.is_file() {
        Some(Kind::File)
    } else if kind.is_dir() {
        Some(Kind::Folder)
    } else if kind.is_symlink() {
        Some(Kind::Link)
    } else {
        None
    }
}

fn read_error(path: &Path, source: io::Error) -> ScanError {
    ScanError::Read {
        path: path.display().to_string(),
        source,
    }
}

fn now_nanoseconds() -> i128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
    })
}

const SECOND: i128 = 1_000_000_000;
/// Within this time after a change, another one may leave the same times: they have the step of the kernel's clock,
/// ten milliseconds at most, and on some network file systems of a server's that is not quite ours.
const UNSETTLED_NANOSECONDS: i128 = SECOND;
/// Deepest nesting of folders.
const DEPTH_MAX: usize = cairn_store::unixfs::import::DEPTH_MAX;
/// Most entries of a folder that is synced: they are in memory, some 200 bytes each.
pub const ENTRIES_MAX: usize = 10_000_000;
/// What the name of a folder begins with that holds what is not in its place yet; 16 hexadecimal digits follow.
pub const TEMPORARY: &str = ".cairn-sync-";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_seen_in_walking_order_with_what_it_holds() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), "12345").unwrap();
        fs::write(root.join("a-file"), "").unwrap();
        fs::write(root.join(".hidden"), "1").unwrap();
        fs::create_dir(root.join(format!("{TEMPORARY}0123456789abcdef"))).unwrap();
        fs::create_dir(root.join(format!("a/{TEMPORARY}0123456789abcdef"))).unwrap();
        fs::write(root.join(format!("{TEMPORARY}notes")), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let scan = scan(root).unwrap();
        let seen: Vec<_> = scan
            .entries
            .iter()
            .map(|seen| (&seen.path[..], seen.kind))
            .collect();
        use Kind::{File, Folder, Link};
        assert_eq!(
            seen,
            [
                (".cairn-sync-notes", File),
                (".hidden", File),
                ("a", Folder),
                ("a/b", Folder),
                ("a/b/c", File),
                ("a-file", File),
                ("link", Link)
            ]
        );
        assert_eq!(scan.left_out, ["socket"]);
        assert_eq!(scan.entries[4].found.size, 5);
    }

    #[test]
    fn what_changed_just_now_is_looked_at_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("new"), "1").unwrap();
        assert_eq!(scan(folder.path()).unwrap().entries[0].stat, None);
        // An old file whose name, say, changed just now: its status changed with it.
        let old = fs::File::open(folder.path().join("new")).unwrap();
        old.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(scan(folder.path()).unwrap().entries[0].stat, None);
        // This one has been what it is for long.
        let settled = fs::metadata("/proc/self/exe").unwrap();
        assert!(stat_of(&settled).changed < now_nanoseconds());
    }

    #[test]
    fn a_file_is_no_folder_and_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = scan(file.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not a folder"), "{error}");
        let error = scan(Path::new("/nowhere/at all")).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot read /nowhere/at all: "),
            "{error}"
        );
    }
}
