//! `ProgramStart`: spawns the supervisors of a program.

use std::{fmt, future::Future, io, pin::Pin, sync::Arc, thread::Builder as ThreadBuilder};

use super::ends::{EndGuard, Ends, Watched};
use crate::{
    clock::block_on,
    registry::Registry,
    supervise::{Body, CloseHook, Probes, Supervisor},
};

/// A task that an executor of a program polls until it completes.
///
/// It catches the panics of the supervisor, and completes without an output.
///
/// ```
/// use mainstay::program::Task;
///
/// fn spawn(task: Task) {
///     smol::spawn(task).detach();
/// }
///
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let program = mainstay::program::Program::with_spawner(&registry, spawn);
/// # drop(program);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Spawns a task; for a thread, with the name of the service.
pub(super) type Spawner = Box<dyn FnMut(&str, Task) -> io::Result<()> + Send>;

/// Spawns the supervisors of a [`Program`](super::Program); passed to its start function.
pub struct ProgramStart {
    registry: Registry,
    spawner: Spawner,
    ends: Arc<Ends>,
}

impl ProgramStart {
    pub(super) fn new(registry: Registry, spawner: Spawner, ends: Arc<Ends>) -> Self {
        Self { registry, spawner, ends }
    }

    /// Returns the registry of the program.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// # let program = mainstay::program::Program::on_threads(&registry);
    /// let outcome = program.run_blocking(|start| {
    ///     start.registry().register::<u16>("port").map(drop)
    /// });
    /// assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Runs a supervisor as a task of the program's executor. `run` is called at once, and returns
    /// the future of the supervisor.
    ///
    /// # Errors
    ///
    /// On plain threads, the error of the system that has started no thread. Also if the supervisor
    /// belongs to another registry. The supervisor is dropped.
    ///
    /// ```
    /// use mainstay::program::Program;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let program = Program::with_spawner(&registry, |task| drop(tokio::spawn(task)));
    /// # let registry = registry.clone();
    /// # let program = program.stop_when(async move {
    /// #     registry.wait_ready(port).await.map_or("not ready", |_| "a test")
    /// # });
    /// let outcome = program.run(|start| {
    ///     start.spawn(supervisor, |it| it.run(async |_| "80".parse::<u16>()))
    /// });
    /// assert!(outcome.await.is_success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn<T, B, H, P, F>(
        &mut self,
        supervisor: Supervisor<T, B, H, P>,
        run: impl FnOnce(Supervisor<T, B, H, P>) -> F,
    ) -> io::Result<()>
    where
        T: Send + Sync + 'static,
        B: Body<T>,
        H: CloseHook<T>,
        P: Probes<T>,
        F: Future<Output = ()> + Send + 'static,
    {
        let (guard, name) = self.guard(&supervisor)?;
        let task = Watched::new(run(supervisor), guard);
        (self.spawner)(&name, Box::pin(task))
    }

    /// Runs a supervisor on a thread of its own, with the name of the service, whatever the
    /// executor of the program is. `run` is called on that thread, and returns when the supervisor
    /// has ended.
    ///
    /// # Errors
    ///
    /// The error of the system that has started no thread. Also if the supervisor belongs to
    /// another registry. The supervisor is dropped.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let program = mainstay::program::Program::on_threads(&registry);
    /// # let registry = registry.clone();
    /// # let program = program.stop_when(async move {
    /// #     registry.wait_ready(port).await.map_or("not ready", |_| "a test")
    /// # });
    /// let outcome = program.run_blocking(|start| {
    ///     start.spawn_blocking(supervisor, |it| it.run_blocking(|_| "80".parse::<u16>()))
    /// });
    /// assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn_blocking<T, B, H, P>(
        &mut self,
        supervisor: Supervisor<T, B, H, P>,
        run: impl FnOnce(Supervisor<T, B, H, P>) + Send + 'static,
    ) -> io::Result<()>
    where
        T: Send + Sync + 'static,
        B: Body<T>,
        H: CloseHook<T>,
        P: Probes<T>,
        Supervisor<T, B, H, P>: Send + 'static,
    {
        let (guard, name) = self.guard(&supervisor)?;
        on_thread(&name, move || guard.run(move || run(supervisor)))
    }

    /// Adds a supervisor to those of the program. Returns the guard of its end, and the name of its
    /// service.
    fn guard<T: Send + Sync + 'static, B: Body<T>, H: CloseHook<T>, P: Probes<T>>(
        &self,
        supervisor: &Supervisor<T, B, H, P>,
    ) -> io::Result<(EndGuard, String)> {
        let status = self.registry.status(supervisor.id());
        let service =
            status.map_err(|foreign| io::Error::new(io::ErrorKind::InvalidInput, foreign))?.name;
        // Its thread may begin after start-up is complete.
        supervisor.set_run();
        let (registry, name) = (self.registry.clone(), String::from(service.clone()));
        // A close is noticed by supervisors before it is the reason of the end.
        let is_requested = move || registry.is_closed() || registry.shutdown_reason().is_some();
        Ok((EndGuard::new(&self.ends, service, is_requested), name))
    }
}

impl fmt::Debug for ProgramStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgramStart").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// The spawner of plain threads.
pub(super) fn spawn_on_thread(name: &str, task: Task) -> io::Result<()> {
    on_thread(name, move || block_on(|_| task))
}

/// Runs the work on a thread, which is detached: `EndGuard` joins it.
fn on_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A name with a zero byte cannot be given to a thread.
    ThreadBuilder::new().name(name.replace('\0', "")).spawn(work).map(drop)
}
