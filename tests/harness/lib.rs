//! What tests share: the real program in a repository of its own, a small HTTP client, trees.
//!
//! * [`Repo`]: a folder for `CAIRN_PATH` and the program run over it.
//! * [`Daemon`]: the program as a daemon, ready when it says so, gone when dropped.
//! * [`Mounts`]: file systems of a test's own, which nobody else sees.
//! * [`names`]: a name server on loopback.
//! * [`nets`]: hosts in the open and homes behind routers, in network namespaces.
//! * [`http`]: requests over a plain socket, so that nothing is smoothed over.
//! * [`proxy`]: nginx and haproxy in front of a gateway.
//! * [`kubo`]: Kubo repositories made by hand.
//! * [`scenario`]: commands run alone and through a daemon, over a few known contents.
//! * [`wait_until`], [`wait_for`]: asked again until it is so.
//! * [`tree`]: folders with content that a seed decides.
//! * [`seeds`]: how often what is drawn at random is tried.
//! * [`torture`], [`oracle`]: what the store's worker does until it is killed, and what must be true
//!   after it.

pub mod http;
pub mod kubo;
pub mod mounts;
pub mod names;
pub mod nets;
pub mod oracle;
pub mod program;
pub mod proxy;
pub mod scenario;
pub mod torture;
pub mod tree;
mod waiting;

pub use mounts::Mounts;
pub use program::{Daemon, Done, Repo};
pub use waiting::{wait_for, wait_until};

/// Says why a test cannot have what it needs, past the capture of the output of tests that pass.
pub fn tell_skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// The seeds of sequences that are drawn at random: as many as `CAIRN_SEEDS` says from `CAIRN_FIRST_SEED` on, `usual` from 1 on
/// without.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test runs is the caller's choice"
    )]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("CAIRN_FIRST_SEED").unwrap_or(1);
    first..first + number("CAIRN_SEEDS").unwrap_or(usual)
}
