//! Random logs: where the database ends and the log begins must not matter.

use proptest::prelude::*;

use super::harness::World;
use super::*;
use crate::request::{Compare, DeleteRangeRequest, TxnRequest};

/// Few keys, so that they meet.
fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ba", "c", "d", "e"]).prop_map(str::to_owned)
}

fn range_end() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "", "\0", "b", "c", "z"]).prop_map(str::to_owned)
}

fn lease() -> impl Strategy<Value = i64> {
    prop::sample::select(vec![0, 0, 0, 1, 2, -3])
}

fn a_put() -> impl Strategy<Value = PutRequest> {
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    (key(), 0u8..4, lease(), flags).prop_map(|(key, value, lease, (ignore_value, ignore_lease))| {
        // The API takes no lease with ignore_lease and no value with ignore_value.
        let value = if ignore_value { String::new() } else { value.to_string() };
        let lease = if ignore_lease { 0 } else { lease };
        PutRequest { ignore_value, ignore_lease, ..put_with_lease(&key, &value, lease) }
    })
}

fn a_delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end()).prop_map(|(key, end)| delete(&key, &end))
}

fn a_compare() -> impl Strategy<Value = Compare> {
    let operand = prop_oneof![
        (0i64..3).prop_map(Target::Version),
        (0i64..9).prop_map(Target::CreateRevision),
        (0i64..9).prop_map(Target::ModRevision),
        (0u8..4).prop_map(|value| Target::Value(value.to_string().into_bytes())),
        lease().prop_map(Target::Lease),
    ];
    (key(), range_end(), 0i32..4, operand).prop_map(|(key, end, result, operand)| {
        let target = match operand {
            Target::Version(_) => 0,
            Target::CreateRevision(_) => 1,
            Target::ModRevision(_) => 2,
            Target::Value(_) => 3,
            Target::Lease(_) => 4,
        };
        Compare { range_end: end.into_bytes(), ..compare(&key, result, target, operand) }
    })
}

fn a_txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![a_put().prop_map(Op::Put), a_delete().prop_map(Op::DeleteRange)];
    let ops = prop::collection::vec(op, 0..4);
    let leaf = (prop::collection::vec(a_compare(), 0..2), ops.clone(), ops)
        .prop_map(|(compares, then, other)| txn(compares, then, other));
    leaf.prop_recursive(2, 8, 2, |inner| {
        let nested = prop::collection::vec(inner.clone().prop_map(Op::Txn), 0..2);
        (inner, nested).prop_map(|(outer, nested)| {
            let ops = |ops: Vec<Op>| txn(vec![], ops, vec![]).success;
            TxnRequest { success: [outer.success, ops(nested)].concat(), ..outer }
        })
    })
}

fn a_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        4 => a_put().prop_map(Request::Put),
        2 => a_delete().prop_map(Request::DeleteRange),
        4 => a_txn().prop_map(Request::Txn),
        2 => lease().prop_map(grant),
        1 => lease().prop_map(revoke),
        1 => (1i64..20).prop_map(compaction),
    ]
}

type Rows = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// All that applying gives, bucket by bucket, or why it is refused.
fn outcome(world: &World) -> Result<Vec<Rows>, String> {
    world.apply().map_err(|error| error.to_string())?;
    Ok(["key", "lease", "meta"].map(|name| world.bucket(name)).to_vec())
}

proptest! {
    /// Goal: what is gathered from the database is what applying had made of it. Method: the same
    /// requests, with the database ending after each of them in turn, must give the same.
    #[test]
    fn where_the_database_ends_and_the_log_begins_does_not_matter(
        requests in prop::collection::vec(a_request(), 1..25), at: prop::sample::Index,
    ) {
        let log = |world: World, requests: &[Request]| {
            requests.iter().cloned().fold(world, World::log)
        };
        let whole = log(World::new(), &requests);
        let expected = outcome(&whole);
        // etcd would stop at some of these; only the rest can be in a database.
        prop_assume!(expected.is_ok());
        let (before, after) = requests.split_at(at.index(requests.len()));
        let split = log(log(World::new(), before).settle(), after);
        prop_assert_eq!(outcome(&split), expected);
    }

    /// Goal: the order of records is that of etcd, so that they can be appended as they come.
    #[test]
    fn records_ascend_and_revisions_have_no_gap(
        requests in prop::collection::vec(a_request(), 1..25),
    ) {
        let world = requests.into_iter().fold(World::new(), World::log);
        if let Ok(applied) = world.apply() {
            let revisions: Vec<_> = applied.records.iter().map(|r| r.key.revision).collect();
            for pair in revisions.windows(2) {
                let next_sub = pair[1].main == pair[0].main && pair[1].sub == pair[0].sub + 1;
                let next_main = pair[1].main == pair[0].main + 1 && pair[1].sub == 0;
                prop_assert!(next_sub || next_main, "{} after {}", pair[1], pair[0]);
            }
            prop_assert!(revisions.first().is_none_or(|first| (first.main, first.sub) == (2, 0)));
        }
    }
}
