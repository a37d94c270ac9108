//! `Script`: defines the outcome of each build of a service.

use std::{collections::VecDeque, error::Error, future::Future, pin::Pin, sync::Arc};

use crate::{
    supervise::Build,
    sync::{Mutex, lock},
};

/// The outcome of one build, in a [`Script`].
///
/// ```
/// let outcome = mainstay::test_kit::BuildOutcome::Fail("no port is free".into());
/// # let _ = outcome;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildOutcome {
    /// The wrapped builder is called.
    Build,
    /// The build returns this error.
    Fail(String),
    /// The build panics with this message.
    Panic(String),
    /// The build never completes; only a timeout, a failure or a shutdown ends it.
    Hang,
}

/// The outcomes of the next builds of a service, in order.
///
/// After the last outcome, the wrapped builder is called for each build. Clones are the same
/// script.
///
/// ```
/// use mainstay::{
///     supervise::RestartPolicy,
///     test_kit::{BuildOutcome, Script, TestRuntime},
/// };
/// use std::time::Duration;
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// let policy = RestartPolicy::default().without_jitter().build_timeout(Duration::from_secs(5));
/// let supervisor = runtime.registry.supervise(port)?.restart_policy(policy);
///
/// let script = Script::default();
/// script.push(BuildOutcome::Panic("no port is free".into()));
/// script.push(BuildOutcome::Hang);
/// let builder = |_| async { Ok::<_, std::io::Error>(80) };
/// runtime.spawn(supervisor.run(script.wrap(builder)));
///
/// runtime.advance(Duration::from_secs(10));
/// assert_eq!(*runtime.registry.get(port)?, 80);
/// runtime.recorder.assert_order(&[
///     "port 0: attempt failed: the build panicked: no port is free",
///     "port 0: attempt failed: not built within 5s",
///     "port 0: ready",
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Script(Arc<Mutex<VecDeque<BuildOutcome>>>);

type BoxedBuild<T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn Error + Send + Sync>>> + Send>>;

impl Script {
    /// Appends the outcome of one build.
    ///
    /// ```
    /// use mainstay::test_kit::{BuildOutcome, Script};
    ///
    /// Script::default().push(BuildOutcome::Hang);
    /// ```
    pub fn push(&self, outcome: BuildOutcome) {
        lock(&self.0).push_back(outcome);
    }

    /// Returns an async builder that follows the script, and calls `builder` for
    /// [`BuildOutcome::Build`] and after the end of the script.
    ///
    /// ```
    /// # use mainstay::{supervise::Build, test_kit::Script};
    /// # async fn open(build: Build<u16>) -> Result<u16, std::io::Error> { Ok(80) }
    /// # let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// # let port = runtime.registry.register::<u16>("port")?;
    /// # let supervisor = runtime.registry.supervise(port)?;
    /// let run = supervisor.run(Script::default().wrap(open));
    /// # runtime.spawn(run);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wrap<T, F, B, E>(
        &self,
        mut builder: F,
    ) -> impl FnMut(Build<T>) -> BoxedBuild<T> + use<T, F, B, E>
    where
        T: Send + Sync + 'static,
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let script = self.clone();
        move |build| {
            let outcome = lock(&script.0).pop_front().unwrap_or(BuildOutcome::Build);
            match outcome {
                BuildOutcome::Build => {
                    let built = builder(build);
                    Box::pin(async move { built.await.map_err(Into::into) })
                }
                BuildOutcome::Fail(error) => Box::pin(async move { Err(error.into()) }),
                BuildOutcome::Panic(message) => Box::pin(async move { panic!("{message}") }),
                BuildOutcome::Hang => Box::pin(std::future::pending()),
            }
        }
    }
}
