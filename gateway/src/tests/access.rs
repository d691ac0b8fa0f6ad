//! What the access log says of requests: a line for each, when its answer has ended, with nothing foreign in it as it is.

use super::support::{Site, ask, send};
use super::wire::{read_head, serve};
use crate::access::Client;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Metadata, Subscriber};

/// The lines of this thread, as long as it is there.
struct Log {
    lines: Arc<Mutex<Vec<Line>>>,
    _guard: DefaultGuard,
}

/// A line: its fields as they are printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Line(BTreeMap<&'static str, String>);

#[derive(Debug, Clone)]
struct Taking(Arc<Mutex<Vec<Line>>>);

impl Subscriber for Taking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "gateway::access"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().unwrap().push(line);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Log {
    fn begin() -> Self {
        let lines = Arc::default();
        let guard = tracing::subscriber::set_default(Taking(Arc::clone(&lines)));
        Self {
            lines,
            _guard: guard,
        }
    }

    fn lines(&self) -> Vec<Line> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }

    /// The only line since this was last asked.
    #[track_caller]
    fn line(&self) -> Line {
        let mut lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }
}

impl Line {
    #[track_caller]
    fn says(&self, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            assert_eq!(
                self.0.get(name).map(String::as_str),
                Some(*value),
                "{name}: {self:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_line_says_what_was_asked_and_what_went_out() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let log = Log::begin();
    let path = format!("/ipfs/{cid}?filename=a");
    let answer = site
        .ask(
            "GET",
            &path,
            &[("host", "gate.example"), ("user-agent", "curl/8")],
        )
        .await;
    assert_eq!(answer.bytes(), b"0123456789");
    log.line().says(&[
        ("method", "GET"),
        ("target", &format!("\"{path}\"")),
        ("host", "\"gate.example\""),
        ("status", "200"),
        ("format", "\"file\""),
        ("bytes", "10"),
        ("broken", "false"),
        ("agent", "\"curl/8\""),
        ("forwarded", "\"\""),
    ]);
    let path = format!("/ipfs/{cid}");
    site.ask("GET", &path, &[("range", "bytes=2-4")]).await;
    log.line()
        .says(&[("status", "206"), ("bytes", "3"), ("broken", "false")]);
    site.head(&path).await;
    log.line().says(&[
        ("method", "HEAD"),
        ("status", "200"),
        ("bytes", "0"),
        ("broken", "false"),
    ]);
    let tag = format!("\"{cid}\"");
    site.ask("GET", &path, &[("if-none-match", &tag)]).await;
    log.line()
        .says(&[("status", "304"), ("bytes", "0"), ("broken", "false")]);
    let missing = site.get(&format!("/ipfs/{cid}/nothing")).await;
    let bytes = missing.bytes().len().to_string();
    log.line()
        .says(&[("status", "404"), ("bytes", &bytes), ("broken", "false")]);
    site.ask("POST", &path, &[]).await;
    log.line()
        .says(&[("method", "POST"), ("status", "405"), ("broken", "false")]);
}

#[tokio::test]
async fn what_clients_send_cannot_write_lines_of_its_own() {
    let site = Site::new();
    let log = Log::begin();
    let agent = "quote \" and \\ tab\t \u{202e}evil".as_bytes();
    let agent = http::HeaderValue::from_bytes(agent).unwrap();
    let forged = http::HeaderValue::from_bytes(b"1.2.3.4\xff status=200").unwrap();
    let request = http::Request::builder()
        .uri("/ipfs/x%0Astatus=200?%22")
        .header("user-agent", agent)
        .header("x-forwarded-for", forged)
        .body(Empty::<Bytes>::new())
        .unwrap();
    drop(site.handler().answer(request).await);
    log.line().says(&[
        ("target", "\"/ipfs/x%0Astatus=200?%22\""),
        ("agent", "\"quote \\\" and \\\\ tab\\t \\u{202e}evil\""),
        ("forwarded", "\"1.2.3.4\u{fffd} status=200\""),
        ("status", "400"),
    ]);
    let long = "y".repeat(5000);
    site.ask(
        "GET",
        &format!("/{long}"),
        &[
            ("host", &long),
            ("user-agent", &long),
            ("x-forwarded-for", &long),
        ],
    )
    .await;
    let line = log.line();
    let quoted = |text: &str| format!("\"{}\"", &text[..1024]);
    line.says(&[
        ("target", &quoted(&format!("/{long}"))),
        ("host", &quoted(&long)),
        ("agent", &quoted(&long)),
        ("forwarded", &quoted(&long)),
    ]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_with_what_went_out_of_it() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![at; 100_000]).collect();
    let lost = site.raw(chunks[7].clone());
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    site.lose(&lost);
    let log = Log::begin();
    let answer = site.get(&format!("/ipfs/{file}")).await;
    assert!(answer.is_broken());
    log.line()
        .says(&[("status", "200"), ("bytes", "700000"), ("broken", "true")]);
    // Nothing goes out to a client that has gone.
    let whole = site.raw("0123456789");
    let request = http::Request::builder().uri(format!("/ipfs/{whole}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    drop(site.handler().answer(request).await);
    log.line()
        .says(&[("status", "200"), ("bytes", "0"), ("broken", "true")]);
}

#[tokio::test]
async fn nothing_is_told_before_an_answer_has_ended_and_no_status_of_what_had_none() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let log = Log::begin();
    let request = |path: &str| {
        let request = http::Request::builder().uri(path);
        request.body(Empty::<Bytes>::new()).unwrap()
    };
    let response = site
        .handler()
        .answer(request(&format!("/ipfs/{cid}")))
        .await;
    assert_eq!(log.lines(), []);
    response.into_body().collect().await.unwrap();
    log.line().says(&[("bytes", "10")]);
    site.missing = super::support::Missing::Hangs;
    site.lose(&cid);
    let handler = site.handler();
    let waiting = handler.answer(request(&format!("/ipfs/{cid}")));
    // Its client has gone before there was anything.
    assert!(futures::FutureExt::now_or_never(waiting).is_none());
    let line = log.line();
    assert_eq!(line.0.get("status"), None, "{line:?}");
    line.says(&[("bytes", "0"), ("broken", "true")]);
}

#[tokio::test]
async fn who_is_turned_away_is_told_as_that() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    site.config.requests_max = NonZeroU32::MIN;
    let handler = site.handler();
    let path = format!("/ipfs/{cid}");
    let log = Log::begin();
    let request = http::Request::builder().uri(&path);
    let running = handler
        .answer(request.body(Empty::<Bytes>::new()).unwrap())
        .await;
    let refused = ask(&handler, "GET", &path, &[]).await;
    assert_eq!(refused.code(), 429);
    let bytes = refused.bytes().len().to_string();
    log.line()
        .says(&[("status", "429"), ("bytes", &bytes), ("broken", "false")]);
    drop(running);
    assert_eq!(log.lines().len(), 1);
}

#[tokio::test]
async fn a_client_is_who_is_connected_and_only_proxies_say_for_whom_they_ask() {
    let site = Site::new();
    let handler = site.handler();
    let log = Log::begin();
    for (client, forwarded) in [
        ("127.0.0.1:9", "\"192.0.2.7\""),
        ("[::ffff:10.1.2.3]:9", "\"192.0.2.7\""),
        ("192.0.2.1:9", "\"\""),
    ] {
        let address: std::net::SocketAddr = client.parse().unwrap();
        let request = http::Request::builder()
            .uri("/")
            .header("x-forwarded-for", "192.0.2.7")
            .extension(Client::Address(address));
        drop(
            handler
                .answer(request.body(Empty::<Bytes>::new()).unwrap())
                .await,
        );
        log.line()
            .says(&[("client", client), ("forwarded", forwarded)]);
    }
    send(&handler, ("GET", "/"), &[], Empty::<Bytes>::new()).await;
    assert_eq!(log.line().0.get("client"), None, "it comes from within");
}

#[tokio::test]
async fn a_tunnel_is_a_line_and_so_is_each_request_through_it() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let log = Log::begin();
    let running = serve(site).await;
    let mut stream = running.connect().await;
    let client = stream.local_addr().unwrap().to_string();
    stream
        .write_all(b"CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    read_head(&mut stream).await;
    let get = format!("GET /ipfs/{cid} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(get.as_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(running.stop(Duration::from_secs(60)).await);
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let line = |method: &str| {
        lines
            .iter()
            .find(|line| line.0["method"] == method)
            .unwrap()
    };
    line("CONNECT").says(&[
        ("client", &client),
        ("target", "\"localhost:80\""),
        ("status", "200"),
        ("bytes", "0"),
        ("broken", "false"),
    ]);
    line("GET").says(&[("client", &client), ("status", "200"), ("bytes", "10")]);
}

#[tokio::test]
async fn nothing_is_gathered_for_lines_that_nobody_wants() {
    let (parts, ()) = http::Request::new(()).into_parts();
    let hosts = crate::host::Known::new(&Site::new().config);
    assert!(crate::access::Line::begin(&parts, &hosts).is_none());
    let _log = Log::begin();
    assert!(crate::access::Line::begin(&parts, &hosts).is_some());
}
