//! One service: its builder, its body and its close hook.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    super::runtime::{BoxError, ms},
    Built, FIRST_BACKOFF, GRACE, Id, LIMIT, RESET_AFTER, STOP_TIMEOUT, SUCCESS, WINDOW, World,
    books::{BodySeen, Books},
};
use crate::support::{Random, poll_once};
use futures_lite::future::or;
use mainstay::{
    Instance,
    supervise::{
        BodyEnd, Build, Clock, Closing, Completed, Live, Permanent, RestartPolicy, StopReason,
    },
    test_kit::VirtualClock,
};

/// Notes that a body exists: until its future is dropped.
struct BodyGuard {
    books: Arc<Books>,
    service: usize,
}

impl BodyGuard {
    fn new(books: &Arc<Books>, service: usize, live: &Live<Built>) -> Self {
        let before = books.with(service, |seen| {
            seen.body.stays = None;
            seen.body.running.replace(live.clone())
        });
        if before.is_some() {
            books.wrong(format!("S10: two bodies of s{service}"));
        }
        Self { books: Arc::clone(books), service }
    }
}

impl Drop for BodyGuard {
    fn drop(&mut self) {
        drop(self.books.with(self.service, |seen| seen.body.running.take()));
    }
}

impl World {
    pub(super) fn supervise(&mut self, service: usize, mut random: Random) {
        for _ in 0..service {
            random.next();
        }
        let restart = RestartPolicy::default()
            .backoff(FIRST_BACKOFF, ms(5_000))
            .without_jitter()
            .reset_after(RESET_AFTER)
            .max_failures(LIMIT as u32, WINDOW)
            .stop_timeout(STOP_TIMEOUT)
            .build_timeout(ms(1_000));
        let supervisor =
            self.registry.supervise(self.ids[service]).unwrap().restart_policy(restart);
        let close_hook = {
            let (books, alive) = (Arc::clone(&self.books), Arc::clone(&self.alive));
            async move |closing| {
                // In this test no reader holds an instance for longer than a step.
                let number = (Closing::generation(&closing).get(), Closing::revision(&closing));
                let before = alive.load(Ordering::Relaxed);
                let is_owned = Closing::into_value(closing).is_ok();
                let is_dropped = alive.load(Ordering::Relaxed) == before - 1;
                let (is_next, closes) = books.with(service, |seen| {
                    seen.closes += 1;
                    let last = seen.closed.replace(number);
                    (last.is_none_or(|last| last < number), seen.closes)
                });
                if !(is_owned && is_dropped && is_next) {
                    books.wrong(format!("s{service} {number:?} is closed"));
                }
                assert!(closes % 7 != 0, "in the close hook");
            }
        };
        let (mut body, mut builder) =
            (self.body(service, random.clone()), self.builder(service, random));
        let builder = move |build| builder(build);
        // The type of a body decides whether it may say that the instance stays ready.
        self.tasks.push(match service {
            _ if completes(service) => {
                let mut builder = builder;
                let builder = async move |build| Completed(builder(build).await);
                Box::pin(supervisor.on_close(close_hook).run(builder))
            }
            _ if may_stay_ready(service) => {
                let body = async move |live| Ok::<_, BoxError>(body(live).await?.unwrap());
                Box::pin(supervisor.exclusive_body(body).on_close(close_hook).run(builder))
            }
            _ => {
                let body = async move |live| body(live).await.map(drop);
                Box::pin(supervisor.exclusive_body(body).on_close(close_hook).run(builder))
            }
        });
    }

    fn body(
        &self,
        service: usize,
        mut random: Random,
    ) -> impl FnMut(Live<Built>) -> BodyFuture + Send + use<> {
        let work = BodyWork {
            service,
            books: Arc::clone(&self.books),
            calm: Arc::clone(&self.calm),
            clock: self.clock.clone(),
        };
        move |live| {
            let fate = if work.is_calm() { SUCCESS } else { random.below(100) };
            let until = work.clock.now() + ms(random.below(30_000) as u64);
            Box::pin(work.clone().run(live, fate, until))
        }
    }

    fn builder(
        &self,
        service: usize,
        mut random: Random,
    ) -> impl FnMut(Build<Built>) -> BuildFuture + Send + use<> {
        // Each build chooses some of the services before this one.
        let below: Vec<Id> = self.ids[service.saturating_sub(5)..service].to_vec();
        let (clock, alive, calm) =
            (self.clock.clone(), Arc::clone(&self.alive), Arc::clone(&self.calm));
        let books = Arc::clone(&self.books);
        move |build: Build<Built>| {
            let calm = Arc::clone(&calm);
            let outcome = if calm.load(Ordering::Relaxed) { SUCCESS } else { random.below(100) };
            let mut from = below.clone();
            from.retain(|_| random.below(3) == 0);
            let from: Vec<_> = from.into_iter().map(|id| (id, random.below(6))).collect();
            let (clock, alive) = (clock.clone(), Arc::clone(&alive));
            let unavailable = below.get(random.below(below.len().max(1))).copied();
            books.with(service, |seen| seen.received.clear());
            let books = Arc::clone(&books);
            assert!(outcome != 0, "in the call");
            Box::pin(async move {
                let (mut hard, mut tolerated) = (Vec::new(), Vec::new());
                for (id, kind) in from {
                    let instance = match kind {
                        0 => build.wait_to_start(id).await?,
                        1 => {
                            tolerated.push(id);
                            build.wait_with_grace(id, GRACE).await?
                        }
                        _ => build.wait_for(id).await?,
                    };
                    let generation = Instance::generation(&instance).get();
                    if kind > 1 {
                        hard.push((id, generation));
                    }
                    let received = (id, generation, Instance::revision(&instance));
                    books.with(service, |seen| seen.received.push(received));
                }
                // A build that waited for a given-up service may have begun before the calm.
                match if calm.load(Ordering::Relaxed) { SUCCESS } else { outcome } {
                    1..4 => return Err("no luck".into()),
                    4..6 => panic!("in a poll"),
                    6..8 => pending().await,
                    8..10 => return Err(Permanent::new("never").into()),
                    10..20 => {
                        if let Some(id) = unavailable {
                            build.registry().get(id)?;
                        }
                    }
                    20..42 => clock.sleep_until(clock.now() + ms(outcome as u64)).await,
                    _ => {}
                }
                Ok(Built::new(hard, tolerated, &alive))
            })
        }
    }
}

type BuildFuture = Pin<Box<dyn Future<Output = Result<Built, BoxError>> + Send>>;
type BodyFuture = Pin<Box<dyn Future<Output = Result<Option<BodyEnd>, BoxError>> + Send>>;

/// The work of the bodies of one service.
#[derive(Clone)]
struct BodyWork {
    service: usize,
    books: Arc<Books>,
    calm: Arc<AtomicBool>,
    clock: VirtualClock,
}

impl BodyWork {
    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn see<R>(&self, see: impl FnOnce(&mut BodySeen) -> R) -> R {
        self.books.with(self.service, |seen| see(&mut seen.body))
    }

    /// Most bodies work until they are notified. Others end before that, at `until`.
    async fn run(
        self,
        live: Live<Built>,
        fate: usize,
        until: Instant,
    ) -> Result<Option<BodyEnd>, BoxError> {
        let guard = BodyGuard::new(&self.books, self.service, &live);
        let stopping = async { Some(live.stopping().await) };
        let until = async {
            if fate >= 40 {
                return pending().await;
            }
            self.clock.sleep_until(until).await;
            if self.is_calm() { pending().await } else { None }
        };
        match or(stopping, until).await {
            Some(reason) => self.notified(&live, &reason?, fate).await,
            None => self.ends_itself(&live, guard, fate).await,
        }
    }

    async fn ends_itself(
        &self,
        live: &Live<Built>,
        guard: BodyGuard,
        fate: usize,
    ) -> Result<Option<BodyEnd>, BoxError> {
        let end = match fate {
            0..8 => {
                self.see(|body| body.panicked += 1);
                panic!("in a body");
            }
            8..14 => {
                self.see(|body| body.failed += 1);
                return Err("no luck in a body".into());
            }
            14..16 => return Err(Permanent::new("never").into()),
            16..20 => {
                live.fail("reported by the body");
                BodyEnd::StayReady
            }
            // It asks for its own restart, which waits for it.
            20..24 => {
                self.books.with(self.service, |seen| {
                    seen.body.restarted += 1;
                    (seen.to_stop, seen.is_reset_at_its_turn) = (false, true);
                });
                let mut restart = live.registry().restart(live.id(), "the body");
                if poll_once(&mut restart).is_ready() {
                    self.books.wrong(format!("s{} has stopped with its body", self.service));
                }
                let reason = live.stopping().await?;
                return self.notified(live, &reason, fate).await;
            }
            24..32 => BodyEnd::Completed,
            _ => BodyEnd::StayReady,
        };
        if !may_stay_ready(self.service) {
            self.see(|body| body.returned += 1);
            return Ok(None);
        }
        drop(guard);
        self.see(|body| body.stays = Some((live.generation().get(), end)));
        Ok(Some(end))
    }

    /// What it does now is no failure of the service.
    async fn notified(
        &self,
        live: &Live<Built>,
        reason: &StopReason,
        fate: usize,
    ) -> Result<Option<BodyEnd>, BoxError> {
        let is_planned = !matches!(reason, StopReason::Failed(_) | StopReason::DependencyFailed(_));
        if is_planned != live.instance().is_some() {
            self.books.wrong(format!("S11: the body of s{} ends: {reason:?}", self.service));
        }
        self.see(|body| body.at_turn = is_planned);
        match fate {
            _ if self.is_calm() => {}
            40..50 => {
                self.see(|body| body.late += 1);
                pending::<()>().await;
            }
            50..60 => self.clock.sleep_until(self.clock.now() + STOP_TIMEOUT / 2).await,
            60..64 => panic!("in a body"),
            64..68 => return Err("after its notification".into()),
            _ => {}
        }
        Ok(Some(BodyEnd::StayReady))
    }
}

/// Whether the work of a service is done when it is built.
pub(super) fn completes(service: usize) -> bool {
    service % 8 == 5
}

/// Whether a body of a service may say that the instance stays ready without it.
fn may_stay_ready(service: usize) -> bool {
    service % 2 == 0
}
