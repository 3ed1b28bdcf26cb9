//! A whole etcd cluster brought back over SSH.
//!
//! ```text
//!   YAML, or discovered ─▶ Spec ─┐
//!   hosts, over ssh     ─▶ facts ┼─▶ Plan (pure data) ─▶ steps ─▶ printed, or executed with a journal
//!   repository, or file ─▶ backup┘
//! ```

pub mod spec;
