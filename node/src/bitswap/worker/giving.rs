//! What others get of us: looked up, packed, and handed to the lane of whoever asked.

use super::{Input, LOOKUPS_TOGETHER, Peer, Worker};
use crate::bitswap::behaviour::{KeepAlive, Order};
use crate::bitswap::engine::Envelope;
use crate::bitswap::message::{Message, Payload, prefix_of};
use crate::bitswap::streams::{Cargo, Lane, Outgoing};
use crate::bitswap::transport::BlockTransport;
use crate::bitswap::{Blocks, Network};
use crate::swarm::keeper::Waits;
use cairn_store::Cid;
use futures::stream::{self, StreamExt};
use libp2p::PeerId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;

impl<B: Blocks, N: Network> Worker<B, N> {
    pub(super) fn on_written(
        &mut self,
        id: PeerId,
        stay: u64,
        cargo: Cargo,
        what: &Outgoing,
        sent: bool,
    ) {
        let state = &mut self.state;
        if sent {
            let blocks = &what.message.blocks;
            self.metrics.messages_out.inc();
            self.metrics
                .wants_out
                .inc_by(what.message.wants.len() as u64);
            self.metrics.blocks_out.inc_by(blocks.len() as u64);
            let bytes = blocks.iter().map(|block| block.data.len() as u64).sum();
            self.metrics.bytes_out.inc_by(bytes);
            let weight = state.accounts.sent(&id, blocks.len() as u64, bytes);
            if let Some(keeper) = &self.wire.keeper {
                keeper.took(&id, bytes);
            }
            state.weigh(id, weight);
        }
        let Some(peer) = state.peers.get_mut(&id).filter(|peer| peer.stay == stay) else {
            return;
        };
        match cargo {
            Cargo::Words => {
                peer.words_under_way -= 1;
                if !sent && !what.message.wants.is_empty() {
                    state.client.lost(&id, &what.message.wants);
                }
                state.talkative.insert(id);
            }
            Cargo::Blocks => {
                if sent {
                    peer.intake.credit.pay_back(what.message.blocks.len());
                }
                state.engine.sent(id, what.bytes);
            }
        }
    }

    pub(super) fn on_packed(
        &mut self,
        envelope: &Envelope,
        stay: u64,
        blocks: Vec<Payload>,
        gone: &[Cid],
    ) {
        let id = envelope.peer;
        let stays = |peer: &Peer| peer.stay == stay;
        if !self.state.peers.get(&id).is_some_and(stays) {
            return; // Who came back has asked for nothing yet.
        }
        for (cid, absence) in &envelope.blocks {
            if gone.contains(cid) {
                self.state.engine.missing(id, *cid, *absence);
                self.state.talkative.insert(id);
            }
        }
        let Some(peer) = self.state.peers.get_mut(&id) else {
            return;
        };
        if blocks.is_empty() {
            self.state.engine.sent(id, envelope.bytes);
            return;
        }
        let outgoing = Outgoing {
            message: Message {
                blocks,
                pending_bytes: i32::try_from(envelope.pending).unwrap_or(i32::MAX),
                ..Message::default()
            },
            bytes: envelope.bytes,
        };
        let lane = match &mut peer.blocks {
            Some(lane) => lane.clone(),
            None => {
                let lane = self.open_lane(id, stay, Cargo::Blocks);
                if let Some(peer) = self.state.peers.get_mut(&id) {
                    peer.blocks = Some(lane.clone());
                }
                lane
            }
        };
        if lane.try_send(outgoing).is_err() {
            self.state.engine.sent(id, envelope.bytes);
        }
    }

    pub(super) fn look_up(&mut self, peer: PeerId, cids: Vec<Cid>) {
        self.state.lookups += 1;
        let (blocks, inputs) = (self.blocks.clone(), self.sinks.inputs.clone());
        self.spawn("bitswap lookup", async move {
            let found = stream::iter(cids)
                .map(|cid| {
                    let blocks = blocks.clone();
                    async move { (cid, blocks.size(&cid).await) }
                })
                .buffered(LOOKUPS_TOGETHER)
                .collect()
                .await;
            drop(inputs.send(Input::LookedUp { peer, found }).await);
        });
    }

    pub(super) fn pack(&mut self, envelope: Envelope) {
        let Some(stay) = self.state.peers.get(&envelope.peer).map(|peer| peer.stay) else {
            return;
        };
        self.state.packings += 1;
        let (store, inputs) = (self.blocks.clone(), self.sinks.inputs.clone());
        self.spawn("bitswap pack", async move {
            let read: Vec<(Cid, Option<Payload>)> = stream::iter(envelope.blocks.clone())
                .map(|(cid, _)| {
                    let store = store.clone();
                    async move {
                        let data = store.get(&cid).await;
                        let payload = data
                            .zip(prefix_of(&cid))
                            .map(|(data, prefix)| Payload { prefix, data });
                        (cid, payload)
                    }
                })
                .buffered(READS_TOGETHER)
                .collect()
                .await;
            let (mut blocks, mut missing) = (Vec::with_capacity(read.len()), Vec::new());
            for (cid, payload) in read {
                match payload {
                    Some(payload) => blocks.push(payload),
                    None => missing.push(cid),
                }
            }
            let packed = Input::Packed {
                envelope,
                stay,
                blocks,
                missing,
            };
            drop(inputs.send(packed).await);
        });
    }

    /// Tells a peer what it should know, if its lane has room; else it is asked again when it has.
    pub(super) fn talk(&mut self, id: PeerId) {
        let state = &mut self.state;
        let Some(peer) = state.peers.get_mut(&id) else {
            return;
        };
        let wanted = state.client.wanted_of(&id);
        peer.intake.wanted.store(wanted, Ordering::Relaxed);
        let keep_alive = if wanted > 0 {
            KeepAlive::Yes
        } else {
            KeepAlive::No
        };
        if peer.source.is_none() && peer.keep_alive != keep_alive {
            peer.keep_alive = keep_alive;
            state.orders.push_back(Order::KeepAlive(id, keep_alive));
            if let Some(keeper) = &self.wire.keeper {
                let waits = match keep_alive {
                    KeepAlive::Yes => Waits::Yes,
                    KeepAlive::No => Waits::No,
                };
                keeper.waits(&id, waits);
            }
        }
        let stay = peer.stay;
        loop {
            let Some(peer) = self.state.peers.get_mut(&id) else {
                return;
            };
            let silent =
                !self.state.client.has_entries(&id) && !self.state.engine.has_presences(&id);
            if silent || peer.words_under_way >= WORDS_UNDER_WAY_MAX {
                return;
            }
            let message = Message {
                wants: self.state.client.entries(&id, LINES_A_MESSAGE_MAX),
                presences: self.state.engine.take_presences(&id, LINES_A_MESSAGE_MAX),
                ..Message::default()
            };
            if message.is_empty() {
                return;
            }
            let lane = match &peer.words {
                Some(lane) => lane.clone(),
                None => {
                    let lane = self.open_lane(id, stay, Cargo::Words);
                    if let Some(peer) = self.state.peers.get_mut(&id) {
                        peer.words = Some(lane.clone());
                    }
                    lane
                }
            };
            if lane.try_send(Outgoing { message, bytes: 0 }).is_err() {
                return;
            }
            if let Some(peer) = self.state.peers.get_mut(&id) {
                peer.words_under_way += 1;
            }
        }
    }

    pub(super) fn open_lane(
        &self,
        peer: PeerId,
        stay: u64,
        cargo: Cargo,
    ) -> mpsc::Sender<Outgoing> {
        if let Some(driver) = self.driver(&peer) {
            return self.carry(driver);
        }
        let Some(known) = self.state.peers.get(&peer) else {
            return mpsc::channel(1).0;
        };
        self.carry(Lane {
            peer,
            stay,
            cargo,
            gate: Arc::clone(&known.intake.gate),
            crowded: Arc::clone(&self.state.crowded),
            orders: self.wire.orders.clone(),
            inputs: self.sinks.inputs.clone(),
        })
    }

    /// Starts a transport.
    pub(super) fn carry<T: BlockTransport>(&self, transport: T) -> mpsc::Sender<Outgoing> {
        let (outbox, inbox) = mpsc::channel(T::MESSAGES_MAX);
        self.spawn(T::TASK, transport.run(inbox));
        outbox
    }
}

/// Messages of words handed to one lane and not yet written.
const WORDS_UNDER_WAY_MAX: usize = 2;
/// Wants, and presences, in one message.
const LINES_A_MESSAGE_MAX: usize = 1024;
/// Questions to the store about others' wants, at once.
pub(super) const LOOKUPS_MAX: usize = 8;
/// Envelopes being read from the store at once.
pub(super) const PACKINGS_MAX: usize = 8;
const READS_TOGETHER: usize = 4;
