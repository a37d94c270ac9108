//! Which thread runs next: by chance, from a seed.

use std::{fmt, str::FromStr};

use shuttle::scheduler::{Task, TaskId};

use crate::Random;

/// One in so many decisions may wake a parked thread for nothing, as an operating system may. Shuttle offers them
/// at each: most steps of fifty threads would be that.
const WAKES_FOR_NOTHING: usize = 64;

/// A way to choose threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any thread that can run, at each step.
    Random,
    /// The one of the highest priority, until it blocks. Priorities are random; at `depth - 1` random steps of the
    /// first `steps` that leave a choice, the thread that has just run becomes the lowest (Burckhardt et al.: A
    /// Randomized Scheduler with Probabilistic Guarantees of Finding Bugs, ASPLOS 2010).
    Pct { depth: usize, steps: usize },
}

/// All that a schedule follows from, and in its text form what repeats it.
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
        let wrong = "it is none of random:SEED and pct:DEPTH:STEPS:SEED";
        let mut parts = text.split(':');
        let name = parts.next();
        let numbers: Result<Vec<u64>, _> = parts.map(str::parse).collect();
        match (name, &*numbers.map_err(|_| wrong)?) {
            (Some("random"), &[seed]) => Ok(Self { kind: Kind::Random, seed }),
            (Some("pct"), &[depth, steps, seed]) if depth > 0 && steps > 0 => {
                let kind = Kind::Pct { depth: depth as usize, steps: steps as usize };
                Ok(Self { kind, seed })
            }
            _ => Err(wrong),
        }
    }
}

/// Chooses the threads of one schedule.
///
/// Not shuttle's own schedulers, since a seed of its PCT repeats only a whole run, not one schedule of it; and
/// since they do not know of `WAKES_FOR_NOTHING`.
#[derive(Debug)]
pub(crate) struct Chooser {
    plan: Plan,
    random: Random,
    /// For the scenario: its numbers must not hang on how many the chooser took.
    data: Random,
    /// Of each thread, by its number.
    priorities: Vec<u64>,
    /// Lower than all priorities that there are.
    lowest: u64,
    changes: Vec<usize>,
    /// How many steps had more than one thread to choose from.
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
        let for_nothing = self.random.below(WAKES_FOR_NOTHING) == 0;
        let able: Vec<&Task> =
            tasks.iter().copied().filter(|task| for_nothing || task.runnable()).collect();
        match self.plan.kind {
            Kind::Random => able[self.random.below(able.len())].id(),
            Kind::Pct { .. } => self.highest(&able, current, yields),
        }
    }

    fn highest(&mut self, able: &[&Task], current: Option<TaskId>, yields: bool) -> TaskId {
        let number = |task: &&&Task| usize::from(task.id());
        let known = able.iter().map(|task| number(&task) + 1).max().unwrap_or(0);
        while self.priorities.len() < known {
            self.priorities.push(self.random.next() | 1 << 63);
        }
        if able.len() > 1 {
            // One that parks asks for it, too, but is not able: it keeps its priority for when it is woken.
            let ran = able.iter().find(|task| Some(task.id()) == current);
            if let (Some(ran), true) = (ran, yields || self.changes.contains(&self.choices)) {
                self.lowest -= 1;
                self.priorities[usize::from(ran.id())] = self.lowest;
            }
            self.choices += 1;
        }
        let highest = able.iter().max_by_key(|task| self.priorities[number(task)]);
        highest.expect("shuttle asks only where one can run").id()
    }
}
