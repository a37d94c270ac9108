//! The waits of this crate: each is a future for any executor, or a blocking call for a plain
//! thread.
//!
//! A function that waits returns a [`Wait`]: await it, or block the thread with
//! [`wait_blocking`](Wait::wait_blocking). This module names the type of each wait, so that a wait
//! can be stored in a struct or returned from a function.
//!
//! | returned by | type | borrows |
//! |---|---|---|
//! | [`Registry::wait_ready`] | [`WaitReady`] | nothing |
//! | [`Registry::wait_ready_any`] | [`WaitReadyAny`] | nothing |
//! | [`Registry::wait_all_ready`], [`Registry::wait_set_ready`] | [`WaitAllReady`] | nothing |
//! | [`Registry::wait_changed`] | [`WaitChanged`] | nothing |
//! | [`Running::failed`] | [`Failed`] | nothing |
//! | [`Attempt::invalidated`] | [`Invalidated`] | nothing |
//! | [`Provider::begin`] | [`Begin`] | the provider: its role must outlive the attempt |
//! | [`Attempt::wait_for`] | [`WaitFor`] | the attempt, which records the edges that it uses |
//! | [`Attempt::wait_for_any`] | [`WaitForAny`] | the attempt |
//! | [`Watch::changed`] | [`Changed`] | the watch, which stores what it last reported |
//! | `Running::drained` | `Drained` | the running handle, which counts the holders |
//! | `Registry::reload` | `ReloadWait` | nothing; a drop abandons the reload |
//! | `Registry::check_reload` | `ReloadCheckWait` | nothing; a drop abandons the check |
//! | `Live::reload` | `ReloadValueWait` | nothing; a drop abandons the reload, and drops the value |
//! | `Build::wait_for` | `BuildWaitFor` | the build, which records the edges that it uses |
//! | `Build::wait_for_any` | `BuildWaitForAny` | the build |
//!
//! The last six need the feature `supervise`, which has two more: `StopWait`, which enforces
//! limits while it waits, and `SignalWait`, which waits for the registry and not for a service.
//!
//! All of them are cancel-safe: a wait that is dropped before it has ended has no effect on other
//! waiters. One effect can remain: a dependency that was discovered stays an edge until the next
//! publication of its dependent.
//!
//! ```
//! use mainstay::{Registry, wait::WaitReady};
//!
//! struct Client {
//!     pool: WaitReady<String>, // borrows nothing: it owns a handle of the registry
//! }
//!
//! let registry = Registry::with_capacity(1)?;
//! let pool = registry.register::<String>("pool")?;
//! let client = Client { pool: registry.wait_ready(pool) };
//! let provider = registry.provide(pool)?;
//! let _running = provider.begin().wait_blocking()?.ready("connected".into())?;
//! assert_eq!(**client.pool.wait_blocking()?, "connected");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Registry::wait_ready`]: crate::Registry::wait_ready
//! [`Registry::wait_ready_any`]: crate::Registry::wait_ready_any
//! [`Registry::wait_all_ready`]: crate::Registry::wait_all_ready
//! [`Registry::wait_set_ready`]: crate::Registry::wait_set_ready
//! [`Registry::wait_changed`]: crate::Registry::wait_changed
//! [`Running::failed`]: crate::Running::failed
//! [`Attempt::invalidated`]: crate::Attempt::invalidated
//! [`Provider::begin`]: crate::Provider::begin
//! [`Attempt::wait_for`]: crate::Attempt::wait_for
//! [`Attempt::wait_for_any`]: crate::Attempt::wait_for_any
//! [`Watch::changed`]: crate::Watch::changed

#[cfg(feature = "supervise")]
pub use crate::{
    provide::Drained,
    supervise::{BuildWaitFor, BuildWaitForAny, ReloadCheckWait, ReloadValueWait, ReloadWait},
};
pub use crate::{
    provide::{Begin, Changed, Failed, Invalidated, WaitFor, WaitForAny},
    read::{WaitReady, WaitReadyAny},
    registry::{WaitAllReady, WaitChanged},
    waiting::Wait,
};
