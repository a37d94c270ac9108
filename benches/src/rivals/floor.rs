//! What a cascade cannot do without: two read-modify-writes of each slot's cache line.

use std::sync::atomic::{AtomicU64, Ordering};

const DOWN: u64 = 0;
const STARTING: u64 = 1;
const READY: u64 = 2;

/// The slots of as many services, in the order of a closure.
pub struct Floor(Vec<Line>);

#[derive(Default)]
#[repr(align(64))]
struct Line {
    condemned: AtomicU64,
    state: AtomicU64,
}

impl Floor {
    pub fn new(services: usize) -> Self {
        Self((0..services).map(|_| Line::default()).collect())
    }

    /// As services that begin and are ready do, one after another: the lines are where those would be.
    pub fn start(&self) {
        for line in &self.0 {
            line.state.swap(STARTING, Ordering::AcqRel);
            line.state.swap(READY, Ordering::AcqRel);
        }
    }

    /// Condemns down, and raises up. Gives how many that were up went down.
    pub fn fail(&self) -> usize {
        for line in &self.0 {
            line.condemned.fetch_add(1, Ordering::AcqRel);
        }
        let was_up = |line: &&Line| line.state.swap(DOWN, Ordering::AcqRel) == READY;
        self.0.iter().rev().filter(was_up).count()
    }
}
