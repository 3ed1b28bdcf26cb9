use crate::survey::Survey;

/// What `snapshot status` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over all buckets.
    pub hash: u32,
    /// Main revision of the last record; 0 if there is none.
    pub revision: i64,
    /// Pairs in all buckets, as etcd 3.4 and 3.5 count.
    pub pairs: u64,
    /// Bytes of the database, without the digest.
    pub total_size: u64,
    /// `storageVersion`, which etcd 3.6 writes and prints; empty before.
    pub version: String,
}

impl Status {
    /// Takes the status out of what a walk saw.
    pub fn new(survey: &Survey, total_size: u64) -> Self {
        Self {
            hash: survey.status_hash,
            revision: survey.last_record(),
            pairs: survey.pairs(),
            total_size,
            version: survey.meta.storage_version.clone().unwrap_or_default(),
        }
    }
}
