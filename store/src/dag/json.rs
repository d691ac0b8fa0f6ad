//! dag-json and plain json.
use super::value::Value;
/// Decodes dag-json.
pub fn decode(_data: &[u8]) -> Result<Value, String> {
    todo!()
}
/// Encodes dag-json, keys sorted, no spaces.
pub fn encode(_value: &Value) -> Vec<u8> {
    todo!()
}
/// Decodes plain JSON: `{"/": …}` has no meaning.
pub fn decode_plain(_data: &[u8]) -> Result<Value, String> {
    todo!()
}
