//! `Script`: defines the outcome of each build of a service.

use std::{collections::VecDeque, error::Error, sync::Arc};

use crate::{
    supervise::Permanent,
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
    /// The builder continues.
    Build,
    /// The build returns this error.
    Fail(String),
    /// The build returns this error as a [permanent](crate::supervise::Permanent) one.
    Permanent(String),
    /// The build panics with this message.
    Panic(String),
    /// The build never completes; only a timeout, a failure or a shutdown ends it.
    Hang,
}

/// The outcomes of the next builds of a service, in order.
///
/// After the last outcome, each build continues. Clones are the same script.
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
/// runtime.spawn(supervisor.run(async move |_| script.step().await.map(|()| 80)));
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

    /// Follows the next outcome of the script. A builder calls it before its own work: it returns
    /// for [`BuildOutcome::Build`] and after the end of the script.
    ///
    /// # Errors
    ///
    /// The error of [`BuildOutcome::Fail`] or [`BuildOutcome::Permanent`].
    ///
    /// # Panics
    ///
    /// For [`BuildOutcome::Panic`].
    ///
    /// ```
    /// # use mainstay::test_kit::Script;
    /// # let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// # let port = runtime.registry.register::<u16>("port")?;
    /// # let supervisor = runtime.registry.supervise(port)?;
    /// let script = Script::default();
    /// runtime.spawn(supervisor.run(async move |_| {
    ///     script.step().await?;
    ///     Ok::<_, Box<dyn std::error::Error + Send + Sync>>("80".parse()?)
    /// }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn step(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        // In a statement of its own: a panic must not poison the lock.
        let outcome = lock(&self.0).pop_front();
        match outcome {
            None | Some(BuildOutcome::Build) => Ok(()),
            Some(BuildOutcome::Fail(error)) => Err(error.into()),
            Some(BuildOutcome::Permanent(error)) => Err(Permanent::new(error).into()),
            Some(BuildOutcome::Panic(message)) => panic!("{message}"),
            Some(BuildOutcome::Hang) => std::future::pending().await,
        }
    }
}
