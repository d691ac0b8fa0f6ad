//! The version of the folder on disk. Older formats are migrated one step at a time; there is
//! only one so far. The layouts are written down in `docs/on-disk-format.md`.

use crate::durable::{self, Access};
use crate::store::OpenError;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The format this program writes.
pub const FORMAT: u32 = 1;

/// Refuses folders of newer programs; marks a new folder with our format.
pub(crate) fn check(root: &Path) -> Result<(), OpenError> {
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
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            durable::write(&path, format!("{FORMAT}\n").as_bytes(), Access::Shared).map_err(disk)
        }
        Err(error) => Err(disk(error)),
    }
}

const FILE: &str = "version";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_a_new_folder_and_knows_it_again() {
        let folder = tempfile::tempdir().unwrap();
        check(folder.path()).unwrap();
        check(folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join(FILE)).unwrap(), "1\n");
    }

    #[test]
    fn refuses_a_newer_format_by_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "2\n").unwrap();
        let refused = check(folder.path());
        assert!(matches!(
            refused,
            Err(OpenError::Newer {
                found: 2,
                known: 1,
                ..
            })
        ));
    }

    #[test]
    fn a_version_that_is_no_number_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "banana").unwrap();
        assert!(matches!(check(folder.path()), Err(OpenError::Disk { .. })));
    }
}
