//! One reload in progress: what its coordinator and the supervisors of its members share (S20,
//! S21).
//!
//! The *coordinator* is the wait of the caller (`supervise/coordinator.rs`): it creates the reload,
//! asks the supervisors of the members (`Control::request_reload`), executes the switch when all of
//! them are prepared, and ends the reload. Nothing else switches. A supervisor only reports.
//!
//! A reload is *preparing*, then *switching*, and then it is over: *switched* or *abandoned*. The
//! first reason to abandon it wins. It is abandoned only while it is preparing; while the
//! coordinator executes the switch, the store decides.
//!
//! No user code runs under the lock. What is removed under it is dropped after it was released.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::CycleError,
    failure::{Failure, Reason},
    instance::InstanceNumber,
    numbers::ServiceIndex,
    service::ServiceName,
    store::{Adopter, AnyInstance, Decision, Member, Store},
    sync::{Mutex, MutexGuard, Shielded, lock},
};

/// A reload, from its begin until its end.
///
/// All methods are blocking: they take a lock for a short time. Those that change what others wait
/// for wake their slots after that, so wakers may run in the call.
pub struct Reload {
    root: ServiceIndex,
    decision: Arc<Decision>,
    /// Each after its dependencies. The root is the first one, unless it has a gap: then there are
    /// none.
    members: Vec<ServiceIndex>,
    /// The positions in `members`.
    positions: HashMap<ServiceIndex, usize>,
    /// The services that are restarted at the switch (S22). None of them is a member.
    gaps: BTreeSet<ServiceIndex>,
    /// The services that adopt new instances of members (S23). None of them is a member, or has a
    /// gap.
    adopters: BTreeMap<ServiceIndex, Adopter>,
    kind: ReloadKind,
    /// When it has begun; `None` if the clock has panicked.
    begun: Option<Instant>,
    state: Mutex<State>,
}

/// What the user has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadKind {
    /// All members are built anew.
    All,
    /// The value of the root was given: its supervisor is not asked, and its body continues.
    Given,
    /// All members are built, and then dropped.
    Check,
}

struct State {
    course: Course,
    /// In the order of `Reload::members`.
    progress: Vec<MemberProgress>,
    /// How many of them are not prepared.
    missing: usize,
    /// Why it was abandoned, until the coordinator takes it.
    why: Option<Shielded<Abandoned>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Preparing,
    Switching,
    Over(Outcome),
}

/// How a reload has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The new instances are current.
    Switched,
    /// Nothing has changed. The build aside is dropped, and what it has prepared, too.
    Abandoned,
}

/// The build aside of one member.
struct MemberProgress {
    aside: Aside,
    /// What it has prepared, until the switch or the end.
    member: Option<Box<dyn Member>>,
}

/// How far the build aside of one member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aside {
    /// Its supervisor was asked, and has not called the builder.
    Requested,
    /// The builder runs.
    Building {
        since: Instant,
        /// The dependency for which it has begun to wait last.
        waits_for: Option<ServiceIndex>,
    },
    /// It is built.
    Prepared { took: Duration },
}

impl Aside {
    /// Returns the duration of a build that is over.
    pub(crate) fn took(self) -> Duration {
        match self {
            Self::Prepared { took } => took,
            Self::Requested | Self::Building { .. } => Duration::ZERO,
        }
    }
}

/// Why a member refuses a reload.
pub(crate) enum Refusal {
    /// Its build aside has returned an error, has panicked, or has exceeded its timeout. The build
    /// is over.
    Build(Reason),
    /// Its build aside waits for a service that depends on it: a restart can do that, and a reload
    /// cannot.
    Cycle(CycleError),
    /// Its build aside waits for a service with a gap, of which there will be no instance at the
    /// switch.
    NeedsGap(ServiceIndex),
    /// Its instance has failed.
    Failed(Failure),
    /// It must stop, or the registry is closed: the reason of the planned end.
    Stopping(Reason),
    /// Its supervisor is not up, or ends, or the service is not one that can be built aside.
    NotUp,
}

/// Why a reload was abandoned.
pub(crate) enum Abandoned {
    /// A member refuses it.
    Refused(ServiceIndex, Refusal),
    /// A newer reload of the same root has begun.
    Superseded,
    /// The coordinator has ended it: its wait was dropped or has timed out, the switch was not
    /// possible, or nothing but a check was wanted.
    ByCoordinator,
}

impl Reload {
    /// Creates the reload. Called by the coordinator.
    pub(crate) fn new(
        root: ServiceIndex,
        members: Vec<ServiceIndex>,
        gaps: BTreeSet<ServiceIndex>,
        adopters: BTreeMap<ServiceIndex, Adopter>,
        kind: ReloadKind,
        begun: Option<Instant>,
    ) -> Arc<Self> {
        let positions = members.iter().enumerate().map(|(position, &it)| (it, position)).collect();
        let state = State {
            course: Course::Preparing,
            progress: members.iter().map(|_| MemberProgress::new()).collect(),
            missing: members.len(),
            why: None,
        };
        Arc::new(Self {
            root,
            decision: Arc::new(Decision::new()),
            members,
            positions,
            gaps,
            adopters,
            kind,
            begun,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // Called by a supervisor, and by a build aside and its waits, on any thread.

    /// Returns the root: what the user has asked to reload.
    pub(crate) fn root(&self) -> ServiceIndex {
        self.root
    }

    /// Returns what decides at the switch; for `Prepared::new`.
    pub(crate) fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// Returns how the reload has ended; `None` if it has not. A change of it wakes the slots of
    /// all members.
    ///
    /// Called by the supervisor of a member in each check of the wait in which it is up, and by the
    /// waits of its build aside.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        match self.lock().course {
            Course::Over(outcome) => Some(outcome),
            Course::Preparing | Course::Switching => None,
        }
    }

    /// Returns whether the reload is over, in any way.
    pub(crate) fn is_over(&self) -> bool {
        self.outcome().is_some()
    }

    /// Notes that the builder of a member is about to be called. Returns `false` if the reload is
    /// over: then it must not be called.
    ///
    /// Called by the supervisor of the member, on its thread or task. Wakes no thread.
    pub(crate) fn building(&self, member: ServiceIndex, now: Instant) -> bool {
        let mut state = self.lock();
        if state.course != Course::Preparing {
            return false;
        }
        if let Some(progress) = self.progress(&mut state, member) {
            progress.aside = Aside::Building { since: now, waits_for: None };
        }
        true
    }

    /// Notes for which dependency the build aside of a member waits, or that it waits no more; for
    /// what a timeout and a status say.
    ///
    /// Called by a wait of a build aside, on the thread that polls it. Wakes no thread.
    pub(crate) fn waits(&self, member: ServiceIndex, dependency: Option<ServiceIndex>) {
        let mut state = self.lock();
        let progress = self.progress(&mut state, member);
        if let Some(Aside::Building { waits_for, .. }) = progress.map(|it| &mut it.aside) {
            *waits_for = dependency;
        }
    }

    /// Returns the new instance of a member, and what identifies it. `None` if the service is no
    /// member: then the build aside uses its current instance. `Some(None)` if it is not prepared,
    /// or if the reload is over: the slot of the service is woken when this changes.
    ///
    /// Called by a wait of a build aside, on the thread that polls it.
    pub(crate) fn instance_of(
        &self,
        service: ServiceIndex,
    ) -> Option<Option<(AnyInstance, InstanceNumber)>> {
        let position = *self.positions.get(&service)?;
        let state = self.lock();
        let member = state.progress[position].member.as_ref();
        Some(member.map(|member| (member.instance(), member.number())))
    }

    /// Returns whether a service is restarted at the switch.
    ///
    /// Called by a wait of a build aside, on the thread that polls it.
    pub(crate) fn has_gap(&self, service: ServiceIndex) -> bool {
        self.gaps.contains(&service)
    }

    /// Takes over what the build aside of a member has built in `took`. Returns it if the reload is
    /// over.
    ///
    /// Called by the supervisor of the member, on its thread or task, after the builder has
    /// returned; and by the coordinator for a root whose value was given. Wakes the slot of the
    /// member, and after the last one that of the root.
    pub(crate) fn prepared(
        &self,
        store: &Store,
        member: Box<dyn Member>,
        took: Duration,
    ) -> Result<(), Box<dyn Member>> {
        let service = member.service();
        let is_last = {
            let mut state = self.lock();
            if state.course != Course::Preparing {
                return Err(member);
            }
            let Some(progress) = self.progress(&mut state, service) else { return Err(member) };
            *progress = MemberProgress { aside: Aside::Prepared { took }, member: Some(member) };
            state.missing -= 1;
            state.missing == 0
        };
        store.wake(service);
        if is_last && service != self.root {
            store.wake(self.root);
        }
        Ok(())
    }

    /// Abandons the reload, because a member refuses it. Does nothing if it is over, or if the
    /// switch is being executed.
    ///
    /// Called by the supervisor of the member, on its thread or task, after its build aside was
    /// dropped. Wakes the slots of all members.
    pub(crate) fn refused(&self, store: &Store, member: ServiceIndex, refusal: Refusal) {
        self.abandon(store, Abandoned::Refused(member, refusal));
    }

    // Called by the coordinator, and `abandon` also by the one of another reload.

    /// Returns whether all that is built is dropped, and nothing is switched.
    pub(crate) fn is_check(&self) -> bool {
        self.kind == ReloadKind::Check
    }

    /// Returns whether the builder of a member was called and has not returned a new instance.
    pub(super) fn is_building(&self, member: ServiceIndex) -> bool {
        let mut state = self.lock();
        let progress = self.progress(&mut state, member);
        progress.is_some_and(|it| matches!(it.aside, Aside::Building { .. }))
    }

    /// Returns what the status of a member shows.
    pub(super) fn shown(
        &self,
        store: &Store,
        member: ServiceIndex,
        now: Option<Instant>,
    ) -> Option<Reloading> {
        let restarts = self.has_gap(member) && !self.is_check() && !self.is_over();
        let aside = match restarts {
            true => Aside::Requested,
            false => self.progress(&mut self.lock(), member)?.aside,
        };
        let lasts = self.begun.zip(now).map(|(begun, now)| now.saturating_duration_since(begun));
        let (built, waits_for) = match aside {
            Aside::Requested => (false, None),
            Aside::Building { waits_for, .. } => (false, waits_for),
            Aside::Prepared { .. } => (true, None),
        };
        let waiting_for = waits_for.map(|dependency| store.name(dependency));
        let root = store.name(self.root);
        Some(Reloading { root, lasts, is_check: self.is_check(), restarts, built, waiting_for })
    }

    /// Returns the members, the services with a gap, and the adopters.
    pub(super) fn services(&self) -> impl Iterator<Item = ServiceIndex> {
        self.members.iter().chain(&self.gaps).chain(self.adopters.keys()).copied()
    }

    /// Returns the services that adopt new instances of members.
    pub(crate) fn adopters(&self) -> &BTreeMap<ServiceIndex, Adopter> {
        &self.adopters
    }

    /// Returns the services that are restarted at the switch.
    pub(crate) fn gaps(&self) -> &BTreeSet<ServiceIndex> {
        &self.gaps
    }

    /// Returns the members whose supervisors are asked.
    pub(crate) fn asked(&self) -> &[ServiceIndex] {
        let given = usize::from(self.kind == ReloadKind::Given);
        self.members.get(given..).unwrap_or_default()
    }

    /// Abandons the reload while it is preparing. Returns whether this call has ended it. Wakes the
    /// slots of all members. What was prepared is dropped here.
    pub(crate) fn abandon(&self, store: &Store, why: Abandoned) -> bool {
        self.end(store, Course::Preparing, Outcome::Abandoned, why)
    }

    /// Begins the switch if all members are prepared, and returns what they have prepared. After
    /// that, the coordinator calls `switched` or `not_switched`.
    pub(crate) fn begin_switch(&self) -> Option<Vec<Box<dyn Member>>> {
        let mut state = self.lock();
        if state.course != Course::Preparing || state.missing > 0 {
            return None;
        }
        state.course = Course::Switching;
        Some(state.take_prepared())
    }

    /// Ends the reload after the switch. Wakes the slots of all members.
    pub(crate) fn switched(&self, store: &Store) {
        self.end(store, Course::Switching, Outcome::Switched, Abandoned::ByCoordinator);
    }

    /// Ends the reload after a switch that has not taken place. Wakes the slots of all members.
    pub(crate) fn not_switched(&self, store: &Store) {
        self.end(store, Course::Switching, Outcome::Abandoned, Abandoned::ByCoordinator);
    }

    /// Returns why the reload was abandoned, once; by others than its coordinator.
    pub(crate) fn take_why(&self) -> Option<Shielded<Abandoned>> {
        self.lock().why.take()
    }

    /// Returns how far each member is, in their order.
    pub(crate) fn asides(&self) -> Vec<(ServiceIndex, Aside)> {
        let state = self.lock();
        self.members.iter().copied().zip(state.progress.iter().map(|it| it.aside)).collect()
    }

    fn progress<'a>(
        &self,
        state: &'a mut State,
        member: ServiceIndex,
    ) -> Option<&'a mut MemberProgress> {
        let position = *self.positions.get(&member)?;
        state.progress.get_mut(position)
    }

    fn end(&self, store: &Store, from: Course, outcome: Outcome, why: Abandoned) -> bool {
        let why = Shielded::new(why);
        let dropped = {
            let mut state = self.lock();
            if state.course != from {
                drop(state);
                // `why` may be the last owner of a user's error.
                drop(why);
                return false;
            }
            state.course = Course::Over(outcome);
            state.why = Some(why);
            state.take_prepared()
        };
        // Their values are shielded.
        drop(dropped);
        for &member in &self.members {
            store.wake(member);
        }
        if self.members.is_empty() {
            // A later reload may wait for its end there.
            store.wake(self.root);
        }
        true
    }
}

/// A reload or a check for which a service is built aside, or a reload that is going to restart it;
/// a part of [`SupervisorStatus`](crate::supervise::SupervisorStatus).
///
/// `Display` writes *reloading with config*, and for what the build waits; or *restarts when config
/// is reloaded*.
///
/// ```
/// use mainstay::{supervise::Build, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// let mut builds = 0;
/// let run = runtime.registry.supervise(port)?.run(async move |_: Build<u16>| {
///     builds += 1;
///     if builds > 1 {
///         std::future::pending::<()>().await;
///     }
///     80
/// });
/// runtime.spawn(run);
/// runtime.run_until_idle();
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move { drop(registry.reload(port).await) });
/// runtime.run_until_idle();
/// let reloading = runtime.registry.status(port)?.supervisor.unwrap().reloading.unwrap();
/// assert_eq!((&*reloading.root, reloading.built), ("port", false));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Reloading {
    /// The root: the service that the caller has named.
    pub root: ServiceName,
    /// The time since the reload has begun, by the clock of the registry; `None` if that has
    /// panicked.
    pub lasts: Option<Duration>,
    /// Whether it is a [check](crate::Registry::check_reload).
    pub is_check: bool,
    /// Whether this service has a [gap](crate::supervise::Gap): it is not built aside.
    pub restarts: bool,
    /// Whether this service is built, so that the reload waits for other ones.
    pub built: bool,
    /// While it is built: the dependency for which the build has begun to wait last, and still
    /// waits.
    pub waiting_for: Option<ServiceName>,
}

impl fmt::Display for Reloading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { root, is_check, restarts, waiting_for, .. } = self;
        if *restarts {
            return write!(f, "restarts when {root} is reloaded");
        }
        let what = if *is_check { "checking a reload" } else { "reloading" };
        write!(f, "{what} with {root}")?;
        match waiting_for {
            Some(dependency) => write!(f, ", waiting for {dependency}"),
            None => Ok(()),
        }
    }
}

impl State {
    /// Returns what the members have prepared, in their order.
    fn take_prepared(&mut self) -> Vec<Box<dyn Member>> {
        self.progress.iter_mut().filter_map(|progress| progress.member.take()).collect()
    }
}

impl MemberProgress {
    fn new() -> Self {
        Self { aside: Aside::Requested, member: None }
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("root", &self.root).finish_non_exhaustive()
    }
}
