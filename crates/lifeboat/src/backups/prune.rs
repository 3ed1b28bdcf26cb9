//! `prune`: what the policy does not keep goes.

use super::{
    args::{Filter, RepositoryArgs, config},
    policy::PolicyArgs,
};
use crate::{
    cli::Context,
    output::{self, Format, humanize_bytes},
    report::{Exit, Failure},
};
use daemon::config::Span;
use jiff::{SignedDuration, Timestamp};
use repository::{
    ClusterName, Repository,
    prune::{Fate, PruneOptions, PrunePlan, PruneReport},
    retention::Policy,
};
use serde::Serialize;

/// Remove backups that the policy does not keep
///
/// Says of every backup why it stays or goes. The newest that is verified always
/// stays, and so do pinned ones. Remains of backups that broke off go once they
/// are older than --grace. Without any rule nothing but such remains goes. A
/// backup that the store has locked is told and stays. With --config, the
/// policies of that file hold unless flags give one.
///
/// Examples:
///   lifeboat prune --keep-within 15d --dry-run
///   lifeboat prune --keep-last 12 --keep-daily 7 --keep-weekly 5 \
///       --keep-monthly 12
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct PruneArgs {
    /// Cluster; may be given several times [default: all in the repository] [env: LIFEBOAT_CLUSTER]
    #[arg(long = "cluster", value_name = "NAME")]
    clusters: Vec<ClusterName>,

    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// How old the remains of a broken backup must be before they go
    #[arg(long, value_name = "SPAN", default_value = "24h")]
    grace: Span,

    #[command(flatten)]
    policy: PolicyArgs,

    #[command(flatten)]
    repository: RepositoryArgs,
}

#[derive(Serialize)]
struct ClusterJson<'a> {
    cluster: &'a ClusterName,
    decisions: Vec<DecisionJson>,
    /// What was done; absent of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<usize>,
    bytes_freed: u64,
}

#[derive(Serialize)]
struct DecisionJson {
    name: String,
    keep: bool,
    reasons: Vec<String>,
    stored_bytes: u64,
}

impl PruneArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async {
            let place = self.repository.place()?;
            let config = config(self.repository.config.as_deref())?;
            let repository = Repository::open(place.store).await?;
            let of_place = place.settings.map(|settings| settings.retention);
            let filter = Filter { clusters: self.clusters.clone(), since: None, until: None };
            let mut failure = None;
            for cluster in filter.clusters(&repository).await? {
                let of_cluster = config.iter().flat_map(|config| &config.clusters);
                let of_cluster = of_cluster.filter(|of| of.name == cluster);
                let of_cluster = of_cluster.filter_map(|of| of.retention.clone()).next();
                let policy = self.policy.clone().over(of_cluster.or(of_place.clone()));
                if let Err(error) = self.prune(context, &repository, &cluster, &policy).await {
                    // One cluster that fails does not keep the others; the last failure is told at the end.
                    if let Some(earlier) = failure.replace(error) {
                        earlier.warn();
                    }
                }
            }
            failure.map_or(Ok(()), Err)
        })
    }

    async fn prune(
        &self,
        context: &Context,
        repository: &Repository,
        cluster: &ClusterName,
        policy: &Policy,
    ) -> Result<(), Failure> {
        let grace = SignedDuration::try_from(self.grace.0).unwrap_or(SignedDuration::MAX);
        let options = PruneOptions { grace, ..PruneOptions::default() };
        let plan = PrunePlan::new(repository, cluster, policy, Timestamp::now(), options).await?;
        let decisions = decisions(&plan);
        let (freed, over_size) = (plan.bytes_to_free(), plan.over_size);
        if context.format != Format::Json {
            output::print(&explain(context.format, cluster, &decisions))?;
        }
        let report = match self.dry_run {
            true => None,
            false => Some(plan.execute(repository, |_| {}).await?),
        };
        let removed = report.as_ref().map(|report| report.removed.len());
        let bytes_freed = report.as_ref().map_or(freed, |report| report.bytes_freed);
        if context.format == Format::Json {
            output::print(&output::json(&ClusterJson {
                cluster,
                decisions,
                removed,
                bytes_freed,
            }))?;
        } else {
            let would = if self.dry_run { "would free" } else { "freed" };
            output::print(&format!("{cluster}: {would} {}\n", humanize_bytes(bytes_freed)))?;
        }
        if let Some(over) = over_size {
            say!(
                "warning: {cluster} has {} more than --max-total-size, but the floor, pins and the newest stay",
                humanize_bytes(over)
            );
        }
        report.map_or(Ok(()), |report| check(cluster, &report))
    }
}

/// Backups newest first, then what never became one.
fn decisions(plan: &PrunePlan) -> Vec<DecisionJson> {
    let backups = plan.backups.iter().map(|planned| DecisionJson {
        name: planned.decision.id.to_string(),
        keep: planned.decision.keep,
        reasons: planned.decision.reasons.iter().map(ToString::to_string).collect(),
        stored_bytes: planned.bytes,
    });
    let orphans = plan.orphans.iter().map(|orphan| DecisionJson {
        name: orphan.id.to_string(),
        keep: orphan.fate != Fate::Remove,
        reasons: vec![why(orphan.fate).to_owned()],
        stored_bytes: orphan.bytes,
    });
    let unreadable = plan.unreadable.iter().map(|(id, error)| DecisionJson {
        name: id.to_string(),
        keep: true,
        reasons: vec![format!("it cannot be read: {error}")],
        stored_bytes: 0,
    });
    backups.chain(orphans).chain(unreadable).collect()
}

fn why(fate: Fate) -> &'static str {
    match fate {
        Fate::Remove => "unfinished, and older than the grace period",
        Fate::TooYoung => "unfinished, but younger than the grace period",
        Fate::Running => "it is being written",
        Fate::Closed => "given up; only what keeps it so is left",
    }
}

fn explain(format: Format, cluster: &ClusterName, decisions: &[DecisionJson]) -> String {
    let rows = decisions.iter().map(|decision| {
        vec![
            cluster.to_string(),
            decision.name.clone(),
            humanize_bytes(decision.stored_bytes),
            if decision.keep { "kept" } else { "removed" }.to_owned(),
            decision.reasons.join("; "),
        ]
    });
    match format {
        Format::Table => output::table(
            &["Cluster", "Name", "Stored", "Decision", "Why"],
            &rows.collect::<Vec<_>>(),
        ),
        _ => decisions
            .iter()
            .map(|d| {
                let decision = if d.keep { "kept:   " } else { "removed:" };
                format!(
                    "{decision} {cluster} {} ({}): {}\n",
                    d.name,
                    humanize_bytes(d.stored_bytes),
                    d.reasons.join("; ")
                )
            })
            .collect(),
    }
}

fn check(cluster: &ClusterName, report: &PruneReport) -> Result<(), Failure> {
    for locked in &report.locked {
        say!("note: {locked}; it stays");
    }
    for error in &report.failed {
        say!("warning: {error}");
    }
    let undone = report.failed.len() + report.untried;
    match report.failed.last() {
        _ if undone == 0 => Ok(()),
        Some(error) if error.is_unreachable() => Err(Failure::new(
            Exit::Unreachable,
            format!("{undone} folders of {cluster} are left"),
            error.remedy(),
        )),
        last => Err(Failure::new(
            Exit::Failed,
            format!("{undone} folders of {cluster} are left"),
            last.map_or("run again", |error| error.remedy()),
        )),
    }
}
