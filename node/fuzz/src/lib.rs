//! What the fuzz targets share. Each target is a few lines in `fuzz_targets/`; what it may take
//! stands in [`targets`], and what must hold in `cairn_node::fuzzing`; `tests/seeds.rs` runs both
//! over the seeds as well.
//!
//! * [`ceiling`]: the allocator that ends the run when a decoder takes more than it may.
//! * [`seeds`]: whether every seed is read as it is told.
//!
//! Those two are the same for whatever is fuzzed, and stand with the store's targets.

#[path = "../../../store/fuzz/src/ceiling.rs"]
pub mod ceiling;
#[path = "../../../store/fuzz/src/seeds.rs"]
pub mod seeds;
pub mod targets;
