//! Who provides, fails and reads the services of a scenario.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use mainstay::{ProvideError, ReadyError, ReplaceError, WaitForError};
use shuttle::{
    future,
    sync::mpsc::{self, Sender},
    thread,
};

use crate::{Random, World};

/// The threads and tasks of a scenario.
#[derive(Default)]
pub struct Crew(Vec<Box<dyn FnOnce()>>);

impl Crew {
    /// Does this on a thread of its own.
    pub fn thread(&mut self, work: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(work);
        self.0.push(Box::new(|| thread.join().expect("a panic ends the schedule before this")));
    }

    /// Does this as a task.
    pub fn task(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let task = future::spawn(work);
        self.0.push(Box::new(|| future::block_on(task).expect("nobody aborts it")));
    }

    /// Waits until all are gone.
    pub fn join(self) {
        self.0.into_iter().for_each(|join| join());
    }
}

/// Waits only for so many looks; `None` where that was not enough, and the wait is dropped.
pub async fn impatient<F: Future + Unpin>(mut wait: F, looks: usize) -> Option<F::Output> {
    for _ in 0..looks {
        let look = poll_fn(|context| Poll::Ready(Pin::new(&mut wait).poll(context)));
        if let Poll::Ready(output) = look.await {
            return Some(output);
        }
        future::yield_now().await;
    }
    None
}

/// What a provider does beside providing. Chances are in 100.
#[derive(Debug, Clone, Copy, Default)]
pub struct Habits {
    /// It waits by blocking its thread, else as a task.
    pub blocks: bool,
    /// Leaves a dependency away.
    pub fickle: usize,
    /// Would rest on any other service, too.
    pub curious: usize,
    /// Gives an attempt up, or loses patience as it waits for a dependency.
    pub moody: usize,
    /// How often it fails its own instance.
    pub failures: usize,
    /// How often it replaces the value of each instance.
    pub replacements: usize,
}

/// A wait, as the habits have it.
macro_rules! ended {
    ($habits:expr, $wait:expr) => {
        if $habits.blocks { $wait.wait() } else { $wait.await }
    };
}

impl World {
    /// Provides all services, some on threads and some as tasks, while the others do what they do. Once nobody is
    /// left who might fail something, everything comes to be ready; and once it is closed, everybody goes.
    pub fn play(
        self: Arc<Self>,
        habits: Habits,
        random: &mut Random,
        others: impl FnOnce(&Arc<Self>, &mut Crew, &mut Random),
    ) {
        let (busy, quiet) = mpsc::channel();
        let mut providers = Crew::default();
        for service in 0..self.count() {
            let habits = Habits { blocks: random.chance(50), ..habits };
            let work = Arc::clone(&self).provide(service, habits, random.fork(), busy.clone());
            if habits.blocks {
                providers.thread(|| future::block_on(work));
            } else {
                providers.task(work);
            }
        }
        drop(busy);
        let mut crew = Crew::default();
        others(&self, &mut crew, random);
        crew.join();
        quiet.recv().expect_err("nothing is sent: this ends when all senders are gone");
        if !self.registry.is_closed() {
            self.settle();
            self.registry.close();
        }
        providers.join();
        self.end();
    }

    /// One provider, until the registry is closed. It holds `busy` as long as it may fail its own instance.
    async fn provide(
        self: Arc<Self>,
        service: usize,
        mut habits: Habits,
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
            if habits.failures == 0 {
                drop(busy.take());
            }
            let Ok(attempt) = ended!(habits, provider.begin()) else {
                return assert!(self.registry.is_closed());
            };
            self.saw(service, attempt.generation());
            let mut value = self.value(service);
            for dependency in self.chosen(service, &habits, &mut random) {
                self.wants(service, dependency);
                let before = self.before();
                let wait = attempt.wait_for(self.ids[dependency]);
                let waited = if random.chance(habits.moody) {
                    match impatient(wait, 1 + random.below(3)).await {
                        Some(waited) => waited,
                        None => continue 'again,
                    }
                } else {
                    ended!(habits, wait)
                };
                match waited {
                    Ok(instance) => {
                        before.check(&instance);
                        value.add(&instance);
                    }
                    Err(WaitForError::Overtaken(_)) => {
                        self.saw(service, attempt.generation() + 1);
                        continue 'again;
                    }
                    Err(WaitForError::Closed { .. }) => return,
                    // It does without.
                    Err(WaitForError::Cycle(cycle)) => {
                        self.check_cycle(&cycle, service, dependency)
                    }
                    Err(error) => unreachable!("{error}"),
                }
            }
            if random.chance(habits.moody) {
                let _ = attempt.fail("a mood");
                continue;
            }
            let (generation, mark) = (attempt.generation(), value.mark);
            let running = match attempt.ready(value) {
                Ok(running) => running,
                Err(ReadyError::Overtaken { value, .. }) => {
                    assert_eq!(value.mark, mark, "F: another value came back");
                    let now = self.look(service);
                    assert!(now > generation, "F: overtaken, and still at {now}");
                    continue;
                }
                Err(ReadyError::Closed { .. }) => return,
                Err(error) => unreachable!("{error}"),
            };
            for _ in 0..habits.replacements {
                let Some(instance) = running.instance() else { break };
                let value = self.successor(&instance);
                let mark = value.mark;
                if let Err(ReplaceError { value, .. }) = running.replace(value) {
                    assert_eq!(value.mark, mark, "another value came back");
                    assert!(self.look(service) > generation, "not replaced, and not failed");
                }
            }
            if habits.failures > 0 {
                habits.failures -= 1;
                if running.fail("a mood").went_down > 0 {
                    assert!(self.look(service) > generation, "{service} is failed, and there");
                }
                continue;
            }
            match ended!(habits, running.failed()) {
                Ok(failure) => assert_eq!(failure.generation, generation),
                Err(_) => return assert!(self.registry.is_closed()),
            }
            self.saw(service, generation + 1);
        }
    }

    /// What an attempt waits for, and in which order.
    fn chosen(&self, service: usize, habits: &Habits, random: &mut Random) -> Vec<usize> {
        let mut chosen = self.below[service].clone();
        chosen.retain(|_| !random.chance(habits.fickle));
        if random.chance(habits.curious) {
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

    /// Fails services, now and then.
    pub fn fail_some(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            self.fail(self.any(&mut random), &mut random);
            pause(&mut random);
        }
    }

    /// Reads services right after something that they may rest on.
    pub fn read_some(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            let service = random.below(self.count());
            for &dependency in &self.below[service] {
                self.look(dependency);
            }
            self.read(service);
            pause(&mut random);
        }
    }

    /// Waits until services are ready, patiently or not.
    pub async fn wait_for_some(self: Arc<Self>, times: usize, patient: bool, mut random: Random) {
        for _ in 0..times {
            let wait = self.registry.wait_ready(self.ids[random.below(self.count())]);
            let before = self.before();
            let waited = match patient {
                true => Some(wait.await),
                false => impatient(wait, 1 + random.below(4)).await,
            };
            match waited {
                Some(Ok(instance)) => before.check(&instance),
                Some(Err(_)) => return assert!(self.registry.is_closed()),
                None => {}
            }
        }
    }
}

/// Lets others go first, for some steps.
pub(crate) fn pause(random: &mut Random) {
    for _ in 0..random.below(6) {
        thread::yield_now();
    }
}
