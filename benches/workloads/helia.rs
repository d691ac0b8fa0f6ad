//! What Helia does with the same bytes, where it is installed (`benches/helia/`).
//!
//! Its script runs in a network namespace that has loopback alone, since Helia's defaults dial
//! public addresses.

use crate::process::{Talking, foreign, is_installed};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The script, ready to run.
#[derive(Debug)]
pub struct Helia {
    script: PathBuf,
}

impl Helia {
    /// Looks for what it needs; says what is missing.
    pub fn found() -> Option<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("helia");
        let script = folder.join("run");
        let missing = if !script.exists() {
            format!("{} is not there", script.display())
        } else if !folder.join("node_modules").exists() {
            format!("`npm ci` was not run in {}", folder.display())
        } else if !is_installed("setpriv") {
            "setpriv is not installed".to_owned()
        } else {
            return Some(Self { script });
        };
        println!("  skipped: Helia, since {missing}");
        None
    }

    /// Seconds that one node takes to fetch so many bytes from another.
    pub fn seconds(&self, bytes: u64, chunk: u32) -> f64 {
        let mut command = foreign("bash");
        command
            .arg(&self.script)
            .args([bytes.to_string(), chunk.to_string()]);
        let mut nodes = Talking::start("Helia", &mut command);
        let seconds = nodes.hear("took", Duration::from_secs(900));
        seconds.parse().expect("seconds")
    }
}
