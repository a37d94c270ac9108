//! Operations that read. Each result is compared with the model, and kept for a time.

use std::sync::Arc;

use mainstay::{Cascade, FailOutcome, Guard, Instance, error::ForeignIdError};

use super::{
    model::Service,
    op::Pick,
    outcome::{InstanceId, Outcome, Refusal},
    value::{FOREIGN, Value},
    world::{HeldInstance, Reader, World},
};

impl World {
    /// The maximum number of instances that are kept. A thread has eight places for
    /// guards, so some guards are counted references.
    const MAX_HELD: usize = 12;

    pub(crate) fn keep(&mut self, service: usize, instance: HeldInstance) {
        if self.held.len() == Self::MAX_HELD {
            self.held.remove(0);
        }
        assert_eq!(Instance::service(instance.instance()), self.ids[service].into());
        self.held.push((service, instance));
    }

    fn expect(&self, services: &[Option<usize>]) -> Outcome {
        let instances: Result<Vec<InstanceId>, Refusal> =
            services.iter().map(|&service| self.model.read(service)).collect();
        Outcome::of(instances, Outcome::Instances)
    }

    fn keep_guards(&mut self, services: &[Option<usize>], guards: Vec<Guard<Value>>) {
        for (&service, guard) in services.iter().zip(guards) {
            if let Some(service) = service {
                // The model does not distinguish guards from counted references.
                self.keep(
                    service,
                    match self.held.len() % 3 {
                        2 => HeldInstance::Arc(Guard::into_arc(guard)),
                        _ => HeldInstance::Guard(guard),
                    },
                );
            }
        }
    }

    pub(crate) fn get(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let got = self.registry.get(id).map(|guard| vec![guard]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| instances(guards));
        self.compare(&self.expect(&[service]), &actual);
        self.keep_guards(&[service], got.unwrap_or_default());
    }

    pub(crate) fn get_arc(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let got = self.registry.get_arc(id);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |got| {
            Outcome::Instances(vec![instance_id(got)])
        });
        self.compare(&self.expect(&[service]), &actual);
        if let (Some(service), Ok(instance)) = (service, got) {
            self.keep(service, HeldInstance::Arc(instance));
        }
    }

    pub(crate) fn get_two(&mut self, one: Pick, two: Pick) {
        let ((a, one), (b, two)) = (self.typed(one), self.typed(two));
        let got = self.registry.get_all((one, two)).map(|(one, two)| vec![one, two]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| instances(guards));
        self.compare(&self.expect(&[a, b]), &actual);
        self.keep_guards(&[a, b], got.unwrap_or_default());
    }

    pub(crate) fn get_three(&mut self, one: Pick, two: Pick, three: Pick) {
        let ((a, one), (b, two), (c, three)) =
            (self.typed(one), self.typed(two), self.typed(three));
        let got = self.registry.get_all((one, two, three)).map(|(a, b, c)| vec![a, b, c]);
        let actual = Outcome::of(got.as_ref().map_err(Clone::clone), |guards| instances(guards));
        self.compare(&self.expect(&[a, b, c]), &actual);
        self.keep_guards(&[a, b, c], got.unwrap_or_default());
    }

    pub(crate) fn create_cached(&mut self, pick: Pick) {
        let (service, id) = self.typed(pick);
        let cached = self.registry.cached(id);
        assert_eq!(cached.is_ok(), service.is_some(), "only a foreign id is refused");
        if let (Some(service), Ok(cached)) = (service, cached) {
            self.readers.push(Reader { cached, service, serial: None });
        }
    }

    pub(crate) fn get_cached(&mut self, index: usize) {
        let expected = self.expect(&[Some(self.readers[index].service)]);
        let Reader { cached, serial, .. } = &mut self.readers[index];
        let actual = Outcome::of(cached.get().map(instance_id), |instance| {
            Outcome::Instances(vec![instance])
        });
        // A read that finds the instance stale drops it.
        *serial = match &actual {
            Outcome::Instances(instances) => Some(instances[0].serial),
            _ => None,
        };
        self.compare(&expected, &actual);
    }

    pub(crate) fn drop_cached(&mut self, index: usize) {
        drop(self.readers.remove(index));
    }

    pub(crate) fn drop_held(&mut self, index: usize) {
        drop(self.held.remove(index));
    }

    pub(crate) fn running_instance(&mut self, index: usize) {
        let (handle, service) = (&self.running[index].handle, self.running[index].service);
        let generation = self.running[index].generation;
        let instance = handle.instance();
        let Service { generation: current, published, .. } = &self.model.services[service];
        let expected = if *current == generation { *published } else { None };
        assert_eq!(expected, instance.as_deref().map(instance_id), "at {:?}", self.op);
        if let Some(instance) = instance {
            self.keep(service, HeldInstance::Arc(instance));
        }
    }

    pub(crate) fn fail_instance(&mut self, index: usize) {
        let (reason, service) = (self.reason(), self.held[index].0);
        let hold = &self.held[index].1;
        let expected = self.model.fail_instance(service, hold.id(), &reason);
        let actual = fail_outcome(self.registry.fail_instance(hold.instance(), &*reason));
        self.compare(&expected, &actual);
        let foreign = FOREIGN.registry.fail_instance(self.held[index].1.instance(), &*reason);
        self.compare(&Outcome::Refused(Refusal::Foreign), &fail_outcome(foreign));
    }

    /// Passes a foreign instance or id to the operations for which no other operation of a script
    /// does so.
    pub(crate) fn fail_foreign_instance(&mut self, pick: Pick) {
        let foreign = Outcome::Refused(Refusal::Foreign);
        let instance: &Arc<Instance<Value>> = &FOREIGN.instance;
        self.compare(&foreign, &fail_outcome(self.registry.fail_instance(instance, "foreign")));
        let (_, own) = self.any(pick);
        if own != FOREIGN.id.into() {
            let other = &FOREIGN.registry;
            self.compare(&foreign, &Outcome::of(other.fail(own, "foreign"), Outcome::from));
            self.compare(&foreign, &Outcome::of(other.status(own), |_| Outcome::Done));
            let edge = other.depends(own).on(FOREIGN.id);
            self.compare(&foreign, &Outcome::of(edge, |_| Outcome::Done));
        }
        assert!(foreign_service_is_ready(), "the service of the other registry was failed");
    }
}

fn foreign_service_is_ready() -> bool {
    FOREIGN.registry.get(FOREIGN.id).is_ok_and(|guard| Guard::generation(&guard) == 0)
}

pub(crate) fn instance_id(instance: &Instance<Value>) -> InstanceId {
    InstanceId {
        generation: Instance::generation(instance).get(),
        revision: Instance::revision(instance),
        serial: instance.serial,
    }
}

fn instances(guards: &[Guard<Value>]) -> Outcome {
    Outcome::Instances(guards.iter().map(|guard| instance_id(Guard::instance(guard))).collect())
}

fn fail_outcome(result: Result<FailOutcome, ForeignIdError>) -> Outcome {
    Outcome::of(result, |outcome| match outcome {
        FailOutcome::Failed(Cascade { failed, invalidated, .. }) => {
            Outcome::Cascade { failed, invalidated }
        }
        FailOutcome::AlreadyFailed => Outcome::AlreadyFailed,
        FailOutcome::Replaced => Outcome::Replaced,
    })
}
