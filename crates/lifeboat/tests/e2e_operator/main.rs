//! `lifeboat operator` as a process of its own, with a real API server, etcd and SeaweedFS. No pod runs here.
//!
//! Needs the servers that `tools/install.sh test` brings.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backups;
mod compat;
mod jobs;
mod lead;
mod places;
mod pods;
mod restores;
mod schedules;
mod stores;
mod targets;
mod waiting;
mod world;
