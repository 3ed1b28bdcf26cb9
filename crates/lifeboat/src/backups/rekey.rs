//! `rekey`: old backups for new keys.

use super::{
    args::{IdentityArgs, RepositoryArgs, one_cluster},
    encoding::{EncodingArgs, usage},
};
use crate::{
    cli::Context,
    output::{self, Format},
    report::Failure,
};
use jiff::Timestamp;
use repository::{BackupId, ClusterName, Repository, listing::Target, rekey::rekey};
use serde::Serialize;

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

/// What became of one backup, for machines.
#[derive(Serialize)]
struct DoneJson<'a> {
    cluster: &'a ClusterName,
    name: BackupId,
    /// `rekeyed`, or `present`: it was encrypted to these keys already.
    result: &'static str,
    /// Objects that the store has locked: the old keys still open them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    locked: Vec<String>,
}

const HEADERS: [&str; 3] = ["Cluster", "Name", "Result"];

impl DoneJson<'_> {
    /// For people.
    fn line(&self) -> String {
        let Self { cluster, name, result, .. } = self;
        let done = match *result {
            "rekeyed" => "encrypted anew",
            _ => "encrypted to these keys already",
        };
        format!("{name} of {cluster}: {done}\n")
    }

    fn row(&self) -> Vec<String> {
        vec![self.cluster.to_string(), self.name.to_string(), self.result.to_owned()]
    }
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
            let mut rows = Vec::new();
            for id in ids {
                let bandwidth = self.encoding.bandwidth();
                let rekeyed = rekey(repository.store(), &cluster, id, &identities, &recipients, bandwidth, |_| {}).await?;
                let result = if rekeyed.is_rewritten { "rekeyed" } else { "present" };
                let locked = rekeyed.locked.clone();
                let done = DoneJson { cluster: &cluster, name: id, result, locked };
                match context.format {
                    Format::Simple => output::print(&done.line())?,
                    Format::Json => output::print(&output::json(&done))?,
                    Format::Table | Format::Fields => rows.push(done.row()),
                }
                for locked in rekeyed.locked {
                    say!("warning: {locked} is locked by the store and stays: the old keys still open it");
                }
            }
            if !rows.is_empty() {
                output::print(&output::rows(context.format, &HEADERS, &rows))?;
            }
            Ok(())
        })
    }
}
