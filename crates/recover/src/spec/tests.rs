use super::*;

const SHORT: &str = "
cluster: prod
hosts:
- host: 10.0.0.1
  member: {name: m1, peer-urls: ['https://10.0.0.1:2380']}
";

fn problems(yaml: &str) -> Vec<String> {
    Spec::parse(yaml).unwrap().check().iter().map(ToString::to_string).collect()
}

#[test]
fn a_short_file_is_enough() {
    let spec = Spec::parse(SHORT).unwrap();
    assert_eq!(spec.check(), []);
    let host = &spec.resolved()[0];
    assert_eq!(host.data_dir, Path::new("/var/lib/etcd"));
    assert_eq!(host.service, Service::Systemd("etcd".to_owned()));
    assert_eq!(host.member.as_ref().unwrap().client_urls, ["https://10.0.0.1:2379"]);
}

#[test]
fn a_host_may_say_otherwise() {
    let yaml = "
cluster: prod
ssh: {user: admin, port: 22, options: [ProxyJump=bastion]}
etcd: {data-dir: /var/lib/etcd, service: {static-pod: /etc/kubernetes/manifests/etcd.yaml}}
clients: [{systemd: kube-apiserver, ready: 'https://127.0.0.1:6443/readyz'}, {systemd: kubelet, restart: true}]
hosts:
- host: a
  member: {name: m1, peer-urls: ['http://a:2380']}
- host: b
  ssh: {port: 2222}
  etcd: {data-dir: /srv/etcd, service: {command: {start: /bin/a, stop: b, running: c}}}
  clients: []
";
    let spec = Spec::parse(yaml).unwrap();
    assert_eq!(spec.check(), []);
    let hosts = spec.resolved();
    assert_eq!(hosts[0].service.name(), "etcd");
    assert_eq!(hosts[0].clients.len(), 2);
    assert!(hosts[0].clients[1].restart);
    let b = &hosts[1];
    assert_eq!(
        (b.label.as_str(), b.ssh.port, b.ssh.user.as_deref()),
        ("b", Some(2222), Some("admin"))
    );
    assert_eq!((b.data_dir.to_str(), b.clients.len(), &b.member), (Some("/srv/etcd"), 0, &None));
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut spec = Spec::parse(SHORT).unwrap();
    spec.backup = Some(Backup { repo: Some("s3://b/etcd".to_owned()), ..Backup::default() });
    spec.clients = vec![Client {
        service: Service::Command(Commands {
            start: "a 'b' &".to_owned(),
            stop: "c: d".to_owned(),
            running: "e\nf".to_owned(),
        }),
        ready: None,
        restart: false,
    }];
    spec.etcd.service = Some(Service::StaticPod("/etc/kubernetes/manifests/etcd.yaml".into()));
    let yaml = spec.to_yaml();
    assert_eq!(Spec::parse(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")), spec);
}

#[test]
fn a_field_that_is_not_known_is_refused_with_its_line() {
    let error = Spec::parse("cluster: prod\nhots: []\n").unwrap_err().to_string();
    assert!(error.contains("hots") && error.contains('2'), "{error}");
}

#[test]
fn a_word_that_a_run_would_stumble_over_is_refused_with_its_line_and_field() {
    let refused = |yaml: &str| Spec::parse(yaml).unwrap_err().to_string();
    let member = "hosts:\n- {host: a, member: {name: m1, peer-urls: ['http://a:2380']}}\n";
    for (yaml, line, field, why) in [
        ("cluster: pr od/../x\n", 1, "cluster", "\"pr od/../x\" cannot name a cluster"),
        ("cluster: c\netcd:\n  version: '3.7'\n", 3, "version", "etcd \"3.7\" is not known here"),
        ("cluster: c\netcd:\n  owner: 'a b;c'\n", 3, "owner", "\"a b;c\" is no owner"),
        ("cluster: c\nbackup: {repo: r, cluster: a/b}\n", 2, "cluster", "\"a/b\" cannot name"),
    ] {
        let error = refused(&format!("{yaml}{member}"));
        let at = format!("line {line}");
        let told = [at.as_str(), field, why].iter().all(|part| error.contains(part));
        assert!(told, "{error}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let yaml = "
cluster: c
backup: {repo: a, file: b}
etcd: {data-dir: etcd, user: root}
hosts:
- {host: '-oProxyCommand=x', member: {name: m1, peer-urls: ['10.0.0.1:2380']}}
- {host: b, etcd: {data-dir: /a/../b, service: {systemd: 'a; b'}}, member: {name: m1, peer-urls: []}}
";
    let problems = problems(yaml).join("\n");
    for part in [
        "backup: needs either repo or file",
        "hosts: names: \"m1\" is there twice",
        "hosts.m1.host: \"-oProxyCommand=x\" is no host",
        "\"10.0.0.1:2380\" is not of the form",
        "hosts.m1.etcd.data-dir: \"etcd\" is not an absolute path",
        "hosts.m1.etcd.data-dir: /a/../b has `..` in it",
        "hosts.m1.etcd.user: needs password-file",
        "\"a; b\" is no unit's name",
        "hosts.m1.member.peer-urls: there is none",
    ] {
        assert!(problems.contains(part), "{part}\nnot in\n{problems}");
    }
}

#[test]
fn one_directory_cannot_be_two_members() {
    let yaml = SHORT.to_owned()
        + "- {host: 10.0.0.1, member: {name: m2, peer-urls: ['https://10.0.0.1:2480'], client-urls: ['https://10.0.0.1:2479']}}\n";
    assert_eq!(problems(&yaml), ["hosts.m2: /var/lib/etcd of 10.0.0.1 is there twice"]);
}

#[test]
fn one_client_url_cannot_be_two_members_but_each_may_name_its_own_loopback() {
    let yaml = |url: &str| {
        format!(
            "cluster: c\nhosts:\n\
             - {{host: a, member: {{name: m1, peer-urls: ['http://a:2380'], client-urls: ['{url}']}}}}\n\
             - {{host: b, member: {{name: m2, peer-urls: ['http://b:2380'], client-urls: ['{url}']}}}}\n"
        )
    };
    assert_eq!(
        problems(&yaml("http://a:2379")),
        ["hosts: client URLs: \"http://a:2379\" is there twice"]
    );
    for own in ["http://127.0.0.1:2379", "http://localhost:2379", "http://[::1]:2379"] {
        Spec::parse(&yaml(own)).unwrap();
    }
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prod.yaml");
    let yaml = "cluster: c
# data-dir: not this one
etcd:
  data-dir: /etc
  user: root
hosts:
- host: 10.0.0.1
  member: {name: m1, peer-urls: ['http://10.0.0.1:2380']}
- host: 10.0.0.2
  etcd:
    data-dir: /a/../b
  member:
    name: -m2
    peer-urls: ['http://10.0.0.2:2380']
";
    std::fs::write(&file, yaml).unwrap();
    let error = Spec::load(&file).unwrap_err().to_string();
    for part in [
        "line 4: hosts.m1.etcd.data-dir: /etc is a folder of the system",
        "line 5: hosts.m1.etcd.user: needs password-file",
        "line 11: hosts.-m2.etcd.data-dir: /a/../b has `..` in it",
        "line 13: hosts.-m2.member.name: \"-m2\" is no member's name",
    ] {
        assert!(error.contains(part), "{part}\nnot in\n{error}");
    }
}

#[test]
fn folders_of_the_system_are_nobodys_data() {
    let refused = |dir: &str| {
        let yaml = SHORT.to_owned() + &format!("  etcd: {{data-dir: '{dir}'}}\n");
        problems(&yaml).iter().any(|problem| problem.contains("is a folder of the system"))
    };
    for dir in ["/etc", "/etc/", "/./var/lib", "/usr", "/root", "/opt", "/proc/1", "/usr/lib/x"] {
        assert!(refused(dir), "{dir}");
    }
    for dir in ["/var/lib/etcd", "/data", "/opt/etcd/data", "/srv/etcd", "/mnt"] {
        assert!(!refused(dir), "{dir}");
    }
}

#[test]
fn a_members_name_has_nothing_that_leads_elsewhere() {
    for name in ["a\\nb", "\\tx", "-rf", "a/b", "a,b", "a=b", ".."] {
        let yaml = format!(
            "cluster: c\nhosts:\n- {{host: a, member: {{name: \"{name}\", peer-urls: ['http://a:2380']}}}}\n"
        );
        assert!(
            problems(&yaml).iter().any(|problem| problem.contains("is no member's name")),
            "{name}"
        );
    }
}

#[test]
fn a_cluster_needs_a_name() {
    let error = Spec::parse(&SHORT.replace("prod", "")).unwrap_err().to_string();
    assert!(error.contains("the cluster needs a name"), "{error}");
}

#[test]
fn a_service_is_of_one_kind() {
    for service in ["{}", "{systemd: etcd, static-pod: /etc/etcd.yaml}"] {
        for setting in [format!("etcd: {{service: {service}}}"), format!("clients: [{service}]")] {
            let error = Spec::parse(&format!("{SHORT}{setting}\n")).unwrap_err().to_string();
            assert!(error.contains("exactly one of systemd, static-pod and command"), "{error}");
        }
    }
}

/// A run needs its own journal and the certificates when the old data have been set aside.
#[test]
fn what_is_needed_meanwhile_lies_outside_of_the_data() {
    let of = |etcd: &str, ssh: &str| {
        problems(&format!("{SHORT}  etcd: {{data-dir: /srv/e, {etcd}}}\n  ssh: {{{ssh}}}\n"))
    };
    assert_eq!(of("", "state-dir: /srv/lifeboat"), [""; 0]);
    assert_eq!(of("", "state-dir: /srv/e2"), [""; 0]);
    for (etcd, ssh, at) in [
        ("", "state-dir: /srv/e/lifeboat", "ssh.state-dir"),
        ("", "state-dir: /srv/e", "ssh.state-dir"),
        ("wal-dir: /wal", "state-dir: /wal/x", "ssh.state-dir"),
        ("certificates: {ca: /srv/e/pki/ca.pem}", "", "etcd.certificates.ca"),
        ("service: {static-pod: /srv/e/etcd.yaml}", "", "etcd.service"),
        ("user: root, password-file: /srv/e/pw", "", "etcd.password-file"),
    ] {
        let found = of(etcd, ssh).concat();
        assert!(found.starts_with(&format!("hosts.m1.{at}: must be outside of /")), "{found}");
    }
    let member = problems(&format!("{SHORT}  etcd: {{data-dir: /srv/e/member}}\n"));
    assert_eq!(member, ["hosts.m1.etcd.data-dir: name the folder that `member` lies in"]);
}
