//! Routers on loopback that tell the truth, nonsense, too much, or nothing.

mod names;

use super::*;
use crate::http::testing::{Answer as Said, Gateway, Question as Asked, raw};
use futures::StreamExt;
use libp2p::Multiaddr;

/// Those who are asked, and what is counted.
struct Bench {
    routers: Routers,
    registry: prometheus::Registry,
    tasks: Tasks,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}

impl Bench {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        Self::with(endpoints, Limits::default())
    }

    fn with(endpoints: Vec<Endpoint>, limits: Limits) -> Self {
        let (tasks, registry) = (Tasks::new(), prometheus::Registry::new());
        let trusted = (http::public_roots(), limits);
        let routers = Routers::with(Network::Local, endpoints, trusted, &tasks, &registry);
        Self {
            routers: routers.unwrap(),
            registry,
            tasks,
        }
    }

    /// What the only router says about who has something.
    async fn heard(&self, limit: usize) -> Vec<Heard> {
        let mut all = self.routers.providers(&cid(), limit);
        all.remove(0).collect().await
    }

    async fn peers(&self, limit: usize) -> Vec<PeerId> {
        peers(&self.heard(limit).await)
    }

    fn count(&self, outcome: &str) -> f64 {
        let families = self.registry.gather();
        let name = "cairn_routers_questions_total";
        let questions = families.iter().find(|family| family.name() == name);
        let metrics = questions.unwrap().get_metric();
        let counted = metrics
            .iter()
            .find(|one| one.get_label()[0].value() == outcome);
        counted.unwrap().get_counter().get_value()
    }
}

fn peers(heard: &[Heard]) -> Vec<PeerId> {
    let told = heard.iter().filter_map(|one| match one {
        Heard::Provider(provider) => Some(provider.peer),
        Heard::Answered => None,
    });
    told.collect()
}

fn cid() -> Cid {
    cairn_store::cid::parse("bafkqaaa").unwrap()
}

fn impatient() -> Limits {
    let mut limits = Limits::default();
    limits.times.search = Duration::from_millis(300);
    limits.times.body_idle = Duration::from_millis(300);
    limits.whole = Duration::from_millis(900);
    limits
}

fn record(peer: PeerId, address: &str) -> String {
    let addresses: Vec<Multiaddr> = vec![address.parse().unwrap()];
    let protocols = Vec::new();
    let record = Record {
        peer,
        addresses,
        protocols,
    };
    record.to_json()
}

fn inside(peer: PeerId) -> String {
    record(peer, "/ip4/127.0.0.1/tcp/1")
}

fn json(text: &str) -> Said {
    let head = format!(
        "content-type: application/json; charset=utf-8\r\ncontent-length: {}",
        text.len()
    );
    Said::Whole(raw(&head, text.as_bytes()))
}

fn lines(text: &str) -> Said {
    let head = format!(
        "content-type: application/x-ndjson\r\ncontent-length: {}",
        text.len()
    );
    Said::Whole(raw(&head, text.as_bytes()))
}

#[tokio::test]
async fn providers_come_from_lists_and_from_lines_over_one_connection() {
    let (one, other) = (PeerId::random(), PeerId::random());
    let list = format!(r#"{{"Providers":[{},{}]}}"#, inside(one), inside(other));
    // Without the end of the last line, and with the ends of another system.
    let stream = format!("{}\r\n\n{}", inside(one), inside(other));
    for (text, say) in [(list, json as fn(&str) -> Said), (stream, lines)] {
        let router = Gateway::start(move |_: &Asked| say(&text)).await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..3 {
            let heard = bench.heard(20).await;
            assert_eq!(peers(&heard), [one, other]);
            assert!(matches!(heard.last(), Some(Heard::Answered)));
        }
        assert_eq!(router.connections.load(Ordering::Relaxed), 1);
        let asked = router.asked().remove(0);
        assert_eq!(
            asked.target,
            "/routing/v1/providers/bafkqaaa?filter-protocols=unknown,transport-bitswap,transport-ipfs-gateway-http"
        );
        assert_eq!(asked.accept, ACCEPT);
        assert_eq!(bench.count("answered"), 3.0);
    }
}

#[tokio::test]
async fn a_router_is_named_with_the_common_part_of_all_addresses_or_without_it() {
    let router = Gateway::start(|_| lines("")).await;
    for path in ["", "/", "/routing/v1", "/routing/v1/"] {
        let endpoint = format!("http://{}{path}", router.address).parse().unwrap();
        assert!(Bench::new(vec![endpoint]).peers(20).await.is_empty());
    }
    for asked in router.asked() {
        assert!(
            asked.target.starts_with("/routing/v1/providers/"),
            "{asked:?}"
        );
    }
    assert_eq!(router.asked().len(), 4);
}

#[tokio::test]
async fn records_come_before_the_end_of_a_stream_that_has_none() {
    let peer = PeerId::random();
    let head = raw(
        "content-type: application/x-ndjson\r\ntransfer-encoding: chunked",
        b"",
    );
    let line = format!("{}\n", inside(peer));
    let chunk = format!("{:x}\r\n{line}\r\n", line.len());
    let router = Gateway::start(move |_| Said::Drip([&head[..], chunk.as_bytes()].concat())).await;
    let bench = Bench::new(vec![router.endpoint()]);
    let mut heard = bench.routers.providers(&cid(), 20).remove(0);
    let first = heard.next().await.unwrap();
    assert_eq!(peers(&[first]), [peer]);
}

#[tokio::test]
async fn nothing_is_believed_about_places_outside_the_network_or_of_no_use() {
    let (within, without, unplaced, stranger) = (
        PeerId::random(),
        PeerId::random(),
        PeerId::random(),
        PeerId::random(),
    );
    let speaks = |peer: PeerId, protocol: &str| {
        format!(r#"{{"Schema":"peer","ID":"{peer}","Addrs":[],"Protocols":["{protocol}"]}}"#)
    };
    let text = [
        record(without, "/ip4/192.0.2.1/tcp/1"),
        "nonsense".to_owned(),
        speaks(stranger, "transport-graphsync-filecoinv1"),
        speaks(unplaced, "Transport-Bitswap"),
        inside(within),
    ]
    .join("\n");
    let router = Gateway::start(move |_| lines(&text)).await;
    let bench = Bench::new(vec![router.endpoint()]);
    assert_eq!(bench.peers(20).await, [unplaced, within]);
}

#[tokio::test]
async fn an_empty_list_a_404_and_a_501_are_answers() {
    for (say, counted) in [
        ((|| json(r#"{"Providers":[]}"#)) as fn() -> Said, "empty"),
        (|| lines(""), "empty"),
        (|| Said::status("404 Not Found"), "absent"),
        (|| Said::status("422 Unprocessable Entity"), "absent"),
        (|| Said::status("501 Not Implemented"), "unsupported"),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::new(vec![router.endpoint()]);
        for _ in 0..2 {
            assert!(bench.peers(20).await.is_empty());
        }
        assert_eq!(
            (bench.count(counted), bench.count("rests")),
            (2.0, 0.0),
            "{counted}"
        );
    }
}

#[tokio::test]
async fn a_router_that_fails_rests_and_is_asked_again_later() {
    type Say = fn() -> Said;
    for (say, counted) in [
        ((|| Said::status("500 Broken")) as Say, "status"),
        (
            || Said::status("302 Found\r\nlocation: http://127.0.0.1:1/"),
            "redirect",
        ),
        (|| Said::status("503 Later"), "busy"),
        (|| Said::status("429 Less\r\nretry-after: 1"), "busy"),
        (|| json("[]"), "broken"),
        (|| json(r#"{"Providers":[{}"#), "broken"),
        (|| Said::Whole(raw("content-length: 2", b"{}")), "broken"),
        (
            || Said::Whole(raw("content-type: text/html\r\ncontent-length: 2", b"{}")),
            "broken",
        ),
        (|| Said::Whole(b"what?\r\n\r\n".to_vec()), "broken"),
        (
            || {
                Said::Cut(raw(
                    "content-type: application/json\r\ncontent-length: 900",
                    b"{}",
                ))
            },
            "broken",
        ),
        (
            || json(&format!(r#"{{"Providers":[{}]}}"#, " ".repeat(3 << 20))),
            "too_large",
        ),
        (|| lines(&"x".repeat(70 << 10)), "too_large"),
        (|| lines(&" \n".repeat(2 << 20)), "too_large"),
        (|| Said::Nothing, "too_slow"),
        (
            || {
                Said::Drip(raw(
                    "content-type: application/json\r\ncontent-length: 100000",
                    b"",
                ))
            },
            "too_slow",
        ),
        (
            || Said::Drip(raw("content-type: application/x-ndjson", b"")),
            "too_slow",
        ),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::with(vec![router.endpoint()], impatient());
        let heard = bench.heard(20).await;
        assert!(heard.is_empty(), "{counted}: {heard:?}");
        assert_eq!(bench.count(counted), 1.0, "{counted}");
        assert!(bench.peers(20).await.is_empty());
        assert_eq!(bench.count("rests"), 1.0, "{counted}");
        assert_eq!(router.asked().len(), 1, "{counted}");
    }
}

#[tokio::test]
async fn nobody_there_is_a_failure_too() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let bench = Bench::new(vec![endpoint.parse().unwrap()]);
    assert!(bench.peers(20).await.is_empty());
    assert_eq!(bench.count("unreachable"), 1.0);
    // It is named until it answers.
    let mut ill = bench.routers.ill();
    assert_eq!(ill.len(), 1);
    for (seconds, ago) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h")] {
        ill[0].ago = Duration::from_secs(seconds);
        let told = format!("{endpoint}: no connection to it is made, {ago} ago");
        assert_eq!(ill[0].to_string(), told);
    }
    assert!(bench.routers.are_all_ill());
    bench.routers.0[0].is_well();
    assert!(bench.routers.ill().is_empty() && !bench.routers.are_all_ill());
}

#[tokio::test]
async fn an_error_about_one_question_makes_no_router_ill() {
    type Say = fn() -> Said;
    for (say, is_ill) in [
        ((|| Said::status("500 Broken")) as Say, false),
        (|| lines(&"x".repeat(70 << 10)), false),
        (
            || Said::status("302 Found\r\nlocation: http://127.0.0.1:1/"),
            true,
        ),
        (|| json("[]"), true),
        (|| Said::Nothing, true),
    ] {
        let router = Gateway::start(move |_| say()).await;
        let bench = Bench::with(vec![router.endpoint()], impatient());
        assert!(bench.peers(20).await.is_empty());
        assert_eq!(
            bench.routers.are_all_ill(),
            is_ill,
            "{:?}",
            bench.routers.ill()
        );
    }
}

#[tokio::test]
async fn of_too_many_records_the_first_are_taken_and_the_rest_is_not_read() {
    let all: Vec<PeerId> = (0..2000).map(|_| PeerId::random()).collect();
    let text: Vec<String> = all.iter().map(|peer| inside(*peer)).collect();
    let text = text.join("\n");
    let router = Gateway::start(move |_| lines(&text)).await;
    let bench = Bench::new(vec![router.endpoint()]);
    assert_eq!(bench.peers(3).await, all[..3]);
    assert_eq!(bench.peers(5000).await, all[..RECORDS_MAX]);
}

#[tokio::test]
async fn about_a_peer_only_itself_is_believed() {
    let (wanted, other) = (PeerId::random(), PeerId::random());
    let text = format!(r#"{{"Peers":[{},{}]}}"#, inside(other), inside(wanted));
    let router = Gateway::start(move |_| json(&text)).await;
    let bench = Bench::new(vec![router.endpoint()]);
    let heard: Vec<Heard> = bench.routers.peer(wanted).remove(0).collect().await;
    assert_eq!(peers(&heard), [wanted]);
    assert_eq!(
        router.asked()[0].target,
        format!("/routing/v1/peers/{wanted}")
    );
}

#[tokio::test]
async fn routers_outside_the_network_are_not_asked() {
    let names = [
        "http://192.0.2.1",
        "https://router.example",
        "http://127.0.0.1:1",
    ];
    let endpoints = names.iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(Bench::new(endpoints).routers.0.len(), 1);
}
