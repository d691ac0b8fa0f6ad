//! Which check comes first where a request fails several, and the rules that no other subject has.

use super::suite::{ED25519, GATEWAY, HELLO};
use super::support::{Missing, Site};
use cairn_node::ipns;
use cairn_store::source::{Denial, Grounds};
use cairn_store::{Cid, cid};

/// In no CAR.
const ABSENT: &str = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";

#[tokio::test]
async fn checks_come_in_the_order_of_other_gateways() {
    let mut site = Site::suite();
    // Whoever looked for a block would never answer.
    site.missing = Missing::Hangs;
    let cached = ("cache-control", "only-if-cached");
    let worker = ("service-worker", "script");
    let known = ("if-none-match", "*");
    let host = ("host", GATEWAY);
    let usual = ipns::text(&ED25519.parse().unwrap());
    let car = "?format=car&car-version=2";
    for (method, path, headers, code) in [
        // An address that a browser hands over, before the host and before the method's content.
        (
            "GET",
            "/ipfs/?uri=ipfs://bafkqaaa".to_owned(),
            &[host, cached][..],
            301,
        ),
        // The host, before what is asked for there.
        (
            "GET",
            format!("/ipfs/{ABSENT}"),
            &[host, cached, worker],
            301,
        ),
        ("GET", format!("/ipfs/{ABSENT}{car}"), &[host], 301),
        // The method, before the path.
        ("POST", "/ipfs/nonsense".to_owned(), &[], 405),
        ("DELETE", format!("/ipfs/{ABSENT}"), &[cached], 405),
        ("OPTIONS", "/ipfs/nonsense".to_owned(), &[worker], 200),
        // A service worker, before the names of keys, glued addresses, paths and what is cached.
        ("GET", format!("/ipns/{ED25519}"), &[worker], 400),
        ("GET", format!("/ipfs/{ABSENT}"), &[worker, cached], 400),
        // The usual form of a name, before it is looked up and before the format is read.
        ("GET", format!("/ipns/{ED25519}/x{car}"), &[cached], 302),
        ("GET", format!("/ipfs/ipfs/{ABSENT}{car}"), &[cached], 301),
        // The path, before what is cached.
        ("GET", "/ipfs/nonsense".to_owned(), &[cached], 400),
        ("GET", format!("/ipfs/{HELLO}/../.."), &[cached], 400),
        // What is cached, before what the client has.
        ("GET", format!("/ipfs/{ABSENT}"), &[cached, known], 412),
        (
            "HEAD",
            format!("/ipfs/{ABSENT}?format=raw"),
            &[cached, known],
            412,
        ),
        (
            "GET",
            format!("/ipns/{usual}?format=ipns-record"),
            &[cached],
            200,
        ),
        // A format that cannot be, before anything is looked for.
        ("GET", format!("/ipfs/{ABSENT}{car}"), &[], 400),
        (
            "GET",
            format!("/ipfs/{ABSENT}?format=ipns-record"),
            &[],
            400,
        ),
        (
            "GET",
            format!("/ipfs/{ABSENT}"),
            &[("accept", "application/vnd.ipld.odd")],
            400,
        ),
        // What the client has, before the block is looked for.
        (
            "GET",
            format!("/ipfs/{ABSENT}"),
            &[("if-none-match", &format!("\"{ABSENT}\""))],
            304,
        ),
        (
            "GET",
            format!("/ipfs/{ABSENT}?format=raw"),
            &[("if-none-match", &format!("\"{ABSENT}.raw\""))],
            304,
        ),
        // It, before the time of change.
        (
            "GET",
            format!("/ipfs/{HELLO}"),
            &[
                ("if-none-match", "\"x\""),
                ("if-modified-since", "Fri, 31 Dec 9999 23:59:59 GMT"),
            ],
            200,
        ),
    ] {
        let answer = site.ask(method, &path, headers).await;
        assert_eq!(
            answer.code(),
            code,
            "{method} {path} {headers:?}: {:?}",
            answer.body
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*", "{path}");
    }
    // What cannot be checked is not even looked up.
    site.config.trustless_only = true;
    for path in [
        format!("/ipfs/{ABSENT}"),
        "/ipns/nowhere.example/".to_owned(),
    ] {
        assert_eq!(site.get(&path).await.code(), 400, "{path}");
    }
}

#[tokio::test]
async fn every_answer_tells_other_origins_the_same() {
    let site = Site::suite();
    for (method, path, headers) in [
        ("GET", format!("/ipfs/{HELLO}"), &[][..]),
        ("HEAD", format!("/ipfs/{HELLO}"), &[]),
        ("OPTIONS", format!("/ipfs/{HELLO}"), &[]),
        ("GET", format!("/ipfs/{HELLO}"), &[("range", "bytes=0-1")]),
        ("GET", format!("/ipfs/{HELLO}"), &[("range", "bytes=99-")]),
        ("GET", format!("/ipfs/{HELLO}"), &[("if-none-match", "*")]),
        ("GET", format!("/ipfs/{HELLO}"), &[("host", GATEWAY)]),
        ("GET", format!("/ipns/{ED25519}"), &[]),
        ("GET", format!("/ipfs/{ABSENT}"), &[]),
        ("GET", "/nothing".to_owned(), &[]),
        ("POST", "/".to_owned(), &[]),
        ("GET", "/ipns/nowhere.example/".to_owned(), &[]),
    ] {
        let answer = site.ask(method, &path, headers).await;
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-methods", "GET, HEAD, OPTIONS"),
            (
                "access-control-allow-headers",
                "Content-Type, Range, User-Agent, X-Requested-With",
            ),
            (
                "access-control-expose-headers",
                "Content-Length, Content-Range, X-Chunked-Output, X-Ipfs-Path, X-Ipfs-Roots, X-Stream-Output",
            ),
        ] {
            assert_eq!(answer.header(name), value, "{method} {path} {name}");
            assert_eq!(answer.headers.get_all(name).iter().count(), 1);
        }
    }
}

#[tokio::test]
async fn nothing_is_compressed_on_its_way() {
    let site = Site::suite();
    for path in [
        format!("/ipfs/{HELLO}"),
        format!("/ipfs/{HELLO}?format=raw"),
        format!("/ipfs/{HELLO}?format=car"),
        format!("/ipfs/{}/", super::suite::LISTING),
    ] {
        let plain = site.get(&path).await;
        let squeezed = [("accept-encoding", "gzip, br, deflate")];
        let answer = site.ask("GET", &path, &squeezed).await;
        assert_eq!(answer.header("content-encoding"), "");
        assert_eq!(
            (answer.bytes(), &answer.headers),
            (plain.bytes(), &plain.headers)
        );
    }
}

#[tokio::test]
async fn names_above_are_followed_within_the_root_and_no_further() {
    let mut site = Site::new();
    let file = site.raw("b");
    let inner = site.folder(&[("c", file)]);
    let root = site.folder(&[("a", inner), ("b", file)]);
    for (below, code) in [
        ("a/../b", 200),
        ("./b", 200),
        ("a/./c", 200),
        ("a/c/../../b", 200),
        ("%2e%2e/b", 400),
        ("a/../../b", 400),
        // A file has nothing below it, but what is above it is above it.
        ("b/c", 404),
        ("b/..", 301),
    ] {
        let answer = site.get(&format!("/ipfs/{root}/{below}")).await;
        assert_eq!(answer.code(), code, "{below}: {:?}", answer.body);
    }
}

/// The vectors of IPIP-512.
#[tokio::test]
async fn a_cid_holds_no_more_than_128_bytes_of_content() {
    let mut site = Site::new();
    let most = "bafkqbaabijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbeeqscijbee";
    let more = "bafkqbaibifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqkbifaucqi";
    for format in ["", "?format=raw", "?format=car", "?format=tar"] {
        let held = site.get(&format!("/ipfs/{most}{format}")).await;
        assert_eq!(held.code(), 200, "{format}");
        let refused = site.get(&format!("/ipfs/{more}{format}")).await;
        assert_eq!(refused.code(), 400, "{format}");
        assert!(refused.text().contains("invalid path"), "{format}");
    }
    assert_eq!(
        site.get(&format!("/ipfs/{most}")).await.text(),
        "B".repeat(128)
    );
    // Nor where another block links it.
    let mut long = vec![0x01, 0x55, 0x00, 0x81, 0x01];
    long.extend_from_slice(&[b'A'; 129]);
    let mut node = Vec::new();
    let mut link = Vec::new();
    super::support::bytes(&mut link, 1, &long);
    super::support::bytes(&mut link, 2, b"file");
    super::support::bytes(&mut node, 2, &link);
    super::support::bytes(&mut node, 1, &[8, 1]);
    let folder: Cid = site.put(cid::DAG_PB, node);
    let answer = site.get(&format!("/ipfs/{folder}/file")).await;
    assert_eq!(answer.code(), 422, "{:?}", answer.body);
}

#[tokio::test]
async fn a_head_reads_no_more_than_it_tells() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..4_u8).map(|at| vec![at; 100_000]).collect();
    let lost: Vec<Cid> = chunks[1..]
        .iter()
        .map(|chunk| site.raw(chunk.clone()))
        .collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    let root = site.folder(&[("file.bin", file)]);
    for cid in &lost {
        site.lose(cid);
    }
    site.missing = Missing::Hangs;
    for query in [
        "",
        "?format=raw",
        "?format=car",
        "?format=tar",
        "?format=json",
    ] {
        let answer = site.head(&format!("/ipfs/{root}/file.bin{query}")).await;
        assert_eq!(answer.code(), 200, "{query}");
        assert!(answer.bytes().is_empty());
    }
    let head = site.head(&format!("/ipfs/{file}")).await;
    assert_eq!(head.header("content-length"), "400000");
    let names: Vec<String> = (0..300).map(|at| format!("{at}.txt")).collect();
    let folder = site.hamt(&names);
    let path = format!("/ipfs/{folder}/");
    let node = cairn_store::dag::pb::decode(site.here[&folder].data()).unwrap();
    let shards = node.links.iter().map(|link| link.cid);
    // Two of them cannot both be on the way to an index, which has to be looked for.
    let shards: Vec<Cid> = shards.filter(|cid| cid.codec() == cid::DAG_PB).collect();
    site.missing = Missing::Absent;
    let mut heads = Vec::new();
    for shard in &shards[..2] {
        let mut without = site.clone();
        without.lose(shard);
        heads.push(without.head(&path).await.code());
        assert_eq!(without.get(&path).await.code(), 404);
    }
    assert!(heads.contains(&200), "{heads:?}");
}

#[tokio::test]
async fn parts_of_files_of_several_levels_and_in_large_folders_are_parts() {
    let mut site = Site::new();
    let leaves: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![b'a' + at; 100]).collect();
    let content = leaves.concat();
    let mut level: Vec<(Cid, u64)> = leaves
        .iter()
        .map(|leaf| (site.raw(leaf.clone()), 100))
        .collect();
    // Two by two, three levels.
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| {
                let size = pair.iter().map(|(_, size)| size).sum();
                let mut data = vec![0x08, 2];
                super::support::number(&mut data, 3, size);
                for (_, size) in pair {
                    super::support::number(&mut data, 4, *size);
                }
                let links: Vec<_> = pair.iter().map(|(cid, size)| ("", *cid, *size)).collect();
                (site.node(&links, data), size)
            })
            .collect();
    }
    let file = level[0].0;
    let middle = site.raw(leaves[3].clone());
    site.lose(&middle);
    for (range, bytes) in [
        ("bytes=0-99", &content[..100]),
        ("bytes=150-299", &content[150..300]),
        ("bytes=400-", &content[400..]),
        ("bytes=-1", &content[799..]),
    ] {
        let answer = site
            .ask("GET", &format!("/ipfs/{file}"), &[("range", range)])
            .await;
        assert_eq!((answer.code(), answer.bytes()), (206, bytes), "{range}");
    }
    let across = [("range", "bytes=250-350")];
    let answer = site.ask("GET", &format!("/ipfs/{file}"), &across).await;
    assert_eq!(answer.code(), 404);
}

#[test]
fn what_is_denied_says_on_which_grounds() {
    for (grounds, code) in [(Grounds::Policy, 410), (Grounds::Legal, 451)] {
        let denial = Denial {
            what: "/ipfs/x".into(),
            by: "a rule of a test".into(),
            grounds,
        };
        let answer = crate::error::Failure::Denied(denial).response("/ipfs/x", None);
        assert_eq!(answer.status().as_u16(), code);
        let text = answer.body().as_whole().unwrap();
        assert!(
            std::str::from_utf8(text)
                .unwrap()
                .contains("a rule of a test")
        );
    }
}
