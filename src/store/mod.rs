//! The concurrent core of the crate: the slots, the names and the topology of one registry.
//!
//! Nothing here is public, apart from two enums and one type that a sealed trait names.
//! `docs/design.md` describes the protocol and contains the proofs.
//!
//! # Invariants
//!
//! The comments of this module refer to the invariants by these names. An edge is written
//! dependent `->` dependency.
//!
//! - **I1**, dependents fail first: after a thread has observed the failure of an instance, no read
//!   of this thread returns an instance that was built from the failed one, directly or through
//!   other instances. (Cascades take dependents down before dependencies: `cascade.rs`.)
//! - **I2**, no failure is missed: if no operation is in progress, no ready service has an instance
//!   that was built from an instance that has failed. (A cascade condemns a slot before it reads
//!   the list of its dependents again, and an attempt publishes its edge before it reads
//!   `condemned`: `cascade.rs` and `fence_before_check`.)
//! - **F**, fenced publication: a value that was built under a generation is never published after
//!   that generation has ended. The caller gets the value instead. (A publication is a
//!   compare-and-swap of the state: `publish.rs`.)
//! - **W**, no lost wake-up: if a condition holds from some point in time on, every waiter for this
//!   condition is woken after that point. (A waiter sets the waiter bit before it checks its
//!   condition, and a transition reads the bit: `state.rs` and `wait_point.rs`.)
//! - **K**, typed cells: a typed id refers to a cell that was created for exactly its type. It is
//!   defined in `sync/slab.rs`, next to the unsafe code that needs it.
//!
//! Three axioms hold for each slot:
//!
//! - **A1**: the generation of `state` is at most `condemned`. An attempt begins at a slot, or uses
//!   the instance of a dependency, only if it finds the two equal.
//! - **A2**: a read returns an instance only if there is an instant during the call at which the
//!   instance was in its slot and its tag was equal to `state`.
//! - **A3**: the cascade that increments `condemned` ensures that `state` reaches the new
//!   generation.
//!
//! I1 and I2 are stated for hard edges, and F for hard and start-only edges.

mod cascade;
#[cfg(feature = "supervise")]
mod decision;
mod dependents;
mod edges;
mod end_mark;
mod erased;
mod fail_all;
mod graph;
#[cfg(feature = "supervise")]
mod groups;
#[cfg(feature = "supervise")]
mod hand_over;
mod history;
mod inspection;
#[cfg(test)]
mod last_generation;
mod observed;
mod precomputed;
mod publish;
mod quiet;
mod role;
mod slot;
mod state;
mod status;
mod stuck_log;
#[cfg(feature = "supervise")]
mod switch;
mod topology;
#[cfg_attr(not(feature = "supervise"), path = "tracker_disabled.rs")]
mod tracker;
#[cfg_attr(not(feature = "supervise"), path = "undecided_disabled.rs")]
mod undecided;
mod used_edges;
mod wait_point;
mod walk;

use std::{any::type_name, collections::HashMap, sync::Arc};

#[cfg(all(feature = "supervise", any(test, loom)))]
pub(crate) use self::hand_over::Claimed;
#[cfg(not(feature = "supervise"))]
use self::undecided::Decision;
pub(crate) use self::{
    cascade::{CascadeResult, FailedSlot, NotFailed, Target},
    end_mark::EndMark,
    graph::{CyclePath, Edge, EdgeSource},
    history::Exactly,
    inspection::{Inspected, InspectedEdge, Inspection, LONGEST_PATH},
    observed::{Listed, Observed},
    publish::Refused,
    role::RoleRefused,
    slot::Slot,
    state::{InstanceTag, Replacements, Tag},
    status::Awaited,
    stuck_log::EntryNumber,
    topology::{Declaration, NotDeclared},
    tracker::InstanceTracker,
    undecided::resolve,
    used_edges::{Received, UsedEdges},
    wait_point::{WaitPoint, Waiter},
};
#[cfg(feature = "supervise")]
pub(crate) use self::{
    decision::Decision,
    edges::FoundDependent,
    hand_over::{HandOver, HandedOver, Next},
    history::AnyInstance,
    switch::{Adopter, Member, NotSwitched, Outsiders, Prepared, Switch},
    undecided::SwitchLink,
    used_edges::Given,
};
pub use self::{graph::DependencyKind, state::Phase};

use self::{
    dependents::List,
    end_mark::EndMarkCell,
    erased::Operations,
    history::{Cause, History, SomeCause},
    precomputed::ClosureCell,
    quiet::{Begun, QuietSince},
    role::Role,
    state::{Abandoned, fence_before_check},
    status::StatusData,
    stuck_log::StuckLog,
    topology::{Discovered, Slots, Topology},
};
use crate::{
    error::WaitEnded,
    failure::{Failure, Reason},
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    service::{AnyId, ServiceId, ServiceName},
    sync::{
        self, ArcCell, Budget, Count, Flag, Mutex,
        slab::{NoSlab, Slab},
    },
};

/// The data of a service that is rarely written or read, and therefore not in its slot.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) type_name: &'static str,
    /// The waiters for a change of the state.
    pub(crate) changed: WaitPoint,
    pub(crate) role: Role,
    pub(crate) end_mark: EndMarkCell,
    /// The program is ready without this service.
    pub(crate) optional: Flag,
    history: History,
    abandoned: Abandoned,
    operations: &'static Operations,
    /// The number of discovered edges of this service to its dependencies, including those that
    /// were declared since its last publication, and of declared ones that attempts made hard.
    /// Written under the lock of the topology.
    discovered: Count,
    /// The number of waiters that wait until this service is ready.
    pub(crate) waiters: Count,
    /// The number of waiters that wait for any change of the state: they are notified of an attempt
    /// that begins.
    pub(crate) change_waiters: Count,
    status: StatusData,
    /// An edge from this service was declared.
    #[cfg(feature = "supervise")]
    declares: Flag,
    /// The number of the last grace period that was declared.
    #[cfg(feature = "supervise")]
    graces_declared: Count,
    closure: ClosureCell,
    quiet_since: QuietSince,
}

/// All state of one registry. It is `pub` because the sealed trait of waits names it. Its module is
/// private.
pub struct Store {
    slab: Slab<Slot, Service>,
    topology: Topology,
    /// The limit for all precomputed closures together.
    budget: Arc<Budget>,
    begun: Begun,
    /// The last activity at which a service was marked as quiet.
    last_quiet: QuietSince,
    names: Mutex<HashMap<ServiceName, ServiceIndex>>,
    /// One switch at a time.
    #[cfg(feature = "supervise")]
    switching: Mutex<()>,
    closed: Flag,
    pub(crate) observed: Observed,
    pub(crate) stuck: StuckLog,
    /// Since start-up was complete, a check has found all required services ready.
    pub(crate) has_been_ready: Flag,
}

// A slot fills one cache line, and no cache line contains two slots.
#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<sync::slab::Entry<Slot, Service>>() == 64);

/// The reason why a name was not registered.
#[derive(Debug)]
pub(crate) enum NotRegistered {
    /// The name is registered with another type, which is named here.
    OtherType(&'static str),
    /// The registry has as many services as it has slots.
    Full,
}

impl Store {
    pub(crate) fn new(capacity: usize) -> Result<Self, NoSlab> {
        // Two values of an index have a meaning of their own in the lists of dependents.
        if capacity > List::MAX_SERVICES as usize {
            return Err(NoSlab::Capacity);
        }
        Ok(Self {
            slab: Slab::new(capacity, Slot::new)?,
            topology: Topology::new(),
            budget: topology::budget(capacity),
            begun: Begun::new(),
            last_quiet: QuietSince::new(),
            names: Mutex::new(HashMap::new()),
            #[cfg(feature = "supervise")]
            switching: Mutex::new(()),
            closed: Flag::new(),
            observed: Observed::new(),
            stuck: StuckLog::new(),
            has_been_ready: Flag::new(),
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    // Names and ids.

    /// Returns the id of the service with this name, and whether this call registered it.
    pub(crate) fn register<T: Send + Sync + 'static>(
        &self,
        name: &str,
    ) -> Result<(ServiceId<T>, bool), NotRegistered> {
        let mut names = sync::lock(&self.names);
        if let Some(&index) = names.get(name) {
            // Registering a name again with the same type returns the same id.
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
            name: ServiceName::new(name),
            type_name: type_name::<T>(),
            changed: WaitPoint::new(),
            role: Role::new(),
            end_mark: EndMarkCell::new(),
            optional: Flag::new(),
            history: History::new(),
            abandoned: Abandoned::new(),
            operations: Operations::of::<T>(),
            discovered: Count::new(),
            waiters: Count::new(),
            change_waiters: Count::new(),
            status: StatusData::new(),
            #[cfg(feature = "supervise")]
            declares: Flag::new(),
            #[cfg(feature = "supervise")]
            graces_declared: Count::new(),
            closure: ClosureCell::new(),
            quiet_since: QuietSince::new(),
        };
        names.insert(service.name.clone(), index);
        let key = self.slab.register::<Instance<T>>(index, service);
        let key = key.expect("a new index is unregistered and below the capacity");
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

    pub(crate) fn id(&self, index: ServiceIndex) -> AnyId {
        AnyId { registry: self.slab.number(), index }
    }

    /// Returns the index of the service, or `None` for an id of another registry.
    pub(crate) fn index(&self, id: AnyId) -> Option<ServiceIndex> {
        (id.registry == self.slab.number()).then_some(id.index)
    }

    /// Returns the number of services. Every registration that happens before the call is counted.
    pub(crate) fn len(&self) -> u32 {
        sync::lock(&self.names).len() as u32
    }

    /// Iterates over the indices of all registered services.
    pub(crate) fn services(&self) -> impl DoubleEndedIterator<Item = ServiceIndex> {
        ServiceIndex::range(0..self.len())
    }

    pub(crate) fn service(&self, index: ServiceIndex) -> &Service {
        self.slab.meta(index).expect("an index is handed out only after its service is registered")
    }

    pub(crate) fn name(&self, index: ServiceIndex) -> ServiceName {
        self.service(index).name.clone()
    }

    pub(crate) fn slot(&self, index: ServiceIndex) -> &Slot {
        self.slab.slot(index)
    }

    /// As `slot`, for a loop over many services.
    pub(super) fn slots<'a>(&'a self) -> impl Fn(ServiceIndex) -> &'a Slot {
        self.slab.slots()
    }

    pub(crate) fn is_ready(&self, index: ServiceIndex) -> bool {
        self.slot(index).state.load().phase() == Phase::Ready
    }

    // Reading.

    /// Returns the cell and the slot of a service, or `None` for an id of another registry.
    #[inline]
    pub(crate) fn open<T>(&self, id: ServiceId<T>) -> Option<(&ArcCell<Instance<T>>, &Slot)> {
        self.slab.open(id.key)
    }

    // Causes.

    /// Returns the failure that ended `generation` of the service. It names the last cascade that
    /// reached the service, and the last cause that was stored at the root of that cascade.
    pub(crate) fn failure(&self, index: ServiceIndex, generation: Generation) -> Failure {
        // The thread that has ended the attempt is about to store the root and the cause.
        #[cfg(feature = "supervise")]
        if self.slot(index).state.load() == Tag::void(generation) {
            self.service(index).history.wait_for_change();
        }
        let root = self.slot(index).failed_by.get();
        // A cascade that began at a service that was down has not ended a generation of the service
        // itself, only those of its dependents.
        let cause = self.service(root).history.cascade(root == index);
        self.describe(index, generation, root, cause)
    }

    /// A failure of the service itself for this reason, which has not happened to its slot.
    #[cfg(feature = "supervise")]
    pub(crate) fn failure_for(
        &self,
        index: ServiceIndex,
        generation: Generation,
        reason: sync::Shielded<Reason>,
    ) -> Failure {
        self.describe(index, generation, index, Some(Cause::new(generation, reason)))
    }

    /// Returns whether a reload has ended this publication, and its generation has not ended.
    #[cfg(feature = "supervise")]
    pub(crate) fn is_publication_over(
        &self,
        index: ServiceIndex,
        generation: Generation,
        publication: u64,
    ) -> bool {
        self.service(index).history.is_over(generation, Some(publication))
    }

    /// As `failure`, or, if a reload has ended the publication that is named by the revision of its
    /// first instance, a failure that says this.
    pub(crate) fn end_of_publication(
        &self,
        index: ServiceIndex,
        generation: Generation,
        publication: Option<u64>,
    ) -> Failure {
        #[cfg(feature = "supervise")]
        if self.service(index).history.is_over(generation, publication) {
            let reason = sync::Shielded::new(Reason::Reloaded { root: self.name(index) });
            return self.failure_for(index, generation, reason);
        }
        let _ = publication;
        self.failure(index, generation)
    }

    /// Returns the last failed attempt of the present generation if there is one, else the failure
    /// that ended the previous generation. Returns `None` for a service that has never failed.
    pub(crate) fn last_failure(&self, index: ServiceIndex) -> Option<Failure> {
        let generation = self.slot(index).state.load().generation();
        // A failed attempt of an earlier generation is older than the cascade that ended it.
        match self.service(index).history.attempt(generation) {
            Some(attempt) => Some(self.describe(index, generation, index, Some(attempt))),
            None => Some(self.failure(index, generation.previous()?)),
        }
    }

    fn describe(
        &self,
        index: ServiceIndex,
        generation: Generation,
        root: ServiceIndex,
        cause: SomeCause,
    ) -> Failure {
        let Cause { generation: root_generation, reason, at } = match cause {
            Some(cause) => cause.into_inner(),
            // Unreachable: a cascade stores its cause before it takes a slot down.
            None => Cause::new(generation, Reason::error("unknown")).into_inner(),
        };
        let (service, root) = (self.name(index), self.name(root));
        Failure { service, generation, root, root_generation, reason, at }
    }

    // Closing.

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_set()
    }

    /// Returns whether a shutdown has stopped the service for good: it is marked, and it is down.
    /// An attempt that begins after the mark ends at once.
    ///
    /// The mark is set before the slot is woken, and each failure wakes its slot. So no wait misses
    /// that (W).
    pub(crate) fn has_stopped(&self, index: ServiceIndex) -> bool {
        let is_marked = self.service(index).end_mark.is_final();
        is_marked && self.slot(index).state.load().phase() == Phase::Down
    }

    /// Returns the error of a wait for a service that cannot end otherwise: the registry is closed,
    /// or a shutdown has stopped the service.
    pub(crate) fn end_of_wait<E: WaitEnded>(&self, index: ServiceIndex) -> Option<E> {
        if self.is_closed() {
            return Some(E::closed(self.name(index)));
        }
        self.has_stopped(index).then(|| E::stopped(self.name(index)))
    }

    /// Closes the registry and wakes all waiters. Returns whether this call closed it.
    pub(crate) fn close(&self) -> bool {
        // The flag is set before any waiter is woken: a waiter checks it after its wake-up (W).
        if !self.closed.set() {
            return false;
        }
        self.services().for_each(|index| self.wake(index));
        true
    }

    /// Wakes all waiters of a slot, so that they check again something that is not stored in the
    /// slot (`closed`, a drain). A waiter that sets the waiter bit after this call sees what was
    /// written before the call.
    pub(crate) fn wake(&self, index: ServiceIndex) {
        if self.slot(index).state.clear_waiters() {
            self.wake_after_transition(index);
        }
    }

    /// Wakes all waiters of a slot. The caller has cleared the waiter bit, by a transition or by
    /// `clear_waiters`.
    fn wake_after_transition(&self, index: ServiceIndex) {
        let service = self.service(index);
        service.changed.wake_all();
        // The bit may have been set by a provider that has let go of its value.
        if let Some(generation) = service.abandoned.get() {
            (service.operations.remove)(self, index, generation);
        }
    }
}

impl Slots for Store {
    fn slot(&self, service: ServiceIndex) -> &Slot {
        self.slab.slot(service)
    }

    fn discovered(&self, service: ServiceIndex) -> &Count {
        &self.service(service).discovered
    }

    fn role(&self, service: ServiceIndex) -> &Role {
        &self.service(service).role
    }

    fn closure(&self, service: ServiceIndex) -> &ClosureCell {
        &self.service(service).closure
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    #[cfg(feature = "supervise")]
    fn is_switched(&self, service: ServiceIndex) -> bool {
        self.is_replaced_now(service) && self.service(service).history.is_switched()
    }

    #[cfg(feature = "supervise")]
    fn decide_switch(&self, service: ServiceIndex, within: Option<&Decision>) -> bool {
        self.is_replaced_now(service) && self.service(service).history.decide_switch(within)
    }
}

#[cfg(feature = "supervise")]
impl Store {
    /// Returns whether a replacement or a switch of a service is in progress. Called after the
    /// fence of a cascade, it finds a switch whose fence came before.
    fn is_replaced_now(&self, service: ServiceIndex) -> bool {
        self.slot(service).replacements.completed().is_none()
    }
}
