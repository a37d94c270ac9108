//! Bodies: the user's code that runs while an instance is up.
//!
//! An async body is a future that the supervisor polls. A blocking body runs on a thread of its
//! own, which the supervisor starts for each publication. In both cases a body is a value that
//! exists once, so no two bodies of one service run at the same time: the thread takes the function
//! of the user with it, and puts it back when the function has returned.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
};

use super::{
    BodyEnd, BodyOutput, Live,
    output::UserError,
    user_code::{BodyFailure, UserFuture},
};
use crate::{
    numbers::Generation,
    registry::Progress,
    sync::{Mutex, Shielded, ThreadArc, ThreadBuilder, lock},
};

/// What a body has returned, or its panic.
pub(super) type BodyResult = Result<Option<BodyEnd>, UserError>;

/// The body of a supervisor, or none.
pub trait Body<T: Send + Sync + 'static>: sealed::Body<T> {}

impl<T: Send + Sync + 'static, B: sealed::Body<T>> Body<T> for B {}

pub(super) mod sealed {
    use super::{BodyResult, Future, Generation, Live};

    pub trait Body<T: Send + Sync + 'static> {
        /// Whether there is a body.
        const EXISTS: bool = true;

        /// Runs the body for one publication. The supervisor drops the future if the body does not
        /// return in time.
        fn run(&mut self, live: Live<T>) -> impl Future<Output = BodyResult>;

        /// Completes once the last body has returned. An async body ends with its future; a
        /// blocking one may continue after the supervisor has given up waiting for it.
        fn returned(&mut self) -> impl Future<Output = ()> {
            std::future::ready(())
        }

        /// Returns the generation for which a body still runs: then `returned` waits.
        fn running(&self) -> Option<Generation> {
            None
        }

        /// Takes the result of a body that has returned too late, and the generation of its
        /// instance.
        fn late_result(&mut self) -> Option<(Generation, BodyResult)> {
            None
        }
    }
}

/// A supervisor without a body: the instance is up until it fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

impl<T: Send + Sync + 'static> sealed::Body<T> for NoBody {
    const EXISTS: bool = false;

    async fn run(&mut self, _: Live<T>) -> BodyResult {
        Ok(Some(BodyEnd::StayReady))
    }
}

/// The body of [`Supervisor::body`](super::Supervisor::body).
pub struct AsyncBody<F>(Shielded<F>);

impl<F> AsyncBody<F> {
    pub(super) fn new(body: F) -> Self {
        Self(Shielded::new(body))
    }
}

impl<T, F, O> sealed::Body<T> for AsyncBody<F>
where
    T: Send + Sync + 'static,
    F: AsyncFnMut(Live<T>) -> O,
    O: BodyOutput,
{
    async fn run(&mut self, live: Live<T>) -> BodyResult {
        // The conversion of the output is user code, too.
        let output = UserFuture::new(async { (*self.0)(live).await.into_result() });
        output.await.unwrap_or_else(panicked)
    }
}

/// The body of [`Supervisor::body_blocking`](super::Supervisor::body_blocking).
pub struct BlockingBody<F> {
    /// The name of the threads.
    name: String,
    shared: ThreadArc<OnThread<F>>,
}

/// What the supervisor shares with the thread of a body.
struct OnThread<F> {
    state: Mutex<ThreadState<F>>,
    /// Counts a step after the function was put back. Not an event of event-listener: that would
    /// call the waker of the supervisor's task, which may panic, under its lock.
    returned: Progress,
}

struct ThreadState<F> {
    /// `None` while the thread runs it.
    function: Option<Shielded<F>>,
    /// The generation for which a thread was started that has not put the function back.
    running: Option<Generation>,
    /// The result, and the generation of the instance.
    result: Option<(Generation, BodyResult)>,
}

impl<F> OnThread<F> {
    /// Waits until no thread runs the function.
    async fn returned(&self) {
        loop {
            // Before the check: a thread that puts the function back afterwards counts a step.
            let steps = self.returned.steps();
            if self.running().is_none() {
                return;
            }
            self.returned.after(steps).await;
        }
    }

    fn running(&self) -> Option<Generation> {
        lock(&self.state).running
    }
}

impl<F> BlockingBody<F> {
    pub(super) fn new(name: String, function: F) -> Self {
        let function = Some(Shielded::new(function));
        let state = Mutex::new(ThreadState { function, running: None, result: None });
        // A name with a zero byte cannot be given to a thread.
        let name = name.replace('\0', "");
        Self { name, shared: ThreadArc::new(OnThread { state, returned: Progress::default() }) }
    }
}

impl<T, F, O> sealed::Body<T> for BlockingBody<F>
where
    T: Send + Sync + 'static,
    F: FnMut(Live<T>) -> O + Send + 'static,
    O: BodyOutput,
{
    async fn run(&mut self, live: Live<T>) -> BodyResult {
        let generation = live.generation();
        lock(&self.shared.state).running = Some(generation);
        let shared = ThreadArc::clone(&self.shared);
        let on_thread = move || {
            // In a statement of its own: the function must not run under the lock.
            let function = lock(&shared.state).function.take();
            let Some(mut function) = function else { return };
            let output = catch_unwind(AssertUnwindSafe(|| (*function)(live).into_result()));
            let result = output.unwrap_or_else(panicked);
            {
                let mut state = lock(&shared.state);
                (state.function, state.running) = (Some(function), None);
                state.result = Some((generation, result));
            }
            shared.returned.step();
        };
        // The function is in `shared` until the thread runs, so it is not lost if none is started.
        if let Err(error) = ThreadBuilder::new().name(self.name.clone()).spawn(on_thread) {
            lock(&self.shared.state).running = None;
            return Err(error.into());
        }
        loop {
            let steps = self.shared.returned.steps();
            if let Some((_, result)) = lock(&self.shared.state).result.take() {
                return result;
            }
            self.shared.returned.after(steps).await;
        }
    }

    async fn returned(&mut self) {
        self.shared.returned().await;
    }

    fn running(&self) -> Option<Generation> {
        self.shared.running()
    }

    fn late_result(&mut self) -> Option<(Generation, BodyResult)> {
        lock(&self.shared.state).result.take()
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> BodyResult {
    Err(BodyFailure::panicked(payload).into())
}
