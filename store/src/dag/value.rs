//! The IPLD data model, as far as dag-cbor and dag-json need it.
//!
//! Readers of bytes give [`Event`]s; [`Builder`] makes a [`Value`] of them.

use super::{DEPTH_MAX, DecodeError, cbor, json, pb};
use crate::block::Block;
use crate::cid::{self, Cid};
use bytes::Bytes;
use std::borrow::Cow;

/// A value. Maps keep the order they were read in.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer of up to 64 bits and a sign.
    Integer(i128),
    /// A finite number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Bytes),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Map(Vec<(String, Value)>),
    /// A link to another block. Apart, because a CID takes more room than any other value.
    Link(Box<Cid>),
}

/// Why a value cannot be written in a codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot write this as {codec}: {why}")]
pub struct EncodeError {
    /// The codec's name.
    pub codec: String,
    /// What does not fit.
    pub why: String,
}

/// Most values inside one block that are built at once: each takes a fixed amount of memory,
/// however few bytes it had.
pub const VALUES_MAX: usize = 1 << 18;

impl Value {
    /// The value below this one at `path`: names in maps, indices in lists. Links are not followed.
    pub fn get<S: AsRef<str>>(&self, path: &[S]) -> Option<&Self> {
        path.iter()
            .try_fold(self, |value, step| value.child(step.as_ref()))
    }

    /// The value directly below this one.
    pub fn child(&self, step: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries
                .iter()
                .find(|(key, _)| key == step)
                .map(|(_, value)| value),
            Self::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        }
    }
}

/// The value that a block holds. A dag-pb node is shown as its data model has it
/// (`Data`, `Links` of `Hash`, `Name`, `Tsize`); a raw block is its bytes.
pub fn from_block(block: &Block) -> Result<Value, DecodeError> {
    let data = block.data();
    let codec = block.cid().codec();
    let decoded = match codec {
        cid::DAG_PB => pb::decode(data).map(from_pb),
        cid::DAG_CBOR => cbor::decode_as(data, cbor::Form::Lenient),
        cid::CBOR => cbor::decode_as(data, cbor::Form::Plain),
        cid::DAG_JSON => json::decode(data),
        cid::JSON => json::decode_plain(data),
        cid::RAW | cid::LIBP2P_KEY => Ok(Value::Bytes(data.clone())),
        _ => Err("no decoder for this codec".to_owned()),
    };
    decoded.map_err(|why| DecodeError::new(block.cid(), why))
}

/// The bytes of a value in a codec. dag-pb takes the shape that [`from_block`] gives and sorts its
/// links by name; raw takes bytes.
pub fn encode(value: &Value, codec: u64) -> Result<Vec<u8>, EncodeError> {
    let failed = |why: String| EncodeError {
        codec: super::codec_text(codec),
        why,
    };
    match codec {
        cid::DAG_PB => to_pb(value)
            .map(|node| pb::encode(&node).to_vec())
            .map_err(failed),
        cid::DAG_CBOR => Ok(cbor::encode(value)),
        cid::DAG_JSON => Ok(json::encode(value)),
        cid::CBOR | cid::JSON if holds_link(value) => {
            Err(failed("it has a link, and this codec has none".to_owned()))
        }
        cid::CBOR => Ok(cbor::encode(value)),
        cid::JSON if holds_bytes(value) => {
            Err(failed("it has bytes, and this codec has none".to_owned()))
        }
        cid::JSON => Ok(json::encode(value)),
        cid::RAW => match value {
            Value::Bytes(bytes) => Ok(bytes.to_vec()),
            _ => Err(failed("only bytes can be a raw block".to_owned())),
        },
        _ => Err(failed("no encoder for this codec".to_owned())),
    }
}

/// What a reader of bytes met.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Link(Cid),
    /// A list begins.
    List,
    /// A map begins.
    Map,
    /// The key of the map's next value.
    Key(Cow<'a, str>),
    /// The innermost list or map ends.
    End,
}

/// Builds a value from events.
#[derive(Default)]
pub(crate) struct Builder {
    open: Vec<Open>,
    whole: Option<Value>,
    values: usize,
}

enum Open {
    List(Vec<Value>),
    Map(Vec<(String, Value)>, String),
}

impl Builder {
    pub(crate) fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
        let value = match event {
            Event::Null => Value::Null,
            Event::Bool(truth) => Value::Bool(truth),
            Event::Integer(number) => Value::Integer(number),
            Event::Float(number) => Value::Float(number),
            Event::Text(text) => Value::Text(text.into_owned()),
            Event::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
            Event::Link(cid) => Value::Link(Box::new(cid)),
            Event::List => return self.open(Open::List(Vec::new())),
            Event::Map => return self.open(Open::Map(Vec::new(), String::new())),
            Event::Key(name) => {
                if let Some(Open::Map(_, key)) = self.open.last_mut() {
                    *key = name.into_owned();
                }
                return Ok(());
            }
            Event::End => match self.open.pop() {
                // Room for more than one would be most of what a list of one takes.
                Some(Open::List(mut items)) => {
                    items.shrink_to_fit();
                    Value::List(items)
                }
                Some(Open::Map(mut entries, _)) => {
                    entries.shrink_to_fit();
                    no_key_twice(&entries)?;
                    Value::Map(entries)
                }
                None => return Err("an end without a beginning".to_owned()),
            },
        };
        match self.open.last_mut() {
            None => self.whole = Some(value),
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map(entries, key)) => entries.push((std::mem::take(key), value)),
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Value, String> {
        self.whole.ok_or_else(|| "nothing".to_owned())
    }

    fn open(&mut self, container: Open) -> Result<(), String> {
        if self.open.len() >= DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        self.open.push(container);
        Ok(())
    }
}

fn no_key_twice(entries: &[(String, Value)]) -> Result<(), String> {
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    for (one, other) in keys.iter().zip(keys.iter().skip(1)) {
        if one == other {
            let shown: String = one.chars().take(40).collect();
            return Err(format!("map key {shown:?} comes twice"));
        }
    }
    Ok(())
}

fn from_pb(node: pb::PbNode) -> Value {
    let links = node
        .links
        .into_iter()
        .map(|link| {
            let mut entries = vec![("Hash".to_owned(), Value::Link(Box::new(link.cid)))];
            if let Some(name) = link.name {
                entries.push(("Name".to_owned(), Value::Text(name)));
            }
            if let Some(tsize) = link.tsize {
                entries.push(("Tsize".to_owned(), Value::Integer(tsize.into())));
            }
            Value::Map(entries)
        })
        .collect();
    let mut entries = Vec::new();
    if let Some(data) = node.data {
        entries.push(("Data".to_owned(), Value::Bytes(data)));
    }
    entries.push(("Links".to_owned(), Value::List(links)));
    Value::Map(entries)
}

fn to_pb(value: &Value) -> Result<pb::PbNode, String> {
    let Value::Map(entries) = value else {
        return Err("a node must be a map".to_owned());
    };
    let mut node = pb::PbNode::default();
    let mut has_links = false;
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("Data", Value::Bytes(data)) => node.data = Some(data.clone()),
            ("Links", Value::List(links)) => {
                has_links = true;
                for (at, link) in links.iter().enumerate() {
                    let link = to_pb_link(link).map_err(|why| format!("Links/{at}: {why}"))?;
                    node.links.push(link);
                }
            }
            _ => {
                return Err(format!(
                    "{key:?} is not part of a node, or has another type"
                ));
            }
        }
    }
    if !has_links {
        return Err("Links is missing".to_owned());
    }
    node.links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(node)
}

fn to_pb_link(value: &Value) -> Result<pb::PbLink, String> {
    let Value::Map(entries) = value else {
        return Err("a link must be a map".to_owned());
    };
    let (mut cid, mut name, mut tsize) = (None, None, None);
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("Hash", Value::Link(link)) => cid = Some(**link),
            ("Name", Value::Text(text)) => name = Some(text.clone()),
            ("Tsize", Value::Integer(number)) => {
                let number = u64::try_from(*number);
                tsize = Some(number.map_err(|_| "Tsize is negative or too large")?);
            }
            _ => {
                return Err(format!(
                    "{key:?} is not part of a link, or has another type"
                ));
            }
        }
    }
    let cid = cid.ok_or("Hash is missing")?;
    Ok(pb::PbLink { cid, name, tsize })
}

fn holds_link(value: &Value) -> bool {
    holds(value, &|value| matches!(value, Value::Link(_)))
}

fn holds_bytes(value: &Value) -> bool {
    holds(value, &|value| matches!(value, Value::Bytes(_)))
}

fn holds(value: &Value, wanted: &dyn Fn(&Value) -> bool) -> bool {
    wanted(value)
        || match value {
            Value::List(items) => items.iter().any(|item| holds(item, wanted)),
            Value::Map(entries) => entries.iter().any(|(_, item)| holds(item, wanted)),
            _ => false,
        }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::block::Prefix;
    use crate::cid::{HashKind, Version};
    use proptest::prelude::*;

    impl Value {
        /// With the keys of every map in one order, to compare.
        pub(crate) fn sorted(&self) -> Self {
            match self {
                Self::List(items) => Self::List(items.iter().map(Self::sorted).collect()),
                Self::Map(entries) => {
                    let mut entries: Vec<_> = entries
                        .iter()
                        .map(|(key, value)| (key.clone(), value.sorted()))
                        .collect();
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                    Self::Map(entries)
                }
                other => other.clone(),
            }
        }
    }

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let wide = i128::from(u64::MAX);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-1 - wide..=wide).prop_map(Value::Integer),
            any::<f64>()
                .prop_filter("finite", |number| number.is_finite())
                .prop_map(Value::Float),
            ".{0,12}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..40)
                .prop_map(|bytes| Value::Bytes(Bytes::from(bytes))),
            prop::collection::vec(any::<u8>(), 0..=128).prop_map(|digest| {
                let hash = cid::Multihash::wrap(0, &digest).unwrap();
                Value::Link(Box::new(Cid::new_v1(cid::RAW, hash)))
            }),
        ];
        leaf.prop_recursive(5, 60, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
                prop::collection::btree_map("[^/].{0,6}", inner, 0..6)
                    .prop_map(|entries| Value::Map(entries.into_iter().collect())),
            ]
        })
    }

    fn block(codec: u64, data: Vec<u8>) -> Block {
        let prefix = Prefix {
            version: Version::V1,
            codec,
            hash: HashKind::Sha2_256,
        };
        Block::new(prefix, data.into()).unwrap()
    }

    proptest! {
        #[test]
        fn every_codec_gives_back_what_it_took(value in any_value()) {
            for codec in [cid::DAG_CBOR, cid::DAG_JSON, cid::CBOR, cid::JSON] {
                if let Ok(bytes) = encode(&value, codec) {
                    let back = from_block(&block(codec, bytes)).unwrap();
                    prop_assert_eq!(back.sorted(), value.sorted());
                }
            }
        }
    }

    #[test]
    fn a_dag_pb_node_has_its_known_shape() {
        let folder = json::decode(br#"{"Data":{"/":{"bytes":"CAE"}},"Links":[]}"#).unwrap();
        let bytes = encode(&folder, cid::DAG_PB).unwrap();
        let block = block(cid::DAG_PB, bytes);
        assert_eq!(
            block.cid().to_string(),
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
        );
        assert_eq!(from_block(&block).unwrap(), folder);
    }

    #[test]
    fn dag_pb_links_are_sorted_and_found_by_path() {
        let text = br#"{"Links":[{"Hash":{"/":"bafkqaaa"},"Name":"b","Tsize":3},{"Hash":{"/":"bafkqaaa"},"Name":"a"}]}"#;
        let bytes = encode(&json::decode(text).unwrap(), cid::DAG_PB).unwrap();
        let value = from_block(&block(cid::DAG_PB, bytes)).unwrap();
        assert_eq!(
            value.get(&["Links", "1", "Tsize"]),
            Some(&Value::Integer(3))
        );
        assert_eq!(value.get(&["Links", "2"]), None);
        assert_eq!(value.get(&["Links", "0", "Tsize"]), None);
    }

    #[test]
    fn a_codec_refuses_what_it_cannot_say() {
        let link = Value::Link(Box::new(cid::parse("bafkqaaa").unwrap()));
        for codec in [cid::JSON, cid::CBOR, cid::RAW, cid::DAG_PB, 0x99] {
            assert!(encode(&link, codec).is_err(), "{codec:#x}");
        }
        assert!(encode(&Value::Bytes(Bytes::new()), cid::JSON).is_err());
        assert!(from_block(&block(0x99, vec![])).is_err());
    }

    #[test]
    fn a_value_takes_little_beside_what_it_holds() {
        assert!(size_of::<Value>() <= 48, "{} bytes", size_of::<Value>());
        let Value::List(items) = cbor::decode(&[0x81, 0x81, 0xf6]).unwrap() else {
            panic!("a list");
        };
        let [Value::List(inner)] = &items[..] else {
            panic!("a list in a list");
        };
        assert_eq!((items.capacity(), inner.capacity()), (1, 1));
    }

    #[test]
    fn a_block_of_tiny_values_is_not_built_without_end() {
        let mut bytes = Vec::new();
        cbor::put_head(&mut bytes, 4, 1 << 20);
        bytes.resize(bytes.len() + (1 << 20), 0xf6);
        assert!(cbor::decode(&bytes).unwrap_err().contains("more than"));
    }
}
