//! The number of instructions, counted by callgrind. It is the same in each run, however busy the
//! machine is. Each count is compared with a limit of this file, so a regression is noticed even if
//! it is smaller than the noise of timings.
//!
//! Each limit is the count with rustc 1.95 plus a tenth, because another compiler or allocator
//! leads to a slightly different count. After an intended change, `ci/bench instructions` prints
//! the new counts.

use std::{
    hint::black_box,
    sync::atomic::{AtomicPtr, Ordering},
};

use arc_swap::ArcSwap;
use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, prelude::*};
use mainstay::{Cached, Provider, Reader, Registry, Running, ServiceId};
use mainstay_benches::{
    graphs,
    rivals::{
        floor::Floor,
        limits::{LoadAndState, PointerAndState},
        read_cells::Cell,
    },
    tree::Tree,
};

const READS: u64 = 1_000;
const ANSWER: u64 = 42;

struct One {
    registry: Registry,
    id: ServiceId<u64>,
    reader: Reader<u64>,
    cached: Cached<u64>,
    _provider: Provider<u64>,
    _running: Running<u64>,
}

/// One service that has been read: the first read of a thread does additional work.
fn one() -> One {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(ANSWER).unwrap();
    let mut cached = registry.cached(id).unwrap();
    // The first read counts a reference, and the second one registers the thread.
    for _ in 0..2 {
        assert_eq!((*registry.get(id).unwrap(), **cached.get().unwrap()), (ANSWER, ANSWER));
    }
    let reader = registry.reader(id).unwrap();
    One { registry, id, reader, cached, _provider: provider, _running: running }
}

/// A chain that has failed before, so its closure is cached.
fn chain(services: usize) -> Tree {
    let mut tree = Tree::new(services, &graphs::chain(services));
    for _ in 0..2 {
        tree.start();
        assert_eq!(tree.fail(), services);
    }
    tree.start();
    tree
}

/// A floor that has failed before, and is up again.
fn floor_of(services: usize) -> Floor {
    let floor = Floor::new(services);
    for _ in 0..2 {
        floor.start();
        assert_eq!(floor.fail_for("bench"), services);
    }
    floor.start();
    floor
}

/// The configuration of a benchmark that may take at most this number of instructions.
fn at_most_instructions(instructions: u64) -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default()
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]))
        .clone()
}

#[library_benchmark(config = at_most_instructions(49_600))]
#[bench::one_thousand(one())]
fn get(one: One) -> One {
    for _ in 0..READS {
        assert_eq!(*black_box(&one.registry).get(one.id).unwrap(), ANSWER);
    }
    one
}

#[library_benchmark(config = at_most_instructions(41_900))]
#[bench::one_thousand(one())]
fn reader(one: One) -> One {
    for _ in 0..READS {
        assert_eq!(*black_box(&one.reader).get().unwrap(), ANSWER);
    }
    one
}

#[library_benchmark(config = at_most_instructions(18_800))]
#[bench::one_thousand(one())]
fn cached(mut one: One) -> One {
    for _ in 0..READS {
        assert_eq!(**black_box(&mut one.cached).get().unwrap(), ANSWER);
    }
    one
}

#[library_benchmark(config = at_most_instructions(1_290))]
#[bench::one(chain(1))]
fn fail_of_1(tree: Tree) -> Tree {
    assert_eq!(tree.fail(), 1);
    tree
}

#[library_benchmark(config = at_most_instructions(85_800))]
#[bench::one(chain(1_000))]
fn fail_of_1000(tree: Tree) -> Tree {
    assert_eq!(tree.fail(), 1_000);
    tree
}

/// Three services.
struct Three {
    registry: Registry,
    ids: (ServiceId<u64>, ServiceId<u64>, ServiceId<u64>),
    _provided: Vec<(Provider<u64>, Running<u64>)>,
}

fn three() -> Three {
    let registry = Registry::with_capacity(3).unwrap();
    let mut provided = Vec::new();
    let ids = ["a", "b", "c"].map(|name| {
        let id = registry.register(name).unwrap();
        let provider = registry.provide(id).unwrap();
        let running = provider.begin().wait_blocking().unwrap().ready(ANSWER).unwrap();
        (0..2).for_each(|_| assert_eq!(*registry.get(id).unwrap(), ANSWER));
        provided.push((provider, running));
        id
    });
    Three { registry, ids: ids.into(), _provided: provided }
}

#[library_benchmark(config = at_most_instructions(487_500))]
#[bench::one_thousand(three())]
fn get_all_of_3(three: Three) -> Three {
    for _ in 0..READS {
        let (a, b, c) = black_box(&three.registry).get_all(three.ids).unwrap();
        assert_eq!((*a, *b, *c), (ANSWER, ANSWER, ANSWER));
    }
    three
}

/// A service that is down, and has been up.
fn down() -> Provider<u64> {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    let provider = registry.provide(id).unwrap();
    assert_eq!(published(&provider).fail("bench").failed, 1);
    provider
}

fn published(provider: &Provider<u64>) -> Running<u64> {
    provider.begin().wait_blocking().unwrap().ready(ANSWER).unwrap()
}

/// The limit with the feature `supervise`, which counts each instance, or the limit without it.
const fn by_feature(supervise: u64, none: u64) -> u64 {
    if cfg!(feature = "supervise") { supervise } else { none }
}

#[library_benchmark(config = at_most_instructions(by_feature(1_950, 1_720)))]
#[bench::one(down())]
fn publish(provider: Provider<u64>) -> (Provider<u64>, Running<u64>) {
    let running = published(&provider);
    (provider, running)
}

#[library_benchmark(config = at_most_instructions(by_feature(1_690, 1_190)))]
#[bench::one(published(&down()))]
fn replace(running: Running<u64>) -> Running<u64> {
    running.replace(ANSWER).unwrap();
    running
}

// The floor of a cached read: one load, and a pointer to follow.
#[library_benchmark]
#[bench::one_thousand(AtomicPtr::new(Box::into_raw(Box::new(ANSWER))))]
fn floor(pointer: AtomicPtr<u64>) -> AtomicPtr<u64> {
    for _ in 0..READS {
        // SAFETY: the value is never freed.
        assert_eq!(unsafe { *black_box(&pointer).load(Ordering::Acquire) }, ANSWER);
    }
    pointer
}

// The part of `get` that arc-swap executes.
#[library_benchmark]
#[bench::one_thousand(ArcSwap::from_pointee(ANSWER))]
fn arc_swap_load(swap: ArcSwap<u64>) -> ArcSwap<u64> {
    for _ in 0..READS {
        assert_eq!(**black_box(&swap).load(), ANSWER);
    }
    swap
}

// The floor of a cached read that checks a pointer and a state.
#[library_benchmark]
#[bench::one_thousand(PointerAndState::new(ANSWER))]
fn pointer_and_state(cell: PointerAndState) -> PointerAndState {
    let mut kept = cell.observe();
    for _ in 0..READS {
        assert_eq!(black_box(&cell).load(black_box(&mut kept)), ANSWER);
    }
    cell
}

// The floor of a `get` that loads by arc-swap and checks a state.
#[library_benchmark]
#[bench::one_thousand(LoadAndState::new(ANSWER))]
fn load_and_state(cell: LoadAndState) -> LoadAndState {
    for _ in 0..READS {
        assert_eq!(black_box(&cell).load(), ANSWER);
    }
    cell
}

// The floor of a failure that stores a reason.
#[library_benchmark]
#[bench::one(floor_of(1))]
fn remembered_floor_of_1(floor: Floor) -> Floor {
    assert_eq!(floor.fail_for("bench"), 1);
    floor
}

#[library_benchmark]
#[bench::one(floor_of(1_000))]
fn remembered_floor_of_1000(floor: Floor) -> Floor {
    assert_eq!(floor.fail_for("bench"), 1_000);
    floor
}

library_benchmark_group!(
    name = instructions,
    benchmarks = [
        floor,
        pointer_and_state,
        cached,
        arc_swap_load,
        load_and_state,
        reader,
        get,
        get_all_of_3,
        publish,
        replace,
        remembered_floor_of_1,
        fail_of_1,
        remembered_floor_of_1000,
        fail_of_1000,
    ]
);

/// The recovery of one service, with a loop that its provider runs by hand, and with a supervisor.
#[cfg(feature = "supervise")]
mod supervision {
    use std::{
        sync::atomic::Ordering,
        task::{Context, Waker},
    };

    use gungraun::prelude::*;
    use mainstay::{Registry, ServiceId};
    use mainstay_benches::recovering::{
        Number, Provide, Work, by_hand, supervised, supervised_with_body_and_close_hook,
    };

    use super::at_most_instructions;

    /// One service that has recovered before, and the loop of its provider.
    struct Recovering {
        registry: Registry,
        id: ServiceId<u64>,
        work: Work,
        /// The number of values that a close hook has closed.
        closed: Number,
    }

    impl Recovering {
        fn new(provide: Provide) -> Self {
            let registry = Registry::with_capacity(1).unwrap();
            let id = registry.register("service").unwrap();
            let closed = Number::default();
            let work = provide(&registry, id, None, Number::clone(&closed));
            let mut recovering = Self { registry, id, work, closed };
            recovering.poll();
            recovering.recover();
            recovering.recover();
            recovering
        }

        fn poll(&mut self) {
            let mut context = Context::from_waker(Waker::noop());
            assert!(self.work.as_mut().poll(&mut context).is_pending());
        }

        /// The failure, and the next instance.
        fn recover(&mut self) {
            assert_eq!(self.registry.fail(self.id, "bench").unwrap().failed, 1);
            self.poll();
            assert!(self.registry.get(self.id).is_ok());
        }
    }

    #[library_benchmark]
    #[bench::one(Recovering::new(by_hand))]
    fn recovery_by_hand(mut recovering: Recovering) -> Recovering {
        recovering.recover();
        recovering
    }

    #[library_benchmark(config = at_most_instructions(10_780))]
    #[bench::one(Recovering::new(supervised))]
    fn recovery_supervised(mut recovering: Recovering) -> Recovering {
        recovering.recover();
        recovering
    }

    // The third recovery of a service whose body was notified and has returned, and whose old value
    // is closed.
    #[library_benchmark(config = at_most_instructions(21_300))]
    #[bench::one(Recovering::new(supervised_with_body_and_close_hook))]
    fn recovery_with_body_and_close_hook(mut recovering: Recovering) -> Recovering {
        recovering.recover();
        assert_eq!(recovering.closed.load(Ordering::Relaxed), 3);
        recovering
    }

    library_benchmark_group!(
        name = recovery,
        benchmarks = [recovery_by_hand, recovery_supervised, recovery_with_body_and_close_hook]
    );
}
#[cfg(feature = "supervise")]
use supervision::recovery;

#[cfg(feature = "supervise")]
main!(library_benchmark_groups = instructions, recovery);
#[cfg(not(feature = "supervise"))]
main!(library_benchmark_groups = instructions);
