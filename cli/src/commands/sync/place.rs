//! From beside its place into it.
//!
//! Each path on its own: what was there steps aside, what was fetched takes its place, and if it cannot, what was there
//! comes back. So a path is what it was or what it is to be, unless it is a folder, or was one, and the program is killed
//! between both. One that cannot be changed, in a folder that may not be written or on another file system, is no
//! matter of the others.
//!
//! What was fetched is on the disk before it is moved, and the moves are before the caller is told. What stepped aside
//! goes when the caller has noted what is there now.

use super::Failure;
use super::cannot_use;
use crate::output::{self, escape_line};
use crate::sync::scan::{Seen, TEMPORARY, is_temporary, scan};
use crate::sync::{Kind, Stat};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder in the folder, in which things grow until they are whole, and what was in their place goes; removed at the
/// end.
pub(super) struct Growing(PathBuf);

/// What came of moving into place.
#[derive(Debug, Default)]
pub(super) struct Placed {
    /// What was moved, as it looks in its place.
    pub(super) seen: Vec<Seen>,
    /// What could not be changed, and why.
    pub(super) failed: Vec<(String, io::Error)>,
    /// Why it may not be on the disk.
    pub(super) unsure: Option<io::Error>,
}

/// What grew, as it is on the disk: everything of each path, it first.
#[derive(Debug)]
pub(super) struct Grown(Vec<Vec<Seen>>);

impl Growing {
    /// Nobody else is at the folder.
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        // What a killed one left is in nobody's way.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_temporary) {
                clear_or_tell(&entry.path());
            }
        }
        let path = folder.join(format!("{TEMPORARY}{:016x}", random()));
        fs::create_dir(&path).map_err(|error| cannot_use(&path, &error))?;
        Ok(Self(path))
    }

    /// Where the one of this number grows.
    pub(super) fn path(&self, at: usize) -> PathBuf {
        self.0.join(at.to_string())
    }

    /// Has all that grew for these paths on the disk.
    pub(super) fn finish(&self, fetched: &[String]) -> Result<Grown, Failure> {
        let mut all = Vec::new();
        for (at, path) in fetched.iter().enumerate() {
            all.push(look_at(&self.path(at), path)?);
        }
        self.store(&all)?;
        Ok(Grown(all))
    }

    /// Moves everything that grew to the path of its number in `folder`, and has what is at `removed` go. With `now`,
    /// what is not as it is there stays.
    pub(super) fn place(
        &self,
        folder: &Path,
        grown: Grown,
        removed: &[String],
        now: Option<&[Seen]>,
    ) -> Placed {
        let now = now.map(|now| -> HashMap<&str, &Seen> {
            now.iter().map(|seen| (seen.path.as_str(), seen)).collect()
        });
        let check = |path: &str, place: &Path| match &now {
            Some(now) if !is_as_seen(place, now.get(path).copied()) => Err(io::Error::other(
                "it was changed while its content was fetched",
            )),
            _ => Ok(()),
        };
        let mut placed = Placed::default();
        let mut changed = BTreeSet::new();
        for (at, path) in removed.iter().enumerate() {
            let place = folder.join(path);
            let set_aside = || self.set_aside(&place, &format!("removed-{at}"));
            match check(path, &place).and_then(|()| set_aside()) {
                Ok(Some(_)) => {
                    changed.insert(above(&place));
                }
                Ok(None) => {}
                Err(error) => placed.failed.push((path.clone(), error)),
            }
        }
        for (at, inside) in grown.0.into_iter().enumerate() {
            let Some(path) = inside.first().map(|top| top.path.clone()) else {
                continue;
            };
            let place = folder.join(&path);
            let put = check(&path, &place).and_then(|()| self.put(at, &place));
            if let Err(error) = put {
                placed.failed.push((path, error));
                continue;
            }
            changed.insert(above(&place));
            let seen = inside.into_iter().filter_map(|seen| moved(folder, seen));
            placed.seen.extend(seen);
        }
        placed.unsure = sync(folder, changed.iter()).err();
        placed
    }

    /// Has all that grew on the disk.
    fn store(&self, all: &[Vec<Seen>]) -> Result<(), Failure> {
        let mut paths = Vec::new();
        for (at, inside) in all.iter().enumerate() {
            let Some((top, below)) = inside.split_first() else {
                continue;
            };
            let root = self.path(at);
            for seen in below.iter().filter(|seen| seen.kind != Kind::Link) {
                let inside = seen.path.strip_prefix(&top.path).unwrap_or_default();
                paths.push(root.join(inside.trim_start_matches('/')));
            }
            if top.kind != Kind::Link {
                paths.push(root);
            }
        }
        sync(&self.0, paths.iter()).map_err(|error| cannot_use(&self.0, &error))
    }

    fn put(&self, at: usize, place: &Path) -> io::Result<()> {
        let new = self.path(at);
        let is_other = |path: &Path| fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir());
        // A file takes the place of a file at once.
        if is_other(&new) && is_other(place) {
            return fs::rename(&new, place);
        }
        let old = self.set_aside(place, &format!("replaced-{at}"))?;
        rename(&new, place).map_err(|error| match old {
            // It was there a moment ago.
            Some(old) => match rename(&old, place) {
                Ok(()) => error,
                Err(_) => self.rescue(&old, &error),
            },
            None => error,
        })
    }

    /// Keeps what can neither go back to its place nor go.
    fn rescue(&self, old: &Path, error: &io::Error) -> io::Error {
        let name = format!("cairn-kept-{:016x}", random());
        let kept = self.0.parent().unwrap_or(&self.0).join(name);
        let place = match rename(old, &kept) {
            Ok(()) => kept,
            Err(_) => old.to_owned(),
        };
        let place = place.display();
        io::Error::other(format!("{error}; what was there is in {place} now"))
    }

    /// Moves away what is at a place; gives where it is then, unless nothing was there.
    fn set_aside(&self, place: &Path, name: &str) -> io::Result<Option<PathBuf>> {
        let aside = self.0.join(name);
        match rename(place, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        clear_or_tell(&self.0);
    }
}

impl Placed {
    /// What to tell if not all could be changed.
    pub(super) fn failure(&self, folder: &Path) -> Option<Failure> {
        if let (true, Some(error)) = (self.failed.is_empty(), &self.unsure) {
            return Some(cannot_use(folder, error));
        }
        let named: Vec<_> = self
            .failed
            .iter()
            .take(FAILED_NAMED)
            .map(|(path, error)| {
                let more = match error.kind() {
                    ErrorKind::CrossesDevices => {
                        " (it is on another file system than the folder: sync that as a folder of its own)"
                    }
                    _ => "",
                };
                format!("{}: {error}{more}", escape_line(path))
            })
            .collect();
        let more = match self.failed.len().saturating_sub(FAILED_NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        (!named.is_empty()).then(|| {
            Failure::runtime(format!(
                "not everything in {} could be changed, the rest is as it is to be; the same command again goes on with: {}{more}",
                folder.display(),
                named.join("; ")
            ))
        })
    }
}

/// Everything that was fetched as `path`, it first, before it is moved there.
fn look_at(new: &Path, path: &str) -> Result<Vec<Seen>, Failure> {
    let top = fs::symlink_metadata(new).map_err(|error| cannot_use(new, &error))?;
    let below = match top.is_dir() {
        true => scan(new).map_err(super::runtime)?.entries,
        false => Vec::new(),
    };
    let below = below.into_iter().map(|seen| Seen {
        path: format!("{path}/{}", seen.path),
        ..seen
    });
    Ok(Seen::of(path.to_owned(), &top)
        .into_iter()
        .chain(below)
        .collect())
}

/// Whether a place is as it was `seen`. What went away meanwhile is no loss, and a folder is looked through before.
fn is_as_seen(place: &Path, seen: Option<&Seen>) -> bool {
    let Ok(found) = fs::symlink_metadata(place) else {
        return true;
    };
    let (Some(seen), Some(now)) = (seen, Seen::of(String::new(), &found)) else {
        return false;
    };
    now.kind == seen.kind && (now.kind == Kind::Folder || now.found == seen.found)
}

/// The same in its place, if it is still what was fetched: of that only the time of any change may be another one.
fn moved(folder: &Path, seen: Seen) -> Option<Seen> {
    let now = fs::symlink_metadata(folder.join(&seen.path)).ok()?;
    let now = Seen::of(seen.path.clone(), &now)?;
    let made = Stat {
        changed: now.found.changed,
        ..seen.found
    };
    (now.kind == seen.kind && made == now.found).then_some(Seen {
        stat: Some(now.found),
        ..now
    })
}

fn above(place: &Path) -> PathBuf {
    place.parent().unwrap_or(place).to_owned()
}

/// Moves something, a folder that may not be written as well.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let error = match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => error,
        moved => return moved,
    };
    let found = fs::symlink_metadata(from)?;
    let mode = found.permissions().mode();
    if !found.is_dir() || mode & OWNER == OWNER {
        return Err(error);
    }
    fs::set_permissions(from, fs::Permissions::from_mode(mode | OWNER))?;
    let moved = fs::rename(from, to);
    let there = if moved.is_ok() { to } else { from };
    fs::set_permissions(there, found.permissions())?;
    moved
}

/// Removes whatever is there, folders that may not be written as well.
fn clear(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                open_up(path);
                fs::remove_dir_all(path)
            }
            removed => removed,
        },
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if is_absent(&error) => Ok(()),
        removed => removed,
    }
}

/// The same; what stays is named, and is tried again with the next one.
fn clear_or_tell(path: &Path) {
    if let Err(error) = clear(path) {
        output::warning(&format!(
            "{} is not needed any more and cannot be removed: {error}; remove it",
            path.display()
        ));
    }
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Gives the owner of all folders their rights; what cannot be had is noticed when they are emptied.
fn open_up(top: &Path) {
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        let _ = fs::set_permissions(&folder, fs::Permissions::from_mode(OWNER));
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
}

/// Has files and folders on the disk: each of a few; of many all that the file system of `folder` has in memory.
fn sync<'a>(folder: &Path, paths: impl ExactSizeIterator<Item = &'a PathBuf>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if paths.len() > SYNCED_ALONE_MAX {
        return sync_file_system(folder);
    }
    for path in paths {
        match File::open(path).and_then(|file| file.sync_all()) {
            // What may not be read is not opened.
            #[cfg(target_os = "linux")]
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return sync_file_system(folder);
            }
            synced => synced?,
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// What an owner needs to change a folder.
const OWNER: u32 = 0o700;
/// Most paths that an error names.
const FAILED_NAMED: usize = 10;
/// Most files that are synced one by one: each takes milliseconds.
#[cfg(target_os = "linux")]
const SYNCED_ALONE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(top: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let place = top.join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, content).unwrap();
        }
    }

    fn read(path: PathBuf) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn what_cannot_take_its_place_leaves_it_as_it_was_and_the_others_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        tree(
            folder,
            &[("file/old", "old"), ("gone", "gone"), ("other", "other")],
        );
        let growing = Growing::new(folder).unwrap();
        tree(&growing.path(0), &[("inside", "0")]);
        fs::write(growing.path(1), "1").unwrap();
        fs::write(growing.path(2), "2").unwrap();
        // There is no such folder.
        let fetched = ["nowhere/x", "file", "other"].map(str::to_owned);
        let removed = ["gone", "not/there", "other/x"].map(str::to_owned);
        let grown = growing.finish(&fetched).unwrap();
        let placed = growing.place(folder, grown, &removed, None);
        let failed: Vec<&str> = placed.failed.iter().map(|(path, _)| &path[..]).collect();
        assert_eq!(failed, ["nowhere/x"]);
        let told = placed.failure(folder).unwrap().to_string();
        assert!(told.contains("nowhere/x: No such file"), "{told}");
        let seen: Vec<&str> = placed.seen.iter().map(|seen| &seen.path[..]).collect();
        assert_eq!(seen, ["file", "other"]);
        assert_eq!(read(folder.join("file")), "1");
        assert_eq!(read(folder.join("other")), "2");
        assert!(!folder.join("gone").exists());
        drop(growing);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
    }

    #[test]
    fn what_stepped_aside_comes_back_if_nothing_takes_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        tree(folder, &[("place/inside", "old")]);
        let growing = Growing::new(folder).unwrap();
        // Nothing grew.
        assert!(growing.put(0, &folder.join("place")).is_err());
        assert_eq!(read(folder.join("place/inside")), "old");
    }

    #[test]
    fn what_is_not_as_it_was_seen_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        tree(
            folder,
            &[
                ("edited", "1"),
                ("gone", "1"),
                ("inside/x", "1"),
                ("same", "1"),
                ("removed", "1"),
                ("edited-and-removed", "1"),
            ],
        );
        let seen = scan(folder).unwrap().entries;
        let growing = Growing::new(folder).unwrap();
        let fetched = ["edited", "gone", "inside", "new", "same"].map(str::to_owned);
        for at in 0..fetched.len() {
            fs::write(growing.path(at), "fetched").unwrap();
        }
        let grown = growing.finish(&fetched).unwrap();
        tree(
            folder,
            &[
                ("edited", "22"),
                ("edited-and-removed", "22"),
                ("new", "22"),
            ],
        );
        fs::remove_file(folder.join("gone")).unwrap();
        let removed = ["edited-and-removed", "removed"].map(str::to_owned);
        let placed = growing.place(folder, grown, &removed, Some(&seen));
        let failed: Vec<&str> = placed.failed.iter().map(|(path, _)| &path[..]).collect();
        assert_eq!(failed, ["edited-and-removed", "edited", "new"]);
        for (path, content) in [
            ("edited", "22"),
            ("edited-and-removed", "22"),
            ("gone", "fetched"),
            ("inside", "fetched"),
            ("new", "22"),
            ("same", "fetched"),
        ] {
            assert_eq!(read(folder.join(path)), content, "{path}");
        }
        assert!(!folder.join("removed").exists());
    }

    #[test]
    fn what_cannot_go_back_is_kept_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let growing = Growing::new(folder).unwrap();
        let aside = growing.0.join("replaced-0");
        fs::write(&aside, "old").unwrap();
        let error = growing.rescue(&aside, &io::Error::other("of a test"));
        drop(growing);
        let left: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
        let [kept] = left.as_slice() else {
            panic!("{left:?}")
        };
        assert_eq!(read(kept.path()), "old");
        let told = error.to_string();
        assert!(told.starts_with("of a test; "), "{told}");
        assert!(told.contains(kept.path().to_str().unwrap()), "{told}");
    }

    #[test]
    fn many_files_are_synced_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let growing = Growing::new(folder).unwrap();
        for at in 0..100 {
            tree(&growing.path(0), &[(&format!("{at}/{at}"), "x")]);
        }
        let grown = growing.finish(&["all".to_owned()]).unwrap();
        let placed = growing.place(folder, grown, &[], None);
        assert_eq!((placed.seen.len(), placed.failed.len()), (201, 0));
    }
}
