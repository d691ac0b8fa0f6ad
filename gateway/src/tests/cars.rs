//! CARs: order, parts, and honest ends.

use super::readers::{read_car, read_tar};
use super::support::{Missing, Site, number};
use cairn_store::{Cid, cid};

struct Tree {
    site: Site,
    root: Cid,
    folder: Cid,
    file: Cid,
    leaves: Vec<Cid>,
}

/// `root/folder/file`, the file in three chunks of 1024 bytes, and a neighbour in the folder.
fn tree() -> Tree {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..3_u8).map(|at| vec![at; 1024]).collect();
    let leaves = chunks.iter().map(|chunk| site.raw(chunk.clone())).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let file = site.file(&chunks);
    let other = site.raw("other");
    let folder = site.folder(&[("file", file), ("other", other)]);
    let root = site.folder(&[("folder", folder)]);
    Tree {
        site,
        root,
        folder,
        file,
        leaves,
    }
}

impl Tree {
    async fn car(&self, path: &str) -> Vec<Cid> {
        let answer = self.site.get(path).await;
        assert_eq!(answer.code(), 200, "{path}: {:?}", answer.body);
        read_car(answer.bytes()).1
    }
}

#[tokio::test]
async fn a_car_has_the_way_first_and_then_what_was_asked_for() {
    let tree = tree();
    let Tree {
        root,
        folder,
        file,
        leaves,
        ..
    } = &tree;
    let path = format!("/ipfs/{root}/folder/file?format=car");
    let mut expected = vec![*root, *folder, *file];
    expected.extend(leaves);
    assert_eq!(tree.car(&path).await, expected);
    assert_eq!(
        tree.car(&format!("{path}&dag-scope=entity")).await,
        expected
    );
    assert_eq!(
        tree.car(&format!("{path}&dag-scope=block")).await,
        expected[..3]
    );
    let answer = tree.site.get(&path).await;
    assert_eq!(
        answer.header("content-type"),
        "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    );
    assert_eq!(answer.header("accept-ranges"), "none");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(
        answer
            .header("content-disposition")
            .starts_with("attachment; filename=\"")
    );
    assert!(answer.header("content-disposition").contains(".car\""));
    assert!(
        answer
            .header("etag")
            .starts_with(&format!("W/\"{file}.car."))
    );
    assert_eq!(answer.header("content-length"), "");
    let known = [("if-none-match", answer.header("etag"))];
    assert_eq!(tree.site.ask("GET", &path, &known).await.code(), 304);
    let other = format!("{path}&dag-scope=block");
    assert_eq!(tree.site.ask("GET", &other, &known).await.code(), 200);
    let head = tree.site.head(&path).await;
    assert_eq!(
        (head.code(), head.bytes(), &head.headers),
        (200, &b""[..], &answer.headers)
    );
}

#[tokio::test]
async fn a_folder_as_an_entity_is_its_own_block() {
    let tree = tree();
    let path = format!("/ipfs/{}/folder?format=car", tree.root);
    assert_eq!(
        tree.car(&format!("{path}&dag-scope=entity")).await,
        [tree.root, tree.folder]
    );
    assert_eq!(
        tree.car(&format!("{path}&entity-bytes=0:5")).await,
        [tree.root, tree.folder]
    );
    assert_eq!(tree.car(&path).await.len(), 7);
}

#[tokio::test]
async fn bytes_of_an_entity_bring_only_their_leaves() {
    let mut tree = tree();
    let middle = tree.leaves[1];
    tree.site.lose(&middle);
    let (file, leaves) = (tree.file, tree.leaves.clone());
    let path = format!("/ipfs/{file}?format=car&entity-bytes=");
    for (bytes, at) in [
        ("0:0", vec![0]),
        ("0:1023", vec![0]),
        ("2048:*", vec![2]),
        ("-1024%3A%2A", vec![2]),
        ("-9999:-2049", vec![0]),
    ] {
        let mut expected = vec![file];
        expected.extend(at.into_iter().map(|at: usize| leaves[at]));
        assert_eq!(
            tree.car(&format!("{path}{bytes}")).await,
            expected,
            "{bytes}"
        );
    }
    let broken = tree.site.get(&format!("{path}1000:1100")).await;
    assert_eq!(broken.code(), 200);
    assert!(broken.body.unwrap_err().contains(&middle.to_string()));
    for wrong in ["5", "9:5", "9999:*", "a:b"] {
        assert_eq!(
            tree.site.get(&format!("{path}{wrong}")).await.code(),
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn repeats_come_only_when_asked_for() {
    let mut site = Site::new();
    let leaf = site.raw("twice");
    let file = site.file(&[b"twice", b"twice"]);
    for (query, dups, expected) in [
        ("", "n", vec![file, leaf]),
        ("&car-dups=y", "y", vec![file, leaf, leaf]),
        ("&car-dups=y&entity-bytes=0:*", "y", vec![file, leaf, leaf]),
        ("&entity-bytes=0:*", "n", vec![file, leaf]),
    ] {
        let answer = site.get(&format!("/ipfs/{file}?format=car{query}")).await;
        assert_eq!(read_car(answer.bytes()).1, expected, "{query}");
        assert!(
            answer
                .header("content-type")
                .ends_with(&format!("dups={dups}"))
        );
    }
    for wrong in [
        "car-version=2",
        "car-order=odd",
        "car-dups=odd",
        "dag-scope=odd",
    ] {
        assert_eq!(
            site.get(&format!("/ipfs/{file}?format=car&{wrong}"))
                .await
                .code(),
            400,
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_shared_node_still_brings_the_leaves_of_its_second_place() {
    let mut site = Site::new();
    let (first, second) = (site.raw(vec![1; 10]), site.raw(vec![2; 10]));
    let pair = site.file(&[&[1; 10], &[2; 10]]);
    let mut data = vec![0x08, 2];
    number(&mut data, 3, 40);
    number(&mut data, 4, 20);
    number(&mut data, 4, 20);
    let file = site.node(&[("", pair, 20), ("", pair, 20)], data);
    // The last half of the first pair and the first half of the second.
    let answer = site
        .get(&format!("/ipfs/{file}?format=car&entity-bytes=15:25"))
        .await;
    assert_eq!(read_car(answer.bytes()).1, [file, pair, second, first]);
}

#[tokio::test]
async fn identity_blocks_are_never_written() {
    let mut site = Site::new();
    let answer = site.get("/ipfs/bafkqaaa?format=car").await;
    assert_eq!(answer.code(), 200);
    let (header, blocks) = read_car(answer.bytes());
    assert!(blocks.is_empty());
    let root: Cid = cid::parse("bafkqaaa").unwrap();
    let written = root.to_bytes();
    assert!(
        header.windows(written.len()).any(|part| part == written),
        "the root is named"
    );
    let leaf = cid::parse("bafkqabtimvwgy3yk").unwrap();
    let folder = site.folder(&[("hello", leaf)]);
    let answer = site.get(&format!("/ipfs/{folder}/hello?format=car")).await;
    assert_eq!(read_car(answer.bytes()).1, [folder]);
}

#[tokio::test]
async fn a_car_of_documents_follows_their_links() {
    let mut site = Site::new();
    let leaf = site.raw("leaf");
    let inner = site.put(cid::DAG_JSON, format!("{{\"leaf\":{{\"/\":\"{leaf}\"}}}}"));
    let root = site.put(
        cid::DAG_JSON,
        format!("{{\"inner\":{{\"/\":\"{inner}\"}}}}"),
    );
    let answer = site.get(&format!("/ipfs/{root}?format=car")).await;
    assert_eq!(read_car(answer.bytes()).1, [root, inner, leaf]);
    let answer = site
        .get(&format!("/ipfs/{root}?format=car&dag-scope=entity"))
        .await;
    assert_eq!(read_car(answer.bytes()).1, [root]);
    let answer = site
        .get(&format!("/ipfs/{root}/inner?format=car&dag-scope=block"))
        .await;
    assert_eq!(read_car(answer.bytes()).1, [root, inner]);
}

#[tokio::test]
async fn a_car_that_cannot_begin_has_a_status_and_one_that_cannot_end_breaks() {
    let mut tree = tree();
    let path = format!("/ipfs/{}/folder/file?format=car", tree.root);
    let last = tree.leaves[2];
    tree.site.lose(&last);
    let broken = tree.site.get(&path).await;
    assert_eq!(broken.code(), 200);
    assert!(broken.body.unwrap_err().contains(&last.to_string()));
    let (root, file) = (tree.root, tree.file);
    tree.site.lose(&file);
    assert_eq!(tree.site.get(&path).await.code(), 404);
    assert_eq!(tree.site.head(&path).await.code(), 404);
    let absent = format!("/ipfs/{root}/folder/absent?format=car");
    assert_eq!(tree.site.get(&absent).await.code(), 404);
    tree.site.missing = Missing::TooSlow;
    assert_eq!(tree.site.get(&path).await.code(), 504);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stalls_breaks() {
    let mut tree = tree();
    tree.site.missing = Missing::Hangs;
    let last = tree.leaves[2];
    tree.site.lose(&last);
    let answer = tree
        .site
        .get(&format!("/ipfs/{}?format=car", tree.file))
        .await;
    assert!(answer.body.unwrap_err().contains("30s"));
}

#[tokio::test]
async fn a_car_stays_within_its_budget() {
    let mut tree = tree();
    tree.site.config.archive_entries_max = 3.try_into().unwrap();
    for query in ["", "&entity-bytes=0:*"] {
        let answer = tree
            .site
            .get(&format!("/ipfs/{}?format=car{query}", tree.file))
            .await;
        assert_eq!(answer.code(), 200);
        assert!(answer.body.is_err(), "{query}");
    }
}

#[tokio::test]
async fn a_hamt_as_an_entity_is_all_of_its_shards_and_none_of_its_children() {
    let mut site = Site::new();
    let child = site.raw("child");
    let shard = |site: &mut Site, bits: u8, links: &[(&str, Cid, u64)]| {
        let mut data = vec![0x08, 5];
        super::support::bytes(&mut data, 2, &[bits]);
        number(&mut data, 5, 0x22);
        number(&mut data, 6, 256);
        site.node(links, data)
    };
    let inner = shard(&mut site, 0b1000_0000, &[("07child", child, 5)]);
    let root = shard(
        &mut site,
        0b0000_0111,
        &[("00", inner, 5), ("01", inner, 5), ("02name", child, 5)],
    );
    let answer = site
        .get(&format!("/ipfs/{root}?format=car&dag-scope=entity"))
        .await;
    assert_eq!(answer.code(), 200, "{:?}", answer.body);
    assert_eq!(read_car(answer.bytes()).1, [root, inner]);
}

#[tokio::test]
async fn the_way_through_a_hamt_is_in_the_car_and_a_tar_unpacks_it() {
    let mut site = Site::new();
    let names: Vec<String> = (0..1500).map(|at| format!("{at}.txt")).collect();
    let root = site.hamt(&names);
    let answer = site.get(&format!("/ipfs/{root}/77.txt?format=car")).await;
    let (_, blocks) = read_car(answer.bytes());
    assert!(blocks.len() > 2 && blocks[0] == root, "{blocks:?}");
    // Whoever has only these blocks finds the file.
    let mut alone = Site::new();
    alone.here = site.here.clone();
    alone.here.retain(|cid, _| blocks.contains(cid));
    assert_eq!(
        alone.get(&format!("/ipfs/{root}/77.txt")).await.text(),
        "77.txt"
    );
    // Whoever has only the entity lists the folder.
    let answer = site
        .get(&format!("/ipfs/{root}?format=car&dag-scope=entity"))
        .await;
    let (_, blocks) = read_car(answer.bytes());
    assert!(blocks.iter().all(|cid| cid.codec() == cid::DAG_PB));
    alone.here = site.here.clone();
    alone.here.retain(|cid, _| blocks.contains(cid));
    let page = alone.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(page.text().matches("ipfs-hash\" translate").count(), 1500);
    let answer = site.get(&format!("/ipfs/{root}?format=tar")).await;
    let entries = read_tar(answer.bytes());
    assert_eq!(entries.len(), 1501);
    assert!(
        entries[1..]
            .iter()
            .all(|(path, _, text)| path.ends_with(text.as_str()))
    );
}
