//! The IPLD data model, as far as dag-cbor and dag-json need it.

use crate::cid::Cid;
use bytes::Bytes;

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
    /// A link to another block.
    Link(Cid),
}
