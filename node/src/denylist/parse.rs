//! A line of a list, read: what it names, and whether that is denied or allowed. And the header before the lines.
//!
//! What cannot be read is an error with its reason and never a guess: a rule that means something else than what its
//! author meant is worse than none that is reported.

use super::Grounds;
use crate::ipns;
use crate::name::domain::{Domain, NoDomain};
use cairn_store::cid::{self, Cid, CidError, HashKind, Multihash};
use cairn_store::dag::path::segments;
use multibase::Base;
use saphyr_parser::{Event, Parser};
use std::borrow::Cow;
use std::sync::LazyLock;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// What it is about: more than one thing where its text can be read in two ways.
    pub(super) targets: Vec<Target>,
    pub(super) effect: Effect,
    /// Why it is denied, if the line says so.
    pub(super) grounds: Option<Grounds>,
}

/// What comes of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Deny,
    Allow,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// A path from a root.
    Path(Root, Pattern),
    /// Whatever has a name that hashes to this, in today's form.
    Modern(HashKind, Multihash),
    /// The same in the old form.
    Legacy(Multihash),
}

/// Where the path of a rule begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Root {
    /// Content, whatever its codec.
    Content(Multihash),
    /// The name of a key, however it is written.
    Key(Multihash),
    /// A domain.
    Domain(Domain),
}

/// Which paths below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// This one; empty for the root itself.
    Exactly(String),
    /// All that begin so; empty for all, the root itself among them.
    Prefix(String),
}

/// Why a line is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineError {
    #[error("it is not UTF-8")]
    Text,
    #[error("it is longer than {LINE_BYTES_MAX} bytes")]
    Long,
    #[error("it begins with none of /ipfs/, /ipld/, /ipns/ and //")]
    Kind,
    #[error(transparent)]
    Content(CidError),
    #[error("what stands after /ipns/ is neither a key nor a domain: {0}")]
    Name(NoDomain),
    #[error("its path is not percent-encoded as in a URL: {0}")]
    Encoding(&'static str),
    #[error("its path is none: {0}")]
    Path(&'static str),
    #[error(
        "what stands after // is neither a multihash in base58 (sha2-256, sha2-512, blake3, blake2b-256 or another that CIDs may use) nor a \
         SHA-256 in hexadecimal"
    )]
    Hash,
    #[error("it names an empty block or folder, which half of everything has in it")]
    Empty,
    #[error("there are more rules than fit: {RULES_MAX} in all lists together")]
    Full,
    #[error("its list has prefixes of too many lengths already")]
    Lengths,
    #[error(
        "it and what follows lie beyond the {BYTES_MAX} bytes that are read of all lists together"
    )]
    Beyond,
}

/// Reads a line; `None` if there is no rule on it.
pub(super) fn rule(line: &[u8]) -> Result<Option<Rule>, LineError> {
    let line = std::str::from_utf8(line).map_err(|_| LineError::Text)?;
    let line = line.trim();
    if line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else {
        return Ok(None);
    };
    let (item, effect) = match word.strip_prefix('!') {
        Some(item) => (item, Effect::Allow),
        None => (word, Effect::Deny),
    };
    let mut grounds = None;
    for hint in words {
        // The format says `key:value`; lists written for nopfs have `key=value`.
        if let Some((key, value)) = hint.split_once([':', '=']) {
            grounds = grounds_of(key, value).or(grounds);
        }
    }
    Ok(Some(Rule {
        targets: targets(item)?,
        effect,
        grounds,
    }))
}

/// What a hint says of the grounds, if it is about them.
pub(super) fn grounds_of(key: &str, value: &str) -> Option<Grounds> {
    match (key, value) {
        ("status" | "gateway_status", "451") | ("reason", "legal") => Some(Grounds::Legal),
        ("status" | "gateway_status", "410") => Some(Grounds::Policy),
        _ => None,
    }
}

fn targets(item: &str) -> Result<Vec<Target>, LineError> {
    if let Some(hash) = item.strip_prefix("//") {
        return hashed(hash);
    }
    let content = ["/ipfs/", "/ipld/"];
    if let Some(below) = content.iter().find_map(|start| item.strip_prefix(start)) {
        let (root, path) = below.split_once('/').unwrap_or((below, ""));
        // Whatever its hash: also what cannot be had here may be named.
        let root = cid::parse_link(root).map_err(LineError::Content)?;
        if is_empty(&root) {
            return Err(LineError::Empty);
        }
        return Ok(vec![Target::Path(
            Root::Content(*root.hash()),
            pattern(path)?,
        )]);
    }
    let Some(below) = item.strip_prefix("/ipns/") else {
        return Err(LineError::Kind);
    };
    let (name, path) = below.split_once('/').unwrap_or((below, ""));
    Ok(vec![Target::Path(name_root(name)?, pattern(path)?)])
}

fn name_root(name: &str) -> Result<Root, LineError> {
    // Reading base58 takes time that grows with the square of its length.
    if name.len() <= HASH_TEXT_BYTES_MAX {
        if let Some(key) = ipns::name(name).as_ref().and_then(ipns::cid) {
            return Ok(Root::Key(*key.hash()));
        }
        if let Ok(cid) = cid::parse_link(name) {
            return Ok(Root::Key(*cid.hash()));
        }
    }
    let domain: Domain = name.parse().map_err(LineError::Name)?;
    Ok(Root::Domain(whole(&domain).into_owned()))
}

/// The domain that one is about which may have been made a label of a gateway's subdomain: those have no dots.
pub(super) fn whole(domain: &Domain) -> Cow<'_, Domain> {
    let label = domain.is_single();
    match label.then(|| Domain::from_label(domain.as_str())) {
        Some(Ok(whole)) => Cow::Owned(whole),
        _ => Cow::Borrowed(domain),
    }
}

fn pattern(text: &str) -> Result<Pattern, LineError> {
    // Before it is decoded: a `%2A` at the end is a star of the name.
    let (text, is_prefix) = match text.strip_suffix('*') {
        Some(start) => (start, true),
        None => (text, false),
    };
    let text = decoded(text)?;
    if text.contains('\0') {
        return Err(LineError::Path("it contains NUL"));
    }
    let read = |text: &str| {
        let names = segments(text.split('/')).map_err(LineError::Path)?;
        Ok(names.join("/"))
    };
    if !is_prefix {
        return read(&text).map(Pattern::Exactly);
    }
    // The last name is the beginning of one: `.*` is about all that begin with a dot.
    let (above, start) = text.rsplit_once('/').unwrap_or(("", &text));
    let mut path = read(above)?;
    if !path.is_empty() && !start.is_empty() {
        path.push('/');
    }
    path.push_str(start);
    Ok(Pattern::Prefix(path))
}

fn decoded(text: &str) -> Result<Cow<'_, str>, LineError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let digit = |byte: Option<u8>| {
        let digit = byte.and_then(|byte| char::from(byte).to_digit(16));
        let digit = digit.and_then(|digit| u8::try_from(digit).ok());
        digit.ok_or(LineError::Encoding(
            "a % is not followed by two hexadecimal digits",
        ))
    };
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            other => other,
        });
    }
    let out = String::from_utf8(out);
    out.map(Cow::Owned)
        .map_err(|_| LineError::Encoding("it is not UTF-8"))
}

/// A text that can be read as a multihash and as hexadecimal is both.
fn hashed(text: &str) -> Result<Vec<Target>, LineError> {
    let mut targets = Vec::new();
    if text.len() <= HASH_TEXT_BYTES_MAX
        && let Ok(bytes) = Base::Base58Btc.decode(text)
        && let Ok(hash) = Multihash::from_bytes(&bytes)
        && let Some(kind) = HashKind::from_code(hash.code())
        && kind.digest_bytes() == Some(hash.digest().len())
    {
        targets.push(Target::Modern(kind, hash));
    }
    let hex = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
    if text.len() == SHA256_HEX_BYTES
        && let Ok(digest) = hex
        && let Ok(hash) = Multihash::wrap(HashKind::Sha2_256.code(), &digest)
    {
        targets.push(Target::Legacy(hash));
    }
    match targets.is_empty() {
        true => Err(LineError::Hash),
        false => Ok(targets),
    }
}

/// Whether a rule names what is in nearly everything: to deny it would break whatever has it.
fn is_empty(root: &Cid) -> bool {
    static HASHES: LazyLock<Vec<Multihash>> = LazyLock::new(|| {
        let read = EMPTY.iter().filter_map(|text| cid::parse_link(text).ok());
        read.map(|cid| *cid.hash()).collect()
    });
    HASHES.contains(root.hash())
}

/// What a list says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Option<String>,
    /// Why what it names is denied, where a line does not say.
    pub(super) grounds: Option<Grounds>,
}

/// Why a list is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("its header, before the line ---, is not UTF-8")]
    Text,
    #[error("its header, before the line ---, is no YAML: {0}")]
    Yaml(String),
    #[error("its header, before the line ---, is no table of names and values")]
    Form,
    #[error("its header is nested more than {DEPTH_MAX} deep")]
    Deep,
    #[error("it is of the version {0:?}, and only 1 is understood")]
    Version(String),
}

/// Reads a header. Fields that are not known are left alone, as the format wants it.
pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::Text)?;
    let mut header = Header::default();
    let mut at = Place::default();
    // Events come one at a time and aliases are not followed, so a small text makes no large one.
    for event in Parser::new_from_str(text) {
        let (event, _) = event.map_err(|error| HeaderError::Yaml(shortened(&error.to_string())))?;
        match event {
            Event::MappingStart(..) => at.open(Kind::Table)?,
            Event::SequenceStart(..) => at.open(Kind::List)?,
            Event::MappingEnd | Event::SequenceEnd => at.close(),
            Event::Alias(_) => {
                at.pass(None)?;
            }
            Event::Scalar(value, ..) => {
                if let Some(path) = at.pass(Some(&value))? {
                    header.take(path, &value)?;
                }
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
    }
    Ok(header)
}

impl Header {
    fn take(&mut self, path: (&str, Option<&str>), value: &str) -> Result<(), HeaderError> {
        match path {
            ("version", None) if value.trim() != VERSION => {
                return Err(HeaderError::Version(shortened(value)));
            }
            ("name", None) => self.name = Some(shortened(value)),
            ("hints", Some(key)) => self.grounds = grounds_of(key, value).or(self.grounds),
            _ => {}
        }
        Ok(())
    }
}

/// Where in a header the reader is.
#[derive(Debug, Default)]
struct Place {
    frames: Vec<Frame>,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    /// In a table: the name whose value comes next.
    key: Option<String>,
    /// In a table: whether a value comes next.
    is_value: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    List,
}

impl Place {
    fn open(&mut self, kind: Kind) -> Result<(), HeaderError> {
        if self.frames.is_empty() && kind != Kind::Table {
            return Err(HeaderError::Form);
        }
        if self.frames.len() >= DEPTH_MAX {
            return Err(HeaderError::Deep);
        }
        self.frames.push(Frame {
            kind,
            key: None,
            is_value: false,
        });
        Ok(())
    }

    fn close(&mut self) {
        self.frames.pop();
        // It was a name that is no text, or a value.
        if let Some(outer) = self.frames.last_mut() {
            outer.is_value = !outer.is_value;
        }
    }

    /// Passes a scalar. Where it is a value of the table or of a table in it: under which names.
    fn pass(&mut self, text: Option<&str>) -> Result<Option<(&str, Option<&str>)>, HeaderError> {
        let Some(last) = self.frames.last_mut() else {
            // An empty document is one empty scalar.
            return match text {
                None | Some("" | "~" | "null") => Ok(None),
                Some(_) => Err(HeaderError::Form),
            };
        };
        if last.kind == Kind::List {
            return Ok(None);
        }
        last.is_value = !last.is_value;
        if last.is_value {
            last.key = text.map(str::to_owned);
            return Ok(None);
        }
        Ok(match self.frames.as_slice() {
            [only] => only.key.as_deref().map(|key| (key, None)),
            [outer, inner] if outer.is_value && inner.kind == Kind::Table => {
                let keys = (outer.key.as_deref(), inner.key.as_deref());
                match keys {
                    (Some(outer), Some(inner)) => Some((outer, Some(inner))),
                    _ => None,
                }
            }
            _ => None,
        })
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

/// The version of the format that is read.
const VERSION: &str = "1";
/// Most bytes of a line, its end included, as the format has it.
pub(super) const LINE_BYTES_MAX: usize = 2 << 20;
/// Most bytes of a header, as the format has it. What has no end by then is no header.
pub(super) const HEADER_BYTES_MAX: usize = 1 << 20;
/// Most bytes of all lists together. The lines of each can then be counted in 30 bits.
pub(super) const BYTES_MAX: u64 = 1 << 30;
/// Most rules in all lists together, 20 bytes each in a table that is at least half full: 45 at most.
pub(super) const RULES_MAX: usize = 2_000_000;
/// How deep a header may be nested: nothing that is read lies deeper than two.
const DEPTH_MAX: usize = 32;
/// Longest text that is read as a hash or a key: 64 bytes of a digest in base 2, its least dense encoding, with its
/// codes.
const HASH_TEXT_BYTES_MAX: usize = 600;
const SHA256_HEX_BYTES: usize = 64;
/// How much of a foreign text is kept to be shown.
const SHOWN_CHARS_MAX: usize = 100;
/// Empty blocks and folders of every codec, as nopfs has them too.
const EMPTY: [&str; 7] = [
    "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
    "bafyaabakaieac",
    "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    "bafkqaaa",
    "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
    "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua",
    "baguqeeraiqjw7i2vwntyuekgvulpp2det2kpwt6cd7tx5ayqybqpmhfk76fa",
];
