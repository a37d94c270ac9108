//! A server on plain threads with supervised services: only `std::net`, no async runtime. `smol.rs`
//! is the same server on smol.
//!
//! ```text
//! cargo run --release -p examples --bin threads
//! ```
//!
//! Each line that a client sends is a request, and the response is one line. A country code is
//! answered with the time zones of the country; the other requests are `status`, `fail SERVICE` and
//! `stop`. The end of standard input stops the server, too, and so do SIGTERM and Ctrl-C. It has
//! three services, each on one thread:
//!
//! ```text
//! data ◄── index        listener
//! ```
//!
//! `data` is read from two files, and `index` is built from it. `listener` accepts connections, and
//! has one thread for each client. Its requests need the index, but the listener is *not* built
//! from it: otherwise each failure of the data would disconnect all clients. So a request reads the
//! current index, and the response says if it is not ready.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mainstay::{
    Registry, ServiceId,
    error::chain,
    program::{Program, ProgramOutcome, stop_signal},
    supervise::{CloseHook, NoBody, RestartPolicy, Supervisor},
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
        ("127.0.0.1:8081".to_owned(), PathBuf::from("examples/server/data"));
    let mut arguments = std::env::args_os().skip(1);
    while let Some(option) = arguments.next() {
        match (option.to_str(), arguments.next()) {
            (Some("--listen"), Some(address)) => listen = address.to_string_lossy().into_owned(),
            (Some("--data"), Some(directory)) => data = directory.into(),
            _ => {
                eprintln!("usage: threads [--listen ADDRESS:PORT] [--data DIRECTORY]");
                return ExitCode::from(2);
            }
        }
    }
    match listen.parse().map_err(Into::into).and_then(|listen| run(listen, data)) {
        Ok(outcome) if outcome.is_success() => {
            println!("{}", outcome.report);
            ExitCode::SUCCESS
        }
        Ok(outcome) => {
            eprintln!("threads: {outcome}");
            outcome.into()
        }
        Err(error) => {
            eprintln!("threads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: SocketAddr, directory: PathBuf) -> Result<ProgramOutcome, BoxError> {
    let registry = Registry::with_capacity(3)?;
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

    let requested = registry.clone();
    thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        let _ = lines.find(|line| line.trim() == "stop");
        requested.request_shutdown("standard input");
    });
    let program = Program::on_threads(registry).shutdown(2 * GRACE).stop_when(stop_signal()?);
    Ok(program.run_blocking(|start| {
        // A supervisor needs a thread and a builder. The services may be started in any order.
        start.spawn_blocking(registry.supervise(index)?, move |it| {
            it.run_blocking(|build| build_index(&**build.wait_for(data).wait_blocking()?));
        })?;
        start.spawn_blocking(registry.supervise(data)?, move |it| {
            it.run_blocking(|_| read_data(&directory));
        })?;
        let policy = RestartPolicy::default().close_timeout(GRACE);
        let supervisor = registry.supervise(listener)?.restart_policy(policy);
        let supervisor = supervisor.on_close(async |listener| listener.finish());
        let for_requests = services.clone();
        start.spawn_blocking(supervisor, move |it| keep_listening(it, listen, for_requests))?;

        let limit = Duration::from_secs(3);
        if let Err(error) = registry.wait_all_ready().wait_blocking_timeout(limit) {
            eprintln!("{}", chain(&error)); // the server continues: its supervisors retry
        }
        Ok::<_, BoxError>(())
    }))
}

fn read_data(directory: &Path) -> Result<Data, BoxError> {
    let read = |name| {
        let file = directory.join(name);
        let text =
            fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok::<_, BoxError>(lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    };
    Ok(Data { countries: read("iso3166.tab")?, zones: read("zone1970.tab")? })
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

/// The value of the service `listener`: a thread that accepts clients until `stopping` is set.
struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

fn keep_listening<H: CloseHook<Listener>>(
    supervisor: Supervisor<Listener, NoBody, H>,
    mut address: SocketAddr,
    services: Services,
) {
    // If the port is still in use by the last listener, the bind fails, and is tried again after a
    // backoff.
    supervisor.run_blocking(|_| {
        let socket = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
        address = socket.local_addr()?; // the next listener uses the same port
        let stopping = Arc::<AtomicBool>::default();
        let (is_stopping, services) = (Arc::clone(&stopping), services.clone());
        let accepting =
            thread::Builder::new().spawn(move || accept(socket, &is_stopping, &services))?;
        println!("listening on {address}");
        Ok::<_, BoxError>(Listener { address, stopping, accepting: Mutex::new(Some(accepting)) })
    });
}

impl Listener {
    fn stop_accepting(&self) {
        self.stopping.store(true, Ordering::Release);
        // Only a connection can wake a thread that is in `accept`.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    /// Stops accepting, and waits until all accepted requests are answered.
    fn finish(&self) {
        self.stop_accepting();
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = accepting.map(JoinHandle::join);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The service has failed or has stopped. This does not wait for its clients.
        self.stop_accepting();
    }
}

/// Accepts clients, each of which gets a thread, until the listener stops. Then waits until the
/// threads of the clients have ended.
fn accept(socket: TcpListener, stopping: &AtomicBool, services: &Services) {
    let mut clients: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    loop {
        let accepted = socket.accept().and_then(|(stream, _)| {
            let (services, own_stream) = (services.clone(), stream.try_clone()?);
            // An error of a client is not a failure of the server.
            let converse = move || drop(converse(&stream, &services));
            Ok((own_stream, thread::Builder::new().spawn(converse)?))
        });
        match accepted {
            Ok(client) => clients.push(client),
            Err(_) if stopping.load(Ordering::Acquire) => break,
            Err(error) => {
                // The supervisor builds the next listener.
                let _ = services.registry.fail(services.listener, error);
                break;
            }
        }
        if stopping.load(Ordering::Acquire) {
            break;
        }
        clients.retain(|(_, thread)| !thread.is_finished());
    }
    drop(socket);
    for (stream, thread) in clients {
        // Requests that were received are still read and answered.
        let _ = stream.shutdown(Shutdown::Read);
        let _ = thread.join();
    }
}

fn converse(mut stream: &TcpStream, services: &Services) -> io::Result<()> {
    stream.set_write_timeout(Some(GRACE))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.by_ref().take(MAX_REQUEST).read_until(b'\n', &mut line)? > 0 {
        let response = answer(&String::from_utf8_lossy(&line), services);
        stream.write_all(format!("{response}\n").as_bytes())?;
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
