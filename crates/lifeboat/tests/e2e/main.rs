//! Lifeboat and real etcd clusters: what one writes, the other must read.
//!
//! Needs the servers that `tools/install.sh test` brings; `./test e2e` runs all of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod compatibility;
mod interrupted;
mod live;
mod offline;
mod round_trip;

use std::path::Path;
use std::process::Command;

use testbed::{Cluster, Etcd, Run, Tool};

fn lifeboat() -> Tool {
    Tool::new(env!("CARGO_BIN_EXE_lifeboat")).patient()
}

/// Runs lifeboat as a client of the cluster.
#[track_caller]
fn client(cluster: &Cluster, arguments: &[&str]) -> Run {
    let flags = cluster.connection_flags();
    lifeboat().run(flags.iter().map(String::as_str).chain(arguments.iter().copied()))
}

/// Saves a snapshot of the cluster; it must succeed.
#[track_caller]
fn save(cluster: &Cluster, file: &Path) {
    client(cluster, &["snapshot", "save", text(file)]).ok();
}

/// A path as an argument.
fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have plain names")
}

/// The names in a folder, sorted.
fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let names = entries.map(|entry| entry.expect("the folder can be read").file_name());
    let mut names: Vec<String> =
        names.map(|name| name.into_string().expect("names are plain")).collect();
    names.sort();
    names
}

/// What the real tool says about a file.
#[track_caller]
fn judged_by(version: Etcd, arguments: &[&str]) -> Run {
    Run::of(Command::new(version.file_tool()).env("ETCDCTL_API", "3").args(arguments)).ok()
}

/// HashKV of a file at a revision, as lifeboat computes it.
#[track_caller]
fn hash_of_file(file: &Path, revision: i64) -> u64 {
    let revision = revision.to_string();
    let run =
        lifeboat().run(["snapshot", "hashkv", text(file), "--rev", &revision, "-w", "json"]).ok();
    run.json()["hash"].as_u64().expect("a hash is a number")
}

/// A restore of all members to where the cluster expects their data, for its version.
fn restore_all(cluster: &Cluster, file: &Path, more: &[&str]) -> Run {
    let (data, peers) = (cluster.data_root(), cluster.initial_cluster());
    let arguments = [
        "snapshot",
        "restore",
        text(file),
        "--all-members",
        text(&data),
        "--initial-cluster",
        &peers,
        "--target-version",
        cluster.version().minor(),
    ];
    lifeboat().run(arguments.iter().chain(more))
}
