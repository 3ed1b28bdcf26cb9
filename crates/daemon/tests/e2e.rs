//! The whole daemon with a real etcd: a backup in two repositories, one of which fails at first; new settings; the end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use daemon::{Signal, Signals};
use repository::{Repository, store::Store};
use std::{path::Path, time::Duration};
use testbed::{Cluster, Etcd, PATIENCE, Port, Security};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn settings(folder: &Path, endpoint: &str, port: u16, first_wait: &str) {
    let folder_text = folder.display();
    let yaml = format!(
        "clusters:
- name: prod
  endpoints: [{endpoint}]
  repositories: [sound, broken]
  schedule: {{cron: '0 0 1 1 *'}}
  verify: {{cron: '0 0 1 1 *', sample: 1/1}}
repositories:
- {{name: sound, url: '{folder_text}/sound', retention: {{keep-last: 2}}}}
- {{name: broken, url: '{folder_text}/broken'}}
spool: {folder_text}
http: {{listen: '127.0.0.1:{port}'}}
retries: {{attempts: 1000, first-wait: {first_wait}, longest-wait: {first_wait}}}
hooks:
- {{on: [success], command: [/bin/sh, -c, 'cat >> \"$0\"; echo >> \"$0\"', '{folder_text}/told']}}
log: {{level: warn}}
"
    );
    std::fs::write(folder.join("lifeboat.yaml"), yaml).unwrap();
}

async fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Waits until the page has that line.
async fn until(port: u16, path: &str, line: &str) -> String {
    let mut last = None;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            last = get(port, path).await;
            if let Some(page) = last.as_ref().filter(|page| page.contains(line)) {
                return page.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("{line:?} never came; the last was {last:?}"))
}

#[tokio::test]
async fn a_missed_backup_is_caught_up_also_where_the_store_fails_at_first() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    let folder = tempfile::tempdir().unwrap();
    // A file where the folder of a repository should be: until it is gone, that store fails.
    std::fs::write(folder.path().join("broken"), "in the way").unwrap();
    let held = Port::take();
    let port = held.number;
    settings(folder.path(), &cluster.client_url(0), port, "1s");
    let (signal, signals) = Signals::channel();
    let path = folder.path().join("lifeboat.yaml");
    let served = tokio::spawn(async move { daemon::serve(&path, signals).await });

    until(port, "/readyz", "ok").await;
    until(port, "/metrics", r#"lifeboat_backups_total{cluster="prod",repository="sound"} 1"#).await;
    let failing = until(
        port,
        "/metrics",
        r#"lifeboat_backup_failures_total{cluster="prod",repository="broken""#,
    )
    .await;
    assert!(
        failing.contains(r#"lifeboat_store_up{cluster="prod",repository="broken"} 0"#),
        "{failing}"
    );

    std::fs::remove_file(folder.path().join("broken")).unwrap();
    let metrics =
        until(port, "/metrics", r#"lifeboat_backups_total{cluster="prod",repository="broken"} 1"#)
            .await;
    assert!(
        metrics.contains(r#"lifeboat_backups_total{cluster="prod",repository="sound"} 1"#),
        "not made again"
    );
    let status = get(port, "/status").await.unwrap();
    assert!(
        status.contains(r#""repository":"sound""#) && status.contains(r#""store_up":true"#),
        "{status}"
    );

    // Settings that are wrong change nothing; good ones start anew, and nothing is due.
    let good = std::fs::read_to_string(folder.path().join("lifeboat.yaml")).unwrap();
    std::fs::write(folder.path().join("lifeboat.yaml"), "clusters: []\n").unwrap();
    signal.send(Signal::Reload).await.unwrap();
    until(port, "/metrics", "lifeboat_config_reload_failures_total 1").await;
    std::fs::write(folder.path().join("lifeboat.yaml"), good).unwrap();
    signal.send(Signal::Reload).await.unwrap();
    until(port, "/metrics", "lifeboat_config_reloads_total 1").await;

    signal.send(Signal::Stop).await.unwrap();
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    assert!(get(port, "/healthz").await.is_none(), "the port is closed");

    for name in ["sound", "broken"] {
        let repository = Repository::open(Store::local(folder.path().join(name))).await.unwrap();
        let listing = repository.backups(&"prod".parse().unwrap()).await.unwrap();
        assert_eq!(listing.backups.len(), 1, "{name}: one backup for one slot");
        assert!(listing.backups[0].manifest.scheduled_for.is_some());
    }
    let told = std::fs::read_to_string(folder.path().join("told")).unwrap();
    assert_eq!(
        told.lines().filter(|line| line.contains(r#""event":"success""#)).count(),
        2,
        "{told}"
    );
}

/// Goal: recipients that were lost from the settings make no open backup. Method: only the name of what is there is
/// looked at, so that it needs no content.
#[tokio::test]
async fn a_daemon_without_recipients_makes_no_open_backup_beside_encrypted_ones() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    let folder = tempfile::tempdir().unwrap();
    let sealed = folder.path().join("sound/prod/snapshots/00000000000000000001-20260101T000000Z");
    std::fs::create_dir_all(&sealed).unwrap();
    std::fs::write(sealed.join("db.zst.age"), "").unwrap();
    let held = Port::take();
    let port = held.number;
    settings(folder.path(), &cluster.client_url(0), port, "1s");
    let (signal, signals) = Signals::channel();
    let path = folder.path().join("lifeboat.yaml");
    let served = tokio::spawn(async move { daemon::serve(&path, signals).await });

    let made = r#"lifeboat_backups_total{cluster="prod",repository="broken"} 1"#;
    until(port, "/metrics", made).await;
    let refused = r#"repository="sound",reason="settings"} 1"#;
    until(port, "/metrics", refused).await;
    signal.send(Signal::Stop).await.unwrap();
    tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap().unwrap();
    let snapshots = std::fs::read_dir(folder.path().join("sound/prod/snapshots")).unwrap();
    assert_eq!(snapshots.count(), 1);
}
