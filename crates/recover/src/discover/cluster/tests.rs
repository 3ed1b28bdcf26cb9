use super::*;
use crate::discover::Gathered;
use crate::discover::host::examine;
use crate::spec::{Certificates, Client, Service};
use proptest::prelude::*;
use std::path::Path;

/// A host with etcd as a unit of these flags.
fn with_flags(host: &str, flags: &str) -> HostReport {
    let answer = format!(
        "@system\n|hostname={host}\n@unit etcd.service\n|[Service]\n|ExecStart=/usr/bin/etcd --data-dir=/var/lib/etcd {flags}\n@dir /var/lib/etcd\n|member=yes\n@version /usr/bin/etcd\n|etcd Version: 3.5.16\n@end\n"
    );
    examine(host, &Gathered::parse(&answer).unwrap())
}

fn three() -> Vec<HostReport> {
    let all = "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380,m3=http://10.0.0.3:2380";
    let report = |n: u8| {
        let own = format!(
            "--name=m{n} --initial-advertise-peer-urls=http://10.0.0.{n}:2380 --advertise-client-urls=http://10.0.0.{n}:2379 --initial-cluster={all}"
        );
        with_flags(&format!("10.0.0.{n}"), &own)
    };
    (1..=3).map(report).collect()
}

fn found(hosts: Vec<HostReport>, known: Option<Known>) -> Discovery {
    combine(&Sources { cluster: Some("prod".parse().unwrap()), hosts, known, ..Sources::default() })
}

fn texts(discovery: &Discovery) -> Vec<String> {
    discovery.findings.iter().map(ToString::to_string).collect()
}

fn known(members: &[(&str, &str)]) -> Known {
    let member = |(name, url): &(&str, &str)| KnownMember {
        name: (*name).to_owned(),
        peer_urls: vec![(*url).to_owned()],
        client_urls: vec![url.replace(":2380", ":2379")],
        learner: false,
    };
    Known { said_by: "the backup".to_owned(), members: members.iter().map(member).collect() }
}

#[test]
fn three_hosts_make_a_whole_description_that_says_once_what_is_the_same() {
    let discovery = found(three(), None);
    assert_eq!(texts(&discovery), [""; 0]);
    let spec = &discovery.spec;
    assert_eq!(spec.check(), []);
    assert_eq!(spec.etcd.data_dir.as_deref(), Some(Path::new("/var/lib/etcd")));
    assert_eq!(spec.etcd.version.as_deref(), Some("3.5"));
    assert_eq!(spec.hosts[2].etcd, Etcd::default());
    let member = spec.hosts[2].member.as_ref().unwrap();
    assert_eq!(member.name, "m3");
    assert_eq!(member.peer_urls, ["http://10.0.0.3:2380"]);
    assert_eq!(member.client_urls, ["http://10.0.0.3:2379"]);
}

#[test]
fn kubeadms_growing_lists_are_no_contradiction_but_other_urls_are() {
    let flags = |n: u8, cluster: &str| {
        format!(
            "--name=m{n} --initial-advertise-peer-urls=http://h{n}:2380 --initial-cluster={cluster}"
        )
    };
    let first = with_flags("h1", &flags(1, "m1=http://h1:2380"));
    let second = with_flags("h2", &flags(2, "m1=http://h1:2380,m2=http://h2:2380"));
    assert_eq!(texts(&found(vec![first.clone(), second], None)), [""; 0]);

    let other = with_flags("h2", &flags(2, "m1=http://old:2380,m2=http://h2:2380"));
    let discovery = found(vec![first, other], None);
    assert_eq!(
        texts(&discovery),
        [
            "peer URLs of \"m1\" differ: h1 says http://h1:2380; initial-cluster of h1 says http://h1:2380; initial-cluster of h2 says http://old:2380"
        ]
    );
    assert!(discovery.findings[0].is_contradiction());
}

#[test]
fn two_hosts_with_the_same_member_are_named() {
    let twins = vec![with_flags("h1", "--name=m1"), with_flags("h2", "--name=m1")];
    let discovery = found(twins, None);
    assert!(texts(&discovery).contains(&"h1 and h2 have the same member \"m1\"".to_owned()));
    let missing = |f: &&Finding| matches!(f, Finding::NotFound { what: "peer-urls", .. });
    assert_eq!(discovery.findings.iter().filter(missing).count(), 2);
}

#[test]
fn a_member_that_is_not_in_its_own_cluster_and_one_without_a_host_are_named() {
    let report = with_flags("h1", "--name=m1 --initial-cluster=m2=http://h2:2380");
    assert_eq!(
        texts(&found(vec![report], None)),
        [
            "h1: its member \"m1\" is not in its own initial-cluster",
            "initial-cluster of h1 knows a member \"m2\" at http://h2:2380, but no host with it was given",
        ]
    );
}

#[test]
fn a_member_list_counts_more_than_what_members_were_started_with() {
    let known = known(&[
        ("m1", "http://10.0.0.1:2380"),
        ("m2", "http://10.0.0.2:2380"),
        ("m3", "http://10.0.9.3:2380"),
    ]);
    let discovery = found(three(), Some(known));
    let m3 = discovery.spec.hosts[2].member.as_ref().unwrap();
    assert_eq!(m3.peer_urls, ["http://10.0.9.3:2380"]);
    assert_eq!(discovery.findings.len(), 1);
    assert!(texts(&discovery)[0].starts_with(
        "peer URLs of \"m3\" differ: the backup says http://10.0.9.3:2380; 10.0.0.3 says http://10.0.0.3:2380"
    ));
}

#[test]
fn a_member_that_the_list_does_not_have_is_named_and_one_long_gone_is_not() {
    let known = known(&[("m1", "http://10.0.0.1:2380"), ("m2", "http://10.0.0.2:2380")]);
    let discovery = found(three(), Some(known));
    assert_eq!(texts(&discovery), ["10.0.0.3: the backup knows no member \"m3\""]);
}

#[test]
fn a_member_list_alone_gives_hosts_and_says_what_nobody_looked_at() {
    let mut known = known(&[("m1", "https://10.0.0.1:2380"), ("m2", "https://[fd00::2]:2380")]);
    known.members[1].learner = true;
    let discovery = found(Vec::new(), Some(known));
    let hosts: Vec<_> = discovery.spec.hosts.iter().map(|host| host.host.as_str()).collect();
    assert_eq!(hosts, ["10.0.0.1", "fd00::2"]);
    assert_eq!(discovery.spec.check(), []);
    assert_eq!(texts(&discovery).len(), 3);
    let yaml = discovery.to_yaml();
    assert!(yaml.contains("# not found: how etcd runs of 10.0.0.1"), "{yaml}");
    assert!(yaml.contains("# note: \"m2\" is a learner"), "{yaml}");
}

#[test]
fn an_empty_host_takes_the_place_of_the_member_whose_address_it_has() {
    let empty = examine("10.0.0.2", &Gathered::parse("@system\n|hostname=n2\n@end\n").unwrap());
    let known = known(&[("m1", "http://10.0.0.1:2380"), ("m2", "http://10.0.0.2:2380")]);
    let hosts = vec![three().remove(0), empty];
    let discovery = found(hosts, Some(known));
    assert_eq!(discovery.spec.hosts[1].member.as_ref().unwrap().name, "m2");
    assert!(texts(&discovery)[0].starts_with("not found: etcd of 10.0.0.2"));
}

#[test]
fn different_versions_are_told_and_the_oldest_is_taken() {
    let mut hosts = three();
    hosts[1].etcd.as_mut().unwrap().version = Some("3.4.23".to_owned());
    let discovery = found(hosts, None);
    assert_eq!(discovery.spec.etcd.version.as_deref(), Some("3.4"));
    assert_eq!(texts(&discovery), ["hosts have different versions of etcd: 3.4, 3.5"]);
}

#[test]
fn what_differs_between_hosts_stays_with_them() {
    let mut hosts = three();
    hosts[1].etcd.as_mut().unwrap().data_dir = Some("/srv/etcd".into());
    hosts[1].clients = vec![Client {
        service: Service::Systemd("kube-apiserver".to_owned()),
        ready: None,
        restart: false,
    }];
    let spec = found(hosts, None).spec;
    assert_eq!(spec.etcd.data_dir, None);
    let resolved = spec.resolved();
    assert_eq!(resolved[1].data_dir, Path::new("/srv/etcd"));
    let clients: Vec<_> = resolved.iter().map(|host| host.clients.len()).collect();
    assert_eq!(clients, [0, 1, 0]);
}

#[test]
fn a_cluster_without_a_name_asks_for_one() {
    let discovery = combine(&Sources { hosts: three(), ..Sources::default() });
    let yaml = discovery.to_yaml();
    assert!(yaml.starts_with("# not found: the cluster's name (give --cluster"), "{yaml}");
}

#[test]
fn comments_stand_above_their_host_and_change_nothing() {
    let mut hosts = three();
    for report in &mut hosts {
        report.findings.push(Finding::NotFound {
            host: Some(report.host.clone()),
            what: "certificates",
            hint: "line one\nline two".to_owned(),
        });
    }
    let discovery = found(hosts, None);
    let yaml = discovery.to_yaml();
    assert_eq!(Spec::parse(&yaml).unwrap(), discovery.spec);
    let lines: Vec<_> = yaml.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| *line == "- host: \"10.0.0.2\"").unwrap();
    assert_eq!(lines[at - 1], "# not found: certificates of 10.0.0.2 (line one line two)");
    assert!(!yaml.contains("{}"), "{yaml}");
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9.-]{1,9}".prop_map(String::from),
        Just("- host: x".to_owned()),
        Just("clients: []".to_owned()),
        "[ -~é\n]{1,9}".prop_map(String::from),
    ]
}

prop_compose! {
    fn host_strategy()(
        host in word(),
        name in proptest::option::of(word()),
        urls in proptest::collection::vec(word(), 0..3),
        data_dir in proptest::option::of(word()),
        key in proptest::option::of(word()),
        unit in proptest::option::of(word()),
        clients in proptest::option::of(proptest::collection::vec(word(), 0..3)),
    ) -> Host {
        let client = |unit| Client { service: Service::Systemd(unit), ready: None, restart: true };
        Host {
            host,
            member: name.map(|name| Member { name, peer_urls: urls.clone(), client_urls: urls.clone() }),
            ssh: Ssh::default(),
            etcd: Etcd {
                data_dir: data_dir.map(Into::into),
                certificates: key.map(|key| Certificates { key: Some(key.into()), ..Certificates::default() }),
                service: unit.map(|unit| Service::StaticPod(unit.into())),
                ..Etcd::default()
            },
            clients: clients.map(|units| units.into_iter().map(client).collect()),
        }
    }
}

proptest! {
    #[test]
    fn any_description_reads_back_equal_with_its_comments(
        cluster in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}",
        hosts in proptest::collection::vec(host_strategy(), 0..4),
        hint in word(),
    ) {
        let about = |host: Option<&Host>| Finding::NotFound {
            host: host.map(|host| host.host.clone()), what: "x", hint: hint.clone(),
        };
        let mut findings: Vec<_> = hosts.iter().map(|host| about(Some(host))).collect();
        findings.push(about(None));
        let spec = Spec { cluster: cluster.parse().unwrap(), hosts, ..found(Vec::new(), None).spec };
        let yaml = Discovery { spec: spec.clone(), findings }.to_yaml();
        let read = Spec::parse(&yaml);
        prop_assert!(read.is_ok(), "{}\n{yaml}", read.unwrap_err());
        prop_assert_eq!(read.unwrap(), spec);
        prop_assert!(yaml.contains("# not found: x"));
    }
}
