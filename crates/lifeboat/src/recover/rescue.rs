//! `--from-member`: what a member has left, in place of a backup.

use super::{
    backup::Source,
    confirm::unless_interrupted,
    next::Next,
    prepare::{self, Looked},
    show::Shown,
};
use crate::{
    cli::Context,
    interrupt::Interrupt,
    report::{Exit, Failure},
};
use recover::{
    Chosen, Fleet, Journal, Plan, Rescue, Run, RunError, Survivor, most_recent, spec::Spec,
};
use std::time::Duration;

/// The member that has the most recent data, whichever it is.
const NEWEST: &str = "newest";

/// Whether a member's data are taken, and how.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct RescueArgs {
    /// Bring back what this member has left in its data directory, its write-ahead log included, instead of a backup;
    /// `newest`: the member with the most recent data
    ///
    /// For a cluster that has lost its quorum. If that member's etcd still runs, it is stopped first. Its directory is only read.
    /// A backup that is named as well is only compared with.
    #[arg(long, value_name = "MEMBER", conflicts_with_all = ["pull", "at"])]
    from_member: Option<String>,

    /// For --from-member: leave out the write-ahead log; writes that were acknowledged shortly before the member stopped may be missing
    #[arg(long, requires = "from_member")]
    db_only: bool,
}

/// What is brought back.
pub(super) struct Selected {
    pub(super) chosen: Chosen,
    pub(super) rescue: Option<Rescue>,
    pub(super) other_backup: Option<Chosen>,
}

impl RescueArgs {
    pub(super) fn is_asked(&self) -> bool {
        self.from_member.is_some()
    }

    /// Nothing is looked for on hosts that the file does not name.
    pub(super) fn is_known_in(&self, spec: &Spec) -> Result<(), Failure> {
        let Some(named) = self.from_member.as_ref().filter(|named| *named != NEWEST) else {
            return Ok(());
        };
        let known: Vec<_> = spec.resolved().into_iter().map(|host| host.label).collect();
        match known.contains(named) {
            true => Ok(()),
            false => Err(Failure::new(
                Exit::Usage,
                format!("--from-member: the cluster's file has no {named}"),
                format!("it has {}; `{NEWEST}` takes the most recent data", known.join(", ")),
            )),
        }
    }

    /// The backup, or the member that is named.
    pub(super) fn select(
        &self,
        spec: &Spec,
        looked: &Looked,
        backup: Option<&Source>,
    ) -> Result<Selected, Failure> {
        let backup = backup.map(|source| source.chosen.clone());
        let Some(named) = &self.from_member else {
            let chosen = backup.expect("without a backup it did not come so far");
            return Ok(Selected { chosen, rescue: None, other_backup: None });
        };
        let survivor = self.survivor(named, looked)?;
        let rescue = Rescue {
            member: survivor.label.clone(),
            etcd_runs: survivor.etcd_runs,
            db_only: self.db_only,
        };
        if !rescue.can_take(&survivor.held) {
            return Err(untakable(survivor, looked, backup.is_some()));
        }
        let hosts = spec.resolved();
        let host = hosts.iter().find(|host| host.label == survivor.label);
        let host = host.expect("survivors are hosts of the spec");
        let version = looked.facts.get(&host.label).and_then(|facts| facts.etcd_version.clone());
        let log = if self.db_only { "" } else { ", with its write-ahead log" };
        let chosen = Chosen {
            from: format!(
                "{}'s data in {} on {}{log}",
                host.label,
                host.data_dir.display(),
                host.host
            ),
            // Without the log it may have less, and with one that was only counted more; how much is seen when it is read.
            revision: survivor
                .held
                .revision
                .filter(|_| !self.db_only && !survivor.held.counted_only),
            taken: survivor.held.written,
            bytes: survivor.held.bytes,
            version,
            ..Chosen::default()
        };
        Ok(Selected { chosen, rescue: Some(rescue), other_backup: backup })
    }

    fn survivor<'l>(&self, named: &str, looked: &'l Looked) -> Result<&'l Survivor, Failure> {
        let healthy = prepare::healthy(&looked.answers);
        if !healthy.is_empty() {
            return Err(Failure::new(
                Exit::Refused,
                format!("the cluster is healthy: {} can write to it", healthy.join(", ")),
                "there is nothing to rescue; take a backup with `lifeboat backup` if you need one",
            ));
        }
        if let Some(found) = looked.survivors.iter().find(|survivor| survivor.label == named) {
            return Ok(found);
        }
        let usable = most_recent(&looked.survivors);
        match usable {
            Some(best) if named == NEWEST => Ok(best),
            Some(best) => Err(Failure::new(
                Exit::Failed,
                format!("{named} has no data left"),
                format!("the most recent data are {}'s: --from-member {}", best.label, best.label),
            )),
            None => {
                let troubles = looked.survivors.iter().filter_map(|survivor| {
                    let trouble = survivor.held.trouble.as_ref()?;
                    Some(format!("\n  {}: {trouble}", survivor.label))
                });
                let troubles: String = troubles.collect();
                let message = format!("no host has data left that can be taken{troubles}");
                Err(Failure::new(
                    Exit::Failed,
                    message,
                    "bring the cluster back from a backup: leave out --from-member",
                ))
            }
        }
    }

    /// A run goes on with what it was begun with.
    pub(super) fn same_as(&self, plan: &Plan, next: &Next) -> Result<(), Failure> {
        let Some(named) = &self.from_member else { return Ok(()) };
        match &plan.rescue {
            Some(rescue) if rescue.member == *named || named == NEWEST => Ok(()),
            _ => Err(Failure::new(
                Exit::Refused,
                format!("run {} was begun with {}, not {named}'s data", plan.run, plan.backup.from),
                format!(
                    "to begin with these, take the run back first: {}",
                    next.rollback(&plan.run)
                ),
            )),
        }
    }
}

/// A look was enough to see that the data cannot be taken.
fn untakable(survivor: &Survivor, looked: &Looked, has_backup: bool) -> Failure {
    let held = &survivor.held;
    let exit = if held.damaged { Exit::Damaged } else { Exit::Failed };
    let trouble = held.trouble.as_deref().unwrap_or("its database cannot be read");
    let mut help = held.remedy.clone().unwrap_or_default();
    if let Some(other) = most_recent(&looked.survivors) {
        help += &format!("; {} has data too: --from-member {}", other.label, other.label);
    }
    if has_backup {
        help += "; from the backup: leave out --from-member";
    }
    Failure::new(exit, format!("{}'s data cannot be taken: {trouble}", survivor.label), help)
}

/// A backup that cannot be had is not the end.
pub(super) fn offered_without_backup(failure: Failure) -> Failure {
    let offer =
        "without a backup: if a member's data directory is left, --from-member newest takes that";
    let help = match failure.help {
        Some(help) => format!("{help}\nhelp: {offer}"),
        None => offer.to_owned(),
    };
    Failure { help: Some(help), ..failure }
}

/// Takes the member's data and brings them here.
pub(super) fn fetch(
    context: &Context,
    plan: &Plan,
    journal: &Journal,
    patience: Duration,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    let shown = Shown::new(&plan.spec);
    let fetched = unless_interrupted(context, interrupt, async {
        let fleet = Fleet::new(&plan.spec, shown.watcher())?.patient(patience);
        let run = Run { plan, journal, fleet: &fleet };
        match run.rescue().await {
            Err(error) if error.is_damaged_source() => {
                run.give_up_rescue().await?;
                Err(damaged(plan, error))
            }
            fetched => Ok(fetched?),
        }
    });
    shown.clear();
    let member = plan.rescue.as_ref().map(|rescue| rescue.member.as_str());
    say!("{}", fetched?.line(member.unwrap_or_default()));
    Ok(())
}

/// The walk through all of the data found what a look does not see.
fn damaged(plan: &Plan, error: RunError) -> Failure {
    let member = plan.rescue.as_ref().map(|rescue| rescue.member.as_str()).unwrap_or_default();
    let mut help = format!(
        "{member}'s data cannot be taken; all is as it was before, and nothing else was touched"
    );
    let others = plan.survivors.iter().filter(|other| other.label != member);
    let others: Vec<_> = others.cloned().collect();
    if let Some(other) = most_recent(&others) {
        help += &format!("\nhelp: {0} has data too: --from-member {0}", other.label);
    }
    help += match &plan.other_backup {
        Some(_) => "\nhelp: from the backup: the same command without --from-member",
        None => "\nhelp: from a backup: the same command with --backup, and without --from-member",
    };
    Failure { exit: Exit::Damaged, error: error.into(), help: Some(help) }
}
