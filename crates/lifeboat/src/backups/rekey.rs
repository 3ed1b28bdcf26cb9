//! `rekey`: old backups for new keys.

use super::{
    args::{IdentityArgs, RepositoryArgs, one_cluster},
    encoding::{EncodingArgs, usage},
};
use crate::{cli::Context, output, report::Failure};
use jiff::Timestamp;
use repository::{ClusterName, Repository, listing::Target, rekey::rekey};

/// Encrypt backups to other recipients, and to nobody else
///
/// Each is decrypted and encrypted anew on the way; then what the old keys could read is deleted. A stop at any instant
/// leaves every backup readable by the old or by the new keys; run again to finish.
#[derive(Debug, clap::Args)]
pub(crate) struct RekeyArgs {
    /// Backups: names or beginnings of them; `newest`
    #[arg(value_name = "BACKUP", required_unless_present = "all")]
    targets: Vec<Target>,

    /// All backups of the cluster
    #[arg(long, conflicts_with = "targets")]
    all: bool,

    /// The cluster, if the repository has several [env: LIFEBOAT_CLUSTER]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    #[command(flatten)]
    encoding: EncodingArgs,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    repository: RepositoryArgs,
}

impl RekeyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let recipients = self.encoding.recipients()?;
        if recipients.is_empty() {
            return Err(usage(
                "there are no recipients to encrypt to",
                "give the new public keys with --recipient",
            ));
        }
        let place = self.repository.place()?;
        context.block_on(async {
            let repository = Repository::open(place.store.clone()).await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            let listing = repository.backups(&cluster).await?;
            let ids = match self.all {
                true => listing.backups.iter().map(|backup| backup.id()).collect::<Vec<_>>(),
                false => {
                    let find = |target| Ok(listing.find(target, Timestamp::now())?.backup.id());
                    self.targets.iter().map(find).collect::<Result<Vec<_>, Failure>>()?
                }
            };
            let manifests = listing.backups.iter().filter(|b| ids.contains(&b.id())).map(|b| &b.manifest);
            let identities = place.identities_of(&self.identities, manifests)?;
            for id in ids {
                let bandwidth = self.encoding.bandwidth();
                let rekeyed = rekey(repository.store(), &cluster, id, &identities, &recipients, bandwidth, |_| {}).await?;
                let done = if rekeyed.is_rewritten { "encrypted anew" } else { "encrypted to these keys already" };
                output::print(&format!("{id} of {cluster}: {done}\n"))?;
                for locked in rekeyed.locked {
                    say!("warning: {locked} is locked by the store and stays: the old keys still open it");
                }
            }
            Ok(())
        })
    }
}
