//! A payment provider, to which the shop talks.

use std::{
    collections::BTreeMap,
    future::pending,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    routing::{get, post},
};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};

pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<Book>,
    server: JoinHandle<()>,
}

/// What the provider remembers while it is away.
pub(crate) struct Stopped {
    address: SocketAddr,
    state: Arc<Book>,
}

#[derive(Default)]
struct Book {
    paid: Mutex<BTreeMap<i64, u64>>,
    hangs: AtomicBool,
    asked: Notify,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, Arc::default())
    }

    fn on(listener: TcpListener, state: Arc<Book>) -> Self {
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/payments/{number}", post(pay))
            .with_state(Arc::clone(&state));
        let server = async move { axum::serve(listener, router).await.unwrap() };
        Self { address, state, server: tokio::spawn(server) }
    }

    /// Returns the configuration of a shop that uses it.
    pub(crate) fn config(&self) -> String {
        format!("connections = 4\npayments = \"http://{}\"\n", self.address)
    }

    /// Returns the cents of each order.
    pub(crate) fn paid(&self) -> BTreeMap<i64, u64> {
        self.state.paid.lock().unwrap().clone()
    }

    /// Answers no payment from now on.
    pub(crate) fn hang(&self) {
        self.state.hangs.store(true, Ordering::SeqCst);
    }

    /// Waits until there was a payment that is not answered.
    pub(crate) async fn until_asked(&self) {
        self.state.asked.notified().await;
    }

    /// Refuses connections from now on.
    pub(crate) async fn stop(self) -> Stopped {
        self.server.abort();
        let _ = self.server.await;
        Stopped { address: self.address, state: self.state }
    }
}

impl Stopped {
    pub(crate) async fn start_again(self) -> Provider {
        Provider::on(TcpListener::bind(self.address).await.unwrap(), self.state)
    }
}

async fn pay(State(book): State<Arc<Book>>, Path(number): Path<i64>, cents: String) {
    if book.hangs.load(Ordering::SeqCst) {
        book.asked.notify_one();
        pending().await
    }
    let before = book.paid.lock().unwrap().insert(number, cents.parse().unwrap());
    assert_eq!(before, None, "order {number} is paid twice");
}
