//! What a person must know of a discovery: what was not found, and what contradicts itself.

use std::fmt;

/// A Kubernetes that runs etcd by rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// k3s, with etcd in its own process.
    K3s,
    /// RKE2, whose supervisor writes etcd's manifest and config.
    Rke2,
    /// OpenShift, whose operator does.
    OpenShift,
    /// MicroK8s, which has dqlite in etcd's place.
    MicroK8s,
}

/// Something to know. Hosts are named as they were given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// Not found; the person fills it in.
    NotFound {
        /// On which host, if it is about one.
        host: Option<String>,
        /// The setting.
        what: &'static str,
        /// What would help.
        hint: String,
    },
    /// A host was not reached, or did not answer.
    Unreachable {
        /// The host.
        host: String,
        /// Why not.
        why: String,
    },
    /// etcd is not run in a way that could be stopped and started on its own.
    Embedded {
        /// The host.
        host: String,
        /// What runs it.
        platform: Platform,
    },
    /// Several etcds on one host.
    Several {
        /// The host.
        host: String,
        /// The one that was taken.
        taken: String,
        /// The others.
        others: Vec<String>,
    },
    /// What etcd was told cannot be read.
    Unreadable {
        /// The host.
        host: String,
        /// What and why.
        why: String,
    },
    /// A unit starts something that starts etcd.
    Wrapped {
        /// The host.
        host: String,
        /// The unit.
        unit: String,
        /// The program that it starts.
        program: String,
    },
    /// The etcd that runs was started with something else than what would start now.
    RunningDiffers {
        /// The host.
        host: String,
        /// The setting.
        setting: &'static str,
        /// As it runs.
        running: String,
        /// As it would start.
        configured: String,
    },
    /// Two hosts have the same member.
    SameName {
        /// The member's name.
        name: String,
        /// The hosts.
        hosts: Vec<String>,
    },
    /// Two places name different URLs for a member.
    UrlsDiffer {
        /// The member.
        name: String,
        /// A place, and what it says; the first is what was taken.
        said: Vec<(String, String)>,
    },
    /// A host's own member is not in the cluster that it was started with.
    NotInItsCluster {
        /// The host.
        host: String,
        /// Its member.
        name: String,
    },
    /// A member of which no host is known.
    WithoutHost {
        /// The member.
        name: String,
        /// Its peer URLs.
        urls: Vec<String>,
        /// Who says that it is one.
        said_by: String,
    },
    /// A host's member is not in the member list.
    NotListed {
        /// The host.
        host: String,
        /// Its member.
        name: String,
        /// Whose list.
        said_by: String,
    },
    /// Hosts have different versions of etcd.
    VersionsDiffer {
        /// Which, the one that was taken first.
        versions: Vec<String>,
    },
    /// A member without a vote.
    Learner {
        /// The member.
        name: String,
    },
    /// Certificates of the server are to be used as a client's.
    ServerCertificate {
        /// The host.
        host: String,
    },
}

impl Finding {
    /// Whether recovery the way Lifeboat does it is out of the question.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Embedded { .. })
    }

    /// Whether a plan made of this would be wrong unless a person decides.
    pub fn is_contradiction(&self) -> bool {
        matches!(
            self,
            Self::SameName { .. }
                | Self::UrlsDiffer { .. }
                | Self::NotInItsCluster { .. }
                | Self::NotListed { .. }
                | Self::VersionsDiffer { .. }
                | Self::RunningDiffers { .. }
        )
    }

    /// The host that it is about, if it is about one alone.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::NotFound { host, .. } => host.as_deref(),
            Self::Unreachable { host, .. }
            | Self::Embedded { host, .. }
            | Self::Several { host, .. }
            | Self::Unreadable { host, .. }
            | Self::Wrapped { host, .. }
            | Self::RunningDiffers { host, .. }
            | Self::NotInItsCluster { host, .. }
            | Self::NotListed { host, .. }
            | Self::ServerCertificate { host } => Some(host),
            Self::SameName { .. }
            | Self::UrlsDiffer { .. }
            | Self::WithoutHost { .. }
            | Self::VersionsDiffer { .. }
            | Self::Learner { .. } => None,
        }
    }
}

impl Platform {
    /// By the name that the script has for it.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "k3s" => Self::K3s,
            "rke2" => Self::Rke2,
            "openshift" => Self::OpenShift,
            "microk8s" => Self::MicroK8s,
            _ => return None,
        })
    }

    /// Its name, and how a backup is brought back there.
    fn advice(self) -> (&'static str, &'static str) {
        match self {
            Self::K3s => (
                "k3s",
                "restore the backup as a file and run `k3s server --cluster-reset --cluster-reset-restore-path=FILE` on one server",
            ),
            Self::Rke2 => (
                "RKE2",
                "restore the backup as a file and run `rke2 server --cluster-reset --cluster-reset-restore-path=FILE` on one server",
            ),
            Self::OpenShift => (
                "OpenShift",
                "follow its own disaster recovery with `cluster-restore.sh`, which takes the backup as a file",
            ),
            Self::MicroK8s => ("MicroK8s", "it keeps its state in dqlite, which is no etcd"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { host: None, what, hint } => write!(f, "not found: {what} ({hint})"),
            Self::NotFound { host: Some(host), what, hint } => {
                write!(f, "not found: {what} of {host} ({hint})")
            }
            Self::Unreachable { host, why } => write!(f, "{host} did not answer: {why}"),
            Self::Embedded { host, platform } => {
                let (name, advice) = platform.advice();
                write!(f, "{host} runs {name}, which runs etcd by its own rules: {advice}")
            }
            Self::Several { host, taken, others } => {
                write!(f, "{host} has several etcds: {taken} was taken, not {}", others.join(", "))
            }
            Self::Unreadable { host, why } => write!(f, "{host}: {why}"),
            Self::Wrapped { host, unit, program } => write!(
                f,
                "{host}: {unit} starts {program}, not etcd itself: check that the paths are those of the host"
            ),
            Self::RunningDiffers { host, setting, running, configured } => write!(
                f,
                "{host}: the etcd that runs has {setting} {running}, but it would start with {configured}"
            ),
            Self::SameName { name, hosts } => {
                write!(f, "{} have the same member {name:?}", hosts.join(" and "))
            }
            Self::UrlsDiffer { name, said } => {
                let said: Vec<_> =
                    said.iter().map(|(place, url)| format!("{place} says {url}")).collect();
                write!(f, "peer URLs of {name:?} differ: {}", said.join("; "))
            }
            Self::NotInItsCluster { host, name } => {
                write!(f, "{host}: its member {name:?} is not in its own initial-cluster")
            }
            Self::WithoutHost { name, urls, said_by } => write!(
                f,
                "{said_by} knows a member {name:?} at {}, but no host with it was given",
                urls.join(", ")
            ),
            Self::NotListed { host, name, said_by } => {
                write!(f, "{host}: {said_by} knows no member {name:?}")
            }
            Self::VersionsDiffer { versions } => {
                write!(f, "hosts have different versions of etcd: {}", versions.join(", "))
            }
            Self::Learner { name } => {
                write!(f, "{name:?} is a learner; recovered, it is a member with a vote")
            }
            Self::ServerCertificate { host } => write!(
                f,
                "{host}: etcd's own certificate is used as a client's; if etcd refuses it, name a client's"
            ),
        }
    }
}
