//! Endpoints: where a member listens for clients, as etcdctl's users write it.
//!
//! ```text
//! 127.0.0.1:2379           TLS if certificates were given, else plain
//! http://127.0.0.1:2379    plain, whatever was given
//! https://[::1]:2379/      TLS, whatever was given; a path is ignored
//! unix:///run/etcd.sock    plain, over a socket file
//! ```
//!
//! An endpoint is shown as it was written, so that messages and results speak the user's language.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tonic::transport::Uri;

/// The client port of etcd, for an endpoint that names none.
pub const DEFAULT_PORT: u16 = 2379;

/// A member's client address. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(Arc<Parsed>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Parsed {
    given: String,
    scheme: Scheme,
    target: Target,
}

/// What an endpoint says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// No scheme: the other options decide.
    Unsaid,
    Plain,
    Tls,
}

/// Where the bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// `host` is a name, an IPv4 address, or an IPv6 address without its brackets.
    Tcp {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Nothing was written.
    #[error("an endpoint is empty")]
    Empty,
    /// A scheme that etcd's clients do not know.
    #[error("endpoint {given:?} has the unknown scheme {scheme:?}")]
    Scheme {
        /// The text.
        given: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// Host or port cannot be read.
    #[error("endpoint {given:?} is not HOST:PORT")]
    Authority {
        /// The text.
        given: String,
    },
    /// `user@host`: credentials do not belong in an endpoint.
    #[error("an endpoint holds a user name or password")]
    Credentials,
}

impl EndpointError {
    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Credentials => "give the user with --user, not in the endpoint",
            Self::Empty | Self::Scheme { .. } | Self::Authority { .. } => {
                "write it as HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH"
            }
        }
    }
}

impl Endpoint {
    pub(crate) fn scheme(&self) -> Scheme {
        self.0.scheme
    }

    pub(crate) fn target(&self) -> &Target {
        &self.0.target
    }

    /// The URI of requests. Only its authority reaches the server.
    pub(crate) fn uri(&self, tls: bool) -> Uri {
        let scheme = if tls { "https" } else { "http" };
        let authority = match &self.0.target {
            Target::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Target::Tcp { host, port } => format!("{host}:{port}"),
            Target::Unix(_) => "localhost".to_owned(),
        };
        Uri::builder()
            .scheme(scheme)
            .authority(authority)
            .path_and_query("/")
            .build()
            .expect("host and port were parsed from an authority")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.given)
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let given = text.trim();
        if given.is_empty() {
            return Err(EndpointError::Empty);
        }
        let (scheme, rest) = split_scheme(given)?;
        let (scheme, target) = match scheme {
            "unix" => (Scheme::Plain, unix_target(rest, given)?),
            "http" => (Scheme::Plain, tcp_target(rest, given)?),
            "https" => (Scheme::Tls, tcp_target(rest, given)?),
            _ => (Scheme::Unsaid, tcp_target(rest, given)?),
        };
        Ok(Self(Arc::new(Parsed { given: given.to_owned(), scheme, target })))
    }
}

/// Splits off `scheme://` (or `unix:`), in lower case as etcd wants it; `""` when there is none.
fn split_scheme(given: &str) -> Result<(&str, &str), EndpointError> {
    if let Some((scheme, rest)) = given.split_once("://") {
        return match scheme {
            "http" | "https" | "unix" => Ok((scheme, rest)),
            _ => Err(EndpointError::Scheme { given: given.to_owned(), scheme: scheme.to_owned() }),
        };
    }
    match given.split_once(':') {
        Some(("unix", path)) => Ok(("unix", path)),
        _ => Ok(("", given)),
    }
}

fn unix_target(path: &str, given: &str) -> Result<Target, EndpointError> {
    if path.is_empty() {
        return Err(EndpointError::Authority { given: given.to_owned() });
    }
    Ok(Target::Unix(PathBuf::from(path)))
}

fn tcp_target(rest: &str, given: &str) -> Result<Target, EndpointError> {
    let refused = || EndpointError::Authority { given: given.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') {
        return Err(EndpointError::Credentials);
    }
    let uri: Uri = format!("http://{authority}/").parse().map_err(|_| refused())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
    let port = match authority.strip_prefix(host) {
        Some("") => DEFAULT_PORT,
        _ => uri.port_u16().filter(|port| *port != 0).ok_or_else(refused)?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(Target::Tcp { host, port })
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointError, Scheme, Target};

    #[track_caller]
    fn check(given: &str, scheme: Scheme, host: &str, port: u16) {
        let endpoint: Endpoint = given.parse().expect(given);
        assert_eq!(endpoint.scheme(), scheme, "{given}");
        assert_eq!(endpoint.target(), &Target::Tcp { host: host.to_owned(), port }, "{given}");
        assert_eq!(endpoint.to_string(), given.trim());
    }

    #[test]
    fn every_spelling_of_a_host_and_port_is_read() {
        check("127.0.0.1:2379", Scheme::Unsaid, "127.0.0.1", 2379);
        check(" etcd-0.etcd:32379 ", Scheme::Unsaid, "etcd-0.etcd", 32379);
        check("http://10.0.0.1:2379", Scheme::Plain, "10.0.0.1", 2379);
        check("https://etcd.example.org:443/", Scheme::Tls, "etcd.example.org", 443);
        check("https://[::1]:2379/path?query", Scheme::Tls, "::1", 2379);
        check("[fd00::7]:2379", Scheme::Unsaid, "fd00::7", 2379);
    }

    #[test]
    fn an_endpoint_without_a_port_has_etcds_client_port() {
        check("localhost", Scheme::Unsaid, "localhost", 2379);
        check("https://[::1]", Scheme::Tls, "::1", 2379);
    }

    #[test]
    fn a_socket_file_is_an_endpoint() {
        for given in ["unix:///run/etcd.sock", "unix:/run/etcd.sock"] {
            let endpoint: Endpoint = given.parse().unwrap();
            assert_eq!(endpoint.target(), &Target::Unix("/run/etcd.sock".into()));
            assert_eq!(endpoint.scheme(), Scheme::Plain);
        }
    }

    #[test]
    fn the_request_uri_keeps_the_brackets_of_ipv6() {
        let endpoint: Endpoint = "[::1]:2379".parse().unwrap();
        assert_eq!(endpoint.uri(true).to_string(), "https://[::1]:2379/");
        assert_eq!(endpoint.uri(false).to_string(), "http://[::1]:2379/");
    }

    #[test]
    fn what_is_not_an_endpoint_is_refused() {
        let parse = |given: &str| given.parse::<Endpoint>().unwrap_err();
        assert_eq!(parse("  "), EndpointError::Empty);
        assert!(matches!(parse("ftp://h:1"), EndpointError::Scheme { .. }));
        for given in
            ["h:", "h:0", "h:port", "h:70000", ":2379", "http://", "a b:1", "unix://", "::1:2379"]
        {
            assert!(matches!(parse(given), EndpointError::Authority { .. }), "{given}");
        }
    }

    #[test]
    fn a_password_in_an_endpoint_is_refused_and_not_repeated() {
        let error = "https://root:secret@h:2379".parse::<Endpoint>().unwrap_err();
        assert_eq!(error, EndpointError::Credentials);
        assert!(!error.to_string().contains("secret"));
    }
}
