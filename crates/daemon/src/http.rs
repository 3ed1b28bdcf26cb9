//! Health, metrics and state over HTTP.
//!
//! | path | answer | token |
//! | --- | --- | --- |
//! | `/healthz` | 200 while the process works | no |
//! | `/readyz` | 200 when settings are read and runners started; 503 before, and while stopping | no |
//! | `/metrics` | Prometheus: OpenMetrics for who accepts it, else the older text format | yes, if there is one |
//! | `/status` | every cluster in every repository, JSON | yes, if there is one |
//!
//! Connections are bounded in number and time, so that nobody who can reach the port can stop a backup.

use crate::{
    board::Board,
    config::{Http, Secret},
    metrics::negotiated,
    tls::TlsError,
};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;

/// Connections at once: a scraper, a probe and a person need a handful.
const CONNECTIONS_MAX: usize = 64;

/// For a TLS handshake and for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// For a whole connection: scrapers open a new one when it ends.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);

/// The pause after a failed accept, such as when no file descriptor is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Who may come in. Read again when settings are.
#[derive(Clone)]
pub struct Access {
    tls: Option<TlsAcceptor>,
    token: Option<Secret>,
}

/// Why nothing can be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("{path:?} cannot be read")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Access {
    /// Reads the files that the settings name.
    pub fn read(http: &Http) -> Result<Self, HttpError> {
        let token = match &http.token_file {
            Some(path) => Some(
                Secret::read(path)
                    .map_err(|source| HttpError::Token { path: path.clone(), source })?,
            ),
            None => None,
        };
        let tls = http.tls.as_ref().map(crate::tls::server).transpose()?.map(TlsAcceptor::from);
        Ok(Self { tls, token })
    }
}

/// What is served.
#[derive(Clone)]
struct Served {
    board: Arc<Board>,
    ready: Arc<AtomicBool>,
    token: Option<Secret>,
}

/// A port that is open.
pub struct Server {
    listener: TcpListener,
    board: Arc<Board>,
    ready: Arc<AtomicBool>,
}

impl Server {
    /// Opens the port.
    pub async fn bind(address: SocketAddr, board: Arc<Board>) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| HttpError::Listen { address, source })?;
        Ok(Self { listener, board, ready: Arc::default() })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> Arc<AtomicBool> {
        self.ready.clone()
    }

    /// Serves until it is dropped. Each new connection is let in by the newest `access`.
    pub async fn serve(self, access: watch::Receiver<Access>) {
        let Self { listener, board, ready } = self;
        answer(listener, || {
            let Access { tls, token } = access.borrow().clone();
            let served = Served { board: board.clone(), ready: ready.clone(), token };
            (tls, router(served))
        })
        .await;
    }
}

/// Answers each connection as `who` says when it comes; bounded in number and time.
pub async fn answer(listener: TcpListener, who: impl Fn() -> (Option<TlsAcceptor>, Router)) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("never closed");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (tls, router) = who();
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection(stream, tls, router)).await;
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router) {
    match tls {
        None => requests(stream, router).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                requests(stream, router).await;
            }
        }
    }
}

async fn requests(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // How a connection ends is the client's affair.
    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
}

fn router(served: Served) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route_layer(from_fn_with_state(served.clone(), with_token))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(served)
}

async fn metrics(State(served): State<Served>, headers: HeaderMap) -> impl IntoResponse {
    let metrics = served.board.scrape(jiff::Timestamp::now());
    let wanted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (kind, metrics) = negotiated(metrics, wanted);
    ([(header::CONTENT_TYPE, kind)], metrics)
}

async fn status(State(served): State<Served>) -> impl IntoResponse {
    let json = serde_json::to_string(&served.board.lines()).expect("plain data");
    ([(header::CONTENT_TYPE, "application/json")], json)
}

async fn readyz(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn with_token(
    State(served): State<Served>,
    headers: HeaderMap,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &served.token else { return next.run(request).await };
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    if is_same(given.as_bytes(), token.reveal().as_bytes()) {
        next.run(request).await
    } else {
        (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer")],
            "a bearer token is needed\n",
        )
            .into_response()
    }
}

/// Compares in a time that depends on lengths alone.
fn is_same(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given.iter().zip(wanted).fold(0, |differing, (a, b)| differing | (a ^ b));
    std::hint::black_box(differing) == 0 && given.len() == wanted.len() && !wanted.is_empty()
}

#[cfg(test)]
mod tests;
