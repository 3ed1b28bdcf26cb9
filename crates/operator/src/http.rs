//! Health and metrics over HTTP.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 while the process works |
//! | `/readyz` | 200 when it leads, or waits to; 503 before, while stopping, and while Kubernetes refuses to let it watch |
//! | `/metrics` | Prometheus |
//!
//! Connections are bounded in number and time, as the daemon's are.

use crate::context::Context;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};
use tokio::{net::TcpListener, task::AbortHandle};

#[derive(Clone)]
struct Served {
    context: Arc<Context>,
    ready: Arc<AtomicBool>,
}

/// A port that is open, until it is dropped.
pub(crate) struct Server {
    ready: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Server {
    /// Opens the port, and serves.
    pub(crate) async fn start(address: SocketAddr, context: Arc<Context>) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        tracing::info!(address = %listener.local_addr()?, "listening");
        let ready = Arc::new(AtomicBool::new(false));
        let served = Served { context, ready: ready.clone() };
        let router = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(served);
        let task = tokio::spawn(daemon::http::answer(listener, move || (None, router.clone())));
        Ok(Self { ready, task: task.abort_handle() })
    }

    /// What `/readyz` says from now on.
    pub(crate) fn ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn readyz(State(served): State<Served>) -> (StatusCode, String) {
    let is_ready = served.ready.load(Ordering::Acquire);
    match (is_ready, served.context.watches.refused(Instant::now())) {
        (true, None) => (StatusCode::OK, "ok\n".to_owned()),
        (true, Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
    }
}

async fn metrics(State(served): State<Served>, headers: HeaderMap) -> impl IntoResponse {
    let text = served.context.metrics.text();
    let wanted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let (kind, text) = daemon::metrics::negotiated(text, wanted.unwrap_or_default());
    ([(header::CONTENT_TYPE, kind)], text)
}
