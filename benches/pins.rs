//! What do many pins cost: how many are made in a second, how long does it take to list them all, and how long do single
//! changes take among them?
//!
//! `pins` (1,000,000) blocks of 32 bytes are put first. Then a daemon without a network is asked, over its RPC, to pin them
//! `request` (10,000) at a time, to list all of them, as lines and as one value, and to unpin and pin again single ones
//! (`singles`, 200), of which the median and the longest count. In the end what it has resident is compared with what it had
//! before there were pins, it is killed, and timed from its start until it is ready. Listing is repeated `rounds` times.
//!
//! Beside: the aims, 20,000 a second, 1 s and 5 ms.
//!
//! Needs 500 MB of disk.

use cairn_store::Store;
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::store::Keep;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use workloads::Numbered;
use workloads::disk::Folder;
use workloads::options::{Options, size};
use workloads::process::{self, seconds};
use workloads::row::{median, thousands};

fn main() {
    if let Some((part, given)) = process::part() {
        assert_eq!(part, "fill");
        return fill(&given);
    }
    let options = Options::read(
        &["pins"],
        &[
            size("pins", 1_000_000, 5_000),
            size("request", 10_000, 1_000),
            size("singles", 200, 20),
        ],
    );
    if options.wants("pins") {
        measure(&options, &Folder::new(&options));
    }
}

fn measure(options: &Options, folder: &Folder) {
    let repository = folder.join("pins");
    process::repository(PROGRAM, &repository);
    let (pins, request) = (options.number("pins"), options.number("request"));
    process::figures("fill", &[&repository.display(), &pins]);
    let numbered = Numbered::new(SEED, BYTES);
    let mut cids = Vec::new();
    let mut at = 0;
    while at < pins {
        let end = (at + BATCH).min(pins);
        let blocks = numbered.blocks(at..end);
        cids.extend(blocks.iter().map(|block| block.cid().to_string()));
        at = end;
    }

    let daemon = Daemon::start(&repository);
    let before = process::memory_of(daemon.running.id(), "VmRSS:");
    let forms: Vec<String> = cids
        .chunks(usize::try_from(request).expect("fits"))
        .map(form)
        .collect();
    let adding = seconds(|| {
        for form in &forms {
            let told = daemon.ask("pin/add", form);
            assert!(told.contains("\"Pins\""), "{told}");
        }
    });
    println!("{} pins", thousands(pins as f64));
    let rate = pins as f64 / adding;
    println!(
        "  made: {} a second, {} in a request ({:.2} of 20,000)",
        thousands(rate),
        thousands(request as f64),
        rate / 20_000.0
    );

    for (how, query) in [
        ("lines", "stream=true"),
        ("lines with names", "stream=true&names=true&type=recursive"),
        ("one value", "type=recursive"),
    ] {
        let mut bytes = 0;
        let rounds =
            (0..options.rounds()).map(|_| seconds(|| bytes = daemon.read("pin/ls", query)));
        let rounds: Vec<f64> = rounds.collect();
        println!(
            "  listed as {how}: {:.3} s, {} bytes (aim: 1 s)",
            median(&rounds),
            thousands(bytes as f64)
        );
    }
    let command = seconds(|| {
        process::run(
            std::process::Command::new(PROGRAM)
                .args(["pin", "ls"])
                .env("CAIRN_PATH", &repository),
        );
    });
    println!("  listed by `cairn pin ls`: {command:.3} s");

    let singles = options.number("singles");
    let step = (pins / singles.max(1)).max(1);
    for (how, command) in [("unpinned", "pin/rm"), ("pinned", "pin/add")] {
        let each = (0..singles).map(|at| {
            let at = usize::try_from(at * step).expect("fits");
            let form = form(&cids[at..=at]);
            seconds(|| drop(daemon.ask(command, &form))) * 1000.0
        });
        let each: Vec<f64> = each.collect();
        let longest = each.iter().copied().fold(0.0, f64::max);
        println!(
            "  one {how}: {:.2} ms, {longest:.2} ms at most (aim: 5 ms)",
            median(&each)
        );
    }

    let after = process::memory_of(daemon.running.id(), "VmRSS:");
    let each = after.saturating_sub(before) as f64 / pins as f64;
    println!("  resident: {each:.0} bytes a pin more than before");
    drop(daemon);
    let mut daemon = None;
    let opening = seconds(|| daemon = Some(Daemon::start(&repository)));
    let resident = daemon.map_or(0, |daemon| {
        process::memory_of(daemon.running.id(), "VmRSS:")
    });
    println!(
        "  after a kill: ready in {opening:.2} s, {:.0} bytes a pin more resident than before there were any",
        resident.saturating_sub(before) as f64 / pins as f64
    );
}

fn form(cids: &[String]) -> String {
    cids.iter().map(|cid| format!("arg={cid}&")).collect()
}

/// In a child: puts the blocks.
fn fill(given: &[String]) {
    let [folder, pins] = given else {
        panic!("two arguments")
    };
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let store = Store::open(Path::new(folder), &config, &mut |event| {
        println!("{event:?}");
    })
    .expect("open");
    let pins: u64 = pins.parse().expect("a number");
    let numbered = Numbered::new(SEED, BYTES);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let mut at = 0;
    while at < pins {
        let end = (at + BATCH).min(pins);
        let put = store.put(numbered.blocks(at..end), Keep::Kept);
        runtime.block_on(put).expect("put");
        at = end;
    }
    runtime.block_on(store.close()).expect("close");
}

/// A daemon without a network, and where it takes commands.
struct Daemon {
    running: process::Running,
    rpc: SocketAddr,
}

impl Daemon {
    fn start(repository: &Path) -> Self {
        let mut command = std::process::Command::new(PROGRAM);
        command
            .args(["daemon", "--offline"])
            .env("CAIRN_PATH", repository);
        let mut running = process::Running::start(&mut command);
        running.wait_for("Daemon is ready");
        let told = std::fs::read_to_string(repository.join("api")).expect("api");
        let mut parts = told.trim().split('/').skip(2).step_by(2);
        let (ip, port) = (
            parts.next().expect("an address"),
            parts.next().expect("a port"),
        );
        let rpc = format!("{ip}:{port}").parse().expect("an address");
        Self { running, rpc }
    }

    /// Sends a request with arguments in its body.
    fn send(&self, command: &str, query: &str, form: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.rpc).expect("connect");
        let head = format!(
            "POST /api/v0/{command}?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTE: trailers\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
            form.len()
        );
        stream.write_all(head.as_bytes()).expect("send");
        stream.write_all(form.as_bytes()).expect("send");
        let mut answer = BufReader::with_capacity(1 << 20, stream);
        let mut status = String::new();
        answer.read_line(&mut status).expect("answer");
        assert!(status.contains(" 200 "), "{command}: {status}");
        answer
    }

    fn ask(&self, command: &str, form: &str) -> String {
        let mut told = String::new();
        let mut answer = self.send(command, "", form);
        answer.read_to_string(&mut told).expect("answer");
        told
    }

    /// Reads an answer to its end, and gives how long it was.
    fn read(&self, command: &str, query: &str) -> u64 {
        let mut answer = self.send(command, query, "");
        let bytes = std::io::copy(&mut answer, &mut std::io::sink());
        bytes.expect("answer")
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_cairn-measured");
const SEED: u64 = 83;
const BYTES: usize = 32;
const BATCH: u64 = 10_000;
