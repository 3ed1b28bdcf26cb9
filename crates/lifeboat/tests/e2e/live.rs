//! Questions to a live cluster: the answers read as those of the real etcdctl.

use testbed::{Cluster, Etcd, Run, Security, until};

use crate::{client, lifeboat};

/// Numbers that move while a cluster does nothing, and addresses, are the only differences allowed;
/// these commands print none of the former.
#[test]
fn member_list_is_that_of_etcdctl_in_every_format() {
    for version in [Etcd::V3_4, Etcd::V3_5] {
        let mut cluster = Cluster::builder(version).members(1).start();
        cluster.add_learner();
        for format in ["simple", "table", "json", "fields"] {
            let arguments = ["member", "list", "-w", format];
            let theirs = cluster.etcdctl(arguments);
            let ours = client(&cluster, &arguments).ok();
            assert_eq!(ours.stdout, theirs.stdout, "{version:?} {format}");
        }
    }
}

#[test]
fn endpoint_status_is_that_of_etcdctl() {
    for version in [Etcd::V3_4, Etcd::V3_5] {
        let cluster = Cluster::builder(version).start();
        cluster.write_sample();
        for format in ["simple", "table", "json"] {
            let (ours, theirs) = status_at_rest(&cluster, format);
            assert_eq!(ours, theirs, "{version:?} {format}");
        }
    }
}

/// Our answer and etcdctl's, from a moment in which etcdctl's was the same before and after ours: a
/// member's size moves a little while it writes down what it has been told.
fn status_at_rest(cluster: &Cluster, format: &str) -> (String, String) {
    let arguments = ["endpoint", "status", "--cluster", "-w", format];
    let at_rest = || {
        let before = cluster.etcdctl(arguments).stdout;
        let ours = client(cluster, &arguments).ok().stdout;
        (cluster.etcdctl(arguments).stdout == before).then_some((ours, before))
    };
    until("a cluster at rest", at_rest, || cluster.etcdctl(arguments).stdout)
}

/// A run of which that holds. A member may be without its leader for a moment, or have lost it for good.
fn until_said(cluster: &Cluster, arguments: &[&str], holds: impl Fn(&Run) -> bool) -> Run {
    let run = || client(cluster, arguments);
    until("such an answer", || Some(run()).filter(&holds), || run().to_string())
}

#[test]
fn endpoint_health_says_which_member_is_dead() {
    let mut cluster = Cluster::builder(Etcd::V3_5).start();
    let healthy = |run: &Run| format!("{}{}", run.stdout, run.stderr).matches("is healthy").count();
    until_said(&cluster, &["endpoint", "health"], |run| healthy(run) == 3).ok();
    cluster.kill(2);
    // If it was the leader, the others elect one first.
    let run = until_said(&cluster, &["endpoint", "health"], |run| healthy(run) == 2);
    assert_ne!(run.code, Some(0), "{run}");
    let all = format!("{}{}", run.stdout, run.stderr);
    assert!(all.contains(&format!("{} is unhealthy", cluster.client_url(2))), "{run}");
}

#[test]
fn endpoint_hashkv_compares_all_members_at_one_revision() {
    for version in [Etcd::V3_4, Etcd::V3_5_30] {
        let cluster = Cluster::builder(version).start();
        let revision = cluster.write_sample();
        let theirs = cluster.common_hashkv(revision);
        let arguments = ["endpoint", "hashkv", "--cluster", "-w", "json"];
        let answer = client(&cluster, &arguments).ok().json();
        let members = answer.as_array().expect("one entry for each member");
        assert_eq!(members.len(), 3);
        for member in members {
            assert_eq!(member["HashKV"]["hash"].as_u64(), Some(u64::from(theirs.hash)));
        }
    }
}

#[test]
fn cluster_health_speaks_as_the_old_etcdctl_did() {
    let mut cluster = Cluster::builder(Etcd::V3_4).start();
    let is_healthy = |run: &Run| run.stdout.contains("cluster is healthy");
    until_said(&cluster, &["cluster-health"], is_healthy).ok();
    cluster.kill(0);
    let run = client(&cluster, &["cluster-health"]);
    assert!(!run.stdout.contains("cluster is healthy"), "{run}");
    assert_ne!(run.code, Some(0), "{run}");
}

#[test]
fn a_user_with_a_password_saves_and_a_wrong_password_does_not() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.put("a", "1");
    cluster.etcdctl(["user", "add", "root:secret"]);
    cluster.etcdctl(["user", "grant-role", "root", "root"]);
    cluster.etcdctl(["auth", "enable"]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("saved.db");
    let save = |user: &[&str]| {
        let endpoint = cluster.client_url(0);
        let mut arguments = vec!["--endpoints", &endpoint];
        arguments.extend(user);
        arguments.extend(["snapshot", "save", crate::text(&file)]);
        lifeboat().run(arguments)
    };
    for refused in [&[][..], &["--user=root:wrong"], &["--user=nobody:secret"]] {
        let run = save(refused);
        assert!(matches!(run.code, Some(1 | 4)), "{run}");
        run.stderr_has(&["error:", "help:"]);
        assert_eq!(crate::listing(folder.path()), [""; 0], "nothing is left behind");
    }
    save(&["--user=root:secret"]).ok();
    std::fs::remove_file(&file).unwrap();
    save(&["--user=root", "--password=secret"]).ok();

    // As the old tool, which asked what anybody may ask; this etcd tells its status without a user.
    let run = lifeboat().run(["--endpoints", &cluster.client_url(0), "cluster-health"]).ok();
    assert!(run.stdout.ends_with("cluster is healthy\n"), "{run}");
}
