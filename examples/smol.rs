//! A server on smol with supervised services. `threads.rs` is the same server on plain threads.
//!
//! ```text
//! cargo run --release -p examples --bin smol
//! ```
//!
//! Each line that a client sends is a request, and the response is one line. A country code is
//! answered with the time zones of the country; the other requests are `status`, `fail SERVICE` and
//! `stop`. The end of standard input stops the server, too, and so do SIGTERM and Ctrl-C. It has
//! three services, each on one task:
//!
//! ```text
//! data ◄── index        listener
//! ```
//!
//! `data` is read from two files, and `index` is built from it. `listener` accepts connections, and
//! has one task for each client. Its requests need the index, but the listener is *not* built from
//! it: otherwise each failure of the data would disconnect all clients. So a request reads the
//! current index, and the response says if it is not ready.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::{Shutdown, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mainstay::{
    Registry, ServiceId,
    error::chain,
    program::{Program, ProgramOutcome, stop_signal},
    supervise::{RestartPolicy, SmolClock},
};
use smol::{
    Task, Unblock,
    channel::{self, Receiver, Sender},
    fs,
    future::or,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    stream::StreamExt,
};

type BoxError = Box<dyn Error + Send + Sync>;

/// The time limit of the accepted requests when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// The maximum length of a request. Every valid request is shorter.
const MAX_REQUEST: u64 = 256;

/// The rows of the two files.
struct Data {
    countries: Vec<Vec<String>>,
    zones: Vec<Vec<String>>,
}

/// The response for each country code.
type Index = BTreeMap<String, String>;

/// Everything that a request needs.
#[derive(Clone)]
struct Services {
    registry: Registry,
    data: ServiceId<Data>,
    index: ServiceId<Index>,
    listener: ServiceId<Listener>,
}

fn main() -> ExitCode {
    let (mut listen, mut data) =
        ("127.0.0.1:8082".to_owned(), PathBuf::from("examples/server/data"));
    let mut arguments = std::env::args_os().skip(1);
    while let Some(option) = arguments.next() {
        match (option.to_str(), arguments.next()) {
            (Some("--listen"), Some(address)) => listen = address.to_string_lossy().into_owned(),
            (Some("--data"), Some(directory)) => data = directory.into(),
            _ => {
                eprintln!("usage: smol [--listen ADDRESS:PORT] [--data DIRECTORY]");
                return ExitCode::from(2);
            }
        }
    }
    match listen.parse().map_err(Into::into).and_then(|listen| smol::block_on(run(listen, data))) {
        Ok(outcome) if outcome.is_success() => {
            println!("{}", outcome.report);
            ExitCode::SUCCESS
        }
        Ok(outcome) => {
            eprintln!("smol: {outcome}");
            outcome.into()
        }
        Err(error) => {
            eprintln!("smol: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(listen: SocketAddr, directory: PathBuf) -> Result<ProgramOutcome, BoxError> {
    let registry = Registry::builder(3)?.clock(SmolClock).build();
    let services = Services {
        data: registry.register("data")?,
        index: registry.register("index")?,
        listener: registry.register("listener")?,
        registry,
    };
    let (registry, data, index, listener) =
        (&services.registry, services.data, services.index, services.listener);

    // A shutdown stops a service after its dependents. With this edge, the index stays up until the
    // listener has answered its last request. It is soft: the listener survives its failures.
    registry.depends(listener).soft_on(index)?;

    let all_ready = registry.wait_all_ready();
    smol::spawn(async move {
        if let Err(error) = all_ready.timeout(Duration::from_secs(3), &SmolClock).await {
            eprintln!("{}", chain(&error)); // the server continues: its supervisors retry
        }
    })
    .detach();
    let input = async {
        let mut lines = BufReader::new(Unblock::new(io::stdin())).lines();
        while let Some(Ok(line)) = lines.next().await {
            if line.trim() == "stop" {
                break;
            }
        }
        "standard input"
    };
    let program = Program::on_smol(registry).shutdown(2 * GRACE);
    let run = program.stop_when(stop_signal()?).stop_when(input).run(|start| {
        // A supervisor needs a builder. The services may be started in any order.
        start.spawn(registry.supervise(index)?, |it| {
            it.run(async move |build| {
                let data = build.wait_for(data).await?;
                build_index(&data)
            })
        })?;
        start
            .spawn(registry.supervise(data)?, |it| it.run(move |_| read_data(directory.clone())))?;
        let policy = RestartPolicy::default().close_timeout(GRACE);
        let supervisor = registry.supervise(listener)?.restart_policy(policy);
        let supervisor = supervisor.on_close(async |listener| listener.finish().await);
        let (for_requests, address) = (services.clone(), Arc::new(Mutex::new(listen)));
        // If the port is still in use by the last listener, the bind fails, and is tried again
        // after a backoff.
        start.spawn(supervisor, |it| {
            it.run(move |_| Listener::bind(Arc::clone(&address), for_requests.clone()))
        })?;
        Ok::<_, BoxError>(())
    });
    Ok(run.await)
}

async fn read_data(directory: PathBuf) -> Result<Data, BoxError> {
    Ok(Data {
        countries: rows(&directory.join("iso3166.tab")).await?,
        zones: rows(&directory.join("zone1970.tab")).await?,
    })
}

async fn rows(file: &Path) -> Result<Vec<Vec<String>>, BoxError> {
    let text = fs::read_to_string(file).await;
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

fn build_index(data: &Data) -> Result<Index, BoxError> {
    let mut index = Index::new();
    for row in &data.countries {
        let [code, name, ..] = &row[..] else {
            return Err(format!("not a country: {row:?}").into());
        };
        index.insert(code.clone(), format!("{name}:"));
    }
    for row in &data.zones {
        let [codes, _, zone, ..] = &row[..] else {
            return Err(format!("not a time zone: {row:?}").into());
        };
        for code in codes.split(',') {
            let response =
                index.get_mut(code).ok_or_else(|| format!("{zone} is in an unknown country"))?;
            *response += &format!(" {zone}");
        }
    }
    Ok(index)
}

/// The value of the service `listener`: a task that accepts clients until `stopping` is closed. If
/// the service has failed, the value is dropped, which cancels this task and those of the clients.
struct Listener {
    stopping: Sender<()>,
    accepting: Mutex<Option<Task<()>>>,
}

impl Listener {
    async fn bind(address: Arc<Mutex<SocketAddr>>, services: Services) -> Result<Self, BoxError> {
        let wanted = *lock(&address);
        let socket = TcpListener::bind(wanted).await;
        let socket = socket.map_err(|error| format!("{wanted}: {error}"))?;
        let bound = socket.local_addr()?;
        *lock(&address) = bound; // the next listener uses the same port
        let (stopping, stopped) = channel::bounded(1);
        let accepting = smol::spawn(accept(socket, stopped, services));
        println!("listening on {bound}");
        Ok(Self { stopping, accepting: Mutex::new(Some(accepting)) })
    }

    /// Stops accepting, and waits until all accepted requests are answered.
    async fn finish(&self) {
        self.stopping.close();
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts clients, each of which gets a task, until the listener stops. Then waits until the
/// tasks of the clients have ended.
async fn accept(socket: TcpListener, stopped: Receiver<()>, services: Services) {
    let mut clients: Vec<(TcpStream, Task<()>)> = Vec::new();
    loop {
        let stopping = async {
            let _ = stopped.recv().await;
            None
        };
        match or(stopping, async { Some(socket.accept().await) }).await {
            None => break,
            Some(Ok((stream, _))) => {
                let (own_stream, services) = (stream.clone(), services.clone());
                // An error of a client is not a failure of the server.
                let converse = async move { drop(converse(stream, &services).await) };
                clients.retain(|(_, task)| !task.is_finished());
                clients.push((own_stream, smol::spawn(converse)));
            }
            Some(Err(error)) => {
                // The supervisor builds the next listener.
                let _ = services.registry.fail(services.listener, error);
                break;
            }
        }
    }
    drop(socket);
    for (stream, task) in clients {
        // Requests that were received are still read and answered.
        let _ = stream.shutdown(Shutdown::Read);
        task.await;
    }
}

async fn converse(mut stream: TcpStream, services: &Services) -> io::Result<()> {
    let mut reader = BufReader::new(stream.clone());
    let mut line = Vec::new();
    while (&mut reader).take(MAX_REQUEST).read_until(b'\n', &mut line).await? > 0 {
        let response = answer(&String::from_utf8_lossy(&line), services);
        stream.write_all(format!("{response}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

fn answer(line: &str, services: &Services) -> String {
    let registry = &services.registry;
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["status"] => {
            let services = registry.list().services.into_iter();
            let status = services.map(|service| {
                let state = service.supervisor.map(|supervisor| supervisor.state.to_string());
                let state = state.as_deref().unwrap_or("no supervisor");
                format!("{} {} ({state})", service.name, service.phase)
            });
            status.collect::<Vec<_>>().join(", ")
        }
        ["fail", name] => {
            let failed = registry.find(name).map(|id| registry.fail(id, "requested by a client"));
            match failed {
                Ok(Ok(cascade)) => format!("{} failed", cascade.failed),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }
        }
        ["stop"] => {
            registry.request_shutdown("requested by a client");
            "stopping".into()
        }
        [code] => match registry.get(services.index) {
            Ok(index) => match index.get(&code.to_uppercase()) {
                Some(country) => country.clone(),
                None => format!("unknown country: {code:?}"),
            },
            Err(error) => chain(&error).to_string(),
        },
        _ => "send a country code, `status`, `fail SERVICE` or `stop`".into(),
    }
}
