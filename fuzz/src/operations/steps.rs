//! Operations that change something: carried out in the registry and in the model, and compared.

use std::rc::Rc;

use mainstay::{Attempt, Dependency, DependencyKind, ReadyError};

use super::{
    model::{Rests, To},
    op::{How, Op, Pick, Through},
    outcome::{Outcome, Refusal},
    value::{Other, Value},
    world::{Handle, Id, World, name},
};

/// Names that are used: more than there are places.
const NAMES: u8 = 10;

/// The name of a dependency, and whether it is a soft one.
pub(crate) fn is_soft(dependency: &Dependency) -> (&str, bool) {
    (&dependency.name, dependency.kind == DependencyKind::Soft)
}

/// Does something with one of those that there are, if there is any.
macro_rules! on {
    ($world:ident.$list:ident[$pick:ident].$operation:ident($($argument:expr),*)) => {
        if let Some(place) = $pick.among($world.$list.len()) {
            $world.$operation(place, $($argument),*);
        }
    };
}

impl World {
    pub(crate) fn step(&mut self, op: Op) {
        self.now = op;
        match op {
            Op::Nothing => {}
            Op::Register { name, of_values } => self.register(name, of_values),
            Op::Find { name } => self.find(name),
            Op::Declare { dependent, dependency } => self.declare(dependent, dependency),
            Op::Provide(pick) => self.provide(self.typed(pick).0),
            Op::DropProvider(pick) => on!(self.providers[pick].drop_provider()),
            Op::Begin(pick, how) => on!(self.providers[pick].begin(how)),
            Op::WaitFor { attempt, dependency, to_start, how } => {
                on!(self.attempts[attempt].wait_for(dependency, to_start, how));
            }
            Op::WaitReady(pick, how) => self.wait_ready(pick, how),
            Op::WaitOvertaken(pick, how) => on!(self.attempts[pick].wait_overtaken(how)),
            Op::WaitFailed(pick, how) => on!(self.running[pick].wait_failed(how)),
            Op::Poll(pick) => on!(self.waits[pick].poll()),
            Op::DropWait(pick) => on!(self.waits[pick].drop_wait()),
            Op::Watch { attempt: Some(attempt), service } => {
                on!(self.attempts[attempt].watch_for(service));
            }
            Op::Watch { attempt: None, service } => self.watch(service),
            Op::WaitChanged(pick, how) => on!(self.watches[pick].wait_changed(how)),
            Op::DropWatch(pick) => on!(self.watches[pick].drop_watch()),
            Op::Ready(pick) => on!(self.attempts[pick].ready()),
            Op::GiveUp { attempt, with_reason } => {
                on!(self.attempts[attempt].give_up(with_reason));
            }
            Op::Replace(pick) => on!(self.running[pick].replace()),
            Op::EndRunning { running, with_reason } => {
                on!(self.running[running].end_running(with_reason));
            }
            Op::RunningInstance(pick) => on!(self.running[pick].running_instance()),
            Op::Fail(pick) => self.fail(pick),
            Op::Get(pick, Through::Guard) => self.get(pick),
            Op::Get(pick, Through::Arc) => self.get_arc(pick),
            Op::Get(one, Through::Two(two)) => self.get_two(one, two),
            Op::Get(one, Through::Three(two, three)) => self.get_three(one, two, three),
            Op::Cache(pick) => self.cache(pick),
            Op::GetCached(pick) => on!(self.readers[pick].get_cached()),
            Op::DropCache(pick) => on!(self.readers[pick].drop_cache()),
            Op::DropHold(pick) => on!(self.holds[pick].drop_hold()),
            Op::Report(pick) => on!(self.holds[pick].report()),
            Op::ReportForeign(pick) => self.report_foreign(pick),
            Op::Status(pick) => self.status(pick),
            Op::Close => self.close(),
            Op::Up { service, on } => self.up(service, on),
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
                assert_eq!(id, before, "{name} has one id");
            }
            (Ok(id), None) => {
                self.ids.push(id);
                let service = self.model.register(&name, of_values);
                self.model.happened(service, "registered");
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
            assert_eq!(Some(id), known.map(|known| self.ids[known].into()), "{name} has one id");
        }
    }

    fn declare(&mut self, dependent: Pick, dependency: Pick) {
        let ((a, dependent), (b, dependency)) = (self.any(dependent), self.any(dependency));
        let declared = self.registry.add_dependency(dependent, dependency);
        let actual = Outcome::of(declared, |()| Outcome::Done);
        match a.zip(b) {
            Some((a, b)) => {
                if self.edge_added(a, To::hard(b), Rests::Declared, &actual) {
                    self.compare(&Outcome::Done, &actual);
                }
            }
            None => self.compare(&Outcome::Refused(Refusal::Foreign), &actual),
        }
    }

    /// Follows the registry where it was asked for an edge. False where that was refused, as it had to be.
    ///
    /// The edge is refused where those that hold something already lead the other way. Where only stale ones
    /// do, as many of them are dropped as it takes; which, the registry may choose.
    pub(crate) fn edge_added(&mut self, a: usize, to: To, rests: Rests, actual: &Outcome) -> bool {
        let b = to.service;
        if let Some(known) = self.model.services[a].edges.get_mut(&to) {
            *known = match (*known, rests) {
                (Rests::Declared, _) => Rests::Declared,
                // An attempt that is overtaken takes no edge from a later one.
                (Rests::On { holder: later, .. }, Rests::On { holder, .. }) if later > holder => {
                    *known
                }
                // What one attempt needs for good stays.
                (Rests::On { holder: before, to_start: false }, Rests::On { holder, .. })
                    if before == holder =>
                {
                    *known
                }
                _ => rests,
            };
            return true;
        }
        // An attempt that is overtaken makes no edge, and so closes no cycle.
        if let Rests::On { holder, .. } = rests
            && !self.model.is_held_by(a, holder)
        {
            return true;
        }
        let refused = self.model.live(|graph| graph.rests_on(b, a));
        self.adopt_dropped_edges(a, b);
        if refused {
            match actual {
                Outcome::Refused(Refusal::Cycle(path)) => {
                    let named = |name: &String| self.model.named(name);
                    let path: Vec<usize> = path.iter().filter_map(named).collect();
                    self.model.live(|graph| graph.check_cycle(&path, a, b));
                }
                other => panic!("{a} -> {b} closes a cycle, but: {other:?}"),
            }
            return false;
        }
        assert!(!self.model.all(|graph| graph.rests_on(b, a)), "{a} -> {b} closes a cycle now");
        self.model.services[a].edges.insert(to, rests);
        true
    }

    /// Edges that went to make room for `a -> b`: stale ones, on the way back from `b` to `a`.
    fn adopt_dropped_edges(&mut self, a: usize, b: usize) {
        if !self.model.all(|graph| graph.rests_on(b, a)) {
            return;
        }
        let mut dropped = Vec::new();
        for (from, service) in self.model.services.iter().enumerate() {
            let status = self.registry.status(self.ids[from]).expect("it is ours");
            let there: Vec<(&str, bool)> = status.dependencies.iter().map(is_soft).collect();
            let is_gone =
                |to: &To| !there.contains(&(&*self.model.services[to.service].name, to.soft));
            let gone = service.edges.keys().copied().filter(is_gone);
            dropped.extend(gone.map(|to| (from, to)));
        }
        for &(from, to) in &dropped {
            let in_the_way = self.model.all(|g| g.rests_on(b, from) && g.rests_on(to.service, a));
            let stale = self.model.is_stale(from, to);
            assert!(stale && in_the_way, "{from} -> {to:?} was dropped for {a} -> {b}");
        }
        for (from, to) in dropped {
            self.model.services[from].edges.remove(&to);
        }
    }

    pub(crate) fn provide(&mut self, service: Option<usize>) {
        let expected = match service {
            None => Outcome::Refused(Refusal::Foreign),
            Some(s) if self.model.closed => Outcome::Refused(Refusal::Closed(self.model.name(s))),
            Some(s) if self.model.services[s].provided => {
                Outcome::Refused(Refusal::AlreadyProvided(self.model.name(s)))
            }
            Some(_) => Outcome::Done,
        };
        let provided = self.registry.provide(self.id_of(service));
        let given = provided.as_ref().map(|_| ()).map_err(Clone::clone);
        self.compare(&expected, &Outcome::of(given, |()| Outcome::Done));
        if let (Ok(provider), Some(service)) = (provided, service) {
            assert_eq!(provider.id(), self.id_of(Some(service)));
            self.model.services[service].provided = true;
            let (number, handle) = (self.number(), Rc::new(provider));
            self.providers.push(Handle { handle, service, generation: 0, number });
        }
    }

    pub(crate) fn drop_provider(&mut self, place: usize) {
        let Handle { handle, service, number, .. } = self.providers.remove(place);
        self.drop_waits_of(number);
        drop(Rc::into_inner(handle).expect("no wait is left that borrows it"));
        self.model.drop_provider(service);
    }

    fn take_attempt(&mut self, place: usize) -> (Attempt<Value>, usize, u64, u64) {
        let Handle { handle, service, generation, number } = self.attempts.remove(place);
        self.drop_waits_of(number);
        let attempt = Rc::into_inner(handle).expect("no wait is left that borrows it");
        (attempt, service, generation, number)
    }

    pub(crate) fn ready(&mut self, place: usize) {
        let (attempt, service, generation, number) = self.take_attempt(place);
        let serial = self.number();
        let published = attempt.ready(self.alive.value(serial));
        let expected = self.model.publish(service, generation, number, serial);
        let actual = match &published {
            Ok(_) => Outcome::Done,
            Err(ReadyError::Closed { service, .. }) => {
                Outcome::Refused(Refusal::Closed(service.to_string()))
            }
            Err(ReadyError::Overtaken { failure, .. }) => {
                Outcome::Refused(Refusal::Overtaken(failure.into()))
            }
            Err(other) => panic!("a new kind of error: {other}"),
        };
        self.compare(&expected, &actual);
        match published {
            Ok(running) => {
                assert_eq!(running.generation(), generation);
                let handle = Rc::new(running);
                self.running.push(Handle { handle, service, generation, number });
            }
            Err(refused) => assert_eq!(refused.into_value().serial, serial, "it comes back"),
        }
    }

    pub(crate) fn give_up(&mut self, place: usize, with_reason: bool) {
        let (attempt, service, generation, number) = self.take_attempt(place);
        if with_reason {
            let reason = self.reason();
            let given_up = attempt.fail(&*reason);
            let actual = Outcome::of(given_up, |()| Outcome::Done);
            let expected = self.model.give_up(service, generation, number, &reason);
            self.compare(&expected, &actual);
        } else {
            drop(attempt);
            self.model.drop_attempt(service, generation, number);
        }
    }

    fn replace(&mut self, place: usize) {
        let serial = self.number();
        let Handle { handle, service, generation, .. } = &self.running[place];
        let replaced = handle.replace(self.alive.value(serial));
        let expected = self.model.replace(*service, *generation, serial);
        let actual = match replaced {
            Ok(()) => Outcome::Done,
            Err(refused) => {
                assert_eq!(refused.value.serial, serial, "it comes back");
                Outcome::Refused(Refusal::Overtaken((&refused.failure).into()))
            }
        };
        self.compare(&expected, &actual);
    }

    pub(crate) fn end_running(&mut self, place: usize, with_reason: bool) {
        let Handle { handle, service, generation, number } = self.running.remove(place);
        self.drop_waits_of(number);
        let running = Rc::into_inner(handle).expect("no wait is left that borrows it");
        if with_reason {
            let reason = self.reason();
            let actual = running.fail(&*reason).into();
            let expected = self.model.end(service, generation, &reason);
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

    fn close(&mut self) {
        self.registry.close();
        if !self.model.closed {
            (0..self.ids.len()).for_each(|service| self.model.happened(service, "closed"));
        }
        self.model.closed = true;
    }

    fn up(&mut self, pick: Pick, on: Option<Pick>) {
        let (Some(service), _) = self.typed(pick) else { return };
        if !self.model.services[service].provided {
            self.provide(Some(service));
        }
        let Some(provider) = self.providers.iter().position(|p| p.service == service) else {
            return;
        };
        let attempts = self.attempts.len();
        self.begin(provider, How::Drop);
        if self.attempts.len() > attempts {
            if let Some(dependency) = on {
                self.wait_for(attempts, dependency, false, How::Drop);
            }
            self.ready(attempts);
        }
    }
}
