//! How close does the gateway come to a web server that serves the same bytes under the same addresses?
//!
//! nginx serves copies of the files from a folder, with `sendfile`, without a log, a process for each core. `wrk` loads
//! one of the two after the other, `seconds` (5) each, over 64 connections that are kept; requests a second and the
//! time that 99 of 100 take at most, medians of the rounds.
//!
//! `1k`, `10k`, `100k`: `hot` (1,000) files of that size by their CIDs, and the same four folders deep. `zipf`: `many`
//! (100,000) files of 10 KiB, of which some are asked for much more often than others (Zipf's law, exponent 1).
//! `known`: the client has them already (`If-None-Match`). `file`: one file of `bytes` (4 GiB) by `curl` into nothing.
//! `range-64k`, `range-1m`: parts of it at random. `car`: the CAR of a file of 1 GiB and of a folder of 10,000 files
//! beside their plain bytes. `listing`: the page of a folder of 10,000 and of `entries` (1,000,000) files: its first byte, its end,
//! and what the daemon's memory grew by. `connections`: 4,096 at once.
//!
//! Needs 14 GB of disk; programs that are not installed are named, and what needs them is left out.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use workloads::disk::Folder;
use workloads::file;
use workloads::options::{Options, size};
use workloads::process::{self, output, run, seconds};
use workloads::row::{Row, median, thousands};
use workloads::web::{Load, Plain, is_ready};

fn main() {
    let options = Options::read(
        &[
            "1k",
            "10k",
            "100k",
            "zipf",
            "known",
            "file",
            "range-64k",
            "range-1m",
            "car",
            "listing",
            "connections",
        ],
        &[
            size("seconds", 5, 1),
            size("hot", 1_000, 50),
            size("many", 100_000, 500),
            size("bytes", 4 << 30, 64 << 20),
            size("entries", 1_000_000, 20_000),
            size("clients", 4_096, 64),
        ],
    );
    if !is_ready() {
        return;
    }
    process::open_files(OPEN_FILES);
    let folder = Folder::new(&options);
    let bench = Bench::new(&options, &folder);
    for (row, bytes) in [("1k", 1 << 10), ("10k", 10 << 10), ("100k", 100 << 10)] {
        if options.wants(row) {
            bench.objects(row, bytes);
        }
    }
    if options.wants("zipf") {
        bench.zipf();
    }
    if options.wants("known") {
        bench.known();
    }
    if ["file", "range-64k", "range-1m"]
        .iter()
        .any(|row| options.wants(row))
    {
        bench.large();
    }
    if options.wants("car") {
        bench.cars();
    }
    if options.wants("listing") {
        bench.listings();
    }
    if options.wants("connections") {
        bench.connections();
    }
}

/// Both servers, and what they have.
struct Bench<'a> {
    options: &'a Options,
    repository: PathBuf,
    /// What is added.
    source: PathBuf,
    /// What nginx serves.
    plain: Plain,
    /// Where lists of addresses are written.
    lists: PathBuf,
}

/// What one kind of request came to at both.
struct Rounds {
    ours: Vec<Load>,
    theirs: Vec<Load>,
    /// Bytes of files that our daemon read for its part.
    read: u64,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options, folder: &Folder) -> Self {
        let (source, lists) = (folder.join("source"), folder.join("lists"));
        fs::create_dir(&source).expect("folder");
        fs::create_dir(&lists).expect("folder");
        let repository = folder.join("repository");
        process::repository(CAIRN, &repository);
        let set = ["config", "set", "addresses.gateway", "/ip4/127.0.0.1/tcp/0"];
        run(&mut cairn(&repository, &set));
        let most = ["config", "set", "gateway.connections_max", "8192"];
        run(&mut cairn(&repository, &most));
        Self {
            options,
            repository,
            source,
            plain: Plain::start(&folder.join("nginx")),
            lists,
        }
    }

    /// Adds what lies at a path, and has nginx serve it under the same address.
    fn add(&self, path: &Path) -> String {
        let root = output(cairn(&self.repository, &["add", "-r", "-Q"]).arg(path));
        self.plain.serve(&root, path);
        root
    }

    /// Adds every file of a folder, each served under its own CID.
    fn add_each(&self, folder: &Path) -> Vec<String> {
        let told = output(cairn(&self.repository, &["add", "-r", "--progress=false"]).arg(folder));
        let name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let mut cids = Vec::new();
        for line in told.lines() {
            let mut words = line.splitn(3, ' ').skip(1);
            let (Some(cid), Some(path)) = (words.next(), words.next()) else {
                continue;
            };
            if let Some(file) = path.strip_prefix(&format!("{name}/")) {
                self.plain.serve(cid, &folder.join(file));
                cids.push(cid.to_owned());
            }
        }
        cids
    }

    /// Loads both in turns; `paths` are asked for in this order, again and again.
    fn load(&self, name: &str, paths: &[String], headers: [&[&str]; 2], clients: u64) -> Rounds {
        let list = self.lists.join(name);
        fs::write(&list, paths.join("\n")).expect("list");
        let daemon = Daemon::start(&self.repository);
        let time = self.options.number("seconds");
        let one = |ours: bool| {
            let (port, headers) = match ours {
                true => (daemon.port, headers[0]),
                false => (self.plain.port(), headers[1]),
            };
            Load::run(port, &list, headers, clients, time)
        };
        // Both have everything in memory before anything counts.
        one(true);
        one(false);
        let mut rounds = Rounds {
            ours: Vec::new(),
            theirs: Vec::new(),
            read: 0,
        };
        let before = process::read_by(daemon.running.id());
        for round in 0..self.options.rounds() {
            for turn in 0..2 {
                let ours = (round + turn) % 2 == 0;
                let load = one(ours);
                match ours {
                    true => rounds.ours.push(load),
                    false => rounds.theirs.push(load),
                }
            }
        }
        rounds.read = process::read_by(daemon.running.id()) - before;
        rounds
    }

    fn objects(&self, row: &str, bytes: usize) {
        let top = self.source.join(row);
        let deep = top.join("a/b/c/d");
        fs::create_dir_all(&deep).expect("folders");
        let hot = self.options.count("hot");
        for at in 0..hot {
            small(&deep.join(format!("{at:05}")), at, bytes);
        }
        let cids = self.add_each(&deep);
        let root = self.add(&top);
        let by_cid: Vec<String> = cids.iter().map(|cid| format!("/ipfs/{cid}")).collect();
        let by_path: Vec<String> = (0..hot)
            .map(|at| format!("/ipfs/{root}/a/b/c/d/{at:05}"))
            .collect();
        self.load(row, &by_cid, NO_HEADERS, CONNECTIONS)
            .print(&format!("{row} by CID, {hot} files"));
        self.load(row, &by_path, NO_HEADERS, CONNECTIONS)
            .print(&format!("{row} four folders deep, {hot} files"));
    }

    fn zipf(&self) {
        let folder = self.source.join("zipf");
        fs::create_dir(&folder).expect("folder");
        let many = self.options.count("many");
        for at in 0..many {
            small(&folder.join(format!("{at:06}")), at, 10 << 10);
        }
        let cids = self.add_each(&folder);
        // The sum of 1/rank up to each, and a draw from it.
        let mut sums = Vec::with_capacity(many);
        let mut sum = 0.0;
        for rank in 1..=many {
            sum += 1.0 / rank as f64;
            sums.push(sum);
        }
        let mut random = StdRng::seed_from_u64(SEED);
        let paths: Vec<String> = (0..DRAWS)
            .map(|_| {
                let drawn = random.random::<f64>() * sum;
                let at = sums.partition_point(|sum| *sum < drawn).min(many - 1);
                format!("/ipfs/{}", cids[at])
            })
            .collect();
        self.load("zipf", &paths, NO_HEADERS, CONNECTIONS)
            .print(&format!("10k by CID, Zipf over {many} files"));
    }

    fn known(&self) {
        let path = self.source.join("known");
        file(&path, SEED, 10 << 10);
        let cid = self.add(&path);
        let paths = [format!("/ipfs/{cid}")];
        let daemon = Daemon::start(&self.repository);
        let tag = |port: u16| {
            let head = output(Command::new("curl").args([
                "--silent",
                "--head",
                &format!("http://127.0.0.1:{port}{}", paths[0]),
            ]));
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let tag = lines.filter(|(name, _)| name.eq_ignore_ascii_case("etag"));
            let tag = tag.map(|(_, tag)| tag.trim().to_owned()).next();
            format!("If-None-Match: {}", tag.expect("an entity tag"))
        };
        let (ours, theirs) = (tag(daemon.port), tag(self.plain.port()));
        drop(daemon);
        self.load("known", &paths, [&[&ours], &[&theirs]], CONNECTIONS)
            .print("If-None-Match, 10k");
    }

    fn large(&self) {
        let bytes = self.options.number("bytes");
        let path = self.source.join("large");
        file(&path, SEED, bytes);
        let root = self.add(&path);
        let address = format!("/ipfs/{root}");
        self.warm(&path);
        if self.options.wants("file") {
            let daemon = Daemon::start(&self.repository);
            Row::new(
                format!("a file of {} MiB by curl", bytes >> 20),
                bytes as f64 / 1e6,
                "MB",
            )
            .contestant("ours", || get(daemon.port, &address))
            .contestant("nginx", || get(self.plain.port(), &address))
            .run(self.options.rounds())
            .print();
        }
        for (row, part) in [("range-64k", 64 << 10), ("range-1m", 1 << 20)] {
            if !self.options.wants(row) {
                continue;
            }
            let mut random = StdRng::seed_from_u64(SEED + part);
            let places = (bytes - part) as f64;
            let paths: Vec<String> = (0..RANGES)
                .map(|_| {
                    let from = (random.random::<f64>() * places) as u64;
                    format!("{address}\tbytes={from}-{}", from + part - 1)
                })
                .collect();
            let read = self.load(row, &paths, NO_HEADERS, CONNECTIONS);
            read.print(&format!("{row} at random of {} MiB", bytes >> 20));
            let answers: u64 = read.ours.iter().map(|load| load.requests).sum();
            let sent = (answers * part) as f64;
            println!(
                "  read {:.2} bytes for each that was sent",
                read.read as f64 / sent
            );
        }
    }

    /// Has the machine hold a file and the blocks of all, as far as it can.
    fn warm(&self, path: &Path) {
        let blocks = fs::read_dir(self.repository.join("blocks")).expect("blocks");
        let blocks = blocks.map(|block| block.expect("a file").path());
        for path in blocks.chain([path.to_owned()]) {
            run(Command::new("cat").arg(path).stdout(Stdio::null()));
        }
    }

    fn cars(&self) {
        let large = self.source.join("car-file");
        file(&large, SEED, 1 << 30);
        let small = self.source.join("car-folder");
        workloads::small_files(&small, SEED, 10_000, 10_000);
        for (name, path) in [
            ("a file of 1 GiB", &large),
            ("a folder of 10,000 files", &small),
        ] {
            let root = output(cairn(&self.repository, &["add", "-r", "-Q"]).arg(path));
            let daemon = Daemon::start(&self.repository);
            let plain = match path.is_dir() {
                false => format!("/ipfs/{root}"),
                true => format!("/ipfs/{root}?format=tar"),
            };
            let what = if path.is_dir() {
                "its TAR"
            } else {
                "the plain GET"
            };
            Row::new(format!("the CAR of {name}"), 1.0, "CARs")
                .contestant("ours", || {
                    get(daemon.port, &format!("/ipfs/{root}?format=car"))
                })
                .contestant(what, || get(daemon.port, &plain))
                .run(self.options.rounds())
                .print();
        }
    }

    fn listings(&self) {
        for entries in [10_000, self.options.count("entries")] {
            let folder = self.source.join(format!("listing-{entries}"));
            fs::create_dir(&folder).expect("folder");
            for at in 0..entries {
                fs::write(folder.join(format!("{at:07}")), b"x").expect("write");
            }
            let root = output(cairn(&self.repository, &["add", "-r", "-Q"]).arg(&folder));
            let daemon = Daemon::start(&self.repository);
            let address = format!("http://127.0.0.1:{}/ipfs/{root}/", daemon.port);
            let (mut first, mut end, mut bytes) = (Vec::new(), Vec::new(), 0.0);
            let before = process::memory_of(daemon.running.id(), "VmHWM:");
            for _ in 0..self.options.rounds() {
                let told = output(Command::new("curl").args([
                    "--silent",
                    "--fail",
                    "--output",
                    "/dev/null",
                    "--write-out",
                    "%{time_starttransfer} %{time_total} %{size_download}",
                    &address,
                ]));
                let figures: Vec<f64> = told
                    .split(' ')
                    .filter_map(|word| word.parse().ok())
                    .collect();
                let [one, two, three] = figures[..] else {
                    panic!("curl says {told:?}");
                };
                first.push(one);
                end.push(two);
                bytes = three;
            }
            let grown = process::memory_of(daemon.running.id(), "VmHWM:").saturating_sub(before);
            println!(
                "the page of {} entries: first byte after {:.1} ms, {:.1} MB in {:.2} s; memory +{:.1} MiB",
                thousands(entries as f64),
                median(&first) * 1e3,
                bytes / 1e6,
                median(&end),
                grown as f64 / f64::from(1 << 20),
            );
            fs::remove_dir_all(&folder).expect("remove");
        }
    }

    fn connections(&self) {
        let path = self.source.join("connections");
        file(&path, SEED, 10 << 10);
        let cid = self.add(&path);
        let clients = self.options.number("clients");
        self.load(
            "connections",
            &[format!("/ipfs/{cid}")],
            NO_HEADERS,
            clients,
        )
        .print(&format!("10k over {clients} connections"));
    }
}

impl Rounds {
    fn print(&self, name: &str) {
        println!("{name} ({} rounds)", self.ours.len());
        let figure = |loads: &[Load], of: fn(&Load) -> f64| {
            median(&loads.iter().map(of).collect::<Vec<f64>>())
        };
        let rate = |loads: &[Load]| figure(loads, |load| load.requests_a_second);
        let late = |loads: &[Load]| figure(loads, |load| load.p99_milliseconds);
        let errors = |loads: &[Load]| loads.iter().map(|load| load.errors).sum::<u64>();
        for (who, loads) in [("ours", &self.ours), ("nginx", &self.theirs)] {
            let mut line = String::new();
            // Writing to a String cannot fail.
            let _ = write!(
                line,
                "  {who:<8} {:>10} requests/s   p99 {:>8.2} ms   {} errors",
                thousands(rate(loads)),
                late(loads),
                errors(loads),
            );
            if who == "ours" {
                let _ = write!(
                    line,
                    "   {:.2} x the requests, {:.1} x the p99",
                    rate(&self.ours) / rate(&self.theirs),
                    late(&self.ours) / late(&self.theirs),
                );
            }
            println!("{line}");
        }
    }
}

/// A daemon and where its gateway is.
struct Daemon {
    running: process::Running,
    port: u16,
}

impl Daemon {
    fn start(repository: &Path) -> Self {
        let mut running = process::Running::start(&mut cairn(repository, &["daemon"]));
        let gateway = running.wait_for("Gateway");
        running.wait_for("Daemon is ready");
        let port = gateway
            .rsplit(|char: char| !char.is_ascii_digit())
            .find(|digits| !digits.is_empty());
        Self {
            running,
            port: port.and_then(|port| port.parse().ok()).expect("a port"),
        }
    }
}

/// A file of its own.
fn small(path: &Path, number: usize, bytes: usize) {
    let mut data = vec![0; bytes];
    StdRng::seed_from_u64(SEED + number as u64).fill_bytes(&mut data);
    fs::write(path, data).expect("write");
}

/// Seconds that `curl` takes to get all of it.
fn get(port: u16, address: &str) -> f64 {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--output",
        "/dev/null",
    ]);
    curl.arg(format!("http://127.0.0.1:{port}{address}"));
    seconds(|| run(&mut curl))
}

fn cairn(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(CAIRN);
    command.args(arguments).env("CAIRN_PATH", repository);
    command
}

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");
const NO_HEADERS: [&[&str]; 2] = [&[], &[]];
const SEED: u64 = 71;
const CONNECTIONS: u64 = 64;
/// Requests drawn by Zipf's law, and parts of a file, until they begin again.
const DRAWS: usize = 200_000;
const RANGES: usize = 20_000;
/// For as many connections, at both ends.
const OPEN_FILES: u64 = 20_000;
