//! Hosts that are gone: the cluster comes back on others, with other names and addresses.

use testbed::{Cluster, Etcd, Hosts, Run};

use crate::{BACKED_UP, GENERATION, Scene, Watched, is_step, tls};

/// A cluster of which a snapshot is all that is left, and hosts where etcd is installed and has never run.
fn scene() -> Scene {
    let old = Cluster::builder(Etcd::V3_5).start();
    let client = old.client();
    client.put(GENERATION, BACKED_UP);
    let revision = client.write_sample();
    let keys = client.keys_at(revision);

    let hosts = Hosts::builder().disk_bytes(3 << 30).start(3);
    let cluster = tls(Etcd::V3_5).named("n").lay_out(&hosts);
    for host in hosts.iter() {
        cluster.lay_out_kube(host);
        // Not even the folder of the data directory is there.
        host.ssh("rm -rf /var/lib/etcd");
    }
    let scene = Scene { revision, keys, ..Scene::of(hosts, cluster, true) };
    scene.save(&old.connection_flags());
    scene
}

#[test]
fn a_cluster_whose_hosts_are_gone_comes_back_on_new_ones() {
    let mut scene = scene();
    scene.more_etcd = "  owner: etcd:etcd\n".to_owned();
    let plan = Run::of(&mut scene.recover("plan", [""; 0])).ok();
    assert!(plan.stdout.contains("in /var/lib/etcd/n1; there are no old data"), "{plan}");
    let plan = plan.stderr_has(&["n1: there are no old data", "n2: the unit etcd is not enabled"]);
    assert!(!plan.stderr.contains("error"), "{plan}");

    // Cut off after the proof, and gone on with when clients have changed and compacted what was compared.
    let mut run = Watched::start(&mut scene.recover("run", [""; 0]));
    let reached = run.wait_for(|line| is_step(line) && line.contains("Start kube-apiserver"));
    run.kill();
    let cut_off = run.end();
    assert!(reached.is_some(), "{cut_off}");
    let client = scene.client();
    client.put("written since", "");
    client.etcdctl(["del", "written since"]);
    client.etcdctl(["compaction", &client.revision().to_string()]);
    let run = scene.run().ok();
    assert!(!run.stdout.contains("old data"), "{run}");
    scene.serves_the_backup();
    scene.clients_run();
    for (index, host) in scene.hosts.iter().enumerate() {
        let data = scene.cluster.data_dir(index);
        let owned = host.ssh(&format!("stat -c '%U:%G %a' {data} /var/lib/etcd"));
        assert_eq!(owned.stdout, "etcd:etcd 700\nroot:root 755\n");
        assert_eq!(host.ssh(&format!("find {data} ! -user etcd")).stdout, "");
    }

    let back = Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    assert!(back.stdout.contains("no host had old data"), "{back}");
    assert!(back.stdout.contains("/var/lib/etcd/n1.lifeboat-"), "{back}");
    assert!(!back.stderr.contains("warning"), "{back}");
    for (index, host) in scene.hosts.iter().enumerate() {
        assert!(!host.is_active("etcd"), "{} has no data to start etcd with", host.name());
        assert!(!host.path(scene.cluster.data_dir(index)).exists());
        let drop_in = "/etc/systemd/system/etcd.service.d/lifeboat-recover.conf";
        assert!(!host.path(drop_in).exists(), "nothing keeps etcd from being started again");
    }
    let plan = Run::of(&mut scene.recover("plan", [""; 0])).ok();
    assert!(!plan.stderr.contains("beside"), "what was taken back is nobody's: {plan}");
}
