//! `crds`: the definitions of the operator's kinds.

use crate::{output, report::Failure};
use operator::crds::{Rules, coreos_yaml, yaml};

/// Print the definitions of the operator's kinds: lifeboat crds | kubectl apply --server-side -f -
///
/// They are valid from Kubernetes 1.20 on. Applied again from a newer version they are updated; objects stay.
#[derive(Debug, clap::Args)]
pub(crate) struct CrdsArgs {
    /// Add the rule, in CEL, that a backup's spec and a restore's target stay as they were: for Kubernetes 1.25 or newer
    #[arg(long)]
    cel: bool,

    /// Add EtcdBackup of etcd.database.coreos.com/v1beta2, for `lifeboat operator --coreos-compat`
    #[arg(long)]
    coreos_compat: bool,
}

impl CrdsArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let rules = if self.cel { Rules::Cel } else { Rules::Structural };
        let others = if self.coreos_compat { coreos_yaml() } else { String::new() };
        output::print(&(yaml(rules) + &others))
    }
}
