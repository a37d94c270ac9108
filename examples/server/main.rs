//! An HTTP server whose parts follow the file they are configured by.
//!
//! ```text
//! cargo run --release -p examples
//! ```
//!
//! Four services, each in a file of its own, point at what they hang on:
//!
//! ```text
//!            ┌── database ◄──┐
//! config  ◄──┤               ├── catalog
//!            └── page ◄──────┘
//! ```
//!
//! Edit `target/example-server/server.toml` while it runs: the old configuration goes down together with
//! all that was made from it, the new one comes up, and no answer ever shows parts of both. Break the
//! file, and every answer is a 503 that says what is wrong with it, until you mend it.
//!
//! Each service is one task. Three of them are supervised: they say how they are built, and what they hang on. The
//! fourth, `config`, takes the steps itself: `begin` an attempt, say `ready`, and sleep until it has `failed`, or the file
//! has changed. The handlers in `http.rs` only read.
//!
//! To see the server bear something, fail a service, or let its next builds go wrong:
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

use mainstay::{Registry, Restart, Script, ServiceId, TokioClock};
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet};

use crate::{
    catalog::Catalog, config::Config, config_file::ConfigFile, database::Database,
    events::PrintEvents, options::Options, page::Page,
};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// How long requests under way may take once the server was told to stop; and the services after that.
const GRACE: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// All is on this machine: what takes longer hangs.
const BUILD_TIMEOUT: Duration = Duration::from_secs(2);

/// The registry with the ids of the four services: all that a handler needs.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) registry: Registry,
    pub(crate) config: ServiceId<Config>,
    pub(crate) database: ServiceId<Database>,
    pub(crate) page: ServiceId<Page>,
    pub(crate) catalog: ServiceId<Catalog>,
    pub(crate) builds: Builds,
}

/// What is to become of the next builds, where somebody wants to see what comes of it.
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
        // `wait_for` would find these edges by itself. Declared, they are in the graph before anything
        // has started, and a cycle among them is an error right here.
        builder.add_dependency(database, config)?;
        builder.add_dependency(page, config)?;
        builder.add_dependency(catalog, database)?;
        builder.add_dependency(catalog, page)?;
        let registry = builder.observer(PrintEvents).clock(TokioClock).build();
        let builds = Builds::default();
        Ok(Self { registry, config, database, page, catalog, builds })
    }

    /// Starts the provider of every service. In no particular order: each waits for what it hangs on.
    fn start(&self, file: ConfigFile, limit: Option<u32>) -> Result<JoinSet<()>, BoxError> {
        let mut providers = JoinSet::new();
        let Self { registry, config, builds, .. } = self.clone();
        let services = self.clone();
        // All is on this machine: what has failed is worth another try soon. A new configuration ends the pause.
        let mut restart = Restart::default()
            .backoff(FIRST_PAUSE, LAST_PAUSE)
            .stable_after(LAST_PAUSE)
            .build_timeout(BUILD_TIMEOUT);
        if let Some(limit) = limit {
            restart = restart.at_most(limit, Duration::from_secs(60));
        }
        let supervisor = registry.supervise(self.catalog)?.restart(restart.clone());
        let build = move |build| catalog::build(build, services.clone());
        providers.spawn(supervisor.run(builds.catalog.over(build)));
        let supervisor = registry.supervise(self.database)?.restart(restart.clone());
        let build = move |build| database::build(build, config);
        providers.spawn(supervisor.run(builds.database.over(build)));
        let supervisor = registry.supervise(self.page)?.restart(restart);
        let build = move |build| page::build(build, config);
        providers.spawn(supervisor.run(builds.page.over(build)));
        // It watches a file while it runs, and says itself when it has failed: its loop is its own.
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
    // From here on a signal means "end in order"; nothing may be started before.
    let stop = stop_signal()?;
    let listener = listen(options.listen).await?;
    let services = Services::new()?;
    eprintln!("configured by {}", file.display());
    let mut providers = services.start(ConfigFile::watch(file), options.limit)?;

    println!("listening on http://{}", listener.local_addr()?);
    serve(listener, services.clone(), stop).await?;

    // Each once nothing hangs on it any more. What still has readers after that is told of.
    let shutdown = services.registry.shutdown(GRACE).await;
    if !shutdown.hung.is_empty() {
        eprintln!("{shutdown}");
    }
    while let Some(ended) = providers.join_next().await {
        ended?;
    }
    Ok(())
}

/// Answers requests until `stop`, then finishes those under way.
async fn serve(
    listener: TcpListener,
    services: Services,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let server = axum::serve(listener, http::router(services)).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let out_of_patience = async {
        stop.await;
        let _ = stopping.send(());
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = server => served,
        () = out_of_patience => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BoxError> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "{address} is taken; choose another with --listen, for example --listen 127.0.0.1:0"
        )
        .into(),
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

/// Runs what blocks (SQLite, files) on the threads that tokio keeps for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    tokio::task::spawn_blocking(work).await?
}
