//! How close to a raw stream does a fetch come, of large blocks and of small ones, by one peer and
//! by many at once? Everything on loopback; every node in a process of its own.
//!
//! `1m`, `256k`: a file of 2 GiB from one peer, read in order and pinned; beside it a raw stream
//! (`/perf/1.0.0`) of the same stack and one of the stock stack, `curl` from nginx over TLS, and Helia. `together`: the same with both nodes in this
//! process, where giving and taking share one runtime. `small`: 100,000 blocks of 1 KiB. `many`: 64 peers
//! that fetch at once, each with a connection to the server alone or to all others too, beside one that fetches as much.
//!
//! Needs 8 GiB of disk.

use cairn_store::Cid;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use workloads::Numbered;
use workloads::disk::{Folder, remove};
use workloads::helia::Helia;
use workloads::options::{Options, size};
use workloads::peer::{self, Circle, Counts, Peer, Way};
use workloads::row::{Row, thousands};
use workloads::stock::{Giver, Security};
use workloads::web::Server;

fn main() {
    if peer::play() {
        return;
    }
    let options = Options::read(
        &["1m", "256k", "together", "small", "many"],
        &[
            size("bytes", 2 << 30, 64 << 20),
            size("helia-bytes", 256 << 20, 16 << 20),
            size("blocks", 100_000, 5000),
            size("peers", 64, 8),
        ],
    );
    let folder = Folder::new(&options);
    let large = ["1m", "256k", "together", "many"];
    let file = folder.join("files").join("file");
    if large.iter().any(|row| options.wants(row)) {
        fs::create_dir(folder.join("files")).expect("folder");
        workloads::file(&file, 4, options.number("bytes"));
    }
    for (row, chunk) in [("1m", 1 << 20), ("256k", 256 << 10)] {
        if options.wants(row) {
            one_peer(&options, &folder, &file, chunk);
        }
    }
    if options.wants("together") {
        together(&options, &folder, &file);
    }
    if options.wants("small") {
        small(&options, &folder);
    }
    if options.wants("many") {
        many(&options, &folder, &file);
    }
}

/// Repositories of those who fetch: a new one each time, the last one gone.
struct Takers<'a> {
    folder: &'a Folder,
    last: Cell<u32>,
}

impl<'a> Takers<'a> {
    fn new(folder: &'a Folder) -> Self {
        Self {
            folder,
            last: Cell::new(0),
        }
    }

    fn next(&self) -> PathBuf {
        let name = |number: u32| self.folder.join(format!("taker-{number}"));
        remove(&name(self.last.get()));
        self.last.set(self.last.get() + 1);
        name(self.last.get())
    }
}

fn filled(folder: &Folder, file: &Path, chunk: u32) -> (PathBuf, Cid) {
    let path = folder.join("giver");
    remove(&path);
    let root = peer::filled(&path, file, chunk);
    (path, root)
}

fn connected(takers: &Takers, giver: &Peer) -> Peer {
    let mut taker = Peer::here(&takers.next());
    taker.connect(giver.address());
    taker
}

fn one_peer(options: &Options, folder: &Folder, file: &Path, chunk: u32) {
    let bytes = options.number("bytes");
    let (path, root) = filled(folder, file, chunk);
    let (giver, takers) = (Peer::here(&path), Takers::new(folder));
    let stock = Giver::start(Security::Noise);
    let web = Server::start(&folder.join("web"), file.parent().expect("a folder"));
    let helia = Helia::found();
    let part = options.number("helia-bytes").min(bytes);
    let last = Cell::new(Counts::new());
    let fetch = |way| {
        let mut taker = connected(&takers, &giver);
        let seconds = taker.seconds(way, &root);
        last.set(taker.counts());
        seconds
    };
    let work = format!(
        "fetch {} MiB from one peer, chunks of {} KiB",
        bytes >> 20,
        chunk >> 10
    );
    let mut row = Row::new(work, bytes as f64 / 1e6, "MB")
        .contestant("ours, read in order", || fetch(Way::Read))
        .contestant("ours, pinned, durable", || fetch(Way::Pin))
        .contestant("one raw stream of ours", || {
            connected(&takers, &giver).seconds_raw(giver.address(), bytes, 1)
        })
        .contestant("one stream of stock libp2p (Noise)", || {
            stock.seconds(bytes, 1)
        });
    if let Some(web) = &web {
        row = row.contestant("curl from nginx, TLS", || web.seconds("file"));
    }
    if let Some(helia) = &helia {
        let name = format!("Helia from Helia ({} MiB, scaled)", part >> 20);
        row = row.contestant(name, || {
            helia.seconds(part, chunk) * bytes as f64 / part as f64
        });
    }
    row.run(options.rounds()).print();
    println!("  {}", duplicates(&last.take()));
    drop(web);
    remove(&folder.join("web"));
}

fn duplicates(counts: &Counts) -> String {
    let count = |name: &str| counts.get(name).copied().unwrap_or(f64::NAN);
    let share =
        100.0 * count("duplicate_bytes_received_total") / count("block_bytes_received_total");
    format!("duplicates: {share:.2} % of the bytes of the last fetch")
}

fn together(options: &Options, folder: &Folder, file: &Path) {
    let bytes = options.number("bytes");
    let (path, root) = filled(folder, file, 1 << 20);
    let (giver, takers) = (Peer::here(&path), Takers::new(folder));
    let runtime = peer::runtime();
    let apart = || connected(&takers, &giver).seconds(Way::Read, &root);
    let store = folder.join("giver-here");
    remove(&store);
    peer::filled(&store, file, 1 << 20);
    let inside = || {
        let taking = peer::open(&takers.next());
        let giving = peer::open(&store);
        runtime.block_on(async {
            let (giver, taker) = (peer::local(giving).await, peer::local(taking).await);
            let address = peer::address(&giver).await;
            taker.peers().connect(address).await.expect("connect");
            let seconds = peer::seconds_to_read(&taker, &root).await;
            for node in [taker, giver] {
                node.stop(Duration::from_secs(10)).await;
            }
            seconds
        })
    };
    Row::new(
        format!("fetch {} MiB, both nodes in one process", bytes >> 20),
        bytes as f64 / 1e6,
        "MB",
    )
    .contestant("ours, one process", inside)
    .contestant("ours, two processes", apart)
    .run(options.rounds())
    .print();
    remove(&store);
}

fn small(options: &Options, folder: &Folder) {
    let count = options.number("blocks");
    let path = folder.join("giver-small");
    peer::filled_with_blocks(&path, &Numbered::new(SEED, SMALL_BYTES), count);
    let file = folder.join("small");
    workloads::file(&file, 5, count * SMALL_BYTES as u64);
    let root = peer::filled(&path, &file, u32::try_from(SMALL_BYTES).expect("small"));
    let (giver, takers) = (Peer::here(&path), Takers::new(folder));
    Row::new(
        format!(
            "fetch {} blocks of 1 KiB from one peer",
            thousands(count as f64)
        ),
        count as f64,
        "blocks",
    )
    .contestant("ours, by name, 1,024 under way", || {
        connected(&takers, &giver).seconds_for_blocks(SEED, SMALL_BYTES, count)
    })
    .contestant("ours, a file pinned", || {
        connected(&takers, &giver).seconds(Way::Pin, &root)
    })
    .contestant("ours, a file read in order", || {
        connected(&takers, &giver).seconds(Way::Read, &root)
    })
    .run(options.rounds())
    .print();
    remove(&path);
    remove(&file);
}

fn many(options: &Options, folder: &Folder, file: &Path) {
    let (bytes, count) = (options.number("bytes"), options.number("peers"));
    let (path, root) = filled(folder, file, 1 << 20);
    let takers = Takers::new(folder);
    let contestants = [
        (count, Circle::Strangers),
        (count, Circle::Acquainted),
        (1, Circle::Strangers),
    ];
    let mut seconds = [(); 3].map(|()| Vec::new());
    let mut peaks = [0; 3];
    for _ in 0..options.rounds() {
        for (place, (count, circle)) in contestants.into_iter().enumerate() {
            let giver = Peer::here(&path);
            let (next, address) = (takers.next(), giver.address());
            seconds[place].push(peer::seconds_of_many(&next, count, circle, address, &root));
            peaks[place] = giver.peak().max(peaks[place]);
        }
    }
    let names = [
        format!("ours, {count} peers that know only it"),
        format!("ours, {count} that know each other"),
        "ours, one peer".to_owned(),
    ];
    let rows = names.into_iter().zip(seconds).collect();
    let work = format!("serve {} MiB in all", bytes >> 20);
    workloads::row::Measured::new(work, bytes as f64 / 1e6, "MB", rows).print();
    let [strangers, acquainted, one] = peaks.map(|peak| thousands(peak as f64 / 1048576.0));
    println!(
        "  memory of the server at most: {strangers} MiB, {acquainted} MiB where they know each other, \
         {one} MiB with one peer"
    );
}

const SEED: u64 = 6;
const SMALL_BYTES: usize = 1024;
