//! Routers on loopback that are asked for the records of names, and handed them.

use super::*;
use crate::ipns::RECORD_BYTES_MAX;
use crate::ipns::tests::{Says, record as signed};
use libp2p::identity::Keypair;

const KIND: &str = "application/vnd.ipfs.ipns-record";

fn named() -> (Keypair, PeerId) {
    let keys = Keypair::generate_ed25519();
    let name = keys.public().to_peer_id();
    (keys, name)
}

fn of_kind(kind: &str, body: &[u8]) -> Said {
    let head = format!("content-type: {kind}\r\ncontent-length: {}", body.len());
    Said::Whole(raw(&head, body))
}

/// Something that does not say how long it is.
fn chunked(size: usize) -> Said {
    let head = format!("content-type: {KIND}\r\ntransfer-encoding: chunked");
    let chunk = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
    Said::Whole(raw(&head, chunk.as_bytes()))
}

impl Bench {
    /// What the only router knows of a name.
    async fn known(&self, name: &PeerId) -> Known {
        self.routers.records(name).next().await.unwrap()
    }

    async fn put(&self, name: &PeerId, record: &[u8]) -> Put {
        let record = bytes::Bytes::copy_from_slice(record);
        self.routers.put(name, record).await[0]
    }
}

#[tokio::test]
async fn a_names_record_comes_as_it_was_signed_over_one_connection() {
    let (keys, name) = named();
    let bytes = signed(&keys, &Says::default());
    let given = bytes.clone();
    let kind = format!("{}; charset=binary", KIND.to_uppercase());
    let router = Gateway::start(move |_| of_kind(&kind, &given)).await;
    let bench = Bench::new(vec![router.endpoint()]);
    for _ in 0..3 {
        assert_eq!(bench.known(&name).await, Known::Record(bytes.clone()));
    }
    assert_eq!(router.connections.load(Ordering::Relaxed), 1);
    let asked = router.asked().remove(0);
    assert!(
        asked.target.starts_with("/routing/v1/ipns/k51"),
        "{asked:?}"
    );
    assert_eq!(ipns_name(&asked.target), Some(name));
    assert_eq!(
        (asked.method.as_str(), asked.accept.as_str()),
        ("GET", KIND)
    );
    assert_eq!(bench.count("answered"), 3.0);
    assert_eq!(bench.routers.stat()[0].answered, 3);
}

fn ipns_name(target: &str) -> Option<PeerId> {
    crate::ipns::name(target.strip_prefix("/routing/v1/ipns/")?)
}

#[tokio::test]
async fn what_does_not_hold_for_the_name_is_none_and_makes_nobody_ill() {
    let (keys, name) = named();
    let expired = Says {
        validity: "2020-01-01T00:00:00Z",
        ..Says::default()
    };
    let mut broken = signed(&keys, &Says::default());
    *broken.last_mut().unwrap() ^= 1;
    for bytes in [
        signed(&named().0, &Says::default()),
        signed(&keys, &expired),
        broken,
        b"garbage".to_vec(),
        Vec::new(),
        vec![0; RECORD_BYTES_MAX],
    ] {
        let router = Gateway::start(move |_| of_kind(KIND, &bytes)).await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..2 {
            assert_eq!(bench.known(&name).await, Known::Unsaid);
        }
        assert_eq!((bench.count("invalid"), bench.count("rests")), (2.0, 0.0));
        assert!(bench.routers.ill().is_empty());
    }
}

#[tokio::test]
async fn that_there_is_none_is_said_in_several_ways() {
    type Say = fn() -> Said;
    for (say, known, counted) in [
        (
            (|| of_kind("text/plain; charset=utf-8", b"none")) as Say,
            Known::Nothing,
            "empty",
        ),
        (|| json("{}"), Known::Nothing, "empty"),
        (
            || Said::Whole(raw("content-length: 4", b"none")),
            Known::Nothing,
            "empty",
        ),
        (|| Said::status("404 Not Found"), Known::Nothing, "absent"),
        (|| Said::status("406 No"), Known::Nothing, "absent"),
        (
            || Said::status("501 Not Implemented"),
            Known::Unsaid,
            "unsupported",
        ),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..2 {
            assert_eq!(bench.known(&named().1).await, known);
        }
        assert_eq!((bench.count(counted), bench.count("rests")), (2.0, 0.0));
        if counted == "empty" {
            // What is said to people is read, so that the connection may be kept.
            assert_eq!(router.connections.load(Ordering::Relaxed), 1);
        }
    }
}

#[tokio::test]
async fn a_router_that_fails_or_floods_where_a_record_should_be_rests() {
    type Say = fn() -> Said;
    for (say, counted) in [
        ((|| of_kind(KIND, &[0; 1 << 20])) as Say, "too_large"),
        (|| chunked(1 << 20), "too_large"),
        (|| chunked(RECORD_BYTES_MAX + 1), "too_large"),
        (
            || {
                Said::Drip(raw(
                    &format!("content-type: {KIND}\r\ncontent-length: 10000"),
                    b"",
                ))
            },
            "too_slow",
        ),
        (|| Said::Nothing, "too_slow"),
        (
            || {
                Said::Cut(raw(
                    &format!("content-type: {KIND}\r\ncontent-length: 900"),
                    b"x",
                ))
            },
            "broken",
        ),
        (|| Said::status("500 Broken"), "status"),
        (|| Said::status("503 Later"), "busy"),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::with(vec![router.endpoint()], impatient());
        for _ in 0..2 {
            assert_eq!(bench.known(&named().1).await, Known::Unsaid);
        }
        assert_eq!(
            (bench.count(counted), bench.count("rests")),
            (1.0, 1.0),
            "{counted}"
        );
        assert_eq!(router.asked().len(), 1, "{counted}");
    }
}

#[tokio::test]
async fn a_record_is_handed_over_whole_and_what_came_of_it_is_told() {
    type Say = fn() -> Said;
    let (keys, name) = named();
    let bytes = signed(&keys, &Says::default());
    for (say, put, counted) in [
        ((|| Said::status("200 OK")) as Say, Put::Taken, "taken"),
        (|| Said::status("202 Soon"), Put::Taken, "taken"),
        (|| Said::status("409 Conflict"), Put::Newer, "newer"),
        (|| Said::status("400 Bad Request"), Put::Not, "refused"),
        (|| Said::status("415 What"), Put::Not, "refused"),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..2 {
            assert_eq!(bench.put(&name, &bytes).await, put, "{counted}");
        }
        assert_eq!(bench.count(counted), 2.0);
        assert_eq!(router.connections.load(Ordering::Relaxed), 1, "{counted}");
        let asked = router.asked().remove(0);
        assert_eq!((asked.method.as_str(), asked.kind.as_str()), ("PUT", KIND));
        assert_eq!(
            (ipns_name(&asked.target), asked.body),
            (Some(name), bytes.clone())
        );
    }
}

#[tokio::test]
async fn a_router_that_takes_no_records_is_handed_none_for_a_while_and_is_not_ill() {
    let (keys, name) = named();
    let bytes = signed(&keys, &Says::default());
    for line in ["501 Not Implemented", "405 No", "404 Not Found"] {
        let router = Gateway::start(move |asked| match asked.method.as_str() {
            "PUT" => Said::status(line),
            _ => of_kind("text/plain", b"none"),
        })
        .await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..3 {
            assert_eq!(bench.put(&name, &bytes).await, Put::Not);
        }
        assert_eq!(router.asked().len(), 1, "{line}");
        assert_eq!(bench.count("unsupported"), 1.0);
        // It may be asked all the same.
        assert_eq!(bench.known(&name).await, Known::Nothing);
        assert!(bench.routers.ill().is_empty());
        // After that while it is tried again.
        *bench.routers.0[0].takes_none.lock().unwrap() = Some(Instant::now());
        bench.put(&name, &bytes).await;
        assert_eq!(router.asked().len(), 3, "{line}");
    }
}

#[tokio::test]
async fn a_short_rest_is_waited_for_before_a_record_is_handed_over_and_a_long_one_is_not() {
    let (keys, name) = named();
    let bytes = signed(&keys, &Says::default());
    let router = Gateway::start(|asked| match asked.method.as_str() {
        "PUT" => Said::status("200 OK"),
        _ => Said::status("500 Broken"),
    })
    .await;
    let bench = Bench::new(vec![router.endpoint()]);
    assert_eq!(bench.known(&name).await, Known::Unsaid);
    assert_eq!(bench.put(&name, &bytes).await, Put::Taken);
    assert_eq!(bench.count("rests"), 0.0);
    let long = Some(Duration::from_secs(60));
    bench.routers.0[0]
        .rest()
        .busy(long, Instant::now(), Instant::now());
    assert_eq!(bench.put(&name, &bytes).await, Put::Not);
    assert_eq!(bench.count("rests"), 1.0);
}

#[tokio::test]
async fn routers_that_hang_and_flood_keep_nobody_from_what_another_knows() {
    let (keys, name) = named();
    let bytes = signed(&keys, &Says::default());
    let given = bytes.clone();
    let hangs = Gateway::start(|_| Said::Nothing).await;
    let floods = Gateway::start(|_| of_kind(KIND, &[0; 1 << 20])).await;
    let good = Gateway::start(move |asked| match asked.method.as_str() {
        "PUT" => Said::status("200 OK"),
        _ => of_kind(KIND, &given),
    })
    .await;
    let endpoints = [&hangs, &floods, &good].map(Gateway::endpoint);
    let bench = Bench::with(endpoints.to_vec(), impatient());
    let known = bench.routers.records(&name);
    let record = known.filter(|known| std::future::ready(*known != Known::Unsaid));
    let mut record = std::pin::pin!(record);
    assert_eq!(record.next().await, Some(Known::Record(bytes.clone())));
    // Who says that it has taken it has, whatever else it says.
    let put = bench.routers.put(&name, bytes.into()).await;
    assert_eq!(put, [Put::Not, Put::Taken, Put::Taken]);
}
