//! Sets of services.
//!
//! - A set contains each id once, in the order of registration, whatever it was built from.
//! - An operation on the empty set affects no service.
//! - A set may contain ids of several registries; an operation refuses it, without an effect.
//! - A change of a set is not seen by its clones.

use std::collections::HashSet;

use crate::support::{registry_of, up};
use mainstay::{AnyId, Registry, RootOutcome, ServiceId, ServiceSet, error::ForeignIdError};

fn ids_of(set: &ServiceSet) -> Vec<AnyId> {
    set.iter().collect()
}

#[test]
fn a_set_contains_each_id_once_in_the_order_of_registration() {
    let registry = Registry::with_capacity(8).unwrap();
    let config: ServiceId<String> = registry.register("config").unwrap();
    let pool: ServiceId<u32> = registry.register("pool").unwrap();
    let cache: ServiceId<Vec<u8>> = registry.register("cache").unwrap();
    let [any_config, any_pool, any_cache]: [AnyId; 3] = [config.into(), pool.into(), cache.into()];

    let expected = [any_config, any_pool, any_cache];
    let mut extended = ServiceSet::from(cache);
    extended.extend([any_pool, any_cache]);
    extended.extend([config]);
    let sets = [
        ServiceSet::from((cache, config, any_pool)),
        ServiceSet::from([any_cache, any_pool, any_config, any_pool]),
        vec![any_pool, any_cache, any_config, any_config].into_iter().collect(),
        ServiceSet::new().with(cache).with(pool).with(any_config).with(pool),
        ServiceSet::from([pool]).union(&ServiceSet::from((cache, config))),
        ServiceSet::from((pool, config)).union(&ServiceSet::from((pool, cache))),
        extended,
    ];
    for set in &sets {
        assert_eq!(ids_of(set), expected);
        assert_eq!((set.len(), set.iter().len()), (3, 3));
        assert!(set.iter().rev().eq(expected.into_iter().rev()));
        assert_eq!(*set, sets[0]);
    }
    assert_eq!(sets.iter().collect::<HashSet<_>>().len(), 1);
    assert_ne!(sets[0], ServiceSet::from((config, pool)));

    let two = ServiceSet::from((config, cache));
    assert!(two.contains(config) && two.contains(any_cache) && !two.contains(pool));
    assert_eq!(format!("{two:?}"), format!("{{{any_config:?}, {any_cache:?}}}"));
}

#[test]
fn all_sizes_of_tuples_are_sets() {
    let (_registry, [a, b, c, d, e, f, g, h]) =
        registry_of::<u8, 8>(["a", "b", "c", "d", "e", "f", "g", "h"]);
    let sets = [
        ServiceSet::from((a,)),
        ServiceSet::from((b, a)),
        ServiceSet::from((c, b, a)),
        ServiceSet::from((d, c, b, a)),
        ServiceSet::from((e, d, c, b, a)),
        ServiceSet::from((f, e, d, c, b, a)),
        ServiceSet::from((g, f, e, d, c, b, a)),
        ServiceSet::from((h, g, f, e, d, c, b, a)),
    ];
    for (i, set) in sets.iter().enumerate() {
        assert_eq!(*set, [a, b, c, d, e, f, g, h].into_iter().take(i + 1).collect());
        assert_eq!(set.len(), i + 1);
    }
}

#[test]
fn a_change_of_a_set_is_not_seen_by_its_clones() {
    let (_registry, [a, b]) = registry_of::<u8, 2>(["a", "b"]);
    let mut set = ServiceSet::from(a);
    let clone = set.clone();
    set.extend([b]);
    assert_eq!((set.len(), clone.len()), (2, 1));
}

#[test]
fn an_operation_on_the_empty_set_affects_no_service() {
    let (registry, [a]) = registry_of::<u8, 1>(["a"]);
    let _up = up(&registry, a, 1);
    let none: [ServiceSet; 4] = [
        ServiceSet::new(),
        ServiceSet::default(),
        ServiceSet::from([] as [AnyId; 0]),
        [a].into_iter().filter(|_| false).collect(),
    ];
    for set in &none {
        assert!(set.is_empty() && !set.contains(a) && set.iter().next().is_none());
        assert_eq!(*set, none[0]);
        assert_eq!(set.union(set), *set);
        let outcome = registry.fail_all(set, "nothing").unwrap();
        assert_eq!((outcome.cascade.failed, outcome.roots.len()), (0, 0));
        assert_eq!(format!("{set:?}"), "{}");
    }
    assert_eq!(*registry.get(a).unwrap(), 1);
}

#[test]
fn a_set_fails_together() {
    let (registry, ids @ [a, b, c]) = registry_of::<u8, 3>(["a", "b", "c"]);
    let _up = ids.map(|id| up(&registry, id, 1));
    let outcome = registry.fail_all(&ServiceSet::from((c, a)), "both").unwrap();
    assert_eq!(outcome.roots, [RootOutcome::Failed; 2]);
    assert!(registry.get(a).is_err() && registry.get(b).is_ok() && registry.get(c).is_err());
}

#[test]
fn a_set_with_a_foreign_id_is_refused_without_an_effect() {
    let (registry, [mine]) = registry_of::<u8, 1>(["mine"]);
    let (other, [foreign]) = registry_of::<u8, 1>(["foreign"]);
    let _up = up(&registry, mine, 1);
    let _other_up = up(&other, foreign, 1);
    let both = ServiceSet::from((foreign, mine));
    assert!(both.contains(foreign) && both.contains(mine));
    // The services of one registry are side by side.
    assert_eq!(ids_of(&both), [mine.into(), foreign.into()]);
    let refused = registry.fail_all(&both, "mixed up").unwrap_err();
    assert_eq!(refused, ForeignIdError { id: foreign.into() });
    assert!(other.fail_all(&both, "mixed up").is_err());
    assert!(registry.get(mine).is_ok() && other.get(foreign).is_ok());
}
