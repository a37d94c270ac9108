//! The program of the readme of a Go package: a configurator, and a database client that is built
//! from the configuration. In the Go package, a failure of the configuration while the client is
//! connecting leaves the client with the old configuration for ever.
//!
//! - After a failure of the configuration has returned, a read of the client returns one that was
//!   built from a configuration at least as new: whether the client was ready, connecting, or
//!   waiting.
//! - The client becomes ready every time, and was built from the current configuration.
//! - An invalidated attempt to connect is never visible.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::support::{LONG, Random, Seed, until};
use mainstay::{
    Instance, Phase, Registry, ServiceId,
    error::{GetError, WaitForError},
};
use tokio::sync::{mpsc, oneshot};

#[derive(Debug)]
struct Config {
    version: u64,
}

#[derive(Debug)]
struct Client {
    config_version: u64,
    config_generation: u64,
}

struct Program {
    registry: Registry,
    config: ServiceId<Config>,
    client: ServiceId<Client>,
    /// The version of the file that the configurator reads.
    file: AtomicU64,
    /// The number of attempts to connect that were invalidated.
    invalidated: AtomicU64,
}

impl Program {
    fn new() -> Self {
        let registry = Registry::with_capacity(2).unwrap();
        let config = registry.register("configurator").unwrap();
        let client = registry.register("dbclient").unwrap();
        Self { registry, config, client, file: AtomicU64::new(1), invalidated: AtomicU64::new(0) }
    }

    fn configurator(&self) {
        let provider = self.registry.provide(self.config).unwrap();
        while let Ok(attempt) = provider.begin().wait_blocking() {
            let version = self.file.load(Ordering::SeqCst);
            let Ok(running) = attempt.ready(Config { version }) else { continue };
            let _ = running.failed().wait_blocking();
        }
    }

    fn dbclient(&self, mut random: Random) {
        let provider = self.registry.provide(self.client).unwrap();
        while let Ok(attempt) = provider.begin().wait_blocking() {
            let Ok(config) = attempt.wait_for(self.config).wait_blocking() else { continue };
            random.pause();
            match attempt.ready(connect(&config)) {
                Ok(running) => drop(running.failed().wait_blocking()),
                Err(_) => drop(self.invalidated.fetch_add(1, Ordering::Relaxed)),
            }
        }
    }

    /// Checks that a current client has this version or a newer one.
    fn check(&self, newest: u64) {
        match self.registry.get(self.client) {
            Ok(client) => assert!(client.config_version >= newest, "{client:?} is older"),
            Err(GetError::NotReady(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Checks that a client becomes ready, and has this version.
    fn check_settled(&self, newest: u64) {
        let client = self
            .registry
            .wait_ready(self.client)
            .wait_blocking_timeout(LONG)
            .expect("a client becomes ready");
        assert_eq!(client.config_version, newest);
        let (config, client) = self.registry.get_all((self.config, self.client)).unwrap();
        assert_eq!((config.version, client.config_version), (newest, newest));
        assert_eq!(mainstay::Guard::generation(&config), client.config_generation);
    }
}

fn connect(config: &Instance<Config>) -> Client {
    Client { config_version: config.version, config_generation: Instance::generation(config).get() }
}

#[test]
fn the_client_ends_with_the_newest_configuration_in_each_of_10_000_rounds() {
    let program = &Program::new();
    let seed = Seed::new();
    thread::scope(|scope| {
        scope.spawn(|| program.configurator());
        scope.spawn(|| program.dbclient(seed.random(1)));
        let mut random = seed.random(2);
        let driver = scope.spawn(move || {
            let fail = || {
                let version = program.file.fetch_add(1, Ordering::SeqCst) + 1;
                program.registry.fail(program.config, "the file has changed").unwrap();
                program.check(version);
                version
            };
            for _ in 0..10_000 {
                fail();
                match random.below(3) {
                    // While it connects, or just after it has connected.
                    0 => until("the client connects", || {
                        program.registry.status(program.client).unwrap().phase != Phase::Down
                    }),
                    1 => random.pause(),
                    _ => {}
                }
                let newest = fail();
                program.check_settled(newest);
            }
        });
        let driven = driver.join();
        program.registry.close();
        driven.unwrap();
    });
    let invalidated = program.invalidated.load(Ordering::Relaxed);
    assert!(invalidated > 0, "no failure came while the client was connecting");
}

/// The configurator fails its own instance, as in the Go program, and the client drops an
/// invalidated attempt early.
#[test]
fn the_client_ends_with_the_newest_configuration_in_async_code() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_time().build().unwrap();
    let seed = Seed::new();
    let (edits, mut edited) = mpsc::channel::<(u64, oneshot::Sender<()>)>(1);
    let program: &'static Program = Box::leak(Box::new(Program::new()));
    let registry = &program.registry;

    let configurator = runtime.spawn(async move {
        let provider = registry.provide(program.config).unwrap();
        while let Ok(attempt) = provider.begin().await {
            let version = program.file.load(Ordering::SeqCst);
            let Ok(running) = attempt.ready(Config { version }) else { continue };
            tokio::select! {
                _ = running.failed() => {}
                edit = edited.recv() => {
                    let Some((version, done)) = edit else { continue };
                    program.file.store(version, Ordering::SeqCst);
                    running.fail("the file has changed");
                    done.send(()).unwrap();
                }
            }
        }
    });
    let mut random = seed.random(1);
    let dbclient = runtime.spawn(async move {
        let provider = registry.provide(program.client).unwrap();
        while let Ok(attempt) = provider.begin().await {
            let config = match attempt.wait_for(program.config).await {
                Ok(config) => config,
                Err(WaitForError::Invalidated(_)) => continue,
                Err(_) => return,
            };
            let yields = random.below(4);
            let connecting = async {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                connect(&config)
            };
            let client = tokio::select! {
                client = connecting => client,
                _ = attempt.invalidated() => {
                    program.invalidated.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            };
            match attempt.ready(client) {
                Ok(running) => drop(running.failed().await),
                Err(_) => drop(program.invalidated.fetch_add(1, Ordering::Relaxed)),
            }
        }
    });
    let mut random = seed.random(2);
    let driver = runtime.spawn(async move {
        for version in 2..3_000 {
            let (done, failed) = oneshot::channel();
            edits.send((version, done)).await.unwrap();
            failed.await.unwrap();
            program.check(version);
            if random.below(3) == 0 {
                let client = registry.wait_ready(program.client).await.unwrap();
                assert_eq!(client.config_version, version);
                program.check_settled(version);
            }
        }
    });
    let driven = runtime.block_on(async { tokio::time::timeout(LONG, driver).await });
    registry.close();
    driven.expect("it hangs").unwrap();
    runtime.block_on(async { tokio::join!(configurator, dbclient) }).0.unwrap();
    assert!(
        program.invalidated.load(Ordering::Relaxed) > 0,
        "no failure came while the client was connecting"
    );
}
