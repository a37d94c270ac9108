//! The example server, started for real and judged by its answers alone.
//!
//! 1. No answer mixes two configurations: not under load, while the file is rewritten a hundred times,
//!    while services are failed over HTTP and while the file is broken now and then. The name of a
//!    configuration says which database belongs to it, the two databases differ in what they hold, and
//!    generations only rise.
//! 2. After every change the service comes back and shows the new configuration.
//! 3. While the configuration is broken or missing, or names a database that is not there, every answer
//!    is a 503 that says so; nothing is tried over and over, and once mended all comes back by itself.
//! 4. A failure of `database` restarts `catalog` and leaves `page` and `config` as they are.
//! 5. A database file that goes bad is noticed by the request that meets it, and taken up again once it
//!    is good.
//! 6. Writing the same configuration again, in other words, restarts nothing.
//! 7. The list and the graph show the services; what does not exist is a 404.
//! 8. On SIGTERM the server ends in order. Under load no request is lost that it has accepted: each is answered in whole,
//!    and what is not answered has not been taken.
//! 9. All of it holds through an hour of failures (`hour.rs`).

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
    load::{SERVICES, Seen, check_unavailable, client, configuration, number, saboteur},
};

const REWRITES: usize = 100;
const CLIENTS: usize = 6;

/// The server under a configuration of that name.
async fn started(name: &str) -> Server {
    let server = Server::start();
    change(&server, name).await;
    server
}

/// Rewrites the configuration and waits until an answer shows it.
async fn change(server: &Server, name: &str) {
    server.configure(&configuration(name));
    shows(server, name).await;
}

async fn shows(server: &Server, name: &str) {
    let hoped = |answer: &Answer| {
        answer.status == StatusCode::OK && answer.json()["config"]["name"] == name
    };
    server.http.until("/countries/RU", name, hoped).await;
}

/// Waits until every answer is a 503 that blames the service and says what is wrong with it.
async fn blames(server: &Server, service: &str, what: &str) {
    let hoped = |answer: &Answer| {
        answer.status == StatusCode::SERVICE_UNAVAILABLE
            && answer.json()["because"].as_array().is_some_and(|because| {
                because.iter().any(|blocker| {
                    blocker["service"] == service
                        && blocker["reason"].as_str().is_some_and(|text| text.contains(what))
                })
            })
    };
    for path in ["/countries/RU", "/"] {
        let answer = server.http.until(path, what, hoped).await;
        check_unavailable(&answer);
    }
}

async fn status(server: &Server, service: &str) -> Value {
    let list = server.http.get("/services").await.json();
    let services = list["services"].as_array().expect("a list of services");
    services.iter().find(|status| status["name"] == service).expect("it is in the list").clone()
}

async fn generations(server: &Server) -> BTreeMap<&'static str, u64> {
    let mut generations = BTreeMap::new();
    for service in SERVICES {
        generations.insert(service, number(&status(server, service).await["generation"]));
    }
    generations
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_mixes_two_configurations() {
    let server = started("world-0").await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(client(server.http.clone(), Arc::clone(&stop))))
        .collect();
    let saboteur = tokio::spawn(saboteur(server.http.clone(), Arc::clone(&stop)));

    for rewrite in 1..=REWRITES {
        if rewrite % 10 == 0 {
            server.configure("name = ");
            blames(&server, "config", "line 1").await;
        }
        let [label, other] = [["world", "europe"], ["europe", "world"]][rewrite % 2];
        if rewrite % 3 == 0 {
            // This one may be overtaken at any point of its coming up.
            server.configure(&configuration(&format!("{other}-{rewrite}")));
            tokio::time::sleep(Duration::from_millis(rewrite as u64 % 40)).await;
        }
        let name = format!("{label}-{rewrite}");
        change(&server, &name).await;
        if rewrite % 10 == 5 {
            // The saboteur's failures are mostly followed by a rewrite; this one is survived by the
            // configuration.
            let answer = server.http.post("/services/database/fail", "sabotage").await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            shows(&server, &name).await;
        }
    }

    stop.store(true, Ordering::Relaxed);
    saboteur.await.expect("every sabotage was answered");
    let mut seen = Seen::default();
    for client in clients {
        seen.merge(client.await.expect("every answer was in order"));
    }
    println!(
        "{} countries, {} pages, {} refusals, {} configurations",
        seen.answers,
        seen.pages,
        seen.refusals,
        seen.names.len()
    );
    assert!(seen.answers >= 300, "only {} countries", seen.answers);
    assert!(seen.pages >= 100, "only {} pages", seen.pages);
    assert!(seen.refusals > 0, "nothing was ever down");
    assert!(seen.names.len() >= 20, "only {} configurations", seen.names.len());
}

#[tokio::test]
async fn a_broken_configuration_is_named_and_mended() {
    let server = started("world-0").await;

    server.configure("name = \"world-1\"\ndatabase = \"world.sqlite\"\ntitle = oops\n");
    blames(&server, "config", "line 3").await;
    // Past the time at which the server looks at the file without being told to: nothing was tried
    // again.
    let before = status(&server, "config").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let after = status(&server, "config").await;
    assert_eq!(after["last_failure"], before["last_failure"]);
    assert_eq!(after["generation"], before["generation"]);

    // A try that somebody asks for ends the same way.
    let answer = server.http.post("/services/config/fail", "try again").await;
    assert_eq!(answer.status, StatusCode::OK);
    blames(&server, "config", "line 3").await;

    server.configure(&configuration("world-2").replace("greeting", "greting"));
    blames(&server, "config", "greting").await;

    fs::remove_file(server.file("server.toml")).expect("the file was there");
    blames(&server, "config", "cannot read").await;

    change(&server, "europe-3").await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_and_mended() {
    let server = started("world-0").await;
    server.configure(&configuration("missing-1"));
    // The front page hangs on the database by way of the catalog.
    blames(&server, "database", "missing.sqlite").await;
    assert_eq!(status(&server, "page").await["phase"], "ready");

    fs::write(server.file("missing.sqlite"), "no database at all, but a file")
        .expect("it can be written");
    blames(&server, "database", "not a database").await;
    fs::copy(server.file("europe.sqlite"), server.file("missing.sqlite"))
        .expect("it can be copied");
    shows(&server, "missing-1").await;

    server.configure(&configuration("nowhere-2"));
    blames(&server, "database", "nowhere.sqlite").await;
    change(&server, "world-3").await;
}

#[tokio::test]
async fn a_failed_database_restarts_the_catalog_and_nothing_else() {
    let server = started("world-0").await;
    let before = generations(&server).await;
    let answer = server.http.post("/services/database/fail", "a test").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["went_down"], 2);
    shows(&server, "world-0").await;
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
async fn a_database_file_that_goes_bad_is_noticed_by_a_request() {
    let server = started("europe-0").await;
    let before = generations(&server).await;
    let file = server.file("europe.sqlite");
    let good = fs::read(&file).expect("the database is a file");
    fs::write(&file, vec![0x55; good.len()]).expect("it can be written");
    blames(&server, "database", "not a database").await;
    fs::write(&file, good).expect("it can be written");
    shows(&server, "europe-0").await;
    assert_eq!(generations(&server).await["page"], before["page"]);
}

#[tokio::test]
async fn the_same_configuration_in_other_words_restarts_nothing() {
    let server = started("world-0").await;
    let before = generations(&server).await;
    let mut lines: Vec<_> = configuration("world-0").lines().map(str::to_owned).collect();
    lines.reverse();
    server.configure(&format!("# another comment\n{}\n", lines.join("\n\n")));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(generations(&server).await, before);
    // And the server still looks.
    change(&server, "world-1").await;
    assert!(generations(&server).await["config"] > before["config"]);
}

#[tokio::test]
async fn the_list_and_the_graph_show_the_services() {
    let server = started("world-0").await;
    for service in SERVICES {
        let status = status(&server, service).await;
        assert_eq!(status["phase"], "ready", "{status}");
        assert_eq!(status["provided"], true, "{status}");
        let dependencies = status["dependencies"].as_array().expect("a list of dependencies");
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
    assert_eq!(graph.text.matches("->").count(), 4, "{}", graph.text);

    for path in ["/countries/XX", "/nothing"] {
        assert_eq!(server.http.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let unknown = server.http.post("/services/unknown/fail", "").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(unknown.text.contains("unknown"), "{}", unknown.text);
}

#[cfg(unix)]
#[tokio::test]
async fn it_ends_in_order() {
    let mut server = started("world-0").await;
    assert!(server.terminate().success());
    assert!(!server.log().contains("panicked"), "{}", server.log());

    // And no less while the configuration is broken, which leaves nothing but waits.
    let mut server = started("world-0").await;
    server.configure("name = ");
    blames(&server, "config", "line 1").await;
    assert!(server.terminate().success());
}

/// One request on a connection of its own. `None` where it was not taken any more: no byte of an answer came.
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
    read.expect("an answer that has begun is not cut off");
    Some(String::from_utf8(answer).expect("text"))
}

/// Ends the server under load, in which each answer is to be a good one.
#[cfg(unix)]
async fn end_under_load(server: &mut Server) {
    let before_the_end = Arc::new(AtomicBool::new(true));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let address = server.http.address().to_string();
            let before_the_end = Arc::clone(&before_the_end);
            std::thread::spawn(move || {
                let mut answers = 0;
                loop {
                    let before = before_the_end.load(Ordering::SeqCst);
                    let Some(answer) = ask_once(&address) else {
                        let told = before_the_end.load(Ordering::SeqCst);
                        assert!(!told, "a request is refused before the end");
                        return answers;
                    };
                    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
                    let length =
                        head.lines().find_map(|line| line.strip_prefix("content-length: "));
                    assert_eq!(length, Some(&*body.len().to_string()), "in whole: {head}");
                    // Nothing fails here: until the end, and at it, each is an answer, and no excuse.
                    assert!(head.starts_with("HTTP/1.1 200"), "{answer}");
                    answers += usize::from(before);
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    before_the_end.store(false, Ordering::SeqCst);
    assert!(server.terminate().success());
    for client in clients {
        assert!(client.join().expect("all its answers were good") > 0);
    }
    assert!(!server.log().contains("not stopped in time"), "{}", server.log());
}

#[cfg(unix)]
#[tokio::test]
async fn it_loses_no_request_at_its_end() {
    let mut server = started("world-0").await;
    end_under_load(&mut server).await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
