//! Tests of supervised services that take no real time and are deterministic.
//!
//! - [`TestRuntime`]: a registry, and an executor that polls its tasks on the thread of the test.
//! - `TokioTestRuntime` (feature `tokio`): the same on tokio's paused clock, for builders that use
//!   tokio's timers or its blocking pool.
//! - [`VirtualClock`]: a clock that advances only if the test says so.
//! - [`Script`]: defines the outcome of each build: success, error, panic,
//!   hang.
//! - [`Recorder`]: an observer that stores each event as a line of text.
//!
//! The recorder and the clock can also be used without the runtime, in a test with threads or with
//! another executor.
//!
//! ```
//! use mainstay::{
//!     supervise::RestartPolicy,
//!     test_kit::{BuildOutcome, Script, TestRuntime},
//! };
//! use std::time::Duration;
//!
//! let mut runtime = TestRuntime::new(1)?;
//! let database = runtime.registry.register::<u8>("database")?;
//!
//! // The first two builds fail.
//! let script = Script::default();
//! script.push(BuildOutcome::Fail("refused".into()));
//! script.push(BuildOutcome::Fail("refused".into()));
//!
//! let minute = Duration::from_secs(60);
//! let policy = RestartPolicy::default().backoff(minute, minute).without_jitter();
//! let supervisor = runtime.registry.supervise(database)?.restart_policy(policy);
//! runtime.spawn(supervisor.run(async move |_| script.step().await.map(|()| 1)));
//!
//! // Two backoffs of one minute each, which take no real time.
//! runtime.advance(2 * minute);
//! assert_eq!(*runtime.registry.get(database)?, 1);
//! runtime.recorder.assert_order(&[
//!     "database 0: attempt failed: refused",
//!     "database 0: attempt failed: refused",
//!     "database 0: ready",
//! ]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod recorder;
mod runtime;
mod script;
mod task;
#[cfg(feature = "tokio")]
mod tokio_runtime;
mod virtual_clock;

#[cfg(feature = "tokio")]
pub use self::tokio_runtime::TokioTestRuntime;
pub use self::{
    recorder::Recorder,
    runtime::TestRuntime,
    script::{BuildOutcome, Script},
    task::{BoxedTask, TestTask},
    virtual_clock::VirtualClock,
};
