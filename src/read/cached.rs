//! A cached reader: the fastest read of a service that one thread or task reads often.

use std::{fmt, sync::Arc};

use super::{find_current_arc, not_ready};
use crate::{
    error::{ForeignIdError, GetError},
    instance::Instance,
    registry::{Registry, RegistryInner},
    service::ServiceId,
    store::{Replacements, Slot, Tag},
    sync::{shielded, slab::SlotHandle},
};

impl Registry {
    /// Returns a cached reader of a service, for a thread or a task that reads it often. A
    /// [resolved reader](Self::reader) keeps no instance, and can be shared.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the id belongs to another registry.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// for _request in 0..3 {
    ///     assert_eq!(**cached.get()?, 80);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cached<T>(&self, id: ServiceId<T>) -> Result<Cached<T>, ForeignIdError> {
        let handle = SlotHandle::new(Arc::clone(self.inner()), |inner| inner.store.open(id));
        let handle = handle.ok_or_else(|| ForeignIdError { id: id.into() })?;
        let (tag, replacements) = (Tag::NONE, Replacements::NEVER);
        Ok(Cached { handle, id, tag, replacements, instance: None })
    }
}

/// A reader that keeps the instance of one service, and checks at each read whether it is current:
/// two loads of one cache line, and no write. [`Registry::cached`] returns it.
///
/// Each thread or task creates its own reader. The reader is a holder of the instance that it last
/// returned: it keeps an instance that has failed until the next [`get`](Self::get), until
/// [`release`](Self::release), or until it is dropped.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
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
    handle: SlotHandle<RegistryInner, Instance<T>, Slot>,
    id: ServiceId<T>,
    /// The tag of the instance, or `Tag::NONE` if there is no instance.
    tag: Tag,
    /// The replacements that were completed before the instance was read, or
    /// `Replacements::NEVER` if one was in progress: its exchange of the value may come later,
    /// without a change of this number. So the next read must reload.
    replacements: u64,
    instance: Option<Arc<Instance<T>>>,
}

impl<T> Cached<T> {
    /// Returns the current instance of the service. Wait-free, as [`Registry::get`] is; if
    /// the instance has not changed since the last call, it costs two loads.
    ///
    /// If the instance has changed, the reader drops the one that it kept, which may be the last
    /// reference. If the new one is replaced or removed at the same moment, the read may drop the
    /// last reference to it. Then the `Drop` of the value runs on this thread, shielded:
    /// the panic hook reports a panic of it.
    ///
    /// # Errors
    ///
    /// [`GetError::NotReady`]: the service was not ready at some instant during the call.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// assert_eq!(**cached.get()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Without it, the compiler does not inline it into a program with two readers.
    #[inline(always)]
    pub fn get(&mut self) -> Result<&Instance<T>, GetError> {
        let slot = self.handle.slot();
        // The two loads may take effect in either order: a `Ready` tag never becomes the state
        // again, so the instance was current at the load of the replacements. Without an instance,
        // the tag differs from every state.
        if slot.state.load() != self.tag || !slot.replacements.is_unchanged(self.replacements) {
            self.reload()?;
        }
        match &self.instance {
            Some(instance) => Ok(instance),
            None => unreachable!("no state has the tag of an empty reader"),
        }
    }

    /// Drops the instance that the reader keeps; the next [`get`](Self::get) reloads it.
    ///
    /// Call it before a reader becomes idle: an idle reader keeps its instance alive, also after
    /// the instance has failed. If the reader is the last holder, this runs the `Drop` of the
    /// value; the panic hook reports a panic of it.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// let mut cached = registry.cached(port)?;
    /// let instance = std::sync::Arc::downgrade(&registry.get_arc(port)?);
    /// assert_eq!(**cached.get()?, 80);
    /// running.fail("closed");
    /// assert!(instance.upgrade().is_some(), "the reader keeps it");
    /// cached.release();
    /// assert!(instance.upgrade().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(&mut self) {
        let instance = self.take();
        shielded(|| drop(instance));
    }

    /// Removes the instance from the reader.
    fn take(&mut self) -> Option<Arc<Instance<T>>> {
        self.tag = Tag::NONE;
        self.instance.take()
    }

    /// Keeps the current instance. If there is none, keeps nothing, and returns the error.
    #[cold]
    fn reload(&mut self) -> Result<(), GetError> {
        let slot = self.handle.slot();
        // Before the value: if a replacement exchanges the value after this load, the next check
        // finds the number changed.
        let replacements = slot.replacements.completed();
        let read = find_current_arc(self.handle.cell(), slot);
        let old = self.take();
        match read {
            Ok(instance) => {
                self.tag = Tag::ready(Instance::generation(&instance));
                self.replacements = replacements.unwrap_or(Replacements::NEVER);
                self.instance = Some(instance);
                shielded(|| drop(old));
                Ok(())
            }
            Err(read) => {
                // The stale instance is dropped now, or an idle reader keeps it alive. `read` is
                // dropped first: `publish` may be waiting for this reference.
                Err(not_ready(self.handle.owner(), self.id.into(), (read, old)))
            }
        }
    }
}

impl<T> fmt::Debug for Cached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.handle.owner().store.name(self.id.index());
        let generation = self.instance.as_ref().map(|instance| Instance::generation(instance));
        f.debug_struct("Cached").field("service", &service).field("holds", &generation).finish()
    }
}
