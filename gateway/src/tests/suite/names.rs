//! Records and names of the suite.

use super::super::support::{Site, put};
use super::{CACHE, ED25519, RSA, at, records};
use cairn_node::ipns;

/// Those that do not hold, with what is wrong with them.
const REFUSED: [(&str, &str); 3] = [
    ("_v1", "signature"),
    ("_v1-v2-broken-v1-value", "value"),
    ("_v1-v2-broken-signature-v2", "signature"),
];
const HELD: [(&str, &str); 3] = [
    ("_v2", "v2-only record"),
    ("_v1-v2", "v1+v2 record"),
    (
        "_v1-v2-broken-signature-v1",
        "v1+v2 with broken signature v1",
    ),
];
const KIND: &str = "application/vnd.ipfs.ipns-record";

fn is_refused(name: &str) -> bool {
    REFUSED.iter().any(|(about, _)| name.ends_with(about))
}

#[tokio::test]
async fn every_record_that_holds_is_given_as_it_was_signed() {
    let site = Site::suite();
    let mut given = 0;
    for (name, bytes) in records() {
        let key = ipns::name(name.split('_').next().unwrap()).unwrap();
        let path = format!("/ipns/{}", ipns::text(&key));
        let query = site.get(&format!("{path}?format=ipns-record")).await;
        let accept = site.ask("GET", &path, &[("accept", KIND)]).await;
        for answer in [query, accept] {
            if is_refused(&name) {
                assert_eq!(answer.code(), 500, "{name}");
                continue;
            }
            given += 1;
            assert_eq!((answer.code(), answer.bytes()), (200, &bytes[..]), "{name}");
            assert_eq!(answer.header("content-type"), KIND);
            assert_eq!(answer.header("content-length"), bytes.len().to_string());
            assert!(
                answer
                    .header("content-disposition")
                    .starts_with("attachment; filename=\"")
            );
            let etag = answer.header("etag");
            assert!(
                etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'),
                "{etag}"
            );
        }
    }
    assert_eq!(given, 2 * 9);
}

#[tokio::test]
async fn a_record_that_does_not_hold_is_taken_from_nobody_and_leads_nowhere() {
    let mut site = Site::suite();
    site.config.routing_put = true;
    let handler = site.handler_with(Some(std::sync::Arc::new(
        super::super::routing::Known::default(),
    )));
    for (name, bytes) in records() {
        let text = name.split('_').next().unwrap();
        let path = format!("/routing/v1/ipns/{text}");
        let answer = put(&handler, &path, &[("content-type", KIND)], &bytes).await;
        let code = if is_refused(&name) { 400 } else { 200 };
        assert_eq!(answer.code(), code, "{name}: {}", answer.text());
    }
    for (about, why) in REFUSED {
        let (name, bytes) = records()
            .into_iter()
            .find(|(name, _)| name.ends_with(about))
            .unwrap();
        let text = name.split('_').next().unwrap();
        let path = format!("/routing/v1/ipns/{text}");
        let answer = put(&handler, &path, &[("content-type", KIND)], &bytes).await;
        assert!(answer.text().contains(why), "{about}: {}", answer.text());
        let asked = site.get(&format!("/ipns/{text}")).await;
        assert_eq!(asked.code(), 500, "{about}");
        assert!(!asked.text().contains("broken"), "nothing of what it says");
    }
}

#[tokio::test]
async fn names_of_records_that_hold_lead_to_what_they_say() {
    let site = Site::suite();
    for (about, text) in HELD {
        let (name, _) = records()
            .into_iter()
            .find(|(name, _)| name.ends_with(about))
            .unwrap();
        let path = format!("/ipns/{}", name.split('_').next().unwrap());
        let answer = site.get(&path).await;
        assert_eq!((answer.code(), answer.text()), (200, text), "{about}");
        assert!(!answer.header("cache-control").contains("immutable"));
    }
    // A value with a path of its own.
    let name = "k51qzi5uqu5djokp3m1keo36hoxtd6u3a1d2rg1camf6al7p3huy63dojlm57c";
    let answer = site
        .get(&format!("/ipns/{name}/root3/root4/index.html"))
        .await;
    assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
    assert_eq!(answer.header("x-ipfs-roots"), CACHE.join(","));
    let answer = at(
        &site,
        "dnslink-subpath.example.org",
        "/root3/root4/index.html",
    )
    .await;
    assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
    assert_eq!(
        at(&site, "dnslink-subpath.example.org", "/root2/")
            .await
            .code(),
        404
    );
}

#[tokio::test]
async fn a_name_that_is_no_cid_in_base36_moves_there_before_anybody_is_asked() {
    let site = Site::suite();
    for (name, usual) in [
        (
            "12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK",
            "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8",
        ),
        (
            "QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2",
            "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger",
        ),
    ] {
        for headers in [&[][..], &[("cache-control", "only-if-cached")]] {
            let answer = site
                .ask("GET", &format!("/ipns/{name}/root2/"), headers)
                .await;
            assert_eq!(answer.code(), 302);
            assert_eq!(answer.header("location"), format!("/ipns/{usual}/root2/"));
        }
        assert_eq!(site.get(&format!("/ipns/{usual}/root2/")).await.code(), 500);
    }
    for name in [ED25519, RSA] {
        let usual = ipns::text(&name.parse().unwrap());
        assert_eq!(site.get(&format!("/ipns/{usual}")).await.text(), "hello\n");
    }
}
