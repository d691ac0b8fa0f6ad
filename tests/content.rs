//! What is added, put and imported, and how it is read back: alone and through a daemon.

use cairn_store::Block;
use cairn_store::block::Prefix;
use cairn_store::car::write;
use cairn_store::cid::{self, Cid, HashKind, Version};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use harness::scenario::{EMPTY_FOLDER_V1, HELLO_V0, HELLO_V1, hello, json, lines};
use harness::{Repo, scenario, tree};
use std::fs;
use std::path::Path;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// Runs a scenario on the repository alone, then on another one through its daemon.
fn both(scenario: impl Fn(&Repo)) {
    scenario::both(CAIRN, scenario);
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
fn what_is_no_cid_is_told_with_what_one_looks_like() {
    both(|repo| {
        for command in [
            &["cat", "nonsense"][..],
            &["pin", "add", "nonsense/a"],
            &["get", "x"],
        ] {
            let told = repo.run(command).failure(1);
            for what in ["ipfs-path", "looks like bafy", command[command.len() - 1]] {
                assert!(told.contains(what), "{what}: {told}");
            }
        }
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
fn what_cannot_be_read_is_named_with_what_can_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("tree/below");
    fs::create_dir_all(&below).unwrap();
    fs::write(below.join("small"), "small").unwrap();
    fs::write(below.join("large"), vec![7; 3 << 20]).unwrap();
    let tree = folder.path().join("tree");
    both(|repo| {
        let root = repo.ok(["add", "-r", "-Q", tree.to_str().unwrap()]);
        let told = |path: &str| repo.run(["cat", path]).failure(1);
        let folder = format!("/ipfs/{root}/below");
        assert_eq!(
            told(&folder),
            format!(
                "Error: {folder}: this dag node is a directory; `cairn ls` lists it, `cairn get` writes it to disk"
            )
        );
        for file in ["small", "large"] {
            let told = told(&format!("{root}/below/{file}/deeper"));
            let (lacks, is) = ("no link named \"deeper\" under", "that is a file");
            assert!(told.contains(lacks) && told.contains(is), "{told}");
        }
        let told = told(&format!("{root}/nothing"));
        let listed = format!("`cairn ls {root}` lists what is there");
        assert!(told.ends_with(&listed), "{told}");
        let told = repo.run(["--api", "garbage", "id"]).failure(2);
        assert!(
            told.contains("\"garbage\" is no address of a daemon's RPC"),
            "{told}"
        );
    });
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let told = repo.run(["swarm", "connect", "garbage"]).failure(1);
    let is_none = "\"garbage\": it is neither a peer ID (12D3KooW…) nor an address";
    assert!(told.contains(is_none), "{told}");
    drop(daemon);
}
