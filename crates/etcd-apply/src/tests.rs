//! The rules of etcd's state machine, each by the sentence that a test is named after.

mod harness;
mod refusals;
mod split;

use etcd_schema::Lease;

use crate::request::build::*;
use crate::request::{
    AlarmRequest, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, LeaseCheckpoint,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, MemberAttributes, Op,
    PutRequest, Request, Target,
};
use harness::World;

fn put_op(key: &str, value: &str) -> Op {
    Op::Put(put(key, value))
}

fn delete_op(key: &str, range_end: &str) -> Op {
    Op::DeleteRange(delete(key, range_end))
}

fn always(ops: Vec<Op>) -> Request {
    Request::Txn(txn(vec![], ops, vec![]))
}

fn grant(id: i64) -> Request {
    Request::LeaseGrant(LeaseGrantRequest { ttl: 100, id })
}

fn revoke(id: i64) -> Request {
    Request::LeaseRevoke(LeaseRevokeRequest { id })
}

fn alarm(action: i32, alarm: i32) -> Request {
    Request::Alarm(AlarmRequest { action, member_id: 1, alarm })
}

/// A store with a=1 (twice put), b=2, m=5 and n=6 at revision 6.
fn letters() -> World {
    World::new()
        .base(Request::Put(put("a", "0")))
        .base(Request::Put(put("a", "1")))
        .base(Request::Put(put("b", "2")))
        .base(Request::Put(put("m", "5")))
        .base(Request::Put(put("n", "6")))
}

#[test]
fn a_put_has_the_next_revision_and_counts_versions_from_the_creation() {
    let world = letters().log(Request::Put(put("a", "2"))).log(Request::Put(put("z", "")));
    assert_eq!(
        world.records(),
        ["7.0 put a=2 create 2 version 3", "8.0 put z= create 8 version 1"]
    );
}

#[test]
fn the_first_revision_of_an_empty_store_is_2() {
    let world = World::new().log(Request::Put(put("k", "v")));
    assert_eq!(world.records(), ["2.0 put k=v create 2 version 1"]);
}

#[test]
fn a_deleted_key_begins_a_new_life_when_it_is_put_again() {
    let world =
        letters().log(Request::DeleteRange(delete("a", ""))).log(Request::Put(put("a", "x")));
    assert_eq!(world.records(), ["7.0 del a", "8.0 put a=x create 8 version 1"]);
}

#[test]
fn a_range_is_deleted_in_one_revision_ascending_by_key() {
    let world = letters().log(Request::DeleteRange(delete("a", "n")));
    assert_eq!(world.records(), ["7.0 del a", "7.1 del b", "7.2 del m"]);
}

#[test]
fn a_range_end_of_one_zero_byte_deletes_the_key_and_all_greater() {
    let world = letters().log(Request::DeleteRange(delete("b", "\0")));
    assert_eq!(world.records(), ["7.0 del b", "7.1 del m", "7.2 del n"]);
}

#[test]
fn what_changes_nothing_does_not_raise_the_revision() {
    let world = letters()
        .log(Request::DeleteRange(delete("x", "")))
        .log(Request::DeleteRange(delete("n", "a")))
        .log(always(vec![delete_op("x", "z"), Op::Range(range_at(0))]))
        .log(always(vec![]))
        .log(Request::NoEffect)
        .log(Request::Put(put("k", "v")));
    assert_eq!(world.records(), ["7.0 put k=v create 7 version 1"]);
}

#[test]
fn the_changes_of_a_transaction_have_one_revision_and_count_subs_in_order() {
    let nested = Op::Txn(txn(vec![], vec![put_op("y", "2"), delete_op("a", "c")], vec![]));
    let world = letters().log(always(vec![put_op("x", "1"), nested, put_op("z", "3")]));
    let expected = [
        "7.0 put x=1 create 7 version 1",
        "7.1 put y=2 create 7 version 1",
        "7.2 del a",
        "7.3 del b",
        "7.4 put z=3 create 7 version 1",
    ];
    assert_eq!(world.records(), expected);
}

#[test]
fn a_key_may_be_deleted_and_put_in_one_revision_through_an_open_range() {
    let world = letters().log(always(vec![delete_op("m", "\0"), put_op("n", "9")]));
    assert_eq!(world.records(), ["7.0 del m", "7.1 del n", "7.2 put n=9 create 7 version 1"]);

    let world =
        letters().log(always(vec![put_op("n", "9"), put_op("o", "1"), delete_op("n", "\0")]));
    let expected = [
        "7.0 put n=9 create 6 version 2",
        "7.1 put o=1 create 7 version 1",
        "7.2 del n",
        "7.3 del o",
    ];
    assert_eq!(world.records(), expected);
}

#[test]
fn after_a_key_changed_twice_in_a_revision_its_last_change_counts() {
    let world = letters()
        .base(always(vec![delete_op("m", "\0"), put_op("n", "9")]))
        .log(Request::Put(put("n", "10")))
        .log(Request::Put(put("m", "11")));
    let expected = ["8.0 put n=10 create 7 version 2", "9.0 put m=11 create 9 version 1"];
    assert_eq!(world.records(), expected);
}

#[test]
fn a_put_can_keep_the_value_or_the_lease_of_before() {
    let keep_value = PutRequest { ignore_value: true, ..put_with_lease("k", "", 5) };
    let keep_lease = PutRequest { ignore_lease: true, ..put("k", "w") };
    let world = World::new()
        .base(grant(5))
        .base(Request::Put(put("k", "v")))
        .log(Request::Put(keep_value))
        .log(Request::Put(keep_lease));
    let expected =
        ["3.0 put k=v create 2 version 2 lease 5", "4.0 put k=w create 2 version 3 lease 5"];
    assert_eq!(world.records(), expected);
}

#[test]
fn a_put_that_keeps_what_is_not_there_does_nothing() {
    let keeps =
        |ignore_value, ignore_lease| PutRequest { ignore_value, ignore_lease, ..put("x", "v") };
    let world = letters()
        .log(Request::Put(keeps(true, false)))
        .log(Request::Put(keeps(false, true)))
        .log(always(vec![put_op("y", "1"), Op::Put(keeps(true, false))]));
    assert_eq!(world.records(), [""; 0]);
    assert_eq!(world.applied().refused, 3);
}

#[test]
fn a_put_with_a_lease_that_does_not_exist_does_nothing() {
    let world = letters()
        .log(Request::Put(put_with_lease("a", "x", 5)))
        .log(always(vec![put_op("y", "1"), Op::Put(put_with_lease("a", "x", 5))]))
        .log(grant(5))
        .log(Request::Put(put_with_lease("a", "x", 5)));
    assert_eq!(world.records(), ["7.0 put a=x create 2 version 3 lease 5"]);
}

/// Which branch a condition on the letters leads to.
fn branch(compares: Vec<crate::request::Compare>) -> String {
    let request = txn(compares, vec![put_op("t", "then")], vec![put_op("t", "else")]);
    let records = letters().log(Request::Txn(request)).records();
    records[0].split(['=', ' ']).nth(3).unwrap().to_owned()
}

#[test]
fn every_target_is_compared_in_every_way() {
    let value = |text: &str| Target::Value(text.into());
    let (equal, greater, less, not_equal) = (0, 1, 2, 3);
    let (version, create, modified, of_value, lease) = (0, 1, 2, 3, 4);
    let cases = [
        (compare("a", equal, version, Target::Version(2)), "then"),
        (compare("a", equal, create, Target::CreateRevision(2)), "then"),
        (compare("a", equal, modified, Target::ModRevision(3)), "then"),
        (compare("a", equal, of_value, value("1")), "then"),
        (compare("a", equal, lease, Target::Lease(0)), "then"),
        (compare("a", greater, version, Target::Version(1)), "then"),
        (compare("a", greater, version, Target::Version(2)), "else"),
        (compare("a", less, of_value, value("2")), "then"),
        (compare("a", less, of_value, value("1")), "else"),
        (compare("a", not_equal, modified, Target::ModRevision(3)), "else"),
        (compare("a", not_equal, modified, Target::ModRevision(2)), "then"),
    ];
    for (case, expected) in cases {
        assert_eq!(branch(vec![case.clone()]), expected, "{case:?}");
    }
}

#[test]
fn a_missing_key_has_zero_everywhere_and_no_value() {
    assert_eq!(branch(vec![compare("x", 0, 0, Target::Version(0))]), "then");
    assert_eq!(branch(vec![compare("x", 0, 1, Target::CreateRevision(0))]), "then");
    assert_eq!(branch(vec![compare("x", 2, 2, Target::ModRevision(1))]), "then");
    assert_eq!(branch(vec![compare("x", 0, 3, Target::Value(vec![]))]), "else");
    assert_eq!(branch(vec![compare("x", 3, 3, Target::Value(vec![1]))]), "else");
}

#[test]
fn an_operand_of_another_kind_than_the_target_counts_as_zero() {
    assert_eq!(branch(vec![compare("a", 0, 0, Target::ModRevision(2))]), "else");
    assert_eq!(branch(vec![compare("x", 0, 0, Target::ModRevision(2))]), "then");
}

#[test]
fn a_range_is_compared_key_by_key_and_all_must_hold() {
    let over = |key: &str, end: &str, version| {
        let one = compare(key, 0, 0, Target::Version(version));
        crate::request::Compare { range_end: end.into(), ..one }
    };
    assert_eq!(branch(vec![over("b", "\0", 1)]), "then");
    assert_eq!(branch(vec![over("a", "\0", 1)]), "else", "a has version 2");
    assert_eq!(branch(vec![over("c", "d", 0)]), "then", "nothing there");
    assert_eq!(branch(vec![over("b", "\0", 1), over("a", "", 1)]), "else", "both must hold");
}

#[test]
fn nested_transactions_compare_with_the_store_as_it_was_before() {
    let exists = compare("k", 1, 0, Target::Version(0));
    let nested = txn(vec![exists], vec![put_op("t", "then")], vec![put_op("t", "else")]);
    let world = World::new().log(always(vec![put_op("k", "v"), Op::Txn(nested)]));
    let expected = ["2.0 put k=v create 2 version 1", "2.1 put t=else create 2 version 1"];
    assert_eq!(world.records(), expected);
}

#[test]
fn only_the_branch_that_is_taken_must_be_valid() {
    let bad = Op::Put(put_with_lease("a", "x", 5));
    let world = letters().log(Request::Txn(txn(vec![], vec![put_op("y", "1")], vec![bad])));
    assert_eq!(world.records(), ["7.0 put y=1 create 7 version 1"]);
}

#[test]
fn a_transaction_whose_nested_part_is_not_valid_does_nothing() {
    let bad = Op::Txn(txn(vec![], vec![Op::Put(put_with_lease("a", "x", 5))], vec![]));
    let future = Op::Txn(txn(vec![], vec![Op::Range(range_at(100))], vec![]));
    let world = letters()
        .log(always(vec![put_op("y", "1"), bad]))
        .log(always(vec![put_op("y", "1"), future]));
    assert_eq!(world.records(), [""; 0]);
}

#[test]
fn a_read_of_a_revision_to_be_had_does_no_harm() {
    let world = letters().base(compaction(4)).log(always(vec![
        Op::Range(range_at(4)),
        Op::Range(range_at(6)),
        put_op("y", "1"),
    ]));
    assert_eq!(world.records(), ["7.0 put y=1 create 7 version 1"]);
}

#[test]
fn revoking_a_lease_deletes_its_keys_ascending_in_one_revision() {
    let world = World::new()
        .base(grant(5))
        .base(Request::Put(put_with_lease("z", "1", 5)))
        .base(Request::Put(put_with_lease("a", "1", 5)))
        .base(Request::Put(put("b", "1")))
        .log(Request::Put(put_with_lease("m", "1", 5)))
        .log(revoke(5))
        .log(revoke(5));
    let expected =
        ["5.0 put m=1 create 5 version 1 lease 5", "6.0 del a", "6.1 del m", "6.2 del z"];
    assert_eq!(world.records(), expected);
    assert_eq!(world.applied().leases.get(&5), Some(&None));
}

#[test]
fn revoking_a_lease_without_keys_does_not_raise_the_revision() {
    let world = letters().base(grant(5)).log(revoke(5));
    assert_eq!(world.records(), [""; 0]);
    assert_eq!(world.applied().revision, 6);
    assert_eq!(world.applied().leases.get(&5), Some(&None));
}

#[test]
fn a_put_takes_a_key_off_its_former_lease() {
    let world = World::new()
        .base(grant(5))
        .base(grant(6))
        .base(Request::Put(put_with_lease("a", "1", 5)))
        .base(Request::Put(put_with_lease("b", "1", 5)))
        .base(Request::Put(put_with_lease("c", "1", 5)))
        .base(Request::Put(put("c", "2")))
        .log(Request::Put(put_with_lease("a", "2", 6)))
        .log(Request::Put(put("b", "2")))
        .log(revoke(5))
        .log(revoke(6));
    let expected =
        ["6.0 put a=2 create 2 version 2 lease 6", "7.0 put b=2 create 3 version 2", "8.0 del a"];
    assert_eq!(world.records(), expected);
}

#[test]
fn a_deleted_key_is_off_its_lease() {
    let world = World::new()
        .base(grant(5))
        .base(Request::Put(put_with_lease("a", "1", 5)))
        .base(Request::Put(put_with_lease("b", "1", 5)))
        .base(Request::DeleteRange(delete("b", "")))
        .log(Request::DeleteRange(delete("a", "")))
        .log(Request::Put(put("a", "2")))
        .log(revoke(5));
    assert_eq!(world.records(), ["5.0 del a", "6.0 put a=2 create 6 version 1"]);
}

#[test]
fn a_key_whose_lease_is_not_in_the_database_is_attached_to_none() {
    let world = World::new()
        .base(grant(5))
        .base(Request::Put(put_with_lease("a", "1", 5)))
        .without_lease_rows()
        .log(grant(5))
        .log(revoke(5));
    assert_eq!(world.records(), [""; 0], "a lease of the same id is another lease");
}

#[test]
fn leases_are_granted_once_and_their_rows_kept() {
    let world = World::new().base(grant(5)).log(grant(5)).log(grant(-7)).log(revoke(8));
    let lease = Lease { id: -7, ttl: 100, remaining_ttl: 0 };
    let leases: Vec<_> = world.applied().leases.into_iter().collect();
    assert_eq!(leases, [(-7, Some(lease))]);
    let rows = world.bucket("lease");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[&(-7i64).to_be_bytes().to_vec()], lease.encode_value());
}

#[test]
fn a_checkpoint_is_stored_from_cluster_version_3_6_on() {
    let checkpoint = || {
        let checkpoints = vec![LeaseCheckpoint { id: 5, remaining_ttl: 40 }];
        Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })
    };
    let version =
        |ver: &str| Request::ClusterVersionSet(ClusterVersionSetRequest { ver: ver.to_owned() });
    for (ver, expected) in [("3.5.0", None), ("3.6.0", Some(40)), ("3.10.0", Some(40))] {
        let world = World::new().base(version(ver)).base(grant(5)).log(checkpoint());
        let left = world.applied().leases.get(&5).map(|lease| lease.unwrap().remaining_ttl);
        assert_eq!(left, expected, "{ver}");
    }
}

#[test]
fn a_full_store_refuses_puts_and_grants_but_not_deletions() {
    let (activate, deactivate, no_space) = (1, 2, 1);
    let nested = || Op::Txn(txn(vec![], vec![put_op("y", "1")], vec![]));
    let world = letters()
        .log(alarm(activate, no_space))
        .log(Request::Put(put("x", "1")))
        .log(always(vec![delete_op("a", ""), put_op("x", "1")]))
        .log(Request::Txn(txn(vec![], vec![], vec![put_op("x", "1")])))
        .log(grant(5))
        .log(always(vec![delete_op("a", "")]))
        .log(always(vec![nested()]))
        .log(alarm(deactivate, no_space))
        .log(Request::Put(put("x", "2")));
    let expected =
        ["7.0 del a", "8.0 put y=1 create 8 version 1", "9.0 put x=2 create 9 version 1"];
    assert_eq!(world.records(), expected, "etcd does not look for puts in nested transactions");
    assert!(world.applied().leases.is_empty());
    assert_eq!(world.applied().refused, 4);
}

#[test]
fn a_corrupt_store_refuses_every_change() {
    let world = letters()
        .base(alarm(1, 2))
        .log(Request::Put(put("x", "1")))
        .log(Request::DeleteRange(delete("a", "")))
        .log(always(vec![delete_op("a", "")]))
        .log(compaction(5))
        .log(grant(5));
    assert_eq!(world.records(), [""; 0]);
    assert_eq!((world.applied().refused, world.applied().compact_revision), (5, None));
}

#[test]
fn alarms_are_rows_that_come_and_go() {
    let world = letters().base(alarm(1, 1)).log(alarm(2, 1)).log(alarm(1, 2));
    let rows: Vec<_> = world.bucket("alarm").into_keys().collect();
    assert_eq!(rows, [vec![0x08, 1, 0x10, 2]]);
}

#[test]
fn a_compaction_is_scheduled_for_etcd_to_complete() {
    let world = letters().log(compaction(5)).log(compaction(4)).log(compaction(100));
    assert_eq!(world.applied().compact_revision, Some(5));
    let meta = world.bucket("meta");
    assert_eq!(meta[&b"scheduledCompactRev".to_vec()], b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0");
    assert!(!meta.contains_key(b"finishedCompactRev".as_slice()));
}

#[test]
fn a_compaction_that_was_only_scheduled_counts_as_done() {
    let world = letters().base(compaction(5)).log(compaction(5)).log(compaction(6));
    assert_eq!(world.applied().compact_revision, Some(6));
}

#[test]
fn the_revision_is_not_less_than_the_compact_revision() {
    let world = World::new()
        .base(Request::Put(put("a", "1")))
        .base(Request::DeleteRange(delete("a", "")))
        .base(compaction(3))
        .without_key_rows()
        .log(Request::Put(put("b", "1")));
    assert_eq!(world.records(), ["4.0 put b=1 create 4 version 1"]);
}

#[test]
fn index_and_term_of_the_last_entry_are_kept() {
    let world = letters().log_nothing().log(Request::Put(put("x", "1"))).log_nothing();
    let applied = world.applied();
    assert_eq!((applied.consistent_index, applied.term), (8, Some(3)));
    let meta = world.bucket("meta");
    assert_eq!(meta[&b"consistent_index".to_vec()], 8u64.to_be_bytes());
    assert_eq!(meta[&b"term".to_vec()], 3u64.to_be_bytes());
}

#[test]
fn a_database_of_3_4_gets_no_term() {
    let world = letters().without_term().log(Request::Put(put("x", "1")));
    assert!(!world.bucket("meta").contains_key(b"term".as_slice()));
}

#[test]
fn a_log_with_nothing_new_changes_nothing() {
    let applied = letters().applied();
    assert_eq!((applied.entries, applied.revision, applied.consistent_index), (0, 6, 5));
    assert!(applied.records.is_empty() && applied.rows.is_empty());
}

#[test]
fn all_entries_are_applied_unless_only_the_committed_ones_are_asked_for() {
    let world = letters()
        .log(Request::Put(put("x", "1")))
        .log(Request::Put(put("x", "2")))
        .log(Request::Put(put("x", "3")))
        .commit_back(2);
    let expected = [
        "7.0 put x=1 create 7 version 1",
        "8.0 put x=2 create 7 version 2",
        "9.0 put x=3 create 7 version 3",
    ];
    assert_eq!(world.records(), expected);
    let applied = world.applied();
    assert_eq!((applied.entries, applied.beyond_commit), (3, 2));
    assert_eq!((applied.consistent_index, applied.term), (8, Some(3)));

    let committed = world.committed_only();
    assert_eq!(committed.records(), expected[..1]);
    let applied = committed.applied();
    assert_eq!((applied.entries, applied.beyond_commit), (1, 0));
    assert_eq!(applied.consistent_index, 6);
}

#[test]
fn a_log_with_nothing_new_still_tells_the_term_of_its_last_entry() {
    let world = letters().log_nothing();
    let applied = world.settle().without_term().applied();
    assert_eq!((applied.entries, applied.term), (0, Some(3)));
}

#[test]
fn a_member_that_has_just_joined_may_be_missing_in_its_database() {
    let world = letters().base_member(2, "http://b:1");
    let added = world.log_conf_change(0, 1, r#"{"id":1,"peerURLs":["http://a:1"]}"#);
    let added = added.log_of(1);
    assert_eq!(added.applied().entries, 1);
    let world = letters().base_member(2, "http://b:1");
    let removed = world.base_row(b"members_removed", b"1", b"removed").log_of(1).log_nothing();
    assert_eq!(removed.applied().entries, 1, "its own removal is in the database");
}

#[test]
fn members_publish_themselves_and_the_cluster_version_is_set() {
    let attributes = MemberAttributes { name: "n1".into(), client_urls: vec!["http://c:1".into()] };
    let set = ClusterMemberAttrSetRequest { member_id: 0xabc, attributes: Some(attributes) };
    let new = [
        Request::ClusterMemberAttrSet(set),
        Request::ClusterVersionSet(ClusterVersionSetRequest { ver: "3.5.0".into() }),
    ];
    let old = [
        v2_put("/0/members/abc/attributes", r#"{"name":"n1","clientURLs":["http://c:1"]}"#),
        v2_put("/0/version", "3.5.0"),
    ];
    for [member, version] in [new, old] {
        let world = World::new().base_member(0xabc, "http://p:1").log(member).log(version);
        let expected =
            r#"{"id":2748,"peerURLs":["http://p:1"],"name":"n1","clientURLs":["http://c:1"]}"#;
        assert_eq!(world.bucket("members")[&b"abc".to_vec()], expected.as_bytes());
        assert_eq!(world.bucket("cluster")[&b"clusterVersion".to_vec()], b"3.5.0");
    }
}

#[test]
fn members_join_as_learners_are_promoted_move_and_leave() {
    let json = r#"{"id":2,"peerURLs":["http://p:2"],"isLearner":true}"#;
    let (add, remove, update, add_learner) = (0, 1, 2, 3);
    let world = World::new().base_member(1, "http://p:1").log_conf_change(add_learner, 2, json);
    assert_eq!(world.bucket("members")[&b"2".to_vec()], json.as_bytes());

    let world = world.log_conf_change(add, 2, r#"{"id":2,"peerURLs":[],"isPromote":true}"#);
    let promoted = br#"{"id":2,"peerURLs":["http://p:2"]}"#;
    assert_eq!(world.bucket("members")[&b"2".to_vec()], promoted);

    let world = world.log_conf_change(update, 2, r#"{"id":2,"peerURLs":["http://q:2"]}"#);
    let moved = br#"{"id":2,"peerURLs":["http://q:2"]}"#;
    assert_eq!(world.bucket("members")[&b"2".to_vec()], moved);

    let world = world.log_conf_change(remove, 2, "").log_conf_change(add, 2, json);
    assert!(!world.bucket("members").contains_key(b"2".as_slice()));
    assert_eq!(world.bucket("members_removed")[&b"2".to_vec()], b"removed");
}
