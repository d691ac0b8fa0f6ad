//! What the fuzz targets share. Each target is a few lines in `fuzz_targets/`; what it may take
//! stands in [`targets`], and what must hold in `cairn_node::fuzzing`; `tests/seeds.rs` runs both
//! over the seeds as well.
//!
//! * [`ceiling`]: the allocator that ends the run when a decoder takes more than it may.

#[path = "../../../store/fuzz/src/ceiling.rs"]
pub mod ceiling;
pub mod targets;
