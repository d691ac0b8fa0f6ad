//! How much slower than `cat` is reading a file back, when all of it is in the page cache?

use std::process::{Command, Stdio};
use workloads::{compare, file, run, seconds};

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-measured");
const BYTES: u64 = 1 << 30;
const ROUNDS: usize = 7;

fn main() {
    let folder = tempfile::tempdir_in(".").expect("temporary folder");
    let repository = folder.path().join("repository");
    let path = folder.path().join("file");
    file(&path, 3, BYTES);
    let cairn = |arguments: &[&str]| {
        let mut command = Command::new(CAIRN);
        command.args(arguments).env("CAIRN_PATH", &repository);
        command
    };
    run(&mut cairn(&["init"]));
    let path = path.to_string_lossy().into_owned();
    let output = cairn(&["add", "-Q", &path])
        .stderr(Stdio::inherit())
        .output()
        .expect("add");
    let root = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let into_pipe = |command: &mut Command| {
        // A pipe on both sides: writing to /dev/null would cost `cat` nothing at all.
        let mut reader = Command::new("cat");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("spawn");
        let stdout = child.stdout.take().expect("piped");
        seconds(|| {
            let status = reader
                .stdin(stdout)
                .stdout(Stdio::null())
                .status()
                .expect("cat");
            assert!(status.success() && child.wait().expect("wait").success());
        })
    };
    compare(
        "cat 1 GiB, warm | cat",
        ROUNDS,
        || into_pipe(&mut cairn(&["cat", &root])),
        || into_pipe(Command::new("cat").arg(&path)),
    )
    .print(BYTES as f64 / 1e6, "MB");
}
