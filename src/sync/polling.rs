//! Whether this thread polls an async supervisor. User code that runs there must not block.

#[cfg(feature = "supervise")]
use std::cell::Cell;

#[cfg(feature = "supervise")]
use super::thread_local;

/// The polls of async supervisors that a thread executes, one inside of another.
#[cfg(feature = "supervise")]
struct Polls {
    /// The number of the innermost one. 0 if there is none.
    present: Cell<u64>,
    /// The number of the last one that has begun.
    last: Cell<u64>,
}

#[cfg(feature = "supervise")]
thread_local! {
    // The macro of loom has no `const` form.
    #[allow(clippy::missing_const_for_thread_local)]
    static POLLS: Polls = Polls { present: Cell::new(0), last: Cell::new(0) };
}

/// Returns whether this thread executes a poll of an async supervisor.
#[cfg(feature = "supervise")]
pub(crate) fn polls_supervisor() -> bool {
    present_poll() > 0
}

/// Without supervisors, no thread polls one.
#[cfg(not(feature = "supervise"))]
pub(crate) fn polls_supervisor() -> bool {
    false
}

/// Returns the number of the poll of an async supervisor that this thread executes. 0 if it
/// executes none. A poll of another thread may have the same number.
#[cfg(feature = "supervise")]
pub(crate) fn present_poll() -> u64 {
    // A thread that has dropped its thread-local values is ending, and blocks no executor.
    POLLS.try_with(|polls| polls.present.get()).unwrap_or(0)
}

/// One poll of an async supervisor, until it is dropped.
#[cfg(feature = "supervise")]
pub(crate) struct SupervisorPoll {
    /// The number of the poll in which this one has begun.
    outer: u64,
}

#[cfg(feature = "supervise")]
impl SupervisorPoll {
    pub(crate) fn begin() -> Self {
        let outer = POLLS.try_with(|polls| {
            polls.last.set(polls.last.get() + 1);
            polls.present.replace(polls.last.get())
        });
        Self { outer: outer.unwrap_or(0) }
    }
}

// By a drop, because a poll may panic.
#[cfg(feature = "supervise")]
impl Drop for SupervisorPoll {
    fn drop(&mut self) {
        let _ = POLLS.try_with(|polls| polls.present.set(self.outer));
    }
}
