use crate::{cli::Context, interrupt::Interrupt, report::Failure, restoring::Restoring};
use snapshot::{DigestRule, Snapshot};
use std::path::PathBuf;

/// Make data directories for a new cluster from a snapshot file
///
/// The flags and their defaults are those of `etcdutl snapshot restore`; beyond
/// them, --all-members makes the directory of every member in one run. Nothing is
/// put in place before the snapshot is proved. Directories appear complete or not
/// at all, and nothing that exists is touched.
///
/// Members, alarms and raft state of the old cluster are replaced; keys, leases,
/// users and roles stay. Revisions go back to those of the snapshot: clients that
/// have seen later ones (Kubernetes has) must be restarted, unless the revision
/// is bumped.
///
/// Examples:
///   lifeboat snapshot restore backup.db --name m1 --data-dir /var/lib/etcd \
///       --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380
///   lifeboat snapshot restore backup.db --all-members restored/ \
///       --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \
///       --bump-revision auto
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RestoreArgs {
    /// Snapshot file; with --skip-hash-check also the `db` of a stopped member
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Accept a file without a digest, or with a wrong one
    ///
    /// Pages and records are checked all the same.
    #[arg(long)]
    skip_hash_check: bool,

    #[command(flatten)]
    restoring: Restoring,
}

impl RestoreArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let wanted = self.restoring.check()?;
        let rule = if self.skip_hash_check { DigestRule::Skip } else { DigestRule::Required };
        let snapshot = Snapshot::open(&self.file)?;
        let bump = self.restoring.bump().unwrap_or(0);
        self.restoring.run(context, wanted, snapshot, rule, bump, &Interrupt::watch()?)
    }
}
