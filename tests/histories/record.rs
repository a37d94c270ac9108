//! Recording the operations of several threads, with the bounds in time of each.
//!
//! *The clock.* Stamps are of `Instant`, which is monotonic across threads. A shared counter would
//! be a read-modify-write of one cache line at both ends of each operation. The threads would take
//! turns at that line, and each would see all earlier operations of the others. Faults within a
//! hundred nanoseconds, and faults of a missing ordering, would disappear. A read of the clock
//! writes nothing.
//!
//! A stamp is taken before the call and after its return, so that the effect of the operation lies
//! between its stamps. Stamps of two threads are compared with `<`. Equal stamps do not determine
//! an order.
//!
//! *The records* of a thread go to a list of its own, which is allocated beforehand. Threads meet
//! at a [`Gate`] before each round, and not during a round.

use std::{
    fmt::{self, Debug},
    hint, panic,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use mainstay::{Guard, Registry};
use mainstay_test_support::guards_to_keep;

/// When an operation was called and when it had returned, in nanoseconds since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) invoked: u64,
    pub(crate) answered: u64,
}

/// One operation of one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorded<O> {
    pub(crate) thread: usize,
    pub(crate) what: O,
    pub(crate) bounds: Bounds,
}

/// The operations of one thread in one round.
pub(crate) struct Recorder<O> {
    thread: usize,
    beginning: Instant,
    records: Vec<Recorded<O>>,
}

impl<O> Recorder<O> {
    pub(crate) fn new(thread: usize, beginning: Instant, capacity: usize) -> Self {
        Self { thread, beginning, records: Vec::with_capacity(capacity) }
    }

    /// Runs an operation between two stamps.
    pub(crate) fn timed<R>(&self, operation: impl FnOnce() -> R) -> (R, Bounds) {
        let invoked = Instant::now();
        let result = operation();
        let answered = Instant::now();
        let nanos = |at: Instant| at.duration_since(self.beginning).as_nanos() as u64;
        (result, Bounds { invoked: nanos(invoked), answered: nanos(answered) })
    }

    pub(crate) fn push(&mut self, bounds: Bounds, what: O) {
        self.records.push(Recorded { thread: self.thread, what, bounds });
    }

    pub(crate) fn into_records(self) -> Vec<Recorded<O>> {
        self.records
    }
}

/// The threads of a crew meet here. They spin, because a thread that sleeps would miss a short
/// round.
pub(crate) struct Gate {
    crew: usize,
    arrived: AtomicUsize,
}

impl Gate {
    /// Returns when the whole crew has arrived for this round. The first round is 0.
    pub(crate) fn pass(&self, round: usize) {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while self.arrived.load(Ordering::Acquire) < self.crew * (round + 1) {
            spins += 1;
            if spins % 256 == 0 { thread::yield_now() } else { hint::spin_loop() }
        }
    }
}

/// Opens the gate for ever if its thread panics, so that the other threads end.
struct OpenedByPanic<'a>(&'a Gate);

impl Drop for OpenedByPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.arrived.store(usize::MAX / 2, Ordering::Release);
        }
    }
}

/// Keeps guards, so that threads read in different ways.
fn occupy_places(thread: usize) -> Vec<Guard<()>> {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("occupied").unwrap();
    registry.constant(id, ()).unwrap();
    (0..guards_to_keep(thread)).map(|_| registry.get(id).unwrap()).collect()
}

/// Runs the work on `threads` threads, each with its number, and returns the results.
pub(crate) fn crew<R: Send>(threads: usize, work: impl Fn(usize, &Gate) -> R + Sync) -> Vec<R> {
    let gate = Gate { crew: threads, arrived: AtomicUsize::new(0) };
    thread::scope(|scope| {
        let (gate, work) = (&gate, &work);
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let _open = OpenedByPanic(gate);
                    let _guards = occupy_places(thread);
                    work(thread, gate)
                })
            })
            .collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|end| end.unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    })
}

/// A readable history: one line for each operation, in the order of the calls, indented by thread.
pub(crate) struct Table<'a, O>(pub(crate) &'a [Recorded<O>]);

impl<O: Debug> fmt::Display for Table<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by_key(|record| (record.bounds.invoked, record.bounds.answered));
        let first = sorted.first().map_or(0, |record| record.bounds.invoked);
        for Recorded { thread, what, bounds } in sorted {
            let (from, to) = (bounds.invoked - first, bounds.answered - first);
            writeln!(
                f,
                "{from:>9} to {to:>9} ns {:indent$}[{thread}] {what:?}",
                "",
                indent = thread * 4
            )?;
        }
        Ok(())
    }
}
