//! An HTTP server whose services are rebuilt when its configuration file changes.
//!
//! ```text
//! cargo run --release -p examples
//! ```
//!
//! It has four services, each in a file of its own. The arrows point to their dependencies:
//!
//! ```text
//!            ┌── database ◄──┐
//! config  ◄──┤               ├── catalog
//!            └── page ◄──────┘
//! ```
//!
//! Edit `target/example-server/server.toml` while it runs: the old configuration fails together
//! with everything that was built from it, and the new one is built. No response mixes the two. If
//! the file is broken, every response is a 503 that says what is wrong, until the file is repaired.
//!
//! Each service is one task. Three of them have a supervisor, and define only how they are built.
//! The provider of the fourth, `config`, runs its own loop: it begins an attempt, publishes it, and
//! waits until it has failed or the file has changed. The handlers in `http.rs` only read.
//!
//! To see how the server recovers, fail a service, or let its next build fail:
//!
//! ```text
//! curl -X POST localhost:8080/services/database/fail
//! curl -X POST localhost:8080/services/database/builds/panic
//! curl localhost:8080/services
//! ```

mod catalog;
mod config;
mod config_file;
mod database;
mod events;
mod http;
mod options;
mod page;
mod seed;

use std::{error::Error, future::Future, io, net::SocketAddr, process::ExitCode, time::Duration};

use mainstay::{
    Registry, ServiceId,
    supervise::{RestartPolicy, TokioClock},
    test_kit::Script,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use crate::{
    catalog::Catalog, config::Config, config_file::ConfigFile, database::Database,
    events::PrintEvents, options::Options, page::Page,
};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The time limit of the requests in progress when the server stops, and then of the services.
const GRACE: Duration = Duration::from_secs(5);

const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// A build reads only local files, so it does not take longer unless it hangs.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2);

/// The registry and the ids of the four services: everything that a handler needs.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) registry: Registry,
    pub(crate) config: ServiceId<Config>,
    pub(crate) database: ServiceId<Database>,
    pub(crate) page: ServiceId<Page>,
    pub(crate) catalog: ServiceId<Catalog>,
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
        let mut builder = Registry::builder(4)?;
        let config = builder.register("config")?;
        let database = builder.register("database")?;
        let page = builder.register("page")?;
        let catalog = builder.register("catalog")?;
        // `wait_for` would discover these edges. Because they are declared, they are in the graph
        // before anything has started, and a cycle is an error here.
        builder.depends(database).on(config)?;
        builder.depends(page).on(config)?;
        builder.depends(catalog).on(database)?;
        builder.depends(catalog).on(page)?;
        let registry = builder.observer(PrintEvents).clock(TokioClock).build();
        let builds = Builds::default();
        Ok(Self { registry, config, database, page, catalog, builds })
    }

    /// Starts the provider of every service. The order does not matter: each waits for its
    /// dependencies.
    fn start(&self, file: ConfigFile, limit: Option<u32>) -> Result<JoinSet<()>, BoxError> {
        let mut providers = JoinSet::new();
        let Self { registry, config, builds, .. } = self.clone();
        let services = self.clone();
        // All files are local, so short backoffs are sufficient. A new configuration ends a
        // backoff.
        let mut policy = RestartPolicy::default()
            .backoff(FIRST_BACKOFF, MAX_BACKOFF)
            .reset_after(MAX_BACKOFF)
            .build_timeout(BUILD_TIMEOUT);
        if let Some(limit) = limit {
            policy = policy.max_failures(limit, Duration::from_secs(60));
        }
        let supervisor = registry.supervise(self.catalog)?.restart_policy(policy.clone());
        providers.spawn(supervisor.run(async move |build| {
            builds.catalog.step().await?;
            catalog::build(build, services.clone()).await
        }));
        let supervisor = registry.supervise(self.database)?.restart_policy(policy.clone());
        providers.spawn(supervisor.run(async move |build| {
            builds.database.step().await?;
            Ok::<_, BoxError>(database::build(build, config).await?)
        }));
        let supervisor = registry.supervise(self.page)?.restart_policy(policy);
        providers.spawn(supervisor.run(async move |build| {
            builds.page.step().await?;
            Ok::<_, BoxError>(page::build(build, config).await?)
        }));
        // It watches a file while it runs, and fails itself, so it has a loop of its own.
        providers.spawn(config::provide(registry.provide(config)?, file));
        Ok(providers)
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), BoxError> {
    let file = match options.config {
        Some(path) => config_file::locate(path),
        None => seed::seed("target/example-server".as_ref())?,
    };
    // From here on a signal stops the server in order. Nothing is started before.
    let stop = stop_signal()?;
    let listener = listen(options.listen).await?;
    let services = Services::new()?;
    eprintln!("the configuration file is {}", file.display());
    let mut providers = services.start(ConfigFile::watch(file), options.limit)?;

    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, services.clone(), stop).await?;

    // Each service stops after its dependents. The report lists the ones that did not in time.
    let shutdown = services.registry.shutdown(GRACE).await;
    if !shutdown.stop_timeouts.is_empty() {
        eprintln!("{shutdown}");
    }
    while let Some(result) = providers.join_next().await {
        result?;
    }
    Ok(())
}

/// Answers requests until `stop`, then finishes the requests in progress.
async fn serve(
    listener: TcpListener,
    services: Services,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, http::router(services)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let time_limit = async {
        stop.await;
        let _ = stopping.send(());
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = time_limit => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{address} is in use; choose another one, for example --listen 127.0.0.1:0")
                .into()
        }
        _ => format!("cannot listen on {address}: {error}").into(),
    })
}

/// Completes on Ctrl-C, and on Unix on SIGTERM. The handlers are in place when this returns.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// Runs blocking work (SQLite, files) on the blocking threads of tokio.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    tokio::task::spawn_blocking(work).await?
}
