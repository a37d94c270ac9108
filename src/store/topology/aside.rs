//! The edges of builds aside, and of the new instances of a switch.

use super::{Discovered, Slots, Topology};
use crate::{
    numbers::{Generation, ServiceIndex},
    store::{CyclePath, Edge, graph::EdgeSource, state::Tag},
    sync,
};

#[cfg(all(test, not(any(loom, shuttle))))]
#[path = "aside_tests.rs"]
mod tests;

impl Topology {
    /// Ensures that an edge is published over which the new instance of a switch was built, in the
    /// generation of the old one. Returns whether the old instance does not need it: until
    /// [`decide_edge`](Self::decide_edge), a cascade decides the switch before it follows the edge.
    ///
    /// Adds no edge if the state of the dependent has changed.
    pub(crate) fn discover_undecided(
        &self,
        slots: &impl Slots,
        edge: Edge,
        generation: Generation,
    ) -> Result<bool, CyclePath> {
        let mut graph = sync::lock(&self.graph);
        match graph.find(edge) {
            Some(EdgeSource::DeclaredToStart { hard: None }) => Ok(true),
            Some(EdgeSource::Declared | EdgeSource::DeclaredToStart { .. }) => Ok(false),
            Some(EdgeSource::Discovered { attempt, start_only }) => {
                Ok(start_only || attempt < Some(generation))
            }
            Some(EdgeSource::Undecided { .. }) => Ok(true),
            None => {
                let source = EdgeSource::Undecided { generation };
                self.add_counted(&mut graph, slots, edge, Tag::ready(generation), source)?;
                Ok(true)
            }
        }
    }

    /// Called after the commit of a switch: the new instance is current, and needs the edge.
    pub(crate) fn decide_edge(&self, slots: &impl Slots, edge: Edge, generation: Generation) {
        let mut graph = sync::lock(&self.graph);
        let graph = &mut *graph;
        let (attempt, state) = (Some(generation), Tag::ready(generation));
        let source = match graph.find(edge) {
            Some(EdgeSource::Undecided { generation: of }) if of == generation => {
                EdgeSource::Discovered { attempt, start_only: false }
            }
            Some(EdgeSource::Discovered { attempt: before, .. }) if before <= attempt => {
                EdgeSource::Discovered { attempt, start_only: false }
            }
            Some(EdgeSource::DeclaredToStart { hard: None }) => {
                let source = EdgeSource::DeclaredToStart { hard: attempt };
                // If it was counted or not: the edges that are not used are dropped after this.
                let _ = self.add_counted(graph, slots, edge, state, source);
                return;
            }
            Some(EdgeSource::DeclaredToStart { hard }) if hard < attempt => {
                EdgeSource::DeclaredToStart { hard: attempt }
            }
            // It is hard, or a later attempt uses it.
            _ => return,
        };
        self.mark(graph, slots, edge, source);
    }

    /// Adds a soft edge that a build aside uses, unless there is one already, or a harder one.
    /// Returns whether it was added.
    pub(crate) fn discover_aside(
        &self,
        slots: &impl Slots,
        dependent: ServiceIndex,
        dependency: ServiceIndex,
        generation: Generation,
    ) -> Result<bool, CyclePath> {
        let [edge, soft] = [false, true].map(|soft| Edge { dependent, dependency, soft });
        let mut graph = sync::lock(&self.graph);
        if graph.find(edge).or(graph.find(soft)).is_some() {
            return Ok(false);
        }
        let added = self.discover_in(&mut graph, slots, soft, Tag::ready(generation), false)?;
        Ok(added == Discovered::Added)
    }

    /// Removes soft edges that `discover_aside` has added, unless they were declared since.
    pub(crate) fn release_aside(
        &self,
        slots: &impl Slots,
        dependent: ServiceIndex,
        dependencies: &[ServiceIndex],
    ) {
        let mut graph = sync::lock(&self.graph);
        for &dependency in dependencies {
            let edge = Edge { dependent, dependency, soft: true };
            if graph.find(edge).is_some_and(EdgeSource::is_discovered) {
                self.remove(&mut graph, slots, edge);
            }
        }
    }
}
