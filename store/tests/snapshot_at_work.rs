//! Snapshots of a store that is written, emptied and compacted all the while: each is whole, and of one instant.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that panics has failed"
)]

use cairn_store::block::{Block, Prefix};
use cairn_store::cid::{self, HashKind, Version};
use cairn_store::config::{ByteSize, Config, Reserve};
use cairn_store::sink::BlockSink;
use cairn_store::store::{Keep, OpenEvent};
use cairn_store::{BlockSource, Store};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use tokio::runtime::Runtime;

fn block(writer: u32, number: u32) -> Block {
    let prefix = Prefix {
        version: Version::V1,
        codec: cid::RAW,
        hash: HashKind::Sha2_256,
    };
    let bytes = [writer.to_le_bytes(), number.to_le_bytes()].concat();
    Block::new(prefix, bytes.repeat(400).into()).unwrap()
}

/// Segments of so little that they are filled, emptied and removed all the time.
fn open(folder: &Path) -> Store {
    let config = Config {
        reserve: Reserve::Bytes(ByteSize(0)),
        segment_size: ByteSize(32 << 10),
        ..Config::default()
    };
    Store::open(folder, &config, &mut |event| {
        if let OpenEvent::Notice(text) = event {
            panic!("{text}");
        }
    })
    .unwrap()
}

/// Numbers of which nobody lets go.
const fn stays(number: u32) -> bool {
    !number.is_multiple_of(3)
}

#[test]
fn whatever_is_acknowledged_before_is_in_it_and_all_that_is_pinned_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("store"));
    let runtime = Runtime::new().unwrap();
    let done = AtomicBool::new(false);
    let (acknowledges, acknowledged) = channel();
    std::thread::scope(|scope| {
        let _done = DoneOnDrop(&done);
        for writer in 0..WRITERS {
            let (store, runtime, done) = (&store, &runtime, &done);
            let acknowledges = acknowledges.clone();
            scope.spawn(move || {
                for number in 0..NUMBERS_MAX {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    let one = block(writer, number);
                    let cid = *one.cid();
                    let mut sink = store.writer(Keep::Kept);
                    sink.put(vec![one]).unwrap();
                    sink.commit_and_pin(&[cid], None).unwrap();
                    acknowledges.send((writer, number)).unwrap();
                    if let Some(old) = number.checked_sub(LIVES).filter(|old| !stays(*old)) {
                        let cid = *block(writer, old).cid();
                        runtime.block_on(store.pin_remove(&cid, None)).unwrap();
                    }
                }
            });
        }
        // Else those that fail would be waited for.
        drop(acknowledges);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                runtime.block_on(store.gc(|_| {})).unwrap();
            }
        });
        let mut before = Vec::new();
        for round in 0..ROUNDS {
            // Each begins where there is more than the last one had.
            before.extend(acknowledged.iter().take(ACKNOWLEDGED_EACH));
            before.extend(acknowledged.try_iter());
            let copy = folder.path().join(format!("copy-{round}"));
            let made = store.snapshot(copy.clone(), |_| Ok(Vec::new()));
            let made = runtime.block_on(made).unwrap();
            assert!(made.notices.is_empty(), "{made:?}");
            runtime.block_on(holds(&open(&copy), &before));
        }
    });
    runtime.block_on(store.close()).unwrap();
}

/// Fails unless these are there and pinned, all that is pinned is there, and nothing is damaged.
async fn holds(store: &Store, acknowledged: &[(u32, u32)]) {
    for (writer, number) in acknowledged.iter().filter(|(_, number)| stays(*number)) {
        let block = block(*writer, *number);
        assert!(store.pin(block.cid()).is_some(), "{writer}, {number}");
        let found = store.block(block.cid()).await.unwrap();
        assert_eq!(found.as_ref(), Some(&block), "{writer}, {number}");
    }
    for pin in store.pins() {
        assert!(store.has(&pin.cid).await.unwrap(), "{} is pinned", pin.cid);
    }
    let verified = store.verify(|_| {}, |bad| panic!("{bad:?}"));
    verified.await.unwrap();
    store.gc(|_| {}).await.unwrap();
    store.close().await.unwrap();
}

/// Ends the others even if this one fails.
struct DoneOnDrop<'a>(&'a AtomicBool);

impl Drop for DoneOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const WRITERS: u32 = 3;
const ROUNDS: usize = 6;
/// How many of its blocks a writer makes before it lets one go.
const LIVES: u32 = 20;
/// What is acknowledged at least between two snapshots.
const ACKNOWLEDGED_EACH: usize = 100;
/// Most blocks of one writer.
const NUMBERS_MAX: u32 = 20_000;
