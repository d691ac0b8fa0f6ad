//! Does adding cost more than copying? One large file beside `cp` and `sync`; many small files
//! beside `cp -r` and `sync`. Ours is durable when it ends, and so is the floor.

use std::fs;
use std::path::Path;
use std::process::Command;
use workloads::{Row, compare, file, peak_memory, run, seconds, small_files};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");
const LARGE: u64 = 2 << 30;
const SMALL_FILES: usize = 20_000;
const ROUNDS: usize = 5;

fn main() {
    let folder = tempfile::tempdir_in(".").expect("temporary folder");
    let (large, small) = (folder.path().join("large"), folder.path().join("small"));
    file(&large, 1, LARGE);
    small_files(&small, 2, SMALL_FILES);
    run(&mut Command::new("sync"));

    beside_cp("add one file of 2 GiB | cp + sync", folder.path(), &large)
        .print(LARGE as f64 / 1e6, "MB");
    beside_cp(
        "add 20,000 files of 1 to 4 KiB | cp -r + sync",
        folder.path(),
        &small,
    )
    .print(SMALL_FILES as f64, "files");

    let repository = fresh(folder.path());
    let large = large.to_string_lossy().into_owned();
    let peak = peak_memory(Path::new(CAIRN), &["add", "-Q", &large], &repository);
    println!(
        "peak memory of adding 2 GiB: {:.1} MiB",
        peak as f64 / (1 << 20) as f64
    );
}

fn beside_cp(work: &'static str, folder: &Path, source: &Path) -> Row {
    let copy = folder.join("copy");
    compare(
        work,
        ROUNDS,
        || {
            let repository = fresh(folder);
            seconds(|| {
                run(Command::new(CAIRN)
                    .args(["add", "-r", "-Q"])
                    .arg(source)
                    .env("CAIRN_PATH", &repository));
            })
        },
        || {
            run(Command::new("rm").arg("-rf").arg(&copy));
            run(&mut Command::new("sync"));
            seconds(|| {
                run(Command::new("cp").arg("-r").arg(source).arg(&copy));
                run(Command::new("sync").arg("-f").arg(folder));
            })
        },
    )
}

/// An empty repository, with nothing left for the disk to write.
fn fresh(folder: &Path) -> std::path::PathBuf {
    let repository = folder.join("repository");
    if repository.exists() {
        fs::remove_dir_all(&repository).expect("remove");
    }
    run(Command::new(CAIRN)
        .arg("init")
        .env("CAIRN_PATH", &repository));
    run(&mut Command::new("sync"));
    repository
}
