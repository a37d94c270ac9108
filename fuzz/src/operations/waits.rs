//! Waits: polled once, then kept, dropped, or without time in the first place.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use mainstay::{Attempt, BeginError, Failure, Instance, WaitError, WaitForError};

use super::{
    model::{Awaited, Holder, Rests},
    op::{How, Pick},
    outcome::{Outcome, Refusal},
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

/// What a wait gives.
pub(crate) enum Got {
    Attempt(Result<Attempt<Value>, BeginError>),
    Reader(Result<Arc<Instance<Value>>, WaitError>),
    Dependency(Result<Arc<Instance<Value>>, WaitForError>),
    Failure(Result<Failure, WaitError>),
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
            && !self.edge_added(service, d, Rests::On { holder, to_start }, &actual)
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
            self.ended(awaited, got);
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
    fn ended(&mut self, awaited: Awaited, got: Got) {
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
            _ => {}
        }
    }

    /// Polls a wait again, whether it was woken or not.
    pub(crate) fn poll(&mut self, place: usize) {
        let mut waiting = self.waits.swap_remove(place);
        let awaited = waiting.awaited;
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
                self.ended(awaited, got);
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
