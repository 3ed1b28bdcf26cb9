//! What can go wrong with a live cluster, and what to do about it.
//!
//! etcd 3.4 and 3.5 send most refusals with the gRPC code `Unknown`, so it is their texts that tell
//! them apart. Those texts are part of etcd's API: its own clients compare them too. They are
//! compared here, in [`Refusal::from_status`], whole and nowhere else.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use crate::choice::{PassedOver, Reason};
use crate::dial::{DialError, DialFailure, seconds};
use crate::endpoint::Endpoint;
use crate::snapshot_stream::StreamFault;
use crate::tls::{FaultSlot, TlsFault, TlsSetupError};

/// Why a cluster could not be asked, or gave no usable answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The certificates of this side cannot be used.
    #[error("cannot set up TLS")]
    Setup(#[from] TlsSetupError),
    /// No connection to an endpoint.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// The endpoint.
        endpoint: Endpoint,
        /// Why; shared, because a channel passes it on by reference.
        source: Arc<DialError>,
    },
    /// A request got no answer in time.
    #[error("{endpoint} did not answer {request} within {}", seconds(*.after))]
    TimedOut {
        /// The endpoint.
        endpoint: Endpoint,
        /// What was asked.
        request: Request,
        /// The limit.
        after: Duration,
    },
    /// The connection broke, or the other side is not an etcd.
    #[error("the connection to {endpoint} broke during {request}")]
    Broken {
        /// The endpoint.
        endpoint: Endpoint,
        /// What was asked.
        request: Request,
        /// Why.
        source: Lost,
    },
    /// The two sides do not agree on TLS; found only after the handshake.
    #[error("{endpoint} refuses the TLS connection")]
    Tls {
        /// The endpoint.
        endpoint: Endpoint,
        /// Why.
        source: TlsFault,
    },
    /// The server answered: no.
    #[error("{endpoint} refuses {request}: {refusal}")]
    Refused {
        /// The endpoint.
        endpoint: Endpoint,
        /// What was asked.
        request: Request,
        /// Its reason.
        refusal: Refusal,
    },
    /// A snapshot stream that cannot be trusted or did not finish.
    #[error("the snapshot stream of {endpoint} is not usable")]
    Stream {
        /// The endpoint.
        endpoint: Endpoint,
        /// Why.
        source: StreamFault,
    },
    /// The connection was lost in the middle of a snapshot.
    #[error("the snapshot stream was interrupted after {received} bytes of {total}")]
    Interrupted {
        /// Bytes that arrived.
        received: u64,
        /// Bytes that were announced.
        total: u64,
        /// Why.
        source: Box<LiveError>,
    },
    /// The endpoints do not belong together.
    #[error(
        "the endpoints belong to different clusters: {first} to {first_cluster:x}, {second} to {second_cluster:x}"
    )]
    DifferentClusters {
        /// An endpoint.
        first: Endpoint,
        /// Its cluster.
        first_cluster: u64,
        /// Another endpoint.
        second: Endpoint,
        /// Another cluster.
        second_cluster: u64,
    },
    /// No endpoint was given.
    #[error("no endpoint is given")]
    NoEndpoints,
    /// Endpoints were given, and none can serve.
    #[error("none of the endpoints can be used\n{}", .0)]
    NoneUsable(PassedOverAll),
}

/// The requests of this crate, in the words of etcd's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are etcd's")]
pub enum Request {
    Authenticate,
    Status,
    MemberList,
    MemberAdd,
    MemberRemove,
    MemberPromote,
    HashKv,
    Alarm,
    Range,
    Put,
    DeleteRange,
    Snapshot,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authenticate => "Authenticate",
            Self::Status => "Status",
            Self::MemberList => "MemberList",
            Self::MemberAdd => "MemberAdd",
            Self::MemberRemove => "MemberRemove",
            Self::MemberPromote => "MemberPromote",
            Self::HashKv => "HashKV",
            Self::Alarm => "Alarm",
            Self::Range => "Range",
            Self::Put => "Put",
            Self::DeleteRange => "DeleteRange",
            Self::Snapshot => "Snapshot",
        })
    }
}

/// Why a server said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Authentication is on and no user was given.
    #[error("authentication is on and no user is given")]
    UserWanted,
    /// User or password is wrong; the server does not say which.
    #[error("wrong user or password")]
    WrongPassword,
    /// The user lacks a right. Snapshot and HashKV want the role `root`.
    #[error("permission denied")]
    PermissionDenied,
    /// The token ran out, or the server restarted and forgot it.
    #[error("the login has expired")]
    TokenExpired,
    /// Authentication is off, so nobody can log in.
    #[error("authentication is not enabled")]
    AuthNotEnabled,
    /// The member is a learner, which serves almost nothing.
    #[error("the member is a learner")]
    Learner,
    /// The member has no leader: the cluster lost its quorum, or the member its peers.
    #[error("the member has no leader")]
    NoLeader,
    /// The server gave up waiting for the cluster's agreement.
    #[error("the cluster did not agree in time ({0})")]
    NoAgreement(String),
    /// The revision was compacted away.
    #[error("the revision has been compacted")]
    Compacted,
    /// The member has not come to that revision yet.
    #[error("the revision is in the future")]
    FutureRevision,
    /// Anything else, as the server put it.
    #[error("{message} ({code})")]
    Other {
        /// The code's name.
        code: Code,
        /// The server's words.
        message: String,
    },
}

impl Refusal {
    /// Reads a refusal; `None` when the status comes from this side of the connection.
    fn from_status(status: &Status) -> Option<Self> {
        if status.source().is_some() {
            return None;
        }
        // 3.4 and 3.5 pass some errors of the auth store on with its own prefix.
        let message = status.message();
        let text = ["etcdserver: ", "auth: "]
            .iter()
            .find_map(|prefix| message.strip_prefix(prefix))
            .unwrap_or(message);
        Some(match text {
            "user name is empty" => Self::UserWanted,
            "authentication failed, invalid user ID or password" => Self::WrongPassword,
            "permission denied" => Self::PermissionDenied,
            "invalid auth token" | "revision of auth store is old" => Self::TokenExpired,
            "authentication is not enabled" => Self::AuthNotEnabled,
            "rpc not supported for learner" => Self::Learner,
            "no leader" => Self::NoLeader,
            "request timed out"
            | "request timed out, possibly due to previous leader failure"
            | "request timed out, possibly due to connection lost"
            | "request timed out, waiting for the applied index took too long"
            | "leader changed" => Self::NoAgreement(text.to_owned()),
            "mvcc: required revision has been compacted" => Self::Compacted,
            "mvcc: required revision is a future revision" => Self::FutureRevision,
            _ => Self::Other { code: status.code(), message: message.to_owned() },
        })
    }
}

/// All endpoints with their reasons, one line each.
#[derive(Debug)]
pub struct PassedOverAll(pub Vec<PassedOver>);

impl PassedOverAll {
    /// What was refused can be mended more surely than what did not answer.
    fn remedy(&self) -> &'static str {
        let mendable = self.errors().find(|error| !error.is_unreachable());
        match mendable.or_else(|| self.errors().next()) {
            Some(error) => error.remedy(),
            None => "give the endpoint of a voting member",
        }
    }

    fn errors(&self) -> impl Iterator<Item = &LiveError> {
        self.0.iter().filter_map(|passed| match &passed.reason {
            Reason::Failed(error) => Some(error),
            _ => None,
        })
    }
}

impl fmt::Display for PassedOverAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, passed) in self.0.iter().enumerate() {
            let line_end = if at == 0 { "" } else { "\n" };
            write!(f, "{line_end}  {passed}")?;
        }
        Ok(())
    }
}

/// An error and its sources on one line.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = source.source();
    }
    line
}

/// The other side of a connection: what turns its errors into ours.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    endpoint: Endpoint,
    faults: FaultSlot,
}

impl Peer {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, faults: FaultSlot::default() }
    }

    /// Where the connection to this peer leaves the TLS faults that it meets.
    pub(crate) fn faults(&self) -> FaultSlot {
        self.faults.clone()
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn streams(&self, source: StreamFault) -> LiveError {
        LiveError::Stream { endpoint: self.endpoint.clone(), source }
    }

    pub(crate) fn silent(&self, request: Request, after: Duration) -> LiveError {
        LiveError::TimedOut { endpoint: self.endpoint.clone(), request, after }
    }

    pub(crate) fn failed(&self, request: Request, error: etcd_client::Error) -> LiveError {
        let endpoint = self.endpoint.clone();
        let lost = match error {
            etcd_client::Error::GRpcStatus(status) => match Refusal::from_status(&status) {
                Some(refusal) => return LiveError::Refused { endpoint, request, refusal },
                None => Lost(Box::new(status)),
            },
            other => Lost(Box::new(other)),
        };
        if let Some(source) = DialFailure::find(lost.0.as_ref()) {
            return LiveError::Unreachable { endpoint, source };
        }
        match self.faults.get() {
            Some(source) => LiveError::Tls { endpoint, source },
            None => LiveError::Broken { endpoint, request, source: lost },
        }
    }
}

/// How a connection was lost. The libraries wrap the reason many times; only the innermost error
/// says something.
#[derive(Debug)]
pub struct Lost(Box<dyn Error + Send + Sync>);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut innermost: &dyn Error = self.0.as_ref();
        while let Some(source) = innermost.source() {
            innermost = source;
        }
        fmt::Display::fmt(innermost, f)
    }
}

impl Error for Lost {}

impl LiveError {
    /// The server's reason, when it was the server that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// The cluster cannot be reached or does not answer; nothing was refused.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::Tls { .. } => true,
            Self::Refused { refusal, .. } => {
                matches!(refusal, Refusal::NoLeader | Refusal::NoAgreement(_))
            }
            Self::NoneUsable(all) => all.0.iter().all(|passed| match &passed.reason {
                Reason::Failed(error) => error.is_unreachable(),
                _ => false,
            }),
            Self::Stream { source, .. } => source.is_broken(),
            Self::Interrupted { source, .. } => source.is_unreachable(),
            Self::Setup(_) | Self::DifferentClusters { .. } | Self::NoEndpoints => false,
        }
    }

    /// Who we are is the problem: user, password or rights.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => matches!(
                refusal,
                Refusal::UserWanted
                    | Refusal::WrongPassword
                    | Refusal::PermissionDenied
                    | Refusal::TokenExpired
            ),
            Self::NoneUsable(all) => all.errors().any(Self::is_denied),
            _ => false,
        }
    }

    /// One imperative sentence; the command prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Setup(error) => error.remedy(),
            Self::Unreachable { source, .. } => source.remedy(),
            Self::TimedOut { .. } => "check the cluster's health, or raise --command-timeout",
            Self::Broken { .. } => {
                "check that this is etcd's client port, and http or https in the endpoint"
            }
            Self::Tls { source, .. } => source.remedy(),
            Self::Refused { request, refusal, .. } => refusal.remedy(*request),
            Self::Stream { source, .. } => source.remedy(),
            Self::DifferentClusters { .. } => "give the endpoints of one cluster",
            Self::NoEndpoints => "give at least one endpoint with --endpoints",
            Self::Interrupted { .. } => "see the member's log and the network, and try again",
            Self::NoneUsable(all) => all.remedy(),
        }
    }
}

impl Refusal {
    fn remedy(&self, request: Request) -> &'static str {
        match self {
            Self::UserWanted => "give a user with --user, or in the environment",
            Self::WrongPassword => "check the user and the password",
            Self::PermissionDenied => match request {
                Request::Snapshot | Request::HashKv => "use a user with the role root",
                _ => "use a user with the needed role, such as root",
            },
            Self::TokenExpired => "try again",
            Self::AuthNotEnabled => "leave out the user",
            Self::Learner => "give the endpoint of a voting member",
            Self::NoLeader | Self::NoAgreement(_) => {
                "check that a majority of the members is running and that they reach each other"
            }
            Self::Compacted => "ask for a newer revision",
            Self::FutureRevision => {
                "ask for an older revision, or wait until the member has caught up"
            }
            Self::Other { .. } => "see the log of the member",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_3_4_and_3_6_mean_the_same_refusal() {
        for status in [
            Status::unknown("auth: permission denied"),
            Status::unknown("etcdserver: permission denied"),
            Status::permission_denied("etcdserver: permission denied"),
        ] {
            assert_eq!(Refusal::from_status(&status), Some(Refusal::PermissionDenied));
        }
        let unknown = Status::internal("something: permission denied");
        assert!(matches!(Refusal::from_status(&unknown), Some(Refusal::Other { .. })));
    }

    fn refused(refusal: Refusal) -> LiveError {
        let endpoint = "a:1".parse().unwrap();
        LiveError::Refused { endpoint, request: Request::Status, refusal }
    }

    fn silent() -> LiveError {
        let after = Duration::from_secs(2);
        let source = Arc::new(DialError::TimedOut { after });
        LiveError::Unreachable { endpoint: "b:2".parse().unwrap(), source }
    }

    fn all(errors: Vec<LiveError>) -> LiveError {
        let passed = errors.into_iter().map(|error| PassedOver {
            endpoint: "a:1".parse().unwrap(),
            reason: Reason::Failed(error),
        });
        LiveError::NoneUsable(PassedOverAll(passed.collect()))
    }

    #[test]
    fn a_cluster_is_unreachable_only_when_no_endpoint_said_anything() {
        assert!(all(vec![silent(), silent()]).is_unreachable());

        let one_refused = all(vec![silent(), refused(Refusal::WrongPassword)]);
        assert!(!one_refused.is_unreachable());
        assert!(one_refused.is_denied());
        assert_eq!(one_refused.remedy(), "check the user and the password");
    }

    #[test]
    fn the_error_of_several_endpoints_has_a_line_for_each() {
        let LiveError::NoneUsable(mut all) = all(vec![silent(), refused(Refusal::WrongPassword)])
        else {
            unreachable!()
        };
        all.0.push(PassedOver { endpoint: "c:3".parse().unwrap(), reason: Reason::Learner });
        assert_eq!(
            LiveError::NoneUsable(all).to_string(),
            "none of the endpoints can be used\n  \
             cannot reach b:2: no answer within 2 s\n  \
             a:1 refuses Status: wrong user or password\n  \
             c:3 is a learner"
        );
    }
}
