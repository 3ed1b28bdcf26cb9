//! How an etcd cluster is reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An etcd cluster: what it is called, and how its members are reached. Exactly one of `endpoints`, `service` and
/// `statefulSet` says where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("oneOf" = [
    {"required": ["endpoints"]}, {"required": ["service"]}, {"required": ["statefulSet"]}
]))]
pub struct Cluster {
    /// The name of the cluster in the store: its backups lie under it. Two clusters must not share one.
    #[schemars(regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$"))]
    pub name: String,
    /// URLs of members, `https://etcd-0.etcd.prod.svc:2379`, without user and path. A healthy member is chosen, the others are tried next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1), inner(regex(pattern = r"^https?://[^/@?#]+/?$")))]
    pub endpoints: Vec<String>,
    /// A Service in the object's namespace: its endpoints are members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<MembersRef>,
    /// A StatefulSet in the object's namespace: each of its pods is a member, by its name in the headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful_set: Option<MembersRef>,
    /// Certificates. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Name of a Secret with `username` and `password`, if etcd has users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub auth_secret_name: Option<String>,
}

/// What has members: a Service or a StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MembersRef {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The port for clients.
    #[serde(default = "client_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// `http` or `https`.
    #[serde(default)]
    pub scheme: Scheme,
}

/// How a URL begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// With TLS.
    Https,
}

/// Certificates for clients of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Name of a Secret in the object's namespace, with `ca.crt`, `tls.crt`, `tls.key`, or with `etcd-client-ca.crt`,
    /// `etcd-client.crt`, `etcd-client.key`. Without certificate and key, only the servers are verified.
    #[schemars(length(min = 1))]
    pub secret_name: String,
    /// The name that the members' certificates must have, in place of the host in the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether any certificate is accepted. Whoever is in between can then read everything.
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

fn client_port() -> u16 {
    2379
}
