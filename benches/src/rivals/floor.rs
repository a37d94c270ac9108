//! The floor of a cascade: two read-modify-writes of the cache line of each slot.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;

/// A state is a phase, and above it a generation, which the floor itself does not use.
pub(super) const PHASE: u64 = 0b11;
pub(super) const DOWN: u64 = 0;
pub(super) const STARTING: u64 = 1;
pub(super) const READY: u64 = 2;
const GENERATION_SHIFT: u32 = 2;

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
    /// The root of the failure.
    failed_by: AtomicU32,
}

impl Line {
    /// Takes the slot down. Returns whether it was ready.
    fn take_down(&self) -> bool {
        self.state.swap(DOWN, Ordering::AcqRel) & PHASE == READY
    }

    /// Takes the slot down to this generation, if the slot is below it. Returns whether it was
    /// ready.
    fn take_down_to(&self, generation: u64, root: u32) -> bool {
        let to = generation << GENERATION_SHIFT | DOWN;
        let mut seen = self.state.load(Ordering::Acquire);
        while seen < to {
            self.failed_by.store(root, Ordering::Release);
            match self.state.compare_exchange(seen, to, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return seen & PHASE == READY,
                Err(now) => seen = now,
            }
        }
        false
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
            let generation = line.condemned.load(Ordering::Acquire) << GENERATION_SHIFT;
            line.state.swap(generation | STARTING, Ordering::AcqRel);
            line.state.swap(generation | READY, Ordering::AcqRel);
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

    /// Does the same as `fail`, and what a cascade must do in addition: it stores the reason and
    /// the time; it leaves a slot alone that is down; it takes each slot down only to the
    /// generation to which it has condemned the slot, and only if the slot is below this
    /// generation; before, it stores at the slot which service has the reason.
    pub fn fail_for(&self, reason: &str) -> usize {
        let reason = Box::<dyn Error + Send + Sync>::from(reason).into();
        self.cause.store(Some(Arc::new((reason, SystemTime::now()))));
        let condemn = |(i, line): (usize, &Line)| {
            let is_down = line.state.load(Ordering::Acquire) & PHASE == DOWN;
            let to = if is_down { 0 } else { line.condemned.fetch_add(1, Ordering::AcqRel) + 1 };
            (i as u32, to)
        };
        let condemned: Vec<(u32, u64)> = self.lines.iter().enumerate().map(condemn).collect();
        let failed = |&&(i, to): &&(u32, u64)| self.lines[i as usize].take_down_to(to, 0);
        condemned.iter().rev().filter(failed).count()
    }
}
