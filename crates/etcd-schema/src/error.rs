/// Why a value in the database is not what etcd writes there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A key of bucket `key` has another length than 17 or 18 bytes.
    #[error("revision key {key} has {} bytes, expected 17 or 18", key.len() / 2)]
    RevisionLength {
        /// The key, in hex.
        key: String,
    },
    /// A key of bucket `key` is not `main _ sub [t]` with numbers below 2^63.
    #[error("revision key {key} is not of the form main_sub")]
    RevisionForm {
        /// The key, in hex.
        key: String,
    },
    /// A value does not parse as the message that belongs there.
    #[error("{what} does not parse: {why}")]
    Message {
        /// Which value, such as `mvccpb.KeyValue`.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A key of bucket `meta`, `auth` or `lease` has a value of the wrong size.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// Which value.
        what: &'static str,
        /// Bytes it should have.
        expected: usize,
        /// Bytes it has.
        found: usize,
    },
    /// A key of bucket `members` is not a member id in hex.
    #[error("member key {key:?} is not 1 to 16 hex digits")]
    MemberKey {
        /// The key, with what is not UTF-8 replaced.
        key: String,
    },
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String cannot fail");
        out
    })
}

/// Why records could not be read: the file is damaged, or what it holds is not etcd's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The bbolt file.
    #[error(transparent)]
    Bolt(#[from] bolt::BoltError),
    /// A key or value in it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}
