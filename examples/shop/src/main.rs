//! A shop: a server as it is written in practice, in one file that reads from top to bottom.
//!
//! ```text
//! cargo run --release -p shop
//! curl -k https://localhost:8443/products/tea
//! curl -k https://localhost:8443/orders -H 'content-type: application/json' \
//!     -d '{"product": "tea", "amount": 2}'
//! curl -k https://localhost:8443/readyz
//! ```
//!
//! Its services, with the arrows from a service to what it is built from:
//!
//! ```text
//! config ◄─┬─ pool ◄──────┬─ catalog              http ┄► all others
//!          └─ payments ◄──┴─ worker
//! flags, certificate
//! ```
//!
//! - `config` is `shop.toml`. If it is edited, what was built from it is built again. If it is
//!   broken, the old one stays in use, and `/readyz` says which line is wrong.
//! - `flags` and `certificate` are files, too. They are replaced: nothing is built again, and no
//!   connection is closed. The shop also works without the flags.
//! - `pool` has connections to a SQLite file, and fails if the file cannot be queried any more.
//! - `catalog` has the products in memory: what a request reads, wait-free.
//! - `payments` is an HTTP client. While the payment provider does not answer, the worker waits.
//! - `worker` executes the orders, which a request has only stored. At a shutdown it executes those
//!   that are left. An order of nothing (`"amount": 0`) lets it panic: it is restarted.
//! - `http` serves HTTPS. It stops first, after the last response.
//!
//! All files are in `target/example-shop`, and are created at the first start.

mod seed;
mod store;

use std::{
    collections::HashMap,
    error::Error,
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use axum_server::{Handle, tls_rustls::RustlsConfig};
use mainstay::{
    Readiness, Registry, ServiceId, ServiceSet, TracingObserver,
    error::{GetError, chain},
    program::{Program, ProgramOutcome, ProgramStart, stop_signal},
    supervise::{Live, Planned, RestartPolicy, ShutdownOptions, TokioClock},
};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
    time::sleep,
};

use crate::store::{Order, Pool};

type BoxError = Box<dyn Error + Send + Sync>;

const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(2);
const PROBE: Duration = Duration::from_secs(1);
/// The time from a stop signal, when `/readyz` changes, until connections are refused.
const LAME_DUCK: Duration = Duration::from_secs(1);

mainstay::services! {
    #[derive(Debug, Clone, Copy)]
    struct Services {
        config: Config,
        flags: Flags,
        certificate: Arc<CertifiedKey>,
        pool: Pool,
        catalog: HashMap<String, u64>,
        payments: Payments,
        worker: (),
        http: TcpListener,
    }
}

#[derive(Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    connections: u32,
    /// The URL of the payment provider. Without one, no order is paid.
    payments: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Flags {
    /// A tenth less.
    sale: bool,
}

/// What a customer sends.
#[derive(Deserialize)]
struct Basket {
    product: String,
    amount: u64,
}

/// What the requests and the worker need.
#[derive(Debug, Clone)]
struct Shop {
    registry: Registry,
    services: Services,
    /// Notified after an order was stored.
    placed: Arc<Notify>,
}

#[tokio::main]
async fn main() -> Result<ProgramOutcome, BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (listen, directory) = match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => ("127.0.0.1:8443", "target/example-shop"),
        [listen, directory] => (*listen, *directory),
        _ => return Err("usage: shop [ADDRESS:PORT DIRECTORY]".into()),
    };
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let (listen, directory): (SocketAddr, PathBuf) = (listen.parse()?, directory.into());
    seed::create_missing_files(&directory)?;

    let mut builder = Registry::builder(Services::CAPACITY)?;
    let services = Services::register(&mut builder)?;
    let registry = builder.observer(TracingObserver).clock(TokioClock).build();
    // Requests read all of them. So `http` stops first, but does not fail with them.
    for id in &services.all() {
        if id != services.http.into() {
            registry.depends(services.http).soft_on(id)?;
        }
    }
    // Without these three the shop still sells: it is degraded.
    let optional = ServiceSet::from((services.flags, services.payments, services.worker));
    registry.set_optional(&optional)?;

    let shop = Shop { registry: registry.clone(), services, placed: Arc::default() };
    let program = Program::on_tokio(&registry, tokio::runtime::Handle::current())
        .shutdown(ShutdownOptions::within(Duration::from_secs(30)).notice(LAME_DUCK))
        .stop_when(stop_signal()?);
    Ok(program.run(|start| shop.start(start, listen, &directory)).await)
}

impl Shop {
    /// Starts the supervisors, in any order: each service waits for what it is built from.
    fn start(
        self,
        start: &mut ProgramStart,
        listen: SocketAddr,
        directory: &Path,
    ) -> Result<(), BoxError> {
        let registry = &self.registry;
        let Services { config, flags, certificate, pool, catalog, payments, worker, http } =
            self.services;
        let policy = RestartPolicy::default().backoff(FIRST_BACKOFF, MAX_BACKOFF);

        let in_directory = |name| directory.join(name);
        self.follow(start, config, in_directory("shop.toml"), read_toml, |live, new| {
            match live.instance() {
                // Its dependents end in order, and are built from the new one.
                Some(config) if **config != new => Err(Planned::new("edited").into()),
                _ => Ok(()),
            }
        })?;
        self.follow(start, flags, in_directory("flags.toml"), read_toml, replace)?;
        self.follow(start, certificate, in_directory("tls.pem"), read_certificate, replace)?;

        let (file, probed) = (in_directory("shop.sqlite"), in_directory("shop.sqlite"));
        let it = registry.supervise(pool)?.restart_policy(policy.clone());
        let it = it.probe(PROBE, PROBE, async move |_| {
            let file = probed.clone();
            blocking(move || store::check(&file)).await
        });
        start.spawn(it, |it| {
            it.run(async move |build| {
                let connections = build.wait_for(config).await?.connections;
                let file = file.clone();
                blocking(move || store::open(&file, connections)).await
            })
        })?;

        let it = registry.supervise(catalog)?.restart_policy(policy.clone());
        start.spawn(it, |it| {
            it.run(async move |build| {
                let pool = Pool::clone(&**build.wait_for(pool).await?);
                blocking(move || store::products(&pool)).await
            })
        })?;

        let it = registry.supervise(payments)?.restart_policy(policy.clone());
        let it = it.probe(PROBE, PROBE, async |payments| payments.check().await);
        start.spawn(it, |it| {
            it.run(async move |build| Payments::new(&**build.wait_for(config).await?).await)
        })?;

        // It may take long to execute all orders that are left.
        let it = registry.supervise(worker)?;
        let it = it.restart_policy(policy.clone().stop_timeout(Duration::from_secs(20)));
        let it = it.body({
            let shop = self.clone();
            async move |live| shop.execute_orders(live).await
        });
        start.spawn(it, |it| {
            it.run(async move |build| {
                build.wait_for(pool).await?;
                build.wait_for(payments).await.map(drop)
            })
        })?;

        let it = registry.supervise(http)?.restart_policy(policy);
        let it = it.body({
            let shop = self.clone();
            async move |live| shop.serve(live).await
        });
        start.spawn(it, |it| {
            it.run(async move |build| {
                build.wait_to_start(certificate).await?; // which is replaced, and never gone
                Ok::<_, BoxError>(TcpListener::bind(listen)?)
            })
        })?;
        Ok(())
    }

    /// Starts a service whose value is a file. After each edit, `edited` gets the new value. If the
    /// file is broken then, the service is degraded, and its last value stays in use.
    fn follow<T: Send + Sync + 'static>(
        &self,
        start: &mut ProgramStart,
        id: ServiceId<T>,
        file: PathBuf,
        read: fn(&Path) -> Result<T, BoxError>,
        edited: fn(&Live<T>, T) -> Result<(), BoxError>,
    ) -> Result<(), BoxError> {
        let followed = file.clone();
        let it = self.registry.supervise(id)?.body(async move |live| {
            let (_watcher, mut edits) = watch(&followed)?;
            loop {
                match read(&followed) {
                    Ok(new) => {
                        live.clear_degraded();
                        edited(&live, new)?;
                    }
                    Err(broken) => live.set_degraded(broken.to_string()),
                }
                tokio::select! {
                    _ = edits.recv() => {}
                    _ = live.stopping() => return Ok::<_, BoxError>(()),
                }
                sleep(Duration::from_millis(20)).await; // editors write in several steps
            }
        });
        Ok(start.spawn(it, |it| it.run(async move |_| read(&file)))?)
    }

    /// The body of `worker`: executes the orders one after another, and at its end those that are
    /// left.
    async fn execute_orders(&self, live: Live<()>) -> Result<(), BoxError> {
        loop {
            let pool = self.registry.get(self.services.pool)?.clone();
            match blocking(move || store::begin_next_order(&pool)).await? {
                Some(order) => self.execute(order).await?,
                None if live.stop_reason().is_some() => return Ok(()),
                None => tokio::select! {
                    () = self.placed.notified() => {}
                    _ = live.stopping() => {}
                },
            }
        }
    }

    async fn execute(&self, order: Order) -> Result<(), BoxError> {
        let each = order.cents / order.amount; // a bug, to see what a panic does
        let pool = self.registry.get(self.services.pool)?.clone();
        let payments = self.registry.get_arc(self.services.payments)?;
        if let Err(error) = payments.pay(order.number, each * order.amount).await {
            blocking(move || store::put_back(&pool, order.number)).await?;
            // The worker is built from it, so it fails, too, and waits for the next client.
            self.registry.fail_instance(&payments, error)?;
            return Ok(());
        }
        blocking(move || store::end(&pool, order.number)).await
    }

    /// The body of `http`: answers requests, and at its end those that were accepted.
    async fn serve(&self, live: Live<TcpListener>) -> Result<(), BoxError> {
        let Some(listener) = live.instance() else { return Ok(()) };
        let (listener, handle) = (listener.try_clone()?, Handle::new());
        listener.set_nonblocking(true)?;
        println!("https://{}", listener.local_addr()?);
        let tls = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        let router = Router::new()
            .route("/products/{name}", get(product))
            .route("/orders", post(place_order).get(orders))
            .route("/livez", get(async |State(shop): State<Self>| shop.probe(|it| it.live)))
            .route("/readyz", get(async |State(shop): State<Self>| shop.probe(|it| it.ready)))
            .route("/services", get(async |State(shop): State<Self>| Json(shop.registry.list())))
            .with_state(self.clone());
        let server = axum_server::from_tcp_rustls(listener, RustlsConfig::from_config(tls.into()))?
            .handle(handle.clone())
            .serve(router.into_make_service());
        let mut server = pin!(server);
        tokio::select! {
            ended = &mut server => return Ok(ended?),
            _ = live.stopping() => handle.graceful_shutdown(Some(Duration::from_secs(10))),
        }
        Ok(server.await?)
    }

    fn probe(&self, is_fine: fn(&Readiness) -> bool) -> (StatusCode, String) {
        let readiness = self.registry.readiness();
        let is_fine = is_fine(&readiness);
        let status = if is_fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, format!("{readiness}\n"))
    }

    fn cents(&self, product: &str) -> Result<u64, Refused> {
        let catalog = self.registry.get(self.services.catalog)?;
        let cents = catalog.get(product).ok_or_else(|| {
            Refused(StatusCode::NOT_FOUND, format!("there is no product {product:?}"))
        })?;
        // Without the flags there is no sale.
        let sale = self.registry.get(self.services.flags).is_ok_and(|flags| flags.sale);
        Ok(if sale { cents - cents / 10 } else { *cents })
    }
}

async fn product(
    State(shop): State<Shop>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<Value>, Refused> {
    Ok(Json(json!({ "cents": shop.cents(&name)?, "name": name })))
}

async fn place_order(
    State(shop): State<Shop>,
    Json(Basket { product, amount }): Json<Basket>,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let cents = shop.cents(&product)?.saturating_mul(amount);
    let pool = shop.registry.get(shop.services.pool)?.clone();
    let number = blocking(move || store::place(&pool, &product, amount, cents)).await?;
    shop.placed.notify_one();
    Ok((StatusCode::ACCEPTED, Json(json!({ "order": number, "cents": cents }))))
}

async fn orders(State(shop): State<Shop>) -> Result<Json<Value>, Refused> {
    let pool = shop.registry.get(shop.services.pool)?.clone();
    let (placed, executed) = blocking(move || store::count(&pool)).await?;
    Ok(Json(json!({ "placed": placed, "executed": executed })))
}

/// Why a request was refused.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

impl From<GetError> for Refused {
    fn from(error: GetError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, chain(&error).to_string())
    }
}

impl From<BoxError> for Refused {
    fn from(error: BoxError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, chain(&*error).to_string())
    }
}

impl ResolvesServerCert for Shop {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.registry.get(self.services.certificate).ok().map(|it| Arc::clone(&it))
    }
}

/// The HTTP client of the payment provider.
struct Payments {
    client: reqwest::Client,
    url: Option<String>,
}

impl Payments {
    async fn new(config: &Config) -> Result<Self, BoxError> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        let payments = Self { client, url: config.payments.clone() };
        payments.check().await?;
        Ok(payments)
    }

    async fn check(&self) -> Result<(), BoxError> {
        if let Some(url) = &self.url {
            self.client.get(url).send().await?.error_for_status()?;
        }
        Ok(())
    }

    /// The provider takes the number once.
    async fn pay(&self, number: i64, cents: u64) -> Result<(), BoxError> {
        if let Some(url) = &self.url {
            let request = self.client.post(format!("{url}/payments/{number}"));
            request.body(cents.to_string()).send().await?.error_for_status()?;
        }
        Ok(())
    }
}

/// Nothing is built again, and no connection is closed.
fn replace<T: Send + Sync + 'static>(live: &Live<T>, new: T) -> Result<(), BoxError> {
    Ok(live.replace(new)?)
}

/// Reports each edit of a file.
fn watch(file: &Path) -> notify::Result<(RecommendedWatcher, mpsc::Receiver<()>)> {
    let (edited, edits) = mpsc::channel(1);
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns = |path: &PathBuf| path.file_name() == name.as_deref();
        if event.is_ok_and(|it| !it.kind.is_access() && it.paths.iter().any(concerns)) {
            let _ = edited.try_send(());
        }
    })?;
    // The directory: most editors replace the file by a new one.
    watcher.watch(file.parent().unwrap_or(file), RecursiveMode::NonRecursive)?;
    Ok((watcher, edits))
}

fn read_toml<T: DeserializeOwned>(file: &Path) -> Result<T, BoxError> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(toml::from_str(&text).map_err(|error| {
        let before = error.span().map_or("", |span| &text[..span.start]);
        let line = 1 + before.matches('\n').count();
        format!("{}:{line}: {}", file.display(), error.message())
    })?)
}

fn read_certificate(file: &Path) -> Result<Arc<CertifiedKey>, BoxError> {
    let read = || -> Result<_, BoxError> {
        let chain = CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(file)?;
        Ok(CertifiedKey::from_der(chain, key, &ring::default_provider())?.into())
    };
    read().map_err(|error| format!("{}: {error}", file.display()).into())
}

/// Runs blocking work (SQLite) on the blocking threads of tokio.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    spawn_blocking(work).await?
}
