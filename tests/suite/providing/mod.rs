//! Providers: their loop, their executors, and the handles that they drop or forget.

mod constants;
mod dropped_provider;
mod executors;
mod left_behind;
mod provider_loop;
mod refused_values_returned;
