//! Clients and a saboteur for the example server, and what must hold for every answer.

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

use crate::example_server::{Answer, Http};

pub(crate) const SERVICES: [&str; 4] = ["config", "page", "database", "catalog"];
/// Countries that both databases have, with time zones outside of Europe that only one has.
const COUNTRIES: [&str; 3] = ["RU", "ES", "PT"];

/// A configuration whose name says which database it is for: `world-17` is for `world.sqlite`.
pub(crate) fn configuration(name: &str) -> String {
    let label = label_of(name);
    format!(
        "name = \"{name}\"\ndatabase = \"{label}.sqlite\"\ntitle = \"About {name}\"\ngreeting = \"Hello\"\n"
    )
}

fn label_of(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// How many time zones of a country a database has, counted in the table that it is made from.
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
    assert!(answer.retry_after.is_some(), "a 503 says when to try again");
    assert!(body["unavailable"].is_string(), "{body}");
    for blocker in body["because"].as_array().expect("because is a list") {
        assert!(SERVICES.iter().any(|name| blocker["service"] == *name), "{body}");
        assert!(blocker["phase"] != "ready", "{body}");
    }
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What one client saw, or all of them.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) answers: usize,
    pub(crate) pages: usize,
    pub(crate) refusals: usize,
    pub(crate) names: BTreeSet<String>,
    /// `catalog 9` was made from `database 7`, which was opened for `config 5`, which was `world-3`.
    made_from: BTreeMap<String, String>,
    latest: [u64; 3],
}

impl Seen {
    fn country(&mut self, code: &str, answer: &Answer) {
        let body = answer.json();
        let name = body["config"]["name"].as_str().expect("the configuration has a name");
        let label = label_of(name);
        assert_eq!(body["code"], code);
        assert_eq!(body["database"]["label"], label, "{body}");
        assert_eq!(body["catalog"]["label"], label, "{body}");
        // By content, too: this many in the catalog, and this many in SQLite.
        let expected = zones_of(code, label);
        assert_eq!(number(&body["zone_count"]), expected as u64, "{body}");
        assert_eq!(body["zones"].as_array().map(Vec::len), Some(expected), "{body}");

        let [config, database, catalog] =
            ["config", "database", "catalog"].map(|service| number(&body[service]["generation"]));
        self.made_from(format!("config {config}"), name.to_owned());
        self.made_from(format!("database {database}"), format!("config {config}"));
        self.made_from(format!("catalog {catalog}"), format!("database {database}"));
        for (latest, now) in self.latest.iter_mut().zip([config, database, catalog]) {
            assert!(*latest <= now, "generations only rise: {body}");
            *latest = now;
        }
        self.names.insert(name.to_owned());
        self.answers += 1;
    }

    fn page(&mut self, text: &str) {
        // The Emirates are among the first of the world and not in Europe at all.
        let world = text.contains("About world-") && text.contains("United Arab Emirates");
        let europe = text.contains("About europe-") && !text.contains("United Arab Emirates");
        assert!(world || europe, "{text}");
        self.pages += 1;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.answers += other.answers;
        self.pages += other.pages;
        self.refusals += other.refusals;
        self.names.extend(other.names);
        for (part, whole) in other.made_from {
            self.made_from(part, whole);
        }
    }

    /// Notes what something was made from; no answer may ever claim that it was anything else.
    fn made_from(&mut self, part: String, whole: String) {
        if let Some(before) = self.made_from.get(&part) {
            assert_eq!(*before, whole, "{part} was seen with two different origins");
        } else {
            self.made_from.insert(part, whole);
        }
    }
}

/// Asks without a pause until told to stop, and checks every answer.
pub(crate) async fn client(http: Http, stop: Arc<AtomicBool>) -> Seen {
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
                seen.refusals += 1;
            }
            (status, _) => panic!("{path}: {status} {}", answer.text),
        }
    }
    seen
}

/// Fails one service after the other, at times that have nothing to do with the rewrites.
pub(crate) async fn saboteur(http: Http, stop: Arc<AtomicBool>) {
    for service in SERVICES.into_iter().cycle().take(40) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let answer = http.post(&format!("/services/{service}/fail"), "sabotage").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        tokio::time::sleep(Duration::from_millis(97)).await;
    }
}
