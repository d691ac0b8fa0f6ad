//! A folder that is gone afterwards, space used, a cold page cache.

use crate::options::Options;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder for one bench. It is removed when this is dropped, also by a panic; what a killed
/// bench left is removed by the next one.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder inside the one that the options name.
    pub fn new(options: &Options) -> Self {
        let parent = fs::canonicalize(options.folder()).expect("the folder to measure in");
        for entry in fs::read_dir(&parent).expect("the folder to measure in") {
            let entry = entry.expect("entry");
            let name = entry.file_name();
            let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                let _ = fs::remove_dir_all(entry.path()); // Another bench may be faster.
            }
        }
        let path = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&path).expect("temporary folder");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            println!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// Removes a folder or file, if it is there.
pub fn remove(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.expect("remove");
}

/// Copies a folder and writes the copy out, so that nothing of it is left to be written later.
pub fn copy(from: &Path, to: &Path) {
    remove(to);
    crate::process::run(Command::new("cp").arg("-r").arg(from).arg(to));
    sync(to);
}

/// Writes out everything on the file system that `path` lies on.
pub fn sync(path: &Path) {
    crate::process::run(Command::new("sync").arg("-f").arg(path));
}

/// Bytes on the disk that a folder or file takes.
pub fn used(path: &Path) -> u64 {
    let mut bytes = 0;
    each(path, &mut |path| {
        bytes += fs::metadata(path).map_or(0, |found| found.blocks() * 512);
    });
    bytes
}

/// Puts the pages of all files below `path` out of memory. Names and sizes stay known.
pub fn evict(path: &Path) {
    each(path, &mut |path| {
        if path.is_file() {
            let file = File::open(path).expect("open");
            file.sync_all().expect("sync"); // Only what is written can go.
            fadvise(&file, 0, None, Advice::DontNeed).expect("advise");
        }
    });
}

/// Brings the pages of all files below `path` into memory.
pub fn warm(path: &Path) {
    each(path, &mut |path| {
        if let Ok(mut file) = File::open(path)
            && path.is_file()
        {
            std::io::copy(&mut file, &mut std::io::sink()).expect("read");
        }
    });
}

/// Calls `each` with every file and folder below `path`, and itself.
pub fn each(path: &Path, visit: &mut impl FnMut(&Path)) {
    visit(path);
    if !path.is_dir() {
        return;
    }
    for entry in fs::read_dir(path).expect("folder") {
        each(&entry.expect("entry").path(), visit);
    }
}

const PREFIX: &str = "bench-files-";
