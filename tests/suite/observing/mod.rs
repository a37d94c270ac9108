//! What a program can observe of a registry: the events, the statuses of the services and what
//! blocks them, and the records of failures.

mod adding;
mod blocking;
mod events;
mod listing_records;
mod lives;
#[cfg(feature = "test-kit")]
mod planned_ends;
#[cfg(feature = "test-kit")]
mod readiness;
mod records;
#[cfg(feature = "test-kit")]
mod states;
mod statuses;
#[cfg(feature = "test-kit")]
mod strategies;
mod why;
#[cfg(feature = "test-kit")]
mod why_states;
