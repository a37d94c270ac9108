//! A server on smol whose parts are supervised. `threads.rs` is the same on plain threads.
//!
//! ```text
//! cargo run --release -p examples --bin smol
//! ```
//!
//! Each line that a client sends is a request, and is answered by one line: a country code by the country's time zones,
//! `status`, `fail SERVICE`, `stop`. The end of standard input stops the server, too. Three services, a task each:
//!
//! ```text
//! data ◄── index        listener
//! ```
//!
//! `data` is read from two files, and `index` is built from that. `listener` accepts, and has a task for each client. Its
//! requests need the index, but it is *not* built from it: then whoever fails the data would hang up on all clients. So
//! requests read the index as it is at that moment, and say so where it is not ready.

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

use mainstay::{Registry, ServiceId, SmolClock};
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
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smol: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(listen: SocketAddr, directory: PathBuf) -> Result<(), BoxError> {
    let registry = Registry::builder(3)?.clock(SmolClock).build();
    let (stop, stopped) = channel::unbounded();
    let services = Services {
        data: registry.register("data")?,
        index: registry.register("index")?,
        listener: registry.register("listener")?,
        registry,
        stop,
    };
    let (registry, data, index, listener) =
        (&services.registry, services.data, services.index, services.listener);

    // All that a supervisor needs is to be spawned, and to be told how to build: in no particular order.
    let supervisor = registry.supervise(index)?;
    let index_task = smol::spawn(supervisor.run(move |build| async move {
        let data = build.wait_for(data).await?;
        build_index(&data)
    }));
    let supervisor = registry.supervise(data)?;
    let data_task = smol::spawn(supervisor.run(move |_| read_data(directory.clone())));
    let supervisor = registry.supervise(listener)?.on_stop(GRACE, |listener| async move {
        listener.finish().await;
    });
    let (for_requests, address) = (services.clone(), Arc::new(Mutex::new(listen)));
    // Where the port is still that of the last listener, the bind fails, and is tried again after a rest.
    let listener_task = smol::spawn(
        supervisor.run(move |_| Listener::bind(Arc::clone(&address), for_requests.clone())),
    );

    let stop = services.stop.clone();
    let input = smol::spawn(async move {
        let mut lines = BufReader::new(Unblock::new(io::stdin())).lines();
        while let Some(Ok(line)) = lines.next().await {
            if line.trim() == "stop" {
                break;
            }
        }
        let _ = stop.send(()).await;
    });
    let patience = Duration::from_secs(3);
    if let Err(error) = registry.wait_all_ready().within(patience, &SmolClock).await {
        eprintln!("{error}"); // it goes on: what is mended comes up
    }
    stopped.recv().await?;
    drop(input);

    // What is shut down stops after all that depends on it. From here on a dependency does the clients no harm, and has
    // the index stay until their last request is answered.
    registry.add_dependency(listener, index)?;
    let shutdown = registry.shutdown(2 * GRACE).await;
    if !shutdown.hung.is_empty() {
        return Err(shutdown.to_string().into());
    }
    println!("{shutdown}");
    for task in [index_task, data_task, listener_task] {
        task.await;
    }
    Ok(())
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

/// The value of the service `listener`: a task that accepts until it is told to stop. Dropped, as it is when the service
/// has failed, it takes the task and those of its clients with it.
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
        *lock(&address) = bound; // the same port ever after
        let (stopping, told) = channel::bounded(1);
        let accepting = smol::spawn(accept(socket, told, services));
        println!("listening on {bound}");
        Ok(Self { stopping, accepting: Mutex::new(Some(accepting)) })
    }

    /// Accepts no more, and waits until what was accepted is answered.
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

/// Has a task for each client until it is told to stop; then for those there are to end.
async fn accept(socket: TcpListener, told: Receiver<()>, services: Services) {
    let mut clients: Vec<(TcpStream, Task<()>)> = Vec::new();
    loop {
        let stopping = async {
            let _ = told.recv().await;
            None
        };
        match or(stopping, async { Some(socket.accept().await) }).await {
            None => break,
            Some(Ok((stream, _))) => {
                let (ours, services) = (stream.clone(), services.clone());
                // What happens to a client is no failure of the server.
                let converse = async move { drop(converse(stream, &services).await) };
                clients.retain(|(_, task)| !task.is_finished());
                clients.push((ours, smol::spawn(converse)));
            }
            Some(Err(error)) => {
                // Its supervisor sees to the next one.
                let _ = services.registry.fail(services.listener, error);
                break;
            }
        }
    }
    drop(socket);
    for (stream, task) in clients {
        // What was received is still read, and answered.
        let _ = stream.shutdown(Shutdown::Read);
        task.await;
    }
}

async fn converse(mut stream: TcpStream, services: &Services) -> io::Result<()> {
    let mut reader = BufReader::new(stream.clone());
    let mut line = Vec::new();
    while (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await? > 0 {
        let said = answer(&String::from_utf8_lossy(&line), services);
        stream.write_all(format!("{said}\n").as_bytes()).await?;
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
            let _ = services.stop.try_send(());
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
