//! Names, by a node that has a router beside the DHT.

use super::*;
use crate::http::testing::{Answer, Gateway, raw};
use crate::ipns;
use crate::routing::routers::Routers;
use std::sync::Mutex as Lock;

/// A router that keeps whatever it is handed.
async fn router(first: Option<Vec<u8>>) -> Gateway {
    let kept = Lock::new(first);
    Gateway::start(move |asked| {
        let mut kept = kept.lock().unwrap();
        match (asked.method.as_str(), &*kept) {
            ("PUT", _) => {
                *kept = Some(asked.body.clone());
                Answer::status("200 OK")
            }
            (_, None) => Answer::Whole(raw(
                "content-type: text/plain\r\ncontent-length: 4",
                b"none",
            )),
            (_, Some(record)) => {
                let kind = "application/vnd.ipfs.ipns-record";
                let head = format!("content-type: {kind}\r\ncontent-length: {}", record.len());
                Answer::Whole(raw(&head, record))
            }
        }
    })
    .await
}

/// The node's routing with this router beside it.
fn with(node: &TestNode, router: &Gateway, tasks: &Tasks) -> Routing {
    let registry = prometheus::Registry::new();
    let endpoints = vec![router.endpoint()];
    let routers = Routers::new(Network::Local, endpoints, tasks, &registry).unwrap();
    node.routing.clone().beside(routers)
}

fn numbered(keys: &Keypair, sequence: u64) -> Vec<u8> {
    let says = ipns::tests::Says {
        sequence,
        ..ipns::tests::Says::default()
    };
    ipns::tests::record(keys, &says)
}

#[tokio::test]
async fn a_router_is_enough_to_keep_a_name_and_to_find_it() {
    let (keys, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let key = ipns::key(&keys.public().to_peer_id());
    let router = router(None).await;
    let [giver, asker] = [TestNode::start(&[TCP]).await, TestNode::start(&[TCP]).await];
    let [giver, asker] = [&giver, &asker].map(|node| with(node, &router, &tasks));
    assert_eq!(
        asker.value(key.clone()).await.unwrap(),
        None,
        "nobody to ask is no error"
    );
    let record = numbered(&keys, 1);
    assert_eq!(giver.keep(key.clone(), record.clone()).await.unwrap(), 1);
    assert_eq!(asker.value(key.clone()).await.unwrap(), Some(record));
    // Its own word is not asked for when somebody else asks.
    let own = asker.value_in_dht(key.clone()).await;
    assert!(matches!(own, Err(RoutingError::NoPeers)), "{own:?}");
    let garbage = giver.keep(key, vec![1]).await;
    assert!(matches!(garbage, Err(RoutingError::InvalidValue(_))));
    let puts = router
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "PUT");
    assert_eq!(puts.count(), 1, "what is no record is handed to nobody");
    tasks.abort();
}

#[tokio::test]
async fn the_newest_record_is_found_whoever_keeps_it() {
    let (keys, tasks) = (Keypair::generate_ed25519(), Tasks::new());
    let key = ipns::key(&keys.public().to_peer_id());
    let mut hub = TestNode::start(&[TCP]).await;
    let mut one = TestNode::start(&[TCP]).await;
    one.join(&mut hub).await;
    let [first, second, third] = [1, 2, 3].map(|sequence| numbered(&keys, sequence));
    hub.routing.keep(key.clone(), second.clone()).await.unwrap();
    let behind = router(Some(first.clone())).await;
    let found = with(&one, &behind, &tasks).value(key.clone()).await;
    assert_eq!(found.unwrap(), Some(second.clone()));
    let ahead = router(Some(third.clone())).await;
    let found = with(&one, &ahead, &tasks).value(key.clone()).await;
    assert_eq!(found.unwrap(), Some(third));
    // That a newer one is known is told, although the router takes what it is handed.
    let refused = with(&one, &behind, &tasks)
        .keep(key.clone(), first.clone())
        .await;
    assert!(
        matches!(refused, Err(RoutingError::NewerValueKept)),
        "{refused:?}"
    );
    tasks.abort();
}

#[tokio::test]
async fn who_knows_a_newer_record_asks_nobody_to_keep_an_older_one() {
    let keys = Keypair::generate_ed25519();
    let key = ipns::key(&keys.public().to_peer_id());
    let node = TestNode::start(&[TCP]).await;
    let [first, second] = [1, 2].map(|sequence| numbered(&keys, sequence));
    let routing = &node.routing;
    let alone = routing.keep(key.clone(), second.clone()).await;
    assert!(matches!(alone, Err(RoutingError::NoPeers)), "{alone:?}");
    let older = routing.keep(key.clone(), first).await;
    assert!(
        matches!(older, Err(RoutingError::NewerValueKept)),
        "{older:?}"
    );
    // The same again is no older one.
    let again = routing.keep(key, second).await;
    assert!(matches!(again, Err(RoutingError::NoPeers)), "{again:?}");
}
