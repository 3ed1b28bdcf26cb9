//! The controller of `EtcdRestore`: a cluster, or a volume, brought back.
//!
//! ```text
//!   Pending ─▶ Checking ─▶ Stopping ─▶ Building ─▶ Swapping ─▶ Starting ─▶ Verifying ─▶ Succeeded
//!                 │            └──────────┴────────────┴────────────┴──────────┤
//!                 ▼ nothing was changed                                        ▼ any failure
//!               Failed ◀──────────── the old data in place, etcd started ── RollingBack
//! ```
//!
//! * `observe` sees, [`mod@decide`] decides, and what it decides is done here. The status is written first.
//! * Old data are renamed, never deleted, and put back when anything fails.
//! * Nothing is kept in memory: a killed operator's work goes on from the object's status and from what is there.
//! * One restore at a time has a target: from `Stopping` on, or `Building` where nothing is stopped, it holds it.
//! * From then on it goes by the spec that it has begun with, whatever is made of its object meanwhile.
//! * While it works, the object has a finalizer: one that is deleted puts the old data back before it goes.

mod begun;
pub mod decide;
mod job;
mod layout;
mod members;
mod observe;
#[cfg(test)]
mod samples;
mod verify;

use crate::{
    api::{BackupStore, EtcdRestore, EtcdRestoreStatus, RestorePhase},
    conditions,
    context::Context,
    failure::Failure,
    run::Scope,
};
use decide::{Action, CHANGED, Decision, FINALIZER, JobSeen, Seen, decide, holds};
use jiff::Timestamp;
use job::Writer;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    batch::v1::Job,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{Controller, controller, watcher},
};
use layout::Layout;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// The least time between two looks, so that a status that was just written has come back.
const SOON: Duration = Duration::from_millis(200);

/// Held while a restore takes its target: one operator leads, and in it one restore at a time does so.
static TAKING: Mutex<()> = Mutex::const_new(());

/// What is told where no image is known.
const NO_IMAGE: &str =
    "no image is known for the pods; give the operator --image, or the object spec.job.image";

/// Follows all objects of the kind.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let restores: Api<EtcdRestore> = scope.api(&context.client);
    let jobs: Api<Job> = scope.api(&context.client);
    let ours = watcher::Config::default().labels("lifeboat.dev/job=restore").page_size(500);
    let controller = Controller::new(restores, watcher::Config::default().page_size(500))
        .owns(jobs, ours)
        .graceful_shutdown_on(stop);
    crate::run::drive(controller, context, "EtcdRestore", reconcile).await;
}

async fn reconcile(
    cached: Arc<EtcdRestore>,
    context: Arc<Context>,
) -> Result<controller::Action, Failure> {
    // What a cache says may be older than what was just written.
    let restores: Api<EtcdRestore> = context.beside(&*cached);
    let Some(restore) = restores.get_opt(&cached.name_any()).await? else {
        return Ok(controller::Action::await_change());
    };
    if restore.uid() != cached.uid() {
        return Ok(controller::Action::await_change());
    }
    let before = restore.status.clone().unwrap_or_default();
    // What is looked at and done goes by the spec that it has begun with; what is decided, too, and is told of changes.
    let as_it_is = restore;
    let restore = begun::as_begun(&as_it_is);
    let mut seen = observe::look(&context, &restore).await?;
    let decision = decide(&as_it_is, &seen, Timestamp::now());
    let decision = decided(&context, &as_it_is, &before, &mut seen, decision).await?;
    for action in &decision.actions {
        let done = act(&context, &restore, &decision.status, &seen, action).await;
        match (action, done) {
            // A Job that can't be, with etcd stopped: it has failed like one that was.
            (Action::Start(step, index), Err(failure)) if !failure.retryable => {
                seen.jobs.insert((*step, *index), JobSeen::Failed(failure.text()));
                let stopped =
                    EtcdRestore { status: Some(decision.status.clone()), ..as_it_is.clone() };
                let after = decide(&stopped, &seen, Timestamp::now());
                remember(&context, &restore, &decision.status, &after.status).await?;
                return Ok(controller::Action::requeue(after.again.unwrap_or(SOON).max(SOON)));
            }
            (_, done) => done?,
        }
    }
    Ok(match decision.again {
        Some(again) => controller::Action::requeue(again.max(SOON)),
        None => controller::Action::await_change(),
    })
}

/// Writes down what was decided. Who takes the target looks again, while nobody else can: who comes second waits.
async fn decided(
    context: &Context,
    restore: &EtcdRestore,
    before: &EtcdRestoreStatus,
    seen: &mut Seen,
    decision: Decision,
) -> Result<Decision, Failure> {
    let has = |status: &EtcdRestoreStatus| holds(status.phase.unwrap_or_default());
    if has(before) || !has(&decision.status) {
        remember(context, restore, before, &decision.status).await?;
        return Ok(decision);
    }
    let _one_at_a_time = TAKING.lock().await;
    seen.other = observe::other(context, restore, &decision.status).await?;
    let decision = match seen.other {
        Some(_) => decide(restore, seen, Timestamp::now()),
        None => decision,
    };
    remember(context, restore, before, &decision.status).await?;
    Ok(decision)
}

/// Writes the status, if it is another one.
async fn remember(
    context: &Context,
    restore: &EtcdRestore,
    before: &EtcdRestoreStatus,
    status: &EtcdRestoreStatus,
) -> Result<(), Failure> {
    if status != before {
        context.write_status(restore, status).await?;
        tell(context, restore, before, status).await;
    }
    Ok(())
}

/// Tells of a new phase.
async fn tell(
    context: &Context,
    restore: &EtcdRestore,
    before: &EtcdRestoreStatus,
    status: &EtcdRestoreStatus,
) {
    let phase = status.phase.unwrap_or_default();
    let condition = conditions::get(&status.conditions, "Succeeded");
    let text = condition.map_or("", |condition| condition.message.as_str());
    let message = |status: &EtcdRestoreStatus| {
        conditions::get(&status.conditions, CHANGED).map(|condition| condition.message.clone())
    };
    if let Some(changed) = message(status).filter(|_| message(before) != message(status)) {
        context.warn(restore, CHANGED, &changed).await;
    }
    if before.phase == status.phase {
        return;
    }
    tracing::info!(
        namespace = restore.namespace().unwrap_or_default(),
        name = restore.name_any(),
        ?phase,
        text,
        "a restore goes on"
    );
    let reason = format!("{phase:?}");
    match phase {
        RestorePhase::RollingBack | RestorePhase::Failed => {
            context.warn(restore, &reason, text).await;
        }
        _ => context.note(restore, &reason, text).await,
    }
}

async fn act(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
    seen: &decide::Seen,
    action: &Action,
) -> Result<(), Failure> {
    let target = restore.spec.target.stateful_set.as_ref();
    let replicas = |replicas: i32| Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    let params =
        PatchParams { field_manager: Some("lifeboat".to_owned()), ..PatchParams::default() };
    match action {
        Action::ScaleSet(wanted) => {
            let sets: Api<StatefulSet> = context.beside(restore);
            if let Some(target) = target {
                sets.patch_scale(&target.name, &params, &replicas(*wanted)).await?;
            }
        }
        Action::ScaleDeployment(wanted) => {
            let deployments: Api<Deployment> = context.beside(restore);
            if let Some(name) = target.and_then(|target| target.suspend_deployment.as_ref()) {
                deployments.patch_scale(name, &params, &replicas(*wanted)).await?;
            }
        }
        Action::Start(step, index) => {
            let job = written(context, restore, status, seen, *step, *index).await?;
            let jobs: Api<Job> = context.beside(restore);
            match jobs.create(&PostParams::default(), &job).await {
                Err(kube::Error::Api(told)) if told.code == 409 => {}
                Err(error) => {
                    let code = match &error {
                        kube::Error::Api(told) => told.code,
                        _ => 0,
                    };
                    let retryable = !matches!(code, 400 | 403 | 404 | 422);
                    return Err(Failure { retryable, ..Failure::from(error) });
                }
                Ok(_) => {}
            }
        }
        Action::Remove(step, index) => {
            let jobs: Api<Job> = context.beside(restore);
            let run = status.run.as_deref().unwrap_or_default();
            let name = job::name(restore, run, *step, *index);
            match jobs.delete(&name, &DeleteParams::foreground()).await {
                Err(error) if crate::context::is_gone(&error) => {}
                deleted => drop(deleted?),
            }
        }
        Action::Hold(hold) => hold_object(context, restore, *hold).await?,
    }
    Ok(())
}

/// The image of the pods.
fn image<'a>(context: &'a Context, restore: &'a EtcdRestore) -> Option<&'a str> {
    let of_object = restore.spec.job.as_ref().and_then(|job| job.image.as_deref());
    of_object.or(context.settings.image.as_deref())
}

/// The Job of a step.
async fn written(
    context: &Context,
    restore: &EtcdRestore,
    status: &EtcdRestoreStatus,
    seen: &decide::Seen,
    step: decide::Step,
    index: usize,
) -> Result<Job, Failure> {
    let wrong =
        |text: String| Failure { reason: "Job", retryable: false, ..Failure::settings(text, "") };
    let members = i32::try_from(status.volumes.len()).unwrap_or(i32::MAX);
    let target = restore.spec.target.stateful_set.as_ref().zip(seen.set.as_ref());
    let layout = target.map(|(target, set)| Layout::read(set, target, members)).transpose();
    let layout = layout.map_err(wrong)?;
    let store = match status.source.as_ref().and_then(|source| source.store.as_ref()) {
        Some(point) if matches!(step, decide::Step::Probe | decide::Step::Build) => {
            let stores: Api<BackupStore> = context.beside(restore);
            stores.get_opt(&point.name).await?.map(|store| store.spec)
        }
        _ => None,
    };
    let image = image(context, restore).ok_or_else(|| wrong(NO_IMAGE.to_owned()))?;
    let writer = Writer { restore, status, layout: layout.as_ref(), store: store.as_ref(), image };
    writer.job(step, index).map_err(wrong)
}

async fn hold_object(context: &Context, restore: &EtcdRestore, hold: bool) -> Result<(), Failure> {
    let mut finalizers = restore.finalizers().to_vec();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if hold {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "uid": restore.meta().uid,
    } });
    let restores: Api<EtcdRestore> = context.beside(restore);
    let patched =
        restores.patch(&restore.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
    match patched {
        Err(error) if crate::context::is_gone(&error) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}
