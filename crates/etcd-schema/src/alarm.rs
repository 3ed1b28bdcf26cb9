//! Bucket `alarm`: `etcdserverpb.AlarmMember` as the key, nothing as the value.

use crate::SchemaError;
use prost::Message;

/// What an alarm is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum AlarmType {
    /// No alarm, or in a request: any.
    None = 0,
    /// The backend passed its quota; writes are refused.
    NoSpace = 1,
    /// A member's data differs from the others'; writes are refused.
    Corrupt = 2,
}

/// An alarm that a member raised.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AlarmMember {
    /// The member that raised it.
    #[prost(uint64, tag = "1")]
    pub member_id: u64,
    /// What it is about.
    #[prost(enumeration = "AlarmType", tag = "2")]
    pub alarm: i32,
}

impl AlarmMember {
    /// Parses a row's key.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        Self::decode(bytes).map_err(|e| SchemaError::Message {
            what: "etcdserverpb.AlarmMember",
            why: e.to_string(),
        })
    }

    /// The row's key.
    pub fn encode_key(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
