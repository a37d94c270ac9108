//! `http`: the port on which the server listens. Its body accepts connections and answers requests.

use std::{io, net::SocketAddr};

use mainstay::supervise::Live;
use tokio::net::TcpListener;

use crate::{BoxError, Services, http};

/// A port that is open.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: std::net::TcpListener,
    pub(crate) address: SocketAddr,
}

impl Listener {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, BoxError> {
        let cannot_listen = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{address} is in use; choose another one, for example --listen 127.0.0.1:0")
            }
            _ => format!("cannot listen on {address}: {error}"),
        };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        let address = listener.local_addr()?;
        Ok(Self { listener: listener.into_std()?, address })
    }
}

/// Answers requests until the service must stop, then finishes the requests in progress. All that
/// they use is up until then.
pub(crate) async fn serve(live: Live<Listener>, services: Services) -> Result<(), BoxError> {
    let Some(instance) = live.instance() else { return Ok(()) };
    let listener = TcpListener::from_std(instance.listener.try_clone()?)?;
    drop(instance);
    let server = axum::serve(listener, http::router(services));
    let stopping = async move {
        let _ = live.stopping().await;
    };
    Ok(server.with_graceful_shutdown(stopping).await?)
}
