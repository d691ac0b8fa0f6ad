//! Logs to standard error, with a level that can be changed while the program runs.
//!
//! A daemon writes a log. A command that ends by itself has somebody in front of it, who is told in plain
//! lines what should not stay as it is, and nothing else, unless a log was asked for.

use crate::output;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, OnceLock, PoisonError};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Why a level is not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// No such level.
    #[error(
        "{0:?} is not a log level; use error, warn, info, debug or trace, or a directive such as cairn_node=debug"
    )]
    Unknown(String),
    /// Levels were set for too many subsystems.
    #[error("levels are set for too many subsystems; set one for all to begin anew")]
    TooMany,
    /// Logging was not set up by this program.
    #[error("the log level cannot be changed here")]
    Fixed,
}

/// Directives in force and the handle that changes them.
struct Control {
    directives: String,
    handle: reload::Handle<EnvFilter, Registry>,
}

static CONTROL: OnceLock<Mutex<Control>> = OnceLock::new();

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With its time, its level and where it comes from.
    Log,
    /// `warning: ` and what it says.
    Plain,
}

/// What a command says that was not asked for a log. A collection's own notices come with its answer.
pub const PLAIN: &str = "warn,cairn_store::gc=error";

/// What others say of strangers' bytes, once for each: no line of them is for an operator, unless one asks for it.
const QUIET: &str = "hickory_net=error,hickory_resolver=error,libp2p_gossipsub=off";

/// Sets logging up, once, from a level or directives.
pub fn start(directives: &str, form: Form) -> Result<(), LevelError> {
    let (filter, handle) = reload::Layer::new(parse(directives)?);
    let filtered = tracing_subscriber::registry().with(filter);
    let started = match form {
        Form::Log => {
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(io::stderr().is_terminal())
                .with_writer(io::stderr);
            filtered.with(lines).try_init()
        }
        Form::Plain => {
            let lines = tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .event_format(Plain)
                .with_writer(io::stderr);
            filtered.with(lines).try_init()
        }
    };
    if started.is_ok() {
        let control = Control {
            directives: directives.to_owned(),
            handle,
        };
        // Only the first start wins the registry, so only it gets here.
        let _ = CONTROL.set(Mutex::new(control));
    }
    Ok(())
}

/// The plain form.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        writeln!(out, "{}", output::warning_line(&text))
    }
}

/// Changes the level of one subsystem (a crate or module), or of all (`all` or `*`).
pub fn set_level(subsystem: &str, level: &str) -> Result<(), LevelError> {
    let unknown = || LevelError::Unknown(level.to_owned());
    let level = level.to_ascii_lowercase();
    if !LEVELS.contains(&level.as_str()) {
        return Err(unknown());
    }
    let control = CONTROL.get().ok_or(LevelError::Fixed)?;
    let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
    let directives = if matches!(subsystem, "all" | "*") {
        level
    } else {
        with_level(&control.directives, subsystem, &level)
    };
    if directives.len() > DIRECTIVES_BYTES_MAX {
        return Err(LevelError::TooMany);
    }
    control
        .handle
        .reload(parse(&directives)?)
        .map_err(|_| LevelError::Fixed)?;
    control.directives = directives;
    Ok(())
}

/// Directives with one for `subsystem`, which replaces an older one.
fn with_level(directives: &str, subsystem: &str, level: &str) -> String {
    let own = format!("{subsystem}=");
    directives
        .split(',')
        .filter(|directive| !directive.starts_with(&own))
        .map(str::to_owned)
        .chain([format!("{own}{level}")])
        .collect::<Vec<_>>()
        .join(",")
}

/// Names that `log level` understands besides any module's path.
pub const SUBSYSTEMS: [&str; 5] = [
    "cairn",
    "cairn_gateway",
    "cairn_node",
    "cairn_store",
    "libp2p",
];

/// Whether a log can be kept at this level, or by these directives.
pub fn check(directives: &str) -> Result<(), LevelError> {
    parse(directives).map(drop)
}

fn parse(directives: &str) -> Result<EnvFilter, LevelError> {
    // To the library a word by itself that is no level is a module, of which everything is told and of others nothing.
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let mut words = directives.split(',').map(str::trim);
    if words.any(|word| !word.contains(['=', '[']) && !is_level(word)) {
        return Err(LevelError::Unknown(directives.to_owned()));
    }
    EnvFilter::try_new(format!("{QUIET},{directives}"))
        .map_err(|_| LevelError::Unknown(directives.to_owned()))
}

/// Longest directives.
const DIRECTIVES_BYTES_MAX: usize = 4096;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subsystem_has_one_level_however_often_it_is_set() {
        let once = with_level("warn", "cairn_node", "debug");
        assert_eq!(once, "warn,cairn_node=debug");
        let twice = with_level(&once, "cairn_node", "info");
        assert_eq!(twice, "warn,cairn_node=info");
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert_eq!(
            set_level("all", "loud"),
            Err(LevelError::Unknown("loud".to_owned()))
        );
        assert!(parse("cairn_node=debug,info").is_ok());
        assert!(parse("cairn_node=loud").is_err());
        // Not a module of which everything is told, and of others nothing.
        assert!(parse("loud").is_err() && parse("info,cairn_node").is_err());
    }
}
