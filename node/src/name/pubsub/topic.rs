//! What the topic of a name is called: `/record/` and the name's key in the DHT, in base64url without padding.
//! go-libp2p-pubsub-router has it so, and with it Kubo.

use crate::ipns::{KEY_PREFIX, key};
use data_encoding::BASE64URL_NOPAD;
use libp2p::PeerId;

/// The topic of a name.
pub(super) fn of(name: &PeerId) -> String {
    [PREFIX, &BASE64URL_NOPAD.encode(&key(name))].concat()
}

/// Whether somebody who follows names may be on a topic of this name; cheap, so not all of them are of a name.
pub(super) fn may_be(topic: &str) -> bool {
    topic.len() <= BYTES_MAX && topic.starts_with(PREFIX)
}

/// The name whose topic it is.
pub(super) fn name_of(topic: &str) -> Option<PeerId> {
    let key = BASE64URL_NOPAD.decode(topic.strip_prefix(PREFIX)?.as_bytes());
    name_of_key(&key.ok()?)
}

/// The name of a key in the DHT.
pub(super) fn name_of_key(key: &[u8]) -> Option<PeerId> {
    PeerId::from_bytes(key.strip_prefix(KEY_PREFIX)?).ok()
}

/// What stands before the key.
const PREFIX: &str = "/record/";
/// Longest topic: that of a name of 42 bytes has 72, and keys may have longer hashes.
const BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_what_kubo_calls_it() {
        let name: PeerId = "QmUdRZhUCaB9R4mWGVbgKdnRdTWdh12fcyuNtSGQTB1oUP"
            .parse()
            .unwrap();
        let topic = of(&name);
        let bytes = BASE64URL_NOPAD.decode(topic.strip_prefix("/record/").unwrap().as_bytes());
        assert_eq!(bytes.unwrap(), [b"/ipns/", &name.to_bytes()[..]].concat());
        assert!(topic.starts_with("/record/L2lwbnMv"), "{topic}");
        assert!(may_be(&topic));
        assert_eq!(name_of(&topic), Some(name));
        assert_eq!(name_of_key(&key(&name)), Some(name));
    }

    #[test]
    fn other_topics_are_not_remembered() {
        assert!(!may_be("chat"));
        assert!(!may_be(&["/record/", &"A".repeat(BYTES_MAX)].concat()));
        assert_eq!(name_of_key(b"/pk/x"), None);
        assert_eq!(name_of_key(b"/ipns/x"), None);
    }
}
