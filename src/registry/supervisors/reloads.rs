//! The reloads of a registry that have begun and not ended (S21).

use std::{collections::HashMap, sync::Arc};

use super::Reload;
use crate::{
    numbers::ServiceIndex,
    sync::{Mutex, lock},
};

/// The reloads in progress, and the newest requests.
///
/// No user code runs under the lock, and no other lock is taken under it but that of a reload.
#[derive(Default)]
pub(crate) struct Reloads(Mutex<Table>);

#[derive(Default)]
struct Table {
    /// The number of the last request.
    last: u64,
    /// The newest requests of each root.
    newest: HashMap<ServiceIndex, Newest>,
    /// For each member, the reload for which it is built aside. Also for each service with a gap,
    /// and each adopter: a reload that builds it aside must not miss what this one brings. It may
    /// be over.
    of: HashMap<ServiceIndex, Arc<Reload>>,
}

/// The numbers of the newest requests of one root. 0 if there was none.
#[derive(Default)]
struct Newest {
    reload: u64,
    check: u64,
}

/// What a caller wants: the number of its request decides whether a newer one supersedes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReloadRequest {
    root: ServiceIndex,
    number: u64,
    is_check: bool,
}

/// Whether a reload has begun.
pub(crate) enum Begun {
    Now,
    /// This one must be over first.
    After(Arc<Reload>),
    /// Never: a newer request has superseded it.
    Superseded,
}

impl Table {
    fn is_superseded(&self, request: &ReloadRequest) -> bool {
        self.newest.get(&request.root).is_some_and(|newest| {
            newest.reload > request.number || request.is_check && newest.check > request.number
        })
    }
}

impl Reloads {
    /// Adds a request. It supersedes the older ones of the same root: a check only the older
    /// checks. The caller abandons the reload that is returned, if there is one, and wakes the slot
    /// of the root.
    pub(crate) fn request(
        &self,
        root: ServiceIndex,
        is_check: bool,
    ) -> (ReloadRequest, Option<Arc<Reload>>) {
        let mut table = lock(&self.0);
        table.last += 1;
        let request = ReloadRequest { root, number: table.last, is_check };
        let newest = table.newest.entry(root).or_default();
        match is_check {
            true => newest.check = request.number,
            false => newest.reload = request.number,
        }
        let present = table.of.get(&root).filter(|reload| reload.root() == root);
        let superseded = present.filter(|reload| reload.is_check() || !is_check).cloned();
        (request, superseded)
    }

    /// Returns whether a newer request has superseded this one.
    pub(crate) fn is_superseded(&self, request: &ReloadRequest) -> bool {
        lock(&self.0).is_superseded(request)
    }

    /// Begins the reload of a request, if no other one with a service in common is in progress.
    pub(crate) fn begin(&self, request: &ReloadRequest, reload: &Arc<Reload>) -> Begun {
        let mut table = lock(&self.0);
        if table.is_superseded(request) {
            return Begun::Superseded;
        }
        let mut present = reload.services().filter_map(|service| table.of.get(&service));
        if let Some(earlier) = present.find(|earlier| !earlier.is_over()) {
            return Begun::After(Arc::clone(earlier));
        }
        let mut over = Vec::new();
        for service in reload.services() {
            over.extend(table.of.insert(service, Arc::clone(reload)));
        }
        drop(table);
        // It may be the last reference to a user's error.
        drop(over);
        Begun::Now
    }

    /// Forgets a reload that is over.
    pub(crate) fn forget(&self, reload: &Arc<Reload>) {
        let mut table = lock(&self.0);
        for service in reload.services() {
            if table.of.get(&service).is_some_and(|it| Arc::ptr_eq(it, reload)) {
                // The caller has another reference.
                table.of.remove(&service);
            }
        }
    }

    /// Returns the reload for which a service is built aside.
    pub(super) fn of(&self, service: ServiceIndex) -> Option<Arc<Reload>> {
        let reload = lock(&self.0).of.get(&service).cloned();
        reload.filter(|reload| !reload.is_over())
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::registry::ReloadKind;

    #[test]
    fn a_reload_that_is_over_is_kept_until_it_is_forgotten() {
        let reloads = Reloads::default();
        let [root, member] = [0, 1].map(ServiceIndex::new);
        let (request, _) = reloads.request(root, false);
        let (gaps, adopters) = (BTreeSet::new(), BTreeMap::new());
        let members = vec![root, member];
        let reload = Reload::new(root, members, gaps, adopters, ReloadKind::All, None);
        assert!(matches!(reloads.begin(&request, &reload), Begun::Now));
        assert_eq!(Arc::strong_count(&reload), 3);
        reloads.forget(&reload);
        assert_eq!(Arc::strong_count(&reload), 1);
    }
}
