//! Where the machine gives no more: a full disk, one that cannot be written, few descriptors, a wrong
//! clock. What was acknowledged stays, what only reads goes on, and the rest is told in one line.

use cairn_store::block::Prefix;
use cairn_store::cid::{HashKind, RAW, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::sink::BlockSink;
use cairn_store::store::Keep;
use cairn_store::{Block, Store};
use harness::{Daemon, Done, Mounts, Repo, http, tree, wait_until};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");

/// A small file system of a test's own.
struct SmallDisk {
    mounts: Mounts,
    point: TempDir,
}

impl SmallDisk {
    fn new() -> Option<Self> {
        let mut mounts = Mounts::new()?;
        let point = tempfile::tempdir().unwrap();
        let path = point.path().display();
        mounts.run(&format!("mount -t tmpfs -o size={DISK_BYTES} none {path}"));
        Some(Self { mounts, point })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.mounts.path(&self.point.path().join(name))
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path("")).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Fills the disk to the last byte with a file that is not the repository's.
    fn fill(&self) {
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .open(self.path(FOREIGN))
            .unwrap();
        let zeros = [0; 64 << 10];
        for length in [zeros.len(), 4 << 10, 1] {
            loop {
                match file.write(&zeros[..length]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert_eq!(self.free(), 0);
    }

    /// The same, but for about `left` bytes.
    fn fill_but(&self, left: u64) {
        self.fill();
        let file = OpenOptions::new().write(true).open(self.path(FOREIGN));
        let file = file.unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(left)).unwrap();
    }

    fn unfill(&self) {
        fs::remove_file(self.path(FOREIGN)).unwrap();
    }

    /// A repository on the disk, with segments small enough that a few fit.
    fn repo(&self, reserve: u64) -> Repo {
        let repo = Repo::new_at(CAIRN, &self.path("repo"));
        repo.ok(["config", "set", "storage.segment_size", "8MiB"]);
        repo.ok(["config", "set", "storage.reserve", &reserve.to_string()]);
        repo
    }
}

/// What was acknowledged: content by CID.
type Acknowledged = BTreeMap<String, Vec<u8>>;

/// Whether what is added is pinned.
#[derive(Clone, Copy)]
enum Kept {
    Pinned,
    Garbage,
}

fn add(repo: &Repo, content: &[u8], kept: Kept) -> Done {
    let pin = match kept {
        Kept::Pinned => "--pin=true",
        Kept::Garbage => "--pin=false",
    };
    repo.run_with(["add", "-Q", pin], content)
}

/// Adds files of `FILE_BYTES`, every other one unpinned; gives the pinned and the others.
fn add_some(repo: &Repo, seeds: std::ops::Range<u64>) -> (Acknowledged, Acknowledged) {
    let (mut pinned, mut garbage) = (Acknowledged::new(), Acknowledged::new());
    for seed in seeds {
        let content = tree::bytes(seed, FILE_BYTES);
        let (kept, into) = match seed % 2 {
            0 => (Kept::Pinned, &mut pinned),
            _ => (Kept::Garbage, &mut garbage),
        };
        let cid = add(repo, &content, kept).success().text();
        into.insert(cid, content);
    }
    (pinned, garbage)
}

#[track_caller]
fn is_all_there(repo: &Repo, acknowledged: &Acknowledged) {
    assert!(!acknowledged.is_empty());
    for (cid, content) in acknowledged {
        let read = repo.run(["cat", cid]).success();
        assert!(read.stdout == *content, "{cid} reads as something else");
    }
}

/// A command failed because nothing is free, and says so in one line with what to do.
#[track_caller]
fn is_refused_for_room(done: Done) {
    let told = done.failure(1);
    let error = told.lines().last().unwrap_or_default();
    let count = told.matches("Error:").count();
    assert!(
        count == 1
            && error.starts_with("Error: no space left in the repository")
            && error.contains("cairn repo gc"),
        "{told}"
    );
}

#[track_caller]
fn is_in_order(repo: &Repo) {
    let told = repo.ok(["repo", "verify"]);
    assert_eq!(told, "verify complete, all blocks validated.");
}

#[test]
fn a_reserve_stops_adds_before_the_disk_is_full_and_collecting_makes_room_again() {
    let Some(disk) = SmallDisk::new() else { return };
    let repo = disk.repo(RESERVE);
    let (mut pinned, mut garbage) = (Acknowledged::new(), Acknowledged::new());
    let refused = (0..DISK_BYTES / FILE_BYTES as u64).find_map(|seed| {
        let content = tree::bytes(seed, FILE_BYTES);
        let (kept, into) = match seed % 2 {
            0 => (Kept::Pinned, &mut pinned),
            _ => (Kept::Garbage, &mut garbage),
        };
        let done = add(&repo, &content, kept);
        if done.code != Some(0) {
            return Some(done);
        }
        into.insert(done.text(), content);
        None
    });
    let refused = refused.expect("the reserve to be reached");
    assert!(refused.stderr.contains("storage.reserve"), "{refused:?}");
    is_refused_for_room(refused);
    let free = disk.free();
    assert!(free > RESERVE / 2, "{free} bytes are left of the reserve");
    is_all_there(&repo, &pinned);
    is_all_there(&repo, &garbage);

    disk.fill();
    let ballast = repo.path().join("ballast");
    let lent = fs::metadata(&ballast).map_or(0, |data| data.len());
    let removed = repo.ok(["repo", "gc"]);
    for cid in garbage.keys() {
        assert!(removed.contains(cid), "{removed}");
    }
    assert!(!ballast.exists(), "there is no room for it");
    let unpinned = (garbage.len() * FILE_BYTES) as u64;
    let given_back = disk.free().saturating_sub(lent);
    assert!(
        given_back > unpinned / 2,
        "{given_back} of {unpinned} bytes were given back"
    );
    disk.unfill();
    is_all_there(&repo, &pinned);
    is_in_order(&repo);
    let (more, _) = add_some(&repo, 1000..1004);
    is_all_there(&repo, &more);
}

#[test]
fn a_disk_that_others_filled_to_the_last_byte_is_read_and_collected_and_loses_nothing() {
    let Some(disk) = SmallDisk::new() else { return };
    let repo = disk.repo(0);
    let (pinned, garbage) = add_some(&repo, 0..12);
    let ballast = repo.path().join("ballast");
    assert!(ballast.exists());
    disk.fill();
    let new = tree::bytes(100, FILE_BYTES);
    is_refused_for_room(add(&repo, &new, Kept::Pinned));
    disk.fill_but(FILE_BYTES as u64 / 2);
    is_refused_for_room(add(&repo, &new, Kept::Pinned));
    disk.fill();
    is_all_there(&repo, &pinned);
    is_all_there(&repo, &garbage);
    assert!(repo.ok(["repo", "stat"]).contains("RepoSize:"));
    is_in_order(&repo);
    for cid in pinned.keys() {
        assert!(repo.ok(["pin", "ls", "--type=recursive"]).contains(cid));
    }
    assert_eq!(disk.free(), 0, "reading gave room away");

    let removed = repo.ok(["repo", "gc"]);
    for cid in garbage.keys() {
        assert!(removed.contains(cid), "{removed}");
    }
    assert!(disk.free() > 0, "nothing was given back");
    disk.fill();
    // Once more, with the ballast gone.
    assert!(!ballast.exists());
    is_all_there(&repo, &pinned);
    is_in_order(&repo);
    repo.ok(["repo", "stat"]);
    repo.ok(["repo", "gc"]);
    is_refused_for_room(add(&repo, &new, Kept::Pinned));

    disk.unfill();
    is_all_there(&repo, &pinned);
    let cid = add(&repo, &new, Kept::Pinned).success().text();
    is_all_there(&repo, &BTreeMap::from([(cid, new)]));
    is_in_order(&repo);
}

#[test]
fn a_collection_without_room_to_compact_says_so_once_however_it_is_asked() {
    let Some(disk) = SmallDisk::new() else { return };
    for through_daemon in [false, true] {
        let repo = disk.repo(0);
        let (pinned, garbage) = add_some(&repo, 0..12);
        let daemon = through_daemon.then(|| repo.daemon());
        disk.fill();
        fs::remove_file(repo.path().join("ballast")).unwrap();
        // Enough for the journal and the index, too little for the copy of a segment.
        disk.fill_but(5 << 20);
        let done = repo.run(["repo", "gc"]).success();
        for cid in garbage.keys() {
            assert!(done.text().contains(cid), "{done:?}");
        }
        let sentence =
            "too little space is free to compact the rest; free some, then collect again";
        assert_eq!(done.stderr.trim_end(), format!("warning: {sentence}"));
        is_all_there(&repo, &pinned);
        disk.unfill();
        // With room it has nothing more to say.
        assert_eq!(repo.run(["repo", "gc"]).success().stderr, "");
        drop(daemon);
        fs::remove_dir_all(repo.path()).unwrap();
    }
}

#[test]
fn what_is_pinned_can_be_given_up_with_nothing_free() {
    let Some(disk) = SmallDisk::new() else { return };
    let repo = disk.repo(0);
    let (pinned, _) = add_some(&repo, 0..6);
    disk.fill();
    let mut cids = pinned.keys();
    let gone = cids.next().unwrap();
    repo.ok(["pin", "rm", gone]);
    let removed = repo.ok(["repo", "gc"]);
    assert!(removed.contains(gone.as_str()), "{removed}");
    let stays = cids.map(|cid| (cid.clone(), pinned[cid].clone()));
    is_all_there(&repo, &stays.collect());
}

#[test]
fn a_daemon_starts_on_a_full_disk() {
    let Some(disk) = SmallDisk::new() else { return };
    let repo = disk.repo(0);
    let (pinned, _) = add_some(&repo, 0..3);
    disk.fill();
    let daemon = repo.daemon();
    is_all_there(&repo, &pinned);
    is_in_order(&repo);
    drop(daemon);
}

#[test]
fn a_daemon_on_a_full_disk_serves_refuses_to_add_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::new() else { return };
    let repo = disk.repo(0);
    let (mut pinned, garbage) = add_some(&repo, 0..6);
    let daemon = repo.daemon();
    let serves = |all: &Acknowledged| {
        for (cid, content) in all {
            let answer = daemon.get(&format!("/ipfs/{cid}"), &[]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.body == *content, "{cid} is served as something else");
        }
    };
    // What is on its way when the disk becomes full.
    let (more, _) = add_some(&repo, 200..202);
    pinned.extend(more);
    disk.fill();
    for (seed, left) in (300..).zip([0, 1, 5, 100, 260, 1000, 1400]) {
        // It ends before the content is in, wherever that is.
        disk.fill_but(left * 4096);
        let new = tree::bytes(seed, 6_000_000);
        is_refused_for_room(add(&repo, &new, Kept::Pinned));
        disk.fill();
        serves(&pinned);
    }
    serves(&garbage);
    is_in_order(&repo);
    repo.ok(["repo", "stat"]);
    let removed = repo.ok(["repo", "gc"]);
    for cid in garbage.keys() {
        assert!(removed.contains(cid), "{removed}");
    }
    disk.fill();
    serves(&pinned);
    disk.unfill();
    let (more, _) = add_some(&repo, 400..402);
    pinned.extend(more);
    serves(&pinned);
    assert!(daemon.stop().0.success());
    is_all_there(&repo, &pinned);
    is_in_order(&repo);
}

#[test]
fn a_killed_repository_that_cannot_be_written_any_more_is_read_as_it_lies_there() {
    let Some(mut mounts) = Mounts::new() else {
        return;
    };
    let repo = Repo::new(CAIRN);
    let (pinned, garbage) = add_some(&repo, 0..4);
    let all: Acknowledged = pinned.into_iter().chain(garbage).collect();
    {
        let daemon = repo.daemon();
        add(&repo, b"in time", Kept::Pinned).success();
        daemon.kill();
    }
    // What a crash may leave: no index, and ends that were never acknowledged.
    fs::remove_dir_all(repo.path().join("index")).unwrap();
    for file in ["journal/journal.log", "blocks/leaf-000001.car"] {
        let path = repo.path().join(file);
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(&tree::bytes(7, 1000)).unwrap();
    }
    let path = repo.path().display();
    mounts.run(&format!(
        "mount --bind {path} {path} && mount -o remount,ro,bind {path}"
    ));
    let sealed = repo.at(&mounts.path(repo.path()));
    let before = tree::read(repo.path());
    let probe = File::create(sealed.path().join("probe")).unwrap_err();
    assert_eq!(probe.kind(), ErrorKind::ReadOnlyFilesystem);

    // One line tells that it is read-only, one what was found; nothing was tried that had to fail.
    let reads = |arguments: &[&str]| {
        let done = sealed.run(arguments).success();
        let told: Vec<&str> = done.stderr.lines().collect();
        assert!(
            told.len() <= 2 && told[0].contains("it is opened for reading alone"),
            "{arguments:?}: {told:#?}"
        );
        assert!(
            told[1..]
                .iter()
                .all(|line| line.contains("journal.log: the last 1000 bytes")),
            "{arguments:?}: {told:#?}"
        );
        done
    };
    for (cid, content) in &all {
        assert!(reads(&["cat", cid]).stdout == *content);
        let listed = reads(&["ls", cid]).text();
        let leaf = listed.split_whitespace().next().unwrap().to_owned();
        assert!(content.starts_with(&reads(&["block", "get", &leaf]).stdout));
        let pins = reads(&["pin", "ls", "--type=recursive"]).text();
        assert_eq!(pins.lines().count(), 3, "{pins}");
    }
    let stat = reads(&["repo", "stat"]).text();
    assert!(stat.contains("NumObjects:"), "{stat}");
    let verified = reads(&["repo", "verify"]).text();
    assert_eq!(verified, "verify complete, all blocks validated.");
    let (cid, content) = all.first_key_value().unwrap();
    let told = add(&sealed, b"new", Kept::Pinned).failure(1);
    is_refused_as_read_only(&told);
    for writes in [
        &["pin", "add", cid][..],
        &["pin", "rm", cid],
        &["repo", "gc"],
    ] {
        is_refused_as_read_only(&sealed.run(writes).failure(1));
    }

    let daemon = sealed.daemon();
    let gateway = listening(&daemon, "Gateway server listening on ");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let answer = http::request(gateway, "GET", &format!("/ipfs/{cid}"), &[], b"");
                assert!(answer.unwrap().body == *content);
            });
        }
    });
    // Who only reads is in nobody's way.
    assert!(reads(&["cat", cid]).stdout == *content);
    assert!(daemon.stop().0.success());
    assert!(tree::read(repo.path()) == before, "something was written");

    // Writable again, it goes on where it was.
    drop(mounts);
    is_all_there(&repo, &all);
    is_in_order(&repo);
    add(&repo, b"new", Kept::Pinned).success();
}

#[track_caller]
fn is_refused_as_read_only(told: &str) {
    let errors: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("Error:"))
        .collect();
    assert!(
        errors.len() == 1 && errors[0].contains("opened for reading alone"),
        "{told}"
    );
}

/// Where a daemon said that it listens.
fn listening(daemon: &Daemon, what: &str) -> SocketAddr {
    let address = daemon.lines.iter().find_map(|line| line.strip_prefix(what));
    let address = address.unwrap_or_else(|| panic!("{:?}", daemon.lines));
    match address.split('/').collect::<Vec<_>>().as_slice() {
        ["", "ip4", ip, "tcp", port] => format!("{ip}:{port}").parse().unwrap(),
        _ => panic!("{address}"),
    }
}

#[test]
fn sixty_four_descriptors_are_enough_for_any_number_of_segments() {
    let repo = Repo::new(CAIRN).under(["prlimit", "--nofile=64:64"]);
    repo.ok(["config", "set", "storage.segment_size", "16KiB"]);
    let folder = tempfile::tempdir().unwrap();
    let (source, out) = (folder.path().join("source"), folder.path().join("out"));
    let files = small_files(&source);
    // One by one, so that no segment holds more than a few.
    put_all(
        repo.path(),
        files.iter().map(|(_, content)| content.clone()),
    );
    let root = repo.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
    let segments = segments(&repo);
    assert!(segments > 2 * 64, "{segments} segments");
    repo.ok(["get", &root, "-o", out.to_str().unwrap()]);
    assert!(tree::read(&out) == tree::read(&source));
    is_in_order(&repo);

    let daemon = repo.daemon();
    let fetch = |name: &String| {
        let target = format!("/ipfs/{root}/{name}");
        http::request(daemon.gateway(), "GET", &target, &[], b"")
    };
    // Those for whom there is no descriptor yet wait for those who have one.
    let fetch = &fetch;
    for some in files.chunks(REQUESTS_AT_ONCE) {
        std::thread::scope(|scope| {
            for (name, content) in some {
                scope.spawn(move || {
                    let answer = fetch(name).unwrap();
                    assert_eq!(answer.status, 200, "{name}: {}", answer.text());
                    assert!(answer.body == *content, "{name}");
                });
            }
        });
    }
    is_in_order(&repo);
    assert!(daemon.stop().0.success());

    // Half of it becomes garbage, in every segment.
    let every_other: Vec<String> = files.iter().step_by(2).map(|file| file.0.clone()).collect();
    for name in &every_other {
        fs::remove_file(source.join(name)).unwrap();
    }
    let half = repo.ok(["add", "-r", "-Q", source.to_str().unwrap()]);
    repo.ok(["pin", "rm", &root]);
    let removed = repo.ok(["repo", "gc"]).lines().count();
    assert!(removed > every_other.len(), "{removed} were removed");
    is_in_order(&repo);
    fs::remove_dir_all(&out).unwrap();
    repo.ok(["get", &half, "-o", out.to_str().unwrap()]);
    assert!(tree::read(&out) == tree::read(&source));
}

#[test]
fn commands_that_never_end_leave_descriptors_for_everybody_else() {
    let repo = Repo::new(CAIRN).under(["prlimit", "--nofile=64:64"]);
    let content = tree::bytes(7, 1000);
    let cid = add(&repo, &content, Kept::Pinned).success().text();
    let daemon = repo.daemon();
    let folder = format!("/proc/{}/fd", daemon.process());
    let open = || fs::read_dir(&folder).unwrap().count();
    let before = open();
    // Each has begun an upload that does not go on, and is never cut off.
    let head = format!(
        "POST /api/v0/block/put HTTP/1.1\r\nhost: {}\r\ncontent-length: 1000\r\n\
         content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n",
        daemon.rpc()
    );
    let clients: Vec<TcpStream> = (0..64)
        .map(|_| {
            let mut client = TcpStream::connect(daemon.rpc()).unwrap();
            client.write_all(head.as_bytes()).unwrap();
            client
        })
        .collect();
    // An eighth of them, and a few that wait beside; the others are refused.
    let let_in = 64 / 8;
    wait_until("an eighth of the commands to be let in", || {
        open() >= before + let_in
    });
    for _ in 0..50 {
        let now = open();
        assert!(now <= before + let_in + 8, "{before} before, {now} now");
        let answer = daemon.get(&format!("/ipfs/{cid}"), &[]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == content);
    }
    // When they go there is room for commands again.
    drop(clients);
    wait_until("room for a command", || {
        daemon.post("block/stat", &format!("arg={cid}")).status == 200
    });
    assert!(daemon.stop().0.success());
}

/// A thousand files, each of a length and with bytes of its own; gives them by name.
fn small_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    fs::create_dir(folder).unwrap();
    let file = |seed: u64| {
        let length = 3000 + usize::try_from(seed).unwrap() * 3;
        let (name, content) = (format!("{seed:04}.bin"), tree::bytes(seed, length));
        fs::write(folder.join(&name), &content).unwrap();
        (name, content)
    };
    (0..FILES).map(file).collect()
}

/// Puts each content as a block of its own into the store in `folder`.
fn put_all(folder: &Path, contents: impl Iterator<Item = Vec<u8>>) {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(16 << 10),
        ..Config::default()
    };
    let store = Store::open(folder, &config, &mut |event| panic!("{event:?}")).unwrap();
    let mut writer = store.writer(Keep::Kept);
    let prefix = Prefix {
        version: Version::V1,
        codec: RAW,
        hash: HashKind::Sha2_256,
    };
    for content in contents {
        let block = Block::new(prefix, content.into()).unwrap();
        writer.put(vec![block]).unwrap();
    }
    writer.commit().unwrap();
    drop(writer);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(store.close()).unwrap();
}

fn segments(repo: &Repo) -> usize {
    let names = fs::read_dir(repo.path().join("blocks")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".car")).count()
}

/// Runs a command under a clock that is `shift` off; the clock that only measures runs on as it does, as
/// it would after somebody set the machine's time.
fn clock(shift: &str) -> Option<Vec<String>> {
    let faketime = ["-m", "--exclude-monotonic", "-f", shift, "env"];
    let Ok(told) = Command::new("faketime").args(faketime).output() else {
        harness::tell_skipped("there is no `faketime` on this machine");
        return None;
    };
    // It would stay in between and keep signals to itself; what it preloads does the work.
    let told = String::from_utf8(told.stdout).unwrap();
    let library = told.lines().find(|line| line.starts_with("LD_PRELOAD="));
    Some(vec![
        "env".to_owned(),
        library.expect("a library").to_owned(),
        format!("FAKETIME={shift}"),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
    ])
}

/// The year that a command under this clock sees.
fn year(clock: &[String]) -> String {
    let date = [
        clock,
        &["date".to_owned(), "-u".to_owned(), "+%Y".to_owned()],
    ]
    .concat();
    let done = Command::new(&date[0]).args(&date[1..]).output().unwrap();
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_clock_ten_years_off_changes_nothing_that_is_kept_or_cached() {
    let Some(clocks) = CLOCKS.map(clock).into_iter().collect::<Option<Vec<_>>>() else {
        return;
    };
    let (giver, plain) = (Repo::new(CAIRN), Repo::new(CAIRN));
    plain.ok([
        "config",
        "set",
        "storage.cache_max",
        &CACHE_BYTES.to_string(),
    ]);
    plain.ok(["config", "set", "storage.scrub_share", "100"]);
    let mut kept = Acknowledged::new();
    let mut years = Vec::new();
    for (turn, clock) in (0..).zip(&clocks) {
        let repo = plain.under(clock);
        let seeds = 1000 * turn;
        let (pinned, garbage) = add_some(&repo, seeds..seeds + 4);
        kept.extend(pinned);
        is_all_there(&repo, &kept);
        let removed = repo.ok(["repo", "gc"]);
        for cid in garbage.keys() {
            assert!(removed.contains(cid), "{removed}");
        }
        let pins = repo.ok(["pin", "ls", "--type=recursive"]);
        assert!(kept.keys().all(|cid| pins.contains(cid.as_str())), "{pins}");

        let daemon = repo.daemon();
        let giving = giver.daemon();
        repo.ok(["swarm", "connect", &giving.swarm()]);
        // One that is read again and again, among many that are read once.
        let favourite = tree::bytes(seeds + 100, 200_000);
        let cid = add(&giver, &favourite, Kept::Pinned).success().text();
        for seed in seeds + 200..seeds + 212 {
            let read = repo.run(["cat", &cid]).success();
            assert!(read.stdout == favourite);
            let passing = tree::bytes(seed, 1 << 20);
            let passing_cid = add(&giver, &passing, Kept::Pinned).success().text();
            assert!(repo.run(["cat", &passing_cid]).success().stdout == passing);
        }
        wait_until("the cache to be evicted down to its bound", || {
            cached_bytes(&repo) <= CACHE_BYTES
        });
        assert!(daemon.metric("cairn_store_evicted_blocks_total") > 0.0);
        drop(giving);
        let served = daemon.get(&format!("/ipfs/{cid}"), &[]);
        assert_eq!(served.status, 200, "what was read all the time was evicted");
        let (cid, content) = kept.last_key_value().unwrap();
        let served = daemon.get(&format!("/ipfs/{cid}"), &[]);
        assert!(served.body == *content);
        let date = served.header("date").to_owned();
        assert!(date.contains(&year(clock)), "{date}");
        years.push(year(clock));
        // A round that ended in another time does not keep the scrub from its work.
        let now = clock_of(clock);
        wait_until("a round of the scrub in this time", || {
            let stat = daemon.call("repo/stat", "");
            let ended = stat["Scrub"]["Finished"].as_u64().expect("a number");
            ended.abs_diff(now) < YEAR_SECONDS
        });
        assert!(daemon.stop().0.success());
        is_in_order(&repo);
    }
    years.dedup();
    assert_eq!(years.len(), CLOCKS.len());
    is_all_there(&plain, &kept);
}

/// Seconds since 1970 as a command under this clock sees them.
fn clock_of(clock: &[String]) -> u64 {
    let date = [clock, &["date".to_owned(), "+%s".to_owned()]].concat();
    let done = Command::new(&date[0]).args(&date[1..]).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    text.trim().parse().unwrap()
}

fn cached_bytes(repo: &Repo) -> u64 {
    let entries = fs::read_dir(repo.path().join("blocks")).unwrap();
    let cached = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_cached = name.starts_with("cache-") && name.ends_with(".car");
        // It may have gone since it was listed.
        is_cached.then(|| entry.metadata().map_or(0, |data| data.len()))
    });
    cached.sum()
}

const DISK_BYTES: u64 = 96 << 20;
const RESERVE: u64 = 20 << 20;
const FILE_BYTES: usize = 2_000_000;
/// Somebody else's file on the small disk.
const FOREIGN: &str = "foreign";
const FILES: u64 = 1000;
const REQUESTS_AT_ONCE: usize = 32;
/// How far the clock is off, one after the other.
const CLOCKS: [&str; 3] = ["+10y", "+0", "-10y"];
const CACHE_BYTES: u64 = 4 << 20;
const YEAR_SECONDS: u64 = 365 * 24 * 3600;
