//! Supervisors and shutdowns that block a thread, under every clock.
//!
//! - They need no runtime: under each clock, a supervisor on a plain thread backs off and builds
//!   again, and a shutdown ends at its limit.
//! - If the clock is real, their thread parks until the time, and no future of the clock is polled.
//!   If it is not, they sleep by its futures.
//! - A thread that sleeps for several times wakes at the earliest one.
//! - `TokioClock` is real on each thread whose time is not paused, whatever the time of other
//!   runtimes. While the time of a runtime is paused, and after it was, it is not real there.
//! - A future of `TokioClock` needs no runtime.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::runtime::{ms, on_a_thread};
use crate::support::{LONG, must_finish, registry_of, until, up};
use mainstay::{
    Registry, ServiceId,
    error::WaitForError,
    supervise::{Clock, RestartPolicy, Sleep, SmolClock, SupervisorState, SystemClock, TokioClock},
    test_kit::VirtualClock,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A registry with the clock, and a service whose supervisor backs off for `backoff` after its
/// first build, and must stop within `limit`.
fn supervised(
    clock: impl Clock,
    backoff: Duration,
    limit: Duration,
) -> (Registry, ServiceId<u32>, impl FnOnce() + Send + 'static) {
    let registry = Registry::builder(1).unwrap().clock(clock).build();
    let id = registry.register::<u32>("a").unwrap();
    let restart = RestartPolicy::default().backoff(backoff, backoff).without_jitter();
    let restart = restart.drain_timeout(limit);
    let supervisor = registry.supervise(id).unwrap().restart_policy(restart);
    let run = move || {
        supervisor.run_blocking(|build| match build.number() {
            1 => Err("not at once"),
            number => Ok(number),
        });
    };
    (registry, id, run)
}

fn state(registry: &Registry, id: ServiceId<u32>) -> Option<SupervisorState> {
    registry.status(id).unwrap().supervisor.map(|status| status.state)
}

/// The thread of this function, and those that it spawns, have no runtime.
fn backs_off_and_stops_on_plain_threads(clock: impl Clock) {
    // The supervisor begins to drain within the limit, also on a machine that is busy.
    let (backoff, limit) = (ms(5), ms(200));
    let (registry, id, run) = supervised(clock, backoff, limit);
    let begun = Instant::now();
    let thread = thread::spawn(run);
    let held = registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    assert!(begun.elapsed() >= backoff, "it does not back off");
    // The instance is held, so the limit expires.
    let begun = Instant::now();
    let report = registry.shutdown_blocking(LONG);
    assert_eq!(report.to_string(), "not stopped in time: a (draining, holders: 1)");
    assert!(begun.elapsed() >= limit, "it does not wait");
    drop(held);
    thread.join().unwrap();
}

/// A real clock without futures.
struct WithoutFutures;

impl Clock for WithoutFutures {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        panic!("a thread that blocks asks a real clock for a future")
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// Runs twice as fast as the clock of the system, by the futures of another clock.
struct DoubleSpeed<C>(C, Instant);

impl<C: Clock> Clock for DoubleSpeed<C> {
    fn now(&self) -> Instant {
        self.1 + self.1.elapsed() * 2
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.sleep_until(self.1 + deadline.saturating_duration_since(self.1) / 2)
    }
}

#[test]
fn supervisors_and_shutdowns_block_plain_threads_under_every_clock() {
    must_finish("a supervisor or a shutdown on a plain thread", || {
        backs_off_and_stops_on_plain_threads(SystemClock);
        backs_off_and_stops_on_plain_threads(TokioClock);
        backs_off_and_stops_on_plain_threads(SmolClock);
        backs_off_and_stops_on_plain_threads(WithoutFutures);
    });
}

#[test]
fn supervisors_and_shutdowns_block_plain_threads_under_a_clock_of_the_user() {
    fn by_the_futures_of(clock: impl Clock) {
        let (registry, id, run) = supervised(DoubleSpeed(clock, Instant::now()), ms(10), ms(400));
        let thread = thread::spawn(run);
        let held = registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
        let report = registry.shutdown_blocking(LONG);
        assert_eq!(report.to_string(), "not stopped in time: a (draining, holders: 1)");
        drop(held);
        thread.join().unwrap();
    }
    must_finish("a supervisor or a shutdown under a clock of the user", || {
        by_the_futures_of(SystemClock);
        by_the_futures_of(TokioClock);
        by_the_futures_of(SmolClock);
    });
}

#[test]
fn supervisors_and_shutdowns_block_plain_threads_under_a_virtual_clock() {
    must_finish("a supervisor or a shutdown under a virtual clock", || {
        let clock = VirtualClock::new();
        let (registry, id, run) = supervised(clock.clone(), HOUR, HOUR);
        let thread = thread::spawn(run);
        until("the supervisor sleeps", || clock.sleepers() == 1);
        clock.advance(HOUR);
        let held = registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
        let shutdown = {
            let registry = registry.clone();
            thread::spawn(move || registry.shutdown_blocking(2 * HOUR))
        };
        // The limit of the service, in the shutdown and in its supervisor.
        until("both sleep", || clock.sleepers() == 2);
        clock.advance(HOUR);
        assert_eq!(
            shutdown.join().unwrap().to_string(),
            "not stopped in time: a (draining, holders: 1)"
        );
        drop(held);
        thread.join().unwrap();
    });
}

#[test]
fn a_thread_wakes_at_the_earliest_of_its_deadlines() {
    let (registry, [soon, late, id]) = registry_of::<u32, 3>(["soon", "late", "a"]);
    let _running = [soon, late].map(|id| up(&registry, id, 1));
    let thread = on_a_thread(registry.supervise(id).unwrap(), move |build| {
        build.wait_with_grace(soon, ms(5)).wait_blocking()?;
        build.wait_with_grace(late, HOUR).wait_blocking()?;
        Ok::<_, WaitForError>(1)
    });
    registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    registry.fail_all([soon, late], "out").unwrap();
    until("the shorter grace period expires", || registry.get(id).is_err());
    registry.close();
    thread.join().unwrap();
}

#[test]
fn supervisors_and_shutdowns_in_a_paused_runtime_sleep_by_its_time() {
    must_finish("a supervisor or a shutdown in a paused runtime", || {
        let runtime = paused_runtime();
        runtime.block_on(async {
            let (registry, id, run) = supervised(TokioClock, HOUR, HOUR);
            let thread = tokio::task::spawn_blocking(run);
            until("it backs off", || state(&registry, id) == Some(SupervisorState::BackingOff));
            tokio::time::advance(HOUR).await;
            let held = registry.wait_ready(id).await.unwrap();
            let shutdown = {
                let registry = registry.clone();
                tokio::task::spawn_blocking(move || registry.shutdown_blocking(2 * HOUR))
            };
            until("it drains", || state(&registry, id) == Some(SupervisorState::Draining));
            tokio::time::advance(HOUR).await;
            let report = shutdown.await.unwrap();
            assert_eq!(report.to_string(), "not stopped in time: a (draining, holders: 1)");
            drop(held);
            thread.await.unwrap();
        });
    });
}

fn paused_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[test]
fn the_clock_of_tokio_is_real_unless_the_time_of_this_thread_is_paused() {
    // From now on, tokio looks for a paused time in each call.
    let paused = paused_runtime();
    assert!(TokioClock.is_real(), "on a plain thread");
    let is_real = || tokio::task::spawn_blocking(|| TokioClock.is_real());
    paused.block_on(async {
        assert!(!TokioClock.is_real(), "in a paused runtime");
        assert!(!is_real().await.unwrap(), "on a thread of a paused runtime");
        assert!(thread::spawn(|| TokioClock.is_real()).join().unwrap(), "on another thread");
        tokio::time::advance(HOUR).await;
        assert!(!TokioClock.is_real(), "after an advance of the paused time");
        tokio::time::resume();
        assert!(!TokioClock.is_real(), "the time is an hour ahead");
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        assert!(TokioClock.is_real(), "in a runtime that is not paused");
        assert!(is_real().await.unwrap(), "on a thread of a runtime that is not paused");
        assert!(tokio::spawn(async { TokioClock.is_real() }).await.unwrap(), "on a worker");
    });
}

#[test]
fn a_future_of_the_clock_of_tokio_needs_no_runtime() {
    let deadline = TokioClock.now() + ms(5);
    pollster::block_on(TokioClock.sleep_until(deadline));
    assert!(TokioClock.now() >= deadline);
    let (registry, id, run) = supervised(TokioClock, ms(1), ms(200));
    let thread = thread::spawn(run);
    let held = registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    let report = pollster::block_on(registry.shutdown(LONG));
    assert_eq!(report.to_string(), "not stopped in time: a (draining, holders: 1)");
    drop(held);
    thread.join().unwrap();
}

#[test]
fn the_builder_of_a_supervisor_on_a_thread_is_dropped_with_it() {
    let alive = Arc::new(());
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let kept = Arc::clone(&alive);
    let thread = on_a_thread(registry.supervise(id).unwrap(), move |_| {
        let _kept = &kept;
        Ok::<_, String>(1)
    });
    registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    registry.close();
    thread.join().unwrap();
    assert_eq!(Arc::strong_count(&alive), 1);
}
