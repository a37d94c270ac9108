//! What builders, bodies and close hooks may return.

use std::error::Error;

/// The error of a user's builder, body or close hook.
pub(super) type UserError = Box<dyn Error + Send + Sync>;

/// What a builder may return for a service of type `T`: a `T`, a [`Result`] of one with any error,
/// or one of the two as [`Completed`].
///
/// An error that contains a [`Permanent`](crate::supervise::Permanent) says that building again
/// does not help.
///
/// This trait is sealed: it is implemented for the types above.
///
/// ```
/// use mainstay::Registry;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(2)?;
/// let port = registry.register::<u16>("port")?;
/// let host = registry.register::<String>("host")?;
/// tokio::spawn(registry.supervise(port)?.run(async |_| "80".parse::<u16>()));
/// tokio::spawn(registry.supervise(host)?.run(async |_| "localhost".to_string()));
/// assert_eq!(**registry.wait_ready(port).await?, 80);
/// assert_eq!(**registry.wait_ready(host).await?, "localhost");
/// # registry.close();
/// # Ok(())
/// # }
/// ```
pub trait BuildOutput<T>: sealed::BuildOutput<T> {}

impl<T, O: sealed::BuildOutput<T>> BuildOutput<T> for O {}

/// The value of a service whose work is done as soon as it is built: a schema that was migrated, a
/// directory that was cleaned.
///
/// The service is ready, with the state
/// [`Completed`](crate::supervise::SupervisorState::Completed), and no body is run. If it fails,
/// for example together with a hard dependency, it is built again.
///
/// ```
/// use mainstay::{Registry, supervise::{Completed, SupervisorState}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let schema = registry.register::<u32>("schema")?;
/// tokio::spawn(registry.supervise(schema)?.run(async |_| Completed("7".parse::<u32>())));
/// assert_eq!(**registry.wait_ready(schema).await?, 7);
/// let supervisor = registry.status(schema)?.supervisor.unwrap();
/// assert_eq!(supervisor.state, SupervisorState::Completed);
/// # registry.close();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completed<O>(pub O);

/// What a body may return: nothing, a [`BodyEnd`], or a [`Result`] of one of the two with any
/// error.
///
/// This trait is sealed: it is implemented for the types above.
pub trait BodyOutput: sealed::BodyOutput {}

impl<O: sealed::BodyOutput> BodyOutput for O {}

/// What a close hook or an [adoption](super::Supervisor::adopt) may return: nothing, or a
/// [`Result`] of nothing with any error.
///
/// This trait is sealed: it is implemented for the types above.
pub trait CloseOutput: sealed::CloseOutput {}

impl<O: sealed::CloseOutput> CloseOutput for O {}

/// Says that a service stays ready although its body has returned.
///
/// A body that returns anything else fails its instance.
///
/// ```
/// use mainstay::{Registry, supervise::BodyEnd};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let schema = registry.register::<u32>("schema")?;
/// let supervisor = registry.supervise(schema)?.body(async |live| {
///     println!("version {} is in place", **live.instance().ok_or("it has failed")?);
///     Ok::<_, &str>(BodyEnd::Completed)
/// });
/// tokio::spawn(supervisor.run(async |_| 7));
/// assert_eq!(**registry.wait_ready(schema).await?, 7);
/// # registry.close();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyEnd {
    /// The instance needs no body any more. It is ready until it fails.
    StayReady,
    /// The work of the service is done. It is ready until it fails, with the state
    /// [`Completed`](super::SupervisorState::Completed). If a hard dependency fails, the service is
    /// built again, and its body runs again.
    Completed,
}

pub(super) mod sealed {
    use super::{BodyEnd, Completed, UserError};

    pub trait BuildOutput<T> {
        /// A value says that the work of the service is done.
        const COMPLETES: bool = false;

        fn into_result(self) -> Result<T, UserError>;
    }

    impl<T> BuildOutput<T> for T {
        fn into_result(self) -> Result<T, UserError> {
            Ok(self)
        }
    }

    impl<T, E: Into<UserError>> BuildOutput<T> for Result<T, E> {
        fn into_result(self) -> Result<T, UserError> {
            self.map_err(Into::into)
        }
    }

    impl<T> BuildOutput<T> for Completed<T> {
        const COMPLETES: bool = true;

        fn into_result(self) -> Result<T, UserError> {
            Ok(self.0)
        }
    }

    // Not `Result<Completed<T>, E>`: then the compiler could not infer the type of the value in a
    // builder such as `|_| text.parse()`.
    impl<T, E: Into<UserError>> BuildOutput<T> for Completed<Result<T, E>> {
        const COMPLETES: bool = true;

        fn into_result(self) -> Result<T, UserError> {
            self.0.map_err(Into::into)
        }
    }

    pub trait BodyOutput {
        /// Returns `Ok(None)` if the body has returned without a reason to stay ready.
        fn into_result(self) -> Result<Option<BodyEnd>, UserError>;
    }

    impl BodyOutput for () {
        fn into_result(self) -> Result<Option<BodyEnd>, UserError> {
            Ok(None)
        }
    }

    impl BodyOutput for BodyEnd {
        fn into_result(self) -> Result<Option<BodyEnd>, UserError> {
            Ok(Some(self))
        }
    }

    impl<O: BodyOutput, E: Into<UserError>> BodyOutput for Result<O, E> {
        fn into_result(self) -> Result<Option<BodyEnd>, UserError> {
            self.map_err(Into::into)?.into_result()
        }
    }

    pub trait CloseOutput {
        fn into_result(self) -> Result<(), UserError>;
    }

    impl CloseOutput for () {
        fn into_result(self) -> Result<(), UserError> {
            Ok(())
        }
    }

    impl<E: Into<UserError>> CloseOutput for Result<(), E> {
        fn into_result(self) -> Result<(), UserError> {
            self.map_err(Into::into)
        }
    }
}
