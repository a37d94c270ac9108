//! The collector of crossbeam-epoch, which this crate does not share.
//!
//! All crates of a process share the default collector, and a pin of it may run what any of them
//! has deferred: code of others, which may panic, block or call this crate. `fail` pins between
//! the first and the last step of a cascade. In a collector of its own, a pin frees only lists and
//! closures of this crate.

use std::sync::OnceLock;

use crossbeam_epoch::{Collector, Guard, LocalHandle};

fn register() -> LocalHandle {
    static COLLECTOR: OnceLock<Collector> = OnceLock::new();
    COLLECTOR.get_or_init(Collector::new).register()
}

/// Pins the epoch. Wait-free, but for the first pin of a thread, which registers the thread.
#[inline]
pub(crate) fn pin() -> Guard {
    std::thread_local! {
        static HANDLE: LocalHandle = register();
    }
    // A thread that is ending has dropped its handle.
    HANDLE.try_with(LocalHandle::pin).unwrap_or_else(|_| register().pin())
}
