//! A connection that becomes a tunnel to the gateway itself.

use crate::handler::Local;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// The one tunnel that a connection may become. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tunnel {
    /// The address that the client has reached.
    own: Option<IpAddr>,
    open: Arc<Mutex<Option<OnUpgrade>>>,
}

/// A tunnel that was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    tunnel: Tunnel,
    upgrade: OnUpgrade,
}

impl Tunnel {
    pub(super) fn to(own: Option<IpAddr>) -> Self {
        Self {
            own: own.map(|address| address.to_canonical()),
            open: Arc::default(),
        }
    }

    /// Whether a request asks for it; the handler is told that it may.
    pub(super) fn ask(self, request: &mut http::Request<Incoming>) -> Option<Asked> {
        if request.method() != Method::CONNECT {
            return None;
        }
        request.extensions_mut().insert(Local(self.own));
        Some(Asked {
            upgrade: hyper::upgrade::on(request),
            tunnel: self,
        })
    }

    /// What it has become, once the requests before it are over.
    pub(super) async fn opened(self) -> Option<Upgraded> {
        let upgrade = self.lock().take()?;
        match upgrade.await {
            Ok(upgraded) => Some(upgraded),
            Err(error) => {
                tracing::debug!(%error, "a connection ended before it became a tunnel");
                None
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<OnUpgrade>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// Takes note of what the handler said.
    pub(super) fn answered(self, status: StatusCode) {
        if status.is_success() {
            *self.tunnel.lock() = Some(self.upgrade);
        }
    }
}
