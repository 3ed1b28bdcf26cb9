//! The logs of servers that were killed under load, against what was recorded about them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{Killed, VERSIONS, json, number};
use etcd_raftfiles::snap::{self, SnapName};
use etcd_raftfiles::wal::{EndKind, Wal};

#[test]
fn the_logs_of_killed_servers_say_what_was_recorded() {
    for version in VERSIONS {
        let recorded = &json(version, "killed.json")["wal"];
        let killed = Killed::unpack(version);
        let segments = killed.segments();
        let wal = Wal::read(&segments, 0).unwrap();

        assert_eq!(wal.entries[0].index, number(&recorded["first_entry_index"]));
        let last = wal.entries.last().unwrap();
        assert_eq!(last.index, number(&recorded["last_entry_index"]));
        assert_eq!(last.term, number(&recorded["last_entry_term"]));
        let (state, expected) = (wal.hard_state.unwrap(), &recorded["hard_state"]);
        let expected = ["term", "vote", "commit"].map(|field| number(&expected[field]));
        assert_eq!([state.term, state.vote, state.commit], expected);
        let snapshots: Vec<_> = wal.snapshots.iter().map(|s| (s.index, s.term)).collect();
        let expected: Vec<_> = recorded["snapshot_records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|snapshot| (number(&snapshot["index"]), number(&snapshot["term"])))
            .collect();
        assert_eq!(snapshots, expected);
        let above = wal.entries.len() - wal.committed().len();
        assert_eq!(u64::try_from(above).unwrap(), number(&recorded["entries_above_commit"]));
        assert!(matches!(wal.end.kind, EndKind::Zeros), "{version}: {:?}", wal.end);
    }
}

#[test]
fn only_the_entries_asked_for_are_given() {
    let killed = Killed::unpack("3.6.14");
    let segments = killed.segments();
    let all = Wal::read(&segments, 0).unwrap();
    let some = Wal::read(&segments, 331).unwrap();
    assert_eq!(some.entries, all.entries[331..]);
    assert_eq!(Wal::read(&segments, u64::MAX).unwrap().entries, []);
}

#[test]
fn the_term_of_an_entry_is_known_from_the_log_or_from_a_snapshot_at_it() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let segments = killed.segments();
        let all = Wal::read(&segments, 0).unwrap();
        for entry in &all.entries {
            assert_eq!(all.term_of(entry.index), Some(entry.term), "{version}");
        }
        assert_eq!(all.term_of(all.last_index + 1), None);
        let none = Wal::read(&segments, u64::MAX).unwrap();
        let snapshot = none.snapshots.last().unwrap();
        assert_eq!(none.term_of(snapshot.index), Some(snapshot.term));
        assert_eq!(none.term_of(snapshot.index + 1), None);
    }
}

#[test]
fn the_raft_snapshots_of_killed_servers_are_those_that_the_log_names() {
    for version in VERSIONS {
        let killed = Killed::unpack(version);
        let segments = killed.segments();
        let wal = Wal::read(&segments, 0).unwrap();
        let snaps = killed.snaps();
        assert_eq!(snaps.len(), 2);
        for (name, bytes) in snaps {
            let snapshot = snap::parse(&bytes).unwrap();
            let metadata = &snapshot.metadata;
            let name: SnapName = name.parse().unwrap();
            assert_eq!(name, SnapName { term: metadata.term, index: metadata.index });
            assert!(wal.snapshots.iter().any(|s| (s.term, s.index) == (name.term, name.index)));
            assert_eq!(snap::encode(&snapshot), bytes, "{version}: written as etcd wrote it");
        }
    }
}
