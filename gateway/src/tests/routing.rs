//! Delegated routing, over lookups made by hand.

use super::support::{Answer, Site, ask};
use crate::handler::Handler;
use crate::routing::Lookups;
use bytes::Bytes;
use cairn_node::routing::{Record, RoutingError};
use cairn_node::{PeerId, ipns};
use cairn_store::{Cid, cid};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use http::Request;
use http_body_util::{BodyExt, Empty};
use std::sync::{Arc, Mutex};

/// A name, and the record that is to be kept of it.
type Put = (PeerId, Vec<u8>);

/// What is known, and how it ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) records: Vec<Record>,
    pub(super) error: Option<RoutingError>,
    /// Whether it never ends.
    pub(super) hangs: bool,
    pub(super) name: Option<ipns::Record>,
    /// What it is told to keep, and how many peers take it.
    pub(super) kept: Arc<Mutex<Vec<Put>>>,
    pub(super) takers: usize,
}

impl Lookups for Known {
    fn providers(&self, _: Cid, limit: usize) -> BoxStream<'static, Result<Record, RoutingError>> {
        let records = self.records.clone().into_iter().take(limit).map(Ok);
        let all = stream::iter(records.chain(self.error.clone().map(Err)));
        match self.hangs {
            true => all.chain(stream::pending()).boxed(),
            false => all.boxed(),
        }
    }

    fn peer(&self, peer: PeerId) -> BoxFuture<'static, Result<Option<Record>, RoutingError>> {
        let found = self.records.iter().find(|record| record.peer == peer);
        let found = found
            .cloned()
            .map_or(self.error.clone().map_or(Ok(None), Err), |one| {
                Ok(Some(one))
            });
        async move { found }.boxed()
    }

    fn nearest(&self, _: Vec<u8>) -> BoxFuture<'static, Result<Vec<Record>, RoutingError>> {
        let found = self.error.clone().map_or(Ok(self.records.clone()), Err);
        async move { found }.boxed()
    }

    fn name(&self, _: PeerId) -> BoxFuture<'static, Result<Option<ipns::Record>, RoutingError>> {
        let (name, hangs) = (self.name.clone(), self.hangs);
        async move {
            match hangs {
                true => std::future::pending().await,
                false => Ok(name),
            }
        }
        .boxed()
    }

    fn keep(
        &self,
        name: PeerId,
        record: Vec<u8>,
    ) -> BoxFuture<'static, Result<usize, RoutingError>> {
        let this = self.clone();
        async move {
            this.kept.lock().unwrap().push((name, record));
            match (this.hangs, this.error) {
                (true, _) => std::future::pending().await,
                (false, Some(error)) => Err(error),
                (false, None) => Ok(this.takers),
            }
        }
        .boxed()
    }
}

impl Known {
    fn of(records: &[Record]) -> Self {
        Self {
            records: records.to_vec(),
            ..Self::default()
        }
    }

    pub(super) fn handler(self) -> Handler<Arc<Site>> {
        Site::new().handler_with(Some(Arc::new(self)))
    }

    pub(super) async fn get(self, path: &str, accept: &str) -> Answer {
        ask(&self.handler(), "GET", path, &[("accept", accept)]).await
    }
}

fn record(port: u16) -> Record {
    Record {
        peer: PeerId::random(),
        addresses: vec![format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()],
        protocols: Vec::new(),
    }
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const WANTED: &str =
    "/routing/v1/providers/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
const FOUND: &str = "public, max-age=300, stale-while-revalidate=172800, stale-if-error=172800";
pub(super) const EMPTY: &str =
    "public, max-age=15, stale-while-revalidate=172800, stale-if-error=172800";

#[tokio::test]
async fn providers_are_told_as_a_list_and_as_lines() {
    let all = [record(1), record(2)];
    let list = format!(
        r#"{{"Providers":[{},{}]}}"#,
        all[0].to_json(),
        all[1].to_json()
    );
    let lines = format!("{}\n{}\n", all[0].to_json(), all[1].to_json());
    for (accept, kind, text) in [
        (JSON, JSON, &list),
        ("*/*", JSON, &list),
        ("text/html, application/*;q=0.1", JSON, &list),
        ("application/x-ndjson;q=0.5, application/json", JSON, &list),
        (LINES, LINES, &lines),
        ("application/json, Application/X-NDJSON", LINES, &lines),
        (
            "application/x-ndjson, application/json;q=0.5",
            LINES,
            &lines,
        ),
    ] {
        let answer = Known::of(&all).get(WANTED, accept).await;
        assert_eq!(
            (answer.code(), answer.text()),
            (200, text.as_str()),
            "{accept}"
        );
        assert_eq!(answer.header("content-type"), kind, "{accept}");
        assert_eq!(answer.header("cache-control"), FOUND);
        assert_eq!(answer.header("vary"), "Accept");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_ne!(answer.header("last-modified"), "");
    }
    let plain = ask(&Known::of(&all).handler(), "GET", WANTED, &[]).await;
    assert_eq!(plain.text(), list);
}

#[tokio::test]
async fn nothing_found_is_an_answer() {
    let errors = [
        None,
        Some(RoutingError::NoPeers),
        Some(RoutingError::LookupTooSlow),
    ];
    let peer = PeerId::random();
    for error in errors {
        for (path, list) in [
            (WANTED.to_owned(), "Providers"),
            (format!("/routing/v1/peers/{peer}"), "Peers"),
            (format!("/routing/v1/dht/closest/peers/{peer}"), "Peers"),
        ] {
            let known = Known {
                error: error.clone(),
                ..Known::default()
            };
            let answer = known.clone().get(&path, JSON).await;
            assert_eq!(
                (answer.code(), answer.text()),
                (200, format!(r#"{{"{list}":[]}}"#).as_str())
            );
            assert_eq!(answer.header("cache-control"), EMPTY);
            let answer = known.get(&path, LINES).await;
            assert_eq!((answer.code(), answer.text()), (200, ""));
            assert_eq!(answer.header("cache-control"), EMPTY);
        }
    }
    let stopping = Known {
        error: Some(RoutingError::Stopping),
        ..Known::default()
    };
    assert_eq!(stopping.get(WANTED, JSON).await.code(), 503);
    // It is in its own name, so nobody is asked.
    let known = Known::of(&[record(1)]);
    let answer = known.get("/routing/v1/providers/bafkqaaa", JSON).await;
    assert_eq!(answer.text(), r#"{"Providers":[]}"#);
}

#[tokio::test]
async fn a_peer_is_found_by_either_form_of_its_name() {
    let all = [record(1), record(2)];
    let peer = all[1].peer;
    let hash = cid::Multihash::from_bytes(&peer.to_bytes()).unwrap();
    let named = Cid::new_v1(cid::LIBP2P_KEY, hash);
    for name in [peer.to_string(), named.to_string()] {
        let path = format!("/routing/v1/peers/{name}");
        let answer = Known::of(&all).get(&path, JSON).await;
        assert_eq!(
            answer.text(),
            format!(r#"{{"Peers":[{}]}}"#, all[1].to_json())
        );
        // The filters hold for peers as they do for providers.
        let none = Known::of(&all)
            .get(&format!("{path}?filter-addrs=quic-v1"), JSON)
            .await;
        assert_eq!(none.text(), r#"{"Peers":[]}"#);
    }
}

#[tokio::test]
async fn the_nearest_peers_of_a_key_are_told_in_order_and_whole() {
    let all = [record(1), record(2)];
    for key in [PeerId::random().to_string(), "bafkqaaa".to_owned()] {
        let path = format!("/routing/v1/dht/closest/peers/{key}?filter-addrs=quic-v1");
        let answer = Known::of(&all).get(&path, LINES).await;
        let lines = format!("{}\n{}\n", all[0].to_json(), all[1].to_json());
        assert_eq!(answer.text(), lines);
    }
}

#[tokio::test]
async fn filters_leave_out_before_the_limit_counts() {
    let mut all: Vec<Record> = (1..200).map(record).collect();
    let mut wanted = record(200);
    wanted
        .addresses
        .push("/ip4/192.0.2.1/udp/1/quic-v1".parse().unwrap());
    wanted.protocols.push("transport-bitswap".to_owned());
    all.push(wanted.clone());
    let path = format!("{WANTED}?filter-addrs=%21tcp,quic-v1&filter-protocols=transport-Bitswap,x");
    let answer = Known::of(&all).get(&path, JSON).await;
    wanted.addresses.remove(0);
    assert_eq!(
        answer.text(),
        format!(r#"{{"Providers":[{}]}}"#, wanted.to_json())
    );
    let lists = Known::of(&all).get(WANTED, JSON).await;
    assert_eq!(lists.text().matches("Schema").count(), 20);
    let lines = Known::of(&all).get(WANTED, LINES).await;
    assert_eq!(lines.text().lines().count(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_never_ends_is_ended_with_what_was_found() {
    let known = Known {
        hangs: true,
        ..Known::of(&[record(1)])
    };
    let line = known.records[0].to_json();
    for (accept, text) in [
        (JSON, format!(r#"{{"Providers":[{line}]}}"#)),
        (LINES, format!("{line}\n")),
    ] {
        let answer = known.clone().get(WANTED, accept).await;
        assert_eq!((answer.code(), answer.text()), (200, text.as_str()));
    }
    let nothing = Known {
        hangs: true,
        ..Known::default()
    };
    assert_eq!(nothing.clone().get(WANTED, LINES).await.text(), "");
    let name = format!("/routing/v1/ipns/{}", PeerId::random());
    assert_eq!(
        nothing.get(&name, "*/*").await.header("content-type"),
        "text/plain; charset=utf-8"
    );
}

#[tokio::test]
async fn lines_come_while_the_lookup_goes_on_and_lookups_have_a_bound() {
    let known = Known {
        hangs: true,
        ..Known::of(&[record(1)])
    };
    let handler = known.handler();
    let open = || async {
        let request = Request::get(WANTED).header("accept", LINES);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        handler.answer(request).await
    };
    let mut answers = Vec::new();
    loop {
        let mut answer = open().await;
        if answer.status() != 200 {
            assert_eq!(answer.status(), 429);
            assert!(answer.headers().contains_key("retry-after"));
            break;
        }
        let first = answer.body_mut().frame().await.unwrap().unwrap();
        assert!(first.into_data().unwrap().ends_with(b"\n"));
        answers.push(answer);
    }
    assert_eq!(answers.len(), 32);
    // Whoever hangs up makes room.
    answers.pop();
    assert_eq!(open().await.status(), 200);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_with_a_reason() {
    let peer = PeerId::random();
    let list = WANTED.strip_prefix("/routing/v1").unwrap();
    for (method, path, accept, code, told) in [
        ("GET", "", JSON, 400, "/routing/v1/providers/<cid>"),
        ("GET", "/", JSON, 400, "there is no"),
        ("GET", "/provider/bafkqaaa", JSON, 400, "there is no"),
        ("GET", "/providers/bafkqaaa/x", JSON, 400, "there is no"),
        ("GET", "/dht/closest/peers", JSON, 400, "there is no"),
        ("GET", "/providers/", JSON, 422, "invalid cid"),
        ("GET", "/providers/nonsense", JSON, 422, "invalid cid"),
        ("GET", "/providers/%00", JSON, 422, "invalid cid"),
        ("GET", "/peers/bafkqaaa", JSON, 422, "peer ID"),
        ("GET", "/dht/closest/peers/x", JSON, 422, "invalid cid"),
        ("GET", "/ipns/example.com", "*/*", 422, "peer ID"),
        ("GET", list, "text/html", 406, "application/json"),
        ("GET", list, "application/json;q=0", 406, "x-ndjson"),
        ("POST", list, JSON, 405, "GET, HEAD or OPTIONS"),
        ("PUT", list, JSON, 501, "but the records of names"),
    ] {
        let (handler, path) = (Known::default().handler(), format!("/routing/v1{path}"));
        let answer = ask(&handler, method, &path, &[("accept", accept)]).await;
        assert_eq!(answer.code(), code, "{method} {path} {accept}");
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    let many = format!("{WANTED}?filter-addrs={}", "a,".repeat(100));
    assert_eq!(Known::default().get(&many, JSON).await.code(), 422);
    let name = format!("/routing/v1/ipns/{peer}");
    for headers in [&[][..], &[("accept", JSON)]] {
        let answer = ask(&Known::default().handler(), "GET", &name, headers).await;
        assert_eq!(answer.code(), 406);
        assert!(
            answer.text().contains("application/vnd.ipfs.ipns-record"),
            "{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn head_looks_nothing_up_and_options_tells_browsers_that_they_may() {
    let known = Known {
        hangs: true,
        ..Known::default()
    };
    let handler = known.handler();
    let head = ask(&handler, "HEAD", WANTED, &[("accept", LINES)]).await;
    assert_eq!(
        (head.code(), head.header("content-type"), head.text()),
        (200, LINES, "")
    );
    let wrong = ask(&handler, "HEAD", "/routing/v1/providers/x", &[]).await;
    assert_eq!((wrong.code(), wrong.text()), (422, ""));
    let options = ask(&handler, "OPTIONS", WANTED, &[]).await;
    assert_eq!(options.code(), 200);
    assert!(
        options
            .header("access-control-allow-methods")
            .contains("GET")
    );
}

#[tokio::test]
async fn a_gateway_without_it_has_nothing_there_and_one_without_a_network_says_so() {
    let mut site = Site::new();
    assert_eq!(site.get(WANTED).await.code(), 501);
    site.config.routing = false;
    assert_eq!(site.get(WANTED).await.code(), 404);
    assert_eq!(site.get("/routing/v1x").await.code(), 404);
}
