//! Failures: cascades, their effects when a call has returned, and reports by many threads.
//!
//! - A failure takes down every service that depends on the failed one, directly or not, once, and
//!   no other. The result counts the instances that failed and the attempts that were invalidated.
//! - After `fail` has returned, no call can read any of them.
//! - Each failed service stores the service at which the cascade began, its generation and the
//!   reason as it was passed.
//! - A failure of a service that is down changes nothing.
//! - A report fails exactly the generation of the reported instance. Of any number of reporters
//!   one fails it, none fails the next instance, and a report of a replaced value does nothing.
//! - Failures on several threads at once fail each instance exactly once.

use std::{
    error::Error,
    fmt, io,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::support::{LONG, Seed, publish, registry_of, up};
use mainstay::{
    AnyId, Attempt, Cascade, FailOutcome, Guard, Instance, Phase, Provider, Reason, Registry,
    Running, ServiceId, error::chain,
};

/// Services that are built from earlier ones. All are ready.
struct Built {
    registry: Registry,
    ids: Vec<ServiceId<usize>>,
    providers: Vec<Provider<usize>>,
    running: Vec<Option<Running<usize>>>,
    below: Vec<&'static [usize]>,
}

impl Built {
    fn new(below: &[&'static [usize]]) -> Self {
        Self::registered(below, 0..below.len())
    }

    /// Registered in this order, which may differ from the order of the builds.
    fn registered(below: &[&'static [usize]], order: impl Iterator<Item = usize>) -> Self {
        let registry = Registry::with_capacity(below.len()).unwrap();
        let id = |i| registry.register(&format!("s{i}")).unwrap();
        for i in order {
            let _: ServiceId<usize> = id(i);
        }
        let ids: Vec<_> = (0..below.len()).map(id).collect();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        let running = below.iter().map(|_| None).collect();
        let mut built = Self { registry, ids, providers, running, below: below.to_vec() };
        built.rebuild();
        built
    }

    fn attempt(&self, i: usize) -> Attempt<usize> {
        let attempt = self.providers[i].begin().wait_blocking_timeout(LONG).unwrap();
        for &dependency in self.below[i] {
            let id = self.ids[dependency];
            attempt.wait_for(id).wait_blocking_timeout(LONG).unwrap();
        }
        attempt
    }

    /// Publishes every service that is down.
    fn rebuild(&mut self) {
        for i in 0..self.ids.len() {
            if self.registry.get(self.ids[i]).is_err() {
                self.running[i] = Some(self.attempt(i).ready(i).unwrap());
            }
        }
    }

    fn generations(&self) -> Vec<u64> {
        self.ids.iter().map(|&id| self.registry.status(id).unwrap().generation.get()).collect()
    }

    /// Fails the service, and checks that exactly `expected` fail.
    fn check(&mut self, failed: usize, expected: &[usize]) {
        let before = self.generations();
        let guards: Vec<_> = self.ids.iter().map(|&id| self.registry.get(id).unwrap()).collect();
        let mut cached: Vec<_> =
            self.ids.iter().map(|&id| self.registry.cached(id).unwrap()).collect();
        cached.iter_mut().for_each(|cached| assert!(cached.get().is_ok()));

        let cascade = self.registry.fail(self.ids[failed], format!("s{failed} it is")).unwrap();
        assert_eq!((cascade.failed, cascade.invalidated), (expected.len(), 0));
        for (i, &id) in self.ids.iter().enumerate() {
            let (down, status) = (expected.contains(&i), self.registry.status(id).unwrap());
            assert_eq!(self.registry.get(id).is_err(), down, "{i} when {failed} has failed");
            assert_eq!(self.registry.get_arc(id).is_err(), down);
            assert_eq!(self.registry.get_all((id,)).is_err(), down);
            assert_eq!(cached[i].get().is_err(), down);
            assert_eq!(self.running[i].as_ref().unwrap().instance().is_none(), down);
            assert_eq!(status.generation, before[i] + u64::from(down));
            assert_eq!(status.phase, if down { Phase::Down } else { Phase::Ready });
            assert_eq!(*guards[i], i, "a guard from before the failure lost its value");
            if down {
                let failure = self.running[i].as_ref().unwrap().failed().wait_blocking().unwrap();
                for failure in [failure, status.last_failure.unwrap()] {
                    assert_eq!(
                        (&*failure.service, failure.generation.get()),
                        (&*status.name, before[i])
                    );
                    assert_eq!(failure.root, *format!("s{failed}"));
                    assert_eq!(failure.root_generation, before[failed]);
                    assert_eq!(failure.reason.to_string(), format!("s{failed} it is"));
                }
            }
        }
        self.rebuild();
    }
}

#[test]
fn fail_returns_only_after_all_dependents_of_a_chain_are_unreadable() {
    let mut chain = Built::new(&[&[], &[0], &[1], &[2], &[3]]);
    for _ in 0..3 {
        chain.check(2, &[2, 3, 4]);
        chain.check(0, &[0, 1, 2, 3, 4]);
        chain.check(4, &[4]);
    }
}

#[test]
fn fail_takes_down_each_dependent_of_two_diamonds_once_and_no_other_service() {
    let below: [&[usize]; 8] = [&[], &[0], &[0], &[1, 2], &[3], &[3], &[4, 5, 0], &[]];
    check_two_diamonds(Built::new(&below));
    check_two_diamonds(Built::registered(&below, (0..8).rev()));
    check_two_diamonds(Built::registered(&below, [4, 0, 6, 2, 7, 1, 5, 3].into_iter()));
}

/// Fails services of two diamonds, one on top of the other, and one service apart.
fn check_two_diamonds(mut two: Built) {
    for _ in 0..3 {
        two.check(0, &[0, 1, 2, 3, 4, 5, 6]);
        two.check(1, &[1, 3, 4, 5, 6]);
        two.check(3, &[3, 4, 5, 6]);
        two.check(5, &[5, 6]);
        two.check(7, &[7]);
    }
}

#[test]
fn fail_invalidates_and_counts_the_attempts_of_dependents() {
    let mut built = Built::new(&[&[], &[0], &[0], &[1]]);
    built.running[1].take().unwrap().fail("again");
    let attempt = built.attempt(1);
    let before_its_wait = built.providers[3].begin().wait_blocking().unwrap();
    let cascade = built.registry.fail(built.ids[0], "under it").unwrap();
    assert_eq!((cascade.failed, cascade.invalidated), (2, 2));
    assert!(attempt.is_invalidated() && before_its_wait.is_invalidated());
    let refused = attempt.ready(1).unwrap_err();
    let text = chain(&refused).to_string();
    assert_eq!(text, "s1 was not published: s1 failed because s0 failed: under it");
    drop(before_its_wait);
    built.rebuild();
    built.check(0, &[0, 1, 2, 3]);
}

#[test]
fn fail_of_a_service_that_is_down_changes_nothing() {
    let (registry, [a, b]) = registry_of::<u8, 2>(["a", "b"]);
    registry.depends(b).on(a).unwrap();
    let (_provide_a, running_a) = up(&registry, a, 1);
    let (_provide_b, running_b) = up(&registry, b, 1);
    running_a.fail("first");
    let generations =
        || [a, b].map(|id| registry.status(id).unwrap()).map(|status| status.generation);
    let before = generations();
    for _ in 0..3 {
        assert_eq!(registry.fail(a, "second").unwrap(), Cascade::default());
        assert_eq!(registry.fail(AnyId::from(b), "third").unwrap(), Cascade::default());
    }
    assert_eq!(generations(), before);
    assert_eq!(running_b.failed().wait_blocking().unwrap().reason.to_string(), "first");
    assert_eq!(registry.status(a).unwrap().last_failure.unwrap().reason.to_string(), "first");
}

#[test]
fn a_running_handle_fails_only_its_own_generation() {
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let (provider, old) = up(&registry, id, 1);
    registry.fail(id, "gone").unwrap();
    let new = publish(&provider, 2);
    assert_eq!(old.fail("late"), Cascade::default());
    assert_eq!(*registry.get(id).unwrap(), 2);
    assert_eq!(new.fail("in time").failed, 1);
}

#[test]
fn a_failure_keeps_its_reason_as_it_was_passed() {
    #[derive(Debug, PartialEq)]
    struct Numbered(u32);
    impl fmt::Display for Numbered {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "number {}", self.0)
        }
    }
    impl Error for Numbered {}

    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let provider = registry.provide(id).unwrap();
    let reason = |reason: Box<dyn Error + Send + Sync>| {
        let running = publish(&provider, 1);
        registry.fail(id, reason).unwrap();
        let failure = running.failed().wait_blocking().unwrap();
        assert_eq!(failure.to_string(), "service failed");
        let source = failure.source().map(ToString::to_string);
        assert_eq!(source, Some(failure.reason.to_string()));
        match failure.reason {
            Reason::Error(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason("text".into()).to_string(), "text");
    assert_eq!(reason(String::from("a String").into()).to_string(), "a String");
    assert_eq!(reason(Numbered(7).into()).downcast_ref(), Some(&Numbered(7)));
    let error = reason(io::Error::from(io::ErrorKind::BrokenPipe).into());
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);

    drop(publish(&provider, 1));
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert!(failure.source().is_none(), "a dropped handle has no source");
}

#[test]
fn a_thousand_reports_of_one_instance_cause_one_restart() {
    let registry = &Registry::with_capacity(1).unwrap();
    let client = registry.register::<u64>("client").unwrap();
    let provider = registry.provide(client).unwrap();
    for round in 0..20 {
        let running = publish(&provider, round);
        let (met, failed) = (Barrier::new(9), AtomicUsize::new(0));
        thread::scope(|scope| {
            let reporter = || {
                let instances: Vec<_> =
                    (0..125).map(|_| registry.get_arc(client).unwrap()).collect();
                met.wait();
                for instance in instances {
                    match registry.fail_instance(&instance, "reset by peer").unwrap() {
                        FailOutcome::Failed(cascade) => {
                            failed.fetch_add(cascade.failed, Ordering::Relaxed)
                        }
                        FailOutcome::AlreadyFailed => 0,
                        FailOutcome::Replaced => panic!("the instance was not replaced"),
                    };
                }
            };
            let reporters: Vec<_> = (0..8).map(|_| scope.spawn(reporter)).collect();
            met.wait();
            let failure = running.failed().wait_blocking_timeout(LONG).unwrap();
            assert_eq!(
                (failure.generation.get(), failure.reason.to_string()),
                (2 * round, "reset by peer".into())
            );
            // The next instance is published while most threads have not yet reported this one.
            let next = publish(&provider, round);
            for reporter in reporters {
                reporter.join().unwrap();
            }
            assert!(next.instance().is_some(), "a report has failed the next instance");
            next.fail("the round is over");
        });
        assert_eq!(failed.load(Ordering::Relaxed), 1, "exactly one report fails it");
        assert_eq!(registry.status(client).unwrap().generation, 2 * round + 2);
    }
}

#[test]
fn a_report_of_a_replaced_value_does_nothing() {
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let (provider, running) = up(&registry, id, 1);
    let (old, guard) = (registry.get_arc(id).unwrap(), registry.get(id).unwrap());
    running.replace(2).unwrap();
    assert_eq!(registry.fail_instance(&old, "broken").unwrap(), FailOutcome::Replaced);
    assert_eq!(
        registry.fail_instance(Guard::instance(&guard), "broken").unwrap(),
        FailOutcome::Replaced
    );
    assert_eq!(*registry.get(id).unwrap(), 2);

    let now = registry.get_arc(id).unwrap();
    match registry.fail_instance(&now, "broken").unwrap() {
        FailOutcome::Failed(cascade) => assert_eq!(cascade.failed, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(registry.fail_instance(&now, "broken").unwrap(), FailOutcome::AlreadyFailed);
    let _running = publish(&provider, 3);
    assert_eq!(registry.fail_instance(&now, "broken").unwrap(), FailOutcome::AlreadyFailed);
    assert_eq!((*registry.get(id).unwrap(), Instance::generation(&now).get()), (3, 0));
}

#[test]
fn a_report_of_a_replaced_value_returns_already_failed_after_its_generation_failed() {
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let (_provider, running) = up(&registry, id, 1);
    let old = registry.get_arc(id).unwrap();
    running.replace(2).unwrap();
    registry.fail(id, "over").unwrap();
    let report = registry.fail_instance(&old, "broken").unwrap();
    assert_eq!(report, FailOutcome::AlreadyFailed, "`Replaced` means that the generation is ready");
}

/// Two threads fail two roots of one diamond, and a third one reports an instance of it.
#[test]
fn concurrent_failures_count_each_failed_instance_once() {
    let mut built = Built::new(&[&[], &[], &[0, 1], &[2], &[2]]);
    let seed = Seed::new();
    let mut random = seed.random(0);
    for round in 0..500 {
        let start = &Barrier::new(3);
        let failed: usize = thread::scope(|scope| {
            let (registry, ids) = (&built.registry, &built.ids);
            let lag = [random.below(500), random.below(500), random.below(500)];
            let wait = move |i: usize| {
                start.wait();
                (0..lag[i]).for_each(|_| std::hint::spin_loop());
            };
            let met = registry.get_arc(ids[2]).unwrap();
            let threads = [
                scope.spawn(move || {
                    wait(0);
                    registry.fail(ids[0], "at once").unwrap()
                }),
                scope.spawn(move || {
                    wait(1);
                    registry.fail(ids[1], "at once").unwrap()
                }),
                scope.spawn(move || {
                    wait(2);
                    match registry.fail_instance(&met, "at once").unwrap() {
                        FailOutcome::Failed(cascade) => cascade,
                        _ => Cascade::default(),
                    }
                }),
            ];
            threads.map(|thread| thread.join().unwrap().failed).iter().sum()
        });
        assert_eq!(failed, 5, "in round {round}");
        built.rebuild();
    }
}
