//! Every command through the real binary, on the repository alone and through a daemon: the same
//! answers both ways.

use cairn_store::Block;
use cairn_store::block::Prefix;
use cairn_store::car::write;
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use harness::{Daemon, Done, Mounts, Repo, tree};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");
/// `hello world`, without a line end, under both profiles (IPIP-499).
const HELLO_V1: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
const HELLO_V0: &str = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD";
const EMPTY_FOLDER_V1: &str = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354";

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    both_with(|_| {}, scenario);
}

/// The same on repositories that are prepared before anybody opens them.
fn both_with(prepare: impl Fn(&Repo), scenario: impl Fn(&Repo)) {
    let alone = Repo::new(CAIRN);
    prepare(&alone);
    scenario(&alone);
    assert!(!alone.path().join("api").exists());
    let served = Repo::new(CAIRN);
    prepare(&served);
    let daemon = served.daemon();
    scenario(&served);
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status:?}");
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

fn hello(folder: &Path) -> String {
    let path = folder.join("hello.txt");
    fs::write(&path, "hello world").unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn add_names_files_as_the_profiles_say() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = hello(folder.path());
        assert_eq!(
            repo.ok(["add", &path]),
            format!("added {HELLO_V1} hello.txt")
        );
        assert_eq!(
            repo.ok(["add", "-q", "--profile", "unixfs-v0-2015", &path]),
            HELLO_V0
        );
        assert_eq!(
            repo.run_with(["add", "-Q"], b"hello world")
                .success()
                .text(),
            HELLO_V1
        );
        assert_eq!(
            repo.run_with(["add", "-Q", "-"], b"hello world")
                .success()
                .text(),
            HELLO_V1
        );
        // Flags one by one, each against the profile it stems from.
        let v0 = [
            "add",
            "-Q",
            "--cid-version=0",
            "--raw-leaves=false",
            "--chunker=size-262144",
        ];
        assert_eq!(repo.ok(v0.iter().chain([&path.as_str()])), HELLO_V0);
        let blake3 = repo.ok(["add", "-Q", "--hash", "blake3", &path]);
        assert!(blake3.starts_with("bafkr4i"), "{blake3}");
        let added = json(&repo.ok(["add", "--json", &path]));
        assert_eq!(
            (added["Hash"].as_str(), added["Name"].as_str()),
            (Some(HELLO_V1), Some("hello.txt"))
        );
        assert!(added["Size"].is_string(), "{added}");
    });
}

#[test]
fn add_only_names_with_n_and_pins_unless_told_otherwise() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = hello(folder.path());
        assert_eq!(repo.ok(["add", "-Q", "-n", &path]), HELLO_V1);
        assert_ne!(
            repo.run(["block", "stat", "--offline", HELLO_V1]).code,
            Some(0)
        );
        repo.ok(["add", "--pin=false", &path]);
        assert_eq!(repo.ok(["pin", "ls"]), "");
        repo.ok(["add", "--pin-name", "greeting", &path]);
        assert_eq!(
            repo.ok(["pin", "ls", "--names"]),
            format!("{HELLO_V1} recursive greeting")
        );
    });
}

#[test]
fn add_takes_folders_and_get_brings_them_back() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("tree");
        tree::make(&source, 1, 60);
        let source = source.to_str().unwrap();
        let refused = repo.run(["add", source]).failure(1);
        assert!(refused.contains("-r"), "{refused}");
        let root = repo.ok(["add", "-r", "-Q", source]);
        let out = folder.path().join("out");
        repo.ok(["get", &root, "-o", out.to_str().unwrap()]);
        assert_eq!(tree::read(&out), tree::read(Path::new(source)));
        // What is there already is never written over.
        let refused = repo
            .run(["get", &root, "-o", out.to_str().unwrap()])
            .failure(1);
        assert!(refused.contains("exists already"), "{refused}");
        assert_eq!(tree::read(&out), tree::read(Path::new(source)));

        let archive = folder.path().join("out.tar");
        repo.ok(["get", "-a", &root, "-o", archive.to_str().unwrap()]);
        let unpacked = folder.path().join("unpacked");
        tar::Archive::new(fs::File::open(&archive).unwrap())
            .unpack(&unpacked)
            .unwrap();
        assert_eq!(
            tree::read(&unpacked.join(&root)),
            tree::read(Path::new(source))
        );

        let wrapped = repo.ok(["add", "-w", "-Q", &hello(folder.path())]);
        assert_eq!(
            repo.ok(["cat", &format!("{wrapped}/hello.txt")]),
            "hello world"
        );
        let sharded = folder.path().join("names");
        fs::create_dir(&sharded).unwrap();
        for at in 0..6000 {
            fs::write(
                sharded.join(format!("a name that is rather long, number {at}")),
                "",
            )
            .unwrap();
        }
        let sharded_root = repo.ok(["add", "-r", "-Q", sharded.to_str().unwrap()]);
        assert_eq!(lines(&repo.ok(["ls", &sharded_root])).len(), 6000);
        assert_eq!(
            repo.ok([
                "cat",
                &format!("{sharded_root}/a name that is rather long, number 77")
            ]),
            ""
        );
    });
}

#[test]
fn what_cannot_be_read_is_named_even_after_much_was_added() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("tree");
        fs::create_dir(&source).unwrap();
        for at in 0..300 {
            fs::write(source.join(format!("{at}")), tree::bytes(at, 20_000)).unwrap();
        }
        let socket = source.join("zzz");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = repo
            .run(["add", "-r", "--progress", source.to_str().unwrap()])
            .failure(1);
        let why = format!("'{}' is neither a file nor a folder", socket.display());
        assert!(refused.contains(&why), "{refused}");
        assert_eq!(repo.ok(["pin", "ls"]), "");
    });
}

/// A UnixFS folder of named links.
fn folder_of(links: &[(&str, Cid)]) -> Block {
    let node = PbNode {
        links: links
            .iter()
            .map(|(name, cid)| PbLink {
                cid: *cid,
                name: Some((*name).to_owned()),
                tsize: Some(1),
            })
            .collect(),
        data: Some(vec![8, 1].into()),
    };
    block_of(&node)
}

fn block_of(node: &PbNode) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::DAG_PB,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, pb::encode(node)).unwrap()
}

/// Blocks that no honest program would have made, brought in as a CAR.
fn import(repo: &Repo, blocks: &[Block]) -> String {
    let root = *blocks.last().unwrap().cid();
    let mut car = write::header(&[root]).to_vec();
    for block in blocks {
        car.extend_from_slice(&write::section_prefix(block));
        car.extend_from_slice(block.data());
    }
    repo.run_with(["dag", "import", "--pin-roots=false"], &car)
        .success();
    root.to_string()
}

#[test]
fn get_ends_at_a_tree_without_end_and_leaves_nothing() {
    both(|repo| {
        let mut blocks = vec![folder_of(&[])];
        for _ in 0..1100 {
            let below = *blocks.last().unwrap().cid();
            blocks.push(folder_of(&[("a", below)]));
        }
        let root = import(repo, &blocks);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let refused = repo
            .run(["get", &root, "-o", out.to_str().unwrap()])
            .failure(1);
        assert!(refused.contains("more than 1024 levels"), "{refused}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    });
}

#[test]
fn no_archive_writes_through_a_link_that_it_made() {
    both(|repo| {
        let link = block_of(&PbNode {
            links: Vec::new(),
            // Type 4, four bytes.
            data: Some(b"\x08\x04\x12\x04/etc".to_vec().into()),
        });
        let file = block_of(&PbNode {
            links: Vec::new(),
            data: Some(b"\x08\x02\x12\x01x\x18\x01".to_vec().into()),
        });
        let inside = folder_of(&[("x", *file.cid())]);
        for names in [["l", "l"], ["L", "l"]] {
            let root = folder_of(&[(names[0], *link.cid()), (names[1], *inside.cid())]);
            let blocks = [link.clone(), file.clone(), inside.clone(), root];
            let root = import(repo, &blocks);
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("out.tar");
            let refused = repo
                .run(["get", "-a", &root, "-o", out.to_str().unwrap()])
                .failure(1);
            assert!(
                refused.contains("another entry has the same name"),
                "{refused}"
            );
            assert!(!out.exists());
        }
    });
}

#[test]
fn hidden_files_are_added_only_when_asked_for() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        fs::write(path.join(".hidden"), "x").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(repo.ok(["add", "-r", "-Q", path]), EMPTY_FOLDER_V1);
        let with = repo.ok(["add", "-r", "-H", "-Q", path]);
        assert!(repo.ok(["ls", &with]).ends_with(".hidden"));
    });
}

#[test]
fn cat_reads_whole_files_and_parts_of_them() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let content = tree::bytes(7, 5_000_000);
        let path = folder.path().join("big");
        fs::write(&path, &content).unwrap();
        let path = path.to_str().unwrap();
        for profile in ["unixfs-v1-2025", "unixfs-v0-2015"] {
            for layout in ["--trickle=false", "--trickle=true"] {
                let root = repo.ok(["add", "-Q", "--profile", profile, layout, path]);
                assert_eq!(repo.run(["cat", &root]).success().stdout, content);
                for (offset, length) in [
                    (0, 10),
                    (262_143, 2),
                    (1_048_576, 1_048_577),
                    (4_999_999, 9),
                ] {
                    let part = repo.run([
                        "cat",
                        "-o",
                        &offset.to_string(),
                        "-l",
                        &length.to_string(),
                        &format!("/ipfs/{root}"),
                    ]);
                    let end = content.len().min(offset + length);
                    assert_eq!(part.success().stdout, content[offset..end]);
                }
            }
        }
        for chunker in ["rabin-87381-262144-393216", "buzhash", "size-1000"] {
            let root = repo.ok(["add", "-Q", "--chunker", chunker, path]);
            assert_eq!(
                repo.run(["cat", &root]).success().stdout,
                content,
                "{chunker}"
            );
        }
        repo.run_with(["add", "-Q"], b"hello world").success();
        let two = repo
            .run(["cat", HELLO_V1, &format!("ipfs://{HELLO_V1}")])
            .success();
        assert_eq!(two.text(), "hello worldhello world");
    });
}

#[test]
fn ls_refs_and_resolve_follow_links() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir_all(path.join("sub")).unwrap();
        hello(&path);
        fs::write(path.join("sub/bidi\u{202e}.txt"), "x").unwrap();
        let root = repo.ok(["add", "-r", "-Q", path.to_str().unwrap()]);
        let listed = repo.ok(["ls", &root]);
        let listed = lines(&listed);
        assert_eq!(listed[0], format!("{HELLO_V1} 11 hello.txt"));
        let columns: Vec<&str> = listed[1].split_whitespace().collect();
        let [sub, "-", "sub/"] = columns[..] else {
            panic!("{listed:?}")
        };
        let inner = repo.ok(["ls", "--stream", sub]);
        assert!(
            !inner.contains('\u{202e}'),
            "bidirectional characters are escaped: {inner:?}"
        );
        let as_json = json(&repo.ok(["ls", "--json", &root]));
        assert_eq!(as_json["Objects"][0]["Links"][0]["Name"], "hello.txt");

        assert_eq!(lines(&repo.ok(["refs", &root])), [HELLO_V1, sub]);
        assert_eq!(lines(&repo.ok(["refs", "-r", "-u", &root])).len(), 3);
        assert_eq!(
            lines(&repo.ok(["refs", "--format", "<src> <linkname>: <dst>", &root])),
            [
                format!("{root} hello.txt: {HELLO_V1}"),
                format!("{root} sub: {sub}")
            ]
        );
        let local = repo.ok(["refs", "local"]);
        assert_eq!(lines(&local).len(), 4, "{local}");
        assert!(local.contains(HELLO_V1));
        assert_eq!(
            repo.ok(["resolve", &format!("/ipfs/{root}/sub")]),
            format!("/ipfs/{sub}")
        );
    });
}

#[test]
fn blocks_are_put_read_counted_and_removed() {
    both(|repo| {
        let put = repo
            .run_with(["block", "put"], b"hello world")
            .success()
            .text();
        assert_eq!(put, HELLO_V1);
        assert_eq!(
            repo.run(["block", "get", HELLO_V1]).success().stdout,
            b"hello world"
        );
        assert_eq!(
            repo.ok(["block", "stat", HELLO_V1]),
            format!("Key: {HELLO_V1}\nSize: 11")
        );
        assert_eq!(
            repo.ok(["block", "rm", HELLO_V1]),
            format!("removed {HELLO_V1}")
        );
        assert_ne!(
            repo.run(["block", "get", "--offline", HELLO_V1]).code,
            Some(0)
        );
        repo.run_with(["add", "-Q"], b"hello world").success();
        let pinned = repo.run(["block", "rm", HELLO_V1]);
        assert_eq!(pinned.code, Some(1));
        assert!(pinned.stderr.contains("pinned"), "{pinned:?}");
        assert_eq!(
            repo.run(["block", "get", HELLO_V1]).success().stdout,
            b"hello world"
        );
    });
}

#[test]
fn dags_of_other_codecs_are_put_read_and_resolved() {
    both(|repo| {
        let leaf = repo
            .run_with(["dag", "put"], br#"{"a":[1,{"b":"deep"}]}"#)
            .success()
            .text();
        let parent = format!(r#"{{"child":{{"/":"{leaf}"}},"n":1.5}}"#);
        let parent = repo
            .run_with(["dag", "put"], parent.as_bytes())
            .success()
            .text();
        assert_eq!(repo.ok(["dag", "get", &leaf]), r#"{"a":[1,{"b":"deep"}]}"#);
        assert_eq!(
            repo.ok(["dag", "get", &format!("{parent}/child/a/1/b")]),
            r#""deep""#
        );
        assert_eq!(
            repo.ok(["dag", "resolve", &format!("{parent}/child")]),
            leaf
        );
        assert_eq!(lines(&repo.ok(["refs", "-r", &parent])), [leaf.as_str()]);
        let stat = json(&repo.ok(["dag", "stat", "--json", &parent]));
        assert_eq!(stat["UniqueBlocks"], 2, "{stat}");
        let text = repo.ok(["dag", "stat", "--progress=false", &parent]);
        assert!(
            text.contains(&parent) && text.contains("Total Size: "),
            "{text}"
        );
    });
}

#[test]
fn cars_go_out_and_come_back() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("tree");
        tree::make(&source, 2, 30);
        let root = repo.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
        let car = repo.run(["dag", "export", &root]).success().stdout;
        let path = folder.path().join("tree.car");
        fs::write(&path, &car).unwrap();
        let path = path.to_str().unwrap();

        let other = Repo::new(CAIRN);
        let imported = other.ok(["dag", "import", "--stats", path]);
        assert!(
            imported.starts_with(&format!("Pinned root\t{root}\tsuccess")),
            "{imported}"
        );
        assert!(imported.contains("Imported "), "{imported}");
        let out = folder.path().join("out");
        other.ok(["get", &root, "-o", out.to_str().unwrap()]);
        assert_eq!(tree::read(&out), tree::read(&source));

        // Cut short: an error, and nothing pinned.
        let empty = Repo::new(CAIRN);
        let cut = folder.path().join("cut.car");
        fs::write(&cut, &car[..car.len() - 10]).unwrap();
        let error = empty
            .run(["dag", "import", cut.to_str().unwrap()])
            .failure(1);
        assert!(error.contains("ends"), "{error}");
        assert_eq!(empty.ok(["pin", "ls"]), "");
        // A byte changed: the block is named.
        let mut wrong = car.clone();
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        fs::write(&cut, &wrong).unwrap();
        let error = empty
            .run(["dag", "import", cut.to_str().unwrap()])
            .failure(1);
        assert!(error.contains("hash"), "{error}");
        assert_eq!(empty.ok(["pin", "ls"]), "");
    });
}

#[test]
fn pins_are_listed_moved_verified_and_removed() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        let file = hello(&path);
        let root = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        assert_eq!(
            repo.ok(["pin", "add", &root]),
            format!("pinned {root} recursively")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "recursive"]),
            format!("{root} recursive")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "indirect"]),
            format!("{HELLO_V1} indirect")
        );
        assert_eq!(lines(&repo.ok(["pin", "ls", "-q", "--stream"])).len(), 2);
        let through = repo.ok(["pin", "ls", HELLO_V1]);
        assert_eq!(through, format!("{HELLO_V1} indirect through {root}"));
        let missing = repo.run(["pin", "ls", EMPTY_FOLDER_V1]).failure(1);
        assert!(missing.ends_with("not pinned"), "{missing}");
        let indirect = repo.run(["pin", "rm", HELLO_V1]).failure(1);
        assert!(indirect.contains("indirect"), "{indirect}");
        assert_eq!(
            repo.ok(["pin", "verify", "--verbose"]),
            format!("{root} ok")
        );

        fs::write(&file, "hello again").unwrap();
        let second = repo.ok(["add", "-r", "-Q", "--pin=false", path.to_str().unwrap()]);
        assert_eq!(
            repo.ok(["pin", "update", &root, &second]),
            format!("updated {root} to {second}")
        );
        assert_eq!(
            repo.ok(["pin", "ls", "-t", "recursive"]),
            format!("{second} recursive")
        );
        assert_eq!(
            repo.ok(["pin", "rm", &second]),
            format!("unpinned {second}")
        );
        let again = repo.run(["pin", "rm", &second]).failure(1);
        assert!(
            again.ends_with("not pinned or pinned indirectly"),
            "{again}"
        );
        assert_eq!(
            repo.ok(["pin", "add", "-r=false", &root]),
            format!("pinned {root} directly")
        );
        assert_eq!(repo.ok(["pin", "ls"]), format!("{root} direct"));
    });
}

#[test]
fn pin_verify_names_a_pin_that_is_not_whole_and_ends_with_one() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let root = repo.ok(["add", "-Q", "-w", &hello(folder.path())]);
        repo.run_with(["add", "-Q"], b"whole").success();
        assert_eq!(repo.ok(["pin", "verify"]), "");
        damage(repo, b"hello world");
        for arguments in [
            &["pin", "verify"][..],
            &["pin", "verify", "--quiet"],
            &["pin", "verify", "--verbose"],
            &["pin", "verify", "--json"],
        ] {
            let done = repo.run(arguments);
            assert!(done.text().contains(&root), "{arguments:?}: {done:?}");
            let told = done.failure(1);
            let last = told.lines().last().unwrap_or_default();
            let names = format!("Error: pinned, but not whole: {root};");
            assert!(last.starts_with(&names), "{arguments:?}: {told}");
        }
        let line = json(&repo.run(["pin", "verify", "--json"]).text());
        assert_eq!(line["Cid"], root, "{line}");
        assert_eq!(line["Ok"], false, "{line}");
        assert_eq!(line["BadNodes"][0]["Cid"], HELLO_V1, "{line}");
    });
}

#[test]
fn pin_verify_looks_at_the_one_block_of_a_direct_pin() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let root = repo.ok(["add", "-Q", "-w", "--pin=false", &hello(folder.path())]);
        let second = repo.run_with(["add", "-Q", "--pin=false"], b"hello again");
        let second = second.success().text();
        repo.ok(["pin", "add", "-r=false", &root, &second]);
        damage(repo, b"hello world");
        // What lies below it is not pinned.
        let told = repo.ok(["pin", "verify", "--verbose"]);
        for pin in [&root, &second] {
            let whole = format!("{pin} ok");
            assert!(lines(&told).contains(&whole.as_str()), "{told}");
        }
        damage(repo, b"hello again");
        let done = repo.run(["pin", "verify"]);
        let broken = format!("{second} broken\n  {second}: ");
        assert!(done.text().starts_with(&broken), "{done:?}");
        let told = done.failure(1);
        assert!(told.contains("pinned, but not whole"), "{told}");
    });
}

#[test]
fn what_reaches_a_block_is_told_when_it_is_met_and_not_at_the_end_of_the_dag() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d");
        fs::create_dir(&path).unwrap();
        hello(&path);
        fs::write(path.join("later.txt"), "read later").unwrap();
        let root = repo.ok(["add", "-r", "-Q", path.to_str().unwrap()]);
        damage(repo, b"read later");
        let through = format!("{HELLO_V1} indirect through {root}");
        assert_eq!(repo.ok(["pin", "ls", HELLO_V1]), through);
        // Who is not met before the damage may be behind it.
        let unknown = repo.run(["pin", "ls", EMPTY_FOLDER_V1]).failure(1);
        assert!(unknown.contains("damaged on disk"), "{unknown}");
    });
}

#[test]
fn repo_stat_tells_sizes_pins_and_the_scrub() {
    let settings = |repo: &Repo| {
        repo.ok(["config", "set", "storage.reserve", "3MB"]);
        repo.ok(["config", "set", "storage.cache_max", "5GB"]);
    };
    both_with(settings, |repo| {
        repo.run_with(["add", "-Q"], b"hello world").success();
        let stat = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(stat["NumObjects"], 1, "{stat}");
        assert_eq!(stat["RepoSize"], 11, "{stat}");
        assert_eq!(stat["Pins"], 1, "{stat}");
        assert_eq!(stat["CacheSize"], 0, "{stat}");
        assert_eq!(stat["CacheMax"], 5_000_000_000_u64, "{stat}");
        assert_eq!(stat["Reserve"], 3_000_000, "{stat}");
        assert!(stat["DiskFree"].as_u64() > Some(0), "{stat}");
        assert_eq!(stat["Scrub"]["Share"], 2, "{stat}");
        assert_eq!(stat["Scrub"]["Bad"], 0, "{stat}");
        let segment = fs::metadata(repo.path().join("blocks/leaf-000001.car")).unwrap();
        assert_eq!(stat["DiskSize"], segment.len(), "{stat}");
        let text = repo.ok(["repo", "stat", "--human"]);
        let rows: Vec<_> = text.lines().filter_map(|row| row.split_once(' ')).collect();
        let row = |name| {
            let row = rows.iter().find(|(found, _)| *found == name);
            row.unwrap_or_else(|| panic!("{text}")).1.trim()
        };
        assert_eq!(row("Reserve:"), "3.0 MB");
        assert_eq!(row("CacheMax:"), "5.0 GB");
        assert_eq!(row("Pins:"), "1");
        assert!(row("Scrub:").contains(" round "), "{text}");
        let sizes = repo.ok(["repo", "stat", "--size-only"]);
        assert_eq!(lines(&sizes), ["RepoSize:   11", "StorageMax: 10000000000"]);
    });
}

#[test]
fn repo_stat_tells_what_the_daemon_works_with_and_not_what_the_file_says_since() {
    let repo = Repo::new(CAIRN);
    let settings = [
        (
            "storage.max",
            "StorageMax",
            10_000_000_000_u64,
            20_000_000_000_u64,
        ),
        (
            "storage.cache_max",
            "CacheMax",
            10_000_000_000,
            5_000_000_000,
        ),
        ("storage.reserve", "Reserve", 0, 3_000_000),
    ];
    let daemon = repo.daemon();
    for (key, _, _, new) in settings {
        repo.ok(["config", "set", key, &new.to_string()]);
    }
    repo.ok(["config", "set", "storage.scrub_share", "7"]);
    let stat = json(&repo.ok(["repo", "stat", "--json"]));
    for (_, name, old, _) in settings {
        assert_eq!(stat[name], old, "{stat}");
    }
    assert_eq!(stat["Scrub"]["Share"], 2, "{stat}");
    assert!(daemon.stop().0.success());
    let stat = json(&repo.ok(["repo", "stat", "--json"]));
    for (_, name, _, new) in settings {
        assert_eq!(stat[name], new, "{stat}");
    }
    assert_eq!(stat["Scrub"]["Share"], 7, "{stat}");
}

#[test]
fn gc_removes_what_nothing_reaches_and_tells_it() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        let garbage = repo
            .run_with(["add", "-Q", "--pin=false"], b"rubbish")
            .success()
            .text();
        let before = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(before["NumObjects"], 2, "{before}");
        let removed = repo.run(["repo", "gc"]).success();
        assert_eq!(removed.text(), format!("removed {garbage}"));
        assert_eq!(removed.stderr, "", "no figures for those who do not watch");
        assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
        assert!(repo.ok(["repo", "stat"]).contains("NumObjects: 1"));
        assert_eq!(repo.ok(["repo", "gc", "-q"]), "");
        let again = ["add", "-Q", "--pin=false"];
        repo.run_with(again, b"rubbish").success();
        assert_eq!(repo.ok(["repo", "gc", "-q"]), garbage);
        repo.run_with(again, b"rubbish").success();
        assert_eq!(repo.ok(["repo", "gc", "--silent"]), "");
        assert!(repo.ok(["repo", "stat"]).contains("NumObjects: 1"));
        assert!(
            repo.ok(["repo", "verify"])
                .contains("verify complete, all blocks validated.")
        );
    });
}

/// Turns one bit of `data` where it lies in the log.
fn damage(repo: &Repo, data: &[u8]) {
    let segment = repo.path().join("blocks/leaf-000001.car");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(data.len()).position(|window| window == data);
    bytes[at.unwrap()] ^= 1;
    fs::write(&segment, bytes).unwrap();
}

#[test]
fn gc_takes_a_flag_that_does_nothing_and_does_not_tell_of_it() {
    both(|repo| {
        let rubbish = repo.run_with(["add", "-Q", "--pin=false"], b"rubbish");
        let removed = format!("removed {}", rubbish.success().text());
        assert_eq!(repo.ok(["repo", "gc", "--stream-errors"]), removed);
        let help = repo.ok(["repo", "gc", "--help"]);
        assert!(
            help.contains("--silent") && !help.contains("--stream"),
            "{help}"
        );
    });
}

#[test]
fn gc_tells_how_far_it_is_to_those_who_ask() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    repo.run_with(["add", "-Q"], b"hello world").success();
    repo.run_with(["add", "-Q", "--pin=false"], b"rubbish")
        .success();
    let told = daemon.post("repo/gc", "progress=true").text();
    let told: Vec<Value> = told.lines().map(json).collect();
    assert_eq!(told[0]["Progress"]["Marked"], 1, "{told:?}");
    assert!(told[1]["Key"]["/"].is_string(), "{told:?}");
    let last = &told[told.len() - 1]["Progress"];
    assert_eq!(last["Removed"], 1, "{told:?}");
    assert_eq!(last["Compacted"], last["ToCompact"], "{told:?}");
    assert!(last["Freed"].as_u64() > Some(0), "{told:?}");
    drop(daemon);
}

#[test]
fn repo_verify_names_a_damaged_block_and_drops_it_when_asked() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        damage(repo, b"hello world");
        let failed = repo.run(["repo", "verify"]);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        assert!(
            failed
                .text()
                .starts_with(&format!("block {HELLO_V1} was corrupt (")),
            "{failed:?}"
        );
        assert_eq!(
            failed.stderr.trim(),
            "Error: verify complete, 1 blocks corrupt"
        );
        let read = repo.run(["cat", "--timeout=1s", "--offline", HELLO_V1]);
        let read = read.failure(1);
        assert!(
            read.contains(HELLO_V1) && read.contains("damaged on disk"),
            "{read}"
        );
        let dropped = repo.ok(["repo", "verify", "--drop"]);
        let dropped = lines(&dropped);
        assert!(dropped[0].ends_with("), dropped"), "{dropped:?}");
        assert_eq!(dropped[1], "verify complete, 1 blocks corrupt, 1 dropped");
        assert_eq!(
            repo.ok(["repo", "verify"]),
            "verify complete, all blocks validated."
        );
        let absent = repo.run(["cat", "--offline", HELLO_V1]).failure(1);
        assert!(absent.contains("not found"), "{absent}");
        let progress = repo.ok(["repo", "verify", "--json"]);
        let first = json(lines(&progress)[0]);
        assert_eq!(first["Bytes"], first["Total"], "{first}");
        // What was dropped can be added again, and is then as it was.
        repo.ok(["add", "-Q", &hello(folder.path())]);
        assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
    });
    let alone = Repo::new(CAIRN);
    let refused = alone.run(["repo", "verify", "--heal"]).failure(1);
    assert!(refused.contains("cairn daemon"), "{refused}");
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
fn repo_verify_drops_what_damage_has_taken_the_name_of() {
    both(|repo| {
        repo.run_with(["add", "-Q"], b"hello world").success();
        repo.run_with(["add", "-Q"], b"another").success();
        let digest: [u8; 4] = [0xb9, 0x4d, 0x27, 0xb9]; // Begins the SHA-256 of "hello world".
        damage(repo, &digest);
        let failed = repo.run(["repo", "verify"]);
        assert!(
            failed.text().starts_with("a block was corrupt ("),
            "{failed:?}"
        );
        assert!(failed.failure(1).contains("verify --drop"));
        let dropped = repo.ok(["repo", "verify", "--drop"]);
        assert_eq!(
            lines(&dropped)[1],
            "verify complete, 1 blocks corrupt, 1 dropped"
        );
        assert_eq!(
            repo.ok(["repo", "verify"]),
            "verify complete, all blocks validated."
        );
        let stat = json(&repo.ok(["repo", "stat", "--json"]));
        assert_eq!(stat["NumObjects"], 1, "{stat}");
    });
}

#[test]
fn repo_rebuild_makes_the_index_anew_from_the_blocks() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "-Q", &hello(folder.path())]);
        damage(repo, b"hello world");
        let read = ["cat", "--offline", HELLO_V1];
        repo.run(read).failure(1);
        // The bytes are whole again, which only the index does not know.
        damage(repo, b"iello world");
        repo.run(read).failure(1);
        assert_eq!(
            repo.ok(["repo", "rebuild"]),
            "rebuilt the index of 1 blocks"
        );
        assert_eq!(repo.ok(read), "hello world");
        let lines = repo.ok(["repo", "rebuild", "--json"]);
        assert_eq!(json(&lines)["Msg"], "rebuilt the index of 1 blocks");
    });
}

#[test]
fn an_opening_that_rebuilds_the_index_of_much_says_so() {
    let repo = Repo::new(CAIRN);
    // More than is read again without a word; no two chunks are alike.
    let mut much = vec![0; 260 << 20];
    for (at, chunk) in (0u64..).zip(much.chunks_mut(1 << 20)) {
        chunk[..8].copy_from_slice(&at.to_be_bytes());
    }
    let add = ["add", "-Q", "--pin=false", "--chunker=size-1048576"];
    repo.run_with(add, &much).success();
    let quick = repo.run(["repo", "stat"]).success();
    assert_eq!(quick.stderr, "");
    fs::remove_dir_all(repo.path().join("index")).unwrap();
    let told = repo.run(["repo", "stat"]).success().stderr;
    assert!(told.contains("rebuilding the index from 27"), "{told}");
    assert!(told.contains("MB of blocks"), "{told}");
}

#[test]
fn configuration_is_shown_set_and_guarded() {
    both(|repo| {
        assert_eq!(repo.ok(["config", "get", "network"]), "local");
        repo.ok(["config", "set", "network", "lan"]);
        assert_eq!(repo.ok(["config", "get", "network"]), "lan");
        repo.ok(["config", "set", "network", "local"]);
        repo.ok(["config", "set", "storage.max", "20GB"]);
        assert_eq!(repo.ok(["config", "get", "storage.max"]), "20GB");
        assert!(repo.ok(["config", "show"]).contains("20GB"));
        let typo = repo.run(["config", "set", "storage.mx", "1GB"]).failure(1);
        assert!(
            typo.contains("storage.max"),
            "names the nearest key: {typo}"
        );
        let wrong = repo.run(["config", "set", "network", "moon"]).failure(1);
        assert!(wrong.contains("moon"), "{wrong}");
        assert_eq!(
            repo.ok(["config", "get", "network"]),
            "local",
            "a refused value changes nothing"
        );
        let size = ["config", "set", "storage.segment_size", "1"];
        let told = repo.run(size).failure(1);
        let names = "Error: storage.segment_size: must be a number of bytes";
        assert!(told.starts_with(names), "{told}");
        let peer = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWSHj3RRbBjD15g6wekV8y3mm57Pobmps2g2WJm6F67Lay";
        assert_eq!(repo.ok(["bootstrap", "list"]), "");
        assert_eq!(repo.ok(["bootstrap", "add", peer]), format!("added {peer}"));
        assert_eq!(repo.ok(["bootstrap", "list"]), peer);
        assert_eq!(
            repo.ok(["bootstrap", "rm", peer]),
            format!("removed {peer}")
        );
        assert_eq!(repo.ok(["bootstrap", "list"]), "");
    });
}

#[test]
fn no_change_of_the_configuration_is_lost_among_many_at_once() {
    both(|repo| {
        let keys = [
            "fetch.connections",
            "gateway.requests_max",
            "gateway.connections_max",
            "gateway.read_ahead_max",
            "gateway.ranges_max",
            "gateway.listing_entries_max",
            "gateway.archive_entries_max",
            "gateway.archive_bytes_max",
        ];
        for round in 1..4 {
            let value = round.to_string();
            let changes: Vec<_> = keys
                .iter()
                .map(|key| {
                    repo.command(["config", "set", key, &value])
                        .spawn()
                        .unwrap()
                })
                .collect();
            for change in changes {
                let output = change.wait_with_output().unwrap();
                assert!(output.status.success(), "{output:?}");
            }
            for key in keys {
                assert_eq!(repo.ok(["config", "get", key]), value, "{key}");
            }
        }
    });
}

#[test]
fn a_wrong_value_in_the_file_is_told_with_its_file_and_key() {
    let repo = Repo::new(CAIRN);
    let path = repo.path().join("config.toml");
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, key) in [
        (
            "scrub_share = 2",
            "scrub_share = 200",
            "storage.scrub_share",
        ),
        ("\nlevel = \"warn\"", "\nlevel = \"a=loud\"", "log.level"),
    ] {
        assert!(good.contains(from), "{good}");
        fs::write(&path, good.replace(from, to)).unwrap();
        let told = repo.run(["daemon"]).failure(1);
        let names = format!("Error: {}: {key}: must be ", path.display());
        assert!(told.starts_with(&names), "{told}");
    }
}

#[test]
fn cids_are_converted_without_a_repository() {
    let repo = Repo::empty(CAIRN);
    let v0 = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR";
    let v1 = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
    assert_eq!(repo.ok(["cid", "base32", v0]), v1);
    assert_eq!(repo.ok(["cid", "format", "-v", "0", v1]), v0);
    assert!(
        repo.ok(["cid", "format", "-b", "base58btc", "-v", "1", v0])
            .starts_with('z')
    );
    assert_eq!(
        repo.ok(["cid", "format", "-f", "%P", v0]),
        "cidv0-dag-pb-sha2-256-32"
    );
}

#[test]
fn a_node_tells_who_it_is_and_what_it_does() {
    both(|repo| {
        let id = json(&repo.ok(["id"]));
        assert!(id["ID"].as_str().unwrap().starts_with("12D3KooW"), "{id}");
        assert!(
            id["AgentVersion"].as_str().unwrap().starts_with("cairn/"),
            "{id}"
        );
        assert!(repo.ok(["version"]).starts_with("cairn version "));
        assert!(repo.ok(["version", "-n"]).starts_with("0."));
        let format = repo.ok(["repo", "version", "-q"]);
        assert!(format.starts_with("fs-repo@"), "{format}");
        assert_eq!(
            repo.ok(["repo", "version"]),
            format!("cairn repo version {format}")
        );
        assert_eq!(repo.ok(["cid", "base32", HELLO_V1]), HELLO_V1);
        assert_eq!(
            repo.ok(["cid", "format", "-f", "%P", HELLO_V1]),
            "cidv1-raw-sha2-256-32"
        );
    });
    let repo = Repo::new(CAIRN);
    let offline = repo.run(["swarm", "peers"]).failure(1);
    assert!(offline.contains("online mode"), "{offline}");
    let daemon = repo.daemon();
    assert_eq!(repo.ok(["swarm", "peers"]), "");
    assert!(
        repo.ok(["swarm", "addrs", "listen"])
            .contains("/ip4/127.0.0.1/tcp/")
    );
    assert_eq!(repo.ok(["swarm", "addrs"]), "");
    assert_eq!(repo.ok(["bitswap", "wantlist"]), "");
    assert!(repo.ok(["stats", "bw"]).contains("TotalIn"));
    assert!(repo.ok(["bitswap", "stat"]).contains("bitswap status"));
    repo.ok(["log", "level", "all", "debug"]);
    repo.ok(["log", "level", "all", "warn"]);
    let nobody = repo.run(["routing", "findprovs", HELLO_V1]);
    assert_eq!(nobody.text(), "");
    drop(daemon);
}

#[test]
fn shutdown_ends_the_daemon_in_order() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    assert!(repo.path().join("api").exists());
    repo.ok(["shutdown"]);
    let (status, _) = Daemon::stop(daemon);
    assert!(status.success(), "{status:?}");
    assert!(!repo.path().join("api").exists());
    let none = repo.run(["shutdown"]).failure(1);
    assert!(none.contains("daemon"), "{none}");
}

#[test]
fn a_stale_api_file_does_not_keep_commands_from_the_repository() {
    let repo = Repo::new(CAIRN);
    repo.daemon().kill();
    assert!(repo.path().join("api").exists(), "left behind by the kill");
    assert_eq!(
        repo.run_with(["add", "-Q"], b"hello world")
            .success()
            .text(),
        HELLO_V1
    );
}

#[test]
fn serve_makes_nothing_of_what_it_cannot_finish() {
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    let nothing = folder.path().join("nothing");
    let new = Repo::empty(CAIRN);
    let refused = new
        .run(["serve", &path, nothing.to_str().unwrap()])
        .failure(1);
    assert!(refused.contains(nothing.to_str().unwrap()), "{refused}");
    assert_eq!(fs::read_dir(new.path()).unwrap().count(), 0);

    let repo = Repo::new(CAIRN);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    repo.ok(["config", "set", "addresses.gateway", &address]);
    let refused = repo.run(["serve", &path]).failure(1);
    assert!(refused.contains(&port), "{refused}");
    assert_eq!(repo.ok(["pin", "ls"]), "");

    // What cannot be read stops the daemon again.
    repo.ok(["config", "set", "addresses.gateway", "/ip4/127.0.0.1/tcp/0"]);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refused = repo.run(["serve", socket.to_str().unwrap()]).failure(1);
    assert!(refused.contains("neither a file"), "{refused}");
    assert!(!repo.path().join("api").exists());
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
fn a_pin_that_fails_names_those_before_it_and_one_named_twice_goes_once() {
    both(|repo| {
        let folder = tempfile::tempdir().unwrap();
        repo.ok(["add", "--pin=false", &hello(folder.path())]);
        let refused = repo
            .run(["pin", "add", "--offline", HELLO_V1, EMPTY_FOLDER_V1])
            .failure(1);
        assert!(
            refused.contains("not found") || refused.contains("missing"),
            "{refused}"
        );
        if repo.ok(["pin", "ls"]).contains(HELLO_V1) {
            let before = format!("pinned before: {HELLO_V1}");
            assert!(refused.contains(&before), "{refused}");
        }
        repo.ok(["pin", "add", HELLO_V1]);
        repo.ok(["pin", "rm", HELLO_V1, HELLO_V1]);
        assert_eq!(repo.ok(["pin", "ls"]), "");
    });
}

#[test]
fn config_edit_takes_what_is_valid_and_leaves_no_copy() {
    let repo = Repo::new(CAIRN);
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(repo.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = listing();
    let edit = |editor: &str| {
        let mut command = repo.command(["config", "edit"]);
        command.env("EDITOR", editor).output().unwrap()
    };
    let edited = edit("sed -i 's/^network = .*/network = \"lan\"/'");
    assert!(edited.status.success(), "{edited:?}");
    assert_eq!(repo.ok(["config", "network"]), "lan");
    assert_eq!(listing(), before);
    assert!(!edit("false").status.success());
    assert_eq!(listing(), before);

    // Somebody else is not overruled, and no work is lost.
    let config = repo.path().join("config.toml");
    let meanwhile = format!("sed -i 's/\"lan\"/\"local\"/' {}; true", config.display());
    let edited = edit(&meanwhile);
    assert_eq!(edited.status.code(), Some(1), "{edited:?}");
    assert_eq!(repo.ok(["config", "network"]), "local");
    let kept = repo.path().join("config.edited.toml");
    assert!(fs::read_to_string(&kept).unwrap().contains("\"lan\""));
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn config_edit_keeps_the_text_that_a_full_disk_has_no_room_for() {
    let Some(mut mounts) = Mounts::new() else {
        return;
    };
    mounts.run("mount -t tmpfs -o size=1m none /mnt");
    let repo = Repo::new(CAIRN).at(&mounts.path(Path::new("/mnt")));
    let config = repo.path().join("config.toml");
    let made = Repo::new(CAIRN);
    fs::copy(made.path().join("config.toml"), &config).unwrap();
    let before = fs::read(&config).unwrap();
    let fill = format!(
        "sed -i '1i # mine' \"$1\"; cat /dev/zero >{}/rest 2>/dev/null; true",
        repo.path().display()
    );
    let mut command = repo.command(["config", "edit"]);
    let edited = command.env("EDITOR", fill).output().unwrap();
    assert_eq!(edited.status.code(), Some(1), "{edited:?}");
    let told = String::from_utf8(edited.stderr).unwrap();
    let kept = repo.path().join("config.edited.toml");
    assert!(
        told.contains("cannot write") && told.contains(kept.to_str().unwrap()),
        "{told}"
    );
    let kept = fs::read(&kept).unwrap();
    assert_eq!(kept.strip_prefix(b"# mine\n"), Some(&before[..]));
    assert_eq!(fs::read(&config).unwrap(), before);
}

#[test]
fn the_token_goes_to_the_repositorys_own_daemon_alone() {
    let repo = Repo::new(CAIRN);
    repo.ok(["config", "set", "rpc.token", "secret"]);
    // Somebody else has the address now where a killed daemon listened.
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!(
        "/ip4/127.0.0.1/tcp/{}",
        stranger.local_addr().unwrap().port()
    );
    fs::write(repo.path().join("api"), &address).unwrap();
    repo.ok(["id"]);
    stranger.set_nonblocking(true).unwrap();
    assert!(stranger.accept().is_err(), "the stranger was asked");

    // Asked on purpose, it learns nothing.
    stranger.set_nonblocking(false).unwrap();
    let listening = std::thread::spawn(move || {
        let (mut stream, _) = stranger.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    });
    repo.run(["--api", &address, "id"]).failure(1);
    let head = listening.join().unwrap();
    assert!(head.starts_with("POST /api/v0/id"), "{head}");
    assert!(!head.contains("secret"), "{head}");

    let daemon = repo.daemon();
    let own = fs::read_to_string(repo.path().join("api")).unwrap();
    repo.ok(["--api", own.trim(), "id"]);
    drop(daemon);
}

#[test]
fn serve_does_everything_in_one_command() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let path = hello(folder.path());
    let served = Daemon::start(repo.command(["serve", &path]), repo.path());
    let gateway = served.gateway();
    let url = format!("http://{gateway}/ipfs/{HELLO_V1}");
    assert!(
        served.lines.iter().any(|line| line.contains(&url)),
        "{:#?}",
        served.lines
    );
    assert!(served.lines.last().unwrap().contains("Daemon is ready"));
    assert_eq!(
        served.get(&format!("/ipfs/{HELLO_V1}"), &[]).text(),
        "hello world"
    );
    assert_eq!(repo.ok(["pin", "ls"]), format!("{HELLO_V1} recursive"));
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

#[test]
fn what_cannot_be_found_in_time_says_so() {
    let repo = Repo::new(CAIRN);
    let _daemon = repo.daemon();
    let line = repo.run(["cat", "--timeout=1s", HELLO_V1]).failure(1);
    assert!(
        line.contains("deadline exceeded")
            || line.contains("timed out")
            || line.contains("in time"),
        "{line}"
    );
}

#[test]
fn two_processes_and_busy_ports_are_named() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let second = repo.run(["daemon"]).failure(1);
    assert!(second.contains("repo.lock"), "{second}");

    let other = Repo::new(CAIRN);
    let busy = format!("/ip4/127.0.0.1/tcp/{}", daemon.rpc().port());
    other.ok(["config", "set", "addresses.rpc", &busy]);
    let refused = other.run(["daemon"]).failure(1);
    assert!(
        refused.contains(&daemon.rpc().port().to_string()),
        "{refused}"
    );
    other.ok(["config", "set", "addresses.rpc", "/ip4/0.0.0.0/tcp/0"]);
    let open = other.run(["daemon"]).failure(1);
    assert!(open.contains("token"), "{open}");
}

#[test]
fn the_rpc_is_for_operators_only() {
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let rpc = daemon.rpc();
    let ask = |method: &str, target: &str, headers: &[(&str, &str)]| {
        harness::http::request(rpc, method, target, headers, b"").unwrap()
    };
    assert_eq!(ask("GET", "/api/v0/version", &[]).status, 405);
    assert_eq!(ask("POST", "/api/v0/version", &[]).status, 200);
    assert_eq!(ask("POST", "/api/v0/no/such/command", &[]).status, 404);
    let origin = [("origin", "http://evil.example")];
    assert_eq!(ask("POST", "/api/v0/version", &origin).status, 403);
    assert_eq!(
        ask("POST", "/api/v0/version", &[("origin", "null")]).status,
        403
    );
    assert_eq!(
        ask(
            "POST",
            "/api/v0/version",
            &[("referer", "http://evil.example/x")]
        )
        .status,
        403
    );
    assert_eq!(
        ask("POST", "/api/v0/version", &[("host", "evil.example")]).status,
        403
    );
    let wrong = daemon.post("cat", "arg=nonsense");
    assert_eq!(wrong.status, 500);
    let error: Value = serde_json::from_slice(&wrong.body).unwrap();
    assert_eq!(error["Type"], "error");
    assert!(
        error["Message"].as_str().unwrap().contains("nonsense"),
        "{error}"
    );
    let metrics = ask("GET", "/metrics", &[]);
    assert_eq!(metrics.status, 200);
    for name in [
        "cairn_store_blocks",
        "cairn_store_commit_seconds",
        "cairn_bitswap",
        "cairn_gateway",
        "cairn_pins",
        "process_",
    ] {
        assert!(
            metrics.text().contains(name),
            "{name} is missing from the metrics"
        );
    }
    assert!(!metrics.text().contains("# EOF"));
    drop(daemon);

    repo.ok(["config", "set", "rpc.token", "secret"]);
    let daemon = repo.daemon();
    let ask = |headers: &[(&str, &str)]| {
        harness::http::request(daemon.rpc(), "POST", "/api/v0/id", headers, b"")
            .unwrap()
            .status
    };
    assert!([401, 403].contains(&ask(&[])));
    assert!([401, 403].contains(&ask(&[("authorization", "Bearer wrong")])));
    assert_eq!(ask(&[("authorization", "Bearer secret")]), 200);
    assert!(
        json(&repo.ok(["id"]))["ID"].is_string(),
        "the program reads its own token"
    );
}

#[test]
fn a_full_disk_stops_writing_with_a_clear_line_and_reading_goes_on() {
    let repo = Repo::new(CAIRN);
    repo.run_with(["add", "-Q"], b"hello world").success();
    // More than any disk has: the reserve is reached.
    repo.ok(["config", "set", "storage.reserve", "8000PiB"]);
    let full = repo.run_with(["add", "-Q"], b"something new").failure(1);
    assert!(
        full.contains("no space left") && full.contains("storage.reserve"),
        "{full}"
    );
    assert_eq!(repo.ok(["cat", HELLO_V1]), "hello world");
    assert_eq!(repo.ok(["repo", "gc"]), "");
    repo.ok(["config", "set", "storage.reserve", "0"]);
    repo.run_with(["add", "-Q"], b"something new").success();
}

/// The program over `repo` as if its folder lay on a file system that cannot be written: in a mount
/// namespace of its own, which `unshare` makes.
fn sealed(repo: &Repo, unshare: &[&str], arguments: &[&str]) -> Command {
    let remount = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
    let plain = repo.command(arguments);
    let mut command = Command::new("unshare");
    command
        .args(unshare)
        .args(["sh", "-c", remount])
        .arg(repo.path())
        .arg(plain.get_program())
        .args(arguments)
        .env("CAIRN_PATH", repo.path())
        .env_remove("CAIRN_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(mut command: Command) -> Done {
    let output = command.output().expect("the program to start");
    Done {
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code(),
    }
}

#[test]
fn a_repository_that_cannot_be_written_serves_all_that_only_reads() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let file = hello(folder.path());
    let root = repo.ok(["add", "-Q", "-w", &file]);
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let tried = sealed(&repo, way, &["version"]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        harness::tell_skipped("`unshare` gives this user no mount namespace in which to mount");
        return;
    };
    let path = format!("{root}/hello.txt");
    let only_read = [
        &["cat", &path][..],
        &["ls", &root],
        &["refs", "-r", &root],
        &["refs", "local"],
        &["pin", "ls"],
        &["repo", "stat", "--size-only"],
        &["repo", "verify"],
        &["dag", "export", &root],
        &["add", "-n", "-Q", &file],
    ];
    let answers = only_read.map(|reads| repo.run(reads).success().stdout);
    let before = tree::read(repo.path());
    for (reads, answer) in only_read.into_iter().zip(answers) {
        let read = run(sealed(&repo, way, reads)).success();
        assert_eq!(read.stdout, answer, "{reads:?}");
    }
    let out = folder.path().join("out");
    let get = ["get", &path, "-o", out.to_str().unwrap()];
    run(sealed(&repo, way, &get)).success();
    assert_eq!(fs::read(&out).unwrap(), b"hello world");
    for writes in [
        &["add", "-Q", &file][..],
        &["block", "put", &file],
        &["dag", "import", &file],
        // Before anybody looks for it.
        &["pin", "add", EMPTY_FOLDER_V1],
        &["pin", "rm", &root],
        &["block", "rm", HELLO_V1],
        &["repo", "gc"],
        &["repo", "rebuild"],
        &["repo", "verify", "--drop"],
    ] {
        let refused = run(sealed(&repo, way, writes)).failure(1);
        let last = refused.lines().last().unwrap();
        assert!(
            last.starts_with("Error: the repository was opened for reading alone"),
            "{writes:?}: {refused}"
        );
    }

    let daemon = Daemon::start(sealed(&repo, way, &["daemon"]), repo.path());
    let listening = |what: &str| {
        let line = daemon.lines.iter().find_map(|line| line.strip_prefix(what));
        line.unwrap_or_else(|| panic!("{:?}", daemon.lines))
            .to_owned()
    };
    let gateway = listening("Gateway server listening on /ip4/127.0.0.1/tcp/");
    let gateway = (
        std::net::Ipv4Addr::LOCALHOST,
        gateway.parse::<u16>().unwrap(),
    )
        .into();
    let target = format!("/ipfs/{path}");
    let served = harness::http::request(gateway, "GET", &target, &[], b"").unwrap();
    assert_eq!(served.text(), "hello world");
    let api = listening("RPC API server listening on ");
    let asked = |arguments: &[&str]| repo.run([&["--api", &api], arguments].concat());
    assert_eq!(asked(&["cat", &path]).success().text(), "hello world");
    let refused = asked(&["add", "-Q", &file]).failure(1);
    assert!(refused.contains("opened for reading alone"), "{refused}");
    // What peers have passes through.
    let other = Repo::new(CAIRN);
    let elsewhere = other.run_with(["add", "-Q"], b"elsewhere").success().text();
    let giving = other.daemon();
    asked(&["swarm", "connect", &giving.swarm()]).success();
    for _ in 0..2 {
        assert_eq!(asked(&["cat", &elsewhere]).success().text(), "elsewhere");
    }
    let (status, _) = daemon.stop();
    assert!(status.success(), "{status:?}");
    assert!(tree::read(repo.path()) == before, "something was written");
}
