//! The files in `fixtures/`, written by real servers; its README says how.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::{NamedTempFile, TempDir};

/// The versions that wrote `base.db`, `final.db` and `killed.tar.zst`.
pub const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

/// A fixture by its path in the folder, such as `3.5.30/final.db`.
#[track_caller]
pub fn fixture(path: &str) -> PathBuf {
    let full = Path::new("../../fixtures").join(path);
    full.canonicalize().unwrap_or_else(|error| panic!("fixture {path}: {error}"))
}

/// A damaged copy of `3.5.30/final.db` by its name in `damaged.json`, unpacked.
#[track_caller]
pub fn damaged(name: &str) -> NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".db").tempfile().expect("a temporary file");
    let plain = Path::new("../../fixtures/damaged");
    let plain = plain.join(format!("{name}.db"));
    if plain.is_file() {
        let mut source = std::fs::File::open(plain).expect("a fixture is readable");
        std::io::copy(&mut source, &mut file).expect("a temporary file is writable");
    } else {
        let packed = fixture(&format!("damaged/{name}.db.zst"));
        let handle = file.as_file().try_clone().expect("a file handle can be doubled");
        let unpacked =
            Command::new("zstd").args(["-q", "-d", "-c"]).arg(packed).stdout(handle).status();
        assert!(unpacked.expect("zstd is installed (tools/install.sh test)").success());
    }
    file
}

/// The data directory of a member that was killed under load, unpacked: the folder holds `member/`.
#[track_caller]
pub fn killed(version: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unpacked = Command::new("tar")
        .args(["--sparse", "-I", "zstd", "-xf"])
        .arg(fixture(&format!("{version}/killed.tar.zst")))
        .arg("-C")
        .arg(folder.path())
        .stdin(Stdio::null())
        .status();
    assert!(unpacked.expect("tar is installed").success());
    folder
}

/// What the server said about `base.db` and `final.db` of a version.
#[track_caller]
pub fn expected(version: &str) -> Expected {
    json(&format!("{version}/expected.json"))
}

/// What the restarted server said about the state in `killed.tar.zst` of a version.
#[track_caller]
pub fn killed_expected(version: &str) -> Killed {
    json(&format!("{version}/killed.json"))
}

/// The leases of `base.db` and `final.db` of a version.
#[track_caller]
pub fn leases(version: &str) -> Leases {
    json(&format!("{version}/leases.json"))
}

/// All damaged files, and what is wrong with them.
#[track_caller]
pub fn damaged_cases() -> Vec<Damaged> {
    json::<DamagedFile>("damaged/damaged.json").cases
}

#[track_caller]
fn json<T: DeserializeOwned>(path: &str) -> T {
    let text = std::fs::read_to_string(fixture(path)).expect("a fixture is readable");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// `expected.json`.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Expected {
    pub etcd_version: String,
    pub cluster_id: String,
    pub base: Snapshot,
    #[serde(rename = "final")]
    pub final_: Snapshot,
}

/// What is known about one snapshot file.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Snapshot {
    pub status: Status,
    pub revision: i64,
    pub compact_revision: i64,
    pub scheduled_compact_revision: i64,
    pub consistent_index: u64,
    pub term: Option<u64>,
    pub hashkv: Vec<HashKv>,
    pub live_keys: u64,
    pub key_records: u64,
    pub bucket_pairs: BTreeMap<String, u64>,
    pub point_reads: Vec<PointRead>,
    pub file: File,
}

/// `snapshot status -w json` of the version's own tool.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are etcd's own")]
pub struct Status {
    pub hash: u32,
    pub revision: i64,
    pub total_key: u64,
    pub total_size: u64,
}

/// HashKV of one revision.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct HashKv {
    pub revision: i64,
    pub hash: u32,
    pub compact_revision: i64,
}

/// One key at one revision.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct PointRead {
    /// Base64.
    pub key: String,
    pub revision: i64,
    pub result: ReadResult,
}

/// What a point read found.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub enum ReadResult {
    Found {
        value_sha256: String,
        value_len: u64,
        create_revision: i64,
        mod_revision: i64,
        version: i64,
        lease: String,
    },
    /// The word `absent`.
    Absent(String),
}

/// The file itself.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct File {
    pub size: u64,
    pub sha256: String,
    pub page_size: u32,
    pub pages: u64,
    pub txid: u64,
}

/// `killed.json`.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Killed {
    pub acknowledged_revision: i64,
    pub hashkv_after_restart: HashKv,
    pub max_revision_in_db_before_restart: i64,
    pub revision_at_hard_state_commit: i64,
    pub revision_after_restart: i64,
    pub hashkv_at_revision_after_restart: HashKv,
    pub compact_revision: i64,
    pub live_keys_after_restart: u64,
    pub key_records_after_restart: u64,
    pub key_bucket_digest_after_restart: String,
    pub leases_after_restart: Vec<Lease>,
}

/// `leases.json`.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Leases {
    pub base: Vec<Lease>,
    #[serde(rename = "final")]
    pub final_: Vec<Lease>,
}

/// One lease.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Lease {
    pub id: String,
    pub granted_ttl: i64,
    /// Base64, sorted.
    pub keys: Vec<String>,
}

#[derive(Deserialize)]
struct DamagedFile {
    cases: Vec<Damaged>,
}

/// One case of `damaged.json`.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "fixtures/README.md explains the fields")]
pub struct Damaged {
    pub name: String,
    pub what: String,
    pub size: u64,
    /// `right`, `wrong` or `absent`.
    pub digest: String,
    pub readable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_of_a_fixture_is_understood() {
        for version in VERSIONS {
            let expected = expected(version);
            assert_eq!(expected.etcd_version, version);
            assert_eq!(expected.base.revision, 360);
            assert_eq!(expected.final_.revision, 600);
            assert!(expected.base.point_reads.iter().any(|read| matches!(
                &read.result,
                ReadResult::Absent(word) if word == "absent"
            )));
            assert!(killed_expected(version).acknowledged_revision > 0);
            assert!(!leases(version).final_.is_empty());
        }
    }

    #[test]
    fn every_damaged_file_unpacks_to_the_size_described() {
        let cases = damaged_cases();
        assert!(cases.len() >= 19);
        for case in cases {
            let file = damaged(&case.name);
            let size = file.as_file().metadata().unwrap().len();
            assert_eq!(size, case.size, "{}", case.name);
        }
    }

    #[test]
    fn killed_data_directories_unpack_with_their_holes() {
        for version in VERSIONS {
            let folder = killed(version);
            assert!(folder.path().join("member/snap/db").is_file(), "{version}");
            assert!(folder.path().join("member/wal/0.tmp").is_file(), "{version}");
        }
    }
}
