//! `mvccpb.KeyValue`: the value of each record of bucket `key`.

use crate::{
    SchemaError,
    wire::{Field, next_field, put_bytes, put_varint},
};

/// One revision of one user key, borrowed from the file.
///
/// A tombstone holds the key alone. The marker that `--bump-revision` leaves is a record with an
/// empty value, which parses as the default: an empty key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The user's key.
    pub key: &'a [u8],
    /// Main revision in which this life of the key began.
    pub create_revision: i64,
    /// Main revision of this change.
    pub mod_revision: i64,
    /// Changes since the key was created, this one included.
    pub version: i64,
    /// The user's value. Empty and absent are the same.
    pub value: &'a [u8],
    /// The lease the key is attached to; 0 for none.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Parses a record's value. Fields that etcd may add later are skipped.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SchemaError> {
        let mut kv = Self::default();
        let mut input = bytes;
        while let Some((number, field)) = next_field(&mut input).map_err(|e| message(&e))? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => kv.key = bytes,
                (2, Field::Varint(n)) => kv.create_revision = n.cast_signed(),
                (3, Field::Varint(n)) => kv.mod_revision = n.cast_signed(),
                (4, Field::Varint(n)) => kv.version = n.cast_signed(),
                (5, Field::Bytes(bytes)) => kv.value = bytes,
                (6, Field::Varint(n)) => kv.lease = n.cast_signed(),
                (1..=6, _) => return Err(message(&format!("field {number} has the wrong type"))),
                _ => {}
            }
        }
        Ok(kv)
    }

    /// The user's key alone, which etcd writes first; cheaper than [`parse`](Self::parse).
    #[inline]
    pub fn parse_key(bytes: &'a [u8]) -> Result<&'a [u8], SchemaError> {
        let mut input = bytes;
        match next_field(&mut input).map_err(|e| message(&e))? {
            Some((1, Field::Bytes(key))) => Ok(key),
            _ => Self::parse(bytes).map(|kv| kv.key),
        }
    }

    /// The bytes etcd writes: fields ascending, zero values left out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.key.len() + self.value.len() + 64);
        put_bytes(&mut out, 1, self.key);
        put_varint(&mut out, 2, self.create_revision.cast_unsigned());
        put_varint(&mut out, 3, self.mod_revision.cast_unsigned());
        put_varint(&mut out, 4, self.version.cast_unsigned());
        put_bytes(&mut out, 5, self.value);
        put_varint(&mut out, 6, self.lease.cast_unsigned());
        out
    }
}

fn message(why: &impl ToString) -> SchemaError {
    SchemaError::Message { what: "mvccpb.KeyValue", why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_of_the_spec_parses_and_encodes_to_the_same_bytes() {
        let bytes = b"\x0a\x01\x63\x10\x06\x18\x06\x20\x01\x2a\x01\x34";
        let kv = KeyValue {
            key: b"c",
            create_revision: 6,
            mod_revision: 6,
            version: 1,
            value: b"4",
            lease: 0,
        };
        assert_eq!(KeyValue::parse(bytes), Ok(kv));
        assert_eq!(kv.encode(), bytes);
    }

    #[test]
    fn an_empty_value_is_the_marker_of_a_bumped_revision() {
        assert_eq!(KeyValue::parse(b""), Ok(KeyValue::default()));
    }

    #[test]
    fn cut_messages_and_wrong_types_are_refused() {
        let whole = KeyValue { key: b"key", lease: -1, ..Default::default() }.encode();
        for cut in [1, 3, whole.len() - 1] {
            assert!(KeyValue::parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(KeyValue::parse(b"\x08\x01").is_err(), "key as a number");
        assert!(KeyValue::parse(b"\x0b").is_err(), "a group");
        assert!(KeyValue::parse(b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f").is_err());
    }

    proptest! {
        #[test]
        fn parse_undoes_encode(
            key: Vec<u8>, value: Vec<u8>, create_revision: i64, mod_revision: i64, version: i64, lease: i64
        ) {
            let kv = KeyValue { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let bytes = kv.encode();
            prop_assert_eq!(KeyValue::parse(&bytes), Ok(kv));
            prop_assert_eq!(KeyValue::parse_key(&bytes), Ok(key.as_slice()));
        }

        #[test]
        fn any_bytes_are_parsed_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = KeyValue::parse(&bytes);
            let _ = KeyValue::parse_key(&bytes);
        }
    }
}
