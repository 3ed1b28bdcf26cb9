//! A cluster that comes back with fewer members, or with more.

use testbed::{Etcd, Run};

use crate::{Scene, tls};

/// Hosts without a member have etcd stopped, and no data in its place.
#[track_caller]
fn only_the_first_has_etcd(scene: &Scene) {
    for (index, host) in scene.hosts.iter().enumerate().skip(1) {
        assert!(!host.is_active("etcd"), "{}", host.name());
        assert!(!host.path(scene.cluster.data_dir(index)).exists());
    }
    assert_eq!(scene.beside().len(), 3, "old data are kept: {:?}", scene.beside());
}

/// Goal: one member is enough to begin with, and three grow of it again, on hosts whose own data were set aside. Method:
/// the file has a member for the first host alone, and then for all again; the members are lost each time.
#[test]
fn three_members_become_one_and_one_becomes_three() {
    let mut scene = Scene::without_clients(tls(Etcd::V3_5));
    scene.members = vec![0];
    // Two that have no member in the file are a cluster still.
    scene.hosts[0].ssh("systemctl kill --signal=KILL etcd; systemctl stop etcd");
    scene.run().code_is(5).stderr_has(&["the cluster is healthy", "10.177."]);

    scene.lose_all_members();
    scene.run().ok();
    scene.serves_the_backup();
    only_the_first_has_etcd(&scene);
    scene.hosts[1].reboot();
    only_the_first_has_etcd(&scene);

    Run::of(&mut scene.recover("rollback", [""; 0])).ok();
    scene.serves_the_old_data("after the backup");
    for undone in scene.beside() {
        std::fs::remove_dir_all(undone).unwrap();
    }

    scene.lose_all_members();
    scene.run().ok();
    Run::of(&mut scene.recover("commit", [""; 0])).ok();
    scene.serves_the_backup();
    only_the_first_has_etcd(&scene);

    let client = scene.client();
    client.put("written", "alone");
    scene.revision = client.revision();
    scene.keys = client.keys_at(scene.revision);
    std::fs::remove_file(scene.snapshot()).unwrap();
    let mut flags = vec![format!("--endpoints={}", scene.cluster.client_url(0))];
    flags.extend(client.flags);
    scene.save(&flags);
    scene.lose_all_members();

    scene.members = vec![0, 1, 2];
    scene.run().ok();
    scene.serves_the_backup();
    for (index, host) in scene.hosts.iter().enumerate() {
        let data = scene.cluster.data_dir(index);
        // On the others nothing but etcd's unit says whose the data are.
        let owned = host.ssh(&format!("stat -c '%U:%G %a' {data}; find {data} ! -user etcd"));
        assert_eq!(owned.stdout, "etcd:etcd 700\n");
    }
}
