//! `cid`: CIDs written another way. Nothing is read, no repository is needed.

use super::api::Call;
use super::arguments::{base_from_name, base_name};
use super::error::RpcError;
use super::reply::Reply;
use cairn_store::cid::{self, Cid, DAG_PB, HashKind, Version};
use multibase::Base;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::str::FromStr;

/// A line of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Formatted {
    /// What was given.
    pub cid_str: String,
    /// How it is written.
    pub formatted: String,
    /// Why it is not.
    pub error_msg: String,
}

/// How a CID shall be written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    format: String,
    version: Option<Version>,
    codec: Option<u64>,
    base: Option<Base>,
}

/// `cid format`.
pub fn format(call: Call) -> Result<Reply, RpcError> {
    let arguments = &call.arguments;
    let text = |name: &str| arguments.text(&[name]).filter(|text| !text.is_empty());
    let version = match text("v") {
        None => None,
        Some("0") => Some(Version::V0),
        Some("1") => Some(Version::V1),
        Some(other) => return Err(RpcError::failed(format!("invalid cid version: {other:?}"))),
    };
    let codec = text("mc")
        .map(|name| {
            cid::codec_from_name(name)
                .ok_or_else(|| RpcError::failed(format!("unknown multicodec: {name}")))
        })
        .transpose()?;
    let base = text("b").map(base_from_name).transpose()?;
    if version == Some(Version::V0) && codec.is_some_and(|codec| codec != DAG_PB) {
        return Err(RpcError::failed(
            "cannot convert to CIDv0 with any codec other than dag-pb",
        ));
    }
    if version == Some(Version::V0) && base.is_some_and(|base| base != Base::Base58Btc) {
        return Err(RpcError::failed(
            "cannot convert to CIDv0 with any multibase other than the implicit base58btc",
        ));
    }
    let wanted = Wanted {
        format: text("f").unwrap_or("%s").to_owned(),
        version,
        codec,
        base,
    };
    if wanted.format.len() > FORMAT_BYTES_MAX || !wanted.format.contains('%') {
        return Err(RpcError::failed(format!(
            "invalid format string: {:?}",
            wanted.format
        )));
    }
    answer(&call, &wanted)
}

/// `cid base32`.
pub fn base32(call: Call) -> Result<Reply, RpcError> {
    let wanted = Wanted {
        format: "%s".to_owned(),
        version: Some(Version::V1),
        codec: None,
        base: Some(Base::Base32Lower),
    };
    answer(&call, &wanted)
}

fn answer(call: &Call, wanted: &Wanted) -> Result<Reply, RpcError> {
    let lines: Vec<Formatted> = call
        .arguments
        .some("cid")?
        .into_iter()
        .map(|text| {
            let (formatted, error_msg) = match write(wanted, text) {
                Ok(formatted) => (formatted, String::new()),
                Err(error) => (String::new(), error),
            };
            Formatted {
                cid_str: text.to_owned(),
                formatted,
                error_msg,
            }
        })
        .collect();
    Ok(Reply::values(move |out| async move {
        for line in &lines {
            out.value(line).await?;
        }
        Ok(())
    }))
}

fn write(wanted: &Wanted, text: &str) -> Result<String, String> {
    let given = Cid::from_str(text).map_err(|error| format!("invalid cid: {error}"))?;
    let codec = wanted.codec.unwrap_or_else(|| given.codec());
    let version = wanted.version.unwrap_or_else(|| given.version());
    // Another codec, or another base, can only be said with version 1.
    let version = if wanted.version.is_none()
        && (codec != given.codec() || wanted.base.is_some_and(|base| base != Base::Base58Btc))
    {
        Version::V1
    } else {
        version
    };
    let cid = match version {
        Version::V0 if codec != DAG_PB => {
            return Err("can't convert non-dag-pb nodes to cidv0".to_owned());
        }
        Version::V0 => Cid::new_v0(*given.hash()).map_err(|error| error.to_string())?,
        Version::V1 => Cid::new_v1(codec, *given.hash()),
    };
    let base = wanted.base.unwrap_or_else(|| own_base(text, &cid));
    let mut out = String::new();
    let mut characters = wanted.format.chars();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = characters.next().ok_or("the format ends in a single %")?;
        write_part(&mut out, directive, &cid, base)?;
    }
    Ok(out)
}

/// The base that a text was written in, if it fits what is to be written.
fn own_base(text: &str, cid: &Cid) -> Base {
    if cid.version() == Version::V0 {
        return Base::Base58Btc;
    }
    let letter = text.chars().next().filter(|_| !text.starts_with("Qm"));
    letter
        .and_then(|letter| Base::from_code(letter).ok())
        // It writes bytes as they are, which need not be text.
        .filter(|base| *base != Base::Identity)
        .unwrap_or(Base::Base32Lower)
}

fn write_part(out: &mut String, directive: char, cid: &Cid, base: Base) -> Result<(), String> {
    let hash = cid.hash();
    let plain = |bytes: &[u8]| base.encode(bytes);
    let v0 = cid.version() == Version::V0;
    let number = if v0 { 0 } else { 1 };
    let codec = cid::codec_name(cid.codec())
        .map_or_else(|| format!("codec-{}", cid.codec()), str::to_owned);
    let hash_name = HashKind::from_code(hash.code()).map_or_else(
        || format!("hash-{}", hash.code()),
        |hash| hash.name().to_owned(),
    );
    // Writing to a string cannot fail.
    let _ = match directive {
        '%' => write!(out, "%"),
        'b' => write!(out, "{}", base_name(base)),
        'B' => write!(out, "{}", base.code()),
        'v' => write!(out, "cidv{number}"),
        'V' => write!(out, "{number}"),
        'c' => write!(out, "{codec}"),
        'C' => write!(out, "{}", cid.codec()),
        'h' => write!(out, "{hash_name}"),
        'H' => write!(out, "{}", hash.code()),
        'L' => write!(out, "{}", hash.size()),
        'm' => write!(out, "{}", multibase::encode(base, hash.to_bytes())),
        'M' => write!(out, "{}", plain(&hash.to_bytes())),
        'd' => write!(out, "{}", multibase::encode(base, hash.digest())),
        'D' => write!(out, "{}", plain(hash.digest())),
        's' if v0 => write!(out, "{cid}"),
        's' => write!(out, "{}", multibase::encode(base, cid.to_bytes())),
        'S' => write!(out, "{}", plain(&cid.to_bytes())),
        'P' => write!(out, "cidv{number}-{codec}-{hash_name}-{}", hash.size()),
        other => return Err(format!("unrecognized specifier in format string: {other}")),
    };
    Ok(())
}

/// Longest format.
const FORMAT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG";
    const V1: &str = "bafybeie5nqv6kd3qnfjupgvz34woh3oksc3iau6abmyajn7qvtf6d2ho34";

    fn wanted(format: &str) -> Wanted {
        Wanted {
            format: format.to_owned(),
            version: None,
            codec: None,
            base: None,
        }
    }

    #[test]
    fn a_cid_is_written_as_it_came_unless_told_otherwise() {
        assert_eq!(write(&wanted("%s"), V0).unwrap(), V0);
        assert_eq!(write(&wanted("%s"), V1).unwrap(), V1);
        let base58 = "zdj7WiRZZQhFfcPFcD2hLU4MSx75fArGPeAhTv5UyEJFwjjFY";
        if Cid::from_str(base58).is_ok() {
            assert_eq!(write(&wanted("%s"), base58).unwrap(), base58);
        }
    }

    #[test]
    fn what_came_as_bare_bytes_is_written_as_text() {
        // A dag-json CID with an empty identity digest, in no base at all.
        let bare = "\0\u{1}U\0\0";
        let plain = Wanted {
            codec: Some(cid::DAG_JSON),
            ..wanted("%s")
        };
        let written = write(&plain, bare);
        assert!(written.is_ok_and(|text| text.starts_with('b')));
    }

    #[test]
    fn versions_and_bases_convert() {
        let to_v1 = Wanted {
            version: Some(Version::V1),
            base: Some(Base::Base32Lower),
            ..wanted("%s")
        };
        assert_eq!(write(&to_v1, V0).unwrap(), V1);
        let to_v0 = Wanted {
            version: Some(Version::V0),
            ..wanted("%s")
        };
        assert_eq!(write(&to_v0, V1).unwrap(), V0);
        let base16 = Wanted {
            base: Some(Base::Base16Lower),
            ..wanted("%s")
        };
        assert!(write(&base16, V0).unwrap().starts_with("f01701220"));
    }

    #[test]
    fn every_part_can_be_asked_for() {
        assert_eq!(
            write(&wanted("%P"), V1).unwrap(),
            "cidv1-dag-pb-sha2-256-32"
        );
        assert_eq!(
            write(&wanted("%b %B %V %C %H %L %%"), V1).unwrap(),
            "base32 b 1 112 18 32 %"
        );
        assert!(write(&wanted("%q"), V1).is_err());
        assert!(write(&wanted("%"), V1).is_err());
        assert!(write(&wanted("%s"), "hello").is_err());
    }
}
