//! Clocks: the present time, and futures that complete at a given time.

mod shield;
mod wake_source;

use std::{future::Future, pin::Pin, time::Instant};

pub(crate) use self::{
    shield::ShieldedSleep,
    wake_source::{WakeSource, block_on, block_on_until, within},
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
    ///
    /// A waker that supervisors, shutdowns and [`Wait::timeout`](crate::wait::Wait::timeout) pass
    /// to this future does not panic when it is called, cloned or dropped: it catches the panic of
    /// the task's own waker. The futures of the clocks of this crate do the same with the waker of
    /// any caller. The task's waker still runs on the thread that wakes the future: if it blocks
    /// this thread, it delays the other futures that this thread wakes.
    fn sleep_until(&self, deadline: Instant) -> Sleep;

    /// Returns whether the times of this clock are those of [`Instant::now`] on this thread.
    ///
    /// If so, [`Supervisor::run_blocking`](crate::supervise::Supervisor::run_blocking) and
    /// [`Registry::shutdown_blocking`](crate::Registry::shutdown_blocking) park their thread until
    /// the deadline, and do not call `sleep_until`. If not, they poll the future of `sleep_until`
    /// on their thread. They ask before each sleep and after each wake-up: the answer may change.
    fn is_real(&self) -> bool {
        false
    }
}

/// The system's monotonic clock, for any executor and for plain threads. The default.
///
/// A blocking supervisor or shutdown parks its thread. Futures are woken by a timer thread, one for
/// the whole process: [futures-timer](https://docs.rs/futures-timer) starts it when the first
/// future sleeps. A waker that panics on this thread is caught; the panic hook reports it.
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
        // A panic on the timer thread would end all timers of the process.
        Box::pin(ShieldedSleep::new(Box::pin(async move {
            // A loop, as the delay may end a little early.
            while let Some(left) = left(deadline) {
                futures_timer::Delay::new(left).await;
            }
        })))
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
/// The runtime of a future that sleeps by this clock must have an enabled timer. A future whose
/// first poll is outside of a runtime sleeps by the [`SystemClock`], and a blocking supervisor or
/// shutdown parks its thread: both need no runtime.
///
/// # Paused time
///
/// A test can [pause](https://docs.rs/tokio/latest/tokio/time/fn.pause.html) the time of its
/// runtime. Then this clock is paused, too, on every thread of that runtime, including those of
/// `spawn_blocking`. On all other threads it is the clock of the system.
///
/// [`is_real`](Clock::is_real) returns `false` on a thread whose runtime is paused, so a blocking
/// supervisor there sleeps until the test has advanced the time. It also returns `false` after the
/// time was resumed, because from then on it differs from the time of the system. tokio cannot be
/// asked whether its time is paused, so this clock compares the two times. If the time is paused
/// while a thread is parked, the thread notices this when it is woken, or at its deadline. So pause
/// the time before the first blocking call.
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
        // The timer of tokio is created in the first poll, because the caller of this method may be
        // outside of a runtime. A panic of a waker would end the thread that drives the runtime.
        Box::pin(ShieldedSleep::new(Box::pin(async move {
            match tokio::runtime::Handle::try_current() {
                Ok(_) => tokio::time::sleep_until(deadline.into()).await,
                Err(_) => SystemClock.sleep_until(deadline).await,
            }
        })))
    }

    fn is_real(&self) -> bool {
        // Real time is between two readings of the clock of the system. Paused time is before them,
        // or after them if it was advanced. If it is between them by chance, a thread parks for one
        // sleep, and asks again.
        let before = Instant::now();
        let now = self.now();
        before <= now && now <= Instant::now()
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
        // async-io drops wakers under a lock, which a panic would poison for all timers.
        Box::pin(ShieldedSleep::new(Box::pin(async move {
            async_io::Timer::at(deadline).await;
        })))
    }

    fn is_real(&self) -> bool {
        true
    }
}
