//! Supervisors: restarts and backoffs, single builds, grace periods, drains, and the shutdown.

mod bodies;
mod building;
#[cfg(all(feature = "smol", feature = "tokio"))]
mod clocks;
mod declared_graces;
mod draining;
mod graces;
mod panics;
mod restarting;
mod runtime;
mod shutting_down;
mod threads;
mod two_hours;
