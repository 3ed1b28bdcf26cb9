//! What is looked at in Kubernetes before a restore goes on.

use super::{
    decide::{Found, JobSeen, Replicas, Seen, Step, Unusable, holds, is_active, target},
    job, verify,
};
use crate::{
    api::{
        EtcdBackup, EtcdRestore, EtcdRestoreStatus, Member, Phase, RestorePhase, RestoreSource,
        StorePoint,
    },
    context::Context,
    failure::Failure,
    pods::waits_for,
    secrets::{self, Content},
    volume::{Answer, of_object},
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
    core::v1::{PersistentVolumeClaim, Pod},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Api, ResourceExt,
    api::{ListParams, ObjectList},
};
use repository::{Manifest, Repository, codec::Identities, listing};
use std::collections::BTreeMap;

/// The kind of a target that is one volume.
const CLAIM: &str = "persistentvolumeclaim";

/// Looks at what this phase needs to know.
pub(super) async fn look(context: &Context, restore: &EtcdRestore) -> Result<Seen, Failure> {
    let status = restore.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let mut seen = Seen::default();
    if matches!(phase, RestorePhase::Pending | RestorePhase::Checking) {
        seen.other = other(context, restore, &status).await?;
    }
    if phase == RestorePhase::Pending && restore.spec.confirm.is_none() {
        // Who is to confirm it wants to know what.
        seen.source = Some(source(context, restore).await);
    }
    if !is_active(phase) || seen.other.is_some() {
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
        seen.source = Some(match super::image(context, restore) {
            Some(_) => source(context, restore).await,
            None => Err(Unusable::Now(Failure {
                reason: "NoImage",
                ..Failure::settings(super::NO_IMAGE, "")
            })),
        });
    }
    if phase != RestorePhase::Stopping {
        look_at_jobs(context, restore, &status, &mut seen).await?;
    }
    if phase == RestorePhase::Verifying {
        seen.faults = Some(match verify::faults(context, restore, &status).await {
            Ok(faults) => faults,
            Err(failure) => vec![failure.text()],
        });
    }
    Ok(seen)
}

/// Another restore that is at work on what this one would write to.
pub(super) async fn other(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
) -> Result<Option<String>, Failure> {
    let restores: Api<EtcdRestore> = context.beside(restore);
    let all = restores.list(&ListParams::default()).await?;
    let ours = target(restore).map(|(kind, name)| format!("{kind}/{name}"));
    let mut claims: Vec<&str> = status.volumes.iter().map(|volume| &*volume.claim).collect();
    claims.extend(target(restore).filter(|(kind, _)| *kind == CLAIM).map(|(_, claim)| claim));
    let clashes = |other: &EtcdRestore| {
        let status = other.status.clone().unwrap_or_default();
        let shares = status.volumes.iter().any(|volume| claims.contains(&&*volume.claim));
        holds(status.phase.unwrap_or_default()) && (status.target == ours || shares)
    };
    let mut others = all.into_iter().filter(|other| other.uid() != restore.uid());
    Ok(others.find(clashes).map(|other| other.name_any()))
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
async fn source(context: &Context, restore: &EtcdRestore) -> Result<Found, Unusable> {
    let source = &restore.spec.source;
    let point = match (&source.backup_name, &source.store, &source.url) {
        (Some(name), None, None) => of_backup(context, restore, name).await?,
        (None, Some(point), None) => point.clone(),
        (None, None, Some(url)) => return of_url(context, restore, url).await,
        _ => {
            return Err(Unusable::Ever(Failure::settings(
                "spec.source must have exactly one of backupName, store and url",
                "make an EtcdRestore with one of them",
            )));
        }
    };
    let namespace = restore.namespace().unwrap_or_default();
    let store = secrets::store(context, &namespace, &point.name).await?;
    if store.spec.url.starts_with("file:") {
        return Err(Unusable::Ever(Failure::settings(
            format!(
                "BackupStore {:?} is a folder of the operator ({}), which the pods of a restore do not have",
                point.name, store.spec.url
            ),
            "put the backup into an object store, or restore by hand with `lifeboat restore`",
        )));
    }
    let place = secrets::place_to_read(context, &namespace, &point.name).await?;
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

/// A plain snapshot. Whether it is there, and can be read, a pod finds out: it may have an identity of its own.
async fn of_url(context: &Context, restore: &EtcdRestore, url: &str) -> Result<Found, Unusable> {
    if of_object(url).is_none() {
        return Err(Unusable::Ever(Failure::settings(
            format!("spec.source.url {url:?} names no object"),
            "write it as s3://BUCKET/PATH",
        )));
    }
    if let Some(from) = &restore.spec.source.url_credentials {
        let namespace = restore.namespace().unwrap_or_default();
        Content::read(context, &namespace, &from.secret_name).await?;
    }
    let object = url.split_once('?').map_or(url, |(object, _)| object);
    Ok(Found {
        source: restore.spec.source.clone(),
        backup: Some(object.to_owned()),
        ..Found::default()
    })
}

async fn of_backup(
    context: &Context,
    restore: &EtcdRestore,
    name: &str,
) -> Result<StorePoint, Unusable> {
    let backups: Api<EtcdBackup> = context.beside(restore);
    let found = backups.get_opt(name).await?.ok_or_else(|| {
        Failure::settings(
            format!("there is no EtcdBackup {name:?}"),
            "correct spec.source.backupName; `spec.source.store` finds backups without their objects",
        )
    })?;
    // Where it was made, whatever its spec says now.
    let made = found.spec_in_force().clone();
    let status = found.status.unwrap_or_default();
    match (status.phase, status.backup) {
        (Some(Phase::Succeeded), Some(at)) => {
            Ok(StorePoint { name: made.store_name, cluster: made.cluster.name, at })
        }
        (Some(Phase::Failed), _) => Err(Unusable::Ever(Failure {
            reason: "BackupFailed",
            ..Failure::settings(
                format!("EtcdBackup {name:?} has failed: there is no backup of it"),
                "make an EtcdRestore that names another; `kubectl get etcdbackups` shows them",
            )
        })),
        (phase, _) => Err(Unusable::Now(Failure {
            reason: "BackupNotReady",
            ..Failure::settings(
                format!("EtcdBackup {name:?} is {:?}", phase.unwrap_or_default()),
                "wait until it has succeeded, or name another in spec.source.backupName",
            )
        })),
    }
}

/// The backup that a point means.
async fn find(store: repository::store::Store, point: &StorePoint) -> Result<Manifest, Unusable> {
    let wrong = |what: &str, error: &(dyn std::error::Error + 'static)| {
        Unusable::Ever(Failure::of_setting(what, error, "make an EtcdRestore with another"))
    };
    let cluster = point.cluster.parse().map_err(|e| wrong("spec.source.store.cluster", &e))?;
    let at = if point.at == "latest" { "newest" } else { &point.at };
    let at: listing::Target = at.parse().map_err(|e| wrong("spec.source.store.at", &e))?;
    let failed =
        |error: &repository::RepositoryError| Failure::from(daemon::jobs::Failure::from(error));
    let repository = Repository::open(store).await.map_err(|error| failed(&error))?;
    let listing = repository.backups(&cluster).await.map_err(|error| failed(&error))?;
    let found = listing.find(&at, Timestamp::now()).map_err(|error| {
        let remedy = "make an EtcdRestore of another; `lifeboat list` shows what is in the store";
        let failure = Failure::of_setting("spec.source", &error, remedy);
        Unusable::Ever(Failure { reason: "BackupMissing", ..failure })
    })?;
    Ok(found.backup.manifest.clone())
}

/// The Jobs of this run, with their pods' last words.
async fn look_at_jobs(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
    found: &mut Seen,
) -> Result<(), Failure> {
    let ours = format!("{}={}", job::RUN, status.run.as_deref().unwrap_or_default());
    let ours = ListParams::default().labels(&ours);
    let jobs: Api<Job> = context.beside(restore);
    let pods: Api<Pod> = context.beside(restore);
    let jobs = jobs.list(&ours).await?;
    let pods = pods.list(&ours).await?;
    let place = |labels: &BTreeMap<String, String>| {
        let steps = [Step::Probe, Step::Build, Step::Swap, Step::Undo];
        let step = steps
            .into_iter()
            .find(|step| labels.get(job::STEP).is_some_and(|name| name == step.name()))?;
        Some((step, labels.get(job::VOLUME)?.parse().ok()?))
    };
    let image = super::image(context, restore).unwrap_or_default();
    for job in &jobs {
        let Some(place) = place(job.labels()) else { continue };
        found.jobs.insert(place, seen(job, &pods));
        let made_from = job::made_from(restore, place.0, image);
        if job.annotations().get(job::MADE_FROM) != Some(&made_from) {
            found.outdated.insert(place);
        }
    }
    Ok(())
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
        return JobSeen::Ending;
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
    let is_pending = |pod: &&Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, None | Some("Pending"))
    };
    let newest = own.last();
    let since = newest.map_or_else(|| job.creation_timestamp(), |pod| pod.creation_timestamp());
    JobSeen::Running {
        waits_for: match newest {
            Some(pod) => waits_for(pod),
            None => Some(format!(
                "Kubernetes has made no pod of it yet; if it stays so, `kubectl describe job {}` tells why",
                job.name_any()
            )),
        },
        since: since.map(|Time(since)| since),
        begun: !own.iter().all(is_pending),
    }
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
