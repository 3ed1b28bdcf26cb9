//! The fixtures that real etcds wrote, as the tests of this crate need them.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, reason = "shared by tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use etcd_raftfiles::wal::{Segment, SegmentName};
use serde_json::Value;

pub const VERSIONS: [&str; 4] = ["3.4.23", "3.5.16", "3.5.30", "3.6.14"];

pub fn fixture(version: &str, file: &str) -> PathBuf {
    Path::new("../../fixtures").join(version).join(file)
}

pub fn json(version: &str, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(version, file)).unwrap()).unwrap()
}

/// Numbers above 2^53 are decimal strings in the fixtures.
pub fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value}"))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The member directory of a server that was killed under load.
pub struct Killed {
    pub dir: tempfile::TempDir,
    segments: Vec<(SegmentName, Vec<u8>)>,
}

impl Killed {
    pub fn unpack(version: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("tar")
            .args(["-I", "zstd", "-xf"])
            .arg(fixture(version, "killed.tar.zst"))
            .arg("-C")
            .arg(dir.path())
            .status()
            .expect("tar and zstd are installed");
        assert!(status.success());
        let mut segments: Vec<_> = std::fs::read_dir(dir.path().join("member/wal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().parse().ok()?;
                Some((name, std::fs::read(path).unwrap()))
            })
            .collect();
        segments.sort();
        Self { dir, segments }
    }

    pub fn segments(&self) -> Vec<Segment<'_>> {
        self.segments.iter().map(|(name, bytes)| Segment { name: *name, bytes }).collect()
    }

    /// The raft snapshots, oldest first.
    pub fn snaps(&self) -> Vec<(String, Vec<u8>)> {
        let mut snaps: Vec<_> = std::fs::read_dir(self.dir.path().join("member/snap"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "snap"))
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read(path).unwrap())
            })
            .collect();
        snaps.sort();
        snaps
    }
}
