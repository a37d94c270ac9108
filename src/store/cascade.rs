//! Failing: condemn down, fail up.
//!
//! 1. *condemn* every slot of the closure to its next generation, dependencies first: nothing new is built on
//!    any of them;
//! 2. look at the closure again, behind a fence, until it has not changed meanwhile;
//! 3. *raise* every slot to the generation that this cascade has condemned it to, dependents first, the root
//!    last: whoever sees a service fail sees that everything which stood on it has failed before;
//! 4. only then wake waiters. No user code runs between 1 and 3.
//!
//! Never further than that generation: where another cascade has condemned the slot once more, it may not have
//! come to the dependents yet.
//!
//! A closure changes in two ways while a cascade runs. It gains a service, or one that was condemned already
//! has been raised by another cascade and has come back with an edge to what was condemned after it: that is
//! condemned, or condemned again. It loses one, because an edge was dropped: that one must be raised all the
//! same, or it would stay condemned for ever; and since what is condemned must go down with everything that
//! stands on it, its own closure is now looked at as the root's is.

use std::collections::BTreeMap;

use super::{
    Cause, Phase, Store,
    state::{Moved, Tag, second_look_fence},
};
use crate::{
    failure::{Cascade, Reason},
    sync::{Pin, Shielded, pin},
};

/// What is to fail.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Whatever is there, unless the service is down.
    Any,
    /// This generation and no other.
    Generation(u64),
}

/// A slot, and the generation that one cascade has condemned it to.
#[derive(Debug, Clone, Copy)]
struct Condemned {
    service: u32,
    to: u64,
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
        reason: Shielded<Reason>,
        record: bool,
    ) -> Option<Fell> {
        let slot = self.slot(root);
        let to = match target {
            // Its dependents went down before it did, and nobody can hold anything of it.
            Target::Any if slot.state.load().phase() == Phase::Down => {
                return Some(Fell::default());
            }
            Target::Any => slot.condemned.add(),
            Target::Generation(generation) => slot.condemned.add_to(generation)?,
        };
        // The cause is there before anything can be seen to have failed by it.
        let found = Cause::leave(&self.service(root).cause, to - 1, reason);

        let condemned = self.condemn(Condemned { service: root, to }, &pin());
        let (fell, waited) = self.raise(root, &condemned, record);
        // From here on user code may run.
        for service in waited {
            self.slot(service).changed.wake_all();
        }
        drop(found);
        Some(fell)
    }

    /// Condemns the closure of `root`, which is condemned itself by now. Gives all that was condemned, each
    /// service before what depends on it; a service may stand there twice.
    fn condemn(&self, root: Condemned, pin: &Pin) -> Vec<Condemned> {
        let slot = self.slot(root.service);
        let row = slot.row.load(pin);
        let mut condemned = Vec::with_capacity(row.len());
        condemned.push(root);
        for &service in row.iter().filter(|&&service| service != root.service) {
            condemned.push(Condemned { service, to: self.slot(service).condemned.add() });
        }
        second_look_fence();
        let again = slot.row.load(pin);
        if std::ptr::eq(row, again) {
            return condemned;
        }
        self.condemn_what_changed(root.service, again, condemned, pin)
    }

    /// The rare case of `condemn`: the topology changed under the cascade.
    fn condemn_what_changed<'p>(
        &self,
        root: u32,
        row: &'p [u32],
        condemned: Vec<Condemned>,
        pin: &'p Pin,
    ) -> Vec<Condemned> {
        let row_of = |service: u32| -> &'p [u32] { self.slot(service).row.load(pin) };
        // Another cascade has raised it to where we want it, and it has begun again since. What it stands on
        // then may be what we have condemned too late for it. Not so the root, as for its own row: it stands on
        // nothing of that. But it may stand on what has left it.
        let came_back = |top: u32, service: u32, to: u64| {
            let state = self.slot(service).state.load();
            (top, service) != (root, root)
                && state.generation() >= to
                && state.phase() != Phase::Down
        };

        // Ordered: a model must see the same order in every run.
        let mut to: BTreeMap<u32, u64> = condemned.iter().map(|c| (c.service, c.to)).collect();
        // The root, and each service that has left its row.
        let mut tops = vec![(root, row)];
        loop {
            let all = || tops.iter().flat_map(|&(top, row)| row.iter().map(move |&s| (top, s)));
            for (top, service) in all() {
                if to.get(&service).is_none_or(|&to| came_back(top, service, to)) {
                    to.insert(service, self.slot(service).condemned.add());
                }
            }
            let covered = |service: u32| tops.iter().any(|(_, row)| row.contains(&service));
            let left = to.keys().copied().filter(|&service| !covered(service));
            let left: Vec<(u32, &[u32])> = left.map(|service| (service, row_of(service))).collect();

            second_look_fence();
            let again: Vec<_> =
                tops.iter().map(|&(service, _)| (service, row_of(service))).collect();
            let changed = tops.iter().zip(&again).any(|(then, now)| !std::ptr::eq(then.1, now.1));
            let stable = left.is_empty() && !changed;
            if stable && !all().any(|(top, service)| came_back(top, service, to[&service])) {
                return all().map(|(_, service)| Condemned { service, to: to[&service] }).collect();
            }
            // The root stays first, so that it is raised last.
            tops = again;
            tops.extend(left);
        }
    }

    /// Raises all that was condemned, from the end. Gives with it where somebody is to be woken, dependencies
    /// first.
    fn raise(&self, root: u32, condemned: &[Condemned], record: bool) -> (Fell, Vec<u32>) {
        let mut fell = Fell::default();
        let mut waited = Vec::new();
        for &Condemned { service, to } in condemned.iter().rev() {
            let Some(moved) = self.raise_slot(service, to, root) else { continue };
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

    /// Moves a slot to the generation that this cascade has condemned it to. `None` where it is there already.
    fn raise_slot(&self, service: u32, to: u64, root: u32) -> Option<Moved> {
        let slot = self.slot(service);
        let mut seen = slot.state.load();
        while seen.generation() < to {
            slot.failed_by.set(root);
            match slot.state.step(seen, Tag::down(to)) {
                Ok(moved) => return Some(moved),
                Err(now) => seen = now,
            }
        }
        None
    }
}
