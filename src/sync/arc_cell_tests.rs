//! - A value that was removed is dropped by its last holder, on the thread and at the time of that.
//! - A guard may end on another thread, also after its own thread has ended. It may be forgotten.
//! - A thread that holds more guards than it has places reads nevertheless.
//! - The places of threads that have ended are used again, unless guards occupy all of them. A
//!   thread that ends counts references after it has returned them.
//! - A `Drop` may read, and may panic.

use std::{
    cell::OnceCell,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, ThreadId},
};

use super::{ArcCell, Held, into_arc, places};

/// The threads that have dropped a value, in order.
type Drops = Arc<Mutex<Vec<ThreadId>>>;

struct Value(u32, Drops);

impl Drop for Value {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(thread::current().id());
    }
}

type Cell = ArcCell<Value>;

/// Loads as a read does.
fn load<T>(cell: &ArcCell<T>) -> Option<Held<T>> {
    cell.load_announced().or_else(|| cell.load_counted())
}

/// A cell with a value that it alone holds, and that loads may announce.
fn cell_with<T: Send + Sync + 'static>(value: T) -> ArcCell<T> {
    let cell = ArcCell::empty();
    assert!(cell.replace(&None, Some(Arc::new(value))).is_ok());
    drop(cell.load_counted());
    cell
}

fn cell(number: u32) -> (Cell, Drops) {
    let drops = Drops::default();
    (cell_with(Value(number, drops.clone())), drops)
}

fn number(held: &Option<Held<Value>>) -> Option<u32> {
    held.as_ref().map(|held| held.0)
}

fn empty(cell: &Cell) {
    let content = cell.load_full();
    assert!(cell.replace(&content, None).is_ok());
}

fn dropped(drops: &Drops) -> Vec<ThreadId> {
    drops.lock().unwrap().clone()
}

#[test]
fn the_last_holder_drops_a_value_that_was_removed() {
    let (cell, drops) = cell(1);
    let here = thread::current().id();
    thread::scope(|scope| {
        let (begin, begun) = mpsc::channel();
        let (end, until_end) = mpsc::channel::<()>();
        let reader = scope.spawn({
            let cell = &cell;
            move || {
                let held = load(cell);
                begin.send(()).unwrap();
                until_end.recv().unwrap();
                assert_eq!(number(&held), Some(1));
                drop(held);
                thread::current().id()
            }
        });
        begun.recv().unwrap();
        empty(&cell);
        assert_eq!(number(&load(&cell)), None);
        assert_eq!(dropped(&drops), [], "a guard holds it");
        end.send(()).unwrap();
        let reader = reader.join().unwrap();
        assert_eq!(dropped(&drops), [reader]);
    });
    let (cell, drops) = self::cell(2);
    drop(load(&cell));
    empty(&cell);
    assert_eq!(dropped(&drops), [here], "nobody holds it");
}

#[test]
fn a_guard_ends_on_another_thread_and_after_its_own_has_ended() {
    let (cell, drops) = cell(1);
    let held = thread::scope(|scope| scope.spawn(|| load(&cell)).join().unwrap());
    empty(&cell);
    // They may have the places of the thread that has ended.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(number(&load(&cell)), None));
        }
    });
    assert_eq!((number(&held), dropped(&drops).len()), (Some(1), 0));
    drop(held);
    assert_eq!(dropped(&drops), [thread::current().id()]);
}

#[test]
fn a_thread_holds_any_number_of_guards() {
    let cells: Vec<(Cell, Drops)> = (0..10_000).map(cell).collect();
    let mut held: Vec<Option<Held<Value>>> = cells.iter().map(|(cell, _)| load(cell)).collect();
    for (cell, drops) in &cells {
        empty(cell);
        assert_eq!(dropped(drops), []);
    }
    assert!(held.iter().zip(0..).all(|(held, expected)| number(held) == Some(expected)));
    // From both ends: the places and the counted ones.
    while held.pop().is_some() {
        if !held.is_empty() {
            held.remove(0);
        }
    }
    assert!(cells.iter().all(|(_, drops)| dropped(drops).len() == 1));
}

#[test]
fn a_forgotten_guard_keeps_its_value_and_its_place() {
    thread::spawn(|| {
        let (cell, drops) = cell(1);
        for _ in 0..100 {
            mem::forget(load(&cell));
        }
        let held = load(&cell);
        empty(&cell);
        assert_eq!(number(&held), Some(1));
        drop(held);
        assert_eq!(dropped(&drops), [], "it is forgotten");
        let (other, other_drops) = self::cell(2);
        drop(load(&other));
        empty(&other);
        assert_eq!(dropped(&other_drops).len(), 1);
    })
    .join()
    .unwrap();
}

#[test]
fn no_thread_gets_places_that_are_all_occupied() {
    let (cell, _) = cell(1);
    thread::scope(|scope| {
        for _ in 0..50 {
            let forgets = scope.spawn(|| (0..100).for_each(|_| mem::forget(load(&cell))));
            forgets.join().unwrap();
            let reads = scope.spawn(|| assert!(is_announced_soon(&cell)));
            reads.join().unwrap();
        }
    });
}

/// Loads until a load counts no reference. The first one of a thread does, if another thread gets
/// its places at the same moment.
fn is_announced_soon(cell: &Cell) -> bool {
    let content = cell.load_full().unwrap();
    let counted = Arc::strong_count(&content);
    (0..10_000).any(|_| {
        thread::yield_now();
        let _held = load(cell);
        Arc::strong_count(&content) == counted
    })
}

#[test]
fn places_of_threads_that_have_ended_are_used_again() {
    let (cell, _) = cell(1);
    let read_on_threads = |threads: usize| {
        thread::scope(|scope| {
            (0..threads)
                .for_each(|_| drop(scope.spawn(|| assert_eq!(number(&load(&cell)), Some(1)))));
        });
    };
    read_on_threads(8);
    let before = places::blocks();
    (0..500).for_each(|_| read_on_threads(8));
    // Other tests of this process may read, too.
    assert!(places::blocks() <= before + 256, "{before} blocks, and then {}", places::blocks());
}

/// Reads a cell when its thread ends, after the thread has given its places back.
struct Late(Arc<Cell>, mpsc::Sender<usize>);

impl Drop for Late {
    fn drop(&mut self) {
        let held = load(&self.0).unwrap();
        self.1.send(Arc::strong_count(&held)).unwrap();
    }
}

#[test]
fn a_thread_that_ends_counts_references() {
    thread_local! {
        static LATE: OnceCell<Late> = const { OnceCell::new() };
    }
    let cell = Arc::new(cell(1).0);
    let (sender, counts) = mpsc::channel();
    thread::spawn(move || {
        // Before the first read of the thread, so it is dropped after what that creates.
        assert!(LATE.with(|late| late.set(Late(Arc::clone(&cell), sender)).is_ok()));
        assert!(is_announced_soon(&cell));
    })
    .join()
    .unwrap();
    assert_eq!(counts.recv(), Ok(2));
}

#[test]
fn a_guard_becomes_counted() {
    let (cell, drops) = cell(1);
    let kept = into_arc(load(&cell).unwrap());
    empty(&cell);
    assert_eq!((kept.0, Arc::strong_count(&kept)), (1, 1));
    drop(kept);
    assert_eq!(dropped(&drops).len(), 1);
}

/// Reads a cell when it is dropped, and panics.
struct Hostile(Arc<Cell>);

impl Drop for Hostile {
    fn drop(&mut self) {
        assert_eq!(number(&load(&self.0)), Some(1));
        panic!("dropped");
    }
}

#[test]
fn a_drop_may_read_and_panic() {
    let (other, _) = cell(1);
    let other = Arc::new(other);
    for _ in 0..20 {
        let cell = cell_with(Hostile(Arc::clone(&other)));
        let held = load(&cell);
        let content = cell.load_full();
        assert!(cell.replace(&content, None).is_ok());
        drop(content);
        assert!(catch_unwind(AssertUnwindSafe(|| drop(held))).is_err(), "the place is free again");
    }
    assert_eq!(number(&load(&other)), Some(1));
}

/// Threads read two cells while others replace, remove and put back: each value is complete while
/// it is held, and is dropped exactly once.
#[test]
fn values_are_dropped_once_beside_readers_and_writers() {
    const VALUES: u32 = 20_000;
    let drops = Arc::new(AtomicUsize::new(0));
    struct Checked(u32, u32, Arc<AtomicUsize>);
    impl Drop for Checked {
        fn drop(&mut self) {
            self.1 = 0;
            self.2.fetch_add(1, Ordering::Relaxed);
        }
    }
    let cells = [ArcCell::empty(), ArcCell::empty()];
    let ended = AtomicUsize::new(0);
    thread::scope(|scope| {
        for cell in &cells {
            let (drops, ended) = (&drops, &ended);
            scope.spawn(move || {
                let mut current = None;
                for number in 1..=VALUES {
                    let next = Some(Arc::new(Checked(number, !number, Arc::clone(drops))));
                    assert!(cell.replace(&current, next.clone()).is_ok());
                    // As a switch that is undone.
                    if number % 3 == 0 {
                        assert!(cell.replace(&next, current.clone()).is_ok());
                    } else {
                        current = next;
                    }
                }
                assert!(cell.replace(&current, None).is_ok());
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        for reader in 0..4 {
            let (cells, ended) = (&cells, &ended);
            scope.spawn(move || {
                let mut kept = Vec::new();
                while ended.load(Ordering::Relaxed) < 2 {
                    for cell in cells {
                        let held = load(cell);
                        if let Some(value) = &held {
                            assert_eq!(value.0, !value.1, "it was dropped");
                        }
                        // Some threads hold more guards than they have places.
                        kept.push(held);
                    }
                    if kept.len() > 4 * reader {
                        kept.clear();
                    }
                }
            });
        }
    });
    assert_eq!(drops.load(Ordering::Relaxed), 2 * VALUES as usize);
}
