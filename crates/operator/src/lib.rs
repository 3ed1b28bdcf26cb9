//! Backups and restores of etcd as Kubernetes objects.
//!
//! * [`api`] is the objects: what people write, and what they read back.

pub mod api;
pub mod crds;

pub mod restore;
pub mod volume;
pub mod cluster;
pub mod conditions;
pub mod context;
pub mod failure;
pub mod files;
pub mod metrics;
pub mod secrets;
pub mod store;
pub mod backup;
pub mod lease;
pub mod run;
pub mod schedule;
mod http;
mod client;

pub use client::{client, identity};
