//! The concurrent core: slots, names and topology together. No public face; `docs/design.md` has the protocol.

mod cascade;
mod dependents;
mod graph;
#[cfg(test)]
mod last_generation;
mod publish;
mod rows;
mod slot;
mod state;
mod topology;
mod wait;
mod walk;

use std::{any::type_name, collections::HashMap, sync::Arc, time::SystemTime};

pub(crate) use self::{
    cascade::{Fell, Target},
    graph::{Cycle, Edge, Use},
    publish::{Refused, Used},
    slot::Slot,
    state::Tag,
    wait::{WaitPoint, Waiter},
};
pub use self::{graph::DependencyKind, state::Phase};

use self::{
    dependents::List,
    rows::{Room, Row},
    state::second_look_fence,
    topology::{Slots, Topology},
};
use crate::{
    failure::{Failure, Reason},
    service::{AnyId, Instance, Name, ServiceId},
    sync::{
        self, ArcCell, Count, Flag, Held, Mutex, Shielded,
        slab::{NoSlab, Slab},
    },
};

/// Why something of the store ended: kept where it began.
pub(crate) struct Cause {
    /// The generation that ended, or in which the attempt was made.
    pub(crate) generation: u64,
    pub(crate) reason: Reason,
    pub(crate) at: SystemTime,
}

impl Cause {
    /// Leaves a cause where others find it, unless that of a later generation is there.
    ///
    /// Gives what it has taken out of the place. A reason is a user's value, with a user's `Drop`: it must not
    /// be dropped while a cascade is under way.
    fn leave(
        place: &ArcCell<Self>,
        generation: u64,
        reason: Shielded<Reason>,
    ) -> Vec<Shielded<Found>> {
        let reason = reason.into_inner();
        let cause = Arc::new(Self { generation, reason, at: SystemTime::now() });
        // Ours, too: where a later one is there, or takes its place at once, this is its last holder.
        let mut found = Vec::with_capacity(2);
        found.push(Shielded::new(Some(Arc::clone(&cause))));
        loop {
            let current = Shielded::new(place.load_full());
            let later = current.as_ref().is_some_and(|current| current.generation > generation);
            let done = later || place.replace(&current, Some(Arc::clone(&cause))).is_ok();
            if current.is_some() {
                found.push(current);
            }
            if done {
                return found;
            }
        }
    }
}

/// What was in the place of a cause.
type Found = Option<Arc<Cause>>;

/// What is known of a service beside its slot. Written rarely.
pub(crate) struct Service {
    pub(crate) name: Name,
    pub(crate) type_name: &'static str,
    /// Who waits for a change of its state.
    pub(crate) changed: WaitPoint,
    /// Somebody has the provider's role.
    pub(crate) provided: Flag,
    /// It comes up no more.
    pub(crate) stopped: Flag,
    /// The last cascade that began here.
    cause: Shielded<ArcCell<Cause>>,
    /// The last attempt that was given up. Kept apart from `cause`, since an attempt may end while a cascade
    /// begins, and must not speak for it.
    given_up: Shielded<ArcCell<Cause>>,
    /// How many edges from here were discovered, also those declared since the last publication; written under
    /// the topology's lock.
    discovered: Count,
    /// How many wait for it to be ready.
    pub(crate) waiting: Count,
    row: Row,
}

pub(crate) struct Store {
    slab: Slab<Slot, Service>,
    topology: Topology,
    /// For all rows together.
    room: Room,
    names: Mutex<HashMap<Name, u32>>,
    closed: Flag,
}

// One cache line a service, and no two services on one.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(Slab::<Slot, Service>::ENTRY_BYTES == 64);

/// Why a name was not registered.
#[derive(Debug)]
pub(crate) enum NotRegistered {
    OtherType(&'static str),
    Full,
}

impl Store {
    pub(crate) fn new(capacity: usize) -> Result<Self, NoSlab> {
        if capacity > List::NUMBERS as usize {
            return Err(NoSlab::Capacity);
        }
        Ok(Self {
            slab: Slab::new(capacity, Slot::new)?,
            topology: Topology::new(),
            room: Room::new(capacity),
            names: Mutex::new(HashMap::new()),
            closed: Flag::new(),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    // Names and ids.

    /// The id for the name, and whether it is new.
    pub(crate) fn register<T: Send + Sync + 'static>(
        &self,
        name: &str,
    ) -> Result<(ServiceId<T>, bool), NotRegistered> {
        let mut names = sync::lock(&self.names);
        if let Some(&index) = names.get(name) {
            let key = self.slab.key::<Instance<T>>(index);
            return match key {
                Some(key) => Ok((ServiceId { key }, false)),
                None => Err(NotRegistered::OtherType(self.service(index).type_name)),
            };
        }
        if names.len() == self.capacity() {
            return Err(NotRegistered::Full);
        }
        let index = self.topology.add_service();
        let service = Service {
            name: Name::new(name),
            type_name: type_name::<T>(),
            changed: WaitPoint::new(),
            provided: Flag::new(),
            stopped: Flag::new(),
            cause: Shielded::new(ArcCell::empty()),
            given_up: Shielded::new(ArcCell::empty()),
            discovered: Count::new(),
            waiting: Count::new(),
            row: Row::new(),
        };
        names.insert(service.name.clone(), index);
        let key = self.slab.register::<Instance<T>>(index, service);
        let key = key.expect("services are numbered as they come, below the capacity");
        Ok((ServiceId { key }, true))
    }

    pub(crate) fn find(&self, name: &str) -> Option<AnyId> {
        let index = sync::lock(&self.names).get(name).copied();
        index.map(|index| self.id(index))
    }

    pub(crate) fn typed<T: 'static>(&self, id: AnyId) -> Option<ServiceId<T>> {
        let index = self.index(id)?;
        self.slab.key(index).map(|key| ServiceId { key })
    }

    pub(crate) fn id(&self, index: u32) -> AnyId {
        AnyId { registry: self.slab.number(), index }
    }

    /// `None` for an id of another registry.
    pub(crate) fn index(&self, id: AnyId) -> Option<u32> {
        (id.registry == self.slab.number()).then_some(id.index)
    }

    /// How many there are. Whoever asks sees all that was registered before.
    pub(crate) fn len(&self) -> u32 {
        sync::lock(&self.names).len() as u32
    }

    pub(crate) fn service(&self, index: u32) -> &Service {
        self.slab.meta(index).expect("an index is given out after its service is registered")
    }

    pub(crate) fn name(&self, index: u32) -> Name {
        self.service(index).name.clone()
    }

    pub(crate) fn slot(&self, index: u32) -> &Slot {
        self.slab.slot(index)
    }

    pub(crate) fn is_ready(&self, index: u32) -> bool {
        self.slot(index).state.load().phase() == Phase::Ready
    }

    // Reading.

    #[inline]
    pub(crate) fn open<T>(&self, id: ServiceId<T>) -> Option<(&ArcCell<Instance<T>>, &Slot)> {
        self.slab.open(id.key)
    }

    // Edges.

    pub(crate) fn declare(&self, dependent: u32, dependency: u32) -> Result<(), Cycle> {
        self.topology.declare(self, dependent, dependency)
    }

    /// For an attempt of the dependent: makes the edge known. True where the attempt had not used it before.
    pub(crate) fn discover(
        &self,
        edge: Edge,
        generation: u64,
        to_start: bool,
    ) -> Result<bool, Cycle> {
        self.topology.discover(self, edge, generation, to_start)
    }

    /// The current instance for an attempt to build on, once its edge is known: one that no cascade is on its
    /// way to. `None` means that there will be another state.
    pub(crate) fn read_to_build<T>(&self, id: ServiceId<T>) -> Option<Arc<Instance<T>>> {
        let (cell, slot) = self.open(id)?;
        second_look_fence();
        let instance = Shielded::new(cell.load_full()?);
        let current = slot.state.load() == Tag::ready(instance.generation);
        let usable = current && slot.condemned.load() == instance.generation;
        usable.then(|| instance.into_inner())
    }

    pub(crate) fn dependencies(&self, index: u32) -> Vec<(Edge, Use)> {
        self.topology.read(|graph| graph.dependencies(index))
    }

    pub(crate) fn dependents(&self, index: u32) -> Vec<Edge> {
        self.topology.read(|graph| graph.dependents(index))
    }

    /// The way to what keeps a service from being ready: one that it depends on and that is not, one that this depends
    /// on, and so on, for so many steps at the most: a listing is to take no longer the deeper the graph is. Empty where
    /// it is ready, or nothing that it depends on keeps it.
    pub(crate) fn blocked_by(&self, index: u32) -> Vec<u32> {
        const STEPS: usize = 64;
        let mut way = Vec::new();
        if self.is_ready(index) {
            return way;
        }
        self.topology.read(|graph| {
            let mut last = index;
            while way.len() < STEPS {
                let edges = graph.dependencies(last).into_iter().map(|(edge, _)| edge);
                // What is only watched keeps nobody.
                let below = edges.filter(|edge| !edge.soft).map(|edge| edge.dependency);
                // The one that was registered first: the same each time that it is asked.
                let Some(next) = below.filter(|&index| !self.is_ready(index)).min() else { return };
                way.push(next);
                last = next;
            }
        });
        way
    }

    // Causes.

    /// What took the service down in `generation`, as far as the last cascade that reached it can tell.
    pub(crate) fn failure(&self, index: u32, generation: u64) -> Failure {
        let root = self.slot(index).failed_by.get();
        let cause = Shielded::new(self.service(root).cause.load());
        self.describe(index, generation, root, &cause)
    }

    /// The newest there is to tell of a service: an attempt given up since it last went down, or that.
    pub(crate) fn last_failure(&self, index: u32) -> Option<Failure> {
        let generation = self.slot(index).state.load().generation();
        let given_up = Shielded::new(self.service(index).given_up.load());
        if given_up.as_ref().is_some_and(|cause| cause.generation == generation) {
            return Some(self.describe(index, generation, index, &given_up));
        }
        (generation > 0).then(|| self.failure(index, generation - 1))
    }

    fn describe(&self, index: u32, generation: u64, root: u32, cause: &Held<Cause>) -> Failure {
        let (root_generation, reason, at) = match &**cause {
            Some(cause) => (cause.generation, cause.reason.clone(), cause.at),
            // Not reached: a cascade leaves its cause before it raises anything.
            None => (generation, Reason::error("unknown").into_inner(), SystemTime::now()),
        };
        Failure {
            service: self.name(index),
            generation,
            root: self.name(root),
            root_generation,
            reason,
            at,
        }
    }

    // Closing.

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_up()
    }

    /// True for the call that closed it. Wakes whoever waits.
    pub(crate) fn close(&self) -> bool {
        if !self.closed.raise() {
            return false;
        }
        (0..self.len()).for_each(|index| self.wake(index));
        true
    }

    /// Has all who wait at a slot look again, for something that is not in it. A waiter that announces itself after
    /// this sees what was done before it.
    pub(crate) fn wake(&self, index: u32) {
        if self.slot(index).state.dismiss() {
            self.service(index).changed.wake_all();
        }
    }
}

impl Slots for Store {
    fn slot(&self, service: u32) -> &Slot {
        self.slab.slot(service)
    }

    fn discovered(&self, service: u32) -> &Count {
        &self.service(service).discovered
    }
}
