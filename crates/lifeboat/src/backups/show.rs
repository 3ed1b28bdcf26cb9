//! `show`: all that is known of one backup.

use super::{
    args::{RepositoryArgs, one_cluster},
    list::{BackupJson, fields, state, warn_unreadable},
    moment::age,
};
use crate::{
    cli::Context,
    output::{self, Format, humanize_bytes},
    report::Failure,
};
use jiff::Timestamp;
use repository::{
    ClusterName,
    listing::{Backup, Target},
    manifest::{HashKv, Source},
};

/// Show all that is known of a backup
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// Its name or the beginning of it; `newest`; `revision:N`; `time:2026-11-22T16:00Z`
    #[arg(value_name = "BACKUP", default_value = "newest")]
    target: Target,

    /// Its cluster, if the repository has several [env: LIFEBOAT_CLUSTER]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,

    #[command(flatten)]
    repository: RepositoryArgs,
}

impl ShowArgs {
    pub(crate) fn run(self, context: &Context) -> Result<(), Failure> {
        let (url, backup) = context.block_on(async {
            let repository = self.repository.open().await?;
            let cluster = one_cluster(&repository, self.cluster.as_ref()).await?;
            let listing = repository.backups(&cluster).await?;
            warn_unreadable(&listing);
            let found = listing.find(&self.target, Timestamp::now())?;
            let damage = repository.damage(&cluster, found.backup.id()).await?;
            for finding in damage.iter().flat_map(|damage| &damage.findings) {
                say!("finding: {finding}");
            }
            Ok((repository.store().url().to_owned(), found.backup.clone()))
        })?;
        output::print(&match context.format {
            Format::Json => output::json(&BackupJson::of(&backup)),
            Format::Fields => fields(&backup),
            Format::Simple | Format::Table => text(&url, &backup),
        })
    }
}

/// For people: a line a thing.
fn text(url: &str, backup: &Backup) -> String {
    let manifest = &backup.manifest;
    let etcd = &manifest.etcd;
    let lines = [
        ("backup", manifest.id.to_string()),
        (
            "cluster",
            format!(
                "{}{}",
                manifest.cluster,
                etcd.cluster_id.iter().map(|id| format!(" (id {id})")).collect::<String>()
            ),
        ),
        ("repository", url.to_owned()),
        ("state", state(backup)),
        (
            "begun",
            format!("{:.0} ({} ago)", manifest.started, age(manifest.started, Timestamp::now())),
        ),
        ("finished", format!("{:.0}", manifest.finished)),
        ("made from", source(&manifest.source)),
        ("etcd", etcd.version.clone().unwrap_or_else(|| "version unknown".to_owned())),
        ("revision", format!("{}, compacted at {}", etcd.revision, etcd.compact_revision)),
        ("keys", format!("{} ({} records)", etcd.live_keys, etcd.total_key)),
        ("size", format!("{} ({} bytes)", humanize_bytes(manifest.db.bytes), manifest.db.bytes)),
        (
            "stored",
            format!(
                "{} ({} bytes), {}",
                humanize_bytes(backup.stored_bytes()),
                backup.stored_bytes(),
                how(backup)
            ),
        ),
        ("sha256", manifest.db.sha256.clone()),
        ("hash", format!("{:x}", etcd.hash)),
        ("hashkv", hash_kv(&etcd.hash_kv)),
        (
            "last check",
            backup
                .last_check
                .map_or_else(|| "when it was made".to_owned(), |at| format!("{at:.0}")),
        ),
    ];
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    for recipient in manifest.encryption.iter().flat_map(|encryption| &encryption.recipients) {
        text += &format!("recipient   {recipient}\n");
    }
    for pin in &backup.pins {
        text += &format!("kept as     {pin}\n");
    }
    for path in manifest.include.iter().flat_map(|include| &include.paths) {
        text += &format!("includes    {}\n", output::one_line(path));
    }
    for member in &etcd.members {
        text +=
            &format!("member      {} {} {}\n", member.name, member.id, member.peer_urls.join(","));
    }
    text
}

fn source(source: &Source) -> String {
    match source {
        Source::Live { endpoint, member_name, .. } => format!("member {member_name} at {endpoint}"),
        Source::File { path } => format!("file {path}"),
        Source::DataDir { path } => format!("data directory {path} of a stopped member"),
    }
}

fn how(backup: &Backup) -> String {
    let compression = &backup.manifest.compression;
    let encryption =
        backup.manifest.encryption.as_ref().map_or("not encrypted", |_| "encrypted by age");
    format!("{} level {}, {encryption}", compression.format, compression.level)
}

fn hash_kv(hash: &HashKv) -> String {
    let mut text = match hash.agreed.len() {
        0 => format!("{}, compared with no member", hash.hash),
        agreed => format!("{}, equal on {agreed} member{}", hash.hash, plural(agreed)),
    };
    if !hash.differed.is_empty() {
        text += &format!(", DIFFERENT on {}", hash.differed.join(", "));
    }
    if !hash.unasked.is_empty() {
        text += &format!(", not known of {}", hash.unasked.join(", "));
    }
    text
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
