//! `Closing`, which a close hook receives: a value at its end. And the close hook itself.

use std::{fmt, future::Future, ops::Deref, sync::Arc};

use super::{CloseFailure, CloseOutput, output::UserError, user_code::UserFuture};
use crate::{
    failure::{Failure, Reason},
    instance::{Instance, InstanceNumber},
    numbers::Generation,
    service::ServiceName,
    sync::Shielded,
};

/// A value of a service at its end, which a [close hook](crate::supervise::Supervisor::on_close)
/// receives. It dereferences to the value.
///
/// Most often the close hook owns the value: no reader has it, and none gets it. If readers still
/// held the instance when the [drain timeout](crate::supervise::RestartPolicy::drain_timeout) was
/// over, the close hook shares it with them. [`into_value`](Self::into_value) returns a value that
/// is owned.
///
/// Its own functions are associated functions, called as `Closing::reason(&closing)`, so that they
/// do not hide methods of the value.
///
/// ```
/// use mainstay::{Registry, supervise::Closing};
/// use std::{io::Write, time::Duration};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let log = registry.register::<std::io::BufWriter<Vec<u8>>>("log")?;
/// let supervisor = registry.supervise(log)?.on_close(async |closing| {
///     println!("generation {}: {}", Closing::generation(&closing), Closing::reason(&closing));
///     match Closing::into_value(closing) {
///         Ok(mut log) => log.flush().map_err(|error| error.to_string()),
///         Err(closing) => Err(format!("{} readers hold it", Closing::holders(&closing))),
///     }
/// });
/// tokio::spawn(supervisor.run(async |_| std::io::BufWriter::new(Vec::new())));
/// registry.wait_ready(log).await?;
/// let report = registry.shutdown(Duration::from_secs(30)).await;
/// assert_eq!(report.to_string(), "1 service stopped in time");
/// # Ok(())
/// # }
/// ```
pub struct Closing<T> {
    value: ClosingValue<T>,
    number: InstanceNumber,
    /// The last owner of the user's reason, perhaps. In a box, because this handle is moved.
    reason: Shielded<Box<CloseReason>>,
}

pub(super) enum ClosingValue<T> {
    Owned(Shielded<T>),
    Shared(Arc<Instance<T>>),
}

impl<T> Closing<T> {
    pub(super) fn new(value: ClosingValue<T>, number: InstanceNumber, reason: CloseReason) -> Self {
        Self { value, number, reason: Shielded::new(Box::new(reason)) }
    }

    pub(super) fn number(this: &Self) -> InstanceNumber {
        this.number
    }

    /// Returns the value, if no reader holds it. If one does, returns this handle unchanged: a
    /// reader may let go later.
    ///
    /// # Errors
    ///
    /// The handle: readers hold the instance.
    pub fn into_value(this: Self) -> Result<T, Self> {
        let Self { value, number, reason } = this;
        match value {
            ClosingValue::Owned(value) => Ok(value.into_inner()),
            ClosingValue::Shared(instance) => match Arc::try_unwrap(instance) {
                Ok(instance) => Ok(Instance::into_value(instance)),
                Err(instance) => {
                    Err(Self { value: ClosingValue::Shared(instance), number, reason })
                }
            },
        }
    }

    /// Returns the number of readers that hold the instance: references to it, without that of this
    /// handle. 0 if the value is owned. It can decrease at any time.
    pub fn holders(this: &Self) -> usize {
        match &this.value {
            ClosingValue::Owned(_) => 0,
            ClosingValue::Shared(instance) => Arc::strong_count(instance) - 1,
        }
    }

    /// Returns the generation under which the value was published.
    pub fn generation(this: &Self) -> Generation {
        this.number.generation
    }

    /// Returns how often the value had been [replaced](crate::supervise::Live::replace) in this
    /// generation before this value: 0 for the value of the builder.
    pub fn revision(this: &Self) -> u64 {
        this.number.revision
    }

    /// Returns the reason for the end of the value.
    pub fn reason(this: &Self) -> &CloseReason {
        &this.reason
    }
}

impl<T> Deref for Closing<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.value {
            ClosingValue::Owned(value) => value,
            ClosingValue::Shared(instance) => instance,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Closing<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closing")
            .field("generation", &self.number.generation)
            .field("revision", &self.number.revision)
            .field("holders", &Self::holders(self))
            .field("reason", &**self.reason)
            .field("value", &**self)
            .finish()
    }
}

/// The reason for the end of a value; returned by [`Closing::reason`].
///
/// `Display` writes one short phrase.
///
/// ```
/// use mainstay::supervise::CloseReason;
///
/// assert_eq!(CloseReason::Replaced.to_string(), "the value was replaced");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CloseReason {
    /// The instance has failed: the service itself was failed.
    Failed(Failure),
    /// The instance has failed together with a dependency, which is the root of the failure.
    DependencyFailed(Failure),
    /// The value was [replaced](crate::supervise::Live::replace). The generation may continue.
    Replaced,
    /// A service is being [restarted](crate::Registry::restart): this one, or one on which it
    /// depends.
    Restarted {
        /// The service that is being restarted.
        root: ServiceName,
        /// The reason that the caller has given.
        why: Arc<str>,
    },
    /// A service is being [stopped](crate::Registry::stop): this one, or one on which it depends.
    Stopped {
        /// The service that is being stopped.
        root: ServiceName,
    },
    /// It was the turn of the service in a [shutdown](crate::Registry::shutdown).
    ShutDown,
}

impl CloseReason {
    /// Returns the reason for the end of the last value of a generation.
    pub(super) fn of(failure: &Failure) -> Self {
        if failure.root != failure.service {
            return Self::DependencyFailed(failure.clone());
        }
        match &failure.reason {
            Reason::Restarted { root, why } => {
                Self::Restarted { root: root.clone(), why: Arc::clone(why) }
            }
            Reason::Stopped { root } => Self::Stopped { root: root.clone() },
            Reason::ShutDown => Self::ShutDown,
            _ => Self::Failed(failure.clone()),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) | Self::DependencyFailed(failure) => failure.fmt(f),
            Self::Replaced => f.write_str("the value was replaced"),
            Self::Restarted { root, why } => {
                Reason::Restarted { root: root.clone(), why: Arc::clone(why) }.fmt(f)
            }
            Self::Stopped { root } => Reason::Stopped { root: root.clone() }.fmt(f),
            Self::ShutDown => Reason::ShutDown.fmt(f),
        }
    }
}

/// The close hook of a supervisor, or none.
pub trait CloseHook<T: Send + Sync + 'static>: sealed::CloseHook<T> {}

impl<T: Send + Sync + 'static, H: sealed::CloseHook<T>> CloseHook<T> for H {}

pub(super) mod sealed {
    use super::{Closing, Future, UserError};

    pub trait CloseHook<T: Send + Sync + 'static> {
        /// Whether there is a close hook.
        const EXISTS: bool = true;

        /// Calls the close hook for one value.
        fn call(&mut self, closing: Closing<T>) -> impl Future<Output = Result<(), UserError>>;
    }
}

/// A supervisor without a close hook: the thread that drops the last reference to an instance drops
/// its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl<T: Send + Sync + 'static> sealed::CloseHook<T> for NoHook {
    const EXISTS: bool = false;

    async fn call(&mut self, _: Closing<T>) -> Result<(), UserError> {
        Ok(())
    }
}

/// The close hook of [`Supervisor::on_close`](super::Supervisor::on_close).
pub struct AsyncHook<F>(Shielded<F>);

impl<F> AsyncHook<F> {
    pub(super) fn new(hook: F) -> Self {
        Self(Shielded::new(hook))
    }
}

impl<T, F, O> sealed::CloseHook<T> for AsyncHook<F>
where
    T: Send + Sync + 'static,
    F: AsyncFnMut(Closing<T>) -> O,
    O: CloseOutput,
{
    async fn call(&mut self, closing: Closing<T>) -> Result<(), UserError> {
        // The conversion of the output is user code, too.
        let output = UserFuture::new(async { (*self.0)(closing).await.into_result() });
        output.await.unwrap_or_else(|payload| Err(CloseFailure::panicked(payload).into()))
    }
}
