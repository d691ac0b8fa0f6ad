//! Which records somebody wants (IPIP-484): by the protocols of their addresses, and by what their
//! peers speak.
//!
//! Names are compared without case. Among addresses `!name` leaves out those that have it; `unknown` is
//! for what is not said: a record without addresses, or without protocols.

use super::record::Record;
use libp2p::Multiaddr;

/// What passes. By default everything does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    addresses: Option<Addresses>,
    /// In lower case.
    protocols: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Addresses {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

/// A filter that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a filter has at most {NAMES_MAX} names of at most {NAME_BYTES_MAX} letters")]
pub struct NoFilter;

impl Filters {
    /// Reads `filter-addrs` and `filter-protocols`, as far as they are given. Empty ones are none.
    pub fn parse(addresses: Option<&str>, protocols: Option<&str>) -> Result<Self, NoFilter> {
        let addresses = match names(addresses.unwrap_or_default())? {
            all if all.is_empty() => None,
            all => {
                let (unwanted, wanted): (Vec<_>, Vec<_>) =
                    all.into_iter().partition(|name| name.starts_with('!'));
                let bare = |name: String| name.trim_start_matches('!').to_owned();
                let unwanted = unwanted.into_iter().map(bare).collect();
                Some(Addresses { wanted, unwanted })
            }
        };
        let protocols = Some(names(protocols.unwrap_or_default())?).filter(|all| !all.is_empty());
        Ok(Self {
            addresses,
            protocols,
        })
    }

    /// The record with the addresses that are wanted; `None` if it is not wanted itself, or none is.
    pub fn apply(&self, mut record: Record) -> Option<Record> {
        if let Some(wanted) = &self.protocols
            && !speaks(&record, wanted)
        {
            return None;
        }
        let Some(addresses) = &self.addresses else {
            return Some(record);
        };
        if record.addresses.is_empty() {
            return addresses.takes_unknown().then_some(record);
        }
        record.addresses.retain(|address| addresses.take(address));
        (!record.addresses.is_empty()).then_some(record)
    }
}

impl Addresses {
    fn takes_unknown(&self) -> bool {
        self.wanted.iter().any(|name| name == UNKNOWN)
    }

    fn take(&self, address: &Multiaddr) -> bool {
        let has = |names: &[String]| {
            address
                .protocol_stack()
                .any(|part| names.iter().any(|name| name.eq_ignore_ascii_case(part)))
        };
        !has(&self.unwanted) && (self.wanted.is_empty() || has(&self.wanted))
    }
}

fn speaks(record: &Record, wanted: &[String]) -> bool {
    if record.protocols.is_empty() {
        return wanted.iter().any(|name| name == UNKNOWN);
    }
    let mut spoken = record.protocols.iter();
    spoken.any(|protocol| {
        wanted
            .iter()
            .any(|name| name.eq_ignore_ascii_case(protocol))
    })
}

/// The names of a list with commas, in lower case.
fn names(text: &str) -> Result<Vec<String>, NoFilter> {
    let names: Vec<String> = text
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .take(NAMES_MAX + 1)
        .collect();
    let fits = |name: &String| name.len() <= NAME_BYTES_MAX;
    match names.len() <= NAMES_MAX && names.iter().all(fits) {
        true => Ok(names),
        false => Err(NoFilter),
    }
}

const UNKNOWN: &str = "unknown";
/// Names in one filter.
const NAMES_MAX: usize = 32;
/// Letters of one.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use libp2p::PeerId;

    const TCP: &str = "/ip4/192.0.2.1/tcp/1";
    const QUIC: &str = "/ip4/192.0.2.1/udp/1/quic-v1";
    const WEB: &str = "/ip4/192.0.2.1/udp/1/quic-v1/webtransport";
    const RELAYED: &str =
        "/ip4/192.0.2.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN/p2p-circuit";

    /// The addresses that are left of these, if the record is.
    fn left(filter: &str, addresses: &[&str]) -> Option<Vec<String>> {
        let record = Record {
            peer: PeerId::random(),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            protocols: Vec::new(),
        };
        let filters = Filters::parse(Some(filter), None).unwrap();
        let passed = filters.apply(record)?;
        Some(passed.addresses.iter().map(ToString::to_string).collect())
    }

    fn passes(filter: &str, protocols: &[&str]) -> bool {
        let record = Record {
            peer: PeerId::random(),
            addresses: Vec::new(),
            protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
        };
        let filters = Filters::parse(None, Some(filter)).unwrap();
        filters.apply(record).is_some()
    }

    fn some(addresses: &[&str]) -> Option<Vec<String>> {
        Some(addresses.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn addresses_pass_by_any_name_and_by_none_that_is_unwanted() {
        let all = [TCP, QUIC, WEB, RELAYED];
        assert_eq!(left("", &all), some(&all));
        assert_eq!(left("webtransport", &all), some(&[WEB]));
        assert_eq!(left("WebTransport, TCP", &all), some(&[TCP, WEB, RELAYED]));
        assert_eq!(left("!p2p-circuit", &all), some(&[TCP, QUIC, WEB]));
        assert_eq!(left("tcp,!p2p-circuit", &all), some(&[TCP]));
        assert_eq!(left("!tcp,!udp", &all), None);
        assert_eq!(left("ws", &all), None);
    }

    #[test]
    fn a_record_without_addresses_passes_as_unknown() {
        assert_eq!(left("", &[]), some(&[]));
        assert_eq!(left("tcp", &[]), None);
        assert_eq!(left("!tcp", &[]), None);
        assert_eq!(left("tcp,unknown", &[]), some(&[]));
        assert_eq!(left("unknown", &[TCP]), None);
    }

    #[test]
    fn records_pass_by_any_protocol_and_without_one_as_unknown() {
        assert!(passes("", &[]) && passes("", &["a"]));
        assert!(passes("b,A", &["a", "c"]));
        assert!(!passes("b", &["a", "c"]) && !passes("b", &[]));
        assert!(passes("b,unknown", &[]) && !passes("unknown", &["a"]));
        assert!(!passes("!a", &["b"]), "nothing is excluded here");
    }

    #[test]
    fn both_have_to_pass() {
        let record = Record {
            peer: PeerId::random(),
            addresses: vec![TCP.parse().unwrap()],
            protocols: vec!["transport-bitswap".to_owned()],
        };
        for (addresses, protocols, whether) in [
            ("tcp", "transport-bitswap", true),
            ("tcp", "unknown", false),
            ("quic-v1", "transport-bitswap", false),
        ] {
            let filters = Filters::parse(Some(addresses), Some(protocols)).unwrap();
            assert_eq!(filters.apply(record.clone()).is_some(), whether);
        }
    }

    #[test]
    fn endless_filters_are_refused() {
        let many = "tcp,".repeat(NAMES_MAX + 1);
        for text in [many.as_str(), &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert_eq!(Filters::parse(Some(text), None), Err(NoFilter));
            assert_eq!(Filters::parse(None, Some(text)), Err(NoFilter));
        }
        assert_eq!(
            Filters::parse(Some(" ,,"), Some("")),
            Ok(Filters::default())
        );
    }
}
