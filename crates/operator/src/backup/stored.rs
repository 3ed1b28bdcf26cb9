//! Whether the backup that an object shows is in the store still.
//!
//! Retention goes by clusters and not by objects, and whoever may enter the store may delete there. The object stays as a
//! record of what was made; the condition `Stored` says whether it can be restored from.

use crate::{
    api::{BackupStore, EtcdBackup, Phase},
    conditions::{self, Is},
    context::Context,
    failure::Failure,
};
use jiff::Timestamp;
use kube::{Api, Resource, ResourceExt, api::ListParams};
use repository::listing::{Listing, State};

/// The condition.
pub(crate) const STORED: &str = "Stored";

/// Why a backup cannot be restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

/// Objects that show a backup in a store: listed before the store is, so that none is newer than the listing.
pub(crate) async fn shown(
    context: &Context,
    store: &BackupStore,
) -> Result<Vec<EtcdBackup>, Failure> {
    let all: Api<EtcdBackup> = context.beside(store);
    let name = store.name_any();
    let found = all.list(&ListParams::default()).await?.items;
    Ok(found.into_iter().filter(|backup| shows(backup, &name)).collect())
}

/// Whether an object shows a backup in the store of that name.
fn shows(backup: &EtcdBackup, store: &str) -> bool {
    let status = backup.status.as_ref();
    backup.spec_in_force().store_name == store
        && backup.meta().deletion_timestamp.is_none()
        && status.is_some_and(|s| s.phase == Some(Phase::Succeeded) && s.backup.is_some())
}

/// Says of each object whether its backup is in what was listed. `are_all`: clusters that are not listed have no backup.
pub(crate) async fn compare(
    context: &Context,
    shown: &[EtcdBackup],
    listings: &[Listing],
    are_all: bool,
) -> Result<(), Failure> {
    for backup in shown {
        if let Some(found) = find(backup, listings, are_all) {
            say(context, backup, found.as_ref()).await?;
        }
    }
    Ok(())
}

/// Whether a backup is lost; `None` if that is not known.
fn find(backup: &EtcdBackup, listings: &[Listing], are_all: bool) -> Option<Option<Lost>> {
    let cluster = &backup.spec_in_force().cluster.name;
    let id = backup.status.as_ref()?.backup.as_ref()?;
    let missing = || {
        Some(Some(Lost {
            reason: "Missing",
            text: format!(
                "{cluster}/{id} is not in the store any more: retention or somebody has deleted it"
            ),
        }))
    };
    let Some(listing) = listings.iter().find(|listing| listing.cluster.as_str() == cluster) else {
        return are_all.then(missing).flatten();
    };
    if listing.unreadable.iter().any(|found| found.id.to_string() == *id) {
        return None;
    }
    let Some(found) = listing.backups.iter().find(|found| found.id().to_string() == *id) else {
        return missing();
    };
    Some(match &found.state {
        State::Whole if !found.is_damaged => None,
        State::Whole => Some(Lost {
            reason: "Damaged",
            text: format!("a check has found {cluster}/{id} damaged"),
        }),
        _ => Some(Lost {
            reason: "Damaged",
            text: format!(
                "objects of {cluster}/{id} are missing in the store, or have another size"
            ),
        }),
    })
}

/// Says of all objects that show one of these backups that it was pruned, but of those `but` that go with theirs.
pub(crate) async fn pruned(
    context: &Context,
    beside: &impl ResourceExt,
    place: (&str, &str),
    removed: &[String],
    but: &[String],
    by: &str,
) -> Result<(), Failure> {
    if removed.is_empty() {
        return Ok(());
    }
    let (store, cluster) = place;
    let all: Api<EtcdBackup> = context.beside(beside);
    for backup in all.list(&ListParams::default()).await?.items {
        let id = backup.status.as_ref().and_then(|status| status.backup.as_ref());
        let is_gone =
            id.is_some_and(|id| removed.contains(id)) && !but.contains(&backup.name_any());
        if is_gone && shows(&backup, store) && backup.spec_in_force().cluster.name == cluster {
            let lost = Lost { reason: "Pruned", text: format!("retention of {by} has deleted it") };
            say(context, &backup, Some(&lost)).await?;
        }
    }
    Ok(())
}

/// Writes the condition, if it says something new.
async fn say(context: &Context, seen: &EtcdBackup, lost: Option<&Lost>) -> Result<(), Failure> {
    if !is_news(seen, lost) {
        return Ok(());
    }
    // What was listed may be older than what the object's own controller has written.
    let all: Api<EtcdBackup> = context.beside(seen);
    let Some(backup) = all.get_opt(&seen.name_any()).await? else { return Ok(()) };
    if backup.uid() != seen.uid()
        || !shows(&backup, &seen.spec_in_force().store_name)
        || !is_news(&backup, lost)
    {
        return Ok(());
    }
    let mut status = backup.status.clone().unwrap_or_default();
    let (generation, now) = (backup.meta().generation, Timestamp::now());
    set(&mut status.conditions, lost, generation, now);
    context.write_status(&backup, &status).await?;
    if let Some(lost) = lost {
        context.warn(&backup, lost.reason, &lost.text).await;
    }
    Ok(())
}

/// Sets the condition.
pub(crate) fn set(
    conditions: &mut Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
    lost: Option<&Lost>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let (is, reason, text) = match lost {
        None => (Is::True, "Present", "the backup is in the store"),
        Some(lost) => (Is::False, lost.reason, lost.text.as_str()),
    };
    conditions::set(conditions, STORED, is, reason, text, generation, now);
}

/// Whether that says something new. What was pruned is missing too.
fn is_news(backup: &EtcdBackup, lost: Option<&Lost>) -> bool {
    let conditions = backup.status.as_ref().map(|status| &status.conditions[..]);
    let told = conditions::get(conditions.unwrap_or_default(), STORED);
    match (told, lost) {
        (Some(told), None) => told.status != Is::True.name(),
        (Some(told), Some(lost)) => {
            told.status == Is::True.name()
                || (told.reason != lost.reason && lost.reason == "Damaged")
        }
        (None, _) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn backup() -> EtcdBackup {
        serde_json::from_value(json!({
            "apiVersion": "lifeboat.dev/v1alpha1", "kind": "EtcdBackup", "metadata": { "name": "b" },
            "spec": { "cluster": { "name": "prod", "endpoints": ["http://e:2379"] }, "storeName": "s" },
            "status": { "phase": "Succeeded", "backup": "00000000000000000002-20261123T033653Z" },
        }))
        .unwrap()
    }

    #[test]
    fn a_cluster_of_which_nothing_is_listed_has_lost_its_backups_only_if_all_were_listed() {
        let lost = find(&backup(), &[], true).unwrap().unwrap();
        assert_eq!(lost.reason, "Missing");
        assert_eq!(find(&backup(), &[], false), None);
    }

    #[test]
    fn a_loss_is_told_once_and_by_who_knew_it_first() {
        let lost = |reason| Lost { reason, text: String::new() };
        let with = |told: Option<&Lost>| {
            let mut backup = backup();
            let status = backup.status.as_mut().unwrap();
            set(&mut status.conditions, told, Some(1), Timestamp::UNIX_EPOCH);
            backup
        };
        assert!(is_news(&backup(), None));
        assert!(!is_news(&with(None), None));
        assert!(is_news(&with(None), Some(&lost("Missing"))));
        assert!(!is_news(&with(Some(&lost("Pruned"))), Some(&lost("Missing"))));
        assert!(is_news(&with(Some(&lost("Missing"))), None), "what is there again is there");
    }

    #[test]
    fn an_object_shows_a_backup_where_it_was_made_whatever_its_spec_says_now() {
        let mut moved = backup();
        moved.status.as_mut().unwrap().begun_with = Some(moved.spec.clone());
        moved.spec.store_name = "elsewhere".to_owned();
        assert!(shows(&moved, "s") && !shows(&moved, "elsewhere"));
    }
}
