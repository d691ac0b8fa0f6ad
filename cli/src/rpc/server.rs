//! The RPC's listener: bind, serve, drain. Metrics live beside it, or on a listener of their own.

use super::PREFIX;
use super::api::Api;
use super::drain::Drained;
use super::error::RpcError;
use super::guard::Guard;
use super::places::{Place, Places};
use super::reply::{error_response, told_in_trailer};
use axum::body::Body;
use bytes::Bytes;
use cairn_node::tasks::Tasks;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;

/// The page of metrics, made when asked for.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// A running listener.
#[derive(Debug)]
#[must_use = "dropping a server cuts its connections; call `stop` to drain them"]
pub struct Server {
    address: SocketAddr,
    tasks: Tasks,
}

/// What a listener answers.
#[derive(Clone)]
pub enum Service {
    /// Commands, and metrics beside them.
    Rpc {
        /// The commands.
        api: Api,
        /// Who may send them.
        guard: Guard,
        /// The metrics.
        metrics: MetricsPage,
    },
    /// Metrics alone.
    Metrics(MetricsPage),
}

impl std::fmt::Debug for Service {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Rpc { .. } => "Rpc",
            Self::Metrics(_) => "Metrics",
        })
    }
}

impl Server {
    /// Serves on `listener`, in a family of its own whose alarm tells when it broke down. Who comes
    /// when there are `connections_max` already waits, and is told the version all the same.
    pub fn start(
        listener: TcpListener,
        service: Service,
        connections_max: NonZeroU32,
        tasks: Tasks,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let places = Places::new(connections_max);
        let accepting = accept(listener, service, places, tasks.clone());
        tasks.spawn_critical("accept commands", accepting);
        Ok(Self { address, tasks })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no new connections and waits for running requests; false if some were cut.
    pub async fn stop(self, grace: Duration) -> bool {
        self.tasks.stop(grace).await
    }
}

async fn accept(listener: TcpListener, service: Service, places: Places, tasks: Tasks) {
    let stop = tasks.stopping();
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            let place = places.any().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: connections that end give some back.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // An answer in small pieces must not wait for the acknowledgement of the last.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        let drains = tasks.clone();
        let place = Arc::new(place);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME_MAX)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(move |request: Request<Incoming>| {
                    let service = service.clone();
                    let drains = drains.clone();
                    let drained = |body| Body::new(Drained::new(body, drains));
                    let request = request.map(drained);
                    let place = Arc::clone(&place);
                    async move { Ok::<_, Infallible>(service.answer_at(&place, request).await) }
                }),
            );
        let connection = graceful.watch(connection);
        tasks.spawn("answer commands", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    places.close();
    graceful.shutdown().await;
}

impl Service {
    /// Answers one request of a connection that came to `place`. One that costs nothing is answered anywhere.
    async fn answer_at(&self, place: &Place, request: Request<Body>) -> Response<Body> {
        if place.is_spare() && request.uri().path() == SIGN_OF_LIFE {
            return last(self.answer(request).await);
        }
        match place.take().await {
            Ok(()) => self.answer(request).await,
            Err(error) => last(error_response(&error)),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        match self {
            Self::Metrics(page) => metrics_response(request.method(), request.uri().path(), page),
            Self::Rpc {
                api,
                guard,
                metrics,
            } => {
                if let Err(error) = guard.check(request.headers())
                    && !is_allowed_preflight(&request, guard)
                {
                    return error_response(&error);
                }
                let asked: HeaderMap = request.headers().clone();
                let mut response = if request.uri().path().starts_with(PREFIX) {
                    if request.method() == Method::OPTIONS {
                        let mut response = Response::new(Body::empty());
                        *response.status_mut() = StatusCode::NO_CONTENT;
                        guard.preflight(&asked, response.headers_mut());
                        return response;
                    }
                    api.handle(request).await
                } else {
                    metrics_response(request.method(), request.uri().path(), metrics)
                };
                guard.cors(&asked, response.headers_mut());
                if takes_trailers(&asked) {
                    response
                } else {
                    response.map(|body| Body::new(CutOnError(body)))
                }
            }
        }
    }
}

/// Answers no more over this connection, whose place others need.
fn last(mut response: Response<Body>) -> Response<Body> {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

/// A browser's question before a request comes without the token that the request will bring.
fn is_allowed_preflight(request: &Request<Body>, guard: &Guard) -> bool {
    request.method() == Method::OPTIONS
        && guard
            .check(request.headers())
            .is_err_and(|error| error.status() == StatusCode::UNAUTHORIZED)
}

fn metrics_response(method: &Method, path: &str, page: &MetricsPage) -> Response<Body> {
    if !matches!(path, "/metrics" | "/debug/metrics/prometheus") {
        let error = RpcError::with_status(StatusCode::NOT_FOUND, "404 page not found");
        return error_response(&error);
    }
    if method != Method::GET && method != Method::HEAD {
        let error =
            RpcError::with_status(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET");
        return error_response(&error);
    }
    let mut response = Response::new(Body::from(page()));
    let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// A body for a client that takes no trailers: an error after the first byte cuts the connection,
/// so that half an answer never looks like a whole one.
struct CutOnError(Body);

impl http_body::Body for CutOnError {
    type Data = Bytes;
    type Error = RpcError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RpcError>>> {
        Pin::new(&mut self.0).poll_frame(context).map(|frame| {
            frame.map(|frame| {
                let frame = frame.map_err(|error| RpcError::failed(error.to_string()))?;
                match frame.trailers_ref().and_then(told_in_trailer) {
                    Some(error) => Err(error),
                    None => Ok(frame),
                }
            })
        })
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// What is asked to learn whether this is alive, by commands that wait.
const SIGN_OF_LIFE: &str = "/api/v0/version";
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// Longest head of a request; many arguments make long ones.
const HEADER_BYTES_MAX: usize = 256 << 10;
/// How long the head of a request may take.
const HEADER_TIME_MAX: Duration = Duration::from_secs(10);
/// How long nothing is accepted after that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rpc;
    use crate::repository::Repository;
    use crate::rpc::context;
    use crate::rpc::places::SPARE_MIN;
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// A caller that has asked.
    async fn caller(at: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(at).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// The first line of what it is answered.
    async fn status(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// A listener with room for one, and who has that.
    async fn full() -> (Server, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(
            listener,
            service(&Rpc::default()),
            NonZeroU32::MIN,
            Tasks::new(),
        );
        let server = server.unwrap();
        let mut only = caller(server.address(), "GET /metrics").await;
        assert!(status(&mut only).await.contains("200"));
        (server, only)
    }

    #[tokio::test]
    async fn a_full_listener_still_tells_its_version_and_lets_others_wait() {
        let (server, only) = full().await;
        let at = server.address();
        let mut waiting = caller(at, "GET /metrics").await;
        // More of them than there are places for those who wait: each gives its own back.
        for _ in 0..2 * SPARE_MIN {
            let mut asking = caller(at, "POST /api/v0/version").await;
            assert!(status(&mut asking).await.contains("200"));
        }
        // Nobody answered the one that waits meanwhile; it is when there is room.
        assert!(waiting.try_read(&mut [0]).is_err());
        drop(only);
        assert!(status(&mut waiting).await.contains("200"));
    }

    #[tokio::test]
    async fn more_callers_than_may_wait_are_refused_and_the_version_is_told_still() {
        let (server, _only) = full().await;
        let at = server.address();
        let mut waiting = Vec::new();
        for _ in 1..SPARE_MIN {
            waiting.push(caller(at, "GET /metrics").await);
        }
        // Which of them is the one too many is not said.
        waiting.push(caller(at, "GET /metrics").await);
        let answers = waiting.iter_mut().map(|stream| Box::pin(status(stream)));
        let (refused, ..) = futures::future::select_all(answers).await;
        assert!(refused.contains("503"), "{refused}");
        let mut asking = caller(at, "POST /api/v0/version").await;
        assert!(status(&mut asking).await.contains("200"));
    }

    fn service(config: &Rpc) -> Service {
        let repository = Repository::at("/nowhere");
        Service::Rpc {
            api: Api::new(Arc::new(context::Context::offline(repository))),
            guard: Guard::new("127.0.0.1:5001".parse().unwrap(), config).unwrap(),
            metrics: Arc::new(|| "cairn_up 1\n".to_owned()),
        }
    }

    async fn ask(
        service: &Service,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost:5001");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.answer(request.body(Body::empty()).unwrap()).await
    }

    #[tokio::test]
    async fn metrics_are_where_scrapers_look() {
        let service = service(&Rpc::default());
        for path in ["/metrics", "/debug/metrics/prometheus"] {
            let response = ask(&service, "GET", path, &[]).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert!(
                response.headers()[CONTENT_TYPE]
                    .to_str()
                    .unwrap()
                    .contains("version=0.0.4")
            );
        }
        assert_eq!(
            ask(&service, "GET", "/other", &[]).await.status(),
            StatusCode::NOT_FOUND
        );
    }

    #[tokio::test]
    async fn a_foreign_page_is_answered_with_forbidden_on_every_path() {
        let service = service(&Rpc::default());
        for (method, path) in [
            ("POST", "/api/v0/version"),
            ("OPTIONS", "/api/v0/version"),
            ("GET", "/metrics"),
            ("GET", "/api/v0/version"),
        ] {
            let response = ask(
                &service,
                method,
                path,
                &[("origin", "https://evil.example")],
            )
            .await;
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{method} {path}");
            assert!(
                !response
                    .headers()
                    .contains_key("access-control-allow-origin")
            );
        }
    }

    #[tokio::test]
    async fn an_own_page_may_ask_first_and_then_read() {
        let service = service(&Rpc {
            token: "sesame".to_owned(),
            ..Rpc::default()
        });
        let origin = ("origin", "http://localhost:5001");
        let response = ask(&service, "OPTIONS", "/api/v0/version", &[origin]).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let response = ask(&service, "POST", "/api/v0/version", &[origin]).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        let token = ("authorization", "Bearer sesame");
        let response = ask(&service, "POST", "/api/v0/version", &[origin, token]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "http://localhost:5001"
        );
    }

    #[tokio::test]
    async fn half_an_answer_is_cut_for_those_who_take_no_trailers() {
        let reply = crate::rpc::reply::Reply::values(|out| async move {
            out.value(&1).await?;
            Err(RpcError::failed("broke"))
        });
        let body = reply.into_response(None).await.into_body();
        let collected = Body::new(CutOnError(body)).collect().await;
        assert!(collected.is_err());
    }
}
