//! The arguments of a request: its query, parsed; what nobody asks for is ignored.

use super::error::RpcError;
use crate::config::duration::Interval;
use cairn_node::name::path::{NamePath, PathError};
use cairn_store::cid::{self, Cid, Version};
use cairn_store::dag::path::ParsePathError;
use multibase::Base;
use percent_encoding::percent_decode_str;
use std::str::FromStr;
use std::time::Duration;

/// The arguments of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    pairs: Vec<(String, String)>,
}

impl Arguments {
    /// Reads a query.
    pub fn parse(query: &str) -> Result<Self, RpcError> {
        let pairs = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .take(ARGUMENTS_MAX + 1)
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((decode(name)?, decode(value)?))
            })
            .collect::<Result<Vec<_>, RpcError>>()?;
        if pairs.len() > ARGUMENTS_MAX {
            return Err(RpcError::wrong(format!(
                "a request has at most {ARGUMENTS_MAX} arguments"
            )));
        }
        Ok(Self { pairs })
    }

    /// Every `arg`, in order.
    pub fn all(&self) -> Vec<&str> {
        self.pairs
            .iter()
            .filter(|(name, _)| name == "arg")
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// Every `arg`; there must be one, called `name` in the error.
    pub fn some(&self, name: &str) -> Result<Vec<&str>, RpcError> {
        let all = self.all();
        if all.is_empty() {
            return Err(RpcError::wrong(format!("argument \"{name}\" is required")));
        }
        Ok(all)
    }

    /// The first `arg`, called `name` in the error.
    pub fn first(&self, name: &str) -> Result<&str, RpcError> {
        self.some(name)
            .map(|all| all.first().copied().unwrap_or_default())
    }

    /// The last value given under one of `names`.
    pub fn text(&self, names: &[&str]) -> Option<&str> {
        self.pairs
            .iter()
            .rev()
            .find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.as_str())
    }

    /// Every value given under `name`, in order.
    pub fn each(&self, name: &str) -> impl Iterator<Item = &str> {
        let all = self.pairs.iter().filter(move |(known, _)| known == name);
        all.map(|(_, value)| value.as_str())
    }

    /// A truth value; a bare name means true.
    pub fn choice(&self, names: &[&str]) -> Result<Option<bool>, RpcError> {
        match self.text(names) {
            None => Ok(None),
            Some("" | "true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Self::bad(names, other, "true or false")),
        }
    }

    /// A truth value that is false unless given.
    pub fn flag(&self, names: &[&str]) -> Result<bool, RpcError> {
        Ok(self.choice(names)?.unwrap_or(false))
    }

    /// Refuses an option that others know and that does nothing here: whoever gave it would take the answer for
    /// another one. A flag that is off asks for nothing.
    pub fn lacks(&self, names: &[&str], instead: &str) -> Result<(), RpcError> {
        match self.text(names) {
            None | Some("false") => Ok(()),
            Some(_) => Err(RpcError::wrong(format!(
                "there is no option {:?} here: {instead}",
                names.first().copied().unwrap_or_default()
            ))),
        }
    }

    /// A number or another plain value.
    pub fn parsed<T: FromStr>(&self, names: &[&str], what: &str) -> Result<Option<T>, RpcError> {
        self.text(names)
            .map(|text| text.parse().map_err(|_| Self::bad(names, text, what)))
            .transpose()
    }

    /// A duration such as `30s`.
    pub fn duration(&self, names: &[&str]) -> Result<Option<Duration>, RpcError> {
        self.text(names)
            .map(|text| {
                let interval = Interval::from_str(text);
                interval
                    .map(|interval| interval.0)
                    .map_err(|error| RpcError::wrong(error.to_string()))
            })
            .transpose()
    }

    /// Every `arg` as a path, which may begin with a name. [`Call::paths`](super::api::Call::paths) follows those.
    pub fn paths(&self, name: &str) -> Result<Vec<NamePath>, RpcError> {
        self.some(name)?
            .into_iter()
            .map(|text| {
                NamePath::from_str(text).map_err(|error| match error {
                    error @ PathError::Content(ParsePathError::Root { .. }) => RpcError::failed(format!(
                        "{error}; argument {name:?} begins with a CID, which looks like bafybeib7xs… or \
                         QmXrkJoq…"
                    )),
                    error => super::follow::wrong(&error),
                })
            })
            .collect()
    }

    /// How CIDs are written in the answer.
    pub fn cids(&self) -> Result<CidText, RpcError> {
        let base = self.text(&["cid-base"]).filter(|name| !name.is_empty());
        let base = base.map(base_from_name).transpose()?;
        let upgrade = self.choice(&["upgrade-cidv0-in-output"])?;
        Ok(CidText {
            base,
            upgrade: upgrade.unwrap_or_else(|| base.is_some_and(|base| base != Base::Base58Btc)),
        })
    }

    fn bad(names: &[&str], value: &str, what: &str) -> RpcError {
        let name = names.first().copied().unwrap_or_default();
        RpcError::wrong(format!(
            "invalid value {value:?} for {name}: expected {what}"
        ))
    }
}

fn decode(text: &str) -> Result<String, RpcError> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| RpcError::wrong("an argument is not UTF-8"))
}

/// A multibase by its name or its letter.
pub fn base_from_name(name: &str) -> Result<Base, RpcError> {
    let named = BASES.into_iter().find(|(known, _)| *known == name);
    let mut letters = name.chars();
    let by_letter = match (letters.next(), letters.next()) {
        (Some(letter), None) => Base::from_code(letter).ok(),
        _ => None,
    };
    named
        .map(|(_, base)| base)
        .or(by_letter)
        .ok_or_else(|| RpcError::wrong(format!("unknown multibase {name:?}")))
}

/// The name of a multibase.
pub fn base_name(base: Base) -> &'static str {
    BASES
        .into_iter()
        .find(|(_, known)| *known == base)
        .map_or("unknown", |(name, _)| name)
}

/// How CIDs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CidText {
    base: Option<Base>,
    upgrade: bool,
}

impl CidText {
    /// The text of `cid`.
    pub fn text(&self, cid: &Cid) -> String {
        let cid = if self.upgrade && cid.version() == Version::V0 {
            cid::to_v1(cid)
        } else {
            *cid
        };
        match self.base {
            Some(base) if cid.version() == Version::V1 => cid
                .to_string_of_base(base)
                .unwrap_or_else(|_| cid.to_string()),
            _ => cid.to_string(),
        }
    }
}

/// Most arguments of one request.
const ARGUMENTS_MAX: usize = 10_000;

/// Every multibase by its registered name.
pub const BASES: [(&str, Base); 23] = [
    ("base2", Base::Base2),
    ("base8", Base::Base8),
    ("base10", Base::Base10),
    ("base16", Base::Base16Lower),
    ("base16upper", Base::Base16Upper),
    ("base32", Base::Base32Lower),
    ("base32upper", Base::Base32Upper),
    ("base32pad", Base::Base32PadLower),
    ("base32padupper", Base::Base32PadUpper),
    ("base32hex", Base::Base32HexLower),
    ("base32hexupper", Base::Base32HexUpper),
    ("base32hexpad", Base::Base32HexPadLower),
    ("base32hexpadupper", Base::Base32HexPadUpper),
    ("base32z", Base::Base32Z),
    ("base36", Base::Base36Lower),
    ("base36upper", Base::Base36Upper),
    ("base58flickr", Base::Base58Flickr),
    ("base58btc", Base::Base58Btc),
    ("base64", Base::Base64),
    ("base64pad", Base::Base64Pad),
    ("base64url", Base::Base64Url),
    ("base64urlpad", Base::Base64UrlPad),
    ("base256emoji", Base::Base256Emoji),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Arguments {
        Arguments::parse(query).unwrap()
    }

    #[test]
    fn reads_repeated_arguments_in_order_and_ignores_unknown_ones() {
        let arguments = read("arg=a&preload=false&arg=b%2Fc+d&paths=x");
        assert_eq!(arguments.all(), ["a", "b/c d"]);
        assert_eq!(arguments.first("cid").unwrap(), "a");
        let error = read("").first("ipfs-path").unwrap_err();
        assert_eq!(error.message(), "argument \"ipfs-path\" is required");
    }

    #[test]
    fn a_flag_may_be_bare_and_may_have_a_short_name() {
        assert_eq!(read("r").choice(&["recursive", "r"]).unwrap(), Some(true));
        assert_eq!(
            read("recursive=false").choice(&["recursive", "r"]).unwrap(),
            Some(false)
        );
        assert_eq!(read("").choice(&["recursive"]).unwrap(), None);
        assert!(read("recursive=maybe").flag(&["recursive"]).is_err());
    }

    #[test]
    fn durations_and_numbers_are_checked() {
        let timeout = read("timeout=5000ms").duration(&["timeout"]).unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(5)));
        assert!(read("timeout=soon").duration(&["timeout"]).is_err());
        let offset: Result<Option<u64>, _> = read("offset=-1").parsed(&["offset"], "a number");
        assert!(offset.is_err());
    }

    #[test]
    fn refuses_bytes_that_are_no_text_and_floods() {
        assert!(Arguments::parse("arg=%ff").is_err());
        assert!(Arguments::parse(&"a&".repeat(ARGUMENTS_MAX + 1)).is_err());
    }

    #[test]
    fn cids_are_written_in_the_base_asked_for() {
        let v0 = cid::parse("QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG").unwrap();
        let plain = read("").cids().unwrap();
        assert_eq!(plain.text(&v0), v0.to_string());
        let base36 = read("cid-base=base36").cids().unwrap();
        assert!(base36.text(&v0).starts_with('k'));
        let kept = read("cid-base=base36&upgrade-cidv0-in-output=false")
            .cids()
            .unwrap();
        assert_eq!(kept.text(&v0), v0.to_string());
        assert!(read("cid-base=base99").cids().is_err());
    }
}
