//! `copy`: backups into a second repository.

use super::{
    args::{Filter, IdentityArgs, Place, RepositoryArgs},
    encoding::{EncodingArgs, usage},
    list::unreadable_failure,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format, humanize_bytes},
    report::{Exit, Failure},
};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Repository,
    copy::{CopyError, CopyOptions, CopyReport, Outcome, Storage, copy},
    lease::{Holder, SystemClock, Terms},
    listing::{Listing, Target},
};
use serde::Serialize;
use std::{sync::Arc, time::Duration};

/// How long a backup that runs into the destination is waited for.
const COPY_PATIENCE: Duration = Duration::from_secs(300);

/// Copy backups into another repository
///
/// Every byte is proved on the way. What is there already is skipped, so a copy
/// that was cut goes on when it is run again. Stored bytes are copied as they
/// are, unless --recipient asks for other keys.
///
/// Examples:
///   lifeboat copy --repo /var/backups/etcd --to s3://archive/etcd --all
///   lifeboat copy newest --to s3://archive/etcd --cluster prod
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CopyArgs {
    /// Names of backups, or beginnings of them; `newest`; `revision:N`; `time:…`
    #[arg(value_name = "BACKUP", required_unless_present_any = ["all", "since", "until"])]
    targets: Vec<Target>,

    /// Where to: a folder or a URL; a repository that is not there is made
    #[arg(long, value_name = "URL")]
    to: String,

    /// All backups
    #[arg(long, conflicts_with = "targets")]
    all: bool,

    /// Read every copy back before it counts
    #[arg(long)]
    read_back: bool,

    /// Copy pins too
    #[arg(long)]
    pins: bool,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    encoding: EncodingArgs,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    repository: RepositoryArgs,
}

impl CopyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let place = self.repository.place()?;
        let to = self.repository.place_of(Some(&self.to))?;
        let options = self.options(&place, &to)?;
        let interrupt = Interrupt::watch()?;
        context.block_on(async {
            let from = Repository::open(place.store).await?;
            if to.store.url() == from.store().url() {
                return Err(usage(
                    "a repository is not copied into itself",
                    "give another one with --to",
                ));
            }
            let to = Repository::open_or_create(to.store, Timestamp::now()).await?;
            let mut failure = None;
            for cluster in self.filter.clusters(&from).await? {
                let listing = from.backups(&cluster).await?;
                let ids = self.choose(&listing)?;
                // What was asked for by name was found; of all others, none is left out in silence.
                if self.targets.is_empty() {
                    failure = failure.or(unreadable_failure(&listing));
                }
                let report = tokio::select! {
                    biased;
                    () = interrupt.wait() => return Err(Failure::interrupted()),
                    report = copy(&from, &to, &cluster, &ids, &options) => report?,
                };
                failure = failure.or(tell(context.format, &cluster, &report)?);
            }
            failure.map_or(Ok(()), Err)
        })
    }

    /// Copies are stored as the originals are, unless flags or the destination's settings name other recipients.
    fn options(&self, from: &Place, to: &Place) -> Result<CopyOptions, Failure> {
        let encoding = match &to.settings {
            _ if self.encoding.names_recipients() => Some(self.encoding.read()?),
            Some(settings) => Some(settings.encoding.clone()),
            None => None,
        };
        let storage = match encoding {
            Some(encoding) => Storage::Anew {
                encoding,
                identities: from.configured_identities(&self.identities)?,
            },
            None => Storage::AsIs,
        };
        let bandwidth = self.encoding.bandwidth().cloned();
        Ok(CopyOptions {
            storage,
            read_back: self.read_back,
            pins: self.pins,
            bandwidth,
            holder: Holder::this_process(),
            terms: Terms { patience: COPY_PATIENCE, ..Terms::default() },
            clock: Arc::new(SystemClock::default()),
            progress: Arc::new(|_| {}),
        })
    }

    fn choose(&self, listing: &Listing) -> Result<Vec<BackupId>, Failure> {
        if self.targets.is_empty() {
            let covered = listing.backups.iter().filter(|b| self.filter.covers(b.manifest.started));
            return Ok(covered.map(|backup| backup.id()).collect());
        }
        let now = Timestamp::now();
        self.targets.iter().map(|target| Ok(listing.find(target, now)?.backup.id())).collect()
    }
}

/// What became of one backup, for machines.
#[derive(Serialize)]
struct OutcomeJson<'a> {
    cluster: &'a ClusterName,
    name: BackupId,
    /// `copied`, `present` (it was there already), `pruned` (meanwhile), or `failed`.
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> OutcomeJson<'a> {
    fn of(cluster: &'a ClusterName, name: BackupId, outcome: &Outcome) -> Self {
        let (result, bytes, error) = match outcome {
            Outcome::Copied { bytes } => ("copied", Some(*bytes), None),
            Outcome::Present => ("present", None, None),
            // What is copied was listed a moment ago: one that is not there any more was pruned since.
            Outcome::Pruned | Outcome::Failed(CopyError::NoSuchBackup { .. }) => {
                ("pruned", None, None)
            }
            Outcome::Failed(error) => ("failed", None, Some(etcd_live::one_line(error))),
        };
        Self { cluster, name, result, bytes, error }
    }

    /// For people; nothing of a failure, which is told on stderr.
    fn line(&self) -> String {
        let Self { cluster, name, bytes, .. } = self;
        match self.result {
            "copied" => {
                format!("copied {name} of {cluster}, {}\n", humanize_bytes(bytes.unwrap_or(0)))
            }
            "present" => format!("{name} of {cluster} is there already\n"),
            "pruned" => format!("{name} of {cluster} was pruned meanwhile\n"),
            _ => String::new(),
        }
    }

    fn row(&self) -> Vec<String> {
        let bytes = self.bytes.map(humanize_bytes).unwrap_or_default();
        vec![self.cluster.to_string(), self.name.to_string(), self.result.to_owned(), bytes]
    }
}

fn tell(
    format: Format,
    cluster: &ClusterName,
    report: &CopyReport,
) -> Result<Option<Failure>, Failure> {
    let outcomes = report.outcomes.iter();
    let outcomes: Vec<_> =
        outcomes.map(|(id, outcome)| OutcomeJson::of(cluster, *id, outcome)).collect();
    output::print(&match format {
        Format::Simple => outcomes.iter().map(OutcomeJson::line).collect(),
        Format::Json => outcomes.iter().map(output::json).collect(),
        format => {
            let rows: Vec<_> = outcomes.iter().map(OutcomeJson::row).collect();
            output::rows(format, &["Cluster", "Name", "Result", "Stored"], &rows)
        }
    })?;
    let mut failure = None;
    for (id, outcome) in &report.outcomes {
        match outcome {
            Outcome::Failed(CopyError::NoSuchBackup { .. }) => {}
            Outcome::Failed(error) => {
                let exit = if error.is_unreachable() { Exit::Unreachable } else { Exit::Failed };
                let failed = Failure::caused(
                    exit,
                    format!("{id} of {cluster} was not copied"),
                    error,
                    error.remedy(),
                );
                if let Some(earlier) = failure.replace(failed) {
                    Failure::warn(&earlier);
                }
            }
            Outcome::Copied { .. } | Outcome::Present | Outcome::Pruned => {}
        }
    }
    for (name, error) in &report.pins_failed {
        say!("warning: pin {name} was not copied: {error}");
    }
    if !report.untried.is_empty() {
        say!("warning: {} backups of {cluster} were not tried", report.untried.len());
    }
    Ok(failure)
}
