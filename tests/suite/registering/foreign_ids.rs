//! Ids of another registry.
//!
//! - The builder, every call and every handle refuse an id of another registry: alone and among
//!   valid ids, and also if the other registry has services of the same names.
//! - A refused id changes nothing, in either registry.

use crate::support::{LONG, poll_once, up};
use mainstay::{
    AnyId, FailOutcome, Guard, Phase, Registry, ServiceId,
    error::{DependencyError, GetAllError, GetError, ProvideError, WaitForError, WaitReadyError},
};

#[test]
fn every_call_refuses_an_id_of_another_registry() {
    let mine = Registry::with_capacity(2).unwrap();
    let other = Registry::with_capacity(2).unwrap();
    let id: ServiceId<String> = mine.register("service").unwrap();
    let foreign: ServiceId<u64> = other.register("service").unwrap();
    let any = AnyId::from(foreign);
    assert_ne!(any, AnyId::from(id), "both are the first of their registries");
    let (_provider, _running) = up(&mine, id, "mine".to_string());
    let (_foreign, _foreign_running) = up(&other, foreign, 7);

    assert!(matches!(mine.get(foreign), Err(GetError::ForeignId(why)) if why.id == any));
    assert!(matches!(mine.get_arc(foreign), Err(GetError::ForeignId(_))));
    assert!(matches!(mine.get_all((id, foreign)), Err(GetAllError::ForeignId(_))));
    assert!(mine.cached(foreign).is_err());
    assert!(mine.reader(foreign).is_err());
    assert!(matches!(mine.wait_ready(foreign).wait_blocking(), Err(WaitReadyError::ForeignId(_))));
    assert!(matches!(mine.wait_ready_any(any).wait_blocking(), Err(WaitReadyError::ForeignId(_))));
    assert!(matches!(mine.provide(foreign), Err(ProvideError::ForeignId(_))));
    assert!(mine.status(foreign).is_err() && mine.status(any).is_err());
    assert!(mine.fail(foreign, "no").is_err() && mine.fail(any, "no").is_err());
    assert!(mine.fail_instance(Guard::instance(&other.get(foreign).unwrap()), "no").is_err());
    for (dependent, dependency) in [(any, id.into()), (id.into(), any)] {
        let refused = mine.depends(dependent).on(dependency);
        assert!(matches!(refused, Err(DependencyError::ForeignId(why)) if why.id == any));
    }
    let second = mine.register::<u8>("second").unwrap();
    let provider = mine.provide(second).unwrap();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    assert!(matches!(attempt.wait_for(foreign).wait_blocking(), Err(WaitForError::ForeignId(_))));
    assert_eq!((&*mine.get(id).unwrap(), *other.get(foreign).unwrap()), (&"mine".to_string(), 7));
    assert!(matches!(
        other.fail_instance(&other.get_arc(foreign).unwrap(), "yes"),
        Ok(FailOutcome::Failed(_))
    ));
}

#[test]
fn a_foreign_id_is_refused_among_valid_ids_and_changes_nothing() {
    let foreign = Registry::with_capacity(4).unwrap();
    let theirs: ServiceId<u32> = foreign.register("theirs").unwrap();
    let (_provide_theirs, _running_theirs) = up(&foreign, theirs, 7);

    let mut builder = Registry::builder(4).unwrap();
    let mine: ServiceId<u32> = builder.register("theirs").unwrap();
    for (dependent, dependency) in
        [(theirs.into(), mine.into()), (mine.into(), theirs.into()), (theirs.into(), theirs.into())]
    {
        let (dependent, dependency): (AnyId, AnyId) = (dependent, dependency);
        let refused = builder.depends(dependent).on(dependency);
        assert!(matches!(refused, Err(DependencyError::ForeignId(why)) if why.id == theirs.into()));
    }
    let registry = builder.build();
    let (provider, running) = up(&registry, mine, 1);

    for all in [
        registry.get_all((theirs, mine, mine)).map(|_| ()),
        registry.get_all((mine, theirs, mine)).map(|_| ()),
        registry.get_all((mine, mine, theirs)).map(|_| ()),
    ] {
        assert!(matches!(all, Err(GetAllError::ForeignId(why)) if why.id == theirs.into()));
    }
    assert!(matches!(registry.get(theirs), Err(GetError::ForeignId(_))));
    assert!(matches!(registry.provide(theirs), Err(ProvideError::ForeignId(_))));
    let mut wait = registry.wait_ready(theirs);
    assert!(poll_once(&mut wait).is_ready() && poll_once(&mut wait).is_pending());
    assert!(matches!(
        registry.wait_ready(theirs).wait_blocking(),
        Err(WaitReadyError::ForeignId(_))
    ));
    assert!(
        registry.fail_instance(Guard::instance(&foreign.get(theirs).unwrap()), "not mine").is_err()
    );
    assert!(foreign.fail_instance(&running.instance().unwrap(), "not theirs").is_err());
    assert!(registry.fail(theirs, "not mine").is_err() && registry.status(theirs).is_err());
    running.fail("over");
    let attempt = provider.begin().wait_blocking().unwrap();
    let mut wait = attempt.wait_for(theirs);
    assert!(poll_once(&mut wait).is_ready() && poll_once(&mut wait).is_pending());
    assert!(matches!(attempt.wait_for(theirs).wait_blocking(), Err(WaitForError::ForeignId(_))));
    assert!(!attempt.is_invalidated());
    registry.close();
    assert!(
        matches!(registry.provide(theirs), Err(ProvideError::ForeignId(_))),
        "a foreign id is reported before the close"
    );
    assert!(matches!(
        registry.wait_ready(theirs).wait_blocking(),
        Err(WaitReadyError::ForeignId(_))
    ));

    let untouched = foreign.status(theirs).unwrap();
    assert_eq!(
        (untouched.phase, untouched.generation.get(), untouched.waiters),
        (Phase::Ready, 0, 0)
    );
    assert_eq!(registry.list().services[0].dependencies, []);
    assert_eq!(*foreign.get(theirs).unwrap(), 7);
}
