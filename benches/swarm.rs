//! Do several peers give what their links carry, also when some fail, and does a crowd help itself?
//!
//! Every peer is a host in a network namespace of its own, on a bridge that leads nowhere; what a host sends is held to
//! `mbit` megabits a second. `two`, `four`, `eight`: a file of 512 MiB from so many seeds. With
//! four: `killed`, half of them die midway; `cut`, half of them fall silent midway; `slow`, one has a
//! tenth of the rate; `corrupt`, one more sends forged blocks. `crowd`: 256 MiB from one seed to eight peers at
//! once, who serve each other. Beside: plain TCP from the same hosts, `aria2c` and `transmission-cli` with a torrent
//! of the same file on the same hosts.
//!
//! Needs root for the namespaces, and 6 GiB of disk.

use cairn_store::Cid;
use std::fs;
use std::path::{Path, PathBuf};
use workloads::disk::{Folder, remove};
use workloads::net::{Host, Net, plain_rate};
use workloads::options::{Options, size};
use workloads::peer::{self, Counts, Peer};
use workloads::row::{Measured, median};
use workloads::torrent::{self, Client, Torrent};

fn main() {
    if peer::play() {
        return;
    }
    let options = Options::read(
        &[
            "two", "four", "eight", "killed", "cut", "slow", "corrupt", "crowd",
        ],
        &[
            size("bytes", 512 << 20, 24 << 20),
            size("crowd-bytes", 256 << 20, 12 << 20),
            size("crowd", 8, 4),
            size("mbit", 50, 50),
            size("chunk", 1 << 20, 256 << 10),
        ],
    );
    if let Err(why) = Net::new() {
        println!("skipped: peers on shaped links, since {why}");
        return;
    }
    let folder = Folder::new(&options);
    for (row, seeds, trouble) in [
        ("two", 2, Trouble::None),
        ("four", 4, Trouble::None),
        ("eight", 8, Trouble::None),
        ("killed", 4, Trouble::Killed),
        ("cut", 4, Trouble::Cut),
        ("slow", 4, Trouble::Slow),
        ("corrupt", 4, Trouble::Corrupt),
    ] {
        if options.wants(row) {
            from_many(&options, &folder, seeds, trouble);
        }
    }
    if options.wants("crowd") {
        crowd(&options, &folder);
    }
}

/// What befalls the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    /// Half of them are killed when half of the bytes are there.
    Killed,
    /// Half of them fall silent then: nobody is told.
    Cut,
    /// One of them has a tenth of the rate.
    Slow,
    /// One peer more claims to have it all and sends something else.
    Corrupt,
}

impl Trouble {
    const fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Killed => ", half killed midway",
            Self::Cut => ", half silent from midway on",
            Self::Slow => ", one at a tenth of the rate",
            Self::Corrupt => ", and one that forges",
        }
    }
}

/// A file as everybody is to have it.
struct Work {
    file: PathBuf,
    /// A repository that holds it, to be copied.
    repository: PathBuf,
    root: Cid,
    bytes: u64,
    chunk: u64,
    mbit: u64,
}

impl Work {
    fn new(options: &Options, folder: &Folder, bytes: u64) -> Self {
        let (file, repository) = (folder.join("file"), folder.join("full"));
        let chunk = options.number("chunk");
        remove(&repository);
        workloads::file(&file, 7, bytes);
        let root = peer::filled(&repository, &file, u32::try_from(chunk).expect("a chunk"));
        Self {
            file,
            repository,
            root,
            bytes,
            chunk,
            mbit: options.number("mbit"),
        }
    }
}

/// What one of ours came to.
struct Outcome {
    seconds: f64,
    counts: Counts,
    /// Bytes on the wire from the first seed, with all headers.
    sent: u64,
}

/// A net with shaped seeds and one host that is not.
struct Field {
    net: Net,
    seeds: Vec<Host>,
    forger: Option<Host>,
    taker: Host,
}

impl Field {
    fn new(work: &Work, seeds: usize, trouble: Trouble) -> Self {
        let mut net = Net::new().expect("it worked before");
        let rate = |at: usize| match trouble {
            Trouble::Slow if at == 0 => (work.mbit / 10).max(1),
            _ => work.mbit,
        };
        let seeds = (0..seeds).map(|at| net.host(rate(at))).collect();
        let forger = (trouble == Trouble::Corrupt).then(|| net.host(work.mbit));
        let taker = net.host(0);
        Self {
            net,
            seeds,
            forger,
            taker,
        }
    }

    /// Seconds that the links need for the bytes, as plain TCP shows.
    fn floor(&self, work: &Work, trouble: Trouble) -> f64 {
        let all: Vec<&Host> = self.seeds.iter().collect();
        let rate = plain_rate(&all, &self.taker);
        let bytes = work.bytes as f64;
        match trouble {
            Trouble::Killed | Trouble::Cut => {
                let (_, left) = all.split_at(all.len() / 2);
                bytes / 2.0 / rate + bytes / 2.0 / plain_rate(left, &self.taker)
            }
            _ => bytes / rate,
        }
    }

    fn ours(&self, work: &Work, folder: &Path, trouble: Trouble) -> Outcome {
        let (mut seeds, mut repositories) = (Vec::new(), Vec::new());
        for (at, host) in self.seeds.iter().enumerate() {
            let repository = folder.join(format!("seed-{at}"));
            workloads::disk::copy(&work.repository, &repository);
            seeds.push(Peer::at(host, &repository));
            repositories.push(repository);
        }
        let forger = self
            .forger
            .as_ref()
            .map(|host| Peer::liar(host, work.chunk));
        let repository = folder.join("taker");
        let mut taker = Peer::at(&self.taker, &repository);
        for peer in seeds.iter().chain(&forger) {
            taker.connect(peer.address());
        }
        taker.begin_pin(&work.root, work.bytes);
        match trouble {
            Trouble::Killed => {
                taker.is_half_way();
                seeds.drain(..self.seeds.len() / 2);
            }
            Trouble::Cut => {
                taker.is_half_way();
                self.cut();
            }
            _ => {}
        }
        let outcome = Outcome {
            seconds: taker.took(),
            counts: taker.counts(),
            sent: 0,
        };
        drop((taker, seeds, forger));
        for repository in repositories.iter().chain([&repository]) {
            remove(repository);
        }
        outcome
    }

    fn theirs(&self, work: &Work, folder: &Path, trouble: Trouble, client: Client) -> f64 {
        let folder = folder.join("torrent");
        let mut torrent = Torrent::new(&self.net, &folder, &work.file);
        let mut seeds: Vec<torrent::Running> = self
            .seeds
            .iter()
            .map(|host| torrent.seed(client, host))
            .collect();
        let leech = torrent.leech(client, &self.taker);
        match trouble {
            Trouble::Killed => {
                torrent.wait_for_half(&leech);
                seeds.drain(..self.seeds.len() / 2);
            }
            Trouble::Cut => {
                torrent.wait_for_half(&leech);
                self.cut();
            }
            _ => {}
        }
        let seconds = leech.took();
        drop((leech, seeds, torrent));
        remove(&folder);
        seconds
    }

    fn cut(&self) {
        for host in self.seeds.iter().take(self.seeds.len() / 2) {
            self.net.cut(host);
        }
    }
}

fn from_many(options: &Options, folder: &Folder, seeds: usize, trouble: Trouble) {
    let work = Work::new(options, folder, options.number("bytes"));
    // There is no forger of torrents here.
    let clients = match trouble {
        Trouble::Corrupt => Vec::new(),
        _ => Client::installed(),
    };
    let field = || Field::new(&work, seeds, trouble);
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    let mut theirs = vec![Vec::new(); clients.len()];
    let mut counts = Vec::new();
    for _ in 0..options.rounds() {
        // A new net each time: what was cut stays cut.
        let outcome = field().ours(&work, folder.path(), trouble);
        ours.push(outcome.seconds);
        counts.push(outcome.counts);
        floors.push(field().floor(&work, trouble));
        for (client, seconds) in clients.iter().zip(&mut theirs) {
            seconds.push(field().theirs(&work, folder.path(), trouble, *client));
        }
    }
    let names = clients.iter().map(|client| client.program().to_owned());
    let mut contestants = vec![
        ("ours, pinned, durable".to_owned(), ours),
        ("plain TCP from all at once".to_owned(), floors),
    ];
    contestants.extend(names.zip(theirs));
    let text = format!(
        "fetch {} MiB from {seeds} seeds of {} Mbit/s each{}",
        work.bytes >> 20,
        work.mbit,
        trouble.text()
    );
    Measured::new(text, work.bytes as f64 / 1e6, "MB", contestants).print();
    tell(&counts);
}

/// What was counted in each round.
fn tell(rounds: &[Counts]) {
    let each = |figure: &dyn Fn(&Counts) -> String| {
        let figures: Vec<String> = rounds.iter().map(figure).collect();
        figures.join(", ")
    };
    let count =
        |name: &str| each(&|counts| counts.get(name).copied().unwrap_or(f64::NAN).to_string());
    let all: Vec<f64> = rounds.iter().map(duplicates).collect();
    println!(
        "  duplicates: {:.2} % ({}); wrong blocks: {}; peers dropped: {}",
        median(&all),
        each(&|counts| format!("{:.2}", duplicates(counts))),
        count("wrong_blocks_received_total"),
        count("peers_dropped_total")
    );
}

/// In percent of all bytes of blocks.
fn duplicates(counts: &Counts) -> f64 {
    let count = |name: &str| counts.get(name).copied().unwrap_or(f64::NAN);
    100.0 * count("duplicate_bytes_received_total") / count("block_bytes_received_total")
}

fn crowd(options: &Options, folder: &Folder) {
    let work = Work::new(options, folder, options.number("crowd-bytes"));
    let count = options.count("crowd");
    let clients = Client::installed();
    let hosts = || {
        let mut net = Net::new().expect("it worked before");
        let hosts: Vec<Host> = (0..=count).map(|_| net.host(work.mbit)).collect();
        (net, hosts)
    };
    let (mut ours, mut our_copies, mut wire) = (Vec::new(), Vec::new(), Vec::new());
    let mut worst = Vec::new();
    let mut theirs = vec![(Vec::new(), Vec::new()); clients.len()];
    let copies = |sent: u64| sent as f64 / work.bytes as f64;
    for _ in 0..options.rounds() {
        let (net, ours_at) = hosts();
        let (outcome, most) = our_crowd(&work, folder.path(), &ours_at);
        drop((net, ours_at));
        worst.push(most);
        let uploaded = outcome.counts.get("block_bytes_sent_total").copied();
        ours.push(outcome.seconds);
        our_copies.push(uploaded.unwrap_or(f64::NAN) / work.bytes as f64);
        wire.push(copies(outcome.sent));
        for (client, (seconds, sent)) in clients.iter().zip(&mut theirs) {
            let (net, hosts) = hosts();
            let (took, bytes) = their_crowd(&work, folder.path(), &net, &hosts, *client);
            seconds.push(took);
            sent.push(copies(bytes));
        }
    }
    let mut contestants = vec![("ours, the last has it".to_owned(), ours)];
    let mut sent = Vec::new();
    for (client, (seconds, copies)) in clients.iter().zip(theirs) {
        contestants.push((client.program().to_owned(), seconds));
        sent.push(format!("{} {:.2}", client.program(), median(&copies)));
    }
    let total = (work.bytes * count as u64) as f64 / 1e6;
    let text = format!(
        "{} MiB from 1 seed to {count} at once, {} Mbit/s each",
        work.bytes >> 20,
        work.mbit
    );
    Measured::new(text, total, "MB", contestants).print();
    println!(
        "  copies that the seed sent: ours {:.2} in blocks, {:.2} on the wire; {}",
        median(&our_copies),
        median(&wire),
        sent.join(", ")
    );
    let each: Vec<String> = worst.iter().map(|most| format!("{most:.2}")).collect();
    println!(
        "  duplicates of whoever had most: {:.2} % ({})",
        median(&worst),
        each.join(", ")
    );
}

/// What it came to, and the duplicates of whoever had most, in percent.
fn our_crowd(work: &Work, folder: &Path, hosts: &[Host]) -> (Outcome, f64) {
    let (first, others) = hosts.split_first().expect("a seed");
    let repository = folder.join("seed");
    workloads::disk::copy(&work.repository, &repository);
    let mut seed = Peer::at(first, &repository);
    let mut addresses = vec![seed.address().to_owned()];
    let mut takers = Vec::new();
    for (at, host) in others.iter().enumerate() {
        let mut taker = Peer::at(host, &folder.join(format!("taker-{at}")));
        for address in &addresses {
            taker.connect(address);
        }
        addresses.push(taker.address().to_owned());
        takers.push(taker);
    }
    let before = first.sent_bytes();
    for taker in &mut takers {
        taker.begin_pin(&work.root, work.bytes);
    }
    let seconds = takers.iter_mut().map(Peer::took).fold(0.0, f64::max);
    let worst = takers.iter_mut().map(|taker| duplicates(&taker.counts()));
    let worst = worst.fold(0.0, f64::max);
    let outcome = Outcome {
        seconds,
        counts: seed.counts(),
        sent: first.sent_bytes() - before,
    };
    drop((seed, takers));
    remove(&repository);
    for at in 0..others.len() {
        remove(&folder.join(format!("taker-{at}")));
    }
    (outcome, worst)
}

fn their_crowd(
    work: &Work,
    folder: &Path,
    net: &Net,
    hosts: &[Host],
    client: Client,
) -> (f64, u64) {
    let (first, others) = hosts.split_first().expect("a seed");
    let folder = folder.join("torrent");
    let mut torrent = Torrent::new(net, &folder, &work.file);
    let seed = torrent.seed(client, first);
    let before = first.sent_bytes();
    let leeches: Vec<torrent::Running> = others
        .iter()
        .map(|host| torrent.leech(client, host))
        .collect();
    let seconds = leeches
        .iter()
        .map(torrent::Running::took)
        .fold(0.0, f64::max);
    let sent = first.sent_bytes() - before;
    drop((leeches, seed, torrent));
    fs::remove_dir_all(&folder).expect("remove");
    (seconds, sent)
}
