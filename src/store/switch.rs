//! The switch of a reload: new instances of several services, its *members*, become current at one
//! instant, or none of them ever does. `docs/design.md` ("Switching") has the protocol, and the
//! proof.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use super::{
    CyclePath, Discovered, Edge, Phase, Received, Store,
    cascade::FailedSlot,
    decision::{Decided, Decision},
    history::{AnyInstance, Cause, OldCauses},
    state::{Tag, Transition, fence_before_check},
    tracker::InstanceTracker,
    undecided::SwitchLink,
    used_edges::UsedEdges,
    walk::is_followed,
};
use crate::{
    failure::Reason,
    instance::{Instance, InstanceNumber, Origin},
    numbers::{Generation, ServiceIndex},
    service::ServiceId,
    sync::{RemovedTogether, Shielded, lock, pin},
};

/// A new instance of a member, which no reader has found.
pub(crate) struct Prepared<T> {
    id: ServiceId<T>,
    old: Arc<Instance<T>>,
    new: Arc<Instance<T>>,
    edges: UsedEdges,
    begins: bool,
}

/// A prepared instance of any type.
pub(crate) trait Member: Send + Sync {
    fn service(&self) -> ServiceIndex;

    /// Returns the new instance, an `Arc<Instance<T>>`.
    fn instance(&self) -> AnyInstance;

    /// Returns what identifies the new instance. Its generation is that of the old one.
    fn number(&self) -> InstanceNumber;

    /// Returns what identifies the old instance.
    fn old_number(&self) -> InstanceNumber;

    /// Returns the edges over which the new instance was built.
    fn edges(&self) -> &UsedEdges;

    /// Returns whether the new instance begins a publication: what belongs to the old instance, as
    /// its body, changes it no more.
    fn begins(&self) -> bool;

    /// Puts the new instance into the cell, if the old one is there. Returns whether it was.
    fn install(&self, store: &Store, removed: &mut RemovedTogether) -> bool;

    /// Puts the old instance back into the cell, if the new one is there.
    fn undo(&self, store: &Store, removed: &mut RemovedTogether);

    /// Called after the commit. Claims the value for the receiver of the service, and sets the
    /// tag of the instance.
    fn decide(&self);
}

/// Why a switch has not taken place. Nothing of it was visible.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotSwitched {
    /// This member has failed, or its value was replaced.
    Changed(ServiceIndex),
    /// This service is ready, depends on a member, and is none.
    Joined(ServiceIndex),
    /// The dependency from which a member was built has failed, or its value was replaced.
    Dependency { member: ServiceIndex, dependency: ServiceIndex },
    /// The dependency from which a member was built would go down at the switch.
    NeedsGap { member: ServiceIndex, dependency: ServiceIndex },
    /// An edge of a new instance would close a cycle.
    Cycle(CyclePath),
}

/// The result of a switch.
pub(crate) struct Switch {
    pub(crate) result: Result<(), NotSwitched>,
    /// The services with a gap, and the attempts that had received an old instance and were
    /// invalidated.
    pub(crate) failed: Vec<FailedSlot>,
    /// The members. Each has a reference to the old instance.
    pub(crate) members: Vec<Box<dyn Member>>,
}

impl<T: Send + Sync + 'static> Prepared<T> {
    /// Creates the new instance from a value that was built over `edges`. `old` is the instance
    /// that it replaces if the switch is committed.
    pub(crate) fn new(
        id: ServiceId<T>,
        old: Arc<Instance<T>>,
        value: T,
        origin: Origin,
        edges: UsedEdges,
        tracker: &InstanceTracker<T>,
        decision: &Arc<Decision>,
    ) -> Self {
        let InstanceNumber { generation, revision } = Instance::number(&old);
        let number = InstanceNumber { generation, revision: revision + 1 };
        let link = SwitchLink::new(decision, &old);
        let notice = tracker.drop_notice();
        let new = Arc::new(Instance::undecided(number, id.into(), origin, link, value, notice));
        // Claimed at the commit: a value that is refused is never handed over.
        tracker.record(&new);
        Self { id, old, new, edges, begins: true }
    }

    /// The new instance continues the publication of the old one, as a replacement does.
    pub(crate) fn continues(self) -> Self {
        Self { begins: false, ..self }
    }

    /// Returns the new instance.
    pub(crate) fn new_instance(&self) -> Arc<Instance<T>> {
        Arc::clone(&self.new)
    }
}

impl<T: Send + Sync + 'static> Member for Prepared<T> {
    fn service(&self) -> ServiceIndex {
        self.id.index()
    }

    fn instance(&self) -> AnyInstance {
        Arc::clone(&self.new) as _
    }

    fn number(&self) -> InstanceNumber {
        Instance::number(&self.new)
    }

    fn old_number(&self) -> InstanceNumber {
        Instance::number(&self.old)
    }

    fn edges(&self) -> &UsedEdges {
        &self.edges
    }

    fn begins(&self) -> bool {
        self.begins
    }

    fn install(&self, store: &Store, removed: &mut RemovedTogether) -> bool {
        let Some((cell, _)) = store.open(self.id) else { return false };
        let (old, new) = (Arc::clone(&self.old), Arc::clone(&self.new));
        cell.replace_among(&Some(old), Some(new), removed).is_ok()
    }

    fn undo(&self, store: &Store, removed: &mut RemovedTogether) {
        if let Some((cell, _)) = store.open(self.id) {
            // Only if it is there: a replacement or a later publication may have covered it.
            let (old, new) = (Arc::clone(&self.old), Arc::clone(&self.new));
            let _ = cell.replace_among(&Some(new), Some(old), removed);
        }
    }

    fn decide(&self) {
        Instance::claim(&self.new);
        Instance::decide(&self.new);
    }
}

/// The services that depend on members, and are none, although they are ready.
pub(crate) struct Outsiders<'a> {
    /// What the user has asked to reload.
    pub(crate) root: ServiceIndex,
    /// Those with a gap: the switch takes them down.
    pub(crate) gaps: &'a BTreeSet<ServiceIndex>,
    pub(crate) adopters: &'a BTreeMap<ServiceIndex, Adopter>,
}

/// A service that keeps old instances until it has adopted the new ones.
#[derive(Clone)]
pub(crate) struct Adopter {
    /// The generation that does.
    pub(crate) generation: Generation,
    /// The members whose old instances these are.
    pub(crate) dependencies: BTreeSet<ServiceIndex>,
}

impl Adopter {
    /// Returns whether its instance of this generation keeps the old instance of a member.
    fn keeps(&self, generation: Generation, member: ServiceIndex) -> bool {
        self.generation == generation && self.dependencies.contains(&member)
    }
}

/// An edge over which a new instance was built.
pub(super) struct UsedEdge {
    pub(super) dependency: ServiceIndex,
    pub(super) start_only: bool,
    pub(super) received: Received,
}

/// What a commit leaves to be done after its lock is released.
#[derive(Default)]
struct Deferred {
    failed: Vec<FailedSlot>,
    notified: Vec<(ServiceIndex, Transition)>,
    /// Those that had waiters when they were taken down, dependents first.
    woken: Vec<ServiceIndex>,
    causes: Vec<OldCauses>,
    /// What was in the cells of members. Its readers are looked for once, for all members.
    removed: RemovedTogether,
}

impl Store {
    /// Returns the roots and all services that a cascade from them would take down now, each after
    /// its dependencies.
    pub(crate) fn closure(&self, roots: &[ServiceIndex]) -> Vec<ServiceIndex> {
        if roots.is_empty() {
            return Vec::new();
        }
        let walk = self.walk(roots, &pin());
        walk.members.into_iter().map(|member| member.service).collect()
    }

    /// Returns the dependents of a service that a cascade would follow now.
    pub(crate) fn followed_dependents(&self, service: ServiceIndex) -> Vec<ServiceIndex> {
        let pin = pin();
        let list = self.slot(service).dependents().iter(&pin);
        let followed = list.filter(|&entry| is_followed(self, entry));
        followed.map(|entry| entry.dependent).collect()
    }

    /// Makes the new instances of all members current at one instant, if each of them still
    /// replaces the instance that is current, and if no other ready service depends on one of them.
    /// The services with a gap, of which none is a member, are taken down just before that.
    ///
    /// Blocking: one switch at a time, under a lock that nothing else takes. Readers, cascades and
    /// replacements never wait for it; an attempt that needs an instance of a member does. At the
    /// end it wakes the waiters of the members.
    pub(crate) fn switch(
        &self,
        mut members: Vec<Box<dyn Member>>,
        outsiders: Outsiders<'_>,
        decision: &Arc<Decision>,
    ) -> Switch {
        // So of two switches over the same members, the second one fails at its first install.
        members.sort_unstable_by_key(|member| member.service());
        let mut deferred = Deferred::default();
        let result = {
            let _switching = lock(&self.switching);
            self.switch_members(&members, &outsiders, decision, &mut deferred)
        };
        drop(deferred.removed);
        for (index, transition) in deferred.notified {
            self.notify(index, transition);
        }
        for &service in deferred.woken.iter().rev() {
            self.wake_after_transition(service);
        }
        // Also after an abort: an attempt waits as long as the switch is pending.
        members.iter().for_each(|member| self.wake(member.service()));
        Switch { result, failed: deferred.failed, members }
    }

    /// As `switch`, under its lock. Runs no user code.
    fn switch_members(
        &self,
        members: &[Box<dyn Member>],
        outsiders: &Outsiders<'_>,
        decision: &Arc<Decision>,
        deferred: &mut Deferred,
    ) -> Result<(), NotSwitched> {
        // Step 0. Before the fence: a cascade that condemns a dependency after the check finds
        // the edge (I1).
        let edges = self.make_edges_known(members, outsiders);
        // Step 1, before the decision, at all members: a cached reader that has found one of the
        // new instances reloads all others (R1).
        let slots = members.iter().map(|member| self.slot(member.service()));
        let replacing: Vec<_> = slots.map(|slot| slot.replacements.begin()).collect();
        let mut installed = 0;
        let result = edges.and_then(|edges| {
            // Step 2.
            for member in members {
                let history = &self.service(member.service()).history;
                let begun = history.begin_switch(member.old_number(), decision, member.begins());
                if !begun || !member.install(self, &mut deferred.removed) {
                    return Err(NotSwitched::Changed(member.service()));
                }
                installed += 1;
            }
            // Step 3. The other sides of the fence: an attempt publishes its edge, and then reads
            // the value; a cascade condemns, and then reads the lists. Each finds what step 0 and 2
            // have written, or is found by the check.
            fence_before_check();
            self.check(members, outsiders, &edges, deferred)?;
            self.take_down_gaps(outsiders, decision, deferred);
            // Step 4: the one instant.
            match decision.commit() {
                true => Ok(()),
                // A replacement, or the failure of exactly an old instance, was faster.
                false => Err(self.first_changed(members)),
            }
        });
        match &result {
            // Step 5.
            Ok(()) => {
                members.iter().for_each(|member| member.decide());
                // Before the switch is forgotten: until then a cascade asks it about the edges.
                self.decide_edges(members);
            }
            Err(_) => {
                decision.abort();
                let installed = members[..installed].iter();
                installed.for_each(|member| member.undo(self, &mut deferred.removed));
            }
        }
        for member in members {
            self.service(member.service()).history.end_switch(decision);
        }
        // After the decision and the tags: the next look of a cached reader finds them (R1).
        drop(replacing);
        for member in members {
            let (index, number) = (member.service(), member.number());
            self.topology.drop_unused_edges(self, index, number.generation, |edge: Edge| {
                // An instance that continues a publication keeps what the old one was built from,
                // as a replacement does. After an abort, only those that are undecided are dropped:
                // another switch may have replaced the old instance, and the present one needs
                // other edges.
                result.is_err() || !member.begins() || member.edges().has_received(edge.dependency)
            });
        }
        result
    }

    /// Step 0: adds the edges of the new instances to the lists that cascades read. Returns all of
    /// them, each with the position of its member, and with whether the old instance did not have
    /// it.
    fn make_edges_known(
        &self,
        members: &[Box<dyn Member>],
        outsiders: &Outsiders<'_>,
    ) -> Result<Vec<(usize, UsedEdge, bool)>, NotSwitched> {
        let mut used = Vec::new();
        for (position, member) in members.iter().enumerate() {
            let (dependent, generation) = (member.service(), member.number().generation);
            for edge in member.edges().used() {
                if edge.start_only && outsiders.gaps.contains(&edge.dependency) {
                    // It ends with the switch, which takes the dependency down.
                    used.push((position, edge, true));
                    continue;
                }
                let known = Edge { dependent, dependency: edge.dependency, soft: false };
                let is_new = self.topology.discover_undecided(self, known, generation);
                used.push((position, edge, is_new.map_err(NotSwitched::Cycle)?));
            }
        }
        Ok(used)
    }

    /// Step 5: makes the edges of the new instances hard. One over which an instance has only
    /// started stays undecided, and is dropped.
    fn decide_edges(&self, members: &[Box<dyn Member>]) {
        for member in members {
            let (dependent, generation) = (member.service(), member.number().generation);
            for UsedEdge { dependency, start_only, .. } in member.edges().used() {
                if !start_only {
                    let edge = Edge { dependent, dependency, soft: false };
                    self.topology.decide_edge(self, edge, generation);
                }
            }
        }
    }

    /// Step 3: checks everything that may have changed since the new instances were built.
    fn check(
        &self,
        members: &[Box<dyn Member>],
        outsiders: &Outsiders<'_>,
        used: &[(usize, UsedEdge, bool)],
        deferred: &mut Deferred,
    ) -> Result<(), NotSwitched> {
        // These go down at the switch. No other switch is executed now, so those of them that are
        // ready keep the edges on the way to them.
        let gaps: Vec<_> = outsiders.gaps.iter().copied().collect();
        let down: HashSet<_> = self.closure(&gaps).into_iter().collect();
        // a. The members.
        let has_changed =
            |member: &dyn Member| !self.is_up(member) || down.contains(&member.service());
        if let Some(changed) = members.iter().find(|member| has_changed(&***member)) {
            return Err(NotSwitched::Changed(changed.service()));
        }
        let find = |service: ServiceIndex| {
            members.binary_search_by_key(&service, |member| member.service()).ok()
        };
        // c. The dependencies.
        for &(position, UsedEdge { dependency, received, start_only }, is_new) in used {
            let is_right = match find(dependency) {
                // The new instance would go down with it.
                None if !start_only && down.contains(&dependency) => {
                    let member = members[position].service();
                    return Err(NotSwitched::NeedsGap { member, dependency });
                }
                // It was built from the new instance of that member.
                Some(at) => {
                    let InstanceNumber { generation, revision } = members[at].number();
                    received == (generation, revision)
                }
                // A plain replacement of a dependency that the old instance had, too, changes
                // nothing: it does not rebuild what was built from it.
                None => self.read_any_to_build(dependency).is_some_and(|present| {
                    if is_new { present == received } else { present.0 == received.0 }
                }),
            };
            if !is_right {
                let member = members[position].service();
                return Err(NotSwitched::Dependency { member, dependency });
            }
        }
        // b. The dependents that are no members: what they have received of a member is old. Their
        // own dependents have received nothing, as long as they are not ready.
        let pin = pin();
        for member in members {
            let list = self.slot(member.service()).dependents().iter(&pin);
            // A start-only edge does not outlast the attempt. Over a declared one, the switch is a
            // replacement for an attempt. Over one that the attempt has discovered, whose entry is
            // that of a hard edge, the attempt is void: more than is needed.
            for entry in list.filter(|entry| !entry.unless_ready) {
                if find(entry.dependent).is_none() && !outsiders.gaps.contains(&entry.dependent) {
                    self.exclude(entry.dependent, member.service(), outsiders, deferred)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the services with a gap down, with their dependents. What they were built from is
    /// about to be replaced, so their next attempts find an undecided instance, or a new one: they
    /// begin after the fence of step 3, as each service that the check has found down.
    fn take_down_gaps(
        &self,
        &Outsiders { root, gaps, .. }: &Outsiders<'_>,
        decision: &Decision,
        deferred: &mut Deferred,
    ) {
        // If a replacement has aborted the switch, they need not restart.
        if gaps.is_empty() || decision.load() != Decided::Pending {
            return;
        }
        let reason = Shielded::new(Reason::Reloaded { root: self.name(root) });
        let (result, causes, woken) = self.fail_all_within(decision, gaps, &reason);
        deferred.failed.extend(result.failed_slots);
        deferred.causes.extend(causes);
        deferred.woken = woken;
    }

    /// Ensures that a dependent of a member has no instance, unless that adopts the new one, and
    /// that none will be published that was built from an old one.
    fn exclude(
        &self,
        dependent: ServiceIndex,
        member: ServiceIndex,
        outsiders: &Outsiders<'_>,
        deferred: &mut Deferred,
    ) -> Result<(), NotSwitched> {
        let slot = self.slot(dependent);
        let keeps = |generation| {
            let adopter = outsiders.adopters.get(&dependent);
            adopter.is_some_and(|adopter| adopter.keeps(generation, member))
        };
        loop {
            let state = slot.state.load();
            match state.phase() {
                Phase::Down => return Ok(()),
                // As after a plain replacement.
                Phase::Ready if keeps(state.generation()) => return Ok(()),
                Phase::Ready => return Err(NotSwitched::Joined(dependent)),
                // Nothing is published in it.
                Phase::Starting if state == Tag::void(state.generation()) => return Ok(()),
                Phase::Starting if self.void(dependent, state.generation(), member, deferred) => {
                    return Ok(());
                }
                // It has changed since.
                Phase::Starting => {}
            }
        }
    }

    /// Ends an attempt by a cascade of its service alone: nothing was built from it, as it has not
    /// been published in this generation. Returns `false` if it has ended.
    ///
    /// The attempt is void before the slot is condemned. If it was condemned first, and then
    /// published, it would have to be taken down with its dependents, and a reader would notice the
    /// reload (R2).
    fn void(
        &self,
        index: ServiceIndex,
        generation: Generation,
        member: ServiceIndex,
        deferred: &mut Deferred,
    ) -> bool {
        let slot = self.slot(index);
        let reason = Reason::Reloaded { root: self.name(member) };
        let cause = Cause::new(generation, Shielded::new(reason));
        let mut is_void = false;
        let causes = self.service(index).history.void_attempt(cause, || {
            let (from, to) = (Tag::starting(generation), Tag::void(generation));
            is_void = slot.state.transition_keeping_waiters(from, to).is_ok();
            if is_void {
                slot.failed_by.set(index);
            }
            is_void
        });
        deferred.causes.push(causes);
        if is_void {
            let to = slot.condemned.increment();
            // A cascade that has condemned the slot before finds it beyond its generation.
            if let Some(transition) = slot.state.take_down(to, || slot.failed_by.set(index)) {
                deferred.notified.push((index, transition));
            }
            deferred.failed.push(FailedSlot { index, was: Tag::starting(generation) });
        }
        is_void
    }

    /// Returns whether a member is ready in its generation, and no cascade has condemned it.
    fn is_up(&self, member: &dyn Member) -> bool {
        let (slot, generation) = (self.slot(member.service()), member.number().generation);
        slot.state.load() == Tag::ready(generation) && slot.condemned.load() == generation
    }

    /// Returns the member that has most likely aborted the switch.
    fn first_changed(&self, members: &[Box<dyn Member>]) -> NotSwitched {
        let changed = members.iter().find(|member| {
            let InstanceNumber { generation, revision } = member.old_number();
            let (state, present) = self.state_and_revision(member.service());
            (state, present) != (Tag::ready(generation), revision)
        });
        let changed = changed.or(members.first()).map(|member| member.service());
        NotSwitched::Changed(changed.unwrap_or(ServiceIndex::new(0)))
    }

    /// Notes that a build aside of `dependent`, whose instance of `generation` is up, uses an edge:
    /// adds a soft edge, unless the graph has a harder one. A cycle is found, and a shutdown stops
    /// the two in order; no cascade follows the edge. Returns whether the edge was added.
    pub(crate) fn discover_aside(
        &self,
        dependent: ServiceIndex,
        dependency: ServiceIndex,
        generation: Generation,
    ) -> Result<bool, CyclePath> {
        self.topology.discover_aside(self, dependent, dependency, generation)
    }

    /// As `discover_aside`, for a soft edge that the new instance keeps.
    pub(crate) fn discover_soft_aside(
        &self,
        dependent: ServiceIndex,
        dependency: ServiceIndex,
        generation: Generation,
    ) -> Result<bool, CyclePath> {
        let edge = Edge { dependent, dependency, soft: true };
        let discovered = self.topology.discover(self, edge, Tag::ready(generation), false)?;
        Ok(discovered == Discovered::Added)
    }

    /// Removes soft edges that a build aside has added.
    pub(crate) fn release_aside(&self, dependent: ServiceIndex, dependencies: &[ServiceIndex]) {
        self.topology.release_aside(self, dependent, dependencies);
    }
}
