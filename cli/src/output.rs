//! The only place that prints: lines to standard output, notes and errors to standard error.
//!
//! Names come from strangers. A name with control or bidirectional characters could rewrite the
//! terminal or read as another name, so [`escape`] is between every name and the terminal, and
//! [`escape_json`] does the same for JSON, where the result still means the same text.

use crate::rpc::entries::Meter;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

/// Standard output, buffered. Whoever prints flushes when there is nothing more to print now.
#[derive(Debug)]
pub struct Printer {
    out: BufWriter<Stdout>,
}

impl Default for Printer {
    fn default() -> Self {
        Self {
            out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout()),
        }
    }
}

impl Printer {
    /// One line. Names inside it were escaped by whoever put them there.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// The same, where what follows is printed elsewhere on the same screen.
    pub fn flush_if(&mut self, needed: bool) -> io::Result<()> {
        if needed { self.flush() } else { Ok(()) }
    }

    /// Everything printed so far goes out now.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One line on standard error.
pub fn note(text: &str) {
    // When standard error is gone there is nowhere left to say so.
    let _ = writeln!(io::stderr(), "{text}");
}

/// One line on standard error that somebody should act on, though the program goes on.
pub fn warning(text: &str) {
    note(&warning_line(text));
}

/// The same line, for who writes it elsewhere.
pub fn warning_line(text: &str) -> String {
    format!("warning: {}", escape_line(text))
}

/// Text on standard error without a line's end, for a figure that is written over.
pub fn note_over(text: &str) {
    let _ = write!(io::stderr(), "\r\x1b[2K{text}");
}

/// The one line that tells why the program ends with a failure.
pub fn error(text: &str) {
    note(&format!("Error: {}", escape_line(text)));
}

/// A figure that grows, shown on standard error while somebody watches it.
#[derive(Debug)]
pub struct Progress(indicatif::ProgressBar);

impl Progress {
    /// Bytes out of `total`, if that is known. Shown only on a terminal.
    pub fn bytes(total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => indicatif::ProgressBar::new(total),
            None => indicatif::ProgressBar::new_spinner(),
        };
        let template = if total.is_some() {
            "{bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {wide_bar}"
        } else {
            "{bytes}  {bytes_per_sec}"
        };
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Bytes out of a total that is told along the way.
    pub fn share() -> Self {
        Self::bytes(Some(0))
    }

    /// The same, behind words that change.
    pub fn share_with_words() -> Self {
        let bar = indicatif::ProgressBar::new(0);
        let template = "{msg}  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {wide_bar}";
        if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So many bytes of so many by now.
    pub fn at_share(&self, bytes: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(bytes);
    }

    /// Blocks and their bytes, and what is left of those where that is told.
    pub fn blocks() -> Self {
        let bar = indicatif::ProgressBar::new_spinner();
        if let Ok(style) = indicatif::ProgressStyle::with_template(BLOCKS) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// So many blocks of so many bytes by now, of so many in all.
    pub fn at_blocks(&self, blocks: u64, bytes: u64, total: Option<u64>) {
        // What is linked twice comes once, and whoever wrote the total may have been wrong.
        let total = total.filter(|total| *total >= bytes);
        if total != self.0.length() {
            let template = if total.is_some() { BLOCKS_OF } else { BLOCKS };
            if let Ok(style) = indicatif::ProgressStyle::with_template(template) {
                self.0.set_style(style);
            }
            match total {
                Some(total) => self.0.set_length(total),
                None => self.0.unset_length(),
            }
        }
        if bytes < self.0.position() {
            // The next one has begun.
            self.0.reset();
        }
        self.0.set_position(bytes);
        self.0.set_message(format!("{blocks} blocks"));
    }

    /// Words that change.
    pub fn words() -> Self {
        let bar = indicatif::ProgressBar::new_spinner();
        if let Ok(style) = indicatif::ProgressStyle::with_template("{msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// These words from now on.
    pub fn say(&self, words: String) {
        self.0.set_message(words);
    }

    /// Somebody to tell of bytes that were read, who shows them here.
    pub fn meter(&self) -> Meter {
        let bar = self.0.clone();
        Meter::new(move |bytes| bar.inc(bytes))
    }

    /// No figure at all.
    pub fn none() -> Self {
        Self(indicatif::ProgressBar::hidden())
    }

    /// So many bytes by now.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Prints without tearing the figure.
    pub fn beside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Whether somebody watches standard error.
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// `name` with control, bidirectional and other unprintable characters, and the backslash that
/// marks them, written as escapes.
pub fn escape(name: &str) -> Cow<'_, str> {
    if !name.chars().any(|c| c == '\\' || is_unprintable(c)) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(escaped(name, |c| c == '\\'))
}

/// A whole line of text, in which a backslash is nothing special.
pub fn escape_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(escaped(text, |_| false))
}

fn escaped(text: &str, also: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if also(c) => {
                out.push('\\');
                out.push(c);
            }
            c if is_unprintable(c) => {
                let code = u32::from(c);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0x7f => write!(out, "\\x{code:02x}"),
                    0x80..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out
}

/// JSON text in which no such character stands as itself. Only strings hold them, and there
/// `\uXXXX` means the same.
pub fn escape_json(json: String) -> String {
    if !json.chars().any(|c| is_unprintable(c) && c != '\n') {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    let mut units = [0; 2];
    for c in json.chars() {
        if is_unprintable(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that move the cursor, turn the direction of writing, or cannot be seen.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' // Arabic letter mark
            | '\u{200b}'..='\u{200f}' // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}' // separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}' // invisible operators, isolates
            | '\u{feff}' // zero width no-break space
            | '\u{fff9}'..='\u{fffb}' // interlinear annotation
            | '\u{e0000}'..='\u{e007f}') // tags
}

/// A number of bytes as people read it: `1.2 kB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut unit = 0;
    let mut scale: u64 = 1;
    while unit + 1 < UNITS.len() && bytes / scale >= 1000 {
        scale = scale.saturating_mul(1000);
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    // Tenths, rounded to the nearest.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if unit == 0 || tenths >= 100 {
        format!("{} {name}", (tenths + 5) / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// A time as people read it: `2023-11-14T22:13:20Z`.
pub fn utc(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day, both from 1, of so many days since 1970-01-01; of a time in seconds that fits 64 bits.
pub fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the day that comes and goes is the last of its year; the
    // calendar repeats after 400 years, and 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + later, month, day)
}

/// Rows as columns: each padded to its widest cell, one space between, nothing after the last.
pub fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(at) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            let last = row.len().saturating_sub(1);
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(cell);
                if at < last {
                    let padding = width + 1 - cell.chars().count();
                    line.extend(std::iter::repeat_n(' ', padding));
                }
            }
            line
        })
        .collect()
}

const BUFFER_BYTES: usize = 64 << 10;
/// How blocks are shown that come, and those of which it is known how much there is.
const BLOCKS: &str = "{msg}  {bytes}  {bytes_per_sec}";
const BLOCKS_OF: &str = "{msg}  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_rewrite_the_terminal_are_escaped() {
        assert_eq!(escape("plain name.txt"), "plain name.txt");
        assert_eq!(escape("größe 😀"), "größe 😀");
        assert_eq!(escape("a\nb"), "a\\nb");
        assert_eq!(escape("\x1b[2Jgone"), "\\x1b[2Jgone");
        assert_eq!(escape("evil\u{202e}txt.exe"), "evil\\u202etxt.exe");
        assert_eq!(escape("tag\u{e0041}"), "tag\\U000e0041");
        assert_eq!(escape("back\\slash"), "back\\\\slash");
        assert_eq!(escape("\u{85}\u{9b}31m"), "\\u0085\\u009b31m");
    }

    #[test]
    fn an_escaped_name_cannot_be_mistaken_for_another() {
        assert_ne!(escape("a\\nb"), escape("a\nb"));
    }

    #[test]
    fn times_are_told_by_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), text);
        }
    }

    #[test]
    fn json_keeps_its_meaning_when_escaped() {
        for text in ["a\u{202e}b", "\u{e0041}", "\u{7f}", "ok"] {
            let json = serde_json::to_string(text).unwrap();
            let escaped = escape_json(json);
            assert!(!escaped.chars().any(is_unprintable), "{escaped}");
            let back: String = serde_json::from_str(&escaped).unwrap();
            assert_eq!(back, text);
        }
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(escape_line("a\nb\x1b"), "a\\nb\\x1b");
        assert_eq!(escape_line("C:\\x"), "C:\\x");
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        assert_eq!(human_bytes(0), "0 B");
        assert_eq!(human_bytes(9), "9 B");
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1000), "1.0 kB");
        assert_eq!(human_bytes(82_854_982), "83 MB");
        assert_eq!(human_bytes(10_000_000_000), "10 GB");
        assert_eq!(human_bytes(u64::MAX), "18 EB");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let rows = [row(&["a", "100", "x y"]), row(&["bb", "-", "z"])];
        assert_eq!(columns(&rows), ["a  100 x y", "bb -   z"]);
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
