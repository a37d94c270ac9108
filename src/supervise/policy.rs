//! When a service is built again after a failure, and when its supervisor gives up.

use std::time::Duration;

/// The restart policy of a supervised service: backoff, limits and timeouts.
///
/// Only failures that began in the service itself are *counted*: a build that failed, panicked or
/// exceeded its timeout, and a call of [`fail`](crate::Registry::fail) or
/// [`fail_instance`](crate::Registry::fail_instance) for this service. A service that fails
/// together with a dependency is built again immediately. So is one whose failure is
/// [planned](crate::supervise::Planned), but only once per first backoff. One that has failed
/// because another service was not there waits for that one.
///
/// - If an instance fails that was up for at least [`reset_after`](Self::reset_after), the counter
///   is reset and the service is built again immediately.
/// - Any other counted failure is followed by a [backoff](Self::backoff), which grows by a
///   [factor](Self::factor) with each failure, up to a maximum. Jitter shortens each backoff by up
///   to half of it, so that services that failed together are not built again at the same time. A
///   backoff ends early if something changes from which the last build was built, because the
///   reason for which it failed may no longer exist. But it is not shorter than the first backoff.
/// - After a [permanent error](crate::supervise::Permanent), only such a change ends the wait.
/// - If more failures are counted within a window of time than
///   [`max_failures`](Self::max_failures) allows, the supervisor *gives up*: the service stays down
///   until such a change ([`retry_given_up`](Self::retry_given_up)), or until
///   [`Registry::restart`](crate::Registry::restart).
///
/// | setting | default |
/// |---|---|
/// | [`backoff`](Self::backoff) | from 100 ms to 30 s |
/// | [`factor`](Self::factor) | 2 |
/// | jitter | on ([`without_jitter`](Self::without_jitter)) |
/// | [`reset_after`](Self::reset_after) | 10 s |
/// | [`max_failures`](Self::max_failures) | no limit |
/// | [`retry_given_up`](Self::retry_given_up) | on |
/// | [`build_timeout`](Self::build_timeout) | none |
/// | [`debounce`](Self::debounce) | none |
/// | [`spread`](Self::spread) | none |
/// | [`drain_timeout`](Self::drain_timeout) | no draining |
/// | [`stop_timeout`](Self::stop_timeout) | 10 s |
/// | [`close_timeout`](Self::close_timeout) | 10 s |
/// | [`probe_misses`](Self::probe_misses) | 3 |
///
/// There is no limit of failures by default, so that a server whose database is down for a night
/// works in the morning.
///
/// ```
/// use mainstay::supervise::RestartPolicy;
/// use std::time::Duration;
///
/// let policy = RestartPolicy::default()
///     .backoff(Duration::from_millis(50), Duration::from_secs(5))
///     .max_failures(20, Duration::from_secs(60))
///     .build_timeout(Duration::from_secs(10));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    pub(super) first: Duration,
    max: Duration,
    factor: f32,
    jitter: bool,
    pub(super) reset_after: Duration,
    pub(super) max_failures: Option<(u32, Duration)>,
    pub(super) retry_given_up: bool,
    pub(crate) build_timeout: Option<Duration>,
    pub(crate) debounce: Duration,
    pub(super) spread: Duration,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) stop_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(super) probe_misses: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(30),
            factor: 2.0,
            jitter: true,
            reset_after: Duration::from_secs(10),
            max_failures: None,
            retry_given_up: true,
            build_timeout: None,
            debounce: Duration::ZERO,
            spread: Duration::ZERO,
            drain_timeout: None,
            stop_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            probe_misses: 3,
        }
    }
}

impl RestartPolicy {
    /// Sets the first and the longest backoff. Default: 100 ms and 30 s.
    ///
    /// If `first` is longer than `max`, it is `max`.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // 50 ms, 100 ms, 200 ms, ..., 5 s, 5 s, ...
    /// let (first, max) = (Duration::from_millis(50), Duration::from_secs(5));
    /// let policy = RestartPolicy::default().backoff(first, max);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn backoff(self, first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max, ..self }
    }

    /// Sets the factor by which each backoff is longer than the previous one. Default: 2.
    ///
    /// NaN and values below 1 count as 1.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    ///
    /// // 100 ms, 300 ms, 900 ms, ...
    /// let policy = RestartPolicy::default().factor(3.0);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn factor(self, factor: f32) -> Self {
        // `max` returns the other operand for a NaN.
        Self { factor: factor.max(1.0), ..self }
    }

    /// Turns off the jitter, so that each backoff has exactly the computed length.
    ///
    /// For tests. In a server, services that failed together would be built again at the same time,
    /// and might overload what they share.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    ///
    /// let policy = RestartPolicy::default().without_jitter();
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn without_jitter(self) -> Self {
        Self { jitter: false, ..self }
    }

    /// Waits before the next build until all readers have dropped the old instance, at most for
    /// this time. Default: no waiting.
    ///
    /// For resources that must not exist twice, such as a port or a lock file. Without it, the next
    /// instance is built while requests still use the old one.
    ///
    /// The time of draining is part of the backoff.
    /// [`Build::holders`](crate::supervise::Build::holders) returns the number of references that
    /// remain after the timeout. A [cached reader](crate::Cached) that is idle keeps its instance
    /// until it reads again or is [released](crate::Cached::release).
    ///
    /// With a [close hook](crate::supervise::Supervisor::on_close), the next build also begins
    /// after the close hook has ended. The close hook receives each value when it is drained, or
    /// when this time is over; if none is set, after 10 s. A shutdown waits for the readers in the
    /// same way, with or without a close hook.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RestartPolicy::default().drain_timeout(Duration::from_secs(10));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn drain_timeout(self, time: Duration) -> Self {
        Self { drain_timeout: Some(time), ..self }
    }

    /// Sets how long a [body](crate::supervise::Supervisor::body) may take to return after it was
    /// notified. Default: 10 s.
    ///
    /// Then an async body is dropped. A blocking one is waited for no longer, but the service is
    /// not built again before it has returned.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RestartPolicy::default().stop_timeout(Duration::from_secs(2));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn stop_timeout(self, time: Duration) -> Self {
        Self { stop_timeout: time, ..self }
    }

    /// Sets how long a [close hook](crate::supervise::Supervisor::on_close) may take for one value.
    /// Default: 10 s.
    ///
    /// Then its future is dropped, with the value.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RestartPolicy::default().close_timeout(Duration::from_secs(2));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn close_timeout(self, time: Duration) -> Self {
        Self { close_timeout: time, ..self }
    }

    /// Sets the number of misses in a row after which a
    /// [probe](crate::supervise::Supervisor::probe) fails its instance, or [marks it as
    /// degraded](crate::supervise::Supervisor::probe_ready). Default: 3.
    ///
    /// It is the same for all probes of the service. Zero counts as 1.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    ///
    /// let policy = RestartPolicy::default().probe_misses(5);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn probe_misses(self, misses: u32) -> Self {
        Self { probe_misses: misses.max(1), ..self }
    }

    /// Sets how long an instance must have been up so that its failure resets the counter.
    /// Default: 10 s.
    ///
    /// Such an instance was *stable*: no backoff follows its failure.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // An instance that was up for a minute was stable.
    /// let policy = RestartPolicy::default().reset_after(Duration::from_secs(60));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn reset_after(self, reset_after: Duration) -> Self {
        Self { reset_after, ..self }
    }

    /// Limits the failures within a sliding window of time: with one more, the supervisor gives up.
    /// Default: no limit.
    ///
    /// The window also counts the failures of instances that were
    /// [stable](Self::reset_after).
    ///
    /// With a window of [`Duration::ZERO`], which no two failures fall into, the limit is for
    /// failures in a row: those since the last stable instance, without its own failure.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // After the sixth failure within a minute, the supervisor gives up.
    /// let policy = RestartPolicy::default().max_failures(5, Duration::from_secs(60));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn max_failures(self, failures: u32, within: Duration) -> Self {
        Self { max_failures: Some((failures, within)), ..self }
    }

    /// Sets whether a given-up service is tried again after a change of something from which it was
    /// built. Default: yes.
    ///
    /// It is tried once for each change, and at the earliest after the first backoff. If it fails
    /// again before it was [stable](Self::reset_after), the supervisor gives up again at once.
    /// Without this, only [`Registry::restart`](crate::Registry::restart) ends the state
    /// *given up*. It is also the only end if the service is in a
    /// [group](crate::Registry::group).
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // After six failures within a minute, an operator must decide.
    /// let policy =
    ///     RestartPolicy::default().max_failures(5, Duration::from_secs(60)).retry_given_up(false);
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn retry_given_up(self, retry: bool) -> Self {
        Self { retry_given_up: retry, ..self }
    }

    /// Limits the time of one build. Default: no limit.
    ///
    /// Time during which the build [waits](crate::supervise::Build::wait_for) for dependencies is
    /// not included: from the first poll of a wait until it ends or is dropped, so do not keep a
    /// wait that is not polled. When the timeout expires, an async build is dropped. A blocking
    /// build cannot be stopped; its result is dropped when it returns, and until then the status
    /// says [by how much](crate::supervise::SupervisorStatus::late_by) it is late. In both cases
    /// the build has failed with
    /// [`BuildFailure::TimedOut`](crate::supervise::BuildFailure::TimedOut).
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RestartPolicy::default().build_timeout(Duration::from_secs(10));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn build_timeout(self, after: Duration) -> Self {
        Self { build_timeout: Some(after), ..self }
    }

    /// Sets the minimum delay before each build that follows a failure. Default: none.
    ///
    /// All failures within this delay lead to one build, because a failure of a service that is
    /// down changes nothing. It delays every recovery, also those after a failure of a dependency.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // If a configuration file is written in several steps, it is read once.
    /// let policy = RestartPolicy::default().debounce(Duration::from_millis(50));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn debounce(self, debounce: Duration) -> Self {
        Self { debounce, ..self }
    }

    /// Spreads the builds that follow a failure of a dependency over this time: each begins after
    /// a random part of it. Default: none, all of them begin at once.
    ///
    /// For services that together would overload what they depend on: if a thousand of them lose
    /// their connection in one instant, they do not connect in one instant. After a failure that
    /// began in another service, the supervisor waits until the dependencies are ready again, then
    /// for the random part of `most`, and then calls the builder. If one of them fails during
    /// this time, it begins this wait anew. The same follows an expired
    /// [grace period](crate::supervise::Build::wait_with_grace), a failure of a dependency during
    /// the build, and a [restart](crate::Registry::restart) or a stop of a dependency.
    ///
    /// The supervisor waits for those services from which the last instance or build has received
    /// an instance by a wait, apart from soft dependencies. Until then its state is
    /// [`Waiting`](crate::supervise::SupervisorState::Waiting), after it
    /// [`BackingOff`](crate::supervise::SupervisorState::BackingOff), with the time of the next
    /// try. Therefore it is not meant for a builder that uses another service if the first one is
    /// not ready: the builder is not asked before the first one is.
    ///
    /// A restart or a start of the service itself ends the wait, and so does its turn to stop. A
    /// failure that began in the service is followed by a [backoff](Self::backoff), which has a
    /// jitter of its own. A [limit](crate::Registry::limit_builds) on the number of builds counts
    /// beside it.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// // A thousand clients of one database recover within five seconds after it.
    /// let policy = RestartPolicy::default().spread(Duration::from_secs(5));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn spread(self, most: Duration) -> Self {
        Self { spread: most, ..self }
    }

    /// Returns a random part of the time over which builds are spread.
    pub(super) fn part_of_spread(&self) -> Duration {
        self.spread.mul_f64(fastrand::f64())
    }

    /// Returns the delay before which no change starts a build: the first backoff without jitter.
    pub(super) fn first_backoff(&self) -> Duration {
        self.first.max(self.debounce)
    }

    /// Returns the backoff after this number of counted failures, which is at least 1.
    pub(super) fn backoff_after(&self, failures: u32) -> Duration {
        let growth = f64::from(self.factor).powf(f64::from(failures - 1));
        // The conversion fails on overflow and on NaN (zero times infinity). Both mean "longer than
        // the maximum".
        let backoff = Duration::try_from_secs_f64(self.first.as_secs_f64() * growth);
        let backoff = backoff.map_or(self.max, |backoff| backoff.min(self.max));
        if self.jitter { backoff - backoff.mul_f64(fastrand::f64() / 2.0) } else { backoff }
    }
}
