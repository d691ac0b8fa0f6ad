//! A CARv1 as it goes out.

use crate::block::Block;
use crate::cid::Cid;
use crate::dag::cbor;
use crate::dag::value::Value;
use crate::dag::wire;
use bytes::Bytes;

/// The header. Common readers reject an empty list of roots: give at least one.
pub fn header(roots: &[Cid]) -> Bytes {
    let roots = roots
        .iter()
        .map(|cid| Value::Link(Box::new(*cid)))
        .collect();
    let header = cbor::encode(&Value::Map(vec![
        ("roots".to_owned(), Value::List(roots)),
        ("version".to_owned(), Value::Integer(1)),
    ]));
    let mut out = Vec::with_capacity(header.len() + 4);
    wire::put_varint(&mut out, header.len() as u64);
    out.extend(header);
    Bytes::from(out)
}

/// What precedes a block's bytes in its section: length and CID.
pub fn section_prefix(block: &Block) -> Bytes {
    let cid = block.cid().to_bytes();
    let length = cid.len() + block.data().len();
    let mut out = Vec::with_capacity(cid.len() + 4);
    wire::put_varint(&mut out, length as u64);
    out.extend(cid);
    Bytes::from(out)
}

/// How many bytes a block's section has.
pub fn section_len(block: &Block) -> u64 {
    let length = (block.cid().encoded_len() + block.data().len()) as u64;
    wire::varint_len(length) as u64 + length
}
