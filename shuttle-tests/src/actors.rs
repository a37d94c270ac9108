//! The threads and tasks that provide, fail and read the services of a scenario.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use mainstay::{
    Guard, Instance, Registry, ServiceId,
    error::{ProvideError, ReadyError, ReplaceError, WaitForError},
};
use mainstay_test_support::guards_to_keep;
use shuttle::{
    future,
    sync::mpsc::{self, Sender},
    thread,
};

use crate::{Random, World};

/// The threads and tasks of a scenario. They read in different ways (`guards_to_keep`).
pub struct Workers {
    joins: Vec<Box<dyn FnOnce()>>,
    /// A service that is always ready.
    constant: (Registry, ServiceId<()>),
}

impl Default for Workers {
    fn default() -> Self {
        let registry = Registry::with_capacity(1).expect("small enough");
        let id = registry.register("constant").expect("a new name");
        registry.constant(id, ()).expect("the first one");
        Self { joins: Vec::new(), constant: (registry, id) }
    }
}

impl Workers {
    /// Runs `work` on a thread of its own.
    pub fn thread(&mut self, work: impl FnOnce() + Send + 'static) {
        let occupy_places = self.occupy_places();
        let thread = thread::spawn(move || {
            let _guards = occupy_places();
            work();
        });
        self.joins.push(Box::new(|| thread.join().expect("a panic ends the schedule earlier")));
    }

    /// Runs `work` as a task.
    pub fn task(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let occupy_places = self.occupy_places();
        let task = future::spawn(async move {
            let _guards = occupy_places();
            work.await;
        });
        self.joins.push(Box::new(|| future::block_on(task).expect("the task is never aborted")));
    }

    /// Waits until all of them have ended.
    pub fn join(self) {
        self.joins.into_iter().for_each(|join| join());
    }

    /// Returns a function that lets the next worker keep guards.
    fn occupy_places(&self) -> impl FnOnce() -> Vec<Guard<()>> + Send + 'static {
        let guards = guards_to_keep(self.joins.len());
        let (registry, id) = self.constant.clone();
        move || (0..guards).map(|_| registry.get(id).expect("it is always ready")).collect()
    }
}

/// Polls a wait at most `polls` times. If it is still pending, it is dropped, and the result is
/// `None`.
pub async fn poll_at_most<F: Future + Unpin>(mut wait: F, polls: usize) -> Option<F::Output> {
    for _ in 0..polls {
        let poll = poll_fn(|context| Poll::Ready(Pin::new(&mut wait).poll(context)));
        if let Poll::Ready(output) = poll.await {
            return Some(output);
        }
        future::yield_now().await;
    }
    None
}

/// What a provider does in addition to building and publishing. Chances are in 100.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behavior {
    /// Whether it waits by blocking its thread; otherwise it is a task.
    pub blocks: bool,
    /// The chance to skip a dependency.
    pub skips: usize,
    /// The chance to add any other service as a dependency.
    pub adds: usize,
    /// The chance to fail an attempt, or to drop it after a few polls of a wait for a dependency.
    pub abandons: usize,
    /// The number of times that it fails its own instance.
    pub failures: usize,
    /// The number of times that it replaces the value of each instance.
    pub replacements: usize,
}

/// The result of a wait, by blocking or as a task.
macro_rules! ended {
    ($behavior:expr, $wait:expr) => {
        if $behavior.blocks { $wait.wait_blocking() } else { $wait.await }
    };
}

impl World {
    /// Provides all services, some on threads and some as tasks, while `others` runs its threads
    /// and tasks. After the last failure, checks that everything becomes ready. After the close,
    /// checks that all providers end.
    pub fn run(
        self: Arc<Self>,
        behavior: Behavior,
        random: &mut Random,
        others: impl FnOnce(&Arc<Self>, &mut Workers, &mut Random),
    ) {
        let (busy, quiet) = mpsc::channel();
        let mut providers = Workers::default();
        for service in 0..self.count() {
            let behavior = Behavior { blocks: random.chance(50), ..behavior };
            let work = Arc::clone(&self).provide(service, behavior, random.fork(), busy.clone());
            if behavior.blocks {
                providers.thread(|| future::block_on(work));
            } else {
                providers.task(work);
            }
        }
        drop(busy);
        let mut workers = Workers::default();
        others(&self, &mut workers, random);
        workers.join();
        quiet.recv().expect_err("nothing is sent: this returns after all senders were dropped");
        if !self.registry.is_closed() {
            self.check_recovery();
            self.registry.close();
        }
        providers.join();
        self.check_closed();
    }

    /// Runs one provider until the registry is closed. It holds `busy` as long as it may fail its
    /// own instance.
    async fn provide(
        self: Arc<Self>,
        service: usize,
        mut behavior: Behavior,
        mut random: Random,
        busy: Sender<()>,
    ) {
        let mut busy = Some(busy);
        let provider = match self.registry.provide(self.ids[service]) {
            Ok(provider) => provider,
            Err(ProvideError::Closed { .. }) => return,
            Err(error) => unreachable!("{error}"),
        };
        'again: loop {
            if behavior.failures == 0 {
                drop(busy.take());
            }
            let Ok(attempt) = ended!(behavior, provider.begin()) else {
                return assert!(self.registry.is_closed());
            };
            self.record_generation(service, attempt.generation().get());
            let mut value = self.value(service);
            for dependency in self.choose_dependencies(service, &behavior, &mut random) {
                self.request_edge(service, dependency);
                let before = self.observations();
                let wait = attempt.wait_for(self.ids[dependency]);
                let waited = if random.chance(behavior.abandons) {
                    match poll_at_most(wait, 1 + random.below(3)).await {
                        Some(waited) => waited,
                        None => continue 'again,
                    }
                } else {
                    ended!(behavior, wait)
                };
                match waited {
                    Ok(instance) => {
                        before.check(&instance);
                        value.add(&instance);
                    }
                    Err(WaitForError::Invalidated(_)) => {
                        self.record_generation(service, attempt.generation().get() + 1);
                        continue 'again;
                    }
                    Err(WaitForError::Closed { .. }) => return,
                    // It builds without this dependency.
                    Err(WaitForError::Cycle(cycle)) => {
                        self.check_cycle(&cycle, service, dependency)
                    }
                    Err(error) => unreachable!("{error}"),
                }
            }
            if random.chance(behavior.abandons) {
                let _ = attempt.fail("random failure");
                continue;
            }
            let (generation, version) = (attempt.generation().get(), value.version);
            let running = match attempt.ready(value) {
                Ok(running) => running,
                Err(ReadyError::Invalidated { value, .. }) => {
                    assert_eq!(value.version, version, "F: another value was returned");
                    let now = self.read_generation(service);
                    assert!(now > generation, "F: invalidated in {generation}, but is in {now}");
                    continue;
                }
                Err(ReadyError::Closed { .. }) => return,
                Err(error) => unreachable!("{error}"),
            };
            // A replacement is refused as soon as the generation is condemned, so that its end
            // follows.
            let mut ends = false;
            for _ in 0..behavior.replacements {
                let Some(instance) = running.instance() else { break };
                let value = self.successor(&instance);
                let version = value.version;
                if let Err(ReplaceError { value, .. }) = running.replace(value) {
                    assert_eq!(value.version, version, "another value was returned");
                    ends = true;
                    break;
                }
            }
            if behavior.failures > 0 && !ends {
                behavior.failures -= 1;
                if running.fail("random failure").failed > 0 {
                    assert!(
                        self.read_generation(service) > generation,
                        "{service} has failed, but is in the same generation"
                    );
                }
                continue;
            }
            match ended!(behavior, running.failed()) {
                Ok(failure) => assert_eq!(failure.generation, generation),
                Err(_) => return assert!(self.registry.is_closed()),
            }
            self.record_generation(service, generation + 1);
        }
    }

    /// The services that an attempt waits for, in a random order.
    fn choose_dependencies(
        &self,
        service: usize,
        behavior: &Behavior,
        random: &mut Random,
    ) -> Vec<usize> {
        let mut chosen = self.dependencies[service].clone();
        chosen.retain(|_| !random.chance(behavior.skips));
        if random.chance(behavior.adds) {
            let other = random.below(self.count());
            if other != service {
                chosen.push(other);
            }
        }
        if let (Some(last), true) = (chosen.len().checked_sub(1), random.chance(50)) {
            chosen.swap(0, last);
        }
        chosen
    }

    /// Fails random services, with random pauses.
    pub fn fail_some(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            self.fail(self.any_service(&mut random), &mut random);
            pause(&mut random);
        }
    }

    /// Fails random services, whatever their phase, and checks that every instance that depended on
    /// them by declared edges has failed.
    pub fn fail_closures(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            let root = self.any_service(&mut random);
            let closure = self.declared_closure(root);
            let before: Vec<_> =
                closure.iter().map(|&member| (member, self.read(member))).collect();
            let cascade =
                self.registry.fail(self.ids[root], "failed").expect("the id is of this registry");
            assert!(cascade.failed + cascade.invalidated <= self.count(), "one is counted twice");
            for (member, instance) in before {
                let Some(instance) = instance else { continue };
                let (now, failed) =
                    (self.read_generation(member), Instance::generation(&instance).get());
                assert!(now > failed, "{member} was not failed with {root}, which it depends on");
            }
            pause(&mut random);
        }
    }

    /// Reads random services, each right after its possible dependencies.
    pub fn read_some(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            let service = random.below(self.count());
            for &dependency in &self.dependencies[service] {
                self.read_generation(dependency);
            }
            self.read(service);
            pause(&mut random);
        }
    }

    /// Waits until random services are ready; if not `patient`, only for a few polls.
    pub async fn wait_for_some(self: Arc<Self>, times: usize, patient: bool, mut random: Random) {
        for _ in 0..times {
            let wait = self.registry.wait_ready(self.ids[random.below(self.count())]);
            let before = self.observations();
            let waited = match patient {
                true => Some(wait.await),
                false => poll_at_most(wait, 1 + random.below(4)).await,
            };
            match waited {
                Some(Ok(instance)) => before.check(&instance),
                Some(Err(_)) => return assert!(self.registry.is_closed()),
                None => {}
            }
        }
    }
}

/// Yields to other threads for some steps.
pub fn pause(random: &mut Random) {
    for _ in 0..random.below(6) {
        thread::yield_now();
    }
}
