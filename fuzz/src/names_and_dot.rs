//! Arbitrary text as the names of services: registered, found again, drawn and serialised.

use std::{collections::BTreeMap, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use mainstay::{
    AnyId, Attempt, FailureRecord, Listing, Phase, Provider, Registry, Running,
    error::{self, LookupError, RegisterError},
};
use serde::Deserialize;
use serde_json::Value;

use crate::dot::{self, Edge, Node};

/// A name, and whether its service has the type `u8` (otherwise `String`).
type NameAndType = (String, bool);

#[derive(Debug)]
struct Input {
    capacity: usize,
    names: Vec<NameAndType>,
    /// Edges between services, by their index.
    edges: Vec<(u8, u8)>,
    /// Services at which an attempt begins, and the outcome of the attempt.
    attempts: Vec<(u8, u8)>,
}

impl Arbitrary<'_> for Input {
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let capacity = usize::from(u.arbitrary::<u8>()? % 12);
        let (edges, attempts) = (u.arbitrary::<u8>()? % 12, u.arbitrary::<u8>()? % 4);
        let edges = (0..edges).map(|_| u.arbitrary()).collect::<arbitrary::Result<_>>()?;
        let attempts = (0..attempts).map(|_| u.arbitrary()).collect::<arbitrary::Result<_>>()?;
        let mut names = Vec::new();
        while !u.is_empty() && names.len() < 20 {
            let selector: u8 = u.arbitrary()?;
            names.push((text(u, selector >> 1)?, selector & 1 == 0));
        }
        Ok(Self { capacity, names, edges, attempts })
    }
}

/// Returns arbitrary text, often one that is difficult to write in DOT or JSON.
fn text(u: &mut Unstructured<'_>, selector: u8) -> arbitrary::Result<String> {
    const DIFFICULT: [&str; 14] = [
        "", "\"", "\\", "\\\"", "\n", "\\n", "\r\n", "\0", "->", "\"];", "a", "s\u{301}",
        "\u{feff}", "\\N",
    ];
    let length = usize::from(selector % 8);
    if selector < 64 {
        let parts = (0..=length % 3).map(|_| u.arbitrary::<u8>());
        return parts.map(|part| Ok(DIFFICULT[usize::from(part?) % DIFFICULT.len()])).collect();
    }
    let bytes = u.bytes(length.min(u.len()))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Runs one input.
///
/// # Panics
///
/// A name finds another service than the one that was registered with it, or DOT or JSON contain
/// another name.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::is_traced() {
        println!("{input:#?}");
    }
    let registry = Registry::with_capacity(input.capacity).expect("the capacity is small");
    let known = register(&registry, &input);
    find(&registry, &input.names, &known);
    let _held = connect(&registry, &input, &known);

    let listing = registry.list();
    let names: Vec<&str> = listing.services.iter().map(|status| &*status.name).collect();
    let expected: Vec<&str> = known.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(expected, names, "services must be listed in the order of their registration");
    for status in &listing.services {
        assert_eq!(listing.get(&status.name).map(|found| found.id), Some(status.id));
    }
    check_edges(&listing);
    check_dot(&listing);
    check_json(&listing);
}

/// Checks the order of the edges, the id of each dependency, and the first step of each path.
fn check_edges(listing: &Listing) {
    for status in &listing.services {
        let ids: Vec<AnyId> = status.dependencies.iter().map(|edge| edge.id).collect();
        assert!(ids.is_sorted(), "dependencies must be in the order of their registration");
        let mut blocking = Vec::new();
        for edge in &status.dependencies {
            let dependency = listing.get(&edge.name).expect("a dependency is in the listing");
            assert_eq!(edge.id, dependency.id);
            assert!(dependency.dependents.contains(&status.name), "an edge has two ends");
            if dependency.phase != Phase::Ready && status.phase != Phase::Ready {
                blocking.push(&edge.name);
            }
        }
        assert_eq!(blocking.first().copied(), status.blocked_by.first());
    }
}

/// A registered service: its name, whether its type is `u8`, and its id.
type Known = (String, bool, AnyId);

fn register(registry: &Registry, input: &Input) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    for (name, is_u8) in &input.names {
        let registered = match is_u8 {
            true => registry.register::<u8>(name).map(AnyId::from),
            false => registry.register::<String>(name).map(AnyId::from),
        };
        match (known.iter().find(|(other, _, _)| other == name), registered) {
            (Some((_, kind, id)), Ok(again)) => {
                assert_eq!((kind, *id), (is_u8, again), "{name:?} must keep its type and its id");
            }
            (
                Some((_, kind, _)),
                Err(RegisterError::WrongType { service, registered, requested }),
            ) => {
                assert_ne!(kind, is_u8, "{name:?} has this type");
                assert_eq!((&*service, registered), (name.as_str(), type_name(*kind)));
                assert_eq!(requested, type_name(*is_u8));
            }
            (None, Ok(id)) => {
                assert!(
                    known.len() < input.capacity,
                    "the registry is full, but {name:?} was registered"
                );
                assert!(known.iter().all(|(_, _, other)| *other != id), "ids must differ");
                known.push((name.clone(), *is_u8, id));
            }
            (None, Err(RegisterError::Capacity { service, capacity })) => {
                assert_eq!((&*service, capacity), (name.as_str(), known.len()));
            }
            (_, other) => panic!("registering {name:?} returned {other:?}"),
        }
    }
    known
}

fn type_name(is_u8: bool) -> &'static str {
    if is_u8 { std::any::type_name::<u8>() } else { std::any::type_name::<String>() }
}

fn find(registry: &Registry, names: &[NameAndType], known: &[Known]) {
    for (name, _) in names {
        let found = (registry.find(name), registry.id::<u8>(name), registry.id::<String>(name));
        match (known.iter().find(|(other, _, _)| other == name), found) {
            (Some((_, true, id)), (Ok(any), Ok(typed), Err(LookupError::WrongType { .. }))) => {
                assert_eq!((*id, *id), (any, typed.into()));
            }
            (Some((_, false, id)), (Ok(any), Err(LookupError::WrongType { .. }), Ok(typed))) => {
                assert_eq!((*id, *id), (any, typed.into()));
            }
            (None, (Err(LookupError::UnknownName { name: unknown }), Err(_), Err(_))) => {
                assert_eq!(unknown, name.as_str());
            }
            (_, found) => panic!("finding {name:?} returned {found:?}"),
        }
    }
}

/// The handles that keep a service in its state.
#[expect(dead_code, reason = "they are only held")]
enum Held {
    Down(Provider<u8>),
    Starting(Provider<u8>, Attempt<u8>),
    Ready(Provider<u8>, Running<u8>),
}

/// Adds edges, and brings a few services into other states, or fails them with their name as the
/// reason.
fn connect(registry: &Registry, input: &Input, known: &[Known]) -> Vec<Held> {
    let service_at = |byte: u8| known.get(usize::from(byte) % known.len().max(1));
    for &(a, b) in &input.edges {
        if let (Some((_, _, a)), Some((_, _, b))) = (service_at(a), service_at(b)) {
            // The target `graph` checks cycles.
            let _ = registry.depends(*a).on(*b);
        }
    }
    let mut held = Vec::new();
    for &(service, outcome) in &input.attempts {
        let Some((name, true, _)) = service_at(service) else { continue };
        let id = registry.id::<u8>(name).expect("the name was registered");
        let Ok(provider) = registry.provide(id) else { continue };
        let attempt =
            provider.begin().wait_blocking_timeout(Duration::ZERO).expect("the service is down");
        held.push(match outcome % 4 {
            0 => Held::Starting(provider, attempt),
            1 => {
                attempt.fail(name.as_str()).expect("no service has failed");
                Held::Down(provider)
            }
            2 => {
                drop(attempt.ready(1));
                Held::Down(provider)
            }
            _ => Held::Ready(provider, attempt.ready(1).expect("no service has failed")),
        });
    }
    held
}

/// Returns the name as DOT can show it, without NUL.
fn shown(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn check_dot(listing: &Listing) {
    let text = listing.to_dot();
    let parsed = dot::parse(&text).unwrap_or_else(|error| panic!("{error}, in: {text}"));
    let node = |status: &mainstay::ServiceStatus| Node {
        name: shown(&status.name),
        label: shown(&format!(
            "{}\n{}, generation {}",
            status.name, status.phase, status.generation
        )),
        colour: match status.phase {
            Phase::Ready => "palegreen",
            Phase::Starting => "khaki",
            Phase::Down => "lightpink",
        }
        .to_string(),
    };
    let nodes: Vec<Node> = listing.services.iter().map(node).collect();
    assert_eq!(nodes, parsed.nodes, "nodes of {text}");

    let mut edges = Vec::new();
    for status in &listing.services {
        for dependency in &status.dependencies {
            let style = if dependency.declared { "solid" } else { "dashed" };
            let (from, to) = (shown(&status.name), shown(&dependency.name));
            edges.push(Edge { from, to, style: style.to_string() });
        }
    }
    assert_eq!(edges, parsed.edges, "edges of {text}");
}

fn check_json(listing: &Listing) {
    let text = serde_json::to_string(listing).expect("a listing can be serialised");
    let value: Value = serde_json::from_str(&text).expect("the JSON can be parsed");
    let services = value["services"].as_array().expect("`services` is a list");
    assert_eq!(services.len(), listing.services.len());
    for (status, json) in listing.services.iter().zip(services) {
        assert_eq!(json["name"], *status.name);
        assert_eq!(json["type_name"], status.type_name);
        assert_eq!(json["phase"], status.phase.to_string());
        assert_eq!(json["generation"], status.generation.get());
        assert_eq!(json["has_provider"], status.has_provider);
        assert_eq!(json["waiters"], status.waiters);
        let dependents: Vec<&str> = status.dependents.iter().map(|name| &**name).collect();
        assert_eq!(json["dependents"], Value::from(dependents));
        let dependency = |edge: &mainstay::Dependency| {
            BTreeMap::from([
                ("name", Value::from(&*edge.name)),
                ("declared", Value::from(edge.declared)),
                ("kind", Value::from(edge.kind.to_string())),
                ("grace", serde_json::json!(edge.grace)),
            ])
        };
        let dependencies: Vec<BTreeMap<&str, Value>> =
            status.dependencies.iter().map(dependency).collect();
        assert_eq!(json["dependencies"], serde_json::json!(dependencies));
        match &status.last_failure {
            None => assert_eq!(json["last_failure"], Value::Null),
            Some(failure) => {
                let json = &json["last_failure"];
                assert_eq!(json["service"], *failure.service);
                assert_eq!(json["root"], *failure.root);
                assert_eq!(json["generation"], failure.generation.get());
                assert_eq!(json["root_generation"], failure.root_generation.get());
                assert_eq!(json["reason"], failure.reason.to_string());
                let record = FailureRecord::deserialize(json).expect("a failure can be read back");
                assert_eq!(record, FailureRecord::from(failure));
                assert_eq!(record.to_string(), error::chain(failure).to_string());
            }
        }
    }
}
