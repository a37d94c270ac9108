//! A resolved reader: a read without the check of an id.

use std::{fmt, sync::Arc};

use super::{Guard, Stale, find_announced, find_current_arc, find_slowly, not_ready};
use crate::{
    error::{ForeignIdError, GetError},
    instance::Instance,
    registry::{Registry, RegistryInner},
    service::ServiceId,
    store::Slot,
    sync::slab::SlotHandle,
};

impl Registry {
    /// Returns a resolved reader of a service, which several threads can share.
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
    /// let port = registry.reader(port)?;
    /// let requests: Vec<_> = (0..3)
    ///     .map(|_| {
    ///         let port = port.clone();
    ///         std::thread::spawn(move || port.get().map(|port| *port))
    ///     })
    ///     .collect();
    /// for request in requests {
    ///     assert_eq!(request.join().unwrap()?, 80);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reader<T>(&self, id: ServiceId<T>) -> Result<Reader<T>, ForeignIdError> {
        let handle = SlotHandle::new(Arc::clone(self.inner()), |inner| inner.store.open(id));
        let handle = handle.ok_or_else(|| ForeignIdError { id: id.into() })?;
        Ok(Reader { handle, id })
    }
}

/// A reader of one service that has resolved its id: [`get`](Self::get) does not check to which
/// registry the id belongs, and cannot fail because of it. [`Registry::reader`] returns it.
///
/// It keeps no instance: a reader that is idle keeps no value alive. Clones are cheap, and threads
/// and tasks can share one reader. It owns a handle of the registry. Compared with a
/// [`Cached`](super::Cached), each read announces what it reads, and returns a guard.
///
/// ```
/// use mainstay::{Reader, Registry};
///
/// struct Handler {
///     greeting: Reader<String>,
/// }
///
/// impl Handler {
///     fn answer(&self, name: &str) -> Option<String> {
///         let greeting = self.greeting.get().ok()?;
///         Some(format!("{}, {name}", *greeting))
///     }
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let greeting = registry.register::<String>("greeting")?;
/// let handler = Handler { greeting: registry.reader(greeting)? };
/// assert_eq!(handler.answer("Ada"), None);
///
/// let provider = registry.provide(greeting)?;
/// let _running = provider.begin().wait_blocking()?.ready("hello".to_string())?;
/// assert_eq!(handler.answer("Ada").as_deref(), Some("hello, Ada"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<T: 'static> {
    handle: SlotHandle<RegistryInner, Instance<T>, Slot>,
    id: ServiceId<T>,
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), id: self.id }
    }
}

impl<T> Reader<T> {
    /// Returns a guard of the current instance of the service, as [`Registry::get`] does.
    ///
    /// It is wait-free, and takes the same steps as [`Registry::get`], so other threads observe the
    /// same: after a thread has observed that a service failed, no read of this thread returns an
    /// instance that was built from the failed one.
    ///
    /// If the instance is replaced or removed at the same moment, the read may drop the last
    /// reference to it. Then the `Drop` of the value runs on this thread, shielded: the
    /// panic hook reports a panic of it.
    ///
    /// # Errors
    ///
    /// [`GetError::NotReady`]: the service was not ready at some instant during the call.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let running = provider.begin().wait_blocking()?.ready(80)?;
    /// let reader = registry.reader(port)?;
    /// assert_eq!(*reader.get()?, 80);
    /// running.fail("closed");
    /// assert!(reader.get().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn get(&self) -> Result<Guard<T>, GetError> {
        find_announced(self.handle.cell(), self.handle.slot())
            .or_else(|found| self.get_slowly(found))
    }

    /// All of `get` after its first try.
    #[cold]
    #[inline(never)]
    fn get_slowly(&self, found: Stale<T>) -> Result<Guard<T>, GetError> {
        find_slowly(self.handle.cell(), self.handle.slot(), found)
            .map_err(|stale| self.not_ready(stale))
    }

    /// Returns the current instance of the service as an `Arc`, as [`Registry::get_arc`] does.
    ///
    /// Like [`get`](Self::get), but it also increments a reference counter that all readers share.
    /// What `get` says about the `Drop` of the value applies here, too.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let reader = registry.reader(port)?;
    /// let kept = reader.get_arc()?;
    /// std::thread::spawn(move || assert_eq!(**kept, 80)).join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_arc(&self) -> Result<Arc<Instance<T>>, GetError> {
        let (cell, slot) = (self.handle.cell(), self.handle.slot());
        find_current_arc(cell, slot).map_err(|stale| self.not_ready(stale))
    }

    /// Returns the id of the service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.reader(port)?.id(), port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> ServiceId<T> {
        self.id
    }

    fn not_ready<F>(&self, stale: F) -> GetError {
        not_ready(self.handle.owner(), self.id.into(), stale)
    }
}

impl<T> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.handle.owner().store.name(self.id.index());
        f.debug_struct("Reader").field("service", &service).finish()
    }
}
