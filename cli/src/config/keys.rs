//! What each key may be, and which one is wrong in a file that does not read.
//!
//! `docs/configuration.md` lists the same; a test holds the two together.

use super::{Config, ConfigError};
use serde::Deserialize;

/// The first key of `table` whose value is none, each looked at as if it were alone in its file.
pub(super) fn first_wrong(table: &toml::Table) -> Option<ConfigError> {
    first_wrong_in(table, &[])
}

fn first_wrong_in(table: &toml::Table, sections: &[&str]) -> Option<ConfigError> {
    table.iter().find_map(|(name, value)| {
        let path: Vec<&str> = sections.iter().copied().chain([name.as_str()]).collect();
        let key = path.join(".");
        if KEYS.iter().any(|(known, _)| *known == key) {
            return (!reads(&path, value)).then(|| wrong(&key, value));
        }
        match value {
            toml::Value::Table(section) => first_wrong_in(section, &path),
            // A known key is no section, and an unknown one was told before.
            _ => Some(wrong(&key, value)),
        }
    })
}

/// Whether a file reads in which nothing else stands.
fn reads(path: &[&str], value: &toml::Value) -> bool {
    let alone = path.iter().rev().fold(value.clone(), |inner, name| {
        toml::Value::Table(toml::Table::from_iter([((*name).to_owned(), inner)]))
    });
    Config::deserialize(alone).is_ok()
}

/// The error for a value that `key` cannot have.
pub(super) fn wrong(key: &str, value: &toml::Value) -> ConfigError {
    let was = match value {
        toml::Value::Array(entries) if let Some(entry) = first_wrong_entry(key, entries) => {
            format!("a list with {}", shortened(&entry.to_string()))
        }
        // What was meant to be a secret is none of the log's.
        _ if key == TOKEN => "something else".to_owned(),
        toml::Value::String(text)
            if text.chars().count() <= WAS_CHARS_MAX && is_alone_in_a_list(key, value) =>
        {
            format!("{value}, which is no list; a list with it alone is [{value}]")
        }
        toml::Value::Table(entries) if let Some((name, entry)) = first_wrong_of(key, entries) => {
            shortened(&format!("a table with {name:?} = {entry}"))
        }
        toml::Value::Table(_) => "a section".to_owned(),
        value => shortened(&value.to_string()),
    };
    ConfigError::Value {
        key: key.to_owned(),
        must: must_be(key),
        was,
    }
}

/// Whether a list was meant of which this would be an entry.
fn is_alone_in_a_list(key: &str, value: &toml::Value) -> bool {
    let path: Vec<&str> = key.split('.').collect();
    reads(&path, &toml::Value::Array(vec![value.clone()]))
}

/// Which one of a list's entries is to blame, if one is: the list itself may be long.
fn first_wrong_entry<'a>(key: &str, entries: &'a [toml::Value]) -> Option<&'a toml::Value> {
    let path: Vec<&str> = key.split('.').collect();
    let is_wrong =
        |entry: &&toml::Value| !reads(&path, &toml::Value::Array(vec![(*entry).clone()]));
    // Where no list is meant, each of them alone is as wrong.
    if !reads(&path, &toml::Value::Array(Vec::new())) {
        return None;
    }
    entries.iter().find(is_wrong)
}

/// The same of a table whose names are the operator's.
fn first_wrong_of<'a>(
    key: &str,
    entries: &'a toml::Table,
) -> Option<(&'a String, &'a toml::Value)> {
    let path: Vec<&str> = key.split('.').collect();
    let reads_with = |entries| reads(&path, &toml::Value::Table(entries));
    if !reads_with(toml::Table::new()) {
        return None;
    }
    entries.iter().find(|(name, entry)| {
        let alone = ((*name).clone(), (*entry).clone());
        !reads_with(toml::Table::from_iter([alone]))
    })
}

/// What the value of `key` must be.
fn must_be(key: &str) -> &'static str {
    let known = KEYS.iter().find(|(known, _)| *known == key);
    known.map_or("a section of keys", |(_, must)| must)
}

fn shortened(text: &str) -> String {
    let line = text.replace('\n', " ");
    if line.chars().count() <= WAS_CHARS_MAX {
        return line;
    }
    let start: String = line.chars().take(WAS_CHARS_MAX).collect();
    format!("{start}…")
}

/// Every key and what its value must be.
const KEYS: &[(&str, &str)] = &[
    ("network", r#""local", "lan" or "public""#),
    (
        "bootstrap",
        r#"a list of addresses like "/ip4/192.0.2.1/tcp/4001/p2p/<peer ID>""#,
    ),
    (
        "addresses.swarm",
        r#"a list of addresses like "/ip4/127.0.0.1/tcp/4001" or "/ip4/127.0.0.1/udp/4001/quic-v1""#,
    ),
    (
        "addresses.rpc",
        r#"an address like "/ip4/127.0.0.1/tcp/5001""#,
    ),
    (
        "addresses.gateway",
        r#"an address like "/ip4/127.0.0.1/tcp/8080", or "" for none"#,
    ),
    (
        "addresses.metrics",
        r#"an address like "/ip4/127.0.0.1/tcp/9090", or "" for the RPC's"#,
    ),
    ("rpc.token", "a text"),
    (
        "rpc.origins",
        r#"a list of origins like "https://example.org""#,
    ),
    ("rpc.hosts", r#"a list of names like "node.example.org""#),
    (
        "fetch.timeout",
        r#"a time like "30s", "500ms" or "1h30m", at least "1ms""#,
    ),
    ("fetch.connections", COUNT),
    ("fetch.pins_at_once", COUNT),
    (
        "fetch.gateways",
        r#"a list of gateways like "http://127.0.0.1:8080" or "/ip4/127.0.0.1/tcp/8080/http""#,
    ),
    (
        "routing.endpoints",
        r#"a list of services like "http://127.0.0.1:8080" or "/ip4/127.0.0.1/tcp/8080/http""#,
    ),
    (
        "dns.resolvers",
        r#"a table like { "." = "system", "eth." = "https://127.0.0.1/dns-query" } of "system", "", or servers with udp://, tcp:// or https://"#,
    ),
    (
        "dns.max_cache_ttl",
        r#"a time like "1h" or "30s", up to "24h""#,
    ),
    (
        "names.lifetime",
        r#"a time like "48h", from "1m" to "876000h""#,
    ),
    (
        "names.republish_interval",
        r#"a time like "4h", from "1m" to "24h""#,
    ),
    ("names.max_cache_ttl", r#"a time like "1h" or "30s""#),
    ("names.pubsub", "true or false"),
    ("connections.low", COUNT_OR_NONE),
    ("connections.high", COUNT_OR_NONE),
    ("connections.grace", r#"a time like "20s" or "1m""#),
    ("connections.per_address", COUNT),
    ("connections.dials_per_second", COUNT),
    ("connections.dials_at_once", COUNT),
    (
        "swarm.peering",
        r#"a list of addresses like "/ip4/192.0.2.1/tcp/4001/p2p/<peer ID>""#,
    ),
    (
        "swarm.filters",
        r#"a list of ranges like "/ip4/192.168.0.0/ipcidr/16""#,
    ),
    (
        "provide.strategy",
        r#""roots", "pinned", "mfs", "pinned+mfs" or "all""#,
    ),
    (
        "provide.interval",
        r#"a time like "22h", from "1m" to "47h""#,
    ),
    ("diag.perf", "true or false"),
    ("reach.relay_client", "true or false"),
    ("reach.relay_server", "true or false"),
    ("reach.hole_punching", "true or false"),
    ("reach.upnp", "true or false"),
    ("reach.mdns", "true or false"),
    (
        "reach.relays",
        r#"a list of addresses like "/ip4/192.0.2.1/tcp/4001/p2p/<peer ID>""#,
    ),
    (
        "reach.announce",
        r#"a list of addresses like "/dns4/node.example.org/tcp/4001""#,
    ),
    (
        "reach.no_announce",
        r#"a list of networks like "10.0.0.0/8" or addresses like "/ip4/192.0.2.1/tcp/4001""#,
    ),
    ("limits.upload", RATE),
    ("limits.download", RATE),
    ("limits.upload_per_peer", RATE),
    ("limits.download_per_peer", RATE),
    (
        "limits.exempt",
        r#"a list of networks like "10.0.0.0/8" or "fc00::/7""#,
    ),
    (
        "limits.memory",
        r#"a whole number of bytes, alone or with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB or TiB), like "2GB", at least "16MiB", or "unlimited" for no limit"#,
    ),
    ("serve.peers_allow", PEERS),
    ("serve.peers_deny", PEERS),
    (
        "serve.content_deny",
        r#"a list of CIDs like "bafy…" or "Qm…""#,
    ),
    ("denylists.system", "true or false"),
    ("filestore.roots", r#"a list of folders like "/srv/media""#),
    ("keystore.key_file", PATH),
    ("keystore.passphrase_file", PATH),
    ("gateway.routing", "true or false"),
    ("gateway.routing_put", "true or false"),
    ("gateway.trustless_only", "true or false"),
    ("gateway.dnslink", "true or false"),
    ("gateway.libp2p", "true or false"),
    (
        "gateway.hosts",
        r#"a table like { "example.com" = { paths = ["/ipfs", "/ipns"], subdomains = true, inline_dnslink = true } }"#,
    ),
    (
        "gateway.trusted_proxies",
        r#"a list of networks like "10.0.0.0/8" or "fc00::/7""#,
    ),
    ("gateway.requests_max", COUNT),
    ("gateway.connections_max", COUNT),
    ("gateway.header_timeout", SPAN),
    ("gateway.write_timeout", SPAN),
    ("gateway.retrieval_timeout", SPAN),
    ("gateway.head_timeout", SPAN),
    ("gateway.read_ahead_max", COUNT),
    ("gateway.ranges_max", COUNT),
    ("gateway.listing_entries_max", COUNT),
    ("gateway.archive_entries_max", COUNT),
    ("gateway.archive_bytes_max", BYTES_MAX),
    ("gateway.request_blocks_max", COUNT),
    ("gateway.request_bytes_max", BYTES_MAX),
    ("gateway.depth_max", COUNT),
    (
        "log.level",
        r#""error", "warn", "info", "debug" or "trace", or directives like "cairn_node=debug,info""#,
    ),
    ("storage.durability", r#""full" or "relaxed""#),
    (
        "storage.segment_size",
        r#"a number of bytes like "1GiB", at least "4KiB""#,
    ),
    (
        "storage.reserve",
        r#""auto" or a number of bytes like "5GiB""#,
    ),
    ("storage.cache_max", r#"a number of bytes like "10GB""#),
    ("storage.scrub_share", "a whole number from 0 to 100"),
    ("storage.max", r#"a number of bytes like "10GB""#),
    (
        "storage.hot_blocks",
        r#"a number of bytes like "64MiB", 0 for none"#,
    ),
    ("storage.index_cache", r#"a number of bytes like "32MiB""#),
];

const TOKEN: &str = "rpc.token";
const COUNT: &str = "a whole number from 1 to 4294967295";
const COUNT_OR_NONE: &str = "a whole number from 0 to 4294967295";
const RATE: &str = r#"a whole number of bytes a second, alone or with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB or TiB), like "5MB", at least "1KB", or "unlimited" for no limit"#;
const BYTES_MAX: &str = r#"a whole number of bytes from 1 up, alone or with a unit (B, KB, MB, GB, TB, KiB, MiB, GiB or TiB), like "64GiB", or "unlimited" for no limit"#;
const PEERS: &str = r#"a list of peer IDs like "12D3KooW…""#;
const PATH: &str = r#"a path like "/etc/cairn/secret", or "" for none"#;
const SPAN: &str = r#"a time like "30s", from "1ms" to "8760h""#;
/// Most characters of a wrong value that are told.
const WAS_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TEMPLATE, edit, view};
    use cairn_store::config::SEGMENT_SIZE_MIN;

    #[test]
    fn every_key_says_what_it_must_be_and_no_other_is_named() {
        let mut named: Vec<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        let mut known = view::known_leaves();
        named.sort();
        known.sort();
        assert_eq!(named, known);
    }

    #[test]
    fn every_key_with_a_wrong_value_is_named_with_what_it_must_be() {
        for (key, must) in KEYS {
            let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
            let header = if sections.is_empty() {
                String::new()
            } else {
                format!("[{sections}]\n")
            };
            let error = Config::parse(&format!("{header}{name} = -1.5\n")).unwrap_err();
            let told = error.to_string();
            assert!(
                told.starts_with(&format!("{key}: must be {must}, was ")),
                "{told}"
            );
            assert_eq!(told.contains("-1.5"), *key != TOKEN, "{told}");
        }
    }

    #[test]
    fn wrong_values_of_the_right_kind_are_named_too() {
        for (key, value) in [
            ("network", "moon"),
            ("filestore.roots", "[\"media\"]"),
            ("storage.scrub_share", "101"),
            ("storage.scrub_share", "300"),
            ("storage.reserve", "automatic"),
            ("storage.cache_max", "10 potatoes"),
            ("storage.segment_size", "0"),
            ("storage.segment_size", "1"),
            ("storage.segment_size", "4095B"),
            ("gateway.head_timeout", "0s"),
            ("gateway.hosts", "{ \"a b\" = {} }"),
            ("gateway.hosts", "{ \"127.0.0.1\" = { subdomains = true } }"),
            ("gateway.hosts", "{ \"localhost\" = { path = [] } }"),
            ("fetch.timeout", "0s"),
            ("provide.strategy", "pinned+entities"),
            ("provide.interval", "50s"),
            ("provide.interval", "48h"),
            ("addresses.swarm", "[\"/ip4/nowhere\"]"),
            ("fetch.connections", "many"),
            ("fetch.gateways", "[\"/ip4/127.0.0.1/tcp/4001\"]"),
            ("routing.endpoints", "[\"ftp://127.0.0.1\"]"),
            ("dns.resolvers", "{ \".\" = \"udp://nowhere\" }"),
            ("dns.resolvers", "{ \"a b\" = \"system\" }"),
            ("dns.max_cache_ttl", "25h"),
            ("names.lifetime", "59s"),
            ("names.republish_interval", "25h"),
            ("names.republish_interval", "0s"),
            ("names.max_cache_ttl", "long"),
            ("limits.upload", "fast"),
            ("limits.upload", "5"),
            ("limits.upload", "0"),
            ("limits.download", "0"),
            ("limits.upload_per_peer", "0"),
            ("limits.download_per_peer", "0"),
            ("reach.no_announce", "[\"10.0.0.0/33\"]"),
            ("limits.memory", "0"),
            ("limits.exempt", "[\"10.0.0.0/33\"]"),
            ("limits.memory", "much"),
            ("limits.memory", "2MB"),
            ("serve.peers_deny", "[\"nobody\"]"),
            ("serve.content_deny", "[\"nothing\"]"),
        ] {
            let error = edit::set(TEMPLATE, key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}: must be ")), "{error}");
            let was = value.trim_matches(['[', ']', '"', '{', '}', ' ']);
            assert!(error.contains(was), "{error}");
        }
        let least = format!("at least \"{SEGMENT_SIZE_MIN}\"");
        assert!(must_be("storage.segment_size").contains(&least));
        assert!(
            edit::set(
                TEMPLATE,
                "storage.segment_size",
                &SEGMENT_SIZE_MIN.to_string()
            )
            .is_ok()
        );
    }

    #[test]
    fn a_wrong_entry_of_a_list_is_named_alone() {
        let mut entries: Vec<String> = (0..100).map(|at| format!("\"10.{at}.0.0/16\"")).collect();
        for wrong in ["\"10/8\"", "7"] {
            entries.insert(90, wrong.to_owned());
            let value = format!("[{}]", entries.join(", "));
            let error = edit::set(TEMPLATE, "limits.exempt", &value).unwrap_err();
            let told = error.to_string();
            let named = format!("was a list with {wrong}");
            assert!(told.ends_with(&named), "{told}");
        }
        let told = edit::set(TEMPLATE, "limits.exempt", "10.0.0.0/8").unwrap_err();
        let named = "which is no list; a list with it alone is [\"10.0.0.0/8\"]";
        assert!(told.to_string().ends_with(named), "{told}");
        let told = edit::set(TEMPLATE, "storage.max", "[1]").unwrap_err();
        assert!(told.to_string().ends_with("was [1]"), "{told}");
    }

    #[test]
    fn a_section_that_is_a_value_is_named() {
        let error = Config::parse("storage = 3\n").unwrap_err().to_string();
        assert!(
            error.starts_with("storage: must be a section of keys, was 3"),
            "{error}"
        );
    }

    #[test]
    fn a_long_wrong_value_is_told_in_part() {
        let text = format!("network = \"{}\"\n", "é".repeat(1000));
        let error = Config::parse(&text).unwrap_err().to_string();
        assert!(
            error.contains('…') && error.chars().count() < 200,
            "{error}"
        );
    }

    #[test]
    fn the_documentation_lists_every_key_with_its_default_and_what_it_must_be() {
        let text = include_str!("../../../docs/configuration.md");
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        let table: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let row = |(key, must): &(&str, &str)| {
            let whole = toml::Value::Table(defaults.clone());
            let found = key
                .split('.')
                .try_fold(whole, |value, name| value.get(name).cloned());
            let default = found.map_or_else(
                || "what fits `network`".to_owned(),
                |value| format!("`{value}`"),
            );
            format!("| `{key}` | {default} | {} |", must.replace('<', "\\<"))
        };
        let rows: Vec<String> = KEYS.iter().map(row).collect();
        assert_eq!(table, rows, "it should be:\n{}", rows.join("\n"));
    }
}
