//! `crds`: the definitions of the operator's kinds.

use crate::{output, report::Failure};
use operator::crds::{Rules, yaml};

/// Print the definitions of the operator's kinds: lifeboat crds | kubectl apply --server-side -f -
///
/// They are valid from Kubernetes 1.20 on. Applied again from a newer version they are updated; objects stay.
#[derive(Debug, clap::Args)]
pub(crate) struct CrdsArgs {
    /// Add the rule, in CEL, that a backup's spec stays as it was: for Kubernetes 1.25 or newer
    #[arg(long)]
    cel: bool,
}

impl CrdsArgs {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let rules = if self.cel { Rules::Cel } else { Rules::Structural };
        output::print(&yaml(rules))
    }
}
