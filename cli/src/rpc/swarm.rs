//! `swarm`: who we are connected to.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use cairn_node::Multiaddr;
use cairn_node::reach::Standing;
use cairn_node::swarm::{Called, ConnectError, MEETING_TIME_MAX};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Texts, one for each thing done or found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Strings {
    /// The texts.
    pub strings: Vec<String>,
}

/// The answer of `swarm peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeersAnswer {
    /// One for each connection.
    pub peers: Vec<PeerRow>,
}

/// A connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerRow {
    /// The other end, without its name.
    pub addr: String,
    /// Its name.
    pub peer: String,
    /// Last measured round trip, or `n/a`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latency: String,
    /// What carries many streams over it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub muxer: String,
    /// 1 inbound, 2 outbound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<u8>,
    /// Streams are not told; the list is there because tools look for it.
    pub streams: Option<Vec<String>>,
    /// What the peer told of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identify: Option<super::id::IdAnswer>,
}

/// The answer of `swarm addrs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AddrsAnswer {
    /// Known addresses by peer.
    pub addrs: BTreeMap<String, Vec<String>>,
}

/// The answer of `swarm addrs autonat`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutonatAnswer {
    /// `Public`, `Private` or `Unknown`.
    pub reachability: String,
    /// Where peers came by themselves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reachable: Vec<String>,
    /// Where they tried and could not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<String>,
    /// Where too few tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Who lends this node a way. Kubo does not tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<String>,
}

/// `swarm peers`.
pub async fn peers(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    arguments.lacks(
        &["streams"],
        "which streams are open is not told; `verbose` tells what each peer speaks",
    )?;
    let verbose = arguments.flag(&["verbose", "v"])?;
    let latency = verbose || arguments.flag(&["latency"])?;
    let direction = verbose || arguments.flag(&["direction"])?;
    let identify = verbose || arguments.flag(&["identify"])?;
    let connected = call.context.node()?.peers.connected().await;
    let mut peers: Vec<PeerRow> = connected
        .into_iter()
        .map(|row| PeerRow {
            addr: row.address.to_string(),
            peer: row.peer.to_string(),
            latency: match (latency, row.latency) {
                (false, _) => String::new(),
                (true, None) => "n/a".to_owned(),
                (true, Some(latency)) => latency_text(latency),
            },
            muxer: if verbose { row.muxer } else { String::new() },
            direction: direction.then_some(if row.outbound { OUTBOUND } else { INBOUND }),
            streams: None,
            identify: identify.then(|| super::id::IdAnswer {
                id: row.peer.to_string(),
                agent_version: row.agent.unwrap_or_default(),
                protocols: row.protocols,
                ..super::id::IdAnswer::default()
            }),
        })
        .collect();
    peers.sort_by(|one, other| one.addr.cmp(&other.addr));
    Reply::value(&PeersAnswer { peers })
}

/// A round trip as people read it.
fn latency_text(latency: Duration) -> String {
    let micros = latency.as_micros();
    if micros < 1000 {
        format!("{micros}µs")
    } else {
        format!("{}.{:03}ms", micros / 1000, micros % 1000)
    }
}

/// `swarm addrs`.
pub async fn known(call: Call) -> Result<Reply, RpcError> {
    let known = call.context.node()?.peers.known().await;
    let addrs = known
        .into_iter()
        .map(|(peer, addresses)| {
            (
                peer.to_string(),
                addresses.iter().map(ToString::to_string).collect(),
            )
        })
        .collect();
    Reply::value(&AddrsAnswer { addrs })
}

/// `swarm addrs autonat`.
pub fn autonat(call: &Call) -> Result<Reply, RpcError> {
    let reach = call.context.node()?.peers.reach();
    let with = |standing: Standing| {
        let addresses = reach.addresses.iter();
        let found = addresses.filter(|(_, found)| *found == standing);
        found.map(|(address, _)| address.to_string()).collect()
    };
    Reply::value(&AutonatAnswer {
        reachability: format!("{:?}", reach.reachability),
        reachable: with(Standing::Reachable),
        unreachable: with(Standing::Unreachable),
        unknown: with(Standing::Unknown),
        relays: reach.relays.iter().map(ToString::to_string).collect(),
    })
}

/// `swarm addrs listen`.
pub async fn listening(call: Call) -> Result<Reply, RpcError> {
    call.context.node()?;
    let mut strings: Vec<String> = call
        .context
        .listening()
        .await
        .iter()
        .map(ToString::to_string)
        .collect();
    strings.sort();
    Reply::value(&Strings { strings })
}

/// `swarm addrs local`.
pub async fn local(call: Call) -> Result<Reply, RpcError> {
    call.context.node()?;
    let with_name = call.arguments.flag(&["id"])?;
    let name = call.context.identity().await?.peer_id;
    let mut strings: Vec<String> = call
        .context
        .listening()
        .await
        .iter()
        .map(|address| {
            if with_name {
                format!("{address}/p2p/{name}")
            } else {
                address.to_string()
            }
        })
        .collect();
    strings.sort();
    Reply::value(&Strings { strings })
}

/// Where a peer is, as the operator writes it. A bare name means: at the addresses known for it.
pub fn address_of(text: &str) -> Result<Multiaddr, RpcError> {
    if text.starts_with('/') {
        let parsed = text.parse();
        return parsed
            .map_err(|error| RpcError::failed(format!("invalid peer address {text:?}: {error}")));
    }
    format!("/p2p/{text}").parse().map_err(|_| {
        RpcError::failed(format!(
            "invalid peer address {text:?}: it is neither a peer ID (12D3KooW…) nor an address, as \
             /ip4/127.0.0.1/tcp/4001/p2p/12D3KooW…"
        ))
    })
}

/// `swarm connect`.
pub async fn connect(call: Call) -> Result<Reply, RpcError> {
    let peers = call.context.node()?.peers.clone();
    let work = |address| {
        let peers = peers.clone();
        async move { Ok(told(&peers.call(address).await?)) }.boxed()
    };
    each(&call, "connect", work).await
}

/// Does one thing with each address, whatever became of the others, and tells of each in a line. Of one alone, or
/// where nothing came of any, a failure is all there is to tell.
async fn each(
    call: &Call,
    verb: &str,
    work: impl Fn(Multiaddr) -> BoxFuture<'static, Result<String, ConnectError>>,
) -> Result<Reply, RpcError> {
    let texts = call.arguments.some("address")?;
    let (all, mut failures, mut strings) = (texts.len(), Vec::new(), Vec::new());
    for text in texts {
        let done = match address_of(text) {
            Ok(address) => {
                let name = peer_in(&address);
                let done = work(address).await;
                done.map_err(|error| format!("{verb} {name} failure: {error}"))
            }
            Err(error) => Err(error.message().to_owned()),
        };
        if let Err(failure) = &done {
            failures.push(failure.clone());
        }
        strings.push(done.unwrap_or_else(|failure| failure));
    }
    if failures.is_empty() {
        return Reply::value(&Strings { strings });
    }
    let failed = failures.len();
    if failed == all {
        return Err(RpcError::failed(failures.join("; ")));
    }
    Ok(Reply::values(move |out| async move {
        out.value(&Strings { strings }).await?;
        Err(RpcError::failed(format!(
            "{failed} of {all} failed; the lines above say which and why"
        )))
    }))
}

/// Kubo's words, which tools look for; and whether more than a connection is there.
fn told(called: &Called) -> String {
    let peer = called.peer;
    match called.answers {
        true => format!("connect {peer} success"),
        false => format!(
            "connect {peer} success, but it has answered nothing for {} s: it may hang, or be slow",
            MEETING_TIME_MAX.as_secs()
        ),
    }
}

/// `swarm disconnect`.
pub async fn disconnect(call: Call) -> Result<Reply, RpcError> {
    let peers = call.context.node()?.peers.clone();
    let work = |address| {
        let peers = peers.clone();
        async move {
            let peer = peers.disconnect(address).await?;
            Ok(format!("disconnect {peer} success"))
        }
        .boxed()
    };
    each(&call, "disconnect", work).await
}

/// The name at the end of an address, or the whole address.
fn peer_in(address: &Multiaddr) -> String {
    let text = address.to_string();
    match text.rsplit_once("/p2p/") {
        Some((_, peer)) => peer.to_owned(),
        None => text,
    }
}

/// Kubo's number for a connection that the other end opened.
pub const INBOUND: u8 = 1;
/// Kubo's number for a connection that we opened.
pub const OUTBOUND: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_told_in_a_fitting_unit() {
        assert_eq!(latency_text(Duration::from_micros(950)), "950µs");
        assert_eq!(latency_text(Duration::from_micros(12_345)), "12.345ms");
    }

    #[test]
    fn a_peer_that_is_connected_and_answers_nothing_is_told_as_such() {
        let peer = cairn_node::PeerId::random();
        let of = |answers| told(&Called { peer, answers });
        assert_eq!(of(true), format!("connect {peer} success"));
        let silent = of(false);
        assert!(silent.starts_with(&of(true)), "{silent}");
        assert!(silent.contains("answered nothing for 5 s"), "{silent}");
    }

    #[test]
    fn the_name_is_found_in_an_address() {
        let peer = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
        let address = format!("/ip4/127.0.0.1/tcp/4001/p2p/{peer}")
            .parse()
            .unwrap();
        assert_eq!(peer_in(&address), peer);
    }
}
