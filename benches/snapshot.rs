//! How long does a snapshot of 20 GiB take, and how long until it is restored and open?
//!
//! Beside it: `cp -r --reflink=auto` of the same folder, which is not consistent while somebody writes, and
//! `sync -f` of the copy, since a snapshot is on the disk when it is told. On a file system without reflinks
//! that reads and writes all of it: it takes its turn only once then.
//!
//! Needs twice `bytes` of disk, 40 GB.

use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::sink::BlockSink;
use cairn_store::snapshot::Stop;
use cairn_store::store::Keep;
use cairn_store::{BlockSource, Store, snapshot};
use std::path::Path;
use std::process::Command;
use workloads::Numbered;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{run, seconds};
use workloads::row::{Measured, median, thousands};

fn main() {
    let options = Options::read(
        &["snapshot"],
        &[
            size("bytes", 20 << 30, 256 << 20),
            size("block", 256 << 10, 256 << 10),
        ],
    );
    if !options.wants("snapshot") {
        return;
    }
    let folder = Folder::new(&options);
    let (store_folder, copy) = (folder.join("repository"), folder.join("copy"));
    let (bytes, block) = (options.number("bytes"), options.count("block"));
    let blocks = bytes / block as u64;
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let store = open(&store_folder);
    let filled = seconds(|| fill(&store, blocks, block));
    println!("{} blocks put in {filled:.1} s", thousands(blocks as f64));
    let (mut ours, mut restored, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    let mut shared = 0.0;
    for round in 0..options.rounds() {
        // So that the journal and the index are not as they were left.
        let more = Numbered::new(SEED + 1, block).blocks(round as u64..round as u64 + 1);
        runtime.block_on(store.put(more, Keep::Kept)).expect("put");
        let snapshot_folder = copy.clone();
        ours.push(seconds(|| {
            let made = store.snapshot(snapshot_folder, |_| Ok(Vec::new()));
            let made = runtime.block_on(made).expect("snapshot");
            assert!(made.has_index && made.notices.is_empty(), "{made:?}");
            shared = (made.cloned + made.linked) as f64 / made.bytes as f64;
        }));
        let again = folder.join("restored");
        restored.push(seconds(|| {
            snapshot::restore(&copy, &again, &Stop::default(), |_| Ok(Vec::new()))
                .expect("restore");
        }));
        opened.push(seconds(|| {
            let store = open(&again);
            let last = Numbered::new(SEED, block)
                .blocks(blocks - 1..blocks)
                .remove(0);
            let found = runtime.block_on(store.block(last.cid())).expect("get");
            assert_eq!(found, Some(last));
        }));
        disk::remove(&again);
        disk::remove(&copy);
    }
    runtime.block_on(store.close()).expect("close");
    drop(store);
    let floor = seconds(|| {
        let mut copying = Command::new("cp");
        copying.args(["-r", "--reflink=auto"]);
        run(copying.args([&store_folder, &copy]));
        run(Command::new("sync").arg("-f").arg(&copy));
    });
    let gib = bytes as f64 / f64::from(1 << 30);
    Measured::new(
        format!("snapshot of {gib:.1} GiB"),
        gib,
        "GiB",
        vec![
            ("ours".to_owned(), ours),
            ("cp -r --reflink=auto, sync".to_owned(), vec![floor]),
        ],
    )
    .print();
    println!(
        "  {:.1} % of the bytes shared; restored in {:.2} s, opened and one block read in {:.2} s",
        shared * 100.0,
        median(&restored),
        median(&opened)
    );
}

fn open(folder: &Path) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    Store::open(folder, &config, &mut |event| println!("{event:?}")).expect("open")
}

fn fill(store: &Store, blocks: u64, block: usize) {
    let numbered = Numbered::new(SEED, block);
    let mut writer = store.writer(Keep::Kept);
    let mut at = 0;
    while at < blocks {
        let end = (at + BATCH).min(blocks);
        writer.put(numbered.blocks(at..end)).expect("put");
        at = end;
    }
    writer.commit().expect("commit");
}

const SEED: u64 = 8;
/// Blocks put at once.
const BATCH: u64 = 64;
