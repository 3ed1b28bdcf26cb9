//! Reaching one endpoint: name, TCP, TLS, HTTP/2, all within the dial timeout.
//!
//! The channel that gRPC runs on is given a connector of our own, because the faults of a connection
//! matter here: they come back as [`DialError`], a value, where the library would only have a text.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Uri};
use tower::Service;

use crate::endpoint::{Endpoint, Scheme, Target};
use crate::options::{ConnectOptions, KEEPALIVE_TIME_MIN};
use crate::tls::{Encrypted, FaultSlot, TlsFault, TlsSetupError, client_config};

/// HTTP/2 flow control windows: what the server may send before it must wait for us.
///
/// On loopback a snapshot of 615 MB took 1.6 s with windows of 64 KiB, 1.3 s from 256 KiB on, and no
/// less up to 16 MiB; there the server's own work is the limit. Over a network, window / round trip
/// is a limit too: 4 MiB carry 400 MB/s over 10 ms. More would only be memory, since this much may
/// wait here when the disk is slow.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
const _: () = assert!(CONNECTION_WINDOW_BYTES >= STREAM_WINDOW_BYTES);

/// A name with several addresses: how long one may try before the next joins in (RFC 8305).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Why an endpoint could not be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The host's name is unknown.
    #[error("cannot look up the host {host:?}")]
    Name {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No connection: refused, no route, or the like.
    #[error("cannot connect to {to}")]
    Connect {
        /// The address or socket file.
        to: String,
        /// Why.
        source: io::Error,
    },
    /// The two sides do not agree on TLS.
    #[error(transparent)]
    Tls(TlsFault),
    /// The certificates of this side cannot be used.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The connection broke during the TLS handshake.
    #[error("the connection broke during the TLS handshake")]
    Handshake(#[source] io::Error),
    /// The host cannot stand in a certificate.
    #[error("{host:?} is not a name or address that a certificate can hold")]
    ServerName {
        /// The host.
        host: String,
    },
    /// No answer in time.
    #[error("no answer within {}", seconds(*.after))]
    TimedOut {
        /// The dial timeout.
        after: Duration,
    },
    /// HTTP/2 could not be set up.
    #[error("cannot speak HTTP/2 with the server")]
    Http2(#[source] tonic::transport::Error),
}

impl DialError {
    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Name { .. } | Self::ServerName { .. } => "check the host's name",
            Self::Connect { .. } => "check that etcd runs there, and the port",
            Self::Tls(fault) => fault.remedy(),
            Self::Setup(error) => error.remedy(),
            Self::Handshake(_) => "write the endpoint as http://HOST:PORT if the server has no TLS",
            Self::TimedOut { .. } => "check the address and the network, or raise --dial-timeout",
            Self::Http2(_) => {
                "check that this is etcd's client port, and http or https in the endpoint"
            }
        }
    }
}

pub(crate) fn seconds(duration: Duration) -> impl fmt::Display {
    format!("{} s", duration.as_secs_f64())
}

/// Everything needed to reach endpoints. Certificates are read once, before the first connection.
pub(crate) struct Dialer {
    options: ConnectOptions,
    tls: OnceLock<TlsConnector>,
}

impl Dialer {
    /// Reads the certificates that the options name.
    pub(crate) fn new(options: ConnectOptions) -> Result<Self, TlsSetupError> {
        let dialer = Self { options, tls: OnceLock::new() };
        if dialer.options.tls.names_a_file() {
            dialer.tls()?;
        }
        Ok(dialer)
    }

    pub(crate) fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Connects. The channel reconnects by itself when the connection is lost later.
    /// TLS faults that show up later are left in `faults`.
    pub(crate) async fn dial(
        &self,
        endpoint: &Endpoint,
        faults: FaultSlot,
    ) -> Result<Channel, Arc<DialError>> {
        let after = self.options.dial_timeout;
        let connector = self.connector(endpoint, faults)?;
        let connecting = tonic::transport::Endpoint::from(endpoint.uri(connector.tls.is_some()))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(self.options.keepalive_time.max(KEEPALIVE_TIME_MIN))
            .keep_alive_timeout(self.options.keepalive_timeout)
            .keep_alive_while_idle(false);
        match timeout(after, connecting.connect_with_connector(connector)).await {
            Err(_) => Err(Arc::new(DialError::TimedOut { after })),
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => {
                Err(DialFailure::find(&error).unwrap_or_else(|| Arc::new(DialError::Http2(error))))
            }
        }
    }

    fn connector(&self, endpoint: &Endpoint, faults: FaultSlot) -> Result<Connector, DialError> {
        let tls = match endpoint.target() {
            Target::Tcp { host, .. } if speaks_tls(endpoint, &self.options) => {
                let name = self.options.tls.server_name.as_ref().unwrap_or(host);
                let name = ServerName::try_from(name.clone())
                    .map_err(|_| DialError::ServerName { host: name.clone() })?;
                Some((self.tls()?, name))
            }
            _ => None,
        };
        let shows_certificate = self.options.tls.identity.is_some();
        Ok(Connector { target: endpoint.target().clone(), tls, shows_certificate, faults })
    }

    fn tls(&self) -> Result<TlsConnector, TlsSetupError> {
        if let Some(built) = self.tls.get() {
            return Ok(built.clone());
        }
        let built = TlsConnector::from(Arc::new(client_config(&self.options.tls)?));
        Ok(self.tls.get_or_init(|| built).clone())
    }
}

fn speaks_tls(endpoint: &Endpoint, options: &ConnectOptions) -> bool {
    match endpoint.scheme() {
        Scheme::Tls => true,
        Scheme::Plain => false,
        Scheme::Unsaid => options.tls.names_a_file() || !options.insecure_transport,
    }
}

/// What a channel calls for each connection that it makes.
#[derive(Clone)]
struct Connector {
    target: Target,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    shows_certificate: bool,
    faults: FaultSlot,
}

impl Connector {
    async fn connect(self) -> Result<Stream, DialError> {
        let socket: Box<dyn Socket> = match &self.target {
            Target::Tcp { host, port } => Box::new(connect_tcp(host, *port).await?),
            Target::Unix(path) => Box::new(connect_unix(path).await?),
        };
        let Some((connector, name)) = self.tls else {
            return Ok(TokioIo::new(socket));
        };
        self.faults.set(None);
        match connector.connect(name, socket).await {
            Ok(stream) => {
                let encrypted = Encrypted::new(stream, self.faults, self.shows_certificate);
                Ok(TokioIo::new(Box::new(encrypted)))
            }
            Err(error) => Err(match TlsFault::of(&error, self.shows_certificate) {
                Some(fault) => DialError::Tls(fault),
                None => DialError::Handshake(error),
            }),
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = DialFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, DialFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), DialFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async { connector.connect().await.map_err(|error| DialFailure(Arc::new(error))) })
    }
}

/// A [`DialError`] on its way through the channel, which passes errors on by reference only.
#[derive(Clone, Debug)]
pub(crate) struct DialFailure(Arc<DialError>);

impl DialFailure {
    pub(crate) fn find(error: &(dyn Error + 'static)) -> Option<Arc<DialError>> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(Self(found)) = error.downcast_ref() {
                return Some(Arc::clone(found));
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for DialFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// A connected stream of bytes, whatever it is made of.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

type Stream = TokioIo<Box<dyn Socket>>;

async fn connect_unix(path: &Path) -> Result<UnixStream, DialError> {
    UnixStream::connect(path)
        .await
        .map_err(|source| DialError::Connect { to: path.display().to_string(), source })
}

/// Connects to the first address of a host that answers; a slow one does not hold up the next.
async fn connect_tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let unknown = |source| DialError::Name { host: host.to_owned(), source };
    let addresses = lookup_host((host, port)).await.map_err(unknown)?;
    let mut attempts = JoinSet::new();
    for (before, address) in (0..).zip(addresses) {
        attempts.spawn(async move {
            sleep(NEXT_ADDRESS_AFTER * before).await;
            connect_address(address).await
        });
    }
    let mut failed = None;
    while let Some(attempt) = attempts.join_next().await {
        match attempt.expect("attempts neither panic nor are aborted") {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| unknown(io::ErrorKind::NotFound.into())))
}

async fn connect_address(address: SocketAddr) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Connect { to: address.to_string(), source };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
