//! `keep`: pins, which hold backups whatever the policy says.

use super::args::{RepositoryArgs, one_cluster};
use crate::{
    cli::Context,
    output::{self, Format},
    report::{Exit, Failure},
};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Repository,
    keep::{Pin, PinName},
    listing::Target,
};
use serde::Serialize;

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

/// A pin that was set, or removed.
#[derive(Serialize)]
struct Done<'a> {
    cluster: &'a ClusterName,
    pin: String,
    /// What it holds; none if it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<BackupId>,
}

impl Done<'_> {
    fn tell(&self, format: Format, words: &str) -> Result<(), Failure> {
        let backup = self.backup.map(|id| id.to_string()).unwrap_or_default();
        output::print(&match format {
            Format::Simple => format!("{words}\n"),
            Format::Json => output::json(self),
            format => output::rows(
                format,
                &["Cluster", "Pin", "Backup"],
                &[vec![self.cluster.to_string(), self.pin.clone(), backup]],
            ),
        })
    }
}

impl KeepArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let repository = self.repository.open().await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            match (&self.target, &self.name, &self.remove) {
                (Some(target), Some(name), _) => {
                    self.pin(context.format, &repository, &cluster, target, name).await
                }
                (_, _, Some(name)) => {
                    repository.unpin(&cluster, name).await?;
                    let done = Done { cluster: &cluster, pin: name.to_string(), backup: None };
                    done.tell(
                        context.format,
                        &format!("{name} of {cluster} is no longer kept for good"),
                    )
                }
                _ => list(context.format, &repository, &cluster).await,
            }
        })
    }

    async fn pin(
        &self,
        format: Format,
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
        let done = Done { cluster, pin: name.to_string(), backup: Some(backup.id()) };
        done.tell(format, &format!("{} of {cluster} is kept as {name}", backup.id()))
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
                output::one_line(pin.note.as_deref().unwrap_or_default()).into_owned(),
            ]
        })
        .collect();
    output::print(&match format {
        Format::Json => output::json(
            &pins
                .pins
                .iter()
                .map(|(name, pin)| (name.to_string(), pin))
                .collect::<std::collections::BTreeMap<_, _>>(),
        ),
        format => output::rows(format, &["Pin", "Backup", "Since", "By", "Note"], &rows),
    })?;
    match pins.unreadable.first() {
        None => Ok(()),
        Some(error) => Err(Failure::new(Exit::Damaged, error.to_string(), error.remedy())),
    }
}
