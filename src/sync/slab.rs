//! The slab of typed cells. Here and in `snapshot.rs` stands all the unsafe code of the crate.
//!
//! # Why
//!
//! The cells of one slab hold values of different types. The safe way, a `Box<dyn Any>` for each cell and a
//! downcast for each read, costs a virtual call and a second pointer on the hot path:
//! `cargo bench --bench erasure` measures it.
//!
//! # The invariant
//!
//! **K**: a `Key<X>` with number `n` and index `i` exists only if the entry `i` of the slab with number `n`
//! was initialised as an `ArcCell<X>`, and that happened before the key came to be.
//!
//! Keys come from `Slab::register` and `Slab::key` only; numbers are never used twice; an entry is
//! initialised once and stays so until the slab is dropped.
#![allow(unsafe_code)]

use std::{
    any::TypeId,
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{MaybeUninit, align_of, size_of},
    num::NonZeroU32,
    ptr::NonNull,
    // Not the facade's: the numbers outlive a model's run.
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{ArcCell, shielded};

/// The next slab's number. Relaxed: only that it is given once counts.
static NEXT_NUMBER: AtomicU32 = AtomicU32::new(1);

/// The right to use one cell as an `ArcCell<X>`; see invariant **K**.
///
/// Invariant in `X`, since the cell is read *and* written by it. Were it not, a key for functions that take any
/// string could be turned into one for functions that take only static ones, such a function be published
/// by it, and then be called with any string:
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
    index: u32,
    // A key owns nothing and is as free to travel as a number.
    of: PhantomData<fn(X) -> X>,
}

impl<X> Clone for Key<X> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<X> Copy for Key<X> {}

impl<X> Key<X> {
    pub(crate) fn number(self) -> NonZeroU32 {
        self.number
    }

    pub(crate) fn index(self) -> u32 {
        self.index
    }
}

/// A fixed number of entries, each one cache line: a cell of a type chosen at registration, `M` that is
/// given then, and `S` that is there from the start.
///
/// On a cache line of its own, too: every read goes through it, and its neighbours (the count of the handles,
/// the locks) are written to.
#[repr(align(64))]
pub(crate) struct Slab<S, M> {
    number: NonZeroU32,
    entries: Box<[Entry<S, M>]>,
}

#[cfg_attr(not(loom), repr(align(64)))]
struct Entry<S, M> {
    slot: S,
    cell: UnsafeCell<MaybeUninit<ArcCell<()>>>,
    /// Set once the cell is initialised. Its own synchronisation orders the two.
    meta: OnceLock<Box<Meta<M>>>,
}

struct Meta<M> {
    type_id: TypeId,
    /// Drops the cell as what it was initialised as.
    drop_cell: fn(&mut MaybeUninit<ArcCell<()>>),
    rest: M,
}

// SAFETY: what an entry's cell holds is registered with `X: Send + Sync`, and a cell is reached from several
// threads only as `&ArcCell<X>`, which is then `Sync`; it may be dropped by another thread than the one that
// filled it, which `X: Send + Sync` allows for an `Arc<X>`. The rest is checked by the bounds.
unsafe impl<S: Send, M: Send> Send for Entry<S, M> {}
// SAFETY: as above; the one write through the `UnsafeCell` is inside `OnceLock::get_or_init`, which excludes
// other writers and happens before every key.
unsafe impl<S: Sync, M: Send + Sync> Sync for Entry<S, M> {}

/// Why there is no slab.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoSlab {
    /// Not enough memory, or more entries than an index can name.
    Capacity,
    /// Four billion slabs have been made by this process.
    Numbers,
}

impl<S, M> Slab<S, M> {
    /// What one entry takes.
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) const ENTRY_BYTES: usize = size_of::<Entry<S, M>>();

    pub(crate) fn new(capacity: usize, slot: impl Fn(u32) -> S) -> Result<Self, NoSlab> {
        let size = u32::try_from(capacity).map_err(|_| NoSlab::Capacity)?;
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| NoSlab::Capacity)?;
        entries.extend((0..size).map(|index| Entry {
            slot: slot(index),
            cell: UnsafeCell::new(MaybeUninit::uninit()),
            meta: OnceLock::new(),
        }));
        let number = NEXT_NUMBER
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1))
            .ok()
            .and_then(NonZeroU32::new)
            .ok_or(NoSlab::Numbers)?;
        Ok(Self { number, entries: entries.into_boxed_slice() })
    }

    pub(crate) fn number(&self) -> NonZeroU32 {
        self.number
    }

    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Makes the entry a cell for `X`. `None` where there is no such entry, or it is one already.
    pub(crate) fn register<X: Send + Sync + 'static>(&self, index: u32, rest: M) -> Option<Key<X>> {
        // Every `ArcCell<X>` is a thin pointer, whatever `X` is; a change of that must not compile.
        const {
            assert!(size_of::<ArcCell<X>>() == size_of::<ArcCell<()>>());
            assert!(align_of::<ArcCell<X>>() == align_of::<ArcCell<()>>());
        }
        let entry = self.entries.get(index as usize)?;
        let mut fresh = false;
        entry.meta.get_or_init(|| {
            fresh = true;
            let cell = entry.cell.get().cast::<ArcCell<X>>();
            // SAFETY: in bounds and aligned by the assertions above; `get_or_init` runs this once and for one
            // thread at a time, and nobody reads the cell before `meta` is set (**K**).
            unsafe { cell.write(ArcCell::empty()) };
            Box::new(Meta { type_id: TypeId::of::<X>(), drop_cell: drop_cell::<X>, rest })
        });
        fresh.then_some(self.key_at(index))
    }

    /// The key of an entry that is a cell for `X`.
    pub(crate) fn key<X: 'static>(&self, index: u32) -> Option<Key<X>> {
        let meta = self.entries.get(index as usize)?.meta.get()?;
        (meta.type_id == TypeId::of::<X>()).then_some(self.key_at(index))
    }

    /// Only for an entry that has just been seen to be a cell for `X`: this is where **K** is given out.
    fn key_at<X>(&self, index: u32) -> Key<X> {
        Key { number: self.number, index, of: PhantomData }
    }

    /// The cell and the slot that a key names; `None` for a key of another slab.
    #[inline]
    pub(crate) fn open<X>(&self, key: Key<X>) -> Option<(&ArcCell<X>, &S)> {
        if key.number != self.number {
            return None;
        }
        let entry = self.entries.get(key.index as usize)?;
        // SAFETY: by **K** the entry was initialised as an `ArcCell<X>` before the key came to be. It is
        // written to no more, only shared, until the slab is dropped, which the borrow of `self` excludes.
        let cell = unsafe { &*entry.cell.get().cast::<ArcCell<X>>() };
        Some((cell, &entry.slot))
    }

    #[inline]
    pub(crate) fn slot(&self, index: u32) -> &S {
        &self.entries[index as usize].slot
    }

    /// What was given at registration; `None` for an entry that is not registered.
    pub(crate) fn meta(&self, index: u32) -> Option<&M> {
        Some(&self.entries.get(index as usize)?.meta.get()?.rest)
    }
}

impl<S, M> Drop for Slab<S, M> {
    fn drop(&mut self) {
        for entry in &mut self.entries {
            if let Some(meta) = entry.meta.take() {
                // One value that panics in its `Drop` must not keep the others from theirs.
                shielded(|| (meta.drop_cell)(entry.cell.get_mut()));
            }
        }
    }
}

/// A cell and its slot, found once, and kept by what they stand in.
///
/// For a reader that comes again and again: it spares the comparison of numbers and the bounds of the slab,
/// twice, which are half of what a cached read costs (`benches/reads.rs`).
pub(crate) struct Opened<H, X, S> {
    cell: NonNull<ArcCell<X>>,
    slot: NonNull<S>,
    home: Arc<H>,
}

// SAFETY: it is a shared `H`, and shared references into it, which may go to another thread if what they refer to may be
// shared with it.
unsafe impl<H: Send + Sync, X: Send + Sync, S: Sync> Send for Opened<H, X, S> {}
// SAFETY: as above; it gives no more than these references.
unsafe impl<H: Send + Sync, X: Send + Sync, S: Sync> Sync for Opened<H, X, S> {}

impl<H, X, S> Clone for Opened<H, X, S> {
    fn clone(&self) -> Self {
        Self { cell: self.cell, slot: self.slot, home: Arc::clone(&self.home) }
    }
}

impl<H, X, S> Opened<H, X, S> {
    /// `None` where `open` finds nothing.
    pub(crate) fn new(
        home: Arc<H>,
        open: impl for<'h> FnOnce(&'h H) -> Option<(&'h ArcCell<X>, &'h S)>,
    ) -> Option<Self> {
        let (cell, slot) = open(&home)?;
        let (cell, slot) = (NonNull::from(cell), NonNull::from(slot));
        Some(Self { cell, slot, home })
    }

    #[inline]
    pub(crate) fn cell(&self) -> &ArcCell<X> {
        // SAFETY: `open` borrowed it from `home` for any time that `home` may be borrowed for. It is borrowed for as
        // long as we have our `Arc` of it: that keeps it where it is, and nobody gets it mutably.
        unsafe { self.cell.as_ref() }
    }

    #[inline]
    pub(crate) fn slot(&self) -> &S {
        // SAFETY: as `cell`.
        unsafe { self.slot.as_ref() }
    }

    pub(crate) fn home(&self) -> &Arc<H> {
        &self.home
    }
}

/// Drops a cell as an `ArcCell<X>`. Called through `Meta::drop_cell` only, by `Slab::drop`, once.
fn drop_cell<X>(cell: &mut MaybeUninit<ArcCell<()>>) {
    let cell = cell.as_mut_ptr().cast::<ArcCell<X>>();
    // SAFETY: the meta that names this function was set together with this cell, after it was written as an
    // `ArcCell<X>`; the slab is being dropped, so nobody refers to it, and does so once.
    unsafe { cell.drop_in_place() };
}
