//! What one peer wants of us: to be looked up, to be sent, or absent; and what leaves of it in one
//! envelope.

use super::Turn;
use crate::bitswap::accounts::Weight;
use crate::bitswap::key::Key;
use crate::bitswap::message::{Absence, PresenceKind, WantKind};
use crate::bitswap::policy::{Policy, Verdict};
use cairn_store::Cid;
use libp2p::PeerId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One peer's wants, and what is under way to it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) number: u64,
    pub(super) weight: Weight,
    /// Its part of what all that are busy weigh together.
    pub(super) counted_weight: u64,
    /// Its own virtual time.
    pub(super) served: u64,
    pub(super) turn: Option<Turn>,
    pub(super) wants: BTreeMap<Key, Want>,
    /// Blocks to send: highest priority first, then in the order of asking.
    pub(super) tasks: BTreeMap<(Reverse<i32>, u64), Key>,
    /// Their bytes.
    pub(super) queued: u64,
    /// What is not here, in the order of asking.
    pub(super) absences: BTreeMap<u64, Key>,
    pub(super) unknown: VecDeque<Key>,
    pub(super) looking: bool,
    pub(super) presences: VecDeque<(Key, PresenceKind)>,
    next_order: u64,
    pub(super) outstanding: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    order: u64,
    priority: i32,
    kind: WantKind,
    absence: Absence,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Unknown,
    Queued { bytes: u64 },
    Absent,
}

/// Blocks to be read and sent to one peer, in one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bitswap) struct Envelope {
    pub(in crate::bitswap) peer: PeerId,
    pub(in crate::bitswap) blocks: Vec<(Cid, Absence)>,
    /// What it counts as while it is on its way; to be given back when it was sent, or not.
    pub(in crate::bitswap) bytes: u64,
    /// What the blocks were found to measure.
    pub(in crate::bitswap) block_bytes: u64,
    /// What is still queued for this peer.
    pub(in crate::bitswap) pending: u64,
}

/// Wants for what we do not have, by content: `(name, who)`.
pub(super) type Absentees = BTreeSet<(Key, u64)>;

impl Peer {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            weight: Weight::default(),
            counted_weight: 0,
            served: 0,
            turn: None,
            wants: BTreeMap::new(),
            tasks: BTreeMap::new(),
            queued: 0,
            absences: BTreeMap::new(),
            unknown: VecDeque::new(),
            looking: false,
            presences: VecDeque::new(),
            next_order: 0,
            outstanding: 0,
        }
    }

    pub(super) fn want(
        &mut self,
        name: Key,
        priority: i32,
        kind: WantKind,
        absence: Absence,
        absent: &mut Absentees,
    ) {
        if let Some(known) = self.wants.get(&name).copied() {
            // Asking for the block includes asking whether we have it.
            if known.kind == WantKind::Block && kind == WantKind::Have {
                return;
            }
            self.remove(&name, absent);
        } else if self.wants.len() >= WANTS_PER_PEER_MAX && !self.make_room(priority, absent) {
            return;
        }
        self.next_order += 1;
        let want = Want {
            order: self.next_order,
            priority,
            kind,
            absence,
            state: State::Unknown,
        };
        self.wants.insert(name.clone(), want);
        // Cancelled names may still lie here: they go before the list can outgrow the wants.
        if self.unknown.len() >= 2 * WANTS_PER_PEER_MAX {
            let mut seen = BTreeSet::new();
            self.unknown
                .retain(|name| self.wants.contains_key(name) && seen.insert(name.clone()));
        }
        self.unknown.push_back(name);
    }

    /// What we do not have goes first, oldest first, then what is wanted less.
    fn make_room(&mut self, priority: i32, absent: &mut Absentees) -> bool {
        let worst = match (self.absences.first_key_value(), self.tasks.last_key_value()) {
            (Some((_, name)), _) => name.clone(),
            (None, Some(((Reverse(lowest), _), name))) if *lowest < priority => name.clone(),
            _ => return false,
        };
        self.remove(&worst, absent);
        true
    }

    pub(super) fn remove(&mut self, name: &Key, absent: &mut Absentees) {
        if let Some(want) = self.wants.remove(name) {
            match want.state {
                State::Queued { bytes } => {
                    self.tasks.remove(&(Reverse(want.priority), want.order));
                    self.queued = self.queued.saturating_sub(bytes);
                }
                State::Absent => {
                    self.absences.remove(&want.order);
                    absent.remove(&(name.clone(), self.number));
                }
                State::Unknown => {}
            }
        }
    }

    pub(super) fn clear(&mut self, absent: &mut Absentees) {
        for name in self.wants.keys() {
            absent.remove(&(name.clone(), self.number));
        }
        self.wants.clear();
        self.absences.clear();
        self.tasks.clear();
        self.queued = 0;
        self.unknown.clear();
        self.presences.clear();
    }

    pub(super) fn found(&mut self, cid: &Cid, bytes: Option<u64>, absent: &mut Absentees) {
        let name = Key::name(cid);
        let Some(want) = self.wants.get_mut(&name) else {
            return; // Cancelled meanwhile.
        };
        let (before, kind, absence) = (want.state, want.kind, want.absence);
        if matches!(before, State::Queued { .. }) {
            return;
        }
        match bytes {
            None if before == State::Absent => {}
            None => {
                want.state = State::Absent;
                self.absences.insert(want.order, name.clone());
                absent.insert((name.clone(), self.number));
                if absence == Absence::Tell {
                    self.tell(name, PresenceKind::DontHave);
                }
            }
            Some(bytes) => {
                if before == State::Absent {
                    self.absences.remove(&want.order);
                    absent.remove(&(name.clone(), self.number));
                }
                if kind == WantKind::Have && bytes > HAVE_AS_BLOCK_BYTES_MAX {
                    self.wants.remove(&name);
                    self.tell(name, PresenceKind::Have);
                } else {
                    want.state = State::Queued { bytes };
                    self.queued += bytes;
                    self.tasks
                        .insert((Reverse(want.priority), want.order), name);
                }
            }
        }
    }

    pub(super) fn tell(&mut self, name: Key, kind: PresenceKind) {
        // A peer that asks and does not read loses its oldest answers, as if by the network.
        if self.presences.len() >= PRESENCES_PER_PEER_MAX {
            self.presences.pop_front();
        }
        self.presences.push_back((name, kind));
    }

    /// Whether more may be on its way: one envelope always, and as many as fit the peer's part of
    /// what is shared out among all that are busy. Little is kept back while another envelope is on its
    /// way: more will have come by then, and a message costs the same whatever is in it.
    pub(super) fn has_room(&self, busy_weight: u64) -> bool {
        if self.outstanding > 0 && self.queued < ENVELOPE_BYTES_COUNTED_MIN {
            return false;
        }
        let weight = self.weight.percent();
        let part = OUTSTANDING_BYTES_ALL * weight / busy_weight.max(weight);
        let most = part.clamp(ENVELOPE_BYTES_TARGET, OUTSTANDING_BYTES_MAX);
        let next = self.queued.min(ENVELOPE_BYTES_TARGET);
        self.outstanding == 0 || self.outstanding + next <= most
    }

    /// An envelope costs its bytes, and something for each block and for itself.
    pub(super) fn charge(&mut self, envelope: &Envelope) {
        let blocks = envelope.blocks.len() as u64 * BLOCK_BYTES_CHARGED;
        let costs = (envelope.block_bytes + blocks).max(ENVELOPE_BYTES_CHARGED_MIN);
        self.served += costs * 100 / self.weight.percent().max(1);
    }

    pub(super) fn pack(&mut self, peer: PeerId, policy: &dyn Policy) -> Option<Envelope> {
        let mut envelope = Envelope {
            peer,
            blocks: Vec::new(),
            bytes: 0,
            block_bytes: 0,
            pending: 0,
        };
        while let Some(first) = self.tasks.first_entry() {
            let name = first.get();
            let Some(Want {
                state: State::Queued { bytes },
                absence,
                ..
            }) = self.wants.get(name).copied()
            else {
                first.remove();
                continue;
            };
            let full = envelope.block_bytes + bytes > ENVELOPE_BYTES_TARGET
                || envelope.blocks.len() >= ENVELOPE_BLOCKS_MAX;
            if full && !envelope.blocks.is_empty() {
                break;
            }
            let name = first.remove();
            self.wants.remove(&name);
            self.queued = self.queued.saturating_sub(bytes);
            let Some(cid) = name.cid() else {
                continue;
            };
            if policy.decide(&peer, &cid) == Verdict::Serve {
                envelope.blocks.push((cid, absence));
                envelope.block_bytes += bytes;
            } else if absence == Absence::Tell {
                self.tell(name, PresenceKind::DontHave);
            }
        }
        if envelope.blocks.is_empty() {
            return None;
        }
        // A message costs something, however little is in it.
        envelope.bytes = envelope.block_bytes.max(ENVELOPE_BYTES_COUNTED_MIN);
        self.outstanding += envelope.bytes;
        envelope.pending = self
            .tasks
            .values()
            .filter_map(|name| self.wants.get(name))
            .take(PENDING_COUNTED_MAX)
            .map(|want| match want.state {
                State::Queued { bytes } => bytes,
                State::Unknown | State::Absent => 0,
            })
            .sum();
        Some(envelope)
    }
}

/// Wants of one peer that are kept.
pub(in crate::bitswap) const WANTS_PER_PEER_MAX: usize = 1024;
/// Up to this size the block itself is the answer to whether we have it.
pub(super) const HAVE_AS_BLOCK_BYTES_MAX: u64 = 1024;
/// Bytes that are read or being written for one peer. Kubo allows 1 MiB, which at 100 ms makes no
/// more than 10 MB/s.
pub(in crate::bitswap) const OUTSTANDING_BYTES_MAX: u64 = 4 << 20;
/// The same over all peers, who share it by their weights; but one envelope is everybody's right,
/// so that nobody waits until others have taken theirs.
pub(in crate::bitswap) const OUTSTANDING_BYTES_ALL: u64 = 64 << 20;
/// What one message should weigh: far below what a message may, so that turns are short.
pub(in crate::bitswap) const ENVELOPE_BYTES_TARGET: u64 = 1 << 20;
/// What a message counts at least, so that many small ones are bounded too.
pub(super) const ENVELOPE_BYTES_COUNTED_MIN: u64 = 64 << 10;
/// Envelopes that may be on their way to one peer: each but the last fits below the bound.
pub(in crate::bitswap) const ENVELOPES_OUTSTANDING_MAX: u64 =
    OUTSTANDING_BYTES_MAX.div_ceil(ENVELOPE_BYTES_COUNTED_MIN);
/// What an envelope costs of its peer's share at least: the work of packing and writing one.
const ENVELOPE_BYTES_CHARGED_MIN: u64 = 4 << 10;
/// What a block costs beside its bytes. More would put small blocks at a disadvantage.
const BLOCK_BYTES_CHARGED: u64 = 48;
pub(super) const ENVELOPE_BLOCKS_MAX: usize = 1024;
/// Answers waiting for one peer.
pub(super) const PRESENCES_PER_PEER_MAX: usize = WANTS_PER_PEER_MAX;
const PENDING_COUNTED_MAX: usize = 64;
