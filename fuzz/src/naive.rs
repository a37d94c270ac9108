//! Graph walks that are too simple to be wrong. `depends(a, b)`: there is an edge from a to b, a is built
//! from b.

use std::collections::BTreeSet;

/// A question to a graph of so many services.
#[derive(Clone, Copy)]
pub(crate) struct Walk<'a> {
    pub(crate) services: usize,
    pub(crate) depends: &'a dyn Fn(usize, usize) -> bool,
}

impl Walk<'_> {
    /// A service and all that transitively depends on it: who goes down when it fails.
    pub(crate) fn closure(self, root: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        self.visit(root, &mut found);
        found
    }

    fn visit(self, service: usize, found: &mut BTreeSet<usize>) {
        if found.insert(service) {
            for dependent in (0..self.services).filter(|&other| (self.depends)(other, service)) {
                self.visit(dependent, found);
            }
        }
    }

    /// Whether a service is another one, or depends on it transitively.
    pub(crate) fn rests_on(self, service: usize, other: usize) -> bool {
        self.closure(other).contains(&service)
    }

    /// Checks a cycle as it is reported: it begins with the edge that was refused, goes along edges that are
    /// there, meets no service twice, and is closed.
    pub(crate) fn check_cycle(self, path: &[usize], dependent: usize, dependency: usize) {
        assert!(path.len() >= 2, "{path:?} is no cycle");
        assert_eq!(path[..2], [dependent, dependency], "the refused edge comes first: {path:?}");
        assert_eq!(path[path.len() - 1], dependent, "{path:?} is not closed");
        let met: BTreeSet<usize> = path[1..].iter().copied().collect();
        assert_eq!(met.len(), path.len() - 1, "{path:?} meets a service twice");
        for edge in path[1..].windows(2) {
            assert!((self.depends)(edge[0], edge[1]), "{edge:?} of {path:?} is not there");
        }
    }
}
