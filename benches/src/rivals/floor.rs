//! What a cascade cannot do without: two read-modify-writes of each slot's cache line.

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

/// The slots of as many services, in the order of a closure.
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
    fn was_up(&self) -> bool {
        self.state.swap(DOWN, Ordering::AcqRel) == READY
    }
}

impl Floor {
    pub fn new(services: usize) -> Self {
        let lines = (0..services).map(|_| Line::default()).collect();
        Self { lines, cause: ArcSwapOption::empty() }
    }

    /// As services that begin and are ready do, one after another: the lines are where those would be.
    pub fn start(&self) {
        for line in &self.lines {
            line.state.swap(STARTING, Ordering::AcqRel);
            line.state.swap(READY, Ordering::AcqRel);
        }
    }

    /// Condemns down, and raises up. Gives how many that were up went down.
    pub fn fail(&self) -> usize {
        for line in &self.lines {
            line.condemned.fetch_add(1, Ordering::AcqRel);
        }
        self.lines.iter().rev().filter(|line| line.was_up()).count()
    }

    /// As `fail`, with what a cascade has to remember: why and when, for those who ask later; and how far it has
    /// condemned each, as it must raise it no further.
    pub fn fail_for(&self, reason: &str) -> usize {
        let reason = Box::<dyn Error + Send + Sync>::from(reason).into();
        self.cause.store(Some(Arc::new((reason, SystemTime::now()))));
        let condemn = |(i, line): (usize, &Line)| {
            (i as u32, line.condemned.fetch_add(1, Ordering::AcqRel) + 1)
        };
        let condemned: Vec<(u32, u64)> = self.lines.iter().enumerate().map(condemn).collect();
        let went_down = |&&(i, to): &&(u32, u64)| {
            let line = &self.lines[i as usize];
            line.condemned.load(Ordering::Relaxed) == to && line.was_up()
        };
        condemned.iter().rev().filter(went_down).count()
    }
}
