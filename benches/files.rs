//! What does a change of the file tree cost in a large folder, and how fast is a file written in small pieces?
//!
//! `folder`: 100,000 files in one folder. Copies, moves, listings (the first 100 lines) and looks at an entry, one
//! after the other, each durable when it returns; the time that half and 99 of 100 of them take at most. `write`: a
//! file of 1 GiB in pieces of 64 KiB, each a write of its own that is not flushed, and a flush at the end, beside `dd` of
//! the same with `conv=fdatasync`. Both work through the store's interface, as a daemon does, without HTTP.
//!
//! Needs 3 GB of disk.

use bytes::Bytes;
use cairn_store::Store;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::dag::Budget;
use cairn_store::files::{
    Change, Copy, Files, FilesPath, Flush, Overwrite, Parents, Remove, WriteOptions,
};
use cairn_store::sink::BlockSink;
use cairn_store::store::Keep;
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::read::Node;
use futures::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, seconds};
use workloads::row::Row;
use workloads::waits::percentile;

fn main() {
    let options = Options::read(
        &["folder", "write"],
        &[
            size("entries", 100_000, 10_000),
            size("operations", 1000, 50),
            size("file", 1 << 30, 64 << 20),
            size("piece", 64 << 10, 64 << 10),
        ],
    );
    let folder = Folder::new(&options);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    if options.wants("folder") {
        runtime.block_on(in_a_large_folder(
            &folder.join("folder"),
            options.number("entries"),
            options.number("operations"),
        ));
    }
    if options.wants("write") {
        write_in_pieces(
            &folder,
            &runtime,
            options.number("file"),
            options.count("piece"),
            options.rounds(),
        );
    }
}

fn open(path: &Path) -> (Store, Files) {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let store = Store::open(path, &config, &mut |_| {}).expect("a store");
    let files = Files::new(store.clone(), Profile::v1_2025()).expect("a tree");
    (store, files)
}

fn path(text: &str) -> FilesPath {
    FilesPath::parse(text).expect("a path")
}

async fn in_a_large_folder(place: &Path, entries: u64, operations: u64) {
    let (store, files) = open(place);
    let made = Instant::now();
    let mut writer = store.writer(Keep::Kept);
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let mut changes = Vec::new();
    for at in 0..entries {
        let block = Block::new(prefix, Bytes::from(format!("file {at}"))).expect("a block");
        changes.push(Change::Put {
            path: path(&format!("/large/file {at}")),
            cid: *block.cid(),
            tsize: block.data().len() as u64,
        });
        writer.put(vec![block]).expect("put");
    }
    let whole = vec![writer.into_whole()];
    let applied = files.apply(&store, changes, whole, Flush::Now).await;
    applied.expect("a large folder");
    println!(
        "a folder of {entries} files (made in one change, {:.1} s)",
        made.elapsed().as_secs_f64()
    );
    let mut random = StdRng::seed_from_u64(1);
    for operation in ["cp", "mv", "rm", "stat", "ls, 100 lines"] {
        let mut took = Vec::new();
        for at in 0..operations {
            let any = path(&format!("/large/file {}", random.random_range(0..entries)));
            let (copied, moved) = (
                path(&format!("/large/copy {at}")),
                path(&format!("/large/moved {at}")),
            );
            let begun = Instant::now();
            match operation {
                "cp" => files
                    .copy(
                        &store,
                        Copy::Path(any),
                        &copied,
                        Parents::There,
                        Overwrite::Nothing,
                        Flush::Now,
                    )
                    .await
                    .expect("cp"),
                "mv" => files
                    .move_to(&store, &copied, &moved, Flush::Now)
                    .await
                    .expect("mv"),
                "rm" => files
                    .remove(&store, &moved, Remove::File, Flush::Now)
                    .await
                    .expect("rm"),
                "stat" => drop(files.stat(&store, &any).await.expect("stat")),
                _ => {
                    let opened = files.open(&store, &path("/large")).await.expect("ls");
                    let Node::Directory(folder) = opened.node else {
                        panic!("no folder");
                    };
                    let listed = folder.entries(opened.view, Budget::OPERATOR).take(100);
                    let lines = listed.map(|entry| entry.expect("an entry")).count().await;
                    assert_eq!(lines, 100);
                }
            }
            took.push(begun.elapsed().as_secs_f64());
        }
        let at = |share| percentile(took.iter().copied(), share) * 1000.0;
        println!(
            "  {operation:<14} {:>8.3} ms (p50) {:>8.3} ms (p99), {operations} operations",
            at(0.5),
            at(0.99)
        );
    }
    store.close().await.expect("close");
}

fn write_in_pieces(
    folder: &Folder,
    runtime: &tokio::runtime::Runtime,
    bytes: u64,
    piece: usize,
    rounds: usize,
) {
    let source = folder.join("source");
    workloads::file(&source, 2, bytes);
    disk::warm(&source);
    let content = std::fs::read(&source).expect("the file");
    let content = Bytes::from(content);
    let ours = || {
        let place = folder.join("repository");
        disk::remove(&place);
        let (store, files) = open(&place);
        let took = seconds(|| runtime.block_on(write(&store, &files, &content, piece)));
        runtime.block_on(store.close()).expect("close");
        took
    };
    let dd = || {
        let target = folder.join("copied");
        disk::remove(&target);
        let mut command = Command::new("dd");
        command
            .arg(format!("if={}", source.display()))
            .arg(format!("of={}", target.display()))
            .arg(format!("bs={piece}"))
            .arg("conv=fdatasync")
            .stderr(Stdio::null());
        seconds(|| process::run(&mut command))
    };
    let work = format!("write {} MiB in pieces of {piece} bytes", bytes >> 20);
    Row::new(work, bytes as f64 / 1e6, "MB")
        .contestant("ours, flushed at the end", ours)
        .contestant("dd conv=fdatasync", dd)
        .run(rounds)
        .print();
}

async fn write(store: &Store, files: &Files, content: &Bytes, piece: usize) {
    let path = path("/file");
    let mut at = 0;
    while at < content.len() {
        let end = content.len().min(at + piece);
        let options = WriteOptions {
            offset: at as u64,
            create: true,
            flush: Flush::Later,
            ..WriteOptions::default()
        };
        let data = stream::iter([Ok::<_, String>(content.slice(at..end))]);
        let written = files.write(store, &path, options, data).await;
        written.expect("write");
        at = end;
    }
    files.flush_all().await.expect("flush");
}
