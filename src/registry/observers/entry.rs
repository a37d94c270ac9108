//! One observer and its states, and the list of all observers.

use std::sync::{Arc, OnceLock};

use super::{
    Listing, Observer, Registry,
    happened::{Found, Happened, Kept},
};
use crate::{
    event::Event,
    sync::{ArcCell, Flag, Mutex, Shielded, lock, shielded},
};

/// All observers, in the order in which they were added. `None` is an empty list.
pub(in crate::registry) struct Observers(ArcCell<Vec<Arc<Entry>>>);

impl Observers {
    pub(in crate::registry) fn new(observers: Vec<Arc<Entry>>) -> Self {
        let cell = Self(ArcCell::empty());
        cell.change(|list| list.clone_from(&observers));
        cell
    }

    pub(super) fn all(&self) -> Option<Arc<Vec<Arc<Entry>>>> {
        // Counted, and not only held: observers are slow.
        self.0.load_full()
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
    /// Set when no event is kept any more.
    live: Flag,
    /// The events that were kept; `None` if the observer is live.
    kept: Mutex<Option<Vec<Kept>>>,
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
            kept: Mutex::new(Some(Vec::new())),
            found: OnceLock::new(),
        }
    }

    /// An observer of the registry builder.
    pub(in crate::registry) fn permanent(observer: Box<dyn Observer>) -> Self {
        let entry = Self::new(observer);
        *lock(&entry.kept) = None;
        entry.live.set();
        entry
    }

    /// Removes the observer: no call begins any more.
    pub(super) fn remove(&self) {
        self.removed.set();
    }

    /// Calls the observer with its listing, and makes it live.
    pub(super) fn start(&self, registry: &Registry, found: Vec<Found>, listing: Listing) {
        let _ = self.found.set(found);
        // Its failures contain values of the user.
        let listing = Shielded::new(listing);
        shielded(|| self.observer.listing(registry, &listing));
        drop(listing);
        self.go_live(registry);
    }

    pub(super) fn receive(&self, registry: &Registry, happened: &Happened<'_>) {
        if !self.live.is_set() {
            let mut kept = lock(&self.kept);
            if let Some(kept) = &mut *kept {
                kept.push(Kept::new(happened));
                return;
            }
        }
        self.pass_on(registry, happened);
    }

    /// Calls the observer, unless it was removed or its listing shows the event.
    fn pass_on(&self, registry: &Registry, happened: &Happened<'_>) {
        let found = self.found.get().and_then(|found| found.get(happened.index.as_usize()));
        // A removal that happens before this check is seen.
        if self.removed.is_set() || found.is_some_and(|found| found.shows(happened)) {
            return;
        }
        let Happened { index, generation, elapsed, ref kind, .. } = *happened;
        let (store, kind) = (registry.store(), kind.clone());
        let (service, id) = (&store.service(index).name, store.id(index));
        let event = Event { service, id, generation, elapsed, kind };
        shielded(|| self.observer.event(registry, &event));
    }

    /// Passes on the events that were kept, until none is left. Events that happen during these
    /// calls are kept, too, so that they arrive in order.
    fn go_live(&self, registry: &Registry) {
        loop {
            let kept = {
                let mut kept = lock(&self.kept);
                let events = kept.take().filter(|events| !events.is_empty());
                match events {
                    Some(events) => {
                        *kept = Some(Vec::new());
                        events
                    }
                    None => {
                        self.live.set();
                        return;
                    }
                }
            };
            for kept in kept {
                kept.with(|happened| self.pass_on(registry, happened));
            }
        }
    }
}
