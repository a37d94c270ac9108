//! What an attempt is built from: the edges that it uses, and the wait for one of them.

#[cfg(feature = "supervise")]
use std::mem;
use std::{sync::Arc, time::Duration};

use crate::{
    error::{Cycle, WaitForError},
    registry::{self, Registry},
    service::{Instance, ServiceId},
    store::{Edge, Store, Used},
    sync::{Count, Flag},
    wait::sealed::Condition,
};
#[cfg(feature = "supervise")]
use crate::{
    supervise::BuildTime,
    sync::{self, Mutex},
};

/// What an attempt has used of the graph so far.
pub(crate) struct Uses {
    discovered: Count,
    to_start: Flag,
    #[cfg(feature = "supervise")]
    graces: Mutex<Vec<Grace>>,
}

impl Default for Uses {
    fn default() -> Self {
        Self {
            discovered: Count::new(),
            to_start: Flag::new(),
            #[cfg(feature = "supervise")]
            graces: Mutex::default(),
        }
    }
}

impl Uses {
    pub(crate) fn used(&self) -> Used {
        Used { edges: self.discovered.get(), some_to_start: self.to_start.is_up() }
    }

    /// What another has noted for the same attempt.
    #[cfg(feature = "supervise")]
    pub(crate) fn take(&self, other: &Self) {
        self.discovered.set(other.discovered.get());
        if other.to_start.is_up() {
            self.to_start.raise();
        }
        sync::lock(&self.graces).append(&mut sync::lock(&other.graces));
    }

    /// What its dependent can stand, as it was said so far.
    #[cfg(feature = "supervise")]
    pub(crate) fn take_graces(&self) -> Vec<Grace> {
        mem::take(&mut sync::lock(&self.graces))
    }

    /// Makes an edge known that the attempt uses.
    pub(crate) fn discover(
        &self,
        store: &Store,
        edge: Edge,
        generation: u64,
        to_start: bool,
    ) -> Result<(), Cycle> {
        if to_start {
            self.to_start.raise();
        }
        match store.discover(edge, generation, to_start) {
            Ok(new) => {
                self.discovered.add(u32::from(new));
                Ok(())
            }
            Err(cycle) => Err(registry::named(store, cycle)),
        }
    }
}

/// What a dependency is needed for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// Its failure is that of the dependent.
    Always,
    ToStart,
    /// To start, and to be back within that time whenever it is away later.
    #[cfg(feature = "supervise")]
    Within(Duration),
}

/// How long a dependency may be away.
#[cfg(feature = "supervise")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    pub(crate) dependency: u32,
    pub(crate) time: Duration,
}

/// What an attempt needs to know of itself to wait for a dependency.
pub(crate) struct Dependency<'a, D> {
    pub(crate) registry: &'a Registry,
    pub(crate) dependent: u32,
    pub(crate) generation: u64,
    pub(crate) uses: &'a Uses,
    /// Where the attempt may end before whoever waits for it: whether it has.
    pub(crate) over: Option<&'a Flag>,
    /// What stands still meanwhile.
    #[cfg(feature = "supervise")]
    pub(crate) time: Option<&'a BuildTime>,
    pub(crate) id: ServiceId<D>,
    pub(crate) need: Need,
    /// The edge is published.
    pub(crate) known: bool,
}

impl<D> Dependency<'_, D> {
    fn make_known(&self, store: &Store, dependency: u32) -> Result<(), Cycle> {
        let edge = Edge { dependent: self.dependent, dependency, soft: false };
        let to_start = !matches!(self.need, Need::Always);
        self.uses.discover(store, edge, self.generation, to_start)?;
        #[cfg(feature = "supervise")]
        if let Need::Within(time) = self.need {
            // What is left of it once the attempt is published.
            let soft = Edge { soft: true, ..edge };
            self.uses.discover(store, soft, self.generation, false)?;
            sync::lock(&self.uses.graces).push(Grace { dependency, time });
        }
        Ok(())
    }
}

impl<D: Send + Sync + 'static> Condition for Dependency<'_, D> {
    type Output = Result<Arc<Instance<D>>, WaitForError>;

    fn look(&mut self) -> Option<Self::Output> {
        let (store, index) = (self.registry.store(), self.dependent);
        let dependency = match self.registry.index(self.id.into()) {
            Ok(dependency) => dependency,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        if self.over.is_some_and(Flag::is_up) {
            return Some(Err(WaitForError::Over { service: store.name(dependency) }));
        }
        if !store.is_starting(index, self.generation) {
            return Some(Err(WaitForError::Overtaken(store.failure(index, self.generation))));
        }
        if store.is_closed() {
            return Some(Err(WaitForError::Closed { service: store.name(dependency) }));
        }
        if !self.known {
            if let Err(cycle) = self.make_known(store, dependency) {
                return Some(Err(cycle.into()));
            }
            self.known = true;
        }
        store.read_to_build(self.id).map(Ok)
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.dependent, Some(self.id.index()))
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.registry.store().name(self.id.index());
        Err(WaitForError::TimedOut { service, after })
    }

    fn is_observed(&self) -> bool {
        self.registry.is_observed()
    }

    fn begins(&mut self) {
        #[cfg(feature = "supervise")]
        if let Some(time) = self.time {
            time.stop(self.registry.clock().now());
        }
        self.registry.wait_begins(self.id.index(), Some(self.dependent));
    }

    fn ends(&mut self, took: Duration) {
        #[cfg(feature = "supervise")]
        if let Some(time) = self.time {
            time.go_on(self.registry.clock().now());
        }
        self.registry.wait_ends(self.id.index(), Some(self.dependent), took);
    }
}
