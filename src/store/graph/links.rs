//! The links of one service: its edges in one direction, the soft ones last, sorted by the service
//! at the other end.

use std::collections::{BTreeMap, btree_map};

use crate::numbers::ServiceIndex;

/// The other end of an edge. A pair of services may have two edges, a soft one and one that is not
/// soft.
///
/// The soft edges come last, so that a list of dependents, which has no soft ones, is renumbered
/// without a visit of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkKey {
    pub(crate) soft: bool,
    pub(crate) service: ServiceIndex,
}

/// A map from the other end of each edge to a value. Adding, finding and removing take
/// logarithmic time.
pub(super) enum Links<V> {
    /// Sorted. Most services have few edges, and a vector needs the least memory for them.
    Few(Vec<(LinkKey, V)>),
    /// A vector of this length would be slow to change. A map that has become small stays a map.
    #[expect(clippy::box_collection, reason = "three words in place of four, for each service")]
    Many(Box<BTreeMap<LinkKey, V>>),
}

impl<V> Links<V> {
    /// The number of links from which on a map is used.
    const MANY: usize = 64;

    pub(super) const fn new() -> Self {
        Self::Few(Vec::new())
    }

    pub(super) fn get(&self, key: LinkKey) -> Option<&V> {
        match self {
            Self::Few(links) => links.get(position(links, key).ok()?).map(|(_, value)| value),
            Self::Many(links) => links.get(&key),
        }
    }

    pub(super) fn get_mut(&mut self, key: LinkKey) -> Option<&mut V> {
        match self {
            Self::Few(links) => match position(links, key) {
                Ok(at) => links.get_mut(at).map(|(_, value)| value),
                Err(_) => None,
            },
            Self::Many(links) => links.get_mut(&key),
        }
    }

    /// Inserts a link, or replaces the value of a link.
    pub(super) fn insert(&mut self, key: LinkKey, value: V) {
        match self {
            Self::Few(links) => match position(links, key) {
                Ok(at) => links[at].1 = value,
                Err(_) if links.len() == Self::MANY => {
                    let links = std::mem::take(links).into_iter().chain([(key, value)]);
                    *self = Self::Many(Box::new(links.collect()));
                }
                Err(at) => {
                    // A vector grows to four elements at once. Most services have fewer links.
                    if links.len() == links.capacity() {
                        links.reserve_exact(links.len().max(1));
                    }
                    links.insert(at, (key, value));
                }
            },
            Self::Many(links) => {
                links.insert(key, value);
            }
        }
    }

    /// Removes a link and returns its value.
    pub(super) fn remove(&mut self, key: LinkKey) -> Option<V> {
        match self {
            Self::Few(links) => Some(links.remove(position(links, key).ok()?).1),
            Self::Many(links) => links.remove(&key),
        }
    }

    /// Iterates over the links in ascending order.
    pub(super) fn iter(&self) -> Iter<'_, V> {
        match self {
            Self::Few(links) => Iter::Few(links.iter()),
            Self::Many(links) => Iter::Many(links.iter()),
        }
    }

    /// Returns the first link from this key on.
    #[cfg(feature = "supervise")]
    pub(super) fn first_from(&self, key: LinkKey) -> Option<LinkKey> {
        match self {
            Self::Few(links) => {
                let at = position(links, key).unwrap_or_else(|at| at);
                links.get(at).map(|&(key, _)| key)
            }
            Self::Many(links) => links.range(key..).next().map(|(&key, _)| key),
        }
    }

    /// Iterates over the links in ascending order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkKey, &mut V)> {
        let (few, many) = match self {
            Self::Few(links) => (Some(links.iter_mut()), None),
            Self::Many(links) => (None, Some(links.iter_mut())),
        };
        let few = few.into_iter().flatten().map(|(key, value)| (*key, value));
        few.chain(many.into_iter().flatten().map(|(key, value)| (*key, value)))
    }
}

/// Returns the position of a link in a sorted vector, or the position at which it belongs.
fn position<V>(links: &[(LinkKey, V)], key: LinkKey) -> Result<usize, usize> {
    links.binary_search_by_key(&key, |&(key, _)| key)
}

/// Iterates over the links of a service in ascending order.
pub(super) enum Iter<'a, V> {
    Few(std::slice::Iter<'a, (LinkKey, V)>),
    Many(btree_map::Iter<'a, LinkKey, V>),
}

impl<'a, V> Iterator for Iter<'a, V> {
    type Item = (LinkKey, &'a V);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(links) => links.next().map(|(key, value)| (*key, value)),
            Self::Many(links) => links.next().map(|(key, value)| (*key, value)),
        }
    }
}
