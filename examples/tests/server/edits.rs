//! The configuration is edited under load, between two databases. An edit in three is broken, in a
//! random way: its syntax, a missing file, a database with another schema, a build that panics or
//! hangs.
//!
//! - Every answer is a 200, and none mixes two configurations.
//! - Each edit that is not broken is shown soon.
//! - Each broken one is reported with its cause: `config` is stale, and the answers stay as they
//!   are.
//! - A reload over HTTP answers with what was switched, or with the whole cause.
//! - At the end only the databases of the present configuration are open.

use std::{fs, path::Path};

use mainstay_test_support::{Random, Seed};
use reqwest::StatusCode;

use crate::{
    example_server::{Answer, Server},
    load::{Clients, SERVICES, configuration},
    started, status, wait_until_shown,
};

/// The number of edits. `MAINSTAY_EDITS` overrides it.
const EDITS: usize = 60;
const CLIENTS: usize = 6;
/// The number of connections of one database.
const CONNECTIONS: usize = 4;

/// The services whose builds can be made to fail.
const BUILT: [&str; 3] = ["database", "page", "catalog"];

/// Writes a database with a schema that the server does not know. SQLite has the version of the
/// schema in the header of the file (<https://www.sqlite.org/fileformat.html>).
fn write_other_schema(from: &Path, to: &Path) {
    const USER_VERSION: usize = 60;
    let mut file = fs::read(from).expect("the database can be read");
    file[USER_VERSION..USER_VERSION + 4].copy_from_slice(&2_u32.to_be_bytes());
    fs::write(to, file).expect("the database can be written");
}

/// Makes a broken edit. Returns what the report must contain.
async fn break_configuration(server: &Server, random: &mut Random, edit: usize) -> String {
    let name = format!("world-{edit}");
    let good = configuration(&name);
    match random.below(7) {
        0 => {
            server.configure(&good.replace("title", "= title"));
            "line 3".into()
        }
        1 => {
            server.configure(&good.replace("greeting", "greting"));
            "greting".into()
        }
        2 => {
            fs::remove_file(server.file("server.toml")).expect("the file can be removed");
            "cannot read".into()
        }
        3 => {
            server.configure(&configuration(&format!("nowhere-{edit}")));
            "nowhere.sqlite".into()
        }
        4 => {
            server.configure(&configuration(&format!("other-{edit}")));
            "has schema version 2".into()
        }
        kind => {
            let service = BUILT[random.below(BUILT.len())];
            let (outcome, report) = match kind {
                5 => ("panic", "the build panicked"),
                _ => ("hang", "not built within"),
            };
            let answer =
                server.http.post(&format!("/services/{service}/builds/{outcome}"), "").await;
            assert!(answer.status.is_success(), "{}", answer.text);
            server.configure(&good);
            format!("reload refused by {service}: {report}")
        }
    }
}

/// Waits until `config` is stale for this reason.
async fn wait_until_stale(server: &Server, what: &str) {
    let is_reported = |answer: &Answer| {
        let services = &answer.json()["services"];
        let services = services.as_array().expect("`services` is a list").iter();
        let mut stale = services.filter(|service| service["name"] == "config");
        stale.any(|config| config["supervisor"]["stale"]["why"].to_string().contains(what))
    };
    server.http.until("/services", what, is_reported).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_notices_an_edit() {
    let edits = std::env::var("MAINSTAY_EDITS");
    let edits = edits.map_or(EDITS, |edits| edits.parse().expect("a number of edits"));
    let seed = Seed::new();
    let mut random = seed.random(0);
    let server = started("world-0").await;
    write_other_schema(&server.file("world.sqlite"), &server.file("other.sqlite"));

    let clients = Clients::start(&server.http, CLIENTS);
    let (mut shown, mut broken) = ("world-0".to_owned(), 0);
    for edit in 0..edits {
        if edit % 3 == 2 {
            broken += 1;
            let what = break_configuration(&server, &mut random, edit).await;
            wait_until_stale(&server, &what).await;
            let answer = server.http.get("/countries/RU").await;
            assert_eq!(answer.json()["config"]["name"], *shown, "{what}");
            continue;
        }
        let label = ["world", "europe"][random.below(2)];
        let name = format!("{label}-{edit}");
        server.configure(&configuration(&name));
        wait_until_shown(&server, &name).await;
        assert!(status(&server, "config").await["supervisor"]["stale"].is_null());
        shown = name;
    }

    let seen = clients.stop().await;
    println!(
        "{edits} edits, {broken} broken; {} countries, {} pages, {} configurations",
        seen.countries,
        seen.pages,
        seen.names.len()
    );
    assert_eq!(seen.unavailable, 0, "no answer may be a 503");
    assert!(seen.countries > edits, "only {} countries", seen.countries);
    assert!(seen.pages > edits / 2, "only {} pages", seen.pages);
    // No service was restarted: the generations are those of the start.
    for service in SERVICES {
        assert_eq!(status(&server, service).await["generation"], 0);
    }
    wait_until_closed(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_over_http_says_what_was_switched_or_the_whole_cause() {
    let server = started("world-0").await;
    let answer = server.http.post("/services/database/reload", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.text, r#"{"switched":["database","catalog"]}"#);
    server.http.post("/services/catalog/builds/panic", "").await;
    let answer = server.http.post("/services/database/reload", "").await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    let expected = r#"{"error":"database was not reloaded: the build of catalog failed: "#;
    assert!(answer.text.starts_with(expected), "{}", answer.text);
    assert!(answer.text.contains("panicked"), "{}", answer.text);
    assert_eq!(server.http.get("/countries/RU").await.status, StatusCode::OK);
}

/// Waits until the databases of earlier configurations are closed.
async fn wait_until_closed(server: &Server) {
    let is_closed = |answer: &Answer| {
        answer.status == StatusCode::OK
            && server.open_databases().is_none_or(|open| open == CONNECTIONS)
    };
    server.http.until("/services", "the old databases are closed", is_closed).await;
}
