//! Backups by schedule, retention, verification, and settings that are read again.

use std::io::Write;
use std::process::{Command, Stdio};

use testbed::{Cluster, Etcd, S3, Security};

use crate::{ADMIN, Daemon, Settings, listed, minutes_ago, text};

fn two_places(cluster: &Cluster, s3: &S3, cron: &str, more: &str) -> String {
    format!(
        "clusters:
- name: prod
  endpoints: [{}]
  repositories: [disk, bucket]
  schedule: {{cron: '{cron}'}}
{more}
repositories:
- {{name: disk, url: FOLDER/repo, retention: {{keep-last: 2, min-backups: 2}}}}
- {{name: bucket, url: '{}', retention: {{keep-last: 2}}, {ADMIN}}}
spool: FOLDER/spool
retries: {{attempts: 1}}
http: {{listen: '127.0.0.1:0'}}
",
        cluster.client_url(0),
        s3.url("serve")
    )
}

/// What Prometheus's own tool thinks of metrics.
#[track_caller]
fn assert_scrapable(metrics: &str) {
    let promtool = std::env::var_os("LIFEBOAT_PROMTOOL").expect("tools/install.sh test says where");
    let mut promtool = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{metrics}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn each_slot_becomes_a_backup_in_each_repository_and_is_pruned_verified_and_told() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.write_sample();
    let s3 = S3::start();
    let settings = Settings::new(&two_places(&cluster, &s3, &minutes_ago(500), ""));
    settings.admin();
    let mut daemon = Daemon::start(&settings);
    let places = ["bucket", "disk"];
    let counted = |metric: &str, number: u32| {
        for place in places {
            daemon.until_metric(&format!(
                r#"lifeboat_{metric}{{cluster="prod",repository="{place}"}} {number}"#
            ));
        }
    };
    counted("backups_total", 1);
    assert_eq!(daemon.ask("/healthz", &[]), (200, "ok\n".to_owned()));
    assert_eq!(daemon.ask("/readyz", &[]), (200, "ok\n".to_owned()));

    let last_slot = minutes_ago(300);
    for (number, cron) in [(2, &minutes_ago(400)), (3, &last_slot)] {
        cluster.put("/changes", &number.to_string());
        daemon.reload(&settings, &two_places(&cluster, &s3, cron, ""));
        counted("backups_total", number);
    }
    counted("prune_removed_backups_total", 1);

    // The slot is done, so new settings that only add a verification make no other backup.
    let verify = "  verify: {cron: '* * * * *', sample: 1/1}";
    daemon.reload(&settings, &two_places(&cluster, &s3, &last_slot, verify));
    counted("verification_last_success_timestamp_seconds", 1);
    let metrics = daemon.metrics();
    for part in [
        "lifeboat_config_reloads_total 3",
        r#"lifeboat_retention_min_backups{cluster="prod",repository="disk"} 2"#,
        r#"lifeboat_retention_min_backups{cluster="prod",repository="bucket"} 1"#,
        r#"lifeboat_store_create_only{cluster="prod",repository="bucket"} 1"#,
        r#"lifeboat_backup_running{cluster="prod"} 0"#,
    ] {
        assert!(metrics.contains(part), "{part} is not in\n{metrics}");
    }
    assert!(!metrics.contains("failures_total{"), "nothing failed\n{metrics}\n{}", daemon.said());
    assert_scrapable(&metrics);
    let accept = ["--header", "accept: application/openmetrics-text;version=1.0.0"];
    assert!(daemon.ask("/metrics", &accept).1.ends_with("# EOF\n"));

    let (_, status) = daemon.ask("/status", &[]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let disk = listed(text(&settings.path("repo")), None);
    let bucket = listed(&s3.url("serve"), Some(&s3));
    for (place, backups) in [(0, &bucket), (1, &disk)] {
        let newest = backups.iter().map(|b| b["manifest"]["id"].as_str().unwrap()).max();
        assert_eq!(backups.len(), 2, "{backups:?}");
        assert_eq!(status[place]["repository"], places[place]);
        assert_eq!(status[place]["backup"].as_str(), newest);
        assert!(status[place]["verified"].is_string(), "{status}");
        assert!(backups.iter().all(|b| b["manifest"]["scheduled_for"].is_string()));
    }
    daemon.stop();
    assert_eq!(std::fs::read_dir(settings.path("spool")).unwrap().count(), 0);
}

#[test]
fn wrong_settings_are_refused_and_right_ones_taken_and_what_is_left_out_is_forgotten() {
    let yaml = |names: &str| {
        let mut yaml = "clusters:\n".to_owned();
        for name in names.split(' ') {
            yaml += &format!(
                "- {{name: {name}, endpoints: ['http://127.0.0.1:1'], repositories: [disk], schedule: {{cron: '{}'}}}}\n",
                minutes_ago(90)
            );
        }
        yaml + "repositories: [{name: disk, url: FOLDER/repo}]\nretries: {attempts: 1}\n"
            + "http: {listen: '127.0.0.1:0'}\n"
    };
    let settings = Settings::new(&yaml("one two"));
    let mut daemon = Daemon::start(&settings);
    let failed = |name: &str| {
        daemon.until_metric(&format!(
            r#"lifeboat_backup_failures_total{{cluster="{name}",repository="disk",reason="cluster"}}"#
        ));
    };
    failed("one");
    failed("two");
    let metrics = daemon.metrics();
    assert!(!metrics.contains("Connection") && !metrics.contains("127.0.0.1"), "{metrics}");

    daemon.reload(&settings, "clusters: []\nrepositories: []\n");
    daemon.until_metric("lifeboat_config_reload_failures_total 1");
    daemon.reload(&settings, "clusters: [\n");
    daemon.until_metric("lifeboat_config_reload_failures_total 2");
    daemon.until_said("new settings were refused; the old ones stay");
    assert!(daemon.ask("/status", &[]).1.contains(r#""cluster":"two""#));
    assert_eq!(daemon.ask("/readyz", &[]).0, 200);

    daemon.reload(&settings, &(yaml("one three") + "log: {level: debug}\n"));
    failed("three");
    daemon.until_said("another log.format or log.level is taken only by a restart");
    let (metrics, status) = (daemon.metrics(), daemon.ask("/status", &[]).1);
    assert!(!status.contains(r#""two""#) && status.contains(r#""three""#), "{status}");
    let gauge = r#"lifeboat_store_up{cluster="two""#;
    assert!(!metrics.contains(gauge), "its alerts would never end\n{metrics}");
    daemon.stop();
}
