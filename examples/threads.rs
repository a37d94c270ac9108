//! A server on plain threads whose parts are supervised: `std::net` alone, no async runtime. `smol.rs` is the same on one.
//!
//! ```text
//! cargo run --release -p examples --bin threads
//! ```
//!
//! Each line that a client sends is a request, and is answered by one line: a country code by the country's time zones,
//! `status`, `fail SERVICE`, `stop`. The end of standard input stops the server, too. Three services, a thread each:
//!
//! ```text
//! data ◄── index        listener
//! ```
//!
//! `data` is read from two files, and `index` is built from that. `listener` accepts, and has a thread for each client. Its
//! requests need the index, but it is *not* built from it: then whoever fails the data would hang up on all clients. So
//! requests read the index as it is at that moment, and say so where it is not ready.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    future::ready,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use mainstay::{Registry, ServiceId, Supervisor};

type BoxError = Box<dyn Error + Send + Sync>;

/// How long the requests that were accepted may take at the end.
const GRACE: Duration = Duration::from_secs(5);
/// The longest request; what is longer is none that would be understood.
const LONGEST: u64 = 256;

/// The rows of the two files.
struct Data {
    countries: Vec<Vec<String>>,
    zones: Vec<Vec<String>>,
}

/// What is said of each country.
type Index = BTreeMap<String, String>;

/// All that a request needs.
#[derive(Clone)]
struct Services {
    registry: Registry,
    data: ServiceId<Data>,
    index: ServiceId<Index>,
    listener: ServiceId<Listener>,
    /// Tells `main` that it is over.
    stop: Sender<()>,
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("threads: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(listen: SocketAddr, directory: PathBuf) -> Result<(), BoxError> {
    let registry = Registry::with_capacity(3)?;
    let (stop, stopped) = mpsc::channel();
    let services = Services {
        data: registry.register("data")?,
        index: registry.register("index")?,
        listener: registry.register("listener")?,
        registry,
        stop,
    };
    let (registry, data, index, listener) =
        (&services.registry, services.data, services.index, services.listener);

    // All that a supervisor needs is a thread, and to be told how to build: in no particular order.
    let supervisor = registry.supervise(index)?;
    let index_thread = thread::spawn(move || {
        supervisor.run_blocking(|build| build_index(&**build.wait_for(data).wait()?))
    });
    let supervisor = registry.supervise(data)?;
    let data_thread = thread::spawn(move || supervisor.run_blocking(|_| read_data(&directory)));
    let supervisor = registry.supervise(listener)?.on_stop(GRACE, |listener| {
        listener.finish();
        ready(())
    });
    let for_requests = services.clone();
    let listener_thread = thread::spawn(move || keep_listening(supervisor, listen, for_requests));

    let stop = services.stop.clone();
    thread::spawn(move || {
        let mut lines = io::stdin().lines().map_while(Result::ok);
        let _ = lines.find(|line| line.trim() == "stop");
        let _ = stop.send(());
    });
    if let Err(error) = registry.wait_all_ready().wait_timeout(Duration::from_secs(3)) {
        eprintln!("{error}"); // it goes on: what is mended comes up
    }
    stopped.recv()?;

    // What is shut down stops after all that depends on it. From here on a dependency does the clients no harm, and has
    // the index stay until their last request is answered.
    registry.add_dependency(listener, index)?;
    let shutdown = registry.shutdown_blocking(2 * GRACE);
    if !shutdown.hung.is_empty() {
        return Err(shutdown.to_string().into());
    }
    println!("{shutdown}");
    for thread in [index_thread, data_thread, listener_thread] {
        thread.join().map_err(|_| "a supervisor panicked")?;
    }
    Ok(())
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
        let [code, name, ..] = &row[..] else { return Err(format!("no country: {row:?}").into()) };
        index.insert(code.clone(), format!("{name}:"));
    }
    for row in &data.zones {
        let [codes, _, zone, ..] = &row[..] else { return Err(format!("no zone: {row:?}").into()) };
        for code in codes.split(',') {
            let said = index.get_mut(code).ok_or_else(|| format!("{zone} is in no country"))?;
            *said += &format!(" {zone}");
        }
    }
    Ok(index)
}

/// The value of the service `listener`: a thread that accepts, and can be told to stop.
struct Listener {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

fn keep_listening(supervisor: Supervisor<Listener>, mut address: SocketAddr, services: Services) {
    // Where the port is still that of the last listener, the bind fails, and is tried again after a rest.
    supervisor.run_blocking(|_| {
        let socket = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
        address = socket.local_addr()?; // the same port ever after
        let stopping = Arc::<AtomicBool>::default();
        let (told, services) = (Arc::clone(&stopping), services.clone());
        let accepting = thread::Builder::new().spawn(move || accept(socket, &told, &services))?;
        println!("listening on {address}");
        Ok::<_, BoxError>(Listener { address, stopping, accepting: Mutex::new(Some(accepting)) })
    });
}

impl Listener {
    fn tell(&self) {
        self.stopping.store(true, Ordering::Release);
        // `accept` has no other way to be woken.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }

    /// Accepts no more, and waits until what was accepted is answered.
    fn finish(&self) {
        self.tell();
        let accepting = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = accepting.map(JoinHandle::join);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It has failed, or is over: nobody waits for its clients.
        self.tell();
    }
}

/// Has a thread for each client until it is told to stop; then for those there are to end.
fn accept(socket: TcpListener, stopping: &AtomicBool, services: &Services) {
    let mut clients: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
    loop {
        let accepted = socket.accept().and_then(|(stream, _)| {
            let (services, ours) = (services.clone(), stream.try_clone()?);
            // What happens to a client is no failure of the server.
            let converse = move || drop(converse(&stream, &services));
            Ok((ours, thread::Builder::new().spawn(converse)?))
        });
        match accepted {
            Ok(client) => clients.push(client),
            Err(_) if stopping.load(Ordering::Acquire) => break,
            Err(error) => {
                // Its supervisor sees to the next one.
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
        // What was received is still read, and answered.
        let _ = stream.shutdown(Shutdown::Read);
        let _ = thread.join();
    }
}

fn converse(mut stream: &TcpStream, services: &Services) -> io::Result<()> {
    stream.set_write_timeout(Some(GRACE))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.by_ref().take(LONGEST).read_until(b'\n', &mut line)? > 0 {
        let said = answer(&String::from_utf8_lossy(&line), services);
        stream.write_all(format!("{said}\n").as_bytes())?;
        line.clear();
    }
    Ok(())
}

fn answer(line: &str, services: &Services) -> String {
    let registry = &services.registry;
    match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["status"] => {
            let services = registry.list().services.into_iter();
            let doing = |doing| format!("{doing}");
            let status = services.map(|service| {
                let doing = service.supervision.map_or("nobody's".into(), |it| doing(it.doing));
                format!("{} {} ({doing})", service.name, service.phase)
            });
            status.collect::<Vec<_>>().join(", ")
        }
        ["fail", name] => {
            let failed = registry.find(name).map(|id| registry.fail(id, "a client asked for it"));
            match failed {
                Ok(Ok(cascade)) => format!("{} went down", cascade.went_down),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            }
        }
        ["stop"] => {
            let _ = services.stop.send(());
            "stopping".into()
        }
        [code] => match registry.get(services.index) {
            Ok(index) => match index.get(&code.to_uppercase()) {
                Some(country) => country.clone(),
                None => format!("no such country: {code:?}"),
            },
            Err(error) => format!("not ready: {error}"),
        },
        _ => "say a country code, `status`, `fail SERVICE` or `stop`".into(),
    }
}
