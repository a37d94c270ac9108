//! Is there an order of the recorded operations, one that respects real time, in which the specification gives
//! the recorded answers?
//!
//! The search of Wing and Gong ("Testing and verifying concurrent objects", 1993): of the operations that no other
//! one precedes, try each as the next; where its answer is not what the specification gives, or where that leads
//! nowhere, try another. With the memory of Lowe ("Testing for linearizability", 2017): what is left of the search
//! depends only on which operations are over and what the service is then, so that no such pair is tried twice.
//!
//! Beyond theirs, an operation may have several steps, taken one after another between its call and its return
//! (see `service.rs`); that is as if it were several operations with the same bounds, in this order.

use std::collections::HashSet;

use super::{
    record::{Recorded, Table},
    service::{Answer, Call, Outcome, Service, Step},
};

/// A call and what it answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) call: Call,
    pub(crate) answer: Answer,
}

/// How many threads a history may have.
pub(crate) const THREADS: usize = 4;

/// A point of the search.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Reached {
    /// How many operations of each thread are over, and the step at which the next one is.
    at: [(u8, Step); THREADS],
    service: Service,
}

/// Checks a history, given by thread, of a service that was like this before. The error shows it.
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
        if reached.over() > furthest.over() {
            furthest = reached;
        }
        for thread in 0..threads.len() {
            let Some(Recorded { what, bounds, .. }) = next(thread) else { continue };
            if first_return < bounds.invoked {
                // That one was over before this one was called.
                continue;
            }
            let (over, step) = reached.at[thread];
            for (service, outcome) in reached.service.apply(what.call, step) {
                let mut then = Reached { service, ..reached };
                then.at[thread] = match outcome {
                    Outcome::Then(step) => (over, step),
                    Outcome::Answer(answer) if answer == what.answer => (over + 1, Step::First),
                    Outcome::Answer(_) => continue,
                };
                to_try.push(then);
            }
        }
    }
    Err(format!(
        "not linearizable, from {start:?}:\n{}an order of {} operations comes to {:?}, and no further",
        Table(&threads.concat()),
        furthest.over(),
        furthest.service,
    ))
}

impl Reached {
    fn over(&self) -> usize {
        self.at.iter().map(|&(over, _)| usize::from(over)).sum()
    }
}
