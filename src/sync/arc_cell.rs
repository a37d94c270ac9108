//! A cell with an `Arc` that can be replaced while it is read: arc-swap behind a type of this
//! crate.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::schedule_point;

/// The result of a load: a protected reference that is cheap to get. Keep it only for a short time.
pub(crate) type Held<T> = Guard<Option<Arc<T>>>;

/// Returns the result of a load of a cell with this content.
pub(crate) fn hold<T>(content: Option<Arc<T>>) -> Held<T> {
    Guard::from_inner(content)
}

/// Converts the result of a load into a counted reference.
pub(crate) fn into_arc<T>(held: Held<T>) -> Option<Arc<T>> {
    Guard::into_inner(held)
}

/// A cell that is empty or contains an `Arc`. Its loads are wait-free, as far as those of
/// arc-swap are.
///
/// The only ordering that the callers need: a thread that loads a value sees what was written
/// before the value was stored. The state of the slot decides which value is current.
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

    /// As `load`, for a caller that knows that the content it has loaded was exchanged, and loads
    /// in a loop.
    #[cfg(feature = "supervise")]
    pub(crate) fn load_again(&self) -> Held<T> {
        self.load()
    }

    #[inline]
    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        schedule_point();
        self.0.load_full()
    }

    /// Stores `new` if the cell still contains `current`. If not, returns the actual content.
    ///
    /// Compares addresses. The reference `current` prevents that its address is reused, and also
    /// that the `Drop` of the old value runs in this function.
    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Held<T>> {
        schedule_point();
        let previous = self.0.compare_and_swap(current, new);
        let same = match (&*previous, current) {
            (Some(previous), Some(current)) => Arc::ptr_eq(previous, current),
            (None, None) => true,
            _ => false,
        };
        if same { Ok(()) } else { Err(previous) }
    }

    /// Empties the cell if it contains `mine`.
    pub(crate) fn remove(&self, mine: &Arc<T>) {
        let _ = self.replace(&Some(Arc::clone(mine)), None);
    }
}
