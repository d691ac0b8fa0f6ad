//! Records of names over delegated routing: given as they were signed, and kept where the operator lets it.

use super::routing::{EMPTY, Known};
use super::support::{Answer, Site, ask, bytes, put, send};
use crate::handler::Handler;
use bytes::Bytes;
use cairn_node::ipns::{self, RECORD_BYTES_MAX};
use cairn_node::routing::RoutingError;
use cairn_node::{Keypair, PeerId};
use cairn_store::dag::cbor;
use cairn_store::dag::value::Value;
use futures::stream::{self, StreamExt};
use http::Request;
use http_body::Frame;
use http_body_util::{Empty, Full, StreamBody};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const KIND: &str = "application/vnd.ipfs.ipns-record";
const AS_RECORD: &[(&str, &str)] = &[("content-type", KIND)];

/// A record that holds until then, signed by `keys`.
fn signed(keys: &Keypair, ttl: i128, validity: &str) -> Vec<u8> {
    let text = |text: &str| Value::Bytes(text.as_bytes().to_vec().into());
    let data = cbor::encode(&Value::Map(vec![
        ("TTL".to_owned(), Value::Integer(ttl)),
        ("Value".to_owned(), text("/ipfs/bafkqaaa")),
        ("Sequence".to_owned(), Value::Integer(1)),
        ("Validity".to_owned(), text(validity)),
        ("ValidityType".to_owned(), Value::Integer(0)),
    ]));
    let signed = [&b"ipns-signature:"[..], &data].concat();
    let mut out = Vec::new();
    bytes(&mut out, 8, &keys.sign(&signed).unwrap());
    bytes(&mut out, 9, &data);
    out
}

fn named() -> (Keypair, PeerId, String) {
    let keys = Keypair::generate_ed25519();
    let name = keys.public().to_peer_id();
    let path = format!("/routing/v1/ipns/{}", ipns::text(&name));
    (keys, name, path)
}

/// As a record writes it.
fn rfc3339(at: SystemTime) -> String {
    let text = httpdate::fmt_http_date(at);
    let parts: Vec<&str> = text.split(' ').collect();
    let [_, day, month, year, time, _] = parts[..] else {
        panic!("{text}")
    };
    let month = "JanFebMarAprMayJunJulAugSepOctNovDec".find(month).unwrap() / 3 + 1;
    format!("{year}-{month:02}-{day}T{time}Z")
}

fn knows(name: &PeerId, record: &[u8]) -> Known {
    Known {
        name: Some(ipns::Record::decode(name, record).unwrap()),
        ..Known::default()
    }
}

const FOR_EVER: &str = "2100-01-01T00:00:00Z";

#[tokio::test]
async fn a_names_record_is_given_as_it_was_signed() {
    let (keys, name, path) = named();
    for path in [path.clone(), format!("/routing/v1/ipns/{name}")] {
        for (ttl, fresh) in [(120_000_000_000, 120), (0, 60)] {
            let record = signed(&keys, ttl, FOR_EVER);
            let answer = knows(&name, &record).get(&path, KIND).await;
            assert_eq!((answer.code(), answer.bytes()), (200, &record[..]));
            assert_eq!(answer.header("content-type"), KIND);
            let caching = format!("public, max-age={fresh}, stale-while-revalidate=172800");
            assert!(answer.header("cache-control").starts_with(&caching));
            assert!(answer.header("etag").starts_with('"'));
            assert_eq!(answer.header("expires"), "Fri, 01 Jan 2100 00:00:00 GMT");
            assert_ne!(answer.header("last-modified"), "");
        }
    }
    let none = Known::default().get(&path, "*/*").await;
    assert_eq!((none.code(), none.header("cache-control")), (200, EMPTY));
    assert_eq!(none.header("content-type"), "text/plain; charset=utf-8");
}

#[tokio::test]
async fn nothing_of_a_record_is_used_beyond_its_end() {
    let (keys, name, path) = named();
    let end = SystemTime::now() + Duration::from_secs(1000);
    let record = signed(&keys, 900_000_000_000, &rfc3339(end));
    let answer = knows(&name, &record).get(&path, KIND).await;
    let numbers = |text: &str| -> Vec<u64> {
        let numbers = text.split(|char: char| !char.is_ascii_digit());
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    let caching = numbers(answer.header("cache-control"));
    let [fresh, stale, _] = caching[..] else {
        panic!("{caching:?}")
    };
    assert_eq!(fresh, 900);
    assert!(stale <= 100, "{stale}");
    assert_eq!(answer.header("expires"), httpdate::fmt_http_date(end));
    let long = signed(&keys, 5_000_000_000_000, &rfc3339(end));
    let answer = knows(&name, &long).get(&path, KIND).await;
    let caching = numbers(answer.header("cache-control"));
    assert!(caching[0] <= 1000 && caching[1] == 0, "{caching:?}");
    // The last year that HTTP can say.
    let last = signed(&keys, 0, "9999-12-31T23:59:59.999999999Z");
    let answer = knows(&name, &last).get(&path, KIND).await;
    assert_eq!(answer.header("expires"), "Fri, 31 Dec 9999 23:59:59 GMT");
}

#[tokio::test]
async fn whoever_has_the_record_is_not_given_it_again() {
    let (keys, name, path) = named();
    let handler = knows(&name, &signed(&keys, 0, FOR_EVER)).handler();
    let first = ask(&handler, "GET", &path, &[("accept", KIND)]).await;
    let tag = first.header("etag").to_owned();
    for (known, code) in [
        (tag.clone(), 304),
        (format!("\"x\", W/{tag}"), 304),
        ("*".to_owned(), 304),
        ("\"x\"".to_owned(), 200),
    ] {
        let headers = [("accept", KIND), ("if-none-match", known.as_str())];
        let answer = ask(&handler, "GET", &path, &headers).await;
        assert_eq!(answer.code(), code, "{known}");
        assert_eq!(answer.bytes().is_empty(), code == 304);
        assert_eq!(answer.header("etag"), tag);
        assert_eq!(
            answer.header("cache-control"),
            first.header("cache-control")
        );
    }
}

/// Somebody who lets others have records kept.
fn letting(known: Known) -> Handler<Arc<Site>> {
    let mut site = Site::new();
    site.config.routing_put = true;
    site.handler_with(Some(Arc::new(known)))
}

#[tokio::test]
async fn a_record_that_holds_is_kept() {
    let (keys, name, path) = named();
    let record = signed(&keys, 0, FOR_EVER);
    for (takers, told) in [(0, "kept here"), (1, "1 peer took"), (7, "7 peers took")] {
        let known = Known {
            takers,
            ..Known::default()
        };
        let kept = Arc::clone(&known.kept);
        let kind = [("content-type", "Application/vnd.ipfs.ipns-record; x=y")];
        let answer = put(&letting(known), &path, &kind, &record).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        assert!(answer.text().contains(told), "{}", answer.text());
        assert_eq!(*kept.lock().unwrap(), [(name, record.clone())]);
        for (header, value) in [
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, HEAD, PUT, OPTIONS"),
            // It was read to its end.
            ("connection", ""),
        ] {
            assert_eq!(answer.header(header), value, "{header}");
        }
    }
}

#[tokio::test]
async fn nothing_is_kept_unless_the_operator_lets_it() {
    let (keys, _, path) = named();
    let record = signed(&keys, 0, FOR_EVER);
    let known = Known::default();
    let kept = Arc::clone(&known.kept);
    let handler = known.clone().handler();
    let answer = put(&handler, &path, AS_RECORD, &record).await;
    assert_eq!(answer.code(), 501);
    assert!(
        answer.text().contains("`gateway.routing_put`"),
        "{}",
        answer.text()
    );
    // What was sent is not taken for the next request.
    assert_eq!(answer.header("connection"), "close");
    assert!(kept.lock().unwrap().is_empty());
    let other = "/routing/v1/providers/bafkqaaa";
    for (handler, path, methods) in [
        (&handler, path.as_str(), "GET, HEAD, OPTIONS"),
        (&letting(known.clone()), &path, "GET, HEAD, PUT, OPTIONS"),
        (&letting(known), other, "GET, HEAD, OPTIONS"),
    ] {
        let options = ask(handler, "OPTIONS", path, &[]).await;
        assert_eq!(options.header("allow"), methods, "{path}");
        assert_eq!(options.header("access-control-allow-methods"), methods);
        let wrong = ask(handler, "DELETE", path, &[]).await;
        assert_eq!((wrong.code(), wrong.header("allow")), (405, methods));
    }
    let mut site = Site::new();
    site.config.routing_put = true;
    let offline = put(&site.handler(), &path, AS_RECORD, &record).await;
    assert_eq!(offline.code(), 501);
    site.config.routing = false;
    let off = put(&site.handler(), &path, AS_RECORD, &record).await;
    assert_ne!(off.code(), 200);
}

#[tokio::test]
async fn what_is_no_record_of_the_name_is_refused_with_a_reason_and_told_to_nobody() {
    let (keys, name, path) = named();
    let record = signed(&keys, 0, FOR_EVER);
    let other = signed(&named().0, 0, FOR_EVER);
    let expired = signed(&keys, 0, "2020-01-01T00:00:00Z");
    let large = vec![0; RECORD_BYTES_MAX + 1];
    let known = Known::default();
    let kept = Arc::clone(&known.kept);
    let handler = letting(known);
    let json: &[(&str, &str)] = &[("content-type", "application/json")];
    let no_name = "/routing/v1/ipns/example.com";
    for (path, headers, body, code, told) in [
        (path.as_str(), &[][..], &record, 415, KIND),
        (&path, json, &record, 415, KIND),
        (&path, AS_RECORD, &large, 413, "10240"),
        (&path, AS_RECORD, &Vec::new(), 400, "signature"),
        (&path, AS_RECORD, &b"garbage".to_vec(), 400, "protobuf"),
        (&path, AS_RECORD, &other, 400, "signature"),
        (&path, AS_RECORD, &expired, 400, "expired"),
        (no_name, AS_RECORD, &record, 422, "peer ID"),
        (
            "/routing/v1/providers/bafkqaaa",
            AS_RECORD,
            &record,
            501,
            "names",
        ),
        (
            &format!("/routing/v1/peers/{name}"),
            AS_RECORD,
            &record,
            501,
            "names",
        ),
    ] {
        let answer = put(&handler, path, headers, body).await;
        assert_eq!(answer.code(), code, "{path} {}", answer.text());
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    // One that does not say how long it is.
    let pieces =
        stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0; 1000]))));
    let endless = StreamBody::new(pieces);
    let answer = send(&handler, ("PUT", &path), AS_RECORD, endless).await;
    assert_eq!((answer.code(), answer.header("connection")), (413, "close"));
    assert!(kept.lock().unwrap().is_empty());
    // In pieces it is as good as whole.
    let pieces: Vec<_> = record.chunks(7).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    let answer = send(&handler, ("PUT", &path), AS_RECORD, StreamBody::new(pieces)).await;
    assert_eq!(answer.code(), 200);
    assert_eq!(kept.lock().unwrap().pop(), Some((name, record)));
}

#[tokio::test]
async fn a_record_that_is_not_taken_says_why() {
    let (keys, _, path) = named();
    let record = signed(&keys, 0, FOR_EVER);
    for (error, code, told) in [
        (RoutingError::NewerValueKept, 409, "newer"),
        (RoutingError::ValueNotTaken, 503, "no peer took"),
        (RoutingError::NoPeers, 503, "no peers"),
        (RoutingError::Stopping, 503, "stopping"),
    ] {
        let known = Known {
            error: Some(error),
            ..Known::default()
        };
        let answer = put(&letting(known), &path, AS_RECORD, &record).await;
        assert_eq!(answer.code(), code, "{told}");
        assert!(answer.text().contains(told), "{}", answer.text());
        assert_eq!(answer.header("retry-after").is_empty(), code != 503);
    }
}

#[tokio::test(start_paused = true)]
async fn neither_who_sends_slowly_nor_a_lookup_without_an_end_holds_a_place_for_ever() {
    let (keys, _, path) = named();
    let record = signed(&keys, 0, FOR_EVER);
    let first = Frame::data(Bytes::copy_from_slice(&record[..9]));
    let stalls =
        StreamBody::new(stream::iter([Ok::<_, Infallible>(first)]).chain(stream::pending()));
    let handler = letting(Known::default());
    let answer = send(&handler, ("PUT", &path), AS_RECORD, stalls).await;
    assert_eq!(answer.code(), 408);
    let hangs = Known {
        hangs: true,
        ..Known::default()
    };
    let answer: Answer = put(&letting(hangs), &path, AS_RECORD, &record).await;
    assert_eq!(answer.code(), 503);
}

#[tokio::test]
async fn few_records_are_kept_at_once_and_whoever_hangs_up_makes_room() {
    let (keys, _, path) = named();
    let record = Bytes::from(signed(&keys, 0, FOR_EVER));
    let hangs = Known {
        hangs: true,
        ..Known::default()
    };
    let handler = letting(hangs);
    let open = || {
        let handler = handler.clone();
        let request = Request::put(&path).header("content-type", KIND);
        let request = request.body(Full::new(record.clone())).unwrap();
        Box::pin(async move { handler.answer(request).await.status().as_u16() })
    };
    let mut running = Vec::new();
    loop {
        let mut put = open();
        match futures::poll!(&mut put) {
            std::task::Poll::Ready(code) => {
                assert_eq!(code, 429);
                break;
            }
            std::task::Poll::Pending => running.push(put),
        }
    }
    assert_eq!(running.len(), 8);
    // Lookups have room of their own.
    let request = Request::get(&path).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(handler.answer(request).await.status(), 406);
    running.pop();
    assert!(futures::poll!(open()).is_pending());
}
