//! Secrets stay secret, whatever is logged, asked, told or failing.

use std::io::Write;
use std::process::{Command, Stdio};

use testbed::{Cluster, Etcd, Identity, Run, S3, Security, until};

use crate::told::Webhook;
use crate::{ADMIN, Daemon, Settings, minutes_ago, text};

const PASSWORD: &str = "etcd-password-91c6e03b5d";
const TOKEN: &str = "bearer-token-0b7d51a9c4";
const HOOK_PATH: &str = "/hook-secret-77a1d04f2e";
const HOOK_TOKEN: &str = "hook-token-5e20c8b613";
const PASSPHRASE: &str = "passphrase-4d81f0c2e7 of nobody";

/// An identity that a passphrase protects, and its recipient. `age -p` asks on a terminal, which `script` gives it.
fn keys(settings: &Settings) -> (String, String) {
    let plain = settings.path("identity");
    Run::of(Command::new("age-keygen").arg("-o").arg(&plain)).ok();
    let recipient = Run::of(Command::new("age-keygen").arg("-y").arg(&plain)).ok().stdout;
    let protected = settings.path("identity.age");
    let command = format!("age -p -o {} {}", text(&protected), text(&plain));
    let mut script = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut terminal = script.stdin.take().unwrap();
    write!(terminal, "{PASSPHRASE}\n{PASSPHRASE}\n").unwrap();
    assert!(script.wait().unwrap().success());
    let secret = std::fs::read_to_string(&plain).unwrap();
    let secret = secret.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap();
    (secret.to_owned(), recipient.trim().to_owned())
}

#[test]
fn no_secret_is_logged_served_told_or_among_arguments_also_when_everything_fails() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.write_sample();
    cluster.etcdctl(["user", "add", &format!("root:{PASSWORD}")]);
    cluster.etcdctl(["user", "grant-role", "root", "root"]);
    cluster.etcdctl(["auth", "enable"]);
    let s3 = S3::start();
    let webhook = Webhook::start(HOOK_PATH);
    let settings = Settings::new("");
    let (identity, recipient) = keys(&settings);
    for (name, secret) in [
        ("password", PASSWORD),
        ("token", TOKEN),
        ("passphrase", PASSPHRASE),
        ("url", &webhook.url),
        ("hook-token", HOOK_TOKEN),
    ] {
        settings.secret(name, secret);
    }
    settings.admin();
    let yaml = |minutes: i64| {
        format!(
            "clusters:
- name: prod
  endpoints: ['{}']
  user: root
  password-file: FOLDER/password
  repositories: [bucket]
  schedule: {{cron: '{}'}}
  verify: {{cron: '* * * * *', sample: 1/1}}
repositories:
- name: bucket
  url: '{}'
  {ADMIN}
  recipients: [{recipient}]
  identities: [FOLDER/identity.age]
  passphrase-file: FOLDER/passphrase
spool: FOLDER/spool
retries: {{attempts: 1}}
http: {{listen: '127.0.0.1:0', token-file: FOLDER/token}}
hooks:
- {{on: [success, failure], command: [/bin/sh, -c, 'cat >> \"$0\"; echo >> \"$0\"', FOLDER/told]}}
- {{on: [success, failure], webhook-file: FOLDER/url, bearer-file: FOLDER/hook-token}}
log: {{level: trace}}
",
            cluster.client_url(0),
            minutes_ago(minutes),
            s3.url("serve")
        )
    };
    settings.write(&yaml(500));
    let mut daemon = Daemon::start(&settings);
    // By a file: what a test says must not look like what a daemon says.
    let header = settings.path("header");
    std::fs::write(&header, format!("authorization: Bearer {TOKEN}\n")).unwrap();
    daemon.curl = vec!["--header".to_owned(), format!("@{}", text(&header))];
    let mut seen = Vec::new();
    daemon.until_metric(r#"lifeboat_backups_total{cluster="prod",repository="bucket"} 1"#);
    daemon.reload(&settings, &yaml(450));
    daemon.until_metric(r#"lifeboat_backups_total{cluster="prod",repository="bucket"} 2"#);
    daemon.until_metric(r#"lifeboat_verification_last_success_timestamp_seconds{cluster="prod""#);
    seen.push(daemon.metrics());

    // A password that is wrong, then credentials that are, then a hook that is gone.
    settings.secret("password", &format!("x{PASSWORD}"));
    daemon.reload(&settings, &yaml(400));
    let failed = r#"lifeboat_backup_failures_total{cluster="prod",repository="bucket",reason="#;
    daemon.until_metric(&format!("{failed}\"cluster\"}} 1"));
    // It is counted before it is told, and is to be told where the first ones were.
    let posted = || Some(webhook.requests()).filter(|requests| requests.len() == 3);
    let posted = until("three events", posted, || daemon.said());
    settings.secret("password", PASSWORD);
    settings.secret("s3-id", Identity::WrongSecret.access_key());
    settings.secret("s3-secret", Identity::WrongSecret.secret());
    settings.secret("url", &format!("http://127.0.0.1:1{HOOK_PATH}"));
    daemon.reload(&settings, &yaml(350));
    daemon.until_metric(&format!("{failed}\"store-denied\"}} 1"));
    daemon.until_metric(r#"lifeboat_hook_failures_total{hook="1",reason="unreachable"} 1"#);
    settings.secret("passphrase", &format!("x{PASSPHRASE}"));
    daemon.signal("HUP");
    daemon.until_metric("lifeboat_config_reload_failures_total 1");

    assert!(posted.iter().all(|r| r.contains(HOOK_PATH) && r.contains(HOOK_TOKEN)));
    seen.extend(posted.iter().map(|r| r.split_once("\r\n\r\n").unwrap().1.to_owned()));
    seen.push(daemon.metrics());
    seen.push(daemon.ask("/status", &[]).1);
    let process = format!("/proc/{}", daemon.process.id());
    seen.push(std::fs::read_to_string(format!("{process}/cmdline")).unwrap());
    seen.push(std::fs::read_to_string(format!("{process}/environ")).unwrap());
    daemon.stop();
    assert!(daemon.said().contains(" TRACE "), "all is logged that can be");
    seen.push(daemon.said());
    seen.push(std::fs::read_to_string(settings.path("told")).unwrap());
    for key in s3.list("serve") {
        seen.push(String::from_utf8_lossy(&s3.get(&key)).into_owned());
    }
    assert!(seen.iter().all(|text| !text.is_empty()));
    for secret in [
        PASSWORD,
        TOKEN,
        HOOK_PATH,
        HOOK_TOKEN,
        PASSPHRASE,
        &identity,
        Identity::Admin.secret(),
        Identity::WrongSecret.secret(),
    ] {
        for text in &seen {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret:?} was said");
        }
    }
}
