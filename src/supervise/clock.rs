//! Time, as supervision sees it: what the hour is, and to be woken at another.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    time::Instant,
};

/// A wait for a moment, as a [`Clock`] gives it.
///
/// ```
/// use mainstay::Sleep;
///
/// let at_once: Sleep = Box::pin(std::future::ready(()));
/// pollster::block_on(at_once);
/// ```
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where supervision has its time from: one for a registry ([`Builder::clock`](crate::Builder::clock)).
///
/// Without one it is the [`SystemClock`], which needs no runtime. One that belongs to your runtime spares a
/// thread; one that is virtual makes a test of an hour take no time.
///
/// ```
/// use mainstay::{Clock, Sleep, SystemClock};
/// use std::time::Instant;
///
/// /// Twice as fast as it should be.
/// struct Hurried(Instant);
///
/// impl Clock for Hurried {
///     fn now(&self) -> Instant {
///         self.0 + self.0.elapsed() * 2
///     }
///
///     fn sleep_until(&self, deadline: Instant) -> Sleep {
///         SystemClock.sleep_until(self.0 + deadline.saturating_duration_since(self.0) / 2)
///     }
/// }
///
/// let registry = mainstay::Registry::builder(8)?.clock(Hurried(Instant::now())).build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Clock: Send + Sync + 'static {
    /// The present moment. It never goes back.
    fn now(&self) -> Instant;

    /// Ends once `now` has come to the deadline. May be dropped at any time, and polled by another task than
    /// before.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// Whether its moments are those of [`Instant::now`]: a thread that is supervised then just sleeps, and asks
    /// for no `sleep_until`.
    fn is_real(&self) -> bool {
        false
    }
}

/// The system's monotonic clock, for any executor and for plain threads.
///
/// A plain thread sleeps by itself. Futures are woken by a timer thread, one for the whole process, that
/// [futures-timer](https://docs.rs/futures-timer) starts when the first of them sleeps.
///
/// ```
/// use mainstay::{Clock, SystemClock};
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
            // It may wake a little early.
            while let Some(left) = left(deadline) {
                futures_timer::Delay::new(left).await;
            }
        })
    }

    fn is_real(&self) -> bool {
        true
    }
}

fn left(deadline: Instant) -> Option<std::time::Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    (!left.is_zero()).then_some(left)
}

/// tokio's clock. Futures that sleep by it must be polled in a tokio runtime whose time is enabled; plain threads
/// need none. Where a test has [paused](https://docs.rs/tokio/latest/tokio/time/fn.pause.html) it, it stands.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay::{Clock, TokioClock};
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
        // Not before it is polled: there may be no runtime here.
        Box::pin(async move { tokio::time::sleep_until(deadline.into()).await })
    }

    fn is_real(&self) -> bool {
        true
    }
}

/// The clock of [async-io](https://docs.rs/async-io), which smol and async-std use.
///
/// ```
/// use mainstay::{Clock, SmolClock};
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

/// A wait that has no end: for a deadline that no clock can show.
pub(crate) fn for_ever() -> Sleep {
    Box::pin(poll_fn(|_| std::task::Poll::Pending))
}
