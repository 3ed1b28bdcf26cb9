//! What Prometheus scrapes of the operator.
//!
//! Names are those of `lifeboat serve` where they mean the same. Labels are names of objects and a closed list of reasons:
//! never the text of an error.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use std::{
    collections::HashSet,
    fmt,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

/// A cluster in a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Place {
    /// The object's namespace.
    pub namespace: String,
    /// The cluster's name in the store.
    pub cluster: String,
    /// The BackupStore.
    pub store: String,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failed {
    /// The object's namespace.
    pub namespace: String,
    /// The cluster's name in the store.
    pub cluster: String,
    /// The BackupStore.
    pub store: String,
    /// Its kind.
    pub reason: &'static str,
}

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Object {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfKind {
    /// Its name.
    pub kind: &'static str,
}

type Seconds = Gauge<f64, AtomicU64>;

/// What an EtcdBackupSchedule's status says. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ScheduleShown {
    /// Whether it is followed; none while it is suspended.
    pub is_ready: Option<bool>,
    /// When it was made.
    pub created: Option<f64>,
    /// When it is due next.
    pub next: Option<f64>,
    /// When it last succeeded.
    pub success: Option<f64>,
}

/// Objects that have series of their own, and how to find out whether there is such an object.
#[derive(Default)]
struct Shown {
    objects: HashSet<(&'static str, Object)>,
    is_there: Vec<(&'static str, IsThere)>,
}

type IsThere = Box<dyn Fn(&Object) -> bool + Send>;

impl Shown {
    /// Takes out those that are gone: nobody tells of an object that is removed.
    fn take_gone(&mut self) -> Vec<(&'static str, Object)> {
        let Self { objects, is_there } = self;
        let gone = objects.extract_if(|(kind, object)| {
            !is_there.iter().any(|(of, is_there)| of == kind && is_there(object))
        });
        gone.collect()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(f)
    }
}

const STORE: &str = "BackupStore";
const SCHEDULE: &str = "EtcdBackupSchedule";

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    shown: Mutex<Shown>,
    /// 1 while this process is the one that works.
    pub leader: Gauge,
    /// Backups that run in the operator now.
    pub running: Gauge,
    /// Backups that were made.
    pub backups: Family<Place, Counter>,
    /// Attempts that failed.
    pub failures: Family<Failed, Counter>,
    /// When the newest backup was whole.
    pub last_success: Family<Place, Seconds>,
    /// Its revision.
    pub last_revision: Family<Place, Gauge>,
    /// Its snapshot's size.
    pub size: Family<Place, Gauge>,
    /// How long it took.
    pub duration: Family<Place, Seconds>,
    /// Backups that retention has deleted.
    pub pruned: Family<Place, Counter>,
    /// 1 if a store is reachable and writable.
    store_up: Family<Object, Gauge>,
    /// 1 if a private key is here that opens what is encrypted now, 0 if there is only another one.
    store_key_fits: Family<Object, Gauge>,
    /// How many backups it has.
    store_backups: Family<Object, Gauge>,
    /// When a schedule is due next.
    next_run: Family<Object, Seconds>,
    /// When a schedule last succeeded.
    schedule_success: Family<Object, Seconds>,
    /// When it was made.
    schedule_created: Family<Object, Seconds>,
    /// 1 if it is followed, and its last backup was made.
    schedule_ready: Family<Object, Gauge>,
    /// Objects that were looked at.
    pub reconciled: Family<OfKind, Counter>,
    /// Of these, those that could not be followed.
    pub reconcile_failures: Family<OfKind, Counter>,
    /// Watches that failed.
    pub watch_failures: Family<OfKind, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("lifeboat");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version that runs", build);
        let r = &mut registry;
        Self {
            leader: plain(r, "operator_leader", "1 while this process is the one that works"),
            running: plain(r, "operator_backups_running", "Backups that run in the operator now"),
            backups: plain(r, "backups", "Backups that were made"),
            failures: plain(r, "backup_failures", "Attempts that failed, by reason"),
            last_success: in_unit(
                r,
                "backup_last_success_timestamp",
                "When the newest backup was whole",
                Unit::Seconds,
            ),
            last_revision: plain(r, "backup_last_success_revision", "The newest backup's revision"),
            size: in_unit(r, "backup_size", "The newest backup's snapshot", Unit::Bytes),
            duration: in_unit(
                r,
                "backup_duration",
                "How long the newest backup took",
                Unit::Seconds,
            ),
            pruned: plain(r, "prune_removed_backups", "Backups that were deleted by retention"),
            store_up: plain(r, "store_up", "1 if the BackupStore is reachable and writable"),
            store_key_fits: plain(
                r,
                "store_key_fits",
                "1 if the BackupStore's private key opens what is encrypted now; 0 if it does not",
            ),
            store_backups: plain(
                r,
                "store_backups",
                "Backups in the BackupStore when it was last looked at",
            ),
            next_run: in_unit(
                r,
                "schedule_next_run_timestamp",
                "When an EtcdBackupSchedule is due next",
                Unit::Seconds,
            ),
            schedule_success: in_unit(
                r,
                "schedule_last_success_timestamp",
                "When a backup of an EtcdBackupSchedule was last whole",
                Unit::Seconds,
            ),
            schedule_created: in_unit(
                r,
                "schedule_created_timestamp",
                "When an EtcdBackupSchedule was made",
                Unit::Seconds,
            ),
            schedule_ready: plain(
                r,
                "schedule_ready",
                "1 if an EtcdBackupSchedule is followed; 0 if its spec or its store does not allow that, or its last backup failed",
            ),
            watch_failures: plain(
                r,
                "operator_watch_failures",
                "Times that objects could not be watched",
            ),
            reconciled: plain(r, "operator_reconciliations", "Objects that were looked at"),
            reconcile_failures: plain(
                r,
                "operator_reconciliation_failures",
                "Objects that could not be followed",
            ),
            registry,
            shown: Mutex::default(),
        }
    }

    /// Says how to find out whether there is an object of a kind.
    pub(crate) fn follow(
        &self,
        kind: &'static str,
        is_there: impl Fn(&Object) -> bool + Send + 'static,
    ) {
        self.shown().is_there.push((kind, Box::new(is_there)));
    }

    /// Shows a store. Nothing is said of keys where there are none to compare.
    pub(crate) fn show_store(
        &self,
        store: &Object,
        is_up: bool,
        backups: Option<u64>,
        key_fits: Option<bool>,
    ) {
        self.shown().objects.insert((STORE, store.clone()));
        set(&self.store_up, store, Some(i64::from(is_up)));
        set(&self.store_key_fits, store, key_fits.map(i64::from));
        set(&self.store_backups, store, backups.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
    }

    /// Shows a schedule.
    pub(crate) fn show_schedule(&self, schedule: &Object, shown: ScheduleShown) {
        self.shown().objects.insert((SCHEDULE, schedule.clone()));
        set(&self.schedule_ready, schedule, shown.is_ready.map(i64::from));
        set_seconds(&self.schedule_created, schedule, shown.created);
        set_seconds(&self.next_run, schedule, shown.next);
        set_seconds(&self.schedule_success, schedule, shown.success);
    }

    /// Shows what is known of a cluster before this process has backed it up: counters begin with 0, not with their first rise.
    pub(crate) fn begin(&self, place: &Place, success: Option<f64>, revision: Option<i64>) {
        drop(self.backups.get_or_create(place));
        let Some(success) = success else { return };
        let known = self.last_success.get_or_create(place).get();
        if known < success {
            self.last_success.get_or_create(place).set(success);
            if let Some(revision) = revision {
                self.last_revision.get_or_create(place).set(revision);
            }
        }
    }

    fn forget_gone(&self) {
        for (kind, object) in self.shown().take_gone() {
            if kind == STORE {
                self.store_up.remove(&object);
                self.store_key_fits.remove(&object);
                self.store_backups.remove(&object);
            } else {
                self.schedule_ready.remove(&object);
                for family in [&self.schedule_created, &self.next_run, &self.schedule_success] {
                    family.remove(&object);
                }
            }
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, as OpenMetrics has them.
    pub fn text(&self) -> String {
        self.forget_gone();
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
    }
}

/// Sets a gauge, or takes it away.
fn set(family: &Family<Object, Gauge>, object: &Object, value: Option<i64>) {
    match value {
        Some(value) => drop(family.get_or_create(object).set(value)),
        None => drop(family.remove(object)),
    }
}

fn set_seconds(family: &Family<Object, Seconds>, object: &Object, value: Option<f64>) {
    match value {
        Some(value) => drop(family.get_or_create(object).set(value)),
        None => drop(family.remove(object)),
    }
}

fn plain<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Default + Clone,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn in_unit<M>(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> M
where
    M: prometheus_client::registry::Metric + Default + Clone,
{
    let metric = M::default();
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_has_no_series_and_so_no_alerts() {
        let metrics = Metrics::new();
        let object = |name: &str| Object { namespace: "prod".to_owned(), name: name.to_owned() };
        for name in ["there", "gone"] {
            let shown =
                ScheduleShown { is_ready: Some(false), created: Some(1.0), ..Default::default() };
            metrics.show_schedule(&object(name), shown);
            metrics.show_store(&object(name), true, None, Some(false));
        }
        for kind in [STORE, SCHEDULE] {
            metrics.follow(kind, |_| false);
            metrics.follow(kind, |object| object.name == "there");
        }
        let text = metrics.text();
        for series in
            ["schedule_ready", "schedule_created_timestamp_seconds", "store_up", "store_key_fits"]
        {
            let series = format!("lifeboat_{series}{{namespace=\"prod\",name=\"there\"}}");
            assert!(text.contains(&series), "{series} is not in {text}");
        }
        assert!(!text.contains("gone\""), "{text}");
        let suspended = ScheduleShown::default();
        metrics.show_schedule(&object("there"), suspended);
        assert!(!metrics.text().contains("lifeboat_schedule_ready{"));
    }
}
