//! Calls builders and close hooks, and catches their panics, so that none of them ends the loop.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    thread,
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{Build, BuildOutput, output::UserError};
use crate::{
    failure::Reason,
    registry::WorkEnd,
    sync::{Shielded, shielded},
};

/// The reason of a failed build whose builder did not return an error itself.
///
/// The [`Failure`](crate::Failure) that the next build receives
/// ([`Build::last_failure`](crate::supervise::Build::last_failure)) contains it as
/// [`Reason::Error`](crate::Reason::Error).
///
/// ```
/// use mainstay::{Reason, Registry, supervise::BuildFailure};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// std::thread::spawn(|| {
///     supervisor.run_blocking(|build| match build.last_failure() {
///         None => panic!("no port is free"),
///         Some(failure) => {
///             let Reason::Error(error) = &failure.reason else { unreachable!() };
///             assert_eq!(error.to_string(), "the build panicked: no port is free");
///             assert!(error.is::<BuildFailure>());
///             Ok::<_, BuildFailure>(80)
///         }
///     })
/// });
/// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildFailure {
    /// The builder panicked.
    #[error("the build panicked: {message}")]
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// The build took longer than
    /// [`RestartPolicy::build_timeout`](crate::supervise::RestartPolicy::build_timeout).
    #[error("not built within {after:?}")]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
    /// The build was one for a reload, which is over before it. This is no failure of the service:
    /// [`Build::invalidated`](crate::supervise::Build::invalidated) returns it.
    #[error("the reload is over")]
    Abandoned,
}

impl BuildFailure {
    pub(super) fn timed_out(timeout: Option<Duration>) -> Self {
        Self::TimedOut { after: timeout.unwrap_or_default() }
    }

    fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked { message: panic_message(payload) }
    }
}

/// The reason of an instance whose body has ended without a reason of its own.
///
/// The [`Failure`](crate::Failure) of the instance contains it as
/// [`Reason::Error`](crate::Reason::Error).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyFailure {
    /// The body panicked.
    #[error("its body panicked: {message}")]
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// The body returned, and did not say that the service stays ready
    /// ([`BodyEnd`](crate::supervise::BodyEnd)).
    #[error("its body returned")]
    Returned,
    /// The body was notified, and has not returned within
    /// [`RestartPolicy::stop_timeout`](crate::supervise::RestartPolicy::stop_timeout). This is no
    /// failure of the instance: it is reported.
    #[error("its body did not return within {after:?}")]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
}

impl BodyFailure {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked { message: panic_message(payload) }
    }
}

/// The error of a close hook that has ended without an error of its own; the event
/// [`HookFailed`](crate::EventKind::HookFailed) contains it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseFailure {
    /// The close hook panicked.
    #[error("the close hook panicked: {message}")]
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// The close hook took longer than
    /// [`RestartPolicy::close_timeout`](crate::supervise::RestartPolicy::close_timeout). Or it was
    /// not called, because a reader has moved the instance out of its `Arc`, and has not dropped it
    /// in time.
    #[error("not closed within {after:?}")]
    TimedOut {
        /// The timeout.
        after: Duration,
    },
}

impl CloseFailure {
    pub(super) fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self::Panicked { message: panic_message(payload) }
    }
}

/// Returns the message of a panic, and drops its payload.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let payload = Shielded::new(payload);
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the message is not text".into())
}

/// Returns how a body or a close hook has ended, which has failed for this reason.
pub(super) fn work_end(failed: Option<&Reason>) -> WorkEnd {
    let Some(reason) = failed else { return WorkEnd::Returned };
    if let Reason::Error(error) = reason {
        match (error.downcast_ref(), error.downcast_ref()) {
            (Some(BodyFailure::Panicked { message }), _)
            | (_, Some(CloseFailure::Panicked { message })) => {
                return WorkEnd::Panicked { message: message.clone() };
            }
            (Some(BodyFailure::TimedOut { .. }), _) | (_, Some(CloseFailure::TimedOut { .. })) => {
                return WorkEnd::Late;
            }
            _ => {}
        }
    }
    // The text is user code.
    let mut message = String::from("the text of the error panicked");
    shielded(|| message = reason.to_string());
    WorkEnd::Failed { message }
}

/// The builder of the user, which may panic in a call, in a poll of its future, and in the `Drop`
/// of both.
pub(super) struct UserBuilder<F>(Shielded<F>);

impl<F> UserBuilder<F> {
    pub(super) fn new(builder: F) -> Self {
        Self(Shielded::new(builder))
    }

    /// Runs one build. A panic is returned as a [`BuildFailure`].
    pub(super) async fn build<T, O>(&mut self, build: Build<T>) -> Result<T, UserError>
    where
        T: Send + Sync + 'static,
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        // The conversion of the output is user code, too.
        let result = UserFuture::new(async { (*self.0)(build).await.into_result() }).await;
        result.unwrap_or_else(|payload| Err(BuildFailure::panicked(payload).into()))
    }
}

pin_project! {
    /// A future of the user. A panic of a poll is returned; a panic in its `Drop` is caught and
    /// discarded.
    pub(super) struct UserFuture<F> {
        // `None` only during the drop.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for UserFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut future = this.project().future;
            shielded(|| future.set(None));
        }
    }
}

impl<F> UserFuture<F> {
    pub(super) fn new(future: F) -> Self {
        Self { future: Some(future) }
    }
}

impl<F: Future> Future for UserFuture<F> {
    type Output = thread::Result<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.project().future.as_pin_mut() else { return Poll::Pending };
        // Unwind safe: after a panic, the future is not polled again. A function of the user that
        // is called again after a panic is responsible for its own state.
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(polled) => polled.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    }
}
