//! libp2p's gossipsub with our settings: as Kubo has it where peers see it, and with bounds.
//!
//! Messages are signed by whoever publishes them and checked strictly; their IDs are go-libp2p's, or else what one
//! implementation offers the other would not know by its ID. Nothing is passed on before we have called it valid.
//! What is too large, or of a name that nobody follows here, goes before it takes room anywhere.

use super::topic;
use crate::ipns::RECORD_BYTES_MAX;
use libp2p::gossipsub::{
    self, ConfigBuilder, DataTransform, IdentTopic, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, RawMessage, TopicHash,
    TopicSubscriptionFilter, ValidationMode,
};
use libp2p::identity::Keypair;
use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// libp2p's behaviour, as it is used here.
pub(crate) type Gossip = gossipsub::Behaviour<Screen, MaxCountSubscriptionFilter<OfNames>>;

/// The topics that we are on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ours(Arc<Mutex<HashSet<TopicHash>>>);

impl Ours {
    pub(super) fn has(&self, topic: &TopicHash) -> bool {
        self.lock().contains(topic)
    }

    pub(super) fn add(&self, topic: &IdentTopic) {
        self.lock().insert(topic.hash());
    }

    pub(super) fn remove(&self, topic: &IdentTopic) {
        self.lock().remove(&topic.hash());
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<TopicHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Remembers of the topics that others are on those that may be a name's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OfNames;

impl TopicSubscriptionFilter for OfNames {
    fn can_subscribe(&mut self, topic: &TopicHash) -> bool {
        topic::may_be(topic.as_str())
    }
}

/// Lets nothing through that cannot be a record of a name that is followed here.
#[derive(Debug)]
pub(crate) struct Screen(Ours);

impl DataTransform for Screen {
    fn inbound_transform(&self, raw: RawMessage) -> io::Result<Message> {
        if raw.data.len() > RECORD_BYTES_MAX {
            return Err(io::Error::other("longer than any record"));
        }
        if !self.0.has(&raw.topic) {
            return Err(io::Error::other("of a topic that nobody is on here"));
        }
        Ok(Message {
            source: raw.source,
            data: raw.data,
            sequence_number: raw.sequence_number,
            topic: raw.topic,
        })
    }

    fn outbound_transform(&self, _: &TopicHash, data: Vec<u8>) -> io::Result<Vec<u8>> {
        Ok(data)
    }
}

/// Gossipsub over these topics. An error would be a mistake in the settings below.
pub(super) fn build(keys: &Keypair, ours: &Ours) -> Result<Gossip, String> {
    let config = ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(id)
        .flood_publish(true)
        .heartbeat_initial_delay(HEARTBEAT_DELAY)
        .max_transmit_size(RPC_BYTES_MAX)
        .max_publish_messages(MESSAGES_PER_RPC_MAX)
        .connection_handler_queue_len(QUEUE_MAX)
        // Whom others name is not dialled.
        .prune_peers(0)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: OfNames,
        max_subscribed_topics: TOPICS_PER_PEER_MAX,
        max_subscriptions_per_request: SUBSCRIPTIONS_PER_RPC_MAX,
    };
    let author = MessageAuthenticity::Signed(keys.clone());
    let mut gossip = Gossip::new_with_subscription_filter_and_transform(
        author,
        config,
        filter,
        Screen(ours.clone()),
    )?;
    let scores = PeerScoreParams {
        // What the behaviour around this says of a peer counts as it is.
        app_specific_weight: 1.0,
        // Neighbours share an address; how many connections one may have is bounded elsewhere.
        ip_colocation_factor_weight: 0.0,
        retain_score: SCORE_KEPT,
        ..PeerScoreParams::default()
    };
    let thresholds = PeerScoreThresholds {
        graylist_threshold: IGNORED_BELOW,
        ..PeerScoreThresholds::default()
    };
    gossip.with_peer_score(scores, thresholds)?;
    Ok(gossip)
}

/// How go-libp2p names a message: by its author and the author's number for it.
fn id(message: &Message) -> MessageId {
    let mut id = message
        .source
        .map(|source| source.to_bytes())
        .unwrap_or_default();
    if let Some(number) = message.sequence_number {
        id.extend_from_slice(&number.to_be_bytes());
    }
    MessageId::from(id)
}

/// Names of the protocol that peers are told of, the newest first.
pub(crate) const PROTOCOLS: [&str; 4] = [
    "/meshsub/1.3.0",
    "/meshsub/1.2.0",
    "/meshsub/1.1.0",
    "/meshsub/1.0.0",
];

/// Whose score is below this is not listened to.
pub(super) const IGNORED_BELOW: f64 = -80.0;

/// When the mesh is looked after first; every second from then on.
const HEARTBEAT_DELAY: Duration = Duration::from_millis(100);
/// Longest of what comes at once: a peer that follows two thousand names says so in one piece when it comes.
const RPC_BYTES_MAX: usize = 256 << 10;
/// Messages in it, of up to [`RECORD_BYTES_MAX`] each.
const MESSAGES_PER_RPC_MAX: usize = 16;
/// Messages that may wait for one peer to take them.
const QUEUE_MAX: usize = 128;
/// Topics that one peer may be on, about 120 bytes each.
const TOPICS_PER_PEER_MAX: usize = 2048;
/// How many a peer may enter and leave at once.
const SUBSCRIPTIONS_PER_RPC_MAX: usize = 4096;
/// How long it is remembered who behaved badly and left.
const SCORE_KEPT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    #[test]
    fn a_message_is_named_as_go_libp2p_names_it() {
        let source = PeerId::random();
        let message = Message {
            source: Some(source),
            data: b"a".to_vec(),
            sequence_number: Some(258),
            topic: TopicHash::from_raw("t"),
        };
        let expected = [&source.to_bytes()[..], &[0, 0, 0, 0, 0, 0, 1, 2]].concat();
        assert_eq!(id(&message).0, expected);
    }

    #[test]
    fn what_is_no_record_of_ours_takes_no_room() {
        let (ours, topic) = (Ours::default(), IdentTopic::new("/record/AA"));
        let screen = Screen(ours.clone());
        let raw = |bytes: usize| RawMessage {
            source: None,
            data: vec![0; bytes],
            sequence_number: None,
            topic: topic.hash(),
            signature: None,
            key: None,
            validated: false,
        };
        assert!(screen.inbound_transform(raw(1)).is_err());
        ours.add(&topic);
        assert!(screen.inbound_transform(raw(RECORD_BYTES_MAX)).is_ok());
        assert!(screen.inbound_transform(raw(RECORD_BYTES_MAX + 1)).is_err());
        ours.remove(&topic);
        assert!(screen.inbound_transform(raw(1)).is_err());
    }
}
