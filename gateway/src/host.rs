//! By which name the gateway is called, and what that means: a path gateway, a host of its own for one root, a site
//! that a domain's DNSLink leads to, or a redirect to one of them.
//!
//! Nothing is looked up and nothing is remembered here: a [`Turn`] follows from the configuration and a request's
//! head alone, and where a DNSLink decides, it says which. On a host of its own everything below `/` is that root's
//! content; nothing of another root is ever served there, since browsers keep pages apart by their host.

mod links;
#[cfg(test)]
mod tests;

pub(crate) use links::{Entries, Links};

use crate::access::Client;
use crate::config::{Config, Host, Space};
use crate::encode;
use crate::error::Failure;
use crate::request::decode_path;
use cairn_node::ipns;
use cairn_node::limits::Subnet;
use cairn_node::name::domain::Domain;
use cairn_node::name::path::Root;
use cairn_store::Cid;
use cairn_store::cid::{self, LIBP2P_KEY, Version};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use multibase::Base;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// What a request's host makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is one to a path gateway.
    Path,
    /// Its content has another address, for ever.
    Moved(String),
    /// Everything here is content of one root.
    Site(Site),
    /// The first of these whose name has a DNSLink, or else something else.
    Bound(Vec<Site>, Otherwise),
}

/// What is done where no name has a DNSLink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// The same as a path gateway does.
    Path,
    /// The first site all the same, which then says what it lacks.
    First,
    /// Nothing is served there.
    Nowhere,
}

/// A host all of whose content lies below one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    /// The root as a path: `/ipfs/<cid>` or `/ipns/<name>`.
    pub(crate) root: String,
    /// What kind of host it is.
    pub(crate) origin: Origin,
}

/// Where a page that is served belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// To a host that serves all content.
    Path,
    /// To a host of its own below that one, which has the port with it.
    Subdomain(String),
    /// To this domain, which has the port with it.
    DnsLink(String),
}

impl Site {
    /// The domain whose DNSLink leads to it.
    pub(crate) fn domain(&self) -> Option<Domain> {
        match Root::name(self.root.strip_prefix("/ipns/")?) {
            Ok(Root::Domain(domain)) => Some(domain),
            Ok(Root::Key(_) | Root::Content(_)) | Err(_) => None,
        }
    }
}

/// The hosts that the gateway is known by.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    exact: HashMap<String, Host>,
    /// Those with a `*`, by labels.
    patterns: Vec<(Vec<String>, Host)>,
    dnslink: bool,
    proxies: Vec<Subnet>,
}

/// What of a request's head counts here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// Whom it is sent to, as a browser names it.
    pub(crate) host: &'a str,
    pub(crate) is_https: bool,
    /// Still encoded.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
}

impl<'a> Asking<'a> {
    /// `is_trusted` says whether it comes from a proxy in front of this gateway.
    pub(crate) fn of(parts: &'a Parts, is_trusted: bool) -> Result<Self, Failure> {
        let headers = &parts.headers;
        if headers.get_all(header::HOST).iter().nth(1).is_some() {
            // Who stands in front may believe the other one.
            return Err(Failure::Parameter(
                "the request names several hosts: send one Host header".to_owned(),
            ));
        }
        // An address with a host says it better than the header does (RFC 9112, 3.2.2), and a proxy in front of this
        // gateway better than both.
        let sent = parts.uri.authority().map(http::uri::Authority::as_str);
        let sent = sent.or(header_of_host(parts)?);
        let [host, proto] = FORWARDED.map(|name| first(headers, name).filter(|_| is_trusted));
        let host = host.or(sent).unwrap_or_default();
        if !host.is_empty() && !host.starts_with('[') && Named::read(host).is_none() {
            return Err(Failure::Parameter(format!(
                "{:?} is no host",
                host.chars().take(80).collect::<String>()
            )));
        }
        Ok(Self {
            host,
            is_https: match proto {
                Some(proto) => proto.eq_ignore_ascii_case("https"),
                None => parts.uri.scheme() == Some(&http::uri::Scheme::HTTPS),
            },
            path: parts.uri.path(),
            query: parts.uri.query(),
        })
    }

    fn address(&self, label: &str, space: &str, gateway: &str, path: &str) -> String {
        let scheme = if self.is_https { "https" } else { "http" };
        let query = self.query.map(|query| format!("?{query}"));
        let path = encode::path(path);
        format!(
            "{scheme}://{label}.{space}.{gateway}/{path}{}",
            query.unwrap_or_default()
        )
    }
}

impl Known {
    pub(crate) fn new(config: &Config) -> Self {
        let (mut exact, mut patterns) = (HashMap::new(), Vec::new());
        for (name, host) in config.hosts.iter() {
            if name.as_str().contains('*') {
                let labels = name.as_str().split('.').map(str::to_owned);
                patterns.push((labels.collect::<Vec<_>>(), host.clone()));
            } else {
                exact.insert(name.as_str().to_owned(), host.clone());
            }
        }
        // Those that say most come first.
        patterns.sort_by_key(|(labels, _)| labels.iter().filter(|label| *label == "*").count());
        Self {
            exact,
            patterns,
            dnslink: config.dnslink,
            proxies: config.trusted_proxies.clone(),
        }
    }

    /// Whether who sent a request may say where it was sent to.
    pub(crate) fn trusts(&self, client: Option<Client>) -> bool {
        // Without an address it comes from within.
        match client {
            None => true,
            Some(Client::Peer(_)) => false,
            Some(Client::Address(address)) => {
                let ip = address.ip().to_canonical();
                self.proxies.iter().any(|network| network.contains(ip))
            }
        }
    }

    /// Whether this names the gateway itself, or a host below it.
    pub(crate) fn covers(&self, host: &str) -> bool {
        let Some(named) = Named::read(host) else {
            return false;
        };
        self.find(&named.lower).is_some() || self.below(&named).is_some()
    }

    /// What is to be done.
    pub(crate) fn turn(&self, asking: &Asking<'_>) -> Result<Turn, Failure> {
        let Some(named) = Named::read(asking.host) else {
            return Ok(Turn::Path);
        };
        if let Some(host) = self.find(&named.lower) {
            return self.on_gateway(asking, &named, host);
        }
        if let Some(below) = self.below(&named) {
            return below.turn(asking);
        }
        Ok(self.dnslink(&named, Otherwise::Path).unwrap_or(Turn::Path))
    }

    /// The host of this name, with its port or without.
    fn find(&self, name: &str) -> Option<&Host> {
        let bare = name.split(':').next().unwrap_or_default();
        let exact = self.exact.get(name).or_else(|| self.exact.get(bare));
        let fits = |pattern: &[String], name: &str| {
            let mut labels = name.split('.');
            pattern
                .iter()
                .all(|label| labels.next().is_some_and(|own| is_label(label, own)))
                && labels.next().is_none()
        };
        exact.or_else(|| {
            let fitting =
                |(labels, _): &&(Vec<String>, Host)| fits(labels, name) || fits(labels, bare);
            self.patterns.iter().find(fitting).map(|(_, host)| host)
        })
    }

    /// The root and the known host of `<root>.<ipfs or ipns>.<host>`.
    fn below<'a>(&'a self, named: &'a Named<'_>) -> Option<Below<'a>> {
        // From the right: a domain before `.ipns.` may have a label of that name itself.
        let dots = named.lower.rmatch_indices('.').map(|(at, _)| at);
        dots.take(LABELS_MAX).find_map(|dot| {
            let (above, gateway) = (named.lower.get(..dot)?, named.lower.get(dot + 1..)?);
            let (space, name, end) = [(Space::Ipfs, "ipfs"), (Space::Ipns, "ipns")]
                .into_iter()
                .find_map(|(space, name)| {
                    let root = above.strip_suffix(name)?.strip_suffix('.')?;
                    (!root.is_empty()).then_some((space, name, root.len()))
                })?;
            Some(Below {
                host: self.find(gateway)?,
                gateway,
                space,
                name,
                root: named.text.get(..end)?,
            })
        })
    }

    fn on_gateway(
        &self,
        asking: &Asking<'_>,
        named: &Named<'_>,
        host: &Host,
    ) -> Result<Turn, Failure> {
        let path = decode_path(asking.path)?;
        let Some(space) = space_of(&path).filter(|space| host.paths.contains(space)) else {
            // The page that says what this is.
            let otherwise = match path == "/" {
                true => Otherwise::Path,
                false => Otherwise::Nowhere,
            };
            return match self.dnslink(named, otherwise) {
                Some(bound) => Ok(bound),
                None if path == "/" => Ok(Turn::Path),
                None => Err(Failure::Nowhere),
            };
        };
        if !host.subdomains {
            return Ok(Turn::Path);
        }
        let moved = to_subdomain(asking, &named.lower, host, space, &path)?;
        Ok(moved.map_or(Turn::Path, Turn::Moved))
    }

    fn dnslink(&self, named: &Named<'_>, otherwise: Otherwise) -> Option<Turn> {
        if !self.dnslink || named.is_address() {
            return None;
        }
        let bare = named.lower.split(':').next()?;
        let Ok(Root::Domain(domain)) = Root::name(bare) else {
            return None;
        };
        let site = Site {
            root: format!("/ipns/{domain}"),
            origin: Origin::DnsLink(named.lower.clone()),
        };
        Some(Turn::Bound(vec![site], otherwise))
    }
}

/// `<root>.<space>.<gateway>`
struct Below<'a> {
    host: &'a Host,
    gateway: &'a str,
    space: Space,
    name: &'static str,
    /// As it was written: base58 has capitals.
    root: &'a str,
}

impl Below<'_> {
    fn turn(&self, asking: &Asking<'_>) -> Result<Turn, Failure> {
        if !self.host.subdomains || !self.host.paths.contains(&self.space) {
            return Err(Failure::Nowhere);
        }
        let canonical = match self.space {
            Space::Ipns => match Root::name(self.root) {
                Ok(Root::Key(key)) => Some(label_of_key(&ipns::text(&key))?),
                Ok(Root::Domain(domain)) => return Ok(self.domain(&domain)),
                Ok(Root::Content(_)) | Err(_) => None,
            },
            Space::Ipfs | Space::Routing => match cid::parse(self.root) {
                Ok(cid) => Some(label_of(&cid)?),
                Err(_) => None,
            },
        };
        match canonical {
            Some(label) if label != self.root => {
                let path = decode_path(asking.path)?;
                let path = path.strip_prefix('/').unwrap_or(&path);
                Ok(Turn::Moved(asking.address(
                    &label,
                    self.name,
                    self.gateway,
                    path,
                )))
            }
            // What is neither is told as such when the path is read.
            Some(_) | None => Ok(Turn::Site(self.site(self.root))),
        }
    }

    /// A domain, as it is or as one label; the latter is far more likely to be meant, and looked at first.
    fn domain(&self, domain: &Domain) -> Turn {
        let inlined = match domain.is_single() && self.root.contains('-') {
            true => Domain::from_label(domain.as_str()).ok(),
            false => None,
        };
        match inlined {
            Some(inlined) => Turn::Bound(
                vec![self.site(inlined.as_str()), self.site(domain.as_str())],
                Otherwise::First,
            ),
            None => Turn::Site(self.site(domain.as_str())),
        }
    }

    fn site(&self, root: &str) -> Site {
        Site {
            root: format!("/{}/{root}", self.name),
            origin: Origin::Subdomain(self.gateway.to_owned()),
        }
    }
}

/// A host as it was sent, if it is one.
struct Named<'a> {
    text: &'a str,
    /// The same in small letters.
    lower: String,
}

impl<'a> Named<'a> {
    /// `None` for what is empty, an address in brackets, or nothing that a browser sends.
    fn read(text: &'a str) -> Option<Self> {
        if text.is_empty() || text.len() > HOST_BYTES_MAX {
            return None;
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        };
        // The same name in DNS, which browsers take for another host.
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let is_port =
            |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let is_good = !name.is_empty() && name.bytes().all(is_plain) && port.is_none_or(is_port);
        is_good.then(|| {
            let mut lower = name.to_ascii_lowercase();
            if let Some(port) = port {
                lower.push(':');
                lower.push_str(port);
            }
            Self { text, lower }
        })
    }

    fn is_address(&self) -> bool {
        let name = self.lower.split(':').next().unwrap_or_default();
        name.parse::<Ipv4Addr>().is_ok()
    }
}

/// The address on a host of its own of what a path names; `None` if it names nothing that has one.
fn to_subdomain(
    asking: &Asking<'_>,
    gateway: &str,
    host: &Host,
    space: Space,
    path: &str,
) -> Result<Option<String>, Failure> {
    let (name, below) = match space {
        Space::Ipfs => ("ipfs", path.strip_prefix("/ipfs")),
        Space::Ipns => ("ipns", path.strip_prefix("/ipns")),
        Space::Routing => return Ok(None),
    };
    // As the path will be read: empty names are none.
    let below = below.unwrap_or_default().trim_start_matches('/');
    let (root, rest) = below.split_once('/').unwrap_or((below, ""));
    let label = match space {
        Space::Ipns => match Root::name(root) {
            Ok(Root::Key(key)) => label_of_key(&ipns::text(&key))?,
            // `/ipns/ipfs/…` is put right first.
            Ok(Root::Domain(_)) if matches!(root, "ipfs" | "ipns") => return Ok(None),
            Ok(Root::Domain(domain)) => label_of_domain(&domain, asking.is_https, host)?,
            Ok(Root::Content(_)) | Err(_) => return Ok(None),
        },
        Space::Ipfs | Space::Routing => match cid::parse(root) {
            Ok(cid) if cid.codec() != LIBP2P_KEY => label_of(&cid)?,
            Ok(_) | Err(_) => return Ok(None),
        },
    };
    Ok(Some(asking.address(&label, name, gateway, rest)))
}

/// A CID as one label: in base32, or in base36 if that is too long.
fn label_of(cid: &Cid) -> Result<String, Failure> {
    let cid = match cid.version() {
        Version::V0 => cid::to_v1(cid),
        Version::V1 => *cid,
    };
    let text = cid.to_string();
    if text.len() <= LABEL_BYTES_MAX {
        return Ok(text);
    }
    let text = cid.to_string_of_base(Base::Base36Lower).unwrap_or(text);
    label_of_key(&text)
}

fn label_of_key(text: &str) -> Result<String, Failure> {
    if text.len() <= LABEL_BYTES_MAX {
        return Ok(text.to_owned());
    }
    Err(Failure::Path(format!(
        "CID incompatible with DNS label length limit of 63: {text}"
    )))
}

/// A domain as it stands before `.ipns.`: one label where certificates ask for it or the operator does.
fn label_of_domain(domain: &Domain, is_https: bool, host: &Host) -> Result<String, Failure> {
    if domain.is_single() || !(is_https || host.inline_dnslink) {
        return Ok(domain.to_string());
    }
    match domain.to_label() {
        Some(label) => Ok(label),
        None if is_https => Err(Failure::Path(format!(
            "DNSLink name incompatible with DNS label length limit of 63 once it is one label: {domain}"
        ))),
        None => Ok(domain.to_string()),
    }
}

/// The space that a path lies in.
fn space_of(path: &str) -> Option<Space> {
    let spaces = [
        (Space::Ipfs, "/ipfs"),
        (Space::Ipns, "/ipns"),
        (Space::Routing, "/routing/v1"),
    ];
    spaces.into_iter().find_map(|(space, start)| {
        let rest = path.strip_prefix(start)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(space)
    })
}

fn is_label(pattern: &str, label: &str) -> bool {
    // The last one may have a port behind it.
    let (pattern, label) = match pattern.strip_prefix("*:") {
        Some(port) => match label.split_once(':') {
            Some((label, own)) if own == port => ("*", label),
            _ => return false,
        },
        None => (pattern, label),
    };
    match pattern {
        "*" => !label.is_empty() && !label.contains(':'),
        literal => literal == label,
    }
}

/// The first of a header's values, as text; proxies add theirs behind it.
fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let text = headers.get(name)?.to_str().ok()?;
    let first = text.split(',').next().unwrap_or_default().trim();
    (!first.is_empty()).then_some(first)
}

/// What the `Host` header says. Whoever stands in front may have made something of one that is wrong (RFC 9112, 3.2).
fn header_of_host(parts: &Parts) -> Result<Option<&str>, Failure> {
    let wrong = |why: &str| Err(Failure::Parameter(why.to_owned()));
    let is_remote = parts.extensions.get::<Client>().is_some();
    match parts.headers.get(header::HOST).map(HeaderValue::to_str) {
        Some(Ok(host)) => Ok(Some(host.trim())),
        Some(Err(_)) => wrong("the Host header of the request cannot be read"),
        None if is_remote && parts.version == http::Version::HTTP_11 => {
            wrong("the request names no host: send a Host header")
        }
        None => Ok(None),
    }
}

/// What a proxy in front says: the host, and the scheme.
pub(crate) const FORWARDED: [&str; 2] = ["x-forwarded-host", "x-forwarded-proto"];
/// Longest host that is looked at: a domain, its root in any base, and a port.
const HOST_BYTES_MAX: usize = 512;
/// Most labels in which a known host is looked for.
const LABELS_MAX: usize = 64;
/// Longest label in DNS.
const LABEL_BYTES_MAX: usize = 63;
