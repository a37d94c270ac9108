//! Reloads of a service on which all others depend.

use std::{
    cell::Cell,
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
};

use mainstay::{
    Registry, ServiceId,
    error::WaitForError,
    supervise::{Build, Reloaded, Supervisor},
};

use super::{
    Operation, counted,
    graphs::{Edge, chain, hub, layered},
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("reload of a chain", |n| reload(&chain(n), Dependents::Members)),
    Operation::new("reload of a hub", |n| reload(&hub(n), Dependents::Members)),
    Operation::new("reload of layers", |n| reload(&layered(n), Dependents::Members)),
    Operation::new("reload of a chain that is exclusive", |n| {
        reload(&chain(n), Dependents::Exclusive);
    }),
    Operation::new("reload that all other services adopt", |n| {
        reload(&hub(n), Dependents::Adopters);
    }),
];

/// What the services are that depend on the first one.
#[derive(Clone, Copy)]
enum Dependents {
    Members,
    Exclusive,
    Adopters,
}

fn reload(edges: &[Edge], dependents: Dependents) {
    let n = edges.iter().map(|&(dependent, _)| dependent).max().unwrap() + 1;
    let registry = Registry::with_capacity(n).unwrap();
    let ids: Vec<ServiceId<u64>> =
        (0..n).map(|number| registry.register(&number.to_string()).unwrap()).collect();
    let mut from = vec![Vec::new(); n];
    for &(dependent, dependency) in edges {
        from[dependent].push(ids[dependency]);
    }
    let first = Rc::new(Cell::new(1));
    let mut tasks = Tasks::default();
    for (&id, from) in ids.iter().zip(from) {
        let supervisor = registry.supervise(id).unwrap();
        let is_first = from.is_empty();
        let supervisor = if is_first { supervisor } else { dependents.of(supervisor, &from) };
        let value = Rc::clone(&first);
        tasks.add(supervisor.run(async move |build: Build<u64>| {
            let mut built = if is_first { value.get() } else { 0 };
            for &dependency in &from {
                built = **build.wait_for(dependency).await?;
            }
            Ok::<_, WaitForError>(built)
        }));
    }
    tasks.run();
    assert!(ids.iter().all(|&id| *registry.get(id).unwrap() == 1));
    first.set(2);
    let mut wait = pin!(registry.reload(ids[0]));
    let reloaded = counted(|| tasks.run_until(wait.as_mut()).unwrap());
    dependents.check(&reloaded, n);
    let is_new = |&&id: &&ServiceId<u64>| *registry.get(id).unwrap() == 2;
    let new = ids.iter().filter(is_new).count();
    assert_eq!(new, if matches!(dependents, Dependents::Adopters) { 1 } else { n });
}

impl Dependents {
    fn of(self, supervisor: Supervisor<u64>, from: &[ServiceId<u64>]) -> Supervisor<u64> {
        match self {
            Self::Members => supervisor,
            Self::Exclusive => supervisor.exclusive(),
            Self::Adopters => from
                .iter()
                .fold(supervisor, |supervisor, &id| supervisor.adopt(id, |_, _| ()).unwrap()),
        }
    }

    fn check(self, reloaded: &Reloaded, n: usize) {
        let counts = (reloaded.members.len(), reloaded.restarted.len(), reloaded.adopters.len());
        assert_eq!(
            counts,
            match self {
                Self::Members => (n, 0, 0),
                Self::Exclusive => (1, n - 1, 0),
                Self::Adopters => (1, 0, n - 1),
            }
        );
    }
}

/// Tasks of one thread. Each is polled only if it was woken.
#[derive(Default)]
struct Tasks {
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    wakers: Vec<Waker>,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

struct Woken {
    task: usize,
    woken: Arc<Mutex<VecDeque<usize>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap().push_back(self.task);
    }
}

impl Tasks {
    fn waker(&self, task: usize) -> Waker {
        Arc::new(Woken { task, woken: Arc::clone(&self.woken) }).into()
    }

    fn add(&mut self, task: impl Future<Output = ()> + 'static) {
        let number = self.tasks.len();
        self.wakers.push(self.waker(number));
        self.tasks.push(Box::pin(task));
        self.woken.lock().unwrap().push_back(number);
    }

    fn run(&mut self) {
        while let Some(number) = self.next() {
            self.poll(number);
        }
    }

    fn run_until<F: Future>(&mut self, mut wait: Pin<&mut F>) -> F::Output {
        let number = self.tasks.len();
        let waker = self.waker(number);
        waker.wake_by_ref();
        while let Some(woken) = self.next() {
            if woken < number {
                self.poll(woken);
            } else if let Poll::Ready(output) = wait.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
        }
        panic!("nothing is woken")
    }

    fn next(&self) -> Option<usize> {
        self.woken.lock().unwrap().pop_front()
    }

    fn poll(&mut self, number: usize) {
        let mut context = Context::from_waker(&self.wakers[number]);
        assert!(self.tasks[number].as_mut().poll(&mut context).is_pending());
    }
}
