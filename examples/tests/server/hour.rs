//! What goes wrong in a server in an hour, if something does every ten seconds: services are failed, builds fail, panic
//! and hang, the configuration breaks, names what is not there, and changes under all of that; databases go bad; a
//! service fails so often that it is given up. One round after the other has one of them, and nothing but its time is
//! left out; now and then a round has all of them at once.
//!
//! Clients ask without a pause, and check each answer. After each round all services are ready, and
//!
//! - whoever has failed was charged with its own failures, and with no others: those that went down with it with none;
//! - who was given up is said to be, with the cause, to whoever asks, and comes back when it is reset.
//!
//! In the end no database is open but the one that is in use, and the server ends in order under load.

use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mainstay_test_support::{Random, Seed};
use reqwest::StatusCode;

use crate::{
    blames, end_under_load,
    example_server::{DEADLINE, Server},
    load::{SERVICES, Seen, client, configuration, number},
    shows, status,
};

/// Of one every ten seconds. `MAINSTAY_ROUNDS` is another number; 360 are the hour.
const ROUNDS: usize = 20;
const CLIENTS: usize = 2;
/// So many failures of one service are borne.
const LIMIT: usize = 12;

/// Of rounds, and those that take no long time.
const KINDS: usize = 13;
const SHORT: [usize; 9] = [0, 1, 2, 3, 4, 7, 8, 9, 10];
/// Of one database.
const CONNECTIONS: usize = 4;

const SUPERVISED: [&str; 3] = ["database", "page", "catalog"];

/// How often a service should have failed by itself.
type Own = BTreeMap<&'static str, RangeInclusive<usize>>;

fn own(failures: &[(&'static str, RangeInclusive<usize>)]) -> Option<Own> {
    Some(failures.iter().cloned().collect())
}

struct Hour {
    server: Server,
    random: Random,
    /// The configuration that is in force.
    name: String,
    configurations: usize,
    /// Each service's own failures, as told by the log before this round.
    failed: BTreeMap<&'static str, usize>,
}

impl Hour {
    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.random.below(all.len())]
    }

    async fn post(&self, path: &str) {
        let answer = self.server.http.post(path, "an hour of failures").await;
        assert!(answer.status.is_success(), "{path}: {} {}", answer.status, answer.text);
    }

    async fn fail(&self, service: &str) {
        self.post(&format!("/services/{service}/fail")).await;
    }

    async fn spoil(&self, service: &str, fate: &str) {
        self.post(&format!("/services/{service}/builds/{fate}")).await;
    }

    async fn reset(&self) {
        for service in SUPERVISED {
            self.post(&format!("/services/{service}/reset")).await;
        }
    }

    /// The name of the next configuration.
    fn next_name(&mut self) -> String {
        self.configurations += 1;
        let label = self.one_of(&["world", "europe"]);
        format!("{label}-{}", self.configurations)
    }

    /// Puts another configuration in force.
    async fn reconfigure(&mut self) {
        self.name = self.next_name();
        self.server.configure(&configuration(&self.name));
        shows(&self.server, &self.name).await;
    }

    /// Until the service does that.
    async fn until_it_is(&self, service: &str, doing: &str) {
        let begun = Instant::now();
        loop {
            let status = status(&self.server, service).await;
            if status["supervision"]["doing"] == doing {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not {doing}: {status}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn all_are_up(&self) {
        shows(&self.server, &self.name).await;
        for service in SUPERVISED {
            self.until_it_is(service, "up").await;
        }
        assert_eq!(status(&self.server, "config").await["phase"], "ready");
    }

    async fn charges(&self) -> BTreeMap<&'static str, u64> {
        let mut charges = BTreeMap::new();
        for service in SUPERVISED {
            let status = status(&self.server, service).await;
            charges.insert(service, number(&status["supervision"]["charges"]));
        }
        charges
    }

    /// Each service's own failures, as the server has told them.
    fn told(&self) -> BTreeMap<&'static str, usize> {
        let log = self.server.log();
        let own = |service: &str| {
            let told = log.lines().filter(|line| {
                let mut words = line.split_whitespace();
                let of = words.next();
                let what = words.skip(2).collect::<Vec<_>>().join(" ");
                let fell = ["failed: ", "overtaken: ", "given up: "];
                of == Some(service) && fell.iter().any(|fell| what.starts_with(fell))
            });
            told.count()
        };
        SERVICES.map(|service| (service, own(service))).into()
    }

    /// One thing that goes wrong. Gives who should have been charged, where that can be said.
    async fn round(&mut self, kind: usize) -> Option<Own> {
        let service = self.one_of(&SUPERVISED);
        let times = 1 + self.random.below(3);
        let fate = self.one_of(&["fail", "panic"]);
        match kind {
            0 | 1 => {
                let service = self.one_of(&SERVICES);
                self.fail(service).await;
                own(&[(service, 1..=1)])
            }
            // Its own next builds go wrong as well.
            2 | 3 => {
                for _ in 0..times {
                    self.spoil(service, fate).await;
                }
                self.fail(service).await;
                own(&[(service, 1 + times..=1 + times)])
            }
            // It goes down with another, for which it does not pay, and then its builds go wrong, for which it does.
            4 => {
                for _ in 0..times {
                    self.spoil(service, fate).await;
                }
                self.fail("config").await;
                own(&[("config", 1..=1), (service, times..=times)])
            }
            // Its build hangs, and is given up when its time is over ...
            5 => {
                self.spoil(service, "hang").await;
                self.fail(service).await;
                own(&[(service, 2..=2)])
            }
            // ... or is overtaken. Where it has not begun by then, its time has to end it.
            6 => {
                self.spoil(service, "hang").await;
                self.fail(service).await;
                self.until_it_is(service, "building").await;
                tokio::time::sleep(Duration::from_millis(30)).await;
                self.reconfigure().await;
                own(&[("config", 1..=1), (service, 1..=2)])
            }
            7 => {
                self.reconfigure().await;
                own(&[("config", 1..=1)])
            }
            8 => {
                let broken = self.one_of(&["name = ", "name = \"x\"\n", ""]);
                self.server.configure(broken);
                blames(&self.server, "config", "TOML parse error").await;
                self.reconfigure().await;
                own(&[("config", 2..=4)])
            }
            // The database is tried again and again, until the configuration names one that is there.
            9 => {
                self.server.configure(&configuration("missing-0"));
                blames(&self.server, "database", "missing.sqlite").await;
                self.reconfigure().await;
                own(&[("config", 2..=3), ("database", 1..=LIMIT + 1)])
            }
            // A reader meets it, or the catalog that is built from it; it is the database that pays.
            10 => {
                let label = self.name.split('-').next().expect("a label");
                let file = self.server.file(&format!("{label}.sqlite"));
                let good = fs::read(&file).expect("the database is a file");
                fs::write(&file, vec![0x55; good.len()]).expect("it can be written");
                blames(&self.server, "database", "not a database").await;
                fs::write(&file, good).expect("it can be written");
                own(&[("database", 1..=LIMIT + 1)])
            }
            // Once too often.
            11 => {
                for _ in 0..LIMIT {
                    self.spoil(service, fate).await;
                }
                self.fail(service).await;
                self.until_it_is(service, "broken").await;
                blames(&self.server, service, "as it was told to").await;
                for other in SUPERVISED.into_iter().filter(|other| *other != service) {
                    let stands_on_it = other == "catalog";
                    let status = status(&self.server, other).await;
                    let expected = if stands_on_it { "building" } else { "up" };
                    assert_eq!(status["supervision"]["doing"], expected, "{status}");
                    let blocked_by = status["blocked_by"].as_array().expect("a list");
                    assert_eq!(
                        blocked_by.last().is_some_and(|root| *root == service),
                        stands_on_it
                    );
                }
                self.post(&format!("/services/{service}/reset")).await;
                own(&[(service, 1 + LIMIT..=1 + LIMIT)])
            }
            _ => {
                self.storm().await;
                None
            }
        }
    }

    /// All at once, for a second; and then a good configuration, and whoever was given up is tried again.
    async fn storm(&mut self) {
        for _ in 0..40 {
            match self.random.below(10) {
                0..4 => {
                    let service = self.one_of(&SERVICES);
                    self.fail(service).await;
                }
                4..6 => {
                    let service = self.one_of(&SUPERVISED);
                    let fate = self.one_of(&["fail", "panic", "hang"]);
                    self.spoil(service, fate).await;
                }
                6 => self.server.configure("name = "),
                7 => self.server.configure(&configuration("missing-0")),
                _ => {
                    let name = self.next_name();
                    self.server.configure(&configuration(&name));
                }
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(50) as u64)).await;
        }
        self.name = self.next_name();
        self.server.configure(&configuration(&self.name));
        let begun = Instant::now();
        loop {
            self.reset().await;
            let answer = self.server.http.get("/countries/RU").await;
            if answer.status == StatusCode::OK && answer.json()["config"]["name"] == self.name {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "after a storm: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn whole_round(&mut self, kind: usize) {
        self.reset().await;
        let before = self.charges().await;
        let expected = self.round(kind).await;
        self.all_are_up().await;
        if let Some(expected) = expected {
            let begun = Instant::now();
            let is_right = |told: &BTreeMap<&'static str, usize>| {
                SERVICES.iter().all(|service| {
                    let own = told[service] - self.failed[service];
                    expected.get(service).map_or(own == 0, |expected| expected.contains(&own))
                })
            };
            // What has happened may be told a little later.
            while !is_right(&self.told()) {
                let (told, failed) = (self.told(), &self.failed);
                let late = begun.elapsed() > Duration::from_secs(5);
                assert!(!late, "round {kind}: {failed:?}, then {expected:?}, but {told:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for (service, charges) in self.charges().await {
                let most = expected.get(service).map_or(before[service], |own| *own.end() as u64);
                assert!(charges <= most, "round {kind}: {service} is charged with {charges}");
            }
        }
        self.failed = self.told();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_failures() {
    let seed = Seed::new();
    let rounds = std::env::var("MAINSTAY_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let server = Server::start_with(&["--limit", &LIMIT.to_string()]);
    let (random, name) = (seed.random(0), "world-0".to_owned());
    let mut hour = Hour { server, random, name, configurations: 0, failed: BTreeMap::new() };
    hour.reconfigure().await;
    hour.all_are_up().await;
    hour.failed = hour.told();

    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(hour.server.http.clone(), Arc::clone(&stop))))
        .collect();
    for round in 0..rounds {
        // Each once, and then mostly those that are over soon.
        let kind = if round < KINDS { round } else { hour.random.below(3 * KINDS) };
        let kind = if kind < KINDS { kind } else { hour.one_of(&SHORT) };
        hour.whole_round(kind).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for client in clients {
        seen.merge(client.await.expect("every answer was in order"));
    }
    let Seen { answers, pages, refusals, .. } = seen;
    println!("{rounds} rounds: {answers} countries, {pages} pages, {refusals} refusals");
    println!("failures of their own: {:?}", hour.failed);
    assert!(answers > 0 && pages > 0 && refusals > 0, "it was too calm");

    let begun = Instant::now();
    while hour.server.open_databases().is_some_and(|open| open != CONNECTIONS) {
        assert!(begun.elapsed() < DEADLINE, "{:?} are open", hour.server.open_databases());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end_under_load(&mut hour.server).await;
}
