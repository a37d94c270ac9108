//! Bodies: the user's code that runs while an instance is up.
//!
//! An async body is a future that the supervisor polls. A blocking body runs on a thread of its
//! own, which the supervisor starts for each publication. Several calls of a body may be in
//! progress: at a reload, the new one begins beside the old one, which stops. The function of an
//! *exclusive* body is taken by a call, and put back when the call has ended: the next one waits
//! for it.

use std::{
    any::Any,
    future::{Future, poll_fn},
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
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
        ///
        /// Several of these futures may exist. The one of the earlier publication must be polled
        /// first in each poll of the task: if the body is an exclusive one, the later one waits for
        /// its end.
        fn run(&self, live: Live<T>) -> impl Future<Output = BodyResult>;

        /// Completes once all bodies have returned. An async body ends with its future; a blocking
        /// one may continue after the supervisor has given up waiting for it.
        fn returned(&self) -> impl Future<Output = ()> {
            std::future::ready(())
        }

        /// Returns a generation for which a body still runs: then `returned` waits.
        fn running(&self) -> Option<Generation> {
            None
        }

        /// Takes the result of a body that has returned too late, and the generation of its
        /// instance. Returns `None` if there is no other one.
        fn late_result(&self) -> Option<(Generation, BodyResult)> {
            None
        }
    }
}

/// A supervisor without a body: the instance is up until it fails.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBody;

impl<T: Send + Sync + 'static> sealed::Body<T> for NoBody {
    const EXISTS: bool = false;

    async fn run(&self, _: Live<T>) -> BodyResult {
        Ok(Some(BodyEnd::StayReady))
    }
}

/// An async body ([`Supervisor::body`](super::Supervisor::body)). `C` is [`Overlapping`] or
/// [`Exclusive`].
pub struct AsyncBody<C>(pub(super) C);

/// The function of a body of which several calls may be in progress.
pub struct Overlapping<F>(Shielded<F>);

impl<F> Overlapping<F> {
    pub(super) fn new(function: F) -> Self {
        Self(Shielded::new(function))
    }
}

/// The function of a body of which one call is in progress at a time.
pub struct Exclusive<F>(Mutex<Option<Shielded<F>>>);

impl<T, F, O> sealed::Body<T> for AsyncBody<Overlapping<F>>
where
    T: Send + Sync + 'static,
    F: AsyncFn(Live<T>) -> O,
    O: BodyOutput,
{
    async fn run(&self, live: Live<T>) -> BodyResult {
        let Overlapping(function) = &self.0;
        // The conversion of the output is user code, too.
        let output = UserFuture::new(async { (**function)(live).await.into_result() });
        output.await.unwrap_or_else(panicked)
    }
}

impl<T, F, O> sealed::Body<T> for AsyncBody<Exclusive<F>>
where
    T: Send + Sync + 'static,
    F: AsyncFnMut(Live<T>) -> O,
    O: BodyOutput,
{
    async fn run(&self, live: Live<T>) -> BodyResult {
        // Nothing wakes this: the body that has it is polled, and dropped, by the same task, before
        // this one.
        let mut function = poll_fn(|_| self.0.take().map_or(Poll::Pending, Poll::Ready)).await;
        let output = UserFuture::new(async { (*function)(live).await.into_result() });
        output.await.unwrap_or_else(panicked)
    }
}

impl<F> Exclusive<F> {
    pub(super) fn new(function: F) -> Self {
        Self(Mutex::new(Some(Shielded::new(function))))
    }

    /// Takes the function, unless it is taken.
    fn take(&self) -> Option<Taken<'_, F>> {
        let function = lock(&self.0).take()?;
        Some(Taken { function: Some(function), owner: self })
    }
}

/// Its drop puts the function back.
struct Taken<'a, F> {
    /// `None` only during the drop.
    function: Option<Shielded<F>>,
    owner: &'a Exclusive<F>,
}

impl<F> Deref for Taken<'_, F> {
    type Target = F;

    fn deref(&self) -> &F {
        match &self.function {
            Some(function) => function,
            None => unreachable!("it is put back by the drop"),
        }
    }
}

impl<F> DerefMut for Taken<'_, F> {
    fn deref_mut(&mut self) -> &mut F {
        match &mut self.function {
            Some(function) => function,
            None => unreachable!("it is put back by the drop"),
        }
    }
}

impl<F> Drop for Taken<'_, F> {
    fn drop(&mut self) {
        *lock(&self.owner.0) = self.function.take();
    }
}

/// A body that runs on threads ([`Supervisor::body_blocking`](super::Supervisor::body_blocking)).
/// `C` is [`Overlapping`] or [`Exclusive`].
pub struct BlockingBody<C> {
    /// The name of the threads.
    name: String,
    shared: ThreadArc<Shared<C>>,
}

/// What the supervisor shares with the threads of a body.
struct Shared<C> {
    body: C,
    calls: Mutex<Calls>,
    /// Counts a step after a call has returned. Not an event of event-listener: that would call the
    /// waker of the supervisor's task, which may panic, under its lock.
    returned: Progress,
}

/// The calls that are in progress, or whose results were not taken. At most a few.
#[derive(Default)]
struct Calls {
    /// The number of calls so far.
    begun: u64,
    list: Vec<Call>,
}

struct Call {
    number: u64,
    generation: Generation,
    /// `None` until its thread has returned.
    result: Option<Shielded<BodyResult>>,
}

/// How a blocking body is called.
trait CallBody<T: Send + Sync + 'static>: Send + Sync + 'static {
    /// Whether a call begins only after the one before it has returned.
    const EXCLUSIVE: bool;

    fn call(&self, live: Live<T>) -> BodyResult;
}

impl<T, F, O> CallBody<T> for Overlapping<F>
where
    T: Send + Sync + 'static,
    F: Fn(Live<T>) -> O + Send + Sync + 'static,
    O: BodyOutput,
{
    const EXCLUSIVE: bool = false;

    fn call(&self, live: Live<T>) -> BodyResult {
        let output = catch_unwind(AssertUnwindSafe(|| (*self.0)(live).into_result()));
        output.unwrap_or_else(panicked)
    }
}

impl<T, F, O> CallBody<T> for Exclusive<F>
where
    T: Send + Sync + 'static,
    F: FnMut(Live<T>) -> O + Send + 'static,
    O: BodyOutput,
{
    const EXCLUSIVE: bool = true;

    fn call(&self, live: Live<T>) -> BodyResult {
        let Some(mut function) = self.take() else {
            unreachable!("the call before it has put the function back before it returned")
        };
        let output = catch_unwind(AssertUnwindSafe(|| (*function)(live).into_result()));
        output.unwrap_or_else(panicked)
    }
}

impl<C> BlockingBody<C> {
    pub(super) fn new(name: String, body: C) -> Self {
        let (calls, returned) = (Mutex::default(), Progress::default());
        // A name with a zero byte cannot be given to a thread.
        let name = name.replace('\0', "");
        Self { name, shared: ThreadArc::new(Shared { body, calls, returned }) }
    }
}

impl<T, C> sealed::Body<T> for BlockingBody<C>
where
    T: Send + Sync + 'static,
    C: CallBody<T>,
{
    async fn run(&self, live: Live<T>) -> BodyResult {
        let number = self.shared.begin(live.generation(), C::EXCLUSIVE).await;
        let shared = ThreadArc::clone(&self.shared);
        let on_thread = move || {
            let result = shared.body.call(live);
            shared.end(number, result);
        };
        if let Err(error) = ThreadBuilder::new().name(self.name.clone()).spawn(on_thread) {
            lock(&self.shared.calls).list.retain(|call| call.number != number);
            return Err(error.into());
        }
        loop {
            let steps = self.shared.returned.steps();
            if let Some((_, result)) = self.shared.take_result(|call| call.number == number) {
                return result;
            }
            self.shared.returned.after(steps).await;
        }
    }

    async fn returned(&self) {
        self.shared.returned().await;
    }

    fn running(&self) -> Option<Generation> {
        self.shared.running()
    }

    fn late_result(&self) -> Option<(Generation, BodyResult)> {
        self.shared.take_result(|_| true)
    }
}

impl<C> Shared<C> {
    /// Notes that a call begins, and returns its number. An exclusive one waits until no other one
    /// is in progress.
    ///
    /// Noted before the thread is started, because it may begin later.
    async fn begin(&self, generation: Generation, exclusive: bool) -> u64 {
        loop {
            // Before the check: a call that returns afterwards counts a step.
            let steps = self.returned.steps();
            {
                let mut calls = lock(&self.calls);
                if !exclusive || calls.running().is_none() {
                    calls.begun += 1;
                    let number = calls.begun;
                    calls.list.push(Call { number, generation, result: None });
                    return number;
                }
            }
            self.returned.after(steps).await;
        }
    }

    /// Notes the result of a call.
    fn end(&self, number: u64, result: BodyResult) {
        let result = Some(Shielded::new(result));
        if let Some(call) = lock(&self.calls).list.iter_mut().find(|call| call.number == number) {
            call.result = result;
        }
        self.returned.step();
    }

    /// Waits until no call is in progress.
    async fn returned(&self) {
        loop {
            let steps = self.returned.steps();
            if self.running().is_none() {
                return;
            }
            self.returned.after(steps).await;
        }
    }

    fn running(&self) -> Option<Generation> {
        lock(&self.calls).running()
    }

    /// Takes the first result of these calls.
    fn take_result(&self, of: impl Fn(&Call) -> bool) -> Option<(Generation, BodyResult)> {
        let mut calls = lock(&self.calls);
        let found = calls.list.iter().position(|call| call.result.is_some() && of(call))?;
        let Call { generation, result, .. } = calls.list.remove(found);
        Some((generation, result?.into_inner()))
    }
}

impl Calls {
    /// Returns the generation of the first call that is in progress.
    fn running(&self) -> Option<Generation> {
        self.list.iter().find(|call| call.result.is_none()).map(|call| call.generation)
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> BodyResult {
    Err(BodyFailure::panicked(payload).into())
}
