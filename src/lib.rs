//! The long-lived parts of a server that depend on each other: provided, waited for, failed and rebuilt by
//! chain, read wait-free.
//!
//! A server is made of *services*: a configuration read from somewhere, a database client built from it, a
//! cache built on that client. Each is provided by some task, waited for by others, and read by every request.
//! When the configuration changes or the client breaks, everything that was built on it has to be rebuilt, in
//! order, while requests go on. A [`Registry`] holds such services.
//!
//! ```
//! use mainstay::{Registry, WaitForError};
//!
//! let registry = Registry::with_capacity(2)?;
//! let config = registry.register::<u16>("config")?;
//! let server = registry.register::<String>("server")?;
//!
//! // One task provides the configuration ...
//! let provider = registry.provide(config)?;
//! let provide_config = std::thread::spawn(move || {
//!     for port in 8080.. {
//!         let Ok(attempt) = provider.begin().wait() else { break };
//!         let Ok(running) = attempt.ready(port) else { continue };
//!         if running.failed().wait().is_err() {
//!             break;
//!         }
//!     }
//! });
//!
//! // ... another one what is built from it; `.await` does as well as `.wait()`.
//! let provider = registry.provide(server)?;
//! let provide_server = std::thread::spawn(move || -> Result<(), WaitForError> {
//!     while let Ok(attempt) = provider.begin().wait() {
//!         let port = match attempt.wait_for(config).wait() {
//!             Err(WaitForError::Overtaken(_)) => continue,
//!             port => port?,
//!         };
//!         let Ok(running) = attempt.ready(format!("localhost:{}", **port)) else { continue };
//!         if let Ok(failure) = running.failed().wait() {
//!             eprintln!("{failure}");
//!         }
//!     }
//!     Ok(())
//! });
//!
//! // A request reads them, wait-free.
//! registry.wait_ready(server).wait()?;
//! assert_eq!(*registry.get(server)?, "localhost:8080");
//!
//! // The configuration fails, the server with it, and both come back by themselves.
//! let old = registry.get(server)?;
//! assert_eq!(registry.fail(config, "edited")?.went_down, 2);
//! registry.wait_ready(server).wait()?;
//! assert_eq!(*registry.get(server)?, "localhost:8081");
//! assert_eq!(*old, "localhost:8080"); // a request that was under way ends with what it has
//!
//! registry.close();
//! provide_config.join().unwrap();
//! provide_server.join().unwrap().ok();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Words
//!
//! - A **service** has a name, the type of its values, and a place in the registry's slab, named by a
//!   [`ServiceId`].
//! - Its **generation** counts its failures.
//! - An **instance** is one value, published under one generation: an [`Instance`].
//! - Its **provider** builds instances, one after another: [`Provider`], [`Attempt`], [`Running`] are the steps.
//! - Its **dependencies** are what its instances are built from: declared, or discovered as an attempt
//!   [waits](Attempt::wait_for) for them. The edges must not form a cycle; one that would is refused with the
//!   path. What is needed [to start](Attempt::wait_to_start) is one until the service is ready; one that is
//!   [watched](Attempt::watch) is *soft*: its failures are told, and take nothing down ([`DependencyKind`]).
//! - A **cascade** is the failure of one service together with everything that depends on it.
//!
//! # Guarantees
//!
//! - Whoever has seen a service fail never after that reads something that was built from what failed.
//! - What was built from something that failed meanwhile is never published; it comes back to its builder.
//! - Once everything is quiet, no ready service rests on an instance that has failed. A failure that arrives
//!   during a start is not lost.
//! - When [`Registry::fail`] has returned, nothing of what it took down can be read.
//! - A reader gets a value that was current at some instant during its call; several services can be read
//!   [at one instant](Registry::get_all).
//! - Of a thousand readers that [report](Registry::report) one broken instance one restarts it, and none hits
//!   the next one.
//! - A wait ends once what it waits for holds. It can be awaited on any executor, block a plain thread, and be
//!   dropped at any point.
//!
//! What is *not* guaranteed, and the argument for each of these, stands in [the design][design].
//!
//! # Progress
//!
//! Reads are wait-free, as far as arc-swap's are; `fail`, `report`, `replace` and publication are lock-free over
//! the slots, and take a short lock of the wait list of a slot where somebody waits; registering, changing
//! edges, waiting and looking in take locks. Each item says its own.
//!
//! # Panics
//!
//! Nothing here panics on what a user passes in. User code that panics (in a value's `Drop`, an observer, a
//! waker) is caught where the store runs it, after the panic hook has reported it; the store stays whole. A
//! panic while a service is built gives the attempt back, with that as its reason.
//!
//! # Supervision
//!
//! The loop of a provider can be left to a `Supervisor`, which needs only to be told how to build: it rests before it
//! builds again, charges each failure to the service with which it began, ends builds that panic or take too long, and
//! stops its service in order when the registry is shut down. It is a future for any executor, or a call for a plain
//! thread. Nothing of the store needs it.
//!
//! # Features
//!
//! None is on by default.
//!
//! - `supervise`: `Registry::supervise` and `Supervisor`, `Restart`, `Clock`, `Registry::shutdown`, `Running::drained`,
//!   `Wait::within`.
//! - `tokio`: `TokioClock`; `smol`: `SmolClock`, for smol and whoever else uses async-io. Each brings `supervise`.
//! - `test-kit`: `Stage`, `VirtualClock`, `Recorder` and `Script`, for tests in which time passes when they say so, builds fail
//!   as they are told to, and what happened is compared with what should have. Brings `supervise`.
//! - `serde`: [`Listing`], [`ServiceStatus`], [`Failure`] and their parts are `Serialize`.
//! - `tracing`: [`TracingObserver`](https://docs.rs/mainstay/latest/mainstay/struct.TracingObserver.html).
//!
//! [design]: https://docs.rs/crate/mainstay/latest/source/docs/design.md
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]

mod all_ready;
mod builder;
mod cached;
mod dependency;
#[cfg(feature = "supervise")]
mod drain;
#[cfg(not(feature = "supervise"))]
#[path = "untracked.rs"]
mod drain;
mod error;
mod event;
mod fail;
mod failure;
mod inspect;
mod provider;
mod read;
mod registry;
mod running;
mod service;
mod store;
#[cfg(feature = "supervise")]
mod supervise;
mod sync;
#[cfg(feature = "test-kit")]
mod test_kit;
#[cfg(feature = "tracing")]
mod trace;
mod wait;
mod watch;

pub use all_ready::{AllReadyError, Missing};
pub use builder::Builder;
pub use cached::Cached;
#[cfg(feature = "supervise")]
pub use error::DrainError;
pub use error::{
    BeginError, BuildError, Cycle, DependencyError, ForeignId, GetAllError, GetError, LookupError,
    NotReady, ProvideError, ReadyError, RegisterError, ReplaceError, WaitError, WaitForError,
    WatchError,
};
pub use event::{Event, EventKind};
pub use failure::{Cascade, Failure, Reason, Report};
pub use inspect::{Dependency, Listing, ServiceStatus};
pub use provider::{Attempt, Provider};
pub use read::{Guard, Ids};
pub use registry::{Observer, Registry};
pub use running::Running;
pub use service::{AnyId, Instance, Name, ServiceId};
pub use store::{DependencyKind, Phase};
#[cfg(feature = "smol")]
pub use supervise::SmolClock;
#[cfg(feature = "tokio")]
pub use supervise::TokioClock;
#[cfg(feature = "supervise")]
pub use supervise::{
    Build, Clock, Doing, Hung, Restart, Shutdown, Sleep, Supervision, Supervisor, SystemClock,
    TryError,
};
#[cfg(feature = "test-kit")]
pub use test_kit::{Fate, Recorder, Script, Stage, VirtualClock};
#[cfg(feature = "tracing")]
pub use trace::TracingObserver;
pub use wait::Wait;
pub use watch::{Change, Watch};

/// Compiles and runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
