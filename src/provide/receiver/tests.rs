//! Values that are handed over (H).
//!
//! - Each value that was published for a receiver is handed over with its number, in the order in
//!   which the last references are dropped. It is dropped neither before nor afterwards.
//! - A value that is refused returns to its caller and is not handed over.
//! - A waived value is dropped by the holder of the last reference, or taken by the receiver.
//! - After the drop of the receiver, values are dropped as without one. A panic in the `Drop` of a
//!   value affects no other value, and no caller.
//! - The `Drop` of a value may drop instances of other services, and of the same one.
//! - On many threads each value has exactly one end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::Receiver;
use crate::{
    Attempt, Generation, Instance, Provider, Registry, Running, ServiceId,
    error::DrainError,
    instance::InstanceNumber,
    store::{Claimed, HandedOver},
};

const NONE: [u32; 0] = [];
const SOON: Duration = Duration::from_millis(1);
const ALL: InstanceNumber = number(Generation::LAST.get(), u64::MAX);

const fn number(generation: u64, revision: u64) -> InstanceNumber {
    InstanceNumber { generation: Generation::new(generation), revision }
}

/// The numbers of the values that were dropped.
#[derive(Default, Clone)]
struct Drops(Arc<Mutex<Vec<u32>>>);

impl Drops {
    fn value(&self, number: u32) -> Value {
        Value { number, drops: self.clone(), panics: false, keeps: Vec::new() }
    }

    fn numbers(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

/// A value that records its drop, and may panic in it.
struct Value {
    number: u32,
    drops: Drops,
    panics: bool,
    /// Dropped after the number is recorded.
    keeps: Vec<Arc<Instance<Value>>>,
}

impl Value {
    fn panicking(mut self) -> Self {
        self.panics = true;
        self
    }

    fn keeping(mut self, instance: Arc<Instance<Value>>) -> Self {
        self.keeps.push(instance);
        self
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops.0.lock().unwrap().push(self.number);
        assert!(!self.panics, "the drop of {} panics", self.number);
    }
}

struct Service {
    registry: Registry,
    id: ServiceId<Value>,
    provider: Provider<Value>,
    receiver: Receiver<Value>,
    drops: Drops,
    /// The values that were received. They are dropped after the test.
    received: Mutex<Vec<Value>>,
}

impl Service {
    fn new() -> Self {
        Self::of(&Registry::with_capacity(1).unwrap(), "service", &Drops::default())
    }

    fn of(registry: &Registry, name: &str, drops: &Drops) -> Self {
        let id = registry.register(name).unwrap();
        let provider = registry.provide(id).unwrap();
        let receiver = Receiver::new(registry, id);
        let (registry, drops, received) = (registry.clone(), drops.clone(), Mutex::default());
        Self { registry, id, provider, receiver, drops, received }
    }

    fn begin(&self) -> Attempt<Value> {
        self.provider.begin().wait_blocking().unwrap()
    }

    fn publish(&self, value: Value) -> Running<Value> {
        self.begin().ready_for(&self.receiver, value).unwrap()
    }

    fn up(&self, number: u32) -> Running<Value> {
        self.publish(self.drops.value(number))
    }

    fn get(&self) -> Arc<Instance<Value>> {
        self.registry.get_arc(self.id).unwrap()
    }

    /// Returns the numbers of the next instance and of its value. The value is kept.
    fn next(&self) -> Option<(InstanceNumber, u32)> {
        let HandedOver { number, value } = self.receiver.next().wait_blocking().unwrap()?;
        let mut value = value.into_inner();
        value.panics = false;
        let found = value.number;
        self.received.lock().unwrap().push(value);
        Some((number, found))
    }
}

#[test]
fn each_value_is_handed_over_with_its_number() {
    let service = Service::new();
    assert_eq!(service.next(), None, "nothing was published");
    let running = service.up(1);
    running.replace(service.drops.value(2)).unwrap();
    assert_eq!(service.next(), Some((number(0, 0), 1)), "the generation continues");
    let held = service.get();
    running.replace(service.drops.value(3)).unwrap();
    assert!(service.receiver.next().wait_blocking_timeout(SOON).is_err(), "both are held");
    running.fail("over");
    assert_eq!(service.next(), Some((number(0, 2), 3)));

    // The next generation, while the last one is still held.
    let running = service.up(4);
    drop(running);
    assert_eq!(service.next(), Some((number(1, 0), 4)));
    let error = service.receiver.next().wait_blocking_timeout(SOON).err().unwrap();
    assert!(matches!(error, DrainError::TimedOut { holders: 1, .. }));
    drop(held);
    assert_eq!(service.next(), Some((number(0, 1), 2)));
    assert_eq!(service.next(), None);
    assert_eq!(service.drops.numbers(), NONE);
}

#[test]
fn without_a_receiver_values_are_dropped() {
    let service = Service::new();
    let running = service.begin().ready(service.drops.value(1)).unwrap();
    running.replace(service.drops.value(2)).unwrap();
    drop(running);
    assert_eq!(service.drops.numbers(), [1, 2]);
    assert_eq!(service.next(), None);
}

#[test]
fn any_thread_hands_the_value_over_and_wakes_the_receiver() {
    let service = Service::new();
    let running = service.up(1);
    let held = [service.get(), service.get()];
    drop(running);
    thread::scope(|scope| {
        for held in held {
            scope.spawn(move || {
                thread::sleep(SOON);
                drop(held);
            });
        }
        assert_eq!(service.next(), Some((number(0, 0), 1)));
        assert_eq!(service.next(), None);
    });
    assert_eq!(service.drops.numbers(), NONE);
}

#[test]
fn a_guard_or_a_cached_reader_may_be_the_last_holder() {
    let service = Service::new();
    let running = service.up(1);
    let guard = service.registry.get(service.id).unwrap();
    let mut cached = service.registry.cached(service.id).unwrap();
    assert_eq!(cached.get().unwrap().number, 1);
    drop(running);
    drop(guard);
    assert_eq!(service.receiver.held(), [Claimed { number: number(0, 0), holders: 1 }]);
    assert!(cached.get().is_err(), "this releases it");
    assert_eq!(service.next(), Some((number(0, 0), 1)));
}

/// `Arc::into_inner` is public: then the instance is at another address, and has no references.
#[test]
fn an_instance_that_has_left_its_arc_is_handed_over() {
    let service = Service::new();
    let running = service.up(1);
    let held = service.get();
    drop(running);
    let instance = Arc::into_inner(held).expect("the last reference");
    assert!(service.receiver.waive(ALL).is_empty(), "it cannot be shared");
    assert!(service.receiver.next().wait_blocking_timeout(SOON).is_err(), "it is held");
    drop(instance);
    assert_eq!(service.next(), Some((number(0, 0), 1)));
    assert_eq!((service.next(), service.drops.numbers()), (None, NONE.to_vec()));
}

#[test]
fn refused_values_return_to_their_callers() {
    let service = Service::new();
    let mut attempt = service.begin();
    service.registry.fail(service.id, "too early").unwrap();
    let refused = attempt.ready_for(&service.receiver, service.drops.value(1)).unwrap_err();
    assert_eq!(refused.into_value().into_inner().number, 1);
    assert_eq!((service.next(), service.drops.numbers()), (None, vec![1]));

    let running = service.up(2);
    service.registry.fail(service.id, "over").unwrap();
    drop(running.replace(service.drops.value(3)).unwrap_err());
    assert_eq!(service.drops.numbers(), [1, 3]);
    drop(running);
    assert_eq!(service.next(), Some((number(1, 0), 2)));

    let mut attempt = service.begin();
    service.registry.close();
    drop(attempt.ready_for(&service.receiver, service.drops.value(4)).unwrap_err());
    assert_eq!((service.next(), service.drops.numbers()), (None, vec![1, 3, 4]));
}

#[test]
fn a_waived_value_is_dropped_by_the_last_holder_or_taken_by_the_receiver() {
    let service = Service::new();
    let running = service.up(1);
    let first = service.get();
    running.replace(service.drops.value(2)).unwrap();
    let second = service.get();
    running.replace(service.drops.value(3)).unwrap();
    let held = |revision, holders| Claimed { number: number(0, revision), holders };
    assert_eq!(service.receiver.held(), [held(0, 1), held(1, 1), held(2, 1)]);

    // Up to the second one: the present one is still claimed.
    let waived = service.receiver.waive(number(0, 1));
    let numbers: Vec<_> = waived.iter().map(|instance| instance.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(service.receiver.held(), [held(2, 1)]);
    let [shared_first, shared_second] = waived.try_into().ok().unwrap();
    drop(shared_first);
    assert_eq!(service.drops.numbers(), NONE);
    drop(first);
    assert_eq!(service.drops.numbers(), [1], "the reader was the last holder");
    drop(second);
    let last = Arc::into_inner(shared_second).map(Instance::into_value).unwrap();
    assert_eq!((last.number, service.drops.numbers()), (2, vec![1]), "the receiver was");
    drop(last);

    assert!(service.receiver.waive(number(0, 1)).is_empty());
    drop(running);
    assert_eq!(service.next(), Some((number(0, 2), 3)));
    assert_eq!((service.next(), service.drops.numbers()), (None, vec![1, 2]));
}

#[test]
fn a_generation_is_drained_after_a_receiver_has_taken_a_waived_value() {
    let service = Service::new();
    let running = service.up(1);
    let held = service.get();
    service.registry.fail(service.id, "over").unwrap();
    // The slot, the reader, and the receiver.
    let waived = service.receiver.waive(ALL);
    assert_eq!(running.holders(), 3);
    drop(held);
    assert!(running.drained().wait_blocking_timeout(SOON).is_err());
    let value = waived.into_iter().filter_map(Arc::into_inner).map(Instance::into_value).next();
    running.drained().wait_blocking().unwrap();
    assert_eq!((value.unwrap().number, service.next()), (1, None));
}

#[test]
fn a_receiver_that_is_dropped_drops_its_values_and_claims_no_others() {
    let service = Service::new();
    let running = service.publish(service.drops.value(1).panicking());
    for number in 2..=4 {
        running.replace(service.drops.value(number).panicking()).unwrap();
    }
    let held = service.get();
    let Service { receiver, drops, provider: _provider, .. } = service;
    assert_eq!(drops.numbers(), NONE);
    drop(receiver);
    assert_eq!(drops.numbers(), [1, 2, 3], "each was dropped, although each panics");
    // A claimed instance, and later ones.
    running.replace(drops.value(5).panicking()).unwrap();
    drop(held);
    assert_eq!(drops.numbers(), [1, 2, 3, 4]);
    running.replace(drops.value(6).panicking()).unwrap();
    assert_eq!(drops.numbers(), [1, 2, 3, 4, 5]);
    drop(running);
    assert_eq!(drops.numbers(), [1, 2, 3, 4, 5, 6]);
}

/// The `Drop` of a value runs while no lock is held: here it hands other values over.
#[test]
fn a_value_may_hold_instances_of_its_own_service_and_of_others() {
    let (registry, drops) = (Registry::with_capacity(2).unwrap(), Drops::default());
    let [lower, upper] = ["lower", "upper"].map(|name| Service::of(&registry, name, &drops));
    let below = lower.up(1);
    let running = upper.publish(drops.value(2).keeping(lower.get()));
    running.replace(drops.value(3).keeping(upper.get())).unwrap();
    drop((running, below));
    assert_eq!((lower.receiver.held().len(), upper.receiver.held().len()), (1, 1));

    // The value 3 was handed over. Its drop hands 2 over, whose drop hands 1 over.
    drop(upper.receiver.next().wait_blocking().unwrap());
    assert_eq!(drops.numbers(), [3]);
    drop(upper.receiver.next().wait_blocking().unwrap());
    assert_eq!(drops.numbers(), [3, 2]);
    assert_eq!(lower.next(), Some((number(0, 0), 1)));

    // All at once, by the drop of a receiver.
    let below = lower.up(4);
    let running = upper.publish(drops.value(5).keeping(lower.get()));
    for number in 6..100 {
        running.replace(drops.value(number).keeping(upper.get())).unwrap();
    }
    drop((running, below));
    drop(upper);
    let expected: Vec<_> = [3, 2].into_iter().chain((5..100).rev()).collect();
    assert_eq!(drops.numbers(), expected);
    assert_eq!(lower.next(), Some((number(1, 0), 4)));
}

#[test]
fn a_value_that_is_abandoned_is_handed_over() {
    // The provider lets go, the slot is in a later generation, and no attempt has begun.
    let service = Service::new();
    let running = service.up(1);
    service.registry.fail(service.id, "over").unwrap();
    assert!(service.receiver.next().wait_blocking_timeout(SOON).is_err(), "the slot holds it");
    drop(running);
    let _attempt = service.begin();
    assert_eq!(service.next(), Some((number(0, 0), 1)));
}

/// Readers, a thread that fails, a provider that replaces, and a receiver that takes and waives.
#[test]
fn on_many_threads_each_value_has_one_end() {
    const VALUES: u32 = 4_000;
    let service = Service::new();
    let Service { registry, id, receiver, drops, .. } = &service;
    let done = AtomicBool::new(false);
    let mut numbers = Vec::new();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let (mut kept, mut cached) = (Vec::new(), registry.cached(*id).unwrap());
                while !done.load(Relaxed) {
                    kept.extend(registry.get_arc(*id).ok());
                    drop(registry.get(*id));
                    let _ = cached.get();
                    if kept.len() > 8 {
                        kept.clear();
                    }
                }
            });
        }
        scope.spawn(|| {
            while !done.load(Relaxed) {
                let _ = registry.fail(*id, "again");
                thread::sleep(Duration::from_micros(50));
            }
        });
        let owner = scope.spawn(|| {
            let mut numbers = Vec::new();
            loop {
                let next = receiver.next().wait_blocking_timeout(Duration::from_micros(200));
                match next {
                    Ok(Some(HandedOver { number, value })) => {
                        numbers.push(number);
                        drop(value.into_inner());
                    }
                    Ok(None) if done.load(Relaxed) => break numbers,
                    Ok(None) => thread::yield_now(),
                    Err(_) => {
                        let waived = receiver.waive(ALL).into_iter();
                        waived.filter_map(Arc::into_inner).map(Instance::into_value).for_each(drop);
                    }
                }
            }
        });
        let mut next = 0..VALUES;
        while let Some(number) = next.next() {
            let Ok(running) = service.begin().ready_for(receiver, drops.value(number)) else {
                continue;
            };
            for number in next.by_ref().take(20) {
                if running.replace(drops.value(number)).is_err() {
                    break;
                }
            }
        }
        done.store(true, Relaxed);
        numbers = owner.join().unwrap();
    });
    let mut ends = drops.numbers();
    ends.sort_unstable();
    assert_eq!(ends, (0..VALUES).collect::<Vec<_>>(), "each value was dropped exactly once");
    let received = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), received, "each instance was handed over once");
    assert!(received > 0 && receiver.held().is_empty());
}

/// The receiver is dropped at any time: each value is dropped exactly once.
#[test]
fn a_receiver_may_be_dropped_at_any_time() {
    for round in 0..200 {
        let service = Service::new();
        let running = service.up(0);
        let held: Vec<_> = (1..=3)
            .map(|number| {
                let held = service.get();
                running.replace(service.drops.value(number)).unwrap();
                held
            })
            .collect();
        let Service { receiver, drops, .. } = service;
        thread::scope(|scope| {
            for held in held {
                scope.spawn(move || drop(held));
            }
            scope.spawn(move || drop(running));
            (0..round).for_each(|_| std::hint::spin_loop());
            drop(receiver);
        });
        let mut ends = drops.numbers();
        ends.sort_unstable();
        assert_eq!(ends, [0, 1, 2, 3]);
    }
}

#[test]
fn to_hand_a_value_over_allocates_nothing() {
    let service = Service::new();
    let running = service.up(0);
    let held: Vec<_> = (1..100)
        .map(|number| {
            let held = service.get();
            running.replace(service.drops.value(number)).unwrap();
            held
        })
        .collect();
    let at = |revision: u32| number(0, revision.into());
    let room = service.receiver.hand_over.room();
    drop((held, running));
    assert_eq!(service.receiver.hand_over.room(), room);
    (0..100).for_each(|number| assert_eq!(service.next(), Some((at(number), number))));
}

#[test]
fn a_future_waits_for_the_next_value() {
    let service = Service::new();
    let running = service.up(1);
    let held = service.get();
    drop(running);
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(SOON);
            drop(held);
        });
        let next = pollster::block_on(service.receiver.next()).unwrap().unwrap();
        assert_eq!(next.value.number, 1);
    });
}

/// Handing over costs an instance nothing.
#[test]
fn an_instance_is_as_large_as_its_parts() {
    // Tag, revision, the count of instances, id, the time of the publication, the instances from
    // which it was built, and the link of a switch.
    let words = 3 + 1 + 1 + 2 + 1;
    assert_eq!(size_of::<Instance<()>>(), words * 8);
    assert_eq!(size_of::<Instance<u64>>(), (words + 1) * 8);
}
