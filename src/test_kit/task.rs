//! `TestTask`: the handle of a task of a test, which can cancel it.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::sync::{Mutex, lock};

/// A task of a test.
pub type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The handle of a task of a test; [`TestRuntime::spawn`](super::TestRuntime::spawn) returns it.
///
/// The task does not depend on the handle: the drop of the handle does nothing.
///
/// ```
/// use mainstay::{supervise::SupervisorState, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// let supervisor = runtime.registry.supervise(port)?;
/// let task = runtime.spawn(supervisor.run(async |_| 80));
/// runtime.run_until_idle();
/// assert!(runtime.registry.get(port).is_ok());
///
/// task.cancel(); // what an executor does if it drops the task
/// assert!(runtime.registry.get(port).is_err());
/// assert!(runtime.registry.status(port)?.supervisor.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct TestTask(Arc<Mutex<State>>);

enum State {
    /// The task, and the waker of its last poll.
    Idle(BoxedTask, Option<Waker>),
    /// It is being polled.
    Polled,
    Ended,
}

impl TestTask {
    /// Returns the task that the runtime polls, and its handle.
    pub(super) fn new(task: BoxedTask) -> (Cancellable, Self) {
        let state = Arc::new(Mutex::new(State::Idle(task, None)));
        (Cancellable(Self(Arc::clone(&state))), Self(state))
    }

    /// Drops the future of the task, as an executor does that aborts it: in this call, on this
    /// thread. If the task itself calls this, its future is dropped when its poll returns.
    ///
    /// The runtime removes the task from its list when it runs the next time. Does nothing if the
    /// task has ended.
    ///
    /// ```
    /// let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// let task = runtime.spawn(std::future::pending());
    /// task.cancel();
    /// assert!(task.has_ended());
    /// runtime.run_until_idle();
    /// assert!(runtime.tasks.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        // Dropped and woken without the lock: the future is that of a user.
        let state = mem::replace(&mut *lock(&self.0), State::Ended);
        if let State::Idle(task, waker) = state {
            drop(task);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Returns whether the task has ended: it has completed, or was cancelled or dropped.
    ///
    /// ```
    /// let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// let task = runtime.spawn(async {});
    /// assert!(!task.has_ended());
    /// runtime.run_until_idle();
    /// assert!(task.has_ended());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(*lock(&self.0), State::Ended)
    }
}

impl fmt::Debug for TestTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestTask").field("has_ended", &self.has_ended()).finish()
    }
}

/// The task that the runtime polls: it ends when its future does, or was cancelled. Its drop
/// cancels it.
pub(super) struct Cancellable(TestTask);

impl Future for Cancellable {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = &self.0.0;
        // In a statement of its own, which ends the lock.
        let before = mem::replace(&mut *lock(state), State::Polled);
        let State::Idle(mut task, _) = before else {
            // It was cancelled, or its last poll has panicked.
            *lock(state) = State::Ended;
            return Poll::Ready(());
        };
        // If it panics, the runtime drops this future, which ends the task.
        let polled = task.as_mut().poll(context);
        let waker = context.waker().clone();
        let mut state = lock(state);
        match (&*state, polled) {
            (State::Polled, Poll::Pending) => {
                *state = State::Idle(task, Some(waker));
                Poll::Pending
            }
            // It has completed, or was cancelled during the poll.
            _ => {
                *state = State::Ended;
                drop(state);
                drop(task);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
