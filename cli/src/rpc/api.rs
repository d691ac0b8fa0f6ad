//! One request in, one response out: which command it is, and what it may work on.

use super::arguments::Arguments;
use super::context::Context;
use super::deadline::Deadline;
use super::error::RpcError;
use super::reply::{Reply, error_response};
use super::upload::Upload;
use super::{
    FORM, PREFIX, add, block, bootstrap, cat, cid, config, dag, denylist, diag, explain, files,
    filestore, filters, follow, get, healthy, id, key, log, ls, name, peering, pin, ping, provide,
    refs, repo, resolve, routing, stats, swarm, sync, version,
};
use axum::body::Body;
use cairn_node::{Exchange, Session};
use cairn_store::BlockSource;
use cairn_store::Cid;
use cairn_store::dag::path::{self, ContentPath, ResolveError, Resolved};
use cairn_store::unixfs::read::{self, Node};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use std::sync::Arc;
use std::time::Duration;

/// Every command. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    context: Arc<Context>,
}

/// A request, understood: what a command gets.
#[derive(Debug)]
pub struct Call {
    /// What it works on.
    pub context: Arc<Context>,
    /// What it was given.
    pub arguments: Arguments,
    /// The files that came along.
    pub upload: Upload,
    timeout: Option<Duration>,
    deadline: Option<Deadline>,
}

impl Api {
    /// Commands over `context`.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// What the commands work on.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// Answers a request. Failures are answers too.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        if request.method() != Method::POST {
            let error = RpcError::with_status(
                StatusCode::METHOD_NOT_ALLOWED,
                "405 - Method Not Allowed: the RPC takes POST only",
            );
            let mut response = error_response(&error);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("OPTIONS, POST"));
            return response;
        }
        let answered = async {
            let (parts, body) = request.into_parts();
            let mut query = parts.uri.query().unwrap_or_default().to_owned();
            let is_form = parts
                .headers
                .get(CONTENT_TYPE)
                .is_some_and(|media| media.as_bytes() == FORM.as_bytes());
            let body = if is_form {
                query.push('&');
                query.push_str(&read_form(body).await?);
                Body::empty()
            } else {
                body
            };
            let arguments = Arguments::parse(&query)?;
            let timeout = arguments.duration(&["timeout"])?;
            let path = parts.uri.path().to_owned();
            let command = path.strip_prefix(PREFIX).ok_or_else(not_found)?;
            let command = command.trim_end_matches('/');
            let deadline = timeout.and_then(Deadline::after);
            let deadline = deadline.map(|end| end.of(command, &arguments.all()));
            let call = Call {
                context: Arc::clone(&self.context),
                arguments,
                upload: Upload::new(parts, body),
                timeout,
                deadline: deadline.clone(),
            };
            let reply = async {
                let reply = Box::pin(run(command, call)).await?;
                Ok(reply.into_response(deadline.clone()).await)
            };
            match &deadline {
                Some(deadline) => tokio::select! {
                    biased;
                    response = reply => response,
                    error = deadline.clone().strikes() => Err(error),
                },
                None => reply.await,
            }
        };
        answered
            .await
            .unwrap_or_else(|error| error_response(&error))
    }
}

impl Call {
    /// Where blocks come from for this request: the store, then peers, unless `offline`.
    pub async fn session(&self) -> Result<Session, RpcError> {
        let exchange = &self.context.content().await?.exchange;
        if self.arguments.flag(&["offline"])? {
            return Ok(exchange.local().session(self.timeout));
        }
        // It must still wait when the time is over, to say what for.
        let idle = self.timeout.map(|given| given.saturating_add(OUTLIVES));
        let session = exchange.session(idle);
        if let Some(deadline) = &self.deadline {
            deadline.watch(&session);
        }
        Ok(session)
    }

    /// The same, giving up early enough to say why before the time given for the request is over.
    pub async fn session_that_tells(&self) -> Result<Session, RpcError> {
        let exchange = &self.context.content().await?.exchange;
        let idle = self.timeout.map(|timeout| timeout * 9 / 10);
        if self.arguments.flag(&["offline"])? {
            Ok(exchange.local().session(idle))
        } else {
            Ok(exchange.session(idle))
        }
    }

    /// Whether peers are asked for what is not here.
    pub async fn is_online(&self) -> Result<bool, RpcError> {
        let exchange = &self.context.content().await?.exchange;
        Ok(exchange.is_online() && !self.arguments.flag(&["offline"])?)
    }

    /// Where blocks come from if no peer may be asked.
    pub async fn local_session(&self) -> Result<Session, RpcError> {
        let exchange = &self.context.content().await?.exchange;
        Ok(exchange.local().session(self.timeout))
    }

    /// What is here, for the upkeep of it: pins are to be walked and unpinned, and blocks removed, denied or not.
    pub async fn upkeep_session(&self) -> Result<Session, RpcError> {
        let store = self.context.store().await?.clone();
        Ok(Exchange::offline(store).session(self.timeout))
    }
}

/// Follows a path to its block.
pub async fn resolve_path(source: &Session, path: &ContentPath) -> Result<Resolved, RpcError> {
    source.admits_path(path)?;
    let error = match path::resolve(source, &path.root, &path.segments).await {
        Ok(resolved) => {
            // What a path ends at is not read on the way.
            source.admits(&resolved.cid)?;
            return Ok(resolved);
        }
        Err(error) => error,
    };
    let ResolveError::NoLink { under, .. } = &error else {
        return Err(error.into());
    };
    // It was read on the way, so this is quick.
    let what = match read::open(source, under).await {
        Ok(Node::File(_)) => ": that is a file, which has nothing below it".to_owned(),
        Ok(Node::Directory(_)) => format!("; `cairn ls {under}` lists what is there"),
        _ => String::new(),
    };
    Err(RpcError::failed(format!("{error}{what}")))
}

/// Follows a path to a block that it must end at, not inside.
pub async fn resolve_to_block(source: &Session, path: &ContentPath) -> Result<Cid, RpcError> {
    let resolved = resolve_path(source, path).await?;
    if resolved.remainder.is_empty() {
        return Ok(resolved.cid);
    }
    Err(RpcError::failed(format!(
        "path resolves into block {}, not to a block: {} is left",
        resolved.cid,
        resolved.remainder.join("/")
    )))
}

/// Arguments that were too long for an address.
async fn read_form(body: Body) -> Result<String, RpcError> {
    let read = Limited::new(body, FORM_BYTES_MAX).collect().await;
    let bytes = read
        .map_err(|error| RpcError::wrong(format!("the arguments cannot be read: {error}")))?
        .to_bytes();
    String::from_utf8(bytes.to_vec()).map_err(|_| RpcError::wrong("the arguments are not UTF-8"))
}

/// How much longer than the time given for its request a fetch would wait.
const OUTLIVES: Duration = Duration::from_secs(10);
/// Most bytes of arguments in a body.
const FORM_BYTES_MAX: usize = 4 << 20;

fn not_found() -> RpcError {
    RpcError::with_status(StatusCode::NOT_FOUND, "404 page not found")
}

async fn run(command: &str, call: Call) -> Result<Reply, RpcError> {
    match command {
        "add" => add::add(call).await,
        "cat" => cat::cat(call).await,
        "get" => get::get(call).await,
        "ls" => ls::ls(call).await,
        "refs" => refs::refs(call).await,
        "refs/local" => refs::local(call).await,
        "resolve" => resolve::resolve(call).await,
        "block/get" => block::get(call).await,
        "block/put" => block::put(call).await,
        "block/rm" => block::remove(call).await,
        "block/stat" => block::stat(call).await,
        "dag/export" => dag::export::export(call).await,
        "dag/get" => dag::get(call).await,
        "dag/import" => dag::import::import(call).await,
        "dag/put" => dag::put(call).await,
        "dag/resolve" => dag::resolve(call).await,
        "dag/stat" => dag::stat::stat(call).await,
        "denylist/check" => denylist::check(call).await,
        "denylist/ls" => denylist::list(call).await,
        "dns" => follow::dns(call).await,
        "diag/healthy" => healthy::healthy(call).await,
        "diag/perf" => diag::perf(call),
        "explain" => explain::explain(call).await,
        "files/chcid" => files::change::rename_blocks(call).await,
        "files/chmod" => files::change::change_mode(call).await,
        "files/cp" => files::change::copy(call).await,
        "files/flush" => files::change::flush(call).await,
        "files/ls" => files::list(call).await,
        "files/mkdir" => files::change::make_folder(call).await,
        "files/mv" => files::change::move_to(call).await,
        "files/read" => files::read(call).await,
        "files/rm" => files::change::remove(call).await,
        "files/stat" => files::stat(call).await,
        "files/touch" => files::change::touch(call).await,
        "files/write" => files::write::write(call).await,
        "filestore/dups" => filestore::dups(call).await,
        "filestore/ls" => filestore::list(call).await,
        "filestore/verify" => filestore::verify(call).await,
        "pin/add" => pin::add(call).await,
        "pin/cancel" => pin::jobs::cancel(call).await,
        "pin/followed" => pin::follow::list(call).await,
        "pin/ls" => pin::list::list(call).await,
        "pin/retry" => pin::jobs::retry(call).await,
        "pin/rm" => pin::remove(call).await,
        "pin/unfollow" => pin::follow::end(call).await,
        "pin/update" => pin::update(call).await,
        "pin/verify" => pin::verify::verify(call).await,
        "id" => id::id(call).await,
        "key/gen" => key::generate(call).await,
        "key/import" => key::import(call).await,
        "key/list" | "key/ls" => key::list(call).await,
        "key/rename" => key::rename(call).await,
        "key/rm" => key::remove(call).await,
        "key/sign" => key::sign(call).await,
        "key/verify" => key::verify(call).await,
        "sync/apply" => sync::apply(call).await,
        "swarm/addrs" => swarm::known(call).await,
        "swarm/addrs/autonat" => swarm::autonat(&call),
        "swarm/addrs/listen" => swarm::listening(call).await,
        "swarm/addrs/local" => swarm::local(call).await,
        "swarm/connect" => swarm::connect(call).await,
        "swarm/disconnect" => swarm::disconnect(call).await,
        "swarm/filters" | "swarm/filters/ls" => filters::list(call),
        "swarm/filters/add" => filters::add(call).await,
        "swarm/filters/rm" => filters::remove(call).await,
        "swarm/peering/add" => peering::add(call),
        "swarm/peering/ls" => peering::list(call),
        "swarm/peering/rm" => peering::remove(call),
        "swarm/peers" => swarm::peers(call).await,
        "routing/findpeer" => routing::find_peer(call),
        "routing/get" => routing::get(call).await,
        "routing/put" => routing::put(call).await,
        "name/get" => name::get(call).await,
        "name/inspect" => name::inspect(call).await,
        "name/keep" => name::keep(call).await,
        "name/kept" => name::kept(call).await,
        "name/publish" => name::publish(call).await,
        "name/pubsub/cancel" => name::pubsub::cancel(call).await,
        "name/pubsub/state" => name::pubsub::state(call).await,
        "name/pubsub/subs" => name::pubsub::subs(call).await,
        "name/put" => name::put(call).await,
        "name/resolve" => name::resolve(call).await,
        "name/unkeep" => name::unkeep(call).await,
        "ping" => ping::ping(call),
        "routing/findprovs" => routing::find_providers(call).await,
        "routing/provide" => routing::provide(call).await,
        "provide/stat" => provide::stat(call).await,
        "stats/bw" => stats::bandwidth(call),
        "stats/bitswap" | "bitswap/stat" => stats::bitswap(call).await,
        "bitswap/ledger" => stats::ledger(call).await,
        "bitswap/wantlist" => stats::wantlist(call).await,
        "stats/repo" | "repo/stat" => repo::stat(call).await,
        "repo/gc" => repo::gc(call).await,
        "repo/import-kubo" => repo::import_kubo::import_kubo(call).await,
        "repo/rebuild" => repo::rebuild(call).await,
        "repo/snapshot" => repo::snapshot::snapshot(call).await,
        "repo/verify" => repo::verify::verify(call).await,
        "repo/version" => repo::version(),
        "bootstrap" | "bootstrap/list" => bootstrap::list(call),
        "bootstrap/add/default" => Err(bootstrap::no_default()),
        "bootstrap/add" => bootstrap::add(call).await,
        "bootstrap/rm" => bootstrap::remove(call).await,
        "bootstrap/rm/all" => bootstrap::remove_all(call).await,
        "config" => config::config(call).await,
        "config/show" => config::show(call).await,
        "version" => version::version(),
        "commands" => version::commands(),
        "cid/format" => cid::format(call),
        "cid/base32" => cid::base32(call),
        "log/level" => log::level(call),
        "log/ls" => log::list(),
        "shutdown" => version::shutdown(call),
        _ => Err(not_found()),
    }
}

/// Every command, as `commands` lists them.
pub const COMMANDS: [&str; 112] = [
    "add",
    "bitswap/ledger",
    "bitswap/stat",
    "bitswap/wantlist",
    "block/get",
    "block/put",
    "block/rm",
    "block/stat",
    "bootstrap",
    "bootstrap/add",
    "bootstrap/list",
    "bootstrap/rm",
    "bootstrap/rm/all",
    "cat",
    "cid/base32",
    "cid/format",
    "commands",
    "config",
    "config/show",
    "dag/export",
    "dag/get",
    "dag/import",
    "dag/put",
    "dag/resolve",
    "dag/stat",
    "denylist/check",
    "denylist/ls",
    "diag/healthy",
    "diag/perf",
    "dns",
    "explain",
    "files/chcid",
    "files/chmod",
    "files/cp",
    "files/flush",
    "files/ls",
    "files/mkdir",
    "files/mv",
    "files/read",
    "files/rm",
    "files/stat",
    "files/touch",
    "files/write",
    "filestore/dups",
    "filestore/ls",
    "filestore/verify",
    "get",
    "id",
    "key/gen",
    "key/import",
    "key/list",
    "key/ls",
    "key/rename",
    "key/rm",
    "key/sign",
    "key/verify",
    "log/level",
    "log/ls",
    "ls",
    "name/get",
    "name/inspect",
    "name/keep",
    "name/kept",
    "name/publish",
    "name/pubsub/cancel",
    "name/pubsub/state",
    "name/pubsub/subs",
    "name/put",
    "name/resolve",
    "name/unkeep",
    "pin/add",
    "pin/cancel",
    "pin/followed",
    "pin/ls",
    "pin/retry",
    "pin/rm",
    "pin/unfollow",
    "pin/update",
    "pin/verify",
    "ping",
    "provide/stat",
    "refs",
    "refs/local",
    "repo/gc",
    "repo/import-kubo",
    "repo/rebuild",
    "repo/snapshot",
    "repo/stat",
    "repo/verify",
    "repo/version",
    "resolve",
    "routing/findpeer",
    "routing/findprovs",
    "routing/get",
    "routing/provide",
    "routing/put",
    "shutdown",
    "stats/bw",
    "swarm/addrs",
    "swarm/addrs/autonat",
    "swarm/addrs/listen",
    "swarm/addrs/local",
    "swarm/connect",
    "swarm/disconnect",
    "swarm/filters",
    "swarm/filters/add",
    "swarm/filters/rm",
    "swarm/peering/add",
    "swarm/peering/ls",
    "swarm/peering/rm",
    "swarm/peers",
    "sync/apply",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Repository;

    async fn ask(method: Method, path: &str) -> (StatusCode, String) {
        let folder = tempfile::tempdir().unwrap();
        ask_in(Repository::at(folder.path()), method, path).await
    }

    async fn ask_in(repository: Repository, method: Method, path: &str) -> (StatusCode, String) {
        let context = Context::offline(repository);
        let api = Api::new(Arc::new(context));
        let request = Request::builder().method(method).uri(path);
        let response = api.handle(request.body(Body::empty()).unwrap()).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn takes_post_only() {
        for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
            let (status, _) = ask(method, "/api/v0/version").await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        }
        let (status, body) = ask(Method::POST, "/api/v0/version").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\"Version\""), "{body}");
    }

    #[tokio::test]
    async fn an_unknown_command_is_not_found() {
        for path in ["/api/v0/nothing", "/", "/api/v1/version", "/api/v0/"] {
            let (status, _) = ask(Method::POST, path).await;
            assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn unknown_arguments_are_ignored() {
        let (status, _) = ask(Method::POST, "/api/v0/version?preload=false&paths=x").await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_needs_peers_says_so_without_them() {
        for command in [
            "swarm/peers",
            "swarm/connect?arg=/ip4/127.0.0.1/tcp/1",
            "stats/bw",
        ] {
            let path = format!("/api/v0/{command}");
            let (status, body) = ask(Method::POST, &path).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(body.contains("cairn init"), "{body}");
            let folder = tempfile::tempdir().unwrap();
            let repository = Repository::at(folder.path());
            repository.write_config("").unwrap();
            let (status, body) = ask_in(repository, Method::POST, &path).await;
            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
            assert!(body.contains("cairn daemon"), "{body}");
        }
    }

    #[tokio::test]
    async fn every_listed_command_exists() {
        for command in COMMANDS {
            let (status, _) = ask(Method::POST, &format!("/api/v0/{command}")).await;
            assert_ne!(status, StatusCode::NOT_FOUND, "{command}");
        }
    }
}
