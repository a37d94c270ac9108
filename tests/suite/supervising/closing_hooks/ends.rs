//! Close hooks at a planned end, at the drop of their supervisor, and at the close of the registry.

use super::*;

#[test]
fn a_shutdown_waits_for_the_close_hooks_of_all_generations() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(1_000)).await;
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    let held = runtime.registry.get_arc(id).unwrap();
    for _ in 0..2 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(300));
    }
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(state(&runtime, id), SupervisorState::BackingOff);
    let report = shut_down(&mut runtime);
    assert_eq!(state(&runtime, id), SupervisorState::Draining);
    runtime.advance(ms(500));
    drop(held);
    runtime.advance(ms(2_999));
    assert_eq!(state(&runtime, id), SupervisorState::Closing);
    assert!(report.lock().unwrap().is_none() && log.take().len() == 2);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["3 (2.0) owned: a failed"]);
    let report = report.lock().unwrap().take().unwrap();
    assert_eq!(report.to_string(), "1 service stopped in time");
    let closes = report.stopped[0].closes.iter();
    let closes: Vec<_> = closes.map(|close| (close.generation.get(), close.took)).collect();
    assert_eq!(closes, [0, 1, 2].map(|generation| (generation, ms(1_000))));
}

#[test]
fn a_restart_and_a_stop_wait_for_the_close_hook() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(1_000)).await;
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    let ended = Arc::new(Mutex::new(Vec::new()));
    for (n, state_after) in [SupervisorState::Up, SupervisorState::Stopped].into_iter().enumerate()
    {
        let (wait, note) = (
            match n {
                0 => runtime.registry.restart(id, "a new certificate"),
                _ => runtime.registry.stop(id),
            },
            Arc::clone(&ended),
        );
        runtime.spawn(async move {
            let result = wait.await.is_ok();
            note.lock().unwrap().push(result);
        });
        runtime.advance(ms(999));
        assert_eq!(state(&runtime, id), SupervisorState::Closing);
        assert!(runtime.registry.get(id).is_err() && ended.lock().unwrap().len() == n);
        runtime.advance(ms(1));
        assert_eq!(state(&runtime, id), state_after);
        assert_eq!(ended.lock().unwrap().len(), n + 1);
        let closed = log.take();
        assert!(closed.len() == 1 && closed[0].contains("owned"), "{closed:?}");
        assert!(closed[0].contains(["restarted", "stopped"][n]), "{closed:?}");
    }
    runtime.registry.close();
    runtime.run_until_idle();
}

#[test]
fn the_report_of_a_shutdown_names_what_was_late() {
    let (mut runtime, id, log) = runtime();
    let policy = exact().stop_timeout(ms(100)).drain_timeout(ms(100)).close_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor =
        supervisor.body(async |_| pending::<()>().await).on_close(async |_| pending::<()>().await);
    start!(runtime, supervisor, log);
    let held = runtime.registry.get_arc(id).unwrap();
    let report = shut_down(&mut runtime);
    assert_eq!(runtime.registry.get(id).map(|a| a.number).ok(), Some(1));
    runtime.advance(ms(100));
    assert_eq!(state(&runtime, id), SupervisorState::Draining);
    runtime.advance(ms(100));
    assert_eq!(state(&runtime, id), SupervisorState::Closing);
    runtime.advance(ms(100));
    let report = report.lock().unwrap().take().unwrap();
    let late = &report.stop_timeouts[0];
    assert_eq!(
        late.body.as_ref().map(|body| (body.took, &body.end)),
        Some((ms(100), &WorkEnd::Late))
    );
    let said = report.to_string();
    assert!(said.starts_with("not stopped in time: a (closing, holders: "), "{said}");
    assert!(said.contains("its body did not return in time"), "{said}");
    drop(held);
    assert_eq!(log.take(), ["1 dropped"]);
}

#[test]
fn a_dropped_supervisor_drops_the_values_without_the_close_hook() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let closes = log.clone();
    let supervisor = supervisor.on_close(async move |closing: Closing<Value>| {
        closes.note(format!("{} begins", closing.number));
        pending::<()>().await
    });
    start!(runtime, supervisor, log);
    for _ in 0..2 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
    }
    let held = runtime.registry.get_arc(id).unwrap();
    assert_eq!(log.take(), ["1 begins"]);
    drop(runtime.tasks.remove(0));
    let mut dropped = log.take();
    dropped.sort_unstable();
    assert_eq!(dropped, ["1 dropped", "2 dropped"]);
    drop(held);
    assert_eq!(log.take(), ["3 dropped"]);
}

#[test]
fn close_drops_the_values_without_the_close_hook() {
    let (mut runtime, id, log) = logged(at_once());
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
    assert_eq!(log.take(), ["1 dropped"]);
    assert!(runtime.registry.get(id).is_err());
}

/// S4: in a shutdown the dependency of a service whose supervisor is dropped stops after the drop
/// of the values.
#[test]
fn a_supervisor_that_is_dropped_at_its_turn_drops_its_values_before_its_dependency_stops() {
    let (mut runtime, id, log) = runtime();
    let below = runtime.registry.register::<u32>("below").unwrap();
    let (provider, running) = up(&runtime.registry, below, 1);
    runtime.registry.depends(id).on(below).unwrap();
    struct Needs(Registry, ServiceId<u32>, Log);
    impl Drop for Needs {
        fn drop(&mut self) {
            self.2.note(format!("dropped, below is up: {}", self.0.get(self.1).is_ok()));
        }
    }
    let needing = runtime.registry.register::<Needs>("needing").unwrap();
    runtime.registry.depends(needing).on(below).unwrap();
    let supervisor = runtime.registry.supervise(needing).unwrap().restart_policy(at_once());
    let supervisor = supervisor.on_close(async |_| pending::<()>().await);
    let (registry, values) = (runtime.registry.clone(), log.clone());
    runtime.spawn(supervisor.run(async move |_| Needs(registry.clone(), below, values.clone())));
    runtime.run_until_idle();
    runtime.registry.fail(needing, "moved").unwrap();
    runtime.run_until_idle();
    let report = shut_down(&mut runtime);
    drop(runtime.tasks.remove(0));
    runtime.run_until_idle();
    assert!(report.lock().unwrap().is_some());
    assert_eq!(log.take(), ["dropped, below is up: true"; 2]);
    drop((provider, running));
}
