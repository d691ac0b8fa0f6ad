//! One writer: whoever races for a store, one gets it and the others are told at once.

use harness::Repo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

const CAIRN: &str = env!("CARGO_BIN_EXE_cairn-under-test");
const HOLDER: &str = env!("CARGO_BIN_EXE_store-holder");

/// A process that races.
struct Racer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Racer {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(HOLDER)
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.input, "{order}").unwrap();
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn of_all_who_race_for_a_store_exactly_one_gets_it() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut racers: Vec<Racer> = (0..RACERS).map(|_| Racer::start(folder.path())).collect();
    let mut refusals: Vec<u64> = Vec::new();
    let mut killed = 0;
    for race in 0..RACES {
        // Not always the same one first.
        racers.rotate_left(random.random_range(0..RACERS));
        for racer in &mut racers {
            racer.tell("open");
        }
        let answers: Vec<String> = racers.iter_mut().map(Racer::answer).collect();
        let mut winners = Vec::new();
        for (at, answer) in answers.iter().enumerate() {
            match answer.strip_prefix("locked ") {
                Some(micros) => refusals.push(micros.parse().unwrap()),
                None if answer == "has it" => winners.push(at),
                None => panic!("race {race} of seed {seed}: {answer}"),
            }
        }
        assert_eq!(winners.len(), 1, "race {race} of seed {seed}: {answers:?}");
        let winner = &mut racers[winners[0]];
        if random.random_range(0..10) == 0 {
            winner.kill();
            *winner = Racer::start(folder.path());
            killed += 1;
        } else {
            winner.tell(["close", "drop"][random.random_range(0..2)]);
            assert_eq!(winner.answer(), "let go");
        }
    }
    refusals.sort_unstable();
    let at = |percent: usize| refusals[(refusals.len() - 1) * percent / 100];
    println!(
        "{RACES} races of {RACERS}, {killed} winners killed; {} refusals after {} µs (median), {} (p99), \
         {} (longest)",
        refusals.len(),
        at(50),
        at(99),
        at(100)
    );
    assert_eq!(refusals.len(), RACES * (RACERS - 1));
    assert!(killed > 0);
}

#[test]
fn a_second_daemon_is_told_who_has_the_repository_and_a_killed_one_blocks_nobody() {
    let repo = Repo::new(CAIRN);
    for _ in 0..5 {
        let daemon = repo.daemon();
        let holder = fs::read_to_string(repo.path().join("repo.lock")).unwrap();
        assert_eq!(holder.trim(), daemon.process().to_string());
        let began = Instant::now();
        let told = repo.refused_daemon().failure(1);
        println!("a second daemon ended after {:?}", began.elapsed());
        assert!(!told.contains('\n') && told.contains("repo.lock"), "{told}");
        let holder = format!("in use by process {} ", daemon.process());
        assert!(told.contains(&holder), "{told}");
        assert!(told.contains("cairn shutdown"), "{told}");
        daemon.kill();
    }
    assert!(repo.daemon().stop().0.success());
}

const RACES: usize = 1000;
const RACERS: usize = 3;
