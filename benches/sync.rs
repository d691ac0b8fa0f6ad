//! What does it cost to find out that nothing changed, and to bring over the little that did?
//!
//! A folder of 100,000 files of 1 to 4 KiB in 1,000 folders, synced before. `unchanged`: `cairn sync` of it, without a daemon and
//! through one, beside `rsync -a` to a copy that is the same. `changed`: after a hundred files were written anew, each time
//! others.
//!
//! Needs 2 GiB of disk and `rsync`.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, run, seconds};
use workloads::row::Row;
use workloads::small_files;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");

fn main() {
    let options = Options::read(
        &["unchanged", "changed"],
        &[
            size("files", 100_000, 2_000),
            size("folders", 1000, 20),
            size("written", 100, 10),
        ],
    );
    let folder = Folder::new(&options);
    let bench = Bench::new(&options, &folder);
    if options.wants("unchanged") {
        bench.row(&options, "nothing to do", || {});
    }
    if options.wants("changed") {
        let turn = Cell::new(0);
        let written = options.count("written");
        bench.row(&options, &format!("{written} files written anew"), || {
            turn.set(turn.get() + 1);
            bench.write_some(written, turn.get());
        });
    }
}

struct Bench {
    tree: PathBuf,
    copy: PathBuf,
    alone: PathBuf,
    served: PathBuf,
    _daemon: process::Running,
}

impl Bench {
    fn new(options: &Options, folder: &Folder) -> Self {
        let files = options.count("files");
        let tree = folder.join("tree");
        small_files(&tree, 3, files, files.div_ceil(options.count("folders")));
        let (alone, served) = (folder.join("alone"), folder.join("served"));
        for repository in [&alone, &served] {
            process::repository(CAIRN, repository);
        }
        let daemon = process::daemon(CAIRN, &served);
        let bench = Self {
            tree,
            copy: folder.join("copy"),
            alone,
            served,
            _daemon: daemon,
        };
        disk::sync(folder.path());
        // Twice: what was made just now is read once more.
        for _ in 0..2 {
            bench.sync(&bench.alone);
            bench.sync(&bench.served);
            bench.rsync();
            std::thread::sleep(std::time::Duration::from_secs(2));
        }
        bench
    }

    fn row(&self, options: &Options, what: &str, prepare: impl Fn()) {
        Row::new(
            format!("sync {} files, {what}", options.number("files")),
            options.number("files") as f64,
            "files",
        )
        .contestant("ours, without a daemon", || {
            prepare();
            seconds(|| self.sync(&self.alone))
        })
        .contestant("ours, through a daemon", || {
            prepare();
            seconds(|| self.sync(&self.served))
        })
        .contestant("rsync -a", || {
            prepare();
            seconds(|| self.rsync())
        })
        .run(options.rounds())
        .print();
    }

    fn sync(&self, repository: &Path) {
        run(Command::new(CAIRN)
            .args(["sync", "-Q"])
            .arg(&self.tree)
            .env("CAIRN_PATH", repository));
    }

    fn rsync(&self) {
        run(Command::new("rsync")
            .arg("-a")
            .arg(self.tree.join(""))
            .arg(&self.copy));
    }

    /// Others in each turn, with content that was never there.
    fn write_some(&self, count: usize, turn: usize) {
        let mut files = Vec::new();
        disk::each(&self.tree, &mut |path| {
            if path.is_file() {
                files.push(path.to_owned());
            }
        });
        files.sort();
        let step = files.len() / count;
        for file in files.iter().skip(turn % step).step_by(step).take(count) {
            fs::write(file, format!("{turn} {}", file.display())).expect("write");
        }
    }
}
