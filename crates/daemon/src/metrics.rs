//! What Prometheus scrapes.
//!
//! Names follow etcd's ecosystem: a unit at the end, base units only. Labels are names from the settings and the closed
//! list of [`FailureReason`]: never the text of an error, so their number is bounded by the settings.

use crate::jobs::FailureReason;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use std::{fmt::Write, sync::atomic::AtomicU64};

type Seconds = Gauge<f64, AtomicU64>;

/// A cluster in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct Place {
    /// The cluster.
    pub cluster: String,
    /// The repository.
    pub repository: String,
}

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCluster {
    /// Its name.
    pub cluster: String,
}

/// A failure somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Failed {
    /// The cluster.
    pub cluster: String,
    /// The repository.
    pub repository: String,
    /// Its kind.
    pub reason: FailureReason,
}

/// A hook that failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FailedHook {
    /// Its place in the settings, from 0: nothing else of a hook may be told.
    pub hook: u64,
    /// How: one of [`HookError::reason`](crate::hooks::HookError::reason), or `dropped`.
    pub reason: &'static str,
}

impl EncodeLabelValue for FailureReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.name())
    }
}

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) last_success: Family<Place, Seconds>,
    pub(crate) last_revision: Family<Place, Gauge>,
    pub(crate) age: Family<Place, Seconds>,
    pub(crate) size: Family<Place, Gauge>,
    pub(crate) stored_size: Family<Place, Gauge>,
    pub(crate) duration: Family<Place, Seconds>,
    pub(crate) backups: Family<Place, Counter>,
    pub(crate) failures: Family<Failed, Counter>,
    pub(crate) stale: Family<Place, Gauge>,
    pub(crate) differing: Family<OfCluster, Gauge>,
    pub(crate) verified: Family<Place, Counter>,
    pub(crate) damaged: Family<Place, Counter>,
    pub(crate) last_verification: Family<Place, Seconds>,
    pub(crate) verification_failures: Family<Failed, Counter>,
    pub(crate) pruned: Family<Place, Counter>,
    pub(crate) last_prune: Family<Place, Seconds>,
    pub(crate) prune_failures: Family<Failed, Counter>,
    pub(crate) locked: Family<Place, Gauge>,
    pub(crate) store_up: Family<Place, Gauge>,
    pub(crate) store_bytes: Family<Place, Gauge>,
    pub(crate) store_backups: Family<Place, Gauge>,
    pub(crate) create_only: Family<Place, Gauge>,
    pub(crate) min_backups: Family<Place, Gauge>,
    pub(crate) hook_failures: Family<FailedHook, Counter>,
    pub(crate) next_run: Family<OfCluster, Seconds>,
    pub(crate) last_run: Family<OfCluster, Seconds>,
    pub(crate) running: Family<OfCluster, Gauge>,
    pub(crate) reloads: Counter,
    pub(crate) reload_failures: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Self {
        let mut r = Registry::with_prefix("lifeboat");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("build", "The version that runs", build);
        Self {
            last_success: in_seconds(
                &mut r,
                "backup_last_success_timestamp",
                "When the newest backup was whole",
            ),
            last_revision: plain(
                &mut r,
                "backup_last_success_revision",
                "The newest backup's revision",
            ),
            age: in_seconds(&mut r, "backup_age", "Time since the newest backup was whole"),
            size: in_bytes(&mut r, "backup_size", "The newest backup's snapshot"),
            stored_size: in_bytes(
                &mut r,
                "backup_stored_size",
                "What is stored of the newest backup",
            ),
            duration: in_seconds(&mut r, "backup_duration", "How long the newest backup took"),
            backups: plain(&mut r, "backups", "Backups that this daemon has made"),
            failures: plain(&mut r, "backup_failures", "Attempts that failed, by reason"),
            stale: plain(&mut r, "backup_stale", "1 if there was no success for too long"),
            differing: plain(
                &mut r,
                "hashkv_differing_members",
                "Members that disagreed at the newest backup",
            ),
            verified: plain(
                &mut r,
                "verification_backups",
                "Backups that were read back and are sound",
            ),
            damaged: plain(
                &mut r,
                "verification_damaged_backups",
                "Backups that were found damaged",
            ),
            last_verification: in_seconds(
                &mut r,
                "verification_last_success_timestamp",
                "When a verification last found everything sound",
            ),
            verification_failures: plain(
                &mut r,
                "verification_failures",
                "Verifications that could not be done, by reason",
            ),
            pruned: plain(
                &mut r,
                "prune_removed_backups",
                "Backups that were deleted by retention",
            ),
            last_prune: in_seconds(
                &mut r,
                "prune_last_success_timestamp",
                "When pruning last went through",
            ),
            prune_failures: plain(&mut r, "prune_failures", "Prunings that failed, by reason"),
            locked: plain(
                &mut r,
                "prune_locked_objects",
                "Objects that the store would not let go at the newest pruning",
            ),
            store_up: plain(&mut r, "store_up", "1 if the store did what it was last asked"),
            store_bytes: in_bytes(
                &mut r,
                "store",
                "What all backups of the cluster take in the store",
            ),
            store_backups: plain(&mut r, "store_backups", "Backups of the cluster in the store"),
            create_only: plain(
                &mut r,
                "store_create_only",
                "1 if the store keeps two writers apart by itself",
            ),
            min_backups: plain(
                &mut r,
                "retention_min_backups",
                "Verified backups that retention does not go below",
            ),
            hook_failures: plain(
                &mut r,
                "hook_failures",
                "Events that a hook did not take, by reason",
            ),
            next_run: in_seconds(
                &mut r,
                "schedule_next_run_timestamp",
                "When the next backup starts",
            ),
            last_run: in_seconds(
                &mut r,
                "schedule_last_run_timestamp",
                "When the newest backup started",
            ),
            running: plain(&mut r, "backup_running", "1 while a backup runs"),
            reloads: plain(&mut r, "config_reloads", "Settings that were read again"),
            reload_failures: plain(
                &mut r,
                "config_reload_failures",
                "Settings that were refused when read again",
            ),
            registry: r,
        }
    }

    /// As text, in the OpenMetrics format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }

    /// Forgets what the settings name no more: an alert about it would never end.
    pub(crate) fn forget(&self, place: &Place) {
        for seconds in [
            &self.last_success,
            &self.age,
            &self.duration,
            &self.last_verification,
            &self.last_prune,
        ] {
            seconds.remove(place);
        }
        for gauge in [
            &self.last_revision,
            &self.size,
            &self.stored_size,
            &self.stale,
            &self.locked,
            &self.store_up,
            &self.store_bytes,
            &self.store_backups,
            &self.create_only,
            &self.min_backups,
        ] {
            gauge.remove(place);
        }
    }

    /// The same of a cluster.
    pub(crate) fn forget_cluster(&self, cluster: &OfCluster) {
        self.differing.remove(cluster);
        self.running.remove(cluster);
        self.next_run.remove(cluster);
        self.last_run.remove(cluster);
    }
}

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every scraper reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as whoever asks with that `Accept` wants them: their content type, and the text.
pub fn negotiated(openmetrics: String, accept: &str) -> (&'static str, String) {
    match accept.contains("application/openmetrics-text") {
        true => (OPENMETRICS, openmetrics),
        false => (TEXT_FORMAT, in_text_format(&openmetrics)),
    }
}

/// The same metrics in Prometheus' older text format, for who does not ask for OpenMetrics: there a counter's own name
/// ends in `_total`, an info is a gauge, and units and the end are not told.
fn in_text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help: Option<&str> = None;
    for line in openmetrics.lines() {
        let about = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '));
        if let Some((name, kind)) = about {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some(help) = help.take() {
                let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            }
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn plain<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn in_seconds<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}

fn in_bytes<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_what_alerts_are_written_for() {
        let metrics = Metrics::new();
        let place = Place { cluster: "prod".into(), repository: "disk".into() };
        metrics.last_success.get_or_create(&place).set(1.5);
        metrics.last_revision.get_or_create(&place).set(7);
        metrics.size.get_or_create(&place).set(8);
        metrics.store_bytes.get_or_create(&place).set(9);
        metrics.backups.get_or_create(&place).inc();
        let reason = FailureReason::StoreUnreachable;
        let failed = Failed { cluster: "prod".into(), repository: "disk".into(), reason };
        metrics.failures.get_or_create(&failed).inc();
        let text = metrics.text();
        for line in [
            r#"lifeboat_backup_last_success_timestamp_seconds{cluster="prod",repository="disk"} 1.5"#,
            r#"lifeboat_backup_last_success_revision{cluster="prod",repository="disk"} 7"#,
            r#"lifeboat_backup_size_bytes{cluster="prod",repository="disk"} 8"#,
            r#"lifeboat_store_bytes{cluster="prod",repository="disk"} 9"#,
            r#"lifeboat_backups_total{cluster="prod",repository="disk"} 1"#,
            r#"lifeboat_backup_failures_total{cluster="prod",repository="disk",reason="store-unreachable"} 1"#,
            "lifeboat_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn who_does_not_ask_for_openmetrics_gets_the_older_format() {
        let metrics = Metrics::new();
        let place = Place { cluster: "a # b".into(), repository: "disk".into() };
        metrics.backups.get_or_create(&place).inc();
        metrics.size.get_or_create(&place).set(8);
        let wanted = format!(
            "# HELP lifeboat_build_info The version that runs.
# TYPE lifeboat_build_info gauge
lifeboat_build_info{{version=\"{}\"}} 1
# HELP lifeboat_backup_size_bytes The newest backup's snapshot.
# TYPE lifeboat_backup_size_bytes gauge
lifeboat_backup_size_bytes{{cluster=\"a # b\",repository=\"disk\"}} 8
# HELP lifeboat_backups_total Backups that this daemon has made.
# TYPE lifeboat_backups_total counter
lifeboat_backups_total{{cluster=\"a # b\",repository=\"disk\"}} 1
",
            env!("CARGO_PKG_VERSION")
        );
        let text = in_text_format(&metrics.text());
        let text: Vec<_> = text.lines().filter(|line| !line.contains("config_reload")).collect();
        assert_eq!(text.join("\n") + "\n", wanted);
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            FailureReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), FailureReason::ALL.len());
    }
}
