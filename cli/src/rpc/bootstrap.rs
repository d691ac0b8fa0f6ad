//! `bootstrap`: whom to ask first.

use super::api::Call;
use super::config::may_replace;
use super::error::RpcError;
use super::reply::Reply;
use crate::config::edit;
use cairn_node::Multiaddr;
use serde::{Deserialize, Serialize};

/// The answer: the peers listed, added or removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerList {
    /// Their addresses.
    pub peers: Vec<String>,
    /// After a change: what does not do what it seems to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl PeerList {
    fn of(peers: Vec<String>) -> Self {
        Self {
            peers,
            warnings: Vec::new(),
        }
    }
}

fn current(call: &Call) -> Result<Vec<String>, RpcError> {
    let config = call.context.repository.config()?;
    Ok(config.bootstrap.iter().map(ToString::to_string).collect())
}

/// Fewer peers are never worse than more.
fn write_fewer(call: &Call, peers: &[String]) -> Result<(), RpcError> {
    let repository = &call.context.repository;
    let (text, _) = edit::set_bootstrap(&repository.config_text()?, peers)?;
    Ok(repository.write_config(&text)?)
}

fn given(call: &Call) -> Result<Vec<String>, RpcError> {
    let texts = call.arguments.some("peer")?;
    texts
        .into_iter()
        .map(|text| {
            let wrong =
                |why: &str| RpcError::failed(format!("invalid peer address {text:?}: {why}"));
            let address: Multiaddr = text.parse().map_err(|_| wrong("not a multiaddr"))?;
            let text = address.to_string();
            let (transport, peer) = text
                .rsplit_once("/p2p/")
                .ok_or_else(|| wrong("it does not end in /p2p/<peer id>"))?;
            if transport.is_empty() {
                return Err(wrong("bootstrap address without a transport"));
            }
            peer.parse::<cairn_node::PeerId>()
                .map_err(|_| wrong("its end is no peer id"))?;
            Ok(text)
        })
        .collect()
}

/// `bootstrap list`.
pub fn list(call: Call) -> Result<Reply, RpcError> {
    Reply::value(&PeerList::of(current(&call)?))
}

/// Kubo has a list of its maker's servers.
pub fn no_default() -> RpcError {
    RpcError::failed(
        "there is no default list of peers to begin with: no third party's servers are built in; name peers that you \
         know, as `cairn bootstrap add /ip4/…/tcp/4001/p2p/<peer ID>` (`cairn id` there prints it)",
    )
}

/// `bootstrap add`.
pub async fn add(call: Call) -> Result<Reply, RpcError> {
    let is_default = |text: &&str| DEFAULT.contains(text);
    let mut texts = call.arguments.all().into_iter();
    if call.arguments.flag(&["default"])? || texts.any(|text| is_default(&text)) {
        return Err(no_default());
    }
    let given = given(&call)?;
    let _alone = call.context.repository.lock_config().await?;
    let mut peers = current(&call)?;
    for peer in &given {
        if !peers.contains(peer) {
            peers.push(peer.clone());
        }
    }
    let repository = &call.context.repository;
    let before = repository.config_text()?;
    let (text, config) = edit::set_bootstrap(&before, &peers)?;
    may_replace(repository, &before, &config)?;
    repository.write_config(&text)?;
    let mut warnings = config.peers_outside();
    warnings.retain(|text| given.iter().any(|peer| text.starts_with(peer.as_str())));
    Reply::value(&PeerList {
        peers: given,
        warnings,
    })
}

/// `bootstrap rm`.
pub async fn remove(call: Call) -> Result<Reply, RpcError> {
    if call.arguments.flag(&["all"])? {
        return remove_all(call).await;
    }
    let given = given(&call)?;
    let _alone = call.context.repository.lock_config().await?;
    let (removed, kept): (Vec<String>, Vec<String>) = current(&call)?
        .into_iter()
        .partition(|peer| given.contains(peer));
    write_fewer(&call, &kept)?;
    // As in Kubo, who was not on the list is not on it afterwards either.
    let absent = given.iter().filter(|peer| !removed.contains(peer));
    let warnings = absent
        .map(|peer| format!("{peer} was not in `bootstrap`; `cairn bootstrap list` prints who is"));
    Reply::value(&PeerList {
        warnings: warnings.collect(),
        peers: removed,
    })
}

/// `bootstrap rm all`.
pub async fn remove_all(call: Call) -> Result<Reply, RpcError> {
    let _alone = call.context.repository.lock_config().await?;
    let removed = current(&call)?;
    write_fewer(&call, &[])?;
    Reply::value(&PeerList::of(removed))
}

/// What Kubo takes for its list.
const DEFAULT: [&str; 2] = ["default", "auto"];

#[cfg(test)]
mod tests {
    use super::super::api::Api;
    use super::super::context::Context;
    use crate::config::TEMPLATE;
    use crate::repository::Repository;
    use axum::body::Body;
    use cairn_store::durable::{self, Access};
    use http::Request;
    use http_body_util::BodyExt;
    use std::sync::Arc;

    const PEER: &str =
        "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";

    async fn ask(api: &Api, command: &str) -> String {
        let request = Request::post(format!("/api/v0/{command}"));
        let response = api.handle(request.body(Body::empty()).unwrap()).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    const PUBLIC: &str = "/dnsaddr/bootstrap.libp2p.io/p2p/";
    const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

    #[tokio::test]
    async fn what_a_swarm_key_forbids_goes_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        let peers: Vec<String> = (0..3)
            .map(|_| format!("{PUBLIC}{}", cairn_node::PeerId::random()))
            .collect();
        repository.write_config("").unwrap();
        let api = Api::new(Arc::new(Context::offline(repository)));
        for peer in &peers {
            ask(&api, &format!("bootstrap/add?arg={peer}")).await;
        }
        ask(
            &api,
            &format!("config?arg=addresses.swarm&arg=[\"{QUIC}\"]").replace('"', "%22"),
        )
        .await;
        let key = format!("/key/swarm/psk/1.0.0/\n/base16/\n{}\n", "ab".repeat(32));
        let path = folder.path().join("swarm.key");
        durable::write(&path, key.as_bytes(), Access::Owner).unwrap();
        let one = format!("bootstrap/rm?arg={}", peers[0]);
        assert!(ask(&api, &one).await.contains(&peers[0]));
        let left: serde_json::Value = serde_json::from_str(&ask(&api, "bootstrap").await).unwrap();
        assert_eq!(left["Peers"].as_array().unwrap().len(), 2);
        assert!(ask(&api, "bootstrap/rm/all").await.contains(&peers[2]));
        // The addresses go now; then nothing is wrong, and what would be is refused.
        let set = ask(&api, "config?arg=addresses.swarm&arg=[]").await;
        assert!(
            set.contains("\"Value\":[]") && !set.contains("Warnings"),
            "{set}"
        );
        let refused = ask(&api, &format!("bootstrap/add?arg={}", peers[0])).await;
        assert!(refused.contains("swarm.key"), "{refused}");
        assert_eq!(ask(&api, "bootstrap").await, "{\"Peers\":[]}\n");
    }

    #[tokio::test]
    async fn peers_are_added_once_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path());
        repository.write_config(TEMPLATE).unwrap();
        let api = Api::new(Arc::new(Context::offline(repository)));
        let one = format!("{{\"Peers\":[\"{PEER}\"]}}\n");
        assert_eq!(ask(&api, &format!("bootstrap/add?arg={PEER}")).await, one);
        ask(&api, &format!("bootstrap/add?arg={PEER}")).await;
        assert_eq!(ask(&api, "bootstrap/list").await, one);
        assert_eq!(ask(&api, &format!("bootstrap/rm?arg={PEER}")).await, one);
        assert_eq!(ask(&api, "bootstrap").await, "{\"Peers\":[]}\n");
        for default in ["?arg=default", "?default=true", "?arg=auto", "/default"] {
            let refused = ask(&api, &format!("bootstrap/add{default}")).await;
            assert!(refused.contains("no default list"), "{refused}");
        }
        let again = ask(&api, &format!("bootstrap/rm?arg={PEER}")).await;
        assert!(again.starts_with("{\"Peers\":[]"), "{again}");
        assert!(again.contains("was not in `bootstrap`"), "{again}");
        let outside = PEER.replace("127.0.0.1", "8.8.8.8");
        let warned = ask(&api, &format!("bootstrap/add?arg={outside}")).await;
        assert!(warned.contains("outside the network `local`"), "{warned}");
        let well = ask(&api, &format!("bootstrap/add?arg={PEER}")).await;
        assert_eq!(well, one, "of those before nothing is said");
        let refused = ask(&api, "bootstrap/add?arg=/ip4/127.0.0.1/tcp/1").await;
        assert!(refused.contains("does not end in"), "{refused}");
    }
}
