//! What is not applied, and what the user is told.

use super::harness::World;
use super::*;
use crate::{ApplyError, Impossible};
use etcd_schema::MemberId;

/// The error, after a look at its remedy.
fn refusal(world: &World) -> ApplyError {
    let error = world.apply().unwrap_err();
    assert!(error.remedy().contains("--db-only"), "{}", error.remedy());
    error
}

#[test]
fn a_database_with_authentication_on_is_refused() {
    let world = letters().log(Request::Put(put("x", "1")));
    let on = world.clone().base_row(b"auth", b"authEnabled", &[1]);
    assert!(matches!(refusal(&on), ApplyError::AuthEnabled));
    let off = world.base_row(b"auth", b"authEnabled", &[0]);
    assert_eq!(off.records().len(), 1);
}

#[test]
fn an_entry_that_changes_authentication_is_refused_before_anything_is_done() {
    let world = letters().log(Request::Put(put("x", "1"))).log_data(0, Some(auth_enable()));
    let error = refusal(&world);
    assert!(matches!(error, ApplyError::AuthEntry { index: 7, request: "auth enable" }), "{error}");
    let harmless = letters().log_data(0, Some(authenticate()));
    assert_eq!(harmless.applied().entries, 1);
}

#[test]
fn an_entry_that_is_not_understood_is_refused() {
    for (entry_type, data) in [(0, &b"\xff\xff"[..]), (1, b"\xff"), (2, b"\x08\x00")] {
        let world = letters().log_data(entry_type, Some(data.to_vec()));
        let error = refusal(&world);
        assert!(matches!(error, ApplyError::UnknownEntry { index: 6 }), "{error}");
    }
}

#[test]
fn a_log_that_begins_after_the_database_is_refused() {
    let world = letters().log_nothing().log_nothing().log(Request::Put(put("x", "1"))).purge(1);
    let error = refusal(&world.clone());
    let expected = (5, 7);
    assert!(
        matches!(error, ApplyError::MissingEntries { consistent_index, first }
            if (consistent_index, first) == expected),
        "{error}"
    );
}

#[test]
fn a_log_that_ends_before_the_database_is_refused() {
    let index = 50u64.to_be_bytes();
    let world = letters().log_nothing().base_row(b"meta", b"consistent_index", &index);
    let error = refusal(&world);
    let expected = (50, 6);
    assert!(
        matches!(error, ApplyError::LogBehindDatabase { consistent_index, last }
            if (consistent_index, last) == expected),
        "{error}"
    );
}

#[test]
fn a_log_of_a_member_that_the_database_does_not_know_is_refused() {
    let world = letters().base_member(2, "http://b:1").log(Request::Put(put("x", "1"))).log_of(1);
    let error = refusal(&world);
    assert!(matches!(error, ApplyError::ForeignLog { member } if member == MemberId(1)), "{error}");
    let own = world.base_member(1, "http://a:1");
    assert_eq!(own.records().len(), 1);
}

#[test]
fn a_log_with_another_term_where_the_database_ends_is_refused() {
    let in_term = |term: u64, version: &str| {
        letters()
            .base_row(b"meta", b"term", &term.to_be_bytes())
            .base_row(b"cluster", b"clusterVersion", version.as_bytes())
            .log(Request::Put(put("x", "1")))
    };
    let error = refusal(&in_term(2, "3.5.0"));
    let expected = (5, 2, 3);
    assert!(
        matches!(error, ApplyError::OtherTerm { index, database, log }
            if (index, database, log) == expected),
        "{error}"
    );
    assert_eq!(in_term(3, "3.5.0").records().len(), 1);
    assert_eq!(in_term(2, "3.4.0").records().len(), 1, "3.4 does not keep it up to date");
}

#[test]
fn a_database_older_than_the_raft_snapshot_is_refused() {
    let index = 3u64.to_be_bytes();
    let world = letters().snapshot_at(5).base_row(b"meta", b"consistent_index", &index);
    let error = refusal(&world);
    let expected = (5, 3);
    assert!(
        matches!(error, ApplyError::SnapshotAhead { snapshot, consistent_index }
            if (snapshot, consistent_index) == expected),
        "{error}"
    );
}

#[test]
fn a_transaction_on_whose_outcome_etcds_differ_is_refused() {
    for unavailable in [2, 100] {
        let world = letters().base(compaction(4));
        let read = || Op::Range(range_at(unavailable));
        let writes = world.clone().log(always(vec![read(), put_op("x", "1")]));
        let error = refusal(&writes);
        assert!(matches!(error, ApplyError::TxnReadsUnavailable { index: 7 }), "{error}");
        assert_eq!(world.log(always(vec![read()])).records(), [""; 0], "a mere read is harmless");
    }
}

#[test]
fn two_kinds_of_alarm_at_once_are_refused() {
    let world = letters().base(alarm(1, 1)).log(alarm(1, 2));
    let error = refusal(&world);
    assert!(matches!(error, ApplyError::TwoAlarms { index: 7 }), "{error}");
}

#[test]
fn an_entry_at_which_etcd_itself_would_stop_is_refused() {
    let keep =
        |ignore_value| PutRequest { ignore_value, ignore_lease: !ignore_value, ..put("b", "x") };
    let world = letters().log(always(vec![delete_op("a", "\0"), Op::Put(keep(true))]));
    let error = refusal(&world);
    let gone = Impossible::KeyGone;
    assert!(matches!(error, ApplyError::Impossible { index: 6, why } if why == gone), "{error}");

    let world = World::new()
        .base(grant(5))
        .base(Request::Put(put_with_lease("b", "1", 5)))
        .without_lease_rows()
        .log(Request::Put(keep(false)));
    let error = refusal(&world);
    let gone = Impossible::LeaseGone(5);
    assert!(matches!(error, ApplyError::Impossible { why, .. } if why == gone), "{error}");
}

#[test]
fn a_revision_at_the_end_of_numbers_is_refused() {
    let last = i64::MAX.to_be_bytes();
    let key: Vec<u8> = last.iter().chain(b"_\0\0\0\0\0\0\0\0").copied().collect();
    let world = World::new().base_row(b"key", &key, b"\x0a\x01k").log(Request::Put(put("x", "1")));
    let error = refusal(&world);
    assert!(matches!(error, ApplyError::Impossible { why: Impossible::Revision, .. }), "{error}");
}

#[test]
fn a_damaged_record_is_refused() {
    let key = b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0";
    let world = World::new().base_row(b"key", key, b"\xff").log(Request::Put(put("x", "1")));
    assert!(matches!(refusal(&world), ApplyError::Read(_)));
}
