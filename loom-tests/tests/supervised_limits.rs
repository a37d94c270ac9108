//! S16: no more builds run than a limit says, and a queued build is woken when it has its place.
//! loom reports a lost wake-up as a deadlock, because the clock is paused.
//!
//! ```text
//! a:  take the place | build | return the place, grant it to b: wake the slot of b
//! b:  no place: queued | listen, set the waiter bit, check: no place     sleep
//!
//! a:  take the place | wait for b: return the place | b is ready, no place: queued | sleep
//! b:                   take the place | build, publish: wake its slot | return the place
//! ```
//!
//! What must not happen: two builds run at the same time; or a build is queued for ever, because
//! the place was granted between its check and its sleep, or because it holds a place for which it
//! waits.
#![cfg(loom)]

use std::future::ready;

use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::spawn,
};
use mainstay::{Registry, ServiceId, error::WaitForError, supervise::Build};
use mainstay_loom_tests::{PausedClock, join, model};

/// The builds that run, and those that have run. The last one of them closes the registry.
#[derive(Clone)]
struct Builds {
    running: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

impl Builds {
    fn run(&self, registry: &Registry) {
        assert_eq!(self.running.fetch_add(1, SeqCst), 0, "two builds at the same time");
        self.running.fetch_sub(1, SeqCst);
        if self.done.fetch_add(1, SeqCst) == 1 {
            registry.close();
        }
    }
}

fn set_up() -> (Registry, [ServiceId<u8>; 2], Builds) {
    let clock = PausedClock::new();
    let registry = Registry::builder(2).unwrap().clock(clock).max_builds(1).build();
    let ids = ["a", "b"].map(|name| registry.register(name).unwrap());
    let builds = Builds { running: Arc::default(), done: Arc::default() };
    (registry, ids, builds)
}

/// Preemption bound: 2.
#[test]
fn a_queued_build_is_woken_when_it_has_its_place() {
    model("a queued build is woken when it has its place", Some(2), || {
        let (registry, ids, builds) = set_up();
        let threads = ids.map(|id| {
            let (supervisor, builds) = (registry.supervise(id).unwrap(), builds.clone());
            // Boxed: the stack of a thread of loom is small.
            let run = Box::pin(supervisor.run(move |build: Build<u8>| {
                builds.run(build.registry());
                ready(1)
            }));
            spawn(move || block_on(run))
        });
        threads.into_iter().for_each(join);
        assert_eq!(builds.done.load(SeqCst), 2);
    });
}

/// Preemption bound: 1.
#[test]
fn a_build_that_waits_for_another_one_has_its_place_again_when_it_continues() {
    let what = "a build that waits for another one has its place again when it continues";
    model(what, Some(1), || {
        let (registry, [a, b], builds) = set_up();
        let of_a = Box::pin(registry.supervise(a).unwrap().run({
            let builds = builds.clone();
            async move |build: Build<u8>| {
                build.wait_for(b).await?;
                builds.run(build.registry());
                Ok::<u8, WaitForError>(1)
            }
        }));
        let of_b = Box::pin(registry.supervise(b).unwrap().run({
            let builds = builds.clone();
            move |build: Build<u8>| {
                builds.run(build.registry());
                ready(2)
            }
        }));
        let of_a = spawn(move || block_on(of_a));
        block_on(of_b);
        join(of_a);
        assert_eq!(builds.done.load(SeqCst), 2);
    });
}
