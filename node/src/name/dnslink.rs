//! DNSLinks: which texts of a domain are some, and which of them counts.
//!
//! Follows [dnslink.dev](https://dnslink.dev): a TXT record at `_dnslink.NAME` that reads `dnslink=/ipfs/…` or
//! `dnslink=/ipns/…`. The name itself is not asked: that was deprecated and is gone from Kubo too. Other namespaces
//! are other programs' business. Of several the first in the order of their bytes counts, since DNS has no order.
//!
//! No I/O: bytes in, a link out. Whoever runs the name server chooses those bytes.

use super::path::NamePath;
use std::fmt;

/// What a domain's texts say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// Where it leads, the link that counts first. Empty if nowhere.
    pub links: Vec<NamePath>,
    /// What looks like a DNSLink and is none, [`IGNORED_MAX`] at most.
    pub ignored: Vec<Ignored>,
}

/// A text that looks like a DNSLink and is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The text, shortened and without what a terminal would act on.
    pub text: String,
    /// What is wrong.
    pub why: String,
}

impl Links {
    /// Reads the TXT records of `_dnslink.NAME`. Each is the strings that it came in, joined.
    pub fn read<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut records: Vec<&[u8]> = records.into_iter().collect();
        records.sort_unstable();
        records.dedup();
        let mut read = Self::default();
        for record in records {
            match link(record) {
                Ok(Some(path)) => read.links.push(path),
                Ok(None) => {}
                Err(why) if read.ignored.len() < IGNORED_MAX => read.ignored.push(Ignored {
                    text: shown(record),
                    why,
                }),
                Err(_) => {}
            }
        }
        read
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "\"{}\" is not used: {}", self.text, self.why)
    }
}

/// What a text links to; `None` if it is no DNSLink or is for somebody else.
fn link(record: &[u8]) -> Result<Option<NamePath>, String> {
    let Some((prefix, value)) = record.split_at_checked(PREFIX.len()) else {
        return Ok(None);
    };
    if !prefix.eq_ignore_ascii_case(PREFIX) {
        return Ok(None);
    }
    if prefix != PREFIX {
        return Err("it begins with \"dnslink=\" in small letters only".to_owned());
    }
    if record.len() > RECORD_BYTES_MAX {
        return Err(format!("it is longer than {RECORD_BYTES_MAX} bytes"));
    }
    let value = str::from_utf8(value).map_err(|_| "it is not UTF-8".to_owned())?;
    let value = value.trim_matches([' ', '\t']);
    if value.chars().any(char::is_control) {
        return Err("it has control characters".to_owned());
    }
    let mut parts = value.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(""), Some("ipfs" | "ipns"), Some(_)) => {
            let path = NamePath::value(value).map_err(|error| error.to_string())?;
            Ok(Some(path))
        }
        (Some(""), Some(namespace), Some(_)) if !namespace.is_empty() => Ok(None),
        _ => Err("after \"dnslink=\" it needs /ipfs/CID or /ipns/NAME".to_owned()),
    }
}

fn shown(record: &[u8]) -> String {
    let start = record.get(..TEXT_SHOWN).unwrap_or(record);
    let mut text: String = String::from_utf8_lossy(start).escape_debug().collect();
    if start.len() < record.len() {
        text.push('…');
    }
    text
}

/// Stands before a domain in DNS to ask for its DNSLink.
pub const LABEL: &str = "_dnslink";
/// Begins every DNSLink.
const PREFIX: &[u8] = b"dnslink=";
/// Longest DNSLink: a root, and a path below it as nobody writes one into DNS.
pub const RECORD_BYTES_MAX: usize = 2048;
/// Most texts told of that look like DNSLinks and are none.
pub const IGNORED_MAX: usize = 4;
/// How much of a wrong text is repeated.
const TEXT_SHOWN: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(records: &[&str]) -> (Vec<String>, Vec<String>) {
        let read = Links::read(records.iter().map(|record| record.as_bytes()));
        let links = read.links.iter().map(ToString::to_string).collect();
        (links, read.ignored.into_iter().map(|one| one.why).collect())
    }

    #[test]
    fn a_text_with_a_path_behind_the_prefix_is_a_link() {
        for (record, path) in [
            ("dnslink=/ipfs/bafkqaaa", "/ipfs/bafkqaaa"),
            ("dnslink=/ipfs/bafkqaaa/a/b", "/ipfs/bafkqaaa/a/b"),
            ("dnslink=/ipfs/bafkqaaa/", "/ipfs/bafkqaaa"),
            ("dnslink= /ipfs/bafkqaaa \t", "/ipfs/bafkqaaa"),
            ("dnslink=/ipfs/bafkqaaa/ä b", "/ipfs/bafkqaaa/ä b"),
            ("dnslink=/ipns/Example.org/x", "/ipns/example.org/x"),
        ] {
            assert_eq!(read(&[record]), (vec![path.to_owned()], vec![]), "{record}");
        }
    }

    #[test]
    fn other_texts_are_somebody_elses() {
        let texts = [
            "v=spf1 -all",
            "",
            "dnslink",
            "/ipfs/bafkqaaa",
            "bafkqaaa",
            " dnslink=/ipfs/bafkqaaa",
            "xdnslink=/ipfs/bafkqaaa",
            "dnslink=/hyper/abc",
            "dnslink=/ipld/bafkqaaa",
        ];
        assert_eq!(read(&texts), (vec![], vec![]));
    }

    #[test]
    fn what_looks_like_a_link_and_is_none_is_told() {
        let long = format!("dnslink=/ipfs/bafkqaaa/{}", "a".repeat(RECORD_BYTES_MAX));
        for (record, why) in [
            ("DNSLink=/ipfs/bafkqaaa", "small letters"),
            ("dnslink=", "needs /ipfs/CID"),
            ("dnslink=bafkqaaa", "needs /ipfs/CID"),
            ("dnslink=/", "needs /ipfs/CID"),
            ("dnslink=/ipfs", "needs /ipfs/CID"),
            ("dnslink=//ipfs/bafkqaaa", "needs /ipfs/CID"),
            ("dnslink=/ipfs/", "no root"),
            ("dnslink=/ipfs/example.org", "invalid cid"),
            ("dnslink=/ipns/exam ple", "names no key"),
            ("dnslink=/ipfs/bafkqaaa/../..", "above"),
            ("dnslink=/ipfs/bafkqaaa\u{1b}[2J", "control"),
            (&long, "longer than"),
        ] {
            let (links, ignored) = read(&[record]);
            assert_eq!(links, Vec::<String>::new(), "{record}");
            assert!(ignored[0].contains(why), "{record}: {ignored:?}");
        }
        let latin = Links::read([b"dnslink=/ipfs/bafkqaaa/\xe4".as_slice()]);
        assert_eq!(latin.ignored[0].why, "it is not UTF-8");
        let shown = Links::read([b"dnslink=\x1b[2J\xff".as_slice()]);
        assert!(!shown.ignored[0].to_string().contains('\x1b'));
    }

    #[test]
    fn the_order_in_which_texts_come_changes_nothing() {
        let mut records = [
            "dnslink=/ipns/example.org",
            "dnslink=/ipfs/bafkqaaa/b",
            "other",
            "dnslink=/ipfs/bafkqaaa/a",
            "dnslink=/ipfs/bafkqaaa/a",
            "dnslink=?",
        ];
        let first = read(&records);
        assert_eq!(
            first.0,
            ["/ipfs/bafkqaaa/a", "/ipfs/bafkqaaa/b", "/ipns/example.org"]
        );
        for _ in 0..records.len() {
            records.rotate_left(1);
            assert_eq!(read(&records), first);
        }
    }

    #[test]
    fn a_thousand_wrong_texts_are_told_in_a_few() {
        let records: Vec<String> = (0..1000).map(|at| format!("dnslink={at}")).collect();
        let read = Links::read(records.iter().map(String::as_bytes));
        assert_eq!(read.ignored.len(), IGNORED_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_links_are_read_back(bytes: Vec<u8>, text in ".{0,40}") {
            for record in [bytes, format!("dnslink=/ipfs/bafkqaaa/{text}").into_bytes(), format!("dnslink={text}").into_bytes()] {
                let read = Links::read([record.as_slice()]);
                for link in read.links {
                    let again = format!("dnslink={link}");
                    // What stands at the end of a path and looks like the end of a text is cut off there.
                    if again.trim_end_matches([' ', '\t']) == again && again.len() <= RECORD_BYTES_MAX {
                        prop_assert_eq!(Links::read([again.as_bytes()]).links, vec![link]);
                    }
                }
            }
        }
    }
}
