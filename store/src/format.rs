//! The version of the folder on disk. Older formats are migrated one step at a time. The layouts are
//! written down in `docs/on-disk-format.md`.
//!
//! * 1: the first.
//! * 2: a third stream of segments (`cache`), and kinds of journal records that readers of format 1 do
//!   not know. What format 1 wrote is read as it is; only its index is built anew.
//! * 3: notes in the journal. What format 2 wrote is read as it is.
//! * 4: pins with what belongs to them, the root of the file tree and blocks in the user's files: what they
//!   keep, a program of format 3 would collect. What format 3 wrote is read as it is.

use crate::durable;
use crate::log::files::Access;
use crate::store::OpenError;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The format this program writes.
pub const FORMAT: u32 = 4;

/// Refuses folders of newer programs; marks a new folder, and one of an older format, with ours.
pub(crate) fn check(root: &Path, access: Access) -> Result<(), OpenError> {
    let path = root.join(FILE);
    let disk = |source| OpenError::Disk {
        what: path.display().to_string(),
        source,
    };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.trim().parse().map_err(|_| {
                disk(std::io::Error::new(
                    ErrorKind::InvalidData,
                    format!(
                        "{text:?} is no version; restore the file with the content \"{FORMAT}\""
                    ),
                ))
            })?;
            if found > FORMAT {
                let path = root.display().to_string();
                return Err(OpenError::Newer {
                    path,
                    found,
                    known: FORMAT,
                });
            }
            if found < FORMAT && access == Access::ReadWrite {
                mark(&path).map_err(disk)?;
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => mark(&path).map_err(disk),
        Err(error) => Err(disk(error)),
    }
}

fn mark(path: &Path) -> std::io::Result<()> {
    let text = format!("{FORMAT}\n");
    durable::write(path, text.as_bytes(), durable::Access::Shared)
}

pub(crate) const FILE: &str = "version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_a_new_folder_and_knows_it_again() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path(), Access::ReadWrite).unwrap();
        check(folder.path(), Access::ReadWrite).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "4\n");
    }

    #[test]
    fn refuses_a_newer_format_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "5\n").unwrap();
        let refused = check(folder.path(), Access::ReadWrite);
        assert!(matches!(
            refused,
            Err(OpenError::Newer {
                found: 5,
                known: 4,
                ..
            })
        ));
    }

    #[test]
    fn a_version_that_is_no_number_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "banana").unwrap();
        assert!(matches!(
            check(folder.path(), Access::ReadWrite),
            Err(OpenError::Disk { .. })
        ));
    }
}
