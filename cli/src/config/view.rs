//! The configuration as others look at it: by key, as effective TOML, and in Kubo's JSON shape.

use super::{Addresses, Config, ConfigError, Diag};
use cairn_node::reach;
use serde_json::json;

/// The effective configuration as TOML, secrets left out.
pub fn effective(config: &Config) -> Result<String, ConfigError> {
    toml::to_string(&table(config)?).map_err(|error| invalid(&error))
}

/// The value at `key`, secrets left out.
pub fn get(config: &Config, key: &str) -> Result<toml::Value, ConfigError> {
    let mut value = toml::Value::Table(table(config)?);
    for name in key.split('.') {
        value = match value {
            toml::Value::Table(mut table) => table.remove(name).ok_or_else(|| unknown(key))?,
            _ => return Err(unknown(key)),
        };
    }
    Ok(value)
}

/// A value as it stands alone on a line: a string without quotes, anything else as TOML.
pub fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Table(table) => toml::to_string(table).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// What Kubo's tools look for, where they look for it.
pub fn kubo(config: &Config, peer_id: Option<&str>) -> serde_json::Value {
    let optional = |address: &super::OptionalAddress| String::from(*address);
    let swarm: Vec<String> = texts(&config.swarm_addresses());
    json!({
        "Identity": { "PeerID": peer_id.unwrap_or_default() },
        "Addresses": {
            "API": [config.addresses.rpc.0.to_string()],
            "Gateway": [optional(&config.addresses.gateway.0)],
            "Swarm": swarm,
            "Announce": [],
            "AppendAnnounce": [],
            "NoAnnounce": [],
        },
        "Bootstrap": texts(&config.bootstrap),
        "Datastore": {
            "StorageMax": config.storage.max.to_string(),
        },
        "API": { "HTTPHeaders": {} },
        "Gateway": {
            "NoFetch": false,
            "HTTPHeaders": {},
            "RootRedirect": "",
            "ExposeRoutingAPI": config.gateway.routing,
            "NoDNSLink": !config.gateway.dnslink,
            "PublicGateways": public_gateways(&config.gateway.hosts),
        },
        "Routing": { "Type": "dht" },
        "Ipns": {
            "RecordLifetime": config.names.lifetime.to_string(),
            "RepublishPeriod": config.names.republish_interval.to_string(),
            "MaxCacheTTL": config.names.max_cache_ttl.to_string(),
            "UsePubsub": config.names.pubsub,
        },
        "DNS": { "Resolvers": config.dns.resolvers, "MaxCacheTTL": config.dns.max_cache_ttl.to_string() },
        "Discovery": { "MDNS": { "Enabled": false } },
        "Swarm": {
            "AddrFilters": texts(&config.swarm.filters),
            "ConnMgr": {
                "Type": "basic",
                "LowWater": config.connections.low,
                "HighWater": config.connections.high,
                "GracePeriod": config.connections.grace.to_string(),
            },
        },
        "Peering": { "Peers": peering(config) },
        "Experimental": { "GatewayOverLibp2p": config.gateway.libp2p },
        "Pinning": { "RemoteServices": {} },
        "Import": { "UnixFSChunker": "size-1048576", "CidVersion": 1, "UnixFSRawLeaves": true },
        "Provide": {
            "Enabled": true,
            "Strategy": config.provide.strategy.name(),
            "DHT": { "Interval": config.provide.interval.to_string() },
        },
    })
}

/// The hosts that the gateway is known by.
fn public_gateways(hosts: &cairn_gateway::config::Hosts) -> serde_json::Value {
    let each = hosts.iter().map(|(name, host)| {
        let shown = json!({
            "Paths": host.paths,
            "UseSubdomains": host.subdomains,
            "InlineDNSLink": host.inline_dnslink,
        });
        (name.as_str().to_owned(), shown)
    });
    each.collect::<serde_json::Map<_, _>>().into()
}

/// The peers to stay connected to, each with its addresses.
fn peering(config: &Config) -> Vec<serde_json::Value> {
    let each = config.swarm.peering.iter().filter_map(|peer| {
        let text = peer.0.to_string();
        let (address, id) = text.rsplit_once("/p2p/")?;
        Some(json!({ "ID": id, "Addrs": [address] }))
    });
    each.collect()
}

/// The first key of `table` that means nothing here.
pub(super) fn first_unknown(table: &toml::Table) -> Option<String> {
    let known = table_of(&example()).unwrap_or_default();
    first_unknown_in(table, &known, "")
}

/// The error for a key that means nothing, with the nearest one that does.
pub(super) fn unknown(key: &str) -> ConfigError {
    let known = known_keys();
    // Below a section that exists, the wrong name is one of that section's.
    let section = key
        .rsplit_once('.')
        .map(|(section, _)| section)
        .filter(|section| known.iter().any(|known| known == section));
    let nearest = known
        .into_iter()
        .filter(|known| match section {
            Some(section) => known
                .strip_prefix(section)
                .is_some_and(|rest| rest.starts_with('.')),
            None => true,
        })
        .map(|known| (strsim::jaro_winkler(key, &known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known);
    ConfigError::UnknownKey {
        key: key.to_owned(),
        nearest,
    }
}

/// If `key` is a section: one of its keys.
pub(super) fn example_below(key: &str) -> Option<String> {
    let prefix = format!("{key}.");
    known_keys()
        .into_iter()
        .find(|known| known.starts_with(&prefix) && known.len() > prefix.len())
}

/// Every key that is no section.
#[cfg(test)]
pub(super) fn known_leaves() -> Vec<String> {
    let mut keys = known_keys();
    keys.retain(|key| example_below(key).is_none());
    keys
}

/// Every key, sections included.
fn known_keys() -> Vec<String> {
    let mut keys = Vec::new();
    collect(&table_of(&example()).unwrap_or_default(), "", &mut keys);
    keys
}

fn collect(table: &toml::Table, prefix: &str, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        if let toml::Value::Table(section) = value
            && !MAPS.contains(&key.as_str())
        {
            collect(section, &format!("{key}."), keys);
        }
        keys.push(key);
    }
}

fn first_unknown_in(table: &toml::Table, known: &toml::Table, prefix: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = format!("{prefix}{name}");
        match (known.get(name), value) {
            (None, _) => Some(key),
            // Whoever wrote it chose its names.
            _ if MAPS.contains(&key.as_str()) => None,
            (Some(toml::Value::Table(known)), toml::Value::Table(section)) => {
                first_unknown_in(section, known, &format!("{key}."))
            }
            (Some(_), _) => None,
        }
    })
}

/// A configuration in which every key that may be left out is there.
fn example() -> Config {
    Config {
        addresses: Addresses {
            swarm: Some(Vec::new()),
            ..Addresses::default()
        },
        diag: Diag { perf: Some(false) },
        reach: reach::Settings {
            upnp: Some(false),
            mdns: Some(false),
            ..reach::Settings::default()
        },
        ..Config::default()
    }
}

fn table(config: &Config) -> Result<toml::Table, ConfigError> {
    let mut shown = config.clone();
    shown.addresses.swarm = Some(config.swarm_addresses());
    shown.diag.perf = Some(config.node(None).answers_perf());
    shown.reach.upnp = Some(config.reach.maps_ports(config.network));
    shown.reach.mdns = Some(config.reach.finds_neighbours(config.network));
    if !shown.rpc.token.is_empty() {
        shown.rpc.token = HIDDEN.to_owned();
    }
    table_of(&shown)
}

fn table_of(config: &Config) -> Result<toml::Table, ConfigError> {
    toml::Table::try_from(config).map_err(|error| invalid(&error))
}

fn invalid(error: &toml::ser::Error) -> ConfigError {
    ConfigError::Invalid {
        place: String::new(),
        why: error.to_string(),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// Keys whose values are tables of the operator's own names, and no sections.
const MAPS: [&str; 2] = ["dns.resolvers", "gateway.hosts"];
/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";
/// How alike two keys must be (0 to 1) for one to be suggested for the other.
const LIKENESS_MIN: f64 = 0.7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_configuration_reads_back() {
        let config = Config::default();
        let text = effective(&config).unwrap();
        let back = Config::parse(&text).unwrap();
        assert_eq!(back.swarm_addresses(), config.swarm_addresses());
        assert_eq!(back.storage, config.storage);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut config = Config::default();
        config.rpc.token = "sesame".to_owned();
        assert!(!effective(&config).unwrap().contains("sesame"));
        assert_eq!(plain(&get(&config, "rpc.token").unwrap()), HIDDEN);
        assert!(!kubo(&config, None).to_string().contains("sesame"));
    }

    #[test]
    fn single_keys_are_found_and_unknown_ones_named() {
        let config = Config::default();
        assert_eq!(plain(&get(&config, "network").unwrap()), "local");
        assert_eq!(plain(&get(&config, "fetch.connections").unwrap()), "512");
        let error = get(&config, "addresses.rcp").unwrap_err();
        assert!(error.to_string().contains("addresses.rpc"), "{error}");
    }

    #[test]
    fn kubos_tools_find_their_addresses() {
        let json = kubo(&Config::default(), Some("12D3KooW"));
        assert_eq!(json["Addresses"]["API"][0], "/ip4/127.0.0.1/tcp/5001");
        assert_eq!(json["Identity"]["PeerID"], "12D3KooW");
        assert_eq!(json["Datastore"]["StorageMax"], "10GB");
    }

    #[test]
    fn the_template_mentions_every_key() {
        for key in known_keys() {
            let name = key.rsplit('.').next().unwrap();
            assert!(super::super::TEMPLATE.contains(name), "{key}");
        }
    }
}
