//! The tasks that touch streams: a reader for every inbound one, lanes for what we send.
//!
//! A reader takes one message after the other, gives words (wants, presences) to the worker and
//! blocks to the verifier, and waits for room where it gives: so a peer is slowed down by its own
//! stream and by nothing else. Who says much and takes nothing is read more slowly (`credit.rs`). A lane writes one message after the other to one peer. There are two
//! a peer, so that words do not wait behind blocks. A lane's stream is opened when there is
//! something to say, kept while there is more, closed a while after, which is before others
//! reset it, and opened again when it was reset all the same.

use std::time::Duration;

mod credit;
mod lane;
mod pace;
mod reader;

pub(super) use credit::Holds;
#[cfg(test)]
pub(super) use credit::{LINES_A_SECOND, LINES_AT_ONCE};
pub(super) use lane::{Cargo, LANE_MESSAGES_MAX, Lane, Outgoing};
#[cfg(test)]
pub(super) use reader::READERS_WORKING_MAX;
#[cfg(feature = "fuzzing")]
pub(super) use reader::read_to_end;
pub(super) use reader::{Hearing, Intake, Room, Sinks, Unverified, Waiting, read, take_room};

/// How long negotiating a stream may take.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
