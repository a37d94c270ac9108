//! The floor of a cascade: two read-modify-writes of the cache line of each slot.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;

const DOWN: u64 = 0;
const STARTING: u64 = 1;
const READY: u64 = 2;

/// The slots of the services, in the order of a closure.
pub struct Floor {
    lines: Vec<Line>,
    cause: ArcSwapOption<(Arc<dyn Error + Send + Sync>, SystemTime)>,
}

#[derive(Default)]
#[repr(align(64))]
struct Line {
    condemned: AtomicU64,
    state: AtomicU64,
}

impl Line {
    /// Takes the slot down. Returns whether it was ready.
    fn take_down(&self) -> bool {
        self.state.swap(DOWN, Ordering::AcqRel) == READY
    }
}

impl Floor {
    pub fn new(services: usize) -> Self {
        let lines = (0..services).map(|_| Line::default()).collect();
        Self { lines, cause: ArcSwapOption::empty() }
    }

    /// Writes the states of attempts and publications, one service after another. So the cache
    /// lines are in the same caches as those of mainstay.
    pub fn start(&self) {
        for line in &self.lines {
            line.state.swap(STARTING, Ordering::AcqRel);
            line.state.swap(READY, Ordering::AcqRel);
        }
    }

    /// Condemns all slots in order, and takes them down in the reverse order. Returns the number of
    /// services that failed.
    pub fn fail(&self) -> usize {
        for line in &self.lines {
            line.condemned.fetch_add(1, Ordering::AcqRel);
        }
        self.lines.iter().rev().filter(|line| line.take_down()).count()
    }

    /// Does the same as `fail`, and stores what a cascade must store: the reason and the time, and
    /// for each slot the generation that it is condemned to, because it is taken down only to this
    /// generation.
    pub fn fail_for(&self, reason: &str) -> usize {
        let reason = Box::<dyn Error + Send + Sync>::from(reason).into();
        self.cause.store(Some(Arc::new((reason, SystemTime::now()))));
        let condemn = |(i, line): (usize, &Line)| {
            (i as u32, line.condemned.fetch_add(1, Ordering::AcqRel) + 1)
        };
        let condemned: Vec<(u32, u64)> = self.lines.iter().enumerate().map(condemn).collect();
        let failed = |&&(i, to): &&(u32, u64)| {
            let line = &self.lines[i as usize];
            line.condemned.load(Ordering::Relaxed) == to && line.take_down()
        };
        condemned.iter().rev().filter(failed).count()
    }
}
