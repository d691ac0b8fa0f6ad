//! What a peer can make a node keep for it, counted to the byte.

use cairn_node::fuzzing;
use cairn_node_fuzz::ceiling::within;

#[test]
fn the_wants_and_unread_answers_of_one_peer_have_their_bound() {
    // Ends the process when it is passed.
    let kept = within(0, KEPT_BYTES_MAX, fuzzing::kept);
    drop(kept);
}

/// 1,024 wants and as many answers, all under names of 75 bytes, in tables that are half empty:
/// up to 426,796 bytes when it was measured.
const KEPT_BYTES_MAX: usize = 420 << 10;
