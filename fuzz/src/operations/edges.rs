//! Declarations, and the edges that a request adds or removes.

use mainstay::{Dependency, DependencyKind};

use super::{
    model::{EdgeKey, EdgeSource},
    op::Pick,
    outcome::{Outcome, Refusal},
    world::World,
};

/// Returns the name of a dependency, and whether the edge is soft.
pub(crate) fn is_soft(dependency: &Dependency) -> (&str, bool) {
    (&dependency.name, dependency.kind == DependencyKind::Soft)
}

impl World {
    pub(crate) fn declare(&mut self, dependent: Pick, dependency: Pick, kind: DependencyKind) {
        let ((a, dependent), (b, dependency)) = (self.any(dependent), self.any(dependency));
        let depends = self.registry.depends(dependent);
        let (soft, source, declared) = match kind {
            DependencyKind::Soft => (true, EdgeSource::Declared, depends.soft_on(dependency)),
            DependencyKind::StartOnly => {
                let source = EdgeSource::DeclaredToStart { hard: None };
                (false, source, depends.to_start_on(dependency))
            }
            _ => (false, EdgeSource::Declared, depends.on(dependency)),
        };
        let actual = Outcome::of(declared, |_| Outcome::Done);
        match a.zip(b) {
            Some((a, b)) => {
                let edges = &mut self.model.services[a].edges;
                let is_declared = |source: &EdgeSource| source.is_declared();
                let soft_edge = EdgeKey { dependency: b, soft: true };
                // Of two declarations for one pair the harder one counts.
                if soft && edges.get(&EdgeKey::hard(b)).is_some_and(is_declared) {
                    return self.compare(&Outcome::Done, &actual);
                }
                if !soft
                    && actual == Outcome::Done
                    && edges.get(&soft_edge).is_some_and(is_declared)
                {
                    edges.remove(&soft_edge);
                }
                if self.edge_added(a, EdgeKey { dependency: b, soft }, source, &actual) {
                    self.compare(&Outcome::Done, &actual);
                }
            }
            None => self.compare(&Outcome::Refused(Refusal::Foreign), &actual),
        }
    }

    /// Updates the model after a request for an edge. Returns false if the registry refused the
    /// edge, and had to.
    ///
    /// The edge must be refused if live edges lead the other way. If only dead edges do, the
    /// registry removes as many of them as necessary, and may choose which ones.
    pub(crate) fn edge_added(
        &mut self,
        a: usize,
        edge: EdgeKey,
        source: EdgeSource,
        actual: &Outcome,
    ) -> bool {
        let b = edge.dependency;
        let was_dead = self.model.is_dead(a, edge);
        if let Some(known) = self.model.services[a].edges.get_mut(&edge) {
            *known = match (*known, source) {
                (EdgeSource::Declared, _) => EdgeSource::Declared,
                (
                    EdgeSource::DeclaredToStart { hard },
                    EdgeSource::Discovered { attempt, start_only: false },
                ) => EdgeSource::DeclaredToStart { hard: hard.max(Some(attempt)) },
                (EdgeSource::DeclaredToStart { hard }, EdgeSource::Discovered { .. })
                | (EdgeSource::DeclaredToStart { hard }, EdgeSource::DeclaredToStart { .. }) => {
                    EdgeSource::DeclaredToStart { hard }
                }
                // The attempt, or its instance, still needs the hard edge.
                (
                    EdgeSource::Discovered { attempt, start_only: false },
                    EdgeSource::DeclaredToStart { .. },
                ) if !was_dead => EdgeSource::DeclaredToStart { hard: Some(attempt) },
                // An invalidated attempt does not take an edge from a later attempt.
                (
                    EdgeSource::Discovered { attempt: later, .. },
                    EdgeSource::Discovered { attempt, .. },
                ) if later > attempt => *known,
                // If an attempt uses a service also after its start, the edge stays hard.
                (
                    EdgeSource::Discovered { attempt: before, start_only: false },
                    EdgeSource::Discovered { attempt, .. },
                ) if before == attempt => *known,
                _ => source,
            };
            return true;
        }
        // An invalidated attempt adds no edge, so it closes no cycle.
        if let EdgeSource::Discovered { attempt, .. } = source
            && !self.model.is_current(a, attempt)
        {
            return true;
        }
        let refused = self.model.with_live_edges(|graph| graph.depends_on(b, a));
        self.adopt_dropped_edges(a, b);
        if refused {
            match actual {
                Outcome::Refused(Refusal::Cycle(path)) => {
                    let service = |name: &String| self.model.named(name);
                    let path: Vec<usize> = path.iter().filter_map(service).collect();
                    self.model.with_live_edges(|graph| graph.check_cycle(&path, a, b));
                }
                other => panic!("{a} -> {b} closes a cycle, but was not refused: {other:?}"),
            }
            return false;
        }
        assert!(
            !self.model.with_all_edges(|graph| graph.depends_on(b, a)),
            "{a} -> {b} was accepted, and closes a cycle"
        );
        self.model.services[a].edges.insert(edge, source);
        true
    }

    /// Removes the edges that the registry has removed to accept `a -> b`: dead edges on the paths
    /// from `b` to `a`.
    fn adopt_dropped_edges(&mut self, a: usize, b: usize) {
        if !self.model.with_all_edges(|graph| graph.depends_on(b, a)) {
            return;
        }
        let mut removed = Vec::new();
        for (dependent, service) in self.model.services.iter().enumerate() {
            let status =
                self.registry.status(self.ids[dependent]).expect("the id is of this registry");
            let listed: Vec<(&str, bool)> = status.dependencies.iter().map(is_soft).collect();
            let is_removed = |edge: &EdgeKey| {
                let name = &*self.model.services[edge.dependency].name;
                !listed.contains(&(name, edge.soft))
            };
            let missing = service.edges.keys().copied().filter(is_removed);
            removed.extend(missing.map(|edge| (dependent, edge)));
        }
        for &(dependent, edge) in &removed {
            let is_on_path = self.model.with_all_edges(|graph| {
                graph.depends_on(b, dependent) && graph.depends_on(edge.dependency, a)
            });
            let is_dead = self.model.is_dead(dependent, edge);
            assert!(is_dead && is_on_path, "{dependent} -> {edge:?} was removed for {a} -> {b}");
        }
        for (dependent, edge) in removed {
            self.model.services[dependent].edges.remove(&edge);
        }
    }
}
