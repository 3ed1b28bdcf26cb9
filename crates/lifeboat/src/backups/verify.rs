//! `verify`: backups read back and proved.

use super::{
    args::{Filter, IdentityArgs, RepositoryArgs, spool_dir},
    events::Show,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    output::{self, Format},
    report::{Exit, Failure},
};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Repository,
    checks::{Check, Damage, Share},
    codec::Identities,
    listing::{Backup, Listing, State, Target},
};
use serde::Serialize;
use std::{num::NonZeroU32, path::PathBuf, str::FromStr};

/// Read backups back and prove them
///
/// Each is decrypted, decompressed, and proved as it was when it was made: digest, every page, every record, and all
/// that its manifest says. Which ones: those that are named, --all, a --sample, or else the newest of each cluster.
/// Damage is noted in the repository: a backup that was found damaged is not restored unless it is named, and counts
/// for nothing in the policy.
///
/// Exit code 3 if anything is damaged; 1 or 4 if it could not be found out.
///
/// Examples:
///   lifeboat verify --cluster prod --identity identity.txt
///   lifeboat verify --sample 1/7        each day another seventh, so that a week covers everything
///   lifeboat verify --quick --all       are all objects there, with the right sizes
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
struct Verdict {
    cluster: ClusterName,
    name: BackupId,
    /// `verified`, `damaged`, or `unknown`: it could not be found out.
    result: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<String>,
}

/// What is verified of one cluster.
struct Chosen<'l> {
    share: Option<Share>,
    backups: Vec<&'l Backup>,
}

impl VerifyArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let identities = self.identities.read()?;
        let interrupt = Interrupt::watch()?;
        context.block_on(async {
            let repository = self.repository.open().await?;
            let mut failure = None;
            for cluster in self.filter.clusters(&repository).await? {
                tokio::select! {
                    biased;
                    () = interrupt.wait() => return Err(Failure::interrupted()),
                    result = self.cluster(context, &repository, &cluster, &identities) => {
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
        repository: &Repository,
        cluster: &ClusterName,
        identities: &Identities,
    ) -> Result<Option<Failure>, Failure> {
        let begun = Timestamp::now();
        let mut listing = repository.backups(cluster).await?;
        listing.backups.retain(|backup| self.filter.covers(backup.manifest.started));
        let mut failure = listing.unreadable.first().map(|unreadable| {
            eprintln!("warning: {} of {cluster}: {}", unreadable.id, unreadable.error);
            Failure::damaged(
                format!("a manifest of {cluster} cannot be read"),
                unreadable.error.remedy(),
            )
        });
        let chosen = self.choose(repository, &listing).await?;
        if let Some(share) = chosen.share {
            eprintln!(
                "{cluster}: share {share}, {} of {} backups",
                chosen.backups.len(),
                listing.backups.len()
            );
        }
        let (mut verified, mut damaged) = (Vec::new(), Vec::new());
        for backup in chosen.backups {
            let verdict = self.one(repository, backup, identities, &mut failure).await;
            match verdict.result {
                "verified" => verified.push(verdict.name),
                "damaged" => {
                    damaged.push(verdict.name);
                    self.note_damage(repository, &verdict).await;
                }
                _ => {}
            }
            tell(context, &verdict)?;
        }
        // A quick look proves nothing, so it is no check to be remembered.
        if !self.quick && !self.no_record && (!verified.is_empty() || !damaged.is_empty()) {
            let check = Check::new(begun, chosen.share, verified, damaged);
            if let Err(error) = repository.record_check(cluster, &check).await {
                eprintln!("warning: the check could not be noted in the repository: {error}");
            }
        }
        Ok(failure)
    }

    async fn choose<'l>(
        &self,
        repository: &Repository,
        listing: &'l Listing,
    ) -> Result<Chosen<'l>, Failure> {
        let all = || listing.backups.iter().collect();
        if let Some(Sample(of)) = self.sample {
            let share = Share::due(of, &repository.checks(&listing.cluster).await?);
            let covered = listing.backups.iter().filter(|backup| share.covers(backup.id()));
            return Ok(Chosen { share: Some(share), backups: covered.collect() });
        }
        if self.all || (self.quick && self.targets.is_empty()) {
            let share = self.all.then_some(Share::ALL);
            return Ok(Chosen { share, backups: all() });
        }
        if self.targets.is_empty() {
            return Ok(Chosen {
                share: None,
                backups: listing.backups.first().into_iter().collect(),
            });
        }
        let now = Timestamp::now();
        let find = |target| Ok(listing.find(target, now)?.backup);
        let backups = self.targets.iter().map(find).collect::<Result<_, Failure>>()?;
        Ok(Chosen { share: None, backups })
    }

    async fn one(
        &self,
        repository: &Repository,
        backup: &Backup,
        identities: &Identities,
        failure: &mut Option<Failure>,
    ) -> Verdict {
        let verdict = |result, findings| Verdict {
            cluster: backup.manifest.cluster.clone(),
            name: backup.id(),
            result,
            findings,
        };
        let damaged = |findings: Vec<String>, failure: &mut Option<Failure>| {
            let help = "restore from another; `prune` removes it when a newer one is verified";
            let found = Failure::damaged(format!("backup {} is damaged", backup.id()), help);
            *failure = worse(failure.take(), Some(found));
            verdict("damaged", findings)
        };
        if backup.state != State::Whole {
            return damaged(vec![backup.state.to_string()], failure);
        }
        if self.quick {
            return verdict("verified", Vec::new());
        }
        let show = Show::reading(backup.manifest.db.bytes);
        let watcher = show.watcher();
        let spool = spool_dir(self.spool_dir.as_ref());
        match backup::verify::verify(
            repository.store(),
            &backup.manifest,
            identities,
            &spool,
            &watcher,
        )
        .await
        {
            Ok(problems) if problems.is_empty() => verdict("verified", Vec::new()),
            Ok(problems) => damaged(problems.iter().map(ToString::to_string).collect(), failure),
            Err(error) => {
                let (kind, help) = (error.kind(), error.remedy());
                let message = format!("it is not known whether {} is sound", backup.id());
                let unknown = Failure::caused(kind.into(), message, &error, help);
                *failure = worse(failure.take(), Some(unknown));
                verdict("unknown", vec![etcd_live::one_line(&error)])
            }
        }
    }

    async fn note_damage(&self, repository: &Repository, verdict: &Verdict) {
        if self.no_record || self.quick {
            return;
        }
        let damage = Damage::new(Timestamp::now(), verdict.findings.clone());
        if let Err(error) = repository.mark_damaged(&verdict.cluster, verdict.name, &damage).await {
            eprintln!("warning: the damage could not be noted in the repository: {error}");
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

fn tell(context: &Context, verdict: &Verdict) -> Result<(), Failure> {
    for finding in &verdict.findings {
        eprintln!("finding: {}: {finding}", verdict.name);
    }
    output::print(&match context.format {
        Format::Json => output::json(verdict),
        _ => format!("{}: {} of {}\n", verdict.result, verdict.name, verdict.cluster),
    })
}
