//! Names that strangers chose, on their way into an archive that somebody will unpack.
//!
//! Whoever unpacks may follow symbolic links that the archive itself made, and may do so on a file
//! system for which `a` and `A`, or two ways to compose `é`, are one name. So no name may come
//! twice or lie below a link, and what such a file system takes for a link counts as the link.
//! Names are remembered as keyed hashes: some bytes an entry however long its path is, and nobody
//! can make two collide.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use unicode_normalization::UnicodeNormalization;

/// The names that an archive holds so far.
#[derive(Debug, Default)]
pub struct Names {
    key: RandomState,
    taken: HashSet<u64>,
    /// The same as a file system sees them that folds names.
    folded: HashSet<u64>,
    folded_links: HashSet<u64>,
}

/// What an entry is to the names after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// A symbolic link: nothing may go through it.
    Link,
    /// A file or a folder.
    Other,
}

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// It is taken.
    #[error("another entry has the same name")]
    Twice,
    /// It lies below a symbolic link of the same archive.
    #[error("it would be unpacked through a symbolic link of the same archive")]
    ThroughLink,
}

impl Names {
    /// Takes the name of an entry, part by part from the top, once.
    pub fn take<T: AsRef<str>>(&mut self, path: &[T], taker: Taker) -> Result<(), Clash> {
        let mut exact = self.key.build_hasher();
        let mut folding = self.key.build_hasher();
        for (at, part) in path.iter().enumerate() {
            // Of the part before: this one is below it.
            if at > 0 && self.folded_links.contains(&folding.finish()) {
                return Err(Clash::ThroughLink);
            }
            let part = part.as_ref();
            exact.write(part.as_bytes());
            exact.write_u8(END);
            folding.write(fold(part).as_bytes());
            folding.write_u8(END);
        }
        let folded = folding.finish();
        let meets_a_link = match taker {
            Taker::Link => self.folded.contains(&folded),
            Taker::Other => self.folded_links.contains(&folded),
        };
        if meets_a_link || !self.taken.insert(exact.finish()) {
            return Err(Clash::Twice);
        }
        self.folded.insert(folded);
        if taker == Taker::Link {
            self.folded_links.insert(folded);
        }
        Ok(())
    }
}

/// A name as a file system sees it for which case and composition make no difference.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let lower: String = name.nfd().flat_map(char::to_lowercase).collect();
    lower.nfc().collect()
}

/// Stands between parts: no byte of UTF-8.
const END: u8 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_taken_twice_or_through_a_link() {
        let mut names = Names::default();
        names.take(&["a"], Taker::Link).unwrap();
        assert_eq!(names.take(&["a"], Taker::Other), Err(Clash::Twice));
        assert_eq!(
            names.take(&["a", "b", "c"], Taker::Other),
            Err(Clash::ThroughLink)
        );
        names.take(&["b", "a"], Taker::Other).unwrap();
        assert_eq!(names.take(&["b", "a"], Taker::Link), Err(Clash::Twice));
        // Parts are parts, however they are cut.
        names.take(&["ba"], Taker::Other).unwrap();
    }

    #[test]
    fn what_some_file_systems_take_for_a_link_is_one() {
        let mut names = Names::default();
        names.take(&["é"], Taker::Link).unwrap();
        for name in ["É", "e\u{301}", "E\u{301}"] {
            assert_eq!(names.take(&[name], Taker::Other), Err(Clash::Twice));
            assert_eq!(
                names.take(&[name, "x"], Taker::Other),
                Err(Clash::ThroughLink)
            );
        }
        // A link where such a name is already.
        names.take(&["README"], Taker::Other).unwrap();
        assert_eq!(names.take(&["readme"], Taker::Link), Err(Clash::Twice));
        // Files alone may differ in case.
        names.take(&["Readme"], Taker::Other).unwrap();
    }
}
