//! The gateway of a real daemon, over a real socket.

use harness::{Repo, tree};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

#[test]
fn files_folders_and_ranges_are_served() {
    let repo = Repo::new(CAIRN);
    let folder = tempfile::tempdir().unwrap();
    let root_folder = folder.path().join("site");
    fs::create_dir_all(root_folder.join("sub")).unwrap();
    let content = tree::bytes(5, 3_500_000);
    fs::write(root_folder.join("big.bin"), &content).unwrap();
    fs::write(root_folder.join("sub/index.html"), "<h1>hello</h1>").unwrap();
    let root = repo.ok(["add", "-r", "-Q", root_folder.to_str().unwrap()]);
    let daemon = repo.daemon();

    let path = format!("/ipfs/{root}/big.bin");
    let whole = daemon.get(&path, &[]);
    assert_eq!((whole.status, whole.body == content), (200, true));
    assert_eq!(whole.header("x-ipfs-path"), path);
    let etag = whole.header("etag").to_owned();
    assert_eq!(daemon.get(&path, &[("if-none-match", &etag)]).status, 304);
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..50 {
        let from = random.random_range(0..content.len());
        let to = random.random_range(from..content.len());
        let part = daemon.get(&path, &[("range", &format!("bytes={from}-{to}"))]);
        assert_eq!(part.status, 206);
        assert!(part.body == content[from..=to], "{from}-{to}");
    }
    let moved = daemon.get(&format!("/ipfs/{root}/sub"), &[]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, format!("/ipfs/{root}/sub/").as_str())
    );
    assert_eq!(
        daemon.get(&format!("/ipfs/{root}/sub/"), &[]).text(),
        "<h1>hello</h1>"
    );
    assert!(
        daemon
            .get(&format!("/ipfs/{root}/"), &[])
            .text()
            .contains("big.bin")
    );

    let car = daemon.get(&format!("/ipfs/{root}?format=car"), &[]);
    let other = Repo::new(CAIRN);
    let file = folder.path().join("x.car");
    fs::write(&file, &car.body).unwrap();
    other.ok(["dag", "import", "--pin-roots=false", file.to_str().unwrap()]);
    assert_eq!(
        other
            .run(["cat", &format!("{root}/big.bin")])
            .success()
            .stdout,
        content
    );

    let archive = daemon.get(&format!("/ipfs/{root}?format=tar"), &[]);
    let unpacked = folder.path().join("unpacked");
    tar::Archive::new(&archive.body[..])
        .unpack(&unpacked)
        .unwrap();
    assert_eq!(tree::read(&unpacked.join(&root)), tree::read(&root_folder));

    let raw = daemon.get(&format!("/ipfs/{root}?format=raw"), &[]);
    assert_eq!(raw.body, repo.run(["block", "get", &root]).success().stdout);

    let missing = daemon.get(&format!("/ipfs/{root}/nothing"), &[]);
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("nothing"), "{}", missing.text());
    assert_eq!(daemon.get("/ipfs/nonsense", &[]).status, 400);
    let post = harness::http::request(daemon.gateway(), "POST", &path, &[], b"").unwrap();
    assert_eq!(post.status, 405);
}

#[test]
fn requests_are_counted_by_status_and_format() {
    let repo = Repo::new(CAIRN);
    let cid = repo
        .run_with(["add", "-Q"], b"hello world")
        .success()
        .text();
    let daemon = repo.daemon();
    for _ in 0..3 {
        daemon.get(&format!("/ipfs/{cid}"), &[]);
    }
    daemon.get("/ipfs/nonsense", &[]);
    let metrics = harness::http::request(daemon.rpc(), "GET", "/metrics", &[], b"")
        .unwrap()
        .text();
    let requests: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("cairn_gateway_requests_total"))
        .collect();
    assert!(
        requests
            .iter()
            .any(|line| line.contains("2xx") && line.ends_with(" 3")),
        "{requests:#?}"
    );
    assert!(
        requests
            .iter()
            .any(|line| line.contains("4xx") && line.ends_with(" 1")),
        "{requests:#?}"
    );
}
