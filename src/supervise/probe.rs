//! Probes: the user's code that checks an instance while it is up (S19).
//!
//! A probe is a future that the supervisor polls beside the body. It has no thread and no timer of
//! its own. All probes of one publication end with the poll in which the supervisor finds its end.

use std::{
    convert::Infallible,
    error::Error,
    future::{Future, pending},
    sync::Arc,
    time::Duration,
};

use futures_lite::future::or;

use super::{
    Body, CloseHook, Live, Supervisor,
    output::UserError,
    supervisor::ServiceLoop,
    user_code::{UserFuture, panic_message},
};
use crate::{
    error,
    failure::Reason,
    instance::Instance,
    numbers::Generation,
    provide::Running,
    registry::DegradedBy,
    store::{Exactly, NotFailed, Tag, Target},
    sync::{Shielded, shielded, yield_task},
};

/// The probes of a supervisor, or none.
pub trait Probes<T: Send + Sync + 'static>: sealed::Probes<T> {}

impl<T: Send + Sync + 'static, P: sealed::Probes<T>> Probes<T> for P {}

pub(super) mod sealed {
    use super::{Arc, Future, Infallible, Running, ServiceLoop};

    pub trait Probes<T: Send + Sync + 'static> {
        /// The number of probes.
        const COUNT: u32;

        /// Runs the probes of one publication, until the future is dropped. `first` is the revision
        /// of its first instance.
        #[expect(private_interfaces, reason = "the trait is sealed")]
        fn run(
            &mut self,
            service: &ServiceLoop<T>,
            running: &Arc<Running<T>>,
            first: u64,
        ) -> impl Future<Output = Infallible>;
    }
}

/// A supervisor without a probe.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl<T: Send + Sync + 'static> sealed::Probes<T> for NoProbe {
    const COUNT: u32 = 0;

    #[expect(private_interfaces, reason = "the trait is sealed")]
    fn run(
        &mut self,
        _: &ServiceLoop<T>,
        _: &Arc<Running<T>>,
        _: u64,
    ) -> impl Future<Output = Infallible> {
        pending()
    }
}

/// The probe of [`Supervisor::probe`] or [`Supervisor::probe_ready`], and those that the supervisor
/// had before.
pub struct AsyncProbe<P, F> {
    others: P,
    function: Shielded<F>,
    /// The pause before each call.
    every: Duration,
    timeout: Duration,
    then: AfterMisses,
}

/// What follows the misses of a probe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterMisses {
    Fail,
    Degrade,
}

impl<T, P, F, E> sealed::Probes<T> for AsyncProbe<P, F>
where
    T: Send + Sync + 'static,
    P: Probes<T>,
    F: AsyncFnMut(Arc<Instance<T>>) -> Result<(), E>,
    E: Into<UserError>,
{
    const COUNT: u32 = P::COUNT + 1;

    #[expect(private_interfaces, reason = "the trait is sealed")]
    async fn run(
        &mut self,
        service: &ServiceLoop<T>,
        running: &Arc<Running<T>>,
        first: u64,
    ) -> Infallible {
        let Self { others, function, every, timeout, then } = self;
        let publication = Publication {
            service,
            live: Live::new(running, first, &service.control),
            every: *every,
            timeout: *timeout,
            then: *then,
            by: DegradedBy::Probe(Self::COUNT),
        };
        or(others.run(service, running, first), publication.probe(&mut **function)).await
    }
}

/// A publication, and one of its probes.
struct Publication<'a, T: Send + Sync + 'static> {
    service: &'a ServiceLoop<T>,
    live: Live<T>,
    every: Duration,
    timeout: Duration,
    then: AfterMisses,
    by: DegradedBy,
}

impl<T: Send + Sync + 'static> Publication<'_, T> {
    async fn probe<F, E>(self, function: &mut F) -> Infallible
    where
        F: AsyncFnMut(Arc<Instance<T>>) -> Result<(), E>,
        E: Into<UserError>,
    {
        let most = self.service.policy.probe_misses;
        // The number of misses in a row, and the revision of the value that has missed.
        let (mut misses, mut of) = (0_u32, 0);
        let mut is_degraded = false;
        loop {
            self.pause(self.every).await;
            // A pause may have no length, and a probe may complete at once: a poll must not last
            // for ever.
            yield_task().await;
            let Some(instance) = self.live.instance() else { return pending().await };
            let revision = Instance::revision(&instance);
            let result = self.result_of(function, instance).await;
            if self.has_ended() {
                // The result came too late, and the supervisor is about to drop this future.
                drop(result);
                return pending().await;
            }
            if !self.is_current(revision) {
                // It says nothing about the present value.
                continue;
            }
            let Err(last) = result else {
                misses = 0;
                if is_degraded {
                    is_degraded = false;
                    self.live.change_degraded(self.by, None);
                }
                continue;
            };
            if revision != of {
                (misses, of) = (0, revision);
            }
            misses = misses.saturating_add(1);
            if misses < most {
                continue;
            }
            match self.then {
                AfterMisses::Fail => {
                    let last = last.into_inner();
                    if self.fail(revision, ProbeFailed { misses, last }) == HasFailed::Yes {
                        return pending().await;
                    }
                }
                // Later misses in this row keep the reason: an event for each would be too many.
                AfterMisses::Degrade if misses == most => {
                    is_degraded = true;
                    self.live.change_degraded(self.by, Some(why(&**last)));
                }
                AfterMisses::Degrade => {}
            }
        }
    }

    async fn pause(&self, length: Duration) {
        self.service.sleep_until(self.service.now().checked_add(length)).await;
    }

    /// Calls the function of the user. A panic, and a future that does not complete in time, are
    /// misses.
    async fn result_of<F, E>(
        &self,
        function: &mut F,
        instance: Arc<Instance<T>>,
    ) -> Result<(), Shielded<UserError>>
    where
        F: AsyncFnMut(Arc<Instance<T>>) -> Result<(), E>,
        E: Into<UserError>,
    {
        // The conversion of the error is user code, too.
        let done = UserFuture::new(async { function(instance).await.map_err(Into::into) });
        let done = async {
            done.await.unwrap_or_else(|payload| {
                Err(ProbeMiss::Panicked { message: panic_message(payload) }.into())
            })
        };
        let late = async {
            self.pause(self.timeout).await;
            Err(ProbeMiss::TimedOut { after: self.timeout }.into())
        };
        or(done, late).await.map_err(Shielded::new)
    }

    /// Returns whether the instance has failed, or the service must stop.
    fn has_ended(&self) -> bool {
        self.service.has_ended(self.live.generation())
    }

    /// Returns whether the value with this revision is the present one.
    fn is_current(&self, revision: u64) -> bool {
        let index = self.live.id().index();
        let present = self.service.registry().store().state_and_revision(index);
        present == (Tag::ready(self.live.generation()), revision)
    }

    /// Fails the instance, unless it was replaced.
    fn fail(&self, revision: u64, failed: ProbeFailed) -> HasFailed {
        let generation: Generation = self.live.generation();
        let exactly = Exactly { generation, revision: Some(revision), publication: None };
        let target = Target::Instance(exactly);
        let (registry, index) = (self.service.registry(), self.live.id().index());
        match registry.cascade(index, target, Reason::error(failed)) {
            Err(NotFailed::Replaced) => HasFailed::No,
            Ok(_) | Err(NotFailed::AlreadyFailed) => HasFailed::Yes,
        }
    }
}

#[derive(PartialEq, Eq)]
enum HasFailed {
    Yes,
    No,
}

/// Returns the reason of a degraded instance.
fn why(last: &(dyn Error + Send + Sync + 'static)) -> Arc<str> {
    // The text is user code.
    let mut text = String::from("the text of the error panicked");
    shielded(|| text = error::chain(last).to_string());
    format!("probe: {text}").into()
}

/// The reason of an instance whose [probe](Supervisor::probe) has missed too often in a row.
///
/// The [`Failure`](crate::Failure) of the instance contains it as
/// [`Reason::Error`](crate::Reason::Error). The last miss is its source. So a
/// [`Permanent`](crate::supervise::Permanent), a [`Planned`](crate::supervise::Planned) or a
/// [`DependencyUnavailable`](crate::error::DependencyUnavailable) in it has its usual meaning.
///
/// ```
/// use mainstay::{Reason, Registry, supervise::ProbeFailed};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let client = registry.register::<u32>("client")?;
/// let (every, timeout) = (Duration::from_millis(1), Duration::from_secs(1));
/// let supervisor =
///     registry.supervise(client)?.probe(every, timeout, async |_| Err("no answer"));
/// tokio::spawn(supervisor.run(async |_| 1));
/// registry.wait_ready(client).await?;
///
/// while registry.status(client)?.last_failure.is_none() {
///     tokio::time::sleep(Duration::from_millis(1)).await;
/// }
/// let failure = registry.status(client)?.last_failure.unwrap();
/// let Reason::Error(error) = &failure.reason else { unreachable!() };
/// let failed = error.downcast_ref::<ProbeFailed>().unwrap();
/// assert_eq!((failed.misses, failed.last.to_string()), (3, "no answer".into()));
/// # registry.close();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[error("its probe failed, misses in a row: {misses}")]
#[non_exhaustive]
pub struct ProbeFailed {
    /// The number of misses in a row
    /// ([`RestartPolicy::probe_misses`](crate::supervise::RestartPolicy::probe_misses)).
    pub misses: u32,
    /// The last one: the error that the probe has returned, or a [`ProbeMiss`].
    #[source]
    pub last: Box<dyn Error + Send + Sync>,
}

/// The miss of a probe that has not returned an error itself; a source of [`ProbeFailed`].
///
/// ```
/// use mainstay::supervise::ProbeMiss;
/// use std::time::Duration;
///
/// let miss = ProbeMiss::TimedOut { after: Duration::from_secs(1) };
/// assert_eq!(miss.to_string(), "the probe did not end within 1s");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeMiss {
    /// The probe panicked.
    #[error("the probe panicked: {message}")]
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// The probe did not end within its timeout.
    #[error("the probe did not end within {after:?}")]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
}

impl<T, B, H, P> Supervisor<T, B, H, P>
where
    T: Send + Sync + 'static,
    B: Body<T>,
    H: CloseHook<T>,
    P: Probes<T>,
{
    /// Adds a probe, which fails the instance: an async function that checks the value while the
    /// service is up, such as a ping of a connection.
    ///
    /// It is called with the current instance, first when the service has been up for `every`, and
    /// then each time that `every` has passed since the last call has ended. A *miss* is an error,
    /// a panic, or a future that does not complete within `timeout`, which is dropped. After three
    /// misses in a row ([`RestartPolicy::probe_misses`]) the instance fails with the reason
    /// [`ProbeFailed`]. Like the error of a body, it is counted against the service, unless the
    /// last miss contains a [`Planned`](crate::supervise::Planned) or a
    /// [`DependencyUnavailable`](crate::error::DependencyUnavailable).
    ///
    /// [`RestartPolicy::probe_misses`]: crate::supervise::RestartPolicy::probe_misses
    ///
    /// - The misses of one value count: a [replacement](Live::replace) begins anew, and what a
    ///   probe of the old value says is ignored.
    /// - A service with a body is probed, too, also if the body has returned and the service stays
    ///   ready, and if it is [completed](crate::supervise::Completed).
    /// - When the end of the instance is announced, by a failure or by its turn in a planned end,
    ///   the probe that runs is dropped, and what it has said has no effect.
    /// - A supervisor may have several probes, of both kinds. They run beside each other.
    ///
    /// The time is that of the registry's clock. If `every` is zero, other tasks run between two
    /// calls; the supervisor is never idle. If it is beyond the range of
    /// [`Instant`](std::time::Instant), as [`Duration::MAX`] is, nothing is probed; such a
    /// `timeout` is none.
    ///
    /// The supervisor polls the future of the probe, so a probe that blocks its thread delays
    /// everything else that the supervisor does. Between two calls it keeps no instance alive.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::RestartPolicy};
    /// use std::time::Duration;
    /// use tokio::net::TcpStream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let address = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    /// let registry = Registry::with_capacity(1)?;
    /// let client = registry.register::<TcpStream>("client")?;
    /// let supervisor = registry
    ///     .supervise(client)?
    ///     .restart_policy(RestartPolicy::default().probe_misses(2))
    ///     .probe(Duration::from_secs(5), Duration::from_secs(1), async |client| {
    ///         client.writable().await
    ///     });
    /// tokio::spawn(supervisor.run(async move |_| TcpStream::connect(address).await));
    /// # registry.close();
    /// # Ok(())
    /// # }
    /// ```
    pub fn probe<F, E>(
        self,
        every: Duration,
        timeout: Duration,
        probe: F,
    ) -> Supervisor<T, B, H, AsyncProbe<P, F>>
    where
        F: AsyncFnMut(Arc<Instance<T>>) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.add_probe(every, timeout, probe, AfterMisses::Fail)
    }

    /// Adds a probe, which marks the instance as [degraded](crate::supervise::Degraded), and fails
    /// nothing.
    ///
    /// As [`probe`](Self::probe), but after the misses in a row the service stays ready, and is
    /// degraded, for a reason that begins with *probe:*. The next success ends this. It neither
    /// clears nor changes what the body has set by [`Live::set_degraded`], and what another probe
    /// has set: the status shows all of them.
    ///
    /// ```
    /// use mainstay::{supervise::RestartPolicy, test_kit::TestRuntime};
    /// use std::time::Duration;
    ///
    /// let mut runtime = TestRuntime::new(1)?;
    /// let queue = runtime.registry.register::<u32>("queue")?;
    /// let second = Duration::from_secs(1);
    /// let supervisor = runtime.registry.supervise(queue)?;
    /// let supervisor = supervisor.probe_ready(10 * second, second, async |queue| {
    ///     match **queue {
    ///         0..1000 => Ok(()),
    ///         length => Err(format!("{length} jobs are waiting")),
    ///     }
    /// });
    /// runtime.spawn(supervisor.run(async |_| 5000));
    /// runtime.advance(30 * second);
    /// let status = runtime.registry.status(queue)?;
    /// assert_eq!(status.to_string(), "queue: ready, degraded: probe: 5000 jobs are waiting");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn probe_ready<F, E>(
        self,
        every: Duration,
        timeout: Duration,
        probe: F,
    ) -> Supervisor<T, B, H, AsyncProbe<P, F>>
    where
        F: AsyncFnMut(Arc<Instance<T>>) -> Result<(), E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        self.add_probe(every, timeout, probe, AfterMisses::Degrade)
    }

    fn add_probe<F>(
        self,
        every: Duration,
        timeout: Duration,
        function: F,
        then: AfterMisses,
    ) -> Supervisor<T, B, H, AsyncProbe<P, F>> {
        let function = Shielded::new(function);
        self.map_probes(|others| AsyncProbe { others, function, every, timeout, then })
    }
}
