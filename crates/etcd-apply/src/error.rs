//! Why entries were not applied.

use etcd_schema::{MemberId, ReadError, SchemaError};

/// Why entries were not applied. Nothing of the result is lost silently: there is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The database could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// With authentication on, whether an entry takes effect depends on users and permissions.
    #[error("authentication is on: whether a logged request took effect depends on permissions")]
    AuthEnabled,
    /// The log changes users, roles or whether authentication is on.
    #[error("raft entry {index} changes authentication ({request})")]
    AuthEntry {
        /// The entry.
        index: u64,
        /// What it asks for.
        request: &'static str,
    },
    /// An entry is of a kind, or has a field, that this version does not know.
    #[error("raft entry {index} holds a request that is not known here")]
    UnknownEntry {
        /// The entry.
        index: u64,
    },
    /// The log does not reach back to the database.
    #[error(
        "the database holds raft entries up to {consistent_index}, but the WAL begins with {first}"
    )]
    MissingEntries {
        /// The last entry in the database.
        consistent_index: u64,
        /// The first entry at hand.
        first: u64,
    },
    /// The log is of a member that the database does not know.
    #[error("the WAL is that of member {member}, which the database does not know")]
    ForeignLog {
        /// The member.
        member: MemberId,
    },
    /// The log has another entry where the database ends: it is another cluster's.
    #[error(
        "the database holds raft entries up to {index}, the last of term {database}, but in the WAL \
         that entry is of term {log}"
    )]
    OtherTerm {
        /// The last entry in the database.
        index: u64,
        /// Its term, as the database says.
        database: u64,
        /// Its term, as the log says.
        log: u64,
    },
    /// The log ends before the database does: it is not this database's log.
    #[error(
        "the database holds raft entries up to {consistent_index}, but the WAL ends with {last}"
    )]
    LogBehindDatabase {
        /// The last entry in the database.
        consistent_index: u64,
        /// The last entry in the log.
        last: u64,
    },
    /// The member got a newer database from its leader and stopped before it was put in place.
    #[error(
        "a raft snapshot stands at entry {snapshot}, but the database only holds entries up to \
         {consistent_index}"
    )]
    SnapshotAhead {
        /// Index of the raft snapshot.
        snapshot: u64,
        /// The last entry in the database.
        consistent_index: u64,
    },
    /// Versions of etcd disagree on what is refused while two kinds of alarm are raised.
    #[error(
        "at raft entry {index} a NOSPACE and a CORRUPT alarm meet: etcds differ in the outcome"
    )]
    TwoAlarms {
        /// The entry.
        index: u64,
    },
    /// A known fault of etcd: the member the client spoke to refused it, others applied it.
    #[error(
        "raft entry {index} is a transaction that reads a revision that is not to be had, and \
         writes: members may differ in whether it took effect (etcd issue 18667)"
    )]
    TxnReadsUnavailable {
        /// The entry.
        index: u64,
    },
    /// etcd itself would stop at this entry: log and database do not belong together.
    #[error("raft entry {index} cannot be applied to this database: {why}")]
    Impossible {
        /// The entry.
        index: u64,
        /// What is wrong.
        why: Impossible,
    },
}

/// What etcd takes for granted and is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Impossible {
    /// A key would be attached to a lease that does not exist.
    #[error("a key keeps lease {0}, which does not exist")]
    LeaseGone(i64),
    /// A put refers to the key's former value, which an operation before it has deleted.
    #[error("a put keeps what the same transaction has deleted before")]
    KeyGone,
    /// The revision would pass the greatest number there is.
    #[error("the revision would overflow")]
    Revision,
}

impl ApplyError {
    /// One imperative sentence; the CLI prints it after `help:`.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Read(_) => {
                "use another member's data directory, or take the database as it is with --db-only"
            }
            Self::AuthEnabled | Self::AuthEntry { .. } => {
                "start this member and save a snapshot from it, or take the database without the \
                 newest writes with --db-only"
            }
            Self::UnknownEntry { .. } => {
                "use a newer version of this tool, or take the database without the newest writes \
                 with --db-only"
            }
            Self::MissingEntries { .. } => {
                "bring the missing WAL segments, or take the database without the newest writes \
                 with --db-only"
            }
            Self::SnapshotAhead { .. } => {
                "use the .snap.db file of that index as the database, or another member's data \
                 directory, or take the old database with --db-only"
            }
            Self::ForeignLog { .. }
            | Self::OtherTerm { .. }
            | Self::LogBehindDatabase { .. }
            | Self::Impossible { .. } => {
                "check that database and WAL are of one member, or take the database alone with \
                 --db-only"
            }
            Self::TwoAlarms { .. } | Self::TxnReadsUnavailable { .. } => {
                "start this member and save a snapshot from it, or take the database without the \
                 newest writes with --db-only"
            }
        }
    }
}

impl From<bolt::BoltError> for ApplyError {
    fn from(error: bolt::BoltError) -> Self {
        Self::Read(error.into())
    }
}

impl From<SchemaError> for ApplyError {
    fn from(error: SchemaError) -> Self {
        Self::Read(error.into())
    }
}
