//! Reloads from threads, of services whose builders block; and what readers find during them.

use std::{
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    task::Poll,
    thread,
};

use super::*;
use crate::{
    supervising::runtime::on_a_thread,
    support::{LONG, Wakes, poll_once, poll_with, until},
};
use mainstay::{
    Instance, Registry,
    error::WaitForError,
    supervise::{Live, ReloadWait, RestartPolicy},
};

#[test]
fn blocking_waits_reload_services_on_threads() {
    static VALUE: AtomicU32 = AtomicU32::new(1);
    let registry = Registry::with_capacity(2).unwrap();
    let [config, pool] = ["config", "pool"].map(|name| registry.register::<u32>(name).unwrap());
    let supervisor = registry.supervise(config).unwrap();
    let first = on_a_thread(supervisor, |_| Ok::<_, BoxError>(VALUE.load(Ordering::Relaxed)));
    let supervisor = registry.supervise(pool).unwrap();
    let second = on_a_thread(supervisor, move |build| {
        Ok::<_, WaitForError>(**build.wait_for(config).wait_blocking()? + 10)
    });
    registry.wait_ready(pool).wait_blocking().unwrap();
    for value in 2..20 {
        VALUE.store(value, Ordering::Relaxed);
        let reloaded = match value % 2 {
            0 => registry.reload(config).wait_blocking(),
            _ => registry.reload(config).wait_blocking_timeout(LONG),
        };
        assert_eq!(reloaded.unwrap().members.len(), 2);
        let (config, pool) = registry.get_all((config, pool)).unwrap();
        assert_eq!((*config, *pool), (value, value + 10));
    }
    let checked = registry.check_reload(config).wait_blocking().unwrap();
    assert_eq!(checked.members.len(), 2);
    registry.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn reloads_from_several_threads_end_one_after_another_or_supersede_each_other() {
    let registry = Registry::with_capacity(2).unwrap();
    let [config, pool] = ["config", "pool"].map(|name| registry.register::<u32>(name).unwrap());
    let supervisors = [
        on_a_thread(registry.supervise(config).unwrap(), |_| Ok::<_, BoxError>(1)),
        on_a_thread(registry.supervise(pool).unwrap(), move |build| {
            Ok::<_, WaitForError>(**build.wait_for(config).wait_blocking()?)
        }),
    ];
    registry.wait_ready(pool).wait_blocking().unwrap();
    let threads = [config, pool, config, pool].map(|id| {
        let registry = registry.clone();
        thread::spawn(move || {
            let results = (0..50).map(|_| registry.reload(id).wait_blocking());
            let results = results.filter(|result| match result {
                Ok(_) => true,
                Err(ReloadError::Superseded { .. }) => false,
                Err(other) => panic!("{other:?}"),
            });
            results.count() as u64
        })
    });
    let [a, b, c, d] = threads.map(|thread| thread.join().unwrap());
    let replaced = |id| registry.status(id).unwrap().replaced;
    assert_eq!(replaced(config), a + c);
    assert_eq!(replaced(pool), a + b + c + d);
    registry.close();
    for thread in supervisors {
        thread.join().unwrap();
    }
}

#[test]
fn a_blocking_wait_in_async_code_begins_nothing() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let (id, registry) = (runtime.service("other"), runtime.registry.clone());
    let root = config.0;
    let supervisor = runtime.registry.supervise(id).unwrap();
    runtime.spawn(supervisor.run(async move |_: Build<u32>| {
        let error = registry.reload(root).wait_blocking().unwrap_err();
        assert!(matches!(error, ReloadError::MustAwait(_)));
        let error = registry.check_reload(root).wait_blocking().unwrap_err();
        assert!(matches!(error, ReloadError::MustAwait(_)));
        let retry = registry.reload(root).retry(RestartPolicy::default());
        assert!(matches!(retry.wait_blocking(), Err(ReloadError::MustAwait(_))));
        1
    }));
    runtime.run_until_idle();
    assert_eq!((runtime.get(id), config.1.builds()), (Some(1), 1));
}

/// Begins a reload, which nothing polls after that. Its builder sends when it is called.
fn begin_on_threads(
    registry: &Registry,
    id: ServiceId<u32>,
    has_begun: &mpsc::Receiver<()>,
) -> ReloadWait {
    let mut reload = registry.reload(id);
    assert!(poll_once(&mut reload).is_pending());
    has_begun.recv_timeout(LONG).unwrap();
    reload
}

/// Its drop sends.
struct Sends(mpsc::Sender<()>);

impl Drop for Sends {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

// The runtime of the test kit polls all supervisors if one is woken. A thread polls its own one.
#[test]
fn the_end_of_a_reload_wakes_the_supervisors_of_its_members() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let ((begun, has_begun), (dropped, has_dropped)) = (mpsc::channel(), mpsc::channel());
    let supervisor = registry.supervise(id).unwrap();
    let thread = thread::spawn(move || {
        pollster::block_on(supervisor.run(async move |build: Build<u32>| {
            if build.is_reload() {
                let _dropped = Sends(dropped.clone());
                begun.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            1
        }));
    });
    registry.wait_ready(id).wait_blocking().unwrap();
    let reload = begin_on_threads(&registry, id, &has_begun);
    drop(reload);
    has_dropped.recv_timeout(LONG).expect("the build is dropped");
    registry.close();
    thread.join().unwrap();
}

#[test]
fn an_exclusive_body_begins_in_the_poll_in_which_the_old_one_ends() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let (begun, has_begun) = mpsc::channel();
    let supervisor = registry.supervise(id).unwrap();
    let supervisor = supervisor.exclusive_body(async move |live: Live<u32>| {
        begun.send(live.instance().map(|it| Instance::revision(&it))).unwrap();
        live.stopping().await.map(drop)
    });
    let thread = thread::spawn(move || pollster::block_on(supervisor.run(async |_| 1)));
    registry.wait_ready(id).wait_blocking().unwrap();
    for revision in 0..3 {
        assert_eq!(has_begun.recv_timeout(LONG).expect("it begins"), Some(revision));
        registry.reload(id).wait_blocking().unwrap();
    }
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_blocking_build_aside_can_ask_whether_its_reload_is_over() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let ((begun, has_begun), (told, was_told)) = (mpsc::channel(), mpsc::channel());
    let supervisor = on_a_thread(registry.supervise(id).unwrap(), move |build| {
        if build.is_reload() {
            begun.send(()).unwrap();
            until("the reload is over", || build.is_invalidated());
            told.send(()).unwrap();
        }
        Ok::<_, BoxError>(1)
    });
    registry.wait_ready(id).wait_blocking().unwrap();
    let reload = begin_on_threads(&registry, id, &has_begun);
    drop(reload);
    was_told.recv_timeout(LONG).expect("the build is told");
    registry.close();
    supervisor.join().unwrap();
}

#[test]
fn no_reader_finds_an_exclusive_service_that_is_older_than_a_new_instance() {
    let registry = Registry::with_capacity(3).unwrap();
    let [config, port, pool] =
        ["config", "port", "pool"].map(|name| registry.register::<u32>(name).unwrap());
    let mut value = 0;
    let build = move |_: &Build<u32>| {
        value += 1;
        Ok::<_, WaitForError>(value)
    };
    let mut supervisors = vec![on_a_thread(registry.supervise(config).unwrap(), build)];
    for (id, is_exclusive) in [(port, true), (pool, false)] {
        let supervisor = registry.supervise(id).unwrap();
        let supervisor = if is_exclusive { supervisor.exclusive() } else { supervisor };
        supervisors.push(on_a_thread(supervisor, move |build| {
            Ok::<_, WaitForError>(**build.wait_for(config).wait_blocking()?)
        }));
    }
    for id in [port, pool] {
        registry.wait_ready(id).wait_blocking().unwrap();
    }
    let readers = [[config, port], [pool, port], [config, pool]].map(|[first, second]| {
        let registry = registry.clone();
        thread::spawn(move || {
            while !registry.is_closed() {
                let (Ok(first), Ok(second)) = (registry.get(first), registry.get(second)) else {
                    continue;
                };
                assert!(*second >= *first, "{} after {}", *second, *first);
            }
        })
    });
    for value in 2..100 {
        let reloaded = registry.reload(config).wait_blocking().unwrap();
        assert_eq!((reloaded.members.len(), reloaded.restarted.len()), (2, 1));
        assert!(reloaded.restarted[0].not_ready.is_none(), "{reloaded:?}");
        assert_eq!([config, port, pool].map(|id| *registry.get(id).unwrap()), [value; 3]);
    }
    registry.close();
    for reader in readers {
        reader.join().unwrap();
    }
    for thread in supervisors {
        thread.join().unwrap();
    }
}

#[test]
fn a_blocking_build_aside_is_told_that_its_instance_has_failed() {
    let registry = Registry::with_capacity(2).unwrap();
    let [id, never] = ["a", "never"].map(|name| registry.register::<u32>(name).unwrap());
    let ((begun, has_begun), (told, was_told)) = (mpsc::channel(), mpsc::channel());
    let supervisor = on_a_thread(registry.supervise(id).unwrap(), move |build| {
        if build.is_reload() {
            let wait = build.wait_for(never);
            begun.send(()).unwrap();
            told.send(wait.wait_blocking().unwrap_err()).unwrap();
        }
        Ok::<_, BoxError>(1)
    });
    registry.wait_ready(id).wait_blocking().unwrap();
    let _reload = begin_on_threads(&registry, id, &has_begun);
    // The supervisor is in the builder, and nothing polls the reload.
    registry.fail(id, "broken").unwrap();
    let error = was_told.recv_timeout(LONG).expect("the wait ends");
    let WaitForError::Invalidated(failure) = error else { panic!("{error:?}") };
    assert_eq!(mainstay::error::chain(&failure).to_string(), "a failed: broken");
    registry.close();
    supervisor.join().unwrap();
}

#[test]
fn a_service_that_has_failed_waits_for_its_blocking_build_aside() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let ((begun, has_begun), (end, until_end)) = (mpsc::channel(), mpsc::channel::<()>());
    let supervisor = on_a_thread(registry.supervise(id).unwrap(), move |build| {
        if build.is_reload() {
            begun.send(()).unwrap();
            let _ = until_end.recv();
        }
        Ok::<_, BoxError>(1)
    });
    registry.wait_ready(id).wait_blocking().unwrap();
    let reload = begin_on_threads(&registry, id, &has_begun);
    registry.fail(id, "broken").unwrap();
    let why = || registry.status(id).unwrap().not_ready.map(|why| why.to_string());
    let expected = "a: waiting for its build aside to return: broken";
    assert_eq!(why().as_deref(), Some(expected));
    let Err(error) = registry.get(id) else { panic!("it is down") };
    assert!(mainstay::error::chain(&error).to_string().contains("build aside"), "{error}");
    drop(reload);
    assert_eq!(why().as_deref(), Some(expected), "also when the reload is over");
    drop(end);
    registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    assert_eq!(registry.status(id).unwrap().generation, 1);
    registry.close();
    supervisor.join().unwrap();
}

#[test]
fn a_service_with_a_gap_that_is_stuck_ends_the_wait() {
    let registry = Registry::with_capacity(3).unwrap();
    let [config, port, broken] =
        ["config", "port", "broken"].map(|name| registry.register::<u32>(name).unwrap());
    let ((begun, has_begun), (end, until_end)) = (mpsc::channel(), mpsc::channel::<()>());
    let mut builds = 0;
    let gives_up = exact().max_failures(1, LONG);
    let supervisors = [
        on_a_thread(registry.supervise(config).unwrap(), |_| Ok::<_, BoxError>(1)),
        on_a_thread(registry.supervise(port).unwrap().exclusive(), move |build| {
            builds += 1;
            build.wait_for(config).wait_blocking()?;
            if builds > 1 {
                begun.send(()).unwrap();
                build.wait_for(broken).wait_blocking()?;
            }
            Ok::<_, WaitForError>(1)
        }),
        on_a_thread(registry.supervise(broken).unwrap().restart_policy(gives_up), move |_| {
            let _ = until_end.recv();
            Err("broken")
        }),
    ];
    registry.wait_ready(port).wait_blocking().unwrap();
    let (wakes, waker) = Wakes::new();
    let mut reload = registry.reload(config);
    until("the port begins again", || {
        poll_with(&mut reload, &waker).is_pending() && has_begun.try_recv().is_ok()
    });
    assert!(poll_with(&mut reload, &waker).is_pending());
    // It is polled only if it was woken.
    let (mut seen, mut ended) = (wakes.count(), None);
    drop(end);
    until("the wait ends", || {
        let count = wakes.count();
        if count != seen {
            seen = count;
            if let Poll::Ready(result) = poll_with(&mut reload, &waker) {
                ended = Some(result);
            }
        }
        ended.is_some()
    });
    let reloaded = ended.unwrap().unwrap();
    let why = reloaded.restarted[0].not_ready.as_ref().unwrap();
    assert_eq!(why.not_ready().unwrap().root(), "broken");
    registry.close();
    for thread in supervisors {
        thread.join().unwrap();
    }
}
