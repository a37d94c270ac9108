//! The registry in question, the handles that a program would hold, and the model beside them.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use mainstay::{
    AnyId, Attempt, Cached, Event, EventKind, Guard, Instance, Observer, Provider, Registry,
    Running, ServiceId,
};

use super::{
    model::{Happened, Holder, Model, Rests, To, waited},
    op::{Op, Pick, Script},
    outcome::{Outcome, Read},
    value::{Alive, FOREIGN, Other, Value},
    waits::{Waiting, Watching},
};

/// The id of a service of either type.
#[derive(Clone, Copy)]
pub(crate) enum Id {
    Value(ServiceId<Value>),
    Other(ServiceId<Other>),
}

impl From<Id> for AnyId {
    fn from(id: Id) -> Self {
        match id {
            Id::Value(id) => id.into(),
            Id::Other(id) => id.into(),
        }
    }
}

/// A provider, an attempt or a running instance. `number` tells the waits which borrow it.
pub(crate) struct Handle<H> {
    pub(crate) handle: Rc<H>,
    pub(crate) service: usize,
    pub(crate) generation: u64,
    pub(crate) number: Holder,
}

/// An instance that a reader keeps.
pub(crate) enum Hold {
    Guard(Guard<Value>),
    Arc(Arc<Instance<Value>>),
}

impl Hold {
    pub(crate) fn instance(&self) -> &Instance<Value> {
        match self {
            Self::Guard(guard) => Guard::instance(guard),
            Self::Arc(instance) => instance,
        }
    }

    pub(crate) fn read(&self) -> Read {
        let instance = self.instance();
        Read { generation: Instance::generation(instance), serial: instance.serial }
    }
}

/// A cached reader, and what it holds.
pub(crate) struct Reader {
    pub(crate) cached: Cached<Value>,
    pub(crate) service: usize,
    pub(crate) serial: Option<u64>,
}

pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) registry: Registry,
    pub(crate) capacity: usize,
    /// By the model's numbers.
    pub(crate) ids: Vec<Id>,
    pub(crate) waits: Vec<Waiting>,
    pub(crate) providers: Vec<Handle<Provider<Value>>>,
    pub(crate) attempts: Vec<Handle<Attempt<Value>>>,
    pub(crate) running: Vec<Handle<Running<Value>>>,
    pub(crate) watches: Vec<Watching>,
    pub(crate) readers: Vec<Reader>,
    /// With the service that each is an instance of.
    pub(crate) holds: Vec<(usize, Hold)>,
    pub(crate) alive: Alive,
    /// What the observer has been told since the last look; `None` where there is no observer.
    pub(crate) told: Option<Events>,
    /// The operation that is carried out, for messages.
    pub(crate) now: Op,
    numbers: u64,
}

pub(crate) type Events = Arc<Mutex<Vec<Happened>>>;

struct Recorder(Events);

impl Observer for Recorder {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        // No lock is held: looking in is allowed.
        assert_eq!(registry.find(event.service), Ok(event.id));
        let by = |by: Option<&mainstay::Name>| by.map(ToString::to_string);
        let what = match event.kind {
            EventKind::Registered => "registered".to_string(),
            EventKind::Begun => "begun".to_string(),
            EventKind::WaitBegun { by: who } => waited("waited for", by(who)),
            EventKind::WaitEnded { by: who } => waited("no longer waited for", by(who)),
            EventKind::Ready => "ready".to_string(),
            EventKind::Replaced => "replaced".to_string(),
            EventKind::Failed(_) => "failed".to_string(),
            EventKind::Overtaken(_) => "overtaken".to_string(),
            EventKind::GivenUp(_) => "given up".to_string(),
            EventKind::Closed => "closed".to_string(),
            _ => panic!("a new kind of event: {}", event.kind),
        };
        let (service, generation) = (event.service.to_string(), event.generation);
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(Happened { service, generation, what });
    }
}

impl World {
    pub(crate) fn new(script: &Script) -> Self {
        let events = script.observed.then(Events::default);
        let mut builder = Registry::builder(script.capacity).expect("it is small");
        if let Some(events) = &events {
            builder = builder.observer(Recorder(Arc::clone(events)));
        }
        let (mut model, mut ids) = (Model::default(), Vec::new());
        for number in 0..script.built {
            let name = name(number);
            ids.push(Id::Value(builder.register::<Value>(&name).expect("there is room")));
            model.register(&name, true);
        }
        for (dependent, dependency) in &script.declared {
            let places = dependent.among(script.built).zip(dependency.among(script.built));
            let Some((dependent, dependency)) = places else { continue };
            let closes = model.all(|graph| graph.rests_on(dependency, dependent));
            let declared = builder.add_dependency(ids[dependent], ids[dependency]);
            assert_eq!(declared.is_err(), closes, "in the builder");
            if !closes {
                model.services[dependent].edges.insert(To::hard(dependency), Rests::Declared);
            }
        }
        let world = Self {
            model,
            registry: builder.build(),
            capacity: script.capacity,
            ids,
            waits: Vec::new(),
            providers: Vec::new(),
            attempts: Vec::new(),
            running: Vec::new(),
            watches: Vec::new(),
            readers: Vec::new(),
            holds: Vec::new(),
            alive: Alive::default(),
            told: events,
            now: Op::Nothing,
            numbers: 0,
        };
        assert_eq!(world.registry.capacity(), script.capacity);
        world
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A reason that was not given before.
    pub(crate) fn reason(&mut self) -> String {
        format!("reason {}", self.number())
    }

    /// A service of whatever type; `None` for a foreign one.
    pub(crate) fn any(&self, pick: Pick) -> (Option<usize>, AnyId) {
        let all: Vec<usize> = (0..self.ids.len()).collect();
        let service = pick.service(&all);
        (service, service.map_or(FOREIGN.id.into(), |service| self.ids[service].into()))
    }

    /// A service that holds values.
    pub(crate) fn typed(&self, pick: Pick) -> (Option<usize>, ServiceId<Value>) {
        let typed: Vec<usize> =
            (0..self.ids.len()).filter(|&place| self.model.services[place].of_values).collect();
        let service = pick.service(&typed);
        (service, self.id_of(service))
    }

    pub(crate) fn id_of(&self, service: Option<usize>) -> ServiceId<Value> {
        match service.map(|service| self.ids[service]) {
            Some(Id::Value(id)) => id,
            Some(Id::Other(_)) => panic!("it has no values"),
            None => FOREIGN.id,
        }
    }

    #[track_caller]
    pub(crate) fn compare(&self, expected: &Outcome, actual: &Outcome) {
        assert_eq!(expected, actual, "model (left) and registry (right) at {:?}", self.now);
    }

    /// Drops all that is left, one by one, and sees that nothing remains of it.
    pub(crate) fn finish(mut self) {
        self.now = Op::Nothing;
        while !self.waits.is_empty() {
            self.drop_wait(0);
        }
        while !self.attempts.is_empty() {
            self.give_up(0, false);
            self.check();
        }
        while !self.running.is_empty() {
            self.end_running(0, false);
            self.check();
        }
        while !self.providers.is_empty() {
            self.drop_provider(0);
        }
        self.check();
        let Self { holds, readers, watches, registry, alive, .. } = self;
        drop((readers, watches));
        // What a reader holds outlives the registry.
        drop(registry);
        for (_, hold) in holds {
            let serial = hold.read().serial;
            assert!(alive.serials().contains(&serial), "value {serial} is gone under its reader");
        }
        assert!(alive.serials().is_empty(), "values {:?} are left over", alive.serials());
    }
}

/// The names that services have in scripts.
pub(crate) fn name(number: usize) -> String {
    format!("s{number}")
}
