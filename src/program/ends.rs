//! The ends of the supervisors of a program (P4, P5).

use std::{
    any::Any,
    fmt,
    future::{Future, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::Task;
use crate::{
    registry::Progress,
    service::ServiceName,
    supervise::panic_message,
    sync::{Mutex, lock, shielded},
};

/// How a supervisor of a [`Program`](super::Program) has ended.
///
/// ```
/// use mainstay::program::SupervisorEnd;
///
/// let end = SupervisorEnd::Panicked { message: "no clock".into() };
/// assert_eq!(end.to_string(), "panicked: no clock");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SupervisorEnd {
    /// It has not ended: its thread is blocked, or its future is not polled.
    Running,
    /// Its future has completed, or its function has returned.
    Returned,
    /// A panic has left its future or its function. Panics of builders, bodies and close hooks are
    /// not among them: they are failures of the service.
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// Its executor has dropped its future before it has completed.
    Dropped,
}

impl fmt::Display for SupervisorEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("still running"),
            Self::Returned => f.write_str("returned"),
            Self::Panicked { message } => write!(f, "panicked: {message}"),
            Self::Dropped => f.write_str("was dropped"),
        }
    }
}

/// A supervisor of a [`Program`](super::Program), and how it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SupervisorReport {
    /// The name of its service.
    pub service: ServiceName,
    /// How it has ended.
    pub end: SupervisorEnd,
    /// Whether it has ended before a shutdown was requested.
    pub is_early: bool,
}

/// The supervisors of a program, in the order in which they were spawned.
#[derive(Default)]
pub(super) struct Ends {
    reports: Mutex<Vec<SupervisorReport>>,
    /// Counts a step after each end.
    changed: Progress,
}

impl Ends {
    /// Waits until `check` returns an output.
    pub(super) async fn wait<R>(&self, check: impl Fn(&[SupervisorReport]) -> Option<R>) -> R {
        loop {
            let steps = self.changed.steps();
            let output = check(&lock(&self.reports));
            if let Some(output) = output {
                return output;
            }
            self.changed.after(steps).await;
        }
    }

    /// Waits until all of them have ended.
    pub(super) async fn all_ended(&self) {
        let is_running = |report: &SupervisorReport| report.end == SupervisorEnd::Running;
        self.wait(|reports| (!reports.iter().any(is_running)).then_some(())).await;
    }

    pub(super) fn reports(&self) -> Vec<SupervisorReport> {
        lock(&self.reports).clone()
    }
}

/// Records the end of one supervisor: at the latest in its drop.
pub(super) struct EndGuard {
    ends: Arc<Ends>,
    index: usize,
    /// Returns whether a shutdown is requested.
    is_requested: Box<dyn Fn() -> bool + Send>,
}

impl EndGuard {
    /// Adds a supervisor, which is running.
    pub(super) fn new(
        ends: &Arc<Ends>,
        service: ServiceName,
        is_requested: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let mut reports = lock(&ends.reports);
        let index = reports.len();
        reports.push(SupervisorReport { service, end: SupervisorEnd::Running, is_early: false });
        drop(reports);
        Self { ends: Arc::clone(ends), index, is_requested: Box::new(is_requested) }
    }

    /// Runs a supervisor on this thread.
    pub(super) fn run(self, supervisor: impl FnOnce()) {
        let result = catch_unwind(AssertUnwindSafe(supervisor));
        self.record(end_of(result));
    }

    fn record(&self, end: SupervisorEnd) {
        let is_early = !(self.is_requested)();
        let mut reports = lock(&self.ends.reports);
        let report = &mut reports[self.index];
        if report.end == SupervisorEnd::Running {
            (report.end, report.is_early) = (end, is_early);
            drop(reports);
            // It wakes `run`, whose waker is the user's.
            shielded(|| self.ends.changed.step());
        }
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.record(SupervisorEnd::Dropped);
    }
}

fn end_of(result: Result<(), Box<dyn Any + Send>>) -> SupervisorEnd {
    match result {
        Ok(()) => SupervisorEnd::Returned,
        Err(payload) => SupervisorEnd::Panicked { message: panic_message(payload) },
    }
}

/// The future of a supervisor, whose end is recorded.
pub(super) struct Watched {
    future: Task,
    // After the future, and dropped after it.
    guard: EndGuard,
}

impl Watched {
    pub(super) fn new(future: impl Future<Output = ()> + Send + 'static, guard: EndGuard) -> Self {
        Self { future: Box::pin(future), guard }
    }
}

impl Future for Watched {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let result = match catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(())) => Ok(()),
            Err(payload) => Err(payload),
        };
        // P4: its end is recorded after everything that it owns was dropped.
        let future = std::mem::replace(&mut self.future, Box::pin(ready(())));
        shielded(|| drop(future));
        self.guard.record(end_of(result));
        Poll::Ready(())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::{pin::pin, task::Waker};

    use super::*;

    /// A supervisor that has returned. Its drop stores the end that is recorded at that time.
    struct Returned(Arc<Ends>, Arc<Mutex<Option<SupervisorEnd>>>);

    impl Future for Returned {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    impl Drop for Returned {
        fn drop(&mut self) {
            *lock(&self.1) = self.0.reports().pop().map(|report| report.end);
        }
    }

    #[test]
    fn the_end_of_a_supervisor_is_recorded_after_all_that_it_owns_was_dropped() {
        let (ends, at_drop) = (Arc::<Ends>::default(), Arc::default());
        let guard = EndGuard::new(&ends, ServiceName::new("a"), || true);
        let supervisor = Returned(Arc::clone(&ends), Arc::clone(&at_drop));
        let mut task = pin!(Watched::new(supervisor, guard));
        assert!(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(*lock(&at_drop), Some(SupervisorEnd::Running));
        assert_eq!(ends.reports()[0].end, SupervisorEnd::Returned);
    }
}
