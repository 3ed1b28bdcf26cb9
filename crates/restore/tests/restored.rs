//! Three-member restores, against those that the tools of four etcd versions made of the same files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bolt::{Check, Db, Mapped, Meta, Pgid};
use etcd_raftfiles::raftpb::Metadata;
use etcd_raftfiles::wal::{Segment, Wal};
use etcd_schema::Revision;
use restore::{ClusterError, Destination, RestoreError, RestorePlan, TargetVersion, parse_cluster};
use serde_json::Value;
use snapshot::{DigestRule, Snapshot, Walked};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    ops::ControlFlow,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

const VERSIONS: [(&str, TargetVersion); 4] = [
    ("3.4.23", TargetVersion::V3_4),
    ("3.5.16", TargetVersion::V3_5),
    ("3.5.30", TargetVersion::V3_5),
    ("3.6.14", TargetVersion::V3_6),
];

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn fixture(version: &str, name: &str) -> PathBuf {
    PathBuf::from("../../fixtures").join(version).join(name)
}

fn walked(version: &str) -> Snapshot<Walked> {
    let snapshot = Snapshot::open(&fixture(version, "final.db")).unwrap();
    snapshot.walk(&mut |finding| panic!("{finding}")).unwrap()
}

/// The same snapshot, unpacked to a temporary file in `dir` as a backup is.
fn unpacked(version: &str, dir: &Path) -> (Snapshot<Walked>, File) {
    let path = fixture(version, "final.db");
    let mut file = tempfile::tempfile_in(dir).unwrap();
    file.write_all(&fs::read(&path).unwrap()).unwrap();
    let snapshot = Snapshot::of_temporary(&path, &file).unwrap();
    (snapshot.walk(&mut |finding| panic!("{finding}")).unwrap(), file)
}

/// Builds what `plan` says and puts it in place.
fn execute(plan: &RestorePlan<'_>, source: &Snapshot<Walked>) -> Result<(), RestoreError> {
    let staged = plan.build(&|_| ControlFlow::Continue(()))?;
    let source = Snapshot::open(source.path()).unwrap();
    let proved = source.verify(DigestRule::Required, &mut |finding| panic!("{finding}")).unwrap();
    staged.commit(proved).map(|_| ())
}

fn expected(version: &str) -> Value {
    let text = fs::read(fixture(version, "restored-3m.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let digits = text.as_str().unwrap().as_bytes().chunks(2);
    digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn rows(db: &Db<'_>, bucket: &str) -> Rows {
    let bucket = db.bucket(bucket.as_bytes()).unwrap().expect("every bucket is there");
    bucket.iter().map(Result::unwrap).map(|(k, v)| (k.to_vec(), v.to_vec())).collect()
}

fn expected_rows(member: &Value, bucket: &str) -> Rows {
    let rows = member[bucket].as_array().unwrap().iter();
    rows.map(|row| (unhex(&row["key_hex"]), unhex(&row["value_hex"]))).collect()
}

fn restore_all(source: &Snapshot<Walked>, dir: &Path, target: TargetVersion, bump: u64) -> Value {
    let version = match target {
        TargetVersion::V3_4 => "3.4.23",
        TargetVersion::V3_5 => "3.5.30",
        TargetVersion::V3_6 => "3.6.14",
    };
    let expected = expected(version);
    let members = expected["initial_cluster"].as_str().unwrap();
    let cluster = parse_cluster(members, expected["token"].as_str().unwrap(), &[]).unwrap();
    let destination = Destination::AllMembers { dir: dir.to_owned() };
    let plan = RestorePlan::new(source, cluster, destination, target, bump).unwrap();
    execute(&plan, source).unwrap();
    expected
}

#[test]
fn every_member_is_as_etcds_own_tool_makes_it_but_for_what_is_meant_to_differ() {
    for (version, target) in VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("all");
        let expected = restore_all(&walked(version), &all, target, 0);
        check_all(&all, &expected, version, target);
    }
}

#[test]
fn a_snapshot_in_a_temporary_file_becomes_the_same_members_and_its_file_one_of_them() {
    for (version, target) in VERSIONS {
        let dir = tempfile::tempdir().unwrap();
        let all = dir.path().join("all");
        let (source, file) = unpacked(version, dir.path());
        let expected = restore_all(&source, &all, target, 0);
        check_all(&all, &expected, version, target);
        let inode = |name: &str| database(&all, name).metadata().unwrap().ino();
        let first = expected["members"].as_array().unwrap().iter();
        let adopted =
            first.filter(|m| inode(m["name"].as_str().unwrap()) == file.metadata().unwrap().ino());
        assert_eq!(adopted.count(), 1, "{version}");
    }
}

fn database(all: &Path, member: &str) -> PathBuf {
    all.join(member).join("member/snap/db")
}

fn check_all(all: &Path, expected: &Value, version: &str, target: TargetVersion) {
    let source = walked(version);
    for member in expected["members"].as_array().unwrap() {
        let name = member["name"].as_str().unwrap();
        check_files(&all.join(name), member, target);
        let mapped = Mapped::open(&File::open(database(all, name)).unwrap()).unwrap();
        let db = Db::open(&mapped).unwrap();
        assert_eq!(Check::new(&db).violations(1), [], "{version}");
        for bucket in ["key", "lease"] {
            assert_eq!(rows(&db, bucket), rows(&source.db(), bucket), "{version} {bucket}");
        }
        for bucket in ["cluster", "alarm", "members_removed"] {
            assert_eq!(rows(&db, bucket), expected_rows(member, bucket), "{version} {bucket}");
        }
        check_members_and_meta(&db, member, target);
    }
}

fn check_files(data_dir: &Path, member: &Value, target: TargetVersion) {
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let snap_dir = data_dir.join("member/snap");
    let snap = snap_dir.join(member["snap_file"].as_str().unwrap());
    let wal = data_dir.join("member/wal").join(member["wal_file"].as_str().unwrap());
    assert_eq!(mode(data_dir), 0o700);
    assert_eq!(mode(&snap_dir.join("db")), 0o600);
    assert_eq!(wal.metadata().unwrap().len(), member["wal_used_bytes"]);
    if target < TargetVersion::V3_6 {
        assert_eq!(snap.metadata().unwrap().len(), member["snap"]["size"]);
    }
    let bytes = fs::read(&wal).unwrap();
    let name = wal.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let wal = Wal::read(&[Segment { name, bytes: &bytes }], 0).unwrap();
    let Metadata { node_id, .. } = wal.metadata;
    assert_eq!(node_id.to_string(), member["member_id"].as_str().unwrap());
}

/// Differs from etcd's tools on purpose: `confState` is the new cluster's, and 3.4's old members go.
fn check_members_and_meta(db: &Db<'_>, member: &Value, target: TargetVersion) {
    let mut meta = rows(db, "meta");
    let mut expected_meta = expected_rows(member, "meta");
    let conf_state = meta.remove(b"confState".as_slice());
    expected_meta.remove(b"confState".as_slice());
    assert_eq!(meta, expected_meta, "{target}");
    let members = rows(db, "members");
    assert_eq!(members.len(), 3, "{target}");
    if target == TargetVersion::V3_4 {
        assert_eq!(conf_state, None);
    } else {
        assert_eq!(members, expected_rows(member, "members"), "{target}");
        let voters = "4464401167561483755,6924266944242098323,11675359363068152658";
        let state = format!("{{\"voters\":[{voters}],\"auto_leave\":false}}");
        assert_eq!(conf_state.unwrap(), state.as_bytes());
    }
}

#[test]
fn any_version_is_restored_for_any_other_without_what_that_one_would_misread() {
    for (version, _) in VERSIONS {
        let source = walked(version);
        for target in [TargetVersion::V3_4, TargetVersion::V3_5, TargetVersion::V3_6] {
            let dir = tempfile::tempdir().unwrap();
            restore_all(&source, &dir.path().join("all"), target, 0);
            let file = File::open(dir.path().join("all/m1/member/snap/db")).unwrap();
            let mapped = Mapped::open(&file).unwrap();
            let db = Db::open(&mapped).unwrap();
            let meta = rows(&db, "meta");
            let has = |key: &str| meta.contains_key(key.as_bytes());
            let case = format!("{version} for {target}");
            assert_eq!(has("term"), target >= TargetVersion::V3_5, "{case}");
            let marked = target == TargetVersion::V3_6 && version.starts_with("3.6");
            assert_eq!(has("storageVersion"), marked, "{case}");
            let known = TargetVersion::of_release(version).unwrap() <= target;
            assert_eq!(rows(&db, "cluster").len(), usize::from(known), "{case}");
        }
    }
}

#[test]
fn a_bump_adds_one_marker_and_schedules_the_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let (temporary, _) = unpacked("3.5.30", dir.path());
    for (source, all) in [(walked("3.5.30"), "built"), (temporary, "amended")] {
        let all = dir.path().join(all);
        restore_all(&source, &all, TargetVersion::V3_5, 1000);
        for member in ["m1", "m2", "m3"] {
            let bumped = Snapshot::open(&database(&all, member)).unwrap();
            let bumped =
                bumped.verify(DigestRule::Skip, &mut |finding| panic!("{finding}")).unwrap();
            assert_eq!(bumped.survey().revision(), 1600);
            assert_eq!(bumped.survey().meta.compact_revision(), Some(1600));
            let mut expected = rows(&walked("3.5.30").db(), "key");
            expected.insert(Revision { main: 1600, sub: 0 }.encode().to_vec(), Vec::new());
            assert_eq!(rows(&bumped.db(), "key"), expected);
        }
    }
}

#[test]
fn a_temporary_file_that_is_mostly_free_is_built_anew_and_shrinks() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(fixture("3.5.30", "final.db")).unwrap();
    let pages = (bytes.len() / 4096) as u64;
    // More pages are said to have been used, with none of them in the tree: bbolt takes them as free.
    bytes.truncate(bytes.len() / 4096 * 4096);
    let metas = [0, 4096].map(|at| Meta::decode(&bytes[at..]).unwrap());
    for (slot, meta) in (0u64..).zip(metas) {
        let meta = Meta { freelist: None, high_water_mark: Pgid(2 * pages), ..meta };
        let at = usize::try_from(slot).unwrap() * 4096;
        bytes[at..at + 80].copy_from_slice(&meta.encode(slot));
    }
    bytes.resize(bytes.len() * 2, 0);
    let mut file = tempfile::tempfile_in(dir.path()).unwrap();
    file.write_all(&bytes).unwrap();
    let source = Snapshot::of_temporary(Path::new("free.db"), &file).unwrap();
    let source = source.walk(&mut |finding| panic!("{finding}")).unwrap();
    let cluster = parse_cluster("m=http://127.0.0.1:1", "t", &[]).unwrap();
    let destination = Destination::AllMembers { dir: dir.path().join("all") };
    let plan = RestorePlan::new(&source, cluster, destination, TargetVersion::V3_5, 0).unwrap();
    let staged = plan.build(&|_| ControlFlow::Continue(())).unwrap();
    let proved = source.prove(DigestRule::Skip, &mut |finding| panic!("{finding}")).unwrap();
    let report = staged.commit(proved).unwrap();
    assert!(report.database_bytes < pages * 4096 * 3 / 2, "{}", report.database_bytes);
    assert_eq!(file.metadata().unwrap().len(), 2 * pages * 4096, "it was not touched");
}

#[test]
fn a_learner_is_a_learner_everywhere() {
    let (source, dir) = (walked("3.5.30"), tempfile::tempdir().unwrap());
    let members = "a=http://127.0.0.1:1,b=http://127.0.0.1:2";
    let cluster = parse_cluster(members, "t", &["b".to_owned()]).unwrap();
    let destination = Destination::AllMembers { dir: dir.path().join("all") };
    let plan = RestorePlan::new(&source, cluster, destination, TargetVersion::V3_5, 0).unwrap();
    execute(&plan, &source).unwrap();
    let file = File::open(dir.path().join("all/a/member/snap/db")).unwrap();
    let mapped = Mapped::open(&file).unwrap();
    let db = Db::open(&mapped).unwrap();
    let learners: Vec<_> = rows(&db, "members")
        .values()
        .map(|json| serde_json::from_slice::<Value>(json).unwrap())
        .filter(|member| member["isLearner"] == true)
        .map(|member| member["name"].clone())
        .collect();
    assert_eq!(learners, ["b"]);
    let state: Value = serde_json::from_slice(&rows(&db, "meta")[b"confState".as_slice()]).unwrap();
    assert_eq!(
        (state["voters"].as_array().unwrap().len(), state["learners"].as_array().unwrap().len()),
        (1, 1)
    );
}

#[test]
fn a_wal_directory_elsewhere_is_filled_and_an_existing_one_refused() {
    let (source, dir) = (walked("3.4.23"), tempfile::tempdir().unwrap());
    let plan = |data: &str| {
        let cluster = parse_cluster("m=http://127.0.0.1:1", "t", &[]).unwrap();
        let destination = Destination::Member {
            name: "m".into(),
            data_dir: dir.path().join(data),
            wal_dir: Some(dir.path().join("wal")),
        };
        RestorePlan::new(&source, cluster, destination, TargetVersion::V3_4, 0).unwrap()
    };
    execute(&plan("first"), &source).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("wal")).unwrap().count(), 1);
    assert!(!dir.path().join("first/member/wal").exists());
    let refused = execute(&plan("second"), &source);
    assert!(matches!(refused, Err(RestoreError::Exists { .. })));
    let mut left: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["first", "wal"]);
}

#[test]
fn a_name_that_is_no_folder_is_refused_before_anything_is_made() {
    let (source, dir) = (walked("3.4.23"), tempfile::tempdir().unwrap());
    let cluster = parse_cluster("../m=http://127.0.0.1:1", "t", &[]).unwrap();
    let destination = Destination::AllMembers { dir: dir.path().join("all") };
    let refused = RestorePlan::new(&source, cluster, destination, TargetVersion::V3_4, 0);
    let error = refused.map(|_| ()).unwrap_err();
    assert!(matches!(error, RestoreError::Cluster(ClusterError::NameAsFolder { .. })), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_built_from_a_file_that_is_not_proved_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong-digest.db");
    let mut bytes = fs::read(fixture("3.5.30", "final.db")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let source = Snapshot::open(&file).unwrap().walk(&mut |finding| panic!("{finding}")).unwrap();
    let cluster = parse_cluster("m=http://127.0.0.1:1", "t", &[]).unwrap();
    let target = dir.path().join("made/all");
    let destination = Destination::AllMembers { dir: target.clone() };
    let plan = RestorePlan::new(&source, cluster, destination, TargetVersion::V3_5, 0).unwrap();
    let staged = plan.build(&|_| ControlFlow::Continue(())).unwrap();
    assert!(target.parent().unwrap().is_dir() && !target.exists());
    assert!(source.prove(DigestRule::Required, &mut |_| {}).is_err());
    drop(staged);
    assert!(!target.parent().unwrap().exists());
}

#[test]
fn a_restore_that_is_interrupted_leaves_nothing() {
    let (source, dir) = (walked("3.5.30"), tempfile::tempdir().unwrap());
    let cluster = parse_cluster("m=http://127.0.0.1:1", "t", &[]).unwrap();
    let destination = Destination::AllMembers { dir: dir.path().join("all") };
    let plan = RestorePlan::new(&source, cluster, destination, TargetVersion::V3_5, 0).unwrap();
    let stopped = plan.build(&|_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(RestoreError::Interrupted)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_wal_directory_in_the_data_directory_is_the_default_or_refused() {
    let (source, dir) = (walked("3.4.23"), tempfile::tempdir().unwrap());
    let plan = |wal: &str| {
        let cluster = parse_cluster("m=http://127.0.0.1:1", "t", &[]).unwrap();
        let destination = Destination::Member {
            name: "m".into(),
            data_dir: dir.path().join("data"),
            wal_dir: Some(dir.path().join(wal)),
        };
        RestorePlan::new(&source, cluster, destination, TargetVersion::V3_4, 0).unwrap()
    };
    for wal in ["data", "data/wal", ""] {
        let refused = execute(&plan(wal), &source);
        assert!(matches!(refused, Err(RestoreError::WalDirInDataDir { .. })), "{wal:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{wal:?}");
    }
    execute(&plan("data/member/wal"), &source).unwrap();
    assert_eq!(fs::read_dir(dir.path().join("data/member/wal")).unwrap().count(), 1);
}
