//! Failing: condemn down, fail up.
//!
//! 1. *condemn* every slot of the closure, dependencies first: nothing new is built on any of them;
//! 2. look at the closure again, behind a fence, until it has not changed meanwhile;
//! 3. *raise* every condemned slot to its new generation, dependents first, the root last: whoever sees a
//!    service fail sees that everything which stood on it has failed before;
//! 4. only then wake waiters. No user code runs between 1 and 3.
//!
//! A closure changes in two ways while a cascade runs. It gains a service: that is condemned too. It loses
//! one, because an edge was dropped: that one is condemned already and must be raised, or it would stay
//! condemned for ever; and since what is condemned must go down with everything that stands on it, its own
//! closure is now looked at as the root's is.

use std::collections::BTreeSet;

use super::{
    Cause, Phase, Store,
    state::{Moved, Tag, second_look_fence},
};
use crate::{
    failure::{Cascade, Reason},
    sync::{Pin, pin},
};

/// What is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Whatever is there, unless the service is down.
    Any,
    /// This generation and no other.
    Generation(u64),
}

/// One slot that a cascade moved.
pub(crate) struct Fallen {
    pub(crate) index: u32,
    pub(crate) was: Tag,
}

/// A cascade that ran.
#[derive(Default)]
pub(crate) struct Fell {
    pub(crate) counts: Cascade,
    /// The slots that were ready or starting, dependencies first; empty unless asked for.
    pub(crate) fallen: Vec<Fallen>,
}

impl Store {
    /// Fails `root` and everything that depends on it. `None` where the target was hit already.
    ///
    /// Lock-free over the slots; wakes waiters at its end, which locks the wait lists of the slots that have
    /// any. When it returns, no instance that the closure had when it was called can be read.
    pub(crate) fn fail(
        &self,
        root: u32,
        target: Target,
        reason: Reason,
        record: bool,
    ) -> Option<Fell> {
        let slot = self.slot(root);
        let generation = match target {
            // Its dependents went down before it did, and nobody can hold anything of it.
            Target::Any if slot.state.load().phase() == Phase::Down => {
                return Some(Fell::default());
            }
            Target::Any => slot.condemned.add(),
            Target::Generation(generation) if slot.condemned.add_to(generation) => generation,
            Target::Generation(_) => return None,
        };
        // The cause is there before anything can be seen to have failed by it.
        let found = Cause::leave(&self.service(root).cause, generation, reason);

        let pin = pin();
        let rows = self.condemn(root, &pin);
        let (fell, waited) = self.raise(root, &rows, record);
        // From here on user code may run; it must not keep rows from being freed.
        drop(pin);
        for service in waited {
            self.slot(service).changed.wake_all();
        }
        drop(found);
        Some(fell)
    }

    /// Condemns the closure of `root`, which is condemned itself by now. Gives the rows that cover all that
    /// was condemned: that of the root first, then one for each service that left it meanwhile.
    fn condemn<'p>(&self, root: u32, pin: &'p Pin) -> Vec<&'p [u32]> {
        let row = |service: u32| -> &'p [u32] { self.slot(service).row.load(pin) };
        let condemn = |service: u32| self.slot(service).condemned.add();

        let first = row(root);
        for &service in first.iter().filter(|&&service| service != root) {
            condemn(service);
        }
        second_look_fence();
        let again = row(root);
        if std::ptr::eq(first, again) {
            return vec![first];
        }

        // Rare: the topology changed under the cascade.
        // Ordered sets: a model must see the same order in every run.
        let mut condemned: BTreeSet<u32> = first.iter().copied().collect();
        condemned.insert(root);
        let mut tops = vec![(root, again)];
        loop {
            // What the rows have gained, dependencies before dependents.
            for &(_, row) in &tops {
                for &service in row {
                    if condemned.insert(service) {
                        condemn(service);
                    }
                }
            }
            let covered: BTreeSet<u32> = tops.iter().flat_map(|(_, row)| *row).copied().collect();
            let left =
                condemned.difference(&covered).copied().map(|service| (service, row(service)));
            let mut next: Vec<(u32, &[u32])> = left.collect();
            let mut stable = next.is_empty();

            second_look_fence();
            for &(service, seen) in &tops {
                let now = row(service);
                stable &= std::ptr::eq(seen, now);
                next.push((service, now));
            }
            if stable {
                return tops.into_iter().map(|(_, row)| row).collect();
            }
            // The root stays first, so that it is raised last.
            next.sort_by_key(|&(service, _)| service != root);
            tops = next;
        }
    }

    /// Raises all that is in the rows, each from its end, the first row last. Gives with it where somebody is to
    /// be woken, dependencies first.
    fn raise(&self, root: u32, rows: &[&[u32]], record: bool) -> (Fell, Vec<u32>) {
        let mut fell = Fell::default();
        let mut waited = Vec::new();
        for service in rows.iter().rev().flat_map(|row| row.iter().rev().copied()) {
            let Some(moved) = self.raise_slot(service, root) else { continue };
            if moved.waited {
                waited.push(service);
            }
            match moved.from.phase() {
                Phase::Ready => fell.counts.went_down += 1,
                Phase::Starting => fell.counts.overtaken += 1,
                Phase::Down => continue,
            }
            if record {
                fell.fallen.push(Fallen { index: service, was: moved.from });
            }
        }
        waited.reverse();
        fell.fallen.reverse();
        (fell, waited)
    }

    /// Moves a slot to where it is condemned to be. `None` where another cascade has done so.
    fn raise_slot(&self, service: u32, root: u32) -> Option<Moved> {
        let slot = self.slot(service);
        let mut seen = slot.state.load();
        loop {
            let to = slot.condemned.load();
            if seen.generation() >= to {
                return None;
            }
            slot.failed_by.set(root);
            match slot.state.step(seen, Tag::down(to)) {
                Ok(moved) => return Some(moved),
                Err(now) => seen = now,
            }
        }
    }
}
