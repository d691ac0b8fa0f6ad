//! The name that the gateway is called by: a host of its own for each root, sites of domains, and redirects to them.
//! The cases are those of the public suite on its own content, and what it leaves out.

use super::support::{Answer, Site};
use crate::config::{Host, HostName, Hosts, Space};
use cairn_node::ipns;
use cairn_node::name::path::Root;
use cairn_store::cid::DAG_PB;
use cairn_store::{Cid, cid};
use multibase::Base;

const HELLO: &str = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";
const HELLO_V0: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
const HELLO_V0_AS_V1: &str = "bafybeiffndsajwhk3lwjewwdxqntmjm4b5wxaaanokonsggenkbw6slwk4";
const ED25519: &str = "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d";
const RSA: &str = "QmVujd5Vb7moysJj8itnGufN7MEtPRCNHkKpNuA4onsRa3";
const LISTING: &str = "bafybeig6ka5mlwkl4subqhaiatalkcleo4jgnr3hqwvpmsqfca27cijp3i";
const LISTED_FILE: &str = "bafkreialihlqnf5uwo4byh4n3cmwlntwqzxxs2fg5vanqdi3d7tb2l5xkm";
const GATEWAY: &str = "example.com:8080";

/// The suite's content and names, with the hosts that it is run against.
fn suite() -> Site {
    let mut site = Site::new();
    site.car("subdomain.car");
    site.car("listing.car");
    site.config.hosts = Hosts::from_iter([
        host("localhost", |host| host.inline_dnslink = true),
        host("example.com", |host| host.inline_dnslink = true),
    ]);
    for (name, to) in [
        (ED25519, format!("/ipfs/{HELLO}")),
        (RSA, format!("/ipfs/{HELLO}")),
        ("dnslink-test.example.org", format!("/ipfs/{HELLO}")),
        (
            "dnslink-dir-listing.example.org",
            format!("/ipfs/{LISTING}"),
        ),
        ("sub-path.example.org", format!("/ipfs/{LISTING}/ą")),
    ] {
        site.names.leads.insert(Root::name(name).unwrap(), to);
    }
    site
}

fn host(name: &str, change: impl FnOnce(&mut Host)) -> (HostName, Host) {
    let mut host = Host::default();
    change(&mut host);
    (name.parse().unwrap(), host)
}

async fn at(site: &Site, host: &str, path: &str) -> Answer {
    site.ask("GET", path, &[("host", host)]).await
}

/// Asks, and tells where it is sent.
async fn moved(site: &Site, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = site.ask("GET", path, headers).await;
    assert_eq!(answer.code(), 301, "{path} {headers:?}: {}", answer.text());
    answer.header("location").to_owned()
}

fn testdir(site: &Site) -> Cid {
    let of_root = |block: &cairn_store::Block| {
        let node = cairn_store::dag::pb::decode(block.data()).ok()?;
        let link = node
            .links
            .iter()
            .find(|link| link.name.as_deref() == Some("testdirlisting"))?;
        Some(link.cid)
    };
    site.here.values().find_map(of_root).unwrap()
}

#[tokio::test]
async fn a_path_on_a_known_host_moves_to_a_host_of_its_own() {
    let site = suite();
    let own = |root: &str, rest: &str| format!("http://{root}.ipfs.{GATEWAY}/{rest}");
    let percent = format!(
        "/ipfs/{HELLO}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt?a=b%20c&filename=x"
    );
    for (path, location) in [
        (format!("/ipfs/{HELLO}/"), own(HELLO, "")),
        (format!("/ipfs/{HELLO}"), own(HELLO, "")),
        (format!("/ipfs/{HELLO_V0}/"), own(HELLO_V0_AS_V1, "")),
        (
            percent,
            own(
                HELLO,
                "Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt?a=b%20c&filename=x",
            ),
        ),
        // However it is written, it is never served here.
        (format!("/%69pfs/{HELLO}"), own(HELLO, "")),
        (format!("/ipfs//{HELLO}/a"), own(HELLO, "a")),
    ] {
        assert_eq!(moved(&site, &path, &[("host", GATEWAY)]).await, location);
    }
    // Before anything is looked for.
    let absent = site.ask(
        "HEAD",
        "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/x",
        &[("host", GATEWAY)],
    );
    assert_eq!(absent.await.code(), 301);
}

#[tokio::test]
async fn what_a_proxy_in_front_says_decides_scheme_and_host() {
    let site = suite();
    let path = format!("/ipfs/{HELLO}");
    let plain = at(&site, "fake.domain.com", &path).await;
    assert_eq!((plain.code(), plain.text()), (200, "hello\n"));
    for (proto, scheme) in [
        (None, "http"),
        (Some("https"), "https"),
        (Some("http"), "http"),
    ] {
        for host in ["fake.domain.com", GATEWAY] {
            let mut headers = vec![("host", host), ("x-forwarded-host", GATEWAY)];
            headers.extend(proto.map(|proto| ("x-forwarded-proto", proto)));
            assert_eq!(
                moved(&site, &path, &headers).await,
                format!("{scheme}://{HELLO}.ipfs.{GATEWAY}/")
            );
        }
    }
    let listed = [
        ("host", "a"),
        ("x-forwarded-host", "example.com, b"),
        ("x-forwarded-proto", "https, http"),
    ];
    assert_eq!(
        moved(&site, &path, &listed).await,
        format!("https://{HELLO}.ipfs.example.com/")
    );
}

#[tokio::test]
async fn a_wrong_root_is_told_before_any_redirect() {
    let site = suite();
    let answer = at(&site, GATEWAY, "/ipfs/QmInvalidCID").await;
    assert_eq!(answer.code(), 400);
    assert!(
        answer
            .text()
            .contains(r#"invalid path "/ipfs/QmInvalidCID""#),
        "{}",
        answer.text()
    );
    let of_key = ipns::text(&ED25519.parse().unwrap());
    assert_eq!(
        at(&site, GATEWAY, &format!("/ipfs/{of_key}")).await.code(),
        400
    );
    assert_eq!(at(&site, GATEWAY, "/ipns/exam%20ple.org").await.code(), 400);
    assert_eq!(at(&site, GATEWAY, "/ipfs/%zz").await.code(), 400);
}

#[tokio::test]
async fn a_host_of_its_own_serves_one_root_and_nothing_else() {
    let site = suite();
    let dir = testdir(&site);
    let hello = format!("{HELLO}.ipfs.{GATEWAY}");
    let answer = at(&site, &hello, "/").await;
    assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
    assert_eq!(answer.header("x-ipfs-path"), format!("/ipfs/{HELLO}/"));
    assert_eq!(
        at(&site, &hello, &format!("/ipfs/{HELLO}/")).await.code(),
        404
    );
    let dir = format!("{dir}.ipfs.{GATEWAY}");
    for (path, text) in [
        ("/ipfs/file.txt", "I am a txt file\n"),
        ("/api/file.txt", "I am a txt file\n"),
        ("/ipfs/ipns/bar", "text-file-content\n"),
        ("//hello", "hello\n"),
    ] {
        let answer = at(&site, &dir, path).await;
        assert_eq!((answer.code(), answer.text()), (200, text), "{path}");
    }
    // Whatever a path gateway has at such a path.
    for (path, code) in [
        (format!("/ipfs/{HELLO}"), 404),
        ("/routing/v1/providers/bafkqaaa".to_owned(), 404),
        ("/ipns/dnslink-test.example.org".to_owned(), 404),
        ("/ipfs/?uri=ipfs://bafkqaaa".to_owned(), 200),
    ] {
        assert_eq!(at(&site, &dir, &path).await.code(), code, "{path}");
        assert_eq!(at(&site, &hello, &path).await.code(), 404, "{path}");
    }
    assert_eq!(at(&site, &dir, "/..").await.code(), 400);
}

#[tokio::test]
async fn a_folder_on_a_host_of_its_own_links_within_it() {
    let site = suite();
    let host = format!("{LISTING}.ipfs.{GATEWAY}");
    let top = at(&site, &host, "/").await;
    assert!(top.text().contains("Index of") && !top.text().contains(">..</a>"));
    assert_eq!(
        moved(&site, "/%C4%85/%c4%99?x=y", &[("host", &host)]).await,
        "/%C4%85/%C4%99/?x=y"
    );
    let page = at(&site, &host, "/%C4%85/%C4%99/").await;
    assert!(page.header("etag").contains("\"DirIndex-"));
    let gateway = format!("//{GATEWAY}/ipfs");
    for part in [
        "<a href=\"/%C4%85/%C4%99/..\">..</a>".to_owned(),
        format!(
            "/ipfs/<a href=\"{gateway}/{LISTING}\">{LISTING}</a>/<a href=\"{gateway}/{LISTING}/%C4%85\">ą</a>/\
             <a href=\"{gateway}/{LISTING}/%C4%85/%C4%99\">ę</a>"
        ),
        "<a href=\"/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>".to_owned(),
        format!(
            "<a class=\"ipfs-hash\" translate=\"no\" href=\"{gateway}/{LISTED_FILE}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        ),
    ] {
        assert!(page.text().contains(&part), "{part}\n{}", page.text());
    }
    let dir = testdir(&site);
    let host = format!("{dir}.ipfs.{GATEWAY}");
    let top = at(&site, &host, "/").await;
    for part in ["<a href=\"/hello\">hello</a>", "<a href=\"/ipfs\">ipfs</a>"] {
        assert!(top.text().contains(part), "{part}");
    }
    let below = at(&site, &host, "/ipfs/ipns/").await;
    for part in [
        "<a href=\"/ipfs/ipns/..\">..</a>".to_owned(),
        "<a href=\"/ipfs/ipns/bar\">bar</a>".to_owned(),
        format!(
            "/ipfs/<a href=\"{gateway}/{dir}\">{dir}</a>/<a href=\"{gateway}/{dir}/ipfs\">ipfs</a>/\
             <a href=\"{gateway}/{dir}/ipfs/ipns\">ipns</a>"
        ),
    ] {
        assert!(below.text().contains(&part), "{part}\n{}", below.text());
    }
}

#[tokio::test]
async fn a_folder_named_as_a_host_is_no_redirect_to_that_host() {
    let mut site = suite();
    let file = site.raw("a");
    let inner = site.folder(&[("b", file)]);
    let root = site.folder(&[("evil.example", inner)]);
    let host = format!("{root}.ipfs.localhost");
    let location = moved(&site, "//evil.example", &[("host", &host)]).await;
    assert_eq!(location, "/evil.example/");
}

#[tokio::test]
async fn a_root_is_written_in_one_way_in_a_host() {
    let site = suite();
    let cid = cid::parse(HELLO).unwrap();
    let base36 = cid.to_string_of_base(Base::Base36Lower).unwrap();
    for wrong in [
        base36,
        HELLO.to_uppercase(),
        cid.to_string_of_base(Base::Base58Btc).unwrap(),
    ] {
        let host = format!("{wrong}.ipfs.{GATEWAY}");
        assert_eq!(
            moved(&site, "/a%20b?c=d", &[("host", &host)]).await,
            format!("http://{HELLO}.ipfs.{GATEWAY}/a%20b?c=d"),
            "{wrong}"
        );
    }
    let host = format!("{HELLO_V0}.ipfs.{GATEWAY}");
    let forwarded = [("host", host.as_str()), ("x-forwarded-proto", "https")];
    assert_eq!(
        moved(&site, "/", &forwarded).await,
        format!("https://{HELLO_V0_AS_V1}.ipfs.{GATEWAY}/")
    );
    // Whatever a client does with the case of the rest.
    let answer = at(&site, &format!("{HELLO}.IPFS.Example.COM:8080"), "/").await;
    assert_eq!(answer.code(), 200);
    assert_eq!(
        at(&site, &format!("example.org.ipfs.{GATEWAY}"), "/")
            .await
            .code(),
        400
    );
}

#[tokio::test]
async fn a_root_that_fits_no_label_is_refused_in_both_forms() {
    let site = suite();
    let long = site
        .here
        .keys()
        .find(|cid| cid.hash().code() == 0x13)
        .unwrap();
    assert_eq!(long.hash().digest().len(), 64);
    let base36 = long.to_string_of_base(Base::Base36Lower).unwrap();
    for (host, path) in [
        (GATEWAY.to_owned(), format!("/ipfs/{long}/")),
        (format!("{long}.ipfs.{GATEWAY}"), "/".to_owned()),
        (format!("{base36}.ipfs.{GATEWAY}"), "/".to_owned()),
    ] {
        let answer = at(&site, &host, &path).await;
        assert_eq!(answer.code(), 400, "{host}");
        let told = "CID incompatible with DNS label length limit of 63";
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    // One that only fits in base36 is written so.
    let key = ipns::cid(&ED25519.parse().unwrap()).unwrap();
    assert!(key.to_string().len() > 63);
    let as_pb = Cid::new_v1(DAG_PB, *key.hash());
    let label = as_pb.to_string_of_base(Base::Base36Lower).unwrap();
    let location = moved(&site, &format!("/ipfs/{as_pb}"), &[("host", GATEWAY)]).await;
    assert_eq!(location, format!("http://{label}.ipfs.{GATEWAY}/"));
}

#[tokio::test]
async fn a_key_has_a_host_of_its_own_in_one_way() {
    let site = suite();
    for name in [ED25519, RSA] {
        let key = name.parse().unwrap();
        let text = ipns::text(&key);
        let own = format!("{text}.ipns.{GATEWAY}");
        let cid = ipns::cid(&key).unwrap();
        let as_pb = Cid::new_v1(DAG_PB, *cid.hash());
        let as_pb = as_pb.to_string_of_base(Base::Base36Lower).unwrap();
        for written in [name, &text, &cid.to_string(), &as_pb] {
            let location = moved(&site, &format!("/ipns/{written}"), &[("host", GATEWAY)]).await;
            assert_eq!(location, format!("http://{own}/"), "{written}");
        }
        let answer = at(&site, &own, "/").await;
        assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
        assert!(!answer.header("cache-control").contains("immutable"));
        assert_eq!(answer.header("x-ipfs-path"), format!("/ipns/{text}/"));
        let wrong = format!("{as_pb}.ipns.{GATEWAY}");
        assert_eq!(
            moved(&site, "/a", &[("host", &wrong)]).await,
            format!("http://{own}/a")
        );
    }
}

#[tokio::test]
async fn a_domain_is_one_label_where_certificates_or_the_operator_ask_for_it() {
    let mut site = suite();
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
    let mut site = suite();
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
async fn an_address_that_a_browser_hands_over_is_opened() {
    let site = suite();
    for (path, location) in [
        (
            "/ipfs/?uri=ipfs%3A%2F%2FQmXoypizjW3WknFiJnKLwHCnL72vedxjQkDDP1mXWo6uco%2Fwiki%2FDiego_Maradona.html",
            "/ipfs/QmXoypizjW3WknFiJnKLwHCnL72vedxjQkDDP1mXWo6uco/wiki/Diego_Maradona.html",
        ),
        (
            "/ipns/?uri=ipns%3A%2F%2Fen.wikipedia-on-ipfs.example.org",
            "/ipns/en.wikipedia-on-ipfs.example.org",
        ),
        (
            "/ipfs/?uri=ipns://Key/a%2520b%3Fc%3Dd%23e",
            "/ipns/Key/a%20b?c=d",
        ),
        (
            "/ipfs/?uri=ipfs%3A%2F%2Fa%0d%0aSet-Cookie:%20b",
            "/ipfs/a%0D%0ASet-Cookie:%20b",
        ),
        ("/ipfs?uri=IPFS:////evil.example/a", "/ipfs/evil.example/a"),
    ] {
        for host in [GATEWAY, "127.0.0.1:8080"] {
            assert_eq!(moved(&site, path, &[("host", host)]).await, location);
        }
    }
    for uri in [
        "https://example.org",
        "bafkqaaa",
        "javascript:alert(1)",
        "ipfs://",
        "ipfs:///",
    ] {
        let answer = at(&site, GATEWAY, &format!("/ipfs/?uri={uri}")).await;
        assert_eq!(answer.code(), 400, "{uri}");
    }
}

#[tokio::test]
async fn a_known_host_serves_what_is_listed_and_nothing_else() {
    let mut site = suite();
    for path in [
        "/api/v0/id",
        "/ipfsx",
        "/version",
        "/routing/v2",
        "//ipfs/bafkqaaa",
    ] {
        assert_eq!(at(&site, GATEWAY, path).await.code(), 404, "{path}");
    }
    assert_eq!(at(&site, GATEWAY, "/").await.code(), 200);
    // By a router, which knows nobody here.
    let nobody = at(&site, GATEWAY, "/routing/v1/providers/bafkqaaa").await;
    assert_eq!(nobody.code(), 501);
    site.config.hosts = Hosts::from_iter([
        host("example.com", |host| host.paths = vec![Space::Ipfs]),
        host("plain.example", |host| host.subdomains = false),
    ]);
    let key = ipns::text(&ED25519.parse().unwrap());
    for (host, path) in [
        (GATEWAY.to_owned(), format!("/ipns/{key}")),
        (format!("{key}.ipns.{GATEWAY}"), "/".to_owned()),
        (
            GATEWAY.to_owned(),
            "/routing/v1/providers/bafkqaaa".to_owned(),
        ),
        // No host of its own where there is none.
        (format!("{HELLO}.ipfs.plain.example"), "/".to_owned()),
    ] {
        assert_eq!(at(&site, &host, &path).await.code(), 404, "{host}{path}");
    }
    let plain = at(&site, "plain.example", &format!("/ipfs/{HELLO}")).await;
    assert_eq!((plain.code(), plain.text()), (200, "hello\n"));
}

#[tokio::test]
async fn a_host_is_known_with_its_port_or_without_and_a_star_is_one_label() {
    let mut site = suite();
    site.config.hosts = Hosts::from_iter([
        host("*.gw.example", |_| {}),
        host("special.gw.example", |host| host.subdomains = false),
        host("port.example:81", |_| {}),
    ]);
    let path = format!("/ipfs/{HELLO}");
    for (named, is_known) in [
        ("a.gw.example", true),
        ("A.GW.example:8080", true),
        ("special.gw.example", false),
        ("gw.example", false),
        ("a.b.gw.example", false),
        ("port.example:81", true),
        ("port.example:82", false),
        ("port.example", false),
    ] {
        let answer = at(&site, named, &path).await;
        assert_eq!(answer.code() == 301, is_known, "{named}: {}", answer.code());
    }
    let own = format!("{HELLO}.ipfs.a.gw.example:8080");
    assert_eq!(at(&site, &own, "/").await.text(), "hello\n");
    let upper = moved(
        &site,
        "/",
        &[(
            "host",
            &format!("{}.ipfs.a.gw.example:8080", HELLO.to_uppercase()),
        )],
    )
    .await;
    assert_eq!(upper, format!("http://{own}/"));
}

#[tokio::test]
async fn a_domain_with_a_dnslink_is_a_site() {
    let mut site = suite();
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
    let mut site = suite();
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
async fn whatever_else_is_sent_as_a_host_is_a_path_gateway() {
    let site = suite();
    let path = format!("/ipfs/{HELLO}");
    let long = format!("{}.example", "a.".repeat(400));
    for host in [
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "",
        "unknown.example",
        ".ipfs.",
        "ipfs.example.net",
        "xn--a.org",
    ] {
        let answer = at(&site, host, &path).await;
        assert_eq!((answer.code(), answer.text()), (200, "hello\n"), "{host}");
        assert_eq!(at(&site, host, "/").await.code(), 200, "{host}");
    }
    for host in [
        "a b",
        "http://example.com",
        long.as_str(),
        "example.com:",
        "example.com:x",
        "example.com, a",
        "\u{e9}.org",
        ".",
    ] {
        assert_eq!(at(&site, host, &path).await.code(), 400, "{host}");
    }
    // An IP address has no names below it.
    let below = format!("{HELLO}.ipfs.127.0.0.1");
    assert_eq!(at(&site, &below, &path).await.code(), 200);
}

#[tokio::test]
async fn options_are_told_on_every_host() {
    let site = suite();
    for host in [
        GATEWAY,
        "dnslink-test.example.org",
        &format!("{HELLO}.ipfs.{GATEWAY}"),
    ] {
        let answer = site.ask("OPTIONS", "/ipfs/x", &[("host", host)]).await;
        assert_eq!(answer.code(), 200);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn a_format_on_a_host_of_its_own_names_the_address_there() {
    let site = suite();
    let host = format!("{LISTING}.ipfs.{GATEWAY}");
    let raw = [
        ("host", host.as_str()),
        ("accept", "application/vnd.ipld.raw"),
    ];
    let answer = site.ask("GET", "/api/file.txt", &raw).await;
    assert_eq!(
        answer.header("content-location"),
        "/api/file.txt?format=raw"
    );
    let record = at(&site, "dnslink-test.example.org", "/?format=ipns-record").await;
    assert_eq!(record.code(), 400);
}

#[tokio::test]
async fn many_hosts_leave_nothing_behind() {
    let site = suite();
    let registry = prometheus::Registry::new();
    let metrics = crate::metrics::Metrics::register(&registry).unwrap();
    let handler = crate::handler::Handler::new(
        std::sync::Arc::new(site.clone()),
        (
            crate::routing::Routing::new(&site.config, None),
            std::sync::Arc::new(site.names.clone()),
        ),
        site.config.clone(),
        metrics,
    );
    let told = || {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
        text.unwrap().lines().count()
    };
    let ask = |host: String| {
        let handler = &handler;
        async move { super::support::ask(handler, "GET", "/nothing", &[("host", &host)]).await }
    };
    ask("0.example".to_owned()).await;
    let before = told();
    for at in 1..2000 {
        let answer = ask(format!("{at}.example")).await;
        assert_eq!(answer.code(), 404);
    }
    assert_eq!(told(), before);
}

#[tokio::test]
async fn a_dot_at_the_end_of_a_host_makes_no_other_of_it() {
    let site = suite();
    let path = format!("/ipfs/{HELLO}");
    let own = format!("http://{HELLO}.ipfs.example.com:8080/");
    assert_eq!(
        moved(&site, &path, &[("host", "example.com.:8080")]).await,
        own
    );
    assert_eq!(at(&site, "example.com.", "/api/x").await.code(), 404);
    let host = format!("{HELLO}.ipfs.example.com.");
    let answer = at(&site, &host, "/").await;
    assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
    assert_eq!(
        at(&site, &host, &path).await.code(),
        404,
        "it is of that root"
    );
}

#[tokio::test]
async fn two_hosts_are_none() {
    let site = suite();
    let both = [("host", GATEWAY), ("host", "unknown.example")];
    let answer = site.ask("GET", &format!("/ipfs/{HELLO}"), &both).await;
    assert_eq!(answer.code(), 400);
}

#[tokio::test]
async fn what_a_proxy_says_is_told_to_caches_and_believed_of_proxies_alone() {
    let site = suite();
    let path = format!("/ipfs/{HELLO}");
    let forwarded = [("host", "unknown.example"), ("x-forwarded-host", GATEWAY)];
    let handler = site.handler();
    for (client, is_believed) in [
        ("127.0.0.1:9", true),
        ("[::ffff:10.1.2.3]:9", true),
        ("192.0.2.1:9", false),
    ] {
        let client: std::net::SocketAddr = client.parse().unwrap();
        let mut request = http::Request::builder().uri(&path);
        for (name, value) in forwarded {
            request = request.header(name, value);
        }
        let request = request.extension(crate::access::Client::Address(client));
        let body = http_body_util::Empty::<bytes::Bytes>::new();
        let response = handler.answer(request.body(body).unwrap()).await;
        assert_eq!(response.status() == 301, is_believed, "{client}");
        let vary: Vec<_> = response.headers().get_all("vary").iter().collect();
        assert!(
            vary.iter()
                .any(|vary| *vary == "X-Forwarded-Host, X-Forwarded-Proto"),
            "{vary:?}"
        );
    }
}

#[tokio::test]
async fn while_it_is_not_known_whose_a_host_is_nothing_of_others_is_served_there() {
    let mut site = suite();
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
async fn links_of_a_documents_page_lead_to_where_content_is() {
    let mut site = suite();
    let leaf = site.raw("hello");
    let json = format!("{{\"link\":{{\"/\":\"{leaf}\"}}}}");
    let document = site.put(cid::DAG_JSON, json);
    let name = Root::name("document.example.org").unwrap();
    site.names.leads.insert(name, format!("/ipfs/{document}"));
    for (host, path, link) in [
        (
            "127.0.0.1",
            format!("/ipfs/{document}"),
            format!("\"/ipfs/{leaf}\""),
        ),
        (
            &format!("{document}.ipfs.{GATEWAY}"),
            "/".to_owned(),
            format!("\"//{GATEWAY}/ipfs/{leaf}\""),
        ),
        (
            "document.example.org",
            "/".to_owned(),
            format!("\"https://cid.ipfs.tech/#{leaf}\""),
        ),
    ] {
        let browser = [("host", host), ("accept", "text/html")];
        let page = site.ask("GET", &path, &browser).await;
        assert_eq!(page.code(), 200, "{host}");
        assert!(
            page.text().contains(&format!("<a href={link}")),
            "{host}: {}",
            page.text()
        );
    }
}

#[tokio::test]
async fn a_domain_that_is_denied_is_denied_as_a_host_too() {
    let mut site = suite();
    site.names.denied = vec!["/ipns/dnslink-test.example.org".to_owned()];
    assert_eq!(at(&site, "dnslink-test.example.org", "/").await.code(), 451);
}
