//! The observers of a registry: how they are added and removed, and how events reach them.
//!
//! # States of an observer
//!
//! | state | an event |
//! |---|---|
//! | *being listed*: `observe` reads the services | is dropped, or kept if its service was read |
//! | *being started*: `observe` calls `listing`, then `event` with what was kept | is kept |
//! | *live* | is passed on, by the thread that caused it |
//! | *removed*: its handle was dropped | is dropped |
//!
//! An observer of the registry builder is live from the start. The lock of `BeingListed` orders the
//! first two states, and the flag `live` publishes the third one. The removal needs no order: it is
//! a flag that each call checks first.
//!
//! # A listing, then every event after it, none twice
//!
//! `observe` executes these steps:
//!
//! 1. Add the observer to the list, and count it (`Observed`).
//! 2. For each service, read a `Found`, complete a replacement that was decided before, read the
//!    status, and read a `Found` again, until both are the same: no event lies between them, so the
//!    status is of the same instant as far as events can show.
//! 3. Call `listing`.
//! 4. Pass on the events that were kept since the last reading of their services, until none is
//!    left; then the observer is live.
//!
//! An event that took place after the reading of its service reaches the observer, because its
//! thread finds it in the list (`store/observed.rs`). One that took place before may reach it, too:
//!
//! - before the reading. Then it is dropped. The lock of `BeingListed` orders the two.
//! - after the reading, even much later, because its thread is slow. So each event is compared with
//!   the `Found` of its service when it reaches the observer, as long as that exists
//!   (`Found::shows`).
//!
//! Starts and ends of waits, and failures of bodies and close hooks, are no part of a listing. They
//! are passed on from the reading on.
//!
//! # User code
//!
//! No user code runs under a lock, and each call is shielded. An observer is dropped by the last
//! thread that uses it, after a call or in the drop of its handle; never in a cascade.

mod entry;
mod happened;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

pub(super) use self::entry::{Entry, Observers};

use self::happened::Happened;
use super::{Listing, Registry, RegistryInner};
use crate::{
    event::{Event, EventKind},
    numbers::{Generation, ServiceIndex},
    sync::Shielded,
};

/// User code that receives each event of a registry, for logs, metrics and alerts.
///
/// The thread that caused an event calls the observer immediately after the event has happened, so
/// a slow observer delays that thread. Several threads may call it at the same time. It is never
/// called during a cascade or under a lock, and it may call the registry: if it fails services, the
/// failures are events, too, and it may add and remove observers. If it panics, the panic hook
/// reports the panic, and the caller and the other observers continue.
///
/// It is added by [`RegistryBuilder::observer`](crate::RegistryBuilder::observer), or to a running
/// registry by [`Registry::observe`]. `TracingObserver` (feature `tracing`) emits the events to
/// `tracing`.
///
/// ```
/// use mainstay::{Event, EventKind, Observer, Registry};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static FAILURES: AtomicU32 = AtomicU32::new(0);
///
/// struct Count;
///
/// impl Observer for Count {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         if let EventKind::Failed(_) = event.kind {
///             FAILURES.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let registry = Registry::builder(1)?.observer(Count).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "closed")?;
/// assert_eq!(FAILURES.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives one event.
    fn event(&self, registry: &Registry, event: &Event<'_>);

    /// Receives the status of all services, once, before the first event.
    ///
    /// Called by [`Registry::observe`], on its thread. An observer of the
    /// [registry builder](crate::RegistryBuilder::observer) receives every event and no listing. By
    /// default it does nothing.
    ///
    /// ```
    /// use mainstay::{Event, Listing, Observer, Registry};
    ///
    /// struct Print;
    ///
    /// impl Observer for Print {
    ///     fn event(&self, _: &Registry, event: &Event<'_>) {
    ///         println!("{}: {}", event.service, event.kind);
    ///     }
    ///
    ///     fn listing(&self, _: &Registry, listing: &Listing) {
    ///         for service in &listing.services {
    ///             println!("{} is {}", service.name, service.phase);
    ///         }
    ///     }
    /// }
    ///
    /// Registry::with_capacity(8)?.observe(Print).detach();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn listing(&self, registry: &Registry, listing: &Listing) {
        let _ = (registry, listing);
    }
}

/// Keeps an observer of a running registry; returned by [`Registry::observe`]. Its drop removes the
/// observer.
///
/// When the drop has returned, no thread begins a call of the observer any more. It does not wait
/// for calls that other threads have begun: they may still be running, or be about to run the first
/// line of the observer. So an observer may drop its own handle while it is called. The observer
/// itself is dropped when the last of these calls has ended.
///
/// ```
/// use mainstay::{Event, Observer, Registry};
/// use std::sync::mpsc;
///
/// struct Forward(mpsc::Sender<String>);
///
/// impl Observer for Forward {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         self.0.send(event.kind.to_string()).ok();
///     }
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let (sender, events) = mpsc::channel();
/// let handle = registry.observe(Forward(sender));
///
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// drop(handle);
/// running.fail("closed");
/// // The loop ends, because the observer was dropped.
/// assert_eq!(events.iter().collect::<Vec<_>>(), ["attempt started", "ready"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the drop of the handle removes the observer; `detach` keeps it"]
pub struct ObserverHandle {
    registry: Weak<RegistryInner>,
    /// Weak: an observer may own its handle. Empty if it was detached.
    entry: Weak<Entry>,
}

impl ObserverHandle {
    /// Keeps the observer as long as the registry exists.
    ///
    /// ```
    /// # use mainstay::{Event, Observer, Registry};
    /// # struct Log;
    /// # impl Observer for Log {
    /// #     fn event(&self, _: &Registry, _: &Event<'_>) {}
    /// # }
    /// # let registry = Registry::with_capacity(1)?;
    /// registry.observe(Log).detach();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(mut self) {
        self.entry = Weak::new();
    }
}

impl Drop for ObserverHandle {
    fn drop(&mut self) {
        let Some(entry) = self.entry.upgrade() else { return };
        entry.remove();
        if let Some(inner) = self.registry.upgrade() {
            inner.observers.change(|list| list.retain(|other| !Arc::ptr_eq(other, &entry)));
            inner.store.observed.remove();
        }
    }
}

impl fmt::Debug for ObserverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserverHandle").finish_non_exhaustive()
    }
}

impl Registry {
    /// Adds an observer to the running registry. The drop of the handle removes it.
    ///
    /// The observer first receives a [listing](Observer::listing) of all services, on this thread.
    /// Then it receives every event that happens to a service after the listing has read it, and no
    /// event that the listing shows: for each service, the phase, the generation and the
    /// replacements and the states of the supervisor in the listing, and then the events, are one
    /// sequence without a gap. Events
    /// that happen before this call returns are passed on by this call. The starts and ends of
    /// waits, and the failures of bodies and close hooks, are not part of a listing: the observer
    /// receives those that are reported after the listing has read the service, and `waiters` may
    /// count some of them already.
    ///
    /// [`Event::elapsed`] is zero if what the event ends began before the registry was observed.
    ///
    /// Blocking: it takes the locks of [`list`](Self::list), and reads those services again that
    /// change during the listing. Events are kept in memory until the observer has received the
    /// listing, and about 50 bytes for each listed service as long as the observer exists.
    ///
    /// ```
    /// use mainstay::{Event, Listing, Observer, Registry};
    /// use std::sync::{Arc, Mutex};
    ///
    /// #[derive(Clone, Default)]
    /// struct Lines(Arc<Mutex<Vec<String>>>);
    ///
    /// impl Observer for Lines {
    ///     fn event(&self, _: &Registry, event: &Event<'_>) {
    ///         self.0.lock().unwrap().push(format!("{}: {}", event.service, event.kind));
    ///     }
    ///
    ///     fn listing(&self, _: &Registry, listing: &Listing) {
    ///         for service in &listing.services {
    ///             self.0.lock().unwrap().push(format!("{} is {}", service.name, service.phase));
    ///         }
    ///     }
    /// }
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    ///
    /// let lines = Lines::default();
    /// let handle = registry.observe(lines.clone());
    /// running.fail("closed");
    /// drop(handle);
    /// let _running = provider.begin().wait_blocking()?.ready(81)?;
    /// assert_eq!(*lines.0.lock().unwrap(), ["port is ready", "port: failed: closed"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(&self, observer: impl Observer) -> ObserverHandle {
        let entry = Arc::new(Entry::new(Box::new(observer)));
        self.inner.observers.change(|list| list.push(Arc::clone(&entry)));
        // Before the first service is read (`store/observed.rs`).
        self.store().observed.add();
        let listing = self.list_for(&entry);
        entry.start(self, listing);
        ObserverHandle { registry: Arc::downgrade(&self.inner), entry: Arc::downgrade(&entry) }
    }

    fn list_for(&self, entry: &Entry) -> Listing {
        let services = entry.listing(|being_listed| being_listed.count(self));
        let read = |index| {
            let is_same = entry.listing(|being_listed| being_listed.read(self, index));
            // Without the lock, because a value may be dropped.
            self.store().complete_replacement(index);
            is_same
        };
        for index in ServiceIndex::range(0..services) {
            read(index);
        }
        let mut listing = self.list();
        listing.services.truncate(services as usize);
        for status in &mut listing.services {
            // Until no event lies between two readings: the status is of the same instant.
            while !read(status.id.index) {
                if let Ok(now) = self.status(status.id) {
                    drop(Shielded::new(std::mem::replace(status, now)));
                }
            }
        }
        listing
    }

    /// Returns whether the registry has an observer.
    pub(crate) fn is_observed(&self) -> bool {
        self.store().observed.get()
    }

    /// Returns the present time by the clock of the registry, if the registry is observed. `None`
    /// also if the clock, which may be user code, panics.
    pub(crate) fn now_if_observed(&self) -> Option<Instant> {
        if !self.is_observed() {
            return None;
        }
        #[cfg(feature = "supervise")]
        return self.supervisors().now();
        #[cfg(not(feature = "supervise"))]
        Some(Instant::now())
    }

    /// Returns the time since `start`; zero if there was no observer at the start.
    pub(crate) fn elapsed_since(&self, start: Option<Instant>) -> Duration {
        let Some(start) = start else { return Duration::ZERO };
        let now = self.now_if_observed();
        now.map(|now| now.saturating_duration_since(start)).unwrap_or_default()
    }

    /// Passes an event to the observers. The caller has completed the change that it reports.
    #[inline]
    pub(crate) fn emit(
        &self,
        index: ServiceIndex,
        generation: Generation,
        elapsed: Duration,
        kind: EventKind<'_>,
    ) {
        self.emit_numbered(index, generation, 0, elapsed, kind);
    }

    /// As `emit`, for a failed attempt, a replacement or giving up, with its number.
    #[inline]
    pub(crate) fn emit_numbered(
        &self,
        index: ServiceIndex,
        generation: Generation,
        number: u64,
        elapsed: Duration,
        kind: EventKind<'_>,
    ) {
        if self.is_observed() {
            self.pass_to_all(&Happened { index, generation, number, elapsed, kind });
        }
    }

    #[cold]
    fn pass_to_all(&self, happened: &Happened<'_>) {
        let Some(observers) = self.inner.observers.all() else { return };
        for entry in &*observers {
            entry.receive(self, happened);
        }
    }
}
