//! Bucket `meta`: how far raft and the compactor have come.

use crate::{MemberId, ReadError, Revision, SchemaError, bucket};
use serde::{Deserialize, Serialize};

/// What bucket `meta` says. Keys that etcd may add later are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Raft index of the last entry whose effects are in this database.
    pub consistent_index: Option<u64>,
    /// Raft term of that entry; etcd 3.5 and later.
    pub term: Option<u64>,
    /// Voters and learners; etcd 3.5 and later. Written by etcd, never read back.
    pub conf_state: Option<ConfState>,
    /// Revision of the last compaction that was begun.
    pub scheduled_compact: Option<Revision>,
    /// Revision of the last compaction that was completed.
    pub finished_compact: Option<Revision>,
    /// Schema version, such as `3.6.0`; etcd 3.6 and later.
    pub storage_version: Option<String>,
}

/// JSON of raft's `ConfState`. Ids are numbers above 2^53, so they are parsed as integers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfState {
    /// Members that vote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<MemberId>,
    /// Members that only replicate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<MemberId>,
    /// Voters of the configuration being left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub voters_outgoing: Vec<MemberId>,
    /// Learners once the change is complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners_next: Vec<MemberId>,
    /// Whether a joint configuration is left by itself.
    #[serde(default)]
    pub auto_leave: bool,
}

impl ConfState {
    /// The JSON, as etcd writes it.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("numbers always serialise")
    }
}

impl Meta {
    /// What the database's bucket `meta` says; nothing if it has none.
    pub fn of(db: &bolt::Db<'_>) -> Result<Self, ReadError> {
        let mut meta = Self::default();
        if let Some(pairs) = db.bucket(bucket::META)? {
            for pair in pairs.iter() {
                let (key, value) = pair?;
                meta.read(key, value)?;
            }
        }
        Ok(meta)
    }

    /// Key of [`consistent_index`](Self::consistent_index), 8 bytes big-endian.
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    /// Key of [`term`](Self::term), 8 bytes big-endian.
    pub const TERM: &[u8] = b"term";
    /// Key of [`conf_state`](Self::conf_state), JSON.
    pub const CONF_STATE: &[u8] = b"confState";
    /// Key of [`scheduled_compact`](Self::scheduled_compact), a revision key.
    pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
    /// Key of [`finished_compact`](Self::finished_compact), a revision key.
    pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
    /// Key of [`storage_version`](Self::storage_version), text.
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";

    /// Takes one pair of the bucket in.
    pub fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), SchemaError> {
        match key {
            Self::CONSISTENT_INDEX => {
                self.consistent_index = Some(number("meta/consistent_index", value)?);
            }
            Self::TERM => self.term = Some(number("meta/term", value)?),
            Self::CONF_STATE => self.conf_state = Some(conf_state(value)?),
            Self::SCHEDULED_COMPACT => self.scheduled_compact = Some(Revision::parse(value)?),
            Self::FINISHED_COMPACT => self.finished_compact = Some(Revision::parse(value)?),
            Self::STORAGE_VERSION => {
                self.storage_version = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// The revision below which history is gone or may be: the greater of scheduled and finished,
    /// as an interrupted compaction leaves the range below `scheduled` partly deleted.
    /// `None` on a store that was never compacted.
    pub fn compact_revision(&self) -> Option<i64> {
        self.scheduled_compact.max(self.finished_compact).map(|revision| revision.main)
    }
}

fn number(what: &'static str, value: &[u8]) -> Result<u64, SchemaError> {
    let bytes = value.try_into().map_err(|_| SchemaError::Length {
        what,
        expected: 8,
        found: value.len(),
    })?;
    Ok(u64::from_be_bytes(bytes))
}

fn conf_state(value: &[u8]) -> Result<ConfState, SchemaError> {
    serde_json::from_slice(value)
        .map_err(|e| SchemaError::Message { what: "meta/confState", why: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_compaction_counts_as_done() {
        let mut meta = Meta::default();
        assert_eq!(meta.compact_revision(), None);
        meta.read(b"finishedCompactRev", &Revision { main: 5, sub: 0 }.encode()).unwrap();
        meta.read(b"scheduledCompactRev", &Revision { main: 9, sub: 0 }.encode()).unwrap();
        assert_eq!(meta.compact_revision(), Some(9));
    }

    #[test]
    fn conf_state_keeps_ids_above_two_to_the_53() {
        let json = br#"{"voters":[9126955784348495964],"auto_leave":false}"#;
        let mut meta = Meta::default();
        meta.read(b"confState", json).unwrap();
        let state = meta.conf_state.unwrap();
        assert_eq!(state.voters, [MemberId(9_126_955_784_348_495_964)]);
        assert_eq!(state.encode(), json);
    }

    #[test]
    fn a_number_of_the_wrong_length_is_refused() {
        let found = Meta::default().read(b"consistent_index", b"1234567");
        let what = "meta/consistent_index";
        assert_eq!(found, Err(SchemaError::Length { what, expected: 8, found: 7 }));
    }
}
