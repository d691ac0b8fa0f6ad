//! Paths that begin with a name, followed to content: the one place for all commands that take a path.
//!
//! With `--offline` nobody is asked, and what is known here is told.

use super::api::Call;
use super::error::RpcError;
use super::reply::Reply;
use super::resolve::PathAnswer;
use crate::config::duration::Interval;
use cairn_node::name::follow::{Depth, FollowError, Followed};
use cairn_node::name::path::NamePath;
use cairn_node::name::resolve::How;
use cairn_node::name::resolver::NameError;
use cairn_store::dag::path::ContentPath;
use std::time::Duration;
use tokio::time::timeout;

impl From<FollowError<NameError>> for RpcError {
    fn from(error: FollowError<NameError>) -> Self {
        Self::failed(error.to_string())
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
        let resolver = self.context.resolver().await?;
        let follow = resolver.follow(path, depth, self.how()?);
        Ok(match self.lookup_time()? {
            None => follow.await,
            Some(most) => timeout(most, follow).await.map_err(|_| too_slow(most))?,
        }?)
    }

    /// How long names may be looked up, if that was given.
    pub fn lookup_time(&self) -> Result<Option<Duration>, RpcError> {
        let most = self.arguments.duration(&["dht-timeout", "dhtt"])?;
        // Zero is Kubo's for "as long as it takes".
        Ok(most.filter(|most| !most.is_zero()))
    }

    /// Whether anybody is asked where names lead, and waited for.
    pub fn how(&self) -> Result<How, RpcError> {
        let arguments = &self.arguments;
        Ok(match arguments.flag(&["offline"])? {
            true => How::Here,
            false if arguments.flag(&["nocache", "n"])? => How::Anew,
            false => How::Usual,
        })
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
    let led = call.follow(named(name)?, call.depth()?).await?;
    Reply::value(&PathAnswer {
        path: led.path.to_string(),
    })
}

/// A path, or a name without `/ipns/` before it.
pub fn named(text: &str) -> Result<NamePath, RpcError> {
    let path = match text.starts_with('/') || text.contains("://") {
        true => text.parse(),
        false => format!("/ipns/{text}").parse(),
    };
    path.map_err(|error| wrong(&error))
}

/// A name that was not resolved in the time that was given.
pub fn too_slow(most: Duration) -> RpcError {
    let most = Interval(most);
    RpcError::failed(format!("the name was not resolved within {most}"))
}

/// An argument that is no path.
pub fn wrong(error: &cairn_node::name::path::PathError) -> RpcError {
    RpcError::failed(error.to_string())
}
