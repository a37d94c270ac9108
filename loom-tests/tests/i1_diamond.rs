//! I1 on a diamond: whoever has seen a service fail, from the root down, never after that reads an instance
//! that was built from what failed.
//!
//! ```text
//!          root
//!         /    \         cascade:   condemn root, left, right, bottom | raise bottom, right, left, root
//!      left    right     observer:  looks at root, left, right, and then at bottom
//!         \    /
//!         bottom
//! ```
//!
//! What must not be: one of the two sides is raised before the bottom. The bottom is registered second, so
//! that the order of the numbers is not that of the graph.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{GetError, Guard, Registry};
use mainstay_loom_tests::{Id, join, look, model, services};

const DIAMOND: &[(usize, usize)] = &[(2, 0), (3, 0), (1, 2), (1, 3)];

/// Looks from the top down, and at what each instance was built from.
fn observe(registry: &Registry, from_the_top: [Id; 4]) {
    let mut seen = Vec::new();
    for id in from_the_top {
        let generation = match registry.get(id) {
            Ok(instance) => {
                for &(dependency, from) in &instance.on {
                    let of = seen.iter().find(|&&(id, _)| id == dependency);
                    let &(_, of) = of.expect("looked at before");
                    assert!(from >= of, "I1: {id:?} in {from}, {dependency:?} was seen in {of}");
                }
                Guard::generation(&instance)
            }
            Err(GetError::NotReady(why)) => why.generation,
            Err(error) => unreachable!("{error}"),
        };
        seen.push((id, generation));
    }
}

/// Bound: 3.
#[test]
fn observed() {
    model("i1 diamond, observed", Some(3), || {
        let (registry, [root, bottom, left, right], roles) = services(DIAMOND);
        let [root_role, bottom_role, left_role, right_role] = &roles;
        let running = [
            root_role.start(&[]),
            left_role.start(&[root]),
            right_role.start(&[root]),
            bottom_role.start(&[left, right]),
        ];

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(root, "edited").unwrap()
        });
        let observer = spawn(move || observe(&registry, [root, left, right, bottom]));
        assert_eq!(join(failer).went_down, 4);
        join(observer);
        drop((running, roles));
    });
}

/// All four restart while two of them are looked at: since the sides fail only with the root, their
/// generations say from which root they were built. (Bound: 1.)
#[test]
fn observed_while_restarting() {
    model("i1 diamond, observed while restarting", Some(1), || {
        let (registry, [root, bottom, left, right], roles) = services(DIAMOND);
        let [root_role, bottom_role, left_role, right_role] = roles;
        let running = [
            root_role.start(&[]),
            left_role.start(&[root]),
            right_role.start(&[root]),
            bottom_role.start(&[left, right]),
        ];

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(root, "edited").unwrap();
                let root_runs = root_role.try_build(&[]).expect("it failed once");
                (root_runs, right_role.try_build(&[root]), root_role, right_role)
            }
        });
        let restarter = spawn(move || {
            let runs = (left_role.try_build(&[root]), bottom_role.try_build(&[left, right]));
            (runs, left_role, bottom_role)
        });
        let observer = spawn(move || {
            let (seen, _) = look(&registry, root);
            if let Ok(bottom) = registry.get(bottom) {
                let from = bottom.on.iter().map(|&(_, from)| from).min();
                assert!(
                    from >= Some(seen),
                    "I1: root was seen in {seen}, bottom is built from {from:?}"
                );
            }
        });
        let ends = (join(failer), join(restarter), join(observer));
        drop((running, ends));
    });
}
