//! Close hooks and values that panic, call the registry, or leave their `Arc`; every form of a
//! close hook; many values.

use super::*;

#[test]
fn an_instance_that_has_left_its_arc_delays_the_others_for_a_limited_time() {
    for lets_go in [true, false] {
        let (mut runtime, id, log) = logged(at_once().close_timeout(ms(500)));
        let held = runtime.registry.get_arc(id).unwrap();
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
        let moved: Instance<Value> = Arc::into_inner(held).expect("the last reference");
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(10_499));
        assert_eq!(log.take(), [""; 0]);
        if lets_go {
            drop(moved);
            runtime.run_until_idle();
            assert_eq!(log.take(), ["1 (0.0) owned: a failed", "2 (1.0) owned: a failed"]);
            continue;
        }
        runtime.advance(ms(1));
        assert_eq!(log.take(), ["2 (1.0) owned: a failed"]);
        let lines = runtime.recorder.take();
        assert!(lines.contains(&"a 0: its close hook failed: not closed within 500ms".to_owned()));
        drop(moved);
        assert_eq!(log.take(), ["1 dropped"]);
    }
}

#[test]
fn the_drop_of_a_value_in_a_close_hook_may_panic() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().drain_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async |closing: Closing<Value>| {
        // By the handle, by the caller, and while a panic unwinds.
        match closing.number {
            1 => {}
            2 => drop(Closing::into_value(closing)),
            _ => panic!("{}", closing.number),
        }
    });
    let (values, mut builds) = (log.clone(), 0);
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        Value { number: builds, log: values.clone(), panics: true }
    }));
    runtime.run_until_idle();
    for number in 1..=3 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
        assert_eq!(log.take(), [format!("{number} dropped")]);
        assert!(runtime.registry.get(id).is_ok());
    }
}

#[test]
fn a_close_hook_may_call_the_registry() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (registry, closes) = (runtime.registry.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        let number = closing.number;
        if number < 5 {
            registry.fail(id, "again").unwrap();
        }
        if number == 5 {
            registry.request_shutdown("five");
            registry.close();
        }
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
    let closed = log.take();
    assert!(closed[4].starts_with("5 (4.0) owned"), "{closed:?}");
}

/// What the bounds accept: an async closure that borrows what it has captured, a closure that
/// returns a future, a function, every output, and either order of the calls.
#[test]
fn close_hooks_of_every_form_run_on_every_thread() {
    fn is_send<F: Future + Send + 'static>(future: F) -> F {
        future
    }
    async fn function(_: Closing<u32>) -> Result<(), std::io::Error> {
        Ok(())
    }
    let (registry, [a, b, c]) = registry_of::<u32, 3>(["a", "b", "c"]);
    let (calls, mut text) = (Arc::new(AtomicUsize::new(0)), String::new());
    let counted = Arc::clone(&calls);
    let supervisor = registry.supervise(a).unwrap().on_close(async move |closing| {
        let text = &mut text;
        text.push_str("closed ");
        std::future::ready(()).await;
        assert!(text.len() >= Closing::into_value(closing).unwrap() as usize);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut first = Box::pin(is_send(
        supervisor.body(async |live| drop(live.stopping().await)).run(async |_| 7),
    ));
    let counted = Arc::clone(&calls);
    let supervisor = registry.supervise(b).unwrap();
    let supervisor = supervisor.on_close(move |closing: Closing<u32>| {
        let counted = Arc::clone(&counted);
        async move {
            drop(closing);
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, String>(())
        }
    });
    let thread = thread::spawn(|| {
        supervisor
            .body_blocking(|live: Live<u32>| {
                let _ = live.stopping().wait_blocking();
            })
            .run_blocking(|_| 8)
    });
    let third = is_send(registry.supervise(c).unwrap().on_close(function).run(async |_| 9));
    let mut third = Box::pin(third);
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut third).is_pending());
    registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
    let tasks = thread::spawn(move || {
        pollster::block_on(async move { futures_lite::future::zip(first, third).await })
    });
    let report = registry.shutdown_blocking(LONG);
    assert_eq!(report.to_string(), "3 services stopped in time");
    tasks.join().unwrap();
    thread.join().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn many_values_that_readers_hold_are_closed_in_order() {
    const MANY: u32 = 20_000;
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (lives, closed) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let (give, note) = (Arc::clone(&lives), Arc::clone(&closed));
    let supervisor = supervisor
        .body(async move |live: Live<Value>| {
            *give.lock().unwrap() = Some(live.clone());
            live.stopping().await.map(drop)
        })
        .on_close(async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.number, Closing::holders(&closing)));
        });
    start!(runtime, supervisor, log);
    let live = lives.lock().unwrap().clone().unwrap();
    let mut held = Vec::new();
    for number in 2..=MANY {
        held.push(runtime.registry.get_arc(id).unwrap());
        live.replace(log.value(number)).ok().unwrap();
        // Each has a limit of its own.
        runtime.clock.advance(Duration::from_micros(1));
        if number % 100 == 0 {
            runtime.run_until_idle();
        }
    }
    runtime.advance(ms(10_000));
    let closed = mem::take(&mut *closed.lock().unwrap());
    assert_eq!(closed, (1..MANY).map(|number| (number, 1)).collect::<Vec<_>>());
    drop(held);
    until("all but one are dropped", || log.0.lock().unwrap().len() == MANY as usize - 1);
}
