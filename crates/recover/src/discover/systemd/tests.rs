use super::*;

/// The lines that matter of the unit in Debian's package etcd-server 3.4.
const DEBIAN: &str = r#"# /lib/systemd/system/etcd.service
[Unit]
Description=etcd - highly-available key value store
After=network.target

[Service]
Environment=DAEMON_ARGS=
Environment=ETCD_NAME=%H
Environment=ETCD_DATA_DIR=/var/lib/etcd/default
EnvironmentFile=-/etc/default/%p
Type=notify
User=etcd
PermissionsStartOnly=true
#ExecStart=/bin/sh -c "GOMAXPROCS=$(nproc) /usr/bin/etcd $DAEMON_ARGS"
ExecStart=/usr/bin/etcd $DAEMON_ARGS
Restart=on-abnormal

[Install]
WantedBy=multi-user.target
"#;

fn unit(text: &str) -> Unit {
    Unit::parse("etcd.service", "node1.example.org", text)
}

fn service(lines: &str) -> Unit {
    unit(&format!("[Service]\n{lines}"))
}

#[test]
fn debians_unit_takes_its_name_from_the_host_and_its_settings_from_etc_default() {
    let unit = unit(DEBIAN);
    assert_eq!(unit.user.as_deref(), Some("etcd"));
    assert_eq!(unit.environment_files, ["/etc/default/etcd"]);
    let file = "## options\nETCD_NAME=m1\nDAEMON_ARGS=\"--snapshot-count 5 --max-wals=3\"\n";
    let variables = unit.variables(|path| (path == "/etc/default/etcd").then(|| file.to_owned()));
    let value = |name| Variable::last(&variables, name).unwrap().value.as_str();
    assert_eq!((value("ETCD_NAME"), value("ETCD_DATA_DIR")), ("m1", "/var/lib/etcd/default"));
    assert_eq!(
        unit.commands(&variables),
        [["/usr/bin/etcd", "--snapshot-count", "5", "--max-wals=3"]]
    );

    let without = unit.variables(|_| None);
    assert_eq!(Variable::last(&without, "ETCD_NAME").unwrap().value, "node1.example.org");
    assert_eq!(unit.commands(&without), [["/usr/bin/etcd"]]);
}

#[test]
fn a_drop_in_forgets_with_an_empty_value_and_adds_otherwise() {
    let drop_in = "# /etc/systemd/system/etcd.service.d/own.conf\n[Service]\nExecStart=\nExecStart=/opt/etcd --name=x\nEnvironment=ETCD_NAME=y\nUser=root\n";
    let unit = unit(&format!("{DEBIAN}\n{drop_in}"));
    assert_eq!(unit.commands(&[]), [["/opt/etcd", "--name=x"]]);
    assert_eq!(Variable::last(&unit.environment, "ETCD_NAME").unwrap().value, "y");
    assert_eq!(unit.user.as_deref(), Some("root"));
}

#[test]
fn a_line_goes_on_after_a_backslash_and_over_comments() {
    let unit = service(
        "ExecStart=/usr/bin/etcd \\\n  --name=a \\\n# said in between\n; and again\n  --data-dir /d\nUser=etcd\n",
    );
    assert_eq!(unit.commands(&[]), [["/usr/bin/etcd", "--name=a", "--data-dir", "/d"]]);
    assert_eq!(unit.user.as_deref(), Some("etcd"));
}

#[test]
fn a_variable_alone_becomes_many_words_and_one_in_braces_stays_one() {
    let unit = service(
        "Environment=\"MANY=--a=1 '--b=x y'\" ONE=x\\sy\nExecStart=/e $MANY ${ONE} --c=${ONE} --d=$ONE $NONE $$HOME ${NONE}\n",
    );
    assert_eq!(
        unit.commands(&unit.environment),
        [["/e", "--a=1", "--b=x y", "x y", "--c=x y", "--d=$ONE", "$HOME", ""]]
    );
}

#[test]
fn signs_before_the_program_are_no_part_of_its_path() {
    let unit = service("ExecStart=-@/usr/bin/etcd other-name --name=a ; +/bin/true $X\n");
    assert_eq!(unit.commands(&[]), [vec!["/usr/bin/etcd", "--name=a"], vec!["/bin/true"]]);
    let unit = service("ExecStart=:/usr/bin/etcd $X\n");
    assert_eq!(unit.commands(&[]), [["/usr/bin/etcd", "$X"]]);
}

#[test]
fn specifiers_name_the_unit_its_instance_and_the_host() {
    let unit = Unit::parse(
        "etcd@m1.service",
        "node1.example.org",
        "[Service]\nExecStart=/e %i %p %n %N %H %l %% %z\nWorkingDirectory=%S/etcd\n",
    );
    assert_eq!(
        unit.commands(&[]),
        [[
            "/e",
            "m1",
            "etcd",
            "etcd@m1.service",
            "etcd@m1",
            "node1.example.org",
            "node1",
            "%",
            "%z"
        ]]
    );
    assert_eq!(unit.working_directory.as_deref(), Some("/var/lib/etcd"));
}

#[test]
fn settings_of_other_sections_are_not_the_services() {
    let unit = unit("[Unit]\nUser=x\n[Service]\nUser=y\n[Install]\nUser=z\n");
    assert_eq!(unit.user.as_deref(), Some("y"));
}
