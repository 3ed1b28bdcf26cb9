//! The controller of `BackupStore`: whether a store can be used, what is in it, and, with `sync`, its backups as objects.
//!
//! * A store is looked at when it changes and every ten minutes; one that cannot be used, or did not say all, every minute; one that a
//!   backup has failed of, at once.
//! * Manifests are read once: a listing is kept, and read again only where something is new.
//! * What `sync` shows it only shows: removing such an object deletes nothing, and one whose backup is gone goes too.

mod doubts;
mod keys;
mod sync;

pub use doubts::Doubts;
pub use sync::{Backups, Synced, show_once};

use crate::{
    api::{BackupStore, BackupStoreStatus, EtcdBackup},
    backup::stored,
    conditions::{self, Is, seconds},
    context::Context,
    failure::Failure,
    metrics,
    run::Scope,
    secrets,
};
use jiff::Timestamp;
use keys::{DECRYPTABLE, Keys};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{Controller, controller::Action, watcher},
};
use repository::{
    ClusterName, Repository, RepositoryError,
    listing::Listing,
    store::{Lock, ObjectLock, Store},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often a store is looked at.
const LOOK: Duration = Duration::from_secs(600);

/// How often one that cannot be used is.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The condition that says whether what is written can be deleted again at once.
const OBJECT_LOCK: &str = "ObjectLock";

/// Its reason where a store never says.
const UNTOLD: &str = "Untold";

/// What was found in stores, by the object's uid.
#[derive(Debug, Default)]
pub struct Listings(Mutex<HashMap<String, Vec<Listing>>>);

impl Listings {
    fn take(&self, store: &str) -> Vec<Listing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(store).unwrap_or_default()
    }

    fn put(&self, store: &str, listings: Vec<Listing>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(store.to_owned(), listings);
    }
}

/// What is known of a store.
struct Look {
    keys: Keys,
    found: Result<Found, Failure>,
}

/// What is known of a store that can be used.
struct Found {
    url: String,
    create_only: bool,
    /// What the newest object tells of its lock; an error if the store did not say.
    lock: Result<ObjectLock, Failure>,
    listings: Vec<Listing>,
    /// Clusters whose backups cannot be listed.
    unlisted: Vec<Failure>,
}

impl Found {
    fn backups(&self) -> Backups<'_> {
        Backups { url: &self.url, listings: &self.listings, are_all: self.unlisted.is_empty() }
    }
}

/// Follows all objects of the kind.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<BackupStore> = scope.api(&context.client);
    let controller = Controller::new(api, watcher::Config::default().page_size(500))
        .reconcile_all_on(context.doubts.heard())
        .graceful_shutdown_on(stop);
    crate::run::drive(controller, context, "BackupStore", reconcile).await;
}

async fn reconcile(store: Arc<BackupStore>, context: Arc<Context>) -> Result<Action, Failure> {
    let uid = store.uid().unwrap_or_default();
    if store.meta().deletion_timestamp.is_some() {
        context.listings.take(&uid);
        return Ok(Action::await_change());
    }
    let status = store.status.clone().unwrap_or_default();
    let now = Timestamp::now();
    // One that is known to be unusable is looked at often enough.
    let is_doubted = context.doubts.take(&store) && is_ready(Some(&status)) == Some(true);
    if let Some(until) = still_good(&store, &status, now).filter(|_| !is_doubted) {
        // Our own writing of the status woke us, or another operator has looked.
        measure(&context, &store, &status);
        return Ok(crate::backup::wait(now, until));
    }
    if conditions::get(&status.conditions, "Ready").is_none() {
        show_first(&context, &store, &status, now).await?;
        // What was written wakes us before.
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    let namespace = store.namespace().unwrap_or_default();
    let keys = Keys::of(&context, &namespace, &store).await;
    let objects = stored::shown(&context, &store).await?;
    let look = Look { keys, found: look(&context, &store, now).await };
    let found = &look.found;
    let shown = match found {
        Ok(found) => show(&context, &store, &found.backups(), &objects).await,
        Err(_) => Ok(()),
    };
    let status = judge(&store, status, &look, Timestamp::now());
    tell(&context, &store, &look).await;
    // Before the status says that all was looked at.
    shown?;
    context.write_status(&*store, &status).await?;
    measure(&context, &store, &status);
    let wait = look_again(&status);
    if let Ok(found) = look.found {
        context.listings.put(&uid, found.listings);
    }
    Ok(Action::requeue(wait))
}

/// Shows the backups as objects, where that is wanted, and has those objects that show one say whether it is there.
async fn show(
    context: &Context,
    store: &BackupStore,
    backups: &Backups<'_>,
    objects: &[EtcdBackup],
) -> Result<(), Failure> {
    sync::sync(&context.client, store, backups).await?;
    stored::compare(context, objects, backups.listings, backups.are_all).await
}

/// Says of a new store that it is being looked at: one that does not answer takes its time.
async fn show_first(
    context: &Context,
    store: &BackupStore,
    status: &BackupStoreStatus,
    now: Timestamp,
) -> Result<(), Failure> {
    let mut status = status.clone();
    let text = "the store is being looked at";
    let generation = store.meta().generation;
    conditions::set(
        &mut status.conditions,
        "Ready",
        Is::Unknown,
        "Checking",
        text,
        generation,
        now,
    );
    context.write_status(store, &status).await
}

/// Tells of what has changed, in events and in the log.
async fn tell(context: &Context, store: &BackupStore, look: &Look) {
    let (namespace, name) = (store.namespace().unwrap_or_default(), store.name_any());
    let status = store.status.as_ref();
    match (&look.found, is_ready(status)) {
        (Err(failure), was_ready) if was_ready != Some(false) => {
            let Failure { reason, message, remedy, .. } = failure;
            tracing::warn!(
                namespace,
                store = name,
                reason,
                error = message,
                remedy,
                "a store cannot be used"
            );
            context.warn(store, reason, &failure.text()).await;
        }
        (Ok(_), was_ready) if was_ready != Some(true) => {
            tracing::info!(namespace, store = name, "a store is ready");
            context.note(store, "Ready", "the store is reachable and writable").await;
        }
        _ => {}
    }
    let before = status.and_then(|status| conditions::get(&status.conditions, DECRYPTABLE));
    if let Some((Is::False, reason, text)) = look.keys.judged()
        && before.is_none_or(|before| before.reason != reason)
    {
        tracing::warn!(
            namespace,
            store = name,
            reason,
            error = text,
            "a store's backups cannot be decrypted"
        );
        context.warn(store, reason, &text).await;
    }
}

/// Shows what a status says as metrics; an operator that has just begun looks at nothing before its time.
fn measure(context: &Context, store: &BackupStore, status: &BackupStoreStatus) {
    let is_up = is_ready(Some(status)) == Some(true);
    let keys = conditions::get(&status.conditions, DECRYPTABLE);
    let key_fits = match keys.map(|found| found.reason.as_str()) {
        Some("KeyFits") => Some(true),
        Some("KeyUnfit") => Some(false),
        _ => None,
    };
    context.metrics.show_store(&object(store), is_up, status.backups, key_fits);
}

/// Until when what was last found is good enough, if it is.
fn still_good(
    store: &BackupStore,
    status: &BackupStoreStatus,
    now: Timestamp,
) -> Option<Timestamp> {
    if status.observed_generation != store.meta().generation {
        return None;
    }
    let wait = look_again(status);
    let checked = status.checked_at.as_ref()?.0;
    let until = checked.saturating_add(wait).ok()?;
    (checked <= now && now < until).then_some(until)
}

/// How long what was found is good enough. Whether new objects are locked is asked of a store, and may have got no answer.
fn look_again(status: &BackupStoreStatus) -> Duration {
    let lock = conditions::get(&status.conditions, OBJECT_LOCK);
    let is_known =
        lock.is_none_or(|lock| lock.status != Is::Unknown.name() || lock.reason == UNTOLD);
    match is_ready(Some(status)) == Some(true) && is_known {
        true => LOOK,
        false => LOOK_AGAIN,
    }
}

fn is_ready(status: Option<&BackupStoreStatus>) -> Option<bool> {
    match conditions::get(&status?.conditions, "Ready")?.status.as_str() {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    }
}

fn object(store: &BackupStore) -> metrics::Object {
    metrics::Object { namespace: store.namespace().unwrap_or_default(), name: store.name_any() }
}

fn count(listings: &[Listing]) -> u64 {
    listings.iter().map(|listing| listing.backups.len() as u64).sum()
}

async fn look(context: &Context, store: &BackupStore, now: Timestamp) -> Result<Found, Failure> {
    let namespace = store.namespace().unwrap_or_default();
    let place = secrets::place_of(context, &namespace, &store.spec).await?;
    let create_only = place.store.probe().await;
    let create_only =
        create_only.map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))?;
    let url = place.store.url().to_owned();
    let (listings, unlisted, lock) = (Vec::new(), Vec::new(), Ok(ObjectLock::Untold));
    let mut found = Found { url, create_only, lock, listings, unlisted };
    let Some(repository) = open(place.store.clone(), &store.spec.url, now).await? else {
        found.lock = object_lock(&place.store, &[]).await;
        return Ok(found);
    };
    let mut before = context.listings.take(&store.uid().unwrap_or_default());
    let clusters = repository.clusters().await.map_err(|error| of(&error))?;
    for cluster in clusters {
        let known = before.iter().position(|listing| listing.cluster == cluster);
        let known = known.map(|at| before.swap_remove(at));
        match list(&repository, &cluster, known).await {
            Ok(listing) => found.listings.push(listing),
            Err(error) if error.is_unreachable() => return Err(of(&error)),
            Err(error) => found.unlisted.push(of(&error)),
        }
    }
    found.lock = object_lock(&place.store, &found.listings).await;
    Ok(found)
}

/// How new objects are locked: as the newest backup is, or, before there is any, what was written to try the store.
async fn object_lock(store: &Store, listings: &[Listing]) -> Result<ObjectLock, Failure> {
    let backups = listings.iter().flat_map(|listing| &listing.backups);
    let newest = backups.max_by_key(|backup| backup.manifest.started);
    let object = newest.and_then(|backup| backup.objects.first()).map(|entry| entry.path.as_str());
    let told = store.object_lock(object).await;
    told.map_err(|error| Failure::from(daemon::jobs::Failure::from(&error)))
}

/// The repository there. None in a bucket that has none yet: the first backup makes it one. A folder, which cannot be
/// probed, becomes one at once.
async fn open(store: Store, url: &str, now: Timestamp) -> Result<Option<Repository>, Failure> {
    let opened = match url.starts_with("file:") {
        true => Repository::open_or_create(store, now).await,
        false => Repository::open(store).await,
    };
    match opened {
        Ok(repository) => Ok(Some(repository)),
        Err(RepositoryError::NotARepository { .. }) => Ok(None),
        Err(error) => Err(of(&error)),
    }
}

async fn list(
    repository: &Repository,
    cluster: &ClusterName,
    known: Option<Listing>,
) -> Result<Listing, RepositoryError> {
    match known {
        Some(known) => repository.backups_again(known).await,
        None => repository.backups(cluster).await,
    }
}

fn of(error: &RepositoryError) -> Failure {
    daemon::jobs::Failure::from(error).into()
}

/// What the store then shows.
fn judge(
    store: &BackupStore,
    mut status: BackupStoreStatus,
    look: &Look,
    now: Timestamp,
) -> BackupStoreStatus {
    let generation = store.meta().generation;
    let mut set = |type_: &str, is: Is, reason: &str, text: &str| {
        conditions::set(&mut status.conditions, type_, is, reason, text, generation, now);
    };
    match &look.found {
        Ok(found) => {
            match found.unlisted.first() {
                None if look.keys.is_unfit() => {
                    let text = "the store is reachable and writable, but what is stored now cannot be decrypted with the private key that is here; see the condition Decryptable";
                    set("Ready", Is::True, "KeyUnfit", text);
                }
                None => set("Ready", Is::True, "Reachable", "the store is reachable and writable"),
                Some(failure) => set("Ready", Is::True, "PartlyUnreadable", &failure.text()),
            }
            match found.create_only {
                true => set(
                    "CreateOnly",
                    Is::True,
                    "Refused",
                    "the store refuses to create an object a second time",
                ),
                false => set(
                    "CreateOnly",
                    Is::False,
                    "Overwritten",
                    "the store cannot refuse to overwrite; let no two writers back up one cluster into it",
                ),
            }
            let (is, reason, text) = judge_lock(&found.lock);
            set(OBJECT_LOCK, is, reason, &text);
            status.backups = Some(count(&found.listings));
        }
        Err(failure) => {
            let text = format!("{}; looked at again every minute", failure.text());
            set("Ready", Is::False, failure.reason, &text);
        }
    }
    match look.keys.judged() {
        Some((is, reason, text)) => set(DECRYPTABLE, is, reason, &text),
        None => status.conditions.retain(|condition| condition.type_ != DECRYPTABLE),
    }
    status.observed_generation = generation;
    status.checked_at = Some(seconds(now));
    status
}

/// Whether what is written there can be deleted again at once.
fn judge_lock(lock: &Result<ObjectLock, Failure>) -> (Is, &'static str, String) {
    match lock {
        Ok(ObjectLock::Locked(lock)) if lock.mode == Lock::LEGAL_HOLD => (
            Is::True,
            "LegalHold",
            "the newest object is under a legal hold: it cannot be deleted until that is lifted".to_owned(),
        ),
        Ok(ObjectLock::Locked(lock)) => {
            let days = match lock.days() {
                None => String::new(),
                Some(1) => ", 1 day".to_owned(),
                Some(days) => format!(", {days} days"),
            };
            let text = format!(
                "new objects are locked ({}{days}): what retention or a deletionPolicy would delete stays until then",
                lock.mode
            );
            (Is::True, "Enabled", text)
        }
        Ok(ObjectLock::Open) => (
            Is::False,
            "Disabled",
            "the newest object has no lock, or none that these credentials may see (s3:GetObjectRetention)".to_owned(),
        ),
        Ok(ObjectLock::Untold) => (
            Is::Unknown,
            UNTOLD,
            "this kind of store does not tell; what it keeps from being deleted stays, and is told of then".to_owned(),
        ),
        Err(failure) => {
            (Is::Unknown, failure.reason, format!("{}; looked at again every minute", failure.text()))
        }
    }
}

#[cfg(test)]
mod tests;
