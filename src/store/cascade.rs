//! Failing: condemn down, fail up.
//!
//! 1. *condemn* every slot of the closure to its next generation, dependencies first: nothing new is built on
//!    any of them;
//! 2. look, behind a fence, whether the closure has gained anything meanwhile, until it has not;
//! 3. *raise* every slot to the generation that this cascade has condemned it to, dependents first, the root
//!    last: whoever sees a service fail sees that everything which stood on it has failed before;
//! 4. only then wake waiters. No user code runs between 1 and 3.
//!
//! Never further than that generation: where another cascade has condemned the slot once more, it may not have
//! come to the dependents yet.
//!
//! A closure gains in two ways while a cascade runs. A new edge leads to a service: that is condemned. Or one that
//! was condemned already has been raised by another cascade and has come back on something that was condemned after
//! it: that is condemned again. Whatever leaves the closure is still followed: it was condemned, so it must be raised,
//! and whoever stands on it goes down with it.

use std::collections::HashMap;

use super::{
    Cause, Phase, Store,
    rows::Closure,
    state::{Moved, Tag, second_look_fence},
    walk::Walk,
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

        let (condemned, walked_at) = self.condemn(Condemned { service: root, to }, &pin());
        let (fell, waited) = self.raise(root, &condemned, record);
        // From here on user code may run.
        for service in waited {
            self.service(service).changed.wake_all();
        }
        drop(found);
        if let Some(changes) = walked_at {
            let members = condemned.iter().map(|condemned| condemned.service).collect();
            self.service(root).row.keep(Closure { members, changes }, &self.room);
        }
        Some(fell)
    }

    /// Condemns the closure of `root`, which is condemned itself by now. Gives all that was condemned, each
    /// service before what depends on it. Where that was walked and is the closure of the root and no more, it
    /// also gives after how many changes of edges it is so.
    fn condemn(&self, root: Condemned, pin: &Pin) -> (Vec<Condemned>, Option<u64>) {
        let mut condemned = Vec::new();
        let condemn = |service| match service == root.service {
            true => root,
            false => Condemned { service, to: self.slot(service).condemned.add() },
        };
        let changes = self.topology.changes();
        if let Some(row) = self.service(root.service).row.load(changes, pin) {
            condemned.extend(row.iter().map(|&service| condemn(service)));
            second_look_fence();
            if self.topology.changes() == changes {
                return (condemned, None);
            }
        } else if let Some(walk) = Walk::from(self, &[root.service], pin) {
            condemned.extend(walk.dependencies_first().map(condemn));
            second_look_fence();
            if self.topology.changes() == changes {
                return (condemned, Some(changes));
            }
            if walk.is_whole(self) {
                return (condemned, None);
            }
        } else {
            condemned.push(root);
        }
        (self.condemn_what_changed(condemned, pin), None)
    }

    /// The rare case of `condemn`: edges changed under the cascade.
    fn condemn_what_changed(&self, condemned: Vec<Condemned>, pin: &Pin) -> Vec<Condemned> {
        // Another cascade has raised it to where we want it, and it has begun again since. What it stands on
        // then may be what we have condemned too late for it.
        let came_back = |walk: &Walk, service: u32, to: u64| {
            let state = self.slot(service).state.load();
            state.generation() >= to
                && state.phase() != Phase::Down
                && walk.has_below(service, self, pin)
        };
        let mut starts: Vec<u32> = condemned.iter().map(|condemned| condemned.service).collect();
        let mut to: HashMap<u32, u64> = condemned.iter().map(|c| (c.service, c.to)).collect();
        loop {
            // All that was ever condemned: also what has left the closure of the root.
            let Some(walk) = Walk::from(self, &starts, pin) else { continue };
            starts = walk.dependencies_first().collect();
            for &service in &starts {
                if to.get(&service).is_none_or(|&to| came_back(&walk, service, to)) {
                    to.insert(service, self.slot(service).condemned.add());
                }
            }
            second_look_fence();
            let back = starts.iter().any(|&service| came_back(&walk, service, to[&service]));
            if walk.is_whole(self) && !back {
                return starts
                    .iter()
                    .map(|&service| Condemned { service, to: to[&service] })
                    .collect();
            }
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
