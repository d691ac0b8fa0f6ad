//! Names and addresses that would lead out: of the DAG, of a header, of the folder where an archive is unpacked, or to
//! another host.

use super::support::{Answer, Site};
use cairn_store::{Cid, cid};
use percent_encoding::percent_decode_str;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Read;

/// A folder with the file `a` and the folder `sub`, which has the file `b`.
fn tree(site: &mut Site) -> Cid {
    let (a, b) = (site.raw("content of a"), site.raw("content of b"));
    let sub = site.folder(&[("b", b)]);
    site.folder(&[("a", a), ("sub", sub)])
}

/// Fails if anything of an answer was made by what was asked.
fn is_ours(answer: &Answer, asked: &str) {
    for name in ["set-cookie", "x-injected", "refresh"] {
        assert!(!answer.headers.contains_key(name), "{asked}: {name}");
    }
    for (name, value) in &answer.headers {
        let is_plain = |byte: &u8| matches!(*byte, b'\t' | b' '..=b'~' | 0x80..);
        assert!(
            value.as_bytes().iter().all(is_plain),
            "{asked}: {name}: {value:?}"
        );
    }
}

#[tokio::test]
async fn no_way_of_writing_a_path_leads_out_of_its_root() {
    let mut site = Site::new();
    let root = tree(&mut site);
    for (rest, status, body) in [
        ("/a", 200, "content of a"),
        ("//a", 200, "content of a"),
        ("/sub//b", 200, "content of b"),
        ("/sub/./b", 200, "content of b"),
        ("/sub/.//.///b", 200, "content of b"),
        ("/sub/../a", 200, "content of a"),
        ("/sub/%2e%2e/a", 200, "content of a"),
        ("/sub/.%2E/%61", 200, "content of a"),
        ("/sub%2fb", 200, "content of b"),
        ("/sub%2F..%2fa", 200, "content of a"),
        ("/sub/b/../../a", 200, "content of a"),
        ("/..", 400, ""),
        ("/../", 400, ""),
        ("/../a", 400, ""),
        ("/sub/../..", 400, ""),
        ("/sub/../../a", 400, ""),
        ("/%2e%2e", 400, ""),
        ("/%2e%2e/%2e%2e/%2e%2e/etc/passwd", 400, ""),
        ("/.%2e/etc/passwd", 400, ""),
        ("/%2e./etc/passwd", 400, ""),
        ("/%2E%2E%2Fetc%2Fpasswd", 400, ""),
        ("/..%2f..%2f..%2fetc%2fpasswd", 400, ""),
        ("/a%2f..%2f..%2f..%2fetc%2fpasswd", 400, ""),
        ("/sub/%2e%2e%2f%2e%2e%2fapi%2fv0", 400, ""),
        // Read once: what is encoded twice is a name.
        ("/%252e%252e/%252e%252e/etc/passwd", 404, ""),
        ("/%252e%252e%252fetc", 404, ""),
        ("/%25252e%25252e", 404, ""),
        // No separator here.
        ("/..\\..\\etc\\passwd", 404, ""),
        ("/..%5c..%5cetc%5cpasswd", 404, ""),
        ("/%2e%2e%5c%2e%2e%5c", 404, ""),
        ("/sub\\b", 404, ""),
        ("/..;/a", 404, ""),
        ("/..;x=y/..;/etc/passwd", 404, ""),
        ("/sub;/b", 404, ""),
        ("/a;.html", 404, ""),
        ("/...", 404, ""),
        ("/....//a", 404, ""),
        ("/.../...//", 404, ""),
        ("/. /a", 404, ""),
        ("/%20..%20/a", 404, ""),
        ("/..%09/a", 404, ""),
        ("/..%0a/a", 404, ""),
        // Not the shortest form, half of a pair, beyond the last letter, no UTF-8.
        ("/%c0%ae%c0%ae/etc/passwd", 400, ""),
        ("/%c0%af", 400, ""),
        ("/%e0%80%ae%e0%80%ae/", 400, ""),
        ("/%f0%80%80%ae", 400, ""),
        ("/%f8%80%80%80%ae", 400, ""),
        ("/%ed%a0%80", 400, ""),
        ("/%f4%90%80%80", 400, ""),
        ("/%ff%fe", 400, ""),
        ("/a%80", 400, ""),
        // Letters that look like them.
        ("/%ef%bc%8e%ef%bc%8e%ef%bc%8fetc", 404, ""),
        ("/%e2%80%a4%e2%80%a4/etc", 404, ""),
        ("/%e2%88%95etc", 404, ""),
        ("/%00", 400, ""),
        ("/a%00", 400, ""),
        ("/a%00.html", 400, ""),
        ("/%2e%2e%00/", 400, ""),
        ("/%", 400, ""),
        ("/%2", 400, ""),
        ("/%u002e%u002e/", 400, ""),
        ("/%%32%65", 400, ""),
        ("/% 2e", 400, ""),
        ("/file:%2f%2f%2fetc/passwd", 404, ""),
        ("/C:%5c", 404, ""),
        ("/~root", 404, ""),
        ("/a%0d%0aSet-Cookie:%20x=y", 404, ""),
        ("/%0d%0aX-Injected:%20y%0d%0a%0d%0a", 404, ""),
        ("/%e5%98%8a%e5%98%8dSet-Cookie:x", 404, ""),
    ] {
        // Such as have a space are written so by no client, and read so by none of our parsers.
        let rest = rest.replace(' ', "%20");
        for method in ["GET", "HEAD"] {
            let answer = site.ask(method, &format!("/ipfs/{root}{rest}"), &[]).await;
            assert_eq!(answer.code(), status, "{method} {rest}");
            is_ours(&answer, &rest);
            if status == 200 && method == "GET" {
                assert_eq!(answer.text(), body, "{rest}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_but_content_is_served_under_any_path() {
    let mut site = Site::new();
    let root = tree(&mut site);
    for (path, status) in [
        (format!("/ipfs/{root}/a"), 200),
        (format!("/ipfs%2f{root}%2fa"), 200),
        (format!("//ipfs/{root}/a"), 404),
        (format!("/./ipfs/{root}/a"), 404),
        (format!("/x/../ipfs/{root}/a"), 404),
        (format!("/ipfs\\{root}\\a"), 404),
        (format!("/IPFS/{root}/a"), 404),
        (format!("/%252fipfs/{root}/a"), 404),
        (format!("/ipfs/../ipfs/{root}/a"), 400),
        (format!("/ipfs/./{root}/a"), 400),
        (format!("/ipfs/{root}%00/a"), 400),
        (format!("/ipfs/{root};/a"), 400),
        (format!("/ipfs/{root}\\..\\a"), 400),
        ("/ipfs/..".to_owned(), 400),
        ("/ipfs/%2e%2e/%2e%2e/etc/passwd".to_owned(), 400),
        ("/ipfs//etc/passwd".to_owned(), 400),
        ("/ipns/..".to_owned(), 400),
        ("/ipns/../../etc/passwd".to_owned(), 400),
        ("/../etc/passwd".to_owned(), 404),
        ("/%2e%2e/etc/passwd".to_owned(), 404),
        ("/..%2f..%2fetc/passwd".to_owned(), 404),
        ("//etc/passwd".to_owned(), 404),
        ("/etc/passwd".to_owned(), 404),
        ("/file:///etc/passwd".to_owned(), 404),
        ("/api/v0/config/show".to_owned(), 404),
        ("/api/v0/../../ipfs".to_owned(), 404),
        ("/metrics".to_owned(), 404),
        ("/debug/vars".to_owned(), 404),
        ("/webui".to_owned(), 404),
    ] {
        let answer = site.get(&path).await;
        assert_eq!(answer.code(), status, "{path}");
        is_ours(&answer, &path);
    }
    // Whatever changes something is not asked for here, by browsers or others.
    for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"] {
        for path in ["/api/v0/repo/gc", "/api/v0/add", &format!("/ipfs/{root}/a")] {
            let answer = site.ask(method, path, &[]).await;
            assert_eq!(answer.code(), 405, "{method} {path}");
            assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
        }
    }
}

/// What a path gives by the rules themselves: decoded once, cut at slashes, `.` and `..` resolved.
fn expected(rest: &str) -> (u16, &'static str) {
    let mut bytes = rest.bytes();
    while let Some(byte) = bytes.next() {
        let mut is_digit = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
        if byte == b'%' && !(is_digit() && is_digit()) {
            return (400, "");
        }
    }
    let Ok(path) = percent_decode_str(rest).decode_utf8() else {
        return (400, "");
    };
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.pop().is_none() => return (400, ""),
            ".." => {}
            name => names.push(name),
        }
    }
    match names.as_slice() {
        _ if path.contains('\0') => (400, ""),
        ["a"] => (200, "content of a"),
        ["sub", "b"] => (200, "content of b"),
        [] | ["sub"] if path.ends_with('/') => (200, "<!DOCTYPE"),
        [] | ["sub"] => (301, ""),
        _ => (404, ""),
    }
}

#[tokio::test]
async fn ten_thousand_paths_made_at_random_give_what_the_rules_say() {
    let mut site = Site::new();
    let root = tree(&mut site);
    let handler = site.handler();
    let pieces = [
        "..",
        ".",
        "/",
        "//",
        "%2e",
        "%2E%2e",
        "%2f",
        "%2F",
        "\\",
        "%5c",
        "%00",
        ";",
        ":",
        "%c0%ae",
        "%c0%af",
        "%25",
        "%252e",
        "%25252f",
        "%ef%bc%8e",
        "%ed%a0%80",
        "%ff",
        "%",
        "%2",
        "%0d%0a",
        "%20",
        "%09",
        "a",
        "sub",
        "b",
        "/a",
        "/sub/",
        "/b",
        "/../",
        "/%2e%2e/",
        "/..%2f",
        "etc",
        "/etc/passwd",
        "%3f",
        "%23",
        "*",
        "~",
        "@",
    ];
    let mut random = StdRng::seed_from_u64(7);
    let mut seen = std::collections::BTreeMap::<u16, u32>::new();
    for _ in 0..10_000 {
        let mut rest = "/".to_owned();
        for _ in 0..random.random_range(1..8) {
            rest.push_str(pieces[random.random_range(0..pieces.len())]);
        }
        let answer =
            super::support::ask(&handler, "GET", &format!("/ipfs/{root}{rest}"), &[]).await;
        let (status, body) = expected(&rest);
        assert_eq!(answer.code(), status, "{rest}");
        assert!(answer.text().starts_with(body), "{rest}");
        is_ours(&answer, &rest);
        if status == 301 {
            let to = answer.header("location");
            assert!(
                to.starts_with(&format!("/ipfs/{root}/")) && !to.contains('\\'),
                "{rest}: {to}"
            );
        }
        *seen.entry(status).or_default() += 1;
    }
    for status in [200, 301, 400, 404] {
        assert!(
            seen.get(&status).is_some_and(|count| *count > 100),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn no_rule_of_a_site_leads_out_of_it_or_ends_a_header() {
    let mut site = Site::new();
    let a = site.raw("content of a");
    let rules = "/up /../../etc/passwd 200\n\
                 /dots /%2e%2e/%2e%2e/etc/passwd 200\n\
                 /back /..\\..\\etc\\passwd 200\n\
                 /inside /sub/../a 200\n\
                 /ends /a%00.html 200\n\
                 /nul /\u{0}a 200\n\
                 /page /../x 404\n\
                 /host //evil.example/a 200\n\
                 /root /ipfs/bafkqaaa 200\n\
                 /serve/* /:splat 200\n\
                 /send/:x/* https://example.org/:x/:splat?q=:splat#:x 302\n\
                 /here/* /:splat 302\n\
                 /odd /a\u{1}\u{7f}b\"<>` 302\n"
        .to_owned();
    let rules = site.raw(rules);
    let root = site.folder(&[("_redirects", rules), ("a", a)]);
    let host = format!("{root}.ipfs.localhost");
    for (path, status, told) in [
        ("/up", 500, "above its root"),
        ("/dots", 404, ""),
        ("/back", 404, ""),
        ("/inside", 200, "content of a"),
        ("/ends", 404, ""),
        ("/nul", 404, ""),
        ("/page", 500, "above its root"),
        ("/host", 404, ""),
        ("/root", 404, ""),
        ("/serve/a", 200, "content of a"),
        ("/serve/x/../a", 200, "content of a"),
        ("/serve/..%2f..%2fetc/passwd", 400, ""),
        ("/serve/%2e%2e/%2e%2e/etc/passwd", 400, ""),
        ("/serve/%252e%252e/a", 404, ""),
        ("/serve//evil.example", 404, ""),
        (
            "/send/x/%0d%0aSet-Cookie:%20x=y",
            302,
            "https://example.org/x/%0D%0ASet-Cookie:%20x=y?q=%0D%0ASet-Cookie%3A%20x%3Dy#x",
        ),
        (
            "/send/a%0d%0ab/c?d=%0d%0ae",
            302,
            "https://example.org/a%0D%0Ab/c?q=c&d=%0d%0ae#a%0D%0Ab",
        ),
        (
            "/send/@evil.example/b",
            302,
            "https://example.org/@evil.example/b?q=b#%40evil.example",
        ),
        ("/here//evil.example", 302, "/evil.example"),
        ("/here/%2fevil.example", 302, "/evil.example"),
        ("/here/%5cevil.example", 302, "/%5Cevil.example"),
        ("/here/%09/evil.example", 302, "/%09/evil.example"),
        ("/odd", 302, "/a%01%7Fb%22%3C%3E%60"),
    ] {
        let answer = site.ask("GET", path, &[("host", &host)]).await;
        assert_eq!(answer.code(), status, "{path}: {}", answer.text());
        is_ours(&answer, path);
        if status == 302 {
            assert_eq!(answer.header("location"), told, "{path}");
        } else {
            assert!(answer.text().contains(told), "{path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_name_for_saving_ends_neither_its_quotes_nor_its_header() {
    let mut site = Site::new();
    let file = site.raw("x");
    let document = site.put(cid::DAG_JSON, "{}");
    let folder = site.folder(&[("a", file)]);
    let long = "x%22".repeat(2000);
    for name in [
        "../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "..%5c..%5c",
        "a%22;%20filename=%22b.exe",
        "a%5c%22b",
        "a%5c",
        "%22",
        "a%0d%0aSet-Cookie:%20x=y",
        "a%0aX-Injected:%20y",
        "a%00.txt",
        "%7f%1b%08",
        "%e2%80%ae.txt",
        "%e2%80%a8",
        "%ff%fe",
        "%c0%ae",
        "utf-8''a",
        "%2525",
        "*%27%28%29",
        &long,
    ] {
        for (path, most) in [
            (format!("/ipfs/{file}?filename={name}"), "inline"),
            (
                format!("/ipfs/{file}?download=true&filename={name}"),
                "attachment",
            ),
            (
                format!("/ipfs/{file}?format=raw&filename={name}"),
                "attachment",
            ),
            (
                format!("/ipfs/{file}?format=car&filename={name}"),
                "attachment",
            ),
            (
                format!("/ipfs/{folder}?format=tar&filename={name}"),
                "attachment",
            ),
            (
                format!("/ipfs/{document}?format=dag-json&filename={name}"),
                "inline",
            ),
        ] {
            let answer = site.get(&path).await;
            assert_eq!(answer.code(), 200, "{path:.80}");
            is_ours(&answer, &path);
            let told = answer.header("content-disposition");
            assert_eq!(
                answer.headers.get_all("content-disposition").iter().count(),
                1
            );
            let (kind, rest) = told.split_once("; filename=\"").unwrap();
            assert_eq!(kind, most, "{path:.80}");
            // The first quote that is not escaped ends the name.
            let mut at = rest.char_indices();
            let end = loop {
                match at.next().unwrap() {
                    (_, '\\') => drop(at.next().unwrap()),
                    (end, '"') => break end,
                    (_, char) => assert!((' '..='~').contains(&char), "{told:.80}"),
                }
            };
            let rest = rest[end..].strip_prefix("\"; filename*=UTF-8''").unwrap();
            let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._~%".contains(char);
            assert!(rest.chars().all(is_plain), "{told:.80}");
        }
    }
}

/// The attributes `href` of a page, as a browser reads them.
fn links(page: &str) -> Vec<String> {
    let starts = page
        .match_indices("href=\"")
        .map(|(at, found)| at + found.len());
    let raw = starts.map(|start| page[start..].split('"').next().unwrap());
    raw.map(|link| {
        link.replace("&#39;", "'")
            .replace("&#34;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
    })
    .collect()
}

#[tokio::test]
async fn every_link_of_a_folders_page_stays_below_its_root() {
    let mut site = Site::new();
    let file = site.raw("x");
    let names = [
        "",
        ".",
        "..",
        "../..",
        "../../../etc/passwd",
        "./x",
        "/",
        "//",
        "/evil.example",
        "//evil.example/x",
        "\\\\evil.example",
        "..\\x",
        "%2e%2e",
        "%2e%2e%2f",
        "%2f%2fevil.example",
        "a/b",
        "a/../../..",
        "http://evil.example/",
        "javascript:alert(1)",
        "?x=y",
        "#x",
        "a?b#c",
        "a b",
        "\t",
        "\n",
        "\r\nx: y",
        "\u{0}",
        "\u{7f}",
        "\u{202e}x",
        "\"><a href=\"//evil.example",
        "'",
        "&amp;",
        "&quot;",
        "..;",
        ";",
        "\u{ff0e}\u{ff0e}",
        "\u{2215}",
    ];
    let entries: Vec<_> = names.iter().map(|name| (*name, file, 1)).collect();
    let evil = site.node(&entries, vec![0x08, 1]);
    let root = site.folder(&[("sub", evil)]);
    for (host, at, own, up) in [
        (
            "127.0.0.1",
            format!("/ipfs/{evil}/"),
            format!("/ipfs/{evil}/"),
            "",
        ),
        (
            "127.0.0.1",
            format!("/ipfs/{root}/sub/"),
            format!("/ipfs/{root}/sub/"),
            "/..",
        ),
        (
            &format!("{evil}.ipfs.localhost"),
            "/".to_owned(),
            "/".to_owned(),
            "",
        ),
        (
            &format!("{root}.ipfs.localhost"),
            "/sub/".to_owned(),
            "/sub/".to_owned(),
            "/..",
        ),
    ] {
        let answer = site.ask("GET", &at, &[("host", host)]).await;
        assert_eq!(answer.code(), 200);
        let page = answer.text();
        let mut found = 0;
        for link in links(page) {
            let to_content = ["/ipfs/", "//localhost/ipfs/"].iter().any(|start| {
                let is_plain = |char: char| char.is_ascii_alphanumeric() || "-._~%".contains(char);
                link.strip_prefix(start).is_some_and(|rest| {
                    let (cid, query) = rest.split_once("?filename=").unwrap_or((rest, ""));
                    // On the way to this folder there is one other.
                    let cid = cid.strip_suffix("/sub").unwrap_or(cid);
                    cid::parse(cid).is_ok() && query.chars().all(is_plain)
                })
            });
            let is_up = !up.is_empty() && link == format!("{}{up}", own.trim_end_matches('/'));
            if to_content {
                continue;
            }
            if let Some(below) = link.strip_prefix(&own) {
                found += 1;
                // One name, which is neither above nor an address of another host, however often it is decoded.
                let is_up = is_up || (up.is_empty() && below.is_empty());
                assert!(
                    is_up || !below.contains(['/', '\\', '?', '#', ' ', '\n', '\r']),
                    "{at}: {link:?}"
                );
                assert!(is_up || !matches!(below, "" | "." | ".."), "{at}: {link:?}");
            } else {
                assert!(is_up, "{at}: {link:?}");
            }
        }
        // All but those that no address can name.
        assert!(found >= names.len() - 3, "{at}: {found}");
        for name in names {
            // The name in its link is the name of the entry.
            let is_named = |link: &String| {
                let below = link.strip_prefix(&own)?;
                let decoded = percent_decode_str(below).decode_utf8().ok()?;
                (decoded == name).then_some(())
            };
            let unnamed = matches!(name, "" | "." | "..");
            let is_there = links(page).iter().any(|link| is_named(link).is_some());
            assert!(unnamed || is_there, "{at}: {name:?}");
        }
    }
}

#[tokio::test]
async fn every_entry_of_a_tar_is_below_its_root_or_the_tar_is_refused() {
    let mut site = Site::new();
    let file = site.raw("x");
    for (name, told) in [
        ("a", Some("a")),
        ("./a", Some("a")),
        ("a/", Some("a")),
        ("//a", Some("a")),
        ("/etc/passwd", Some("etc/passwd")),
        ("a/../b", Some("b")),
        ("a/./../b/.", Some("b")),
        ("../a", Some("../a")),
        ("%2e%2e", Some("%2e%2e")),
        ("%2e%2e%2fa", Some("%2e%2e%2fa")),
        ("..\\..\\a", Some("..\\..\\a")),
        ("C:\\a", Some("C:\\a")),
        ("..;", Some("..;")),
        ("...", Some("...")),
        ("a\nb", Some("a\nb")),
        ("\u{ff0e}\u{ff0e}/a", Some("\u{ff0e}\u{ff0e}/a")),
        ("", None),
        (".", None),
        ("..", None),
        ("/", None),
        ("../..", None),
        ("../../a", None),
        ("../../../../etc/passwd", None),
        ("/../../a", None),
        ("a/../../../b", None),
        ("a\u{0}b", None),
        ("\u{0}", None),
    ] {
        let evil = site.node(&[(name, file, 1)], vec![0x08, 1]);
        let root = site.folder(&[("sub", evil)]);
        let answer = site.get(&format!("/ipfs/{root}?format=tar")).await;
        let Some(told) = told else {
            assert_eq!(answer.code(), 422, "{name:?}");
            continue;
        };
        assert_eq!(answer.code(), 200, "{name:?}");
        let mut archive = tar::Archive::new(answer.bytes());
        let mut paths = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            paths.push(String::from_utf8(entry.path_bytes().into_owned()).unwrap());
            entry.read_to_end(&mut Vec::new()).unwrap();
        }
        let below = match told.strip_prefix("../") {
            Some(beside) => beside.to_owned(),
            None => format!("sub/{told}"),
        };
        assert_eq!(paths.last(), Some(&format!("{root}/{below}")), "{name:?}");
        let is_below = |path: &String| {
            path.starts_with(&format!("{root}/")) && !path.split('/').any(|part| part == "..")
        };
        assert!(paths.iter().all(is_below), "{paths:?}");
    }
}
