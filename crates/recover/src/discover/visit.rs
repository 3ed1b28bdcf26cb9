//! Hosts, visited over ssh: each runs the script once, and once more if it named files that turned out to matter.

use super::finding::Finding;
use super::gather::{ANSWER_BYTES_MAX, Gathered, script};
use super::host::{HostReport, examine};
use crate::host::{Connections, Remote};
use crate::spec::{ClusterName, Host, Spec, Ssh};
use std::io;
use tokio::task::JoinSet;

/// Visits all hosts at once. One that does not answer has a report that says so. In the order of `hosts`.
pub async fn visit(ssh: &Ssh, hosts: &[String]) -> io::Result<Vec<HostReport>> {
    let connections = Connections::new()?;
    let spec = Spec {
        cluster: ClusterName::default(),
        backup: None,
        ssh: ssh.clone(),
        etcd: Default::default(),
        clients: Vec::new(),
        hosts: hosts.iter().map(|host| Host { host: host.clone(), ..Host::default() }).collect(),
    };
    let mut visits = JoinSet::new();
    for (number, host) in spec.resolved().iter().enumerate() {
        let (remote, host) = (connections.remote(number, host), host.host.clone());
        visits.spawn(async move { (number, look(&remote, host).await) });
    }
    let mut reports = visits.join_all().await;
    reports.sort_by_key(|(number, _)| *number);
    Ok(reports.into_iter().map(|(_, report)| report).collect())
}

async fn look(remote: &Remote, host: String) -> HostReport {
    let first = ask(remote, &host, &[]).await;
    match first {
        Ok(report) if report.wanted.is_empty() => report,
        Ok(report) => match ask(remote, &host, &report.wanted).await {
            Ok(second) => second,
            Err(_) => report,
        },
        Err(why) => {
            let finding = Finding::Unreachable { host: host.clone(), why };
            HostReport { host, findings: vec![finding], ..HostReport::default() }
        }
    }
}

async fn ask(remote: &Remote, host: &str, more: &[String]) -> Result<HostReport, String> {
    let text = script(more.iter().map(String::as_str));
    let answer = remote.script(&text).await.map_err(|error| error.to_string())?;
    if u64::try_from(answer.len()).unwrap_or(u64::MAX) > ANSWER_BYTES_MAX {
        return Err("its answer is too long".to_owned());
    }
    let gathered = Gathered::parse(&answer).map_err(|error| error.to_string())?;
    Ok(examine(host, &gathered))
}
