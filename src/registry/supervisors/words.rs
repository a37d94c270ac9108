//! The words for the status of a supervisor.

use std::fmt;

use super::{SupervisorState, SupervisorStatus};
use crate::texts::{Failures, Rounded};

impl SupervisorState {
    /// Returns whether the service is ready.
    pub(crate) fn is_ready(self) -> bool {
        matches!(self, Self::Up | Self::Completed)
    }

    /// Returns whether the service may be stuck by itself in this state: there, or held down.
    pub(crate) fn may_be_stuck(self) -> bool {
        matches!(self, Self::NotRunning | Self::Permanent | Self::GivenUp | Self::Stopped)
    }

    /// Returns whether an instance is at its end.
    pub(in crate::registry) fn is_ending(self) -> bool {
        matches!(self, Self::Stopping | Self::BodyRunning | Self::Draining | Self::Closing)
    }
}

impl fmt::Display for SupervisorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state, failures, next_try_in, waiting_for, holders, late_by, given_up_with, ..
        } = self;
        match state {
            SupervisorState::BackingOff => {
                write!(f, "{state}")?;
                // None is counted during a debounce delay.
                if *failures > 0 {
                    write!(f, " after {}", Failures(*failures))?;
                }
                match next_try_in {
                    Some(left) if left.is_zero() => f.write_str(", next try now"),
                    Some(left) => write!(f, ", next try in {}", Rounded(*left)),
                    None => f.write_str(", no next try"),
                }
            }
            SupervisorState::Waiting => match waiting_for {
                Some(service) => write!(f, "{state} for {service}"),
                None => write!(f, "{state}"),
            },
            SupervisorState::Permanent => {
                write!(f, "{state}, a change of its inputs or `Registry::restart` tries again")
            }
            SupervisorState::GivenUp => match given_up_with {
                Some(member) => write!(
                    f,
                    "{state} with its group after a failure of {member}, `Registry::restart` tries \
                     again"
                ),
                None => write!(
                    f,
                    "{state}, `Registry::restart` or, by policy, a change of its inputs tries again"
                ),
            },
            SupervisorState::Building => match late_by {
                Some(late_by) => write!(f, "{state}, late by {}", Rounded(*late_by)),
                None => write!(f, "{state}"),
            },
            _ if *holders > 0 => write!(f, "{state} (holders: {holders})"),
            _ => write!(f, "{state}"),
        }?;
        self.write_how_ready(f)
    }
}

impl SupervisorStatus {
    /// Writes what the status of a service that is ready says beyond that.
    pub(in crate::registry) fn write_how_ready(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { degraded, stale, reloading, .. } = self;
        if let Some(degraded) = degraded {
            write!(f, ", {degraded}")?;
        }
        if let Some(stale) = stale {
            write!(f, ", {stale}")?;
        }
        match reloading {
            Some(reloading) => write!(f, ", {reloading}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{registry::Registry, service::ServiceName};

    #[test]
    fn each_state_is_written_with_its_details() {
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register::<u8>("a").unwrap();
        let _supervisor = registry.supervise(id).unwrap();
        let mut status = registry.status(id).unwrap().supervisor.unwrap();
        assert_eq!(status.to_string(), "not running");
        status.state = SupervisorState::BackingOff;
        assert_eq!(status.to_string(), "backing off, no next try");
        (status.failures, status.next_try_in) = (1, Some(Duration::ZERO));
        assert_eq!(status.to_string(), "backing off after 1 failure, next try now");
        status.next_try_in = Some(Duration::from_millis(3_210));
        assert_eq!(status.to_string(), "backing off after 1 failure, next try in 3.2 s");
        status.state = SupervisorState::Waiting;
        assert_eq!(status.to_string(), "waiting");
        status.waiting_for = Some(ServiceName::new("pool"));
        assert_eq!(status.to_string(), "waiting for pool");
        status.state = SupervisorState::Permanent;
        let text = "failed permanently, a change of its inputs or `Registry::restart` tries again";
        assert_eq!(status.to_string(), text);
        status.state = SupervisorState::GivenUp;
        let text =
            "given up, `Registry::restart` or, by policy, a change of its inputs tries again";
        assert_eq!(status.to_string(), text);
        status.given_up_with = Some(ServiceName::new("pool"));
        let text =
            "given up with its group after a failure of pool, `Registry::restart` tries again";
        assert_eq!(status.to_string(), text);
        status.holders = 2;
        for (state, text) in [
            (SupervisorState::Draining, "draining (holders: 2)"),
            (SupervisorState::Closing, "closing (holders: 2)"),
            (SupervisorState::Stopping, "stopping (holders: 2)"),
        ] {
            status.state = state;
            assert_eq!(status.to_string(), text);
        }
        (status.state, status.holders) = (SupervisorState::BodyRunning, 0);
        assert_eq!(status.to_string(), "waiting for its body to return");
    }
}
