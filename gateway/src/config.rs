//! What an operator may choose about the gateway: the `[gateway]` section of `config.toml`.
//!
//! Every limit has a default, so that an empty section is a safe gateway. Counts cannot be zero
//! and times are written as text (`"30s"`); whatever does not fit is refused with a sentence.

mod bytes;
mod hosts;

pub use bytes::{BytesMax, NoBytes};
pub use hosts::{Host, HostName, Hosts, NoHost, Space};

use cairn_node::limits::{self, Subnet};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The `[gateway]` section of `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether whoever reaches the gateway may ask it who has what and who is where, at `/routing/v1` (default
    /// true). Price: up to 32 lookups in the DHT at once for others.
    pub routing: bool,
    /// Whether whoever reaches the gateway may have records of names kept, at `/routing/v1/ipns` (default false). Price:
    /// up to 8 publications in the DHT at once for others, and a share of the room for others' records.
    pub routing_put: bool,
    /// Whether only what clients can check is answered: blocks, CARs and records of names (default false). Price of
    /// false: browsers are given content that they have to believe.
    pub trustless_only: bool,
    /// Whether a host that has a DNSLink is served what that leads to (default true). Price: a question in DNS for each
    /// name that the gateway is called by, where `network` lets it be asked; answers are remembered.
    pub dnslink: bool,
    /// Whether peers may ask the gateway too, over libp2p (`/http/1.1`), for what is here already and only for what they
    /// can check (default false). Price: up to 64 streams answered at once beside `connections_max`.
    pub libp2p: bool,
    /// The names that the gateway is known by, and what each serves (default `localhost`, with a host of its own per
    /// root). Other names, and addresses, serve everything by path.
    pub hosts: Hosts,
    /// Whose word counts for where a request was sent to (`X-Forwarded-Host`, `X-Forwarded-Proto`): proxies in front of
    /// this gateway (default: loopback and private networks). Price of more: who is in them chooses the host of a
    /// request.
    pub trusted_proxies: Vec<Subnet>,
    /// Most requests worked on at once, bodies still being sent included (default 1024). More are
    /// answered with 429 at once. Price: up to 2 MiB of blocks held for each client that stalls.
    pub requests_max: NonZeroU32,
    /// Most open connections, idle ones included (default 4096). More wait in the system's
    /// queue. Price: one file descriptor and up to 64 KiB each.
    pub connections_max: NonZeroU32,
    /// How long a client may take to send a request's head, and how long an idle connection is
    /// kept (default `"10s"`). Price of more: slow clients hold connections for longer.
    pub header_timeout: Span,
    /// How long a client may take nothing of an answer before it is cut off (default `"60s"`).
    /// Price of more: stalled readers hold a request's place for longer.
    pub write_timeout: Span,
    /// How long to look for a block without any progress before answering 504 (default `"30s"`).
    /// Price of more: requests for content that nobody has hold their place for longer.
    pub retrieval_timeout: Span,
    /// How long the first byte of an answer may take in all, progress or not (default `"120s"`).
    /// Price of less: deep paths over slow peers fail.
    pub head_timeout: Span,
    /// Most answers that read several blocks ahead of their client at once (default 16). The others
    /// wait for each block when they need it. Price: up to 32 MiB each.
    pub read_ahead_max: NonZeroU32,
    /// Most ranges in one request (default 16). A request with more gets the whole content.
    /// Price: a few hundred bytes of part headers each.
    pub ranges_max: NonZeroU32,
    /// Most entries shown in a folder's page (default 1,000,000); a note tells when there are more. Up to 10,000 are
    /// sorted by name; of more, all come in the order in which they are stored. Price: about 400 bytes sent for each.
    pub listing_entries_max: NonZeroU32,
    /// Most entries in a TAR, most shards of its folders, and most blocks in a CAR (default 5,000,000, which is 1 TiB in
    /// chunks of 256 KiB). Larger ones are cut off with a broken connection. Price: about 40 bytes of memory each.
    pub archive_entries_max: NonZeroU32,
    /// Most bytes in one TAR or CAR (default `"unlimited"`). Price: traffic.
    pub archive_bytes_max: BytesMax,
    /// Most blocks read for one request, the way to what it asks for included (default 16,777,216, which lets 2 TiB through in
    /// chunks of 256 KiB). Price: so long one request may keep the disk, the network and a core busy.
    pub request_blocks_max: NonZeroU32,
    /// Most bytes of content read for one request (default `"unlimited"`). A file or a range that is larger is refused
    /// before its first byte; of anything else so much is sent. Price: traffic.
    pub request_bytes_max: BytesMax,
    /// Deepest level below what was asked for that is followed for a CAR, a TAR or a folder's page (default 1024).
    /// Price: one block after the other, with the links of each level in memory.
    pub depth_max: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routing: true,
            routing_put: false,
            trustless_only: false,
            dnslink: true,
            libp2p: false,
            hosts: Hosts::default(),
            trusted_proxies: limits::near(),
            requests_max: count(1024),
            connections_max: count(4096),
            header_timeout: Span::seconds(10),
            write_timeout: Span::seconds(60),
            retrieval_timeout: Span::seconds(30),
            head_timeout: Span::seconds(120),
            read_ahead_max: count(16),
            ranges_max: count(16),
            listing_entries_max: count(1_000_000),
            archive_entries_max: count(5_000_000),
            archive_bytes_max: BytesMax::UNLIMITED,
            request_blocks_max: count(1 << 24),
            request_bytes_max: BytesMax::UNLIMITED,
            depth_max: count(1024),
        }
    }
}

const fn count(number: u32) -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
}

/// A length of time, written as text: a whole number and `ms`, `s`, `m` or `h`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

impl Span {
    /// So many seconds, at least one.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(if seconds == 0 { 1 } else { seconds }))
    }

    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// Why a text is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// No number, or none of the units.
    #[error(
        "{0:?} is no length of time: write a whole number and a unit, as in \"500ms\", \"30s\", \"2m\" or \"1h\""
    )]
    Form(String),
    /// Zero, or more than a year.
    #[error("{0:?} is outside what a time limit may be: from \"1ms\" to \"8760h\"")]
    Size(String),
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let form = || SpanError::Form(text.to_owned());
        let split = text
            .find(|char: char| !char.is_ascii_digit())
            .ok_or_else(form)?;
        let (number, unit) = text.split_at(split);
        let each: u64 = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(form()),
        };
        if number.is_empty() {
            return Err(form());
        }
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(each))
            .filter(|milliseconds| (1..=SPAN_MILLISECONDS_MAX).contains(milliseconds))
            .map(|milliseconds| Self(Duration::from_millis(milliseconds)))
            .ok_or_else(|| SpanError::Size(text.to_owned()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        match (milliseconds % 1_000, milliseconds / 1_000) {
            (0, seconds) if seconds % 3_600 == 0 => write!(out, "{}h", seconds / 3_600),
            (0, seconds) => write!(out, "{seconds}s"),
            _ => write!(out, "{milliseconds}ms"),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a length of time as text, such as \"30s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Longest time limit: a year.
const SPAN_MILLISECONDS_MAX: u64 = 8_760 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
    }

    #[test]
    fn what_is_written_reads_back() {
        let config = Config {
            retrieval_timeout: "1500ms".parse().unwrap(),
            ..Config::default()
        };
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains("header_timeout = \"10s\""), "{text}");
        assert_eq!(toml::from_str::<Config>(&text).unwrap(), config);
    }

    #[test]
    fn times_read_in_every_unit() {
        for (text, milliseconds) in [
            ("7ms", 7),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1 h", 3_600_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(
                span.duration(),
                Duration::from_millis(milliseconds),
                "{text}"
            );
            assert_eq!(span.to_string().parse(), Ok(span), "{text}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_a_sentence() {
        for (text, told) in [
            ("retrieval_timeout = \"30\"", "30s"),
            ("retrieval_timeout = \"s\"", "30s"),
            ("retrieval_timeout = 30", "30s"),
            ("retrieval_timeout = \"0s\"", "1ms"),
            ("retrieval_timeout = \"99999999999999999999h\"", "8760h"),
            ("ranges_max = 0", "nonzero"),
            ("request_bytes_max = 0", "unlimited"),
            ("request_bytes_max = \"0B\"", "unlimited"),
            ("request_bytes_max = -1", "unlimited"),
            ("request_bytes_max = \"much\"", "unlimited"),
            ("range_max = 3", "ranges_max"),
        ] {
            let error = toml::from_str::<Config>(text).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
