//! `/ipns/…`: what names lead to, and their records as they are.

use super::support::{Site, TTL};
use cairn_node::ipns::{self, Draft, Readers, Record};
use cairn_node::keystore::{Key, Make};
use cairn_node::name::path::Root;
use std::time::{Duration, SystemTime};

/// A folder below a name, the name, and the folder's CID.
pub(super) fn named() -> (Site, String, String) {
    let mut site = Site::new();
    let file = site.raw("hello");
    let inner = site.folder(&[("file.txt", file)]);
    let root = site.folder(&[("sub", inner)]);
    let key = Key::generate(Make::Ed25519).unwrap();
    let draft = Draft {
        value: format!("/ipfs/{root}").as_bytes().to_vec().leak(),
        sequence: 3,
        expires: SystemTime::now() + Duration::from_secs(3600),
        ttl: TTL,
        readers: Readers::V2,
    };
    let record = Record::sign(&key, &draft).unwrap();
    let lead = (Root::Key(key.id()), format!("/ipfs/{root}"));
    site.names.leads.extend([
        lead,
        (
            "site.example".parse().map(Root::Domain).unwrap(),
            format!("/ipfs/{root}/sub"),
        ),
    ]);
    site.names.records.insert(key.id(), record);
    (site, ipns::text(&key.id()), root.to_string())
}

#[tokio::test]
async fn what_a_name_leads_to_is_served_for_as_long_as_the_name_holds() {
    let (site, name, root) = named();
    let path = format!("/ipns/{name}/sub/file.txt");
    let answer = site.get(&path).await;
    assert_eq!((answer.code(), answer.text()), (200, "hello"));
    assert_eq!(answer.header("cache-control"), "public, max-age=1234");
    assert_eq!(answer.header("x-ipfs-path"), path);
    assert!(answer.header("x-ipfs-roots").starts_with(&root));
    let etag = answer.header("etag").to_owned();
    let known = site.ask("GET", &path, &[("if-none-match", &etag)]).await;
    assert_eq!(known.code(), 304);
    assert_eq!(known.header("cache-control"), "public, max-age=1234");
    let domain = site.get("/ipns/site.example/file.txt").await;
    assert_eq!(domain.text(), "hello");
    let slash = site.get(&format!("/ipns/{name}/sub")).await;
    assert_eq!(slash.code(), 301);
    assert_eq!(slash.header("location"), format!("/ipns/{name}/sub/"));
}

#[tokio::test]
async fn a_folders_page_links_below_the_name() {
    let (site, name, _) = named();
    let page = site
        .ask(
            "GET",
            &format!("/ipns/{name}/sub/"),
            &[("accept", "text/html")],
        )
        .await;
    let html = page.text();
    for link in [
        format!("/ipns/<a href=\"/ipns/{name}\">{name}</a>/<a href=\"/ipns/{name}/sub\">sub</a>"),
        format!("<a href=\"/ipns/{name}/sub/file.txt\">file.txt</a>"),
        format!("<a href=\"/ipns/{name}/sub/..\">..</a>"),
    ] {
        assert!(html.contains(&link), "{link} in {html}");
    }
    assert_eq!(page.header("cache-control"), "public, max-age=1234");
    let page = site.get("/ipns/site.example/").await;
    assert!(
        page.text()
            .contains("/ipns/<a href=\"/ipns/site.example\">site.example</a>")
    );
}

#[tokio::test]
async fn a_keys_name_in_base58_is_found_under_its_usual_form() {
    let (site, name, _) = named();
    let id = ipns::name(&name).unwrap();
    let answer = site.get(&format!("/ipns/{id}/sub/?format=tar")).await;
    assert_eq!(answer.code(), 302);
    assert_eq!(
        answer.header("location"),
        format!("/ipns/{name}/sub/?format=tar")
    );
}

#[tokio::test]
async fn a_record_is_given_as_it_is() {
    let (site, name, _) = named();
    let record = site.names.records[&ipns::name(&name).unwrap()].bytes();
    let path = format!("/ipns/{name}?format=ipns-record");
    let answer = site.get(&path).await;
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.bytes(), record);
    for (header, says) in [
        (
            "content-type",
            "application/vnd.ipfs.ipns-record".to_owned(),
        ),
        ("cache-control", "public, max-age=1234".to_owned()),
        ("age", "34".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        (
            "content-disposition",
            format!(
                "attachment; filename=\"{name}.ipns-record\"; filename*=UTF-8''{name}.ipns-record"
            ),
        ),
    ] {
        assert_eq!(answer.header(header), says, "{header}");
    }
    let etag = answer.header("etag").to_owned();
    let known = site.ask("GET", &path, &[("if-none-match", &etag)]).await;
    assert_eq!(known.code(), 304);
    for header in ["cache-control", "age", "x-ipfs-path", "vary"] {
        assert_eq!(known.header(header), answer.header(header), "{header}");
    }
    let head = site.head(&path).await;
    assert_eq!(head.header("content-length"), record.len().to_string());
    let accept = [("accept", "application/vnd.ipfs.ipns-record")];
    let accepted = site.ask("GET", &format!("/ipns/{name}"), &accept).await;
    assert_eq!(accepted.bytes(), record);
    assert_eq!(accepted.header("vary"), "Accept");
}

#[tokio::test]
async fn what_has_no_record_and_what_leads_nowhere_is_told() {
    let (site, name, root) = named();
    for (path, code, says) in [
        (
            format!("/ipns/{name}/sub?format=ipns-record"),
            400,
            "without a path",
        ),
        (
            "/ipns/site.example?format=ipns-record".to_owned(),
            400,
            "DNSLink",
        ),
        (
            format!("/ipfs/{root}?format=ipns-record"),
            400,
            "only under /ipns",
        ),
        ("/ipns/gone.example/x".to_owned(), 500, "gone.example"),
        ("/ipns/127.0.0.1/".to_owned(), 400, "invalid path"),
        (format!("/ipns/{name}/sub/none"), 404, "none"),
        ("/ipns/".to_owned(), 400, "no name"),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.code(), code, "{path}");
        assert!(answer.text().contains(says), "{path}: {}", answer.text());
    }
    let cached = [("cache-control", "only-if-cached")];
    let answer = site.ask("GET", "/ipns/gone.example/", &cached).await;
    assert_eq!(answer.code(), 412);
}

#[tokio::test]
async fn a_strict_gateway_gives_of_a_name_its_record_alone() {
    let (mut site, name, _) = named();
    site.config.trustless_only = true;
    for (path, code) in [
        (format!("/ipns/{name}?format=ipns-record"), 200),
        (format!("/ipns/{name}?format=raw"), 400),
        (format!("/ipns/{name}/sub?format=car"), 400),
        ("/ipns/site.example?format=car".to_owned(), 400),
        (format!("/ipns/{name}/sub/file.txt"), 400),
    ] {
        assert_eq!(site.get(&path).await.code(), code, "{path}");
    }
}

#[tokio::test]
async fn empty_names_before_a_key_are_left_out_of_where_it_moves_to() {
    let (site, name, _) = named();
    let id = ipns::name(&name).unwrap();
    let answer = site.get(&format!("/ipns//{id}/sub")).await;
    assert_eq!(answer.header("location"), format!("/ipns/{name}/sub"));
    let code = site
        .get(&format!("/ipns//{name}/sub/file.txt"))
        .await
        .code();
    assert_eq!(code, 200);
}
