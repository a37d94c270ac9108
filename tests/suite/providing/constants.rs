//! Constants: services whose provider is the registry.
//!
//! - A constant is ready without a handle, wakes those that wait for it, and is listed as provided.
//! - Another provider, and a second constant, are refused, and so are declared dependencies in
//!   either order. The value is returned.
//! - A failure takes it down with its dependents, and drops its value. It is not built again, and
//!   can be put again or be provided otherwise.
//! - A restart and a stop are refused. A shutdown stops it after its dependents.
//! - A close takes all constants down, and drops their values, also a value that has a handle of
//!   the registry. A constant that is put during a close or a failure is not left behind.

use std::{
    sync::{Arc, Barrier, Mutex},
    thread,
};

use crate::support::{Drops, LONG, Wakes, poll_with, publish_from, registry_of, up};
use mainstay::{
    Event, EventKind, FailOutcome, Observer, Phase, Reason, Registry,
    error::{ConstantError, DependencyError, GetError, ProvideError},
};

#[test]
fn a_constant_is_ready_without_a_handle() {
    let (registry, [port]) = registry_of::<u32, 1>(["port"]);
    let (wakes, waker) = Wakes::new();
    let mut wait = registry.wait_ready(port);
    assert!(poll_with(&mut wait, &waker).is_pending());
    registry.constant(port, 80).unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(**wait.wait_blocking_timeout(LONG).unwrap(), 80);

    let status = registry.status(port).unwrap();
    assert_eq!((status.phase, status.generation.get(), status.built), (Phase::Ready, 0, 1));
    assert!(status.has_provider && status.built_from.is_empty());
    assert_eq!(registry.list().to_string(), "port: ready");
    registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
}

#[test]
fn another_provider_is_refused_and_the_value_returned() {
    let (registry, [port, host]) = registry_of::<u32, 2>(["port", "host"]);
    let (_other, [foreign]) = registry_of::<u32, 1>(["foreign"]);
    registry.constant(port, 80).unwrap();
    assert!(matches!(registry.provide(port), Err(ProvideError::AlreadyProvided { .. })));
    #[cfg(feature = "supervise")]
    assert!(registry.supervise(port).is_err());
    let refused = registry.constant(port, 81).unwrap_err();
    assert!(matches!(refused, ConstantError::AlreadyProvided { .. }), "{refused:?}");
    assert_eq!(refused.into_value().into_inner(), 81);
    assert_eq!(*registry.get(port).unwrap(), 80);

    let (provider, running) = up(&registry, host, 1);
    let refused = registry.constant(host, 2).unwrap_err();
    assert!(matches!(refused, ConstantError::AlreadyProvided { .. }), "{refused:?}");
    drop((provider, running));
    registry.constant(host, 2).unwrap();
    assert_eq!((*registry.get(host).unwrap(), registry.status(host).unwrap().built), (2, 2));

    let refused = registry.constant(foreign, 3).unwrap_err();
    assert!(matches!(refused, ConstantError::ForeignId { .. }), "{refused:?}");
    assert_eq!(refused.into_value().into_inner(), 3);
}

#[test]
fn a_failure_takes_it_down_until_it_is_put_again() {
    let drops = Drops::default();
    let (registry, [port, server]) = registry_of(["port", "server"]);
    registry.constant(port, drops.value(80)).unwrap();
    let provider = registry.provide(server).unwrap();
    let running = publish_from(&provider, port, drops.value(1));
    let guard = registry.get(port).unwrap();
    assert_eq!(registry.fail(port, "taken").unwrap().failed, 2);
    assert!(registry.get(port).is_err() && registry.get(server).is_err());
    assert_eq!((guard.number, drops.count()), (80, 0), "a request keeps what it has read");
    drop(guard);
    assert_eq!(drops.count(), 1, "the registry has let go of the value");

    let status = registry.status(port).unwrap();
    assert!(!status.has_provider);
    assert_eq!(status.to_string(), "port: no provider: taken");
    drop(running);
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    registry.constant(port, drops.value(8080)).unwrap();
    assert_eq!(attempt.wait_for(port).wait_blocking_timeout(LONG).unwrap().number, 8080);
    drop(attempt);

    let instance = registry.get_arc(port).unwrap();
    let failed = registry.fail_instance(&instance, "refused").unwrap();
    assert!(matches!(failed, FailOutcome::Failed(_)));
    let (_provider, _running) = up(&registry, port, drops.value(1));
    assert_eq!(registry.fail_instance(&instance, "").unwrap(), FailOutcome::AlreadyFailed);
    assert_eq!(registry.get(port).unwrap().number, 1);
}

#[test]
fn it_depends_on_nothing() {
    let (registry, [a, b, c]) = registry_of::<u32, 3>(["a", "b", "c"]);
    type Declare = fn(mainstay::Depends<'_>, mainstay::ServiceId<u32>) -> bool;
    let kinds: [Declare; 3] = [
        |from, on| from.on(on).is_ok(),
        |from, on| from.to_start_on(on).is_ok(),
        |from, on| from.soft_on(on).is_ok(),
    ];
    registry.constant(a, 1).unwrap();
    for declare in kinds {
        assert!(!declare(registry.depends(a), b));
    }
    let refused = registry.depends(a).on(b).unwrap_err();
    assert!(matches!(refused, DependencyError::Constant { .. }));
    assert_eq!(refused.to_string(), "a cannot depend on b: it is a constant");
    assert!(registry.status(a).unwrap().dependencies.is_empty());
    // Others depend on it.
    registry.depends(b).on(a).unwrap();
    assert_eq!(registry.fail(a, "edited").unwrap().failed, 1);
    assert!(registry.depends(a).on(c).is_ok(), "it is no constant any more");

    for (i, declare) in kinds.into_iter().enumerate() {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        assert!(declare(registry.depends(a), b));
        let refused = registry.constant(a, 1).unwrap_err();
        let ConstantError::HasDependency { value, dependency, .. } = refused else {
            panic!("kind {i}: {refused:?}");
        };
        assert_eq!((value.into_inner(), &*dependency), (1, "b"));
        assert!(registry.provide(a).is_ok(), "the role is free again");
    }
    #[cfg(feature = "supervise")]
    {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        registry.depends(a).with_grace_on(b, LONG).unwrap();
        let refused = registry.constant(a, 1).unwrap_err();
        assert!(matches!(refused, ConstantError::HasDependency { .. }), "{refused:?}");
    }
}

#[test]
fn the_discovered_edges_of_an_earlier_provider_do_not_fail_it() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_provider, _running) = up(&registry, a, 1);
    let provider = registry.provide(b).unwrap();
    drop(publish_from(&provider, a, 2));
    drop(provider);
    registry.constant(b, 3).unwrap();
    assert!(registry.status(b).unwrap().dependencies.is_empty());
    registry.fail(a, "edited").unwrap();
    assert_eq!(*registry.get(b).unwrap(), 3);
}

#[test]
fn a_close_takes_all_constants_down_with_their_dependents() {
    let drops = Drops::default();
    let (registry, [a, b, c]) = registry_of(["a", "b", "c"]);
    registry.constant(a, drops.value(1)).unwrap();
    registry.constant(b, drops.value(2)).unwrap();
    let provider = registry.provide(c).unwrap();
    let running = publish_from(&provider, a, drops.value(3));
    registry.close();
    assert_eq!(drops.count(), 2);
    let failure = running.failed().wait_blocking_timeout(LONG).unwrap();
    assert!(matches!(failure.reason, Reason::Closed), "{failure}");
    assert_eq!(failure.root, "a");
    let GetError::NotReady(error) = registry.get(b).unwrap_err() else { panic!() };
    assert_eq!(error.service, "b");
    assert!(!registry.status(b).unwrap().has_provider);
    let refused = registry.constant(a, drops.value(4)).unwrap_err();
    assert!(matches!(refused, ConstantError::Closed { .. }), "{refused:?}");
    assert_eq!(refused.into_value().into_inner().number, 4);
}

#[test]
fn the_last_handle_of_the_registry_drops_the_value() {
    let drops = Drops::default();
    let (registry, [a]) = registry_of(["a"]);
    registry.constant(a, drops.value(1)).unwrap();
    drop(registry.clone());
    assert_eq!(drops.count(), 0);
    drop(registry);
    assert_eq!(drops.count(), 1);
}

/// A value with a handle of its own registry, which it uses when it is dropped.
struct Handle(Registry, Arc<Mutex<Vec<String>>>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
        self.1.lock().unwrap().push(self.0.list().to_string());
    }
}

#[test]
fn a_close_ends_a_value_that_has_a_handle_of_the_registry() {
    let lists = Arc::<Mutex<Vec<String>>>::default();
    let (registry, [a]) = registry_of(["a"]);
    registry.constant(a, Handle(registry.clone(), Arc::clone(&lists))).unwrap();
    assert_eq!(*registry.get(a).unwrap().1.lock().unwrap(), [""; 0]);
    registry.close();
    assert_eq!(*lists.lock().unwrap(), ["a: closed"]);
    assert_eq!(Arc::strong_count(&lists), 1);
    assert!(registry.get(a).is_err());
}

#[test]
fn a_constant_that_is_put_during_a_close_or_a_failure_is_not_left_behind() {
    for round in 0..200 {
        let drops = Drops::default();
        let (registry, [a]) = registry_of(["a"]);
        let start = Arc::new(Barrier::new(2));
        let other = {
            let (registry, start) = (registry.clone(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                if round % 2 == 0 {
                    registry.close();
                } else {
                    registry.fail(a, "edited").unwrap();
                }
            })
        };
        start.wait();
        let put = registry.constant(a, drops.value(1)).map_err(drop);
        other.join().unwrap();
        let status = registry.status(a).unwrap();
        let is_ready = status.phase == Phase::Ready;
        assert_eq!(status.has_provider, is_ready, "round {round}: {status:?}");
        assert_eq!(drops.count(), usize::from(!is_ready), "round {round}: {status:?}");
        assert!(!(is_ready && round % 2 == 0), "round {round}: ready after the close");
        assert!(put.is_ok() || !is_ready);
        if !registry.is_closed() && !is_ready {
            registry.constant(a, drops.value(2)).unwrap();
        }
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Observer for Lines {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let EventKind::AttemptStarted = event.kind {
            // What is not published yet is a constant already.
            let id = registry.id::<u32>(event.service).unwrap();
            assert!(registry.constant(id, 0).is_err());
        }
        self.0.lock().unwrap().push(event.kind.to_string());
    }
}

#[test]
fn its_events_are_those_of_a_provider() {
    let lines = Lines::default();
    let mut builder = Registry::builder(1).unwrap().observer(lines.clone());
    let a = builder.register::<u32>("a").unwrap();
    let registry = builder.build();
    registry.constant(a, 1).unwrap();
    registry.fail(a, "edited").unwrap();
    registry.constant(a, 2).unwrap();
    registry.close();
    let expected = [
        "attempt started",
        "ready",
        "failed: edited",
        "attempt started",
        "ready",
        "closed",
        "stopped: the registry was closed",
    ];
    assert_eq!(*lines.0.lock().unwrap(), expected);
}

#[cfg(feature = "supervise")]
mod planned_ends {
    use super::*;
    use mainstay::{error::StopError, supervise::WorkEnd};

    #[test]
    fn a_restart_and_a_stop_are_refused() {
        let (registry, [a]) = registry_of::<u32, 1>(["a"]);
        registry.constant(a, 1).unwrap();
        for wait in [registry.restart(a, "edited"), registry.stop(a), registry.stop_subtree(a)] {
            let refused = wait.wait_blocking_timeout(LONG).unwrap_err();
            assert!(matches!(refused, StopError::Constant { .. }), "{refused}");
        }
        assert_eq!(*registry.get(a).unwrap(), 1);
        assert!(!registry.start(a).unwrap());
    }

    #[test]
    fn a_stopped_service_is_no_constant_before_its_start() {
        let (registry, [a]) = registry_of::<u32, 1>(["a"]);
        registry.stop(a).wait_blocking_timeout(LONG).unwrap();
        let refused = registry.constant(a, 1).unwrap_err();
        assert!(matches!(refused, ConstantError::Stopped { .. }), "{refused:?}");
        assert_eq!(refused.into_value().into_inner(), 1);
        assert!(registry.provide(a).is_ok(), "the role is free again");
        assert!(registry.start(a).unwrap());
        registry.constant(a, 1).unwrap();
    }

    #[test]
    fn a_shutdown_stops_it_after_its_dependents() {
        let drops = Drops::default();
        let (registry, [a, b]) = registry_of(["a", "b"]);
        registry.constant(a, drops.value(1)).unwrap();
        let (of, value) = (registry.clone(), drops.value(2));
        let supervisor = registry.supervise(b).unwrap().on_close(async move |_| {
            assert_eq!(of.get(a).unwrap().number, 1, "its dependency is up");
        });
        let mut value = Some(value);
        let thread = thread::spawn(move || {
            supervisor.run_blocking(move |build| {
                build.wait_for(a).wait_blocking().unwrap();
                value.take().ok_or("it was built twice")
            })
        });
        registry.wait_ready(b).wait_blocking_timeout(LONG).unwrap();
        let report = registry.shutdown_blocking(LONG);
        thread.join().unwrap();
        let stopped: Vec<_> = report.stopped.iter().map(|one| &*one.service).collect();
        assert_eq!((stopped, report.stop_timeouts.len()), (vec!["b", "a"], 0));
        assert_eq!(report.stopped[0].closes.len(), 1);
        assert_eq!(report.stopped[0].closes[0].end, WorkEnd::Returned, "{report}");
        assert_eq!(drops.count(), 2);
        let reason = registry.status(a).unwrap().last_failure.unwrap().reason;
        assert!(matches!(reason, Reason::ShutDown));
    }

    #[test]
    fn a_stop_of_a_dependent_leaves_it_alone() {
        let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
        registry.constant(a, 1).unwrap();
        let provider = registry.provide(b).unwrap();
        let _running = publish_from(&provider, a, 2);
        registry.stop(b).wait_blocking_timeout(LONG).unwrap();
        assert!(registry.get(b).is_err());
        assert_eq!(*registry.get(a).unwrap(), 1);
    }
}
