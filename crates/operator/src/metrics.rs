//! What Prometheus scrapes of the operator.
//!
//! Names are those of `lifeboat serve` where they mean the same. Labels are names of objects and a closed list of reasons:
//! never the text of an error.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use std::sync::atomic::AtomicU64;

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

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
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
    pub store_up: Family<Object, Gauge>,
    /// How many backups it has.
    pub store_backups: Family<Object, Gauge>,
    /// When a schedule is due next.
    pub next_run: Family<Object, Seconds>,
    /// When a schedule last succeeded.
    pub schedule_success: Family<Object, Seconds>,
    /// Objects that were looked at.
    pub reconciled: Family<OfKind, Counter>,
    /// Of these, those that could not be followed.
    pub reconcile_failures: Family<OfKind, Counter>,
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
            store_backups: plain(r, "store_backups", "Backups in the BackupStore"),
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
            reconciled: plain(r, "operator_reconciliations", "Objects that were looked at"),
            reconcile_failures: plain(
                r,
                "operator_reconciliation_failures",
                "Objects that could not be followed",
            ),
            registry,
        }
    }

    /// Says nothing more of a store.
    pub(crate) fn forget_store(&self, store: &Object) {
        self.store_up.remove(store);
        self.store_backups.remove(store);
    }

    /// All of them, as OpenMetrics has them.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string takes everything");
        text
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
