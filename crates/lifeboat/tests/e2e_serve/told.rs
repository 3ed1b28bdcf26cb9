//! Failures stay where they are, and hooks tell of them.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use testbed::{Cluster, Etcd, Security, until};

use crate::{Daemon, Settings, listed, minutes_ago, text};

/// A receiver of webhooks, which keeps whole requests.
pub(crate) struct Webhook {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Webhook {
    pub(crate) fn start(path: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let kept = requests.clone();
        // It ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut request, mut buffer) = (String::new(), [0; 4096]);
                // An event is one JSON object at the end.
                while !request.ends_with('}') {
                    let read = stream.read(&mut buffer).unwrap();
                    assert!(read > 0, "half a request: {request}");
                    request += std::str::from_utf8(&buffer[..read]).unwrap();
                }
                kept.lock().unwrap().push(request);
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).unwrap();
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

#[test]
fn a_store_or_cluster_that_fails_disturbs_no_other_and_hooks_tell_success_failure_and_staleness() {
    let cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.write_sample();
    let webhook = Webhook::start("/hook");
    let cron = minutes_ago(60);
    let settings = Settings::new(&format!(
        "clusters:
- {{name: dead, endpoints: ['http://127.0.0.1:1'], repositories: [sound], stale-after: 1s, schedule: {{cron: '{cron}'}}}}
- {{name: prod, endpoints: ['{}'], repositories: [broken, sound], schedule: {{cron: '{cron}'}}}}
repositories:
- {{name: broken, url: FOLDER/broken}}
- {{name: sound, url: FOLDER/sound}}
spool: FOLDER/spool
retries: {{attempts: 1}}
http: {{listen: '127.0.0.1:0'}}
hooks:
- {{on: [success, failure, stale], command: [/bin/sh, -c, 'cat >> \"$0\"; echo >> \"$0\"', FOLDER/told]}}
- {{on: [failure, stale], webhook-file: FOLDER/url}}
- {{on: [success], command: [/bin/false]}}
",
        cluster.client_url(0)
    ));
    settings.secret("url", &webhook.url);
    // A file where the folder of a repository should be.
    std::fs::write(settings.path("broken"), "in the way").unwrap();
    let mut daemon = Daemon::start(&settings);
    daemon.until_metric(r#"lifeboat_backups_total{cluster="prod",repository="sound"} 1"#);
    daemon.until_metric(r#"lifeboat_backup_stale{cluster="dead",repository="sound"} 1"#);
    daemon.until_metric(r#"lifeboat_hook_failures_total{hook="2",reason="status"} 1"#);
    for line in [
        r#"lifeboat_store_up{cluster="prod",repository="broken"} 0"#,
        r#"lifeboat_store_up{cluster="prod",repository="sound"} 1"#,
        r#"lifeboat_backup_failures_total{cluster="dead",repository="sound",reason="cluster"} 1"#,
        r#"lifeboat_backup_stale{cluster="prod",repository="sound"} 0"#,
    ] {
        daemon.until_metric(line);
    }
    // What is counted is told a moment later.
    let told = || std::fs::read_to_string(settings.path("told")).unwrap_or_default();
    let all = || (told().lines().count() >= 4 && webhook.requests().len() >= 3).then_some(());
    until("every event", all, || {
        format!("{}\n{:?}\n{}", told(), webhook.requests(), daemon.said())
    });
    daemon.stop();
    assert_eq!(listed(text(&settings.path("sound")), None).len(), 1);

    let told: Vec<serde_json::Value> =
        told().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let has = |event: &str, cluster: &str, repository: &str| {
        let is = |e: &&serde_json::Value| {
            e["event"] == event && e["cluster"] == cluster && e["repository"] == repository
        };
        told.iter().filter(is).count()
    };
    assert_eq!(has("success", "prod", "sound"), 1, "{told:?}");
    assert_eq!(has("failure", "prod", "broken"), 1, "{told:?}");
    assert_eq!(has("failure", "dead", "sound"), 1, "{told:?}");
    assert_eq!(has("stale", "dead", "sound"), 1, "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
    let posted = webhook.requests();
    assert_eq!(posted.len(), 3, "{posted:?}");
    assert!(posted.iter().all(|r| r.starts_with("POST /hook ")), "{posted:?}");
}
