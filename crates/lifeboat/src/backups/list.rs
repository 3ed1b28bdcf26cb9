//! `list`: what the repository has.

use super::{
    args::{Filter, RepositoryArgs},
    moment::age,
};
use crate::{
    cli::Context,
    output::{self, Format, humanize_bytes},
    report::{Exit, Failure},
};
use jiff::Timestamp;
use operator::store::{Backups, show_once};
use repository::{
    BackupId, Manifest,
    listing::{Backup, Listing, Orphan, Unfit},
};
use serde::Serialize;

/// List the backups of a repository, newest first
///
/// Only manifests are read. STATE is `verified`; `unverified`, if it was stored without proof; `damaged`, if a check
/// has found damage; or what is missing. SAVED is the share of the size that compression saves.
///
/// Exit code 3 if any backup that is listed is damaged or incomplete, 1 if a manifest could not be read.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    repository: RepositoryArgs,

    #[command(flatten)]
    filter: Filter,

    /// Show each backup as an EtcdBackup beside that BackupStore, once: for a Kubernetes that has lost them
    ///
    /// The BackupStore is of this same repository. KUBECONFIG says which Kubernetes, and its context the namespace if none is
    /// given. Such an object makes no backup and, removed, deletes none. One whose backup is gone is removed. With `sync: true` in
    /// the BackupStore the operator does the same, all the time.
    #[arg(long, value_name = "[NAMESPACE/]STORE", conflicts_with_all = ["since", "until"])]
    sync: Option<String>,
}

const HEADERS: [&str; 9] =
    ["Cluster", "Name", "Age", "Revision", "Keys", "Size", "Stored", "Saved", "State"];

/// One backup in the JSON: its manifest, and what the repository knows besides.
#[derive(Serialize)]
pub(super) struct BackupJson<'a> {
    state: String,
    pins: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    last_check: Option<Timestamp>,
    stored_bytes: u64,
    manifest: &'a Manifest,
}

#[derive(Serialize)]
struct OrphanJson<'a> {
    cluster: &'a str,
    id: BackupId,
    stored_bytes: u64,
}

#[derive(Serialize)]
struct UnreadableJson<'a> {
    cluster: &'a str,
    id: BackupId,
    error: String,
}

#[derive(Serialize)]
struct ListJson<'a> {
    repository: &'a str,
    backups: Vec<BackupJson<'a>>,
    unfinished: Vec<OrphanJson<'a>>,
    unreadable: Vec<UnreadableJson<'a>>,
}

impl ListArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let (url, listings) = context.block_on(async {
            let repository = self.repository.open().await?;
            let mut listings = Vec::new();
            let clusters = self.filter.clusters(&repository).await?;
            let are_all = clusters.len() == repository.clusters().await?.len();
            for cluster in clusters {
                let mut listing = repository.backups(&cluster).await?;
                listing.backups.retain(|backup| self.filter.covers(backup.manifest.started));
                listings.push(listing);
            }
            if let Some(store) = &self.sync {
                let url = repository.store().url();
                show_in_kubernetes(store, &Backups { url, listings: &listings, are_all }).await?;
            }
            Ok((repository.store().url().to_owned(), listings))
        })?;
        for listing in &listings {
            tell_rest(listing);
        }
        output::print(&render(context.format, &url, &listings))?;
        let sound = |backup: &Backup| {
            !matches!(backup.unfit(), Some(Unfit::Damaged | Unfit::Incomplete(_)))
        };
        let damaged =
            listings.iter().flat_map(|listing| &listing.backups).filter(|b| !sound(b)).count();
        let unreadable = || listings.iter().flat_map(|listing| &listing.unreadable);
        match damaged + unreadable().count() {
            0 => Ok(()),
            bad => Err(Failure::new(
                match damaged > 0 || unreadable().any(|unreadable| unreadable.error.is_damage()) {
                    true => Exit::Damaged,
                    false => Exit::Failed,
                },
                format!("{bad} of the backups cannot be relied on"),
                "see the column STATE, the warnings, and `lifeboat show NAME`; `prune` removes damaged ones once a newer one is verified",
            )),
        }
    }
}

/// Shows them as objects, and says so.
async fn show_in_kubernetes(store: &str, backups: &Backups<'_>) -> Result<(), Failure> {
    let (namespace, synced) = show_once(store, backups).await.map_err(crate::operator::failure)?;
    say!(
        "in namespace {namespace}: {} EtcdBackups made, {} removed because their backup is gone",
        synced.made,
        synced.removed
    );
    Ok(())
}

/// What is there besides backups, on stderr.
fn tell_rest(listing: &Listing) {
    warn_unreadable(listing);
    let unfinished = || listing.orphans.iter().filter(|orphan| !orphan.is_only_closed());
    let (count, bytes) = (unfinished().count(), unfinished().map(Orphan::stored_bytes).sum());
    if count > 0 {
        say!(
            "note: {count} folder{} of {}, {}, unfinished or given up; `prune` clears them when they are a day old",
            if count == 1 { "" } else { "s" },
            listing.cluster,
            humanize_bytes(bytes)
        );
    }
}

/// Tells of what cannot be read, and what that means for a command that should have done something with all of it.
pub(super) fn unreadable_failure(listing: &Listing) -> Option<Failure> {
    warn_unreadable(listing);
    let unreadable = &listing.unreadable;
    let worst = unreadable.iter().find(|u| u.error.is_damage()).or(unreadable.first())?;
    let exit = if worst.error.is_damage() { Exit::Damaged } else { Exit::Failed };
    let message =
        format!("{} of the manifests of {} cannot be read", unreadable.len(), listing.cluster);
    Some(Failure::new(exit, message, worst.error.remedy()))
}

/// What may be a backup but cannot be read: nobody should look for it in vain.
pub(crate) fn warn_unreadable(listing: &Listing) {
    for unreadable in &listing.unreadable {
        say!("warning: {} of {}: {}", unreadable.id, listing.cluster, unreadable.error);
    }
    for error in &listing.pins.unreadable {
        say!("warning: a pin of {}: {error}", listing.cluster);
    }
}

fn render(format: Format, url: &str, listings: &[Listing]) -> String {
    let now = Timestamp::now();
    let backups = || listings.iter().flat_map(|listing| &listing.backups);
    match format {
        Format::Simple => {
            backups().map(|backup| output::simple(&row(backup, now)) + "\n").collect()
        }
        Format::Table => {
            let rows: Vec<_> = backups().map(|backup| row(backup, now)).collect();
            output::table(&HEADERS, &rows)
        }
        Format::Json => output::json(&ListJson {
            repository: url,
            backups: backups().map(BackupJson::of).collect(),
            unfinished: listings.iter().flat_map(orphans).collect(),
            unreadable: listings.iter().flat_map(unreadable).collect(),
        }),
        Format::Fields => backups().map(|backup| fields(backup) + "\n").collect(),
    }
}

fn orphans(listing: &Listing) -> impl Iterator<Item = OrphanJson<'_>> {
    listing.orphans.iter().map(|orphan| OrphanJson {
        cluster: listing.cluster.as_str(),
        id: orphan.id,
        stored_bytes: orphan.stored_bytes(),
    })
}

fn unreadable(listing: &Listing) -> impl Iterator<Item = UnreadableJson<'_>> {
    listing.unreadable.iter().map(|unreadable| UnreadableJson {
        cluster: listing.cluster.as_str(),
        id: unreadable.id,
        error: unreadable.error.to_string(),
    })
}

impl<'a> BackupJson<'a> {
    pub(super) fn of(backup: &'a Backup) -> Self {
        Self {
            state: state(backup),
            pins: &backup.pins,
            last_check: backup.last_check,
            stored_bytes: backup.stored_bytes(),
            manifest: &backup.manifest,
        }
    }
}

fn row(backup: &Backup, now: Timestamp) -> Vec<String> {
    let manifest = &backup.manifest;
    let pinned = if backup.pins.is_empty() {
        String::new()
    } else {
        format!(", kept as {}", backup.pins.join(" "))
    };
    vec![
        manifest.cluster.to_string(),
        manifest.id.to_string(),
        age(manifest.started, now),
        manifest.etcd.revision.to_string(),
        manifest.etcd.live_keys.to_string(),
        humanize_bytes(manifest.db.bytes),
        humanize_bytes(backup.stored_bytes()),
        saved(manifest.db.bytes, manifest.object.stored.bytes),
        state(backup) + &pinned,
    ]
}

/// The share that compression saves, in percent.
fn saved(bytes: u64, stored: u64) -> String {
    let part = u128::from(bytes.saturating_sub(stored)) * 100 / u128::from(bytes.max(1));
    format!("{part}%")
}

pub(super) fn state(backup: &Backup) -> String {
    match backup.unfit() {
        None => "verified".to_owned(),
        Some(Unfit::Unverified) => "unverified".to_owned(),
        Some(Unfit::Damaged) => "damaged".to_owned(),
        Some(Unfit::Incomplete(state)) => state.to_string(),
    }
}

/// A field a line, as `-w fields` has it.
pub(super) fn fields(backup: &Backup) -> String {
    let manifest = &backup.manifest;
    let etcd = &manifest.etcd;
    let text = |value: &dyn std::fmt::Display| output::quote(&value.to_string());
    let mut lines = vec![
        ("Cluster", text(&manifest.cluster)),
        ("Name", text(&manifest.id)),
        ("Started", text(&manifest.started)),
        ("Finished", text(&manifest.finished)),
        ("Revision", etcd.revision.to_string()),
        ("CompactRevision", etcd.compact_revision.to_string()),
        ("Keys", etcd.live_keys.to_string()),
        ("Hash", etcd.hash.to_string()),
        ("HashKV", etcd.hash_kv.hash.to_string()),
        ("Size", manifest.db.bytes.to_string()),
        ("Stored", backup.stored_bytes().to_string()),
        ("SHA256", text(&manifest.db.sha256)),
        ("State", text(&state(backup))),
    ];
    lines.extend(backup.pins.iter().map(|pin| ("Pin", text(pin))));
    lines.into_iter().map(|(name, value)| format!("\"{name}\" : {value}\n")).collect()
}
