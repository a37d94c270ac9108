//! The quick tests in one binary, for `ci/mutants`: it builds them anew for each mutant. `cargo test` runs each by its
//! own file.

// For `everything.rs`, which a test of its own takes from its root.
#[path = "mod.rs"]
mod support;

#[path = "../all_ready.rs"]
mod all_ready;
#[path = "../building.rs"]
mod building;
#[path = "../closing.rs"]
mod closing;
#[path = "../draining.rs"]
mod draining;
#[path = "../dropped_waits.rs"]
mod dropped_waits;
#[path = "../edges.rs"]
mod edges;
#[path = "../failing.rs"]
mod failing;
#[path = "../graces.rs"]
mod graces;
#[path = "../handles.rs"]
mod handles;
#[path = "../hostile.rs"]
mod hostile;
#[path = "../inspecting.rs"]
mod inspecting;
#[path = "../kinds.rs"]
mod kinds;
#[path = "../left_behind.rs"]
mod left_behind;
#[path = "../limits.rs"]
mod limits;
#[path = "../observing.rs"]
mod observing;
#[path = "../provider_loop.rs"]
mod provider_loop;
#[path = "../reading.rs"]
mod reading;
#[path = "../reentrant.rs"]
mod reentrant;
#[path = "../shutting_down.rs"]
mod shutting_down;
#[path = "../supervised_hour.rs"]
mod supervised_hour;
#[path = "../supervising.rs"]
mod supervising;
#[path = "../test_kit.rs"]
mod test_kit;
#[path = "../topology.rs"]
mod topology;
#[path = "../waiting.rs"]
mod waiting;
#[path = "../wakers.rs"]
mod wakers;
