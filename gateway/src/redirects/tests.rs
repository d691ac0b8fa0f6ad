//! Rules as text, and what they make of paths.

use super::*;
use proptest::prelude::*;

fn outcome(file: &str, path: &str, query: Option<&str>) -> String {
    let rules = match Rules::parse(file.as_bytes()) {
        Ok(rules) => rules,
        Err(error) => return error.to_string(),
    };
    match rules.find(path, query) {
        None => "none".to_owned(),
        Some(Err(error)) => error.to_string(),
        Some(Ok(Outcome::Redirect(status, to))) => format!("{} {to}", status.as_u16()),
        Some(Ok(Outcome::Rewrite(to))) => format!("200 {to}"),
        Some(Ok(Outcome::Page(status, to))) => format!("page {} {to}", status.as_u16()),
    }
}

fn found(file: &str, path: &str) -> String {
    outcome(file, path, None)
}

#[test]
fn the_first_rule_that_fits_says_what_happens() {
    let file = "\
# a comment\r
\r
  /one /1.html
/one /never.html 302
\t/two\t/2.html\t302\r
/rewritten /3.html 200
/posts/:year/:month/:title /articles/:year/:month/:title 301
/splat/* /other/:splat 307
/gone/* /410.html 410
/legal/* /451.html 451
/outside/* https://example.org/:splat?a=:splat 308
/slash/ /s.html 303
/ä /ü
/* /404.html 404
";
    for (path, told) in [
        ("/one", "301 /1.html"),
        ("/one/", "301 /1.html"),
        ("/two", "302 /2.html"),
        ("/rewritten", "200 /3.html"),
        (
            "/posts/2022/01/hello-world",
            "301 /articles/2022/01/hello-world",
        ),
        ("/posts/2022/01", "page 404 /404.html"),
        ("/posts/2022/01/a/b", "page 404 /404.html"),
        ("/splat/a/b.html", "307 /other/a/b.html"),
        // As others read it: something has to follow.
        ("/splat", "page 404 /404.html"),
        ("/splatter/a", "page 404 /404.html"),
        ("/gone/x", "page 410 /410.html"),
        ("/legal/x", "page 451 /451.html"),
        ("/outside/a/b", "308 https://example.org/a/b?a=a%2Fb"),
        ("/slash", "303 /s.html"),
        ("/slash/", "303 /s.html"),
        ("/ä", "301 /%C3%BC"),
        ("/anything/else", "page 404 /404.html"),
    ] {
        assert_eq!(found(file, path), told, "{path}");
    }
    assert_eq!(found("", "/a"), "none");
    assert_eq!(found("/a /b", "/A"), "none");
}

#[test]
fn the_longest_name_of_a_placeholder_wins() {
    let file = "/:year/:yearly /:yearly/:year/:years/:other/:/x:year.html";
    assert_eq!(found(file, "/a/b"), "301 /b/a/as/:other/:/xa.html");
}

#[test]
fn what_stands_in_a_path_cannot_break_out_of_an_address() {
    let file = "/a/:x/* /b/:x?q=:x&r=:splat#:x";
    assert_eq!(
        found(file, "/a/c d?e#f&g=\r\nh\\/i&j=k"),
        "301 /b/c%20d%3Fe%23f&g=%0D%0Ah%5C?q=c%20d%3Fe%23f%26g%3D%0D%0Ah%5C&r=i%26j%3Dk\
         #c%20d%3Fe%23f%26g%3D%0D%0Ah%5C"
    );
    assert_eq!(
        found("/a/* /:splat", "/a/\\evil.example"),
        "301 /%5Cevil.example"
    );
    // A path of the site is not an address.
    assert_eq!(found("/a/* /b/:splat 200", "/a/c d?e"), "200 /b/c d?e");
    assert_eq!(found("/a /b.html?c=d#e 200", "/a"), "200 /b.html");
}

#[test]
fn the_clients_query_stays_and_goes_before_the_rules_own() {
    let file = "/a /b?x=1&y=2#f\n/c /d";
    for (path, query, told) in [
        ("/a", None, "301 /b?x=1&y=2#f"),
        ("/a", Some(""), "301 /b?x=1&y=2#f"),
        ("/a", Some("z=3"), "301 /b?x=1&y=2&z=3#f"),
        ("/a", Some("x=3&x=4"), "301 /b?y=2&x=3&x=4#f"),
        ("/a", Some("%78=3&y"), "301 /b?%78=3&y#f"),
        ("/c", Some("x=a+b%20c"), "301 /d?x=a+b%20c"),
        ("/c", None, "301 /d"),
    ] {
        assert_eq!(outcome(file, path, query), told, "{path} {query:?}");
    }
}

#[test]
fn a_wrong_line_is_told_with_its_number() {
    for (file, told) in [
        ("/a /b 301!", "line 1: \"301!\" is no status"),
        ("/a /b\n\n/a /b 999", "line 3: \"999\" is no status"),
        ("/a /b 304", "no status"),
        ("/a /b 0301x", "no status"),
        ("/a", "line 1: it has no target"),
        ("/a /b 301 x", "line 1: it has more than three parts"),
        ("/a /b 301 # x", "more than three parts"),
        ("a /b", "does not begin with a slash"),
        ("https://a.example/ /b", "does not begin with a slash"),
        ("/a b", "neither a path"),
        ("/a javascript:alert(1)", "neither a path"),
        ("/a :splat", "neither a path"),
        ("/a/*/b /c", "only at the end"),
        ("/:x/:x /c", "stands twice"),
        ("/:splat/* /c", "stands twice"),
        ("/:/b /c", "has no name"),
        ("\u{feff}/a /b", "does not begin with a slash"),
    ] {
        let error = found(file, "/nothing");
        assert!(error.contains(told), "{file:?}: {error}");
    }
    assert_eq!(Rules::parse(b"/a \xff"), Err(RulesError::Text));
    assert!(found("/a https://b.example 200", "/a").contains("no path of this site"));
}

#[test]
fn a_file_is_no_longer_than_it_may_be() {
    let comment = |bytes: usize| format!("#{}", "x".repeat(bytes - 1));
    assert!(Rules::parse(comment(FILE_BYTES_MAX).as_bytes()).is_ok());
    let error = Rules::parse(comment(FILE_BYTES_MAX + 1).as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "redirects file size cannot exceed 65536 bytes"
    );
}

#[test]
fn what_comes_of_a_rule_has_a_longest_length() {
    let file = format!("/a/* /{}", ":splat/".repeat(8000));
    let path = format!("/a/{}", "b".repeat(30_000));
    assert!(found(&file, &path).contains("longer than 32768"));
    assert!(found(&file, "/a/b").contains("301 /b/b/"));
}

#[test]
fn the_worst_files_are_read_to_their_end() {
    // Each would take hours if time grew with the square of anything.
    let names: String = (0..7000).map(|at| format!("/:{at:x}")).collect();
    let parts = "/b".repeat(1024);
    for (file, path) in [
        (
            "/:a/b /c\n".repeat(7000),
            format!("/{}", "x".repeat(30_000)),
        ),
        (format!("{names} /b"), parts.clone()),
        (format!("/:a /{}", ":".repeat(60_000)), "/x".to_owned()),
        (format!("/:a /:{}", "a".repeat(60_000)), "/x".to_owned()),
        ("/:a/x/* /b\n".repeat(5000), parts),
    ] {
        assert!(file.len() <= FILE_BYTES_MAX);
        let _ = found(&file, &path);
    }
}

proptest! {
    #[test]
    fn any_file_is_rules_or_an_error(file in prop::collection::vec(any::<u8>(), 0..400), path in "/.{0,60}") {
        if let Ok(rules) = Rules::parse(&file) {
            let _ = rules.find(&path, Some(&path));
        }
    }

    #[test]
    fn any_rule_makes_a_header_of_any_path(
        from in "(/(:[a-z]{1,3}|[a-z*:]{0,3})){1,4}(/\\*)?",
        to in "/[:a-z/?#&=é]{0,20}(:splat)?",
        status in prop::sample::select(vec![200, 301, 404]),
        path in "/[a-c/\r\n ?#&é\\\\]{0,12}",
    ) {
        let file = format!("{from} {to} {status}\n");
        if let Ok(rules) = Rules::parse(file.as_bytes())
            && let Some(Ok(Outcome::Redirect(_, location))) = rules.find(&path, None)
        {
            prop_assert!(http::HeaderValue::from_str(&location).is_ok(), "{location}");
            prop_assert!(location.is_ascii(), "{location}");
        }
    }
}
