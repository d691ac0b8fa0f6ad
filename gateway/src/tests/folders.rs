//! Folders: their address, their index, their page.

use super::support::{Site, bytes};
use crate::config::Config;
use cairn_store::Cid;
use cairn_store::cid;
use cairn_store::dag::pb;

/// `CID/ą/ę/file-źł.txt`.
fn polish(site: &mut Site) -> (Cid, Cid, Cid) {
    let file = site.raw("I am a txt file");
    let inner = site.folder(&[("file-źł.txt", file)]);
    let middle = site.folder(&[("ę", inner)]);
    (site.folder(&[("ą", middle)]), inner, file)
}

#[tokio::test]
async fn a_folder_lives_at_an_address_with_a_slash() {
    let mut site = Site::new();
    let (root, ..) = polish(&mut site);
    for (path, location) in [
        (format!("/ipfs/{root}"), format!("/ipfs/{root}/")),
        (
            format!("/ipfs/{root}?a=b%20c"),
            format!("/ipfs/{root}/?a=b%20c"),
        ),
        (
            format!("/ipfs/{root}/%c4%85/%c4%99"),
            format!("/ipfs/{root}/%C4%85/%C4%99/"),
        ),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(
            (answer.code(), answer.header("location")),
            (301, location.as_str())
        );
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    assert_eq!(
        site.get(&format!("/ipfs/{root}?go-get=1")).await.code(),
        200
    );
}

#[tokio::test]
async fn the_page_says_what_other_gateways_say() {
    let mut site = Site::new();
    let (root, inner, file) = polish(&mut site);
    let answer = site.get(&format!("/ipfs/{root}/%C4%85/%C4%99/")).await;
    assert_eq!(
        (answer.code(), answer.header("content-type")),
        (200, "text/html")
    );
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=604800, stale-while-revalidate=2678400"
    );
    let etag = answer.header("etag");
    assert!(
        etag.starts_with("\"DirIndex-") && etag.ends_with(&format!("_CID-{inner}\"")),
        "{etag}"
    );
    assert_eq!(answer.header("x-ipfs-path"), format!("/ipfs/{root}/ą/ę/"));
    assert_eq!(answer.header("x-ipfs-roots").split(',').count(), 3);
    let page = answer.text();
    for part in [
        "Index of".to_owned(),
        format!(
            "/ipfs/<a href=\"/ipfs/{root}\">{root}</a>/<a href=\"/ipfs/{root}/%C4%85\">ą</a>/\
             <a href=\"/ipfs/{root}/%C4%85/%C4%99\">ę</a>"
        ),
        format!("<a href=\"/ipfs/{root}/%C4%85/%C4%99/..\">..</a>"),
        format!("<a href=\"/ipfs/{root}/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>"),
        format!(
            "<a class=\"ipfs-hash\" translate=\"no\" \
             href=\"/ipfs/{file}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        ),
        "</html>".to_owned(),
    ] {
        assert!(page.contains(&part), "{part}\n{page}");
    }
    let top = site.get(&format!("/ipfs/{root}/")).await;
    assert!(!top.text().contains(">..</a>"), "{}", top.text());
    let head = site.head(&format!("/ipfs/{root}/")).await;
    assert_eq!(
        (head.code(), head.header("etag"), head.bytes()),
        (200, top.header("etag"), &b""[..])
    );
}

#[tokio::test]
async fn the_page_is_not_read_again_for_who_has_it() {
    let mut site = Site::new();
    let (root, ..) = polish(&mut site);
    let path = format!("/ipfs/{root}/");
    let etag = site.get(&path).await.header("etag").to_owned();
    for known in [etag.clone(), format!("W/{etag}"), "*".to_owned()] {
        let answer = site.ask("GET", &path, &[("if-none-match", &known)]).await;
        assert_eq!((answer.code(), answer.header("etag")), (304, etag.as_str()));
    }
}

#[tokio::test]
async fn the_page_never_asks_for_children() {
    let mut site = Site::new();
    let (root, _, file) = polish(&mut site);
    site.lose(&file);
    assert_eq!(
        site.get(&format!("/ipfs/{root}/%C4%85/%C4%99/"))
            .await
            .code(),
        200
    );
}

#[tokio::test]
async fn names_are_sorted_and_harmless() {
    let mut site = Site::new();
    let file = site.raw("x");
    let root = site.node(
        &[
            ("z", file, 5),
            ("<img src=x onerror=alert(1)>&\"'", file, 2048),
            ("a\u{202e}txt.exe", file, 5),
            ("line\nbreak", file, 5),
            ("javascript:alert(1)", file, 5),
        ],
        vec![0x08, 1],
    );
    let answer = site.get(&format!("/ipfs/{root}/")).await;
    let page = answer.text();
    assert!(
        page.contains("&lt;img src=x onerror=alert(1)&gt;&amp;&#34;&#39;</a>"),
        "{page}"
    );
    assert!(
        page.contains("%3Cimg%20src=x%20onerror=alert%281%29%3E&amp;%22%27\">"),
        "{page}"
    );
    assert!(
        page.contains(">a\\u{202e}txt.exe</a>") && !page.contains('\u{202e}'),
        "{page}"
    );
    assert!(page.contains(">line\\u{a}break</a>"), "{page}");
    assert!(!page.contains("href=\"javascript:"), "{page}");
    assert!(page.contains("2.0 KiB"), "{page}");
    assert!(!page.contains("<script"), "{page}");
    let at = |text: &str| page.find(text).unwrap();
    assert!(at(">a\\u{202e}") < at(">javascript:") && at(">javascript:") < at(">z</a>"));
    assert!(
        answer
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
}

#[tokio::test]
async fn a_long_page_streams_and_a_longer_one_says_that_it_is_cut() {
    let mut site = Site::new();
    let file = site.raw("x");
    let names: Vec<String> = (0..3000).map(|at| format!("{at:04}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), file)).collect();
    let root = site.folder(&entries);
    let path = format!("/ipfs/{root}/");
    let all = site.get(&path).await;
    assert_eq!(all.text().matches("ipfs-hash\" translate").count(), 3000);
    assert!(
        !all.text().contains("more entries than one page"),
        "it is whole"
    );
    site.config.listing_entries_max = 100.try_into().unwrap();
    let cut = site.get(&path).await;
    assert_eq!(cut.text().matches("ipfs-hash\" translate").count(), 100);
    assert!(
        cut.text().contains("more entries than one page"),
        "it is cut"
    );
    assert_ne!(cut.header("etag"), all.header("etag"));
    assert_eq!(site.get(&format!("/ipfs/{root}/2999")).await.text(), "x");
}

#[tokio::test]
async fn a_long_address_repeated_in_every_row_makes_no_endless_page() {
    let mut site = Site::new();
    let file = site.raw("x");
    let names: Vec<String> = (0..9000).map(|at| format!("{at:04}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), file)).collect();
    let mut root = site.folder(&entries);
    let long = "n".repeat(250);
    let mut address = String::new();
    for _ in 0..10 {
        root = site.folder(&[(long.as_str(), root)]);
        address = format!("{address}/{long}");
    }
    let page = site.get(&format!("/ipfs/{root}{address}/")).await;
    let text = page.text();
    assert!(text.contains("This folder is very large"), "it streams");
    assert_eq!(text.matches("ipfs-hash\" translate").count(), 9000);
    assert!(text.ends_with("</html>\n"));
}

#[tokio::test]
async fn a_very_large_folder_streams_in_its_own_order_to_its_end_or_to_the_limit() {
    let mut site = Site::new();
    let names: Vec<String> = (0..10_500).map(|at| format!("{at}.txt")).collect();
    let root = site.hamt(&names);
    let path = format!("/ipfs/{root}/");
    let all = site.get(&path).await;
    assert!(all.text().contains("10001 entries and more"));
    let mut links: Vec<&str> = all
        .text()
        .split("<td class=\"name\"><a href=\"")
        .skip(1)
        .collect();
    links
        .iter_mut()
        .for_each(|link| *link = link.split('"').next().unwrap());
    links.sort_unstable();
    links.dedup();
    assert_eq!(links.len(), 10_500, "each once");
    assert!(all.text().ends_with("</html>\n"));
    site.config.listing_entries_max = 10_300.try_into().unwrap();
    let cut = site.get(&path).await;
    assert_eq!(cut.text().matches("ipfs-hash\" translate").count(), 10_300);
    assert!(cut.text().contains("more entries than one page shows"));
    assert!(cut.text().ends_with("</html>\n"));
}

/// A HAMT is like its own parts: below each of the root's 256 buckets of a folder with as many entries as a page shows
/// lies what is below the root of one with a 256th of them.
#[tokio::test]
async fn as_many_entries_as_a_page_shows_cost_no_more_blocks_than_a_request_may() {
    let most = Config::default().listing_entries_max.get() / 256;
    let names: Vec<String> = (0..most).map(|at| format!("{at}.txt")).collect();
    let mut site = Site::new();
    let root = site.hamt(&names);
    let is_shard = |cid: &&Cid| cid.codec() == cid::DAG_PB;
    let shards = site.here.keys().filter(is_shard).count();
    assert!(shards > 256, "two levels at least: {shards}");
    let whole = 1 + 256 * shards as u64;
    let most = u64::from(Config::default().request_blocks_max.get());
    assert!(whole <= most, "{whole}");
    let page = site.get(&format!("/ipfs/{root}/")).await;
    let rows = page.text().matches("ipfs-hash\" translate").count();
    assert_eq!(rows, names.len());
}

#[tokio::test]
async fn a_very_large_folder_of_which_a_block_is_missing_breaks_off() {
    let mut site = Site::new();
    let names: Vec<String> = (0..10_500).map(|at| format!("{at}.txt")).collect();
    let root = site.hamt(&names);
    let whole = site.get(&format!("/ipfs/{root}/")).await;
    assert!(!whole.is_broken());
    let node = pb::decode(&site.here[&root].data().clone()).unwrap();
    let last = node.links.last().unwrap().cid;
    site.lose(&last);
    let page = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(page.code(), 200);
    assert!(page.is_broken());
}

#[tokio::test]
async fn an_index_stands_for_its_folder() {
    let mut site = Site::new();
    let index = site.raw("<p>welcome");
    let root = site.folder(&[("index.html", index)]);
    let answer = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!((answer.code(), answer.text()), (200, "<p>welcome"));
    assert_eq!(answer.header("content-type"), "text/html");
    assert_eq!(answer.header("etag"), format!("\"{root}\""));
    assert_eq!(answer.header("x-ipfs-roots"), root.to_string());
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=29030400, immutable"
    );
    assert_eq!(site.get(&format!("/ipfs/{root}")).await.code(), 301);
    let known = [("if-none-match", answer.header("etag"))];
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{root}/"), &known)
            .await
            .code(),
        304
    );
}

#[tokio::test]
async fn an_index_that_is_no_file_is_said_to_be_none() {
    let mut site = Site::new();
    let folder = site.folder(&[]);
    let root = site.folder(&[("index.html", folder)]);
    let answer = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(answer.code(), 422);
    assert!(
        answer.text().contains("index.html is not a file"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn a_name_that_is_not_there_is_named() {
    let mut site = Site::new();
    let (root, ..) = polish(&mut site);
    let answer = site.get(&format!("/ipfs/{root}/i-do-not-exist")).await;
    assert_eq!(answer.code(), 404);
    assert!(
        answer
            .text()
            .contains("no link named \"i-do-not-exist\" under"),
        "{}",
        answer.text()
    );
    let below_file = site
        .get(&format!(
            "/ipfs/{root}/%C4%85/%C4%99/file-%C5%BA%C5%82.txt/x"
        ))
        .await;
    assert_eq!(below_file.code(), 404);
}

#[tokio::test]
async fn a_node_of_no_known_kind_is_not_guessed() {
    let mut site = Site::new();
    let mut data = vec![0x08, 99];
    bytes(&mut data, 2, b"x");
    let odd = site.node(&[], data);
    let code = site.get(&format!("/ipfs/{odd}")).await.code();
    assert!((400..500).contains(&code), "{code}");
}

#[tokio::test]
async fn a_folder_in_many_blocks_is_a_folder() {
    let mut site = Site::new();
    let names: Vec<String> = (0..1500).map(|at| format!("{at}.txt")).collect();
    let root = site.hamt(&names);
    let page = site.get(&format!("/ipfs/{root}/")).await;
    assert_eq!(page.code(), 200);
    assert_eq!(page.text().matches("ipfs-hash\" translate").count(), 1500);
    let at = |name: &str| page.text().find(&format!(">{name}</a>")).unwrap();
    assert!(at("1.txt") < at("10.txt") && at("10.txt") < at("2.txt"));
    let entry = site.get(&format!("/ipfs/{root}/77.txt")).await;
    assert_eq!((entry.code(), entry.text()), (200, "77.txt"));
    assert_eq!(
        entry.header("x-ipfs-roots").split(',').count(),
        2,
        "shards are left out"
    );
    assert_eq!(
        site.get(&format!("/ipfs/{root}/1500.txt")).await.code(),
        404
    );
    assert_eq!(
        site.get(&format!("/ipfs/{root}/index.html")).await.code(),
        404
    );
}
