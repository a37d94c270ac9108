//! The reloads of the model: those that can be executed at once.

use mainstay::Phase;

use super::{Activity, Meaning, Model, Service};

/// The services of a reload.
#[derive(Debug, Default)]
pub(in super::super) struct Parts {
    /// Those that are built aside.
    pub(in super::super) members: Vec<usize>,
    /// Those that are restarted.
    pub(in super::super) gaps: Vec<usize>,
    /// Those that adopt new instances, each with the members whose instances these are.
    pub(in super::super) adopters: Vec<(usize, Vec<usize>)>,
}

impl Model {
    /// Returns the services of a reload, if it can be executed at once: those of the closure that
    /// are ready. All of them are up, nothing ends, and no old body stays beside a new one. If the
    /// root is not ready, there are none.
    pub(in super::super) fn parts(&self, root: usize) -> Option<Parts> {
        let mut parts = Parts::default();
        // The dependents of a service come after it. One that is ready has no dependency that is
        // not.
        for service in root..self.services.len() {
            let Service { dependencies, kind, phase, activity, body, .. } = &self.services[service];
            if *phase != Phase::Ready {
                continue;
            }
            let members = dependencies.iter().copied().filter(|it| parts.members.contains(it));
            let (adopted, built_from): (Vec<_>, Vec<_>) = members.partition(|it| kind.adopts(*it));
            let is_below_gap = dependencies.iter().any(|it| parts.gaps.contains(it));
            let is_below = service == root || is_below_gap || !built_from.is_empty();
            if !is_below && adopted.is_empty() {
                continue;
            }
            let is_up = matches!(activity, Activity::Up | Activity::Completed);
            if !is_up || self.plan.is_marked(service) {
                return None;
            }
            if !is_below {
                parts.adopters.push((service, adopted));
                continue;
            }
            let has_gap = is_below_gap || kind.is_exclusive();
            let of_reload = if has_gap { &mut parts.gaps } else { &mut parts.members };
            of_reload.push(service);
            let is_given = |it: &usize| {
                let of_reload = [&parts.members, &parts.gaps];
                of_reload.iter().any(|all| all.contains(it)) || self.available(*it).is_some()
            };
            if body.is_some_and(|takes| takes > 0) || !dependencies.iter().all(is_given) {
                return None;
            }
        }
        Some(parts)
    }

    /// New instances of the members are current. Those with a gap, and the attempts that could have
    /// received an old instance, begin again.
    pub(in super::super) fn reload(&mut self, parts: &Parts, failing_adopter: Option<usize>) {
        let now = self.now;
        for &member in &parts.members {
            let subject = &mut self.services[member];
            subject.revision += 1;
            subject.activity = Activity::Up;
            if subject.body.is_some() {
                (subject.body_runs, subject.shown) = (true, subject.count);
            }
        }
        // Each ends once: the dependents of one that is down are down, too.
        for &gap in &parts.gaps {
            self.take_down(gap, Meaning::Excused);
        }
        for service in 0..self.services.len() {
            if parts.members.contains(&service) {
                self.services[service].given = self.available_dependencies(service);
                continue;
            }
            let subject = &mut self.services[service];
            let depends = subject.dependencies.iter().any(|it| parts.members.contains(it));
            if depends && subject.phase == Phase::Starting {
                (subject.phase, subject.generation) = (Phase::Down, subject.generation + 1);
                subject.failed(Meaning::Excused, now);
            }
        }
        // In the order in which the runtime polls the supervisors. The dependents of one that fails
        // come after it, and are down then.
        for &(adopter, ref members) in &parts.adopters {
            for &member in members {
                if self.services[adopter].phase == Phase::Ready {
                    let Service { generation, revision, .. } = self.services[member];
                    self.services[adopter].adopted.push((member, generation, revision));
                    if failing_adopter == Some(adopter) {
                        self.take_down(adopter, Meaning::Failed);
                    }
                }
            }
        }
        self.run_until_idle();
    }
}
