//! Which tables and logs of a database count: the manifest, a log of changes of that.

use super::journal::Journal;
use super::{ReadAt, counted, file, open, varint};
use std::collections::BTreeSet;
use std::path::Path;

/// The files that count.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) tables: BTreeSet<u64>,
    /// Logs from this on.
    log: u64,
    /// And this one.
    log_before: u64,
}

impl Live {
    pub(super) fn has_log(&self, number: u64) -> bool {
        number >= self.log || number == self.log_before
    }

    /// What a manifest says. Damage in it is an error: a change that is missing would let other tables count.
    pub(super) fn read(file: &dyn ReadAt, tell: &mut dyn FnMut(String)) -> Result<Self, String> {
        let mut live = Self::default();
        let mut manifest = Journal::over(file);
        let mut is_any = false;
        while let Some(record) = manifest.next() {
            let edit = Edit::read(record?).ok_or("it holds a change that cannot be read")?;
            if let Some(comparator) = &edit.comparator
                && comparator != COMPARATOR
            {
                let name = String::from_utf8_lossy(comparator);
                tell(format!(
                    "its keys are in the order of {name:?}, which is not known"
                ));
            }
            live.log = edit.log.unwrap_or(live.log);
            live.log_before = edit.log_before.unwrap_or(live.log_before);
            live.tables.extend(edit.new);
            for gone in edit.gone {
                live.tables.remove(&gone);
            }
            is_any = true;
        }
        match is_any {
            true => Ok(live),
            false => Err("it is empty".to_owned()),
        }
    }
}

/// What the manifest of a folder says.
pub(super) fn read(folder: &Path, tell: &mut dyn FnMut(String)) -> Result<Live, String> {
    let current = file::read(&folder.join(CURRENT), CURRENT_BYTES_MAX)
        .map_err(|error| format!("{CURRENT}: {error}"))?;
    let name = std::str::from_utf8(&current).unwrap_or_default().trim_end();
    if !name.starts_with("MANIFEST-") || name.contains('/') {
        return Err(format!("{CURRENT} names no manifest"));
    }
    let file = open(&folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    Live::read(&file, tell).map_err(|why| format!("{name}: {why}"))
}

/// Everything that a change of the manifest says.
#[derive(Debug, Default)]
struct Edit {
    comparator: Option<Vec<u8>>,
    log: Option<u64>,
    log_before: Option<u64>,
    gone: Vec<u64>,
    new: Vec<u64>,
}

impl Edit {
    fn read(mut bytes: &[u8]) -> Option<Self> {
        let mut edit = Self::default();
        while !bytes.is_empty() {
            match varint(&mut bytes)? {
                1 => edit.comparator = Some(counted(&mut bytes)?.to_vec()),
                2 => edit.log = Some(varint(&mut bytes)?),
                // The next file's number and the last entry's.
                3 | 4 => drop(varint(&mut bytes)?),
                // Where a level was compacted last.
                5 => {
                    varint(&mut bytes)?;
                    counted(&mut bytes)?;
                }
                6 => {
                    varint(&mut bytes)?;
                    edit.gone.push(varint(&mut bytes)?);
                }
                7 => {
                    varint(&mut bytes)?;
                    edit.new.push(varint(&mut bytes)?);
                    varint(&mut bytes)?;
                    counted(&mut bytes)?;
                    counted(&mut bytes)?;
                }
                9 => edit.log_before = Some(varint(&mut bytes)?),
                _ => return None,
            }
        }
        Some(edit)
    }
}

/// Names the manifest.
const CURRENT: &str = "CURRENT";
/// Most bytes of that name.
const CURRENT_BYTES_MAX: u64 = 256;
/// How keys are ordered everywhere but in databases for something else.
const COMPARATOR: &[u8] = b"leveldb.BytewiseComparator";
