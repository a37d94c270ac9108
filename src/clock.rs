//! Clocks: the present time, and futures that complete at a given time.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Instant,
};

/// A future that completes at a given time; returned by [`Clock::sleep_until`].
///
/// ```
/// use mainstay::supervise::Sleep;
///
/// let sleep: Sleep = Box::pin(std::future::ready(()));
/// pollster::block_on(sleep);
/// ```
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The source of time of a registry, for backoffs, timeouts, grace periods and shutdowns.
///
/// Set it by [`RegistryBuilder::clock`](crate::RegistryBuilder::clock). The default is the
/// [`SystemClock`], which needs no runtime. The clock of your async runtime (`TokioClock`,
/// `SmolClock`) saves its timer thread; a virtual clock (`test_kit::VirtualClock`) makes a test of
/// an hour take no real time.
///
/// ```
/// use mainstay::supervise::{Clock, Sleep, SystemClock};
/// use std::time::Instant;
///
/// /// Runs twice as fast as the system's clock.
/// struct DoubleSpeed(Instant);
///
/// impl Clock for DoubleSpeed {
///     fn now(&self) -> Instant {
///         self.0 + self.0.elapsed() * 2
///     }
///
///     fn sleep_until(&self, deadline: Instant) -> Sleep {
///         SystemClock.sleep_until(self.0 + deadline.saturating_duration_since(self.0) / 2)
///     }
/// }
///
/// let registry = mainstay::Registry::builder(8)?.clock(DoubleSpeed(Instant::now())).build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Clock: Send + Sync + 'static {
    /// Returns the present time. It must never decrease.
    fn now(&self) -> Instant;

    /// Returns a future that completes once `now` has reached the deadline.
    ///
    /// Callers may drop it at any time, and poll it from different tasks.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// Returns whether the times of this clock are those of [`Instant::now`].
    ///
    /// If so, a supervisor that runs on a thread of its own parks this thread until the deadline,
    /// and does not call `sleep_until`.
    fn is_real(&self) -> bool {
        false
    }
}

/// The system's monotonic clock, for any executor and for plain threads. The default.
///
/// A supervisor on a plain thread parks its thread. Futures are woken by a timer thread, one for
/// the whole process: [futures-timer](https://docs.rs/futures-timer) starts it when the first
/// future sleeps.
///
/// ```
/// use mainstay::supervise::{Clock, SystemClock};
/// use std::time::Duration;
///
/// let soon = SystemClock.now() + Duration::from_millis(1);
/// pollster::block_on(SystemClock.sleep_until(soon));
/// assert!(SystemClock.now() >= soon);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(async move {
            // A loop, as the delay may end a little early.
            while let Some(left) = left(deadline) {
                futures_timer::Delay::new(left).await;
            }
        })
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// Returns the time until the deadline, or `None` if it has been reached.
fn left(deadline: Instant) -> Option<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// The clock of tokio.
///
/// Futures that sleep by it must be polled in a tokio runtime with an enabled timer; plain threads
/// need no runtime. If a test has [paused](https://docs.rs/tokio/latest/tokio/time/fn.pause.html)
/// the time of its runtime, this clock is paused within that runtime, too.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay::supervise::{Clock, TokioClock};
/// use std::time::Duration;
///
/// let registry = mainstay::Registry::builder(8)?.clock(TokioClock).build();
/// TokioClock.sleep_until(TokioClock.now() + Duration::from_millis(1)).await;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        // tokio's timer is created in the first poll, because the caller may be outside a runtime.
        Box::pin(async move { tokio::time::sleep_until(deadline.into()).await })
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// The clock of [async-io](https://docs.rs/async-io), for smol, async-std and other users of it.
///
/// ```
/// use mainstay::supervise::{Clock, SmolClock};
/// use std::time::Duration;
///
/// let registry = mainstay::Registry::builder(8)?.clock(SmolClock).build();
/// smol::block_on(SmolClock.sleep_until(SmolClock.now() + Duration::from_millis(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "smol")]
#[derive(Debug, Clone, Copy, Default)]
pub struct SmolClock;

#[cfg(feature = "smol")]
impl Clock for SmolClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(async move {
            async_io::Timer::at(deadline).await;
        })
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// Returns a future that never completes, for a deadline beyond the range of `Instant`.
pub(crate) fn never() -> Sleep {
    Box::pin(poll_fn(|_| std::task::Poll::Pending))
}
