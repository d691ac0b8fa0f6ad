//! `pin ls`: what is pinned, itself or through what lies above it, and what is to be.
//!
//! Pins are written straight into pieces of the answer, page by page, since there may be millions.

use super::super::api::{Call, resolve_to_block};
use super::super::arguments::CidText;
use super::super::error::RpcError;
use super::super::reply::{Reply, Sink};
use super::{below, reached_by};
use crate::output::{escape_json, utc};
use cairn_node::pins::jobs::{JobState, JobStatus};
use cairn_store::cid::Multihash;
use cairn_store::dag::has_no_links;
use cairn_store::dag::walk::Missing;
use cairn_store::pin::{Expiry, Metadata, Pin, PinMode, PinWish};
use cairn_store::{Cid, Store};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;

/// A pin in the answer of `pin ls`. Without `stream` the answer is one value, `{"Keys":{CID:{…}}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PinLine {
    /// The CID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cid: String,
    /// The pin's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `recursive`, `direct`, `indirect`, or `indirect through <root>`.
    pub r#type: String,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// From when on it may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What else is said of it.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// `pinned`, or what the job does that is to make it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why it does not get on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In how many seconds it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_seconds: Option<u64>,
    /// Blocks that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocks: Option<u64>,
    /// Their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// How many bytes there are in all, as its first block says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Those of a higher one have their turns first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Whether somebody waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreground: Option<bool>,
}

/// Which pins are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Direct,
    Recursive,
    Indirect,
    All,
}

impl Wanted {
    fn read(name: Option<&str>) -> Result<Self, RpcError> {
        match name {
            None | Some("" | "all") => Ok(Self::All),
            Some("direct") => Ok(Self::Direct),
            Some("recursive") => Ok(Self::Recursive),
            Some("indirect") => Ok(Self::Indirect),
            Some(other) => Err(RpcError::failed(format!(
                "invalid type '{other}', must be one of {{direct, indirect, recursive, all}}"
            ))),
        }
    }

    fn takes(self, mode: PinMode) -> bool {
        match self {
            Self::All => true,
            Self::Direct => mode == PinMode::Direct,
            Self::Recursive => mode == PinMode::Recursive,
            Self::Indirect => false,
        }
    }

    fn takes_indirect(self) -> bool {
        matches!(self, Self::All | Self::Indirect)
    }
}

/// In which states jobs are listed, and whether pins are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    All,
    Pinned,
    /// Of a job.
    Only(&'static str),
}

impl Status {
    fn read(name: Option<&str>) -> Result<Option<Self>, RpcError> {
        Ok(Some(match name {
            None | Some("") => return Ok(None),
            Some("all") => Self::All,
            Some("pinned") => Self::Pinned,
            Some("queued") => Self::Only("queued"),
            Some("fetching") => Self::Only("fetching"),
            Some("waiting") => Self::Only("waiting"),
            Some("failed") => Self::Only("failed"),
            Some(other) => {
                return Err(RpcError::wrong(format!(
                    "invalid status '{other}', must be one of {{queued, fetching, waiting, pinned, failed, all}}"
                )));
            }
        }))
    }

    fn takes(self, state: &JobState) -> bool {
        match self {
            Self::All => true,
            Self::Pinned => false,
            Self::Only(name) => state.name() == name,
        }
    }
}

/// What is listed, and how.
#[derive(Debug, Clone)]
struct Options {
    wanted: Wanted,
    status: Option<Status>,
    name: Option<String>,
    metadata: Metadata,
    /// Only what expires before this second.
    expires_before: Option<u64>,
    names: bool,
    long: bool,
    cids: CidText,
}

impl Options {
    async fn read(call: &Call) -> Result<Self, RpcError> {
        let arguments = &call.arguments;
        let name = arguments.text(&["name", "n"]);
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        let metadata = super::metadata(arguments)?;
        let expires_before = match arguments.duration(&["expires-before"])? {
            Some(after) => Some(call.context.follows().await?.expiry_after(after)?),
            None => None,
        };
        let long = arguments.flag(&["long", "l"])?;
        Ok(Self {
            wanted: Wanted::read(arguments.text(&["type", "t"]))?,
            status: Status::read(arguments.text(&["status"]))?,
            names: arguments.flag(&["names"])? || name.is_some() || long,
            name,
            metadata,
            expires_before,
            long,
            cids: arguments.cids()?,
        })
    }

    /// Whether everything is wanted that is pinned in such a way.
    fn is_of_type_alone(&self) -> bool {
        self.status.is_none()
            && self.name.is_none()
            && self.metadata.is_empty()
            && self.expires_before.is_none()
    }

    fn fits(
        &self,
        mode: PinMode,
        name: Option<&str>,
        metadata: &Metadata,
        expires: Option<u64>,
    ) -> bool {
        let has = |(key, value): (&String, &String)| metadata.get(key) == Some(value);
        self.wanted.takes(mode)
            && (self.name.as_deref())
                .is_none_or(|part| name.is_some_and(|name| name.contains(part)))
            && self.metadata.iter().all(has)
            && (self.expires_before).is_none_or(|before| expires.is_some_and(|at| at < before))
    }

    fn fits_pin(&self, pin: &Pin) -> bool {
        self.fits(pin.mode, pin.name.as_deref(), &pin.metadata, pin.expires)
    }

    fn fits_job(&self, job: &JobStatus) -> bool {
        let wish = &job.wish;
        let (name, expires) = (wish.name.as_deref(), expires(wish));
        self.status.is_some_and(|status| status.takes(&job.state))
            && self.fits(wish.mode, name, &wish.metadata, expires)
    }

    fn pin(&self, pin: Pin) -> PinLine {
        let mut line = PinLine {
            cid: self.cids.text(&pin.cid),
            name: pin.name.filter(|_| self.names).unwrap_or_default(),
            r#type: pin.mode.name().to_owned(),
            status: self.status.map(|_| "pinned".to_owned()),
            ..PinLine::default()
        };
        if self.long {
            line.created = pin.created.map(utc);
            line.expires = pin.expires.map(utc);
            line.metadata = pin.metadata;
        }
        line
    }

    fn job(&self, job: JobStatus) -> PinLine {
        let wish = job.wish;
        let mut line = PinLine {
            cid: self.cids.text(&wish.cid),
            r#type: wish.mode.name().to_owned(),
            status: Some(job.state.name().to_owned()),
            reason: job.state.why().map(str::to_owned),
            blocks: Some(job.progress.blocks),
            bytes: Some(job.progress.bytes),
            total: job.progress.total,
            priority: Some(job.priority),
            foreground: job.is_foreground.then_some(true),
            retry_seconds: match &job.state {
                JobState::Waiting { left, .. } => Some(left.as_secs()),
                _ => None,
            },
            ..PinLine::default()
        };
        if self.long {
            line.expires = expires(&wish).map(utc);
            line.metadata = wish.metadata;
        }
        // Of a job it is the only way to tell it apart.
        line.name = wish.name.unwrap_or_default();
        line
    }
}

fn expires(wish: &PinWish) -> Option<u64> {
    match wish.expiry {
        Expiry::At(at) => Some(at),
        Expiry::Never | Expiry::AsItWas => None,
    }
}

/// `pin ls`.
pub async fn list(call: Call) -> Result<Reply, RpcError> {
    let options = Options::read(&call).await?;
    let stream = call.arguments.flag(&["stream", "s"])?;
    let store = call.context.store().await?.clone();
    Ok(Reply::values(move |out| async move {
        let mut teller = Teller::new(out, stream);
        if call.arguments.all().is_empty() {
            all(&call, &store, &options, &mut teller).await?;
        } else {
            asked_for(&call, &store, &options, &mut teller).await?;
        }
        teller.finish().await
    }))
}

/// Everything that fits.
async fn all(
    call: &Call,
    store: &Store,
    options: &Options,
    teller: &mut Teller,
) -> Result<(), RpcError> {
    if options
        .status
        .is_some_and(|status| status != Status::Pinned)
    {
        for job in call.context.jobs().await?.list().await {
            if options.fits_job(&job) {
                teller.tell(&options.job(job)).await?;
            }
        }
    }
    if matches!(options.status, Some(Status::Only(_))) {
        return Ok(());
    }
    let mut pinned = Seen::default();
    let mut has_below = false;
    let indirect = options.wanted.takes_indirect() && options.is_of_type_alone();
    for pin in store.pin_pages() {
        if indirect {
            pinned.insert(pin.cid.hash());
            has_below |= pin.mode == PinMode::Recursive && !has_no_links(pin.cid.codec());
        }
        if options.fits_pin(&pin) {
            teller.tell(&options.pin(pin)).await?;
        }
    }
    if has_below {
        below_all(call, store, options, pinned, teller).await?;
    }
    Ok(())
}

/// Everything below the recursive pins that is not `pinned` itself, once.
async fn below_all(
    call: &Call,
    store: &Store,
    options: &Options,
    pinned: Seen,
    teller: &mut Teller,
) -> Result<(), RpcError> {
    let local = call.upkeep_session().await?;
    let mut seen = pinned;
    for pin in store.pin_pages() {
        if pin.mode != PinMode::Recursive || has_no_links(pin.cid.codec()) {
            continue;
        }
        let mut below = pin!(below(&local, pin.cid, Missing::Tell));
        while let Some(cid) = below.try_next().await? {
            if seen.insert(cid.hash()) {
                let line = PinLine {
                    cid: options.cids.text(&cid),
                    r#type: "indirect".to_owned(),
                    ..PinLine::default()
                };
                teller.tell(&line).await?;
            }
        }
    }
    Ok(())
}

/// How each of the arguments is pinned, or is to be; one that is not is an error.
async fn asked_for(
    call: &Call,
    store: &Store,
    options: &Options,
    teller: &mut Teller,
) -> Result<(), RpcError> {
    let session = call.session().await?;
    let local = call.upkeep_session().await?;
    let jobs = match options.status {
        Some(_) => call.context.jobs().await?.list().await,
        None => Vec::new(),
    };
    let mut told = HashSet::new();
    let texts = call.arguments.all();
    for (text, path) in texts.into_iter().zip(call.paths("arg").await?) {
        let cid = resolve_to_block(&session, &path).await?;
        // An object has each key once.
        if !teller.stream && !told.insert(cid) {
            continue;
        }
        // Tools look for the end of this text.
        let line = line_of(store, &local, options, &jobs, cid).await?;
        let line = line.ok_or_else(|| RpcError::failed(format!("path '{text}' is not pinned")))?;
        teller.tell(&line).await?;
    }
    Ok(())
}

async fn line_of(
    store: &Store,
    local: &cairn_node::Session,
    options: &Options,
    jobs: &[JobStatus],
    cid: Cid,
) -> Result<Option<PinLine>, RpcError> {
    let cid_text = options.cids.text(&cid);
    let key = PinWish::new(cid, PinMode::Recursive).key();
    let job = jobs.iter().find(|job| job.wish.key() == key);
    if let Some(job) = job.filter(|job| options.fits_job(job)) {
        return Ok(Some(PinLine {
            cid: cid_text,
            ..options.job(job.clone())
        }));
    }
    if matches!(options.status, Some(Status::Only(_))) {
        return Ok(None);
    }
    let pinned = store.pin(&cid);
    if let Some(pin) = pinned.filter(|pin| options.wanted.takes(pin.mode)) {
        return Ok(Some(PinLine {
            cid: cid_text,
            ..options.pin(pin)
        }));
    }
    if !options.wanted.takes_indirect() {
        return Ok(None);
    }
    let reached = reached_by(store, local, &[cid]).await?;
    let how = reached.get(cid.hash());
    Ok(how
        .filter(|how| how.starts_with("indirect"))
        .map(|how| PinLine {
            cid: cid_text,
            r#type: how.clone(),
            ..PinLine::default()
        }))
}

/// Blocks that were seen, each by 16 bytes of a keyed hash: nobody can make two that are taken for one.
#[derive(Default)]
struct Seen {
    hashes: HashSet<u128>,
    keys: [RandomState; 2],
}

impl Seen {
    /// True if it was not seen before.
    fn insert(&mut self, hash: &Multihash) -> bool {
        let [high, low] = &self.keys;
        let digest = (hash.code(), hash.digest());
        let (high, low) = (high.hash_one(digest), low.hash_one(digest));
        self.hashes.insert(u128::from(high) << 64 | u128::from(low))
    }
}

/// Line by line, or one value; in either case in pieces.
struct Teller {
    out: Sink,
    stream: bool,
    piece: Vec<u8>,
    is_first: bool,
}

impl Teller {
    fn new(out: Sink, stream: bool) -> Self {
        let mut piece = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 4);
        if !stream {
            piece.extend_from_slice(b"{\"Keys\":{");
        }
        Self {
            out,
            stream,
            piece,
            is_first: true,
        }
    }

    async fn tell(&mut self, line: &PinLine) -> Result<(), RpcError> {
        write_line(&mut self.piece, line, self.stream, self.is_first)?;
        self.is_first = false;
        if self.piece.len() >= PIECE_BYTES {
            let next = Vec::with_capacity(self.piece.capacity());
            let piece = std::mem::replace(&mut self.piece, next);
            self.out.bytes(piece.into()).await?;
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<(), RpcError> {
        if !self.stream {
            self.piece.extend_from_slice(b"}}\n");
        }
        if self.piece.is_empty() {
            return Ok(());
        }
        self.out.bytes(self.piece.into()).await
    }
}

/// Writes a pin as a line, or as a key with its value.
fn write_line(
    into: &mut Vec<u8>,
    line: &PinLine,
    stream: bool,
    is_first: bool,
) -> Result<(), RpcError> {
    if stream {
        if is_plain(line) {
            serde_json::to_writer(&mut *into, line)?;
        } else {
            into.extend_from_slice(escape_json(serde_json::to_string(line)?).as_bytes());
        }
        into.push(b'\n');
        return Ok(());
    }
    if !is_first {
        into.push(b',');
    }
    serde_json::to_writer(&mut *into, &line.cid)?;
    into.push(b':');
    // Kubo tells here the name of those that have none, too.
    let value = PinType {
        r#type: &line.r#type,
        name: &line.name,
        more: PinLine {
            cid: String::new(),
            name: String::new(),
            r#type: String::new(),
            ..line.clone()
        },
    };
    into.extend_from_slice(escape_json(value.text()?).as_bytes());
    Ok(())
}

/// Whether nothing in it is somebody's words.
fn is_plain(line: &PinLine) -> bool {
    line.name.is_empty() && line.metadata.is_empty() && line.reason.is_none()
}

/// How a CID is pinned, below its key.
struct PinType<'a> {
    r#type: &'a str,
    name: &'a str,
    more: PinLine,
}

impl PinType<'_> {
    fn text(&self) -> Result<String, RpcError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct First<'a> {
            r#type: &'a str,
            name: &'a str,
        }
        let first = First {
            r#type: self.r#type,
            name: self.name,
        };
        let mut text = serde_json::to_string(&first)?;
        // Behind them whatever else is known; the type it begins with has been told.
        let more = serde_json::to_string(&self.more)?;
        let told = "{\"Type\":\"\"";
        if let Some(rest) = more.strip_prefix(told).filter(|rest| *rest != "}") {
            text.pop();
            text.push_str(rest);
        }
        Ok(text)
    }
}

/// So much of an answer is handed over at a time.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[PinLine], stream: bool) -> String {
        let mut text = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            write_line(&mut text, line, stream, at == 0).unwrap();
        }
        String::from_utf8(text).unwrap()
    }

    fn line(cid: &str, kind: &str) -> PinLine {
        PinLine {
            cid: cid.to_owned(),
            r#type: kind.to_owned(),
            ..PinLine::default()
        }
    }

    #[test]
    fn answers_have_kubos_shape() {
        let named = PinLine {
            name: "a\u{202e}b".to_owned(),
            ..line("bafy", "recursive")
        };
        let lines = [named, line("bafk", "direct")];
        assert_eq!(
            text(&lines, true),
            "{\"Cid\":\"bafy\",\"Name\":\"a\\u202eb\",\"Type\":\"recursive\"}\n{\"Cid\":\"bafk\",\"Type\":\"direct\"}\n"
        );
        assert_eq!(
            text(&lines, false),
            r#""bafy":{"Type":"recursive","Name":"a\u202eb"},"bafk":{"Type":"direct","Name":""}"#
        );
    }

    #[test]
    fn what_else_is_known_stands_behind_that() {
        let full = PinLine {
            created: Some(utc(1_700_000_000)),
            metadata: Metadata::from([("key".to_owned(), "value".to_owned())]),
            status: Some("pinned".to_owned()),
            ..line("bafy", "recursive")
        };
        assert_eq!(
            text(&[full], false),
            r#""bafy":{"Type":"recursive","Name":"","Created":"2023-11-14T22:13:20Z","Metadata":{"key":"value"},"Status":"pinned"}"#
        );
    }

    #[test]
    fn an_unknown_type_is_refused_with_kubos_text() {
        let error = Wanted::read(Some("x")).unwrap_err();
        assert!(
            error
                .message()
                .ends_with("{direct, indirect, recursive, all}")
        );
        assert_eq!(Wanted::read(None).unwrap(), Wanted::All);
        assert!(Status::read(Some("x")).is_err());
        assert_eq!(Status::read(None).unwrap(), None);
    }

    #[test]
    fn what_was_seen_is_known_again() {
        let mut seen = Seen::default();
        let hash = |at: u8| Multihash::wrap(0x12, &[at; 32]).unwrap();
        assert!(seen.insert(&hash(1)) && seen.insert(&hash(2)));
        assert!(!seen.insert(&hash(1)));
    }
}
