//! An allocator that can count the bytes that are requested from it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed},
};

use crossbeam_epoch::pin;

/// The allocator of the system, with counters. While it does not count, it adds only one load to
/// each call, so times can be measured with it.
pub struct Counting {
    on: AtomicBool,
    bytes: AtomicIsize,
    peak: AtomicIsize,
}

impl Counting {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        let (bytes, peak) = (AtomicIsize::new(0), AtomicIsize::new(0));
        Self { on: AtomicBool::new(false), bytes, peak }
    }

    /// Counts from zero while `work` runs. Calls must not overlap.
    pub fn while_on<R>(&self, work: impl FnOnce() -> R) -> R {
        self.on.store(true, Relaxed);
        // Retired memory that was allocated before must not be freed while `work` runs.
        self.bytes();
        self.bytes.store(0, Relaxed);
        self.peak.store(0, Relaxed);
        let result = work();
        self.on.store(false, Relaxed);
        result
    }

    /// Returns the number of bytes in use, after the retired memory has been freed.
    pub fn bytes(&self) -> isize {
        loop {
            let before = self.bytes.load(Relaxed);
            // Retired memory is freed two epochs later.
            for _ in 0..8 {
                pin().flush();
            }
            if self.bytes.load(Relaxed) == before {
                return before;
            }
        }
    }

    /// Returns the maximum number of bytes in use, including retired memory.
    pub fn peak(&self) -> isize {
        self.peak.load(Relaxed)
    }

    fn add(&self, bytes: isize) {
        if self.on.load(Relaxed) {
            let bytes = self.bytes.fetch_add(bytes, Relaxed) + bytes;
            self.peak.fetch_max(bytes, Relaxed);
        }
    }
}

// SAFETY: every call is passed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size() as isize);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size() as isize);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.add(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.add(size as isize - layout.size() as isize);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.realloc(block, layout, size) }
    }
}
