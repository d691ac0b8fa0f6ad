//! The gateway as a proxy for itself: whole addresses in request lines, and tunnels. Over real connections, as the
//! public suite asks.

use super::suite::{HELLO, HELLO_V0, HELLO_V0_AS_V1};
use super::support::Site;
use super::wire::{read_head, read_to_end, serve};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GRACE: Duration = Duration::from_secs(60);

/// A head, and the body that it announces.
async fn answer(stream: &mut TcpStream) -> (String, String) {
    let head = read_head(stream).await.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn ask(stream: &mut TcpStream, text: &str) -> (String, String) {
    stream.write_all(text.as_bytes()).await.unwrap();
    answer(stream).await
}

#[tokio::test]
async fn a_whole_address_says_the_host_and_the_path() {
    let running = serve(Site::suite()).await;
    let mut stream = running.connect().await;
    // Whatever the header says (RFC 9112, 3.2.2).
    for host in ["localhost:8080", "127.0.0.1"] {
        let get =
            format!("GET http://{HELLO}.ipfs.localhost:8080 HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (head, body) = ask(&mut stream, &get).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        assert_eq!(body, "hello\n");
    }
    let get = format!("GET http://localhost:8080/ipfs/{HELLO_V0}/?a=b HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, _) = ask(&mut stream, &get).await;
    assert!(head.starts_with("http/1.1 301 "), "{head}");
    let location = format!("location: http://{HELLO_V0_AS_V1}.ipfs.localhost:8080/?a=b\r\n");
    assert!(head.contains(&location), "{head}");
    let get = "GET http://dnslink-test.example.org/ HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(ask(&mut stream, get).await.1, "hello\n");
}

#[tokio::test]
async fn a_tunnel_to_the_gateway_is_the_gateway() {
    let running = serve(Site::suite()).await;
    let own = running.address().to_string();
    for target in [
        own.as_str(),
        "localhost:1",
        "127.0.0.1:1",
        "[::1]:80",
        "a.ipfs.localhost:80",
    ] {
        let mut stream = running.connect().await;
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let (head, _) = ask(&mut stream, &connect).await;
        assert!(head.starts_with("http/1.1 200 "), "{target}: {head}");
        for name in ["content-length:", "transfer-encoding:"] {
            assert!(!head.contains(name), "{head}");
        }
        let own = format!("GET / HTTP/1.1\r\nHost: {HELLO}.ipfs.localhost:8080\r\n\r\n");
        assert_eq!(ask(&mut stream, &own).await.1, "hello\n");
        let moved = format!("GET /ipfs/{HELLO_V0}/ HTTP/1.1\r\nHost: localhost:8080\r\n\r\n");
        let (head, _) = ask(&mut stream, &moved).await;
        let location = format!("location: http://{HELLO_V0_AS_V1}.ipfs.localhost:8080/\r\n");
        assert!(head.contains(&location), "{head}");
        let whole = format!(
            "GET http://{HELLO}.ipfs.localhost/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(whole.as_bytes()).await.unwrap();
        let (text, ended) = read_to_end(&mut stream).await;
        assert!(text.ends_with("hello\n"), "{text}");
        assert_eq!(ended, Ok(()));
    }
    assert!(running.stop(GRACE).await);
}

#[tokio::test]
async fn what_was_sent_right_behind_the_question_goes_through_the_tunnel() {
    let running = serve(Site::suite()).await;
    let both = format!(
        "CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: {HELLO}.ipfs.localhost\r\nConnection: close\r\n\r\n"
    );
    let (text, ended) = running.say(&both).await;
    assert_eq!(text.matches("HTTP/1.1 200 ").count(), 2, "{text}");
    assert!(text.ends_with("hello\n"), "{text}");
    assert_eq!(ended, Ok(()));
}

#[tokio::test]
async fn no_tunnel_leads_elsewhere_or_through_a_tunnel() {
    let running = serve(Site::suite()).await;
    for target in [
        "example.org:443",
        "10.0.0.1:80",
        "[2001:db8::1]:80",
        "localhost.example:80",
    ] {
        let mut stream = running.connect().await;
        let connect = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        let (head, body) = ask(&mut stream, &connect).await;
        assert!(head.starts_with("http/1.1 403 "), "{target}: {head}");
        assert!(body.contains("not this gateway"), "{body}");
        // It stays a connection to the gateway.
        let own = format!("GET / HTTP/1.1\r\nHost: {HELLO}.ipfs.localhost\r\n\r\n");
        assert_eq!(ask(&mut stream, &own).await.1, "hello\n");
    }
    let mut stream = running.connect().await;
    let connect = "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n";
    assert!(
        ask(&mut stream, connect)
            .await
            .0
            .starts_with("http/1.1 200 ")
    );
    let (head, body) = ask(&mut stream, connect).await;
    assert!(
        head.starts_with("http/1.1 403 ") && body.contains("through a tunnel"),
        "{head}{body}"
    );
    let with_body = "CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let (text, _) = running.say(with_body).await;
    assert!(
        text.starts_with("HTTP/1.1 400 ") && !text.contains("HTTP/1.1 200 "),
        "{text}"
    );
}

#[tokio::test]
async fn a_tunnel_keeps_to_the_limits_of_its_connection() {
    let mut site = Site::suite();
    site.config.header_timeout = "2s".parse().unwrap();
    site.config.connections_max = std::num::NonZeroU32::MIN;
    let running = serve(site).await;
    let mut stream = running.connect().await;
    let connect = "CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(
        ask(&mut stream, connect)
            .await
            .0
            .starts_with("http/1.1 200 ")
    );
    assert!(running.metric("cairn_gateway_connections 1"));
    // The next one waits for the only slot, which an idle tunnel gives back when its time is over.
    let get =
        format!("GET / HTTP/1.1\r\nHost: {HELLO}.ipfs.localhost\r\nConnection: close\r\n\r\n");
    let (text, _) = running.say(&get).await;
    assert!(text.ends_with("hello\n"), "{text}");
    assert!(read_to_end(&mut stream).await.0.is_empty());
}

#[tokio::test]
async fn a_tunnel_ends_when_the_gateway_stops() {
    let running = serve(Site::suite()).await;
    let mut stream = running.connect().await;
    let connect = "CONNECT localhost:80 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(
        ask(&mut stream, connect)
            .await
            .0
            .starts_with("http/1.1 200 ")
    );
    let own = format!("GET / HTTP/1.1\r\nHost: {HELLO}.ipfs.localhost\r\n\r\n");
    assert_eq!(ask(&mut stream, &own).await.1, "hello\n");
    assert!(running.stop(GRACE).await);
    assert_eq!(read_to_end(&mut stream).await, (String::new(), Ok(())));
}
