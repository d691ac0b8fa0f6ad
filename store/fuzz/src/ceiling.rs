//! The memory that a decoder takes, counted, and a ceiling on it.
//!
//! libFuzzer's own limits see the whole process; a hundred bytes that take a megabyte pass below
//! them. So every allocation of Rust code is counted here, libFuzzer's own are not, and whoever
//! passes the ceiling of the moment ends the process, which libFuzzer reports as a finding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);
/// Most of them since the work began.
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// How many there may be.
static CEILING: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Most bytes that any work so far took beyond what was there when it began.
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`, which reads `input` bytes and may never hold more than `most` bytes beyond what is
/// held already. What it returns counts as held.
pub fn within<T>(input: usize, most: usize, work: impl FnOnce() -> T) -> T {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    CEILING.store(before.saturating_add(most), Relaxed);
    let done = work();
    CEILING.store(usize::MAX, Relaxed);
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    let known = MOST.load(Relaxed);
    // Told when it grew by a quarter, so that the log stays short.
    if taken > known + known / 4 {
        MOST.store(taken, Relaxed);
        eprintln!("PEAK: {taken} bytes held for an input of {input}, of {most} allowed");
    }
    done
}

#[derive(Debug)]
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn take(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
    PEAK.fetch_max(live, Relaxed);
    let ceiling = CEILING.load(Relaxed);
    if live > ceiling {
        // Telling may allocate.
        CEILING.store(usize::MAX, Relaxed);
        eprintln!(
            "CEILING: {bytes} bytes more make {}, too many",
            live - ceiling
        );
        std::process::abort();
    }
}

fn give(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
        give(layout.size());
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While bytes move, both places are held.
        take(size);
        // SAFETY: the caller's promise is passed on.
        let moved = unsafe { System.realloc(memory, layout, size) };
        give(layout.size());
        moved
    }
}
