//! The failures within a sliding window of time: of one service, or of a group.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub(crate) struct FailureWindow {
    /// The greatest number of failures, and the length of the window.
    limit: Option<(u32, Duration)>,
    /// The times of the failures in the window. Empty without a limit.
    recent: VecDeque<Instant>,
}

impl FailureWindow {
    pub(crate) fn new(limit: Option<(u32, Duration)>) -> Self {
        Self { limit, recent: VecDeque::new() }
    }

    /// Adds a failure. Returns whether the window now has more failures than the limit.
    pub(crate) fn add(&mut self, now: Instant) -> bool {
        let Some((limit, window)) = self.limit else { return false };
        self.leave(now, window);
        self.recent.push_back(now);
        self.recent.len() > limit as usize
    }

    /// Returns the number of failures in the window; 0 without a limit.
    pub(crate) fn count(&mut self, now: Instant) -> usize {
        let Some((_, window)) = self.limit else { return 0 };
        self.leave(now, window);
        self.recent.len()
    }

    /// Forgets all failures.
    pub(crate) fn clear(&mut self) {
        self.recent.clear();
    }

    /// Forgets the failures that are not in the window any more.
    fn leave(&mut self, now: Instant, window: Duration) {
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= window) {
            self.recent.pop_front();
        }
    }
}
