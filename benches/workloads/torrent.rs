//! The same file over BitTorrent: a tracker of our own, and clients as Debian has them.
//!
//! They run in the namespaces of [`crate::net`] only. The torrent is private and every client is told
//! so once more: no DHT, no local discovery, no exchange of peers, no port mapping.

use crate::net::{Host, Net};
use crate::process::{Talking, child, foreign, is_installed, run};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A client that is measured beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// `aria2c`
    Aria2,
    /// `transmission-cli`
    Transmission,
}

impl Client {
    /// Those that can be measured here; says which cannot, and why.
    pub fn installed() -> Vec<Self> {
        if !is_installed(MAKER) {
            println!("  skipped: BitTorrent, since {MAKER} is not installed (transmission-cli)");
            return Vec::new();
        }
        let is_there = |client: &Self| {
            let there = is_installed(client.program());
            if !there {
                println!(
                    "  skipped: {0}, since it is not installed",
                    client.program()
                );
            }
            there
        };
        [Self::Aria2, Self::Transmission]
            .into_iter()
            .filter(is_there)
            .collect()
    }

    /// What it is called.
    pub const fn program(self) -> &'static str {
        match self {
            Self::Aria2 => "aria2c",
            Self::Transmission => "transmission-cli",
        }
    }
}

/// A file, its torrent, and a tracker at the hub of a network.
#[derive(Debug)]
pub struct Torrent<'a> {
    folder: PathBuf,
    file: &'a Path,
    tracker: Talking,
    started: u32,
}

/// A client at work. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    folder: PathBuf,
    start: Instant,
}

impl<'a> Torrent<'a> {
    /// Makes the torrent of `file` below `folder`, and starts the tracker.
    pub fn new(net: &Net, folder: &Path, file: &'a Path) -> Self {
        fs::create_dir_all(folder).expect("folder");
        let tracking = child(TRACKER, &[&net.hub_ip()]);
        let mut tracker = Talking::start("the tracker", &mut net.at_hub(&tracking));
        let url = tracker.hear("tracks at", Duration::from_secs(10));
        let mut make = Command::new(MAKER);
        make.args(["--private", "--piecesize", PIECE_KIB, "--tracker", &url]);
        run(make.arg("--outfile").arg(folder.join(TORRENT)).arg(file));
        Self {
            folder: folder.to_owned(),
            file,
            tracker,
            started: 0,
        }
    }

    /// Starts a client that has the file, and waits until the tracker knows of it. Now and then
    /// `transmission-cli` tells the tracker before it has looked at its file, and not again for long:
    /// then it is started anew.
    pub fn seed(&mut self, client: Client, host: &Host) -> Running {
        for _ in 0..SEED_STARTS_MAX {
            let folder = self.next_folder();
            fs::hard_link(self.file, folder.join(self.name())).expect("link");
            let seed = self.start(client, host, folder);
            let known = format!("seed {} ", host.ip());
            if self.tracker.may_hear(&known, SEED_KNOWN_WITHIN).is_some() {
                return seed;
            }
        }
        panic!(
            "{} does not seed: {SEED_STARTS_MAX} times the tracker was not told",
            client.program()
        )
    }

    /// Starts a client that has nothing yet.
    pub fn leech(&mut self, client: Client, host: &Host) -> Running {
        let folder = self.next_folder();
        self.start(client, host, folder)
    }

    fn next_folder(&mut self) -> PathBuf {
        self.started += 1;
        let folder = self.folder.join(format!("client-{}", self.started));
        fs::create_dir(&folder).expect("folder");
        folder
    }

    fn name(&self) -> &std::ffi::OsStr {
        self.file.file_name().expect("a file")
    }

    fn start(&self, client: Client, host: &Host, folder: PathBuf) -> Running {
        let hook = folder.join("hook");
        let done = folder.join(DONE);
        fs::write(&hook, format!("#!/bin/sh\n: > '{}'\n", done.display())).expect("hook");
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("hook");
        let mut command = foreign(client.program());
        match client {
            Client::Aria2 => {
                command.args(ARIA2).arg("--dir").arg(&folder);
                command.arg("--on-bt-download-complete").arg(&hook);
                command.arg(self.folder.join(TORRENT));
            }
            Client::Transmission => {
                let config = folder.join("config");
                fs::create_dir(&config).expect("config");
                fs::write(config.join("settings.json"), TRANSMISSION).expect("config");
                command.args(["--no-portmap", "--no-uplimit", "--no-downlimit"]);
                command.args(["--encryption-tolerated", "--verify", "--port", "51413"]);
                command.arg("--config-dir").arg(config);
                command.arg("--download-dir").arg(&folder);
                command.arg("--finish").arg(&hook);
                command.arg(self.folder.join(TORRENT));
            }
        }
        let log = fs::File::create(folder.join("log")).expect("log");
        let start = Instant::now();
        let child = host
            .at(&command)
            .env("HOME", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("spawn");
        Running {
            child,
            folder,
            start,
        }
    }

    /// Waits until half of the file is on a client's disk.
    pub fn wait_for_half(&self, leech: &Running) {
        let whole = fs::metadata(self.file).expect("the file").len();
        let here = leech.folder.join(self.name());
        leech.wait_until("half of the file", || {
            fs::metadata(&here).is_ok_and(|found| found.blocks() * 512 >= whole / 2)
        });
    }
}

impl Running {
    /// Waits until it has the whole file; seconds since it was started.
    pub fn took(&self) -> f64 {
        let done = self.folder.join(DONE);
        self.wait_until("the whole file", || done.exists())
    }

    fn wait_until(&self, what: &str, is: impl Fn() -> bool) -> f64 {
        while !is() {
            if self.start.elapsed() > LONG {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("it had not {what} after {LONG:?}: {log}");
            }
            std::thread::sleep(LOOK_EVERY);
        }
        self.start.elapsed().as_secs_f64()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it went well.
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder); // Or the bench's folder goes with it.
    }
}

/// The part of a child that is a tracker, at the address it was given: who asks is told of all
/// others who asked before.
pub fn track(given: &[String]) {
    let [ip] = given else {
        panic!("an address: {given:?}");
    };
    let listener = TcpListener::bind((ip.as_str(), 0)).expect("bind");
    let address = listener.local_addr().expect("bound");
    println!("tracks at http://{address}/announce");
    let mut known = BTreeMap::new();
    for stream in listener.incoming() {
        // A client that goes away in the middle of a question gets no answer.
        let _ = stream.and_then(|stream| announce(stream, &mut known));
    }
}

fn announce(mut stream: TcpStream, known: &mut BTreeMap<IpAddr, u16>) -> std::io::Result<()> {
    let ip = stream.peer_addr()?.ip();
    // Nobody who connects and says nothing holds the others up.
    stream.set_read_timeout(Some(QUESTION_TIME_MAX))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut question = String::new();
    reader.read_line(&mut question)?;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
    }
    let query = question.split([' ', '?']).nth(2).unwrap_or_default();
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    };
    let port: Option<u16> = value("port").and_then(|port| port.parse().ok());
    let others: Vec<u8> = known
        .iter()
        .filter(|(other, _)| **other != ip)
        .filter_map(|(other, port)| match other {
            IpAddr::V4(ip) => Some([&ip.octets()[..], &port.to_be_bytes()].concat()),
            IpAddr::V6(_) => None,
        })
        .flatten()
        .collect();
    match (value("event"), port) {
        (Some("stopped"), _) | (_, None) => drop(known.remove(&ip)),
        (_, Some(port)) => drop(known.insert(ip, port)),
    }
    if value("left") == Some("0") && value("event") != Some("stopped") {
        println!("seed {ip} is here");
    }
    let mut body =
        format!("d8:intervali{INTERVAL}e12:min intervali{INTERVAL}e5:peers").into_bytes();
    body.extend(format!("{}:", others.len()).into_bytes());
    body.extend(others);
    body.push(b'e');
    let head = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// The part that [`track`] plays.
pub const TRACKER: &str = "track";
const MAKER: &str = "transmission-create";
const TORRENT: &str = "torrent";
const DONE: &str = "done";
const PIECE_KIB: &str = "512";
/// Seconds after which clients ask the tracker again.
const INTERVAL: u32 = 5;
const QUESTION_TIME_MAX: Duration = Duration::from_secs(1);
const ARIA2: [&str; 13] = [
    "--enable-dht=false",
    "--enable-dht6=false",
    "--bt-enable-lpd=false",
    "--enable-peer-exchange=false",
    "--no-conf=true",
    "--async-dns=false",
    "--file-allocation=none",
    "--listen-port=6881",
    "--seed-ratio=0",
    "--bt-seed-unverified=true",
    "--bt-tracker-interval=5",
    "--summary-interval=0",
    "--bt-max-peers=0",
];
const TRANSMISSION: &str = r#"{
    "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
    "port-forwarding-enabled": false, "speed-limit-up-enabled": false,
    "speed-limit-down-enabled": false, "preallocation": 0, "cache-size-mb": 16
}"#;
/// How often it is looked whether a client is so far: all it does by itself is to leave files. Little
/// beside the seconds that are measured.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const SEED_STARTS_MAX: u32 = 5;
/// For reading and checking the file.
const SEED_KNOWN_WITHIN: Duration = Duration::from_secs(60);
/// How long a client may take.
const LONG: Duration = Duration::from_secs(900);
