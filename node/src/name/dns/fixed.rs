//! Names whose end the operator fixed: `IPFS_NS_MAP`.

use crate::name::follow::Target;
use crate::name::path::{NamePath, Root};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Names and where they lead, as `example.org:/ipfs/CID,k51…:/ipns/example.org`. Nobody is asked about them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed(BTreeMap<Root, NamePath>);

/// Why a text is no such list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{entry:?} is no name with a path, as in \"example.org:/ipfs/CID\": {why}")]
pub struct NoMap {
    entry: String,
    why: String,
}

impl Fixed {
    /// Where `name` leads, if it is one of them.
    pub fn get(&self, name: &Root) -> Option<Target> {
        let path = self.0.get(name)?.clone();
        Some(Target { path, ttl: None })
    }
}

impl FromStr for Fixed {
    type Err = NoMap;

    fn from_str(text: &str) -> Result<Self, NoMap> {
        let entries = text.split(',').map(str::trim).filter(|one| !one.is_empty());
        let read = |entry: &str| {
            let wrong = |why: String| NoMap {
                entry: entry.chars().take(TEXT_SHOWN).collect(),
                why,
            };
            let (name, path) = entry
                .split_once(':')
                .ok_or_else(|| wrong("it has no colon".to_owned()))?;
            let name = Root::name(name).map_err(|error| wrong(error.to_string()))?;
            let path = NamePath::value(path).map_err(|error| wrong(error.to_string()))?;
            Ok((name, path))
        };
        entries.map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// How much of a wrong entry an error repeats.
const TEXT_SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn end(fixed: &Fixed, name: &str) -> Option<String> {
        let found = fixed.get(&Root::name(name).unwrap());
        found.map(|target| target.path.to_string())
    }

    #[test]
    fn a_map_of_kubos_is_read() {
        let key = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        let text =
            format!("a.example:/ipfs/bafkqaaa/x,{key}:/ipns/B.example, b.example:/ipfs/bafkqaaa,");
        let fixed: Fixed = text.parse().unwrap();
        assert_eq!(
            end(&fixed, "A.Example."),
            Some("/ipfs/bafkqaaa/x".to_owned())
        );
        assert_eq!(end(&fixed, key), Some("/ipns/b.example".to_owned()));
        assert_eq!(end(&fixed, "c.example"), None);
        assert_eq!("".parse(), Ok(Fixed::default()));
    }

    #[test]
    fn a_wrong_entry_is_named() {
        for (text, why) in [
            ("a.example", "no colon"),
            ("a.example:bafkqaaa", "neither"),
            ("exa mple:/ipfs/bafkqaaa", "names no key"),
            ("a.example:/ipfs/bafkqaaa,b.example:/ipfs/x", "b.example"),
        ] {
            let error = text.parse::<Fixed>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
