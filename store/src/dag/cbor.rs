//! dag-cbor (strict) and plain cbor.
use super::value::Value;
/// Decodes strict dag-cbor.
pub fn decode(_data: &[u8]) -> Result<Value, String> {
    todo!()
}
/// Encodes dag-cbor: shortest forms, keys sorted by length then bytes.
pub fn encode(_value: &Value) -> Vec<u8> {
    todo!()
}
