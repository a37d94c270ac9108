//! Names that are any text: registered, found again, drawn, and serialised.

use std::{collections::BTreeMap, time::Duration};

use arbitrary::{Arbitrary, Unstructured};
use mainstay::{
    AnyId, Attempt, Listing, LookupError, Phase, Provider, RegisterError, Registry, Running,
};
use serde_json::Value;

use crate::dot::{self, Edge, Node};

/// A name, and which of two types its service has.
type Naming = (String, bool);

#[derive(Debug)]
struct Input {
    capacity: usize,
    names: Vec<Naming>,
    /// Places in the registry.
    edges: Vec<(u8, u8)>,
    /// A service that is begun, and what becomes of it.
    begun: Vec<(u8, u8)>,
}

impl Arbitrary<'_> for Input {
    fn arbitrary(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        let capacity = usize::from(u.arbitrary::<u8>()? % 12);
        let (edges, begun) = (u.arbitrary::<u8>()? % 12, u.arbitrary::<u8>()? % 4);
        let edges = (0..edges).map(|_| u.arbitrary()).collect::<arbitrary::Result<_>>()?;
        let begun = (0..begun).map(|_| u.arbitrary()).collect::<arbitrary::Result<_>>()?;
        let mut names = Vec::new();
        while !u.is_empty() && names.len() < 20 {
            let how: u8 = u.arbitrary()?;
            names.push((text(u, how >> 1)?, how & 1 == 0));
        }
        Ok(Self { capacity, names, edges, begun })
    }
}

/// Any text, often one of those that are awkward where a name is written down.
fn text(u: &mut Unstructured<'_>, how: u8) -> arbitrary::Result<String> {
    const AWKWARD: [&str; 14] = [
        "", "\"", "\\", "\\\"", "\n", "\\n", "\r\n", "\0", "->", "\"];", "a", "s\u{301}",
        "\u{feff}", "\\N",
    ];
    let length = usize::from(how % 8);
    if how < 64 {
        let parts = (0..=length % 3).map(|_| u.arbitrary::<u8>());
        return parts.map(|part| Ok(AWKWARD[usize::from(part?) % AWKWARD.len()])).collect();
    }
    let bytes = u.bytes(length.min(u.len()))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

/// Runs one input.
///
/// # Panics
///
/// A name leads to something else than it was registered for, or was not written as it reads.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::traced() {
        println!("{input:#?}");
    }
    let registry = Registry::with_capacity(input.capacity).expect("it is small");
    let known = register(&registry, &input);
    find(&registry, &input.names, &known);
    let _held = connect(&registry, &input, &known);

    let listing = registry.list();
    let names: Vec<&str> = listing.services.iter().map(|status| &*status.name).collect();
    let expected: Vec<&str> = known.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(expected, names, "services are listed in the order of their registration");
    for status in &listing.services {
        assert_eq!(listing.get(&status.name).map(|found| found.id), Some(status.id));
    }
    check_dot(&listing);
    check_json(&listing);
}

/// A service: its name, its type, its id.
type Known = (String, bool, AnyId);

fn register(registry: &Registry, input: &Input) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    for (name, small) in &input.names {
        let registered = match small {
            true => registry.register::<u8>(name).map(AnyId::from),
            false => registry.register::<String>(name).map(AnyId::from),
        };
        match (known.iter().find(|(other, _, _)| other == name), registered) {
            (Some((_, kind, id)), Ok(again)) => {
                assert_eq!((kind, *id), (small, again), "{name:?} has one type and one id");
            }
            (
                Some((_, kind, _)),
                Err(RegisterError::WrongType { service, registered, requested }),
            ) => {
                assert_ne!(kind, small, "{name:?} is of this type");
                assert_eq!((&*service, registered), (name.as_str(), type_name(*kind)));
                assert_eq!(requested, type_name(*small));
            }
            (None, Ok(id)) => {
                assert!(known.len() < input.capacity, "there is no room for {name:?}");
                assert!(known.iter().all(|(_, _, other)| *other != id), "ids are different");
                known.push((name.clone(), *small, id));
            }
            (None, Err(RegisterError::Capacity { service, capacity })) => {
                assert_eq!((&*service, capacity), (name.as_str(), known.len()));
            }
            (_, other) => panic!("{name:?} gave {other:?}"),
        }
    }
    known
}

fn type_name(small: bool) -> &'static str {
    if small { std::any::type_name::<u8>() } else { std::any::type_name::<String>() }
}

fn find(registry: &Registry, names: &[Naming], known: &[Known]) {
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
            (_, found) => panic!("{name:?} led to {found:?}"),
        }
    }
}

/// What keeps a service as it is.
#[expect(dead_code, reason = "they are only held")]
enum Held {
    Down(Provider<u8>),
    Starting(Provider<u8>, Attempt<u8>),
    Ready(Provider<u8>, Running<u8>),
}

/// Edges, and a few services that are not down, or have failed for a reason to be written down.
fn connect(registry: &Registry, input: &Input, known: &[Known]) -> Vec<Held> {
    let place = |byte: u8| known.get(usize::from(byte) % known.len().max(1));
    for &(a, b) in &input.edges {
        if let (Some((_, _, a)), Some((_, _, b))) = (place(a), place(b)) {
            // Cycles are the business of the target `graph`.
            let _ = registry.add_dependency(*a, *b);
        }
    }
    let mut held = Vec::new();
    for &(service, fate) in &input.begun {
        let Some((name, true, _)) = place(service) else { continue };
        let id = registry.id::<u8>(name).expect("it was registered");
        let Ok(provider) = registry.provide(id) else { continue };
        let attempt = provider.begin().wait_timeout(Duration::ZERO).expect("it is down");
        held.push(match fate % 4 {
            0 => Held::Starting(provider, attempt),
            1 => {
                attempt.fail(name.as_str()).expect("nothing has failed");
                Held::Down(provider)
            }
            2 => {
                drop(attempt.ready(1));
                Held::Down(provider)
            }
            _ => Held::Ready(provider, attempt.ready(1).expect("nothing has failed")),
        });
    }
    held
}

/// What the text of Graphviz can show of a name: it has no NUL.
fn shown(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn check_dot(listing: &Listing) {
    let text = listing.to_dot();
    let drawing = dot::read(&text).unwrap_or_else(|why| panic!("{why}, in: {text}"));
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
    assert_eq!(nodes, drawing.nodes, "nodes of {text}");

    let mut edges = Vec::new();
    for status in &listing.services {
        for dependency in &status.dependencies {
            let style = if dependency.declared { "solid" } else { "dashed" };
            let (from, to) = (shown(&dependency.name), shown(&status.name));
            edges.push(Edge { from, to, style: style.to_string() });
        }
    }
    assert_eq!(edges, drawing.edges, "edges of {text}");
}

fn check_json(listing: &Listing) {
    let text = serde_json::to_string(listing).expect("a listing can be written");
    let value: Value = serde_json::from_str(&text).expect("and read");
    let services = value["services"].as_array().expect("it is a list");
    assert_eq!(services.len(), listing.services.len());
    for (status, json) in listing.services.iter().zip(services) {
        assert_eq!(json["name"], *status.name);
        assert_eq!(json["type_name"], status.type_name);
        assert_eq!(json["phase"], status.phase.to_string());
        assert_eq!(json["generation"], status.generation);
        assert_eq!(json["provided"], status.provided);
        assert_eq!(json["waiting"], status.waiting);
        let dependents: Vec<&str> = status.dependents.iter().map(|name| &**name).collect();
        assert_eq!(json["dependents"], Value::from(dependents));
        let dependency = |edge: &mainstay::Dependency| {
            BTreeMap::from([
                ("name", Value::from(&*edge.name)),
                ("declared", Value::from(edge.declared)),
                ("kind", Value::from(edge.kind.to_string())),
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
                assert_eq!(json["generation"], failure.generation);
                assert_eq!(json["root_generation"], failure.root_generation);
                assert_eq!(json["reason"], failure.reason.to_string());
                assert!(json["at"].is_f64(), "seconds, as a number");
            }
        }
    }
}
