//! The names that the gateway is called by: which are its own, what each serves, and who is believed about them.

use super::suite::{ED25519, GATEWAY, HELLO, at, host, moved};
use super::support::{Site, ask};
use crate::config::{Hosts, Space};
use cairn_node::ipns;

#[tokio::test]
async fn what_a_proxy_in_front_says_decides_scheme_and_host() {
    let site = Site::suite();
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
async fn an_address_that_a_browser_hands_over_is_opened() {
    let site = Site::suite();
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
    let mut site = Site::suite();
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
    let mut site = Site::suite();
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
async fn whatever_else_is_sent_as_a_host_is_a_path_gateway() {
    let site = Site::suite();
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
    let site = Site::suite();
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
async fn many_hosts_leave_nothing_behind() {
    let site = Site::suite();
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
        async move { ask(handler, "GET", "/nothing", &[("host", &host)]).await }
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
    let site = Site::suite();
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
    let site = Site::suite();
    let both = [("host", GATEWAY), ("host", "unknown.example")];
    let answer = site.ask("GET", &format!("/ipfs/{HELLO}"), &both).await;
    assert_eq!(answer.code(), 400);
}

#[tokio::test]
async fn what_a_proxy_says_is_told_to_caches_and_believed_of_proxies_alone() {
    let site = Site::suite();
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
