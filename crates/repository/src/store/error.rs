//! Why a store did not do what it was asked, sorted by what the caller can do about it.
//!
//! * No message here holds a secret: URLs are those of [`Backend::url`](super::Backend::url), and what a provider's client
//!   said is cut where it could quote a signed request.
//! * [`is_retryable`](StoreError::is_retryable) says whether the same call can succeed later. The store has retried by
//!   itself before; a caller that retries waits longer.

#[cfg(feature = "buckets")]
use super::answer::is_answer;
use std::{error::Error, fmt};

/// Folders answer nothing.
#[cfg(not(feature = "buckets"))]
fn is_answer(_: &Source) -> bool {
    false
}

/// What the error came from: an [`std::io::Error`], or what a provider answered.
pub type Source = Box<dyn Error + Send + Sync>;

/// What was attempted, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// The store, without secrets.
    pub url: String,
    /// The object or the prefix; `""` for the store itself.
    pub path: String,
    /// What was to be done with it.
    pub operation: Operation,
}

/// What a store is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Make ready to use it.
    Open,
    /// Find out whether it keeps objects from being overwritten.
    Probe,
    /// Create a small object, or begin one.
    Create,
    /// Add bytes to an object.
    Write,
    /// Complete an object.
    Finish,
    /// Give up an object.
    Abort,
    /// Read an object.
    Read,
    /// List objects or folders.
    List,
    /// Ask for the size.
    Size,
    /// Delete an object.
    Delete,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is there already, and stays as it is.
    #[error("{at}: it is there already")]
    Exists {
        /// Where.
        at: At,
    },
    /// It is not there.
    #[error("{at}: it is not there")]
    NotFound {
        /// Where.
        at: At,
    },
    /// The store keeps it for now: object lock, a legal hold, an immutability policy.
    #[error("{at}: it is locked{}", until.as_ref().map(|until| format!(" until {until}")).unwrap_or_default())]
    Locked {
        /// Where.
        at: At,
        /// Until when, if the store tells.
        until: Option<String>,
    },
    /// The credentials are missing, wrong, or do not allow it.
    #[error("{at}: access denied")]
    Denied {
        /// Where.
        at: At,
        /// What the store said.
        source: Source,
    },
    /// No answer that counts: no connection, no trusted certificate, no answer in time, or only server errors.
    #[error("{at}: the store cannot be reached")]
    Unreachable {
        /// Where.
        at: At,
        /// What went wrong on the way.
        source: Source,
    },
    /// The bucket or container is not there.
    #[error("{at}: there is no such bucket")]
    NoSuchBucket {
        /// Where.
        at: At,
        /// What the store said.
        source: Source,
    },
    /// The disk or the quota is full.
    #[error("{at}: no space left")]
    NoSpace {
        /// Where.
        at: At,
        /// What the store said.
        source: Source,
    },
    /// It has more bytes than the caller can take.
    #[error("{at}: it has {bytes} bytes, more than {bytes_max}")]
    TooLarge {
        /// Where.
        at: At,
        /// Its size.
        bytes: u64,
        /// The largest size that was to be taken.
        bytes_max: u64,
    },
    /// The store cannot do this at all.
    #[error("{at}: {what}")]
    Unsupported {
        /// Where.
        at: At,
        /// What it cannot do.
        what: &'static str,
    },
    /// Anything else that the disk or the store said.
    #[error("{at} failed")]
    Io {
        /// Where.
        at: At,
        /// What it said.
        source: Source,
    },
    /// A path that no object can have.
    #[error("{path:?} is not the path of an object: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The URL of the store cannot be understood.
    #[error("{url:?} is not the URL of a store: {reason}")]
    BadUrl {
        /// The URL, without user, password and query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An option of the store cannot be understood.
    #[error("option {option:?} of the store {url}: {reason}")]
    BadOption {
        /// The store.
        url: String,
        /// The option.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl StoreError {
    /// One imperative sentence: what the operator can do next.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Exists { .. } => "check whether another Lifeboat writes to this repository",
            Self::NotFound { .. } => "check the name, or list what is there",
            Self::Locked { .. } => "wait until the lock ends, or have it lifted by who may",
            Self::Denied { .. } => {
                "check the credentials (or the owner and mode of the folder) and what they allow"
            }
            Self::Unreachable { source, .. } if is_answer(source) => {
                "the store answers, but with an error: check that there is such a bucket, then look at the store itself"
            }
            Self::Unreachable { .. } => {
                "check the endpoint, the network and the CA certificate, then try again"
            }
            Self::NoSuchBucket { .. } => {
                "create the bucket, or correct its name, region or endpoint"
            }
            Self::NoSpace { .. } => {
                "free space or raise the quota; `lifeboat prune` removes old backups"
            }
            Self::TooLarge { .. } => "check that this object was written by Lifeboat",
            Self::Unsupported { .. } => "use another store or file system for the repository",
            Self::Io { .. } => "read what the store said; if it may pass, try again",
            Self::BadPath { .. } => "use a path of plain parts with one `/` between them",
            Self::BadUrl { .. } => {
                "give a folder, or a URL like s3://bucket/prefix?endpoint=https://host&region=NAME"
            }
            Self::BadOption { .. } => "correct or leave out the option",
        }
    }

    /// Whether the store could not be reached; the reason for exit code 4.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether credentials or permissions are what is missing.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// Whether another object has this path already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Exists { .. })
    }

    /// Whether there is no such object.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Whether the same call may succeed some time later without anyone changing anything but the weather.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoSpace { .. } | Self::Io { .. })
    }
}

impl At {
    /// That operation on `path` of the store at `url`.
    pub fn new(url: &str, operation: Operation, path: &str) -> Self {
        Self { url: url.to_owned(), path: path.to_owned(), operation }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, path, operation } = self;
        match path.as_str() {
            "" => write!(f, "{operation} {url}"),
            path => write!(f, "{operation} {path} in {url}"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Probe => "probe",
            Self::Create => "create",
            Self::Write => "write to",
            Self::Finish => "complete",
            Self::Abort => "give up",
            Self::Read => "read",
            Self::List => "list",
            Self::Size => "get the size of",
            Self::Delete => "delete",
        })
    }
}
