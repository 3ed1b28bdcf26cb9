//! Backups and restores of etcd as Kubernetes objects.
//!
//! * [`api`] is the objects: what people write, and what they read back.

pub mod api;
