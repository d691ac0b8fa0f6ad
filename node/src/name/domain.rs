//! Domain names: read once, in the one form that DNS compares; and as labels of a gateway's subdomains.
//!
//! Two texts that DNS holds for the same name are one [`Domain`]: capitals, a dot at the end and letters beyond ASCII
//! make no difference. Whether there is such a name is not known here.

use idna::AsciiDenyList;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A domain name: lower case, ASCII, without the dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

/// Why a text is no domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no domain name: {why}")]
pub struct NoDomain {
    /// The text, shortened.
    pub text: String,
    /// What is wrong.
    pub why: &'static str,
}

impl Domain {
    /// The name as DNS has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is of one label only, which no DNSLink of the public DNS is.
    pub fn is_single(&self) -> bool {
        !self.0.contains('.')
    }

    /// Whether it is `suffix` or a name below that.
    pub fn is_within(&self, suffix: &Self) -> bool {
        self.0
            .strip_suffix(&suffix.0)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The one label that stands for it in front of a gateway's name, as in
    /// `en-wikipedia--on--ipfs-org.ipns.gateway.example`: a dot becomes a hyphen, a hyphen two. `None` if that is too
    /// long for a label, or would be read as another name.
    pub fn to_label(&self) -> Option<String> {
        let label = self.0.replace('-', "--").replace('.', "-");
        let fits = label.len() <= LABEL_BYTES_MAX;
        let is_told_apart = Self::from_label(&label).as_ref() == Ok(self);
        (fits && is_told_apart).then_some(label)
    }

    /// The name that a label stands for.
    pub fn from_label(label: &str) -> Result<Self, NoDomain> {
        if label.len() > LABEL_BYTES_MAX || label.contains('.') {
            return Err(no_domain(label, "it is no label"));
        }
        let mut name = String::with_capacity(label.len());
        let mut letters = label.chars().peekable();
        while let Some(letter) = letters.next() {
            name.push(match letter {
                '-' if letters.next_if_eq(&'-').is_some() => '-',
                '-' => '.',
                other => other,
            });
        }
        if name.ends_with('.') {
            return Err(no_domain(label, "it ends in a hyphen"));
        }
        name.parse()
    }
}

impl FromStr for Domain {
    type Err = NoDomain;

    fn from_str(text: &str) -> Result<Self, NoDomain> {
        let refuse = |why| Err(no_domain(text, why));
        if text.len() > TEXT_BYTES_MAX {
            return refuse("it is too long");
        }
        let Ok(name) = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::EMPTY) else {
            return refuse("it has letters that no domain name has");
        };
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name.is_empty() {
            return refuse("it is empty");
        }
        if name.len() > NAME_BYTES_MAX {
            return refuse("it is longer than 244 bytes, and `_dnslink.` has to fit before it");
        }
        for label in name.split('.') {
            if label.is_empty() {
                return refuse("one of its labels is empty");
            }
            if label.len() > LABEL_BYTES_MAX {
                return refuse("one of its labels is longer than 63 bytes");
            }
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !label.bytes().all(is_plain) {
                return refuse("it has other letters than a-z, 0-9, \"-\" and \"_\"");
            }
        }
        // What ends in a number is an IP address, or is taken for one somewhere.
        let last = name.rsplit('.').next().unwrap_or_default();
        if name.parse::<Ipv4Addr>().is_ok() || last.bytes().all(|byte| byte.is_ascii_digit()) {
            return refuse("it ends in a number, as addresses do");
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

fn no_domain(text: &str, why: &'static str) -> NoDomain {
    NoDomain {
        text: text.chars().take(TEXT_SHOWN).collect(),
        why,
    }
}

/// Longest name of which the one with `_dnslink.` before it is still a name: 253 bytes.
const NAME_BYTES_MAX: usize = 253 - super::dnslink::LABEL.len() - 1;
/// Longest label.
const LABEL_BYTES_MAX: usize = 63;
/// Longest text that is looked at: the longest name, whose letters may have four bytes each before they are
/// written in ASCII.
const TEXT_BYTES_MAX: usize = 1024;
/// How much of a wrong text an error repeats.
const TEXT_SHOWN: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn texts_that_dns_takes_for_the_same_name_are_one() {
        for (text, name) in [
            ("example.org", "example.org"),
            ("EXAMPLE.Org.", "example.org"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("example。org", "example.org"),
            ("_service.example.org", "_service.example.org"),
            ("localhost", "localhost"),
            ("a-.example", "a-.example"),
        ] {
            assert_eq!(domain(text).as_str(), name, "{text}");
        }
    }

    #[test]
    fn what_is_no_domain_says_why() {
        let long_label = format!("{}.org", "a".repeat(64));
        let long_name = format!("{}org", "a.".repeat(121));
        for (text, why) in [
            ("", "empty"),
            (".", "empty"),
            ("a..org", "empty"),
            (".org", "empty"),
            ("example.org..", "empty"),
            (long_label.as_str(), "63"),
            (long_name.as_str(), "244"),
            ("exam ple.org", "other letters"),
            ("example.org:80", "other letters"),
            ("exa/mple.org", "other letters"),
            ("a\0b.org", "other letters"),
            ("127.0.0.1", "number"),
            ("example.123", "number"),
            ("xn--a.org", "letters that no"),
            ("a\u{200d}\u{ad}\u{fffd}b.org", "letters that no"),
        ] {
            let error = text.parse::<Domain>().unwrap_err();
            assert!(error.why.contains(why), "{text:?}: {error}");
        }
        let longest = format!("{}.org", ["a".repeat(60).as_str(); 3].join("."));
        assert!(longest.parse::<Domain>().is_ok());
        assert!("a".repeat(5000).parse::<Domain>().is_err());
    }

    #[test]
    fn a_name_is_within_its_suffixes_and_not_within_texts_it_ends_in() {
        let name = domain("vitalik.eth");
        assert!(name.is_within(&domain("eth")));
        assert!(name.is_within(&domain("Vitalik.eth.")));
        assert!(!name.is_within(&domain("k.eth")));
        assert!(!domain("eth").is_within(&name));
    }

    #[test]
    fn one_label_stands_for_a_name_and_back() {
        for (name, label) in [
            (
                "en.wikipedia-on-ipfs.example.org",
                "en-wikipedia--on--ipfs-example-org",
            ),
            ("example.org", "example-org"),
            ("a--b.example", "a----b-example"),
            ("xn--bcher-kva.example", "xn----bcher--kva-example"),
        ] {
            assert_eq!(domain(name).to_label().as_deref(), Some(label));
            assert_eq!(Domain::from_label(label), Ok(domain(name)));
        }
        assert_eq!(
            domain(&format!("{}.example", "a".repeat(60))).to_label(),
            None
        );
        // Would be read as `a-.b.example`.
        assert_eq!(domain("a.-b.example").to_label(), None);
        for label in ["", "-", "a-", "a.b", "a-b-1", &"a".repeat(64)] {
            let _ = Domain::from_label(label).map(|name| panic!("{label:?} is {name}"));
        }
    }

    proptest! {
        #[test]
        fn a_name_that_was_read_is_read_the_same_again(text in ".{0,60}") {
            if let Ok(name) = text.parse::<Domain>() {
                prop_assert_eq!(name.as_str().parse::<Domain>(), Ok(name.clone()));
                if let Some(label) = name.to_label() {
                    prop_assert_eq!(Domain::from_label(&label), Ok(name));
                }
            }
        }

        // So no two names share a label.
        #[test]
        fn a_label_is_read_as_the_name_that_it_was_made_of(text in "[ab.-]{1,8}") {
            if let Ok(name) = text.parse::<Domain>() && let Some(label) = name.to_label() {
                prop_assert_eq!(Domain::from_label(&label), Ok(name));
            }
        }

        #[test]
        fn capitals_make_no_difference(text in "[a-zA-Z]{1,8}\\.[a-zA-Z]{2,5}") {
            prop_assert_eq!(domain(&text), domain(&text.to_ascii_uppercase()));
        }
    }
}
