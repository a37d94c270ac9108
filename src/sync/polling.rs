//! Whether this thread polls an async supervisor. User code that runs there must not block.

use std::cell::Cell;

use super::thread_local;

thread_local! {
    /// The number of polls of async supervisors that this thread executes, one inside of another.
    // The macro of loom has no `const` form.
    #[allow(clippy::missing_const_for_thread_local)]
    static POLLS: Cell<u32> = Cell::new(0);
}

/// Returns whether this thread executes a poll of an async supervisor.
pub(crate) fn polls_supervisor() -> bool {
    // A thread that has dropped its thread-local values is ending, and blocks no executor.
    POLLS.try_with(|polls| polls.get() > 0).unwrap_or(false)
}

/// One poll of an async supervisor, until it is dropped.
#[cfg(feature = "supervise")]
pub(crate) struct SupervisorPoll(());

#[cfg(feature = "supervise")]
impl SupervisorPoll {
    pub(crate) fn begin() -> Self {
        let _ = POLLS.try_with(|polls| polls.set(polls.get() + 1));
        Self(())
    }
}

// By a drop, because a poll may panic.
#[cfg(feature = "supervise")]
impl Drop for SupervisorPoll {
    fn drop(&mut self) {
        let _ = POLLS.try_with(|polls| polls.set(polls.get().saturating_sub(1)));
    }
}
