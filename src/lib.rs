//! Keeps the long-lived parts of a server that depend on each other: builds them in order, fails
//! and rebuilds them together, and lets every request read them wait-free.
//!
//! A server consists of *services*: a configuration that is read from a file, a database client
//! that is built from the configuration, a cache on top of the client. Each service is built by one
//! task, awaited by others, and read by every request. When the configuration changes or the client
//! breaks, every service that was built from it must be taken down and rebuilt, in order, while
//! requests continue.
//!
//! A [`Registry`] holds such services and the edges between them. For each service you run a
//! [supervisor]: a future for any executor, or a blocking call for a plain thread. It builds the
//! service, retries with backoff, and rebuilds the service after a failure. No runtime is required.
//! The crate starts no task and no thread, with one exception: a timer thread, if futures sleep by
//! the system's clock.
//!
//! # Compared with `ArcSwap` and a task
//!
//! An `ArcSwap` and a task that reloads it are sufficient for a value on which nothing depends. If
//! one value is built from another, a registry adds:
//!
//! - **Consistency.** After a reader has seen that the configuration failed, no read returns a
//!   client that was built from the old configuration.
//! - **No lost failure.** A value whose dependency fails during the build is never published.
//! - **Readiness.** A task waits for one service, or for all of them. If they are not ready in
//!   time, the error names the service that blocks the others, and its last failure.
//! - **Reads of several services** at one instant.
//! - **Failures that readers report.** If a thousand requests report the same broken client, it is
//!   rebuilt once.
//! - **Supervision.** Backoff with jitter, restart limits, build timeouts, panics that are caught,
//!   grace periods, and a graceful shutdown that stops dependents before their dependencies.
//! - **Reloads without an outage.** A service and its dependents are built anew while the old ones
//!   serve, and switched at one instant, or nothing has changed.
//!
//! The price of a read is one more load and a comparison.
//!
//! # A supervised service
//!
//! ```
//! # #[cfg(feature = "supervise")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mainstay::{Registry, error::WaitForError};
//! use std::time::Duration;
//!
//! let registry = Registry::with_capacity(2)?;
//! let config = registry.register::<u16>("config")?;
//! let server = registry.register::<String>("server")?;
//!
//! let mut ports = 8080..;
//! tokio::spawn(registry.supervise(config)?.run(move |_| {
//!     let port = ports.next().ok_or("no port is left");
//!     async move { port }
//! }));
//! tokio::spawn(registry.supervise(server)?.run(async move |build| {
//!     let port = build.wait_for(config).await?; // from here on, `server` depends on `config`
//!     Ok::<_, WaitForError>(format!("localhost:{}", **port))
//! }));
//!
//! registry.wait_all_ready().await?;
//! assert_eq!(*registry.get(server)?, "localhost:8080"); // what a request does
//!
//! registry.fail(config, "edited")?; // fails both services, and both are rebuilt
//! registry.wait_all_ready().await?;
//! assert_eq!(*registry.get(server)?, "localhost:8081");
//!
//! registry.shutdown(Duration::from_secs(30)).await; // stops `server` first, then `config`
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "supervise"))]
//! # fn main() {}
//! ```
//!
//! # The loop by hand
//!
//! A supervisor runs a loop of four steps: begin an attempt, wait for its dependencies, publish the
//! instance, and wait until it fails. A [`Provider`] runs the same loop by hand. This needs no
//! feature.
//!
//! ```
//! use mainstay::{
//!     Registry,
//!     error::{self, WaitForError},
//! };
//!
//! let registry = Registry::with_capacity(2)?;
//! let config = registry.register::<u16>("config")?;
//! let server = registry.register::<String>("server")?;
//!
//! // One thread provides the configuration.
//! let provider = registry.provide(config)?;
//! let provide_config = std::thread::spawn(move || {
//!     for port in 8080.. {
//!         let Ok(attempt) = provider.begin().wait_blocking() else { break };
//!         let Ok(running) = attempt.ready(port) else { continue };
//!         if running.failed().wait_blocking().is_err() {
//!             break;
//!         }
//!     }
//! });
//!
//! // Another one provides the server. In async code, write `.await` for `.wait_blocking()`.
//! let provider = registry.provide(server)?;
//! let provide_server = std::thread::spawn(move || -> Result<(), WaitForError> {
//!     while let Ok(attempt) = provider.begin().wait_blocking() {
//!         let port = match attempt.wait_for(config).wait_blocking() {
//!             Err(WaitForError::Invalidated(_)) => continue,
//!             port => port?,
//!         };
//!         let Ok(running) = attempt.ready(format!("localhost:{}", **port)) else { continue };
//!         if let Ok(failure) = running.failed().wait_blocking() {
//!             eprintln!("{}", error::chain(&failure));
//!         }
//!     }
//!     Ok(())
//! });
//!
//! registry.wait_ready(server).wait_blocking()?;
//! let old = registry.get(server)?;
//! assert_eq!(*old, "localhost:8080");
//!
//! // The configuration fails, and the server with it. Both threads publish new instances.
//! assert_eq!(registry.fail(config, "edited")?.failed, 2);
//! registry.wait_ready(server).wait_blocking()?;
//! assert_eq!(*registry.get(server)?, "localhost:8081");
//! assert_eq!(*old, "localhost:8080"); // a request in progress keeps the instance that it has read
//!
//! registry.close();
//! provide_config.join().unwrap();
//! provide_server.join().unwrap().ok();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Words
//!
//! - A **service** has a name, the type of its values, and a slot in a registry. A [`ServiceId`] is
//!   its typed handle, an [`AnyId`] its untyped one. A [`ServiceSet`] is a group of services.
//!   [`services!`] defines a struct with the ids of a program.
//! - Its **generation** is the number of its failures ([`Generation`]).
//! - An **instance** is a value that was published under one generation ([`Instance`]).
//! - Its **provider** is the owner of the exclusive role that builds its instances, one after
//!   another. [`Provider`], [`Attempt`] and [`Running`] are the steps of this role. That of a
//!   [constant](Registry::constant) is the registry itself.
//! - Its **dependencies** are the services from which its instances are built. An edge is
//!   *declared* ([`Registry::depends`]) or *discovered* when an attempt [waits](Attempt::wait_for)
//!   for a dependency. The edges must not form a cycle: an edge that would close one is refused,
//!   and the error contains the path.
//! - The **kind** of an edge ([`DependencyKind`]) is *hard*, *start-only* (needed only [to
//!   start](Attempt::wait_to_start)), or *soft* ([watched](Attempt::watch): failures are reported,
//!   and fail nothing). [`Depends`] declares edges of each kind.
//! - A **cascade** is the failure of one service together with everything that depends on it.
//!
//! # Guarantees
//!
//! - After a thread has observed that a service failed, no read of this thread returns a value that
//!   was built from the failed instance.
//! - A value is never published if a dependency from which it was built has failed since then. It
//!   is returned to the code that built it. (Soft edges are excepted here and above.)
//! - When no operation is in progress, no ready service depends on an instance that has failed. A
//!   failure during a start is not lost.
//! - After [`Registry::fail`] has returned, none of the instances that it took down can be read.
//! - A read returns a value that was current at some instant during the call.
//!   [`Registry::get_all`] reads several services at one instant.
//! - If many readers [report](Registry::fail_instance) the same broken instance, one of them fails
//!   it, and none of them fails its successor.
//! - A wait ends after its condition has become true: no wake-up is lost.
//!
//! [The design][design] proves each guarantee, and lists what is *not* guaranteed.
//!
//! # Progress
//!
//! - [`get`](Registry::get), [`get_all`](Registry::get_all), [`Reader::get`] and [`Cached::get`]
//!   are wait-free.
//! - [`fail`](Registry::fail), [`fail_instance`](Registry::fail_instance),
//!   [`replace`](Running::replace) and, over known edges, [`ready`](Attempt::ready) are lock-free
//!   over the slots. Two that exchange the instance of one service take turns. If a slot has
//!   waiters, they lock its list of waiters for a short time.
//! - Registering, changing edges, waiting and inspecting take locks.
//!
//! # Panics
//!
//! No function of this crate panics because of its arguments. If user code panics where the
//! registry calls it (the `Drop` of a value, an observer, a waker, a builder), the panic hook
//! reports the panic, and then it is caught: the registry stays consistent. A panic that unwinds
//! through an [`Attempt`] or a [`Running`] fails the attempt or the instance, with
//! [`Reason::Panicked`].
//!
//! # Cancel safety
//!
//! Each wait is a future that does nothing before it is polled, and that can be dropped at any
//! point. A dropped wait takes nothing away from other waiters. One effect can remain: a dependency
//! that was discovered stays an edge until the next publication of its dependent. A wait can also
//! [block a thread](wait::Wait::wait_blocking), with or without a timeout.
//!
//! # Modules
//!
//! - [`error`]: one error type for each operation. Each names the service, and returns the value
//!   that was refused.
//! - [`supervise`]: [`Supervisor`], [`RestartPolicy`], [`Clock`] and the other types of
//!   supervision.
//! - [`program`]: a `main` that starts supervisors, waits for a signal, shuts down and joins them.
//! - [`wait`]: the name of each wait, to store it in a struct.
//! - [`test_kit`]: tests of supervised services, in virtual time.
//!
//! # Features
//!
//! `supervise` is on by default. With `default-features = false`, the crate is the bare store: no
//! supervisors and no clocks, and fewer dependencies.
//!
//! - `supervise` (default): the modules [`supervise`] and [`program`], [`Registry::supervise`],
//!   [`Registry::shutdown`], [`Running::drained`] and [`Wait::timeout`](wait::Wait::timeout).
//! - `tokio`, `smol`: `TokioClock` and `SmolClock` (for smol and all other users of async-io),
//!   which replace the timer thread, and the programs on these executors. Each enables `supervise`.
//! - `signals`: `stop_signal` of the module [`program`]. Enables `supervise`.
//! - `test-kit`: the module [`test_kit`], with a virtual clock, a runtime that runs until all tasks
//!   are idle, builds with scripted outcomes, and a recorder of events. With `tokio`, also a
//!   runtime on the paused clock of tokio. Enables `supervise`.
//! - `serde`: [`Listing`], [`ServiceStatus`], [`Failure`] and their parts implement `Serialize`. A
//!   serialised failure can be deserialised as a [`FailureRecord`], and a serialised listing as a
//!   [`ListingRecord`].
//! - `stream`: `Watch::into_stream`, a [watch](Watch) as a `Stream` of futures-core.
//! - `tracing`: [`TracingObserver`] emits a `tracing` event for each event of the registry.
//!
//! [design]: https://docs.rs/crate/mainstay/latest/source/docs/design.md
//! [supervisor]: supervise::Supervisor
//! [`Supervisor`]: supervise::Supervisor
//! [`RestartPolicy`]: supervise::RestartPolicy
//! [`Clock`]: supervise::Clock
//! [`test_kit`]: https://docs.rs/mainstay/latest/mainstay/test_kit/index.html
//! [`TracingObserver`]: https://docs.rs/mainstay/latest/mainstay/struct.TracingObserver.html
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_docs)]
// The bare store has no `supervise`, to which the text above links.
#![cfg_attr(not(feature = "supervise"), allow(rustdoc::broken_intra_doc_links))]

#[cfg_attr(not(feature = "supervise"), path = "alive_disabled.rs")]
mod alive;
#[cfg(feature = "supervise")]
mod clock;
pub mod error;
mod event;
mod failure;
mod failure_record;
mod instance;
#[cfg(all(any(loom, shuttle), feature = "supervise"))]
#[doc(hidden)]
pub mod models;
mod numbers;
#[cfg(all(feature = "supervise", not(any(loom, shuttle))))]
pub mod program;
mod provide;
mod read;
mod registry;
mod service;
mod service_set;
mod services;
mod store;
#[cfg(feature = "supervise")]
pub mod supervise;
mod sync;
#[cfg(feature = "test-kit")]
pub mod test_kit;
mod texts;
pub mod wait;
mod waiting;

pub use event::{Event, EventKind};
pub use failure::{Cascade, FailAllOutcome, FailOutcome, Failure, Reason, RootOutcome};
pub use failure_record::FailureRecord;
pub use instance::{BuiltFrom, Instance, InstanceId};
pub use numbers::Generation;
#[cfg(feature = "stream")]
pub use provide::WatchStream;
pub use provide::{Attempt, Provider, Running, WaitingFor, Watch, WatchEvent};
pub use read::{Cached, Guard, Ids, MappedGuard, ReadFence, Reader};
#[cfg(feature = "tracing")]
pub use registry::TracingObserver;
pub use registry::{
    BuiltFromInstance, BuiltFromRecord, Dependency, DependencyRecord, Depends, Listing,
    ListingRecord, NotReady, Observer, ObserverHandle, Readiness, ReadinessProblem, Registry,
    RegistryBuilder, ServiceRecord, ServiceState, ServiceStatus,
};
pub use service::{AnyId, ServiceId, ServiceName};
pub use service_set::{ServiceSet, ServiceSetIter};
#[doc(hidden)]
pub use services::__services;
pub use services::ServiceType;
pub use store::{DependencyKind, Phase};

/// Compiles and runs the examples of the README.
#[cfg(all(doctest, feature = "signals", feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;
