//! Groups of services that fail together (S18): a cascade that takes a member down continues with
//! the other members, as if each of them were a root.
//!
//! A group orders nothing: that a member fails with another one does not mean that it was built
//! from it. So the members that a cascade finds over a group are *starts* of its walk, as the roots
//! of `fail_all` are, and all that `cascade.rs` proves for several roots holds for them. The edges
//! alone decide in which order the slots are condemned and taken down (I1).

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use super::{
    Phase, Store,
    cascade::{CascadeResult, Condemned, FailedSlot},
    walk::{Member, is_followed},
};
use crate::{
    failure::Reason,
    numbers::ServiceIndex,
    sync::{Flag, Mutex, Pin, Shielded, lock, pin},
};

/// The groups of a registry. A service is in at most one, for good.
pub(super) struct Groups {
    /// There is a group. A cascade in a registry without one takes no lock.
    exist: Flag,
    of: Mutex<HashMap<ServiceIndex, Members>>,
}

type Members = Arc<[ServiceIndex]>;

impl Groups {
    pub(super) fn new() -> Self {
        Self { exist: Flag::new(), of: Mutex::default() }
    }

    fn of(&self, service: ServiceIndex) -> Option<Members> {
        lock(&self.of).get(&service).cloned()
    }
}

/// The search of one cascade for the groups that it reaches.
struct Search {
    /// The services that it has found, and the root that each of them names.
    root_of: HashMap<ServiceIndex, ServiceIndex>,
    /// Those of them that this cascade has condemned, as far as the search knows.
    condemned: HashSet<ServiceIndex>,
    /// The first member of each group that it has found.
    groups: HashSet<ServiceIndex>,
}

impl Store {
    /// Makes a group of these services. If one of them is in a group already, returns it, and
    /// changes nothing.
    pub(crate) fn add_group(&self, services: &Arc<[ServiceIndex]>) -> Result<(), ServiceIndex> {
        let mut of = lock(&self.topology.groups.of);
        if let Some(&service) = services.iter().find(|service| of.contains_key(service)) {
            return Err(service);
        }
        of.extend(services.iter().map(|&service| (service, Arc::clone(services))));
        self.topology.groups.exist.set();
        Ok(())
    }

    /// Returns whether a cascade with this reason takes the groups down that it reaches. A planned
    /// end of a member leaves the others.
    pub(super) fn takes_groups_down(&self, reason: &Reason) -> bool {
        self.topology.groups.exist.is_set() && !reason.is_planned()
    }

    /// Executes a cascade from one root, which is condemned or down, and from the groups that it
    /// reaches. With a reason, stores the cause at a root that is down.
    pub(super) fn fail_with_groups(
        &self,
        root: Member,
        blame: Option<&Shielded<Reason>>,
    ) -> CascadeResult {
        let (starts, condemned, _) = self.condemn_with_groups(&[root]);
        let root_of = |_| root.service;
        let deferred =
            blame.map(|reason| self.blame(&[root], condemned.members(), root_of, reason));
        let mut result = self.take_down(&starts, &condemned, root_of, false);
        drop(deferred);
        // As `fail` does, if there is no group in the closure.
        if let Condemned::Closure { members, is_walk: true, .. } = &condemned {
            self.topology.keep_walk(self, root.service, members);
        }
        result.put_first(&[root]);
        result
    }

    /// Condemns the closure of `roots`, which the caller has condemned unless they are down, and
    /// the closures of all members of the groups that it reaches. Returns the starts, and the root
    /// that each service names.
    ///
    /// A member that is down is left alone. If an attempt begins at it after the search has found
    /// it, this is as if the attempt had begun after the cascade: it is built from nothing that
    /// fails, or an edge leads to it. So no group is checked again after the fence, apart from
    /// those that are found later.
    pub(super) fn condemn_with_groups(
        &self,
        roots: &[Member],
    ) -> (Vec<Member>, Condemned, HashMap<ServiceIndex, ServiceIndex>) {
        let pin = pin();
        let service = |root: &Member| root.service;
        let mut search = Search {
            root_of: roots.iter().map(|root| (root.service, root.service)).collect(),
            condemned: roots.iter().filter(|root| root.is_condemned()).map(service).collect(),
            groups: HashSet::new(),
        };
        let mut starts = roots.to_vec();
        starts.extend(self.condemn_groups(&mut search, roots.iter().map(service).collect(), &pin));
        // In the order of the indices, as `condemn` expects.
        starts.sort_unstable_by_key(service);
        let mut condemned = self.condemn(&starts, None);
        loop {
            // A pass may have followed an edge to a group that the search has not found. Nothing is
            // down yet, so this group is condemned, too. Each round finds another one.
            let members = condemned.members().iter().filter(|member| member.is_condemned());
            let mut found = Vec::new();
            for member in members.map(service) {
                search.root_of.entry(member).or_insert(roots[0].service);
                let is_new = search.condemned.insert(member);
                if is_new
                    && self.topology.groups.of(member).is_some_and(|it| !search.has_found(&it))
                {
                    found.push(member);
                }
            }
            let new = self.condemn_groups(&mut search, found, &pin);
            if new.is_empty() {
                return (starts, condemned, search.root_of);
            }
            let first = condemned.members().iter().chain(&new).copied();
            let first = Vec::from_iter(first);
            starts.extend(new);
            starts.sort_unstable_by_key(service);
            let members = self.condemn_again(&starts, &first, None, &pin);
            condemned = Condemned::Closure { members, is_walk: false, activity: None };
        }
    }

    /// Follows edges and groups from these services. Condemns the other members of each group of
    /// which a member fails, and returns them. The caller condemns what depends on them.
    fn condemn_groups(
        &self,
        search: &mut Search,
        from: Vec<ServiceIndex>,
        pin: &Pin,
    ) -> Vec<Member> {
        let (mut starts, mut to_visit) = (Vec::new(), from);
        while let Some(service) = to_visit.pop() {
            let root = search.root_of[&service];
            let is_up = |service| self.slot(service).state.load().phase() != Phase::Down;
            // One that is down does not fail, and its group stays.
            let fails = search.condemned.contains(&service) || is_up(service);
            let group = self.topology.groups.of(service).filter(|_| fails);
            let group = group.filter(|group| search.find(group));
            for &member in group.iter().flat_map(|group| group.iter()) {
                if search.condemned.contains(&member) || !is_up(member) {
                    continue;
                }
                let mut start = Member::new(self, member);
                start.to = self.slot(member).condemned.increment();
                search.condemned.insert(member);
                starts.push(start);
                if let Entry::Vacant(vacant) = search.root_of.entry(member) {
                    vacant.insert(root);
                    to_visit.push(member);
                }
            }
            let dependents = self.slot(service).dependents().iter(pin);
            for entry in dependents.filter(|&entry| is_followed(self, entry)) {
                if let Entry::Vacant(vacant) = search.root_of.entry(entry.dependent) {
                    vacant.insert(root);
                    to_visit.push(entry.dependent);
                }
            }
        }
        starts
    }
}

impl Search {
    fn has_found(&self, group: &Members) -> bool {
        group.first().is_none_or(|first| self.groups.contains(first))
    }

    /// Notes that a group was found. Returns whether it is new.
    fn find(&mut self, group: &Members) -> bool {
        group.first().is_some_and(|&first| self.groups.insert(first))
    }
}

impl CascadeResult {
    /// Moves the failures of the roots to the front: the others name them, and the edges do not
    /// order the members of a group.
    pub(super) fn put_first(&mut self, roots: &[Member]) {
        let is_root = |slot: &FailedSlot| roots.iter().any(|root| root.service == slot.index);
        let (mut first, others): (Vec<_>, Vec<_>) = self.failed_slots.drain(..).partition(is_root);
        first.extend(others);
        self.failed_slots = first;
    }
}
