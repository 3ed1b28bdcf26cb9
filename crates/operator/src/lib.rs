//! Backups and restores of etcd as Kubernetes objects.
//!
//! ```text
//!   object ─▶ decide, a pure function ─▶ act: a backup, a Job, a patch ─▶ status, conditions, events
//! ```
//! * [`api`] is the objects: what people write, and what they read back; [`crds`] their definitions and reference.
//! * [`backup`], [`schedule`], [`store`], [`restore`] are a controller each, [`compat`] one for the objects of the CoreOS operator;
//!   [`run`](mod@run) starts them where this operator leads ([`lease`]).
//! * [`volume`] is what the pods of a restore do; it knows nothing of Kubernetes.
//! * [`secrets`] and [`files`] turn Secrets into what the libraries take; [`limits`] is what objects may not ask for.

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
