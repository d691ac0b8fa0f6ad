//! A tar archive on its way to this machine's disk, never outside its target.
//!
//! The archive comes from whoever made the tree, so its names are foreign. Four rules keep it in:
//! 1. Everything is written below a new folder beside the target, which is moved into place at the
//!    end; on any error it is removed.
//! 2. Every name is checked by itself: no `..`, nothing absolute, no NUL.
//! 3. Files are created only where nothing is yet.
//! 4. Symbolic links are made last, when nothing is written any more, so nothing is written
//!    through one.

use crate::rpc::tar;
use ::tar::{Archive, Entry, EntryType, Header};
use cairn_gateway::archive::fold;
use cairn_store::unixfs::Mtime;
use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To exactly this path, which must not exist or be an empty folder.
    At(PathBuf),
    /// A file into this folder if it is one; anything else to exactly this path.
    AtOrInto(PathBuf),
}

/// Why an archive was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExtractError {
    /// There is something already.
    #[error("{0} exists already: nothing was written; move it away or name another place with -o")]
    Exists(String),
    /// A name that would lead out of the target or cannot be a name.
    #[error("nothing was written: the entry {0:?} leads out of its folder or cannot be a name")]
    Name(String),
    /// Two names that this file system takes for one.
    #[error(
        "nothing was written: {0:?} and another entry have names that this file system cannot tell apart"
    )]
    Twice(String),
    /// Something that is neither file, folder nor symbolic link.
    #[error("nothing was written: the entry {0:?} is neither a file nor a folder nor a link")]
    Kind(String),
    /// The archive is not whole, or what fills it failed.
    #[error("nothing was written: {0}")]
    Damaged(io::Error),
    /// All that the archive holds was written, but not all was in it.
    #[error("{0}")]
    Incomplete(io::Error),
    /// The disk refused.
    #[error("cannot write {path}: {source}")]
    Disk {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Target {
    /// Whether something is in the way that is certain to stay there, as far as can be known before
    /// anything was asked for: whether it is a folder that comes is not. `root` is its name.
    pub fn check(&self, root: &str) -> Result<(), ExtractError> {
        // Only what would be in the way of both is certain.
        match self.place(root, RootKind::Folder) {
            Err(blocked) => self
                .place(root, RootKind::Other)
                .map(drop)
                .map_err(|_| blocked),
            Ok(_) => Ok(()),
        }
    }

    /// Where what comes goes, unless something is in the way. `root` is its name.
    pub fn place(&self, root: &str, kind: RootKind) -> Result<PathBuf, ExtractError> {
        let path = match self {
            Self::AtOrInto(path) if kind == RootKind::Other && path.is_dir() => path.join(root),
            Self::At(path) | Self::AtOrInto(path) => path.clone(),
        };
        if is_taken(&path, kind == RootKind::Folder) {
            return Err(ExtractError::Exists(path.display().to_string()));
        }
        Ok(path)
    }
}

/// What an archive's first entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootKind {
    /// A folder.
    Folder,
    /// A file or a link.
    Other,
}

impl RootKind {
    fn of(entry: EntryType) -> Self {
        match entry {
            EntryType::Directory => Self::Folder,
            _ => Self::Other,
        }
    }
}

/// The name of an archive's first entry, and what it is, if its start says both.
pub fn root_of(start: &[u8]) -> Option<(String, RootKind)> {
    let header = Header::from_byte_slice(start.get(..HEADER_BYTES)?);
    if header.entry_type() == EntryType::XHeader {
        return None; // What is said there comes first.
    }
    let path = header.path().ok()?;
    let name = path.file_name()?.to_str()?;
    Some((name.to_owned(), RootKind::of(header.entry_type())))
}

/// Writes what `input` holds; gives the path written to. `on_bytes` is told how many bytes of
/// files were written so far.
pub fn extract(
    input: impl Read,
    target: &Target,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<PathBuf, ExtractError> {
    let mut place = None;
    extract_into(&mut place, input, target, on_bytes).map_err(|error| match (error, &place) {
        (ExtractError::Disk { path, source }, Some(place)) => ExtractError::Disk {
            path: place.in_the_end(Path::new(&path)).display().to_string(),
            source,
        },
        (error, _) => error,
    })
}

fn extract_into(
    place: &mut Option<Place>,
    input: impl Read,
    target: &Target,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<PathBuf, ExtractError> {
    let mut archive = Archive::new(input);
    let mut written = 0;
    for entry in archive.entries().map_err(ExtractError::Damaged)? {
        let mut entry = entry.map_err(ExtractError::Damaged)?;
        let path = entry.path_bytes().into_owned();
        let names = names(&path)?;
        let Some((root, below)) = names.split_first() else {
            return Err(ExtractError::Name(shown(&path)));
        };
        let place = match &mut *place {
            Some(place) => place,
            place @ None => {
                let kind = RootKind::of(entry.header().entry_type());
                place.insert(Place::prepare(target.place(root, kind)?, root)?)
            }
        };
        if place.root_name != *root {
            return Err(ExtractError::Name(shown(&path)));
        }
        let here = place.claim(below, &path)?;
        let header = entry.header();
        let mode = header.mode().map_err(ExtractError::Damaged)? & MODE_BITS;
        let entry_type = header.entry_type();
        let mtime = mtime_of(&mut entry).map_err(ExtractError::Damaged)?;
        match entry_type {
            EntryType::Directory => {
                fs::create_dir(&here).map_err(|source| disk(&here, source))?;
                if mode != FOLDER_MODE || mtime.is_some() {
                    place.folders.push((here, mode, mtime));
                }
            }
            EntryType::Regular | EntryType::Continuous => {
                let size = entry.size();
                let file = OpenOptions::new().write(true).create_new(true).open(&here);
                let mut file = file.map_err(|source| disk(&here, source))?;
                let copied = copy(&mut entry, &mut file, &here, |bytes| {
                    written += bytes;
                    on_bytes(written);
                })?;
                if copied != size {
                    let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Err(ExtractError::Damaged(cut));
                }
                settle(&file, mode, FILE_MODE, mtime).map_err(|source| disk(&here, source))?;
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default();
                let link =
                    std::str::from_utf8(&link).map_err(|_| ExtractError::Name(shown(&link)))?;
                place.links.push((here, link.to_owned(), mtime));
            }
            _ => return Err(ExtractError::Kind(shown(&path))),
        }
    }
    // What follows the archive's end tells whether something was left out.
    let mut rest = archive.into_inner();
    let complete = io::copy(&mut rest, &mut io::sink());
    let Some(place) = place else {
        let empty = io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty");
        return Err(ExtractError::Damaged(empty));
    };
    let path = place.finish()?;
    complete.map_err(ExtractError::Incomplete)?;
    Ok(path)
}

/// Copies an entry, telling reading and writing errors apart.
fn copy(
    entry: &mut impl Read,
    file: &mut File,
    path: &Path,
    mut on_bytes: impl FnMut(u64),
) -> Result<u64, ExtractError> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut copied = 0;
    loop {
        let read = match entry.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other.map_err(ExtractError::Damaged)?,
        };
        if read == 0 {
            return Ok(copied);
        }
        let bytes = buffer.get(..read).unwrap_or_default();
        io::Write::write_all(file, bytes).map_err(|source| disk(path, source))?;
        copied += read as u64;
        on_bytes(read as u64);
    }
}

/// A new folder beside the target, in which the tree grows until it is whole.
struct Place {
    root_name: String,
    growing: PathBuf,
    target: PathBuf,
    /// What was claimed, as a file system that folds names would see it.
    /// Keyed hashes: eight bytes a name, and nobody can make two collide.
    claimed: HashSet<u64>,
    key: RandomState,
    folding: Folding,
    /// Folders that want other settings than new ones have.
    folders: Vec<(PathBuf, u32, Option<Mtime>)>,
    links: Vec<(PathBuf, String, Option<Mtime>)>,
}

/// Whether the file system takes different names for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folding {
    /// Names are bytes.
    Exact,
    /// Case, or the way letters are composed, makes no difference.
    Folded,
}

impl Place {
    fn prepare(target: PathBuf, root: &str) -> Result<Self, ExtractError> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let folder = target.parent().unwrap_or_else(|| Path::new(""));
        let (short, _) = name.split_at(name.floor_char_boundary(NAME_SHOWN));
        // Nobody can have made it before us.
        let random = RandomState::new().build_hasher().finish();
        let growing = folder.join(format!(".{short}.{random:016x}.partial"));
        // Who named the place knows nothing of this folder.
        fs::create_dir(&growing).map_err(|source| disk(&target, source))?;
        let mut place = Self {
            root_name: root.to_owned(),
            growing,
            target,
            claimed: HashSet::new(),
            key: RandomState::new(),
            folding: Folding::Exact,
            folders: Vec::new(),
            links: Vec::new(),
        };
        place.folding = place.probe()?;
        Ok(place)
    }

    /// Writes a name and looks for it under others.
    fn probe(&self) -> Result<Folding, ExtractError> {
        let probe = self.growing.join("probe-é");
        File::create(&probe).map_err(|source| disk(&self.target, source))?;
        let folds = ["PROBE-É", "probe-e\u{301}"]
            .iter()
            .any(|other| self.growing.join(other).exists());
        fs::remove_file(&probe).map_err(|source| disk(&self.target, source))?;
        Ok(if folds {
            Folding::Folded
        } else {
            Folding::Exact
        })
    }

    /// Where an entry goes, if nothing was there before.
    fn claim(&mut self, below: &[String], path: &[u8]) -> Result<PathBuf, ExtractError> {
        let whole = below.join("/");
        let key = match self.folding {
            Folding::Exact => self.key.hash_one(&whole),
            Folding::Folded => self.key.hash_one(fold(&whole)),
        };
        if !self.claimed.insert(key) {
            return Err(ExtractError::Twice(shown(path)));
        }
        let mut here = self.growing.join(ROOT);
        here.extend(below);
        Ok(here)
    }

    /// Where something that grows here will be.
    fn in_the_end(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(self.growing.join(ROOT)) {
            Ok(below) if below.as_os_str().is_empty() => self.target.clone(),
            Ok(below) => self.target.join(below),
            Err(_) => path.to_owned(),
        }
    }

    fn finish(&mut self) -> Result<PathBuf, ExtractError> {
        for (path, link, mtime) in &self.links {
            symlink(link, path).map_err(|source| disk(path, source))?;
            if let Some(mtime) = mtime {
                set_link_time(path, *mtime).map_err(|source| disk(path, source))?;
            }
        }
        let root = self.growing.join(ROOT);
        // From the inside out: a folder that may not be written must be filled first, and the
        // root moved.
        let mut root_settings = None;
        for (path, mode, mtime) in self.folders.iter().rev() {
            if *path == root {
                root_settings = Some((*mode, *mtime));
                continue;
            }
            let settled =
                File::open(path).and_then(|folder| settle(&folder, *mode, FOLDER_MODE, *mtime));
            settled.map_err(|source| disk(path, source))?;
        }
        if is_taken(&self.target, root.is_dir()) {
            return Err(ExtractError::Exists(self.target.display().to_string()));
        }
        fs::rename(&root, &self.target).map_err(|source| disk(&self.target, source))?;
        if let Some((mode, mtime)) = root_settings {
            File::open(&self.target)
                .and_then(|folder| settle(&folder, mode, FOLDER_MODE, mtime))
                .map_err(|source| disk(&self.target, source))?;
        }
        Ok(self.target.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Folders that may not be written cannot be emptied.
        for (path, _, _) in &self.folders {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(FOLDER_MODE));
        }
        let _ = fs::remove_dir_all(&self.growing);
    }
}

/// Whether something is at `target` that a tree must not replace. An empty folder gives way to a
/// folder.
fn is_taken(target: &Path, is_folder: bool) -> bool {
    match fs::symlink_metadata(target) {
        Err(_) => false,
        Ok(found) if is_folder && found.is_dir() => {
            fs::read_dir(target).is_ok_and(|mut inside| inside.next().is_some())
        }
        Ok(_) => true,
    }
}

/// Sets what differs from what a new file has anyway.
fn settle(file: &File, mode: u32, usual: u32, mtime: Option<Mtime>) -> io::Result<()> {
    if let Some(mtime) = mtime {
        rustix::fs::futimens(file, &times(mtime))?;
    }
    if mode != usual {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn set_link_time(path: &Path, mtime: Mtime) -> io::Result<()> {
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    Ok(rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times(mtime),
        flags,
    )?)
}

fn times(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanoseconds.into(),
        },
    }
}

/// When an entry changed, if that is known: what its field has no room for stands in a record before it.
fn mtime_of(entry: &mut Entry<'_, impl Read>) -> io::Result<Option<Mtime>> {
    if let Some(records) = entry.pax_extensions()? {
        for record in records {
            let record = record?;
            if record.key() == Ok(tar::MTIME)
                && let Some(time) = record.value().ok().and_then(tar::parse_decimal)
            {
                return Ok(Some(time));
            }
        }
    }
    let seconds = entry.header().mtime()?;
    let seconds = i64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    Ok(seconds.map(|seconds| Mtime {
        seconds,
        nanoseconds: 0,
    }))
}

/// The names of a path, each checked by itself.
fn names(path: &[u8]) -> Result<Vec<String>, ExtractError> {
    let bad = || ExtractError::Name(shown(path));
    let text = std::str::from_utf8(path).map_err(|_| bad())?;
    // A folder's path may end in a slash.
    let text = text.strip_suffix('/').unwrap_or(text);
    text.split('/')
        .map(|name| {
            if matches!(name, "" | "." | "..") || name.contains('\0') {
                return Err(bad());
            }
            Ok(name.to_owned())
        })
        .collect()
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path)
        .chars()
        .take(NAME_SHOWN)
        .collect()
}

fn disk(path: &Path, source: io::Error) -> ExtractError {
    ExtractError::Disk {
        path: path.display().to_string(),
        source,
    }
}

/// What the tree's root is called while it grows.
const ROOT: &str = "root";
/// How much of a name an error or a temporary name repeats.
const NAME_SHOWN: usize = 100;
/// Bits of a mode that an archive may set: no setuid, setgid or sticky.
const MODE_BITS: u32 = 0o777;
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;
const COPY_BYTES: usize = 256 << 10;
/// What an entry of an archive begins with.
const HEADER_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::tar::{Kind, end, header, padding};

    /// An archive with whatever names, even those that ours would never write.
    fn archive(entries: &[(&str, Kind<'_>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, kind) in entries {
            bytes.extend_from_slice(&header(path, *kind, None, None).unwrap());
            if let Kind::File(size) = kind {
                bytes.resize(bytes.len() + usize::try_from(*size).unwrap(), b'x');
                bytes.extend_from_slice(&padding(*size));
            }
        }
        bytes.extend_from_slice(&end());
        bytes
    }

    fn run(bytes: &[u8], folder: &Path) -> Result<PathBuf, ExtractError> {
        extract(bytes, &Target::At(folder.join("out")), &mut |_| {})
    }

    /// What lies anywhere below a folder.
    fn listing(folder: &Path) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![folder.to_owned()];
        while let Some(next) = open.pop() {
            for entry in fs::read_dir(&next).unwrap() {
                let path = entry.unwrap().path();
                all.push(path.strip_prefix(folder).unwrap().display().to_string());
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    open.push(path);
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn a_tree_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&[
            ("r", Kind::Folder),
            ("r/a", Kind::File(600)),
            ("r/d", Kind::Folder),
            ("r/d/empty", Kind::File(0)),
            ("r/link", Kind::Link("../../etc/passwd")),
        ]);
        let mut told = 0;
        let target = Target::At(folder.path().join("out"));
        extract(&bytes[..], &target, &mut |bytes| told = bytes).unwrap();
        assert_eq!(told, 600);
        assert_eq!(
            listing(folder.path()),
            ["out", "out/a", "out/d", "out/d/empty", "out/link"]
        );
    }

    #[test]
    fn the_start_of_an_archive_says_what_it_is() {
        let start = |path: &str, kind| root_of(&header(path, kind, None, None).unwrap());
        let folder = ("out".to_owned(), RootKind::Folder);
        assert_eq!(start("out", Kind::Folder), Some(folder));
        let other = Some(("out".to_owned(), RootKind::Other));
        assert_eq!(start("out", Kind::File(1)), other);
        assert_eq!(start("out", Kind::Link("to")), other);
        assert_eq!(start(&"long".repeat(100), Kind::Folder), None);
        let whole = header("out", Kind::Folder, None, None).unwrap();
        assert_eq!(root_of(&whole[..HEADER_BYTES - 1]), None);
    }

    #[test]
    fn no_name_leads_out() {
        let names = [
            "..",
            "../x",
            "r/../x",
            "r/../../x",
            "/etc/x",
            "/",
            "",
            "r//x",
            "./x",
            "r/./x",
            "r/..",
            "r/a/../../..",
            "other/x",
        ];
        for name in names {
            let folder = tempfile::tempdir().unwrap();
            let bytes = archive(&[("r", Kind::Folder), (name, Kind::File(1))]);
            assert!(run(&bytes, folder.path()).is_err(), "{name:?}");
            assert!(listing(folder.path()).is_empty(), "{name:?}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_of_the_tree() {
        let folder = tempfile::tempdir().unwrap();
        let outside = folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let aim = outside.display().to_string();
        for entries in [
            // A link, then a file through it.
            vec![
                ("r", Kind::Folder),
                ("r/l", Kind::Link(&aim)),
                ("r/l/x", Kind::File(1)),
            ],
            // A link, then a folder in its place.
            vec![
                ("r", Kind::Folder),
                ("r/l", Kind::Link(&aim)),
                ("r/l", Kind::Folder),
            ],
            // A folder, then a link in its place, then a file.
            vec![
                ("r", Kind::Folder),
                ("r/l", Kind::Folder),
                ("r/l", Kind::Link(&aim)),
                ("r/l/x", Kind::File(1)),
            ],
            // The root itself.
            vec![("r", Kind::Link(&aim)), ("r/x", Kind::File(1))],
        ] {
            let result = run(&archive(&entries), folder.path());
            assert!(result.is_err(), "{entries:?}");
            assert_eq!(listing(folder.path()), ["outside"], "{entries:?}");
        }
    }

    #[test]
    fn what_exists_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        fs::write(&out, "precious").unwrap();
        let bytes = archive(&[("r", Kind::File(1))]);
        assert!(matches!(
            run(&bytes, folder.path()),
            Err(ExtractError::Exists(_))
        ));
        assert_eq!(fs::read(&out).unwrap(), b"precious");
        // A link to nowhere is something too.
        fs::remove_file(&out).unwrap();
        symlink("nowhere", &out).unwrap();
        assert!(matches!(
            run(&bytes, folder.path()),
            Err(ExtractError::Exists(_))
        ));
    }

    #[test]
    fn an_existing_folder_takes_a_file_inside_and_gives_way_to_a_folder_only_if_empty() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::AtOrInto(folder.path().to_owned());
        let tree = archive(&[("r", Kind::Folder), ("r/a", Kind::File(1))]);
        extract(&tree[..], &target, &mut |_| {}).unwrap();
        assert_eq!(listing(folder.path()), ["a"]);
        let file = archive(&[("r", Kind::File(1))]);
        let written = extract(&file[..], &target, &mut |_| {}).unwrap();
        assert_eq!(written, folder.path().join("r"));
        let again = extract(&tree[..], &target, &mut |_| {});
        assert!(matches!(again, Err(ExtractError::Exists(_))));
        assert_eq!(listing(folder.path()), ["a", "r"]);
    }

    #[test]
    fn what_cannot_be_written_is_named_as_it_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("r/{}", "n".repeat(300));
        let bytes = archive(&[("r", Kind::Folder), (&long, Kind::File(1))]);
        let told = run(&bytes, folder.path()).unwrap_err().to_string();
        let named = folder.path().join("out").join("n".repeat(300));
        let named = format!("cannot write {}: ", named.display());
        assert!(told.starts_with(&named), "{told}");
        let nowhere = folder.path().join("nowhere");
        let told = run(&bytes, &nowhere).unwrap_err().to_string();
        let named = format!("cannot write {}: ", nowhere.join("out").display());
        assert!(told.starts_with(&named), "{told}");
        assert!(listing(folder.path()).is_empty());
    }

    #[test]
    fn an_archive_cut_anywhere_leaves_nothing() {
        let bytes = archive(&[("r", Kind::Folder), ("r/a", Kind::File(700))]);
        let header = 512;
        for length in [
            0,
            10,
            header - 1,
            header + 1,
            2 * header + 5,
            2 * header + 600,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let result = run(&bytes[..length], folder.path());
            assert!(result.is_err(), "{length}");
            assert!(listing(folder.path()).is_empty(), "{length}");
        }
    }

    #[test]
    fn an_error_before_the_archives_end_leaves_nothing_and_one_behind_it_leaves_all() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the fetch ended early"))
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive(&[("r", Kind::File(3))]);
        let target = Target::At(folder.path().join("out"));
        let open = bytes[..bytes.len() - end().len()].chain(Failing);
        let nothing = extract(open, &target, &mut |_| {});
        assert!(
            matches!(nothing, Err(ExtractError::Damaged(_))),
            "{nothing:?}"
        );
        assert!(listing(folder.path()).is_empty());
        let input = bytes.chain(Failing);
        let all = extract(input, &target, &mut |_| {});
        assert!(matches!(all, Err(ExtractError::Incomplete(_))), "{all:?}");
        assert_eq!(listing(folder.path()), ["out"]);
    }

    #[test]
    fn modes_never_grant_another_users_rights() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = header("r", Kind::File(0), Some(0o4755), None)
            .unwrap()
            .to_vec();
        bytes.extend_from_slice(&end());
        let written = run(&bytes, folder.path()).unwrap();
        let mode = fs::metadata(written).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }

    #[test]
    fn names_that_fold_to_one_are_told_apart_from_others() {
        assert_eq!(fold("README"), fold("readme"));
        assert_eq!(fold("é"), fold("e\u{301}"));
        assert_eq!(fold("É"), fold("e\u{301}"));
        assert_ne!(fold("a"), fold("b"));
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::prepare(folder.path().join("out"), "r").unwrap();
        place.folding = Folding::Folded;
        place.claim(&["A".to_owned()], b"r/A").unwrap();
        let twice = place.claim(&["a".to_owned()], b"r/a");
        assert!(matches!(twice, Err(ExtractError::Twice(_))));
    }
}
