//! The ceiling on memory ends whoever passes it, and nobody else.

use cairn_store_fuzz::ceiling::within;
use std::process::Command;

#[test]
fn who_passes_the_ceiling_is_ended() {
    for (name, ended) in [("holds_what_it_may", false), ("holds_too_much", true)] {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture", name])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.success(), !ended, "{name}: {said}");
        assert_eq!(said.contains("CEILING"), ended, "{name}: {said}");
        assert_ne!(said.contains("PEAK"), ended, "{name}: {said}");
    }
}

#[test]
#[ignore = "run alone, in a process of its own, by the test above"]
fn holds_what_it_may() {
    assert_eq!(within(0, MOST, || vec![1_u8; MOST / 2]).len(), MOST / 2);
}

#[test]
#[ignore = "ends its process; run by the test above"]
fn holds_too_much() {
    assert_eq!(within(0, MOST, || vec![1_u8; 2 * MOST]).len(), 2 * MOST);
}

const MOST: usize = 1 << 20;
