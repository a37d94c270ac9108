//! Whether the instance that is up is degraded, and why.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration, time::SystemTime};

use super::{Control, Registry};
use crate::{
    event::EventKind,
    numbers::{Generation, ServiceIndex, UnixTime},
    store::Phase,
};

/// A service is ready, and works less well than it should; a part of
/// [`SupervisorStatus`](crate::supervise::SupervisorStatus).
///
/// Its body has said so ([`Live::set_degraded`](crate::supervise::Live::set_degraded)), or a probe
/// ([`Supervisor::probe_ready`](crate::supervise::Supervisor::probe_ready)). `Display` writes
/// *degraded*, and why.
///
/// ```
/// use mainstay::{Registry, supervise::BodyEnd};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let cache = registry.register::<u32>("cache")?;
/// let supervisor = registry.supervise(cache)?.body(async |live| {
///     live.set_degraded("1 of 3 replicas is down");
///     live.stopping().await.map(|_| ())
/// });
/// tokio::spawn(supervisor.run(async |_| 1));
/// registry.wait_ready(cache).await?;
/// tokio::task::yield_now().await;
///
/// let status = registry.status(cache)?;
/// assert_eq!(status.to_string(), "cache: ready, degraded: 1 of 3 replicas is down");
/// let degraded = status.supervisor.unwrap().degraded.unwrap();
/// assert_eq!(degraded.why, "1 of 3 replicas is down");
/// # registry.close();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Degraded {
    /// Why it is degraded. If there are several reasons, all of them, separated by `; `.
    pub why: String,
    /// The time since which it is degraded, by the system's clock: another reason, and a
    /// replacement of the value, do not change it.
    #[cfg_attr(feature = "serde", serde(with = "crate::failure_record::rfc3339"))]
    pub since: SystemTime,
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "degraded: {}", self.why)
    }
}

/// The part of a service that says that it is degraded. Each one sets and clears only its own
/// reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DegradedBy {
    Body,
    /// The probe with this number; the first one that was added is 1.
    Probe(u32),
}

/// The reasons for which the instances of one generation are degraded.
pub(super) struct Degradation {
    generation: Generation,
    since: SystemTime,
    /// Not empty.
    reasons: BTreeMap<DegradedBy, Arc<str>>,
}

impl Degradation {
    fn shown(&self) -> Degraded {
        let reasons: Vec<&str> = self.reasons.values().map(|why| &**why).collect();
        Degraded { why: reasons.join("; "), since: self.since }
    }
}

/// What the supervisor of a service stores: most often nothing.
///
/// The reasons belong to a generation, and are shown only for it. So they end with the generation,
/// and nothing must remove them.
#[derive(Default)]
pub(super) struct Degradations(Option<Box<Degradation>>);

impl Degradations {
    /// Returns whether, and why, the instance of this generation is degraded.
    pub(super) fn of(&self, generation: Generation) -> Option<Degraded> {
        let it = self.0.as_deref().filter(|it| it.generation == generation)?;
        Some(it.shown())
    }

    /// Removes the reasons of this generation. Returns whether there were any.
    pub(super) fn clear(&mut self, generation: Generation) -> bool {
        self.0.take().is_some_and(|it| it.generation == generation)
    }

    /// Sets or removes a reason for an instance that is up. Returns whether this has changed
    /// anything.
    fn set(
        &mut self,
        generation: Generation,
        by: DegradedBy,
        why: Option<Arc<str>>,
        now: SystemTime,
    ) -> bool {
        // Those of an earlier generation have ended.
        let present = self.0.take().filter(|it| it.generation == generation);
        let was = present.as_ref().and_then(|it| it.reasons.get(&by)).cloned();
        let Some(why) = why else {
            self.0 = present.and_then(|mut it| {
                it.reasons.remove(&by);
                (!it.reasons.is_empty()).then_some(it)
            });
            return was.is_some();
        };
        let it = self.0.insert(present.unwrap_or_else(|| {
            Box::new(Degradation { generation, since: now, reasons: BTreeMap::new() })
        }));
        let has_changed = was.as_deref() != Some(&*why);
        it.reasons.insert(by, why);
        has_changed
    }
}

impl Control {
    /// Returns whether, and why, the instance of this generation is degraded.
    pub(super) fn degraded(&self, generation: Generation) -> Option<Degraded> {
        self.lock().degraded.of(generation)
    }

    /// Sets or removes a reason for which the instance of this generation is degraded, unless the
    /// generation has ended. If this changes anything, returns what the status shows then, and the
    /// number of the change.
    fn set_degraded(
        &self,
        (generation, first): (Generation, u64),
        by: DegradedBy,
        why: Option<Arc<str>>,
        now: SystemTime,
        is_up: impl FnOnce() -> bool,
    ) -> Option<(Option<Degraded>, u64)> {
        let mut control = self.lock();
        // Under the lock: a reason of a later generation is stored after that generation has begun,
        // so this check finds the end of its own one, and removes no later reason.
        if !is_up() || control.reloaded(generation, first).is_some() {
            return None;
        }
        if !control.degraded.set(generation, by, why, now) {
            return None;
        }
        let shown = control.degraded.of(generation);
        Some((shown, control.count_change()))
    }
}

impl Registry {
    /// Sets or removes a reason for which the instance of this generation is degraded, unless the
    /// generation or the publication has ended, and emits the event of a change. `first` is the
    /// revision of the first instance of the publication.
    pub(crate) fn set_degraded(
        &self,
        index: ServiceIndex,
        control: &Control,
        (generation, first): (Generation, u64),
        by: DegradedBy,
        why: Option<Arc<str>>,
    ) {
        let is_up = || {
            let state = self.store().slot(index).state.load();
            (state.phase(), state.generation()) == (Phase::Ready, generation)
        };
        let now = UnixTime::now().into();
        let Some((shown, number)) = control.set_degraded((generation, first), by, why, now, is_up)
        else {
            return;
        };
        let kind = match &shown {
            Some(degraded) => EventKind::Degraded { why: &degraded.why },
            None => EventKind::NotDegraded,
        };
        self.emit_numbered(index, generation, number, Duration::ZERO, kind);
    }
}
