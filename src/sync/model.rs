//! The substitutes for arc-swap and crossbeam-epoch in a loom model.
//!
//! Neither can be used there: loom does not instrument arc-swap, and a pin of crossbeam-epoch is a
//! SeqCst fence, which would hide a missing fence of the code under test.
//!
//! The substitute of a cell is a loom atomic, which contains an index into a list of all values
//! that were ever in the cell. A value is published by a Release and loaded by an Acquire, and by
//! nothing more. arc-swap documents that each of its operations contains a SeqCst operation
//! ("Atomic orderings"). So if a model holds with the substitute, it holds with arc-swap. In one
//! respect the substitute is weaker than both crates: a load may be stale, and return a value
//! that was replaced before.
//!
//! Values are freed together with their cell, at the end of a run. So the models do not include
//! retirement. `loom-tests/tests/retired_closure.rs` does, with crossbeam-epoch itself.
//!
//! The list is behind a mutex of std, which loom does not instrument. It orders nothing in the
//! model, and no loom operation is executed while it is held.

use std::{
    marker::PhantomData,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use loom::sync::atomic::{AtomicUsize, Ordering};

const EMPTY: usize = usize::MAX;

/// As `arc_cell::Held`.
pub(crate) struct Held<T>(Arc<T>);

impl<T> Deref for Held<T> {
    type Target = Arc<T>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// As `arc_cell::hold`.
pub(crate) fn hold<T>(content: Arc<T>) -> Held<T> {
    Held(content)
}

/// As `arc_cell::into_arc`.
pub(crate) fn into_arc<T>(held: Held<T>) -> Arc<T> {
    held.0
}

/// As `arc_cell::ArcCell`.
pub(crate) struct ArcCell<T> {
    current: AtomicUsize,
    values: Mutex<Vec<Entry<T>>>,
}

/// A value. Each has one entry, however often it is stored, because arc-swap compares pointers.
struct Entry<T> {
    /// `None` only if the value was removed or replaced: its owner waits until it has the last
    /// reference.
    kept: Option<Arc<T>>,
    seen: Weak<T>,
    /// How many calls are about to store the value, or have stored it. Several threads may store
    /// one value, and those that are too late must not free it.
    stores: usize,
}

impl<T> ArcCell<T> {
    pub(crate) fn empty() -> Self {
        Self { current: AtomicUsize::new(EMPTY), values: Mutex::new(Vec::new()) }
    }

    fn values<R>(&self, with: impl FnOnce(&mut Vec<Entry<T>>) -> R) -> R {
        with(&mut self.values.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, value: Option<Arc<T>>) -> usize {
        let Some(value) = value else { return EMPTY };
        self.values(|values| {
            let index = position(values, &value).unwrap_or_else(|| {
                values.push(Entry { kept: None, seen: Arc::downgrade(&value), stores: 0 });
                values.len() - 1
            });
            let entry = &mut values[index];
            entry.kept = Some(value);
            entry.stores += 1;
            index
        })
    }

    /// Takes back an `add` whose value was not stored.
    fn not_stored(&self, index: usize) {
        if index == EMPTY {
            return;
        }
        drop(self.values(|values| {
            let entry = &mut values[index];
            entry.stores -= 1;
            if entry.stores == 0 { entry.kept.take() } else { None }
        }));
    }

    /// Returns `None` if the value was freed: the index is stale, and its value was removed.
    fn at(&self, index: usize) -> Option<Option<Arc<T>>> {
        if index == EMPTY {
            return Some(None);
        }
        self.values(|values| values[index].seen.upgrade().map(Some))
    }

    /// As `arc_cell::ArcCell::load_announced`, but it always succeeds.
    pub(crate) fn load_announced(&self) -> Option<Held<T>> {
        self.load_full().map(Held)
    }

    /// Called after `load_announced`, which has found the cell empty. The real load may find
    /// another content; here, `load_announced` would have found it.
    pub(crate) fn load_counted(&self) -> Option<Held<T>> {
        None
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        let index = self.current.load(Ordering::Acquire);
        self.at(index).unwrap_or_else(|| {
            // The real cell never returns a freed value. The value of the newest index is never
            // freed, and a read-modify-write reads the newest index.
            let index = self.current.fetch_add(0, Ordering::Acquire);
            self.at(index).expect("the newest value is not freed")
        })
    }

    /// As `arc_cell::ArcCell::load_again`. A read-modify-write: a stale load may return the same
    /// content for ever, and that would be a loop without an end.
    #[cfg(feature = "supervise")]
    pub(crate) fn load_again(&self) -> Option<Arc<T>> {
        let index = self.current.fetch_add(0, Ordering::Acquire);
        self.at(index).expect("the newest value is not freed")
    }

    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Option<Arc<T>>> {
        let expected = match current {
            None => EMPTY,
            Some(current) => match self.values(|values| position(values, current)) {
                Some(position) => position,
                None => return Err(self.load_full()),
            },
        };
        let new = self.add(new);
        match self.current.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                #[cfg(feature = "supervise")]
                self.release(expected);
                Ok(())
            }
            Err(_) => {
                self.not_stored(new);
                Err(self.load_full())
            }
        }
    }

    /// As `arc_cell::ArcCell::replace_among`. Each reader has a counted reference here.
    #[cfg(feature = "supervise")]
    pub(crate) fn replace_among(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
        _: &mut RemovedTogether,
    ) -> Result<(), Option<Arc<T>>> {
        self.replace(current, new)
    }

    /// Drops the reference of the list to a value that was replaced. Models of draining need
    /// this: as in the real cell, such a value lives only as long as a reader holds it. Its drop
    /// is a step of the model, and comes after the mutex of the list is released.
    #[cfg(feature = "supervise")]
    fn release(&self, index: usize) {
        if index != EMPTY {
            drop(self.values(|values| {
                values[index].stores -= 1;
                values[index].kept.take()
            }));
        }
    }

    /// As `arc_cell::ArcCell::empty_for_drop`. Each reader has a counted reference here.
    pub(crate) fn empty_for_drop(&self) {}

    pub(crate) fn remove(&self, mine: &Arc<T>) {
        let _ = self.replace(&Some(Arc::clone(mine)), None);
        self.values(|values| {
            for value in values {
                if value.seen.as_ptr() == Arc::as_ptr(mine) {
                    value.kept = None;
                }
            }
        });
    }
}

/// As `arc_cell::RemovedTogether`.
#[cfg(feature = "supervise")]
#[derive(Default)]
pub(crate) struct RemovedTogether;

#[cfg(feature = "supervise")]
impl Drop for RemovedTogether {
    fn drop(&mut self) {}
}

/// As `counted_cell::CountedCell`.
pub(crate) struct CountedCell<T>(ArcCell<T>);

impl<T> CountedCell<T> {
    pub(crate) fn empty() -> Self {
        Self(ArcCell::empty())
    }

    pub(crate) fn load(&self) -> Option<Arc<T>> {
        self.0.load_full()
    }

    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Option<Arc<T>>> {
        self.0.replace(current, new)
    }
}

/// Returns the index of the entry of a value.
fn position<T>(values: &[Entry<T>], value: &Arc<T>) -> Option<usize> {
    values.iter().position(|entry| entry.seen.as_ptr() == Arc::as_ptr(value))
}

/// As `asymmetric::is_asymmetric`.
pub(crate) fn is_asymmetric() -> bool {
    true
}

/// As `snapshot::Pin`. Nothing is retired before the end of a run.
pub(crate) struct Pin(());

/// As `snapshot::pin`.
pub(crate) fn pin() -> Pin {
    Pin(())
}

/// As `snapshot::Snapshot`. Its values are leaked, because a model has few of them.
pub(crate) struct Snapshot<T: 'static> {
    current: AtomicUsize,
    values: Mutex<Vec<&'static T>>,
    of: PhantomData<T>,
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    pub(crate) fn empty() -> Self {
        Self { current: AtomicUsize::new(EMPTY), values: Mutex::default(), of: PhantomData }
    }

    pub(crate) fn load<'p>(&self, _pin: &'p Pin) -> Option<&'p T> {
        let index = self.current.load(Ordering::Acquire);
        self.values.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied()
    }

    pub(crate) fn publish<'p>(&self, value: T, _pin: &'p Pin) -> Option<&'p T> {
        let index = {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.push(Box::leak(Box::new(value)));
            values.len() - 1
        };
        let old = self.current.swap(index, Ordering::AcqRel);
        self.values.lock().unwrap_or_else(PoisonError::into_inner).get(old).copied()
    }
}

/// Panics: a model has no clock.
pub(crate) fn park_timeout(_timeout: Duration) {
    unimplemented!("a model has no clock")
}
