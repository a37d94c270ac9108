//! The hot path: reading one service, and several at one instant. Reading one again and again is in `cached.rs`.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use crate::{
    error::{ForeignId, GetAllError, GetError, NotReady, WaitError},
    registry::Registry,
    service::{AnyId, Instance, ServiceId},
    store::{Phase, Slot, Store, Tag},
    sync::{ArcCell, Held, Shielded, into_arc, shielded},
    wait::{Wait, sealed::Condition},
};

/// A value in use: what [`Registry::get`] gives. It derefs to the value.
///
/// The value lives at least as long as the guard, also when its service fails meanwhile: a request that has
/// begun with it can end with it. Hold it shortly: eight guards of a thread are cheap, more cost about as much
/// as a clone of an `Arc` each. Where it was the last holder, dropping it runs the value's `Drop`.
///
/// ```
/// use mainstay::{Guard, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
///
/// let guard = registry.get(port)?;
/// registry.fail(port, "closed")?;
/// assert_eq!(*guard, 80);
/// assert_eq!(Guard::generation(&guard), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Guard<T> {
    /// Never empty: a guard is made only for an instance that was found.
    held: Held<Instance<T>>,
}

impl<T> Guard<T> {
    /// The generation of the service that the value belongs to.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(mainstay::Guard::generation(&registry.get(port)?), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(this: &Self) -> u64 {
        Instance::generation(Self::instance(this))
    }

    /// The instance, as [`Registry::report`] takes it.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// let guard = registry.get(port)?;
    /// registry.report(mainstay::Guard::instance(&guard), "address in use")?;
    /// assert!(registry.get(port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn instance(this: &Self) -> &Instance<T> {
        match &*this.held {
            Some(instance) => instance,
            None => unreachable!("a guard holds an instance"),
        }
    }

    /// The instance, to be kept, or held across an `await`: as [`Registry::get_arc`] would have given it.
    ///
    /// ```
    /// use mainstay::Guard;
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (host, port) = (registry.register::<String>("host")?, registry.register::<u16>("port")?);
    /// # let (h, p) = (registry.provide(host)?, registry.provide(port)?);
    /// # let _host = h.begin().wait()?.ready("localhost".to_string())?;
    /// # let _port = p.begin().wait()?.ready(80)?;
    /// let (host, port) = registry.get_all((host, port))?;
    /// let (host, port) = (Guard::into_arc(host), Guard::into_arc(port));
    /// assert_eq!(format!("{}:{}", **host, **port), "localhost:80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_arc(this: Self) -> Arc<Instance<T>> {
        match into_arc(this.held) {
            Some(instance) => instance,
            None => unreachable!("a guard holds an instance"),
        }
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        Self::instance(self)
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(Self::instance(self), f)
    }
}

impl Registry {
    /// The value of a service at this moment.
    ///
    /// Wait-free as far as arc-swap's `load` is (once in about 2^62 loads of a thread, and at a thread's first,
    /// it does more): two loads and a comparison, no lock, no loop, and no write to memory that is shared.
    /// Whoever has seen a service fail gets nothing that was built from what failed.
    ///
    /// # Errors
    ///
    /// [`GetError::NotReady`] where the service was not ready at some moment during the call;
    /// [`GetError::ForeignId`].
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let greeting = registry.register::<String>("greeting")?;
    /// let provider = registry.provide(greeting)?;
    /// let _running = provider.begin().wait()?.ready("hello".to_string())?;
    /// assert_eq!(registry.get(greeting)?.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn get<T>(&self, id: ServiceId<T>) -> Result<Guard<T>, GetError> {
        let (cell, slot) = self.open(id)?;
        let held = cell.load();
        // The state is read after the value: where it has the value's tag, the value was current then.
        if is_current(held.as_deref(), slot) {
            return Ok(Guard { held });
        }
        Err(self.not_ready(id.into(), slot, held))
    }

    /// The instance of a service at this moment, to be kept.
    ///
    /// As [`get`](Self::get), but it counts a reference, which is memory that readers share.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// let kept = registry.get_arc(port)?;
    /// std::thread::spawn(move || assert_eq!(**kept, 80)).join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_arc<T>(&self, id: ServiceId<T>) -> Result<Arc<Instance<T>>, GetError> {
        let (cell, slot) = self.open(id)?;
        match cell.load_full() {
            Some(instance) if is_current(Some(&instance), slot) => Ok(instance),
            found => Err(self.not_ready(id.into(), slot, found)),
        }
    }

    /// The values of several services that were all current at one instant: a tuple of up to eight ids gives a
    /// tuple of guards.
    ///
    /// Wait-free: it reads all, then looks whether any has changed, and again, 32 times at the most.
    ///
    /// # Errors
    ///
    /// [`GetAllError`]: one was not ready, they changed under every look, or an id is foreign.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let host = registry.register::<String>("host")?;
    /// let port = registry.register::<u16>("port")?;
    /// let (h, p) = (registry.provide(host)?, registry.provide(port)?);
    /// let _host = h.begin().wait()?.ready("localhost".to_string())?;
    /// let _port = p.begin().wait()?.ready(80)?;
    ///
    /// let (host, port) = registry.get_all((host, port))?;
    /// assert_eq!(format!("{}:{}", *host, *port), "localhost:80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_all<I: Ids>(&self, ids: I) -> Result<I::Guards, GetAllError> {
        const LOOKS: u32 = 32;
        let mut looks = 0;
        loop {
            let seen = ids.seen(self);
            let guards = ids.get(self).map_err(|error| match error {
                GetError::NotReady(why) => GetAllError::NotReady(why),
                GetError::ForeignId(why) => GetAllError::ForeignId(why),
            })?;
            // Later than the first looks: the loads of the cells are Acquire, too, which arc-swap documents.
            let Some(changed) = ids.changed(self, &guards, &seen) else {
                return Ok(guards);
            };
            drop(Shielded::new(guards));
            looks += 1;
            if looks == LOOKS {
                let service = self.store().name(changed.index);
                return Err(GetAllError::Contended { service, looks });
            }
        }
    }

    /// Waits until a service is ready, and gives its instance.
    ///
    /// For readers. What a service is built *from* is waited for with
    /// [`Attempt::wait_for`](crate::Attempt::wait_for), which makes it a dependency.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: the registry is closed and the service not ready, the time is up, or the id is foreign.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_ready<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<T>>, WaitError>> + use<'_, T>> {
        Wait::new(UntilReady { registry: self, id })
    }

    #[inline]
    fn open<T>(&self, id: ServiceId<T>) -> Result<(&ArcCell<Instance<T>>, &Slot), ForeignId> {
        self.store().open(id).ok_or_else(|| ForeignId { id: id.into() })
    }

    /// Says so, and drops what was found in the slot in place of something current.
    #[cold]
    pub(crate) fn not_ready<F>(&self, id: AnyId, slot: &Slot, found: F) -> GetError {
        shielded(|| drop(found));
        let state = slot.state.load();
        let phase = match state.phase() {
            // It came up, or changed its generation, while we looked.
            Phase::Ready => Phase::Down,
            phase => phase,
        };
        let service = self.store().name(id.index);
        GetError::NotReady(NotReady { service, phase, generation: state.generation() })
    }
}

/// Whether what was read from a slot's cell is what its state says is there.
#[inline]
pub(crate) fn is_current<T>(read: Option<&Instance<T>>, slot: &Slot) -> bool {
    read.is_some_and(|instance| Tag::ready(instance.generation) == slot.state.load())
}

mod sealed {
    use super::{AnyId, GetError, Registry};

    pub trait Ids {
        type Guards;

        /// The replacements of each, before its value is read; `None` where one is under way.
        type Seen;

        fn seen(&self, registry: &Registry) -> Self::Seen;

        fn get(&self, registry: &Registry) -> Result<Self::Guards, GetError>;

        /// One that is no longer what was read, if there is any.
        fn changed(
            &self,
            registry: &Registry,
            guards: &Self::Guards,
            seen: &Self::Seen,
        ) -> Option<AnyId>;
    }
}

/// A tuple of one to eight ids, as [`Registry::get_all`] takes it.
///
/// ```
/// use mainstay::{Ids, Registry, ServiceId};
///
/// fn readable(registry: &Registry, ids: impl Ids) -> bool {
///     registry.get_all(ids).is_ok()
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let port: ServiceId<u16> = registry.register("port")?;
/// assert!(!readable(&registry, (port,)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Ids: sealed::Ids {}

impl<I: sealed::Ids> Ids for I {}

macro_rules! tuple_of_ids {
    ($($T:ident $n:tt),+) => {
        impl<$($T),+> sealed::Ids for ($(ServiceId<$T>,)+) {
            type Guards = ($(Guard<$T>,)+);
            type Seen = [Option<u64>; [$($n),+].len()];

            #[inline]
            fn seen(&self, registry: &Registry) -> Self::Seen {
                [$(registry.seen(self.$n)),+]
            }

            #[inline]
            fn get(&self, registry: &Registry) -> Result<Self::Guards, GetError> {
                let read = ($(registry.get(self.$n),)+);
                if $(read.$n.is_ok())&&+ {
                    return Ok(($(read.$n?,)+));
                }
                // What was read beside one that is not ready is the store's to drop.
                let read = ($(Shielded::new(read.$n),)+);
                $(if let Err(error) = &*read.$n {
                    return Err(error.clone());
                })+
                unreachable!("one of them was not ready")
            }

            #[inline]
            fn changed(
                &self,
                registry: &Registry,
                guards: &Self::Guards,
                seen: &Self::Seen,
            ) -> Option<AnyId> {
                $(if !registry.is_still(self.$n, &guards.$n, seen[$n]) {
                    return Some(self.$n.into());
                })+
                None
            }
        }
    };
}

tuple_of_ids!(A 0);
tuple_of_ids!(A 0, B 1);
tuple_of_ids!(A 0, B 1, C 2);
tuple_of_ids!(A 0, B 1, C 2, D 3);
tuple_of_ids!(A 0, B 1, C 2, D 3, E 4);
tuple_of_ids!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple_of_ids!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple_of_ids!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

impl Registry {
    #[inline]
    fn seen<T>(&self, id: ServiceId<T>) -> Option<u64> {
        self.open(id).ok()?.1.replacements.settled()
    }

    /// Whether the guard's instance is still the one: a ready tag never comes back, so the same at two looks means the
    /// same all the time between them.
    #[inline]
    fn is_still<T>(&self, id: ServiceId<T>, guard: &Guard<T>, seen: Option<u64>) -> bool {
        let Ok((cell, slot)) = self.open(id) else { return false };
        if let Some(seen) = seen {
            return is_current(Some(Guard::instance(guard)), slot) && slot.replacements.are(seen);
        }
        // A replacement was under way, and may be for long. The guard keeps its instance's address from being used
        // again.
        let now = cell.load();
        if now.as_deref().is_some_and(|now| std::ptr::eq(now, Guard::instance(guard))) {
            return is_current(now.as_deref(), slot);
        }
        // Another one, of which this may be the last holder by now.
        shielded(|| drop(now));
        false
    }
}

struct UntilReady<'a, T> {
    registry: &'a Registry,
    id: ServiceId<T>,
}

impl<T: Send + Sync + 'static> Condition for UntilReady<'_, T> {
    type Output = Result<Arc<Instance<T>>, WaitError>;

    fn look(&mut self) -> Option<Self::Output> {
        if let Err(foreign) = self.registry.index(self.id.into()) {
            return Some(Err(foreign.into()));
        }
        if let Ok(instance) = self.registry.get_arc(self.id) {
            return Some(Ok(instance));
        }
        let store = self.registry.store();
        store.is_closed().then(|| Err(WaitError::Closed { service: store.name(self.id.index()) }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.id.index(), None)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.store().name(self.id.index()), after })
    }

    fn is_observed(&self) -> bool {
        self.registry.is_observed()
    }

    fn begins(&mut self) {
        self.registry.wait_begins(self.id.index(), None);
    }

    fn ends(&mut self, took: Duration) {
        self.registry.wait_ends(self.id.index(), None, took);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{AnyId, GetAllError, GetError, Registry, sealed};

    /// What is another at each look. No real service can be relied on for that.
    struct Restless {
        id: AnyId,
        looks: Cell<u32>,
    }

    impl sealed::Ids for Restless {
        type Guards = ();
        type Seen = ();

        fn seen(&self, _: &Registry) {}

        fn get(&self, _: &Registry) -> Result<(), GetError> {
            self.looks.set(self.looks.get() + 1);
            assert!(self.looks.get() <= 100, "it looks for ever");
            Ok(())
        }

        fn changed(&self, _: &Registry, (): &(), (): &()) -> Option<AnyId> {
            Some(self.id)
        }
    }

    #[test]
    fn what_never_stands_still_is_given_up() -> Result<(), Box<dyn std::error::Error>> {
        let registry = Registry::with_capacity(1)?;
        let id = registry.register::<u8>("service")?.into();
        match registry.get_all(Restless { id, looks: Cell::new(0) }) {
            Err(GetAllError::Contended { service, looks }) => {
                assert_eq!((&*service, looks), ("service", 32));
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}
