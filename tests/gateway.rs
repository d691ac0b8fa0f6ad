//! The gateway of a real daemon, over a real socket.

use harness::{Daemon, Repo, tree};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::PathBuf;

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

/// Files of the public suite of gateways.
fn of_the_suite(folder: &str, kind: &str) -> Vec<PathBuf> {
    let folder = format!("{}/fixtures/{folder}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(folder).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|found| found == kind))
        .collect()
}

#[test]
fn records_of_the_suite_are_taken_and_given_as_they_are_or_not_at_all() {
    let repo = Repo::new(CAIRN);
    let key = "12D3KooWLQzUv2FHWGVPXTXSZpdHs7oHbXub2G5WC8Tx4NQhyd2d";
    let usual = "k51qzi5uqu5dk3v4rmjber23h16xnr23bsggmqqil9z2gduiis5se8dht36dam";
    let map = format!("over-a-key.example.org:/ipns/{key},over-a-cid.example.org:/ipns/{usual}");
    let mut command = repo.command(["daemon"]);
    command.env("IPFS_NS_MAP", map);
    let daemon = Daemon::start(command, repo.path());
    let cars = of_the_suite("gateway", "car");
    let cars = cars.iter().map(|path| path.to_str().unwrap());
    let import = ["dag", "import", "--local-only", "--silent"];
    repo.ok(import.into_iter().chain(cars));
    let (mut given, mut refused) = (0, 0);
    for path in of_the_suite("ipns", "ipns-record") {
        let record = fs::read(&path).unwrap();
        let file = path.file_stem().unwrap().to_str().unwrap();
        let (name, about) = file.split_once('_').unwrap_or((file, ""));
        let put = ["name", "put", "--allow-offline", "--force", name];
        let put = repo.run(put.into_iter().chain([path.to_str().unwrap()]));
        let mut path = format!("/ipns/{name}");
        let moved = daemon.get(&path, &[]);
        if moved.status == 302 {
            path = moved.header("location").to_owned();
        }
        let answer = daemon.get(&format!("{path}?format=ipns-record"), &[]);
        let why = match about {
            "v1" => "signature",
            "v1-v2-broken-v1-value" => "value",
            "v1-v2-broken-signature-v2" => "signature",
            _ => {
                put.success();
                assert_eq!(
                    (answer.status, answer.body == record),
                    (200, true),
                    "{file}"
                );
                let kind = answer.header("content-type");
                assert_eq!(kind, "application/vnd.ipfs.ipns-record");
                let length = record.len().to_string();
                assert_eq!(answer.header("content-length"), length);
                let holds = answer.header("cache-control");
                let seconds = holds.strip_prefix("public, max-age=").unwrap();
                let seconds: u64 = seconds.parse().unwrap();
                // What holds for a century is asked for again all the same.
                let most = if about.is_empty() { 3600 } else { 1800 };
                assert!(seconds > 0 && seconds <= most, "{file}: {holds}");
                let etag = answer.header("etag").to_owned();
                let known = [("if-none-match", etag.as_str())];
                let again = daemon.get(&format!("{path}?format=ipns-record"), &known);
                assert_eq!(again.status, 304);
                given += 1;
                continue;
            }
        };
        let told = put.failure(1);
        assert!(told.contains(why), "{file}: {told}");
        assert_eq!(answer.status, 500, "{file}");
        let content = daemon.get(&path, &[]);
        assert_eq!(content.status, 500, "{file}: {}", content.text());
        refused += 1;
    }
    assert_eq!((given, refused), (9, 3));
    // A domain leads to a key, written in whichever way, and is served without moving anywhere.
    for host in ["over-a-key.example.org", "over-a-cid.example.org"] {
        let answer = daemon.get("/", &[("host", host)]);
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "hello\n"),
            "{host}"
        );
    }
    let below = "k51qzi5uqu5djokp3m1keo36hoxtd6u3a1d2rg1camf6al7p3huy63dojlm57c";
    let below = daemon.get(&format!("/ipns/{below}/root3/root4/index.html"), &[]);
    assert_eq!((below.status, below.text().as_str()), (200, "hello\n"));
}
