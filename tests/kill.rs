//! Killed at any moment, again and again, the store opens and holds what it acknowledged.
//!
//! The victim is `store-torture`: eight threads that add, put, pin, unpin, delete, collect (which
//! compacts) and verify in one store of tiny segments. This process only reads the lines it writes
//! before and after each piece of work, kills it (SIGKILL) after a number of lines and then of
//! system calls that a seed decides, and asks the oracle (`harness::oracle`, where the rules are
//! written down) what must be true of the store that is left. The same store lives through all
//! cycles; after a fifth of them the victim is also killed while it opens, recovers or has just
//! begun, several times. Now and then the index is removed, and now and then the victim may close.
//!
//! Some of the work is to make snapshots, and what is in one that is done is looked at as if it were a store
//! whose worker was killed at that instant: all that was acknowledged before it began is there, pins are
//! whole. Of one that was killed there is nothing by its name, or all.
//!
//! `CAIRN_KILL_CYCLES` sets the number of cycles, `CAIRN_KILL_SEED` replays the seed that a run
//! printed: the same work and the same kills, but not the same order of threads. A store that lied
//! is kept, with the lines that were heard beside it.

use cairn_store::Store;
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::store::OpenEvent;
use harness::oracle::Oracle;
use harness::torture::{Line, Outcome, Work, World, snapshot_of};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const VICTIM: &str = env!("CARGO_BIN_EXE_store-torture");

#[test]
fn nothing_that_was_acknowledged_is_lost_whenever_the_store_is_killed() {
    let cycles = number("CAIRN_KILL_CYCLES").unwrap_or(CYCLES);
    let seed = number("CAIRN_KILL_SEED").unwrap_or_else(rand::random);
    println!("CAIRN_KILL_CYCLES={cycles} CAIRN_KILL_SEED={seed}");
    let folder = tempfile::tempdir().unwrap();
    let mut torture = Torture::new(seed, folder.path());
    for cycle in 0..=cycles {
        let done = if cycle < cycles {
            torture.cycle(cycle)
        } else {
            torture.collect()
        };
        if let Err(lie) = done {
            let log = folder.path().join("lines");
            fs::write(&log, torture.heard()).unwrap();
            let kept = folder.keep();
            panic!(
                "cycle {cycle} of seed {seed}: {lie}\nthe store and the last lines are kept in {}",
                kept.display()
            );
        }
        if cycle > 0 && cycle.is_multiple_of(TOLD_EVERY) || cycle == cycles {
            println!("{}", torture.told(cycle));
        }
    }
    assert!(torture.oracle.totals.acknowledged > 10 * cycles);
    assert!(torture.oracle.totals.compared > 10 * cycles);
    assert!(cycles < CYCLES || torture.recoveries_killed > 0);
    assert!(cycles < CYCLES || torture.snapshots_checked > 0);
    assert!(cycles < CYCLES || torture.oracle.totals.collections_killed > 0);
}

/// One store and what is known of it.
struct Torture {
    seed: u64,
    random: StdRng,
    store: PathBuf,
    oracle: Oracle,
    runtime: Runtime,
    /// Reads and writes between the beginning of an opening and the end of closing.
    opening_calls: u64,
    recoveries_killed: u64,
    closed: u64,
    heard: VecDeque<String>,
    /// Snapshots that are being made, by the work's number.
    snapshots: HashMap<u64, Taken>,
    snapshots_checked: u64,
    snapshots_killed: u64,
}

/// A snapshot, and what knows what must be in it.
struct Taken {
    number: u32,
    oracle: Oracle,
}

/// When a victim dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// After so many lines and then so many system calls.
    Lines(u64, u64),
    /// So many system calls after it begins to open the store.
    Opening(u64),
    /// So many system calls after it begins to close the store.
    Closing(u64),
    /// By itself.
    Never,
}

impl Torture {
    fn new(seed: u64, folder: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            store: folder.join("store"),
            oracle: Oracle::new(World::new(seed)),
            runtime,
            opening_calls: 200,
            recoveries_killed: 0,
            closed: 0,
            heard: VecDeque::new(),
            snapshots: HashMap::new(),
            snapshots_checked: 0,
            snapshots_killed: 0,
        }
    }

    fn cycle(&mut self, cycle: u64) -> Result<(), String> {
        let calls = self.random.random_range(0..60);
        let (rounds, death) = match self.random.random_range(0..10) {
            0 => (40, Death::Closing(calls)),
            1 => (40, Death::Never),
            _ => {
                // Early deaths as often as late ones.
                let most = 1 << self.random.random_range(3..=LINES_BITS);
                let lines = self.random.random_range(0..most);
                (u64::MAX, Death::Lines(lines, calls))
            }
        };
        self.work(rounds, death)?;
        if cycle % 5 == 2 {
            for _ in 0..self.random.random_range(1..=4) {
                self.kill_recovery()?;
            }
        }
        if self.random.random_range(0..10) == 0 {
            match fs::remove_dir_all(self.store.join("index")) {
                // It was killed when it had just set its index aside.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|error| error.to_string())?,
            }
        }
        self.check()
    }

    fn kill_recovery(&mut self) -> Result<(), String> {
        let killed = if self.random.random_range(0..4) == 0 {
            let lines = self.random.random_range(1..20);
            self.work(u64::MAX, Death::Lines(lines, 0))?
        } else {
            let calls = self.random.random_range(0..=self.opening_calls);
            let config = self.config();
            let mut command = Command::new(VICTIM);
            command.arg("open").arg(&self.store).arg(config);
            self.watch(command, Death::Opening(calls))?
        };
        self.recoveries_killed += u64::from(killed);
        Ok(())
    }

    fn config(&mut self) -> String {
        let durability = ["full", "full", "full", "relaxed"][self.random.random_range(0..4)];
        let size = ["64KiB", "256KiB", "1MiB"][self.random.random_range(0..3)];
        format!("{durability},{size}")
    }

    fn work(&mut self, rounds: u64, death: Death) -> Result<bool, String> {
        let config = self.config();
        let run: u64 = self.random.random();
        let mut command = Command::new(VICTIM);
        command.arg("work").arg(&self.store).arg(config);
        for number in [self.seed, run, WRITERS, rounds] {
            command.arg(number.to_string());
        }
        self.watch(command, death)
    }

    /// Runs a victim until its death, and hears everything it said; whether it was killed.
    fn watch(&mut self, command: Command, death: Death) -> Result<bool, String> {
        let mut victim = Victim::start(command);
        let ended = self.listen(&mut victim, death);
        let status = victim.kill();
        // What it wrote before it died is still in the pipe.
        let rest = ended.and_then(|()| self.listen(&mut victim, Death::Never));
        self.oracle.killed();
        rest?;
        self.check_unfinished()?;
        if status.signal() != Some(9) && !status.success() {
            return Err(format!("the victim ended by itself with {status}"));
        }
        self.closed += u64::from(status.success());
        Ok(status.signal() == Some(9))
    }

    /// Lets those hear that know what must be in a snapshot, and looks at one that is done.
    fn hear_of_snapshots(&mut self, line: &Line) -> Result<(), String> {
        match line {
            Line::Begin(id, work) => {
                for taken in self.snapshots.values_mut() {
                    taken.oracle.take(line)?;
                }
                if let Work::Snapshot(number) = work {
                    let oracle = self.oracle.of_snapshot();
                    let number = *number;
                    self.snapshots.insert(*id, Taken { number, oracle });
                }
                Ok(())
            }
            Line::Done(id, _) => match self.snapshots.remove(id) {
                Some(taken) => self.check_snapshot(taken),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whatever was being made when the victim died is there as a whole, or not at all.
    fn check_unfinished(&mut self) -> Result<(), String> {
        for taken in std::mem::take(&mut self.snapshots).into_values() {
            if snapshot_of(&self.store, taken.number).exists() {
                self.check_snapshot(taken)?;
            } else {
                self.snapshots_killed += 1;
            }
        }
        let parent = self.store.parent().expect("a folder");
        for entry in fs::read_dir(parent).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            if path.extension().is_some_and(|end| end == "unfinished") {
                fs::remove_dir_all(path).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Opens a snapshot and looks at all of it.
    fn check_snapshot(&mut self, taken: Taken) -> Result<(), String> {
        let Taken { number, mut oracle } = taken;
        let folder = snapshot_of(&self.store, number);
        let told = |lie: String| format!("snapshot {number}: {lie}");
        oracle.killed();
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let mut notices = Vec::new();
        let opened = Store::open(&folder, &config, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                notices.push(text);
            }
        });
        let store = opened.map_err(|error| told(error.to_string()))?;
        if !notices.is_empty() {
            return Err(told(notices.join("; ")));
        }
        self.runtime.block_on(oracle.check(&store)).map_err(told)?;
        let collected = self.runtime.block_on(store.gc(|_| {}));
        collected.map_err(|error| told(error.to_string()))?;
        let closed = self.runtime.block_on(store.close());
        closed.map_err(|error| told(error.to_string()))?;
        drop(store);
        self.snapshots_checked += 1;
        fs::remove_dir_all(folder).map_err(|error| error.to_string())
    }

    /// Hears what a victim says until it is to die.
    fn listen(&mut self, victim: &mut Victim, death: Death) -> Result<(), String> {
        let mut lines = 0;
        let mut opening = 0;
        let mut until = None;
        if let Death::Lines(0, calls) = death {
            until = Some(calls);
        }
        loop {
            let line = match victim.next(until) {
                Said::Line(line) => line,
                Said::Enough | Said::End => return Ok(()),
                Said::Nothing => return Err(format!("nothing was said for {SILENCE_MAX:?}")),
            };
            lines += 1;
            if self.heard.len() == HEARD_MAX {
                self.heard.pop_front();
            }
            let line: Line = line.parse()?;
            self.heard.push_back(line.to_string());
            self.oracle.take(&line)?;
            self.hear_of_snapshots(&line)?;
            match (&line, death) {
                (Line::Opening(now), Death::Opening(calls)) => {
                    opening = *now;
                    until = Some(now + calls);
                }
                (Line::Opening(now), _) => opening = *now,
                (Line::Closing(now), Death::Closing(calls)) => until = Some(now + calls),
                (Line::Closed(now), Death::Opening(_)) => self.opening_calls = now - opening,
                _ => {}
            }
            if let Death::Lines(most, calls) = death
                && lines == most
            {
                until = Some(victim.calls().unwrap_or(0) + calls);
            }
        }
    }

    /// Opens the store here and lets the oracle look at all of it.
    fn check(&mut self) -> Result<(), String> {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let mut notices = Vec::new();
        let opened = Store::open(&self.store, &config, &mut |event| {
            if let OpenEvent::Notice(text) = event {
                notices.push(Line::Notice(text));
            }
        });
        let store = opened.map_err(|error| format!("the store did not open: {error}"))?;
        for notice in notices {
            self.oracle.take(&notice)?;
        }
        self.runtime.block_on(self.oracle.check(&store))?;
        if self.random.random() {
            let closed = self.runtime.block_on(store.close());
            closed.map_err(|error| format!("the store did not close: {error}"))?;
        }
        drop(store);
        // A thread of the store may hold it for a moment longer.
        let lock = fs::File::open(self.store.join("repo.lock"));
        lock.and_then(|lock| lock.lock())
            .map_err(|error| error.to_string())
    }

    /// Collects what collections that were killed have left, and lets the oracle look whether it is gone.
    fn collect(&mut self) -> Result<(), String> {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let opened = Store::open(&self.store, &config, &mut |_| {});
        let store = opened.map_err(|error| format!("the store did not open: {error}"))?;
        self.oracle.take(&Line::Begin(0, Work::Collect))?;
        let collected = self.runtime.block_on(store.gc(|_| {}));
        collected.map_err(|error| format!("the last collection failed: {error}"))?;
        self.oracle.take(&Line::Done(0, Outcome::Done))?;
        self.runtime.block_on(self.oracle.check(&store))?;
        let closed = self.runtime.block_on(store.close());
        closed.map_err(|error| format!("the store did not close: {error}"))
    }

    fn heard(&self) -> String {
        self.heard.iter().map(|line| format!("{line}\n")).collect()
    }

    fn told(&self, cycles: u64) -> String {
        let totals = &self.oracle.totals;
        let mut told = format!(
            "{cycles} cycles, {} recoveries killed, {} clean ends; {} acknowledged, {} killed, {} \
             collections, {} of them killed; {} blocks compared; {} snapshots, {} of them killed",
            self.recoveries_killed,
            self.closed,
            totals.acknowledged,
            totals.killed,
            totals.collections + totals.collections_killed,
            totals.collections_killed,
            totals.compared,
            self.snapshots_checked + self.snapshots_killed,
            self.snapshots_killed,
        );
        for (notice, count) in &totals.notices {
            told += &format!("\n  told {count} times: {notice}");
        }
        told
    }
}

/// The process that is killed.
struct Victim {
    child: Child,
    lines: Receiver<String>,
}

/// What a victim says.
enum Said {
    Line(String),
    /// It has made as many calls as it was to.
    Enough,
    /// It is dead.
    End,
    /// It hangs.
    Nothing,
}

impl Victim {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(LINES_WAITING_MAX);
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// What it says next, or that it has made so many calls, should that come first.
    fn next(&self, until: Option<u64>) -> Said {
        let began = Instant::now();
        loop {
            let line = match until {
                None => self.lines.recv_timeout(SILENCE_MAX),
                Some(until) if self.calls().is_some_and(|calls| calls >= until) => {
                    return Said::Enough;
                }
                // Not to be woken by the next line: the calls are what counts.
                Some(_) => match self.lines.try_recv() {
                    Ok(line) => Ok(line),
                    Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                    Err(TryRecvError::Empty) if began.elapsed() < SILENCE_MAX => {
                        std::thread::yield_now();
                        continue;
                    }
                    Err(TryRecvError::Empty) => Err(RecvTimeoutError::Timeout),
                },
            };
            return match line {
                Ok(line) => Said::Line(line),
                Err(RecvTimeoutError::Disconnected) => Said::End,
                Err(RecvTimeoutError::Timeout) => Said::Nothing,
            };
        }
    }

    /// How many reads and writes it has made, or nothing if it is dead.
    fn calls(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id())).ok()?;
        let counts = text.lines().filter_map(|line| {
            line.strip_prefix("syscr: ")
                .or(line.strip_prefix("syscw: "))
        });
        counts.map(|count| count.parse::<u64>().ok()).sum()
    }

    fn kill(&mut self) -> std::process::ExitStatus {
        let _ = self.child.kill(); // It may have ended by itself.
        self.child.wait().unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what a test is asked to do is no configuration"
)]
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Cycles in every run of the tests.
const CYCLES: u64 = 50;
const WRITERS: u64 = 8;
/// Most lines before a death, as a power of two.
const LINES_BITS: u32 = 11;
/// After so many cycles the totals are told.
const TOLD_EVERY: u64 = 50;
/// No work takes this long: a victim that says nothing hangs.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Lines that are kept for whoever looks for the reason of a lie.
const HEARD_MAX: usize = 5000;
/// Lines read ahead of the oracle.
const LINES_WAITING_MAX: usize = 1024;
