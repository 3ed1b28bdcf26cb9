use crate::{KeyValue, ReadError, RevisionKey, SchemaError};

/// One record of bucket `key`, borrowed from the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The parsed key.
    pub key: RevisionKey,
    /// The key as stored, 17 or 18 bytes.
    pub raw_key: &'a [u8],
    /// The value as stored, an encoded [`KeyValue`].
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    /// Makes a record of a pair of bucket `key`; the value is not looked at.
    #[inline]
    pub fn parse(raw_key: &'a [u8], value: &'a [u8]) -> Result<Self, SchemaError> {
        Ok(Self { key: RevisionKey::parse(raw_key)?, raw_key, value })
    }

    /// The user's key.
    #[inline]
    pub fn user_key(&self) -> Result<&'a [u8], SchemaError> {
        KeyValue::parse_key(self.value)
    }

    /// Main revision of the change.
    pub fn main(&self) -> i64 {
        self.key.revision.main
    }
}

/// The records of bucket `key` in the order of their revisions.
pub fn records<'a>(
    key_bucket: &bolt::Bucket<'a>,
) -> impl Iterator<Item = Result<Record<'a>, ReadError>> + use<'a> {
    key_bucket.iter().map(|pair| {
        let (key, value) = pair?;
        Ok(Record::parse(key, value)?)
    })
}
