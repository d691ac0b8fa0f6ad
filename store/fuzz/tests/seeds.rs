//! The seeds of every target, as `fuzz_targets/` has them.

use cairn_store_fuzz::seeds::{self, Target};
use cairn_store_fuzz::{inside, targets};
use std::path::Path;

const TARGETS: [(&str, Target); 12] = [
    ("bucket", inside::bucket),
    ("car_v1", targets::car_v1),
    ("car_v2", targets::car_v2),
    ("cid", targets::cid),
    ("dag_cbor", targets::dag_cbor),
    ("dag_json", targets::dag_json),
    ("dag_pb", targets::dag_pb),
    ("hamt", targets::hamt),
    ("journal", inside::journal),
    ("kubo", inside::kubo),
    ("segment", inside::segment),
    ("unixfs", targets::unixfs),
];

// One test, because the allocator counts for the whole process: another beside it would be counted too.
#[test]
fn every_target_has_a_binary_and_seeds_that_are_read_as_told() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    seeds::have_a_binary_each(here, &TARGETS);
    seeds::are_read_as_told(here, &TARGETS);
}
