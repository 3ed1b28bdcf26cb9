//! What may not change in a cluster's file while a run goes on, and what has.
//!
//! A run executes the plan that it was begun with. How hosts are reached and who asks etcd may be corrected meanwhile; anything else
//! that is written differently would be silently ignored, so it is told.

use crate::spec::{Backup, Resolved, Spec};
use serde::Serialize;
use std::path::PathBuf;

/// What a file says differently from the one that a run was begun with, a line each.
pub fn changes(begun_with: &Spec, now: &Spec) -> Vec<String> {
    let mut changes = Changes(Vec::new());
    let (old, new) = (begun_with.resolved(), now.resolved());
    for host in &old {
        match new.iter().find(|other| other.label == host.label) {
            Some(other) => changes.of_host(host, other),
            None => changes.0.push(format!("{} is not in it any more", host.label)),
        }
    }
    for host in &new {
        if !old.iter().any(|other| other.label == host.label) {
            changes.0.push(format!("{} is new in it", host.label));
        }
    }
    let order =
        |hosts: &[Resolved]| hosts.iter().map(|host| host.label.clone()).collect::<Vec<_>>();
    if changes.0.is_empty() {
        changes.compare("the order of hosts", &order(&old), &order(&new));
    }
    changes.compare("etcd.version", &begun_with.etcd.version, &now.etcd.version);
    // Where nothing is said, it is the backup that the run was begun with.
    if let Some(now) = &now.backup {
        changes.of_backup(&begun_with.backup.clone().unwrap_or_default(), now);
    }
    changes.0
}

struct Changes(Vec<String>);

impl Changes {
    fn compare<T: Serialize + PartialEq>(&mut self, what: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(format!("{what} was {}, and is {}", shown(old), shown(new)));
        }
    }

    fn of_host(&mut self, old: &Resolved, new: &Resolved) {
        let at = |what: &str| format!("{}: {what}", old.label);
        self.compare(&at("host"), &old.host, &new.host);
        self.compare(&at("member"), &old.member, &new.member);
        self.compare(&at("ssh.state-dir"), &old.state_dir, &new.state_dir);
        self.compare(&at("etcd.data-dir"), &old.data_dir, &new.data_dir);
        self.compare(&at("etcd.wal-dir"), &old.wal_dir, &new.wal_dir);
        self.compare(&at("etcd.owner"), &old.owner, &new.owner);
        self.compare(&at("etcd.service"), &old.service, &new.service);
        self.compare(&at("clients"), &old.clients, &new.clients);
    }

    fn of_backup(&mut self, old: &Backup, new: &Backup) {
        // How a store is reached may be corrected, as where its CA is.
        let place = |backup: &Backup| -> Option<String> {
            Some(backup.repo.as_ref()?.split('?').next().unwrap_or_default().to_owned())
        };
        self.compare("backup.repo", &place(old), &place(new));
        self.compare::<Option<PathBuf>>("backup.file", &old.file, &new.file);
        self.compare("backup.at", &old.at, &new.at);
        self.compare("backup.cluster", &old.cluster, &new.cluster);
    }
}

/// A value as the file could have it.
fn shown<T: Serialize>(value: &T) -> String {
    match serde_json::to_string(value).expect("a value of ours is JSON").as_str() {
        "null" => "not said".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "cluster: prod
backup: {repo: 's3://b/etcd?ca=/old.pem', at: newest}
ssh: {user: root}
etcd: {owner: 'etcd:etcd', version: '3.5'}
clients: [{systemd: kube-apiserver}]
hosts:
- {host: h1, member: {name: m1, peer-urls: ['http://h1:2380']}}
- {host: h2, member: {name: m2, peer-urls: ['http://h2:2380']}}
";

    fn changed(from: &str, to: &str) -> String {
        assert!(FILE.contains(from), "{from}");
        let parse = |text: &str| Spec::parse(text).unwrap();
        changes(&parse(FILE), &parse(&FILE.replace(from, to))).join("\n")
    }

    #[test]
    fn whatever_the_plan_was_made_of_is_told_if_it_changes() {
        for (from, to, told) in [
            (
                "etcd:etcd",
                "root:root",
                "m1: etcd.owner was \"etcd:etcd\", and is \"root:root\"\nm2: ",
            ),
            (
                "etcd: {",
                "etcd: {data-dir: /data, ",
                "m1: etcd.data-dir was \"/var/lib/etcd\", and is \"/data\"",
            ),
            ("etcd: {", "etcd: {wal-dir: /wal, ", "m1: etcd.wal-dir was not said, and is \"/wal\""),
            (
                "etcd: {",
                "etcd: {service: {systemd: x}, ",
                "m1: etcd.service was {\"systemd\":\"etcd\"}",
            ),
            ("'3.5'", "'3.4'", "etcd.version was \"3.5\", and is \"3.4\""),
            ("newest", "revision:7", "backup.at was \"newest\", and is \"revision:7\""),
            ("s3://b/", "s3://c/", "backup.repo was \"s3://b/etcd\", and is \"s3://c/etcd\""),
            ("user: root", "state-dir: /opt", "m1: ssh.state-dir was \"/var/lib/lifeboat\""),
            ("host: h1", "host: h9", "m1: host was \"h1\", and is \"h9\""),
            ("http://h1:2380", "http://h1:2381", "m1: member was "),
            ("name: m2", "name: m9", "m2 is not in it any more\nm9 is new in it"),
            ("kube-apiserver", "kubelet, restart: true", "m1: clients was "),
        ] {
            let changed = changed(from, to);
            assert!(changed.starts_with(told), "{told} not in\n{changed}");
        }
    }

    #[test]
    fn how_hosts_are_reached_and_who_asks_may_change() {
        for (from, to) in [
            ("user: root", "user: admin, port: 2222, options: [ProxyJump=b]"),
            ("etcd: {", "etcd: {user: root, password-file: /etc/pw, certificates: {ca: /ca.pem}, "),
            ("/old.pem", "/new.pem"),
        ] {
            assert_eq!(changed(from, to), "");
        }
    }
}
