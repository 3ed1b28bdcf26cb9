//! What every controller works with.

use crate::{
    failure::Failure,
    files::Files,
    limits::Limits,
    metrics::Metrics,
    run::Watches,
    store::{Doubts, Listings},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use repository::{codec::Bandwidth, lease::Holder};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{collections::HashMap, fmt::Debug, net::SocketAddr, path::PathBuf, sync::Mutex};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Who owns the fields that the operator writes.
pub const MANAGER: &str = "lifeboat";

/// Kubernetes takes 1024 bytes in an event's note.
const NOTE_BYTES_MAX: usize = 1000;

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which namespaces are watched; none means all.
    pub namespaces: Vec<String>,
    /// The namespace of its own Lease.
    pub lease_namespace: String,
    /// The Lease's name; none: it is sure to be alone.
    pub lease_name: Option<String>,
    /// What this process is called: the pod's name.
    pub identity: String,
    /// The image of the pods that it starts.
    pub image: Option<String>,
    /// Where temporary files go.
    pub spool: PathBuf,
    /// How many backups it makes at once.
    pub parallel_backups: usize,
    /// Where health and metrics are served.
    pub listen: Option<SocketAddr>,
    /// How long what runs may go on when the operator is told to stop.
    pub stop_grace: std::time::Duration,
    /// What objects may have done with the operator's own means.
    pub limits: Limits,
    /// Whether EtcdBackups of the CoreOS operator are followed too.
    pub coreos_compat: bool,
}

/// What every controller works with. Shared by all.
pub struct Context {
    /// Kubernetes.
    pub client: Client,
    /// How the operator runs.
    pub settings: Settings,
    /// What Prometheus scrapes.
    pub metrics: Metrics,
    /// Certificates of Secrets, as files.
    pub files: Files,
    /// Watches that fail.
    pub watches: Watches,
    /// Stores that have just failed somebody.
    pub doubts: Doubts,
    /// A permit for each backup that may run at once.
    pub backups: Semaphore,
    /// What was found in stores.
    pub listings: Listings,
    /// Limits of stores, which all that write there share.
    pub bandwidths: Mutex<HashMap<(String, String, String), Bandwidth>>,
    /// Who writes into stores.
    pub holder: Holder,
    /// True when nothing new is to begin.
    pub stopping: watch::Receiver<bool>,
    /// True when what runs is to stop soon, and clean up.
    pub interrupt: watch::Receiver<bool>,
    recorder: Recorder,
}

impl Context {
    /// Ready to work.
    pub fn new(
        client: Client,
        settings: Settings,
        stopping: watch::Receiver<bool>,
        interrupt: watch::Receiver<bool>,
    ) -> Self {
        let reporter = Reporter {
            controller: "lifeboat.dev/operator".to_owned(),
            instance: Some(settings.identity.clone()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            metrics: Metrics::new(),
            files: Files::default(),
            watches: Watches::default(),
            doubts: Doubts::default(),
            backups: Semaphore::new(settings.parallel_backups.max(1)),
            listings: Listings::default(),
            bandwidths: Mutex::default(),
            holder: Holder::this_process(),
            stopping,
            interrupt,
            settings,
        }
    }

    /// The objects of a kind in an object's namespace.
    pub fn beside<K, O>(&self, object: &O) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        O: ResourceExt,
    {
        Api::namespaced(self.client.clone(), &object.namespace().unwrap_or_default())
    }

    /// Writes an object's status, all of it. That the object is gone meanwhile is no error.
    pub async fn write_status<K>(&self, object: &K, status: &impl Serialize) -> Result<(), Failure>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        write_status(&self.client, object, status).await
    }

    /// A permit for one more backup; none if the operator is about to stop.
    pub async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        let mut stopping = self.stopping.clone();
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => None,
            permit = self.backups.acquire() => permit.ok(),
        }
    }

    /// Tells what happened to an object, as `kubectl describe` shows it. Without secrets.
    pub async fn tell<K>(&self, object: &K, type_: EventType, reason: &str, note: &str)
    where
        K: Resource<DynamicType = ()>,
    {
        let mut note = note.to_owned();
        note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
        let event = Event {
            type_,
            reason: reason.to_owned(),
            // Events are counted as one where all but the note is the same.
            action: format!("{reason}-{:08x}", crate::schedule::fnv(&note) & 0xffff_ffff),
            note: Some(note),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&())).await {
            // What it tells stands in the status too.
            tracing::debug!(error = etcd_live::one_line(&error), reason, "an event was not taken");
        }
    }

    /// Tells what went well.
    pub async fn note<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.tell(object, EventType::Normal, reason, note).await;
    }

    /// Tells what went wrong.
    pub async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.tell(object, EventType::Warning, reason, note).await;
    }
}

/// Writes an object's status, all of it. That the object is gone meanwhile is no error.
pub(crate) async fn write_status<K>(
    client: &Client,
    object: &K,
    status: &impl Serialize,
) -> Result<(), Failure>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let name = object.name_any();
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // Another object of the same name is none of ours.
        "metadata": { "name": name, "uid": object.uid() },
        "status": status,
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Puts a finalizer on an object, or takes it away. That the object is gone or was changed meanwhile is no error: of that we hear.
pub(crate) async fn hold<K>(
    api: &Api<K>,
    object: &K,
    finalizer: &str,
    held: bool,
) -> Result<(), Failure>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|other| other != finalizer);
    if held {
        finalizers.push(finalizer.to_owned());
    }
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": object.resource_version(),
    } });
    match api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        Err(error) if is_gone(&error) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether an object is not there, or is another one of the same name.
pub fn is_gone(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.code == 404 || (status.code == 409 && status.message.contains("UID"))
        }
        _ => false,
    }
}
