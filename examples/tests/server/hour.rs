//! An hour in which something goes wrong in a server every ten seconds: services are failed, builds
//! fail, panic and hang; the configuration is broken, names a missing database, and changes at the
//! same time; database files are corrupted; a supervisor gives up, or finds a permanent error; a
//! worker panics; services are restarted, stopped and started. Each round has one of these, and
//! some rounds have many of them. Between the rounds there is no delay, so the test is shorter than
//! an hour.
//!
//! Clients send requests without a break, and check each response. After each round all services
//! are ready, and
//!
//! - only the failures that began in a service were counted against it: none was counted against
//!   the services that failed with it;
//! - a supervisor that has given up is reported with the cause, and its service is ready again
//!   after a restart;
//! - a service with a permanent error is built again after a change or a restart, and not before;
//! - a worker that panicked works again, and a service that was stopped is ready after its start.
//!
//! At the end only the current database is open, and the server ends in order under load.

use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use mainstay::supervise::SupervisorState;
use mainstay_test_support::{Random, Seed};
use reqwest::StatusCode;
use serde_json::json;

use crate::{
    RESTARTS, end_under_load,
    example_server::{DEADLINE, Server},
    generation,
    load::{Clients, SERVICES, Seen, configuration, number},
    status, wait_until_blocked_by, wait_until_shown,
};

/// The number of rounds. `MAINSTAY_ROUNDS` overrides it; 360 are an hour with one in every ten
/// seconds.
const ROUNDS: usize = 20;
const CLIENTS: usize = 2;
/// The number of failures of one service after which one more makes its supervisor give up.
const LIMIT: usize = 12;

/// The number of kinds of rounds, and the kinds that take little time.
const KINDS: usize = 17;
const SHORT: [usize; 13] = [0, 1, 2, 3, 4, 7, 8, 9, 10, 12, 13, 14, 15];
/// The number of connections of one database.
const CONNECTIONS: usize = 4;

const SUPERVISED: [&str; 3] = ["database", "page", "catalog"];

/// The expected number of failures that began in each service.
type ExpectedFailures = BTreeMap<&'static str, RangeInclusive<usize>>;

fn expected_failures(
    failures: &[(&'static str, RangeInclusive<usize>)],
) -> Option<ExpectedFailures> {
    Some(failures.iter().cloned().collect())
}

struct Hour {
    server: Server,
    random: Random,
    /// The name of the current configuration.
    name: String,
    configurations: usize,
    /// For each service, the number of failures that had begun in it before this round.
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

    async fn set_next_build(&self, service: &str, outcome: &str) {
        self.post(&format!("/services/{service}/builds/{outcome}")).await;
    }

    async fn restart(&self, service: &str) {
        self.post(&format!("/services/{service}/restart")).await;
    }

    /// Restarts the services whose supervisors have given up, or wait because of a permanent error.
    async fn restart_given_up(&self) {
        for service in SUPERVISED {
            let state = &status(&self.server, service).await["supervisor"]["state"];
            if [SupervisorState::GivenUp, SupervisorState::Permanent]
                .map(|it| json!(it))
                .contains(state)
            {
                self.restart(service).await;
            }
        }
    }

    /// Restarts all services: their failures are forgotten, and outcomes that no build has had are
    /// used up.
    async fn restart_all(&self) {
        for service in SUPERVISED {
            let generation = generation(&self.server, service).await;
            self.restart(service).await;
            self.wait_for_generation(service, generation + 1).await;
        }
        self.wait_until_all_up().await;
    }

    /// Waits until a service is ready in this generation, or in a later one.
    async fn wait_for_generation(&self, service: &str, least: u64) {
        let start = Instant::now();
        loop {
            let status = status(&self.server, service).await;
            if status["phase"] == "ready" && number(&status["generation"]) >= least {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "not ready again: {status}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Returns the name of the next configuration.
    fn next_name(&mut self) -> String {
        self.configurations += 1;
        let label = self.one_of(&["world", "europe"]);
        format!("{label}-{}", self.configurations)
    }

    /// Replaces the configuration, and waits until a response shows it.
    async fn reconfigure(&mut self) {
        self.name = self.next_name();
        self.server.configure(&configuration(&self.name));
        wait_until_shown(&self.server, &self.name).await;
    }

    /// Waits until the supervisor of a service has this state.
    async fn wait_until_state(&self, service: &str, state: SupervisorState) {
        let start = Instant::now();
        loop {
            let status = status(&self.server, service).await;
            if status["supervisor"]["state"] == json!(state) {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "not {state}: {status}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn wait_until_all_up(&self) {
        wait_until_shown(&self.server, &self.name).await;
        for service in SUPERVISED {
            self.wait_until_state(service, SupervisorState::Up).await;
        }
        assert_eq!(status(&self.server, "config").await["phase"], "ready");
    }

    async fn counted_failures(&self) -> BTreeMap<&'static str, u64> {
        let mut failures = BTreeMap::new();
        for service in SUPERVISED {
            let status = status(&self.server, service).await;
            failures.insert(service, number(&status["supervisor"]["failures"]));
        }
        failures
    }

    /// For each service, counts the failures that began in it, as printed by the server.
    fn printed_failures(&self) -> BTreeMap<&'static str, usize> {
        let log = self.server.log();
        let failures_of = |service: &str| {
            let lines = log.lines().filter(|line| {
                let mut words = line.split_whitespace();
                let is_of_service = words.next() == Some(service);
                let event = words.skip(2).collect::<Vec<_>>().join(" ");
                let failures = ["failed: ", "invalidated: ", "attempt failed: "];
                is_of_service && failures.iter().any(|failure| event.starts_with(failure))
            });
            lines.count()
        };
        SERVICES.map(|service| (service, failures_of(service))).into()
    }

    /// Executes a round. Returns the expected failures, if they can be predicted.
    async fn round(&mut self, kind: usize) -> Option<ExpectedFailures> {
        let service = self.one_of(&SUPERVISED);
        let times = 1 + self.random.below(3);
        let outcome = self.one_of(&["fail", "panic"]);
        match kind {
            0 | 1 => {
                let service = self.one_of(&SERVICES);
                self.fail(service).await;
                expected_failures(&[(service, 1..=1)])
            }
            // It fails, and then its next builds.
            2 | 3 => {
                for _ in 0..times {
                    self.set_next_build(service, outcome).await;
                }
                self.fail(service).await;
                expected_failures(&[(service, 1 + times..=1 + times)])
            }
            // It fails because the configuration fails, which is not counted against it. Then its
            // builds fail, which is counted.
            4 => {
                for _ in 0..times {
                    self.set_next_build(service, outcome).await;
                }
                self.fail("config").await;
                expected_failures(&[("config", 1..=1), (service, times..=times)])
            }
            // Its build hangs, and exceeds the build timeout ...
            5 => {
                self.set_next_build(service, "hang").await;
                self.fail(service).await;
                expected_failures(&[(service, 2..=2)])
            }
            // ... or is invalidated. If the attempt had not start before that, the timeout ends it.
            6 => {
                self.set_next_build(service, "hang").await;
                self.fail(service).await;
                self.wait_until_state(service, SupervisorState::Building).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
                self.reconfigure().await;
                expected_failures(&[("config", 1..=1), (service, 1..=2)])
            }
            7 => {
                self.reconfigure().await;
                expected_failures(&[("config", 1..=1)])
            }
            8 => {
                let broken = self.one_of(&["name = ", "name = \"x\"\n", ""]);
                self.server.configure(broken);
                wait_until_blocked_by(&self.server, "config", "TOML parse error").await;
                self.reconfigure().await;
                expected_failures(&[("config", 2..=4)])
            }
            // The database is built again and again, until the configuration names one that exists.
            9 => {
                self.server.configure(&configuration("missing-0"));
                wait_until_blocked_by(&self.server, "database", "missing.sqlite").await;
                self.reconfigure().await;
                expected_failures(&[("config", 2..=3), ("database", 1..=LIMIT + 1)])
            }
            // A request or the build of the catalog detects it. It is a failure of the database.
            10 => {
                let label = self.name.split('-').next().expect("the name has a label");
                let file = self.server.file(&format!("{label}.sqlite"));
                let original = fs::read(&file).expect("the file can be read");
                fs::write(&file, vec![0x55; original.len()]).expect("the file can be written");
                wait_until_blocked_by(&self.server, "database", "not a database").await;
                fs::write(&file, original).expect("the file can be written");
                expected_failures(&[("database", 1..=LIMIT + 1)])
            }
            // One failure more than the limit.
            11 => {
                for _ in 0..LIMIT {
                    self.set_next_build(service, outcome).await;
                }
                self.fail(service).await;
                self.wait_until_state(service, SupervisorState::GivenUp).await;
                wait_until_blocked_by(&self.server, service, "requested over HTTP").await;
                for other in SUPERVISED.into_iter().filter(|other| *other != service) {
                    let depends_on_it = other == "catalog";
                    let status = status(&self.server, other).await;
                    let expected = match depends_on_it {
                        true => SupervisorState::Building,
                        false => SupervisorState::Up,
                    };
                    assert_eq!(status["supervisor"]["state"], json!(expected), "{status}");
                    let blocked_by =
                        status["blocked_by"].as_array().expect("`blocked_by` is a list");
                    assert_eq!(
                        blocked_by.last().is_some_and(|root| *root == service),
                        depends_on_it
                    );
                }
                self.restart(service).await;
                expected_failures(&[(service, 1 + LIMIT..=1 + LIMIT)])
            }
            // The worker panics, and its service fails. The other services do not notice it.
            12 => {
                let generation = generation(&self.server, "statistics").await;
                self.post("/statistics/panic").await;
                self.wait_for_generation("statistics", generation + 1).await;
                expected_failures(&[])
            }
            // A service is restarted as planned. No failure is counted.
            13 => {
                let generation = generation(&self.server, service).await;
                self.restart(service).await;
                self.wait_for_generation(service, generation + 1).await;
                expected_failures(&[])
            }
            // A service is stopped, and started again.
            14 => {
                self.post(&format!("/services/{service}/stop")).await;
                self.wait_until_state(service, SupervisorState::Stopped).await;
                wait_until_blocked_by(&self.server, service, "").await;
                self.post(&format!("/services/{service}/start")).await;
                expected_failures(&[])
            }
            // After a permanent error it is not built again, although the limit is not reached: not
            // before the configuration changes, or it is restarted.
            15 => {
                self.set_next_build(service, "permanent").await;
                self.fail(service).await;
                self.wait_until_state(service, SupervisorState::Permanent).await;
                wait_until_blocked_by(&self.server, service, "requested over HTTP").await;
                let failures = self.counted_failures().await[service];
                tokio::time::sleep(Duration::from_millis(200)).await;
                self.wait_until_state(service, SupervisorState::Permanent).await;
                assert_eq!(self.counted_failures().await[service], failures);
                if self.random.below(2) == 0 {
                    self.restart(service).await;
                    return expected_failures(&[(service, 2..=2)]);
                }
                self.reconfigure().await;
                expected_failures(&[("config", 1..=1), (service, 2..=2)])
            }
            _ => {
                self.everything_at_once().await;
                None
            }
        }
    }

    /// Everything at the same time, for a second. Then a correct configuration is written, and
    /// what was given up is restarted.
    async fn everything_at_once(&mut self) {
        for _ in 0..40 {
            match self.random.below(10) {
                0..4 => {
                    let service = self.one_of(&SERVICES);
                    self.fail(service).await;
                }
                4..6 => {
                    let service = self.one_of(&SUPERVISED);
                    let outcome = self.one_of(&["fail", "permanent", "panic", "hang"]);
                    self.set_next_build(service, outcome).await;
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
        let start = Instant::now();
        loop {
            self.restart_given_up().await;
            let answer = self.server.http.get("/countries/RU").await;
            if answer.status == StatusCode::OK && answer.json()["config"]["name"] == self.name {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "services are not ready again: {}", answer.text);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn checked_round(&mut self, kind: usize) {
        self.restart_all().await;
        self.failed = self.printed_failures();
        let before = self.counted_failures().await;
        let expected = self.round(kind).await;
        self.wait_until_all_up().await;
        if let Some(expected) = expected {
            let start = Instant::now();
            let is_right = |printed: &BTreeMap<&'static str, usize>| {
                SERVICES.iter().all(|service| {
                    let count = printed[service] - self.failed[service];
                    expected.get(service).map_or(count == 0, |range| range.contains(&count))
                })
            };
            // An event may be printed a little later.
            while !is_right(&self.printed_failures()) {
                let (printed, failed) = (self.printed_failures(), &self.failed);
                let late = start.elapsed() > Duration::from_secs(5);
                assert!(!late, "round {kind}: {failed:?}, then {expected:?}, but {printed:?}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            for (service, failures) in self.counted_failures().await {
                let max =
                    expected.get(service).map_or(before[service], |range| *range.end() as u64);
                assert!(
                    failures <= max,
                    "round {kind}: {failures} failures of {service} are counted"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_recovers_from_an_hour_of_failures() {
    let seed = Seed::new();
    let rounds = std::env::var("MAINSTAY_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let server = Server::start_with(&[&RESTARTS[..], &["--limit", &LIMIT.to_string()]].concat());
    let (random, name) = (seed.random(0), "world-0".to_owned());
    let mut hour = Hour { server, random, name, configurations: 0, failed: BTreeMap::new() };
    hour.reconfigure().await;
    hour.wait_until_all_up().await;
    hour.failed = hour.printed_failures();

    let clients = Clients::start(&hour.server.http, CLIENTS);
    for round in 0..rounds {
        // Each kind once, and then mostly the short ones.
        let kind = if round < KINDS { round } else { hour.random.below(3 * KINDS) };
        let kind = if kind < KINDS { kind } else { hour.one_of(&SHORT) };
        hour.checked_round(kind).await;
    }
    let Seen { countries, pages, unavailable, .. } = clients.stop().await;
    println!("{rounds} rounds: {countries} countries, {pages} pages, {unavailable} unavailable");
    println!("failures that began in each service: {:?}", hour.failed);
    assert!(
        countries > 0 && pages > 0 && unavailable > 0,
        "there must be all three kinds of responses"
    );

    let start = Instant::now();
    while hour.server.open_databases().is_some_and(|open| open != CONNECTIONS) {
        assert!(
            start.elapsed() < DEADLINE,
            "{:?} database files are open",
            hour.server.open_databases()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    end_under_load(&mut hour.server).await;
}
