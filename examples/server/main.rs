//! An HTTP server whose services are rebuilt when its configuration file changes.
//!
//! ```text
//! cargo run --release -p examples
//! ```
//!
//! It has six services, each in a file of its own. The arrows point to their dependencies:
//!
//! ```text
//!            ┌── database ◄──┐
//! config  ◄──┤               ├── catalog            http, statistics
//!            └── page ◄──────┘
//! ```
//!
//! Edit `target/example-server/server.toml` while it runs: everything that depends on it is built
//! anew beside the old services, which continue to answer, and is switched at one instant. No
//! request notices it, and no response mixes the two. If the file is broken, or something cannot be
//! built from it, nothing changes, and `/services` says what is stale and why. With `--on-edit
//! restart` the old services are taken down first, and while the file is broken every response is a
//! 503 that says what is wrong.
//!
//! Each service is supervised: it defines how it is built, and three of them have a body that runs
//! while they are up. The body of `config` watches the file, that of `http` accepts connections,
//! and that of `statistics` is a worker on a queue. The handlers in `http.rs` only read. `http`
//! stays up whatever fails, and stops first: it has a soft edge to each other service.
//!
//! To build one service and its dependents anew without an outage, reload it. To see how the server
//! recovers, fail a service, let its next build fail, let the worker panic,
//! or stop a service and start it again:
//!
//! ```text
//! curl -X POST localhost:8080/services/database/reload
//! curl -X POST localhost:8080/services/database/fail
//! curl -X POST localhost:8080/services/database/builds/panic
//! curl -X POST localhost:8080/statistics/panic
//! curl -X POST localhost:8080/services/database/stop
//! curl localhost:8080/services
//! curl -X POST localhost:8080/services/database/start
//! ```

mod catalog;
mod config;
mod config_file;
mod database;
mod events;
mod http;
mod listener;
mod options;
mod page;
mod seed;
mod statistics;

use std::{
    error::Error,
    process::{ExitCode, Termination},
    time::Duration,
};

use mainstay::{
    Registry, ServiceId,
    program::{Program, ProgramOutcome, ProgramStart, stop_signal},
    supervise::{RestartPolicy, TokioClock},
    test_kit::Script,
};

use crate::{
    catalog::Catalog,
    config::{Config, OnEdit, Source},
    config_file::ConfigFile,
    database::Database,
    events::PrintEvents,
    listener::Listener,
    options::Options,
    page::Page,
    statistics::Statistics,
};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The time limit of the requests in progress when the server stops, and then of the services.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// A build reads only local files, so it does not take longer unless it hangs.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2);

/// The registry and the ids of the services: everything that a handler needs.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) registry: Registry,
    pub(crate) config: ServiceId<Config>,
    pub(crate) database: ServiceId<Database>,
    pub(crate) page: ServiceId<Page>,
    pub(crate) catalog: ServiceId<Catalog>,
    pub(crate) statistics: ServiceId<Statistics>,
    pub(crate) http: ServiceId<Listener>,
    pub(crate) builds: Builds,
}

/// The outcomes of the next builds, which a request can define.
#[derive(Clone, Default)]
pub(crate) struct Builds {
    pub(crate) database: Script,
    pub(crate) page: Script,
    pub(crate) catalog: Script,
}

impl Services {
    fn new() -> Result<Self, BoxError> {
        let mut builder = Registry::builder(6)?;
        let config = builder.register("config")?;
        let database = builder.register("database")?;
        let page = builder.register("page")?;
        let catalog = builder.register("catalog")?;
        let statistics = builder.register("statistics")?;
        let http = builder.register("http")?;
        // `wait_for` would discover these edges. Because they are declared, they are in the graph
        // before anything has started, and a cycle is an error here.
        builder.depends(database).on(config)?;
        builder.depends(page).on(config)?;
        builder.depends(catalog).on(database)?;
        builder.depends(catalog).on(page)?;
        // The handlers read all of them, and answer with a 503 if one is down.
        builder.depends(http).soft_on(catalog)?.soft_on(page)?.soft_on(database)?;
        builder.depends(http).soft_on(config)?.soft_on(statistics)?;
        let registry = builder.observer(PrintEvents).clock(TokioClock).build();
        let builds = Builds::default();
        Ok(Self { registry, config, database, page, catalog, statistics, http, builds })
    }

    /// Starts the supervisor of every service. The order does not matter: each waits for its
    /// dependencies.
    fn start(
        &self,
        start: &mut ProgramStart,
        file: ConfigFile,
        listener: Listener,
        on_edit: OnEdit,
        limit: Option<u32>,
    ) -> Result<(), BoxError> {
        let Self { registry, config, builds, .. } = self.clone();
        // All files are local, so short backoffs are sufficient. A new configuration ends a
        // backoff.
        let policy = RestartPolicy::default()
            .backoff(FIRST_BACKOFF, MAX_BACKOFF)
            .reset_after(MAX_BACKOFF)
            .stop_timeout(STOP_TIMEOUT);

        let source = Source::new(file, on_edit);
        let supervisor = registry.supervise(config)?.restart_policy(policy.clone()).body({
            let (source, services) = (source.clone(), self.clone());
            async move |live| source.watch(live, &services).await
        });
        // It waits for a change of the file, so it has no timeout.
        start.spawn(supervisor, |it| it.run(async move |build| source.build(build).await))?;

        let supervisor = registry.supervise(self.http)?.body({
            let services = self.clone();
            async move |live| listener::serve(live, services.clone()).await
        });
        // A port cannot be opened twice.
        let supervisor = supervisor.restart_policy(policy.clone().drain_timeout(STOP_TIMEOUT));
        let (address, mut first) = (listener.address, Some(listener));
        start.spawn(supervisor, |it| {
            it.run(async move |_| match first.take() {
                Some(listener) => Ok(listener),
                None => Listener::open(address).await,
            })
        })?;

        let supervisor = registry.supervise(self.statistics)?.restart_policy(policy.clone());
        let supervisor = supervisor.body(async |live| statistics::work(live).await);
        start.spawn(supervisor, |it| it.run(async |_| Statistics::new()))?;

        let mut policy = policy.build_timeout(BUILD_TIMEOUT);
        if let Some(limit) = limit {
            policy = policy.max_failures(limit, Duration::from_secs(60));
        }
        let supervisor = registry.supervise(self.catalog)?.restart_policy(policy.clone());
        let services = self.clone();
        start.spawn(supervisor, |it| {
            it.run(async move |build| {
                builds.catalog.step().await?;
                catalog::build(build, services.clone()).await
            })
        })?;
        let supervisor = registry.supervise(self.database)?.restart_policy(policy.clone());
        start.spawn(supervisor, |it| {
            it.run(async move |build| {
                builds.database.step().await?;
                database::build(build, config).await
            })
        })?;
        let supervisor = registry.supervise(self.page)?.restart_policy(policy);
        start.spawn(supervisor, |it| {
            it.run(async move |build| {
                builds.page.step().await?;
                Ok::<_, BoxError>(page::build(build, config).await?)
            })
        })?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::USAGE);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("server: {error}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(outcome) => outcome.report(),
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<ProgramOutcome, BoxError> {
    let file = match options.config {
        Some(path) => config_file::locate(path),
        None => seed::seed("target/example-server".as_ref())?,
    };
    // From here on a signal stops the server in order. Nothing is started before.
    let stop = stop_signal()?;
    // Opened here, so that a port that is in use ends the program.
    let listener = Listener::open(options.listen).await?;
    let address = listener.address;
    let services = Services::new()?;
    eprintln!("the configuration file is {}", file.display());
    // Each service stops after its dependents, so the requests in progress are finished first.
    let program = Program::on_tokio(&services.registry, tokio::runtime::Handle::current())
        .shutdown(2 * STOP_TIMEOUT)
        .stop_when(stop);
    let outcome = program.run(|start| {
        services.start(start, ConfigFile::watch(file), listener, options.on_edit, options.limit)?;
        println!("listening on http://{address}");
        Ok::<_, BoxError>(())
    });
    Ok(outcome.await)
}

/// Runs blocking work (SQLite, files) on the blocking threads of tokio.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    tokio::task::spawn_blocking(work).await?
}
