//! The handlers. They read the services that are ready, and never wait for a service.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use mainstay::{
    AnyId, Guard, Phase,
    error::{DependencyUnavailable, GetAllError, Unavailable, chain},
    supervise::{Reloaded, StopWait, TokioClock},
    test_kit::BuildOutcome,
};
use serde_json::{Value, json};

use crate::{BoxError, Services, config::RELOAD_TIMEOUT};

pub(crate) fn router(services: Services) -> Router {
    Router::new()
        .route("/", get(front_page))
        .route("/countries/{code}", get(country))
        .route("/services", get(list))
        .route("/services.dot", get(graph))
        .route("/services/{name}/fail", post(fail))
        .route("/services/{name}/builds/{outcome}", post(build))
        .route("/services/{name}/reload", post(reload))
        .route("/services/{name}/restart", post(restart))
        .route("/services/{name}/stop", post(stop))
        .route("/services/{name}/start", post(start))
        .route("/statistics", get(statistics))
        .route("/statistics/panic", post(panic_in_worker))
        .with_state(services)
}

async fn front_page(State(services): State<Services>) -> Result<Html<String>, Problem> {
    let (page, catalog) = services
        .registry
        .get_all((services.page, services.catalog))
        .map_err(|error| Problem::reading(&services, error))?;
    Ok(Html(page.render(&catalog.list)))
}

/// The name of the country comes from the catalog, its time zones from SQLite.
async fn country(
    State(services): State<Services>,
    Path(code): Path<String>,
) -> Result<Json<Value>, Problem> {
    // The query blocks, so the handler runs on a thread that may block.
    tokio::task::spawn_blocking(move || country_blocking(&services, &code))
        .await
        .map_err(Problem::internal)?
}

fn country_blocking(services: &Services, code: &str) -> Result<Json<Value>, Problem> {
    // All three at one instant: the catalog was built from this database, which was opened for this
    // configuration.
    let (config, database, catalog) = services
        .registry
        .get_all((services.config, services.database, services.catalog))
        .map_err(|error| Problem::reading(services, error))?;
    let Some(country) = catalog.country(code) else {
        return Err(Problem::NotFound(format!("there is no country {code} in {}", catalog.label)));
    };
    if let Ok(statistics) = services.registry.get(services.statistics) {
        statistics.count(code);
    }
    let zones = database.zones(code).map_err(|error| {
        // Fails exactly the instance that was used here. If the database has been rebuilt since the
        // read, the new instance is not affected.
        let _ = services.registry.fail_instance(Guard::instance(&database), error);
        Problem::unavailable(services, "database", Phase::Down)
    })?;
    Ok(Json(json!({
        "code": code,
        "name": country.name,
        "zones": zones,
        "zone_count": country.zones,
        "config": { "name": config.name, "instance": instance(&config) },
        "database": { "label": database.label, "instance": instance(&database) },
        "catalog": { "label": catalog.label, "instance": instance(&catalog) },
    })))
}

/// Returns the generation and the revision. A reload changes the revision alone.
fn instance<T>(guard: &Guard<T>) -> [u64; 2] {
    [Guard::generation(guard).into(), Guard::revision(guard)]
}

async fn list(State(services): State<Services>) -> impl IntoResponse {
    Json(services.registry.list())
}

async fn graph(State(services): State<Services>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/vnd.graphviz")], services.registry.list().to_dot())
}

/// Fails a service, and with it all services that were built from it. Their supervisors rebuild
/// them.
async fn fail(
    State(services): State<Services>,
    Path(name): Path<String>,
    reason: String,
) -> Result<Json<Value>, Problem> {
    let service = find(&services, &name)?;
    let reason = if reason.is_empty() { "requested over HTTP".to_owned() } else { reason };
    let cascade = services.registry.fail(service, reason).map_err(Problem::internal)?;
    Ok(Json(json!({
        "service": name,
        "failed": cascade.failed,
        "invalidated": cascade.invalidated,
    })))
}

/// Defines the outcome of one build of a service, after the outcomes that are already defined: it
/// fails, fails permanently, panics or hangs.
async fn build(
    State(Services { builds, .. }): State<Services>,
    Path((name, outcome)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let script = match &*name {
        "database" => builds.database,
        "page" => builds.page,
        "catalog" => builds.catalog,
        _ => {
            return Err(Problem::NotFound(format!("no supervised service is named {name}")));
        }
    };
    script.push(match &*outcome {
        "fail" => BuildOutcome::Fail("requested over HTTP".to_owned()),
        "permanent" => BuildOutcome::Permanent("requested over HTTP".to_owned()),
        "panic" => BuildOutcome::Panic("requested over HTTP".to_owned()),
        "hang" => BuildOutcome::Hang,
        _ => {
            return Err(Problem::NotFound(format!(
                "unknown outcome {outcome}: use fail, permanent, panic or hang"
            )));
        }
    });
    Ok(StatusCode::NO_CONTENT)
}

fn find(services: &Services, name: &str) -> Result<AnyId, Problem> {
    services.registry.find(name).map_err(|error| Problem::NotFound(error.to_string()))
}

/// Builds a service and its dependents anew, and switches to them at one instant. If one of them
/// cannot be built, nothing has changed.
async fn reload(
    State(services): State<Services>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let reload = services.registry.reload(find(&services, &name)?);
    match reload.timeout(RELOAD_TIMEOUT, &TokioClock).await {
        Ok(Reloaded { members, .. }) => {
            let switched = members.iter().map(|member| &member.service);
            Ok(Json(json!({ "switched": switched.collect::<Vec<_>>() })))
        }
        Err(error) => Err(Problem::Refused(chain(&error).to_string())),
    }
}

/// Restarts a service, with its dependents, as planned.
async fn restart(
    State(services): State<Services>,
    Path(name): Path<String>,
    reason: String,
) -> Result<StatusCode, Problem> {
    let reason = if reason.is_empty() { "requested over HTTP".to_owned() } else { reason };
    begin(services.registry.restart(find(&services, &name)?, reason)).await
}

/// Stops a service, with its dependents. It stays down until it is started.
async fn stop(
    State(services): State<Services>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    begin(services.registry.stop(find(&services, &name)?)).await
}

/// Begins a restart or a stop. It is not awaited: the service may be the one that answers this
/// request, and it ends after its last response.
async fn begin(mut wait: StopWait) -> Result<StatusCode, Problem> {
    match tokio::time::timeout(Duration::ZERO, &mut wait).await {
        Ok(ended) => ended.map(|_| StatusCode::NO_CONTENT).map_err(Problem::internal),
        Err(_) => {
            tokio::spawn(wait);
            Ok(StatusCode::ACCEPTED)
        }
    }
}

/// Starts a service that was stopped.
async fn start(
    State(services): State<Services>,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    services.registry.start(find(&services, &name)?).map_err(Problem::internal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns how often each country was requested, since the worker has begun.
async fn statistics(State(services): State<Services>) -> Result<Json<Value>, Problem> {
    let statistics = services.registry.get(services.statistics);
    let statistics =
        statistics.map_err(|_| Problem::unavailable(&services, "statistics", Phase::Down))?;
    Ok(Json(json!({ "requests": statistics.counts() })))
}

/// Lets the worker of the statistics panic.
async fn panic_in_worker(State(services): State<Services>) -> Result<StatusCode, Problem> {
    let statistics = services.registry.get(services.statistics);
    statistics.map_err(|_| Problem::unavailable(&services, "statistics", Phase::Down))?.panic();
    Ok(StatusCode::NO_CONTENT)
}

/// A response other than 2xx.
enum Problem {
    /// A service is not ready. The response contains the services that block it.
    Unavailable(Value),
    NotFound(String),
    /// A reload was not possible.
    Refused(String),
    Internal(BoxError),
}

impl Problem {
    fn reading(services: &Services, error: GetAllError) -> Self {
        match DependencyUnavailable::find(&error) {
            Some(DependencyUnavailable {
                service, kind: Unavailable::NotReady { phase }, ..
            }) => Self::unavailable(services, service, *phase),
            _ => Self::Unavailable(json!({ "unavailable": error.to_string(), "blockers": [] })),
        }
    }

    /// Lists the services that block `service`, each with its last failure. The list is empty if
    /// all of them have become ready since the read.
    fn unavailable(services: &Services, service: &str, phase: Phase) -> Self {
        let listing = services.registry.list();
        let blockers: Vec<Value> = listing
            .blockers(service)
            .into_iter()
            .map(|status| {
                let reason = status.last_failure.as_ref().map(|failure| failure.reason.to_string());
                json!({ "service": status.name, "phase": status.phase, "reason": reason })
            })
            .collect();
        Self::Unavailable(json!({ "unavailable": service, "phase": phase, "blockers": blockers }))
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
            Self::Refused(what) => {
                (StatusCode::CONFLICT, Json(json!({ "error": what }))).into_response()
            }
            Self::Internal(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "error": error.to_string() })))
                    .into_response()
            }
        }
    }
}
