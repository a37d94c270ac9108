//! What models use and users cannot. It exists only in models (`loom-tests/`) and in scenarios
//! (`shuttle-tests/`).

mod paused_clock;
#[cfg(loom)]
mod receiver;
mod reload;
mod stalled;

#[cfg(loom)]
pub use self::receiver::{Receiver, into_value};
pub use self::{
    paused_clock::PausedClock,
    reload::{NotBuilt, Reload, fail_publication, number, replace},
};

/// A generation and a revision.
pub type Number = (u64, u64);
