//! What we write for a restore, against what etcd's own tools wrote.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::{VERSIONS, fixture, hex, json, number};
use etcd_raftfiles::restore::{RestoredCluster, Target, founding_member};
use etcd_raftfiles::snap;
use etcd_raftfiles::wal::{End, EndKind, Records, Segment, Wal};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The cluster of the format document's test vector.
fn vector_cluster() -> RestoredCluster {
    let members = [("m1", 29001), ("m2", 29002), ("m3", 29003)];
    let member =
        |(name, port)| founding_member(name, &[format!("http://127.0.0.1:{port}")], false, "tok1");
    RestoredCluster::new(members.map(member).to_vec()).unwrap()
}

fn vector_wal(target: Target) -> Vec<u8> {
    let cluster = vector_cluster();
    let m1 = cluster.members().iter().find(|member| member.name == "m1").unwrap().id;
    cluster.wal(m1, target)
}

fn dump(wal: &[u8]) -> Vec<String> {
    let segment = [Segment { name: RestoredCluster::wal_name(), bytes: wal }];
    Records::new(&segment)
        .unwrap()
        .map(|located| {
            let at = located.unwrap();
            let record = at.record;
            format!("{} {} {} {:?} {:08x}", at.offset, at.len, at.pad, record.kind, record.crc)
        })
        .collect()
}

#[test]
fn the_wal_of_the_test_vector_is_reproduced() {
    let common = [
        "0 4 4 Crc 00000000",
        "16 30 2 Metadata 8ebb95cb",
        "56 14 2 Snapshot 106c9e0e",
        "80 112 0 Entry 774976de",
        "200 112 0 Entry 61d30c72",
        "320 112 0 Entry 4d818d6b",
        "440 25 7 State 9a90e15a",
    ];
    let with = |last: &str| common.iter().map(ToString::to_string).chain([last.into()]).collect();
    let expected_35: Vec<String> = with("480 51 5 Snapshot 2711e245");
    assert_eq!(dump(&vector_wal(Target::Etcd35)), expected_35);
    let expected_34: Vec<String> = with("480 14 2 Snapshot a74975ca");
    assert_eq!(dump(&vector_wal(Target::Etcd34)), expected_34);
}

#[test]
fn the_bytes_of_the_test_vector_are_reproduced() {
    let wal = vector_wal(Target::Etcd35);
    let head = "04000000000000840804100000000000\
                1e00000000000082080110cbabeef5081a1408c2e9d0d7a9f3c2d1aa0110db8a\
                adfedb93dc1e00000e000000000000820805108ebcb283011a04080010000000";
    assert_eq!(hex(&wal[..80]), head);
    let tail = "1900000000000087080310dac2c3d4091a0f080110a293f4fe8c95bf82a50118\
                03000000000000003300000000000085080510c5c4c7b8021a29080310011a23\
                08a293f4fe8c95bf82a50108c2e9d0d7a9f3c2d1aa0108aef2edc1bcc6c19cf6\
                0128000000000000";
    assert_eq!(hex(&wal[440..]), tail);
}

#[test]
fn the_raft_snapshot_of_the_test_vector_is_reproduced() {
    let bytes = vector_cluster().snap();
    assert_eq!(bytes.len(), 7572);
    assert_eq!(hex(&bytes[..6]), "08aeeda3da0c", "the varint of 3410556590");
    assert_eq!(vector_cluster().snap_name().to_string(), "0000000000000001-0000000000000003.snap");
}

fn fixture_cluster(restored: &Value) -> RestoredCluster {
    let token = restored["token"].as_str().unwrap();
    let member = |member: &Value| {
        let url = member["peer_url"].as_str().unwrap();
        founding_member(member["name"].as_str().unwrap(), &[url], false, token)
    };
    let members = restored["members"].as_array().unwrap().iter().map(member).collect();
    RestoredCluster::new(members).unwrap()
}

/// A record as the fixture lists it.
fn fixture_record(record: &Value) -> (u64, u64, u64, u64, String, Option<String>) {
    let text = |name: &str| record[name].as_str().map(str::to_owned);
    let (crc, data) = (text("crc").unwrap(), text("data_hex"));
    let [offset, len, pad, kind] = ["offset", "len", "pad", "type"].map(|f| number(&record[f]));
    (offset, len, pad, kind, crc, data)
}

#[test]
fn the_logs_that_each_version_restores_are_reproduced_byte_for_byte() {
    for version in VERSIONS {
        let restored = json(version, "restored-3m.json");
        let target = if version == "3.4.23" { Target::Etcd34 } else { Target::Etcd35 };
        let cluster = fixture_cluster(&restored);
        assert_eq!(cluster.id().to_string(), restored["cluster_id_hex"].as_str().unwrap());
        for expected in restored["members"].as_array().unwrap() {
            let name = expected["name"].as_str().unwrap();
            let member = cluster.members().iter().find(|member| member.name == name).unwrap();
            assert_eq!(member.id.to_string(), expected["member_id_hex"].as_str().unwrap());
            assert_eq!(
                RestoredCluster::wal_name().to_string(),
                expected["wal_file"].as_str().unwrap()
            );

            let bytes = cluster.wal(member.id, target);
            assert_eq!(u64::try_from(bytes.len()).unwrap(), number(&expected["wal_used_bytes"]));
            let segment = [Segment { name: RestoredCluster::wal_name(), bytes: &bytes }];
            let written: Vec<_> = Records::new(&segment)
                .unwrap()
                .map(|located| {
                    let at = located.unwrap();
                    let (len, pad) = (u64::try_from(at.len).unwrap(), u64::from(at.pad));
                    let (kind, crc) = (at.record.kind.number(), format!("{:08x}", at.record.crc));
                    (at.offset, len, pad, kind, crc, at.record.data.map(hex))
                })
                .collect();
            let records = expected["wal_records"].as_array().unwrap();
            let expected: Vec<_> = records.iter().map(fixture_record).collect();
            assert_eq!(written, expected, "{version} {name}");
        }
    }
}

#[test]
fn the_raft_snapshots_of_3_4_and_3_5_are_reproduced_byte_for_byte() {
    for version in &VERSIONS[..3] {
        let restored = json(version, "restored-3m.json");
        let cluster = fixture_cluster(&restored);
        let bytes = cluster.snap();
        let snapshot = snap::parse(&bytes).unwrap();
        for expected in restored["members"].as_array().unwrap() {
            assert_eq!(cluster.snap_name().to_string(), expected["snap_file"].as_str().unwrap());
            let expected = &expected["snap"];
            assert_eq!(u64::try_from(bytes.len()).unwrap(), number(&expected["size"]));
            assert_eq!(snapshot.metadata.index, number(&expected["index"]));
            assert_eq!(snapshot.metadata.term, number(&expected["term"]));
            let voters: Vec<_> =
                expected["voters"].as_array().unwrap().iter().map(number).collect();
            assert_eq!(snapshot.metadata.conf_state.voters, voters);
            let digest = Sha256::digest(snapshot.data.as_ref().unwrap());
            assert_eq!(hex(&digest), expected["v2_json_sha256"].as_str().unwrap(), "{version}");
        }
    }
}

#[test]
fn a_restored_log_reads_back_and_ends_at_the_end_of_the_file() {
    let bytes = vector_wal(Target::Etcd35);
    let name = RestoredCluster::wal_name();
    let segment = [Segment { name, bytes: &bytes }];
    let wal = Wal::read(&segment, 0).unwrap();
    assert_eq!(wal.committed().len(), 3);
    assert_eq!(wal.snapshots.len(), 2);
    let offset = u64::try_from(bytes.len()).unwrap();
    assert_eq!(wal.end, End { segment: name, offset, kind: EndKind::EndOfFile });
    assert!(fixture("3.4.23", "base.db").exists(), "the fixtures are where the tests look");
}
