//! A walk: finds the closure of some services by following the lists of their dependents, without a
//! lock, while edges may change.

use super::{
    Decision, Phase,
    dependents::{Entry, Iter},
    precomputed::Precomputed,
    quiet::Activity,
    topology::Slots,
};
use crate::{
    numbers::{Generation, ServiceIndex},
    sync::Pin,
};

/// The services from which a walk started, and all their transitive dependents.
pub(super) struct Walk {
    /// Each service before its dependents.
    pub(super) members: Vec<Member>,
    dependents: DependentMembers,
    /// The dependents of some member were not followed: they are down as long as this is the
    /// activity.
    pub(super) pruned_at: Option<Activity>,
    /// The dependents of the entries that are followed unless the dependent is ready, and whether
    /// each was followed.
    unless_ready: Vec<(ServiceIndex, bool)>,
}

/// The members that are a dependent of another member.
enum DependentMembers {
    /// All but this one, the root of a precomputed closure.
    AllBut(ServiceIndex),
    Set(ServiceSet),
}

/// A member of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) service: ServiceIndex,
    /// The version of its list of dependents, before the walk read the list.
    version: u32,
    /// The generation to which the cascade has condemned the slot. `Generation::FIRST` if it has
    /// not.
    pub(super) to: Generation,
}

impl Member {
    pub(super) fn new(slots: &impl Slots, service: ServiceIndex) -> Self {
        // The version is read before the list. In the other order, a dependent that is added in
        // between would be counted although it is not followed, and no check would notice it.
        let version = slots.slot(service).dependents().version();
        Self { service, version, to: Generation::FIRST }
    }

    /// Returns whether the service had never had a dependent.
    pub(super) fn is_leaf(&self) -> bool {
        self.version == 0
    }

    /// Returns whether the list of dependents has not changed since the walk read it. If this holds
    /// for all members of a walk, the walk contains the closure of its starts as of the call.
    pub(super) fn is_unchanged(&self, slots: &impl Slots) -> bool {
        slots.slot(self.service).dependents().version() == self.version
    }

    pub(super) fn is_condemned(&self) -> bool {
        self.to > Generation::FIRST
    }
}

impl Walk {
    /// Walks from `starts`. It finds each dependent that was added before the call, unless the
    /// dependent was removed before its entry was read. It does not follow the dependents of a
    /// service that is quiet at the present activity, which `quiet_at` returns.
    ///
    /// Returns `None` if the edges that it has read form a cycle. The graph is acyclic at any
    /// time, but a walk reads its lists at different times. The caller walks again.
    pub(super) fn new(
        slots: &impl Slots,
        starts: &[ServiceIndex],
        quiet_at: impl Fn(ServiceIndex) -> Option<Activity>,
        pin: &Pin,
    ) -> Option<Self> {
        let (mut pruned_at, mut unless_ready) = (None, Vec::new());
        let mut visit = |service: ServiceIndex| {
            let member = Member::new(slots, service);
            if let Some(activity) = quiet_at(service) {
                if *pruned_at.get_or_insert(activity) == activity {
                    return (member, Iter::default());
                }
            }
            (member, slots.slot(service).dependents().iter(pin))
        };
        let mut follow = |entry: Entry| {
            if !entry.unless_ready {
                return Some(entry.dependent);
            }
            let followed = is_followed(slots, entry);
            unless_ready.push((entry.dependent, followed));
            followed.then_some(entry.dependent)
        };
        let walk = in_index_order(starts, &mut visit, &mut follow)
            .or_else(|| depth_first(starts, &mut visit, &mut follow))?;
        Some(Self { pruned_at, unless_ready, ..walk })
    }

    /// Returns whether a dependent that was not followed, because it was ready, is starting now:
    /// its attempt may have received an instance of a member. Or a switch has made an instance of
    /// it current that was built from a member. Then the caller walks again.
    ///
    /// Called after the fence of the cascade. A switch that is pending is aborted: it would be
    /// committed after a dependency of its new instance was condemned. Not one `within` which the
    /// cascade runs: it has checked that no new instance needs what it takes down.
    pub(super) fn has_passed_over_a_dependent(
        &self,
        slots: &impl Slots,
        within: Option<&Decision>,
    ) -> bool {
        self.unless_ready.iter().any(|&(dependent, followed)| {
            !followed
                && match slots.slot(dependent).state.load().phase() {
                    Phase::Starting => true,
                    Phase::Ready => slots.decide_switch(dependent, within),
                    Phase::Down => false,
                }
        })
    }

    /// Returns whether the walk would find other members in other phases of its services.
    pub(super) fn is_conditional(&self) -> bool {
        !self.unless_ready.is_empty()
    }

    fn of(members: Vec<Member>, dependents: ServiceSet) -> Self {
        let dependents = DependentMembers::Set(dependents);
        Self { members, dependents, pruned_at: None, unless_ready: Vec::new() }
    }

    /// Creates the walk that would find the precomputed closure of `root`. Calls `with` for each
    /// other member.
    #[inline]
    pub(super) fn precomputed(
        root: Member,
        closure: &Precomputed,
        mut with: impl FnMut(&mut Member),
    ) -> Self {
        let mut members = Vec::with_capacity(closure.len());
        closure.for_each(|service| {
            // No list was read: the closure is checked as a whole.
            let mut member = Member { service, version: 0, ..root };
            if service != root.service {
                member.to = Generation::FIRST;
                with(&mut member);
            }
            members.push(member);
        });
        let dependents = DependentMembers::AllBut(root.service);
        Self { members, dependents, pruned_at: None, unless_ready: Vec::new() }
    }

    /// Returns whether the walk has reached a service over an edge, not only as one of its starts.
    pub(super) fn is_dependent(&self, service: ServiceIndex) -> bool {
        match &self.dependents {
            DependentMembers::AllBut(root) => service != *root,
            DependentMembers::Set(dependents) => dependents.contains(service),
        }
    }
}

/// Returns whether a cascade follows an entry now.
pub(super) fn is_followed(slots: &impl Slots, entry: Entry) -> bool {
    !entry.unless_ready
        || slots.slot(entry.dependent).state.load().phase() != Phase::Ready
        || slots.is_switched(entry.dependent)
}

/// Walks in the order of the indices, which is the order of the slots in memory. In a large closure
/// this is many times faster than any other order.
///
/// Returns `None` if a dependent has a smaller index than its dependency. Most services are
/// registered after their dependencies, so this is rare.
///
/// `visit` returns a service as a member of the walk, and its list of dependents. `follow` returns
/// the dependent of an entry if it must be followed.
fn in_index_order<'p>(
    starts: &[ServiceIndex],
    mut visit: impl FnMut(ServiceIndex) -> (Member, Iter<'p>),
    mut follow: impl FnMut(Entry) -> Option<ServiceIndex>,
) -> Option<Walk> {
    let mut starts = starts.to_vec();
    starts.sort_unstable();
    let mut starts = starts.into_iter().peekable();
    let mut dependents = ServiceSet::default();
    let mut members = Vec::new();
    let mut from = 0;
    loop {
        // The next one of the starts and of the dependents.
        let dependent = dependents.first_from(from);
        let Some(service) = starts.peek().copied().into_iter().chain(dependent).min() else {
            break;
        };
        while starts.next_if_eq(&service).is_some() {}
        from = service.get() + 1;
        let (member, list) = visit(service);
        members.push(member);
        for dependent in list.filter_map(&mut follow) {
            // This order has passed the dependent already. A depth-first walk must find the order.
            if dependent < service {
                return None;
            }
            dependents.insert(dependent);
        }
    }
    Some(Walk::of(members, dependents))
}

/// Walks depth first, which finds an order for every acyclic graph. Returns `None` for a cycle.
fn depth_first<'p>(
    starts: &[ServiceIndex],
    mut visit: impl FnMut(ServiceIndex) -> (Member, Iter<'p>),
    mut follow: impl FnMut(Entry) -> Option<ServiceIndex>,
) -> Option<Walk> {
    let (mut reached, mut done) = (ServiceSet::default(), ServiceSet::default());
    let mut dependents = ServiceSet::default();
    let mut members = Vec::new();
    // The path from a start to the present service, with the dependents of each that have not been
    // followed. Not a recursion, because a chain of services may be longer than the stack.
    let mut path: Vec<(Member, Iter<'_>)> = Vec::new();
    for &start in starts {
        let mut next = Some(start);
        loop {
            if let Some(service) = next {
                if reached.insert(service) {
                    path.push(visit(service));
                // Reached again, before all its dependents were followed: it is on the path, so the
                // path is a cycle. If it is done, it is only reached over a second edge.
                } else if !done.contains(service) {
                    return None;
                }
            }
            // The path is empty: all that is reachable from this start was followed.
            let Some((member, list)) = path.last_mut() else { break };
            next = list.find_map(&mut follow);
            match next {
                Some(dependent) => {
                    dependents.insert(dependent);
                }
                None => {
                    done.insert(member.service);
                    members.push(*member);
                    path.pop();
                }
            }
        }
    }
    // Each service was added after all its dependents.
    members.reverse();
    Some(Walk::of(members, dependents))
}

/// A set of services, stored as bits in pages. There is no page without members, so a walk pays
/// almost nothing for services that it does not reach.
#[derive(Default)]
pub(super) struct ServiceSet {
    /// In one allocation: the members of a walk may be on as many pages.
    pages: Vec<Page>,
    /// The number of each page, or `NO_PAGE`, by the indices of its services.
    numbers: Vec<u32>,
}

type Page = [u64; 16];

const PAGE: usize = size_of::<Page>() * 8;

const NO_PAGE: u32 = u32::MAX;

impl ServiceSet {
    /// Inserts a service. Returns whether it is new in the set.
    #[inline]
    fn insert(&mut self, service: ServiceIndex) -> bool {
        let (page, word, bit) = split(service.get());
        if page >= self.numbers.len() {
            self.numbers.resize(page + 1, NO_PAGE);
        }
        if self.numbers[page] == NO_PAGE {
            self.numbers[page] = self.pages.len() as u32;
            self.pages.push(Page::default());
        }
        let word = &mut self.pages[self.numbers[page] as usize][word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, service: ServiceIndex) -> bool {
        let (page, word, bit) = split(service.get());
        // No page has the number of `NO_PAGE`.
        let page = self.numbers.get(page).and_then(|&number| self.pages.get(number as usize));
        page.is_some_and(|page| page[word] & bit != 0)
    }

    /// Returns the member with the smallest index that is not below `number`.
    #[inline]
    fn first_from(&self, number: u32) -> Option<ServiceIndex> {
        let (mut page, mut word, bit) = split(number);
        // Excludes the bits below `bit`, in the first word only.
        let mut mask = !(bit - 1);
        loop {
            if let Some(words) = self.pages.get(*self.numbers.get(page)? as usize) {
                for (place, &bits) in words.iter().enumerate().skip(word) {
                    let bits = bits & mask;
                    if bits != 0 {
                        let first = (page * PAGE + place * 64) as u32;
                        return Some(ServiceIndex::new(first + bits.trailing_zeros()));
                    }
                    mask = !0;
                }
            }
            (page, word, mask) = (page + 1, 0, !0);
        }
    }
}

/// Returns the position of the bit of a service: the page, the word in the page, the mask in the
/// word.
fn split(number: u32) -> (usize, usize, u64) {
    let number = number as usize;
    (number / PAGE, number % PAGE / 64, 1 << (number % 64))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;

    use super::{PAGE, ServiceSet};
    use crate::numbers::ServiceIndex;

    #[test]
    fn the_set_of_services_agrees_with_a_btree_set() {
        // Adjacent indices, indices at the ends of words and of pages, and distant ones.
        let page = PAGE as u32;
        let all =
            [0, 1, 5, 63, 64, 127, 128, 700, page - 1, page, page + 65, 5 * page - 1, 7 * page];
        let (mut numbers, mut model) = (ServiceSet::default(), BTreeSet::new());
        for number in all.into_iter().rev().chain(all) {
            assert_eq!(numbers.insert(ServiceIndex::new(number)), model.insert(number), "{number}");
            for from in all.into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1, n + 64]) {
                assert_eq!(
                    numbers.first_from(from).map(ServiceIndex::get),
                    model.range(from..).next().copied(),
                    "from {from}"
                );
                assert_eq!(
                    numbers.contains(ServiceIndex::new(from)),
                    model.contains(&from),
                    "{from}"
                );
            }
        }
    }
}
