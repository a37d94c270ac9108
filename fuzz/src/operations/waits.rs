//! Waits: futures that are polled once, and then kept or dropped, and blocking waits.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use mainstay::{
    Attempt, Failure, Instance, ServiceState, Watch, WatchEvent,
    error::{BeginError, StopError, WaitError, WaitForError, WaitReadyError, WatchError},
    supervise::{StopReport, StopResult, StoppedService},
};

use crate::plan::EndKind;

use super::{
    model::{Awaited, EdgeKey, EdgeSource, Number},
    op::{Pick, WaitMode},
    outcome::{InstanceId, Outcome, Refusal, State},
    reading::instance_id,
    value::{Value, Woken},
    world::{Handle, HeldInstance, World},
};

/// A wait that is pending.
pub(crate) struct PendingWait {
    pub(crate) awaited: Awaited,
    /// The number of the handle that the wait borrows.
    owner: Option<Number>,
    future: Pin<Box<dyn Future<Output = WaitResult>>>,
    pub(crate) woken: Arc<Woken>,
}

/// A watch, and the instance that it reported last.
pub(crate) struct WatchHandle {
    watch: Rc<RefCell<Watch<Value>>>,
    service: usize,
    dependent: Option<(usize, u64)>,
    reported: Option<InstanceId>,
    /// Identifies the waits that borrow it.
    number: Number,
}

/// The result of a wait.
pub(crate) enum WaitResult {
    Attempt(Result<Attempt<Value>, BeginError>),
    Reader(Result<Arc<Instance<Value>>, WaitReadyError>),
    Dependency(Result<Arc<Instance<Value>>, WaitForError>),
    AnyDependency(Result<mainstay::InstanceId, WaitForError>),
    State(Result<ServiceState, WaitError>),
    Failure(Result<Failure, WaitError>),
    Stopped(Result<Arc<StopReport>, StopError>),
    WatchEvent(Result<WatchEvent<Value>, WatchError>),
}

impl WaitResult {
    fn outcome(&self) -> Outcome {
        let instance =
            |instance: &Arc<Instance<Value>>| Outcome::Instances(vec![instance_id(instance)]);
        match self {
            Self::Attempt(result) => {
                Outcome::of(result.as_ref().map_err(Clone::clone), |attempt| {
                    Outcome::AttemptStarted { generation: attempt.generation().get() }
                })
            }
            Self::Reader(result) => Outcome::of(result.as_ref().map_err(Clone::clone), instance),
            Self::Dependency(result) => {
                Outcome::of(result.as_ref().map_err(Clone::clone), instance)
            }
            Self::AnyDependency(result) => Outcome::of(result.clone(), |instance| {
                let (generation, revision) = (instance.generation.get(), instance.revision);
                Outcome::AnyInstance {
                    generation,
                    revision: revision.expect("a wait returns an exact instance"),
                }
            }),
            Self::State(result) => {
                Outcome::of(result.clone(), |state| Outcome::State(state_of(state)))
            }
            Self::Failure(result) => {
                Outcome::of(result.as_ref().map_err(Clone::clone), |failure| {
                    Outcome::Failure(failure.into())
                })
            }
            Self::Stopped(result) => Outcome::of(result.clone(), |report| {
                assert_eq!(report.stop_timeouts, [], "providers have no limit");
                let is_stopped = |one: &StoppedService| one.result == StopResult::Stopped;
                assert!(report.stopped.iter().all(is_stopped), "they have no supervisors");
                let names: BTreeSet<String> =
                    report.stopped.iter().map(|one| one.service.to_string()).collect();
                assert_eq!(names.len(), report.stopped.len(), "each service stops once");
                Outcome::Stopped(names)
            }),
            Self::WatchEvent(Err(error)) => Outcome::Refused(error.clone().into()),
            Self::WatchEvent(Ok(WatchEvent::Ready(instance))) => {
                Outcome::Instances(vec![instance_id(instance)])
            }
            Self::WatchEvent(Ok(WatchEvent::Replaced(instance))) => {
                Outcome::Replacement(instance_id(instance))
            }
            Self::WatchEvent(Ok(WatchEvent::Failed(failure))) => Outcome::Failure(failure.into()),
        }
    }
}

/// Starts a wait: a future that owns the handle that it borrows, or a blocking wait, which ends at
/// once.
macro_rules! start_wait {
    ($mode:expr, $kind:path, $owner:ident => $wait:expr) => {
        match $mode {
            WaitMode::ZeroTimeout => {
                StartedWait::Ended($kind($wait.wait_blocking_timeout(Duration::ZERO)))
            }
            WaitMode::PastDeadline => {
                StartedWait::Ended($kind($wait.wait_blocking_deadline(Instant::now())))
            }
            WaitMode::Keep | WaitMode::Drop => {
                StartedWait::Future(Box::pin(async move { $kind($wait.await) }))
            }
        }
    };
}

enum StartedWait {
    Ended(WaitResult),
    Future(Pin<Box<dyn Future<Output = WaitResult>>>),
}

impl World {
    pub(crate) fn begin(&mut self, index: usize, mode: WaitMode) {
        let Handle { handle, service, number, .. } = &self.providers[index];
        let (awaited, owner) = (Awaited::Begin { service: *service }, *number);
        let provider = Rc::clone(handle);
        let start = start_wait!(mode, WaitResult::Attempt, provider => provider.begin());
        self.first_check(awaited, Some(owner), mode, start);
    }

    /// Waits for a dependency, by its typed or its untyped id.
    pub(crate) fn wait_for(
        &mut self,
        index: usize,
        dependency: Pick,
        start_only: bool,
        any: bool,
        mode: WaitMode,
    ) {
        let Handle { handle, service, generation, number } = &self.attempts[index];
        let (service, generation, number) = (*service, *generation, *number);
        let attempt = Rc::clone(handle);
        let (dependency, start) = if any {
            use WaitResult::AnyDependency;
            let (dependency, id) = self.any(dependency);
            let start = if start_only {
                start_wait!(mode, AnyDependency, attempt => attempt.wait_to_start_any(id))
            } else {
                start_wait!(mode, AnyDependency, attempt => attempt.wait_for_any(id))
            };
            (dependency, start)
        } else {
            let (dependency, id) = self.typed(dependency);
            let start = if start_only {
                start_wait!(mode, WaitResult::Dependency, attempt => attempt.wait_to_start(id))
            } else {
                start_wait!(mode, WaitResult::Dependency, attempt => attempt.wait_for(id))
            };
            (dependency, start)
        };
        let awaited = Awaited::Dependency {
            service,
            generation,
            attempt: number,
            dependency,
            start_only,
            any,
        };
        self.first_check(awaited, Some(number), mode, start);
    }

    /// Waits for any change since the present state. A service of another registry has the state of
    /// service 0 here, and is refused.
    pub(crate) fn wait_state_changed(&mut self, pick: Pick, mode: WaitMode) {
        let (service, id) = self.any(pick);
        let Some(&of) = service.map_or(self.ids.first(), |service| self.ids.get(service)) else {
            return;
        };
        let since = self.registry.status(of).expect("the id is of this registry").state();
        let registry = self.registry.clone();
        let start =
            start_wait!(mode, WaitResult::State, registry => registry.wait_changed(id, since));
        let awaited = Awaited::Change { service, since: state_of(since) };
        self.first_check(awaited, None, mode, start);
    }

    /// Restarts or stops a service, with its hard dependents.
    pub(crate) fn end_as_planned(
        &mut self,
        pick: Pick,
        kind: EndKind,
        subtree: bool,
        mode: WaitMode,
    ) {
        let ((service, id), why, ticket) = (self.any(pick), self.reason(), self.number());
        let registry = self.registry.clone();
        let text = why.clone();
        let start = start_wait!(mode, WaitResult::Stopped, registry => match kind {
            EndKind::Restart => registry.restart(id, text),
            EndKind::Stop if subtree => registry.stop_subtree(id),
            EndKind::Stop => registry.stop(id),
        });
        if let Some(service) = service {
            self.model.end_as_planned(service, kind, &why, subtree, ticket);
        }
        self.first_check(Awaited::Stopped { service, ticket }, None, mode, start);
    }

    pub(crate) fn wait_ready(&mut self, pick: Pick, mode: WaitMode) {
        let (service, id) = self.typed(pick);
        let registry = self.registry.clone();
        let start = start_wait!(mode, WaitResult::Reader, registry => registry.wait_ready(id));
        self.first_check(Awaited::Ready { service }, None, mode, start);
    }

    pub(crate) fn wait_invalidated(&mut self, index: usize, mode: WaitMode) {
        let Handle { handle, service, generation, number } = &self.attempts[index];
        let (service, generation, owner) = (*service, *generation, *number);
        let attempt = Rc::clone(handle);
        let start = start_wait!(mode, WaitResult::Failure, attempt => attempt.invalidated());
        self.first_check(Awaited::Invalidated { service, generation }, Some(owner), mode, start);
    }

    pub(crate) fn wait_failed(&mut self, index: usize, mode: WaitMode) {
        let Handle { handle, service, generation, number } = &self.running[index];
        let (service, generation, owner) = (*service, *generation, *number);
        let running = Rc::clone(handle);
        let start = start_wait!(mode, WaitResult::Failure, running => running.failed());
        self.first_check(Awaited::Failed { service, generation }, Some(owner), mode, start);
    }

    /// Watches a service by an attempt, which may be invalidated.
    pub(crate) fn watch_for(&mut self, index: usize, pick: Pick) {
        let (service, id) = self.typed(pick);
        let Handle { handle, service: dependent, generation, number } = &self.attempts[index];
        let (dependent, generation, attempt) = (*dependent, *generation, *number);
        let watch = handle.watch(id);
        let actual = match &watch {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Refused(error.clone().into()),
        };
        let Some(service) = service else {
            return self.compare(&Outcome::Refused(Refusal::Foreign), &actual);
        };
        let source = EdgeSource::Discovered { attempt, start_only: false };
        let edge = EdgeKey { dependency: service, soft: true };
        if self.edge_added(dependent, edge, source, &actual) {
            self.compare(&Outcome::Done, &actual);
        }
        if let Ok(watch) = watch {
            self.keep_watch(watch, service, Some((dependent, generation)));
        }
    }

    pub(crate) fn watch(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let watch = self.registry.watch(id);
        assert_eq!(watch.is_ok(), service.is_some(), "only a foreign id is refused");
        if let (Some(service), Ok(watch)) = (service, watch) {
            self.keep_watch(watch, service, None);
        }
    }

    fn keep_watch(&mut self, watch: Watch<Value>, service: usize, dependent: Option<(usize, u64)>) {
        assert_eq!(watch.id(), self.id_of(Some(service)));
        let (number, watch) = (self.number(), Rc::new(RefCell::new(watch)));
        self.watches.push(WatchHandle { watch, service, dependent, reported: None, number });
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "one wait of a watch at a time")]
    pub(crate) fn wait_changed(&mut self, index: usize, mode: WaitMode) {
        let WatchHandle { watch, service, dependent, reported, number } = &self.watches[index];
        let (service, dependent, reported) = (*service, *dependent, *reported);
        let (awaited, owner) = (Awaited::WatchEvent { service, dependent, reported }, *number);
        let watch = Rc::clone(watch);
        self.drop_waits_of(owner);
        let start =
            start_wait!(mode, WaitResult::WatchEvent, watch => watch.borrow_mut().changed());
        self.first_check(awaited, Some(owner), mode, start);
    }

    pub(crate) fn drop_watch(&mut self, index: usize) {
        let WatchHandle { watch, number, .. } = self.watches.swap_remove(index);
        self.drop_waits_of(number);
        drop(watch);
    }

    fn first_check(
        &mut self,
        awaited: Awaited,
        owner: Option<Number>,
        mode: WaitMode,
        start: StartedWait,
    ) {
        // The future owns a handle, so it must be dropped before the handle is taken.
        let woken = Arc::new(Woken::default());
        let (result, future) = match start {
            StartedWait::Ended(result) => (Some(result), None),
            StartedWait::Future(mut future) => match poll(&mut future, &woken) {
                Poll::Ready(result) => (Some(result), None),
                Poll::Pending => (None, Some(future)),
            },
        };
        let actual = result.as_ref().map_or(Outcome::Pending, WaitResult::outcome);

        let mut expected = self.model.wait_result_before_edge(awaited);
        if let (
            None,
            Awaited::Dependency { service, attempt, dependency: Some(d), start_only, .. },
        ) = (&expected, awaited)
        {
            let source = EdgeSource::Discovered { attempt, start_only };
            if !self.edge_added(service, EdgeKey::hard(d), source, &actual) {
                expected = Some(actual.clone());
            }
        }
        match expected.or_else(|| self.model.wait_result(awaited)) {
            Some(expected) => self.compare(&expected, &actual),
            None => {
                self.model.wait_started(awaited);
                if matches!(mode, WaitMode::ZeroTimeout | WaitMode::PastDeadline) {
                    self.model.wait_ended(awaited);
                    let refusal = self.model.timed_out(awaited);
                    self.compare(&Outcome::Refused(refusal), &actual);
                } else {
                    self.compare(&Outcome::Pending, &actual);
                }
            }
        }
        if let Some(result) = result {
            self.ended(awaited, owner, result);
        }
        match future {
            Some(future) if mode == WaitMode::Keep => {
                self.waits.push(PendingWait { awaited, owner, future, woken });
            }
            Some(future) => {
                drop(future);
                self.model.wait_ended(awaited);
            }
            None => {}
        }
    }

    /// Stores the result of a wait.
    fn ended(&mut self, awaited: Awaited, owner: Option<Number>, result: WaitResult) {
        match result {
            WaitResult::Attempt(Ok(attempt)) => {
                let Awaited::Begin { service } = awaited else { unreachable!("an attempt began") };
                let (generation, number) = (attempt.generation().get(), self.number());
                self.model.start_attempt(service, number);
                let handle = Rc::new(attempt);
                self.attempts.push(Handle { handle, service, generation, number });
            }
            WaitResult::AnyDependency(Ok(_)) => self.model.receive(awaited),
            WaitResult::Reader(Ok(instance)) | WaitResult::Dependency(Ok(instance)) => {
                self.model.receive(awaited);
                let service =
                    awaited.subject().expect("a wait for a foreign service returns no instance");
                self.keep(service, HeldInstance::Arc(instance));
            }
            WaitResult::WatchEvent(Ok(event)) => {
                let watch = self.watches.iter_mut().find(|watch| Some(watch.number) == owner);
                let watch = watch.expect("a watch is dropped after its waits");
                match event {
                    WatchEvent::Ready(instance) | WatchEvent::Replaced(instance) => {
                        watch.reported = Some(instance_id(&instance));
                        let service = watch.service;
                        self.keep(service, HeldInstance::Arc(instance));
                    }
                    WatchEvent::Failed(_) => watch.reported = None,
                }
            }
            _ => {}
        }
    }

    /// Polls a wait again, whether it was woken or not.
    pub(crate) fn poll(&mut self, index: usize) {
        let mut waiting = self.waits.swap_remove(index);
        let (awaited, owner) = (waiting.awaited, waiting.owner);
        waiting.woken.clear();
        let polled = poll(&mut waiting.future, &waiting.woken);
        let expected = self.model.wait_result(awaited);
        match polled {
            Poll::Pending => {
                self.compare(&expected.unwrap_or(Outcome::Pending), &Outcome::Pending);
                self.waits.push(waiting);
            }
            Poll::Ready(result) => {
                self.compare(&expected.unwrap_or(Outcome::Pending), &result.outcome());
                drop(waiting);
                self.model.wait_ended(awaited);
                self.ended(awaited, owner, result);
            }
        }
    }

    pub(crate) fn drop_wait(&mut self, index: usize) {
        let PendingWait { awaited, future, .. } = self.waits.swap_remove(index);
        drop(future);
        self.model.wait_ended(awaited);
    }

    /// Drops the waits that borrow a handle, so that the handle can be dropped.
    pub(crate) fn drop_waits_of(&mut self, owner: Number) {
        while let Some(index) = self.waits.iter().position(|wait| wait.owner == Some(owner)) {
            self.drop_wait(index);
        }
    }
}

/// Returns the parts of a state.
pub(crate) fn state_of(state: ServiceState) -> State {
    (state.phase, state.generation.get(), state.revision)
}

fn poll(
    future: &mut Pin<Box<dyn Future<Output = WaitResult>>>,
    woken: &Arc<Woken>,
) -> Poll<WaitResult> {
    let waker = Waker::from(Arc::clone(woken));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}
