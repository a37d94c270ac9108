//! What a cascade cannot do without: two read-modify-writes of each slot's cache line.

use std::sync::atomic::{AtomicU64, Ordering};

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
            line.state.fetch_add(1, Ordering::AcqRel);
            line.state.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Condemns down, and raises up. Gives how many that were up went down.
    pub fn fail(&self) -> usize {
        for line in &self.0 {
            line.condemned.fetch_add(1, Ordering::AcqRel);
        }
        let raise = |line: &&Line| line.state.fetch_add(1, Ordering::AcqRel) % 3 == 2;
        self.0.iter().rev().filter(raise).count()
    }
}
