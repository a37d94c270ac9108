//! What stands in for arc-swap and crossbeam-epoch inside a loom model.
//!
//! Both are invisible to loom (arc-swap) or would help the code under test (a pin of crossbeam-epoch is a
//! SeqCst fence, which would hide a missing one of ours). Their stand-in is an index into a list of all
//! values that were ever in the cell, in a loom atomic: published by Release, loaded by Acquire, nothing
//! more. arc-swap documents a SeqCst operation in each of its own ("Atomic orderings"), so a model that holds
//! here holds there. It is weaker in one thing that the real ones exclude: a load may be stale, and give a value
//! that was replaced before. Values are freed when the cell is, at the end of a run, so retirement itself is not
//! modelled here: `loom-tests/tests/retired_row.rs` does that, with crossbeam-epoch itself.
//!
//! The list is behind a std mutex that loom does not see. It orders nothing in the model, and no loom
//! operation happens while it is held.

use std::{
    marker::PhantomData,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use loom::sync::atomic::{AtomicUsize, Ordering};

use super::Shielded;

const EMPTY: usize = usize::MAX;

pub(crate) struct Held<T>(Option<Arc<T>>);

impl<T> Deref for Held<T> {
    type Target = Option<Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

pub(crate) fn nothing<T>() -> Held<T> {
    Held(None)
}

pub(crate) fn into_arc<T>(held: Held<T>) -> Option<Arc<T>> {
    held.0
}

/// As `arc_cell::ArcCell`.
pub(crate) struct ArcCell<T> {
    current: AtomicUsize,
    values: Mutex<Vec<Entry<T>>>,
}

struct Entry<T> {
    /// Gone only where the value was retracted: the caller wants it alone.
    kept: Option<Arc<T>>,
    seen: Weak<T>,
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
            let seen = Arc::downgrade(&value);
            values.push(Entry { kept: Some(value), seen });
            values.len() - 1
        })
    }

    /// `None` where the value is gone: a stale index of a retracted value.
    fn at(&self, index: usize) -> Option<Option<Arc<T>>> {
        if index == EMPTY {
            return Some(None);
        }
        self.values(|values| values[index].seen.upgrade().map(Some))
    }

    pub(crate) fn load(&self) -> Held<T> {
        Held(self.load_full())
    }

    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        let index = self.current.load(Ordering::Acquire);
        self.at(index).unwrap_or_else(|| {
            // The real cell never gives a value that is gone; the newest index never is.
            let index = self.current.fetch_add(0, Ordering::Acquire);
            self.at(index).expect("the newest value is kept")
        })
    }

    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Shielded<Held<T>>> {
        // The index of `current`: the last one, since a value that was refused may be tried again, and only
        // its last try can have been put in.
        let expected = match current {
            None => EMPTY,
            Some(current) => {
                let position = self.values(|values| {
                    values.iter().rposition(|v| v.seen.as_ptr() == Arc::as_ptr(current))
                });
                match position {
                    Some(position) => position,
                    None => return Err(Shielded::new(self.load())),
                }
            }
        };
        let new = self.add(new);
        match self.current.compare_exchange(expected, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                #[cfg(feature = "supervise")]
                self.let_go(expected);
                Ok(())
            }
            Err(_) => {
                if new != EMPTY {
                    self.values(|values| values[new].kept = None);
                }
                Err(Shielded::new(self.load()))
            }
        }
    }

    /// Where draining is modelled, what was replaced lives only as long as somebody has it, as in the real cell. Its drop
    /// is a step of the model, and comes after the list is free.
    #[cfg(feature = "supervise")]
    fn let_go(&self, index: usize) {
        if index != EMPTY {
            drop(self.values(|values| values[index].kept.take()));
        }
    }

    pub(crate) fn retract(&self, mine: &Arc<T>) {
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

/// As `snapshot::Pin`; nothing is retired before the end of a run.
pub(crate) struct Pin(());

pub(crate) fn pin() -> Pin {
    Pin(())
}

/// As `snapshot::Snapshot`. Its values live as long as the process: a model is small, and short.
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

/// A model has no clock.
pub(crate) fn park_timeout(_timeout: Duration) {
    unimplemented!("a model has no clock")
}
