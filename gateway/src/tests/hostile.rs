//! Addresses and headers that no honest client sends: answered, never with a fault of ours.

use super::support::Site;
use proptest::prelude::*;

#[tokio::test]
async fn odd_paths_are_answered_without_a_fault() {
    let mut site = Site::new();
    let file = site.raw("x");
    let root = site.folder(&[("a", file), ("..", file), ("%2e", file)]);
    let long = format!("/{}", "a".repeat(30_000));
    let deep = "/a".repeat(10_000);
    let dots = "/..".repeat(5_000);
    for rest in [
        "",
        "/",
        "//",
        "///a",
        "/a/",
        "/a//",
        "/./a",
        "/../a",
        "/a/..",
        "/a/../..",
        "/%2e%2e",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%2E%2e%2fetc",
        "/..%2f..%2f",
        "/%00",
        "/a%00",
        "/%0a",
        "/%0d%0aSet-Cookie:%20a=b",
        "/%7f",
        "/%ff",
        "/%c0%ae",
        "/%c0%ae%c0%ae/",
        "/%ed%a0%80",
        "/%f4%90%80%80",
        "/%",
        "/%4",
        "/%zz",
        "/%25%32%65",
        "/\\..\\",
        "/a\\b",
        "/~",
        "/a;b=c",
        "/%e2%80%ae",
        "/%252e%252e",
        "/con",
        "/a:b",
        "/*",
        "/'\"",
        "/%3Cscript%3E",
        "?",
        "?&&&",
        "?=",
        "?format",
        "?format=",
        "?format=raw&format=car",
        "?filename=",
        "?filename=%00%0a%ff",
        "?download=maybe",
        "?dag-scope=%ff&format=car",
        "?entity-bytes=-9223372036854775808:-9223372036854775808&format=car",
        "?%zz=%",
        "/a?filename=..%2f..%2fx&download=true",
    ] {
        for method in ["GET", "HEAD"] {
            let path = format!("/ipfs/{root}{rest}");
            let answer = site.ask(method, &path, &[]).await;
            assert!(answer.code() < 500, "{method} {path}: {}", answer.code());
            assert!(answer.header("set-cookie").is_empty(), "{path}");
        }
    }
    for rest in [&long, &deep, &dots] {
        let answer = site.get(&format!("/ipfs/{root}{rest}")).await;
        assert!((400..500).contains(&answer.code()), "{}", answer.code());
        assert!(answer.bytes().len() < 10_000, "{}", answer.bytes().len());
    }
    for path in [
        "/ipfs",
        "/ipfs/",
        "/ipfs//",
        "/ipns",
        "/ipfs/..",
        "/ipfs/../etc/passwd",
        "/ipfs/%2e%2e/%2e%2e/etc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "/ipfs/x",
        "/ipfs/QmInvalidCID",
        "/ipfs/ipfs/ipfs/ipfs",
        "/ipfs/ipfs/",
        "/ipfs/ipns/",
        "/api/v0/add",
        "/ipfs/%",
        "/%2fipfs/x",
        "/IPFS/x",
        "/ipfs/z",
        "/ipfs/f",
        "/ipfs/bafkqaaa/x",
        "/ipfs/bafy",
    ] {
        let answer = site.get(path).await;
        assert!(
            (300..500).contains(&answer.code()),
            "{path}: {}",
            answer.code()
        );
    }
}

#[tokio::test]
async fn a_wrong_root_is_named_as_other_gateways_name_it() {
    let answer = Site::new().get("/ipfs/QmInvalidCID").await;
    assert_eq!(answer.code(), 400);
    assert!(
        answer
            .text()
            .contains("invalid path \"/ipfs/QmInvalidCID\""),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn no_redirect_leaves_this_host() {
    let mut site = Site::new();
    let folder = site.folder(&[]);
    let root = site.folder(&[("\\evil.example", folder), ("a\r\nb", folder)]);
    for name in ["%5cevil.example", "a%0d%0ab"] {
        let answer = site.get(&format!("/ipfs/{root}/{name}")).await;
        assert_eq!(answer.code(), 301);
        assert!(
            answer
                .header("location")
                .starts_with(&format!("/ipfs/{root}/"))
        );
        assert!(
            !answer.header("location").contains('\\'),
            "{}",
            answer.header("location")
        );
    }
}

#[tokio::test]
async fn odd_headers_are_answered_without_a_fault() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let many = "\"x\",".repeat(5_000);
    let ranges = format!("bytes={}", "0-0,".repeat(5_000));
    for (name, value) in [
        ("range", "bytes=99999999999999999999-"),
        ("range", "bytes=-99999999999999999999"),
        ("range", &ranges),
        ("range", "\u{e9}"),
        ("if-none-match", &many),
        ("if-none-match", "\""),
        ("if-none-match", "W/"),
        ("if-range", "\"\""),
        ("if-range", "never"),
        ("if-modified-since", "Fri, 31 Dec 99999 23:59:59 GMT"),
        ("accept", ";;;,,,"),
        ("accept", "application/vnd.ipld.car;;=;version"),
        ("cache-control", ",,,=only-if-cached"),
        ("service-worker", ""),
        ("connection", "upgrade"),
    ] {
        let answer = site
            .ask("GET", &format!("/ipfs/{cid}"), &[(name, value)])
            .await;
        assert!(
            answer.code() < 500,
            "{name}: {value:.40}: {}",
            answer.code()
        );
    }
}

#[test]
fn no_path_and_no_query_panic() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut site = Site::new();
    let file = site.raw("x");
    let root = site.folder(&[("a", file)]);
    let handler = site.handler();
    proptest!(|(rest in "(/|[!-~]|%[0-9a-f]{2}|\\.\\.|/a){0,40}", query in "([!-~]|%[0-9a-f]{2}|format=|car|tar|&){0,30}")| {
        let path = format!("/ipfs/{root}/{rest}");
        let request = http::Uri::try_from(format!("{path}?{query}")).is_ok();
        prop_assume!(request);
        let answer = runtime.block_on(super::support::ask(&handler, "GET", &format!("{path}?{query}"), &[]));
        prop_assert!(answer.code() < 500, "{}", answer.code());
    });
}

#[tokio::test]
async fn a_bomb_of_shards_ends_within_its_budgets() {
    let mut site = Site::new();
    site.config.archive_entries_max = 500.try_into().unwrap();
    let file = site.raw("x");
    let mut bomb = shard(&mut site, |prefix| (format!("{prefix}name"), file));
    for _ in 0..32 {
        bomb = shard(&mut site, |prefix| (prefix.to_owned(), bomb));
    }
    let page = site.get(&format!("/ipfs/{bomb}/")).await;
    assert!(page.code() == 200 || page.code() == 422, "{}", page.code());
    assert!(page.bytes().len() < 16 << 20);
    for query in [
        "car",
        "car&dag-scope=entity",
        "car&car-dups=y",
        "car&car-dups=y&dag-scope=entity",
        "tar",
    ] {
        let answer = site.get(&format!("/ipfs/{bomb}?format={query}")).await;
        assert!(answer.code() < 500, "{query}: {}", answer.code());
        assert!(
            answer.body.map_or(0, |body| body.len()) < 1 << 20,
            "{query}"
        );
    }
}

/// A HAMT node with all of its 256 buckets in use.
fn shard(site: &mut Site, child: impl Fn(&str) -> (String, cairn_store::Cid)) -> cairn_store::Cid {
    let mut data = vec![0x08, 5];
    super::support::bytes(&mut data, 2, &[0xff; 32]);
    super::support::number(&mut data, 5, 0x22);
    super::support::number(&mut data, 6, 256);
    let links: Vec<_> = (0..256)
        .map(|bucket| child(&format!("{bucket:02X}")))
        .collect();
    let links: Vec<_> = links
        .iter()
        .map(|(name, cid)| (name.as_str(), *cid, 1))
        .collect();
    site.node(&links, data)
}
