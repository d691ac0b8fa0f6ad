//! What lists keep back, each kind of rule on its own; and the list that others test theirs with.
//!
//! `fixtures/nopfs-test.deny` is `tester/test.deny` of ipfs-shipyard/nopfs (commit 9f5e735, Apache-2.0), the
//! list that the specification names for tests; what it must and must not keep back is told in its comments.

mod files;
mod room;

use super::file::REST;
use super::parse::{self, Effect, HEADER_BYTES_MAX, HeaderError, LINE_BYTES_MAX, LineError};
use super::rules::{Keys, List, Room, Tail};
use super::*;
use proptest::prelude::*;
use std::cell::Cell;
use std::fs;
use std::io::Cursor;
use std::time::Instant;
use tempfile::TempDir;

/// Lists in a folder of their own, and the time of the last look at them.
struct Bench {
    folder: TempDir,
    deny: Denylist,
    now: Cell<Instant>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let deny = Denylist::new(vec![folder.path().to_owned()]);
        let now = Cell::new(Instant::now());
        Self { folder, deny, now }
    }

    fn of(text: &str) -> Self {
        let bench = Self::new();
        bench.write("a.deny", text);
        bench
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a list, which comes to rest.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.file(name), text).unwrap();
        self.rest();
    }

    /// Looks at the files, at the same moment as before.
    fn look(&self) -> bool {
        self.deny.reload_at(self.now.get())
    }

    /// Looks at them twice, so far apart that what did not change has come to rest.
    fn rest(&self) -> bool {
        let first = self.look();
        self.now.set(self.now.get() + REST);
        self.look() || first
    }

    fn stat(&self) -> ListStat {
        let mut stats = self.deny.lists();
        assert_eq!(stats.len(), 1, "{stats:?}");
        stats.remove(0)
    }

    fn path(&self, path: &str) -> Result<(), Denial> {
        let path = path.parse().unwrap_or_else(|error| panic!("{error}"));
        self.deny.check_path(&path)
    }

    fn denies(&self, path: &str) -> bool {
        self.path(path).is_err()
    }

    fn denies_block(&self, cid: &str) -> bool {
        self.deny.check_block(&cid.parse().unwrap()).is_err()
    }

    #[track_caller]
    fn all(&self, paths: &[&str], denied: &[&str]) {
        for path in paths {
            assert_eq!(self.denies(path), denied.contains(path), "{path}");
        }
    }
}

const DAG: &str = "bafybeihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
const RAW: &str = "bafkreihvvulpp4evxj7x7armbqcyg6uezzuig6jp3lktpbovlqfkuqeuoq";
const OLD: &str = "QmesfgDQ3q6prBy2Kg2gKbW4MAGuWiRP2DVuGA5MZSERLo";
const OTHER: &str = "QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8";
const KEY: &str = "k51qzi5uqu5dhmzyv3zac033i7rl9hkgczxyl81lwoukda2htteop7d3x0y1mf";
const KEY_OLD: &str = "12D3KooWDkNqEJNmreF3NYYFK1ws7Ra2fuW6cHBTu567SPV3LdYA";
const KEY_CID: &str = "bafzaajaiaejcaotjfs57kieazxny5japcmy5p2pgv2cic77tu6ogghttvurnrufx";

#[test]
fn content_is_denied_under_every_name_and_nothing_else_is() {
    let bench = Bench::of(&format!("/ipfs/{DAG}\n"));
    for cid in [DAG, RAW, OLD] {
        assert!(bench.denies_block(cid), "{cid}");
        assert!(bench.denies(&format!("/ipfs/{cid}")), "{cid}");
        assert!(bench.denies(&format!("/ipfs/{cid}/")), "{cid}");
        // The root itself is refused when it is read.
        assert!(!bench.denies(&format!("/ipfs/{cid}/below")), "{cid}");
    }
    assert!(!bench.denies_block(OTHER) && !bench.denies(&format!("/ipfs/{OTHER}")));
    assert!(Bench::of(&format!("/ipld/{OLD}")).denies_block(DAG));
}

#[test]
fn a_path_is_denied_with_or_without_a_slash_at_its_end() {
    for rule in ["a/b", "a/b/", "a//b", "./a/b"] {
        let bench = Bench::of(&format!("/ipfs/{OLD}/{rule}"));
        let paths = ["", "/a", "/a/b", "/a/b/", "/a/b/c", "/a/bc"];
        let paths = paths.map(|path| format!("/ipfs/{DAG}{path}"));
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let denied = [paths[2], paths[3]];
        bench.all(&paths, &denied);
        assert!(!bench.denies_block(OLD));
    }
}

#[test]
fn a_star_denies_all_that_begins_so() {
    for rule in ["ab*", "ab/*"] {
        let bench = Bench::of(&format!("/ipfs/{OLD}/{rule}"));
        for path in ["ab", "abc", "ab/c", "ab/c/d"] {
            assert!(bench.denies(&format!("/ipfs/{OLD}/{path}")), "{path}");
        }
        for path in ["", "a", "b/ab", "Ab"] {
            assert!(!bench.denies(&format!("/ipfs/{OLD}/{path}")), "{path}");
        }
        assert!(!bench.denies(&format!("/ipfs/{OTHER}/ab")));
    }
    for (rule, denied) in [
        (".*", &[".a", ".b/c", "..a"][..]),
        ("d/.*", &["d/.a"]),
        ("d/..*", &["d/..a"]),
        ("d/./.*", &["d/.a"]),
    ] {
        let bench = Bench::of(&format!("/ipfs/{OLD}/{rule}"));
        assert!(!bench.denies_block(OLD), "{rule}");
        for path in ["", "a", ".a", ".b/c", "..a", "d", "d/a", "d/.a", "d/..a"] {
            let is_denied = bench.denies(&format!("/ipfs/{OLD}/{path}"));
            let should = denied.contains(&path)
                || (rule == "d/.*" && path == "d/..a")
                || (rule == "d/./.*" && path == "d/..a");
            assert_eq!(is_denied, should, "{rule} {path}");
        }
    }
    let bench = Bench::of(&format!("/ipfs/{OLD}/*"));
    assert!(bench.denies_block(RAW));
    bench.all(
        &[
            &format!("/ipfs/{OLD}"),
            &format!("/ipfs/{OLD}/any/thing"),
            &format!("/ipfs/{OTHER}/any"),
        ],
        &[&format!("/ipfs/{OLD}"), &format!("/ipfs/{OLD}/any/thing")],
    );
}

#[test]
fn prefixes_of_several_lengths_and_letters_of_several_bytes_are_told_apart() {
    let bench = Bench::of(&format!(
        "/ipfs/{OLD}/%C4%85*\n/ipfs/{OLD}/x*\n/ipfs/{OTHER}/abcd*\n"
    ));
    for (path, is_denied) in [
        ("ą", true),
        ("ąę", true),
        ("ę", false),
        ("xyz", true),
        ("abcd", false),
    ] {
        assert_eq!(
            bench.denies(&format!("/ipfs/{OLD}/{path}")),
            is_denied,
            "{path}"
        );
    }
}

#[test]
fn paths_are_decoded_once_and_an_encoded_star_is_a_star() {
    let bench = Bench::of(&format!(
        "/ipfs/{OLD}/two%20words\n/ipfs/{OLD}/star%2A\n/ipfs/{OLD}/a+b\n/ipfs/{OLD}/%2561\n"
    ));
    for (path, is_denied) in [
        ("two words", true),
        ("two%20words", false),
        ("star*", true),
        ("stars", false),
        ("a+b", true),
        ("a b", false),
        ("%61", true),
        ("a", false),
    ] {
        assert_eq!(
            bench.denies(&format!("/ipfs/{OLD}/{path}")),
            is_denied,
            "{path}"
        );
    }
}

#[test]
fn the_last_rule_that_matches_wins() {
    let bench = Bench::of(&format!(
        "/ipfs/{OLD}/photo*\n!/ipfs/{OLD}/photo123.jpg\n!/ipfs/{OLD}/photo/1*\n/ipfs/{OLD}/photo/12\n\
         !/ipns/my.domain\n/ipns/my.domain\n/ipns/other.domain\n!/ipns/other.domain\n"
    ));
    for (path, is_denied) in [
        ("photo", true),
        ("photo1", true),
        ("photo123.jpg", false),
        ("photo/1", false),
        ("photo/11", false),
        ("photo/12", true),
    ] {
        assert_eq!(
            bench.denies(&format!("/ipfs/{OLD}/{path}")),
            is_denied,
            "{path}"
        );
    }
    assert!(bench.denies("/ipns/my.domain") && !bench.denies("/ipns/other.domain"));
    // Also of rules of different kinds.
    let hashed = "//QmX9dhRcQcKUw3Ws8485T5a9dtjrSCQaUAHnG4iK9i4ceM";
    let named = "/ipfs/QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR";
    assert!(!Bench::of(&format!("{hashed}\n!{named}")).denies(named));
    assert!(Bench::of(&format!("!{named}\n{hashed}")).denies(named));
    assert!(!Bench::of(&format!("{named}\n!{hashed}")).denies(named));
}

#[test]
fn a_later_list_overrides_an_earlier_one_whatever_order_they_came_in() {
    let bench = Bench::new();
    bench.write("b.deny", format!("!/ipfs/{OLD}\n"));
    bench.write("a.deny", format!("/ipfs/{OLD}\n/ipfs/{OTHER}\n"));
    assert!(!bench.denies_block(OLD) && bench.denies_block(OTHER));
    bench.write("c.deny", format!("/ipfs/{OLD}\n"));
    assert!(bench.denies_block(OLD));
    let names: Vec<_> = bench
        .deny
        .lists()
        .iter()
        .map(|it| it.path.clone())
        .collect();
    assert!(names.is_sorted() && names.len() == 3, "{names:?}");
}

#[test]
fn a_later_folder_overrides_an_earlier_one() {
    let (system, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(system.path().join("z.deny"), format!("/ipfs/{OLD}\n")).unwrap();
    fs::write(own.path().join("a.deny"), format!("!/ipfs/{OLD}\n")).unwrap();
    let folders = [system.path(), own.path()];
    let deny = |folders: &[&std::path::Path]| {
        let deny = Denylist::new(folders.iter().map(|it| (*it).to_owned()).collect());
        deny.reload();
        deny.check_block(&OLD.parse().unwrap()).is_err()
    };
    assert!(!deny(&folders));
    assert!(deny(&[folders[1], folders[0]]));
}

#[test]
fn names_are_denied_as_domains_and_as_keys() {
    let bench = Bench::of(&format!(
        "/ipns/domain.example\n/ipns/domain2.example/path\n/ipns/{KEY}\n/ipns/three.example/a*\n"
    ));
    for path in [
        "domain.example",
        "DOMAIN.example.",
        "domain-example",
        "domain2.example/path",
        KEY,
        KEY_OLD,
        KEY_CID,
        "three.example/ab",
    ] {
        assert!(bench.denies(&format!("/ipns/{path}")), "{path}");
    }
    for path in [
        "domainaefa.example",
        "domain.example/path",
        "domain--example",
        "domain2.example",
        "domain2.example/path2",
        "three.example",
    ] {
        assert!(!bench.denies(&format!("/ipns/{path}")), "{path}");
    }
    assert!(!bench.denies(&format!("/ipns/{KEY}/path")));
}

#[test]
fn a_denial_says_what_and_which_line_of_which_list() {
    let bench = Bench::of(&format!("version: 1\n---\n\n# comment\n/ipfs/{OLD}/a*\n"));
    let denial = bench.path(&format!("/ipfs/{OLD}/abc")).unwrap_err();
    let words = denial.to_string();
    let what = format!("/ipfs/{OLD}/abc is blocked and cannot be provided");
    assert!(words.starts_with(&what), "{words}");
    assert!(words.contains("line 5 of the denylist a.deny"), "{words}");
}

#[test]
fn hints_tell_denials_of_the_law_from_others_and_a_line_overrides_its_list() {
    let grounds = |list: &str| {
        let bench = Bench::of(list);
        let denial = bench.deny.check_block(&OLD.parse().unwrap());
        denial.unwrap_err().grounds
    };
    let header = "hints:\n  status: 451\n---\n";
    for (list, expected) in [
        (format!("/ipfs/{OLD}"), Grounds::Policy),
        (format!("/ipfs/{OLD} status:451"), Grounds::Legal),
        (
            format!("/ipfs/{OLD} a:b  gateway_status=451 c:d"),
            Grounds::Legal,
        ),
        (format!("/ipfs/{OLD} reason:legal"), Grounds::Legal),
        (
            format!("/ipfs/{OLD} status:200 reason:dmca nothing"),
            Grounds::Policy,
        ),
        (format!("{header}/ipfs/{OLD}"), Grounds::Legal),
        (format!("{header}/ipfs/{OLD} status:410"), Grounds::Policy),
        (
            format!("hints: {{gateway_status: '451'}}\n---\n/ipfs/{OLD}"),
            Grounds::Legal,
        ),
        (
            format!("custom:\n  hints:\n    status: 451\n---\n/ipfs/{OLD}"),
            Grounds::Policy,
        ),
    ] {
        assert_eq!(grounds(&list), expected, "{list}");
    }
}

#[test]
fn headers_are_read_as_the_format_has_them() {
    let name = |text: &str| parse::header(text.as_bytes()).map(|header| header.name);
    assert_eq!(name(""), Ok(None));
    assert_eq!(name("# nothing\n"), Ok(None));
    assert_eq!(
        name("version: 1\nname: test\nhints:\n  a: b\n"),
        Ok(Some("test".to_owned()))
    );
    let odd = "custom: [1, {name: no}, [name]]\n? [a, b]\n: c\nother: &x {name: no}\nagain: *x\nname: \"yes\"\n";
    assert_eq!(name(odd), Ok(Some("yes".to_owned())));
    assert!(matches!(name("version: 2\n"), Err(HeaderError::Version(_))));
    assert!(matches!(name("a: [b\n"), Err(HeaderError::Yaml(_))));
    assert_eq!(name("- a\n"), Err(HeaderError::Form));
    assert_eq!(name("just words\n"), Err(HeaderError::Form));
    let deep = |times| format!("a: {}{}", "[".repeat(times), "]".repeat(times));
    assert_eq!(name(&deep(31)), Ok(None));
    assert_eq!(name(&deep(32)), Err(HeaderError::Deep));
    assert_eq!(name("[[a]]"), Err(HeaderError::Form));
    let far_too_deep = name(&"[".repeat(10_000));
    assert!(matches!(far_too_deep, Err(HeaderError::Yaml(_))));
    assert_eq!(parse::header(&[0xff]), Err(HeaderError::Text));
}

#[test]
fn what_ends_beyond_the_limit_is_no_header_and_its_lines_are_no_rules() {
    let filler = format!("# {}\n", "x".repeat(1000));
    let times = HEADER_BYTES_MAX / filler.len() + 1;
    let text = format!("version: 7\n{}---\n/ipfs/{OLD}\n", filler.repeat(times));
    let bench = Bench::of(&text);
    assert!(bench.denies_block(OLD));
    let stat = bench.stat();
    // The version and the end of what is no header.
    assert_eq!((stat.rules, stat.skipped, stat.error), (1, 2, None));
    let short = format!("{}---\n/ipfs/{OLD}\n", filler.repeat(times - 2));
    let stat = Bench::of(&short).deny.lists().remove(0);
    assert_eq!((stat.rules, stat.skipped), (1, 0));
}

#[test]
fn a_broken_line_is_left_out_and_told_and_the_others_hold() {
    let long = "x".repeat(LINE_BYTES_MAX);
    let text = format!(
        "/ipfs/{OTHER}\n/ipfs/nothing\n/other/{OLD}\n/ipfs/{OLD}/%zz\n/ipfs/{OLD}/../up\n/ipns/\n//zz\n{long}\n!\n\
         /ipfs/{OLD}\r\n"
    );
    let bench = Bench::of(&text);
    assert!(bench.denies_block(OTHER) && bench.denies_block(OLD));
    let stat = bench.stat();
    assert_eq!((stat.rules, stat.skipped), (2, 8));
    let lines: Vec<u64> = stat.faults.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(bench.deny.shared.metrics.skipped.get(), 8);
    assert_eq!(bench.deny.shared.metrics.rules.get(), 2);
}

fn room(rules: usize) -> Room {
    let bytes = 1 << 30;
    Room { rules, bytes }
}

#[test]
fn no_more_rules_are_kept_than_there_is_room_for() {
    let text = format!("/ipfs/{OLD}\n/ipfs/{OLD}/a\n/ipfs/{OLD}/b\n");
    let list = List::read(Cursor::new(&text), &Keys::default(), room(2), Tail::Taken).unwrap();
    assert_eq!((list.rules, list.skipped, list.beyond), (2, 1, 1));
    assert_eq!(list.faults[0].why, LineError::Full);
    let lengths: String = (1..2000)
        .map(|length| format!("/ipfs/{OLD}/{}*\n", "x".repeat(length)))
        .collect();
    let list = List::read(
        Cursor::new(&lengths),
        &Keys::default(),
        room(10_000),
        Tail::Taken,
    )
    .unwrap();
    assert_eq!((list.rules, list.skipped), (1024, 975));
}

#[test]
fn no_more_is_read_of_a_list_than_may_be() {
    let text = format!("/ipfs/{OLD}\n/ipfs/{OTHER}\n");
    let whole = text.len() as u64;
    for (bytes, rules, last) in [
        (whole, 2, None),
        // Half a line may be another rule.
        (whole - 1, 1, Some(LineError::Beyond)),
        (whole / 2, 1, Some(LineError::Beyond)),
    ] {
        let room = Room { rules: 9, bytes };
        let list = List::read(Cursor::new(&text), &Keys::default(), room, Tail::Taken).unwrap();
        assert_eq!(list.rules, rules, "{bytes}");
        assert_eq!(
            list.faults.last().map(|fault| fault.why.clone()),
            last,
            "{bytes}"
        );
    }
}

#[test]
fn nothing_is_asked_of_lists_without_rules() {
    let bench = Bench::of("# nothing yet\n");
    assert!(!bench.deny.has_rules());
    bench.write("a.deny", format!("/ipfs/{OLD}\n"));
    assert!(bench.deny.has_rules());
    fs::remove_file(bench.file("a.deny")).unwrap();
    assert!(bench.rest());
    assert!(!bench.deny.has_rules() && !bench.denies_block(OLD));
}

#[test]
fn who_asks_is_told_which_rule_decides_about_a_path_and_what_has_to_be_had_for_it() {
    let bench = Bench::of(&format!(
        "name: x\n---\n/ipfs/{OLD}/a* status:451\n!/ipfs/{OLD}/ab\n/ipns/one.example\n/ipfs/{OTHER}\n\
         !/ipfs/{OTHER}/allowed\n"
    ));
    let told = |path: &str| {
        let rule = bench.deny.decides(&path.parse().unwrap())?;
        assert_eq!(rule.list, bench.file("a.deny"));
        Some((
            rule.path.to_string(),
            rule.line,
            rule.denies,
            rule.text.unwrap(),
        ))
    };
    let (policy, legal) = (Some(Grounds::Policy), Some(Grounds::Legal));
    for (path, expected) in [
        (
            format!("/ipfs/{OLD}/ac"),
            Some((format!("/ipfs/{OLD}/ac"), 3, legal)),
        ),
        (
            format!("/ipfs/{OLD}/ab"),
            Some((format!("/ipfs/{OLD}/ab"), 4, None)),
        ),
        (format!("/ipfs/{OLD}/b"), None),
        (
            "/ipns/one.example/b".to_owned(),
            Some(("/ipns/one.example".to_owned(), 5, policy)),
        ),
        // It is allowed, but its root is not to be had.
        (
            format!("/ipfs/{OTHER}/allowed"),
            Some((format!("/ipfs/{OTHER}"), 6, policy)),
        ),
    ] {
        let told = told(&path);
        let rule = told
            .clone()
            .map(|(path, line, denies, _)| (path, line, denies));
        assert_eq!(rule, expected, "{path}");
        if let Some((_, line, _, text)) = told {
            let list = fs::read_to_string(bench.file("a.deny")).unwrap();
            assert_eq!(Some(text.as_str()), list.lines().nth(line as usize - 1));
        }
    }
    // The line is another one now, perhaps.
    fs::write(bench.file("a.deny"), "").unwrap();
    let rule = bench.deny.decides(&"/ipns/one.example".parse().unwrap());
    assert_eq!(rule.unwrap().text, None);
}

#[test]
fn empty_blocks_and_folders_are_never_denied() {
    let bench =
        Bench::of("/ipfs/QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn\n/ipfs/bafkqaaa/*\n");
    assert!(!bench.denies_block("bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"));
    assert!(!bench.denies_block("bafkqaaa"));
    assert_eq!(bench.stat().skipped, 2);
}

#[test]
fn who_is_served_is_refused_and_nobody_is_told() {
    let bench = Bench::of(&format!("/ipfs/{OLD}\n"));
    let (denied, other) = (RAW.parse().unwrap(), OTHER.parse().unwrap());
    let peer = PeerId::random();
    assert_eq!(bench.deny.decide(&peer, &denied), Verdict::Refuse);
    assert_eq!(bench.deny.decide(&peer, &other), Verdict::Serve);
    assert!(bench.deny.is_for_nobody(&denied) && !bench.deny.is_for_nobody(&other));
    let refused = |at: &str| {
        bench
            .deny
            .shared
            .metrics
            .refused
            .with_label_values(&[at])
            .get()
    };
    assert_eq!((refused("serve"), refused("block")), (1, 0));
    assert!(bench.denies_block(OLD));
    assert_eq!((refused("serve"), refused("block")), (1, 1));
}

#[test]
fn a_hashed_rule_is_about_the_text_of_its_own_form_and_no_other_is_hashed() {
    let cid: Cid = OTHER.parse().unwrap();
    let name = Name::Hash(cid.hash(), cid.codec());
    let [modern, legacy] = [name.modern("a"), name.legacy("a")];
    let hash = |text: &str| digest(HashKind::Sha2_256, text.as_bytes()).unwrap();
    let base58 = |text: &str| format!("//{}", Base::Base58Btc.encode(hash(text).to_bytes()));
    let hex = |text: &str| {
        let digits = data_encoding::HEXLOWER.encode(hash(text).digest());
        format!("//{digits}")
    };
    let sha = [HashKind::Sha2_256];
    for (rule, is_denied, functions, has_legacy) in [
        (base58(&modern), true, &sha[..], false),
        (hex(&legacy), true, &[], true),
        (base58(&legacy), false, &sha[..], false),
        (hex(&modern), false, &[], true),
        (format!("/ipfs/{OTHER}/a"), true, &[], false),
    ] {
        let bench = Bench::of(&rule);
        assert_eq!(
            bench.denies(&format!("/ipfs/{OTHER}/a")),
            is_denied,
            "{rule}"
        );
        let lists = bench.deny.current();
        let hashings = lists.hashings();
        assert_eq!(hashings.modern, functions, "{rule}");
        assert_eq!(hashings.has_legacy, has_legacy, "{rule}");
        let hashed = name.hashed(hashings, &bench.deny.shared.keys, "a");
        assert_eq!(hashed.len(), functions.len() + usize::from(has_legacy));
    }
}

#[test]
fn a_mark_of_the_byte_order_is_no_part_of_a_list() {
    for list in [
        format!("\u{feff}/ipfs/{OLD}\n"),
        format!("\u{feff}name: x\n---\n/ipfs/{OLD}\n"),
    ] {
        let bench = Bench::of(&list);
        assert!(bench.denies_block(OLD), "{list:?}");
        assert_eq!(bench.stat().skipped, 0);
    }
}

#[test]
fn what_is_no_hash_of_either_kind_is_refused() {
    let hex = "d9d295bde21f422d471a90f2a37ec53049fdf3e5fa3ee2e8f20e10003da429e7";
    let rule = parse::rule(format!("//{hex}").as_bytes()).unwrap().unwrap();
    assert_eq!((rule.targets.len(), rule.effect), (1, Effect::Deny));
    for wrong in ["//", "//zz", "//Qm", "//d9d2", "//bafkqaaa"] {
        assert_eq!(
            parse::rule(wrong.as_bytes()),
            Err(LineError::Hash),
            "{wrong}"
        );
    }
    // Hexadecimal and base58 at once, and far too long for either.
    let long = "f".repeat(10_000);
    assert_eq!(
        parse::rule(format!("//{long}").as_bytes()),
        Err(LineError::Hash)
    );
}

#[test]
fn the_list_that_others_test_with_denies_what_it_must() {
    let bench = Bench::of(include_str!("fixtures/nopfs-test.deny"));
    let stat = bench.stat();
    assert_eq!(stat.name.as_deref(), Some("Testing denylist"));
    // The seven empty ones at its end.
    assert_eq!(stat.skipped, 7, "{:?}", stat.faults);
    for (path, is_denied) in FIXTURE {
        match path.parse::<NamePath>() {
            Ok(path) => {
                let denied = bench.deny.check_path(&path).is_err();
                assert_eq!(denied, *is_denied, "{path}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    for cid in [
        "bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e",
        "bafybeidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja",
        "QmVTF1yEejXd9iMgoRTFDxBv7HAz9kuZcQNBzHrceuK9HR",
        "bafkreidjwik6im54nrpfg7osdvmx7zojl5oaxqel5cmsz46iuelwf5acja",
        RAW,
    ] {
        assert!(bench.denies_block(cid), "{cid}");
    }
    // The old hashes name one codec only.
    assert!(!bench.denies_block("bafkreiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e"));
}

/// Paths, and whether the list of nopfs denies them.
const FIXTURE: &[(&str, bool)] = &[
    ("/ipfs/QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8", true),
    (
        "/ipfs/QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8/a/b",
        true,
    ),
    (
        "/ipfs/QmdWFA9FL52hx3j9EJZPQP1ZUH8Ygi5tLCX2cRDs6knSf8/z/",
        true,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/test",
        true,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/test2",
        true,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/test/one",
        true,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/tes",
        false,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2",
        false,
    ),
    (
        "/ipfs/Qmah2YDTfrox4watLCr3YgKyBwvjq8FJZEFdWY6WtJ3Xt2/one/test",
        false,
    ),
    (
        "/ipfs/QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC/test2",
        true,
    ),
    (
        "/ipfs/QmTuvSQbEDR3sarFAN9kAeXBpiBCyYYNxdxciazBba11eC/tes",
        false,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked",
        true,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked2",
        true,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blockednot",
        false,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/not",
        false,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/exceptions",
        false,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/exceptions2",
        false,
    ),
    (
        "/ipfs/QmUboz9UsQBDeS6Tug1U8jgoFkgYxyYood9NDyVURAY9pK/blocked/exceptions/one",
        false,
    ),
    ("/ipns/domain.example", true),
    ("/ipns/domain.example/path", false),
    ("/ipns/domain2.example/path", true),
    ("/ipns/domain2.example", false),
    (
        "/ipns/12D3KooWDkNqEJNmreF3NYYFK1ws7Ra2fuW6cHBTu567SPV3LdYA",
        true,
    ),
    (
        "/ipns/12D3KooWDkNqEJNmreF3NYYFK1ws7Ra2fuW6cHBTu567SPV3LdYA/path",
        false,
    ),
    (
        "/ipns/k51qzi5uqu5dixwsch9wpd9rolqby1m0uqj5hhxwtxal0dwltastfmh01dlniq",
        true,
    ),
    (
        "/ipns/bafzaajaiaejca3vrvdzmu4qntwa2pn6apsd4ug5k63ckdyhnd3g6vdvgvujdw62s",
        true,
    ),
    ("/ipns/very-bad-example.eth", true),
    ("/ipns/very-bad-example.eth/", true),
    (
        "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e/",
        true,
    ),
    (
        "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e/path",
        true,
    ),
    (
        "/ipfs/bafybeiefwqslmf6zyyrxodaxx4vwqircuxpza5ri45ws3y5a62ypxti42e/path2",
        false,
    ),
    (
        "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path",
        true,
    ),
    (
        "/ipfs/f01701e20903cf61d46521b05f926ba1634628d0bba8a7ffb5b6d5a3ca310682ca63b5ef0/path",
        true,
    ),
    (
        "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/",
        false,
    ),
    (
        "/ipfs/bafyb4ieqht3b2rssdmc7sjv2cy2gfdilxkfh7623nvndziyqnawkmo266a/path2",
        false,
    ),
    ("/ipns/my.domain.com", true),
    ("/ipns/my.domain2.com/path", true),
    ("/ipns/my.domain2.com/path2", false),
    (
        "/ipns/k51qzi5uqu5dixwsch9wpd9rolqby1m0uqj5hhxwtxal0dwltastfmh01dabcd",
        true,
    ),
    (
        "/ipns/k51qzi5uqu5dixwsch9wpd9rolqby1m0uqj5hhxwtxal0dwltastfmh01d1234/mypath",
        true,
    ),
    (
        "/ipns/bafzaajaiaejca3vrvdzmu4qntwa2pn6apsd4ug5k63ckdyhnd3g6vdvgvujczuoq/mypath",
        true,
    ),
    (
        "/ipns/k51qzi5uqu5dixwsch9wpd9rolqby1m0uqj5hhxwtxal0dwltastfmh01d1234/mypath2",
        false,
    ),
];

fn lines() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("/ipfs/".to_owned()),
        Just("/ipns/".to_owned()),
        Just("//".to_owned()),
        Just("!".to_owned()),
        Just(OLD.to_owned()),
        Just(KEY.to_owned()),
        Just("%2".to_owned()),
        Just("*".to_owned()),
        Just("---\n".to_owned()),
        Just("\n".to_owned()),
        Just("hints:\n  status: 451\n".to_owned()),
        "\\PC{0,8}",
        "[a-z:{}&*?\\[\\] #\"'|>-]{0,12}",
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_list_panics(text in lines()) {
        let _ = List::read(Cursor::new(text), &Keys::default(), room(100), Tail::Taken);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::rule(&bytes);
        let _ = parse::header(&bytes);
    }
}
