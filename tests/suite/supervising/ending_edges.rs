//! Which services end in a restart or a stop, by their edges.
//!
//! - Dependents over declared soft and start-only edges stay up. One with a declared grace period
//!   falls after it.
//! - A service or an edge that is new while an operation is in progress: the dependent ends before
//!   its dependency.
//! - A service that is registered after a stop waits for what it depends on, if its builder does.
//! - An edge that is removed, or turned round, while an operation is in progress delays nothing.

use std::time::Duration;

use super::{
    runtime::{TestRuntime, exact, fails, ms},
    shutting_down::Log,
    stopping::{chain, start, stopped, supervise_logged},
};
use mainstay::{
    Reason, ServiceId,
    error::WaitForError,
    supervise::{Clock, SupervisorState},
};

#[test]
fn declared_soft_start_only_and_grace_dependents_stay_up() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [a, soft, starts, grace, hard] =
        ["a", "soft", "starts", "grace", "hard"].map(|name| runtime.service(name));
    runtime.registry.depends(soft).soft_on(a).unwrap();
    runtime.registry.depends(starts).to_start_on(a).unwrap();
    runtime.registry.depends(grace).with_grace_on(a, ms(50)).unwrap();
    runtime.registry.depends(hard).on(a).unwrap();
    // The end of `a` takes 40 ms, and it is down only then.
    supervise_logged(&mut runtime, &log, a, &[], ms(40));
    for id in [soft, starts, grace, hard] {
        runtime.supervise(id, exact(), fails(0));
    }
    runtime.run_until_idle();
    let values = |runtime: &TestRuntime| [soft, starts, grace, hard].map(|id| runtime.get(id));
    assert_eq!(values(&runtime), [Some(1); 4]);

    let restart = runtime.registry.restart(a, "edited");
    let ended = start(&mut runtime, restart);
    assert_eq!(values(&runtime), [Some(1), Some(1), Some(1), None]);
    runtime.advance(ms(40));
    assert_eq!(stopped(&ended), ["hard", "a"]);
    runtime.advance(ms(1_000));
    assert_eq!(values(&runtime), [Some(1), Some(1), Some(1), Some(2)]);

    let stop = runtime.registry.stop(a);
    let ended = start(&mut runtime, stop);
    runtime.advance(ms(40));
    assert_eq!(stopped(&ended), ["hard", "a"]);
    runtime.advance(ms(49));
    assert_eq!(runtime.get(grace), Some(1));
    runtime.advance(ms(1));
    let status = runtime.registry.status(grace).unwrap();
    let failure = status.last_failure.unwrap();
    assert!(matches!(failure.reason, Reason::GraceExpired { .. }), "{failure}");
    assert_eq!(runtime.supervisor_status(grace).failures, 0);
    assert_eq!([soft, starts].map(|id| runtime.get(id)), [Some(1); 2]);

    // The grace period of the next instance does not begin before `a` is ready again.
    runtime.advance(ms(10_000));
    assert_eq!(runtime.get(grace), Some(2));
    assert!(runtime.registry.start(a).unwrap());
    runtime.advance(ms(10_000));
    assert_eq!([a, soft, starts, grace].map(|id| runtime.get(id)), [3, 1, 1, 2].map(Some));
}

#[test]
fn a_service_and_an_edge_that_are_new_during_a_stop_end_first() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let stop = runtime.registry.stop(bottom);
    let ended = start(&mut runtime, stop);
    assert_eq!(runtime.state(top), SupervisorState::Stopping);
    // Registered now: by a wait of its builder, and by a declaration only.
    let [waits, declared] = ["waits", "declared"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, waits, &[middle], ms(10));
    runtime.registry.depends(declared).on(bottom).unwrap();
    supervise_logged(&mut runtime, &log, declared, &[], ms(10));
    runtime.run_until_idle();
    assert_eq!([waits, declared].map(|id| runtime.get(id)), [Some(1); 2]);
    // An edge between services that exist.
    runtime.registry.depends(declared).on(waits).unwrap();
    runtime.advance(ms(100));
    let order = stopped(&ended);
    assert_eq!(order.len(), 5, "{order:?}");
    let at = |name: &str| order.iter().position(|stopped| stopped == name).unwrap();
    for (first, then) in [
        ("top", "middle"),
        ("waits", "middle"),
        ("middle", "bottom"),
        ("declared", "bottom"),
        ("declared", "waits"),
    ] {
        assert!(at(first) < at(then), "{first} before {then}: {order:?}");
    }
    // The stop leaves only its own service stopped.
    let states = [bottom, middle, top, waits].map(|id| runtime.state(id));
    assert_eq!(states[0], SupervisorState::Stopped);
    assert_eq!(states[1..], [SupervisorState::Building; 3]);
    assert!(runtime.registry.start(bottom).unwrap());
    runtime.run_until_idle();
    assert!([bottom, middle, top, waits, declared].iter().all(|&id| runtime.get(id).is_some()));
}

#[test]
fn a_service_that_is_registered_after_a_stop_waits_if_its_builder_does() {
    let (mut runtime, log, [bottom, ..]) = chain();
    let stop = runtime.registry.stop(bottom);
    start(&mut runtime, stop);
    runtime.advance(ms(30));
    let [waits, bold] = ["waits", "bold"].map(|name| runtime.service(name));
    for id in [waits, bold] {
        runtime.registry.depends(id).on(bottom).unwrap();
    }
    supervise_logged(&mut runtime, &log, waits, &[bottom], ms(0));
    // Its builder does without `bottom`.
    supervise_logged(&mut runtime, &log, bold, &[], ms(0));
    runtime.advance(ms(10_000));
    assert_eq!([waits, bold].map(|id| runtime.get(id)), [None, Some(1)]);
    let line = runtime.registry.status(waits).unwrap().to_string();
    let expected = "waits: waiting for bottom; bottom: stopped, `Registry::start` starts it";
    assert!(line.starts_with(expected), "{line}");
    // A dependent of a stopped service ends in the next stop of that one.
    let stop = runtime.registry.stop(bottom);
    let ended = start(&mut runtime, stop);
    runtime.run_until_idle();
    let mut order = stopped(&ended);
    assert_eq!(order.pop().unwrap(), "bottom");
    order.sort();
    assert_eq!(order, ["bold", "middle", "top", "waits"]);
    assert_eq!(runtime.get(bold), Some(2), "it begins again after the stop");
    assert!(runtime.registry.start(bottom).unwrap());
    runtime.run_until_idle();
    assert_eq!([bottom, waits].map(|id| runtime.get(id)), [Some(2), Some(1)]);
}

/// Supervises a service that is built from these: in the first build, and in the later ones. Its
/// close hook takes `takes` at a planned end.
fn supervise_turned(
    runtime: &mut TestRuntime,
    id: ServiceId<u32>,
    [first, later]: [Vec<ServiceId<u32>>; 2],
    takes: Duration,
) {
    let clock = runtime.clock.clone();
    let policy = exact().backoff(ms(1), ms(1)).reset_after(ms(0)).close_timeout(ms(10_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async move |closing| {
        use mainstay::supervise::{CloseReason, Closing};
        let reason = Closing::reason(&closing).clone();
        drop(closing);
        if matches!(reason, CloseReason::Restarted { .. } | CloseReason::Stopped { .. }) {
            let end = clock.now() + takes;
            clock.sleep_until(end).await;
        }
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |build| {
        builds += 1;
        for &id in if builds == 1 { &first } else { &later } {
            build.wait_for(id).await?;
        }
        Ok::<u32, WaitForError>(builds)
    }));
}

#[test]
fn an_edge_that_is_turned_round_delays_nothing() {
    for restarts in [true, false] {
        let mut runtime = TestRuntime::new();
        let [a, b, top] = ["a", "b", "top"].map(|name| runtime.service(name));
        // `b` is built from `a` the first time. Then it is the other way round.
        supervise_turned(&mut runtime, a, [vec![], vec![b]], ms(10));
        supervise_turned(&mut runtime, b, [vec![a], vec![]], ms(10));
        supervise_turned(&mut runtime, top, [vec![a, b], vec![a, b]], ms(50));
        runtime.run_until_idle();
        assert_eq!([a, b, top].map(|id| runtime.get(id)), [Some(1); 3]);
        let wait = match restarts {
            true => runtime.registry.restart(a, "edited"),
            false => runtime.registry.stop(a),
        };
        let ended = start(&mut runtime, wait);
        assert_eq!(runtime.get(top), None);
        runtime.advance(ms(10));
        runtime.registry.fail(a, "to be built from b").unwrap();
        runtime.advance(ms(10));
        let edges = |id| runtime.registry.status(id).unwrap().dependencies.len();
        assert_eq!((edges(a), edges(b)), (1, 0));
        assert_eq!([a, b].map(|id| runtime.get(id)), [Some(2); 2]);
        runtime.advance(ms(29));
        assert!(ended.lock().unwrap().is_none());
        assert_eq!([a, b].map(|id| runtime.get(id)), [Some(2); 2], "`top` has not ended");
        runtime.advance(ms(21));
        assert_eq!(stopped(&ended), ["top", "a", "b"]);
        runtime.run_until_idle();
        let values = [a, b, top].map(|id| runtime.get(id));
        let expected = if restarts { [Some(3), Some(3), Some(2)] } else { [None, Some(3), None] };
        assert_eq!(values, expected);
    }
}

#[test]
fn an_edge_that_is_removed_delays_nothing() {
    for restarts in [true, false] {
        let mut runtime = TestRuntime::new();
        let [a, b, top] = ["a", "b", "top"].map(|name| runtime.service(name));
        supervise_turned(&mut runtime, a, [vec![], vec![]], ms(10));
        supervise_turned(&mut runtime, b, [vec![a], vec![]], ms(10));
        supervise_turned(&mut runtime, top, [vec![b], vec![b]], ms(50));
        runtime.run_until_idle();
        let wait = match restarts {
            true => runtime.registry.restart(a, "edited"),
            false => runtime.registry.stop(a),
        };
        let ended = start(&mut runtime, wait);
        runtime.advance(ms(10));
        // The next instance of `b` does without `a`.
        runtime.registry.fail(b, "to do without a").unwrap();
        runtime.advance(ms(10));
        assert!(runtime.registry.status(b).unwrap().dependencies.is_empty());
        assert_eq!([a, b].map(|id| runtime.get(id)), [Some(1), Some(2)]);
        // The operation was begun for `b`, too: it ends with it.
        runtime.advance(ms(50));
        let mut order = stopped(&ended);
        let at = |name: &str| order.iter().position(|stopped| stopped == name).unwrap();
        assert!(at("top") < at("b"), "{order:?}");
        order.sort();
        assert_eq!(order, ["a", "b", "top"]);
        runtime.run_until_idle();
        let values = [a, b, top].map(|id| runtime.get(id));
        let a_after = if restarts { Some(2) } else { None };
        assert_eq!(values, [a_after, Some(3), Some(2)]);
    }
}
