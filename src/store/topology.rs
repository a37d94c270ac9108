//! The published closures: one immutable row a service, read by `fail` under a pin, replaced under a lock.
//!
//! A row holds a service and all its transitive dependents, dependencies before dependents, so that a cascade
//! runs along it as it is. Writers change the graph, then publish every row that changed, one by one. They
//! need not appear at once: a cascade reads only the row of its own root (and of what has left it, see
//! `cascade.rs`), and an attempt that discovers an edge goes on only when all of them are out.

use super::{
    graph::{Cycle, Graph, Use},
    slot::Slot,
};
use crate::sync::{self, Count, Mutex, Pin, pin};

/// The graph behind its lock.
pub(crate) struct Topology(Mutex<Graph>);

/// What a writer needs to know of the slots.
pub(crate) trait Slots {
    fn slot(&self, service: u32) -> &Slot;

    /// How many edges of the service were discovered: an attempt that used as many has none to drop.
    fn discovered(&self, service: u32) -> &Count;
}

impl Topology {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Graph::default()))
    }

    /// For looking in. Nothing of a user's may run in `with`.
    pub(crate) fn read<R>(&self, with: impl FnOnce(&Graph) -> R) -> R {
        with(&sync::lock(&self.0))
    }

    /// The next service, without edges; its row is the one that its slot started with.
    pub(crate) fn add_service(&self) -> u32 {
        sync::lock(&self.0).add_service()
    }

    /// Declares an edge for good.
    pub(crate) fn declare(
        &self,
        slots: &impl Slots,
        dependent: u32,
        dependency: u32,
        publish: Publish,
    ) -> Result<(), Cycle> {
        let mut graph = sync::lock(&self.0);
        match graph.edge(dependent, dependency) {
            Some(Use::Declared) => Ok(()),
            Some(Use::Discovered { .. }) => {
                // It still counts as discovered: an attempt under way may have counted it as used.
                graph.mark(dependent, dependency, Use::Declared);
                Ok(())
            }
            None => add(&mut graph, slots, dependent, dependency, Use::Declared, publish),
        }
    }

    /// Makes sure that the edge is published, and marks it as used by the attempt of `generation`. True where
    /// this is a discovered edge that this attempt had not used before.
    pub(crate) fn discover(
        &self,
        slots: &impl Slots,
        dependent: u32,
        dependency: u32,
        generation: u64,
    ) -> Result<bool, Cycle> {
        let used = Use::Discovered { by: Some(generation) };
        let mut graph = sync::lock(&self.0);
        match graph.edge(dependent, dependency) {
            Some(Use::Declared) => Ok(false),
            // An attempt that is overtaken already must not take the edge from a later one.
            Some(Use::Discovered { by: Some(by) }) if by >= generation => Ok(false),
            Some(Use::Discovered { .. }) => {
                graph.mark(dependent, dependency, used);
                Ok(true)
            }
            None => {
                add(&mut graph, slots, dependent, dependency, used, Publish::Now)?;
                slots.discovered(dependent).add();
                Ok(true)
            }
        }
    }

    /// The attempt of `generation` was given up: what it used is no longer in use.
    pub(crate) fn release(&self, dependent: u32, generation: u64) {
        let graph = sync::lock(&self.0);
        let used = Use::Discovered { by: Some(generation) };
        for edge in graph.dependencies(dependent) {
            if edge.use_ == used {
                graph.mark(dependent, edge.service, Use::Discovered { by: None });
            }
        }
    }

    /// The attempt of `generation` was published: drops the edges that only earlier ones used.
    pub(crate) fn settle(&self, slots: &impl Slots, dependent: u32, generation: u64) {
        let mut graph = sync::lock(&self.0);
        for edge in graph.dependencies(dependent) {
            match edge.use_ {
                // A later one is that of an attempt after this one, which is overtaken by now.
                Use::Discovered { by } if by.is_none_or(|by| by < generation) => {
                    remove(&mut graph, slots, dependent, edge.service);
                }
                _ => {}
            }
        }
        // Those that were declared meanwhile count no more.
        let left = graph.dependencies(dependent).into_iter();
        let left = left.filter(|edge| edge.use_ != Use::Declared).count();
        slots.discovered(dependent).set(left as u32);
    }

    /// Publishes all rows: once, after many edges were declared with [`Publish::Later`].
    pub(crate) fn publish_all(&self, slots: &impl Slots) {
        let graph = sync::lock(&self.0);
        let pin = pin();
        for service in graph.leaves_first() {
            let row = graph.closure_from(service, |s| slots.slot(s).row.load(&pin));
            publish_row(slots, service, row, &pin);
        }
    }
}

/// When the rows that an edge changes are to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publish {
    Now,
    Later,
}

fn add(
    graph: &mut Graph,
    slots: &impl Slots,
    dependent: u32,
    dependency: u32,
    use_: Use,
    publish: Publish,
) -> Result<(), Cycle> {
    // Where a path leads there already, no closure gains anything, and all of them are in its order.
    let known = slots.slot(dependency).row.load(&pin()).contains(&dependent);
    loop {
        match graph.add_edge(dependent, dependency, use_) {
            Ok(()) => break,
            Err(cycle) => {
                if !drop_stale(graph, slots, &cycle) {
                    return Err(cycle);
                }
            }
        }
    }
    if publish == Publish::Now && !known {
        publish_closures(graph, slots, dependency);
    }
    Ok(())
}

/// Drops the edges on a cycle that only dead attempts used: what built on them can never be published, so
/// they hold nothing, and a service whose dependencies turned round must not be refused for them. True where
/// there were any. The first pair of the cycle is the edge that is to be added.
fn drop_stale(graph: &mut Graph, slots: &impl Slots, cycle: &Cycle) -> bool {
    let mut dropped = false;
    for pair in cycle.windows(2).skip(1) {
        let [dependent, dependency] = *pair else { continue };
        let alive = slots.slot(dependent).state.load().generation();
        match graph.edge(dependent, dependency) {
            Some(Use::Discovered { by }) if by.is_none_or(|by| by < alive) => {
                remove(graph, slots, dependent, dependency);
                dropped = true;
            }
            _ => {}
        }
    }
    dropped
}

fn remove(graph: &mut Graph, slots: &impl Slots, dependent: u32, dependency: u32) {
    graph.remove_edge(dependent, dependency);
    slots.discovered(dependent).remove();
    publish_closures(graph, slots, dependency);
}

/// Publishes the row of `service` and of all that it depends on, where they differ from what is out: these
/// are the closures that an edge to `service` changes.
fn publish_closures(graph: &Graph, slots: &impl Slots, service: u32) {
    let pin = pin();
    for changed in graph.ancestry(service) {
        publish_row(slots, changed, graph.closure(changed), &pin);
    }
}

fn publish_row(slots: &impl Slots, service: u32, row: Vec<u32>, pin: &Pin) {
    let published = &slots.slot(service).row;
    // The same members in another order that is still topological for them would do as well, but a changed
    // order may also be one that the old row has wrong.
    if **published.load(pin) != *row {
        published.publish(row.into_boxed_slice(), pin);
    }
}
