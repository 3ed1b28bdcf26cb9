//! What the requests of a log are about: the keys and leases that must be known to apply them.

use std::collections::HashSet;

use crate::range::KeyRange;
use crate::request::{Op, Request, RequestOp, TxnRequest};

/// Keys, ranges of keys, and leases.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    keys: HashSet<Vec<u8>>,
    /// `(from, to)`; no `to` means all greater keys. Sorted and merged by [`finish`](Self::finish).
    ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Leases that are revoked: their keys are deleted, wherever they are.
    leases: HashSet<i64>,
}

impl Interest {
    pub(crate) fn add(&mut self, request: &Request) {
        match request {
            Request::Put(put) => self.add_range(KeyRange::Single(&put.key)),
            Request::DeleteRange(delete) => {
                self.add_range(KeyRange::new(&delete.key, &delete.range_end));
            }
            Request::Txn(txn) => self.add_txn(txn),
            Request::LeaseRevoke(revoke) => {
                self.leases.insert(revoke.id);
            }
            _ => {}
        }
    }

    fn add_txn(&mut self, txn: &TxnRequest) {
        for compare in &txn.compare {
            self.add_range(KeyRange::new(&compare.key, &compare.range_end));
        }
        for RequestOp { op } in txn.success.iter().chain(&txn.failure) {
            match op {
                Some(Op::Put(put)) => self.add_range(KeyRange::Single(&put.key)),
                Some(Op::DeleteRange(delete)) => {
                    self.add_range(KeyRange::new(&delete.key, &delete.range_end));
                }
                Some(Op::Txn(nested)) => self.add_txn(nested),
                Some(Op::Range(_)) | None => {}
            }
        }
    }

    fn add_range(&mut self, range: KeyRange<'_>) {
        match range {
            KeyRange::Single(key) => {
                if !self.keys.contains(key) {
                    self.keys.insert(key.to_vec());
                }
            }
            KeyRange::From(key) => self.ranges.push((key.to_vec(), None)),
            KeyRange::Between(key, end) if key < end => {
                self.ranges.push((key.to_vec(), Some(end.to_vec())));
            }
            KeyRange::Between(..) => {}
        }
    }

    /// To be called once all is added, before anything is asked.
    pub(crate) fn finish(&mut self) {
        self.ranges.sort_unstable();
        let mut merged: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for (from, to) in self.ranges.drain(..) {
            match merged.last_mut() {
                Some((_, end)) if end.as_ref().is_none_or(|end| *end >= from) => {
                    // No end is greater than any end, though `None` sorts first.
                    *end = end.take().zip(to).map(|(a, b)| a.max(b));
                }
                _ => merged.push((from, to)),
            }
        }
        self.ranges = merged;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty() && self.leases.is_empty()
    }

    pub(crate) fn has_key(&self, key: &[u8]) -> bool {
        self.keys.contains(key) || self.in_range(key)
    }

    pub(crate) fn has_lease(&self, lease: i64) -> bool {
        self.leases.contains(&lease)
    }

    pub(crate) fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    fn in_range(&self, key: &[u8]) -> bool {
        let after = self.ranges.partition_point(|(from, _)| from.as_slice() <= key);
        let Some((_, to)) = after.checked_sub(1).map(|at| &self.ranges[at]) else {
            return false;
        };
        to.as_ref().is_none_or(|to| key < to.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::build::*;
    use proptest::prelude::*;

    #[test]
    fn compares_and_both_branches_at_any_depth_are_of_interest() {
        let inner = txn(vec![], vec![], vec![Op::DeleteRange(delete("m", "n"))]);
        let compared = compare("c", 0, 0, crate::request::Target::Version(1));
        let outer = txn(vec![compared], vec![Op::Put(put("p", ""))], vec![Op::Txn(inner)]);
        let mut interest = Interest::default();
        interest.add(&Request::Txn(outer));
        interest.finish();
        for key in ["c", "p", "m", "mm"] {
            assert!(interest.has_key(key.as_bytes()), "{key}");
        }
        assert!(!interest.has_key(b"n") && !interest.has_key(b"pp"));
        assert!(!interest.has_leases());
    }

    proptest! {
        #[test]
        fn merged_ranges_hold_just_the_keys_of_all_ranges(
            ranges in prop::collection::vec((0u8..20, 0u8..20), 0..8),
            open in prop::option::of(0u8..20),
        ) {
            let mut interest = Interest::default();
            for (from, to) in &ranges {
                interest.add_range(KeyRange::Between(&[*from], &[*to]));
            }
            if let Some(from) = open {
                interest.add_range(KeyRange::From(&[from]));
            }
            interest.finish();
            for key in 0u8..25 {
                let expected = ranges.iter().any(|(from, to)| (*from..*to).contains(&key))
                    || open.is_some_and(|from| key >= from);
                prop_assert_eq!(interest.has_key(&[key]), expected, "key {}", key);
            }
        }
    }
}
