//! The places in which threads announce what they read (hazard pointers), so that a read costs no
//! locked instruction. `docs/design.md`, "The cell of a value", has the protocol and the argument.
//!
//! Each thread has a block of places. A block is never freed: the block of a thread that has ended
//! is used again by another one.

use std::{any::Any, cell::Cell, collections::VecDeque, mem, ptr, sync::OnceLock};

use super::{
    Arc, AtomicPtr, AtomicU8, AtomicU64, Mutex, Ordering,
    asymmetric::{full_fence, heavy_fence, is_asymmetric, light_fence},
    const_thread_local,
    counted_cell::CountedCell,
    lazy_static, lock, try_lock,
};

/// The number of places of a thread: as many guards as it can hold at a time without a counted
/// reference.
const PLACES: usize = if cfg!(loom) { 1 } else { 8 };

/// A reference that a writer has left for the reader of a place.
pub(super) struct Mark(
    #[expect(dead_code, reason = "it is only dropped")] Box<dyn Any + Send + Sync>,
);

impl Mark {
    pub(super) fn new(reference: impl Any + Send + Sync) -> Self {
        Self(Box::new(reference))
    }
}

/// A counted reference to a value of any type.
pub(super) trait Counted: Send + Sync {
    /// Returns the address by which readers announce the value.
    fn address(&self) -> *mut ();

    /// Returns a mark with a reference of its own.
    fn mark(&self) -> Arc<Mark>;
}

/// Where a thread announces the address of one value that it reads.
///
/// Only the thread of the block begins to use a free place. Any thread may end that.
pub(super) struct Place {
    /// Null if the place is free.
    announced: AtomicPtr<()>,
    flags: Flags,
    mark: CountedCell<Mark>,
}

/// Why the end of a use of a place has more to do: zero if it has not.
struct Flags(AtomicU8);

impl Flags {
    /// There may be a mark.
    const MARKED: u8 = 1;
    /// The fences of readers are full ones. Never cleared.
    const FULL_FENCE: u8 = 2;

    fn without_mark() -> u8 {
        if is_asymmetric() { 0 } else { Self::FULL_FENCE }
    }

    fn new() -> Self {
        Self(AtomicU8::new(Self::without_mark()))
    }

    /// Relaxed, as `set_marked`: if the mark is not taken back, the fences order it, the flag and
    /// this.
    #[inline]
    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }

    fn set_marked(&self) {
        self.0.store(Self::without_mark() | Self::MARKED, Ordering::Relaxed);
    }

    /// Relaxed: the exchange of the mark, which follows, orders it. A mark that comes after that
    /// sets the flag again.
    fn clear_marked(&self) {
        self.0.store(Self::without_mark(), Ordering::Relaxed);
    }
}

/// The content of a place that is about to be free. No value is there.
const fn ending() -> *mut () {
    ptr::without_provenance_mut(1)
}

impl Place {
    fn new() -> Self {
        let announced = AtomicPtr::new(ptr::null_mut());
        Self { announced, flags: Flags::new(), mark: CountedCell::empty() }
    }

    #[cfg(not(any(loom, shuttle)))]
    const fn occupied() -> Self {
        let announced = AtomicPtr::new(ending());
        Self { announced, flags: Flags(AtomicU8::new(0)), mark: CountedCell::empty() }
    }

    /// What the last reader has done comes before.
    #[inline]
    fn is_free(&self) -> bool {
        self.announced().is_null()
    }

    /// Release: pairs with `announced`. A writer that finds this address drops what was announced
    /// before, and that was read before. The fence that follows orders what is read after this.
    #[inline]
    fn announce(&self, address: *mut ()) {
        self.announced.store(address, Ordering::Release);
    }

    /// Ends the use of the place by a reader, and drops the reference that a writer has left for
    /// it.
    ///
    /// Wait-free, unless there is one.
    #[inline]
    pub(super) fn end(&self) {
        // Release: what the reader has read comes before. A writer that does not find the address
        // any more drops the value.
        self.announced.store(ending(), Ordering::Release);
        // Pairs with the second heavy fence of a writer: either it finds that the use has ended,
        // or the load below finds its mark.
        light_fence();
        if self.flags.get() != 0 {
            return self.end_with_flags();
        }
        self.free();
    }

    #[cold]
    fn end_with_flags(&self) {
        if !is_asymmetric() {
            // Pairs as the light fence.
            full_fence();
        }
        let mark = match self.flags.get() & Flags::MARKED {
            0 => None,
            _ => {
                self.flags.clear_marked();
                self.mark.swap(None)
            }
        };
        self.free();
        // The `Drop` of the user may read again, and may panic.
        drop(mark);
    }

    /// The last step of `end`, after the check for a mark: the next reader of the place must not
    /// take a mark for its own that was not.
    #[inline]
    fn free(&self) {
        self.announced.store(ptr::null_mut(), Ordering::Release);
    }

    /// Acquire: pairs with all stores. If this is not the address of a value any more, its drop
    /// comes after what its reader has read.
    #[inline]
    fn announced(&self) -> *mut () {
        self.announced.load(Ordering::Acquire)
    }

    /// Leaves a mark for the reader that announces this address. Returns `false` if there is none.
    fn leave(&self, address: *mut (), mark: &Arc<Mark>) -> bool {
        loop {
            // Before the place is read: this is then the mark of an earlier reader of the place, or
            // one for the same value.
            let present = self.mark.load();
            if self.announced() != address {
                return false;
            }
            if self.mark.replace(&present, Some(Arc::clone(mark))).is_ok() {
                self.flags.set_marked();
                return true;
            }
        }
    }

    /// Takes a mark back, unless the reader has taken it.
    fn take_back(&self, mark: &Arc<Mark>) {
        let _ = self.mark.replace(&Some(Arc::clone(mark)), None);
    }
}

/// The places of one thread. Aligned: no other thread writes in its cache lines.
#[repr(align(64))]
struct Block {
    places: [Place; PLACES],
}

impl Block {
    fn new() -> Self {
        Self { places: std::array::from_fn(|_| Place::new()) }
    }

    fn is_unused(&self) -> bool {
        self.places.iter().all(Place::is_free)
    }
}

/// The number of blocks of a segment: the bits of a word. A model has few, because each is many
/// steps.
const BLOCKS: usize = if cfg!(loom) { 2 } else { 64 };

/// Blocks, and which of them a writer must look at. Never freed.
struct Segment {
    blocks: [Block; BLOCKS],
    /// A bit for each block that belongs to a thread, or has a guard of a thread that has ended.
    used: AtomicU64,
    next: OnceLock<&'static Segment>,
}

impl Segment {
    fn new() -> &'static Self {
        let blocks = std::array::from_fn(|_| Block::new());
        Box::leak(Box::new(Self { blocks, used: AtomicU64::new(0), next: OnceLock::new() }))
    }

    fn all(&'static self) -> impl Iterator<Item = BlockAt> {
        (0..BLOCKS).map(move |number| BlockAt { segment: self, number })
    }
}

/// Where a block is.
#[derive(Clone, Copy)]
struct BlockAt {
    segment: &'static Segment,
    number: usize,
}

impl BlockAt {
    fn block(self) -> &'static Block {
        &self.segment.blocks[self.number]
    }

    fn bit(self) -> u64 {
        1 << self.number
    }
}

/// All segments, and the blocks that belong to no thread.
struct Segments {
    first: &'static Segment,
    free: Mutex<VecDeque<BlockAt>>,
}

lazy_static! {
    static ref SEGMENTS: &'static Segments = Segments::new();
}

impl Segments {
    fn new() -> &'static Self {
        let first = Segment::new();
        Box::leak(Box::new(Self { first, free: Mutex::new(first.all().collect()) }))
    }

    /// Returns `None` if another thread holds the lock.
    fn take(&self) -> Option<BlockAt> {
        let mut free = try_lock(&self.free)?;
        let at = self.take_from(&mut free)?;
        // A writer whose heavy fence comes before the first light fence of this thread does not
        // look here, and then this thread finds that the value is removed. Relaxed: the fences
        // order it.
        at.segment.used.fetch_or(at.bit(), Ordering::Relaxed);
        Some(at)
    }

    fn take_from(&self, free: &mut VecDeque<BlockAt>) -> Option<BlockAt> {
        // As many as a segment has: the cost of a new one is constant for each thread.
        for _ in 0..free.len().min(BLOCKS) {
            let at = free.pop_back()?;
            if free_place(at.block()).is_some() {
                return Some(at);
            }
            // Guards of a thread that has ended occupy it.
            free.push_front(at);
        }
        free.extend(self.add().all());
        free.pop_back()
    }

    /// Called by the holder of the lock.
    fn add(&self) -> &'static Segment {
        let segment = Segment::new();
        let mut last = self.first;
        while let Some(next) = last.next.get() {
            last = next;
        }
        let _ = last.next.set(segment);
        segment
    }

    fn give_back(&self, at: BlockAt) {
        if at.block().is_unused() {
            // Release: pairs with `find`. What the thread has read comes before.
            at.segment.used.fetch_and(!at.bit(), Ordering::Release);
        }
        lock(&self.free).push_back(at);
    }

    /// Returns the places that announce one of these addresses, each with the position of the
    /// address. `of` returns the position.
    fn find(&self, of: impl Fn(*mut ()) -> Option<usize>) -> Vec<(&'static Place, usize)> {
        let mut found = Vec::new();
        let mut next = Some(self.first);
        while let Some(segment) = next {
            // Acquire: pairs with `give_back`. A writer that does not look at a block drops what
            // was read there.
            let mut used = segment.used.load(Ordering::Acquire);
            while used != 0 {
                let block = &segment.blocks[used.trailing_zeros() as usize];
                let taken = block.places.iter().filter(|place| !place.is_free());
                found.extend(taken.filter_map(|place| Some((place, of(place.announced())?))));
                used &= used - 1;
            }
            next = segment.next.get().copied();
        }
        found
    }
}

/// Gives the block of a thread back when the thread ends.
struct Owned {
    /// In a model, the static may have ended before the thread.
    segments: &'static Segments,
    at: BlockAt,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = BLOCK.try_with(|block| block.set(no_block()));
        self.segments.give_back(self.at);
    }
}

const_thread_local! {
    /// The block of the thread, if its fences are light ones. It has no destructor.
    static BLOCK: Cell<&'static Block> = Cell::new(no_block());
}

/// Returns the block of a thread that has none: no place of it is free. So `announce` need not
/// check for that.
#[cfg(not(any(loom, shuttle)))]
const fn no_block() -> &'static Block {
    static NO_BLOCK: Block = Block { places: [const { Place::occupied() }; PLACES] };
    &NO_BLOCK
}

/// As above, in a run of a model.
#[cfg(any(loom, shuttle))]
fn no_block() -> &'static Block {
    let block = Block::new();
    block.places.iter().for_each(|place| place.announce(ending()));
    Box::leak(Box::new(block))
}

const_thread_local! {
    static OWNED: OnceLock<Owned> = OnceLock::new();
}

/// Announces that this thread is about to read the value at this address, if a place is free. The
/// caller then checks whether the value may still be announced, and if not, ends that.
#[inline(always)]
pub(super) fn announce(address: *mut ()) -> Option<&'static Place> {
    let [first, ..] = &BLOCK.with(Cell::get).places;
    if first.is_free() { Some(announce_in(first, address)) } else { announce_elsewhere(address) }
}

#[inline(always)]
fn announce_in(place: &'static Place, address: *mut ()) -> &'static Place {
    place.announce(address);
    // Pairs with the first heavy fence of a writer: either it finds this address, or the check of
    // the caller finds that the value is removed.
    light_fence();
    place
}

/// As `announce`, if its first place is not free. One call, because each read contains it.
#[cold]
#[inline(never)]
fn announce_elsewhere(address: *mut ()) -> Option<&'static Place> {
    match free_place(BLOCK.with(Cell::get)) {
        Some(place) => Some(announce_in(place, address)),
        None => announce_slowly(address),
    }
}

fn free_place(block: &Block) -> Option<&Place> {
    block.places.iter().find(|place| place.is_free())
}

/// As `announce`, for a thread that has no block yet, or whose fences are full ones.
#[cold]
fn announce_slowly(address: *mut ()) -> Option<&'static Place> {
    let block = OWNED.try_with(|owned| match owned.get() {
        Some(owned) => Some(owned.at.block()),
        None => {
            let segments = *SEGMENTS;
            let at = segments.take()?;
            let _ = owned.set(Owned { segments, at });
            if is_asymmetric() {
                BLOCK.with(|block| block.set(at.block()));
            }
            Some(at.block())
        }
    });
    // The thread is ending.
    let place = free_place(block.ok()??)?;
    place.announce(address);
    // Pairs as the light fence.
    full_fence();
    Some(place)
}

/// Leaves a reference with each reader that announces one of the values: the last one drops it.
/// Called after the values were removed.
pub(super) fn leave_with_readers(removed: &mut [&dyn Counted]) {
    if removed.is_empty() {
        return;
    }
    if !heavy_fence() {
        // It was one when the values were stored. Then no reader can be found, and none may lose
        // its value.
        removed.iter().for_each(|value| mem::forget(value.mark()));
        return;
    }
    removed.sort_unstable_by_key(|value| value.address());
    let of = |address| removed.binary_search_by_key(&address, |value| value.address()).ok();
    let leave = |(place, position): (&'static Place, usize)| {
        let mark = removed[position].mark();
        place.leave(removed[position].address(), &mark).then_some((place, position, mark))
    };
    let left: Vec<_> = SEGMENTS.find(of).into_iter().filter_map(leave).collect();
    if left.is_empty() {
        return;
    }
    if !heavy_fence() {
        // Those that have not found their mark keep it.
        return;
    }
    for (place, position, mark) in left {
        if place.announced() != removed[position].address() {
            place.take_back(&mark);
        }
    }
}

/// Returns the number of blocks that exist.
#[cfg(all(test, not(any(loom, shuttle))))]
pub(super) fn blocks() -> usize {
    let segments = std::iter::successors(Some(SEGMENTS.first), |it| it.next.get().copied());
    segments.count() * BLOCKS
}
