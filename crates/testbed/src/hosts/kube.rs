//! Stand-ins for Kubernetes' control plane: real units, whose programs are small scripts.
//!
//! ```text
//!   kube-apiserver            holds a watch on its own host's etcd, and serves
//!                             https://127.0.0.1:6443/readyz while that etcd answers
//!   kube-scheduler            wait for readyz when they start, and then do as if they worked
//!   kube-controller-manager
//! ```
//! None of them orders itself after another: what starts when is up to whoever starts them. All write
//! to `/var/log/kube`.

use super::{EtcdOnHosts, Host, wait_until};

const SCRIPTS: &str = "/usr/local/lib/kube";

/// The units, in the order in which they are started.
const UNITS: [&str; 3] = ["kube-apiserver", "kube-scheduler", "kube-controller-manager"];

pub(super) fn install(cluster: &EtcdOnHosts, host: &Host) {
    let etcdctl = format!(
        "env ETCDCTL_API=3 {} {} --command-timeout=3s",
        cluster.etcdctl_on_host(),
        cluster.flags_on_host(),
    );
    host.write_script(&format!("{SCRIPTS}/kube-apiserver"), &apiserver(&etcdctl));
    for name in &UNITS[1..] {
        host.write_script(&format!("{SCRIPTS}/{name}"), &client_of_apiserver(name));
    }
    for name in UNITS {
        host.write(&format!("/etc/systemd/system/{name}.service"), unit(name));
    }
    host.ssh(&format!("systemctl daemon-reload && systemctl enable --quiet {}", UNITS.join(" ")));
}

pub(super) fn start(host: &Host) {
    host.ssh(&format!("systemctl start {}", UNITS.join(" ")));
    wait_until(
        "the stand-in of kube-apiserver is ready",
        || host.try_ssh("curl -fsk https://127.0.0.1:6443/readyz").code == Some(0),
        || host.journal("kube-apiserver"),
    );
}

fn unit(name: &str) -> String {
    format!(
        "[Unit]\nDescription=Stand-in of {name}\n\n[Service]\nExecStart={SCRIPTS}/{name}\n\
         Restart=always\nRestartSec=1\n\n[Install]\nWantedBy=multi-user.target\n",
    )
}

/// openssl serves whole answers from files: one of two is moved in place.
fn apiserver(etcdctl: &str) -> String {
    format!(
        r#"#!/bin/bash
mkdir -p /run/kube /var/log/kube && cd /run/kube || exit
say() {{ printf 'HTTP/1.0 %s\r\n\r\n%s\n' "$1" "$2" >next && mv next readyz; }}
say '500 not ready' 'etcd does not answer'
if [ ! -e tls.pem ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=kube-apiserver \
    -addext subjectAltName=IP:127.0.0.1 -days 30 -keyout tls-key.pem -out tls.pem 2>/dev/null
fi
openssl s_server -quiet -accept 127.0.0.1:6443 -cert tls.pem -key tls-key.pem -HTTP </dev/null >/dev/null 2>&1 &
{etcdctl} watch --prefix / >>/var/log/kube/watch 2>&1 &
while sleep 0.2; do
  if {etcdctl} get /ready >/dev/null 2>&1; then say '200 OK' ok; else say '500 not ready' 'etcd does not answer'; fi
done
"#
    )
}

fn client_of_apiserver(name: &str) -> String {
    format!(
        r#"#!/bin/bash
mkdir -p /var/log/kube
until curl -fsk https://127.0.0.1:6443/readyz; do sleep 0.2; done >/dev/null 2>&1
echo "$(cut -d' ' -f1 /proc/uptime) {name} found a ready kube-apiserver" >>/var/log/kube/{name}
exec sleep infinity
"#
    )
}
