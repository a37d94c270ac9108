//! The end, in order: what nothing stands on any more stops first, and as many at a time as the graph allows.
//!
//! One future does the ordering; each supervisor stops its own service, where its user has it run. A service's turn
//! comes once all that depends on it has stopped. Then no attempt at it begins any more, and
//!
//! - its supervisor takes it down, runs its hook, waits until its readers have let go, and says that it has stopped;
//!   one that takes longer than it may has hung, and is waited for no longer;
//! - one without a supervisor is failed, and has stopped.
//!
//! In the end the registry is closed.

use std::{
    fmt,
    future::Future,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{Doing, clock::for_ever, supervised::Desk};
use crate::{
    failure::Reason,
    registry::Registry,
    service::Name,
    store::{Edge, Phase, Target},
    sync::{Shielded, block_until},
};

/// How a shutdown went; see [`Registry::shutdown`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let shutdown = registry.shutdown(std::time::Duration::from_secs(1)).await;
/// assert!(shutdown.hung.is_empty());
/// assert_eq!(shutdown.to_string(), "all services have stopped");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// Those that had not stopped in time, in the order in which that was seen.
    pub hung: Vec<Hung>,
}

/// A service that did not stop in time.
///
/// ```
/// use mainstay::{Doing, Registry};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
/// registry.wait_ready(port).wait()?;
/// let request = registry.get(port)?; // and it is never done
/// let shutdown = registry.shutdown_blocking(Duration::from_millis(50));
/// assert_eq!((&*shutdown.hung[0].service, shutdown.hung[0].doing), ("port", Doing::Stopping));
/// # drop(request);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hung {
    /// The service.
    pub service: Name,
    /// What its supervisor was doing. [`Doing::Stopping`]: its hook, or its readers, took too long. Anything else:
    /// the supervisor has not heard, as its future is not polled, or its blocking builder does not return; or it was
    /// not yet its turn. [`Doing::Nothing`]: it has none.
    pub doing: Doing,
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hung.is_empty() {
            return f.write_str("all services have stopped");
        }
        f.write_str("not stopped in time: ")?;
        for (i, Hung { service, doing }) in self.hung.iter().enumerate() {
            write!(f, "{}{service} ({doing})", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Where one service is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Something that depends on it has not stopped.
    Waits,
    Stops,
    Over,
}

impl Registry {
    /// Takes all services down, each once nothing depends on it any more, and closes the registry.
    ///
    /// A supervised service goes down, so that nobody reads it any more; then its [hook](crate::Supervisor::on_stop)
    /// runs, and its readers are waited for. While that lasts all that it was built from is up. One that is not
    /// supervised is failed. What has had its turn comes up no more; until then services fail and are built again as
    /// ever. What takes longer than its own time, or what is left after `timeout`, is given up, and named in the
    /// [`Shutdown`]; the rest goes on without it.
    ///
    /// By the registry's clock. Dropped before it ends, it leaves the registry open, with what has stopped stopped.
    ///
    /// ```
    /// use mainstay::Registry;
    /// use std::{sync::mpsc, time::Duration};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let server = registry.register::<u8>("server")?;
    /// let (stopped, order) = mpsc::channel();
    ///
    /// let hook = |name| {
    ///     let stopped = stopped.clone();
    ///     move |_| {
    ///         let _ = stopped.send(name);
    ///         async {} // finish the requests that were accepted, flush, disconnect, ...
    ///     }
    /// };
    /// let limit = Duration::from_secs(5);
    /// let supervisor = registry.supervise(pool)?.on_stop(limit, hook("pool"));
    /// tokio::spawn(supervisor.run(|_| async { Ok::<_, std::io::Error>(1) }));
    /// let supervisor = registry.supervise(server)?.on_stop(limit, hook("server"));
    /// tokio::spawn(supervisor.run(move |build| async move { build.wait_for(pool).await.map(|pool| **pool) }));
    ///
    /// registry.wait_ready(server).await?;
    /// assert!(registry.shutdown(Duration::from_secs(30)).await.hung.is_empty());
    /// assert_eq!(order.try_iter().collect::<Vec<_>>(), ["server", "pool"]);
    /// assert!(registry.is_closed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, timeout: Duration) -> impl Future<Output = Shutdown> + Send + use<> {
        let registry = self.clone();
        async move {
            let (clock, progress) = (&registry.supervised().clock, &registry.supervised().progress);
            let end = clock.now().checked_add(timeout);
            let mut ending = Ending::new(&registry);
            loop {
                let steps = progress.steps();
                let now = clock.now();
                let next = ending.go_on(now);
                if ending.is_over() || end.is_some_and(|end| now >= end) {
                    break;
                }
                let next = [next, end].into_iter().flatten().min();
                or(
                    progress.after(steps),
                    next.map_or_else(for_ever, |next| clock.sleep_until(next)),
                )
                .await;
            }
            let hung = ending.give_up();
            registry.close();
            Shutdown { hung }
        }
    }

    /// As [`shutdown`](Self::shutdown), and blocks this thread until it ends.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let thread = std::thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
    /// registry.wait_ready(port).wait()?;
    /// assert!(registry.shutdown_blocking(std::time::Duration::from_secs(30)).hung.is_empty());
    /// thread.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_blocking(&self, timeout: Duration) -> Shutdown {
        let mut shutdown = Box::pin(self.shutdown(timeout));
        match block_until(&mut shutdown, || None) {
            Some(shutdown) => shutdown,
            None => unreachable!("there is no deadline"),
        }
    }
}

/// A shutdown under way.
struct Ending<'a> {
    registry: &'a Registry,
    turns: Vec<Turn>,
    stopping: Vec<Stopping>,
    over: usize,
    hung: Vec<Hung>,
}

/// A service whose supervisor was told to stop it.
struct Stopping {
    service: u32,
    desk: Arc<Desk>,
    /// From then on it hangs.
    until: Option<Instant>,
}

impl<'a> Ending<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self { registry, turns: Vec::new(), stopping: Vec::new(), over: 0, hung: Vec::new() }
    }

    /// Gives the turn to all whose turn it is. Gives when the next will have hung.
    fn go_on(&mut self, now: Instant) -> Option<Instant> {
        // Some may have been registered meanwhile.
        self.turns.resize(self.registry.store().len() as usize, Turn::Waits);
        let mut freed = Vec::new();
        for stopping in mem::take(&mut self.stopping) {
            if self.goes_on(&stopping, now) {
                self.stopping.push(stopping);
            } else {
                self.ends(stopping.service, &mut freed);
            }
        }
        self.give_turns(freed, now);
        if self.stopping.is_empty() && !self.is_over() {
            // The first time; or edges have gone meanwhile, and have freed somebody without notice.
            let all = 0..self.turns.len() as u32;
            self.give_turns(all.collect(), now);
        }
        self.stopping.iter().filter_map(|stopping| stopping.until).min()
    }

    /// Gives the turn to each of these that is free, and to whom that frees.
    fn give_turns(&mut self, mut freed: Vec<u32>, now: Instant) {
        while let Some(service) = freed.pop() {
            if self.turns[service as usize] != Turn::Waits || !self.is_free(service) {
                continue;
            }
            self.turns[service as usize] = Turn::Stops;
            self.registry.store().service(service).stopped.raise();
            let desk = self.registry.supervised().desk(service);
            let told = desk.and_then(|desk| Some((desk.stop()?, desk)));
            // Nothing begins after this, and what has begun before it is seen (`stopped_meanwhile`).
            self.registry.store().wake(service);
            match told {
                Some((within, desk)) => {
                    if self.phase(service) == Phase::Starting {
                        // So that a blocking builder hears of it, whatever it waits for.
                        self.fail(service);
                    }
                    let until = now.checked_add(within);
                    self.stopping.push(Stopping { service, desk, until });
                }
                None => {
                    self.fail(service);
                    self.ends(service, &mut freed);
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over == self.turns.len()
    }

    /// Whether all that depends on it has stopped.
    fn is_free(&self, service: u32) -> bool {
        let is_over = |edge: Edge| self.turns.get(edge.dependent as usize) == Some(&Turn::Over);
        self.registry.store().dependents(service).into_iter().all(is_over)
    }

    /// Whether it is still to be waited for.
    fn goes_on(&mut self, stopping: &Stopping, now: Instant) -> bool {
        if stopping.desk.doing() == Doing::Stopped {
            return false;
        }
        let hangs = stopping.until.is_some_and(|until| now >= until);
        if hangs {
            self.hangs(stopping.service, stopping.desk.doing());
        }
        !hangs
    }

    fn ends(&mut self, service: u32, freed: &mut Vec<u32>) {
        self.turns[service as usize] = Turn::Over;
        self.over += 1;
        let dependencies = self.registry.store().dependencies(service);
        freed.extend(dependencies.into_iter().map(|(edge, _)| edge.dependency));
    }

    fn hangs(&mut self, service: u32, doing: Doing) {
        self.hung.push(Hung { service: self.registry.store().name(service), doing });
        self.fail(service);
    }

    fn phase(&self, service: u32) -> Phase {
        self.registry.store().slot(service).state.load().phase()
    }

    fn fail(&self, service: u32) {
        self.registry.cascade(service, Target::Any, Shielded::new(Reason::ShutDown));
    }

    /// The end: whatever has not stopped has hung.
    fn give_up(mut self) -> Vec<Hung> {
        for stopping in mem::take(&mut self.stopping) {
            self.hangs(stopping.service, stopping.desk.doing());
        }
        for service in 0..self.turns.len() as u32 {
            let waits = self.turns[service as usize] == Turn::Waits;
            if waits && self.phase(service) != Phase::Down {
                let desk = self.registry.supervised().desk(service);
                self.hangs(service, desk.map_or(Doing::Nothing, |desk| desk.doing()));
            }
        }
        self.hung
    }
}
