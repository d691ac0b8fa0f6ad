//! Files, folders, blocks and TARs of the suite.

use super::super::readers::read_tar;
use super::super::support::Site;
use super::{CACHE, HELLO, LISTED_FILE, LISTING, MISSING, MISSING_PARTS, car, entry};
use cairn_store::cid::DAG_PB;

const PERCENT: &str = "bafybeig675grnxcmshiuzdaz2xalm6ef4thxxds6o6ypakpghm5kghpc34";
const SYMLINK: &str = "QmWvY6FaqFMS89YAQ9NAPjVP4WZKA1qbHbicc9HeSKQTgt";
const INSIDE: &str = "bafybeibfevfxlvxp5vxobr5oapczpf7resxnleb7tkqmdorc4gl5cdva3y";
const OUTSIDE: &str = "bafybeicaj7kvxpcv4neaqzwhrqqmdstu4dhrwfpknrgebq6nzcecfucvyu";
const RAW: [&str; 3] = [
    "bafybeie72edlprgtlwwctzljf6gkn2wnlrddqjbkxo3jomh4n7omwblxly",
    "bafybeifaqksygmsbnqe76kwvxoqxtkzcwssq5jkhuo65ldtqiunr3bxlra",
    "bafkreihhpc5y2pqvl5rbe5uuyhqjouybfs3rvlmisccgzue2kkt5zq6upq",
];
/// In no CAR.
const ABSENT: &str = "QmYzfKSE55XCjD1MW128RfciAf2DViABhEiXfgVFMabSjN";
const IMMUTABLE: &str = "public, max-age=29030400, immutable";
const GENERATED: &str = "public, max-age=604800, stale-while-revalidate=2678400";

#[tokio::test]
async fn a_path_is_decoded_once_and_plus_stays() {
    let site = Site::suite();
    let path = format!("/ipfs/{PERCENT}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt");
    let answer = site.get(&path).await;
    assert_eq!(
        (answer.code(), answer.text()),
        (200, "hello from a percent encoded filename\n")
    );
    let told = format!("/ipfs/{PERCENT}/Portugal%2C+España=Peninsula Ibérica.txt");
    assert_eq!(answer.header("x-ipfs-path"), told);
    let twice = path.replace("%252C", "%2C");
    assert_eq!(site.get(&twice).await.code(), 404);
    let page = site.get(&format!("/ipfs/{PERCENT}/")).await;
    let link = format!("href=\"{path}\"");
    assert!(page.text().contains(&link), "{}", page.text());
}

#[tokio::test]
async fn links_are_listed_by_name_and_answer_where_they_point() {
    let site = Site::suite();
    let page = site.get(&format!("/ipfs/{SYMLINK}/")).await;
    assert!(page.text().contains(">foo</a>") && page.text().contains(">bar</a>"));
    let link = site.get(&format!("/ipfs/{SYMLINK}/bar")).await;
    assert_eq!((link.code(), link.text()), (200, "foo"));
    assert_eq!(link.header("content-type"), "inode/symlink");
    assert_eq!(
        site.get(&format!("/ipfs/{SYMLINK}/foo")).await.text(),
        "content\n"
    );
    assert_eq!(
        site.get(&format!("/ipfs/{SYMLINK}/bar/x")).await.code(),
        404
    );
    // As they are linked.
    let roots = link.header("x-ipfs-roots");
    assert_eq!(
        roots,
        format!("{SYMLINK},QmTB8BaCJdCH5H3k7GrxJsxgDNmNYGGR71C58ERkivXoj5")
    );
}

#[tokio::test]
async fn a_range_needs_nothing_outside_of_it() {
    let site = Site::suite();
    let [first, last] = [0, 2].map(|at| {
        let cid = MISSING_PARTS[at].parse().unwrap();
        let node = cairn_store::dag::pb::decode(site.here[&cid].data()).unwrap();
        // UnixFS: a kind, then 1024 bytes, then their number.
        node.data.unwrap()[5..5 + 1024].to_vec()
    });
    let path = format!("/ipfs/{MISSING}");
    for (range, told, bytes) in [
        ("bytes=997-1000", "bytes 997-1000/3072", &first[997..=1000]),
        ("bytes=2200-2201", "bytes 2200-2201/3072", &last[152..=153]),
        ("bytes=-3", "bytes 3069-3071/3072", &last[1021..]),
    ] {
        let answer = site.ask("GET", &path, &[("range", range)]).await;
        assert_eq!((answer.code(), answer.bytes()), (206, bytes), "{range}");
        assert_eq!(answer.header("content-range"), told);
    }
    let both = site
        .ask("GET", &path, &[("range", "bytes=997-1000,2200-2201")])
        .await;
    assert_eq!(both.code(), 206);
    for told in ["bytes 997-1000/3072", "bytes 2200-2201/3072"] {
        let text = String::from_utf8_lossy(both.bytes());
        assert!(text.contains(told), "{text}");
    }
    assert_eq!(site.head(&path).await.code(), 200);
    assert_eq!(
        site.get(&path).await.code(),
        404,
        "it is small enough to be read first"
    );
}

#[tokio::test]
async fn folders_pages_and_files_say_how_long_they_hold_and_where_they_lie() {
    let site = Site::suite();
    let name = "k51qzi5uqu5dlxdsdu5fpuu7h69wu4ohp32iwm9pdt9nq3y5rpn3ln9j12zfhe";
    for (below, is_page, etag) in [
        ("/", true, CACHE[0]),
        ("/root2/", true, CACHE[1]),
        ("/root2/root3/", true, CACHE[2]),
        // Through index.html: of the folder, not of the file.
        ("/root2/root3/root4/", false, CACHE[3]),
        ("/root2/root3/root4/index.html", false, CACHE[4]),
    ] {
        let depth = below.split('/').filter(|name| !name.is_empty()).count();
        let roots = CACHE[..=depth].join(",");
        for (root, cache) in [
            (
                format!("/ipfs/{}", CACHE[0]),
                if is_page { GENERATED } else { IMMUTABLE },
            ),
            (format!("/ipns/{name}"), "public, max-age=1234"),
        ] {
            let path = format!("{root}{below}");
            let answer = site.get(&path).await;
            assert_eq!(answer.code(), 200, "{path}");
            assert_eq!(answer.header("x-ipfs-path"), path);
            assert_eq!(answer.header("x-ipfs-roots"), roots, "{path}");
            assert_eq!(answer.headers.get_all("x-ipfs-roots").iter().count(), 1);
            assert_eq!(answer.header("cache-control"), cache, "{path}");
            assert_eq!(answer.header("last-modified"), "");
            let told = answer.header("etag").to_owned();
            match is_page {
                true => assert!(
                    told.starts_with("\"DirIndex-") && told.ends_with(&format!("_CID-{etag}\""))
                ),
                false => {
                    assert_eq!(told, format!("\"{etag}\""));
                    assert_eq!(answer.text(), "hello\n");
                }
            }
            for known in [
                told.clone(),
                format!("W/{told}"),
                format!("\"fakeEtag\", {told}"),
                format!("\"x\",W/{told}"),
                "*".to_owned(),
            ] {
                let again = site.ask("GET", &path, &[("if-none-match", &known)]).await;
                assert_eq!(
                    (again.code(), again.header("etag")),
                    (304, told.as_str()),
                    "{path} {known}"
                );
                assert_eq!(again.header("cache-control"), cache);
                assert!(again.bytes().is_empty());
            }
            let other = site
                .ask("GET", &path, &[("if-none-match", "\"fakeEtag\"")])
                .await;
            assert_eq!(other.code(), 200);
        }
    }
}

#[tokio::test]
async fn only_what_is_here_is_given_to_who_wants_it_from_here() {
    let mut site = Site::suite();
    // Whoever looked further would wait for ever.
    site.missing = super::super::support::Missing::Hangs;
    let cached = [("cache-control", "only-if-cached")];
    for method in ["GET", "HEAD"] {
        let here = format!("/ipfs/{}/root2/root3/root4/index.html", CACHE[0]);
        assert_eq!(site.ask(method, &here, &cached).await.code(), 200);
        for absent in [ABSENT, MISSING_PARTS[1]] {
            for query in [
                "",
                "?format=raw",
                "?format=car",
                "?format=tar",
                "?format=json",
            ] {
                let path = format!("/ipfs/{absent}{query}");
                assert_eq!(
                    site.ask(method, &path, &cached).await.code(),
                    412,
                    "{method} {path}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_block_comes_with_all_that_checks_and_saves_it() {
    let site = Site::suite();
    let blocks = car("raw-block.car");
    for (path, at) in [
        (format!("/ipfs/{}", RAW[1]), 1),
        (format!("/ipfs/{}/dir", RAW[0]), 1),
        (format!("/ipfs/{}/dir/ascii.txt", RAW[0]), 2),
    ] {
        let (cid, block) = &blocks[at];
        let roots = if path.contains("/dir") {
            RAW[..=at].join(",")
        } else {
            RAW[1].to_owned()
        };
        let accept = [("accept", "application/vnd.ipld.raw")];
        for answer in [
            site.get(&format!("{path}?format=raw")).await,
            site.ask("GET", &path, &accept).await,
        ] {
            assert_eq!(
                (answer.code(), answer.bytes()),
                (200, &block.data()[..]),
                "{path}"
            );
            for (name, value) in [
                ("content-type", "application/vnd.ipld.raw"),
                ("content-length", &block.data().len().to_string()),
                (
                    "content-disposition",
                    &format!("attachment; filename=\"{cid}.bin\"; filename*=UTF-8''{cid}.bin"),
                ),
                ("x-content-type-options", "nosniff"),
                ("etag", &format!("\"{cid}.raw\"")),
                ("x-ipfs-path", &path),
                ("x-ipfs-roots", &roots),
                ("cache-control", IMMUTABLE),
            ] {
                assert_eq!(answer.header(name), value, "{path} {name}");
            }
        }
        let ranged = [accept[0], ("range", "bytes=6-16")];
        let part = site.ask("GET", &path, &ranged).await;
        assert_eq!((part.code(), part.bytes()), (206, &block.data()[6..17]));
        let many = [accept[0], ("range", "bytes=6-16,0-3")];
        let many = site.ask("GET", &path, &many).await;
        assert!(
            many.header("content-type")
                .starts_with("multipart/byteranges")
        );
    }
    let absent = format!("/ipfs/{ABSENT}?format=raw");
    assert_eq!(
        (
            site.get(&absent).await.code(),
            site.head(&absent).await.code()
        ),
        (404, 404)
    );
}

#[tokio::test]
async fn a_tar_has_the_names_of_its_folders_and_nothing_outside_of_them() {
    let site = Site::suite();
    let text = "I am a txt file on path with utf8\n";
    let accept = [("accept", "application/x-tar")];
    for answer in [
        site.get(&format!("/ipfs/{LISTED_FILE}?format=tar")).await,
        site.ask("GET", &format!("/ipfs/{LISTED_FILE}"), &accept)
            .await,
    ] {
        assert_eq!(answer.header("content-type"), "application/x-tar");
        assert_eq!(answer.header("etag"), format!("W/\"{LISTED_FILE}.x-tar\""));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let entries = read_tar(answer.bytes());
        assert_eq!(entries.len(), 1);
        assert_eq!(
            (entries[0].0.as_str(), entries[0].2.as_str()),
            (LISTED_FILE, text)
        );
    }
    let answer = site
        .get(&format!(
            "/ipfs/{LISTING}?format=tar&filename=test%D1%82%D0%B5.tar"
        ))
        .await;
    let told = "attachment; filename=\"test__.tar\"; filename*=UTF-8''test%D1%82%D0%B5.tar";
    assert_eq!(answer.header("content-disposition"), told);
    let entries = read_tar(answer.bytes());
    let named = |name: &str| entries.iter().find(|(path, ..)| path == name);
    assert_eq!(
        named(&format!("{LISTING}/ą/ę/file-źł.txt")).unwrap().2,
        text
    );
    let inside = site.get(&format!("/ipfs/{INSIDE}?format=tar")).await;
    let entries = read_tar(inside.bytes());
    assert!(
        entries
            .iter()
            .any(|(path, ..)| *path == format!("{INSIDE}/foobar/file")),
        "{entries:?}"
    );
    let outside = site.get(&format!("/ipfs/{OUTSIDE}?format=tar")).await;
    assert_eq!(outside.code(), 422);
    assert!(outside.text().contains("../foo"), "{}", outside.text());
}

#[tokio::test]
async fn a_folder_in_many_blocks_is_listed_and_gives_its_files() {
    let site = Site::suite();
    let root = super::HAMT;
    let page = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(page.text().matches("ipfs-hash\" translate").count(), 1000);
    let file = format!("/ipfs/{root}/685.txt");
    let answer = site.get(&file).await;
    assert_eq!((answer.code(), answer.bytes().len()), (200, 1026));
    assert_eq!(
        answer.header("x-ipfs-roots").split(',').count(),
        2,
        "shards are left out"
    );
    let part = site.ask("GET", &file, &[("range", "bytes=250-260")]).await;
    assert_eq!(
        (part.code(), part.bytes()),
        (206, &answer.bytes()[250..=260])
    );
    assert_eq!(
        site.get(&format!("/ipfs/{root}/1001.txt")).await.code(),
        404
    );
}

#[tokio::test]
async fn a_block_is_found_under_both_versions_of_its_cid() {
    let site = Site::suite();
    for name in ["hello-CIDv0", "hello-CIDv0to1"] {
        let cid = entry(&site, name);
        let answer = site.get(&format!("/ipfs/{cid}")).await;
        assert_eq!((answer.code(), answer.text()), (200, "hello\n"), "{name}");
        assert_eq!(
            answer.header("etag"),
            format!("\"{cid}\""),
            "as it was asked for"
        );
    }
    assert_eq!(entry(&site, "hello-CIDv0").codec(), DAG_PB);
    assert_eq!(site.get(&format!("/ipfs/{HELLO}")).await.text(), "hello\n");
}
