//! What does a daemon cost that nobody uses?
//!
//! `alone`: it has no peers. `crowd`: `peers` (96) of them are connected, all of them DHT servers as it is one, and ask it
//! `rate` (200) questions a second: six of ten for peers near a key, three for providers, one tells of itself.
//! Memory is what is resident at the end of `seconds` (60), and the most before; processor time is that of all threads, as a part
//! of one core, after ten seconds to settle.

use std::time::Duration;
use workloads::dht_peers::{self, DhtPeers};
use workloads::disk::Folder;
use workloads::options::{Options, size};
use workloads::process;

fn main() {
    if let Some((part, given)) = process::part() {
        assert_eq!(part, dht_peers::PART);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.expect("runtime").block_on(dht_peers::play(&given));
    }
    let options = Options::read(
        &ROWS,
        &[
            size("peers", 96, 10),
            size("rate", 200, 50),
            size("seconds", 60, 3),
        ],
    );
    let folder = Folder::new(&options);
    for row in ROWS.into_iter().filter(|row| options.wants(row)) {
        measure(row, &options, &folder);
    }
}

fn measure(row: &str, options: &Options, folder: &Folder) {
    let repository = folder.join(row);
    process::repository(PROGRAM, &repository);
    let daemon = process::daemon(PROGRAM, &repository);
    let time = Duration::from_secs(options.number("seconds"));
    let peers = (row == "crowd").then(|| {
        let address = process::output(
            std::process::Command::new(PROGRAM)
                .args(["id", "-f", "<addrs>"])
                .env("CAIRN_PATH", &repository),
        );
        let address = address.lines().next().expect("an address").to_owned();
        let (peers, rate) = (options.number("peers"), options.number("rate"));
        DhtPeers::start(&address, peers, rate, SETTLING + time + MARGIN)
    });
    std::thread::sleep(SETTLING);
    let before = process::processor_seconds(daemon.id());
    std::thread::sleep(time);
    let used = process::processor_seconds(daemon.id()) - before;
    println!(
        "idle {row}: {:.1} MiB resident, {:.1} at most; {:.2} % of a core",
        mebibytes(&daemon, "VmRSS:"),
        mebibytes(&daemon, "VmHWM:"),
        used / time.as_secs_f64() * 100.0
    );
    if let Some(peers) = peers {
        let (asked, answered) = peers.end();
        println!("  {answered} of {asked} questions were answered");
    }
}

fn mebibytes(daemon: &process::Running, figure: &str) -> f64 {
    process::memory_of(daemon.id(), figure) as f64 / f64::from(1 << 20)
}

const ROWS: [&str; 2] = ["alone", "crowd"];
const PROGRAM: &str = env!("CARGO_BIN_EXE_cairn-measured");
const SETTLING: Duration = Duration::from_secs(10);
/// The peers go on for a little longer than they are watched.
const MARGIN: Duration = Duration::from_secs(3);
