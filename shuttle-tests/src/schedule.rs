//! The choice of the next thread: random, from a seed.

use std::{fmt, str::FromStr};

use shuttle::scheduler::{Task, TaskId};

use crate::Random;

/// One in this number of decisions may wake a parked thread spuriously, as an operating system may.
/// shuttle offers spurious wakes at each decision; with fifty threads, most steps would be such
/// ones.
const SPURIOUS_WAKE_ODDS: usize = 64;

/// A way to choose threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// At each step, any thread that can run.
    Random,
    /// The thread with the highest priority, until it blocks. Priorities are random. At `depth - 1`
    /// random steps among the first `steps` that leave a choice, the thread that has just run gets
    /// the lowest priority (Burckhardt et al.: A Randomized Scheduler with Probabilistic Guarantees
    /// of Finding Bugs, ASPLOS 2010).
    Pct { depth: usize, steps: usize },
}

/// Everything that determines a schedule. Its text form is the argument that repeats the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub kind: Kind,
    pub seed: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Random => write!(f, "random:{}", self.seed),
            Kind::Pct { depth, steps } => write!(f, "pct:{depth}:{steps}:{}", self.seed),
        }
    }
}

impl FromStr for Plan {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected random:SEED or pct:DEPTH:STEPS:SEED";
        let mut parts = text.split(':');
        let name = parts.next();
        let numbers: Result<Vec<u64>, _> = parts.map(str::parse).collect();
        match (name, &*numbers.map_err(|_| expected)?) {
            (Some("random"), &[seed]) => Ok(Self { kind: Kind::Random, seed }),
            (Some("pct"), &[depth, steps, seed]) if depth > 0 && steps > 0 => {
                let kind = Kind::Pct { depth: depth as usize, steps: steps as usize };
                Ok(Self { kind, seed })
            }
            _ => Err(expected),
        }
    }
}

/// Chooses the threads of one schedule.
///
/// The schedulers of shuttle are not used because a seed of its PCT repeats only a whole run, not
/// one schedule of it, and because they have no equivalent of `SPURIOUS_WAKE_ODDS`.
#[derive(Debug)]
pub(crate) struct Chooser {
    plan: Plan,
    random: Random,
    /// The random numbers of the scenario. They must not depend on how many the chooser has used.
    data: Random,
    /// The priority of each thread, by its number.
    priorities: Vec<u64>,
    /// Lower than all other priorities.
    lowest: u64,
    changes: Vec<usize>,
    /// The number of steps with more than one thread to choose from.
    pub(crate) choices: usize,
}

impl Chooser {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let data = Random::new(random.next());
        let changes = match plan.kind {
            Kind::Random => vec![],
            Kind::Pct { depth, steps } => (1..depth).map(|_| random.below(steps)).collect(),
        };
        let lowest = 1 << 63;
        Self { plan, random, data, priorities: vec![], lowest, changes, choices: 0 }
    }

    pub(crate) fn data(&mut self) -> u64 {
        self.data.next()
    }

    pub(crate) fn choose(
        &mut self,
        tasks: &[&Task],
        current: Option<TaskId>,
        yields: bool,
    ) -> TaskId {
        let spurious = self.random.below(SPURIOUS_WAKE_ODDS) == 0;
        let eligible: Vec<&Task> =
            tasks.iter().copied().filter(|task| spurious || task.runnable()).collect();
        match self.plan.kind {
            Kind::Random => eligible[self.random.below(eligible.len())].id(),
            Kind::Pct { .. } => self.highest(&eligible, current, yields),
        }
    }

    fn highest(&mut self, eligible: &[&Task], current: Option<TaskId>, yields: bool) -> TaskId {
        let number = |task: &&&Task| usize::from(task.id());
        let known = eligible.iter().map(|task| number(&task) + 1).max().unwrap_or(0);
        while self.priorities.len() < known {
            self.priorities.push(self.random.next() | 1 << 63);
        }
        if eligible.len() > 1 {
            // A thread that parks yields, too, but is not eligible: it keeps its priority until it
            // is woken.
            let ran = eligible.iter().find(|task| Some(task.id()) == current);
            if let (Some(ran), true) = (ran, yields || self.changes.contains(&self.choices)) {
                self.lowest -= 1;
                self.priorities[usize::from(ran.id())] = self.lowest;
            }
            self.choices += 1;
        }
        let highest = eligible.iter().max_by_key(|task| self.priorities[number(task)]);
        highest.expect("shuttle asks only if a thread can run").id()
    }
}
