//! What Kubo's configuration says, and where it stands here.
//!
//! Values that have a counterpart are tried on the configuration that is here, so that what would not be taken is told
//! with why. Of what has none only the key is told: some of it is secret.

use super::super::super::api::Call;
use super::super::super::config::may_replace;
use super::super::super::error::RpcError;
use super::super::super::reply::Sink;
use super::{KuboLine, Setting};
use crate::config::{Config, ConfigError, edit, view};
use crate::repository::Repository;
use cairn_node::Network;
use serde_json::Value;

/// A value of Kubo's that has a counterpart.
struct Found {
    kubo: &'static str,
    key: &'static str,
    wanted: Wanted,
    note: String,
}

enum Wanted {
    List(Vec<String>),
    /// TOML, or a text.
    Value(String),
}

/// Tells what becomes of each setting, and with `config` writes those that fit; whether any was written.
pub(super) async fn tell(call: &Call, kubo: &Value, out: &Sink) -> Result<bool, RpcError> {
    let writes = call.arguments.flag(&["config"])?;
    let mut settings = settle(&call.context.repository, kubo, writes).await?;
    settings.extend(without_counterpart(kubo));
    let has_written = settings.iter().any(|setting| setting.state == "written");
    for setting in settings {
        out.value(&KuboLine {
            setting: Some(setting),
            ..KuboLine::default()
        })
        .await?;
    }
    Ok(has_written)
}

/// What becomes of each setting that has a counterpart.
async fn settle(
    repository: &Repository,
    kubo: &Value,
    writes: bool,
) -> Result<Vec<Setting>, RpcError> {
    let _alone = repository.lock_config().await?;
    let before = repository.config_text()?;
    let mut text = before.clone();
    let mut settings = Vec::new();
    for found in found(kubo) {
        let config = Config::parse(&text)?;
        let edited = found.edited(&text);
        let mut setting = Setting {
            kubo: found.kubo.to_owned(),
            key: found.key.to_owned(),
            value: found.wanted.toml(),
            state: "suggested".to_owned(),
            note: found.note,
        };
        match edited {
            Err(error) => refuse(&mut setting, &error),
            Ok((_, new)) if view::get(&new, found.key)? == view::get(&config, found.key)? => {
                setting.state = "same".to_owned();
            }
            Ok((_, new)) if found.key == GATEWAY && opens_the_gateway(&new) => {
                setting.state = "refused".to_owned();
                setting.note = joined(setting.note, OPEN_GATEWAY);
            }
            Ok((new_text, new)) => match may_replace(repository, &text, &new) {
                Err(error) => refuse(&mut setting, &error),
                Ok(_) if writes => {
                    text = new_text;
                    setting.state = "written".to_owned();
                }
                Ok(_) => {}
            },
        }
        settings.push(setting);
    }
    if text != before {
        repository.write_config(&text)?;
    }
    Ok(settings)
}

/// Whether others than this machine could read from the gateway while the node is for nobody else.
fn opens_the_gateway(config: &Config) -> bool {
    let address = config.addresses.gateway.0.0;
    let is_open = address.is_some_and(|address| !address.0.ip().to_canonical().is_loopback());
    is_open && config.network == Network::Local
}

fn joined(note: String, more: &str) -> String {
    match note.is_empty() {
        true => more.to_owned(),
        false => format!("{note}; {more}"),
    }
}

fn refuse(setting: &mut Setting, error: &ConfigError) {
    setting.state = "refused".to_owned();
    setting.note = error.to_string();
}

impl Found {
    fn edited(&self, text: &str) -> Result<(String, Config), ConfigError> {
        match &self.wanted {
            Wanted::List(list) => edit::set_list(text, self.key, list),
            Wanted::Value(value) => edit::set(text, self.key, value),
        }
    }
}

impl Wanted {
    fn toml(&self) -> String {
        match self {
            Self::List(list) => {
                let list = list.iter().cloned().map(toml::Value::String);
                toml::Value::Array(list.collect()).to_string()
            }
            Self::Value(value) => value.clone(),
        }
    }
}

/// What has a counterpart and is set.
fn found(kubo: &Value) -> Vec<Found> {
    let at = |key: &str| kubo.pointer(&pointer(key)).filter(|value| is_set(value));
    let texts = |key: &str| match at(key)? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => {
            let texts = list
                .iter()
                .filter_map(|one| one.as_str().map(str::to_owned));
            Some(texts.collect::<Vec<_>>())
        }
        _ => None,
    };
    let mut all = Vec::new();
    let mut list =
        |kubo, key, found: Option<Vec<String>>, takes: &dyn Fn(&str) -> Option<String>| {
            let Some(found) = found else {
                return;
            };
            let fit: Vec<String> = found.iter().filter_map(|one| takes(one)).collect();
            let unfit: Vec<&str> = found
                .iter()
                .filter(|one| takes(one).is_none())
                .map(String::as_str)
                .collect();
            let note = match unfit.is_empty() {
                true => String::new(),
                false => format!("without {}, which cairn has not", unfit.join(" ")),
            };
            if !fit.is_empty() {
                let wanted = Wanted::List(fit);
                all.push(Found {
                    kubo,
                    key,
                    wanted,
                    note,
                });
            }
        };
    let whole = |text: &str| Some(text.to_owned());
    list(
        "Addresses.Swarm",
        "addresses.swarm",
        texts("Addresses.Swarm"),
        &|text| {
            let has_it = !["webtransport", "webrtc", "p2p-circuit", "/tls/sni/"]
                .iter()
                .any(|part| text.contains(part));
            has_it.then(|| text.to_owned())
        },
    );
    list(
        "Addresses.Announce",
        "reach.announce",
        texts("Addresses.Announce"),
        &whole,
    );
    list(
        "Addresses.NoAnnounce",
        "reach.no_announce",
        texts("Addresses.NoAnnounce"),
        &|text| Some(network(text).unwrap_or_else(|| text.to_owned())),
    );
    let named = |text: &str| (text != "auto").then(|| text.to_owned());
    list("Bootstrap", "bootstrap", texts("Bootstrap"), &named);
    list(
        "Peering.Peers",
        "swarm.peering",
        at("Peering.Peers").map(peers),
        &whole,
    );
    list(
        "Swarm.AddrFilters",
        "swarm.filters",
        texts("Swarm.AddrFilters"),
        &whole,
    );
    list(
        "Swarm.RelayClient.StaticRelays",
        "reach.relays",
        texts("Swarm.RelayClient.StaticRelays"),
        &whole,
    );
    for (kubo, key) in [
        ("Addresses.API", "addresses.rpc"),
        ("Addresses.Gateway", GATEWAY),
    ] {
        let addresses = texts(kubo).unwrap_or_default();
        let Some((first, others)) = addresses.split_first() else {
            continue;
        };
        let note = match others.is_empty() {
            true => String::new(),
            false => format!(
                "without {}: cairn listens on one address there",
                others.join(" ")
            ),
        };
        all.push(Found {
            kubo,
            key,
            wanted: Wanted::Value(quoted(first)),
            note,
        });
    }
    let mut value = |kubo, key, wanted: Option<String>| {
        all.extend(wanted.map(|wanted| Found {
            kubo,
            key,
            wanted: Wanted::Value(wanted),
            note: String::new(),
        }));
    };
    for (kubo, key) in PLAIN {
        let plain = at(kubo).and_then(|found| match found {
            Value::Bool(_) | Value::Number(_) => Some(found.to_string()),
            Value::String(text) => Some(quoted(text)),
            _ => None,
        });
        value(kubo, key, plain);
    }
    for (kubo, key) in NEGATED {
        let flag = kubo_flag(at(kubo));
        value(kubo, key, flag.map(|flag| (!flag).to_string()));
    }
    value(
        "DNS.Resolvers",
        "dns.resolvers",
        at("DNS.Resolvers").and_then(resolvers),
    );
    all
}

fn kubo_flag(value: Option<&Value>) -> Option<bool> {
    // What is off by itself says nothing.
    value.and_then(Value::as_bool).filter(|flag| *flag)
}

/// Names of settings that are set and have no counterpart.
fn without_counterpart(kubo: &Value) -> Vec<Setting> {
    let mut leaves = Vec::new();
    collect(kubo, String::new(), &mut leaves);
    let known = |leaf: &str| {
        let is_known = |key: &str| leaf == key || leaf.starts_with(&format!("{key}."));
        LISTS.iter().any(|key| is_known(key))
            || PLAIN.iter().chain(&NEGATED).any(|(key, _)| is_known(key))
            || OF_NO_CONCERN.iter().any(|key| is_known(key))
    };
    let mut settings: Vec<Setting> = Vec::new();
    for leaf in leaves.into_iter().filter(|leaf| !known(leaf)) {
        let hint = HINTS.iter().find(|(key, _)| leaf.starts_with(key));
        settings.push(Setting {
            kubo: leaf,
            state: "none".to_owned(),
            note: hint.map_or("", |(_, hint)| hint).to_owned(),
            ..Setting::default()
        });
    }
    settings
}

/// The names of everything that says something; of lists and deeper ones only the first levels.
fn collect(value: &Value, path: String, leaves: &mut Vec<String>) {
    let depth = path.split('.').count();
    match value {
        Value::Object(map) if depth < DEPTH_MAX && !map.is_empty() => {
            for (key, value) in map {
                let path = match path.is_empty() {
                    true => key.clone(),
                    false => format!("{path}.{key}"),
                };
                if leaves.len() < LEAVES_MAX {
                    collect(value, path, leaves);
                }
            }
        }
        Value::Bool(false) => {}
        value if is_set(value) => leaves.push(path),
        _ => {}
    }
}

/// Whether a value says anything: what is off, empty or zero is what it would be without.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn pointer(key: &str) -> String {
    format!("/{}", key.replace('.', "/"))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `10.0.0.0/8` of `/ip4/10.0.0.0/ipcidr/8`.
fn network(text: &str) -> Option<String> {
    let mut parts = text
        .strip_prefix("/ip4/")
        .or_else(|| text.strip_prefix("/ip6/"))?
        .split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(address), Some("ipcidr"), Some(bits), None) => Some(format!("{address}/{bits}")),
        _ => None,
    }
}

/// Kubo has an ID and addresses, we have addresses with the ID.
fn peers(value: &Value) -> Vec<String> {
    let peers = value.as_array().into_iter().flatten();
    let addresses = peers.flat_map(|peer| {
        let id = peer.get("ID").and_then(Value::as_str).unwrap_or_default();
        let addresses = peer.get("Addrs").and_then(Value::as_array);
        addresses.into_iter().flatten().filter_map(move |address| {
            let address = address.as_str()?;
            let address = address.split("/p2p/").next()?;
            Some(format!("{address}/p2p/{id}"))
        })
    });
    addresses.collect()
}

/// Kubo writes `eth.` for what ends in it, as we do.
fn resolvers(value: &Value) -> Option<String> {
    let map = value.as_object()?;
    let entries = map
        .iter()
        .filter_map(|(suffix, server)| Some((suffix, server.as_str()?)))
        .filter(|(_, server)| *server != "auto" && !server.is_empty());
    let mut entries: Vec<String> = entries
        .map(|(suffix, server)| format!("{} = {}", quoted(suffix), quoted(server)))
        .collect();
    if entries.is_empty() {
        return None;
    }
    if !map.contains_key(".") {
        entries.push(r#""." = "system""#.to_owned());
    }
    Some(format!("{{ {} }}", entries.join(", ")))
}

const GATEWAY: &str = "addresses.gateway";
const OPEN_GATEWAY: &str = "with it, whoever reaches this machine would be served, and `network = \"local\"` is for this \
                            machine alone; after `cairn config network public`, or lan, set it as you want it";
/// Values that mean the same here.
const PLAIN: [(&str, &str); 17] = [
    ("Datastore.StorageMax", "storage.max"),
    ("Discovery.MDNS.Enabled", "reach.mdns"),
    ("Gateway.ExposeRoutingAPI", "gateway.routing"),
    ("Ipns.MaxCacheTTL", "names.max_cache_ttl"),
    ("Ipns.RecordLifetime", "names.lifetime"),
    ("Ipns.RepublishPeriod", "names.republish_interval"),
    ("Ipns.UsePubsub", "names.pubsub"),
    ("Provide.DHT.Interval", "provide.interval"),
    ("Provide.Strategy", "provide.strategy"),
    ("Reprovider.Interval", "provide.interval"),
    ("Reprovider.Strategy", "provide.strategy"),
    ("Swarm.ConnMgr.GracePeriod", "connections.grace"),
    ("Swarm.ConnMgr.HighWater", "connections.high"),
    ("Swarm.ConnMgr.LowWater", "connections.low"),
    ("Swarm.EnableHolePunching", "reach.hole_punching"),
    ("Swarm.RelayClient.Enabled", "reach.relay_client"),
    ("Swarm.RelayService.Enabled", "reach.relay_server"),
];
/// Values that mean the contrary here.
const NEGATED: [(&str, &str); 2] = [
    ("Gateway.NoDNSLink", "gateway.dnslink"),
    ("Swarm.DisableNatPortMap", "reach.upnp"),
];
/// What `found` looks at besides.
const LISTS: [&str; 10] = [
    "Addresses.API",
    "Addresses.Announce",
    "Addresses.Gateway",
    "Addresses.NoAnnounce",
    "Addresses.Swarm",
    "Bootstrap",
    "DNS.Resolvers",
    "Peering.Peers",
    "Swarm.AddrFilters",
    "Swarm.RelayClient.StaticRelays",
];
/// What is taken over otherwise, or says nothing about what the node does.
const OF_NO_CONCERN: [&str; 13] = [
    "AutoConf",
    "Datastore.GCPeriod",
    "Datastore.Spec",
    "Datastore.StorageGCWatermark",
    "Identity",
    "Internal",
    "Ipns.ResolveCacheSize",
    "Migration",
    "Mounts.IPFS",
    "Mounts.IPNS",
    "Mounts.MFS",
    "Routing.LoopbackAddressesOnLanDHT",
    "Version",
];
/// What there is instead.
const HINTS: [(&str, &str); 12] = [
    ("API.Authorizations", "one secret for all: rpc.token"),
    (
        "API.HTTPHeaders",
        "rpc.origins lets web pages of other origins in",
    ),
    (
        "Addresses.AppendAnnounce",
        "reach.announce has all addresses that are told",
    ),
    (
        "Experimental.FilestoreEnabled",
        "files added with --nocopy are to be added again",
    ),
    (
        "Experimental.UrlstoreEnabled",
        "what was added from URLs is to be added again",
    ),
    ("Gateway.PublicGateways", "gateway.hosts"),
    ("Import", "flags of `cairn add`"),
    ("Mounts", "there is no FUSE"),
    (
        "Pinning.RemoteServices",
        "there are no remote pinning services",
    ),
    ("Plugins", "there are no plugins"),
    (
        "Pubsub",
        "only names are followed over gossipsub: names.pubsub",
    ),
    ("Swarm.ResourceMgr", "connections and limits"),
];
/// Names with more parts are told as one.
const DEPTH_MAX: usize = 4;
/// Most settings that are told.
const LEAVES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TEMPLATE;
    use serde_json::json;

    #[test]
    fn what_has_a_counterpart_is_taken_by_it() {
        let id = "12D3KooWAiFDyXWZrrbzxUW1WJdPCigz37Fe4H8SqGYg19yQU5xj";
        let kubo = json!({
            "Addresses": {
                "API": "/ip4/127.0.0.1/tcp/5009", "Gateway": ["/ip4/127.0.0.1/tcp/8089"],
                "Swarm": ["/ip4/127.0.0.1/tcp/4009", "/ip4/0.0.0.0/udp/4001/quic-v1/webtransport"],
                "NoAnnounce": ["/ip4/10.0.0.0/ipcidr/8"],
            },
            "Bootstrap": ["auto", format!("/ip4/127.0.0.1/tcp/1/p2p/{id}")],
            "Peering": {"Peers": [{"ID": id, "Addrs": ["/ip4/127.0.0.1/tcp/2"]}]},
            "Swarm": {
                "AddrFilters": ["/ip4/192.168.0.0/ipcidr/16"], "DisableNatPortMap": true,
                "ConnMgr": {"LowWater": 20, "HighWater": 40, "GracePeriod": "1m"},
                "RelayClient": {"Enabled": false}, "RelayService": {"Enabled": false},
            },
            "Datastore": {"StorageMax": "20GB"},
            "DNS": {"Resolvers": {"eth.": "https://dns.example/dns-query"}},
            "Ipns": {"RecordLifetime": "24h", "UsePubsub": true},
            "Gateway": {"NoDNSLink": true},
            "Reprovider": {"Strategy": "pinned", "Interval": "12h"},
        });
        let mut text = TEMPLATE.to_owned();
        let found = found(&kubo);
        for found in &found {
            let edited = found.edited(&text);
            let (new, _) = edited.unwrap_or_else(|error| panic!("{}: {error}", found.kubo));
            text = new;
        }
        assert_eq!(found.len(), 20);
        let config = Config::parse(&text).unwrap();
        let get = |key| view::plain(&view::get(&config, key).unwrap());
        for (key, value) in [
            ("addresses.rpc", "/ip4/127.0.0.1/tcp/5009"),
            ("addresses.gateway", "/ip4/127.0.0.1/tcp/8089"),
            ("addresses.swarm", r#"["/ip4/127.0.0.1/tcp/4009"]"#),
            ("reach.no_announce", r#"["10.0.0.0/8"]"#),
            ("reach.upnp", "false"),
            ("connections.low", "20"),
            ("provide.strategy", "pinned"),
            ("gateway.dnslink", "false"),
        ] {
            assert_eq!(get(key), value, "{key}");
        }
        assert_eq!(
            get("bootstrap"),
            format!(r#"["/ip4/127.0.0.1/tcp/1/p2p/{id}"]"#)
        );
        assert_eq!(
            get("swarm.peering"),
            format!(r#"["/ip4/127.0.0.1/tcp/2/p2p/{id}"]"#)
        );
        let swarm = found
            .iter()
            .find(|found| found.key == "addresses.swarm")
            .unwrap();
        assert!(swarm.note.contains("webtransport"));
    }

    #[test]
    fn what_has_none_is_named_without_its_value() {
        let kubo = json!({
            "Identity": {"PrivKey": "hush"},
            "API": {"Authorizations": {"me": {"AuthSecret": "bearer:hush"}}},
            "Pinning": {"RemoteServices": {"there": {"API": {"Key": "hush"}}}},
            "Experimental": {"FilestoreEnabled": true, "UrlstoreEnabled": false},
            "Swarm": {"ConnMgr": {}},
            "Ipns": {"RecordLifetime": ""},
        });
        let settings = without_counterpart(&kubo);
        let told = serde_json::to_string(&settings).unwrap();
        assert!(!told.contains("hush"), "{told}");
        let names: Vec<&str> = settings.iter().map(|one| &one.kubo[..]).collect();
        assert_eq!(
            names,
            [
                "API.Authorizations.me.AuthSecret",
                "Pinning.RemoteServices.there.API",
                "Experimental.FilestoreEnabled",
            ]
        );
        assert!(settings.iter().all(|one| !one.note.is_empty()));
    }

    #[test]
    fn of_several_addresses_the_first_is_taken_and_the_others_are_named() {
        let both = ["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"];
        let found = found(&json!({"Addresses": {"Gateway": both}}));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].wanted.toml(), r#""/ip4/127.0.0.1/tcp/1""#);
        assert!(found[0].note.contains(both[1]), "{}", found[0].note);
    }

    #[test]
    fn a_gateway_is_open_unless_only_this_machine_reaches_it() {
        for (address, network, opens) in [
            ("/ip4/127.0.0.1/tcp/1", "local", false),
            ("/ip6/::1/tcp/1", "local", false),
            ("", "local", false),
            ("/ip4/0.0.0.0/tcp/1", "local", true),
            ("/ip6/::/tcp/1", "local", true),
            ("/ip4/192.0.2.1/tcp/1", "local", true),
            ("/ip4/0.0.0.0/tcp/1", "lan", false),
            ("/ip4/0.0.0.0/tcp/1", "public", false),
        ] {
            let text = format!("network = {network:?}\n[addresses]\ngateway = {address:?}\n");
            let config = Config::parse(&text).unwrap();
            assert_eq!(opens_the_gateway(&config), opens, "{text}");
        }
    }
}
