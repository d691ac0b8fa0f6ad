//! Memory, bytes written, children that are spoken with, a daemon.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Runs a command to its end, which must be a good one, with its output thrown away.
pub fn run(command: &mut Command) {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("spawn");
    assert!(status.success(), "{command:?}: {status}");
}

/// Runs a command to its end, which must be a good one; its output as text, without the last line
/// end.
pub fn output(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("spawn");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned()
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Seconds that a command takes to its good end, and the most memory that it had resident, looked
/// at every few milliseconds.
pub fn seconds_and_peak(command: &mut Command) -> (f64, u64) {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn");
    let process = child.id();
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watch = scope.spawn(move || {
            let mut peak = 0;
            while end.recv_timeout(LOOK_EVERY).is_err() {
                peak = memory_of(process, "VmHWM:").max(peak);
            }
            peak
        });
        let status = child.wait().expect("wait");
        let seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{command:?}: {status}");
        ended.send(()).expect("the watch waits");
        (seconds, watch.join().expect("watch"))
    })
}

/// How many bytes a process has read so far, of files whether they were in memory or not.
pub fn read_by(process: u32) -> u64 {
    let told = fs::read_to_string(format!("/proc/{process}/io")).expect("what it read");
    let line = told.lines().find_map(|line| line.strip_prefix("rchar:"));
    line.and_then(|bytes| bytes.trim().parse().ok())
        .expect("a number of bytes")
}

/// A figure of bytes in a process' status: `VmRSS:` what is resident, `VmHWM:` the most that was.
pub fn memory_of(process: u32, figure: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(figure));
    let kilobytes: Option<u64> =
        line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Lets this process and its children have so many files open, or as many as the system lets them.
pub fn open_files(count: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(count).min(count);
    let current = Some(limit.current.map_or(most, |current| current.max(most)));
    // As many as there are, then.
    let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
}

/// Seconds of processor time that a process has used, all its threads together.
pub fn processor_seconds(process: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, which may hold anything, ends with the last bracket; these are fields 14 and 15.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks / TICKS_A_SECOND
}

/// What this process has resident.
pub fn resident() -> u64 {
    memory_of(std::process::id(), "VmRSS:")
}

/// The most that this process had resident.
pub fn peak() -> u64 {
    memory_of(std::process::id(), "VmHWM:")
}

/// Bytes that this process made the disk write, or will.
pub fn written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").expect("/proc/self/io");
    text.lines()
        .find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok())
        .expect("write_bytes")
}

/// Nanoseconds of a clock that all processes of this machine share.
pub fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("after boot");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("positive")
}

/// What a child measured, by name.
pub type Figures = BTreeMap<String, f64>;

/// In a child: which part it plays, and what it was given. `None` in the bench itself. From here on
/// the child ends with the bench, however that ends.
pub fn part() -> Option<(String, Vec<String>)> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != CHILD {
        return None;
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("to die with the bench");
    Some((arguments.next()?, arguments.collect()))
}

/// In a child: tells the bench a figure.
pub fn tell(name: &str, figure: f64) {
    println!("{name} {figure}");
}

/// This program again, to play a part in a process of its own, so that its memory is its own.
pub fn child(part: &str, given: &[&dyn std::fmt::Display]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.arg(CHILD).arg(part);
    command.args(given.iter().map(ToString::to_string));
    command
}

/// The same command, given what time others leave.
pub fn with_what_is_left(command: &Command) -> Command {
    let mut nice = Command::new("nice");
    nice.args(["-n", "19"]).arg(command.get_program());
    nice.args(command.get_args());
    nice
}

/// Runs a child to its end; what it told.
pub fn figures(part: &str, given: &[&dyn std::fmt::Display]) -> Figures {
    let text = output(&mut child(part, given));
    let told = text.lines().filter_map(|line| {
        let (name, figure) = line.split_once(' ')?;
        Some((name.to_owned(), figure.parse().ok()?))
    });
    told.collect()
}

/// A process whose lines are read as they come. Killed, as `kill -9` does, when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, output }
    }

    /// Waits for a line that starts with `beginning`; the rest of it.
    pub fn wait_for(&mut self, beginning: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).expect("output");
            assert!(read > 0, "it ended before it said {beginning:?}");
            if let Some(rest) = line.trim_end().strip_prefix(beginning) {
                return rest.to_owned();
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, and gives what else it had said.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("output");
        rest
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it was killed.
        let _ = self.child.wait();
    }
}

/// A process that is told lines and answers with lines, each within a time, so that no row waits for
/// ever. Killed when dropped.
#[derive(Debug)]
pub struct Talking {
    name: String,
    child: Child,
    to: ChildStdin,
    from: mpsc::Receiver<String>,
}

impl Talking {
    /// Starts a command; `name` is for messages.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("spawn");
        let to = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (said, from) = mpsc::sync_channel(LINES_UNHEARD_MAX);
        std::thread::spawn(move || {
            for line in output.lines() {
                if line.is_ok_and(|line| said.send(line).is_err()) {
                    return;
                }
            }
        });
        Self {
            name: name.into(),
            child,
            to,
            from,
        }
    }

    /// Tells it a line.
    pub fn tell(&mut self, line: impl Display) {
        writeln!(self.to, "{line}").expect("it reads");
    }

    /// Waits for a line that starts with `beginning`; the rest of it.
    pub fn hear(&mut self, beginning: &str, within: Duration) -> String {
        self.may_hear(beginning, within)
            .unwrap_or_else(|| panic!("{} did not say {beginning:?} within {within:?}", self.name))
    }

    /// The same; `None` if it does not say so in time.
    pub fn may_hear(&mut self, beginning: &str, within: Duration) -> Option<String> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.from.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(beginning) {
                        return Some(rest.trim().to_owned());
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => return None,
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("{} ended before it said {beginning:?}", self.name)
                }
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill(); // Ended already, if it went well.
        let _ = self.child.wait();
    }
}

/// A foreign program that ends with the bench, however that ends.
pub fn foreign(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

/// Whether a program can be found.
pub fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).exists())
}

/// A new repository that listens on free ports of loopback alone and keeps nothing of the disk free.
pub fn repository(program: &str, path: &Path) {
    crate::disk::remove(path);
    let cairn = |arguments: &[&str]| {
        run(Command::new(program)
            .args(arguments)
            .env("CAIRN_PATH", path));
    };
    cairn(&["init"]);
    let set = |key, value| cairn(&["config", "set", key, value]);
    set("addresses.swarm", r#"["/ip4/127.0.0.1/tcp/0"]"#);
    set("addresses.rpc", "/ip4/127.0.0.1/tcp/0");
    set("addresses.gateway", "");
    set("storage.reserve", "0");
}

/// Starts the daemon over a repository and waits until it is ready.
pub fn daemon(program: &str, repository: &Path) -> Running {
    let mut command = Command::new(program);
    let mut daemon = Running::start(command.arg("daemon").env("CAIRN_PATH", repository));
    daemon.wait_for("Daemon is ready");
    daemon
}

/// Of the clock that `/proc` tells processor time in: the same on all of Linux.
const TICKS_A_SECOND: f64 = 100.0;
const CHILD: &str = "child";
/// Lines of a child that nobody has listened to yet; it waits when there are more.
const LINES_UNHEARD_MAX: usize = 1024;
/// How often the memory of a command is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(3);
