//! What could not be had of a DAG: the first are named, all are counted.

use std::fmt;

/// Blocks, or files, that are missing. In order, each as often as it was missed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Absent {
    named: Vec<String>,
    count: u64,
    in_a_row: u64,
    /// Why the first one is.
    why: String,
}

impl Absent {
    /// One more, and why.
    pub fn take(&mut self, name: impl fmt::Display, why: impl fmt::Display) {
        if self.named.len() < NAMED_MAX {
            let name = name.to_string();
            let (short, rest) = name.split_at(name.floor_char_boundary(NAME_BYTES_MAX));
            let more = if rest.is_empty() { "" } else { "…" };
            self.named.push(format!("{short}{more}"));
        }
        if self.count == 0 {
            self.why = why.to_string();
        }
        self.count += 1;
        self.in_a_row += 1;
    }

    /// What is missing of a part of the same: as hopeless as this is by now.
    pub fn of_part(&self) -> Self {
        Self {
            in_a_row: self.in_a_row,
            ..Self::default()
        }
    }

    /// Goes on behind a part, which counts as one, with as much hope as there was at its end.
    pub fn after_part(&mut self, part: &Self, name: impl fmt::Display, why: impl fmt::Display) {
        self.take(name, why);
        self.in_a_row = part.in_a_row;
    }

    /// One that is not missing.
    pub fn came(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether so many were missing, one after the other, that nobody seems to be left who has any:
    /// each further one would cost its time limit.
    pub fn is_hopeless(&self) -> bool {
        self.in_a_row >= IN_A_ROW_MAX
    }

    /// Whether nothing is missing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many are missing.
    pub fn count(&self) -> u64 {
        self.count
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.named.join(", "))?;
        let more = self.count - self.named.len() as u64;
        if more > 0 {
            write!(out, " and {more} more")?;
        }
        if self.is_hopeless() {
            write!(out, ", and whatever comes after them")?;
        }
        match self.count {
            1 => write!(out, " ({})", self.why),
            _ => write!(out, " (of the first: {})", self.why),
        }
    }
}

/// Most that are named.
const NAMED_MAX: usize = 16;
/// Longest name that is told: it may be a stranger's.
const NAME_BYTES_MAX: usize = 200;
/// Missing ones in a row after which nothing further is asked for: at the least breadth of a walk,
/// eight times the time that one is waited for.
const IN_A_ROW_MAX: u64 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_named_and_all_are_counted() {
        let mut absent = Absent::default();
        absent.take("a", "nobody has it");
        assert_eq!(absent.to_string(), "a (nobody has it)");
        absent.take("b", "nobody has this either");
        assert_eq!(absent.to_string(), "a, b (of the first: nobody has it)");
        for at in 0..20 {
            absent.take(at, "");
        }
        let told = absent.to_string();
        assert!(told.contains(", 13 and 6 more (of the first"), "{told}");
    }

    #[test]
    fn a_part_is_one_and_what_is_missing_of_it_takes_the_hope_of_the_whole() {
        let mut whole = Absent::default();
        for _ in 0..3 {
            let mut part = whole.of_part();
            for _ in 0..IN_A_ROW_MAX / 2 {
                part.take("block", "");
            }
            whole.after_part(&part, "file", part.to_string());
        }
        assert_eq!(whole.count(), 3);
        assert!(whole.is_hopeless());
        let mut part = whole.of_part();
        part.came();
        part.take("block", "");
        whole.after_part(&part, "file", "");
        assert!(!whole.is_hopeless());
    }

    #[test]
    fn long_names_are_cut() {
        let mut absent = Absent::default();
        absent.take("é".repeat(1000), "gone");
        assert_eq!(absent.to_string(), format!("{}… (gone)", "é".repeat(100)));
    }

    #[test]
    fn it_is_hopeless_once_many_in_a_row_are_missing() {
        let mut absent = Absent::default();
        for _ in 1..IN_A_ROW_MAX {
            absent.take("x", "");
        }
        assert!(!absent.is_hopeless());
        absent.came();
        absent.take("x", "");
        assert!(!absent.is_hopeless());
        for _ in 1..IN_A_ROW_MAX {
            absent.take("x", "");
        }
        assert!(absent.is_hopeless());
        assert!(absent.to_string().contains("whatever comes after"));
    }
}
