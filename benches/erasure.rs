//! The gain of the unsafe code of the slab: `get` beside the same read with safe type erasure.
//!
//! The safe variant stores each cell as a `Box<dyn Any>` and downcasts it for each read. This costs
//! a virtual call for the id of the type, and a second pointer. Otherwise it reads the same words:
//! the load of arc-swap, the state, and a comparison.

use std::{
    any::Any,
    hint::black_box,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::Registry;
use mainstay_benches::features::criterion;

const SERVICES: usize = 64;

#[repr(align(64))]
struct SafeSlot {
    state: AtomicU64,
    cell: OnceLock<Box<dyn Any + Send + Sync>>,
}

struct SafeInstance<T> {
    tag: u64,
    value: T,
}

type SafeCell<T> = ArcSwapOption<SafeInstance<T>>;

fn safe_get<T: 'static>(
    slots: &[SafeSlot],
    index: usize,
) -> Option<Guard<Option<Arc<SafeInstance<T>>>>> {
    let slot = slots.get(index)?;
    let cell: &SafeCell<T> = slot.cell.get()?.downcast_ref()?;
    let held = cell.load();
    let current = held.as_ref()?.tag == slot.state.load(Ordering::Acquire);
    current.then_some(held)
}

fn erasure(c: &mut Criterion) {
    let registry = Registry::with_capacity(SERVICES).unwrap();
    let ids: Vec<_> =
        (0..SERVICES).map(|i| registry.register::<u64>(&format!("service {i}")).unwrap()).collect();
    let providers: Vec<_> = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
    let _running: Vec<_> = providers
        .iter()
        .zip(0u64..)
        .map(|(provider, i)| provider.begin().wait_blocking().unwrap().ready(i).unwrap())
        .collect();

    let slots: Vec<SafeSlot> = (0..SERVICES as u64)
        .map(|i| {
            let cell: SafeCell<u64> =
                ArcSwapOption::from_pointee(SafeInstance { tag: 2, value: i });
            let slot = SafeSlot { state: AtomicU64::new(2), cell: OnceLock::new() };
            assert!(slot.cell.set(Box::new(cell)).is_ok());
            slot
        })
        .collect();

    let mut group = c.benchmark_group("erasure, 64 services in turn");
    let mut i = 0;
    group.bench_function("typed cells (unsafe, in use)", |b| {
        b.iter(|| {
            i = (i + 1) % SERVICES;
            let guard = registry.get(black_box(ids[i])).unwrap();
            assert_eq!(*guard, i as u64);
        });
    });
    group.bench_function("dyn Any and downcast (safe)", |b| {
        b.iter(|| {
            i = (i + 1) % SERVICES;
            let guard = safe_get::<u64>(black_box(&slots), i).unwrap();
            assert_eq!(guard.as_ref().unwrap().value, i as u64);
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = criterion("erasure");
    targets = erasure
}
criterion_main!(benches);
