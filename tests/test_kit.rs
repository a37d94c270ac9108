//! The test kit, as a test of somebody's services uses it.
//!
//! - A stage settles: what one task does to another is seen, whatever the order; it says so where there is no end.
//! - Time goes from one moment for which somebody sleeps to the next, and no further than it is told.
//! - A script's fates come in their order, one a build, and then it is built.
//! - A record has what happened in order; what is not there is named, with what is.

mod support;

use std::{future::poll_fn, panic, task::Poll, time::Duration};

use mainstay::{
    Clock, Fate, Recorder, Registry, Restart, Script, Stage, VirtualClock, WaitForError,
};
use support::poll_once;

fn said(by: impl FnOnce() + panic::UnwindSafe) -> String {
    let payload = panic::catch_unwind(by).expect_err("it panics");
    *payload.downcast().expect("and says why")
}

#[test]
fn a_chain_settles_in_any_order() {
    let mut stage = Stage::new(30).unwrap();
    let ids: Vec<_> =
        (0..30).map(|n| stage.registry.register::<u32>(&n.to_string()).unwrap()).collect();
    // The last first: each has to be polled again once the one before it is there.
    for n in (0..30).rev() {
        let below = (n > 0).then(|| ids[n - 1]);
        let run = stage.registry.supervise(ids[n]).unwrap().run(move |build| async move {
            match below {
                Some(below) => build.wait_for(below).await.map(|below| **below + 1),
                None => Ok::<_, WaitForError>(0),
            }
        });
        stage.run(run);
    }
    stage.settle();
    assert_eq!(*stage.registry.get(ids[29]).unwrap(), 29);
    stage.registry.close();
    stage.settle();
    assert!(stage.tasks.is_empty());
}

#[test]
fn what_does_not_settle_is_told() {
    let message = said(|| {
        let mut stage = Stage::new(1).unwrap();
        stage.run(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        stage.settle();
    });
    assert!(message.starts_with("it does not settle"), "{message}");
}

#[test]
fn time_goes_no_further_than_it_is_told() {
    let mut stage = Stage::new(1).unwrap();
    let begun = stage.clock.now();
    let clock = stage.clock.clone();
    stage.run(async move {
        loop {
            clock.sleep_until(clock.now() + Duration::from_secs(7)).await;
        }
    });
    let passed = |stage: &Stage| (stage.clock.now() - begun).as_secs();
    stage.advance(Duration::from_secs(20));
    assert_eq!(passed(&stage), 20);
    let late = |stage: &Stage| {
        let (clock, now) = (stage.clock.clone(), stage.clock.now());
        move |_: &Registry| clock.now() > now + Duration::from_secs(9)
    };
    // The sleeper wakes at 21 and 28.
    let holds = late(&stage);
    assert!(!stage.advance_until(Duration::from_secs(9), holds));
    assert_eq!(passed(&stage), 28);
    let holds = late(&stage);
    assert!(stage.advance_until(Duration::from_secs(60), holds));
    assert_eq!(passed(&stage), 42);
}

#[test]
fn time_goes_to_the_next_who_sleeps() {
    let clock = VirtualClock::new();
    let second = Duration::from_secs(1);
    let mut sleeps = [3, 2, 2].map(|seconds| clock.sleep_until(clock.now() + seconds * second));
    for sleep in &mut sleeps {
        assert!(poll_once(sleep).is_pending());
    }
    assert_eq!(clock.sleepers(), 3);
    assert_eq!(clock.advance_to_next(), Some(2 * second));
    assert_eq!(clock.sleepers(), 1);
    let [last, both @ ..] = &mut sleeps;
    assert!(both.iter_mut().all(|sleep| poll_once(sleep).is_ready()));
    assert!(poll_once(last).is_pending());
    assert_eq!(clock.advance_to_next(), Some(second));
    assert!(poll_once(last).is_ready());
    assert_eq!(clock.advance_to_next(), None);
}

#[test]
fn fates_come_in_their_order() {
    let mut stage = Stage::new(1).unwrap();
    let id = stage.registry.register::<u32>("a").unwrap();
    let script = Script::default();
    let fates = [Fate::Build, Fate::Fail("full".into()), Fate::Panic("odd".into()), Fate::Hang];
    fates.into_iter().for_each(|fate| script.push(fate));
    let restart = Restart::default().without_jitter().build_timeout(Duration::from_secs(1));
    let supervisor = stage.registry.supervise(id).unwrap().restart(restart);
    let mut builds = 0;
    stage.run(supervisor.run(script.over(move |_| {
        builds += 1;
        async move { Ok::<u32, String>(builds) }
    })));
    stage.settle();
    assert_eq!(*stage.registry.get(id).unwrap(), 1);
    stage.recorder.take();
    stage.registry.fail(id, "by hand").unwrap();
    assert!(stage.advance_until(Duration::from_secs(60), |registry| registry.get(id).is_ok()));
    assert_eq!(*stage.registry.get(id).unwrap(), 2);
    let ended: Vec<_> =
        stage.recorder.take().into_iter().filter(|line| !line.ends_with("begun")).collect();
    assert_eq!(
        ended,
        [
            "a 0: failed: by hand",
            "a 1: given up: full",
            "a 1: given up: the build panicked: odd",
            "a 1: given up: not built within 1s",
            "a 1: ready",
        ]
    );
}

#[test]
fn what_is_missing_is_named() {
    let recorder = Recorder::default();
    let registry = Registry::builder(1).unwrap().observer(recorder.clone()).build();
    let id = registry.register::<u32>("a").unwrap();
    let provider = registry.provide(id).unwrap();
    drop(provider.begin().wait().unwrap().ready(1).unwrap());
    recorder.assert_order(&["a 0: begun", "a 0: failed: the running handle was dropped"]);
    let wrong = recorder.clone();
    let message = said(move || wrong.assert_order(&["a 0: ready", "a 0: begun"]));
    assert_eq!(
        message,
        "\"a 0: begun\" is not there after \"a 0: ready\". There is:\n    a 0: begun\n    a 0: ready\n    \
         a 0: failed: the running handle was dropped"
    );
    recorder.take();
    let message = said(move || recorder.assert_order(&["a 0: ready"]));
    assert_eq!(message, "\"a 0: ready\" is not there. There is: nothing");
}
