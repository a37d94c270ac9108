//! I1 on a diamond: a reader that has seen a service fail never reads, after that, an instance that
//! was built from the failed one. The reader reads dependencies before dependents.
//!
//! ```text
//!          root
//!         /    \         cascade:   condemn root, left, right, bottom
//!      left    right                | take down bottom, right, left, root
//!         \    /         observer:  reads root, left, right, and then bottom
//!         bottom
//! ```
//!
//! What must not happen: `left` or `right` is taken down before `bottom`. `bottom` is registered
//! second, so that the order of the indices is not that of the graph.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Guard, Registry, error::GetError};
use mainstay_loom_tests::{Id, join, model, now_or_never, read_state, services};

const DIAMOND: &[(usize, usize)] = &[(2, 0), (3, 0), (1, 2), (1, 3)];

/// Reads dependencies before dependents, and checks from which instances each one was built.
fn observe(registry: &Registry, dependencies_first: [Id; 4]) {
    let mut seen = Vec::new();
    for id in dependencies_first {
        let generation = match registry.get(id) {
            Ok(instance) => {
                for &(dependency, from) in &instance.built_from {
                    let earlier = seen.iter().find(|&&(id, _)| id == dependency);
                    let &(_, earlier) = earlier.expect("dependencies are read first");
                    assert!(
                        from >= earlier,
                        "I1: {dependency:?} was in {earlier}, {id:?} was built from {from}"
                    );
                }
                Guard::generation(&instance).get()
            }
            Err(GetError::NotReady(error)) => error.generation.get(),
            Err(error) => unreachable!("{error}"),
        };
        seen.push((id, generation));
    }
}

/// Preemption bound: 3.
#[test]
fn the_bottom_of_a_diamond_fails_before_both_sides() {
    model("the bottom of a diamond fails before both sides", Some(3), || {
        let (registry, [root, bottom, left, right], providers) = services(DIAMOND);
        let [root_provider, bottom_provider, left_provider, right_provider] = &providers;
        let running = [
            root_provider.start(&[]),
            left_provider.start(&[root]),
            right_provider.start(&[root]),
            bottom_provider.start(&[left, right]),
        ];

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(root, "edited").unwrap()
        });
        let observer = spawn(move || observe(&registry, [root, left, right, bottom]));
        assert_eq!(join(failer).failed, 4);
        join(observer);
        drop((running, providers));
    });
}

/// The cascade walks: an attempt at a fifth service has discovered an edge and is still in
/// progress, so the closure of the root was not computed. (Preemption bound: 2.)
#[test]
fn the_bottom_of_a_diamond_fails_first_after_a_walk() {
    model("the bottom of a diamond fails first after a walk", Some(2), || {
        let (registry, [root, bottom, left, right, _], providers) = services(DIAMOND);
        let [root_provider, bottom_provider, left_provider, right_provider, probe] = &providers;
        let running = [
            root_provider.start(&[]),
            left_provider.start(&[root]),
            right_provider.start(&[root]),
            bottom_provider.start(&[left, right]),
        ];
        let attempt = probe.attempt();
        assert!(now_or_never(attempt.wait_for(bottom)).is_some(), "bottom is ready");

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(root, "edited").unwrap()
        });
        let observer = spawn(move || observe(&registry, [root, left, right, bottom]));
        assert_eq!(join(failer).failed, 4);
        join(observer);
        assert!(attempt.is_invalidated(), "I2: its instance of bottom has failed");
        drop((attempt, running));
        drop(providers);
    });
}

/// All four services restart, and two of them are read. `left` and `right` fail only together with
/// `root`, so their generations say from which `root` they were built. (Preemption bound: 1.)
#[test]
fn the_bottom_of_a_diamond_fails_first_while_all_restart() {
    model("the bottom of a diamond fails first while all restart", Some(1), || {
        let (registry, [root, bottom, left, right], providers) = services(DIAMOND);
        let [root_provider, bottom_provider, left_provider, right_provider] = providers;
        let running = [
            root_provider.start(&[]),
            left_provider.start(&[root]),
            right_provider.start(&[root]),
            bottom_provider.start(&[left, right]),
        ];

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(root, "edited").unwrap();
                let root_running = root_provider.try_build(&[]).expect("root fails once");
                (root_running, right_provider.try_build(&[root]), root_provider, right_provider)
            }
        });
        let restarter = spawn(move || {
            let running =
                (left_provider.try_build(&[root]), bottom_provider.try_build(&[left, right]));
            (running, left_provider, bottom_provider)
        });
        let observer = spawn(move || {
            let (seen, _) = read_state(&registry, root);
            if let Ok(bottom) = registry.get(bottom) {
                let from = bottom.built_from.iter().map(|&(_, from)| from).min();
                assert!(
                    from >= Some(seen),
                    "I1: root was in {seen}, bottom was built from {from:?}"
                );
            }
        });
        let returned = (join(failer), join(restarter), join(observer));
        drop((running, returned));
    });
}
