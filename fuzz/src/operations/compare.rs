//! The whole registry, compared with the whole model.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::{DependencyKind, Phase, ServiceStatus};

use super::{
    model::{Happened, Model, Rests, Service, To},
    op::Pick,
    outcome::{Outcome, Told},
    steps::is_soft,
    world::{Id, World},
};

impl World {
    /// Compares all that can be seen.
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
            assert_eq!(named.len(), blockers.len(), "each blocker is told once");
            assert_eq!(self.model.blockers(service), named, "blockers of {name}");
        }
        assert_eq!(self.registry.is_closed(), self.model.closed);
    }

    fn check_status(&self, service: usize, status: &ServiceStatus) {
        let expected = &self.model.services[service];
        let now = self.now;
        assert_eq!(status.id, self.ids[service].into());
        assert_eq!(*status.name, *expected.name);
        assert_eq!(
            (expected.phase, expected.generation, expected.provided, expected.waiting),
            (status.phase, status.generation, status.provided, status.waiting),
            "phase, generation, provided, waiting of {} in model and registry after {now:?}",
            status.name,
        );
        let told: BTreeMap<(&str, bool), (bool, DependencyKind)> = status
            .dependencies
            .iter()
            .map(|edge| (is_soft(edge), (edge.declared, edge.kind)))
            .collect();
        assert_eq!(told.len(), status.dependencies.len(), "no edge is told twice");
        let kind = |to: &To, rests: &Rests| match rests {
            Rests::On { .. } if to.soft => (false, DependencyKind::Soft),
            Rests::Declared => (true, DependencyKind::Hard),
            Rests::On { to_start: true, .. } => (false, DependencyKind::StartOnly),
            Rests::On { to_start: false, .. } => (false, DependencyKind::Hard),
        };
        let edges = expected.edges.iter();
        let edges: BTreeMap<(&str, bool), (bool, DependencyKind)> = edges
            .map(|(to, rests)| ((&*self.model.services[to.service].name, to.soft), kind(to, rests)))
            .collect();
        assert_eq!(edges, told, "dependencies of {} after {now:?}", status.name);

        for (soft, listed) in [(false, &status.dependents), (true, &status.watched_by)] {
            let dependents: BTreeSet<&str> = listed.iter().map(|name| &**name).collect();
            assert_eq!(dependents.len(), listed.len(), "no dependent is told twice");
            let rests_on_it = |other: &&Service| other.edges.contains_key(&To { service, soft });
            let model: BTreeSet<&str> =
                self.model.services.iter().filter(rests_on_it).map(|other| &*other.name).collect();
            assert_eq!(model, dependents, "dependents of {} after {now:?}", status.name);
        }

        let failure = status.last_failure.as_ref().map(Told::from);
        assert_eq!(self.model.last_failure(service), failure, "after {now:?}");
    }

    /// One status, as it is asked for.
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
            let expected =
                Outcome::of(self.model.read(Some(service)), |read| Outcome::Read(vec![read]));
            let actual = match id {
                Id::Value(id) => Outcome::of(self.registry.get(id), |guard| {
                    Outcome::Read(vec![super::reading::read(mainstay::Guard::instance(&guard))])
                }),
                Id::Other(id) => Outcome::of(self.registry.get(id), |_| Outcome::Nothing),
            };
            self.compare(&expected, &actual);
        }
    }

    fn check_handles(&self) {
        for attempt in &self.attempts {
            let holder = self.model.services[attempt.service].holder;
            let overtaken = holder != Some(attempt.number);
            assert_eq!(attempt.handle.is_overtaken(), overtaken, "after {:?}", self.now);
        }
    }

    /// Whoever has something to wait for no longer has been woken.
    fn check_waits(&self) {
        for wait in &self.waits {
            if let Some(end) = self.model.ends(wait.awaited) {
                let Self { now, .. } = self;
                assert!(
                    wait.woken.is_set(),
                    "{:?} ends by {end:?}, unwoken by {now:?}",
                    wait.awaited
                );
            }
        }
    }

    /// A value lives as long as it is in its place, or somebody holds it.
    fn check_values(&self) {
        let places = self.model.services.iter().filter_map(|service| service.published);
        let expected: BTreeSet<u64> = places
            .map(|read| read.serial)
            .chain(self.holds.iter().map(|(_, hold)| hold.read().serial))
            .chain(self.readers.iter().filter_map(|reader| reader.serial))
            .collect();
        assert_eq!(expected, self.alive.serials(), "values alive after {:?}", self.now);
    }

    fn check_events(&mut self) {
        let mut expected = std::mem::take(&mut self.model.events);
        let Some(told) = &self.told else { return };
        let mut told = std::mem::take(&mut *told.lock().expect("the observer does not panic"));
        self.model.check_order(&told);
        expected.sort();
        told.sort();
        assert_eq!(expected, told, "events of {:?}", self.now);
    }
}

impl Model {
    /// Who keeps a service from being ready: what is not ready although all that it is built from is.
    fn blockers(&self, service: usize) -> BTreeSet<usize> {
        let down = |service: usize| self.services[service].phase != Phase::Ready;
        if !down(service) {
            return BTreeSet::new();
        }
        let keep: Vec<usize> = self.hard_edges(service).filter(|&to| down(to)).collect();
        if keep.is_empty() {
            return BTreeSet::from([service]);
        }
        keep.into_iter().flat_map(|to| self.blockers(to)).collect()
    }

    fn hard_edges(&self, service: usize) -> impl Iterator<Item = usize> {
        let edges = self.services[service].edges.keys();
        edges.filter(|to| !to.soft).map(|to| to.service)
    }

    /// The failures of one cascade are told dependencies first.
    fn check_order(&self, told: &[Happened]) {
        let fell = |event: &&Happened| matches!(&*event.what, "failed" | "overtaken");
        let fallen: Vec<usize> =
            told.iter().filter(fell).filter_map(|event| self.named(&event.service)).collect();
        for (place, &later) in fallen.iter().enumerate() {
            for &earlier in &fallen[..place] {
                let reversed =
                    earlier != later && self.hard(|graph| graph.rests_on(earlier, later));
                assert!(!reversed, "{} was told to fail too early", self.name(earlier));
            }
        }
    }
}
