//! Scenarios with many services and many threads, under random schedules: for what the models of `loom-tests/` are
//! too small for.
//!
//! With `--cfg shuttle`, which `ci/shuttle` sets, mainstay is built on shuttle's atomics, locks and threads.
//! All threads of a scenario then run on one thread of the operating system, one step at a time, and which is next
//! is decided by chance: half of the schedules pick any thread at each step, the others give the threads random
//! priorities, which change at a few random steps (PCT, [`Kind::Pct`]). The same seed gives the same schedule.
//!
//! ```console
//! $ ci/shuttle                                      # a few thousand schedules a scenario
//! $ MAINSTAY_SCHEDULES=100000 ci/shuttle settles    # more, of one scenario
//! $ MAINSTAY_SEED=17 ci/shuttle settles             # a run again
//! $ MAINSTAY_REPLAY=pct:3:9000:17 ci/shuttle settles # one schedule again
//! ```
//!
//! A failure prints the last of these lines. Everything random in a scenario (its graph, who fails what) comes from
//! that seed, too, so it is the same failure, also with more output in the scenario or in mainstay; another access
//! to an atomic makes it another schedule.
//!
//! # What this finds, and what not
//!
//! - A lost wake-up ends in a state where nobody can run, which shuttle reports as a deadlock.
//! - I1 is checked against all that *anybody* has seen ([`World::read`]), since there is one order of all steps.
//! - Every atomic is sequentially consistent here, and a fence does nothing. So a missing fence or a weaker order
//!   cannot be found: that is for the models.
//! - arc-swap, crossbeam-epoch and event-listener are the real ones. Each of their operations is one step: threads
//!   switch before it (`schedule_point` in `src/sync/mod.rs`), never inside. What they keep for each thread of the
//!   operating system is one for all threads of a scenario: arc-swap's fast places run out sooner, and epochs move
//!   later.
//! - There is no time: no wait here has a timeout.
//!
//! # Layout
//!
//! This module runs schedules, `schedule.rs` makes them, `world.rs` has the services and what must hold of them,
//! `actors.rs` who provides, fails and reads them. `tests/` has one scenario a file.
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
    actors::{Crew, Habits, impatient},
    schedule::{Kind, Plan},
    world::{Built, Id, Shape, World},
};
pub use mainstay_test_support::Random;

/// The depths of PCT that take turns.
const DEPTHS: [usize; 3] = [2, 4, 8];

/// A schedule of this many steps does not end.
const ENDLESS: usize = 1_000_000;

/// Which schedules are run.
#[derive(Debug, Clone, Copy)]
pub enum Plans {
    /// This one.
    Only(Plan),
    /// So many, of all kinds, from this seed.
    Many { schedules: usize, seed: u64 },
}

/// What was run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Done {
    /// How many schedules, the failed one among them.
    pub schedules: usize,
    /// How many steps they had.
    pub steps: usize,
    /// The last schedule.
    pub last: Option<Plan>,
}

/// A schedule that failed, the last of those that were run.
#[derive(Debug)]
pub struct Failed {
    pub done: Done,
    pub panic: Box<dyn Any + Send>,
}

/// Runs the scenario of the file `tests/NAME.rs` under `schedules` schedules, or as the environment says: see the
/// top of this module. It is given random numbers that belong to the schedule.
pub fn explore(name: &str, schedules: usize, scenario: impl Fn(Random) + Send + Sync + 'static) {
    let schedules = given("MAINSTAY_SCHEDULES").unwrap_or(schedules);
    let seed = given("MAINSTAY_SEED").unwrap_or_else(fresh_seed);
    let plans = given("MAINSTAY_REPLAY").map_or(Plans::Many { schedules, seed }, Plans::Only);
    let how = match plans {
        Plans::Only(plan) => plan.to_string(),
        Plans::Many { .. } => format!("random and PCT of depth {DEPTHS:?}, seed {seed}"),
    };

    let begun = Instant::now();
    let (done, panic) = match run(plans, scenario) {
        Ok(done) => (done, None),
        Err(Failed { done, panic }) => (done, Some(panic)),
    };
    let took = begun.elapsed().as_secs_f64();
    let (schedules, steps) = (done.schedules, done.steps);
    let rate = schedules as f64 / took;
    println!(
        "{name}: {schedules} schedules of {steps} steps in all, {how}, {took:.1} s, {rate:.0} a second"
    );
    if let (Some(panic), Some(plan)) = (panic, done.last) {
        println!("the last one fails; to run it alone:");
        println!("    MAINSTAY_REPLAY={plan} ci/shuttle {name}");
        panic::resume_unwind(panic);
    }
}

/// What a variable of the environment says, if it is there.
fn given<T: FromStr<Err: fmt::Display>>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|why| panic!("{name}: {why}")))
}

/// Runs the scenario under these schedules, until one fails.
pub fn run(
    plans: Plans,
    scenario: impl Fn(Random) + Send + Sync + 'static,
) -> Result<Done, Failed> {
    let mut config = Config::new();
    // What a panic prints needs more than the default.
    config.stack_size = 1 << 18;
    config.max_steps = MaxSteps::FailAfter(ENDLESS);
    // The plan is shorter.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    // What the other threads would say after the first panic is of no use.
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;

    let done = Rc::<RefCell<Done>>::default();
    let explorer = Explorer::new(plans, Rc::clone(&done));
    let scenario = move || scenario(Random::new(shuttle::rand::thread_rng().next_u64()));
    let ran = panic::catch_unwind(AssertUnwindSafe(|| Runner::new(explorer, config).run(scenario)));
    let done = done.borrow().clone();
    match ran {
        Ok(_) => Ok(done),
        Err(panic) => Err(Failed { done, panic }),
    }
}

/// Gives shuttle one schedule after another.
#[derive(Debug)]
struct Explorer {
    plans: Plans,
    seeds: Random,
    now: Option<Chooser>,
    /// What PCT takes for the length of a schedule: the most that a schedule had.
    choices: usize,
    done: Rc<RefCell<Done>>,
}

impl Explorer {
    fn new(plans: Plans, done: Rc<RefCell<Done>>) -> Self {
        let seed = match plans {
            Plans::Only(plan) => plan.seed,
            Plans::Many { seed, .. } => seed,
        };
        Self { plans, seeds: Random::new(seed), now: None, choices: 1, done }
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

    fn now(&mut self) -> &mut Chooser {
        self.now.as_mut().expect("shuttle begins before it asks")
    }
}

impl Scheduler for Explorer {
    fn new_execution(&mut self) -> Option<Schedule> {
        if let Some(over) = self.now.take() {
            self.choices = self.choices.max(over.choices);
        }
        let number = self.done.borrow().schedules;
        let plan = self.next_plan(number)?;
        let mut done = self.done.borrow_mut();
        done.schedules += 1;
        done.last = Some(plan);
        self.now = Some(Chooser::new(plan));
        Some(Schedule::new(plan.seed))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        is_yielding: bool,
    ) -> Option<TaskId> {
        self.done.borrow_mut().steps += 1;
        Some(self.now().choose(runnable, current, is_yielding))
    }

    fn next_u64(&mut self) -> u64 {
        self.now().data()
    }
}
