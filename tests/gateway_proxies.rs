//! The gateway alone and behind nginx and haproxy: no bytes make one of them see another request than the other, and what
//! breaks off ends as something broken on the far side as well.

use cairn_store::Cid;
use harness::http::{self, Answer};
use harness::proxy::{Kind, Proxy};
use harness::{Daemon, Repo, tree, wait_until};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// The path of content that its CID has in itself.
fn content(text: &str) -> String {
    format!("/ipfs/{}", cid(text))
}

fn cid(text: &str) -> Cid {
    let length = u8::try_from(text.len()).unwrap();
    let bytes = [&[1, 0x55, 0, length], text.as_bytes()].concat();
    Cid::read_bytes(bytes.as_slice()).unwrap()
}

/// What a client sends on one connection.
struct Row {
    what: String,
    bytes: Vec<u8>,
    /// What the gateway alone answers, until it or the client is done.
    alone: Vec<u16>,
}

impl Row {
    /// How many requests it may be taken for.
    fn requests(&self) -> usize {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        let methods = ["GET", "G@T", "PUT", "CONNECT"];
        let asked: usize = methods.iter().map(|name| text.matches(name).count()).sum();
        asked - text.matches(&content(HIDDEN)).count()
    }
}

const FIRST: &str = "first";
const SECOND: &str = "second";
/// What is only asked for inside the body of another request.
const HIDDEN: &str = "hidden";
const HOST: &str = "Host: 127.0.0.1\r\n";
/// Some key's name.
const KEY: &str = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";

fn get(text: &str) -> String {
    format!("GET {} HTTP/1.1\r\n{HOST}", content(text))
}

fn row(what: impl Into<String>, bytes: impl Into<Vec<u8>>, alone: &[u16]) -> Row {
    Row {
        what: what.into(),
        bytes: bytes.into(),
        alone: alone.to_vec(),
    }
}

fn corpus() -> Vec<Row> {
    let all = [
        lengths(),
        encodings(),
        chunks(),
        lines(),
        hosts(),
        switches(),
    ];
    all.into_iter().flatten().collect()
}

/// Bodies where nobody expects any, and lengths that say different things.
fn lengths() -> Vec<Row> {
    let (head, next) = (get(FIRST), format!("{}\r\n", get(SECOND)));
    let hidden = format!("{}\r\n", get(HIDDEN));
    let (bytes, chunk) = (
        hidden.len(),
        format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
    );
    let chunked = "Transfer-Encoding: chunked\r\n";
    let mut rows = vec![
        row("two requests", format!("{head}\r\n{next}"), &[200, 200]),
        row(
            "no body and two requests",
            format!("{head}Content-Length: 0\r\n\r\n{next}"),
            &[200, 200],
        ),
        row(
            "a body",
            format!("{head}Content-Length: {bytes}\r\n\r\n{hidden}"),
            &[200],
        ),
        row(
            "a request behind a body",
            format!("{head}Content-Length: 5\r\n\r\nhello{next}"),
            &[200],
        ),
        row(
            "half a body",
            format!("{head}Content-Length: 999\r\n\r\n{hidden}"),
            &[200],
        ),
        row(
            "a body in chunks",
            format!("{head}{chunked}\r\n{chunk}"),
            &[200],
        ),
        row(
            "a request behind chunks",
            format!("{head}{chunked}\r\n0\r\n\r\n{next}"),
            &[200],
        ),
        row(
            "a length, then chunks that end before it",
            format!(
                "{head}Content-Length: {}\r\n{chunked}\r\n0\r\n\r\n{hidden}",
                bytes + 5
            ),
            &[200],
        ),
        row(
            "chunks, then a length that ends before them",
            format!("{head}{chunked}Content-Length: 4\r\n\r\n{chunk}"),
            &[200],
        ),
        row(
            "a length of 0, then chunks",
            format!("{head}Content-Length: 0\r\n{chunked}\r\n{chunk}"),
            &[200],
        ),
        row(
            "a body of HTTP/1.0 in chunks",
            format!(
                "GET {} HTTP/1.0\r\n{HOST}{chunked}\r\n{chunk}",
                content(FIRST)
            ),
            &[400],
        ),
        row(
            "a length named as one of this connection's own",
            format!(
                "{head}Connection: keep-alive, content-length\r\nContent-Length: {bytes}\r\n\r\n{hidden}"
            ),
            &[200],
        ),
        row(
            "a body that is asked for first",
            format!("{head}Expect: 100-continue\r\nContent-Length: {bytes}\r\n\r\n{hidden}"),
            &[200],
        ),
    ];
    for (length, status) in [
        ("Content-Length: 5\r\nContent-Length: 5", 200),
        ("Content-Length: 5\r\nContent-Length: 6", 400),
        ("Content-Length: 0\r\nContent-Length: 5", 400),
        (
            "Content-Length: 000000000000000000000000000000000000005",
            200,
        ),
        ("Content-Length: 5, 5", 400),
        ("Content-Length: 5,6", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: -5", 400),
        ("Content-Length: 0x5", 400),
        ("Content-Length: 5 5", 400),
        ("Content-Length: 5;", 400),
        ("Content-Length: 5.0", 400),
        ("Content-Length: 1e0", 400),
        ("Content-Length: \u{665}", 400),
        ("Content-Length:", 400),
        ("Content-Length: 5\u{b}", 400),
        ("Content-Length: 18446744073709551616", 400),
        ("Content-Length: 36893488147419103237", 400),
        ("Content-Length : 5", 400),
        ("Content-Length\u{b}: 5", 400),
        (" Content-Length: 5", 400),
        ("Content-Length:\r\n 5", 400),
        ("X: y\r\n\tContent-Length: 5", 400),
    ] {
        rows.push(row(
            length,
            format!("{head}{length}\r\n\r\nhello{next}"),
            &[status],
        ));
    }
    rows
}

/// Ways to write, and to miswrite, that a body comes in chunks.
fn encodings() -> Vec<Row> {
    let hidden = format!("{}\r\n", get(HIDDEN));
    let body = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let mut rows = Vec::new();
    for (line, alone) in [
        ("Transfer-Encoding:chunked", 200),
        ("transfer-encoding:\tCHUNKED \t", 200),
        ("Transfer-Encoding: gzip, chunked", 200),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            200,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            400,
        ),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: gzip", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunkedx", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: chunked chunked", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: 'chunked'", 400),
        ("Transfer-Encoding: chun\u{212a}ed", 400),
        ("Transfer-Encoding: \u{b}chunked", 400),
        ("Transfer-Encoding: chunked\u{0}", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: ,", 400),
        ("Transfer-Encoding: chunked,", 400),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\t: chunked", 400),
        ("Transfer-Encoding\u{0}: chunked", 400),
        ("\u{b}Transfer-Encoding: chunked", 400),
        (" Transfer-Encoding: chunked", 400),
        ("X: y\r\n Transfer-Encoding: chunked", 400),
        ("X: y\r\n\tTransfer-Encoding: chunked", 400),
        ("X: y\rTransfer-Encoding: chunked", 400),
        ("X: y\n\u{b}Transfer-Encoding: chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer-Encoding: chun\r\n ked", 400),
    ] {
        for length in [String::new(), format!("Content-Length: {}\r\n", body.len())] {
            let what = format!(
                "{line:?}{}",
                if length.is_empty() {
                    ""
                } else {
                    " and a length"
                }
            );
            rows.push(row(
                what,
                format!("{}{line}\r\n{length}\r\n{body}", get(FIRST)),
                &[alone],
            ));
        }
    }
    // Another header: what follows is no request.
    for line in [
        "Transfer_Encoding: chunked",
        "X-Transfer-Encoding: chunked",
        "TE: chunked",
    ] {
        rows.push(row(
            line,
            format!("{}{line}\r\n\r\n{body}", get(FIRST)),
            &[200, 400],
        ));
    }
    rows
}

/// Bodies that the gateway reads. Once one is in chunks, it believes nothing of what follows; others read on, some of
/// them also behind chunks that are wrong.
fn chunks() -> Vec<Row> {
    let put = format!(
        "PUT /routing/v1/ipns/{KEY} HTTP/1.1\r\n{HOST}Content-Type: application/vnd.ipfs.ipns-record\r\n"
    );
    let next = format!("{}\r\n", get(SECOND));
    let mut rows = vec![
        row(
            "a body that is read",
            format!("{put}Content-Length: 5\r\n\r\nhello{next}"),
            &[400, 200],
        ),
        row(
            "a body that is too long",
            format!("{put}Content-Length: {}\r\n\r\n{next}", 1_u64 << 40),
            &[413],
        ),
    ];
    let endless = format!("{put}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{next}");
    rows.push(row("a chunk without an end", endless, &[408]));
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b\r\nhello\r\n0;c=\"d\"\r\nTrailer: x\r\n\r\n",
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhelloo\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5_\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "\r\n\r\n",
        "x\r\n",
    ] {
        let bytes = format!("{put}Transfer-Encoding: chunked\r\n\r\n{body}\r\n{next}");
        rows.push(row(format!("{body:?}"), bytes, &[400]));
    }
    rows
}

/// Lines that end, fold or begin in other ways. Some of them others read, and then what follows.
fn lines() -> Vec<Row> {
    let (first, next) = (content(FIRST), format!("{}\r\n", get(SECOND)));
    let mut rows = vec![
        row(
            "line feeds alone",
            format!("{}\n", get(FIRST).replace("\r\n", "\n")),
            &[200],
        ),
        row(
            "empty lines first",
            format!("\r\n\r\n{}\r\n{next}", get(FIRST)),
            &[200, 200],
        ),
    ];
    for line in [
        "X: a\rb",
        "X: a\r\r",
        "X: a\u{0}b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X",
        ": y",
        "X@: y",
        "X y: z",
        "X: y\r\n z",
        "\tX: y",
        "X\u{e9}: y",
    ] {
        let bytes = format!("{}{line}\r\n\r\n{next}", get(FIRST));
        rows.push(row(format!("{line:?}"), bytes, &[400]));
    }
    for line in [
        format!("GET  {first} HTTP/1.1"),
        format!("GET {first}  HTTP/1.1"),
        format!(" GET {first} HTTP/1.1"),
        format!("GET\t{first}\tHTTP/1.1"),
        format!("GET {first} HTTP/1.1 HTTP/1.1"),
        format!("GET {first} HTTP/1.1x"),
        format!("GET {first} HTTP/1.2"),
        format!("GET {first} HTTP/2.0"),
        format!("GET {first} HTTP/9"),
        format!("GET {first} http/1.1"),
        format!("GET {first} HTTP/1.\u{661}"),
        format!("GET {first}\rX HTTP/1.1"),
        format!("GET {first}\u{0} HTTP/1.1"),
        format!("G@T {first} HTTP/1.1"),
        format!("GET {first}"),
        "GET".to_owned(),
    ] {
        let bytes = format!("{line}\r\n{HOST}\r\n{next}");
        rows.push(row(format!("{line:?}"), bytes, &[400]));
    }
    rows
}

/// Hosts that are several, none, or no hosts.
fn hosts() -> Vec<Row> {
    let first = content(FIRST);
    let own = |text: &str| format!("{}.ipfs.localhost", cid(text));
    let mut rows = vec![
        row(
            "two hosts",
            format!("GET {first} HTTP/1.1\r\n{HOST}Host: other.example\r\n\r\n"),
            &[400],
        ),
        row(
            "the same host twice",
            format!("GET {first} HTTP/1.1\r\n{HOST}{HOST}\r\n"),
            &[400],
        ),
        row("no host", format!("GET {first} HTTP/1.1\r\n\r\n"), &[400]),
        row(
            "no host in HTTP/1.0",
            format!("GET {first} HTTP/1.0\r\n\r\n"),
            &[200],
        ),
        row(
            "a whole address beats the host",
            format!(
                "GET http://{}/ HTTP/1.1\r\nHost: {}\r\n\r\n",
                own(FIRST),
                own(SECOND)
            ),
            &[200],
        ),
    ];
    for host in [
        "a b",
        "a,b",
        "127.0.0.1, other.example",
        "user@127.0.0.1",
        "127.0.0.1#x",
        "127.0.0.1/x",
        "127.0.0.1?x",
        "127.0.0.1:x",
        "127.0.0.1:80:80",
        "a\u{e9}b",
        "a\\b",
        "a%00b",
        "a\tb",
        ":80",
        ".",
        "http://127.0.0.1",
    ] {
        let bytes = format!("GET {first} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        rows.push(row(format!("the host {host:?}"), bytes, &[400]));
    }
    for address in [
        "http://127.0.0.1@other.example",
        "http://user:word@127.0.0.1",
        "http://a,b",
    ] {
        let bytes = format!("GET {address}{first} HTTP/1.1\r\n{HOST}\r\n");
        rows.push(row(address, bytes, &[400]));
    }
    rows
}

/// Other protocols on the same connection.
fn switches() -> Vec<Row> {
    let (head, next) = (get(FIRST), format!("{}\r\n", get(SECOND)));
    vec![
        row(
            "HTTP/2 as an upgrade",
            format!(
                "{head}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n{next}"
            ),
            &[200, 200],
        ),
        row(
            "a WebSocket",
            format!(
                "{head}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n{next}"
            ),
            &[200, 200],
        ),
        row(
            "a tunnel to elsewhere",
            format!("CONNECT other.example:80 HTTP/1.1\r\nHost: other.example:80\r\n\r\n{next}"),
            &[403, 200],
        ),
        row(
            "a tunnel with a body",
            format!("CONNECT 127.0.0.1:80 HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello"),
            &[400],
        ),
    ]
}

/// A daemon that logs each request, and whose gateway reads bodies where it can.
fn start(repo: &Repo) -> Daemon {
    repo.ok(["config", "set", "gateway.routing_put", "true"]);
    // So long is waited for bodies that never end.
    repo.ok(["config", "set", "gateway.header_timeout", "2s"]);
    repo.ok(["config", "set", "log.level", "warn,gateway::access=info"]);
    let log = File::create(repo.path().join("log")).unwrap();
    Daemon::start_logging(repo.command(["daemon"]), repo.path(), log)
}

/// Requests that were answered so far, once none runs.
fn answered(daemon: &Daemon) -> usize {
    wait_until("running requests to end", || {
        daemon.metric("cairn_gateway_requests_running") == 0.0
    });
    let page = http::request(daemon.rpc(), "GET", "/metrics", &[], b"").unwrap();
    let page = page.text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("cairn_gateway_requests_total"));
    lines
        .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
        .sum()
}

/// What was asked for, by the access log of a daemon that ends with it.
fn log_of(repo: &Repo, daemon: Daemon) -> String {
    daemon.stop();
    std::fs::read_to_string(repo.path().join("log")).unwrap()
}

#[test]
fn the_gateway_sees_what_was_asked_and_nothing_that_was_hidden() {
    let repo = Repo::new(CAIRN);
    let daemon = start(&repo);
    for row in corpus() {
        let before = answered(&daemon);
        let mut stream = TcpStream::connect(daemon.gateway()).unwrap();
        stream.write_all(&row.bytes).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut answers = Vec::new();
        let mut next = || {
            let is_over = matches!(reader.fill_buf(), Ok([]));
            (!is_over).then(|| {
                let answer = http::read(&mut reader, "GET");
                answer.unwrap_or_else(|error| panic!("{}: {error}", row.what))
            })
        };
        // Whoever hangs up before is not answered; whoever does so now is told nothing more.
        answers.extend(row.alone.iter().map_while(|_| next()));
        stream.shutdown(Shutdown::Write).unwrap();
        answers.extend(std::iter::from_fn(next));
        let told: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(told, row.alone, "{}", row.what);
        let contents = answers.iter().filter(|answer| answer.status == 200);
        let expected = [FIRST, SECOND]
            .into_iter()
            .filter(|text| String::from_utf8_lossy(&row.bytes).contains(&cid(text).to_string()));
        for (answer, text) in contents.zip(expected) {
            // Behind a body that is no record, or a tunnel, there is only the second.
            let is_expected = answer.text() == text || answer.text() == SECOND;
            assert!(is_expected, "{}: {}", row.what, answer.text());
        }
        // What cannot be read at all is no request.
        let by_the_gateway =
            |answer: &&Answer| !answer.header("access-control-allow-origin").is_empty();
        let counted = answers.iter().filter(by_the_gateway).count();
        assert_eq!(answered(&daemon) - before, counted, "{}", row.what);
        assert!(counted <= row.requests(), "{}: {counted}", row.what);
    }
    let log = log_of(&repo, daemon);
    assert!(log.contains(&content(FIRST)) && log.contains(&content(SECOND)));
    assert!(!log.contains(&content(HIDDEN)), "{log}");
}

/// Asks for content that nobody else asks for, on a connection of its own.
fn be_a_victim(proxy: &Proxy, number: &mut u32, after: &str) {
    *number += 1;
    let text = format!("victim {number}");
    let mut stream = proxy.connect();
    let asked = format!(
        "GET {} HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n",
        content(&text)
    );
    stream.write_all(asked.as_bytes()).unwrap();
    let answer = http::read(BufReader::new(stream), "GET");
    let answer = answer.unwrap_or_else(|error| panic!("{after}: {error}: {}", proxy.log()));
    assert_eq!((answer.status, answer.text()), (200, text), "after {after}");
}

fn nobody_gets_the_answer_of_another(kind: Kind) {
    let repo = Repo::new(CAIRN);
    let daemon = start(&repo);
    let Some(proxy) = Proxy::start(kind, daemon.gateway()) else {
        return;
    };
    let mut victims = 0;
    for _ in 0..20 {
        be_a_victim(&proxy, &mut victims, "nothing");
    }
    // Clients share a connection to the gateway, or this would show nothing.
    let kept = if kind == Kind::NginxOld { 0.0 } else { 1.0 };
    wait_until("the connection that is kept", || {
        daemon.metric("cairn_gateway_connections") == kept
    });
    let mut most = 0;
    for row in corpus() {
        let mut attacker = proxy.connect();
        // Whoever is refused early may not be heard to the end.
        let _ = attacker.write_all(&row.bytes);
        for _ in 0..2 {
            be_a_victim(&proxy, &mut victims, &row.what);
        }
        let _ = attacker.shutdown(Shutdown::Write);
        let mut told = Vec::new();
        let _ = attacker.read_to_end(&mut told); // Some are ended by a reset.
        be_a_victim(&proxy, &mut victims, &row.what);
        let told = String::from_utf8_lossy(&told).to_ascii_lowercase();
        let got = told.matches("access-control-allow-origin: *").count();
        assert!(got <= row.requests(), "{}: {told}", row.what);
        assert!(
            !told.contains("victim") && !told.contains(HIDDEN),
            "{}: {told}",
            row.what
        );
        most += row.requests();
        let seen = answered(&daemon) - usize::try_from(victims).unwrap();
        assert!(seen <= most, "{}: {seen} requests for {most}", row.what);
    }
    let log = log_of(&repo, daemon);
    assert!(log.contains(&content(FIRST)) && log.contains(&content(SECOND)));
    assert!(!log.contains(&content(HIDDEN)), "{log}");
}

#[test]
fn behind_nginx_nobody_gets_the_answer_of_another() {
    nobody_gets_the_answer_of_another(Kind::Nginx);
}

#[test]
fn behind_nginx_without_kept_connections_nobody_gets_the_answer_of_another() {
    nobody_gets_the_answer_of_another(Kind::NginxOld);
}

#[test]
fn behind_haproxy_nobody_gets_the_answer_of_another() {
    nobody_gets_the_answer_of_another(Kind::Haproxy);
}

#[test]
fn behind_a_lenient_haproxy_nobody_gets_the_answer_of_another() {
    nobody_gets_the_answer_of_another(Kind::HaproxyLenient);
}

#[test]
fn what_breaks_off_is_broken_on_the_far_side_of_a_proxy_too() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, tree::bytes(3, 5_000_000)).unwrap();
    let root = repo.ok(["add", "-Q", "--pin=false", file.to_str().unwrap()]);
    let leaves = repo.ok(["refs", &root]);
    let last = leaves.lines().last().unwrap();
    repo.ok(["block", "rm", last]);
    repo.ok(["config", "set", "gateway.retrieval_timeout", "100ms"]);
    let daemon = repo.daemon();
    let proxies = [Kind::Nginx, Kind::NginxOld, Kind::Haproxy];
    let proxies = proxies.map(|kind| (kind, Proxy::start(kind, daemon.gateway())));
    let mut broken = 0.0;
    for (kind, proxy) in &proxies {
        let Some(proxy) = proxy else { continue };
        let ask = |query: &str, header: &str, version: &str| {
            let mut stream = proxy.connect();
            let head = format!(
                "GET /ipfs/{root}{query} HTTP/{version}\r\n{HOST}{header}Connection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            http::read(BufReader::new(stream), "GET")
        };
        for (query, header) in [
            ("", ""),
            ("?format=car", ""),
            ("?format=car&entity-bytes=0:*", ""),
            ("?format=tar", ""),
            ("", "Range: bytes=1000000-\r\n"),
            ("", "Range: bytes=0-3000000,4500000-4600000\r\n"),
        ] {
            let answer = ask(query, header, "1.1");
            let error = answer.map(|answer| (answer.status, answer.body.len()));
            let error = error.expect_err(&format!("{kind:?} {query}{header}"));
            let kinds = [
                std::io::ErrorKind::UnexpectedEof,
                std::io::ErrorKind::ConnectionReset,
            ];
            assert!(kinds.contains(&error.kind()), "{kind:?} {query}: {error}");
            broken += 1.0;
            wait_until("the gateway to count it", || {
                daemon.metric("cairn_gateway_broken_total") == broken
            });
        }
        // A part that is there is whole.
        let answer = ask("", "Range: bytes=0-999999\r\n", "1.1").unwrap();
        assert_eq!((answer.status, answer.body.len()), (206, 1_000_000));
    }
}
