//! What is known of every cluster in every repository: for metrics, for `/status`, and to see what is stale.

use crate::{
    jobs::{Failure, Made, Newest, Pruned, Survey, Verified},
    metrics::{Failed, Metrics, OfCluster, Place},
};
use jiff::{SignedDuration, Timestamp};
use repository::ClusterName;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The board. One for the life of the process: counters survive a reload.
#[derive(Debug, Default)]
pub struct Board {
    /// What Prometheus scrapes.
    pub metrics: Metrics,
    places: Mutex<BTreeMap<Place, State>>,
}

/// One cluster in one repository, as `/status` shows it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct State {
    /// When the newest backup was whole.
    pub last_success: Option<Timestamp>,
    /// Its name.
    pub backup: Option<String>,
    /// Its revision.
    pub revision: Option<i64>,
    /// The kind of the newest failure, if nothing succeeded since.
    pub failing: Option<&'static str>,
    /// Whether there was no success for too long.
    pub stale: bool,
    /// Whether the store did what it was last asked.
    pub store_up: Option<bool>,
    /// When a verification last found everything sound.
    pub verified: Option<Timestamp>,
    /// Backups that were found damaged since the daemon began.
    pub damaged: u64,
    /// The newest slot for which backups were read back, whatever came of it.
    #[serde(skip)]
    verification_slot: Option<Timestamp>,
}

/// A place, and what is known of it.
#[derive(Debug, Serialize)]
pub struct Line {
    cluster: String,
    repository: String,
    #[serde(flatten)]
    state: State,
}

fn place(cluster: &ClusterName, repository: &str) -> Place {
    Place { cluster: cluster.to_string(), repository: repository.to_owned() }
}

fn failed(place: &Place, failure: &Failure) -> Failed {
    let Place { cluster, repository } = place.clone();
    Failed { cluster, repository, reason: failure.reason }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_duration().as_secs_f64()
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Board {
    fn places(&self) -> MutexGuard<'_, BTreeMap<Place, State>> {
        // A panic while it was held leaves numbers, not an invariant.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a repository has.
    pub fn surveyed(&self, cluster: &ClusterName, repository: &str, survey: &Survey) {
        let place = place(cluster, repository);
        self.metrics.store_bytes.get_or_create(&place).set(gauge(survey.stored_bytes));
        self.metrics.store_backups.get_or_create(&place).set(gauge(survey.backups));
        self.metrics.create_only.get_or_create(&place).set(i64::from(survey.create_only));
        if let Some(newest) = &survey.newest {
            self.newest(&place, newest);
        }
        self.reached(&place, true);
    }

    fn newest(&self, place: &Place, newest: &Newest) {
        let metrics = &self.metrics;
        metrics.last_success.get_or_create(place).set(seconds(newest.finished));
        metrics.last_revision.get_or_create(place).set(newest.revision);
        metrics.size.get_or_create(place).set(gauge(newest.bytes));
        metrics.stored_size.get_or_create(place).set(gauge(newest.stored_bytes));
        let mut places = self.places();
        let state = places.entry(place.clone()).or_default();
        state.last_success = Some(newest.finished);
        state.backup = Some(newest.id.to_string());
        state.revision = Some(newest.revision);
    }

    fn reached(&self, place: &Place, up: bool) {
        self.metrics.store_up.get_or_create(place).set(i64::from(up));
        self.places().entry(place.clone()).or_default().store_up = Some(up);
    }

    /// A backup was made.
    pub fn made(&self, cluster: &ClusterName, repository: &str, made: &Made) {
        let place = place(cluster, repository);
        let Made { id, revision, finished, bytes, stored_bytes, .. } = *made;
        self.newest(&place, &Newest { id, revision, finished, bytes, stored_bytes });
        self.metrics.duration.get_or_create(&place).set(made.took.as_secs_f64());
        let cluster = OfCluster { cluster: cluster.to_string() };
        let differing = made.differing_members.len() as u64;
        self.metrics.differing.get_or_create(&cluster).set(gauge(differing));
        self.reached(&place, true);
        self.places().entry(place.clone()).or_default().failing = None;
        // Counted when all is said: whoever sees the count may look at the rest.
        self.metrics.backups.get_or_create(&place).inc();
    }

    /// An attempt failed.
    pub fn failed(&self, cluster: &ClusterName, repository: &str, failure: &Failure) {
        let place = place(cluster, repository);
        if failure.reason.is_of_store() {
            self.reached(&place, false);
        }
        let failing = Some(failure.reason.name());
        self.places().entry(place.clone()).or_default().failing = failing;
        self.metrics.failures.get_or_create(&failed(&place, failure)).inc();
    }

    /// A verification came to its end.
    pub fn verified(
        &self,
        cluster: &ClusterName,
        repository: &str,
        at: Timestamp,
        found: &Verified,
    ) {
        let place = place(cluster, repository);
        let damaged = found.damaged.len() as u64;
        self.metrics.verified.get_or_create(&place).inc_by(found.sound);
        self.metrics.damaged.get_or_create(&place).inc_by(damaged);
        let mut places = self.places();
        let state = places.entry(place.clone()).or_default();
        state.damaged += damaged;
        if damaged == 0 {
            self.metrics.last_verification.get_or_create(&place).set(seconds(at));
            state.verified = Some(at);
        }
    }

    /// The verification for that slot was tried to its end. New settings do not bring it back.
    pub fn verification_done(&self, cluster: &ClusterName, repository: &str, slot: Timestamp) {
        let place = place(cluster, repository);
        self.places().entry(place).or_default().verification_slot = Some(slot);
    }

    /// The newest slot for which that was so.
    pub fn verification_slot(&self, cluster: &ClusterName, repository: &str) -> Option<Timestamp> {
        self.places().get(&place(cluster, repository))?.verification_slot
    }

    /// A verification could not be done.
    pub fn unverified(&self, cluster: &ClusterName, repository: &str, failure: &Failure) {
        let failed = failed(&place(cluster, repository), failure);
        self.metrics.verification_failures.get_or_create(&failed).inc();
    }

    /// Retention was applied.
    pub fn pruned(&self, cluster: &ClusterName, repository: &str, at: Timestamp, pruned: &Pruned) {
        let place = place(cluster, repository);
        self.metrics.pruned.get_or_create(&place).inc_by(pruned.removed);
        self.metrics.locked.get_or_create(&place).set(gauge(pruned.locked));
        self.metrics.last_prune.get_or_create(&place).set(seconds(at));
    }

    /// Retention could not be applied.
    pub fn unpruned(&self, cluster: &ClusterName, repository: &str, failure: &Failure) {
        let failed = failed(&place(cluster, repository), failure);
        self.metrics.prune_failures.get_or_create(&failed).inc();
    }

    /// The store did not answer a survey.
    pub fn unsurveyed(&self, cluster: &ClusterName, repository: &str) {
        self.reached(&place(cluster, repository), false);
    }

    /// When the next backup starts.
    pub fn next_run(&self, cluster: &ClusterName, at: Timestamp) {
        let cluster = OfCluster { cluster: cluster.to_string() };
        self.metrics.next_run.get_or_create(&cluster).set(seconds(at));
    }

    /// A backup starts, or has ended.
    pub fn running(&self, cluster: &ClusterName, started: Option<Timestamp>) {
        let cluster = OfCluster { cluster: cluster.to_string() };
        self.metrics.running.get_or_create(&cluster).set(i64::from(started.is_some()));
        if let Some(at) = started {
            self.metrics.last_run.get_or_create(&cluster).set(seconds(at));
        }
    }

    /// Whether the place has become stale just now. `since` counts where there never was a success.
    pub fn becomes_stale(
        &self,
        cluster: &ClusterName,
        repository: &str,
        (now, since): (Timestamp, Timestamp),
        after: SignedDuration,
    ) -> bool {
        let place = place(cluster, repository);
        let mut places = self.places();
        let state = places.entry(place.clone()).or_default();
        let stale = now.duration_since(state.last_success.unwrap_or(since)) > after;
        let before = std::mem::replace(&mut state.stale, stale);
        self.metrics.stale.get_or_create(&place).set(i64::from(stale));
        stale && !before
    }

    /// Forgets the places that the settings name no more.
    pub fn retain(&self, known: impl Fn(&Place) -> bool) {
        let mut places = self.places();
        let gone: Vec<_> = places.keys().filter(|place| !known(place)).cloned().collect();
        for place in gone {
            places.remove(&place);
            self.metrics.forget(&place);
            if !places.keys().any(|other| other.cluster == place.cluster) {
                self.metrics.forget_cluster(&OfCluster { cluster: place.cluster });
            }
        }
    }

    /// What retention does not go below.
    pub fn keeps(&self, cluster: &ClusterName, repository: &str, min_backups: u32) {
        let place = place(cluster, repository);
        self.metrics.min_backups.get_or_create(&place).set(i64::from(min_backups));
    }

    /// Everything, for `/status`.
    pub fn lines(&self) -> Vec<Line> {
        let places = self.places();
        let line = |(place, state): (&Place, &State)| Line {
            cluster: place.cluster.clone(),
            repository: place.repository.clone(),
            state: state.clone(),
        };
        places.iter().map(line).collect()
    }

    /// The metrics, with ages as of now.
    pub fn scrape(&self, now: Timestamp) -> String {
        for (place, state) in &*self.places() {
            if let Some(last) = state.last_success {
                self.metrics.age.get_or_create(place).set(now.duration_since(last).as_secs_f64());
            }
        }
        self.metrics.text()
    }
}
