//! Bucket `members`: JSON under the member's id in hex, without leading zeros.
//!
//! `{"id":4252840836947817291,"peerURLs":["http://127.0.0.1:23411"],"name":"n1","clientURLs":[…]}`

use crate::{SchemaError, go_json};
use serde::{Deserialize, Serialize};

/// A member's id. Shown, and stored in bucket keys, as hex without leading zeros.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MemberId(pub u64);

impl MemberId {
    /// Parses a key of `members` or `members_removed`.
    pub fn parse_key(key: &[u8]) -> Result<Self, SchemaError> {
        let bad = || SchemaError::MemberKey { key: String::from_utf8_lossy(key).into_owned() };
        let text = std::str::from_utf8(key).map_err(|_| bad())?;
        if !(1..=16).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| bad())
    }
}

impl std::fmt::Display for MemberId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// A member as etcd writes it: in bucket `members`, and in the context of a configuration change.
/// The order of the fields is the order in the JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id, a decimal number in the JSON.
    pub id: MemberId,
    /// Where other members reach it.
    #[serde(rename = "peerURLs", deserialize_with = "null_is_empty")]
    pub peer_urls: Vec<String>,
    /// Replicates without a vote.
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its `--name`; empty until it has started.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where clients reach it; empty until it has started.
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// Go writes a nil slice as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(from).map(Option::unwrap_or_default)
}

impl Member {
    /// Parses the JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        serde_json::from_slice(bytes)
            .map_err(|e| SchemaError::Message { what: "member", why: e.to_string() })
    }

    /// The JSON, as etcd writes it.
    pub fn encode(&self) -> Vec<u8> {
        go_json::to_string(self).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_json_of_the_spec_is_written_back_the_same() {
        let json = br#"{"id":4252840836947817291,"peerURLs":["http://127.0.0.1:23411"],"name":"n1","clientURLs":["http://127.0.0.1:23410"]}"#;
        let member = Member::parse(json).unwrap();
        assert_eq!(member.id.to_string(), "3b0520356c8cb34b");
        assert_eq!(member.encode(), json);
    }

    #[test]
    fn ids_have_no_leading_zeros_and_any_length_up_to_sixteen_digits() {
        assert_eq!(MemberId::parse_key(b"4e2319131e2a3e4"), Ok(MemberId(0x04e2_3191_31e2_a3e4)));
        assert_eq!(MemberId(0x04e2_3191_31e2_a3e4).to_string(), "4e2319131e2a3e4");
        for bad in [&b""[..], b"+1", b"xyz", b"00000000000000001", b"\xff"] {
            assert!(MemberId::parse_key(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_learner_and_a_member_without_urls_are_read() {
        let learner = Member::parse(br#"{"id":1,"peerURLs":["http://a:1"],"isLearner":true}"#);
        assert!(learner.unwrap().is_learner);
        assert_eq!(Member::parse(br#"{"id":1,"peerURLs":null}"#).unwrap().peer_urls.len(), 0);
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(id: u64, peer_urls: Vec<String>, is_learner: bool, name: String, client_urls: Vec<String>) {
            let member = Member { id: MemberId(id), peer_urls, is_learner, name, client_urls };
            prop_assert_eq!(Member::parse(&member.encode()), Ok(member));
        }
    }
}
