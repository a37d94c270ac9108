//! The coordinator of a reload (S21): finds the members, asks their supervisors to build them
//! aside, and executes the switch.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    gaps::{self, Finder, GapPolicy, Parts, RestartedGap, Restarting},
    reload_retry::Retry,
    reload_root::{NewRoot, Root},
};
use crate::{
    error::{DependencyUnavailable, MustAwaitError, NotReloadable, ReloadError},
    event::EventKind,
    failure::Reason,
    instance::InstanceNumber,
    numbers::{Generation, ServiceIndex},
    registry::{
        Abandoned, Aside, Begun, CheckedService, Gap, MissingMember, Refusal, Registry, Reload,
        ReloadCheck, ReloadKind, ReloadRequest, Reloaded, ReloadedService, RestartedService,
        cycle_error,
    },
    service::{AnyId, ServiceName},
    store::{Adopter, Member, NotSwitched, Outsiders, Store, Switch},
    sync::Shielded,
    waiting::sealed::WaitSlots,
};

/// How often all members are built for one call.
const MOST_TRIES: u32 = 16;

/// A reload, or a check, of one call. The first check of the wait begins it.
pub struct Coordinator<R: Root> {
    registry: Registry,
    id: AnyId,
    pub(super) gap_policy: GapPolicy,
    pub(super) root: R,
    /// `None` before the first check, and after the end.
    request: Option<ReloadRequest>,
    course: Course,
    tries: u32,
    /// What retries it after a refusal.
    pub(super) retry: Option<Box<Retry>>,
    /// The services with a gap of the present try.
    gaps: Vec<RestartedGap>,
    /// The services of the present try that adopt new instances.
    adopters: Vec<(ServiceIndex, Adopter)>,
    /// Members of earlier tries whose builds have waited for a service with a gap, and that one.
    forced: BTreeMap<ServiceIndex, ServiceIndex>,
}

enum Course {
    /// It has not begun, or begins anew.
    Begins,
    /// It waits for the end of another one.
    Behind(Arc<Reload>),
    /// Its members are asked.
    Building(Arc<Reload>),
    /// It was refused, and is retried at this time.
    Paused(Instant, Box<ReloadError>),
    /// It is switched, and services with a gap are down.
    Restarting(Box<Restarting>),
    Over,
}

/// A reload that has succeeded.
#[derive(Clone)]
pub struct Done {
    /// Empty after a check.
    numbers: HashMap<ServiceIndex, Revisions>,
    asides: Vec<(ServiceIndex, Aside)>,
    /// Those of a check.
    gaps: Vec<Gap>,
    switch_took: Option<Duration>,
    /// Empty after a check.
    restarted: Vec<RestartedService>,
    gap_took: Option<Duration>,
}

/// What follows a step.
enum Step {
    Again,
    Wait,
    End(Result<Done, ReloadError>),
}

impl<R: Root> Coordinator<R> {
    pub(super) fn new(registry: &Registry, id: AnyId, root: R) -> Self {
        Self {
            registry: registry.clone(),
            id,
            gap_policy: GapPolicy::Exclusive,
            root,
            request: None,
            course: Course::Begins,
            tries: 0,
            retry: None,
            gaps: Vec::new(),
            adopters: Vec::new(),
            forced: BTreeMap::new(),
        }
    }

    pub(super) fn store(&self) -> &Store {
        self.registry.store()
    }

    fn is_check() -> bool {
        R::KIND == ReloadKind::Check
    }

    pub(super) fn check(&mut self) -> Option<Result<Done, ReloadError>> {
        let root = match self.registry.index(self.id) {
            Ok(root) => root,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        let result = loop {
            match self.step(root) {
                Step::Again => {}
                Step::Wait => return None,
                Step::End(result) => break result,
            }
        };
        match result {
            Err(error) if self.pause(root, &error) => None,
            result => {
                self.end();
                if let Err(error) = &result {
                    self.report(root, error);
                }
                Some(result)
            }
        }
    }

    fn step(&mut self, root: ServiceIndex) -> Step {
        if let Course::Restarting(restarting) = &mut self.course {
            // Whatever happens now, it is switched.
            return match restarting.check(&self.registry) {
                Some(done) => Step::End(Ok(done)),
                None => Step::Wait,
            };
        }
        let name = || self.store().name(root);
        if self.registry.is_closed() {
            return Step::End(Err(ReloadError::Closed { root: name() }));
        }
        let supervisors = self.registry.supervisors();
        if supervisors.plan.has_shutdown_begun() {
            return Step::End(Err(ReloadError::ShuttingDown { root: name() }));
        }
        let is_superseded = |request| supervisors.reloads.is_superseded(request);
        if self.request.as_ref().is_some_and(is_superseded) {
            return Step::End(Err(ReloadError::Superseded { root: name() }));
        }
        match &self.course {
            Course::Begins => match self.begin(root) {
                Ok(()) => Step::Again,
                Err(error) => Step::End(Err(error)),
            },
            Course::Behind(earlier) => {
                if !earlier.is_over() {
                    return Step::Wait;
                }
                self.course = Course::Begins;
                Step::Again
            }
            Course::Building(reload) => {
                let reload = Arc::clone(reload);
                if let Some(prepared) = reload.begin_switch() {
                    self.switch(root, &reload, prepared)
                } else if reload.is_over() {
                    self.refused(root, &reload)
                } else {
                    Step::Wait
                }
            }
            Course::Paused(..) | Course::Restarting(_) | Course::Over => Step::Wait,
        }
    }

    /// Begins the reload, or finds the one for whose end it must wait.
    fn begin(&mut self, root: ServiceIndex) -> Result<(), ReloadError> {
        let registry = self.registry.clone();
        let (store, supervisors) = (registry.store(), registry.supervisors());
        let request = match self.request {
            Some(request) => request,
            None => {
                let (request, superseded) = supervisors.reloads.request(root, Self::is_check());
                self.request = Some(request);
                if let Some(superseded) = superseded {
                    superseded.abandon(store, Abandoned::Superseded);
                }
                // An older one may wait that has not begun.
                store.wake(root);
                request
            }
        };
        if !store.is_ready(root) {
            return Err(self.not_ready(root));
        }
        let (kind, policy, forced) = (R::KIND, self.gap_policy, &self.forced);
        let Parts { members, gaps, adopters } =
            Finder { registry: &registry, kind, policy, forced }.find(root)?;
        if members.first().or(gaps.first().map(|gap| &gap.service)) != Some(&root) {
            // It has failed since then.
            return Err(self.not_ready(root));
        }
        let restarted = gaps.iter().map(|gap| gap.service).collect();
        let adopting = adopters.iter().cloned().collect();
        (self.gaps, self.adopters) = (gaps, adopters);
        let reload = Reload::new(root, members, restarted, adopting, R::KIND, supervisors.now());
        match supervisors.reloads.begin(&request, &reload) {
            Begun::Superseded => Err(ReloadError::Superseded { root: store.name(root) }),
            Begun::After(earlier) => {
                self.course = Course::Behind(earlier);
                Ok(())
            }
            Begun::Now => {
                self.course = Course::Building(Arc::clone(&reload));
                self.tries += 1;
                self.ask(root, &reload)
            }
        }
    }

    /// Asks the supervisors of the members to build them aside.
    fn ask(&self, root: ServiceIndex, reload: &Arc<Reload>) -> Result<(), ReloadError> {
        let store = self.store();
        let given = self.root.prepare(store, reload);
        let given =
            given.map_err(|failure| ReloadError::Failed { root: store.name(root), failure })?;
        if let NewRoot(Some(given)) = given {
            // It is refused if the reload is over: the next step finds that.
            let _ = reload.prepared(store, given, Duration::ZERO);
        }
        for &member in reload.asked() {
            let control = self.registry.supervisors().control(member);
            if !control.is_some_and(|control| control.request_reload(reload)) {
                reload.refused(store, member, Refusal::NotUp);
                break;
            }
            store.wake(member);
        }
        Ok(())
    }

    fn not_ready(&self, root: ServiceIndex) -> ReloadError {
        ReloadError::NotReady(DependencyUnavailable::not_ready_now(&self.registry, root))
    }

    /// Executes the switch.
    fn switch(
        &mut self,
        root: ServiceIndex,
        reload: &Arc<Reload>,
        members: Vec<Box<dyn Member>>,
    ) -> Step {
        let registry = self.registry.clone();
        let (store, supervisors) = (registry.store(), registry.supervisors());
        let asides = reload.asides();
        if Self::is_check() {
            reload.not_switched(store);
            drop(members);
            let gaps = gaps::shown(&registry, &self.gaps);
            return Step::End(Ok(Done { gaps, ..Done::new(HashMap::new(), asides, None) }));
        }
        let (observed_at, begun) = (registry.now_if_observed(), supervisors.now());
        let (gaps, adopters) = (reload.gaps(), reload.adopters());
        let outsiders = Outsiders { root, gaps, adopters };
        let Switch { result, failed, members } =
            store.switch(members, outsiders, reload.decision());
        self.gaps.extend(gaps::taken_down(&registry, gaps, &failed));
        registry.report_failed(failed, observed_at);
        let Err(not_switched) = result else {
            let switched_at = supervisors.now();
            let switch_took = switched_at.zip(begun);
            let switch_took = switch_took.map(|(now, begun)| now.saturating_duration_since(begun));
            reload.switched(store);
            self.ask_to_adopt();
            for member in &members {
                if let Some(control) = supervisors.control(member.service()) {
                    control.clear_stale();
                }
            }
            for member in &members {
                let (index, InstanceNumber { generation, revision }) =
                    (member.service(), member.number());
                let (zero, kind) = (Duration::ZERO, EventKind::Replaced);
                registry.emit_numbered(index, generation, revision, zero, kind);
            }
            let numbers = members.iter().map(|member| {
                let InstanceNumber { generation, revision: to } = member.number();
                let revisions = Revisions { generation, from: member.old_number().revision, to };
                (member.service(), revisions)
            });
            let done = Done::new(numbers.collect(), asides, switch_took);
            if self.gaps.is_empty() {
                return Step::End(Ok(done));
            }
            self.end();
            let restarting = Restarting::new(done, switched_at, mem::take(&mut self.gaps));
            self.course = Course::Restarting(Box::new(restarting));
            return Step::Again;
        };
        // Before the end, after which another reload may begin.
        drop(members);
        reload.not_switched(store);
        supervisors.reloads.forget(reload);
        self.course = Course::Begins;
        let name = |service| store.name(service);
        let service = match not_switched {
            NotSwitched::Changed(service) | NotSwitched::Joined(service) => service,
            NotSwitched::NeedsGap { member, dependency } => {
                self.forced.insert(member, dependency);
                member
            }
            NotSwitched::Dependency { member, dependency } => {
                let (root, service, dependency) = (name(root), name(member), name(dependency));
                let error = ReloadError::DependencyChanged { root, service, dependency };
                return Step::End(Err(error));
            }
            NotSwitched::Cycle(path) => {
                let (root, cycle) = (name(root), cycle_error(store, path));
                return Step::End(Err(ReloadError::Cycle { root, cycle }));
            }
        };
        self.begin_anew(root, service)
    }

    /// Asks the adopters, after the switch.
    fn ask_to_adopt(&self) {
        for (service, Adopter { generation, dependencies }) in &self.adopters {
            let Some(control) = self.registry.supervisors().control(*service) else { continue };
            for &dependency in dependencies {
                control.request_adoption(*generation, dependency);
            }
            self.store().wake(*service);
        }
    }

    /// Returns the names of the services that adopt new instances.
    pub(super) fn adopters(&self) -> Vec<ServiceName> {
        self.adopters.iter().map(|(adopter, _)| self.store().name(*adopter)).collect()
    }

    /// Begins a new try after this service has changed, if it is possible.
    fn begin_anew(&mut self, root: ServiceIndex, changed: ServiceIndex) -> Step {
        let before = self.retry.as_ref().map_or(0, |retry| retry.tries_before);
        if self.root.take_back() && self.tries < before + MOST_TRIES {
            return Step::Again;
        }
        let name = |service| self.store().name(service);
        let (root, service, tries) = (name(root), name(changed), self.tries);
        Step::End(Err(ReloadError::Changed { root, service, tries }))
    }

    /// Returns what follows a reload that another thread has abandoned.
    fn refused(&mut self, root: ServiceIndex, reload: &Arc<Reload>) -> Step {
        let why = reload.take_why().map(Shielded::into_inner);
        let Some(Abandoned::Refused(service, refusal)) = why else {
            return Step::End(Err(ReloadError::Superseded { root: self.store().name(root) }));
        };
        if let Refusal::NeedsGap(dependency) = refusal {
            self.forced.insert(service, dependency);
            self.registry.supervisors().reloads.forget(reload);
            self.course = Course::Begins;
            return self.begin_anew(root, service);
        }
        Step::End(Err(self.refused_by(root, service, refusal)))
    }

    fn refused_by(
        &self,
        root: ServiceIndex,
        service: ServiceIndex,
        refusal: Refusal,
    ) -> ReloadError {
        let store = self.store();
        let (root, name) = (store.name(root), store.name(service));
        match refusal {
            Refusal::NeedsGap(_) => ReloadError::Changed { root, service: name, tries: self.tries },
            Refusal::Build(Reason::Error(error)) => {
                ReloadError::Refused { root, service: name, error }
            }
            Refusal::Build(reason) => {
                let error = Arc::from(Box::from(reason.to_string()));
                ReloadError::Refused { root, service: name, error }
            }
            Refusal::Cycle(cycle) => ReloadError::Cycle { root, cycle },
            Refusal::Failed(failure) => ReloadError::Failed { root, failure },
            Refusal::Stopping(Reason::Closed) => ReloadError::Closed { root },
            Refusal::Stopping(Reason::ShutDown) => ReloadError::ShuttingDown { root },
            Refusal::Stopping(reason) => ReloadError::Stopping { root, service: name, reason },
            Refusal::NotUp => {
                let control = self.registry.supervisors().control(service);
                let why = control.map_or(NotReloadable::ByHand, |control| {
                    let state = control.not_reloadable();
                    NotReloadable::NotUp(state.unwrap_or_else(|| control.state()))
                });
                ReloadError::NotReloadable { root, service: name, why }
            }
        }
    }

    /// Pauses before the next try after a refusal, if the reload is retried and this may help.
    /// Returns whether it does.
    fn pause(&mut self, root: ServiceIndex, error: &ReloadError) -> bool {
        let Some(now) = self.registry.supervisors().now() else { return false };
        let Some(retry) = &mut self.retry else { return false };
        let until = match error.may_be_mended(R::KIND == ReloadKind::Given) {
            true => retry.next_try(now, self.tries),
            false => None,
        };
        // A time beyond the range of `Instant` never comes.
        let Some(until) = until else { return false };
        self.abandon();
        self.forced.clear();
        self.course = Course::Paused(until, Box::new(error.clone()));
        self.report(root, error);
        true
    }

    /// Returns when the next try begins, if the coordinator pauses before it.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        match &self.course {
            Course::Paused(until, _) => Some(*until),
            _ => None,
        }
    }

    /// Ends a pause. Returns the output if there is no next try: a build has kept the value.
    pub(super) fn resume(&mut self) -> Option<R::Output> {
        match mem::replace(&mut self.course, Course::Begins) {
            Course::Paused(_, error) if !self.root.take_back() => {
                self.end();
                Some(self.output(Err(*error)))
            }
            Course::Paused(..) => None,
            course => {
                self.course = course;
                None
            }
        }
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Abandons the reload, if it is in progress.
    fn abandon(&mut self) {
        if let Course::Building(reload) = mem::replace(&mut self.course, Course::Over) {
            reload.abandon(self.registry.store(), Abandoned::ByCoordinator);
            self.registry.supervisors().reloads.forget(&reload);
        }
    }

    /// Abandons the reload, if it is in progress, and ends the request.
    fn end(&mut self) {
        self.abandon();
        self.request = None;
    }

    /// Reports a reload that was refused.
    fn report(&self, root: ServiceIndex, error: &ReloadError) {
        if !Self::is_check() {
            self.registry.report_refused_reload(root, error);
        }
    }

    /// Returns the result of a wait whose timeout has expired, and abandons the reload if it is not
    /// switched.
    pub(super) fn timed_out(&self, after: Duration) -> Result<Done, ReloadError> {
        let root = self.registry.index(self.id)?;
        let store = self.store();
        let (mut missing, mut behind) = (Vec::new(), None);
        match &self.course {
            Course::Begins | Course::Over => {}
            // It was reported.
            Course::Paused(_, error) => return Err(ReloadError::clone(error)),
            Course::Restarting(restarting) => {
                return Ok(restarting.timed_out(&self.registry, after));
            }
            Course::Behind(earlier) => behind = Some(store.name(earlier.root())),
            Course::Building(reload) => {
                missing = self.missing(reload);
                reload.abandon(store, Abandoned::ByCoordinator);
            }
        }
        let error = ReloadError::TimedOut { root: store.name(root), after, missing, behind };
        self.report(root, &error);
        Err(error)
    }

    /// Returns the members that are not built.
    fn missing(&self, reload: &Reload) -> Vec<MissingMember> {
        let (store, now) = (self.store(), self.registry.supervisors().now());
        let missing = reload.asides().into_iter().filter_map(|(member, aside)| {
            let service = store.name(member);
            Some(match aside {
                Aside::Prepared { .. } => return None,
                Aside::Requested => {
                    MissingMember { service, building_for: None, waiting_for: None }
                }
                Aside::Building { since, waits_for } => MissingMember {
                    service,
                    building_for: now.map(|now| now.saturating_duration_since(since)),
                    waiting_for: waits_for.map(|dependency| store.name(dependency)),
                },
            })
        });
        missing.collect()
    }

    pub(super) fn must_await(&self) -> ReloadError {
        match self.registry.index(self.id) {
            Ok(root) => MustAwaitError::new(self.store().name(root)).into(),
            Err(foreign) => foreign.into(),
        }
    }

    pub(super) fn slots(&self) -> WaitSlots {
        let behind = match &self.course {
            Course::Behind(earlier) => Some(earlier.root()),
            Course::Restarting(restarting) => return WaitSlots::of(restarting.current()),
            Course::Begins | Course::Building(_) | Course::Paused(..) | Course::Over => None,
        };
        WaitSlots::of(self.id.index).and(behind.filter(|&it| it != self.id.index))
    }

    /// Returns whether it waits for services that may be stuck.
    pub(super) fn is_restarting(&self) -> bool {
        matches!(self.course, Course::Restarting(_))
    }

    /// Returns the output of the wait.
    pub(super) fn output(&self, result: Result<Done, ReloadError>) -> R::Output {
        R::output(self, result)
    }

    pub(super) fn reloaded(&self, done: Done) -> Reloaded {
        let Done { numbers, asides, switch_took, restarted, gap_took, gaps: _ } = done;
        let member = |(index, aside): (ServiceIndex, Aside)| {
            let &Revisions { generation, from, to } = numbers.get(&index)?;
            let (service, build_took) = (self.store().name(index), aside.took());
            Some(ReloadedService { service, generation, from, to, build_took })
        };
        // In the order of the asides: that of the dependencies.
        let members = asides.into_iter().filter_map(member).collect();
        let adopters = self.adopters();
        Reloaded { members, restarted, adopters, gap_took, switch_took, tries: self.tries }
    }

    pub(super) fn checked(&self, done: Done) -> ReloadCheck {
        let checked = |(service, aside): (ServiceIndex, Aside)| {
            let (service, build_took) = (self.store().name(service), aside.took());
            CheckedService { service, build_took }
        };
        let members = done.asides.into_iter().map(checked).collect();
        ReloadCheck { members, gaps: done.gaps, adopters: self.adopters() }
    }
}

impl Done {
    fn new(
        numbers: HashMap<ServiceIndex, Revisions>,
        asides: Vec<(ServiceIndex, Aside)>,
        switch_took: Option<Duration>,
    ) -> Self {
        let (gaps, restarted) = (Vec::new(), Vec::new());
        Self { numbers, asides, gaps, switch_took, restarted, gap_took: None }
    }

    pub(super) fn with_restarted(
        self,
        restarted: Vec<RestartedService>,
        gap_took: Option<Duration>,
    ) -> Self {
        Self { restarted, gap_took, ..self }
    }
}

/// The numbers of the old and the new instance of a member.
#[derive(Clone, Copy)]
struct Revisions {
    generation: Generation,
    from: u64,
    to: u64,
}

impl<R: Root> Drop for Coordinator<R> {
    fn drop(&mut self) {
        self.end();
    }
}
