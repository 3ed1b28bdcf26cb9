//! What a restore has begun with. From the moment on that it changes something, it goes by the spec of that moment: `status.begunWith`.
//!
//! Two fields may still be changed, as nothing that was done depends on them: `job`, so that a pod that does not start can be mended
//! while etcd stands still, and `readySeconds`.

use crate::api::{EtcdRestore, EtcdRestoreSpec, RestorePhase};
use kube::Resource;

/// The spec, to be remembered.
pub(super) fn remembered(restore: &EtcdRestore) -> String {
    serde_json::to_string(&restore.spec).expect("a spec can be written as JSON")
}

/// The spec that it has begun with, if it has.
fn begun_with(restore: &EtcdRestore) -> Option<EtcdRestoreSpec> {
    let text = restore.status.as_ref()?.begun_with.as_ref()?;
    serde_json::from_str(text).ok()
}

/// The object as it has begun, with what may be changed since.
pub(super) fn as_begun(restore: &EtcdRestore) -> EtcdRestore {
    let Some(begun) = begun_with(restore) else { return restore.clone() };
    let spec = EtcdRestoreSpec {
        job: restore.spec.job.clone(),
        ready_seconds: restore.spec.ready_seconds,
        ..begun
    };
    EtcdRestore { spec, ..restore.clone() }
}

/// Which fields were changed too late, and are ignored.
pub(super) fn changed(restore: &EtcdRestore) -> Vec<&'static str> {
    let now = &restore.spec;
    let status = restore.status.clone().unwrap_or_default();
    let Some(begun) = begun_with(restore) else {
        // One that was refused before it changed anything has ended as well.
        let ended = matches!(status.phase, Some(RestorePhase::Succeeded | RestorePhase::Failed));
        let is_other = restore.meta().generation != status.observed_generation;
        return if ended && is_other { vec!["spec"] } else { Vec::new() };
    };
    let fields = [
        ("spec.source", begun.source != now.source),
        ("spec.target", begun.target != now.target),
        ("spec.confirm", begun.confirm != now.confirm),
        ("spec.bumpRevision", begun.bump_revision != now.bump_revision),
    ];
    fields.into_iter().filter(|(_, changed)| *changed).map(|(field, _)| field).collect()
}
