//! The switch of a reload, by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

use super::{Number, stalled::Stalled};
use crate::{
    AnyId, Generation, Instance, Reason, Registry, Running, ServiceId,
    error::ReplaceError,
    instance::{InstanceNumber, Origin},
    numbers::{ServiceIndex, UnixTime},
    store::{Adopter, Decision, Member, Outsiders, Prepared, Target, UsedEdges},
};

/// A reload by hand: its members are prepared one after the other, and then switched.
pub struct Reload {
    registry: Registry,
    decision: Arc<Decision>,
    members: Vec<Box<dyn Member>>,
    gaps: BTreeSet<ServiceIndex>,
    adopters: BTreeMap<ServiceIndex, Adopter>,
}

/// The result of a dependency whose present instance is not to be built from: not ready, condemned,
/// or in a switch.
#[derive(Debug)]
pub struct NotBuilt;

impl Reload {
    /// A reload without members.
    pub fn new(registry: &Registry) -> Self {
        let (registry, decision) = (registry.clone(), Arc::new(Decision::new()));
        let (gaps, adopters) = (BTreeSet::new(), BTreeMap::new());
        Self { registry, decision, members: Vec::new(), gaps, adopters }
    }

    /// Takes a service down at the switch.
    pub fn restart<T>(&mut self, id: ServiceId<T>) {
        self.gaps.insert(id.index());
    }

    /// Leaves the instance of a service as it is that is current at the first of these calls: it
    /// adopts the new instance of this member. Returns its generation.
    pub fn pass<T, D>(&mut self, id: ServiceId<T>, member: ServiceId<D>) -> u64 {
        let adopter = self.adopters.entry(id.index()).or_insert_with(|| {
            let generation = self.registry.store().slot(id.index()).state.load().generation();
            Adopter { generation, dependencies: BTreeSet::new() }
        });
        adopter.dependencies.insert(member.index());
        adopter.generation.get()
    }

    /// Returns the positions, in the order of registration, of the services that would fail with
    /// this one, because they depend on it.
    pub fn dependents<T>(&self, id: ServiceId<T>) -> Vec<usize> {
        let dependents = self.registry.store().followed_dependents(id.index());
        dependents.into_iter().map(ServiceIndex::as_usize).collect()
    }

    /// Returns the positions, in the order of registration, of the services that must be members of
    /// a reload of `root`: those of its closure that are ready.
    pub fn members(&self, root: impl Into<AnyId>) -> Vec<usize> {
        let store = self.registry.store();
        let closure = store.index(root.into()).map(|root| store.closure(&[root]));
        let ready = closure.unwrap_or_default().into_iter().filter(|&it| store.is_ready(it));
        ready.map(ServiceIndex::as_usize).collect()
    }

    /// Returns the instance of a service that was prepared, or else the current one.
    pub fn instance<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Result<Arc<Instance<T>>, NotBuilt> {
        let prepared = self.prepared(id.index());
        let prepared = prepared.and_then(|member| member.instance().downcast().ok());
        prepared.or_else(|| self.registry.store().read_to_build(id)).ok_or(NotBuilt)
    }

    /// Prepares the instance that follows `old`, built from the instances that `instance` returned
    /// for these dependencies after `old` was read. Returns it.
    pub fn prepare<T: Send + Sync + 'static>(
        &mut self,
        running: &Running<T>,
        old: Arc<Instance<T>>,
        value: T,
        built_from: &[(AnyId, Number)],
    ) -> Result<Arc<Instance<T>>, NotBuilt> {
        let store = self.registry.store();
        let edges = UsedEdges::default();
        for &(dependency, (generation, revision)) in built_from {
            let index = store.index(dependency).ok_or(NotBuilt)?;
            edges.receive(index, (Generation::new(generation), revision), false);
        }
        let built_from = edges.built_from(store);
        let origin = Origin { built_from, published_at: UnixTime::now() };
        let Running { id, tracker, .. } = running;
        let prepared = Prepared::new(*id, old, value, origin, edges, tracker, &self.decision);
        let new = prepared.instance().downcast().map_err(|_| NotBuilt)?;
        self.members.push(Box::new(prepared));
        Ok(new)
    }

    /// Calls a function in the middle of the switch, after the new instance of the member that was
    /// prepared last is installed, and before anything is decided.
    pub fn stall(&mut self, installed: impl Fn() + Send + Sync + 'static) {
        if let Some(member) = self.members.pop() {
            self.members.push(Box::new(Stalled { member, installed }));
        }
    }

    /// Executes the switch. Returns whether it is committed.
    pub fn commit(self) -> bool {
        let Self { registry, decision, members, gaps, adopters } = self;
        let (root, gaps, adopters) = (ServiceIndex::new(0), &gaps, &adopters);
        let outsiders = Outsiders { root, gaps, adopters };
        registry.store().switch(members, outsiders, &decision).result.is_ok()
    }

    fn prepared(&self, index: ServiceIndex) -> Option<&dyn Member> {
        let mut members = self.members.iter();
        members.find(|member| member.service() == index).map(|member| &**member)
    }
}

/// As `Live::replace`, of the publication that has begun with the instance of revision `first`:
/// refused if a reload has ended it. The new instance depends on what `old` was built from.
pub fn replace<T: Send + Sync + 'static>(
    running: &Running<T>,
    old: &Instance<T>,
    first: u64,
    value: T,
) -> Result<(), ReplaceError<T>> {
    running.replace_of(Some(first), value, Instance::origin(old).clone())
}

/// As the return of a body: fails the publication that has begun with the instance of revision
/// `first`, unless a reload has ended it. Returns whether this call has.
pub fn fail_publication<T: Send + Sync + 'static>(running: &Running<T>, first: u64) -> bool {
    let target = Target::publication(running.generation(), first);
    let reason = Reason::error(io::Error::other("returned"));
    running.registry.cascade(running.id.index(), target, reason).is_ok()
}

/// The generation and the revision of an instance.
pub fn number<T>(instance: &Instance<T>) -> Number {
    let InstanceNumber { generation, revision } = Instance::number(instance);
    (generation.get(), revision)
}
