//! What is too much, or too strange, or not one's own.
//!
//! - Of any number of threads that ask for the last places of a registry as many get one as there are, and the
//!   others are told; who got none leaves no trace, and what is there works on.
//! - Errors, events, the listing, its DOT and its JSON carry a name of a megabyte whole, and any other text: empty,
//!   with NUL, newlines, quotes, and letters that turn the direction of writing.
//! - No text is taken for another: each name is a service of its own, in the JSON and in the DOT as well. (Only NUL,
//!   which DOT cannot hold, is drawn as U+FFFD.)
//! - An id of another registry is refused by the builder, by every call and by every handle, where it stands
//!   alone and among others; nothing happens by it.

mod support;

use std::{
    collections::HashSet,
    sync::{Arc, Barrier, Mutex},
    thread,
};

use mainstay::{
    AnyId, DependencyError, Event, GetAllError, GetError, Guard, LookupError, Observer, Phase,
    ProvideError, RegisterError, Registry, ServiceId, WaitError, WaitForError,
};
use support::{again, again_from, poll_once, up};

#[test]
fn the_last_places() {
    for round in 0..50 {
        let registry = &Registry::with_capacity(10).unwrap();
        let (first, start) = (registry.register::<usize>("first").unwrap(), &Barrier::new(4));
        let (_provider, _running) = up(registry, first, round);
        let given: Vec<(String, Result<ServiceId<usize>, RegisterError>)> =
            thread::scope(|scope| {
                let register = |thread: usize| {
                    start.wait();
                    // Two of each four threads ask for the same names.
                    let name = |i| format!("{} {i}", thread % 2);
                    (0..10).map(name).map(|name| (name.clone(), registry.register(&name))).collect()
                };
                let threads: Vec<_> = (0..4)
                    .map(|thread| scope.spawn(move || -> Vec<_> { register(thread) }))
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
        let mut ids = HashSet::from([first]);
        for (name, given) in given {
            match given {
                Ok(id) => {
                    assert_eq!(registry.id::<usize>(&name).unwrap(), id);
                    ids.insert(id);
                }
                Err(RegisterError::Capacity { service, capacity: 10 }) => {
                    assert_eq!(service, *name);
                    assert!(registry.find(&name).is_err(), "it left no trace");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((ids.len(), registry.list().services.len()), (10, 10));
        for id in ids {
            if id != first {
                let (_provider, running) = up(registry, id, 7);
                registry.add_dependency(id, first).unwrap();
                assert_eq!((*registry.get(id).unwrap(), *registry.get(first).unwrap()), (7, round));
                running.fail("over");
            }
        }
    }
}

/// Told names, as text.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<HashSet<String>>>);

impl Observer for Names {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let kind = event.kind.to_string();
        let mut names = self.0.lock().unwrap();
        names.insert(event.service.to_string());
        if kind.contains("with") {
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
fn any_name_anywhere() {
    let (names, told) = (strange_names(), Names::default());
    let registry = Registry::builder(names.len()).unwrap().observer(told.clone()).build();
    let ids: Vec<ServiceId<u32>> =
        names.iter().map(|name| registry.register(name).unwrap()).collect();
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), names.len());
    // One chain of all of them.
    let mut running = vec![];
    for (i, &id) in ids.iter().enumerate() {
        let provider = registry.provide(id).unwrap();
        let up = match i {
            0 => again(&provider, 0),
            _ => again_from(&provider, ids[i - 1], 0),
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
    let refused = registry.add_dependency(ids[0], ids[names.len() - 1]).unwrap_err();
    says(refused.to_string(), &names.iter().collect::<Vec<_>>());
    says(registry.register::<u8>(last).unwrap_err().to_string(), &[last]);
    says(registry.provide(*ids.last().unwrap()).unwrap_err().to_string(), &[last]);
    let cascade = registry.fail(ids[0], last.as_str()).unwrap();
    assert_eq!(cascade.went_down, names.len());
    let failure = running.last().unwrap().1.failed().wait().unwrap();
    says(failure.to_string(), &[first, last]);
    says(registry.get(*ids.last().unwrap()).unwrap_err().to_string(), &[last]);
    let unknown = format!("{last} ");
    let refused = registry.find(&unknown);
    assert!(matches!(refused, Err(LookupError::UnknownName { name }) if name == *unknown));
    assert_eq!(registry.list().blockers(last).len(), 1);

    let told = told.0.lock().unwrap();
    assert!(names.iter().all(|name| told.contains(name)));
    assert!(told.iter().any(|text| text.starts_with("failed with ") && text.contains(last)));
}

/// As many nodes as names, as many edges as pairs, and outside of quotes nothing of any name.
fn check_dot(dot: &str, names: &[String]) {
    assert!(!dot.contains('\0'), "no C string holds it");
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
    // Name and label of each, then the two ends of each edge.
    assert_eq!(inside.len(), 2 * names.len() + 2 * (names.len() - 1));
    let nodes: Vec<&String> = inside.iter().take(2 * names.len()).step_by(2).collect();
    assert_eq!(nodes.iter().collect::<HashSet<_>>().len(), names.len(), "two names are one node");
    let ends = inside[2 * names.len()..].iter();
    assert!(ends.eq(nodes.windows(2).flat_map(|pair| [pair[0], pair[1]])));
}

#[cfg(feature = "serde")]
#[test]
fn any_name_in_json() {
    let names = strange_names();
    let registry = Registry::with_capacity(names.len()).unwrap();
    for name in &names {
        let (_provider, running) = up(&registry, registry.register::<u8>(name).unwrap(), 1);
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

#[test]
fn ids_of_another_registry() {
    let foreign = Registry::with_capacity(4).unwrap();
    let theirs: ServiceId<u32> = foreign.register("theirs").unwrap();
    let (_provide_theirs, _running_theirs) = up(&foreign, theirs, 7);

    let mut builder = Registry::builder(4).unwrap();
    let mine: ServiceId<u32> = builder.register("theirs").unwrap();
    for (dependent, dependency) in
        [(theirs.into(), mine.into()), (mine.into(), theirs.into()), (theirs.into(), theirs.into())]
    {
        let (dependent, dependency): (AnyId, AnyId) = (dependent, dependency);
        let refused = builder.add_dependency(dependent, dependency);
        assert!(matches!(refused, Err(DependencyError::ForeignId(why)) if why.id == theirs.into()));
    }
    let registry = builder.build();
    let (provider, running) = up(&registry, mine, 1);

    for all in [
        registry.get_all((theirs, mine, mine)).map(|_| ()),
        registry.get_all((mine, theirs, mine)).map(|_| ()),
        registry.get_all((mine, mine, theirs)).map(|_| ()),
    ] {
        assert!(matches!(all, Err(GetAllError::ForeignId(why)) if why.id == theirs.into()));
    }
    assert!(matches!(registry.get(theirs), Err(GetError::ForeignId(_))));
    assert!(matches!(registry.provide(theirs), Err(ProvideError::ForeignId(_))));
    let mut wait = registry.wait_ready(theirs);
    assert!(poll_once(&mut wait).is_ready() && poll_once(&mut wait).is_pending());
    assert!(matches!(registry.wait_ready(theirs).wait(), Err(WaitError::ForeignId(_))));
    assert!(registry.report(Guard::instance(&foreign.get(theirs).unwrap()), "not mine").is_err());
    assert!(foreign.report(&running.instance().unwrap(), "not theirs").is_err());
    assert!(registry.fail(theirs, "not mine").is_err() && registry.status(theirs).is_err());
    running.fail("over");
    let attempt = provider.begin().wait().unwrap();
    let mut wait = attempt.wait_for(theirs);
    assert!(poll_once(&mut wait).is_ready() && poll_once(&mut wait).is_pending());
    assert!(matches!(attempt.wait_for(theirs).wait(), Err(WaitForError::ForeignId(_))));
    assert!(!attempt.is_overtaken());
    registry.close();
    assert!(
        matches!(registry.provide(theirs), Err(ProvideError::ForeignId(_))),
        "the reason first"
    );
    assert!(matches!(registry.wait_ready(theirs).wait(), Err(WaitError::ForeignId(_))));

    let untouched = foreign.status(theirs).unwrap();
    assert_eq!((untouched.phase, untouched.generation, untouched.waiting), (Phase::Ready, 0, 0));
    assert_eq!(registry.list().services[0].dependencies, []);
    assert_eq!(*foreign.get(theirs).unwrap(), 7);
}
