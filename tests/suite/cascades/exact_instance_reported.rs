//! Reports of exactly one instance.
//!
//! - An instance is identified by its service, its generation and its revision. The revision counts
//!   the replacements within the generation, and begins at 0.
//! - A report fails the service only if the reported instance is current. If it was replaced, the
//!   report returns `Replaced`; if its generation has ended, `AlreadyFailed`.
//! - An id without a revision names every instance of its generation.
//! - An id outlives its instance. An id of no instance fails nothing.
//! - Of a report and a replacement at the same time exactly one succeeds.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use crate::support::{Seed, publish, registry_of, up};
use mainstay::{Cascade, FailOutcome, Guard, Instance, InstanceId, Registry, Running, ServiceId};

fn one() -> (Registry, ServiceId<u32>) {
    let (registry, [id]) = registry_of(["service"]);
    (registry, id)
}

/// The id of the current instance.
fn current(running: &Running<u32>) -> InstanceId {
    (&running.instance().unwrap()).into()
}

/// Reports the instance, and returns the outcome without its counts.
fn report(registry: &Registry, broken: impl Into<InstanceId>) -> &'static str {
    match registry.fail_instance(broken, "broken").unwrap() {
        FailOutcome::Failed(cascade) => {
            assert_eq!((cascade.failed, cascade.invalidated), (1, 0));
            "failed"
        }
        FailOutcome::AlreadyFailed => "already failed",
        FailOutcome::Replaced => "replaced",
    }
}

#[test]
fn a_revision_counts_the_replacements_of_a_generation() {
    let (registry, id) = one();
    let (provider, mut running) = up(&registry, id, 0);
    for generation in 0..3 {
        for revision in 0..4 {
            if revision > 0 {
                running.replace(revision as u32).unwrap();
            }
            let (guard, instance) = (registry.get(id).unwrap(), registry.get_arc(id).unwrap());
            assert_eq!(Instance::revision(Guard::instance(&guard)), revision);
            assert_eq!(Instance::revision(&instance), revision);
            let ids: [InstanceId; 3] = [(&guard).into(), (&instance).into(), (&*instance).into()];
            for InstanceId { service, generation: of, revision: at } in ids {
                assert_eq!((service, of.get(), at), (id.into(), generation, Some(revision)));
            }
        }
        running.fail("the next generation");
        running = publish(&provider, 0);
    }
}

#[test]
fn a_refused_replacement_counts_no_revision_of_the_next_generation() {
    let (registry, id) = one();
    let (provider, old) = up(&registry, id, 0);
    registry.fail(id, "gone").unwrap();
    let new = publish(&provider, 1);
    assert!(old.replace(2).is_err());
    assert_eq!(Instance::revision(&new.instance().unwrap()), 0);
    new.replace(3).unwrap();
    assert_eq!(Instance::revision(&new.instance().unwrap()), 1);
}

#[test]
fn a_report_fails_only_the_current_revision() {
    let (registry, id) = one();
    let (provider, running) = up(&registry, id, 0);
    let mut ids = vec![current(&running)];
    for value in 1..4 {
        running.replace(value).unwrap();
        ids.push(current(&running));
    }
    let last = ids.pop().unwrap();
    for old in ids.clone() {
        assert_eq!(report(&registry, old), "replaced");
        assert_eq!(*registry.get(id).unwrap(), 3);
    }
    assert_eq!(report(&registry, last), "failed");
    ids.push(last);
    for old in ids.clone() {
        assert_eq!(report(&registry, old), "already failed");
    }
    let _next = publish(&provider, 4);
    for old in ids {
        assert_eq!(report(&registry, old), "already failed");
    }
    assert_eq!(*registry.get(id).unwrap(), 4);
    assert_eq!(registry.status(id).unwrap().generation, 1);
}

#[test]
fn a_report_accepts_a_guard_an_arc_and_an_instance() {
    let (registry, id) = one();
    let (provider, running) = up(&registry, id, 0);
    assert_eq!(report(&registry, &registry.get(id).unwrap()), "failed");
    drop(running);
    let running = publish(&provider, 1);
    assert_eq!(report(&registry, &registry.get_arc(id).unwrap()), "failed");
    drop(running);
    let _running = publish(&provider, 2);
    assert_eq!(report(&registry, Guard::instance(&registry.get(id).unwrap())), "failed");
}

#[test]
fn an_id_without_a_revision_names_the_whole_generation() {
    let (registry, id) = one();
    let (_provider, running) = up(&registry, id, 0);
    let any = InstanceId { revision: None, ..current(&running) };
    running.replace(1).unwrap();
    running.replace(2).unwrap();
    assert_eq!(report(&registry, any), "failed");
    assert_eq!(report(&registry, any), "already failed");
}

#[test]
fn an_id_of_no_instance_fails_nothing() {
    let (registry, id) = one();
    let (provider, running) = up(&registry, id, 0);
    let first = current(&running);
    running.fail("gone");
    let next = publish(&provider, 1);
    let second = current(&next);
    // A revision that has not been published yet, and one of a generation that has not begun.
    let made_up = [
        InstanceId { revision: Some(1), ..second },
        InstanceId { revision: Some(u64::MAX), ..second },
        InstanceId { revision: Some(7), ..first },
    ];
    for made_up in made_up {
        assert_ne!(report(&registry, made_up), "failed");
        assert_eq!(*registry.get(id).unwrap(), 1);
    }
    drop(next);
    let next = publish(&provider, 2);
    let future = current(&next);
    let (other, [of_other]) = registry_of::<u32, 1>(["service"]);
    let (_provider, _of_other) = up(&other, of_other, 1);
    let service = of_other.into();
    let made_up = InstanceId { service, ..future };
    assert_ne!(report(&other, made_up), "failed", "a generation that has not begun");
    assert_eq!(*other.get(of_other).unwrap(), 1);
}

#[test]
fn a_report_to_another_registry_returns_an_error() {
    let (registry, id) = one();
    let (_provider, running) = up(&registry, id, 0);
    let (other, _) = one();
    assert!(other.fail_instance(current(&running), "broken").is_err());
    assert!(registry.get(id).is_ok());
}

#[test]
fn a_late_report_by_id_does_not_keep_the_value() {
    let (registry, [id]) = registry_of::<Arc<()>, 1>(["service"]);
    let value = Arc::new(());
    let (provider, running) = up(&registry, id, Arc::clone(&value));
    let broken = InstanceId::from(&registry.get(id).unwrap());
    drop(running);
    assert_eq!(Arc::strong_count(&value), 1, "an id keeps no value");
    let _next = publish(&provider, value);
    let late = registry.fail_instance(broken, "broken").unwrap();
    assert_eq!(late, FailOutcome::AlreadyFailed);
}

/// Two reporters and a provider that replaces: `Failed` means that the reported value was current,
/// so that the replacement was refused.
#[test]
fn a_report_and_a_replacement_at_once_never_both_succeed() {
    let (registry, id) = one();
    let provider = registry.provide(id).unwrap();
    let mut random = Seed::new().random(0);
    for round in 0..3_000 {
        let running = publish(&provider, 0);
        let (v0, start) = (running.instance().unwrap(), &Barrier::new(3));
        let lag = [0; 3].map(|_| random.below(200));
        let wait = move |thread: usize| {
            start.wait();
            (0..lag[thread]).for_each(|_| std::hint::spin_loop());
        };
        let (replaced, outcomes) = thread::scope(|scope| {
            let reporters = [0, 1].map(|number| {
                let (v0, registry) = (&v0, &registry);
                scope.spawn(move || {
                    wait(number);
                    registry.fail_instance(v0, "broken").unwrap()
                })
            });
            wait(2);
            let replaced = running.replace(1).is_ok();
            (replaced, reporters.map(|reporter| reporter.join().unwrap()))
        });
        let failed = outcomes.iter().filter(|o| matches!(o, FailOutcome::Failed(_))).count();
        assert_eq!(failed, usize::from(!replaced), "in round {round}: {outcomes:?}");
        assert_eq!(registry.get(id).is_ok(), replaced, "in round {round}");
        if replaced {
            assert_eq!(outcomes, [FailOutcome::Replaced; 2], "in round {round}");
            assert_ne!(running.fail("the round is over"), Cascade::default());
        }
    }
}
