//! The grace periods that were declared.

use std::{collections::BTreeMap, time::Duration};

use crate::numbers::ServiceIndex;

#[derive(Default)]
pub(super) struct Graces {
    /// For a dependent and its dependency, the period.
    periods: BTreeMap<(ServiceIndex, ServiceIndex), Numbered>,
    /// For a dependent and the number of a declaration, the dependency: so that a supervisor reads
    /// only what is new.
    by_number: BTreeMap<(ServiceIndex, u32), ServiceIndex>,
    /// The last number.
    last: u32,
}

struct Numbered {
    period: Duration,
    number: u32,
}

impl Graces {
    /// Declares a period. Of two for one pair of services the shorter one counts. Returns the
    /// number of the declaration, or `None` if it changes nothing.
    pub(super) fn add(
        &mut self,
        (dependent, dependency): (ServiceIndex, ServiceIndex),
        period: Duration,
    ) -> Option<u32> {
        let known = self.periods.get(&(dependent, dependency));
        if known.is_some_and(|known| known.period <= period) {
            return None;
        }
        self.remove((dependent, dependency));
        self.last += 1;
        let number = self.last;
        self.periods.insert((dependent, dependency), Numbered { period, number });
        self.by_number.insert((dependent, number), dependency);
        Some(number)
    }

    pub(super) fn remove(&mut self, (dependent, dependency): (ServiceIndex, ServiceIndex)) {
        if let Some(removed) = self.periods.remove(&(dependent, dependency)) {
            self.by_number.remove(&(dependent, removed.number));
        }
    }

    pub(super) fn get(
        &self,
        (dependent, dependency): (ServiceIndex, ServiceIndex),
    ) -> Option<Duration> {
        self.periods.get(&(dependent, dependency)).map(|known| known.period)
    }

    /// Returns the periods of a dependent whose numbers are greater than this one, each with its
    /// dependency, in the order of their numbers.
    pub(super) fn since(
        &self,
        dependent: ServiceIndex,
        number: u32,
    ) -> impl Iterator<Item = (ServiceIndex, Duration)> {
        let newer = (dependent, number.saturating_add(1))..=(dependent, u32::MAX);
        let dependencies = self.by_number.range(newer).map(|(_, &dependency)| dependency);
        dependencies.filter_map(move |dependency| {
            self.get((dependent, dependency)).map(|period| (dependency, period))
        })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn only_changes_have_a_number() {
        let index = ServiceIndex::new;
        let second = Duration::from_secs(1);
        let mut graces = Graces::default();
        let since = |graces: &Graces, number| {
            let found = graces.since(index(9), number);
            found.map(|(of, period)| (of.get(), period)).collect::<Vec<_>>()
        };
        assert_eq!(graces.add((index(9), index(1)), second), Some(1));
        assert_eq!(graces.add((index(8), index(1)), second), Some(2), "of another dependent");
        assert_eq!(graces.add((index(9), index(2)), second * 2), Some(3));
        assert_eq!(graces.add((index(9), index(1)), second), None);
        assert_eq!(graces.add((index(9), index(1)), second * 2), None, "the shorter one counts");
        assert_eq!(since(&graces, 0), [(1, second), (2, second * 2)]);
        assert_eq!(since(&graces, 1), [(2, second * 2)]);
        assert_eq!(graces.add((index(9), index(1)), second / 2), Some(4));
        assert_eq!(since(&graces, 0), [(2, second * 2), (1, second / 2)], "each once");
        assert_eq!(since(&graces, 3), [(1, second / 2)]);
        graces.remove((index(9), index(1)));
        assert_eq!(since(&graces, 0), [(2, second * 2)]);
        assert_eq!(graces.get((index(9), index(1))), None);
        assert_eq!(since(&graces, u32::MAX), []);
    }
}
