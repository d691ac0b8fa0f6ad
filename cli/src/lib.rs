//! What an operator meets: commands, and the RPC that carries them.
//!
//! Every command has one implementation, the handler of `/api/v0/<command>` in [`rpc`]. The
//! command line turns its arguments into a request ([`commands`]), sends it either to an
//! [`rpc::api::Api`] over the repository it opens itself, or over HTTP to the daemon that has the
//! repository open, and renders the answer. So both ways give the same output by construction.
//!
//! Reading order: [`args`] (the command tree) → [`commands`] (request and rendering) →
//! [`rpc::client`] (which way a request goes) → [`rpc::api`] (what answers it) → [`daemon`] (what
//! runs when it runs for long). [`config`] is the only reader of the environment, [`output`] the
//! only place that prints, [`exit`] the only table of exit codes.

pub mod args;
pub mod commands;
pub mod config;
pub mod daemon;
pub mod exit;
pub mod extract;
pub mod logging;
pub mod output;
pub mod repository;
pub mod rpc;
pub mod sync;

use exit::Failure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::ExitCode;
use std::time::Duration;

/// The whole program: parse, run, exit code.
pub fn main() -> ExitCode {
    let arguments = match args::Arguments::read(std::env::args_os().collect::<Vec<_>>()) {
        Ok(arguments) => arguments,
        Err(error) => return exit::from_usage(&error),
    };
    exit::finish(run(arguments))
}

fn run(arguments: args::Arguments) -> Result<(), Failure> {
    no_core_dump();
    let environment =
        config::Environment::read().map_err(|error| Failure::Usage(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("cairn")
        .build()
        .map_err(|error| Failure::runtime(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(Box::pin(commands::run(arguments, environment)));
    // A thread may still wait for a standard input that never ends.
    runtime.shutdown_timeout(SHUTDOWN_GRACE);
    result
}

/// Keeps keys out of core dumps: none is written, and none is given to a program that collects them, unless the limit is
/// raised while this runs (`prlimit --core`).
fn no_core_dump() {
    let limits = getrlimit(Resource::Core);
    let least = limits
        .maximum
        .map_or(CORE_BYTES_MAX, |maximum| maximum.min(CORE_BYTES_MAX));
    let lowered = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(least),
            ..limits
        },
    );
    if let Err(error) = lowered {
        // Lowering is everybody's right; who runs in a box that forbids it shall know.
        output::warning(&format!(
            "core dumps may be written, with keys in them: {error}"
        ));
    }
}

/// Most bytes of a core dump. One is too few for a file; and to Linux it means that a program that collects them is not
/// started either, which it would be with none (core(5)).
const CORE_BYTES_MAX: u64 = 1;
/// How long threads that still work on files are waited for at the end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
