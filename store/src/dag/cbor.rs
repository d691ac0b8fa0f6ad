//! dag-cbor and plain cbor, by an event reader that builds nothing itself.
//!
//! [`read`] walks the bytes with an explicit stack, so depth costs no call stack, and allocates by
//! what is there, never by a declared length. Values are built from its events
//! ([`super::value::Builder`]), links are collected from them without building values.

use super::value::{Builder, Event, Value};
use super::{DEPTH_MAX, pb};
use crate::cid::Cid;
use std::borrow::Cow;

/// How much is asked of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// dag-cbor as it must be written: shortest forms, keys in order, 64-bit floats, tag 42 only.
    Strict,
    /// dag-cbor as it is met: what go-ipld reads, although it would write it differently.
    Lenient,
    /// Plain cbor: tags are passed over, links mean nothing.
    Plain,
}

/// Decodes strict dag-cbor.
pub fn decode(data: &[u8]) -> Result<Value, String> {
    decode_as(data, Form::Strict)
}

/// Decodes dag-cbor or cbor.
pub fn decode_as(data: &[u8], form: Form) -> Result<Value, String> {
    let mut builder = Builder::default();
    read(data, form, &mut |event| builder.take(event))?;
    builder.finish()
}

/// Encodes dag-cbor: shortest forms, keys sorted by length then bytes.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, value);
    out
}

pub(crate) fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    let bytes = value.to_be_bytes();
    let [.., last] = bytes;
    match value {
        0..24 => out.push(major | last),
        24..0x100 => out.extend([major | 24, last]),
        0x100..0x1_0000 => {
            out.push(major | 25);
            out.extend(bytes.iter().skip(6));
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend(bytes.iter().skip(4));
        }
        _ => {
            out.push(major | 27);
            out.extend(bytes);
        }
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(0xf6),
        Value::Bool(truth) => out.push(0xf4 | u8::from(*truth)),
        Value::Integer(number) => put_integer(out, *number),
        Value::Float(number) => {
            out.push(0xfb);
            out.extend(number.to_be_bytes());
        }
        Value::Text(text) => {
            put_head(out, 3, text.len() as u64);
            out.extend(text.as_bytes());
        }
        Value::Bytes(bytes) => {
            put_head(out, 2, bytes.len() as u64);
            out.extend(bytes);
        }
        Value::List(items) => {
            put_head(out, 4, items.len() as u64);
            for item in items {
                put(out, item);
            }
        }
        Value::Map(entries) => {
            put_head(out, 5, entries.len() as u64);
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| order(a, b));
            for (key, value) in sorted {
                put_head(out, 3, key.len() as u64);
                out.extend(key.as_bytes());
                put(out, value);
            }
        }
        Value::Link(cid) => put_link(out, cid),
    }
}

pub(crate) fn put_link(out: &mut Vec<u8>, cid: &Cid) {
    out.extend([0xd8, 42]);
    put_head(out, 2, cid.encoded_len() as u64 + 1);
    out.push(0);
    out.extend(cid.to_bytes());
}

/// Numbers beyond 64 bits do not come out of any decoder; they are cut to the nearest that fits.
fn put_integer(out: &mut Vec<u8>, number: i128) {
    let (major, value) = if number < 0 {
        (1, -1 - number)
    } else {
        (0, number)
    };
    put_head(out, major, u64::try_from(value).unwrap_or(u64::MAX));
}

fn order(a: &str, b: &str) -> std::cmp::Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// What a container still waits for.
struct Frame<'a> {
    /// Items still to come, pairs in a map; `None` until a break.
    left: Option<u64>,
    map: Option<Map<'a>>,
}

/// A map between its keys.
struct Map<'a> {
    value_is_due: bool,
    last: Option<Cow<'a, str>>,
}

/// Reads one item and everything in it; bytes after it are an error.
pub(crate) fn read<'a>(
    data: &'a [u8],
    form: Form,
    on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader { data, at: 0, form };
    let mut stack: Vec<Frame<'a>> = Vec::new();
    loop {
        let begin = reader.at;
        let failed = |why: String| format!("{why}, at byte {begin}");
        reader.step(&mut stack, on).map_err(failed)?;
        while stack.last().is_some_and(Frame::is_done) {
            stack.pop();
            on(Event::End)?;
        }
        if stack.is_empty() {
            break;
        }
    }
    match data.len() - reader.at {
        0 => Ok(()),
        more => Err(format!("{more} bytes after the end, at byte {}", reader.at)),
    }
}

impl Frame<'_> {
    fn is_done(&self) -> bool {
        self.left == Some(0) && self.map.as_ref().is_none_or(|map| !map.value_is_due)
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    form: Form,
}

/// The first byte of an item, and the number that goes with it.
struct Head {
    major: u8,
    info: u8,
    value: u64,
}

const BREAK: u8 = 0xff;

impl<'a> Reader<'a> {
    /// Reads one item (a container's head, a key, a scalar) or a break.
    fn step(
        &mut self,
        stack: &mut Vec<Frame<'a>>,
        on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
    ) -> Result<(), String> {
        if let Some(frame) = stack.last_mut() {
            let between = frame.map.as_ref().is_none_or(|map| !map.value_is_due);
            if frame.left.is_none() && between && self.data.get(self.at) == Some(&BREAK) {
                self.at += 1;
                frame.left = Some(0);
                return Ok(());
            }
            if let Some(map) = frame.map.as_mut() {
                if !map.value_is_due {
                    frame.left = frame.left.map(|left| left - 1);
                    map.value_is_due = true;
                    let key = self.key(map.last.as_deref())?;
                    map.last = Some(key.clone());
                    return on(Event::Key(key));
                }
                map.value_is_due = false;
            } else {
                frame.left = frame.left.map(|left| left - 1);
            }
        }
        self.value(stack, on)
    }

    fn key(&mut self, last: Option<&str>) -> Result<Cow<'a, str>, String> {
        let head = self.head()?;
        if head.major != 3 {
            return Err("a map key that is not text".to_owned());
        }
        let key = self.text(&head)?;
        if self.form == Form::Strict
            && last.is_some_and(|last| order(last, &key) != std::cmp::Ordering::Less)
        {
            return Err(format!(
                "map key {:?} is out of order or comes twice",
                shown(&key)
            ));
        }
        Ok(key)
    }

    fn value(
        &mut self,
        stack: &mut Vec<Frame<'a>>,
        on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut head = self.head()?;
        // Each tag takes a byte of input, so this loop is bounded by the input.
        while head.major == 6 {
            if head.value == 42 && self.form != Form::Plain {
                let cid = self.link()?;
                return on(Event::Link(cid));
            }
            if self.form != Form::Plain {
                return Err(format!("tag {}", head.value));
            }
            head = self.head()?;
        }
        match head.major {
            0 => on(Event::Integer(i128::from(head.value))),
            1 => on(Event::Integer(-1 - i128::from(head.value))),
            2 => {
                let bytes = self.bytes(&head)?;
                on(Event::Bytes(bytes))
            }
            3 => {
                let text = self.text(&head)?;
                on(Event::Text(text))
            }
            4 | 5 => {
                if stack.len() >= DEPTH_MAX {
                    return Err(format!("nested deeper than {DEPTH_MAX}"));
                }
                let is_map = head.major == 5;
                let indefinite = head.info == INDEFINITE;
                let map = is_map.then_some(Map {
                    value_is_due: false,
                    last: None,
                });
                stack.push(Frame {
                    left: (!indefinite).then_some(head.value),
                    map,
                });
                on(if is_map { Event::Map } else { Event::List })
            }
            _ => self.simple(&head).and_then(on),
        }
    }

    fn simple(&mut self, head: &Head) -> Result<Event<'a>, String> {
        let lenient = self.form != Form::Strict;
        let float = match head.info {
            20 => return Ok(Event::Bool(false)),
            21 => return Ok(Event::Bool(true)),
            22 => return Ok(Event::Null),
            23 if lenient => return Ok(Event::Null),
            25 if lenient => half(head.value),
            26 if lenient => match u32::try_from(head.value) {
                Ok(bits) => f64::from(f32::from_bits(bits)),
                Err(_) => return Err("a float of more than its bits".to_owned()),
            },
            27 => f64::from_bits(head.value),
            other => return Err(format!("simple value {other}")),
        };
        if float.is_finite() {
            Ok(Event::Float(float))
        } else {
            Err("a float that is no number".to_owned())
        }
    }

    fn link(&mut self) -> Result<Cid, String> {
        let head = self.head()?;
        if head.major != 2 {
            return Err("a link that is not bytes".to_owned());
        }
        match self.bytes(&head)?.split_first() {
            Some((0, cid)) => pb::exact_cid(cid),
            _ => Err("a link that does not begin with 0".to_owned()),
        }
    }

    fn head(&mut self) -> Result<Head, String> {
        let [first] = self.take(1)? else {
            return Err(cut());
        };
        let (major, info) = (first >> 5, first & 31);
        let value = match info {
            0..24 => u64::from(info),
            24..=27 => {
                let mut wide = [0; 8];
                let length = 1 << (info - 24);
                let from = self.take(length)?;
                for (to, from) in wide.iter_mut().skip(8 - length).zip(from) {
                    *to = *from;
                }
                let value = u64::from_be_bytes(wide);
                let shorter = match info {
                    24 => value < 24,
                    25 => value < 0x100,
                    26 => value < 0x1_0000,
                    _ => value < 0x1_0000_0000,
                };
                // The bits of a float are no number.
                if shorter && major != 7 && self.form == Form::Strict {
                    return Err("a number in a longer form than it needs".to_owned());
                }
                value
            }
            INDEFINITE if self.form != Form::Strict && matches!(major, 2..=5) => 0,
            other => return Err(format!("additional information {other}")),
        };
        Ok(Head { major, info, value })
    }

    fn bytes(&mut self, head: &Head) -> Result<Cow<'a, [u8]>, String> {
        if head.info != INDEFINITE {
            return usize::try_from(head.value)
                .map_err(|_| cut())
                .and_then(|length| self.take(length))
                .map(Cow::Borrowed);
        }
        let mut whole = Vec::new();
        while self.data.get(self.at) != Some(&BREAK) {
            let part = self.head()?;
            if part.major != head.major || part.info == INDEFINITE {
                return Err("a part of another kind in a string".to_owned());
            }
            let length = usize::try_from(part.value).map_err(|_| cut())?;
            whole.extend(self.take(length)?);
        }
        self.at += 1;
        Ok(Cow::Owned(whole))
    }

    fn text(&mut self, head: &Head) -> Result<Cow<'a, str>, String> {
        let wrong = || "text that is not UTF-8".to_owned();
        match self.bytes(head)? {
            Cow::Borrowed(bytes) => std::str::from_utf8(bytes)
                .map(Cow::Borrowed)
                .map_err(|_| wrong()),
            Cow::Owned(bytes) => String::from_utf8(bytes)
                .map(Cow::Owned)
                .map_err(|_| wrong()),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(length).ok_or_else(cut)?;
        let taken = self.data.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(taken)
    }
}

fn cut() -> String {
    "cut short".to_owned()
}

fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A float of 16 bits.
fn half(bits: u64) -> f64 {
    let fraction = f64::from(u16::try_from(bits & 0x3ff).unwrap_or(0));
    let exponent = i32::try_from((bits >> 10) & 0x1f).unwrap_or(0);
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

/// Additional information of an item that lasts until a break.
const INDEFINITE: u8 = 31;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::value::tests::any_value;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    proptest! {
        #[test]
        fn values_read_back_as_written(value in any_value()) {
            let bytes = encode(&value);
            let back = decode(&bytes).unwrap();
            prop_assert_eq!(encode(&back), bytes);
            prop_assert_eq!(back.sorted(), value.sorted());
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            for form in [Form::Strict, Form::Lenient, Form::Plain] {
                let _ = decode_as(&data, form);
            }
            if let Ok(value) = decode(&data) {
                prop_assert_eq!(encode(&value), data);
            }
        }
    }

    #[test]
    fn known_answers() {
        for (bytes, value) in [
            ("00", Value::Integer(0)),
            ("1818", Value::Integer(24)),
            ("1bffffffffffffffff", Value::Integer(u64::MAX.into())),
            (
                "3bffffffffffffffff",
                Value::Integer(-1 - i128::from(u64::MAX)),
            ),
            ("f6", Value::Null),
            ("f5", Value::Bool(true)),
            ("fb3ff8000000000000", Value::Float(1.5)),
            ("6161", Value::Text("a".into())),
            ("80", Value::List(vec![])),
            ("a0", Value::Map(vec![])),
            (
                "d82a450001550000",
                Value::Link(Box::new(crate::cid::parse("bafkqaaa").unwrap())),
            ),
        ] {
            assert_eq!(decode(&hex(bytes)).unwrap(), value, "{bytes}");
            assert_eq!(encode(&value), hex(bytes));
        }
    }

    #[test]
    fn strict_refuses_what_lenient_takes() {
        for (bytes, why) in [
            ("1800", "a longer form"),
            ("1b0000000000000001", "a longer form"),
            ("a2616200616100", "keys out of order"),
            ("f93c00", "a 16-bit float"),
            ("fa3f800000", "a 32-bit float"),
            ("9f01ff", "no length"),
            ("bf616101ff", "no length"),
            ("5f4101ff", "bytes in parts"),
            ("f7", "undefined"),
        ] {
            assert!(decode(&hex(bytes)).is_err(), "{why}");
            assert!(decode_as(&hex(bytes), Form::Lenient).is_ok(), "{why}");
        }
        assert_eq!(
            decode_as(&hex("f93e00"), Form::Lenient).unwrap(),
            Value::Float(1.5)
        );
    }

    #[test]
    fn nobody_takes_these() {
        for (bytes, why) in [
            ("", "nothing"),
            ("ff", "a break from nothing"),
            ("0000", "two items"),
            ("61ff", "text that is not UTF-8"),
            ("a10102", "a key that is a number"),
            ("a2616101616102", "a key twice"),
            ("c100", "another tag"),
            ("d82a4101", "a link without its 0"),
            ("fb7ff0000000000000", "infinity"),
            ("fb7ff8000000000000", "not a number"),
            ("9bffffffffffffffff", "a list longer than everything"),
            ("5bffffffffffffffff", "bytes longer than everything"),
        ] {
            assert!(decode(&hex(bytes)).is_err(), "{why}");
            assert!(decode_as(&hex(bytes), Form::Lenient).is_err(), "{why}");
        }
        assert_eq!(decode_as(&hex("c100"), Form::Plain), Ok(Value::Integer(0)));
    }

    #[test]
    fn deep_nests_end_in_an_error() {
        assert!(decode(&vec![0x81; 100_000]).unwrap_err().contains("deeper"));
        let mut just = vec![0x81; DEPTH_MAX];
        just.push(0);
        assert!(decode(&just).is_ok());
    }
}
