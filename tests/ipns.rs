//! Names of keys, with real nodes: published, resolved, kept alive by others, followed by pins; and numbers that never
//! begin anew, whenever the one who signs is killed.

use harness::{Daemon, Repo, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// The name of a repository's node.
fn own_name(repo: &Repo) -> String {
    let keys = repo.ok(["key", "ls", "-l"]);
    let own = keys.lines().find(|line| line.ends_with(" self")).unwrap();
    own.split(' ').next().unwrap().to_owned()
}

fn added(repo: &Repo, bytes: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, bytes).unwrap();
    repo.ok(["add", "-Q", path.to_str().unwrap()])
}

/// The same node under another program, which has the same ports.
fn connect(from: &Repo, to: &Daemon) {
    from.ok(["swarm", "connect", &to.swarm()]);
}

#[test]
fn what_one_publishes_another_resolves_and_while_its_owner_is_away() {
    let (owner, reader, late) = (Repo::new(CAIRN), Repo::new(CAIRN), Repo::new(CAIRN));
    let (publishing, reading) = (owner.daemon(), reader.daemon());
    let cid = added(&owner, "first");
    let other = added(&owner, "second");
    let name = own_name(&owner);
    let path = format!("/ipfs/{cid}");
    // Alone there is nobody who could say what numbers the name has had, or keep it.
    let alone = owner.run(["name", "publish", &path]).failure(1);
    assert!(
        alone.contains("no peers") && alone.contains("--allow-offline"),
        "{alone}"
    );
    assert!(owner.run(["name", "get", &name]).failure(1).contains(&name));
    connect(&reader, &publishing);
    // One daemon hears of the other's DHT a moment after the connection.
    wait_until("somebody who takes a record", || {
        let told = owner.run(["name", "publish", &path]);
        told.code == Some(0) && told.text() == format!("Published to {name}: {path}")
    });
    for form in [name.clone(), format!("/ipns/{name}")] {
        assert_eq!(reader.ok(["name", "resolve", &form]), path);
    }
    assert_eq!(owner.ok(["name", "resolve"]), path);
    assert_eq!(reader.ok(["cat", &format!("/ipns/{name}")]), "first");
    // Through a key of its own, whose name leads to the node's.
    let site = owner.ok(["key", "gen", "--type=secp256k1", "site"]);
    let through = format!("/ipns/{name}");
    owner.ok(["name", "publish", "--key=site", "-Q", &through]);
    assert_eq!(reader.ok(["name", "resolve", "-r=false", &site]), through);
    assert_eq!(reader.ok(["name", "resolve", &site]), path);
    assert_eq!(reader.ok(["resolve", &format!("/ipns/{site}")]), path);
    // What is known is told at once; who wants the newest asks for it.
    owner.ok(["name", "publish", &format!("/ipfs/{other}")]);
    let newest = reader.ok(["name", "resolve", "--nocache", &name]);
    assert_eq!(newest, format!("/ipfs/{other}"));
    assert_eq!(reader.ok(["cat", &through]), "second");
    publishing.kill();
    assert_eq!(reader.ok(["name", "resolve", "--nocache", &name]), newest);
    // Others keep it for whoever comes.
    let _late = late.daemon();
    connect(&late, &reading);
    wait_until("a record that others keep", || {
        let resolved = late.run(["name", "resolve", &name]);
        resolved.code == Some(0) && resolved.text() == newest
    });
}

#[test]
fn a_record_goes_from_hand_to_hand_as_it_is() {
    let (owner, reader) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let folder = tempfile::tempdir().unwrap();
    let name = own_name(&owner);
    let cid = "bafkqaaa";
    let lonely = owner
        .run(["name", "publish", &format!("/ipfs/{cid}")])
        .failure(1);
    assert!(lonely.contains("--allow-offline"), "{lonely}");
    let options = ["--allow-offline", "--ttl=1h", "--lifetime=100h"];
    let publish = ["name", "publish", "-Q", cid].into_iter().chain(options);
    assert_eq!(owner.ok(publish), name);
    let record = owner.run(["name", "get", &name]).success().stdout;
    let file = folder.path().join("record");
    fs::write(&file, &record).unwrap();
    let file = file.to_str().unwrap();
    let told = owner.ok(["name", "inspect", &format!("--verify={name}"), file]);
    for line in [
        format!("Value:          /ipfs/{cid}"),
        "Sequence:       0".to_owned(),
        "TTL:            3600s".to_owned(),
        "Signature Type: V1+V2".to_owned(),
        "Valid:          true".to_owned(),
    ] {
        assert!(told.lines().any(|told| told == line), "{line} in {told}");
    }
    let _reading = reader.daemon();
    let unknown = reader.run(["name", "get", &name]).failure(1);
    assert!(unknown.contains(&name), "{unknown}");
    reader.ok(["name", "put", "--allow-offline", &name, file]);
    assert_eq!(reader.run(["name", "get", &name]).success().stdout, record);
    assert_eq!(
        reader.ok(["name", "resolve", &name]),
        format!("/ipfs/{cid}")
    );
    // Nobody takes it for another name's, nor with a bit of it changed.
    let stranger = own_name(&reader);
    let put = ["name", "put", "--allow-offline", &stranger, file];
    let refused = reader.run(put).failure(1);
    assert!(refused.contains("not a record of this name"), "{refused}");
    let mut changed = record;
    *changed.last_mut().unwrap() ^= 1;
    let put = ["name", "put", "--allow-offline", &name, "-"];
    let refused = reader.run_with(put, &changed).failure(1);
    assert!(refused.contains("not a record of this name"), "{refused}");
}

/// Gives the number of a record, and what it says.
fn inspected(repo: &Repo, record: &[u8]) -> (u64, String) {
    let told = repo
        .run_with(["name", "inspect", "-"], record)
        .success()
        .text();
    let field = |name: &str| {
        let line = told.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    (field("Sequence:").parse().unwrap(), field("Value:"))
}

/// Killed in the midst of publishing, again and again: no record that anybody ever got has another one's number, no
/// acknowledged one is forgotten, and the next one is above all.
#[test]
fn numbers_go_up_and_are_never_used_twice_whenever_who_signs_is_killed() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (owner, witness) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let watching = witness.daemon();
    let name = own_name(&owner);
    let (acknowledged, tried) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut seen: HashMap<u64, Vec<u8>> = HashMap::new();
    let mut highest = None;
    for cycle in 0..KILLS {
        let publishing = owner.daemon();
        connect(&owner, &watching);
        let stop_at = acknowledged.load(Ordering::SeqCst) + random.random_range(1..12);
        let rpc = publishing.rpc();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let value = tried.fetch_add(1, Ordering::SeqCst);
                        let target = format!(
                            "/api/v0/name/publish?arg=/ipfs/bafkqaaa/{value}&resolve=false&allow-offline=true"
                        );
                        match harness::http::request(rpc, "POST", &target, &[], b"") {
                            Ok(answer) if answer.status == 200 => {
                                acknowledged.fetch_add(1, Ordering::SeqCst);
                            }
                            // Killed.
                            _ => return,
                        }
                    }
                });
            }
            while acknowledged.load(Ordering::SeqCst) < stop_at {
                thread::yield_now();
            }
            publishing.kill();
        });
        let again = owner.daemon();
        let mut records = vec![owner.run(["name", "get", &name]).success().stdout];
        let told = witness.run(["name", "get", &name]);
        if told.code == Some(0) {
            records.push(told.stdout);
        }
        let own = inspected(&owner, &records[0]).0;
        for record in records {
            let (number, value) = inspected(&owner, &record);
            assert!(
                number <= own,
                "cycle {cycle}: {number} was told, {own} is known"
            );
            assert!(value.starts_with("/ipfs/bafkqaaa/"), "{value}");
            let before = seen.insert(number, record.clone());
            assert!(
                before.is_none_or(|before| before == record),
                "cycle {cycle}: two records have the number {number}"
            );
        }
        let acknowledged = acknowledged.load(Ordering::SeqCst);
        assert!(
            own + 1 >= acknowledged,
            "cycle {cycle}: {acknowledged} were acknowledged, the last number is {own}"
        );
        assert!(highest.is_none_or(|highest| own >= highest));
        highest = Some(own);
        again.kill();
    }
    assert!(seen.len() > 1 && acknowledged.load(Ordering::SeqCst) >= KILLS);
}

#[test]
fn a_name_outlives_its_owner_where_somebody_keeps_it_alive() {
    let (owner, keeper) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let name = own_name(&owner);
    let cid = added(&owner, "kept");
    let path = format!("/ipfs/{cid}");
    let keeping = keeper.daemon();
    let unknown = keeper.run(["name", "keep", &name]).failure(1);
    assert!(unknown.contains(&name), "{unknown}");
    assert_eq!(keeper.ok(["name", "kept"]), "");
    {
        let publishing = owner.daemon();
        connect(&keeper, &publishing);
        wait_until("somebody who takes a record", || {
            owner.run(["name", "publish", &path]).code == Some(0)
        });
        let kept = keeper.ok(["name", "keep", &name]);
        assert!(
            kept.starts_with(&format!("{name} {path} until 20")),
            "{kept}"
        );
        let own = owner.run(["name", "keep", &name]).failure(1);
        assert!(own.contains("published from here"), "{own}");
    }
    keeping.kill();
    // Without a daemon, and with one that knows nobody.
    assert_eq!(keeper.ok(["name", "resolve", &name]), path);
    let _keeping = keeper.daemon();
    assert_eq!(keeper.ok(["name", "resolve", &name]), path);
    assert!(keeper.ok(["name", "kept"]).starts_with(&name));
    keeper.ok(["name", "unkeep", &name]);
    assert_eq!(keeper.ok(["name", "kept"]), "");
    let gone = keeper.run(["name", "unkeep", &name]).failure(1);
    assert!(gone.contains("not kept alive"), "{gone}");
}

#[test]
fn a_pin_follows_a_name() {
    let (owner, follower) = (Repo::new(CAIRN), Repo::new(CAIRN));
    let (publishing, following) = (owner.daemon(), follower.daemon());
    connect(&follower, &publishing);
    let (first, second) = (added(&owner, "first"), added(&owner, "second"));
    let name = own_name(&owner);
    let path = format!("/ipns/{name}");
    wait_until("somebody who takes a record", || {
        owner.run(["name", "publish", &first]).code == Some(0)
    });
    let content = follower
        .run(["pin", "add", "--follow", &format!("/ipfs/{first}")])
        .failure(1);
    assert!(content.contains("never changes"), "{content}");
    let pinned = follower.ok(["pin", "add", "--follow", "--grace=1h", &path]);
    assert_eq!(pinned, format!("pinned {first} recursively"));
    let pins = follower.ok(["pin", "ls", "--names"]);
    assert_eq!(pins, format!("{first} recursive {path}"));
    let refused = follower.run(["pin", "rm", &first]).failure(1);
    assert!(refused.contains("pin unfollow"), "{refused}");
    owner.ok(["name", "publish", &second]);
    // At once, as it is asked for.
    following.call(
        "pin/add",
        &format!("arg={path}&follow=true&nocache=true&grace=1h"),
    );
    let followed = follower.ok(["pin", "followed"]);
    let mut lines = followed.lines();
    let line = lines.next().unwrap();
    assert!(
        line.starts_with(&format!("{path} {second}, next look in ")),
        "{line}"
    );
    let before = lines.next().unwrap();
    assert!(
        before.starts_with(&format!("  before: {first} for ")),
        "{before}"
    );
    assert_eq!(follower.ok(["cat", &second]), "second");
    // It moves once more: the follower has the record and the block, and is stopped before it looks.
    let third = added(&owner, "third");
    owner.ok(["name", "publish", &third]);
    assert_eq!(follower.ok(["cat", &third]), "third");
    let newest = follower.ok(["name", "resolve", "--nocache", &name]);
    assert_eq!(newest, format!("/ipfs/{third}"));
    follower.ok(["name", "keep", &name]);
    publishing.kill();
    following.kill();
    // It is followed after a restart, and no longer when that is asked for.
    let _following = follower.daemon();
    wait_until("a look at it", || {
        follower
            .ok(["pin", "followed"])
            .starts_with(&format!("{path} {third}, next look in "))
    });
    let pins = follower.ok(["pin", "ls", "--names"]);
    assert!(
        pins.contains(&format!("{third} recursive {path}")),
        "{pins}"
    );
    // Nor does another command unpin it.
    let refused = follower.run(["pin", "update", &third, &first]).failure(1);
    assert!(refused.contains("pin unfollow"), "{refused}");
    let ended = follower.ok(["pin", "unfollow", &path]);
    assert_eq!(ended, format!("{third} stays pinned"));
    assert_eq!(follower.ok(["pin", "followed"]), "");
    follower.ok(["pin", "rm", &third]);
    let again = follower.run(["pin", "unfollow", &path]).failure(1);
    assert!(again.contains("is not followed"), "{again}");
}

/// How often the one who signs is killed.
const KILLS: u64 = 10;
