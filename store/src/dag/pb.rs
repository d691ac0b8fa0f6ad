//! dag-pb: links before data, as every implementation writes it.
use crate::cid::Cid;
use bytes::Bytes;
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
/// Decodes a dag-pb node.
pub fn decode(_data: &Bytes) -> Result<PbNode, String> {
    todo!()
}
/// Encodes a dag-pb node, links in the order given.
pub fn encode(_node: &PbNode) -> Bytes {
    todo!()
}
