//! Real etcd clusters, the fixtures, and the tool under test: what every end-to-end test stands on.
//!
//! * [`Cluster`]: N members on loopback ports of their own, with or without TLS, started, killed and
//!   started again, written to and read with the real `etcdctl` of their version.
//! * [`Hosts`]: Debian hosts with systemd and sshd, in network namespaces of their own; [`EtcdOnHosts`]: a
//!   cluster that runs on them as units.
//! * [`Etcd`]: which binaries those are. `tools/install.sh` says where they lie; a missing one is a
//!   panic that names the script, never a silent pass.
//! * [`Certificates`]: a CA with its server and client certificates, a foreign CA, an expired one.
//! * [`fixtures`]: files written by real servers, with what those servers said about them.
//! * [`S3`]: SeaweedFS, with identities that may do less, TLS, conditional puts and object lock;
//!   [`Rclone`]: another S3 server, which has none of these.
//! * [`CutStream`]: a connection that breaks half way.
//! * [`FaultProxy`]: an HTTP server's requests delayed, reset, answered with errors, cut, or done in secret.
//! * [`KubeApi`]: the API server of Kubernetes, without nodes.
//! * [`Tool`]: the `lifeboat` binary, run under its own or a borrowed name.
//! * [`until`]: waits for what takes its time; [`Port`]: a port that nobody else has.
//! * [`load`]: fills a server with as many bytes as the bench asks for.
//!
//! Everything here panics with a full account where it cannot go on: its callers are tests.

mod client;
mod cluster;
mod command;
mod cut;
mod etcd;
mod fault_proxy;
pub mod fixtures;
mod hosts;
mod kube_api;
pub mod load;

mod ports;
mod rclone;
mod s3;
mod s3_client;
mod server;
mod tls;
mod wait;

pub use client::{Client, HashKv, KeyValue};
pub use cluster::{Builder, Cluster, Member, Security};
pub use command::{Run, Tool, bolt_check};
pub use cut::CutStream;
pub use etcd::Etcd;
pub use fault_proxy::{Fault, FaultProxy, Request};
pub use hosts::{EtcdOnHosts, EtcdOnHostsBuilder, Host, Hosts, HostsBuilder, UnitStyle};
pub use kube_api::KubeApi;
pub use ports::Port;
pub use rclone::Rclone;
pub use s3::S3;
pub use s3_client::{Answer, Identity, signed_request};
pub use tls::Certificates;
pub use wait::{PATIENCE, until};
