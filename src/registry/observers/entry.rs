//! One observer and its states, and the list of all observers.

use std::{
    mem,
    sync::{Arc, OnceLock},
};

use super::{
    Listing, Observer, Registry,
    happened::{Found, Happened, Kept},
};
use crate::{
    event::Event,
    numbers::ServiceIndex,
    sync::{CountedCell, Flag, Mutex, Shielded, lock, shielded},
};

/// All observers, in the order in which they were added. `None` is an empty list.
pub(in crate::registry) struct Observers(CountedCell<Vec<Arc<Entry>>>);

impl Observers {
    pub(in crate::registry) fn new(observers: Vec<Arc<Entry>>) -> Self {
        let cell = Self(CountedCell::empty());
        cell.change(|list| list.clone_from(&observers));
        cell
    }

    pub(super) fn all(&self) -> Option<Arc<Vec<Arc<Entry>>>> {
        // Counted, and not only held: observers are slow.
        self.0.load()
    }

    /// Replaces the list. Lock-free: it begins again if another change was faster.
    pub(super) fn change(&self, change: impl Fn(&mut Vec<Arc<Entry>>)) {
        let mut current = self.0.load();
        loop {
            let mut list = current.as_deref().cloned().unwrap_or_default();
            change(&mut list);
            match self.0.replace(&current, Some(Arc::new(list))) {
                Ok(()) => return,
                Err(now) => current = now,
            }
        }
    }
}

/// One observer.
pub(in crate::registry) struct Entry {
    observer: Shielded<Box<dyn Observer>>,
    removed: Flag,
    /// Set when `being_listed` is `None`.
    live: Flag,
    being_listed: Mutex<Option<BeingListed>>,
    /// What the listing has found at each service. Empty for an observer of the builder. Written
    /// before the observer is live.
    found: OnceLock<Vec<Found>>,
}

impl Entry {
    /// An observer that is being listed.
    pub(super) fn new(observer: Box<dyn Observer>) -> Self {
        Self {
            observer: Shielded::new(observer),
            removed: Flag::new(),
            live: Flag::new(),
            being_listed: Mutex::new(Some(BeingListed::default())),
            found: OnceLock::new(),
        }
    }

    /// An observer of the registry builder.
    pub(in crate::registry) fn permanent(observer: Box<dyn Observer>) -> Self {
        let entry = Self::new(observer);
        *lock(&entry.being_listed) = None;
        entry.live.set();
        entry
    }

    /// Removes the observer: no call begins any more.
    pub(super) fn remove(&self) {
        self.removed.set();
    }

    /// Changes the state of an observer that is being listed.
    pub(super) fn listing<R: Default>(&self, change: impl FnOnce(&mut BeingListed) -> R) -> R {
        lock(&self.being_listed).as_mut().map(change).unwrap_or_default()
    }

    /// Passes an event on, or keeps it.
    pub(super) fn receive(&self, registry: &Registry, happened: &Happened<'_>) {
        if !self.live.is_set() {
            let mut being_listed = lock(&self.being_listed);
            if let Some(being_listed) = &mut *being_listed {
                being_listed.keep(happened);
                return;
            }
        }
        let found = self.found.get().and_then(|found| found.get(happened.index.as_usize()));
        if !found.is_some_and(|found| found.shows(happened)) {
            self.call(registry, happened);
        }
    }

    fn call(&self, registry: &Registry, happened: &Happened<'_>) {
        // A removal that happens before this check is seen.
        if self.removed.is_set() {
            return;
        }
        let Happened { index, generation, elapsed, ref kind, .. } = *happened;
        let (store, kind) = (registry.store(), kind.clone());
        let (service, id) = (&store.service(index).name, store.id(index));
        let event = Event { service, id, generation, elapsed, kind };
        shielded(|| self.observer.event(registry, &event));
    }

    /// Calls the observer with its listing, then with the events that were kept until none is left.
    /// Events that happen during these calls are kept, too, so that they arrive in order.
    pub(super) fn start(&self, registry: &Registry, listing: Listing) {
        // Its failures contain values of the user.
        let listing = Shielded::new(listing);
        shielded(|| self.observer.listing(registry, &listing));
        drop(listing);
        loop {
            let kept = {
                let mut state = lock(&self.being_listed);
                let Some(being_listed) = &mut *state else { return };
                if being_listed.kept.is_empty() {
                    let _ = self.found.set(mem::take(&mut being_listed.found));
                    *state = None;
                    self.live.set();
                    return;
                }
                being_listed.take()
            };
            for kept in kept {
                kept.with(|happened| self.call(registry, happened));
            }
        }
    }
}

/// What is known of an observer that is being listed.
///
/// The services are read under its lock. So an event that reaches the observer before its service
/// is read is shown by the listing, and it is dropped. A later one is compared with what was read.
#[derive(Default)]
pub(super) struct BeingListed {
    /// The number of services in the listing; `None` before it is read.
    services: Option<usize>,
    /// Those that were read.
    found: Vec<Found>,
    /// The events since then.
    kept: Vec<Kept>,
}

impl BeingListed {
    /// Reads which services the listing contains. A service that is registered later has all its
    /// events later.
    pub(super) fn count(&mut self, registry: &Registry) -> u32 {
        let services = registry.store().len();
        self.services = Some(services as usize);
        services
    }

    /// Reads a service, in the order of the indices at first. Returns whether no event of it has
    /// happened since it was last read.
    pub(super) fn read(&mut self, registry: &Registry, index: ServiceIndex) -> bool {
        let mut now = Found::new(registry, index);
        match self.found.get_mut(index.as_usize()) {
            None => self.found.push(now),
            Some(found) if found.is_same(&now) => return true,
            // The events that were kept since the last reading have the number of that one.
            Some(found) => {
                now.reading = found.reading + 1;
                *found = now;
            }
        }
        false
    }

    fn keep(&mut self, happened: &Happened<'_>) {
        let Some(services) = self.services else { return };
        let index = happened.index.as_usize();
        let reading = match self.found.get(index) {
            Some(found) if !found.shows(happened) => found.reading,
            None if index >= services => 0,
            _ => return,
        };
        self.kept.push(Kept::new(happened, reading));
    }

    /// Returns the events that were kept since the last reading of their services.
    fn take(&mut self) -> Vec<Kept> {
        let mut kept = mem::take(&mut self.kept);
        for kept in &mut kept {
            let found = self.found.get(kept.index().as_usize());
            kept.is_shown = found.is_some_and(|found| found.reading != kept.reading);
        }
        kept
    }
}
