//! The seeds of every target, as `fuzz_targets/` has them.

use cairn_node_fuzz::seeds::{self, Target};
use cairn_node_fuzz::targets;
use std::path::Path;

const TARGETS: [(&str, Target); 5] = [
    ("bitswap_message", targets::bitswap_message),
    ("framing", targets::framing),
    ("dht_message", targets::dht_message),
    ("dnslink", targets::dnslink),
    ("ipns_record", targets::ipns_record),
];

// One test, because the allocator counts for the whole process: another beside it would be counted too.
#[test]
fn every_target_has_a_binary_and_seeds_that_are_read_as_told() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    seeds::have_a_binary_each(here, &TARGETS);
    seeds::are_read_as_told(here, &TARGETS);
}
