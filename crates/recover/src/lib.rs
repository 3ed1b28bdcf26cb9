//! A whole etcd cluster brought back over SSH.
//!
//! ```text
//!   YAML, or discovered ─▶ Spec ─┐
//!   hosts, over ssh     ─▶ Facts ┼─▶ Plan (pure data) ─▶ steps ─▶ printed, or executed with a journal
//!   repository, or file ─▶ backup┘
//! ```

mod facts;
mod place;
mod plan;
mod service;
mod shell;
pub mod spec;
mod steps;

pub use facts::{Directory, Facts};
pub use plan::{Agent, BUMP_MARGIN, Bump, Chosen, Findings, Plan};
pub use shell::{quote, quote_path};
pub use steps::{Kind, OnHost, Step, steps};
