//! Kubo repositories, made by hand from their documented layout.

use crate::tree;
use cairn_store::Cid;
use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{DAG_CBOR, DAG_JSON, DAG_PB, HashKind, RAW, Version};
use cairn_store::dag::pb::{self, PbLink, PbNode};
use cairn_store::dag::{json, value};
use cairn_store::unixfs::Profile;
use cairn_store::unixfs::import::{Importer, Metadata};
use data_encoding::BASE32_NOPAD;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use written::Entry;

#[path = "../../store/src/kubo/leveldb/tests/written.rs"]
mod written;

/// A Kubo repository.
#[derive(Debug)]
pub struct Kubo {
    folder: tempfile::TempDir,
    records: Vec<Entry>,
    /// Blocks that are whole, by their CID.
    pub good: BTreeMap<Cid, u64>,
    /// What lies among them and is none, and what is said of it.
    pub bad: BTreeMap<PathBuf, &'static str>,
}

impl Default for Kubo {
    fn default() -> Self {
        Self::new()
    }
}

impl Kubo {
    /// An empty one.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        let config = serde_json::json!({"Datastore": {"Spec": {"type": "mount", "mounts": [
            {"mountpoint": "/blocks", "type": "measure", "prefix": "flatfs.datastore", "child":
                {"type": "flatfs", "path": "blocks", "sync": false, "shardFunc": SHARDING}},
            {"mountpoint": "/", "type": "measure", "prefix": "leveldb.datastore", "child":
                {"type": "levelds", "path": "datastore", "compression": "none"}},
        ]}}});
        fs::write(path("config"), config.to_string()).expect("config");
        fs::write(path("version"), "18\n").expect("version");
        fs::create_dir(path("blocks")).expect("blocks");
        fs::write(path("blocks/SHARDING"), format!("{SHARDING}\n")).expect("SHARDING");
        fs::write(path("blocks/_README"), "about these files").expect("_README");
        Self {
            folder,
            records: Vec::new(),
            good: BTreeMap::new(),
            bad: BTreeMap::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the file of a block is, or would be.
    pub fn file(&self, cid: &Cid) -> PathBuf {
        let name = BASE32_NOPAD.encode(&cid.hash().to_bytes());
        let shard = &name[name.len() - 3..name.len() - 1];
        let folder = self.path().join("blocks").join(shard);
        fs::create_dir_all(&folder).expect("folder");
        folder.join(format!("{name}.data"))
    }

    /// Adds a block.
    pub fn put(&mut self, block: &Block) -> Cid {
        fs::write(self.file(block.cid()), block.data()).expect("block");
        self.good.insert(*block.cid(), block.data().len() as u64);
        *block.cid()
    }

    /// Adds a file that is no block, or a bad one.
    pub fn spoil(&mut self, path: PathBuf, bytes: &[u8], says: &'static str) {
        fs::write(&path, bytes).expect("file");
        self.bad.insert(path, says);
    }

    /// Adds a record of a pin, as dspinner writes it.
    pub fn pin(&mut self, cid: &Cid, mode: u8, name: &str) {
        let mut record = vec![0xa0 | (2 + u8::from(!name.is_empty()))];
        let text = |record: &mut Vec<u8>, major: u8, bytes: &[u8]| {
            let length = u8::try_from(bytes.len()).expect("short");
            match length {
                0..24 => record.push(major | length),
                _ => record.extend([major | 24, length]),
            }
            record.extend_from_slice(bytes);
        };
        text(&mut record, 0x60, b"cid");
        text(&mut record, 0x40, &cid.to_bytes());
        text(&mut record, 0x60, b"mode");
        record.push(mode);
        if !name.is_empty() {
            text(&mut record, 0x60, b"name");
            text(&mut record, 0x60, name.as_bytes());
        }
        let id = self.records.len();
        self.record(
            &format!("/pins/pin/{id:08x}-0000-4000-8000-000000000000"),
            Some(record),
        );
    }

    /// Adds a record; without a value the one before is gone.
    pub fn record(&mut self, key: &str, value: Option<Vec<u8>>) {
        self.records.push((key.as_bytes().to_vec(), value));
    }

    /// Writes the database: two tables, the second one packed, and a log.
    pub fn write_records(&self) {
        let (first, rest) = self.records.split_at(self.records.len() / 3);
        let (second, log) = rest.split_at(rest.len() / 2);
        let tables = [first.to_vec(), second.to_vec()];
        written::database(&self.path().join("datastore"), &tables, log, true);
    }

    /// Adds `leaves` blocks of about `bytes` bytes under every hash that there is, and what links them: dag-cbor,
    /// dag-json, dag-pb, and files and folders of both versions of CIDs. Every link block is pinned, some by a name.
    pub fn fill(&mut self, leaves: u64, bytes: usize) {
        let hashes: Vec<HashKind> = HashKind::ALL
            .into_iter()
            .chain([
                HashKind::Blake2b(20),
                HashKind::Blake2b(64),
                HashKind::Blake2s(28),
            ])
            .filter(|hash| *hash != HashKind::Identity)
            .collect();
        let mut linked = Vec::new();
        for at in 0..leaves {
            // One in four as a network mostly has them.
            let hash = match at % 4 {
                0 => hashes[(at / 4) as usize % hashes.len()],
                _ => HashKind::Sha2_256,
            };
            let codec = if at % 7 == 0 { DAG_PB } else { RAW };
            let data = match codec {
                DAG_PB => node(&linked[linked.len().saturating_sub(3)..], at, bytes),
                _ => tree::bytes(at, bytes + (at % 100) as usize),
            };
            let prefix = Prefix {
                version: Version::V1,
                codec,
                hash,
            };
            let block = Block::new(prefix, data.into()).expect("block");
            linked.push(self.put(&block));
            if linked.len() == 100 {
                let codec = if at % 200 < 100 { DAG_CBOR } else { DAG_JSON };
                let root = self.put(&links(&linked, codec));
                self.pin(&root, 0, if at % 400 < 100 { "some name" } else { "" });
                linked.clear();
            }
        }
        for profile in [Profile::v0_2015(), Profile::v1_2025()] {
            let mut blocks: HashMap<Cid, Block> = HashMap::new();
            let mut importer = Importer::new(profile, &mut blocks, |_| {});
            for at in 0..20u64 {
                let bytes = tree::bytes(1_000_000 + at, 100_000 * at as usize);
                importer
                    .file(&format!("file {at}"), &mut &bytes[..], Metadata::default())
                    .expect("file");
            }
            let roots = importer.finish().expect("roots");
            blocks.values().for_each(|block| {
                self.put(block);
            });
            for root in roots {
                self.pin(&root.cid, 0, "a file");
            }
        }
    }
}

/// A node of UnixFS-less dag-pb with data.
fn node(links: &[Cid], seed: u64, bytes: usize) -> Vec<u8> {
    let links = links.iter().map(|cid| PbLink {
        cid: *cid,
        name: Some(format!("link {cid}")),
        tsize: Some(7),
    });
    let node = PbNode {
        links: links.collect(),
        data: Some(tree::bytes(seed, bytes).into()),
    };
    pb::encode(&node).to_vec()
}

/// A block that links others.
fn links(cids: &[Cid], codec: u64) -> Block {
    let links: Vec<String> = cids
        .iter()
        .map(|cid| format!(r#"{{"/":"{cid}"}}"#))
        .collect();
    let text = format!(r#"{{"links":[{}]}}"#, links.join(","));
    let value = json::decode(text.as_bytes()).expect("JSON");
    let prefix = Prefix {
        version: Version::V1,
        codec,
        hash: HashKind::Sha2_256,
    };
    Block::new(prefix, value::encode(&value, codec).expect("bytes").into()).expect("block")
}

const SHARDING: &str = "/repo/flatfs/shard/v1/next-to-last/2";
