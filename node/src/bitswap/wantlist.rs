//! What one peer should know of our wants, and what it was told.
//!
//! Changes are not sent as they happen: the list only remembers what is wanted now and what the
//! peer believes, and a message is made of the difference when there is room for one. A want that
//! came and went in between costs nothing.

use super::key::Key;
use super::message::{Absence, Change, Entry, WantKind};
use super::recent::Recent;
use cairn_store::Cid;
use std::collections::{HashMap, HashSet, VecDeque};

/// Our side of one peer's copy of our want list.
#[derive(Debug, Default)]
pub(super) struct WantList {
    wanted: HashMap<Key, (Cid, WantKind)>,
    told: HashMap<Key, Told>,
    /// What may differ; a key may stand here twice.
    changed: VecDeque<Key>,
    /// Cancelled before the peer answered: its answer may be under way all the same.
    unanswered: Recent<UNANSWERED_MAX>,
}

/// What the peer believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Wants(Cid, WantKind),
    /// What it was told may have been lost, or not.
    Perhaps(Cid),
    /// It answered. Some (Helia) answer a want once a connection unless it is cancelled.
    Answered(Cid),
}

impl WantList {
    /// Wants this of the peer. A want for the block itself is more than one for its presence.
    pub(super) fn want(&mut self, key: &Key, cid: Cid, kind: WantKind) {
        let before = self.wanted.insert(key.clone(), (cid, kind));
        // Wanted again of a peer that has answered: it is asked again.
        let is_open = matches!(self.told.get(key), Some(Told::Wants(..)));
        if before != Some((cid, kind)) || !is_open {
            self.differs(key);
        }
    }

    /// Something may have to be said about this.
    fn differs(&mut self, key: &Key) {
        self.changed.push_back(key.clone());
        if self.changed.len() > CHANGED_SLACK + 2 * (self.wanted.len() + self.told.len()) {
            let mut once = HashSet::new();
            let (wanted, told) = (&self.wanted, &self.told);
            self.changed.retain(|key| {
                let matters = wanted.contains_key(key) || told.contains_key(key);
                matters && once.insert(key.clone())
            });
        }
    }

    /// Wants no more than to hear of it.
    pub(super) fn only_have(&mut self, key: &Key) {
        if let Some((_, kind)) = self.wanted.get_mut(key)
            && *kind == WantKind::Block
        {
            *kind = WantKind::Have;
            self.differs(key);
        }
    }

    /// Does not want it any more.
    pub(super) fn cancel(&mut self, key: &Key) {
        if self.wanted.remove(key).is_some() {
            self.differs(key);
        }
    }

    /// The peer answered: with the block, or that it has none.
    pub(super) fn answered(&mut self, key: &Key) {
        if let Some(Told::Wants(cid, _) | Told::Perhaps(cid)) = self.told.get(key).copied() {
            self.told.insert(key.clone(), Told::Answered(cid));
        }
    }

    /// As if it had never been wanted of this peer, which forgot it too.
    pub(super) fn forget(&mut self, key: &Key) {
        self.wanted.remove(key);
        self.told.remove(key);
    }

    /// Says everything again that is wanted: what was said may have been lost.
    pub(super) fn repeat(&mut self) {
        for told in self.told.values_mut() {
            if let Told::Wants(cid, _) = *told {
                *told = Told::Perhaps(cid);
            }
        }
        // What is not wanted any more is still to be cancelled.
        let over = self
            .told
            .keys()
            .filter(|key| !self.wanted.contains_key(key));
        self.changed = self.wanted.keys().chain(over).cloned().collect();
    }

    /// These lines were said and not heard: all that is wanted is said again, and so are they that
    /// took something back.
    pub(super) fn lost(&mut self, lines: &[Entry]) {
        for Entry { cid, change } in lines {
            if *change == Change::Cancel {
                self.told
                    .entry(Key::content(cid))
                    .or_insert(Told::Answered(*cid));
            }
        }
        self.repeat();
    }

    /// Whether the peer was told that we want this, now or until not long ago.
    pub(super) fn knows(&self, key: &Key) -> bool {
        self.told.contains_key(key) || self.unanswered.has(key)
    }

    /// Wanted itself, and not only to hear of, and not answered yet.
    pub(super) fn owed(&self) -> impl Iterator<Item = &Key> {
        let is_owed = |(key, (_, kind)): &(&Key, &(Cid, WantKind))| {
            let told = self.told.get(*key);
            *kind == WantKind::Block && matches!(told, Some(Told::Wants(_, WantKind::Block)))
        };
        self.wanted.iter().filter(is_owed).map(|(key, _)| key)
    }

    /// How much is wanted.
    pub(super) fn len(&self) -> usize {
        self.wanted.len()
    }

    /// Whether there may be something to say.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What is to be said now, at most `max` lines and never a cancel and a want of one CID.
    pub(super) fn take(&mut self, max: usize) -> Vec<Entry> {
        let mut lines = Vec::new();
        let mut again = HashSet::new();
        while lines.len() < max {
            let Some(key) = self.changed.pop_front() else {
                break;
            };
            if again.contains(&key) {
                continue;
            }
            let wanted = self.wanted.get(&key).copied();
            match (wanted, self.told.get(&key).copied()) {
                (Some((now, kind)), Some(Told::Wants(before, told)))
                    if now == before && (kind == told || told == WantKind::Block) => {}
                (Some(_), Some(Told::Answered(cid))) => {
                    lines.push(Entry {
                        cid,
                        change: Change::Cancel,
                    });
                    self.told.remove(&key);
                    again.insert(key);
                }
                (Some((cid, kind)), _) => {
                    self.told.insert(key, Told::Wants(cid, kind));
                    lines.push(Entry {
                        cid,
                        change: Change::Want {
                            priority: 1,
                            kind,
                            absence: Absence::Tell,
                        },
                    });
                }
                (None, Some(told)) => {
                    self.told.remove(&key);
                    let cid = match told {
                        Told::Wants(cid, _) | Told::Perhaps(cid) => {
                            self.unanswered.add(key, ());
                            cid
                        }
                        Told::Answered(cid) => cid,
                    };
                    lines.push(Entry {
                        cid,
                        change: Change::Cancel,
                    });
                }
                (None, None) => {}
            }
        }
        self.changed.extend(again);
        lines
    }
}

/// Changes noted beyond two for each want: of a peer that reads nothing they are gathered up.
const CHANGED_SLACK: usize = 1024;
/// More than a peer answers at once: others cut our list at as many.
const UNANSWERED_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::seeds;
    use super::*;
    use cairn_store::cid;

    #[test]
    fn what_came_and_went_while_nobody_listened_is_not_kept() {
        let mut list = WantList::default();
        for at in 0..20_000 {
            let cid = seeds::raw(at);
            let key = Key::content(&cid);
            list.want(&key, cid, WantKind::Block);
            list.cancel(&key);
            assert!(list.changed.len() <= CHANGED_SLACK + 2, "{at}");
        }
        let (kept, gone) = (seeds::raw(1), seeds::raw(2));
        list.want(&Key::content(&kept), kept, WantKind::Block);
        assert!(list.take(10).iter().map(|line| line.cid).eq([kept]));
        // What was said has to be taken back, however much comes between.
        list.cancel(&Key::content(&kept));
        for _ in 0..CHANGED_SLACK * 2 {
            list.want(&Key::content(&gone), gone, WantKind::Block);
            list.cancel(&Key::content(&gone));
        }
        let said = list.take(CHANGED_SLACK * 4);
        assert!(
            said.iter()
                .map(|line| (line.cid, line.change))
                .eq([(kept, Change::Cancel)])
        );
    }

    fn cid() -> (Key, Cid) {
        let cid =
            cid::parse("bafybeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe").unwrap();
        (Key::content(&cid), cid)
    }

    fn said(list: &mut WantList) -> Vec<Option<WantKind>> {
        list.take(10)
            .into_iter()
            .map(|entry| match entry.change {
                Change::Want { kind, .. } => Some(kind),
                Change::Cancel => None,
            })
            .collect()
    }

    #[test]
    fn only_the_latest_state_is_said() {
        let (mut list, (key, cid)) = (WantList::default(), cid());
        list.want(&key, cid, WantKind::Have);
        list.cancel(&key);
        assert_eq!(said(&mut list), []);
        list.want(&key, cid, WantKind::Have);
        list.want(&key, cid, WantKind::Block);
        assert_eq!(said(&mut list), [Some(WantKind::Block)]);
        list.cancel(&key);
        list.want(&key, cid, WantKind::Block);
        assert_eq!(said(&mut list), []);
        list.cancel(&key);
        assert_eq!(said(&mut list), [None]);
        assert!(!list.has_changes());
    }

    #[test]
    fn an_answered_want_is_cancelled_before_it_is_wanted_again() {
        let (mut list, (key, cid)) = (WantList::default(), cid());
        list.want(&key, cid, WantKind::Block);
        said(&mut list);
        list.answered(&key);
        list.cancel(&key);
        list.want(&key, cid, WantKind::Block);
        assert_eq!(said(&mut list), [None]);
        assert_eq!(said(&mut list), [Some(WantKind::Block)]);
    }

    #[test]
    fn a_cancelled_want_is_known_until_it_is_answered() {
        let (mut list, (key, cid)) = (WantList::default(), cid());
        list.want(&key, cid, WantKind::Block);
        assert!(!list.knows(&key));
        said(&mut list);
        assert!(list.knows(&key));
        list.cancel(&key);
        assert_eq!(said(&mut list), [None]);
        assert!(list.knows(&key));
        let mut other = WantList::default();
        other.want(&key, cid, WantKind::Block);
        said(&mut other);
        other.answered(&key);
        other.cancel(&key);
        said(&mut other);
        assert!(!other.knows(&key));
    }

    #[test]
    fn a_cancel_that_was_lost_or_not_said_yet_is_said_after_all() {
        let (mut list, (key, cid)) = (WantList::default(), cid());
        list.want(&key, cid, WantKind::Block);
        said(&mut list);
        list.cancel(&key);
        list.repeat();
        let lines = list.take(10);
        assert!(matches!(
            lines[..],
            [Entry {
                change: Change::Cancel,
                ..
            }]
        ));
        list.lost(&lines);
        assert_eq!(said(&mut list), [None]);
        assert!(!list.has_changes());
        // Of two messages the first was heard, and nothing is wanted before it is said again.
        list.want(&key, cid, WantKind::Have);
        said(&mut list);
        list.want(&key, cid, WantKind::Block);
        let lines = list.take(10);
        list.lost(&lines);
        list.cancel(&key);
        assert_eq!(said(&mut list), [None]);
    }

    #[test]
    fn a_repeated_list_is_said_whole() {
        let (mut list, (key, cid)) = (WantList::default(), cid());
        list.want(&key, cid, WantKind::Block);
        said(&mut list);
        list.repeat();
        assert_eq!(said(&mut list), [Some(WantKind::Block)]);
        assert_eq!(list.len(), 1);
    }
}
