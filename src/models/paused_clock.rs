//! A clock whose time does not advance.

use std::{
    future::{pending, ready},
    time::Instant,
};

use crate::supervise::{Clock, Sleep};

/// Its time is the one at which it was created. A sleep until then or earlier ends at once, and no
/// other one ends. So a wake-up that is lost is a deadlock, which loom and shuttle report, and
/// not a timeout.
pub struct PausedClock(Instant);

impl PausedClock {
    #[expect(clippy::new_without_default, reason = "it has the present time")]
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        if deadline <= self.0 { Box::pin(ready(())) } else { Box::pin(pending()) }
    }
}
