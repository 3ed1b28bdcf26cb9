//! Data directories for the members of a new cluster: plan, then execute.
mod cluster;
pub use cluster::{ClusterError, check_advertised, find_member, parse_cluster};
