//! Providing a service: the role, an attempt and its dependencies, a published instance; constants.

mod attempt;
mod constant;
mod dependency;
#[cfg(feature = "supervise")]
mod drain;
mod provider;
#[cfg(feature = "supervise")]
mod receiver;
mod running;
mod waiting_for;
mod watch;
#[cfg(feature = "stream")]
mod watch_stream;

#[cfg(feature = "supervise")]
pub use self::drain::Drained;
#[cfg(feature = "supervise")]
pub(crate) use self::receiver::Receiver;
#[cfg(feature = "stream")]
pub use self::watch_stream::WatchStream;
pub use self::{
    attempt::Attempt,
    dependency::{WaitFor, WaitForAny},
    provider::{Begin, Provider},
    running::{Failed, Invalidated, Running},
    waiting_for::WaitingFor,
    watch::{Changed, Watch, WatchEvent},
};
#[cfg(feature = "supervise")]
pub(crate) use self::{
    dependency::{DependencyId, DependencyWait},
    drain::{AllDrained, Readers},
    running::GenerationEnded,
};

/// Implements `Debug` with the name of the service, and without its value: it need not be `Debug`.
macro_rules! debug_by_service {
    ($($type:ident $(, $generation:ident)?;)+) => {
        $(impl<T: Send + Sync + 'static> std::fmt::Debug for $type<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                debug.field("service", &self.registry.store().name(self.id.index()));
                $(debug.field("generation", &self.$generation);)?
                debug.finish()
            }
        })+
    };
}

pub(crate) use debug_by_service;
