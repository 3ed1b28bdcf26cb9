use super::super::pod::tests::KUBEADM_1_20;
use super::*;

/// An answer of the script, made of kinds, names and texts.
fn answer(sections: &[(&str, &str)]) -> Gathered {
    let mut answer = String::new();
    for (heading, text) in sections {
        let lines: String = text.lines().map(|line| format!("|{line}\n")).collect();
        answer += &format!("@{heading}\n{lines}\n");
    }
    Gathered::parse(&(answer + "@end\n")).unwrap()
}

const DEBIAN: &str = "# /lib/systemd/system/etcd.service\n[Service]\nEnvironment=DAEMON_ARGS=\n\
    Environment=ETCD_NAME=%H\nEnvironment=ETCD_DATA_DIR=/var/lib/etcd/default\n\
    EnvironmentFile=-/etc/default/%p\nUser=etcd\nExecStart=/usr/bin/etcd $DAEMON_ARGS\n";

const IDLE: &str = "LoadState=loaded\nActiveState=inactive\nUnitFileState=enabled\nMainPID=0\n";
const ACTIVE: &str = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nMainPID=7\n";

fn texts(report: &HostReport) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

fn path(text: &str) -> Option<PathBuf> {
    Some(text.into())
}

#[test]
fn debians_package_is_found_stopped() {
    let file = "ETCD_INITIAL_CLUSTER=\"m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380\"\n\
        ETCD_NAME=m1\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.0.0.1:2380\n";
    let gathered = answer(&[
        ("system", "hostname=node1\nmachine=x86_64"),
        ("unit etcd.service", DEBIAN),
        ("state etcd.service", IDLE),
        ("file /etc/default/etcd", file),
        ("dir /var/lib/etcd/default", "owner=etcd:etcd\nmode=700\nmember=yes"),
        ("version /usr/bin/etcd", "etcd Version: 3.4.23\nGit SHA: x"),
    ]);
    let report = examine("10.0.0.1", &gathered);
    let etcd = report.etcd.as_ref().unwrap();
    assert_eq!(etcd.service, Some(Service::Systemd("etcd".to_owned())));
    assert_eq!((etcd.config.name(), &etcd.data_dir), ("m1", &path("/var/lib/etcd/default")));
    assert_eq!((etcd.version.as_deref(), etcd.running), (Some("3.4.23"), false));
    assert_eq!(etcd.owner, None, "the data tell their owner");
    assert_eq!(texts(&report), [""; 0]);
    assert!(report.clients.is_empty() && report.wanted.is_empty());
}

#[test]
fn without_data_the_owner_is_the_services_user_and_the_directory_is_looked_at() {
    let gathered = answer(&[("system", "hostname=node1"), ("unit etcd.service", DEBIAN)]);
    let report = examine("a", &gathered);
    let etcd = report.etcd.unwrap();
    assert_eq!((etcd.config.name(), etcd.owner.as_deref()), ("node1", Some("etcd:etcd")));
    assert_eq!(report.wanted, ["/var/lib/etcd/default"]);
}

#[test]
fn kubeadms_static_pod_is_found_with_its_clients_in_their_order() {
    let gathered = answer(&[
        ("system", "hostname=cp1"),
        ("file /etc/kubernetes/manifests/etcd.yaml", KUBEADM_1_20),
        (
            "manifest /etc/kubernetes/manifests/kube-apiserver.yaml",
            "--secure-port=6444\n--etcd-servers=https://127.0.0.1:2379",
        ),
        ("manifest /etc/kubernetes/manifests/kube-controller-manager.yaml", ""),
        ("manifest /etc/kubernetes/manifests/kube-scheduler.yaml", ""),
        ("state kubelet.service", ACTIVE),
        (
            "state kube-apiserver.service",
            "LoadState=not-found\nActiveState=inactive\nUnitFileState=",
        ),
        (
            "process 7",
            "etcd\n--name=cp1\n--data-dir=/var/lib/etcd\n--initial-advertise-peer-urls=https://10.0.0.1:2380",
        ),
        (
            "about 7",
            "exe=/usr/local/bin/etcd\ncwd=/\ncgroup=0::/kubepods.slice/kubepods-burstable.slice/x.scope",
        ),
        ("dir /var/lib/etcd", "owner=root:root\nmember=yes"),
        (
            "cert /etc/kubernetes/pki/etcd/server.crt",
            "issuer=CN=etcd-ca\nuse=client\nuse=server\nkey=/etc/kubernetes/pki/etcd/server.key",
        ),
        (
            "cert /etc/kubernetes/pki/etcd/peer.crt",
            "issuer=CN=etcd-ca\nuse=client\nuse=server\nkey=/etc/kubernetes/pki/etcd/peer.key",
        ),
        (
            "cert /etc/kubernetes/pki/etcd/healthcheck-client.crt",
            "issuer=CN=etcd-ca\nuse=client\nkey=/etc/kubernetes/pki/etcd/healthcheck-client.key",
        ),
    ]);
    let report = examine("cp1", &gathered);
    let etcd = report.etcd.as_ref().unwrap();
    let manifest =
        |name| Service::StaticPod(format!("/etc/kubernetes/manifests/{name}.yaml").into());
    assert_eq!(etcd.service, Some(manifest("etcd")));
    assert!(etcd.running && !etcd.server_certificate);
    assert_eq!(etcd.version.as_deref(), Some("3.4.13"));
    let certificates = etcd.certificates.as_ref().unwrap();
    assert_eq!(certificates.cert, path("/etc/kubernetes/pki/etcd/healthcheck-client.crt"));
    assert_eq!(certificates.ca, path("/etc/kubernetes/pki/etcd/ca.crt"));
    let client = |service, ready: Option<&str>, restart| Client {
        service,
        ready: ready.map(str::to_owned),
        restart,
    };
    assert_eq!(
        report.clients,
        [
            client(manifest("kube-apiserver"), Some("https://127.0.0.1:6444/readyz"), false),
            client(manifest("kube-controller-manager"), None, false),
            client(manifest("kube-scheduler"), None, false),
            client(Service::Systemd("kubelet".to_owned()), None, true),
        ]
    );
    assert_eq!(texts(&report), [""; 0]);
}

#[test]
fn kubesprays_unit_and_file_are_found_with_etcdctls_certificates() {
    let unit = "[Unit]\nDescription=etcd\n[Service]\nType=notify\nUser=root\n\
        EnvironmentFile=/etc/etcd.env\nExecStart=/usr/local/bin/etcd\nNotifyAccess=all\n";
    let file = "ETCD_DATA_DIR=/var/lib/etcd\nETCD_ADVERTISE_CLIENT_URLS=https://10.0.0.1:2379\n\
        ETCD_INITIAL_ADVERTISE_PEER_URLS=https://10.0.0.1:2380\nETCD_INITIAL_CLUSTER_STATE=existing\n\
        ETCD_NAME=etcd1\nETCD_PROXY=off\nETCD_INITIAL_CLUSTER=etcd1=https://10.0.0.1:2380,etcd2=https://10.0.0.2:2380\n\
        # TLS settings\nETCD_TRUSTED_CA_FILE=/etc/ssl/etcd/ssl/ca.pem\nETCD_CERT_FILE=/etc/ssl/etcd/ssl/member-n1.pem\n\
        ETCD_KEY_FILE=/etc/ssl/etcd/ssl/member-n1-key.pem\nETCD_CLIENT_CERT_AUTH=true\n\
        # CLI settings\nETCDCTL_ENDPOINTS=https://127.0.0.1:2379\nETCDCTL_CACERT=/etc/ssl/etcd/ssl/ca.pem\n\
        ETCDCTL_KEY=/etc/ssl/etcd/ssl/admin-n1-key.pem\nETCDCTL_CERT=/etc/ssl/etcd/ssl/admin-n1.pem\n";
    let events = unit.replace("etcd.env", "etcd-events.env");
    let events_file = "ETCD_DATA_DIR=/var/lib/etcd-events\nETCD_NAME=etcd1-events\n";
    let gathered = answer(&[
        ("system", "hostname=n1"),
        ("unit etcd-events.service", &events),
        ("unit etcd.service", unit),
        ("state etcd.service", ACTIVE),
        ("state etcd-events.service", ACTIVE),
        ("file /etc/etcd.env", file),
        ("file /etc/etcd-events.env", events_file),
        ("dir /var/lib/etcd", "member=yes"),
        ("dir /var/lib/etcd-events", "member=yes"),
    ]);
    let report = examine("n1", &gathered);
    let etcd = report.etcd.as_ref().unwrap();
    assert_eq!((etcd.title.as_str(), etcd.config.name()), ("etcd.service", "etcd1"));
    let certificates = etcd.certificates.as_ref().unwrap();
    assert_eq!(certificates.cert, path("/etc/ssl/etcd/ssl/admin-n1.pem"));
    assert_eq!(
        texts(&report),
        ["n1 has several etcds: etcd.service was taken, not etcd-events.service"]
    );
}

#[test]
fn an_installed_unit_without_data_gives_way_to_the_etcd_that_runs() {
    let gathered = answer(&[
        ("system", "hostname=cp1"),
        ("unit etcd.service", DEBIAN),
        ("state etcd.service", IDLE),
        ("file /etc/kubernetes/manifests/etcd.yaml", KUBEADM_1_20),
        ("dir /var/lib/etcd", "owner=root:root\nmember=yes"),
    ]);
    let report = examine("cp1", &gathered);
    assert_eq!(report.etcd.unwrap().title, "/etc/kubernetes/manifests/etcd.yaml");
}

#[test]
fn an_alias_is_the_same_etcd() {
    let gathered = answer(&[("unit etcd.service", DEBIAN), ("unit etcd2.service", DEBIAN)]);
    let report = examine("a", &gathered);
    assert_eq!(report.etcd.unwrap().title, "etcd.service");
    assert_eq!(report.findings, []);
}

#[test]
fn a_config_file_is_followed_and_one_that_is_missing_is_asked_for() {
    let unit = "[Service]\nUser=etcd\nGroup=adm\nExecStart=/bin/sh -c \"exec /opt/etcd/etcd --config-file '/etc/etcd/etcd.yml'\"\n";
    let without = answer(&[("unit etcd.service", unit)]);
    let report = examine("a", &without);
    assert_eq!(report.wanted, ["/etc/etcd/etcd.yml"]);
    assert!(report.etcd.is_none());
    assert!(texts(&report)[0].contains("/etc/etcd/etcd.yml was not read"));

    let file = "name: m1\ndata-dir: data\nwal-dir: /wal\nclient-transport-security: {cert-file: /c, key-file: /k}\n\
        advertise-client-urls: https://a:2379\n";
    let gathered = answer(&[
        ("unit etcd.service", unit),
        ("file /etc/etcd/etcd.yml", file),
        ("dir /data", "x=y"),
    ]);
    let report = examine("a", &gathered);
    let etcd = report.etcd.as_ref().unwrap();
    assert_eq!((&etcd.data_dir, &etcd.wal_dir), (&path("/data"), &path("/wal")));
    assert_eq!(etcd.owner.as_deref(), Some("etcd:adm"));
    assert_eq!(
        texts(&report),
        [
            "not found: certificates.ca of a (the CA that signed etcd's certificate)",
            "a: etcd's own certificate is used as a client's; if etcd refuses it, name a client's",
        ]
    );
}

#[test]
fn an_etcd_started_by_hand_is_found_by_its_process() {
    let gathered = answer(&[
        ("process 7", "/opt/etcd\n--name\nm1\n--data-dir\nd"),
        ("environ 7", "ETCD_WAL_DIR=/w"),
        ("about 7", "exe=/opt/etcd\ncwd=/srv\ncgroup=0::/user.slice"),
        ("dir /srv/d", "member=yes"),
        ("version /opt/etcd", "etcd Version: 3.5.16"),
    ]);
    let report = examine("a", &gathered);
    let etcd = report.etcd.as_ref().unwrap();
    assert_eq!((&etcd.data_dir, &etcd.wal_dir), (&path("/srv/d"), &path("/w")));
    assert_eq!((etcd.version.as_deref(), &etcd.service), (Some("3.5.16"), &None));
    assert_eq!(
        texts(&report),
        [
            "not found: how etcd is started of a (process 7 was started by hand: give service.command)"
        ]
    );
}

#[test]
fn an_etcd_that_runs_with_other_settings_than_it_would_start_with_is_told() {
    let gathered = answer(&[
        ("system", "hostname=node1"),
        ("unit etcd.service", DEBIAN),
        ("process 7", "/usr/bin/etcd"),
        ("environ 7", "ETCD_NAME=node1\nETCD_DATA_DIR=/old"),
        ("about 7", "cgroup=0::/system.slice/etcd.service"),
        ("dir /var/lib/etcd/default", "x=y"),
    ]);
    let report = examine("a", &gathered);
    assert!(report.etcd.as_ref().unwrap().running);
    assert!(report.findings[0].is_contradiction());
    assert_eq!(
        texts(&report),
        ["a: the etcd that runs has data-dir /old, but it would start with /var/lib/etcd/default"]
    );
}

#[test]
fn a_wrapper_around_etcd_is_taken_and_told() {
    let unit = "[Service]\nEnvironment=ETCD_NAME=m1 ETCD_DATA_DIR=/var/lib/etcd\n\
        ExecStart=/usr/lib/coreos/etcd-wrapper $ETCD_OPTS\n";
    let gathered = answer(&[("unit etcd-member.service", unit), ("dir /var/lib/etcd", "x=y")]);
    let report = examine("a", &gathered);
    assert_eq!(report.etcd.as_ref().unwrap().config.name(), "m1");
    assert!(
        matches!(&report.findings[..], [Finding::Wrapped { unit, .. }] if unit == "etcd-member.service")
    );
}

#[test]
fn units_that_only_sound_like_etcd_are_none() {
    let backup =
        "[Service]\nEnvironmentFile=/etc/etcd.env\nExecStart=/usr/local/bin/etcd-backup.sh\n";
    let gathered = answer(&[("unit etcd-backup.service", backup)]);
    let report = examine("a", &gathered);
    assert_eq!(
        texts(&report),
        ["not found: etcd of a (no unit, static pod or process of it is there)"]
    );
}

#[test]
fn kubernetes_that_run_etcd_by_their_own_rules_are_refused_with_advice() {
    for (platform, words) in [
        ("k3s", "--cluster-reset-restore-path"),
        ("rke2", "rke2 server --cluster-reset"),
        ("openshift", "cluster-restore.sh"),
        ("microk8s", "dqlite"),
    ] {
        let gathered = answer(&[("system", &format!("hostname=a\nplatform={platform}"))]);
        let report = examine("a", &gathered);
        assert!(report.findings.len() == 1 && report.findings[0].is_refusal(), "{report:?}");
        assert!(texts(&report)[0].contains(words), "{:?}", texts(&report));
    }
}

#[test]
fn openshifts_pod_is_known_by_its_namespace() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, namespace: openshift-etcd}\nspec:\n  containers:\n\
        \x20 - name: etcdctl\n    command: [/bin/bash, -c, 'trap TERM INT; sleep infinity']\n  - name: etcd\n    command: [/bin/sh, -c, 'exec etcd --data-dir=/var/lib/etcd']\n";
    let gathered = answer(&[
        ("system", "hostname=a\nplatform=openshift"),
        ("file /etc/kubernetes/manifests/etcd-pod.yaml", pod),
    ]);
    let report = examine("a", &gathered);
    assert!(report.etcd.is_none());
    assert_eq!(report.findings.len(), 1, "it is told once: {:?}", report.findings);
    assert!(report.findings[0].is_refusal());
}

#[test]
fn a_manifest_that_cannot_be_read_is_named() {
    let gathered = answer(&[("file /etc/kubernetes/manifests/etcd.yaml", "spec: [")]);
    let report = examine("a", &gathered);
    assert!(
        texts(&report)[0]
            .starts_with("a: /etc/kubernetes/manifests/etcd.yaml cannot be understood")
    );
}

#[test]
fn a_clients_certificate_is_of_the_same_issuer_and_has_its_key() {
    let unit = "[Service]\nExecStart=/usr/bin/etcd --name=a --data-dir=/d --cert-file=/p/server.pem --key-file=/p/server-key.pem --trusted-ca-file=/p/ca.pem\n";
    let server = ("cert /p/server.pem", "issuer=CN=a\nuse=server\nkey=/p/server-key.pem");
    let with = |more: &[(&str, &str)]| {
        let all = [&[("unit etcd.service", unit), ("dir /d", "member=yes"), server], more].concat();
        let report = examine("a", &answer(&all));
        let etcd = report.etcd.unwrap();
        (etcd.certificates.unwrap().cert, etcd.server_certificate)
    };
    let good = ("cert /p/x.pem", "issuer=CN=a\nuse=client\nkey=/p/x-key.pem");
    let named = ("cert /p/z-client.pem", "issuer=CN=a\nuse=client\nkey=/p/z-client-key.pem");
    let foreign = ("cert /p/f.pem", "issuer=CN=b\nuse=client\nkey=/p/f-key.pem");
    let keyless = ("cert /p/k.pem", "issuer=CN=a\nuse=client");
    assert_eq!(with(&[good, foreign]), (path("/p/x.pem"), false));
    assert_eq!(with(&[good, named]), (path("/p/z-client.pem"), false));
    assert_eq!(with(&[foreign, keyless]), (path("/p/server.pem"), true));
}
