//! Does adding cost more than the least that the disk and the hash demand? Ours is durable when it
//! ends, and so is every floor that writes.
//!
//! `large`: a file of 4 GiB of random bytes, in chunks of 1 MiB and of 256 KiB, without a daemon and
//! through the RPC of one that is running; beside `cp` and `sync` of the copy, `dd conv=fdatasync`,
//! and hashing the chunks in memory in batches on all cores. `nocopy`: such a file where it lies, without a
//! daemon, beside the hashing, and beside reading and hashing it. `small-one`, `small-many`: 100,000 files
//! of 1 to 4 KiB in one folder, and in 1,000 folders; beside `tar` into a pipe, and a plain program
//! that writes each file's block to a temporary file, syncs it, renames it and syncs the folder (a
//! tenth of the files, scaled). `again-one`, `again-many`: the same a second time into the same
//! repository, beside the first time; fails if anything was written to `blocks/`.
//!
//! Needs, with the page cache as warm as it is after writing the input, 12 GiB of disk.

use cairn_store::cid::HashKind;
use cairn_store::hash;
use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, output, run, seconds, seconds_and_peak, tell};
use workloads::row::Row;
use workloads::{file, small_files};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");

fn main() {
    match process::part() {
        None => bench(),
        Some((part, given)) => match (part.as_str(), given.as_slice()) {
            ("hash", [path, chunk]) => hash_in_memory(Path::new(path), chunk),
            ("read-and-hash", [path, chunk]) => read_and_hash(Path::new(path), chunk),
            ("synced-files", [from, to, every]) => {
                synced_files(Path::new(from), Path::new(to), every);
            }
            _ => panic!("no part {part}"),
        },
    }
}

fn bench() {
    let options = Options::read(
        &[
            "large",
            "nocopy",
            "small-one",
            "small-many",
            "again-one",
            "again-many",
        ],
        &[
            size("bytes", 4 << 30, 64 << 20),
            size("files", 100_000, 2_000),
            size("folders", 1000, 20),
        ],
    );
    let folder = Folder::new(&options);
    if options.wants("large") {
        large(&options, &folder);
    }
    if options.wants("nocopy") {
        in_place(&options, &folder);
    }
    for (shape, row, second) in [
        ("in one folder", "small-one", "again-one"),
        ("in folders", "small-many", "again-many"),
    ] {
        if options.wants(row) || options.wants(second) {
            let files = options.count("files");
            let folders = if row == "small-one" {
                1
            } else {
                options.count("folders")
            };
            let tree = folder.join("tree");
            small_files(&tree, 2, files, files.div_ceil(folders));
            disk::sync(&tree);
            let what = format!("{files} files of 1 to 4 KiB {shape}");
            if options.wants(row) {
                small(&options, &folder, &tree, &what);
            }
            if options.wants(second) {
                again(&options, &folder, &tree, &what);
            }
            disk::remove(&tree);
        }
    }
}

fn large(options: &Options, folder: &Folder) {
    let (input, copy) = (folder.join("large"), folder.join("copy"));
    let bytes = options.number("bytes");
    file(&input, 1, bytes);
    disk::sync(&input);
    for (chunk, name) in [(1 << 20, "1 MiB"), (256 << 10, "256 KiB")] {
        let (off, on) = (Cell::new(0), Cell::new(0));
        let chunker = format!("size-{chunk}");
        let arguments = ["add", "-Q", "--progress=false", "-s", &chunker];
        let row = Row::new(
            format!("add one file of {} MiB, chunks of {name}", bytes >> 20),
            bytes as f64 / 1e6,
            "MB",
        )
        .contestant("ours, without a daemon", || {
            let repository = fresh(folder);
            let (seconds, peak) = seconds_and_peak(&mut cairn(&repository, &arguments, &input));
            off.set(peak.max(off.get()));
            seconds
        })
        .contestant("ours, through a daemon", || {
            let repository = fresh(folder);
            let daemon = process::daemon(CAIRN, &repository);
            let seconds = seconds(|| run(&mut cairn(&repository, &arguments, &input)));
            let peak = process::memory_of(daemon.id(), "VmHWM:");
            on.set(peak.max(on.get()));
            seconds
        })
        .contestant("cp + sync", || {
            disk::remove(&copy);
            disk::sync(folder.path());
            seconds(|| {
                run(Command::new("cp").arg(&input).arg(&copy));
                // The copy and its folder alone: others may be writing to this file system.
                run(Command::new("sync").arg(&copy).arg(folder.path()));
            })
        })
        .contestant("dd conv=fdatasync", || {
            disk::remove(&copy);
            disk::sync(folder.path());
            seconds(|| {
                let (from, to) = (input.display(), copy.display());
                run(Command::new("dd")
                    .args([format!("if={from}"), format!("of={to}")])
                    .args(["bs=1M", "conv=fdatasync", "status=none"]));
            })
        })
        .contestant("hash in memory, all cores", || {
            let told = process::figures("hash", &[&input.display(), &chunk]);
            told.get("seconds").copied().unwrap_or(f64::NAN)
        });
        row.run(options.rounds()).print();
        println!(
            "  peak memory of the process that stores: {:.1} MiB without a daemon, {:.1} MiB in it",
            off.get() as f64 / f64::from(1 << 20),
            on.get() as f64 / f64::from(1 << 20)
        );
        disk::remove(&copy);
        disk::remove(&folder.join("repository"));
    }
    disk::remove(&input);
}

fn in_place(options: &Options, folder: &Folder) {
    let input = folder.join("large");
    let bytes = options.number("bytes");
    file(&input, 1, bytes);
    disk::sync(&input);
    let peak_so_far = Cell::new(0);
    let chunk = 1 << 20;
    Row::new(
        format!("add one file of {} MiB in place", bytes >> 20),
        bytes as f64 / 1e6,
        "MB",
    )
    .contestant("ours, --nocopy", || {
        let repository = fresh(folder);
        let arguments = ["add", "-Q", "--progress=false", "--nocopy"];
        let (seconds, peak) = seconds_and_peak(&mut cairn(&repository, &arguments, &input));
        peak_so_far.set(peak.max(peak_so_far.get()));
        seconds
    })
    .contestant("hash in memory, all cores", || {
        let told = process::figures("hash", &[&input.display(), &chunk]);
        told.get("seconds").copied().unwrap_or(f64::NAN)
    })
    .contestant("read and hash, all cores", || {
        let told = process::figures("read-and-hash", &[&input.display(), &chunk]);
        told.get("seconds").copied().unwrap_or(f64::NAN)
    })
    .run(options.rounds())
    .print();
    let repository = folder.join("repository");
    println!(
        "  peak memory {:.1} MiB; the repository has {} bytes",
        peak_so_far.get() as f64 / f64::from(1 << 20),
        disk::used(&repository)
    );
    disk::remove(&repository);
    disk::remove(&input);
}

fn small(options: &Options, folder: &Folder, tree: &Path, what: &str) {
    let files = options.number("files");
    let peak_so_far = Cell::new(0);
    let (every, some) = if options.is_quick() {
        (1, "all of them")
    } else {
        (10, "a tenth, scaled")
    };
    Row::new(format!("add {what}"), files as f64, "files")
        .contestant("ours, durable", || {
            let repository = fresh(folder);
            let (seconds, peak) = seconds_and_peak(&mut add_tree(&repository, tree));
            peak_so_far.set(peak.max(peak_so_far.get()));
            seconds
        })
        .contestant("tar into a pipe", || {
            seconds(|| {
                let mut tar = Command::new("tar")
                    .arg("cf")
                    .arg("-")
                    .arg("-C")
                    .arg(tree)
                    .arg(".")
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("tar");
                let pipe = tar.stdout.take().expect("piped");
                // Into /dev/null itself, GNU tar would not read a single file.
                let cat = Command::new("cat")
                    .stdin(pipe)
                    .stdout(Stdio::null())
                    .status();
                assert!(cat.expect("cat").success() && tar.wait().expect("tar").success());
            })
        })
        .contestant(format!("one synced file a block ({some})"), || {
            let to = folder.join("files");
            disk::remove(&to);
            disk::sync(folder.path());
            let given: [&dyn std::fmt::Display; 3] = [&tree.display(), &to.display(), &every];
            let told = process::figures("synced-files", &given);
            let figure = |name| told.get(name).copied().unwrap_or(f64::NAN);
            figure("seconds") * files as f64 / figure("files")
        })
        .run(options.rounds())
        .print();
    println!(
        "  peak memory: {:.1} MiB",
        peak_so_far.get() as f64 / f64::from(1 << 20)
    );
    disk::remove(&folder.join("files"));
    disk::remove(&folder.join("repository"));
}

fn again(options: &Options, folder: &Folder, tree: &Path, what: &str) {
    let repository = folder.join("repository");
    let first_time = Cell::new(0.0);
    let wrote = Cell::new(0);
    Row::new(
        format!("add {what} again"),
        options.number("files") as f64,
        "files",
    )
    .contestant("ours, again", || {
        fresh(folder);
        first_time.set(seconds(|| run(&mut add_tree(&repository, tree))));
        let before = log_bytes(&repository);
        let stat = stat(&repository);
        let seconds = seconds(|| run(&mut add_tree(&repository, tree)));
        assert_eq!(log_bytes(&repository), before, "no new data");
        assert_eq!(self::stat(&repository), stat, "no new blocks");
        wrote.set(before);
        seconds
    })
    // Of the same round: the turns of this row are of one contestant alone.
    .contestant("ours, the first time", || first_time.get())
    .run_in_order(options.rounds())
    .print();
    println!(
        "  blocks/ holds {} bytes of segments before and after",
        wrote.get()
    );
    disk::remove(&repository);
}

fn cairn(repository: &Path, arguments: &[&str], input: &Path) -> Command {
    let mut command = Command::new(CAIRN);
    command
        .args(arguments)
        .arg(input)
        .env("CAIRN_PATH", repository);
    command
}

fn add_tree(repository: &Path, tree: &Path) -> Command {
    cairn(repository, &["add", "-r", "-Q", "--progress=false"], tree)
}

/// Blocks and their bytes, as `repo stat` tells them.
fn stat(repository: &Path) -> Vec<String> {
    let text = output(
        Command::new(CAIRN)
            .args(["repo", "stat"])
            .env("CAIRN_PATH", repository),
    );
    let told = text
        .lines()
        .filter(|line| line.starts_with("NumObjects") || line.starts_with("RepoSize"));
    let told: Vec<_> = told.map(str::to_owned).collect();
    assert!(!told.is_empty(), "{text}");
    told
}

/// Bytes of the segments.
fn log_bytes(repository: &Path) -> u64 {
    let mut bytes = 0;
    disk::each(&repository.join("blocks"), &mut |path| {
        if path.extension().is_some_and(|extension| extension == "car") {
            bytes += fs::metadata(path).expect("segment").len();
        }
    });
    bytes
}

/// An empty repository, with nothing left for the disk to write.
fn fresh(folder: &Folder) -> PathBuf {
    let repository = folder.join("repository");
    process::repository(CAIRN, &repository);
    disk::sync(folder.path());
    repository
}

/// In a child: hashes a file's chunks, which are in memory already, on all cores.
fn hash_in_memory(path: &Path, chunk: &str) {
    let mut bytes = Vec::new();
    let mut file = File::open(path).expect("open");
    file.read_to_end(&mut bytes).expect("read");
    let chunk: usize = chunk.parse().expect("bytes");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let batches: Vec<&[u8]> = bytes.chunks(chunk * hash::BATCH).collect();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for core in 0..cores {
            let batches = &batches;
            scope.spawn(move || {
                for batch in batches.iter().skip(core).step_by(cores) {
                    let chunks: Vec<&[u8]> = batch.chunks(chunk).collect();
                    let digests = hash::digest_many(HashKind::Sha2_256, &chunks);
                    std::hint::black_box(digests.expect("digests"));
                }
            });
        }
    });
    tell("seconds", begun.elapsed().as_secs_f64());
}

/// In a child: every core reads its part of the file and hashes it, as much at once as fills the lanes.
fn read_and_hash(path: &Path, chunk: &str) {
    let chunk: usize = chunk.parse().expect("bytes");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for core in 0..cores {
            scope.spawn(move || {
                let file = File::open(path).expect("open");
                let mut batch = vec![0; chunk * hash::BATCH];
                let mut at = core as u64 * batch.len() as u64;
                loop {
                    let mut read = 0;
                    while let Some(rest) = batch.get_mut(read..).filter(|rest| !rest.is_empty()) {
                        match file.read_at(rest, at + read as u64).expect("read") {
                            0 => break,
                            more => read += more,
                        }
                    }
                    let chunks: Vec<&[u8]> = batch
                        .get(..read)
                        .unwrap_or_default()
                        .chunks(chunk)
                        .collect();
                    if chunks.is_empty() {
                        break;
                    }
                    let digests = hash::digest_many(HashKind::Sha2_256, &chunks);
                    std::hint::black_box(digests.expect("digests"));
                    at += (cores * batch.len()) as u64;
                }
            });
        }
    });
    tell("seconds", begun.elapsed().as_secs_f64());
}

/// In a child: the block of every so many files below `from` as a synced file in `to`.
fn synced_files(from: &Path, to: &Path, every: &str) {
    let mut all = Vec::new();
    disk::each(from, &mut |path| {
        if path.is_file() {
            all.push(path.to_owned());
        }
    });
    for first in 0..=255u8 {
        fs::create_dir_all(to.join(format!("{first:02x}"))).expect("folder");
    }
    let some: Vec<_> = all
        .iter()
        .step_by(every.parse().expect("a number"))
        .collect();
    let begun = Instant::now();
    for path in &some {
        let bytes = fs::read(path).expect("read");
        let digest = hash::digest(HashKind::Sha2_256, &bytes).expect("digest");
        let name: String = digest
            .digest()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let folder = to.join(name.get(..2).unwrap_or_default());
        let temporary = to.join("temporary");
        let mut file = File::create(&temporary).expect("create");
        file.write_all(&bytes).expect("write");
        file.sync_all().expect("sync");
        fs::rename(&temporary, folder.join(&name)).expect("rename");
        let folder = File::open(folder).expect("folder");
        folder.sync_all().expect("sync");
    }
    tell("seconds", begun.elapsed().as_secs_f64());
    tell("files", some.len() as f64);
}
