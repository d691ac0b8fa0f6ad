//! A CARv1 as it goes out.
use crate::block::Block;
use crate::cid::Cid;
use bytes::Bytes;
/// The header. Common readers reject an empty list of roots: give at least one.
pub fn header(_roots: &[Cid]) -> Bytes {
    todo!()
}
/// What precedes a block's bytes in its section: length and CID.
pub fn section_prefix(_block: &Block) -> Bytes {
    todo!()
}
