//! `Wait`, the implementation of every wait: it checks a condition, and sleeps until a slot
//! changes.
//!
//! `docs/design.md` ("Waiting") proves that no wake-up is lost. `registry/supervisors/progress.rs`
//! waits in the same way for a counter: a change of the protocol concerns both.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    store::{Store, Waiter},
    sync::{block_until, polls_supervisor},
};

pub(crate) mod sealed {
    use super::{Duration, Instant, Store};
    use crate::numbers::ServiceIndex;

    /// The slots whose changes can make a condition hold: one or two.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct WaitSlots([Option<ServiceIndex>; 2]);

    impl WaitSlots {
        pub(crate) fn of(service: ServiceIndex) -> Self {
            Self([Some(service), None])
        }

        pub(crate) fn and(self, other: Option<ServiceIndex>) -> Self {
            Self([self.0[0], other])
        }

        pub(crate) fn iter(self) -> impl Iterator<Item = ServiceIndex> {
            self.0.into_iter().flatten()
        }
    }

    /// A condition that a wait waits for.
    pub trait Condition: Unpin {
        type Output;

        /// Returns the output if the condition holds. If it returns `None`, the condition can hold
        /// only after one of `slots` has changed.
        fn check(&mut self) -> Option<Self::Output>;

        /// Returns the slots to listen to after the last check.
        fn slots(&self) -> WaitSlots;

        fn store(&self) -> &Store;

        /// Returns whether the condition also depends on the log of what is stuck. Then `slots`
        /// returns one slot.
        fn reads_stuck_log(&self) -> bool {
            false
        }

        /// Returns the error of a wait that has lasted for `after`.
        fn timed_out(&self, after: Duration) -> Self::Output;

        /// Returns the present time, if an observer needs the duration of the wait.
        fn now_if_observed(&self) -> Option<Instant> {
            None
        }

        /// Called once, after the first check has failed.
        fn on_start(&mut self) {}

        /// Called once after `on_start`, when the wait ends or is dropped.
        fn on_end(&mut self, _started_at: Option<Instant>) {}
    }

    /// A condition for which a thread of the user may block.
    pub trait BlockingCondition: Condition {
        /// Returns the error of a wait that would block a poll of an async supervisor.
        fn must_await(&self) -> Self::Output;
    }
}

use sealed::{BlockingCondition, Condition, WaitSlots};

/// Waits for a condition: await it on any executor, or block a thread with
/// [`wait_blocking`](Self::wait_blocking).
///
/// Nothing happens before the wait is polled. A wait that has returned its output never ends again:
/// if it is polled, it is pending.
///
/// # Cancel safety
///
/// A wait can be dropped at any point, without an effect on other waiters. One effect can remain: a
/// dependency for which an attempt has begun to wait stays an edge until the next publication of
/// its dependent. If a wait for [`begin`](crate::Provider::begin) is dropped, no attempt has begun.
///
/// # Wakers
///
/// The thread that changes the slot locks the list of waiters of this slot for a short time, to
/// mark the waiters (with event-listener). It calls their wakers after it has released the lock. If
/// a waker panics, the panic hook reports the panic, and the other waiters are woken. A waker may
/// run its task in place.
///
/// ```
/// use mainstay::Registry;
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert!(registry.wait_ready(port).wait_blocking_timeout(Duration::from_millis(1)).is_err());
///
/// let waiter = std::thread::spawn({
///     let registry = registry.clone();
///     move || registry.wait_ready(port).wait_blocking().map(|port| **port)
/// });
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// assert_eq!(waiter.join().unwrap()?, 80);
/// // The same in async code, on any executor.
/// assert_eq!(**pollster::block_on(registry.wait_ready(port))?, 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a wait does nothing unless it is awaited or `wait_blocking` is called"]
pub struct Wait<C: Condition> {
    condition: C,
    waiter: Waiter,
    /// `on_start` was called, and `on_end` was not.
    started: bool,
    /// The time at which it started, if an observer needs the duration.
    started_at: Option<Instant>,
    /// It has returned its output.
    done: bool,
}

impl<C: Condition> Wait<C> {
    pub(crate) fn new(condition: C) -> Self {
        let waiter = Waiter::default();
        Self { condition, waiter, started: false, started_at: None, done: false }
    }

    #[cfg(any(feature = "stream", feature = "supervise"))]
    pub(crate) fn condition(&self) -> &C {
        &self.condition
    }

    pub(crate) fn condition_mut(&mut self) -> &mut C {
        &mut self.condition
    }

    /// Lets a wait that has returned its output wait again.
    #[cfg(feature = "stream")]
    pub(crate) fn restart(&mut self) {
        self.done = false;
    }
}

impl<C: BlockingCondition> Wait<C> {
    /// Blocks this thread until the wait ends, and returns its output.
    ///
    /// # In async code
    ///
    /// Await the wait in place of this: a blocked thread polls no other task. In a poll of an async
    /// [supervisor](crate::supervise::Supervisor::run) (its builder, its async body, its close
    /// hook, and whatever they call) this does not wait, and returns the error `MustAwait` of the
    /// wait, which contains a [`MustAwaitError`](crate::error::MustAwaitError). This also applies
    /// inside a nested `block_on` and tokio's `block_in_place`, and if the wait would end at once.
    /// It does not apply to another thread, such as one of `spawn_blocking`, to the builder of
    /// [`run_blocking`](crate::supervise::Supervisor::run_blocking), or to a blocking body.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(self) -> C::Output {
        self.block(None, false)
    }

    /// Blocks this thread until the wait ends, but at most for `timeout`. If the timeout expires,
    /// it returns the error `TimedOut` of the wait.
    ///
    /// The timeout is measured by [`Instant::now`], whatever the clock of the registry: a thread
    /// can park only by real time. [`timeout`](Self::timeout) takes a clock.
    ///
    /// With a timeout of zero, it only checks whether the condition holds. So this is permitted in
    /// async code, also in a poll of an async supervisor, where every other timeout returns the
    /// error `MustAwait` ([`wait_blocking`](Self::wait_blocking)).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # use std::time::Duration;
    /// assert!(registry.wait_ready(port).wait_blocking_timeout(Duration::from_millis(1)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_timeout(self, timeout: Duration) -> C::Output {
        // A deadline that `Instant` cannot represent is never reached.
        self.block(Instant::now().checked_add(timeout), timeout.is_zero())
    }

    /// Blocks this thread until the wait ends, but at most until `deadline`. After the deadline it
    /// returns the error `TimedOut` of the wait.
    ///
    /// The deadline is a time of [`Instant::now`], whatever the clock of the registry. With a
    /// deadline in the past, it only checks whether the condition holds. In a poll of an async
    /// supervisor it returns the error `MustAwait` ([`wait_blocking`](Self::wait_blocking)).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # use std::time::Instant;
    /// assert!(registry.wait_ready(port).wait_blocking_deadline(Instant::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_deadline(self, deadline: Instant) -> C::Output {
        self.block(Some(deadline), false)
    }

    fn block(mut self, deadline: Option<Instant>, only_checks: bool) -> C::Output {
        // Also if the condition holds already, so that the first test finds this call.
        if !only_checks && polls_supervisor() {
            return self.condition.must_await();
        }
        // If the condition holds already, the thread needs no waker.
        let first = if self.done { None } else { self.condition.check() };
        if let Some(output) = first {
            return output;
        }
        let start = deadline.map(|_| Instant::now());
        let elapsed = || start.map(|start| start.elapsed()).unwrap_or_default();
        block_until(&mut self, || deadline).unwrap_or_else(|| self.condition.timed_out(elapsed()))
    }
}

impl<C: Condition> Wait<C> {
    /// Waits in async code, but at most for `timeout`, measured by `clock`. If the timeout expires,
    /// it returns the error `TimedOut` of the wait.
    ///
    /// It is cancel-safe, as the wait itself.
    ///
    /// ```
    /// use mainstay::{error::{Unavailable, WaitReadyError}, supervise::SystemClock};
    /// use std::time::Duration;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # pollster::block_on(async {
    /// let timeout = Duration::from_millis(1);
    /// match registry.wait_ready(port).timeout(timeout, &SystemClock).await {
    ///     Err(WaitReadyError::TimedOut(missing)) => match missing.kind {
    ///         Unavailable::TimedOut { after, .. } => assert!(after >= timeout),
    ///         other => unreachable!("{other:?}"),
    ///     },
    ///     _ => unreachable!("no thread provides it"),
    /// }
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "supervise")]
    pub async fn timeout(
        mut self,
        timeout: Duration,
        clock: &dyn crate::clock::Clock,
    ) -> C::Output {
        let output = crate::clock::within(&mut self, timeout, clock).await;
        output.unwrap_or_else(|after| self.condition.timed_out(after))
    }

    /// Lets the next poll check the condition, although no slot has changed.
    #[cfg(feature = "supervise")]
    pub(crate) fn check_again(&mut self) {
        self.waiter.disarm();
    }

    /// Checks the condition. Registers nothing that would wake the caller later.
    #[cfg(feature = "supervise")]
    pub(crate) fn check_now(&mut self) -> Option<C::Output> {
        self.condition.check()
    }

    /// Polls `work` until it completes. Returns `None` if the condition holds before that: then
    /// `work` is not polled again.
    ///
    /// The condition is only checked while `work` is polled. The wait begins to listen when `work`
    /// is pending, because most work is done at its first poll.
    #[cfg(feature = "supervise")]
    pub(crate) fn unless_holds<F: Future>(self, work: Pin<&mut F>) -> UnlessHolds<'_, C, F> {
        UnlessHolds { wait: self, work }
    }

    fn end(&mut self) {
        self.waiter.disarm();
        if mem::take(&mut self.started) {
            self.condition.on_end(self.started_at);
        }
    }
}

impl<C: Condition> Future for Wait<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        if this.done {
            // Another check could begin a second attempt.
            return Poll::Pending;
        }
        loop {
            if !this.waiter.is_armed() {
                if let Some(output) = this.condition.check() {
                    this.done = true;
                    this.end();
                    return Poll::Ready(output);
                }
                if !this.started {
                    this.started = true;
                    this.started_at = this.condition.now_if_observed();
                    this.condition.on_start();
                }
                let slots = this.condition.slots();
                this.arm(slots);
                // The slot may have changed before the waiter bit was set. A change after that
                // wakes us.
                if let Some(output) = this.condition.check() {
                    this.done = true;
                    this.end();
                    return Poll::Ready(output);
                }
                if this.condition.slots() != slots {
                    // The slot has changed, and now the condition depends on another slot, at which
                    // we do not listen yet.
                    this.waiter.disarm();
                    continue;
                }
            }
            if this.waiter.poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl<C: Condition> Wait<C> {
    /// Listens at the slots, and sets their waiter bits. Listens to the log, too.
    fn arm(&mut self, slots: WaitSlots) {
        let store = self.condition.store();
        for slot in slots.iter() {
            // In this order: a thread that reads the bit must find the listener.
            self.waiter.listen(&store.service(slot).changed);
            store.slot(slot).state.set_waiters();
        }
        if self.condition.reads_stuck_log() {
            // event-listener makes listening and notifying sequentially consistent: either the
            // check that follows finds the entry, or the notification finds this listener.
            self.waiter.listen(&store.stuck.changed);
        }
    }
}

/// The future of [`Wait::unless_holds`].
#[cfg(feature = "supervise")]
pub(crate) struct UnlessHolds<'a, C: Condition, F> {
    wait: Wait<C>,
    work: Pin<&'a mut F>,
}

#[cfg(feature = "supervise")]
impl<C: Condition, F: Future> Future for UnlessHolds<'_, C, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { wait, work } = self.get_mut();
        if wait.check_now().is_some() {
            return Poll::Ready(None);
        }
        match work.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Pin::new(wait).poll(context).map(|_| None),
        }
    }
}

impl<C: Condition> Drop for Wait<C> {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;
    use crate::{numbers::ServiceIndex, registry::Registry};

    /// Depends on slot 0 at the first check, and on slot 1 at later checks.
    struct ChangesSlot<'a> {
        registry: &'a Registry,
        checks: u32,
    }

    impl Condition for ChangesSlot<'_> {
        type Output = ();

        fn check(&mut self) -> Option<()> {
            self.checks += 1;
            (self.checks > 4).then_some(())
        }

        fn slots(&self) -> WaitSlots {
            WaitSlots::of(ServiceIndex::new(u32::from(self.checks > 1)))
        }

        fn store(&self) -> &Store {
            self.registry.store()
        }

        fn timed_out(&self, _: Duration) {}
    }

    struct CountWakes(AtomicUsize);

    impl std::task::Wake for CountWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_slot_that_the_last_check_depends_on_wakes_the_wait() {
        let registry = Registry::with_capacity(2).unwrap();
        let [_, second] = ["first", "second"].map(|name| registry.register::<u8>(name).unwrap());
        let wakes = Arc::new(CountWakes(AtomicUsize::new(0)));
        let mut wait = Wait::new(ChangesSlot { registry: &registry, checks: 0 });
        let waker = Arc::clone(&wakes).into();
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
        registry.store().wake(second.index());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
