//! `add`: files in, CIDs out while they come.
//!
//! Lines that are streamed are progress. What was added is durable and pinned before the last line
//! goes out: it is held back until the commit is through. When anything fails nothing is pinned.

use super::api::Call;
use super::arguments::{Arguments, CidText};
use super::entries::{Content, Entries, Entry};
use super::error::RpcError;
use super::feed::Feed;
use super::filestore::places::{Compared, Places};
use super::reply::{Reply, Sink};
use cairn_store::cid::{Cid, HashKind, Version};
use cairn_store::pin::PinMode;
use cairn_store::sink::{BlockSink, Nowhere};
use cairn_store::store::Keep;
use cairn_store::unixfs::import::{Added, Event, Importer, Kind, Metadata, overlapped};
use cairn_store::unixfs::{Layout, Profile};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read};
use tokio::runtime::Handle;

/// A line of the answer: progress (`Bytes`) or a result (`Hash` and `Size`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Line {
    /// The entry's path.
    pub name: String,
    /// Its CID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// Bytes read so far.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// Cumulative size of its DAG.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// Its permission bits in octal, if they were kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// Its time of change in seconds since 1970, if that was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// Nanoseconds of that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime_nsecs: Option<u32>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks with a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// How to add.
#[derive(Debug, Clone)]
struct Options {
    profile: Profile,
    /// Whether files stay where they are.
    nocopy: bool,
    target: Target,
    wrap: Wrap,
    progress: Progress,
    default_metadata: Metadata,
    cids: CidText,
}

/// What becomes of the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// Named and forgotten.
    Nowhere,
    /// Kept, not pinned.
    Kept,
    /// Kept and pinned, perhaps under a name.
    Pinned(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrap {
    No,
    InFolder,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Silent,
    Told,
}

impl Options {
    fn read(arguments: &Arguments) -> Result<Self, RpcError> {
        let pin_name = arguments
            .text(&["pin-name"])
            .filter(|name| !name.is_empty());
        let pin = arguments.choice(&["pin"])?.unwrap_or(true);
        if pin_name.is_some() && !pin {
            return Err(RpcError::wrong("pin-name option requires pin to be set"));
        }
        let target = if arguments.flag(&["only-hash", "n"])? {
            Target::Nowhere
        } else if pin {
            Target::Pinned(pin_name.map(str::to_owned))
        } else {
            Target::Kept
        };
        for unknown in ["to-files", "fscache", "inline"] {
            if arguments
                .text(&[unknown])
                .is_some_and(|text| text != "false")
            {
                return Err(RpcError::wrong(format!("{unknown} is not supported yet")));
            }
        }
        let wrap = arguments.flag(&["wrap-with-directory", "w"])?;
        let mode: Option<u32> = arguments.parsed(&["mode"], "a file mode")?;
        let seconds: Option<i64> = arguments.parsed(&["mtime"], "seconds since 1970")?;
        let nanoseconds: Option<u32> = arguments.parsed(&["mtime-nsecs"], "nanoseconds")?;
        let mut profile = profile(arguments)?;
        let nocopy = arguments.flag(&["nocopy"])?;
        if nocopy {
            if arguments.choice(&["raw-leaves"])? == Some(false) {
                return Err(RpcError::wrong(
                    "nocopy option requires '--raw-leaves' to be enabled as well",
                ));
            }
            profile.raw_leaves = true;
        }
        Ok(Self {
            profile,
            nocopy,
            target,
            wrap: if wrap { Wrap::InFolder } else { Wrap::No },
            progress: if arguments.flag(&["progress", "p"])? {
                Progress::Told
            } else {
                Progress::Silent
            },
            default_metadata: Metadata {
                mode,
                mtime: seconds.map(|seconds| cairn_store::unixfs::Mtime {
                    seconds,
                    nanoseconds: nanoseconds.unwrap_or(0),
                }),
            },
            cids: arguments.cids()?,
        })
    }
}

/// The profile asked for, with its single changes.
pub(super) fn profile(arguments: &Arguments) -> Result<Profile, RpcError> {
    let mut profile = match arguments.text(&["profile"]).filter(|name| !name.is_empty()) {
        None => Profile::v1_2025(),
        Some(name) => Profile::from_name(name).ok_or_else(|| {
            RpcError::wrong(format!(
                "unknown profile {name:?}; known are unixfs-v1-2025 and unixfs-v0-2015"
            ))
        })?,
    };
    let version = match arguments.text(&["cid-version"]) {
        None => None,
        Some("0") => Some(Version::V0),
        Some("1") => Some(Version::V1),
        Some(other) => return Err(RpcError::wrong(format!("unknown CID version: {other}"))),
    };
    if let Some(version) = version {
        profile.version = version;
        profile.raw_leaves = version == Version::V1;
    }
    if let Some(name) = arguments.text(&["hash"]).filter(|name| !name.is_empty()) {
        profile.hash = name.to_ascii_lowercase().parse::<HashKind>()?;
        if profile.hash != HashKind::Sha2_256 {
            if version == Some(Version::V0) {
                return Err(RpcError::wrong("CIDv0 only supports sha2-256"));
            }
            if profile.version == Version::V0 {
                profile.version = Version::V1;
                profile.raw_leaves = true;
            }
        }
    }
    if let Some(raw) = arguments.choice(&["raw-leaves"])? {
        profile.raw_leaves = raw;
    }
    if let Some(text) = arguments
        .text(&["chunker", "s"])
        .filter(|text| !text.is_empty())
    {
        profile.chunker = text
            .parse()
            .map_err(|error: cairn_store::chunk::ChunkerError| {
                RpcError::wrong(error.to_string())
            })?;
    }
    if arguments.flag(&["trickle", "t"])? {
        profile.layout = Layout::Trickle;
    }
    if let Some(width) = arguments.parsed(&["max-file-links"], "a number")? {
        if !(2..=WIDTH_MAX).contains(&width) {
            return Err(RpcError::wrong(format!(
                "max-file-links must be between 2 and {WIDTH_MAX}"
            )));
        }
        profile.width = width;
    }
    Ok(profile)
}

/// `add`.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let options = Options::read(&call.arguments)?;
    let store = match options.target {
        Target::Nowhere => None,
        Target::Kept | Target::Pinned(_) => Some(call.context.writable_store().await?.clone()),
    };
    Ok(Reply::values(move |out| async move {
        let Call {
            context, upload, ..
        } = call;
        let runtime = Handle::current();
        let places = match options.nocopy {
            true => Some(Places::of(&context)?),
            false => None,
        };
        let work = move |entries: &mut dyn Entries| {
            let teller = RefCell::new(Teller::new(&options, out));
            match store {
                None => drop(import(
                    entries,
                    &options,
                    places.as_ref(),
                    Nowhere,
                    &teller,
                )?),
                Some(store) => {
                    let mut writer = store.writer(Keep::Kept);
                    // One thread reads and hashes while another appends.
                    let places = places.as_ref();
                    let (roots, put) = overlapped(&mut writer, |sink| match places {
                        Some(named) if named.are_others_word() => {
                            import(entries, &options, places, Compared(sink), &teller)
                        }
                        _ => import(entries, &options, places, sink, &teller),
                    });
                    let roots = roots?;
                    put?;
                    match &options.target {
                        Target::Pinned(name) => {
                            let cids: Vec<Cid> = roots.iter().map(|root| root.cid).collect();
                            writer.commit_and_pin(&cids, name.as_deref())?;
                            // A followed name may have had it pinned: it is to go with that no more.
                            for cid in cids {
                                let (source, name) = (store.clone(), name.clone());
                                let pin =
                                    context.pin(source, cid, PinMode::Recursive, name, |_| {});
                                runtime.block_on(pin)?;
                            }
                        }
                        Target::Kept | Target::Nowhere => writer.commit()?,
                    }
                }
            }
            teller.into_inner().finish()?;
            Ok(())
        };
        upload.on_thread(work).await
    }))
}

/// Feeds the importer; gives what is at the top.
fn import<S: BlockSink>(
    entries: &mut dyn Entries,
    options: &Options,
    places: Option<&Places>,
    sink: S,
    teller: &RefCell<Teller>,
) -> Result<Vec<Added>, RpcError> {
    let importer = Importer::new(options.profile.clone(), sink, |event| {
        teller.borrow_mut().on_event(event);
    });
    let mut feed = Feed::new(importer);
    if options.wrap == Wrap::InFolder {
        feed.importer.enter(WRAPPER, Metadata::default())?;
    }
    // At the top entries may have any names, or none, or the same, so there it is a number.
    let mut named = |name: &str| match options.wrap {
        Wrap::No => teller.borrow_mut().new_top(name),
        Wrap::InFolder => name.to_owned(),
    };
    let mut empty = true;
    while let Some(entry) = entries.next()? {
        empty = false;
        let Entry {
            path,
            metadata,
            place,
            content,
        } = entry;
        let place = match (&content, places) {
            (Content::File(_), Some(places)) => Some(places.admit(&path, place)?),
            _ => None,
        };
        let metadata = Metadata {
            mode: metadata.mode.or(options.default_metadata.mode),
            mtime: metadata.mtime.or(options.default_metadata.mtime),
        };
        if metadata != Metadata::default() {
            teller.borrow_mut().metadata.insert(path.clone(), metadata);
        }
        if options.wrap == Wrap::InFolder && path.rsplit('/').next() == Some("") {
            return Err(RpcError::wrong(
                "a file without a name cannot be wrapped in a folder; give it one (--stdin-name)",
            ));
        }
        let content = match content {
            Content::File(content) => Content::File(Box::new(Watched { content, teller })),
            other => other,
        };
        feed.take(&path, metadata, place.as_deref(), content, &mut named)?;
        if teller.borrow().out.is_abandoned() {
            return Err(RpcError::reader_gone());
        }
    }
    if empty {
        return Err(RpcError::wrong("file argument 'path' is required"));
    }
    feed.leave_to(0)?;
    if options.wrap == Wrap::InFolder {
        feed.importer.leave()?;
    }
    feed.finish()
}

/// Stops reading when nobody listens any more.
struct Watched<'a> {
    content: Box<dyn Read + 'a>,
    teller: &'a RefCell<Teller>,
}

impl Read for Watched<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.teller.borrow().out.is_abandoned() {
            return Err(io::Error::other("nobody waits for the answer any more"));
        }
        self.content.read(out)
    }
}

/// Tells what was added, the last of it only after the commit.
struct Teller {
    out: Sink,
    wrap: Wrap,
    progress: Progress,
    cids: CidText,
    tops: Vec<String>,
    held: Option<Line>,
    told: u64,
    /// Modes and times of entries that are taken but not told yet, by their paths. The importer
    /// tells files within a batch and folders when they end, so these are few.
    metadata: HashMap<String, Metadata>,
}

impl Teller {
    fn new(options: &Options, out: Sink) -> Self {
        Self {
            out,
            wrap: options.wrap,
            progress: options.progress,
            cids: options.cids,
            tops: Vec::new(),
            held: None,
            told: 0,
            metadata: HashMap::new(),
        }
    }

    fn new_top(&mut self, name: &str) -> String {
        self.tops.push(name.to_owned());
        (self.tops.len() - 1).to_string()
    }

    /// The path as it came; `None` for a file without a name.
    fn shown(&self, path: &str) -> Option<String> {
        let (top, below) = path
            .split_once('/')
            .map_or((path, None), |(top, below)| (top, Some(below)));
        if self.wrap == Wrap::InFolder {
            return Some(below.unwrap_or_default().to_owned());
        }
        let top = top.parse().ok().and_then(|at: usize| self.tops.get(at))?;
        match below {
            Some(below) => Some(format!("{top}/{below}")),
            None => Some(top.clone()).filter(|top| !top.is_empty()),
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Read { path, bytes } => {
                let due = bytes < self.told || bytes - self.told >= PROGRESS_BYTES;
                if self.progress == Progress::Told && due {
                    self.told = bytes;
                    self.out.offer(&Line {
                        name: self.shown(&path).unwrap_or_default(),
                        bytes,
                        ..Line::default()
                    });
                }
            }
            Event::Added(added) => {
                let hash = self.cids.text(&added.cid);
                let name = self.shown(&added.path);
                let metadata = self.metadata.remove(name.as_deref().unwrap_or_default());
                let Metadata { mode, mtime } = metadata.unwrap_or_default();
                let line = Line {
                    name: name.unwrap_or_else(|| hash.clone()),
                    hash,
                    bytes: 0,
                    size: added.size.to_string(),
                    mode: mode.map_or_else(String::new, |mode| format!("{mode:04o}")),
                    mtime: mtime.map(|mtime| mtime.seconds),
                    mtime_nsecs: mtime
                        .map(|mtime| mtime.nanoseconds)
                        .filter(|part| *part > 0),
                };
                if self.progress == Progress::Told && added.kind == Kind::File {
                    self.told = 0;
                }
                if let Some(before) = self.held.replace(line) {
                    // A reader that left is noticed where the next entry is taken.
                    let _ = self.out.blocking_value(&before);
                }
            }
        }
    }

    fn finish(self) -> Result<(), RpcError> {
        match self.held {
            Some(last) => self.out.blocking_value(&last),
            None => Ok(()),
        }
    }
}

/// What the wrapping folder is called while it is made; its name is never told.
const WRAPPER: &str = "wrapper";
/// How many bytes of one file are read between two lines of progress.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Most links of a file's node that may be asked for.
const WIDTH_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Options, RpcError> {
        Options::read(&Arguments::parse(query).unwrap())
    }

    #[test]
    fn the_default_is_the_newest_profile_pinned() {
        let options = read("").unwrap();
        assert_eq!(options.profile, Profile::v1_2025());
        assert_eq!(options.target, Target::Pinned(None));
    }

    #[test]
    fn the_old_version_has_no_raw_leaves_unless_asked_for() {
        let options = read("cid-version=0").unwrap();
        assert_eq!(options.profile.version, Version::V0);
        assert!(!options.profile.raw_leaves);
        assert!(
            read("cid-version=0&raw-leaves=true")
                .unwrap()
                .profile
                .raw_leaves
        );
        assert!(
            !read("cid-version=1&raw-leaves=false")
                .unwrap()
                .profile
                .raw_leaves
        );
    }

    #[test]
    fn another_hash_needs_the_new_version() {
        let options = read("profile=unixfs-v0-2015&hash=blake3").unwrap();
        assert_eq!(options.profile.version, Version::V1);
        assert!(read("cid-version=0&hash=blake3").is_err());
        assert!(read("hash=md5").is_err());
    }

    #[test]
    fn refuses_what_contradicts_itself_or_does_not_exist() {
        assert!(read("pin=false&pin-name=x").is_err());
        assert!(read("profile=unixfs-v9").is_err());
        assert!(read("cid-version=2").is_err());
        assert!(read("nocopy=true&raw-leaves=false").is_err());
        assert!(read("nocopy=false").is_ok());
    }

    #[test]
    fn lines_have_kubos_shape() {
        let line = Line {
            name: "a".to_owned(),
            hash: "bafy".to_owned(),
            bytes: 0,
            size: "5".to_owned(),
            ..Line::default()
        };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(json, r#"{"Name":"a","Hash":"bafy","Size":"5"}"#);
        let progress: Line = serde_json::from_str(r#"{"Name":"a","Bytes":7}"#).unwrap();
        assert_eq!(progress.bytes, 7);
    }
}
