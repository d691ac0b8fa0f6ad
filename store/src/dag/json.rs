//! dag-json and plain json, by the same events as cbor.
//!
//! A map whose only key is `/` is a link (`{"/": "bafy…"}`) or bytes (`{"/": {"bytes": "…"}}`).

use super::DEPTH_MAX;
use super::value::{Builder, Event, Value};
use crate::cid;
use data_encoding::{BASE64, BASE64_NOPAD};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Decodes dag-json.
pub fn decode(data: &[u8]) -> Result<Value, String> {
    decode_as(data, Slash::Reserved)
}

/// Encodes dag-json, keys sorted, no spaces.
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    put(&mut out, value);
    out.into_bytes()
}

/// Decodes plain JSON: `{"/": …}` has no meaning.
pub fn decode_plain(data: &[u8]) -> Result<Value, String> {
    decode_as(data, Slash::Ordinary)
}

/// What a map with the key `/` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slash {
    /// A link or bytes.
    Reserved,
    /// Nothing special.
    Ordinary,
}

fn decode_as(data: &[u8], slash: Slash) -> Result<Value, String> {
    let mut builder = Builder::default();
    read(data, slash, &mut |event| builder.take(event))?;
    builder.finish()
}

fn put(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Integer(number) => {
            let _ = write!(out, "{number}");
        }
        // The debug form is the shortest that reads back, and always has a point or an exponent.
        Value::Float(number) => {
            let _ = write!(out, "{number:?}");
        }
        Value::Text(text) => put_text(out, text),
        Value::Bytes(bytes) => {
            out.push_str(r#"{"/":{"bytes":""#);
            BASE64_NOPAD.encode_append(bytes, out);
            out.push_str(r#""}}"#);
        }
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                put(out, item);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                put_text(out, key);
                out.push(':');
                put(out, value);
            }
            out.push('}');
        }
        Value::Link(cid) => {
            let _ = write!(out, r#"{{"/":"{cid}"}}"#);
        }
    }
}

fn put_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out.push('"');
}

/// What may come next inside the innermost container.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A list's first item, or its end.
    FirstItem,
    /// A map's first key, or its end.
    FirstKey,
    /// A comma, or the end.
    ItemsEnd,
    /// A comma, or the end.
    KeysEnd,
}

/// Reads one value and everything in it; anything but white space after it is an error.
pub(crate) fn read<'a>(
    data: &'a [u8],
    slash: Slash,
    on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = Reader { data, at: 0, slash };
    let mut stack: Vec<Expect> = Vec::new();
    let mut started = false;
    while !started || !stack.is_empty() {
        started = true;
        let step = reader.step(&mut stack, on);
        step.map_err(|why| format!("{why}, at byte {}", reader.at))?;
    }
    reader.space();
    match data.len() - reader.at {
        0 => Ok(()),
        more => Err(format!("{more} bytes after the end, at byte {}", reader.at)),
    }
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    slash: Slash,
}

impl<'a> Reader<'a> {
    fn step(
        &mut self,
        stack: &mut Vec<Expect>,
        on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
    ) -> Result<(), String> {
        let Some(expect) = stack.last_mut() else {
            return self.value(stack, on);
        };
        let first = matches!(expect, Expect::FirstItem | Expect::FirstKey);
        let keys = matches!(expect, Expect::FirstKey | Expect::KeysEnd);
        *expect = if keys {
            Expect::KeysEnd
        } else {
            Expect::ItemsEnd
        };
        if self.eat(if keys { b'}' } else { b']' }) {
            stack.pop();
            return on(Event::End);
        }
        if !first {
            self.need(b',')?;
        }
        if keys {
            self.space();
            let key = self.text()?;
            self.need(b':')?;
            on(Event::Key(key))?;
        }
        self.value(stack, on)
    }

    fn value(
        &mut self,
        stack: &mut Vec<Expect>,
        on: &mut dyn FnMut(Event<'a>) -> Result<(), String>,
    ) -> Result<(), String> {
        self.space();
        let event = match self.peek() {
            Some(b'{') => match self.reserved()? {
                Some(event) => event,
                None => {
                    return self
                        .open(stack, Expect::FirstKey)
                        .and_then(|()| on(Event::Map));
                }
            },
            Some(b'[') => {
                return self
                    .open(stack, Expect::FirstItem)
                    .and_then(|()| on(Event::List));
            }
            Some(b'"') => Event::Text(self.text()?),
            Some(b't') => self.word("true", Event::Bool(true))?,
            Some(b'f') => self.word("false", Event::Bool(false))?,
            Some(b'n') => self.word("null", Event::Null)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => return Err("not a value".to_owned()),
            None => return Err("cut short".to_owned()),
        };
        on(event)
    }

    fn open(&mut self, stack: &mut Vec<Expect>, expect: Expect) -> Result<(), String> {
        if stack.len() >= DEPTH_MAX {
            return Err(format!("nested deeper than {DEPTH_MAX}"));
        }
        self.at += 1;
        stack.push(expect);
        Ok(())
    }

    /// A link or bytes, if a map with the only key `/` begins here. Other maps leave the reader
    /// where it was.
    fn reserved(&mut self) -> Result<Option<Event<'a>>, String> {
        if self.slash == Slash::Ordinary {
            return Ok(None);
        }
        let begin = self.at;
        let event = self.reserved_here()?;
        if event.is_none() {
            self.at = begin;
        }
        Ok(event)
    }

    fn reserved_here(&mut self) -> Result<Option<Event<'a>>, String> {
        if !self.eat(b'{') || !self.eat_key("/") || !self.eat(b':') {
            return Ok(None);
        }
        self.space();
        if self.peek() == Some(b'"') {
            let text = self.text()?;
            if !self.eat(b'}') {
                return Ok(None);
            }
            let cid = cid::parse_link(&text).map_err(|error| format!("not a CID: {error}"))?;
            return Ok(Some(Event::Link(cid)));
        }
        if !self.eat(b'{') || !self.eat_key("bytes") || !self.eat(b':') {
            return Ok(None);
        }
        self.space();
        if self.peek() != Some(b'"') {
            return Ok(None);
        }
        let text = self.text()?;
        if !self.eat(b'}') || !self.eat(b'}') {
            return Ok(None);
        }
        let base = if text.ends_with('=') {
            BASE64
        } else {
            BASE64_NOPAD
        };
        let bytes = base
            .decode(text.as_bytes())
            .map_err(|error| format!("not base64: {error}"))?;
        Ok(Some(Event::Bytes(Cow::Owned(bytes))))
    }

    /// Passes over this key, however it is escaped; over nothing if another one stands here.
    fn eat_key(&mut self, wanted: &str) -> bool {
        self.space();
        let begin = self.at;
        // A key is no longer than if each of its letters were escaped.
        let most = begin + 2 + ESCAPE_BYTES_MAX * wanted.len();
        let ahead = self.data.get(..most.min(self.data.len()));
        let mut key = Reader {
            data: ahead.unwrap_or_default(),
            at: begin,
            slash: self.slash,
        };
        let there = key.peek() == Some(b'"') && key.text().is_ok_and(|text| text == wanted);
        if there {
            self.at = key.at;
        }
        there
    }

    fn word(&mut self, word: &str, event: Event<'a>) -> Result<Event<'a>, String> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err("not a value".to_owned());
        }
        self.at += word.len();
        Ok(event)
    }

    fn number(&mut self) -> Result<Event<'a>, String> {
        let begin = self.at;
        self.eat_here(b'-');
        let leading_zero = self.peek() == Some(b'0');
        let digits = self.digits();
        if digits == 0 || (leading_zero && digits > 1) {
            return Err("not a number".to_owned());
        }
        let mut whole = true;
        if self.eat_here(b'.') {
            whole = false;
            if self.digits() == 0 {
                return Err("not a number".to_owned());
            }
        }
        if self.eat_here(b'e') || self.eat_here(b'E') {
            whole = false;
            let _ = self.eat_here(b'+') || self.eat_here(b'-');
            if self.digits() == 0 {
                return Err("not a number".to_owned());
            }
        }
        let bytes = self.data.get(begin..self.at).unwrap_or_default();
        let text = std::str::from_utf8(bytes).map_err(|_| "not a number")?;
        if whole {
            let wide = i128::from(u64::MAX);
            match text.parse::<i128>() {
                Ok(number) if (-1 - wide..=wide).contains(&number) => {
                    return Ok(Event::Integer(number));
                }
                _ if self.slash == Slash::Reserved => {
                    return Err("an integer of more than 64 bits".to_owned());
                }
                _ => {}
            }
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Event::Float(number)),
            _ => Err("a number that is too large".to_owned()),
        }
    }

    fn digits(&mut self) -> usize {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn text(&mut self) -> Result<Cow<'a, str>, String> {
        self.need(b'"')?;
        let begin = self.at;
        let rest = self.data.get(begin..).unwrap_or_default();
        let plain = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
            .ok_or("a text without an end")?;
        if rest.get(plain) == Some(&b'"') {
            self.at += plain + 1;
            let text = std::str::from_utf8(rest.get(..plain).unwrap_or_default());
            return text.map(Cow::Borrowed).map_err(|_| not_utf8());
        }
        let mut text = Vec::new();
        loop {
            let byte = self.peek().ok_or("a text without an end")?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut text)?,
                0..0x20 => return Err("a control character in a text".to_owned()),
                _ => text.push(byte),
            }
        }
        String::from_utf8(text)
            .map(Cow::Owned)
            .map_err(|_| not_utf8())
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), String> {
        let byte = self.peek().ok_or("a text without an end")?;
        self.at += 1;
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let letter = self.letter()?;
                text.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err("an unknown escape".to_owned()),
        };
        text.push(plain);
        Ok(())
    }

    /// A letter as one or two `\u` escapes, after the first `\u`.
    fn letter(&mut self) -> Result<char, String> {
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !(self.eat_here(b'\\') && self.eat_here(b'u')) {
                return Err("half of a letter".to_owned());
            }
            let second = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&second) {
                return Err("half of a letter".to_owned());
            }
            0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| "half of a letter".to_owned())
    }

    fn four_digits(&mut self) -> Result<u32, String> {
        let digits = self.data.get(self.at..self.at + 4).ok_or("cut short")?;
        self.at += 4;
        digits.iter().try_fold(0, |code, digit| {
            let digit = char::from(*digit).to_digit(16).ok_or("an unknown escape")?;
            Ok(code << 4 | digit)
        })
    }

    fn need(&mut self, byte: u8) -> Result<(), String> {
        if self.eat(byte) {
            Ok(())
        } else if self.at >= self.data.len() {
            Err("cut short".to_owned())
        } else {
            Err(format!("{:?} is missing", char::from(byte)))
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        self.eat_here(byte)
    }

    fn eat_here(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// Bytes of the longest escape of a letter that `/` and `bytes` have.
const ESCAPE_BYTES_MAX: usize = 6;

fn not_utf8() -> String {
    "text that is not UTF-8".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::value::tests::any_value;
    use proptest::prelude::*;

    fn text(value: &Value) -> String {
        String::from_utf8(encode(value)).unwrap()
    }

    proptest! {
        #[test]
        fn values_read_back_as_written(value in any_value()) {
            let bytes = encode(&value);
            prop_assert_eq!(decode(&bytes).unwrap().sorted(), value.sorted());
        }

        #[test]
        fn random_text_never_panics(data in "[\\[\\]{}\",:/\\\\a-f0-9u .e+-]{0,80}") {
            let ours = decode_plain(data.as_bytes());
            let theirs = serde_json::from_str::<serde_json::Value>(&data);
            // Theirs lets the last of two equal keys win; numbers too large are refused by both.
            if ours.is_ok() {
                prop_assert!(theirs.is_ok(), "{data}");
            }
            let _ = decode(data.as_bytes());
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decode(&data);
            let _ = decode_plain(&data);
        }
    }

    #[test]
    fn known_answers() {
        for form in [
            r#"{"/":"bafkqaaa"}"#,
            r#"{"/":{"bytes":"AQID"}}"#,
            r#"{"/":{"bytes":""}}"#,
            r#"{"a":1,"aa":[true,false,null],"b":1.5}"#,
            r#"[18446744073709551615,-18446744073709551616,1.0,1e25]"#,
            "\"quote \\\" back \\\\ line \\n bell \\u0007 é 😀\"",
        ] {
            assert_eq!(text(&decode(form.as_bytes()).unwrap()), form);
        }
        let loose = br#" { "b" : [ ] , "a" : "\u00e9\ud83d\ude00" } "#;
        assert_eq!(text(&decode(loose).unwrap()), "{\"a\":\"é😀\",\"b\":[]}");
    }

    #[test]
    fn a_slash_among_other_keys_is_an_ordinary_key() {
        for form in [r#"{"/":"x","a":1}"#, r#"{"/":1}"#, r#"{"/":{"bytes":1}}"#] {
            assert!(
                matches!(decode(form.as_bytes()), Ok(Value::Map(_))),
                "{form}"
            );
        }
        assert!(matches!(
            decode_plain(br#"{"/":"bafkqaaa"}"#),
            Ok(Value::Map(_))
        ));
    }

    #[test]
    fn an_escaped_slash_is_a_slash() {
        for (form, plain) in [
            (r#"{"\u002f":"bafkqaaa"}"#, r#"{"/":"bafkqaaa"}"#),
            (r#"{ "\/" : "bafkqaaa" }"#, r#"{"/":"bafkqaaa"}"#),
            (
                r#"{"\u002F":{"b\u0079tes":"AQID"}}"#,
                r#"{"/":{"bytes":"AQID"}}"#,
            ),
        ] {
            assert_eq!(text(&decode(form.as_bytes()).unwrap()), plain, "{form}");
        }
        assert!(decode(br#"{"\u002f":"hello"}"#).is_err());
        let other = r#"{"\u002f\u002f":"bafkqaaa"}"#;
        assert!(matches!(decode(other.as_bytes()), Ok(Value::Map(_))));
    }

    #[test]
    fn refuses_what_is_no_dag_json() {
        for form in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "01",
            "1.",
            "1e",
            "-",
            "nul",
            "\"\\x\"",
            "\"a",
            "1 2",
            "{\"a\":1,\"a\":2}",
            "{1:2}",
            "\"\\ud800\"",
            "\"\\ud800x\"",
            "\"\u{1}\"",
            "1e999",
            "18446744073709551616",
            "{\"/\":\"hello\"}",
            "{\"/\":{\"bytes\":\"!\"}}",
        ] {
            assert!(decode(form.as_bytes()).is_err(), "{form}");
        }
        assert!(matches!(
            decode_plain(b"18446744073709551616"),
            Ok(Value::Float(_))
        ));
    }

    #[test]
    fn deep_nests_end_in_an_error() {
        assert!(decode(&vec![b'['; 100_000]).unwrap_err().contains("deeper"));
    }
}
