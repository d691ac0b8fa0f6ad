//! A list's bytes, taken apart: the header, if there is one, and line after line, none longer than may be.

use super::parse::{HEADER_BYTES_MAX, LINE_BYTES_MAX};
use std::io::{self, BufRead, Read, Take};

/// The beginning of a list.
pub(super) struct Head {
    pub(super) header: Vec<u8>,
    /// How many lines that was, the one that ends it included.
    pub(super) lines: u64,
    /// What was read of what follows.
    pub(super) rest: Vec<u8>,
}

/// Reads as far as a header may go. Without an end there is none, and everything is lines.
pub(super) fn head(source: &mut impl Read) -> io::Result<Head> {
    let mut header = Vec::new();
    let most = u64::try_from(HEADER_BYTES_MAX).unwrap_or(u64::MAX);
    source.take(most).read_to_end(&mut header)?;
    // Some editors write it; it is no part of the text.
    if header.starts_with(BYTE_ORDER_MARK) {
        header.drain(..BYTE_ORDER_MARK.len());
    }
    let mut from = 0;
    for (lines, line) in (1..).zip(header.split_inclusive(|byte| *byte == b'\n')) {
        if line.trim_ascii_end() == HEADER_END {
            let rest = header.split_off(from + line.len());
            header.truncate(from);
            return Ok(Head {
                header,
                lines,
                rest,
            });
        }
        from += line.len();
    }
    Ok(Head {
        header: Vec::new(),
        lines: 0,
        rest: header,
    })
}

/// What a line is.
pub(super) enum Line {
    Whole,
    /// The last one, and without an end.
    Open,
    Long,
    End,
}

/// Whether there is more than may be read.
pub(super) fn is_cut(source: &mut Take<impl BufRead>) -> io::Result<bool> {
    Ok(source.limit() == 0 && !source.get_mut().fill_buf()?.is_empty())
}

/// Reads a line into `line`, and past one that is too long.
pub(super) fn next_line(source: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    source.by_ref().take(most).read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if line.ends_with(b"\n") {
        return Ok(Line::Whole);
    }
    if line.len() < LINE_BYTES_MAX {
        return Ok(Line::Open);
    }
    // The rest of it; what was kept of it is not needed.
    loop {
        let more = source.fill_buf()?;
        let (taken, is_end) = match more.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (more.len(), more.is_empty()),
        };
        source.consume(taken);
        if is_end {
            return Ok(Line::Long);
        }
    }
}

/// The line of this number, if there are so many.
pub(super) fn line_at(mut source: impl BufRead, number: u32) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    for _ in 0..number {
        if let Line::End = next_line(&mut source, &mut line)? {
            return Ok(None);
        }
    }
    Ok(Some(line))
}

const HEADER_END: &[u8] = b"---";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
