//! A site's own rules for paths that do not exist. The cases are those of the public suite on its own content, and
//! what it leaves out.

use super::suite::{EXAMPLES, EXAMPLES_DOMAIN as DOMAIN, LOCAL, SPA, SPA_DOMAIN, at, entry, own};
use super::support::{Missing, Site};
use cairn_node::name::path::Root;
use cairn_store::Cid;
use cairn_store::cid;

const IMMUTABLE: &str = "public, max-age=29030400, immutable";

/// The host of an entry's own, found by its name in any folder.
fn host(site: &Site, name: &str) -> String {
    own(&entry(site, name))
}

fn examples() -> String {
    own(&cid::parse(EXAMPLES).unwrap())
}

/// A site of these files.
fn made(site: &mut Site, files: &[(&str, &str)]) -> Cid {
    let files: Vec<_> = files
        .iter()
        .map(|(name, text)| (*name, site.raw((*text).to_owned())))
        .collect();
    site.folder(&files)
}

#[tokio::test]
async fn rules_send_elsewhere() {
    let site = Site::suite();
    let (examples, newlines, good) = (
        examples(),
        host(&site, "newlines"),
        host(&site, "good-codes"),
    );
    for (host, path, code, location) in [
        (&examples, "/redirect-one", 301, "/one.html"),
        (&examples, "/301-redirect-one", 301, "/one.html"),
        (&examples, "/302-redirect-two", 302, "/two.html"),
        (
            &examples,
            "/posts/2022/01/01/hello-world",
            301,
            "/articles/2022/01/01/hello-world",
        ),
        (
            &examples,
            "/splat/one.html",
            301,
            "/redirected-splat/one.html",
        ),
        (&examples, "/splat/a?b=c", 301, "/redirected-splat/a?b=c"),
        (&newlines, "/redirect-one", 301, "/one.html"),
        (&good, "/a301", 301, "/b301"),
        (&good, "/a303", 303, "/b303"),
        (&good, "/a307", 307, "/b307"),
        (&good, "/a308", 308, "/b308"),
        (&DOMAIN.to_owned(), "/redirect-one", 301, "/one.html"),
    ] {
        let answer = at(&site, host, path).await;
        assert_eq!(
            (answer.code(), answer.header("location")),
            (code, location),
            "{host}{path}"
        );
        let is_immutable = answer.header("cache-control").contains("immutable");
        assert_eq!(is_immutable, host != DOMAIN, "{host}");
    }
}

#[tokio::test]
async fn rules_serve_other_content() {
    let site = Site::suite();
    for path in ["/200-index", "/catch-all", "/a/b/c/"] {
        let answer = at(&site, &examples(), path).await;
        assert_eq!(answer.code(), 200);
        assert!(answer.text().contains("my index"), "{}", answer.text());
        assert_eq!(answer.header("content-type"), "text/html");
        assert_eq!(answer.header("cache-control"), IMMUTABLE);
    }
    let newlines = host(&site, "newlines");
    assert!(
        at(&site, &newlines, "/200-index")
            .await
            .text()
            .contains("my index")
    );
    let head = site.ask("HEAD", "/200-index", &[("host", &newlines)]).await;
    assert_eq!((head.code(), head.bytes().len()), (200, 0));
    // A file wins over any rule.
    assert!(
        at(&site, &examples(), "/one.html")
            .await
            .text()
            .contains("my one")
    );
}

#[tokio::test]
async fn rules_name_pages_for_statuses() {
    let site = Site::suite();
    for (path, code, page, etag) in [
        (
            "/not-found/x",
            404,
            "my 404",
            "Qmd9GD7Bauh6N2ZLfNnYS3b7QVAijbud83b8GE8LPMNBBP",
        ),
        ("/gone/x", 410, "my 410", "\"Qm"),
        ("/unavail/x", 451, "my 451", "\"Qm"),
    ] {
        for host in [&examples(), DOMAIN] {
            for headers in [&[][..], &[("if-none-match", "*"), ("range", "bytes=0-1")]] {
                let headers = [&[("host", host)], headers].concat();
                let answer = site.ask("GET", path, &headers).await;
                assert_eq!(answer.code(), code, "{path}: {}", answer.text());
                assert!(answer.text().contains(page), "{}", answer.text());
                assert!(
                    answer.header("etag").contains(etag),
                    "{}",
                    answer.header("etag")
                );
                assert_eq!(answer.header("content-type"), "text/html");
                assert_eq!(answer.header("accept-ranges"), "");
                let cache = answer.header("cache-control");
                match host == DOMAIN {
                    true => assert!(
                        !cache.contains("immutable") && cache.contains("1234"),
                        "{cache}"
                    ),
                    false => assert_eq!(cache, IMMUTABLE),
                }
            }
        }
        let head = site.ask("HEAD", path, &[("host", DOMAIN)]).await;
        assert_eq!((head.code(), head.bytes().len()), (code, 0));
        assert_ne!(head.header("content-length"), "");
    }
}

#[tokio::test]
async fn a_client_that_has_a_rewritten_page_is_told_so() {
    let site = Site::suite();
    let hosts = [
        format!("{SPA}.ipfs.{LOCAL}"),
        format!("dnslink--enabled--with--spa-example-org.ipns.{LOCAL}"),
        SPA_DOMAIN.to_owned(),
    ];
    for host in &hosts {
        let html = [("host", host.as_str()), ("accept", "text/html")];
        let answer = site.ask("GET", "/missing-page", &html).await;
        assert_eq!(
            (answer.code(), answer.text()),
            (200, "hello world\n"),
            "{host}"
        );
        let etag = answer.header("etag").to_owned();
        let again = [&html[..], &[("if-none-match", &etag)]].concat();
        let answer = site.ask("GET", "/missing-page", &again).await;
        assert_eq!(answer.code(), 304, "{host}");
    }
}

#[tokio::test]
async fn a_broken_file_breaks_nothing_that_exists() {
    let site = Site::suite();
    let bad = host(&site, "bad-codes");
    let found = at(&site, &bad, "/found.html").await;
    assert_eq!(found.code(), 200);
    assert!(found.text().contains("my found"), "{}", found.text());
    assert_eq!(at(&site, &bad, "/").await.code(), 200);
    for (name, told) in [
        ("bad-codes", "could not parse _redirects:"),
        ("forced", "could not parse _redirects:"),
        ("too-large", "redirects file size cannot exceed"),
    ] {
        let answer = at(&site, &host(&site, name), "/not-found").await;
        assert_eq!(answer.code(), 500, "{name}");
        assert!(
            answer.text().contains("could not parse _redirects:"),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains(told), "{}", answer.text());
        assert_eq!(answer.header("cache-control"), "no-store");
    }
}

#[tokio::test]
async fn rules_hold_where_pages_are_kept_apart_and_in_no_other_format() {
    let site = Site::suite();
    let path = format!("/ipfs/{EXAMPLES}/redirect-one");
    assert_eq!(at(&site, "127.0.0.1", &path).await.code(), 404);
    let name = format!("/ipns/{DOMAIN}/redirect-one");
    assert_eq!(at(&site, "127.0.0.1", &name).await.code(), 404);
    for format in ["raw", "car", "tar", "json"] {
        let path = format!("/redirect-one?format={format}");
        assert_eq!(at(&site, &examples(), &path).await.code(), 404, "{format}");
    }
    let accept = [("host", DOMAIN), ("accept", "application/vnd.ipld.raw")];
    assert_eq!(site.ask("GET", "/redirect-one", &accept).await.code(), 404);
}

#[tokio::test]
async fn a_site_below_a_name_has_its_rules_where_it_begins() {
    let mut site = Site::suite();
    let inner = made(
        &mut site,
        &[("_redirects", "/a/* /b/:splat 200\n"), ("x", "y")],
    );
    let file = site.raw("content");
    let inner_b = site.folder(&[("c", file)]);
    let rules = site.raw("/a/* /b/:splat 200\n");
    let inner = site.folder(&[("_redirects", rules), ("b", inner_b), ("inner", inner)]);
    let outer = site.folder(&[("site", inner)]);
    let domain = Root::name("sub.example.org").unwrap();
    site.names
        .leads
        .insert(domain, format!("/ipfs/{outer}/site"));
    let answer = at(&site, "sub.example.org", "/a/c").await;
    assert_eq!((answer.code(), answer.text()), (200, "content"));
    assert_eq!(at(&site, "sub.example.org", "/a/none").await.code(), 404);
}

#[tokio::test]
async fn a_rewritten_folder_has_a_slash_at_its_end() {
    let mut site = Site::new();
    let index = site.raw("<p>app");
    let app = site.folder(&[("index.html", index)]);
    let rules = site.raw("/go/* /app 200\n");
    let root = site.folder(&[("_redirects", rules), ("app", app)]);
    let answer = at(&site, &own(&root), "/go/x?a=b").await;
    assert_eq!(
        (answer.code(), answer.header("location")),
        (301, "/go/x/?a=b")
    );
    let answer = at(&site, &own(&root), "/go/x/").await;
    assert_eq!((answer.code(), answer.text()), (200, "<p>app"));
    assert_eq!(answer.header("content-type"), "text/html");
}

#[tokio::test]
async fn what_a_rule_cannot_serve_is_said() {
    let mut site = Site::new();
    let rules = "/a /nothing.html 404\n/b /folder 410\n/c https://example.org 200\n/d /nothing.html 200\n/e /../x 200\n";
    let rules = site.raw(rules);
    let folder = site.folder(&[]);
    let root = site.folder(&[("_redirects", rules), ("folder", folder)]);
    for (path, code, told) in [
        ("/a", 500, "does not exist"),
        ("/b", 500, "is no file"),
        ("/c", 500, "no path of this site"),
        ("/d", 404, "nothing.html"),
        ("/e", 500, "above its root"),
        ("/f", 404, "\"f\""),
    ] {
        let answer = at(&site, &own(&root), path).await;
        assert_eq!(answer.code(), code, "{path}: {}", answer.text());
        assert!(answer.text().contains(told), "{path}: {}", answer.text());
    }
    let folder = site.folder(&[]);
    let no_file = site.folder(&[("_redirects", folder)]);
    let answer = at(&site, &own(&no_file), "/a").await;
    assert_eq!(answer.code(), 500);
    assert!(
        answer
            .text()
            .contains("could not parse _redirects: it is no file")
    );
}

#[tokio::test]
async fn a_file_that_nobody_has_is_not_taken_for_none() {
    let mut site = Site::new();
    let root = made(&mut site, &[("_redirects", "/* /x 404\n")]);
    let rules = site.raw("/* /x 404\n");
    site.lose(&rules);
    assert_eq!(at(&site, &own(&root), "/a").await.code(), 404);
    site.missing = Missing::TooSlow;
    let answer = at(&site, &own(&root), "/a").await;
    assert_eq!(answer.code(), 504, "{}", answer.text());
    let cached = [("host", &*own(&root)), ("cache-control", "only-if-cached")];
    assert_eq!(site.ask("GET", "/a", &cached).await.code(), 412);
}

#[tokio::test]
async fn what_is_denied_is_not_served_under_another_name() {
    let mut site = Site::new();
    let files = [
        ("_redirects", "/x /secret 200\n/y /gone.html 404\n"),
        ("secret", "s"),
        ("gone.html", "g"),
        ("index.html", "i"),
    ];
    let root = made(&mut site, &files);
    let domain = Root::name("site.example.org").unwrap();
    site.names.leads.insert(domain, format!("/ipfs/{root}"));
    let own = own(&root);
    for (denied, host, path, code) in [
        (format!("/ipfs/{root}/secret"), own.as_str(), "/x", 200),
        (format!("/ipfs/{root}/gone.html"), &own, "/y", 404),
        (format!("/ipfs/{root}/index.html"), &own, "/", 200),
        (
            format!("/ipfs/{root}/secret"),
            "site.example.org",
            "/x",
            200,
        ),
        (
            "/ipns/site.example.org/secret".to_owned(),
            "site.example.org",
            "/x",
            200,
        ),
        (
            "/ipns/site.example.org/index.html".to_owned(),
            "site.example.org",
            "/",
            200,
        ),
    ] {
        site.names.denied.clear();
        assert_eq!(at(&site, host, path).await.code(), code, "{host}{path}");
        site.names.denied.push(denied);
        assert_eq!(at(&site, host, path).await.code(), 451, "{host}{path}");
    }
}
