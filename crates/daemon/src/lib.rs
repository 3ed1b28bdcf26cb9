//! `lifeboat serve`: schedules, retention, verification, hooks, metrics and health, from one YAML file.
//!
//! ```text
//!   config ──▶ serve ──┬─▶ runner, one per cluster ──▶ Jobs (backup, verify, prune) ──▶ stores
//!                      │        │ schedule says when       │ jobs::Live is the real one
//!                      │        ▼
//!                      │     Board ──▶ metrics, /status     hooks ──▶ commands, webhooks
//!                      └─▶ http ────────▲
//! ```
//!
//! * Runs of one cluster never overlap. A failing store or cluster stops nobody else.
//! * What must hold for two daemons of one cluster is the store's to guarantee ([`repository::lease`]), not this crate's.
//! * Settings that are wrong change nothing: a running daemon keeps what it has.

pub mod board;
pub mod config;
pub mod hooks;
pub mod http;
pub mod jobs;
mod logs;
pub mod metrics;
pub mod place;
pub mod runner;
pub mod schedule;
mod serve;
mod tls;

pub use config::{Config, ConfigError};
pub use logs::{LogError, log};
pub use serve::{JobsError, MakeJobs, ServeError, Signal, Signals, check, serve, serve_with};
pub use tls::TlsError;

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
