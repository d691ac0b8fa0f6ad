//! What a block is. Kubo's files are named by multihashes alone; which codec a block has, only who links to it knows.
//!
//! Blocks are found by their multihash here too, so this decides no more than with which others one lies, and by which
//! CID it is listed: those that are certain to have links lie together, for walks and marks.

use crate::cid::{DAG_CBOR, DAG_JSON, DAG_PB, RAW};
use crate::dag::value::Event;
use crate::dag::{cbor, json, pb};
use crate::unixfs::format::Message;
use bytes::Bytes;

/// The codec under which a block is kept: dag-pb if it is written just as dag-pb is and has links or is a UnixFS node,
/// dag-cbor if it is written just so and has links, dag-json if it reads as that and has links, else raw.
pub(super) fn of(data: &Bytes) -> u64 {
    match data.first() {
        // Links or data, and lists, maps or links.
        Some(0x0a | 0x12) if is_pb(data) => DAG_PB,
        Some(0x80..=0xbb | 0xd8) if has_links(data, DAG_CBOR) => DAG_CBOR,
        Some(b'{' | b'[') if has_links(data, DAG_JSON) => DAG_JSON,
        _ => RAW,
    }
}

fn is_pb(data: &Bytes) -> bool {
    let Ok(node) = pb::decode(data) else {
        return false;
    };
    let is_unixfs = || {
        let inner = node.data.as_ref();
        inner.is_some_and(|inner| Message::decode(inner).is_ok())
    };
    // Older nodes have a link's parts in no other form, but may have their data first.
    (!node.links.is_empty() || is_unixfs()) && pb::encode(&node).len() == data.len()
}

fn has_links(data: &[u8], codec: u64) -> bool {
    let mut links = 0u64;
    let mut count = |event: Event<'_>| {
        links += u64::from(matches!(event, Event::Link(_)));
        Ok(())
    };
    let read = match codec {
        DAG_CBOR => cbor::read(data, cbor::Form::Strict, &mut count),
        _ => json::read(data, json::Slash::Reserved, &mut count),
    };
    read.is_ok() && links > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid;
    use crate::dag::pb::{PbLink, PbNode};
    use crate::dag::value;
    use crate::unixfs::format::Type;

    #[test]
    fn only_what_is_certain_is_called_anything_but_raw() {
        let leaf = cid::parse("bafkqaaa").unwrap();
        let link = PbLink {
            cid: leaf,
            name: None,
            tsize: None,
        };
        let linked = PbNode {
            links: vec![link],
            data: None,
        };
        let folder = PbNode {
            links: Vec::new(),
            data: Some(Message::new(Type::Directory).encode().into()),
        };
        let other = PbNode {
            links: Vec::new(),
            data: Some(Bytes::from_static(b"\xff")),
        };
        assert_eq!(of(&pb::encode(&linked)), DAG_PB);
        assert_eq!(of(&pb::encode(&folder)), DAG_PB);
        assert_eq!(of(&pb::encode(&other)), RAW);
        let longer = [&pb::encode(&folder)[..], b"x"].concat();
        assert_eq!(of(&longer.into()), RAW);

        let with = json::decode(br#"{"a":[{"/":"bafkqaaa"}]}"#).unwrap();
        let without = json::decode(br#"{"a":[1]}"#).unwrap();
        for codec in [DAG_CBOR, DAG_JSON] {
            let bytes = |it| Bytes::from(value::encode(it, codec).unwrap());
            assert_eq!(of(&bytes(&with)), codec);
            assert_eq!(of(&bytes(&without)), RAW);
        }
        // A link alone.
        let link = cbor::encode(&json::decode(br#"{"/":"bafkqaaa"}"#).unwrap());
        assert_eq!(of(&link.into()), DAG_CBOR);
        for plain in ["", "text", "{not json", "\u{12}"] {
            assert_eq!(of(&Bytes::from_static(plain.as_bytes())), RAW);
        }
    }
}
