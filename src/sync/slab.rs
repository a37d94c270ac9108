//! The slab of typed cells. All unsafe code of the crate is in this file and in `snapshot.rs`.
//!
//! # Why
//!
//! The cells of one slab contain values of different types. The safe alternative is a `Box<dyn
//! Any>` for each cell and a downcast for each read. It costs a virtual call and a second pointer
//! for each read. `cargo bench --bench erasure` measures it.
//!
//! # The invariant
//!
//! **K**: a `Key<X>` with number `n` and index `i` exists only if the entry `i` of the slab with
//! number `n` was initialised as an `ArcCell<X>`, and the initialisation happened before the key
//! was created.
//!
//! Three facts ensure this. Only `Slab::register` and `Slab::key` create keys. No number is used
//! twice. An entry is initialised once, and stays so until the slab is dropped.
#![allow(unsafe_code)]

use std::{
    any::TypeId,
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{self, MaybeUninit, align_of, size_of},
    num::NonZeroU32,
    ptr::{self, NonNull},
    // Those of std, also in a model: the numbers must be unique across all its runs.
    sync::{
        Arc,
        atomic::{AtomicPtr, AtomicU32, Ordering},
    },
};

use super::{ArcCell, shielded};
use crate::numbers::ServiceIndex;

/// The number of the next slab. Relaxed: a number must only be unique.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

/// The permission to use one cell as an `ArcCell<X>` (invariant **K**).
///
/// The type is invariant in `X`, because a key is used to read *and* to write the cell. If it
/// were not, a key for functions that accept any string could be converted to a key for functions
/// that accept only static strings. A function of the second kind could be published with the
/// converted key, and then be called with any string:
///
/// ```compile_fail
/// # use mainstay::ServiceId;
/// fn narrow(id: ServiceId<for<'a> fn(&'a str)>) -> ServiceId<fn(&'static str)> {
///     id
/// }
/// ```
///
/// ```
/// # use mainstay::ServiceId;
/// fn same(id: ServiceId<fn(&'static str)>) -> ServiceId<fn(&'static str)> {
///     id
/// }
/// ```
pub(crate) struct Key<X> {
    number: NonZeroU32,
    index: ServiceIndex,
    // A key owns no `X`, so it is `Send` and `Sync` for every `X`.
    of: PhantomData<fn(X) -> X>,
}

impl<X> Clone for Key<X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Key<X> {}

impl<X> Key<X> {
    /// Returns the number of the slab.
    pub(crate) fn number(self) -> NonZeroU32 {
        self.number
    }

    /// Returns the index of the entry.
    pub(crate) fn index(self) -> ServiceIndex {
        self.index
    }
}

/// A fixed number of entries. An entry is one cache line. It contains an `S` from the start, and
/// from its registration on also a cell of the registered type and an `M`.
///
/// The slab itself has its own cache line, too: every read loads it, and the words next to it (the
/// number of handles, the locks) are often written.
#[repr(align(64))]
pub(crate) struct Slab<S, M> {
    number: NonZeroU32,
    entries: Box<[Entry<S, M>]>,
}

// The cell and the slot first, in this order: a read computes one address (`Slab::open`).
#[cfg_attr(not(loom), repr(C, align(64)))]
pub(crate) struct Entry<S, M> {
    cell: UnsafeCell<MaybeUninit<ArcCell<()>>>,
    slot: S,
    /// Set after the cell was initialised.
    meta: MetaCell<M>,
}

/// A `Meta` that is set once. One word, because more would not fit into the cache line: the reason
/// why it is no `OnceLock`.
struct MetaCell<M> {
    /// Null, or from `Box::into_raw`, or `claimed`.
    meta: AtomicPtr<Meta<M>>,
    owns: PhantomData<Meta<M>>,
}

impl<M> MetaCell<M> {
    fn new() -> Self {
        Self { meta: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    fn claimed() -> *mut Meta<M> {
        NonNull::dangling().as_ptr()
    }

    /// Sets the `Meta` that `init` returns, unless it was set before, or is being set.
    fn set(&self, init: impl FnOnce() -> Box<Meta<M>>) -> bool {
        let (from, to) = (ptr::null_mut(), Self::claimed());
        let claim = self.meta.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
        if claim.is_ok() {
            // Release: pairs with `get`. A thread that finds the `Meta` finds the cell initialised.
            self.meta.store(Box::into_raw(init()), Ordering::Release);
        }
        claim.is_ok()
    }

    fn get(&self) -> Option<&Meta<M>> {
        let meta = self.meta.load(Ordering::Acquire);
        if meta.is_null() || meta == Self::claimed() {
            return None;
        }
        // SAFETY: it is from `Box::into_raw`, and was initialised before the store that this load
        // has read. Only `take` frees it, which has the cell alone.
        Some(unsafe { &*meta })
    }

    fn take(&mut self) -> Option<Box<Meta<M>>> {
        let meta = mem::replace(self.meta.get_mut(), ptr::null_mut());
        if meta.is_null() || meta == Self::claimed() {
            return None;
        }
        // SAFETY: it is from `Box::into_raw`, and is taken once.
        Some(unsafe { Box::from_raw(meta) })
    }
}

/// The data of a registered entry.
struct Meta<M> {
    type_id: TypeId,
    /// Drops the cell as a cell of the type with which it was initialised.
    drop_cell: fn(&mut MaybeUninit<ArcCell<()>>),
    rest: M,
}

// SAFETY: a cell is registered with `X: Send + Sync`. Several threads share it only as
// `&ArcCell<X>`, which is `Sync` for such an `X`. Another thread than the one that stored a value
// may drop it, which `X: Send + Sync` allows for an `Arc<X>`. The bounds cover the other fields.
unsafe impl<S: Send, M: Send> Send for Entry<S, M> {}
// SAFETY: as above. In addition, the only write through the `UnsafeCell` is inside
// `MetaCell::set`, which excludes other writers and happens before every key is created.
unsafe impl<S: Sync, M: Send + Sync> Sync for Entry<S, M> {}

/// The reason why a slab was not created.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoSlab {
    /// There is not enough memory, or there are more entries than indices.
    Capacity,
    /// This process has created 2^32 - 1 slabs, so there is no unused number.
    Numbers,
}

impl<S, M> Slab<S, M> {
    /// Creates a slab of unregistered entries. `slot` returns the `S` of each.
    pub(crate) fn new(capacity: usize, slot: impl Fn(ServiceIndex) -> S) -> Result<Self, NoSlab> {
        let size = u32::try_from(capacity).map_err(|_| NoSlab::Capacity)?;
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| NoSlab::Capacity)?;
        entries.extend(ServiceIndex::range(0..size).map(|index| Entry {
            cell: UnsafeCell::new(MaybeUninit::uninit()),
            slot: slot(index),
            meta: MetaCell::new(),
        }));
        let number = NEXT_NUMBER
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(NoSlab::Numbers)?;
        Ok(Self { number, entries: entries.into_boxed_slice() })
    }

    /// Returns the number of this slab, which no other slab of the process has.
    pub(crate) fn number(&self) -> NonZeroU32 {
        self.number
    }

    /// Returns the number of entries.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Initialises the cell of an entry as an empty `ArcCell<X>`. Returns `None` if there is no
    /// such entry, or if it is registered already, or another thread registers it.
    pub(crate) fn register<X: Send + Sync + 'static>(
        &self,
        index: ServiceIndex,
        rest: M,
    ) -> Option<Key<X>> {
        // An `ArcCell<X>` is a thin pointer for every `X`. If a new version of arc-swap changes
        // this, the crate must not compile.
        const {
            assert!(size_of::<ArcCell<X>>() == size_of::<ArcCell<()>>());
            assert!(align_of::<ArcCell<X>>() == align_of::<ArcCell<()>>());
        }
        let entry = self.entries.get(index.as_usize())?;
        let fresh = entry.meta.set(|| {
            let cell = entry.cell.get().cast::<ArcCell<X>>();
            // SAFETY: the pointer is in bounds and aligned by the assertions above. `set` runs this
            // closure once, on one thread. No thread reads the cell before `meta` is set (**K**).
            unsafe { cell.write(ArcCell::empty()) };
            Box::new(Meta { type_id: TypeId::of::<X>(), drop_cell: drop_cell::<X>, rest })
        });
        fresh.then_some(self.key_at(index))
    }

    /// Returns the key of an entry, if the entry was registered as a cell for `X`.
    pub(crate) fn key<X: 'static>(&self, index: ServiceIndex) -> Option<Key<X>> {
        let meta = self.entries.get(index.as_usize())?.meta.get()?;
        (meta.type_id == TypeId::of::<X>()).then_some(self.key_at(index))
    }

    /// Creates a key. The caller has found that the entry is registered as a cell for `X`:
    /// invariant **K** depends on this.
    fn key_at<X>(&self, index: ServiceIndex) -> Key<X> {
        Key { number: self.number, index, of: PhantomData }
    }

    /// Returns the cell and the slot of a key, or `None` for a key of another slab.
    #[inline]
    pub(crate) fn open<X>(&self, key: Key<X>) -> Option<(&ArcCell<X>, &S)> {
        if key.number != self.number {
            return None;
        }
        // The check of this index costs 2 % of the instructions of `get`, and 5 % of those of
        // `get_all` of three services (`benches/instructions.rs`).
        // SAFETY: the key is of this slab, so by **K** its index is that of an entry.
        let entry = unsafe { self.entries.get_unchecked(key.index.as_usize()) };
        // SAFETY: by **K** the entry was initialised as an `ArcCell<X>` before the key was
        // created. Since then it is only shared, and not written, until the slab is dropped. The
        // borrow of `self` excludes the drop.
        let cell = unsafe { &*entry.cell.get().cast::<ArcCell<X>>() };
        Some((cell, &entry.slot))
    }

    /// Returns the slot of an entry. Panics if there is no such entry.
    #[inline]
    pub(crate) fn slot(&self, index: ServiceIndex) -> &S {
        self.slots()(index)
    }

    /// Returns a function that returns the slot of an entry, as `slot`, for a loop over many
    /// entries: the loop does not load the address of the entries again after each atomic
    /// operation.
    #[inline]
    pub(crate) fn slots<'a>(&'a self) -> impl Fn(ServiceIndex) -> &'a S {
        let entries = &*self.entries;
        move |index| &entries[index.as_usize()].slot
    }

    /// Returns the `M` of an entry, or `None` if the entry is not registered.
    pub(crate) fn meta(&self, index: ServiceIndex) -> Option<&M> {
        Some(&self.entries.get(index.as_usize())?.meta.get()?.rest)
    }
}

impl<S, M> Drop for Slab<S, M> {
    fn drop(&mut self) {
        for entry in &mut self.entries {
            if let Some(meta) = entry.meta.take() {
                // If the `Drop` of a value panics, the other values must be dropped nevertheless.
                shielded(|| (meta.drop_cell)(entry.cell.get_mut()));
            }
        }
    }
}

/// A cell and its slot, together with an `Arc` of the owner that contains them.
///
/// It is for a reader that reads the same service many times: it avoids the comparison of the
/// numbers and the address arithmetic.
pub(crate) struct SlotHandle<H, X, S> {
    cell: NonNull<ArcCell<X>>,
    slot: NonNull<S>,
    owner: Arc<H>,
}

// SAFETY: a handle is an `Arc<H>` and two shared references into the `H`. They may be sent to
// another thread if the types to which they refer may be shared with it.
unsafe impl<H: Send + Sync, X: Send + Sync, S: Sync> Send for SlotHandle<H, X, S> {}
// SAFETY: as above. A shared handle returns only these references.
unsafe impl<H: Send + Sync, X: Send + Sync, S: Sync> Sync for SlotHandle<H, X, S> {}

impl<H, X, S> Clone for SlotHandle<H, X, S> {
    fn clone(&self) -> Self {
        // The clone of the `Arc` keeps the same `H` alive.
        Self { cell: self.cell, slot: self.slot, owner: Arc::clone(&self.owner) }
    }
}

impl<H, X, S> SlotHandle<H, X, S> {
    /// Creates a handle of the cell and the slot that `open` finds in `owner`. Returns `None` if
    /// it finds none.
    pub(crate) fn new(
        owner: Arc<H>,
        open: impl for<'h> FnOnce(&'h H) -> Option<(&'h ArcCell<X>, &'h S)>,
    ) -> Option<Self> {
        let (cell, slot) = open(&owner)?;
        let (cell, slot) = (NonNull::from(cell), NonNull::from(slot));
        Some(Self { cell, slot, owner })
    }

    #[inline]
    pub(crate) fn cell(&self) -> &ArcCell<X> {
        // SAFETY: `open` has borrowed the cell from `owner`, and accepts every lifetime for which
        // `owner` may be borrowed. The `Arc` in this handle keeps the `H` alive and at its
        // address, and excludes a mutable borrow of it.
        unsafe { self.cell.as_ref() }
    }

    #[inline]
    pub(crate) fn slot(&self) -> &S {
        // SAFETY: as in `cell`.
        unsafe { self.slot.as_ref() }
    }

    /// Returns the owner of the cell and the slot.
    pub(crate) fn owner(&self) -> &Arc<H> {
        &self.owner
    }
}

/// Drops a cell as an `ArcCell<X>`. Only `Slab::drop` calls this, through `Meta::drop_cell`, and
/// once.
fn drop_cell<X: Send + Sync + 'static>(cell: &mut MaybeUninit<ArcCell<()>>) {
    let cell = cell.as_mut_ptr().cast::<ArcCell<X>>();
    // SAFETY: the `Meta` with this function was set after the same cell was initialised as an
    // `ArcCell<X>`. The slab is being dropped, so no other reference to the cell exists.
    unsafe { &*cell }.empty_for_drop();
    // SAFETY: as above. The cell is dropped once, or not at all if the call above panics.
    unsafe { cell.drop_in_place() };
}
