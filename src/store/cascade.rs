//! A cascade: the failure of one or several services, its *roots*, together with all their
//! transitive dependents.
//!
//! 1. **Condemn** every slot of the closure that is ready or starting to its next generation,
//!    dependencies before dependents. From then on nothing new is built from any of them. A slot
//!    that is down is left alone: it has no instance that could fail.
//! 2. Execute a fence, then check whether the closure has changed since it was read, and whether an
//!    attempt has begun at a slot that was left alone. If so, execute more passes until one of them
//!    finds no change.
//! 3. **Take down** every condemned slot, dependents before dependencies, so the roots last. A
//!    thread that observes the failure of a service therefore finds that all its dependents have
//!    failed (I1).
//! 4. Only then notify the waiters. No user code runs between the first and the third step.
//!
//! A slot is taken down only to the generation to which *this* cascade condemned it.
//!
//! The races are described where they are decided:
//!
//! - an attempt publishes an edge while a cascade reads the edges: `Store::condemn`;
//! - a member begins, restarts, or leaves the closure, during the cascade: `Store::condemn_again`;
//! - several cascades reach the same slot: `Store::take_down_slot`.
//!
//! The proof that a cascade misses nothing is in `docs/design.md`.

use std::collections::{HashMap, HashSet};

use super::{
    Decision, Phase, Store,
    history::{Cause, Exactly, NotCondemned, OldCauses},
    quiet::{Activity, LARGE},
    slot::Slot,
    state::{Tag, Transition, fence_before_check},
    walk::{Member, Walk},
};
use crate::{
    failure::{Cascade, Reason},
    numbers::{Generation, ServiceIndex},
    sync::{Pin, Shielded, pin},
};

/// What a cascade must end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The present generation, if the service is not down, and everything that depends on it.
    Any,
    /// Exactly this instance.
    Instance(Exactly),
}

impl Target {
    /// The present instance of a generation.
    pub(crate) fn any_revision(generation: Generation) -> Self {
        Self::Instance(Exactly { generation, revision: None, publication: None })
    }

    /// The present instance of a publication: `first` is the revision of its first instance.
    #[cfg(feature = "supervise")]
    pub(crate) fn publication(generation: Generation, first: u64) -> Self {
        Self::Instance(Exactly { generation, revision: None, publication: Some(first) })
    }
}

/// Why a cascade has not begun.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NotFailed {
    /// The generation of the instance has ended, or a cascade has condemned it.
    AlreadyFailed,
    /// The instance was replaced.
    Replaced,
}

/// A slot that was ready or starting when a cascade took it down.
pub(crate) struct FailedSlot {
    pub(crate) index: ServiceIndex,
    pub(crate) was: Tag,
}

/// The result of a cascade.
#[derive(Default)]
pub(crate) struct CascadeResult {
    pub(crate) counts: Cascade,
    /// The failed slots, dependencies first. Empty unless the caller has asked for them, or the
    /// registry is observed.
    pub(crate) failed_slots: Vec<FailedSlot>,
}

/// The slots that a cascade has condemned, and those that it has left alone, each before its
/// dependents.
pub(super) enum Condemned {
    /// One root without dependents: nothing is allocated.
    One([Member; 1]),
    Closure {
        /// The roots are among them.
        members: Vec<Member>,
        /// The members are the result of a complete walk from one root, and may be kept.
        is_walk: bool,
        /// Read before the members were condemned. `None` for a small closure.
        activity: Option<Activity>,
    },
}

impl Condemned {
    pub(super) fn members(&self) -> &[Member] {
        match self {
            Self::One(root) => root,
            Self::Closure { members, .. } => members,
        }
    }
}

impl Store {
    /// Fails `root` and all services that transitively depend on it. If the registry is observed,
    /// the result contains the failed slots. Returns an error if the target is an instance that is
    /// not current.
    ///
    /// Lock-free over the slots. It takes the lock of the history of the root for an exchange of
    /// pointers. At its end it wakes the waiters, which takes a short lock for each slot that has
    /// waiters. When it returns, no instance that the closure contained at the call can be read.
    pub(crate) fn fail(
        &self,
        root: ServiceIndex,
        target: Target,
        reason: Shielded<Reason>,
    ) -> Result<CascadeResult, NotFailed> {
        let (slot, history) = (self.slot(root), &self.service(root).history);
        let mut start = Member::new(self, root);
        #[cfg(feature = "supervise")]
        let with_groups = self.takes_groups_down(&reason);
        let exactly = match target {
            // The root keeps its generation and its cause. A root that another cascade has
            // condemned is failed nevertheless: that cascade may take it down only after this call
            // has returned.
            Target::Any if slot.state.load().phase() == Phase::Down => {
                #[cfg(feature = "supervise")]
                if with_groups {
                    return Ok(self.fail_with_groups(start, Some(&reason)));
                }
                let condemned = self.condemn(&[start], None);
                let deferred = self.blame(&[start], condemned.members(), |_| root, &reason);
                let result = self.take_down(&[start], &condemned, |_| root, false);
                drop(deferred);
                return Ok(result);
            }
            Target::Any => None,
            Target::Instance(exactly) => Some(exactly),
        };
        // The cause is stored before any slot is taken down, so that a thread that observes a
        // failure finds its cause.
        let deferred = match history.condemn(&slot.condemned, exactly, reason) {
            Ok((to, deferred)) => {
                start.to = to;
                deferred
            }
            Err(NotCondemned::AlreadyFailed) => return Err(NotFailed::AlreadyFailed),
            Err(NotCondemned::Replaced(pending)) => {
                if let Some(pending) = pending {
                    (self.service(root).operations.install)(self, root, pending);
                }
                return Err(NotFailed::Replaced);
            }
        };
        #[cfg(feature = "supervise")]
        if with_groups {
            let result = self.fail_with_groups(start, None);
            drop(deferred);
            return Ok(result);
        }
        let condemned = self.condemn(&[start], None);
        let result = self.take_down(&[start], &condemned, |_| root, false);
        drop(deferred);
        // Last, because no waiter needs it.
        if let Condemned::Closure { members, is_walk: true, .. } = &condemned {
            self.topology.keep_walk(self, root, members);
        }
        Ok(result)
    }

    /// Stores the cause of a cascade at those of its roots that are down, if the cascade will take
    /// down a dependent of the root. If not, those that went down with the root before keep their
    /// last cause.
    ///
    /// Called before the first slot is taken down. Returns the old causes, which the caller drops
    /// after the cascade.
    pub(super) fn blame(
        &self,
        roots: &[Member],
        members: &[Member],
        root_of: impl Fn(ServiceIndex) -> ServiceIndex,
        reason: &Shielded<Reason>,
    ) -> Vec<OldCauses> {
        let mut deferred = Vec::new();
        let down = roots.iter().filter(|root| !root.is_condemned()).map(|root| root.service);
        let mut down: HashSet<ServiceIndex> = down.collect();
        for member in members.iter().filter(|member| member.is_condemned()) {
            let root = root_of(member.service);
            if down.remove(&root) {
                // An attempt may have begun at the root, and have been condemned by a later pass.
                let ends = member.service == root;
                let generation = match ends {
                    true => member.to.previous().unwrap_or(Generation::FIRST),
                    false => self.slot(root).state.load().generation(),
                };
                let cause = Cause::new(generation, Shielded::new(Reason::clone(reason)));
                deferred.push(self.service(root).history.began_while_down(cause, ends));
            }
        }
        deferred
    }

    /// Condemns the closure of `roots`. The caller has already condemned the roots, apart from
    /// those that are down.
    ///
    /// # The race with an attempt that publishes an edge
    ///
    /// An attempt at `d` waits for a dependency `c` while a cascade condemns `c`:
    ///
    /// ```text
    /// attempt                                         cascade
    /// E   publish d -> c: list, version, validity     L   read validity, or version and list of c
    /// Fd  fence(SeqCst)                               A   condemn c
    /// R   read condemned(c)                           Fk  fence(SeqCst)
    ///                                                 C   read validity or version again
    /// ```
    ///
    /// One of the two fences comes first. This leads to three cases:
    ///
    ///  1. Fd comes first, and L has read the edge. Then `d` is condemned in this pass, and is
    ///     taken down before `c`. If R reads the old value of `condemned(c)`, the attempt has
    ///     received the instance of `c`: it is invalidated, or the instance that it has published
    ///     fails. If R reads the new value, the attempt has received nothing, and `d` is taken down
    ///     without need, which is harmless.
    ///  2. Fd comes first, and L has not read the edge. Then C sees E: the version of `c`, or the
    ///     validity of the precomputed closure, differs from what L has read. `condemn_again` walks
    ///     again and condemns `d`.
    ///  3. Fk comes first. Then R sees A: the attempt does not use the instance of `c`, and waits.
    ///     Whether this cascade finds the edge does not matter.
    ///
    /// If one of the fences were missing, R could read the old value of `condemned(c)`, and C the
    /// old version. Then `d` would stay ready, built from an instance that has failed (I2).
    ///
    /// If the entry of `d` was crossed out before L, the generation that used the edge has ended,
    /// or its attempt has been published without an instance of `c`. There is nothing to take down.
    ///
    /// A member that is down is left alone. The check after Fk reads its state again: if it is
    /// still down, an attempt that begins later executes its fence after Fk (case 3). If an
    /// attempt has begun, `condemn_again` condemns the slot.
    ///
    /// If the edge is declared as start-only, a walk does not follow it if it finds `d` ready. `d`
    /// may then fail, and begin an attempt that receives the instance of `c`. In case 1 the check
    /// after Fk finds `d` starting, because the attempt began before Fd, and `condemn_again` walks
    /// again. If the check finds `d` ready, the attempt was published before `c` is taken down.
    ///
    /// A restart of `d` needs no case here. Assume that this cascade has condemned `d`, that
    /// another cascade then takes `d` down, and that a new attempt begins at `d`. The first pass
    /// condemns `c` before `d`, and the attempt acquires `condemned(d)` when it begins. So it
    /// finds `c` condemned, too, and waits. This is why no condemned slot is checked for a restart
    /// after the first pass.
    ///
    /// This holds for a single root. Of several roots one may depend on another one, and may have
    /// been condemned before it. So a root that is a dependent is checked for a restart.
    pub(super) fn condemn(&self, roots: &[Member], within: Option<&Decision>) -> Condemned {
        let one = match roots {
            [root] => Some(*root),
            _ => None,
        };
        // No dependent, now and after the fence: there is nothing to walk.
        if let Some(root) = one.filter(Member::is_leaf) {
            fence_before_check();
            if root.is_unchanged(self) {
                return Condemned::One([root]);
            }
        }
        let pin = &pin();
        let precomputed = one.and_then(|root| {
            let (number, closure) = self.service(root.service).closure.load(pin)?;
            // If nothing has begun since services were marked as quiet, a walk may have much less
            // to visit than a large closure has members.
            let prefers_walk = closure.len() >= LARGE && self.any_quiet();
            (!prefers_walk).then_some((root, number, closure))
        });
        // Whether a member must be read again after the fence.
        let mut any_to_check = false;
        let slots = self.slots();
        let mut condemn = |member: &mut Member| {
            let slot = slots(member.service);
            match slot.state.load().phase() {
                Phase::Down => any_to_check = true,
                Phase::Starting | Phase::Ready => member.to = slot.condemned.increment(),
            }
        };
        let (computed, activity, mut walk) = match precomputed {
            Some((root, number, closure)) => {
                let activity = self.activity_for(closure.len());
                (Some((root, number)), activity, Walk::precomputed(root, closure, condemn))
            }
            None => {
                let starts: Vec<ServiceIndex> = roots.iter().map(|root| root.service).collect();
                let mut walk = self.walk(&starts, pin);
                let activity = self.activity_for(walk.members.len());
                for member in &mut walk.members {
                    match roots.binary_search_by_key(&member.service, |root| root.service) {
                        Ok(at) => member.to = roots[at].to,
                        Err(_) => condemn(member),
                    }
                }
                // One of several roots may be a dependent of another one.
                any_to_check |= one.is_none();
                (None, activity, walk)
            }
        };
        let members = std::mem::take(&mut walk.members);
        fence_before_check();
        // Cases 1 and 3: no list of the closure has changed.
        let is_complete = match computed {
            Some((root, number)) => self.service(root.service).closure.is_unchanged_since(number),
            // The dependents first: a switch that is completed before this has changed a list.
            None => {
                !walk.has_passed_over_a_dependent(self, within)
                    && members.iter().all(|member| member.is_unchanged(self))
                    && walk.pruned_at.is_none_or(|activity| self.activity() == activity)
            }
        };
        let is_missed = |member: &Member| self.is_missed(&walk, member);
        if is_complete && !(any_to_check && members.iter().any(is_missed)) {
            let is_complete = walk.pruned_at.is_none() && !walk.is_conditional();
            let is_walk = one.is_some() && computed.is_none() && is_complete;
            return Condemned::Closure { members, is_walk, activity };
        }
        let members = self.condemn_again(roots, &members, within, pin);
        Condemned::Closure { members, is_walk: false, activity: None }
    }

    /// Returns whether a pass must condemn a member: it is a dependent, it is not down, and it has
    /// never been condemned (`to` is the first generation) or has restarted.
    fn is_missed(&self, walk: &Walk, member: &Member) -> bool {
        let state = self.slot(member.service).state.load();
        state.phase() != Phase::Down
            && state.generation() >= member.to
            && walk.is_dependent(member.service)
    }

    /// Walks until the edges that were read form no cycle. They may form one, because they are read
    /// at different times; the graph itself is acyclic.
    pub(super) fn walk(&self, starts: &[ServiceIndex], pin: &Pin) -> Walk {
        loop {
            if let Some(walk) = Walk::new(self, starts, |service| self.quiet_at(service), pin) {
                return walk;
            }
        }
    }

    /// Walks again, and condemns the services that the last pass has missed, until a pass finds no
    /// change.
    ///
    /// # Services that begin, restart, or leave the closure, during the cascade
    ///
    /// A pass condemns each dependent in its walk that is not down and
    ///
    ///  1. was never condemned: it is new in the closure, or an attempt has begun at it since a
    ///     pass found it down;
    ///  2. or has restarted: its state has reached the generation to which this cascade condemned
    ///     it, so another cascade has taken it down, and an attempt has begun since then.
    ///
    /// Every other member is condemned only once, because it is taken down only once. A start of
    /// the walk that is no dependent of another member is built from no member, so it needs no
    /// second generation. This includes a root that was down.
    ///
    /// A member whose edge was removed is still condemned. This cascade must take it down (A3),
    /// or no attempt would ever begin at it (A1). Therefore, each pass starts from *all* slots
    /// that were condemned, not only from the root: the dependents of such a member must fail
    /// before it (I1).
    pub(super) fn condemn_again(
        &self,
        roots: &[Member],
        first: &[Member],
        within: Option<&Decision>,
        pin: &Pin,
    ) -> Vec<Member> {
        let condemned = first.iter().filter(|member| member.is_condemned());
        let mut to: HashMap<ServiceIndex, Generation> =
            condemned.map(|member| (member.service, member.to)).collect();
        loop {
            let roots = roots.iter().map(|root| root.service);
            let starts: Vec<ServiceIndex> = roots.chain(to.keys().copied()).collect();
            let mut walk = self.walk(&starts, pin);
            let mut members = std::mem::take(&mut walk.members);
            for member in &mut members {
                member.to = to.get(&member.service).copied().unwrap_or(Generation::FIRST);
                if self.is_missed(&walk, member) {
                    member.to = self.slot(member.service).condemned.increment();
                    to.insert(member.service, member.to);
                }
            }
            fence_before_check();
            // All checks read after the fence. If one of them finds a change, a later pass must
            // condemn the slots that this change concerns. The dependents first, as in `condemn`.
            if !walk.has_passed_over_a_dependent(self, within)
                && members.iter().all(|member| member.is_unchanged(self))
                && walk.pruned_at.is_none_or(|activity| self.activity() == activity)
                && !members.iter().any(|member| self.is_missed(&walk, member))
            {
                return members;
            }
        }
    }

    /// Takes all condemned slots down, dependents before dependencies. Then wakes their waiters,
    /// dependencies first. `root_of` names the root over which a service was reached. The failed
    /// slots are recorded if `record` is set, or if the registry is observed.
    pub(super) fn take_down(
        &self,
        roots: &[Member],
        condemned: &Condemned,
        root_of: impl Fn(ServiceIndex) -> ServiceIndex,
        record: bool,
    ) -> CascadeResult {
        let (result, had_waiters) = self.take_down_slots(roots, condemned, root_of, record);
        // Not before all slots are down: a waker is user code, which may read other services of
        // the closure, and so is the `Drop` of a value that a provider has abandoned.
        for &service in had_waiters.iter().rev() {
            self.wake_after_transition(service);
        }
        result
    }

    /// As `take_down`, without a wake-up. Returns the slots that had waiters, dependents first.
    #[inline]
    pub(super) fn take_down_slots(
        &self,
        roots: &[Member],
        condemned: &Condemned,
        root_of: impl Fn(ServiceIndex) -> ServiceIndex,
        record: bool,
    ) -> (CascadeResult, Vec<ServiceIndex>) {
        let mut result = CascadeResult::default();
        let mut had_waiters = Vec::new();
        let slots = self.slots();
        for &Member { service, to, .. } in condemned.members().iter().rev() {
            // It was left alone.
            if to == Generation::FIRST {
                continue;
            }
            let root = root_of(service);
            // If another cascade has taken the slot down, that one counts it and notifies its
            // waiters.
            let Some(transition) = take_down_slot(slots(service), to, root) else { continue };
            self.count_ended(service, transition.from, to);
            if transition.had_waiters {
                had_waiters.push(service);
            }
            match transition.from.phase() {
                Phase::Ready => result.counts.failed += 1,
                Phase::Starting => result.counts.invalidated += 1,
                // Another cascade or the attempt itself was faster: only the generation has
                // changed.
                Phase::Down => continue,
            }
            // After the transition: the listing of an observer added since then showed the old one.
            if record || self.observed.get() {
                result.failed_slots.push(FailedSlot { index: service, was: transition.from });
            }
        }
        result.failed_slots.reverse();
        if let Condemned::Closure { members, activity: Some(activity), .. } = condemned {
            self.mark_quiet(roots, members, *activity);
        }
        (result, had_waiters)
    }
}

/// Moves a slot to the generation to which this cascade has condemned it, and to `Down`. Returns
/// `None` if the slot has already reached that generation.
///
/// # Overlapping cascades
///
/// Each increment of `condemned` has a different result. So if two cascades K and K' have
/// condemned the slot, one of them, say K', has the higher generation: `K(s) < K'(s)`.
///
///  1. K comes first. It takes the slot down to `K(s)`, and K' takes it down again later. No
///     attempt begins in between, because the state is below `condemned` (A1).
///  2. K' comes first. The state is beyond `K(s)`, and K leaves the slot as it is. K' has
///     taken all dependents down before it, and K observes this by the Acquire of its load.
///  3. Both try at the same time. One of the two compare-and-swaps fails and reads the new
///     state. This leads to case 1 or 2.
///  4. K' came first, and the slot has restarted since. K leaves it as it is, too. If the new
///     attempt may have used a member of K, then a pass of K has condemned the slot again, and
///     `K(s)` is beyond the generation of this attempt.
///
/// K never takes the slot down to `K'(s)`, although it could read this value in `condemned`.
/// K' may not have taken the dependents of the slot down yet, and a thread could observe the
/// failure of the slot before theirs (I1).
#[inline]
fn take_down_slot(slot: &Slot, to: Generation, root: ServiceIndex) -> Option<Transition> {
    // Before the transition, so that a thread that observes the failure finds a root. If K and
    // K' both store their root here, the slot names one of them.
    slot.state.take_down(to, || slot.failed_by.set(root))
}
