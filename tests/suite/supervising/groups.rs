//! Groups of services that fail together.
//!
//! - If a member fails, all fail in one cascade, and the failure counts once. It does not matter
//!   whether it began in the member.
//! - Dependents of members fail first, and causes are reported before effects.
//! - One failure more than the limit, and a member that gives up, make the group give up as one. A
//!   restart or a start of a member, and one of the group, lets all members begin again.
//! - A failed build and a planned end of a member leave the others.
//! - A shutdown is delayed in no state.

use std::{
    future::{pending, ready},
    sync::{Arc, Mutex},
};

use super::{
    runtime::{BoxError, TestRuntime, exact, ms},
    shutting_down::begin,
};
use crate::support::{poll_once, up};
use mainstay::{
    Event, EventKind, Observer, Provider, Registry, Running, ServiceId, ServiceSet,
    error::{GroupError, GroupGivenUp},
    supervise::{Build, GroupPolicy, RestartPolicy, ServiceGroup, SupervisorState},
};

/// Members `a`, `b` and `c`, all of which are up. `fails` decides which builds fail.
struct Scene {
    runtime: TestRuntime,
    ids: [ServiceId<u32>; 3],
    group: ServiceGroup,
    fails: Arc<Mutex<Vec<usize>>>,
    /// The builds, in their order.
    builds: Arc<Mutex<Vec<usize>>>,
}

fn of_five() -> GroupPolicy {
    GroupPolicy::default().max_failures(5, ms(60_000))
}

fn none() -> GroupPolicy {
    GroupPolicy::default().max_failures(0, ms(60_000))
}

impl Scene {
    fn new(policy: GroupPolicy) -> Self {
        Self::with(policy, &exact(), |_, _| {})
    }

    fn with(
        policy: GroupPolicy,
        restart: &RestartPolicy,
        prepare: impl FnOnce(&Registry, [ServiceId<u32>; 3]),
    ) -> Self {
        let mut runtime = TestRuntime::new();
        let ids = ["a", "b", "c"].map(|name| runtime.service(name));
        let group = runtime.registry.group(ids, policy).unwrap();
        prepare(&runtime.registry, ids);
        let (fails, builds) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::default());
        for (n, &id) in ids.iter().enumerate() {
            let (fails, builds) = (Arc::clone(&fails), Arc::clone(&builds));
            let builds: Arc<Mutex<Vec<usize>>> = builds;
            runtime.supervise(id, restart.clone(), move |_| {
                builds.lock().unwrap().push(n);
                ready(match fails.lock().unwrap().contains(&n) {
                    true => Err("no luck"),
                    false => Ok(n as u32),
                })
            });
        }
        let mut scene = Self { runtime, ids, group, fails, builds };
        scene.run();
        assert_eq!(scene.states(), [SupervisorState::Up; 3]);
        scene.builds.lock().unwrap().clear();
        scene
    }

    fn run(&mut self) {
        self.runtime.run_until_idle();
    }

    fn states(&self) -> [SupervisorState; 3] {
        self.ids.map(|id| self.runtime.state(id))
    }

    fn fail(&mut self, n: usize) {
        self.runtime.registry.fail(self.ids[n], "boom").unwrap();
        self.run();
    }

    fn builds(&self) -> Vec<usize> {
        std::mem::take(&mut *self.builds.lock().unwrap())
    }

    fn give_up(&mut self) {
        self.fail(0);
        assert_eq!(self.states(), [SupervisorState::GivenUp; 3]);
        assert!(self.group.status().given_up.is_some());
        self.builds.lock().unwrap().clear();
    }

    fn is_up(&mut self) {
        self.runtime.advance(ms(1_000));
        assert_eq!(self.states(), [SupervisorState::Up; 3], "{}", self.runtime.registry.list());
        assert!(self.group.status().given_up.is_none());
    }
}

#[test]
fn one_for_all_and_the_failure_counts_once() {
    let mut scene = Scene::new(of_five());
    let outcome = scene.runtime.registry.fail(scene.ids[1], "boom").unwrap();
    assert_eq!(outcome.failed, 3);
    scene.run();
    use SupervisorState::{BackingOff, Up};
    assert_eq!(scene.states(), [Up, BackingOff, Up]);
    assert_eq!(scene.group.status().failures, 1);
    scene.is_up();
    assert_eq!(scene.builds(), [0, 2, 1]);
    for (n, failures) in [0, 1, 0].into_iter().enumerate() {
        assert_eq!(scene.runtime.supervisor_status(scene.ids[n]).failures, failures);
    }
    let failure = scene.runtime.registry.status(scene.ids[2]).unwrap().last_failure.unwrap();
    assert_eq!(failure.to_string(), "c failed because b failed");
    assert_eq!(failure.reason.to_string(), "boom");
    scene.runtime.advance(ms(60_000));
    assert_eq!(scene.group.status().failures, 0, "the window has passed");
}

#[test]
fn only_the_instance_that_was_named_fails_its_group() {
    let mut scene = Scene::new(of_five());
    let old = scene.runtime.registry.get_arc(scene.ids[0]).unwrap();
    scene.fail(1);
    scene.is_up();
    let outcome = scene.runtime.registry.fail_instance(&old, "late").unwrap();
    assert_eq!(outcome, mainstay::FailOutcome::AlreadyFailed);
    scene.run();
    assert_eq!(scene.states(), [SupervisorState::Up; 3]);
    assert_eq!(scene.group.status().failures, 1);
    // It is down: nothing fails.
    scene.fails.lock().unwrap().push(0);
    scene.fail(0);
    let outcome = scene.runtime.registry.fail(scene.ids[0], "again").unwrap();
    assert_eq!(outcome.failed, 0);
}

#[test]
fn several_failures_at_once_are_those_of_the_members_named() {
    let mut scene = Scene::new(of_five());
    let ids = [scene.ids[0], scene.ids[1]];
    assert_eq!(scene.runtime.registry.fail_all(ids, "both").unwrap().cascade.failed, 3);
    scene.run();
    assert_eq!(scene.group.status().failures, 2);
    scene.is_up();
    scene.fail(0);
    assert_eq!(scene.group.status().failures, 3);
}

/// Writes each failure, with its root.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observer for Log {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let line = match &event.kind {
            EventKind::Failed(failure) => format!("{} by {}", event.service, failure.root),
            EventKind::GivenUp(failure) => format!("{} given up: {failure}", event.service),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

type UpByHand = Vec<(Provider<u32>, Running<u32>)>;

fn by_hand(registry: &Registry, names: &[&str]) -> (Vec<ServiceId<u32>>, UpByHand) {
    let ids: Vec<_> = names.iter().map(|name| registry.register::<u32>(name).unwrap()).collect();
    let up = ids.iter().map(|&id| up(registry, id, 1)).collect();
    (ids, up)
}

#[test]
fn dependents_of_all_members_fail_and_causes_are_reported_first() {
    let registry = Registry::with_capacity(6).unwrap();
    let ids: Vec<_> = ["under a", "a", "b", "c", "on b", "soft on c"]
        .map(|name| registry.register::<u32>(name).unwrap())
        .into();
    let [under, a, b, c, on_b, soft] = ids[..] else { unreachable!() };
    registry.depends(a).on(under).unwrap();
    registry.depends(on_b).on(b).unwrap();
    registry.depends(soft).soft_on(c).unwrap();
    // A member depends on another one.
    registry.depends(c).on(b).unwrap();
    registry.group([a, b, c], GroupPolicy::default()).unwrap();
    let log = Log::default();
    registry.observe(log.clone()).detach();
    let mut ups: UpByHand = ids.iter().map(|&id| up(&registry, id, 1)).collect();
    assert_eq!(registry.fail(c, "boom").unwrap().failed, 4);
    assert_eq!(log.take(), ["c by c", "a by c", "b by c", "on b by c"]);
    assert!(registry.get(under).is_ok() && registry.get(soft).is_ok());

    // The failure began outside of the group: all members fail nevertheless.
    for n in [1, 2, 3, 4] {
        let (provider, _) = ups.remove(n);
        let running = provider.begin().wait_blocking().unwrap().ready(2).unwrap();
        ups.insert(n, (provider, running));
    }
    assert_eq!(registry.fail(under, "boom").unwrap().failed, 5);
    let mut lines = log.take();
    assert_eq!(lines.remove(0), "under a by under a");
    lines.sort();
    let all = ["a by under a", "b by under a", "c by under a", "on b by under a"];
    assert_eq!(lines, all);
}

#[test]
fn groups_lead_to_groups_also_through_edges_that_would_be_a_cycle_with_them() {
    let registry = Registry::with_capacity(8).unwrap();
    let names = ["x", "a", "b", "y", "p", "q", "r", "alone"];
    let (ids, _ups) = by_hand(&registry, &names);
    let [x, a, b, y, p, q, r, _] = ids[..] else { unreachable!() };
    // a -> x -> b: the failure of a takes b down, and so x, and so a.
    registry.depends(a).on(x).unwrap();
    registry.depends(x).on(b).unwrap();
    registry.group([a, b], GroupPolicy::default()).unwrap();
    // y -> b, and y leads to another group, and that one to one more.
    registry.depends(y).on(b).unwrap();
    registry.group([y, p], GroupPolicy::default()).unwrap();
    registry.depends(q).on(p).unwrap();
    registry.group([q, r], GroupPolicy::default()).unwrap();
    assert_eq!(registry.fail(a, "boom").unwrap().failed, 7);
    for &id in &ids[..7] {
        let failure = registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.root, "a");
    }
    assert!(registry.get(ids[7]).is_ok());
}

#[test]
fn an_attempt_in_progress_is_invalidated_and_a_member_that_is_down_is_left_alone() {
    let registry = Registry::with_capacity(4).unwrap();
    let ids = ["up", "starting", "down", "on down"];
    let ids = ids.map(|name| registry.register::<u32>(name).unwrap());
    let [member, starting, down, on_down] = ids;
    registry.group([member, starting, down], GroupPolicy::default()).unwrap();
    registry.depends(on_down).on(down).unwrap();
    let (_provider, running) = up(&registry, member, 1);
    let _on_down = up(&registry, on_down, 1);
    let provider = registry.provide(starting).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    running.fail("boom");
    assert_eq!(*attempt.ready(1).unwrap_err().into_value(), 1);
    assert_eq!(registry.status(down).unwrap().generation, 0);
    assert!(registry.get(on_down).is_ok(), "what is down did not fail");
}

#[test]
fn one_failure_too_many_of_all_members_gives_up_as_one() {
    let log = Log::default();
    let policy = GroupPolicy::default().max_failures(2, ms(60_000));
    let mut scene = Scene::with(policy, &exact(), |registry, _| {
        registry.observe(log.clone()).detach();
    });
    for n in [0, 1] {
        scene.fail(n);
        scene.is_up();
    }
    log.take();
    scene.builds();
    scene.fail(2);
    assert_eq!(scene.states(), [SupervisorState::GivenUp; 3]);
    let lines = log.take();
    assert_eq!(lines[..3], ["c by c", "a by c", "b by c"], "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("given up: c failed")).count(), 3);

    let given_up = scene.group.status().given_up.unwrap();
    assert_eq!(given_up.failure.service, "c");
    let text = "given up with its group after a failure of c, `Registry::restart` tries again";
    assert_eq!(scene.runtime.supervisor_status(scene.ids[0]).to_string(), text);
    // No time and no failure of it ends that.
    scene.builds.lock().unwrap().clear();
    scene.runtime.advance(ms(3_600_000));
    scene.fail(0);
    assert_eq!(scene.states(), [SupervisorState::GivenUp; 3]);
    assert!(scene.builds().is_empty());
}

#[test]
fn a_member_that_gives_up_by_its_own_policy_takes_the_group_along() {
    let restart = exact().max_failures(1, ms(60_000));
    let mut scene = Scene::with(GroupPolicy::default(), &restart, |_, _| {});
    scene.fail(0);
    scene.is_up();
    scene.fail(1);
    scene.is_up();
    scene.fail(1);
    assert_eq!(scene.states(), [SupervisorState::GivenUp; 3]);
    // The window of its own policy is cleared, too.
    let _ = poll_once(&mut scene.group.restart("again"));
    scene.run();
    scene.is_up();
    scene.fail(1);
    scene.is_up();
}

#[test]
fn the_members_that_were_up_fail_with_the_reason_of_the_group() {
    let mut scene = Scene::new(none());
    scene.fails.lock().unwrap().push(0);
    // One build fails, and takes no other member down, but it is one too many.
    let mut stop = scene.runtime.registry.stop(scene.ids[0]);
    let _ = poll_once(&mut stop);
    scene.run();
    assert_eq!(scene.states()[1..], [SupervisorState::Up; 2]);
    scene.runtime.registry.start(scene.ids[0]).unwrap();
    scene.run();
    assert_eq!(scene.states(), [SupervisorState::GivenUp; 3]);
    let failure = scene.runtime.registry.status(scene.ids[1]).unwrap().last_failure.unwrap();
    let text = "its group has given up after a failure of a: a failed: no luck";
    assert_eq!(failure.reason.to_string(), text);
    let mainstay::Reason::Error(error) = &failure.reason else { panic!("{failure}") };
    assert!(error.is::<GroupGivenUp>());
    let line = "b: given up with its group after a failure of a, `Registry::restart` tries again: \
                its group has given up after a failure of a: a failed: no luck";
    assert_eq!(scene.runtime.registry.status(scene.ids[1]).unwrap().to_string(), line);
    assert_eq!(scene.runtime.supervisor_status(scene.ids[1]).failures, 0);
}

#[test]
fn a_failed_build_leaves_the_others_and_counts() {
    let mut scene = Scene::new(of_five());
    scene.fails.lock().unwrap().push(1);
    scene.fail(0);
    scene.runtime.advance(ms(100));
    use SupervisorState::{BackingOff, Up};
    assert_eq!(scene.states(), [Up, BackingOff, Up]);
    assert_eq!(scene.group.status().failures, 3);
}

#[test]
fn all_begin_again_together() {
    for way in 0..4 {
        let mut scene = Scene::new(none());
        scene.give_up();
        let [a, b, _] = scene.ids;
        match way {
            0 => scene.runtime.restart(a),
            1 => scene.runtime.restart(b),
            2 => {
                let mut restart = scene.group.restart("by hand");
                assert!(poll_once(&mut restart).is_pending());
                scene.run();
                let std::task::Poll::Ready(Ok(report)) = poll_once(&mut restart) else {
                    panic!("it has not ended")
                };
                assert_eq!(report.stopped.len(), 3);
            }
            _ => {
                let mut stop = scene.runtime.registry.stop(b);
                let _ = poll_once(&mut stop);
                scene.run();
                use SupervisorState::{GivenUp, Stopped};
                assert_eq!(scene.states(), [GivenUp, Stopped, GivenUp]);
                scene.runtime.registry.start(b).unwrap();
                scene.run();
            }
        }
        assert_eq!(scene.states(), [SupervisorState::Up; 3], "way {way}");
        scene.is_up();
        assert_eq!(scene.group.status().failures, 0);
        let mut builds = scene.builds();
        builds.sort_unstable();
        assert_eq!(builds, [0, 1, 2]);
        // The limit counts from now on.
        scene.give_up();
    }
}

#[test]
fn members_that_wait_give_up_and_begin_again_at_once() {
    let restart = exact().backoff(ms(3_600_000), ms(3_600_000));
    let policy = GroupPolicy::default().max_failures(1, ms(60_000));
    let mut scene = Scene::with(policy, &restart, |_, _| {});
    scene.fail(0);
    assert_eq!(scene.states()[0], SupervisorState::BackingOff);
    scene.fail(1);
    assert_eq!(scene.states(), [SupervisorState::GivenUp; 3]);
    let c = scene.ids[2];
    scene.runtime.restart(c);
    assert_eq!(scene.states(), [SupervisorState::Up; 3]);
}

#[test]
fn a_planned_end_of_a_member_leaves_the_others() {
    let mut scene = Scene::new(none());
    let [a, b, _] = scene.ids;
    scene.runtime.restart(a);
    assert_eq!(scene.builds(), [0]);
    let mut stop = scene.runtime.registry.stop(b);
    let _ = poll_once(&mut stop);
    scene.run();
    use SupervisorState::{Stopped, Up};
    assert_eq!(scene.states(), [Up, Stopped, Up]);
    // The group gives up and begins again: a stopped member stays stopped.
    scene.fail(0);
    use SupervisorState::GivenUp;
    assert_eq!(scene.states(), [GivenUp, Stopped, GivenUp]);
    scene.runtime.restart(a);
    assert_eq!(scene.states(), [Up, Stopped, Up]);
    scene.runtime.registry.start(b).unwrap();
    scene.run();
    assert_eq!(scene.states(), [Up; 3]);
    assert_eq!(scene.group.status().failures, 0);
}

#[test]
fn a_restart_of_a_healthy_group_ends_all_members_in_one_operation() {
    let mut scene = Scene::with(of_five(), &exact(), |registry, [a, b, _]| {
        registry.depends(a).on(b).unwrap();
    });
    scene.fail(2);
    scene.is_up();
    scene.builds();
    let mut restart = scene.group.restart("edited");
    assert!(poll_once(&mut restart).is_pending());
    assert_eq!(scene.group.status().failures, 0);
    scene.run();
    assert!(poll_once(&mut restart).is_ready());
    assert_eq!(scene.states(), [SupervisorState::Up; 3]);
    assert_eq!(scene.builds().len(), 3);
}

#[test]
fn a_shutdown_and_a_close_are_delayed_in_no_state() {
    for step in 0..4 {
        for close in [false, true] {
            let policy = GroupPolicy::default().max_failures(1, ms(60_000));
            let mut scene = Scene::new(policy);
            for n in 0..step.min(2) {
                scene.fail(n);
            }
            if step == 3 {
                let _ = poll_once(&mut scene.group.restart("again"));
            }
            if close {
                scene.runtime.registry.close();
                scene.run();
            } else {
                let shutdown = begin(&mut scene.runtime, ms(1_000));
                let report = shutdown.lock().unwrap().take().expect("it has ended at once");
                assert!(report.stop_timeouts.is_empty(), "{report}");
            }
            assert!(scene.runtime.tasks.is_empty(), "step {step}");
        }
    }
}

#[test]
fn a_failure_in_the_middle_of_a_shutdown_delays_nothing() {
    let mut runtime = TestRuntime::new();
    let ids = ["a", "b"].map(|name| runtime.service(name));
    runtime.registry.group(ids, none()).unwrap();
    // Its body does not return.
    let supervisor = runtime.registry.supervise(ids[0]).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |_| pending::<Result<(), BoxError>>().await);
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    runtime.supervise(ids[1], exact(), |_| ready(Ok::<_, BoxError>(1)));
    runtime.run_until_idle();
    let shutdown = begin(&mut runtime, ms(60_000));
    runtime.registry.fail(ids[0], "boom").unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(10_000));
    assert!(shutdown.lock().unwrap().is_some());
    assert!(runtime.tasks.is_empty());
}

#[test]
fn a_service_is_in_one_group_only() {
    let registry = Registry::with_capacity(4).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| registry.register::<u32>(name).unwrap());
    let group = registry.group([a, b, a], GroupPolicy::default()).unwrap();
    assert_eq!(group.services(), &ServiceSet::from([a, b]));
    drop(group);
    let error = registry.group([c, b], GroupPolicy::default()).unwrap_err();
    assert!(matches!(&error, GroupError::InGroup { service } if *service == "b"));
    let text = "b is in another group already, and a service is in one group only";
    assert_eq!(error.to_string(), text);
    let other = Registry::with_capacity(1).unwrap();
    let foreign = other.register::<u32>("foreign").unwrap();
    let error = registry.group([c, foreign], GroupPolicy::default()).unwrap_err();
    assert!(matches!(error, GroupError::ForeignId(_)));
    let error = registry.group(ServiceSet::new(), GroupPolicy::default()).unwrap_err();
    assert!(matches!(error, GroupError::Empty));
    // Nothing has changed, and one member is enough.
    registry.group(c, GroupPolicy::default()).unwrap();
    let _up = up(&registry, c, 1);
    assert_eq!(registry.fail(c, "boom").unwrap().failed, 1);
}

#[test]
fn ten_thousand_members_fail_and_give_up_and_come_back_within_a_limit_of_builds() {
    const MANY: usize = 10_000;
    let mut runtime = TestRuntime::with_capacity(MANY);
    let ids: Vec<ServiceId<u32>> = (0..MANY).map(|n| runtime.service(&format!("{n}"))).collect();
    let set: ServiceSet = ids.iter().copied().collect();
    let group =
        runtime.registry.group(set, GroupPolicy::default().max_failures(1, ms(60_000))).unwrap();
    runtime.registry.limit_builds(ids.iter().copied(), 7).unwrap();
    for &id in &ids {
        runtime.supervise(id, exact(), |_| ready(Ok::<_, BoxError>(1)));
    }
    runtime.run_until_idle();
    let up = |runtime: &TestRuntime| ids.iter().filter(|&&id| runtime.get(id).is_some()).count();
    assert_eq!(up(&runtime), MANY);
    assert_eq!(runtime.registry.fail(ids[17], "boom").unwrap().failed, MANY);
    runtime.run_until_idle();
    runtime.advance(ms(100));
    assert_eq!(up(&runtime), MANY);
    runtime.registry.fail(ids[4_711], "boom").unwrap();
    runtime.run_until_idle();
    assert_eq!(up(&runtime), 0);
    assert!(group.status().given_up.is_some());
    runtime.restart(ids[0]);
    assert_eq!(up(&runtime), MANY);
}

#[test]
fn a_chain_of_groups_is_walked_once() {
    const MANY: usize = 20_000;
    let registry = Registry::with_capacity(MANY).unwrap();
    let names: Vec<String> = (0..MANY).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ids, _ups) = by_hand(&registry, &names);
    for pair in ids.chunks(2) {
        registry.group([pair[0], pair[1]], GroupPolicy::default()).unwrap();
    }
    for pair in ids[1..].chunks(2).filter(|pair| pair.len() == 2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    assert_eq!(registry.fail(ids[0], "boom").unwrap().failed, MANY);
}
