//! What a restore will do, told before anything is fetched.

use super::RestoreArgs;
use crate::{
    backups::moment::age,
    cli::Context,
    output::{self, Format, humanize_bytes},
    report::Failure,
    restoring::Wanted,
};
use jiff::Timestamp;
use repository::{BackupId, ClusterName, Manifest, listing::Unfit};
use restore::Room;
use serde::Serialize;
use std::path::PathBuf;

/// All that is known before.
pub(super) struct Plan<'a> {
    pub(super) args: &'a RestoreArgs,
    pub(super) url: &'a str,
    pub(super) manifest: &'a Manifest,
    pub(super) is_exact: bool,
    pub(super) skipped: &'a [(BackupId, Unfit)],
    pub(super) wanted: &'a Wanted,
    pub(super) rooms: Vec<Room>,
}

/// What would be restored.
#[derive(Serialize)]
struct PlanJson<'a> {
    repository: &'a str,
    cluster: &'a ClusterName,
    name: String,
    object: String,
    age_seconds: i64,
    revision: i64,
    restored_revision: u64,
    exact: bool,
    skipped: Vec<String>,
    initial_cluster: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_version: Option<String>,
    data_dirs: Vec<DataDirJson>,
    rooms: Vec<RoomJson>,
    /// Why it would be refused; empty if it can begin.
    problems: Vec<String>,
    manifest: &'a Manifest,
}

#[derive(Serialize)]
struct DataDirJson {
    member: String,
    data_dir: PathBuf,
}

#[derive(Serialize)]
struct RoomJson {
    path: PathBuf,
    needed_bytes: u64,
    available_bytes: u64,
}

/// The path of a backup's snapshot below its repository.
pub(super) fn object(manifest: &Manifest) -> String {
    format!("{}/snapshots/{}/{}", manifest.cluster, manifest.id, manifest.object.name)
}

impl Plan<'_> {
    /// On stderr; on stdout if it is all that was asked for.
    pub(super) fn tell(&self, context: &Context, problems: &[Failure]) -> Result<(), Failure> {
        match (self.args.plan, context.format) {
            (true, Format::Json) => output::print(&output::json(&self.json(problems))),
            (true, _) => output::print(&self.text(problems)),
            (false, _) => {
                say_part!("{}", self.text(&[]));
                Ok(())
            }
        }
    }

    /// The revision of the new cluster; of one that cannot be raised so far, the problem is told besides.
    fn restored_revision(&self) -> u64 {
        let revision = u64::try_from(self.manifest.etcd.revision).unwrap_or_default();
        revision.saturating_add(self.args.bump())
    }

    fn json(&self, problems: &[Failure]) -> PlanJson<'_> {
        let Self { args, url, manifest, wanted, .. } = self;
        let data_dirs = args.restoring.data_dirs(wanted).into_iter();
        let rooms = self.rooms.iter().cloned();
        PlanJson {
            repository: url,
            cluster: &manifest.cluster,
            name: manifest.id.to_string(),
            object: format!("{url}/{}", object(manifest)),
            age_seconds: Timestamp::now().as_second() - manifest.started.as_second(),
            revision: manifest.etcd.revision,
            restored_revision: self.restored_revision(),
            exact: self.is_exact,
            skipped: self.skipped.iter().map(|(id, unfit)| format!("{id}: {unfit}")).collect(),
            initial_cluster: wanted.initial_cluster(),
            target_version: args.restoring.target(wanted).map(|target| target.to_string()),
            data_dirs: data_dirs
                .map(|(member, data_dir)| DataDirJson { member, data_dir })
                .collect(),
            rooms: rooms
                .map(|Room { path, needed, available }| RoomJson {
                    path,
                    needed_bytes: needed,
                    available_bytes: available,
                })
                .collect(),
            problems: problems.iter().map(|problem| problem.error.to_string()).collect(),
            manifest,
        }
    }

    fn text(&self, problems: &[Failure]) -> String {
        let Self { args, url, manifest, wanted, .. } = self;
        let exact = if self.is_exact { "" } else { " (the nearest before what was asked for)" };
        let mut text = format!("restoring {} of {}{exact}\n", manifest.id, manifest.cluster);
        let mut line = |name: &str, value: &str| text += &format!("  {name:<9} {value}\n");
        line("from", &format!("{url}/{}", object(manifest)));
        let (begun, lost) = self.age();
        line("begun", &begun);
        let revision = manifest.etcd.revision;
        let raised = match args.bump() {
            0 => "not raised".to_owned(),
            _ => format!("raised to {}", self.restored_revision()),
        };
        line("revision", &format!("{revision}, {raised}"));
        line("lost", &format!("all writes{lost}, and every revision above {revision}"));
        let version = args.restoring.target(wanted);
        let version = version.map(|version| format!(", for etcd {version}")).unwrap_or_default();
        line("cluster", &format!("{}{version}", wanted.initial_cluster()));
        for (member, data_dir) in args.restoring.data_dirs(wanted) {
            line("makes", &format!("{} for member {member}", data_dir.display()));
        }
        if let Some(encryption) = &manifest.encryption {
            line("key", &format!("an identity of {}", encryption.recipients.join(" or ")));
        }
        for room in &self.rooms {
            let [needed, free] = [room.needed, room.available].map(humanize_bytes);
            line("space", &format!("{needed} of {free} that are free, {}", room.path.display()));
        }
        for problem in problems {
            line("PROBLEM", &problem.error.to_string().replace('\n', ": "));
        }
        text
    }

    /// How old it is, and what of the cluster's life is not in it.
    fn age(&self) -> (String, String) {
        let (started, now) = (self.manifest.started, Timestamp::now());
        if started > now {
            return (
                format!("{started:.0} (dated in the future: a clock was wrong)"),
                String::new(),
            );
        }
        let age = age(started, now);
        (format!("{started:.0} ({age} ago)"), format!(" since then: the last {age}"))
    }
}
