//! Writing folders: in one block while they are small, as a HAMT beyond.
//!
//! [`Builder`] is a folder that can be changed, for whoever edits; the importer, which knows its
//! entries only once and in bulk, writes its own listing through the same function.

use super::format::{Message, Type};
use super::hamt::{self, Fanout};
use super::import::Metadata;
use super::read::{Directory, Entry, ReadError};
use super::{HamtMeasure, Profile};
use crate::block::{Block, BlockError, Prefix};
use crate::cid::{self, Cid};
use crate::dag::{Budget, pb, wire};
use crate::sink::{BlockSink, PutError};
use crate::source::BlockSource;
use bytes::Bytes;
use futures::StreamExt;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A folder that can be changed. Its shape is decided when it is written.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    entries: BTreeMap<String, (Cid, u64)>,
    metadata: Metadata,
}

/// A folder, written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The root.
    pub cid: Cid,
    /// Cumulative size of the DAG in bytes.
    pub tsize: u64,
}

/// Why a folder cannot be written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The blocks could not be kept.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A block could not be made.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Two names have the same hash, all 64 bits of it.
    #[error("{name:?} has the hash of another name in the same folder")]
    Collision {
        /// One of the names.
        name: String,
    },
    /// A HAMT tells its entries from its shards by their names.
    #[error("an entry without a name cannot be kept in a folder of this size")]
    Nameless,
    /// The profile's fanout is none.
    #[error("a HAMT cannot have a fanout of {0}; a power of two from 8 to 1024 is needed")]
    Fanout(usize),
}

impl Builder {
    /// An empty folder.
    pub fn new(metadata: Metadata) -> Self {
        Self {
            entries: BTreeMap::new(),
            metadata,
        }
    }

    /// The entries of a folder that exists, with its mode and time.
    pub async fn load<S: BlockSource + Clone + 'static>(
        source: S,
        directory: &Directory,
        budget: Budget,
    ) -> Result<Self, ReadError> {
        let mut builder = Self::new(Metadata {
            mode: directory.mode(),
            mtime: directory.mtime(),
        });
        let mut entries = std::pin::pin!(directory.entries(source, budget));
        while let Some(entry) = entries.next().await {
            builder.insert(entry?);
        }
        Ok(builder)
    }

    /// Adds an entry; gives the one that had its name.
    pub fn insert(&mut self, entry: Entry) -> Option<Entry> {
        let Entry { name, cid, tsize } = entry;
        let old = self.entries.insert(name.clone(), (cid, tsize))?;
        Some(Self::entry(&name, old))
    }

    /// Takes an entry away.
    pub fn remove(&mut self, name: &str) -> Option<Entry> {
        self.entries
            .remove(name)
            .map(|found| Self::entry(name, found))
    }

    /// The entry with this name.
    pub fn get(&self, name: &str) -> Option<Entry> {
        self.entries
            .get(name)
            .map(|found| Self::entry(name, *found))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries by name.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries
            .iter()
            .map(|(name, found)| Self::entry(name, *found))
    }

    /// Mode and time.
    pub fn metadata(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Writes the folder, plain or as a HAMT as the profile says.
    pub fn write<S: BlockSink>(
        &self,
        profile: &Profile,
        sink: &mut S,
    ) -> Result<Written, DirectoryError> {
        let cids: Vec<_> = self
            .entries
            .values()
            .map(|(cid, _)| cid.to_bytes())
            .collect();
        let rows: Vec<_> = self
            .entries
            .iter()
            .zip(&cids)
            .map(|((name, (_, tsize)), cid)| Row {
                name,
                cid,
                tsize: *tsize,
            })
            .collect();
        let mut out = Outbox::new(sink);
        let written = write(profile, self.metadata, &rows, &mut out)?;
        out.flush()?;
        Ok(written)
    }

    fn entry(name: &str, (cid, tsize): (Cid, u64)) -> Entry {
        Entry {
            name: name.to_owned(),
            cid,
            tsize,
        }
    }
}

/// A link of a folder that is being written.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    /// The CID's bytes.
    pub(crate) cid: &'a [u8],
    pub(crate) tsize: u64,
}

/// Blocks on their way to a sink, some at a time.
pub(crate) struct Outbox<'a, S> {
    sink: &'a mut S,
    blocks: Vec<Block>,
    bytes: usize,
}

impl<'a, S: BlockSink> Outbox<'a, S> {
    pub(crate) fn new(sink: &'a mut S) -> Self {
        Self {
            sink,
            blocks: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, block: Block) -> Result<(), PutError> {
        self.bytes += block.data().len();
        self.blocks.push(block);
        if self.bytes >= OUT_BYTES_MAX || self.blocks.len() >= OUT_BLOCKS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), PutError> {
        self.bytes = 0;
        if self.blocks.is_empty() {
            return Ok(());
        }
        self.sink.put(std::mem::take(&mut self.blocks))
    }
}

/// Writes a folder of `rows`, sorted by name, no name twice.
pub(crate) fn write<S: BlockSink>(
    profile: &Profile,
    metadata: Metadata,
    rows: &[Row<'_>],
    out: &mut Outbox<'_, S>,
) -> Result<Written, DirectoryError> {
    let measured: usize = rows.iter().map(|row| row.weight(profile)).sum();
    if weight_beside(profile, metadata) + measured > profile.hamt_threshold {
        return Sharder::new(profile, metadata)?.write(rows, out);
    }
    let message = message(metadata).encode();
    let links: usize = rows.iter().map(Row::link_len).sum();
    let mut bytes = Vec::with_capacity(links + wire::bytes_len(message.len()));
    for row in rows {
        pb::put_link(&mut bytes, row.cid, Some(row.name), Some(row.tsize));
    }
    pb::put_data(&mut bytes, &message);
    let below = rows.iter().map(|row| row.tsize);
    let tsize = below.fold(bytes.len() as u64, u64::saturating_add);
    let block = Block::new(profile.node_prefix(), Bytes::from(bytes))?;
    let cid = *block.cid();
    out.push(block)?;
    Ok(Written { cid, tsize })
}

impl Row<'_> {
    fn link_len(&self) -> usize {
        pb::link_len(self.cid.len(), Some(self.name.len()), Some(self.tsize))
    }

    /// What it adds to its folder's size as the profile measures it.
    pub(crate) fn weight(&self, profile: &Profile) -> usize {
        match profile.hamt_measure {
            HamtMeasure::Links => self.name.len() + self.cid.len(),
            HamtMeasure::Block => self.link_len(),
        }
    }
}

/// The size of a folder without entries as the profile measures it.
pub(crate) fn weight_beside(profile: &Profile, metadata: Metadata) -> usize {
    match profile.hamt_measure {
        HamtMeasure::Links => 0,
        HamtMeasure::Block => wire::bytes_len(message(metadata).encode().len()),
    }
}

fn message(metadata: Metadata) -> Message {
    Message {
        mode: metadata.mode,
        mtime: metadata.mtime,
        ..Message::new(Type::Directory)
    }
}

/// What a used bucket of a shard holds.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'a> {
    pub(crate) place: usize,
    /// The entry's name; empty where the link leads to a shard.
    pub(crate) name: &'a str,
    pub(crate) cid: &'a [u8],
    pub(crate) tsize: u64,
}

/// A shard of these buckets, which rise.
pub(crate) fn shard<'a>(
    profile: &Profile,
    fanout: Fanout,
    metadata: Metadata,
    buckets: impl Iterator<Item = Bucket<'a>>,
) -> Result<(Block, Written), DirectoryError> {
    let mut bytes = Vec::new();
    let mut used = Vec::new();
    let mut below = 0_u64;
    for bucket in buckets {
        used.push(bucket.place);
        let label = fanout.prefix(bucket.place) + bucket.name;
        pb::put_link(&mut bytes, bucket.cid, Some(&label), Some(bucket.tsize));
        below = below.saturating_add(bucket.tsize);
    }
    let message = Message {
        data: Some(fanout.bitfield(used.into_iter()).into()),
        hash_type: Some(hamt::HASH_TYPE),
        fanout: Some(fanout.buckets() as u64),
        mode: metadata.mode,
        mtime: metadata.mtime,
        ..Message::new(Type::HamtShard)
    };
    pb::put_data(&mut bytes, &message.encode());
    let tsize = below.saturating_add(bytes.len() as u64);
    let block = Block::new(profile.node_prefix(), Bytes::from(bytes))?;
    let cid = *block.cid();
    Ok((block, Written { cid, tsize }))
}

impl Profile {
    /// How nodes with links are named.
    pub(crate) fn node_prefix(&self) -> Prefix {
        Prefix {
            version: self.version,
            codec: cid::DAG_PB,
            hash: self.hash,
        }
    }
}

struct Sharder<'a> {
    profile: &'a Profile,
    metadata: Metadata,
    fanout: Fanout,
}

impl<'a> Sharder<'a> {
    fn new(profile: &'a Profile, metadata: Metadata) -> Result<Self, DirectoryError> {
        let fanout = Fanout::new(profile.fanout).ok_or(DirectoryError::Fanout(profile.fanout))?;
        Ok(Self {
            profile,
            metadata,
            fanout,
        })
    }

    fn write<S: BlockSink>(
        &self,
        rows: &[Row<'_>],
        out: &mut Outbox<'_, S>,
    ) -> Result<Written, DirectoryError> {
        if rows.iter().any(|row| row.name.is_empty()) {
            return Err(DirectoryError::Nameless);
        }
        let mut hashed: Vec<_> = rows
            .iter()
            .map(|row| (hamt::hash_name(row.name), row))
            .collect();
        // In the order of their hashes, the names of each bucket stand together on every level.
        hashed.sort_by_key(|(hash, _)| *hash);
        self.shard(&hashed, 0, out)
    }

    /// Writes the shard of these names. It calls itself once a level, at most 21 times deep.
    fn shard<S: BlockSink>(
        &self,
        hashed: &[(u64, &Row<'_>)],
        level: usize,
        out: &mut Outbox<'_, S>,
    ) -> Result<Written, DirectoryError> {
        let bucket = |(hash, _): &(u64, &Row<'_>)| self.fanout.bucket(*hash, level);
        let mut found: Vec<(usize, &str, Cow<'_, [u8]>, u64)> = Vec::new();
        for group in hashed.chunk_by(|one, other| bucket(one) == bucket(other)) {
            let Some(((_, row), others)) = group.split_first() else {
                continue;
            };
            let Some(place) = group.first().and_then(bucket) else {
                let name = row.name.to_owned();
                return Err(DirectoryError::Collision { name });
            };
            if others.is_empty() {
                found.push((place, row.name, Cow::Borrowed(row.cid), row.tsize));
            } else {
                let below = self.shard(group, level + 1, out)?;
                found.push((place, "", Cow::Owned(below.cid.to_bytes()), below.tsize));
            }
        }
        let metadata = match level {
            0 => self.metadata,
            _ => Metadata::default(),
        };
        let buckets = found.iter().map(|(place, name, cid, tsize)| Bucket {
            place: *place,
            name,
            cid,
            tsize: *tsize,
        });
        let (block, written) = shard(self.profile, self.fanout, metadata, buckets)?;
        out.push(block)?;
        Ok(written)
    }
}

/// Blocks handed to the sink at once.
const OUT_BLOCKS_MAX: usize = 4096;
/// Bytes handed to the sink at once.
const OUT_BYTES_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixfs::read::{self, Node};
    use futures::TryStreamExt;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::sync::Arc;

    type Blocks = HashMap<Cid, Block>;

    fn small(fanout: usize) -> Profile {
        Profile {
            fanout,
            hamt_threshold: 0,
            ..Profile::v1_2025()
        }
    }

    fn build(profile: &Profile, names: impl IntoIterator<Item = String>) -> (Blocks, Cid) {
        let mut builder = Builder::default();
        for (at, name) in names.into_iter().enumerate() {
            let cid = cid::parse("bafkqaaa").unwrap();
            let tsize = at as u64;
            builder.insert(Entry { name, cid, tsize });
        }
        let mut blocks = Blocks::new();
        let written = builder.write(profile, &mut blocks).unwrap();
        (blocks, written.cid)
    }

    fn open(blocks: &Blocks, cid: &Cid) -> Directory {
        match futures::executor::block_on(read::open(blocks, cid)).unwrap() {
            Node::Directory(directory) => directory,
            other => panic!("{other:?}"),
        }
    }

    fn list(
        blocks: Blocks,
        directory: &Directory,
        budget: Budget,
    ) -> Result<Vec<Entry>, ReadError> {
        let entries = directory.entries(Arc::new(blocks), budget);
        futures::executor::block_on(entries.try_collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn every_name_is_found_and_listed_once(
            names in prop::collection::btree_set("[^/\0]{1,8}", 0..200),
            fanout in prop::sample::select(vec![8, 16, 64, 256, 1024]),
            threshold in prop::sample::select(vec![0, 1 << 20]),
        ) {
            let profile = Profile { hamt_threshold: threshold, ..small(fanout) };
            let (blocks, cid) = build(&profile, names.iter().cloned());
            let directory = open(&blocks, &cid);
            prop_assert_eq!(directory.is_sharded(), threshold == 0);
            for (at, name) in names.iter().enumerate() {
                let entry = futures::executor::block_on(directory.find(&blocks, name)).unwrap();
                prop_assert_eq!(entry.unwrap().tsize, at as u64);
            }
            let nobody = futures::executor::block_on(directory.find(&blocks, "no/body")).unwrap();
            prop_assert_eq!(nobody, None);
            let mut listed: Vec<_> = list(blocks.clone(), &directory, Budget::REQUEST)
                .unwrap()
                .into_iter()
                .map(|entry| entry.name)
                .collect();
            listed.sort();
            prop_assert_eq!(&listed, &names.iter().cloned().collect::<Vec<_>>());

            let source = Arc::new(blocks);
            let again = Builder::load(source, &directory, Budget::REQUEST);
            let again = futures::executor::block_on(again).unwrap();
            prop_assert_eq!(again.write(&profile, &mut Blocks::new()).unwrap().cid, cid);
        }
    }

    #[test]
    fn removing_what_was_added_gives_the_old_folder() {
        let mut builder = Builder::default();
        let empty = builder
            .write(&Profile::v1_2025(), &mut Blocks::new())
            .unwrap();
        assert_eq!(
            empty.cid.to_string(),
            "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
        );
        let entry = Entry {
            name: "a".into(),
            cid: empty.cid,
            tsize: 4,
        };
        assert_eq!(builder.insert(entry.clone()), None);
        assert_eq!(builder.remove("a"), Some(entry));
        assert_eq!(
            builder
                .write(&Profile::v1_2025(), &mut Blocks::new())
                .unwrap(),
            empty
        );
    }

    #[test]
    fn an_entry_without_a_name_is_refused_where_it_would_read_as_a_shard() {
        let mut builder = Builder::default();
        builder.insert(Entry {
            name: String::new(),
            cid: cid::parse("bafkqaaa").unwrap(),
            tsize: 1,
        });
        let written = builder.write(&small(8), &mut Blocks::new());
        assert!(matches!(written, Err(DirectoryError::Nameless)));
        assert!(
            builder
                .write(&Profile::v1_2025(), &mut Blocks::new())
                .is_ok()
        );
    }

    #[test]
    fn a_listing_ends_at_its_budget() {
        for profile in [small(8), Profile::v1_2025()] {
            let (blocks, cid) = build(&profile, (0..100).map(|at| at.to_string()));
            let directory = open(&blocks, &cid);
            let budget = Budget {
                entries: 99,
                ..Budget::REQUEST
            };
            let error = list(blocks.clone(), &directory, budget).unwrap_err();
            assert!(matches!(error, ReadError::OverBudget { .. }), "{error}");
            let budget = Budget {
                entries: 100,
                ..Budget::REQUEST
            };
            assert_eq!(list(blocks, &directory, budget).unwrap().len(), 100);
        }
    }

    fn shard(blocks: &mut Blocks, fanout: usize, bits: Vec<u8>, links: Vec<(String, Cid)>) -> Cid {
        let message = Message {
            data: Some(bits.into()),
            hash_type: Some(hamt::HASH_TYPE),
            fanout: Some(fanout as u64),
            ..Message::new(Type::HamtShard)
        };
        let node = pb::PbNode {
            links: links
                .into_iter()
                .map(|(name, cid)| pb::PbLink {
                    cid,
                    name: Some(name),
                    tsize: Some(1),
                })
                .collect(),
            data: Some(message.encode().into()),
        };
        let block = Block::new(Profile::v1_2025().node_prefix(), pb::encode(&node)).unwrap();
        let cid = *block.cid();
        blocks.insert(cid, block);
        cid
    }

    #[test]
    fn one_shard_linked_256_times_over_32_levels_is_an_error_soon() {
        let empty = cid::parse("bafkqaaa").unwrap();
        for name in ["00x", "00"] {
            let mut blocks = Blocks::new();
            let mut cid = shard(&mut blocks, 256, vec![1], vec![(name.into(), empty)]);
            if name == "00" {
                cid = shard(&mut blocks, 256, vec![], vec![]);
            }
            for _ in 0..32 {
                let links = (0..256).map(|at| (format!("{at:02X}"), cid)).collect();
                cid = shard(&mut blocks, 256, vec![0xff; 32], links);
            }
            let directory = open(&blocks, &cid);
            assert!(list(blocks.clone(), &directory, Budget::REQUEST).is_err());
            let found = futures::executor::block_on(directory.find(&blocks, "name")).unwrap();
            assert_eq!(found, None);
        }
    }

    #[test]
    fn shards_without_entries_count_against_the_budget() {
        let mut blocks = Blocks::new();
        let mut cid = shard(&mut blocks, 8, vec![], vec![]);
        for _ in 0..10 {
            let links = (0..8).map(|at| (format!("{at:X}"), cid)).collect();
            cid = shard(&mut blocks, 8, vec![0xff], links);
        }
        let directory = open(&blocks, &cid);
        let budget = Budget {
            entries: 5000,
            ..Budget::OPERATOR
        };
        let error = list(blocks, &directory, budget).unwrap_err();
        assert!(error.to_string().contains("5000 shards"), "{error}");
    }

    #[test]
    fn a_shard_that_contradicts_itself_is_malformed() {
        let empty = cid::parse("bafkqaaa").unwrap();
        let link = |name: &str| vec![(name.to_owned(), empty)];
        for (fanout, bits, links, why) in [
            (0, vec![], vec![], "no buckets"),
            (1 << 31, vec![], vec![], "buckets without end"),
            (256, vec![1], vec![], "a bit without a link"),
            (256, vec![], link("00a"), "a link without a bit"),
            (256, vec![1], link("01a"), "a label of another bucket"),
            (256, vec![1], link("0"), "a label that is too short"),
            (8, vec![1, 0], link("8a"), "a bit beyond the fanout"),
        ] {
            let mut blocks = Blocks::new();
            let cid = shard(&mut blocks, fanout, bits, links);
            let opened = futures::executor::block_on(read::open(&blocks, &cid));
            assert!(matches!(opened, Err(ReadError::Malformed { .. })), "{why}");
        }
    }
}
