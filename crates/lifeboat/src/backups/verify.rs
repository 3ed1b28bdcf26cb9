//! `verify`: backups read back and proved.

use super::{
    args::{Filter, IdentityArgs, Place, RepositoryArgs, spool_dir},
    events::Show,
    list::unreadable_failure,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format},
    report::{Exit, Failure},
};
use backup::check::{Checking, Chosen, Verdict, Which};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Repository,
    codec::Identities,
    listing::{Backup, Listing, Target},
};
use serde::Serialize;
use std::{num::NonZeroU32, path::PathBuf, str::FromStr};

/// Read backups back and prove them
///
/// Each is decrypted, decompressed, and proved as it was when it was made:
/// digest, every page, every record, and all that its manifest says. Which ones:
/// those that are named, --all, a --sample, or else the newest of each cluster.
/// Damage is noted in the repository: a backup that was found damaged is not
/// restored unless it is named, and counts for nothing in the policy.
///
/// Exit code 3 if anything is damaged; 1 or 4 if it could not be found out.
///
/// Examples:
///   lifeboat verify --cluster prod --identity identity.txt
///   lifeboat verify --sample 1/7       each day another seventh
///   lifeboat verify --quick --all      are all objects there, whole in size
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct VerifyArgs {
    /// Names of backups, or beginnings of them; `newest`; `revision:N`; `time:…`
    #[arg(value_name = "BACKUP", conflicts_with_all = ["all", "sample"])]
    targets: Vec<Target>,

    /// All backups
    #[arg(long, conflicts_with = "sample")]
    all: bool,

    /// One of so many equal shares, each run the next: 1/7
    #[arg(long, value_name = "1/N")]
    sample: Option<Sample>,

    /// Compare only the list of objects and their sizes with the manifests; nothing is read back
    #[arg(long)]
    quick: bool,

    /// Do not note in the repository what was found
    #[arg(long)]
    no_record: bool,

    /// Where backups are unpacked; as much space as the largest database has is needed
    /// [default: the system's folder for temporary files] [env: LIFEBOAT_SPOOL_DIR]
    #[arg(long, value_name = "DIR")]
    spool_dir: Option<PathBuf>,

    #[command(flatten)]
    filter: Filter,

    #[command(flatten)]
    identities: IdentityArgs,

    #[command(flatten)]
    repository: RepositoryArgs,
}

/// `--sample 1/N`.
#[derive(Clone, Copy, Debug)]
struct Sample(NonZeroU32);

impl FromStr for Sample {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of = text.strip_prefix("1/").and_then(|of| of.parse().ok());
        of.map(Self).ok_or("write 1/7 for a seventh")
    }
}

/// What was found of one backup.
#[derive(Serialize)]
struct VerdictJson<'a> {
    cluster: &'a ClusterName,
    name: BackupId,
    /// `verified`, `damaged`, `unknown` (it could not be found out), or `gone` (removed meanwhile).
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

impl<'a> VerdictJson<'a> {
    fn of(backup: &'a Backup, verdict: &Verdict) -> Self {
        let (result, findings) = match verdict {
            Verdict::Sound => ("verified", Vec::new()),
            Verdict::Damaged(findings) => ("damaged", findings.clone()),
            Verdict::Unknown(error) => ("unknown", vec![etcd_live::one_line(error)]),
            Verdict::Gone => ("gone", Vec::new()),
        };
        Self { cluster: &backup.manifest.cluster, name: backup.id(), result, findings }
    }
}

impl VerifyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let place = self.repository.place()?;
        let interrupt = Interrupt::watch()?;
        context.block_on(async {
            let repository = Repository::open(place.store.clone()).await?;
            let mut failure = None;
            for cluster in self.filter.clusters(&repository).await? {
                tokio::select! {
                    biased;
                    () = interrupt.wait() => return Err(Failure::interrupted()),
                    result = self.cluster(context, &place, &repository, &cluster) => {
                        failure = worse(failure, result?);
                    }
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }

    async fn cluster(
        &self,
        context: &Context,
        place: &Place,
        repository: &Repository,
        cluster: &ClusterName,
    ) -> Result<Option<Failure>, Failure> {
        let begun = Timestamp::now();
        let mut listing = repository.backups(cluster).await?;
        listing.backups.retain(|backup| self.filter.covers(backup.manifest.started));
        let mut failure = unreadable_failure(&listing);
        let Chosen { share, backups } = self.choose(repository, &listing).await?;
        if let Some(share) = share.filter(|_| self.sample.is_some()) {
            let all = listing.backups.len();
            say!("{cluster}: share {share}, {} of {all} backups", backups.len());
        }
        let identities = match self.quick {
            true => Identities::none(),
            false => place.identities_of(&self.identities, backups.iter().map(|b| &b.manifest))?,
        };
        let checking = Checking {
            repository,
            cluster,
            identities: &identities,
            spool_dir: &spool_dir(self.spool_dir.as_ref(), &self.repository)?,
            quick: self.quick,
            record: !self.no_record,
        };
        let watch = |backup: &Backup| Show::reading(backup.manifest.db.bytes).watcher();
        let mut told = Ok(());
        let tell = |backup: &Backup, verdict: Verdict| {
            failure = worse(failure.take(), failure_of(backup, &verdict));
            let printed = tell(context, &VerdictJson::of(backup, &verdict));
            told = std::mem::replace(&mut told, Ok(())).and(printed);
        };
        let checked = checking.run(&backups, share, begun, watch, tell).await;
        for error in &checked.unrecorded {
            say!("warning: what was found could not be noted in the repository: {error}");
        }
        told.map(|()| failure)
    }

    fn which(&self) -> Which {
        match self.sample {
            Some(Sample(of)) => Which::Share(of),
            None if self.all || self.quick => Which::All,
            None => Which::Newest,
        }
    }

    async fn choose<'l>(
        &self,
        repository: &Repository,
        listing: &'l Listing,
    ) -> Result<Chosen<'l>, Failure> {
        if self.targets.is_empty() {
            return Ok(self.which().of(repository, listing).await?);
        }
        let now = Timestamp::now();
        let find = |target| Ok(listing.find(target, now)?.backup);
        let backups = self.targets.iter().map(find).collect::<Result<_, Failure>>()?;
        Ok(Chosen { share: None, backups })
    }
}

/// What a verdict makes of the exit code.
fn failure_of(backup: &Backup, verdict: &Verdict) -> Option<Failure> {
    match verdict {
        Verdict::Sound | Verdict::Gone => None,
        Verdict::Damaged(_) => Some(Failure::damaged(
            format!("backup {} is damaged", backup.id()),
            "restore from another; `prune` removes it when a newer one is verified",
        )),
        Verdict::Unknown(error) => {
            let message = format!("it is not known whether {} is sound", backup.id());
            Some(Failure::caused(error.kind().into(), message, error, error.remedy()))
        }
    }
}

/// Damage is worse than not knowing.
fn worse(first: Option<Failure>, second: Option<Failure>) -> Option<Failure> {
    match (first, second) {
        (Some(first), Some(second))
            if first.exit == Exit::Damaged || second.exit != Exit::Damaged =>
        {
            Some(first)
        }
        (first, None) => first,
        (_, second) => second,
    }
}

fn tell(context: &Context, verdict: &VerdictJson<'_>) -> Result<(), Failure> {
    for finding in &verdict.findings {
        say!("finding: {}: {finding}", verdict.name);
    }
    output::print(&match context.format {
        Format::Json => output::json(verdict),
        Format::Simple => format!("{}: {} of {}\n", verdict.result, verdict.name, verdict.cluster),
        // A table for each: what takes hours is told as it is known.
        format => output::rows(
            format,
            &["Cluster", "Name", "Result"],
            &[vec![
                verdict.cluster.to_string(),
                verdict.name.to_string(),
                verdict.result.to_owned(),
            ]],
        ),
    })
}
