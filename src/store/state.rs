//! The words of one slot, and every ordering between them.
//!
//! ```text
//!  63                                   3   2     1   0
//! +--------------------------------------+-----+-------+
//! | generation                           |  W  | phase |   StateCell
//! +--------------------------------------+-----+-------+
//! ```
//!
//! `W`: somebody waits for a change. The rest is the [`Tag`]: a value is current exactly when the tag that it
//! carries is the tag of the state. Generations only grow, and a generation's phases only go
//! `Down <-> Starting -> Ready`, so a tag with `Ready` in it never comes back once it is gone.
//!
//! A generation has 61 bits: at a failure every nanosecond they last for 73 years. The last one is never built:
//! a service that has come to it is down for good.

use std::fmt;

use crate::sync::{AtomicU64, Ordering, fence};

/// Where a service is in its life.
///
/// ```
/// use mainstay::{Phase, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert_eq!(registry.status(port)?.phase, Phase::Down);
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait()?;
/// assert_eq!(registry.status(port)?.phase, Phase::Starting);
/// let _running = attempt.ready(80)?;
/// assert_eq!(registry.status(port)?.phase, Phase::Ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Phase {
    /// Nobody builds it.
    Down,
    /// An attempt is under way.
    Starting,
    /// A value is there.
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
const WAITED: u64 = 0b100;
const GENERATION: u32 = 3;

/// A generation and a phase: what a value carries to be compared with its slot's state.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The last generation that there is.
    pub(crate) const LAST: u64 = u64::MAX >> GENERATION;

    pub(crate) fn new(generation: u64, phase: Phase) -> Self {
        Self(generation << GENERATION | phase as u64)
    }

    pub(crate) fn ready(generation: u64) -> Self {
        Self::new(generation, Phase::Ready)
    }

    pub(crate) fn starting(generation: u64) -> Self {
        Self::new(generation, Phase::Starting)
    }

    pub(crate) fn down(generation: u64) -> Self {
        Self::new(generation, Phase::Down)
    }

    pub(crate) fn generation(self) -> u64 {
        self.0 >> GENERATION
    }

    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Down,
            1 => Phase::Starting,
            _ => Phase::Ready,
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in generation {}", self.phase(), self.generation())
    }
}

/// A transition that took place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    pub(crate) from: Tag,
    /// Somebody waited; the bit is cleared, and the one who moved owes the notification.
    pub(crate) waited: bool,
}

fn is_waited(word: u64) -> bool {
    word & WAITED != 0
}

/// The one truth about a slot.
pub(crate) struct StateCell(AtomicU64);

impl StateCell {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Tag::down(0).0))
    }

    /// Acquire: pairs with every transition's Release. Who sees a slot ready sees what was published before
    /// (its value above all); who sees it failed sees its dependents failed, as they were raised before (I1).
    #[inline]
    pub(crate) fn load(&self) -> Tag {
        Tag(self.0.load(Ordering::Acquire) & !WAITED)
    }

    /// Whether it is in this state, for somebody who has left word for those who move it on: either it is not any more, or
    /// they see that. Release: pairs with the Acquire of the next transition. Both are read-modify-writes of one word.
    pub(crate) fn is_still(&self, tag: Tag) -> bool {
        self.0.fetch_or(0, Ordering::Release) & !WAITED == tag.0
    }

    /// `from -> to`, unless the state is another by now. Clears the waiter bit.
    ///
    /// Release: pairs with `load`. Acquire: pairs with `announce`, so that the listener that was registered
    /// before the bit was set is seen by the notification; and with the transition before this one.
    pub(crate) fn step(&self, from: Tag, to: Tag) -> Result<Moved, Tag> {
        self.exchange(from, to, 0)
    }

    /// As `step`, but waiters are left waiting: nobody waits for an attempt to begin.
    pub(crate) fn step_unnoticed(&self, from: Tag, to: Tag) -> Result<Moved, Tag> {
        self.exchange(from, to, WAITED)
    }

    fn exchange(&self, from: Tag, to: Tag, keep: u64) -> Result<Moved, Tag> {
        // Relaxed: the caller has made or seen `from`, so a state that differs is a later one; one that is
        // the same is only a guess, which the exchange checks.
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            if seen & !WAITED != from.0 {
                // Acquire by `load`: the caller tells its user who overtook it.
                return Err(self.load());
            }
            // Relaxed on failure: `seen` is a guess again.
            match self.0.compare_exchange(
                seen,
                to.0 | (seen & keep),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Moved { from, waited: is_waited(seen) }),
                Err(now) => seen = now,
            }
        }
    }

    /// Says that somebody waits. Release: pairs with the Acquire of the next transition, which then sees the
    /// waiter's listener. Acquire: pairs with the Release of the last one, so that what the waiter looks at
    /// next is at least that new. Both sides are read-modify-writes of one word: one of them sees the other.
    pub(crate) fn announce(&self) {
        self.0.fetch_or(WAITED, Ordering::AcqRel);
    }

    /// Takes the announcement back for somebody who will notify without a transition. Release: a waiter that
    /// announces itself later sees what was done before this (`close` sets its flag first). Acquire: as `step`.
    pub(crate) fn dismiss(&self) -> bool {
        is_waited(self.0.fetch_and(!WAITED, Ordering::AcqRel))
    }
}

/// The generation that a slot is on its way to: `state's generation <= condemned`, always.
///
/// The word counts on beyond [`Tag::LAST`], for another seven times as long; what is said of it does not.
pub(crate) struct Condemned(AtomicU64);

impl Condemned {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Acquire: pairs with `add`. An attempt looks at its own slot with it when it begins, and finds condemned
    /// whatever was condemned before that slot.
    pub(crate) fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire).min(Tag::LAST)
    }

    /// One more failure; gives the generation that it leads to. Release: pairs with `load`, for what this
    /// cascade condemned before, its dependencies.
    pub(crate) fn add(&self) -> u64 {
        (self.0.fetch_add(1, Ordering::Release) + 1).min(Tag::LAST)
    }

    /// Ends exactly this generation, and gives the next; `None` where that has happened already. Relaxed: it is
    /// the first of its cascade, and every read-modify-write of the word passes on what earlier ones released.
    pub(crate) fn add_to(&self, generation: u64) -> Option<u64> {
        let next = generation + 1;
        self.0.compare_exchange(generation, next, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(next)
    }
}

/// How often the value of a slot was replaced under its tag, and whether that is going on: a cached reader that finds it
/// as it was finds what it has.
///
/// ```text
///  63                      20   19                   0
/// +--------------------------+------------------------+
/// | replacements that ended  | replacements under way |
/// +--------------------------+------------------------+
/// ```
///
/// A reader that was idle would have to miss 17 trillion of them, and no fewer and no more, to be misled; and more
/// threads would have to replace one value at once than a system has.
pub(crate) struct Replacements(AtomicU64);

/// A replacement under way. It ends when this is dropped, whatever became of it.
pub(crate) struct Replacing<'a>(&'a Replacements);

const UNDER_WAY: u64 = (1 << 20) - 1;

impl Replacements {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// From here on nobody takes what they have for the value that is there. Relaxed: it goes with the exchange of the
    /// value, a Release: who sees the new value, or hears of it, sees this.
    pub(crate) fn begin(&self) -> Replacing<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Replacing(self)
    }

    /// For a reader that is going to look at the value, to be compared with later; `None` while a replacement is under
    /// way. Acquire: pairs with the end of each, so that the value is as new as what is counted here.
    pub(crate) fn settled(&self) -> Option<u64> {
        let now = self.0.load(Ordering::Acquire);
        (now & UNDER_WAY == 0).then_some(now)
    }

    /// Relaxed: where it is the same, there is nothing new to be seen.
    #[inline]
    pub(crate) fn are(&self, settled: u64) -> bool {
        self.0.load(Ordering::Relaxed) == settled
    }
}

impl Drop for Replacing<'_> {
    /// Release: pairs with `settled`, for the value.
    fn drop(&mut self) {
        self.0.0.fetch_add(UNDER_WAY, Ordering::Release);
    }
}

/// Between what one side has written and what it now reads of the other's. There are two sides:
///
/// - a cascade condemns `x`, **fence**, looks whether `x` has gained a dependent;
/// - an attempt makes itself a dependent of `x`, **fence**, looks whether `x` is condemned.
///
/// Sequential consistency makes one of the two see the other: either the cascade finds the edge and fails
/// the attempt too, or the attempt finds `x` condemned and waits.
///
/// It also is the Release of what a cascade wrote before it, its cause, for who reads `FailedBy`; and the Acquire of
/// what it passed by before it, the dependents that had left.
pub(crate) fn second_look_fence() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
impl StateCell {
    /// Down in this generation, as if it had failed so often.
    pub(crate) fn failed_so_often(&self, generation: u64) {
        self.0.store(Tag::down(generation).0, Ordering::Relaxed);
    }
}

#[cfg(test)]
impl Condemned {
    pub(crate) fn failed_so_often(&self, generation: u64) {
        self.0.store(generation, Ordering::Relaxed);
    }
}
