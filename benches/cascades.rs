//! The cost of a failure, by the number of services that it takes down. The measured time begins
//! with the call and ends when all of them are down and the wakers of all waiters have been called.
//!
//! All services are up before each failure, and the number of services that went down is asserted
//! after it. In "waited for", each service has one waiter for its failure, which was polled once
//! before; all wakers must have been called after the failure. "Walked" is the first failure since
//! an edge of the closure changed: in a registry with more than 1,024 services the cascade walks,
//! in a smaller one the closure was computed by the change, which is not part of the measured time.
//! "Edge elsewhere" is the first failure since an unrelated edge changed. The floor and the
//! channels receive the list of the services to take down; the others search for them.
//!
//! With `-- --test` the largest closures are left out.

use std::{sync::Arc, thread, time::Duration};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use mainstay::Running;
use mainstay_benches::{
    features::criterion,
    graphs::{CASCADES, Edge, Graph},
    is_test,
    rivals::{
        floor::Floor, go_service::GoService, locked_graph::LockedGraph, maps::Value,
        token_tree::TokenTree, watch_tree::WatchTree,
    },
    timed,
    tree::Tree,
    waiting::Waiting,
};

const SIZES: [usize; 4] = [1, 10, 1_000, 100_000];

/// The largest closure with `-- --test`.
const TEST_MAX: usize = 1_000;

/// The largest closure for a design that starts a task for each service.
const TASKS_MAX: usize = 1_000;

/// Makes all services ready, fails the first one, and checks that all are down. Returns the time of
/// the failure alone.
type Time = Box<dyn FnMut() -> Duration>;

fn mainstay(mut tree: Tree, services: usize) -> Time {
    Box::new(move || {
        tree.start();
        let (failed, elapsed) = timed(|| tree.fail());
        assert_eq!(failed, services);
        elapsed
    })
}

fn mainstay_waited_for(mut tree: Tree, services: usize) -> Time {
    Box::new(move || {
        tree.start();
        let mut waiting = Waiting::new(tree.running().iter().map(Running::failed));
        let (failed, elapsed) = timed(|| tree.fail());
        waiting.assert_woken();
        waiting.finish(|failure| assert_eq!(&*failure.unwrap().root, "service 0"));
        assert_eq!(failed, services);
        elapsed
    })
}

fn floor(services: usize, fail: fn(&Floor) -> usize) -> Time {
    let floor = Floor::new(services);
    Box::new(move || {
        floor.start();
        let (failed, elapsed) = timed(|| fail(&floor));
        assert_eq!(failed, services);
        elapsed
    })
}

fn values(services: usize) -> Vec<Arc<u64>> {
    (0..services as u64).map(Arc::new).collect()
}

fn locked_graph(services: usize, edges: &[Edge], waited_for: bool) -> Time {
    let values = values(services);
    let graph = LockedGraph::new(services, edges);
    Box::new(move || {
        graph.start(&values);
        let listeners = if waited_for { graph.listen() } else { Vec::new() };
        let mut waiting = Waiting::new(listeners.into_iter());
        let (failed, elapsed) = timed(|| graph.fail());
        waiting.assert_woken();
        waiting.finish(|()| {});
        assert_eq!(failed, services);
        elapsed
    })
}

fn tokens(edges: &[Edge], waited_for: bool) -> Time {
    let edges = edges.to_vec();
    Box::new(move || {
        let tree = TokenTree::new(&edges);
        let waited_for = if waited_for { tree.tokens() } else { &[] };
        let mut waiting = Waiting::new(waited_for.iter().map(|token| token.cancelled()));
        let ((), elapsed) = timed(|| tree.fail());
        waiting.assert_woken();
        waiting.finish(|()| {});
        assert!(tree.tokens().iter().all(|token| token.is_cancelled()));
        elapsed
    })
}

fn channels(services: usize, waited_for: bool) -> Time {
    let values = values(services);
    let tree = WatchTree::new(services);
    Box::new(move || {
        tree.start(&values);
        let mut receivers = if waited_for { tree.subscribe() } else { Vec::new() };
        let mut waiting = Waiting::new(receivers.iter_mut().map(|receiver| receiver.changed()));
        let (failed, elapsed) = timed(|| tree.fail());
        waiting.assert_woken();
        waiting.finish(|changed| changed.unwrap());
        assert_eq!(failed, services);
        elapsed
    })
}

fn go_design(services: usize, edges: &[Edge]) -> Time {
    let names: Vec<String> = (0..services).map(|service| format!("service {service}")).collect();
    let go = GoService::new();
    names.iter().for_each(|name| go.provide(name));
    for &(dependent, dependency) in edges {
        go.add_dependent(&names[dependency], &names[dependent]);
    }
    let value: Value = Arc::new(42_u64);
    Box::new(move || {
        names.iter().for_each(|name| go.ready(name, Arc::clone(&value)));
        let all = go.failures() + services;
        let ((), elapsed) = timed(|| {
            go.fail(&names[0]);
            while go.failures() < all {
                thread::yield_now();
            }
        });
        assert!(names.iter().all(|name| go.get(name).is_none()));
        elapsed
    })
}

/// Whether each service except the first depends on exactly one other. The answer is that for
/// `TEST_MAX` services: a small graph of another shape may be a tree by chance.
fn is_tree(graph: Graph) -> bool {
    graph(TEST_MAX).len() + 1 == TEST_MAX
}

fn cascades(c: &mut Criterion) {
    for (shape, graph) in CASCADES {
        let mut group = c.benchmark_group(format!("cascade/{shape}"));
        group.sampling_mode(SamplingMode::Flat);
        for services in SIZES {
            if is_test() && services > TEST_MAX {
                continue;
            }
            let edges = graph(services);
            group.throughput(Throughput::Elements(services as u64));
            // Created immediately before its measurement, because many are large.
            let mut bench = |name: &str, make: &dyn Fn() -> Time| {
                let mut time = None;
                group.bench_function(BenchmarkId::new(name, services), |b| {
                    let time = time.get_or_insert_with(make);
                    b.iter_custom(|n| (0..n).map(|_| time()).sum());
                });
            };
            bench("floor", &|| floor(services, Floor::fail));
            bench("limit: floor, remembered", &|| floor(services, |floor| floor.fail_for("bench")));
            bench("mainstay", &|| mainstay(Tree::new(services, &edges), services));
            bench("mainstay, waited for", &|| {
                mainstay_waited_for(Tree::new(services, &edges), services)
            });
            bench("mainstay, edge elsewhere", &|| {
                mainstay(Tree::changing_elsewhere(services, &edges), services)
            });
            // A single service has no edge that could change.
            if services > 1 {
                bench("mainstay, walked", &|| mainstay(Tree::changing(services, &edges), services));
            }
            bench("petgraph, locked", &|| locked_graph(services, &edges, false));
            bench("petgraph, locked, waited for", &|| locked_graph(services, &edges, true));
            if is_tree(graph) {
                bench("CancellationToken", &|| tokens(&edges, false));
                bench("CancellationToken, waited for", &|| tokens(&edges, true));
            }
            bench("watch channels", &|| channels(services, false));
            bench("watch channels, waited for", &|| channels(services, true));
            if services <= TASKS_MAX {
                bench("Go design", &|| go_design(services, &edges));
            }
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = criterion("cascades")
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(10)
        .without_plots();
    targets = cascades
}
criterion_main!(benches);
