//! A backup made in a pod of its own, near the cluster.
//!
//! ```text
//!   operator ── Job with an Order ──▶ pod: lifeboat backup-job ORDER ──▶ store
//!      ▲                                  │ why it failed, in its termination message
//!      └── the Job's end ◀────────────────┘        what it made is found in the store, by the object's uid
//! ```
//!
//! * The pod has no rights in Kubernetes; the Secrets that it needs are mounted, and nothing of them stands in the Order.
//! * A Job is named by its attempt, so that an attempt has one, however often an operator is killed.
//! * A pod that does not begin is told of, and after a while given up: nobody hears of a pod, so that it is looked at again.

mod obey;
mod order;
mod told;

use super::{Attempt, live::Made, wait};
use crate::{
    api::{EtcdBackup, EtcdBackupStatus},
    conditions::{self, Is},
    context::Context,
    failure::Failure,
    pods::waits_for,
    secrets::Content,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::controller::Action,
};
pub use obey::{TERMINATION_LOG, obey};
pub use order::Order;
use order::{job, name, order};
use told::{ToldOfSuccess, last_words, message};

/// Says what a Job of ours is for.
pub const LABEL: &str = "lifeboat.dev/job";

/// How long a pod may take until it begins: nodes and images may have to come first.
const START: SignedDuration = SignedDuration::from_mins(10);

/// A pod that has not begun after that is told of: first by the condition, then as an event.
const PROMPT: [SignedDuration; 2] = [SignedDuration::from_secs(10), SignedDuration::from_mins(1)];

/// How often it is looked at then.
const LOOK: SignedDuration = SignedDuration::from_secs(15);

/// Why an attempt failed whose pod never began.
pub(super) const NOT_STARTED: &str = "JobNotStarted";

/// Begins an attempt: says so, then makes its Job.
pub(super) async fn begin(
    context: &Context,
    backup: &EtcdBackup,
    mut status: EtcdBackupStatus,
    attempt: u32,
) -> Result<Action, Failure> {
    let attempting = Attempt { context, backup };
    if let Err(failure) = prepared(context, backup, &name(backup, attempt)).await {
        return attempting.missing(status, failure).await;
    }
    attempting.running(&mut status, attempt, "a Job makes the backup").await?;
    look(context, backup, status, attempt).await
}

/// The Job of an attempt, once all that it needs is there: a pod whose Secret is missing waits, and does not say for what.
async fn prepared(context: &Context, backup: &EtcdBackup, name: &str) -> Result<Job, Failure> {
    let order = order(context, backup).await?;
    let namespace = backup.namespace().unwrap_or_default();
    for (_, secret) in &order.secrets {
        Content::read(context, &namespace, secret).await?;
    }
    job(context, backup, &order, name)
}

/// Looks how far an attempt's Job is; makes it, if an operator ended before it did.
pub(super) async fn look(
    context: &Context,
    backup: &EtcdBackup,
    status: EtcdBackupStatus,
    attempt: u32,
) -> Result<Action, Failure> {
    let jobs: Api<Job> = context.beside(backup);
    let attempting = Attempt { context, backup };
    let name = name(backup, attempt);
    let Some(job) = jobs.get_opt(&name).await? else {
        // Ended Jobs do not stay.
        if let Some(manifest) = attempting.made_before().await {
            return attempting.succeeded(status, manifest.into()).await;
        }
        return match prepared(context, backup, &name).await {
            Ok(job) => match jobs.create(&PostParams::default(), &job).await {
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    Ok(Action::await_change())
                }
                Err(error) => Err(error.into()),
                Ok(_) => Ok(Action::await_change()),
            },
            Err(failure) => attempting.missing(status, failure).await,
        };
    };
    match ended(&job) {
        None => begun(&attempting, status, &job).await,
        Some(true) => match attempting.found().await? {
            Some(manifest) => {
                let told = pods(context, backup, &name).await?.iter().find_map(last_words);
                let told: ToldOfSuccess =
                    told.and_then(|told| serde_json::from_str(&told).ok()).unwrap_or_default();
                attempting.succeeded(status, Made { manifest, other: told.other_cluster }).await
            }
            None => {
                let failure = Failure {
                    reason: "Store",
                    message: format!(
                        "Job {name} has ended well, but its backup is not in the store"
                    ),
                    remedy: "see whether the BackupStore was changed meanwhile".to_owned(),
                    retryable: true,
                };
                attempting.failed(status, failure).await
            }
        },
        Some(false) => {
            let failure = why(context, backup, &name).await?;
            attempting.failed(status, failure).await
        }
    }
}

/// Looks whether the pod of a Job that has not ended has begun.
async fn begun(
    attempting: &Attempt<'_>,
    mut status: EtcdBackupStatus,
    job: &Job,
) -> Result<Action, Failure> {
    let Attempt { context, backup } = *attempting;
    let (name, now) = (job.name_any(), Timestamp::now());
    if job.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let pods = pods(context, backup, &name).await?;
    let newest = pods.iter().max_by_key(|pod| pod.creation_timestamp());
    let waits = match newest {
        None => Some(format!("it has no pod; see `kubectl describe job {name}`")),
        Some(pod) => waits_for(pod),
    };
    let Some(why) = waits else {
        if told_before(&status).is_some_and(|(reason, _)| reason == POD_WAITS) {
            attempting.set(&mut status, Is::False, "Running", "a Job makes the backup", now);
            attempting.write(&mut status).await?;
        }
        return Ok(Action::await_change());
    };
    let waited =
        job.creation_timestamp().map_or(SignedDuration::ZERO, |since| now.duration_since(since.0));
    if waited >= START {
        let jobs: Api<Job> = context.beside(backup);
        match jobs.delete(&name, &DeleteParams::background()).await {
            Err(error) if !crate::context::is_gone(&error) => return Err(error.into()),
            _ => {}
        }
        return attempting.failed(status, not_started(&name, &why)).await;
    }
    let [soon, late] = PROMPT;
    if waited < soon {
        return Ok(wait(now, now.saturating_add(soon - waited).unwrap_or(now)));
    }
    let text = format!("Job {name} has not begun: {why}; it is given up after 10 minutes");
    if told_before(&status) != Some((POD_WAITS, &text)) {
        attempting.set(&mut status, Is::False, POD_WAITS, &text, now);
        attempting.write(&mut status).await?;
    }
    if waited >= late && waited < late + LOOK {
        context.warn(backup, POD_WAITS, &text).await;
    }
    Ok(wait(now, now.saturating_add(LOOK).unwrap_or(now)))
}

/// The reason while a pod has not begun.
const POD_WAITS: &str = "PodWaits";

/// What the object says of its attempt.
fn told_before(status: &EtcdBackupStatus) -> Option<(&str, &str)> {
    let told = conditions::get(&status.conditions, "Succeeded")?;
    Some((&told.reason, &told.message))
}

fn not_started(job: &str, why: &str) -> Failure {
    Failure {
        reason: NOT_STARTED,
        message: format!("Job {job} did not begin within 10 minutes: {why}"),
        remedy: "see that its image can be pulled (spec.job.image, or the operator's --image) and that a node takes it".to_owned(),
        retryable: true,
    }
}

/// Ends an attempt's Job, and its pod, which gives up what it has begun. Says whether both have ended.
pub(super) async fn end(
    context: &Context,
    backup: &EtcdBackup,
    attempt: u32,
) -> Result<bool, Failure> {
    let jobs: Api<Job> = context.beside(backup);
    let name = name(backup, attempt);
    let Some(job) = jobs.get_opt(&name).await?.filter(|job| ended(job).is_none()) else {
        return Ok(true);
    };
    if job.meta().deletion_timestamp.is_none() {
        // The Job is there until its pod is gone.
        match jobs.delete(&name, &DeleteParams::foreground()).await {
            Ok(_) => {}
            Err(error) if crate::context::is_gone(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// How a Job has ended, if it has.
fn ended(job: &Job) -> Option<bool> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let holds = |type_: &str| conditions.iter().any(|c| c.type_ == type_ && c.status == "True");
    match (holds("Complete"), holds("Failed")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// The pods of a Job.
async fn pods(context: &Context, backup: &EtcdBackup, job: &str) -> Result<Vec<Pod>, Failure> {
    let pods: Api<Pod> = context.beside(backup);
    let ours = ListParams::default().labels(&format!("job-name={job}"));
    Ok(pods.list(&ours).await?.items)
}

/// Why a Job's pod failed.
async fn why(context: &Context, backup: &EtcdBackup, job: &str) -> Result<Failure, Failure> {
    let told = pods(context, backup, job).await?.iter().find_map(message);
    Ok(told.unwrap_or_else(|| Failure {
        reason: "Job",
        message: format!("Job {job} failed, and its pod says nothing"),
        remedy: format!("see `kubectl describe job {job}`"),
        retryable: true,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_job_has_ended_when_kubernetes_says_so() {
        let job = |condition: Value| -> Job {
            serde_json::from_value(json!({ "status": { "conditions": [condition] } })).unwrap()
        };
        assert_eq!(ended(&Job::default()), None);
        assert_eq!(ended(&job(json!({ "type": "Complete", "status": "True" }))), Some(true));
        assert_eq!(ended(&job(json!({ "type": "Failed", "status": "True" }))), Some(false));
        assert_eq!(ended(&job(json!({ "type": "Failed", "status": "False" }))), None);
    }
}
