//! A cascade with several roots: the steps of `cascade.rs`, over the closure of all roots together.

use std::collections::{BTreeSet, HashMap};

#[cfg(feature = "supervise")]
use super::Decision;
use super::{
    Phase, Store,
    cascade::{CascadeResult, Condemned},
    history::OldCauses,
    walk::{Member, is_followed},
};
use crate::{
    failure::Reason,
    numbers::ServiceIndex,
    sync::{Shielded, pin},
};

impl Store {
    /// Fails all `roots`, and all services that transitively depend on one of them, as one cascade.
    /// The result contains the failed slots. Its progress is that of `fail`.
    pub(crate) fn fail_all(
        &self,
        roots: &BTreeSet<ServiceIndex>,
        reason: &Shielded<Reason>,
    ) -> CascadeResult {
        let (roots, mut deferred) = self.condemn_roots(roots, reason);
        #[cfg(feature = "supervise")]
        if !roots.is_empty() && self.takes_groups_down(reason) {
            let (starts, condemned, root_of) = self.condemn_with_groups(&roots);
            let root_of = |service| root_of.get(&service).copied().unwrap_or(roots[0].service);
            deferred.extend(self.blame(&roots, condemned.members(), root_of, reason));
            let mut result = self.take_down(&starts, &condemned, root_of, true);
            drop(deferred);
            result.put_first(&roots);
            return result;
        }
        let condemned = self.condemn(&roots, None);
        let root_of = self.roots_of(&roots, &condemned);
        let root_of = |service| root_of.get(&service).copied().unwrap_or(roots[0].service);
        deferred.extend(self.blame(&roots, condemned.members(), root_of, reason));
        let result = self.take_down(&roots, &condemned, root_of, true);
        drop(deferred);
        result
    }

    /// As `fail_all`, for a reason that is planned, within a switch, which it does not abort. It
    /// wakes no waiter, and so runs no user code: a lock may be held. The caller drops the causes,
    /// and wakes the slots that had waiters, which are returned dependents first.
    #[cfg(feature = "supervise")]
    pub(super) fn fail_all_within(
        &self,
        decision: &Decision,
        roots: &BTreeSet<ServiceIndex>,
        reason: &Shielded<Reason>,
    ) -> (CascadeResult, Vec<OldCauses>, Vec<ServiceIndex>) {
        let (roots, mut deferred) = self.condemn_roots(roots, reason);
        let condemned = self.condemn(&roots, Some(decision));
        let root_of = self.roots_of(&roots, &condemned);
        let root_of = |service| root_of.get(&service).copied().unwrap_or(roots[0].service);
        deferred.extend(self.blame(&roots, condemned.members(), root_of, reason));
        let (result, had_waiters) = self.take_down_slots(&roots, &condemned, root_of, true);
        (result, deferred, had_waiters)
    }

    /// Condemns the roots, and stores the cause at each of them. Returns the old causes, which the
    /// caller drops after the cascade.
    fn condemn_roots(
        &self,
        roots: &BTreeSet<ServiceIndex>,
        reason: &Shielded<Reason>,
    ) -> (Vec<Member>, Vec<OldCauses>) {
        let mut deferred = Vec::new();
        let start = |&root: &ServiceIndex| {
            let mut start = Member::new(self, root);
            let slot = self.slot(root);
            // As `fail` does: a root that is down is left alone.
            if slot.state.load().phase() != Phase::Down {
                let reason = Shielded::new(Reason::clone(reason));
                if let Ok((to, old)) =
                    self.service(root).history.condemn(&slot.condemned, None, reason)
                {
                    start.to = to;
                    deferred.push(old);
                }
            }
            start
        };
        // In the order of the indices, as `condemn` expects.
        let roots = roots.iter().map(start).collect();
        (roots, deferred)
    }

    /// Returns for each member a root on which it depends. A root is its own.
    ///
    /// A member that has left the closure since it was condemned may be missing.
    fn roots_of(
        &self,
        roots: &[Member],
        condemned: &Condemned,
    ) -> HashMap<ServiceIndex, ServiceIndex> {
        let pin = pin();
        let mut root_of: HashMap<ServiceIndex, ServiceIndex> =
            roots.iter().map(|root| (root.service, root.service)).collect();
        // Each member before its dependents.
        for member in condemned.members() {
            let Some(&root) = root_of.get(&member.service) else { continue };
            let list = self.slot(member.service).dependents().iter(&pin);
            for entry in list.filter(|&entry| is_followed(self, entry)) {
                root_of.entry(entry.dependent).or_insert(root);
            }
        }
        root_of
    }
}
