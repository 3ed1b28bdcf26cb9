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

use super::{
    Attempt,
    live::{self, Made, OtherCluster},
    made_by, of, wait,
};
use crate::{
    api::{Cluster, EtcdBackup, EtcdBackupStatus, HashMismatch, JobOptions, Tls},
    cluster,
    conditions::{self, Is},
    context::Context,
    failure::Failure,
    files::Files,
    pods::waits_for,
    secrets::{self, Content},
    security::Security,
    volume::StoreAccess,
};
use backup::{HashKvPolicy, Options, Source, Target};
use etcd_live::{ConnectOptions, Connector, Endpoint, TlsOptions};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
    runtime::controller::Action,
};
use repository::{
    Repository,
    codec::{Encoding, Recipients},
    lease::Terms,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Says what a Job of ours is for.
pub const LABEL: &str = "lifeboat.dev/job";

/// What the pod may write there, Kubernetes shows.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// No backup takes longer; a pod that never starts must end some time.
const DEADLINE_SECONDS: i64 = 6 * 3600;

/// How long a pod may take until it begins: nodes and images may have to come first.
const START: SignedDuration = SignedDuration::from_mins(10);

/// A pod that has not begun after that is told of: first by the condition, then as an event.
const PROMPT: [SignedDuration; 2] = [SignedDuration::from_secs(10), SignedDuration::from_mins(1)];

/// How often it is looked at then.
const LOOK: SignedDuration = SignedDuration::from_secs(15);

/// Why an attempt failed whose pod never began.
pub(super) const NOT_STARTED: &str = "JobNotStarted";

/// How long an ended Job is kept for who wants to see its logs.
const KEPT_SECONDS: i64 = 3600;

/// Reasons that a pod can give.
const REASONS: [&str; 12] = [
    "Cluster",
    "Verification",
    "HashMismatch",
    "StoreUnreachable",
    "StoreDenied",
    "StoreFull",
    "Store",
    "Lease",
    "Spool",
    "Settings",
    "Stopped",
    "Internal",
];

/// What a pod is to do. Without secrets: they are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The cluster's name in the store.
    pub cluster: String,
    /// Its members.
    pub endpoints: Vec<String>,
    /// How TLS is spoken to them.
    pub tls: Option<Tls>,
    /// The folder of that Secret.
    pub tls_folder: Option<PathBuf>,
    /// The folder of the Secret with the user.
    pub user_folder: Option<PathBuf>,
    /// What messages call the store.
    pub store_name: String,
    /// How it is entered.
    pub store: StoreAccess,
    /// Who can read the backup.
    pub recipients: Vec<String>,
    /// Whether it may be open although the newest is encrypted.
    pub unencrypted: bool,
    /// zstd's level.
    pub compression_level: i32,
    /// The most bytes per second.
    pub bandwidth_limit: Option<String>,
    /// What to do where members differ.
    pub hash_mismatch: HashMismatch,
    /// What the manifest says of its maker.
    pub tool: String,
}

/// Why a pod failed, as its termination message has it.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    reason: String,
    message: String,
    remedy: String,
    retryable: bool,
}

/// What it says that made a backup.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldOfSuccess {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    other_cluster: Option<OtherCluster>,
}

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
        Some(true) => match found(context, backup).await? {
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
        if told(&status).is_some_and(|(reason, _)| reason == POD_WAITS) {
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
    if told(&status) != Some((POD_WAITS, &text)) {
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
fn told(status: &EtcdBackupStatus) -> Option<(&str, &str)> {
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

async fn found(
    context: &Context,
    backup: &EtcdBackup,
) -> Result<Option<repository::Manifest>, Failure> {
    let namespace = backup.namespace().unwrap_or_default();
    let store = &backup.spec_in_force().store_name;
    let place = secrets::place(context, &namespace, store).await?;
    let repository = Repository::open(place.store).await.map_err(|error| of(&error))?;
    made_by(backup, &repository, &super::cluster_name(backup)?).await
}

/// The pods of a Job.
async fn pods(context: &Context, backup: &EtcdBackup, job: &str) -> Result<Vec<Pod>, Failure> {
    let pods: Api<Pod> = context.beside(backup);
    let ours = ListParams::default().labels(&format!("job-name={job}"));
    Ok(pods.list(&ours).await?.items)
}

/// The last words of a pod that ended well.
fn last_words(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref())?;
    ended.message.clone()
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

/// What a pod said when it ended.
fn message(pod: &Pod) -> Option<Failure> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.iter().find_map(|status| status.state.as_ref()?.terminated.as_ref())?;
    let text = ended.message.as_deref().unwrap_or_default().trim();
    if let Ok(told) = serde_json::from_str::<Told>(text) {
        let Told { reason, message, remedy, retryable } = told;
        let reason = REASONS.into_iter().find(|known| *known == reason).unwrap_or("Job");
        return Some(Failure { reason, message, remedy, retryable });
    }
    let reason = ended.reason.as_deref().unwrap_or("Error");
    let last = text.lines().last().unwrap_or_default();
    Some(Failure {
        reason: "Job",
        message: format!("the pod ended with code {} ({reason}) {last}", ended.exit_code)
            .trim_end()
            .to_owned(),
        remedy: match reason {
            "OOMKilled" => "give it more memory in spec.job.resources".to_owned(),
            _ => "see its logs".to_owned(),
        },
        retryable: true,
    })
}

/// The Job's name.
fn name(backup: &EtcdBackup, attempt: u32) -> String {
    let whole = backup.name_any();
    let mut readable = whole.replace('.', "-");
    readable.truncate(40);
    let hash = crate::schedule::fnv(&backup.uid().unwrap_or(whole)) & 0xffff_ffff;
    format!("{}-{hash:08x}-{attempt}", readable.trim_end_matches('-'))
}

async fn order(context: &Context, backup: &EtcdBackup) -> Result<Ordered, Failure> {
    let namespace = backup.namespace().unwrap_or_default();
    let spec = backup.spec_in_force();
    let store = secrets::store(context, &namespace, &spec.store_name).await?.spec;
    let Cluster { tls, auth_secret_name, .. } = &spec.cluster;
    let encryption = store.encryption.as_ref();
    Ok(Order {
        cluster: super::cluster_name(backup)?.to_string(),
        endpoints: cluster::urls(context, &namespace, &spec.cluster).await?,
        tls: tls.clone(),
        tls_folder: tls.as_ref().map(|_| folder("tls")),
        user_folder: auth_secret_name.as_ref().map(|_| folder("user")),
        store_name: spec.store_name.clone(),
        store: StoreAccess {
            url: store.url.clone(),
            options: store.options.clone(),
            credentials: store.credentials.as_ref().map(|_| folder("credentials")),
            ca: store.ca.as_ref().map(|ca| folder("ca").join(&ca.key)),
            identities: None,
        },
        recipients: encryption.map(|found| found.recipients.clone()).unwrap_or_default(),
        unencrypted: store.unencrypted,
        compression_level: store.compression_level,
        bandwidth_limit: store.bandwidth_limit.clone(),
        hash_mismatch: spec.hash_mismatch,
        tool: super::tool(backup),
    }
    .with_secrets(&store, backup))
}

/// Where a Secret is mounted.
fn folder(what: &str) -> PathBuf {
    Path::new("/etc/lifeboat").join(what)
}

/// The Job.
fn job(
    context: &Context,
    backup: &EtcdBackup,
    order: &Ordered,
    name: &str,
) -> Result<Job, Failure> {
    let broken = |error: serde_json::Error| Failure::of_setting("the Job", &error, "");
    let defaults = JobOptions::default();
    let options = backup.spec_in_force().job.as_ref().unwrap_or(&defaults);
    let image = options.image.as_ref().or(context.settings.image.as_ref()).ok_or_else(|| {
        Failure::settings(
            "no image is known for Jobs",
            "set spec.job.image, or the operator's --image or LIFEBOAT_IMAGE",
        )
    })?;
    let volumes = order
        .secrets
        .iter()
        .map(|(what, secret)| json!({ "name": what, "secret": { "secretName": secret } }));
    let mounts = order
        .secrets
        .iter()
        .map(|(what, _)| json!({ "name": what, "mountPath": folder(what), "readOnly": true }));
    let tmp = [json!({ "name": "tmp", "emptyDir": {} })];
    let tmp_mount = [json!({ "name": "tmp", "mountPath": "/tmp" })];
    let labels = json!({ "app.kubernetes.io/name": "lifeboat", LABEL: "backup" });
    let security = Security::of_backup(options);
    let container = json!({
        "name": "lifeboat",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["backup-job", serde_json::to_string(&order.order).map_err(broken)?],
        "volumeMounts": mounts.chain(tmp_mount).collect::<Vec<Value>>(),
        "resources": options.resources,
        "securityContext": security.container,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    });
    let owner = backup.controller_owner_ref(&());
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": backup.namespace(),
            "labels": labels,
            "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": { "metadata": { "labels": labels }, "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": false,
                "serviceAccountName": options.service_account_name,
                "securityContext": security.pod,
                "nodeSelector": options.node_selector,
                "tolerations": options.tolerations,
                "containers": [container],
                "volumes": volumes.chain(tmp).collect::<Vec<Value>>(),
            } },
        },
    }))
    .map_err(broken)
}

/// An order, and the Secrets that are mounted for it.
struct Ordered {
    order: Order,
    secrets: Vec<(&'static str, String)>,
}

impl Order {
    fn with_secrets(self, store: &crate::api::BackupStoreSpec, backup: &EtcdBackup) -> Ordered {
        let cluster = &backup.spec_in_force().cluster;
        let secrets = [
            ("tls", cluster.tls.as_ref().map(|tls| tls.secret_name.clone())),
            ("user", cluster.auth_secret_name.clone()),
            ("credentials", store.credentials.as_ref().map(|from| from.secret_name.clone())),
            ("ca", store.ca.as_ref().map(|from| from.secret_name.clone())),
        ];
        let secrets = secrets.into_iter().filter_map(|(what, secret)| Some((what, secret?)));
        Ordered { order: self, secrets: secrets.collect() }
    }
}

/// Does what an order says, in the pod. Why it failed is written where Kubernetes shows it.
pub async fn obey(
    order: &str,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<String, Failure> {
    let made = make(order, interrupted).await;
    let told = match &made {
        Ok(made) => serde_json::to_vec(&ToldOfSuccess { other_cluster: made.other.clone() }),
        Err(failure) => {
            let Failure { reason, message, remedy, retryable } = failure.clone();
            serde_json::to_vec(&Told { reason: reason.to_owned(), message, remedy, retryable })
        }
    };
    // Where there is none, the log's end is shown.
    let _ = std::fs::write(TERMINATION_LOG, told.expect("plain data"));
    Ok(made?.manifest.id.to_string())
}

async fn make(
    order: &str,
    interrupted: impl Future<Output = ()> + Send + 'static,
) -> Result<Made, Failure> {
    let order: Order = serde_json::from_str(order).map_err(|error| {
        Failure::of_setting("the order", &error, "use the image of the operator's version")
    })?;
    let spool = std::env::temp_dir();
    let files = Files::default();
    live::make(order.job(&files, spool)?, interrupted).await
}

impl Order {
    fn job(&self, files: &Files, spool_dir: PathBuf) -> Result<backup::Job, Failure> {
        let mounted = |folder: &PathBuf| {
            Content::of_folder(folder).map_err(|error| {
                Failure::of_setting("a mounted Secret cannot be read", &error, "see the pod")
            })
        };
        let tls = match self.tls.as_ref().zip(self.tls_folder.as_ref()) {
            Some((tls, folder)) => secrets::tls_of(files, &mounted(folder)?, tls)?,
            None => TlsOptions::default(),
        };
        let user = self.user_folder.as_ref().map(mounted).transpose()?;
        let credentials = user.map(|secret| secrets::user_of(&secret)).transpose()?;
        let options = ConnectOptions { tls, credentials, ..ConnectOptions::default() };
        let connector = Connector::new(options)
            .map_err(|error| Failure::of_setting("spec.cluster.tls", &error, error.remedy()))
            .map_err(|failure| failure.with_names_of(files))?;
        let endpoints = self.endpoints.iter().map(|url| {
            url.parse::<Endpoint>().map_err(|error| {
                Failure::of_setting("spec.cluster.endpoints", &error, error.remedy())
            })
        });
        let endpoints = endpoints.collect::<Result<_, _>>()?;
        let (store, _) = self.store.open(files).map_err(|error| {
            Failure::of_setting("the store", &error, "see the BackupStore's conditions")
        })?;
        let mut recipients = Recipients::none();
        for key in &self.recipients {
            recipients.add(key).map_err(|error| {
                Failure::of_setting("spec.encryption.recipients", &error, error.remedy())
            })?;
        }
        let bandwidth = self.bandwidth_limit.as_ref().map(|limit| limit.parse()).transpose();
        let bandwidth = bandwidth.map_err(|error| {
            Failure::of_setting("spec.bandwidthLimit", &error, "write it as 20MiB/s")
        })?;
        let cluster = self.cluster.parse().map_err(|error| {
            Failure::of_setting("spec.cluster.name", &error, "write another name")
        })?;
        Ok(backup::Job {
            cluster,
            source: Source::Live { connector, endpoints },
            targets: vec![Target {
                name: self.store_name.clone(),
                store,
                encoding: Encoding { level: self.compression_level, recipients, bandwidth },
                may_expose: self.unencrypted,
            }],
            options: Options {
                spool_dir,
                hash_kv: match self.hash_mismatch {
                    HashMismatch::Warn => HashKvPolicy::Warn,
                    HashMismatch::Fail => HashKvPolicy::Fail,
                },
                terms: Terms { patience: super::live::PATIENCE, ..Terms::default() },
                tool: self.tool.clone(),
                ..Options::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(terminated: Value) -> Pod {
        serde_json::from_value(json!({ "status": { "containerStatuses": [{
            "name": "lifeboat", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "terminated": terminated },
        }] } }))
        .unwrap()
    }

    #[test]
    fn what_a_pod_says_of_its_failure_is_taken_as_it_stands() {
        let told = r#"{"reason":"StoreDenied","message":"no","remedy":"ask","retryable":true}"#;
        let failure = message(&pod(json!({ "exitCode": 1, "message": told }))).unwrap();
        assert_eq!((failure.reason, failure.text().as_str()), ("StoreDenied", "no; ask"));
        let killed = message(&pod(json!({ "exitCode": 137, "reason": "OOMKilled" }))).unwrap();
        assert!(killed.retryable && killed.text().contains("more memory"), "{killed:?}");
        let strange = r#"{"reason":"Weather","message":"no","remedy":"","retryable":false}"#;
        let failure = message(&pod(json!({ "exitCode": 1, "message": strange }))).unwrap();
        assert_eq!(failure.reason, "Job", "reasons are a closed list: metrics have them as labels");
    }

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

    #[test]
    fn each_attempt_has_a_job_of_its_own_whose_name_fits_a_label() {
        let spec = json!({
            "cluster": { "name": "prod", "endpoints": ["http://e:2379"] }, "storeName": "s",
        });
        let mut backup = EtcdBackup::new("", serde_json::from_value(spec).unwrap());
        backup.metadata.name = Some("nightly.".repeat(20));
        backup.metadata.uid = Some("u1".to_owned());
        let first = name(&backup, 1);
        assert!(first.len() <= 63 && !first.contains('.'), "{first}");
        assert_ne!(first, name(&backup, 2));
        backup.metadata.uid = Some("u2".to_owned());
        assert_ne!(first, name(&backup, 1), "an object of the same name is another one");
    }
}
