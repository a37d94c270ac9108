//! Names of services.
//!
//! - A name stands for one service of one type, for good. Threads that register the same name get
//!   the same id.
//! - A name may be any text: empty, a megabyte, with NUL, newlines, quotes, and letters that turn
//!   the direction of writing.
//! - Errors, events, the listing, its DOT and its JSON carry every name whole.
//! - No name is taken for another: each name is a service of its own, in the JSON and in the DOT
//!   too. (DOT cannot hold NUL, which is drawn as U+FFFD.)

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    thread,
};

use crate::support::{publish, publish_from};
use mainstay::{
    AnyId, Event, Observer, Phase, Registry, ServiceId,
    error::{LookupError, RegisterError},
};

#[test]
fn a_name_stands_for_one_service_of_one_type() {
    let registry = Registry::with_capacity(2).unwrap();
    let id = registry.register::<u32>("port").unwrap();
    assert_eq!(registry.register::<u32>("port").unwrap(), id, "a second id for one name");
    assert_eq!(registry.list().services.len(), 1);
    match registry.register::<String>("port") {
        Err(RegisterError::WrongType { service, registered, requested }) => {
            assert_eq!((&*service, registered), ("port", "u32"));
            assert!(requested.contains("String"));
        }
        other => panic!("{other:?}"),
    }
    match registry.id::<u64>("port") {
        Err(LookupError::WrongType { service, registered: "u32", requested: "u64" }) => {
            assert_eq!(service, "port");
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(registry.find("Port"), Err(LookupError::UnknownName { name }) if name == "Port")
    );
    assert!(
        matches!(registry.id::<u32>("x"), Err(LookupError::UnknownName { name }) if name == "x")
    );
    assert_eq!(registry.id::<u32>("port").unwrap(), id);
    assert_eq!(registry.find("port").unwrap(), AnyId::from(id));
}

#[test]
fn threads_that_register_the_same_name_get_the_same_id() {
    let registry = &Registry::with_capacity(200).unwrap();
    let all: Vec<Vec<ServiceId<usize>>> = thread::scope(|scope| {
        let register = || (0..200).map(|i| registry.register(&format!("{i}")).unwrap()).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(register)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|ids| *ids == all[0]));
    for (i, &id) in all[0].iter().enumerate() {
        assert_eq!(registry.status(id).unwrap().name, *i.to_string());
    }
}

#[test]
fn any_text_is_a_name_and_is_escaped_in_dot() {
    let long = "é".repeat(1 << 20);
    let names = ["", " ", "\"", "\\", "a\nb", "\r\t", "\0", "-> [", "ключ 鍵 🗝", "<b>&amp;", &long];
    let registry = Registry::with_capacity(names.len()).unwrap();
    let ids = names.map(|name| registry.register::<u8>(name).unwrap());
    for (name, id) in names.into_iter().zip(ids) {
        assert_eq!(registry.id::<u8>(name).unwrap(), id);
        assert_eq!(registry.status(id).unwrap().name, name);
        assert!(registry.list().get(name).is_some());
        assert!(registry.get(id).unwrap_err().to_string().starts_with(name));
    }
    registry.depends(ids[2]).on(ids[3]).unwrap();
    let dot = registry.list().to_dot();
    assert!(
        dot.contains(r#""\"" -> "\\" [style=solid];"#),
        "quotes and backslashes are not escaped"
    );
    assert_eq!(dot.matches("label=").count(), names.len());
    assert!(!dot.contains('\0'));
    // No name ends its quotes: outside of quotes there is only DOT syntax.
    let (mut outside, mut quoted, mut escaped) = (String::new(), false, false);
    for c in dot.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => outside.push(c),
            _ => {}
        }
    }
    assert!(!quoted && !outside.contains(['<', '&', 'é', '\\']), "{outside}");
}

/// The names of services, and the texts of failures, in all events so far.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashSet<String>>>);

impl Observer for Names {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let kind = event.kind.to_string();
        let mut names = self.0.lock().unwrap();
        names.insert(event.service.to_string());
        if kind.contains(" because ") {
            names.insert(kind);
        }
    }
}

fn strange_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "",
        " ",
        "\0",
        "\0\0",
        "\\",
        "\\0",
        "\\n",
        "\n",
        "\r\n",
        "a\nb",
        "a\\nb",
        "\"",
        "\\\"",
        "\"]; x -> y [label=\"",
        "<b>&amp;</b>",
        "{a|b}",
        "$(x) `x` %s {0}",
        "\u{202e}desrever",
        "שירות العربية",
        "e\u{301}",
        "\u{e9}",
        "\u{200b}",
        "\u{feff}",
        "🗝\u{fe0f}",
        "null",
    ]
    .map(String::from)
    .into();
    names.push("é".repeat(1 << 19));
    names.push("\"\\\n\0".repeat(1 << 18));
    names
}

#[test]
fn errors_events_listing_and_dot_carry_every_name_whole() {
    let (names, events) = (strange_names(), Names::default());
    let registry = Registry::builder(names.len()).unwrap().observer(events.clone()).build();
    let ids: Vec<ServiceId<u32>> =
        names.iter().map(|name| registry.register(name).unwrap()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), names.len());
    // All services form one chain.
    let mut running = vec![];
    for (i, &id) in ids.iter().enumerate() {
        let provider = registry.provide(id).unwrap();
        let up = match i {
            0 => publish(&provider, 0),
            _ => publish_from(&provider, ids[i - 1], 0),
        };
        running.push((provider, up));
    }
    let listing = registry.list();
    for (i, name) in names.iter().enumerate() {
        let status = listing.get(name).unwrap();
        assert!(
            status.name == **name && status.id == ids[i].into() && status.phase == Phase::Ready
        );
        let below = status.dependencies.iter().map(|edge| edge.name.to_string());
        assert!(below.eq(names[..i].last().cloned()));
        assert_eq!(registry.id::<u32>(name).unwrap(), ids[i]);
    }
    check_dot(&listing.to_dot(), &names);

    let says = |text: String, names: &[&String]| {
        assert!(names.iter().all(|name| text.contains(name.as_str())), "{:.200}", text);
    };
    let (last, first) = (names.last().unwrap(), &names[0]);
    let refused = registry.depends(ids[0]).on(ids[names.len() - 1]).unwrap_err();
    says(refused.to_string(), &names.iter().collect::<Vec<_>>());
    says(registry.register::<u8>(last).unwrap_err().to_string(), &[last]);
    says(registry.provide(*ids.last().unwrap()).unwrap_err().to_string(), &[last]);
    let cascade = registry.fail(ids[0], last.as_str()).unwrap();
    assert_eq!(cascade.failed, names.len());
    let failure = running.last().unwrap().1.failed().wait_blocking().unwrap();
    says(failure.to_string(), &[first, last]);
    says(registry.get(*ids.last().unwrap()).unwrap_err().to_string(), &[last]);
    let unknown = format!("{last} ");
    let refused = registry.find(&unknown);
    assert!(matches!(refused, Err(LookupError::UnknownName { name }) if name == *unknown));
    assert_eq!(registry.list().blockers(last).len(), 1);

    let events = events.0.lock().unwrap();
    assert!(names.iter().all(|name| events.contains(name)));
    assert!(events.iter().any(|text| text.starts_with("failed because ") && text.contains(last)));
}

/// There is a node for each name, an edge for each pair, and no name outside of quotes.
fn check_dot(dot: &str, names: &[String]) {
    assert!(!dot.contains('\0'), "NUL in the DOT");
    let (mut outside, mut inside, mut text) = (String::new(), Vec::new(), None::<String>);
    let mut chars = dot.chars();
    while let Some(c) = chars.next() {
        match (&mut text, c) {
            (None, '"') => text = Some(String::new()),
            (None, c) => outside.push(c),
            (Some(_), '"') => inside.extend(text.take()),
            (Some(text), '\\') => text.extend(['\\', chars.next().unwrap()]),
            (Some(text), c) => text.push(c),
        }
    }
    assert!(outside.is_ascii() && !outside.contains(['<', '$', '&', '\\']), "{outside}");
    assert_eq!(outside.matches("->").count(), names.len() - 1);
    // The name and label of each node, then the two ends of each edge.
    assert_eq!(inside.len(), 2 * names.len() + 2 * (names.len() - 1));
    let nodes: Vec<&String> = inside.iter().take(2 * names.len()).step_by(2).collect();
    assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), names.len(), "two names are one node");
    let ends = inside[2 * names.len()..].iter();
    assert!(ends.eq(nodes.windows(2).flat_map(|pair| [pair[1], pair[0]])));
}

#[cfg(feature = "serde")]
#[test]
fn json_carries_every_name_whole() {
    let names = strange_names();
    let registry = Registry::with_capacity(names.len()).unwrap();
    for name in &names {
        let (_provider, running) =
            crate::support::up(&registry, registry.register::<u8>(name).unwrap(), 1);
        running.fail(name.as_str());
    }
    let text = serde_json::to_string(&registry.list()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let services = json["services"].as_array().unwrap();
    assert_eq!(services.len(), names.len());
    for (service, name) in services.iter().zip(&names) {
        assert!(service["name"] == **name);
        let failure = &service["last_failure"];
        assert!(failure["root"] == **name && failure["service"] == **name);
        assert!(failure["reason"] == **name);
    }
}
