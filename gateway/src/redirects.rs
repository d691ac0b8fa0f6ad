//! The rules of a site's `_redirects` file: read as a whole, then the first that fits a path.
//!
//! The file is foreign. Reading it and finding a rule takes time that grows with its length, not with the square of
//! it; what a rule makes of a path has a longest length. What stands in a path gets into an address encoded, so that
//! it can neither end a header nor name another host or query.

#[cfg(test)]
mod tests;

use crate::encode;
use crate::request::Query;
use http::StatusCode;
use std::collections::{HashMap, HashSet};

/// The rules of one file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rules<'a>(Vec<Rule<'a>>);

/// One line: `from to [status]`.
#[derive(Debug, PartialEq, Eq)]
struct Rule<'a> {
    /// Without a slash at its end, and without its splat.
    from: &'a str,
    /// Whether whatever follows `from` and a slash fits too.
    has_splat: bool,
    to: &'a str,
    status: StatusCode,
}

/// What a rule makes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Another address.
    Redirect(StatusCode, String),
    /// Content of the same site, by its path, as if it had been asked for.
    Rewrite(String),
    /// The same as a page that goes with a status.
    Page(StatusCode, String),
}

/// Why a file is not understood, or a rule not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RulesError {
    #[error("redirects file size cannot exceed {FILE_BYTES_MAX} bytes")]
    Size,
    #[error("it is not UTF-8")]
    Text,
    #[error("line {line}: {why}")]
    Line { line: usize, why: &'static str },
    #[error("line {line}: {text:?} is no status that a rule can have")]
    Status { line: usize, text: String },
    #[error("what the rule for {from:?} makes of this path is longer than {TO_BYTES_MAX} bytes")]
    Long { from: String },
    #[error("the rule for {from:?} would serve {to:?}, which is no path of this site")]
    Elsewhere { from: String, to: String },
}

impl<'a> Rules<'a> {
    /// Reads a file. One wrong line makes all of it wrong.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, RulesError> {
        if file.len() > FILE_BYTES_MAX {
            return Err(RulesError::Size);
        }
        let text = std::str::from_utf8(file).map_err(|_| RulesError::Text)?;
        let lines = text.lines().map(str::trim).zip(1..);
        lines
            .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
            .map(|(text, line)| Rule::parse(text, line))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What the first rule that fits makes of a path, which begins with a slash and is decoded.
    pub(crate) fn find(
        &self,
        path: &str,
        query: Option<&str>,
    ) -> Option<Result<Outcome, RulesError>> {
        let text = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = text.split('/').collect();
        self.0.iter().find_map(|rule| {
            let captured = rule.matches(text, &parts)?;
            Some(rule.outcome(&captured, query))
        })
    }
}

/// What the placeholders of a rule stand for in a path.
type Captured<'a> = HashMap<&'a str, &'a str>;

impl<'a> Rule<'a> {
    fn parse(text: &'a str, line: usize) -> Result<Self, RulesError> {
        let wrong = |why| Err(RulesError::Line { line, why });
        let mut fields = text.split_whitespace();
        let (Some(from), Some(to)) = (fields.next(), fields.next()) else {
            return wrong("it has no target; a rule is: from to [status]");
        };
        let status = match fields.next() {
            Some(text) => status(text).ok_or_else(|| RulesError::Status {
                line,
                text: text.chars().take(SHOWN_CHARS_MAX).collect(),
            })?,
            None => StatusCode::MOVED_PERMANENTLY,
        };
        if fields.next().is_some() {
            return wrong("it has more than three parts; a rule is: from to [status]");
        }
        let (from, has_splat) = match read_from(from) {
            Ok(from) => from,
            Err(why) => return wrong(why),
        };
        let schemes = ["/", "http://", "https://", "ipfs://", "ipns://"];
        if !schemes.iter().any(|start| to.starts_with(start)) {
            return wrong("its target is neither a path nor an http, https, ipfs or ipns address");
        }
        Ok(Self {
            from,
            has_splat,
            to,
            status,
        })
    }

    /// What its placeholders stand for, if it fits. `parts` are those of `path`, split once for all rules.
    fn matches<'p>(&self, path: &'p str, parts: &[&'p str]) -> Option<Captured<'p>>
    where
        'a: 'p,
    {
        let mut captured = Captured::new();
        let mut rest = parts.iter();
        let mut taken = 0;
        for pattern in self.from.split('/') {
            let part = *rest.next()?;
            match pattern.strip_prefix(':') {
                Some(name) => {
                    captured.insert(name, part);
                }
                None if pattern == part => {}
                None => return None,
            }
            taken += part.len() + 1;
        }
        match (self.has_splat, rest.next()) {
            (true, Some(_)) => {
                captured.insert(SPLAT, path.get(taken..)?);
            }
            (false, None) => {}
            (true, None) | (false, Some(_)) => return None,
        }
        Some(captured)
    }

    fn outcome(&self, captured: &Captured<'_>, query: Option<&str>) -> Result<Outcome, RulesError> {
        let long = || RulesError::Long {
            from: self.shown(self.from),
        };
        if self.status.is_redirection() {
            let location = self.location(captured, query).ok_or_else(long)?;
            return Ok(Outcome::Redirect(self.status, location));
        }
        if !self.to.starts_with('/') {
            return Err(RulesError::Elsewhere {
                from: self.shown(self.from),
                to: self.shown(self.to),
            });
        }
        let to = self.to.split(['?', '#']).next().unwrap_or_default();
        let path = expand(to, captured, str::to_owned, str::to_owned).ok_or_else(long)?;
        Ok(match self.status {
            StatusCode::OK => Outcome::Rewrite(path),
            status => Outcome::Page(status, path),
        })
    }

    /// The address, with the client's own query, which goes before what the rule says.
    fn location(&self, captured: &Captured<'_>, query: Option<&str>) -> Option<String> {
        let (to, fragment) = match self.to.split_once('#') {
            Some((to, fragment)) => (to, Some(fragment)),
            None => (self.to, None),
        };
        let (path, own) = match to.split_once('?') {
            Some((path, own)) => (path, Some(own)),
            None => (to, None),
        };
        let mut out = expand(path, captured, encode::uri, encode::path)?;
        let own = expand(
            own.unwrap_or_default(),
            captured,
            encode::uri,
            encode::query,
        )?;
        let query = merged(&own, query.unwrap_or_default());
        if !query.is_empty() {
            out.push('?');
            out.push_str(&query);
        }
        if let Some(fragment) = fragment {
            out.push('#');
            out.push_str(&expand(fragment, captured, encode::uri, encode::query)?);
        }
        Some(out)
    }

    fn shown(&self, text: &str) -> String {
        text.chars().take(SHOWN_CHARS_MAX).collect()
    }
}

/// A rule's pattern, without its splat, and whether it has one.
fn read_from(from: &str) -> Result<(&str, bool), &'static str> {
    if !from.starts_with('/') {
        return Err("its path does not begin with a slash");
    }
    let from = from.strip_suffix('/').unwrap_or(from);
    let before_last = from.get(..from.len().saturating_sub(1)).unwrap_or_default();
    if before_last.contains('*') {
        return Err("a * stands only at the end of a path");
    }
    let (from, has_splat) = match from.strip_suffix("/*") {
        Some(from) => (from, true),
        None => (from, false),
    };
    let mut names = HashSet::new();
    if has_splat {
        names.insert(SPLAT);
    }
    for name in from.split('/').filter_map(|part| part.strip_prefix(':')) {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err("a placeholder has no name, or one of more than 64 bytes");
        }
        if !names.insert(name) {
            return Err("the same placeholder stands twice in its path");
        }
    }
    Ok((from, has_splat))
}

fn status(text: &str) -> Option<StatusCode> {
    let code = text.parse::<u16>().ok()?;
    STATUSES.contains(&code).then_some(())?;
    StatusCode::from_u16(code).ok()
}

/// Puts in what the placeholders stand for; `None` if that gets too long.
fn expand(
    to: &str,
    captured: &Captured<'_>,
    text: impl Fn(&str) -> String,
    value: impl Fn(&str) -> String,
) -> Option<String> {
    let mut pieces = to.split(':');
    let mut out = text(pieces.next().unwrap_or_default());
    for piece in pieces {
        // The longest name wins: `:year` does not stand in `:yearly`, if there is one.
        let name = (1..=piece.len().min(NAME_BYTES_MAX))
            .rev()
            .filter_map(|end| piece.get(..end))
            .find_map(|name| captured.get(name).map(|value| (name.len(), *value)));
        match name {
            Some((end, found)) => {
                out.push_str(&value(found));
                out.push_str(&text(piece.get(end..).unwrap_or_default()));
            }
            None => {
                out.push(':');
                out.push_str(&text(piece));
            }
        }
        if out.len() > TO_BYTES_MAX {
            return None;
        }
    }
    (out.len() <= TO_BYTES_MAX).then_some(out)
}

/// A rule's own parameters that the client does not give itself, and the client's.
fn merged(own: &str, given: &str) -> String {
    let given_names: HashSet<String> = Query::names(given).collect();
    let mut out = String::new();
    for pair in own.split('&').filter(|pair| !pair.is_empty()) {
        if !Query::names(pair).any(|name| given_names.contains(&name)) {
            out.push_str(pair);
            out.push('&');
        }
    }
    out.push_str(given);
    out.trim_end_matches('&').to_owned()
}

const STATUSES: [u16; 9] = [200, 301, 302, 303, 307, 308, 404, 410, 451];
/// What a splat is called in a target.
const SPLAT: &str = "splat";
/// Most bytes of a file, as the specification says.
pub(crate) const FILE_BYTES_MAX: usize = 64 << 10;
/// Longest name of a placeholder.
const NAME_BYTES_MAX: usize = 64;
/// Longest path or address that comes of a rule.
const TO_BYTES_MAX: usize = 32 << 10;
/// How much of a wrong text an error repeats.
const SHOWN_CHARS_MAX: usize = 100;
