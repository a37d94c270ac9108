//! The words for the status of a supervisor.

use std::fmt;

use super::{SupervisorState, SupervisorStatus};
use crate::texts::{Failures, Rounded};

impl fmt::Display for SupervisorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, failures, next_try_in, waiting_for, holders, .. } = self;
        let after = |f: &mut fmt::Formatter<'_>| match failures {
            0 => Ok(()),
            failures => write!(f, " after {}", Failures(*failures)),
        };
        match state {
            SupervisorState::BackingOff => {
                write!(f, "{state}")?;
                after(f)?;
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
                write!(f, "{state}, a change of its inputs or `Registry::reset` tries again")
            }
            SupervisorState::GivenUp => {
                write!(f, "{state}")?;
                after(f)?;
                f.write_str(", `Registry::reset` tries again")
            }
            _ if *holders > 0 => write!(f, "{state} (holders: {holders})"),
            _ => write!(f, "{state}"),
        }
    }
}
