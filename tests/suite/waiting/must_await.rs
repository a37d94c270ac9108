//! Blocking waits in a poll of an async supervisor.
//!
//! - Every blocking wait returns the error `MustAwait` there: in the builder and in the async body,
//!   on every executor, inside a nested `block_on`, and if the wait would end at once. The error
//!   says to use `.await`, and is found in the chain of the error of the build.
//! - A check with a timeout of zero blocks nothing, and is permitted.
//! - It is no error on another thread, in a blocking builder or body, after the poll, and after a
//!   poll that has panicked.

use std::{
    error::Error,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::support::{LONG, registry_of, up};
use mainstay::{
    Registry, ServiceId,
    error::{MustAwaitError, WaitForError, WaitReadyError, chain},
    supervise::{Build, Closing, Live, Supervisor},
};

type BoxError = Box<dyn Error + Send + Sync>;

/// Runs a supervisor on an executor, and returns when the registry is closed.
type Executor = (&'static str, fn(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>));

const EXECUTORS: [Executor; 4] = [
    ("plain", |run| pollster::block_on(run)),
    ("smol", |run| smol::block_on(smol::spawn(run))),
    ("tokio, one thread", |run| {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run)
    }),
    ("tokio, several threads", |run| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        let runtime = runtime.unwrap();
        runtime.block_on(runtime.spawn(run)).unwrap();
    }),
];

/// Returns the text of the error, if it is `MustAwait`.
fn must_await<T, E: Error + 'static>(waited: Result<T, E>) -> Option<String> {
    let error = waited.err()?;
    // A transparent variant has the text of the error that it contains.
    let text = error.to_string();
    let is_asked = text.ends_with(": use `.await` in place of `wait_blocking`");
    is_asked.then_some(text)
}

/// Calls each blocking wait, and returns the texts of the errors.
fn block_on_everything(registry: &Registry, build: &Build<u32>) -> Vec<Option<String>> {
    let dep = registry.id::<u32>("dep").unwrap();
    let other = registry.register::<u32>("other").unwrap();
    let provider = registry.provide(other).unwrap();
    let now = futures_lite::future::poll_once(provider.begin());
    let attempt = pollster::block_on(now).unwrap().unwrap();
    let mut watch = registry.watch(dep).unwrap();
    let state = registry.status(other).unwrap().state();
    let mut texts = vec![
        must_await(registry.wait_ready(dep).wait_blocking()),
        must_await(registry.wait_ready(dep).wait_blocking_timeout(LONG)),
        must_await(registry.wait_ready(dep).wait_blocking_deadline(Instant::now())),
        must_await(registry.wait_ready_any(dep).wait_blocking()),
        must_await(registry.wait_all_ready().wait_blocking()),
        must_await(registry.wait_changed(other, state).wait_blocking()),
        must_await(watch.changed().wait_blocking()),
        must_await(provider.begin().wait_blocking()),
        must_await(attempt.wait_for(dep).wait_blocking()),
        must_await(attempt.wait_for_any(dep).wait_blocking()),
        must_await(attempt.invalidated().wait_blocking()),
        must_await(build.wait_for(dep).wait_blocking()),
        must_await(build.wait_for_any(dep).wait_blocking()),
        must_await(build.wait_to_start(dep).wait_blocking()),
        must_await(build.wait_with_grace(dep, LONG).wait_blocking()),
        must_await(build.invalidated().wait_blocking()),
        must_await(registry.restart(dep, "edited").wait_blocking()),
        must_await(registry.stop(dep).wait_blocking_timeout(LONG)),
        must_await(registry.stop_subtree(dep).wait_blocking()),
        must_await(registry.shutdown_requested().wait_blocking()),
        must_await(registry.closed().wait_blocking_timeout(LONG)),
    ];
    let running = attempt.ready(1).unwrap();
    texts.push(must_await(running.failed().wait_blocking()));
    texts.push(must_await(running.drained().wait_blocking()));
    assert!(registry.get(dep).is_ok(), "a wait that does not block has begun something");
    texts
}

#[test]
fn every_blocking_wait_in_a_poll_of_an_async_supervisor_says_to_await() {
    for (name, executor) in EXECUTORS {
        let registry = Registry::with_capacity(3).unwrap();
        let [dep, app] = ["dep", "app"].map(|name| registry.register::<u32>(name).unwrap());
        let _dep = up(&registry, dep, 1);
        let (sender, texts) = mpsc::channel();
        let (bodies, of_body) = mpsc::channel();
        let of = registry.clone();
        let supervisor = registry.supervise(app).unwrap().body(async move |live: Live<u32>| {
            bodies.send(must_await(live.stopping().wait_blocking())).unwrap();
            let nested = smol::block_on(async { of.wait_ready(dep).wait_blocking() });
            bodies.send(must_await(nested)).unwrap();
            live.stopping().await.map(|_| ())
        });
        let of = registry.clone();
        let run = supervisor.run(async move |build: Build<u32>| {
            sender.send(block_on_everything(&of, &build)).unwrap();
            // After an await, perhaps on another thread.
            futures_lite::future::yield_now().await;
            let nested = pollster::block_on(async { build.wait_for(dep).wait_blocking() });
            sender.send(vec![must_await(nested)]).unwrap();
            build.wait_for(dep).await.map(|dep| **dep)
        });
        let thread = thread::spawn(move || executor(Box::pin(run)));
        assert_eq!(**registry.wait_ready(app).wait_blocking_timeout(LONG).unwrap(), 1, "{name}");
        let texts: Vec<_> = [texts.recv().unwrap(), texts.recv().unwrap()].concat();
        let of_body = [of_body.recv().unwrap(), of_body.recv().unwrap()];
        for (i, text) in texts.iter().chain(&of_body).enumerate() {
            assert!(text.is_some(), "{name}: wait {i} returned something else");
        }
        let text = "a blocking wait for dep in a poll of an async supervisor: use `.await` in \
                    place of `wait_blocking`";
        assert_eq!(texts[0].as_deref(), Some(text));
        registry.close();
        thread.join().unwrap();
    }
}

#[test]
fn a_blocking_wait_in_an_async_close_hook_says_to_await() {
    let (registry, [app]) = registry_of::<u32, 1>(["app"]);
    let (sender, texts) = mpsc::channel();
    let of = registry.clone();
    let supervisor = registry.supervise(app).unwrap().on_close(async move |_: Closing<u32>| {
        sender.send(must_await(of.wait_ready(app).wait_blocking())).unwrap();
    });
    let thread = thread::spawn(|| pollster::block_on(supervisor.run(async |_| 1)));
    registry.wait_ready(app).wait_blocking_timeout(LONG).unwrap();
    registry.fail(app, "edited").unwrap();
    assert!(texts.recv_timeout(LONG).unwrap().is_some());
    registry.close();
    thread.join().unwrap();
}

#[test]
fn the_error_of_a_build_that_blocks_says_to_await() {
    let (registry, [dep, app]) = registry_of::<u32, 2>(["dep", "app"]);
    let _dep = up(&registry, dep, 1);
    let failures = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&failures);
    let run = registry.supervise(app).unwrap().run(async move |build: Build<u32>| {
        if let Some(failure) = build.last_failure() {
            seen.lock().unwrap().push(chain(&failure).to_string());
            return Ok(2);
        }
        let dep = build.wait_for(dep).wait_blocking()?;
        Ok::<u32, BoxError>(**dep)
    });
    let thread = thread::spawn(|| pollster::block_on(run));
    assert_eq!(**registry.wait_ready(app).wait_blocking_timeout(LONG).unwrap(), 2);
    let text = "app failed: a blocking wait for dep in a poll of an async supervisor: use `.await` \
                in place of `wait_blocking`";
    assert_eq!(failures.lock().unwrap()[..], [text]);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_check_that_does_not_block_and_a_wait_on_another_thread_are_permitted() {
    let (registry, [dep, app]) = registry_of::<u32, 2>(["dep", "app"]);
    let _dep = up(&registry, dep, 7);
    let of = registry.clone();
    let run = registry.supervise(app).unwrap().run(async move |build: Build<u32>| {
        let now = **build.wait_for(dep).wait_blocking_timeout(Duration::ZERO)?;
        let of = of.clone();
        let elsewhere = smol::unblock(move || of.wait_ready(dep).wait_blocking()).await?;
        Ok::<u32, BoxError>(now + **elsewhere)
    });
    let thread = thread::spawn(|| pollster::block_on(run));
    assert_eq!(**registry.wait_ready(app).wait_blocking_timeout(LONG).unwrap(), 14);
    registry.close();
    thread.join().unwrap();
}

/// Waits in a blocking builder, and in a blocking body.
fn blocks(supervisor: Supervisor<u32>, dep: ServiceId<u32>, values: mpsc::Sender<u32>) {
    let supervisor = supervisor.body_blocking(move |live: Live<u32>| {
        let dep = live.registry().wait_ready(dep).wait_blocking();
        values.send(**dep.unwrap()).unwrap();
        drop(live.stopping().wait_blocking());
    });
    supervisor.run_blocking(move |build| build.wait_for(dep).wait_blocking().map(|dep| **dep));
}

#[test]
fn blocking_builders_and_bodies_may_block() {
    let (registry, [dep, app]) = registry_of::<u32, 2>(["dep", "app"]);
    let _dep = up(&registry, dep, 7);
    let supervisor = registry.supervise(app).unwrap();
    let (sender, values) = mpsc::channel();
    let thread = thread::spawn(move || blocks(supervisor, dep, sender));
    assert_eq!(**registry.wait_ready(app).wait_blocking_timeout(LONG).unwrap(), 7);
    assert_eq!(values.recv_timeout(LONG).unwrap(), 7);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_thread_may_block_again_after_each_poll_even_if_the_builder_has_panicked() {
    let (registry, [dep, app]) = registry_of::<u32, 2>(["dep", "app"]);
    let mut run = Box::pin(registry.supervise(app).unwrap().run(async |build: Build<u32>| {
        assert!(build.number() > 1, "the first build panics");
        std::future::pending::<Result<u32, BoxError>>().await
    }));
    let _dep = up(&registry, dep, 1);
    for _ in 0..3 {
        assert!(crate::support::poll_once(&mut run).is_pending());
        assert!(registry.wait_ready(dep).wait_blocking().is_ok());
    }
    let error: WaitForError = WaitForError::from(must_await_error(&registry, dep));
    assert!(
        matches!(&error, WaitForError::MustAwait(error) if error.service.as_deref() == Some("dep"))
    );
    registry.close();
}

/// Returns the error of a wait in a poll of a supervisor of another registry.
fn must_await_error(registry: &Registry, dep: ServiceId<u32>) -> MustAwaitError {
    let (other, [id]) = registry_of::<u32, 1>(["a"]);
    let (sender, errors) = mpsc::channel();
    let of = registry.clone();
    let mut run = Box::pin(other.supervise(id).unwrap().run(async move |_: Build<u32>| {
        match of.wait_ready(dep).wait_blocking() {
            Err(WaitReadyError::MustAwait(error)) => sender.send(error).unwrap(),
            other => panic!("{other:?}"),
        }
        1
    }));
    assert!(crate::support::poll_once(&mut run).is_pending());
    errors.try_recv().unwrap()
}
