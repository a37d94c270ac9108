//! When a service is tried again, and when no more.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How a supervised service is restarted.
///
/// A service is *charged* for its own failures only: a build that failed, panicked or took too long, and an
/// instance that somebody failed or reported. One that goes down because something that it depends on has failed
/// pays nothing, and is built again at once.
///
/// - An instance that was up for the [stable time](Self::stable_after) is built again at once when it fails, and
///   all is forgotten.
/// - Any other charge is followed by a rest: at first short, then longer by a factor each time, up to a limit.
///   Of each, up to half is left out by chance, so that those who failed together do not come back together. A rest
///   ends early where something that the last build has used fails: what that build has failed for may be gone.
/// - Where there were [too many](Self::at_most) charges in a window of time, the service is *broken*: it stays
///   down until [`Registry::reset`](crate::Registry::reset).
///
/// By default: rests of 100 ms to 30 s that double, with chance; stable after 10 s; no limit to charges, so that a
/// server whose database is away for the night is there in the morning; no limit to a build.
///
/// ```
/// use mainstay::Restart;
/// use std::time::Duration;
///
/// let restart = Restart::default()
///     .backoff(Duration::from_millis(50), Duration::from_secs(5))
///     .at_most(20, Duration::from_secs(60))
///     .build_timeout(Duration::from_secs(10));
/// # let _ = restart;
/// ```
#[derive(Debug, Clone)]
pub struct Restart {
    first: Duration,
    max: Duration,
    factor: f32,
    jitter: bool,
    stable_after: Duration,
    at_most: Option<(u32, Duration)>,
    pub(crate) build_timeout: Option<Duration>,
    pub(crate) debounce: Duration,
    pub(crate) drain_within: Option<Duration>,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: true,
            stable_after: Duration::from_secs(10),
            at_most: None,
            build_timeout: None,
            debounce: Duration::ZERO,
            drain_within: None,
        }
    }
}

impl Restart {
    /// The first rest, and the longest.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// // 50 ms, 100 ms, 200 ms, ..., 5 s, 5 s, ...
    /// let restart = Restart::default().backoff(Duration::from_millis(50), Duration::from_secs(5));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, ..self }
    }

    /// By how much each rest is longer than the one before. What is no number, or below 1, counts as 1.
    ///
    /// ```
    /// use mainstay::Restart;
    ///
    /// // 100 ms, 300 ms, 900 ms, ...
    /// let restart = Restart::default().factor(3.0);
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn factor(self, factor: f32) -> Self {
        // A NaN, too.
        Self { factor: factor.max(1.0), ..self }
    }

    /// Rests of exactly the length that the factor gives. For tests; in a server, what fell together would come
    /// back together, and fall again.
    ///
    /// ```
    /// use mainstay::Restart;
    ///
    /// let restart = Restart::default().without_jitter();
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self { jitter: false, ..self }
    }

    /// Before the next build, waits until the last reader of the old instance has let go of it, for so long at the most:
    /// for what must not be there twice, such as a port, or a file that is locked. Not by default: the next instance is
    /// built while requests that have begun with the old one end with it.
    ///
    /// The time counts as rest. What is left after it is told by [`Build::holders`](crate::Build::holders). A
    /// [cached reader](crate::Cached) that idles holds on until it looks again, or is released.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// let restart = Restart::default().drain_within(Duration::from_secs(10));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn drain_within(self, time: Duration) -> Self {
        Self { drain_within: Some(time), ..self }
    }

    /// How long an instance must have been up for its failure to be the first again.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// // What holds for a minute is in order.
    /// let restart = Restart::default().stable_after(Duration::from_secs(60));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn stable_after(self, stable_after: Duration) -> Self {
        Self { stable_after, ..self }
    }

    /// So many charges within this time are borne; with one more the service is broken.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// // The sixth failure within a minute breaks it.
    /// let restart = Restart::default().at_most(5, Duration::from_secs(60));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn at_most(self, charges: u32, within: Duration) -> Self {
        Self { at_most: Some((charges, within)), ..self }
    }

    /// How long one build may take, apart from the time in which it [waits](crate::Build::wait_for) for what it is built
    /// from. An async builder is dropped then; what a blocking one gives later is dropped.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// let restart = Restart::default().build_timeout(Duration::from_secs(10));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn build_timeout(self, after: Duration) -> Self {
        Self { build_timeout: Some(after), ..self }
    }

    /// Waits for so long before each build that follows a failure: of all the failures that come within that time
    /// one restart is made, as failing what is down changes nothing. Off by default: it delays every recovery.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// // A file that is written in several steps is read once.
    /// let restart = Restart::default().debounce(Duration::from_millis(50));
    /// # let _ = restart;
    /// ```
    #[must_use]
    pub fn debounce(self, debounce: Duration) -> Self {
        Self { debounce, ..self }
    }

    /// How long to rest after so many charges, one at least.
    fn rest(&self, charges: u32) -> Duration {
        let longer = f64::from(self.factor).powf(f64::from(charges - 1));
        // What is too long to be told, or no number, as nothing by an infinite factor, is longer than the longest.
        let rest = Duration::try_from_secs_f64(self.first.as_secs_f64() * longer);
        let rest = rest.map_or(self.max, |rest| rest.min(self.max));
        if self.jitter { rest - rest.mul_f64(fastrand::f64() / 2.0) } else { rest }
    }
}

/// What is to be done after a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Build again, after this rest.
    Again(Duration),
    Broken,
}

/// What one service has been charged with.
pub(crate) struct Charges {
    restart: Restart,
    /// Since it was last stable.
    count: u32,
    /// Within the window, if there is one.
    recent: VecDeque<Instant>,
    up_since: Option<Instant>,
}

impl Charges {
    pub(crate) fn new(restart: Restart) -> Self {
        Self { restart, count: 0, recent: VecDeque::new(), up_since: None }
    }

    pub(crate) fn restart(&self) -> &Restart {
        &self.restart
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    pub(crate) fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// It went down, for whatever reason. True where it had been stable.
    fn down(&mut self, now: Instant) -> bool {
        let up = self.up_since.take().map(|since| now.saturating_duration_since(since));
        let stable = up.is_some_and(|up| up >= self.restart.stable_after);
        if stable {
            self.count = 0;
        }
        stable
    }

    /// It went down with what it depends on.
    pub(crate) fn spare(&mut self, now: Instant) -> Verdict {
        self.down(now);
        Verdict::Again(self.restart.debounce)
    }

    /// It failed by itself.
    pub(crate) fn charge(&mut self, now: Instant) -> Verdict {
        let stable = self.down(now);
        if self.is_too_much(now) {
            return Verdict::Broken;
        }
        if stable {
            return Verdict::Again(self.restart.debounce);
        }
        self.count = self.count.saturating_add(1);
        Verdict::Again(self.restart.rest(self.count).max(self.restart.debounce))
    }

    fn is_too_much(&mut self, now: Instant) -> bool {
        let Some((charges, within)) = self.restart.at_most else { return false };
        while self.recent.front().is_some_and(|&at| now.saturating_duration_since(at) >= within) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() > charges as usize
    }

    /// As if nothing had happened.
    pub(crate) fn forgive(&mut self) {
        self.count = 0;
        self.recent.clear();
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn exact() -> Restart {
        Restart::default().backoff(ms(100), ms(1_000)).without_jitter()
    }

    #[test]
    fn rests_grow_up_to_a_limit_and_begin_anew_after_a_stable_time() {
        let mut charges = Charges::new(exact().stable_after(ms(500)));
        let mut now = Instant::now();
        for rest in [100, 200, 400, 800, 1_000, 1_000] {
            assert_eq!(charges.charge(now), Verdict::Again(ms(rest)));
        }
        assert_eq!(charges.count(), 6);
        // Up, but not for long.
        charges.up(now);
        now += ms(499);
        assert_eq!(charges.charge(now), Verdict::Again(ms(1_000)));
        charges.up(now);
        now += ms(500);
        assert_eq!(charges.charge(now), Verdict::Again(ms(0)), "it was stable");
        assert_eq!(charges.charge(now), Verdict::Again(ms(100)));
    }

    #[test]
    fn what_goes_down_with_another_pays_nothing() {
        let mut charges = Charges::new(exact().at_most(1, ms(1_000)).debounce(ms(7)));
        let now = Instant::now();
        for _ in 0..10 {
            charges.up(now);
            assert_eq!(charges.spare(now), Verdict::Again(ms(7)));
        }
        assert_eq!(charges.count(), 0);
        assert_eq!(charges.charge(now), Verdict::Again(ms(100)));
        assert_eq!(charges.charge(now), Verdict::Broken);
    }

    #[test]
    fn too_many_in_a_window_and_no_sooner() {
        let mut charges = Charges::new(exact().at_most(2, ms(1_000)));
        let mut now = Instant::now();
        for _ in 0..10 {
            assert!(matches!(charges.charge(now), Verdict::Again(_)));
            now += ms(500);
        }
        assert!(matches!(charges.charge(now), Verdict::Again(_)));
        assert_eq!(charges.charge(now), Verdict::Broken);
        charges.forgive();
        assert_eq!(charges.charge(now), Verdict::Again(ms(100)));
    }

    #[test]
    fn chance_stays_within_its_bounds() {
        for _ in 0..100 {
            let mut charges = Charges::new(Restart::default().backoff(ms(100), ms(300)));
            let now = Instant::now();
            for most in [100, 200, 300, 300] {
                let Verdict::Again(rest) = charges.charge(now) else { panic!("there is no limit") };
                assert!(rest >= ms(most / 2) && rest <= ms(most), "{rest:?}");
            }
        }
    }

    #[test]
    fn nonsense_is_borne() {
        for factor in [f32::NAN, -1.0, 0.0, f32::INFINITY] {
            let restart = Restart::default().factor(factor).backoff(Duration::MAX, Duration::MAX);
            let mut charges = Charges::new(restart.at_most(0, Duration::MAX));
            assert_eq!(charges.charge(Instant::now()), Verdict::Broken);
            let mut charges = Charges::new(exact().factor(factor));
            for _ in 0..5 {
                assert!(matches!(charges.charge(Instant::now()), Verdict::Again(_)));
            }
        }
    }
}
