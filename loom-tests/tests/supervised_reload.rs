//! S20, S21: a reload ends once, whatever happens to its member at the same time. The clock is
//! paused, so no timeout ever expires.
//!
//! ```text
//! coordinator: ask (lock) | all prepared? switch, note it, wake | abandoned: why?
//! supervisor:  find the request, build aside, hand over | take over | refuse at the end
//! failer:            fail
//! a newer one:       abandon the older one, wait until its member is free, ask
//! ```
//!
//! What must not happen: a reload waits for ever; it says that it was switched, and the old
//! instance is current, or the other way round; two reloads are both switched by one build.
#![cfg(loom)]

use std::{
    future::ready,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::Poll,
};

use loom::thread::spawn;
use mainstay::{Guard, Registry, ServiceId, error::ReloadError, supervise::ReloadWait};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service that is up, whose values are the numbers of its builds, and its supervisor.
fn supervised() -> (Registry, ServiceId<u8>, Run) {
    let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
    let x = registry.register("x").unwrap();
    let builds = Arc::new(AtomicU8::new(0));
    let supervisor = registry.supervise(x).unwrap();
    let mut run: Run = Box::pin(supervisor.run(move |_| ready(builds.fetch_add(1, Relaxed))));
    assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());
    (registry, x, run)
}

/// Polls the supervisor and the reloads until all reloads are over. Returns whether each has
/// switched.
fn end<const N: usize>(run: &mut Run, mut reloads: [ReloadWait; N]) -> [bool; N] {
    let mut ended = [None; N];
    // Of several, each waits for the end of the one before.
    for _ in 0..2 * N + 2 {
        assert!(poll_once(&mut *run).is_pending());
        for (reload, ended) in reloads.iter_mut().zip(&mut ended) {
            if ended.is_some() {
                continue;
            }
            if let Poll::Ready(result) = poll_once(reload) {
                *ended = Some(result.is_ok());
            }
        }
    }
    ended.map(|ended| ended.expect("S21: a reload has no end"))
}

fn present(registry: &Registry, x: ServiceId<u8>) -> Option<(u64, u64, u8)> {
    let guard = registry.get(x).ok()?;
    Some((Guard::generation(&guard).get(), Guard::revision(&guard), *guard))
}

/// The generation ends while its supervisor builds aside. (Preemption bound: 2.)
#[test]
fn a_build_aside_ends_with_its_generation() {
    model("a build aside ends with its generation", Some(2), || {
        let (registry, x, mut run) = supervised();
        let mut reload = registry.reload(x);
        assert!(poll_once(&mut reload).is_pending());
        let supervisor = spawn(move || {
            let ended = poll_once(&mut run).is_pending();
            (run, ended)
        });
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "edited").unwrap();
                assert!(registry.get(x).is_err(), "A2: readable after its failure");
            }
        });
        let (mut run, is_running) = join(supervisor);
        assert!(is_running);
        join(failer);
        let [has_switched] = end(&mut run, [reload]);
        assert!(!has_switched, "S20: it had failed before the switch");
        // Its generation was over before the switch, and it is built again after a delay.
        assert_eq!(present(&registry, x), None, "S20: a build aside has survived its generation");
    });
}

/// The member is prepared. Its reload is dropped, or switches, while it fails. (Preemption
/// bound: 2.)
#[test]
fn a_prepared_member_fails_before_or_after_the_switch() {
    model("a prepared member fails before or after the switch", Some(2), || {
        let (registry, x, mut run) = supervised();
        let mut reload = registry.reload(x);
        assert!(poll_once(&mut reload).is_pending());
        assert!(poll_once(&mut run).is_pending(), "prepared");
        let coordinator = spawn(move || match poll_once(&mut reload) {
            Poll::Ready(result) => Some(result.is_ok()),
            // It begins anew, because the member was not what it had been.
            Poll::Pending => {
                drop(reload);
                None
            }
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "edited").unwrap()
        });
        let switched = join(coordinator);
        join(failer);
        assert_eq!(present(&registry, x), None, "A2: it has failed");
        assert!(poll_once(&mut run).is_pending());
        let replaced = registry.status(x).unwrap().replaced;
        assert_eq!(replaced, u64::from(switched == Some(true)), "S21: the caller learns which");
    });
}

/// A reload is dropped while its member is built or taken over. (Preemption bound: 2.)
#[test]
fn an_abandoned_reload_changes_nothing() {
    model("an abandoned reload changes nothing", Some(2), || {
        let (registry, x, mut run) = supervised();
        let mut reload = registry.reload(x);
        assert!(poll_once(&mut reload).is_pending());
        let supervisor = spawn(move || {
            assert!(poll_once(&mut run).is_pending());
            run
        });
        let abandoned = spawn(move || drop(reload));
        let mut run = join(supervisor);
        join(abandoned);
        assert_eq!(present(&registry, x), Some((0, 0, 0)), "S21: nothing is switched");
        // The next one is not kept from its member.
        let [has_switched] = end(&mut run, [registry.reload(x)]);
        assert!(has_switched, "S21: an abandoned reload is in the way");
        assert!(matches!(present(&registry, x), Some((0, 1, 1 | 2))));
    });
}

/// Two reloads of one root, one of which may have been prepared. (Preemption bound: 2.)
#[test]
fn a_newer_reload_ends_or_follows_the_older_one() {
    model("a newer reload ends or follows the older one", Some(2), || {
        let (registry, x, mut run) = supervised();
        let mut older = registry.reload(x);
        assert!(poll_once(&mut older).is_pending());
        assert!(poll_once(&mut run).is_pending(), "prepared");
        let older = spawn(move || match poll_once(&mut older) {
            Poll::Ready(Ok(_)) => true,
            Poll::Ready(Err(ReloadError::Superseded { .. })) => false,
            other => panic!("{other:?}"),
        });
        let newer = spawn({
            let registry = registry.clone();
            move || {
                let mut newer = registry.reload(x);
                assert!(poll_once(&mut newer).is_pending());
                newer
            }
        });
        let has_switched = join(older);
        let newer = join(newer);
        let [newest] = end(&mut run, [newer]);
        assert!(newest, "S21: the newest reload is refused");
        let revision = 1 + u64::from(has_switched);
        let found = present(&registry, x).map(|(generation, revision, _)| (generation, revision));
        assert_eq!(found, Some((0, revision)), "S21: one build is switched twice, or none");
    });
}

/// Nothing polls the older one any more, while its member is built. (Preemption bound: 2.)
#[test]
fn a_newer_reload_does_not_wait_for_an_older_one_that_is_not_polled() {
    let name = "a newer reload does not wait for an older one that is not polled";
    model(name, Some(2), || {
        let (registry, x, mut run) = supervised();
        let mut older = registry.reload(x);
        assert!(poll_once(&mut older).is_pending());
        let supervisor = spawn(move || {
            assert!(poll_once(&mut run).is_pending());
            run
        });
        let newer = spawn({
            let registry = registry.clone();
            move || {
                // The supervisor may have built for it when it checks whether all is prepared.
                let mut newer = registry.reload(x);
                let ended = poll_once(&mut newer).map(|result| result.is_ok());
                (newer, ended)
            }
        });
        let mut run = join(supervisor);
        let (newer, ended) = join(newer);
        let has_switched = match ended {
            Poll::Ready(has_switched) => has_switched,
            Poll::Pending => end(&mut run, [newer]) == [true],
        };
        assert!(has_switched, "S21: the newest reload is refused");
        let superseded = poll_once(&mut older);
        assert!(
            matches!(superseded, Poll::Ready(Err(ReloadError::Superseded { .. }))),
            "{superseded:?}"
        );
        assert!(matches!(present(&registry, x), Some((0, 1, 1 | 2))));
    });
}
