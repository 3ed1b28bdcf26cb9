//! Backups verified one after the other, with what was found noted in their repository.
//!
//! * Damage is noted in the backup's own folder at once; the record of the check follows when all are done.
//! * A share of which something could not be found out is not recorded as done: it comes again.

use crate::{
    event::Watcher,
    place,
    verify::{VerifyError, verify},
};
use jiff::Timestamp;
use repository::{
    BackupId, ClusterName, Repository, RepositoryError,
    checks::{Check, Damage, Share},
    codec::Identities,
    listing::{Backup, Listing, State},
};
use std::{num::NonZeroU32, path::Path};

/// Which backups of a cluster are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest alone.
    Newest,
    /// All of them.
    All,
    /// The next of so many equal shares.
    Share(NonZeroU32),
}

/// The backups that are checked, and the share of all that they are; none if they are no share.
#[derive(Debug)]
pub struct Chosen<'l> {
    /// The share, which is noted as done when all of it is.
    pub share: Option<Share>,
    /// The backups, newest first.
    pub backups: Vec<&'l Backup>,
}

impl Which {
    /// Chooses them. Which share is due is what the checks before have noted in the repository.
    pub async fn of<'l>(
        self,
        repository: &Repository,
        listing: &'l Listing,
    ) -> Result<Chosen<'l>, RepositoryError> {
        let share = match self {
            Self::Newest => {
                let backups = listing.backups.first().into_iter().collect();
                return Ok(Chosen { share: None, backups });
            }
            Self::All => Share::ALL,
            Self::Share(of) => Share::due(of, &repository.checks(&listing.cluster).await?),
        };
        let covered = listing.backups.iter().filter(|backup| share.covers(backup.id()));
        Ok(Chosen { share: Some(share), backups: covered.collect() })
    }
}

/// How backups are checked.
#[derive(Debug)]
pub struct Checking<'a> {
    /// Where they lie.
    pub repository: &'a Repository,
    /// Whose they are.
    pub cluster: &'a ClusterName,
    /// What decrypts them.
    pub identities: &'a Identities,
    /// Where they are unpacked.
    pub spool_dir: &'a Path,
    /// Whether only sizes are compared: nothing is read back, and nothing noted.
    pub quick: bool,
    /// Whether what is found is noted in the repository.
    pub record: bool,
}

/// What was found of one backup.
#[derive(Debug)]
pub enum Verdict {
    /// It is what its manifest says.
    Sound,
    /// It is not: a line for each thing found.
    Damaged(Vec<String>),
    /// It could not be found out.
    Unknown(VerifyError),
    /// It was removed meanwhile: it is no backup any more, and so not a damaged one.
    Gone,
}

/// What was found of all.
#[derive(Debug, Default)]
pub struct Checked {
    /// Backups that are what their manifests say.
    pub sound: Vec<BackupId>,
    /// Backups that are not.
    pub damaged: Vec<BackupId>,
    /// Backups of which it could not be found out.
    pub unknown: Vec<BackupId>,
    /// What could not be noted.
    pub unrecorded: Vec<RepositoryError>,
}

impl Checking<'_> {
    /// Checks `backups`, which are that share of all, or were named. `watch` makes a watcher for each; `tell` hears of
    /// each as soon as it is known.
    pub async fn run(
        &self,
        backups: &[&Backup],
        share: Option<Share>,
        begun: Timestamp,
        watch: impl Fn(&Backup) -> Watcher,
        mut tell: impl FnMut(&Backup, Verdict),
    ) -> Checked {
        let mut checked = Checked::default();
        for backup in backups {
            let verdict = self.one(backup, &watch(backup)).await;
            let list = match &verdict {
                Verdict::Gone => {
                    tell(backup, verdict);
                    continue;
                }
                Verdict::Sound => &mut checked.sound,
                Verdict::Damaged(findings) => {
                    let noted = self.note(backup, begun, findings).await;
                    checked.unrecorded.extend(noted.err());
                    &mut checked.damaged
                }
                Verdict::Unknown(_) => &mut checked.unknown,
            };
            list.push(backup.id());
            tell(backup, verdict);
        }
        let recorded = self.record(&checked, share, begun).await;
        checked.unrecorded.extend(recorded.err());
        checked
    }

    async fn one(&self, backup: &Backup, watcher: &Watcher) -> Verdict {
        let verdict = self.look_at(backup, watcher).await;
        // Pruning deletes the manifest first: as long as it is there, so is the claim that the backup is whole.
        if matches!(verdict, Verdict::Damaged(_)) {
            let manifest = place::manifest_path(&backup.manifest);
            if self.repository.store().size(&manifest).await.is_err_and(|e| e.is_not_found()) {
                return Verdict::Gone;
            }
        }
        verdict
    }

    async fn look_at(&self, backup: &Backup, watcher: &Watcher) -> Verdict {
        if backup.state != State::Whole {
            return Verdict::Damaged(vec![backup.state.to_string()]);
        }
        if self.quick {
            return Verdict::Sound;
        }
        let store = self.repository.store();
        match verify(store, &backup.manifest, self.identities, self.spool_dir, watcher).await {
            Ok(problems) if problems.is_empty() => Verdict::Sound,
            Ok(problems) => Verdict::Damaged(problems.iter().map(ToString::to_string).collect()),
            Err(error) => Verdict::Unknown(error),
        }
    }

    async fn note(
        &self,
        backup: &Backup,
        at: Timestamp,
        findings: &[String],
    ) -> Result<(), RepositoryError> {
        if self.quick || !self.record {
            return Ok(());
        }
        let damage = Damage::new(at, findings.to_vec());
        self.repository.mark_damaged(self.cluster, backup.id(), &damage).await
    }

    async fn record(
        &self,
        checked: &Checked,
        share: Option<Share>,
        begun: Timestamp,
    ) -> Result<(), RepositoryError> {
        let Checked { sound, damaged, unknown, .. } = checked;
        let share = share.filter(|_| unknown.is_empty());
        if self.quick || !self.record || (share.is_none() && sound.is_empty() && damaged.is_empty())
        {
            return Ok(());
        }
        let check = Check::new(begun, share, sound.clone(), damaged.clone());
        self.repository.record_check(self.cluster, &check).await
    }
}
