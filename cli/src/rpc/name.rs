//! `name`: what names point at, published and resolved; and records of names as they are.

use super::api::{Call, resolve_path};
use super::arguments::base_from_name;
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::ipns::{self, Look, Readers, Record};
use cairn_node::name::publish::{PublishError, Published, Wish};
use cairn_node::name::resolve::How;
use cairn_node::routing::RoutingError;
use cairn_node::{Keypair, PeerId};
use cairn_store::Cid;
use cairn_store::cid::{LIBP2P_KEY, Multihash};
use cairn_store::dag::path::ContentPath;
use data_encoding::{BASE64, HEXLOWER};
use futures::StreamExt;
use multibase::Base;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NameAnswer {
    /// The name.
    pub name: String,
    /// What it points at.
    pub value: String,
}

/// What a name points at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PathAnswer {
    /// The path.
    pub path: String,
}

/// How names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameText {
    /// As a CID of a key, in this base.
    Cid(Base),
    /// As peer IDs are: the multihash in base58.
    Multihash,
}

impl NameText {
    /// What `ipns-base` asks for.
    pub fn of(call: &Call) -> Result<Self, RpcError> {
        match call.arguments.text(&["ipns-base"]) {
            None | Some("") => Ok(Self::Cid(Base::Base36Lower)),
            Some("b58mh") => Ok(Self::Multihash),
            Some(name) => base_from_name(name).map(Self::Cid),
        }
    }

    /// The text of a name.
    pub fn text(self, name: &PeerId) -> String {
        let Self::Cid(base) = self else {
            return name.to_string();
        };
        let hash = Multihash::from_bytes(&name.to_bytes());
        let text = hash.map(|hash| Cid::new_v1(LIBP2P_KEY, hash).to_string_of_base(base));
        match text {
            Ok(Ok(text)) => text,
            _ => name.to_string(),
        }
    }
}

/// A name in any of its forms, with `/ipns/` or without.
fn name_of(text: &str) -> Result<PeerId, RpcError> {
    let bare = text.strip_prefix("/ipns/").unwrap_or(text);
    ipns::name(bare).ok_or_else(|| {
        RpcError::wrong(format!(
            "{text:?} is no IPNS name; names look like k51qzi5u…, 12D3KooW… or Qm…, with /ipns/ before them or without"
        ))
    })
}

/// `name publish`.
pub async fn publish(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let text = NameText::of(&call)?;
    let value = path_of(arguments.first("ipfs-path")?)?;
    let v1 = arguments.choice(&["v1compat"])?.unwrap_or(true);
    let wish = Wish {
        value: value.clone(),
        lifetime: arguments.duration(&["lifetime", "t"])?.unwrap_or(LIFETIME),
        ttl: arguments.duration(&["ttl"])?.unwrap_or(TTL),
        sequence: arguments.parsed(&["sequence"], "a number")?,
        readers: if v1 { Readers::All } else { Readers::V2 },
    };
    let may_be_offline = arguments.flag(&["allow-offline"])?;
    let keys = signer(&call).await?;
    let names = call.context.names().await?;
    if !names.is_online() && !may_be_offline {
        return Err(RpcError::failed(
            "without a running daemon nobody is told of the record; run 'cairn daemon' first, or add --allow-offline \
             to sign it now and have it told when the daemon runs",
        ));
    }
    if arguments.choice(&["resolve"])?.unwrap_or(true)
        && let Ok(path) = ContentPath::from_str(&value)
    {
        let session = call.session_that_tells().await?;
        resolve_path(&session, &path).await.map_err(|error| {
            RpcError::failed(format!(
                "{value} is not there to be pointed at ({error}); --resolve=false publishes it all the same"
            ))
        })?;
    }
    let published = names.publish(&keys, &wish).await?;
    told(&published, may_be_offline)?;
    Reply::value(&NameAnswer {
        name: text.text(&PeerId::from(keys.public())),
        value,
    })
}

/// Whether others took it.
fn told(published: &Published, may_be_offline: bool) -> Result<(), RpcError> {
    match &published.took {
        Some(Err(error)) if !may_be_offline => Err(RpcError::failed(format!(
            "the record is signed and kept here as number {}, and told to others again later; so far nobody took it: {error}",
            published.record.sequence()
        ))),
        _ => Ok(()),
    }
}

/// The key that signs.
async fn signer(call: &Call) -> Result<Keypair, RpcError> {
    let name = call.arguments.text(&["key", "k"]).unwrap_or(OWN);
    call.context.key(name).await
}

/// A path that a name may point at, as it is signed.
fn path_of(text: &str) -> Result<String, RpcError> {
    if let Ok(path) = ContentPath::from_str(text) {
        return Ok(path.to_string());
    }
    match text
        .strip_prefix("/ipns/")
        .or_else(|| text.strip_prefix("ipns://"))
    {
        Some(rest) if !rest.is_empty() => Ok(format!("/ipns/{rest}")),
        _ => Err(RpcError::wrong(format!(
            "{text:?} is no path that a name can point at; write /ipfs/CID or /ipns/NAME, with a path below it if need be"
        ))),
    }
}

/// `name resolve`.
pub async fn resolve(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let own;
    let name = match arguments.all().first() {
        Some(text) => name_of(text)?,
        None => {
            own = call.context.identity().await?.peer_id;
            own
        }
    };
    let how = How {
        anew: arguments.flag(&["nocache", "n"])?,
    };
    let streams = arguments.flag(&["stream", "s"])?;
    let names = call.context.names().await?;
    Ok(Reply::values(move |out| async move {
        let mut found = std::pin::pin!(names.resolve_each(&name, how));
        while let Some(record) = found.next().await {
            let path = String::from_utf8_lossy(record?.value()).into_owned();
            out.value(&PathAnswer { path }).await?;
            if !streams {
                break;
            }
        }
        Ok(())
    }))
}

/// `name get`: the record as it is.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    let names = call.context.names().await?;
    let record = names.resolve(&name, How::default()).await?;
    let bytes = record.bytes().to_vec();
    let length = Some(bytes.len() as u64);
    Ok(Reply::bytes(RECORD_MEDIA, length, move |out| async move {
        out.bytes(bytes.into()).await
    }))
}

/// `name put`: somebody else's record, taken in and told to others.
pub async fn put(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    let may_be_offline = call.arguments.flag(&["allow-offline"])?;
    let force = call.arguments.flag(&["force", "f"])?;
    let names = call.context.names().await?;
    let bytes = call.upload.on_thread(read_record).await?;
    let record = Record::valid(&name, &bytes, SystemTime::now())
        .map_err(|error| RpcError::failed(format!("not a record of this name: {error}")))?;
    if let Some(known) = names.known(&name)
        && !force
        && record.age(&known).is_lt()
    {
        return Err(RpcError::failed(format!(
            "a newer record of this name is known: its number is {}, this one's {}; --force puts it all the same",
            known.sequence(),
            record.sequence()
        )));
    }
    names.take_in(&name, &record);
    match names.tell(&name, &record).await {
        None if !may_be_offline => Err(RpcError::failed(
            "without a running daemon nobody is told of the record; run 'cairn daemon' first",
        )),
        Some(Err(error)) if !may_be_offline => Err(error.into()),
        _ => Ok(Reply::Empty),
    }
}

/// What stands in a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InspectAnswer {
    /// What it says.
    pub entry: Entry,
    /// How many bytes it has.
    pub pb_size: usize,
    /// Which signatures it has: `V1`, `V2`, `V1+V2`, or none.
    pub signature_type: String,
    /// Its bytes; empty unless they were asked for.
    pub hex_dump: String,
    /// Whether it is valid for the name that was asked about.
    pub validation: Option<Validation>,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// What the name points at.
    pub value: String,
    /// 0: it ends at a time.
    pub validity_type: u64,
    /// When.
    pub validity: String,
    /// Its number.
    pub sequence: u64,
    /// For how many nanoseconds it need not be looked for again.
    #[serde(rename = "TTL")]
    pub ttl: u64,
    /// The key that it brings along, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// Whether a record is one of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Validation {
    /// Whether it is.
    pub valid: bool,
    /// Why not.
    pub reason: String,
    /// The name.
    pub name: String,
}

/// `name inspect`.
pub async fn inspect(call: Call) -> Result<Reply, RpcError> {
    let text = NameText::of(&call)?;
    let verified = call.arguments.text(&["verify"]).map(name_of).transpose()?;
    let dumps = call.arguments.flag(&["dump"])?;
    let bytes = call.upload.on_thread(read_record).await?;
    let look = Look::at(&bytes)
        .map_err(|error| RpcError::failed(format!("this is no IPNS record: {error}")))?;
    let validation = verified.map(|name| {
        let checked = Record::valid(&name, &bytes, SystemTime::now());
        Validation {
            valid: checked.is_ok(),
            reason: checked
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default(),
            name: text.text(&name),
        }
    });
    let signatures = [(look.has_v1, "V1"), (look.has_v2, "V2")].into_iter();
    let signatures = signatures.filter_map(|(has, name)| has.then_some(name));
    let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Reply::value(&InspectAnswer {
        entry: Entry {
            value: text_of(&look.value),
            validity_type: look.validity_type,
            validity: text_of(&look.validity),
            sequence: look.sequence,
            ttl: u64::try_from(look.ttl.as_nanos()).unwrap_or(u64::MAX),
            public_key: look.public_key.map(|key| BASE64.encode(&key)),
        },
        pb_size: bytes.len(),
        signature_type: signatures.collect::<Vec<_>>().join("+"),
        hex_dump: match dumps {
            true => HEXLOWER.encode(&bytes),
            false => String::new(),
        },
        validation,
    })
}

fn read_record(entries: &mut dyn Entries) -> Result<Vec<u8>, RpcError> {
    let entry = entries.next()?.map(|entry| entry.content);
    let Some(Content::File(mut content)) = entry else {
        return Err(RpcError::failed("expected a file with the record"));
    };
    let mut bytes = Vec::new();
    (&mut content)
        .take(ipns::RECORD_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl From<PublishError> for RpcError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Value(_) | PublishError::Sequence { .. } => {
                Self::wrong(error.to_string())
            }
            error => Self::failed(error.to_string()),
        }
    }
}

impl From<cairn_node::name::resolve::ResolveError> for RpcError {
    fn from(error: cairn_node::name::resolve::ResolveError) -> Self {
        Self::failed(error.to_string())
    }
}

/// The node's own key.
pub const OWN: &str = "self";
/// For how long a record holds.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// For how long nobody need look for a newer one.
const TTL: Duration = Duration::from_secs(300);
const RECORD_MEDIA: &str = "application/vnd.ipfs.ipns-record";
