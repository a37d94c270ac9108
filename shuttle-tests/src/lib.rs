//! Scenarios with many services and many threads under random schedules, for which the models of
//! `loom-tests/` are too small.
//!
//! With `--cfg shuttle`, which `ci/shuttle` sets, mainstay uses the atomics, locks and threads of
//! shuttle. All threads of a scenario then run on one thread of the operating system, one step at a
//! time, and the next thread is chosen at random. Half of the schedules choose any thread at each
//! step. The others assign random priorities to the threads, which change at a few random steps
//! (PCT, [`Kind::Pct`]). The same seed results in the same schedule.
//!
//! ```console
//! $ ci/shuttle                                               # a few thousand schedules a scenario
//! $ MAINSTAY_SCHEDULES=100000 ci/shuttle random_failures     # more, of one scenario
//! $ MAINSTAY_SEED=17 ci/shuttle random_failures              # repeats a run
//! $ MAINSTAY_REPLAY=pct:3:9000:17 ci/shuttle random_failures # repeats one schedule
//! ```
//!
//! A failure prints the last of these lines. All random choices of a scenario (its graph, which
//! services fail) follow from that seed, too. So a replay is the same failure, also if the scenario
//! or mainstay prints more. An additional access to an atomic results in another schedule.
//!
//! # What this finds, and what not
//!
//! - A lost wake-up ends in a state in which no thread can run, which shuttle reports as a
//!   deadlock.
//! - I1 is checked against everything that *any* thread has seen ([`World::read`]), because all
//!   steps have one order.
//! - Every atomic is sequentially consistent here, and a fence does nothing. So a missing fence or
//!   a weaker ordering cannot be found: the models find these.
//! - arc-swap, crossbeam-epoch and event-listener are the real ones. Each of their operations is
//!   one step: threads switch before it (`schedule_point` in `src/sync/mod.rs`), never inside. What
//!   these crates store for each thread of the operating system is shared by all threads of a
//!   scenario: epochs advance later.
//! - There is no time: no wait here has a timeout.
//!
//! # Layout
//!
//! This module runs schedules, and `schedule.rs` creates them. `world.rs` contains the services and
//! the invariants, `actors.rs` the providers, failers and readers. `tests/` has one scenario in
//! each file.
#![cfg(shuttle)]

mod actors;
mod schedule;
mod world;

use std::{
    any::Any,
    cell::RefCell,
    env, fmt,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    str::FromStr,
    time::Instant,
};

use mainstay_test_support::fresh_seed;
use shuttle::{
    Config, FailurePersistence, MaxSteps, Runner,
    rand::RngCore,
    scheduler::{Schedule, Scheduler, Task, TaskId},
};

use schedule::Chooser;

pub use self::{
    actors::{Behavior, Workers, pause, poll_at_most},
    schedule::{Kind, Plan},
    world::{GraphShape, Id, Observed, Value, World},
};
pub use mainstay_test_support::Random;

/// The depths of PCT, used in rotation.
const DEPTHS: [usize; 3] = [2, 4, 8];

/// A schedule with more steps counts as endless.
const MAX_STEPS: usize = 1_000_000;

/// The schedules to run.
#[derive(Debug, Clone, Copy)]
pub enum Plans {
    /// One schedule.
    Only(Plan),
    /// The given number of schedules of all kinds, from this seed.
    Many { schedules: usize, seed: u64 },
}

/// The schedules that were run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The number of schedules, including the failed one.
    pub schedules: usize,
    /// The number of their steps.
    pub steps: usize,
    /// The last schedule.
    pub last: Option<Plan>,
}

/// A failure of the last schedule that was run.
#[derive(Debug)]
pub struct Failed {
    pub done: Summary,
    pub panic: Box<dyn Any + Send>,
}

/// Runs the scenario of the file `tests/NAME.rs` under `schedules` schedules, or as the environment
/// variables say (see the documentation of this crate). The scenario receives random numbers that
/// belong to the schedule.
pub fn explore(name: &str, schedules: usize, scenario: impl Fn(Random) + Send + Sync + 'static) {
    let schedules = from_env("MAINSTAY_SCHEDULES").unwrap_or(schedules);
    let seed = from_env("MAINSTAY_SEED").unwrap_or_else(fresh_seed);
    let plans = from_env("MAINSTAY_REPLAY").map_or(Plans::Many { schedules, seed }, Plans::Only);
    let description = match plans {
        Plans::Only(plan) => plan.to_string(),
        Plans::Many { .. } => format!("random and PCT of depth {DEPTHS:?}, seed {seed}"),
    };

    let started = Instant::now();
    let (done, panic) = match run(plans, scenario) {
        Ok(done) => (done, None),
        Err(Failed { done, panic }) => (done, Some(panic)),
    };
    let elapsed = started.elapsed().as_secs_f64();
    let (schedules, steps) = (done.schedules, done.steps);
    let rate = schedules as f64 / elapsed;
    println!(
        "{name}: {schedules} schedules, {steps} steps in all, {description}, {elapsed:.1} s, \
         {rate:.0} a second"
    );
    if let (Some(panic), Some(plan)) = (panic, done.last) {
        println!("the last schedule fails; to repeat only this one:");
        println!("    MAINSTAY_REPLAY={plan} ci/shuttle {name}");
        panic::resume_unwind(panic);
    }
}

/// The value of an environment variable, if it is set.
fn from_env<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Runs the scenario under these schedules until one fails.
pub fn run(
    plans: Plans,
    scenario: impl Fn(Random) + Send + Sync + 'static,
) -> Result<Summary, Failed> {
    let mut config = Config::new();
    // A panic message needs a larger stack than the default.
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    // The text of a plan is shorter than the file that shuttle would write.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    // The messages of the other threads after the first panic do not help.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;

    let done = Rc::<RefCell<Summary>>::default();
    let explorer = Explorer::new(plans, Rc::clone(&done));
    let scenario = move || scenario(Random::new(shuttle::rand::thread_rng().next_u64()));
    let ran = panic::catch_unwind(AssertUnwindSafe(|| Runner::new(explorer, config).run(scenario)));
    let done = done.borrow().clone();
    match ran {
        Ok(_) => Ok(done),
        Err(panic) => Err(Failed { done, panic }),
    }
}

/// The scheduler that passes one schedule after another to shuttle.
#[derive(Debug)]
struct Explorer {
    plans: Plans,
    seeds: Random,
    current: Option<Chooser>,
    /// The largest number of choices in an earlier schedule: PCT uses it as the length of a
    /// schedule.
    choices: usize,
    done: Rc<RefCell<Summary>>,
}

impl Explorer {
    fn new(plans: Plans, done: Rc<RefCell<Summary>>) -> Self {
        let seed = match plans {
            Plans::Only(plan) => plan.seed,
            Plans::Many { seed, .. } => seed,
        };
        Self { plans, seeds: Random::new(seed), current: None, choices: 1, done }
    }

    fn next_plan(&mut self, number: usize) -> Option<Plan> {
        match self.plans {
            Plans::Only(plan) => (number == 0).then_some(plan),
            Plans::Many { schedules, .. } => (number < schedules).then(|| {
                let kind = match number % 2 {
                    0 => Kind::Random,
                    _ => {
                        let depth = DEPTHS[number / 2 % DEPTHS.len()];
                        Kind::Pct { depth, steps: self.choices }
                    }
                };
                Plan { kind, seed: self.seeds.next() >> 16 }
            }),
        }
    }

    fn current(&mut self) -> &mut Chooser {
        self.current.as_mut().expect("shuttle starts a schedule before it asks for a task")
    }
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        if let Some(ended) = self.current.take() {
            self.choices = self.choices.max(ended.choices);
        }
        let number = self.done.borrow().schedules;
        let plan = self.next_plan(number)?;
        let mut done = self.done.borrow_mut();
        done.schedules += 1;
        done.last = Some(plan);
        self.current = Some(Chooser::new(plan));
        Some(Schedule::new(plan.seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.done.borrow_mut().steps += 1;
        Some(self.current().choose(runnable, current, is_yielding))
    }

    fn next_u64(&mut self) -> u64 {
        self.current().data()
    }
}
