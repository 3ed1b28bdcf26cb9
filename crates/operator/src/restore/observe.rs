//! What is looked at in Kubernetes before a restore goes on.

use super::{
    decide::{Found, JobSeen, Replicas, Seen, Step, is_active, target},
    job, verify,
};
use crate::{
    api::{
        EtcdBackup, EtcdRestore, EtcdRestoreStatus, Member, Phase, RestorePhase, RestoreSource,
        StorePoint,
    },
    context::Context,
    failure::Failure,
    secrets,
    volume::Answer,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectList},
};
use repository::{Manifest, Repository, codec::Identities, listing};
use std::collections::BTreeMap;

/// Looks at what this phase needs to know.
pub(super) async fn look(context: &Context, restore: &EtcdRestore) -> Result<Seen, Failure> {
    let status = restore.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let mut seen = Seen::default();
    if phase == RestorePhase::Pending {
        seen.other = other(context, restore).await?;
        return Ok(seen);
    }
    if !is_active(phase) {
        return Ok(seen);
    }
    let set_target = restore.spec.target.stateful_set.as_ref();
    if let Some(target) = set_target {
        let sets: Api<StatefulSet> = context.beside(restore);
        seen.set = sets.get_opt(&target.name).await?;
        seen.pods = match &seen.set {
            Some(set) => pods(context, restore, set).await?,
            None => BTreeMap::new(),
        };
        if let Some(name) = &target.suspend_deployment {
            let deployments: Api<Deployment> = context.beside(restore);
            seen.deployment = deployments.get_opt(name).await?.map(|found| Replicas {
                wanted: found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
                there: found.status.and_then(|status| status.replicas).unwrap_or(0),
            });
        }
    }
    if phase == RestorePhase::Checking {
        let claims: Api<PersistentVolumeClaim> = context.beside(restore);
        let found = claims.list_metadata(&ListParams::default()).await?;
        seen.claims = found.items.iter().map(ResourceExt::name_any).collect();
        if let (None, Some((_, claim))) = (set_target, target(restore)) {
            seen.users = users(context, restore, claim).await?;
        }
        // Whatever would keep Jobs from being made is better known while etcd still runs.
        let found = match super::image(context, restore) {
            Some(_) => source(context, restore).await,
            None => Err(Failure { reason: "NoImage", ..Failure::settings(super::NO_IMAGE, "") }),
        };
        seen.source = Some(found.map_err(|failure| (failure.reason.to_owned(), failure.text())));
    }
    if phase >= RestorePhase::Building {
        seen.jobs = jobs(context, restore, &status).await?;
    }
    if phase == RestorePhase::Verifying {
        seen.faults = Some(match verify::faults(context, restore, &status).await {
            Ok(faults) => faults,
            Err(failure) => vec![failure.text()],
        });
    }
    Ok(seen)
}

/// Another restore of the same target that is at work.
async fn other(context: &Context, restore: &EtcdRestore) -> Result<Option<String>, Failure> {
    let restores: Api<EtcdRestore> = context.beside(restore);
    let all = restores.list(&ListParams::default()).await?;
    let ours = target(restore);
    Ok(all
        .into_iter()
        .filter(|other| other.uid() != restore.uid() && target(other) == ours)
        .find(|other| is_active(other.status.as_ref().and_then(|s| s.phase).unwrap_or_default()))
        .map(|other| other.name_any()))
}

/// The StatefulSet's own pods, and whether each runs.
async fn pods(
    context: &Context,
    restore: &EtcdRestore,
    set: &StatefulSet,
) -> Result<BTreeMap<String, bool>, Failure> {
    let pods: Api<Pod> = context.beside(restore);
    let labels = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone());
    let labels: Vec<_> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    let found = pods.list(&ListParams::default().labels(&labels.join(","))).await?;
    let is_ours = |pod: &Pod| {
        pod.owner_references().iter().any(|owner| Some(&owner.uid) == set.uid().as_ref())
    };
    let runs = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    };
    Ok(found.into_iter().filter(is_ours).map(|pod| (pod.name_any(), runs(&pod))).collect())
}

/// Pods that use a claim, and have not ended.
async fn users(
    context: &Context,
    restore: &EtcdRestore,
    claim: &str,
) -> Result<Vec<String>, Failure> {
    let pods: Api<Pod> = context.beside(restore);
    let uses = |pod: &Pod| {
        let ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        !matches!(ended, Some("Succeeded" | "Failed"))
            && volumes.any(|volume| {
                volume.persistent_volume_claim.as_ref().is_some_and(|of| of.claim_name == claim)
            })
    };
    let found = pods.list(&ListParams::default()).await?;
    Ok(found.into_iter().filter(uses).map(|pod| format!("pod {}", pod.name_any())).collect())
}

/// Finds the source, and names it once for all.
async fn source(context: &Context, restore: &EtcdRestore) -> Result<Found, Failure> {
    let source = &restore.spec.source;
    let point = match (&source.backup_name, &source.store, &source.url) {
        (Some(name), None, None) => of_backup(context, restore, name).await?,
        (None, Some(point), None) => point.clone(),
        (None, None, Some(_)) => return Ok(Found { source: source.clone(), ..Found::default() }),
        _ => {
            return Err(Failure::settings(
                "spec.source must have exactly one of backupName, store and url",
                "write one of them, and remove the others",
            ));
        }
    };
    let namespace = restore.namespace().unwrap_or_default();
    let place = secrets::place(context, &namespace, &point.name).await?;
    let manifest = find(place.store, &point).await?;
    readable(&manifest, &place.identities, &point.name)?;
    let id = manifest.id.to_string();
    let members = manifest
        .etcd
        .members
        .iter()
        .map(|member| Member { name: member.name.clone(), peer_urls: member.peer_urls.clone() });
    Ok(Found {
        source: RestoreSource {
            store: Some(StorePoint { at: id.clone(), ..point }),
            ..RestoreSource::default()
        },
        backup: Some(id),
        revision: Some(manifest.etcd.revision),
        members: members.collect(),
    })
}

/// Refuses a backup that none of the store's keys opens, while etcd still runs.
fn readable(manifest: &Manifest, identities: &Identities, store: &str) -> Result<(), Failure> {
    let Some(encryption) = &manifest.encryption else { return Ok(()) };
    let ours = identities.recipients().keys();
    if encryption.recipients.iter().any(|recipient| ours.contains(recipient)) {
        return Ok(());
    }
    let recipients = encryption.recipients.join(", ");
    Err(Failure {
        reason: "KeyMissing",
        ..Failure::settings(
            format!(
                "backup {} is encrypted to {recipients}, and no such key is known",
                manifest.id
            ),
            format!("name its private key in spec.encryption.identities of BackupStore {store:?}"),
        )
    })
}

async fn of_backup(
    context: &Context,
    restore: &EtcdRestore,
    name: &str,
) -> Result<StorePoint, Failure> {
    let backups: Api<EtcdBackup> = context.beside(restore);
    let found = backups.get_opt(name).await?.ok_or_else(|| {
        Failure::settings(
            format!("there is no EtcdBackup {name:?}"),
            "correct spec.source.backupName; `spec.source.store` finds backups without their objects",
        )
    })?;
    let status = found.status.unwrap_or_default();
    match (status.phase, status.backup) {
        (Some(Phase::Succeeded), Some(at)) => {
            Ok(StorePoint { name: found.spec.store_name, cluster: found.spec.cluster.name, at })
        }
        (phase, _) => Err(Failure {
            reason: "BackupNotReady",
            ..Failure::settings(
                format!("EtcdBackup {name:?} is {:?}", phase.unwrap_or_default()),
                "wait until it has succeeded, or name another in spec.source.backupName",
            )
        }),
    }
}

/// The backup that a point means.
async fn find(store: repository::store::Store, point: &StorePoint) -> Result<Manifest, Failure> {
    let wrong = |what: &str, error: &(dyn std::error::Error + 'static)| {
        Failure::of_setting(what, error, "correct it")
    };
    let cluster = point.cluster.parse().map_err(|e| wrong("spec.source.store.cluster", &e))?;
    let at = if point.at == "latest" { "newest" } else { &point.at };
    let at: listing::Target = at.parse().map_err(|e| wrong("spec.source.store.at", &e))?;
    let failed =
        |error: &repository::RepositoryError| Failure::from(daemon::jobs::Failure::from(error));
    let repository = Repository::open(store).await.map_err(|error| failed(&error))?;
    let listing = repository.backups(&cluster).await.map_err(|error| failed(&error))?;
    let found = listing.find(&at, Timestamp::now()).map_err(|error| {
        let remedy = error.remedy().to_owned();
        Failure { reason: "BackupMissing", ..Failure::of_setting("spec.source", &error, remedy) }
    })?;
    Ok(found.backup.manifest.clone())
}

/// The Jobs of this run, with their pods' last words.
async fn jobs(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
) -> Result<BTreeMap<(Step, usize), JobSeen>, Failure> {
    let ours = format!("{}={}", job::RUN, status.run.as_deref().unwrap_or_default());
    let ours = ListParams::default().labels(&ours);
    let jobs: Api<Job> = context.beside(restore);
    let pods: Api<Pod> = context.beside(restore);
    let found = jobs.list(&ours).await?;
    let pods = pods.list(&ours).await?;
    let place = |labels: &BTreeMap<String, String>| {
        let steps = [Step::Build, Step::Swap, Step::Undo];
        let step = steps
            .into_iter()
            .find(|step| labels.get(job::STEP).is_some_and(|name| name == step.name()))?;
        Some((step, labels.get(job::VOLUME)?.parse().ok()?))
    };
    let seen = found.iter().filter_map(|job| Some((place(job.labels())?, seen(job, &pods))));
    Ok(seen.collect())
}

fn seen(job: &Job, pods: &ObjectList<Pod>) -> JobSeen {
    let status = job.status.clone().unwrap_or_default();
    let mut own: Vec<&Pod> = pods
        .iter()
        .filter(|pod| {
            pod.owner_references().iter().any(|owner| Some(&owner.uid) == job.uid().as_ref())
        })
        .collect();
    own.sort_by_key(|pod| pod.creation_timestamp());
    let words = own.iter().rev().find_map(|pod| last_words(pod));
    let deleted = job.metadata.deletion_timestamp.is_some();
    let is = |type_: &str| {
        status.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
    };
    if deleted {
        return JobSeen::Running { waits_for: None };
    }
    if status.succeeded.unwrap_or(0) > 0 {
        let answer = words.and_then(|words| serde_json::from_str(&words).ok());
        return JobSeen::Succeeded(answer.unwrap_or_default());
    }
    if let Some(failed) = is("Failed") {
        let told = words.map(|words| told(&words));
        let why = told.or_else(|| failed.message.clone());
        return JobSeen::Failed(why.unwrap_or_else(|| "its pod failed".to_owned()));
    }
    JobSeen::Running { waits_for: own.last().and_then(|pod| waits_for(pod)) }
}

/// What a pod says of its failure.
fn told(words: &str) -> String {
    let answer: Answer = serde_json::from_str(words).unwrap_or_default();
    match (answer.error, answer.help) {
        (Some(error), Some(help)) => format!("{error}; {help}"),
        (Some(error), None) => error,
        (None, _) => words.lines().last().unwrap_or_default().to_owned(),
    }
}

fn last_words(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ended = status.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()?;
    ended.message.clone().filter(|message| !message.is_empty())
}

/// Why a pod has not begun, if it has not.
fn waits_for(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Pending") {
        return None;
    }
    let states = status.container_statuses.iter().flatten().filter_map(|c| c.state.as_ref());
    let waiting = states.filter_map(|state| state.waiting.as_ref()).find_map(|waiting| {
        let reason = waiting.reason.clone()?;
        Some(match &waiting.message {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        })
    });
    let unscheduled = || {
        let conditions = status.conditions.iter().flatten();
        conditions.filter(|c| c.status == "False").find_map(|c| c.message.clone())
    };
    Some(waiting.or_else(unscheduled).unwrap_or_else(|| "it has not begun".to_owned()))
}
