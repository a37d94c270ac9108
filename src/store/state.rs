//! The words of one slot, with every ordering between them.
//!
//! ```text
//!  63                                   3   2     1   0
//! +--------------------------------------+-----+-------+
//! | generation                           |  W  | phase |   StateCell
//! +--------------------------------------+-----+-------+
//! ```
//!
//! `W` is the waiter bit: it is set if there may be a waiter. The other bits are the [`Tag`]. A
//! value is current exactly if its tag is equal to the tag of the state. Generations only grow,
//! and the phases of a generation only change as `Down <-> Starting -> Ready`. So a tag with the
//! phase `Ready` never becomes the state again after it was left.
//!
//! A generation has 61 bits, which last for 73 years at one failure in each nanosecond. Nothing is
//! built in the last generation: a service that has reached it stays down.

use std::fmt;

use crate::{
    numbers::Generation,
    sync::{AtomicU64, OftenConstant, Ordering, fence},
};

/// The phase of a service: down, starting or ready.
///
/// ```
/// use mainstay::{Phase, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert_eq!(registry.status(port)?.phase, Phase::Down);
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait_blocking()?;
/// assert_eq!(registry.status(port)?.phase, Phase::Starting);
/// let _running = attempt.ready(80)?;
/// assert_eq!(registry.status(port)?.phase, Phase::Ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
pub enum Phase {
    /// The service has no instance, and no attempt is in progress.
    Down,
    /// An attempt is in progress.
    Starting,
    /// The service has a current instance.
    Ready,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Ready => "ready",
        })
    }
}

const PHASE: u64 = 0b011;
#[cfg(feature = "supervise")]
const VOID: u64 = 0b011;
const WAITERS: u64 = 0b100;
const GENERATION_SHIFT: u32 = 3;

// The last generation has a one in each bit that the word has for it.
const _: () = assert!(Generation::LAST.get() == u64::MAX >> GENERATION_SHIFT);

/// A generation and a phase. A value is compared with the state of its slot by its tag.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// A tag that no state has: `StateCell::load` removes this bit.
    pub(crate) const NONE: Self = Self(WAITERS);

    pub(crate) fn new(generation: Generation, phase: Phase) -> Self {
        Self(generation.get() << GENERATION_SHIFT | phase as u64)
    }

    pub(crate) fn ready(generation: Generation) -> Self {
        Self::new(generation, Phase::Ready)
    }

    pub(crate) fn starting(generation: Generation) -> Self {
        Self::new(generation, Phase::Starting)
    }

    pub(crate) fn down(generation: Generation) -> Self {
        Self::new(generation, Phase::Down)
    }

    /// The state of an attempt that cannot be published any more: the commit of a switch has found
    /// it, and takes the slot down (`Store::void`).
    #[cfg(feature = "supervise")]
    pub(crate) fn void(generation: Generation) -> Self {
        Self(generation.get() << GENERATION_SHIFT | VOID)
    }

    pub(crate) fn generation(self) -> Generation {
        Generation::new(self.0 >> GENERATION_SHIFT)
    }

    /// Returns the phase. A void attempt is *starting*: its slot is held.
    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Down,
            2 => Phase::Ready,
            _ => Phase::Starting,
        }
    }
}

/// The tag of an instance: the state under which the instance is current. Undecided, it is one that
/// no state has.
pub(crate) struct InstanceTag(OftenConstant);

/// The bit of a tag that is not decided. No state that was loaded has it.
#[cfg(feature = "supervise")]
const UNDECIDED: u64 = WAITERS;

impl InstanceTag {
    /// The tag of an instance that is published or replaces another one.
    pub(crate) fn ready(generation: Generation) -> Self {
        Self(OftenConstant::constant(Tag::ready(generation).0))
    }

    /// The tag of an instance that a switch makes current, until it is committed.
    #[cfg(feature = "supervise")]
    pub(crate) fn undecided(generation: Generation) -> Self {
        Self(OftenConstant::changing(Tag::ready(generation).0 | UNDECIDED))
    }

    /// Acquire: pairs with `decide`. A reader that finds the tag of an instance of a switch also
    /// finds its decision, and so all instances of the switch in their cells (R1).
    #[inline]
    pub(crate) fn load(&self) -> Tag {
        Tag(self.0.load(Ordering::Acquire))
    }

    /// Called after the commit of the switch. Release: pairs with `load`.
    #[cfg(feature = "supervise")]
    pub(crate) fn decide(&self) {
        self.0.store(Tag::ready(self.generation()).0, Ordering::Release);
    }

    /// Relaxed: the generation never changes.
    #[inline]
    pub(crate) fn generation(&self) -> Generation {
        Tag(self.0.load(Ordering::Relaxed)).generation()
    }
}

#[cfg(feature = "supervise")]
impl Tag {
    /// Returns whether this is the tag of an instance that is not decided.
    pub(crate) fn is_undecided(self) -> bool {
        self.0 & UNDECIDED != 0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in generation {}", self.phase(), self.generation())
    }
}

/// A transition that has taken place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transition {
    pub(crate) from: Tag,
    /// The waiter bit was set. A transition that has cleared it must be followed by a notification
    /// of the waiters (W).
    pub(crate) had_waiters: bool,
}

fn has_waiters(word: u64) -> bool {
    word & WAITERS != 0
}

/// The word `state`: the only source of truth about a slot.
pub(crate) struct StateCell(AtomicU64);

impl StateCell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Tag::down(Generation::FIRST).0))
    }

    /// Acquire: pairs with the Release of every transition. A thread that finds the slot ready also
    /// finds what was written before the publication, above all the value. A thread that finds a
    /// failure also finds the dependents failed, because they were taken down before (I1).
    #[inline]
    pub(crate) fn load(&self) -> Tag {
        Tag(self.0.load(Ordering::Acquire) & !WAITERS)
    }

    /// Returns whether the state is still `tag`, by a read-modify-write that changes nothing.
    ///
    /// Release: pairs with the Acquire of the next transition. Both are read-modify-writes of one
    /// word. So if this returns true, the thread that executes the next transition sees what the
    /// caller wrote before.
    pub(crate) fn confirm(&self, tag: Tag) -> bool {
        self.0.fetch_or(0, Ordering::Release) & !WAITERS == tag.0
    }

    /// Executes `from -> to` and clears the waiter bit. If the state is not `from`, changes
    /// nothing and returns the present state.
    ///
    /// Release: pairs with `load`. Acquire: pairs with `set_waiters`, so that the notification
    /// finds the listener that was registered before the bit was set (W); and with the previous
    /// transition.
    pub(crate) fn transition(&self, from: Tag, to: Tag) -> Result<Transition, Tag> {
        self.exchange(from, to, 0)
    }

    /// As `transition`, but keeps the waiter bit: few waiters wait for an attempt to begin.
    pub(crate) fn transition_keeping_waiters(&self, from: Tag, to: Tag) -> Result<Transition, Tag> {
        self.exchange(from, to, WAITERS)
    }

    /// Moves the state to `Down` in the generation `to` and clears the waiter bit, unless the state
    /// has reached this generation. Calls `before` before each try.
    ///
    /// Acquire, also if nothing changes: the cascade that was faster has taken the dependents down
    /// before. The orderings of the exchange are as in `transition`.
    #[inline]
    pub(crate) fn take_down(&self, to: Generation, before: impl Fn()) -> Option<Transition> {
        let to = Tag::down(to).0;
        let mut seen = self.0.load(Ordering::Acquire);
        // `Down` is the lowest tag of a generation.
        while seen < to {
            before();
            match self.0.compare_exchange(seen, to, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let had_waiters = has_waiters(seen);
                    return Some(Transition { from: Tag(seen & !WAITERS), had_waiters });
                }
                Err(now) => seen = now,
            }
        }
        None
    }

    fn exchange(&self, from: Tag, to: Tag, keep: u64) -> Result<Transition, Tag> {
        // Relaxed: the caller has written or read `from`, so a state that differs is a later one. A
        // state that is equal is only a guess, which the compare-and-swap verifies.
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen & !WAITERS != from.0 {
                // `load` is an Acquire: the caller may report the failure that invalidated it,
                // and must find its cause.
                return Err(self.load());
            }
            // Relaxed on failure: `seen` is again only a guess. It may also differ in the waiter
            // bit alone, so the loop compares once more.
            match self.0.compare_exchange(
                seen,
                to.0 | (seen & keep),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Transition { from, had_waiters: has_waiters(seen) }),
                Err(now) => seen = now,
            }
        }
    }

    /// Sets the waiter bit and returns the state. The caller listens before, and checks its
    /// condition after this call (W).
    ///
    /// A transition and this call are read-modify-writes of one word, so one of them comes first.
    ///
    /// - Release: pairs with the Acquire of a later transition, which then sees the listener.
    /// - Acquire: pairs with the Release of an earlier transition, or of `clear_waiters`, so that
    ///   the check sees what was written before it.
    pub(crate) fn set_waiters(&self) -> Tag {
        Tag(self.0.fetch_or(WAITERS, Ordering::AcqRel) & !WAITERS)
    }

    /// Clears the waiter bit, for a caller that notifies without a transition. Returns whether
    /// the bit was set: then the caller must notify the waiters.
    ///
    /// Release: pairs with `set_waiters`. A waiter that sets the bit later sees what was written
    /// before this call (`close` sets its flag first). Acquire: as in `transition`.
    pub(crate) fn clear_waiters(&self) -> bool {
        has_waiters(self.0.fetch_and(!WAITERS, Ordering::AcqRel))
    }
}

/// The word `condemned`: the highest generation to which a cascade has condemned the slot. The
/// generation of the state is never above it (A1).
///
/// The word itself may exceed [`Generation::LAST`], because it has three more bits. `load` and
/// `increment` return at most `LAST`.
pub(crate) struct CondemnedCell(AtomicU64);

impl CondemnedCell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Acquire: pairs with `increment`. An attempt that begins reads this word of its own slot.
    /// From then on it finds every slot condemned that the cascade had condemned before this one.
    pub(crate) fn load(&self) -> Generation {
        Generation::new(self.0.load(Ordering::Acquire)).min(Generation::LAST)
    }

    /// Condemns the slot to its next generation, and returns that generation. Release: pairs with
    /// `load`, for the slots that this cascade has condemned before, among them the dependencies.
    pub(crate) fn increment(&self) -> Generation {
        Generation::new(self.0.fetch_add(1, Ordering::Release) + 1).min(Generation::LAST)
    }

    /// Condemns the slot to the generation after `generation`, and returns that one. Returns
    /// `None` if the slot has been condemned beyond `generation` already.
    ///
    /// Relaxed: it is the first increment of its cascade, so it has nothing to pass on. What
    /// earlier increments have released is passed on by every read-modify-write.
    pub(crate) fn increment_from(&self, generation: Generation) -> Option<Generation> {
        let next = generation.next();
        let (from, to) = (generation.get(), next.get());
        self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(next)
    }
}

/// The word `replacements`: the number of completed replacements of the value, and the number of
/// replacements in progress. If the word is unchanged and none is in progress, a cached value of
/// the same generation is current.
///
/// ```text
///  63                       20   19                     0
/// +---------------------------+--------------------------+
/// | replacements completed    | replacements in progress |
/// +---------------------------+--------------------------+
/// ```
///
/// ABA: a cached reader is misled only if exactly 2^44 replacements, or a multiple of that,
/// complete between two of its checks. The lower part overflows only if 2^20 threads replace one
/// value at the same time.
pub(crate) struct Replacements(AtomicU64);

/// A replacement in progress. The drop counts it as completed, whether it has exchanged the value
/// or not.
pub(crate) struct Replacing<'a>(&'a Replacements);

const IN_PROGRESS: u64 = (1 << 20) - 1;

impl Replacements {
    /// A word that `is_unchanged` never finds: 2^20 - 1 replacements would be in progress.
    pub(crate) const NEVER: u64 = u64::MAX;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts a replacement as in progress: from now on no cached reader takes its value for the
    /// current one.
    ///
    /// Relaxed: the exchange of the value follows, and is a Release. Every thread that reads the
    /// new value, or synchronizes with a thread that has, also reads this count.
    pub(crate) fn begin(&self) -> Replacing<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Replacing(self)
    }

    /// Returns the word, for a reader that then reads the value and later calls `is_unchanged`.
    /// Returns `None` if a replacement is in progress.
    ///
    /// Acquire: pairs with the end of each replacement. So the reader then finds a value that
    /// includes every replacement that is counted here as completed.
    pub(crate) fn completed(&self) -> Option<u64> {
        let now = self.0.load(Ordering::Acquire);
        (now & IN_PROGRESS == 0).then_some(now)
    }

    /// Returns whether no replacement has begun since `completed` returned this word.
    ///
    /// Relaxed: if the word is unchanged, there is no new value to acquire.
    #[inline]
    pub(crate) fn is_unchanged(&self, completed: u64) -> bool {
        self.0.load(Ordering::Relaxed) == completed
    }
}

impl Drop for Replacing<'_> {
    /// Release: pairs with `completed`, for the value.
    fn drop(&mut self) {
        // One more completed, and one less in progress: 2^20 - 1.
        self.0.0.fetch_add(IN_PROGRESS, Ordering::Release);
    }
}

/// The generation whose value its provider has left in the slot, because a cascade has condemned
/// the slot and has not taken it down yet. The thread that takes it down, or that clears the waiter
/// bit, removes the value (`Store::remove_abandoned`). No attempt begins before the value has been
/// dropped, or handed over to its receiver: it may hold what the attempt needs, for example a port.
///
/// The waiter bit carries the generation: the provider stores it, and then sets the bit by a
/// read-modify-write of the state. A thread whose read-modify-write finds the bit sees it.
pub(crate) struct Abandoned(AtomicU64);

impl Abandoned {
    const NONE: u64 = 0;
    /// A thread is removing the value.
    const CLAIMED: u64 = u64::MAX;
    /// The value is a constant. A generation has 61 bits.
    const CONSTANT: u64 = 1 << 63;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::NONE))
    }

    /// Stores a generation. Only the provider does so, and no value is abandoned before. Relaxed:
    /// the waiter bit carries it.
    pub(crate) fn set(&self, generation: Generation) {
        self.0.store(generation.get() + 1, Ordering::Relaxed);
    }

    /// As `set`, for the value of a constant, which has no provider from its publication on.
    pub(crate) fn set_constant(&self, generation: Generation) {
        self.0.store((generation.get() + 1) | Self::CONSTANT, Ordering::Relaxed);
    }

    /// Returns the generation, unless a thread is removing its value. Relaxed: as `set`.
    pub(crate) fn get(&self) -> Option<Generation> {
        let stored = self.0.load(Ordering::Relaxed);
        let number = || (stored & !Self::CONSTANT).checked_sub(1).map(Generation::new);
        (stored != Self::CLAIMED).then(number).flatten()
    }

    /// Returns whether there is no abandoned value. Acquire: pairs with `clear`, for the effects of
    /// the `Drop` of the value, or for the value that was handed over.
    pub(crate) fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::NONE
    }

    /// Claims the removal of the value. If this call has claimed it, returns whether the value is a
    /// constant. Relaxed: only one thread must succeed.
    pub(crate) fn claim(&self, generation: Generation) -> Option<bool> {
        let number = generation.get() + 1;
        let stored = self.0.load(Ordering::Relaxed);
        if stored & !Self::CONSTANT != number {
            return None;
        }
        let claimed =
            self.0.compare_exchange(stored, Self::CLAIMED, Ordering::Relaxed, Ordering::Relaxed);
        claimed.is_ok().then_some(stored & Self::CONSTANT != 0)
    }

    /// Called after `claim` and the end of the slot's reference to the value. Release: pairs with
    /// `is_none`.
    pub(crate) fn clear(&self) {
        self.0.store(Self::NONE, Ordering::Release);
    }
}

/// The SeqCst fence between what a thread has written and what it now checks. It has two sides:
///
/// - a cascade condemns `c`, **fence**, checks whether the dependents of `c` have changed;
/// - an attempt publishes its edge to `c`, **fence**, checks whether `c` is condemned.
///
/// One of the two fences comes first, and the check after the other fence sees what was written
/// before the first one. Either the cascade finds the edge and takes the attempt down, too, or the
/// attempt finds `c` condemned and waits (I2). `Store::condemn` lists the cases.
///
/// For a cascade it has one more effect, as an Acquire fence: the end of each generation whose edge
/// the walk found crossed out (`Place::set`).
pub(crate) fn fence_before_check() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
impl StateCell {
    /// Sets the state to `Down` in this generation, as if the service had failed this number of
    /// times.
    pub(crate) fn set_for_test(&self, generation: Generation) {
        self.0.store(Tag::down(generation).0, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl CondemnedCell {
    pub(crate) fn set_for_test(&self, generation: Generation) {
        self.0.store(generation.get(), Ordering::Relaxed);
    }
}
