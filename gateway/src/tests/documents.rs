//! Blocks as they are, documents, formats, and the small rules of addresses.

use super::support::Site;
use cairn_store::cid;

#[tokio::test]
async fn a_raw_block_is_for_checking() {
    let mut site = Site::new();
    let leaf = site.raw("hello");
    let file = site.file(&[b"hello", b" world"]);
    let folder = site.folder(&[("file", file)]);
    for path in [
        format!("/ipfs/{file}?format=raw"),
        format!("/ipfs/{folder}/file?format=raw"),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.code(), 200);
        assert_eq!(answer.bytes(), site.here[&file].data());
        assert_eq!(answer.header("content-type"), "application/vnd.ipld.raw");
        assert_eq!(
            answer.header("content-length"),
            answer.bytes().len().to_string()
        );
        assert_eq!(answer.header("etag"), format!("\"{file}.raw\""));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(
            answer.header("content-disposition"),
            format!("attachment; filename=\"{file}.bin\"; filename*=UTF-8''{file}.bin")
        );
        assert!(
            !answer.header("x-ipfs-roots").is_empty() && !answer.header("x-ipfs-path").is_empty()
        );
        let head = site.head(&path).await;
        assert_eq!((&head.headers, head.bytes()), (&answer.headers, &b""[..]));
        let known = [("if-none-match", answer.header("etag"))];
        assert_eq!(site.ask("GET", &path, &known).await.code(), 304);
    }
    let part = [("range", "bytes=1-2")];
    let answer = site
        .ask("GET", &format!("/ipfs/{leaf}?format=raw"), &part)
        .await;
    assert_eq!((answer.code(), answer.text()), (206, "el"));
    let named = site
        .get(&format!("/ipfs/{leaf}?format=raw&filename=a.b"))
        .await;
    assert_eq!(
        named.header("content-disposition"),
        "attachment; filename=\"a.b\"; filename*=UTF-8''a.b"
    );
}

#[tokio::test]
async fn a_format_from_accept_has_an_address_of_its_own() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    let raw = [("accept", "application/vnd.ipld.raw")];
    let answer = site
        .ask("GET", &format!("/ipfs/{cid}?filename=x"), &raw)
        .await;
    assert_eq!(answer.header("content-type"), "application/vnd.ipld.raw");
    assert_eq!(
        answer.header("content-location"),
        format!("/ipfs/{cid}?filename=x&format=raw")
    );
    let car = [("accept", "application/vnd.ipld.car; dups=y")];
    let answer = site.ask("GET", &format!("/ipfs/{cid}"), &car).await;
    assert_eq!(
        answer.header("content-location"),
        format!("/ipfs/{cid}?format=car&car-dups=y")
    );
    let both = site
        .ask("GET", &format!("/ipfs/{cid}?format=raw"), &car)
        .await;
    assert_eq!(both.header("content-type"), "application/vnd.ipld.raw");
    assert_eq!(both.header("content-location"), "");
    assert_eq!(
        (answer.header("vary"), both.header("vary")),
        ("Accept", "Accept")
    );
    let plain = site.get(&format!("/ipfs/{cid}")).await;
    assert_eq!(plain.header("vary"), "Accept");
}

#[tokio::test]
async fn the_probe_of_clients_is_answered() {
    let site = Site::new();
    let answer = site.get("/ipfs/bafkqaaa?format=raw").await;
    assert_eq!(
        (
            answer.code(),
            answer.bytes(),
            answer.header("content-length")
        ),
        (200, &b""[..], "0")
    );
    assert_eq!(site.head("/ipfs/bafkqaaa?format=raw").await.code(), 200);
    let inline = site.get("/ipfs/bafkqabtimvwgy3yk").await;
    assert_eq!((inline.code(), inline.text()), (200, "hello\n"));
}

#[tokio::test]
async fn documents_come_as_they_are() {
    let mut site = Site::new();
    for (codec, name, media, text, disposition) in [
        (
            cid::DAG_JSON,
            "dag-json",
            "application/vnd.ipld.dag-json",
            &b"{\"a\":1}"[..],
            "inline",
        ),
        (
            cid::JSON,
            "json",
            "application/json",
            b"{ \"a\": 1 }",
            "inline",
        ),
        (
            cid::DAG_CBOR,
            "dag-cbor",
            "application/vnd.ipld.dag-cbor",
            b"\xa1aa\x01",
            "attachment",
        ),
        (
            cid::CBOR,
            "cbor",
            "application/cbor",
            b"\xa1aa\x18\x01",
            "attachment",
        ),
    ] {
        let cid = site.put(codec, text);
        for path in [format!("/ipfs/{cid}"), format!("/ipfs/{cid}?format={name}")] {
            let answer = site.get(&path).await;
            assert_eq!(answer.code(), 200, "{path}");
            assert_eq!(answer.bytes(), text);
            assert_eq!(answer.header("content-type"), media);
            assert_eq!(answer.header("etag"), format!("\"{cid}.{name}\""));
            assert!(
                answer
                    .header("content-disposition")
                    .starts_with(disposition)
            );
            assert_eq!(site.head(&path).await.headers, answer.headers);
        }
        let part = site
            .ask("GET", &format!("/ipfs/{cid}"), &[("range", "bytes=0-0")])
            .await;
        assert_eq!((part.code(), part.bytes()), (206, &text[..1]));
        assert_eq!(
            site.get(&format!("/ipfs/{cid}?format=raw")).await.bytes(),
            text
        );
    }
}

#[tokio::test]
async fn plain_formats_name_their_linked_kin() {
    let mut site = Site::new();
    let json = site.put(cid::DAG_JSON, &b"{\"a\":1}"[..]);
    let answer = site.get(&format!("/ipfs/{json}?format=json")).await;
    assert_eq!(
        (answer.code(), answer.header("content-type")),
        (200, "application/json")
    );
    let cbor = site.put(cid::DAG_CBOR, &b"\xa1aa\x01"[..]);
    let answer = site
        .ask(
            "GET",
            &format!("/ipfs/{cbor}"),
            &[("accept", "application/cbor")],
        )
        .await;
    assert_eq!(
        (answer.code(), answer.header("content-type")),
        (200, "application/cbor")
    );
}

#[tokio::test]
async fn what_would_need_conversion_is_not_acceptable() {
    let mut site = Site::new();
    let file = site.file(&[b"a", b"b"]);
    let json = site.put(cid::DAG_JSON, &b"{\"a\":1}"[..]);
    let cbor = site.put(cid::DAG_CBOR, &b"\xa1aa\x01"[..]);
    for path in [
        format!("/ipfs/{file}?format=dag-json"),
        format!("/ipfs/{file}?format=dag-cbor"),
        format!("/ipfs/{json}?format=dag-cbor"),
        format!("/ipfs/{json}?format=cbor"),
        format!("/ipfs/{cbor}?format=dag-json"),
        format!("/ipfs/{cbor}?format=tar"),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.code(), 406, "{path}");
        assert!(answer.text().contains("?format=raw"), "{}", answer.text());
    }
    assert_eq!(
        site.get(&format!("/ipfs/{file}?format=ipns-record"))
            .await
            .code(),
        400
    );
    let accept = [("accept", "application/vnd.ipld.dag-json")];
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{file}"), &accept)
            .await
            .code(),
        406
    );
    let odd = [("accept", "application/vnd.ipld.odd")];
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{file}"), &odd).await.code(),
        400
    );
}

#[tokio::test]
async fn paths_lead_through_documents_but_not_into_them() {
    let mut site = Site::new();
    let leaf = site.put(cid::DAG_JSON, &b"{\"bar\":2}"[..]);
    let text = format!("{{\"foo\":1,\"link\":{{\"/\":\"{leaf}\"}}}}");
    let root = site.put(cid::DAG_JSON, text);
    let linked = site.get(&format!("/ipfs/{root}/link")).await;
    assert_eq!((linked.code(), linked.text()), (200, "{\"bar\":2}"));
    assert_eq!(linked.header("x-ipfs-roots"), format!("{root},{leaf}"));
    assert_eq!(site.get(&format!("/ipfs/{root}/foo")).await.code(), 501);
    assert_eq!(site.get(&format!("/ipfs/{root}/nothing")).await.code(), 404);
}

#[tokio::test]
async fn every_answer_lets_other_origins_read_it() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    for (method, path, code) in [
        ("GET", format!("/ipfs/{cid}"), 200),
        ("OPTIONS", format!("/ipfs/{cid}"), 200),
        ("OPTIONS", "/ipfs/nonsense".to_owned(), 200),
        ("GET", "/ipfs/nonsense".to_owned(), 400),
        ("POST", format!("/ipfs/{cid}"), 405),
        ("DELETE", "/".to_owned(), 405),
        ("GET", "/".to_owned(), 200),
        ("GET", "/elsewhere".to_owned(), 404),
        ("GET", "/ipns/example.org".to_owned(), 500),
        ("GET", format!("/ipfs/ipfs/{cid}"), 301),
    ] {
        let answer = site.ask(method, &path, &[]).await;
        assert_eq!(answer.code(), code, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(
            answer.header("access-control-allow-methods"),
            "GET, HEAD, OPTIONS"
        );
        assert!(
            answer
                .header("access-control-allow-headers")
                .contains("Range")
        );
        assert!(
            answer
                .header("access-control-expose-headers")
                .contains("X-Ipfs-Roots")
        );
        assert_eq!(
            answer.header("allow").is_empty(),
            !matches!(code, 405) && method != "OPTIONS"
        );
    }
}

#[tokio::test]
async fn addresses_glued_together_are_taken_apart() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    for (path, location) in [
        (
            format!("/ipfs/ipfs/{cid}/a%20b?x=y"),
            format!("/ipfs/{cid}/a%20b?x=y"),
        ),
        (
            "/ipfs/ipns/example.org/a".to_owned(),
            "/ipns/example.org/a".to_owned(),
        ),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(
            (answer.code(), answer.header("location")),
            (301, location.as_str())
        );
    }
    assert_eq!(site.get("/ipfs/ipfs/nonsense").await.code(), 400);
}

#[tokio::test]
async fn no_service_worker_gets_hold_of_a_whole_root() {
    let mut site = Site::new();
    let cid = site.raw("self.addEventListener()");
    let folder = site.folder(&[("sw.js", cid)]);
    let script = [("service-worker", "script")];
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{cid}"), &script)
            .await
            .code(),
        400
    );
    for path in [format!("/ipfs//{cid}"), "/ipns/example.org".to_owned()] {
        assert_eq!(site.ask("GET", &path, &script).await.code(), 400, "{path}");
    }
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{folder}/sw.js"), &script)
            .await
            .code(),
        200
    );
}

#[tokio::test]
async fn more_requests_than_allowed_are_told_to_wait() {
    let mut site = Site::new();
    site.config.requests_max = 1.try_into().unwrap();
    let handler = site.handler();
    let cid = site.raw("hello");
    let request = http::Request::builder()
        .uri("/")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    // A body that is not read yet is a request that runs.
    let running = handler.answer(request).await;
    let path = format!("/ipfs/{cid}");
    let refused = super::support::ask(&handler, "GET", &path, &[]).await;
    assert_eq!((refused.code(), refused.header("retry-after")), (429, "10"));
    drop(running);
    let answer = super::support::ask(&handler, "GET", "/", &[]).await;
    assert_eq!(answer.code(), 200);
}

#[tokio::test]
async fn a_browser_sees_a_page_about_a_document_and_others_the_document() {
    let mut site = Site::new();
    let leaf = site.raw("hello");
    let json = format!("{{\"a<b\":[1,null,\"x\u{202e}y\"],\"link\":{{\"/\":\"{leaf}\"}}}}");
    let cid = site.put(cid::DAG_JSON, json.clone());
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let path = format!("/ipfs/{cid}");
    let page = site.ask("GET", &path, &browser).await;
    assert_eq!(
        (page.code(), page.header("content-type")),
        (200, "text/html")
    );
    let etag = page.header("etag").to_owned();
    assert!(etag.starts_with("\"DagIndex-") && etag.contains(&cid.to_string()));
    assert_eq!(page.header("content-disposition"), "");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let html = page.text();
    for part in [
        format!("<a href=\"/ipfs/{leaf}\">{leaf}</a>"),
        "a&lt;b".to_owned(),
        "x\\u{202e}y".to_owned(),
        "<a href=\"?format=raw\">".to_owned(),
        "<a href=\"?format=dag-json\">".to_owned(),
        "</html>".to_owned(),
    ] {
        assert!(html.contains(&part), "{part} in {html}");
    }
    let head = site.ask("HEAD", &path, &browser).await;
    assert_eq!((&head.headers, head.bytes()), (&page.headers, &b""[..]));
    let known = [browser[0], ("if-none-match", &etag)];
    assert_eq!(site.ask("GET", &path, &known).await.code(), 304);
    for path in [
        format!("{path}?download=true"),
        format!("{path}?format=dag-json"),
    ] {
        let answer = site.ask("GET", &path, &browser).await;
        assert_eq!(answer.bytes(), json.as_bytes(), "{path}");
    }
    assert_eq!(site.get(&path).await.bytes(), json.as_bytes());
    // Browsers show plain JSON themselves.
    let plain = site.put(cid::JSON, &b"{}"[..]);
    let answer = site.ask("GET", &format!("/ipfs/{plain}"), &browser).await;
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_page_about_a_document_is_bounded_whatever_is_inside() {
    let mut site = Site::new();
    let browser = [("accept", "text/html")];
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let wide = format!("[{}1]", "0,".repeat(200_000));
    let long = format!("\"{}\"", "<".repeat(900_000));
    for json in [deep, wide, long] {
        let cid = site.put(cid::DAG_JSON, json.clone());
        let page = site.ask("GET", &format!("/ipfs/{cid}"), &browser).await;
        assert_eq!(page.code(), 200);
        assert!(page.bytes().len() < 3 << 20);
        assert!(page.text().contains("this page shows its beginning"));
        assert!(page.text().ends_with("</html>\n"));
    }
    let broken = site.put(cid::DAG_CBOR, &[0xff][..]);
    let page = site.ask("GET", &format!("/ipfs/{broken}"), &browser).await;
    assert_eq!(page.code(), 422);
}

#[tokio::test]
async fn a_strict_gateway_gives_only_what_can_be_checked() {
    let mut site = Site::new();
    let file = site.file(&[b"hello", b" world"]);
    let folder = site.folder(&[("file", file)]);
    site.config.trustless_only = true;
    for (path, accept, code) in [
        (format!("/ipfs/{folder}?format=raw"), "", 200),
        (format!("/ipfs/{folder}"), "application/vnd.ipld.raw", 200),
        (format!("/ipfs/{folder}/file?format=car"), "", 200),
        ("/ipfs/bafkqaaa?format=raw".to_owned(), "", 200),
        ("/ipfs/bafkqaaa?format=car".to_owned(), "", 200),
        (format!("/ipfs/{folder}/file?format=raw"), "", 400),
        (format!("/ipfs/{folder}/file"), "text/html", 400),
        (format!("/ipfs/{folder}/"), "", 400),
        (format!("/ipfs/{folder}?format=tar"), "", 406),
        (format!("/ipfs/{folder}?format=dag-json"), "", 406),
    ] {
        let answer = site.ask("GET", &path, &[("accept", accept)]).await;
        assert_eq!(answer.code(), code, "{path} {accept}");
        if code == 400 {
            assert!(answer.text().contains("?format=raw"), "{}", answer.text());
        }
    }
}
