//! `repo import-kubo`: a repository that Kubo wrote, and a large one made by hand with everything that goes wrong.

use cairn_store::cid::{self, Cid, HashKind, RAW, Version};
use cairn_store::config::Config;
use cairn_store::pin::PinMode;
use cairn_store::{Block, BlockSource, Store};
use harness::kubo::Kubo;
use harness::scenario::{self, json, lines};
use harness::{Done, Repo, http, tree, wait_until};
use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// What Kubo itself wrote, unpacked.
struct Written {
    folder: tempfile::TempDir,
    facts: Vec<(String, String)>,
}

impl Written {
    fn unpack() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kubo");
        let folder = tempfile::tempdir().unwrap();
        let packed = File::open(fixtures.join("kubo-0.43.1.tar.gz")).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed));
        archive.unpack(folder.path()).unwrap();
        let facts = fs::read_to_string(fixtures.join("facts")).unwrap();
        let facts = facts.lines().filter_map(|line| {
            let (name, fact) = line.split_once(' ')?;
            Some((name.to_owned(), fact.trim_end().to_owned()))
        });
        Self {
            facts: facts.collect(),
            folder,
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = name.to_owned();
        let of = self.facts.iter().filter(move |(fact, _)| *fact == name);
        of.map(|(_, fact)| &fact[..])
    }

    fn one(&self, name: &str) -> &str {
        self.all(name).next().unwrap()
    }
}

fn import(repo: &Repo, path: &Path, flags: &[&str]) -> Done {
    let mut line = vec!["repo", "import-kubo", "--json", path.to_str().unwrap()];
    line.extend(flags);
    repo.run(line)
}

fn told(done: &Done) -> Vec<Value> {
    lines(&done.text()).into_iter().map(json).collect()
}

/// What an import came to.
fn result(done: &Done) -> Value {
    told(done).last().unwrap()["Result"].clone()
}

/// What was not taken: kinds, things and why.
fn left(done: &Done) -> Vec<(String, String, String)> {
    let text = |line: &Value, name: &str| line["Left"][name].as_str().unwrap().to_owned();
    let left = told(done)
        .into_iter()
        .filter(|line| line["Left"].is_object());
    left.map(|line| (text(&line, "Kind"), text(&line, "What"), text(&line, "Why")))
        .collect()
}

/// The pins of a repository: their kinds and names.
fn pins(repo: &Repo) -> BTreeMap<String, (String, String)> {
    let answer = json(&repo.ok(["pin", "ls", "--names", "--json"]));
    let pins = answer["Keys"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(cid, pin)| {
            let text = |name: &str| pin[name].as_str().unwrap_or_default().to_owned();
            (cid.clone(), (text("Type"), text("Name")))
        });
    pins.filter(|(_, (kind, _))| kind != "indirect").collect()
}

fn v1(text: &str) -> String {
    cid::to_v1(&cid::parse(text).unwrap()).to_string()
}

#[test]
fn what_kubo_wrote_is_taken_over() {
    let kubo = Written::unpack();
    let before = tree::read(&kubo.path());
    scenario::both(CAIRN, |repo| {
        let done = import(repo, &kubo.path(), &[]);
        assert_eq!(left(&done), []);
        let done = done.success();
        let result = result(&done);
        assert_eq!(result["New"], kubo.all("ref").count(), "{result}");
        assert_eq!(
            (&result["Files"], &result["KeysMade"]),
            (&"taken".into(), &2.into())
        );
        assert_eq!(result["Names"], 1, "{result}");

        let here: BTreeSet<String> = lines(&repo.ok(["refs", "local"]))
            .into_iter()
            .map(v1)
            .collect();
        let by_hash = |cids: &mut dyn Iterator<Item = &str>| -> BTreeSet<Vec<u8>> {
            cids.map(|cid| cid::parse(cid).unwrap().hash().to_bytes())
                .collect()
        };
        let here = by_hash(&mut here.iter().map(String::as_str));
        assert_eq!(here, by_hash(&mut kubo.all("ref")));
        for (name, content) in [
            ("B", "a raw leaf\n"),
            ("C", "blake3\n"),
            ("C2", "blake2b-256\n"),
            ("C3", "sha3-512\n"),
            ("C4", "sha1\n"),
            ("E", "not pinned"),
            ("F", "cut"),
            ("G", "shake-256 is here"),
            ("G2", "keccak-256 is here"),
            ("G3", "dbl-sha2-256 is here"),
            ("G4", "blake2s-256 is here"),
            ("P", "to be unpinned\n"),
        ] {
            let read = repo.run(["cat", kubo.one(name)]).success();
            assert_eq!(String::from_utf8_lossy(&read.stdout), content);
        }
        let folder = kubo.one("A");
        assert_eq!(repo.ok(["cat", &format!("{folder}/hello.txt")]), "hello");
        assert_eq!(repo.ok(["cat", &format!("{folder}/x")]).len(), 700_000);
        let node = json(&repo.ok(["dag", "get", kubo.one("D")]));
        assert_eq!(node["link"]["/"], kubo.one("B"));
        let note = format!("{}/docs/deep/note.txt", kubo.one("files"));
        assert_eq!(repo.ok(["cat", &note]), "in the file tree");

        let note = repo.ok(["files", "read", "/docs/deep/note.txt"]);
        assert_eq!(note, "in the file tree");

        let theirs = kubo.all("pin").map(|pin| {
            let mut parts = pin.splitn(3, ' ');
            let mut next = || parts.next().unwrap_or_default().to_owned();
            let cid = next();
            (cid, (next(), next()))
        });
        let theirs: BTreeMap<_, _> = theirs.filter(|(_, (kind, _))| kind != "indirect").collect();
        assert_eq!(pins(repo), theirs);
        for key in kubo.all("key") {
            let (id, name) = key.split_once(' ').unwrap();
            let name = name.trim();
            let keys = repo.ok(["key", "ls", "-l"]);
            let is_here = lines(&keys).iter().any(|line| line.contains(id));
            assert_eq!(is_here, name != "self", "{keys}");
        }
        // The name that Kubo signed twice goes on behind that.
        let wish = [
            "name",
            "publish",
            "--key=site",
            "--allow-offline",
            kubo.one("B"),
        ];
        repo.ok(wish.map(|part| match part.starts_with("bafk") {
            true => format!("/ipfs/{part}"),
            false => part.to_owned(),
        }));
        let site = kubo.all("key").find(|key| key.ends_with("site")).unwrap();
        let site = site.split_once(' ').unwrap().0;
        let record = repo.run(["name", "get", site]).success().stdout;
        let shown = repo
            .run_with(["name", "inspect", "-"], &record)
            .success()
            .text();
        assert!(shown.contains("Sequence:       2\n"), "{shown}");

        // Once more changes nothing.
        let again = import(repo, &kubo.path(), &[]).success();
        let again = self::result(&again);
        assert_eq!((&again["New"], &again["PinsMade"]), (&0.into(), &0.into()));
        assert_eq!(
            (&again["KeysMade"], &again["Names"]),
            (&0.into(), &0.into())
        );
        assert_eq!(again["Files"], "there");
        let said = repo.ok(["repo", "import-kubo", kubo.path().to_str().unwrap()]);
        assert!(said.contains("nothing was changed"), "{said}");
    });
    assert!(
        tree::read(&kubo.path()) == before,
        "nothing there was written"
    );
}

#[test]
fn the_file_tree_is_kubos() {
    let (kubo, repo) = (Written::unpack(), Repo::new(CAIRN));
    import(&repo, &kubo.path(), &[]).success();
    let store = Store::open(repo.path(), &Config::default(), &mut |_| {}).unwrap();
    let root = store.files_root().unwrap();
    assert_eq!(root, cid::parse(kubo.one("files")).unwrap());
}

#[test]
fn the_identity_comes_along_only_where_that_was_asked_for() {
    let (kubo, repo) = (Written::unpack(), Repo::new(CAIRN));
    let id = || repo.ok(["id", "-f", "<id>"]);
    let own = id();
    let told_of_it = |done: &Done| done.text().contains("not taken over without --identity");
    assert!(told_of_it(&import(&repo, &kubo.path(), &[]).success()));
    assert_eq!(id(), own);
    let daemon = repo.daemon();
    let refused = import(&repo, &kubo.path(), &["--identity"]).failure(1);
    assert!(refused.contains("cairn shutdown"), "{refused}");
    daemon.stop();
    assert_eq!(id(), own);
    let done = import(&repo, &kubo.path(), &["--identity"]).success();
    assert!(!told_of_it(&done) && done.text().contains("must not run again"));
    assert_eq!(result(&done)["Names"], 1, "its own name");
    assert_eq!(id(), kubo.one("id"));
    assert!(repo.path().join("identity.key.before").exists());
    // What was set aside is of another key: that is told before any block is read.
    let other = Repo::new(CAIRN);
    let aside = other.path().join("identity.key.before");
    fs::write(&aside, "of before").unwrap();
    let refused = import(&other, &kubo.path(), &["--identity"]);
    assert!(
        refused.stderr.contains("identity.key.before"),
        "{}",
        refused.stderr
    );
    assert_eq!((refused.code, &refused.text()[..]), (Some(1), ""));
    assert_eq!(other.ok(["refs", "local"]), "");
    // As that it starts.
    let daemon = repo.daemon();
    assert!(daemon.swarm().ends_with(kubo.one("id")));
    daemon.stop();
    import(&repo, &kubo.path(), &["--identity"]).success();
    assert_eq!(id(), kubo.one("id"));
}

#[test]
fn settings_are_shown_and_written_only_where_that_was_asked_for() {
    let (kubo, repo) = (Written::unpack(), Repo::new(CAIRN));
    let path = kubo.path().join("config");
    let mut config = json(&fs::read_to_string(&path).unwrap());
    config["Swarm"]["ConnMgr"]["LowWater"] = 11.into();
    config["Addresses"]["Swarm"] = serde_json::json!(["/ip4/0.0.0.0/tcp/4001"]);
    config["Addresses"]["Gateway"] =
        serde_json::json!(["/ip4/0.0.0.0/tcp/8080", "/ip6/::/tcp/8080"]);
    config["Experimental"]["FilestoreEnabled"] = true.into();
    fs::write(&path, config.to_string()).unwrap();
    let get = || repo.ok(["config", "get", "connections.low"]);
    let gateway = || repo.ok(["config", "get", "addresses.gateway"]);
    let gateway_before = gateway();
    let said = repo.ok(["repo", "import-kubo", kubo.path().to_str().unwrap()]);
    let row = |text: &str| {
        let row = lines(&said).into_iter().find(|line| line.contains(text));
        row.unwrap_or_else(|| panic!("{text} in {said}")).to_owned()
    };
    assert!(
        row("LowWater").contains("cairn config connections.low '11'"),
        "{said}"
    );
    assert!(row("Addresses.Swarm").contains("not as it is"), "{said}");
    let of_gateway = row("Addresses.Gateway");
    for part in [
        "not as it is",
        "without /ip6/::/tcp/8080",
        "network = \"local\"",
    ] {
        assert!(of_gateway.contains(part), "{of_gateway}");
    }
    assert!(row("FilestoreEnabled").contains("no counterpart"), "{said}");
    assert!(!said.contains("PrivKey"), "{said}");
    assert_eq!(get(), "64");
    let done = import(&repo, &kubo.path(), &["--config"]).success();
    assert!(done.text().contains(r#""State":"written""#));
    assert_eq!(result(&done)["Changed"], true);
    assert_eq!(get(), "11");
    assert_eq!(gateway(), gateway_before);
    assert_eq!(
        result(&import(&repo, &kubo.path(), &["--config"]).success())["Changed"],
        false
    );
}

#[test]
fn what_is_no_repository_or_in_use_is_refused() {
    let kubo = Written::unpack();
    let empty = tempfile::tempdir().unwrap();
    scenario::both(CAIRN, |repo| {
        let refused = import(repo, empty.path(), &[]).failure(1);
        assert!(refused.contains("is no Kubo repository"), "{refused}");
        let refused = import(repo, &empty.path().join("absent"), &[]).failure(1);
        assert!(refused.contains("no such folder"), "{refused}");
        let lock = File::create(kubo.path().join("repo.lock")).unwrap();
        fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let refused = import(repo, &kubo.path(), &[]).failure(1);
        assert!(
            refused.contains("stop it with `ipfs shutdown`"),
            "{refused}"
        );
        drop(lock);
        import(repo, &kubo.path(), &[]).success();
    });
    let repo = Repo::new(CAIRN);
    let daemon = repo.daemon();
    let target = "/api/v0/repo/import-kubo?arg=relative";
    let answer = http::request(daemon.rpc(), "POST", target, &[], b"").unwrap();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("absolute path"), "{}", answer.text());
}

/// A block that nobody has.
fn lost(text: &str) -> Block {
    let prefix = cairn_store::block::Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, text.as_bytes().to_vec().into()).unwrap()
}

/// Kills an import that has written more than it commits at once; whether it was in time.
fn kill_half_way(repo: &Repo, kubo: &Kubo) -> bool {
    let written = || {
        let segments = fs::read_dir(repo.path().join("blocks"))
            .into_iter()
            .flatten();
        let lengths = segments
            .flatten()
            .filter_map(|file| Some(file.metadata().ok()?.len()));
        lengths.sum::<u64>()
    };
    let line = ["repo", "import-kubo", kubo.path().to_str().unwrap()];
    let mut child: Child = repo.command(line).spawn().unwrap();
    wait_until("more than one commit's blocks", || {
        written() > COMMITTED_TOGETHER || child.try_wait().unwrap().is_some()
    });
    child.kill().unwrap();
    let status = child.wait().unwrap();
    status.signal() == Some(9)
}

/// 128 MiB, of which the first are durable before the second are all written, and what is put in one go.
const COMMITTED_TOGETHER: u64 = (2 * 128 + 12) << 20;

#[test]
fn every_good_block_and_pin_of_a_large_one_arrives_although_it_was_killed_and_every_bad_one_is_named()
 {
    let mut kubo = Kubo::new();
    kubo.fill(10_000, 28_000);
    assert!(kubo.good.len() > 10_000);
    // Pins: direct, of both versions, gone, broken, and of nothing that is known.
    let direct = *kubo.good.keys().next().unwrap();
    kubo.pin(&direct, 1, "alone");
    let gone = lost("gone");
    let broken = lost("broken");
    kubo.pin(broken.cid(), 0, "broken");
    kubo.record(
        "/pins/pin/ffffffff-0000-4000-8000-000000000000",
        Some(b"junk".to_vec()),
    );
    kubo.record("/pins/pin/gone", Some(gone.cid().to_bytes()));
    kubo.record("/pins/pin/gone", None);
    kubo.record("/pins/index/cidRindex/x/y", Some(Vec::new()));
    kubo.record("/providers/CIQ", Some(b"of no concern".to_vec()));
    for at in 0..300 {
        let block = lost(&format!("spoiled {at}"));
        let file = kubo.file(block.cid());
        match at % 3 {
            0 => kubo.spoil(file, b"", "it is empty"),
            1 => kubo.spoil(file, b"other bytes", "do not hash to it"),
            _ => kubo.spoil(file.with_extension("tmp"), b"", "not a name of a block"),
        }
    }
    let blocks = kubo.path().join("blocks");
    fs::create_dir(blocks.join(".temp")).unwrap();
    for at in 0..20 {
        let name = blocks.join(format!(".temp/temp-{at}"));
        kubo.spoil(name, b"half", "not finished");
    }
    let large = kubo.file(lost("large").cid());
    kubo.spoil(large, &vec![0; (2 << 20) + 1], "larger than");
    kubo.write_records();

    let mut tries = 0;
    let repo = loop {
        let repo = Repo::new(CAIRN);
        if kill_half_way(&repo, &kubo) {
            break repo;
        }
        tries += 1;
        assert!(tries < 10, "it is always done before it can be killed");
    };
    let done = import(&repo, kubo.path(), &[]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(
        done.stderr.contains("could not be taken over"),
        "{}",
        done.stderr
    );
    let outcome = result(&done);
    let count = |result: &Value, name: &str| result[name].as_u64().unwrap();
    assert!(
        count(&outcome, "There") > 0,
        "what was committed is not read again: {outcome}"
    );
    let all = count(&outcome, "There") + count(&outcome, "New");
    assert_eq!(all, kubo.good.len() as u64);
    let left = left(&done);
    let files: BTreeMap<PathBuf, &str> = left
        .iter()
        .filter(|(kind, ..)| kind == "file")
        .map(|(_, what, why)| (PathBuf::from(what), &why[..]))
        .collect();
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        kubo.bad.keys().collect::<Vec<_>>()
    );
    for (path, why) in files {
        assert!(why.contains(kubo.bad[&path]), "{}: {why}", path.display());
    }
    let others: Vec<_> = left.iter().filter(|(kind, ..)| kind != "file").collect();
    assert_eq!(others.len(), 2, "{others:?}");
    assert!(
        others[0].0 == "record" && others[0].2.contains("ffffffff"),
        "{others:?}"
    );
    assert!(
        others[1].0 == "pin" && others[1].1 == broken.cid().to_string(),
        "{others:?}"
    );

    let store = Store::open(repo.path(), &Config::default(), &mut |_| {}).unwrap();
    assert_eq!(store.stat().blocks, kubo.good.len() as u64);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (cid, bytes) in &kubo.good {
        let block = runtime.block_on(store.block(cid)).unwrap();
        assert_eq!(
            block.map(|block| block.data().len() as u64),
            Some(*bytes),
            "{cid}"
        );
    }
    let pin = store.pin(&direct).unwrap();
    assert_eq!(
        (pin.mode, pin.name.as_deref()),
        (PinMode::Direct, Some("alone"))
    );
    let named = |name: &str| {
        let pins = store.pins();
        pins.into_iter()
            .filter(|pin| pin.name.as_deref() == Some(name))
            .count()
    };
    assert_eq!(
        (named("some name"), named("a file"), named("broken")),
        (25, 40, 0)
    );
    assert_eq!(store.pins().len(), 100 + 40 + 1);
    let disk = store.stat().disk_bytes;
    runtime.block_on(store.close()).unwrap();
    drop(store);

    let again = import(&repo, kubo.path(), &[]);
    assert_eq!(again.code, Some(1));
    let outcome = result(&again);
    assert_eq!(
        (count(&outcome, "New"), count(&outcome, "PinsMade")),
        (0, 0)
    );
    assert_eq!(count(&outcome, "There"), kubo.good.len() as u64);
    let store = Store::open(repo.path(), &Config::default(), &mut |_| {}).unwrap();
    assert_eq!(store.stat().disk_bytes, disk);
    runtime.block_on(store.close()).unwrap();
    drop(store);
    repo.run(["repo", "verify"]).success();
    repo.run(["pin", "verify"]).success();
}

#[test]
fn blocks_come_over_where_pins_cannot_be_read() {
    let mut kubo = Kubo::new();
    kubo.fill(100, 1000);
    let path = kubo.path().join("config");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("levelds", "pebbleds")).unwrap();
    let repo = Repo::new(CAIRN);
    let done = import(&repo, kubo.path(), &[]);
    assert_eq!(done.code, Some(1));
    let outcome = result(&done);
    assert_eq!(outcome["New"], kubo.good.len());
    assert_eq!(
        (&outcome["Files"], &outcome["RecordsLost"]),
        (&"unknown".into(), &true.into())
    );
    assert!(
        done.text().contains("no folder `keystore`"),
        "{}",
        done.text()
    );
    let left = left(&done);
    assert!(
        left.len() == 1 && left[0].2.contains("pebbleds"),
        "{left:?}"
    );
    let cid: &Cid = kubo.good.keys().next().unwrap();
    repo.run(["block", "get", &cid.to_string()]).success();
}
