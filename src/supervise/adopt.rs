//! Adopting: a service takes the new instance of a dependency over in place, after a reload (S23).

use std::{
    any::Any,
    collections::BTreeMap,
    future::pending,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    CloseOutput, Supervisor,
    output::{UserError, sealed},
    supervisor::ServiceLoop,
    user_code::panic_message,
};
use crate::{
    error::ForeignIdError,
    failure::Reason,
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    provide::Running,
    registry::{Control, Registry},
    service::ServiceId,
    store::{Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// The reason of an instance whose [adoption](Supervisor::adopt) of a new instance has ended
/// without an error of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdoptFailure {
    /// It panicked.
    #[error("the adoption panicked: {message}")]
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
}

/// Calls a function of the user with the present instance of the service, and with the one of a
/// dependency.
type Adopt<T> = dyn Fn(&Registry, &T) -> Result<(), UserError> + Send + Sync;

/// What a service does with the new instances of its dependencies.
pub(super) type Adoptions<T> = BTreeMap<ServiceIndex, Box<Adopt<T>>>;

impl<T: Send + Sync + 'static, B, H, P> Supervisor<T, B, H, P> {
    /// Lets the service *adopt* a new instance of a dependency: a [reload](Registry::reload) of the
    /// dependency then does not build this service anew, but calls `adopt` after the switch, with
    /// the present value of this service and the new instance.
    ///
    /// Because of this edge alone, neither the service nor what depends on it is a member of the
    /// reload. It is one if it also depends on another member, and then `adopt` is not called. The
    /// edge itself comes from a wait of the builder, or is declared, as every other one: if the
    /// dependency fails, so does this service.
    ///
    /// The supervisor calls `adopt`, between two polls of the body, or on the thread of
    /// [`run_blocking`](Self::run_blocking). The caller of the reload does not wait for it. Until
    /// it has returned, readers find a service that uses the old instance beside the new instance
    /// of the dependency. If the dependency is reloaded several times before the call, it is called
    /// with the newest instance. If another reload has built the service anew since, it may be
    /// called with an instance from which the value was built, or which the value does not use. A
    /// plain [replacement](super::Live::replace) calls nothing.
    ///
    /// An error or a panic fails the instance, as an error of its body does, and is counted.
    ///
    /// A second call for the same dependency takes the place of the first one.
    ///
    /// # Errors
    ///
    /// The id belongs to another registry. The supervisor is dropped then.
    ///
    /// ```
    /// use mainstay::{error::WaitForError, supervise::Build, test_kit::TestRuntime};
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// static LEVEL: AtomicU32 = AtomicU32::new(1); // stands for a file
    ///
    /// let mut runtime = TestRuntime::new(2)?;
    /// let level = runtime.registry.register::<u32>("level")?;
    /// let logger = runtime.registry.register::<AtomicU32>("logger")?;
    /// let run = runtime.registry.supervise(level)?;
    /// runtime.spawn(run.run(async |_: Build<u32>| LEVEL.load(Ordering::Relaxed)));
    /// let run = runtime.registry.supervise(logger)?;
    /// let run = run.adopt(level, |logger: &AtomicU32, level| {
    ///     logger.store(**level, Ordering::Relaxed);
    /// })?;
    /// runtime.spawn(run.run(async move |build: Build<AtomicU32>| {
    ///     Ok::<_, WaitForError>(AtomicU32::new(**build.wait_for(level).await?))
    /// }));
    /// runtime.run_until_idle();
    ///
    /// LEVEL.store(2, Ordering::Relaxed);
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     let reloaded = registry.reload(level).await.unwrap();
    ///     assert_eq!((reloaded.members.len(), &*reloaded.adopters[0]), (1, "logger"));
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(runtime.registry.get(logger)?.load(Ordering::Relaxed), 2);
    /// assert_eq!(runtime.registry.status(logger)?.revision, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn adopt<D, F, O>(
        mut self,
        dependency: ServiceId<D>,
        adopt: F,
    ) -> Result<Self, ForeignIdError>
    where
        D: Send + Sync + 'static,
        F: Fn(&T, Arc<Instance<D>>) -> O + Send + Sync + 'static,
        O: CloseOutput,
    {
        let index = self.service.registry().index(dependency.into())?;
        // Its drop is user code, too.
        let adopt = Shielded::new(adopt);
        let call = move |registry: &Registry, own: &T| {
            // If it has failed since, this service is about to go down with it.
            let Ok(new) = registry.get_arc(dependency) else { return Ok(()) };
            let call = || sealed::CloseOutput::into_result((*adopt)(own, new));
            catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(panicked(payload)))
        };
        self.service.adoptions.insert(index, Box::new(call));
        self.service.control.set_adopts(index);
        Ok(self)
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> UserError {
    AdoptFailure::Panicked { message: panic_message(payload) }.into()
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Adopts the new instance of a dependency at each request. Never completes.
    pub(super) async fn adopted<R>(&self, running: &Running<T>, first: u64) -> R {
        let (registry, index, generation) =
            (self.registry(), self.id().index(), running.generation());
        loop {
            let control = &self.control;
            let requested = AdoptRequested { registry, index, generation, control };
            for dependency in Wait::new(requested).await {
                let Some(adopt) = self.adoptions.get(&dependency) else { continue };
                // `None`: it has failed.
                let Some(own) = running.instance() else { return pending().await };
                if let Err(error) = adopt(registry, &own) {
                    let target = Target::publication(generation, first);
                    let _ = registry.cascade(index, target, Reason::error(error));
                    return pending().await;
                }
            }
        }
    }
}

/// Waits until the service must adopt the instances of some dependencies, and returns these.
struct AdoptRequested<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    generation: Generation,
    control: &'a Control,
}

impl Condition for AdoptRequested<'_> {
    type Output = Vec<ServiceIndex>;

    fn check(&mut self) -> Option<Vec<ServiceIndex>> {
        let requested = self.control.take_adoptions(self.generation);
        (!requested.is_empty()).then_some(requested)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Vec<ServiceIndex> {
        unreachable!("a supervisor waits for requests without a timeout")
    }
}
