//! The edges: a graph behind its writers' lock, and what a cascade reads of it without one.
//!
//! A writer changes the graph, then the list of the dependency's dependents, then counts the change. A cascade
//! follows the lists (`walk.rs`), or takes the row that one before it has left (`rows.rs`), which holds as long as
//! nothing has changed.

use super::{
    graph::{Cycle, Edge, Graph, Use},
    slot::Slot,
    state::Tag,
};
use crate::sync::{self, AtomicU64, Count, Mutex, Ordering, pin};

pub(crate) struct Topology {
    graph: Mutex<Graph>,
    changes: Changes,
}

/// How many edges have come or gone.
struct Changes(AtomicU64);

impl Changes {
    /// Acquire: pairs with `add`; lists that are read after this have at least what is counted.
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `load`.
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// What a writer needs to know of the slots.
pub(crate) trait Slots {
    fn slot(&self, service: u32) -> &Slot;

    /// How many edges of the service were discovered: an attempt that used as many has none to drop.
    fn discovered(&self, service: u32) -> &Count;
}

impl Topology {
    pub(crate) fn new() -> Self {
        Self { graph: Mutex::default(), changes: Changes(AtomicU64::new(0)) }
    }

    /// How many edges have come or gone so far: one that came is in its list before it is counted.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load()
    }

    /// For looking in. Nothing of a user's may run in `with`.
    pub(crate) fn read<R>(&self, with: impl FnOnce(&Graph) -> R) -> R {
        with(&sync::lock(&self.graph))
    }

    /// The next service, without edges.
    pub(crate) fn add_service(&self) -> u32 {
        sync::lock(&self.graph).add_service()
    }

    /// Declares a hard edge, for good.
    pub(crate) fn declare(
        &self,
        slots: &impl Slots,
        dependent: u32,
        dependency: u32,
    ) -> Result<(), Cycle> {
        let edge = Edge { dependent, dependency, soft: false };
        let mut graph = sync::lock(&self.graph);
        match graph.find(edge) {
            Some(Use::Declared) => Ok(()),
            Some(Use::Discovered { .. }) => {
                // It still counts as discovered: an attempt under way may have counted it as used.
                graph.mark(edge, Use::Declared);
                Ok(())
            }
            None => self.add(&mut graph, slots, edge, Use::Declared),
        }
    }

    /// Makes sure that the edge is known, and marks it as used by the attempt of `generation`, perhaps only `to_start`.
    /// True where this is a discovered edge that this attempt had not used before. An attempt that is over makes no edge.
    pub(crate) fn discover(
        &self,
        slots: &impl Slots,
        edge: Edge,
        generation: u64,
        to_start: bool,
    ) -> Result<bool, Cycle> {
        let used = |to_start| Use::Discovered { by: Some(generation), to_start };
        let mut graph = sync::lock(&self.graph);
        match graph.find(edge) {
            Some(Use::Declared) => Ok(false),
            // An attempt that is overtaken already must not take the edge from a later one.
            Some(Use::Discovered { by: Some(by), .. }) if by > generation => Ok(false),
            Some(Use::Discovered { by: Some(by), to_start: before }) if by == generation => {
                // What is needed for good stays so.
                graph.mark(edge, used(before && to_start));
                Ok(false)
            }
            Some(Use::Discovered { .. }) => {
                graph.mark(edge, used(to_start));
                Ok(true)
            }
            None => {
                // It counts before we look whether the attempt is over: a later one that is published has moved the
                // state before it looks how many count. Either we see that, or it sees this, and drops the edge.
                let count = slots.discovered(edge.dependent);
                count.add(1);
                if !slots.slot(edge.dependent).state.is_still(Tag::starting(generation)) {
                    count.remove(1);
                    return Ok(false);
                }
                let added = self.add(&mut graph, slots, edge, used(to_start));
                if added.is_err() {
                    count.remove(1);
                }
                added.map(|()| true)
            }
        }
    }

    /// The attempt of `generation` was given up: what it used is no longer in use.
    pub(crate) fn release(&self, dependent: u32, generation: u64) {
        let mut graph = sync::lock(&self.graph);
        for (edge, use_) in graph.dependencies(dependent) {
            match use_ {
                Use::Discovered { by, to_start } if by == Some(generation) => {
                    graph.mark(edge, Use::Discovered { by: None, to_start });
                }
                _ => {}
            }
        }
    }

    /// The attempt of `generation` was published: drops the edges that only earlier ones used, and those that it needed
    /// to start.
    pub(crate) fn settle(&self, slots: &impl Slots, dependent: u32, generation: u64) {
        let mut graph = sync::lock(&self.graph);
        for (edge, use_) in graph.dependencies(dependent) {
            match use_ {
                // A later one is that of an attempt after this one, which is overtaken by now.
                Use::Discovered { by, .. } if by.is_none_or(|by| by < generation) => {
                    self.remove(&mut graph, slots, edge);
                }
                Use::Discovered { by, to_start: true } if by == Some(generation) => {
                    self.remove(&mut graph, slots, edge);
                }
                _ => {}
            }
        }
        // Those that were declared meanwhile count no more.
        let left = graph.dependencies(dependent).into_iter();
        let left = left.filter(|(_, use_)| *use_ != Use::Declared).count();
        slots.discovered(dependent).set(left as u32);
    }

    fn add(
        &self,
        graph: &mut Graph,
        slots: &impl Slots,
        edge: Edge,
        use_: Use,
    ) -> Result<(), Cycle> {
        while let Err(cycle) = graph.add_edge(edge, use_) {
            if !self.drop_stale(graph, slots, &cycle) {
                return Err(cycle);
            }
        }
        // No failure travels a soft edge: no cascade needs to know of it.
        if !edge.soft {
            slots.slot(edge.dependency).dependents().add(edge.dependent, &pin());
            self.changes.add();
        }
        Ok(())
    }

    /// Drops the edges on a cycle that only dead attempts used: what built on them can never be published, so
    /// they hold nothing, and a service whose dependencies turned round must not be refused for them. True where
    /// there were any. The first pair of the cycle is the edge that is to be added.
    fn drop_stale(&self, graph: &mut Graph, slots: &impl Slots, cycle: &Cycle) -> bool {
        let mut dropped = false;
        for pair in cycle.windows(2).skip(1) {
            let [dependent, dependency] = *pair else { continue };
            let alive = slots.slot(dependent).state.load().generation();
            for soft in [false, true] {
                let edge = Edge { dependent, dependency, soft };
                match graph.find(edge) {
                    Some(Use::Discovered { by, .. }) if by.is_none_or(|by| by < alive) => {
                        self.remove(graph, slots, edge);
                        dropped = true;
                    }
                    _ => {}
                }
            }
        }
        dropped
    }

    fn remove(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge) {
        graph.remove_edge(edge);
        slots.discovered(edge.dependent).remove(1);
        if !edge.soft {
            slots.slot(edge.dependency).dependents().remove(edge.dependent, &pin());
            self.changes.add();
        }
    }
}
