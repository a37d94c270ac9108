//! What builders and bodies may be, may return and may do.
//!
//! - Async closures that borrow what they have captured, functions, and closures that return a
//!   future, of which the compiler knows that they are `Send`. Blocking ones: closures and
//!   functions.
//! - A builder returns a value, a result with any error that converts into a `Box<dyn Error>`, or
//!   one of both as `Completed`. A builder that cannot fail needs no error type.
//! - A `Live` is `Send` and `'static`, and keeps no value alive.
//! - Builders and bodies may request a shutdown.

use std::{
    future::{Future, ready},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::runtime::{LiveCount, TestRuntime, exact, ms};
use crate::support::{LONG, poll_once, registry_of};
use mainstay::{
    Registry, ServiceId,
    error::WaitForError,
    supervise::{BodyEnd, Build, Completed, Live, StopReason, Supervisor, SupervisorState},
};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The compiler checks here that the future is `Send` and `'static`.
fn task(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(future)
}

async fn plain_function(build: Build<u32>) -> u32 {
    ready(build.number()).await
}

async fn function(_: Build<u32>) -> Result<u32, io::Error> {
    Ok(1)
}

fn blocking_function(_: &Build<u32>) -> Result<u32, io::Error> {
    Ok(1)
}

async fn body_function(live: Live<u32>) -> anyhow::Result<()> {
    live.stopping().await?;
    Ok(())
}

fn blocking_body_function(live: Live<u32>) -> anyhow::Result<()> {
    live.stopping().wait_blocking()?;
    Ok(())
}

fn of_text(text: &str) -> Result<u32, std::num::ParseIntError> {
    text.parse()
}

#[test]
fn builders_of_every_form_build() {
    type Run = fn(Supervisor<u32>) -> Task;
    let forms: [(&str, SupervisorState, Run); 14] = [
        ("a value", SupervisorState::Up, |it| task(it.run(async |_| 1))),
        ("a value of a future", SupervisorState::Up, |it| task(it.run(|_| ready(1)))),
        ("a function", SupervisorState::Up, |it| task(it.run(plain_function))),
        ("a function that may fail", SupervisorState::Up, |it| task(it.run(function))),
        ("a typed closure", SupervisorState::Up, |it| {
            task(it.run(|build: Build<u32>| async move { build.number() }))
        }),
        ("a closure that borrows across an await", SupervisorState::Up, |it| {
            let (mut builds, name) = (0, String::from("a"));
            task(it.run(async move |build| {
                let (builds, name) = (&mut builds, &name);
                ready(()).await;
                *builds += name.len();
                u32::try_from(*builds).map_err(|error| format!("{error}: {build:?}"))
            }))
        }),
        ("an error of `?`", SupervisorState::Up, |it| {
            task(it.run(async |_| of_text("1").map_err(io::Error::other)))
        }),
        ("an error without a type of its own", SupervisorState::Up, |it| {
            task(it.run(async |_| of_text("1")))
        }),
        ("anyhow", SupervisorState::Up, |it| {
            task(it.run(async |_| -> anyhow::Result<u32> { Ok(of_text("1")?) }))
        }),
        ("eyre", SupervisorState::Up, |it| {
            task(it.run(async |_| -> eyre::Result<u32> { Ok(of_text("1")?) }))
        }),
        ("a text as the error", SupervisorState::Up, |it| {
            task(it.run(async |_| Ok::<u32, &str>(1)))
        }),
        ("a boxed error", SupervisorState::Up, |it| {
            let error = |error| -> Box<dyn std::error::Error + Send + Sync> { error };
            task(it.run(async move |_| of_text("1").map_err(Into::into).map_err(error)))
        }),
        ("a completed value", SupervisorState::Completed, |it| {
            task(it.run(async |_| Completed(1)))
        }),
        ("a completed result", SupervisorState::Completed, |it| {
            task(it.run(async |_| Completed(of_text("1"))))
        }),
    ];
    for (form, state, run) in forms {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let supervisor = runtime.registry.supervise(id).unwrap();
        runtime.spawn(run(supervisor));
        runtime.run_until_idle();
        assert_eq!((runtime.get(id), runtime.state(id)), (Some(1), state), "{form}");
        // Each can be called again.
        runtime.registry.fail(id, "edited").unwrap();
        runtime.advance(ms(1_000));
        assert_eq!((runtime.get(id).is_some(), runtime.state(id)), (true, state), "{form}");
    }
}

#[test]
fn blocking_builders_of_every_form_build() {
    type Run = fn(Supervisor<u32>);
    let forms: [(&str, SupervisorState, Run); 7] = [
        ("a value", SupervisorState::Up, |it| it.run_blocking(|_| 1)),
        ("a function", SupervisorState::Up, |it| it.run_blocking(blocking_function)),
        ("a closure that borrows", SupervisorState::Up, |it| {
            let (mut builds, name) = (0, String::from("a"));
            it.run_blocking(|_| {
                builds += name.len();
                u32::try_from(builds)
            });
        }),
        ("an error of the caller", SupervisorState::Up, |it| it.run_blocking(|_| of_text("1"))),
        ("anyhow", SupervisorState::Up, |it| {
            it.run_blocking(|_| -> anyhow::Result<u32> { Ok(of_text("1")?) })
        }),
        ("a completed value", SupervisorState::Completed, |it| it.run_blocking(|_| Completed(1))),
        ("a completed result", SupervisorState::Completed, |it| {
            it.run_blocking(|_| Completed(of_text("1")))
        }),
    ];
    for (form, state, run) in forms {
        let (registry, [id]) = registry_of::<u32, 1>(["a"]);
        let supervisor = registry.supervise(id).unwrap();
        let thread = thread::spawn(move || run(supervisor));
        let value = registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
        assert_eq!(**value, 1, "{form}");
        let status = || registry.status(id).unwrap().supervisor.unwrap().state;
        crate::support::until(form, || status() == state);
        registry.close();
        thread.join().unwrap();
    }
}

#[test]
fn bodies_of_every_form_run() {
    type Run = fn(Supervisor<u32>, Registry) -> Task;
    // A body that returns before its instance has ended says what becomes of it.
    let forms: [(&str, SupervisorState, Run); 9] = [
        ("a closure that returns nothing", SupervisorState::Up, |it, _| {
            task(it.body(async |live| drop(live.stopping().await)).run(async |_| 1))
        }),
        ("a function", SupervisorState::Up, |it, _| task(it.body(body_function).run(async |_| 1))),
        ("a typed closure", SupervisorState::Up, |it, _| {
            let body = |live: Live<u32>| async move { live.stopping().await.map(drop) };
            task(it.body(body).run(async |_| 1))
        }),
        ("a closure that borrows across an await", SupervisorState::Up, |it, registry| {
            let mut bodies = 0;
            let body = async move |live: Live<u32>| {
                let bodies = &mut bodies;
                *bodies += 1;
                live.stopping().await.map_err(|error| error.to_string())?;
                assert!(!registry.is_closed() && *bodies > 0);
                Ok::<_, String>(())
            };
            task(it.exclusive_body(body).run(async |_| 1))
        }),
        ("one that stays ready", SupervisorState::Up, |it, _| {
            task(it.body(async |_| BodyEnd::StayReady).run(async |_| 1))
        }),
        ("one that completes", SupervisorState::Completed, |it, _| {
            task(it.body(|_| ready(BodyEnd::Completed)).run(async |_| 1))
        }),
        ("one that completes, and may fail", SupervisorState::Completed, |it, _| {
            let body = async |_| of_text("1").map(|_| BodyEnd::Completed);
            task(it.body(body).run(async |_| 1))
        }),
        ("anyhow", SupervisorState::Completed, |it, _| {
            let body = async |_| -> anyhow::Result<BodyEnd> {
                of_text("1")?;
                Ok(BodyEnd::Completed)
            };
            task(it.body(body).run(async |_| 1))
        }),
        ("one after a close hook, and before a policy", SupervisorState::Up, |it, _| {
            let it = it.on_close(async |_| ()).body(body_function).restart_policy(exact());
            task(it.run(async |_| 1))
        }),
    ];
    for (form, state, run) in forms {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let supervisor = runtime.registry.supervise(id).unwrap();
        let run = run(supervisor, runtime.registry.clone());
        runtime.spawn(run);
        for round in 0..2 {
            runtime.advance(ms(1_000));
            assert_eq!(runtime.state(id), state, "{form}, {round}");
            assert_eq!(runtime.get(id), Some(1), "{form}, {round}");
            runtime.registry.fail(id, "edited").unwrap();
        }
        runtime.advance(ms(60_000));
        // No end of a body was a failure.
        let lines = runtime.recorder.take();
        let failed = lines.iter().filter(|line| line.contains("failed"));
        let by_hand = ["a 0: failed: edited", "a 1: failed: edited"];
        assert_eq!(failed.collect::<Vec<_>>(), by_hand, "{form}");
    }
}

#[test]
fn blocking_bodies_of_every_form_run() {
    type Run = fn(Supervisor<u32>) -> Task;
    let forms: [(&str, SupervisorState, Run); 5] = [
        ("a closure that returns nothing", SupervisorState::Up, |it| {
            let body = |live: Live<u32>| drop(live.stopping().wait_blocking());
            task(it.body_blocking(body).run(async |_| 1))
        }),
        ("a function", SupervisorState::Up, |it| {
            task(it.body_blocking(blocking_body_function).run(async |_| 1))
        }),
        ("a closure that counts", SupervisorState::Up, |it| {
            let mut bodies = 0;
            let body = move |live: Live<u32>| {
                bodies += 1;
                assert_eq!(live.generation().get() + 1, bodies);
                live.stopping().wait_blocking().map(|_| ()).map_err(|error| format!("{error}"))
            };
            task(it.exclusive_body_blocking(body).run(async |_| 1))
        }),
        ("one that completes", SupervisorState::Completed, |it| {
            task(it.body_blocking(|_| BodyEnd::Completed).run(async |_| 1))
        }),
        ("one that completes, and may fail", SupervisorState::Completed, |it| {
            let body = |_| of_text("1").map(|_| BodyEnd::Completed);
            task(it.body_blocking(body).run(async |_| 1))
        }),
    ];
    for (form, state, run) in forms {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
        runtime.spawn(run(supervisor));
        for _ in 0..2 {
            crate::support::until(form, || {
                runtime.advance(ms(1));
                runtime.state(id) == state
            });
            assert_eq!(runtime.get(id), Some(1), "{form}");
            runtime.registry.fail(id, "edited").unwrap();
            runtime.run_until_idle();
        }
        runtime.registry.close();
        runtime.run_until_idle();
    }
}

/// A value that is neither `Clone` nor `Debug`.
struct Counted(#[expect(dead_code, reason = "its drop counts")] LiveCount);

#[test]
fn a_live_is_send_and_keeps_no_value_alive() {
    fn is_send<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let mut runtime = TestRuntime::new();
    let id = runtime.registry.register::<Counted>("a").unwrap();
    let policy = exact().drain_timeout(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let lives = Arc::new(Mutex::new(Vec::new()));
    let handed = Arc::clone(&lives);
    let supervisor = supervisor.body(async move |live: Live<Counted>| {
        handed.lock().unwrap().push(is_send(live.clone()));
        let _ = live.stopping().await;
    });
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&alive);
    runtime.spawn(supervisor.run(async move |_| Counted(LiveCount::new(&counted))));
    runtime.run_until_idle();
    let taken = |lives: &Mutex<Vec<Live<Counted>>>| lives.lock().unwrap().pop().unwrap();
    let live = taken(&lives);
    let waits = (is_send(live.stopping()), is_send(live.stopping()));
    let mut polled = waits.0;
    assert!(poll_once(&mut polled).is_pending());
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    live.replace(Counted(LiveCount::new(&alive))).ok().unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 1, "the replaced value is dropped");

    runtime.registry.fail(id, "edited").unwrap();
    runtime.run_until_idle();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    // Draining does not wait for it.
    let status = runtime.registry.status(id).unwrap().supervisor.unwrap();
    assert_eq!((status.state, status.holders), (SupervisorState::BackingOff, 0));
    assert!(poll_once(&mut polled).is_ready());

    // On another thread, after the drop of everything but the handle.
    runtime.advance(ms(1_000));
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    let next = taken(&lives);
    runtime.tasks.clear();
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    let (why, refused) = thread::spawn(move || {
        let refused = next.replace(Counted(LiveCount::new(&alive))).err().map(|error| {
            drop(error);
            alive.load(Ordering::Relaxed)
        });
        (next.stop_reason(), refused)
    })
    .join()
    .unwrap();
    assert!(matches!(why, Some(StopReason::Failed(_))), "{why:?}");
    assert_eq!(refused, Some(0));
}

/// Waits for the request, and shuts down, as a `main` does.
fn main_task(runtime: &mut TestRuntime) -> mpsc::Receiver<(String, usize)> {
    let (registry, (sender, ended)) = (runtime.registry.clone(), mpsc::channel());
    runtime.spawn(async move {
        let why = registry.shutdown_requested().await;
        let report = registry.shutdown(LONG).await;
        assert!(report.stop_timeouts.is_empty(), "{report}");
        sender.send((why.to_string(), report.stopped.len())).unwrap();
    });
    ended
}

#[test]
fn a_builder_and_a_body_may_request_a_shutdown() {
    type Run = fn(Supervisor<u32>, Registry, ServiceId<u32>) -> Task;
    let forms: [(&str, Run); 3] = [
        ("a builder", |it, registry, base| {
            task(it.run(async move |build: Build<u32>| {
                build.wait_for(base).await?;
                assert!(registry.request_shutdown("no license"));
                // It continues: a request stops nothing by itself.
                std::future::pending::<()>().await;
                Ok::<_, WaitForError>(1)
            }))
        }),
        ("a body", |it, registry, _| {
            let body = async move |live: Live<u32>| {
                assert!(registry.request_shutdown("no license"));
                assert!(live.instance().is_some());
                let why = live.stopping().await.unwrap();
                assert!(matches!(why, StopReason::ShutDown), "{why}");
            };
            task(it.body(body).run(async |_| 1))
        }),
        ("a builder that returns an error", |it, registry, _| {
            task(it.run(async move |_| {
                registry.request_shutdown("no license");
                Err::<u32, _>("no license")
            }))
        }),
    ];
    for (form, run) in forms {
        let mut runtime = TestRuntime::new();
        let [base, id] = ["base", "a"].map(|name| runtime.service(name));
        runtime.supervise(base, exact(), |_| async { Ok::<_, String>(1) });
        let ended = main_task(&mut runtime);
        let supervisor = runtime.registry.supervise(id).unwrap();
        let run = run(supervisor, runtime.registry.clone(), base);
        runtime.spawn(run);
        runtime.run_until_idle();
        assert_eq!(ended.try_recv().unwrap(), ("no license".to_string(), 2), "{form}");
        assert!(runtime.registry.is_closed() && runtime.tasks.is_empty(), "{form}");
    }
}

#[test]
fn a_blocking_builder_and_a_blocking_body_may_request_a_shutdown() {
    for in_body in [false, true] {
        let (registry, [id]) = registry_of::<u32, 1>(["a"]);
        let supervisor = registry.supervise(id).unwrap();
        let (of_builder, of_body) = (registry.clone(), registry.clone());
        let supervisor = supervisor.body_blocking(move |live: Live<u32>| {
            if in_body {
                assert!(of_body.request_shutdown("no license"));
            }
            live.stopping().wait_blocking().map(drop)
        });
        let thread = thread::spawn(move || {
            supervisor.run_blocking(|_| {
                if !in_body {
                    assert!(of_builder.request_shutdown("no license"));
                }
                1
            })
        });
        let requested =
            futures_lite::future::or(async { Some(registry.shutdown_requested().await) }, async {
                smol::Timer::after(LONG).await;
                None
            });
        assert_eq!(pollster::block_on(requested).as_deref(), Some("no license"));
        let report = registry.shutdown_blocking(LONG);
        assert!(report.stop_timeouts.is_empty(), "{report}");
        thread.join().unwrap();
    }
}
