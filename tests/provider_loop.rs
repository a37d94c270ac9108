//! The provider's loop: begin, wait for what it is built from, ready, failed, and again.
//!
//! - The four steps follow each other, and each is seen from outside: down, starting, ready, down.
//! - The role is exclusive: of many that ask for it one gets it; it is free again once that one has dropped it.
//! - A second attempt waits while the first, or its instance, is there, and begins when that has ended.
//! - A generation counts failures: neither an attempt that was given up nor a replacement changes it.
//! - Whatever ends an attempt or an instance gives its slot back with the reason: a failure, a drop of the
//!   attempt, of the running handle or of the provider, a panic that unwinds through one of them.
//! - The reason of an attempt that was given up is shown until the service's next failure.
//! - A failure of the service or of what the attempt has waited for overtakes the attempt, which can be asked
//!   and waited for; what it built comes back.

mod support;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Barrier,
    thread,
    time::Duration,
};

use mainstay::{
    Attempt, BeginError, Instance, Phase, ProvideError, Reason, Registry, ServiceId, WaitError,
    WaitForError,
};
use support::{LONG, MOMENT, again, until, up};

fn one() -> (Registry, ServiceId<u32>) {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    (registry, id)
}

fn two() -> (Registry, ServiceId<u32>, ServiceId<u32>) {
    let registry = Registry::with_capacity(2).unwrap();
    let (config, database) =
        (registry.register("config").unwrap(), registry.register("database").unwrap());
    (registry, config, database)
}

fn reason(registry: &Registry, id: ServiceId<u32>) -> Reason {
    registry.status(id).unwrap().last_failure.expect("a failure is shown").reason
}

#[test]
fn four_steps() {
    let (registry, config, database) = two();
    let phase = |id| registry.status(id).unwrap().phase;
    let (provide_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    assert_eq!(phase(database), Phase::Down);

    let attempt = provider.begin().wait().unwrap();
    assert_eq!((phase(database), attempt.generation()), (Phase::Starting, 0));
    let seen = attempt.wait_for(config).wait().unwrap();
    assert_eq!((**seen, Instance::generation(&seen)), (1, 0));
    assert!(registry.get(database).is_err());

    let running = attempt.ready(**seen * 10).unwrap();
    assert_eq!((phase(database), running.generation()), (Phase::Ready, 0));
    assert_eq!(*registry.get(database).unwrap(), 10);
    assert_eq!(**running.instance().unwrap(), 10);

    assert_eq!(running_config.fail("edited").went_down, 2);
    let failure = running.failed().wait().unwrap();
    assert_eq!((&*failure.service, failure.generation), ("database", 0));
    assert_eq!((&*failure.root, failure.root_generation), ("config", 0));
    assert_eq!(failure.reason.to_string(), "edited");
    assert_eq!(phase(database), Phase::Down);
    assert!(running.instance().is_none());

    let _config = again(&provide_config, 2);
    let attempt = provider.begin().wait().unwrap();
    assert_eq!(attempt.generation(), 1);
    let seen = attempt.wait_for(config).wait().unwrap();
    let _database = attempt.ready(**seen * 10).unwrap();
    assert_eq!(*registry.get(database).unwrap(), 20);
}

#[test]
fn the_role_is_exclusive() {
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
        assert!(registry.status(id).unwrap().provided);
        drop(given);
        assert!(!registry.status(id).unwrap().provided, "the role is free again");
    }
}

#[test]
fn begin_waits_while_the_slot_is_held() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    let timed_out = || match provider.begin().wait_timeout(MOMENT) {
        Err(BeginError::TimedOut { service, after }) => service == "service" && after >= MOMENT,
        _ => false,
    };
    let attempt = provider.begin().wait().unwrap();
    assert!(timed_out(), "an attempt is under way");
    thread::scope(|scope| {
        let next = scope.spawn(|| provider.begin().wait_timeout(LONG).unwrap());
        attempt.fail("give it to the next").unwrap();
        let running = next.join().unwrap().ready(1).unwrap();
        assert!(timed_out(), "an instance is there");

        let next = scope.spawn(|| provider.begin().wait_timeout(LONG).unwrap().generation());
        running.fail("over");
        assert_eq!(next.join().unwrap(), 1);
    });
}

#[test]
fn a_generation_counts_the_failures() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    for generation in 0..50 {
        provider.begin().wait().unwrap().fail("not yet").unwrap();
        let running = again(&provider, 1);
        running.replace(2).unwrap();
        assert_eq!(running.generation(), generation);
        assert_eq!(registry.status(id).unwrap().generation, generation);
        running.fail("over");
    }
    assert_eq!(registry.status(id).unwrap().generation, 50);
}

#[test]
fn what_ends_an_attempt_is_shown() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    let begin = || provider.begin().wait_timeout(LONG).expect("the slot was given back");

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
    assert_eq!(registry.status(id).unwrap().generation, 0, "nothing has failed that was there");
}

#[test]
fn what_ends_an_instance_is_shown() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();

    drop(again(&provider, 1));
    assert!(matches!(reason(&registry, id), Reason::RunningDropped));
    again(&provider, 2).fail("lost");
    assert_eq!(reason(&registry, id).to_string(), "lost");
    let running = again(&provider, 3);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _running = running;
        panic!("while running");
    }));
    assert!(panic.is_err());
    assert!(matches!(reason(&registry, id), Reason::Panicked));

    let running = again(&provider, 4);
    drop(provider);
    assert!(registry.get(id).is_err());
    assert!(matches!(running.failed().wait().unwrap().reason, Reason::ProviderDropped));
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait().unwrap();
    drop(provider);
    assert!(attempt.is_overtaken(), "an attempt does not outlive the role");
    assert!(attempt.ready(5).is_err());
}

#[test]
fn the_reason_of_a_given_up_attempt_lasts_until_the_next_failure() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    assert!(registry.status(id).unwrap().last_failure.is_none());
    let waiter = thread::spawn({
        let registry = registry.clone();
        move || **registry.wait_ready(id).wait_timeout(LONG).unwrap()
    });
    until("somebody waits", || registry.status(id).unwrap().waiting == 1);
    provider.begin().wait().unwrap().fail("first").unwrap();
    provider.begin().wait().unwrap().fail("second").unwrap();
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.to_string(), "service failed: second");
    assert_eq!((failure.generation, failure.root_generation), (0, 0));

    let running = again(&provider, 7);
    assert_eq!(waiter.join().unwrap(), 7, "who waited has waited on");
    assert_eq!(reason(&registry, id).to_string(), "second");
    running.fail("third");
    assert_eq!(reason(&registry, id).to_string(), "third");
    let running = again(&provider, 8);
    running.fail("fourth");
    assert_eq!(reason(&registry, id).to_string(), "fourth");
}

#[test]
fn an_overtaken_attempt_is_told_and_gets_its_value_back() {
    let (registry, config, database) = two();
    let (_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let overtake = |attempt: &Attempt<u32>, with: &dyn Fn()| {
        assert!(!attempt.is_overtaken());
        let soon = attempt.overtaken().wait_timeout(Duration::ZERO);
        assert!(matches!(soon, Err(WaitError::TimedOut { .. })));
        thread::scope(|scope| {
            let told = scope.spawn(|| attempt.overtaken().wait_timeout(LONG).unwrap());
            with();
            let failure = told.join().unwrap();
            assert_eq!(failure.service, "database");
            assert!(attempt.is_overtaken());
            failure
        })
    };

    let attempt = provider.begin().wait().unwrap();
    let failure = overtake(&attempt, &|| {
        assert_eq!(registry.fail(database, "by itself").unwrap().overtaken, 1);
    });
    assert_eq!((&*failure.root, failure.reason.to_string()), ("database", "by itself".into()));
    assert_eq!(attempt.ready(1).unwrap_err().into_value(), 1);

    let attempt = provider.begin().wait().unwrap();
    attempt.wait_for(config).wait().unwrap();
    let failure = overtake(&attempt, &|| {
        let cascade = registry.fail(config, "from below").unwrap();
        assert_eq!((cascade.went_down, cascade.overtaken), (1, 1));
    });
    assert_eq!((&*failure.root, failure.reason.to_string()), ("config", "from below".into()));
    let waited = attempt.wait_for(config).wait_timeout(LONG);
    assert!(matches!(waited, Err(WaitForError::Overtaken(failure)) if failure.root == "config"));
    let refused = attempt.ready(2).unwrap_err();
    assert_eq!(refused.to_string(), "not published: database went down with config: from below");
    assert_eq!(refused.into_value(), 2);
    assert_eq!(running_config.replace(3).unwrap_err().value, 3, "a failed one is not replaced");

    let attempt = provider.begin().wait_timeout(LONG).unwrap();
    registry.fail(database, "sooner").unwrap();
    let overtaken = attempt.fail("it was giving up anyway").unwrap_err();
    assert_eq!(overtaken.to_string(), "database failed: sooner");
    assert_eq!(reason(&registry, database).to_string(), "sooner");
    assert!(provider.begin().wait_timeout(LONG).is_ok());
}

#[test]
fn a_forgotten_attempt_is_overtaken_by_a_failure() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    std::mem::forget(provider.begin().wait().unwrap());
    assert!(provider.begin().wait_timeout(MOMENT).is_err());
    registry.fail(id, "nobody builds it").unwrap();
    let _running = again(&provider, 1);
    assert_eq!(*registry.get(id).unwrap(), 1);
}
