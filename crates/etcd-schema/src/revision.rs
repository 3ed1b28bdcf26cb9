//! Revision keys: the keys of bucket `key`.
//!
//! ```text
//!   0         8    9          17    18
//!   | main BE | _  | sub BE   | t |      17 bytes for a put, 18 with the `t` of a tombstone
//! ```
//!
//! Byte order equals (main, sub) order. Older etcds do not check the form and newer ones panic on a
//! bad one; here it is an error.

use crate::{SchemaError, error::hex};

const SEPARATOR: u8 = b'_';
const TOMBSTONE: u8 = b't';

/// When a change happened: `main` counts transactions, `sub` the changes inside one.
/// Field order is etcd's order, so the derived `Ord` is etcd's too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction, counted from 2 on a fresh store.
    pub main: i64,
    /// The change inside the transaction, counted from 0.
    pub sub: i64,
}

/// The key of one record: its revision, and whether it is a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionKey {
    /// When the record was written.
    pub revision: Revision,
    /// The record deletes its user key.
    pub tombstone: bool,
}

impl Revision {
    /// The 17 bytes etcd stores for this revision, in keys of a put and in `meta`.
    pub fn encode(self) -> [u8; 17] {
        let mut out = [0; 17];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[8] = SEPARATOR;
        out[9..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    /// Parses the 17 bytes of [`encode`](Self::encode).
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        let form = || SchemaError::RevisionForm { key: hex(bytes) };
        let bytes: &[u8; 17] =
            bytes.try_into().map_err(|_| SchemaError::RevisionLength { key: hex(bytes) })?;
        let (main, rest) = bytes.split_first_chunk::<8>().expect("17 bytes hold 8");
        let (sep, sub) = rest.split_first_chunk::<1>().expect("9 bytes hold 1");
        let sub: &[u8; 8] = sub.try_into().expect("8 bytes are left");
        let (main, sub) = (i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
        if *sep != [SEPARATOR] || main < 0 || sub < 0 {
            return Err(form());
        }
        Ok(Self { main, sub })
    }
}

impl RevisionKey {
    /// Parses a key of bucket `key`.
    pub fn parse(bytes: &[u8]) -> Result<Self, SchemaError> {
        match bytes {
            [revision @ .., mark] if bytes.len() == 18 => {
                if *mark != TOMBSTONE {
                    return Err(SchemaError::RevisionForm { key: hex(bytes) });
                }
                Ok(Self { revision: Revision::parse(revision)?, tombstone: true })
            }
            _ => Ok(Self { revision: Revision::parse(bytes)?, tombstone: false }),
        }
    }

    /// The bytes of the key: 17, or 18 for a tombstone.
    pub fn encode(self) -> Vec<u8> {
        let mut out = self.revision.encode().to_vec();
        if self.tombstone {
            out.push(TOMBSTONE);
        }
        out
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tombstone_is_the_revision_and_a_t() {
        let key = RevisionKey { revision: Revision { main: 5, sub: 1 }, tombstone: true };
        assert_eq!(hex(&key.encode()), "00000000000000055f000000000000000174");
        assert_eq!(RevisionKey::parse(&key.encode()), Ok(key));
    }

    #[test]
    fn other_lengths_separators_and_negative_numbers_are_refused() {
        let good = Revision { main: 2, sub: 0 }.encode();
        for len in [0, 1, 16, 19] {
            let bytes = vec![0; len];
            assert!(matches!(RevisionKey::parse(&bytes), Err(SchemaError::RevisionLength { .. })));
        }
        for (at, with) in [(0, 0x80), (8, b'-'), (9, 0xff)] {
            let mut bytes = good;
            bytes[at] = with;
            assert!(matches!(RevisionKey::parse(&bytes), Err(SchemaError::RevisionForm { .. })));
        }
        let mut marked = good.to_vec();
        marked.push(b'x');
        assert!(matches!(RevisionKey::parse(&marked), Err(SchemaError::RevisionForm { .. })));
    }

    proptest! {
        #[test]
        fn parse_undoes_encode_and_byte_order_is_revision_order(
            a in (0..=i64::MAX, 0..=i64::MAX), b in (0..=i64::MAX, 0..=i64::MAX)
        ) {
            let (a, b) = (Revision { main: a.0, sub: a.1 }, Revision { main: b.0, sub: b.1 });
            prop_assert_eq!(Revision::parse(&a.encode()), Ok(a));
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }
    }
}
