//! Questions and content that are made to cost more than they should. What is counted is the blocks that are read for
//! an answer, not how long it takes.

use super::support::{Answer, Site, bytes, number};
use cairn_store::Cid;
use http::Request;
use http_body_util::{BodyExt, Empty};

/// Of a folder or a file, below the root: a node and a leaf, which is asked for a part and then for its size.
const READS_PER_RANGE: u64 = 3;
/// What opening content and finding out its type reads.
const READS_AT_FIRST: u64 = 1 + READS_PER_RANGE;
/// What a reader asks for ahead of what it needs.
const READS_AHEAD: u64 = 16;

/// A file of these parts, each with the size that it says it has.
fn parts(site: &mut Site, parts: &[(Cid, u64)]) -> (Cid, u64) {
    let size = parts.iter().map(|(_, size)| size).sum();
    let mut data = vec![0x08, 2];
    number(&mut data, 3, size);
    for (_, size) in parts {
        number(&mut data, 4, *size);
    }
    let links: Vec<_> = parts.iter().map(|(cid, size)| ("", *cid, *size)).collect();
    (site.node(&links, data), size)
}

const LEAF_BYTES: u64 = 1024;
const LEAVES_PER_NODE: u64 = 64;
const SIZE: u64 = LEAF_BYTES * LEAVES_PER_NODE * LEAVES_PER_NODE;

/// A file of 4 MiB in 4096 leaves below 64 nodes.
fn many_blocks(site: &mut Site) -> Cid {
    let mut nodes = Vec::new();
    for node in 0..LEAVES_PER_NODE {
        let leaves: Vec<_> = (0..LEAVES_PER_NODE)
            .map(|leaf| {
                let mut data = vec![b'x'; 1024];
                data[..16].copy_from_slice(format!("{node:08}{leaf:08}").as_bytes());
                (site.raw(data), LEAF_BYTES)
            })
            .collect();
        nodes.push(parts(site, &leaves));
    }
    parts(site, &nodes).0
}

/// An answer, and how many blocks were read for it.
async fn counted(site: &Site, path: &str, headers: &[(&str, &str)]) -> (Answer, u64) {
    let before = site.asked();
    let answer = site.ask("GET", path, headers).await;
    (answer, site.asked() - before)
}

#[tokio::test]
async fn a_bomb_of_ranges_reads_no_more_than_the_file_has() {
    let mut site = Site::new();
    let path = format!("/ipfs/{}", many_blocks(&mut site));
    let (answer, whole) = counted(&site, &path, &[]).await;
    assert_eq!((answer.code(), answer.bytes().len() as u64), (200, SIZE));
    let repeated = |range: &str, count: usize| format!("bytes={}", vec![range; count].join(","));
    let spread = |count: u64| {
        let ranges = (0..count).map(|at| format!("{0}-{0}", at * (SIZE / count)));
        format!("bytes={}", ranges.collect::<Vec<_>>().join(","))
    };
    for (range, status, most) in [
        // More than are answered in parts.
        (repeated("0-0", 10_000), 200, whole),
        (repeated("0-", 10_000), 200, whole),
        (repeated("-1", 10_000), 200, whole),
        (repeated("18446744073709551615-", 10_000), 200, whole),
        (spread(17), 200, whole),
        (spread(5000), 200, whole),
        // More bytes than there are.
        (repeated("0-", 2), 200, whole),
        (repeated("0-", 16), 200, whole),
        (repeated("-4194304", 16), 200, whole),
        // All of it in parts, again and again the same.
        (repeated("0-262143", 16), 206, whole + READS_AT_FIRST),
        (
            repeated("0-0", 16),
            206,
            16 * READS_PER_RANGE + READS_AT_FIRST,
        ),
        (spread(16), 206, 16 * READS_PER_RANGE + READS_AT_FIRST),
    ] {
        let (answer, read) = counted(&site, &path, &[("range", &range)]).await;
        assert_eq!(answer.code(), status, "{range:.60}");
        assert!(read <= most, "{range:.60}: {read} blocks, at most {most}");
        if status == 200 {
            assert_eq!(answer.bytes().len() as u64, SIZE, "{range:.60}");
        } else {
            let length = answer.bytes().len();
            assert_eq!(answer.header("content-length"), length.to_string());
            assert!(length as u64 <= SIZE + 16 * 200, "{range:.60}: {length}");
        }
    }
}

#[tokio::test]
async fn numbers_beyond_the_file_and_beyond_64_bits_are_cut_or_refused() {
    let mut site = Site::new();
    let path = format!("/ipfs/{}", many_blocks(&mut site));
    let commas = format!("bytes={}5-6", ",".repeat(40_000));
    let outside = format!("bytes={}5-6", "4194304-,".repeat(15));
    let whole = "0-4194303";
    for (range, status, told) in [
        ("bytes=4194303-", 206, "4194303-4194303"),
        ("bytes=4194304-", 416, "*"),
        ("bytes=4194304-4194304", 416, "*"),
        ("bytes=18446744073709551615-", 416, "*"),
        ("bytes=18446744073709551615-18446744073709551615", 416, "*"),
        ("bytes=18446744073709551616-", 416, "*"),
        (
            "bytes=99999999999999999999999999-99999999999999999999999999",
            416,
            "*",
        ),
        ("bytes=0-18446744073709551615", 206, whole),
        ("bytes=0-18446744073709551616", 206, whole),
        ("bytes=0-99999999999999999999999999", 206, whole),
        ("bytes=-18446744073709551615", 206, whole),
        ("bytes=-18446744073709551616", 206, whole),
        ("bytes=-0", 416, "*"),
        ("bytes=-0,-0", 416, "*"),
        ("bytes=-0,7-7", 206, "7-7"),
        ("bytes=-1", 206, "4194303-4194303"),
        (
            "bytes=-00000000000000000000000000000001",
            206,
            "4194303-4194303",
        ),
        ("bytes=5-4", 400, ""),
        ("bytes=18446744073709551615-0", 400, ""),
        ("bytes=--1", 400, ""),
        ("bytes=-1-", 400, ""),
        ("bytes=+1-2", 400, ""),
        ("bytes=0x1-2", 400, ""),
        ("bytes=1e3-", 400, ""),
        ("bytes=1", 400, ""),
        ("bytes=0-0;q=1", 400, ""),
        ("bytes=\u{661}-", 400, ""),
        ("bytes=,,,,", 400, ""),
        ("bytes", 400, ""),
        (&commas, 206, "5-6"),
        (&outside, 206, "5-6"),
        ("octets=0-0", 200, ""),
    ] {
        let (answer, read) = counted(&site, &path, &[("range", range)]).await;
        assert_eq!(answer.code(), status, "{range:.60}");
        let expected = match told {
            "" => String::new(),
            told => format!("bytes {told}/{SIZE}"),
        };
        assert_eq!(answer.header("content-range"), expected, "{range:.60}");
        if status >= 400 {
            assert_eq!(read, 1, "{range:.60}");
        }
    }
}

/// A HAMT node with these bits, and these links in their order.
fn shard(site: &mut Site, fanout: u64, bits: &[u8], links: &[(&str, Cid)]) -> Cid {
    hashed(site, 0x22, fanout, bits, links)
}

fn hashed(site: &mut Site, hash: u64, fanout: u64, bits: &[u8], links: &[(&str, Cid)]) -> Cid {
    let mut data = vec![0x08, 5];
    bytes(&mut data, 2, bits);
    number(&mut data, 5, hash);
    number(&mut data, 6, fanout);
    let links: Vec<_> = links.iter().map(|(name, cid)| (*name, *cid, 1)).collect();
    site.node(&links, data)
}

/// A shard of 256 buckets that all lead to this one.
fn wide(site: &mut Site, child: Cid) -> Cid {
    let names: Vec<String> = (0..256).map(|bucket| format!("{bucket:02X}")).collect();
    let links: Vec<_> = names.iter().map(|name| (name.as_str(), child)).collect();
    shard(site, 256, &[0xff; 32], &links)
}

#[tokio::test]
async fn a_shard_that_cannot_be_is_refused_after_a_few_blocks() {
    let mut site = Site::new();
    let file = site.raw("x");
    let good = shard(&mut site, 256, &[1], &[("00name", file)]);
    let other_width = shard(&mut site, 16, &[1], &[("0name", file)]);
    let mut chain = good;
    for _ in 0..10_000 {
        chain = shard(&mut site, 256, &[1], &[("00", chain)]);
    }
    let folder = site.folder(&[("name", file)]);
    for (what, root) in [
        ("fanout 0", shard(&mut site, 0, &[1], &[("00name", file)])),
        ("fanout 7", shard(&mut site, 7, &[1], &[("0name", file)])),
        (
            "fanout 2048",
            shard(&mut site, 2048, &[1], &[("000name", file)]),
        ),
        (
            "fanout 2^63",
            shard(&mut site, 1 << 63, &[1], &[("00name", file)]),
        ),
        (
            "bits beyond it",
            shard(&mut site, 8, &[1, 0], &[("0name", file)]),
        ),
        (
            "more bits than links",
            shard(&mut site, 256, &[3], &[("00name", file)]),
        ),
        ("fewer", shard(&mut site, 256, &[], &[("00name", file)])),
        (
            "4 KiB of bits",
            shard(&mut site, 256, &[0xff; 4096], &[("00name", file)]),
        ),
        (
            "no such prefix",
            shard(&mut site, 256, &[1], &[("name", file)]),
        ),
        (
            "another prefix",
            shard(&mut site, 256, &[1], &[("01name", file)]),
        ),
        (
            "another hash",
            hashed(&mut site, 0x12, 256, &[1], &[("00name", file)]),
        ),
        ("the wrong bucket", good),
        (
            "another width below",
            shard(&mut site, 256, &[1], &[("00", other_width)]),
        ),
        (
            "a file as a shard",
            shard(&mut site, 256, &[1], &[("00", file)]),
        ),
        (
            "a folder as a shard",
            shard(&mut site, 256, &[1], &[("00", folder)]),
        ),
        ("shards without an end", chain),
    ] {
        for query in ["/", "?format=tar"] {
            let (answer, read) = counted(&site, &format!("/ipfs/{root}{query}"), &[]).await;
            assert_eq!(answer.code(), 422, "{what}{query}: {:?}", answer.body);
            assert!(read <= 2 + LEVELS + READS_AHEAD, "{what}{query}: {read}");
        }
        // What leads nowhere may end before it meets the fault.
        let (answer, read) = counted(&site, &format!("/ipfs/{root}/name"), &[]).await;
        assert!(
            matches!(answer.code(), 404 | 422),
            "{what}: {}",
            answer.code()
        );
        assert!(read <= 1 + LEVELS, "{what}: {read}");
        // Blocks are checked one by one and make no claim about what they are together.
        let path = format!("/ipfs/{root}?format=car&dag-scope=block");
        let (answer, read) = counted(&site, &path, &[]).await;
        assert_eq!((answer.code(), read <= 3), (200, true), "{what}: {read}");
    }
}

/// The hash of a name lasts for so many shards of 256 buckets.
const LEVELS: u64 = 8;

#[tokio::test]
async fn shards_that_hold_nothing_count_against_the_limits_of_a_request() {
    let mut site = Site::new();
    let most: u32 = 500;
    site.config.archive_entries_max = most.try_into().unwrap();
    site.config.listing_entries_max = most.try_into().unwrap();
    let bound = u64::from(most) + 2 * READS_AHEAD + LEVELS;
    let mut bomb = shard(&mut site, 256, &[], &[]);
    for _ in 1..LEVELS {
        bomb = wide(&mut site, bomb);
    }
    let (page, read) = counted(&site, &format!("/ipfs/{bomb}/"), &[]).await;
    assert_eq!(page.code(), 200);
    assert!(page.text().contains("more entries than one page shows"));
    assert!(read <= bound, "{read}");
    let (answer, read) = counted(&site, &format!("/ipfs/{bomb}?format=tar"), &[]).await;
    assert_eq!(answer.code(), 410);
    assert!(read <= bound, "{read}");
    // Each block once is few of them; each time it is linked, or looked at, too many.
    for (query, is_broken) in [
        ("", false),
        ("&dag-scope=entity", true),
        ("&car-dups=y", true),
        ("&car-dups=y&dag-scope=entity", true),
    ] {
        let path = format!("/ipfs/{bomb}?format=car{query}");
        let (answer, read) = counted(&site, &path, &[]).await;
        assert_eq!(
            (answer.code(), answer.is_broken()),
            (200, is_broken),
            "{query}"
        );
        assert!(read <= bound, "{query}: {read}");
    }
    let (answer, read) = counted(&site, &format!("/ipfs/{bomb}/name"), &[]).await;
    assert_eq!(answer.code(), 404);
    assert!(read <= 1 + LEVELS, "{read}");
}

#[tokio::test]
async fn folders_that_hold_nothing_cost_a_tar_no_more_together_than_one_may() {
    let mut site = Site::new();
    let most: u32 = 500;
    site.config.archive_entries_max = most.try_into().unwrap();
    let mut empty = shard(&mut site, 256, &[], &[]);
    empty = wide(&mut site, empty);
    let names: Vec<String> = (0..most / 2).map(|at| format!("{at:04}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), empty)).collect();
    let root = site.folder(&entries);
    let (answer, read) = counted(&site, &format!("/ipfs/{root}?format=tar"), &[]).await;
    // Two of these folders are made of more shards than a TAR may have entries.
    assert_eq!(
        answer.code(),
        410,
        "{:?}",
        answer.body.map(|body| body.len())
    );
    let bound = 2 * u64::from(most) + 2 * READS_AHEAD;
    assert!(read <= bound, "{read}");
}

#[tokio::test]
async fn a_chain_of_folders_is_followed_as_far_as_a_path_or_a_budget_goes() {
    let mut site = Site::new();
    let mut root = site.folder(&[]);
    for _ in 0..10_000 {
        root = site.folder(&[("a", root)]);
    }
    let depth = u64::from(site.config.depth_max.get());
    let names = |count: usize| "/a".repeat(count);
    let longest = cairn_store::dag::path::SEGMENTS_MAX;
    for (rest, status, is_broken, most) in [
        ("/".to_owned(), 200, false, 2),
        (
            format!("{}/", names(longest)),
            200,
            false,
            longest as u64 + 2,
        ),
        (names(longest + 1), 400, false, 0),
        (names(10_000), 400, false, 0),
        ("?format=tar".to_owned(), 200, true, depth + 2),
        ("?format=car".to_owned(), 200, true, depth + 2 + READS_AHEAD),
        ("?format=car&dag-scope=entity".to_owned(), 200, false, 3),
        ("?format=car&entity-bytes=0:*".to_owned(), 200, false, 3),
    ] {
        let (answer, read) = counted(&site, &format!("/ipfs/{root}{rest}"), &[]).await;
        assert_eq!(
            (answer.code(), answer.is_broken()),
            (status, is_broken),
            "{rest:.60}"
        );
        assert!(read <= most, "{rest:.60}: {read} blocks, at most {most}");
    }
}

#[tokio::test]
async fn a_file_deeper_than_any_file_is_refused() {
    let mut site = Site::new();
    let leaf = site.raw("x");
    let (mut root, mut size) = parts(&mut site, &[(leaf, 1)]);
    for _ in 0..10_000 {
        (root, size) = parts(&mut site, &[(root, size)]);
    }
    for range in ["bytes=0-", "bytes=-1"] {
        let path = format!("/ipfs/{root}");
        let (answer, read) = counted(&site, &path, &[("range", range)]).await;
        assert_eq!(answer.code(), 422, "{range}");
        assert!(read <= FILE_DEPTH_MAX + 2, "{range}: {read}");
    }
    let before = site.asked();
    assert_eq!(site.head(&format!("/ipfs/{root}")).await.code(), 422);
    assert!(site.asked() - before <= FILE_DEPTH_MAX + 2);
    let depth = u64::from(site.config.depth_max.get());
    for (query, status, is_broken, most) in [
        ("tar", 422, false, FILE_DEPTH_MAX + 2),
        ("car", 200, true, depth + 2 + READS_AHEAD),
        ("car&entity-bytes=0:0", 200, true, depth + 3),
    ] {
        let (answer, read) = counted(&site, &format!("/ipfs/{root}?format={query}"), &[]).await;
        assert_eq!(
            (answer.code(), answer.is_broken()),
            (status, is_broken),
            "{query}"
        );
        assert!(read <= most, "{query}: {read}");
    }
}

/// As the reader has it.
const FILE_DEPTH_MAX: u64 = 64;

/// A file of 2^40 bytes in 31 blocks: each node links the one below it twice.
fn doubled(site: &mut Site) -> Cid {
    let leaf = site.raw(vec![b'x'; 1024]);
    let (mut root, mut size) = (leaf, LEAF_BYTES);
    for _ in 0..30 {
        (root, size) = parts(site, &[(root, size), (root, size)]);
    }
    assert_eq!(size, 1 << 40);
    root
}

#[tokio::test]
async fn a_file_of_a_few_blocks_and_a_terabyte_costs_what_is_taken_of_it() {
    let mut site = Site::new();
    site.config.archive_entries_max = 500.try_into().unwrap();
    site.config.archive_bytes_max = "1MiB".parse().unwrap();
    let root = doubled(&mut site);
    let path = format!("/ipfs/{root}");
    // The way down, and what is asked for ahead on each of its levels.
    let way = 30 * READS_AHEAD;
    let before = site.asked();
    let head = site.head(&path).await;
    assert_eq!(head.header("content-length"), "1099511627776");
    assert!(site.asked() - before <= way, "{}", site.asked() - before);
    for range in ["549755813888-549755814911", "-1", "0-0", "1099511627775-"] {
        let range = format!("bytes={range}");
        let (answer, read) = counted(&site, &path, &[("range", &range)]).await;
        assert_eq!(answer.code(), 206, "{range}");
        assert!(read <= 2 * way, "{range}: {read}");
    }
    for (query, status, is_broken, most) in [
        ("car", 200, false, 31 + 2 + READS_AHEAD),
        ("car&car-dups=y", 200, true, 500 + 2 + READS_AHEAD),
        ("car&entity-bytes=0:0", 200, false, 31 + 3),
        ("car&entity-bytes=0:*", 200, true, 500 + 3),
        ("car&entity-bytes=0:*&car-dups=y", 200, true, 500 + 3),
        ("tar", 410, false, 1),
    ] {
        let (answer, read) = counted(&site, &format!("{path}?format={query}"), &[]).await;
        assert_eq!(
            (answer.code(), answer.is_broken()),
            (status, is_broken),
            "{query}"
        );
        assert!(read <= most, "{query}: {read} blocks, at most {most}");
    }
    // Whoever takes a MiB and no more has caused the reading of that, and of one window.
    let before = site.asked();
    let request = Request::get(&path).body(Empty::<bytes::Bytes>::new());
    let mut body = site.handler().answer(request.unwrap()).await.into_body();
    let mut taken = 0;
    while taken < 1 << 20 {
        let frame = body.frame().await.unwrap().unwrap();
        taken += frame.into_data().unwrap().len();
    }
    let (read, leaves) = (site.asked() - before, (2 << 20) / LEAF_BYTES);
    assert!(read <= 2 * leaves + 2 * way, "{read}");
}

#[tokio::test]
async fn sizes_that_are_not_so_are_never_a_whole_answer() {
    let mut site = Site::new();
    let leaf = site.raw("0123456789");
    let large = site.raw(vec![b'x'; 300 << 10]);
    let file = |site: &mut Site, said: u64, sizes: &[u64], links: &[Cid]| {
        let mut data = vec![0x08, 2];
        number(&mut data, 3, said);
        for size in sizes {
            number(&mut data, 4, *size);
        }
        let links: Vec<_> = links.iter().map(|cid| ("", *cid, 1)).collect();
        site.node(&links, data)
    };
    let most = u64::MAX;
    for (what, root, status) in [
        (
            "more than there is",
            file(&mut site, 11, &[11], &[leaf]),
            422,
        ),
        ("less", file(&mut site, 9, &[9], &[leaf]), 422),
        (
            "all there could be",
            file(&mut site, most, &[most], &[leaf]),
            422,
        ),
        (
            "beyond 64 bits",
            file(&mut site, most, &[most, 1], &[leaf, leaf]),
            422,
        ),
        ("another sum", file(&mut site, 11, &[10], &[leaf]), 422),
        (
            "a size too many",
            file(&mut site, 20, &[10, 10], &[leaf]),
            422,
        ),
        (
            "a link too many",
            file(&mut site, 10, &[10], &[leaf, leaf]),
            422,
        ),
        (
            "too late for a status",
            file(
                &mut site,
                (300 << 10) + 11,
                &[300 << 10, 11],
                &[large, leaf],
            ),
            200,
        ),
    ] {
        let path = format!("/ipfs/{root}");
        let (answer, _) = counted(&site, &path, &[]).await;
        assert_eq!(answer.code(), status, "{what}");
        assert_eq!(answer.is_broken(), status == 200, "{what}");
        let (answer, _) = counted(&site, &format!("{path}?format=tar"), &[]).await;
        assert_eq!(
            (answer.code(), answer.is_broken()),
            (status, status == 200),
            "{what}"
        );
        let (answer, _) = counted(&site, &path, &[("range", "bytes=-1")]).await;
        assert_eq!(answer.code(), 422, "{what}");
    }
}
