//! The reads of one thread, as operations of its history.

use std::{sync::Arc, task::Poll};

use mainstay::{
    Cached, Guard, Instance, Registry, ServiceId,
    error::{GetAllError, GetError},
};

use super::{
    lifetimes::{Event, Value},
    record::Recorder,
    support::{Random, poll_once},
};

/// What one thread needs to read.
pub(crate) struct Reads<'a> {
    registry: &'a Registry,
    ids: &'a [ServiceId<Value>],
    cached: Vec<Cached<Value>>,
}

impl<'a> Reads<'a> {
    pub(crate) fn new(registry: &'a Registry, ids: &'a [ServiceId<Value>]) -> Self {
        let cached = ids.iter().map(|&id| registry.cached(id).unwrap()).collect();
        Self { registry, ids, cached }
    }

    /// Reads a service in one of the ways to do it. Returns the instance, if this way has a
    /// reference to it.
    pub(crate) fn one(
        &mut self,
        recorder: &mut Recorder<Event>,
        random: &mut Random,
        service: usize,
    ) -> Option<Arc<Instance<Value>>> {
        let (registry, id) = (self.registry, self.ids[service]);
        let mut met = None;
        let (read, bounds) = match random.below(8) {
            0..3 => recorder.timed(|| registry.get(id).map(|guard| guard.mark)),
            3..5 => {
                let (read, bounds) = recorder.timed(|| registry.get_arc(id));
                if let Ok(instance) = &read {
                    assert_eq!(Instance::revision(instance), instance.version, "{:?}", **instance);
                }
                met = read.as_ref().ok().cloned();
                (read.map(|instance| instance.mark), bounds)
            }
            5..7 => {
                let cached = &mut self.cached[service];
                recorder.timed(|| cached.get().map(|instance| instance.mark))
            }
            _ => {
                let (polled, bounds) = recorder.timed(|| {
                    let polled = poll_once(&mut registry.wait_ready(id));
                    polled.map(|instance| instance.unwrap().mark)
                });
                match polled {
                    Poll::Ready(mark) => (Ok(mark), bounds),
                    Poll::Pending => return None,
                }
            }
        };
        let event = match read {
            Ok(mark) => Event::Read([Some(mark), None, None]),
            Err(GetError::NotReady(why)) => Event::not_ready(&why),
            Err(other) => panic!("{other}"),
        };
        recorder.push(bounds, event);
        met
    }

    /// Reads two or three services at one instant.
    pub(crate) fn all(&self, recorder: &mut Recorder<Event>, random: &mut Random) {
        let (registry, ids) = (self.registry, self.ids);
        let [a, b, c] = [(); 3].map(|()| ids[random.below(ids.len())]);
        let of = |guard: Guard<Value>| Some(guard.mark);
        let (read, bounds) = if random.below(2) == 0 {
            recorder.timed(|| {
                let (a, b) = registry.get_all((a, b))?;
                Ok([of(a), of(b), None])
            })
        } else {
            recorder.timed(|| {
                let (a, b, c) = registry.get_all((a, b, c))?;
                Ok([of(a), of(b), of(c)])
            })
        };
        let event = match read {
            Ok(marks) => Event::Read(marks),
            Err(GetAllError::NotReady(why)) => Event::not_ready(&why),
            Err(GetAllError::Contended { .. }) => return,
            Err(other) => panic!("{other}"),
        };
        recorder.push(bounds, event);
    }
}
