//! One question to a name server, and what its answer says.
//!
//! hickory speaks DNS: it chooses ports and numbers at random, passes over answers that fit neither, asks over TCP
//! what was cut off, and follows aliases. What comes of that is a stranger's: texts are counted, and taken only from
//! the name that was asked for or its aliases.

use super::{Server, Times};
use crate::http::{public_roots, tls};
use crate::name::dnslink;
use crate::name::domain::Domain;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use rustls::RootCertStore;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What asks. Keeps the way to each server for a while.
pub(super) struct Asker {
    times: Times,
    roots: RootCertStore,
    ways: Mutex<HashMap<Server, Way>>,
}

/// The way to a server, and when it was found.
struct Way {
    resolver: TokioResolver,
    found: Instant,
}

/// What a name server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// There are texts. They hold for so long.
    Texts(Vec<Vec<u8>>, Duration),
    /// There are none. That holds for so long, if it says so.
    Nothing(Absence, Option<Duration>),
}

/// What is missing where there are no texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// The name `_dnslink.NAME`.
    Name,
    /// A TXT record of that name.
    Record,
}

/// Why it said nothing that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing came in time.
    #[error("there was no answer within {0:?}")]
    TooSlow(Duration),
    /// It says that it will not or cannot tell.
    #[error("it answered with an error: {0}")]
    Refused(String),
    /// It has more texts than anybody needs.
    #[error("it answered with {0} texts, and no more than {TEXTS_MAX} are read")]
    TooMany(usize),
    /// It cannot be reached, or speaks no DNS.
    #[error("{0}")]
    Broken(String),
}

impl fmt::Debug for Asker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    pub(super) fn new(times: Times) -> Self {
        Self::trusting(times, public_roots())
    }

    /// One that believes certificates of `roots`.
    pub(super) fn trusting(times: Times, roots: RootCertStore) -> Self {
        Self {
            times,
            roots,
            ways: Mutex::default(),
        }
    }

    /// The texts at `_dnslink` below `domain`.
    pub(super) async fn texts(&self, server: &Server, domain: &Domain) -> Result<Said, Fault> {
        let all = async {
            let name = Name::from_ascii(format!("{}.{domain}.", dnslink::LABEL)).map_err(broken)?;
            let resolver = self.way(server).await?;
            match resolver.lookup(name.clone(), RecordType::TXT).await {
                Ok(found) => read(&name, found.answers()),
                Err(error) => {
                    let said = said_by(error, self.times);
                    if said.is_err() {
                        // The address may have changed, or the network that this machine is in.
                        self.ways().remove(server);
                    }
                    said
                }
            }
        };
        match timeout(self.times.lookup, all).await {
            Ok(said) => said,
            Err(_) => {
                self.ways().remove(server);
                Err(Fault::TooSlow(self.times.lookup))
            }
        }
    }

    async fn way(&self, server: &Server) -> Result<TokioResolver, Fault> {
        if let Some(way) = self.ways().get(server)
            && way.found.elapsed() < WAY_TIME
        {
            return Ok(way.resolver.clone());
        }
        let resolver = self.find(server).await?;
        let way = Way {
            resolver: resolver.clone(),
            found: Instant::now(),
        };
        self.ways().insert(server.clone(), way);
        Ok(resolver)
    }

    async fn find(&self, server: &Server) -> Result<TokioResolver, Fault> {
        let servers = match server {
            Server::Nobody => Vec::new(),
            Server::System => {
                let (config, _) = system_conf::read_system_conf()
                    .map_err(|error| Fault::Broken(format!("/etc/resolv.conf: {error}")))?;
                let mut servers = config.name_servers().to_vec();
                servers.truncate(SERVERS_MAX);
                servers
            }
            Server::Udp(at) => {
                let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                vec![at_port(*at, ways.into())]
            }
            Server::Tcp(at) => vec![at_port(*at, vec![ConnectionConfig::tcp()])],
            Server::Https(service) => {
                let port = service.port();
                let addresses: Vec<IpAddr> = match service.ip() {
                    Some(ip) => vec![ip],
                    None => tokio::net::lookup_host((service.host_text(), port))
                        .await
                        .map_err(|error| Fault::Broken(format!("its name: {error}")))?
                        .map(|address| address.ip())
                        .take(SERVERS_MAX)
                        .collect(),
                };
                let name: Arc<str> = service.host_text().into();
                let path = Some(service.path()).filter(|path| !path.is_empty());
                let path: Option<Arc<str>> = path.map(Into::into);
                let way = |ip| {
                    let way = ConnectionConfig::https(Arc::clone(&name), path.clone());
                    at_port(SocketAddr::new(ip, port), vec![way])
                };
                addresses.into_iter().map(way).collect()
            }
        };
        let config = ResolverConfig::from_name_servers(servers);
        let mut tls = (*tls(self.roots.clone()).map_err(broken)?).clone();
        // Over HTTP/2, which hickory names itself.
        tls.alpn_protocols.clear();
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options(self.times))
            .with_tls_config(tls)
            .build()
            .map_err(broken)
    }

    #[cfg(test)]
    pub(super) fn ways_known(&self) -> usize {
        self.ways().len()
    }

    fn ways(&self) -> std::sync::MutexGuard<'_, HashMap<Server, Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn at_port(at: SocketAddr, mut ways: Vec<ConnectionConfig>) -> NameServerConfig {
    for way in &mut ways {
        way.port = at.port();
    }
    NameServerConfig::new(at.ip(), true, ways)
}

fn options(times: Times) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = times.question;
    options.attempts = RETRIES;
    // What was found is kept here, with what was made of it.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

/// The texts of `name`, or of what it is an alias of.
fn read(name: &Name, answers: &[Record]) -> Result<Said, Fault> {
    let mut owner = name;
    for _ in 0..ALIASES_MAX {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *owner => Some(&alias.0),
            _ => None,
        });
        match alias {
            Some(alias) => owner = alias,
            None => break,
        }
    }
    let texts: Vec<Vec<u8>> = answers
        .iter()
        .filter(|record| record.name == *owner)
        .filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        })
        .collect();
    if texts.len() > TEXTS_MAX {
        return Err(Fault::TooMany(texts.len()));
    }
    if texts.is_empty() {
        return Ok(Said::Nothing(Absence::Record, None));
    }
    // An alias may change as well.
    let ttl = answers.iter().map(|record| record.ttl).min();
    Ok(Said::Texts(
        texts,
        Duration::from_secs(ttl.unwrap_or(0).into()),
    ))
}

fn said_by(error: NetError, times: Times) -> Result<Said, Fault> {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let absence = match none.response_code {
                ResponseCode::NXDomain => Absence::Name,
                _ => Absence::Record,
            };
            let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
            Ok(Said::Nothing(absence, ttl))
        }
        NetError::Dns(DnsError::ResponseCode(code)) => Err(Fault::Refused(code.to_string())),
        NetError::Timeout => Err(Fault::TooSlow(times.question)),
        NetError::Truncated => Err(Fault::Broken(
            "its answer is cut off over TCP as well".into(),
        )),
        error => Err(broken(error)),
    }
}

/// What a server says of itself is shortened, and has nothing that a terminal would act on.
fn broken(error: impl fmt::Display) -> Fault {
    let text = error.to_string();
    let start = text.chars().take(ERROR_SHOWN).flat_map(char::escape_debug);
    Fault::Broken(start.collect())
}

/// How long the way to a server is used before it is looked for anew: this machine may be in another network by then.
const WAY_TIME: Duration = Duration::from_secs(60);
/// Servers of one resolver that are asked.
const SERVERS_MAX: usize = 4;
/// How often a question is asked again.
const RETRIES: usize = 1;
/// Texts read of one answer.
const TEXTS_MAX: usize = 256;
/// Aliases followed inside one answer; hickory follows as many from answer to answer.
const ALIASES_MAX: usize = 8;
/// How much of an error is repeated.
const ERROR_SHOWN: usize = 200;
