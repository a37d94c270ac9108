//! `Registry`: services by name and id, and closing.
//!
//! The other methods of `Registry` are in the files of their topics:
//!
//! | file | methods |
//! |---|---|
//! | `builder.rs` | `builder`, `with_capacity` |
//! | `depends.rs` | `depends` |
//! | `fail.rs` | `fail`, `fail_instance` |
//! | `inspect.rs` | `status`, `list` |
//! | `observers.rs` | `observe` |
//! | `all_ready.rs` | `wait_all_ready`, `wait_set_ready`, `set_optional` |
//! | `changed.rs` | `wait_changed` |
//! | `stuck.rs` | `startup_complete` |
//! | `readiness.rs` | `readiness`, `readiness_of` |
//! | `../read/` | `get`, `get_arc`, `get_all`, `reader`, `cached`, `wait_ready`, `wait_ready_any` |
//! | `../provide/` | `provide`, `constant`, `watch` |
//! | `supervisors/` | `request_shutdown`, `shutdown_requested`, `shutdown_reason`, `closed` |
//! | `../supervise/` | `supervise`, `restart`, `stop`, `start`, `reload`, `check_reload`, `shutdown`, `shutdown_blocking`, `shutdown_on_drop` |
//!
//! `status.rs` is the status of one service, and `record.rs` a listing as plain data.
//!
//! `supervisors.rs` holds the shared state of the supervisors and the clock, and `supervisors/` the
//! plan of the planned ends. `trace.rs` is an observer. `observers.rs` also passes
//! the events to all observers.

mod all_ready;
mod builder;
mod changed;
mod depends;
mod fail;
mod inspect;
mod not_ready;
mod observers;
mod readiness;
mod record;
mod status;
mod stuck;
#[cfg(feature = "supervise")]
mod supervisors;
#[cfg(feature = "tracing")]
mod trace;

pub(crate) use self::not_ready::LazyNotReady;
#[cfg(feature = "supervise")]
pub(crate) use self::supervisors::{
    Abandoned, Aside, Begun, BuildDeadline, BuildNumber, Command, CommandWait, Control,
    CountHolders, DegradedBy, Details, EndKind, FailureWindow, GivenUp, Group, Outcome, PlannedEnd,
    Progress, Publication, Refusal, Reload, ReloadKind, ReloadRequest, Request, StopEnd,
    Supervisors, Ticket, UpCommand, WorkEnds,
};
#[cfg(feature = "supervise")]
pub use self::supervisors::{
    BodyReport, CheckedService, CloseReport, Degraded, Gap, GapCause, MissingMember, ReloadCheck,
    Reloaded, ReloadedService, Reloading, RestartedService, SignalWait, Stale, StopReport,
    StopResult, StopTimeout, StoppedService, SupervisorState, SupervisorStatus, WorkEnd,
};
#[cfg(feature = "tracing")]
pub use self::trace::TracingObserver;
pub use self::{
    all_ready::WaitAllReady,
    builder::RegistryBuilder,
    changed::{ServiceState, WaitChanged},
    depends::Depends,
    inspect::Listing,
    not_ready::NotReady,
    observers::{Observer, ObserverHandle},
    readiness::{Readiness, ReadinessProblem},
    record::{BuiltFromRecord, DependencyRecord, ListingRecord, ServiceRecord},
    status::{BuiltFromInstance, Dependency, ServiceStatus},
};

use self::observers::Observers;
use std::{
    any::type_name,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::{CycleError, ForeignIdError, LookupError, RegisterError},
    event::EventKind,
    numbers::{Generation, ServiceIndex},
    service::{AnyId, ServiceId, ServiceName},
    store::{self, NotRegistered, Store},
};

/// A set of services that depend on each other.
///
/// This type is a handle: clones are cheap and refer to the same registry. Move one into each task
/// and thread that needs it.
///
/// - Reading: [`get`](Self::get), [`get_all`](Self::get_all), [`reader`](Self::reader),
///   [`cached`](Self::cached).
/// - Waiting: [`wait_ready`](Self::wait_ready), [`wait_all_ready`](Self::wait_all_ready),
///   [`wait_set_ready`](Self::wait_set_ready), [`wait_changed`](Self::wait_changed).
/// - Providing: [`provide`](Self::provide); with retry and backoff, `supervise`; a value for good,
///   [`constant`](Self::constant).
/// - Failing: [`fail`](Self::fail), [`fail_instance`](Self::fail_instance).
/// - Inspecting: [`status`](Self::status), [`list`](Self::list), [`readiness`](Self::readiness),
///   [`observe`](Self::observe).
/// - Reloading, without an outage: `reload`, `check_reload`.
/// - Ending: [`close`](Self::close); gracefully, `shutdown`.
///
/// ```
/// use mainstay::Registry;
///
/// let registry = Registry::with_capacity(8)?;
/// let port = registry.register::<u16>("port")?;
///
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// assert_eq!(*registry.get(port)?, 80);
///
/// registry.fail(port, "the address is gone")?;
/// assert!(registry.get(port).is_err());
/// assert_eq!(running.failed().wait_blocking()?.reason.to_string(), "the address is gone");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    inner: Arc<RegistryInner>,
}

pub(crate) struct RegistryInner {
    pub(crate) store: Store,
    #[cfg(feature = "supervise")]
    pub(crate) supervisors: Supervisors,
    observers: Observers,
}

impl Registry {
    pub(crate) fn new(inner: RegistryInner) -> Self {
        Self::of(Arc::new(inner))
    }

    pub(crate) fn of(inner: Arc<RegistryInner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<RegistryInner> {
        &self.inner
    }

    #[inline]
    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }

    // Names, ids and edges.

    /// Registers a service, or returns its id if it is registered already with the same type.
    ///
    /// A service cannot be removed: a new one takes up one place of the
    /// [`capacity`](Self::capacity) permanently. Blocking: takes the lock of the table of names.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: the name belongs to a service of another type, or the registry is full or
    /// closed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let id = registry.register::<u16>("port")?;
    /// assert_eq!(registry.register::<u16>("port")?, id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register<T: Send + Sync + 'static>(
        &self,
        name: &str,
    ) -> Result<ServiceId<T>, RegisterError> {
        if self.is_closed() {
            return Err(RegisterError::Closed { service: ServiceName::new(name) });
        }
        let (id, new) = register(self.store(), name)?;
        if new {
            self.emit(id.index(), Generation::FIRST, Duration::ZERO, EventKind::Registered);
        }
        Ok(id)
    }

    /// Returns the typed id of a service by its name.
    ///
    /// Blocking: takes the lock of the table of names.
    ///
    /// # Errors
    ///
    /// [`LookupError`]: no service has this name, or the service has another type.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(registry.id::<u16>("port")?, port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id<T: Send + Sync + 'static>(&self, name: &str) -> Result<ServiceId<T>, LookupError> {
        let id = self.find(name)?;
        self.store().typed(id).ok_or_else(|| {
            let service = self.store().service(id.index);
            LookupError::WrongType {
                service: service.name.clone(),
                registered: service.type_name,
                requested: type_name::<T>(),
            }
        })
    }

    /// Returns the untyped id of a service by its name, for operations such as
    /// [`fail`](Self::fail) and [`wait_ready_any`](Self::wait_ready_any).
    ///
    /// Blocking: takes the lock of the table of names.
    ///
    /// # Errors
    ///
    /// [`LookupError::UnknownName`]: no service has this name.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let by_name = registry.find("port")?;
    /// registry.fail(by_name, "asked for by an operator")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(&self, name: &str) -> Result<AnyId, LookupError> {
        self.store()
            .find(name)
            .ok_or_else(|| LookupError::UnknownName { name: ServiceName::new(name) })
    }

    /// Returns the maximum number of services.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(3)?;
    /// assert_eq!(registry.capacity(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&self) -> usize {
        self.store().capacity()
    }

    // Closing.

    /// Closes the registry: ends all present and future waits with an error, immediately.
    ///
    /// A closed registry refuses new services, providers, attempts and publications. `close` takes
    /// no service down: a ready service stays readable, and can be replaced and failed, until its
    /// provider drops the [`Running`](crate::Running). A provider notices the close, because its
    /// wait for the next failure ends. Only [constants](Self::constant) end here, in one cascade:
    /// the registry is their provider. Values are dropped by their last holder. A thread that finds
    /// the registry closed also sees everything that was done before the close.
    ///
    /// No close hook is called, and one that is running is dropped. For a graceful shutdown,
    /// dependents first, use `shutdown` (feature `supervise`). A shutdown in progress ends at once,
    /// and returns its report.
    ///
    /// ```
    /// use mainstay::{Registry, error::WaitError};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    ///
    /// registry.close();
    /// assert!(matches!(running.failed().wait_blocking(), Err(WaitError::Closed { .. })));
    /// assert_eq!(*registry.get(port)?, 80);
    /// drop(running);
    /// assert!(registry.get(port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        if !self.store().close() {
            return;
        }
        #[cfg(feature = "supervise")]
        self.end_supervision();
        if self.is_observed() {
            for index in self.store().services() {
                let generation = self.store().slot(index).state.load().generation();
                self.emit(index, generation, Duration::ZERO, EventKind::Closed);
            }
        }
        self.end_constants();
    }

    /// Returns whether the registry was closed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// assert!(!registry.is_closed());
    /// registry.close();
    /// assert!(registry.is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.store().is_closed()
    }

    /// Returns a new tracker, for the instances of one generation of the service.
    pub(crate) fn tracker<T>(&self, _index: ServiceIndex) -> store::InstanceTracker<T> {
        #[cfg(feature = "supervise")]
        {
            let owner = Arc::downgrade(&self.inner);
            store::InstanceTracker::new(owner, _index, None)
        }
        #[cfg(not(feature = "supervise"))]
        store::InstanceTracker::new()
    }

    pub(crate) fn index(&self, id: AnyId) -> Result<ServiceIndex, ForeignIdError> {
        self.store().index(id).ok_or(ForeignIdError { id })
    }

    /// Returns the name of a service. A wait calls this when its time is over: one that has
    /// returned the error of a foreign id already can still be waited for again.
    pub(crate) fn name_of(&self, id: impl Into<AnyId>) -> Result<ServiceName, ForeignIdError> {
        Ok(self.store().name(self.index(id.into())?))
    }
}

// User code never runs under a lock or between two steps of the store, and locks ignore poisoning.
// So a caller of `catch_unwind` cannot observe an operation that a panic of user code left
// incomplete.
impl UnwindSafe for Registry {}
impl RefUnwindSafe for Registry {}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("services", &self.store().len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

// Events.

impl Registry {
    /// Counts and reports the start of a wait for `service` to be ready. `dependent` is the service
    /// whose attempt waits; a reader has none.
    pub(crate) fn wait_started(&self, service: ServiceIndex, dependent: Option<ServiceIndex>) {
        self.store().service(service).waiters.fetch_add(1);
        self.emit_wait(service, dependent, Duration::ZERO, |dependent| EventKind::WaitStarted {
            dependent,
        });
    }

    /// Counts and reports the end of such a wait.
    pub(crate) fn wait_ended(
        &self,
        service: ServiceIndex,
        dependent: Option<ServiceIndex>,
        started_at: Option<Instant>,
    ) {
        self.store().service(service).waiters.fetch_sub(1);
        let elapsed = self.elapsed_since(started_at);
        self.emit_wait(service, dependent, elapsed, |dependent| EventKind::WaitEnded { dependent });
    }

    fn emit_wait<'a>(
        &'a self,
        service: ServiceIndex,
        dependent: Option<ServiceIndex>,
        elapsed: Duration,
        kind: impl Fn(Option<&'a ServiceName>) -> EventKind<'a>,
    ) {
        if !self.is_observed() {
            return;
        }
        let generation = self.store().slot(service).state.load().generation();
        let dependent = dependent.map(|dependent| &self.store().service(dependent).name);
        self.emit(service, generation, elapsed, kind(dependent));
    }
}

/// Registers a service. Returns its id, and whether it is new.
pub(crate) fn register<T: Send + Sync + 'static>(
    store: &Store,
    name: &str,
) -> Result<(ServiceId<T>, bool), RegisterError> {
    store.register(name).map_err(|refused| match refused {
        NotRegistered::OtherType(registered) => RegisterError::WrongType {
            service: ServiceName::new(name),
            registered,
            requested: type_name::<T>(),
        },
        NotRegistered::Full => {
            RegisterError::Capacity { service: ServiceName::new(name), capacity: store.capacity() }
        }
    })
}

/// Returns the error for a cycle, with the names of its services.
pub(crate) fn cycle_error(store: &Store, cycle: store::CyclePath) -> CycleError {
    CycleError { path: cycle.into_iter().map(|index| store.name(index)).collect() }
}
