//! Compares the whole registry with the whole model.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::{DependencyKind, Guard, Phase, ServiceStatus};

use super::{
    edges::is_soft,
    model::{Awaited, EdgeKey, Model, RecordedEvent, STOP_ENDED, Service},
    op::Pick,
    outcome::{FailureSummary, Outcome},
    reading::instance_id,
    waits::state_of,
    world::{Id, World},
};

impl World {
    /// Compares everything that a user can observe.
    pub(crate) fn check(&mut self) {
        self.check_listing();
        self.check_reads();
        self.check_handles();
        self.check_waits();
        self.check_values();
        self.check_events();
    }

    fn check_listing(&self) {
        let listing = self.registry.list();
        assert_eq!(listing.services.len(), self.ids.len());
        for (service, status) in listing.services.iter().enumerate() {
            self.check_status(service, status);
        }
        for (service, Service { name, .. }) in self.model.services.iter().enumerate() {
            let blockers = listing.blockers(name);
            let named: BTreeSet<usize> =
                blockers.iter().filter_map(|status| self.model.named(&status.name)).collect();
            assert_eq!(named.len(), blockers.len(), "each blocker must be listed once");
            assert_eq!(self.model.blockers(service), named, "blockers of {name}");
        }
        assert_eq!(self.registry.is_closed(), self.model.closed);
    }

    fn check_status(&self, service: usize, status: &ServiceStatus) {
        let expected = &self.model.services[service];
        let op = self.op;
        assert_eq!(status.id, self.ids[service].into());
        assert_eq!(*status.name, *expected.name);
        assert_eq!(
            (expected.phase, expected.generation, expected.has_provider, expected.waiters),
            (status.phase, status.generation.get(), status.has_provider, status.waiters),
            "phase, generation, provider, waiters of {} in model and registry after {op:?}",
            status.name,
        );
        let listed: BTreeMap<(&str, bool), (bool, DependencyKind)> = status
            .dependencies
            .iter()
            .map(|edge| (is_soft(edge), (edge.declared, edge.kind)))
            .collect();
        assert_eq!(listed.len(), status.dependencies.len(), "each edge must be listed once");
        let edges = expected.edges.iter();
        let edges: BTreeMap<(&str, bool), (bool, DependencyKind)> = edges
            .map(|(edge, source)| {
                let name = &*self.model.services[edge.dependency].name;
                let kind = self.model.kind(service, *edge).expect("the edge exists");
                ((name, edge.soft), (source.is_declared(), kind))
            })
            .collect();
        assert_eq!(edges, listed, "dependencies of {} after {op:?}", status.name);

        for (soft, names) in [(false, &status.dependents), (true, &status.watched_by)] {
            let dependents: BTreeSet<&str> = names.iter().map(|name| &**name).collect();
            assert_eq!(dependents.len(), names.len(), "each dependent must be listed once");
            let has_edge =
                |other: &&Service| other.edges.contains_key(&EdgeKey { dependency: service, soft });
            let model: BTreeSet<&str> =
                self.model.services.iter().filter(has_edge).map(|other| &*other.name).collect();
            assert_eq!(model, dependents, "dependents of {} after {op:?}", status.name);
        }

        assert_eq!(
            (expected.built, expected.failed, expected.replaced, self.model.state(service)),
            (status.built, status.failed, status.replaced, state_of(status.state())),
            "built, failed, replaced, state of {} in model and registry after {op:?}",
            status.name,
        );
        let mut built_from = BTreeMap::new();
        for from in &status.built_from {
            let dependency = self.model.named(&from.name).expect("a service of the registry");
            let start_only = from.kind == DependencyKind::StartOnly;
            let listed = (from.generation.get(), from.revision);
            let before = built_from.insert((dependency, start_only), listed);
            assert_eq!(before, None, "each instance must be listed once");
        }
        let current = expected.phase == Phase::Ready;
        let model = if current { expected.built_from.clone() } else { BTreeMap::new() };
        assert_eq!(model, built_from, "built from, of {} after {op:?}", status.name);
        let awaited = self.waits.iter().filter_map(|wait| match wait.awaited {
            Awaited::Dependency { service: dependent, attempt, dependency, .. }
                if dependent == service && self.model.is_current(service, attempt) =>
            {
                dependency
            }
            _ => None,
        });
        let awaited: Vec<String> = awaited.map(|dependency| self.model.name(dependency)).collect();
        match &status.waiting_for {
            Some(name) => assert!(awaited.contains(&name.to_string()), "waits for {name}"),
            None => assert_eq!(awaited, [""; 0], "{} waits after {op:?}", status.name),
        }

        let failure = status.last_failure.as_ref().map(FailureSummary::from);
        assert_eq!(self.model.last_failure(service), failure, "after {op:?}");
    }

    /// Checks the status of one service.
    pub(crate) fn status(&mut self, pick: Pick) {
        let (service, id) = self.any(pick);
        let status = self.registry.status(id);
        assert_eq!(status.is_ok(), service.is_some(), "only a foreign id is refused");
        if let (Some(service), Ok(status)) = (service, status) {
            self.check_status(service, &status);
        }
    }

    fn check_reads(&self) {
        for (service, &id) in self.ids.iter().enumerate() {
            let expected = Outcome::of(self.model.read(Some(service)), |instance| {
                Outcome::Instances(vec![instance])
            });
            let actual = match id {
                Id::Value(id) => Outcome::of(self.registry.get(id), |guard| {
                    Outcome::Instances(vec![instance_id(Guard::instance(&guard))])
                }),
                Id::Other(id) => Outcome::of(self.registry.get(id), |_| Outcome::OtherInstance),
            };
            self.compare(&expected, &actual);
        }
    }

    fn check_handles(&self) {
        for attempt in &self.attempts {
            let invalidated = !self.model.is_current(attempt.service, attempt.number);
            assert_eq!(attempt.handle.is_invalidated(), invalidated, "after {:?}", self.op);
        }
    }

    /// Checks that each wait that can end has been woken.
    fn check_waits(&self) {
        for wait in &self.waits {
            if let Some(result) = self.model.wait_result(wait.awaited) {
                let Self { op, .. } = self;
                assert!(
                    wait.woken.is_set(),
                    "{:?} can end with {result:?}, but {op:?} did not wake it",
                    wait.awaited
                );
            }
        }
    }

    /// Checks that a value lives exactly as long as it is in its slot or a reader holds it.
    fn check_values(&self) {
        let published = self.model.services.iter().filter_map(|service| service.published);
        let expected: BTreeSet<u64> = published
            .map(|instance| instance.serial)
            .chain(self.held.iter().map(|(_, instance)| instance.id().serial))
            .chain(self.readers.iter().filter_map(|reader| reader.serial))
            .collect();
        assert_eq!(expected, self.live_values.serials(), "values live after {:?}", self.op);
    }

    fn check_events(&mut self) {
        let mut expected = std::mem::take(&mut self.model.events);
        let turns = std::mem::take(&mut self.model.turns);
        let Some(recorded) = &self.recorded else { return };
        let mut recorded =
            std::mem::take(&mut *recorded.lock().expect("the observer does not panic"));
        if turns > 0 {
            check_order_of_turns(&expected, &recorded);
        } else {
            self.model.check_order(&recorded);
        }
        expected.sort();
        recorded.sort();
        assert_eq!(expected, recorded, "events of {:?}", self.op);
    }
}

impl Model {
    /// Returns the services that prevent a service from being ready: those that are not ready,
    /// although all their dependencies are.
    fn blockers(&self, service: usize) -> BTreeSet<usize> {
        let is_down = |service: usize| self.services[service].phase != Phase::Ready;
        if !is_down(service) {
            return BTreeSet::new();
        }
        let causes: Vec<usize> =
            self.dependencies(service).filter(|&other| is_down(other)).collect();
        if causes.is_empty() {
            return BTreeSet::from([service]);
        }
        causes.into_iter().flat_map(|other| self.blockers(other)).collect()
    }

    /// Returns the dependencies over hard and start-only edges.
    fn dependencies(&self, service: usize) -> impl Iterator<Item = usize> {
        let edges = self.services[service].edges.keys();
        edges.filter(|edge| !edge.soft).map(|edge| edge.dependency)
    }

    /// Checks that the failures of one cascade are reported dependencies first.
    fn check_order(&self, recorded: &[RecordedEvent]) {
        let is_failure =
            |event: &&RecordedEvent| matches!(&*event.what, "failed" | "invalidated" | "stopped");
        let failures = recorded.iter().filter(is_failure);
        let failed: Vec<usize> = failures.filter_map(|event| self.named(&event.service)).collect();
        for (index, &later) in failed.iter().enumerate() {
            for &earlier in &failed[..index] {
                let reversed = earlier != later
                    && self.with_always_failing_edges(|graph| graph.depends_on(earlier, later));
                assert!(
                    !reversed,
                    "the failure of {} was reported before that of its dependency",
                    self.name(earlier)
                );
            }
        }
    }
}

/// Checks the order of the turns of planned ends. Each turn has a cascade of its own, so the
/// failures of all turns have no order by dependencies. The model checks S4.
fn check_order_of_turns(expected: &[RecordedEvent], recorded: &[RecordedEvent]) {
    let ends = |events: &[RecordedEvent]| {
        let ends = events.iter().filter(|event| event.what == STOP_ENDED);
        ends.map(|event| event.service.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ends(expected), ends(recorded), "the order of the turns");
}
