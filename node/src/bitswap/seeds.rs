//! The seeds of what is tested with random events: a seed decides everything, and whatever fails
//! says which it was.
//!
//! `CAIRN_SEEDS` says how many are run, `CAIRN_FIRST_SEED` with which to begin.

use cairn_store::Cid;
use cairn_store::cid::{Multihash, RAW};
use libp2p::PeerId;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Runs `work` once for every seed, `usually` so many.
pub(super) fn each(usually: u64, work: impl Fn(StdRng) + std::panic::RefUnwindSafe) {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a test runs is the caller's choice"
    )]
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first: u64 = number("CAIRN_FIRST_SEED").unwrap_or(1);
    for seed in first..first + number("CAIRN_SEEDS").unwrap_or(usually) {
        let ran = std::panic::catch_unwind(|| work(StdRng::seed_from_u64(seed)));
        if let Err(panic) = ran {
            println!("replay with CAIRN_FIRST_SEED={seed} CAIRN_SEEDS=1");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A name of a content that nobody has the bytes of.
pub(super) fn cid(number: u64, codec: u64) -> Cid {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_be_bytes());
    Cid::new_v1(codec, Multihash::wrap(0x12, &digest).unwrap())
}

/// The same content under its usual name.
pub(super) fn raw(number: u64) -> Cid {
    cid(number, RAW)
}

/// A peer that has the same name in every run.
pub(super) fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 5, 8, 1, 18, 1, number]).unwrap()
}
