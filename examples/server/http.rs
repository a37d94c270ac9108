//! The handlers. They read whatever is ready right now and never wait for a service to come back.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use mainstay::{Fate, GetAllError, Guard, NotReady, Phase};
use serde_json::{Value, json};

use crate::{BoxError, Services};

pub(crate) fn router(services: Services) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/countries/{code}", get(country))
        .route("/services", get(list))
        .route("/services.dot", get(graph))
        .route("/services/{name}/fail", post(fail))
        .route("/services/{name}/builds/{fate}", post(build))
        .route("/services/{name}/reset", post(reset))
        .with_state(services)
}

async fn front_page(State(services): State<Services>) -> Result<Html<String>, Problem> {
    let (page, catalog) = services
        .registry
        .get_all((services.page, services.catalog))
        .map_err(|error| Problem::reading(&services, error))?;
    Ok(Html(page.render(&catalog.list)))
}

/// The name of the country comes from the catalog, its zones from SQLite.
async fn country(
    State(services): State<Services>,
    Path(code): Path<String>,
) -> Result<Json<Value>, Problem> {
    // The query blocks, so all of it goes to a thread that may.
    tokio::task::spawn_blocking(move || country_blocking(&services, &code))
        .await
        .map_err(Problem::internal)?
}

fn country_blocking(services: &Services, code: &str) -> Result<Json<Value>, Problem> {
    // One read of all three: this catalog was made from this database, opened for this configuration.
    let (config, database, catalog) = services
        .registry
        .get_all((services.config, services.database, services.catalog))
        .map_err(|error| Problem::reading(services, error))?;
    let Some(country) = catalog.country(code) else {
        return Err(Problem::NotFound(format!("no country {code} in {}", catalog.label)));
    };
    let zones = database.zones(code).map_err(|error| {
        // Fails the generation that was used here and no other: by now there may be a new one, with
        // nothing wrong with it.
        let _ = services.registry.report(Guard::instance(&database), error);
        Problem::unavailable(services, "database", Phase::Down)
    })?;
    Ok(Json(json!({
        "code": code,
        "name": country.name,
        "zones": zones,
        "zone_count": country.zones,
        "config": { "name": config.name, "generation": Guard::generation(&config) },
        "database": { "label": database.label, "generation": Guard::generation(&database) },
        "catalog": { "label": catalog.label, "generation": Guard::generation(&catalog) },
    })))
}

async fn list(State(services): State<Services>) -> impl IntoResponse {
    Json(services.registry.list())
}

async fn graph(State(services): State<Services>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/vnd.graphviz")], services.registry.list().to_dot())
}

/// Takes a service down from outside, with all that depends on it. They come back by themselves.
async fn fail(
    State(services): State<Services>,
    Path(name): Path<String>,
    reason: String,
) -> Result<Json<Value>, Problem> {
    let service =
        services.registry.find(&name).map_err(|error| Problem::NotFound(error.to_string()))?;
    let reason = if reason.is_empty() { "asked for over HTTP".to_owned() } else { reason };
    let cascade = services.registry.fail(service, reason).map_err(Problem::internal)?;
    Ok(Json(json!({
        "service": name,
        "went_down": cascade.went_down,
        "overtaken": cascade.overtaken,
    })))
}

/// Lets the next build of a service that was not told so yet go wrong: it fails, panics or hangs.
async fn build(
    State(Services { builds, .. }): State<Services>,
    Path((name, fate)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let script = match &*name {
        "database" => builds.database,
        "page" => builds.page,
        "catalog" => builds.catalog,
        _ => return Err(Problem::NotFound(format!("nobody supervises {name}"))),
    };
    script.push(match &*fate {
        "fail" => Fate::Fail("as it was told to".to_owned()),
        "panic" => Fate::Panic("as it was told to".to_owned()),
        "hang" => Fate::Hang,
        _ => {
            return Err(Problem::NotFound(format!(
                "builds fail, panic or hang, and do not {fate}"
            )));
        }
    });
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets the failures of a service, and tries it at once where it rests or was given up.
async fn reset(
    State(services): State<Services>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    let service =
        services.registry.find(&name).map_err(|error| Problem::NotFound(error.to_string()))?;
    services.registry.reset(service).map_err(Problem::internal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Every answer that is not a 200.
enum Problem {
    /// Worth trying again soon; says what is in the way.
    Unavailable(Value),
    NotFound(String),
    Internal(BoxError),
}

impl Problem {
    fn reading(services: &Services, error: GetAllError) -> Self {
        match error {
            GetAllError::NotReady(NotReady { service, phase, .. }) => {
                Self::unavailable(services, &service, phase)
            }
            other => Self::Unavailable(json!({ "unavailable": other.to_string(), "because": [] })),
        }
    }

    /// Names the services that `service` waits for in the end, each with what took it down. None, if all
    /// have come up meanwhile.
    fn unavailable(services: &Services, service: &str, phase: Phase) -> Self {
        let listing = services.registry.list();
        let because: Vec<Value> = listing
            .blockers(service)
            .into_iter()
            .map(|status| {
                let reason = status.last_failure.as_ref().map(|failure| failure.reason.to_string());
                json!({ "service": status.name, "phase": status.phase, "reason": reason })
            })
            .collect();
        Self::Unavailable(json!({ "unavailable": service, "phase": phase, "because": because }))
    }

    fn internal(error: impl Into<BoxError>) -> Self {
        Self::Internal(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        match self {
            Self::Unavailable(body) => {
                (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], Json(body))
                    .into_response()
            }
            Self::NotFound(what) => {
                (StatusCode::NOT_FOUND, Json(json!({ "error": what }))).into_response()
            }
            Self::Internal(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error.to_string() })))
                    .into_response()
            }
        }
    }
}
