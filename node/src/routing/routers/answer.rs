//! The body of a router's answer: records as they come, within bounds.
//!
//! A stream is read line by line and nothing is kept of a line that was read; a whole list is
//! gathered first. Lines that make no sense are passed over, but not for ever.

use crate::http::{Connection, Failure};
use crate::routing::record::{RECORDS_MAX, Record};
use bytes::BytesMut;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::collections::VecDeque;

/// How records are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One a line.
    Lines,
    /// All in one object.
    Whole,
}

/// An answer of which the head is read.
pub(super) struct Answer {
    /// The body ends with it, so it stays here.
    connection: Connection,
    body: Incoming,
    form: Form,
    /// What was received and not yet read.
    buffer: BytesMut,
    /// Bytes that may yet come.
    bytes_left: usize,
    /// Lines that may yet be read.
    lines_left: usize,
    ready: VecDeque<Record>,
    is_over: bool,
}

impl Answer {
    pub(super) fn new(connection: Connection, body: Incoming, form: Form, bytes: usize) -> Self {
        Self {
            connection,
            body,
            form,
            buffer: BytesMut::new(),
            bytes_left: bytes,
            lines_left: LINES_MAX,
            ready: VecDeque::new(),
            is_over: false,
        }
    }

    /// The next record; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, Failure> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Ok(Some(record));
            }
            if self.is_over || self.lines_left == 0 {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|_| Failure::Broken)?;
                    // Trailers say nothing that matters here.
                    if let Ok(piece) = frame.into_data() {
                        let left = self.bytes_left.checked_sub(piece.len());
                        self.bytes_left = left.ok_or(Failure::TooLarge)?;
                        self.buffer.extend_from_slice(&piece);
                        self.read()?;
                    }
                }
                None => {
                    self.is_over = true;
                    self.read_rest()?;
                }
            }
        }
    }

    /// The connection, if its answer was read to the end.
    pub(super) fn into_connection(self) -> Option<Connection> {
        (self.is_over && self.body.is_end_stream()).then_some(self.connection)
    }

    fn read(&mut self) -> Result<(), Failure> {
        if self.form == Form::Whole {
            return Ok(());
        }
        while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end + 1);
            self.read_line(&line);
        }
        match self.buffer.len() > LINE_BYTES_MAX {
            true => Err(Failure::TooLarge),
            false => Ok(()),
        }
    }

    fn read_rest(&mut self) -> Result<(), Failure> {
        let rest = self.buffer.split();
        match self.form {
            Form::Lines => self.read_line(&rest),
            Form::Whole => {
                let records = Record::from_list(&rest, RECORDS_MAX);
                self.ready.extend(records.map_err(|_| Failure::Broken)?);
            }
        }
        Ok(())
    }

    fn read_line(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if self.lines_left == 0 || line.is_empty() {
            return;
        }
        self.lines_left -= 1;
        self.ready.extend(Record::from_line(line));
    }
}

/// The longest line: a record with more addresses than anybody has.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Lines that are read of one answer, whether there is a record in them or not.
const LINES_MAX: usize = 4 * RECORDS_MAX;
