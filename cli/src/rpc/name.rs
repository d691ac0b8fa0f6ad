//! `name`: what names point at, published and resolved; and records of names as they are.

pub mod pubsub;

use super::api::{Call, resolve_path};
use super::entries::{Content, Entries};
use super::error::RpcError;
use super::key::IdText;
use super::reply::Reply;
use super::resolve::PathAnswer;
use super::{follow, key};
use cairn_node::PeerId;
use cairn_node::ipns::{self, Look, Readers, Record};
use cairn_node::keystore::{Key, OWN};
use cairn_node::name::follow::{Depth, FollowError, Walk};
use cairn_node::name::keep::KeepError;
use cairn_node::name::path::{NamePath, Root};
use cairn_node::name::publish::{PublishError, Published, Wish};
use cairn_node::name::resolver::NameError;
use cairn_store::BlockSource;
use data_encoding::{BASE64, HEXLOWER};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NameAnswer {
    /// The name.
    pub name: String,
    /// What it points at.
    pub value: String,
}

/// A name in any of its forms, with `/ipns/` or without.
fn name_of(text: &str) -> Result<PeerId, RpcError> {
    let starts = ["/ipns/", "ipns://"];
    let bare = starts.iter().find_map(|start| text.strip_prefix(start));
    let bare = bare.unwrap_or(text);
    ipns::name(bare).ok_or_else(|| {
        RpcError::wrong(format!(
            "{text:?} is no IPNS name; names look like k51qzi5u…, 12D3KooW… or Qm…, with /ipns/ before them or without"
        ))
    })
}

/// Whether the operator wants the name of a key here.
async fn admits(call: &Call, name: PeerId) -> Result<(), RpcError> {
    let path = Root::Key(name).into();
    Ok(call.context.denylist().await?.check_path(&path)?)
}

/// `name publish`.
pub async fn publish(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let text = key::ids(&call)?;
    let path = path_of(arguments.first("ipfs-path")?)?;
    let value = path.to_string();
    let may_be_offline = arguments.flag(&["allow-offline"])?;
    let v1 = arguments.choice(&["v1compat"])?.unwrap_or(true);
    let wish = Wish {
        value: value.clone(),
        lifetime: match arguments.duration(&["lifetime", "t"])? {
            Some(lifetime) => lifetime,
            None => call.context.repository.config()?.names.lifetime.0,
        },
        ttl: arguments.duration(&["ttl"])?.unwrap_or(TTL),
        sequence: arguments.parsed(&["sequence"], "a number")?,
        readers: if v1 { Readers::All } else { Readers::V2 },
        may_be_alone: may_be_offline,
    };
    let key = signer(&call).await?;
    let names = call.context.names().await?;
    if !names.is_online() && !may_be_offline {
        return Err(RpcError::failed(
            "without a running daemon nobody is told of the record; run 'cairn daemon' first, or add --allow-offline \
             to sign it now and have it told when the daemon runs",
        ));
    }
    if arguments.choice(&["resolve"])?.unwrap_or(true) {
        let there = async {
            let led = call.follow(path, Depth::default()).await?;
            let session = call.session_that_tells().await?;
            let resolved = resolve_path(&session, &follow::content(led.path)?).await?;
            match session.block(&resolved.cid).await? {
                Some(_) => Ok(()),
                None => Err(RpcError::failed(format!(
                    "block {} was not found",
                    resolved.cid
                ))),
            }
        };
        there.await.map_err(|error| {
            RpcError::failed(format!(
                "{value} is not there to be pointed at ({error}); --resolve=false publishes it all the same"
            ))
        })?;
    }
    let published = names.publish(&key, &wish).await?;
    told(&published, may_be_offline)?;
    Reply::value(&NameAnswer {
        name: text.text(&key.id()),
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

/// The key that signs: by its name, or by the name that it signs for.
async fn signer(call: &Call) -> Result<Key, RpcError> {
    let name = call.arguments.text(&["key", "k"]);
    if name == Some("") {
        return Err(RpcError::wrong(
            "the name of the key is empty; leave it out for the node's own key",
        ));
    }
    let name = name.unwrap_or(OWN).to_owned();
    key::with_keys(call.context.keystore()?, move |keys| {
        keys.load(&keys.find(&name)?.name)
    })
    .await
}

/// A path that a name may point at, as it is signed.
fn path_of(text: &str) -> Result<NamePath, RpcError> {
    text.parse().map_err(|error| follow::wrong(&error))
}

/// `name resolve`.
pub async fn resolve(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let count = ["dht-record-count", "dhtrc"];
    arguments.parsed::<u32>(&count, "a number")?;
    let path = match arguments.all().first() {
        Some(text) => follow::named(text)?,
        None => Root::Key(call.context.identity().await?.peer_id).into(),
    };
    if matches!(path.root, Root::Content(_)) {
        return Err(RpcError::wrong(format!(
            "{path} is content and no name; `cairn resolve` takes both"
        )));
    }
    let depth = call.depth()?;
    if arguments.flag(&["stream", "s"])?
        && let Root::Key(name) = path.root
        && call
            .context
            .resolver()
            .await?
            .dns()
            .fixed(&path.root)
            .is_none()
    {
        return each(call, name, path, depth).await;
    }
    let led = call.follow(path, depth).await?;
    Reply::value(&PathAnswer {
        path: led.path.to_string(),
    })
}

/// Where a key's name leads, and where better records say it does, as they come.
async fn each(call: Call, name: PeerId, path: NamePath, depth: Depth) -> Result<Reply, RpcError> {
    call.context.denylist().await?.check_path(&path)?;
    let resolver = call.context.resolver().await?.clone();
    let how = call.how()?;
    let most = call.lookup_time()?;
    let end = most.and_then(|most| Instant::now().checked_add(most));
    Ok(Reply::values(move |out| async move {
        let mut found = std::pin::pin!(resolver.names().resolve_each(&name, how));
        let mut last = None;
        loop {
            let step = async {
                let Some(record) = found.next().await else {
                    return Ok(None);
                };
                let target = resolver.target(&name, &record?);
                let mut walk = Walk::new(path.clone(), depth);
                walk.lead(target.map_err(FollowError::Name)?)
                    .map_err(FollowError::<NameError>::Walk)?;
                Ok::<_, RpcError>(Some(resolver.go_on(walk, how).await?.path))
            };
            let led = match end {
                None => step.await?,
                Some(end) => match timeout_at(end, step).await {
                    Ok(led) => led?,
                    // What was told stands.
                    Err(_) if last.is_some() => None,
                    Err(_) => return Err(follow::too_slow(most.unwrap_or_default())),
                },
            };
            let Some(led) = led else {
                return Ok(());
            };
            if last.as_ref() != Some(&led) {
                let path = led.to_string();
                out.value(&PathAnswer { path }).await?;
                last = Some(led);
            }
        }
    }))
}

/// `name get`: the record as it is.
pub async fn get(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    admits(&call, name).await?;
    let names = call.context.names().await?;
    let record = names.resolve(&name, call.how()?).await?;
    let bytes = record.bytes().to_vec();
    let length = Some(bytes.len() as u64);
    Ok(Reply::bytes(
        ipns::RECORD_MEDIA,
        length,
        move |out| async move { out.bytes(bytes.into()).await },
    ))
}

/// `name put`: somebody else's record, taken in and told to others.
pub async fn put(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    let may_be_offline = call.arguments.flag(&["allow-offline"])?;
    let force = call.arguments.flag(&["force", "f"])?;
    admits(&call, name).await?;
    let names = call.context.names().await?;
    let bytes = call.upload.on_thread(read_record).await?;
    let record = names
        .check(&name, &bytes)
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
    if call.context.stop().is_none() {
        return Err(RpcError::failed(
            "without a running daemon nobody is told of the record, and none keeps it; run 'cairn daemon' first",
        ));
    }
    names.take_in(&name, &record);
    match names.tell(&name, &record).await {
        None if !may_be_offline => Err(RpcError::failed(
            "this daemon is offline, so the record is known here until it stops, and nobody was told of it; \
             --allow-offline calls that enough",
        )),
        Some(Err(error)) if !may_be_offline => Err(RpcError::failed(format!(
            "the record is known here now, but nobody else took it: {error}"
        ))),
        _ => Ok(Reply::Empty),
    }
}

/// A name that is kept alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeptAnswer {
    /// The name.
    pub name: String,
    /// What it points at.
    pub value: String,
    /// Until when, in RFC 3339; after that it resolves no more unless its owner signs a newer record.
    pub validity: String,
    /// The number of its record.
    pub sequence: u64,
}

fn kept_answer(text: IdText, name: &PeerId, record: &Record) -> KeptAnswer {
    let look = Look::at(record.bytes());
    let validity = look.map(|look| String::from_utf8_lossy(&look.validity).into_owned());
    KeptAnswer {
        name: text.text(name),
        value: String::from_utf8_lossy(record.value()).into_owned(),
        validity: validity.unwrap_or_default(),
        sequence: record.sequence(),
    }
}

/// `name keep`: others are told again and again of somebody else's name.
pub async fn keep(call: Call) -> Result<Reply, RpcError> {
    let text = key::ids(&call)?;
    let name = name_of(call.arguments.first("name")?)?;
    admits(&call, name).await?;
    call.context.writable_store().await?;
    let record = call.context.names().await?.keep_alive(&name).await?;
    Reply::value(&kept_answer(text, &name, &record))
}

/// `name unkeep`.
pub async fn unkeep(call: Call) -> Result<Reply, RpcError> {
    let name = name_of(call.arguments.first("name")?)?;
    call.context.names().await?.let_go(&name).await?;
    Ok(Reply::Empty)
}

/// `name kept`.
pub async fn kept(call: Call) -> Result<Reply, RpcError> {
    let text = key::ids(&call)?;
    let names = call.context.names().await?.clone();
    Ok(Reply::values(move |out| async move {
        for (name, record) in names.kept() {
            out.value(&kept_answer(text, &name, &record)).await?;
        }
        Ok(())
    }))
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
    let text = key::ids(&call)?;
    let verified = call.arguments.text(&["verify"]).map(name_of).transpose()?;
    let dumps = call.arguments.flag(&["dump"])?;
    let names = match verified {
        Some(_) => Some(call.context.names().await?.clone()),
        None => None,
    };
    let bytes = call.upload.on_thread(read_record).await?;
    if bytes.is_empty() {
        return Err(RpcError::failed("this is no IPNS record: it is empty"));
    }
    let look = Look::at(&bytes)
        .map_err(|error| RpcError::failed(format!("this is no IPNS record: {error}")))?;
    let validation = verified.zip(names).map(|(name, names)| {
        let checked = names.check(&name, &bytes);
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

impl From<KeepError> for RpcError {
    fn from(error: KeepError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<cairn_node::name::resolve::ResolveError> for RpcError {
    fn from(error: cairn_node::name::resolve::ResolveError) -> Self {
        Self::failed(error.to_string())
    }
}

/// For how long nobody need look for a newer one.
const TTL: Duration = Duration::from_secs(300);
