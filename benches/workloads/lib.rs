//! Seeded workloads and the way they are measured: contestant and floor in turns, in one run, the
//! median of each, and their ratio. Machines are shared and drift; ratios stay.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Writes a file of `bytes` bytes that `seed` decides.
pub fn file(path: &Path, seed: u64, bytes: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("create"));
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (part, _) = buffer.split_at_mut(now);
        random.fill_bytes(part);
        out.write_all(part).expect("write");
        left -= now as u64;
    }
    out.flush().expect("flush");
}

/// Makes `count` files of 1 to 4 KiB in folders of 100.
pub fn small_files(root: &Path, seed: u64, count: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for at in 0..count {
        let folder = root.join(format!("{:04}", at / 100));
        if at % 100 == 0 {
            fs::create_dir_all(&folder).expect("folder");
        }
        let mut content = vec![0; random.random_range(1024..4096)];
        random.fill_bytes(&mut content);
        fs::write(folder.join(format!("{at:06}")), content).expect("file");
    }
}

/// Runs a command to its end, which must be a good one, with its output thrown away.
pub fn run(command: &mut Command) {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("spawn");
    assert!(status.success(), "{command:?}: {status}");
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// The middle of the figures.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What came out of one comparison.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was done.
    pub work: &'static str,
    /// Seconds of each round: ours, then the floor's.
    pub rounds: Vec<(f64, f64)>,
}

/// Measures `ours` and `floor` in turns.
pub fn compare(
    work: &'static str,
    rounds: usize,
    mut ours: impl FnMut() -> f64,
    mut floor: impl FnMut() -> f64,
) -> Row {
    let rounds = (0..rounds).map(|_| (ours(), floor())).collect();
    Row { work, rounds }
}

impl Row {
    /// Median seconds of ours.
    pub fn ours(&self) -> f64 {
        median(
            &self
                .rounds
                .iter()
                .map(|(ours, _)| *ours)
                .collect::<Vec<_>>(),
        )
    }

    /// Median seconds of the floor.
    pub fn floor(&self) -> f64 {
        median(
            &self
                .rounds
                .iter()
                .map(|(_, floor)| *floor)
                .collect::<Vec<_>>(),
        )
    }

    /// Prints the row; `amount` is how much work a round is, in `unit`.
    pub fn print(&self, amount: f64, unit: &str) {
        let (ours, floor) = (self.ours(), self.floor());
        println!(
            "{:<44} ours {:>9.1} {unit}/s   floor {:>9.1} {unit}/s   time {:.2} x floor   ({} rounds)",
            self.work,
            amount / ours,
            amount / floor,
            ours / floor,
            self.rounds.len()
        );
    }
}

/// Most memory that the program run by `command` had resident, in bytes: it is run to its end under
/// the shell's eyes.
pub fn peak_memory(program: &Path, arguments: &[&str], repository: &Path) -> u64 {
    let mut child = Command::new(program)
        .args(arguments)
        .env("CAIRN_PATH", repository)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: Option<u64> =
            line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0) * 1024);
        if let Some(status) = child.try_wait().expect("wait") {
            assert!(status.success(), "{status}");
            return peak;
        }
        std::thread::yield_now();
    }
}
