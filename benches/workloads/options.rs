//! What the command line of a bench chooses: `[ROW ...] [--quick] [NAME=NUMBER ...] [folder=PATH] [plots=PATH]`.
//!
//! A row's name runs that row alone. Numbers may be written like `100000`, `1M` or `256KiB`;
//! `rounds=7` is one of them. `--quick` takes small sizes and one round, to see that all of it works.

use cairn_store::config::ByteSize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A number that the command line may change.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// What it is when nobody says otherwise.
    pub full: u64,
    /// What it is with `--quick`.
    pub quick: u64,
}

/// Shorthand for a [`Size`].
pub const fn size(name: &'static str, full: u64, quick: u64) -> Size {
    Size { name, full, quick }
}

/// The command line, read.
#[derive(Debug)]
pub struct Options {
    rows: Vec<String>,
    sizes: BTreeMap<String, u64>,
    folder: PathBuf,
    plots: Option<PathBuf>,
    quick: bool,
}

impl Options {
    /// Reads the command line of a bench with these rows and sizes. Anything unknown ends the
    /// program with a line that says what there is.
    pub fn read(rows: &[&str], sizes: &[Size]) -> Self {
        Self::parse(std::env::args().skip(1), rows, sizes).unwrap_or_else(|wrong| {
            let names: Vec<_> = sizes.iter().map(|size| size.name).collect();
            println!(
                "{wrong}\nrows: {}\nnumbers: rounds, {}\nothers: --quick, folder=PATH, plots=PATH",
                rows.join(", "),
                names.join(", ")
            );
            std::process::exit(2)
        })
    }

    fn parse(
        arguments: impl Iterator<Item = String>,
        rows: &[&str],
        sizes: &[Size],
    ) -> Result<Self, String> {
        let mut options = Self {
            rows: Vec::new(),
            sizes: BTreeMap::new(),
            folder: PathBuf::from("."),
            plots: None,
            quick: false,
        };
        let mut chosen = BTreeMap::new();
        for argument in arguments {
            match argument.split_once('=') {
                // Cargo says that it is a bench.
                None if argument == "--bench" => {}
                None if argument == "--quick" => options.quick = true,
                None if rows.contains(&argument.as_str()) => options.rows.push(argument),
                Some(("folder", path)) => options.folder = path.into(),
                Some(("plots", path)) => options.plots = Some(path.into()),
                Some((name, number))
                    if name == ROUNDS || sizes.iter().any(|size| size.name == name) =>
                {
                    let number: ByteSize = number
                        .parse()
                        .map_err(|_| format!("{number:?} is no number"))?;
                    chosen.insert(name.to_owned(), number.0);
                }
                _ => {
                    return Err(format!(
                        "{argument:?} is no row and no number of this bench"
                    ));
                }
            }
        }
        let rounds = size(ROUNDS, 5, 1);
        for size in sizes.iter().chain([&rounds]) {
            let default = if options.quick { size.quick } else { size.full };
            options.sizes.insert(size.name.to_owned(), default);
        }
        options.sizes.append(&mut chosen);
        Ok(options)
    }

    /// Whether this row is to be run.
    pub fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| wanted == row)
    }

    /// A number that was declared.
    pub fn number(&self, name: &str) -> u64 {
        self.sizes.get(name).copied().expect("a declared number")
    }

    /// The same, to count things in memory with.
    pub fn count(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).expect("a number below the machine's")
    }

    /// How often each contestant is measured.
    pub fn rounds(&self) -> usize {
        self.count(ROUNDS)
    }

    /// Where files are to be made.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// Where plots are to be drawn, if they are.
    pub fn plots(&self) -> Option<&std::path::Path> {
        self.plots.as_deref()
    }

    /// Whether this is only to see that it works.
    pub fn is_quick(&self) -> bool {
        self.quick
    }
}

const ROUNDS: &str = "rounds";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        Options::parse(arguments, &["large", "small"], &[size("bytes", 100, 10)])
    }

    #[test]
    fn without_arguments_every_row_runs_at_its_full_size() {
        let options = parse(&["--bench"]).unwrap();
        assert!(options.wants("large") && options.wants("small"));
        assert_eq!((options.number("bytes"), options.rounds()), (100, 5));
    }

    #[test]
    fn rows_and_numbers_are_chosen_by_name() {
        let options = parse(&["small", "bytes=2KiB", "--quick", "rounds=3"]).unwrap();
        assert!(options.wants("small") && !options.wants("large"));
        assert_eq!((options.number("bytes"), options.rounds()), (2048, 3));
        assert_eq!(parse(&["--quick"]).unwrap().number("bytes"), 10);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for wrong in ["lage", "byte=1", "bytes=many", "--quik"] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
