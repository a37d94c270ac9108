//! A cascade: the failure of one service, the *root*, together with all its transitive dependents.
//!
//! 1. **Condemn** every slot of the closure to its next generation, dependencies before dependents.
//!    From then on nothing new is built from any of them.
//! 2. Execute a fence, then check whether the closure has gained a member since it was read. If so,
//!    execute more passes until one of them finds no change.
//! 3. **Take down** every slot, dependents before dependencies, so the root last. A thread that
//!    observes the failure of a service therefore finds that all its dependents have failed (I1).
//! 4. Only then notify the waiters. No user code runs between the first and the third step.
//!
//! A slot is taken down only to the generation to which *this* cascade condemned it.
//!
//! The races are described where they are decided:
//!
//! - an attempt publishes an edge while a cascade reads the edges: `Store::condemn`;
//! - a member restarts, or leaves the closure, during the cascade:
//!   `Store::condemn_after_edge_changes`;
//! - several cascades reach the same slot: `Store::take_down_slot`.
//!
//! The proof that a cascade misses nothing is in `docs/design.md`.

use std::collections::HashMap;

use super::{
    Cause, Phase, Store,
    closure_cache::Closure,
    state::{Tag, Transition, fence_before_check},
    walk::Walk,
};
use crate::{
    failure::{Cascade, Reason},
    numbers::{Generation, ServiceIndex},
    sync::{Pin, Shielded, pin},
};

/// The generation that a cascade must end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The present generation, unless the service is down.
    Any,
    /// Exactly this generation.
    Generation(Generation),
}

/// A slot, and the generation to which one cascade has condemned it.
#[derive(Debug, Clone, Copy)]
struct CondemnedSlot {
    service: ServiceIndex,
    to: Generation,
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
    /// The failed slots, dependencies first. Empty unless the caller has asked for them.
    pub(crate) failed_slots: Vec<FailedSlot>,
}

impl Store {
    /// Fails `root` and all services that transitively depend on it. If `record` is set, the result
    /// contains the failed slots. Returns `None` if the target is a generation that another thread
    /// has already failed.
    ///
    /// Lock-free over the slots. At its end it wakes the waiters, which takes a short lock for
    /// each slot that has waiters. When it returns, no instance that the closure contained at the
    /// call can be read.
    pub(crate) fn fail(
        &self,
        root: ServiceIndex,
        target: Target,
        reason: Shielded<Reason>,
        record: bool,
    ) -> Option<CascadeResult> {
        let slot = self.slot(root);
        // Condemns the root. `increment_from` returns early if another thread has condemned exactly
        // this generation: the cascade of that thread takes it down.
        let to = match target {
            // Nothing to do: no instance of a service that is down can be read, and its
            // dependents were taken down before it (I1). A service that another cascade has
            // condemned is failed nevertheless: that cascade may take it down only after this
            // call has returned.
            Target::Any if slot.state.load().phase() == Phase::Down => {
                return Some(CascadeResult::default());
            }
            Target::Any => slot.condemned.increment(),
            Target::Generation(generation) => slot.condemned.increment_from(generation)?,
        };
        // The cause is stored before any slot is taken down, so that a thread that observes a
        // failure finds its cause.
        let deferred = Cause::store_in(
            &self.service(root).cause,
            to.previous().unwrap_or(Generation::FIRST),
            reason,
        );

        let (condemned, cacheable_at) = self.condemn(CondemnedSlot { service: root, to }, &pin());
        let (result, had_waiters) = self.take_down(root, &condemned, record);
        // All slots are down, so user code may run from here on: wakers, and the `Drop` of reasons.
        for service in had_waiters {
            self.service(service).changed.wake_all();
        }
        drop(deferred);
        // Last, because no waiter needs the cached closure.
        if let Some(changes) = cacheable_at {
            let members = condemned.iter().map(|condemned| condemned.service).collect();
            self.service(root)
                .closure_cache
                .store(Closure { members, changes }, &self.cache_budget);
        }
        Some(result)
    }

    /// Condemns the closure of `root`. The caller has already condemned the root itself.
    ///
    /// Returns all condemned slots, each before its dependents. If they are the result of a walk,
    /// and no edge has changed during this walk, it also returns the number of edge changes for
    /// which they may be cached.
    ///
    /// # The race with an attempt that publishes an edge
    ///
    /// An attempt at `d` waits for a dependency `c` while a cascade condemns `c`:
    ///
    /// ```text
    /// attempt                                         cascade
    /// E   publish d -> c: list, gained, changes       L   read changes, gained and the list of c
    /// Fd  fence(SeqCst)                               A   condemn c
    /// R   read condemned(c)                           Fk  fence(SeqCst)
    ///                                                 C   read gained or changes again
    /// ```
    ///
    /// One of the two fences comes first. This leads to three cases:
    ///
    ///  1. Fd comes first, and L has read the edge. Then `d` is condemned in this pass, and is
    ///     taken down before `c`. If R reads the old value of `condemned(c)`, the attempt has
    ///     received the instance of `c`: it is invalidated, or the instance that it has published
    ///     fails. If R reads the new value, the attempt has received nothing, and `d` is taken down
    ///     without need, which is harmless.
    ///  2. Fd comes first, and L has not read the edge. Then C sees E: `gained` or the number of
    ///     changes differs from what L has read. `condemn_after_edge_changes` walks again and
    ///     condemns `d`.
    ///  3. Fk comes first. Then R sees A: the attempt does not use the instance of `c`, and waits.
    ///     Whether this cascade finds the edge does not matter.
    ///
    /// If one of the fences were missing, R could read the old value of `condemned(c)`, and C the
    /// old value of `gained`. Then `d` would stay ready, built from an instance that has failed
    /// (I2).
    ///
    /// If the entry of `d` was crossed out before L, the generation that used the edge has ended.
    /// There is nothing to take down.
    ///
    /// A restart of `d` needs no case here. Assume that this cascade has condemned `d`, that
    /// another cascade then takes `d` down, and that a new attempt begins at `d`. The first pass
    /// condemns `c` before `d`, and the attempt acquires `condemned(d)` when it begins. So it
    /// finds `c` condemned, too, and waits. This is why no slot is checked for a restart after
    /// the first pass.
    fn condemn(&self, root: CondemnedSlot, pin: &Pin) -> (Vec<CondemnedSlot>, Option<u64>) {
        let mut condemned = Vec::new();
        let condemn = |service| match service == root.service {
            // The caller has condemned the root, possibly to a certain generation only.
            true => root,
            false => CondemnedSlot { service, to: self.slot(service).condemned.increment() },
        };
        // Read before the cached closure and before the walk: an edge that is added later changes
        // it.
        let changes = self.topology.changes();
        if let Some(closure) = self.service(root.service).closure_cache.load(changes, pin) {
            // The number of changes is still the one for which this closure was cached, so its walk
            // need not be repeated.
            condemned.extend(closure.iter().map(|&service| condemn(service)));
            fence_before_check();
            // Case 1: no edge of the registry has changed up to the fence, so the closure was still
            // valid. It is cached already.
            if self.topology.changes() == changes {
                return (condemned, None);
            }
            // Perhaps case 2. A cached closure has no `gained` of its members, by which a change of
            // unrelated edges could be distinguished.
        } else if let Some(walk) = Walk::new(self, &[root.service], pin) {
            condemned.extend(walk.dependencies_first().map(condemn));
            fence_before_check();
            // Case 1: no edge of the registry has changed since before the walk. The next cascade
            // may use the result for as long as this number stays the same.
            if self.topology.changes() == changes {
                return (condemned, Some(changes));
            }
            // Case 1, too: edges have changed, but no member has gained a dependent. The walk is
            // complete. It is not cached, because it is not known whether it read its lists
            // before or after these changes.
            if walk.is_complete(self) {
                return (condemned, None);
            }
            // Case 2: a member has gained a dependent that the walk may have missed.
        } else {
            // Edges changed while the walk read them, and the edges that it read form a cycle. A
            // cycle has no order in which it could be condemned. The passes walk again.
            condemned.push(root);
        }
        (self.condemn_after_edge_changes(condemned, pin), None)
    }

    /// Executes passes until one of them finds no change. This is the rare part of `condemn`: edges
    /// changed during the cascade.
    ///
    /// A pass walks from all slots that this cascade has condemned, condemns what is new,
    /// executes the fence, and checks again. The race of each edge is the one that `condemn`
    /// describes, with the same three cases. In addition, a later pass condemns services *after*
    /// some of their dependents, so it must check for restarts.
    ///
    /// # A member that restarts
    ///
    /// Let this cascade have condemned `d` to `to` and then, in a later pass, a dependency `c` of
    /// `d`. Between the two, another cascade may take `d` down to `to` or beyond. A new attempt
    /// at `d` may begin and use `c`, which is not condemned yet. The check reads the state of `d`
    /// after the fence, and finds one of these cases:
    ///
    ///  1. A generation below `to`. The state has not reached `to`, so this cascade will take `d`
    ///     down, with all that was built from it.
    ///  2. `Down`, in `to` or beyond. Another cascade has taken `d` down, and `d` has no
    ///     instance. An attempt that this check does not see executes its fence after the fence of
    ///     this pass, so it finds every member condemned.
    ///  3. `Starting` or `Ready` in `to` or beyond, and `d` depends on a member. `d` has
    ///     *restarted*, perhaps with an instance that fails in this cascade. The next pass
    ///     condemns it again, to a higher generation.
    ///  4. As case 3, but `d` depends on no member. `d` was built again without any of them. It
    ///     keeps its new instance: its state has reached `to`, so `take_down_slot` leaves it
    ///     alone.
    ///
    /// The root is subject to the same check. It can depend only on a member that has left the
    /// closure: `d` was built from the root, failed, was built again without the root, and now the
    /// root is built from `d`.
    ///
    /// (In case 4, the entry of `d` in a list may have been crossed out after the walk had read it.
    /// `docs/design.md`, "Why a cascade misses nothing", describes the ordering of this read.)
    ///
    /// # A member that leaves the closure
    ///
    /// A member whose edge was removed is still condemned. This cascade must take it down (A3),
    /// or no attempt would ever begin at it (A1). Therefore, each pass starts from *all* slots
    /// that were condemned, not only from the root: the dependents of such a member must fail
    /// before it (I1).
    fn condemn_after_edge_changes(
        &self,
        condemned: Vec<CondemnedSlot>,
        pin: &Pin,
    ) -> Vec<CondemnedSlot> {
        // Case 3 of a member that restarts.
        let restarted = |walk: &Walk, service: ServiceIndex, to: Generation| {
            let state = self.slot(service).state.load();
            state.generation() >= to
                && state.phase() != Phase::Down
                && walk.depends_on_member(service, self, pin)
        };
        let mut starts: Vec<ServiceIndex> =
            condemned.iter().map(|condemned| condemned.service).collect();
        let mut to: HashMap<ServiceIndex, Generation> =
            condemned.iter().map(|c| (c.service, c.to)).collect();
        loop {
            // From all slots that were ever condemned, including those that have left the closure
            // of the root. If the edges that it has read form a cycle, the walk is repeated: they
            // were read at different times, and the graph itself is acyclic.
            let Some(walk) = Walk::new(self, &starts, pin) else { continue };
            starts = walk.dependencies_first().collect();
            for &service in &starts {
                // A service that this walk has newly found, or a member that has restarted. Every
                // other member is condemned only once, because it is taken down only once.
                if to.get(&service).is_none_or(|&to| restarted(&walk, service, to)) {
                    to.insert(service, self.slot(service).condemned.increment());
                }
            }
            fence_before_check();
            let any_restarted =
                starts.iter().any(|&service| restarted(&walk, service, to[&service]));
            // Both checks read after the fence. If one of them finds a change, a later pass must
            // condemn the slots that this change concerns.
            if walk.is_complete(self) && !any_restarted {
                return starts
                    .iter()
                    .map(|&service| CondemnedSlot { service, to: to[&service] })
                    .collect();
            }
        }
    }

    /// Takes all condemned slots down, dependents before dependencies. Returns the result, and the
    /// services whose waiters must be woken, dependencies first.
    ///
    /// It wakes no waiter itself: a waker is user code, which may read other services of the
    /// closure. It must find all of them down.
    fn take_down(
        &self,
        root: ServiceIndex,
        condemned: &[CondemnedSlot],
        record: bool,
    ) -> (CascadeResult, Vec<ServiceIndex>) {
        let mut result = CascadeResult::default();
        let mut had_waiters = Vec::new();
        for &CondemnedSlot { service, to } in condemned.iter().rev() {
            // If another cascade has taken the slot down, that one counts it and notifies its
            // waiters.
            let Some(transition) = self.take_down_slot(service, to, root) else { continue };
            if transition.had_waiters {
                had_waiters.push(service);
            }
            match transition.from.phase() {
                Phase::Ready => result.counts.failed += 1,
                Phase::Starting => result.counts.invalidated += 1,
                // Only the generation has changed: no instance and no attempt has failed.
                Phase::Down => continue,
            }
            if record {
                result.failed_slots.push(FailedSlot { index: service, was: transition.from });
            }
        }
        had_waiters.reverse();
        result.failed_slots.reverse();
        (result, had_waiters)
    }

    /// Moves a slot to the generation to which this cascade has condemned it, and to `Down`.
    /// Returns `None` if the slot has already reached that generation.
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
    fn take_down_slot(
        &self,
        service: ServiceIndex,
        to: Generation,
        root: ServiceIndex,
    ) -> Option<Transition> {
        let slot = self.slot(service);
        let mut seen = slot.state.load();
        while seen.generation() < to {
            // Before the transition, so that a thread that observes the failure finds a root. If
            // K and K' both store their root here, the slot names one of them.
            slot.failed_by.set(root);
            match slot.state.transition(seen, Tag::down(to)) {
                Ok(transition) => return Some(transition),
                // Another cascade took the slot down, or an attempt began, was published or failed.
                Err(now) => seen = now,
            }
        }
        // Cases 2 and 4: another cascade has taken the slot down.
        None
    }
}
