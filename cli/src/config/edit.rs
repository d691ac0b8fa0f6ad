//! Changing single keys: the operator's comments and order stay, and what does not validate
//! never reaches the file.

use super::{Config, ConfigError, view};
use toml_edit::{DocumentMut, Item, TableLike, Value};

/// The text of the file with `key` set to `value`, and what it then means.
///
/// `value` is TOML; what is not TOML, or only fits as one, is a string.
pub fn set(text: &str, key: &str, value: &str) -> Result<(String, Config), ConfigError> {
    let string = || Value::from(value);
    let Ok(parsed) = value.parse::<Value>() else {
        return set_value(text, key, string());
    };
    let is_string = parsed.is_str();
    match set_value(text, key, parsed) {
        Err(ConfigError::Value { .. }) if !is_string => {
            // A token such as `12345` is a text that happens to look like a number.
            let first = set_value(
                text,
                key,
                value.parse::<Value>().unwrap_or_else(|_| string()),
            );
            set_value(text, key, string()).or(first)
        }
        other => other,
    }
}

/// The text with the `bootstrap` list replaced.
pub fn set_bootstrap(text: &str, peers: &[String]) -> Result<(String, Config), ConfigError> {
    set_list(text, "bootstrap", peers)
}

/// The text with the list at `key` replaced.
pub fn set_list(
    text: &str,
    key: &str,
    entries: &[String],
) -> Result<(String, Config), ConfigError> {
    let list: toml_edit::Array = entries.iter().map(String::as_str).collect();
    set_value(text, key, Value::Array(list))
}

fn set_value(text: &str, key: &str, mut value: Value) -> Result<(String, Config), ConfigError> {
    // Whether the key exists is known before the file is looked at.
    if let Some(example) = view::example_below(key) {
        return Err(ConfigError::Section {
            key: key.to_owned(),
            example,
        });
    }
    let mut document: DocumentMut =
        text.parse()
            .map_err(|error: toml_edit::TomlError| ConfigError::Invalid {
                place: String::new(),
                why: error.message().to_owned(),
            })?;
    let (sections, name) = key
        .rsplit_once('.')
        .map_or((None, key), |(sections, name)| (Some(sections), name));
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for section in sections.into_iter().flat_map(|path| path.split('.')) {
        table = table
            .entry(section)
            .or_insert_with(toml_edit::table)
            .as_table_like_mut()
            .ok_or_else(|| view::unknown(key))?;
    }
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(name, Item::Value(value));
        }
    }
    let text = document.to_string();
    let config = Config::parse(&text)?;
    Ok((text, config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TEMPLATE;

    #[test]
    fn setting_a_key_keeps_every_comment() {
        let (text, config) = set(TEMPLATE, "network", "lan").unwrap();
        assert_eq!(config.network, cairn_node::Network::Lan);
        let comments = |text: &str| text.lines().filter(|l| l.starts_with('#')).count();
        assert_eq!(comments(&text), comments(TEMPLATE));
        assert_eq!(
            text,
            TEMPLATE.replace("network = \"local\"", "network = \"lan\"")
        );
    }

    #[test]
    fn takes_toml_and_what_is_not_toml_as_a_string() {
        let (_, config) = set("", "fetch.connections", "7").unwrap();
        assert_eq!(config.fetch.connections.get(), 7);
        let (_, config) = set("", "addresses.rpc", "/ip4/127.0.0.1/tcp/0").unwrap();
        assert_eq!(config.addresses.rpc.0.0.port(), 0);
        let (_, config) = set("", "addresses.swarm", r#"["/ip4/127.0.0.1/tcp/0"]"#).unwrap();
        assert_eq!(config.swarm_addresses().len(), 1);
        let (_, config) = set("", "rpc.token", "12345").unwrap();
        assert_eq!(config.rpc.token, "12345");
    }

    #[test]
    fn what_does_not_validate_is_refused() {
        assert!(set("", "network", "moon").is_err());
        assert!(set("", "fetch.connections", "many").is_err());
        let error = set("", "addresses.swarn", "[]").unwrap_err();
        assert!(error.to_string().contains("addresses.swarm"), "{error}");
        let error = set("", "addresses", "[]").unwrap_err();
        assert!(matches!(error, ConfigError::Section { .. }), "{error}");
    }

    #[test]
    fn sizes_and_shares_of_the_storage_are_taken() {
        for (key, value) in [
            ("storage.reserve", "auto"),
            ("storage.reserve", "5GiB"),
            ("storage.reserve", "0"),
            ("storage.cache_max", "20GB"),
            ("storage.scrub_share", "0"),
            ("storage.scrub_share", "100"),
        ] {
            let set = set(TEMPLATE, key, value);
            assert!(set.is_ok(), "{key} {value}: {set:?}");
        }
    }

    #[test]
    fn the_bootstrap_list_is_replaced_whole() {
        let peer =
            "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWGC6TvWhfapngX6wvJHMYvKpDMXPb3ZnCZ6dMoaMtimQ5";
        let (text, config) = set_bootstrap(TEMPLATE, &[peer.to_owned()]).unwrap();
        assert_eq!(config.bootstrap.len(), 1);
        let (_, config) = set_bootstrap(&text, &[]).unwrap();
        assert!(config.bootstrap.is_empty());
    }
}
