//! `WatchStream`: a watch as a stream.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::{FusedStream, Stream};

use super::watch::{ChangedCondition, Watch, WatchEvent};
use crate::{error::WatchError, waiting::Wait};

/// The states of one service, as a stream. [`Watch::into_stream`] returns it.
///
/// - **An item** is a state of the service that differs from the item before: ready, replaced or
///   failed. States between two polls may be skipped; the last one never is. So a slow consumer
///   gets the present state next, and no queue grows.
/// - **The end** comes when no other state can follow: the registry is closed, a shutdown has
///   stopped the service, or the service on whose behalf another one is
///   [watched](crate::Attempt::watch) has failed. A state that was not reported yet comes first.
///   [`ended`](Self::ended) says why.
/// - It is **cancel-safe**: a future of the next item that is dropped has taken no item. And it is
///   **fused**: after the end, each poll returns `None`.
///
/// ```
/// use futures_lite::StreamExt;
/// use mainstay::{Registry, WatchEvent, error::WatchError};
///
/// # pollster::block_on(async {
/// let registry = Registry::with_capacity(1)?;
/// let limit = registry.register::<u32>("limit")?;
/// let mut limits = registry.watch(limit)?.into_stream();
///
/// registry.constant(limit, 10)?;
/// assert!(matches!(limits.next().await, Some(WatchEvent::Ready(limit)) if **limit == 10));
/// registry.fail(limit, "no limits")?;
/// registry.close();
/// assert!(matches!(limits.next().await, Some(WatchEvent::Failed(_))));
/// assert!(limits.next().await.is_none());
/// assert!(matches!(limits.ended(), Some(WatchError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct WatchStream<D: Send + Sync + 'static> {
    wait: Wait<ChangedCondition<Box<Watch<D>>>>,
    ended: Option<WatchError>,
}

impl<D: Send + Sync + 'static> Watch<D> {
    /// Makes a stream of the states that [`changed`](Self::changed) would report from now on.
    ///
    /// Each item needs what `changed` needs, and no allocation; the stream itself needs one.
    ///
    /// ```
    /// use futures_lite::StreamExt;
    /// use mainstay::WatchEvent;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// registry.constant(port, 80)?;
    /// let mut ports = registry.watch(port)?.into_stream().filter_map(|event| match event {
    ///     WatchEvent::Ready(port) | WatchEvent::Replaced(port) => Some(**port),
    ///     WatchEvent::Failed(_) => None,
    /// });
    /// assert_eq!(pollster::block_on(ports.next()), Some(80));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_stream(self) -> WatchStream<D> {
        WatchStream { wait: Wait::new(ChangedCondition { watch: Box::new(self) }), ended: None }
    }
}

impl<D: Send + Sync + 'static> WatchStream<D> {
    /// Returns why the stream has ended; `None` if it has not.
    ///
    /// ```
    /// use futures_lite::StreamExt;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let mut ports = registry.watch(port)?.into_stream();
    /// assert!(ports.ended().is_none());
    /// registry.close();
    /// assert!(pollster::block_on(ports.next()).is_none());
    /// assert_eq!(
    ///     ports.ended().unwrap().to_string(),
    ///     "the watch of port has ended: the registry is closed"
    /// );
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ended(&self) -> Option<&WatchError> {
        self.ended.as_ref()
    }
}

impl<D: Send + Sync + 'static> Stream for WatchStream<D> {
    type Item = WatchEvent<D>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<WatchEvent<D>>> {
        if self.ended.is_some() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.wait).poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(event)) => {
                self.wait.restart();
                Poll::Ready(Some(event))
            }
            Poll::Ready(Err(ended)) => {
                self.ended = Some(ended);
                Poll::Ready(None)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.ended.is_some().then_some(0))
    }
}

impl<D: Send + Sync + 'static> FusedStream for WatchStream<D> {
    fn is_terminated(&self) -> bool {
        self.ended.is_some()
    }
}

impl<D: Send + Sync + 'static> fmt::Debug for WatchStream<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream")
            .field("watch", &self.wait.condition().watch)
            .field("ended", &self.ended)
            .finish()
    }
}
