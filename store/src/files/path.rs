//! Paths in the file tree.

use super::FilesError;
use std::fmt;

/// A path in the file tree: the names from the root on.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilesPath {
    names: Vec<String>,
}

impl FilesPath {
    /// Reads a path as Kubo does: it begins with a slash, empty names and `.` count for nothing, `..` for its parent.
    pub fn parse(text: &str) -> Result<Self, FilesError> {
        if text.is_empty() {
            return Err(wrong("paths must not be empty"));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(wrong("paths must start with a leading slash"));
        };
        let mut path = Self::default();
        for name in rest.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(path.names.pop()),
                name => path.push(name)?,
            }
        }
        Ok(path)
    }

    /// The same path, one name longer.
    pub fn join(&self, name: &str) -> Result<Self, FilesError> {
        let mut path = self.clone();
        path.push(name)?;
        Ok(path)
    }

    fn push(&mut self, name: &str) -> Result<(), FilesError> {
        check_name(name)?;
        if self.names.len() >= DEPTH_MAX {
            return Err(wrong(format!("a path has at most {DEPTH_MAX} names")));
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// The names from the root on.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The last name; `None` for the root.
    pub fn name(&self) -> Option<&str> {
        self.names.last().map(String::as_str)
    }

    /// The folder that it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, names) = self.names.split_last()?;
        let names = names.to_vec();
        Some(Self { names })
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it is `other`, or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.names.starts_with(&other.names)
    }
}

impl fmt::Display for FilesPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return out.write_str("/");
        }
        self.names
            .iter()
            .try_for_each(|name| write!(out, "/{name}"))
    }
}

fn check_name(name: &str) -> Result<(), FilesError> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(wrong(format!("{name:?} cannot be a name in a folder")));
    }
    if name.len() > NAME_BYTES_MAX {
        let bytes = name.len();
        return Err(wrong(format!(
            "a name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}"
        )));
    }
    Ok(())
}

fn wrong(what: impl Into<String>) -> FilesError {
    FilesError::Path(what.into())
}

/// Most bytes of a name.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most names of a path.
pub const DEPTH_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_kubo_reads_them() {
        for (text, path) in [
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/a b", "/a b"),
        ] {
            assert_eq!(FilesPath::parse(text).unwrap().to_string(), path);
        }
        for (text, why) in [
            ("", "paths must not be empty"),
            ("a", "paths must start with a leading slash"),
        ] {
            assert_eq!(FilesPath::parse(text).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn names_and_depths_have_bounds() {
        assert!(FilesPath::parse(&format!("/{}", "n".repeat(NAME_BYTES_MAX))).is_ok());
        assert!(FilesPath::parse(&format!("/{}", "n".repeat(NAME_BYTES_MAX + 1))).is_err());
        assert!(FilesPath::parse(&"/n".repeat(DEPTH_MAX)).is_ok());
        assert!(FilesPath::parse(&"/n".repeat(DEPTH_MAX + 1)).is_err());
        assert!(FilesPath::parse("/a\0b").is_err());
        for name in ["", ".", "..", "a/b"] {
            assert!(FilesPath::default().join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_lies_below_is_told_by_whole_names() {
        let path = |text| FilesPath::parse(text).unwrap();
        assert!(path("/a/b").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/a")));
        assert!(path("/a").is_within(&path("/")));
        assert!(!path("/ab").is_within(&path("/a")));
    }
}
