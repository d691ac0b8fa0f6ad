//! The `[serve]` section: who is given blocks.

use cairn_node::PeerId;
use cairn_node::bitswap::policy::{DenyContent, Every, PeerLists};
use cairn_store::cid::{self, Cid};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The `[serve]` section.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Who is given blocks; nobody named for everybody.
    pub peers_allow: Vec<PeerName>,
    /// Who is not, whatever the other list says.
    pub peers_deny: Vec<PeerName>,
    /// What is given to no peer, under any name of the same multihash.
    pub content_deny: Vec<ContentName>,
}

impl Serve {
    /// What this means for a want.
    pub fn policy(&self) -> Every {
        let set = |names: &[PeerName]| names.iter().map(|name| name.0).collect();
        let peers = PeerLists {
            allow: set(&self.peers_allow),
            deny: set(&self.peers_deny),
        };
        Every(vec![Arc::new(peers), Arc::new(self.denied())])
    }

    /// What no peer is given.
    pub fn denied(&self) -> DenyContent {
        let denied = self.content_deny.iter().map(|name| *name.0.hash());
        denied.collect()
    }
}

/// A CID in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContentName(pub Cid);

/// Why a text names no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no CID; it looks like bafy… or Qm…")]
pub struct ContentNameError(String);

impl TryFrom<String> for ContentName {
    type Error = ContentNameError;

    fn try_from(text: String) -> Result<Self, ContentNameError> {
        cid::parse(&text)
            .map(Self)
            .map_err(|_| ContentNameError(text))
    }
}

impl From<ContentName> for String {
    fn from(name: ContentName) -> Self {
        name.0.to_string()
    }
}

/// A peer ID in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(pub PeerId);

/// Why a text names no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no peer ID; it looks like 12D3KooW…")]
pub struct PeerNameError(String);

impl TryFrom<String> for PeerName {
    type Error = PeerNameError;

    fn try_from(text: String) -> Result<Self, PeerNameError> {
        text.parse().map(Self).map_err(|_| PeerNameError(text))
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0.to_string()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use cairn_node::bitswap::policy::Verdict;

    const DENIED: &str = "bafkreifqhdreeiuuxislpkoybyv4yg5wvxghjtydbijyq3vuuiza7zbedq";
    const DENIED_AS_DAG: &str = "bafybeifqhdreeiuuxislpkoybyv4yg5wvxghjtydbijyq3vuuiza7zbedq";

    #[test]
    fn the_lists_of_peers_are_read_and_reach_the_node() {
        let peer = "12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
        let text = format!("[serve]\npeers_deny = [\"{peer}\"]\n");
        let config = Config::parse(&text).unwrap().node(None);
        let cid = "bafkqaaa".parse().unwrap();
        let decide = |peer| config.serve.decide(&peer, &cid);
        assert_eq!(decide(peer.parse().unwrap()), Verdict::Refuse);
        assert_eq!(decide(cairn_node::PeerId::random()), Verdict::Serve);
        let text = format!("[serve]\ncontent_deny = [\"{DENIED}\"]\n");
        let config = Config::parse(&text).unwrap().node(None);
        let stranger = cairn_node::PeerId::random();
        let decide = |cid: &str| config.serve.decide(&stranger, &cid.parse().unwrap());
        // The same multihash, once as raw bytes and once as dag-pb.
        assert_eq!(decide(DENIED), Verdict::Refuse);
        assert_eq!(decide(DENIED_AS_DAG), Verdict::Refuse);
        assert_eq!(decide("bafkqaaa"), Verdict::Serve);
        let error = Config::parse("[serve]\ncontent_deny = [\"nothing\"]\n").unwrap_err();
        assert!(
            error.to_string().starts_with("serve.content_deny: "),
            "{error}"
        );
        let error = Config::parse("[serve]\npeers_allow = [\"nobody\"]\n").unwrap_err();
        assert!(
            error.to_string().starts_with("serve.peers_allow: "),
            "{error}"
        );
    }
}
