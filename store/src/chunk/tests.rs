//! Chunkers cut where they say, however the bytes come in.

use super::*;
use proptest::prelude::*;

#[test]
fn chunkers_read_back_as_written() {
    for text in [
        "size-1",
        "size-262144",
        "size-2096896",
        "rabin-16-64-300",
        "buzhash",
    ] {
        assert_eq!(text.parse::<Chunker>().unwrap().to_string(), text);
    }
    for (text, whole) in [
        ("rabin", "rabin-87381-262144-393216"),
        ("rabin-65536", "rabin-21845-65536-98304"),
        ("rabin-min:100-avg:200-max:300", "rabin-100-200-300"),
        ("", "size-262144"),
        ("default", "size-262144"),
    ] {
        assert_eq!(text.parse::<Chunker>().unwrap().to_string(), whole);
    }
}

#[test]
fn what_is_no_chunker_says_why() {
    for (text, why) in [
        ("size", "write size-N"),
        ("size-", "not a number"),
        ("size-x", "not a number"),
        ("size-0", "greater than 0"),
        ("size-2096897", "2096896"),
        ("size-99999999999", "not a number"),
        ("size-1-2", "write size-N"),
        ("rabin-15-64-300", "16"),
        ("rabin-40", "16"),
        ("rabin-64-64-300", "rise"),
        ("rabin-64-300-300", "rise"),
        ("rabin-64-128-2096897", "2096896"),
        ("rabin-2000000", "2096896"),
        ("rabin-avg:64-min:128-max:300", "min is due"),
        ("fastcdc", "write size-N"),
    ] {
        let error = text.parse::<Chunker>().unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(text), "{error}");
    }
}

/// Gives its bytes in pieces of odd lengths.
struct Trickling<'a>(&'a [u8], usize);

impl Read for Trickling<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 31 % 1009 + 1;
        let most = out.len().min(self.1);
        (&mut self.0).read(&mut out[..most])
    }
}

fn cut(chunker: Chunker, input: impl Read) -> Vec<Bytes> {
    chunker.chunks(input).map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn chunks_are_the_input_whatever_its_pieces(
        data in prop::collection::vec(any::<u8>(), 0..5000),
        size in 1..3000_u32,
        min in 16..100_u32,
        by_size: bool,
    ) {
        let chunker = if by_size {
            Chunker::Size(size)
        } else {
            Chunker::Rabin { min, average: min + size, max: min + 2 * size }
        };
        let chunks = cut(chunker, &data[..]);
        prop_assert_eq!(chunks.concat(), data.clone());
        prop_assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
        prop_assert_eq!(cut(chunker, Trickling(&data, 7)), chunks);
    }
}

#[test]
fn an_empty_input_has_no_chunks() {
    for text in ["size-10", "rabin", "buzhash"] {
        assert!(cut(text.parse().unwrap(), io::empty()).is_empty());
    }
}

struct Broken;

impl Read for Broken {
    fn read(&mut self, _out: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn a_broken_input_is_an_error_once() {
    for text in ["size-10", "rabin", "buzhash"] {
        let input = io::repeat(1).take(15).chain(Broken);
        let mut chunks = text.parse::<Chunker>().unwrap().chunks(input);
        let last = chunks.by_ref().last().unwrap();
        assert_eq!(last.unwrap_err().to_string(), "broken");
        assert!(chunks.next().is_none());
    }
}
