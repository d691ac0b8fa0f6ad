//! `pin ls`: what is pinned, itself or through what lies above it, and what is to be.

mod line;

pub use line::PinLine;

use super::super::api::{Call, resolve_to_block};
use super::super::arguments::CidText;
use super::super::error::RpcError;
use super::super::reply::Reply;
use super::{below, reached_by};
use crate::output::utc;
use cairn_node::pins::Over;
use cairn_node::pins::jobs::{JobState, JobStatus};
use cairn_store::cid::Multihash;
use cairn_store::dag::has_no_links;
use cairn_store::dag::walk::Missing;
use cairn_store::pin::{Expiry, Metadata, Pin, PinMode, PinWish};
use cairn_store::{Cid, Store};
use futures::TryStreamExt;
use line::Teller;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;

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

/// In which states jobs and pins are listed; without any, pins in all of theirs and no jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Statuses(Vec<&'static str>);

impl Statuses {
    fn read<'a>(given: impl Iterator<Item = &'a str>) -> Result<Self, RpcError> {
        let mut all = Vec::new();
        let names = given.flat_map(|text| text.split(',')).map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            let known = STATUSES.into_iter().find(|known| *known == name);
            match (known, name) {
                (Some(known), _) => all.push(known),
                (None, "all") => all.extend(STATUSES),
                (None, _) => {
                    return Err(RpcError::wrong(format!(
                        "invalid status '{name}', must be one of {{{}, all}}, or several with commas between",
                        STATUSES.join(", ")
                    )));
                }
            }
        }
        Ok(Self(all))
    }

    fn is_given(&self) -> bool {
        !self.0.is_empty()
    }

    fn takes_job(&self, state: &JobState) -> bool {
        self.0.contains(&state.name())
    }

    fn takes_jobs(&self) -> bool {
        let of_pin = [PINNED, EXPIRED];
        self.0.iter().any(|name| !of_pin.contains(name))
    }

    fn takes_pin(&self, name: &'static str) -> bool {
        !self.is_given() || self.0.contains(&name)
    }

    fn takes_pins(&self) -> bool {
        self.takes_pin(PINNED) || self.takes_pin(EXPIRED)
    }
}

/// What is listed, and how.
#[derive(Debug, Clone)]
struct Options {
    wanted: Wanted,
    statuses: Statuses,
    /// Which pins wait to be removed.
    over: Option<Over>,
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
        let over = match call.context.store().await?.next_expiry() {
            Some(_) => call.context.follows().await?.over(),
            None => None,
        };
        let long = arguments.flag(&["long", "l"])?;
        Ok(Self {
            wanted: Wanted::read(arguments.text(&["type", "t"]))?,
            statuses: Statuses::read(arguments.each("status"))?,
            over,
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
        !self.statuses.is_given()
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

    fn status(&self, pin: &Pin) -> &'static str {
        match self.over.as_ref().is_some_and(|over| over.has(pin)) {
            true => EXPIRED,
            false => PINNED,
        }
    }

    fn fits_pin(&self, pin: &Pin) -> bool {
        self.statuses.takes_pin(self.status(pin))
            && self.fits(pin.mode, pin.name.as_deref(), &pin.metadata, pin.expires)
    }

    fn fits_job(&self, job: &JobStatus) -> bool {
        let wish = &job.wish;
        let (name, expires) = (wish.name.as_deref(), expires(wish));
        self.statuses.takes_job(&job.state) && self.fits(wish.mode, name, &wish.metadata, expires)
    }

    fn pin(&self, pin: Pin) -> PinLine {
        let status = self.status(&pin);
        // One that stays no longer is told apart, asked or not.
        let is_told = self.statuses.is_given() || status == EXPIRED;
        let mut line = PinLine {
            cid: self.cids.text(&pin.cid),
            name: pin.name.filter(|_| self.names).unwrap_or_default(),
            r#type: pin.mode.name().to_owned(),
            status: is_told.then(|| status.to_owned()),
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
    // An object has each key once: of a pin that is to be changed, what becomes of it.
    let mut told = HashSet::new();
    if options.statuses.takes_jobs() {
        for job in call.context.jobs().await?.list().await {
            if options.fits_job(&job) && (told.insert(job.wish.key()) || teller.stream) {
                teller.tell(&options.job(job)).await?;
            }
        }
    }
    if !options.statuses.takes_pins() {
        return Ok(());
    }
    let mut has_below = false;
    for pin in store.pin_pages() {
        has_below |= pin.mode == PinMode::Recursive && !has_no_links(pin.cid.codec());
        let is_told = !teller.stream && !told.is_empty() && told.contains(&pin.key());
        if !is_told && options.fits_pin(&pin) {
            teller.tell(&options.pin(pin)).await?;
        }
    }
    if has_below && options.wanted.takes_indirect() && options.is_of_type_alone() {
        below_all(call, store, options, teller).await?;
    }
    Ok(())
}

/// Everything below the recursive pins that is not `pinned` itself, once.
async fn below_all(
    call: &Call,
    store: &Store,
    options: &Options,
    teller: &mut Teller,
) -> Result<(), RpcError> {
    let local = call.upkeep_session().await?;
    let mut seen = Seen::default();
    for pin in store.pin_pages() {
        seen.insert(pin.cid.hash());
    }
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
    let jobs = match options.statuses.takes_jobs() {
        true => call.context.jobs().await?.list().await,
        false => Vec::new(),
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
    if !options.statuses.takes_pins() {
        return Ok(None);
    }
    let takes = |pin: &Pin| {
        let status = options.status(pin);
        options.wanted.takes(pin.mode) && options.statuses.takes_pin(status)
    };
    let pinned = store.pin(&cid);
    if let Some(pin) = pinned.filter(takes) {
        return Ok(Some(PinLine {
            cid: cid_text,
            ..options.pin(pin)
        }));
    }
    if !options.wanted.takes_indirect() || !options.statuses.takes_pin(PINNED) {
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

/// The states of pins.
const PINNED: &str = "pinned";
const EXPIRED: &str = "expired";
/// The states of jobs, and those.
const STATUSES: [&str; 6] = ["queued", "fetching", "waiting", "failed", PINNED, EXPIRED];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_refused_with_kubos_text() {
        let error = Wanted::read(Some("x")).unwrap_err();
        assert!(
            error
                .message()
                .ends_with("{direct, indirect, recursive, all}")
        );
        assert_eq!(Wanted::read(None).unwrap(), Wanted::All);
    }

    #[test]
    fn statuses_come_one_by_one_and_with_commas_between() {
        let read = |texts: &[&str]| Statuses::read(texts.iter().copied()).map(|all| all.0);
        assert_eq!(read(&[]).unwrap(), [""; 0]);
        assert_eq!(read(&[""]).unwrap(), [""; 0]);
        let three = ["queued", "failed", "expired"];
        assert_eq!(read(&["queued, failed", "expired"]).unwrap(), three);
        assert_eq!(read(&["all"]).unwrap(), STATUSES);
        let error = read(&["queued", "x"]).unwrap_err();
        assert!(
            error
                .message()
                .starts_with("invalid status 'x', must be one of {queued, ")
        );
    }

    #[test]
    fn what_was_seen_is_known_again() {
        let mut seen = Seen::default();
        let hash = |at: u8| Multihash::wrap(0x12, &[at; 32]).unwrap();
        assert!(seen.insert(&hash(1)) && seen.insert(&hash(2)));
        assert!(!seen.insert(&hash(1)));
    }
}
