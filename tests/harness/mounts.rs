//! File systems that a test mounts for itself.
//!
//! A shell in a mount namespace of its own mounts them. Others reach them through the root of its
//! process, `/proc/<process>/root`, and with the shell they go.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A mount namespace, as long as this lives.
#[derive(Debug)]
pub struct Mounts {
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Mounts {
    /// A namespace in which this user may mount. Without one the test is skipped, and says so.
    pub fn new() -> Option<Self> {
        let mount = ["--mount", "--propagation", "private"];
        let ways = [&[][..], &["--user", "--map-root-user"]];
        let made = ways.into_iter().find_map(|way| {
            let mut mounts = Self::start(&[way, &mount].concat())?;
            mounts
                .try_run("mount -t tmpfs none /mnt && umount /mnt")
                .then_some(mounts)
        });
        if made.is_none() {
            crate::tell_skipped("`unshare` gives this user no mount namespace in which to mount");
        }
        made
    }

    fn start(unshare: &[&str]) -> Option<Self> {
        let mut shell = Command::new("unshare")
            .args(unshare)
            .arg("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .ok()?;
        Some(Self {
            input: shell.stdin.take().expect("piped"),
            output: BufReader::new(shell.stdout.take().expect("piped")),
            shell,
        })
    }

    /// Runs a line in the shell; fails the test unless it succeeds.
    #[track_caller]
    pub fn run(&mut self, line: &str) {
        assert!(self.try_run(line), "{line}");
    }

    fn try_run(&mut self, line: &str) -> bool {
        // A shell that has ended answers nothing.
        let _ = writeln!(self.input, "{{ {line}; }} >&2 && echo done || echo failed");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("output");
        answer.trim_end() == "done"
    }

    /// How the rest of the world names what the shell calls `path`.
    pub fn path(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.shell.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
