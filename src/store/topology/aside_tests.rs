//! The edges of a switch: undecided before its commit, hard after it, and gone after an abort.

use crate::{
    numbers::Generation,
    store::{
        Declaration, DependencyKind, Discovered,
        graph::EdgeSource,
        state::Tag,
        topology::{
            Slots,
            tests::{World, edge, index},
        },
    },
    sync::pin,
};

const KEY: (u32, u32, bool) = (1, 0, false);

/// Two services, the second of which is ready.
fn ready() -> World {
    let world = World::new(2);
    let state = &world.slot(index(1)).state;
    let (generation, down) = (Generation::FIRST, state.load());
    assert!(state.transition(down, Tag::starting(generation)).is_ok());
    assert!(state.transition(Tag::starting(generation), Tag::ready(generation)).is_ok());
    world
}

fn declare(world: &World, kind: DependencyKind) {
    let (dependent, dependency) = (index(1), index(0));
    let declaration = Declaration { dependent, dependency, kind, grace: None };
    world.topology.declare(world, declaration).expect("no cycle");
}

fn discover_undecided(world: &World) -> bool {
    world.topology.discover_undecided(world, edge(KEY), Generation::FIRST).expect("no cycle")
}

fn decide(world: &World) {
    world.topology.decide_edge(world, edge(KEY), Generation::FIRST);
}

fn drop_unused(world: &World, took: bool) {
    world.topology.drop_unused_edges(world, index(1), Generation::FIRST, |_| took);
}

fn source(world: &World) -> Option<EdgeSource> {
    world.topology.read(|graph| graph.find(edge(KEY)))
}

/// Whether the list has the entry, and follows it only if the dependent is not ready.
fn unless_ready(world: &World) -> Option<bool> {
    let entry = world.slot(index(0)).dependents().iter(&pin()).next();
    entry.map(|entry| entry.unless_ready)
}

fn hard() -> EdgeSource {
    EdgeSource::Discovered { attempt: Some(Generation::FIRST), start_only: false }
}

#[test]
fn a_new_edge_is_undecided_until_the_commit() {
    let world = ready();
    assert!(discover_undecided(&world));
    assert_eq!(source(&world), Some(EdgeSource::Undecided { generation: Generation::FIRST }));
    assert_eq!(unless_ready(&world), Some(true));
    decide(&world);
    assert_eq!(source(&world), Some(hard()));
    assert_eq!(unless_ready(&world), Some(false));
    drop_unused(&world, true);
    assert_eq!(source(&world), Some(hard()));
    assert_eq!(world.discovered(index(1)).get(), 1);
}

#[test]
fn an_undecided_edge_is_dropped_after_an_abort() {
    let world = ready();
    discover_undecided(&world);
    drop_unused(&world, true);
    assert_eq!((source(&world), unless_ready(&world)), (None, None));
    assert_eq!(world.discovered(index(1)).get(), 0);
}

#[test]
fn a_declared_start_only_edge_is_hard_after_the_commit() {
    let world = ready();
    declare(&world, DependencyKind::StartOnly);
    assert!(discover_undecided(&world));
    assert_eq!(unless_ready(&world), Some(true));
    decide(&world);
    let hard = EdgeSource::DeclaredToStart { hard: Some(Generation::FIRST) };
    assert_eq!((source(&world), unless_ready(&world)), (Some(hard), Some(false)));
    drop_unused(&world, true);
    assert_eq!(source(&world), Some(hard));
}

#[test]
fn an_edge_that_the_old_instance_has_is_not_new() {
    let world = ready();
    declare(&world, DependencyKind::Hard);
    assert!(!discover_undecided(&world));
    decide(&world);
    assert_eq!((source(&world), unless_ready(&world)), (Some(EdgeSource::Declared), Some(false)));

    let world = ready();
    discover_undecided(&world);
    decide(&world);
    assert!(!discover_undecided(&world));
    assert_eq!(source(&world), Some(hard()));
}

/// The old instance has only started on it, and its publication has not dropped the edge yet.
#[test]
fn a_discovered_start_only_edge_is_hard_after_the_commit() {
    let world = World::new(2);
    let starting = Tag::starting(Generation::FIRST);
    let state = &world.slot(index(1)).state;
    assert!(state.transition(state.load(), starting).is_ok());
    let added = world.topology.discover(&world, edge(KEY), starting, true);
    assert_eq!(added, Ok(Discovered::Added));
    assert!(state.transition(starting, Tag::ready(Generation::FIRST)).is_ok());
    assert!(discover_undecided(&world));
    decide(&world);
    assert_eq!(source(&world), Some(hard()));
}

#[test]
fn an_attempt_takes_an_undecided_edge_over() {
    let world = ready();
    discover_undecided(&world);
    let state = &world.slot(index(1)).state;
    let starting = Tag::starting(Generation::FIRST.next());
    assert!(state.transition(state.load(), starting).is_ok());
    let used = world.topology.discover(&world, edge(KEY), starting, false);
    assert_eq!(used, Ok(Discovered::Used));
    // The switch of the generation before has been committed, and does nothing to it.
    decide(&world);
    drop_unused(&world, false);
    let attempt = Some(Generation::FIRST.next());
    assert_eq!(source(&world), Some(EdgeSource::Discovered { attempt, start_only: false }));
    assert_eq!(world.discovered(index(1)).get(), 1);
}

#[test]
fn no_edge_is_added_after_the_generation_has_ended() {
    let world = ready();
    let state = &world.slot(index(1)).state;
    let starting = Tag::starting(Generation::FIRST.next());
    assert!(state.transition(state.load(), starting).is_ok());
    discover_undecided(&world);
    assert_eq!((source(&world), world.discovered(index(1)).get()), (None, 0));
}
