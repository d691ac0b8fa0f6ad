//! The strict kind of gateway: it answers only what a client can check by itself.
//!
//! After the specification of trustless gateways: blocks by their bare CID, CARs of any path, records of names; all of
//! it asked for in so many words.

use crate::error::Failure;
use crate::format::Format;
use crate::request::Request;
use cairn_node::name::path::Root;

/// Refuses what could not be checked.
pub(crate) fn check(request: &Request) -> Result<(), Failure> {
    let asked = request.wish.as_ref().map(|wish| wish.format);
    let is_name = !matches!(request.asked.root, Root::Content(_));
    match asked {
        Some(Format::Raw | Format::Car) if is_name => Err(Failure::Unchecked(
            "where a name leads could not be checked: ask for its record, and for the content by its CID".to_owned(),
        )),
        Some(Format::Raw) if !request.asked.segments.is_empty() => {
            Err(Failure::Unchecked(
                "a block is asked for by its CID alone, as a path to it could not be checked".to_owned(),
            ))
        }
        Some(Format::Raw | Format::Car | Format::IpnsRecord) => Ok(()),
        Some(other) => Err(Failure::Format(format!(
            "this gateway gives only what its clients can check, and {} cannot be",
            other.name()
        ))),
        None => Err(Failure::Unchecked(
            "this gateway gives only what its clients can check, and the request does not say what of it".to_owned(),
        )),
    }
}
