//! The hot path of who reads one service again and again.

use std::{fmt, mem, sync::Arc};

use crate::{
    error::{ForeignId, GetError},
    read::is_current,
    registry::{Registry, Shared},
    service::{Instance, ServiceId},
    store::{Slot, Tag},
    sync::{into_arc, shielded, slab::Opened},
};

impl Registry {
    /// A reader of one service that keeps what it has read, for a thread or task that reads it often.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let _running = provider.begin().wait()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// for _request in 0..3 {
    ///     assert_eq!(**cached.get()?, 80);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cached<T>(&self, id: ServiceId<T>) -> Result<Cached<T>, ForeignId> {
        let opened = Opened::new(self.shared(), |shared| shared.store.open(id));
        let place = opened.ok_or_else(|| ForeignId { id: id.into() })?;
        Ok(Cached { place, id, held: None })
    }
}

/// Keeps the instance of one service and looks whether it is still the one: two loads of one cache line, and
/// no write. What [`Registry::cached`] gives.
///
/// It is for one thread or task at a time; each makes its own. An instance that has failed is kept until the
/// next [`get`](Self::get), or until the reader is dropped.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
///
/// let mut cached = registry.cached(port)?;
/// assert_eq!(**cached.get()?, 80);
/// running.replace(81)?;
/// assert_eq!(**cached.get()?, 81);
/// registry.fail(port, "closed")?;
/// assert!(cached.get().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cached<T: 'static> {
    place: Opened<Shared, Instance<T>, Slot>,
    id: ServiceId<T>,
    held: Option<Seen<T>>,
}

/// What a cached reader has seen last: it was current, and is as long as the slot is as it was.
struct Seen<T> {
    instance: Arc<Instance<T>>,
    tag: Tag,
    /// `None`: a replacement was under way, so that there is nothing to compare with.
    replacements: Option<u64>,
}

impl<T> Seen<T> {
    /// The two looks may take effect in either order: as a ready tag that is gone does not come back, the instance
    /// was current when the replacements were looked at.
    #[inline]
    fn is_current(&self, slot: &Slot) -> bool {
        slot.state.load() == self.tag
            && self.replacements.is_some_and(|replacements| slot.replacements.are(replacements))
    }
}

impl<T> Cached<T> {
    /// The instance of the service at this moment. Wait-free; where it is the one that was read before, it
    /// costs two loads.
    ///
    /// # Errors
    ///
    /// [`GetError::NotReady`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// assert_eq!(**cached.get()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Else it is a call of its own in any program with two readers.
    #[inline(always)]
    pub fn get(&mut self) -> Result<&Instance<T>, GetError> {
        let slot = self.place.slot();
        if !self.held.as_ref().is_some_and(|seen| seen.is_current(slot)) {
            self.look_anew()?;
        }
        match &self.held {
            Some(seen) => Ok(&seen.instance),
            None => unreachable!("nothing is never current"),
        }
    }

    /// Lets go of what is held, so that it lives no longer for this reader's sake; the next [`get`](Self::get) looks
    /// anew. For a reader that is going to idle: one that does not look keeps what it has seen last, also when that
    /// has failed.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// let instance = std::sync::Arc::downgrade(&registry.get_arc(port)?);
    /// assert_eq!(**cached.get()?, 80);
    /// running.fail("closed");
    /// assert!(instance.upgrade().is_some(), "the reader has it");
    /// cached.release();
    /// assert!(instance.upgrade().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(&mut self) {
        let held = self.held.take();
        shielded(|| drop(held));
    }

    /// Holds what is there now, if it is current, and nothing else.
    #[cold]
    fn look_anew(&mut self) -> Result<(), GetError> {
        let slot = self.place.slot();
        // Before the value: what is put in after this is seen by the next look.
        let replacements = slot.replacements.settled();
        let read = self.place.cell().load();
        if !is_current(read.as_deref(), slot) {
            // Not kept: what an idle reader holds would live on. What was read goes first: it may be being taken back.
            let found = (read, self.held.take());
            let registry = Registry::of(Arc::clone(self.place.home()));
            return Err(registry.not_ready(self.id.into(), slot, found));
        }
        let seen = into_arc(read).map(|instance| {
            let tag = Tag::ready(instance.generation);
            Seen { instance, tag, replacements }
        });
        let old = mem::replace(&mut self.held, seen);
        shielded(|| drop(old));
        Ok(())
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.place.home().store.name(self.id.index());
        let generation = self.held.as_ref().map(|seen| seen.instance.generation);
        f.debug_struct("Cached").field("service", &service).field("holds", &generation).finish()
    }
}
