//! Leases: the rows of the bucket `lease`, and what was done to them.

use std::collections::BTreeMap;

use bolt::{BoltError, Bucket};
use etcd_schema::{Lease, ReadError, lease_key};

/// etcd grants no longer lease (`lease/lessor.go`).
const TTL_MAX: i64 = 9_000_000_000;

/// The lessor, as far as the log changes it. Rows that it does not touch are looked up when needed.
#[derive(Debug)]
pub(crate) struct Leases<'a> {
    base: Option<Bucket<'a>>,
    /// `None` for a revoked lease.
    changed: BTreeMap<i64, Option<Lease>>,
    ttl_min: i64,
}

impl<'a> Leases<'a> {
    pub(crate) fn new(base: Option<Bucket<'a>>, ttl_min: i64) -> Self {
        Self { base, changed: BTreeMap::new(), ttl_min }
    }

    pub(crate) fn exists(&self, id: i64) -> Result<bool, BoltError> {
        match (self.changed.get(&id), &self.base) {
            (Some(lease), _) => Ok(lease.is_some()),
            (None, Some(base)) => Ok(base.get(&lease_key(id))?.is_some()),
            (None, None) => Ok(false),
        }
    }

    fn get(&self, id: i64) -> Result<Option<Lease>, ReadError> {
        match (self.changed.get(&id), &self.base) {
            (Some(lease), _) => Ok(*lease),
            (None, Some(base)) => Ok(base.get(&lease_key(id))?.map(Lease::parse).transpose()?),
            (None, None) => Ok(None),
        }
    }

    /// Grants a lease, unless it exists or its TTL is too long. A short TTL is raised to the least.
    pub(crate) fn grant(&mut self, id: i64, ttl: i64) -> Result<(), BoltError> {
        if id == 0 || ttl > TTL_MAX || self.exists(id)? {
            return Ok(());
        }
        let ttl = ttl.max(self.ttl_min);
        self.changed.insert(id, Some(Lease { id, ttl, remaining_ttl: 0 }));
        Ok(())
    }

    /// Removes a lease; its keys must be gone already.
    pub(crate) fn remove(&mut self, id: i64) {
        self.changed.insert(id, None);
    }

    /// Stores what is left of a lease's time.
    pub(crate) fn checkpoint(&mut self, id: i64, remaining_ttl: i64) -> Result<(), ReadError> {
        if let Some(lease) = self.get(id)? {
            self.changed.insert(id, Some(Lease { remaining_ttl, ..lease }));
        }
        Ok(())
    }

    pub(crate) fn into_changed(self) -> BTreeMap<i64, Option<Lease>> {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_exists_is_not_granted_again() {
        let mut leases = Leases::new(None, 2);
        leases.grant(5, 100).unwrap();
        leases.grant(5, 200).unwrap();
        assert_eq!(leases.get(5).unwrap().unwrap().ttl, 100);
    }

    #[test]
    fn a_ttl_is_raised_to_the_least_and_refused_above_the_most() {
        let mut leases = Leases::new(None, 2);
        leases.grant(1, 1).unwrap();
        leases.grant(2, TTL_MAX).unwrap();
        leases.grant(3, TTL_MAX + 1).unwrap();
        leases.grant(0, 10).unwrap();
        assert_eq!(leases.get(1).unwrap().unwrap().ttl, 2);
        assert!(leases.exists(2).unwrap());
        assert!(!leases.exists(3).unwrap() && !leases.exists(0).unwrap());
    }

    #[test]
    fn a_checkpoint_of_a_lease_that_is_gone_does_nothing() {
        let mut leases = Leases::new(None, 2);
        leases.grant(1, 100).unwrap();
        leases.remove(1);
        leases.checkpoint(1, 50).unwrap();
        assert_eq!(leases.into_changed(), BTreeMap::from([(1, None)]));
    }
}
