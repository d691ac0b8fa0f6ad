//! What the fuzz targets share. Each target is a few lines in `fuzz_targets/`; what it asserts
//! stands in [`targets`] and [`inside`], which `tests/seeds.rs` runs over the seeds as well.
//!
//! * [`ceiling`]: the allocator that ends the run when a decoder takes more than it may.
//! * [`program`]: DAGs of hostile blocks, built as the input says.
//! * [`seeds`]: whether every seed is read as it is told.
//! * [`targets`]: what must hold of what anybody may call.
//! * [`inside`]: the same for the store's own files, which `cairn_store::fuzzing` opens.

pub mod ceiling;
pub mod inside;
pub mod program;
pub mod seeds;
pub mod targets;
