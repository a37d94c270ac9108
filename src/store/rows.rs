//! Rows: the closures that cascades have walked, remembered by their roots for the next one.
//!
//! A row is a walk saved. It holds while no edge has come or gone anywhere; then the next cascade of its root walks
//! again, and leaves a new one. So a change of the edges costs the same however many closures it changes, and only
//! services that fail have rows. All rows of a registry together have a bound; where a row does not fit, its root
//! walks each time.

use crate::sync::{Count, Pin, Snapshot, pin};

/// The row of one service.
pub(crate) struct Row(Snapshot<Closure>);

/// A service and all that transitively depends on it, each before what depends on it.
pub(crate) struct Closure {
    pub(crate) members: Box<[u32]>,
    /// How many changes of edges there had been, before it was walked and also after it was condemned.
    pub(crate) changes: u64,
}

impl Row {
    pub(crate) fn new() -> Self {
        Self(Snapshot::empty())
    }

    /// The closure of its service, if it is the one of after so many changes.
    pub(crate) fn load<'p>(&self, changes: u64, pin: &'p Pin) -> Option<&'p [u32]> {
        let closure = self.0.load(pin).filter(|closure| closure.changes == changes)?;
        Some(&closure.members)
    }

    /// Keeps it for the next cascade, if there is room.
    pub(crate) fn keep(&self, closure: Closure, room: &Room) {
        let pin = pin();
        let size = |closure: &Closure| closure.members.len() as u32;
        if !room.take(size(&closure), self.0.load(&pin).map_or(0, size)) {
            return;
        }
        if let Some(old) = self.0.publish(closure, &pin) {
            room.give_back(size(old));
        }
    }
}

/// How many members all rows of a registry may have together.
pub(crate) struct Room {
    size: u32,
    taken: Count,
}

impl Room {
    /// In a registry of this capacity: 64 bytes a service, and 4 MiB where that is less.
    pub(crate) fn new(capacity: usize) -> Self {
        const MEMBERS_A_SERVICE: usize = 16;
        const LEAST: u32 = 1 << 20;
        let size = capacity.saturating_mul(MEMBERS_A_SERVICE);
        // Half of what can be counted: `take` goes over the size for a moment.
        let size = u32::try_from(size).map_or(u32::MAX / 2, |size| size.min(u32::MAX / 2));
        Self { size: size.max(LEAST), taken: Count::new() }
    }

    /// For so many members, which take the place of so many that are given back after that.
    fn take(&self, members: u32, old: u32) -> bool {
        let taken = self.taken.add(members).saturating_add(members);
        let fits = taken.saturating_sub(old) <= self.size;
        if !fits {
            self.taken.remove(members);
        }
        fits
    }

    fn give_back(&self, members: u32) {
        self.taken.remove(members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(members: u32, changes: u64) -> Closure {
        Closure { members: (0..members).collect(), changes }
    }

    #[test]
    fn a_row_is_kept_where_there_is_room() {
        let room = Room { size: 10, taken: Count::new() };
        let rows = [Row::new(), Row::new()];
        let has = |row: usize, changes| rows[row].load(changes, &pin()).map(<[u32]>::len);

        rows[0].keep(closure(6, 1), &room);
        assert_eq!((has(0, 1), has(0, 2)), (Some(6), None));
        rows[1].keep(closure(5, 1), &room);
        assert_eq!(has(1, 1), None, "both together are too large");
        rows[1].keep(closure(4, 1), &room);
        assert_eq!(has(1, 1), Some(4), "what was refused has taken no room");

        rows[0].keep(closure(7, 2), &room);
        assert_eq!(
            (has(0, 1), has(0, 2)),
            (Some(6), None),
            "one more than the one in whose place it would be"
        );
        rows[0].keep(closure(2, 2), &room);
        assert_eq!(has(0, 2), Some(2));
        rows[1].keep(closure(8, 2), &room);
        assert_eq!(has(1, 2), Some(8), "what was replaced has given its room back");
    }

    #[test]
    fn the_room_of_a_registry() {
        assert_eq!(Room::new(0).size, 1 << 20);
        assert_eq!(Room::new(1 << 20).size, 1 << 24);
        assert_eq!(Room::new(usize::MAX).size, u32::MAX / 2);
    }
}
