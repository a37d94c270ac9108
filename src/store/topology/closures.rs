//! Keeps the precomputed closures: marks those that a change of an edge concerns, and computes them
//! anew before anything fails.
//!
//! Two rules hold whenever the lock of the topology is free:
//!
//! - A valid closure is the closure of its service in the present graph.
//! - If the closure of a service is valid, so are those of all its dependents.
//!
//! By the second rule, a change of a list of dependents invalidates the closure of the dependency
//! and of those services that are reached from it over dependencies with a valid closure. The
//! search stops at each closure that is not valid. So the cost of all searches together is that of
//! the computations before them.
//!
//! # When closures are computed
//!
//! In a registry with at most [`KEPT_AHEAD`] services, the closures are computed when the registry
//! is built, and at the end of each publication, failed attempt and declaration that has changed
//! edges. At a start many edges change, one after the other, and each change may concern all
//! services. So each change earns a fixed credit, and the outdated closures are computed as soon as
//! the credit pays for all of them. The cost of a start is therefore linear in the number of edges.
//! If a service fails whose closure is still outdated, its cascade walks, and keeps the result
//! after it has woken the waiters.
//!
//! A closure with an entry that is followed only while its dependent is not ready
//! ([`Entry::unless_ready`]) depends on the phases of services, so it is not computed: the cascades
//! of its service walk.
//!
//! In a larger registry all closures together would be too large: up to n^2 / 8 bytes. There, the
//! first cascade of a service walks, and its result is kept as long as no edge of its closure
//! changes.

use std::{cmp::Reverse, sync::Arc};

use super::{super::walk::Member, Entry, Graph, Slots};
use crate::{
    numbers::ServiceIndex,
    store::precomputed::{Precomputed, set_bits},
    sync::{Budget, Pin, pin},
};

/// The largest number of services whose closures are kept ahead. Their bitmaps take at most 128
/// KiB.
const KEPT_AHEAD: usize = 1024;

/// The steps that one change of an edge pays for. A step is a dependent that is visited, a word of
/// a bitmap, or a comparison of two members.
const CREDIT_OF_A_CHANGE: usize = 64;

/// The largest credit. It pays for all closures of a registry in the order of the indices with
/// forty edges for each service.
const MOST_CREDIT: usize = 64 * KEPT_AHEAD;

/// The services whose closures are not valid, in a registry that keeps them ahead.
pub(in crate::store) struct Outdated {
    /// Some may have become valid since, by a walk that was kept.
    services: Vec<ServiceIndex>,
    credit: usize,
    /// The steps that a closure took, on average, when the last ones were computed.
    steps_of_one: usize,
}

impl Default for Outdated {
    fn default() -> Self {
        Self { services: Vec::new(), credit: 0, steps_of_one: 1 }
    }
}

/// Marks the closures that contain the list of dependents of `dependency`, which has changed.
pub(super) fn invalidate(graph: &mut Graph, slots: &impl Slots, dependency: ServiceIndex) {
    let is_kept_ahead = graph.len() <= KEPT_AHEAD;
    let mut reached = vec![dependency];
    while let Some(service) = reached.pop() {
        let cell = slots.closure(service);
        if cell.is_valid() {
            cell.invalidate();
            let dependencies = graph.dependencies(service).map(|(edge, _)| edge);
            reached.extend(dependencies.filter(|edge| !edge.soft).map(|edge| edge.dependency));
            if is_kept_ahead {
                graph.outdated.services.push(service);
            }
        }
    }
    let outdated = &mut graph.outdated;
    outdated.credit = (outdated.credit + CREDIT_OF_A_CHANGE).min(MOST_CREDIT);
}

/// Computes the outdated closures, if the credit pays for them or `whatever_it_costs` is set.
pub(super) fn compute(graph: &mut Graph, slots: &impl Slots, whatever_it_costs: bool) {
    if graph.len() > KEPT_AHEAD {
        graph.outdated.services = Vec::new();
        return;
    }
    let Outdated { services, credit, steps_of_one } = &graph.outdated;
    if services.is_empty() || !whatever_it_costs && services.len() * steps_of_one > *credit {
        return;
    }
    let mut services = std::mem::take(&mut graph.outdated.services);
    // Dependents first, so that each closure is the union of those of its dependents.
    services.sort_unstable_by_key(|&service| Reverse(graph.rank(service)));
    let pin = pin();
    let mut bits = vec![0; graph.len().div_ceil(64)];
    let (mut computed, mut steps) = (0, 0);
    for service in services {
        let cell = slots.closure(service);
        if !cell.is_valid() {
            let (closure, took) = closure_of(graph, slots, service, &mut bits, &pin);
            match closure {
                Some(closure) => cell.store(closure, &pin),
                None => cell.store_conditional(&pin),
            }
            computed += 1;
            steps += took;
        }
    }
    let outdated = &mut graph.outdated;
    outdated.credit = outdated.credit.saturating_sub(steps);
    outdated.steps_of_one = steps.div_ceil(computed.max(1)).max(1);
}

/// Computes the closure of a service. The outer option is `None` if it depends on the phases of
/// services, the inner one if it does not fit into the budget. Returns the number of steps, too.
/// `bits` is a scratch bitmap with one bit for each service of the registry.
fn closure_of(
    graph: &Graph,
    slots: &impl Slots,
    service: ServiceIndex,
    bits: &mut [u64],
    pin: &Pin,
) -> (Option<Option<Precomputed>>, usize) {
    bits.fill(0);
    let mut steps = bits.len();
    let has = |bits: &[u64], of: ServiceIndex| bits[of.as_usize() / 64] >> (of.get() % 64) & 1 == 1;
    bits[service.as_usize() / 64] |= 1 << (service.get() % 64);
    let mut is_in_index_order = true;
    let mut reached: Vec<(ServiceIndex, Entry)> =
        graph.entries(service).map(|entry| (service, entry)).collect();
    while let Some((dependency, Entry { dependent, unless_ready })) = reached.pop() {
        steps += 1;
        if unless_ready || slots.closure(dependent).is_conditional() {
            return (None, steps);
        }
        is_in_index_order &= dependency < dependent;
        if has(bits, dependent) {
            continue;
        }
        match slots.closure(dependent).present(pin) {
            Some(closure) => {
                steps += closure.add_to(bits);
                is_in_index_order &= closure.is_in_index_order();
            }
            // It has no dependents, or its closure did not fit into the budget.
            None => {
                bits[dependent.as_usize() / 64] |= 1 << (dependent.get() % 64);
                reached.extend(graph.entries(dependent).map(|entry| (dependent, entry)));
            }
        }
    }
    if is_in_index_order {
        return (Some(Precomputed::in_index_order(bits, slots.budget())), steps + bits.len());
    }
    let mut members: Vec<ServiceIndex> = set_bits(bits).collect();
    members.sort_unstable_by_key(|&member| graph.rank(member));
    let steps = steps + members.len() * members.len().ilog2() as usize;
    (Some(Precomputed::new(&members, slots.budget())), steps)
}

/// Keeps the result of a walk from `root`, if no edge of its closure has changed since. The walk
/// has met no entry that is followed only while its dependent is not ready.
///
/// The caller holds the lock of the topology.
pub(super) fn keep_walk(slots: &impl Slots, root: ServiceIndex, members: &[Member]) {
    // The lock is held: what is unchanged now stays so.
    if !members.iter().all(|member| member.is_unchanged(slots)) {
        return;
    }
    let pin = pin();
    let services: Vec<ServiceIndex> = members.iter().map(|member| member.service).collect();
    for &member in &services {
        // The second rule. A member that has failed before keeps its own closure if it is valid.
        if !slots.closure(member).is_valid() {
            slots.closure(member).store(None, &pin);
        }
    }
    let closure = Precomputed::new(&services, slots.budget());
    slots.closure(root).store(closure, &pin);
}

/// The budget of a registry with this capacity: 64 bytes for each service, and at least 4 MiB.
pub(in crate::store) fn budget(capacity: usize) -> Arc<Budget> {
    Budget::new(capacity.saturating_mul(64).max(4 << 20))
}
