//! Whether the instance that is up is stale, and why: its reload was refused.

use std::{fmt, sync::Arc, time::Duration, time::Instant, time::SystemTime};

use super::{Control, Registry};
use crate::{
    error::ReloadError,
    event::EventKind,
    numbers::{Generation, ServiceIndex, UnixTime},
    store::Phase,
    texts::Rounded,
};

/// A service is ready, and its last [reload](crate::Registry::reload) was refused; a part of
/// [`SupervisorStatus`](crate::supervise::SupervisorStatus).
///
/// It serves what it has built before. It is stale until a later reload of which it is a member
/// succeeds, or until its generation ends. `Display` writes *stale*, why, and since when if that is
/// a second or more: *stale: reload refused by pool: connection refused (for 12 s)*.
///
/// ```
/// use mainstay::{supervise::Build, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let pool = runtime.registry.register::<u8>("pool")?;
/// let mut builds = 0;
/// let run = runtime.registry.supervise(pool)?.run(async move |_: Build<u8>| {
///     builds += 1;
///     if builds == 1 { Ok(8) } else { Err("connection refused") }
/// });
/// runtime.spawn(run);
/// runtime.run_until_idle();
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move {
///     assert!(registry.reload(pool).await.is_err());
/// });
/// runtime.run_until_idle();
/// let line = "pool: ready, stale: reload refused by pool: connection refused";
/// assert_eq!(runtime.registry.status(pool)?.to_string(), line);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Stale {
    /// Why the last reload was refused, and by which member.
    pub why: String,
    /// The time since which it is stale, by the system's clock: a later refusal does not change it.
    #[cfg_attr(feature = "serde", serde(with = "crate::failure_record::rfc3339"))]
    pub since: SystemTime,
    /// For how long it has been stale, by the clock of the registry; `None` if that has panicked.
    pub lasts: Option<Duration>,
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stale: {}", self.why)?;
        match self.lasts {
            Some(lasts) if lasts >= Duration::from_secs(1) => {
                write!(f, " (for {})", Rounded(lasts))
            }
            _ => Ok(()),
        }
    }
}

/// Why the instances of one generation are stale.
struct Staleness {
    generation: Generation,
    since: SystemTime,
    /// By the clock of the registry.
    at: Option<Instant>,
    why: Arc<str>,
}

/// What the supervisor of a service stores: most often nothing. As a degradation, it belongs to a
/// generation, and ends with it.
#[derive(Default)]
pub(super) struct StaleSince(Option<Box<Staleness>>);

impl StaleSince {
    /// Returns whether, and why, the instance of this generation is stale.
    pub(super) fn of(&self, generation: Generation, now: Option<Instant>) -> Option<Stale> {
        let it = self.0.as_deref().filter(|it| it.generation == generation)?;
        let lasts = it.at.zip(now).map(|(at, now)| now.saturating_duration_since(at));
        Some(Stale { why: String::from(&*it.why), since: it.since, lasts })
    }

    /// Returns whether an instance of this generation is stale.
    pub(super) fn is(&self, generation: Generation) -> bool {
        self.0.as_deref().is_some_and(|it| it.generation == generation)
    }

    fn set(
        &mut self,
        generation: Generation,
        why: Arc<str>,
        since: SystemTime,
        at: Option<Instant>,
    ) {
        let earlier = self.0.take().filter(|it| it.generation == generation);
        let (since, at) = earlier.map_or((since, at), |it| (it.since, it.at));
        self.0 = Some(Box::new(Staleness { generation, since, at, why }));
    }
}

impl Control {
    /// Called after a switch of which the service was a member.
    pub(crate) fn clear_stale(&self) {
        self.lock().stale.0 = None;
    }
}

impl Registry {
    /// Reports that a reload was refused: the instance of the root is stale from now on, if the
    /// root is ready. Does nothing if the reload has ended in another way.
    pub(crate) fn report_refused_reload(&self, root: ServiceIndex, error: &ReloadError) {
        let Some(why) = error.why_stale() else { return };
        let supervisors = self.supervisors();
        let (now, since) = (supervisors.now(), UnixTime::now().into());
        let state = || self.store().slot(root).state.load();
        let number = match supervisors.control(root) {
            Some(control) => {
                let mut control = control.lock();
                // Under the lock, as for a degradation.
                let state = state();
                if state.phase() == Phase::Ready {
                    control.stale.set(state.generation(), why, since, now);
                }
                control.count_change()
            }
            None => supervisors.count_change(root),
        };
        let (generation, zero) = (state().generation(), Duration::ZERO);
        self.emit_numbered(root, generation, number, zero, EventKind::ReloadRefused(error));
    }
}
