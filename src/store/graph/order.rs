//! An order of all services, in which a service can be moved next to another one.
//!
//! The services are a circular list, and each has a label. The labels grow along the list, modulo
//! 2^64, from the label of the first service. This is the simpler algorithm of Dietz and Sleator,
//! "Two algorithms for maintaining order in a list" (1987): if there is no label left between two
//! neighbours, the following services are given new labels, as many of them as are needed to find
//! a range with more than k^2 labels for k services. A move takes amortized logarithmic time.

use crate::numbers::ServiceIndex;

#[derive(Default)]
pub(super) struct Order {
    positions: Vec<Position>,
    first: Option<ServiceIndex>,
}

struct Position {
    label: u64,
    previous: ServiceIndex,
    next: ServiceIndex,
}

/// The distance of labels that the first or the last service gets from its neighbour. With 2^32
/// services, half of all labels are left.
const GAP: u64 = 1 << 31;

impl Order {
    /// Adds the next service, as the last one of the order.
    pub(super) fn push(&mut self) {
        let service = ServiceIndex::new(self.positions.len() as u32);
        self.positions.push(Position { label: 0, previous: service, next: service });
        match self.first {
            None => self.first = Some(service),
            Some(first) => self.insert_after(service, self.position(first).previous, false),
        }
    }

    /// Returns the rank of a service: of two services, the one with the smaller rank comes first.
    /// A later change of the order may change any rank.
    #[inline]
    pub(super) fn rank(&self, service: ServiceIndex) -> u64 {
        match self.first {
            Some(first) => self.position(service).label.wrapping_sub(self.position(first).label),
            None => 0,
        }
    }

    /// Moves `service` to the position before `other`. They are not the same.
    pub(super) fn move_before(&mut self, service: ServiceIndex, other: ServiceIndex) {
        self.unlink(service);
        let becomes_first = self.first == Some(other);
        self.insert_after(service, self.position(other).previous, becomes_first);
        if becomes_first {
            self.first = Some(service);
        }
    }

    /// Moves `service` to the position after `other`. They are not the same.
    pub(super) fn move_after(&mut self, service: ServiceIndex, other: ServiceIndex) {
        self.unlink(service);
        self.insert_after(service, other, false);
    }

    fn position(&self, service: ServiceIndex) -> &Position {
        &self.positions[service.as_usize()]
    }

    fn position_mut(&mut self, service: ServiceIndex) -> &mut Position {
        &mut self.positions[service.as_usize()]
    }

    fn unlink(&mut self, service: ServiceIndex) {
        let &Position { previous, next, .. } = self.position(service);
        self.position_mut(previous).next = next;
        self.position_mut(next).previous = previous;
        if self.first == Some(service) {
            self.first = Some(next);
        }
    }

    /// Inserts a service that is not in the list after `previous`. If `previous` is the last
    /// service, the caller decides whether the inserted one becomes the first or the last one.
    fn insert_after(&mut self, service: ServiceIndex, previous: ServiceIndex, becomes_first: bool) {
        self.make_room_after(previous);
        let next = self.position(previous).next;
        let width = self.width(previous, next);
        let offset = match (self.first == Some(next), becomes_first) {
            // In the middle of its neighbours.
            (false, _) => width / 2,
            // At the ends of the order, services are usually added one after another. Each would
            // halve the labels that are left.
            (true, false) => GAP.min(width / 2),
            (true, true) => width - GAP.min(width / 2),
        };
        let label = self.position(previous).label.wrapping_add(offset);
        *self.position_mut(service) = Position { label, previous, next };
        self.position_mut(previous).next = service;
        self.position_mut(next).previous = service;
    }

    /// Changes the labels of the services after `from`, until there is a label between `from` and
    /// the next service.
    fn make_room_after(&mut self, from: ServiceIndex) {
        let (mut count, mut end) = (1, self.position(from).next);
        // The loop ends at `from` at the latest: 2^64 is greater than the square of any number of
        // services.
        while self.width(from, end) <= count * count {
            count += 1;
            end = self.position(end).next;
        }
        let width = u128::from(self.width(from, end));
        let start = self.position(from).label;
        let mut service = from;
        for number in 1..count {
            service = self.position(service).next;
            let offset = width * u128::from(number) / u128::from(count);
            self.position_mut(service).label = start.wrapping_add(offset as u64);
        }
    }

    /// Returns the number of labels from `from` to `end`, or of all labels if they are the same.
    fn width(&self, from: ServiceIndex, end: ServiceIndex) -> u64 {
        match self.position(end).label.wrapping_sub(self.position(from).label) {
            0 => u64::MAX,
            width => width,
        }
    }
}
