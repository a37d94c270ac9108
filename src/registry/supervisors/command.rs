//! The wait of a supervisor for a command.

use std::time::Duration;

use super::control::Control;
use crate::{
    numbers::ServiceIndex,
    store::Store,
    waiting::sealed::{Condition, WaitSlots},
};

/// Waits until there is a command for a supervisor.
pub(crate) struct CommandWait<'a> {
    pub(crate) store: &'a Store,
    pub(crate) index: ServiceIndex,
    pub(crate) control: &'a Control,
    /// Whether a reset ends the wait. While an instance is being built or is up, it does not: the
    /// reset stays requested until the build or the instance has ended.
    pub(crate) accept_reset: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The registry is closed, or a shutdown has reached the service.
    Stop,
    /// The user has requested a reset.
    Reset,
}

impl Condition for CommandWait<'_> {
    type Output = Command;

    fn check(&mut self) -> Option<Command> {
        if self.store.is_closed() || self.control.must_end() {
            return Some(Command::Stop);
        }
        (self.accept_reset && self.control.take_reset()).then_some(Command::Reset)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) -> Command {
        unreachable!("a supervisor waits for commands without a timeout")
    }
}
