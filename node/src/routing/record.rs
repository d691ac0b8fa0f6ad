//! Peers as delegated routing tells of them: a record of the `peer` schema in JSON, written and read.
//!
//! What is read comes from strangers. It is read in one pass and never becomes a tree: of texts, lists
//! and records only so much is kept as has a bound below, the rest is passed over. A field of another kind than it
//! should have counts as absent, a record without a name that can be read is left out, and so is
//! one of an unknown schema.

use super::Provider;
use crate::network::Network;
use cairn_store::cid;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A peer, where it is and what it is known to speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who.
    pub peer: PeerId,
    /// Where.
    pub addresses: Vec<Multiaddr>,
    /// As `transport-bitswap`; none if nothing is known.
    pub protocols: Vec<String>,
}

/// What is no answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no list of records")]
pub(crate) struct NoList;

/// A peer's name in either of its forms: base58, or a CID of the codec `libp2p-key`.
pub fn parse_peer(text: &str) -> Option<PeerId> {
    if text.len() > PEER_TEXT_BYTES_MAX {
        return None;
    }
    if let Ok(peer) = text.parse() {
        return Some(peer);
    }
    let cid = cid::parse_link(text).ok()?;
    let names_a_key = cid.codec() == cid::LIBP2P_KEY;
    names_a_key
        .then(|| PeerId::from_bytes(&cid.hash().to_bytes()).ok())
        .flatten()
}

impl Record {
    /// One line of a stream, or one entry of a list; without the end of the line.
    pub fn to_json(&self) -> String {
        // Texts, and lists of texts: nothing that could not be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// One line of a stream; `None` if it tells of no peer.
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        match serde_json::from_slice(line) {
            Ok(Json::Record(fields)) => fields.record(),
            _ => None,
        }
    }

    /// The first `limit` records of a whole answer.
    pub(crate) fn from_list(text: &[u8], limit: usize) -> Result<Vec<Self>, NoList> {
        let list: List = serde_json::from_slice(text).map_err(|_| NoList)?;
        let mut records = list.0.ok_or(NoList)?;
        records.truncate(limit);
        Ok(records)
    }

    /// What of it lies inside `network`, with addresses as they are dialled.
    pub(crate) fn within(self, network: Network) -> Provider {
        let peer = self.peer;
        let inside = |address: &Multiaddr| network.allows(address);
        let addresses = self.addresses.into_iter().filter_map(|mut address| {
            if let Some(Protocol::P2p(other)) = address.iter().last() {
                if other != peer {
                    return None;
                }
                address.pop();
            }
            (!address.is_empty()).then_some(address)
        });
        Provider {
            peer,
            addresses: addresses.filter(inside).collect(),
        }
    }
}

impl From<Provider> for Record {
    fn from(provider: Provider) -> Self {
        Self {
            peer: provider.peer,
            addresses: provider.addresses,
            protocols: Vec::new(),
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("Schema", PEER)?;
        map.serialize_entry("ID", &self.peer.to_string())?;
        let texts: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        map.serialize_entry("Addrs", &texts)?;
        map.serialize_entry("Protocols", &self.protocols)?;
        map.end()
    }
}

/// Any JSON, as far as it may matter.
enum Json {
    Text(String),
    Texts(Vec<String>),
    Record(Box<Fields>),
    Other,
}

impl Json {
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Texts(_) | Self::Record(_) | Self::Other => None,
        }
    }

    fn texts(self) -> Vec<String> {
        match self {
            Self::Texts(texts) => texts,
            Self::Text(_) | Self::Record(_) | Self::Other => Vec::new(),
        }
    }
}

/// The fields of an object that a record may have.
#[derive(Default)]
struct Fields {
    schema: Option<String>,
    id: Option<String>,
    addresses: Vec<String>,
    protocols: Vec<String>,
    /// Of the older schema.
    protocol: Option<String>,
}

impl Fields {
    fn record(self) -> Option<Record> {
        let schema = self.schema?;
        if schema != PEER && schema != OLDER {
            return None;
        }
        let peer = parse_peer(&self.id?)?;
        let mut protocols = self.protocols;
        protocols.extend(self.protocol);
        Some(Record {
            peer,
            addresses: self
                .addresses
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            protocols,
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyJson)
    }
}

struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Json, E> {
        Ok(Json::Other)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Json, E> {
        Ok(match text.len() <= TEXT_BYTES_MAX {
            true => Json::Text(text.to_owned()),
            false => Json::Other,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut texts = Vec::new();
        while texts.len() < TEXTS_MAX {
            match entries.next_element::<Json>()? {
                Some(entry) => texts.extend(entry.text()),
                None => return Ok(Json::Texts(texts)),
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Json::Texts(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            match key {
                Some(Field::Schema) => fields.schema = map.next_value::<Json>()?.text(),
                Some(Field::Id) => fields.id = map.next_value::<Json>()?.text(),
                Some(Field::Addresses) => fields.addresses = map.next_value::<Json>()?.texts(),
                Some(Field::Protocols) => fields.protocols = map.next_value::<Json>()?.texts(),
                Some(Field::Protocol) => fields.protocol = map.next_value::<Json>()?.text(),
                Some(Field::List) | None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Json::Record(Box::new(fields)))
    }
}

/// The name of a field, if it is one that matters; of the others nothing is kept.
struct Key(Option<Field>);

enum Field {
    Schema,
    Id,
    Addresses,
    Protocols,
    Protocol,
    List,
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a name")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Key, E> {
                Ok(Key(match name {
                    "Schema" => Some(Field::Schema),
                    "ID" => Some(Field::Id),
                    "Addrs" => Some(Field::Addresses),
                    "Protocols" => Some(Field::Protocols),
                    "Protocol" => Some(Field::Protocol),
                    "Providers" | "Peers" => Some(Field::List),
                    _ => None,
                }))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// `{"Providers": […]}` or `{"Peers": […]}`; `null` for a list is what some write for an empty one.
struct List(Option<Vec<Record>>);

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = List;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object with a list of records")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List, A::Error> {
                let mut list = None;
                while let Some(Key(key)) = map.next_key()? {
                    if matches!(key, Some(Field::List)) {
                        let records: Option<Records> = map.next_value()?;
                        list = Some(records.map_or_else(Vec::new, |records| records.0));
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_map(Whole)
    }
}

struct Records(Vec<Record>);

impl<'de> Deserialize<'de> for Records {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Records;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of records")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Records, A::Error> {
                let mut records = Vec::new();
                while records.len() < RECORDS_MAX {
                    match entries.next_element::<Json>()? {
                        Some(Json::Record(fields)) => records.extend(fields.record()),
                        Some(_) => {}
                        None => return Ok(Records(records)),
                    }
                }
                while entries.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Records(records))
            }
        }
        deserializer.deserialize_seq(Entries)
    }
}

/// The schema of a peer, and the one that the first servers told the same in.
const PEER: &str = "peer";
const OLDER: &str = "bitswap";
/// Records that are kept of one answer.
pub(crate) const RECORDS_MAX: usize = 256;
/// Addresses, and protocols, that are kept of one record.
const TEXTS_MAX: usize = 32;
/// The longest of them.
const TEXT_BYTES_MAX: usize = 1024;
/// The longest name of a peer: keys of 128 bytes would have as many letters in any base.
const PEER_TEXT_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEER_TEXT: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn record() -> Record {
        Record {
            peer: PEER_TEXT.parse().unwrap(),
            addresses: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
            protocols: vec!["transport-bitswap".to_owned()],
        }
    }

    #[test]
    fn a_record_is_written_as_the_specification_has_it() {
        let written = format!(
            r#"{{"Schema":"peer","ID":"{PEER_TEXT}","Addrs":["/ip4/127.0.0.1/tcp/4001"],"Protocols":["transport-bitswap"]}}"#
        );
        assert_eq!(record().to_json(), written);
        assert_eq!(Record::from_line(written.as_bytes()), Some(record()));
    }

    #[test]
    fn a_peer_is_named_in_base58_or_by_a_cid_of_its_key_and_by_no_other() {
        let peer: PeerId = PEER_TEXT.parse().unwrap();
        let hash = cid::Multihash::from_bytes(&peer.to_bytes()).unwrap();
        let named = cairn_store::Cid::new_v1(cid::LIBP2P_KEY, hash);
        assert_eq!(parse_peer(PEER_TEXT), Some(peer));
        assert_eq!(parse_peer(&named.to_string()), Some(peer));
        let block = cairn_store::Cid::new_v1(cid::RAW, hash);
        for text in [
            "",
            "12D3",
            "bafkqaaa",
            &block.to_string(),
            &"b".repeat(10_000),
        ] {
            assert_eq!(parse_peer(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_peer_is_left_out_and_the_rest_of_the_answer_read() {
        let good = record().to_json();
        let text = format!(
            r#"{{"x":[[1]],"Providers":[7,null,"a",[{{}}],{{}},{{"Schema":"peer"}},{{"Schema":"peer","ID":5}},
            {{"Schema":"peer","ID":"nobody"}},{{"Schema":"other","ID":"{PEER_TEXT}"}},{good}],"y":{{"Providers":[]}}}}"#
        );
        assert_eq!(Record::from_list(text.as_bytes(), 9), Ok(vec![record()]));
    }

    #[test]
    fn odd_fields_count_as_absent() {
        for fields in [
            r#""Addrs":null,"Protocols":7"#,
            r#""Addrs":"/ip4/127.0.0.1/tcp/1","Protocols":{"a":[]}"#,
            r#""Addrs":["nowhere",1,[],{}],"transport-bitswap":"more""#,
            "\"Metadata\":\"\u{e9}\"",
        ] {
            let line = format!(r#"{{"Schema":"peer","ID":"{PEER_TEXT}",{fields}}}"#);
            let read = Record::from_line(line.as_bytes()).unwrap();
            assert!(
                read.addresses.is_empty() && read.protocols.is_empty(),
                "{line}"
            );
        }
    }

    #[test]
    fn the_older_schema_tells_the_same() {
        let line = format!(
            r#"{{"Schema":"bitswap","Protocol":"transport-bitswap","ID":"{PEER_TEXT}","Addrs":["/ip4/127.0.0.1/tcp/4001"]}}"#
        );
        assert_eq!(Record::from_line(line.as_bytes()), Some(record()));
    }

    #[test]
    fn an_empty_list_is_one_and_what_has_none_is_no_answer() {
        for text in [r#"{"Providers":[]}"#, r#"{"Peers":null}"#] {
            assert_eq!(Record::from_list(text.as_bytes(), 9), Ok(Vec::new()));
        }
        for text in [
            "",
            "[]",
            "{}",
            r#"{"Providers":7}"#,
            r#"{"Providers":[]"#,
            "<html>",
        ] {
            assert_eq!(Record::from_list(text.as_bytes(), 9), Err(NoList), "{text}");
        }
    }

    #[test]
    fn of_too_much_the_first_is_kept() {
        let many = |what: &str, count: usize| vec![what; count].join(",");
        let address = r#""/ip4/127.0.0.1/tcp/4001""#;
        let line = format!(
            r#"{{"Schema":"peer","ID":"{PEER_TEXT}","Addrs":[{}],"Protocols":["{}"]}}"#,
            many(address, 5000),
            "x".repeat(5000)
        );
        let read = Record::from_line(line.as_bytes()).unwrap();
        assert_eq!((read.addresses.len(), read.protocols.len()), (TEXTS_MAX, 0));
        let text = format!(r#"{{"Providers":[{}]}}"#, many(&record().to_json(), 1000));
        let read = Record::from_list(text.as_bytes(), usize::MAX).unwrap();
        assert_eq!(read.len(), RECORDS_MAX);
        assert_eq!(Record::from_list(text.as_bytes(), 3).unwrap().len(), 3);
    }

    #[test]
    fn nothing_outside_the_network_and_of_another_peer_is_dialled() {
        let other = PeerId::random();
        let addresses = [
            format!("/ip4/127.0.0.1/tcp/1/p2p/{PEER_TEXT}"),
            format!("/ip4/127.0.0.1/tcp/2/p2p/{other}"),
            "/ip4/192.0.2.1/tcp/3".to_owned(),
            "/dns4/example.com/tcp/4".to_owned(),
            format!("/p2p/{PEER_TEXT}"),
        ];
        let told = Record {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            ..record()
        };
        let inside = told.within(Network::Local).addresses;
        assert_eq!(inside, ["/ip4/127.0.0.1/tcp/1".parse().unwrap()]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"[\[\]{}:,"a-zA-Z0-9]{0,60}"#) {
            for bytes in [&bytes[..], text.as_bytes()] {
                drop(Record::from_line(bytes));
                drop(Record::from_list(bytes, 9));
            }
            let nested = "[".repeat(100_000);
            prop_assert!(Record::from_line(nested.as_bytes()).is_none());
        }

        #[test]
        fn what_is_written_reads_back(ports in prop::collection::vec(any::<u16>(), 0..20), protocols in prop::collection::vec("\\PC{0,40}", 0..5)) {
            let addresses = ports.iter().map(|port| format!("/ip6/::1/tcp/{port}").parse().unwrap()).collect();
            let record = Record { addresses, protocols, ..record() };
            prop_assert_eq!(Record::from_line(record.to_json().as_bytes()), Some(record));
        }
    }
}
