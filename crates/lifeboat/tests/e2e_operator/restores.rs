//! Restores. No pod runs here: the test does what their Jobs say, and says what Kubernetes would.

use crate::{
    pods::{claim, etcd_set, job, no_pod_of_set, pod_of_set, run, until_scaled},
    world::{World, backup_of, line_of, plain},
};
use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Patch, PatchParams, PostParams};
use operator::{
    api::{EtcdBackup, EtcdRestore, Phase, RestorePhase},
    conditions,
};
use serde_json::{Value, json};
use std::fs;
use testbed::{Cluster, Etcd, Security};

/// A key for tests, and what is encrypted to it.
const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";
const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";

async fn until_phase(world: &World, name: &str, phase: RestorePhase) -> EtcdRestore {
    let is = |restore: &EtcdRestore| {
        let now = restore.status.as_ref().and_then(|status| status.phase);
        assert!(now != Some(RestorePhase::Failed), "{:#?}\n{}", restore.status, world.logs());
        now == Some(phase)
    };
    world.until(name, "in that phase", is).await
}

#[tokio::test]
async fn a_plain_snapshot_goes_from_its_url_into_a_volume() {
    let world = World::ready().await;
    let cluster = plain(Etcd::V3_4);
    cluster.write_sample();
    let snapshot = world.folder().join("snapshot.db");
    cluster.etcdctl(["snapshot", "save", snapshot.to_str().unwrap()]);
    world.s3.put("plain/etcd.db", &fs::read(&snapshot).unwrap());
    let _operator = world.operator_with("a", &["--image", "lifeboat:1"]);
    claim(&world, "scratch").await;
    let restore = json!({
        "source": {
            "url": world.s3.url("plain/etcd.db"), "urlCredentials": { "secretName": "s3" },
        },
        "target": { "files": { "claimName": "scratch", "path": "deep/copy.db" } },
        "confirm": "scratch",
    });
    world.make::<EtcdRestore>("copy", restore).await;
    let volume = world.folder().join("volume");
    fs::create_dir(&volume).unwrap();
    run(&world, &job(&world, "build").await, "/volume", &volume).await.ok();
    until_phase(&world, "copy", RestorePhase::Succeeded).await;
    assert_eq!(fs::read(volume.join("deep/copy.db")).unwrap(), fs::read(&snapshot).unwrap());
}

/// What an object says of the cluster of the next test, and how it is found.
fn reached(how: &str, name: &str, cluster: &Cluster) -> Value {
    let url = cluster.client_url(0);
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let mut found = json!({
        "name": "prod",
        "tls": { "secretName": "etcd-tls", "serverName": "localhost" },
        "authSecretName": "etcd-user",
    });
    found[how] = json!({ "name": name, "port": port, "scheme": "https" });
    found
}

#[tokio::test]
async fn an_etcd_with_users_and_tls_is_found_backed_up_encrypted_and_brought_back_in_its_stateful_set()
 {
    let world = World::ready().await;
    let mut cluster = Cluster::builder(Etcd::V3_5).security(Security::Tls).members(1).start();
    let revision = cluster.write_sample();
    let hash = cluster.common_hashkv(revision).hash;
    cluster.etcdctl(["user", "add", "root:pass-word-of-etcd"]);
    cluster.etcdctl(["user", "grant-role", "root", "root"]);
    cluster.etcdctl(["auth", "enable"]);
    let as_root = ["--user", "root:pass-word-of-etcd"];

    let read = |path| fs::read_to_string(path).unwrap();
    let (cert, key) = cluster.certificates().client();
    let (ca, cert, key) = (read(cluster.certificates().ca()), read(cert), read(key));
    world.secret("etcd-tls", [("ca.crt", &*ca), ("tls.crt", &*cert), ("tls.key", &*key)]).await;
    world.secret("etcd-user", [("username", "root"), ("password", "pass-word-of-etcd")]).await;
    world.secret("identity", [("identity.txt", IDENTITY)]).await;
    let identities = json!({ "secretName": "identity", "key": "identity.txt" });
    let encryption = json!({ "recipients": [RECIPIENT], "identities": identities });
    world.store("sealed", "sealed", json!({ "encryption": encryption })).await;
    // A Service without names for its pods: with TLS, its own name is what certificates have.
    let endpoints = json!({
        "metadata": { "name": "clients" }, "subsets": [{ "addresses": [{ "ip": "10.1.2.3" }] }],
    });
    let endpoints: Endpoints = serde_json::from_value(endpoints).unwrap();
    world.all().create(&PostParams::default(), &endpoints).await.unwrap();
    etcd_set(&world).await;
    let names = ["clients", "etcd-0.peers"].map(|name| format!("{name}.{}.svc", world.namespace));
    let _operator = world.operator_that_knows(&names, &["--image", "lifeboat:1"]);

    let mut by_service = backup_of("", "sealed", json!({}));
    by_service["cluster"] = reached("service", "clients", &cluster);
    world.make::<EtcdBackup>("by-service", by_service).await;
    let made = world.until_phase("by-service", Phase::Succeeded).await.status.unwrap();
    assert_eq!(made.revision, Some(revision));
    let proved = made.verification.clone().unwrap();
    assert_eq!((proved.hash_kv, proved.agreed.len()), (hash, 1), "as etcd itself hashes");
    assert!(made.uri.as_ref().unwrap().ends_with("db.zst.age"));

    cluster.etcdctl([&as_root[..], &["put", "later", "x"]].concat());
    let member = &cluster.members()[0];
    let (name, data) = (member.name().to_owned(), member.data_dir().to_owned());
    let restore = json!({
        "source": { "backupName": "by-service" },
        "target": { "statefulSet": {
            "name": "etcd",
            "cluster": reached("statefulSet", "etcd", &cluster),
            "members": [{ "name": name, "peerUrls": [cluster.peer_url(0)] }],
        } },
    });
    world.make::<EtcdRestore>("back", restore).await;
    // Who is to confirm it sees what would be brought back.
    let is_shown = |restore: &EtcdRestore| {
        let status = restore.status.clone().unwrap_or_default();
        let told = conditions::get(&status.conditions, "Succeeded");
        (status.backup, status.revision) == (made.backup.clone(), Some(revision))
            && told.is_some_and(|told| told.message.contains("in BackupStore \"sealed\""))
    };
    world.until::<EtcdRestore>("back", "shown before it is confirmed", is_shown).await;
    let confirmed = Patch::Merge(json!({ "spec": { "confirm": "etcd" } }));
    let restores = world.all::<EtcdRestore>();
    restores.patch("back", &PatchParams::default(), &confirmed).await.unwrap();
    run(&world, &job(&world, "probe").await, "/none", &data).await.ok();
    until_scaled(&world, 0).await;
    cluster.stop(0);
    no_pod_of_set(&world).await;
    run(&world, &job(&world, "build").await, "/data/etcd", &data).await.ok();
    run(&world, &job(&world, "swap").await, "/data/etcd", &data).await.ok();
    until_scaled(&world, 1).await;
    cluster.start(0);
    pod_of_set(&world).await;
    let back = until_phase(&world, "back", RestorePhase::Succeeded).await.status.unwrap();
    assert_eq!((back.revision, back.hash_kv.is_some()), (Some(revision), true));
    let get = |key: &str| cluster.etcdctl([&as_root[..], &["get", key]].concat()).stdout;
    assert_eq!((get("later"), get("single/7")), (String::new(), "single/7\nvalue 7\n".to_owned()));
    let refused = cluster.try_etcdctl(["--user", "root:wrong", "get", "single/7"]);
    assert_ne!(refused.code, Some(0), "passwords are asked for again");
    let told = world.told().await;
    for secret in ["pass-word-of-etcd", "AGE-SECRET-KEY", line_of(&key)] {
        assert!(!told.contains(secret), "a secret was told");
    }
}
