//! Waits: polled once, then kept, dropped, or without time in the first place.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use mainstay::{
    Attempt, BeginError, Change, Failure, Instance, WaitError, WaitForError, Watch, WatchError,
};

use super::{
    model::{Awaited, Holder, Rests, To},
    op::{How, Pick},
    outcome::{Outcome, Read, Refusal},
    reading::read,
    value::{Value, Woken},
    world::{Handle, Hold, World},
};

/// A wait that has not ended.
pub(crate) struct Waiting {
    pub(crate) awaited: Awaited,
    /// The handle that it borrows.
    owner: Option<Holder>,
    future: Pin<Box<dyn Future<Output = Got>>>,
    pub(crate) woken: Arc<Woken>,
}

/// A watch, and what it has told of.
pub(crate) struct Watching {
    watch: Rc<RefCell<Watch<Value>>>,
    service: usize,
    by: Option<(usize, u64)>,
    seen: Option<Read>,
    /// Tells the waits which borrow it.
    number: Holder,
}

/// What a wait gives.
pub(crate) enum Got {
    Attempt(Result<Attempt<Value>, BeginError>),
    Reader(Result<Arc<Instance<Value>>, WaitError>),
    Dependency(Result<Arc<Instance<Value>>, WaitForError>),
    Failure(Result<Failure, WaitError>),
    Change(Result<Change<Value>, WatchError>),
}

impl Got {
    fn outcome(&self) -> Outcome {
        let instance = |instance: &Arc<Instance<Value>>| Outcome::Read(vec![read(instance)]);
        match self {
            Self::Attempt(got) => Outcome::of(got.as_ref().map_err(Clone::clone), |attempt| {
                Outcome::Begun { generation: attempt.generation() }
            }),
            Self::Reader(got) => Outcome::of(got.as_ref().map_err(Clone::clone), instance),
            Self::Dependency(got) => Outcome::of(got.as_ref().map_err(Clone::clone), instance),
            Self::Failure(got) => Outcome::of(got.as_ref().map_err(Clone::clone), |failure| {
                Outcome::Failure(failure.into())
            }),
            Self::Change(Err(error)) => Outcome::Refused(error.clone().into()),
            Self::Change(Ok(Change::Ready(instance))) => Outcome::Read(vec![read(instance)]),
            Self::Change(Ok(Change::Replaced(instance))) => Outcome::ReadAnother(read(instance)),
            Self::Change(Ok(Change::Failed(failure))) => Outcome::Failure(failure.into()),
        }
    }
}

/// A wait, as a future, or at once where it has no time. It owns what it borrows from.
macro_rules! waiting {
    ($how:expr, $kind:path, $owner:ident => $wait:expr) => {
        match $how {
            How::NoTime => Start::Ended($kind($wait.wait_timeout(Duration::ZERO))),
            How::TooLate => Start::Ended($kind($wait.wait_deadline(Instant::now()))),
            How::Keep | How::Drop => Start::Future(Box::pin(async move { $kind($wait.await) })),
        }
    };
}

enum Start {
    Ended(Got),
    Future(Pin<Box<dyn Future<Output = Got>>>),
}

impl World {
    pub(crate) fn begin(&mut self, place: usize, how: How) {
        let Handle { handle, service, number, .. } = &self.providers[place];
        let (awaited, owner) = (Awaited::Begin { service: *service }, *number);
        let provider = Rc::clone(handle);
        let start = waiting!(how, Got::Attempt, provider => provider.begin());
        self.first_look(awaited, Some(owner), how, start);
    }

    pub(crate) fn wait_for(&mut self, place: usize, dependency: Pick, to_start: bool, how: How) {
        let (dependency, id) = self.typed(dependency);
        let Handle { handle, service, generation, number } = &self.attempts[place];
        let (service, generation, holder) = (*service, *generation, *number);
        let awaited = Awaited::Dependency { service, generation, holder, dependency, to_start };
        let attempt = Rc::clone(handle);
        let start = if to_start {
            waiting!(how, Got::Dependency, attempt => attempt.wait_to_start(id))
        } else {
            waiting!(how, Got::Dependency, attempt => attempt.wait_for(id))
        };
        self.first_look(awaited, Some(holder), how, start);
    }

    pub(crate) fn wait_ready(&mut self, pick: Pick, how: How) {
        let (service, id) = self.typed(pick);
        let registry = self.registry.clone();
        let start = waiting!(how, Got::Reader, registry => registry.wait_ready(id));
        self.first_look(Awaited::Ready { service }, None, how, start);
    }

    pub(crate) fn wait_overtaken(&mut self, place: usize, how: How) {
        let Handle { handle, service, generation, number } = &self.attempts[place];
        let (service, generation, owner) = (*service, *generation, *number);
        let attempt = Rc::clone(handle);
        let start = waiting!(how, Got::Failure, attempt => attempt.overtaken());
        self.first_look(Awaited::Overtaken { service, generation }, Some(owner), how, start);
    }

    pub(crate) fn wait_failed(&mut self, place: usize, how: How) {
        let Handle { handle, service, generation, number } = &self.running[place];
        let (service, generation, owner) = (*service, *generation, *number);
        let running = Rc::clone(handle);
        let start = waiting!(how, Got::Failure, running => running.failed());
        self.first_look(Awaited::Failed { service, generation }, Some(owner), how, start);
    }

    /// Watches a service on behalf of an attempt, whether that is overtaken or not.
    pub(crate) fn watch_for(&mut self, place: usize, pick: Pick) {
        let (service, id) = self.typed(pick);
        let Handle { handle, service: by, generation, number } = &self.attempts[place];
        let (by, generation, holder) = (*by, *generation, *number);
        let watch = handle.watch(id);
        let actual = match &watch {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Refused(error.clone().into()),
        };
        let Some(service) = service else {
            return self.compare(&Outcome::Refused(Refusal::Foreign), &actual);
        };
        let rests = Rests::On { holder, to_start: false };
        if self.edge_added(by, To { service, soft: true }, rests, &actual) {
            self.compare(&Outcome::Done, &actual);
        }
        if let Ok(watch) = watch {
            self.watches_from_now(watch, service, Some((by, generation)));
        }
    }

    pub(crate) fn watch(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let watch = self.registry.watch(id);
        assert_eq!(watch.is_ok(), service.is_some(), "only a foreign id is refused");
        if let (Some(service), Ok(watch)) = (service, watch) {
            self.watches_from_now(watch, service, None);
        }
    }

    fn watches_from_now(&mut self, watch: Watch<Value>, service: usize, by: Option<(usize, u64)>) {
        assert_eq!(watch.id(), self.id_of(Some(service)));
        let (number, watch) = (self.number(), Rc::new(RefCell::new(watch)));
        self.watches.push(Watching { watch, service, by, seen: None, number });
    }

    #[expect(clippy::await_holding_refcell_ref, reason = "one wait of a watch at a time")]
    pub(crate) fn wait_changed(&mut self, place: usize, how: How) {
        let Watching { watch, service, by, seen, number } = &self.watches[place];
        let (awaited, owner) =
            (Awaited::Change { service: *service, by: *by, seen: *seen }, *number);
        let watch = Rc::clone(watch);
        self.drop_waits_of(owner);
        let start = waiting!(how, Got::Change, watch => watch.borrow_mut().changed());
        self.first_look(awaited, Some(owner), how, start);
    }

    pub(crate) fn drop_watch(&mut self, place: usize) {
        let Watching { watch, number, .. } = self.watches.swap_remove(place);
        self.drop_waits_of(number);
        drop(watch);
    }

    fn first_look(&mut self, awaited: Awaited, owner: Option<Holder>, how: How, start: Start) {
        // A future owns a handle; it must be gone before the handle can be taken.
        let woken = Arc::new(Woken::default());
        let (got, future) = match start {
            Start::Ended(got) => (Some(got), None),
            Start::Future(mut future) => match poll(&mut future, &woken) {
                Poll::Ready(got) => (Some(got), None),
                Poll::Pending => (None, Some(future)),
            },
        };
        let actual = got.as_ref().map_or(Outcome::Pending, Got::outcome);

        let mut expected = self.model.ends_at_once(awaited);
        if let (None, Awaited::Dependency { service, holder, dependency: Some(d), to_start, .. }) =
            (&expected, awaited)
            && !self.edge_added(service, To::hard(d), Rests::On { holder, to_start }, &actual)
        {
            expected = Some(actual.clone());
        }
        match expected.or_else(|| self.model.ends(awaited)) {
            Some(expected) => self.compare(&expected, &actual),
            None => {
                self.model.wait_begins(awaited);
                if matches!(how, How::NoTime | How::TooLate) {
                    self.model.wait_ends(awaited);
                    let late = awaited.subject().map(|service| self.model.name(service));
                    let late = Outcome::Refused(Refusal::TimedOut(late.unwrap_or_default()));
                    self.compare(&late, &actual);
                } else {
                    self.compare(&Outcome::Pending, &actual);
                }
            }
        }
        if let Some(got) = got {
            self.ended(awaited, owner, got);
        }
        match future {
            Some(future) if how == How::Keep => {
                self.waits.push(Waiting { awaited, owner, future, woken });
            }
            Some(future) => {
                drop(future);
                self.model.wait_ends(awaited);
            }
            None => {}
        }
    }

    /// Keeps what a wait has given.
    fn ended(&mut self, awaited: Awaited, owner: Option<Holder>, got: Got) {
        match got {
            Got::Attempt(Ok(attempt)) => {
                let Awaited::Begin { service } = awaited else { unreachable!("it began") };
                let (generation, number) = (attempt.generation(), self.number());
                self.model.take(service, number);
                let handle = Rc::new(attempt);
                self.attempts.push(Handle { handle, service, generation, number });
            }
            Got::Reader(Ok(instance)) | Got::Dependency(Ok(instance)) => {
                let service = awaited.subject().expect("a foreign service gives nothing");
                self.keep(service, Hold::Arc(instance));
            }
            Got::Change(Ok(change)) => {
                let watching = self.watches.iter_mut().find(|watch| Some(watch.number) == owner);
                let watching = watching.expect("a watch outlives its waits");
                match change {
                    Change::Ready(instance) | Change::Replaced(instance) => {
                        watching.seen = Some(read(&instance));
                        let service = watching.service;
                        self.keep(service, Hold::Arc(instance));
                    }
                    Change::Failed(_) => watching.seen = None,
                }
            }
            _ => {}
        }
    }

    /// Polls a wait again, whether it was woken or not.
    pub(crate) fn poll(&mut self, place: usize) {
        let mut waiting = self.waits.swap_remove(place);
        let (awaited, owner) = (waiting.awaited, waiting.owner);
        waiting.woken.clear();
        let polled = poll(&mut waiting.future, &waiting.woken);
        let expected = self.model.ends(awaited);
        match polled {
            Poll::Pending => {
                self.compare(&expected.unwrap_or(Outcome::Pending), &Outcome::Pending);
                self.waits.push(waiting);
            }
            Poll::Ready(got) => {
                self.compare(&expected.unwrap_or(Outcome::Pending), &got.outcome());
                drop(waiting);
                self.model.wait_ends(awaited);
                self.ended(awaited, owner, got);
            }
        }
    }

    pub(crate) fn drop_wait(&mut self, place: usize) {
        let Waiting { awaited, future, .. } = self.waits.swap_remove(place);
        drop(future);
        self.model.wait_ends(awaited);
    }

    /// A handle goes only when nothing borrows it any more.
    pub(crate) fn drop_waits_of(&mut self, owner: Holder) {
        while let Some(place) = self.waits.iter().position(|wait| wait.owner == Some(owner)) {
            self.drop_wait(place);
        }
    }
}

fn poll(future: &mut Pin<Box<dyn Future<Output = Got>>>, woken: &Arc<Woken>) -> Poll<Got> {
    let waker = Waker::from(Arc::clone(woken));
    future.as_mut().poll(&mut Context::from_waker(&waker))
}
