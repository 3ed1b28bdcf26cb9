//! Bucket `lease`: `leasepb.Lease` under the lease id, 8 bytes big-endian.

use crate::SchemaError;
use prost::Message;

/// A granted lease (`leasepb.Lease`).
///
/// The row holds no expiry: a restored lease gets its whole TTL again, counted from the election.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Lease {
    /// Lease id. May be negative, as clients may choose any 64 bits.
    #[prost(int64, tag = "1")]
    pub id: i64,
    /// Seconds granted.
    #[prost(int64, tag = "2")]
    pub ttl: i64,
    /// Seconds left at the last checkpoint; 0 for none.
    #[prost(int64, tag = "3")]
    pub remaining_ttl: i64,
}

impl Lease {
    /// Parses a row's value.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        Self::decode(bytes)
            .map_err(|e| SchemaError::Message { what: "leasepb.Lease", why: e.to_string() })
    }

    /// The row's value.
    pub fn encode_value(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

/// The row's key: the id's two's complement, big-endian.
pub fn lease_key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}
