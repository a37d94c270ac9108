//! Groups of services that fail together, give up together, and are restarted together (S18).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    StopWait, SupervisorState,
    failure_counter::{Decision, FailureCounter},
    retrying::{Delay, Until},
    supervisor::ServiceLoop,
};
use crate::{
    ServiceSet,
    error::{GroupError, GroupGivenUp},
    failure::{Failure, Reason},
    numbers::ServiceIndex,
    provide::Attempt,
    registry::{Command, GivenUp, Group, Registry},
    store::{Phase, Store},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// When a [group](Registry::group) gives up.
///
/// ```
/// use mainstay::supervise::GroupPolicy;
/// use std::time::Duration;
///
/// let policy = GroupPolicy::default().max_failures(5, Duration::from_secs(60));
/// # let _ = policy;
/// ```
#[derive(Debug, Clone, Default)]
pub struct GroupPolicy {
    max_failures: Option<(u32, Duration)>,
}

impl GroupPolicy {
    /// Limits the counted failures of all members together within a sliding window of time: with
    /// one more, the group gives up. Default: no limit.
    ///
    /// A failure is counted if it is counted against the member in which it began: see
    /// [`RestartPolicy`](crate::supervise::RestartPolicy), whose limits count beside this one. No
    /// two failures fall into a window of [`Duration::ZERO`].
    ///
    /// ```
    /// use mainstay::supervise::GroupPolicy;
    /// use std::time::Duration;
    ///
    /// // After the sixth failure within a minute, the group gives up.
    /// let policy = GroupPolicy::default().max_failures(5, Duration::from_secs(60));
    /// # let _ = policy;
    /// ```
    #[must_use]
    pub fn max_failures(self, failures: u32, within: Duration) -> Self {
        Self { max_failures: Some((failures, within)) }
    }
}

/// A group of services that fail together; returned by [`Registry::group`].
///
/// A handle: clones refer to the same group, and the group exists as long as its registry, whether
/// there is a handle or not.
///
/// ```
/// use mainstay::{Instance, Registry, supervise::GroupPolicy};
/// use std::thread;
///
/// let registry = Registry::with_capacity(2)?;
/// let (cache, index) = (registry.register::<u8>("cache")?, registry.register::<u8>("index")?);
/// let group = registry.group([cache, index], GroupPolicy::default())?;
/// for id in [cache, index] {
///     let supervisor = registry.supervise(id)?;
///     thread::spawn(|| supervisor.run_blocking(|_| 1));
///     registry.wait_ready(id).wait_blocking()?;
/// }
///
/// assert_eq!(registry.fail(cache, "corrupt")?.failed, 2);
/// let new = registry.wait_ready(index).wait_blocking()?;
/// assert_eq!(Instance::generation(&new), 1);
/// let failure = registry.status(index)?.last_failure.unwrap();
/// assert_eq!(failure.to_string(), "index failed because cache failed");
/// assert_eq!(group.status().failures, 0, "there is no limit");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ServiceGroup {
    registry: Registry,
    services: ServiceSet,
    group: Arc<Group>,
}

/// The status of a [`ServiceGroup`].
///
/// ```
/// use mainstay::{Registry, supervise::GroupPolicy};
///
/// let registry = Registry::with_capacity(1)?;
/// let cache = registry.register::<u8>("cache")?;
/// let status = registry.group(cache, GroupPolicy::default())?.status();
/// assert_eq!(status.failures, 0);
/// assert!(status.given_up.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The number of failures in the present window, by the clock of the registry; 0 if the policy
    /// has no limit.
    pub failures: usize,
    /// Why, and since when, the group has given up. `None` if it has not.
    pub given_up: Option<GroupGivenUp>,
}

impl ServiceGroup {
    /// Returns the members.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::GroupPolicy};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let cache = registry.register::<u8>("cache")?;
    /// let group = registry.group(cache, GroupPolicy::default())?;
    /// assert!(group.services().contains(cache));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn services(&self) -> &ServiceSet {
        &self.services
    }

    /// Returns the number of failures, and whether the group has given up.
    ///
    /// Blocking: takes a lock for a short time.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::GroupPolicy};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let cache = registry.register::<u8>("cache")?;
    /// assert!(registry.group(cache, GroupPolicy::default())?.status().given_up.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self) -> GroupStatus {
        // The clock is user code.
        let now = self.registry.supervisors().now();
        let given_up = self.group.given_up();
        GroupStatus {
            failures: now.map_or(0, |now| self.group.failures(now)),
            given_up: given_up.map(|given_up| GroupGivenUp::clone(&given_up)),
        }
    }

    /// Restarts all members as planned, in one operation, also if the group has given up.
    ///
    /// As [`Registry::restart`] of each member: all members and their hard dependents stop,
    /// dependents first, and none begins before all have stopped. The failures of the group and of
    /// its members are forgotten. [Constants](Registry::constant) stay as they are.
    ///
    /// # Errors
    ///
    /// As [`Registry::restart`], for the member that was registered first.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::GroupPolicy};
    /// use std::thread;
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let (cache, index) = (registry.register::<u8>("cache")?, registry.register::<u8>("index")?);
    /// let group = registry.group([cache, index], GroupPolicy::default())?;
    /// for id in [cache, index] {
    ///     let supervisor = registry.supervise(id)?;
    ///     thread::spawn(|| supervisor.run_blocking(|_| 1));
    ///     registry.wait_ready(id).wait_blocking()?;
    /// }
    /// let report = group.restart("edited").wait_blocking()?;
    /// assert_eq!(report.stopped.len(), 2);
    /// registry.wait_ready(index).wait_blocking()?;
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(&self, why: impl Into<Arc<str>>) -> StopWait {
        self.registry.restart_group(&self.group, why.into())
    }
}

impl fmt::Debug for ServiceGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceGroup").field("services", &self.services).finish_non_exhaustive()
    }
}

impl Registry {
    /// Makes a group of services that fail together: whose state is only valid together.
    ///
    /// *One for all*: if a member fails, for any reason that is not planned, all other members fail
    /// in the same cascade, with everything that depends on them. Attempts in progress are
    /// invalidated, and members that are down are left alone. It does not matter whether the
    /// failure began in the member, or in a dependency of it outside of the group. The failures of
    /// the others name the service in which it began, and are not counted against them. An edge
    /// still decides the order: dependents are down before their dependencies. A build that fails
    /// takes no other member down, and neither does a planned end of a member: a restart, a stop,
    /// a shutdown.
    ///
    /// *One limit*: each failure that is counted against a member counts for the group. With one
    /// more than the [limit](GroupPolicy::max_failures), or if a member gives up by its own policy,
    /// the group *gives up*: all members go down in one cascade, with the reason
    /// [`GroupGivenUp`](crate::error::GroupGivenUp), and the state of their supervisors is
    /// [`GivenUp`](SupervisorState::GivenUp).
    ///
    /// *Restarted as one*: a group that has given up stays down until
    /// [`ServiceGroup::restart`], or a [restart](Registry::restart) or a start of one of its
    /// members. Then all members begin again, and their failures are forgotten. A change of an
    /// input ends it for no member, whatever the policies of the members say.
    ///
    /// A service is in at most one group, and stays in it. A member may depend on another one, and
    /// need not be supervised: then nothing is counted for it, nothing holds it down when the group
    /// gives up, and a [constant](Registry::constant) ends for good. In a registry with a group,
    /// each failure searches the dependents once more.
    ///
    /// Blocking: takes locks for a short time.
    ///
    /// # Errors
    ///
    /// [`GroupError`]: an id belongs to another registry, a service is in a group already, or there
    /// are no services.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::GroupPolicy};
    /// use std::time::Duration;
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let cache = registry.register::<u8>("cache")?;
    /// let index = registry.register::<u32>("index")?;
    /// let policy = GroupPolicy::default().max_failures(5, Duration::from_secs(60));
    /// registry.group((cache, index), policy)?;
    ///
    /// let (provide_cache, provide_index) = (registry.provide(cache)?, registry.provide(index)?);
    /// let _cache = provide_cache.begin().wait_blocking()?.ready(1)?;
    /// let _index = provide_index.begin().wait_blocking()?.ready(2)?;
    /// registry.fail(cache, "corrupt")?;
    /// assert!(registry.get(index).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn group(
        &self,
        services: impl Into<ServiceSet>,
        policy: GroupPolicy,
    ) -> Result<ServiceGroup, GroupError> {
        let services = services.into();
        let members = services.iter().map(|id| self.index(id));
        let members = members.collect::<Result<Arc<[ServiceIndex]>, _>>()?;
        if members.is_empty() {
            return Err(GroupError::Empty);
        }
        let group = self.supervisors().add_group(self.store(), members, policy.max_failures);
        let in_group = |service| GroupError::InGroup { service: self.store().name(service) };
        Ok(ServiceGroup { registry: self.clone(), services, group: group.map_err(in_group)? })
    }

    /// Takes all members of a group down that has given up.
    fn end_group(&self, group: &Group, why: &GroupGivenUp) {
        let is_up = |&&service: &&ServiceIndex| {
            self.store().slot(service).state.load().phase() != Phase::Down
        };
        // One that is down now, and begins later, asks the group (`group_refuses`).
        let up = group.services.iter().filter(is_up).copied().collect();
        self.cascade_all(&up, &Reason::error(why.clone()));
        // Those that wait for a retry.
        self.wake_group(group);
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Returns the group of the service.
    pub(super) fn group(&self) -> Option<Arc<Group>> {
        let supervisors = self.registry().supervisors();
        supervisors.places.exist().then(|| supervisors.groups.of(self.id().index()))?
    }

    /// Returns why the group of the service has given up, if it has. A failure that is counted may
    /// be the reason: `counted` is its time, and what follows it by the service's own policy.
    pub(super) fn group_gives_up(
        &self,
        failed: &Failure,
        counted: Option<(Instant, &Decision)>,
    ) -> Option<GivenUp> {
        let group = self.group()?;
        if let Some(given_up) = group.given_up() {
            return Some(given_up);
        }
        let (since, decision) = counted?;
        let is_too_many = group.count(since);
        if !is_too_many && *decision != Decision::GiveUp {
            return None;
        }
        let (given_up, is_first) = group.give_up(failed);
        if is_first {
            self.registry().end_group(&group, &given_up);
        }
        Some(given_up)
    }

    /// Ends an attempt that has begun if the group has given up. Returns whether it has.
    ///
    /// The attempt has begun, and then the group is asked, under its lock. The group gives up under
    /// this lock, and then its members are read. So the attempt finds that the group has given up,
    /// or the group finds the attempt, and takes it down.
    pub(super) fn group_refuses(&self, attempt: &mut Attempt<T>) -> bool {
        let Some(given_up) = self.group().and_then(|group| group.given_up()) else { return false };
        let _ = attempt.end(Reason::error(GroupGivenUp::clone(&given_up)));
        true
    }

    /// Waits for the retry of a member. If the group gives up before that, waits for the restart
    /// of the group. Returns `false` if the service must stop.
    pub(super) async fn wait_in_group(
        &self,
        group: &Group,
        delay: &mut Delay,
        counter: &mut FailureCounter,
    ) -> bool {
        let (store, index) = (self.registry().store(), self.id().index());
        let gives_up = |given_up| Wait::new(GroupChanges { store, index, group, given_up });
        if !matches!(delay.until, Until::Group) {
            let alone = async { Some(self.wait_alone(delay, counter).await) };
            let given_up = async {
                gives_up(true).await;
                None
            };
            if let Some(continues) = or(given_up, alone).await {
                return continues;
            }
            delay.until = Until::Group;
            if let Some(why) = group.given_up() {
                self.set_down(SupervisorState::GivenUp, counter.failures(), &why.failure);
            }
        }
        let command = async { Some(Wait::new(self.command_wait()).await) };
        let restarted = async {
            gives_up(false).await;
            None
        };
        if let Some(Command::Stop) = or(command, restarted).await {
            return false;
        }
        counter.reset();
        true
    }
}

/// A group has given up, or has been restarted since.
struct GroupChanges<'a> {
    store: &'a Store,
    index: ServiceIndex,
    group: &'a Group,
    given_up: bool,
}

impl Condition for GroupChanges<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        (self.group.given_up().is_some() == self.given_up).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}
