//! Reloads by hand of the services of the models, and what must hold after each.

use mainstay::{
    DependencyKind, Guard, Instance, Registry, Running,
    models::{Reload, number},
};

use crate::{Id, TestProvider, Value, services};

/// An instance, and its provider.
pub type Up = (Running<Value>, TestProvider);

/// Prepares the next instance of a service from those of its dependencies.
pub fn prepare(reload: &mut Reload, running: &Running<Value>, id: Id, dependencies: &[Id]) {
    let old = running.instance().expect("it is up");
    let mut built_from = Vec::new();
    let mut numbers = Vec::new();
    for &dependency in dependencies {
        let from = reload.instance(dependency).expect("ready");
        built_from.push((dependency, Instance::generation(&from).get()));
        numbers.push((dependency.into(), number(&from)));
    }
    let value = Value { built_from, version: old.version + 1 };
    let prepared = reload.prepare(running, old, value, &numbers);
    prepared.unwrap_or_else(|error| panic!("{id:?}: {error:?}"));
}

/// `1 -> 0`, both up.
pub fn up_chain(edges: &[(usize, usize)]) -> (Registry, [Id; 2], [Up; 2]) {
    let (registry, [x, y], [of_x, of_y]) = services(edges);
    let (x_up, y_up) = (of_x.start(&[]), of_y.start(&[x]));
    (registry, [x, y], [(x_up, of_x), (y_up, of_y)])
}

/// `1 -> 0`, both up, and a reload of both that is prepared.
pub fn chain() -> (Registry, [Id; 2], [Up; 2], Reload) {
    let (registry, ids, up) = up_chain(&[]);
    let reload = reload_chain(&registry, ids, &up);
    (registry, ids, up, reload)
}

/// Prepares a reload of both services of a chain.
pub fn reload_chain(registry: &Registry, [x, y]: [Id; 2], [x_up, y_up]: &[Up; 2]) -> Reload {
    let mut reload = Reload::new(registry);
    prepare(&mut reload, &x_up.0, x, &[]);
    prepare(&mut reload, &y_up.0, y, &[x]);
    reload
}

/// `1 -> 0`, `2 -> 0`, `3 -> 1` and `3 -> 2`, all up.
pub fn up_diamond() -> (Registry, [Id; 4], [Up; 4]) {
    let (registry, ids, of) = services(&[]);
    let mut dependencies = DIAMOND.iter();
    let up = of.map(|provider| {
        let from = dependencies.next().expect("as many").iter().map(|&at| ids[at]);
        (provider.start(&from.collect::<Vec<_>>()), provider)
    });
    (registry, ids, up)
}

/// The dependencies of each service of a diamond.
pub const DIAMOND: [&[usize]; 4] = [&[], &[0], &[0], &[1, 2]];

/// Prepares a reload of these services of a diamond.
pub fn reload_diamond(
    registry: &Registry,
    ids: [Id; 4],
    up: &[Up; 4],
    members: &[usize],
) -> Reload {
    let mut reload = Reload::new(registry);
    for &member in members {
        let from: Vec<Id> = DIAMOND[member].iter().map(|&at| ids[at]).collect();
        prepare(&mut reload, &up[member].0, ids[member], &from);
    }
    reload
}

/// The version of a service that must be ready.
pub fn version(registry: &Registry, id: Id) -> u64 {
    registry.get(id).expect("R2: ready").version
}

/// Asserts in a quiescent registry that what is ready was built from what is current, if nothing
/// but switches has replaced it (I2).
pub fn assert_rests_on_current(registry: &Registry, ids: &[Id]) {
    for &id in ids {
        let Ok(instance) = registry.get_arc(id) else { continue };
        for from in Instance::built_from(&instance) {
            if from.kind != DependencyKind::Hard {
                continue;
            }
            let dependency = ids.iter().find(|&&id| from.service == id.into());
            let Some(&dependency) = dependency else { continue };
            let current = registry.get(dependency).ok();
            let current = current.map(|guard| (Guard::generation(&guard), Guard::revision(&guard)));
            assert_eq!(
                current,
                Some((from.generation, from.revision)),
                "I2: {id:?} rests on an old instance of {dependency:?}"
            );
        }
    }
}
