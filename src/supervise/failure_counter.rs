//! Counts the failures of one service, and decides when it is built again, or that its supervisor
//! gives up.

use std::{
    mem,
    time::{Duration, Instant},
};

use super::RestartPolicy;
use crate::{numbers::ServiceIndex, registry::FailureWindow, store::Received};

/// What a supervisor does after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Build again after this delay, which is a backoff or the debounce delay.
    RetryAfter(Duration),
    /// Too many failures: stay down until a restart.
    GiveUp,
}

/// Counts the failures of one service, and applies the policy to them.
pub(crate) struct FailureCounter {
    policy: RestartPolicy,
    /// The counted failures since the last stable instance or reset. Determines the backoff.
    count: u32,
    /// Those within the window of `max_failures`. Without a window, they are counted in a row.
    recent: FailureWindow,
    /// The supervisor has given up, and tries the service once: one failure more is too many.
    tries_once: bool,
    up_since: Option<Instant>,
    /// The time of the build that has followed the last planned failure.
    planned_at: Option<Instant>,
    /// The instance of another service with which the last failure was excused although the error
    /// says that the service was not available.
    excused_with: Option<(ServiceIndex, Received)>,
}

impl FailureCounter {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        let window = policy.max_failures.filter(|(_, window)| !window.is_zero());
        Self {
            policy,
            count: 0,
            recent: FailureWindow::new(window),
            tries_once: false,
            up_since: None,
            planned_at: None,
            excused_with: None,
        }
    }

    pub(crate) fn policy(&self) -> &RestartPolicy {
        &self.policy
    }

    pub(crate) fn failures(&self) -> u32 {
        self.count
    }

    /// Records that an instance was published.
    pub(crate) fn record_up(&mut self, now: Instant) {
        self.up_since = Some(now);
        self.excused_with = None;
    }

    /// Records that the service is down, for any reason. Returns whether its instance was stable,
    /// in which case the counter is reset.
    pub(super) fn record_down(&mut self, now: Instant) -> bool {
        let up = self.up_since.take().map(|since| now.saturating_duration_since(since));
        let was_stable = up.is_some_and(|up| up >= self.policy.reset_after);
        if was_stable {
            (self.count, self.tries_once) = (0, false);
        }
        was_stable
    }

    /// Records a failure that is not counted against this service (S1).
    pub(crate) fn ignore_failure(&mut self, now: Instant) -> Decision {
        self.record_down(now);
        Decision::RetryAfter(self.policy.debounce)
    }

    /// Records a planned failure, which is not counted. If each instance, or each build, fails as
    /// planned at once, the service is still built only once per first backoff.
    pub(super) fn ignore_planned_failure(&mut self, now: Instant) -> Decision {
        self.record_down(now);
        let next = self.planned_at.and_then(|last| last.checked_add(self.policy.first));
        let delay = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        // The time of the next build.
        self.planned_at = now.checked_add(delay);
        Decision::RetryAfter(delay.max(self.policy.debounce))
    }

    /// Returns whether a failure is excused because another service was not available, although
    /// this instance of it is available now: only if it was not excused with this one before.
    pub(super) fn excuse_with(&mut self, service: ServiceIndex, instance: Received) -> bool {
        let excused = Some((service, instance));
        mem::replace(&mut self.excused_with, excused) != excused
    }

    /// Records a failure that is counted against this service (S1).
    pub(crate) fn count_failure(&mut self, now: Instant) -> Decision {
        let was_stable = self.record_down(now);
        // Checked first: the window also counts the failures of stable instances.
        if self.recent.add(now) || self.tries_once {
            return Decision::GiveUp;
        }
        // Most failures after a stable time are a reload, or a connection that was lost once. So no
        // backoff follows, and the failure is not added to the counter.
        if was_stable {
            return Decision::RetryAfter(self.policy.debounce);
        }
        self.count = self.count.saturating_add(1);
        // The limit for failures in a row.
        if matches!(self.policy.max_failures, Some((limit, Duration::ZERO)) if self.count > limit) {
            return Decision::GiveUp;
        }
        Decision::RetryAfter(self.policy.backoff_after(self.count).max(self.policy.debounce))
    }

    /// Records that the service is built once, although the supervisor has given up.
    pub(super) fn try_once(&mut self) {
        self.tries_once = true;
    }

    /// Forgets all failures.
    pub(crate) fn reset(&mut self) {
        (self.count, self.tries_once) = (0, false);
        self.recent.clear();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn exact() -> RestartPolicy {
        RestartPolicy::default().backoff(ms(100), ms(1_000)).without_jitter()
    }

    #[test]
    fn backoffs_grow_up_to_a_maximum_and_start_again_after_a_stable_instance() {
        let mut counter = FailureCounter::new(exact().reset_after(ms(500)));
        let mut now = Instant::now();
        for backoff in [100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(backoff)));
        }
        assert_eq!(counter.failures(), 6);
        // Up for less than `reset_after`.
        counter.record_up(now);
        now += ms(499);
        assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(1_000)));
        counter.record_up(now);
        now += ms(500);
        assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(0)), "stable");
        assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(100)));
    }

    #[test]
    fn a_failure_of_a_dependency_is_not_counted() {
        let mut counter = FailureCounter::new(exact().max_failures(1, ms(1_000)).debounce(ms(7)));
        let now = Instant::now();
        for _ in 0..10 {
            counter.record_up(now);
            assert_eq!(counter.ignore_failure(now), Decision::RetryAfter(ms(7)));
        }
        assert_eq!(counter.failures(), 0);
        assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(100)));
        assert_eq!(counter.count_failure(now), Decision::GiveUp);
    }

    #[test]
    fn one_failure_more_than_the_limit_within_the_window_gives_up() {
        let mut counter = FailureCounter::new(exact().max_failures(2, ms(1_000)));
        let mut now = Instant::now();
        for _ in 0..10 {
            assert!(matches!(counter.count_failure(now), Decision::RetryAfter(_)));
            now += ms(500);
        }
        assert!(matches!(counter.count_failure(now), Decision::RetryAfter(_)));
        assert_eq!(counter.count_failure(now), Decision::GiveUp);
        counter.reset();
        assert_eq!(counter.count_failure(now), Decision::RetryAfter(ms(100)));
    }

    #[test]
    fn jitter_shortens_a_backoff_by_at_most_half() {
        for _ in 0..100 {
            let mut counter =
                FailureCounter::new(RestartPolicy::default().backoff(ms(100), ms(300)));
            let now = Instant::now();
            for longest in [100, 200, 300, 300] {
                let Decision::RetryAfter(backoff) = counter.count_failure(now) else {
                    panic!("there is no limit")
                };
                assert!(backoff >= ms(longest / 2) && backoff <= ms(longest), "{backoff:?}");
            }
        }
    }

    #[test]
    fn extreme_values_do_not_panic() {
        for factor in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
            let policy =
                RestartPolicy::default().factor(factor).backoff(Duration::MAX, Duration::MAX);
            let mut counter = FailureCounter::new(policy.max_failures(0, Duration::MAX));
            assert_eq!(counter.count_failure(Instant::now()), Decision::GiveUp);
            let mut counter = FailureCounter::new(exact().factor(factor));
            for _ in 0..5 {
                assert!(matches!(counter.count_failure(Instant::now()), Decision::RetryAfter(_)));
            }
        }
        for most in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            let policy = RestartPolicy::default().spread(most);
            assert!((0..100).all(|_| policy.part_of_spread() <= most));
        }
        // The greatest part that there is.
        assert!(Duration::MAX.mul_f64(1.0 - f64::EPSILON / 2.0) <= Duration::MAX);
    }
}
