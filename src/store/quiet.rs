//! Services whose whole closure is down: a walk need not follow their dependents.
//!
//! A server that ends drops its services dependents first. Each of them fails, and each cascade
//! would visit all services that went down before it: a quadratic cost for a chain. So a cascade
//! marks its roots as *quiet*, together with the number of attempts that had begun and of edges
//! that had changed in the registry. As long as this number stays the same, everything that depends
//! on a quiet service is still down.

use super::{Phase, Store, walk::Member};
use crate::{
    numbers::ServiceIndex,
    sync::{AtomicU64, Ordering},
};

/// The smallest closure whose roots are marked. To visit a smaller one again costs less than to
/// read the numbers, which all attempts and changes of edges write.
pub(super) const LARGE: usize = if cfg!(loom) { 8 } else { 64 };

/// The number of attempts that have begun and of edges that have changed, in the whole registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity(u64);

/// The number of attempts that have begun.
pub(super) struct Begun(AtomicU64);

impl Begun {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts an attempt that has begun. Release: pairs with `load`, for the state of its slot.
    ///
    /// After the transition, so that a cascade which finds the attempt counted also finds its slot
    /// starting. A cascade whose load after its fence does not find it counted has executed its
    /// fence before that of the attempt, which then finds the dependencies condemned.
    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// Acquire: pairs with `increment`.
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The activity at which everything that depends on a service was down.
pub(super) struct QuietSince(AtomicU64);

impl QuietSince {
    /// Never: no activity is as large.
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }

    /// Release: pairs with `is`. The cascade has found or taken down all dependents before.
    fn set(&self, activity: Activity) {
        self.0.store(activity.0, Ordering::Release);
    }

    /// Acquire: pairs with `set`. A cascade that relies on the mark takes its own slots down after
    /// the dependents of the marked service have gone down (I1).
    fn get(&self) -> Option<Activity> {
        let activity = self.0.load(Ordering::Acquire);
        (activity != u64::MAX).then_some(Activity(activity))
    }
}

impl Store {
    /// Both numbers only grow, so their sum is the same only if both are.
    pub(super) fn activity(&self) -> Activity {
        Activity(self.topology.changes().wrapping_add(self.begun.load()))
    }

    /// Returns the activity, if a closure of this size is large enough to be marked.
    ///
    /// Read before the members are condemned: all of them are down at some time after this.
    pub(super) fn activity_for(&self, members: usize) -> Option<Activity> {
        (members >= LARGE).then(|| self.activity())
    }

    /// Returns the present activity, if everything that depends on the service is down as long as
    /// the activity does not change, and the service, too.
    pub(super) fn quiet_at(&self, service: ServiceIndex) -> Option<Activity> {
        if self.slot(service).state.load().phase() != Phase::Down {
            return None;
        }
        self.service(service).quiet_since.get().filter(|&marked| marked == self.activity())
    }

    /// Returns whether a service was marked as quiet, and the activity has not changed since.
    pub(super) fn any_quiet(&self) -> bool {
        self.last_quiet.get().is_some_and(|marked| marked == self.activity())
    }

    /// Marks the roots of a cascade that has ended, or all members if it has taken nothing down:
    /// the next failure of any of them then has nothing to search.
    ///
    /// `activity` was read before the cascade. All members were down at some time since then.
    pub(super) fn mark_quiet(&self, roots: &[Member], members: &[Member], activity: Activity) {
        let marked = if members.iter().any(Member::is_condemned) { roots } else { members };
        for member in marked {
            self.service(member.service).quiet_since.set(activity);
        }
        self.last_quiet.set(activity);
    }
}
