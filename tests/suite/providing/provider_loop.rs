//! The loop of a provider: begin, wait for the dependencies, publish, wait for the failure, and
//! repeat.
//!
//! - The status shows each step: down, starting, ready, down.
//! - The role is exclusive: if several threads ask for it, one gets it. It is free again after
//!   that provider was dropped.
//! - A second attempt waits while an attempt or an instance exists, and begins when that has
//!   ended.
//! - A generation counts failures. Neither a failed attempt nor a replacement changes it.
//! - The end of an attempt or of an instance frees the slot and stores the reason: a failure, a
//!   drop of the attempt, of the running handle or of the provider, or a panic that unwinds
//!   through one of them.
//! - The status shows the reason of a failed attempt until the next failure of the service.
//! - A failure of the service or of a service that the attempt has waited for invalidates the
//!   attempt, which can be checked and waited for. The value that it built is returned.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
    thread,
    time::Duration,
};

use crate::support::{LONG, MOMENT, publish, registry_of, until, up};
use mainstay::{
    Attempt, Instance, Phase, Reason, Registry, ServiceId,
    error::{BeginError, ProvideError, WaitError, WaitForError, chain},
};

fn one() -> (Registry, ServiceId<u32>) {
    let (registry, [id]) = registry_of(["service"]);
    (registry, id)
}

fn two() -> (Registry, ServiceId<u32>, ServiceId<u32>) {
    let (registry, [config, database]) = registry_of(["config", "database"]);
    (registry, config, database)
}

fn reason(registry: &Registry, id: ServiceId<u32>) -> Reason {
    registry.status(id).unwrap().last_failure.expect("a failure is shown").reason
}

#[test]
fn the_status_shows_each_step_of_the_loop() {
    let (registry, config, database) = two();
    let phase = |id| registry.status(id).unwrap().phase;
    let (provide_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    assert_eq!(phase(database), Phase::Down);

    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!((phase(database), attempt.generation().get()), (Phase::Starting, 0));
    let seen = attempt.wait_for(config).wait_blocking().unwrap();
    assert_eq!((**seen, Instance::generation(&seen).get()), (1, 0));
    assert!(registry.get(database).is_err());

    let running = attempt.ready(**seen * 10).unwrap();
    assert_eq!((phase(database), running.generation().get()), (Phase::Ready, 0));
    assert_eq!(*registry.get(database).unwrap(), 10);
    assert_eq!(**running.instance().unwrap(), 10);

    assert_eq!(running_config.fail("edited").failed, 2);
    let failure = running.failed().wait_blocking().unwrap();
    assert_eq!((&*failure.service, failure.generation.get()), ("database", 0));
    assert_eq!((&*failure.root, failure.root_generation.get()), ("config", 0));
    assert_eq!(failure.reason.to_string(), "edited");
    assert_eq!(phase(database), Phase::Down);
    assert!(running.instance().is_none());

    let _config = publish(&provide_config, 2);
    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!(attempt.generation(), 1);
    let seen = attempt.wait_for(config).wait_blocking().unwrap();
    let _database = attempt.ready(**seen * 10).unwrap();
    assert_eq!(*registry.get(database).unwrap(), 20);
}

#[test]
fn one_of_several_threads_gets_the_role_and_its_drop_frees_it() {
    let (registry, id) = one();
    let start = Barrier::new(4);
    for _ in 0..100 {
        let roles: Vec<_> = thread::scope(|scope| {
            let ask = || {
                start.wait();
                registry.provide(id)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (given, refused): (Vec<_>, Vec<_>) = roles.into_iter().partition(Result::is_ok);
        assert_eq!(given.len(), 1);
        for refused in refused {
            let why = refused.unwrap_err();
            assert!(
                matches!(&why, ProvideError::AlreadyProvided { service } if service == "service")
            );
        }
        assert!(registry.status(id).unwrap().has_provider);
        drop(given);
        assert!(!registry.status(id).unwrap().has_provider, "the role is free again");
    }
}

#[test]
fn begin_waits_while_an_attempt_or_an_instance_exists() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    let timed_out = || match provider.begin().wait_blocking_timeout(MOMENT) {
        Err(BeginError::TimedOut { service, after }) => service == "service" && after >= MOMENT,
        _ => false,
    };
    let attempt = provider.begin().wait_blocking().unwrap();
    assert!(timed_out(), "an attempt is under way");
    thread::scope(|scope| {
        let next = scope.spawn(|| provider.begin().wait_blocking_timeout(LONG).unwrap());
        attempt.fail("the next attempt may begin").unwrap();
        let running = next.join().unwrap().ready(1).unwrap();
        assert!(timed_out(), "an instance is there");

        let next =
            scope.spawn(|| provider.begin().wait_blocking_timeout(LONG).unwrap().generation());
        running.fail("over");
        assert_eq!(next.join().unwrap(), 1);
    });
}

#[test]
fn a_generation_counts_failures_and_neither_attempts_nor_replacements() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    for generation in 0..50 {
        provider.begin().wait_blocking().unwrap().fail("not yet").unwrap();
        let running = publish(&provider, 1);
        running.replace(2).unwrap();
        assert_eq!(running.generation(), generation);
        assert_eq!(registry.status(id).unwrap().generation, generation);
        running.fail("over");
    }
    assert_eq!(registry.status(id).unwrap().generation, 50);
}

#[test]
fn the_status_shows_what_ended_an_attempt() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    let begin = || provider.begin().wait_blocking_timeout(LONG).expect("the slot was given back");

    drop(begin());
    assert!(matches!(reason(&registry, id), Reason::AttemptDropped));
    begin().fail("no such host").unwrap();
    assert_eq!(reason(&registry, id).to_string(), "no such host");
    let attempt = begin();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _attempt = attempt;
        panic!("while building");
    }));
    assert!(panic.is_err());
    assert!(matches!(reason(&registry, id), Reason::Panicked));
    assert_eq!(registry.status(id).unwrap().phase, Phase::Down);
    assert_eq!(
        registry.status(id).unwrap().generation,
        0,
        "a failed attempt changed the generation"
    );
}

#[test]
fn the_status_shows_what_ended_an_instance() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();

    drop(publish(&provider, 1));
    assert!(matches!(reason(&registry, id), Reason::RunningDropped));
    publish(&provider, 2).fail("lost");
    assert_eq!(reason(&registry, id).to_string(), "lost");
    let running = publish(&provider, 3);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _running = running;
        panic!("while running");
    }));
    assert!(panic.is_err());
    assert!(matches!(reason(&registry, id), Reason::Panicked));

    let running = publish(&provider, 4);
    drop(provider);
    assert!(registry.get(id).is_err());
    assert!(matches!(running.failed().wait_blocking().unwrap().reason, Reason::ProviderDropped));
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    drop(provider);
    assert!(attempt.is_invalidated(), "an attempt outlives its provider");
    assert!(attempt.ready(5).is_err());
}

#[test]
fn the_reason_of_a_failed_attempt_is_shown_until_the_next_failure() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    assert!(registry.status(id).unwrap().last_failure.is_none());
    let waiter = thread::spawn({
        let registry = registry.clone();
        move || **registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap()
    });
    until("the reader waits", || registry.status(id).unwrap().waiters == 1);
    provider.begin().wait_blocking().unwrap().fail("first").unwrap();
    provider.begin().wait_blocking().unwrap().fail("second").unwrap();
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(chain(&failure).to_string(), "service failed: second");
    assert_eq!((failure.generation.get(), failure.root_generation.get()), (0, 0));

    let running = publish(&provider, 7);
    assert_eq!(waiter.join().unwrap(), 7, "the wait of a reader ended early");
    assert_eq!(reason(&registry, id).to_string(), "second");
    running.fail("third");
    assert_eq!(reason(&registry, id).to_string(), "third");
    let running = publish(&provider, 8);
    running.fail("fourth");
    assert_eq!(reason(&registry, id).to_string(), "fourth");
}

#[test]
fn an_invalidated_attempt_is_notified_and_its_value_is_returned() {
    let (registry, config, database) = two();
    let (_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let invalidate = |attempt: &Attempt<u32>, with: &dyn Fn()| {
        assert!(!attempt.is_invalidated());
        let soon = attempt.invalidated().wait_blocking_timeout(Duration::ZERO);
        assert!(matches!(soon, Err(WaitError::TimedOut { .. })));
        thread::scope(|scope| {
            let notified =
                scope.spawn(|| attempt.invalidated().wait_blocking_timeout(LONG).unwrap());
            with();
            let failure = notified.join().unwrap();
            assert_eq!(failure.service, "database");
            assert!(attempt.is_invalidated());
            failure
        })
    };

    let attempt = provider.begin().wait_blocking().unwrap();
    let failure = invalidate(&attempt, &|| {
        assert_eq!(registry.fail(database, "by itself").unwrap().invalidated, 1);
    });
    assert_eq!((&*failure.root, failure.reason.to_string()), ("database", "by itself".into()));
    assert_eq!(*attempt.ready(1).unwrap_err().into_value(), 1);

    let attempt = provider.begin().wait_blocking().unwrap();
    attempt.wait_for(config).wait_blocking().unwrap();
    let failure = invalidate(&attempt, &|| {
        let cascade = registry.fail(config, "from below").unwrap();
        assert_eq!((cascade.failed, cascade.invalidated), (1, 1));
    });
    assert_eq!((&*failure.root, failure.reason.to_string()), ("config", "from below".into()));
    let waited = attempt.wait_for(config).wait_blocking_timeout(LONG);
    assert!(matches!(waited, Err(WaitForError::Invalidated(failure)) if failure.root == "config"));
    let refused = attempt.ready(2).unwrap_err();
    assert_eq!(
        chain(&refused).to_string(),
        "database was not published: database failed because config failed: from below"
    );
    assert_eq!(refused.into_value().into_inner(), 2);
    assert_eq!(*running_config.replace(3).unwrap_err().value, 3, "a failed instance is replaced");

    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    registry.fail(database, "sooner").unwrap();
    let invalidated = attempt.fail("after the invalidation").unwrap_err();
    assert_eq!(chain(&invalidated).to_string(), "database failed: sooner");
    assert_eq!(reason(&registry, database).to_string(), "sooner");
    assert!(provider.begin().wait_blocking_timeout(LONG).is_ok());
}

#[test]
fn a_failure_invalidates_a_forgotten_attempt_and_frees_the_slot() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    std::mem::forget(provider.begin().wait_blocking().unwrap());
    assert!(provider.begin().wait_blocking_timeout(MOMENT).is_err());
    registry.fail(id, "its attempt is forgotten").unwrap();
    let _running = publish(&provider, 1);
    assert_eq!(*registry.get(id).unwrap(), 1);
}
