//! I2 if two services of one closure fail at the same time while all services restart. And the
//! promise of `fail` to its caller: after it has returned, no instance that the closure contained
//! at the call can be read. The preemption bound is 2 if a model does not say otherwise.
//!
//! ```text
//! cascade of a:  condemn a, b, c               | take down c, b, a | restart a
//! cascade of b:                 condemn b, c   | take down c, b    | restart b from a
//! c:                                                               restart from b
//! ```
//!
//! A slot that both cascades reach is condemned twice. The cascade with the higher generation may
//! take it down first; the other one then finds that the slot has reached its generation.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Running;
use mainstay_loom_tests::{Id, TestProvider, Value, assert_i2, join, model, read_state, services};

fn start_all<const N: usize>(
    providers: &[TestProvider; N],
    dependencies: [&[Id]; N],
) -> Vec<Running<Value>> {
    providers.iter().zip(dependencies).map(|(provider, ids)| provider.start(ids)).collect()
}

/// Preemption bound: 4.
#[test]
fn after_fail_no_instance_of_the_closure_is_readable() {
    model("after fail no instance of the closure is readable", Some(4), || {
        let (registry, [a, b, c], providers) = services(&[(1, 0), (2, 1)]);
        let running = start_all(&providers, [&[], &[a], &[b]]);

        let failers = [a, b].map(|root| {
            let registry = registry.clone();
            spawn(move || {
                registry.fail(root, "out").unwrap();
                // Its closure, dependencies first.
                for id in [b, c] {
                    assert!(
                        read_state(&registry, id).0 > 0,
                        "{id:?} is readable after fail returned"
                    );
                }
            })
        });
        let [(), ()] = failers.map(join);
        assert!([a, b, c].iter().all(|&id| !read_state(&registry, id).1));
        drop((running, providers));
    });
}

/// The cascade of `b` takes `b` down to a generation to which the cascade of `a` has condemned it,
/// before `a` is taken down. An attempt that begins in this generation must find `a` condemned.
/// This is why dependencies are condemned first, what the Release of each increment carries, and
/// why an attempt that begins checks whether its own slot is condemned.
///
/// There is a third service because loom does not switch threads between the last increment and the
/// fence. It is ready: a cascade that finds a service down checks all others for a restart.
#[test]
fn no_stale_dependent_after_two_cascades_of_a_pair() {
    model("no stale dependent after two cascades of a pair", Some(2), || {
        let (registry, ids @ [a, b, _], [a_provider, b_provider, c_provider]) =
            services(&[(1, 0), (2, 1)]);
        let running = (a_provider.start(&[]), b_provider.start(&[a]), c_provider.start(&[b]));

        let fails_a = spawn({
            let registry = registry.clone();
            move || registry.fail(a, "out").map(drop).unwrap()
        });
        let fails_b = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(b, "out").unwrap();
                // Not the thread that took b down: this one knows only the state.
                join(spawn(move || (b_provider.try_build(&[a]), b_provider)))
            }
        });
        join(fails_a);
        let returned = join(fails_b);
        assert_i2(&registry, &ids);
        drop((running, returned, a_provider, c_provider));
    });
}

#[test]
fn no_stale_dependent_after_two_cascades_of_a_chain() {
    model("no stale dependent after two cascades of a chain", Some(2), || {
        let (registry, ids @ [a, b, _], providers) = services(&[(1, 0), (2, 1)]);
        let running = start_all(&providers, [&[], &[a], &[b]]);
        let [_a_provider, b_provider, c_provider] = providers;

        let failers = [a, b].map(|root| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, "out").map(drop).unwrap())
        });
        let restarter = spawn(move || {
            (b_provider.try_build(&[a]), c_provider.try_build(&[b]), (b_provider, c_provider))
        });
        let [(), ()] = failers.map(join);
        let returned = join(restarter);
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// The edges are `left -> a`, `right -> a`, `top -> left` and `top -> right`.
#[test]
fn no_stale_dependent_after_two_cascades_of_a_diamond() {
    model("no stale dependent after two cascades of a diamond", Some(2), || {
        let edges = [(1, 0), (2, 0), (3, 1), (3, 2)];
        let (registry, ids @ [a, left, right, _], providers) = services(&edges);
        let running = start_all(&providers, [&[], &[a], &[a], &[left, right]]);
        let [_a_provider, left_provider, _right_provider, top_provider] = providers;

        let failers = [a, left].map(|root| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, "out").map(drop).unwrap())
        });
        let restarter = spawn(move || {
            (
                left_provider.try_build(&[a]),
                top_provider.try_build(&[left, right]),
                (left_provider, top_provider),
            )
        });
        let [(), ()] = failers.map(join);
        let returned = join(restarter);
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}
