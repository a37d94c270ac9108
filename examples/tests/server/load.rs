//! Clients of the example server that check every response, and a task that fails its services.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::example_server::{Answer, Http};

pub(crate) const SERVICES: [&str; 4] = ["config", "page", "database", "catalog"];
/// Countries of both databases, with time zones outside of Europe that only one database has.
const COUNTRIES: [&str; 3] = ["RU", "ES", "PT"];

/// A configuration whose name says which database it is for: `world-17` is for `world.sqlite`.
pub(crate) fn configuration(name: &str) -> String {
    let label = label_of(name);
    format!(
        "name = \"{name}\"\ndatabase = \"{label}.sqlite\"\n\
         title = \"About {name}\"\ngreeting = \"Hello\"\n"
    )
}

fn label_of(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// Returns the number of time zones of a country in a database, counted in the table from which the
/// database is created.
fn zones_of(country: &str, label: &str) -> usize {
    let table = include_str!("../../server/data/zone1970.tab");
    let rows = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect::<Vec<_>>());
    rows.filter(|row| row[0].split(',').any(|code| code == country))
        .filter(|row| label == "world" || row[2].starts_with("Europe/"))
        .count()
}

pub(crate) fn check_unavailable(answer: &Answer) {
    let body = answer.json();
    assert!(answer.retry_after.is_some(), "a 503 must say when to retry");
    assert!(body["unavailable"].is_string(), "{body}");
    for blocker in body["blockers"].as_array().expect("`blockers` is a list") {
        assert!(SERVICES.iter().any(|name| blocker["service"] == *name), "{body}");
        assert!(blocker["phase"] != "ready", "{body}");
    }
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// The responses of one client, or of all clients.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) countries: usize,
    pub(crate) pages: usize,
    pub(crate) unavailable: usize,
    pub(crate) names: BTreeSet<String>,
    /// The origins that responses have shown: `catalog 9` was built from `database 7`, which was
    /// built from `config 5`, which was `world-3`.
    built_from: BTreeMap<String, String>,
    latest: [Instance; 3],
}

/// The generation and the revision of an instance.
type Instance = [u64; 2];

impl Seen {
    fn country(&mut self, code: &str, answer: &Answer) {
        let body = answer.json();
        let name = body["config"]["name"].as_str().expect("the configuration has a name");
        let label = label_of(name);
        assert_eq!(body["code"], code);
        assert_eq!(body["database"]["label"], label, "{body}");
        assert_eq!(body["catalog"]["label"], label, "{body}");
        // The content matches, too: the number of zones in the catalog, and in SQLite.
        let expected = zones_of(code, label);
        assert_eq!(number(&body["zone_count"]), expected as u64, "{body}");
        assert_eq!(body["zones"].as_array().map(Vec::len), Some(expected), "{body}");

        let instances = ["config", "database", "catalog"]
            .map(|service| [0, 1].map(|number_of| number(&body[service]["instance"][number_of])));
        let [config, database, catalog] = instances;
        self.built_from(format!("config {config:?}"), name.to_owned());
        self.built_from(format!("database {database:?}"), format!("config {config:?}"));
        self.built_from(format!("catalog {catalog:?}"), format!("database {database:?}"));
        for (latest, now) in self.latest.iter_mut().zip(instances) {
            assert!(*latest <= now, "generations and revisions must only grow: {body}");
            *latest = now;
        }
        self.names.insert(name.to_owned());
        self.countries += 1;
    }

    fn page(&mut self, text: &str) {
        // The Emirates are among the first countries of the world, and not in Europe.
        let world = text.contains("About world-") && text.contains("United Arab Emirates");
        let europe = text.contains("About europe-") && !text.contains("United Arab Emirates");
        assert!(world || europe, "{text}");
        self.pages += 1;
    }

    fn merge(&mut self, other: Self) {
        self.countries += other.countries;
        self.pages += other.pages;
        self.unavailable += other.unavailable;
        self.names.extend(other.names);
        for (instance, origin) in other.built_from {
            self.built_from(instance, origin);
        }
    }

    /// Records from what an instance was built. No two responses may differ about it.
    fn built_from(&mut self, instance: String, origin: String) {
        if let Some(before) = self.built_from.get(&instance) {
            assert_eq!(*before, origin, "{instance} has two different origins");
        } else {
            self.built_from.insert(instance, origin);
        }
    }
}

/// Clients that send requests without a break, and check every response.
pub(crate) struct Clients {
    pub(crate) stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Seen>>,
}

impl Clients {
    pub(crate) fn start(http: &Http, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |_| tokio::spawn(client(http.clone(), Arc::clone(&stop)));
        Self { tasks: (0..count).map(client).collect(), stop }
    }

    /// Stops all of them. Returns what they have seen together.
    pub(crate) async fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Seen::default();
        for task in self.tasks {
            seen.merge(task.await.expect("every response was correct"));
        }
        seen
    }
}

/// Sends requests without a break until `stop` is set, and checks every response.
async fn client(http: Http, stop: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::default();
    for round in 0..100_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let country = COUNTRIES.get(round % (COUNTRIES.len() + 1));
        let path = country.map_or("/".to_owned(), |code| format!("/countries/{code}"));
        let answer = http.get(&path).await;
        match (answer.status, country) {
            (StatusCode::OK, Some(code)) => seen.country(code, &answer),
            (StatusCode::OK, None) => seen.page(&answer.text),
            (StatusCode::SERVICE_UNAVAILABLE, _) => {
                check_unavailable(&answer);
                seen.unavailable += 1;
            }
            (status, _) => panic!("{path}: {status} {}", answer.text),
        }
    }
    seen
}

/// Fails one service after another, at times that are independent of the configuration changes.
pub(crate) async fn fail_services(http: Http, stop: Arc<AtomicBool>) {
    for service in SERVICES.into_iter().cycle().take(40) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = http.post(&format!("/services/{service}/fail"), "a test").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(97)).await;
    }
}
