//! A cell with an `Arc` that can be replaced while it is read. The unsafe code of reads is in this
//! file.
//!
//! # Why
//!
//! A load of arc-swap is two locked instructions, and on most processors they are nine tenths of
//! a `Registry::get`. A load that announces what it reads costs none (`cargo bench --bench reads`).
//!
//! # The argument
//!
//! `docs/design.md`, "The cell of a value".
#![allow(unsafe_code)]

use std::{mem::ManuallyDrop, ops::Deref, ptr};

use super::{
    Arc, AtomicPtr, Ordering,
    counted_cell::CountedCell,
    places::{self, Counted, Mark, Place, leave_with_readers},
    yield_now,
};

/// The result of a load: a protected reference that is cheap to get. Keep it only for a short time.
///
/// Two words, as a pair of registers: with a third one, a reader would write them to memory and
/// read them back.
pub(crate) struct Held<T> {
    content: ManuallyDrop<Arc<T>>,
    /// What protects the content, which is not counted then. `None`: it is counted.
    place: Option<&'static Place>,
}

impl<T> Deref for Held<T> {
    type Target = Arc<T>;

    #[inline]
    fn deref(&self) -> &Arc<T> {
        &self.content
    }
}

impl<T> Drop for Held<T> {
    #[inline]
    fn drop(&mut self) {
        match self.place {
            // It drops the reference that a writer may have left there.
            Some(place) => place.end(),
            // SAFETY: the content is counted, and nothing uses it after this.
            None => drop_counted(unsafe { ManuallyDrop::take(&mut self.content) }),
        }
    }
}

/// Not inlined, and by value: it would let each read write its result to memory.
#[inline(never)]
fn drop_counted<T>(content: Arc<T>) {
    drop(content);
}

/// Returns the result of a load of a cell with this content.
pub(crate) fn hold<T>(content: Arc<T>) -> Held<T> {
    Held { content: ManuallyDrop::new(content), place: None }
}

/// Converts the result of a load into a counted reference.
pub(crate) fn into_arc<T>(held: Held<T>) -> Arc<T> {
    // Cloned while the place protects it.
    Arc::clone(&held)
}

/// A cell that is empty or contains an `Arc`.
///
/// The only ordering that the callers need: a thread that loads a value sees what was written
/// before the value was stored. The state of the slot decides which value is current.
pub(crate) struct ArcCell<T> {
    address: Address<T>,
    counted: CountedCell<T>,
}

/// The word of a cell: null if it is empty, `locked`, or the address of the content. The address is
/// odd if loads may announce it, which the first one permits: a writer that removes a content whose
/// address is even need not look for readers.
///
/// Also the lock of the writers of the cell. Readers never wait for it.
struct Address<T>(AtomicPtr<T>);

/// A writer exchanges the content. No value is there: that of an `Arc` comes after its counters, so
/// its address is also even.
fn locked<T>() -> *mut T {
    ptr::without_provenance_mut(2)
}

/// Returns the address of a value as loads announce it.
fn announced<T>(address: *mut T) -> *mut T {
    address.map_addr(|address| address | 1)
}

fn is_announced<T>(address: *mut T) -> bool {
    address.addr() & 1 == 1
}

/// Returns the address of the value.
fn plain<T>(address: *mut T) -> *mut T {
    address.map_addr(|address| address & !1)
}

impl<T> Address<T> {
    /// Returns the address if loads may announce it. Relaxed: `is` follows.
    #[inline]
    fn get(&self) -> Option<*mut T> {
        let address = self.0.load(Ordering::Relaxed);
        is_announced(address).then_some(address)
    }

    /// Returns whether the word is still this one.
    ///
    /// Acquire: pairs with `unlock`, also if `permit` has written the word since (a
    /// read-modify-write). The reader sees what was written before the value was stored.
    #[inline]
    fn is(&self, address: *mut T) -> bool {
        self.0.load(Ordering::Acquire) == address
    }

    /// Lets loads announce the content from now on.
    ///
    /// Relaxed: a load that announces has read this word, and the writer that removes the content
    /// reads the same word or a later one, by a read-modify-write.
    fn permit(&self) {
        let from = self.0.load(Ordering::Relaxed);
        if !from.is_null() && from != locked() && !is_announced(from) {
            let (to, relaxed) = (announced(from), Ordering::Relaxed);
            let _ = self.0.compare_exchange(from, to, relaxed, relaxed);
        }
    }

    /// Excludes other writers, and loads that announce the content. Returns the word.
    ///
    /// Acquire: pairs with `unlock`.
    fn lock(&self) -> *mut T {
        loop {
            let address = self.0.load(Ordering::Relaxed);
            let lock = || {
                let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
                self.0.compare_exchange(address, locked(), success, failure)
            };
            if address != locked() && lock().is_ok() {
                return address;
            }
            // The other one exchanges one word.
            yield_now();
        }
    }

    /// Release: pairs with `is` and `lock`.
    fn unlock(&self, address: *mut T) {
        self.0.store(address, Ordering::Release);
    }
}

fn address<T>(content: &Option<Arc<T>>) -> *mut T {
    content.as_ref().map_or(ptr::null_mut(), |content| Arc::as_ptr(content).cast_mut())
}

impl<T: Send + Sync + 'static> Counted for Arc<T> {
    fn address(&self) -> *mut () {
        announced(Arc::as_ptr(self).cast_mut()).cast()
    }

    fn mark(&self) -> Arc<Mark> {
        Arc::new(Mark::new(Arc::clone(self)))
    }
}

impl<T> ArcCell<T> {
    pub(crate) fn empty() -> Self {
        let address = Address(AtomicPtr::new(ptr::null_mut()));
        Self { address, counted: CountedCell::empty() }
    }

    /// Tries once to load the content without counting a reference. Returns `None` if that is not
    /// possible, or if the cell is empty. Wait-free.
    #[inline(always)]
    pub(crate) fn load_announced(&self) -> Option<Held<T>> {
        let address = self.address.get()?;
        let place = places::announce(address.cast())?;
        if !self.address.is(address) {
            place.end();
            return None;
        }
        // SAFETY: the address is that of an `Arc` that was the content after the place announced
        // it. The call that removes it leaves a counted reference in the place before it drops its
        // own, so the value lives until `Place::end` (`docs/design.md`, C1). `Held` has a place, so
        // it does not drop this one.
        let content = unsafe { Arc::from_raw(plain(address).cast_const()) };
        Some(Held { content: ManuallyDrop::new(content), place: Some(place) })
    }

    /// As `load_announced`, after that has returned `None`: counts a reference, as arc-swap does,
    /// and lets later loads announce the content. Wait-free.
    pub(crate) fn load_counted(&self) -> Option<Held<T>> {
        self.address.permit();
        self.load_full().map(hold)
    }

    /// As `load_full`, for a caller that knows that the content it has loaded was exchanged, and
    /// loads in a loop.
    #[cfg(feature = "supervise")]
    pub(crate) fn load_again(&self) -> Option<Arc<T>> {
        self.load_full()
    }

    /// Loads the content, and counts a reference. Wait-free.
    #[inline]
    pub(crate) fn load_full(&self) -> Option<Arc<T>> {
        self.counted.load()
    }
}

/// What an exchange has removed from a cell.
struct Removed<T> {
    old: Option<Arc<T>>,
    /// Loads may have announced it: it must not be dropped before their readers were looked for.
    has_readers: bool,
}

/// Values that were removed from cells. Readers may use them: the drop looks for the readers of all
/// of them at once, leaves a reference with each, and then drops these.
#[cfg(any(feature = "supervise", loom))]
#[derive(Default)]
pub(crate) struct RemovedTogether(Vec<Box<dyn Counted>>);

#[cfg(any(feature = "supervise", loom))]
impl Drop for RemovedTogether {
    fn drop(&mut self) {
        leave_with_readers(&mut self.0.iter().map(|value| &**value).collect::<Vec<_>>());
    }
}

impl<T: Send + Sync + 'static> ArcCell<T> {
    /// Stores `new` if the cell still contains `current`. If not, returns the actual content.
    ///
    /// Compares addresses. The reference `current` prevents that its address is reused, and also
    /// that the `Drop` of the old value runs in this function.
    ///
    /// Blocking, for a short time: writers of one cell take turns. Readers never wait.
    pub(crate) fn replace(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<(), Option<Arc<T>>> {
        let removed = self.exchange(current, new)?;
        if let Removed { old: Some(old), has_readers: true } = &removed {
            leave_with_readers(&mut [old]);
        }
        Ok(())
    }

    /// As `replace`, but adds the old content to those whose readers are looked for later.
    #[cfg(any(feature = "supervise", loom))]
    pub(crate) fn replace_among(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
        removed: &mut RemovedTogether,
    ) -> Result<(), Option<Arc<T>>> {
        if let Removed { old: Some(old), has_readers: true } = self.exchange(current, new)? {
            removed.0.push(Box::new(old));
        }
        Ok(())
    }

    fn exchange(
        &self,
        current: &Option<Arc<T>>,
        new: Option<Arc<T>>,
    ) -> Result<Removed<T>, Option<Arc<T>>> {
        let to = address(&new);
        let from = self.address.lock();
        if plain(from) != address(current) {
            let actual = self.counted.load();
            self.address.unlock(from);
            return Err(actual);
        }
        let old = self.counted.swap(new);
        self.address.unlock(to);
        Ok(Removed { old, has_readers: is_announced(from) })
    }

    /// Empties the cell if it contains `mine`.
    pub(crate) fn remove(&self, mine: &Arc<T>) {
        let _ = self.replace(&Some(Arc::clone(mine)), None);
    }

    /// Empties the cell before it is dropped: readers may have announced its content.
    pub(crate) fn empty_for_drop(&self) {
        let content = self.counted.load();
        let _ = self.replace(&content, None);
    }
}
