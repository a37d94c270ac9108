//! The edges of the model, and searches of them.

use mainstay::{DependencyKind, Phase};

use super::{EdgeKey, EdgeSource, Model, Service};
use crate::naive::NaiveGraph;

impl Model {
    /// Searches the graph of all edges.
    pub(crate) fn with_all_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        self.with_edges(|_, _| true, search)
    }

    /// Searches the graph of the edges along which a failure cascades now.
    pub(crate) fn with_failing_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        let is_ready = |service: usize| self.services[service].phase == Phase::Ready;
        let follows = |dependent, edge| self.always_fails(dependent, edge) || !is_ready(dependent);
        self.with_edges(|dependent, edge| !edge.soft && follows(dependent, edge), search)
    }

    /// Searches the graph of the edges along which a failure cascades whatever the phases are.
    pub(crate) fn with_always_failing_edges<R>(
        &self,
        search: impl FnOnce(NaiveGraph<'_>) -> R,
    ) -> R {
        self.with_edges(|dependent, edge| self.always_fails(dependent, edge), search)
    }

    fn always_fails(&self, dependent: usize, edge: EdgeKey) -> bool {
        let source = self.services[dependent].edges.get(&edge);
        !edge.soft && source != Some(&EdgeSource::DeclaredToStart { hard: None })
    }

    /// Searches the graph without the dead edges.
    pub(crate) fn with_live_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        self.with_edges(|dependent, edge| !self.is_dead(dependent, edge), search)
    }

    fn with_edges<R>(
        &self,
        includes: impl Fn(usize, EdgeKey) -> bool,
        search: impl FnOnce(NaiveGraph<'_>) -> R,
    ) -> R {
        let has_edge = |dependent: usize, dependency: usize| {
            [false, true].into_iter().map(|soft| EdgeKey { dependency, soft }).any(|edge| {
                self.services[dependent].edges.contains_key(&edge) && includes(dependent, edge)
            })
        };
        search(NaiveGraph { services: self.services.len(), has_edge: &has_edge })
    }

    /// Whether the attempt that used the edge last can no longer be published.
    pub(crate) fn is_dead(&self, dependent: usize, edge: EdgeKey) -> bool {
        let Service { edges, attempt, .. } = &self.services[dependent];
        match edges.get(&edge) {
            Some(EdgeSource::Discovered { attempt: last, .. }) => *attempt != Some(*last),
            _ => false,
        }
    }

    /// Returns the kind of an edge, or `None` if the service has no such edge.
    pub(crate) fn kind(&self, dependent: usize, edge: EdgeKey) -> Option<DependencyKind> {
        let source = self.services[dependent].edges.get(&edge)?;
        Some(match source {
            EdgeSource::Declared | EdgeSource::Discovered { .. } if edge.soft => {
                DependencyKind::Soft
            }
            EdgeSource::Declared | EdgeSource::DeclaredToStart { hard: Some(_) } => {
                DependencyKind::Hard
            }
            EdgeSource::DeclaredToStart { hard: None } => DependencyKind::StartOnly,
            EdgeSource::Discovered { start_only: true, .. } => DependencyKind::StartOnly,
            EdgeSource::Discovered { start_only: false, .. } => DependencyKind::Hard,
        })
    }

    /// Searches the graph of the hard edges.
    pub(crate) fn with_hard_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        let is_hard = |dependent, edge| self.kind(dependent, edge) == Some(DependencyKind::Hard);
        self.with_edges(is_hard, search)
    }

    /// Returns the services with a hard edge to a service, in the order of their registration.
    pub(crate) fn hard_dependents(&self, service: usize) -> Vec<usize> {
        let is_hard =
            |&other: &usize| self.kind(other, EdgeKey::hard(service)) == Some(DependencyKind::Hard);
        (0..self.services.len()).filter(is_hard).collect()
    }
}
