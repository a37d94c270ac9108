//! A shared, replaceable `Arc`: arc-swap behind one type of ours.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::{Shielded, schedule_point};

/// What a load holds: cheap, protected, short-lived.
pub(crate) type Held<T> = Guard<Option<Arc<T>>>;

/// Of a cell that has nothing in it.
pub(crate) fn nothing<T>() -> Held<T> {
    Guard::from_inner(None)
}

/// Makes it a counted reference.
pub(crate) fn into_arc<T>(held: Held<T>) -> Option<Arc<T>> {
    Guard::into_inner(held)
}

/// A cell with an `Arc` in it, or nothing. Its loads are wait-free as far as arc-swap's are.
///
/// Nothing but "what was published is visible" is asked of its orderings: which value is current is
/// decided by the state word beside it.
pub(crate) struct ArcCell<T>(ArcSwapOption<T>);

impl<T> ArcCell<T> {
    pub(crate) fn empty() -> Self {
        Self(ArcSwapOption::empty())
    }

    #[inline]
    pub(crate) fn load(&self) -> Held<T> {
        schedule_point();
        self.0.load()
    }

    #[inline]
    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        schedule_point();
        self.0.load_full()
    }

    /// Puts `new` in if `current` is still there; else gives what is. The comparison is by address, which `current`
    /// keeps from being used again. The caller's `current` is what keeps a `Drop` from being run in here.
    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Shielded<Held<T>>> {
        schedule_point();
        // Where it is another value, this may have become its last holder.
        let previous = Shielded::new(self.0.compare_and_swap(current, new));
        let same = match (&**previous, current) {
            (Some(previous), Some(current)) => Arc::ptr_eq(previous, current),
            (None, None) => true,
            _ => false,
        };
        if same { Ok(()) } else { Err(previous) }
    }

    /// Takes `mine` out again, if it is still there.
    pub(crate) fn retract(&self, mine: &Arc<T>) {
        let _ = self.replace(&Some(Arc::clone(mine)), None);
    }
}
