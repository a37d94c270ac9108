//! Every call of a registry and of its handles.

use std::{thread, time::Duration};

use mainstay::{
    FailOutcome, Guard, Instance, Phase, Registry, ServiceId, WatchEvent,
    error::{
        DependencyError, GetError, LookupError, ProvideError, RegisterError, WaitForError,
        WaitReadyError, WatchError,
    },
};

use crate::support::poll_once;

const NOW: Duration = Duration::ZERO;

/// Makes every call, on two services of the calling thread, and checks what it returns.
///
/// User code that the registry runs may call this, but not from inside of itself.
pub(super) fn every_call(registry: &Registry) {
    let names = ["base", "top"].map(|name| format!("{name} of {:?}", thread::current().id()));
    if registry.is_closed() {
        return every_call_when_closed(registry, &names);
    }
    let [base, top]: [ServiceId<u32>; 2] =
        names.each_ref().map(|name| registry.register(name).unwrap());
    let refused = registry.register::<u8>(&names[0]);
    assert!(matches!(refused, Err(RegisterError::WrongType { .. })));
    assert!(matches!(registry.find("unknown"), Err(LookupError::UnknownName { .. })));
    assert_eq!(registry.id::<u32>(&names[1]).unwrap(), top);
    assert!(registry.capacity() >= 2 && format!("{registry:?}").contains("capacity"));
    registry.depends(top).on(base).unwrap();
    let refused = registry.depends(base).on(top);
    assert!(matches!(refused, Err(DependencyError::Cycle(_))));

    let provide_base = registry.provide(base).unwrap();
    let provide_top = registry.provide(top).unwrap();
    assert!(matches!(registry.provide(top), Err(ProvideError::AlreadyProvided { .. })));
    assert!(matches!(registry.get(top), Err(GetError::NotReady(_))));
    let mut cached = registry.cached(top).unwrap();
    assert!(registry.get_arc(top).is_err() && registry.get_all((base, top)).is_err());
    assert!(cached.get().is_err());
    let waited = registry.wait_ready(top).wait_blocking_timeout(NOW);
    assert!(matches!(waited, Err(WaitReadyError::TimedOut { .. })));
    provide_top.begin().wait_blocking().unwrap().fail("not yet").unwrap();

    let attempt = provide_top.begin().wait_blocking().unwrap();
    let waited = attempt.wait_for(base).wait_blocking_timeout(NOW);
    assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
    assert!(attempt.wait_to_start(base).wait_blocking_timeout(NOW).is_err());
    let mut watch = attempt.watch(base).unwrap();
    assert!(matches!(watch.changed().wait_blocking_timeout(NOW), Err(WatchError::TimedOut { .. })));
    assert!(!attempt.is_invalidated() && attempt.invalidated().wait_blocking_timeout(NOW).is_err());
    assert!(provide_top.begin().wait_blocking_timeout(NOW).is_err());
    // A waiter is woken.
    let mut wait = registry.wait_ready(base);
    assert!(poll_once(&mut wait).is_pending());
    let running_base = provide_base.begin().wait_blocking().unwrap().ready(1).unwrap();
    assert!(poll_once(&mut wait).is_ready());
    drop(wait);
    let from = attempt.wait_for(base).wait_blocking().unwrap();
    let running_top = attempt.ready(**from + 1).unwrap();
    assert!(matches!(watch.changed().wait_blocking(), Ok(WatchEvent::Ready(_))));

    running_base.replace(10).unwrap();
    assert!(matches!(watch.changed().wait_blocking(), Ok(WatchEvent::Replaced(_))));
    assert_eq!(
        registry.fail_instance(&from, "of a replaced value").unwrap(),
        FailOutcome::Replaced
    );
    let guard = registry.get(top).unwrap();
    let (both, instance) = (registry.get_all((base, top)).unwrap(), Guard::into_arc(guard));
    assert_eq!((*both.0, *both.1, **instance, **cached.get().unwrap()), (10, 2, 2, 2));
    assert_eq!(**registry.wait_ready(top).wait_blocking().unwrap(), 2);
    assert_eq!(**registry.get_arc(base).unwrap(), **running_base.instance().unwrap());
    assert!(running_top.failed().wait_blocking_timeout(NOW).is_err());
    let listing = registry.list();
    assert_eq!(listing.get(&names[1]).unwrap().phase, Phase::Ready);
    assert!(listing.blockers(&names[1]).is_empty() && listing.to_dot().contains(&names[0]));

    let FailOutcome::Failed(cascade) =
        registry.fail_instance(Guard::instance(&both.0), "broken").unwrap()
    else {
        panic!("no other call fails it")
    };
    assert_eq!(cascade.failed, 2);
    assert!(matches!(watch.changed().wait_blocking(), Err(WatchError::DependentFailed(_))));
    assert_eq!(running_top.failed().wait_blocking().unwrap().root, *names[0]);
    assert!(cached.get().is_err() && running_top.replace(3).is_err());
    drop(running_base);
    let running_base = provide_base.begin().wait_blocking().unwrap().ready(4).unwrap();
    let attempt = provide_top.begin().wait_blocking().unwrap();
    assert_eq!(registry.fail(base, "once more").unwrap().invalidated, 1);
    assert!(
        attempt.invalidated().wait_blocking().is_ok()
            && attempt.wait_for(base).wait_blocking().is_err()
    );
    assert!(attempt.ready(5).is_err());
    assert_eq!(running_base.fail("it has failed already").failed, 0);
    drop(provide_base.begin().wait_blocking().unwrap());
    let status = registry.status(base).unwrap();
    assert_eq!((status.phase, status.waiters), (Phase::Down, 0));
    assert_eq!(
        Instance::generation(&instance).get() + 2,
        registry.status(top).unwrap().generation.get()
    );
}

fn every_call_when_closed(registry: &Registry, names: &[String; 2]) {
    let refused = registry.register::<u32>("too late");
    assert!(matches!(refused, Err(RegisterError::Closed { .. })));
    // The services exist if this thread has made the calls before the close.
    let ids = names.each_ref().map(|name| registry.id::<u32>(name));
    if let [Ok(base), Ok(top)] = ids {
        assert!(matches!(registry.provide(top), Err(ProvideError::Closed { .. })));
        assert!(matches!(
            registry.wait_ready(top).wait_blocking(),
            Err(WaitReadyError::Closed { .. })
        ));
        assert!(registry.get_all((base, top)).is_err() && registry.get_arc(top).is_err());
        assert!(registry.cached(base).unwrap().get().is_err());
        assert_eq!(registry.fail(base, "it is down").unwrap().failed, 0);
        let watched = registry.watch(base).unwrap().changed().wait_blocking();
        assert!(matches!(watched, Err(WatchError::Closed { .. })));
        registry.status(top).unwrap();
    }
    registry.list().to_dot();
    registry.close();
}
