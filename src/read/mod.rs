//! Reading one service, and several at one instant. The resolved reader is in `reader.rs`, the
//! cached reader in `cached.rs`, guards of a part of a value in `mapped.rs`, and the waits of
//! readers in `wait_ready.rs`.

mod cached;
mod fence;
mod mapped;
mod reader;
mod wait_ready;

pub use self::{
    cached::Cached,
    fence::ReadFence,
    mapped::MappedGuard,
    reader::Reader,
    wait_ready::{WaitReady, WaitReadyAny},
};

use std::{fmt, ops::Deref, ptr, sync::Arc};

use crate::{
    error::{DependencyUnavailable, ForeignIdError, GetAllError, GetError},
    instance::Instance,
    numbers::Generation,
    registry::{LazyNotReady, Registry, RegistryInner},
    service::{AnyId, ServiceId},
    store::{Phase, Slot, Tag, resolve},
    sync::{ArcCell, Held, Shielded, hold, into_arc, shielded},
};

/// A borrowed instance, which [`Registry::get`] returns. It dereferences to the value.
///
/// The value lives at least as long as the guard, even if the service fails: a request can finish
/// with the value with which it began. Drop a guard soon: a thread can hold eight guards cheaply,
/// and each further one costs about as much as a clone of an `Arc`. To keep an instance, or to hold
/// it across an `.await`, use [`into_arc`](Self::into_arc). To pass on a part of the value, use
/// [`map`](Self::map). The drop of the last holder runs the `Drop` of the value.
///
/// ```
/// use mainstay::{Guard, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
///
/// let guard = registry.get(port)?;
/// registry.fail(port, "closed")?;
/// assert_eq!(*guard, 80);
/// assert_eq!(Guard::generation(&guard), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Guard<T> {
    held: Held<Instance<T>>,
}

impl<T> Guard<T> {
    /// Returns the generation under which the value was published.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(mainstay::Guard::generation(&registry.get(port)?), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(this: &Self) -> Generation {
        Instance::generation(Self::instance(this))
    }

    /// Returns how often the value had been replaced in this generation before this instance
    /// ([`Instance::revision`]).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// running.replace(81)?;
    /// assert_eq!(mainstay::Guard::revision(&registry.get(port)?), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn revision(this: &Self) -> u64 {
        Instance::revision(Self::instance(this))
    }

    /// Returns the instance, for example for [`Registry::fail_instance`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let guard = registry.get(port)?;
    /// registry.fail_instance(mainstay::Guard::instance(&guard), "address in use")?;
    /// assert!(registry.get(port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn instance(this: &Self) -> &Instance<T> {
        &this.held
    }

    /// Converts the guard to an `Arc`, as [`Registry::get_arc`] returns it: to keep the instance,
    /// or to hold it across an `.await`.
    ///
    /// ```
    /// use mainstay::Guard;
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let host = registry.register::<String>("host")?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let (provide_host, provide_port) = (registry.provide(host)?, registry.provide(port)?);
    /// # let _host = provide_host.begin().wait_blocking()?.ready("localhost".to_string())?;
    /// # let _port = provide_port.begin().wait_blocking()?.ready(80)?;
    /// let (host, port) = registry.get_all((host, port))?;
    /// let (host, port) = (Guard::into_arc(host), Guard::into_arc(port));
    /// assert_eq!(format!("{}:{}", **host, **port), "localhost:80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_arc(this: Self) -> Arc<Instance<T>> {
        into_arc(this.held)
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
    /// Returns a guard of the current instance of a service.
    ///
    /// It is wait-free: it announces in a place of its thread what it reads, checks that this is
    /// still the instance, and compares it with the state. There is no lock, no write to shared
    /// memory, and no locked instruction ([`read_fence`](Self::read_fence)). The first read of an
    /// instance counts a reference instead, as [`get_arc`](Self::get_arc) does, and so does each
    /// read if the thread holds eight guards, or if the instance is just being exchanged. The first
    /// read of a thread registers the thread.
    ///
    /// After a thread has observed that a service failed, no read of this thread returns an
    /// instance that was built from the failed one.
    ///
    /// If the instance is replaced or removed at the same moment, the read may drop the last
    /// reference to it. Then the `Drop` of the value runs on this thread, shielded: the
    /// panic hook reports a panic of it.
    ///
    /// # Errors
    ///
    /// - [`GetError::NotReady`]: the service was not ready at some instant during the call.
    /// - [`GetError::ForeignId`]: the id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let greeting = registry.register::<String>("greeting")?;
    /// let provider = registry.provide(greeting)?;
    /// let _running = provider.begin().wait_blocking()?.ready("hello".to_string())?;
    /// assert_eq!(registry.get(greeting)?.len(), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    // Inlined, so that the guard is returned in registers: an error is large.
    #[inline(always)]
    pub fn get<T>(&self, id: ServiceId<T>) -> Result<Guard<T>, GetError> {
        let found = match self.store().open(id) {
            Some((cell, slot)) => find_announced(cell, slot),
            None => Err(None),
        };
        found.or_else(|found| self.get_slowly(id, found))
    }

    /// All of `get` after its first try, so that a caller of `get` contains no more than this.
    #[cold]
    #[inline(never)]
    fn get_slowly<T>(&self, id: ServiceId<T>, found: Stale<T>) -> Result<Guard<T>, GetError> {
        let (cell, slot) = self.open(id)?;
        find_slowly(cell, slot, found).map_err(|stale| not_ready(self.inner(), id.into(), stale))
    }

    /// Returns the current instance of a service as an `Arc`, to keep it.
    ///
    /// Like [`get`](Self::get), but it also increments a reference counter that all readers share.
    ///
    /// If the instance is replaced or removed at the same moment, the read may drop the last
    /// reference to it. Then the `Drop` of the value runs on this thread, shielded: the
    /// panic hook reports a panic of it.
    ///
    /// # Errors
    ///
    /// As [`get`](Self::get).
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let kept = registry.get_arc(port)?;
    /// std::thread::spawn(move || assert_eq!(**kept, 80)).join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_arc<T>(&self, id: ServiceId<T>) -> Result<Arc<Instance<T>>, GetError> {
        let (cell, slot) = self.open(id)?;
        find_current_arc(cell, slot).map_err(|stale| not_ready(self.inner(), id.into(), stale))
    }

    /// Returns the instances of several services that were all current at one instant: a tuple of
    /// guards for a tuple of one to eight ids.
    ///
    /// Wait-free: it reads all services, and then checks whether one of them has changed. It tries
    /// this in at most 32 rounds.
    ///
    /// If one of the instances is replaced or removed at the same moment, the read may drop the
    /// last reference to it. Then the `Drop` of the value runs on this thread, shielded:
    /// the panic hook reports a panic of it.
    ///
    /// # Errors
    ///
    /// - [`GetAllError::NotReady`]: one of the services was not ready.
    /// - [`GetAllError::Contended`]: in each round, one of the services changed.
    /// - [`GetAllError::ForeignId`]: one of the ids belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let host = registry.register::<String>("host")?;
    /// let port = registry.register::<u16>("port")?;
    /// let (provide_host, provide_port) = (registry.provide(host)?, registry.provide(port)?);
    /// let _host = provide_host.begin().wait_blocking()?.ready("localhost".to_string())?;
    /// let _port = provide_port.begin().wait_blocking()?.ready(80)?;
    ///
    /// let (host, port) = registry.get_all((host, port))?;
    /// assert_eq!(format!("{}:{}", *host, *port), "localhost:80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_all<I: Ids>(&self, ids: I) -> Result<I::Guards, GetAllError> {
        const ROUNDS: u32 = 32;
        let mut rounds = 0;
        loop {
            let before = ids.replacements(self);
            let guards = ids.read(self).map_err(|error| match error {
                GetError::NotReady(error) => GetAllError::NotReady(error),
                GetError::ForeignId(error) => GetAllError::ForeignId(error),
            })?;
            // Takes effect after the reads: the load of a cell is an Acquire.
            let Some(changed) = ids.find_changed(self, &guards, &before) else {
                return Ok(guards);
            };
            drop(Shielded::new(guards));
            rounds += 1;
            if rounds == ROUNDS {
                let service = self.store().name(changed.index);
                return Err(GetAllError::Contended { service, rounds });
            }
        }
    }

    #[inline]
    fn open<T>(&self, id: ServiceId<T>) -> Result<(&ArcCell<Instance<T>>, &Slot), ForeignIdError> {
        self.store().open(id).ok_or_else(|| ForeignIdError { id: id.into() })
    }
}

/// What was found in the cell of a slot that has no current instance.
type Stale<T> = Option<Held<Instance<T>>>;

/// Returns a guard of the current instance of a slot, by one try that counts no reference. If it
/// fails, [`find_slowly`] decides, from what was found.
#[inline(always)]
fn find_announced<T>(cell: &ArcCell<Instance<T>>, slot: &Slot) -> Result<Guard<T>, Stale<T>> {
    let Some(held) = cell.load_announced() else { return Err(None) };
    // The state is read after the value: if it is the tag of the value, the value was current
    // during the call.
    if Instance::tag(&held) == slot.state.load() { Ok(Guard { held }) } else { Err(Some(held)) }
}

/// As [`find_announced`], after its try. What it has found may be an instance of a switch that is
/// not decided.
fn find_slowly<T>(
    cell: &ArcCell<Instance<T>>,
    slot: &Slot,
    found: Stale<T>,
) -> Result<Guard<T>, Stale<T>> {
    let found = found.or_else(|| cell.load_counted());
    match found.and_then(|held| resolve(cell, held)) {
        Some(held) if is_current(&held, slot) => Ok(Guard { held }),
        stale => Err(stale),
    }
}

/// Returns a counted reference to the current instance of a slot. If there is none, returns what
/// was found.
fn find_current_arc<T>(
    cell: &ArcCell<Instance<T>>,
    slot: &Slot,
) -> Result<Arc<Instance<T>>, Stale<T>> {
    match cell.load_full() {
        Some(instance) if Instance::tag(&instance) == slot.state.load() => Ok(instance),
        other => find_slowly(cell, slot, other.map(hold)).map(Guard::into_arc),
    }
}

/// Builds the error `NotReady`, and drops the stale instance that was found.
#[cold]
fn not_ready<F>(registry: &Arc<RegistryInner>, id: AnyId, stale: F) -> GetError {
    shielded(|| drop(stale));
    let (store, index) = (&registry.store, id.index);
    let state = store.slot(index).state.load();
    let phase = match state.phase() {
        // It became ready after the read: it was not ready before that, during the call.
        Phase::Ready => Phase::Down,
        phase => phase,
    };
    let (service, why) = (store.name(index), LazyNotReady::new(registry));
    let service = (service, state.generation());
    GetError::NotReady(DependencyUnavailable::not_ready_when_read(service, phase, why))
}

/// Returns whether the instance for which the content of the cell of a slot stands is current:
/// whether the service is ready in its generation. Call it after the read.
#[inline]
fn is_current<T>(instance: &Instance<T>, slot: &Slot) -> bool {
    Tag::ready(Instance::generation(instance)) == slot.state.load()
}

mod sealed {
    use super::{AnyId, GetError, Registry};

    /// One round of [`Registry::get_all`]. `G` is [`Ids::Guards`](super::Ids::Guards).
    pub trait ReadAll<G> {
        /// The completed replacements of each service; `None` if one is in progress.
        type Replacements;

        /// Step 1: reads the replacements of each service.
        fn replacements(&self, registry: &Registry) -> Self::Replacements;

        /// Step 2: reads all services.
        fn read(&self, registry: &Registry) -> Result<G, GetError>;

        /// Step 3: returns a service that has changed since step 1, if there is one.
        fn find_changed(
            &self,
            registry: &Registry,
            guards: &G,
            before: &Self::Replacements,
        ) -> Option<AnyId>;
    }
}

/// A tuple of one to eight ids, for [`Registry::get_all`].
///
/// `get_all((a, b))` takes `(ServiceId<A>, ServiceId<B>)` and returns `(Guard<A>, Guard<B>)`, in
/// the same order. It is the same for one to eight ids; a single id is written `(a,)`.
///
/// The trait is sealed: only these tuples implement it.
///
/// ```
/// use mainstay::{Guard, Ids, Registry, ServiceId};
///
/// /// Reads any services, and reports an error.
/// fn read<I: Ids>(registry: &Registry, ids: I) -> Option<I::Guards> {
///     registry.get_all(ids).map_err(|error| eprintln!("{error}")).ok()
/// }
///
/// let registry = Registry::with_capacity(2)?;
/// let host: ServiceId<String> = registry.register("host")?;
/// let port: ServiceId<u16> = registry.register("port")?;
/// assert!(read(&registry, (host, port)).is_none());
///
/// let (provide_host, provide_port) = (registry.provide(host)?, registry.provide(port)?);
/// let _host = provide_host.begin().wait_blocking()?.ready("localhost".to_string())?;
/// let _port = provide_port.begin().wait_blocking()?.ready(80)?;
/// let guards: Option<(Guard<String>, Guard<u16>)> = read(&registry, (host, port));
/// assert!(guards.is_some_and(|(host, port)| *host == "localhost" && *port == 80));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Ids: sealed::ReadAll<<Self as Ids>::Guards> {
    /// A tuple with a [`Guard`] for each id, in the same order.
    type Guards;
}

macro_rules! tuple_of_ids {
    ($($T:ident $n:tt),+) => {
        impl<$($T),+> Ids for ($(ServiceId<$T>,)+) {
            type Guards = ($(Guard<$T>,)+);
        }

        impl<$($T),+> sealed::ReadAll<($(Guard<$T>,)+)> for ($(ServiceId<$T>,)+) {
            type Replacements = [Option<u64>; [$($n),+].len()];

            #[inline]
            fn replacements(&self, registry: &Registry) -> Self::Replacements {
                [$(registry.completed_replacements(self.$n)),+]
            }

            #[inline]
            fn read(&self, registry: &Registry) -> Result<($(Guard<$T>,)+), GetError> {
                let read = ($(registry.get(self.$n),)+);
                if $(read.$n.is_ok())&&+ {
                    return Ok(($(read.$n?,)+));
                }
                // The guards that were read are shielded: their drop may run user code.
                let read = ($(Shielded::new(read.$n),)+);
                $(if let Err(error) = &*read.$n {
                    return Err(error.clone());
                })+
                unreachable!("one of the reads returned an error")
            }

            #[inline]
            fn find_changed(
                &self,
                registry: &Registry,
                guards: &($(Guard<$T>,)+),
                before: &Self::Replacements,
            ) -> Option<AnyId> {
                $(if !registry.is_unchanged(self.$n, &guards.$n, before[$n]) {
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
    fn completed_replacements<T>(&self, id: ServiceId<T>) -> Option<u64> {
        self.open(id).ok()?.1.replacements.completed()
    }

    /// Returns whether the instance of the guard has been current since it was read: a `Ready` tag
    /// never becomes the state again, so an instance that is current at two checks is current
    /// between them. `before` is the number of replacements at step 1.
    #[inline]
    fn is_unchanged<T>(&self, id: ServiceId<T>, guard: &Guard<T>, before: Option<u64>) -> bool {
        let Ok((cell, slot)) = self.open(id) else { return false };
        if let Some(before) = before {
            return is_current(Guard::instance(guard), slot)
                && slot.replacements.is_unchanged(before);
        }
        // A replacement was in progress at step 1, and may be so for a long time: compare
        // addresses. The guard prevents that the address of its instance is reused.
        let now = cell.load_full().and_then(|now| resolve(cell, hold(now)));
        if now.as_ref().is_some_and(|now| ptr::eq(&***now, Guard::instance(guard))) {
            return is_current(Guard::instance(guard), slot);
        }
        // Another instance, of which this may now be the last holder.
        shielded(|| drop(now));
        false
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::{AnyId, GetAllError, GetError, Ids, Registry, sealed};

    /// Has changed at each check. The schedule of real services cannot ensure that.
    struct AlwaysChanged {
        id: AnyId,
        rounds: Cell<u32>,
    }

    impl Ids for AlwaysChanged {
        type Guards = ();
    }

    impl sealed::ReadAll<()> for AlwaysChanged {
        type Replacements = ();

        fn replacements(&self, _: &Registry) {}

        fn read(&self, _: &Registry) -> Result<(), GetError> {
            self.rounds.set(self.rounds.get() + 1);
            assert!(self.rounds.get() <= 100, "the number of rounds has no limit");
            Ok(())
        }

        fn find_changed(&self, _: &Registry, (): &(), (): &()) -> Option<AnyId> {
            Some(self.id)
        }
    }

    #[test]
    fn get_all_returns_contended_after_32_rounds() -> Result<(), Box<dyn std::error::Error>> {
        let registry = Registry::with_capacity(1)?;
        let id = registry.register::<u8>("service")?.into();
        match registry.get_all(AlwaysChanged { id, rounds: Cell::new(0) }) {
            Err(GetAllError::Contended { service, rounds }) => {
                assert_eq!((&*service, rounds), ("service", 32));
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}
