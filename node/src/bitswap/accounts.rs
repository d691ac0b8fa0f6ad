//! What was exchanged with whom, and what that earns: the ledger that `bitswap ledger` prints.
//!
//! An account outlives its peer's connections, so that who gave is known when it comes back; those
//! of peers that left are bounded. Only blocks that were wanted earn anything: a flood of others
//! does not.

use libp2p::PeerId;
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

/// What was exchanged with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Since when this is counted.
    pub since: SystemTime,
    /// Blocks that it sent, wanted or not.
    pub blocks_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Blocks that it was sent.
    pub blocks_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages that it sent.
    pub messages_received: u64,
    /// Messages that it was sent.
    pub messages_sent: u64,
    /// What it gave and took lately, in wanted bytes.
    gave: u64,
    took: u64,
    /// When it left, in the order of leaving; `None` while it is here.
    left: Option<u64>,
}

impl Account {
    fn new(now: SystemTime) -> Self {
        Self {
            since: now,
            blocks_received: 0,
            bytes_received: 0,
            blocks_sent: 0,
            bytes_sent: 0,
            messages_received: 0,
            messages_sent: 0,
            gave: 0,
            took: 0,
            left: None,
        }
    }

    fn is_worth_keeping(&self) -> bool {
        self.blocks_received > 0 || self.blocks_sent > 0
    }

    /// The more of what passed between us came from it, the more it weighs. Little earns little.
    fn weight(&self) -> Weight {
        let whole = self.gave + self.took + EARNED_BY_HALF_BYTES;
        Weight(WEIGHT_PLAIN + (WEIGHT_MAX - WEIGHT_PLAIN) * self.gave / whole)
    }

    /// What is long ago counts less and less.
    fn forget(&mut self) {
        while self.gave + self.took > REMEMBERED_BYTES {
            self.gave /= 2;
            self.took /= 2;
        }
    }
}

/// How much of what is shared out a peer gets, in percent of what one gets that gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight(u64);

impl Default for Weight {
    fn default() -> Self {
        Self(WEIGHT_PLAIN)
    }
}

impl Weight {
    /// In percent.
    pub(super) const fn percent(self) -> u64 {
        self.0
    }

    #[cfg(test)]
    pub(super) const MAX: Self = Self(WEIGHT_MAX);
}

/// Everybody's account.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: HashMap<PeerId, Account>,
    /// Who is gone, longest ago first.
    gone: BTreeMap<u64, PeerId>,
    next: u64,
}

impl Accounts {
    /// A peer is here, perhaps again; gives what it earned.
    pub(super) fn arrived(&mut self, peer: PeerId) -> Weight {
        let account = self
            .accounts
            .entry(peer)
            .or_insert_with(|| Account::new(SystemTime::now()));
        if let Some(left) = account.left.take() {
            self.gone.remove(&left);
        }
        account.weight()
    }

    /// A peer is gone. Its account stays for as long as there is room.
    pub(super) fn left(&mut self, peer: &PeerId) {
        let Some(account) = self.accounts.get_mut(peer) else {
            return;
        };
        if !account.is_worth_keeping() {
            self.accounts.remove(peer);
            return;
        }
        self.next += 1;
        account.left = Some(self.next);
        self.gone.insert(self.next, *peer);
        if self.gone.len() > GONE_KEPT_MAX
            && let Some((_, oldest)) = self.gone.pop_first()
        {
            self.accounts.remove(&oldest);
        }
    }

    /// A message came.
    pub(super) fn heard(&mut self, peer: &PeerId) {
        if let Some(account) = self.accounts.get_mut(peer) {
            account.messages_received += 1;
        }
    }

    /// A block came, of which `wanted` bytes were; gives what the peer has earned by now.
    pub(super) fn received(&mut self, peer: &PeerId, bytes: u64, wanted: u64) -> Weight {
        let Some(account) = self.accounts.get_mut(peer) else {
            return Weight::default();
        };
        account.blocks_received += 1;
        account.bytes_received += bytes;
        account.gave += wanted;
        account.forget();
        account.weight()
    }

    /// A message left; gives what the peer has earned by now.
    pub(super) fn sent(&mut self, peer: &PeerId, blocks: u64, bytes: u64) -> Weight {
        let Some(account) = self.accounts.get_mut(peer) else {
            return Weight::default();
        };
        account.messages_sent += 1;
        account.blocks_sent += blocks;
        account.bytes_sent += bytes;
        account.took += bytes;
        account.forget();
        account.weight()
    }

    /// One peer's account, if there is one.
    pub(super) fn of(&self, peer: &PeerId) -> Option<Account> {
        self.accounts.get(peer).copied()
    }
}

/// What a peer weighs that gave nothing, and what one can weigh at most, in percent. The ratio of
/// the two is what others are left with at least.
const WEIGHT_PLAIN: u64 = 100;
const WEIGHT_MAX: u64 = 400;
/// What a peer must give, and take nothing, for half of what can be earned. A few blocks given
/// to get many are not worth it.
const EARNED_BY_HALF_BYTES: u64 = 32 << 20;
/// How far back giving and taking are remembered in full.
const REMEMBERED_BYTES: u64 = 4 << 30;
/// Accounts kept of peers that are gone; about 200 bytes each.
const GONE_KEPT_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn who_gives_weighs_more_within_bounds_and_who_takes_less_again() {
        let (mut accounts, peer) = (Accounts::default(), PeerId::random());
        assert_eq!(accounts.arrived(peer), Weight::default());
        assert!(accounts.received(&peer, 1000, 1000).percent() <= 101);
        assert_eq!(accounts.received(&peer, 32 * MIB, 32 * MIB).percent(), 250);
        let weight = accounts.received(&peer, 1 << 40, 1 << 40);
        assert!(
            weight.percent() > 390 && weight.percent() <= 400,
            "{weight:?}"
        );
        let mut weight = weight.percent();
        while weight > 105 {
            let next = accounts.sent(&peer, 1, 1 << 30).percent();
            assert!(next < weight, "{next} after {weight}");
            weight = next;
        }
        assert!(weight >= 100);
    }

    #[test]
    fn what_was_not_wanted_earns_nothing() {
        let (mut accounts, peer) = (Accounts::default(), PeerId::random());
        accounts.arrived(peer);
        assert_eq!(accounts.received(&peer, 1 << 40, 0), Weight::default());
        assert_eq!(accounts.of(&peer).unwrap().bytes_received, 1 << 40);
    }

    #[test]
    fn an_account_is_there_again_when_its_peer_comes_back() {
        let (mut accounts, peer) = (Accounts::default(), PeerId::random());
        accounts.arrived(peer);
        accounts.heard(&peer);
        accounts.received(&peer, 32 * MIB, 32 * MIB);
        accounts.sent(&peer, 3, 7);
        accounts.left(&peer);
        assert!(accounts.arrived(peer).percent() > 200);
        assert!(accounts.gone.is_empty());
        let account = accounts.of(&peer).unwrap();
        assert_eq!(
            (account.blocks_received, account.bytes_received),
            (1, 32 * MIB)
        );
        assert_eq!((account.blocks_sent, account.bytes_sent), (3, 7));
        assert_eq!((account.messages_received, account.messages_sent), (1, 1));
    }

    #[test]
    fn only_so_many_are_kept_of_those_that_left_and_none_of_those_that_did_nothing() {
        let mut accounts = Accounts::default();
        let peers: Vec<PeerId> = (0..=GONE_KEPT_MAX).map(|_| PeerId::random()).collect();
        for peer in &peers {
            accounts.arrived(*peer);
            accounts.received(peer, 1, 1);
            accounts.left(peer);
            let passer_by = PeerId::random();
            accounts.arrived(passer_by);
            accounts.left(&passer_by);
        }
        assert_eq!(accounts.accounts.len(), GONE_KEPT_MAX);
        assert_eq!(accounts.of(&peers[0]), None);
        assert!(accounts.of(&peers[1]).is_some());
    }
}
