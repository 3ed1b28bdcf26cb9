//! The TLS side of a connection: which roots are trusted, which certificate is shown, and what a
//! failed handshake means.
//!
//! With TLS 1.3 a server refuses the client's certificate only *after* the client's handshake is
//! done. The refusal then arrives under the first request, where HTTP/2 makes of it a connection that
//! broke for no reason; [`Encrypted`] keeps it in a [`FaultSlot`] before that happens.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::options::{Identity, TlsOptions};

/// gRPC runs on HTTP/2 only.
const ALPN_HTTP2: &[u8] = b"h2";

type Chain = Vec<CertificateDer<'static>>;

/// Why the TLS settings cannot be used; found before anything is sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {what} from {}", path.display())]
    File {
        /// What was expected in it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A PEM file without a certificate in it.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// An authority that cannot be used, such as one with a malformed certificate.
    #[error("cannot use an authority in {}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// Certificate and key do not fit together.
    #[error("cannot use the certificate {} with the key {}", cert.display(), key.display())]
    Identity {
        /// The certificate chain.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: Box<rustls::Error>,
    },
    /// Neither `--cacert` nor any root on this machine.
    #[error("this machine has no trusted authorities")]
    NoSystemRoots,
}

impl TlsSetupError {
    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::File { .. } => "check the path, the file's permissions, and that it is PEM",
            Self::NoCertificate { .. } => "give the PEM file that holds the certificate",
            Self::Authority { .. } => "check the file given with --cacert",
            Self::Identity { .. } => "give a certificate and a key that belong together",
            Self::NoSystemRoots => "name the cluster's authority with --cacert",
        }
    }
}

/// What went wrong between two sides that did reach each other.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// No trusted authority signed the server's certificate.
    #[error("the server's certificate is signed by an authority that is not trusted")]
    UnknownAuthority,
    /// The server's certificate has run out.
    #[error("the server's certificate has expired")]
    Expired,
    /// The server's certificate is not valid yet, or this machine's clock is slow.
    #[error("the server's certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for another name or address.
    #[error("the server's certificate is not for this host")]
    WrongHost,
    /// The server wants a client certificate and got none.
    #[error("the server asks for a client certificate")]
    ClientCertificateWanted,
    /// The server did not accept the client certificate that it got.
    #[error("the server does not accept the client certificate ({0:?})")]
    ClientCertificateRefused(AlertDescription),
    /// No protocol version, cipher or kind of key that both sides can.
    #[error("the two sides have no TLS version, cipher or kind of key in common")]
    NothingInCommon,
    /// The other side does not speak TLS.
    #[error("the server does not speak TLS here")]
    NotTls,
    /// Anything else, in the words of the TLS library.
    #[error("the TLS handshake failed: {0}")]
    Other(Box<rustls::Error>),
}

impl TlsFault {
    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownAuthority => {
                "give the authority that signed the server's certificate with --cacert"
            }
            Self::Expired => {
                "renew the server's certificate, and check the clocks of both machines"
            }
            Self::NotYetValid => "check the clocks of both machines",
            Self::WrongHost => "use a name or address that the server's certificate lists",
            Self::ClientCertificateWanted => "give a client certificate with --cert and --key",
            Self::ClientCertificateRefused(_) => {
                "give a client certificate of the authority that the server trusts, and check that it has not expired"
            }
            Self::NothingInCommon => {
                "give the server a certificate with an RSA, P-256, P-384 or Ed25519 key (etcd's --auto-tls makes P-521 keys)"
            }
            Self::NotTls => "write the endpoint as http://HOST:PORT if the server has no TLS",
            Self::Other(_) => "check the certificates of both sides",
        }
    }

    /// The fault behind an error of an encrypted stream, if it is one of TLS.
    pub(crate) fn of(error: &io::Error, shows_certificate: bool) -> Option<Self> {
        let fault = error.get_ref()?.downcast_ref::<rustls::Error>()?;
        Some(Self::from_rustls(fault, shows_certificate))
    }

    fn from_rustls(error: &rustls::Error, shows_certificate: bool) -> Self {
        use CertificateError as Certificate;
        match error {
            rustls::Error::InvalidCertificate(defect) => match defect {
                Certificate::UnknownIssuer => Self::UnknownAuthority,
                Certificate::Expired | Certificate::ExpiredContext { .. } => Self::Expired,
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    Self::WrongHost
                }
                _ if is_authority_as_server(error) => Self::UnknownAuthority,
                _ => Self::Other(Box::new(error.clone())),
            },
            rustls::Error::AlertReceived(alert) if is_about_certificate(*alert) => {
                if shows_certificate {
                    Self::ClientCertificateRefused(*alert)
                } else {
                    Self::ClientCertificateWanted
                }
            }
            rustls::Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion,
            ) => Self::NothingInCommon,
            rustls::Error::PeerIncompatible(_) => Self::NothingInCommon,
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other(Box::new(error.clone())),
        }
    }
}

/// Alerts by which servers refuse a client certificate. Go's TLS says `bad_certificate` also when
/// there was none.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// Where a fault that is found inside a running connection is kept for whoever reports it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultSlot(Arc<Mutex<Option<TlsFault>>>);

impl FaultSlot {
    pub(crate) fn get(&self) -> Option<TlsFault> {
        self.lock().clone()
    }

    /// A new connection begins with a clean slate.
    pub(crate) fn set(&self, fault: Option<TlsFault>) {
        *self.lock() = fault;
    }

    fn lock(&self) -> MutexGuard<'_, Option<TlsFault>> {
        self.0.lock().expect("nothing panics while it holds a plain value")
    }
}

/// An encrypted stream that remembers why the other side closed it.
pub(crate) struct Encrypted<S> {
    stream: TlsStream<S>,
    faults: FaultSlot,
    shows_certificate: bool,
    /// A failed write, held back until what the other side said before it is read.
    broken: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Encrypted<S> {
    pub(crate) fn new(stream: TlsStream<S>, faults: FaultSlot, shows_certificate: bool) -> Self {
        Self { stream, faults, shows_certificate, broken: None }
    }

    fn note(&self, error: &io::Error) {
        if let Some(fault) = TlsFault::of(error, self.shows_certificate) {
            self.faults.set(Some(fault));
        }
    }

    /// Runs one attempt to write.
    ///
    /// A write that fails is seldom the news: the alert that explains it waits to be read. The socket
    /// is dead by then, so reading comes to an end by itself.
    fn write_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TlsStream<S>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.broken.is_none() {
            match write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Err(error)) => self.broken = Some(error),
                written => return written,
            }
        }
        ready!(self.read_to_the_end(cx));
        Poll::Ready(Err(self.broken.take().expect("set above, or in the call before")))
    }

    fn read_to_the_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 1024];
        loop {
            let mut unread = ReadBuf::new(&mut unread);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut unread)) {
                Ok(()) if !unread.filled().is_empty() => {}
                Ok(()) => return Poll::Ready(()),
                Err(error) => {
                    self.note(&error);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read {
            self.note(error);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write_with(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write_with(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Reads the files and builds the configuration of all TLS connections.
pub(crate) fn client_config(options: &TlsOptions) -> Result<ClientConfig, TlsSetupError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring supports TLS 1.2 and 1.3");
    let builder = if options.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyServer::new(&provider)))
    } else {
        let verifier = TrustedServer::new(options.ca.as_deref(), provider)?;
        builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
    };
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = read_identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(|source| TlsSetupError::Identity {
                cert: identity.cert.clone(),
                key: identity.key.clone(),
                source: Box::new(source),
            })?
        }
    };
    config.alpn_protocols = vec![ALPN_HTTP2.to_vec()];
    Ok(config)
}

/// Trusts what the given authorities signed, and the given certificates themselves.
///
/// The second half is for clusters whose server certificate is self-signed and marked as an
/// authority, as `openssl req -x509` makes it, and is given as `--cacert`: Go accepts that, while
/// webpki never takes an authority for a server's own certificate.
#[derive(Debug)]
struct TrustedServer {
    chain: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl TrustedServer {
    fn new(ca: Option<&Path>, provider: Arc<CryptoProvider>) -> Result<Self, TlsSetupError> {
        let (roots, given) = match ca {
            Some(path) => authorities_in(path)?,
            None => (system_roots()?, Vec::new()),
        };
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .expect("there is at least one root, and no revocation list to be wrong");
        Ok(Self { chain, given })
    }
}

impl ServerCertVerifier for TrustedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.chain
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .or_else(|error| {
                // webpki looks at the dates before it looks at what the certificate may be used for.
                if is_authority_as_server(&error) && self.given.contains(end_entity) {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                    return Ok(ServerCertVerified::assertion());
                }
                Err(error)
            })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn is_authority_as_server(error: &rustls::Error) -> bool {
    let rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
    else {
        return false;
    };
    matches!(inner.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn authorities_in(path: &Path) -> Result<(RootCertStore, Chain), TlsSetupError> {
    let given = read_certificates("an authority", path)?;
    let mut roots = RootCertStore::empty();
    for authority in &given {
        roots.add(authority.clone()).map_err(|source| TlsSetupError::Authority {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    }
    Ok((roots, given))
}

fn system_roots() -> Result<RootCertStore, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(TlsSetupError::NoSystemRoots) } else { Ok(roots) }
}

/// Accepts any certificate. The handshake is still checked to be signed with that certificate's key.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl AnyServer {
    fn new(provider: &CryptoProvider) -> Self {
        Self(provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Chain, TlsSetupError> {
    let unreadable = |source| TlsSetupError::File { what, path: path.to_owned(), source };
    let certificates: Chain = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TlsSetupError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

fn read_identity(identity: &Identity) -> Result<(Chain, PrivateKeyDer<'static>), TlsSetupError> {
    let chain = read_certificates("the client certificate", &identity.cert)?;
    let key = PrivateKeyDer::from_pem_file(&identity.key).map_err(|source| {
        TlsSetupError::File { what: "the client key", path: identity.key.clone(), source }
    })?;
    Ok((chain, key))
}
