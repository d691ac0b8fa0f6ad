//! sled for what can be had again: it is opened patiently, its panics are caught, and what cannot be used makes
//! room for something new.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// Opens a database in `folder`, or an empty one if what is there cannot be used; says why it could not.
pub fn open_or_renew(
    folder: &Path,
    cache_bytes: u64,
    mut on_notice: impl FnMut(String),
) -> io::Result<sled::Db> {
    let open = || guarded(|| open_patiently(folder, cache_bytes));
    open()
        .or_else(|error| {
            on_notice(error);
            fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
            open()
        })
        .map_err(io::Error::other)
}

/// Opens what is there, with the leftovers removed that are known to keep sled from opening.
pub(crate) fn open_patiently(folder: &Path, cache_bytes: u64) -> sled::Result<sled::Db> {
    remove_unfinished_snapshots(folder);
    let config = sled::Config::default()
        .path(folder)
        .cache_capacity(cache_bytes.max(CACHE_BYTES_MIN))
        .mode(sled::Mode::LowSpace)
        .flush_every_ms(None);
    let mut tries = 0;
    loop {
        match config.open() {
            // sled's own lock outlives its handle until its threads have let go, and
            // nothing tells when. The repository's lock says that it can only be ours.
            Err(sled::Error::Io(error))
                if error.kind() == io::ErrorKind::Other && tries < LOCK_TRIES =>
            {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Runs sled, which panics on some damaged files.
pub fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            Err(text.unwrap_or_else(|| "panic".to_owned()))
        }
    }
}

/// A kill between making and renaming a snapshot leaves a file that sled takes for a damaged one.
fn remove_unfinished_snapshots(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// How often, and how far apart, sled is tried while an earlier handle of this process lets go.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// sled panics with less than a few hundred bytes, and is of no use with little more.
const CACHE_BYTES_MIN: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_makes_room_for_something_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("database");
        let mut notices = Vec::new();
        let mut open = || open_or_renew(&path, 0, |notice| notices.push(notice)).unwrap();
        let database = open();
        database.insert(b"key", b"value").unwrap();
        database.flush().unwrap();
        drop(database);
        assert!(open().contains_key(b"key").unwrap());
        fs::write(path.join("conf"), b"not a sled configuration").unwrap();
        assert!(!open().contains_key(b"key").unwrap());
        assert_eq!(notices.len(), 1, "{notices:?}");
    }
}
