//! How close to just reading and hashing its files does taking over a Kubo repository come? 10 GiB in blocks of 256 KiB,
//! and 1 GiB in blocks of 4 KiB, as flatfs keeps them.
//!
//! `large`, `small`: imported into an empty repository, durable at the end. `-cold`: with the files' pages out of memory.
//! `again`: everything is here already.
//!
//! Floors: several threads that read each file and hash them in batches, and keep nothing; all files into one by `dd`,
//! past the page cache, which is as fast as the disk takes them; `cp -r` and `sync`.
//!
//! Needs 32 GB of disk.

use cairn_store::block::Block;
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::hash;
use cairn_store::kubo::{Records, Source};
use cairn_store::{Store, cid::HashKind};
use data_encoding::BASE32_NOPAD;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use workloads::Numbered;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, seconds, tell};
use workloads::row::Row;

fn main() {
    match process::part() {
        Some((part, given)) => {
            let paths: Vec<&Path> = given.iter().map(Path::new).collect();
            match (&part[..], &paths[..]) {
                ("import", [kubo, repository]) => import(kubo, repository),
                ("hash", [kubo]) => read_and_hash(kubo),
                other => panic!("{other:?}"),
            }
        }
        None => bench(),
    }
}

fn bench() {
    let options = Options::read(
        &["large", "large-cold", "small", "small-cold", "again"],
        &[
            size("large-bytes", 10 << 30, 64 << 20),
            size("small-bytes", 1 << 30, 8 << 20),
        ],
    );
    let folder = Folder::new(&options);
    let repository = folder.join("repository");
    for (rows, bytes, block) in [
        (
            ["large", "large-cold", "again"],
            options.number("large-bytes"),
            256 << 10,
        ),
        (
            ["small", "small-cold", ""],
            options.number("small-bytes"),
            4 << 10,
        ),
    ] {
        if !rows.iter().any(|row| !row.is_empty() && options.wants(row)) {
            continue;
        }
        let kubo = folder.join("kubo");
        fill(&kubo, bytes, block);
        for row in rows
            .into_iter()
            .filter(|row| !row.is_empty() && options.wants(row))
        {
            let before = || {
                disk::sync(&kubo);
                match row.ends_with("-cold") {
                    true => disk::evict(&kubo),
                    false => disk::warm(&kubo),
                }
            };
            let import = || process::figures("import", &[&kubo.display(), &repository.display()]);
            if row == "again" {
                disk::remove(&repository);
                import();
            }
            Row::new(
                format!("import {bytes} bytes in blocks of {block}, {row}"),
                bytes as f64 / 1e6,
                "MB",
            )
            .contestant("ours", || {
                if row != "again" {
                    disk::remove(&repository);
                }
                before();
                let told = import();
                println!("    peak memory {} MB", (told["peak"] / 1e6).round());
                told["seconds"]
            })
            .contestant("read and hash", || {
                before();
                process::figures("hash", &[&kubo.display()])["seconds"]
            })
            .contestant("dd into one file", || {
                let one = folder.join("one");
                before();
                let took = seconds(|| into_one(&kubo, &one));
                disk::remove(&one);
                took
            })
            .contestant("cp -r and sync", || {
                let copy = folder.join("copy");
                disk::remove(&copy);
                before();
                let took = seconds(|| disk::copy(&kubo, &copy));
                disk::remove(&copy);
                took
            })
            .run(options.rounds())
            .print();
        }
        disk::remove(&kubo);
        disk::remove(&repository);
    }
}

/// A Kubo repository with so many bytes in blocks of one size.
fn fill(kubo: &Path, bytes: u64, block: usize) {
    fs::create_dir_all(kubo.join("blocks")).expect("folder");
    fs::write(kubo.join("version"), "18").expect("version");
    let spec = r#"{"Datastore": {"Spec": {"type": "flatfs", "path": "blocks"}}}"#;
    fs::write(kubo.join("config"), spec).expect("config");
    let sharding = "/repo/flatfs/shard/v1/next-to-last/2";
    fs::write(kubo.join("blocks/SHARDING"), sharding).expect("SHARDING");
    let blocks = Numbered::new(7, block);
    let count = bytes / block as u64;
    for first in (0..count).step_by(64) {
        for block in blocks.blocks(first..(first + 64).min(count)) {
            let path = file(kubo, &block);
            fs::create_dir_all(path.parent().expect("shard")).expect("folder");
            fs::write(path, block.data()).expect("block");
        }
    }
}

fn file(kubo: &Path, block: &Block) -> PathBuf {
    let name = BASE32_NOPAD.encode(&block.cid().hash().to_bytes());
    let shard = &name[name.len() - 3..name.len() - 1];
    kubo.join("blocks").join(shard).join(format!("{name}.data"))
}

/// In a child: takes over a repository.
fn import(kubo: &Path, repository: &Path) {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let store =
        runtime.block_on(async { Store::open(repository, &config, &mut |_| {}).expect("store") });
    let source = Arc::new(Source::open(kubo).expect("Kubo repository"));
    let took = seconds(|| {
        let importing = store.import_kubo(source, Records::default(), None, |_| {
            ControlFlow::Continue(())
        });
        let imported = runtime.block_on(importing).expect("import");
        assert_eq!(imported.progress.skipped, 0);
    });
    runtime.block_on(store.close()).expect("close");
    tell("seconds", took);
    tell("peak", process::peak() as f64);
}

/// Writes all blocks into one file, durably.
fn into_one(kubo: &Path, one: &Path) {
    let line = "find \"$0\" -name '*.data' -exec cat {} + \
                | dd of=\"$1\" bs=4M iflag=fullblock oflag=direct conv=fdatasync status=none";
    process::run(Command::new("sh").arg("-c").arg(line).arg(kubo).arg(one));
}

/// In a child: reads every file on several threads and hashes them in batches.
fn read_and_hash(kubo: &Path) {
    let mut files = Vec::new();
    let took = seconds(|| {
        disk::each(&kubo.join("blocks"), &mut |path| {
            if path
                .extension()
                .is_some_and(|extension| extension == "data")
            {
                files.push(path.to_owned());
            }
        });
        let next = Mutex::new(files.chunks(hash::BATCH));
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) * 2 {
                scope.spawn(|| {
                    while let Some(batch) = take(&next) {
                        let read: Vec<Vec<u8>> = batch
                            .iter()
                            .map(|path| fs::read(path).expect("file"))
                            .collect();
                        let views: Vec<&[u8]> = read.iter().map(Vec::as_slice).collect();
                        hash::digest_many(HashKind::Sha2_256, &views).expect("digests");
                    }
                });
            }
        });
    });
    tell("seconds", took);
}

fn take<'a>(next: &Mutex<std::slice::Chunks<'a, PathBuf>>) -> Option<&'a [PathBuf]> {
    next.lock().expect("lock").next()
}
