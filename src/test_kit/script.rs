//! Builds that go as they are told to.

use std::{collections::VecDeque, error::Error, future::Future, pin::Pin, sync::Arc};

use crate::{
    supervise::Build,
    sync::{Mutex, lock},
};

/// What is to become of one build.
///
/// ```
/// let fate = mainstay::Fate::Fail("no port is free".into());
/// # let _ = fate;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It is built.
    Build,
    /// It returns this error.
    Fail(String),
    /// It panics with this message.
    Panic(String),
    /// It does not end.
    Hang,
}

/// The fates of the next builds of a service, in order; after them it is built. Clones are the same script.
///
/// ```
/// use mainstay::{Fate, Restart, Script, Stage};
/// use std::time::Duration;
///
/// let mut stage = Stage::new(1)?;
/// let port = stage.registry.register::<u16>("port")?;
/// let restart = Restart::default().without_jitter().build_timeout(Duration::from_secs(5));
/// let supervisor = stage.registry.supervise(port)?.restart(restart);
///
/// let script = Script::default();
/// script.push(Fate::Panic("no luck".into()));
/// script.push(Fate::Hang);
/// let builder = |_| async { Ok::<_, std::io::Error>(80) };
/// stage.run(supervisor.run(script.over(builder)));
///
/// stage.advance(Duration::from_secs(10));
/// assert_eq!(*stage.registry.get(port)?, 80);
/// stage.recorder.assert_order(&[
///     "port 0: given up: the build panicked: no luck",
///     "port 0: given up: not built within 5s",
///     "port 0: ready",
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Script(Arc<Mutex<VecDeque<Fate>>>);

type Built<T> = Pin<Box<dyn Future<Output = Result<T, Box<dyn Error + Send + Sync>>> + Send>>;

impl Script {
    /// The fate of one more build, after those that are there.
    ///
    /// ```
    /// mainstay::Script::default().push(mainstay::Fate::Hang);
    /// ```
    pub fn push(&self, fate: Fate) {
        lock(&self.0).push_back(fate);
    }

    /// An async builder that goes by the script, and then as this one.
    ///
    /// ```
    /// # use mainstay::{Build, Script};
    /// # async fn open(build: Build<u16>) -> Result<u16, std::io::Error> { Ok(80) }
    /// # let mut stage = mainstay::Stage::new(1)?;
    /// # let port = stage.registry.register::<u16>("port")?;
    /// # let supervisor = stage.registry.supervise(port)?;
    /// let run = supervisor.run(Script::default().over(open));
    /// # stage.run(run);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn over<T, F, B, E>(
        &self,
        mut builder: F,
    ) -> impl FnMut(Build<T>) -> Built<T> + use<T, F, B, E>
    where
        T: Send + Sync + 'static,
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let script = self.clone();
        move |build| {
            let fate = lock(&script.0).pop_front().unwrap_or(Fate::Build);
            match fate {
                Fate::Build => {
                    let built = builder(build);
                    Box::pin(async move { built.await.map_err(Into::into) })
                }
                Fate::Fail(error) => Box::pin(async move { Err(error.into()) }),
                Fate::Panic(message) => Box::pin(async move { panic!("{message}") }),
                Fate::Hang => Box::pin(std::future::pending()),
            }
        }
    }
}
