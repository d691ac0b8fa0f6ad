//! `provide stat`: how providing goes, in all or of one block.
//!
//! The answer has the shape of Kubo's, as far as there is something to say; what only cairn knows stands in `Cairn`, and of a
//! block in `Key`.

use super::api::Call;
use super::context::broke;
use super::error::RpcError;
use super::reply::Reply;
use crate::output;
use cairn_node::provide::{KeyStat, Provide, ProvideStat, Strategy};
use cairn_store::Cid;
use cairn_store::cid;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The answer of `provide stat`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ProvideAnswer {
    /// How it goes.
    pub sweep: Sweep,
    /// Whether all peers of the network are known; never.
    #[serde(rename = "FullRT")]
    pub full_rt: bool,
    /// What Kubo has no word for.
    pub cairn: Own,
    /// What is known of one block, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyAnswer>,
}

/// How providing goes, as Kubo has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sweep {
    /// Whether it has ended.
    pub closed: bool,
    /// What waits.
    pub queues: Queues,
    /// What is provided.
    pub schedule: Schedule,
    /// What is done at once.
    pub workers: Workers,
    /// When.
    pub timing: Timing,
    /// What was done.
    pub operations: Operations,
    /// For whom.
    pub network: Network,
}

/// What waits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Queues {
    /// Keys that are told before their time.
    pub pending_key_provides: u64,
    /// Regions that are late.
    pub pending_region_reprovides: u64,
}

/// What is provided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// Keys.
    pub keys: u64,
    /// Regions of the key space that have any.
    pub regions: u64,
    /// Bits that the places of a region share.
    pub avg_prefix_length: f64,
    /// When a region is told next.
    pub next_reprovide_at: String,
}

/// What is done at once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// Regions.
    pub active: u64,
}

/// When. Spans are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// Length of a cycle.
    pub reprovides_interval: u64,
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Operations {
    /// Since the start.
    pub past: Past,
}

/// What was done since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Keys told.
    pub keys_provided: u64,
    /// The same a minute, in the last hour.
    pub keys_provided_per_minute: f64,
    /// Nanoseconds that a region took lately.
    pub reprovide_duration: u64,
}

/// For whom.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Nodes that the network seems to have.
    pub peers: u64,
    /// How many keep a record.
    pub replication_factor: u64,
}

/// What Kubo has no word for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Own {
    /// What is provided.
    pub strategy: String,
    /// When it was seen last what that is; empty for not yet.
    pub gathered_at: String,
    /// When a region was told last; empty for never.
    pub last_at: String,
    /// Regions whose turn in this cycle is over.
    pub regions_done: u64,
    /// Regions whose last turn failed.
    pub regions_failing: u64,
    /// Turns that failed since the start.
    pub failures: u64,
    /// Keys told in the last hour.
    pub keys_last_hour: u64,
}

/// What is known of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct KeyAnswer {
    /// Which.
    pub cid: String,
    /// Whether it is provided.
    pub provided: bool,
    /// When peers were told of it last; empty for never.
    pub last_at: String,
    /// Which.
    pub peers: Vec<String>,
    /// Whether that is remembered; it is of the last telling of all, and of the latest ones of new blocks.
    pub peers_known: bool,
    /// When they are told again; empty for never.
    pub next_at: String,
    /// The bits that its region's places begin with.
    pub region: String,
    /// Why it is not provided; empty if it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why_not: String,
    /// When `routing provide` told of it last; empty if that is not remembered.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub by_hand_at: String,
    /// How many peers were told then.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_hand_peers: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// `provide stat`.
pub async fn stat(call: Call) -> Result<Reply, RpcError> {
    let provide = call.context.node()?.node()?.provide();
    let asked = call.arguments.all().first().map(|text| (*text).to_owned());
    let key = match asked {
        Some(text) => Some(of_key(&call, &provide, &text).await?),
        None => None,
    };
    let stat = provide.stat().await;
    let stat = stat.map_err(|_| broke("asking how providing goes"))?;
    Reply::value(&ProvideAnswer {
        key,
        ..answer(&stat)
    })
}

async fn of_key(call: &Call, provide: &Provide, text: &str) -> Result<KeyAnswer, RpcError> {
    let name = text.trim_start_matches("/ipfs/").trim_end_matches('/');
    if name.contains('/') {
        return Err(RpcError::wrong(format!(
            "{text:?} is a path, and this is about one block: `cairn resolve /ipfs/{name}` tells its CID"
        )));
    }
    let cid = cid::parse(name)?;
    let stat = provide.stat_of(cid.hash().to_bytes()).await;
    let stat = stat.map_err(|error| {
        RpcError::failed(format!(
            "what was told of {cid} cannot be read ({error}); it is told again in its time"
        ))
    })?;
    let KeyStat {
        is_provided,
        told_at,
        told,
        next_at,
        region,
        by_hand,
    } = stat;
    let why_not = match is_provided {
        true => String::new(),
        false => why_not(call, &cid).await?,
    };
    Ok(KeyAnswer {
        cid: text.to_owned(),
        provided: is_provided,
        last_at: time(told_at),
        peers_known: told.is_some(),
        peers: told.iter().flatten().map(ToString::to_string).collect(),
        next_at: time(next_at),
        region,
        why_not,
        by_hand_at: time(by_hand.map(|told| told.at)),
        by_hand_peers: by_hand.map_or(0, |told| told.peers as u64),
    })
}

/// Why a block is not in the set.
async fn why_not(call: &Call, cid: &Cid) -> Result<String, RpcError> {
    let config = call.context.repository.config()?;
    if cid::is_identity(cid) {
        return Ok("it is in its own name, so nobody has to look for it".to_owned());
    }
    if !call.context.store().await?.has(cid).await? {
        return Ok("the block is not here".to_owned());
    }
    if let Err(denial) = call.context.denylist().await?.check_block(cid) {
        return Ok(format!(
            "{} denies it, so nobody is given it or told of it",
            denial.by
        ));
    }
    if call.context.node()?.denied.names(cid) {
        return Ok("`serve.content_deny` names it, so nobody is given it or told of it".to_owned());
    }
    let what = match config.provide.strategy {
        Strategy::Roots => "only the roots of pins are, and it was none",
        Strategy::Pinned => "only what pins reach is, and none reached it",
        Strategy::Mfs => "only what the file tree reaches is, and it did not reach it",
        Strategy::PinnedMfs => "only what pins and the file tree reach is, and none reached it",
        Strategy::All => "it was not here",
    };
    let name = config.provide.strategy.name();
    Ok(format!(
        "`provide.strategy` = \"{name}\": {what} when the set was gathered last, which GatheredAt of `cairn provide \
         stat` tells"
    ))
}

fn answer(stat: &ProvideStat) -> ProvideAnswer {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    ProvideAnswer {
        sweep: Sweep {
            closed: false,
            queues: Queues {
                pending_key_provides: stat.waiting as u64,
                pending_region_reprovides: stat.late as u64,
            },
            schedule: Schedule {
                keys: stat.keys,
                regions: stat.regions as u64,
                avg_prefix_length: f64::from(stat.prefix_bits),
                next_reprovide_at: time(stat.next_at),
            },
            workers: Workers {
                active: stat.under_way as u64,
            },
            timing: Timing {
                reprovides_interval: nanos(stat.interval),
            },
            operations: Operations {
                past: Past {
                    keys_provided: stat.provided,
                    keys_provided_per_minute: stat.provided_last_hour as f64 / 60.0,
                    reprovide_duration: stat.turn.map_or(0, nanos),
                },
            },
            network: Network {
                peers: stat.network_size.map_or(0, whole),
                replication_factor: KEEPERS,
            },
        },
        full_rt: false,
        cairn: Own {
            strategy: stat.strategy.name().to_owned(),
            gathered_at: time(stat.gathered_at),
            last_at: time(stat.last_at),
            regions_done: stat.done as u64,
            regions_failing: stat.failing as u64,
            failures: stat.failures,
            keys_last_hour: stat.provided_last_hour,
        },
        key: None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and there are no fewer than none"
)]
fn whole(count: f64) -> u64 {
    count as u64
}

fn time(at: Option<Duration>) -> String {
    at.map_or_else(String::new, |at| output::utc(at.as_secs()))
}

/// Nodes that keep a record.
const KEEPERS: u64 = 20;
