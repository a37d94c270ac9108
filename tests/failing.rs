//! Failing: by chain, by one call, by a thousand reporters.
//!
//! - A failure takes down all that stands on the service, however far, once, and nothing else; it says how
//!   many instances went down and how many attempts were overtaken.
//! - When it has returned, nothing of that can be read, in whatever way.
//! - Each one that went down names the service at which it began, its generation and the reason, which is kept
//!   as it was given.
//! - Failing a service that is down changes nothing.
//! - A report fails exactly the generation of the instance that was met: of any number of reporters one does,
//!   none of them hits the next instance, and one of a replaced value does nothing.
//! - Failures from several threads at once neither miss nor double anything.

mod support;

use std::{
    error::Error,
    fmt, io,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use mainstay::{
    AnyId, Attempt, Cascade, Guard, Instance, Phase, Provider, Reason, Registry, Report, Running,
    ServiceId,
};
use support::{LONG, Seed, again, up};

/// Services of which each is built from some before it; all up.
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

    /// Registered in this order, which need not be the one in which they are built.
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
        let attempt = self.providers[i].begin().wait_timeout(LONG).unwrap();
        for &dependency in self.below[i] {
            let id = self.ids[dependency];
            attempt.wait_for(id).wait_timeout(LONG).unwrap();
        }
        attempt
    }

    /// Brings all that is down up again.
    fn rebuild(&mut self) {
        for i in 0..self.ids.len() {
            if self.registry.get(self.ids[i]).is_err() {
                self.running[i] = Some(self.attempt(i).ready(i).unwrap());
            }
        }
    }

    fn generations(&self) -> Vec<u64> {
        self.ids.iter().map(|&id| self.registry.status(id).unwrap().generation).collect()
    }

    /// Fails it, and what comes down is this and nothing else.
    fn check(&mut self, failed: usize, comes_down: &[usize]) {
        let before = self.generations();
        let guards: Vec<_> = self.ids.iter().map(|&id| self.registry.get(id).unwrap()).collect();
        let mut cached: Vec<_> =
            self.ids.iter().map(|&id| self.registry.cached(id).unwrap()).collect();
        cached.iter_mut().for_each(|cached| assert!(cached.get().is_ok()));

        let cascade = self.registry.fail(self.ids[failed], format!("s{failed} it is")).unwrap();
        assert_eq!((cascade.went_down, cascade.overtaken), (comes_down.len(), 0));
        for (i, &id) in self.ids.iter().enumerate() {
            let (down, status) = (comes_down.contains(&i), self.registry.status(id).unwrap());
            assert_eq!(self.registry.get(id).is_err(), down, "{i} when {failed} has failed");
            assert_eq!(self.registry.get_arc(id).is_err(), down);
            assert_eq!(self.registry.get_all((id,)).is_err(), down);
            assert_eq!(cached[i].get().is_err(), down);
            assert_eq!(self.running[i].as_ref().unwrap().instance().is_none(), down);
            assert_eq!(status.generation, before[i] + u64::from(down));
            assert_eq!(status.phase, if down { Phase::Down } else { Phase::Ready });
            assert_eq!(*guards[i], i, "who held it before holds it still");
            if down {
                let failure = self.running[i].as_ref().unwrap().failed().wait().unwrap();
                for failure in [failure, status.last_failure.unwrap()] {
                    assert_eq!((&*failure.service, failure.generation), (&*status.name, before[i]));
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
fn a_chain() {
    let mut chain = Built::new(&[&[], &[0], &[1], &[2], &[3]]);
    for _ in 0..3 {
        chain.check(2, &[2, 3, 4]);
        chain.check(0, &[0, 1, 2, 3, 4]);
        chain.check(4, &[4]);
    }
}

#[test]
fn diamonds() {
    let below: [&[usize]; 8] = [&[], &[0], &[0], &[1, 2], &[3], &[3], &[4, 5, 0], &[]];
    two_diamonds(Built::new(&below));
    two_diamonds(Built::registered(&below, (0..8).rev()));
    two_diamonds(Built::registered(&below, [4, 0, 6, 2, 7, 1, 5, 3].into_iter()));
}

fn two_diamonds(mut two: Built) {
    for _ in 0..3 {
        two.check(0, &[0, 1, 2, 3, 4, 5, 6]);
        two.check(1, &[1, 3, 4, 5, 6]);
        two.check(3, &[3, 4, 5, 6]);
        two.check(5, &[5, 6]);
        two.check(7, &[7]);
    }
}

#[test]
fn attempts_are_counted_and_overtaken() {
    let mut built = Built::new(&[&[], &[0], &[0], &[1]]);
    built.running[1].take().unwrap().fail("again");
    let attempt = built.attempt(1);
    let stands_on_it_later = built.providers[3].begin().wait().unwrap();
    let cascade = built.registry.fail(built.ids[0], "under it").unwrap();
    assert_eq!((cascade.went_down, cascade.overtaken), (2, 2));
    assert!(attempt.is_overtaken() && stands_on_it_later.is_overtaken());
    let refused = attempt.ready(1).unwrap_err();
    assert_eq!(refused.to_string(), "not published: s1 went down with s0: under it");
    drop(stands_on_it_later);
    built.rebuild();
    built.check(0, &[0, 1, 2, 3]);
}

#[test]
fn failing_what_is_down_changes_nothing() {
    let registry = Registry::with_capacity(2).unwrap();
    let (a, b) = (registry.register::<u8>("a").unwrap(), registry.register::<u8>("b").unwrap());
    registry.add_dependency(b, a).unwrap();
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
    assert_eq!(running_b.failed().wait().unwrap().reason.to_string(), "first");
    assert_eq!(registry.status(a).unwrap().last_failure.unwrap().reason.to_string(), "first");
}

#[test]
fn a_handle_fails_its_own_generation_only() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("service").unwrap();
    let (provider, old) = up(&registry, id, 1);
    registry.fail(id, "gone").unwrap();
    let new = again(&provider, 2);
    assert_eq!(old.fail("late"), Cascade::default());
    assert_eq!(*registry.get(id).unwrap(), 2);
    assert_eq!(new.fail("in time").went_down, 1);
}

#[test]
fn reasons_are_kept_as_they_were_given() {
    #[derive(Debug, PartialEq)]
    struct Mine(u32);
    impl fmt::Display for Mine {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "number {}", self.0)
        }
    }
    impl Error for Mine {}

    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let reason = |reason: Box<dyn Error + Send + Sync>| {
        let running = again(&provider, 1);
        registry.fail(id, reason).unwrap();
        let failure = running.failed().wait().unwrap();
        assert_eq!(failure.to_string(), format!("service failed: {}", failure.reason));
        let source = failure.source().map(ToString::to_string);
        assert_eq!(source, Some(failure.reason.to_string()));
        match failure.reason {
            Reason::Error(error) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason("text".into()).to_string(), "text");
    assert_eq!(reason(String::from("a String").into()).to_string(), "a String");
    assert_eq!(reason(Mine(7).into()).downcast_ref(), Some(&Mine(7)));
    let error = reason(io::Error::from(io::ErrorKind::BrokenPipe).into());
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);

    drop(again(&provider, 1));
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert!(failure.source().is_none(), "nobody gave a reason");
}

#[test]
fn a_thousand_reporters_cause_one_restart() {
    let registry = &Registry::with_capacity(1).unwrap();
    let client = registry.register::<u64>("client").unwrap();
    let provider = registry.provide(client).unwrap();
    for round in 0..20 {
        let running = again(&provider, round);
        let (met, failed) = (Barrier::new(9), AtomicUsize::new(0));
        thread::scope(|scope| {
            let reporter = || {
                let instances: Vec<_> =
                    (0..125).map(|_| registry.get_arc(client).unwrap()).collect();
                met.wait();
                for instance in instances {
                    match registry.report(&instance, "reset by peer").unwrap() {
                        Report::Failed(cascade) => {
                            failed.fetch_add(cascade.went_down, Ordering::Relaxed)
                        }
                        Report::AlreadyFailed => 0,
                        Report::Replaced => panic!("nobody has replaced it"),
                    };
                }
            };
            let reporters: Vec<_> = (0..8).map(|_| scope.spawn(reporter)).collect();
            met.wait();
            let failure = running.failed().wait_timeout(LONG).unwrap();
            assert_eq!(
                (failure.generation, failure.reason.to_string()),
                (2 * round, "reset by peer".into())
            );
            // The next one comes while most of them have not yet reported the last.
            let next = again(&provider, round);
            for reporter in reporters {
                reporter.join().unwrap();
            }
            assert!(next.instance().is_some(), "a report has hit the next instance");
            next.fail("the round is over");
        });
        assert_eq!(failed.load(Ordering::Relaxed), 1, "one of the thousand");
        assert_eq!(registry.status(client).unwrap().generation, 2 * round + 2);
    }
}

#[test]
fn a_report_of_a_replaced_value_does_nothing() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("service").unwrap();
    let (provider, running) = up(&registry, id, 1);
    let (old, guard) = (registry.get_arc(id).unwrap(), registry.get(id).unwrap());
    running.replace(2).unwrap();
    assert_eq!(registry.report(&old, "broken").unwrap(), Report::Replaced);
    assert_eq!(registry.report(Guard::instance(&guard), "broken").unwrap(), Report::Replaced);
    assert_eq!(*registry.get(id).unwrap(), 2);

    let now = registry.get_arc(id).unwrap();
    match registry.report(&now, "broken").unwrap() {
        Report::Failed(cascade) => assert_eq!(cascade.went_down, 1),
        other => panic!("{other:?}"),
    }
    assert_eq!(registry.report(&now, "broken").unwrap(), Report::AlreadyFailed);
    let _running = again(&provider, 3);
    assert_eq!(registry.report(&now, "broken").unwrap(), Report::AlreadyFailed);
    assert_eq!((*registry.get(id).unwrap(), Instance::generation(&now)), (3, 0));
}

#[test]
fn a_report_of_a_replaced_value_after_its_generation_failed() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("service").unwrap();
    let (_provider, running) = up(&registry, id, 1);
    let old = registry.get_arc(id).unwrap();
    running.replace(2).unwrap();
    registry.fail(id, "over").unwrap();
    let report = registry.report(&old, "broken").unwrap();
    assert_eq!(report, Report::AlreadyFailed, "`Replaced` says that the generation lives");
}

/// Two roots of one diamond fail at once, and a third thread reports: each instance goes down once.
#[test]
fn failures_at_once_count_each_instance_once() {
    let mut built = Built::new(&[&[], &[], &[0, 1], &[2], &[2]]);
    let seed = Seed::new();
    let mut random = seed.random(0);
    for round in 0..500 {
        let start = &Barrier::new(3);
        let went_down: usize = thread::scope(|scope| {
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
                    match registry.report(&met, "at once").unwrap() {
                        Report::Failed(cascade) => cascade,
                        _ => Cascade::default(),
                    }
                }),
            ];
            threads.map(|thread| thread.join().unwrap().went_down).iter().sum()
        });
        assert_eq!(went_down, 5, "in round {round}");
        built.rebuild();
    }
}
