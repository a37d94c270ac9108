//! How a supervisor or a shutdown sleeps until a time: by a future of the clock, or by parking the
//! thread that it blocks.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{Clock, ShieldedSleep};
use crate::sync::{Mutex, block_until, lock};

/// What wakes a future that sleeps until a time.
pub(crate) enum WakeSource {
    /// The futures of the clock.
    Clock,
    /// The thread that [`block_on`] blocks, if the clock is real. It parks until the time that is
    /// stored here: the earliest one at which a part of the future must be polled again.
    Thread(Arc<Mutex<Option<Instant>>>),
}

impl WakeSource {
    /// Sleeps until the clock has reached the deadline. Never completes if there is none.
    pub(crate) async fn sleep_until(&self, clock: &dyn Clock, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return pending().await };
        let mut sleep = None;
        poll_fn(|context| {
            match self {
                // Asked in each poll, because the time of a runtime may be paused between them. The
                // times of a clock that is not real mean nothing to a parked thread.
                Self::Thread(wake_at) if clock.is_real() => {
                    if clock.now() >= deadline {
                        return Poll::Ready(());
                    }
                    // Several parts of the future may sleep at the same time: the earliest one
                    // counts.
                    let mut wake_at = lock(wake_at);
                    *wake_at = Some(wake_at.map_or(deadline, |wake_at| wake_at.min(deadline)));
                    Poll::Pending
                }
                // The clock may be one of the user, and its timer may be shared with others.
                _ => {
                    let sleep = sleep
                        .get_or_insert_with(|| ShieldedSleep::new(clock.sleep_until(deadline)));
                    Pin::new(sleep).poll(context)
                }
            }
        })
        .await;
    }
}

/// Blocks this thread until the future completes. The future must sleep by the wake source with
/// which it is created.
pub(crate) fn block_on<F: Future>(future: impl FnOnce(WakeSource) -> F) -> F::Output {
    match block_on_until(None, future) {
        Some(output) => output,
        None => unreachable!("there is no deadline"),
    }
}

/// As [`block_on`], but returns `None` at the deadline, which is a time of [`Instant::now`]. Polls
/// at least once.
pub(crate) fn block_on_until<F: Future>(
    deadline: Option<Instant>,
    future: impl FnOnce(WakeSource) -> F,
) -> Option<F::Output> {
    let wake_at = Arc::<Mutex<Option<Instant>>>::default();
    let mut future = pin!(future(WakeSource::Thread(Arc::clone(&wake_at))));
    loop {
        // `take`, because each poll stores anew the time at which the next poll is due.
        let next = || [lock(&wake_at).take(), deadline].into_iter().flatten().min();
        let output = block_until(&mut future, next);
        if output.is_some() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return output;
        }
    }
}

/// Waits for the future, but at most for `timeout` by the clock. Returns the duration of the wait
/// if the timeout expires.
pub(crate) async fn within<F: Future + Unpin>(
    future: &mut F,
    timeout: Duration,
    clock: &dyn Clock,
) -> Result<F::Output, Duration> {
    let start = clock.now();
    // A deadline that `Instant` cannot represent is never reached.
    let Some(deadline) = start.checked_add(timeout) else { return Ok(future.await) };
    let output = async { Some(future.await) };
    let expired = async {
        // The clock may be one of the user, and its timer may be shared with others.
        ShieldedSleep::new(clock.sleep_until(deadline)).await;
        None
    };
    let output = or(output, expired).await;
    output.ok_or_else(|| clock.now().saturating_duration_since(start))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{super::SystemClock, *};

    #[test]
    fn a_thread_wakes_at_the_earliest_of_its_deadlines() {
        let now = Instant::now();
        let [soon, late] = [now + Duration::from_millis(5), now + Duration::from_secs(3_600)];
        for deadlines in [[soon, late], [late, soon]] {
            let woken = block_on(async |wake_source| {
                let sleep = async |deadline| {
                    wake_source.sleep_until(&SystemClock, Some(deadline)).await;
                    deadline
                };
                or(sleep(deadlines[0]), sleep(deadlines[1])).await
            });
            assert_eq!(woken, soon);
        }
    }
}
