//! `add --nocopy` and `filestore` in the real program, alone and through a daemon.

use harness::scenario::{json, lines};
use harness::{Repo, scenario, tree};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");
const CHUNK: usize = 100_000;
const CHUNKS: usize = 20;

/// A folder of the user's with a file of many chunks.
struct Media {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Media {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = fs::canonicalize(folder.path()).unwrap();
        fs::write(path.join("large"), tree::bytes(1, CHUNK * CHUNKS)).unwrap();
        fs::write(path.join("small"), b"hello world").unwrap();
        Self {
            _folder: folder,
            path,
        }
    }

    fn file(&self, name: &str) -> String {
        self.path.join(name).to_str().unwrap().to_owned()
    }

    fn allow(&self, repo: &Repo) {
        let roots = format!("[{:?}]", self.path.to_str().unwrap());
        repo.ok(["config", "set", "filestore.roots", &roots]);
    }
}

fn add(repo: &Repo, file: &str) -> String {
    repo.ok(["add", "-Q", "--nocopy", "--chunker=size-100000", file])
}

fn refused(repo: &Repo, cid: &str) -> String {
    repo.run(["cat", "--offline", cid]).failure(1)
}

#[test]
fn what_is_added_in_place_is_read_from_there_and_takes_no_room() {
    let media = Media::new();
    scenario::both_with(
        CAIRN,
        |repo| media.allow(repo),
        |repo| {
            let large = media.file("large");
            let cid = add(repo, &large);
            let plain = repo.ok(["add", "-Q", "-n", "--chunker=size-100000", &large]);
            assert_eq!(cid, plain, "the same CID as ever");
            let read = repo.run(["cat", &cid]).success().stdout;
            assert_eq!(read, fs::read(&large).unwrap());
            let stat = json(&repo.ok(["repo", "stat", "--json"]));
            assert!(stat["DiskSize"].as_u64() < Some(20_000), "{stat}");
            assert_eq!(stat["NumObjects"], CHUNKS as u64 + 1, "{stat}");
            let listed = repo.ok(["filestore", "ls", "--file-order"]);
            let listed = lines(&listed);
            assert_eq!(listed.len(), CHUNKS);
            for (at, line) in listed.iter().enumerate() {
                let end = format!(" {CHUNK} {large} {}", at * CHUNK);
                assert!(line.starts_with("bafk") && line.ends_with(&end), "{line}");
            }
            assert_eq!(repo.ok(["filestore", "dups"]), "");
            let verified = repo.ok(["filestore", "verify"]);
            assert!(
                lines(&verified)
                    .iter()
                    .all(|line| line.starts_with("ok      bafk"))
            );
            let first = listed[0].split(' ').next().unwrap().to_owned();
            let one = json(&repo.ok(["filestore", "ls", "--json", &first]));
            assert_eq!(one["Status"], 0, "{one}");
            assert_eq!(one["Key"]["/"], first, "{one}");
            assert_eq!(
                (&one["FilePath"], &one["Offset"]),
                (&large.clone().into(), &0.into())
            );
            assert_eq!(one["Size"], CHUNK as u64);
            let local = repo.ok(["refs", "local"]);
            assert!(lines(&local).contains(&first.as_str()));
            // Nothing of it is garbage.
            assert_eq!(repo.ok(["repo", "gc"]), "");
            assert_eq!(repo.ok(["pin", "verify"]), "");
            let file = repo.ok(["add", "-Q", "--nocopy", &media.file("small")]);
            assert_eq!(repo.ok(["cat", &file]), "hello world");
            repo.ok(["pin", "rm", &file]);
            assert_eq!(repo.ok(["repo", "gc"]), format!("removed {file}"));
            let missing = repo.run(["filestore", "verify", "--json", &file]);
            assert_eq!(json(&missing.text())["Status"], 30, "{missing:?}");
            missing.failure(1);
            let whole = repo.ok(["repo", "verify"]);
            assert!(
                whole.ends_with(&format!(
                    "validated. {CHUNKS} of them lie in files in place."
                )),
                "{whole}"
            );
        },
    );
}

#[test]
fn whatever_becomes_of_a_file_is_told_by_name_and_offset_and_nothing_else_suffers() {
    let media = Media::new();
    scenario::both_with(
        CAIRN,
        |repo| media.allow(repo),
        |repo| {
            let (large, other) = (media.file("large"), media.file("other"));
            fs::write(&large, tree::bytes(1, CHUNK * CHUNKS)).unwrap();
            fs::write(&other, tree::bytes(2, 5 * CHUNK)).unwrap();
            let (cid, other_cid) = (add(repo, &large), add(repo, &other));
            let chunks = repo.ok(["filestore", "ls", "--file-order"]);
            let chunk = |at: usize| lines(&chunks)[at].split(' ').next().unwrap().to_owned();
            let others_are_whole = || {
                let read = repo.run(["cat", &other_cid]).success().stdout;
                assert_eq!(read, fs::read(&other).unwrap());
            };
            let told = |at: usize, status: u64, words: &str| {
                let error = refused(repo, &chunk(at));
                let place = format!("{large} from byte {} on", at * CHUNK);
                assert!(error.contains(&place) && error.contains(words), "{error}");
                assert!(refused(repo, &cid).contains(&large));
                let verified = repo.run(["filestore", "verify", "--json", &chunk(at)]);
                assert_eq!(json(&verified.text())["Status"], status, "{verified:?}");
                let failed = verified.failure(1);
                assert!(failed.contains("--remove-bad-blocks"), "{failed}");
                let verified = repo.run(["repo", "verify"]);
                assert!(verified.text().contains(&place), "{verified:?}");
                let failed = verified.failure(1);
                assert!(failed.contains("cannot be read from there"), "{failed}");
                others_are_whole();
            };
            let mut file = fs::OpenOptions::new().write(true).open(&large).unwrap();
            file.seek(SeekFrom::Start(7 * CHUNK as u64 + 5)).unwrap();
            file.write_all(b"edited").unwrap();
            told(7, 12, "changed");
            let whole = repo.run(["cat", "--offline", &chunk(8)]).success().stdout;
            assert_eq!(whole, tree::bytes(1, CHUNK * CHUNKS)[8 * CHUNK..9 * CHUNK]);
            file.set_len(15 * CHUNK as u64 + 1).unwrap();
            told(15, 12, "has only 1500001 bytes");
            fs::rename(&large, media.file("moved")).unwrap();
            told(0, 11, "gone");
            std::os::unix::fs::symlink(media.file("moved"), &large).unwrap();
            told(0, 10, "symbolic link");
            fs::remove_file(&large).unwrap();
            fs::create_dir(&large).unwrap();
            told(0, 10, "a folder");
            fs::remove_dir(&large).unwrap();
            let made = std::process::Command::new("mkfifo").arg(&large).status();
            assert!(made.unwrap().success());
            told(0, 10, "a pipe");
            fs::remove_file(&large).unwrap();
            fs::write(&large, tree::bytes(1, CHUNK * CHUNKS)).unwrap();
            let read = repo.run(["cat", &cid]).success().stdout;
            assert_eq!(
                read,
                tree::bytes(1, CHUNK * CHUNKS),
                "put back, it is as it was"
            );
            fs::remove_file(&large).unwrap();
            let removed = repo.run(["filestore", "verify", "--remove-bad-blocks"]);
            assert_eq!(removed.code, Some(0), "nothing bad is left: {removed:?}");
            let gone = |line: &&&str| line.contains("no-file") && line.contains("it is forgotten");
            assert_eq!(lines(&removed.text()).iter().filter(gone).count(), CHUNKS);
            assert!(removed.stderr.contains("cairn pin verify"), "{removed:?}");
            repo.ok(["filestore", "verify"]);
            // What is pinned is not whole, and the way out that is told is one.
            let refused = repo.run(["repo", "gc"]).failure(1);
            assert!(
                refused.contains(&cid) && refused.contains("add again"),
                "{refused}"
            );
            repo.run(["pin", "verify"]).failure(1);
            let small = repo.ok(["add", "-Q", &media.file("small")]);
            let update = repo.run(["pin", "update", "--offline", &small, &cid]);
            update.failure(1);
            assert!(repo.ok(["pin", "ls", &small]).contains("recursive"));
            fs::write(&large, tree::bytes(1, CHUNK * CHUNKS)).unwrap();
            assert_eq!(add(repo, &large), cid);
            repo.ok(["repo", "gc"]);
            fs::remove_file(&large).unwrap();
            repo.ok(["repo", "verify", "--drop"]);
            let refused = repo.run(["repo", "gc"]).failure(1);
            assert!(refused.contains(&cid), "{refused}");
            repo.ok(["pin", "rm", &cid]);
            repo.ok(["repo", "gc"]);
            assert_eq!(lines(&repo.ok(["filestore", "ls"])).len(), 5);
            others_are_whole();
            for name in ["moved", "other"] {
                fs::remove_file(media.file(name)).unwrap();
            }
        },
    );
}

#[test]
fn what_lies_in_a_folder_that_is_not_there_is_not_dropped() {
    let media = Media::new();
    let (disk, away) = (media.path.join("disk"), media.path.join("away"));
    scenario::both_with(
        CAIRN,
        |repo| media.allow(repo),
        |repo| {
            fs::create_dir(&disk).unwrap();
            fs::write(disk.join("file"), b"on a disk").unwrap();
            let cid = add(repo, &media.file("disk/file"));
            fs::rename(&disk, &away).unwrap();
            let verified = repo.run(["repo", "verify", "--drop"]);
            let told = verified.text();
            assert!(
                told.contains("not dropped: its folder is not there"),
                "{told}"
            );
            verified.failure(1);
            fs::rename(&away, &disk).unwrap();
            assert_eq!(repo.ok(["cat", &cid]), "on a disk");
            fs::remove_file(disk.join("file")).unwrap();
            repo.ok(["repo", "verify", "--drop"]);
            assert_eq!(repo.ok(["filestore", "ls"]), "");
            fs::remove_dir(&disk).unwrap();
        },
    );
}

#[test]
fn without_a_daemon_any_file_and_through_one_only_those_below_the_roots() {
    let (media, elsewhere) = (Media::new(), Media::new());
    let repo = Repo::new(CAIRN);
    add(&repo, &elsewhere.file("small"));
    let daemon = repo.daemon();
    let told = repo
        .run(["add", "--nocopy", &media.file("small")])
        .failure(1);
    assert!(told.contains("filestore.roots"), "{told}");
    drop(daemon);
    media.allow(&repo);
    let daemon = repo.daemon();
    add(&repo, &media.file("small"));
    let link = media.path.join("link");
    std::os::unix::fs::symlink(elsewhere.file("small"), &link).unwrap();
    let up = media
        .path
        .join("../")
        .join(elsewhere.path.file_name().unwrap())
        .join("small");
    for path in [
        Path::new(&elsewhere.file("small")),
        &link,
        &up,
        Path::new("/etc/none"),
    ] {
        let answer = post(
            &daemon.rpc().to_string(),
            path.to_str().unwrap(),
            b"hello world",
        );
        assert!(
            answer.contains("filestore.roots"),
            "{}: {answer}",
            path.display()
        );
    }
    let answer = post(&daemon.rpc().to_string(), "small", b"hello world");
    assert!(answer.contains("not absolute"), "{answer}");
    let answer = post(
        &daemon.rpc().to_string(),
        &media.file("small"),
        b"hello world",
    );
    assert!(answer.contains("\"Hash\""), "{answer}");
    // Nobody's word is taken for what a file has.
    for sent in [&b"hello w0rld"[..], b"hello world and more"] {
        let answer = post(&daemon.rpc().to_string(), &media.file("small"), sent);
        assert!(answer.contains("never was what was sent"), "{answer}");
        assert!(!answer.contains("\"Hash\""), "{answer}");
    }
    assert_eq!(repo.ok(["filestore", "ls"]).lines().count(), 1);
    // Who reaches the RPC does not let himself in.
    let everywhere = format!("[{:?}]", elsewhere.path.to_str().unwrap());
    repo.ok(["config", "set", "filestore.roots", &everywhere]);
    let answer = post(
        &daemon.rpc().to_string(),
        &elsewhere.file("small"),
        b"hello world",
    );
    assert!(answer.contains("filestore.roots"), "{answer}");
    let raw = repo.run([
        "add",
        "--nocopy",
        "--raw-leaves=false",
        &media.file("small"),
    ]);
    assert!(raw.failure(1).contains("raw-leaves"));
    let stdin = repo.run_with(["add", "--nocopy"], b"hello").failure(1);
    assert!(stdin.contains("in place"), "{stdin}");
    drop(daemon);
}

#[test]
fn peers_heal_what_a_file_has_lost_and_visitors_do_not_learn_where_it_lay() {
    let media = Media::new();
    let (repo, other) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (large, small) = (media.file("large"), media.file("small"));
    let (cid, alone) = (add(&repo, &large), add(&repo, &small));
    other.ok(["add", "-Q", "--chunker=size-100000", &large]);
    for file in [&large, &small] {
        fs::remove_file(file).unwrap();
    }
    repo.ok(["config", "set", "gateway.retrieval_timeout", "1s"]);
    let (daemon, there) = (repo.daemon(), other.daemon());
    repo.ok(["swarm", "connect", &there.swarm()]);
    // Nobody has this one: the peer was asked, and the gateway tells no more than that it is not there.
    for path in [
        format!("/ipfs/{alone}"),
        format!("/ipfs/{alone}?format=raw"),
    ] {
        let answer = daemon.get(&path, &[]);
        let told = answer.text();
        assert!(answer.status >= 500, "{}: {told}", answer.status);
        let place = media.path.to_str().unwrap();
        assert!(!told.contains(place) && !told.contains("/small"), "{told}");
    }
    let failed = repo.run(["repo", "verify", "--heal", "--heal-timeout", "1s"]);
    let told = failed.text();
    let healed = told.lines().filter(|line| line.ends_with(", healed"));
    assert_eq!(healed.count(), CHUNKS, "{told}");
    assert!(told.contains("not healed: no peer has it"), "{told}");
    let failed = failed.failure(1);
    assert!(failed.contains(&format!("{CHUNKS} healed")), "{failed}");
    drop(there);
    let read = repo.run(["cat", "--offline", &cid]).success().stdout;
    assert_eq!(read, tree::bytes(1, CHUNK * CHUNKS));
    assert_eq!(repo.ok(["filestore", "ls"]).lines().count(), 1);
    drop(daemon);
}

/// Adds one file in place as Kubo's clients do; the answer, with its headers.
fn post(rpc: &str, path: &str, content: &[u8]) -> String {
    let begin = format!(
        "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\nAbspath: {path}\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let body = [begin.as_bytes(), content, b"\r\n--x--\r\n"].concat();
    let mut stream = TcpStream::connect(rpc).unwrap();
    let head = format!(
        "POST /api/v0/add?nocopy=true HTTP/1.1\r\nHost: {rpc}\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), &body].concat())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
