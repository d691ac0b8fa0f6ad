//! The hosts that a gateway is known by: `gateway.hosts`.
//!
//! A name is what a browser sends as `Host`, perhaps with a port; a `*` stands for any one label. A host of its own
//! per root needs names below it, which addresses do not have.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Hosts and what each serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Hosts(BTreeMap<HostName, Host>);

/// What one host serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// What is served below which paths (default all of them). Others are answered with 404.
    pub paths: Vec<Space>,
    /// Whether each root has a host of its own, `<cid>.ipfs.<host>`, so that pages of one cannot
    /// touch those of another (default true). Price: a redirect, and DNS and certificates for
    /// the names below.
    pub subdomains: bool,
    /// Whether domains are written as one label, `en-example-org.ipns.<host>`, without TLS too
    /// (default false). With TLS they always are, as certificates cover one label.
    pub inline_dnslink: bool,
}

/// What a host may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Space {
    /// Content.
    #[serde(rename = "/ipfs")]
    Ipfs,
    /// What names lead to.
    #[serde(rename = "/ipns")]
    Ipns,
    /// Who has what, if `gateway.routing` is on.
    #[serde(rename = "/routing/v1")]
    Routing,
}

/// The name of a host, in small letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// Why a text names no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no host: {why}; write it as in \"example.com\", \"localhost:8080\" or \"*.example.com\""
)]
pub struct NoHost {
    text: String,
    why: &'static str,
}

impl Hosts {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = (&HostName, &Host)> {
        self.0.iter()
    }
}

impl FromIterator<(HostName, Host)> for Hosts {
    fn from_iter<I: IntoIterator<Item = (HostName, Host)>>(hosts: I) -> Self {
        Self(hosts.into_iter().collect())
    }
}

impl Default for Hosts {
    fn default() -> Self {
        let localhost = Host {
            inline_dnslink: true,
            ..Host::default()
        };
        Self::from_iter([(HostName("localhost".to_owned()), localhost)])
    }
}

impl Default for Host {
    fn default() -> Self {
        Self {
            paths: vec![Space::Ipfs, Space::Ipns, Space::Routing],
            subdomains: true,
            inline_dnslink: false,
        }
    }
}

impl HostName {
    /// As it was written, in small letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an address, or ends as one.
    fn is_address(&self) -> bool {
        let name = self.0.split(':').next().unwrap_or_default();
        name.parse::<Ipv4Addr>().is_ok()
    }
}

impl FromStr for HostName {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        let refuse = |why| {
            let text = text.chars().take(TEXT_SHOWN).collect();
            Err(NoHost { text, why })
        };
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        if port.is_some_and(|port| port.parse::<u16>().is_err()) {
            return refuse("what follows the colon is no port");
        }
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return refuse("it has no letters, or more than 253");
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let is_label = |label: &str| {
            let is_short = (1..=LABEL_BYTES_MAX).contains(&label.len());
            label == "*" || (is_short && label.bytes().all(is_plain))
        };
        if !name.split('.').all(is_label) {
            return refuse("a label is a-z, 0-9 and hyphens, or a single *");
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Hosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::<String, Host>::deserialize(deserializer)?;
        let read = texts.into_iter().map(|(text, host)| {
            let name: HostName = text.parse().map_err(de::Error::custom)?;
            match host.subdomains && name.is_address() {
                true => Err(de::Error::custom(format!(
                    "{name:?} is an address, which has no names below it: say `subdomains = false`",
                    name = name.0
                ))),
                false => Ok((name, host)),
            }
        });
        read.collect()
    }
}

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Hosts, String> {
        #[derive(Deserialize)]
        struct Section {
            hosts: Hosts,
        }
        let section = toml::from_str::<Section>(&format!("hosts = {text}"));
        section
            .map(|section| section.hosts)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_of_hosts_reads_with_its_defaults() {
        let hosts = read(
            r#"{ "Example.COM" = { paths = ["/ipfs"], inline_dnslink = true }, "*.gw.example:8080" = {}, "10.0.0.1" = { subdomains = false } }"#,
        );
        let hosts = hosts.unwrap();
        let named: Vec<_> = hosts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(named, ["*.gw.example:8080", "10.0.0.1", "example.com"]);
        let (_, host) = hosts.iter().last().unwrap();
        assert_eq!(
            (&host.paths[..], host.subdomains, host.inline_dnslink),
            (&[Space::Ipfs][..], true, true)
        );
        assert_eq!(read("{}").unwrap().iter().count(), 0);
        assert_eq!(Hosts::default().iter().count(), 1);
    }

    #[test]
    fn what_names_no_host_says_why() {
        for (text, told) in [
            (r#"{ "exam ple.org" = {} }"#, "label"),
            (r#"{ "a..b" = {} }"#, "label"),
            (r#"{ "*a.b" = {} }"#, "single *"),
            (r#"{ "" = {} }"#, "no letters"),
            (r#"{ "a:b" = {} }"#, "port"),
            (r#"{ "http://a" = {} }"#, "port"),
            (r#"{ "127.0.0.1" = {} }"#, "subdomains = false"),
            (r#"{ "a" = { paths = ["/api"] } }"#, "/routing/v1"),
            (r#"{ "a" = { path = [] } }"#, "paths"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
