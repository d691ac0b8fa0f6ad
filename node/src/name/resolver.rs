//! Where names of both kinds lead: keys by their newest record, domains by their DNSLink.

use super::Names;
use super::dns::{Dns, LookupError};
use super::domain::Domain;
use super::follow::{Depth, FollowError, Followed, Lookup, Target, Walk, go_on};
use super::path::{NamePath, PathError, Root};
use super::resolve::{How, ResolveError};
use crate::denylist::{Denial, Denylist};
use crate::ipns::{self, Record};
use libp2p::PeerId;

/// Follows names. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resolver {
    names: Names,
    dns: Dns,
    denylist: Denylist,
}

/// Why it is not known where a name leads.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// DNS does not tell.
    #[error(transparent)]
    Dns(#[from] LookupError),
    /// There is no record to be had.
    #[error(transparent)]
    Record(#[from] ResolveError),
    /// The operator does not want what is on the way.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The record is valid, and what it says leads nowhere.
    #[error("the newest record of /ipns/{name} leads nowhere: {source}")]
    Value {
        /// The name.
        name: String,
        /// What is wrong with what it says.
        source: PathError,
    },
}

impl Resolver {
    /// Over records and DNSLinks.
    pub fn new(names: Names, dns: Dns) -> Self {
        let denylist = Denylist::default();
        Self {
            names,
            dns,
            denylist,
        }
    }

    /// The same, following no path that a denylist names.
    #[must_use]
    pub fn denying(self, denylist: Denylist) -> Self {
        self.names.denying(denylist.clone());
        Self { denylist, ..self }
    }

    /// What is not wanted here.
    pub const fn denylist(&self) -> &Denylist {
        &self.denylist
    }

    /// Names of keys.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Names that are domains.
    pub const fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Follows the names of a path, one after the other.
    pub async fn follow(
        &self,
        path: NamePath,
        depth: Depth,
        how: How,
    ) -> Result<Followed, FollowError<NameError>> {
        self.go_on(Walk::new(path, depth), how).await
    }

    /// Goes on with a walk that somebody has begun.
    pub async fn go_on(&self, walk: Walk, how: How) -> Result<Followed, FollowError<NameError>> {
        let asked = Asked {
            resolver: self,
            how,
        };
        Box::pin(go_on(&asked, walk)).await
    }

    /// Where a record leads.
    pub fn target(&self, name: &PeerId, record: &Record) -> Result<Target, NameError> {
        let text = String::from_utf8_lossy(record.value());
        let path = NamePath::value(&text).map_err(|source| NameError::Value {
            name: ipns::text(name),
            source,
        })?;
        Ok(Target {
            path,
            ttl: Some(self.names.fresh_for(name, record)),
        })
    }
}

/// A resolver that asks as it is told to.
struct Asked<'a> {
    resolver: &'a Resolver,
    how: How,
}

impl Lookup for Asked<'_> {
    type Error = NameError;

    async fn record(&self, key: &PeerId) -> Result<Target, NameError> {
        let record = self.resolver.names.resolve(key, self.how).await?;
        self.resolver.target(key, &record)
    }

    async fn dnslink(&self, domain: &Domain) -> Result<Target, NameError> {
        Ok(match self.how {
            How::Here => self.resolver.dns.known(domain)?,
            How::Usual | How::Anew => self.resolver.dns.dnslink(domain).await?,
        })
    }

    fn admits(&self, path: &NamePath) -> Result<(), NameError> {
        Ok(self.resolver.denylist.check_path(path)?)
    }

    fn fixed(&self, name: &Root) -> Option<Target> {
        self.resolver.dns.fixed(name)
    }
}
