//! How close does reading back come to reading the plain file? All that is read is checksummed.
//!
//! `cat`: one file of 1 GiB into a pipe, beside `cat` into a pipe. `get`: the same file to the disk,
//! beside `cp -r`. `get-small`: 20,000 files of 1 to 4 KiB in folders of 100, beside `cp -r`; none of
//! them waits for the disk to have what was written. Each `warm`, everything in the page cache, and
//! `cold` (`cat-cold` and so on): the pages of the file and of the whole repository are put out of
//! memory before each turn, for ours and for the floor.
//!
//! Needs 3.5 GB of disk.

use std::path::Path;
use std::process::{Command, Stdio};
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, output, run, seconds};
use workloads::row::Row;
use workloads::{file, small_files};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");

fn main() {
    let options = Options::read(
        &[
            "cat",
            "cat-cold",
            "get",
            "get-cold",
            "get-small",
            "get-small-cold",
        ],
        &[
            size("bytes", 1 << 30, 32 << 20),
            size("files", 20_000, 1_000),
        ],
    );
    let folder = Folder::new(&options);
    let (bytes, files) = (options.number("bytes"), options.count("files"));
    let (large, small) = (folder.join("large"), folder.join("small"));
    file(&large, 3, bytes);
    small_files(&small, 4, files, 100);
    let repository = folder.join("repository");
    process::repository(CAIRN, &repository);
    let add = |path: &Path| {
        let mut command = cairn(&repository, &["add", "-r", "-Q"]);
        output(command.arg(path))
    };
    let (large_root, small_root) = (add(&large), add(&small));

    let megabytes = bytes as f64 / 1e6;
    let name = format!("{} MiB", bytes >> 20);
    for (row, warmth) in [("cat", Warmth::Warm), ("cat-cold", Warmth::Cold)] {
        if options.wants(row) {
            Row::new(format!("cat {name}, {}", warmth.name()), megabytes, "MB")
                .contestant("ours", || {
                    warmth.prepare(&repository);
                    into_pipe(&mut cairn(&repository, &["cat", &large_root]))
                })
                .contestant("cat into a pipe", || {
                    warmth.prepare(&large);
                    into_pipe(Command::new("cat").arg(&large))
                })
                .run(options.rounds())
                .print();
        }
    }
    let trees = [
        ("get", Warmth::Warm, &large, &large_root, megabytes, "MB"),
        (
            "get-cold",
            Warmth::Cold,
            &large,
            &large_root,
            megabytes,
            "MB",
        ),
        (
            "get-small",
            Warmth::Warm,
            &small,
            &small_root,
            files as f64,
            "files",
        ),
        (
            "get-small-cold",
            Warmth::Cold,
            &small,
            &small_root,
            files as f64,
            "files",
        ),
    ];
    for (row, warmth, from, root, amount, unit) in trees {
        if !options.wants(row) {
            continue;
        }
        let what = if unit == "MB" {
            name.clone()
        } else {
            format!("{files} files of 1 to 4 KiB")
        };
        let to = folder.join("to");
        let target = to.display().to_string();
        Row::new(format!("get {what}, {}", warmth.name()), amount, unit)
            .contestant("ours", || {
                clear(&to);
                warmth.prepare(&repository);
                let arguments = ["get", root, "--progress=false", "-o", &target];
                seconds(|| run(&mut cairn(&repository, &arguments)))
            })
            .contestant("cp -r", || {
                clear(&to);
                warmth.prepare(from);
                seconds(|| run(Command::new("cp").arg("-r").arg(from).arg(&to)))
            })
            .run(options.rounds())
            .print();
        // Once, and off the clock: what came out is what went in.
        clear(&to);
        run(&mut cairn(&repository, &["get", root, "-o", &target]));
        run(Command::new("diff").arg("-r").arg(from).arg(&to));
        clear(&to);
    }
}

/// Where the bytes are when the clock starts.
#[derive(Debug, Clone, Copy)]
enum Warmth {
    Warm,
    Cold,
}

impl Warmth {
    const fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }

    fn prepare(self, path: &Path) {
        match self {
            Self::Warm => disk::warm(path),
            Self::Cold => disk::evict(path),
        }
    }
}

fn cairn(repository: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(CAIRN);
    command.args(arguments).env("CAIRN_PATH", repository);
    command
}

/// Removes what the last turn wrote, with nothing of it left for the disk to do.
fn clear(path: &Path) {
    disk::remove(path);
    disk::sync(path.parent().expect("a folder"));
}

fn into_pipe(command: &mut Command) -> f64 {
    // A pipe on both sides: writing to /dev/null would cost `cat` nothing at all.
    let mut child = command.stdout(Stdio::piped()).spawn().expect("spawn");
    let stdout = child.stdout.take().expect("piped");
    seconds(|| {
        let mut reader = Command::new("cat");
        let read = reader.stdin(stdout).stdout(Stdio::null()).status();
        assert!(read.expect("cat").success() && child.wait().expect("wait").success());
    })
}
