//! The behaviour of a registry, by its observable effects. The properties are listed at the top of
//! each module:
//!
//! - [`registering`]: names, capacity, foreign ids, the types of handles
//! - [`reading`]: `get`, `get_arc`, `get_all`, cached readers, and when a value is dropped
//! - [`providing`]: the loop of a provider, on every executor; dropped and forgotten handles
//! - [`edges`]: declared and discovered dependencies, their kinds, and cycles
//! - [`errors`]: errors that say that a service was not there, and the texts of chains
//! - [`failing`]: cascades, and reports of failures
//! - [`cascades`]: what a cascade leaves alone, and what it leaves behind
//! - [`waiting`]: futures and blocking waits, timeouts, and wakers
//! - [`closing`]: the close, and the drop of the last handle
//! - [`observing`]: events, statuses, the listing and its graph, records of failures
//! - [`user_code`]: values, reasons, wakers and observers that panic or call the registry
//! - [`supervising`]: restarts, backoffs, builds, grace periods, drains and shutdown
//! - [`programs`]: start, end and join of all supervisors
//! - [`test_kit`]: the test kit itself
//! - [`test_kit_tokio`]: its runtime on tokio's paused clock
//!
//! These tests are quick, and need no process of their own: `ci/mutants` builds and runs this
//! binary for each mutant. The other binaries are `programs` (processes that receive signals),
//! `stress` (long runs with many threads), `histories` (recorded runs that are checked against a
//! specification) and `churn` (counts allocations).

#[path = "../support/mod.rs"]
mod support;

mod cascades;
mod closing;
mod edges;
mod errors;
mod failing;
mod observing;
#[cfg(feature = "supervise")]
mod programs;
mod providing;
mod reading;
mod registering;
// The supervisors run in the runtime of the test kit.
#[cfg(feature = "test-kit")]
mod supervising;
#[cfg(feature = "test-kit")]
mod test_kit;
#[cfg(all(feature = "test-kit", feature = "tokio"))]
mod test_kit_tokio;
mod user_code;
mod waiting;
