//! How to connect: everything that etcdctl's connection flags say, as plain values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// gRPC servers drop clients that ping too often: etcd wants at least 5 s between pings, and the
/// official client never goes below 10 s, whatever its flag says.
pub(crate) const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);

/// How to reach and enter a cluster. The defaults are etcdctl's, made for a person who waits.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Certificates, and what is checked of the server's.
    pub tls: TlsOptions,
    /// An endpoint without a scheme is plain, unless [`tls`](Self::tls) names a file.
    pub insecure_transport: bool,
    /// Who we are, where authentication is on.
    pub credentials: Option<Credentials>,
    /// The longest time to connect to one endpoint: name, TCP, TLS and HTTP/2.
    pub dial_timeout: Duration,
    /// The longest time for one short request.
    pub command_timeout: Duration,
    /// Silence after which the server is pinged while a request is open. Less than 10 s counts as 10 s.
    pub keepalive_time: Duration,
    /// How long an answer to that ping may take.
    pub keepalive_timeout: Duration,
    /// The longest silence inside a snapshot stream.
    pub stall_timeout: Duration,
}

/// Certificates and checks. Nothing set means the roots of the system and no client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// A PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and its key.
    pub identity: Option<Identity>,
    /// Accept any server. For tests only: whoever sits in the middle reads everything.
    pub skip_verify: bool,
    /// The name to expect in the server's certificate, instead of the endpoint's host.
    pub server_name: Option<String>,
}

/// A client certificate: two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// A user of etcd's own authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password; never shown by `Debug`.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            tls: TlsOptions::default(),
            insecure_transport: true,
            credentials: None,
            dial_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_secs(5),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl ConnectOptions {
    /// For what runs when nobody waits at a terminal: a member that is busy, or without a leader for a moment, is worth
    /// waiting for.
    pub fn unattended() -> Self {
        Self {
            dial_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(15),
            ..Self::default()
        }
    }
}

impl TlsOptions {
    /// Whether a file is named, which makes endpoints without a scheme speak TLS.
    pub(crate) fn names_a_file(&self) -> bool {
        self.ca.is_some() || self.identity.is_some() || self.server_name.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn a_password_is_not_shown_when_options_are_printed() {
        let credentials = Credentials { user: "root".to_owned(), password: "secret".to_owned() };
        let shown = format!("{credentials:?}");
        assert!(shown.contains("root") && !shown.contains("secret"), "{shown}");
    }
}
