//! A host of its own for each root, and the redirects to it. The cases are those of the public suite on its own content,
//! and what it leaves out.

use super::suite::{
    ED25519, GATEWAY, HELLO, HELLO_V0, HELLO_V0_AS_V1, LISTED_FILE, LISTING, RSA, at, entry, moved,
};
use super::support::Site;
use cairn_node::ipns;
use cairn_node::name::path::Root;
use cairn_store::cid::DAG_PB;
use cairn_store::{Cid, cid};
use multibase::Base;

#[tokio::test]
async fn a_path_on_a_known_host_moves_to_a_host_of_its_own() {
    let site = Site::suite();
    let own = |root: &str, rest: &str| format!("http://{root}.ipfs.{GATEWAY}/{rest}");
    let percent = format!(
        "/ipfs/{HELLO}/Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt?a=b%20c&filename=x"
    );
    for (path, location) in [
        (format!("/ipfs/{HELLO}/"), own(HELLO, "")),
        (format!("/ipfs/{HELLO}"), own(HELLO, "")),
        (format!("/ipfs/{HELLO_V0}/"), own(HELLO_V0_AS_V1, "")),
        (
            percent,
            own(
                HELLO,
                "Portugal%252C+Espa%C3%B1a=Peninsula%20Ib%C3%A9rica.txt?a=b%20c&filename=x",
            ),
        ),
        // However it is written, it is never served here.
        (format!("/%69pfs/{HELLO}"), own(HELLO, "")),
        (format!("/ipfs//{HELLO}/a"), own(HELLO, "a")),
    ] {
        assert_eq!(moved(&site, &path, &[("host", GATEWAY)]).await, location);
    }
    // Before anything is looked for.
    let absent = site.ask(
        "HEAD",
        "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy/x",
        &[("host", GATEWAY)],
    );
    assert_eq!(absent.await.code(), 301);
}

#[tokio::test]
async fn a_wrong_root_is_told_before_any_redirect() {
    let site = Site::suite();
    let answer = at(&site, GATEWAY, "/ipfs/QmInvalidCID").await;
    assert_eq!(answer.code(), 400);
    assert!(
        answer
            .text()
            .contains(r#"invalid path "/ipfs/QmInvalidCID""#),
        "{}",
        answer.text()
    );
    let of_key = ipns::text(&ED25519.parse().unwrap());
    assert_eq!(
        at(&site, GATEWAY, &format!("/ipfs/{of_key}")).await.code(),
        400
    );
    assert_eq!(at(&site, GATEWAY, "/ipns/exam%20ple.org").await.code(), 400);
    assert_eq!(at(&site, GATEWAY, "/ipfs/%zz").await.code(), 400);
}

#[tokio::test]
async fn a_host_of_its_own_serves_one_root_and_nothing_else() {
    let site = Site::suite();
    let dir = entry(&site, "testdirlisting");
    let hello = format!("{HELLO}.ipfs.{GATEWAY}");
    let answer = at(&site, &hello, "/").await;
    assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
    assert_eq!(answer.header("x-ipfs-path"), format!("/ipfs/{HELLO}/"));
    assert_eq!(
        at(&site, &hello, &format!("/ipfs/{HELLO}/")).await.code(),
        404
    );
    let dir = format!("{dir}.ipfs.{GATEWAY}");
    for (path, text) in [
        ("/ipfs/file.txt", "I am a txt file\n"),
        ("/api/file.txt", "I am a txt file\n"),
        ("/ipfs/ipns/bar", "text-file-content\n"),
        ("//hello", "hello\n"),
    ] {
        let answer = at(&site, &dir, path).await;
        assert_eq!((answer.code(), answer.text()), (200, text), "{path}");
    }
    // Whatever a path gateway has at such a path.
    for (path, code) in [
        (format!("/ipfs/{HELLO}"), 404),
        ("/routing/v1/providers/bafkqaaa".to_owned(), 404),
        ("/ipns/dnslink-test.example.org".to_owned(), 404),
        ("/ipfs/?uri=ipfs://bafkqaaa".to_owned(), 200),
    ] {
        assert_eq!(at(&site, &dir, &path).await.code(), code, "{path}");
        assert_eq!(at(&site, &hello, &path).await.code(), 404, "{path}");
    }
    assert_eq!(at(&site, &dir, "/..").await.code(), 400);
}

#[tokio::test]
async fn a_folder_on_a_host_of_its_own_links_within_it() {
    let site = Site::suite();
    let host = format!("{LISTING}.ipfs.{GATEWAY}");
    let top = at(&site, &host, "/").await;
    assert!(top.text().contains("Index of") && !top.text().contains(">..</a>"));
    assert_eq!(
        moved(&site, "/%C4%85/%c4%99?x=y", &[("host", &host)]).await,
        "/%C4%85/%C4%99/?x=y"
    );
    let page = at(&site, &host, "/%C4%85/%C4%99/").await;
    assert!(page.header("etag").contains("\"DirIndex-"));
    let gateway = format!("//{GATEWAY}/ipfs");
    for part in [
        "<a href=\"/%C4%85/%C4%99/..\">..</a>".to_owned(),
        format!(
            "/ipfs/<a href=\"{gateway}/{LISTING}\">{LISTING}</a>/<a href=\"{gateway}/{LISTING}/%C4%85\">ą</a>/\
             <a href=\"{gateway}/{LISTING}/%C4%85/%C4%99\">ę</a>"
        ),
        "<a href=\"/%C4%85/%C4%99/file-%C5%BA%C5%82.txt\">file-źł.txt</a>".to_owned(),
        format!(
            "<a class=\"ipfs-hash\" translate=\"no\" href=\"{gateway}/{LISTED_FILE}?filename=file-%25C5%25BA%25C5%2582.txt\">"
        ),
    ] {
        assert!(page.text().contains(&part), "{part}\n{}", page.text());
    }
    let dir = entry(&site, "testdirlisting");
    let host = format!("{dir}.ipfs.{GATEWAY}");
    let top = at(&site, &host, "/").await;
    for part in ["<a href=\"/hello\">hello</a>", "<a href=\"/ipfs\">ipfs</a>"] {
        assert!(top.text().contains(part), "{part}");
    }
    let below = at(&site, &host, "/ipfs/ipns/").await;
    for part in [
        "<a href=\"/ipfs/ipns/..\">..</a>".to_owned(),
        "<a href=\"/ipfs/ipns/bar\">bar</a>".to_owned(),
        format!(
            "/ipfs/<a href=\"{gateway}/{dir}\">{dir}</a>/<a href=\"{gateway}/{dir}/ipfs\">ipfs</a>/\
             <a href=\"{gateway}/{dir}/ipfs/ipns\">ipns</a>"
        ),
    ] {
        assert!(below.text().contains(&part), "{part}\n{}", below.text());
    }
}

#[tokio::test]
async fn a_folder_named_as_a_host_is_no_redirect_to_that_host() {
    let mut site = Site::suite();
    let file = site.raw("a");
    let inner = site.folder(&[("b", file)]);
    let root = site.folder(&[("evil.example", inner)]);
    let host = format!("{root}.ipfs.localhost");
    let location = moved(&site, "//evil.example", &[("host", &host)]).await;
    assert_eq!(location, "/evil.example/");
}

#[tokio::test]
async fn a_root_is_written_in_one_way_in_a_host() {
    let site = Site::suite();
    let cid = cid::parse(HELLO).unwrap();
    let base36 = cid.to_string_of_base(Base::Base36Lower).unwrap();
    for wrong in [
        base36,
        HELLO.to_uppercase(),
        cid.to_string_of_base(Base::Base58Btc).unwrap(),
    ] {
        let host = format!("{wrong}.ipfs.{GATEWAY}");
        assert_eq!(
            moved(&site, "/a%20b?c=d", &[("host", &host)]).await,
            format!("http://{HELLO}.ipfs.{GATEWAY}/a%20b?c=d"),
            "{wrong}"
        );
    }
    let host = format!("{HELLO_V0}.ipfs.{GATEWAY}");
    let forwarded = [("host", host.as_str()), ("x-forwarded-proto", "https")];
    assert_eq!(
        moved(&site, "/", &forwarded).await,
        format!("https://{HELLO_V0_AS_V1}.ipfs.{GATEWAY}/")
    );
    // Whatever a client does with the case of the rest.
    let answer = at(&site, &format!("{HELLO}.IPFS.Example.COM:8080"), "/").await;
    assert_eq!(answer.code(), 200);
    assert_eq!(
        at(&site, &format!("example.org.ipfs.{GATEWAY}"), "/")
            .await
            .code(),
        400
    );
}

#[tokio::test]
async fn a_root_that_fits_no_label_is_refused_in_both_forms() {
    let site = Site::suite();
    let long = site
        .here
        .keys()
        .find(|cid| cid.hash().code() == 0x13)
        .unwrap();
    assert_eq!(long.hash().digest().len(), 64);
    let base36 = long.to_string_of_base(Base::Base36Lower).unwrap();
    for (host, path) in [
        (GATEWAY.to_owned(), format!("/ipfs/{long}/")),
        (format!("{long}.ipfs.{GATEWAY}"), "/".to_owned()),
        (format!("{base36}.ipfs.{GATEWAY}"), "/".to_owned()),
    ] {
        let answer = at(&site, &host, &path).await;
        assert_eq!(answer.code(), 400, "{host}");
        let told = "CID incompatible with DNS label length limit of 63";
        assert!(answer.text().contains(told), "{}", answer.text());
    }
    // One that only fits in base36 is written so.
    let key = ipns::cid(&ED25519.parse().unwrap()).unwrap();
    assert!(key.to_string().len() > 63);
    let as_pb = Cid::new_v1(DAG_PB, *key.hash());
    let label = as_pb.to_string_of_base(Base::Base36Lower).unwrap();
    let location = moved(&site, &format!("/ipfs/{as_pb}"), &[("host", GATEWAY)]).await;
    assert_eq!(location, format!("http://{label}.ipfs.{GATEWAY}/"));
}

#[tokio::test]
async fn a_key_has_a_host_of_its_own_in_one_way() {
    let site = Site::suite();
    for name in [ED25519, RSA] {
        let key = name.parse().unwrap();
        let text = ipns::text(&key);
        let own = format!("{text}.ipns.{GATEWAY}");
        let cid = ipns::cid(&key).unwrap();
        let as_pb = Cid::new_v1(DAG_PB, *cid.hash());
        let as_pb = as_pb.to_string_of_base(Base::Base36Lower).unwrap();
        for written in [name, &text, &cid.to_string(), &as_pb] {
            let location = moved(&site, &format!("/ipns/{written}"), &[("host", GATEWAY)]).await;
            assert_eq!(location, format!("http://{own}/"), "{written}");
        }
        let answer = at(&site, &own, "/").await;
        assert_eq!((answer.code(), answer.text()), (200, "hello\n"));
        assert!(!answer.header("cache-control").contains("immutable"));
        assert_eq!(answer.header("x-ipfs-path"), format!("/ipns/{text}/"));
        let wrong = format!("{as_pb}.ipns.{GATEWAY}");
        assert_eq!(
            moved(&site, "/a", &[("host", &wrong)]).await,
            format!("http://{own}/a")
        );
    }
}

#[tokio::test]
async fn a_format_on_a_host_of_its_own_names_the_address_there() {
    let site = Site::suite();
    let host = format!("{LISTING}.ipfs.{GATEWAY}");
    let raw = [
        ("host", host.as_str()),
        ("accept", "application/vnd.ipld.raw"),
    ];
    let answer = site.ask("GET", "/api/file.txt", &raw).await;
    assert_eq!(
        answer.header("content-location"),
        "/api/file.txt?format=raw"
    );
    let record = at(&site, "dnslink-test.example.org", "/?format=ipns-record").await;
    assert_eq!(record.code(), 400);
}

#[tokio::test]
async fn links_of_a_documents_page_lead_to_where_content_is() {
    let mut site = Site::suite();
    let leaf = site.raw("hello");
    let json = format!("{{\"link\":{{\"/\":\"{leaf}\"}}}}");
    let document = site.put(cid::DAG_JSON, json);
    let name = Root::name("document.example.org").unwrap();
    site.names.leads.insert(name, format!("/ipfs/{document}"));
    for (host, path, link) in [
        (
            "127.0.0.1",
            format!("/ipfs/{document}"),
            format!("\"/ipfs/{leaf}\""),
        ),
        (
            &format!("{document}.ipfs.{GATEWAY}"),
            "/".to_owned(),
            format!("\"//{GATEWAY}/ipfs/{leaf}\""),
        ),
        (
            "document.example.org",
            "/".to_owned(),
            format!("\"https://cid.ipfs.tech/#{leaf}\""),
        ),
    ] {
        let browser = [("host", host), ("accept", "text/html")];
        let page = site.ask("GET", &path, &browser).await;
        assert_eq!(page.code(), 200, "{host}");
        assert!(
            page.text().contains(&format!("<a href={link}")),
            "{host}: {}",
            page.text()
        );
    }
}
