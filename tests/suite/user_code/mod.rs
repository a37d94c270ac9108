//! User code that panics, or calls the registry, while the store runs it.

mod bomb;
mod deferred;
mod every_call;
mod panicking_drops_everywhere;
mod reasons;
mod reentrant;
mod values;
