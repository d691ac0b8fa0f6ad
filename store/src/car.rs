//! Blocks to CAR and back: CARv1 out, CARv1 and v2 in.

pub mod read;
pub mod write;
