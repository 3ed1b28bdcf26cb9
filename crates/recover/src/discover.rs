//! A [`Spec`](crate::spec::Spec) that nobody had to write: found on the hosts, at a live member, in a backup.
//!
//! ```text
//!   host ──ssh──▶ script ─▶ Gathered ─▶ examine ─▶ HostReport ─┐
//!   member list of a live member, or of a backup ─▶ Known ─────┼─▶ combine ─▶ Discovery: Spec and Findings
//!   --cluster, --repo, --ssh-… ────────────────────────────────┘
//! ```
//!
//! Everything behind the script is a pure function of text. What could not be found, and what contradicts itself, is
//! told beside the result ([`Finding`]), and stands as comments in the file that is made of it.

mod cluster;
mod finding;
mod gather;
mod host;
mod pod;
mod setting;
mod shell;
mod systemd;
mod visit;

pub use cluster::{Discovery, Known, KnownMember, Sources, combine, host_of_url};
pub use finding::{Finding, Platform};
pub use gather::{ANSWER_BYTES_MAX, GatherError, Gathered, script};
pub use host::{HostEtcd, HostReport, examine};
pub use setting::{EtcdConfig, Origin};
pub use visit::visit;
