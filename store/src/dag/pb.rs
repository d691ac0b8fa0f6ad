//! dag-pb: links before data, as every implementation writes it.
//!
//! Reading follows what go-codec-dagpb takes: data may come before or after all links but not
//! between them, a link's fields come in order and once, and nothing unknown is allowed.

use super::wire::{self, Field, Fields};
use crate::cid::{self, Cid};
use bytes::Bytes;
use std::ops::Range;

/// A dag-pb node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PbNode {
    /// Links in stored order.
    pub links: Vec<PbLink>,
    /// Data; absent is not the same as empty.
    pub data: Option<Bytes>,
}

/// A dag-pb link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PbLink {
    /// Where it points.
    pub cid: Cid,
    /// Name; absent is not the same as empty.
    pub name: Option<String>,
    /// Cumulative size of what it points to.
    pub tsize: Option<u64>,
}

impl PbNode {
    /// The first link with this name; an absent name is the empty one.
    pub fn link(&self, name: &str) -> Option<&PbLink> {
        self.links
            .iter()
            .find(|link| link.name.as_deref().unwrap_or_default() == name)
    }
}

/// A dag-pb node whose links have not been looked into: of a large one few are needed.
#[derive(Debug, Clone)]
pub(crate) struct Skimmed {
    /// Data; absent is not the same as empty.
    pub(crate) data: Option<Bytes>,
    block: Bytes,
    /// Where each link lies in the block.
    links: Vec<Range<u32>>,
}

impl Skimmed {
    /// How many links there are.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// One of the links, if there are so many.
    pub(crate) fn link(&self, at: usize) -> Result<PbLink, String> {
        let place = self.links.get(at).and_then(|place| {
            let (start, end) = (place.start.try_into().ok()?, place.end.try_into().ok()?);
            self.block.get::<Range<usize>>(start..end)
        });
        let bytes = place.ok_or_else(|| format!("there is no link {at}"))?;
        decode_link(bytes).map_err(|why| format!("link {at}: {why}"))
    }

    /// The node with all its links.
    pub(crate) fn whole(self) -> Result<PbNode, String> {
        let mut links = Vec::with_capacity(self.links.len());
        for at in 0..self.links.len() {
            links.push(self.link(at)?);
        }
        let data = self.data;
        Ok(PbNode { links, data })
    }
}

/// Decodes a dag-pb node.
pub fn decode(data: &Bytes) -> Result<PbNode, String> {
    skim(data)?.whole()
}

/// Decodes all of a dag-pb node but what is in its links.
pub(crate) fn skim(block: &Bytes) -> Result<Skimmed, String> {
    let mut node = Skimmed {
        data: None,
        block: block.clone(),
        links: Vec::with_capacity(count_links(block)?),
    };
    // Data ends a run of links; links that follow data end the message.
    let mut links_before_data = false;
    let mut fields = Fields::new(block);
    while let Some(field) = fields.next()? {
        match field {
            (1, Field::Bytes(bytes)) => {
                if node.data.is_some() {
                    return Err("data twice".to_owned());
                }
                links_before_data = !node.links.is_empty();
                node.data = Some(block.slice_ref(bytes));
            }
            (2, Field::Bytes(bytes)) => {
                if links_before_data {
                    return Err("links on both sides of the data".to_owned());
                }
                let too_long = |_| "it is longer than any block".to_owned();
                let end = u32::try_from(fields.at()).map_err(too_long)?;
                let start = u32::try_from(fields.at() - bytes.len()).map_err(too_long)?;
                node.links.push(start..end);
            }
            (number, _) => return Err(format!("unexpected field {number} or its wire type")),
        }
    }
    Ok(node)
}

/// How many links there are, so that the list of them, which is larger than their bytes, is not
/// made anew while it grows.
fn count_links(data: &[u8]) -> Result<usize, String> {
    let mut count = 0;
    let mut fields = Fields::new(data);
    while let Some(field) = fields.next()? {
        match field {
            (2, Field::Bytes(link)) if link.len() < LINK_BYTES_MIN => {
                return Err(format!("link {count}: too short to have a CID"));
            }
            (2, _) => count += 1,
            _ => {}
        }
    }
    Ok(count)
}

/// Encodes a dag-pb node, links in the order given.
pub fn encode(node: &PbNode) -> Bytes {
    let links: usize = node
        .links
        .iter()
        .map(|link| {
            let name = link.name.as_deref().map(str::len);
            link_len(link.cid.encoded_len(), name, link.tsize)
        })
        .sum();
    let data = node
        .data
        .as_ref()
        .map_or(0, |data| wire::bytes_len(data.len()));
    let mut out = Vec::with_capacity(links + data);
    for link in &node.links {
        put_link(
            &mut out,
            &link.cid.to_bytes(),
            link.name.as_deref(),
            link.tsize,
        );
    }
    if let Some(data) = &node.data {
        put_data(&mut out, data);
    }
    Bytes::from(out)
}

/// Appends a link to a node that is being written.
pub(crate) fn put_link(out: &mut Vec<u8>, cid: &[u8], name: Option<&str>, tsize: Option<u64>) {
    out.push(2 << 3 | 2);
    let inner = link_body_len(cid.len(), name.map(str::len), tsize);
    wire::put_varint(out, inner as u64);
    wire::put_bytes(out, 1, cid);
    if let Some(name) = name {
        wire::put_bytes(out, 2, name.as_bytes());
    }
    if let Some(tsize) = tsize {
        wire::put_number(out, 3, tsize);
    }
}

/// Appends the data to a node whose links are written.
pub(crate) fn put_data(out: &mut Vec<u8>, data: &[u8]) {
    wire::put_bytes(out, 1, data);
}

/// How many bytes a link adds to its node.
pub(crate) fn link_len(cid: usize, name: Option<usize>, tsize: Option<u64>) -> usize {
    wire::bytes_len(link_body_len(cid, name, tsize))
}

/// The CID that `bytes` are, all of them.
pub(crate) fn exact_cid(bytes: &[u8]) -> Result<Cid, String> {
    let mut rest = bytes;
    let cid = cid::read(&mut rest).map_err(|error| format!("not a CID: {error}"))?;
    if rest.is_empty() {
        Ok(cid)
    } else {
        Err(format!("{} bytes after a CID", rest.len()))
    }
}

fn link_body_len(cid: usize, name: Option<usize>, tsize: Option<u64>) -> usize {
    wire::bytes_len(cid)
        + name.map_or(0, wire::bytes_len)
        + tsize.map_or(0, |tsize| 1 + wire::varint_len(tsize))
}

fn decode_link(data: &[u8]) -> Result<PbLink, String> {
    let (mut cid, mut name, mut tsize) = (None, None, None);
    let mut fields = Fields::new(data);
    let mut last = 0;
    while let Some((number, field)) = fields.next()? {
        if number <= last {
            return Err(format!("field {number} after field {last}"));
        }
        last = number;
        match (number, field) {
            (1, Field::Bytes(bytes)) => cid = Some(exact_cid(bytes)?),
            (2, Field::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes);
                name = Some(text.map_err(|_| "its name is not UTF-8")?.to_owned());
            }
            (3, Field::Varint(value)) => tsize = Some(value),
            (number, _) => return Err(format!("unexpected field {number} or its wire type")),
        }
    }
    let cid = cid.ok_or("it has no CID")?;
    Ok(PbLink { cid, name, tsize })
}

/// Bytes of the shortest link: the shortest CID, and two before it.
const LINK_BYTES_MIN: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cid::Multihash;
    use proptest::prelude::*;

    fn any_cid() -> impl Strategy<Value = Cid> {
        prop_oneof![
            prop::array::uniform32(any::<u8>())
                .prop_map(|digest| Cid::new_v0(Multihash::wrap(0x12, &digest).unwrap()).unwrap()),
            prop::collection::vec(any::<u8>(), 0..=128)
                .prop_map(|digest| Cid::new_v1(cid::RAW, Multihash::wrap(0, &digest).unwrap())),
        ]
    }

    prop_compose! {
        fn any_node()(
            links in prop::collection::vec(
                (any_cid(), any::<Option<String>>(), any::<Option<u64>>())
                    .prop_map(|(cid, name, tsize)| PbLink { cid, name, tsize }),
                0..8,
            ),
            data in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
        ) -> PbNode {
            PbNode { links, data: data.map(Bytes::from) }
        }
    }

    proptest! {
        #[test]
        fn nodes_read_back_as_written(node in any_node()) {
            let bytes = encode(&node);
            prop_assert_eq!(decode(&bytes), Ok(node.clone()));
            prop_assert_eq!(encode(&decode(&bytes).unwrap()), bytes);
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let data = Bytes::from(data);
            if let Ok(node) = decode(&data) {
                prop_assert_eq!(decode(&encode(&node)), Ok(node));
            }
        }

        #[test]
        fn a_damaged_node_never_panics(node in any_node(), at: usize, byte: u8) {
            let mut bytes = encode(&node).to_vec();
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            let _ = decode(&Bytes::from(bytes));
        }
    }

    fn hex(text: &str) -> Bytes {
        Bytes::from(data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap())
    }

    #[test]
    fn absent_is_not_empty() {
        assert_eq!(decode(&Bytes::new()).unwrap().data, None);
        assert_eq!(decode(&hex("0a00")).unwrap().data, Some(Bytes::new()));
        let link = |tail: &str| {
            let inner = format!("0a0401550000{tail}");
            let bytes = hex(&format!("12{:02x}{inner}", inner.len() / 2));
            decode(&bytes).unwrap().links.remove(0)
        };
        assert_eq!(link("").name, None);
        assert_eq!(link("1200").name.as_deref(), Some(""));
        assert_eq!(link("1800").tsize, Some(0));
    }

    #[test]
    fn data_may_come_first_but_not_in_between() {
        let link = "12060a0401550000";
        assert_eq!(
            decode(&hex(&format!("0a0101{link}{link}")))
                .unwrap()
                .links
                .len(),
            2
        );
        assert!(decode(&hex(&format!("{link}0a0101{link}"))).is_err());
        assert!(decode(&hex("0a01010a0101")).is_err());
    }

    #[test]
    fn the_list_of_links_is_made_once_and_no_longer_than_it_must_be() {
        let links = hex("12060a0401550000").repeat(1000);
        let node = decode(&Bytes::from(links)).unwrap();
        assert_eq!((node.links.len(), node.links.capacity()), (1000, 1000));
        let nothing = Bytes::from(hex("1200").repeat(1000));
        assert_eq!(
            decode(&nothing),
            Err("link 0: too short to have a CID".to_owned())
        );
    }

    #[test]
    fn refuses_what_dag_pb_does_not_have() {
        for (bytes, why) in [
            ("1800", "an unknown field"),
            ("0801", "data as a number"),
            ("1200", "a link without a CID"),
            ("0a05ff", "data cut short"),
            ("0affffffffffffffffff01", "a length beyond everything"),
            ("12080a04015500001001", "a link's name as a number"),
            ("1208 1200 0a0401550000", "name before CID"),
            ("12070a050155000000", "bytes after the CID"),
            ("12090a04015500001201ff", "a name that is not UTF-8"),
        ] {
            assert!(decode(&hex(&bytes.replace(' ', ""))).is_err(), "{why}");
        }
    }
}
