//! Seeded workloads and the way they are measured: contestants in turns, in one run, the median of
//! each, and how ours relates to every floor. Machines are shared and drift; ratios stay.
//!
//! * [`options`]: what the command line chooses: rows, sizes, rounds.
//! * [`row`]: contestants in turns, and how a row is printed.
//! * [`disk`]: a folder that is gone afterwards, space used, a cold page cache.
//! * [`process`]: memory, bytes written, children, a daemon.
//! * [`dht_peers`]: peers that ask a node of the DHT, steadily.
//! * [`plot`]: curves drawn as SVG.
//! * [`waits`]: how long operations waited, as percentiles.
//! * [`peer`]: nodes of ours, each in a process of its own.
//! * [`net`], [`relay`]: hosts on a bridge that leads nowhere else; a long way, simulated.
//! * [`stock`], [`web`], [`torrent`], [`helia`]: others who carry the same bytes.
//! * [`layers`]: connections that are partly ours and partly stock.
//! * [`liar`], [`attacker`], [`crowd`]: a peer that sends something else; peers that only take time and memory; very many connections.
//! * `frame`: messages on a stream, for those who speak by hand.
//! * this file: the input.

pub mod attacker;
pub mod crowd;
pub mod dht_peers;
pub mod disk;
mod frame;
pub mod helia;
pub mod layers;
pub mod liar;
pub mod net;
pub mod options;
pub mod peer;
pub mod plot;
pub mod process;
pub mod relay;
pub mod row;
pub mod stock;
pub mod torrent;
pub mod waits;
pub mod web;

use bytes::Bytes;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, Cid, HashKind, Multihash, Version};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

/// How every block of these workloads is named.
pub const RAW: Prefix = Prefix {
    version: Version::V1,
    codec: cid::RAW,
    hash: HashKind::Sha2_256,
};

/// Writes a file of `bytes` bytes that `seed` decides.
pub fn file(path: &Path, seed: u64, bytes: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).expect("create"));
    let mut buffer = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (part, _) = buffer.split_at_mut(now);
        random.fill_bytes(part);
        out.write_all(part).expect("write");
        left -= now as u64;
    }
    out.flush().expect("flush");
}

/// Makes `count` files of 1 to 4 KiB, `per_folder` of them in each folder of `root`; answers their
/// bytes. With `per_folder` not below `count` they lie in `root` itself.
pub fn small_files(root: &Path, seed: u64, count: usize, per_folder: usize) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut bytes = 0;
    fs::create_dir_all(root).expect("folder");
    for at in 0..count {
        let folder = if per_folder < count {
            root.join(format!("{:04}", at / per_folder))
        } else {
            root.to_owned()
        };
        if at % per_folder == 0 {
            fs::create_dir_all(&folder).expect("folder");
        }
        let mut content = vec![0; random.random_range(1024..=4096)];
        random.fill_bytes(&mut content);
        fs::write(folder.join(format!("{at:06}")), &content).expect("file");
        bytes += content.len() as u64;
    }
    bytes
}

/// Blocks of one size, each told from the others by its number, the same in every run.
#[derive(Debug, Clone)]
pub struct Numbered {
    seed: u64,
    content: Vec<u8>,
}

impl Numbered {
    /// Blocks of `bytes` bytes, at least 16.
    pub fn new(seed: u64, bytes: usize) -> Self {
        let mut content = vec![0; bytes.max(16)];
        StdRng::seed_from_u64(seed).fill_bytes(&mut content);
        Self { seed, content }
    }

    /// The blocks with these numbers.
    pub fn blocks(&self, numbers: Range<u64>) -> Vec<Block> {
        let content = |number| {
            let mut content = self.content.clone();
            let head = [self.seed, number].map(u64::to_le_bytes);
            for (to, from) in content.iter_mut().zip(head.as_flattened()) {
                *to = *from;
            }
            Bytes::from(content)
        };
        Block::new_many(RAW, numbers.map(content).collect()).expect("blocks below the limit")
    }
}

/// The digest of a block of these workloads: all that has to be remembered of it.
pub fn digest(block: &Block) -> [u8; 32] {
    block.cid().hash().digest().try_into().expect("SHA2-256")
}

/// The name that belongs to a [`digest`].
pub fn name(digest: &[u8; 32]) -> Cid {
    let hash = Multihash::wrap(HashKind::Sha2_256.code(), digest).expect("fits");
    Cid::new_v1(cid::RAW, hash)
}

/// Well spread 128 bits for a number: the same keys for every contestant.
pub fn spread(number: u64) -> [u8; 16] {
    let half = |seed: u64| {
        let mut z = number
            .wrapping_add(seed)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_be_bytes()
    };
    let mut key = [0; 16];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&half(1));
    second.copy_from_slice(&half(0x0123_4567_89ab_cdef));
    key
}
