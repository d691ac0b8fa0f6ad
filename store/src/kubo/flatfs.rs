//! The files that Kubo keeps blocks in: `XX/CIQ….data`, a file a block, in folders by some letters of its name.

use super::file::{self, Links};
use crate::block::BLOCK_BYTES_MAX;
use crate::cid::{self, Cid, Multihash, RAW};
use data_encoding::BASE32_NOPAD;
use rustix::fs::Advice;
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, DirEntry, File};
use std::io;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A file that is named like a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: PathBuf,
    pub(super) hash: Multihash,
}

/// Whether a folder is one of flatfs's, or why not.
pub(super) fn check(folder: &Path) -> Result<(), String> {
    let path = folder.join(SHARDING);
    let bytes = file::read(&path, SMALL_BYTES_MAX)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    let parts: Vec<&str> = text
        .strip_prefix(SHARD_FUNCTIONS)
        .unwrap_or("")
        .split('/')
        .collect();
    // Which letters they are does not matter to who reads all of them.
    match parts[..] {
        ["prefix" | "suffix" | "next-to-last", count] if count.parse::<u32>().is_ok() => Ok(()),
        _ => Err(format!(
            "{} names folders in an unknown way: {text:?}",
            path.display()
        )),
    }
}

/// What flatfs itself says how many bytes there are.
pub(super) fn expected_bytes(folder: &Path) -> Option<u64> {
    let usage = file::read(&folder.join(USAGE), SMALL_BYTES_MAX).ok()?;
    let usage: serde_json::Value = serde_json::from_slice(&usage).ok()?;
    usage.get("diskUsage")?.as_u64()
}

/// The folders that blocks lie in, in order, the one above them first.
pub(super) fn shards(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != UNFINISHED {
            shards.push(entry.path());
        }
    }
    shards.sort_unstable();
    shards.insert(0, folder.to_owned());
    Ok(shards)
}

/// Hands out every file of a shard that is named like a block, and every other thing with what is wrong with it.
pub(super) fn list(
    shard: &Path,
    is_top: bool,
    each: &mut dyn FnMut(Result<Named, (PathBuf, String)>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let entries = match fs::read_dir(shard) {
        Ok(entries) => entries,
        Err(error) => {
            return each(Err((
                shard.to_owned(),
                format!("it cannot be listed: {error}"),
            )));
        }
    };
    for entry in entries {
        let found = match entry {
            Ok(entry) => look(entry, is_top),
            Err(error) => {
                return each(Err((
                    shard.to_owned(),
                    format!("it cannot be listed: {error}"),
                )));
            }
        };
        if let Some(found) = found {
            each(found)?;
        }
    }
    ControlFlow::Continue(())
}

/// Hands out, as not taken, what flatfs was writing when it was stopped; a folder without a name for blocks.
pub(super) fn list_unfinished(
    folder: &Path,
    each: &mut dyn FnMut(Result<Named, (PathBuf, String)>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Ok(entries) = fs::read_dir(folder.join(UNFINISHED)) else {
        return ControlFlow::Continue(());
    };
    for entry in entries.flatten() {
        each(Err((entry.path(), UNFINISHED_WHY.to_owned())))?;
    }
    ControlFlow::Continue(())
}

fn look(entry: DirEntry, is_top: bool) -> Option<Result<Named, (PathBuf, String)>> {
    let path = entry.path();
    let refuse = |path: PathBuf, why: &str| Some(Err((path, why.to_owned())));
    let kind = match entry.file_type() {
        Ok(kind) => kind,
        Err(error) => return refuse(path, &format!("it cannot be looked at: {error}")),
    };
    if kind.is_dir() {
        return match is_top {
            true => None,
            false => refuse(path, "a folder among blocks"),
        };
    }
    let name = entry.file_name();
    if is_top && KNOWN.iter().any(|known| name == *known) {
        return None;
    }
    if kind.is_symlink() {
        return refuse(path, "a symlink, which Kubo never makes");
    }
    if !kind.is_file() {
        return refuse(path, "not a file");
    }
    Some(match hash_of(&name) {
        Ok(hash) => Ok(Named { path, hash }),
        Err(why) => Err((path, why)),
    })
}

/// The multihash that a file is named by.
fn hash_of(name: &OsString) -> Result<Multihash, String> {
    let name = name.to_str().unwrap_or_default();
    let Some(stem) = name.strip_suffix(".data") else {
        let unfinished = ["temp-", "put-"]
            .iter()
            .any(|begin| name.starts_with(begin));
        return Err(match unfinished {
            true => UNFINISHED_WHY.to_owned(),
            false => "not a name of a block".to_owned(),
        });
    };
    let bytes = (stem.len() <= NAME_BYTES_MAX)
        .then(|| BASE32_NOPAD.decode(stem.as_bytes()).ok())
        .flatten()
        .ok_or("not a name of a block")?;
    let Ok(hash) = Multihash::from_bytes(&bytes) else {
        return Err(match Cid::try_from(&bytes[..]) {
            Ok(cid) => format!("named by a whole CID ({cid}), as before version 12"),
            Err(_) => "not a name of a block".to_owned(),
        });
    };
    cid::check(&Cid::new_v1(RAW, hash)).map_err(|error| error.to_string())?;
    Ok(hash)
}

/// A file of a block, opened, and what the system has begun to read of it.
pub(super) struct Opened {
    file: File,
    length: u64,
}

/// Why a file was not opened.
#[derive(Debug)]
pub(super) enum Unopened {
    /// It is no block, or cannot be read.
    Bad(String),
    /// As many files are open as the system allows: it says nothing of this one.
    TooMany(io::Error),
}

/// Opens a file, if it is one and no larger than a block, and lets the system begin to read it.
pub(super) fn open(path: &Path) -> Result<Opened, Unopened> {
    let (file, length) = file::open(path, Links::Refused).map_err(unopened)?;
    if length > BLOCK_BYTES_MAX as u64 {
        return Err(Unopened::Bad(format!(
            "it is larger than {BLOCK_BYTES_MAX} bytes, the most that a block has"
        )));
    }
    // Only asked for: who cannot will read it all the same.
    let _ = rustix::fs::fadvise(&file, 0, NonZeroU64::new(length), Advice::WillNeed);
    Ok(Opened { file, length })
}

impl Opened {
    pub(super) fn read(self) -> Result<Vec<u8>, String> {
        file::read_open(&self.file, self.length).map_err(unreadable)
    }
}

fn unopened(error: io::Error) -> Unopened {
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => Unopened::TooMany(error),
        _ => Unopened::Bad(unreadable(error)),
    }
}

fn unreadable(error: io::Error) -> String {
    format!("it cannot be read: {error}")
}

/// What lies beside the folders of blocks.
const KNOWN: [&str; 3] = [SHARDING, "_README", USAGE];
/// Where flatfs writes before it gives a file its name.
const UNFINISHED: &str = ".temp";
const UNFINISHED_WHY: &str = "not finished when Kubo was stopped";
const SHARDING: &str = "SHARDING";
const USAGE: &str = "diskUsage.cache";
const SHARD_FUNCTIONS: &str = "/repo/flatfs/shard/v1/";
/// Most bytes of the files that say something about the others.
const SMALL_BYTES_MAX: u64 = 64 << 10;
/// Longest name of a block: that of the longest digest.
const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_multihash() {
        let hash = |name: &str| hash_of(&name.into());
        // From a repository that Kubo 0.43.1 wrote: the empty folder.
        let name = "CIQFTFEEHEDF6KLBT32BFAGLXEZL4UWFNWM4LFTLMXQBCERZ6CMLX3Y.data";
        let cid = cid::parse("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn").unwrap();
        assert_eq!(hash(name), Ok(*cid.hash()));
        for (wrong, says) in [
            (&name.to_lowercase()[..], "not a name"),
            (&name[1..], "not a name"),
            ("temp-123", "not finished"),
            ("put-123", "not finished"),
            ("notes.txt", "not a name"),
            (".data", "not a name"),
        ] {
            let why = hash(wrong).unwrap_err();
            assert!(why.contains(says), "{wrong}: {why}");
        }
        let cid =
            cid::parse("bafkreigy42lv2czgz635gwkf56ghdxhlpi5gevtotsscxeddphtbovlzai").unwrap();
        let name = format!("{}.data", BASE32_NOPAD.encode(&cid.to_bytes()));
        assert!(hash(&name).unwrap_err().contains("whole CID"));
        let murmur = Multihash::wrap(0x22, &[7; 8]).unwrap();
        let name = format!("{}.data", BASE32_NOPAD.encode(&murmur.to_bytes()));
        assert!(hash(&name).unwrap_err().contains("unknown hash"));
    }

    #[test]
    fn a_file_is_not_bad_because_too_many_are_open() {
        let of = |errno: Errno| unopened(errno.into());
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert!(matches!(of(errno), Unopened::TooMany(_)), "{errno}");
        }
        assert!(matches!(of(Errno::ACCESS), Unopened::Bad(_)));
    }

    #[test]
    fn every_way_to_spread_files_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SHARDING);
        for (text, good) in [
            ("/repo/flatfs/shard/v1/next-to-last/2\n", true),
            ("/repo/flatfs/shard/v1/prefix/5", true),
            ("/repo/flatfs/shard/v1/suffix/0", true),
            ("/repo/flatfs/shard/v1/suffix", false),
            ("/repo/flatfs/shard/v1/suffix/x", false),
            ("/repo/flatfs/shard/v2/suffix/2", false),
            ("", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(check(folder.path()).is_ok(), good, "{text:?}");
        }
    }
}
