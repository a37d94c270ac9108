//! An allocator that counts, when it is told to, what is asked of it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed},
};

use crossbeam_epoch::pin;

/// The system's allocator. Off it costs a load each time, so that times can be taken with it in place.
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

    /// Counts from zero while `work` runs. One at a time.
    pub fn while_on<R>(&self, work: impl FnOnce() -> R) -> R {
        self.on.store(true, Relaxed);
        // What was made before must not be freed meanwhile.
        self.bytes();
        self.bytes.store(0, Relaxed);
        self.peak.store(0, Relaxed);
        let result = work();
        self.on.store(false, Relaxed);
        result
    }

    /// What is in use, after what epochs have retired was freed.
    pub fn bytes(&self) -> isize {
        loop {
            let before = self.bytes.load(Relaxed);
            // A few, since garbage is as old as two epochs before it is freed.
            for _ in 0..8 {
                pin().flush();
            }
            if self.bytes.load(Relaxed) == before {
                return before;
            }
        }
    }

    /// The most that was in use, with what was retired.
    pub fn peak(&self) -> isize {
        self.peak.load(Relaxed)
    }

    fn add(&self, bytes: isize) {
        if self.on.load(Relaxed) {
            let now = self.bytes.fetch_add(bytes, Relaxed) + bytes;
            self.peak.fetch_max(now, Relaxed);
        }
    }
}

// SAFETY: every call is handed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size() as isize);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size() as isize);
        // SAFETY: as the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        self.add(-(layout.size() as isize));
        // SAFETY: as the caller's.
        unsafe { System.dealloc(block, layout) };
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.add(size as isize - layout.size() as isize);
        // SAFETY: as the caller's.
        unsafe { System.realloc(block, layout, size) }
    }
}
