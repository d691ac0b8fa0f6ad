//! The real program: run to its end, or as a daemon.

use crate::http::{self, Answer};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// A repository in a temporary folder or where it was put, and the program to run over it. It listens
/// on loopback, on ports that the system chooses.
#[derive(Debug)]
pub struct Repo {
    /// What is run: the program, after whatever runs it.
    program: Vec<OsString>,
    path: PathBuf,
    /// Removed with the last who uses it.
    folder: Option<Arc<TempDir>>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Done {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

impl Done {
    /// Standard output as text, without the last line end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Fails the test unless the exit code was 0.
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Fails the test unless the run ended with `code` and one line on standard error.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        self.stderr.trim_end().to_owned()
    }
}

impl Repo {
    /// An initialised repository. `program` is `env!("CARGO_BIN_EXE_cairn-under-test")`.
    pub fn new(program: &str) -> Self {
        Self::empty(program).init()
    }

    /// An initialised repository at `path`, which stays when this is dropped.
    pub fn new_at(program: &str, path: &Path) -> Self {
        let repo = Self {
            program: vec![program.into()],
            path: path.to_owned(),
            folder: None,
        };
        repo.init()
    }

    fn init(self) -> Self {
        let repo = self;
        repo.run(["init"]).success();
        let loopback = r#"["/ip4/127.0.0.1/tcp/0"]"#;
        repo.run(["config", "set", "addresses.swarm", loopback])
            .success();
        for key in ["addresses.rpc", "addresses.gateway"] {
            repo.run(["config", "set", key, "/ip4/127.0.0.1/tcp/0"])
                .success();
        }
        // Nor are the lists in /etc.
        repo.run(["config", "set", "denylists.system", "false"])
            .success();
        // Test machines are small; the limit has a test of its own.
        repo.run(["config", "set", "storage.reserve", "0"])
            .success();
        repo
    }

    /// A folder that no repository was made in yet.
    pub fn empty(program: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        Self {
            program: vec![program.into()],
            path: folder.path().to_owned(),
            folder: Some(Arc::new(folder)),
        }
    }

    /// The same repository, with the program run by `runner`: a command that ends by becoming it.
    pub fn under<A: Into<OsString>>(&self, runner: impl IntoIterator<Item = A>) -> Self {
        let runner = runner.into_iter().map(A::into);
        Self {
            program: runner.chain(self.program.iter().cloned()).collect(),
            path: self.path.clone(),
            folder: self.folder.clone(),
        }
    }

    /// The same repository, reached by another name of its folder.
    pub fn at(&self, path: &Path) -> Self {
        Self {
            program: self.program.clone(),
            path: path.to_owned(),
            folder: self.folder.clone(),
        }
    }

    /// The repository's folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The program over this repository, not started yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut program = self.program.iter();
        let mut command = Command::new(program.next().expect("a program"));
        command
            .args(program)
            .args(arguments)
            .env("CAIRN_PATH", self.path())
            // Where nothing is: what this machine denies is no matter of tests.
            .env("XDG_CONFIG_HOME", self.path().join("no-settings"))
            .env_remove("CAIRN_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Done {
        self.run_with(arguments, &[])
    }

    /// Runs the program to its end with something to read on standard input.
    pub fn run_with<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &[u8],
    ) -> Done {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("spawn");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // It may end without reading all of it.
                let _ = stdin.write_all(input);
            });
            let output = child.wait_with_output().expect("wait");
            output.into()
        })
    }

    /// Runs the program, which must succeed, and gives its output as text.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        self.run(arguments).success().text()
    }

    /// Starts a daemon that must end before it is ready.
    #[track_caller]
    pub fn refused_daemon(&self) -> Done {
        let mut child = self.command(["daemon"]).spawn().expect("spawn");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let ready = output
            .lines()
            .any(|line| line.expect("output").contains("Daemon is ready"));
        let _ = child.kill(); // It should have ended by itself.
        let output = child.wait_with_output().expect("wait");
        assert!(!ready, "the daemon started");
        output.into()
    }

    /// Starts the daemon and waits until it is ready.
    pub fn daemon(&self) -> Daemon {
        Daemon::start(self.command(["daemon"]), self.path())
    }
}

/// A running daemon. Killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    output: BufReader<ChildStdout>,
    /// What it printed until it was ready.
    pub lines: Vec<String>,
    repository: PathBuf,
}

impl Daemon {
    /// What one figure at `/metrics` is now: by its name, and its labels if it has several.
    pub fn metric(&self, name: &str) -> f64 {
        let page = http::request(self.rpc(), "GET", "/metrics", &[], b"");
        let page = page.expect("metrics").text();
        let is_named = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        };
        let line = page.lines().find(is_named);
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        value.unwrap_or_else(|| panic!("{name} in {page}"))
    }

    /// Starts `command` over `repository` and waits for `Daemon is ready`.
    pub fn start(command: Command, repository: &Path) -> Self {
        Self::start_logging(command, repository, Stdio::inherit())
    }

    /// The same, with its log going to `log`.
    pub fn start_logging(mut command: Command, repository: &Path, log: impl Into<Stdio>) -> Self {
        let mut child = command.stderr(log).spawn().expect("spawn");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = output.read_line(&mut line).expect("output");
            assert!(read > 0, "the daemon ended before it was ready: {lines:#?}");
            lines.push(line.trim_end().to_owned());
            if line.contains("Daemon is ready") {
                break;
            }
        }
        Self {
            child,
            output,
            lines,
            repository: repository.to_owned(),
        }
    }

    /// Where the RPC listens.
    pub fn rpc(&self) -> SocketAddr {
        self.address_in("api")
    }

    /// Where the gateway listens.
    pub fn gateway(&self) -> SocketAddr {
        self.address_in("gateway")
    }

    /// Its first swarm address over TCP, with its peer ID.
    pub fn swarm(&self) -> String {
        let id = self.call("id", "");
        let addresses = id["Addresses"].as_array().expect("addresses");
        let tcp = addresses.iter().filter_map(|address| address.as_str());
        tcp.into_iter()
            .find(|address| address.contains("/tcp/") && address.contains("/p2p/"))
            .expect("a TCP address")
            .to_owned()
    }

    /// Calls the RPC and reads the answer as JSON.
    #[track_caller]
    pub fn call(&self, command: &str, query: &str) -> serde_json::Value {
        let answer = self.post(command, query);
        assert_eq!(answer.status, 200, "{command}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Calls the RPC.
    pub fn post(&self, command: &str, query: &str) -> Answer {
        let target = format!("/api/v0/{command}?{query}");
        http::request(self.rpc(), "POST", &target, &[], b"").expect("answer")
    }

    /// Fetches from the gateway.
    pub fn get(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        http::request(self.gateway(), "GET", target, headers, b"").expect("answer")
    }

    /// Has its gateway keep something.
    pub fn put(&self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http::request(self.gateway(), "PUT", target, headers, body).expect("answer")
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop and waits; gives the rest of its output.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(Signal::TERM);
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("output");
        (self.child.wait().expect("wait"), rest)
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// The same, while others still talk to it.
    pub fn kill_at_once(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops its clock, so to speak: its connections stay, and nothing comes from it any more.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        send(&self.child, signal);
    }

    fn address_in(&self, file: &str) -> SocketAddr {
        let text = std::fs::read_to_string(self.repository.join(file)).expect(file);
        let parts: Vec<&str> = text.trim().split('/').collect();
        match parts.as_slice() {
            ["", "ip4", ip, "tcp", port, ..] => format!("{ip}:{port}").parse().expect("address"),
            _ => panic!("{file} holds {text:?}"),
        }
    }
}

/// Asks a process to end, as a terminal or an init does.
pub fn end(child: &Child) {
    send(child, Signal::TERM);
}

fn send(child: &Child, signal: Signal) {
    let process = i32::try_from(child.id()).ok();
    let process = process.and_then(Pid::from_raw).expect("pid");
    kill_process(process, signal).expect("signal");
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it was stopped.
        let _ = self.child.wait();
    }
}
