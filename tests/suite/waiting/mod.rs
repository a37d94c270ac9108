//! Waits for services to be ready, for failures, for changes, and for holders; and what their
//! wakers may do.

// These waits are for supervisors, and exist with them only.
#[cfg(feature = "supervise")]
mod all_ready;
mod changes;
// Needs `VirtualClock`.
#[cfg(feature = "test-kit")]
mod clock_timeouts;
#[cfg(feature = "supervise")]
mod drained;
#[cfg(all(feature = "smol", feature = "tokio"))]
mod must_await;
mod ready_any;
mod sets;
mod waits;
mod wakers;
#[cfg(feature = "stream")]
mod watch_streams;
