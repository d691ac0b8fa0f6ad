//! The seeds of every target, as `fuzz_targets/` has them.

use cairn_node_fuzz::seeds::{self, Target};
use cairn_node_fuzz::targets;
use std::path::Path;

const TARGETS: [(&str, Target); 4] = [
    ("bitswap_message", targets::bitswap_message),
    ("framing", targets::framing),
    ("dht_message", targets::dht_message),
    ("ipns_record", targets::ipns_record),
];

// One test, because the allocator counts for the whole process.
#[test]
fn every_seed_is_told_of_and_read_as_told() {
    seeds::are_read_as_told(Path::new(env!("CARGO_MANIFEST_DIR")), &TARGETS);
}

#[test]
fn every_target_has_a_binary_and_seeds() {
    seeds::have_a_binary_each(Path::new(env!("CARGO_MANIFEST_DIR")), &TARGETS);
}
