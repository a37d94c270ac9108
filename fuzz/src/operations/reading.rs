//! Operations that read: compared with the model, and what was read is kept for later.

use std::sync::Arc;

use mainstay::{Cascade, ForeignId, Guard, Instance, Report};

use super::{
    model::Service,
    op::Pick,
    outcome::{Outcome, Read, Refusal},
    value::{FOREIGN, Value},
    world::{Hold, Reader, World},
};

impl World {
    /// So many are kept; eight guards of a thread are served otherwise than the ninth.
    const HOLDS: usize = 12;

    pub(crate) fn keep(&mut self, service: usize, hold: Hold) {
        if self.holds.len() == Self::HOLDS {
            self.holds.remove(0);
        }
        assert_eq!(Instance::service(hold.instance()), self.ids[service].into());
        self.holds.push((service, hold));
    }

    fn expect(&self, services: &[Option<usize>]) -> Outcome {
        let read: Result<Vec<Read>, Refusal> =
            services.iter().map(|&service| self.model.read(service)).collect();
        Outcome::of(read, Outcome::Read)
    }

    fn keep_guards(&mut self, services: &[Option<usize>], guards: Vec<Guard<Value>>) {
        for (&service, guard) in services.iter().zip(guards) {
            if let Some(service) = service {
                // Whether it is kept as it is makes no difference to the model.
                self.keep(
                    service,
                    match self.holds.len() % 3 {
                        2 => Hold::Arc(Guard::into_arc(guard)),
                        _ => Hold::Guard(guard),
                    },
                );
            }
        }
    }

    pub(crate) fn get(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let got = self.registry.get(id).map(|guard| vec![guard]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| seen(guards));
        self.compare(&self.expect(&[service]), &actual);
        self.keep_guards(&[service], got.unwrap_or_default());
    }

    pub(crate) fn get_arc(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let got = self.registry.get_arc(id);
        let actual =
            Outcome::of(got.as_ref().map_err(Clone::clone), |got| Outcome::Read(vec![read(got)]));
        self.compare(&self.expect(&[service]), &actual);
        if let (Some(service), Ok(instance)) = (service, got) {
            self.keep(service, Hold::Arc(instance));
        }
    }

    pub(crate) fn get_two(&mut self, one: Pick, two: Pick) {
        let ((a, one), (b, two)) = (self.typed(one), self.typed(two));
        let got = self.registry.get_all((one, two)).map(|(one, two)| vec![one, two]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| seen(guards));
        self.compare(&self.expect(&[a, b]), &actual);
        self.keep_guards(&[a, b], got.unwrap_or_default());
    }

    pub(crate) fn get_three(&mut self, one: Pick, two: Pick, three: Pick) {
        let ((a, one), (b, two), (c, three)) =
            (self.typed(one), self.typed(two), self.typed(three));
        let got = self.registry.get_all((one, two, three)).map(|(a, b, c)| vec![a, b, c]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| seen(guards));
        self.compare(&self.expect(&[a, b, c]), &actual);
        self.keep_guards(&[a, b, c], got.unwrap_or_default());
    }

    pub(crate) fn cache(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let cached = self.registry.cached(id);
        assert_eq!(cached.is_ok(), service.is_some(), "only a foreign id is refused");
        if let (Some(service), Ok(cached)) = (service, cached) {
            self.readers.push(Reader { cached, service, serial: None });
        }
    }

    pub(crate) fn get_cached(&mut self, place: usize) {
        let expected = self.expect(&[Some(self.readers[place].service)]);
        let Reader { cached, serial, .. } = &mut self.readers[place];
        let actual = Outcome::of(cached.get().map(read), |read| Outcome::Read(vec![read]));
        // What has failed is let go of by looking.
        *serial = match &actual {
            Outcome::Read(read) => Some(read[0].serial),
            _ => None,
        };
        self.compare(&expected, &actual);
    }

    pub(crate) fn drop_cache(&mut self, place: usize) {
        drop(self.readers.remove(place));
    }

    pub(crate) fn drop_hold(&mut self, place: usize) {
        drop(self.holds.remove(place));
    }

    pub(crate) fn running_instance(&mut self, place: usize) {
        let (handle, service) = (&self.running[place].handle, self.running[place].service);
        let generation = self.running[place].generation;
        let instance = handle.instance();
        let Service { generation: now, published, .. } = &self.model.services[service];
        let expected = if *now == generation { *published } else { None };
        assert_eq!(expected, instance.as_deref().map(read), "at {:?}", self.now);
        if let Some(instance) = instance {
            self.keep(service, Hold::Arc(instance));
        }
    }

    pub(crate) fn report(&mut self, place: usize) {
        let (reason, service) = (self.reason(), self.holds[place].0);
        let hold = &self.holds[place].1;
        let expected = self.model.report(service, hold.read(), &reason);
        let actual = reported(self.registry.report(hold.instance(), &*reason));
        self.compare(&expected, &actual);
        let elsewhere = FOREIGN.registry.report(self.holds[place].1.instance(), &*reason);
        self.compare(&Outcome::Refused(Refusal::Foreign), &reported(elsewhere));
    }

    /// Also what else takes an id or an instance, and has no foreign one given by its own operation.
    pub(crate) fn report_foreign(&mut self, pick: Pick) {
        let foreign = Outcome::Refused(Refusal::Foreign);
        let instance: &Arc<Instance<Value>> = &FOREIGN.instance;
        self.compare(&foreign, &reported(self.registry.report(instance, "not mine")));
        let (_, ours) = self.any(pick);
        if ours != FOREIGN.id.into() {
            let there = &FOREIGN.registry;
            self.compare(&foreign, &Outcome::of(there.fail(ours, "not mine"), Outcome::from));
            self.compare(&foreign, &Outcome::of(there.status(ours), |_| Outcome::Done));
            let edge = there.add_dependency(ours, FOREIGN.id);
            self.compare(&foreign, &Outcome::of(edge, |()| Outcome::Done));
        }
        assert!(there_is_still_one(), "the foreign service was hit");
    }
}

fn there_is_still_one() -> bool {
    FOREIGN.registry.get(FOREIGN.id).is_ok_and(|guard| Guard::generation(&guard) == 0)
}

pub(crate) fn read(instance: &Instance<Value>) -> Read {
    Read { generation: Instance::generation(instance), serial: instance.serial }
}

fn seen(guards: &[Guard<Value>]) -> Outcome {
    Outcome::Read(guards.iter().map(|guard| read(Guard::instance(guard))).collect())
}

fn reported(result: Result<Report, ForeignId>) -> Outcome {
    Outcome::of(result, |report| match report {
        Report::Failed(Cascade { went_down, overtaken, .. }) => {
            Outcome::Fell { went_down, overtaken }
        }
        Report::AlreadyFailed => Outcome::AlreadyFailed,
        Report::Replaced => Outcome::Replaced,
    })
}
