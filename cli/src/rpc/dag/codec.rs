//! From one codec to another, through the IPLD data model.

use super::super::error::RpcError;
use bytes::Bytes;
use cairn_store::cid::{CBOR, DAG_CBOR, DAG_JSON, DAG_PB, JSON, RAW, codec_name};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::dag::value::Value;
use cairn_store::dag::{cbor, json};

/// The value that a block's bytes hold.
pub fn decode(codec: u64, data: &Bytes) -> Result<Value, RpcError> {
    let value = match codec {
        RAW => Ok(Value::Bytes(data.clone())),
        DAG_PB => pb::decode(data).map(from_pb),
        DAG_CBOR | CBOR => cbor::decode(data),
        DAG_JSON => json::decode(data),
        JSON => json::decode_plain(data),
        other => return Err(unknown(other)),
    };
    value.map_err(|why| {
        RpcError::failed(format!(
            "not valid {}: {why}",
            codec_name(codec).unwrap_or("data")
        ))
    })
}

/// The bytes that hold a value.
pub fn encode(codec: u64, value: &Value) -> Result<Bytes, RpcError> {
    match codec {
        RAW => match value {
            Value::Bytes(bytes) => Ok(bytes.clone()),
            _ => Err(RpcError::failed("only bytes can be written as raw")),
        },
        DAG_PB => to_pb(value).map(|node| pb::encode(&node)),
        DAG_CBOR | CBOR => Ok(Bytes::from(cbor::encode(value))),
        DAG_JSON | JSON => Ok(Bytes::from(json::encode(value))),
        other => Err(unknown(other)),
    }
}

fn unknown(codec: u64) -> RpcError {
    let name = codec_name(codec).map_or_else(|| format!("0x{codec:x}"), str::to_owned);
    RpcError::failed(format!("no decoder or encoder for codec {name}"))
}

/// The value at the end of a path inside a value.
pub fn inside(value: Value, path: &[String]) -> Result<Value, RpcError> {
    path.iter().try_fold(value, |value, name| {
        let found = match value {
            Value::Map(entries) => entries
                .into_iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value),
            Value::List(items) => name
                .parse()
                .ok()
                .and_then(|at: usize| items.into_iter().nth(at)),
            _ => None,
        };
        found.ok_or_else(|| RpcError::failed(format!("no such link found: {name:?}")))
    })
}

/// dag-pb in the data model: `Data` if there is any, then `Links`.
fn from_pb(node: PbNode) -> Value {
    let links = node.links.into_iter().map(|link| {
        let mut entries = vec![("Hash".to_owned(), Value::Link(Box::new(link.cid)))];
        if let Some(name) = link.name {
            entries.push(("Name".to_owned(), Value::Text(name)));
        }
        if let Some(tsize) = link.tsize {
            entries.push(("Tsize".to_owned(), Value::Integer(tsize.into())));
        }
        Value::Map(entries)
    });
    let links = Value::List(links.collect());
    let mut entries = Vec::new();
    if let Some(data) = node.data {
        entries.push(("Data".to_owned(), Value::Bytes(data)));
    }
    entries.push(("Links".to_owned(), links));
    Value::Map(entries)
}

fn to_pb(value: &Value) -> Result<PbNode, RpcError> {
    let wrong = |why: &str| RpcError::failed(format!("cannot be written as dag-pb: {why}"));
    let Value::Map(entries) = value else {
        return Err(wrong("it is no map"));
    };
    let mut node = PbNode::default();
    let mut has_links = false;
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("Data", Value::Bytes(data)) => node.data = Some(data.clone()),
            ("Links", Value::List(links)) => {
                has_links = true;
                for link in links {
                    node.links
                        .push(link_to_pb(link).ok_or_else(|| wrong("a link is wrong"))?);
                }
            }
            (other, _) => return Err(wrong(&format!("{other} is not what it should be"))),
        }
    }
    if !has_links {
        return Err(wrong("Links are missing"));
    }
    Ok(node)
}

fn link_to_pb(value: &Value) -> Option<PbLink> {
    let Value::Map(entries) = value else {
        return None;
    };
    let mut cid = None;
    let mut name = None;
    let mut tsize = None;
    for (key, value) in entries {
        match (key.as_str(), value) {
            ("Hash", Value::Link(link)) => cid = Some(**link),
            ("Name", Value::Text(text)) => name = Some(text.clone()),
            ("Tsize", Value::Integer(number)) => tsize = Some(u64::try_from(*number).ok()?),
            _ => return None,
        }
    }
    Some(PbLink {
        cid: cid?,
        name,
        tsize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> PbNode {
        PbNode {
            links: vec![PbLink {
                cid: cairn_store::cid::parse("bafkqaaa").unwrap(),
                name: Some("a".to_owned()),
                tsize: Some(3),
            }],
            data: Some(Bytes::from_static(b"\x08\x01")),
        }
    }

    #[test]
    fn dag_pb_passes_through_the_data_model() {
        assert_eq!(to_pb(&from_pb(node())).unwrap(), node());
        let empty = PbNode::default();
        assert_eq!(to_pb(&from_pb(empty.clone())).unwrap(), empty);
    }

    #[test]
    fn what_is_no_dag_pb_is_refused() {
        assert!(to_pb(&Value::Null).is_err());
        assert!(to_pb(&Value::Map(Vec::new())).is_err());
        let odd = Value::Map(vec![("Odd".to_owned(), Value::Null)]);
        assert!(to_pb(&odd).is_err());
    }

    #[test]
    fn paths_lead_into_maps_and_lists() {
        let value = from_pb(node());
        let path = ["Links", "0", "Name"].map(str::to_owned);
        assert_eq!(
            inside(value.clone(), &path).unwrap(),
            Value::Text("a".to_owned())
        );
        assert!(inside(value, &["Nothing".to_owned()]).is_err());
    }
}
