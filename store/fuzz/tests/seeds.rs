//! The seeds of every target, as `fuzz_targets/` has them.

use cairn_store_fuzz::seeds::{self, Target};
use cairn_store_fuzz::{inside, targets};
use std::path::Path;

const TARGETS: [(&str, Target); 11] = [
    ("bucket", inside::bucket),
    ("car_v1", targets::car_v1),
    ("car_v2", targets::car_v2),
    ("cid", targets::cid),
    ("dag_cbor", targets::dag_cbor),
    ("dag_json", targets::dag_json),
    ("dag_pb", targets::dag_pb),
    ("hamt", targets::hamt),
    ("journal", inside::journal),
    ("segment", inside::segment),
    ("unixfs", targets::unixfs),
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
