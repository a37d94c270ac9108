//! A fence in two halves. The light one costs a reader nothing, and the heavy one of a writer
//! executes a full fence on all threads of the process (`membarrier` of Linux).
//!
//! If one thread executes a heavy fence and another one a light fence, one of the two sees after
//! its fence what the other one has written before its own: as with two SeqCst fences. If the
//! kernel does not have the call, a reader executes a SeqCst fence.

#[cfg(any(loom, shuttle))]
use super::membarrier;
use super::{Ordering, fence};

#[cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]
mod membarrier {
    use std::sync::{
        LazyLock,
        atomic::{Ordering, compiler_fence},
    };

    use rustix::thread::{MembarrierCommand, membarrier};

    static IS_REGISTERED: LazyLock<bool> =
        LazyLock::new(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok());

    pub(super) fn is_registered() -> bool {
        *IS_REGISTERED
    }

    /// Executes a full fence on all threads of the process that run now. The others execute one
    /// before they run again.
    pub(super) fn execute() -> bool {
        membarrier(MembarrierCommand::PrivateExpedited).is_ok()
    }

    #[inline(always)]
    pub(super) fn light_fence() {
        // Of the compiler alone: it keeps the order of the instructions.
        compiler_fence(Ordering::SeqCst);
    }
}

/// No other system has the call. Miri does not know it.
#[cfg(all(any(not(target_os = "linux"), miri), not(any(loom, shuttle))))]
mod membarrier {
    pub(super) fn is_registered() -> bool {
        false
    }

    pub(super) fn execute() -> bool {
        false
    }

    pub(super) fn light_fence() {}
}

/// Returns whether the kernel executes the fences of readers. Decided once in a process.
pub(crate) fn is_asymmetric() -> bool {
    membarrier::is_registered()
}

/// The half of a reader. It is enough if the fence is asymmetric; if not, a `full_fence` must
/// follow.
#[inline(always)]
pub(super) fn light_fence() {
    membarrier::light_fence();
}

/// The half of a reader if the fence is not asymmetric.
pub(super) fn full_fence() {
    fence(Ordering::SeqCst);
}

/// The half of a writer. Returns `false` if the kernel refuses the call: then it is no fence.
#[must_use]
pub(super) fn heavy_fence() -> bool {
    fence(Ordering::SeqCst);
    !is_asymmetric() || membarrier::execute()
}
