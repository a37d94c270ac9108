//! Programs: `Program::run` and `run_blocking`, in this process.
//!
//! - A program starts its supervisors on every executor, and ends by a stop condition, a request, a
//!   close or the end of a supervisor: all services are stopped, and all supervisors have ended.
//! - A supervisor that panics, is dropped or returns early ends the program, and is in the outcome
//!   with its text.
//! - A start that fails stops what it has started.
//! - A program ends also if a body, a builder or a supervisor does not.
//! - User code that panics harms no other part.

use std::{
    error::Error,
    future::pending,
    sync::{
        Arc, Mutex,
        mpsc::{self, Sender},
    },
    task::Poll,
    thread,
    time::Duration,
};

use crate::support::{LONG, MOMENT, must_finish, poll_once, registry_of, until};
use mainstay::{
    Registry, ServiceId,
    error::{GetError, WaitForError},
    program::{EndCause, Program, ProgramOutcome, ProgramStart, SupervisorEnd, Task},
    supervise::{RestartPolicy, ShutdownOptions, SupervisorState},
};

type BoxError = Box<dyn Error + Send + Sync>;

fn ends(outcome: &ProgramOutcome) -> Vec<(&str, SupervisorEnd)> {
    let supervisors = outcome.supervisors.iter();
    supervisors.map(|report| (&*report.service, report.end.clone())).collect()
}

fn stopped(outcome: &ProgramOutcome) -> Vec<&str> {
    outcome.report.stopped.iter().map(|stopped| &*stopped.service).collect()
}

/// A program that runs forever if nothing ends it, with limits that are never reached.
fn program(registry: &Registry) -> Program {
    Program::on_threads(registry).shutdown(LONG).join_timeout(LONG)
}

/// Completes when the service is ready.
fn when_ready(
    registry: &Registry,
    id: ServiceId<u32>,
) -> impl Future<Output = &'static str> + Send + 'static {
    let ready = registry.wait_ready(id);
    async move { ready.await.map_or("not ready", |_| "a signal") }
}

/// Spawns a supervisor of each kind; `b` is built from `a`.
fn start(
    start: &mut ProgramStart,
    registry: &Registry,
    [a, b]: [ServiceId<u32>; 2],
) -> Result<(), BoxError> {
    start.spawn(registry.supervise(b)?, |it| {
        it.run(async move |build| Ok::<_, WaitForError>(**build.wait_for(a).await? + 1))
    })?;
    start.spawn_blocking(registry.supervise(a)?, |it| it.run_blocking(|_| 1))?;
    Ok(())
}

fn assert_ended_in_order(outcome: &ProgramOutcome, registry: &Registry) {
    assert_eq!(ends(outcome), [("b", SupervisorEnd::Returned), ("a", SupervisorEnd::Returned)]);
    assert_eq!(stopped(outcome), ["b", "a"]);
    assert_eq!(outcome.exit_code(), 0, "{outcome}");
    assert_eq!(outcome.to_string(), "a signal; 2 services stopped in time");
    assert_eq!(registry.shutdown_reason().as_deref(), Some("a signal"));
    assert!(registry.is_closed());
}

#[test]
fn a_program_on_threads_ends_in_order() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let program = program(&registry).stop_when(when_ready(&registry, ids[1]));
    let outcome = program.run_blocking(|it| start(it, &registry, ids));
    assert_ended_in_order(&outcome, &registry);

    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let program = self::program(&registry).stop_when(when_ready(&registry, ids[1]));
    let outcome = pollster::block_on(program.run(|it| start(it, &registry, ids)));
    assert_ended_in_order(&outcome, &registry);
}

#[cfg(feature = "tokio")]
#[test]
fn a_program_on_tokio_ends_in_order() {
    let runtimes = [
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap(),
        tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap(),
    ];
    for runtime in runtimes {
        let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
        let program = Program::on_tokio(&registry, runtime.handle().clone()).join_timeout(LONG);
        let program = program.stop_when(when_ready(&registry, ids[1]));
        let outcome = runtime.block_on(program.run(|it| start(it, &registry, ids)));
        assert_ended_in_order(&outcome, &registry);
    }
}

#[cfg(feature = "smol")]
#[test]
fn a_program_on_smol_ends_in_order() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let program = Program::on_smol(&registry).join_timeout(LONG);
    let program = program.stop_when(when_ready(&registry, ids[1]));
    let outcome = program.run_blocking(|it| start(it, &registry, ids));
    assert_ended_in_order(&outcome, &registry);
}

#[test]
fn a_program_on_any_executor_ends_in_order() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let executor = Arc::new(smol::Executor::new());
    let spawner = Arc::clone(&executor);
    let program = Program::with_spawner(&registry, move |task| spawner.spawn(task).detach());
    let program = program.join_timeout(LONG).stop_when(when_ready(&registry, ids[1]));
    let run = program.run(|it| start(it, &registry, ids));
    assert_ended_in_order(&smol::block_on(executor.run(run)), &registry);
}

#[test]
fn a_program_ends_by_a_request_or_a_close_from_anywhere() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let outcome = program(&registry).run_blocking(|start| {
        let body = registry.supervise(a)?.body({
            let registry = registry.clone();
            async move |live| {
                registry.request_shutdown("the licence has expired");
                let _ = live.stopping().await;
            }
        });
        start.spawn(body, |it| it.run(async |_| 1))?;
        Ok::<_, BoxError>(())
    });
    assert_eq!(outcome.to_string(), "the licence has expired; 1 service stopped in time");
    assert_eq!((outcome.exit_code(), stopped(&outcome)), (0, vec!["a"]));

    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let outcome = program(&registry).run_blocking(|it| {
        start(it, &registry, ids)?;
        registry.wait_all_ready().wait_blocking_timeout(LONG)?;
        registry.close();
        Ok::<_, BoxError>(())
    });
    assert_eq!(outcome.cause.to_string(), "the registry is closed");
    assert_eq!((outcome.exit_code(), outcome.supervisors.len()), (0, 2), "{outcome}");
    assert!(outcome.report.stop_timeouts.is_empty(), "{outcome}");
}

#[test]
fn a_supervisor_that_panics_ends_the_program_and_its_text_is_not_lost() {
    for blocking in [false, true] {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        let outcome = program(&registry).run_blocking(|start| {
            start.spawn(registry.supervise(a)?, |it| it.run(async |_| 1))?;
            registry.wait_ready(a).wait_blocking_timeout(LONG)?;
            let supervisor = registry.supervise(b)?;
            if blocking {
                start.spawn_blocking(supervisor, |_| panic!("the clock of {}", "b"))?;
            } else {
                start.spawn(supervisor, |_| async { panic!("the clock of {}", "b") })?;
            }
            Ok::<_, BoxError>(())
        });
        let panicked = SupervisorEnd::Panicked { message: "the clock of b".into() };
        assert_eq!(ends(&outcome), [("a", SupervisorEnd::Returned), ("b", panicked.clone())]);
        let EndCause::SupervisorEnded { service, end } = &outcome.cause else {
            panic!("{outcome}")
        };
        assert_eq!((&**service, end), ("b", &panicked));
        assert!(stopped(&outcome).contains(&"a"), "{outcome}");
        assert_eq!(outcome.exit_code(), 101);
        let text = outcome.to_string();
        assert!(text.starts_with("the supervisor of b panicked: the clock of b; "), "{text}");
        assert_eq!(text.matches("the clock of b").count(), 1, "{text}");
    }
}

#[test]
fn a_program_that_continues_reports_the_panic_at_its_end() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let (send, panicked) = mpsc::channel::<()>();
    let program = program(&registry).continue_without();
    let request = registry.clone();
    let thread = thread::spawn(move || {
        // The sender is dropped by the panic.
        assert!(panicked.recv_timeout(LONG).is_err());
        request.request_shutdown("later");
    });
    let outcome = program.run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |_| async move {
            let _send = send;
            panic!("early")
        })?;
        Ok::<_, BoxError>(())
    });
    thread.join().unwrap();
    assert_eq!(outcome.cause, EndCause::Requested { reason: "later".into() });
    assert_eq!(ends(&outcome), [("a", SupervisorEnd::Panicked { message: "early".into() })]);
    assert_eq!(outcome.exit_code(), 101);
    assert!(outcome.to_string().contains("; the supervisor of a panicked: early"), "{outcome}");
}

#[test]
fn a_supervisor_that_returns_early_or_is_dropped_ends_the_program() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let outcome = program(&registry).run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |it| async move { drop(it) })?;
        Ok::<_, BoxError>(())
    });
    assert_eq!(outcome.exit_code(), 1);
    assert_eq!(outcome.cause.to_string(), "the supervisor of a returned");

    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let outcome = Program::with_spawner(&registry, drop::<Task>).run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |it| it.run(async |_| 1))?;
        Ok::<_, BoxError>(())
    });
    assert_eq!(outcome.exit_code(), 1);
    assert_eq!(ends(&outcome), [("a", SupervisorEnd::Dropped)]);
    assert_eq!(outcome.cause.to_string(), "the supervisor of a was dropped");
}

#[test]
fn a_start_that_fails_stops_what_it_has_started() {
    for panics in [false, true] {
        let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
        let outcome = program(&registry).run_blocking(|it| {
            start(it, &registry, ids)?;
            registry.wait_all_ready().wait_blocking_timeout(LONG)?;
            assert!(!panics, "no {}", "licence");
            Err::<(), BoxError>(registry.supervise(ids[0]).unwrap_err().into())
        });
        assert_eq!(stopped(&outcome), ["b", "a"]);
        assert_eq!(ends(&outcome).len(), 2);
        assert!(ends(&outcome).iter().all(|(_, end)| *end == SupervisorEnd::Returned));
        assert_eq!(outcome.exit_code(), 1);
        let text = outcome.to_string();
        let why = if panics { "panicked: no licence" } else { "a already has a provider" };
        assert!(text.starts_with(&format!("the start has failed: {why}")), "{text}");
        assert!(registry.is_closed());
    }
}

#[test]
fn services_that_are_not_ready_in_time_end_the_program() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let outcome = program(&registry).start_timeout(MOMENT).run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |it| it.run(async |_| 1))?;
        start.spawn(registry.supervise(b)?, |it| it.run(async |_| Err::<u32, _>("no database")))?;
        until("b fails", || registry.status(b).unwrap().last_failure.is_some());
        Ok::<_, BoxError>(())
    });
    assert_eq!(outcome.exit_code(), 1);
    let text = outcome.cause.to_string();
    assert!(text.starts_with("the start has failed: ") && text.contains("no database"), "{text}");

    // Once they have been ready, the timeout has no effect.
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let program = program(&registry).start_timeout(LONG).stop_when(when_ready(&registry, ids[1]));
    assert_ended_in_order(&program.run_blocking(|it| start(it, &registry, ids)), &registry);
}

#[test]
fn a_start_that_cannot_succeed_ends_before_its_timeout() {
    // `a` gives up, and `b` is not started.
    for gives_up in [false, true] {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        let outcome = program(&registry).start_timeout(LONG * 60).run_blocking(|start| {
            let policy = RestartPolicy::default().max_failures(0, LONG);
            let fails = registry.supervise(a)?.restart_policy(policy);
            start.spawn(fails, |it| {
                it.run(async move |_| if gives_up { Err("no database") } else { Ok(1) })
            })?;
            if gives_up {
                start.spawn(registry.supervise(b)?, |it| it.run(async |_| 1))?;
            }
            Ok::<_, BoxError>(())
        });
        assert_eq!(outcome.exit_code(), 1);
        let text = outcome.cause.to_string();
        let why = if gives_up { "a: given up" } else { "b: no provider" };
        assert!(text.starts_with("the start has failed: ") && text.contains(why), "{text}");
    }
}

#[test]
fn an_optional_service_does_not_delay_the_start() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    registry.set_optional([b]).unwrap();
    let program = program(&registry).start_timeout(LONG).stop_when(when_ready(&registry, a));
    let outcome = program.run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |it| it.run(async |_| 1))?;
        Ok::<_, BoxError>(())
    });
    assert!(outcome.is_success(), "{outcome}");
}

#[test]
fn a_supervisor_that_is_never_run_is_named_by_the_status_and_the_outcome() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let tasks = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&tasks);
    let program = Program::with_spawner(&registry, move |task| keep.lock().unwrap().push(task));
    let program = program.shutdown(LONG).join_timeout(MOMENT);
    let outcome = program.run_blocking(|start| {
        start.spawn(registry.supervise(a)?, |it| it.run(async |_| 1))?;
        let status = registry.status(a)?.supervisor.unwrap();
        assert_eq!(status.state, SupervisorState::NotRunning);
        registry.request_shutdown("a test");
        Ok::<_, BoxError>(())
    });
    assert_eq!(ends(&outcome), [("a", SupervisorEnd::Running)]);
    assert_eq!(outcome.exit_code(), 124);
    let text = outcome.to_string();
    assert!(text.ends_with("; the supervisor of a still running"), "{text}");
    drop(tasks);
}

#[test]
fn a_body_that_does_not_return_is_named_and_does_not_delay_the_end() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    let program = Program::on_threads(&registry).shutdown(MOMENT).join_timeout(LONG);
    let outcome = program.run_blocking(|start| {
        let policy = RestartPolicy::default().stop_timeout(LONG);
        let stubborn =
            registry.supervise(a)?.restart_policy(policy).exclusive_body_blocking(move |_| {
                let _ = started.send(());
                let _ = released.recv_timeout(LONG);
            });
        start.spawn(stubborn, |it| it.run(async |_| 1))?;
        start.spawn(registry.supervise(b)?, |it| it.run(async |_| 1))?;
        has_started.recv_timeout(LONG)?;
        registry.wait_all_ready().wait_blocking_timeout(LONG)?;
        registry.request_shutdown("a test");
        Ok::<_, BoxError>(())
    });
    // The limit may be over before `b` has stopped, too.
    let late = &outcome.report.stop_timeouts;
    assert!(late.iter().any(|late| late.service == "a"), "{outcome}");
    assert_eq!(outcome.exit_code(), 124);
    assert!(outcome.to_string().starts_with("a test; not stopped in time: "), "{outcome}");
    drop(release);
}

#[test]
fn a_builder_that_does_not_return_is_left_running() {
    for in_async in [false, true] {
        let (registry, [a]) = registry_of::<u32, 1>(["a"]);
        let (release, released) = mpsc::channel::<()>();
        let (started, has_started): (Sender<()>, _) = mpsc::channel();
        let program = Program::on_threads(&registry).shutdown(MOMENT).join_timeout(MOMENT);
        let start = |start: &mut ProgramStart| {
            start.spawn_blocking(registry.supervise(a)?, move |it| {
                it.run_blocking(|_| {
                    let _ = started.send(());
                    let _ = released.recv_timeout(LONG);
                    1
                });
            })?;
            has_started.recv_timeout(LONG)?;
            registry.request_shutdown("a test");
            Ok::<_, BoxError>(())
        };
        let outcome = match in_async {
            true => pollster::block_on(program.run(start)),
            false => program.run_blocking(start),
        };
        assert_eq!(ends(&outcome), [("a", SupervisorEnd::Running)]);
        assert_eq!(outcome.exit_code(), 124);
        drop(release);
    }
}

#[test]
fn a_run_that_is_dropped_closes_the_registry() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    {
        let mut run = Box::pin(program(&registry).run(|it| start(it, &registry, ids)));
        assert!(matches!(poll_once(&mut run), Poll::Pending));
        registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
        assert!(!registry.is_closed());
    }
    assert!(registry.is_closed());
    until("the supervisors end", || {
        ids.iter().all(|&id| matches!(registry.get(id), Err(GetError::NotReady { .. })))
    });

    // One that was never polled has started nothing.
    let registry = Registry::with_capacity(1).unwrap();
    drop(program(&registry).run(|_| Ok::<_, BoxError>(())));
    drop(program(&registry));
    assert!(!registry.is_closed());
}

#[test]
fn the_end_of_a_supervisor_is_that_of_all_that_it_owns() {
    struct PanicsInDrop(Arc<()>);

    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            assert_eq!(Arc::strong_count(&self.0), 0, "in a drop");
        }
    }

    let owned = Arc::new(());
    for blocking in [false, true] {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        let (of_a, of_b) = (Arc::clone(&owned), PanicsInDrop(Arc::clone(&owned)));
        let outcome = program(&registry).run_blocking(|start| {
            let supervisor = registry.supervise(a)?;
            let builder = move |_: &_| Arc::strong_count(&of_a) as u32;
            start.spawn_blocking(supervisor, move |it| it.run_blocking(builder))?;
            let supervisor = registry.supervise(b)?;
            if blocking {
                start.spawn_blocking(supervisor, move |it| {
                    let _of_b = of_b;
                    it.run_blocking(|_| 1);
                })?;
            } else {
                start.spawn(supervisor, move |it| async move {
                    it.run(async |_| 1).await;
                    let _of_b = of_b;
                })?;
            }
            registry.wait_all_ready().wait_blocking_timeout(LONG)?;
            registry.request_shutdown("a test");
            Ok::<_, BoxError>(())
        });
        assert_eq!(Arc::strong_count(&owned), 1, "{outcome}");
        assert_eq!(ends(&outcome)[0], ("a", SupervisorEnd::Returned));
        assert!(matches!(ends(&outcome)[1].1, SupervisorEnd::Panicked { .. }), "{outcome}");
    }
}

#[test]
fn a_stop_condition_that_panics_ends_the_program() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let ready = registry.wait_ready(ids[1]);
    let program = program(&registry).stop_when(pending::<String>()).stop_when(async {
        ready.await.expect("it becomes ready");
        "SIGTERM".parse::<u16>().expect("a number").to_string()
    });
    let outcome = program.run_blocking(|it| start(it, &registry, ids));
    let text = outcome.cause.to_string();
    assert!(text.starts_with("a stop condition panicked: a number: ParseIntError"), "{text}");
    assert_eq!((outcome.exit_code(), stopped(&outcome)), (101, vec!["b", "a"]));
}

#[test]
fn a_supervisor_of_another_registry_is_refused() {
    let (registry, []) = registry_of::<u32, 0>([]);
    let (other, [a]) = registry_of::<u32, 1>(["a"]);
    let outcome = program(&registry)
        .run_blocking(|start| start.spawn(other.supervise(a).unwrap(), |it| it.run(async |_| 1)));
    assert!(outcome.supervisors.is_empty());
    let text = outcome.cause.to_string();
    assert!(text.contains("does not belong to this registry"), "{text}");
    assert!(other.supervise(a).is_ok(), "it was dropped");
}

#[test]
fn the_first_request_is_the_reason_and_the_notice_is_given() {
    let (registry, ids) = registry_of::<u32, 2>(["a", "b"]);
    let options = ShutdownOptions::within(LONG).notice(MOMENT).reason("not this one");
    let requested = registry.shutdown_requested();
    let reader = registry.clone();
    let during_notice = thread::spawn(move || {
        let reason = requested.wait_blocking_timeout(LONG).unwrap();
        (reason, reader.is_closed())
    });
    let program = Program::on_threads(&registry).shutdown(options);
    let program = program.stop_when(when_ready(&registry, ids[1]));
    let outcome = must_finish("the program", {
        let registry = registry.clone();
        move || program.run_blocking(|it| start(it, &registry, ids))
    });
    assert_ended_in_order(&outcome, &registry);
    let (reason, _) = during_notice.join().unwrap();
    assert_eq!(&*reason, "a signal");
}

#[test]
fn a_run_is_send_and_an_outcome_is_plain_data() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    fn is_data<T: Send + Sync + Clone + Eq + 'static>(_: &T) {}

    let registry = Registry::with_capacity(1).unwrap();
    registry.request_shutdown("a test");
    let run = is_send(program(&registry).run(|_| Ok::<_, BoxError>(())));
    let outcome = pollster::block_on(run);
    is_data(&outcome);
    assert_eq!(outcome.clone(), outcome);
    let debug = format!("{:?}", Program::on_threads(&registry).join_timeout(Duration::ZERO));
    assert!(debug.starts_with("Program { registry: Registry"), "{debug}");
}
