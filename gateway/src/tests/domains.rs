//! Domains: as sites of their own, and as labels of one.

use super::suite::{GATEWAY, HELLO, LISTED_FILE, LISTING, at, host, moved};
use super::support::Site;
use crate::config::Hosts;
use cairn_node::name::path::Root;

#[tokio::test]
async fn a_domain_is_one_label_where_certificates_or_the_operator_ask_for_it() {
    let mut site = Site::suite();
    let inlined = "en-wikipedia--on--ipfs-example-org";
    let path = "/ipns/en.wikipedia-on-ipfs.example.org/wiki/";
    let https = [("host", GATEWAY), ("x-forwarded-proto", "https")];
    let http = [("host", GATEWAY)];
    assert_eq!(
        moved(&site, path, &http).await,
        format!("http://{inlined}.ipns.{GATEWAY}/wiki/")
    );
    assert_eq!(
        moved(&site, path, &https).await,
        format!("https://{inlined}.ipns.{GATEWAY}/wiki/")
    );
    // Too long for one: still served where no certificate has to cover it.
    let long = format!("{}.example", "a-".repeat(25));
    let long = long.trim_end_matches('-');
    let location = moved(&site, &format!("/ipns/{long}"), &http).await;
    assert_eq!(location, format!("http://{long}.ipns.{GATEWAY}/"));
    let refused = site.ask("GET", &format!("/ipns/{long}"), &https).await;
    assert_eq!(refused.code(), 400);
    assert!(refused.text().contains("63"), "{}", refused.text());
    site.config.hosts = Hosts::from_iter([host("example.com", |_| {})]);
    assert_eq!(
        moved(&site, path, &http).await,
        format!("http://en.wikipedia-on-ipfs.example.org.ipns.{GATEWAY}/wiki/")
    );
    assert_eq!(
        moved(&site, path, &https).await,
        format!("https://{inlined}.ipns.{GATEWAY}/wiki/")
    );
}

#[tokio::test]
async fn a_domain_is_served_as_one_label_and_as_itself() {
    let mut site = Site::suite();
    for label in ["dnslink-test.example.org", "dnslink--test-example-org"] {
        let answer = at(&site, &format!("{label}.ipns.{GATEWAY}"), "/").await;
        assert_eq!((answer.code(), answer.text()), (200, "hello\n"), "{label}");
        assert_eq!(
            answer.header("x-ipfs-path"),
            "/ipns/dnslink-test.example.org/"
        );
    }
    // Neither is bound: what was probably meant is named.
    let answer = at(&site, &format!("no-such-example-org.ipns.{GATEWAY}"), "/").await;
    assert_eq!(answer.code(), 500);
    assert!(
        answer.text().contains("/ipns/no.such.example.org"),
        "{}",
        answer.text()
    );
    // A name of one label that has hyphens itself.
    let literal = Root::name("a-b").unwrap();
    site.names.leads.insert(literal, format!("/ipfs/{HELLO}"));
    assert_eq!(
        at(&site, &format!("a-b.ipns.{GATEWAY}"), "/").await.text(),
        "hello\n"
    );
    // A domain with a label that reads as ours.
    let sneaky = Root::name("a.ipns.example.org").unwrap();
    site.names.leads.insert(sneaky, format!("/ipfs/{HELLO}"));
    let host = format!("a.ipns.example.org.ipns.{GATEWAY}");
    assert_eq!(at(&site, &host, "/").await.text(), "hello\n");
}

#[tokio::test]
async fn a_domain_with_a_dnslink_is_a_site() {
    let mut site = Site::suite();
    let host = "dnslink-dir-listing.example.org";
    let top = at(&site, host, "/").await;
    assert!(top.text().contains("Index of") && !top.text().contains(">..</a>"));
    assert_eq!(
        moved(&site, "/%C4%85/%C4%99", &[("host", host)]).await,
        "/%C4%85/%C4%99/"
    );
    let page = at(&site, host, "/%C4%85/%C4%99/").await;
    assert!(page.header("etag").contains("\"DirIndex-"));
    assert_eq!(page.header("x-ipfs-path"), format!("/ipns/{host}/ą/ę/"));
    for part in [
        "<a href=\"/%C4%85/%C4%99/..\">..</a>".to_owned(),
        format!(
            "/ipns/<a href=\"//{host}/\">{host}</a>/<a href=\"//{host}/%C4%85\">ą</a>/<a href=\"//{host}/%C4%85/%C4%99\">ę</a>"
        ),
        "<a href=\"/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>".to_owned(),
        format!(
            "<a class=\"ipfs-hash\" translate=\"no\" href=\"https://cid.ipfs.tech/#{LISTED_FILE}\" target=\"_blank\" rel=\"noreferrer noopener\">"
        ),
    ] {
        assert!(page.text().contains(&part), "{part}\n{}", page.text());
    }
    // With its port, and with what a path gateway has at such a path.
    let answer = at(&site, &format!("{host}:8080"), "/ipfs/file.txt").await;
    assert_eq!(
        (answer.code(), answer.text()),
        (200, "I am a txt file in confusing /ipfs dir\n")
    );
    assert_eq!(at(&site, host, &format!("/ipfs/{HELLO}")).await.code(), 404);
    // What the record says stands before what was asked for.
    let below = at(
        &site,
        "sub-path.example.org",
        "/%C4%99/file-%C5%BA%C5%82.txt",
    )
    .await;
    assert_eq!(below.text(), "I am a txt file on path with utf8\n");
    let forwarded = [("host", "10.0.0.1"), ("x-forwarded-host", host)];
    assert_eq!(
        site.ask("GET", "/api/file.txt", &forwarded).await.code(),
        200
    );
    site.config.dnslink = false;
    assert_eq!(at(&site, host, "/api/file.txt").await.code(), 404);
    assert_eq!(at(&site, host, &format!("/ipfs/{HELLO}")).await.code(), 200);
}

#[tokio::test]
async fn a_known_host_with_a_dnslink_has_both() {
    let mut site = Site::suite();
    let own = Root::name("example.com").unwrap();
    site.names.leads.insert(own, format!("/ipfs/{LISTING}"));
    assert_eq!(at(&site, GATEWAY, "/api/file.txt").await.code(), 200);
    assert!(at(&site, GATEWAY, "/").await.text().contains("Index of"));
    assert_eq!(
        at(&site, GATEWAY, &format!("/ipfs/{HELLO}")).await.code(),
        301
    );
}

#[tokio::test]
async fn while_it_is_not_known_whose_a_host_is_nothing_of_others_is_served_there() {
    let mut site = Site::suite();
    site.names.fails = true;
    let path = format!("/ipfs/{HELLO}");
    for path in [path.as_str(), "/", "/x"] {
        let answer = at(&site, "site.example", path).await;
        assert_eq!(answer.code(), 503, "{path}");
        assert_eq!(answer.header("retry-after"), "10");
        assert!(answer.text().contains("gateway.hosts"), "{}", answer.text());
        let cached = [
            ("host", "site.example"),
            ("cache-control", "only-if-cached"),
        ];
        assert_eq!(site.ask("GET", path, &cached).await.code(), 412);
    }
    // What is known needs nobody.
    assert_eq!(at(&site, "dnslink-test.example.org", "/").await.code(), 200);
    assert_eq!(at(&site, "127.0.0.1", &path).await.code(), 200);
    site.config.dnslink = false;
    assert_eq!(at(&site, "site.example", &path).await.code(), 200);
}

#[tokio::test]
async fn a_domain_that_is_denied_is_denied_as_a_host_too() {
    let mut site = Site::suite();
    site.names.denied = vec!["/ipns/dnslink-test.example.org".to_owned()];
    assert_eq!(at(&site, "dnslink-test.example.org", "/").await.code(), 451);
}
