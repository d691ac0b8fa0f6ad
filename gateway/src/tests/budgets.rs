//! What one request may cost: whatever runs out is named with its key and its figure.

use super::support::{Answer, Site, ask};
use crate::config::{BytesMax, Config};
use cairn_store::{Cid, cid};
use std::num::NonZeroU32;

const fn most(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn bytes(text: &str) -> BytesMax {
    text.parse().unwrap()
}

/// Refused with these words.
fn refused(answer: &Answer, key: &str, figure: &str) {
    assert_eq!(answer.code(), 410, "{:?}", answer.body);
    let text = answer.text();
    for part in [&format!("`{key}`"), figure, "cairn get", "raise the limit"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(answer.header("cache-control"), "no-store");
}

/// Broken off for the same reason.
fn broken(answer: &Answer, key: &str, figure: &str) {
    assert_eq!(answer.code(), 200);
    let why = answer.body.as_ref().unwrap_err();
    assert!(why.contains(key) && why.contains(figure), "{why}");
}

/// `a/a/…/file`, so many folders.
fn nested(site: &mut Site, folders: usize) -> Cid {
    let mut root = site.raw("deep");
    for _ in 0..folders {
        root = site.folder(&[("a", root)]);
    }
    root
}

#[tokio::test]
async fn blocks_that_are_read_have_a_limit_whatever_is_made_of_them() {
    let mut site = Site::new();
    let key = "gateway.request_blocks_max";
    let file = site.file(&[&[1; 1000], &[2; 1000], &[3; 1000]]);
    site.config.request_blocks_max = most(4);
    assert_eq!(site.get(&format!("/ipfs/{file}")).await.code(), 200);
    site.config.request_blocks_max = most(3);
    refused(&site.get(&format!("/ipfs/{file}")).await, key, "3 blocks");
    // The way counts too.
    let root = nested(&mut site, 3);
    let path = |folders: usize| format!("/ipfs/{root}{}", "/a".repeat(folders));
    assert_eq!(site.get(&format!("{}/", path(2))).await.code(), 200);
    refused(&site.get(&path(3)).await, key, "3 blocks");
    let large: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![at; 100_000]).collect();
    let large: Vec<&[u8]> = large.iter().map(Vec::as_slice).collect();
    let large = site.file(&large);
    for query in ["", "?format=car", "?format=tar"] {
        let answer = site.get(&format!("/ipfs/{large}{query}")).await;
        broken(&answer, key, "3 blocks");
    }
}

#[tokio::test]
async fn each_request_has_blocks_of_its_own() {
    let mut site = Site::new();
    let file = site.file(&[b"a", b"b"]);
    site.config.request_blocks_max = most(3);
    let handler = site.handler();
    for _ in 0..5 {
        let answer = ask(&handler, "GET", &format!("/ipfs/{file}"), &[]).await;
        assert_eq!(answer.text(), "ab");
    }
}

#[tokio::test]
async fn content_that_is_too_large_is_refused_before_its_first_byte() {
    let mut site = Site::new();
    let key = "gateway.request_bytes_max";
    let file = site.file(&[&[1; 1024], &[2; 1024], &[3; 1024]]);
    let path = format!("/ipfs/{file}");
    site.config.request_bytes_max = bytes("2KiB");
    for method in ["GET", "HEAD"] {
        let answer = site.ask(method, &path, &[]).await;
        assert_eq!(answer.code(), 410, "{method}");
    }
    refused(&site.get(&path).await, key, "2KiB");
    for (range, code) in [
        ("bytes=0-2047", 206),
        ("bytes=-2048", 206),
        ("bytes=0-2048", 410),
        ("bytes=0-1000,1024-2000", 206),
        ("bytes=0-1500,1600-2700", 410),
    ] {
        let answer = site.ask("GET", &path, &[("range", range)]).await;
        assert_eq!(answer.code(), code, "{range}");
    }
    site.config.request_bytes_max = bytes("3KiB");
    assert_eq!(site.get(&path).await.bytes().len(), 3072);
}

#[tokio::test]
async fn bytes_that_are_read_have_a_limit_where_none_knows_them_before() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..16_u8).map(|at| vec![at; 1 << 20]).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    site.config.request_bytes_max = bytes("4MiB");
    for query in ["?format=car", "?format=tar"] {
        let answer = site.get(&format!("/ipfs/{file}{query}")).await;
        broken(&answer, "gateway.request_bytes_max", "4MiB");
    }
    // As much as that comes, with all that holds it together.
    let part = format!("/ipfs/{file}?format=car&entity-bytes=0:4194303");
    assert!(site.get(&part).await.bytes().len() > 4 << 20);
}

#[tokio::test]
async fn levels_have_a_limit() {
    let mut site = Site::new();
    let mut chain = site.raw("end");
    for _ in 0..10 {
        chain = site.put(cid::DAG_JSON, format!("{{\"next\":{{\"/\":\"{chain}\"}}}}"));
    }
    let folders = nested(&mut site, 10);
    let key = "gateway.depth_max";
    site.config.depth_max = most(10);
    for (root, query) in [(chain, "car"), (folders, "car"), (folders, "tar")] {
        let answer = site.get(&format!("/ipfs/{root}?format={query}")).await;
        assert!(!answer.is_broken(), "{query}: {:?}", answer.body);
    }
    site.config.depth_max = most(9);
    for root in [chain, folders] {
        let answer = site.get(&format!("/ipfs/{root}?format=car")).await;
        broken(&answer, key, "9 levels");
    }
    let answer = site.get(&format!("/ipfs/{folders}?format=tar")).await;
    refused(&answer, key, "9 levels");
}

#[tokio::test]
async fn archives_have_limits_of_their_own() {
    let mut site = Site::new();
    let file = site.file(&[&[1; 1024], &[2; 1024], &[3; 1024]]);
    let root = site.folder(&[("a", file), ("b", file)]);
    site.config.archive_entries_max = most(2);
    let tar = format!("/ipfs/{root}?format=tar");
    refused(
        &site.get(&tar).await,
        "gateway.archive_entries_max",
        "2 entries",
    );
    for query in ["", "&entity-bytes=0:*"] {
        let answer = site.get(&format!("/ipfs/{file}?format=car{query}")).await;
        broken(&answer, "gateway.archive_entries_max", "2 blocks");
    }
    site.config = Config::default();
    site.config.archive_bytes_max = bytes("5KiB");
    refused(&site.get(&tar).await, "gateway.archive_bytes_max", "5KiB");
    site.config.archive_bytes_max = bytes("2KiB");
    for query in ["", "&entity-bytes=0:*"] {
        let answer = site.get(&format!("/ipfs/{file}?format=car{query}")).await;
        broken(&answer, "gateway.archive_bytes_max", "2KiB");
    }
}

#[tokio::test]
async fn a_folders_page_says_which_limit_it_came_to() {
    let mut site = Site::new();
    let names: Vec<String> = (0..11_500).map(|at| format!("{at}.txt")).collect();
    let root = site.hamt(&names);
    let path = format!("/ipfs/{root}/");
    site.config.request_blocks_max = most(20);
    let answer = site.get(&path).await;
    refused(&answer, "gateway.request_blocks_max", "20 blocks");
    // What comes while the page is sent is in its last row. The last shards hold a few hundred of these entries.
    let shards = site.here.keys().filter(|cid| cid.codec() == cid::DAG_PB);
    let all = u32::try_from(shards.count()).unwrap();
    site.config.request_blocks_max = most(all - 5);
    let page = site.get(&path).await;
    assert_eq!(page.code(), 200);
    let told = format!("{} blocks", all - 5);
    assert!(page.text().contains(&told), "{}", page.text().len());
    assert!(page.text().contains("`gateway.request_blocks_max`"));
    assert!(page.text().ends_with("</html>\n"));
}

#[test]
fn by_default_a_tebibyte_and_a_million_entries_come_whole() {
    let config = Config::default();
    // In chunks of 256 KiB, with nodes of 174 links.
    let leaves = 1_u32 << 22;
    let nodes = leaves / 174 + leaves / 174 / 174 + 3;
    assert!(config.archive_entries_max.get() >= leaves + nodes);
    // Narrow windows of 1 MiB read two nodes for four leaves.
    assert!(config.request_blocks_max.get() >= leaves + leaves / 2);
    assert_eq!(config.request_bytes_max, BytesMax::UNLIMITED);
    assert_eq!(config.archive_bytes_max, BytesMax::UNLIMITED);
    assert!(config.listing_entries_max.get() >= 1_000_000);
    // A HAMT of them has about 95,000 shards.
    assert!(config.request_blocks_max.get() >= 100_000);
}
