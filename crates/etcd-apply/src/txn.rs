//! Transactions: what they compare, whether they are valid, and what they do.
//!
//! All compares, those of nested transactions too, are made against the store as it is before; then
//! the operations on the way taken are checked against that same store, and only if all are valid is
//! any carried out, in order, each seeing what those before it did.

use std::cmp::Ordering;

use etcd_schema::KeyValue;

use crate::error::Impossible;
use crate::range::KeyRange;
use crate::request::{Compare, Op, PutRequest, RangeRequest, RequestOp, Target, TxnRequest};
use crate::store::{Fault, Store, WriteTxn};

/// Numbers of `Compare.CompareTarget`.
mod target {
    pub(super) const VERSION: i32 = 0;
    pub(super) const CREATE: i32 = 1;
    pub(super) const MOD: i32 = 2;
    pub(super) const VALUE: i32 = 3;
    pub(super) const LEASE: i32 = 4;
}

/// What came of a request that may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was carried out, even if that changed nothing.
    Done,
    /// etcd answered with an error and did nothing.
    Refused,
    /// etcds differ in whether they carry it out.
    Doubtful,
}

/// The operations that a transaction carries out, nested transactions in place.
fn taken<'t>(store: &Store<'_>, txn: &'t TxnRequest) -> Vec<Step<'t>> {
    let holds = txn.compare.iter().all(|compare| holds(store, compare));
    let ops = if holds { &txn.success } else { &txn.failure };
    let step = |RequestOp { op }: &'t RequestOp| match op.as_ref()? {
        Op::Range(range) => Some(Step::Range(range)),
        Op::Put(put) => Some(Step::Put(put)),
        Op::DeleteRange(delete) => {
            Some(Step::Delete(KeyRange::new(&delete.key, &delete.range_end)))
        }
        Op::Txn(nested) => Some(Step::Nested(taken(store, nested))),
    };
    ops.iter().filter_map(step).collect()
}

/// One operation on the way taken.
enum Step<'t> {
    Range(&'t RangeRequest),
    Put(&'t PutRequest),
    Delete(KeyRange<'t>),
    Nested(Vec<Step<'t>>),
}

impl Step<'_> {
    fn writes(&self) -> bool {
        match self {
            Self::Range(_) => false,
            Self::Put(_) | Self::Delete(_) => true,
            Self::Nested(steps) => steps.iter().any(Step::writes),
        }
    }
}

/// Applies a transaction.
pub(crate) fn apply(store: &mut Store<'_>, txn: &TxnRequest) -> Result<Outcome, Fault> {
    let steps = taken(store, txn);
    if !puts_are_valid(store, &steps)? || !nested_ranges_are_valid(store, &steps) {
        return Ok(Outcome::Refused);
    }
    let readable = |step: &Step<'_>| !matches!(step, Step::Range(r) if !is_readable(store, r));
    if !steps.iter().all(readable) {
        // A member that is not asked by the client drops these reads before it checks them.
        let writes = steps.iter().any(Step::writes);
        return Ok(if writes { Outcome::Doubtful } else { Outcome::Refused });
    }
    let mut write = store.write()?;
    carry_out(&mut write, &steps)?;
    write.end();
    Ok(Outcome::Done)
}

/// Applies a put that stands alone.
pub(crate) fn apply_put(store: &mut Store<'_>, put: &PutRequest) -> Result<Outcome, Fault> {
    if !put_is_valid(store, put)? {
        return Ok(Outcome::Refused);
    }
    let mut write = store.write()?;
    carry_out(&mut write, &[Step::Put(put)])?;
    write.end();
    Ok(Outcome::Done)
}

/// Whether a transaction counts as writing while NOSPACE is raised. etcd looks at the puts of both
/// branches, but not into nested transactions (`etcdserver/quota.go`).
pub(crate) fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| matches!(op.op, Some(Op::Put(_))))
}

fn carry_out(write: &mut WriteTxn<'_, '_>, steps: &[Step<'_>]) -> Result<(), Fault> {
    for step in steps {
        match step {
            Step::Range(_) => {}
            Step::Put(put) => carry_out_put(write, put)?,
            Step::Delete(range) => write.delete_range(*range),
            Step::Nested(steps) => carry_out(write, steps)?,
        }
    }
    Ok(())
}

fn carry_out_put(write: &mut WriteTxn<'_, '_>, put: &PutRequest) -> Result<(), Fault> {
    if !put.ignore_value && !put.ignore_lease {
        return write.put(&put.key, &put.value, put.lease);
    }
    let gone = Fault::Impossible(Impossible::KeyGone);
    let before = write.store().get(&put.key).ok_or(gone)?;
    let lease = if put.ignore_lease { before.lease } else { put.lease };
    let value = if put.ignore_value { before.value.to_vec() } else { put.value.clone() };
    write.put(&put.key, &value, lease)
}

fn puts_are_valid(store: &Store<'_>, steps: &[Step<'_>]) -> Result<bool, Fault> {
    for step in steps {
        let valid = match step {
            Step::Put(put) => put_is_valid(store, put)?,
            Step::Nested(steps) => puts_are_valid(store, steps)?,
            Step::Range(_) | Step::Delete(_) => true,
        };
        if !valid {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is kept must be there, and so must the lease.
fn put_is_valid(store: &Store<'_>, put: &PutRequest) -> Result<bool, Fault> {
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && store.get(&put.key).is_none() {
        return Ok(false);
    }
    Ok(put.lease == 0 || store.leases.exists(put.lease)?)
}

/// Whether the reads of nested transactions, which every member checks, are of revisions to be had.
fn nested_ranges_are_valid(store: &Store<'_>, steps: &[Step<'_>]) -> bool {
    fn all(store: &Store<'_>, steps: &[Step<'_>]) -> bool {
        steps.iter().all(|step| match step {
            Step::Range(range) => is_readable(store, range),
            Step::Nested(steps) => all(store, steps),
            Step::Put(_) | Step::Delete(_) => true,
        })
    }
    steps.iter().all(|step| !matches!(step, Step::Nested(steps) if !all(store, steps)))
}

fn is_readable(store: &Store<'_>, range: &RangeRequest) -> bool {
    let to_be_had = store.compact_revision()..=store.revision();
    range.revision == 0 || to_be_had.contains(&range.revision)
}

/// Whether a condition holds: on every key of its range, or on the absence of any. A missing key has
/// zero everywhere, but no value, not even an empty one.
fn holds(store: &Store<'_>, compare: &Compare) -> bool {
    let range = KeyRange::new(&compare.key, &compare.range_end);
    let mut keys = store.range(range).peekable();
    if keys.peek().is_none() {
        return compare.target != target::VALUE && holds_for(compare, &KeyValue::default());
    }
    keys.all(|kv| holds_for(compare, &kv))
}

fn holds_for(compare: &Compare, kv: &KeyValue<'_>) -> bool {
    let ordering = order(compare, kv);
    match compare.result {
        0 => ordering == Ordering::Equal,
        1 => ordering == Ordering::Greater,
        2 => ordering == Ordering::Less,
        3 => ordering != Ordering::Equal,
        _ => true,
    }
}

/// How the key's side compares with the request's. An operand of another kind than the target counts
/// as zero or empty, as it does in etcd.
fn order(compare: &Compare, kv: &KeyValue<'_>) -> Ordering {
    let operand = compare.operand.as_ref();
    let number = |of_kind: fn(&Target) -> Option<i64>| operand.and_then(of_kind).unwrap_or(0);
    match compare.target {
        target::VERSION => kv.version.cmp(&number(|o| match o {
            Target::Version(n) => Some(*n),
            _ => None,
        })),
        target::CREATE => kv.create_revision.cmp(&number(|o| match o {
            Target::CreateRevision(n) => Some(*n),
            _ => None,
        })),
        target::MOD => kv.mod_revision.cmp(&number(|o| match o {
            Target::ModRevision(n) => Some(*n),
            _ => None,
        })),
        target::LEASE => kv.lease.cmp(&number(|o| match o {
            Target::Lease(n) => Some(*n),
            _ => None,
        })),
        target::VALUE => kv.value.cmp(match operand {
            Some(Target::Value(value)) => value.as_slice(),
            _ => &[],
        }),
        _ => Ordering::Equal,
    }
}
