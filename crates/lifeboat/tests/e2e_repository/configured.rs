//! Clusters and repositories by their names in the daemon's file.

use std::path::Path;

use testbed::{Cluster, Etcd, Run, Security};

use crate::{lifeboat, observed, text};

#[track_caller]
fn run(config: &Path, arguments: &[&str]) -> Run {
    let mut command = lifeboat().command([arguments[0]]);
    command.args(["--config", text(config)]).args(&arguments[1..]);
    observed(&mut command)
}

/// How many backups `list` has in a repository of the file.
#[track_caller]
fn backups(config: &Path, repository: &str) -> usize {
    let listed = run(config, &["list", "--repo", repository, "-w", "json"]).ok().json();
    listed["backups"].as_array().unwrap().len()
}

#[test]
fn clusters_and_repositories_are_known_by_their_names_in_the_config_file() {
    let cluster = Cluster::builder(Etcd::V3_5).members(1).security(Security::Plain).start();
    cluster.put("k", "v");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("lifeboat.yaml");
    let yaml = format!(
        "clusters:\n  - name: prod\n    endpoints: [{endpoint}]\n    repositories: [near, far]\n    \
         schedule: {{cron: \"0 0 * * *\"}}\n  - name: gone\n    endpoints: [http://127.0.0.1:1]\n    \
         repositories: [near]\n    schedule: {{cron: \"0 0 * * *\"}}\nrepositories:\n  - name: near\n    \
         url: {root}/near\n    retention: {{keep-last: 1}}\n  - name: far\n    url: {root}/far\n",
        endpoint = cluster.client_url(0),
        root = text(folder.path()),
    );
    std::fs::write(&config, yaml).unwrap();

    // All of them: the one that cannot be reached does not keep the other from its backups.
    let all = run(&config, &["backup"]);
    assert_eq!(all.code, Some(4), "{}", all.stderr);
    assert_eq!((backups(&config, "near"), backups(&config, "far")), (1, 1));

    run(&config, &["backup", "--cluster", "prod", "--repo", "near"]).ok();
    assert_eq!((backups(&config, "near"), backups(&config, "far")), (2, 1));

    // Each repository has its own policy.
    run(&config, &["prune", "--repo", "near"]).ok();
    run(&config, &["prune", "--repo", "far"]).ok();
    assert_eq!((backups(&config, "near"), backups(&config, "far")), (1, 1));
    run(&config, &["verify", "--repo", "far", "--all"]).ok();

    // The variable beats the file, as a flag would.
    let mut elsewhere = lifeboat().command(["backup", "--cluster", "prod", "--config"]);
    elsewhere.arg(&config).env("LIFEBOAT_SPOOL_DIR", "/no/such/folder");
    observed(&mut elsewhere).code_is(1).stderr_has(&["/no/such/folder"]);

    for arguments in
        [&["list", "--repo", "nera"][..], &["copy", "--repo", "near", "--all", "--to", "fra"]]
    {
        run(&config, arguments).code_is(2).stderr_has(&["it has: near, far"]);
    }
    let unsaid = run(&config, &["list"]);
    assert_eq!(unsaid.code, Some(2));
    assert!(unsaid.stderr.contains("near, far"), "{}", unsaid.stderr);
    let unknown = run(&config, &["backup", "--cluster", "nobody"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);
}
