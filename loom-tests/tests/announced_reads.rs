//! Reads that announce the address of what they read, while the cell is written.
//!
//! The other models use a substitute for the cell. These use `src/sync/arc_cell.rs`, `places.rs`
//! and `asymmetric.rs` themselves, with the substitute for arc-swap. Both halves of the asymmetric
//! fence are SeqCst fences here. Each thread has one place.
//!
//! Properties:
//!
//! - a value that was loaded is complete, and is not dropped while it is held, also in the sense of
//!   the memory model: every access to it comes before its drop;
//! - a value that was removed is dropped once, at the latest when its last reader lets go of it;
//! - a thread that has loaded a value never afterwards loads an older one.
#![cfg(loom)]
#![allow(unsafe_code)]

#[path = "../../src/sync/arc_cell.rs"]
#[allow(dead_code, reason = "the models use no more than they need")]
mod arc_cell;
#[path = "../../src/sync/asymmetric.rs"]
mod asymmetric;
#[path = "../../src/sync/places.rs"]
mod places;

/// The substitute for arc-swap. Weaker: each operation of arc-swap contains a SeqCst one.
mod counted_cell {
    use super::{Arc, Mutex, lock};

    pub(crate) struct CountedCell<T>(Mutex<Option<Arc<T>>>);

    impl<T> CountedCell<T> {
        pub(crate) fn empty() -> Self {
            Self(Mutex::new(None))
        }

        pub(crate) fn load(&self) -> Option<Arc<T>> {
            lock(&self.0).clone()
        }

        pub(crate) fn replace(
            &self,
            current: &Option<Arc<T>>,
            new: Option<Arc<T>>,
        ) -> Result<(), Option<Arc<T>>> {
            let mut content = lock(&self.0);
            let is_same = match (&*content, current) {
                (Some(content), Some(current)) => Arc::ptr_eq(content, current),
                (content, current) => content.is_none() && current.is_none(),
            };
            if !is_same {
                return Err(content.clone());
            }
            let old = std::mem::replace(&mut *content, new);
            drop(content);
            drop(old);
            Ok(())
        }

        pub(crate) fn swap(&self, new: Option<Arc<T>>) -> Option<Arc<T>> {
            std::mem::replace(&mut lock(&self.0), new)
        }
    }
}

use std::{
    env,
    process::Command,
    sync::{Arc as StdArc, PoisonError},
};

use arc_cell::{ArcCell, Held, RemovedTogether, into_arc};
use loom::thread::{JoinHandle, spawn};
use mainstay_loom_tests::model;

// The imports of these files from their parent module.
use loom::{
    lazy_static,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering, fence},
    },
    thread::yield_now,
    thread_local as const_thread_local,
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    mutex.try_lock().ok()
}

/// The substitute for the call of the kernel: both halves of the fence are SeqCst fences.
mod membarrier {
    use std::{cell::Cell, env};

    use super::{Ordering, fence};

    std::thread_local! {
        /// Of std: all threads of a model are on one thread.
        pub(crate) static IS_REGISTERED: Cell<bool> = const { Cell::new(true) };
        pub(crate) static HAS_LIGHT_FENCE: Cell<bool> =
            Cell::new(env::var_os(NO_LIGHT_FENCE).is_none());
    }

    /// If this variable is set, the light fence is nothing at all.
    pub(crate) const NO_LIGHT_FENCE: &str = "MAINSTAY_NO_LIGHT_FENCE";

    pub(crate) fn is_registered() -> bool {
        IS_REGISTERED.get()
    }

    pub(crate) fn execute() -> bool {
        true
    }

    pub(crate) fn light_fence() {
        if is_registered() && HAS_LIGHT_FENCE.get() {
            fence(Ordering::SeqCst);
        }
    }
}

/// What `membarrier` is for: each of these models fails if the light fence is nothing at all.
/// Except one: no value is removed there.
#[test]
fn models_fail_without_the_light_fence() {
    const OTHERS: [&str; 2] =
        ["models_fail_without_the_light_fence", "a_read_beside_the_first_value"];
    let run = |arguments: &[&str]| {
        let mut run = Command::new(env::current_exe().unwrap());
        run.args(arguments).env(membarrier::NO_LIGHT_FENCE, "1").output().unwrap()
    };
    let list = String::from_utf8(run(&["--list"]).stdout).unwrap();
    let models = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let models: Vec<&str> = models.filter(|name| !OTHERS.contains(name)).collect();
    assert!(models.contains(&"a_read_beside_a_removal"), "{models:?}");
    for model in models {
        let output = String::from_utf8(run(&["--exact", model]).stdout).unwrap();
        assert!(output.contains("0 passed; 1 failed"), "{model}: {output}");
    }
}

/// What becomes of a value. It is stored outside the value, so that it outlasts it.
struct Life {
    /// The creation and the drop of the value write it, and each access reads it. So loom finds an
    /// access that is not ordered after the first or before the second.
    accesses: loom::cell::UnsafeCell<()>,
    /// Of std: it orders nothing in the model.
    drops: std::sync::atomic::AtomicU32,
}

// SAFETY: no access touches any data.
unsafe impl Sync for Life {}

impl Life {
    fn drops(&self) -> u32 {
        self.drops.load(Ordering::Relaxed)
    }
}

struct Value {
    number: usize,
    life: StdArc<Life>,
}

impl Value {
    fn new(number: usize) -> (Arc<Self>, StdArc<Life>) {
        let accesses = loom::cell::UnsafeCell::new(());
        let life = StdArc::new(Life { accesses, drops: 0.into() });
        life.accesses.with_mut(|_| ());
        (Arc::new(Self { number, life: StdArc::clone(&life) }), life)
    }

    /// Reads the value, and returns its number.
    fn read(&self) -> usize {
        self.life.accesses.with(|_| ());
        self.number
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.life.accesses.with_mut(|_| ());
        self.life.drops.fetch_add(1, Ordering::Relaxed);
    }
}

type Cell = ArcCell<Value>;

/// A cell with a value that loads may announce.
fn cell(number: usize) -> (Arc<Cell>, Arc<Value>, StdArc<Life>) {
    let (cell, (value, life)) = (Arc::new(Cell::empty()), Value::new(number));
    assert!(cell.replace(&None, Some(Arc::clone(&value))).is_ok());
    drop(cell.load_counted());
    (cell, value, life)
}

/// Runs `work` with the cell on a thread of its own.
fn on_thread<R: 'static>(
    cell: &Arc<Cell>,
    work: impl FnOnce(&Arc<Cell>) -> R + 'static,
) -> JoinHandle<R> {
    let cell = Arc::clone(cell);
    spawn(move || work(&cell))
}

/// Loads as a read does.
fn load(cell: &Cell) -> Option<Held<Value>> {
    cell.load_announced().or_else(|| cell.load_counted())
}

/// Returns the number of the content. It is read while it is held, and once before its end.
fn read(cell: &Cell) -> Option<usize> {
    let held = load(cell);
    read_held(&held)
}

fn read_held(held: &Option<Held<Value>>) -> Option<usize> {
    held.as_ref().map(|held| held.read())
}

#[test]
fn a_read_beside_a_removal() {
    for has_membarrier in [true, false] {
        membarrier::IS_REGISTERED.set(has_membarrier);
        read_beside_removal(if has_membarrier { "light fences" } else { "full fences" });
    }
}

fn read_beside_removal(fences: &str) {
    model(&format!("a read beside a removal, {fences}"), Some(3), || {
        let (cell, value, life) = cell(0);
        let reader = on_thread(&cell, move |cell| assert!(matches!(read(cell), None | Some(0))));
        let writer = on_thread(&cell, move |cell| cell.remove(&value));
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(life.drops(), 1, "its last reader or the writer has dropped it");
    });
}

/// A writer need not look for the readers of such a value.
#[test]
fn reads_beside_the_removal_of_a_value_that_no_load_has_announced() {
    model("reads beside the removal of a value that no load has announced", Some(2), || {
        let (value, life) = Value::new(0);
        let cell = Arc::new(Cell::empty());
        assert!(cell.replace(&None, Some(Arc::clone(&value))).is_ok());
        let readers = [1, 2].map(|reads| {
            let cell = Arc::clone(&cell);
            spawn(move || {
                for _ in 0..reads {
                    assert!(matches!(read(&cell), None | Some(0)));
                }
            })
        });
        let writer = spawn(move || cell.remove(&value));
        for thread in readers {
            thread.join().unwrap();
        }
        writer.join().unwrap();
        assert_eq!(life.drops(), 1);
    });
}

/// The light fence orders nothing that other threads have written: the value must be complete
/// without it.
#[test]
fn a_read_beside_the_first_value() {
    membarrier::HAS_LIGHT_FENCE.set(false);
    model("a read beside the first value", Some(2), || {
        let cell = Arc::new(Cell::empty());
        let writer = on_thread(&cell, move |cell| {
            let (value, _) = Value::new(0);
            assert!(cell.replace(&None, Some(value)).is_ok());
            drop(cell.load_counted());
        });
        let reader = on_thread(&cell, move |cell| {
            // The first read of a thread executes a full fence.
            let (other, ..) = self::cell(1);
            assert_eq!(read(&other), Some(1));
            assert!(matches!(read(cell), None | Some(0)));
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

/// As by a switch.
#[test]
fn reads_beside_values_that_are_removed_together() {
    model("reads beside values that are removed together", Some(2), || {
        let cells = [0, 1].map(cell);
        let readers: Vec<_> = cells
            .iter()
            .zip([0, 1])
            .map(|((cell, ..), number)| {
                let cell = Arc::clone(cell);
                spawn(move || {
                    assert!(matches!(read(&cell), Some(read) if read == number || read == 2))
                })
            })
            .collect();
        let mut removed = RemovedTogether::default();
        let mut lives = Vec::new();
        for (cell, value, life) in cells {
            let (next, next_life) = Value::new(2);
            assert!(cell.replace_among(&Some(value), Some(next), &mut removed).is_ok());
            lives.push((cell, life, next_life));
        }
        assert!(lives.iter().all(|(_, life, _)| life.drops() == 0), "they are not let go of");
        drop(removed);
        for reader in readers {
            reader.join().unwrap();
        }
        for (_, life, next_life) in &lives {
            assert_eq!((life.drops(), next_life.drops()), (1, 0));
        }
    });
}

#[test]
fn two_reads_beside_a_replacement() {
    model("two reads beside a replacement", Some(3), || {
        let (cell, value, life) = cell(0);
        let (next, next_life) = Value::new(1);
        let reader = on_thread(&cell, move |cell| {
            let first = read(cell).expect("it is never empty");
            let second = read(cell).expect("it is never empty");
            assert!(first <= second, "{first}, and then {second}");
        });
        let writer =
            on_thread(&cell, move |cell| assert!(cell.replace(&Some(value), Some(next)).is_ok()));
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!((life.drops(), next_life.drops()), (1, 0));
        cell.empty_for_drop();
        assert_eq!(next_life.drops(), 1);
    });
}

/// As a switch that is undone.
#[test]
fn a_read_beside_a_value_that_is_put_back() {
    model("a read beside a value that is put back", Some(2), || {
        let (cell, value, life) = cell(0);
        let (next, next_life) = Value::new(1);
        let reader =
            on_thread(&cell, move |cell| assert!(matches!(read(cell), None | Some(0 | 1))));
        let writer = on_thread(&cell, move |cell| {
            let (value, next) = (Some(value), Some(next));
            assert!(cell.replace(&value, next.clone()).is_ok());
            assert!(cell.replace(&next, value.clone()).is_ok());
            assert!(cell.replace(&value, None).is_ok());
        });
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!((life.drops(), next_life.drops()), (1, 1));
    });
}

#[test]
fn a_read_beside_two_writers() {
    model("a read beside two writers", Some(2), || {
        let (cell, value, life) = cell(0);
        let reader = on_thread(&cell, move |cell| assert!(matches!(read(cell), Some(0..=2))));
        let (writers, lives): (Vec<_>, Vec<_>) = [1, 2]
            .map(|number| {
                let (cell, value) = (Arc::clone(&cell), Arc::clone(&value));
                let (next, life) = Value::new(number);
                let writer = spawn(move || match cell.replace(&Some(value), Some(next)) {
                    Ok(()) => true,
                    Err(actual) => {
                        assert!(matches!(actual.map(|value| value.read()), Some(1 | 2)));
                        false
                    }
                });
                (writer, life)
            })
            .into_iter()
            .unzip();
        drop(value);
        reader.join().unwrap();
        let won: Vec<bool> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        assert_eq!(won.iter().filter(|won| **won).count(), 1);
        assert_eq!(life.drops(), 1);
        for (life, won) in lives.iter().zip(&won) {
            assert_eq!(life.drops(), u32::from(!won), "the other one was refused");
        }
    });
}

/// One place is used for both, and each writer may be slow.
#[test]
fn reads_of_two_cells_beside_their_writers() {
    model("reads of two cells beside their writers", Some(2), || {
        let cells = [0, 1].map(cell);
        let writers: Vec<_> = cells
            .iter()
            .map(|(cell, value, _)| {
                let (cell, value) = (Arc::clone(cell), Arc::clone(value));
                spawn(move || cell.remove(&value))
            })
            .collect();
        let (cells, lives): (Vec<_>, Vec<_>) =
            cells.into_iter().map(|(cell, _, life)| (cell, life)).unzip();
        let reader = spawn(move || {
            for (number, cell) in cells.iter().enumerate() {
                assert!(read(cell).is_none_or(|read| read == number));
            }
        });
        for thread in writers {
            thread.join().unwrap();
        }
        reader.join().unwrap();
        assert!(lives.iter().all(|life| life.drops() == 1));
    });
}

#[test]
fn a_read_without_a_free_place() {
    model("a read without a free place", Some(3), || {
        let (cell, value, life) = cell(0);
        let reader = on_thread(&cell, move |cell| {
            let first = load(cell);
            let second = load(cell);
            assert!(read_held(&second).is_none() || read_held(&first).is_some());
            drop(first);
            assert!(matches!(read_held(&second), None | Some(0)));
        });
        let writer = on_thread(&cell, move |cell| cell.remove(&value));
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(life.drops(), 1);
    });
}

#[test]
fn a_guard_that_becomes_counted() {
    model("a guard that becomes counted", Some(3), || {
        let (cell, value, life) = cell(0);
        let reader = on_thread(&cell, move |cell| {
            let kept = load(cell).map(into_arc);
            // The place is free again.
            assert!(matches!(read(cell), None | Some(0)));
            assert!(kept.is_none_or(|value| value.read() == 0));
            assert!(cell.load_full().is_none_or(|value| value.read() == 0));
        });
        let writer = on_thread(&cell, move |cell| cell.remove(&value));
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(life.drops(), 1);
    });
}

/// The thread reads another cell while its first guard ends elsewhere.
#[test]
fn a_guard_that_ends_on_another_thread() {
    model("a guard that ends on another thread", Some(2), || {
        let (cell, value, life) = cell(0);
        let (other, other_value, other_life) = self::cell(1);
        let reader = spawn({
            let (cell, other) = (Arc::clone(&cell), Arc::clone(&other));
            move || {
                let held = load(&cell);
                let ends = spawn(move || {
                    assert!(matches!(read_held(&held), None | Some(0)));
                    drop(held);
                });
                assert!(matches!(read(&other), None | Some(1)));
                ends.join().unwrap();
            }
        });
        let writer = spawn({
            let (cell, other) = (Arc::clone(&cell), Arc::clone(&other));
            move || {
                cell.remove(&value);
                drop(value);
                other.remove(&other_value);
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!((life.drops(), other_life.drops()), (1, 1));
    });
}

/// As above, but a writer has left its mark before.
#[test]
fn a_marked_guard_that_ends_on_another_thread() {
    model("a marked guard that ends on another thread", Some(2), || {
        let (other, other_value, other_life) = self::cell(1);
        let reader = spawn({
            let other = Arc::clone(&other);
            move || {
                let (cell, value, life) = self::cell(0);
                let held = load(&cell);
                cell.remove(&value);
                drop(value);
                let ends = spawn(move || drop(held));
                assert!(matches!(read(&other), None | Some(1)));
                ends.join().unwrap();
                life
            }
        });
        let writer = spawn(move || other.remove(&other_value));
        let life = reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!((life.drops(), other_life.drops()), (1, 1));
    });
}

/// Another thread gets its places.
#[test]
fn a_thread_that_ends_before_its_guard() {
    model("a thread that ends before its guard", Some(2), || {
        let (cell, value, life) = cell(0);
        let reader = on_thread(&cell, move |cell| {
            let first = on_thread(cell, |cell| load(cell));
            let held = first.join().unwrap();
            assert!(matches!(read(cell), None | Some(0)));
            assert!(matches!(read_held(&held), None | Some(0)));
        });
        let writer = on_thread(&cell, move |cell| cell.remove(&value));
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(life.drops(), 1);
    });
}

/// The next value may be at the address of the one that was dropped.
#[test]
fn a_read_beside_an_address_that_is_used_again() {
    model("a read beside an address that is used again", Some(2), || {
        let (cell, value, life) = cell(0);
        let reader =
            on_thread(&cell, move |cell| assert!(matches!(read(cell), None | Some(0 | 1))));
        let writer = on_thread(&cell, move |cell| {
            cell.remove(&value);
            drop(value);
            let (next, life) = Value::new(1);
            assert!(cell.replace(&None, Some(Arc::clone(&next))).is_ok());
            drop(cell.load_counted());
            cell.remove(&next);
            life
        });
        reader.join().unwrap();
        let next_life = writer.join().unwrap();
        assert_eq!((life.drops(), next_life.drops()), (1, 1));
    });
}

#[test]
fn a_guard_that_outlives_its_cell() {
    model("a guard that outlives its cell", Some(3), || {
        let (cell, value, life) = cell(0);
        drop(value);
        let cell = Arc::try_unwrap(cell).ok().expect("nothing else has it");
        let slab = Arc::new(Slab(cell));
        let reader = spawn({
            let slab = slab.clone();
            move || {
                let held = load(&slab.0);
                drop(slab);
                assert_eq!(read_held(&held), Some(0));
            }
        });
        let other = spawn(move || drop(slab));
        reader.join().unwrap();
        other.join().unwrap();
        assert_eq!(life.drops(), 1);
    });
}

struct Slab(Cell);

impl Drop for Slab {
    fn drop(&mut self) {
        self.0.empty_for_drop();
    }
}
