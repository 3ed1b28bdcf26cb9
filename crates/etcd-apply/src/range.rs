//! Ranges of user keys, as requests name them: a key and a range end.

use std::ops::Bound;

/// The keys that a request is about.
///
/// `range_end` empty: just `key`. One zero byte: `key` and all greater. Else `[key, range_end)`,
/// which may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRange<'r> {
    Single(&'r [u8]),
    From(&'r [u8]),
    Between(&'r [u8], &'r [u8]),
}

/// Bounds for a map's `range`.
type Bounds<'r> = (Bound<&'r [u8]>, Bound<&'r [u8]>);

impl<'r> KeyRange<'r> {
    pub(crate) fn new(key: &'r [u8], range_end: &'r [u8]) -> Self {
        match range_end {
            [] => Self::Single(key),
            [0] => Self::From(key),
            end => Self::Between(key, end),
        }
    }

    /// `None` if no key can be in it (and a map's `range` would panic).
    pub(crate) fn bounds(self) -> Option<Bounds<'r>> {
        match self {
            Self::Single(key) => Some((Bound::Included(key), Bound::Included(key))),
            Self::From(key) => Some((Bound::Included(key), Bound::Unbounded)),
            Self::Between(key, end) => {
                (key < end).then_some((Bound::Included(key), Bound::Excluded(end)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_end_of_one_zero_byte_means_all_greater_keys() {
        assert_eq!(KeyRange::new(b"a", b""), KeyRange::Single(b"a"));
        assert_eq!(KeyRange::new(b"a", b"\0"), KeyRange::From(b"a"));
        assert_eq!(KeyRange::new(b"a", b"\0\0"), KeyRange::Between(b"a", b"\0\0"));
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        assert_eq!(KeyRange::new(b"b", b"a").bounds(), None);
        assert_eq!(KeyRange::new(b"b", b"b").bounds(), None);
        assert!(KeyRange::new(b"b", b"c").bounds().is_some());
    }
}
