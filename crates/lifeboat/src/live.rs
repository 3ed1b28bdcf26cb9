//! Questions to a running cluster: `member list`, `endpoint status|health|hashkv`, `cluster-health`.
//!
//! Results look as etcdctl 3.5 prints them, in every format. What goes beyond it: all members are
//! asked at the same time, one that fails does not hide the others, and `endpoint hashkv` hashes all
//! members at one common revision.

mod cluster_health;
mod endpoint;
mod hashkv;
mod health;
mod member;
mod status;
mod wire;

pub(crate) use cluster_health::ClusterHealthArgs;
pub(crate) use endpoint::EndpointArgs;
pub(crate) use member::MemberCommand;
