//! What holds for every command: exit codes, one clear line, warnings, long argument lists.

use cairn_store::Block;
use cairn_store::block::Prefix;
use cairn_store::cid::{self, HashKind, Version};
use harness::scenario::{HELLO_V1, damage, hello, lines};
use harness::{Repo, scenario};
use serde_json::Value;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
}

#[test]
fn a_command_warns_in_plain_lines_unless_a_log_is_asked_for() {
    let read_damaged = |more: &[&str]| {
        let repo = Repo::new(CAIRN);
        repo.run_with(["add", "-Q"], b"hello world").success();
        damage(&repo, b"hello world");
        let read = ["cat", "--offline", HELLO_V1];
        repo.run(read.iter().chain(more)).failure(1)
    };
    let told = read_damaged(&[]);
    let warnings: Vec<&str> = told
        .lines()
        .filter(|line| !line.starts_with("Error: "))
        .collect();
    assert_eq!(warnings.len() + 1, told.lines().count(), "{told}");
    assert!(told.contains("warning: damaged block"), "{told}");
    for line in warnings {
        assert!(line.starts_with("warning: "), "{told}");
        assert!(!line.contains("cairn_store"), "{told}");
    }
    let logged = read_damaged(&["--log=warn"]);
    assert!(logged.contains("ERROR cairn_store"), "{logged}");
}

#[test]
fn failures_inside_answers_end_with_one_however_they_are_printed() {
    both(|repo| {
        for json in [None, Some("--json")] {
            let run = |arguments: &[&str]| {
                let line = arguments.iter().copied().chain(json);
                let done = repo.run(line);
                assert_eq!(done.code, Some(1), "{arguments:?}: {done:?}");
                done
            };
            run(&["cid", "base32", "nonsense"]);
            run(&["cid", "format", HELLO_V1, "nonsense"]);
            let done = run(&["block", "rm", HELLO_V1]);
            if json.is_some() {
                let line = serde_json::from_str::<Value>(&done.text()).unwrap();
                assert_eq!(line["Hash"], HELLO_V1, "{line}");
            }
        }
    });
}

#[test]
fn more_arguments_than_an_address_can_hold_are_taken() {
    both(|repo| {
        let cids: Vec<String> = (0..3000)
            .map(|at: u32| {
                let prefix = Prefix {
                    version: Version::V1,
                    codec: cid::RAW,
                    hash: HashKind::Sha2_256,
                };
                let block = Block::new(prefix, at.to_be_bytes().to_vec().into()).unwrap();
                block.cid().to_string()
            })
            .collect();
        let output = repo.ok(["cid", "base32"]
            .iter()
            .copied()
            .chain(cids.iter().map(String::as_str)));
        assert_eq!(lines(&output), cids);
        let refused = repo
            .run(
                ["block", "rm"]
                    .iter()
                    .copied()
                    .chain(cids.iter().map(String::as_str)),
            )
            .failure(1);
        assert_eq!(lines(&refused).len(), 3001, "each is named, and the end");
    });
}

#[test]
fn wrong_input_gets_one_clear_line_and_its_exit_code() {
    both(|repo| {
        let text = |arguments: &[&str], code| {
            let line = repo.run(arguments).failure(code);
            assert!(!line.contains("stack backtrace"), "{line}");
            line
        };
        let one = |arguments: &[&str]| {
            let line = text(arguments, 1);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.starts_with("Error: "), "{line}");
            line
        };
        assert!(one(&["add", "/no/such/file"]).contains("/no/such/file"));
        assert!(one(&["cat", "not-a-cid"]).contains("not-a-cid"));
        repo.run_with(["add", "-Q"], b"hello world").success();
        one(&["cat", &format!("{HELLO_V1}/nothing")]);
        let folder = tempfile::tempdir().unwrap();
        let root = repo.ok(["add", "-Q", "-w", &hello(folder.path())]);
        let wrong = one(&["cat", &format!("{root}/nothing.txt")]);
        assert!(
            wrong.contains("no link named \"nothing.txt\" under"),
            "{wrong}"
        );
        one(&["cat", &root]);
        one(&["dag", "import", "/etc/hostname"]);
        one(&[
            "get",
            "--timeout=1s",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",
        ]);
        one(&["add", "--chunker", "size-potato", &hello(folder.path())]);
        one(&["add", "--profile", "unixfs-v9-1999", &hello(folder.path())]);
        text(&["add", "--no-such-flag"], 2);
        text(&["frobnicate"], 2);
    });
}
