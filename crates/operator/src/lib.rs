//! Backups and restores of etcd as Kubernetes objects.
//!
//! * [`api`] is the objects: what people write, and what they read back.

pub mod api;
pub mod crds;

pub mod backup;
mod client;
pub mod cluster;
pub mod compat;
pub mod conditions;
pub mod context;
pub mod failure;
pub mod files;
mod http;
pub mod lease;
pub mod limits;
pub mod metrics;
mod pods;
pub mod restore;
pub mod run;
pub mod schedule;
pub mod secrets;
mod security;
pub mod store;
pub mod volume;
mod words;

pub use client::{client, identity};
