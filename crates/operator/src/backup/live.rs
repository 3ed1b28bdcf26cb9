//! A backup made in the operator: streamed, with nothing on disk but a bounded spool.

use crate::{
    api::{EtcdBackup, EtcdBackupStatus, HashMismatch, Phase, Verification},
    cluster,
    conditions::seconds,
    context::Context,
    failure::Failure,
    secrets,
};
use backup::{
    BackupError, Event, HashKvPolicy, Job, Options, Source, Target, TargetError, Watcher,
};
use daemon::jobs::on_a_thread;
use futures::StreamExt;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use repository::{Manifest, lease::Terms};
use serde::{Deserialize, Serialize};
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How long to wait for another writer of the same cluster, before that counts as a failed attempt.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// A backup that was made.
pub(super) struct Made {
    /// What it is.
    pub(super) manifest: Manifest,
    /// That the one before it is of another cluster.
    pub(super) other: Option<OtherCluster>,
}

impl From<Manifest> for Made {
    fn from(manifest: Manifest) -> Self {
        Self { manifest, other: None }
    }
}

/// Backups of one name, of two clusters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OtherCluster {
    /// The id of the cluster of the first backup.
    first: String,
    /// The id of that which was backed up now.
    found: String,
}

impl OtherCluster {
    /// What it may mean.
    pub(super) fn text(&self, name: &str) -> String {
        let Self { first, found } = self;
        format!(
            "backups of {name:?} were of another cluster before: the first is of {first}, this one of {found}; that is so once after a restore, else two clusters share a name: `latest` and retention mix them, so give one another spec.cluster.name"
        )
    }
}

/// Makes the backup, once.
pub(super) async fn attempt(
    context: &Context,
    backup: &EtcdBackup,
    job: Job,
) -> Result<Made, Failure> {
    let mut interrupt = context.interrupt.clone();
    let removed = removed(context.beside(backup), backup.name_any(), backup.uid());
    let interrupted = async move {
        tokio::select! {
            // Whoever could tell being gone means the same.
            _ = interrupt.wait_for(|interrupted| *interrupted) => {}
            () = removed => {}
        }
    };
    make(job, interrupted).await
}

/// Makes a backup in one store.
pub(super) async fn make(
    job: Job,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<Made, Failure> {
    let other = Arc::new(Mutex::new(None));
    let watcher = Watcher::new({
        let other = other.clone();
        move |event| {
            if let Event::OtherCluster { first, found, .. } = event {
                let mut other = other.lock().unwrap_or_else(PoisonError::into_inner);
                *other = Some(OtherCluster { first, found });
            }
        }
    });
    let report = on_a_thread(job, watcher, interrupted).await;
    let report = report.map_err(|error: BackupError| daemon::jobs::Failure::from(&error))?;
    let result = report.results.into_iter().next().expect("a result for the one target");
    let manifest =
        result.result.map_err(|error: TargetError| daemon::jobs::Failure::from(&error))?;
    let other = other.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(Made { manifest, other })
}

/// Comes when an object is removed, or about to be. The controller tells nothing of an object that it works on, so that one
/// is watched by itself, for as long as its run takes.
async fn removed(api: Api<EtcdBackup>, name: String, uid: Option<String>) {
    let is_there =
        |found: &EtcdBackup| found.uid() == uid && found.meta().deletion_timestamp.is_none();
    let mut seen = pin!(watch_object(api, &name).default_backoff());
    while let Some(found) = seen.next().await {
        // An API server that does not answer says nothing of the object.
        if let Ok(found) = found
            && !found.as_ref().is_some_and(is_there)
        {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// What is to be done, with all that Kubernetes and its Secrets add. Neither etcd nor the store is reached yet.
pub(super) async fn job(context: &Context, backup: &EtcdBackup) -> Result<Job, Failure> {
    let namespace = backup.namespace().unwrap_or_default();
    let spec = backup.spec_in_force();
    let place = secrets::place(context, &namespace, &spec.store_name).await?;
    let reached = cluster::reach(context, &namespace, &spec.cluster).await?;
    Ok(Job {
        cluster: super::cluster_name(backup)?,
        source: Source::Live { connector: reached.connector, endpoints: reached.endpoints },
        targets: vec![Target {
            name: spec.store_name.clone(),
            store: place.store,
            encoding: place.encoding,
            may_expose: place.may_expose,
        }],
        options: Options {
            spool_dir: context.settings.spool.clone(),
            hash_kv: match spec.hash_mismatch {
                HashMismatch::Warn => HashKvPolicy::Warn,
                HashMismatch::Fail => HashKvPolicy::Fail,
            },
            holder: context.holder.clone(),
            terms: Terms { patience: PATIENCE, ..Terms::default() },
            tool: super::tool(backup),
            ..Options::default()
        },
    })
}

/// Shows a backup that is in the store at `url`.
pub fn show(status: &mut EtcdBackupStatus, manifest: &Manifest, url: &str) {
    let object = &manifest.object;
    let include = manifest.include.as_ref().map_or(0, |include| include.object.stored.bytes);
    let hash_kv = &manifest.etcd.hash_kv;
    status.phase = Some(Phase::Succeeded);
    status.retry_at = None;
    status.backup = Some(manifest.id.to_string());
    let root = url.trim_end_matches('/');
    let (cluster, id) = (&manifest.cluster, manifest.id);
    status.uri = Some(format!("{root}/{cluster}/snapshots/{id}/{}", object.name));
    status.revision = Some(manifest.etcd.revision);
    status.size = Some(human(manifest.db.bytes));
    status.size_bytes = Some(manifest.db.bytes);
    status.stored_bytes = Some(object.stored.bytes + include);
    status.sha256 = Some(manifest.db.sha256.clone());
    status.etcd_version = manifest.etcd.version.clone();
    status.verification = Some(Verification {
        hash_kv: hash_kv.hash,
        agreed: hash_kv.agreed.clone(),
        differed: hash_kv.differed.clone(),
        unasked: hash_kv.unasked.clone(),
    });
    status.started_at = Some(seconds(manifest.started));
    status.finished_at = Some(seconds(manifest.finished));
}

/// Bytes as a person reads them.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = None;
    let mut tenths = u128::from(bytes) * 10;
    for name in UNITS {
        if tenths < 10 * 1024 {
            break;
        }
        tenths = (tenths + 512) / 1024;
        unit = Some(name);
    }
    match unit {
        None => format!("{bytes} B"),
        Some(unit) => format!("{}.{} {unit}", tenths / 10, tenths % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_a_person_says_them() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(1023), "1023 B");
        assert_eq!(human(1024), "1.0 KiB");
        assert_eq!(human(25_000_000), "23.8 MiB");
        assert_eq!(human(u64::MAX), "16777216.0 TiB");
    }
}
