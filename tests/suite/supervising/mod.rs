//! Supervisors: restarts and backoffs, single builds, grace periods, drains, close hooks, the
//! shutdown, and clocks.

#[cfg(all(feature = "smol", feature = "tokio"))]
mod blocking;
mod blocking_bodies;
mod bodies;
mod build_limits;
mod building;
#[cfg(all(feature = "smol", feature = "tokio"))]
mod clocks;
mod closing_hooks;
mod declared_graces;
mod degraded;
mod draining;
mod dropped_waits;
mod ending_edges;
mod forms;
mod graces;
mod groups;
mod late_ends;
mod operation_limits;
mod operations;
mod overlapping;
mod pace;
mod panics;
mod probes;
mod reloads;
mod restarting;
mod retries;
mod runtime;
#[cfg(all(feature = "smol", feature = "tokio"))]
mod shielded_sleeps;
mod shutdown_plan;
mod shutdown_requests;
mod shutting_down;
mod spread;
mod stop_results;
mod stopping;
mod stuck;
mod threads;
mod two_hours;
mod verdicts;
