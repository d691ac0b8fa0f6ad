//! From what went wrong to what the shell is told: the only table of exit codes.
//!
//! 0 is success, 1 an error told in one line on standard error, 2 wrong usage.

use crate::output;
use crate::rpc::error::RpcError;
use std::process::ExitCode;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line itself is wrong.
    #[error("{0}")]
    Usage(String),
    /// The command could not be carried out.
    #[error("{0}")]
    Runtime(String),
    /// Whoever read our output has seen enough. Nothing is told.
    #[error("the reader of the output has gone")]
    ReaderGone,
    /// Everything was told already; only the exit code is left.
    #[error("")]
    Told,
}

impl Failure {
    /// An error of the second kind.
    pub fn runtime(text: impl Into<String>) -> Self {
        Self::Runtime(text.into())
    }

    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Runtime(_) | Self::Told => 1,
            Self::ReaderGone => 0,
        }
    }
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self::Runtime(error.message().to_owned())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::Runtime(error.to_string())
        }
    }
}

impl From<crate::repository::RepositoryError> for Failure {
    fn from(error: crate::repository::RepositoryError) -> Self {
        Self::Runtime(error.to_string())
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::Runtime(error.to_string())
    }
}

/// Tells a failure, if it wants to be told, and turns it into the exit code.
pub fn finish(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else {
        return ExitCode::SUCCESS;
    };
    match &failure {
        Failure::Usage(text) => {
            output::error(text);
            output::note("See `cairn --help`.");
        }
        Failure::Runtime(text) => output::error(text),
        Failure::ReaderGone | Failure::Told => {}
    }
    ExitCode::from(failure.code())
}

/// What clap found: help and version are no failures.
pub fn from_usage(error: &clap::Error) -> ExitCode {
    // Help into a closed pipe is nobody's problem.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_exit_with_two_and_others_with_one() {
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::runtime("x").code(), 1);
        assert_eq!(Failure::Told.code(), 1);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let pipe = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(pipe).code(), 0);
    }
}
