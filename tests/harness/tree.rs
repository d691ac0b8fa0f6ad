//! Folders and bytes that a seed decides.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// `length` bytes that `seed` decides.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Makes a folder tree: nested and empty folders, files of no, few and many bytes, symbolic links,
/// names in several scripts. `files` is how many files there are.
pub fn make(root: &Path, seed: u64, files: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut folders = vec![root.to_owned()];
    fs::create_dir_all(root).expect("folder");
    for at in 0..files / 8 {
        let parent = folders[random.random_range(0..folders.len())].clone();
        let folder = parent.join(format!("folder {at} ąę 文"));
        fs::create_dir_all(&folder).expect("folder");
        folders.push(folder);
    }
    for at in 0..files {
        let folder = &folders[random.random_range(0..folders.len())];
        let length = match at % 10 {
            0 => 0,
            1 => 1 << 20,
            2 => (1 << 20) + random.random_range(0..3_000_000),
            _ => random.random_range(1..20_000),
        };
        let mut content = vec![0; length];
        random.fill_bytes(&mut content);
        fs::write(folder.join(format!("file-{at}.bin")), content).expect("file");
        if at % 20 == 3 {
            symlink(format!("file-{at}.bin"), folder.join(format!("link-{at}"))).expect("link");
        }
    }
}

/// What a tree holds, by path: folders, links and bytes. Equal trees are equal maps.
pub fn read(root: &Path) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    read_into(root, String::new(), &mut found);
    found
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A symbolic link and its target.
    Link(String),
    /// A file and its bytes.
    File(Vec<u8>),
}

fn read_into(folder: &Path, prefix: String, found: &mut BTreeMap<String, Entry>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let entry = entry.expect("entry");
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("type");
        if kind.is_symlink() {
            let target = fs::read_link(entry.path()).expect("link");
            found.insert(path, Entry::Link(target.to_string_lossy().into_owned()));
        } else if kind.is_dir() {
            found.insert(path.clone(), Entry::Folder);
            read_into(&entry.path(), path, found);
        } else {
            found.insert(path, Entry::File(fs::read(entry.path()).expect("file")));
        }
    }
}
