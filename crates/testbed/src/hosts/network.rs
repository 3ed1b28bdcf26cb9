//! The bridge of a run, and the network namespace of each host on it.

use std::net::Ipv4Addr;

use super::{run, try_run};

/// The network of a run is 10.177.N.0/24.
fn address(number: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 177, number, last)
}

/// The bridge's own address, where the test is.
pub(super) fn gateway(number: u8) -> Ipv4Addr {
    address(number, 1)
}

fn bridge(number: u8) -> String {
    format!("lb{number}")
}

pub(super) fn make_bridge(number: u8) {
    let bridge = bridge(number);
    run(&format!("ip link add {bridge} type bridge"));
    run(&format!("ip address add {}/24 dev {bridge}", gateway(number)));
    run(&format!("ip link set {bridge} up"));
}

/// Removes namespaces, links and bridge of a run.
pub(super) fn remove(number: u8) {
    let prefix = format!("{}-", bridge(number));
    let namespaces = try_run("ip netns list").stdout;
    let names = namespaces.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with(&prefix)) {
        try_run(&format!("ip netns delete {name}"));
    }
    // The links go with the namespaces, unless something else holds one of these.
    let prefix = format!("{}h", bridge(number));
    let links = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let names = links.map(|link| link.file_name().to_string_lossy().into_owned());
    for name in names.filter(|name| name.starts_with(&prefix)) {
        try_run(&format!("ip link delete {name}"));
    }
    try_run(&format!("ip link delete {}", bridge(number)));
}

/// The place of one host on the bridge.
#[derive(Debug)]
pub(super) struct Cable {
    /// The namespace in which the host lives.
    pub(super) namespace: String,
    /// The end of its cable at the bridge.
    link: String,
    pub(super) address: Ipv4Addr,
}

impl Cable {
    /// Makes the namespace of host `host`, with a cable to the bridge.
    pub(super) fn make(number: u8, host: u8) -> Self {
        let bridge = bridge(number);
        let cable = Self {
            namespace: format!("{bridge}-h{host}"),
            link: format!("{bridge}h{host}"),
            address: address(number, 10 + host),
        };
        let Self { namespace, link, address } = &cable;
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip link add {link} type veth peer name eth0 netns {namespace}"));
        run(&format!("ip link set {link} master {bridge} up"));
        run(&format!("ip -n {namespace} address add {address}/24 dev eth0"));
        run(&format!("ip -n {namespace} link set eth0 up"));
        run(&format!("ip -n {namespace} link set lo up"));
        cable
    }

    pub(super) fn unplug(&self) {
        run(&format!("ip link set {} down", self.link));
    }

    pub(super) fn plug_in(&self) {
        run(&format!("ip link set {} up", self.link));
    }
}
