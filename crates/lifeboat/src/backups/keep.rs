//! `keep`: pins, which hold backups whatever the policy says.

use super::args::{RepositoryArgs, one_cluster};
use crate::{
    cli::Context,
    output::{self, Format},
    report::{Exit, Failure},
};
use jiff::Timestamp;
use repository::{
    ClusterName, Repository,
    keep::{Pin, PinName},
    listing::Target,
};

/// Keep a backup for good, whatever the policy says
///
/// Without arguments: lists what is kept.
///
/// Examples:
///   lifeboat keep newest --as before-upgrade --note "etcd 3.4 to 3.5"
///   lifeboat keep --remove before-upgrade
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct KeepArgs {
    /// The backup: its name or the beginning of it; `newest`; `revision:N`; `time:…`
    #[arg(value_name = "BACKUP", requires = "name")]
    target: Option<Target>,

    /// What the pin is called: letters, digits, '.', '_' and '-'
    #[arg(long = "as", value_name = "PIN", requires = "target")]
    name: Option<PinName>,

    /// Why
    #[arg(long, value_name = "TEXT", requires = "target")]
    note: Option<String>,

    /// Remove that pin; the backup stays until the policy lets it go
    #[arg(long, value_name = "PIN", conflicts_with = "target")]
    remove: Option<PinName>,

    /// The cluster, if the repository has several [env: LIFEBOAT_CLUSTER]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    #[command(flatten)]
    repository: RepositoryArgs,
}

impl KeepArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let repository = self.repository.open().await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            match (&self.target, &self.name, &self.remove) {
                (Some(target), Some(name), _) => {
                    self.pin(&repository, &cluster, target, name).await
                }
                (_, _, Some(name)) => {
                    repository.unpin(&cluster, name).await?;
                    output::print(&format!("{name} of {cluster} is no longer kept for good\n"))
                }
                _ => list(context.format, &repository, &cluster).await,
            }
        })
    }

    async fn pin(
        &self,
        repository: &Repository,
        cluster: &ClusterName,
        target: &Target,
        name: &PinName,
    ) -> Result<(), Failure> {
        let listing = repository.backups(cluster).await?;
        let backup = listing.find(target, Timestamp::now())?.backup;
        let by = std::env::var("USER").ok();
        let pin = Pin::new(backup.id(), self.note.clone(), by, Timestamp::now());
        repository.pin(cluster, name, &pin).await?;
        output::print(&format!("{} of {cluster} is kept as {name}\n", backup.id()))
    }
}

async fn list(
    format: Format,
    repository: &Repository,
    cluster: &ClusterName,
) -> Result<(), Failure> {
    let pins = repository.pins(cluster).await?;
    let rows: Vec<Vec<String>> = pins
        .pins
        .iter()
        .map(|(name, pin)| {
            vec![
                name.to_string(),
                pin.id.to_string(),
                format!("{:.0}", pin.at),
                pin.by.clone().unwrap_or_default(),
                pin.note.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::print(&match format {
        Format::Table => output::table(&["Pin", "Backup", "Since", "By", "Note"], &rows),
        Format::Json => output::json(
            &pins
                .pins
                .iter()
                .map(|(name, pin)| (name.to_string(), pin))
                .collect::<std::collections::BTreeMap<_, _>>(),
        ),
        Format::Simple | Format::Fields => {
            rows.iter().map(|row| output::simple(row) + "\n").collect()
        }
    })?;
    match pins.unreadable.first() {
        None => Ok(()),
        Some(error) => Err(Failure::new(Exit::Damaged, error.to_string(), error.remedy())),
    }
}
