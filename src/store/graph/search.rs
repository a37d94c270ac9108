//! The topological order under the insertion of an edge: a two-way search between the two services
//! of an edge that the order does not allow.
//!
//! This is the two-way compatible search of Haeupler, Kavitha, Mathew, Sen and Tarjan,
//! "Incremental cycle detection, topological ordering, and strong component maintenance" (2012),
//! in the order of the ranks. It goes forward from the dependent along dependents, in ascending
//! order, and backward from the dependency along dependencies, in descending order. Each step
//! follows one edge of each side. The search ends if a side has no edge left, or if the sides have
//! passed each other. Then a cycle has been found, or the services that were visited are moved.
//!
//! # Cost
//!
//! One edge costs at most twice the smaller side, times a logarithm. An edge that agrees with the
//! order costs nothing here. So these sequences cost n log n in total:
//!
//! - services that are declared with their dependencies, each before its dependents (one side has
//!   no edges), or each after its dependents (the other side has none);
//! - in any order, edges of which each connects two parts of the graph that were not connected
//!   before, such as those of a chain, a star or a tree: only the smaller part is visited.
//!
//! In the worst case, m edges cost m^(3/2) log n in total, which is the bound of the paper. Only
//! edges between large parts that are connected already, and that contradict the order again and
//! again, come near to it.

use std::{collections::BinaryHeap, iter::Peekable};

use super::{Edge, Graph, order::Order};
use crate::numbers::ServiceIndex;

/// The services that the present search has visited.
#[derive(Default)]
pub(super) struct Marks {
    /// For each service, the last search that visited it, and from which side.
    marks: Vec<u64>,
    searches: u64,
}

/// The side of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward = 0,
    Backward = 1,
}

impl Marks {
    pub(super) fn push(&mut self) {
        self.marks.push(0);
    }

    fn begin(&mut self) {
        self.searches += 1;
    }

    /// Marks a service, and returns the side that has visited it before.
    fn visit(&mut self, service: ServiceIndex, direction: Direction) -> Option<Direction> {
        let mark = &mut self.marks[service.as_usize()];
        if *mark >> 1 == self.searches {
            return Some(match *mark & 1 {
                0 => Direction::Forward,
                _ => Direction::Backward,
            });
        }
        *mark = self.searches << 1 | direction as u64;
        None
    }
}

/// One side of a search. `I` iterates over the services to which the edges of a service lead.
struct Side<I: Iterator> {
    direction: Direction,
    visited: Vec<ServiceIndex>,
    /// The service whose edges are being followed, and the rest of its edges. All edges lead away
    /// from where the search begins, so it is followed to its end before any other one.
    current: Option<(ServiceIndex, Peekable<I>)>,
    /// The other services that have edges, by their rank: the next one is the greatest.
    waiting: BinaryHeap<(u64, ServiceIndex)>,
}

impl<I: Iterator<Item = ServiceIndex>> Side<I> {
    fn new(direction: Direction) -> Self {
        Self { direction, visited: Vec::new(), current: None, waiting: BinaryHeap::new() }
    }

    /// Visits a service. Returns false if the other side has visited it.
    fn visit(&mut self, service: ServiceIndex, order: &Order, marks: &mut Marks) -> bool {
        match marks.visit(service, self.direction) {
            None => {
                self.visited.push(service);
                let rank = order.rank(service);
                let priority = match self.direction {
                    Direction::Forward => !rank,
                    Direction::Backward => rank,
                };
                self.waiting.push((priority, service));
                true
            }
            Some(before) => before == self.direction,
        }
    }

    /// Returns the next service that has an edge which was not followed.
    fn next_service(&mut self, edges: impl Fn(ServiceIndex) -> I) -> Option<ServiceIndex> {
        loop {
            if let Some((service, rest)) = &mut self.current {
                if rest.peek().is_some() {
                    return Some(*service);
                }
            }
            let (_, service) = self.waiting.pop()?;
            self.current = Some((service, edges(service).peekable()));
        }
    }

    /// Follows the next edge. Returns false if the other side has visited the service to which it
    /// leads.
    fn step(&mut self, order: &Order, marks: &mut Marks) -> bool {
        let found = self.current.as_mut().and_then(|(_, rest)| rest.next());
        found.is_none_or(|found| self.visit(found, order, marks))
    }
}

/// The edge would close a cycle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClosesCycle;

impl Graph {
    /// Changes the order so that the dependency of `edge` comes before its dependent. Changes
    /// nothing if the edge would close a cycle.
    pub(in crate::store) fn order_for(&mut self, edge: Edge) -> Result<(), ClosesCycle> {
        let Edge { dependent, dependency, .. } = edge;
        if dependent == dependency {
            return Err(ClosesCycle);
        }
        let Self { services, order, marks, .. } = self;
        if order.rank(dependency) < order.rank(dependent) {
            return Ok(());
        }
        let dependents = |service: ServiceIndex| {
            services[service.as_usize()].dependents.iter().map(|(key, _)| key.service)
        };
        let dependencies = |service: ServiceIndex| {
            services[service.as_usize()].dependencies.iter().map(|(key, _)| key.service)
        };
        marks.begin();
        let mut forward = Side::new(Direction::Forward);
        let mut backward = Side::new(Direction::Backward);
        forward.visit(dependent, order, marks);
        backward.visit(dependency, order, marks);
        let next = loop {
            let low = forward.next_service(dependents);
            let (Some(low), Some(high)) = (low, backward.next_service(dependencies)) else {
                break low;
            };
            if order.rank(low) >= order.rank(high) {
                break Some(low);
            }
            // The two sides have met: the dependency depends on the dependent.
            if !forward.step(order, marks) || !backward.step(order, marks) {
                return Err(ClosesCycle);
            }
        };

        // All edges of the services that the forward side visited below `next` were followed, so
        // they may move up to `next`. So may the services that the backward side visited above it
        // move down to it. If `next` is above the dependency, the forward side alone moves.
        let top = order.rank(dependency);
        let target = next.filter(|&next| order.rank(next) < top).unwrap_or(dependency);
        let limit = order.rank(target);
        // Their old order is correct within each side.
        let sorted = |mut services: Vec<ServiceIndex>, moves: &dyn Fn(u64) -> bool| {
            services.retain(|&service| moves(order.rank(service)));
            services.sort_unstable_by_key(|&service| order.rank(service));
            services
        };
        let up = sorted(forward.visited, &|rank| rank < limit);
        let down = sorted(backward.visited, &|rank| rank > limit);
        if target == dependency {
            // `down` is empty: the backward side visits nothing above the dependency.
            let mut previous = dependency;
            for service in up {
                order.move_after(service, previous);
                previous = service;
            }
        } else {
            for service in down.into_iter().chain(up) {
                order.move_before(service, target);
            }
        }
        Ok(())
    }
}
