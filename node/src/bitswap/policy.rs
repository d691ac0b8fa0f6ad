//! Whom we give what: the one question that is asked before a block is served.
//!
//! What is refused is answered as if it were not here, so that nobody learns what is refused and
//! what is absent. [`Policy`] is the hook: whoever starts a node may hand it one of their own, and
//! several are joined in [`Every`].

use cairn_store::Cid;
use cairn_store::cid::Multihash;
use libp2p::PeerId;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// Whom we give what. Asked for every want when its block is found here, and again when the block
/// is about to be read; so it must be quick, and may change its mind.
pub trait Policy: fmt::Debug + Send + Sync {
    /// Whether `peer` may have what `cid` names.
    fn decide(&self, peer: &PeerId, cid: &Cid) -> Verdict;

    /// Whether nobody at all may have it, so that nobody need be told that it is here.
    fn is_for_nobody(&self, _cid: &Cid) -> bool {
        false
    }
}

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Serve,
    /// It may not.
    Refuse,
}

/// Everything to everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServeAll;

impl Policy for ServeAll {
    fn decide(&self, _: &PeerId, _: &Cid) -> Verdict {
        Verdict::Serve
    }
}

/// Everything but this content, whatever its codec and version.
#[derive(Debug, Clone, Default)]
pub struct DenyContent {
    multihashes: HashSet<Multihash>,
}

impl FromIterator<Multihash> for DenyContent {
    fn from_iter<I: IntoIterator<Item = Multihash>>(multihashes: I) -> Self {
        Self {
            multihashes: multihashes.into_iter().collect(),
        }
    }
}

impl DenyContent {
    /// Whether it is denied to everybody.
    pub fn names(&self, cid: &Cid) -> bool {
        self.multihashes.contains(cid.hash())
    }
}

impl Policy for DenyContent {
    fn decide(&self, _: &PeerId, cid: &Cid) -> Verdict {
        if self.names(cid) {
            Verdict::Refuse
        } else {
            Verdict::Serve
        }
    }

    fn is_for_nobody(&self, cid: &Cid) -> bool {
        self.names(cid)
    }
}

/// Everything, but not to everybody: who is denied gets nothing, and if anybody is allowed by name,
/// so do all who are not.
#[derive(Debug, Clone, Default)]
pub struct PeerLists {
    /// Who is served; nobody named for everybody.
    pub allow: HashSet<PeerId>,
    /// Who is not, whatever the other list says.
    pub deny: HashSet<PeerId>,
}

impl Policy for PeerLists {
    fn decide(&self, peer: &PeerId, _: &Cid) -> Verdict {
        let allowed = self.allow.is_empty() || self.allow.contains(peer);
        if allowed && !self.deny.contains(peer) {
            Verdict::Serve
        } else {
            Verdict::Refuse
        }
    }
}

/// What every one of these serves.
#[derive(Debug, Clone, Default)]
pub struct Every(pub Vec<Arc<dyn Policy>>);

impl Policy for Every {
    fn decide(&self, peer: &PeerId, cid: &Cid) -> Verdict {
        let refuses = |policy: &Arc<dyn Policy>| policy.decide(peer, cid) == Verdict::Refuse;
        if self.0.iter().any(refuses) {
            Verdict::Refuse
        } else {
            Verdict::Serve
        }
    }

    fn is_for_nobody(&self, cid: &Cid) -> bool {
        self.0.iter().any(|policy| policy.is_for_nobody(cid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_store::cid::{DAG_PB, RAW};

    fn cid(byte: u8) -> Cid {
        Cid::new_v1(RAW, Multihash::wrap(0x12, &[byte; 32]).unwrap())
    }

    #[test]
    fn content_is_denied_under_every_name() {
        let policy: DenyContent = [*cid(1).hash()].into_iter().collect();
        let peer = PeerId::random();
        let other_name = Cid::new_v1(DAG_PB, *cid(1).hash());
        assert_eq!(policy.decide(&peer, &cid(1)), Verdict::Refuse);
        assert_eq!(policy.decide(&peer, &other_name), Verdict::Refuse);
        assert_eq!(policy.decide(&peer, &cid(2)), Verdict::Serve);
    }

    #[test]
    fn who_is_denied_gets_nothing_and_who_is_allowed_excludes_the_others() {
        let (friend, stranger) = (PeerId::random(), PeerId::random());
        let decide = |lists: &PeerLists, peer| lists.decide(peer, &cid(1));
        let mut lists = PeerLists::default();
        assert_eq!(decide(&lists, &stranger), Verdict::Serve);
        lists.deny.insert(stranger);
        assert_eq!(decide(&lists, &stranger), Verdict::Refuse);
        assert_eq!(decide(&lists, &friend), Verdict::Serve);
        lists = PeerLists::default();
        lists.allow.insert(friend);
        assert_eq!(decide(&lists, &friend), Verdict::Serve);
        assert_eq!(decide(&lists, &stranger), Verdict::Refuse);
        lists.deny.insert(friend);
        assert_eq!(decide(&lists, &friend), Verdict::Refuse);
    }

    #[test]
    fn of_several_each_may_refuse() {
        let peer = PeerId::random();
        let deny: DenyContent = [*cid(1).hash()].into_iter().collect();
        let every = Every(vec![Arc::new(ServeAll), Arc::new(deny)]);
        assert_eq!(every.decide(&peer, &cid(1)), Verdict::Refuse);
        assert!(every.is_for_nobody(&cid(1)) && !every.is_for_nobody(&cid(2)));
        assert_eq!(every.decide(&peer, &cid(2)), Verdict::Serve);
        assert_eq!(Every::default().decide(&peer, &cid(1)), Verdict::Serve);
    }
}
