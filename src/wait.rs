//! One wait: a future on any executor, or a blocking call on a plain thread.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use crate::{
    store::{Store, Waiter},
    sync::block_until,
};

pub(crate) mod sealed {
    use super::{Duration, Store};

    /// What is waited for.
    pub trait Condition: Unpin {
        type Output;

        /// Looks once. Where it gives nothing, a change of one of the slots will make it worth another look.
        fn look(&mut self) -> Option<Self::Output>;

        /// The slots whose changes matter after the last look: one, or two.
        fn slots(&self) -> (u32, Option<u32>);

        #[allow(private_interfaces)]
        fn store(&self) -> &Store;

        fn timed_out(&self, after: Duration) -> Self::Output;

        /// Whether somebody is told how long it takes.
        fn is_observed(&self) -> bool {
            false
        }

        /// Called once, when the first look gave nothing.
        fn begins(&mut self) {}

        /// Called once after `begins`, when the wait ends in whatever way.
        fn ends(&mut self, _took: Duration) {}
    }
}

use sealed::Condition;

/// A wait that has not ended: await it on any executor, or block a thread with [`wait`](Self::wait).
///
/// Nothing happens before it is polled; polled again after it has ended, it stays pending. It may be dropped at
/// any point; then it was never there, except that a dependency that an attempt has begun to wait for stays one
/// until that service's next publication. Dropping the wait for an attempt to begin never leaves one begun.
///
/// Waking up goes through event-listener: the thread that makes the change holds a short lock of the slot's
/// wait list while it marks the waiters, and calls their wakers after that. A waker that panics is reported by
/// the panic hook and harms nobody else; one that runs its task in place is fine.
///
/// ```
/// use mainstay::Registry;
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert!(registry.wait_ready(port).wait_timeout(Duration::from_millis(1)).is_err());
///
/// let waiter = std::thread::spawn({
///     let registry = registry.clone();
///     move || registry.wait_ready(port).wait().map(|port| **port)
/// });
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// assert_eq!(waiter.join().unwrap()?, 80);
/// // The same from async code, on whatever executor there is.
/// assert_eq!(**pollster::block_on(registry.wait_ready(port))?, 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is waited for unless it is awaited or `wait` is called"]
pub struct Wait<C: Condition> {
    condition: C,
    waiter: Waiter,
    /// The first look gave nothing, and it has not ended.
    begun: bool,
    /// Since when, where somebody is told.
    since: Option<Instant>,
    done: bool,
}

impl<C: Condition> Wait<C> {
    pub(crate) fn new(condition: C) -> Self {
        Self { condition, waiter: Waiter::default(), begun: false, since: None, done: false }
    }

    /// Blocks this thread until the wait ends.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait(self) -> C::Output {
        self.block(None)
    }

    /// Blocks this thread until the wait ends, or for this long; then the output is its error `TimedOut`.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # use std::time::Duration;
    /// assert!(registry.wait_ready(port).wait_timeout(Duration::from_millis(1)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_timeout(self, timeout: Duration) -> C::Output {
        // A time that no clock can show is no limit.
        self.block(Instant::now().checked_add(timeout))
    }

    /// Blocks this thread until the wait ends or this moment has come; then the output is its error
    /// `TimedOut`. It looks once, even where the moment has passed.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # use std::time::Instant;
    /// assert!(registry.wait_ready(port).wait_deadline(Instant::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_deadline(self, deadline: Instant) -> C::Output {
        self.block(Some(deadline))
    }

    /// Waits, in async code, until the wait ends, or for this long by that clock; then the output is its error
    /// `TimedOut`.
    ///
    /// ```
    /// # #[cfg(feature = "test-kit")] {
    /// use mainstay::VirtualClock;
    /// use std::time::Duration;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let clock = VirtualClock::new();
    /// let hour = Duration::from_secs(3600);
    /// let waits = std::thread::spawn({
    ///     let clock = clock.clone();
    ///     move || pollster::block_on(registry.wait_ready(port).within(hour, &clock)).is_err()
    /// });
    /// while clock.advance_to_next().is_none() {
    ///     std::thread::yield_now();
    /// }
    /// assert!(waits.join().unwrap());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "supervise")]
    pub async fn within(mut self, timeout: Duration, clock: &dyn crate::Clock) -> C::Output {
        let begun = clock.now();
        // A time that no clock can show is no limit.
        let Some(deadline) = begun.checked_add(timeout) else { return self.await };
        let ended = async { Some((&mut self).await) };
        let late = async {
            clock.sleep_until(deadline).await;
            None
        };
        match futures_lite::future::or(ended, late).await {
            Some(output) => output,
            None => self.condition.timed_out(clock.now().saturating_duration_since(begun)),
        }
    }

    fn block(mut self, deadline: Option<Instant>) -> C::Output {
        // An answer that is there needs nothing to be woken by.
        let first = if self.done { None } else { self.condition.look() };
        if let Some(output) = first {
            return output;
        }
        let begun = deadline.map(|_| Instant::now());
        let waited = || begun.map(|begun| begun.elapsed()).unwrap_or_default();
        block_until(&mut self, || deadline).unwrap_or_else(|| self.condition.timed_out(waited()))
    }

    fn end(&mut self) {
        self.waiter.disarm();
        if mem::take(&mut self.begun) {
            let took = self.since.map(|since| since.elapsed()).unwrap_or_default();
            self.condition.ends(took);
        }
    }
}

impl<C: Condition> Future for Wait<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        if this.done {
            // A second look could begin a second attempt.
            return Poll::Pending;
        }
        loop {
            if !this.waiter.is_armed() {
                if let Some(output) = this.condition.look() {
                    this.done = true;
                    this.end();
                    return Poll::Ready(output);
                }
                if !this.begun {
                    this.begun = true;
                    this.since = this.condition.is_observed().then(Instant::now);
                    this.condition.begins();
                }
                let slots = this.condition.slots();
                this.arm(slots);
                // The slot may have moved before it knew of us.
                if let Some(output) = this.condition.look() {
                    this.done = true;
                    this.end();
                    return Poll::Ready(output);
                }
                if this.condition.slots() != slots {
                    // It has, and another one matters now, which does not know of us yet.
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
    fn arm(&mut self, (first, second): (u32, Option<u32>)) {
        let store = self.condition.store();
        for slot in [Some(first), second].into_iter().flatten() {
            self.waiter.listen(&store.service(slot).changed);
            store.slot(slot).state.announce();
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
    use crate::registry::Registry;

    /// Waits for a change of slot 0, until a look finds that it is slot 1 that matters.
    struct Moves<'a> {
        registry: &'a Registry,
        looks: u32,
    }

    impl Condition for Moves<'_> {
        type Output = ();

        fn look(&mut self) -> Option<()> {
            self.looks += 1;
            (self.looks > 4).then_some(())
        }

        fn slots(&self) -> (u32, Option<u32>) {
            (u32::from(self.looks > 1), None)
        }

        fn store(&self) -> &Store {
            self.registry.store()
        }

        fn timed_out(&self, _: Duration) {}
    }

    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn another_slot_matters_once_it_has_announced_itself() {
        let registry = Registry::with_capacity(2).unwrap();
        let [_, second] = ["first", "second"].map(|name| registry.register::<u8>(name).unwrap());
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let mut wait = Wait::new(Moves { registry: &registry, looks: 0 });
        let waker = Arc::clone(&wakes).into();
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
        registry.store().wake(second.index());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }
}
