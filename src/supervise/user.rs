//! What is the user's, called so that no panic of it leaves the loop: builders and hooks.

use std::{
    any::Any,
    error::Error,
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    thread,
    time::Duration,
};

use futures_lite::FutureExt;

use super::Build;
use crate::sync::Shielded;

/// Why a build led to nothing, where its builder has not said why.
///
/// It is the reason of the [`Failure`](crate::Failure) that the next build is told of.
///
/// ```
/// use mainstay::{Reason, Registry, TryError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// std::thread::spawn(|| {
///     supervisor.run_blocking(|build| match build.last_failure() {
///         None => panic!("no port at all"),
///         Some(failure) => match &failure.reason {
///             Reason::Error(error) if error.is::<TryError>() => Ok::<u16, TryError>(error.to_string().len() as u16),
///             other => unreachable!("{other}"),
///         }
///     })
/// });
/// assert_eq!(**registry.wait_ready(port).wait()?, "the build panicked: no port at all".len() as u16);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryError {
    /// The builder panicked.
    #[error("the build panicked: {message}")]
    Panicked {
        /// What it said, as far as that is text.
        message: String,
    },
    /// It took longer than [`Restart::build_timeout`](crate::Restart::build_timeout) allows.
    #[error("not built within {after:?}")]
    TimedOut {
        /// How long it was given.
        after: Duration,
    },
}

impl TryError {
    pub(super) fn timed_out(timeout: Option<Duration>) -> Self {
        Self::TimedOut { after: timeout.unwrap_or_default() }
    }

    fn panicked(payload: Box<dyn Any + Send>) -> Self {
        let payload = Shielded::new(payload);
        let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Panicked { message: text.unwrap_or_else(|| "it did not say why".into()) }
    }
}

/// A user's builder: it may panic in a call, in a poll, and when it or what it gave is dropped.
pub(super) struct Builder<F>(Shielded<F>);

impl<F> Builder<F> {
    pub(super) fn new(builder: F) -> Self {
        Self(Shielded::new(builder))
    }

    pub(super) async fn build<T, B, E>(
        &mut self,
        build: Build<T>,
    ) -> Result<T, Box<dyn Error + Send + Sync>>
    where
        T: Send + Sync + 'static,
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let built = call(|| (*self.0)(build)).await;
        let built = built.map(|built| built.map_err(Into::into));
        built.unwrap_or_else(|payload| Err(TryError::panicked(payload).into()))
    }
}

/// Calls something of the user's, and drives what that gives: whatever panics, on the way or as it is dropped, ends
/// here.
pub(super) async fn call<B: Future>(user: impl FnOnce() -> B) -> thread::Result<B::Output> {
    let driven = async {
        let mut future = Shielded::new(Box::pin(user()));
        poll_fn(|context| future.as_mut().poll(context)).await
    };
    AssertUnwindSafe(driven).catch_unwind().await
}
