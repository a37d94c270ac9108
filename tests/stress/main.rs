//! Long runs with many threads, in which I1 and I2 are checked all the time. They are no part of
//! the suite because they take seconds, and because CI also runs them optimised, with another seed.

mod go_readme;
mod random_graph;
#[path = "../support/mod.rs"]
mod support;
