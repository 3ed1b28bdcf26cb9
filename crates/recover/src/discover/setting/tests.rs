use super::*;

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

fn variables(assignments: &[&str]) -> Vec<Variable> {
    assignments.iter().map(|a| Variable::parse(a, "/etc/default/etcd").unwrap()).collect()
}

fn resolve(flags: &str, vars: &[&str], files: &[(&str, &str)]) -> EtcdConfig {
    let read = |path: &str| {
        files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    };
    EtcdConfig::resolve(&words(flags), "etcd.service", &variables(vars), read).unwrap()
}

#[test]
fn nothing_set_is_etcds_default() {
    let config = resolve("", &[], &[]);
    assert_eq!(
        (config.name(), config.data_dir().as_str(), config.wal_dir()),
        ("default", "default.etcd", None)
    );
    assert_eq!(config.peer_urls(), ["http://localhost:2380"]);
    assert_eq!(config.client_urls(), ["http://localhost:2379"]);
    assert!(config.initial_cluster().is_empty());
    assert_eq!(config.origin("name"), Origin::Default);
    assert_eq!(resolve("--name=m1", &[], &[]).data_dir(), "m1.etcd");
}

#[test]
fn a_flag_wins_over_a_variable() {
    let config = resolve("--name=flag", &["ETCD_NAME=var", "ETCD_DATA_DIR=/d"], &[]);
    assert_eq!((config.name(), config.data_dir().as_str()), ("flag", "/d"));
    assert_eq!(config.origin("name"), Origin::Flag("etcd.service".to_owned()));
    assert_eq!(config.origin("data-dir").to_string(), "variables in /etc/default/etcd");
}

#[test]
fn an_empty_variable_is_none() {
    let config = resolve("", &["ETCD_NAME=a", "ETCD_NAME=", "ETCD_WAL_DIR="], &[]);
    assert_eq!((config.name(), config.wal_dir()), ("default", None));
}

#[test]
fn with_a_config_file_flags_and_variables_are_ignored() {
    let yaml = "
# etcd's
name: 'file'
wal-dir: /w
initial-cluster: file=https://10.0.0.1:2380,b=https://10.0.0.2:2380
snapshot-count: 10000
listen-client-urls: https://0.0.0.0:2379
client-transport-security:
  cert-file: /c.pem
  key-file: /k.pem
  client-cert-auth: true
  trusted-ca-file: /ca.pem
peer-transport-security: {auto-tls: true}
log-outputs: [stderr]
";
    let files = [("/etc/etcd/etcd.yml", yaml)];
    let by_flag =
        resolve("--config-file /etc/etcd/etcd.yml --data-dir=/flag", &["ETCD_NAME=var"], &files);
    let by_variable = resolve(
        "--data-dir=/flag",
        &["ETCD_NAME=var", "ETCD_CONFIG_FILE=/etc/etcd/etcd.yml"],
        &files,
    );
    assert_eq!(by_flag, by_variable);
    assert_eq!((by_flag.name(), by_flag.data_dir().as_str()), ("file", "file.etcd"));
    assert_eq!(by_flag.wal_dir(), Some("/w"));
    assert_eq!(by_flag.initial_cluster()[1], ("b".to_owned(), "https://10.0.0.2:2380".to_owned()));
    let tls = by_flag.client_tls();
    assert_eq!(
        (tls.cert.as_deref(), tls.ca.as_deref(), tls.auto),
        (Some("/c.pem"), Some("/ca.pem"), false)
    );
    assert_eq!(by_flag.get("peer-auto-tls"), Some("true"));
    assert_eq!(by_flag.origin("name"), Origin::File("/etc/etcd/etcd.yml".to_owned()));
}

#[test]
fn a_config_file_may_be_json_or_empty() {
    let config = resolve("--config-file=/j", &[], &[("/j", r#"{"name": "m1", "data-dir": "/d"}"#)]);
    assert_eq!((config.name(), config.data_dir().as_str()), ("m1", "/d"));
    assert_eq!(
        resolve("--config-file=/j", &["ETCD_NAME=x"], &[("/j", "# none\n")]).name(),
        "default"
    );
}

#[test]
fn a_config_file_that_is_missing_or_broken_is_named() {
    let error = EtcdConfig::resolve(&words("--config-file=/x"), "u", &[], |_| None).unwrap_err();
    assert_eq!(error.to_string(), "etcd's config file /x was not read");
    let broken = |_: &str| Some("name: [".to_owned());
    let error = EtcdConfig::resolve(&words("--config-file=/x"), "u", &[], broken).unwrap_err();
    assert!(matches!(error, SettingError::File { ref path, .. } if path == "/x"), "{error}");
}

#[test]
fn tls_towards_clients_is_not_that_between_members() {
    let config = resolve(
        "--cert-file=/s.crt --key-file /s.key --client-cert-auth --trusted-ca-file=/ca.crt --peer-cert-file=/p.crt --peer-trusted-ca-file=/pca.crt",
        &["ETCD_PEER_KEY_FILE=/p.key", "ETCD_AUTO_TLS=true"],
        &[],
    );
    let text = |path: &str| Some(path.to_owned());
    let (cert, key, ca) = (text("/s.crt"), text("/s.key"), text("/ca.crt"));
    assert_eq!(config.client_tls(), Tls { cert, key, ca, auto: true });
    assert_eq!(config.get("peer-cert-file"), Some("/p.crt"));
}
