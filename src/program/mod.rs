//! A program: starts its supervisors, waits until it must end, shuts down, and joins them.
//!
//! [`Program`] writes the `main` of a server once. The start function spawns the supervisors, on
//! tokio, smol, plain threads or any other executor. [`Program::run`] then waits for a
//! [stop signal][`stop_signal`], a [request](crate::Registry::request_shutdown), or a supervisor
//! that has ended unexpectedly. It shuts the services down in order, waits for the supervisors, and
//! returns a [`ProgramOutcome`], which is also an exit code.
//!
//! ```
//! use mainstay::{
//!     error::WaitForError,
//!     program::{Program, ProgramOutcome},
//!     supervise::ShutdownOptions,
//! };
//! use std::{error::Error, time::Duration};
//!
//! mainstay::services! {
//!     struct Services { config: u16, server: String }
//! }
//!
//! type BoxError = Box<dyn Error + Send + Sync>;
//!
//! fn main() -> Result<ProgramOutcome, BoxError> {
//!     let (registry, services) = Services::build()?;
//!     let program = Program::on_threads(&registry)
//!         .shutdown(ShutdownOptions::within(Duration::from_secs(30)))
//!         .start_timeout(Duration::from_secs(60));
//!     // With the feature `signals`: `.stop_when(mainstay::program::stop_signal()?)`
//! #   let program = program.stop_when({
//! #       let (registry, server) = (registry.clone(), services.server);
//! #       async move { registry.wait_ready(server).await.map_or("not ready", |_| "a test") }
//! #   });
//!     Ok(program.run_blocking(|start| {
//!         let supervisor = registry.supervise(services.config)?;
//!         start.spawn_blocking(supervisor, |it| it.run_blocking(|_| "8080".parse::<u16>()))?;
//!         let (config, supervisor) = (services.config, registry.supervise(services.server)?);
//!         start.spawn(supervisor, |it| {
//!             it.run(async move |build| {
//!                 let port = build.wait_for(config).await?;
//!                 Ok::<_, WaitForError>(format!("localhost:{}", **port))
//!             })
//!         })?;
//!         Ok::<_, BoxError>(())
//!     }))
//! }
//! ```
//!
//! Everything here can also be written by hand: a supervisor is a future or a blocking call, and
//! [`Registry::shutdown`](crate::Registry::shutdown) and [`stop_signal`] need no program.
//! [The rules][programs] are P1 to P8.
//!
//! [`stop_signal`]: https://docs.rs/mainstay/latest/mainstay/program/fn.stop_signal.html
//! [programs]: https://docs.rs/crate/mainstay/latest/source/docs/programs.md

// | file         | content                                                        |
// |--------------|----------------------------------------------------------------|
// | `run.rs`     | `Program`: its options, and its steps (P2, P3, P6, P7)         |
// | `start.rs`   | `ProgramStart`, which spawns supervisors (P1)                  |
// | `ends.rs`    | the ends of the supervisors (P4, P5)                           |
// | `outcome.rs` | `ProgramOutcome`, and its exit code                            |
// | `signals.rs` | `stop_signal` (P8)                                             |

mod ends;
mod outcome;
mod run;
#[cfg(feature = "signals")]
mod signals;
mod start;

#[cfg(feature = "signals")]
pub use self::signals::{Signal, StopSignal, stop_signal};
pub use self::{
    ends::{SupervisorEnd, SupervisorReport},
    outcome::{EndCause, ProgramOutcome},
    run::Program,
    start::{ProgramStart, Task},
};
