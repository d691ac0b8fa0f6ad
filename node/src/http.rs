//! HTTP towards services that the operator named or a provider announced: trustless gateways, and
//! those that are asked who has what.
//!
//! Read `endpoint` for which addresses mean such a service, `connection` for what may be dialled,
//! `request` for one question. What is asked, and what is made of the answers, is the matter of
//! `bitswap::http` and `routing::delegated`.

mod connection;
mod endpoint;
mod request;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use connection::{Connection, Fence, Pool};
pub use endpoint::{Endpoint, NoEndpoint};
pub(crate) use request::{Body, Failure, Refusal, get, judge, put, send};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// Why a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The operator named it: for whatever is wanted.
    Configured,
    /// A provider said that it is there: for the work that it was found for.
    Announced,
}

/// The longest times of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Making a connection, TLS and all.
    pub(crate) connect: Duration,
    /// From the question to the head of the answer, for what the service has.
    pub(crate) head: Duration,
    /// The same for what it may have to look for.
    pub(crate) search: Duration,
    /// Without a fair number of bytes of a body.
    pub(crate) body_idle: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(10),
            search: Duration::from_secs(60),
            body_idle: Duration::from_secs(5),
        }
    }
}

/// How a service shows who it is: by a certificate that one of `roots` stands for.
pub(crate) fn tls(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// Whom the public believes.
pub(crate) fn public_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

/// For how long a service is left alone that has failed: the longer, the more pauses it had before.
pub(crate) fn pause_after(pauses: u32) -> Duration {
    PAUSE_MIN
        .saturating_mul(1 << pauses.min(PAUSE_DOUBLINGS_MAX))
        .min(PAUSE_MAX)
}

/// Requests under way to one service: enough to keep a line busy over a distance, few enough that
/// none calls it a flood.
pub(crate) const REQUESTS_MAX: usize = 16;

/// The shortest such pause, the longest, and how often it doubles in between.
pub(crate) const PAUSE_MIN: Duration = Duration::from_secs(1);
pub(crate) const PAUSE_MAX: Duration = Duration::from_secs(120);
const PAUSE_DOUBLINGS_MAX: u32 = 7;
/// For how long if it says that it is busy and not for how long.
pub(crate) const BUSY: Duration = Duration::from_secs(5);
