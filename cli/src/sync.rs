//! Folder sync: a folder on this disk and a path of the file tree, kept the same in one direction.
//!
//! ```text
//! scan (stat of everything) ─┐
//!                            ├─► plan: what to put, to compare, to remove ─► push or pull ─► state
//! state (what was synced)  ──┘
//! ```
//!
//! What was synced last is remembered with size, times and inode of each file (`state`), so only what changed is read. That is
//! derived: without it everything is read once more and compared. It only counts as long as the file tree still has
//! the root that it was written for.
//!
//! * [`scan`]: what is in a folder.
//! * [`state`]: what was synced, in a file.
//! * [`plan`]: what differs, without a disk.
//! * [`hash`]: the CIDs that files of this disk would have.
//! * `commands/sync.rs` carries it out.

pub mod hash;
pub mod plan;
pub mod scan;
pub mod state;

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
}

/// What tells that a file is what it was, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When its content changed, in nanoseconds since 1970.
    pub modified: i128,
    /// When anything about it changed.
    pub changed: i128,
    /// Its number on its file system.
    pub inode: u64,
}

/// The order in which folders are walked: a folder before what is in it, names by their bytes.
pub fn walking_order(one: &str, other: &str) -> Ordering {
    let common = one
        .bytes()
        .zip(other.bytes())
        .take_while(|(one, other)| one == other)
        .count();
    match (one.as_bytes().get(common), other.as_bytes().get(common)) {
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (one, other) => one.cmp(&other),
    }
}

/// Whether `path` lies below the folder `above`; everything lies below the top, which has no name.
pub fn is_below(path: &str, above: &str) -> bool {
    above.is_empty() && !path.is_empty()
        || path
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_comes_right_before_what_is_in_it() {
        let mut paths = ["a-b", "a/z", "b", "a", "a/b/c", "", "a/b", "a.c"];
        paths.sort_by(|one, other| walking_order(one, other));
        assert_eq!(paths, ["", "a", "a/b", "a/b/c", "a/z", "a-b", "a.c", "b"]);
    }

    #[test]
    fn below_is_only_what_has_the_folder_before_a_slash() {
        assert!(is_below("a/b", "a") && is_below("a", "") && is_below("a/b/c", "a/b"));
        assert!(!is_below("ab", "a") && !is_below("a", "a") && !is_below("", ""));
    }
}
