//! The seeds: each is told of in `seeds/README.md`, and read as it says there.

use cairn_node_fuzz::targets::{self, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

type Target = fn(&[u8]) -> Verdict;

/// Every target, as `fuzz_targets/` has them.
const TARGETS: [(&str, Target); 2] = [
    ("bitswap_message", targets::bitswap_message),
    ("framing", targets::framing),
];

// One test, because the allocator counts for the whole process.
#[test]
fn every_seed_is_told_of_and_read_as_told() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let told = told(&std::fs::read_to_string(seeds.join("README.md")).unwrap());
    let mut read = BTreeMap::new();
    for (name, target) in TARGETS {
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

#[test]
fn every_target_has_a_binary_and_seeds() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let known = TARGETS.map(|(name, _)| name.to_owned());
    let binaries: BTreeSet<_> = names(&here.join("fuzz_targets"))
        .into_iter()
        .map(|name| name.trim_end_matches(".rs").to_owned())
        .collect();
    assert_eq!(binaries, known.clone().into());
    let mut folders = names(&here.join("seeds"));
    folders.remove("README.md");
    assert_eq!(folders, known.into());
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
