//! The services of a reload: its members, those with a gap, and how their restart ends (S22), and
//! those that adopt (S23).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{Supervisor, coordinator::Done};
use crate::{
    error::{DependencyUnavailable, NotReloadable, ReloadError},
    numbers::ServiceIndex,
    registry::{Gap, GapCause, Registry, ReloadKind, RestartedService},
    store::{Adopter, FailedSlot, Phase},
};

impl<T: Send + Sync + 'static, B, H, P> Supervisor<T, B, H, P> {
    /// Says that no two instances of the service may exist at the same time, as of a listening port
    /// or a lock file: a [reload](Registry::reload) never builds it aside.
    ///
    /// A reload of which it would be a member takes it down at the switch, with its hard
    /// dependents, and builds all other members aside. Then it begins again, and its dependents
    /// after it: they have a *gap*, in which they are not ready. [`Registry::check_reload`] says
    /// which services would have one, and [`Registry::reload_without_gap`] refuses to.
    ///
    /// A restart is no failure: nothing is counted, and no backoff precedes it. The old instance
    /// ends as after a failure. If its readers must let go of it before the next build begins, the
    /// policy needs a [drain timeout](crate::supervise::RestartPolicy::drain_timeout).
    ///
    /// If its own body calls [`Live::reload`](crate::supervise::Live::reload), the service is
    /// switched as every other root: the body is responsible for the new value.
    ///
    /// ```
    /// use mainstay::{error::WaitForError, supervise::Build, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(2)?;
    /// let config = runtime.registry.register::<u16>("config")?;
    /// let server = runtime.registry.register::<String>("server")?;
    /// runtime.spawn(runtime.registry.supervise(config)?.run(async |_: Build<u16>| 80));
    /// let supervisor = runtime.registry.supervise(server)?.exclusive();
    /// runtime.spawn(supervisor.run(async move |build: Build<String>| {
    ///     assert!(!build.is_reload());
    ///     Ok::<_, WaitForError>(format!("localhost:{}", **build.wait_for(config).await?))
    /// }));
    /// runtime.run_until_idle();
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     let reloaded = registry.reload(config).await.unwrap();
    ///     assert_eq!(reloaded.members[0].service, "config");
    ///     assert_eq!(reloaded.restarted[0].service, "server");
    ///     assert!(reloaded.restarted[0].not_ready.is_none());
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(runtime.registry.status(server)?.generation, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exclusive(self) -> Self {
        self.service.control.set_exclusive();
        self
    }
}

/// Which services may have a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GapPolicy {
    /// None: the reload is refused if there is one.
    None,
    /// Those that are exclusive, and their dependents.
    Exclusive,
    /// Also those that cannot be built aside.
    Any,
}

/// The services of a reload.
pub(super) struct Parts {
    /// Those that are built aside, each after its dependencies.
    pub(super) members: Vec<ServiceIndex>,
    /// Those that are restarted, each after its known dependencies.
    pub(super) gaps: Vec<RestartedGap>,
    /// Those that adopt new instances of members (S23).
    pub(super) adopters: Vec<(ServiceIndex, Adopter)>,
}

/// A service with a gap.
#[derive(Clone)]
pub(super) struct RestartedGap {
    pub(super) service: ServiceIndex,
    why: GapCause,
    /// Those with a gap of which it is a dependent.
    dependencies: Vec<ServiceIndex>,
    /// How its restart has ended.
    came_up: Option<Result<(), DependencyUnavailable>>,
}

/// The rules by which the services of a reload are found.
pub(super) struct Finder<'a> {
    pub(super) registry: &'a Registry,
    pub(super) kind: ReloadKind,
    pub(super) policy: GapPolicy,
    /// Members whose builds wait for one with a gap, although they were no dependents of it.
    pub(super) forced: &'a BTreeMap<ServiceIndex, ServiceIndex>,
}

impl Finder<'_> {
    /// Finds the members and the services with a gap of a reload of `root`. The time is that of
    /// n log n steps for n services and edges of the closure.
    pub(super) fn find(&self, root: ServiceIndex) -> Result<Parts, ReloadError> {
        let store = self.registry.store();
        // Those with a gap, or that would have one if they were ready, on which a service depends.
        let mut below_gaps: HashMap<ServiceIndex, Vec<ServiceIndex>> = HashMap::new();
        // The dependents of members, and of those that would be members if they were ready.
        let mut below_members = HashSet::from([root]);
        // The members that a service adopts.
        let mut adopting: HashMap<ServiceIndex, BTreeSet<ServiceIndex>> = HashMap::new();
        let mut parts = Parts { members: Vec::new(), gaps: Vec::new(), adopters: Vec::new() };
        // Each after its dependencies.
        for service in store.closure(&[root]) {
            let mut dependencies = below_gaps.remove(&service).unwrap_or_default();
            let adopts = adopting.remove(&service).unwrap_or_default();
            let state = store.slot(service).state.load();
            let is_ready = state.phase() == Phase::Ready;
            if !below_members.remove(&service) && dependencies.is_empty() {
                if is_ready && !adopts.is_empty() {
                    let (generation, dependencies) = (state.generation(), adopts);
                    parts.adopters.push((service, Adopter { generation, dependencies }));
                }
                continue;
            }
            dependencies.extend(self.forced.get(&service));
            let is_given = self.kind == ReloadKind::Given && service == root;
            let own = if is_ready && !is_given { self.own_gap(root, service)? } else { None };
            let dependency = dependencies.first().map(|&it| GapCause::DependsOn(store.name(it)));
            let Some(why) = own.or(dependency) else {
                for dependent in store.followed_dependents(service) {
                    if !self.adopts(dependent, service) {
                        below_members.insert(dependent);
                    } else if is_ready {
                        adopting.entry(dependent).or_default().insert(service);
                    }
                }
                parts.members.extend(is_ready.then_some(service));
                continue;
            };
            // Also if it is down: a cascade follows its edges.
            for dependent in store.followed_dependents(service) {
                below_gaps.entry(dependent).or_default().push(service);
            }
            if is_ready {
                parts.gaps.push(RestartedGap { service, why, dependencies, came_up: None });
            }
        }
        if self.policy == GapPolicy::None && !parts.gaps.is_empty() {
            let (root, gaps) = (store.name(root), shown(self.registry, &parts.gaps));
            return Err(ReloadError::Gap { root, gaps });
        }
        Ok(parts)
    }

    fn adopts(&self, dependent: ServiceIndex, dependency: ServiceIndex) -> bool {
        let control = self.registry.supervisors().control(dependent);
        control.is_some_and(|control| control.adopts(dependency))
    }

    /// Returns why a service has a gap whatever it depends on.
    fn own_gap(
        &self,
        root: ServiceIndex,
        service: ServiceIndex,
    ) -> Result<Option<GapCause>, ReloadError> {
        let store = self.registry.store();
        let (why, may_have_gap) = match self.registry.supervisors().control(service) {
            // Nothing would begin it again.
            _ if store.service(service).role.is_constant() => (NotReloadable::Constant, false),
            // The caller wants to know all.
            None => (NotReloadable::ByHand, self.policy != GapPolicy::Exclusive),
            Some(control) if control.is_exclusive() => return Ok(Some(GapCause::Exclusive)),
            Some(control) => match control.not_reloadable() {
                None => return Ok(None),
                Some(state) => (NotReloadable::NotUp(state), self.policy == GapPolicy::Any),
            },
        };
        if may_have_gap {
            return Ok(Some(GapCause::NotReloadable(why)));
        }
        let (root, service) = (store.name(root), store.name(service));
        Err(ReloadError::NotReloadable { root, service, why })
    }
}

/// Returns what a user sees of the services with a gap.
pub(super) fn shown(registry: &Registry, gaps: &[RestartedGap]) -> Vec<Gap> {
    let name = |service| registry.store().name(service);
    gaps.iter().map(|gap| Gap { service: name(gap.service), why: gap.why.clone() }).collect()
}

/// Returns the services that were down when the reload began, have become ready since, and were
/// taken down by the switch, with a service with a gap.
pub(super) fn taken_down(
    registry: &Registry,
    gaps: &BTreeSet<ServiceIndex>,
    failed: &[FailedSlot],
) -> Vec<RestartedGap> {
    let store = registry.store();
    let others = failed.iter().filter(|slot| !gaps.contains(&slot.index));
    let ready = others.filter(|slot| slot.was.phase() == Phase::Ready);
    let taken_down = ready.filter_map(|&FailedSlot { index: service, .. }| {
        // Another cascade may have taken it down since.
        let dependency = store.slot(service).failed_by.get();
        let (why, dependencies) = (GapCause::DependsOn(store.name(dependency)), vec![dependency]);
        gaps.contains(&dependency).then_some(RestartedGap {
            service,
            why,
            dependencies,
            came_up: None,
        })
    });
    taken_down.collect()
}

/// The time after a switch, until each service with a gap is ready again or has failed.
pub(super) struct Restarting {
    done: Done,
    /// The time of the switch.
    since: Option<Instant>,
    gaps: Vec<RestartedGap>,
    /// The positions in `gaps`.
    positions: HashMap<ServiceIndex, usize>,
    /// All before this position have a result.
    next: usize,
    /// The one whose slot the coordinator listens to.
    current: usize,
}

impl Restarting {
    pub(super) fn new(done: Done, since: Option<Instant>, gaps: Vec<RestartedGap>) -> Self {
        let positions = gaps.iter().enumerate().map(|(position, gap)| (gap.service, position));
        let positions = positions.collect();
        Self { done, since, gaps, positions, next: 0, current: 0 }
    }

    /// Returns the service that the last check has found down, without a result.
    pub(super) fn current(&self) -> ServiceIndex {
        self.gaps[self.current].service
    }

    /// Returns the result if all have come up or failed.
    pub(super) fn check(&mut self, registry: &Registry) -> Option<Done> {
        while self.next < self.gaps.len() {
            // With its dependencies: a service that was no dependent of them before the reload may
            // come before them.
            let mut path = vec![self.next];
            while let Some(&at) = path.last() {
                if self.gaps[at].came_up.is_some() {
                    path.pop();
                    continue;
                }
                let waits_for = self.dependencies(at).find(|&dependency| {
                    self.gaps[dependency].came_up.is_none() && !path.contains(&dependency)
                });
                if let Some(dependency) = waits_for {
                    path.push(dependency);
                    continue;
                }
                self.gaps[at].came_up = self.came_up(registry, at);
                if self.gaps[at].came_up.is_none() {
                    self.current = at;
                    return None;
                }
            }
            self.next += 1;
        }
        let took = self.since.zip(registry.supervisors().now());
        let took = took.map(|(since, now)| now.saturating_duration_since(since));
        Some(self.result(registry, took, |_| unreachable!("each has a result")))
    }

    fn dependencies(&self, at: usize) -> impl Iterator<Item = usize> {
        self.gaps[at].dependencies.iter().filter_map(|it| self.positions.get(it).copied())
    }

    /// Returns whether a service is ready again, or has failed. All those on which it depends have
    /// a result.
    fn came_up(&self, registry: &Registry, at: usize) -> Option<Result<(), DependencyUnavailable>> {
        let (store, service) = (registry.store(), self.gaps[at].service);
        // The switch has taken down the instance that was current then.
        if store.is_ready(service) {
            return Some(Ok(()));
        }
        let failed = || store.last_failure(service).is_some_and(|last| !last.is_planned());
        let waits_in_vain = || self.dependencies(at).any(|it| self.gaps[it].is_down());
        let is_over = registry.is_closed()
            || store.service(service).end_mark.is_final()
            || failed()
            || waits_in_vain();
        if is_over {
            return Some(Err(DependencyUnavailable::not_ready_now(registry, service)));
        }
        DependencyUnavailable::stuck(registry, service).map(Err)
    }

    /// Returns the result at the end of a timeout.
    pub(super) fn timed_out(&self, registry: &Registry, after: Duration) -> Done {
        self.result(registry, None, |service| match registry.store().is_ready(service) {
            true => None,
            false => Some(DependencyUnavailable::timed_out(registry, service, after)),
        })
    }

    /// Returns the result. `unless_ready` says why a service is not ready that has no result.
    fn result(
        &self,
        registry: &Registry,
        gap_took: Option<Duration>,
        unless_ready: impl Fn(ServiceIndex) -> Option<DependencyUnavailable>,
    ) -> Done {
        let restarted = self.gaps.iter().map(|gap| {
            let not_ready = match &gap.came_up {
                Some(came_up) => came_up.clone().err(),
                None => unless_ready(gap.service),
            };
            let service = registry.store().name(gap.service);
            RestartedService { service, why: gap.why.clone(), not_ready }
        });
        self.done.clone().with_restarted(restarted.collect(), gap_took)
    }
}

impl RestartedGap {
    /// Returns whether it has failed, or waits for one that has failed.
    fn is_down(&self) -> bool {
        matches!(self.came_up, Some(Err(_)))
    }
}
