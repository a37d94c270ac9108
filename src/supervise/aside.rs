//! Building aside: the new instance of a service that is up, for a reload (S20).

use std::{collections::BTreeMap, future::pending, pin::pin, sync::Arc, time::Duration};

use futures_lite::future::or;

use super::{
    Build, BuildFailure, BuildOutput,
    build_timer::BuildTimer,
    building::BuildUseless,
    failure_counter::FailureCounter,
    output::UserError,
    pending_attempt::{BuildShared, Grace},
    retrying::Inputs,
    supervisor::ServiceLoop,
    user_code::UserBuilder,
};
use crate::{
    error::{DependencyError, WaitForError},
    event::EventKind,
    failure::Reason,
    instance::{Instance, Origin},
    numbers::{Generation, ServiceIndex, UnixTime},
    provide::{DependencyId, DependencyWait, Running, Watch},
    registry::{self, BuildNumber, Control, Outcome, Publication, Refusal, Registry, Reload},
    service::ServiceId,
    store::{CyclePath, Member, Prepared, Store, UsedEdges},
    sync::{Mutex, Shielded, lock, yield_task},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// What the supervisor takes over at the switch: what belongs to the new instance.
pub(super) struct NewPublication {
    /// The revision of the new instance.
    pub(super) first: u64,
    pub(super) graces: Vec<Grace>,
    pub(super) inputs: Inputs,
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Builds the service aside at each request, until a reload is switched: then the new instance
    /// is current.
    ///
    /// It is polled beside the waits for the end of the instance, and after them. Its drop drops
    /// the build. The request is then refused when the supervisor reports that the service is not
    /// up (`ServiceLoop::change`).
    pub(super) async fn reloaded<F, O>(
        &self,
        running: &Running<T>,
        builder: &mut UserBuilder<F>,
        counter: &FailureCounter,
    ) -> NewPublication
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let (registry, index, generation) =
            (self.registry(), self.id().index(), running.generation());
        loop {
            let control = &self.control;
            let reload = Wait::new(ReloadRequested { registry, index, control }).await;
            let new = self.build_aside(&reload, running, builder, counter).await;
            if !reload.is_over() {
                // The instance has failed, or must stop: this future is about to be dropped.
                return pending().await;
            }
            if let Some(new) = new {
                // Before the request is forgotten: the old body finds one of the two (S11).
                let publication = Publication { generation, first: new.first, root: reload.root() };
                if let Some(number) = self.control.begin_publication(publication) {
                    self.emit(Some(generation), number, EventKind::NotDegraded);
                }
                self.control.forget_reload(&reload);
                return new;
            }
            self.control.forget_reload(&reload);
        }
    }

    /// Builds the service for one reload, and waits until it is over. Returns `None` if nothing was
    /// switched.
    async fn build_aside<F, O>(
        &self,
        reload: &Arc<Reload>,
        running: &Running<T>,
        builder: &mut UserBuilder<F>,
        counter: &FailureCounter,
    ) -> Option<NewPublication>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let (registry, index, generation) =
            (self.registry(), self.id().index(), running.generation());
        let store = registry.store();
        let place = match registry.supervisors().places.exist() {
            true => self.place_aside(reload, generation).await,
            false => None,
        };
        let number = place.as_ref().map(|place| place.build);
        let timeout = counter.policy().build_timeout;
        loop {
            let since = self.now();
            if !reload.building(index, since) {
                return None;
            }
            // Before the builder is called: a change during the build counts.
            let declared = store.declared(index);
            let (_, revision) = store.state_and_revision(index);
            let timer = BuildTimer::new(timeout, || since);
            let pending = PendingAside::new(registry, index, reload, timer, number);
            let shared = Arc::clone(&pending.shared);
            let build = Build::new(registry, self.id(), generation, shared, counter.failures(), 0);
            if timeout.is_some() {
                self.control.set_build(pending.shared.deadline());
            }
            let outcome = {
                let reload = Some(&**reload);
                let control = &self.control;
                let useless =
                    Wait::new(BuildUseless { registry, index, generation, control, reload });
                let timed_out = async {
                    self.build_timed_out(&pending.shared.timer).await;
                    Err(BuildFailure::timed_out(timeout).into())
                };
                let work = pin!(or(builder.build(build), timed_out));
                useless.unless_holds(work).await
            };
            let is_exceeded = pending.shared.timer.is_exceeded(|| self.now());
            let took = self.now().saturating_duration_since(since);
            let edges = pending.end_build();
            // `None`: the reload is over, or the instance has failed, or must stop.
            let value = match outcome?.map(Shielded::new) {
                Ok(_) if is_exceeded => Err(BuildFailure::timed_out(timeout).into()),
                outcome => outcome,
            };
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    self.refuse_build(reload, generation, error);
                    return None;
                }
            };
            let old = running.instance()?;
            if Instance::revision(&old) != revision {
                // The value was replaced, and this one may be older: as when a dependency changes.
                // A builder may replace it each time, and a poll must not last for ever.
                drop((old, value, pending));
                yield_task().await;
                continue;
            }
            let built_from = edges.built_from(store);
            let origin = Origin { built_from: built_from.clone(), published_at: UnixTime::now() };
            let inputs = Inputs { declared, edges: edges.without_received(), built_from };
            let value = value.into_inner();
            let (tracker, decision) = (&running.tracker, reload.decision());
            let prepared = Prepared::new(self.id(), old, value, origin, edges, tracker, decision);
            let first = prepared.number().revision;
            drop(place);
            if reload.prepared(store, Box::new(prepared), took).is_err() {
                return None;
            }
            let over = ReloadOver { registry, index, reload };
            return match Wait::new(over).await {
                Outcome::Switched => {
                    pending.aside().release(store, index, true);
                    let graces = pending.shared.graces();
                    Some(NewPublication { first, graces, inputs })
                }
                Outcome::Abandoned => None,
            };
        }
    }

    /// Abandons the reload, because the build has failed. Nothing is counted.
    fn refuse_build(&self, reload: &Reload, generation: Generation, error: UserError) {
        let reason = Reason::error(error);
        // An error of a build whose instance has ended is a consequence of that.
        if !self.has_ended(generation) {
            let refusal = Refusal::Build(reason.into_inner());
            reload.refused(self.registry().store(), self.id().index(), refusal);
        }
    }

    /// Abandons a reload that was requested, because the service is not up any more.
    pub(super) fn refuse_reload(&self, reload: &Reload) {
        let (registry, index) = (self.registry(), self.id().index());
        let refusal = match self.control.end_requested() {
            Some(end) => Refusal::Stopping(end.reason.clone()),
            None if registry.is_closed() => Refusal::Stopping(Reason::Closed),
            None => match registry.store().last_failure(index) {
                Some(failure) => Refusal::Failed(failure),
                None => Refusal::NotUp,
            },
        };
        reload.refused(registry.store(), index, refusal);
    }
}

/// What the waits of a build aside need: part of its `BuildShared`.
pub(super) struct AsideBuild {
    pub(super) reload: Arc<Reload>,
    /// The soft edges that it has added, each with whether the new instance keeps it. `None` when
    /// they were released.
    added: Mutex<Option<BTreeMap<ServiceIndex, bool>>>,
}

impl AsideBuild {
    fn new(reload: &Arc<Reload>) -> Self {
        Self { reload: Arc::clone(reload), added: Mutex::new(Some(BTreeMap::new())) }
    }

    /// The check of a wait for a dependency, whose id was checked.
    pub(super) fn check<I: DependencyId>(
        &self,
        wait: &mut DependencyWait<'_, I>,
        dependency: ServiceIndex,
    ) -> Option<Result<I::Instance, WaitForError>> {
        let (registry, dependent) = (wait.registry, wait.dependent);
        let (store, generation) = (registry.store(), wait.generation);
        if store.slot(dependent).state.load().generation() > generation {
            return Some(Err(WaitForError::Invalidated(store.failure(dependent, generation))));
        }
        if store.is_closed() {
            return Some(Err(WaitForError::Closed { service: store.name(dependency) }));
        }
        if self.reload.is_over() {
            return Some(Err(WaitForError::AttemptEnded { service: store.name(dependency) }));
        }
        if !wait.known {
            if let Err(cycle) = self.discover(store, (dependent, generation), dependency) {
                let cycle = registry::cycle_error(store, cycle);
                // No reload can do this, whatever the builder makes of the error.
                self.reload.refused(store, dependent, Refusal::Cycle(cycle.clone()));
                return Some(Err(cycle.into()));
            }
            if !wait.start_only && self.reload.has_gap(dependency) {
                // The new instance would go down with it. The next try knows (S22).
                self.reload.refused(store, dependent, Refusal::NeedsGap(dependency));
                return Some(Err(WaitForError::AttemptEnded { service: store.name(dependency) }));
            }
            wait.edges.wait_aside(dependency);
            wait.known = true;
        }
        let (instance, received) = match self.reload.instance_of(dependency) {
            // A member: the new instance, when it is prepared.
            Some(prepared) => {
                let (instance, number) = prepared?;
                let received = (number.generation, number.revision);
                (wait.id.of_prepared(instance, received)?, received)
            }
            None => match wait.id.read_to_build(store) {
                Some(found) => found,
                None => {
                    let stopped = store.service(dependency).end_mark.is_final();
                    let service = || store.name(dependency);
                    return stopped.then(|| Err(WaitForError::Stopped { service: service() }));
                }
            },
        };
        wait.edges.receive(dependency, received, wait.start_only);
        Some(Ok(instance))
    }

    /// Returns whether a wait would receive an instance now, or soon.
    pub(super) fn would_receive(
        &self,
        store: &Store,
        (dependent, generation): (ServiceIndex, Generation),
        dependency: ServiceIndex,
    ) -> bool {
        store.slot(dependent).state.load().generation() == generation
            && !self.reload.is_over()
            && match self.reload.instance_of(dependency) {
                Some(prepared) => prepared.is_some(),
                None => store.is_ready(dependency),
            }
    }

    /// Publishes the edge of a wait, for cycles and for the order of a shutdown.
    fn discover(
        &self,
        store: &Store,
        (dependent, generation): (ServiceIndex, Generation),
        dependency: ServiceIndex,
    ) -> Result<(), CyclePath> {
        let is_added = store.discover_aside(dependent, dependency, generation)?;
        self.note(store, dependent, dependency, is_added, false);
        Ok(())
    }

    /// Publishes a soft edge that the new instance keeps.
    pub(super) fn discover_soft(
        &self,
        store: &Store,
        edges: &UsedEdges,
        (dependent, generation): (ServiceIndex, Generation),
        dependency: ServiceIndex,
    ) -> Result<(), CyclePath> {
        let is_added = edges.discover_soft_aside(store, (dependent, generation), dependency)?;
        self.note(store, dependent, dependency, is_added, true);
        Ok(())
    }

    /// Makes a service a soft dependency, and watches it.
    pub(super) fn watch<D: Send + Sync + 'static>(
        &self,
        registry: &Registry,
        edges: &UsedEdges,
        (dependent, generation): (ServiceIndex, Generation),
        id: ServiceId<D>,
    ) -> Result<Watch<D>, DependencyError> {
        let (store, dependency) = (registry.store(), registry.index(id.into())?);
        self.discover_soft(store, edges, (dependent, generation), dependency)
            .map_err(|cycle| registry::cycle_error(store, cycle))?;
        Ok(Watch::of_generation(registry, id, dependent, generation))
    }

    fn note(
        &self,
        store: &Store,
        dependent: ServiceIndex,
        dependency: ServiceIndex,
        is_added: bool,
        is_kept: bool,
    ) {
        let is_late = match &mut *lock(&self.added) {
            Some(added) if is_added => {
                added.insert(dependency, is_kept);
                false
            }
            Some(added) => {
                if let Some(kept) = added.get_mut(&dependency) {
                    *kept |= is_kept;
                }
                false
            }
            // A wait of a `Build` that was kept.
            None => is_added,
        };
        if is_late {
            store.release_aside(dependent, &[dependency]);
        }
    }

    /// Removes the soft edges that were added. After a switch, only those that the new instance
    /// does not keep: it has the hard edges now.
    fn release(&self, store: &Store, dependent: ServiceIndex, is_switched: bool) {
        let Some(added) = lock(&self.added).take() else { return };
        let released = added.into_iter().filter(|&(_, is_kept)| !(is_switched && is_kept));
        let released: Vec<_> = released.map(|(dependency, _)| dependency).collect();
        if !released.is_empty() {
            store.release_aside(dependent, &released);
        }
    }
}

/// A build aside, which the supervisor keeps while the builder has the `Build`. Its drop ends the
/// build, and removes its edges.
struct PendingAside<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    shared: Arc<BuildShared>,
}

impl<'a> PendingAside<'a> {
    fn new(
        registry: &'a Registry,
        index: ServiceIndex,
        reload: &Arc<Reload>,
        timer: BuildTimer,
        number: Option<BuildNumber>,
    ) -> Self {
        let aside = Some(AsideBuild::new(reload));
        Self { registry, index, shared: Arc::new(BuildShared::new(timer, number, aside)) }
    }

    fn aside(&self) -> &AsideBuild {
        match &self.shared.aside {
            Some(aside) => aside,
            None => unreachable!("it was created with one"),
        }
    }

    /// Ends the build. Returns the edges that it has used, which stay published.
    fn end_build(&self) -> UsedEdges {
        // Before the edges and the grace periods are taken, as at the end of an attempt.
        self.shared.ended.set();
        let mut edges = UsedEdges::default();
        edges.take(&self.shared.edges);
        edges
    }
}

impl Drop for PendingAside<'_> {
    fn drop(&mut self) {
        self.shared.ended.set();
        self.aside().release(self.registry.store(), self.index, false);
    }
}

/// Waits until the supervisor is asked to build its service aside.
struct ReloadRequested<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    control: &'a Control,
}

impl Condition for ReloadRequested<'_> {
    type Output = Arc<Reload>;

    fn check(&mut self) -> Option<Arc<Reload>> {
        self.control.reload()
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Arc<Reload> {
        unreachable!("a supervisor waits for requests without a timeout")
    }
}

/// Waits until a reload is over. That wakes the slot of each member.
struct ReloadOver<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    reload: &'a Reload,
}

impl Condition for ReloadOver<'_> {
    type Output = Outcome;

    fn check(&mut self) -> Option<Outcome> {
        self.reload.outcome()
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Outcome {
        Outcome::Abandoned
    }
}

impl<T: Send + Sync + 'static> Build<T> {
    /// Returns whether the service is built for a reload: aside, while its present instance serves.
    ///
    /// The build then waits for the new instances of the dependencies that are reloaded, too. Its
    /// failure is the error of the reload, and none of the service. Something that can exist only
    /// once, as a port, the builder takes over from the present instance, which
    /// [`Registry::get`] returns; or it returns an error.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| match build.is_reload() {
    ///     true => Err("the port is open"),
    ///     false => Ok(80),
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_reload(&self) -> bool {
        self.shared.aside.is_some()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;

    use super::{AsideBuild, BTreeMap, Generation, Registry, Reload};
    use crate::registry::ReloadKind;

    #[test]
    fn an_edge_that_is_added_after_the_end_of_the_build_is_removed() {
        let registry = Registry::with_capacity(2).unwrap();
        let [x, y] = ["x", "y"].map(|name| registry.register::<u8>(name).unwrap());
        let provider = registry.provide(x).unwrap();
        let _running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
        let (store, [x_index, y_index]) = (registry.store(), [x, y].map(|id| id.index()));
        let (gaps, adopters) = (BTreeSet::new(), BTreeMap::new());
        let reload = Reload::new(x_index, vec![x_index], gaps, adopters, ReloadKind::All, None);
        let aside = AsideBuild::new(&reload);
        let wait = || aside.discover(store, (x_index, Generation::FIRST), y_index).is_ok();
        let edges = || registry.status(x).unwrap().dependencies.len();
        assert!(wait());
        assert_eq!(edges(), 1);
        aside.release(store, x_index, false);
        assert_eq!(edges(), 0);
        // A wait of a `Build` that was kept has found the reload in progress, and comes later.
        assert!(wait());
        assert_eq!(edges(), 0);
    }
}
