//! The registry under test, the handles of a program that uses it, and the model.

use std::{
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use mainstay::{
    AnyId, Attempt, Cached, Event, EventKind, Guard, Instance, Observer, Provider, Registry,
    Running, ServiceId, supervise::TurnGuard,
};

use super::{
    model::{EdgeKey, EdgeSource, Model, Number, RecordedEvent, STOP_ENDED, wait_text},
    op::{Op, Pick, Script},
    outcome::{InstanceId, Outcome},
    reading::instance_id,
    value::{FOREIGN, LiveValues, Other, Value},
    waits::{PendingWait, WatchHandle},
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

/// A provider, an attempt or a running handle. `number` identifies the waits that borrow it.
pub(crate) struct Handle<H> {
    pub(crate) handle: Rc<H>,
    pub(crate) service: usize,
    pub(crate) generation: u64,
    pub(crate) number: Number,
}

/// An instance that a reader keeps.
pub(crate) enum HeldInstance {
    Guard(Guard<Value>),
    Arc(Arc<Instance<Value>>),
}

impl HeldInstance {
    pub(crate) fn instance(&self) -> &Instance<Value> {
        match self {
            Self::Guard(guard) => Guard::instance(guard),
            Self::Arc(instance) => instance,
        }
    }

    pub(crate) fn id(&self) -> InstanceId {
        instance_id(self.instance())
    }
}

/// A cached reader, and the serial number of the value that it keeps.
pub(crate) struct Reader {
    pub(crate) cached: Cached<Value>,
    pub(crate) service: usize,
    pub(crate) serial: Option<u64>,
}

pub(crate) struct World {
    pub(crate) model: Model,
    pub(crate) registry: Registry,
    pub(crate) capacity: usize,
    /// The ids, by the index of the service in the model.
    pub(crate) ids: Vec<Id>,
    pub(crate) waits: Vec<PendingWait>,
    pub(crate) providers: Vec<Handle<Provider<Value>>>,
    pub(crate) attempts: Vec<Handle<Attempt<Value>>>,
    pub(crate) running: Vec<Handle<Running<Value>>>,
    /// The guards that hold the turns of services to stop.
    pub(crate) turns: Vec<(usize, TurnGuard)>,
    pub(crate) watches: Vec<WatchHandle>,
    pub(crate) readers: Vec<Reader>,
    /// The service of each instance, and the instance.
    pub(crate) held: Vec<(usize, HeldInstance)>,
    pub(crate) live_values: LiveValues,
    /// The events that the observer has received since the last check. `None` if there is no
    /// observer.
    pub(crate) recorded: Option<Events>,
    /// The current operation, for messages.
    pub(crate) op: Op,
    numbers: u64,
}

pub(crate) type Events = Arc<Mutex<Vec<RecordedEvent>>>;

struct Recorder(Events);

impl Observer for Recorder {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        // An observer may inspect the registry: no lock is held.
        assert_eq!(registry.find(event.service), Ok(event.id));
        let name = |dependent: Option<&mainstay::ServiceName>| dependent.map(ToString::to_string);
        let what = match event.kind {
            EventKind::Registered => "registered".to_string(),
            EventKind::AttemptStarted => "attempt started".to_string(),
            EventKind::WaitStarted { dependent } => wait_text("waited for", name(dependent)),
            EventKind::WaitEnded { dependent } => {
                wait_text("no longer waited for", name(dependent))
            }
            EventKind::Ready => "ready".to_string(),
            EventKind::Replaced => "replaced".to_string(),
            EventKind::Failed(_) => "failed".to_string(),
            EventKind::Invalidated(_) => "invalidated".to_string(),
            EventKind::AttemptFailed(_) => "attempt failed".to_string(),
            EventKind::Stopped(_) => "stopped".to_string(),
            EventKind::StopEnded => STOP_ENDED.to_string(),
            EventKind::Closed => "closed".to_string(),
            _ => panic!("an unknown event: {}", event.kind),
        };
        let (service, generation) = (event.service.to_string(), event.generation.get());
        let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(RecordedEvent { service, generation, what });
    }
}

impl World {
    pub(crate) fn new(script: &Script) -> Self {
        let events = script.observed.then(Events::default);
        let mut builder = Registry::builder(script.capacity).expect("the capacity is small");
        if let Some(events) = &events {
            builder = builder.observer(Recorder(Arc::clone(events)));
        }
        let (mut model, mut ids) = (Model::default(), Vec::new());
        for number in 0..script.registered {
            let name = name(number);
            ids.push(Id::Value(
                builder.register::<Value>(&name).expect("the capacity is at least this number"),
            ));
            model.register(&name, true);
        }
        for (dependent, dependency) in &script.declared {
            let chosen =
                dependent.index(script.registered).zip(dependency.index(script.registered));
            let Some((dependent, dependency)) = chosen else { continue };
            let closes = model.with_all_edges(|graph| graph.depends_on(dependency, dependent));
            let declared = builder.depends(ids[dependent]).on(ids[dependency]);
            assert_eq!(
                declared.is_err(),
                closes,
                "whether the registry builder refuses {dependent} -> {dependency}"
            );
            if !closes {
                model.services[dependent]
                    .edges
                    .insert(EdgeKey::hard(dependency), EdgeSource::Declared);
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
            turns: Vec::new(),
            watches: Vec::new(),
            readers: Vec::new(),
            held: Vec::new(),
            live_values: LiveValues::default(),
            recorded: events,
            op: Op::Nothing,
            numbers: 0,
        };
        assert_eq!(world.registry.capacity(), script.capacity);
        world
    }

    /// Returns a number that was not used before.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Returns a reason that was not used before.
    pub(crate) fn reason(&mut self) -> String {
        format!("reason {}", self.number())
    }

    /// Returns a service of either type, or `None` and the id of another registry.
    pub(crate) fn any(&self, pick: Pick) -> (Option<usize>, AnyId) {
        let all: Vec<usize> = (0..self.ids.len()).collect();
        let service = pick.service(&all);
        (service, service.map_or(FOREIGN.id.into(), |service| self.ids[service].into()))
    }

    /// Returns a service with values of type `Value`, or `None` and the id of another registry.
    pub(crate) fn typed(&self, pick: Pick) -> (Option<usize>, ServiceId<Value>) {
        let typed: Vec<usize> =
            (0..self.ids.len()).filter(|&index| self.model.services[index].of_values).collect();
        let service = pick.service(&typed);
        (service, self.id_of(service))
    }

    pub(crate) fn id_of(&self, service: Option<usize>) -> ServiceId<Value> {
        match service.map(|service| self.ids[service]) {
            Some(Id::Value(id)) => id,
            Some(Id::Other(_)) => panic!("the service has values of another type"),
            None => FOREIGN.id,
        }
    }

    #[track_caller]
    pub(crate) fn compare(&self, expected: &Outcome, actual: &Outcome) {
        assert_eq!(expected, actual, "model (left) and registry (right) at {:?}", self.op);
    }

    /// Drops all handles one by one, and checks that no value remains.
    pub(crate) fn finish(mut self) {
        self.op = Op::Nothing;
        while !self.waits.is_empty() {
            self.drop_wait(0);
        }
        while !self.turns.is_empty() {
            self.drop_turn(0);
            self.check();
        }
        while !self.attempts.is_empty() {
            self.end_attempt(0, false);
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
        let Self { held, readers, watches, registry, live_values, .. } = self;
        drop((readers, watches));
        // The instances of readers outlive the registry.
        drop(registry);
        for (_, instance) in held {
            let serial = instance.id().serial;
            assert!(
                live_values.serials().contains(&serial),
                "value {serial} was dropped, but a reader holds it"
            );
        }
        assert!(
            live_values.serials().is_empty(),
            "values {:?} were not dropped",
            live_values.serials()
        );
    }
}

/// Returns the name of a service in scripts.
pub(crate) fn name(number: usize) -> String {
    format!("s{number}")
}
