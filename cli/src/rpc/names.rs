//! Paths that begin with a name, followed to content: the one place for all commands that take a path.
//!
//! Who knows where names lead is [`Known`]: the operator's fixed names, then DNS for domains. With `--offline`
//! nobody is asked, and what is remembered is told.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::resolve::PathAnswer;
use cairn_node::PeerId;
use cairn_node::name::dns::{Dns, LookupError};
use cairn_node::name::domain::Domain;
use cairn_node::name::follow::{Depth, FollowError, Followed, Names, Target, follow};
use cairn_node::name::path::{NamePath, Root, key_text};
use cairn_store::dag::path::ContentPath;

/// Who knows where names lead, for one request.
#[derive(Debug)]
struct Known {
    dns: Dns,
    /// Whether anybody may be asked.
    asks: bool,
}

/// Why it is not known where a name leads.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// DNS does not tell.
    #[error(transparent)]
    Dns(#[from] LookupError),
    /// It is a key's.
    #[error("/ipns/{0} is not looked up: names of keys are not resolved yet, only domains are")]
    Key(String),
}

impl From<FollowError<NameError>> for RpcError {
    fn from(error: FollowError<NameError>) -> Self {
        Self::failed(error.to_string())
    }
}

impl Names for Known {
    type Error = NameError;

    async fn record(&self, key: &PeerId) -> Result<Target, NameError> {
        Err(NameError::Key(key_text(key)))
    }

    async fn dnslink(&self, domain: &Domain) -> Result<Target, NameError> {
        Ok(match self.asks {
            true => self.dns.dnslink(domain).await?,
            false => self.dns.known(domain)?,
        })
    }

    fn fixed(&self, name: &Root) -> Option<Target> {
        self.dns.fixed(name)
    }
}

impl Call {
    /// Every `arg` as a content path, names followed.
    pub async fn paths(&self, name: &str) -> Result<Vec<ContentPath>, RpcError> {
        let mut paths = Vec::new();
        for path in self.arguments.paths(name)? {
            paths.push(match path.content() {
                Some(path) => path,
                None => content(self.follow(path, Depth::default()).await?.path)?,
            });
        }
        Ok(paths)
    }

    /// Where a path leads that may begin with a name.
    pub async fn follow(&self, path: NamePath, depth: Depth) -> Result<Followed, RpcError> {
        let known = Known {
            dns: self.context.dns().await?.clone(),
            asks: !self.arguments.flag(&["offline"])?,
        };
        Ok(Box::pin(follow(&known, path, depth)).await?)
    }

    /// How far names are to be followed: `recursive`, or one after the other.
    pub fn depth(&self) -> Result<Depth, RpcError> {
        let all = self.arguments.choice(&["recursive", "r"])?.unwrap_or(true);
        Ok(if all { Depth::default() } else { Depth::One })
    }
}

/// The content that a path which was followed to its end has reached.
pub fn content(path: NamePath) -> Result<ContentPath, RpcError> {
    let reached = path.content();
    reached.ok_or_else(|| RpcError::failed(format!("{path} is a name and no content")))
}

/// `dns`: where a domain leads. What else is a path is followed as well, as Kubo does.
pub async fn dns(call: Call) -> Result<Reply, RpcError> {
    let Some(name) = call.arguments.some("domain-name")?.first().copied() else {
        return Err(RpcError::wrong("argument \"domain-name\" is required"));
    };
    let path = match name.starts_with('/') || name.contains("://") {
        true => name.to_owned(),
        false => format!("/ipns/{name}"),
    };
    let path = path.parse().map_err(|error| wrong(&error))?;
    let led = call.follow(path, call.depth()?).await?;
    Reply::value(&PathAnswer {
        path: led.path.to_string(),
    })
}

/// An argument that is no path.
pub fn wrong(error: &cairn_node::name::path::PathError) -> RpcError {
    RpcError::failed(error.to_string())
}
