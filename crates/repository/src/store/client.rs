//! How requests reach a remote store: one HTTP client per store, its trust, its patience.
//!
//! * TLS is rustls with the `ring` provider, given to this client and not to the process. Trusted are this machine's
//!   authorities and the `ca` of the store.
//! * A certificate that is not trusted is not tried again; other failures of the way are, by OpenDAL's retries.
//! * A store that has never answered is [waited for](super::contact) less long than one that has.
//! * Machines of a cloud find credentials at addresses that answer at once or, elsewhere, never. Such a
//!   request gets two seconds, and after a failure none for a minute.

use super::{
    StoreError,
    contact::{Contact, QUIET},
    options::RemoteLocation,
};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter};
use opendal_http_transport_reqwest::ReqwestTransport;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long until a host that does not answer at all counts as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// As many as manifests are read at once: those of a burst that has ended serve the next.
const IDLE_CONNECTIONS_MAX: usize = crate::listing::PARALLEL;

/// How long a metadata service is waited for: it is on the same machine.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a metadata service that did not answer is not asked again.
const METADATA_PAUSE: Duration = Duration::from_secs(60);

/// Where providers tell machines their credentials.
const METADATA_HOSTS: [&str; 7] = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "[fd00:ec2::254]",
    "[fd00:ec2::23]",
    "metadata.google.internal",
    "100.100.100.200",
];

/// The transport for a store, which waits `patience` for each answer.
pub(super) fn transport(
    location: &RemoteLocation,
    patience: Duration,
    contact: Arc<Contact>,
) -> Result<HttpTransporter, StoreError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls(location)?)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(patience)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = client.map_err(|e| location.bad("endpoint", e.without_url().to_string()))?;
    let transport = HttpTransporter::new(Transport {
        inner: ReqwestTransport::new(client),
        contact,
        metadata_failed: Mutex::new(None),
    });
    // Taking over a role at STS goes through the process's transport. The first one stays.
    HttpTransporter::install_default(transport.clone());
    Ok(transport)
}

fn tls(location: &RemoteLocation) -> Result<rustls::ClientConfig, StoreError> {
    let mut roots = rustls::RootCertStore::empty();
    // Authorities that cannot be read or parsed are not trusted, which is all there is to say.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = location.get("ca") {
        let bad = |reason: String| location.bad("ca", format!("{file}: {reason}"));
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
        let mut count = 0;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| bad(e.to_string()))?;
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(bad("it holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring knows these versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

struct Transport {
    inner: ReqwestTransport,
    contact: Arc<Contact>,
    metadata_failed: Mutex<Option<Instant>>,
}

impl HttpTransport for Transport {
    async fn fetch(
        &self,
        request: http::Request<Buffer>,
    ) -> opendal::Result<http::Response<HttpBody>> {
        let host = request.uri().host().unwrap_or_default();
        if METADATA_HOSTS.contains(&host) {
            return self.ask_metadata(request).await;
        }
        let mut response = self.ask(request).await?;
        // OpenDAL sorts only 403 as a refusal.
        if response.status() == http::StatusCode::UNAUTHORIZED {
            *response.status_mut() = http::StatusCode::FORBIDDEN;
        }
        Ok(response)
    }
}

impl Transport {
    /// Sends a request to the store, and tells if it has to be waited for.
    async fn ask(
        &self,
        request: http::Request<Buffer>,
    ) -> opendal::Result<http::Response<HttpBody>> {
        let place = place(request.uri());
        let is_first = self.contact.begins();
        let mut asked = pin!(self.inner.fetch(request));
        let answer = match is_first {
            false => asked.await,
            true => match tokio::time::timeout(QUIET, &mut asked).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.contact.waits(place.clone(), None);
                    asked.await
                }
            },
        };
        match answer {
            Ok(response) => {
                self.contact.answered();
                Ok(response)
            }
            Err(error) if is_distrust(&error) || self.contact.is_given_up() => {
                Err(error.set_permanent())
            }
            Err(error) => {
                self.contact.waits(place, Some(root_cause(&error)));
                Err(error)
            }
        }
    }

    async fn ask_metadata(
        &self,
        request: http::Request<Buffer>,
    ) -> opendal::Result<http::Response<HttpBody>> {
        let failed = || self.metadata_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let absent = || Error::new(ErrorKind::Unexpected, "no metadata service answers here");
        if failed().is_some_and(|at| at.elapsed() < METADATA_PAUSE) {
            return Err(absent());
        }
        match tokio::time::timeout(METADATA_TIMEOUT, self.inner.fetch(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e)) => {
                *failed() = Some(Instant::now());
                Err(e.set_permanent())
            }
            Err(_) => {
                *failed() = Some(Instant::now());
                Err(absent())
            }
        }
    }
}

/// Where a request goes; nothing of what it asks for, which can be signed.
fn place(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}", uri.scheme_str().unwrap_or("http"))
}

/// The innermost cause, which names no request.
fn root_cause(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    if cause.is::<Error>() || cause.is::<reqwest::Error>() {
        return "no answer".to_owned();
    }
    cause.to_string()
}

/// Whether the other side's certificate is the reason.
fn is_distrust(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // rustls hides in an io::Error, which does not show it as its source.
        let hidden = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = match hidden {
            Some(hidden) => hidden.downcast_ref::<rustls::Error>(),
            None => error.downcast_ref::<rustls::Error>(),
        };
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}
