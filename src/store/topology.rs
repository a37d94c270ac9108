//! The edges of a registry: the graph behind a lock, and the words that a cascade reads without it.
//!
//! A writer changes the graph, then the list of the dependents of the dependency and its version,
//! then counts the change and invalidates the precomputed closures that it concerns. A cascade uses
//! the precomputed closure of its root (`precomputed.rs`), or follows the lists (`walk.rs`).

#[cfg(feature = "supervise")]
mod aside;
mod closures;
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;

use std::{sync::Arc, time::Duration};

pub(super) use self::closures::{Outdated, budget};
#[cfg(feature = "supervise")]
use super::groups::Groups;
use super::{
    Decision,
    dependents::Entry,
    graph::{CyclePath, DependencyKind, Edge, EdgeSource, Graph, PlaceNumber},
    precomputed::ClosureCell,
    role::Role,
    slot::Slot,
    state::Tag,
    walk::Member,
};
use crate::numbers::{Generation, ServiceIndex};
use crate::sync::{self, AtomicU64, Budget, Count, Mutex, Ordering, pin};

pub(crate) struct Topology {
    graph: Mutex<Graph>,
    changes: Changes,
    #[cfg(feature = "supervise")]
    pub(super) groups: Groups,
}

/// What the use of an edge by an attempt has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovered {
    /// Nothing: the edge is declared, this attempt has used it before, or the attempt is
    /// invalidated.
    Known,
    /// This attempt uses a discovered edge of earlier attempts.
    Used,
    /// The edge is new.
    Added,
}

/// A declaration of an edge by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) dependent: ServiceIndex,
    pub(crate) dependency: ServiceIndex,
    pub(crate) kind: DependencyKind,
    /// Only for a start-only edge: how long a ready dependent tolerates that the dependency is not
    /// ready.
    pub(crate) grace: Option<Duration>,
}

/// Why an edge was not declared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotDeclared {
    Cycle(CyclePath),
    /// The declaration has a grace period, and the dependent has a provider that is not a
    /// supervisor.
    Unsupervised,
    /// The dependent is a constant.
    Constant,
}

/// The number of edge changes: how many edges that are not soft were added or removed.
struct Changes(AtomicU64);

impl Changes {
    /// Acquire: pairs with `increment`. Lists that are read after this contain every change that is
    /// counted.
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `load`. The list is changed before the change is counted.
    fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The access of the topology and of a walk to the slots.
pub(crate) trait Slots {
    /// Returns the slot of a service.
    fn slot(&self, service: ServiceIndex) -> &Slot;

    /// Returns the number of discovered edges of a service to its dependencies, and of declared
    /// ones that attempts have made hard. An attempt that has used the same number has none to
    /// drop.
    fn discovered(&self, service: ServiceIndex) -> &Count;

    /// Returns the precomputed closure of a service.
    fn closure(&self, service: ServiceIndex) -> &ClosureCell;

    /// Returns the role of providing a service.
    fn role(&self, service: ServiceIndex) -> &Role;

    /// Returns the limit for all precomputed closures together.
    fn budget(&self) -> &Arc<Budget>;

    /// Returns whether a switch that is not completed has made a new instance of a service current:
    /// its edges that are undecided are hard.
    fn is_switched(&self, _service: ServiceIndex) -> bool {
        false
    }

    /// Aborts a switch of a service in progress, unless it is committed, or is the one `within`
    /// which the caller runs. Returns whether it is committed.
    fn decide_switch(&self, _service: ServiceIndex, _within: Option<&Decision>) -> bool {
        false
    }
}

impl Topology {
    pub(crate) fn new() -> Self {
        Self {
            graph: Mutex::default(),
            changes: Changes(AtomicU64::new(0)),
            #[cfg(feature = "supervise")]
            groups: Groups::new(),
        }
    }

    /// Returns the number of edge changes. Lists that are read after this contain every change
    /// that is counted.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load()
    }

    /// Calls `with` with the graph, under the lock. `with` must not run user code.
    pub(crate) fn read<R>(&self, with: impl FnOnce(&Graph) -> R) -> R {
        with(&sync::lock(&self.graph))
    }

    /// Adds a service without edges and returns its index.
    pub(crate) fn add_service(&self) -> ServiceIndex {
        sync::lock(&self.graph).add_service()
    }

    /// Adds a declared edge, or makes a discovered edge a declared one. Of several declarations for
    /// one pair of services the hardest one counts. A declaration that is refused changes nothing.
    /// Returns the number of the grace period, if it has changed.
    pub(crate) fn declare(
        &self,
        slots: &impl Slots,
        declaration: Declaration,
    ) -> Result<Option<u32>, NotDeclared> {
        let Declaration { dependent, dependency, kind, grace } = declaration;
        let [edge, soft_edge] = [false, true].map(|soft| Edge { dependent, dependency, soft });
        let mut graph = sync::lock(&self.graph);
        // The constant takes the role, and then reads its declared edges under this lock. So either
        // it finds the edge, or this call finds the role.
        if slots.role(dependent).is_constant() {
            return Err(NotDeclared::Constant);
        }
        if kind == DependencyKind::Soft {
            // A declared edge of a harder kind has every effect that this one would have.
            if !graph.find(edge).is_some_and(EdgeSource::is_declared) {
                self.set_source(&mut graph, slots, soft_edge, EdgeSource::Declared)
                    .map_err(NotDeclared::Cycle)?;
            }
            return Ok(None);
        }
        let before = graph.find(edge);
        let source = match (kind, before) {
            (DependencyKind::Hard, _) | (_, Some(EdgeSource::Declared)) => EdgeSource::Declared,
            (_, Some(EdgeSource::DeclaredToStart { hard })) => EdgeSource::DeclaredToStart { hard },
            // The attempt that waits for the dependency, or the instance that was built from it,
            // still needs the hard edge.
            (_, Some(found @ EdgeSource::Discovered { attempt, start_only: false }))
                if !is_dead(slots, edge, found) =>
            {
                EdgeSource::DeclaredToStart { hard: attempt }
            }
            // A switch that needs a hard edge makes it hard when it is committed.
            (_, Some(EdgeSource::Discovered { .. } | EdgeSource::Undecided { .. }) | None) => {
                EdgeSource::DeclaredToStart { hard: None }
            }
        };
        let grace = grace.filter(|_| source != EdgeSource::Declared);
        // Refused before anything has changed.
        self.admit(&mut graph, slots, edge).map_err(NotDeclared::Cycle)?;
        let mut number = None;
        if let Some(period) = grace {
            if !slots.role(dependent).declare_grace() {
                return Err(NotDeclared::Unsupervised);
            }
            number = graph.add_grace(edge, period);
        }
        self.set_source(&mut graph, slots, edge, source).map_err(NotDeclared::Cycle)?;
        if source == EdgeSource::Declared && graph.remove_grace(edge) {
            slots.role(dependent).forget_grace();
        }
        if graph.find(soft_edge) == Some(EdgeSource::Declared) {
            // `Slots::discovered` may still count it, if an attempt had discovered it before: the
            // next publication sets the number anew.
            graph.remove_edge(soft_edge);
        }
        closures::compute(&mut graph, slots, false);
        Ok(number)
    }

    /// Gives an edge a declared source, and adds it if the graph does not contain it.
    ///
    /// If it was discovered, `Slots::discovered` still counts it, because an attempt in progress
    /// may have counted it as used. The next publication sets the number anew.
    fn set_source(
        &self,
        graph: &mut Graph,
        slots: &impl Slots,
        edge: Edge,
        source: EdgeSource,
    ) -> Result<(), CyclePath> {
        match graph.find(edge) {
            Some(_) => self.mark(graph, slots, edge, source),
            None => self.add(graph, slots, edge, source)?,
        }
        Ok(())
    }

    /// Changes the source of an edge, and its entry in the list of dependents if it depends on the
    /// source.
    fn mark(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge, source: EdgeSource) {
        if let Some((place, entry)) = graph.mark(edge, source) {
            slots.slot(edge.dependency).dependents().change(place, entry, &pin());
            self.list_changed(graph, slots, edge.dependency);
        }
    }

    /// Ensures that the edge is published, and marks it as used by the attempt whose slot is in
    /// this state; if `start_only` is set, only until the publication.
    ///
    /// Adds no edge if the state has changed.
    pub(crate) fn discover(
        &self,
        slots: &impl Slots,
        edge: Edge,
        state: Tag,
        start_only: bool,
    ) -> Result<Discovered, CyclePath> {
        let mut graph = sync::lock(&self.graph);
        self.discover_in(&mut graph, slots, edge, state, start_only)
    }

    fn discover_in(
        &self,
        graph: &mut Graph,
        slots: &impl Slots,
        edge: Edge,
        state: Tag,
        start_only: bool,
    ) -> Result<Discovered, CyclePath> {
        let generation = state.generation();
        let used = |start_only| EdgeSource::Discovered { attempt: Some(generation), start_only };
        match graph.find(edge) {
            // A declared edge is permanent, so it needs no mark.
            Some(EdgeSource::Declared) => Ok(Discovered::Known),
            // Nor does a declared start-only edge, which is followed while the attempt is in
            // progress, or one that this attempt or a later one has made hard.
            Some(EdgeSource::DeclaredToStart { hard })
                if start_only || hard.is_some_and(|attempt| attempt >= generation) =>
            {
                Ok(Discovered::Known)
            }
            Some(EdgeSource::DeclaredToStart { hard: Some(_) }) => {
                let hard = Some(generation);
                self.mark(graph, slots, edge, EdgeSource::DeclaredToStart { hard });
                Ok(Discovered::Used)
            }
            // A later attempt uses the edge, so this one is invalidated. The mark of the later
            // one must stay: it prevents that the edge is removed.
            Some(EdgeSource::Discovered { attempt: Some(attempt), .. }) if attempt > generation => {
                Ok(Discovered::Known)
            }
            Some(EdgeSource::Discovered { attempt: Some(attempt), start_only: before })
                if attempt == generation =>
            {
                // This attempt has used the edge before. If one of its uses is not start-only,
                // the edge is hard.
                self.mark(graph, slots, edge, used(before && start_only));
                Ok(Discovered::Known)
            }
            // Only earlier attempts have used the edge, or a failed attempt of the same generation,
            // or a switch of an earlier generation.
            Some(EdgeSource::Discovered { .. } | EdgeSource::Undecided { .. }) => {
                self.mark(graph, slots, edge, used(start_only));
                Ok(Discovered::Used)
            }
            // The edge is new, or is hard from now on.
            Some(EdgeSource::DeclaredToStart { hard: None }) => {
                let source = EdgeSource::DeclaredToStart { hard: Some(generation) };
                self.add_counted(graph, slots, edge, state, source)
            }
            None => self.add_counted(graph, slots, edge, state, used(start_only)),
        }
    }

    /// Adds a discovered edge, or makes a declared one hard, unless the state of the dependent has
    /// changed.
    fn add_counted(
        &self,
        graph: &mut Graph,
        slots: &impl Slots,
        edge: Edge,
        state: Tag,
        source: EdgeSource,
    ) -> Result<Discovered, CyclePath> {
        // The edge is counted before the state is confirmed. A later attempt is published, which
        // moves the state, before it compares the count. So either this attempt sees that it is
        // invalidated, or the later one sees the count and removes the edge.
        let count = slots.discovered(edge.dependent);
        count.fetch_add(1);
        if !slots.slot(edge.dependent).state.confirm(state) {
            count.fetch_sub(1);
            return Ok(Discovered::Known);
        }
        let added = self.set_source(graph, slots, edge, source);
        if added.is_err() {
            count.fetch_sub(1);
        }
        added.map(|()| Discovered::Added)
    }

    /// Marks the edges that the failed attempt of `generation` used as unused. They are kept for
    /// the next attempt.
    pub(crate) fn release(&self, dependent: ServiceIndex, generation: Generation) {
        let mut graph = sync::lock(&self.graph);
        graph.mark_all(dependent, |source| match source {
            EdgeSource::Discovered { attempt, start_only } if attempt == Some(generation) => {
                EdgeSource::Discovered { attempt: None, start_only }
            }
            other => other,
        });
    }

    /// Removes the edges that the published attempt of `generation` does not need: those that
    /// only earlier attempts used, its own start-only edges, and its own edges over which it `took`
    /// no instance. A soft edge is kept if the attempt has used it, because a watch takes none. A
    /// declared start-only edge that was hard for one of these reasons is start-only again.
    ///
    /// `took` must not run user code.
    pub(crate) fn drop_unused_edges(
        &self,
        slots: &impl Slots,
        dependent: ServiceIndex,
        generation: Generation,
        took: impl Fn(Edge) -> bool,
    ) {
        let mut graph = sync::lock(&self.graph);
        let is_unused = |&(edge, source): &(Edge, EdgeSource)| match source {
            EdgeSource::Declared | EdgeSource::DeclaredToStart { hard: None } => false,
            EdgeSource::DeclaredToStart { hard: Some(attempt) } => {
                attempt < generation || attempt == generation && !took(edge)
            }
            // This attempt has used the edge.
            EdgeSource::Discovered { attempt, start_only } if attempt == Some(generation) => {
                start_only || !(edge.soft || took(edge))
            }
            // Only earlier attempts have used the edge. (An edge that a later attempt uses stays.
            // There may be one, if this attempt has failed since its publication.)
            EdgeSource::Discovered { attempt, .. } => {
                attempt.is_none_or(|attempt| attempt < generation)
            }
            // The switch was aborted, or its new instance has started on it.
            EdgeSource::Undecided { generation: of } => of <= generation,
        };
        let unused: Vec<_> = graph.dependencies(dependent).filter(is_unused).collect();
        for (edge, source) in unused {
            if source.is_declared() {
                self.mark(&mut graph, slots, edge, EdgeSource::DeclaredToStart { hard: None });
            } else {
                self.remove(&mut graph, slots, edge);
            }
        }
        closures::compute(&mut graph, slots, false);
        // The number is set anew: edges that were declared since the last publication are no longer
        // counted.
        let left = graph.dependencies(dependent);
        let left = left.filter(|(_, source)| source.is_discovered()).count();
        slots.discovered(dependent).set(left as u32);
    }

    /// Adds an edge to the graph and to the list of dependents. If it would close cycles, and each
    /// of them has dead edges, removes these first.
    fn add(
        &self,
        graph: &mut Graph,
        slots: &impl Slots,
        edge: Edge,
        source: EdgeSource,
    ) -> Result<(), CyclePath> {
        self.admit(graph, slots, edge)?;
        graph.add_edge(edge, source);
        // A cascade does not follow soft edges, so no list contains them. The lists of a registry
        // that is not built yet are published by `build`.
        if !edge.soft && graph.is_built {
            self.list(graph, slots, edge, source);
            self.list_changed(graph, slots, edge.dependency);
        }
        Ok(())
    }

    /// Ensures that an edge would close no cycle. If it would close cycles, and each of them has
    /// dead edges, removes these. If not, returns the path of a cycle.
    fn admit(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge) -> Result<(), CyclePath> {
        let is_dead = |edge, source| is_dead(slots, edge, source);
        while graph.order_for(edge).is_err() {
            if let Some(cycle) = graph.shortest_cycle(edge, |edge, source| !is_dead(edge, source)) {
                return Err(cycle);
            }
            // Each cycle has a dead edge, and a dead edge stays dead under the lock. So no cycle is
            // left after this.
            for (edge, source) in graph.edges_of_cycles(edge) {
                if is_dead(edge, source) {
                    self.remove(graph, slots, edge);
                }
            }
        }
        Ok(())
    }

    /// Removes a discovered edge from the graph and from the list of dependents.
    fn remove(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge) {
        let place = graph.remove_edge(edge);
        slots.discovered(edge.dependent).fetch_sub(1);
        if let Some(place) = place {
            self.unlist(graph, slots, edge, place);
            self.list_changed(graph, slots, edge.dependency);
        }
    }

    /// Called after each change of a list, and before the lock is released: a cascade whose check
    /// after its fence finds neither the change counted nor its closure invalid has executed its
    /// fence first.
    fn list_changed(&self, graph: &mut Graph, slots: &impl Slots, dependency: ServiceIndex) {
        self.changes.increment();
        closures::invalidate(graph, slots, dependency);
    }

    /// Computes the closures that are outdated, unless this would cost more than the changes of
    /// edges since the last time have paid for. Does nothing if another thread holds the lock: most
    /// likely it changes edges, and calls this function afterwards.
    pub(crate) fn compute_closures(&self, slots: &impl Slots) {
        if let Some(mut graph) = sync::try_lock(&self.graph) {
            closures::compute(&mut graph, slots, false);
        }
    }

    /// Called when the registry is built: publishes the lists of dependents, and computes all
    /// closures.
    ///
    /// Nothing fails before, so no cascade reads the lists. To publish each of them at once, in the
    /// order of the services in memory, costs half as much as to do it edge by edge.
    pub(crate) fn build(&self, slots: &impl Slots) {
        let mut graph = sync::lock(&self.graph);
        if !graph.is_built {
            graph.is_built = true;
            let pin = pin();
            for service in ServiceIndex::range(0..graph.len() as u32) {
                let entries = graph.renumber_places(service);
                if !entries.is_empty() {
                    slots.slot(service).dependents().copy(&entries, &pin);
                    self.list_changed(&mut graph, slots, service);
                }
            }
        }
        closures::compute(&mut graph, slots, true);
    }

    /// Keeps the result of a walk from `root` for its next failure, if no edge of its closure has
    /// changed. Does nothing if another thread holds the lock.
    pub(crate) fn keep_walk(&self, slots: &impl Slots, root: ServiceIndex, members: &[Member]) {
        if let Some(_graph) = sync::try_lock(&self.graph) {
            closures::keep_walk(slots, root, members);
        }
    }

    /// Adds the dependent of an edge to the list of its dependency.
    fn list(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge, source: EdgeSource) {
        let (dependents, pin) = (slots.slot(edge.dependency).dependents(), pin());
        let entry = Entry { dependent: edge.dependent, unless_ready: source.unless_ready() };
        match dependents.insert(entry, &pin) {
            Some(place) => graph.set_place(edge, place),
            // The list is full. The graph already contains the edge.
            None => dependents.copy(&graph.renumber_places(edge.dependency), &pin),
        }
    }

    /// Crosses out the dependent of an edge that is no longer in the graph.
    fn unlist(&self, graph: &mut Graph, slots: &impl Slots, edge: Edge, place: PlaceNumber) {
        let (dependents, pin) = (slots.slot(edge.dependency).dependents(), pin());
        if dependents.remove(place, &pin) {
            dependents.copy(&graph.renumber_places(edge.dependency), &pin);
        }
    }
}

/// Returns whether an edge is dead: only attempts have used it that can no longer be published. No
/// current instance was built over it. So a service whose dependency was reversed must not be
/// refused because of it.
fn is_dead(slots: &impl Slots, edge: Edge, source: EdgeSource) -> bool {
    match source {
        EdgeSource::Declared
        | EdgeSource::DeclaredToStart { .. }
        | EdgeSource::Undecided { .. } => false,
        // An attempt of an earlier generation than this one can no longer be published.
        EdgeSource::Discovered { attempt, .. } => attempt
            .is_none_or(|attempt| attempt < slots.slot(edge.dependent).state.load().generation()),
    }
}
