//! What a reader finds during a switch, and what must hold for each two of its reads.

use mainstay::{BuiltFrom, Guard, Instance, Registry, error::GetError, models::number};

use crate::{Id, Value};

/// What one read has found of a service.
pub struct Found {
    id: Id,
    generation: u64,
    /// The revision, and what the instance was built from; `None` if the service was not ready.
    ready: Option<(u64, Vec<BuiltFrom>)>,
}

impl Found {
    pub fn of(id: Id, instance: &Instance<Value>) -> Self {
        let (generation, revision) = number(instance);
        Self { id, generation, ready: Some((revision, Instance::built_from(instance).to_vec())) }
    }

    /// Reads a service.
    pub fn read(registry: &Registry, id: Id) -> Self {
        match registry.get(id) {
            Ok(guard) => Self::of(id, Guard::instance(&guard)),
            Err(GetError::NotReady(error)) => {
                Self { id, generation: error.generation.get(), ready: None }
            }
            Err(error) => unreachable!("{error}"),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Returns whether it was the instance of this revision of the first generation.
    fn is_first(&self, revision: u64) -> bool {
        self.generation == 0 && self.ready.as_ref().is_some_and(|&(found, _)| found == revision)
    }

    /// Asserts that an instance that was found later was built from this one, or from a later one.
    fn assert_i1(&self, later: &Self) {
        let Some((_, built_from)) = &later.ready else { return };
        let from = built_from.iter().find(|from| from.service == self.id.into());
        let Some(from) = from.map(|from| (from.generation.get(), from.revision)) else { return };
        let seen = (self.generation, self.ready.as_ref().map_or(0, |&(revision, _)| revision));
        assert!(from >= seen, "I1: {:?} was {seen:?}, {:?} is of {from:?}", self.id, later.id);
    }
}

/// Asserts R1, R3 and I1 for each two reads of one thread. In their first generation, the members
/// are switched once, and no value is replaced.
pub fn assert_reads(reads: &[Found], members: &[Id], is_committed: bool) {
    let is_member =
        |found: &Found, revision| found.is_first(revision) && members.contains(&found.id);
    for (at, found) in reads.iter().enumerate() {
        let is_new = is_member(found, 1);
        assert!(is_committed || !is_new, "R3: {:?} is of an aborted switch", found.id);
        for later in &reads[at..] {
            let is_back = is_new && is_member(later, 0);
            assert!(!is_back, "R1: {:?} was new, and then {:?} old", found.id, later.id);
            found.assert_i1(later);
        }
    }
}

/// As [`assert_reads`], for instances that were current at one instant (R3): in any order.
pub fn assert_at_once(mut found: Vec<Found>, members: &[Id], is_committed: bool) {
    for _ in 0..2 {
        assert_reads(&found, members, is_committed);
        found.reverse();
    }
}
