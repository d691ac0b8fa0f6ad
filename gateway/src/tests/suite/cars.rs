//! CARs of the suite's content: which blocks, in which order, with which headers.

use super::super::readers::read_car;
use super::super::support::{Answer, Site};
use super::{HAMT, HELLO, MISSING, MISSING_PARTS, car, car_bytes};
use cairn_store::cid::{self, DAG_PB};
use cairn_store::dag::pb;

const TWO: [&str; 4] = [
    "bafybeietjm63oynimmv5yyqay33nui4y4wx6u3peezwetxgiwvfmelutzu",
    "bafybeiggghzz6dlue3m6nb2dttnbrygxh3lrjl5764f2m4gq7dgzdt55o4",
    ASCII,
    WORLD,
];
const MIXED: [&str; 2] = [
    "bafybeidh6k2vzukelqtrjsmd4p52cpmltd2ufqrdtdg6yigi73in672fwu",
    "bafybeicnmple4ehlz3ostv2sbojz3zhh5q7tz5r2qkfdpqfilgggeen7xm",
];
const DUPLICATES: &str = "bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy";
const CBOR: [&str; 2] = [
    "bafybeia264q44a3kmfc2otctzu4egp2k235o3t7mslz2yjraymp4nv6asi",
    "bafyreidy4q6mmetut5jzc54ambsfnatbyoujmwbfzyyolqw24majazwgha",
];
const ASCII: &str = "bafkreifkam6ns4aoolg3wedr4uzrs3kvq66p4pecirz6y2vlrngla62mxm";
const WORLD: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
/// 1026 bytes: four chunks of 256 and one of 2.
const FILE: &str = "bafybeigcisqd7m5nf3qmuvjdbakl5bdnh4ocrmacaqkpuh77qjvggmt2sa";
const CHUNKS: [&str; 5] = [
    "bafkreie5noke3mb7hqxukzcy73nl23k6lxszxi5w3dtmuwz62wnvkpsscm",
    "bafkreih4ephajybraj6wnxsbwjwa77fukurtpl7oj7t7pfq545duhot7cq",
    "bafkreigu7buvm3cfunb35766dn7tmqyh2um62zcio63en2btvxuybgcpue",
    "bafkreicll3huefkc3qnrzeony7zcfo7cr3nbx64hnxrqzsixpceg332fhe",
    "bafkreifst3pqztuvj57lycamoi7z34b4emf7gawxs74nwrc2c7jncmpaqm",
];
/// The shards on the way to two files of the HAMT.
const WAY_685: &str = "bafybeifajm5xyg46n4hjxg7clq2f7vcn7eg7bn3yevylcemr6vd7mp6gta";
const WAY_1: &str = "bafybeiawjmzmi5c6v5h75nepfpx7jj5ns5t54girned3kilvakmhctxlxy";

fn blocks(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.code(), 200, "{:?}", answer.body);
    let (_, blocks) = read_car(answer.bytes());
    blocks.iter().map(ToString::to_string).collect()
}

fn list(parts: &[&[&str]]) -> Vec<String> {
    parts.concat().iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_car_has_exactly_the_blocks_that_it_should_in_their_order() {
    let site = Site::suite();
    let hamt = car("single-layer-hamt-with-multi-block-files.car");
    let is_shard = |block: &cairn_store::Block| {
        let node = pb::decode(block.data()).unwrap();
        node.data.is_some_and(|data| data.starts_with(&[8, 5]))
    };
    let shards = hamt.iter().filter(|(cid, _)| cid.codec() == DAG_PB);
    let shards = shards.filter(|(_, block)| is_shard(block));
    let shards: Vec<String> = shards.map(|(cid, _)| cid.to_string()).collect();
    assert_eq!(shards.len(), 237);
    let file = &[&[FILE][..], &CHUNKS].concat();
    for (path, query, expected) in [
        // The way, then what it leads to.
        (
            format!("{}/subdir/ascii.txt", TWO[0]),
            "",
            list(&[&TWO[..3]]),
        ),
        (
            format!("{HAMT}/685.txt"),
            "",
            list(&[&[HAMT, WAY_685], file]),
        ),
        (
            format!("{}/files/single", CBOR[1]),
            "",
            list(&[&CBOR[1..], &[WORLD]]),
        ),
        (
            format!("{}/subdir", MIXED[0]),
            "&dag-scope=all",
            list(&[&MIXED, &[ASCII, WORLD], file]),
        ),
        (
            format!("{}/subdir/multiblock.txt", MIXED[0]),
            "&dag-scope=all",
            list(&[&MIXED, file]),
        ),
        // One block.
        (
            format!("{}/subdir", TWO[0]),
            "&dag-scope=block",
            list(&[&TWO[..2]]),
        ),
        (
            format!("{}/subdir/ascii.txt", TWO[0]),
            "&dag-scope=block",
            list(&[&TWO[..3]]),
        ),
        (
            format!("{HAMT}/1.txt"),
            "&dag-scope=block",
            list(&[&[HAMT, WAY_1, FILE]]),
        ),
        // One thing.
        (TWO[0].to_owned(), "&dag-scope=entity", list(&[&TWO[..1]])),
        (HAMT.to_owned(), "&dag-scope=entity", shards.clone()),
        (
            format!("{}/subdir/ascii.txt", MIXED[0]),
            "&dag-scope=entity",
            list(&[&MIXED, &[ASCII]]),
        ),
        (
            format!("{}/subdir/multiblock.txt", MIXED[0]),
            "&dag-scope=entity",
            list(&[&MIXED, file]),
        ),
        (
            format!("{}/document", CBOR[0]),
            "&dag-scope=entity",
            list(&[&CBOR]),
        ),
        // A part of one.
        (
            MISSING.to_owned(),
            "&entity-bytes=0:1000",
            list(&[&[MISSING], &MISSING_PARTS[..1]]),
        ),
        (
            MISSING.to_owned(),
            "&entity-bytes=2200:*",
            list(&[&[MISSING], &MISSING_PARTS[2..]]),
        ),
        (
            format!("{}/subdir/multiblock.txt", MIXED[0]),
            "&entity-bytes=0:*",
            list(&[&MIXED, file]),
        ),
        (HAMT.to_owned(), "&entity-bytes=0:*", shards),
        (
            FILE.to_owned(),
            "&entity-bytes=512:*",
            list(&[&[FILE], &CHUNKS[2..]]),
        ),
        (
            FILE.to_owned(),
            "&entity-bytes=512:1023",
            list(&[&[FILE], &CHUNKS[2..4]]),
        ),
        (
            FILE.to_owned(),
            "&entity-bytes=512%3A-256",
            list(&[&[FILE], &CHUNKS[2..4]]),
        ),
        (
            FILE.to_owned(),
            "&entity-bytes=-5:*",
            list(&[&[FILE], &CHUNKS[3..]]),
        ),
        (FILE.to_owned(), "&entity-bytes=-9999:*", list(&[file])),
        (
            FILE.to_owned(),
            "&entity-bytes=-9999:-3",
            list(&[&[FILE], &CHUNKS[..4]]),
        ),
        (
            FILE.to_owned(),
            "&entity-bytes=0%3A0",
            list(&[&[FILE], &CHUNKS[..1]]),
        ),
    ] {
        let with_query = site.get(&format!("/ipfs/{path}?format=car{query}")).await;
        assert_eq!(blocks(&with_query), expected, "{path} {query}");
        let accept = [("accept", "application/vnd.ipld.car")];
        let path = format!("/ipfs/{path}?{}", query.trim_start_matches('&'));
        let with_accept = site.ask("GET", &path, &accept).await;
        assert_eq!(with_accept.bytes(), with_query.bytes(), "{path}");
        for answer in [with_query, with_accept] {
            for (name, value) in [
                (
                    "content-type",
                    "application/vnd.ipld.car; version=1; order=dfs; dups=n",
                ),
                ("x-content-type-options", "nosniff"),
                ("accept-ranges", "none"),
                ("cache-control", "public, max-age=29030400, immutable"),
                ("content-length", ""),
            ] {
                assert_eq!(answer.header(name), value, "{path} {name}");
            }
            let etag = answer.header("etag");
            assert!(etag.starts_with("W/\"") && etag.contains(".car."), "{etag}");
            let disposition = answer.header("content-disposition");
            assert!(
                disposition.starts_with("attachment; filename=\""),
                "{disposition}"
            );
            assert!(disposition.contains(".car\""), "{disposition}");
        }
    }
}

#[tokio::test]
async fn a_whole_dag_is_the_file_that_another_program_made_of_it() {
    let site = Site::suite();
    for name in [
        "cache.car",
        "dag-cbor-traversal.car",
        "dag-json-traversal.car",
        "dir-with-dag-cbor-with-links.car",
        "dir-with-duplicate-files.car",
        "gateway-json-cbor.car",
        "inside-root.car",
        "listing.car",
        "plain-cbor.car",
        "plain-json.car",
        "raw-block.car",
        "single-layer-hamt-with-multi-block-files.car",
        "subdir-with-mixed-block-files.car",
        "symlink.car",
    ] {
        let (root, _) = &car(name)[0];
        let answer = site.get(&format!("/ipfs/{root}?format=car")).await;
        assert!(
            answer.bytes() == car_bytes(name),
            "{name}: {}",
            answer.bytes().len()
        );
    }
}

#[tokio::test]
async fn parameters_of_a_car_come_from_the_query_or_with_the_media_type() {
    let site = Site::suite();
    let file = &[&[FILE][..], &CHUNKS].concat();
    let once = list(&[&[DUPLICATES, ASCII, WORLD], file]);
    let again = list(&[&[DUPLICATES, ASCII, ASCII, WORLD], file]);
    for (query, parameters, dups, expected) in [
        ("", "; version=1; order=dfs; dups=y", "y", &again),
        ("", "; version=1; order=dfs; dups=n", "n", &once),
        ("", "; version=1; order=unk", "n", &once),
        ("", "", "n", &once),
        ("?format=car", "; version=1; order=dfs; dups=y", "y", &again),
        ("?format=car&car-order=dfs", "; order=unk", "n", &once),
        ("?format=car&car-dups=y", "; dups=n", "y", &again),
        ("?format=car&car-dups=n", "; dups=y", "n", &once),
        ("?car-dups=y", "", "y", &again),
    ] {
        let accept = format!("application/vnd.ipld.car{parameters}");
        let path = format!("/ipfs/{DUPLICATES}{query}");
        let answer = site.ask("GET", &path, &[("accept", &accept)]).await;
        let kind = format!("application/vnd.ipld.car; version=1; order=dfs; dups={dups}");
        assert_eq!(answer.header("content-type"), kind, "{query} {accept}");
        assert_eq!(&blocks(&answer), expected, "{query} {accept}");
    }
    let raw = [("accept", "application/vnd.ipld.raw")];
    let path = format!("/ipfs/{DUPLICATES}?format=car");
    let answer = site.ask("GET", &path, &raw).await;
    assert_eq!(blocks(&answer), once);
}

#[tokio::test]
async fn entity_tags_of_cars_differ_where_their_bytes_do() {
    let site = Site::suite();
    let root = MIXED[0];
    let mut seen = std::collections::HashSet::new();
    for (path, query) in [
        ("", ""),
        ("", "&dag-scope=entity"),
        ("", "&dag-scope=block"),
        ("", "&car-dups=y"),
        ("/subdir", ""),
        ("/subdir/multiblock.txt", ""),
        ("/subdir/multiblock.txt", "&entity-bytes=0:0"),
        ("/subdir/multiblock.txt", "&entity-bytes=512:*"),
    ] {
        let path = format!("/ipfs/{root}{path}?format=car{query}");
        let etag = site.get(&path).await.header("etag").to_owned();
        assert!(
            !etag.is_empty() && seen.insert(etag.clone()),
            "{path} {etag}"
        );
        let known = [("if-none-match", etag.as_str())];
        let answer = site.ask("GET", &path, &known).await;
        assert_eq!((answer.code(), answer.header("etag")), (304, etag.as_str()));
    }
    // The same blocks in another order of the parameters.
    let path = format!("/ipfs/{root}?car-dups=y&format=car");
    assert!(seen.contains(site.get(&path).await.header("etag")));
}

#[tokio::test]
async fn what_is_no_part_of_a_car_is_refused_or_left_out() {
    let site = Site::suite();
    for (path, code) in [
        (format!("{}/subdir/i-do-not-exist?format=car", TWO[0]), 404),
        (format!("{}/subdir/ascii.txt/x?format=car", TWO[0]), 404),
        (format!("{}?format=car", MISSING_PARTS[1]), 404),
        (format!("{FILE}?format=car&dag-scope=half"), 400),
        (format!("{FILE}?format=car&car-version=2"), 400),
        (format!("{FILE}?format=car&car-order=bfs"), 400),
        (format!("{FILE}?format=car&car-dups=maybe"), 400),
        (format!("{FILE}?format=car&entity-bytes=1"), 400),
        (format!("{FILE}?format=car&entity-bytes=5:4"), 400),
        (format!("{FILE}?format=car&entity-bytes=1026:*"), 400),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = site.ask(method, &format!("/ipfs/{path}"), &[]).await;
            assert_eq!(answer.code(), code, "{method} {path}");
        }
    }
    // A block in the middle that nobody has ends the connection, not the CAR.
    for query in ["", "&entity-bytes=0:*", "&entity-bytes=1000:1030"] {
        let answer = site
            .get(&format!("/ipfs/{MISSING}?format=car{query}"))
            .await;
        assert_eq!(answer.code(), 200, "{query}");
        assert!(
            answer.body.unwrap_err().contains(MISSING_PARTS[1]),
            "{query}"
        );
    }
    // There are no ranges of a CAR.
    let range = [("range", "bytes=0-9")];
    let answer = site
        .ask("GET", &format!("/ipfs/{HELLO}?format=car"), &range)
        .await;
    assert_eq!((answer.code(), answer.header("content-range")), (200, ""));
    // Identity blocks are in their CIDs, and a root is named all the same.
    let identity = "bafkqaf3imvwgy3zaneqgc3janfxgy2lomvscay3jmqfa";
    for query in ["", "&car-dups=y", "&dag-scope=block", "&dag-scope=entity"] {
        let answer = site
            .get(&format!("/ipfs/{identity}?format=car{query}"))
            .await;
        let (header, blocks) = read_car(answer.bytes());
        assert!(blocks.is_empty(), "{query}");
        let root = cid::parse(identity).unwrap().to_bytes();
        assert!(
            header.windows(root.len()).any(|part| part == root),
            "{query}"
        );
    }
}
