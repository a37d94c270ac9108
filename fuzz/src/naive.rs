//! Searches of a graph that are simple enough to be obviously correct. `has_edge(a, b)`: the edge
//! `a -> b` exists, so `a` is built from `b`.

use std::collections::BTreeSet;

/// A graph of this number of services.
#[derive(Clone, Copy)]
pub(crate) struct NaiveGraph<'a> {
    pub(crate) services: usize,
    pub(crate) has_edge: &'a dyn Fn(usize, usize) -> bool,
}

impl NaiveGraph<'_> {
    /// Returns a service and all its transitive dependents: the services that fail together with
    /// it.
    pub(crate) fn closure(self, root: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.visit(root, &mut found);
        found
    }

    fn visit(self, service: usize, found: &mut BTreeSet<usize>) {
        if found.insert(service) {
            for dependent in (0..self.services).filter(|&other| (self.has_edge)(other, service)) {
                self.visit(dependent, found);
            }
        }
    }

    /// Whether the services are the same, or the first one depends on the second one, directly or
    /// through others.
    pub(crate) fn depends_on(self, service: usize, other: usize) -> bool {
        self.closure(other).contains(&service)
    }

    /// Checks a reported cycle: it begins with the refused edge, follows existing edges, contains
    /// no service twice, and ends where it began.
    pub(crate) fn check_cycle(self, path: &[usize], dependent: usize, dependency: usize) {
        assert!(path.len() >= 2, "{path:?} is not a cycle");
        assert_eq!(path[..2], [dependent, dependency], "{path:?} must begin with the refused edge");
        assert_eq!(path[path.len() - 1], dependent, "{path:?} is not closed");
        let visited: BTreeSet<usize> = path[1..].iter().copied().collect();
        assert_eq!(visited.len(), path.len() - 1, "{path:?} contains a service twice");
        for edge in path[1..].windows(2) {
            assert!(
                (self.has_edge)(edge[0], edge[1]),
                "the edge {edge:?} of {path:?} does not exist"
            );
        }
    }
}
