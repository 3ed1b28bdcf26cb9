//! A whole etcd cluster brought back over SSH.
//!
//! ```text
//!   YAML, or discovered ─▶ Spec ─┐
//!   hosts, over ssh     ─▶ Facts ┼─▶ Plan (pure data) ─▶ steps ─▶ printed, or executed with a journal
//!   repository, or file ─▶ backup┘
//! ```
//!
//! **Invariants:** what is printed is what is executed; a check on the host, not the journal, says whether a step is done; old data
//! are renamed, never changed and never deleted; nothing secret is in a plan, a journal or a list of processes.

mod adopt;
mod agent;
mod build;
mod changed;
mod claim;
mod comparison;
mod contents;
pub mod discover;
mod facts;
mod host;
mod journal;
mod place;
mod plan;
mod replace;
mod rescue;
mod run;
mod runbook;
mod service;
mod shell;
pub mod spec;
mod steps;
mod transfer;

pub use adopt::Told;
pub use agent::{Answer, Change, Expected, Probe, Question, judge};
pub use build::{BuildError, Built, Hashes, build, hashes, sha256_of};
pub use changed::changes;
pub use claim::{Claim, Elsewhere, Ended, Holder, Left, Placed};
pub use contents::Contents;
pub use facts::{Directory, Facts};
pub use host::{HostError, ssh_line};
pub use journal::{Journal, JournalError, Line, Lock, Runs, State, What};
pub use plan::{Agent, BUMP_MARGIN, Bump, Chosen, Findings, HeldHosts, Plan, Pull};
pub use replace::{DENIED, Replace, ReplaceError, added};
pub use rescue::{
    Held, HeldLog, Rescue, Rescued, Survivor, forget, most_recent, rescued, rescued_path, survivors,
};
pub use run::{Back, Event, Fleet, OnHostNow, Run, RunError, Watcher};
pub use runbook::{
    as_shell, built_line, left_on_hosts, not_serving, rolled_back, runbook, summary,
};
pub use shell::{quote, quote_path};
pub use steps::{Kind, LOCK, MemberChange, OnHost, Step, steps};
pub use transfer::unpack;
