//! Which store is fastest to put, get, has and delete in, and takes the least space? 1,000,000
//! blocks of 1 KiB and blocks of 256 KiB (`blocks-256k`: 20,000 are 5 GB; 100,000, which is 25 GB,
//! on request).
//!
//! Everybody gets the same batches, already hashed, and makes each batch visible. `1k` and `256k`:
//! all of it is durable at the end, by one commit, flush or sync of the file system. `1k-batch` and
//! `256k-batch`: every batch is durable before the next one comes. Deletions likewise. Gets and
//! looks (`has`, half of them for what is not there) go one at a time over random blocks in the page
//! cache, in a process that has everything open.
//!
//! Beside ours: sled values, redb values, one file a block (temporary, write, rename; with every
//! file and its folder synced where batches are to be durable), which puts only a tenth of the small
//! ones; rates are comparable all the same.
//!
//! Needs, at its default sizes, 13 GB of disk; 65 GB for 100,000 blocks of 256 KiB.

use cairn_store::block::Block;
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::sink::BlockSink;
use cairn_store::store::{Keep, Writer};
use cairn_store::{BlockSource, Store};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use workloads::disk::{self, Folder};
use workloads::options::{Options, size};
use workloads::process::{self, Figures, figures, tell};
use workloads::row::{median, thousands};
use workloads::{Numbered, digest, name};

fn main() {
    match process::part() {
        None => bench(),
        Some((_, given)) => contest(&given),
    }
}

const ROWS: [(&str, &str, &str); 4] = [
    ("1k", "1k", "end"),
    ("256k", "256k", "end"),
    ("1k-batch", "1k", "batch"),
    ("256k-batch", "256k", "batch"),
];

fn bench() {
    let options = Options::read(
        &ROWS.map(|(row, _, _)| row),
        &[
            size("blocks-1k", 1_000_000, 20_000),
            size("blocks-256k", 20_000, 400),
            size("batch-1k", 1000, 1000),
            size("batch-256k", 64, 64),
            size("gets", 200_000, 5_000),
            size("deletes", 100_000, 1_000),
            size("limit", 120, 10),
        ],
    );
    let folder = Folder::new(&options);
    for (row, blocks, durable) in ROWS {
        if options.wants(row) {
            measure(&options, &folder, blocks, durable);
        }
    }
}

const WHO: [&str; 4] = ["ours", "sled", "redb", "files"];

fn measure(options: &Options, folder: &Folder, size: &str, durable: &str) {
    let bytes: u64 = if size == "1k" { 1 << 10 } else { 256 << 10 };
    let blocks = options.number(&format!("blocks-{size}"));
    let batch = options.number(&format!("batch-{size}"));
    println!(
        "{} blocks of {bytes} bytes in batches of {batch}, durable at the end of {}",
        thousands(blocks as f64),
        if durable == "batch" {
            "each batch"
        } else {
            "all"
        }
    );
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); WHO.len()];
    for _ in 0..options.rounds() {
        for (who, rounds) in WHO.iter().zip(&mut rounds) {
            let blocks = match *who {
                "files" if size == "1k" => blocks / 10,
                _ => blocks,
            };
            let path = folder.join(who);
            let given: [&dyn std::fmt::Display; 9] = [
                who,
                &path.display(),
                &blocks,
                &bytes,
                &batch,
                &durable,
                &options.number("gets"),
                &options.number("deletes"),
                &options.number("limit"),
            ];
            rounds.push(figures("contest", &given));
            disk::remove(&path);
            disk::sync(folder.path());
        }
    }
    for (who, rounds) in WHO.iter().zip(&rounds) {
        let middle = |name: &str| {
            let figure = |round: &Figures| round.get(name).copied().unwrap_or(f64::NAN);
            median(&rounds.iter().map(figure).collect::<Vec<_>>())
        };
        println!(
            "  {who:<5} put {:>9}/s ({:>6} MB/s), get {:>9}/s (p50 {:.1} µs), has {:>9}/s (p50 {:.1} µs), \
             delete {:>9}/s of {:.0}, space {:.3} x payload, memory {:.0} MiB at most; {:.0} blocks, {} rounds",
            thousands(middle("put")),
            thousands(middle("put") * bytes as f64 / 1e6),
            thousands(middle("get")),
            middle("get-p50"),
            thousands(middle("has")),
            middle("has-p50"),
            thousands(middle("delete")),
            middle("deleted"),
            middle("space"),
            middle("peak") / f64::from(1 << 20),
            middle("blocks"),
            rounds.len(),
        );
    }
}

/// A contestant. `settle` makes everything durable; so does every call where batches are to be.
trait Contestant {
    fn put(&mut self, blocks: Vec<Block>);
    fn get(&mut self, digest: &[u8; 32]) -> Option<usize>;
    fn has(&mut self, digest: &[u8; 32]) -> bool;
    fn delete(&mut self, digests: &[[u8; 32]]);
    fn settle(&mut self);
    /// Closes it, with everything on the disk that belongs there.
    fn close(self: Box<Self>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    AtTheEnd,
    EachBatch,
}

/// In a child: one contestant from the first put to the end.
fn contest(given: &[String]) {
    let [
        who,
        folder,
        blocks,
        bytes,
        batch,
        durable,
        gets,
        deletes,
        limit,
    ] = given
    else {
        panic!("nine arguments")
    };
    let number = |text: &str| -> u64 { text.parse().expect("a number") };
    let durable = match durable.as_str() {
        "batch" => Durable::EachBatch,
        _ => Durable::AtTheEnd,
    };
    let limit = Duration::from_secs(number(limit));
    let folder = Path::new(folder);
    let mut contestant: Box<dyn Contestant> = match who.as_str() {
        "ours" => Box::new(Ours::open(folder, durable)),
        "sled" => Box::new(Sled::open(folder, durable)),
        "redb" => Box::new(Redb::open(folder, durable)),
        _ => Box::new(Files::open(folder, durable)),
    };
    let (wanted, batch, bytes) = (number(blocks), number(batch), number(bytes));
    let numbered = Numbered::new(7, usize::try_from(bytes).expect("a size"));
    let mut digests = Vec::new();
    let mut spent = Duration::ZERO;
    while (digests.len() as u64) < wanted && spent < limit {
        let from = digests.len() as u64;
        let blocks = numbered.blocks(from..(from + batch).min(wanted));
        digests.extend(blocks.iter().map(digest));
        let begun = Instant::now();
        contestant.put(blocks);
        spent += begun.elapsed();
    }
    let begun = Instant::now();
    contestant.settle();
    spent += begun.elapsed();
    tell("blocks", digests.len() as f64);
    tell("put", digests.len() as f64 / spent.as_secs_f64());

    let mut random = StdRng::seed_from_u64(8);
    let gets = number(gets).min(10 * digests.len() as u64);
    let length = usize::try_from(bytes).expect("a size");
    one_by_one("get", gets, limit, |_| {
        let digest = digests.get(random.random_range(0..digests.len()));
        let digest = digest.expect("inside");
        let begun = Instant::now();
        assert_eq!(contestant.get(digest), Some(length));
        begun.elapsed()
    });
    one_by_one("has", gets, limit, |at| {
        let digest = digests.get(random.random_range(0..digests.len()));
        let mut digest = *digest.expect("inside");
        let there = at.is_multiple_of(2);
        if !there {
            digest[7] ^= 0x55;
            digest[20] ^= 0x55;
        }
        let begun = Instant::now();
        assert_eq!(contestant.has(&digest), there);
        begun.elapsed()
    });
    tell("peak", process::peak() as f64);
    contestant.close();
    tell(
        "space",
        disk::used(folder) as f64 / (digests.len() as u64 * bytes) as f64,
    );

    let mut contestant: Box<dyn Contestant> = match who.as_str() {
        "ours" => Box::new(Ours::open(folder, durable)),
        "sled" => Box::new(Sled::open(folder, durable)),
        "redb" => Box::new(Redb::open(folder, durable)),
        _ => Box::new(Files::open(folder, durable)),
    };
    let deletes = usize::try_from(number(deletes)).expect("a count");
    let (mut deleted, mut spent) = (0, Duration::ZERO);
    for some in digests
        .get(..deletes.min(digests.len()))
        .unwrap_or(&digests)
        .chunks(usize::try_from(batch).expect("a count"))
    {
        let begun = Instant::now();
        contestant.delete(some);
        spent += begun.elapsed();
        deleted += some.len();
        if spent > limit / 4 {
            break;
        }
    }
    let begun = Instant::now();
    contestant.settle();
    spent += begun.elapsed();
    let gone = digests.first().expect("one");
    assert!(!contestant.has(gone), "what was deleted is gone");
    assert!(contestant.has(digests.last().expect("one")) || deleted == digests.len());
    tell("deleted", deleted as f64);
    tell("delete", deleted as f64 / spent.as_secs_f64());
    contestant.close();
}

/// Does something many times, one after another; tells how often in a second, and the middle time.
fn one_by_one(name: &str, count: u64, limit: Duration, mut one: impl FnMut(u64) -> Duration) {
    let mut micros = Vec::new();
    let mut spent = Duration::ZERO;
    for at in 0..count {
        let took = one(at);
        spent += took;
        micros.push(took.as_secs_f64() * 1e6);
        if spent > limit / 4 {
            break;
        }
    }
    tell(name, micros.len() as f64 / spent.as_secs_f64());
    tell(&format!("{name}-p50"), median(&micros));
}

struct Ours {
    store: Store,
    writer: Writer,
    runtime: tokio::runtime::Runtime,
    durable: Durable,
}

impl Ours {
    fn open(folder: &Path, durable: Durable) -> Self {
        let config = Config {
            reserve: Reserve::Bytes(ByteSize(0)),
            ..Config::default()
        };
        let store = Store::open(folder, &config, &mut |event| println!("{event:?}")).expect("open");
        let writer = store.writer(Keep::Kept);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("runtime");
        Self {
            store,
            writer,
            runtime,
            durable,
        }
    }
}

impl Contestant for Ours {
    fn put(&mut self, blocks: Vec<Block>) {
        self.writer.put(blocks).expect("put");
        if self.durable == Durable::EachBatch {
            self.settle();
        }
    }

    fn get(&mut self, digest: &[u8; 32]) -> Option<usize> {
        let block = self.runtime.block_on(self.store.block(&name(digest)));
        block
            .expect("get")
            .map(|block| black_box(block).data().len())
    }

    fn has(&mut self, digest: &[u8; 32]) -> bool {
        let has = self.runtime.block_on(self.store.has(&name(digest)));
        has.expect("has")
    }

    fn delete(&mut self, digests: &[[u8; 32]]) {
        let cids = digests.iter().map(name).collect();
        let deleted = self.runtime.block_on(self.store.delete(cids));
        assert_eq!(deleted.expect("delete").len(), digests.len());
    }

    fn settle(&mut self) {
        self.writer.commit().expect("commit");
    }

    fn close(self: Box<Self>) {
        drop(self.writer);
        self.runtime.block_on(self.store.close()).expect("close");
    }
}

struct Sled {
    db: sled::Db,
    durable: Durable,
}

impl Sled {
    fn open(folder: &Path, durable: Durable) -> Self {
        let config = sled::Config::default()
            .path(folder)
            .cache_capacity(CACHE)
            .flush_every_ms(None);
        // Its threads let go of its lock some time after its last handle, and nothing tells when.
        let mut tries = 0;
        let db = loop {
            match config.open() {
                Err(sled::Error::Io(_)) if tries < LOCK_TRIES => {
                    tries += 1;
                    std::thread::sleep(LOCK_PAUSE);
                }
                opened => break opened.expect("sled"),
            }
        };
        Self { db, durable }
    }

    fn batch_done(&mut self) {
        if self.durable == Durable::EachBatch {
            self.settle();
        }
    }
}

impl Contestant for Sled {
    fn put(&mut self, blocks: Vec<Block>) {
        for block in &blocks {
            let value = &block.data()[..];
            self.db.insert(digest(block), value).expect("insert");
        }
        self.batch_done();
    }

    fn get(&mut self, digest: &[u8; 32]) -> Option<usize> {
        // Like ours, a copy that is the caller's.
        let found = self.db.get(digest).expect("get");
        found.map(|found| black_box(found.to_vec()).len())
    }

    fn has(&mut self, digest: &[u8; 32]) -> bool {
        self.db.contains_key(digest).expect("has")
    }

    fn delete(&mut self, digests: &[[u8; 32]]) {
        for digest in digests {
            let found = self.db.remove(digest).expect("remove");
            assert!(found.is_some());
        }
        self.batch_done();
    }

    fn settle(&mut self) {
        self.db.flush().expect("flush");
    }

    fn close(mut self: Box<Self>) {
        self.settle();
    }
}

struct Redb {
    db: Database,
    durable: Durable,
}

impl Redb {
    fn open(folder: &Path, durable: Durable) -> Self {
        fs::create_dir_all(folder).expect("folder");
        let cache = usize::try_from(CACHE).expect("small");
        let mut builder = redb::Builder::new();
        let db = builder.set_cache_size(cache).create(folder.join("redb"));
        let db = db.expect("redb");
        let transaction = db.begin_write().expect("transaction");
        transaction.open_table(TABLE).expect("table");
        transaction.commit().expect("commit");
        Self { db, durable }
    }

    fn change(&mut self, change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>)) {
        let mut transaction = self.db.begin_write().expect("transaction");
        if self.durable == Durable::AtTheEnd {
            let set = transaction.set_durability(Durability::None);
            set.expect("durability");
        }
        change(&mut transaction.open_table(TABLE).expect("table"));
        transaction.commit().expect("commit");
    }
}

impl Contestant for Redb {
    fn put(&mut self, blocks: Vec<Block>) {
        self.change(|table| {
            for block in &blocks {
                let value = &block.data()[..];
                table.insert(&digest(block)[..], value).expect("insert");
            }
        });
    }

    fn get(&mut self, digest: &[u8; 32]) -> Option<usize> {
        let transaction = self.db.begin_read().expect("transaction");
        let table = transaction.open_table(TABLE).expect("table");
        let found = table.get(&digest[..]).expect("get");
        found.map(|found| black_box(found.value().to_vec()).len())
    }

    fn has(&mut self, digest: &[u8; 32]) -> bool {
        let transaction = self.db.begin_read().expect("transaction");
        let table = transaction.open_table(TABLE).expect("table");
        table.get(&digest[..]).expect("get").is_some()
    }

    fn delete(&mut self, digests: &[[u8; 32]]) {
        self.change(|table| {
            for digest in digests {
                assert!(table.remove(&digest[..]).expect("remove").is_some());
            }
        });
    }

    fn settle(&mut self) {
        let transaction = self.db.begin_write().expect("transaction");
        transaction.commit().expect("commit");
    }

    fn close(self: Box<Self>) {}
}

struct Files {
    folder: PathBuf,
    durable: Durable,
}

impl Files {
    fn open(folder: &Path, durable: Durable) -> Self {
        for first in 0..=255u8 {
            fs::create_dir_all(folder.join(format!("{first:02x}"))).expect("folder");
        }
        Self {
            folder: folder.to_owned(),
            durable,
        }
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let mut text = String::new();
        for byte in digest {
            let _ = write!(text, "{byte:02x}"); // A String takes everything.
        }
        self.folder
            .join(text.get(..2).unwrap_or_default())
            .join(text)
    }

    fn sync_folder(path: &Path) {
        let folder = path.parent().expect("a folder");
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .expect("sync");
    }
}

impl Contestant for Files {
    fn put(&mut self, blocks: Vec<Block>) {
        for block in &blocks {
            let path = self.path(&digest(block));
            let temporary = self.folder.join("temporary");
            let mut file = File::create(&temporary).expect("create");
            file.write_all(block.data()).expect("write");
            if self.durable == Durable::EachBatch {
                file.sync_all().expect("sync");
            }
            fs::rename(&temporary, &path).expect("rename");
            if self.durable == Durable::EachBatch {
                Self::sync_folder(&path);
            }
        }
    }

    fn get(&mut self, digest: &[u8; 32]) -> Option<usize> {
        let bytes = fs::read(self.path(digest)).ok();
        bytes.map(|bytes| black_box(bytes).len())
    }

    fn has(&mut self, digest: &[u8; 32]) -> bool {
        self.path(digest).exists()
    }

    fn delete(&mut self, digests: &[[u8; 32]]) {
        for digest in digests {
            let path = self.path(digest);
            fs::remove_file(&path).expect("remove");
            if self.durable == Durable::EachBatch {
                Self::sync_folder(&path);
            }
        }
    }

    fn settle(&mut self) {
        let folder = File::open(&self.folder).expect("open");
        rustix::fs::syncfs(&folder).expect("sync");
    }

    fn close(self: Box<Self>) {}
}

const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("blocks");
const CACHE: u64 = 256 << 20;
/// How often, and how far apart, sled is tried while its earlier handle lets go.
const LOCK_TRIES: u32 = 600;
const LOCK_PAUSE: Duration = Duration::from_millis(100);
