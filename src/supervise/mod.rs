//! Supervision: retry with backoff, restart policies, draining, and planned ends.
//!
//! A supervisor is the loop of a [`Provider`](crate::Provider), written once. You pass it a
//! *builder*, a function that builds the value of a service. The supervisor calls the builder,
//! publishes the value, waits for its failure, and builds the service again. A [`RestartPolicy`]
//! says how long it backs off before that, and after how many failures it gives up.
//!
//! A supervisor is a future for any executor ([`Supervisor::run`]) or a blocking call for a plain
//! thread ([`Supervisor::run_blocking`]). It starts no task, and no thread but the one of a
//! [blocking body](Supervisor::body_blocking).
//!
//! ```
//! use mainstay::{Registry, error::WaitForError, supervise::RestartPolicy};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let registry = Registry::with_capacity(2)?;
//! let config = registry.register::<u16>("config")?;
//! let server = registry.register::<String>("server")?;
//!
//! let policy = RestartPolicy::default()
//!     .backoff(Duration::from_millis(50), Duration::from_secs(5))
//!     .build_timeout(Duration::from_secs(10));
//! let supervisor = registry.supervise(config)?.restart_policy(policy.clone());
//! tokio::spawn(supervisor.run(|_| async { "80".parse::<u16>() }));
//!
//! let supervisor = registry.supervise(server)?.restart_policy(policy);
//! let supervisor = supervisor.on_close(async |server| println!("{} is closed", *server));
//! tokio::spawn(supervisor.run(async move |build| {
//!     let port = build.wait_for(config).await?; // now `server` depends on `config`
//!     Ok::<_, WaitForError>(format!("localhost:{}", **port))
//! }));
//!
//! assert_eq!(**registry.wait_ready(server).await?, "localhost:80");
//! // A failure of `config` fails `server`, too. Both are built again.
//! registry.fail(config, "edited")?;
//! assert_eq!(**registry.wait_ready(server).await?, "localhost:80");
//! // `server` stops before `config`.
//! assert!(registry.shutdown(Duration::from_secs(30)).await.stop_timeouts.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # States
//!
//! [`ServiceStatus::supervisor`](crate::ServiceStatus::supervisor) reports the [`SupervisorState`]:
//!
//! | state | ends when | next state |
//! |---|---|---|
//! | not running | the supervisor is run | building |
//! | building | the number of builds is at a [limit](crate::Registry::limit_builds) | queued for its build |
//! | queued for its build | it has a place | building |
//! | building | the value is published | up, or completed |
//! | building | the build fails, panics, times out or is invalidated | *next build* |
//! | up | the instance fails | stopping (if its body runs), draining and closing (if configured), or *next build* |
//! | up | the body says that its work is done | completed |
//! | completed | the instance fails | draining (if configured), or *next build* |
//! | stopping | the body has returned, or its stop timeout expires | draining (if configured), or *next build* |
//! | waiting for its body to return | a blocking body that was late has returned | building |
//! | draining | the readers have dropped the instance, or a timeout expires | *next build* |
//! | closing | the close hook has ended | *next build* |
//! | backing off | the delay ends, a change of an input, or a restart | building |
//! | waiting, permanent | a change of an input, or a [restart](crate::Registry::restart) | building |
//! | waiting, after a failure of a dependency ([spread](RestartPolicy::spread)) | the dependencies are ready | backing off, for a random time |
//! | given up | a change of an input (by [policy](RestartPolicy::retry_given_up)), or a restart | building |
//! | any but up, completed | its [group](crate::Registry::group) gives up | given up |
//! | given up, with its group | the group is restarted, or one of its members | building |
//! | stopping, draining, closing | at its turn to stop, each of them | the next of them, or stopped |
//!
//! *Next build* is one of these states: *given up* after too many counted failures; *permanent*
//! after a [permanent error](Permanent); *waiting* if another service was not there, or if the
//! failure was that of a dependency and builds are [spread](RestartPolicy::spread); else *backing
//! off* if there is a delay, else *building*.
//!
//! From any state except *not running*, a supervisor moves to *stopping* when it is the turn of its
//! service to stop, in a restart, a stop or a shutdown. From *stopped* it continues when all
//! services that end together have ended, and its own has been started if it was stopped; after a
//! shutdown it ends. If the registry is [closed](crate::Registry::close), the supervisor ends
//! without a close hook. After it has ended, the status of the service no longer has a supervisor.
//!
//! # Counting failures
//!
//! A failure is counted against the service in which it began:
//!
//! - A build that returns an error, panics or exceeds its
//!   [timeout](RestartPolicy::build_timeout) is counted against its service.
//! - If the service itself is [failed](crate::Registry::fail), this is counted against it, whether
//!   it was ready or was being built.
//! - If the service fails together with a dependency, or such a failure invalidates its build,
//!   nothing is counted against it. It is built again, and the build waits for the dependency.
//!
//! - If the reason of the failure contains a
//!   [`DependencyUnavailable`](crate::error::DependencyUnavailable), such as the error of a wait
//!   that has timed out, nothing is counted: the service waits for that other service.
//! - A [planned](Planned) failure is not counted.
//!
//! So a service never backs off, and is never given up, because of a dependency.
//!
//! # Verdicts
//!
//! A builder or a body may return a [`Permanent`] error: building again does not help before
//! something changes. A builder may return a [`Completed`] value: the service is ready, and runs no
//! body.
//!
//! The *inputs* of a service are its dependencies of all kinds, as its last attempt has used them
//! or as they are declared. If one of them fails, is replaced or comes up, a service that is
//! backing off, waiting or given up, or that has failed permanently, is tried again: once for each
//! change, and at the earliest after the first backoff. A change during the build counts, too.
//!
//! # Backoff
//!
//! A counted failure is followed by a [backoff](RestartPolicy::backoff), which grows exponentially
//! up to a maximum, with jitter. No backoff follows the failure of an instance that was up for the
//! duration of [`reset_after`](RestartPolicy::reset_after); it also resets the counter. If a limit
//! is set ([`max_failures`](RestartPolicy::max_failures)) and more failures are counted within its
//! window of time, the supervisor gives up: the service stays down until a change of an input or
//! [`Registry::restart`](crate::Registry::restart). With [`debounce`](RestartPolicy::debounce),
//! several failures in quick succession lead to one build. With [`spread`](RestartPolicy::spread),
//! the builds of many services that have failed together do not begin together.
//!
//! # Groups
//!
//! A [group](crate::Registry::group) is a set of services whose state is only valid together: if
//! one of them fails, all fail. Their failures have a common limit, and the group gives up, and is
//! restarted, as one.
//!
//! # Bodies
//!
//! A service may have a [body](Supervisor::body): code that runs while the service is up, such as a
//! server that accepts connections, or a worker on a queue. If it returns an error, panics or just
//! returns, the instance fails, so a service is never ready after its worker has died. A body may
//! also say that the service is ready, but [degraded](Live::set_degraded). At a reload, the body of
//! the new instance begins beside the old one, which stops, unless it is an
//! [exclusive](Supervisor::exclusive_body) one.
//!
//! # Probes
//!
//! A [probe](Supervisor::probe) checks the value while the service is up: it pings a connection, or
//! compares a queue with a limit. After several [misses in a row](RestartPolicy::probe_misses) the
//! instance fails, or is [degraded](Supervisor::probe_ready).
//!
//! # Grace periods
//!
//! By default a service fails together with each dependency. With [`Build::wait_with_grace`] it
//! tolerates the absence of a dependency for a grace period, and fails only if the dependency is
//! not ready again when the period ends.
//!
//! # Draining
//!
//! Old instances live as long as readers hold them. If two instances must not exist at the same
//! time, because they need the same port or the same lock file,
//! [`RestartPolicy::drain_timeout`] makes the supervisor wait for the readers of the failed
//! instance before it builds the next one.
//!
//! # Close hooks
//!
//! A service may have a [close hook](Supervisor::on_close): code that receives each of its values
//! at its end: after a failure, after a replacement, or at a planned end. Most often it owns the
//! value, because the last reader hands it over.
//!
//! # Reloads
//!
//! [`Registry::reload`](crate::Registry::reload) builds a service and all that depends on it anew
//! while the old instances serve, and makes all new instances current at one instant, or changes
//! nothing. What must not exist twice, as a listening port, is
//! [exclusive](Supervisor::exclusive): it is restarted at that instant, with its dependents. A
//! service may also [adopt](Supervisor::adopt) the new instance of a dependency in place. A reload
//! that is refused can be [tried again](ReloadWait::retry).
//!
//! # Planned ends
//!
//! [`Registry::restart`](crate::Registry::restart) and [`Registry::stop`](crate::Registry::stop)
//! end one service with its hard dependents, and [`Registry::shutdown`](crate::Registry::shutdown)
//! ends all services. Each service ends after its dependents: its supervisor notifies the body,
//! takes the instance down when the body has returned, drains it, and calls the
//! [close hook](Supervisor::on_close). All its dependencies are still up. A planned end is no
//! failure: its event is [`Stopped`](crate::EventKind::Stopped), and nothing is counted.
//!
//! After a restart, all of them begin again. A stopped service stays down until
//! [`Registry::start`](crate::Registry::start), and its dependents wait for it. After a shutdown
//! the registry is closed.
//!
//! A service that does not stop in time is named in the report, and delays the others no longer.
//! [`ShutdownOptions`] adds a notice before the first service stops.
//!
//! # Time
//!
//! All times are those of the [`Clock`] of the registry. The default one starts a timer thread when
//! the first future sleeps; the clock of your runtime does not need it. `mainstay::test_kit`
//! (feature `test-kit`) has a virtual clock for tests.

// The files of supervision:
//
// | file                         | content                                                       |
// |------------------------------|---------------------------------------------------------------|
// | `supervisor.rs`              | `Supervisor`: the public handle                               |
// | `run_loop.rs`                | the loop of one supervisor                                    |
// | `building.rs`                | one build, until its value is published                       |
// | `build_limit.rs`             | limits on builds, and the place of one build (S16)            |
// | `tenure.rs`                  | the instance that is up, and its body (S9)                    |
// | `ending.rs`                  | its end, and the turn to stop (S4)                            |
// | `verdict.rs`                 | what the reason of a failure says about the next build (S1)   |
// | `retrying.rs`                | when the next build begins; changes of inputs (S12, S13)      |
// | `spread.rs`                  | builds that follow a failure of a dependency, spread          |
// | `policy.rs`                  | `RestartPolicy`                                               |
// | `failure_counter.rs`         | the failures that are counted, and what follows (S1)          |
// | `reporting.rs`               | the states that a supervisor reports, and their events        |
// | `build.rs`                   | `Build`, which a builder receives                             |
// | `build_wait.rs`              | its waits for dependencies                                    |
// | `aside.rs`                   | the build of a new instance while the old one serves (S20)    |
// | `body.rs`                    | the body of a service, async or on a thread (S10)             |
// | `live.rs`                    | `Live`, which a body receives (S11)                           |
// | `probe.rs`                   | probes of the instance that is up (S19)                       |
// | `output.rs`                  | what builders and bodies may return                           |
// | `pending_attempt.rs`         | the attempt of a build, which the supervisor keeps            |
// | `build_timer.rs`             | the build timeout, paused while the build waits               |
// | `grace.rs`                   | grace periods (S8)                                            |
// | `group.rs`                   | groups of services that fail and give up together (S18)       |
// | `closing.rs`                 | `Closing`, which a close hook receives; the close hook        |
// | `closer.rs`                  | calls the close hook for each value, in order (S14, S15)      |
// | `user_code.rs`               | calls builders and close hooks, and catches their panics      |
// | `operations.rs`              | restarting, stopping and starting single services             |
// | `reload.rs`                  | the waits for a reload                                        |
// | `coordinator.rs`             | what they do: the members, their supervisors, the switch (S21)|
// | `reload_root.rs`             | where the new instance of the root comes from                 |
// | `reload_retry.rs`            | reloads that are retried after a refusal                      |
// | `gaps.rs`                    | the services of a reload, and the restarted ones (S22)        |
// | `adopt.rs`                   | taking over a new instance of a dependency in place (S23)     |
// | `shutdown.rs`                | the futures of a graceful shutdown, and their limits (S6)     |
// | `../registry/supervisors.rs` | the status of the supervisors, and the commands to them       |
// | `../registry/supervisors/`   | `plan.rs` and `stopping.rs`: the order of a planned end, and  |
// |                              | its steps (S4, S5); the requests of a shutdown; the report;   |
// |                              | `progress.rs` wakes the futures of a shutdown; `places.rs`:   |
// |                              | the places of builds (S16); `degraded.rs` and `stale.rs`: why |
// |                              | an instance is degraded or stale; `reload.rs`, `reloads.rs`   |
// |                              | and `reloaded.rs`: a reload, all of them, and their results;  |
// |                              | `gaps.rs`: the services that one restarts (S22)               |
// | `../registry/all_ready.rs`   | waiting for all services (S7)                                 |
// | `../registry/stuck.rs`       | waits that end when stuck (S17)                               |
// | `../registry/readiness.rs`   | whether a program is started, live, ready and degraded        |
// | `../provide/drain.rs`        | draining (S2, S3)                                             |
// | `../provide/receiver.rs`     | values that are handed over (H)                               |
// | `../clock.rs`                | clocks                                                        |
// | `../clock/`                  | sleeping by a clock or on a thread; shielding users' wakers   |
//
// The rules, by the numbers that the code and the models use. docs/supervision.md explains them,
// and why they hold.
//
// S1  A failure is counted against the service in which it began, unless it is planned or another
//     service was not there. A dependent never backs off, and is never given up, because of a
//     dependency.
// S2  `drained` completes only after every value of the generation has been dropped, or handed over
//     to its receiver.
// S3  `drained` completes eventually after that.
// S4  A service stops only after all its dependents have stopped. Before its turn to stop it is
//     marked: no attempt at it begins any more, and no attempt gets its instance.
// S5  A service that depends on nothing that is stopping is not disturbed: until its mark, a
//     service fails, backs off and is built again as usual.
// S6  A shutdown ends within its time. A service that exceeds its limit is failed, named in the
//     report, and not waited for any longer.
// S7  A wait for all services, or for a set, misses none: while it sleeps, it has set the waiter
//     bit of the slot that its last check found not ready.
// S8  A service with a grace period fails at the first poll at which its dependency has been absent
//     for the whole grace period, and not before.
// H   Each value that was published for a receiver has exactly one end: it is handed over, or it is
//     dropped or taken after the receiver has waived it, or dropped after the receiver.
// S9  A service is not ready without its body, unless the body has said so.
// S10 But for a reload, no two bodies of one service run at the same time, and never two calls of
//     an exclusive one.
// S11 A body is notified of a failure after its instance is down, of a planned end while its
//     instance can be read, and of a reload after the new instance is current.
// S12 No change of an input is missed while a supervisor waits for its retry.
// S13 There is at most one build for each change of an input and for each first backoff.
// S14 Each value that was published is closed once, in the order of publication, one at a time.
// S15 A value is not closed while its service uses it: before its end, or while its body runs.
// S16 No more builds run than a limit says, no build waits for ever, and a free place is used.
// S17 A wait that can end when stuck ends if one of its services is stuck and stays so, and it ends
//     only if its last check has found one stuck.
// S18 The members of a group fail together, unless one ends as planned. No member is published
//     while the group has given up.
// S19 A probe has an effect only if the value that it was called with is the current one when it
//     ends, and the end of the instance was not announced before.
// S20 Until the switch, a build aside changes nothing of its service; from the switch on, all that
//     belongs to the present instance is of the new build.
// S21 A reload has one end: it switches all members or none, and its caller learns which. No two
//     reloads in progress have a member in common.
// S22 A service with a gap is never built aside, and after the switch no reader finds an instance
//     of it that was built before.
// S23 An adopter is asked to adopt after each switch that has made a new instance of its dependency
//     current, unless its instance was built from that one, or has failed.

mod adopt;
mod aside;
mod body;
mod build;
mod build_limit;
mod build_timer;
mod build_wait;
mod building;
mod closer;
mod closing;
mod coordinator;
mod ending;
mod failure_counter;
mod gaps;
mod grace;
mod group;
mod live;
mod operations;
mod output;
mod pending_attempt;
mod policy;
mod probe;
mod reload;
mod reload_retry;
mod reload_root;
mod reporting;
mod retrying;
mod run_loop;
mod shutdown;
mod spread;
mod supervisor;
mod tenure;
mod user_code;
mod verdict;
mod wake_list;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use self::user_code::panic_message;
pub use self::{
    adopt::AdoptFailure,
    body::{AsyncBody, BlockingBody, Body, Exclusive, NoBody, Overlapping},
    build::Build,
    build_wait::{BuildWaitFor, BuildWaitForAny},
    closing::{AsyncHook, CloseHook, CloseReason, Closing, NoHook},
    group::{GroupPolicy, GroupStatus, ServiceGroup},
    live::{Live, StopReason, Stopping},
    operations::{StopWait, TurnGuard},
    output::{BodyEnd, BodyOutput, BuildOutput, CloseOutput, Completed},
    policy::RestartPolicy,
    probe::{AsyncProbe, NoProbe, ProbeFailed, ProbeMiss, Probes},
    reload::{ReloadCheckWait, ReloadValueWait, ReloadWait},
    reload_retry::{ReloadRetry, ReloadValueRetry, RetriedReload},
    shutdown::{Shutdown, ShutdownGuard, ShutdownOptions},
    supervisor::Supervisor,
    user_code::{BodyFailure, BuildFailure, CloseFailure},
    verdict::{Permanent, Planned},
};
#[cfg(feature = "smol")]
pub use crate::clock::SmolClock;
#[cfg(feature = "tokio")]
pub use crate::clock::TokioClock;
pub use crate::{
    clock::{Clock, Sleep, SystemClock},
    registry::{
        BodyReport, CheckedService, CloseReport, Degraded, Gap, GapCause, MissingMember,
        ReloadCheck, Reloaded, ReloadedService, Reloading, RestartedService, SignalWait, Stale,
        StopReport, StopResult, StopTimeout, StoppedService, SupervisorState, SupervisorStatus,
        WorkEnd,
    },
};

use crate::{error::ProvideError, registry::Registry, service::ServiceId};

impl Registry {
    /// Returns a supervisor for a service: the provider's loop, with retry and backoff.
    ///
    /// The supervisor takes the role of the provider, as [`provide`](Self::provide) does. It does
    /// nothing until [`run`](Supervisor::run) or [`run_blocking`](Supervisor::run_blocking) is
    /// called.
    ///
    /// # Errors
    ///
    /// [`ProvideError`]: the service has a provider already, the registry is closed, or the id
    /// belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn supervise<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Result<Supervisor<T>, ProvideError> {
        let provider = self.take_role(id, true)?;
        Ok(Supervisor::new(provider, self.supervisors().add(id.index())))
    }
}
