//! Reloads: all members are built aside, and switched at one instant.

mod adopting;
mod aside;
mod bodies;
mod ends;
mod gaps;
mod given;
mod observed;
mod overlapping;
mod refused;
mod retried;
mod stale;
mod switched;
mod threads;

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::runtime::{BoxError, TestRuntime, exact};
use mainstay::{
    ServiceId,
    error::ReloadError,
    supervise::{Build, Clock, Reloaded, Supervisor},
    test_kit::{TestTask, VirtualClock},
};

/// What the builder of a service reads: stands for a file.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<Content>>);

#[derive(Clone, Copy, Default)]
struct Content {
    value: u32,
    takes: Duration,
    /// The error of the next builds.
    fails: Option<&'static str>,
    builds: u32,
    /// The builds that were neither dropped nor have returned.
    present: u32,
}

impl Source {
    fn edit(&self, edit: impl FnOnce(&mut Content)) {
        edit(&mut self.0.lock().unwrap());
    }

    fn set(&self, value: u32) {
        self.edit(|content| content.value = value);
    }

    fn takes(&self, takes: Duration) {
        self.edit(|content| content.takes = takes);
    }

    fn fails(&self, fails: impl Into<Option<&'static str>>) {
        self.edit(|content| content.fails = fails.into());
    }

    fn builds(&self) -> u32 {
        self.0.lock().unwrap().builds
    }

    fn present(&self) -> u32 {
        self.0.lock().unwrap().present
    }
}

/// A build that is in progress.
struct Present(Source);

impl Present {
    fn begin(source: &Source) -> (Self, Content) {
        source.edit(|content| {
            content.builds += 1;
            content.present += 1;
        });
        let content = *source.0.lock().unwrap();
        (Self(source.clone()), content)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.edit(|content| content.present -= 1);
    }
}

/// The value of a service is that of its source, and of those from which it is built.
async fn build(
    build: Build<u32>,
    source: Source,
    from: Vec<ServiceId<u32>>,
    clock: VirtualClock,
) -> Result<u32, BoxError> {
    let (_present, content) = Present::begin(&source);
    let mut sum = content.value;
    for id in from {
        sum += **build.wait_for(id).await?;
    }
    if !content.takes.is_zero() {
        clock.sleep_until(clock.now() + content.takes).await;
    }
    match content.fails {
        Some(error) => Err(error.into()),
        None => Ok(sum),
    }
}

/// Supervises a service that is built from `from`.
fn supervise(runtime: &mut TestRuntime, name: &str, from: &[ServiceId<u32>]) -> Supervised {
    supervise_with(runtime, name, from, |supervisor| supervisor)
}

/// As `supervise`, with another configuration.
fn supervise_with(
    runtime: &mut TestRuntime,
    name: &str,
    from: &[ServiceId<u32>],
    configure: impl FnOnce(Supervisor<u32>) -> Supervisor<u32>,
) -> Supervised {
    let (id, source) = (runtime.service(name), Source::default());
    for &dependency in from {
        runtime.registry.depends(id).on(dependency).unwrap();
    }
    let (clock, from, content) = (runtime.clock.clone(), from.to_vec(), source.clone());
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let builder = move |it| build(it, content.clone(), from.clone(), clock.clone());
    runtime.start(configure(supervisor), builder);
    runtime.run_until_idle();
    (id, source)
}

type Supervised = (ServiceId<u32>, Source);

/// `server` is built from `pool`, and that one from `config`. The values are 1, 11 and 111.
fn chain() -> (TestRuntime, [Supervised; 3]) {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = supervise(&mut runtime, "pool", &[config.0]);
    let server = supervise(&mut runtime, "server", &[pool.0]);
    for ((_, source), value) in [(&config, 1), (&pool, 10), (&server, 100)] {
        source.set(value);
    }
    runtime.registry.fail(config.0, "the values are set").unwrap();
    runtime.advance(exact_backoff());
    runtime.recorder.take();
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
    (runtime, [config, pool, server])
}

fn exact_backoff() -> Duration {
    Duration::from_millis(100)
}

fn values<const N: usize>(runtime: &TestRuntime, of: [&Supervised; N]) -> [Option<u32>; N] {
    of.map(|(id, _)| runtime.get(*id))
}

/// The generation and the revision.
fn numbers(runtime: &TestRuntime, (id, _): &Supervised) -> (u64, u64) {
    let status = runtime.registry.status(*id).unwrap();
    (status.generation.get(), status.revision)
}

/// A task that awaits something, and what it has returned.
struct Awaited<T> {
    result: Arc<Mutex<Option<T>>>,
    task: TestTask,
}

type Reload = Awaited<Result<Reloaded, ReloadError>>;

impl<T> Awaited<T> {
    fn is_over(&self) -> bool {
        self.result.lock().unwrap().is_some()
    }

    fn take(&self) -> T {
        self.result.lock().unwrap().take().expect("it is over")
    }
}

/// Lets a task await something, until it cannot continue without an advance of the time.
fn begin<T: Send + 'static>(
    runtime: &mut TestRuntime,
    wait: impl Future<Output = T> + Send + 'static,
) -> Awaited<T> {
    let result = Arc::<Mutex<Option<T>>>::default();
    let stored = Arc::clone(&result);
    let task = runtime.spawn(async move {
        let output = wait.await;
        *stored.lock().unwrap() = Some(output);
    });
    runtime.run_until_idle();
    Awaited { result, task }
}

/// Begins a reload.
fn reload(runtime: &mut TestRuntime, (id, _): &Supervised) -> Reload {
    let wait = runtime.registry.reload(*id);
    begin(runtime, wait)
}

/// The events that were recorded, without those of waits and attempts.
fn events(runtime: &TestRuntime) -> Vec<String> {
    let all = runtime.recorder.take();
    all.into_iter().filter(|event| !event.contains("waited for")).collect()
}
