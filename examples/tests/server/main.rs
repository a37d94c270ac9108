//! The example server as a process, checked by its responses.
//!
//! If an edit takes the services down (`--on-edit restart`):
//!
//! 1. No response mixes two configurations: under load, while the file is rewritten a hundred
//!    times, while services are failed over HTTP, and while the file is sometimes broken. The name
//!    of a configuration says which database belongs to it, the content of the two databases
//!    differs, and generations only grow.
//! 2. After every change all services are ready again, with the new configuration.
//! 3. While the configuration is broken or missing, or names a database that does not exist, every
//!    response is a 503 that says so. A broken configuration is not read again until the file
//!    changes. After the repair all services are ready again.
//!
//! However an edit is applied:
//!
//! 4. A failure of `database` restarts `catalog`, and neither `page` nor `config`.
//! 5. The first request that reads a corrupted database file fails the database. It is opened again
//!    after the repair.
//! 6. A rewritten but equal configuration restarts nothing.
//! 7. The list and the graph contain the services. Unknown paths, countries and services are a 404.
//! 8. On SIGTERM the server ends in order. Under load it loses no request that it has accepted:
//!    each response is complete.
//! 9. A worker that panics is seen and restarted. A service is stopped and started. The listener
//!    itself is restarted.
//! 10. All of this holds during an hour of failures (`hour.rs`).
//!
//! If an edit is a reload, no request notices it (`edits.rs`).

mod edits;
mod example_server;
#[cfg(unix)]
mod hour;
mod load;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    example_server::{Answer, Server},
    load::{Clients, SERVICES, check_unavailable, configuration, fail_services, number},
};

const REWRITES: usize = 100;
const CLIENTS: usize = 6;
/// An edit takes the services down, and they are built anew.
const RESTARTS: [&str; 2] = ["--on-edit", "restart"];

/// Starts the server with a configuration of this name.
async fn started(name: &str) -> Server {
    changed(Server::start(), name).await
}

/// As `started`. An edit takes the services down.
async fn started_to_restart(name: &str) -> Server {
    changed(Server::start_with(&RESTARTS), name).await
}

async fn changed(server: Server, name: &str) -> Server {
    change(&server, name).await;
    server
}

/// Rewrites the configuration, and waits until a response shows it.
async fn change(server: &Server, name: &str) {
    server.configure(&configuration(name));
    wait_until_shown(server, name).await;
}

/// Waits until a response shows the configuration with this name.
async fn wait_until_shown(server: &Server, name: &str) {
    let is_expected = |answer: &Answer| {
        answer.status == StatusCode::OK && answer.json()["config"]["name"] == name
    };
    server.http.until("/countries/RU", name, is_expected).await;
}

/// Waits until every response is a 503 that names this service and this reason.
async fn wait_until_blocked_by(server: &Server, service: &str, what: &str) {
    let is_expected = |answer: &Answer| {
        answer.status == StatusCode::SERVICE_UNAVAILABLE
            && answer.json()["blockers"].as_array().is_some_and(|blockers| {
                blockers.iter().any(|blocker| {
                    blocker["service"] == service
                        && blocker["reason"].as_str().is_some_and(|text| text.contains(what))
                })
            })
    };
    for path in ["/countries/RU", "/"] {
        let answer = server.http.until(path, what, is_expected).await;
        check_unavailable(&answer);
    }
}

async fn status(server: &Server, service: &str) -> Value {
    let list = server.http.get("/services").await.json();
    let services = list["services"].as_array().expect("`services` is a list");
    services
        .iter()
        .find(|status| status["name"] == service)
        .expect("the service is in the list")
        .clone()
}

async fn generation(server: &Server, service: &str) -> u64 {
    number(&status(server, service).await["generation"])
}

async fn generations(server: &Server) -> BTreeMap<&'static str, u64> {
    let mut generations = BTreeMap::new();
    for service in SERVICES {
        generations.insert(service, generation(server, service).await);
    }
    generations
}

#[tokio::test(flavor = "multi_thread")]
async fn no_response_mixes_two_configurations() {
    let server = started_to_restart("world-0").await;
    let clients = Clients::start(&server.http, CLIENTS);
    let failures = tokio::spawn(fail_services(server.http.clone(), Arc::clone(&clients.stop)));

    for rewrite in 1..=REWRITES {
        if rewrite % 10 == 0 {
            server.configure("name = ");
            wait_until_blocked_by(&server, "config", "line 1").await;
        }
        let [label, other] = [["world", "europe"], ["europe", "world"]][rewrite % 2];
        if rewrite % 3 == 0 {
            // This configuration is replaced while its services are being built.
            server.configure(&configuration(&format!("{other}-{rewrite}")));
            tokio::time::sleep(Duration::from_millis(rewrite as u64 % 40)).await;
        }
        let name = format!("{label}-{rewrite}");
        change(&server, &name).await;
        if rewrite % 10 == 5 {
            // Most of the failures of `fail_services` are followed by a new configuration. This one
            // is not.
            let answer = server.http.post("/services/database/fail", "a test").await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            wait_until_shown(&server, &name).await;
        }
    }

    clients.stop.store(true, Ordering::Relaxed);
    failures.await.expect("every request was answered");
    let seen = clients.stop().await;
    println!(
        "{} countries, {} pages, {} unavailable, {} configurations",
        seen.countries,
        seen.pages,
        seen.unavailable,
        seen.names.len()
    );
    assert!(seen.countries >= 300, "only {} countries", seen.countries);
    assert!(seen.pages >= 100, "only {} pages", seen.pages);
    assert!(seen.unavailable > 0, "no response was a 503");
    assert!(seen.names.len() >= 20, "only {} configurations", seen.names.len());
}

#[tokio::test]
async fn a_broken_configuration_is_reported_until_it_is_repaired() {
    let server = started_to_restart("world-0").await;

    server.configure("name = \"world-1\"\ndatabase = \"world.sqlite\"\ntitle = oops\n");
    wait_until_blocked_by(&server, "config", "line 3").await;
    // Longer than the interval at which the server reads the file without an event: there was no
    // other attempt.
    let before = status(&server, "config").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = status(&server, "config").await;
    assert_eq!(after["last_failure"], before["last_failure"]);
    assert_eq!(after["generation"], before["generation"]);

    // An attempt that a request causes fails in the same way.
    let answer = server.http.post("/services/config/fail", "try again").await;
    assert_eq!(answer.status, StatusCode::OK);
    wait_until_blocked_by(&server, "config", "line 3").await;

    server.configure(&configuration("world-2").replace("greeting", "greting"));
    wait_until_blocked_by(&server, "config", "greting").await;

    fs::remove_file(server.file("server.toml")).expect("the file can be removed");
    wait_until_blocked_by(&server, "config", "cannot read").await;

    change(&server, "europe-3").await;
}

#[tokio::test]
async fn a_missing_database_is_reported_until_it_exists() {
    let server = started_to_restart("world-0").await;
    server.configure(&configuration("missing-1"));
    // The front page depends on the database through the catalog.
    wait_until_blocked_by(&server, "database", "missing.sqlite").await;
    assert_eq!(status(&server, "page").await["phase"], "ready");

    fs::write(server.file("missing.sqlite"), "this text is not an SQLite database")
        .expect("the file can be written");
    wait_until_blocked_by(&server, "database", "not a database").await;
    fs::copy(server.file("europe.sqlite"), server.file("missing.sqlite"))
        .expect("the file can be copied");
    wait_until_shown(&server, "missing-1").await;

    server.configure(&configuration("nowhere-2"));
    wait_until_blocked_by(&server, "database", "nowhere.sqlite").await;
    change(&server, "world-3").await;
}

#[tokio::test]
async fn a_failed_database_restarts_the_catalog_and_nothing_else() {
    let server = started("world-0").await;
    let before = generations(&server).await;
    let answer = server.http.post("/services/database/fail", "a test").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["failed"], 2);
    wait_until_shown(&server, "world-0").await;
    let after = generations(&server).await;
    assert!(
        after["database"] > before["database"] && after["catalog"] > before["catalog"],
        "{after:?}"
    );
    assert_eq!(after["page"], before["page"]);
    assert_eq!(after["config"], before["config"]);
    assert!(status(&server, "catalog").await["last_failure"].to_string().contains("a test"));
}

#[tokio::test]
async fn a_request_detects_a_corrupted_database_file() {
    let server = started("europe-0").await;
    let before = generations(&server).await;
    let file = server.file("europe.sqlite");
    let good = fs::read(&file).expect("the file can be read");
    fs::write(&file, vec![0x55; good.len()]).expect("the file can be written");
    wait_until_blocked_by(&server, "database", "not a database").await;
    fs::write(&file, good).expect("the file can be written");
    wait_until_shown(&server, "europe-0").await;
    assert_eq!(generations(&server).await["page"], before["page"]);
}

#[tokio::test]
async fn an_equal_configuration_restarts_nothing() {
    let server = started("world-0").await;
    let before = generations(&server).await;
    let mut lines: Vec<_> = configuration("world-0").lines().map(str::to_owned).collect();
    lines.reverse();
    server.configure(&format!("# another comment\n{}\n", lines.join("\n\n")));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(generations(&server).await, before);
    // The server still detects changes.
    change(&server, "world-1").await;
    assert_eq!(generations(&server).await, before);
}

#[tokio::test]
async fn the_list_and_the_graph_contain_all_services() {
    let server = started("world-0").await;
    for service in SERVICES {
        let status = status(&server, service).await;
        assert_eq!(status["phase"], "ready", "{status}");
        assert_eq!(status["has_provider"], true, "{status}");
        let dependencies = status["dependencies"].as_array().expect("`dependencies` is a list");
        let names: BTreeSet<_> =
            dependencies.iter().filter_map(|dependency| dependency["name"].as_str()).collect();
        let expected: &[&str] = match service {
            "config" => &[],
            "catalog" => &["database", "page"],
            _ => &["config"],
        };
        assert!(names.iter().eq(expected), "{status}");
    }
    let graph = server.http.get("/services.dot").await;
    assert_eq!(graph.status, StatusCode::OK);
    assert!(graph.text.starts_with("digraph"), "{}", graph.text);
    assert!(SERVICES.iter().all(|service| graph.text.contains(service)), "{}", graph.text);
    // Four hard edges, and a soft one from the listener to each other service.
    assert_eq!(graph.text.matches("->").count(), 9, "{}", graph.text);

    for path in ["/countries/XX", "/nothing"] {
        assert_eq!(server.http.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let unknown = server.http.post("/services/unknown/fail", "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text.contains("unknown"), "{}", unknown.text);
}

#[tokio::test]
async fn a_worker_that_panics_is_seen_and_restarted() {
    let server = started("world-0").await;
    let counts = |answer: &Answer| answer.json()["requests"]["RU"].as_u64();
    let is_counted = |answer: &Answer| counts(answer) > Some(0);
    server.http.until("/statistics", "a request is counted", is_counted).await;
    let before = generations(&server).await;
    let generation_before = generation(&server, "statistics").await;

    let answer = server.http.post("/statistics/panic", "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    let is_new = |answer: &Answer| answer.status == StatusCode::OK && counts(answer).is_none();
    server.http.until("/statistics", "the worker has begun anew", is_new).await;
    let status = status(&server, "statistics").await;
    assert_eq!(number(&status["generation"]), generation_before + 1);
    let failure = status["last_failure"].to_string();
    assert!(failure.contains("its body panicked: requested over HTTP"), "{failure}");
    // It works again, and no other service has noticed it.
    let answer = server.http.get("/countries/RU").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    server.http.until("/statistics", "a request is counted", is_counted).await;
    assert_eq!(generations(&server).await, before);
}

#[tokio::test]
async fn a_stopped_service_is_reported_until_it_is_started() {
    let server = started("world-0").await;
    let before = generations(&server).await;
    let answer = server.http.post("/services/database/stop", "").await;
    assert!(answer.status.is_success(), "{}", answer.text);
    wait_until_blocked_by(&server, "database", "database was stopped").await;
    // Its dependent waits for it, and nothing else has ended.
    assert_eq!(status(&server, "catalog").await["phase"], "starting");
    let answer = server.http.post("/services/database/start", "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
    wait_until_shown(&server, "world-0").await;
    let after = generations(&server).await;
    assert_eq!((after["config"], after["page"]), (before["config"], before["page"]));
    assert_eq!(number(&status(&server, "database").await["supervisor"]["failures"]), 0);
}

/// The listener answers the request that restarts it, and opens its port again.
#[tokio::test]
async fn the_listener_is_restarted_and_no_other_service_with_it() {
    let server = started("world-0").await;
    let (before, listener) = (generations(&server).await, generation(&server, "http").await);
    let answer = server.http.post("/services/http/restart", "moved").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.text);
    let start = std::time::Instant::now();
    // The port is closed for a moment.
    while !server.http.is_answering().await {
        assert!(start.elapsed() < example_server::DEADLINE, "the port is not opened again");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let is_restarted = |answer: &Answer| {
        let listing = answer.json();
        let services = listing["services"].as_array().expect("`services` is a list");
        services.iter().any(|one| one["name"] == "http" && number(&one["generation"]) > listener)
    };
    server.http.until("/services", "the listener is restarted", is_restarted).await;
    assert_eq!(generations(&server).await, before);
}

#[cfg(unix)]
#[tokio::test]
async fn the_server_ends_in_order_on_sigterm() {
    let mut server = started("world-0").await;
    assert!(server.terminate().success());
    assert!(!server.log().contains("panicked"), "{}", server.log());

    // It also ends in order while the configuration is broken, and everything waits.
    let mut server = started_to_restart("world-0").await;
    server.configure("name = ");
    wait_until_blocked_by(&server, "config", "line 1").await;
    assert!(server.terminate().success());
}

/// Sends one request on a connection of its own. Returns `None` if the server did not accept it: no
/// byte of a response was received.
#[cfg(unix)]
fn ask_once(address: &str) -> Option<String> {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };
    let mut stream = TcpStream::connect(address).ok()?;
    let request = "GET /countries/RU HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        return None;
    }
    read.expect("a response that has begun must be complete");
    Some(String::from_utf8(answer).expect("the response is text"))
}

/// Ends the server under load. Each response must be complete, and have the status 200.
#[cfg(unix)]
async fn end_under_load(server: &mut Server) {
    let is_running = Arc::new(AtomicBool::new(true));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = server.http.address().to_string();
            let is_running = Arc::clone(&is_running);
            std::thread::spawn(move || {
                let mut answers = 0;
                loop {
                    let before = is_running.load(Ordering::SeqCst);
                    let Some(answer) = ask_once(&address) else {
                        let running = is_running.load(Ordering::SeqCst);
                        assert!(!running, "a request was refused before the end");
                        return answers;
                    };
                    let (head, body) =
                        answer.split_once("\r\n\r\n").expect("the response has a header");
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    assert_eq!(
                        length,
                        Some(&*body.len().to_string()),
                        "the body must be complete: {head}"
                    );
                    // Nothing fails here, so each response must have the status 200.
                    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
                    answers += usize::from(before);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    is_running.store(false, Ordering::SeqCst);
    assert!(server.terminate().success());
    for client in clients {
        assert!(client.join().expect("all responses were correct") > 0);
    }
    assert!(!server.log().contains("not stopped in time"), "{}", server.log());
}

#[cfg(unix)]
#[tokio::test]
async fn no_accepted_request_is_lost_at_the_end() {
    let mut server = started("world-0").await;
    end_under_load(&mut server).await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
