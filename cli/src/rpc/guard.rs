//! Who may talk to the RPC: no web page but this machine's own, no name but this machine's own, and
//! nobody without the token where there is one.
//!
//! A browser sends requests to 127.0.0.1 for any page it shows. What tells them apart is what the
//! browser itself writes: `Origin`, `Referer`, `Sec-Fetch-Site`, and `Host`, which is the
//! attacker's own name after DNS rebinding.

use super::error::RpcError;
use crate::config::Rpc;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, HOST, HeaderName, HeaderValue, ORIGIN, REFERER,
    USER_AGENT, VARY,
};
use http::{HeaderMap, StatusCode};
use std::net::{IpAddr, SocketAddr};

/// The rules of one listener.
#[derive(Clone)]
pub struct Guard {
    port: u16,
    origins: Vec<String>,
    hosts: Vec<String>,
    token: Option<String>,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Guard").finish_non_exhaustive()
    }
}

/// A listener that anybody could command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{address} can be reached from other machines, and whoever reaches the RPC controls this node; set `rpc.token` (`cairn config set rpc.token <secret>`), or `addresses.rpc` to a loopback address"
)]
pub struct OpenToAll {
    /// Where it would have listened.
    pub address: SocketAddr,
}

impl Guard {
    /// The rules for a listener on `address`.
    pub fn new(address: SocketAddr, config: &Rpc) -> Result<Self, OpenToAll> {
        let token = Some(config.token.clone()).filter(|token| !token.is_empty());
        if token.is_none() && !address.ip().to_canonical().is_loopback() {
            return Err(OpenToAll { address });
        }
        Ok(Self {
            port: address.port(),
            origins: config.origins.clone(),
            hosts: config
                .hosts
                .iter()
                .map(|host| host.to_ascii_lowercase())
                .collect(),
            token,
        })
    }

    /// Whether a request may pass.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), RpcError> {
        let forbidden = || RpcError::with_status(StatusCode::FORBIDDEN, "403 - Forbidden");
        let text = |name: HeaderName| -> Result<Option<&str>, RpcError> {
            let mut values = headers.get_all(name).iter();
            match (values.next(), values.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(|_| forbidden()),
                // Two of what there must be one of: somebody wants us to read the other.
                (Some(_), Some(_)) => Err(forbidden()),
            }
        };
        let host = text(HOST)?.ok_or_else(forbidden)?;
        if !self.allows_host(host) {
            return Err(RpcError::with_status(
                StatusCode::FORBIDDEN,
                "403 - Forbidden: this host name is not listed in `rpc.hosts`",
            ));
        }
        let origin = text(ORIGIN)?;
        let referer = text(REFERER)?;
        if origin.is_some_and(|origin| !self.allows_origin(origin)) {
            return Err(RpcError::with_status(
                StatusCode::FORBIDDEN,
                "403 - Forbidden: this origin is not listed in `rpc.origins`",
            ));
        }
        if referer.is_some_and(|referer| !self.allows_origin(origin_of(referer))) {
            return Err(forbidden());
        }
        let site = text(HeaderName::from_static("sec-fetch-site"))?;
        let foreign = matches!(site, Some("cross-site" | "same-site"));
        let browser = text(USER_AGENT)?.is_some_and(|agent| agent.starts_with("Mozilla"));
        // A browser that does not say which page asks could be asked by any.
        if (foreign || browser) && origin.is_none() && referer.is_none() {
            return Err(forbidden());
        }
        self.check_token(text(AUTHORIZATION)?)
    }

    fn check_token(&self, authorization: Option<&str>) -> Result<(), RpcError> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let Some(given) = authorization else {
            return Err(RpcError::with_status(
                StatusCode::UNAUTHORIZED,
                "401 - Unauthorized: `Authorization: Bearer <token>` is missing; `cairn --api-auth bearer:<token>` sends it, \
                 and `rpc.token` in the daemon's configuration is what it must be",
            ));
        };
        let given = given.strip_prefix("Bearer ").unwrap_or_default().trim();
        if same(given.as_bytes(), token.as_bytes()) {
            Ok(())
        } else {
            Err(RpcError::with_status(
                StatusCode::FORBIDDEN,
                "403 - Forbidden: wrong token; `rpc.token` in the daemon's configuration is the right one",
            ))
        }
    }

    /// An address, or a name that no stranger can point here.
    fn allows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let is_address = bare.unwrap_or(name).parse::<IpAddr>().is_ok();
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        is_address || name == "localhost" || self.hosts.contains(&name)
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let own = ["127.0.0.1", "[::1]", "localhost"].iter().any(|host| {
            ["http", "https"]
                .iter()
                .any(|scheme| origin == format!("{scheme}://{host}:{}", self.port))
        });
        own || self.origins.iter().any(|known| known == origin)
    }

    /// What lets a page of an allowed origin read the answer.
    pub fn cors(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.insert(VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = request.get(ORIGIN) else {
            return;
        };
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        response.insert(
            ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static(HEADERS),
        );
    }

    /// The answer to a browser that asks before it sends.
    pub fn preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        self.cors(request, response);
        response.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("OPTIONS, POST"),
        );
        response.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static(ALLOWED_HEADERS),
        );
    }
}

/// The origin of a page's address: scheme, host and port.
fn origin_of(address: &str) -> &str {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address;
    };
    let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let end = scheme.len() + 3 + host;
    address.get(..end).unwrap_or(address)
}

/// Compares in a time that does not depend on where the first difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one
        .iter()
        .zip(other)
        .fold(0, |differences, (one, other)| differences | (one ^ other));
    one.len() == other.len() && differences == 0
}

const HEADERS: &str = "X-Stream-Output, X-Chunked-Output, X-Content-Length";
const ALLOWED_HEADERS: &str =
    "Authorization, Content-Type, X-Stream-Output, X-Chunked-Output, X-Content-Length";

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(config: &Rpc) -> Guard {
        Guard::new("127.0.0.1:5001".parse().unwrap(), config).unwrap()
    }

    fn status(guard: &Guard, headers: &[(&str, &str)]) -> Option<StatusCode> {
        let mut map = HeaderMap::new();
        if !headers.iter().any(|(name, _)| *name == "host") {
            map.insert(HOST, HeaderValue::from_static("127.0.0.1:5001"));
        }
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        guard.check(&map).err().map(|error| error.status())
    }

    const FORBIDDEN: Option<StatusCode> = Some(StatusCode::FORBIDDEN);

    #[test]
    fn tools_that_are_no_browsers_pass() {
        let guard = guard(&Rpc::default());
        assert_eq!(status(&guard, &[]), None);
        assert_eq!(status(&guard, &[("user-agent", "curl/8")]), None);
        let node = [("user-agent", "node"), ("sec-fetch-mode", "cors")];
        assert_eq!(status(&guard, &node), None);
    }

    #[test]
    fn no_foreign_page_passes() {
        let guard = guard(&Rpc::default());
        for headers in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "http://127.0.0.1:8080")],
            &[("origin", "http://localhost:5001.evil.example")],
            &[
                ("origin", "http://localhost:5001"),
                ("origin", "http://evil.example"),
            ],
            &[("referer", "https://evil.example/http://localhost:5001/")],
            &[("referer", "http://localhost:5001@evil.example/")],
            &[
                ("origin", "http://localhost:5001"),
                ("referer", "https://evil.example/"),
            ],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("user-agent", "Mozilla/5.0 (X11)")],
        ] {
            assert_eq!(status(&guard, headers), FORBIDDEN, "{headers:?}");
        }
    }

    #[test]
    fn own_pages_and_listed_ones_pass() {
        let config = Rpc {
            origins: vec!["https://webui.example".to_owned()],
            ..Rpc::default()
        };
        let guard = guard(&config);
        for origin in [
            "http://127.0.0.1:5001",
            "http://localhost:5001",
            "http://[::1]:5001",
            "https://webui.example",
        ] {
            assert_eq!(status(&guard, &[("origin", origin)]), None, "{origin}");
        }
        assert_eq!(
            status(&guard, &[("referer", "http://localhost:5001/webui?x")]),
            None
        );
    }

    #[test]
    fn a_rebound_name_does_not_pass() {
        let config = Rpc {
            hosts: vec!["Node.example".to_owned()],
            ..Rpc::default()
        };
        let guard = guard(&config);
        for host in [
            "evil.example:5001",
            "evil.example",
            "localhost.evil.example",
            "",
        ] {
            assert_eq!(status(&guard, &[("host", host)]), FORBIDDEN, "{host}");
        }
        for host in [
            "localhost:5001",
            "LOCALHOST",
            "127.0.0.1",
            "[::1]:5001",
            "node.example:1",
        ] {
            assert_eq!(status(&guard, &[("host", host)]), None, "{host}");
        }
        assert!(guard.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_token_is_asked_for_where_there_is_one() {
        let config = Rpc {
            token: "sesame".to_owned(),
            ..Rpc::default()
        };
        let guard = guard(&config);
        assert_eq!(status(&guard, &[]), Some(StatusCode::UNAUTHORIZED));
        for wrong in [
            "Bearer sesam",
            "Bearer sesame1",
            "sesame",
            "Bearer ",
            "Basic c2VzYW1l",
        ] {
            assert_eq!(
                status(&guard, &[("authorization", wrong)]),
                FORBIDDEN,
                "{wrong}"
            );
        }
        assert_eq!(status(&guard, &[("authorization", "Bearer sesame")]), None);
    }

    #[test]
    fn refuses_to_be_open_to_all() {
        for address in ["0.0.0.0:5001", "192.168.1.2:5001", "[::]:5001"] {
            let address = address.parse().unwrap();
            assert!(Guard::new(address, &Rpc::default()).is_err());
            let config = Rpc {
                token: "sesame".to_owned(),
                ..Rpc::default()
            };
            assert!(Guard::new(address, &config).is_ok());
        }
        assert!(Guard::new("[::1]:5001".parse().unwrap(), &Rpc::default()).is_ok());
    }
}
