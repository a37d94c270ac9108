//! Searches an order of the recorded operations that respects real time, and in which the
//! specification returns the recorded answers.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993). Of the
//! operations that no other one precedes, try each as the next. If the specification returns
//! another answer, or if the rest of the search fails, try the next one. The cache is that of Lowe
//! ("Testing for linearizability", 2017): the rest of the search depends only on the operations
//! that have ended and on the state of the service, and so no such pair is tried twice.
//!
//! In addition, an operation may have several steps between its call and its return (see
//! `service.rs`). That is as if it were several operations with the same bounds, in this order.

use std::collections::HashSet;

use super::{
    record::{Recorded, Table},
    service::{Answer, Call, Outcome, Service, Step},
};

/// A call and its answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
}

/// The most threads of a history.
pub(crate) const THREADS: usize = 4;

/// A state of the search.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reached {
    /// The number of ended operations of each thread, and the step of the next operation.
    at: [(u8, Step); THREADS],
    service: Service,
}

/// Checks a history, one list for each thread, of a service that starts in this state. The error
/// contains the history.
pub(crate) fn check(start: Service, threads: &[Vec<Recorded<Operation>>]) -> Result<(), String> {
    let mut tried = HashSet::new();
    let mut to_try = vec![Reached { at: [(0, Step::First); THREADS], service: start }];
    let mut furthest = to_try[0];
    while let Some(reached) = to_try.pop() {
        if !tried.insert(reached) {
            continue;
        }
        let next = |thread: usize| threads[thread].get(usize::from(reached.at[thread].0));
        let pending = (0..threads.len()).filter_map(next);
        let Some(first_return) = pending.map(|operation| operation.bounds.answered).min() else {
            return Ok(());
        };
        if reached.ended() > furthest.ended() {
            furthest = reached;
        }
        for thread in 0..threads.len() {
            let Some(Recorded { what, bounds, .. }) = next(thread) else { continue };
            if first_return < bounds.invoked {
                // Another operation had returned before this one was called.
                continue;
            }
            let (ended, step) = reached.at[thread];
            for (service, outcome) in reached.service.apply(what.call, step) {
                let mut then = Reached { service, ..reached };
                then.at[thread] = match outcome {
                    Outcome::Then(step) => (ended, step),
                    Outcome::Answer(answer) if answer == what.answer => (ended + 1, Step::First),
                    Outcome::Answer(_) => continue,
                };
                to_try.push(then);
            }
        }
    }
    Err(format!(
        "not linearizable, from {start:?}:\n{}the longest order has {} operations, up to {:?}",
        Table(&threads.concat()),
        furthest.ended(),
        furthest.service,
    ))
}

impl Reached {
    fn ended(&self) -> usize {
        self.at.iter().map(|&(ended, _)| usize::from(ended)).sum()
    }
}
