//! The loop of a supervisor: `docs/supervision.md` has it as a picture.

use std::{
    error::Error,
    future::{Future, ready},
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    Build, BuildTime, Doing, Supervisor, TryError, build,
    restart::{Charges, Verdict},
    supervised::{Order, Told},
    supervisor::Hook,
    user::{Builder, call},
};
use crate::{
    dependency::Grace,
    error::ReadyError,
    event::EventKind,
    failure::{Failure, Reason},
    provider::Attempt,
    running::Running,
    store::Target,
    sync::Shielded,
    wait::Wait,
};

impl<T: Send + Sync + 'static> Supervisor<T> {
    /// Keeps the service up until the end; gives the instance that is up then.
    pub(super) async fn keep_up<F, B, E>(&self, mut builder: Builder<F>) -> Option<Running<T>>
    where
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut charges = Charges::new(self.restart.clone());
        let mut rest = Rest { time: Duration::ZERO, since: self.now(), generation: 0 };
        // Of the instance before, that were not to be waited for any longer.
        let mut holders = 0;
        while self.rested(rest, &mut charges).await {
            let attempt = self.begin(&charges).await?;
            // A cascade ends the generation; an attempt that is given up does not.
            let mut generation = attempt.generation() + 1;
            // Of its reason this may be the last holder.
            let (failed, since) = match self.build(attempt, &charges, holders, &mut builder).await {
                Built::Running(running, graces) => {
                    if self.desk.take_reset() {
                        charges.forgive();
                    }
                    charges.up(self.now());
                    self.desk.does(Doing::Up, charges.count(), None);
                    let failed = async { running.failed().await.ok().map(Shielded::new) };
                    let outlast = self.outlast(graces, running.generation());
                    let Some(failed) = or(failed, or(self.ended(), outlast)).await else {
                        return Some(running);
                    };
                    let since = self.now();
                    let Some(left) = self.drained(&running, &charges).await else {
                        return Some(running);
                    };
                    holders = left;
                    (failed, since)
                }
                // By the end itself, perhaps, which is no failure.
                Built::Overtaken(failure) if self.desk.is_to_stop() => {
                    drop(Shielded::new(failure));
                    return None;
                }
                Built::Overtaken(failure) => (Shielded::new(failure), self.now()),
                Built::GivenUp(failure) => {
                    generation -= 1;
                    (Shielded::new(failure), self.now())
                }
                Built::Ended => return None,
            };
            if self.desk.take_reset() {
                charges.forgive();
            }
            let verdict =
                if is_its_own(&failed) { charges.charge(since) } else { charges.spare(since) };
            match verdict {
                Verdict::Again(time) => rest = Rest { time, since, generation },
                Verdict::Broken => {
                    self.emit(failed.generation, EventKind::Broken(&failed));
                    self.desk.does(Doing::Broken, charges.count(), None);
                    drop(failed);
                    if self.told(true, None).await == Order::End {
                        return None;
                    }
                    charges.forgive();
                    rest = Rest { time: Duration::ZERO, since, generation };
                }
            }
        }
        None
    }

    /// Takes the service down for good.
    pub(super) async fn stop(&self, running: Option<Running<T>>, hook: Shielded<Option<Hook<T>>>) {
        let until = self.now().checked_add(self.stop_within);
        self.desk.does(Doing::Stopping, 0, None);
        let work = async {
            if let Some(running) = running {
                let instance = Shielded::new(running.instance());
                let target = Target::Generation(running.generation());
                let reason = Shielded::new(Reason::ShutDown);
                self.registry().cascade(self.id().index(), target, reason);
                // Another's failure may be on its way to it, and has not come yet.
                drop(running.failed().await.map(Shielded::new));
                // Whatever of it is the user's is called, and dropped, in there; and the instance before it is drained.
                let work = move || match (hook.into_inner(), instance.into_inner()) {
                    (Some(hook), Some(instance)) => hook(instance),
                    _ => Box::pin(ready(())),
                };
                drop(Shielded::new(call(work).await));
                running.drained().await.ok();
            }
            true
        };
        let late = async {
            self.sleep_until(until).await;
            false
        };
        if or(work, late).await {
            self.desk.does(Doing::Stopped, 0, None);
        }
    }

    /// Waits until the readers of an instance that has failed have let go of it, for as long as the policy says; gives how
    /// many have not. `None` where this is the end.
    async fn drained(&self, running: &Running<T>, charges: &Charges) -> Option<usize> {
        let Some(within) = charges.restart().drain_within else { return Some(0) };
        let until = self.now().checked_add(within);
        self.desk.does(Doing::Draining, charges.count(), None);
        let drained = async {
            let _ = running.drained().await;
            Some(0)
        };
        let late = async {
            self.sleep_until(until).await;
            Some(running.holders())
        };
        or(self.ended(), or(drained, late)).await
    }

    /// Lets a rest pass. False where this is the end.
    async fn rested(&self, rest: Rest, charges: &mut Charges) -> bool {
        if rest.time.is_zero() {
            return true;
        }
        let until = rest.since.checked_add(rest.time);
        self.desk.does(Doing::Resting, charges.count(), until);
        let slept = async {
            self.sleep_until(until).await;
            Order::GoOn
        };
        match or(self.told(true, Some(rest.generation)), slept).await {
            Order::End => return false,
            Order::Reset => charges.forgive(),
            Order::GoOn => {}
        }
        true
    }

    /// The next attempt; `None` where this is the end.
    async fn begin(&self, charges: &Charges) -> Option<Attempt<T>> {
        self.desk.does(Doing::Building, charges.count(), None);
        or(self.ended(), async { self.provider.begin().await.ok() }).await
    }

    /// Waits for the end, to be polled beside something else.
    async fn ended<R>(&self) -> Option<R> {
        self.told(false, None).await;
        None
    }

    async fn build<F, B, E>(
        &self,
        attempt: Attempt<T>,
        charges: &Charges,
        holders: usize,
        builder: &mut Builder<F>,
    ) -> Built<T>
    where
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let timeout = charges.restart().build_timeout;
        let time = BuildTime::new(timeout, self.now());
        let (attempt, build) = build::begin(attempt, charges.count(), holders, time);
        let outcome = {
            let overtaken = async {
                let _ = attempt.overtaken().await;
                None
            };
            let late = async {
                self.is_late(attempt.time()).await;
                Some(Err(TryError::timed_out(timeout).into()))
            };
            let built = async { Some(builder.build(build).await) };
            // In this order: what is of no use is polled no more.
            or(or(overtaken, self.ended()), or(built, late)).await
        };
        let is_over = attempt.time().is_over(self.now());
        let attempt = attempt.end();
        let graces = attempt.uses.take_graces();
        let outcome = match outcome {
            // A blocking builder could not be stopped.
            Some(Ok(value)) if is_over => {
                drop(Shielded::new(value));
                Some(Err(TryError::timed_out(timeout).into()))
            }
            outcome => outcome,
        };
        match outcome {
            Some(Ok(value)) => match attempt.ready(value) {
                Ok(running) => Built::Running(running, graces),
                Err(ReadyError::Overtaken { value, failure }) => {
                    drop(Shielded::new(value));
                    Built::Overtaken(failure)
                }
                Err(ReadyError::Closed { value, .. }) => {
                    drop(Shielded::new(value));
                    Built::Ended
                }
            },
            // Overtaken, or the end: it has nothing to say that would matter.
            None => self.failed(attempt, "overtaken".into()),
            Some(Err(reason)) => self.failed(attempt, reason),
        }
    }

    /// Waits until the time of a build is over.
    async fn is_late(&self, time: &BuildTime) {
        loop {
            // What has begun to wait, or has waited, since we fell asleep has more time now.
            let end = time.counts().await;
            if self.now() >= end {
                return;
            }
            self.sleep_until(Some(end)).await;
        }
    }

    /// Gives the attempt up for this reason, unless a failure has come before it.
    fn failed(&self, attempt: Attempt<T>, reason: Box<dyn Error + Send + Sync>) -> Built<T> {
        let reason = Shielded::new(reason);
        if self.registry().is_closed() || self.desk.is_to_stop() {
            attempt.give_up(Reason::ShutDown);
            return Built::Ended;
        }
        match attempt.fail(reason.into_inner()) {
            Err(overtaken_by) => Built::Overtaken(overtaken_by),
            Ok(()) => match self.registry().store().last_failure(self.id().index()) {
                Some(failure) => Built::GivenUp(failure),
                None => unreachable!("an attempt was just given up"),
            },
        }
    }

    fn told(&self, resets: bool, rests_in: Option<u64>) -> Wait<Told<'_>> {
        let (registry, index) = (self.registry(), self.id().index());
        Wait::new(Told { registry, index, desk: &self.desk, resets, rests_in })
    }

    fn emit(&self, generation: u64, kind: EventKind<'_>) {
        self.registry().emit(self.id().index(), generation, Duration::ZERO, kind);
    }
}

/// Whether it is charged to the service, and not to something that it stands on.
fn is_its_own(failure: &Failure) -> bool {
    failure.root == failure.service && !matches!(failure.reason, Reason::NotBack { .. })
}

/// What came of one build.
enum Built<T: Send + Sync + 'static> {
    /// And what it can stand.
    Running(Running<T>, Vec<Grace>),
    Overtaken(Failure),
    GivenUp(Failure),
    Ended,
}

/// The pause before a build.
#[derive(Clone, Copy)]
struct Rest {
    time: Duration,
    /// The failure. What was drained after it is a part of the rest.
    since: Instant,
    /// In which the service is down. Where a cascade ends it before the time is up, something that the last build has
    /// used has failed, and with it perhaps what that build has failed for.
    generation: u64,
}
