//! A cell with an `Arc` that can be replaced while it is read, and whose loads are counted:
//! arc-swap behind a type of this crate.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};

use super::schedule_point;

/// A cell that is empty or contains an `Arc`. Its loads are wait-free, as far as those of arc-swap
/// are.
pub(crate) struct CountedCell<T>(ArcSwapOption<T>);

impl<T> CountedCell<T> {
    pub(crate) const fn empty() -> Self {
        Self(ArcSwapOption::const_empty())
    }

    pub(crate) fn load(&self) -> Option<Arc<T>> {
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
    ) -> Result<(), Option<Arc<T>>> {
        schedule_point();
        let previous = self.0.compare_and_swap(current, new);
        let same = match (&*previous, current) {
            (Some(previous), Some(current)) => Arc::ptr_eq(previous, current),
            (None, None) => true,
            _ => false,
        };
        if same { Ok(()) } else { Err(Guard::into_inner(previous)) }
    }

    /// Stores a content, and returns the old one.
    pub(crate) fn swap(&self, content: Option<Arc<T>>) -> Option<Arc<T>> {
        schedule_point();
        self.0.swap(content)
    }
}
