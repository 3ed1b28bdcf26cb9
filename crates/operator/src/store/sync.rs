//! Backups of a store as objects, whoever made them: kept up by the operator where the store says `sync`, or shown once by
//! `lifeboat list --sync`.

use crate::{
    api::{
        BackupStore, Cluster, EtcdBackup, EtcdBackupSpec, EtcdBackupStatus, HashMismatch, RunAs,
    },
    backup::{SYNCED, live, remove_object, stored},
    conditions,
    context::write_status,
    failure::Failure,
    run::RunError,
    secrets,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
};
use repository::{
    Manifest,
    listing::{Listing, State},
};
use std::collections::BTreeSet;

/// The host of a cluster of which no address is known: a name that nobody may have.
const NOWHERE: &str = "http://unknown.invalid:2379";

/// What [`SYNCED`] says of an object that lives as long as its store says `sync`, and of one that was shown once.
const KEPT_UP: &str = "true";
const ONCE: &str = "once";

/// Backups that are to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Backups<'a> {
    /// The repository.
    pub url: &'a str,
    /// What is in it.
    pub listings: &'a [Listing],
    /// Whether that is all; if not, clusters that are not listed have lost nothing.
    pub are_all: bool,
}

/// What was done to show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Objects that were made.
    pub made: usize,
    /// Objects that were removed, as their backup is gone.
    pub removed: usize,
}

/// What is to be done so that each backup of a store has an object.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    /// Backups without one.
    create: Vec<&'a Manifest>,
    /// Objects whose backup is gone.
    remove: Vec<&'a EtcdBackup>,
}

#[cfg(test)]
impl Changes<'_> {
    pub(super) fn removed(&self) -> usize {
        self.remove.len()
    }
}

/// Shows the backups of a store, or, where that is not wanted any more, no longer does.
pub(super) async fn sync(
    client: &Client,
    store: &BackupStore,
    backups: &Backups<'_>,
) -> Result<(), Failure> {
    let seen = store.status.as_ref().and_then(|status| status.observed_generation);
    if !store.spec.sync && seen == store.meta().generation {
        // What it may have shown was removed when this spec was first seen.
        return Ok(());
    }
    apply(client, store, backups, store.spec.sync.then_some(KEPT_UP)).await.map(drop)
}

/// Shows backups as objects beside `store`, `NAMESPACE/NAME` or `NAME` in one's own namespace, as who KUBECONFIG says. No operator
/// is needed, and none removes them.
pub async fn show_once(store: &str, backups: &Backups<'_>) -> Result<(String, Synced), RunError> {
    let (client, own) = crate::client().await?;
    let (namespace, name) = store.split_once('/').unwrap_or((&own, store));
    let store = secrets::store_of(&client, namespace, name).await?;
    let (here, there) = (backups.url.trim_end_matches('/'), store.spec.url.trim_end_matches('/'));
    // A folder has another name where it is mounted into the operator.
    if here != there && !there.starts_with("file:") {
        return Err(Failure::settings(
            format!("BackupStore {name:?} in namespace {namespace:?} is {there}, not {here}"),
            "name the BackupStore of this repository, or give its --repo",
        )
        .into());
    }
    let synced = apply(&client, &store, backups, Some(ONCE)).await?;
    Ok((namespace.to_owned(), synced))
}

/// Makes objects for backups without one, labelled `as_`, if that is wanted; removes those whose time is over.
async fn apply(
    client: &Client,
    store: &BackupStore,
    backups: &Backups<'_>,
    as_: Option<&str>,
) -> Result<Synced, Failure> {
    let namespace = store.namespace().unwrap_or_default();
    let api: Api<EtcdBackup> = Api::namespaced(client.clone(), &namespace);
    let objects = api.list(&ListParams::default()).await?.items;
    let changes = changes(store, as_.is_some(), backups, &objects);
    let synced = Synced { made: changes.create.len(), removed: changes.remove.len() };
    for object in changes.remove {
        remove_object(&api, object).await?;
    }
    for manifest in changes.create {
        show(client, &api, object(store, manifest, as_.unwrap_or(KEPT_UP)), backups.url, manifest)
            .await?;
    }
    Ok(synced)
}

/// What is to be done, given all objects beside the store.
pub(super) fn changes<'a>(
    store: &BackupStore,
    is_wanted: bool,
    backups: &Backups<'a>,
    objects: &'a [EtcdBackup],
) -> Changes<'a> {
    let name = store.name_any();
    let beside = || objects.iter().filter(|object| object.spec_in_force().store_name == name);
    let manifests = || {
        let all = backups.listings.iter().flat_map(|listing| &listing.backups);
        all.filter(|backup| backup.state == State::Whole).map(|backup| &backup.manifest)
    };
    // What cannot be read now is not gone.
    let unread = backups.listings.iter().flat_map(|listing| {
        listing.unreadable.iter().map(|found| (listing.cluster.to_string(), found.id.to_string()))
    });
    let there: BTreeSet<_> = manifests()
        .map(|manifest| (manifest.cluster.to_string(), manifest.id.to_string()))
        .chain(unread)
        .collect();
    let key = |object: &EtcdBackup| {
        let backup = object.status.as_ref().and_then(|status| status.backup.clone());
        backup.map(|backup| (object.spec_in_force().cluster.name.clone(), backup))
    };
    let shown_as = |object: &EtcdBackup| object.labels().get(SYNCED).cloned();
    let listed = |object: &EtcdBackup| {
        let cluster = &object.spec_in_force().cluster.name;
        backups.listings.iter().any(|l| l.cluster.as_str() == cluster) || backups.are_all
    };
    let is_over = |object: &&EtcdBackup| match shown_as(object) {
        None => false,
        Some(as_) if !is_wanted => as_ == KEPT_UP,
        Some(_) => listed(object) && key(object).is_some_and(|key| !there.contains(&key)),
    };
    let remove = beside().filter(is_over).collect();
    if !is_wanted {
        return Changes { remove, create: Vec::new() };
    }
    let have: BTreeSet<_> = beside().filter_map(key).collect();
    // Made by an object that has not said so yet.
    let uids: BTreeSet<_> = beside().filter_map(|o| o.uid()).collect();
    let is_new = |manifest: &&Manifest| {
        let key = (manifest.cluster.to_string(), manifest.id.to_string());
        let maker = manifest.tool.strip_suffix(')').and_then(|tool| tool.rsplit(' ').next());
        !have.contains(&key) && !maker.is_some_and(|maker| uids.contains(maker))
    };
    Changes { create: manifests().filter(is_new).collect(), remove }
}

async fn show(
    client: &Client,
    api: &Api<EtcdBackup>,
    object: EtcdBackup,
    url: &str,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let name = object.name_any();
    let made = match api.create(&PostParams::default(), &object).await {
        Ok(made) => made,
        // Without a status: an operator ended before it could write one.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => api.get(&name).await?,
        Err(error) => return Err(error.into()),
    };
    if !made.labels().contains_key(SYNCED) {
        tracing::warn!(
            name,
            "an EtcdBackup of that name is somebody's own; its backup is not shown"
        );
        return Ok(());
    }
    let mut status = EtcdBackupStatus {
        observed_generation: made.meta().generation,
        cluster: Some(manifest.cluster.to_string()),
        store_name: Some(made.spec.store_name.clone()),
        begun_with: Some(made.spec.clone()),
        ..EtcdBackupStatus::default()
    };
    live::show(&mut status, manifest, url);
    let text = "found in the store";
    let (generation, now) = (made.meta().generation, manifest.finished);
    conditions::set(&mut status.conditions, "Succeeded", true, "Synced", text, generation, now);
    stored::set(&mut status.conditions, None, generation, now);
    write_status(client, &made, &status).await
}

/// The object that shows a backup.
fn object(store: &BackupStore, manifest: &Manifest, as_: &str) -> EtcdBackup {
    let members = manifest.etcd.members.iter().flat_map(|member| &member.client_urls);
    let is_taken = |url: &&String| {
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '@']))
    };
    let mut endpoints: Vec<_> = members.filter(is_taken).cloned().collect();
    if endpoints.is_empty() {
        endpoints.push(NOWHERE.to_owned());
    }
    let spec = EtcdBackupSpec {
        cluster: Cluster {
            name: manifest.cluster.to_string(),
            endpoints,
            service: None,
            stateful_set: None,
            tls: None,
            auth_secret_name: None,
        },
        store_name: store.name_any(),
        run_as: RunAs::Operator,
        job: None,
        hash_mismatch: HashMismatch::Warn,
        attempts: 1,
        deletion_policy: crate::api::DeletionPolicy::Retain,
        ttl_seconds_after_finished: None,
    };
    let name = name(&store.name_any(), manifest);
    let mut object = EtcdBackup::new(&name, spec);
    object.metadata = ObjectMeta {
        name: Some(name),
        namespace: store.namespace(),
        labels: Some([(SYNCED.to_owned(), as_.to_owned())].into()),
        owner_references: Some(store.controller_owner_ref(&()).into_iter().collect()),
        ..ObjectMeta::default()
    };
    object
}

/// A name that the object's store, cluster and backup have alone.
fn name(store: &str, manifest: &Manifest) -> String {
    let cluster = manifest.cluster.as_str();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let readable: String = cluster.chars().map(plain).take(40).collect();
    let whole = format!("{store}/{cluster}/{}", manifest.id);
    let hash = crate::schedule::fnv(&whole) & 0xffff_ffff;
    let time = manifest.id.started().strftime("%Y%m%d-%H%M%S").to_string();
    format!("{}-{time}-{hash:08x}", readable.trim_matches('-'))
}
