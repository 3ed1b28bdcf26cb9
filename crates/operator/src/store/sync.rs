//! Backups of a store as objects, whoever made them.

use super::Found;
use crate::{
    api::{
        BackupStore, Cluster, EtcdBackup, EtcdBackupSpec, EtcdBackupStatus, HashMismatch, RunAs,
    },
    backup::{SYNCED, live, remove_object},
    conditions,
    context::Context,
    failure::Failure,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, PostParams},
};
use repository::{Manifest, listing::State};
use std::collections::BTreeSet;

/// The host of a cluster of which no address is known: a name that nobody may have.
const NOWHERE: &str = "http://unknown.invalid:2379";

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
    context: &Context,
    store: &BackupStore,
    found: &Found,
) -> Result<(), Failure> {
    let seen = store.status.as_ref().and_then(|status| status.observed_generation);
    if !store.spec.sync && seen == store.meta().generation {
        // What it may have shown was removed when this spec was first seen.
        return Ok(());
    }
    let api: Api<EtcdBackup> = context.beside(store);
    let objects = api.list(&ListParams::default()).await?.items;
    let changes = changes(store, found, &objects);
    for object in changes.remove {
        remove_object(&api, object).await?;
    }
    for manifest in changes.create {
        show(context, &api, store, found, manifest).await?;
    }
    Ok(())
}

/// What is to be done, given all objects beside the store.
pub(super) fn changes<'a>(
    store: &BackupStore,
    found: &'a Found,
    objects: &'a [EtcdBackup],
) -> Changes<'a> {
    let name = store.name_any();
    let beside = || objects.iter().filter(|object| object.spec.store_name == name);
    let manifests = || {
        let backups = found.listings.iter().flat_map(|listing| &listing.backups);
        backups.filter(|backup| backup.state == State::Whole).map(|backup| &backup.manifest)
    };
    let there: BTreeSet<_> = manifests()
        .map(|manifest| (manifest.cluster.to_string(), manifest.id.to_string()))
        .collect();
    let key = |object: &EtcdBackup| {
        let backup = object.status.as_ref().and_then(|status| status.backup.clone());
        backup.map(|backup| (object.spec.cluster.name.clone(), backup))
    };
    let is_shown = |object: &&EtcdBackup| object.labels().contains_key(SYNCED);
    let listed = |object: &EtcdBackup| {
        // A cluster that cannot be listed has lost nothing.
        found.listings.iter().any(|l| l.cluster.as_str() == object.spec.cluster.name)
            || found.unlisted.is_empty()
    };
    let is_over = |object: &&EtcdBackup| {
        !store.spec.sync || (listed(object) && key(object).is_some_and(|key| !there.contains(&key)))
    };
    let remove = beside().filter(is_shown).filter(is_over).collect();
    if !store.spec.sync {
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
    context: &Context,
    api: &Api<EtcdBackup>,
    store: &BackupStore,
    found: &Found,
    manifest: &Manifest,
) -> Result<(), Failure> {
    let object = object(store, manifest);
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
        ..EtcdBackupStatus::default()
    };
    live::show(&mut status, manifest, &found.url);
    let text = "found in the store";
    let (generation, now) = (made.meta().generation, manifest.finished);
    conditions::set(&mut status.conditions, "Succeeded", true, "Synced", text, generation, now);
    context.write_status(&made, &status).await
}

/// The object that shows a backup.
fn object(store: &BackupStore, manifest: &Manifest) -> EtcdBackup {
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
        labels: Some([(SYNCED.to_owned(), "true".to_owned())].into()),
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
