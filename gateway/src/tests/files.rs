//! Files and links: bytes, parts, types, names, versions.

use super::support::{Missing, Site};

/// Three chunks of 1024 bytes that differ.
fn chunked(site: &mut Site) -> (cairn_store::Cid, Vec<u8>) {
    let content: Vec<u8> = (0..3072_u32).map(|at| (at / 16 % 251) as u8).collect();
    let chunks: Vec<&[u8]> = content.chunks(1024).collect();
    (site.file(&chunks), content)
}

#[tokio::test]
async fn a_file_comes_whole_with_what_clients_need() {
    let mut site = Site::new();
    let (cid, content) = chunked(&mut site);
    let answer = site.get(&format!("/ipfs/{cid}")).await;
    assert_eq!(answer.code(), 200);
    assert_eq!(answer.bytes(), content);
    assert_eq!(answer.header("content-length"), "3072");
    assert_eq!(answer.header("etag"), format!("\"{cid}\""));
    assert_eq!(
        answer.header("cache-control"),
        "public, max-age=29030400, immutable"
    );
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("x-ipfs-path"), format!("/ipfs/{cid}"));
    assert_eq!(answer.header("x-ipfs-roots"), cid.to_string());
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("content-disposition"), "");
    assert_eq!(answer.header("last-modified"), "");
    assert_eq!(answer.header("content-location"), "");
}

#[tokio::test]
async fn a_head_has_the_headers_and_nothing_else() {
    let mut site = Site::new();
    let (cid, _) = chunked(&mut site);
    let path = format!("/ipfs/{cid}");
    let (get, head) = (site.get(&path).await, site.head(&path).await);
    assert_eq!(head.code(), 200);
    assert_eq!(head.bytes(), b"");
    assert_eq!(head.headers, get.headers);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let mut site = Site::new();
    let cid = site.raw("");
    let answer = site
        .ask("GET", &format!("/ipfs/{cid}"), &[("range", "bytes=0-5")])
        .await;
    assert_eq!(
        (
            answer.code(),
            answer.bytes(),
            answer.header("content-length")
        ),
        (200, &b""[..], "0")
    );
}

#[tokio::test]
async fn one_range_is_a_part() {
    let mut site = Site::new();
    let (cid, content) = chunked(&mut site);
    for (range, told, bytes) in [
        ("bytes=6-16", "bytes 6-16/3072", &content[6..17]),
        (
            "bytes=1000-1100",
            "bytes 1000-1100/3072",
            &content[1000..1101],
        ),
        ("bytes=-3", "bytes 3069-3071/3072", &content[3069..]),
        ("bytes=3000-", "bytes 3000-3071/3072", &content[3000..]),
    ] {
        let answer = site
            .ask("GET", &format!("/ipfs/{cid}"), &[("range", range)])
            .await;
        assert_eq!(answer.code(), 206, "{range}");
        assert_eq!(answer.header("content-range"), told);
        assert_eq!(answer.header("content-length"), bytes.len().to_string());
        assert_eq!(answer.bytes(), bytes);
    }
}

#[tokio::test]
async fn several_ranges_are_parts_of_one_body() {
    let mut site = Site::new();
    let (cid, content) = chunked(&mut site);
    let path = format!("/ipfs/{cid}?filename=a.txt");
    let answer = site
        .ask("GET", &path, &[("range", "bytes=0-3,1020-1030,-2")])
        .await;
    assert_eq!(answer.code(), 206);
    let boundary = answer
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    assert_eq!(
        answer.header("content-length"),
        answer.bytes().len().to_string()
    );
    let mut expected = Vec::new();
    for (first, last) in [(0, 3), (1020, 1030), (3070, 3071)] {
        expected.extend_from_slice(
            format!(
                "\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 Content-Range: bytes {first}-{last}/3072\r\n\r\n"
            )
            .as_bytes(),
        );
        expected.extend_from_slice(&content[first..=last]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert_eq!(answer.bytes(), expected);
}

#[tokio::test]
async fn ranges_outside_and_ranges_that_are_none_are_refused() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let path = format!("/ipfs/{cid}");
    let outside = site.ask("GET", &path, &[("range", "bytes=10-")]).await;
    assert_eq!(
        (outside.code(), outside.header("content-range")),
        (416, "bytes */10")
    );
    let nonsense = site.ask("GET", &path, &[("range", "bytes=x")]).await;
    assert_eq!(nonsense.code(), 400);
    let many = vec!["1-1"; 17].join(",");
    let many = site
        .ask("GET", &path, &[("range", &format!("bytes={many}"))])
        .await;
    assert_eq!((many.code(), many.text()), (200, "0123456789"));
}

#[tokio::test]
async fn a_range_needs_only_its_own_blocks() {
    let mut site = Site::new();
    let (cid, content) = chunked(&mut site);
    let middle = site.raw(content[1024..2048].to_vec());
    site.lose(&middle);
    for (range, bytes) in [
        ("bytes=997-1000", &content[997..1001]),
        ("bytes=2200-2201", &content[2200..2202]),
    ] {
        let answer = site
            .ask("GET", &format!("/ipfs/{cid}"), &[("range", range)])
            .await;
        assert_eq!((answer.code(), answer.bytes()), (206, bytes));
    }
    let answer = site
        .ask(
            "GET",
            &format!("/ipfs/{cid}"),
            &[("range", "bytes=1500-1600")],
        )
        .await;
    assert_eq!(answer.code(), 404);
    assert!(
        answer.text().contains(&middle.to_string()),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn if_range_guards_against_mixing_versions() {
    let mut site = Site::new();
    let cid = site.raw("0123456789");
    let path = format!("/ipfs/{cid}");
    let with = async |known: &str| {
        site.ask("GET", &path, &[("range", "bytes=0-1"), ("if-range", known)])
            .await
            .code()
    };
    assert_eq!(with(&format!("\"{cid}\"")).await, 206);
    assert_eq!(with("\"other\"").await, 200);
    assert_eq!(with(&format!("W/\"{cid}\"")).await, 200);
}

#[tokio::test]
async fn who_has_the_version_is_told_so() {
    let mut site = Site::new();
    let (cid, _) = chunked(&mut site);
    let path = format!("/ipfs/{cid}");
    for known in [
        format!("\"{cid}\""),
        format!("W/\"{cid}\""),
        format!("\"x\", \"{cid}\""),
        "*".to_owned(),
    ] {
        let answer = site.ask("GET", &path, &[("if-none-match", &known)]).await;
        assert_eq!(answer.code(), 304, "{known}");
        assert_eq!(answer.header("etag"), format!("\"{cid}\""));
        assert_eq!(
            answer.header("cache-control"),
            "public, max-age=29030400, immutable"
        );
        assert_eq!(answer.bytes(), b"");
    }
    assert_eq!(
        site.ask("GET", &path, &[("if-none-match", "\"x\"")])
            .await
            .code(),
        200
    );
}

#[tokio::test]
async fn a_star_matches_only_what_is_there() {
    let mut site = Site::new();
    let cid = site.raw("lost");
    site.lose(&cid);
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{cid}"), &[("if-none-match", "*")])
            .await
            .code(),
        404
    );
}

#[tokio::test]
async fn a_kept_time_is_told_and_compared() {
    let mut site = Site::new();
    let cid = site.dated_file(b"old", 42);
    let path = format!("/ipfs/{cid}");
    let told = "Thu, 01 Jan 1970 00:00:42 GMT";
    assert_eq!(site.get(&path).await.header("last-modified"), told);
    let since = async |time| {
        site.ask("GET", &path, &[("if-modified-since", time)])
            .await
            .code()
    };
    assert_eq!(since(told).await, 304);
    assert_eq!(since("Thu, 01 Jan 1970 00:00:41 GMT").await, 200);
    assert_eq!(since("yesterday").await, 200);
}

#[tokio::test]
async fn types_come_from_names_and_then_from_bytes() {
    let mut site = Site::new();
    let json = site.raw("{\"a\": 1}");
    let text = site.raw("hello");
    let page = site.raw("<!DOCTYPE html><p>hello");
    let folder = site.folder(&[("style.css", text), ("hello", text)]);
    for (path, kind) in [
        (format!("/ipfs/{json}"), "application/json"),
        (format!("/ipfs/{json}?format=json"), "application/json"),
        (format!("/ipfs/{text}"), "text/plain; charset=utf-8"),
        (format!("/ipfs/{page}"), "text/html"),
        (format!("/ipfs/{text}?filename=a.svg"), "image/svg+xml"),
        (
            format!("/ipfs/{folder}/style.css"),
            "text/css; charset=utf-8",
        ),
        (
            format!("/ipfs/{folder}/style.css?filename=a.png"),
            "image/png",
        ),
        (format!("/ipfs/{folder}/hello"), "text/plain; charset=utf-8"),
    ] {
        for answer in [site.get(&path).await, site.head(&path).await] {
            assert_eq!(
                (answer.code(), answer.header("content-type")),
                (200, kind),
                "{path}"
            );
        }
    }
    let answer = site
        .ask(
            "GET",
            &format!("/ipfs/{json}"),
            &[("accept", "application/json")],
        )
        .await;
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_part_has_the_type_of_the_whole() {
    let mut site = Site::new();
    let cid = site.raw("<!DOCTYPE html><p>hello");
    let answer = site
        .ask("GET", &format!("/ipfs/{cid}"), &[("range", "bytes=18-22")])
        .await;
    assert_eq!(
        (answer.text(), answer.header("content-type")),
        ("hello", "text/html")
    );
}

#[tokio::test]
async fn names_and_downloads_are_asked_for() {
    let mut site = Site::new();
    let cid = site.raw("hello");
    let folder = site.folder(&[("hello.txt", cid)]);
    for (path, told) in [
        (
            format!("/ipfs/{cid}?filename=test%D1%82.tar"),
            "inline; filename=\"test_.tar\"; filename*=UTF-8''test%D1%82.tar",
        ),
        (
            format!("/ipfs/{cid}?filename=a+b&download=true"),
            "attachment; filename=\"a b\"; filename*=UTF-8''a%20b",
        ),
        (
            format!("/ipfs/{folder}/hello.txt?download=true"),
            "attachment; filename=\"hello.txt\"; filename*=UTF-8''hello.txt",
        ),
    ] {
        assert_eq!(site.get(&path).await.header("content-disposition"), told);
    }
}

#[tokio::test]
async fn a_link_answers_where_it_points() {
    let mut site = Site::new();
    let cid = site.symlink("../foo");
    let folder = site.folder(&[("bar", cid)]);
    let answer = site.get(&format!("/ipfs/{folder}/bar")).await;
    assert_eq!((answer.code(), answer.text()), (200, "../foo"));
    assert_eq!(answer.header("content-type"), "inode/symlink");
    let head = site.head(&format!("/ipfs/{folder}/bar")).await;
    assert_eq!(
        (head.header("content-length"), head.bytes()),
        ("6", &b""[..])
    );
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_nobody_sent_is_504() {
    let mut site = Site::new();
    let cid = site.raw("lost");
    site.lose(&cid);
    let path = format!("/ipfs/{cid}");
    let absent = site.get(&path).await;
    assert_eq!(absent.code(), 404);
    assert!(
        absent.text().contains(&path) && absent.text().contains("cairn add"),
        "{}",
        absent.text()
    );
    assert_eq!(absent.header("cache-control"), "no-store");
    assert_eq!(absent.header("access-control-allow-origin"), "*");
    site.missing = Missing::Nowhere;
    let nowhere = site.get(&path).await;
    assert_eq!(nowhere.code(), 502);
    assert!(nowhere.text().contains("found 0"), "{}", nowhere.text());
    assert_eq!(nowhere.header("retry-after"), "60");
    site.missing = Missing::TooSlow;
    let slow = site.get(&path).await;
    assert_eq!(slow.code(), 504);
    assert!(slow.text().contains("2 dialled"), "{}", slow.text());
    assert_eq!(slow.header("retry-after"), "60");
    let head = site.head(&path).await;
    assert_eq!((head.code(), head.bytes()), (504, &b""[..]));
    site.missing = Missing::Damaged;
    let damaged = site.get(&path).await;
    assert_eq!(damaged.code(), 500);
    assert!(
        damaged.text().contains("is damaged on disk") && damaged.text().contains("--heal"),
        "{}",
        damaged.text()
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gets_nowhere_ends() {
    let mut site = Site::new();
    site.missing = Missing::Hangs;
    let cid = site.raw("lost");
    site.lose(&cid);
    let answer = site.get(&format!("/ipfs/{cid}")).await;
    assert_eq!(answer.code(), 504);
    assert!(
        answer.text().contains("2m") || answer.text().contains("120s"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn errors_are_pages_for_those_who_ask_for_pages() {
    let site = Site::new();
    let plain = site.get("/ipfs/%3Cscript%3E").await;
    assert_eq!(
        (plain.code(), plain.header("content-type")),
        (400, "text/plain; charset=utf-8")
    );
    let page = site
        .ask("GET", "/ipfs/%3Cscript%3E", &[("accept", "text/html")])
        .await;
    assert_eq!(
        (page.code(), page.header("content-type")),
        (400, "text/html")
    );
    assert!(!page.text().contains("<script>"), "{}", page.text());
}

#[tokio::test]
async fn only_if_cached_never_looks_elsewhere() {
    let mut site = Site::new();
    let here = site.raw("here");
    let there = site.raw("there");
    site.move_elsewhere(&there);
    let cached = [("cache-control", "only-if-cached")];
    for method in ["GET", "HEAD"] {
        assert_eq!(
            site.ask(method, &format!("/ipfs/{here}"), &cached)
                .await
                .code(),
            200
        );
        assert_eq!(
            site.ask(method, &format!("/ipfs/{there}"), &cached)
                .await
                .code(),
            412
        );
    }
    assert_eq!(site.get(&format!("/ipfs/{there}")).await.text(), "there");
    site.missing = Missing::Hangs;
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{there}?format=raw"), &cached)
            .await
            .code(),
        412
    );
    let unread = site.file(&[b"x", b"y"]);
    assert_eq!(
        site.ask("GET", &format!("/ipfs/{unread}/x"), &cached)
            .await
            .code(),
        404
    );
}

#[tokio::test]
async fn a_large_file_streams_and_breaks_where_a_block_is_missing() {
    let mut site = Site::new();
    let chunks: Vec<Vec<u8>> = (0..8_u8).map(|at| vec![at; 100_000]).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let cid = site.file(&chunks);
    let whole = site.get(&format!("/ipfs/{cid}")).await;
    assert_eq!(whole.header("content-length"), "800000");
    assert_eq!(whole.bytes(), chunks.concat());
    let last = site.raw(chunks[7].to_vec());
    site.lose(&last);
    let broken = site.get(&format!("/ipfs/{cid}")).await;
    assert_eq!(broken.code(), 200);
    assert!(broken.body.unwrap_err().contains(&last.to_string()));
}

#[tokio::test]
async fn a_file_of_many_windows_comes_whole_with_and_without_leave_to_read_ahead() {
    let mut site = Site::new();
    // No multiple of a window, so that blocks lie across their edges.
    let chunks: Vec<Vec<u8>> = (0..9_u8).map(|at| vec![at; 700_001]).collect();
    let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
    let content = chunks.concat();
    let cid = site.file(&chunks);
    site.config.read_ahead_max = 1.try_into().unwrap();
    let handler = site.handler();
    let path = format!("/ipfs/{cid}");
    let whole = || super::support::ask(&handler, "GET", &path, &[]);
    let (one, other) = tokio::join!(whole(), whole());
    assert!(one.bytes() == content && other.bytes() == content);
    let part = [("range", "bytes=699999-5000000")];
    let part = super::support::ask(&handler, "GET", &path, &part).await;
    assert!(part.bytes() == &content[699_999..=5_000_000]);
}
