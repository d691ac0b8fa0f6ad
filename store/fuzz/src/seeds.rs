//! The seeds: each is told of in `seeds/README.md`, and read as it says there.
//!
//! Any crate of fuzz targets may check its own with this: it knows only of folders and functions.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the decoder said of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be, all of it.
    Taken,
    /// It is not, or some of it cannot be used.
    Refused,
}

impl Verdict {
    pub(crate) fn of(is_taken: bool) -> Self {
        if is_taken { Self::Taken } else { Self::Refused }
    }
}

/// What a target does with an input.
pub type Target = fn(&[u8]) -> Verdict;

/// Panics unless every seed of a crate is told of, and each target says of its own what is told.
pub fn are_read_as_told(here: &Path, targets: &[(&str, Target)]) {
    let seeds = here.join("seeds");
    let told = told(&std::fs::read_to_string(seeds.join("README.md")).unwrap());
    let mut read = BTreeMap::new();
    for (name, target) in targets {
        let files = names(&seeds.join(name));
        assert!(!files.is_empty(), "{name} has no seeds");
        for file in files {
            let data = std::fs::read(seeds.join(name).join(&file)).unwrap();
            assert!(data.len() <= SEED_BYTES_MAX, "{name}/{file}");
            println!("{name}/{file}");
            read.insert(format!("{name}/{file}"), target(&data));
        }
    }
    assert_eq!(read, told);
}

/// Panics unless a crate has a binary and a folder of seeds for each of its targets, and no other.
pub fn have_a_binary_each(here: &Path, targets: &[(&str, Target)]) {
    let known: BTreeSet<_> = targets.iter().map(|(name, _)| (*name).to_owned()).collect();
    let binaries: BTreeSet<_> = names(&here.join("fuzz_targets"))
        .into_iter()
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    assert_eq!(binaries, known);
    let mut folders = names(&here.join("seeds"));
    folders.remove("README.md");
    assert_eq!(folders, known);
}

/// What the table says of each seed: `| target/name | taken | what it is |`.
fn told(table: &str) -> BTreeMap<String, Verdict> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.strip_suffix('`')?.to_owned();
        let verdict = match cells.next()? {
            "taken" => Verdict::Taken,
            "refused" => Verdict::Refused,
            other => unreachable!("{name}: {other}"),
        };
        assert!(
            cells.next()?.len() > "origin |".len(),
            "{name} comes from nowhere"
        );
        Some((name, verdict))
    };
    table.lines().filter_map(row).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// No seed is longer: a fuzzer changes short ones sooner where it matters.
const SEED_BYTES_MAX: usize = 8 << 10;
