//! Operations that change something. Each is carried out in the registry and in the model.

use std::rc::Rc;

use mainstay::{Attempt, DependencyKind, error::ReadyError};

use crate::plan::EndKind;

use super::{
    op::{Op, Pick, ReadMethod, WaitMode},
    outcome::{Outcome, Refusal},
    value::{Other, Value},
    world::{Handle, Id, World, name},
};

/// The number of names, which is larger than the capacity.
const NAMES: u8 = 10;

/// Executes an operation on the chosen item of a list, unless the list is empty.
macro_rules! on_item {
    ($world:ident.$list:ident[$pick:ident].$operation:ident($($argument:expr),*)) => {
        if let Some(index) = $pick.index($world.$list.len()) {
            $world.$operation(index, $($argument),*);
        }
    };
}

impl World {
    pub(crate) fn step(&mut self, op: Op) {
        self.op = op;
        match op {
            Op::Nothing => {}
            Op::Register { name, of_values } => self.register(name, of_values),
            Op::Find { name } => self.find(name),
            Op::Declare { dependent, dependency } => {
                self.declare(dependent, dependency, DependencyKind::Hard);
            }
            Op::DeclareToStart { dependent, dependency } => {
                self.declare(dependent, dependency, DependencyKind::StartOnly);
            }
            Op::DeclareSoft { dependent, dependency } => {
                self.declare(dependent, dependency, DependencyKind::Soft);
            }
            Op::Provide(pick) => self.provide(self.typed(pick).0),
            Op::DropProvider(pick) => on_item!(self.providers[pick].drop_provider()),
            Op::Begin(pick, mode) => on_item!(self.providers[pick].begin(mode)),
            Op::WaitFor { attempt, dependency, start_only, mode } => {
                on_item!(self.attempts[attempt].wait_for(dependency, start_only, false, mode));
            }
            Op::WaitForAny { attempt, dependency, start_only, mode } => {
                on_item!(self.attempts[attempt].wait_for(dependency, start_only, true, mode));
            }
            Op::WaitStateChanged(pick, mode) => self.wait_state_changed(pick, mode),
            Op::WaitReady(pick, mode) => self.wait_ready(pick, mode),
            Op::WaitInvalidated(pick, mode) => on_item!(self.attempts[pick].wait_invalidated(mode)),
            Op::WaitFailed(pick, mode) => on_item!(self.running[pick].wait_failed(mode)),
            Op::Poll(pick) => on_item!(self.waits[pick].poll()),
            Op::DropWait(pick) => on_item!(self.waits[pick].drop_wait()),
            Op::Watch { attempt: Some(attempt), service } => {
                on_item!(self.attempts[attempt].watch_for(service));
            }
            Op::Watch { attempt: None, service } => self.watch(service),
            Op::WaitChanged(pick, mode) => on_item!(self.watches[pick].wait_changed(mode)),
            Op::DropWatch(pick) => on_item!(self.watches[pick].drop_watch()),
            Op::Ready(pick) => on_item!(self.attempts[pick].ready()),
            Op::EndAttempt { attempt, with_reason } => {
                on_item!(self.attempts[attempt].end_attempt(with_reason));
            }
            Op::Replace(pick) => on_item!(self.running[pick].replace()),
            Op::EndRunning { running, with_reason } => {
                on_item!(self.running[running].end_running(with_reason));
            }
            Op::RunningInstance(pick) => on_item!(self.running[pick].running_instance()),
            Op::Fail(pick) => self.fail(pick),
            Op::Get(pick, ReadMethod::Guard) => self.get(pick),
            Op::Get(pick, ReadMethod::Arc) => self.get_arc(pick),
            Op::Get(one, ReadMethod::Two(two)) => self.get_two(one, two),
            Op::Get(one, ReadMethod::Three(two, three)) => self.get_three(one, two, three),
            Op::CreateCached(pick) => self.create_cached(pick),
            Op::GetCached(pick) => on_item!(self.readers[pick].get_cached()),
            Op::DropCached(pick) => on_item!(self.readers[pick].drop_cached()),
            Op::DropHeld(pick) => on_item!(self.held[pick].drop_held()),
            Op::FailInstance(pick) => on_item!(self.held[pick].fail_instance()),
            Op::FailForeignInstance(pick) => self.fail_foreign_instance(pick),
            Op::Status(pick) => self.status(pick),
            Op::Restart(pick, mode) => self.end_as_planned(pick, EndKind::Restart, false, mode),
            Op::Stop { service, subtree, mode } => {
                self.end_as_planned(service, EndKind::Stop, subtree, mode);
            }
            Op::Start(pick) => self.start(pick),
            Op::HoldTurn(pick) => on_item!(self.running[pick].hold_turn()),
            Op::DropTurn(pick) => on_item!(self.turns[pick].drop_turn()),
            Op::Close => self.close(),
            Op::BringUp { service, dependency } => self.bring_up(service, dependency),
        }
    }

    fn register(&mut self, number: u8, of_values: bool) {
        let name = name(usize::from(number % NAMES));
        let known = self.model.named(&name);
        let expected = match known {
            _ if self.model.closed => Outcome::Refused(Refusal::Closed(name.clone())),
            Some(known) if self.model.services[known].of_values != of_values => {
                Outcome::Refused(Refusal::WrongType(name.clone()))
            }
            None if self.ids.len() == self.capacity => {
                Outcome::Refused(Refusal::Full(name.clone()))
            }
            _ => Outcome::Done,
        };
        let registered = match of_values {
            true => self.registry.register::<Value>(&name).map(Id::Value),
            false => self.registry.register::<Other>(&name).map(Id::Other),
        };
        self.compare(&expected, &Outcome::of(registered.clone(), |_| Outcome::Done));
        match (registered, known) {
            (Ok(id), Some(known)) => {
                let (id, before) = (mainstay::AnyId::from(id), self.ids[known].into());
                assert_eq!(id, before, "{name} must keep its id");
            }
            (Ok(id), None) => {
                self.ids.push(id);
                let service = self.model.register(&name, of_values);
                self.model.record_event(service, "registered");
            }
            (Err(_), _) => {}
        }
    }

    fn find(&mut self, number: u8) {
        let name = name(usize::from(number % NAMES));
        let known = self.model.named(&name);
        let expected = match known {
            Some(_) => Outcome::Done,
            None => Outcome::Refused(Refusal::UnknownName(name.clone())),
        };
        let found = self.registry.find(&name);
        self.compare(&expected, &Outcome::of(found.clone(), |_| Outcome::Done));

        let values = known.is_some_and(|known| self.model.services[known].of_values);
        let wrong = Outcome::Refused(Refusal::WrongType(name.clone()));
        let of_type = |right| if right || known.is_none() { &expected } else { &wrong };
        let (as_value, as_other) =
            (self.registry.id::<Value>(&name), self.registry.id::<Other>(&name));
        self.compare(of_type(values), &Outcome::of(as_value.clone(), |_| Outcome::Done));
        self.compare(of_type(!values), &Outcome::of(as_other.clone(), |_| Outcome::Done));

        let ids = [found.ok(), as_value.ok().map(Into::into), as_other.ok().map(Into::into)];
        for id in ids.into_iter().flatten() {
            assert_eq!(
                Some(id),
                known.map(|known| self.ids[known].into()),
                "{name} must keep its id"
            );
        }
    }

    pub(crate) fn provide(&mut self, service: Option<usize>) {
        let expected = match service {
            None => Outcome::Refused(Refusal::Foreign),
            Some(s) if self.model.closed => Outcome::Refused(Refusal::Closed(self.model.name(s))),
            Some(s) if self.model.services[s].has_provider => {
                Outcome::Refused(Refusal::AlreadyProvided(self.model.name(s)))
            }
            Some(_) => Outcome::Done,
        };
        let provided = self.registry.provide(self.id_of(service));
        let result = provided.as_ref().map(|_| ()).map_err(Clone::clone);
        self.compare(&expected, &Outcome::of(result, |()| Outcome::Done));
        if let (Ok(provider), Some(service)) = (provided, service) {
            assert_eq!(provider.id(), self.id_of(Some(service)));
            self.model.services[service].has_provider = true;
            let (number, handle) = (self.number(), Rc::new(provider));
            self.providers.push(Handle { handle, service, generation: 0, number });
        }
    }

    pub(crate) fn drop_provider(&mut self, index: usize) {
        let Handle { handle, service, number, .. } = self.providers.remove(index);
        self.drop_waits_of(number);
        drop(Rc::into_inner(handle).expect("all waits that borrow it were dropped"));
        self.model.drop_provider(service);
    }

    fn take_attempt(&mut self, index: usize) -> (Attempt<Value>, usize, u64, u64) {
        let Handle { handle, service, generation, number } = self.attempts.remove(index);
        self.drop_waits_of(number);
        let attempt = Rc::into_inner(handle).expect("all waits that borrow it were dropped");
        (attempt, service, generation, number)
    }

    pub(crate) fn ready(&mut self, index: usize) {
        let (attempt, service, generation, number) = self.take_attempt(index);
        let serial = self.number();
        let published = attempt.ready(self.live_values.value(serial));
        let expected = self.model.publish(service, generation, number, serial);
        let actual = match &published {
            Ok(_) => Outcome::Done,
            Err(ReadyError::Closed { service, .. }) => {
                Outcome::Refused(Refusal::Closed(service.to_string()))
            }
            Err(ReadyError::Invalidated { failure, .. }) => {
                Outcome::Refused(Refusal::Invalidated(failure.into()))
            }
            Err(other) => panic!("an unknown error: {other}"),
        };
        self.compare(&expected, &actual);
        match published {
            Ok(running) => {
                assert_eq!(running.generation(), generation);
                let handle = Rc::new(running);
                self.running.push(Handle { handle, service, generation, number });
            }
            Err(refused) => {
                assert_eq!(refused.into_value().serial, serial, "the value must be returned")
            }
        }
    }

    pub(crate) fn end_attempt(&mut self, index: usize, with_reason: bool) {
        let (attempt, service, generation, number) = self.take_attempt(index);
        if with_reason {
            let reason = self.reason();
            let failed = attempt.fail(&*reason);
            let actual = Outcome::of(failed, |()| Outcome::Done);
            let expected = self.model.fail_attempt(service, generation, number, &reason);
            self.compare(&expected, &actual);
        } else {
            drop(attempt);
            self.model.drop_attempt(service, generation, number);
        }
    }

    fn replace(&mut self, index: usize) {
        let serial = self.number();
        let Handle { handle, service, generation, .. } = &self.running[index];
        let replaced = handle.replace(self.live_values.value(serial));
        let expected = self.model.replace(*service, *generation, serial);
        let actual = match replaced {
            Ok(()) => Outcome::Done,
            Err(refused) => {
                assert_eq!(refused.value.serial, serial, "the value must be returned");
                let failure = refused.missing.failure().expect("the instance has failed");
                assert_eq!(refused.missing.service, failure.root, "the service that is missing");
                Outcome::Refused(Refusal::Invalidated(failure.into()))
            }
        };
        self.compare(&expected, &actual);
    }

    pub(crate) fn end_running(&mut self, index: usize, with_reason: bool) {
        let Handle { handle, service, generation, number } = self.running.remove(index);
        self.drop_waits_of(number);
        let running = Rc::into_inner(handle).expect("all waits that borrow it were dropped");
        if with_reason {
            let reason = self.reason();
            let actual = running.fail(&*reason).into();
            let expected = self.model.fail_running(service, generation, &reason);
            self.compare(&expected, &actual);
        } else {
            drop(running);
            self.model.drop_running(service, generation);
        }
    }

    fn fail(&mut self, pick: Pick) {
        let ((service, id), reason) = (self.any(pick), self.reason());
        let expected = match service {
            Some(service) => self.model.fail(service, &reason),
            None => Outcome::Refused(Refusal::Foreign),
        };
        let actual = Outcome::of(self.registry.fail(id, reason), Outcome::from);
        self.compare(&expected, &actual);
    }

    fn start(&mut self, pick: Pick) {
        let (service, id) = self.any(pick);
        let expected = match service {
            Some(service) => Outcome::Started { was_stopped: self.model.start(service) },
            None => Outcome::Refused(Refusal::Foreign),
        };
        let started = self.registry.start(id);
        self.compare(
            &expected,
            &Outcome::of(started, |was_stopped| Outcome::Started { was_stopped }),
        );
    }

    fn hold_turn(&mut self, index: usize) {
        let Handle { handle, service, .. } = &self.running[index];
        self.turns.push((*service, handle.hold_turn()));
        self.model.hold(*service);
    }

    pub(crate) fn drop_turn(&mut self, index: usize) {
        let (service, turn) = self.turns.swap_remove(index);
        drop(turn);
        self.model.no_longer_hold(service);
    }

    fn close(&mut self) {
        self.registry.close();
        if !self.model.closed {
            (0..self.ids.len()).for_each(|service| self.model.record_event(service, "closed"));
        }
        self.model.closed = true;
    }

    fn bring_up(&mut self, pick: Pick, dependency: Option<Pick>) {
        let (Some(service), _) = self.typed(pick) else { return };
        if !self.model.services[service].has_provider {
            self.provide(Some(service));
        }
        let Some(provider) = self.providers.iter().position(|p| p.service == service) else {
            return;
        };
        let attempts = self.attempts.len();
        self.begin(provider, WaitMode::Drop);
        if self.attempts.len() > attempts {
            if let Some(dependency) = dependency {
                self.wait_for(attempts, dependency, false, false, WaitMode::Drop);
            }
            self.ready(attempts);
        }
    }
}
