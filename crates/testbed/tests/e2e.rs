//! The testbed itself: what the end-to-end tests take for granted.

use testbed::{Cluster, Etcd, Security};

#[test]
fn clusters_of_every_version_take_the_sample_and_agree_on_its_hash() {
    for version in Etcd::ALL {
        let cluster = Cluster::builder(version).start();
        let revision = cluster.write_sample();
        let hash = cluster.common_hashkv(revision);
        assert!(hash.compact_revision > 1, "{version:?}: the sample compacts");
        let keys = cluster.keys_at(revision);
        assert!(keys.len() > 400 && keys.iter().any(|key| key.lease != 0), "{version:?}");
    }
}

#[test]
fn a_killed_member_comes_back_with_its_data() {
    let mut cluster = Cluster::builder(Etcd::V3_5).security(Security::Plain).members(1).start();
    cluster.put("a", "1");
    cluster.kill(0);
    assert_eq!(cluster.members()[0].process_id(), None);
    cluster.start(0);
    assert_eq!(cluster.etcdctl(["get", "a"]).stdout, "a\n1\n");
}

#[test]
fn members_and_learners_join_a_running_cluster() {
    let mut cluster = Cluster::builder(Etcd::V3_5).members(1).start();
    cluster.put("a", "1");
    let second = cluster.add_member();
    cluster.add_learner();
    assert_eq!(cluster.etcdctl(["member", "list"]).stdout.lines().count(), 3);
    cluster.stop(second);
}
