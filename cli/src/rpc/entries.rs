//! Files, folders and links on their way in, as a flat list in walking order.
//!
//! Two things make such a list: a walk over this machine's disk (here) and a multipart body
//! ([`super::multipart`]). Whoever imports cannot tell them apart.

use super::error::RpcError;
use cairn_store::unixfs::Mtime;
use cairn_store::unixfs::import::Metadata;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries in walking order: a folder before what is in it.
pub trait Entries {
    /// The next entry.
    fn next(&mut self) -> Result<Option<Entry<'_>>, RpcError>;
}

/// A file, folder or link on its way in.
pub struct Entry<'a> {
    /// Names from the top, joined by `/`; empty for a file without a name.
    pub path: String,
    /// Mode and time, if they shall be kept.
    pub metadata: Metadata,
    /// Where the file lies, if that was told: it may be added in place.
    pub place: Option<PathBuf>,
    /// What it is.
    pub content: Content<'a>,
}

/// What an entry is.
pub enum Content<'a> {
    /// A folder; what is in it follows.
    Folder,
    /// A symbolic link and where it points.
    Link(String),
    /// A file and its bytes.
    File(Box<dyn Read + 'a>),
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Entry")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Folder => "Folder",
            Self::Link(_) => "Link",
            Self::File(_) => "File",
        })
    }
}

/// Files of this machine that shall go in.
#[derive(Debug, Clone, Default)]
pub struct LocalUpload {
    /// What was named, in order.
    pub sources: Vec<Source>,
    /// How folders are walked.
    pub walk: Walk,
    /// Who is told of bytes read from files.
    pub meter: Meter,
}

/// Somebody who is told how many bytes more were read, or nobody.
#[derive(Clone, Default)]
pub struct Meter(Option<Arc<dyn Fn(u64) + Send + Sync>>);

impl Meter {
    /// Tells `read` of every read.
    pub fn new(read: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(read)))
    }

    fn over(&self, content: File) -> Box<dyn Read + Send> {
        match &self.0 {
            None => Box::new(content),
            Some(read) => Box::new(Metered {
                content,
                read: Arc::clone(read),
            }),
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Meter").field(&self.0.is_some()).finish()
    }
}

struct Metered {
    content: File,
    read: Arc<dyn Fn(u64) + Send + Sync>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(into)?;
        (self.read)(count as u64);
        Ok(count)
    }
}

/// One thing that was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Standard input, under a name or none.
    Stdin(Option<String>),
    /// A path.
    Path(PathBuf),
    /// A path, under a name of its own.
    Named(PathBuf, String),
    /// These bytes, under this name.
    Bytes(Vec<u8>, String),
}

/// How folders are walked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Walk {
    /// Whether folders are taken at all.
    pub folders: Folders,
    /// Whether names that begin with a dot are taken.
    pub hidden: Hidden,
    /// What a symbolic link becomes.
    pub links: Links,
    /// What becomes of what cannot go in.
    pub strays: Strays,
    /// Whether it is told where files lie.
    pub in_place: InPlace,
    /// What is kept of modes.
    pub keep_mode: Keep,
    /// What is kept of times.
    pub keep_mtime: Keep,
}

/// Whether folders are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Folders {
    /// A folder is an error.
    #[default]
    Refuse,
    /// With all that is in them.
    Take,
}

/// Whether names that begin with a dot are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hidden {
    /// Left out, unless named themselves.
    #[default]
    Skip,
    /// Taken like others.
    Take,
}

/// What a symbolic link becomes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Links {
    /// A symbolic link.
    #[default]
    Keep,
    /// What it points to, if it was named itself; else a symbolic link.
    FollowNamed,
    /// What it points to.
    Follow,
}

/// Whether it is told where files lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InPlace {
    /// It is nobody's business.
    #[default]
    Untold,
    /// So that they can be added in place.
    Told,
}

/// What becomes of what is neither file, folder nor link, and of what goes away before it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strays {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out.
    Skip,
}

/// Whether something is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Keep {
    /// Left out.
    #[default]
    No,
    /// Kept.
    Yes,
}

/// Entries from this machine's disk.
#[derive(Debug)]
pub struct LocalEntries {
    walk: Walk,
    meter: Meter,
    sources: std::vec::IntoIter<Source>,
    /// Folders that are being walked, with what is left in them.
    open: Vec<std::vec::IntoIter<(PathBuf, String)>>,
}

impl LocalEntries {
    /// A walk over what was named.
    pub fn new(upload: LocalUpload) -> Self {
        Self {
            walk: upload.walk,
            meter: upload.meter,
            sources: upload.sources.into_iter(),
            open: Vec::new(),
        }
    }

    fn next_place(&mut self) -> Result<Option<Place>, RpcError> {
        while let Some(folder) = self.open.last_mut() {
            if let Some((path, name)) = folder.next() {
                return Ok(Some(Place::Below(path, name)));
            }
            self.open.pop();
        }
        Ok(match self.sources.next() {
            None => None,
            Some(Source::Stdin(name)) => Some(Place::Stdin(name)),
            Some(Source::Path(path)) => {
                let name = name_of(&path)?;
                Some(Place::Named(path, name))
            }
            Some(Source::Named(path, name)) => Some(Place::Named(path, name)),
            Some(Source::Bytes(bytes, name)) => Some(Place::Bytes(bytes, name)),
        })
    }

    /// What lies at `path`; nothing if it is left out.
    fn look(
        &mut self,
        path: &Path,
        name: String,
        named: bool,
    ) -> Result<Option<Entry<'static>>, RpcError> {
        let follow = match self.walk.links {
            Links::Keep => false,
            Links::FollowNamed => named,
            Links::Follow => true,
        };
        let found = if follow {
            fs::metadata(path)
        } else {
            fs::symlink_metadata(path)
        };
        let skips = self.walk.strays == Strays::Skip;
        let found = match found {
            Err(error) if skips && error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|error| unreadable(path, &error))?,
        };
        let kind = found.file_type();
        let place = match self.walk.in_place {
            // As whoever reads it later finds it, who follows no link at its end.
            InPlace::Told if kind.is_file() => {
                Some(fs::canonicalize(path).map_err(|error| unreadable(path, &error))?)
            }
            InPlace::Told | InPlace::Untold => None,
        };
        let content = if kind.is_dir() {
            if self.walk.folders == Folders::Refuse {
                return Err(is_folder(path));
            }
            self.enter(path, &name)?;
            Content::Folder
        } else if kind.is_symlink() {
            let target = fs::read_link(path).map_err(|error| unreadable(path, &error))?;
            let Some(target) = target.to_str() else {
                return Err(RpcError::failed(format!(
                    "the target of the link {} is not UTF-8",
                    path.display()
                )));
            };
            Content::Link(target.to_owned())
        } else if kind.is_file() {
            Content::File(self.meter.over(open_file(path)?))
        } else if skips {
            return Ok(None);
        } else {
            return Err(special(path));
        };
        Ok(Some(Entry {
            path: name,
            metadata: self.metadata(&found),
            place,
            content,
        }))
    }

    fn enter(&mut self, path: &Path, name: &str) -> Result<(), RpcError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(RpcError::failed(format!(
                "{} lies deeper than {DEPTH_MAX} folders",
                path.display()
            )));
        }
        let mut inside = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| unreadable(path, &error))? {
            let entry = entry.map_err(|error| unreadable(path, &error))?;
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else {
                return Err(RpcError::failed(format!(
                    "the name of {} is not UTF-8",
                    entry.path().display()
                )));
            };
            if text.starts_with('.') && self.walk.hidden == Hidden::Skip {
                continue;
            }
            inside.push((entry.path(), format!("{name}/{text}")));
        }
        inside.sort_by(|(one, _), (other, _)| one.file_name().cmp(&other.file_name()));
        self.open.push(inside.into_iter());
        Ok(())
    }

    fn metadata(&self, found: &fs::Metadata) -> Metadata {
        Metadata {
            mode: (self.walk.keep_mode == Keep::Yes)
                .then(|| found.permissions().mode() & MODE_BITS),
            mtime: (self.walk.keep_mtime == Keep::Yes).then(|| Mtime {
                seconds: found.mtime(),
                nanoseconds: u32::try_from(found.mtime_nsec()).unwrap_or(0),
            }),
        }
    }
}

enum Place {
    Stdin(Option<String>),
    Bytes(Vec<u8>, String),
    Named(PathBuf, String),
    Below(PathBuf, String),
}

impl Entries for LocalEntries {
    fn next(&mut self) -> Result<Option<Entry<'_>>, RpcError> {
        while let Some(place) = self.next_place()? {
            let (path, name, named) = match place {
                Place::Stdin(name) => {
                    return Ok(Some(bare(name.unwrap_or_default(), Box::new(io::stdin()))));
                }
                Place::Bytes(bytes, name) => {
                    return Ok(Some(bare(name, Box::new(io::Cursor::new(bytes)))));
                }
                Place::Named(path, name) => (path, name, true),
                Place::Below(path, name) => (path, name, false),
            };
            if let Some(entry) = self.look(&path, name, named)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// A file of which only the bytes are known.
fn bare(path: String, content: Box<dyn Read>) -> Entry<'static> {
    Entry {
        path,
        metadata: Metadata::default(),
        place: None,
        content: Content::File(content),
    }
}

/// What makes a folder an error without `-r`; the text is Kubo's.
pub fn is_folder(path: &Path) -> RpcError {
    RpcError::failed(format!(
        "'{}' is a directory, use the '-r' flag to specify directories",
        path.display()
    ))
}

fn special(path: &Path) -> RpcError {
    RpcError::failed(format!(
        "'{}' is neither a file nor a folder nor a symbolic link",
        path.display()
    ))
}

fn open_file(path: &Path) -> Result<File, RpcError> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let found = file.metadata().map_err(|error| unreadable(path, &error))?;
    // It may have become something else since it was looked at.
    if found.is_file() {
        Ok(file)
    } else {
        Err(special(path))
    }
}

fn unreadable(path: &Path, error: &io::Error) -> RpcError {
    RpcError::failed(format!("cannot read {}: {error}", path.display()))
}

/// The name that something named on the command line gets.
fn name_of(path: &Path) -> Result<String, RpcError> {
    let name = match path.file_name() {
        Some(name) => Some(name.to_owned()),
        // `.`, `..` and `/` have no name of their own.
        None => fs::canonicalize(path)
            .map_err(|error| unreadable(path, &error))?
            .file_name()
            .map(ToOwned::to_owned),
    };
    let Some(name) = name else {
        return Err(RpcError::failed(format!("{} has no name", path.display())));
    };
    name.into_string()
        .map_err(|_| RpcError::failed(format!("the name of {} is not UTF-8", path.display())))
}

/// Permission bits that are kept.
const MODE_BITS: u32 = 0o7777;
/// Deepest nesting of folders walked; the importer has the same bound.
const DEPTH_MAX: usize = cairn_store::unixfs::import::DEPTH_MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(upload: LocalUpload) -> Result<Vec<String>, RpcError> {
        let mut entries = LocalEntries::new(upload);
        let mut seen = Vec::new();
        while let Some(entry) = entries.next()? {
            seen.push(match entry.content {
                Content::Folder => format!("{}/", entry.path),
                Content::Link(target) => format!("{} -> {target}", entry.path),
                Content::File(mut content) => {
                    let mut text = String::new();
                    content.read_to_string(&mut text).unwrap();
                    format!("{}={text}", entry.path)
                }
            });
        }
        Ok(seen)
    }

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("b/c")).unwrap();
        fs::write(top.join("z"), "last").unwrap();
        fs::write(top.join("a"), "first").unwrap();
        fs::write(top.join(".hidden"), "dot").unwrap();
        fs::write(top.join("b/c/deep"), "deep").unwrap();
        std::os::unix::fs::symlink("../a", top.join("b/link")).unwrap();
        folder
    }

    fn walk() -> Walk {
        Walk {
            folders: Folders::Take,
            ..Walk::default()
        }
    }

    fn upload(folder: &tempfile::TempDir, walk: Walk) -> LocalUpload {
        LocalUpload {
            sources: vec![Source::Path(folder.path().join("top"))],
            walk,
            ..LocalUpload::default()
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_names_in_order() {
        let folder = tree();
        assert_eq!(
            list(upload(&folder, walk())).unwrap(),
            [
                "top/",
                "top/a=first",
                "top/b/",
                "top/b/c/",
                "top/b/c/deep=deep",
                "top/b/link -> ../a",
                "top/z=last"
            ]
        );
    }

    #[test]
    fn hidden_names_and_links_are_taken_as_asked() {
        let folder = tree();
        let all = Walk {
            hidden: Hidden::Take,
            links: Links::Follow,
            ..walk()
        };
        let seen = list(upload(&folder, all)).unwrap();
        assert!(seen.contains(&"top/.hidden=dot".to_owned()));
        assert!(seen.contains(&"top/b/link=first".to_owned()));
    }

    #[test]
    fn a_folder_needs_permission() {
        let folder = tree();
        let error = list(upload(&folder, Walk::default())).unwrap_err();
        assert!(
            error
                .message()
                .ends_with("use the '-r' flag to specify directories")
        );
    }

    #[test]
    fn a_missing_file_and_a_socket_are_named() {
        let folder = tree();
        let missing = folder.path().join("top/nothing");
        let error = list(LocalUpload {
            sources: vec![Source::Path(missing)],
            walk: walk(),
            ..LocalUpload::default()
        });
        assert!(error.unwrap_err().message().contains("nothing"));
        let socket = folder.path().join("top/socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = list(upload(&folder, walk())).unwrap_err();
        assert!(error.message().contains("socket"), "{error}");
    }

    #[test]
    fn the_current_folder_has_the_name_it_has_above() {
        let folder = tree();
        let name = name_of(&folder.path().join("top/b/..")).unwrap();
        assert_eq!(name, "top");
    }
}
